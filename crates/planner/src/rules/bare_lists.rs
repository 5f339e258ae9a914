//! Joins that repeat a row of their left side take its arrays as arrays of plain values.
//!
//! DataFusion's cross join and nested-loop join make a scalar of each value of that row, and that of a list forgets what
//! the field of its items says (that they are uuids, or numerics without a scale): the batch then is not of the join's
//! schema. So the field is taken away below the join and given back above it.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::{CrossJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, PhysicalExpr, ReplaceChildrenOptions};
use tidewire_types::SqlType;

use crate::functions::typed;

/// Takes the fields away and gives them back.
#[derive(Debug)]
pub(crate) struct BareLists;

impl PhysicalOptimizerRule for BareLists {
    fn name(&self) -> &str {
        "bare_lists"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let config = Arc::new(config.clone());
        Ok(plan.transform_up(|plan| with_bare_lists(plan, &config))?.data)
    }
}

fn with_bare_lists(
    plan: Arc<dyn ExecutionPlan>,
    config: &Arc<ConfigOptions>,
) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let repeats = match plan.downcast_ref::<NestedLoopJoinExec>() {
        // A condition on such a list is over the field.
        Some(join) => join
            .filter()
            .is_none_or(|filter| filter.schema().fields().iter().all(|f| typed::bare(f.data_type()).is_none())),
        None => plan.downcast_ref::<CrossJoinExec>().is_some(),
    };
    let children: Vec<_> = plan.children().into_iter().cloned().collect();
    let ([left, right], true) = (children.as_slice(), repeats) else { return Ok(Transformed::no(plan)) };
    let bare: Vec<Option<SqlType>> =
        left.schema().fields().iter().map(|field| typed::bare(field.data_type())).collect();
    if bare.iter().all(Option::is_none) {
        return Ok(Transformed::no(plan));
    }
    let before = plan.schema();
    let left = typed_columns(left, &bare, config)?;
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    let joined = plan.replace_children(vec![left, right.clone()], options)?;
    let after = joined.schema();
    let fields = before.fields().iter().zip(after.fields());
    let types = fields.map(|(before, now)| (before.data_type() != now.data_type()).then(|| SqlType::of(before)));
    typed_columns(&joined, &types.collect::<Vec<_>>(), config).map(Transformed::yes)
}

/// The columns, some of them under another type.
fn typed_columns(
    input: &Arc<dyn ExecutionPlan>,
    types: &[Option<SqlType>],
    config: &Arc<ConfigOptions>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schema: Arc<Schema> = input.schema();
    let columns = schema.fields().iter().zip(types).enumerate().map(|(idx, (field, target))| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), idx));
        let expr = match target {
            None => column,
            Some(target) => {
                let function = typed::typed(target.clone());
                Arc::new(ScalarFunctionExpr::try_new(function, vec![column], &schema, config.clone())?)
            }
        };
        Ok(ProjectionExpr { expr, alias: field.name().clone() })
    });
    Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Result<Vec<_>>>()?, input.clone())?))
}
