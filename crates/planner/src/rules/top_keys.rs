//! The first rows of several partitions are chosen by the whole order.
//!
//! DataFusion leaves out of a partition's sort what is constant there, though it is another constant in the next one
//! (`SELECT 'a', id .. UNION ALL SELECT 'b', id .. ORDER BY 1, 2 LIMIT 10`). But with a limit all partitions share one
//! threshold, by which the rows of one partition then drop those of another that come first.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

/// Has partitions choose by all keys by which their rows are merged.
#[derive(Debug)]
pub(crate) struct WholeTopKeys;

impl PhysicalOptimizerRule for WholeTopKeys {
    fn name(&self) -> &str {
        "whole_top_keys"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(plan.transform_up(with_whole_keys)?.data)
    }
}

fn with_whole_keys(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() else { return Ok(Transformed::no(plan)) };
    let Some(sort) = merge.input().downcast_ref::<SortExec>() else { return Ok(Transformed::no(plan)) };
    if sort.fetch().is_none() || sort.expr() == merge.expr() {
        return Ok(Transformed::no(plan));
    }
    let sort = SortExec::new(merge.expr().clone(), sort.input().clone())
        .with_fetch(sort.fetch())
        .with_preserve_partitioning(sort.preserve_partitioning());
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    plan.replace_children(vec![Arc::new(sort)], options).map(Transformed::yes)
}
