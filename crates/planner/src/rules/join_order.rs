//! The order of inner joins in a view, and where among them semi and anti joins stand.
//!
//! A tree of joins keeps its inputs in any order; but each join also keeps what the joins before it put out. Here the order
//! with the smallest intermediate results is looked for, greedily from every beginning, and a semi or anti join goes
//! below the joins that would only give it more rows.
//!
//! There are no statistics to go by: a view is often made before its rows come, and after a restart its plan must be
//! the same. What is known is declared: a relation with another's unique key among its columns is taken for ten times
//! as large as that one; conditions keep shares like System R's (Selinger et al., "Access Path Selection in a Relational
//! Database Management System", 1979). Where another order would not be much better, the written one stays.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ExprSchema, JoinType, Result};
use datafusion::logical_expr::utils::{can_hash, find_valid_equijoin_key_pair, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Filter, Join, LogicalPlan, Operator, Projection};

use super::linked_first::{Link, flatten, inner, is_inner, link, order, owners};
use crate::primary_keys::primary_key;

/// With more inputs than this only one beginning is tried.
const BEGINNINGS_MAX: usize = 16;
/// Joins of more inputs stay as they are written.
const INPUTS_MAX: usize = 64;

// Numbers of rows, and shares of them, as powers of ten.
const SMALLEST: f64 = 1.0;
const PER_REFERENCE: f64 = 1.0;
const SHARE_OF_EQUAL: f64 = -2.0;
const SHARE_OF_SOME: f64 = -1.0;
const SHARE_OF_RANGE: f64 = -0.5;
/// By how much another order must be better.
const GAIN_MIN: f64 = 0.3;

/// Rebuilds the trees of inner joins of a plan, with the filters, semi and anti joins above them.
pub(super) fn reorder_all(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    plan.transform_down_with_subqueries(|plan| {
        if tree_below(&plan).is_none() {
            return Ok(Transformed::no(plan));
        }
        // What is inside of a tree is no tree of its own: its conditions may stand above it.
        let inner = inputs_reordered(plan)?;
        let outer = reorder(inner.data)?;
        Ok(Transformed::new(outer.data, inner.transformed || outer.transformed, TreeNodeRecursion::Jump))
    })
}

/// The inner join that filters, semi and anti joins stand on.
fn tree_below(mut plan: &LogicalPlan) -> Option<&LogicalPlan> {
    while !is_inner(plan) {
        plan = match plan {
            LogicalPlan::Filter(filter) => &filter.input,
            LogicalPlan::Join(join) if is_semi(join) => &join.left,
            _ => return None,
        };
    }
    Some(plan)
}

fn is_semi(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
}

/// A tree with the trees inside of its inputs rebuilt.
fn inputs_reordered(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if tree_below(&plan).is_none() {
        return reorder_all(plan);
    }
    let is_semi = matches!(&plan, LogicalPlan::Join(join) if is_semi(join));
    let mut is_left = true;
    plan.map_subqueries(reorder_all)?.transform_sibling(|plan| {
        plan.map_children(|child| {
            let is_of_tree = is_left || !is_semi;
            is_left = false;
            if is_of_tree { inputs_reordered(child) } else { reorder_all(child) }
        })
    })
}

fn reorder(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let Some(tree) = Tree::of(&plan) else { return Ok(Transformed::no(plan)) };
    let sizes = Sizes::of(&tree);
    let written = order(tree.inputs.len(), &tree.links);
    let best = sizes.best().filter(|best| sizes.cost(best) + GAIN_MIN < sizes.cost(&written.inputs));
    let differs = best.is_some() || written.differs;
    let order = best.unwrap_or(written.inputs);
    let places: Vec<Place> = tree.semis.iter().map(|semi| sizes.place(semi, &order)).collect();
    if !differs && places.iter().all(|place| *place == Place::Top) {
        return Ok(Transformed::no(plan));
    }
    let joined = tree.joined(&order, &places)?;
    let schema = Arc::clone(plan.schema());
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::new_from_schema(Arc::new(joined), schema))))
}

/// A tree of inner joins and what stands above it.
struct Tree<'p> {
    inputs: Vec<&'p LogicalPlan>,
    owners: HashMap<Column, usize>,
    /// All conditions but those that make `equal`.
    conditions: Vec<Expr>,
    /// What each of the conditions links, and then what `pairs` link.
    links: Vec<Link>,
    /// Pairs of columns of one type that are equal, as they are written.
    pairs: Vec<(Column, Column)>,
    /// Columns that are all equal.
    equal: Vec<Vec<Column>>,
    semis: Vec<Semi<'p>>,
}

struct Semi<'p> {
    join: &'p Join,
    /// The inputs that its condition reads.
    inputs: Vec<usize>,
}

/// Where a semi or anti join goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Onto one input.
    Input(usize),
    /// Onto so many joined inputs.
    Joined(usize),
    /// Above everything.
    Top,
}

impl<'p> Tree<'p> {
    /// None: there is nothing to choose.
    fn of(plan: &'p LogicalPlan) -> Option<Tree<'p>> {
        let (mut conditions, mut joins) = (vec![], vec![]);
        let below = tree_below(plan)?;
        let mut top = plan;
        while !std::ptr::eq(top, below) {
            top = match top {
                LogicalPlan::Filter(filter) => {
                    conditions.extend(split_conjunction(&filter.predicate).into_iter().cloned());
                    &filter.input
                }
                LogicalPlan::Join(join) => {
                    joins.push(join);
                    &join.left
                }
                _ => return None,
            };
        }
        let mut inputs = vec![];
        flatten(top, &mut inputs, &mut conditions);
        let is_choice = inputs.len() > 2 || !joins.is_empty();
        if !is_choice || inputs.len() > INPUTS_MAX {
            return None;
        }
        let owners = owners(&inputs);
        let semis = joins.into_iter().map(|join| Semi { join, inputs: read_by(join, &owners) }).collect();
        let (pairs, conditions): (Vec<_>, Vec<_>) = conditions.into_iter().partition(|c| {
            equal_columns(c).is_some_and(|(l, r)| {
                let of = |column| inputs.get(*owners.get(column)?)?.schema().field_from_column(column).ok();
                of(l).zip(of(r)).is_some_and(|(l, r)| l.data_type() == r.data_type() && can_hash(l.data_type()))
            })
        });
        let links: Vec<Link> = conditions.iter().chain(&pairs).map(|condition| link(condition, &owners)).collect();
        let pairs: Vec<_> = pairs.iter().filter_map(equal_columns).map(|(l, r)| (l.clone(), r.clone())).collect();
        let equal = classes(&pairs);
        Some(Tree { inputs, owners, conditions, links, pairs, equal, semis })
    }

    /// Each condition with the inputs that it reads.
    fn linked(&self) -> impl Iterator<Item = (&Expr, &Link)> {
        self.conditions.iter().zip(&self.links)
    }

    fn is_of(&self, column: &Column, input: usize) -> bool {
        self.owners.get(column) == Some(&input)
    }

    /// The joins in an order.
    fn joined(&self, order: &[usize], places: &[Place]) -> Result<LogicalPlan> {
        let at = |plan: LogicalPlan, place: Place| {
            let mut here = self.semis.iter().zip(places).rev().filter(|(_, own)| **own == place);
            here.try_fold(plan, |left, (semi, _)| semi.over(left))
        };
        let mut joined: Option<LogicalPlan> = None;
        for (n_placed, idx) in order.iter().enumerate() {
            let Some(input) = self.inputs.get(*idx) else { continue };
            let input = at(filtered((*input).clone(), self.own_conditions(*idx))?, Place::Input(*idx))?;
            let placed = order.get(..n_placed).unwrap_or_default();
            let plan = match joined {
                None => input,
                Some(left) => self.join(placed, *idx, left, input)?,
            };
            joined = Some(at(plan, Place::Joined(n_placed + 1))?);
        }
        let constant = self.linked().filter(|(_, link)| link.inputs.is_empty()).map(|(c, _)| c.clone());
        let Some(joined) = joined else { return datafusion::common::internal_err!("a join of nothing") };
        at(filtered(joined, constant.collect())?, Place::Top)
    }

    /// What is asked of one input alone.
    fn own_conditions(&self, idx: usize) -> Vec<Expr> {
        let own = self.linked().filter(|(_, link)| link.inputs == [idx]).map(|(c, _)| c.clone());
        let equal = self.equal.iter().flat_map(|class| {
            let own: Vec<_> = class.iter().filter(|column| self.is_of(column, idx)).cloned().collect();
            own.windows(2).filter_map(|pair| Some(column(pair.first()?).eq(column(pair.last()?)))).collect::<Vec<_>>()
        });
        own.chain(equal).collect()
    }

    /// Joins an input with those before it, by all that links it to them.
    fn join(&self, placed: &[usize], idx: usize, left: LogicalPlan, right: LogicalPlan) -> Result<LogicalPlan> {
        let (mut on, mut rest) = (vec![], vec![]);
        let is_placed = |column: &Column| self.owners.get(column).is_some_and(|owner| placed.contains(owner));
        for class in &self.equal {
            let Some(own) = class.iter().find(|column| self.is_of(column, idx)) else { continue };
            let is_written =
                |other: &Column| self.pairs.iter().any(|(l, r)| (l == own && r == other) || (r == own && l == other));
            let mut others = class.iter().filter(|column| is_placed(column));
            let Some(first) = others.clone().next() else { continue };
            let other = others.find(|column| is_written(column)).unwrap_or(first);
            on.push((column(other), column(own)));
        }
        for (condition, link) in self.linked() {
            let is_here = link.inputs.len() > 1
                && link.inputs.contains(&idx)
                && link.inputs.iter().all(|i| *i == idx || placed.contains(i));
            if !is_here {
                continue;
            }
            match condition {
                Expr::BinaryExpr(BinaryExpr { left: l, op: Operator::Eq, right: r }) => {
                    match find_valid_equijoin_key_pair(l, r, left.schema(), right.schema())? {
                        Some((l, r))
                            if can_hash(&l.get_type(left.schema())?) && can_hash(&r.get_type(right.schema())?) =>
                        {
                            on.push((l, r));
                        }
                        _ => rest.push(condition.clone()),
                    }
                }
                other => rest.push(other.clone()),
            }
        }
        inner(left, right, on, rest.into_iter().reduce(Expr::and))
    }
}

impl Tree<'_> {
    /// The share of an input's rows that its own conditions leave.
    fn share(&self, idx: usize) -> f64 {
        let is_own = |condition: &Expr| condition.column_refs().into_iter().all(|column| self.is_of(column, idx));
        let conditions = self.linked().filter(|(_, link)| link.inputs.contains(&idx));
        let shares = conditions.filter_map(|(condition, _)| implied(condition, &is_own));
        self.inputs.get(idx).map_or(0.0, |input| share_inside(input)) + shares.sum::<f64>()
    }
}

/// What a condition says of an input alone; None: nothing.
fn implied(condition: &Expr, is_own: &dyn Fn(&Expr) -> bool) -> Option<f64> {
    if is_own(condition) {
        return Some(share(condition));
    }
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    let (left, right) = (implied(left, is_own), implied(right, is_own));
    match op {
        Operator::Or => left.zip(right).map(|(l, r)| l.max(r)),
        Operator::And => left.into_iter().chain(right).reduce(|l, r| l + r),
        _ => None,
    }
}

/// The share of rows for which a condition holds.
fn share(condition: &Expr) -> f64 {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And => share(left) + share(right),
            Operator::Or => share(left).max(share(right)),
            Operator::Eq if left.column_refs().is_empty() || right.column_refs().is_empty() => SHARE_OF_EQUAL,
            Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => SHARE_OF_RANGE,
            Operator::RegexMatch | Operator::RegexIMatch | Operator::LikeMatch | Operator::ILikeMatch => SHARE_OF_SOME,
            _ => 0.0,
        },
        Expr::Like(like) | Expr::SimilarTo(like) if !like.negated => SHARE_OF_SOME,
        Expr::InList(list) if !list.negated => SHARE_OF_SOME,
        Expr::Between(between) if !between.negated => 2.0 * SHARE_OF_RANGE,
        Expr::IsNull(_) => SHARE_OF_SOME,
        _ => 0.0,
    }
}

/// What the filters of a relation leave of it.
fn share_inside(plan: &LogicalPlan) -> f64 {
    match plan {
        LogicalPlan::Filter(filter) => share(&filter.predicate) + share_inside(&filter.input),
        LogicalPlan::Projection(projection) => share_inside(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => share_inside(&alias.input),
        _ => 0.0,
    }
}

/// Sets of columns, of which no two rows share the values; those that are easily told.
fn unique_columns(plan: &LogicalPlan) -> Vec<Vec<Column>> {
    let columns = plan.schema().columns();
    let named = |key: Vec<usize>| key.into_iter().map(|idx| columns.get(idx).cloned()).collect::<Option<Vec<_>>>();
    unique_keys(plan).into_iter().filter_map(named).collect()
}

fn unique_keys(plan: &LogicalPlan) -> Vec<Vec<usize>> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let Some(key) = primary_key(scan) else { return vec![] };
            let position = |column: &usize| match &scan.projection {
                None => Some(*column),
                Some(projection) => projection.iter().position(|c| c == column),
            };
            key.iter().map(position).collect::<Option<Vec<_>>>().into_iter().collect()
        }
        LogicalPlan::Projection(projection) => {
            let inputs = projection.input.schema().columns();
            let position = |idx: &usize| {
                let of_input = inputs.get(*idx)?;
                projection
                    .expr
                    .iter()
                    .position(|expr| matches!(expr.clone().unalias(), Expr::Column(c) if c == *of_input))
            };
            let keys = unique_keys(&projection.input);
            keys.iter().filter_map(|key| key.iter().map(position).collect()).collect()
        }
        LogicalPlan::Aggregate(aggregate)
            if !aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) =>
        {
            vec![(0..aggregate.group_expr.len()).collect()]
        }
        LogicalPlan::Filter(filter) => unique_keys(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => unique_keys(&alias.input),
        LogicalPlan::Join(join) if is_semi(join) => unique_keys(&join.left),
        _ => vec![],
    }
}

impl Semi<'_> {
    fn over(&self, left: LogicalPlan) -> Result<LogicalPlan> {
        let Join { right, on, filter, join_type, join_constraint, null_equality, null_aware, .. } = self.join.clone();
        let join =
            Join::try_new(Arc::new(left), right, on, filter, join_type, join_constraint, null_equality, null_aware)?;
        Ok(LogicalPlan::Join(join))
    }
}

fn read_by(semi: &Join, owners: &HashMap<Column, usize>) -> Vec<usize> {
    let keys = semi.on.iter().flat_map(|(l, _)| l.column_refs());
    let filter = semi.filter.iter().flat_map(|filter| filter.column_refs());
    let mut inputs: Vec<usize> = keys.chain(filter).filter_map(|column| owners.get(column).copied()).collect();
    inputs.sort_unstable();
    inputs.dedup();
    inputs
}

fn filtered(plan: LogicalPlan, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    Ok(match conditions.into_iter().reduce(Expr::and) {
        None => plan,
        Some(predicate) => LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?),
    })
}

fn column(column: &Column) -> Expr {
    Expr::Column(column.clone())
}

fn equal_columns(condition: &Expr) -> Option<(&Column, &Column)> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (left.as_ref(), right.as_ref()) {
            (Expr::Column(l), Expr::Column(r)) if l != r => Some((l, r)),
            _ => None,
        },
        _ => None,
    }
}

fn classes(pairs: &[(Column, Column)]) -> Vec<Vec<Column>> {
    let mut classes: Vec<Vec<Column>> = vec![];
    for (l, r) in pairs {
        let (mut joined, others): (Vec<_>, Vec<_>) =
            classes.into_iter().partition(|class| class.contains(l) || class.contains(r));
        let mut class = joined.drain(..).flatten().collect::<Vec<_>>();
        class.extend([l, r].into_iter().filter(|c| !class.contains(c)).cloned().collect::<Vec<_>>());
        classes = others;
        classes.push(class);
    }
    classes
}

/// How many rows inputs and joins of them are taken to have, as powers of ten.
struct Sizes {
    /// Of each input without conditions.
    whole: Vec<f64>,
    /// What each input's own conditions leave of it.
    share: Vec<f64>,
    /// What links each input to each other one.
    links: Vec<Vec<PairLink>>,
    unique_keys: Vec<Vec<Vec<Column>>>,
}

/// How an input is linked to another.
#[derive(Clone, Default)]
struct PairLink {
    /// Its columns that equal something of the other.
    own: Vec<Column>,
    /// Whether there is a condition that is no key.
    is_other: bool,
}

impl Sizes {
    fn of(tree: &Tree) -> Sizes {
        let n = tree.inputs.len();
        let mut links = vec![vec![PairLink::default(); n]; n];
        let mut at = |own: usize, other: usize, change: &dyn Fn(&mut PairLink)| {
            if let Some(link) = links.get_mut(own).and_then(|row| row.get_mut(other)) {
                change(link);
            }
        };
        for class in &tree.equal {
            for (column, own) in class.iter().filter_map(|c| Some((c, *tree.owners.get(c)?))) {
                for other in class.iter().filter_map(|c| tree.owners.get(c)).filter(|other| **other != own) {
                    at(own, *other, &|link| link.own.extend((!link.own.contains(column)).then(|| column.clone())));
                }
            }
        }
        for (condition, link) in tree.linked() {
            for (own, other) in link.inputs.iter().flat_map(|a| link.inputs.iter().map(move |b| (*a, *b))) {
                let columns = condition.column_refs().into_iter().filter(|c| tree.is_of(c, own));
                let columns: Vec<Column> = columns.filter(|_| link.is_key).cloned().collect();
                at(own, other, &|pair| {
                    pair.own.extend(columns.iter().cloned());
                    pair.is_other |= !link.is_key;
                });
            }
        }
        let unique_keys: Vec<_> = tree.inputs.iter().map(|input| unique_columns(input)).collect();
        let share = (0..n).map(|idx| tree.share(idx)).collect();
        let mut sizes = Sizes { whole: vec![SMALLEST; n], share, links, unique_keys };
        // The longest path of references decides; one that closes a circle says nothing.
        for _ in 0..n.min(8) {
            let depth = |idx: usize| {
                let referenced = (0..n).filter(|other| sizes.references(idx, *other));
                referenced.map(|other| sizes.whole(other) + PER_REFERENCE).fold(SMALLEST, f64::max)
            };
            sizes.whole = (0..n).map(depth).collect();
        }
        sizes
    }

    fn link(&self, own: usize, other: usize) -> Option<&PairLink> {
        self.links.get(own)?.get(other)
    }

    fn whole(&self, idx: usize) -> f64 {
        self.whole.get(idx).copied().unwrap_or(SMALLEST)
    }

    /// Of one input, after its own conditions.
    fn size(&self, idx: usize) -> f64 {
        self.whole(idx) + self.share.get(idx).copied().unwrap_or(0.0)
    }

    fn is_unique(&self, idx: usize, columns: &[Column]) -> bool {
        let mut keys = self.unique_keys.get(idx).into_iter().flatten();
        keys.any(|key| key.iter().all(|column| columns.contains(column)))
    }

    fn is_unique_beside(&self, idx: usize, other: usize) -> bool {
        self.link(idx, other).is_some_and(|link| self.is_unique(idx, &link.own))
    }

    /// Whether `idx` has the unique key of `other` among its columns, and not the other way round.
    fn references(&self, idx: usize, other: usize) -> bool {
        self.is_unique_beside(other, idx) && !self.is_unique_beside(idx, other)
    }

    /// What `idx` makes of the rows of those before it.
    fn step(&self, placed: &[usize], idx: usize) -> f64 {
        let linked: Vec<(usize, &PairLink)> = placed.iter().filter_map(|p| Some((*p, self.link(idx, *p)?))).collect();
        let mut own: Vec<Column> = vec![];
        for (_, link) in &linked {
            own.extend(link.own.iter().filter(|c| !own.contains(c)).cloned().collect::<Vec<_>>());
        }
        let mut share = if linked.iter().any(|(_, link)| link.is_other) { SHARE_OF_RANGE } else { 0.0 };
        if self.is_unique(idx, &own) {
            share -= self.whole(idx);
        } else if !own.is_empty() {
            let mut seen: Vec<&[Column]> = vec![];
            for (other, link) in &linked {
                if self.is_unique_beside(*other, idx) && !seen.contains(&&link.own[..]) {
                    share -= self.whole(*other);
                    seen.push(&link.own);
                }
            }
            if seen.is_empty() {
                let sizes = linked.iter().filter(|(_, link)| !link.own.is_empty()).map(|(other, _)| self.whole(*other));
                share -= sizes.fold(self.whole(idx), f64::max) / 2.0;
            }
        }
        self.size(idx) + share
    }

    /// After each input of an order.
    fn sizes(&self, order: &[usize]) -> Vec<f64> {
        let mut size = 0.0;
        let steps = order.iter().enumerate();
        steps
            .map(|(n_placed, idx)| {
                size += self.step(order.get(..n_placed).unwrap_or_default(), *idx);
                size
            })
            .collect()
    }

    /// Of all intermediate results.
    fn cost(&self, order: &[usize]) -> f64 {
        let sizes = self.sizes(order);
        let kept = sizes.iter().take(sizes.len().saturating_sub(1)).skip(1);
        kept.map(|size| 10_f64.powf(*size)).sum::<f64>().log10()
    }

    /// The best order that is found; the first of equal ones.
    fn best(&self) -> Option<Vec<usize>> {
        let n = self.whole.len();
        let first = (0..n).min_by(|a, b| self.size(*a).total_cmp(&self.size(*b)));
        let beginnings = if n > BEGINNINGS_MAX { first.into_iter().collect() } else { (0..n).collect::<Vec<_>>() };
        let orders = beginnings.into_iter().map(|first| {
            let mut placed = vec![first];
            let mut rest: Vec<usize> = (0..n).filter(|idx| *idx != first).collect();
            while !rest.is_empty() {
                let rank = |idx: usize| {
                    let links = || placed.iter().filter_map(|p| self.link(idx, *p));
                    let is_key = links().any(|link| !link.own.is_empty());
                    let unlinked = if is_key { 0 } else { 2 - u8::from(links().any(|link| link.is_other)) };
                    (unlinked, self.step(&placed, idx))
                };
                let ranks = rest.iter().map(|idx| rank(*idx)).enumerate();
                let next = ranks.min_by(|(_, a), (_, b)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
                placed.push(rest.remove(next.map_or(0, |(at, _)| at)));
            }
            placed
        });
        orders.map(|order| (self.cost(&order), order)).min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, order)| order)
    }

    /// The smallest of what it may stand on, if that is much smaller than everything.
    fn place(&self, semi: &Semi, order: &[usize]) -> Place {
        let sizes = self.sizes(order);
        let Some((all, joined)) = sizes.split_last() else { return Place::Top };
        let single = match semi.inputs[..] {
            [idx] => Some((Place::Input(idx), self.size(idx))),
            _ => None,
        };
        let covers = |n_placed: usize| semi.inputs.iter().all(|idx| order.iter().take(n_placed).any(|i| i == idx));
        let prefixes = joined.iter().enumerate().skip(1).map(|(at, size)| (Place::Joined(at + 1), *size));
        let prefixes = prefixes.filter(|(place, _)| matches!(place, Place::Joined(n) if covers(*n)));
        let places = single.into_iter().chain(prefixes).filter(|_| !semi.inputs.is_empty());
        let smallest = places.min_by(|(_, a), (_, b)| a.total_cmp(b));
        smallest.filter(|(_, size)| size + GAIN_MIN < *all).map_or(Place::Top, |(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use tidewire_catalog::{ColumnDef, Kind, TableDef};
    use tidewire_types::SqlType;

    use super::*;
    use crate::fixture::{Fixture, query};

    /// The joins of a view and their inputs, as they are nested.
    fn check(sqls: &[&str], expected: Expect) {
        let mut fixture = Fixture::new();
        let mut add = |name: &str, columns: &[&str], primary_key: &[usize]| {
            let columns = columns.iter().map(|name| ColumnDef::new(*name, SqlType::Int8)).collect();
            let primary_key = primary_key.to_vec();
            fixture.add(name, columns, Kind::Table(TableDef { primary_key, checks: vec![] }), &[]);
        };
        add("nation", &["n_id", "n_region"], &[0]);
        add("supplier", &["s_id", "s_nation"], &[0]);
        add("orders", &["o_id", "o_customer", "o_status"], &[0]);
        add("customer", &["c_id", "c_nation"], &[0]);
        add("line", &["l_order", "l_number", "l_supplier", "l_price"], &[0, 1]);
        let mut shown = String::new();
        for sql in sqls {
            let (query, text) = query(sql).unwrap();
            let (flow, _) = fixture.context().dataflow(&query, &text).unwrap();
            let nodes = flow.to_string();
            let lines = nodes.lines().filter_map(|line| {
                let depth = line.len() - line.trim_start().len();
                let input = line.split_once("Input: ").map(|(_, rest)| rest);
                let what = input.or(line.split_once("join_type=").map(|(_, rest)| rest))?;
                Some(format!("{}{}\n", " ".repeat(depth), what.split(',').next().unwrap_or(what)))
            });
            shown += &format!("> {sql}\n{}", lines.collect::<String>());
        }
        expected.assert_eq(&shown);
    }

    #[test]
    fn small_results_come_first() {
        check(
            &[
                // The condition on nations leaves few suppliers, and these few lines.
                "SELECT l_price FROM line, supplier, orders, nation WHERE l_supplier = s_id AND l_order = o_id AND s_nation = n_id AND n_region = 3",
                // A customer's nation is the supplier's, and so the nation's.
                "SELECT l_price FROM customer, orders, line, supplier, nation WHERE c_id = o_customer AND o_id = l_order AND s_id = l_supplier AND c_nation = s_nation AND s_nation = n_id AND n_region = 3",
                // Nothing would be gained.
                "SELECT l_price FROM orders, line, supplier WHERE o_id = l_order AND s_id = l_supplier",
            ],
            expect![[r#"
                > SELECT l_price FROM line, supplier, orders, nation WHERE l_supplier = s_id AND l_order = o_id AND s_nation = n_id AND n_region = 3
                  Inner
                      Inner
                          Inner
                              supplier
                                nation
                          line
                      orders
                > SELECT l_price FROM customer, orders, line, supplier, nation WHERE c_id = o_customer AND o_id = l_order AND s_id = l_supplier AND c_nation = s_nation AND s_nation = n_id AND n_region = 3
                  Inner
                      Inner
                          Inner
                              Inner
                                  customer
                                    nation
                              orders
                          line
                      supplier
                > SELECT l_price FROM orders, line, supplier WHERE o_id = l_order AND s_id = l_supplier
                  Inner
                      Inner
                          orders
                          line
                      supplier
            "#]],
        );
    }

    #[test]
    fn a_semi_join_stands_on_as_little_as_it_can() {
        check(
            &[
                "SELECT c_id, l_price FROM customer, orders, line WHERE c_id = o_customer AND o_id = l_order AND o_id IN (SELECT l_order FROM line WHERE l_price > 300)",
                // There are fewer lines of a nation than lines.
                "SELECT l_price FROM supplier, line l, nation WHERE s_id = l_supplier AND s_nation = n_id AND n_region = 3 AND NOT EXISTS (SELECT 1 FROM line o WHERE o.l_order = l.l_order AND o.l_supplier <> l.l_supplier)",
            ],
            expect![[r#"
                > SELECT c_id, l_price FROM customer, orders, line WHERE c_id = o_customer AND o_id = l_order AND o_id IN (SELECT l_order FROM line WHERE l_price > 300)
                  Inner
                      Inner
                          customer
                        LeftSemi
                            orders
                              line
                > SELECT l_price FROM supplier, line l, nation WHERE s_id = l_supplier AND s_nation = n_id AND n_region = 3 AND NOT EXISTS (SELECT 1 FROM line o WHERE o.l_order = l.l_order AND o.l_supplier <> l.l_supplier)
                  LeftAnti
                      Inner
                          Inner
                              supplier
                                nation
                          line
                        line
            "#]],
        );
    }

    #[test]
    fn classes_join() {
        let column = |name: &str| Column::from_name(name);
        let pair = |l: &str, r: &str| (column(l), column(r));
        let found = classes(&[pair("a", "b"), pair("c", "d"), pair("d", "b"), pair("e", "f")]);
        let names: Vec<Vec<_>> = found.iter().map(|class| class.iter().map(|c| c.name.as_str()).collect()).collect();
        assert_eq!(names, [vec!["a", "b", "c", "d"], vec!["e", "f"]]);
    }
}
