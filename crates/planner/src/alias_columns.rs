//! `t AS x (a, b)`: names for the first columns of what may have more.

use datafusion::common::{Column, Result};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use sqlparser::ast::{TableAlias, TableFactor};
use tidewire_types::{SqlError, SqlState};

use crate::provider::to_datafusion;
use crate::unnest_query::ROW;

/// Names the columns of aliased relations. DataFusion wants a name for each of them.
#[derive(Debug)]
pub(crate) struct AliasPlanner;

impl RelationPlanner for AliasPlanner {
    fn plan_relation(
        &self,
        mut relation: TableFactor,
        cx: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let alias = match &mut relation {
            TableFactor::Derived { alias: Some(alias), sample: None, .. } if alias.name.value != ROW => alias,
            TableFactor::Table { alias: Some(alias), args: None, .. } => alias,
            _ => return Ok(RelationPlanning::Original(Box::new(relation))),
        };
        if alias.columns.is_empty() || alias.columns.iter().any(|column| column.data_type.is_some()) {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let names = std::mem::take(&mut alias.columns);
        let alias: TableAlias = alias.clone();
        let plan = cx.plan(relation)?;
        let columns: Vec<Column> = plan.schema().columns();
        if names.len() > columns.len() {
            let (table, n, m) = (cx.normalize_ident(alias.name), columns.len(), names.len());
            let message = format!("table \"{table}\" has {n} columns available but {m} columns specified");
            return Err(to_datafusion(SqlError::new(SqlState::InvalidColumnReference, message)));
        }
        let mut names = names.into_iter().map(|column| cx.normalize_ident(column.name));
        let named = columns.into_iter().map(|column| {
            let name = names.next().unwrap_or_else(|| column.name.clone());
            Expr::Column(column).alias(name)
        });
        let plan = LogicalPlanBuilder::from(plan).project(named.collect::<Vec<_>>())?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, Some(alias)))))
    }
}
