//! What DataFusion is told of the relations in FROM: the primary keys of tables, and nothing else of what depends on what
//! (`primary_keys.rs`), and which types the columns of subqueries will have (`planned_types.rs`).

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::common::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use sqlparser::ast::TableFactor;
use tidewire_sql::fold;

use crate::rules::{has_dependencies, without_dependencies};
use crate::{planned_types, primary_keys, set_operation, using};

/// Plans what stands in FROM as DataFusion would, and adds this.
#[derive(Debug, Default)]
pub(crate) struct FromPlanner {
    /// A relation is planned: this one is asked again, and then has nothing to say.
    is_asked: AtomicBool,
}

impl RelationPlanner for FromPlanner {
    fn plan_relation(&self, relation: TableFactor, cx: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        let is_known = matches!(
            relation,
            TableFactor::Derived { .. }
                | TableFactor::Table { args: None, .. }
                | TableFactor::NestedJoin { alias: None, .. }
        );
        if !is_known || self.is_asked.swap(false, Ordering::Relaxed) {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let in_sets = match &relation {
            TableFactor::Table { partitions, .. } => partitions.iter().map(fold).collect(),
            _ => HashSet::new(),
        };
        let is_join = matches!(relation, TableFactor::NestedJoin { .. });
        self.is_asked.store(true, Ordering::Relaxed);
        let plan = cx.plan(relation);
        self.is_asked.store(false, Ordering::Relaxed);
        let plan = match plan? {
            plan if primary_keys::is_table(&plan) => primary_keys::with_key(plan, &in_sets)?,
            LogicalPlan::Join(mut join) => {
                let keys = primary_keys::of_join(&join.left, &join.right);
                join.schema = Arc::new(join.schema.as_ref().clone().with_functional_dependencies(keys)?);
                LogicalPlan::Join(join)
            }
            plan if is_join => of_nothing_known(plan)?,
            plan => {
                // Its names are resolved.
                let plan = using::strip(plan)?;
                set_operation::check_types(&plan)?;
                of_nothing_known(planned_types::in_relation(plan))?
            }
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}

fn of_nothing_known(plan: LogicalPlan) -> Result<LogicalPlan> {
    if has_dependencies(&plan) { without_dependencies(plan) } else { Ok(plan) }
}
