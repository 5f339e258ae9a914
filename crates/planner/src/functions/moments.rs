//! Dates, timestamps, times and intervals as each other. The first and the last value of a type of moments are `-infinity`
//! and `infinity`, and stay so.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array, IntervalMonthDayNanoArray, Time64MicrosecondArray};
use arrow::compute::{self, try_unary};
use arrow::datatypes::{
    Date32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use datafusion::common::Result;
use tidewire_types::{SqlError, SqlState, SqlType};

use crate::type_classes::is_moment;

const DAY_US: i64 = 86_400_000_000;

/// The values as those of another type. None: the types are none of these.
///
/// Errors: `22008` for a date that no timestamp is.
pub(super) fn converted(input: &ArrayRef, from: &SqlType, to: &SqlType) -> Option<Result<ArrayRef>> {
    use SqlType as T;
    let is_ours = match from {
        T::Date | T::Timestamp | T::Timestamptz => is_moment(to) || *to == T::Time,
        T::Time => *to == T::Interval,
        T::Interval => *to == T::Time,
        _ => false,
    };
    // `now()` counts nanoseconds.
    let input = if is_ours { compute::cast(input, &from.data_type()) } else { return None };
    Some(input.map_err(Into::into).and_then(|input| of_type(&input, from, to)))
}

fn of_type(input: &ArrayRef, from: &SqlType, to: &SqlType) -> Result<ArrayRef> {
    use SqlType as T;
    match (from, to) {
        (T::Date, T::Timestamp | T::Timestamptz) => {
            let moments = try_unary::<_, _, TimestampMicrosecondType>(input.as_primitive::<Date32Type>(), midnight);
            moments.map(|moments| Arc::new(moments.with_data_type(to.data_type())) as ArrayRef).map_err(Into::into)
        }
        (T::Timestamp | T::Timestamptz, T::Date) => {
            let dates: Date32Array = input.as_primitive::<TimestampMicrosecondType>().unary(date);
            Ok(Arc::new(dates))
        }
        (T::Timestamp | T::Timestamptz, T::Time) => {
            // An infinite moment has no time of day.
            let times: Time64MicrosecondArray = input
                .as_primitive::<TimestampMicrosecondType>()
                .unary_opt(|micros| is_finite(micros).then(|| micros.rem_euclid(DAY_US)));
            Ok(Arc::new(times))
        }
        (T::Timestamp | T::Timestamptz, T::Timestamp | T::Timestamptz) => {
            Ok(Arc::new(input.as_primitive::<TimestampMicrosecondType>().clone().with_data_type(to.data_type())))
        }
        // There may be anything in the place of a NULL.
        (T::Time, T::Interval) => {
            let spans: IntervalMonthDayNanoArray = input
                .as_primitive::<Time64MicrosecondType>()
                .unary(|micros| IntervalMonthDayNano::new(0, 0, micros.wrapping_mul(1_000)));
            Ok(Arc::new(spans))
        }
        (T::Interval, T::Time) => {
            let times: Time64MicrosecondArray = input
                .as_primitive::<IntervalMonthDayNanoType>()
                .unary(|interval| (interval.nanoseconds / 1_000).rem_euclid(DAY_US));
            Ok(Arc::new(times))
        }
        _ => Ok(compute::cast(input, &to.data_type())?),
    }
}

/// Whether a timestamp is no infinity.
pub(super) fn is_finite(micros: i64) -> bool {
    micros != i64::MIN && micros != i64::MAX
}

fn midnight(days: i32) -> Result<i64, ArrowError> {
    let out_of_range = || {
        let error = SqlError::new(SqlState::DatetimeFieldOverflow, "date out of range for timestamp");
        ArrowError::ExternalError(Box::new(error))
    };
    match days {
        i32::MIN => Ok(i64::MIN),
        i32::MAX => Ok(i64::MAX),
        days => i64::from(days).checked_mul(DAY_US).ok_or_else(out_of_range),
    }
}

fn date(micros: i64) -> i32 {
    match micros {
        i64::MIN => i32::MIN,
        i64::MAX => i32::MAX,
        // 2^63 microseconds are 106,751,991 days.
        micros => i32::try_from(micros.div_euclid(DAY_US)).unwrap_or(i32::MAX),
    }
}
