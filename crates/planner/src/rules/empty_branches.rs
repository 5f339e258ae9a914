//! Plans without the parts that give no row.
//!
//! DataFusion's rule takes the columns of the one branch that is left of a UNION for those of the UNION: but their names
//! need not be the same, and then there is no such column.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, Union};
use datafusion::optimizer::propagate_empty_relation::PropagateEmptyRelation;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// DataFusion's rule, but for UNIONs of which one branch is left.
#[derive(Debug, Default)]
pub(super) struct EmptyBranches(PropagateEmptyRelation);

impl OptimizerRule for EmptyBranches {
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
        match &plan {
            LogicalPlan::Union(union) => match only_branch(union) {
                Some(branch) => Ok(Transformed::yes(as_union(branch, union)?)),
                None => self.0.rewrite(plan, config),
            },
            _ => self.0.rewrite(plan, config),
        }
    }
}

/// The one branch that may give rows, where others cannot.
fn only_branch(union: &Union) -> Option<&Arc<LogicalPlan>> {
    let is_empty = |branch: &LogicalPlan| matches!(branch, LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row);
    let mut branches = union.inputs.iter().filter(|branch| !is_empty(branch));
    let first = branches.next()?;
    (branches.next().is_none() && union.inputs.len() > 1).then_some(first)
}

fn as_union(branch: &Arc<LogicalPlan>, union: &Union) -> Result<LogicalPlan> {
    let columns = branch.schema().iter().zip(union.schema.iter());
    let exprs =
        columns.map(|(own, (qualifier, field))| Expr::from(own).alias_qualified(qualifier.cloned(), field.name()));
    let projection = Projection::try_new_with_schema(exprs.collect(), branch.clone(), union.schema.clone())?;
    Ok(LogicalPlan::Projection(projection))
}
