//! RANGE with an offset: how far a frame reaches in values of the ORDER BY column.
//!
//! As PostgreSQL's `in_range` functions: a bound beyond what the type holds is beyond all values; infinities and NaNs
//! have their place in the order. A bound between two values of the column (a time of day between two dates) is rounded
//! inwards.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array,
    Int64Array, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, IntervalMonthDayNano, IntervalUnit,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;
use tidewire_types::{Result, SqlError, SqlState, SqlType};

const DAY_US: i64 = 86_400_000_000;

/// What is added to or taken from the ORDER BY column.
#[derive(Clone, Debug)]
pub(super) struct Distance {
    amount: Amount,
    /// Of the column.
    data_type: DataType,
}

#[derive(Clone, Copy, Debug)]
enum Amount {
    /// In units of `10^-scale`.
    Number {
        value: i128,
        scale: i8,
    },
    Float(f64),
    Interval(IntervalMonthDayNano),
}

/// Where the values within a frame begin or end.
pub(super) enum Limit {
    /// At a value: the encoding of one value of the column's type.
    Value(ArrayRef),
    /// Before every value that is not NULL, in the order of values (not of the ORDER BY).
    BelowAll,
    /// Behind every value.
    AboveAll,
}

impl Distance {
    /// Errors: `22004`, `22013`, `0A000` as [`super::Frame::check`].
    pub(super) fn new(offset: &ScalarValue, data_type: &DataType, which: &str) -> Result<Distance> {
        if offset.is_null() {
            let message = format!("frame {which} offset must not be null");
            return Err(SqlError::new(SqlState::NullValueNotAllowed, message));
        }
        let amount = Amount::new(offset, data_type).ok_or_else(|| not_supported(offset, data_type))?;
        if amount.is_negative() {
            let message = "invalid preceding or following size in window function";
            return Err(SqlError::new(SqlState::InvalidPrecedingOrFollowingSize, message));
        }
        Ok(Distance { amount, data_type: data_type.clone() })
    }

    /// The value so far below (`down`) or above the value at `idx`. As the first value of a frame (`is_first`, in the order
    /// of values) it is rounded up, as the last one down.
    pub(super) fn limit(&self, values: &ArrayRef, idx: usize, down: bool, is_first: bool) -> Result<Limit> {
        let beyond = if down { Limit::BelowAll } else { Limit::AboveAll };
        let value = match &self.amount {
            Amount::Float(amount) => return self.float(values, idx, *amount, down, is_first),
            Amount::Number { value, scale } => self.number(values, idx, *value, *scale, down, is_first)?,
            Amount::Interval(interval) => self.time(values, idx, *interval, down, is_first),
        };
        Ok(value.map_or(beyond, Limit::Value))
    }

    /// A little more, where adding to the value at `idx` and taking away again need not lead back (months of different
    /// lengths, rounded floats).
    pub(super) fn widened(&self, values: &ArrayRef, idx: usize) -> Result<Distance> {
        let amount = match self.amount {
            Amount::Interval(i) if i.months != 0 => {
                Amount::Interval(IntervalMonthDayNano::new(i.months, i.days.saturating_add(4), i.nanoseconds))
            }
            Amount::Float(amount) => {
                let wide = cast(&values.slice(idx, 1), &DataType::Float64)?;
                let value = wide.as_primitive::<Float64Type>().value(0).abs();
                let value = if value.is_finite() { value } else { 0.0 };
                Amount::Float(amount + (amount + value) * 4.0 * f64::EPSILON + f64::MIN_POSITIVE)
            }
            other => other,
        };
        Ok(Distance { amount, data_type: self.data_type.clone() })
    }

    fn number(
        &self,
        values: &ArrayRef,
        idx: usize,
        amount: i128,
        amount_scale: i8,
        down: bool,
        is_first: bool,
    ) -> Result<Option<ArrayRef>> {
        let (value, scale) = match &self.data_type {
            DataType::Decimal128(_, scale) => (values.as_primitive::<Decimal128Type>().value(idx), *scale),
            _ => {
                let wide = cast(&values.slice(idx, 1), &DataType::Int64)?;
                (i128::from(wide.as_primitive::<Int64Type>().value(0)), 0)
            }
        };
        // Both in the finer unit.
        let finest = scale.max(amount_scale);
        let scaled = |v: i128, from: i8| 10i128.checked_pow(u32::from((finest - from).unsigned_abs()))?.checked_mul(v);
        let (Some(value), Some(amount)) = (scaled(value, scale), scaled(amount, amount_scale)) else {
            return Ok(None);
        };
        let Some(sum) = (if down { value.checked_sub(amount) } else { value.checked_add(amount) }) else {
            return Ok(None);
        };
        let unit = 10i128.pow(u32::from((finest - scale).unsigned_abs()));
        let rounded = if is_first { -(-sum).div_euclid(unit) } else { sum.div_euclid(unit) };
        Ok(match &self.data_type {
            DataType::Int16 => i16::try_from(rounded).ok().map(|v| Arc::new(Int16Array::from(vec![v])) as ArrayRef),
            DataType::Int32 => i32::try_from(rounded).ok().map(|v| Arc::new(Int32Array::from(vec![v])) as ArrayRef),
            DataType::Int64 => i64::try_from(rounded).ok().map(|v| Arc::new(Int64Array::from(vec![v])) as ArrayRef),
            other => Some(Arc::new(Decimal128Array::from(vec![rounded]).with_data_type(other.clone()))),
        })
    }

    fn float(&self, values: &ArrayRef, idx: usize, amount: f64, down: bool, is_first: bool) -> Result<Limit> {
        let wide = cast(&values.slice(idx, 1), &DataType::Float64)?;
        let value = wide.as_primitive::<Float64Type>().value(0);
        if value.is_infinite() && amount.is_infinite() && (value > 0.0) == down {
            // PostgreSQL: infinity less infinity is as far as there is.
            return Ok(if is_first { Limit::BelowAll } else { Limit::AboveAll });
        }
        // One zero, one NaN, as the rows are encoded.
        let sum = if down { value - amount } else { value + amount } + 0.0;
        let sum = if sum.is_nan() { f64::NAN } else { sum };
        if self.data_type == DataType::Float64 {
            return Ok(Limit::Value(Arc::new(Float64Array::from(vec![sum]))));
        }
        let near = sum as f32;
        let inward = match (is_first, f64::from(near) < sum, f64::from(near) > sum) {
            (true, true, _) => near.next_up(),
            (false, _, true) => near.next_down(),
            _ => near,
        };
        let inward = if inward.is_nan() { f32::NAN } else { inward + 0.0 };
        Ok(Limit::Value(Arc::new(Float32Array::from(vec![inward]))))
    }

    /// None: beyond what the type holds.
    fn time(
        &self,
        values: &ArrayRef,
        idx: usize,
        interval: IntervalMonthDayNano,
        down: bool,
        is_first: bool,
    ) -> Option<ArrayRef> {
        let moved = |at: i64| {
            let utc: Tz = "+00:00".parse().ok()?;
            match down {
                true => TimestampMicrosecondType::subtract_month_day_nano(at, interval, utc),
                false => TimestampMicrosecondType::add_month_day_nano(at, interval, utc),
            }
        };
        match &self.data_type {
            DataType::Date32 => {
                let at = i64::from(values.as_primitive::<Date32Type>().value(idx)).checked_mul(DAY_US)?;
                let at = moved(at)?;
                let day = if is_first { -(-at).div_euclid(DAY_US) } else { at.div_euclid(DAY_US) };
                Some(Arc::new(Date32Array::from(vec![i32::try_from(day).ok()?])))
            }
            DataType::Time64(TimeUnit::Microsecond) => {
                let at = values.as_primitive::<Time64MicrosecondType>().value(idx);
                // A time of day knows no days.
                let by = interval.nanoseconds / 1000;
                let at = if down { at.checked_sub(by)? } else { at.checked_add(by)? };
                (0..=DAY_US).contains(&at).then(|| Arc::new(Time64MicrosecondArray::from(vec![at])) as ArrayRef)
            }
            other => {
                let at = moved(values.as_primitive::<TimestampMicrosecondType>().value(idx))?;
                Some(Arc::new(TimestampMicrosecondArray::from(vec![at]).with_data_type(other.clone())))
            }
        }
    }
}

impl Amount {
    /// None: such an offset cannot be added to such a column.
    fn new(offset: &ScalarValue, data_type: &DataType) -> Option<Amount> {
        match data_type {
            DataType::Int16 | DataType::Int32 | DataType::Int64 => match offset {
                ScalarValue::Int16(_) | ScalarValue::Int32(_) | ScalarValue::Int64(_) => Amount::number(offset),
                _ => None,
            },
            DataType::Decimal128(..) => match offset {
                ScalarValue::Int16(_) | ScalarValue::Int32(_) | ScalarValue::Int64(_) | ScalarValue::Decimal128(..) => {
                    Amount::number(offset)
                }
                _ => None,
            },
            DataType::Float32 | DataType::Float64 => {
                if !offset.data_type().is_numeric() {
                    return None;
                }
                match offset.cast_to(&DataType::Float64).ok()? {
                    ScalarValue::Float64(Some(amount)) => Some(Amount::Float(amount)),
                    _ => None,
                }
            }
            DataType::Date32
            | DataType::Timestamp(TimeUnit::Microsecond, _)
            | DataType::Time64(TimeUnit::Microsecond) => {
                if !matches!(offset.data_type(), DataType::Interval(_)) {
                    return None;
                }
                match offset.cast_to(&DataType::Interval(IntervalUnit::MonthDayNano)).ok()? {
                    ScalarValue::IntervalMonthDayNano(Some(interval)) => Some(Amount::Interval(interval)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn number(offset: &ScalarValue) -> Option<Amount> {
        match offset {
            ScalarValue::Decimal128(Some(value), _, scale) => Some(Amount::Number { value: *value, scale: *scale }),
            ScalarValue::Int16(Some(value)) => Some(Amount::Number { value: i128::from(*value), scale: 0 }),
            ScalarValue::Int32(Some(value)) => Some(Amount::Number { value: i128::from(*value), scale: 0 }),
            ScalarValue::Int64(Some(value)) => Some(Amount::Number { value: i128::from(*value), scale: 0 }),
            _ => None,
        }
    }

    fn is_negative(&self) -> bool {
        match self {
            Amount::Number { value, .. } => *value < 0,
            Amount::Float(amount) => *amount < 0.0 || amount.is_nan(),
            Amount::Interval(interval) => {
                // PostgreSQL compares intervals with months of 30 days.
                let days = i128::from(interval.months) * 30 + i128::from(interval.days);
                days * i128::from(DAY_US) * 1000 + i128::from(interval.nanoseconds) < 0
            }
        }
    }
}

fn not_supported(offset: &ScalarValue, data_type: &DataType) -> SqlError {
    let column = SqlType::of_data_type(data_type);
    let is_known =
        data_type.is_numeric() || matches!(data_type, DataType::Date32 | DataType::Timestamp(..) | DataType::Time64(_));
    let start = format!("RANGE with offset PRECEDING/FOLLOWING is not supported for column type {column}");
    match is_known {
        true => {
            let offset = SqlType::of_data_type(&offset.data_type());
            SqlError::new(SqlState::FeatureNotSupported, format!("{start} and offset type {offset}"))
                .with_hint("Cast the offset value to an appropriate type.")
        }
        false => SqlError::new(SqlState::FeatureNotSupported, start),
    }
}
