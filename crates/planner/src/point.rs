//! Queries that do nothing but pick rows of one relation by its filters: filter, expressions, LIMIT.
//!
//! An application reads by key a million times; for these DataFusion's physical planning would cost ten times what the
//! reading does. Invariant: such a query gives what its plan would give: the same expressions are evaluated by the same
//! code in the same order, over rows that the caller has found by the pushed filters.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute;
use arrow::datatypes::Schema;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchemaRef, ScalarValue};
use datafusion::datasource::source_as_provider;
use datafusion::execution::SessionState;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, FetchType, LogicalPlan, SkipType, TableScan};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::PhysicalExpr;
use tidewire_operators::expr::sql_error;
use tidewire_types::{Result, SqlError};

use crate::query::{Planned, with_schema};

/// One such query.
pub struct PointQuery {
    /// What it reads.
    pub table: Arc<dyn TableProvider>,
    /// The columns that it needs of that.
    pub column_idxs: Vec<usize>,
    filters: Vec<Expr>,
    // From the rows up.
    steps: Vec<Step>,
}

enum Step {
    Filter(Expr, DFSchemaRef),
    Project(Vec<Expr>, DFSchemaRef),
    Limit { skip: usize, fetch: Option<usize> },
}

/// The same with values in.
enum Ready {
    Filter(Arc<dyn PhysicalExpr>),
    Project(Vec<Arc<dyn PhysicalExpr>>),
    Limit { skip: usize, fetch: Option<usize> },
}

impl PointQuery {
    /// The query, where it is such a one.
    pub fn of(planned: &Planned) -> Option<PointQuery> {
        let mut steps = vec![];
        let scan = steps_to_scan(&planned.plan, &mut steps)?;
        let n_columns = scan.source.schema().fields().len();
        let column_idxs = scan.projection.clone().unwrap_or_else(|| (0..n_columns).collect());
        let table = source_as_provider(&scan.source).ok()?;
        Some(PointQuery { table, column_idxs, filters: scan.filters.clone(), steps })
    }

    /// The filters that say which rows are read, with the values of the parameters.
    pub fn filters(&self, parameters: &[ScalarValue]) -> Option<Vec<Expr>> {
        self.filters.iter().map(|filter| with_values(filter, parameters)).collect()
    }

    /// What becomes of the rows. None: it must be planned as other queries are.
    pub fn run(
        &self,
        mut rows: Vec<RecordBatch>,
        parameters: &[ScalarValue],
        state: &SessionState,
        planned: &Planned,
    ) -> Option<Result<Vec<RecordBatch>>> {
        let steps: Vec<Ready> = self.steps.iter().map(|step| step.ready(parameters, state)).collect::<Option<_>>()?;
        for step in &steps {
            rows = match step.run(rows) {
                Ok(rows) => rows,
                Err(error) => return Some(Err(error)),
            };
        }
        Some(rows.iter().map(|batch| Ok(with_schema(batch, &planned.schema)?)).collect())
    }
}

fn steps_to_scan<'a>(plan: &'a LogicalPlan, steps: &mut Vec<Step>) -> Option<&'a TableScan> {
    match plan {
        LogicalPlan::TableScan(scan) if scan.fetch.is_none() && !scan.filters.is_empty() => Some(scan),
        LogicalPlan::SubqueryAlias(alias) => steps_to_scan(&alias.input, steps),
        LogicalPlan::Filter(filter) => {
            let scan = steps_to_scan(&filter.input, steps)?;
            steps.push(Step::Filter(filter.predicate.clone(), filter.input.schema().clone()));
            Some(scan)
        }
        LogicalPlan::Projection(projection) => {
            let scan = steps_to_scan(&projection.input, steps)?;
            steps.push(Step::Project(projection.expr.clone(), projection.input.schema().clone()));
            Some(scan)
        }
        LogicalPlan::Limit(limit) => {
            let scan = steps_to_scan(&limit.input, steps)?;
            let (Ok(SkipType::Literal(skip)), Ok(FetchType::Literal(fetch))) =
                (limit.get_skip_type(), limit.get_fetch_type())
            else {
                return None;
            };
            steps.push(Step::Limit { skip, fetch });
            Some(scan)
        }
        _ => None,
    }
}

/// The expression with the values of its parameters. None: a value is missing.
fn with_values(expr: &Expr, parameters: &[ScalarValue]) -> Option<Expr> {
    let value = |id: &str| {
        let number = id.strip_prefix('$')?.parse::<usize>().ok()?;
        parameters.get(number.checked_sub(1)?)
    };
    let missing = || crate::provider::to_datafusion(SqlError::internal("a parameter without a value"));
    let replaced = expr.clone().transform_up(|expr| match expr {
        Expr::Placeholder(placeholder) => {
            let value = value(&placeholder.id).ok_or_else(missing)?;
            Ok(Transformed::yes(Expr::Literal(value.clone(), None)))
        }
        other => Ok(Transformed::no(other)),
    });
    replaced.map(|replaced| replaced.data).ok()
}

impl Step {
    fn ready(&self, parameters: &[ScalarValue], state: &SessionState) -> Option<Ready> {
        let physical = |expr: &Expr, schema: &DFSchemaRef| {
            let expr = with_values(expr, parameters)?;
            create_physical_expr(&expr, schema, state.execution_props(), &PhysicalPlanningContext::default()).ok()
        };
        Some(match self {
            Step::Filter(predicate, schema) => Ready::Filter(physical(predicate, schema)?),
            Step::Project(exprs, schema) => {
                Ready::Project(exprs.iter().map(|expr| physical(expr, schema)).collect::<Option<_>>()?)
            }
            Step::Limit { skip, fetch } => Ready::Limit { skip: *skip, fetch: *fetch },
        })
    }
}

impl Ready {
    fn run(&self, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        match self {
            Ready::Filter(predicate) => {
                let filter = |batch: &RecordBatch| {
                    let mask = evaluate(predicate, batch)?;
                    let mask =
                        mask.as_boolean_opt().ok_or_else(|| SqlError::internal("a filter that is no boolean"))?;
                    Ok(compute::filter_record_batch(batch, mask)?)
                };
                rows.iter().map(filter).collect()
            }
            Ready::Project(exprs) => rows.iter().map(|batch| project(exprs, batch)).collect(),
            Ready::Limit { skip, fetch } => {
                let (mut skip, mut left) = (*skip, fetch.unwrap_or(usize::MAX));
                let limit = |batch: &RecordBatch| {
                    let start = skip.min(batch.num_rows());
                    let n = (batch.num_rows() - start).min(left);
                    skip -= start;
                    left -= n;
                    batch.slice(start, n)
                };
                Ok(rows.iter().map(limit).collect())
            }
        }
    }
}

/// The values of expressions, as columns.
pub(crate) fn project(exprs: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = exprs.iter().map(|expr| evaluate(expr, batch)).collect::<Result<Vec<_>>>()?;
    let fields = exprs.iter().map(|expr| expr.return_field(batch.schema_ref()).map_err(sql_error));
    let schema = Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

fn evaluate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    expr.evaluate(batch).and_then(|value| value.into_array(batch.num_rows())).map_err(sql_error)
}
