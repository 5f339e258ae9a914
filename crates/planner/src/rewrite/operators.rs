//! Operators that become calls of functions: `-x`, `~x`, LIKE and SIMILAR TO with an escape.

use sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value, ValueWithSpan};

use super::call;
use crate::functions::patterns::{LIKE_ESCAPE, SIMILAR_TO_ESCAPE};
use crate::functions::unary::{COMPLEMENT, NEGATIVE};

/// Rewrites `expr` if it is one of them.
pub(super) fn rewrite(expr: &mut Expr) {
    match expr {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } if !is_literal(inner) => {
            let inner = take(inner);
            *expr = call(NEGATIVE, vec![inner]);
        }
        Expr::UnaryOp { op: UnaryOperator::BitwiseNot, expr: inner } => {
            let inner = take(inner);
            *expr = call(COMPLEMENT, vec![inner]);
        }
        Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
            if let Some(escape) = escape_char.take().filter(|escape| !is_backslash(escape)) {
                **pattern = call(LIKE_ESCAPE, vec![take(pattern), Expr::Value(escape)]);
            }
        }
        Expr::SimilarTo { negated, expr: value, pattern, escape_char } => {
            let args = std::iter::once(take(pattern)).chain(escape_char.take().map(Expr::Value)).collect();
            let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
            let left = Box::new(Expr::Nested(Box::new(take(value))));
            *expr = Expr::BinaryOp { left, op, right: Box::new(call(SIMILAR_TO_ESCAPE, args)) };
        }
        _ => {}
    }
}

/// A number, or a parameter, whose type follows from where it stands.
fn is_literal(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, Value::Number(..) | Value::Placeholder(_)))
}

fn is_backslash(escape: &ValueWithSpan) -> bool {
    matches!(&escape.value, Value::SingleQuotedString(text) if text == "\\")
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::value(Value::Null))
}
