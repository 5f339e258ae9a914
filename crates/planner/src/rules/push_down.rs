//! Where conditions do not go: below an aggregate that has a row without having any input.
//!
//! PushDownFilter puts a condition below an aggregate if the aggregate's keys are all that it reads, and so also one that reads
//! nothing: `NULL`, `$1 > 5`, `(SELECT false)`. Below a GROUP BY that is right. An aggregate without keys makes a row of
//! nothing, whatever the condition says.
//!
//! Below a DISTINCT ON it would change which row is the first of its key. (Queries have made an aggregate of it by then.)
//!
//! And it takes `3 = a` and `a = 3`, which it makes of a join's condition itself, for two that cannot both hold, and
//! `5 < a` for no more than `a >= 5`: literals stand on the right before it sees them.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{Aggregate, BinaryExpr, Distinct, Expr, Limit, LogicalPlan};
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// PushDownFilter, which stops above aggregates that have a row without any input, and above DISTINCT ON.
#[derive(Debug, Default)]
pub(super) struct PushDownConditions(PushDownFilter);

impl OptimizerRule for PushDownConditions {
    fn name(&self) -> &str {
        "push_down_filter"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        // No condition passes a limit, and no other limit is without a number.
        let fenced = plan.transform_up_with_subqueries(|plan| {
            if matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Join(_)) {
                return plan.map_expressions(|expr| expr.transform_up(literal_right));
            }
            Ok(match plan {
                plan if stops(&plan) => {
                    Transformed::yes(LogicalPlan::Limit(Limit { skip: None, fetch: None, input: Arc::new(plan) }))
                }
                plan => Transformed::no(plan),
            })
        })?;
        let pushed = fenced.data.transform_down_with_subqueries(|plan| self.0.rewrite(plan, config))?;
        let bare = pushed.data.transform_up_with_subqueries(|plan| {
            Ok(match plan {
                LogicalPlan::Limit(Limit { skip: None, fetch: None, input }) => {
                    Transformed::yes(Arc::unwrap_or_clone(input))
                }
                other => Transformed::no(other),
            })
        })?;
        Ok(Transformed::new_transformed(bare.data, pushed.transformed))
    }
}

/// `3 < a` as `a > 3`.
fn literal_right(expr: Expr) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if matches!(left.as_ref(), Expr::Literal(..)) && !matches!(right.as_ref(), Expr::Literal(..)) =>
        {
            match op.swap() {
                Some(swapped) => {
                    Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: right, op: swapped, right: left }))
                }
                None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            }
        }
        other => Transformed::no(other),
    })
}

/// Whether no condition goes below it.
fn stops(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => makes_a_row_of_nothing(aggregate),
        plan => matches!(plan, LogicalPlan::Distinct(Distinct::On(_))),
    }
}

fn makes_a_row_of_nothing(aggregate: &Aggregate) -> bool {
    aggregate.group_expr.is_empty() || aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)))
}
