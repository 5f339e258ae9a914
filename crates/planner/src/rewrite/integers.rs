//! An integer literal is an `integer` where it fits, a `bigint` or a `numeric` else, as in PostgreSQL; DataFusion takes each
//! for a bigint, and one that is too large for that as if it were unsigned.
//!
//! Literals get a cast, so that DataFusion finds the types of everything around them while it plans;
//! [`crate::literals`] makes literals of the casts again. Places of columns (`ORDER BY 1`) and LIMIT stay plain numbers.

use std::ops::ControlFlow;

use sqlparser::ast::{
    self, CastKind, Expr, GroupByExpr, LimitClause, OrderByKind, Query, Select, UnaryOperator, Value, VisitorMut,
};
use tidewire_sql::walk_mut;

/// Casts the integer literals of a query.
pub(super) fn of_query(query: &mut Query) {
    let _ = walk_mut(query, &mut Integers);
}

/// Casts the integer literals inside an expression; one that is the whole expression has the type of what it is for.
pub(super) fn of_expr(expr: &mut Expr) {
    if !is_number(expr) {
        let _ = walk_mut(expr, &mut Integers);
    }
}

struct Integers;

impl VisitorMut for Integers {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Value(_) if fits::<i32>(expr, "") => cast(expr, INTEGER),
            Expr::Value(_) if fits::<u64>(expr, "") && !fits::<i64>(expr, "") => cast(expr, WIDE),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } => {
                plain(inner);
                if fits::<i32>(inner, "-") {
                    cast(expr, INTEGER);
                }
            }
            Expr::Cast { expr: inner, .. } => plain(inner),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(OrderByKind::Expressions(keys)) = query.order_by.as_mut().map(|order| &mut order.kind) {
            keys.iter_mut().for_each(|key| plain(&mut key.expr));
        }
        if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause {
            limit.iter_mut().chain(offset.iter_mut().map(|offset| &mut offset.value)).for_each(plain);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if let Some(ast::Distinct::On(exprs)) = &mut select.distinct {
            exprs.iter_mut().for_each(plain);
        }
        let GroupByExpr::Expressions(exprs, _) = &mut select.group_by else { return ControlFlow::Continue(()) };
        for expr in exprs {
            match expr {
                Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                    sets.iter_mut().flatten().for_each(plain);
                }
                other => plain(other),
            }
        }
        ControlFlow::Continue(())
    }
}

fn is_number(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, Value::Number(..)))
}

const INTEGER: ast::DataType = ast::DataType::Int4(None);
/// 2^64 has 20 digits.
const WIDE: ast::DataType = ast::DataType::Numeric(ast::ExactNumberInfo::PrecisionAndScale(20, 0));

fn fits<T: std::str::FromStr>(expr: &Expr, sign: &str) -> bool {
    let Expr::Value(value) = expr else { return false };
    let Value::Number(digits, _) = &value.value else { return false };
    format!("{sign}{}", digits.replace('_', "")).parse::<T>().is_ok()
}

fn cast(expr: &mut Expr, data_type: ast::DataType) {
    let number = Box::new(std::mem::replace(expr, Expr::value(Value::Null)));
    *expr = Expr::Cast { kind: CastKind::Cast, expr: number, data_type, array: false, format: None };
}

/// Takes the cast off again.
fn plain(expr: &mut Expr) {
    if let Expr::Cast { expr: inner, data_type, .. } = expr
        && (*data_type == INTEGER || *data_type == WIDE)
        && (is_number(inner) || matches!(inner.as_ref(), Expr::UnaryOp { expr, .. } if is_number(expr)))
    {
        *expr = std::mem::replace(inner, Expr::value(Value::Null));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> String {
        let mut parsed = tidewire_sql::parse(text).unwrap();
        let tidewire_sql::Statement::Query(mut query) = parsed.remove(0).statement else { panic!("a query") };
        of_query(&mut query);
        query.to_string()
    }

    #[test]
    fn literals_are_integers_where_they_fit() {
        assert_eq!(
            rewritten("SELECT 1, -2147483648, 2147483648, 1.5, f(-3)"),
            "SELECT CAST(1 AS INT4), CAST(-2147483648 AS INT4), 2147483648, 1.5, f(CAST(-3 AS INT4))"
        );
        assert_eq!(rewritten("SELECT 1::bigint"), "SELECT 1::BIGINT");
    }

    #[test]
    fn places_of_columns_stay() {
        let text = "SELECT DISTINCT ON (1) a FROM t GROUP BY 1, ROLLUP (1, 2) ORDER BY 1 LIMIT 2 OFFSET 3";
        assert_eq!(rewritten(text), text);
    }
}
