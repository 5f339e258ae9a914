//! Expressions that stand several times in a node are computed once.

use std::collections::HashMap;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// DataFusion's rule, where it can tell expressions apart: constants that are the same moment are equal to it with and
/// without a time zone, and it would put one where the other was.
#[derive(Debug)]
pub(super) struct CommonParts(CommonSubexprEliminate);

impl CommonParts {
    pub(super) fn new() -> CommonParts {
        CommonParts(CommonSubexprEliminate::new())
    }
}

impl OptimizerRule for CommonParts {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if has_equal_moments(&plan)? { Ok(Transformed::no(plan)) } else { self.0.rewrite(plan, config) }
    }
}

/// Whether two constants of the plan differ in their type alone.
fn has_equal_moments(plan: &LogicalPlan) -> Result<bool> {
    let mut types: HashMap<ScalarValue, DataType> = HashMap::new();
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::Literal(value, _) = expr
                    && let own @ DataType::Timestamp(..) = value.data_type()
                {
                    found |= *types.entry(value.clone()).or_insert_with(|| own.clone()) != own;
                }
                Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    Ok(found)
}
