//! Casts in queries with groups or windows, and in VALUES, as calls of functions.
//!
//! DataFusion names an expression without the casts in it: `day::date` and `day` have one name, and so have `sum(a)` and
//! `sum(a::float8)`. Two keys of GROUP BY, or two windows, must not. And a cast keeps what the field of its argument tells
//! of the type: DataFusion takes no VALUES of which that differs.

use std::ops::ControlFlow;

use sqlparser::ast::{CastKind, Expr, GroupByExpr, Query, Select, SetExpr, Value, VisitorMut};
use tidewire_sql::{has_expr, sql_type, walk_mut};

use super::{call, is_literal};
use crate::functions::cast;

/// Rewrites the casts of `query` if it is one of these.
pub(super) fn rewrite(query: &mut Query) {
    if let SetExpr::Select(select) = query.body.as_ref()
        && is_named(select)
    {
        let _ = walk_mut(query, &mut Casts);
    }
    in_values(&mut query.body);
}

fn in_values(body: &mut SetExpr) {
    match body {
        SetExpr::SetOperation { left, right, .. } => {
            in_values(left);
            in_values(right);
        }
        SetExpr::Values(values) if values.rows.len() > 1 => {
            let all = values.rows.iter_mut().flat_map(|row| &mut row.content);
            all.filter(|value| is_of_typed(value)).for_each(to_call);
        }
        _ => {}
    }
}

/// Whether it is a cast of something that has a type: a literal that stands for itself has not.
fn is_of_typed(expr: &Expr) -> bool {
    let Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr: inner, format: None, .. } = expr else {
        return false;
    };
    !is_literal(inner)
}

fn to_call(expr: &mut Expr) {
    if let Expr::Cast { expr: inner, data_type, .. } = expr
        && let Ok(target) = sql_type(data_type)
    {
        let inner = std::mem::replace(inner.as_mut(), Expr::value(Value::Null));
        *expr = call(&cast::any_name(&target), vec![inner]);
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
        if is_cast(expr) {
            to_call(expr);
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
