//! `x op ANY (array)` and `x op ALL (array)` are calls of functions.

use sqlparser::ast::{BinaryOperator as Op, Expr, UnaryOperator};

use super::call;
use crate::functions::any::EQUALS_ANY;

/// Rewrites `expr` if it is one.
pub(super) fn rewrite(expr: &mut Expr) {
    let (left, op, right, is_all) = match expr {
        Expr::AnyOp { left, compare_op, right, .. } => (left, compare_op.clone(), right, false),
        Expr::AllOp { left, compare_op, right } => (left, compare_op.clone(), right, true),
        _ => return,
    };
    if matches!(right.as_ref(), Expr::Subquery(_)) {
        return;
    }
    // ALL: no item may compare otherwise.
    let name = match (&op, is_all) {
        (Op::Eq, false) | (Op::NotEq, true) => EQUALS_ANY,
        (Op::NotEq, false) | (Op::Eq, true) => "<> ANY",
        (Op::Lt, false) | (Op::GtEq, true) => "< ANY",
        (Op::LtEq, false) | (Op::Gt, true) => "<= ANY",
        (Op::Gt, false) | (Op::LtEq, true) => "> ANY",
        (Op::GtEq, false) | (Op::Lt, true) => ">= ANY",
        _ => return,
    };
    let any = call(name, vec![left.as_ref().clone(), right.as_ref().clone()]);
    *expr = match is_all {
        true => Expr::Nested(Box::new(Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(any) })),
        false => any,
    };
}
