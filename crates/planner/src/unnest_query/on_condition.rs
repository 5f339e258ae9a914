//! Subqueries in the ON of outer, semi and anti joins.
//!
//! What such a condition says of a pair of rows, it says of the values that it reads. Where these come from one side,
//! that side gets the condition as a column. Else the pairs of values for which it is true are a relation of their own
//! (the inner join of both sides, filtered), and one side is joined to it. Where both sides are kept whole, the pairs have the
//! values of the whole ON: then a row of the right that has a pair has a partner for each of its pairs.

use std::sync::Arc;

use datafusion::common::{Column, DFSchema, JoinType, NullEquality, Result};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, lit};

use super::pull::{Renamed, join};
use super::scope::{Scopes, names_in};
use super::{Query, Unnester, only, project, qualified};

/// Which side of a join a condition reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    Left,
    Right,
    Both,
}

impl Unnester {
    #[expect(clippy::too_many_arguments, reason = "the parts of a join")]
    pub(super) fn join_on(
        &mut self,
        left: LogicalPlan,
        right: LogicalPlan,
        on: Vec<(Expr, Expr)>,
        plain: Vec<Expr>,
        nested: Vec<Expr>,
        join_type: JoinType,
        nulls: NullEquality,
        scopes: &Scopes,
    ) -> Result<LogicalPlan> {
        let names = match join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => qualified(left.schema()),
            JoinType::RightSemi | JoinType::RightAnti => qualified(right.schema()),
            _ => qualified(left.schema()).into_iter().chain(qualified(right.schema())).collect(),
        };
        let (mut left, mut right, mut filter) = (left, right, plain);
        let mut of_both = vec![];
        for condition in nested {
            let reads = reads(&condition, left.schema(), right.schema())?;
            let side = match reads {
                Reads::Left => &mut left,
                Reads::Right => &mut right,
                Reads::Both => {
                    of_both.push(condition);
                    continue;
                }
            };
            let input = super::scalar::take(side);
            let names = qualified(input.schema());
            let scope = self.scope(input.schema());
            let mut query = Query::new(input, scope, scopes);
            let value = self.without_subqueries(condition, &mut query)?;
            let column = Column::new_unqualified(self.name("condition"));
            let columns = names.into_iter().map(|(qualifier, name)| Expr::Column(Column::new(qualifier, name)));
            let exprs = columns.chain([value.alias(&column.name)]).collect();
            *side = project(query.input, exprs)?;
            filter.push(Expr::Column(column));
        }
        for condition in of_both {
            let all = std::mem::take(&mut filter);
            let pairs = join(left.clone(), right.clone(), on.clone(), all.clone(), JoinType::Inner, nulls)?;
            filter = all;
            let is_full = join_type == JoinType::Full;
            let on_keys: Vec<&Expr> = on.iter().flat_map(|(left, right)| [left, right]).collect();
            let others = on_keys.into_iter().chain(&filter).filter(|_| is_full);
            let used = columns_of(others.chain([&condition]), pairs.schema())?;
            let pairs = self.filter(vec![condition], pairs, scopes)?;
            let (of_left, of_right): (Vec<_>, Vec<_>) = used
                .into_iter()
                .partition(|c| matches!(c, Expr::Column(c) if left.schema().maybe_index_of_column(c).is_some()));
            let pairs = project(pairs, of_left.iter().chain(&of_right).cloned().collect())?;
            let pairs = LogicalPlan::Distinct(Distinct::All(Arc::new(pairs)));
            let exprs: Vec<Expr> = of_left.iter().chain(&of_right).cloned().chain(is_full.then(|| lit(true))).collect();
            let (renamed, mut places) = Renamed::of(self, pairs, &exprs, &[])?;
            let mut right_places = places.split_off(of_left.len());
            let is_pair = right_places.split_off(of_right.len());
            let same = |a: Expr, b: Column| (a, Expr::Column(b));
            let inner = JoinType::Inner;
            let equal = NullEquality::NullEqualsNull;
            // The side that is not kept whole is joined to the pairs.
            let places = if matches!(join_type, JoinType::Right | JoinType::RightSemi | JoinType::RightAnti) {
                let keys = of_left.into_iter().zip(places).map(|(a, b)| same(a, b)).collect();
                left = join(left, renamed.plan, keys, vec![], inner, equal)?;
                of_right.into_iter().zip(right_places).collect::<Vec<_>>()
            } else {
                let keys = of_right.into_iter().zip(right_places).map(|(a, b)| same(a, b)).collect();
                let kept = if is_full { JoinType::Left } else { inner };
                right = join(right, renamed.plan, keys, vec![], kept, equal)?;
                filter.extend(is_pair.into_iter().map(|met| Expr::Column(met).is_true()));
                of_left.into_iter().zip(places).collect()
            };
            let met = places.into_iter().map(|(a, b)| {
                datafusion::logical_expr::binary_expr(
                    a,
                    datafusion::logical_expr::Operator::IsNotDistinctFrom,
                    Expr::Column(b),
                )
            });
            filter.extend(met);
        }
        only(join(left, right, on, filter, join_type, nulls)?, &names)
    }
}

/// Which side the condition and the subqueries in it read.
fn reads(condition: &Expr, left: &DFSchema, right: &DFSchema) -> Result<Reads> {
    let mut found = None;
    for column in names_in(condition)? {
        let is_left = left.maybe_index_of_column(&column).is_some();
        let is_right = right.maybe_index_of_column(&column).is_some();
        let side = match (is_left, is_right) {
            (true, _) => Reads::Left,
            (false, true) => Reads::Right,
            (false, false) => continue,
        };
        match found {
            None => found = Some(side),
            Some(before) if before == side => {}
            Some(_) => return Ok(Reads::Both),
        }
    }
    Ok(found.unwrap_or(Reads::Right))
}

/// The columns of `schema` that the conditions and the subqueries in them read.
fn columns_of<'a>(conditions: impl Iterator<Item = &'a Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
    let mut columns = vec![];
    for column in conditions.map(names_in).collect::<Result<Vec<_>>>()?.into_iter().flatten() {
        if let Some(idx) = schema.maybe_index_of_column(&column) {
            let column = Expr::Column(Column::from(schema.qualified_field(idx)));
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
    }
    Ok(columns)
}
