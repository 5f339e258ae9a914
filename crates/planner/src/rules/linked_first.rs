//! The order of inner joins where no equality says it.
//!
//! EliminateCrossJoin takes the tables that equal keys link, and where none is linked the next one as it is written: in
//! `FROM a, c, b WHERE a.x < b.x AND b.y = c.y` every row of `a` would meet every row of `c`. Here a table that any
//! condition links goes before one that none does.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, JoinType, NullEquality, Result};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Filter, Join, JoinConstraint, LogicalPlan, Operator, Projection};

/// A condition of a tree of joins: the inputs that it reads, and whether it may be a key.
pub(super) struct Link {
    pub(super) inputs: Vec<usize>,
    pub(super) is_key: bool,
}

/// The order in which the inputs of a tree are joined.
pub(super) struct Order {
    pub(super) inputs: Vec<usize>,
    /// As they are written, something would meet everything that need not.
    pub(super) differs: bool,
}

/// Rebuilds a tree of inner joins, and the filter above it, where a cross product can be avoided.
pub(super) fn reorder(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let is_tree = match &plan {
        LogicalPlan::Filter(filter) => is_inner(&filter.input),
        other => is_inner(other),
    };
    if !is_tree {
        return Ok(Transformed::no(plan));
    }
    let (mut inputs, mut conditions) = (vec![], vec![]);
    flatten(&plan, &mut inputs, &mut conditions);
    if inputs.len() < 3 || conditions.is_empty() {
        return Ok(Transformed::no(plan));
    }
    let owners = owners(&inputs);
    let links: Vec<Link> = conditions.iter().map(|condition| link(condition, &owners)).collect();
    let order = order(inputs.len(), &links);
    if !order.differs {
        return Ok(Transformed::no(plan));
    }
    let mut ordered = order.inputs.into_iter().filter_map(|idx| inputs.get(idx).copied().cloned());
    let Some(mut joined) = ordered.next() else { return Ok(Transformed::no(plan)) };
    for input in ordered {
        joined = inner(joined, input, vec![], None)?;
    }
    if let Some(predicate) = conditions.into_iter().reduce(Expr::and) {
        joined = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(joined))?);
    }
    let schema = Arc::clone(plan.schema());
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::new_from_schema(Arc::new(joined), schema))))
}

/// A plain inner join.
pub(super) fn inner(
    left: LogicalPlan,
    right: LogicalPlan,
    on: Vec<(Expr, Expr)>,
    filter: Option<Expr>,
) -> Result<LogicalPlan> {
    let (left, right) = (Arc::new(left), Arc::new(right));
    let nothing = NullEquality::NullEqualsNothing;
    let join = Join::try_new(left, right, on, filter, JoinType::Inner, JoinConstraint::On, nothing, false)?;
    Ok(LogicalPlan::Join(join))
}

pub(super) fn is_inner(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Join(join)
        if join.join_type == JoinType::Inner && join.null_equality == NullEquality::NullEqualsNothing)
}

/// The inputs and conditions of a tree of inner joins, as they are written.
pub(super) fn flatten<'p>(plan: &'p LogicalPlan, inputs: &mut Vec<&'p LogicalPlan>, conditions: &mut Vec<Expr>) {
    match plan {
        LogicalPlan::Filter(filter) if is_inner(&filter.input) => {
            conditions.extend(split_conjunction(&filter.predicate).into_iter().cloned());
            flatten(&filter.input, inputs, conditions);
        }
        LogicalPlan::Join(join) if is_inner(plan) => {
            conditions.extend(join.on.iter().map(|(l, r)| l.clone().eq(r.clone())));
            conditions.extend(join.filter.iter().flat_map(split_conjunction).cloned());
            flatten(&join.left, inputs, conditions);
            flatten(&join.right, inputs, conditions);
        }
        other => inputs.push(other),
    }
}

/// Which input has a column.
pub(super) fn owners(inputs: &[&LogicalPlan]) -> HashMap<Column, usize> {
    let all = inputs.iter().enumerate();
    all.flat_map(|(idx, plan)| plan.schema().columns().into_iter().map(move |column| (column, idx))).collect()
}

pub(super) fn link(condition: &Expr, owners: &HashMap<Column, usize>) -> Link {
    let inputs: BTreeSet<usize> = condition.column_refs().into_iter().filter_map(|c| owners.get(c).copied()).collect();
    let is_key = matches!(condition, Expr::BinaryExpr(BinaryExpr { op: Operator::Eq, .. })) && inputs.len() == 2;
    Link { inputs: inputs.into_iter().collect(), is_key }
}

/// The first that a key links to those before, else the first that any condition does, else the first.
pub(super) fn order(n: usize, links: &[Link]) -> Order {
    let mut placed = vec![];
    let mut rest: Vec<usize> = (0..n).collect();
    let mut differs = false;
    while !rest.is_empty() {
        let is_linked = |idx: usize, placed: &[usize], keys: bool| {
            links.iter().any(|link| {
                (link.is_key || !keys) && link.inputs.contains(&idx) && link.inputs.iter().any(|i| placed.contains(i))
            })
        };
        let by = |keys: bool| rest.iter().position(|idx| is_linked(*idx, &placed, keys));
        let next = match by(true) {
            Some(next) => next,
            None if placed.is_empty() => 0,
            None => {
                let next = by(false).unwrap_or(0);
                differs |= next != 0;
                next
            }
        };
        placed.push(rest.remove(next));
    }
    Order { inputs: placed, differs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_any_condition_links_goes_first() {
        let link = |inputs: &[usize], is_key| Link { inputs: inputs.to_vec(), is_key };
        let reordered = |links: &[Link]| {
            let order = order(3, links);
            order.differs.then_some(order.inputs)
        };
        // a, c, b: a < b, b = c
        assert_eq!(reordered(&[link(&[0, 2], false), link(&[1, 2], true)]), Some(vec![0, 2, 1]));
        // Keys are found whatever the order.
        assert_eq!(reordered(&[link(&[0, 2], true), link(&[1, 2], true)]), None);
        // Nothing links them.
        assert_eq!(reordered(&[link(&[0], false)]), None);
    }
}
