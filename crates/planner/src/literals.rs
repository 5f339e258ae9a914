//! Integer literals that [`crate::rewrite`] has cast become literals of that type.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Expr;

use arrow::datatypes::DataType;

/// The expression with literals in the place of cast ones.
pub(crate) fn in_expr(expr: Expr) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| match narrowed(&expr) {
        Some(value) => Ok(Transformed::yes(Expr::Literal(ScalarValue::Int32(Some(value)), None))),
        None => Ok(Transformed::no(expr)),
    })
}

fn narrowed(expr: &Expr) -> Option<i32> {
    let Expr::Cast(cast) = expr else { return None };
    let Expr::Literal(ScalarValue::Int64(Some(value)), _) = cast.expr.as_ref() else { return None };
    if *cast.field.data_type() != DataType::Int32 {
        return None;
    }
    i32::try_from(*value).ok()
}
