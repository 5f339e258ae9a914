//! EXISTS and IN: semi and anti joins where they decide about rows, marks where they are values.
//!
//! `x IN (q)` has three values: true where a row of q equals x; else NULL where a comparison is NULL, because x is NULL
//! and q has a row, or because q has a NULL; else false. A mark says only whether there is such a row, so that each of
//! these is a mark of its own, with keys where there are any.

use std::sync::Arc;

use datafusion::common::{Column, DFSchema, JoinType, NullEquality, Result, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Distinct, Expr, ExprSchemable, Filter, Join, JoinConstraint, LogicalPlan, lit, when};

use super::domain::Domain;
use super::pull::{Renamed, in_place_of, join, pull};
use super::scalar::take;
use super::{Query, Unnester, project, rows};
use crate::spans;

/// What is looked for among the rows of a subquery.
pub(super) struct Member {
    plan: LogicalPlan,
    /// Values of the outer row, and the subquery's columns that they are compared with.
    pub(super) outer: Vec<Expr>,
    pub(super) inner: Vec<Expr>,
}

impl Member {
    /// Any row.
    pub(super) fn exists(plan: LogicalPlan) -> Member {
        Member { plan, outer: vec![], inner: vec![] }
    }

    /// `expr IN (plan)`, also for row values; `schema` is that of the rows outside.
    pub(super) fn of(expr: Expr, plan: LogicalPlan, schema: &DFSchema) -> Result<Member> {
        let (plan, outer, inner) = match rows::elements(&expr) {
            Some(outer) => {
                let (plan, inner) = rows::columns(plan, outer.len())?;
                (plan, outer, inner)
            }
            None => {
                let inner = plan.schema().columns().into_iter().take(1).map(Expr::Column).collect();
                (plan, vec![expr], inner)
            }
        };
        if !outer.iter().any(|value| spans::has_key(value, schema)) {
            return Ok(Member { plan, outer, inner });
        }
        let outer = outer.into_iter().map(|value| spans::sort_key(value, schema)).collect();
        let keys = inner.into_iter().map(|value| spans::sort_key(value, plan.schema())).enumerate();
        let keys = keys.map(|(idx, value)| value.alias(format!("key\u{1}{idx}"))).collect();
        let plan = project(plan, keys)?;
        let inner = plan.schema().columns().into_iter().map(Expr::Column).collect();
        Ok(Member { plan, outer, inner })
    }

    fn null_is_possible(&self, query: &Query<'_>) -> Result<(bool, bool)> {
        let (mut outer, mut inner) = (false, false);
        for expr in &self.outer {
            outer |= expr.nullable(query.input.schema())?;
        }
        for expr in &self.inner {
            inner |= expr.nullable(self.plan.schema())?;
        }
        Ok((outer, inner))
    }
}

/// All equal.
fn equal(outer: &[Expr], inner: &[Expr]) -> Vec<Expr> {
    outer.iter().zip(inner).map(|(o, i)| o.clone().eq(i.clone())).collect()
}

/// What must be true of an outer row's values and of a subquery's.
type Conditions<'a> = dyn Fn(&[Expr], &[Expr]) -> Vec<Expr> + 'a;

/// The right side of a semi, anti or mark join, and the conditions for a row of it to count.
struct Matching {
    right: LogicalPlan,
    on: Vec<(Expr, Expr)>,
    filter: Vec<Expr>,
    nulls: NullEquality,
}

impl Unnester {
    /// Keeps the rows for which there is a member; with `negated` those for which it is certain that there is none.
    pub(super) fn keep_rows(&mut self, query: &mut Query<'_>, member: Member, negated: bool) -> Result<()> {
        let unknown = negated && member.null_is_possible(query)? != (false, false);
        if !unknown {
            let matching = self.matching(query, &member, &equal)?;
            let kind = if negated { JoinType::LeftAnti } else { JoinType::LeftSemi };
            let Matching { right, on, filter, nulls } = matching;
            query.input = join(take(&mut query.input), right, on, filter, kind, nulls)?;
            return Ok(());
        }
        let is_free = query.scopes.is_outermost() && !query.scope.is_used_in(&member.plan)?;
        if is_free && let ([outer], [_]) = (member.outer.as_slice(), member.inner.as_slice()) {
            let (renamed, places) = Renamed::of(self, member.plan, &member.inner, &[])?;
            let on = places.into_iter().map(|place| (outer.clone(), Expr::Column(place))).collect();
            let (left, right) = (Arc::new(take(&mut query.input)), Arc::new(renamed.plan));
            let nothing = NullEquality::NullEqualsNothing;
            let kind = JoinType::LeftAnti;
            let joined = Join::try_new(left, right, on, None, kind, JoinConstraint::On, nothing, true)?;
            query.input = LogicalPlan::Join(joined);
            return Ok(());
        }
        let condition = self.membership(query, &member, true)?;
        query.input = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(take(&mut query.input)))?);
        Ok(())
    }

    /// Whether there is a member: true or false, never NULL.
    pub(super) fn mark(&mut self, query: &mut Query<'_>, member: &Member) -> Result<Expr> {
        self.mark_where(query, member, &equal)
    }

    /// Whether there is a row for which all of `conditions` are true.
    pub(super) fn mark_where(
        &mut self,
        query: &mut Query<'_>,
        member: &Member,
        conditions: &Conditions<'_>,
    ) -> Result<Expr> {
        let Matching { right, on, filter, nulls } = self.matching(query, member, conditions)?;
        let alias = right.schema().iter().find_map(|(qualifier, _)| qualifier.cloned());
        query.input = join(take(&mut query.input), right, on, filter, JoinType::LeftMark, nulls)?;
        Ok(Expr::Column(Column::new(alias, "mark")))
    }

    /// `outer [NOT] IN (plan)` with its three values.
    pub(super) fn membership(&mut self, query: &mut Query<'_>, member: &Member, negated: bool) -> Result<Expr> {
        let found = self.mark(query, member)?;
        let (outer_null, inner_null) = member.null_is_possible(query)?;
        let mut unknown: Vec<Expr> = vec![];
        match (member.outer.as_slice(), member.inner.as_slice()) {
            ([outer], [inner]) => {
                if inner_null {
                    let null = inner.clone().is_null();
                    let plan = LogicalPlan::Filter(Filter::try_new(null, Arc::new(member.plan.clone()))?);
                    unknown.push(self.mark(query, &Member::exists(plan))?);
                }
                if outer_null {
                    let is_null = outer.clone().is_null();
                    let any = self.mark(query, &Member::exists(member.plan.clone()))?;
                    unknown.push(is_null.and(any));
                }
            }
            _ if outer_null || inner_null => {
                let not_false =
                    |outer: &[Expr], inner: &[Expr]| equal(outer, inner).into_iter().map(Expr::is_not_false).collect();
                unknown.push(self.mark_where(query, member, &not_false)?);
            }
            _ => {}
        }
        match unknown.into_iter().reduce(Expr::or) {
            None => Ok(if negated { !found } else { found }),
            Some(unknown) => {
                when(found, lit(!negated)).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(negated))
            }
        }
    }

    fn matching(&mut self, query: &Query<'_>, member: &Member, conditions: &Conditions<'_>) -> Result<Matching> {
        // Neither copies nor order matter.
        let plan = strip(&member.plan, member.inner.is_empty());
        let names = member.plan.schema();
        if let Some(pulled) = pull(plan, &query.scope)? {
            let inner = member.inner.iter().cloned();
            let inner: Vec<Expr> = match member.inner.is_empty() {
                true => vec![],
                false => inner.map(|e| in_place_of(e, names, &pulled.columns)).collect::<Result<_>>()?,
            };
            let wanted: Vec<Expr> = pulled.conditions.iter().chain(&inner).cloned().collect();
            let plan = if wanted.is_empty() { any_row(pulled.plan)? } else { pulled.plan };
            let (renamed, _) = Renamed::of(self, plan, &[], &wanted)?;
            let inside = |e: Expr| query.scope.inline(renamed.rename(e)?);
            let mut filter: Vec<Expr> = pulled.conditions.into_iter().map(inside).collect::<Result<_>>()?;
            let inner: Vec<Expr> = inner.into_iter().map(inside).collect::<Result<_>>()?;
            filter.extend(conditions(&member.outer, &inner).into_iter().flat_map(split_conjunction_owned));
            let nulls = NullEquality::NullEqualsNothing;
            return Ok(Matching { right: renamed.plan, on: vec![], filter, nulls });
        }
        let domain = Domain::of(&query.scope, &query.rows, plan)?;
        let pushed = self.push(plan, &domain)?;
        let columns = plan.schema().columns();
        let inner = member.inner.iter().cloned();
        let as_pushed: Vec<Expr> = columns.into_iter().map(Expr::Column).collect();
        let mut exprs: Vec<Expr> = match member.inner.is_empty() {
            true => vec![],
            false => inner.map(|e| in_place_of(e, names, &as_pushed)).collect::<Result<_>>()?,
        };
        let n_inner = exprs.len();
        exprs.extend(pushed.keys.iter().cloned().map(Expr::Column));
        let (renamed, mut places) = Renamed::of(self, pushed.plan, &exprs, &[])?;
        let keys = places.split_off(n_inner);
        let on = domain.outer_values()?.into_iter().zip(keys.into_iter().map(Expr::Column)).collect();
        let inner: Vec<Expr> = places.into_iter().map(Expr::Column).collect();
        let filter = conditions(&member.outer, &inner);
        Ok(Matching { right: renamed.plan, on, filter, nulls: pushed.nulls })
    }
}

/// The plan without what makes no difference to whether there is a row; `all` says that its columns do not matter.
fn strip(plan: &LogicalPlan, all: bool) -> &LogicalPlan {
    match plan {
        LogicalPlan::Distinct(Distinct::All(input)) => strip(input, all),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => strip(&sort.input, all),
        LogicalPlan::Projection(projection) if all => strip(&projection.input, all),
        LogicalPlan::SubqueryAlias(alias) if all => strip(&alias.input, all),
        LogicalPlan::Limit(limit) if all => {
            use datafusion::logical_expr::{FetchType, SkipType};
            let skips = !matches!(limit.get_skip_type(), Ok(SkipType::Literal(0)));
            match limit.get_fetch_type() {
                Ok(FetchType::Literal(n)) if !skips && n != Some(0) => strip(&limit.input, all),
                _ => plan,
            }
        }
        other => other,
    }
}

/// One row if there are any.
fn any_row(plan: LogicalPlan) -> Result<LogicalPlan> {
    let one = project(plan, vec![lit(true).alias("row")])?;
    Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(one))))
}
