//! DISTINCT ON as DataFusion's rules take it: without repeated keys, and with an input that is as wide as its output.
//!
//! It becomes an aggregate of first values, whose order must not name an expression twice. OptimizeProjections asks a
//! DISTINCT ON's input for the columns that are read of its *output*, by their places. A place that the input does not
//! have would be a panic; one that it has is a column too many.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Distinct, DistinctOn, Expr, LogicalPlan, Projection};
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// Leaves out the keys that stand twice, and what rows are ordered by a second time.
pub(crate) fn without_repeats(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        let LogicalPlan::Distinct(Distinct::On(mut distinct)) = plan else { return Ok(Transformed::no(plan)) };
        let mut seen = HashSet::new();
        distinct.on_expr.retain(|expr| seen.insert(expr.clone()));
        seen.clear();
        if let Some(keys) = &mut distinct.sort_expr {
            keys.retain(|key| seen.insert(key.expr.clone()));
        }
        Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(distinct))))
    })
    .map(|t| t.data)
}

/// OptimizeProjections, before which inputs are widened: what it has left out of them the next pass would ask for.
#[derive(Debug, Default)]
pub(super) struct PruneColumns(OptimizeProjections);

impl OptimizerRule for PruneColumns {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        self.0.rewrite(widen(plan)?, config)
    }
}

/// Widens the inputs that need it with columns of NULLs, which nobody reads.
fn widen(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        let LogicalPlan::Distinct(Distinct::On(distinct)) = plan else { return Ok(Transformed::no(plan)) };
        let width = distinct.input.schema().fields().len();
        if width >= distinct.select_expr.len() {
            return Ok(Transformed::no(LogicalPlan::Distinct(Distinct::On(distinct))));
        }
        let columns = distinct.input.schema().columns().into_iter().map(Expr::Column);
        let nulls = (width..distinct.select_expr.len())
            .map(|idx| Expr::Literal(ScalarValue::Boolean(None), None).alias(format!("wide\u{1}{idx}")));
        let input = Projection::try_new(columns.chain(nulls).collect(), distinct.input.clone())?;
        let input = Arc::new(LogicalPlan::Projection(input));
        Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(DistinctOn { input, ..distinct }))))
    })
    .map(|t| t.data)
}
