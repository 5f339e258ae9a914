//! Drops input columns that nobody reads behind a [`FlatMap`]: an array must not be copied for each of its items.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Projection};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::FlatMap;

/// The rule. It looks for a projection over a FlatMap, with a filter between them or not.
#[derive(Debug, Default)]
pub(crate) struct PruneFlatMap;

impl OptimizerRule for PruneFlatMap {
    fn name(&self) -> &str {
        "prune_flat_map"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Projection(projection) = plan else { return Ok(Transformed::no(plan)) };
        let mut read = HashSet::new();
        if !projection.expr.iter().all(|e| add_columns(e, &mut read)) {
            return Ok(Transformed::no(LogicalPlan::Projection(projection)));
        }
        let below = match projection.input.as_ref() {
            LogicalPlan::Filter(filter) if add_columns(&filter.predicate, &mut read) => {
                match pruned(&filter.input, &read)? {
                    Some(input) => {
                        Some(LogicalPlan::Filter(Filter::try_new(filter.predicate.clone(), Arc::new(input))?))
                    }
                    None => None,
                }
            }
            other => pruned(other, &read)?,
        };
        match below {
            None => Ok(Transformed::no(LogicalPlan::Projection(projection))),
            Some(input) => {
                let schema = projection.schema;
                let projection = Projection::try_new_with_schema(projection.expr, Arc::new(input), schema)?;
                Ok(Transformed::yes(LogicalPlan::Projection(projection)))
            }
        }
    }
}

fn pruned(plan: &LogicalPlan, read: &HashSet<Column>) -> Result<Option<LogicalPlan>> {
    let Some(node) = FlatMap::of(plan) else { return Ok(None) };
    let own = node.filter.as_ref().map(Expr::column_refs).unwrap_or_default();
    let narrow = node.keeping(|column| read.contains(column) || own.contains(column))?;
    Ok((narrow.kept.len() < node.kept.len()).then(|| narrow.into_plan()))
}

/// Adds the columns that an expression reads. False: it reads some that it does not name.
fn add_columns(expr: &Expr, read: &mut HashSet<Column>) -> bool {
    read.extend(expr.column_refs().into_iter().cloned());
    !expr
        .exists(|e| {
            Ok(matches!(e, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_)))
        })
        .unwrap_or(true)
}
