//! Casts that Arrow does in another way, or should not do: a text that becomes a float, a date or a time is read as
//! PostgreSQL reads it, a literal while the statement is planned; a double that is too large for a real is an error; a date
//! that is infinite becomes a timestamp that is.
//!
//! `today` and its like become calls of `now()`, which a view refuses.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::functions::datetime::now;
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, binary_expr, lit};
use tidewire_types::SqlType;

use crate::column_names::map_named;
use crate::functions::cast;
use crate::functions::convert::convert;
use crate::functions::datetime_input::{Moment, read};
use crate::grouping_sets::has_sets;
use crate::parameters::is_found;
use crate::provider::to_datafusion;

/// Replaces the casts of a plan.
pub(crate) fn in_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    let replaced = plan.transform_up_with_subqueries(|plan| {
        // A key of grouping sets is found by how it is written.
        if matches!(&plan, LogicalPlan::Aggregate(aggregate) if has_sets(aggregate)) {
            return Ok(Transformed::no(plan));
        }
        let schema = merge_schema(&plan.inputs());
        map_named(plan, |expr| replaced(expr, &schema))
    });
    replaced.map(|t| t.data)
}

/// Replaces the casts of an expression over the columns of `schema`.
pub(crate) fn in_expr(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    replaced(expr, schema).map(|t| t.data)
}

fn replaced(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let cast = match &expr {
            Expr::Cast(cast) => cast,
            Expr::ScalarFunction(call) => {
                cast::check_call(call, schema)?;
                return Ok(Transformed::no(expr));
            }
            _ => return Ok(Transformed::no(expr)),
        };
        let target = SqlType::of(&cast.field);
        if let Expr::Literal(value, _) = cast.expr.as_ref()
            && let Some(Some(text)) = value.try_as_str()
            && cast::is_read(&target)
        {
            return Ok(Transformed::yes(read_literal(text, &target)?));
        }
        // A parameter may have no type yet.
        let Ok((_, from)) = cast.expr.to_field(schema) else { return Ok(Transformed::no(expr)) };
        let from = match cast.expr.as_ref() {
            // An integer that is written down is one of four bytes where it fits.
            Expr::Literal(ScalarValue::Int64(Some(value)), _) if i32::try_from(*value).is_ok() => SqlType::Int4,
            _ => SqlType::of(&from),
        };
        cast::check_cast(&from, &target)?;
        let Some(function) = cast::checked(&from, &target) else { return Ok(Transformed::no(expr)) };
        let args = vec![cast.expr.as_ref().clone()];
        Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(function, args))))
    })
}

fn read_literal(text: &str, target: &SqlType) -> Result<Expr> {
    if is_found(text, target) {
        return Ok(lit(ScalarValue::try_from(&target.data_type())?));
    }
    if matches!(target, SqlType::Bool | SqlType::Float4 | SqlType::Float8) {
        let text: ArrayRef = Arc::new(StringViewArray::from(vec![text]));
        return Ok(lit(ScalarValue::try_from_array(&convert(&text, &SqlType::Text, target, false)?, 0)?));
    }
    let to = |expr: Expr, data_type: DataType| Expr::Cast(Cast::new(Box::new(expr), data_type));
    match read(text, target).map_err(to_datafusion)? {
        Moment::At(at) => {
            let value = match target {
                SqlType::Date => ScalarValue::Date32(i32::try_from(at).ok()),
                _ => ScalarValue::Int64(Some(at)).cast_to(&target.data_type())?,
            };
            Ok(lit(value))
        }
        Moment::Now => Ok(to(present(), target.data_type())),
        Moment::FromToday(days, micros) => {
            let days = IntervalMonthDayNano::new(0, i32::try_from(days).unwrap_or(0), 0);
            let day = to(to(shifted(present(), days), DataType::Date32), target.data_type());
            Ok(match micros {
                0 => day,
                micros => shifted(day, IntervalMonthDayNano::new(0, 0, micros.saturating_mul(1000))),
            })
        }
    }
}

fn shifted(moment: Expr, by: IntervalMonthDayNano) -> Expr {
    binary_expr(moment, Operator::Plus, lit(ScalarValue::IntervalMonthDayNano(Some(by))))
}

fn present() -> Expr {
    let mut options = ConfigOptions::default();
    options.execution.time_zone = Some("UTC".into());
    Expr::ScalarFunction(ScalarFunction::new_udf(now(&options), vec![]))
}
