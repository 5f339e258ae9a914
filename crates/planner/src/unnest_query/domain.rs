//! The distinct values of the outer query that a subquery refers to.
//!
//! The set is a copy of the outer query's FROM. It may have more values than the outer query has rows for: whoever joins
//! them back leaves those out. So where that FROM is large, which is where subqueries in it were unnested before, only the
//! part is copied that the values come from; else a query of some levels would grow into hundreds of thousands of nodes.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, JoinType, Result};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Distinct, Expr, Filter, Join, LogicalPlan, SubqueryAlias};

use super::scope::Scope;
use super::{Unnester, filtered, output, project, written_once};
use crate::flat_map::FlatMap;

/// Nodes of an outer query that is copied whole. A selective join in it makes the set smaller.
const WHOLE_NODES_MAX: usize = 24;

/// A subquery and the level that it refers to.
pub(super) struct Domain<'a> {
    pub(super) scope: &'a Scope,
    /// The rows of that level.
    outer: &'a LogicalPlan,
    /// What is referred to, as it stands in the subquery.
    pub(super) values: Vec<Expr>,
}

impl<'a> Domain<'a> {
    pub(super) fn of(scope: &'a Scope, outer: &'a LogicalPlan, subquery: &LogicalPlan) -> Result<Domain<'a>> {
        Ok(Domain { scope, outer, values: scope.used_in(subquery)? })
    }

    /// The values as they are computed at the level itself.
    pub(super) fn outer_values(&self) -> Result<Vec<Expr>> {
        self.values.iter().map(|value| self.scope.inline(value.clone())).collect()
    }

    /// The set itself, under new names.
    pub(super) fn plan(&self, unnester: &mut Unnester) -> Result<(LogicalPlan, Vec<Column>)> {
        let keys: Vec<Column> = self.values.iter().map(|_| Column::new_unqualified(unnester.name("outer"))).collect();
        let values = self.outer_values()?;
        let outer = match has_more_nodes(self.outer, WHOLE_NODES_MAX)? {
            false => self.outer.clone(),
            true => narrowed(self.outer, &columns_of(&values))?,
        };
        let values = values.into_iter().zip(&keys).map(|(value, key)| value.alias(&key.name));
        let values = project(outer, values.collect())?;
        Ok((LogicalPlan::Distinct(Distinct::All(Arc::new(values))), keys))
    }

    /// The expression with the columns `keys` in the place of what it refers to.
    pub(super) fn replace(&self, expr: Expr, keys: &[Column]) -> Result<Expr> {
        self.scope.replace(expr, &|value| {
            let idx = self.values.iter().position(|v| v == value)?;
            keys.get(idx).cloned().map(Expr::Column)
        })
    }
}

fn has_more_nodes(plan: &LogicalPlan, max: usize) -> Result<bool> {
    let mut n_nodes = 0;
    plan.apply_with_subqueries(|_| {
        n_nodes += 1;
        Ok(if n_nodes > max { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(n_nodes > max)
}

/// The columns of the expressions, each once.
fn columns_of<'a>(exprs: impl IntoIterator<Item = &'a Expr>) -> Vec<Column> {
    let mut columns: Vec<Column> = vec![];
    for column in exprs.into_iter().flat_map(|expr| expr.column_refs()) {
        if !columns.contains(column) {
            columns.push(column.clone());
        }
    }
    columns
}

fn has_all<'a>(plan: &LogicalPlan, columns: impl IntoIterator<Item = &'a Column>) -> bool {
    columns.into_iter().all(|column| plan.schema().has_column(column))
}

/// Less of the plan: the columns `wanted` and some others, with every row that it has and perhaps more.
fn narrowed(plan: &LogicalPlan, wanted: &[Column]) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Filter(Filter { predicate, input, .. }) => {
            let input = narrowed(input, wanted)?;
            let possible = split_conjunction(predicate).into_iter().filter(|c| has_all(&input, c.column_refs()));
            let possible = possible.cloned().collect();
            filtered(input, possible)
        }
        LogicalPlan::Join(join) => narrowed_join(plan, join, wanted),
        LogicalPlan::SubqueryAlias(alias) => {
            let below = |column: &Column| {
                let idx = alias.schema.maybe_index_of_column(column)?;
                Some(Column::from(alias.input.schema().qualified_field(idx)))
            };
            let input = narrowed(&alias.input, &wanted.iter().filter_map(below).collect::<Vec<_>>())?;
            Ok(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?))
        }
        LogicalPlan::Projection(projection) => {
            let named: Vec<_> = projection.expr.iter().zip(projection.schema.columns()).collect();
            let used = named.iter().filter(|(_, column)| wanted.contains(column)).map(|(expr, _)| *expr);
            let input = narrowed(&projection.input, &columns_of(used))?;
            let possible = named.into_iter().filter(|(expr, _)| has_all(&input, expr.column_refs()));
            let possible = possible.map(|(expr, _)| expr.clone()).collect();
            project(input, possible)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let keys = written_once(&aggregate.group_expr).into_iter().zip(aggregate.schema.columns());
            let keys: Vec<_> = keys.filter(|(_, column)| wanted.contains(column)).collect();
            // With grouping sets a key is NULL in some rows; without keys there is a row of no input.
            let is_plain = aggregate.group_expr.iter().all(|expr| !matches!(expr, Expr::GroupingSet(_)));
            if !is_plain || aggregate.group_expr.is_empty() || keys.len() < wanted.len() {
                return Ok(plan.clone());
            }
            let input = narrowed(&aggregate.input, &columns_of(keys.iter().map(|(expr, _)| *expr)))?;
            let keys = keys.into_iter().map(|(expr, c)| output(expr.clone(), c.relation.as_ref(), &c.name)).collect();
            project(input, keys)
        }
        LogicalPlan::Distinct(Distinct::All(input)) => narrowed(input, wanted),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => narrowed(&sort.input, wanted),
        LogicalPlan::Window(window) if has_all(&window.input, wanted) => narrowed(&window.input, wanted),
        LogicalPlan::Extension(_) => match FlatMap::of(plan) {
            Some(flat_map) if has_all(&flat_map.input, wanted) => narrowed(&flat_map.input, wanted),
            _ => Ok(plan.clone()),
        },
        other => Ok(other.clone()),
    }
}

/// The side that has the columns, where all its rows are in the result or may be. An inner join of both is one of less.
fn narrowed_join(plan: &LogicalPlan, join: &Join, wanted: &[Column]) -> Result<LogicalPlan> {
    use JoinType as T;
    let of_left = matches!(join.join_type, T::Inner | T::Left | T::LeftSemi | T::LeftAnti | T::LeftMark);
    if of_left && has_all(&join.left, wanted) {
        return narrowed(&join.left, wanted);
    }
    let of_right = matches!(join.join_type, T::Inner | T::Right | T::RightSemi | T::RightAnti | T::RightMark);
    if of_right && has_all(&join.right, wanted) {
        return narrowed(&join.right, wanted);
    }
    let keys = join.on.iter().flat_map(|(left, right)| [left, right]);
    let read = columns_of(keys.chain(&join.filter));
    let side = |input: &LogicalPlan| {
        let columns = wanted.iter().chain(&read).filter(|column| input.schema().has_column(column));
        narrowed(input, &columns.cloned().collect::<Vec<_>>())
    };
    let (left, right) = match join.join_type {
        T::Inner => (side(&join.left)?, side(&join.right)?),
        T::Left => (side(&join.left)?, join.right.as_ref().clone()),
        T::Right => (join.left.as_ref().clone(), side(&join.right)?),
        _ => return Ok(plan.clone()),
    };
    let (left, right) = (Arc::new(left), Arc::new(right));
    let Join { on, filter, join_type, join_constraint, null_equality, null_aware, .. } = join.clone();
    Ok(LogicalPlan::Join(Join::try_new(
        left,
        right,
        on,
        filter,
        join_type,
        join_constraint,
        null_equality,
        null_aware,
    )?))
}
