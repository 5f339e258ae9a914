//! PostgreSQL's operators over DataFusion's: json access, and string literals that take the type of the other side.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, lit};
use sqlparser::ast::BinaryOperator;
use tidewire_types::SqlType;

use super::{cast, json};
use crate::rewrite::with_seconds;

/// Plans binary operators before DataFusion's own planners see them.
#[derive(Debug)]
pub(crate) struct PostgresOperators;

impl ExprPlanner for PostgresOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        let access = match op {
            BinaryOperator::Arrow => Some((false, false)),
            BinaryOperator::LongArrow => Some((false, true)),
            BinaryOperator::HashArrow => Some((true, false)),
            BinaryOperator::HashLongArrow => Some((true, true)),
            _ => None,
        };
        if let Some((path, text)) = access {
            let function = Arc::new(json::operator(path, text));
            let call = ScalarFunction::new_udf(function, vec![left, right]);
            return Ok(PlannerResult::Planned(Expr::ScalarFunction(call)));
        }
        if !takes_type_of_other_side(&op) {
            return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }));
        }
        let (left, right) = (typed(left, &right, schema), right);
        let right = typed(right, &left, schema);
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

fn takes_type_of_other_side(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
    )
}

/// A string literal compared with something that is no text is read as that thing's type, so that a bad one is an
/// error and not a comparison of texts.
fn typed(literal: Expr, other: &Expr, schema: &DFSchema) -> Expr {
    let is_text = matches!(&literal, Expr::Literal(ScalarValue::Utf8(Some(_)) | ScalarValue::Utf8View(Some(_)), _));
    if !is_text {
        return literal;
    }
    let Ok((_, field)) = other.to_field(schema) else { return literal };
    let target = SqlType::of(&field);
    match (&target, field.data_type()) {
        (SqlType::Uuid | SqlType::Jsonb | SqlType::Bytea, _) => match cast::function(&format!("cast to {target}")) {
            Some(function) => Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![literal])),
            None => literal,
        },
        // Any number may stand in the text, not only one that fits the column.
        (_, DataType::Decimal128(..)) => Expr::Cast(Cast::new(Box::new(literal), DataType::Decimal128(38, 9))),
        (SqlType::Timestamp | SqlType::Timestamptz, data_type) => {
            let literal = match &literal {
                Expr::Literal(ScalarValue::Utf8(Some(text)), _) => with_seconds(text).map_or(literal, lit),
                _ => literal,
            };
            Expr::Cast(Cast::new(Box::new(literal), data_type.clone()))
        }
        (_, data_type) if data_type.is_numeric() || data_type.is_temporal() || *data_type == DataType::Boolean => {
            Expr::Cast(Cast::new(Box::new(literal), data_type.clone()))
        }
        _ => literal,
    }
}
