//! `ceil`, `floor`, `sign`, `gcd`, `lcm`, `scale`, `width_bucket` and `div`, of numerics as PostgreSQL's.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int32Array, make_comparator};
use arrow::compute::{self, SortOptions};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int32Type, Int64Type};
use datafusion::common::{DataFusionError, Result};
use datafusion::functions::math;
use datafusion::logical_expr::ScalarUDF;
use tidewire_types::{NUMERIC_SCALE_DEFAULT, SqlError, SqlState, SqlType};

use super::arrays::common;
use super::cast::external;
use super::defined::{Definition, Overload, implied};
use super::either;

/// One in a numeric's own units.
const ONE: i128 = 1_000_000_000;

/// The functions.
pub(super) static ALL: &[Definition] = &[
    Definition {
        name: "ceil",
        resolve: |types| {
            whole(types, |c, t| {
                rounded(c, t, f64::ceil, |value, unit| value.div_euclid(unit) + i128::from(value.rem_euclid(unit) > 0))
            })
        },
    },
    Definition { name: "floor", resolve: |types| whole(types, |c, t| rounded(c, t, f64::floor, i128::div_euclid)) },
    Definition { name: "signum", resolve: |types| whole(types, |c, t| rounded(c, t, sign, |value, _| value.signum())) },
    Definition { name: "gcd", resolve: |types| of_pairs(types, |c, t| by_pair(c, t, |l, r| Some(gcd(l, r)))) },
    Definition { name: "lcm", resolve: |types| of_pairs(types, |c, t| by_pair(c, t, lcm)) },
    Definition { name: "scale", resolve: |types| of_numeric(types, SqlType::Int4, scales) },
    Definition { name: "min_scale", resolve: |types| of_numeric(types, SqlType::Int4, least_scales) },
    Definition {
        name: "trim_scale",
        resolve: |types| match types {
            // One without a scale is shown without zeros at its end.
            [SqlType::Numeric(Some((_, NUMERIC_SCALE_DEFAULT..)))] => Overload::of(types, types.first()?.clone(), same),
            _ => {
                let numeric = SqlType::Numeric(None);
                Overload::exact(types, std::slice::from_ref(&numeric), numeric.clone(), same)
            }
        },
    },
    Definition {
        name: "factorial",
        resolve: |types| Overload::exact(types, &[SqlType::Int8], FACTORIAL, |c, _| factorials(c)),
    },
    Definition { name: "width_bucket", resolve: width_bucket },
    Definition {
        name: "div",
        resolve: |types| {
            let numeric = SqlType::Numeric(None);
            let fits = types.len() == 2 && types.iter().all(is_exact);
            fits.then(|| Overload { args: vec![numeric.clone(); 2], result: numeric, call: div })
        },
    },
];

static ROUND: Definition = Definition {
    name: "round",
    resolve: |types| match types {
        // Halves go to the even number beside them.
        [SqlType::Float4 | SqlType::Float8] => {
            Overload::exact(types, &[SqlType::Float8], SqlType::Float8, |c, _| by_value(c, f64::round_ties_even))
        }
        _ => None,
    },
};

static TRUNC: Definition = Definition {
    name: "trunc",
    resolve: |types| match types {
        [SqlType::Numeric(_)] => {
            Overload::of(types, SqlType::Numeric(None), |c, t| rounded(c, t, f64::trunc, |value, unit| value / unit))
        }
        [SqlType::Numeric(_), digits] if implied(digits, &SqlType::Int4) => {
            let numeric = SqlType::Numeric(None);
            Some(Overload { args: vec![numeric.clone(), SqlType::Int4], result: numeric, call: |c, _| cut(c) })
        }
        _ => None,
    },
};

static ABS: Definition = Definition {
    name: "abs",
    resolve: |types| match types {
        [numeric @ SqlType::Numeric(None)] => Overload::of(types, numeric.clone(), |columns, _| {
            let [values] = columns else { return Err(external(SqlError::internal("one argument"))) };
            Ok(Arc::new(
                values
                    .as_primitive::<Decimal128Type>()
                    .unary::<_, Decimal128Type>(i128::abs)
                    .with_data_type(values.data_type().clone()),
            ))
        }),
        _ => None,
    },
};

/// Functions that DataFusion has, but for some types.
pub(super) fn of_both() -> Vec<ScalarUDF> {
    let theirs = [(math::round(), &ROUND), (math::trunc(), &TRUNC), (math::abs(), &ABS)];
    theirs.into_iter().map(|(theirs, ours)| either::function(theirs, ours)).collect()
}

fn by_value(columns: &[ArrayRef], of: fn(f64) -> f64) -> Result<ArrayRef> {
    let [values] = columns else { return Err(external(SqlError::internal("one argument"))) };
    Ok(Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(of)))
}

/// The numeric without the digits behind a place, or with zeros up to one before the point.
fn cut(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [values, digits] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let pairs = values.as_primitive::<Decimal128Type>().iter().zip(digits.as_primitive::<Int32Type>());
    let cut = pairs.map(|(value, digits)| {
        let (value, digits) = value.zip(digits)?;
        let n_cut = u32::try_from(9 - i64::from(digits)).unwrap_or(0);
        Some(10_i128.checked_pow(n_cut).map_or(0, |unit| value / unit * unit))
    });
    Ok(Arc::new(cut.collect::<Decimal128Array>().with_data_type(values.data_type().clone())))
}

/// How many of the ascending bounds are not above the value. Errors: `22004`.
fn bounded_buckets(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [values, bounds] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let bounds = bounds.as_list::<i32>();
    let order = make_comparator(bounds.values(), values, SortOptions::default())?;
    let buckets = (0..values.len()).map(|row| {
        if values.is_null(row) || bounds.is_null(row) {
            return Ok(None);
        }
        let at = |idx: usize| bounds.value_offsets().get(idx).map_or(0, |offset| *offset as usize);
        let places: Vec<usize> = (at(row)..at(row + 1)).collect();
        if places.iter().any(|place| bounds.values().is_null(*place)) {
            let message = "thresholds array must not contain NULLs";
            return Err(external(SqlError::new(SqlState::NullValueNotAllowed, message)));
        }
        Ok(i32::try_from(places.partition_point(|place| order(*place, row).is_le())).ok())
    });
    Ok(Arc::new(buckets.collect::<Result<Int32Array>>()?))
}

/// 33! has 37 digits.
const FACTORIAL: SqlType = SqlType::Numeric(Some((38, 0)));

/// Errors: `22003`.
fn factorials(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [values] = columns else { return Err(external(SqlError::internal("one argument"))) };
    let out_of_range = |message: &str| external(SqlError::new(SqlState::NumericValueOutOfRange, message));
    let factorial = |n: i64| match n {
        ..0 => Err(out_of_range("factorial of a negative number is undefined")),
        n => (1..=i128::from(n))
            .try_fold(1_i128, i128::checked_mul)
            .ok_or_else(|| out_of_range("value overflows numeric format")),
    };
    let values = values.as_primitive::<Int64Type>().iter().map(|n| n.map(factorial).transpose());
    let values: Decimal128Array = values.collect::<Result<_>>()?;
    Ok(Arc::new(values.with_data_type(FACTORIAL.data_type())))
}

/// Of two integers, or of two numerics.
fn of_pairs(types: &[SqlType], call: super::defined::Call) -> Option<Overload> {
    let has = |wanted: fn(&SqlType) -> bool| types.iter().any(wanted);
    let of = if has(|t| matches!(t, SqlType::Numeric(_))) {
        SqlType::Numeric(None)
    } else if types.contains(&SqlType::Int8) {
        SqlType::Int8
    } else {
        SqlType::Int4
    };
    Overload::exact(types, &[of.clone(), of.clone()], of, call)
}

/// Errors: `22003` for a value that the type does not hold.
fn by_pair(columns: &[ArrayRef], types: &[SqlType], of: impl Fn(i128, i128) -> Option<i128>) -> Result<ArrayRef> {
    let [left, right] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let of_type = types.first().cloned().unwrap_or(SqlType::Int8);
    let max = match of_type {
        SqlType::Int4 => i128::from(i32::MAX),
        SqlType::Int8 => i128::from(i64::MAX),
        _ => i128::MAX,
    };
    // A numeric in its own units, of which both have the same.
    let units = match of_type.data_type() {
        decimal @ DataType::Decimal128(..) => decimal,
        _ => DataType::Decimal128(38, 0),
    };
    let (left, right) = (compute::cast(left, &units)?, compute::cast(right, &units)?);
    let pairs = left.as_primitive::<Decimal128Type>().iter().zip(right.as_primitive::<Decimal128Type>());
    let values = pairs.map(|pair| {
        let (Some(left), Some(right)) = pair else { return Ok(None) };
        let out_of_range = || SqlError::new(SqlState::NumericValueOutOfRange, format!("{of_type} out of range"));
        of(left, right).filter(|value| *value <= max).map(Some).ok_or_else(|| external(out_of_range()))
    });
    let values: Decimal128Array = values.collect::<Result<_>>()?;
    Ok(compute::cast(&values.with_data_type(units), &of_type.data_type())?)
}

fn of_numeric(types: &[SqlType], result: SqlType, call: super::defined::Call) -> Option<Overload> {
    match types {
        [SqlType::Numeric(Some(_))] => Overload::of(types, result, call),
        _ => Overload::exact(types, &[SqlType::Numeric(None)], result, call),
    }
}

fn same(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    columns.first().cloned().ok_or_else(|| external(SqlError::internal("no argument")))
}

/// The digits behind the point: those of the type, or of the value where the type has none.
fn scales(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let [SqlType::Numeric(Some((_, scale)))] = types else { return least_scales(columns, types) };
    let values = same(columns, types)?;
    let scales = values.as_primitive::<Decimal128Type>().iter().map(|value| value.map(|_| i32::from(*scale)));
    Ok(Arc::new(scales.collect::<Int32Array>()))
}

/// The digits behind the point that are needed.
fn least_scales(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let values = same(columns, &[])?;
    let DataType::Decimal128(_, scale) = *values.data_type() else {
        return Err(external(SqlError::internal("a numeric")));
    };
    let least = |mut value: i128| {
        let mut scale = i32::from(scale);
        while scale > 0 && value % 10 == 0 {
            value /= 10;
            scale -= 1;
        }
        scale
    };
    let scales = values.as_primitive::<Decimal128Type>().iter().map(|value| value.map(least));
    Ok(Arc::new(scales.collect::<Int32Array>()))
}

fn gcd(left: i128, right: i128) -> i128 {
    let (mut left, mut right) = (left.abs(), right.abs());
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}

fn lcm(left: i128, right: i128) -> Option<i128> {
    if left == 0 || right == 0 { Some(0) } else { (left / gcd(left, right)).checked_mul(right)?.checked_abs() }
}

/// A numeric for a numeric, a double for other numbers.
fn whole(types: &[SqlType], call: super::defined::Call) -> Option<Overload> {
    match types {
        [SqlType::Numeric(_)] => Overload::of(types, SqlType::Numeric(None), call),
        _ => Overload::exact(types, &[SqlType::Float8], SqlType::Float8, call),
    }
}

fn sign(value: f64) -> f64 {
    if value == 0.0 || value.is_nan() { 0.0 } else { value.signum() }
}

/// `exact` takes a numeric in its own units, and how many of them are one.
fn rounded(
    columns: &[ArrayRef],
    types: &[SqlType],
    of: impl Fn(f64) -> f64,
    exact: impl Fn(i128, i128) -> i128,
) -> Result<ArrayRef> {
    let Some(values) = columns.first() else { return Err(external(SqlError::internal("no argument"))) };
    let Some(DataType::Decimal128(_, scale)) = types.first().map(SqlType::data_type) else {
        return Ok(Arc::new(compute::unary::<_, _, Float64Type>(values.as_primitive::<Float64Type>(), of)));
    };
    let unit = 10_i128.pow(u32::from(scale.unsigned_abs()));
    let values = values.as_primitive::<Decimal128Type>().iter().map(|value| {
        let overflow = || external(SqlError::new(SqlState::NumericValueOutOfRange, "numeric field overflow"));
        value.map(|value| exact(value, unit).checked_mul(ONE).ok_or_else(overflow)).transpose()
    });
    let values: Decimal128Array = values.collect::<Result<_>>()?;
    Ok(Arc::new(values.with_data_type(SqlType::Numeric(None).data_type())))
}

fn is_exact(sql_type: &SqlType) -> bool {
    use SqlType as T;
    matches!(sql_type, T::Int2 | T::Int4 | T::Int8 | T::Numeric(_) | T::Null)
}

fn width_bucket(types: &[SqlType]) -> Option<Overload> {
    if let [value, SqlType::Array(bound)] = types {
        let of = if is_exact(value) && is_exact(bound) { SqlType::Numeric(None) } else { common(value, bound)? };
        let args = vec![of.clone(), SqlType::Array(Box::new(of))];
        return Some(Overload { args, result: SqlType::Int4, call: |c, _| bounded_buckets(c) });
    }
    let [value, low, high, count] = types else { return None };
    if !implied(count, &SqlType::Int4) {
        return None;
    }
    let bounds = [value, low, high];
    let (of, call): (SqlType, super::defined::Call) = match bounds.iter().all(|t| is_exact(t)) {
        true => (SqlType::Numeric(None), numeric_buckets),
        false if bounds.iter().all(|t| implied(t, &SqlType::Float8)) => (SqlType::Float8, float_buckets),
        false => return None,
    };
    Some(Overload { args: vec![of.clone(), of.clone(), of, SqlType::Int4], result: SqlType::Int4, call })
}

fn invalid(message: &str) -> DataFusionError {
    external(SqlError::new(SqlState::InvalidArgumentForWidthBucket, message))
}

fn float_buckets(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let [values, lows, highs, counts] = columns else { return Err(external(SqlError::internal("four arguments"))) };
    let (values, lows) = (values.as_primitive::<Float64Type>(), lows.as_primitive::<Float64Type>());
    let rows = values.iter().zip(lows).zip(highs.as_primitive::<Float64Type>()).zip(counts.as_primitive::<Int32Type>());
    let buckets = rows.map(|(((value, low), high), count)| {
        let (Some(value), Some(low), Some(high), Some(count)) = (value, low, high, count) else { return Ok(None) };
        check_count(count)?;
        if value.is_nan() || low.is_nan() || high.is_nan() {
            return Err(invalid("operand, lower bound, and upper bound cannot be NaN"));
        }
        if !low.is_finite() || !high.is_finite() {
            return Err(invalid("lower and upper bounds must be finite"));
        }
        let (first, last, share) = match low < high {
            true => (value < low, value >= high, (value - low) / (high - low)),
            false => (value > low, value <= high, (low - value) / (low - high)),
        };
        bucket(low == high, first, last, count, || (f64::from(count) * share) as i32)
    });
    Ok(Arc::new(buckets.collect::<Result<Int32Array>>()?))
}

fn numeric_buckets(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let [values, lows, highs, counts] = columns else { return Err(external(SqlError::internal("four arguments"))) };
    let (values, lows) = (values.as_primitive::<Decimal128Type>(), lows.as_primitive::<Decimal128Type>());
    let rows =
        values.iter().zip(lows).zip(highs.as_primitive::<Decimal128Type>()).zip(counts.as_primitive::<Int32Type>());
    let buckets = rows.map(|(((value, low), high), count)| {
        let (Some(value), Some(low), Some(high), Some(count)) = (value, low, high, count) else { return Ok(None) };
        check_count(count)?;
        let (first, last, above, width) = match low < high {
            true => (value < low, value >= high, value.saturating_sub(low), high.saturating_sub(low)),
            false => (value > low, value <= high, low.saturating_sub(value), low.saturating_sub(high)),
        };
        bucket(low == high, first, last, count, || match above.checked_mul(i128::from(count)) {
            Some(scaled) => (scaled / width) as i32,
            None => (above as f64 / width as f64 * f64::from(count)) as i32,
        })
    });
    Ok(Arc::new(buckets.collect::<Result<Int32Array>>()?))
}

/// Errors: `2201G`.
fn check_count(count: i32) -> Result<()> {
    if count > 0 { Ok(()) } else { Err(invalid("count must be greater than zero")) }
}

fn bucket(is_empty: bool, first: bool, last: bool, count: i32, inside: impl Fn() -> i32) -> Result<Option<i32>> {
    if is_empty {
        return Err(invalid("lower bound cannot equal upper bound"));
    }
    let out_of_range = || external(SqlError::new(SqlState::NumericValueOutOfRange, "integer out of range"));
    match (first, last) {
        (true, _) => Ok(Some(0)),
        (_, true) => count.checked_add(1).map(Some).ok_or_else(out_of_range),
        _ => Ok(Some(inside().min(count - 1) + 1)),
    }
}

/// The whole part of a quotient.
fn div(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let [left, right] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let rows = left.as_primitive::<Decimal128Type>().iter().zip(right.as_primitive::<Decimal128Type>());
    let quotients = rows.map(|pair| match pair {
        (Some(_), Some(0)) => Err(external(SqlError::new(SqlState::DivisionByZero, "division by zero"))),
        (Some(left), Some(right)) => (left / right)
            .checked_mul(ONE)
            .map(Some)
            .ok_or_else(|| external(SqlError::new(SqlState::NumericValueOutOfRange, "value overflows numeric format"))),
        _ => Ok(None),
    });
    let quotients: Decimal128Array = quotients.collect::<Result<_>>()?;
    let data_type = types.first().map_or(SqlType::Numeric(None).data_type(), SqlType::data_type);
    Ok(Arc::new(quotients.with_data_type(data_type)))
}
