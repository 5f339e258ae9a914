//! The types of parameters that the client did not declare: those of the values that they stand beside.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::{Expr, Limit, LogicalPlan};

use crate::functions::{any, untyped};

/// Gives parameters types where DataFusion would find none, or another one.
pub(crate) fn infer(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let typed = expr.transform_up(|expr| match expr {
        Expr::ScalarFunction(mut call) => match untyped::read(&call, schema)? {
            Some(value) => Ok(Transformed::yes(value)),
            None => {
                let is_typed = any::infer(&mut call, schema)?;
                Ok(Transformed::new_transformed(Expr::ScalarFunction(call), is_typed))
            }
        },
        other => Ok(Transformed::no(other)),
    });
    typed.map(|typed| typed.data)
}

/// The plan with bigints for the integers that clients declared LIMIT and OFFSET to be.
pub(crate) fn with_limits(plan: LogicalPlan) -> Result<LogicalPlan> {
    let of_limit = |value: Option<Box<Expr>>| match value.as_deref().and_then(bigint) {
        Some(n) => Some(Box::new(n)),
        None => value,
    };
    let typed = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Limit(Limit { skip, fetch, input }) => {
            Ok(Transformed::yes(LogicalPlan::Limit(Limit { skip: of_limit(skip), fetch: of_limit(fetch), input })))
        }
        other => Ok(Transformed::no(other)),
    });
    typed.map(|typed| typed.data)
}

fn bigint(value: &Expr) -> Option<Expr> {
    match value {
        Expr::Cast(cast) => bigint(&cast.expr),
        Expr::Literal(value, _) if value.data_type().is_integer() => {
            value.cast_to(&DataType::Int64).ok().map(|n| Expr::Literal(n, None))
        }
        _ => None,
    }
}
