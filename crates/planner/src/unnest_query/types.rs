//! Which types IN, ANY and ALL compare: as PostgreSQL. DataFusion would cast every row.

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{InSubquery, SetComparison};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use tidewire_types::{SqlError, SqlState, SqlType};

use super::rows;
use crate::planned_types::in_relation;
use crate::provider::to_datafusion;
use crate::type_classes::are_compared;

/// Checks a plan whose types were not changed yet. Errors: `42883`.
pub(crate) fn check_types(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                match expr {
                    Expr::InSubquery(InSubquery { expr, subquery, .. }) => {
                        check(expr, &schema, "=", &subquery.subquery)?;
                    }
                    Expr::SetComparison(SetComparison { expr, subquery, op, .. }) => {
                        check(expr, &schema, &op.to_string(), &subquery.subquery)?;
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .map(|_| ())
}

fn check(expr: &Expr, schema: &DFSchema, op: &str, subquery: &LogicalPlan) -> Result<()> {
    let subquery = in_relation(subquery.clone());
    let Some(right) = subquery.schema().fields().first() else { return Ok(()) };
    match (rows::elements(expr), right.data_type()) {
        (Some(values), DataType::Struct(fields)) => {
            values.iter().zip(fields).try_for_each(|(value, field)| check_value(value, schema, op, field))
        }
        _ => check_value(expr, schema, op, right),
    }
}

fn check_value(expr: &Expr, schema: &DFSchema, op: &str, right: &Field) -> Result<()> {
    // A literal in quotes takes the other side's type; what has no type yet is found out later.
    match expr {
        Expr::Literal(..) | Expr::Placeholder(_) => Ok(()),
        expr => expr.to_field(schema).map_or(Ok(()), |(_, left)| comparable(&left, op, right)),
    }
}

fn comparable(left: &Field, op: &str, right: &Field) -> Result<()> {
    let (l, r) = (SqlType::of(left), SqlType::of(right));
    if are_compared(&l, &r) {
        return Ok(());
    }
    let message = format!("operator does not exist: {l} {op} {r}");
    Err(to_datafusion(SqlError::new(SqlState::UndefinedFunction, message).with_hint(
        "No operator matches the given name and argument types. You might need to add explicit type casts.",
    )))
}
