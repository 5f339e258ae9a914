//! GROUP BY a primary key: the table's other columns are the same in the whole group, and may be read.
//!
//! Only the tables of FROM have a key here, as in PostgreSQL: not what stands in a subquery, a CTE or a view. DataFusion
//! takes all columns of such a table into the GROUP BY, once it knows the key; those that nobody reads are taken out again.
//! That is all that DataFusion is told of keys (see `rules/dependencies.rs`).

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, FunctionalDependence, FunctionalDependencies, Result};
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection, SubqueryAlias, TableScan};
use sqlparser::ast::{self, GroupByExpr, Ident, Select, SelectItem, TableFactor, TableWithJoins};
use tidewire_catalog::Kind;
use tidewire_sql::fold;

use crate::provider::object_of;
use crate::rules::has_dependencies;
use crate::unnest_query::names_in;

/// Notes the columns of grouping sets at the tables of FROM, as partitions, which no table has: a key does not determine
/// them, for they are NULL in the other sets.
pub(crate) fn mark_sets(select: &mut Select) {
    let names = names_in_sets(select);
    if !names.is_empty() {
        select.from.iter_mut().for_each(|item| mark_tables(item, &names));
    }
}

fn mark_tables(item: &mut TableWithJoins, names: &[Ident]) {
    let joined = item.joins.iter_mut().map(|join| &mut join.relation);
    for factor in std::iter::once(&mut item.relation).chain(joined) {
        match factor {
            TableFactor::Table { partitions, .. } => *partitions = names.to_vec(),
            TableFactor::NestedJoin { table_with_joins, .. } => mark_tables(table_with_joins, names),
            _ => {}
        }
    }
}

fn names_in_sets(select: &Select) -> Vec<Ident> {
    let GroupByExpr::Expressions(elements, _) = &select.group_by else { return vec![] };
    let sets = elements.iter().filter_map(|element| match element {
        ast::Expr::GroupingSets(sets) | ast::Expr::Rollup(sets) | ast::Expr::Cube(sets) => Some(sets),
        _ => None,
    });
    let mut names: Vec<Ident> = sets.flatten().flatten().filter_map(column_name).collect();
    // A name of the SELECT list may be another one for a column.
    let is_named = |alias: &Ident| names.iter().any(|name| fold(name) == fold(alias));
    let aliased = select.projection.iter().filter_map(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } if is_named(alias) => column_name(expr),
        _ => None,
    });
    let aliased: Vec<Ident> = aliased.collect();
    names.extend(aliased);
    names
}

fn column_name(expr: &ast::Expr) -> Option<Ident> {
    match expr {
        ast::Expr::Identifier(ident) => Some(ident.clone()),
        ast::Expr::CompoundIdentifier(parts) => parts.last().cloned(),
        ast::Expr::Nested(inner) => column_name(inner),
        _ => None,
    }
}

pub(crate) fn with_key(plan: LogicalPlan, in_sets: &HashSet<String>) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
            let input = Arc::new(with_key(Arc::unwrap_or_clone(input), in_sets)?);
            Ok(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(input, alias)?))
        }
        LogicalPlan::TableScan(mut scan) => {
            if let Some(key) = primary_key(&scan).map(<[usize]>::to_vec) {
                let schema = scan.projected_schema.as_ref().clone();
                let columns = schema.fields().iter().enumerate();
                let columns = columns.filter(|(_, field)| !in_sets.contains(field.name()));
                let columns = columns.map(|(idx, _)| idx).collect();
                let key = FunctionalDependencies::new(vec![FunctionalDependence::new(key, columns, false)]);
                scan.projected_schema = Arc::new(schema.with_functional_dependencies(key)?);
            }
            Ok(LogicalPlan::TableScan(scan))
        }
        other => Ok(other),
    }
}

/// Whether it is a table under its own or another name.
pub(crate) fn is_table(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => is_table(&alias.input),
        plan => matches!(plan, LogicalPlan::TableScan(_)),
    }
}

/// The columns of the table's primary key, as they are in the table.
pub(crate) fn primary_key(scan: &TableScan) -> Option<&[usize]> {
    match &object_of(&scan.source)?.def {
        Kind::Table(table) if !table.primary_key.is_empty() => Some(&table.primary_key),
        _ => None,
    }
}

/// The keys of a join in FROM. They are those of its sides, whatever its kind: where one side has no row, all of its
/// columns are NULL. DataFusion forgets them in a FULL JOIN, and under two outer joins.
pub(crate) fn of_join(left: &LogicalPlan, right: &LogicalPlan) -> FunctionalDependencies {
    let of_side = |plan: &LogicalPlan| match plan {
        LogicalPlan::Join(join) => of_join(&join.left, &join.right),
        plan => plan.schema().functional_dependencies().clone(),
    };
    let (mut keys, mut of_right) = (of_side(left), of_side(right));
    of_right.add_offset(left.schema().fields().len());
    keys.extend(of_right);
    keys
}

/// The keys of a join of `left` and `right`, of which a projection shows some columns, some of them twice: a merged one
/// comes before its own.
pub(crate) fn of_merged(exprs: &[Expr], left: &LogicalPlan, right: &LogicalPlan) -> FunctionalDependencies {
    let columns: Vec<Column> = left.schema().columns().into_iter().chain(right.schema().columns()).collect();
    let positions = |idx: &usize| -> Vec<usize> {
        let Some(column) = columns.get(*idx) else { return vec![] };
        let shows = |expr: &Expr| matches!(expr.clone().unalias(), Expr::Column(shown) if shown == *column);
        exprs.iter().enumerate().filter(|(_, expr)| shows(expr)).map(|(position, _)| position).collect()
    };
    let mut shown = vec![];
    for key in of_join(left, right).iter() {
        let targets: Vec<usize> = key.target_indices.iter().flat_map(positions).collect();
        for pick in [<[usize]>::first, <[usize]>::last] {
            let sources = key.source_indices.iter().map(|idx| pick(&positions(idx)).copied());
            if let Some(sources) = sources.collect::<Option<Vec<_>>>() {
                shown.push(FunctionalDependence::new(sources, targets.clone(), false));
            }
        }
    }
    FunctionalDependencies::new(shown)
}

/// Takes columns out of a GROUP BY that hang on the others there and that nobody reads. `plan` is as it was planned.
pub(crate) fn without_unread(plan: LogicalPlan) -> Result<LogicalPlan> {
    let pruned = plan.transform_down_with_subqueries(|plan| match plan {
        LogicalPlan::Projection(Projection { expr, input, .. }) if has_dependencies(&input) => {
            let read = read_by(&expr)?;
            let input = below(Arc::unwrap_or_clone(input), read)?;
            Projection::try_new(expr, Arc::new(input)).map(|p| Transformed::yes(LogicalPlan::Projection(p)))
        }
        other => Ok(Transformed::no(other)),
    });
    pruned.map(|pruned| pruned.data)
}

/// From a SELECT list down to its GROUP BY: HAVING, windows and QUALIFY lie between.
fn below(plan: LogicalPlan, mut read: HashSet<Column>) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Filter(_) | LogicalPlan::Window(_) => {
            let exprs = plan.expressions();
            read.extend(read_by(&exprs)?);
            let inputs = plan.inputs().into_iter().cloned().map(|input| below(input, read.clone()));
            let inputs = inputs.collect::<Result<_>>()?;
            plan.with_new_exprs(exprs, inputs)
        }
        LogicalPlan::Aggregate(aggregate) => without_unread_keys(aggregate, read).map(LogicalPlan::Aggregate),
        other => Ok(other),
    }
}

fn without_unread_keys(aggregate: Aggregate, mut read: HashSet<Column>) -> Result<Aggregate> {
    // grouping() needs its columns.
    read.extend(read_by(&aggregate.aggr_expr)?);
    let schema = aggregate.input.schema().clone();
    let position = |expr: &Expr| match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        _ => None,
    };
    let pruned = |exprs: &[Expr]| -> Vec<Expr> {
        let grouped: HashSet<usize> = exprs.iter().filter_map(position).collect();
        let keys = schema.functional_dependencies().iter();
        let keys: Vec<_> = keys.filter(|key| key.source_indices.iter().all(|idx| grouped.contains(idx))).collect();
        let hangs = |idx: &usize| keys.iter().any(|key| key.target_indices.contains(idx));
        let is_key = |idx: &usize| keys.iter().any(|key| key.source_indices.contains(idx));
        let is_needed = |expr: &&Expr| match (expr, position(expr)) {
            (Expr::Column(column), Some(idx)) => read.contains(column) || !hangs(&idx) || is_key(&idx),
            _ => true,
        };
        exprs.iter().filter(is_needed).cloned().collect()
    };
    let group_expr = match aggregate.group_expr.as_slice() {
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => {
            let sets = sets.iter().map(|set| pruned(set)).collect();
            vec![Expr::GroupingSet(GroupingSet::GroupingSets(sets))]
        }
        exprs => pruned(exprs),
    };
    Aggregate::try_new(aggregate.input, group_expr, aggregate.aggr_expr)
}

/// The columns that expressions read, also from inside of their subqueries.
fn read_by(exprs: &[Expr]) -> Result<HashSet<Column>> {
    Ok(exprs.iter().map(names_in).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}
