//! `NOT EXISTS (..) IS NULL` is NOT of `EXISTS (..) IS NULL`: NOT binds more loosely than all but AND and OR. sqlparser
//! takes NOT and EXISTS for one word.

use sqlparser::ast::{BinaryOperator, CastKind, Expr, UnaryOperator, Value};

/// Rewrites `expr` if it begins with such a NOT EXISTS.
pub(super) fn rewrite(expr: &mut Expr) {
    let mut first = match left_of(expr) {
        Some(left) => left,
        None => return,
    };
    while !matches!(first, Expr::Exists { .. }) {
        first = match left_of(first) {
            Some(left) => left,
            None => return,
        };
    }
    if let Expr::Exists { negated: negated @ true, .. } = first {
        *negated = false;
        let inner = Box::new(Expr::Nested(Box::new(std::mem::replace(expr, Expr::value(Value::Null)))));
        *expr = Expr::UnaryOp { op: UnaryOperator::Not, expr: inner };
    }
}

/// What the expression begins with, where that is an operand of an operator that binds more tightly than NOT.
fn left_of(expr: &mut Expr) -> Option<&mut Expr> {
    match expr {
        Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Xor, .. } => None,
        Expr::BinaryOp { left: expr, .. }
        | Expr::IsNull(expr)
        | Expr::IsNotNull(expr)
        | Expr::IsTrue(expr)
        | Expr::IsNotTrue(expr)
        | Expr::IsFalse(expr)
        | Expr::IsNotFalse(expr)
        | Expr::IsUnknown(expr)
        | Expr::IsNotUnknown(expr)
        | Expr::IsDistinctFrom(expr, _)
        | Expr::IsNotDistinctFrom(expr, _)
        | Expr::InList { expr, .. }
        | Expr::InSubquery { expr, .. }
        | Expr::Between { expr, .. }
        | Expr::AnyOp { left: expr, .. }
        | Expr::AllOp { left: expr, .. }
        | Expr::Cast { kind: CastKind::DoubleColon, expr, .. } => Some(expr),
        _ => None,
    }
}
