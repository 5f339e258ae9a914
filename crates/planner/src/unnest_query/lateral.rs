//! Joins in FROM: LATERAL is a join whose right side refers to the left, and ON may have subqueries.

use std::sync::Arc;

use datafusion::common::{JoinType, NullEquality, Result};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Operator, binary_expr, lit, when};
use tidewire_types::SqlError;

use super::domain::Domain;
use super::pull::{Pulled, Renamed, in_place_of, join, pull};
use super::scalar::{global_aggregate, with_names};
use super::scope::{Scope, Scopes, bind};
use super::{Query, Unnester, filtered, is_nested, only, project, qualified};
use crate::provider::to_datafusion;

/// A join whose right side refers to the left.
struct Dependent<'a> {
    left: LogicalPlan,
    right: LogicalPlan,
    /// ON.
    conditions: Vec<Expr>,
    is_left_join: bool,
    scope: &'a Scope,
    scopes: &'a Scopes,
}

impl Unnester {
    /// A join, the items of a FROM clause from the left to the right.
    pub(super) fn join(&mut self, plan: Join, scopes: &Scopes) -> Result<LogicalPlan> {
        let Join { left, right, on, filter, join_type, join_constraint, null_equality, null_aware, .. } = plan;
        let left = self.rewrite(Arc::unwrap_or_clone(left), scopes)?;
        let scope = self.scope(left.schema());
        let mut inside = scopes.and_lateral(&scope);
        if inside.is_lateral_inside(&right)? {
            inside = inside.inside_lateral();
        }
        let right = self.rewrite(Arc::unwrap_or_clone(right), &inside)?;
        let scopes = &scopes.without_lateral();
        let on = on.into_iter().map(|(l, r)| Ok((bind(l, scopes)?, bind(r, scopes)?)));
        let on: Vec<(Expr, Expr)> = on.collect::<Result<_>>()?;
        let filter = filter.into_iter().flat_map(split_conjunction_owned).map(|e| bind(e, scopes));
        let filter: Vec<Expr> = filter.collect::<Result<_>>()?;
        let (nested, plain): (Vec<_>, Vec<_>) = filter.into_iter().partition(is_nested);

        if scope.is_used_in(&right)? {
            let is_left_join = match join_type {
                JoinType::Inner => false,
                JoinType::Left if nested.is_empty() => true,
                _ => return Err(to_datafusion(SqlError::unsupported("this join with LATERAL"))),
            };
            let equal = match null_equality {
                NullEquality::NullEqualsNothing => Operator::Eq,
                NullEquality::NullEqualsNull => Operator::IsNotDistinctFrom,
            };
            let mut conditions: Vec<Expr> = on.into_iter().map(|(l, r)| binary_expr(l, equal, r)).collect();
            conditions.extend(plain);
            let dependent = Dependent { left, right, conditions, is_left_join, scope: &scope, scopes };
            let joined = self.dependent_join(dependent)?;
            return self.filter(nested, joined, scopes);
        }
        if nested.is_empty() {
            let filter = plain.into_iter().reduce(Expr::and);
            let (left, right) = (Arc::new(left), Arc::new(right));
            let joined = Join::try_new(left, right, on, filter, join_type, join_constraint, null_equality, null_aware)?;
            return Ok(LogicalPlan::Join(joined));
        }
        if join_type == JoinType::Inner {
            let joined = join(left, right, on, plain, join_type, null_equality)?;
            return self.filter(nested, joined, scopes);
        }
        self.join_on(left, right, on, plain, nested, join_type, null_equality, scopes)
    }

    fn dependent_join(&mut self, plan: Dependent<'_>) -> Result<LogicalPlan> {
        if let Some(pulled) = pull(&plan.right, plan.scope)? {
            return self.as_plain_join(plan, pulled);
        }
        let columns = plan.right.schema().columns().into_iter().map(Expr::Column).collect();
        if let Some(global) = global_aggregate(&plan.right, columns)?
            && (!plan.is_left_join || (plan.conditions.is_empty() && global.conditions.is_empty()))
        {
            // It has one row for each of the left.
            let Dependent { left, right, conditions, scope, scopes, .. } = plan;
            let mut exprs: Vec<Expr> = left.schema().columns().into_iter().map(Expr::Column).collect();
            let mut query = Query::new(left, scope.clone(), scopes);
            let (values, having) = self.over_aggregate(&mut query, global)?;
            exprs.extend(with_names(values, right.schema()));
            return filtered(project(filtered(query.input, having)?, exprs)?, conditions);
        }
        let Dependent { left, right, conditions, is_left_join, scope, .. } = plan;
        let domain = Domain::of(scope, &left, &right)?;
        let pushed = self.push(&right, &domain)?;
        let keys = pushed.keys.iter().cloned().map(Expr::Column);
        let on = domain.outer_values()?.into_iter().zip(keys).collect();
        let names: Vec<_> = qualified(left.schema()).into_iter().chain(qualified(right.schema())).collect();
        let kind = if is_left_join { JoinType::Left } else { JoinType::Inner };
        only(join(left, pushed.plan, on, conditions, kind, pushed.nulls)?, &names)
    }

    /// Where the right side is closed rows with conditions, these are those of the join.
    fn as_plain_join(&mut self, plan: Dependent<'_>, pulled: Pulled) -> Result<LogicalPlan> {
        let Dependent { left, right, conditions, is_left_join, scope, .. } = plan;
        let (of_left, own): (Vec<_>, Vec<_>) = pulled.columns.iter().cloned().partition(|e| scope.is_in(e));
        let wanted: Vec<Expr> = pulled.conditions.iter().chain(&of_left).cloned().collect();
        let mut exprs = own;
        exprs.push(lit(true));
        let (renamed, mut places) = Renamed::of(self, pulled.plan, &exprs, &wanted)?;
        let present = places.pop().map(|place| Expr::Column(place).is_not_null());
        let inside = |e: Expr| scope.inline(renamed.rename(e)?);
        let mut places = places.into_iter();
        let of_both: Vec<bool> = pulled.columns.iter().map(|column| scope.is_in(column)).collect();
        let mut columns = vec![];
        for column in pulled.columns {
            columns.push(match scope.is_in(&column) {
                false => places.next().map_or(lit(true), Expr::Column),
                true => inside(column)?,
            });
        }
        let mut on: Vec<Expr> = pulled.conditions.into_iter().map(inside).collect::<Result<_>>()?;
        let all: Vec<Expr> = left.schema().columns().into_iter().map(Expr::Column).chain(columns.clone()).collect();
        let both = left.schema().join(right.schema())?;
        for condition in conditions {
            on.push(in_place_of(condition, &both, &all)?);
        }
        let kind = if is_left_join { JoinType::Left } else { JoinType::Inner };
        let mut exprs: Vec<Expr> = left.schema().columns().into_iter().map(Expr::Column).collect();
        let joined = join(left, renamed.plan, vec![], on, kind, NullEquality::NullEqualsNothing)?;
        if is_left_join && let Some(present) = present {
            // What is computed of both sides is NULL in a row without a partner.
            for (column, _) in columns.iter_mut().zip(of_both).filter(|(_, of_both)| *of_both) {
                let value = std::mem::replace(column, lit(true));
                *column = when(present.clone(), value).end()?;
            }
        }
        exprs.extend(with_names(columns, right.schema()));
        project(joined, exprs)
    }
}
