//! `x < ANY (q)` and `x >= ALL (q)`: a comparison with the least or the greatest value of q, with SQL's three values.

use std::sync::Arc;

use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::expr::SetQuantifier;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, Operator, binary_expr, lit, when};

use super::membership::Member;
use super::scalar::is_ordered;
use super::{Query, Unnester, rows};

impl Unnester {
    /// `expr op ANY (plan)` or `expr op ALL (plan)`.
    pub(super) fn quantified(
        &mut self,
        query: &mut Query<'_>,
        expr: Expr,
        op: Operator,
        quantifier: &SetQuantifier,
        plan: LogicalPlan,
    ) -> Result<Expr> {
        let any = matches!(quantifier, SetQuantifier::Any);
        let expr = self.without_subqueries(expr, query)?;
        let column = plan.schema().columns().into_iter().next().map(Expr::Column);
        if let (None, Some(column)) = (rows::elements(&expr), column)
            && is_ordered(&column.get_type(plan.schema())?)
            && let Some(extremes) = extremes(op, any)
        {
            return self.by_extremes(query, expr, op, any, extremes, column, plan);
        }
        let member = Member::of(expr, plan, query.input.schema())?;
        let compare = |outer: &[Expr], inner: &[Expr]| rows::comparison(op, outer, inner);
        let deciding = |outer: &[Expr], inner: &[Expr]| match any {
            true => vec![compare(outer, inner)],
            false => vec![!compare(outer, inner)],
        };
        let decided = self.mark_where(query, &member, &deciding)?;
        let unknown = |outer: &[Expr], inner: &[Expr]| vec![compare(outer, inner).is_null()];
        let unknown = self.mark_where(query, &member, &unknown)?;
        when(decided, lit(any)).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(!any))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one comparison")]
    fn by_extremes(
        &mut self,
        query: &mut Query<'_>,
        expr: Expr,
        op: Operator,
        any: bool,
        extremes: &[Extreme],
        column: Expr,
        plan: LogicalPlan,
    ) -> Result<Expr> {
        let mut calls = vec![count(lit(1i64)), count(column.clone())];
        calls.extend(extremes.iter().map(|extreme| match extreme {
            Extreme::Least => min(column.clone()),
            Extreme::Greatest => max(column.clone()),
        }));
        let calls = calls.into_iter().map(|call| call.alias(self.name("value"))).collect();
        let aggregate = Aggregate::try_new(Arc::new(plan), vec![], calls)?;
        let mut values = self.calls(query, &aggregate)?.into_iter();
        let (Some(n_rows), Some(n_values)) = (values.next(), values.next()) else {
            return datafusion::common::internal_err!("an aggregate without its calls");
        };
        let compared = values.map(|value| binary_expr(expr.clone(), op, value));
        let compared = if any { compared.reduce(Expr::or) } else { compared.reduce(Expr::and) };
        let compared = compared.unwrap_or_else(|| lit(any));
        let decided = if any { compared } else { !compared };
        let unknown = expr.is_null().or(n_values.lt(n_rows.clone()));
        when(n_rows.eq(lit(0i64)), lit(!any))
            .when(decided, lit(any))
            .when(unknown, lit(ScalarValue::Boolean(None)))
            .otherwise(lit(!any))
    }
}

enum Extreme {
    Least,
    Greatest,
}

/// Which values decide. None: another operator.
fn extremes(op: Operator, any: bool) -> Option<&'static [Extreme]> {
    use Extreme::{Greatest, Least};
    match (op, any) {
        (Operator::Lt | Operator::LtEq, true) | (Operator::Gt | Operator::GtEq, false) => Some(&[Greatest]),
        (Operator::Lt | Operator::LtEq, false) | (Operator::Gt | Operator::GtEq, true) => Some(&[Least]),
        (Operator::Eq, false) | (Operator::NotEq, true) => Some(&[Least, Greatest]),
        _ => None,
    }
}
