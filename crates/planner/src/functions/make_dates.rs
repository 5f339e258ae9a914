//! Dates, times and intervals of numbers: `make_date`, `make_time`, `make_timestamp`, `make_timestamptz`,
//! `make_interval`; and `date_bin`, `isfinite`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, IntervalMonthDayNanoArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{
    Date32Type, Float64Type, Int32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimestampMicrosecondType,
};
use chrono::NaiveDate;
use datafusion::common::Result;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::defined::{Call, Definition, Overload};
use super::timezone::{moment, zone};

const DAY_US: i64 = 86_400_000_000;

/// The functions.
pub(super) static ALL: &[Definition] = &[
    Definition { name: "make_date", resolve: |types| Overload::exact(types, &[INT; 3], SqlType::Date, dates) },
    Definition {
        name: "make_time",
        resolve: |types| Overload::exact(types, &[INT, INT, SqlType::Float8], SqlType::Time, times),
    },
    Definition {
        name: "make_timestamp",
        resolve: |types| Overload::exact(types, FIELDS, SqlType::Timestamp, timestamps),
    },
    Definition {
        name: "make_timestamptz",
        resolve: |types| {
            let with_zone = [FIELDS, &[SqlType::Text]].concat();
            let wanted = if types.len() == with_zone.len() { with_zone.as_slice() } else { FIELDS };
            Overload::exact(types, wanted, SqlType::Timestamptz, moments)
        },
    },
    Definition {
        name: "make_interval",
        resolve: |types| {
            let wanted = [INT, INT, INT, INT, INT, INT, SqlType::Float8];
            Overload::exact(types, wanted.get(..types.len())?, SqlType::Interval, intervals)
        },
    },
    Definition {
        name: "date_bin",
        resolve: |types| {
            let moment = if types.contains(&SqlType::Timestamptz) { SqlType::Timestamptz } else { SqlType::Timestamp };
            Overload::exact(types, &[SqlType::Interval, moment.clone(), moment.clone()], moment, bins)
        },
    },
    Definition {
        name: "isfinite",
        resolve: |types| match types {
            [SqlType::Date | SqlType::Timestamp | SqlType::Timestamptz | SqlType::Interval] => {
                let call: Call = |columns, _| Ok(Arc::new(are_finite(columns.first().ok_or_else(missing)?)));
                Overload::of(types, SqlType::Bool, call)
            }
            _ => None,
        },
    },
];

const INT: SqlType = SqlType::Int4;
const FIELDS: &[SqlType] = &[INT, INT, INT, INT, INT, SqlType::Float8];

/// The names of make_interval's arguments, all of which can be left out.
pub(crate) const INTERVAL_ARGUMENTS: &[&str] = &["years", "months", "weeks", "days", "hours", "mins", "secs"];

fn missing() -> datafusion::common::DataFusionError {
    external(SqlError::internal("too few arguments"))
}

fn out_of_range(message: String) -> SqlError {
    SqlError::new(SqlState::DatetimeFieldOverflow, message)
}

/// The rows of some integers and the column behind them, where there is one.
struct Numbers<'a> {
    integers: Vec<&'a arrow::array::Int32Array>,
    seconds: Option<&'a arrow::array::Float64Array>,
}

impl<'a> Numbers<'a> {
    fn new(columns: &'a [ArrayRef], n_integers: usize) -> Numbers<'a> {
        let integers = columns.iter().take(n_integers).filter_map(|c| c.as_primitive_opt::<Int32Type>()).collect();
        let seconds = columns.get(n_integers).and_then(|c| c.as_primitive_opt::<Float64Type>());
        Numbers { integers, seconds }
    }

    /// Calls `of` with each row that has no NULL: its integers, zeros behind them, and its seconds.
    fn rows<const N: usize, T>(&self, of: impl Fn([i32; N], f64) -> Result<T, SqlError>) -> Result<Vec<Option<T>>> {
        let n_rows = self.integers.first().map_or(1, |column| column.len());
        let of_row = |row| {
            let mut values = [0; N];
            for (value, column) in values.iter_mut().zip(&self.integers) {
                if column.is_null(row) {
                    return Ok(None);
                }
                *value = column.value(row);
            }
            match self.seconds {
                Some(seconds) if seconds.is_null(row) => Ok(None),
                seconds => of(values, seconds.map_or(0.0, |seconds| seconds.value(row))).map(Some).map_err(external),
            }
        };
        (0..n_rows).map(of_row).collect()
    }
}

/// Errors: `22008`. A negative year is one before Christ.
fn date_of(year: i32, month: i32, day: i32) -> Result<NaiveDate, SqlError> {
    let (Ok(of_year), Ok(of_month)) = (u32::try_from(month), u32::try_from(day)) else {
        return Err(no_date(year, month, day));
    };
    let astronomical = if year < 0 { year + 1 } else { year };
    let date = NaiveDate::from_ymd_opt(astronomical, of_year, of_month).filter(|_| year != 0);
    date.ok_or_else(|| no_date(year, month, day))
}

fn no_date(year: i32, month: i32, day: i32) -> SqlError {
    out_of_range(format!("date field value out of range: {year}-{month:02}-{day:02}"))
}

/// Microseconds. Errors: `22008`.
fn time_of(hour: i32, minute: i32, second: f64) -> Result<i64, SqlError> {
    let is_time = (0..24).contains(&hour) && (0..60).contains(&minute) && (0.0..=60.0).contains(&second);
    // A second more would be the next day.
    let is_end = (hour, minute) == (24, 0) && second == 0.0;
    if !is_time && !is_end {
        return Err(out_of_range(format!("time field value out of range: {hour}:{minute:02}:{second:02}")));
    }
    Ok((i64::from(hour) * 60 + i64::from(minute)) * 60_000_000 + (second * 1e6).round_ties_even() as i64)
}

fn dates(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let rows = Numbers::new(columns, 3).rows(|[year, month, day], _| Ok(date_of(year, month, day)?.to_epoch_days()))?;
    Ok(Arc::new(Date32Array::from(rows)))
}

fn times(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let rows = Numbers::new(columns, 2).rows(|[hour, minute], second| time_of(hour, minute, second))?;
    Ok(Arc::new(Time64MicrosecondArray::from(rows)))
}

fn timestamps_of(columns: &[ArrayRef]) -> Result<Vec<Option<i64>>> {
    Numbers::new(columns, 5).rows(|[year, month, day, hour, minute], second| {
        let days = i64::from(date_of(year, month, day)?.to_epoch_days());
        Ok(days * DAY_US + time_of(hour, minute, second)?)
    })
}

fn timestamps(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    Ok(Arc::new(TimestampMicrosecondArray::from(timestamps_of(columns)?)))
}

fn moments(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let mut rows = timestamps_of(columns)?;
    if let Some(zones) = columns.get(FIELDS.len()) {
        for (time, name) in rows.iter_mut().zip(zones.as_string_view()) {
            *time = match (*time, name) {
                (Some(time), Some(name)) => moment(time, zone(name)?),
                _ => None,
            };
        }
    }
    Ok(Arc::new(TimestampMicrosecondArray::from(rows).with_timezone("UTC")))
}

fn intervals(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let n_integers = types.iter().filter(|t| **t == INT).count();
    let rows = Numbers::new(columns, n_integers).rows(|[years, months, weeks, days, hours, minutes], seconds| {
        let months = years.checked_mul(12).and_then(|n| n.checked_add(months));
        let days = weeks.checked_mul(7).and_then(|n| n.checked_add(days));
        let micros = (i64::from(hours) * 60 + i64::from(minutes)) * 60_000_000;
        let seconds = Some((seconds * 1e6).round_ties_even()).filter(|us| us.abs() < i64::MAX as f64);
        let nanos = seconds.and_then(|us| micros.checked_add(us as i64)?.checked_mul(1000));
        match (months, days, nanos) {
            (Some(months), Some(days), Some(nanos)) => Ok(IntervalMonthDayNano::new(months, days, nanos)),
            _ => Err(out_of_range("interval out of range".into())),
        }
    })?;
    Ok(Arc::new(IntervalMonthDayNanoArray::from(rows)))
}

/// The beginning of the bin that a moment is in, of bins that are a stride long and one of which begins at an origin.
///
/// Errors: `0A000` for a stride of months, `22008`.
fn bins(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let [strides, moments, origins] = columns else { return Err(missing()) };
    let strides = strides.as_primitive::<IntervalMonthDayNanoType>();
    let (moments, origins) =
        (moments.as_primitive::<TimestampMicrosecondType>(), origins.as_primitive::<TimestampMicrosecondType>());
    let rows = strides.iter().zip(moments).zip(origins).map(|row| match row {
        ((Some(stride), Some(moment)), Some(origin)) => bin(stride, moment, origin).map(Some).map_err(external),
        _ => Ok(None),
    });
    let bins: TimestampMicrosecondArray = rows.collect::<Result<_>>()?;
    let to = types.get(1).map_or_else(|| SqlType::Timestamp.data_type(), SqlType::data_type);
    Ok(Arc::new(bins.with_data_type(to)))
}

fn bin(stride: IntervalMonthDayNano, moment: i64, origin: i64) -> Result<i64, SqlError> {
    if stride.months != 0 {
        let message = "timestamps cannot be binned into intervals containing months or years";
        return Err(SqlError::new(SqlState::FeatureNotSupported, message));
    }
    let too_long = || out_of_range("interval out of range".into());
    let days = i64::from(stride.days).checked_mul(DAY_US);
    let stride = days.and_then(|us| us.checked_add(stride.nanoseconds / 1000)).ok_or_else(too_long)?;
    if stride <= 0 {
        return Err(out_of_range("stride must be greater than zero".into()));
    }
    let distance = moment.checked_sub(origin).ok_or_else(too_long)?;
    moment.checked_sub(distance.rem_euclid(stride)).ok_or_else(|| out_of_range("timestamp out of range".into()))
}

/// The extreme dates and timestamps stand for infinity.
fn are_finite(values: &ArrayRef) -> BooleanArray {
    if let Some(days) = values.as_primitive_opt::<Date32Type>() {
        return days.iter().map(|days| days.map(|days| !matches!(days, i32::MIN | i32::MAX))).collect();
    }
    if let Some(micros) = values.as_primitive_opt::<TimestampMicrosecondType>() {
        return micros.iter().map(|micros| micros.map(|micros| !matches!(micros, i64::MIN | i64::MAX))).collect();
    }
    (0..values.len()).map(|row| values.is_valid(row).then_some(true)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_before_the_origin_are_in_earlier_bins() {
        let quarter = IntervalMonthDayNano::new(0, 0, 900_000_000_000);
        let starts = [0, 1, 900_000_000, -1, -900_000_000].map(|us| bin(quarter, us, 0).unwrap() / 1_000_000);
        assert_eq!(starts, [0, 0, 900, -900, -900]);
        assert!(bin(IntervalMonthDayNano::new(1, 0, 0), 0, 0).is_err());
        assert!(bin(IntervalMonthDayNano::new(0, 0, 0), 0, 0).is_err());
        assert!(bin(quarter, i64::MIN, i64::MAX).is_err());
    }

    #[test]
    fn a_date_has_a_year_a_month_and_a_day() {
        assert_eq!(date_of(-44, 3, 15).unwrap(), NaiveDate::from_ymd_opt(-43, 3, 15).unwrap());
        assert!(
            [(0, 1, 1), (2023, 2, 29), (2023, 13, 1), (2023, -1, 1)]
                .iter()
                .all(|(y, m, d)| date_of(*y, *m, *d).is_err())
        );
        assert_eq!(time_of(8, 15, 60.0).unwrap(), time_of(8, 16, 0.0).unwrap());
        assert!(
            [(24, 1, 0.0), (8, 60, 0.0), (8, 0, 60.5), (8, 0, f64::NAN)]
                .iter()
                .all(|(h, m, s)| time_of(*h, *m, *s).is_err())
        );
    }
}
