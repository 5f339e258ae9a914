//! Casts in queries with groups or windows, as calls of functions.
//!
//! DataFusion names an expression without the casts in it: `day::date` and `day` have one name, and so have `sum(a)` and
//! `sum(a::float8)`. Two keys of GROUP BY, or two windows, must not.

use std::ops::ControlFlow;

use sqlparser::ast::{CastKind, Expr, GroupByExpr, Query, Select, SetExpr, Value, VisitorMut};
use tidewire_sql::{has_expr, sql_type, walk_mut};

use super::call;
use crate::functions::cast;

/// Rewrites the casts of `query` if it is one of these.
pub(super) fn rewrite(query: &mut Query) {
    if let SetExpr::Select(select) = query.body.as_ref()
        && is_named(select)
    {
        let _ = walk_mut(query, &mut Casts);
    }
}

fn is_named(select: &Select) -> bool {
    let groups = matches!(&select.group_by, GroupByExpr::Expressions(exprs, _) if !exprs.is_empty());
    (groups || has_window(select)) && has_expr(select, &is_cast)
}

fn has_window(select: &Select) -> bool {
    let is_window = |expr: &Expr| matches!(expr, Expr::Function(function) if function.over.is_some());
    has_expr(select, &is_window)
}

struct Casts;

impl VisitorMut for Casts {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if is_cast(expr)
            && let Expr::Cast { expr: inner, data_type, .. } = expr
            && let Ok(target) = sql_type(data_type)
        {
            let inner = std::mem::replace(inner.as_mut(), Expr::value(Value::Null));
            *expr = call(&cast::any_name(&target), vec![inner]);
        }
        ControlFlow::Continue(())
    }
}

/// Whether it is a cast of something that has a name. What a literal becomes has to stay one.
fn is_cast(expr: &Expr) -> bool {
    let Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr: inner, format: None, .. } = expr else {
        return false;
    };
    let mut inner = inner.as_ref();
    while let Expr::Nested(expr) | Expr::UnaryOp { expr, .. } | Expr::Cast { expr, .. } = inner {
        inner = expr;
    }
    !matches!(inner, Expr::Value(_) | Expr::TypedString(_) | Expr::Interval(_))
}
