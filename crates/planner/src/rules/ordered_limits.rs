//! The rows that an OFFSET or a LIMIT leaves out are the first ones of the sort below.
//!
//! DataFusion takes a sort away whose keys a projection above drops, unless the sort itself has a limit, which an
//! OFFSET alone does not give it: `x IN (SELECT v + 1 FROM t ORDER BY k OFFSET 3)` left out any three rows. A node that
//! requires the order, right above the sort and until the sorts are settled, keeps it.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::{Distribution, LexOrdering};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::output_requirements::OutputRequirementExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

/// Has limits keep the sort that they count the rows of. It runs before DataFusion's EnsureRequirements, and
/// OutputRequirements, which runs after it, takes the added nodes away.
#[derive(Debug)]
pub(crate) struct OrderedLimits;

impl PhysicalOptimizerRule for OrderedLimits {
    fn name(&self) -> &str {
        "ordered_limits"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let counted = |plan: Arc<dyn ExecutionPlan>| {
            if !plan.is::<GlobalLimitExec>() && !plan.is::<LocalLimitExec>() {
                return Ok(Transformed::no(plan));
            }
            Ok(match with_its_order(&plan)? {
                Some(plan) => Transformed::yes(plan),
                None => Transformed::no(plan),
            })
        };
        Ok(plan.transform_up(counted)?.data)
    }
}

/// The plan with its rows' order required where the sort makes it, if a sort without a limit makes it.
fn with_its_order(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let [input] = plan.children()[..] else { return Ok(None) };
    if plan.maintains_input_order() != [true] || !plan.required_input_ordering().iter().all(Option::is_none) {
        return Ok(None);
    }
    let input = match input.downcast_ref::<SortExec>() {
        Some(sort) if sort.fetch().is_none() => required(input, sort.expr()),
        Some(_) => return Ok(None),
        None => match with_its_order(input)? {
            Some(input) => input,
            None => return Ok(None),
        },
    };
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    plan.clone().replace_children(vec![input], options).map(Some)
}

fn required(sort: &Arc<dyn ExecutionPlan>, order: &LexOrdering) -> Arc<dyn ExecutionPlan> {
    let order = order.clone().into();
    Arc::new(OutputRequirementExec::new(sort.clone(), Some(order), Distribution::SinglePartition, None))
}
