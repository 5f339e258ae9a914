//! DISTINCT ON as DataFusion's rules take it: over the columns of a projection, and without repeated keys.
//!
//! It becomes an aggregate of first values, whose order must not name an expression twice. OptimizeProjections asks a
//! DISTINCT ON's input for the columns that are read of its *output*, by their places: a place that the input does not
//! have is a panic. So what is selected are the input's own columns, all of them, in their order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result};
use datafusion::logical_expr::expr::Sort as SortExpr;
use datafusion::logical_expr::{Distinct, DistinctOn, Expr, ExprSchemable, LogicalPlan, Projection};
use tidewire_types::SqlType;

use crate::column_names::visible;
use crate::functions::typed::{bare, retyped};

/// Computes what a DISTINCT ON selects, compares and orders by in a projection below it, each thing once.
pub(crate) fn over_columns(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Distinct(Distinct::On(distinct)) => Ok(Transformed::yes(of_columns(distinct)?)),
        plan => Ok(Transformed::no(plan)),
    })
    .map(|t| t.data)
}

fn of_columns(distinct: DistinctOn) -> Result<LogicalPlan> {
    let mut computed: Vec<Expr> = vec![];
    let mut column = |expr: Expr| {
        let expr = expr.unalias();
        let idx = computed.iter().position(|known| *known == expr).unwrap_or_else(|| {
            computed.push(expr);
            computed.len() - 1
        });
        let name = name(computed.get(idx), idx);
        Expr::Column(Column::new_unqualified(name))
    };
    let selected: Vec<Expr> = distinct.select_expr.into_iter().map(&mut column).collect();
    let mut on: Vec<Expr> = distinct.on_expr.into_iter().map(&mut column).collect();
    let order = distinct.sort_expr.map(|keys| {
        let keys = keys.into_iter().map(|key| SortExpr { expr: column(key.expr), ..key });
        without_repeats(keys, |key| key.expr.clone())
    });
    on = without_repeats(on, Expr::clone);
    // The aggregate's scalars forget what the items of an array are: it gets arrays of plain values.
    let mut arrays: HashMap<String, SqlType> = HashMap::new();
    let schema = distinct.input.schema().clone();
    let computed = computed.into_iter().enumerate().map(|(idx, expr)| {
        let name = name(Some(&expr), idx);
        let field = expr.to_field(&schema)?.1;
        let Some(bare) = bare(field.data_type()) else { return Ok(expr.alias(name)) };
        arrays.insert(name.clone(), SqlType::of(&field));
        Ok(retyped(expr, bare).alias(name))
    });
    let computed = computed.collect::<Result<Vec<_>>>()?;
    let input = Arc::new(LogicalPlan::Projection(Projection::try_new(computed, distinct.input)?));
    let all = input.schema().columns().into_iter().map(Expr::Column).collect();
    let mut rows = DistinctOn::try_new(on, all, None, input)?;
    rows.sort_expr = order;
    let rows = Arc::new(LogicalPlan::Distinct(Distinct::On(rows)));
    let named = selected.into_iter().zip(distinct.schema.iter());
    let named = named.map(|(expr, (qualifier, field))| {
        let array = expr.try_as_col().and_then(|column| arrays.get(&column.name).cloned());
        let expr = match array {
            Some(array) => retyped(expr, array),
            None => expr,
        };
        expr.alias_qualified(qualifier.cloned(), field.name())
    });
    Ok(LogicalPlan::Projection(Projection::try_new(named.collect(), rows)?))
}

/// A name that no user's column has; users see it as that of the column that it is.
fn name(expr: Option<&Expr>, idx: usize) -> String {
    let shown = match expr {
        Some(Expr::Column(column)) => visible(&column.name),
        _ => "distinct",
    };
    format!("{shown}\u{1}distinct{idx}")
}

fn without_repeats<T>(items: impl IntoIterator<Item = T>, key: impl Fn(&T) -> Expr) -> Vec<T> {
    let mut seen = HashSet::new();
    items.into_iter().filter(|item| seen.insert(key(item))).collect()
}
