//! `x IN (1, CASE .. END)`: what is not the same for all rows is compared by itself.
//!
//! DataFusion takes a list for constant if it can be evaluated over no rows, where a CASE gives one NULL, whatever it
//! reads. `x IN (1, y)` is `x IN (1) OR x = y`.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::disjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, lit};

use crate::column_names::map_named;

/// Takes the lists of a plan apart.
pub(crate) fn in_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| map_named(plan, apart)).map(|t| t.data)
}

/// Takes the lists of an expression apart.
pub(crate) fn in_expr(expr: Expr) -> Result<Expr> {
    apart(expr).map(|t| t.data)
}

fn apart(expr: Expr) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| match expr {
        Expr::InList(InList { expr, list, negated }) if list.iter().any(reads) && !expr.is_volatile() => {
            let (others, constants): (Vec<_>, Vec<_>) = list.into_iter().partition(reads);
            let equal = others.into_iter().map(|item| expr.as_ref().clone().eq(item));
            let constants = (!constants.is_empty())
                .then(|| Expr::InList(InList { expr: expr.clone(), list: constants, negated: false }));
            let found = disjunction(constants.into_iter().chain(equal)).unwrap_or_else(|| lit(false));
            Ok(Transformed::yes(if negated { !found } else { found }))
        }
        other => Ok(Transformed::no(other)),
    })
}

/// Whether it reads columns or parameters, and is more than one: a column is evaluated right. (Parameters become columns
/// where they are in an expression that stands in several places.) Or it is a subquery's value, of which DataFusion makes
/// `x IN (SELECT ..)` when it is the only one that is left: that says no where it should say NULL.
fn reads(item: &Expr) -> bool {
    let is_subquery = |expr: &Expr| Ok(matches!(expr, Expr::ScalarSubquery(_)));
    let is_read = |expr: &Expr| Ok(matches!(expr, Expr::Column(_) | Expr::Placeholder(_)));
    item.exists(is_subquery).unwrap_or_default()
        || !matches!(item, Expr::Column(_) | Expr::Placeholder(_)) && item.exists(is_read).unwrap_or_default()
}
