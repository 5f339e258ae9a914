//! `x op ANY (array)` and `x op ALL (array)` are calls of functions.

use sqlparser::ast::{BinaryOperator as Op, Expr, UnaryOperator};

use super::call;
use crate::functions::any::name_of;

/// Rewrites `expr` if it is one.
pub(super) fn rewrite(expr: &mut Expr) {
    let (left, op, right, is_all) = match expr {
        Expr::AnyOp { left, compare_op, right, .. } => (left, Some(compare_op.clone()), right, false),
        // No item may compare otherwise.
        Expr::AllOp { left, compare_op, right } => (left, opposite(compare_op), right, true),
        _ => return,
    };
    let Some(name) = op.as_ref().and_then(name_of).filter(|_| !matches!(right.as_ref(), Expr::Subquery(_))) else {
        return;
    };
    let any = call(name, vec![left.as_ref().clone(), right.as_ref().clone()]);
    *expr = match is_all {
        true => Expr::Nested(Box::new(Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(any) })),
        false => any,
    };
}

/// The comparison that holds where this one does not.
fn opposite(op: &Op) -> Option<Op> {
    Some(match op {
        Op::Eq => Op::NotEq,
        Op::NotEq => Op::Eq,
        Op::Lt => Op::GtEq,
        Op::LtEq => Op::Gt,
        Op::Gt => Op::LtEq,
        Op::GtEq => Op::Lt,
        _ => return None,
    })
}
