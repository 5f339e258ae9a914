//! Arithmetic where PostgreSQL's differs from DataFusion's: integers that overflow and floats that are divided by zero
//! are errors, intervals can be multiplied, the difference of two moments has days, and an infinite moment stays so.
//!
//! Integers overflow in their own type: `2147483647 + 1` is an error.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Date32Array, Float64Array, Int32Array, IntervalMonthDayNanoArray};
use arrow::compute;
use arrow::compute::kernels::{nullif::nullif, numeric, zip::zip};
use arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, Float64Type, Int32Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
    TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, ScalarFunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::physical_expr_common::datum::apply;
use sqlparser::ast::BinaryOperator as Op;
use tidewire_types::{NUMERIC_SCALE_DEFAULT, SqlError, SqlState, SqlType};

use super::cast::{self, external};
use super::moments::is_finite;
use super::typed::retyped;
use super::{dates, floats};

const DAY_US: i64 = 86_400_000_000;
/// 4714-11-24 BC and 5874897-12-31, PostgreSQL's first and last date.
pub(super) const DATE_MIN: i32 = -2_440_588;
pub(super) const DATE_MAX: i32 = 2_145_042_905;

/// The type of an expression; None where it is not known yet, as of a parameter.
pub(super) fn type_of(expr: &Expr, schema: &DFSchema) -> Option<SqlType> {
    match expr {
        Expr::Placeholder(placeholder) => placeholder.field.as_ref().map(|f| SqlType::of(f)),
        expr => expr.to_field(schema).ok().map(|(_, field)| SqlType::of(&field)),
    }
}

/// The call that computes `left op right`. None: DataFusion's own operator does, over what is left in both places.
pub(super) fn plan(op: &Op, left: &mut Expr, right: &mut Expr, schema: &DFSchema) -> Option<Expr> {
    of_types(op, left, right, schema).or_else(|| shifted(op, left, right, schema))
}

/// A moment that an interval is added to, or taken from.
fn shifted(op: &Op, left: &Expr, right: &Expr, schema: &DFSchema) -> Option<Expr> {
    use SqlType as T;
    let (back, moment, interval) = match (op, type_of(left, schema)?, type_of(right, schema)?) {
        (Op::Plus, T::Timestamp | T::Timestamptz, T::Interval) => (false, left, right),
        (Op::Minus, T::Timestamp | T::Timestamptz, T::Interval) => (true, left, right),
        (Op::Plus, T::Interval, T::Timestamp | T::Timestamptz) => (false, right, left),
        _ => return None,
    };
    let args = vec![moment.clone(), interval.clone()];
    Some(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(udf(Function::Shift { back })), args)))
}

fn of_types(op: &Op, left: &mut Expr, right: &mut Expr, schema: &DFSchema) -> Option<Expr> {
    use SqlType as T;
    if !matches!(op, Op::Plus | Op::Minus | Op::Multiply | Op::Divide | Op::Modulo) {
        return None;
    }
    let (left_type, right_type) = (type_of(left, schema)?, type_of(right, schema)?);
    let is_integer = |t: &T| matches!(t, T::Int2 | T::Int4 | T::Int8);
    let is_float = |t: &T| matches!(t, T::Float4 | T::Float8);
    let is_number = |t: &T| is_integer(t) || is_float(t) || matches!(t, T::Numeric(_));
    let is_moment = |t: &T| matches!(t, T::Timestamp | T::Timestamptz);
    let call = |function, left: &Expr, right: &Expr| {
        let args = vec![left.clone(), right.clone()];
        Some(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(udf(function)), args)))
    };
    match (op, &left_type, &right_type) {
        (op, l, r) if is_integer(l) && is_integer(r) => match op {
            Op::Plus => call(Function::Add, left, right),
            Op::Minus => call(Function::Subtract, left, right),
            Op::Multiply => call(Function::Multiply, left, right),
            _ => None,
        },
        (op, l, r) if is_number(l) && is_number(r) && !is_float(l) && !is_float(r) => {
            super::numeric::plan(op, left, right, (l, r)).or_else(|| {
                let (left, right) = (Box::new(left.clone()), Box::new(right.clone()));
                let value = Expr::BinaryExpr(BinaryExpr::new(left, without_scale(op, l, r)?, right));
                Some(retyped(value, T::Numeric(None)))
            })
        }
        (op, l, r) if is_number(l) && is_number(r) => match op {
            Op::Plus => call(Function::Add, left, right),
            Op::Minus => call(Function::Subtract, left, right),
            Op::Multiply => call(Function::Multiply, left, right),
            Op::Divide => call(Function::Divide, left, right),
            _ => None,
        },
        (Op::Multiply, T::Interval, r) if is_number(r) => call(Function::Scale { divide: false }, left, right),
        (Op::Multiply, l, T::Interval) if is_number(l) => call(Function::Scale { divide: false }, right, left),
        (Op::Divide, T::Interval, r) if is_number(r) => call(Function::Scale { divide: true }, left, right),
        (Op::Plus, T::Time, T::Interval) => Some(dates::shifted_time(left.clone(), right.clone(), false)),
        (Op::Plus, T::Interval, T::Time) => Some(dates::shifted_time(right.clone(), left.clone(), false)),
        (Op::Minus, T::Time, T::Time) => {
            as_moment(left, &T::Interval);
            as_moment(right, &T::Interval);
            None
        }
        (Op::Minus, T::Time, T::Interval) => Some(dates::shifted_time(left.clone(), right.clone(), true)),
        (Op::Minus, l, r) if is_moment(l) && (is_moment(r) || *r == T::Date) => call(Function::Between, left, right),
        (Op::Minus, T::Date, r) if is_moment(r) => call(Function::Between, left, right),
        (Op::Plus | Op::Minus, T::Date, T::Int2 | T::Int4) => {
            call(Function::Days { back: matches!(op, Op::Minus) }, left, right)
        }
        (Op::Plus, T::Int2 | T::Int4, T::Date) => call(Function::Days { back: false }, right, left),
        (Op::Minus, T::Date, T::Date) => call(Function::DaysBetween, left, right),
        (Op::Plus | Op::Minus, T::Date, T::Interval) => {
            to_timestamp(left);
            None
        }
        (Op::Plus, T::Interval, T::Date) => {
            to_timestamp(right);
            None
        }
        (Op::Plus, T::Date, T::Time) | (Op::Plus | Op::Minus, T::Timestamp | T::Timestamptz, T::Time) => {
            to_timestamp_if_date(left, &left_type);
            as_moment(right, &T::Interval);
            None
        }
        (Op::Plus, T::Time, T::Date | T::Timestamp | T::Timestamptz) => {
            to_timestamp_if_date(right, &right_type);
            as_moment(left, &T::Interval);
            None
        }
        _ => None,
    }
}

/// The operator, where its value is a numeric without a scale of its own, as an operand is.
fn without_scale(op: &Op, left: &SqlType, right: &SqlType) -> Option<Operator> {
    let scale = |t: &SqlType| match t {
        SqlType::Numeric(Some((_, scale))) => *scale,
        SqlType::Numeric(None) => NUMERIC_SCALE_DEFAULT,
        _ => 0,
    };
    let has_none = *left == SqlType::Numeric(None) || *right == SqlType::Numeric(None);
    let keeps_scale = match op {
        Op::Multiply => scale(left) + scale(right) == NUMERIC_SCALE_DEFAULT,
        _ => scale(left).max(scale(right)) == NUMERIC_SCALE_DEFAULT,
    };
    if !has_none || !keeps_scale {
        return None;
    }
    Some(match op {
        Op::Plus => Operator::Plus,
        Op::Minus => Operator::Minus,
        Op::Multiply => Operator::Multiply,
        Op::Modulo => Operator::Modulo,
        _ => return None,
    })
}

fn to_timestamp(date: &mut Expr) {
    as_moment(date, &SqlType::Timestamp);
}

fn to_timestamp_if_date(expr: &mut Expr, own: &SqlType) {
    if *own == SqlType::Date {
        to_timestamp(expr);
    }
}

fn as_moment(expr: &mut Expr, target: &SqlType) {
    let inner = std::mem::replace(expr, Expr::Literal(ScalarValue::Null, None));
    *expr = cast::to_moment(inner, target);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Function {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// An interval times a number, or divided by one.
    Scale {
        divide: bool,
    },
    /// A moment and an interval.
    Shift {
        back: bool,
    },
    /// One moment minus another.
    Between,
    /// A date and a number of days.
    Days {
        back: bool,
    },
    /// One date minus another.
    DaysBetween,
}

fn udf(function: Function) -> ScalarUDF {
    let signature = match function {
        Function::Scale { .. }
        | Function::Shift { .. }
        | Function::Between
        | Function::Days { .. }
        | Function::DaysBetween => Signature::any(2, Volatility::Immutable),
        _ => Signature::user_defined(Volatility::Immutable),
    };
    ScalarUDF::from(Arithmetic { function, signature })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Arithmetic {
    function: Function,
    signature: Signature,
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        match self.function {
            Function::Add | Function::Days { back: false } | Function::Shift { back: false } => "+",
            Function::Subtract
            | Function::Between
            | Function::Days { back: true }
            | Function::Shift { back: true }
            | Function::DaysBetween => "-",
            Function::Multiply | Function::Scale { divide: false } => "*",
            Function::Divide | Function::Scale { divide: true } => "/",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        use SqlType as T;
        let types: Vec<_> = types.iter().map(T::of_data_type).collect();
        let common = match self.function {
            // Only two reals make a real.
            _ if types.iter().all(|t| *t == T::Float4) => T::Float4,
            Function::Divide => T::Float8,
            _ if types.iter().any(|t| matches!(t, T::Float4 | T::Float8)) => T::Float8,
            _ if types.contains(&T::Int8) => T::Int8,
            _ if types.contains(&T::Int4) => T::Int4,
            _ => T::Int2,
        };
        Ok(vec![common.data_type(); types.len()])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(external(SqlError::internal("the type of an operator without its fields")))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let data_type = match self.function {
            Function::Scale { .. } | Function::Between => SqlType::Interval.data_type(),
            Function::Days { .. } => SqlType::Date.data_type(),
            Function::DaysBetween => SqlType::Int4.data_type(),
            _ => args.arg_fields.first().map_or(DataType::Null, |f| f.data_type().clone()),
        };
        Ok(Arc::new(Field::new(self.name(), data_type, true)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let data_type = args.return_field.data_type();
        let [left, right] = args.args.as_slice() else { return Err(external(SqlError::internal("two arguments"))) };
        // The optimizer asks what a condition is where all columns are NULL.
        if left.data_type().is_null() || right.data_type().is_null() {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from(data_type)?));
        }
        let output = match self.function {
            Function::Add => apply(left, right, numeric::add),
            Function::Subtract => apply(left, right, numeric::sub),
            Function::Multiply => apply(left, right, numeric::mul),
            Function::Divide => {
                check_divisor(left, right)?;
                apply(left, right, numeric::div)
            }
            Function::Scale { divide } => by_row(&args, |left, right| Ok(Arc::new(scale(left, right, divide)?))),
            Function::Shift { back } => shift(&args, left, right, back),
            Function::Between => by_row(&args, |left, right| Ok(Arc::new(between(left, right)?))),
            Function::Days { back } => by_row(&args, |dates, days| later(dates, days, back)),
            Function::DaysBetween => by_row(&args, days_between),
        };
        let output = output.map_err(|e| overflow(e, data_type))?;
        if data_type.is_floating() {
            check_range(self.function, &output, left, right)?;
        }
        Ok(output)
    }
}

fn overflow(error: DataFusionError, data_type: &DataType) -> DataFusionError {
    match &error {
        DataFusionError::ArrowError(inner, _) if matches!(**inner, ArrowError::ArithmeticOverflow(_)) => {
            let message = format!("{} out of range", SqlType::of_data_type(data_type));
            external(SqlError::new(SqlState::NumericValueOutOfRange, message))
        }
        _ => error,
    }
}

/// Errors: `22003` where floats that are finite make one that is not, or make zero although none of them is.
fn check_range(function: Function, output: &ColumnarValue, left: &ColumnarValue, right: &ColumnarValue) -> Result<()> {
    let can_vanish = matches!(function, Function::Multiply | Function::Divide);
    let is_suspicious = |value: f64| value.is_infinite() || can_vanish && value == 0.0;
    let floats = |value: &ColumnarValue| match value {
        ColumnarValue::Array(array) => Ok(compute::cast(array, &DataType::Float64)?),
        ColumnarValue::Scalar(value) => {
            Ok::<_, DataFusionError>(compute::cast(&value.to_array()?, &DataType::Float64)?)
        }
    };
    let output = floats(output)?;
    let output = output.as_primitive::<Float64Type>();
    if !output.values().iter().any(|value| is_suspicious(*value)) {
        return Ok(());
    }
    let (left, right) = (floats(left)?, floats(right)?);
    let (left, right) = (left.as_primitive::<Float64Type>(), right.as_primitive::<Float64Type>());
    for (row, value) in output.iter().enumerate() {
        let Some(value) = value.filter(|value| is_suspicious(*value)) else { continue };
        let operand = |values: &Float64Array| values.value(if values.len() == 1 { 0 } else { row });
        let (left, right) = (operand(left), operand(right));
        let is_zero = left == 0.0
            || match function {
                Function::Divide => right.is_infinite(),
                Function::Multiply => right == 0.0,
                _ => true,
            };
        let is_finite = left.is_finite() && (function == Function::Divide || right.is_finite());
        floats::in_range(value, is_finite, is_zero).map_err(external)?;
    }
    Ok(())
}

/// Errors: `22012` where the divisor is zero and the dividend a number.
fn check_divisor(left: &ColumnarValue, right: &ColumnarValue) -> Result<()> {
    let constant = match right {
        ColumnarValue::Scalar(ScalarValue::Float64(value)) => Some(*value),
        ColumnarValue::Scalar(ScalarValue::Float32(value)) => Some(value.map(f64::from)),
        _ => None,
    };
    if constant.is_some_and(|value| value != Some(0.0)) {
        return Ok(());
    }
    let arrays = ColumnarValue::values_to_arrays(&[left.clone(), right.clone()])?;
    let [left, right] = arrays.as_slice() else { return Ok(()) };
    let (left, right) = (compute::cast(left, &DataType::Float64)?, compute::cast(right, &DataType::Float64)?);
    let pairs = left.as_primitive::<Float64Type>().iter().zip(right.as_primitive::<Float64Type>());
    let mut zeros = pairs.filter(|(dividend, divisor)| *divisor == Some(0.0) && dividend.is_some_and(|d| !d.is_nan()));
    match zeros.next() {
        None => Ok(()),
        Some(_) => Err(division_by_zero()),
    }
}

fn division_by_zero() -> DataFusionError {
    external(SqlError::new(SqlState::DivisionByZero, "division by zero"))
}

fn by_row(
    args: &ScalarFunctionArgs,
    compute: impl Fn(&ArrayRef, &ArrayRef) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    let all_scalars = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let arrays = ColumnarValue::values_to_arrays(&args.args)?;
    let [left, right] = arrays.as_slice() else { return Err(external(SqlError::internal("two arguments"))) };
    let output = compute(left, right)?;
    match all_scalars {
        true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&output, 0)?)),
        false => Ok(ColumnarValue::Array(output)),
    }
}

/// Each moment, so much later or earlier; an infinite one as it is.
fn shift(
    args: &ScalarFunctionArgs,
    moment: &ColumnarValue,
    interval: &ColumnarValue,
    back: bool,
) -> Result<ColumnarValue> {
    let kernel = if back { numeric::sub } else { numeric::add };
    let is_finite_or_null = |value: Option<i64>| value.is_none_or(is_finite);
    let are_finite = match moment {
        ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(value, _)) => is_finite_or_null(*value),
        ColumnarValue::Array(array) => {
            array.as_primitive_opt::<TimestampMicrosecondType>().is_none_or(|m| m.iter().all(is_finite_or_null))
        }
        ColumnarValue::Scalar(_) => true,
    };
    if are_finite {
        return apply(moment, interval, kernel);
    }
    by_row(args, |moments, intervals| {
        let infinite: BooleanArray =
            moments.as_primitive::<TimestampMicrosecondType>().iter().map(|m| Some(!is_finite_or_null(m))).collect();
        let shifted = kernel(&nullif(moments, &infinite)?, intervals)?;
        let unmoved = compute::and(&infinite, &compute::is_not_null(intervals)?)?;
        Ok(zip(&unmoved, moments, &shifted)?)
    })
}

/// Each moment of `left` minus that of `right`, as days and a time.
fn between(left: &ArrayRef, right: &ArrayRef) -> Result<IntervalMonthDayNanoArray> {
    let micros = |array: &ArrayRef| compute::cast(array, &DataType::Timestamp(TimeUnit::Microsecond, None));
    let (left, right) = (micros(left)?, micros(right)?);
    let pairs =
        left.as_primitive::<TimestampMicrosecondType>().iter().zip(right.as_primitive::<TimestampMicrosecondType>());
    pairs
        .map(|pair| {
            let (Some(left), Some(right)) = pair else { return Ok(None) };
            if !is_finite(left) || !is_finite(right) {
                return Err(no_difference("timestamps"));
            }
            let micros = left.checked_sub(right).ok_or_else(interval_overflow)?;
            let days = i32::try_from(micros / DAY_US).map_err(|_| interval_overflow())?;
            Ok(Some(IntervalMonthDayNano::new(0, days, micros % DAY_US * 1000)))
        })
        .collect()
}

/// Each date, so many days later or earlier.
fn later(dates: &ArrayRef, days: &ArrayRef, back: bool) -> Result<ArrayRef> {
    let days = compute::cast(days, &DataType::Int32)?;
    let pairs = dates.as_primitive::<Date32Type>().iter().zip(days.as_primitive::<Int32Type>());
    let moved = pairs.map(|pair| match pair {
        (Some(date @ (i32::MIN | i32::MAX)), Some(_)) => Ok(Some(date)),
        (Some(date), Some(days)) => {
            let moved = if back { date.checked_sub(days) } else { date.checked_add(days) };
            let in_range = moved.filter(|date| (DATE_MIN..=DATE_MAX).contains(date));
            let out = || external(SqlError::new(SqlState::DatetimeFieldOverflow, "date out of range"));
            in_range.ok_or_else(out).map(Some)
        }
        _ => Ok(None),
    });
    Ok(Arc::new(moved.collect::<Result<Date32Array>>()?))
}

fn days_between(left: &ArrayRef, right: &ArrayRef) -> Result<ArrayRef> {
    let pairs = left.as_primitive::<Date32Type>().iter().zip(right.as_primitive::<Date32Type>());
    let days = pairs.map(|(left, right)| {
        let (Some(left), Some(right)) = (left, right) else { return Ok(None) };
        match [left, right].iter().any(|date| matches!(*date, i32::MIN | i32::MAX)) {
            true => Err(no_difference("dates")),
            false => Ok(left.checked_sub(right)),
        }
    });
    Ok(Arc::new(days.collect::<Result<Int32Array>>()?))
}

fn no_difference(of: &str) -> DataFusionError {
    external(SqlError::new(SqlState::DatetimeFieldOverflow, format!("cannot subtract infinite {of}")))
}

fn scale(intervals: &ArrayRef, factors: &ArrayRef, divide: bool) -> Result<IntervalMonthDayNanoArray> {
    let intervals = compute::cast(intervals, &SqlType::Interval.data_type())?;
    let factors = compute::cast(factors, &DataType::Float64)?;
    let pairs = intervals.as_primitive::<IntervalMonthDayNanoType>().iter().zip(factors.as_primitive::<Float64Type>());
    pairs
        .map(|pair| match pair {
            (Some(_), Some(0.0)) if divide => Err(division_by_zero()),
            (Some(interval), Some(factor)) if divide => scaled(interval, |value| value / factor).map(Some),
            (Some(interval), Some(factor)) => scaled(interval, |value| value * factor).map(Some),
            _ => Ok(None),
        })
        .collect()
}

/// A fraction of a month is counted in days of it (30), that of a day in its hours (24).
fn scaled(interval: IntervalMonthDayNano, by: impl Fn(f64) -> f64) -> Result<IntervalMonthDayNano> {
    let whole = |value: f64, max: f64| match value.is_finite() && value.abs() < max {
        true => Ok(value),
        false => Err(interval_overflow()),
    };
    // What a binary fraction adds or lacks is far below a microsecond.
    let rounded = |value: f64| (value * 1e6).round_ties_even() / 1e6;
    let months = whole(by(f64::from(interval.months)), 2e9)?;
    let month_days = rounded(months.fract() * 30.0);
    let days = whole(by(f64::from(interval.days)), 2e9)?;
    let seconds = rounded((days.fract() + month_days.fract()) * 86_400.0);
    let whole_days = (seconds / 86_400.0).trunc();
    let seconds = seconds - whole_days * 86_400.0;
    let micros = whole((by(interval.nanoseconds as f64 / 1e3) + seconds * 1e6).round_ties_even(), 9e15)?;
    let days = whole(days.trunc() + month_days.trunc() + whole_days, 2e9)?;
    Ok(IntervalMonthDayNano::new(months.trunc() as i32, days as i32, micros as i64 * 1000))
}

fn interval_overflow() -> DataFusionError {
    external(SqlError::new(SqlState::DatetimeFieldOverflow, "interval out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_scaled_as_in_postgresql() {
        let month_and_a_half = scaled(IntervalMonthDayNano::new(1, 0, 0), |value| value * 1.5).unwrap();
        assert_eq!(month_and_a_half, IntervalMonthDayNano::new(1, 15, 0));
        let half_days = scaled(IntervalMonthDayNano::new(0, 3, 0), |value| value * 0.5).unwrap();
        assert_eq!(half_days, IntervalMonthDayNano::new(0, 1, 43_200_000_000_000));
        assert_eq!(scaled(IntervalMonthDayNano::new(0, 0, 9_000), |value| value / 3.0).unwrap().nanoseconds, 3_000);
        assert!(scaled(IntervalMonthDayNano::new(1, 0, 0), |_| f64::NAN).is_err());
        assert!(scaled(IntervalMonthDayNano::new(0, 1, 0), |value| value * 1e10).is_err());
    }
}
