//! A scalar subquery is a left join to at most one row for each set of outer values; no row is NULL.
//!
//! A global aggregate always has a row, so only its functions are joined and the rest of its SELECT list is computed
//! above. Where a second row is possible, rows are counted, and [`one_row`](super::one_row) refuses to give the value
//! of more than one when it is asked for: that is `21000` for a query, and for who reads a view until the count is one
//! again.

use arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, JoinType, NullEquality, Result};
use datafusion::functions_aggregate::expr_fn::{count, first_value, max};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, FetchType, Filter, LogicalPlan, Operator, SkipType, lit, when,
};
use tidewire_catalog::Kind;
use tidewire_types::SqlType;

use super::domain::Domain;
use super::pull::{Renamed, join, substituted};
use super::push::or_empty;
use super::{Query, Unnester, one_row, output};
use crate::functions::typed::retyped;
use crate::provider::object_of;

impl Unnester {
    /// The value of a scalar subquery for each row of `query.input`.
    pub(super) fn scalar(&mut self, query: &mut Query<'_>, plan: LogicalPlan) -> Result<Expr> {
        let Some(value) = plan.schema().columns().into_iter().next().map(Expr::Column) else {
            return Ok(lit(datafusion::common::ScalarValue::Null));
        };
        if let Some(global) = global_aggregate(&plan, vec![value.clone()])? {
            let (mut values, conditions) = self.over_aggregate(query, global)?;
            let Some(value) = values.pop() else { return Ok(value) };
            return match conditions.into_iter().reduce(Expr::and) {
                None => Ok(value),
                Some(condition) => Ok(as_field(when(condition, value).end()?, plan.schema().field(0))),
            };
        }
        let domain = Domain::of(&query.scope, &query.rows, &plan)?;
        let pushed = self.push(&plan, &domain)?;
        let outer = domain.outer_values()?;
        if at_most_one(&plan) {
            let places = self.attach(query, pushed.plan, &[value], &pushed.keys, outer, pushed.nulls)?;
            return Ok(places.into_iter().next().map_or(lit(true), Expr::Column));
        }
        let keys: Vec<Expr> = pushed.keys.iter().cloned().map(Expr::Column).collect();
        let names = [self.name("value"), self.name("count")];
        let (_, field) = value.to_field(pushed.plan.schema())?;
        let one = one_of(value, pushed.plan.schema())?;
        let calls = vec![one.alias(&names[0]), count(lit(1i64)).alias(&names[1])];
        let plan = LogicalPlan::Aggregate(Aggregate::try_new(std::sync::Arc::new(pushed.plan), keys, calls)?);
        let exprs = names.map(|name| Expr::Column(Column::new_unqualified(name)));
        let places = self.attach(query, plan, &exprs, &pushed.keys, outer, pushed.nulls)?;
        let only = one_row::only_row(places.into_iter().map(Expr::Column).collect());
        Ok(as_field(only, &field))
    }

    /// Joins the calls of a global aggregate and computes what stands above it: its expressions and its conditions.
    pub(super) fn over_aggregate(
        &mut self,
        query: &mut Query<'_>,
        global: GlobalAggregate,
    ) -> Result<(Vec<Expr>, Vec<Expr>)> {
        let GlobalAggregate { aggregate, exprs, conditions } = global;
        let calls = self.calls(query, &aggregate)?;
        let n_exprs = exprs.len();
        let mut computed = vec![];
        for expr in exprs.into_iter().chain(conditions) {
            let expr = super::pull::in_place_of(expr, &aggregate.schema, &calls)?;
            computed.push(query.scope.inline(expr)?);
        }
        let conditions = computed.split_off(n_exprs);
        Ok((computed, conditions))
    }

    /// The values of a global aggregate's calls for each row of `query.input`.
    pub(super) fn calls(&mut self, query: &mut Query<'_>, aggregate: &Aggregate) -> Result<Vec<Expr>> {
        let plan = LogicalPlan::Aggregate(aggregate.clone());
        let domain = Domain::of(&query.scope, &query.rows, &plan)?;
        let grouped = self.grouped(aggregate, &domain)?;
        let outer = domain.outer_values()?;
        let columns: Vec<Expr> = aggregate.schema.columns().into_iter().map(Expr::Column).collect();
        if outer.is_empty() {
            // The one row that it always has.
            let (renamed, places) = Renamed::of(self, grouped.plan, &columns, &[])?;
            let input = take(&mut query.input);
            let nothing = NullEquality::NullEqualsNothing;
            query.input = join(input, renamed.plan, vec![], vec![], JoinType::Inner, nothing)?;
            return Ok(places.into_iter().map(Expr::Column).collect());
        }
        let places = self.attach(query, grouped.plan, &columns, &grouped.keys, outer, grouped.nulls)?;
        let calls = places.into_iter().zip(&aggregate.aggr_expr);
        calls.map(|(place, call)| or_empty(Expr::Column(place), call, aggregate)).collect()
    }

    /// Joins `plan`, which has at most one row for each set of `keys`, to the rows; returns the places of `exprs`.
    fn attach(
        &mut self,
        query: &mut Query<'_>,
        plan: LogicalPlan,
        exprs: &[Expr],
        keys: &[Column],
        outer: Vec<Expr>,
        nulls: NullEquality,
    ) -> Result<Vec<Column>> {
        let computed: Vec<Expr> = exprs.iter().cloned().chain(keys.iter().cloned().map(Expr::Column)).collect();
        let (renamed, mut places) = Renamed::of(self, plan, &computed, &[])?;
        let keys = places.split_off(exprs.len());
        let on = outer.into_iter().zip(keys.into_iter().map(Expr::Column)).collect();
        let input = take(&mut query.input);
        query.input = join(input, renamed.plan, on, vec![], JoinType::Left, nulls)?;
        Ok(places)
    }
}

/// The value under the field's type: to CASE and max() all are texts that are texts to Arrow.
pub(super) fn as_field(value: Expr, field: &Field) -> Expr {
    match field.metadata().is_empty() {
        true => value,
        false => retyped(value, SqlType::of(field)),
    }
}

/// The plan, with nothing in its place.
pub(super) fn take(plan: &mut LogicalPlan) -> LogicalPlan {
    std::mem::replace(plan, LogicalPlan::EmptyRelation(super::empty_relation()))
}

/// A global aggregate and what a subquery computes of its one row.
pub(super) struct GlobalAggregate {
    pub(super) aggregate: Aggregate,
    pub(super) exprs: Vec<Expr>,
    /// HAVING.
    pub(super) conditions: Vec<Expr>,
}

/// The global aggregate that `plan` stands on, with `exprs` over it. None: another subquery.
pub(super) fn global_aggregate(plan: &LogicalPlan, exprs: Vec<Expr>) -> Result<Option<GlobalAggregate>> {
    let n_exprs = exprs.len();
    let mut exprs = exprs;
    let mut at = plan;
    loop {
        at = match at {
            LogicalPlan::Projection(projection) => {
                let columns: Vec<Expr> = projection.expr.iter().map(|e| e.clone().unalias()).collect();
                match substituted(exprs, &projection.schema, &columns)? {
                    Some(below) => exprs = below,
                    None => return Ok(None),
                }
                &projection.input
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let columns: Vec<Expr> = alias.input.schema().columns().into_iter().map(Expr::Column).collect();
                match substituted(exprs, &alias.schema, &columns)? {
                    Some(below) => exprs = below,
                    None => return Ok(None),
                }
                &alias.input
            }
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                exprs.extend(split_conjunction(predicate).into_iter().cloned());
                input
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => &sort.input,
            LogicalPlan::Limit(limit) if limits_nothing(limit)? => &limit.input,
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => {
                let conditions = exprs.split_off(n_exprs);
                return Ok(Some(GlobalAggregate { aggregate: aggregate.clone(), exprs, conditions }));
            }
            _ => return Ok(None),
        };
    }
}

/// LIMIT 1 or more of what has one row.
fn limits_nothing(limit: &datafusion::logical_expr::Limit) -> Result<bool> {
    let skips = matches!(limit.get_skip_type()?, SkipType::Literal(0));
    Ok(skips && matches!(limit.get_fetch_type()?, FetchType::Literal(n) if n != Some(0)))
}

/// An aggregate that is the value itself over one row.
pub(super) fn one_of(value: Expr, schema: &datafusion::common::DFSchema) -> Result<Expr> {
    let ordered = is_ordered(&value.get_type(schema)?);
    Ok(if ordered { max(value) } else { first_value(value, vec![]) })
}

/// Whether min() and max() take the type.
pub(super) fn is_ordered(data_type: &DataType) -> bool {
    use DataType as T;
    data_type.is_numeric()
        || matches!(
            data_type,
            T::Utf8 | T::Utf8View | T::LargeUtf8 | T::Date32 | T::Timestamp(..) | T::Time64(_) | T::Boolean
        )
}

/// Whether the subquery can have no second row for one row outside.
pub(crate) fn at_most_one(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Limit(limit) => {
            matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(n))) if n <= 1) || at_most_one(&limit.input)
        }
        LogicalPlan::Projection(projection) => at_most_one(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => at_most_one(&alias.input),
        LogicalPlan::Sort(sort) => sort.fetch.is_some_and(|n| n <= 1) || at_most_one(&sort.input),
        LogicalPlan::Distinct(Distinct::All(input)) => at_most_one(input),
        LogicalPlan::Filter(filter) => at_most_one(&filter.input) || has_whole_key(filter),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(_) => true,
        _ => false,
    }
}

/// Whether the optimizer may find that a column is not NULL, by what it computes of it, and forget that there may be no
/// row.
pub(super) fn may_be_folded(plan: &LogicalPlan, idx: usize) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => match projection.expr.get(idx).map(|expr| expr.clone().unalias()) {
            Some(Expr::Column(column)) => {
                let below = projection.input.schema().maybe_index_of_column(&column);
                below.is_some_and(|idx| may_be_folded(&projection.input, idx))
            }
            Some(expr) => {
                let chooses = |e: &Expr| matches!(e, Expr::Case(_) | Expr::ScalarFunction(_));
                expr.column_refs().is_empty() || super::contains(&expr, chooses)
            }
            None => false,
        },
        LogicalPlan::SubqueryAlias(alias) => may_be_folded(&alias.input, idx),
        LogicalPlan::Filter(filter) => may_be_folded(&filter.input, idx),
        LogicalPlan::Sort(sort) => may_be_folded(&sort.input, idx),
        LogicalPlan::Limit(limit) => may_be_folded(&limit.input, idx),
        LogicalPlan::Distinct(Distinct::All(input)) => may_be_folded(input, idx),
        LogicalPlan::Join(join) => match idx.checked_sub(join.left.schema().fields().len()) {
            Some(idx) => may_be_folded(&join.right, idx),
            None => may_be_folded(&join.left, idx),
        },
        _ => false,
    }
}

/// Whether a filter says which primary key the row has.
fn has_whole_key(filter: &Filter) -> bool {
    let alias = match filter.input.as_ref() {
        LogicalPlan::SubqueryAlias(alias) => Some(alias),
        _ => None,
    };
    let LogicalPlan::TableScan(scan) = alias.map_or(filter.input.as_ref(), |a| a.input.as_ref()) else { return false };
    let Some(object) = object_of(&scan.source) else { return false };
    let Kind::Table(table) = &object.def else { return false };
    let equated: Vec<&Column> = split_conjunction(&filter.predicate).into_iter().filter_map(equated_column).collect();
    let is_equated = |idx: &usize| {
        object.schema.fields().get(*idx).is_some_and(|field| equated.iter().any(|c| c.name == *field.name()))
    };
    !table.primary_key.is_empty() && table.primary_key.iter().all(is_equated)
}

/// The column of `column = what has no column`.
fn equated_column(condition: &Expr) -> Option<&Column> {
    let Expr::BinaryExpr(binary) = condition else { return None };
    if binary.op != Operator::Eq {
        return None;
    }
    match (plain_column(&binary.left), plain_column(&binary.right)) {
        (Some(column), None) if binary.right.column_refs().is_empty() => Some(column),
        (None, Some(column)) if binary.left.column_refs().is_empty() => Some(column),
        _ => None,
    }
}

/// A column, also as a wider integer.
fn plain_column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Cast(cast) if cast.field.data_type() == &DataType::Int64 => plain_column(&cast.expr),
        _ => None,
    }
}

/// The columns of `plan` under the names of another schema.
pub(super) fn with_names(exprs: Vec<Expr>, schema: &datafusion::common::DFSchema) -> Vec<Expr> {
    exprs.into_iter().zip(schema.iter()).map(|(e, (qualifier, field))| output(e, qualifier, field.name())).collect()
}
