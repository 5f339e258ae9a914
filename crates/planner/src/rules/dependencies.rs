//! Functional dependencies, of which DataFusion's cannot be trusted.
//!
//! What is a key of one side of a join (of an aggregate or a DISTINCT there) is no key of the join, but DataFusion takes it
//! for one of every aggregate above (`aggregate_functional_dependencies`). It would drop columns of a GROUP BY, of an ORDER BY
//! and whole DISTINCTs, and let columns be read that are not grouped. What PostgreSQL knows of primary keys is known while a
//! query is planned: [`crate::primary_keys`].

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{FunctionalDependencies, Result};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, Projection, SubqueryAlias};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// Hides them from the rule after this one, which looks for those of the inputs of an aggregate, a DISTINCT or a sort.
#[derive(Debug)]
pub(super) struct NoDependencies;

impl OptimizerRule for NoDependencies {
    fn name(&self) -> &str {
        "no_dependencies"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let asks =
            matches!(plan, LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(Distinct::All(_)) | LogicalPlan::Sort(_));
        match asks && plan.inputs().into_iter().any(has_dependencies) {
            true => plan.map_children(|input| without_dependencies(input).map(Transformed::yes)),
            false => Ok(Transformed::no(plan)),
        }
    }
}

/// Whether something is known of what depends on what.
pub(crate) fn has_dependencies(plan: &LogicalPlan) -> bool {
    !plan.schema().functional_dependencies().is_empty()
}

/// The same rows and columns, of which nothing is known.
pub(crate) fn without_dependencies(plan: LogicalPlan) -> Result<LogicalPlan> {
    if let LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) = plan {
        let input = Arc::new(without_dependencies(Arc::unwrap_or_clone(input))?);
        return Ok(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(input, alias)?));
    }
    let columns = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let schema = plan.schema().as_ref().clone().with_functional_dependencies(FunctionalDependencies::empty())?;
    let projection = Projection::try_new_with_schema(columns, Arc::new(plan), Arc::new(schema))?;
    Ok(LogicalPlan::Projection(projection))
}
