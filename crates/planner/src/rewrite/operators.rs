//! Operators that become calls of functions: `-x`, `~x`, `@ x`, `|/ x`, `||/ x`, OVERLAPS, LIKE and SIMILAR TO with an
//! escape.

use sqlparser::ast::{BinaryOperator, DataType, Expr, UnaryOperator, Value, ValueWithSpan};

use super::{call, untyped};
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
        // A path is a text here.
        Expr::Cast { data_type: data_type @ DataType::Custom(..), .. } if is_path(data_type) => {
            *data_type = DataType::Text;
        }
        Expr::UnaryOp {
            op: op @ (UnaryOperator::PGAbs | UnaryOperator::PGSquareRoot | UnaryOperator::PGCubeRoot),
            expr: inner,
        } => {
            let name = match op {
                UnaryOperator::PGAbs => "abs",
                UnaryOperator::PGSquareRoot => "sqrt",
                _ => "cbrt",
            };
            *expr = call(name, vec![take(inner)]);
        }
        Expr::BinaryOp { left, op: BinaryOperator::Overlaps, right } => {
            if let (Some(left), Some(right)) = (period(left), period(right)) {
                *expr = call("overlaps", [left, right].concat());
                untyped::rewrite(expr);
            }
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

fn is_path(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Custom(name, _) if name.to_string().eq_ignore_ascii_case("jsonpath"))
}

/// The ends of `(start, end)` or `(start, INTERVAL '..')`.
fn period(pair: &Expr) -> Option<Vec<Expr>> {
    let Expr::Tuple(ends) = pair else { return None };
    let [start, end] = ends.as_slice() else { return None };
    let end = match end {
        Expr::Interval(_) => {
            let start = Box::new(Expr::Nested(Box::new(start.clone())));
            Expr::BinaryOp { left: start, op: BinaryOperator::Plus, right: Box::new(end.clone()) }
        }
        end => end.clone(),
    };
    Some(vec![start.clone(), end])
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
