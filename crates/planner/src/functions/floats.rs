//! Functions of doubles whose value is an error where DataFusion's is infinite or NaN: logarithms, roots, powers,
//! trigonometry.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::Float64Type;
use datafusion::common::Result;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::defined::{Call, Definition, Overload, implied};

/// The functions.
pub(super) static ALL: &[Definition] = &[
    Definition { name: "sqrt", resolve: |types| of_one(types, |c, _| each(c, sqrt)) },
    Definition { name: "exp", resolve: |types| of_one(types, |c, _| each(c, exp)) },
    Definition { name: "ln", resolve: |types| of_one(types, |c, _| each(c, |x| logarithm(x, f64::ln))) },
    Definition { name: "log10", resolve: |types| of_one(types, |c, _| each(c, |x| logarithm(x, f64::log10))) },
    Definition { name: "log2", resolve: |types| of_one(types, |c, _| each(c, |x| logarithm(x, f64::log2))) },
    Definition {
        name: "log",
        resolve: |types| match types {
            [_] => of_one(types, |c, _| each(c, |x| logarithm(x, f64::log10))),
            // Of any base there is one of numerics only.
            _ if types.iter().all(|t| implied(t, &SqlType::Numeric(None))) => of_two(types, |c, _| pairs(c, log)),
            _ => None,
        },
    },
    Definition { name: "power", resolve: |types| of_two(types, |c, _| pairs(c, power)) },
    Definition { name: "pow", resolve: |types| of_two(types, |c, _| pairs(c, power)) },
    Definition { name: "acos", resolve: |types| of_one(types, |c, _| each(c, |x| within(x, (-1.0, 1.0), f64::acos))) },
    Definition { name: "asin", resolve: |types| of_one(types, |c, _| each(c, |x| within(x, (-1.0, 1.0), f64::asin))) },
    Definition {
        name: "acosh",
        resolve: |types| of_one(types, |c, _| each(c, |x| within(x, (1.0, f64::INFINITY), f64::acosh))),
    },
    Definition {
        name: "atanh",
        resolve: |types| of_one(types, |c, _| each(c, |x| within(x, (-1.0, 1.0), f64::atanh))),
    },
    Definition { name: "sin", resolve: |types| of_one(types, |c, _| each(c, |x| of_angle(x, f64::sin))) },
    Definition { name: "cos", resolve: |types| of_one(types, |c, _| each(c, |x| of_angle(x, f64::cos))) },
    Definition { name: "tan", resolve: |types| of_one(types, |c, _| each(c, |x| of_angle(x, f64::tan))) },
    Definition { name: "cot", resolve: |types| of_one(types, |c, _| each(c, |x| of_angle(x, |x| 1.0 / x.tan()))) },
    Definition { name: "degrees", resolve: |types| of_one(types, |c, _| each(c, degrees)) },
];

pub(super) fn of_one(types: &[SqlType], call: Call) -> Option<Overload> {
    Overload::exact(types, &[SqlType::Float8], SqlType::Float8, call)
}

pub(super) fn of_two(types: &[SqlType], call: Call) -> Option<Overload> {
    Overload::exact(types, &[SqlType::Float8, SqlType::Float8], SqlType::Float8, call)
}

pub(super) fn each(columns: &[ArrayRef], of: impl Fn(f64) -> Result<f64, SqlError>) -> Result<ArrayRef> {
    let [values] = columns else { return Err(external(SqlError::internal("one argument"))) };
    let values = values.as_primitive::<Float64Type>().iter().map(|value| value.map(&of).transpose());
    Ok(Arc::new(values.collect::<Result<Float64Array, _>>().map_err(external)?))
}

pub(super) fn pairs(columns: &[ArrayRef], of: impl Fn(f64, f64) -> Result<f64, SqlError>) -> Result<ArrayRef> {
    let [left, right] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let pairs = left.as_primitive::<Float64Type>().iter().zip(right.as_primitive::<Float64Type>());
    let values = pairs.map(|(left, right)| left.zip(right).map(|(left, right)| of(left, right)).transpose());
    Ok(Arc::new(values.collect::<Result<Float64Array, _>>().map_err(external)?))
}

/// Errors: `22003` where the value of a finite argument is infinite, or zero although it is not.
pub(super) fn in_range(value: f64, is_finite: bool, can_be_zero: bool) -> Result<f64, SqlError> {
    let out_of_range = |how: &str| {
        let message = format!("value out of range: {how}");
        Err(SqlError::new(SqlState::NumericValueOutOfRange, message))
    };
    match value {
        value if value.is_infinite() && is_finite => out_of_range("overflow"),
        0.0 if !can_be_zero => out_of_range("underflow"),
        value => Ok(value),
    }
}

fn sqrt(x: f64) -> Result<f64, SqlError> {
    if x < 0.0 {
        let message = "cannot take square root of a negative number";
        return Err(SqlError::new(SqlState::InvalidArgumentForPowerFunction, message));
    }
    Ok(x.sqrt())
}

fn exp(x: f64) -> Result<f64, SqlError> {
    in_range(x.exp(), x.is_finite(), x.is_infinite())
}

/// Errors: `2201E`.
fn logarithm(x: f64, of: impl Fn(f64) -> f64) -> Result<f64, SqlError> {
    let invalid = |what: &str| {
        let message = format!("cannot take logarithm of {what}");
        Err(SqlError::new(SqlState::InvalidArgumentForLogarithm, message))
    };
    match x {
        0.0 => invalid("zero"),
        x if x < 0.0 => invalid("a negative number"),
        x => Ok(of(x)),
    }
}

fn log(base: f64, x: f64) -> Result<f64, SqlError> {
    let of_base = logarithm(base, f64::ln)?;
    if of_base == 0.0 {
        return Err(SqlError::new(SqlState::DivisionByZero, "division by zero"));
    }
    // The quotient of two logarithms is not exact where the result is a whole number.
    logarithm(x, |x| match base {
        2.0 => x.log2(),
        10.0 => x.log10(),
        _ => x.ln() / of_base,
    })
}

/// Errors: `2201F` where the value is no real number, `22003`.
fn power(base: f64, exponent: f64) -> Result<f64, SqlError> {
    let invalid = |message: &str| Err(SqlError::new(SqlState::InvalidArgumentForPowerFunction, message));
    if base == 0.0 && exponent < 0.0 {
        return invalid("zero raised to a negative power is undefined");
    }
    if base < 0.0 && base.is_finite() && exponent.is_finite() && exponent.fract() != 0.0 {
        return invalid("a negative number raised to a non-integer power yields a complex result");
    }
    let is_finite = base.is_finite() && exponent.is_finite();
    in_range(base.powf(exponent), is_finite, base == 0.0 || !is_finite)
}

/// Errors: `22003` for an argument outside of the range.
pub(super) fn within(x: f64, (least, greatest): (f64, f64), of: impl Fn(f64) -> f64) -> Result<f64, SqlError> {
    match x.is_nan() || (least..=greatest).contains(&x) {
        true => Ok(of(x)),
        false => Err(SqlError::new(SqlState::NumericValueOutOfRange, "input is out of range")),
    }
}

pub(super) fn of_angle(x: f64, of: impl Fn(f64) -> f64) -> Result<f64, SqlError> {
    within(x, (f64::MIN, f64::MAX), of)
}

fn degrees(x: f64) -> Result<f64, SqlError> {
    in_range(x.to_degrees(), x.is_finite(), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(value: Result<f64, SqlError>) -> &'static str {
        value.map_or_else(|error| error.state().code(), |_| "")
    }

    #[test]
    fn what_is_no_number_is_an_error() {
        let states =
            [logarithm(0.0, f64::ln), logarithm(-1.0, f64::ln), sqrt(-1.0), power(0.0, -1.0), power(-8.0, 0.5)];
        assert_eq!(states.map(state), ["2201E", "2201E", "2201F", "2201F", "2201F"]);
        let states =
            [exp(1000.0), exp(-1000.0), power(10.0, 400.0), power(10.0, -400.0), within(2.0, (-1.0, 1.0), f64::acos)];
        assert_eq!(states.map(state), ["22003"; 5]);
        assert_eq!(state(log(1.0, 2.0)), "22012");
    }

    #[test]
    fn infinity_and_nan_stay() {
        assert_eq!(exp(f64::INFINITY), Ok(f64::INFINITY));
        assert_eq!(exp(f64::NEG_INFINITY), Ok(0.0));
        assert_eq!(power(f64::INFINITY, -1.0), Ok(0.0));
        assert_eq!(power(1.0, f64::NAN), Ok(1.0));
        assert!(sqrt(f64::NAN).unwrap().is_nan());
        assert_eq!(power(0.0, 0.0), Ok(1.0));
        assert_eq!(log(2.0, 8.0), Ok(3.0));
    }
}
