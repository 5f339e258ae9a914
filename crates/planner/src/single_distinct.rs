//! DataFusion's rule that makes two aggregates of one with a single DISTINCT argument, where it keeps types.
//!
//! It computes a plain `sum(x)` beside the DISTINCT one as a sum of sums. The sum of integers is a bigint and a sum of
//! bigints a numeric, so that the result would have another type: such an aggregate is left alone.

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::single_distinct_to_groupby::SingleDistinctToGroupBy;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct SingleDistinct(SingleDistinctToGroupBy);

impl OptimizerRule for SingleDistinct {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        let is_plain_sum = |expr: &Expr| matches!(expr, Expr::AggregateFunction(call) if call.func.name() == "sum" && !call.params.distinct);
        match aggregate.aggr_expr.iter().any(is_plain_sum) {
            true => Ok(Transformed::no(plan)),
            false => self.0.rewrite(plan, config),
        }
    }
}
