//! Names, types and plans of queries, and how a planned query runs.
//!
//! [`Context::logical`] is the common part of everything that is planned: from the AST to an analyzed plan whose
//! columns have exactly the Arrow types of their SQL types. Invariant: a [`Planned`] query gives batches of exactly
//! [`Planned::schema`].

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, ExprSchemable, InvariantLevel, LogicalPlan, LogicalPlanBuilder, TableScan};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionContext;
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use futures::StreamExt;
use tidewire_catalog::{Catalog, Object};
use tidewire_operators::expr::sql_error;
use tidewire_sql::ast;
use tidewire_types::{ObjectId, Result, SqlError, SqlState, SqlType};

use crate::Dataflow;
use crate::column_names::visible;
use crate::comparisons;
use crate::errors::{placed, planning_error};
use crate::functions::convert::convert;
use crate::functions::sets;
use crate::provider::{Provider, object_of, to_datafusion};
use crate::rewrite::{self, check_depth};
use crate::rules::distinct_on;
use crate::set_returning::from::RowNames;
use crate::{
    aggregate_checks, common_types, grouping_sets, in_lists, parameters, primary_keys, recursive, set_operation,
    set_returning, spans, unnest_query, using, whole_rows, windows,
};

/// Depth of a statement from which it is planned on a stack of its own.
const LARGE_STACK_DEPTH: usize = 50;
/// Bytes of that stack; only the pages that are touched cost memory.
const LARGE_STACK_BYTES: usize = 256 << 20;

/// Makes tables of names, for queries that run: the engine gives snapshots, the server gives pg_catalog.
pub trait TableResolver: Send + Sync {
    /// The rows of a source, table or materialized view, at the query's moment. Its schema is the object's.
    fn object(&self, object: &Arc<Object>) -> Result<Arc<dyn TableProvider>>;

    /// A table that is no catalog object (`pg_catalog.pg_class`, `tidewire.sources`, `information_schema.tables`).
    fn system_table(&self, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>>;

    /// The names of all system tables, for hints: (schema, name).
    fn system_tables(&self) -> Vec<(String, String)>;
}

/// What planning may look at. Cheap to make: one for each statement.
pub struct Context<'a> {
    /// All objects.
    pub catalog: &'a Catalog,
    /// Makes tables of names.
    pub tables: &'a dyn TableResolver,
    /// The schemas that unqualified names are looked up in, in order.
    pub search_path: &'a [String],
    /// Holds functions, configuration and the runtime (memory pool) of batch queries.
    pub session: &'a SessionContext,
}

/// A query that can run: types known, rules applied. `now()` has the time of planning: plan again to run again.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The optimized plan, its windows DataFusion's; parameters may still be open.
    pub plan: LogicalPlan,
    /// The plan before it was optimized, where it has parameters: what their values decide is known only with them.
    pub(crate) analyzed: Option<Box<LogicalPlan>>,
    /// The types of its parameters `$1 ..`.
    pub parameters: Vec<SqlType>,
    /// Its columns, with the metadata of [`SqlType`], all nullable. Names may repeat.
    pub schema: SchemaRef,
    /// The catalog objects that it reads, plain views and what they read included, each once.
    pub objects: Vec<ObjectId>,
    /// Planning it again later would give the same: see [`Planned::with_tables`].
    pub is_lasting: bool,
}

/// An analyzed plan, before rules.
pub(crate) struct Logical {
    /// Catalog objects are [`crate::provider::ObjectSource`]s; the columns have the types of `schema`.
    pub(crate) plan: LogicalPlan,
    pub(crate) schema: SchemaRef,
    pub(crate) parameters: Vec<SqlType>,
    pub(crate) objects: Vec<ObjectId>,
}

impl Context<'_> {
    /// Plans a query for running once. `text` is the statement's, for error positions; `parameters` are types that
    /// the client declared (None: to be inferred).
    ///
    /// Errors: as PostgreSQL gives them: `42P01`, `42703`, `42883`, `42804`, `42803`, .. with position and hint.
    pub fn query(&self, query: &ast::Query, text: &str, parameters: &[Option<SqlType>]) -> Result<Planned> {
        on_large_stack(check_depth(query)?, || {
            let logical = self.logical(query, text, parameters, 0)?;
            self.optimized(logical, text)
        })
    }

    /// Plans a view: the dataflow, and the names and types of the view's columns.
    ///
    /// Errors: as [`Context::query`]; `0A000` with the reason for what cannot be maintained.
    pub fn dataflow(&self, query: &ast::Query, text: &str) -> Result<(Dataflow, Planned)> {
        on_large_stack(check_depth(query)?, || {
            let logical = self.logical(query, text, &[], 0)?;
            crate::lower::dataflow(self, logical, text)
        })
    }

    /// The value of an expression without columns (an argument of EXECUTE), as it is assigned to something of type `to`.
    pub fn constant(&self, expr: &ast::Expr, text: &str, to: &SqlType) -> Result<ScalarValue> {
        let state = self.session.state();
        on_large_stack(check_depth(expr)?, || {
            let expr = self.expr(expr, &DFSchema::empty(), text, &state)?;
            let field = expr.to_field(&DFSchema::empty()).map_err(|e| planning_error(e, text))?.1;
            let physical = state.create_physical_expr(expr, &DFSchema::empty()).map_err(|e| planning_error(e, text))?;
            let options = RecordBatchOptions::new().with_row_count(Some(1));
            let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?;
            let value = physical.evaluate(&row).and_then(|value| value.into_array(1));
            value
                .and_then(|value| convert(&value, &SqlType::of(&field), to, true))
                .and_then(|value| ScalarValue::try_from_array(&value, 0))
                .map_err(|e| planning_error(e, text))
        })
    }

    /// An expression over the columns of `schema`; not yet coerced.
    pub(crate) fn expr(&self, expr: &ast::Expr, schema: &DFSchema, text: &str, state: &SessionState) -> Result<Expr> {
        let rewritten = rewrite::rewrite_with_parameters(expr)?;
        if rewritten.n_parameters > 0 {
            return Err(SqlError::new(SqlState::UndefinedParameter, "there is no parameter $1"));
        }
        Provider::new(self, state, 0).plan_expr(rewritten.expr, schema, &[], text)
    }

    /// From the AST to an analyzed plan. `depth` counts views in views.
    pub(crate) fn logical(
        &self,
        query: &ast::Query,
        text: &str,
        declared: &[Option<SqlType>],
        depth: usize,
    ) -> Result<Logical> {
        let mut row_names = RowNames::default();
        let mut first_error = None;
        let mut spelled_out = None;
        loop {
            let read = spelled_out.as_ref().unwrap_or(query);
            let error = match self.logical_with(read, text, declared, depth, &mut row_names, None) {
                Ok(logical) => return Ok(logical),
                Err(error) => error,
            };
            let mut is_read = row_names.read_instead(&error);
            if !is_read && spelled_out.is_none() {
                spelled_out = whole_rows::spelled_out(self, query, &error, text, depth);
                is_read = spelled_out.is_some();
            }
            let first = first_error.get_or_insert(error);
            if !is_read {
                return Err(first.clone());
            }
        }
    }

    /// `watch` sees the expressions as soon as they have types, and once more at the end.
    fn logical_with(
        &self,
        query: &ast::Query,
        text: &str,
        declared: &[Option<SqlType>],
        depth: usize,
        row_names: &mut RowNames,
        watch: Option<&mut dyn FnMut(&Expr)>,
    ) -> Result<Logical> {
        let rewrite::Rewritten { query: rewritten, parameters: inferred, n_parameters } =
            rewrite::rewrite(query, row_names).map_err(|e| placed(e, text))?;
        let state = self.session.state();
        windows::check_functions(&rewritten, &state)?;

        let mut types: Vec<Option<SqlType>> = declared.to_vec();
        parameters::add(&mut types, n_parameters, inferred);
        parameters::find(query, &mut types, |query, types, watch| {
            self.logical_with(query, text, types, depth, &mut row_names.clone(), Some(watch)).map(|_| ())
        });
        let types: Vec<_> = types.into_iter().map(|t| Some(t.unwrap_or(SqlType::Text))).collect();
        let provider = Provider::new(self, &state, depth);
        let raw = match sql_to_plan(&provider, &rewritten, &types, text) {
            Err(error) if sets::is_of_struct(&error) => {
                provider.unnest_structs();
                sql_to_plan(&provider, &rewritten, &types, text)
            }
            planned => planned,
        }?;
        let parameters = types.into_iter().flatten().collect();
        aggregate_checks::check(&raw)
            .and_then(|()| unnest_query::check_types(&raw))
            .and_then(|()| set_operation::check_types(&raw))
            .and_then(|()| recursive::check_types(&raw))
            .map_err(|e| planning_error(e, text))?;
        windows::spec::check_filters(&raw)?;

        let plan = primary_keys::without_unread(raw).and_then(comparisons::in_plan);
        let analyzed = plan.and_then(|plan| analyzed(plan, &state, watch));
        let analyzed = analyzed.map_err(|e| planning_error(e, text))?;
        windows::spec::check_frames(&analyzed)?;
        let mut objects = provider.views();
        collect_objects(&analyzed, &mut objects)?;
        let (plan, schema) = with_sql_types(analyzed).map_err(|e| planning_error(e, text))?;
        Ok(Logical { plan, schema, parameters, objects: objects.into_iter().collect() })
    }

    /// Puts tables with rows in, and applies the rules for batch queries.
    pub(crate) fn optimized(&self, logical: Logical, text: &str) -> Result<Planned> {
        let Logical { plan, schema, parameters, objects } = logical;
        let is_lasting = crate::lasting::is_lasting(&plan);
        let plan = self.with_tables(plan, None)?;
        let analyzed = unnest_query::when_asked(plan).map_err(|e| planning_error(e, text))?;
        let plan = self.session.state().optimize(&analyzed).map_err(|e| planning_error(e, text))?;
        let analyzed = (!parameters.is_empty()).then(|| Box::new(analyzed));
        Ok(Planned { plan, analyzed, parameters, schema, objects, is_lasting })
    }

    /// Puts tables with rows in the place of objects, but for `except`.
    pub(crate) fn with_tables(&self, plan: LogicalPlan, except: Option<ObjectId>) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let LogicalPlan::TableScan(scan) = plan else { return Ok(Transformed::no(plan)) };
            let Some(object) = object_of(&scan.source).filter(|o| Some(o.id) != except) else {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            };
            let source = provider_as_source(self.tables.object(object).map_err(to_datafusion)?);
            Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
        })
        .map(|t| t.data)
        .map_err(sql_error)
    }
}

impl Logical {
    /// The plan under other names, with the types of `columns` (a plain view keeps those it was created with).
    pub(crate) fn with_columns(&self, columns: &Schema) -> Result<LogicalPlan> {
        if columns.fields().len() != self.schema.fields().len() {
            return Err(SqlError::internal("a view's columns have changed"));
        }
        let exprs = self.plan.schema().iter().zip(columns.fields()).map(|((qualifier, present), field)| {
            let column = Expr::from((qualifier, present));
            let expr = match present.data_type() == field.data_type() {
                true => column,
                false => Expr::Cast(Cast::new_from_field(Box::new(column), field.clone())),
            };
            expr.alias(field.name())
        });
        let exprs: Vec<_> = exprs.collect();
        LogicalPlanBuilder::from(self.plan.clone()).project(exprs).and_then(|b| b.build()).map_err(sql_error)
    }
}

/// A plan whose types are known and whose subqueries are joins. DataFusion's own check comes after that: it refuses
/// subqueries that its rules do not know.
fn analyzed(
    plan: LogicalPlan,
    state: &SessionState,
    mut watch: Option<&mut dyn FnMut(&Expr)>,
) -> datafusion::common::Result<LogicalPlan> {
    let analyzer = state.analyzer();
    let mut plan = plan;
    for rule in &analyzer.rules {
        plan = rule.analyze(plan, state.config_options())?;
    }
    if let Some(watch) = &mut watch {
        parameters::each_expr(&plan, *watch);
    }
    let plan = common_types::in_plan(plan)?;
    let plan = grouping_sets::expand(set_returning::plan(plan)?)?;
    let plan = unnest_query::unnest(distinct_on::over_columns(spans::in_plan(plan)?)?)?;
    let plan = in_lists::in_plan(plan)?;
    if let Some(watch) = watch {
        parameters::each_expr(&plan, watch);
    }
    plan.check_invariants(InvariantLevel::Executable)?;
    Ok(plan)
}

fn sql_to_plan(
    provider: &Provider<'_>,
    query: &ast::Query,
    types: &[Option<SqlType>],
    text: &str,
) -> Result<LogicalPlan> {
    let fields: Vec<Option<FieldRef>> = types.iter().map(|t| t.as_ref().map(|t| Arc::new(t.field("", true)))).collect();
    let mut context = PlannerContext::new().with_prepare_param_data_types(fields);
    let statement = ast::Statement::Query(Box::new(query.clone()));
    SqlToRel::new(provider)
        .sql_statement_to_plan_with_context(statement, &mut context)
        .and_then(using::strip)
        .map_err(|e| planning_error(e, text))
}

fn collect_objects(plan: &LogicalPlan, objects: &mut BTreeSet<ObjectId>) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(object) = object_of(&scan.source)
        {
            objects.insert(object.id);
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map(|_| ())
    .map_err(sql_error)
}

/// Casts columns whose Arrow type is not the one of their SQL type, and gives the schema that users see.
fn with_sql_types(plan: LogicalPlan) -> datafusion::common::Result<(LogicalPlan, SchemaRef)> {
    let mut fields = vec![];
    let mut exprs = vec![];
    let mut differs = false;
    for (qualifier, field) in plan.schema().iter() {
        let sql_type = match (SqlType::of(field), field.data_type()) {
            (SqlType::Null, _) => SqlType::Text,
            // Only counts are unsigned in DataFusion (row_number, cardinality), and those are bigint.
            (_, DataType::UInt64) => SqlType::Int8,
            (other, _) => other,
        };
        let target = Arc::new(sql_type.field(visible(field.name()), true));
        let column = Expr::from((qualifier, field));
        exprs.push(if target.data_type() == field.data_type() {
            column
        } else {
            differs = true;
            let cast = Expr::Cast(Cast::new_from_field(Box::new(column), target.clone()));
            cast.alias_qualified(qualifier.cloned(), field.name())
        });
        fields.push(target);
    }
    let plan = if differs { LogicalPlanBuilder::from(plan).project(exprs)?.build()? } else { plan };
    Ok((plan, Arc::new(Schema::new(fields))))
}

/// Runs `f`; on a thread with a large stack where the statement is deep.
///
/// DataFusion's rules panic on some rare plans: that is an error of the statement and not the end of the session.
pub(crate) fn on_large_stack<T: Send>(depth: usize, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let guarded = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    let outcome = if depth < LARGE_STACK_DEPTH {
        guarded()
    } else {
        let build = std::thread::Builder::new().stack_size(LARGE_STACK_BYTES);
        std::thread::scope(|scope| match build.spawn_scoped(scope, guarded) {
            Ok(thread) => thread.join().unwrap_or_else(Err),
            Err(error) => Ok(Err(SqlError::internal(error))),
        })
    };
    outcome.unwrap_or_else(|_| {
        Err(SqlError::new(SqlState::FeatureNotSupported, "this statement cannot be planned")
            .with_detail("The query optimizer failed on it."))
    })
}

/// Runs a planned query with the values of its parameters: the batches have exactly [`Planned::schema`].
///
/// Errors that come while it runs are DataFusion's: [`tidewire_operators::expr::sql_error`] translates them.
pub async fn execute(
    planned: &Planned,
    parameters: Vec<ScalarValue>,
    session: &SessionContext,
) -> Result<SendableRecordBatchStream> {
    let physical = physical_plan(planned, parameters, session).await?;
    let rows = execute_stream(physical, session.task_ctx()).map_err(sql_error)?;
    let schema = planned.schema.clone();
    let target = schema.clone();
    let rows = rows.map(move |batch| Ok(with_schema(&batch.map_err(running_error)?, &target)?));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
}

/// What runs a planned query with the values of its parameters.
pub async fn physical_plan(
    planned: &Planned,
    parameters: Vec<ScalarValue>,
    session: &SessionContext,
) -> Result<Arc<dyn ExecutionPlan>> {
    let state = session.state();
    let plan = match planned.parameters.is_empty() {
        true => planned.plan.clone(),
        false => parameters::with_values(planned, parameters, &state).map_err(|e| planning_error(e, ""))?,
    };
    let plan = windows::batch::replace(plan).map_err(|e| planning_error(e, ""))?;
    match depth(&plan) {
        deep @ LARGE_STACK_DEPTH.. => on_large_stack(deep, || {
            let planned = state.query_planner().create_physical_plan(&plan, &state);
            futures::executor::block_on(planned).map_err(|e| planning_error(e, ""))
        }),
        _ => state.query_planner().create_physical_plan(&plan, &state).await.map_err(|e| planning_error(e, "")),
    }
}

/// How many nodes of the plan stand above each other.
fn depth(plan: &LogicalPlan) -> usize {
    1 + plan.inputs().into_iter().map(depth).max().unwrap_or(0)
}

/// Errors that DataFusion tells by their words only.
fn running_error(error: DataFusionError) -> DataFusionError {
    if !error.find_root().message().contains("scalar subquery returned more than one row") {
        return error;
    }
    let message = "more than one row returned by a subquery used as an expression";
    to_datafusion(SqlError::new(SqlState::CardinalityViolation, message))
}

/// The batch under another schema; columns are cast where their types differ.
pub(crate) fn with_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(column.clone()),
            false => compute::cast(column, field.data_type()),
        })
        .collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}
