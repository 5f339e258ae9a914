//! The DataFusion session behind queries: PostgreSQL's leanings, our functions, a memory limit.
//!
//! Invariant: what a view computes and what a batch query computes come from the functions registered here.

use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use tidewire_types::{Result, SqlError};

use crate::flat_map::{PruneFlatMap, TidewirePlanner};
use crate::functions;

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
    let mut runtime = RuntimeEnvBuilder::new();
    if let Some(pool) = memory {
        runtime = runtime.with_memory_pool(pool);
    }
    let runtime = runtime.build_arc().map_err(SqlError::internal)?;
    let state = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_query_planner(Arc::new(TidewirePlanner))
        .with_optimizer_rule(Arc::new(PruneFlatMap))
        .build();
    let session = SessionContext::new_with_state(state);
    for function in functions::all() {
        session.register_udf(function);
    }
    Ok(session)
}
