//! The DataFusion session behind queries: PostgreSQL's leanings, our functions, a memory limit.
//!
//! Invariant: what a view computes and what a batch query computes come from the functions registered here.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};
use tidewire_types::{Result, SqlError};

use crate::flat_map::FlatMapPlanner;
use crate::windows::batch::WindowPlanner;
use crate::{functions, rules, windows};

/// A session for batch queries: `target_partitions` threads a query, all queries of the session within `memory`.
///
/// Cheap to clone; functions that only one client has are registered on a clone of its state.
pub fn session_context(target_partitions: usize, memory: Option<Arc<dyn MemoryPool>>) -> Result<SessionContext> {
    let mut config = SessionConfig::new()
        .with_target_partitions(target_partitions.max(1))
        .with_information_schema(false)
        .with_create_default_catalog_and_schema(true);
    let options = config.options_mut();
    options.execution.time_zone = Some("UTC".into());
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = true;
    // A lookup by key says how few rows it gives: no thread helps with these.
    options.execution.use_row_number_estimates_to_optimize_partitioning = true;
    // What fields say beyond their types may differ: a function tells more once its arguments are constants.
    options.execution.skip_physical_aggregate_schema_check = true;
    let mut runtime = RuntimeEnvBuilder::new();
    if let Some(pool) = memory {
        runtime = runtime.with_memory_pool(pool);
    }
    let runtime = runtime.build_arc().map_err(SqlError::internal)?;
    let state = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_optimizer_rules(rules::for_queries())
        .with_physical_optimizer_rules(rules::physical())
        .with_query_planner(Arc::new(Planner))
        .build();
    let session = SessionContext::new_with_state(state);
    for function in functions::all() {
        session.register_udf(function);
    }
    functions::register_aggregates(&session);
    for function in windows::function::all() {
        session.register_udwf(function);
    }
    Ok(session)
}

/// DataFusion's planner of batch queries, and ours for our own nodes.
#[derive(Debug)]
struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        let ours: Vec<Arc<dyn ExtensionPlanner + Send + Sync>> =
            vec![Arc::new(WindowPlanner), Arc::new(FlatMapPlanner)];
        DefaultPhysicalPlanner::with_extension_planners(ours).create_physical_plan(plan, session).await
    }
}
