//! `age`, `justify_hours`, `justify_days`, `justify_interval`: intervals in the units that people count in; `date_trunc`;
//! `overlaps`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, IntervalMonthDayNanoArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::compute;
use arrow::datatypes::{
    DataType, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, Timelike};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, ScalarUDF};
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::defined::{self, Definition, Overload};
use super::moments::is_finite;
use super::{date_units, either};

const DAY_US: i64 = 86_400_000_000;
const DAYS_OF_MONTH: i32 = 30;

/// The functions.
pub(super) static ALL: &[Definition] = &[
    Definition {
        name: "age",
        resolve: |types| {
            let moment = if types.contains(&SqlType::Timestamptz) { SqlType::Timestamptz } else { SqlType::Timestamp };
            Overload::exact(types, &[moment.clone(), moment], SqlType::Interval, ages)
        },
    },
    Definition { name: "justify_hours", resolve: |types| justify(types, |c, _| each(c, justified_hours)) },
    Definition { name: "justify_days", resolve: |types| justify(types, |c, _| each(c, justified_days)) },
    Definition { name: "justify_interval", resolve: |types| justify(types, |c, _| each(c, justified)) },
    Definition {
        name: "overlaps",
        resolve: |types| {
            let moment = [SqlType::Time, SqlType::Timestamptz].into_iter().find(|t| types.contains(t));
            let moment = moment.unwrap_or(SqlType::Timestamp);
            Overload::exact(types, &[moment.clone(), moment.clone(), moment.clone(), moment], SqlType::Bool, |c, _| {
                overlaps(c)
            })
        },
    },
];

static LATER: Definition =
    Definition { name: "time plus interval", resolve: |types| shift(types, |c, _| shifted(c, 1)) };
static EARLIER: Definition =
    Definition { name: "time minus interval", resolve: |types| shift(types, |c, _| shifted(c, -1)) };

/// `time + interval`, or `time - interval`: on a clock, which goes round, and has no days.
pub(super) fn shifted_time(time: Expr, interval: Expr, back: bool) -> Expr {
    defined::call(if back { &EARLIER } else { &LATER }, vec![time, interval])
}

fn shift(types: &[SqlType], call: defined::Call) -> Option<Overload> {
    Overload::exact(types, &[SqlType::Time, SqlType::Interval], SqlType::Time, call)
}

fn shifted(columns: &[ArrayRef], sign: i64) -> Result<ArrayRef> {
    let [times, intervals] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let rows = times.as_primitive::<Time64MicrosecondType>().iter();
    let rows = rows.zip(intervals.as_primitive::<IntervalMonthDayNanoType>()).map(|(time, interval)| {
        let (time, interval) = time.zip(interval)?;
        Some((time + sign * (interval.nanoseconds / 1000)).rem_euclid(DAY_US))
    });
    Ok(Arc::new(rows.collect::<Time64MicrosecondArray>()))
}

static DATE_TRUNC: Definition = Definition {
    name: "date_trunc",
    resolve: |types| match types {
        [_, SqlType::Interval] => {
            Overload::exact(types, &[SqlType::Text, SqlType::Interval], SqlType::Interval, |c, _| truncated(c))
        }
        [_, SqlType::Timestamp] => {
            Overload::exact(types, &[SqlType::Text, SqlType::Timestamp], SqlType::Timestamp, truncated_moments)
        }
        // A date is a moment of the session's time zone, which is UTC.
        _ => Overload::exact(types, &[SqlType::Text, SqlType::Timestamptz], SqlType::Timestamptz, truncated_moments),
    },
};

/// `date_trunc(unit, x)`.
pub(super) fn date_trunc() -> ScalarUDF {
    either::function(datafusion::functions::datetime::date_trunc(), &DATE_TRUNC)
}

/// Errors: `22023` for a unit that there is not, `22008` for a moment that no calendar has.
fn truncated_moments(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let [units, moments] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let of_type = types.get(1).cloned().unwrap_or(SqlType::Timestamp);
    let mut known: Option<(&str, Option<&str>)> = None;
    let rows = units.as_string_view().iter().zip(moments.as_primitive::<TimestampMicrosecondType>());
    let rows = rows.map(|(name, micros)| {
        let Some((name, micros)) = name.zip(micros) else { return Ok(None) };
        // Most often it is one unit for all rows.
        let unit = match known {
            Some((last, unit)) if last == name => unit,
            _ => date_units::unit(name),
        };
        known = Some((name, unit));
        let unit = unit.ok_or_else(|| {
            let message = format!("unit \"{}\" not recognized for type {of_type}", name.to_lowercase());
            external(SqlError::new(SqlState::InvalidParameterValue, message))
        })?;
        if !is_finite(micros) {
            return Ok(Some(micros));
        }
        truncated_moment(unit, micros)
            .map(Some)
            .ok_or_else(|| external(SqlError::new(SqlState::DatetimeFieldOverflow, "timestamp out of range")))
    });
    let rows: TimestampMicrosecondArray = rows.collect::<Result<_>>()?;
    Ok(Arc::new(rows.with_data_type(of_type.data_type())))
}

/// The beginning of the unit that a moment is in. None: it is too far away.
fn truncated_moment(unit: &str, micros: i64) -> Option<i64> {
    let to = |unit_us: i64| Some(micros - micros.rem_euclid(unit_us));
    let days = micros.div_euclid(DAY_US);
    match unit {
        "microsecond" => return Some(micros),
        "millisecond" => return to(1_000),
        "second" => return to(1_000_000),
        "minute" => return to(60_000_000),
        "hour" => return to(3_600_000_000),
        "day" => return to(DAY_US),
        // Day 0 was a Thursday.
        "week" => return (days - (days + 3).rem_euclid(7)).checked_mul(DAY_US),
        _ => {}
    }
    let date = NaiveDate::from_epoch_days(i32::try_from(days).ok()?)?;
    let year = date.year();
    // The first century began in the year 1.
    let begun = |years: i32| (year - 1).div_euclid(years) * years + 1;
    let (year, month) = match unit {
        "month" => (year, date.month()),
        "quarter" => (year, date.month0() / 3 * 3 + 1),
        "year" => (year, 1),
        "decade" => (year.div_euclid(10) * 10, 1),
        "century" => (begun(100), 1),
        _ => (begun(1000), 1),
    };
    i64::from(NaiveDate::from_ymd_opt(year, month, 1)?.to_epoch_days()).checked_mul(DAY_US)
}

/// Errors: `22023` for a unit that there is not, `0A000` for weeks.
fn truncated(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [units, intervals] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let rows = units.as_string_view().iter().zip(intervals.as_primitive::<IntervalMonthDayNanoType>());
    let rows = rows
        .map(|(unit, interval)| unit.zip(interval).map(|(unit, interval)| truncated_to(unit, interval)).transpose());
    Ok(Arc::new(rows.collect::<Result<IntervalMonthDayNanoArray, _>>().map_err(external)?))
}

fn truncated_to(unit: &str, interval: IntervalMonthDayNano) -> Result<IntervalMonthDayNano, SqlError> {
    let IntervalMonthDayNano { months, days, nanoseconds } = interval;
    let to_months = |n: i32| Ok(IntervalMonthDayNano::new(months / n * n, 0, 0));
    let to_nanos = |n: i64| Ok(IntervalMonthDayNano::new(months, days, nanoseconds / n * n));
    match date_units::unit(unit) {
        Some("microsecond") => to_nanos(1_000),
        Some("millisecond") => to_nanos(1_000_000),
        Some("second") => to_nanos(1_000_000_000),
        Some("minute") => to_nanos(60_000_000_000),
        Some("hour") => to_nanos(3_600_000_000_000),
        Some("day") => Ok(IntervalMonthDayNano::new(months, days, 0)),
        Some("month") => to_months(1),
        Some("quarter") => to_months(3),
        Some("year") => to_months(12),
        Some("decade") => to_months(120),
        Some("century") => to_months(1_200),
        Some("millennium") => to_months(12_000),
        Some(unit) => {
            let message = format!("unit \"{unit}\" not supported for type interval");
            let error = SqlError::new(SqlState::FeatureNotSupported, message);
            Err(error.with_detail("Months usually have fractional weeks."))
        }
        None => {
            let message = format!("unit \"{}\" not recognized for type interval", unit.to_lowercase());
            Err(SqlError::new(SqlState::InvalidParameterValue, message))
        }
    }
}

/// Whether two periods have a moment in common. Each begins at the earlier of its ends, and has that moment; it does not
/// have the other. One of them may be NULL, where the answer does not depend on it.
fn overlaps(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let columns: Vec<ArrayRef> =
        columns.iter().map(|c| compute::cast(c, &DataType::Int64)).collect::<Result<_, _>>()?;
    let [a, b, c, d] = columns.as_slice() else { return Err(external(SqlError::internal("four arguments"))) };
    let [a, b, c, d] = [a, b, c, d].map(|column| column.as_primitive::<Int64Type>().iter());
    let ordered = |start: Option<i64>, end: Option<i64>| match (start, end) {
        (Some(start), Some(end)) => Some((start.min(end), Some(start.max(end)))),
        (Some(one), None) | (None, Some(one)) => Some((one, None)),
        (None, None) => None,
    };
    let rows = a.zip(b).zip(c.zip(d)).map(|((a, b), (c, d))| {
        let (mut first, mut second) = (ordered(a, b)?, ordered(c, d)?);
        if first.0 > second.0 {
            std::mem::swap(&mut first, &mut second);
        }
        match (first, second) {
            ((start, Some(_)), (other, Some(_))) if start == other => Some(true),
            ((start, _), (other, _)) if start == other => None,
            ((_, None), _) => None,
            ((_, Some(end)), (other, _)) if other < end => Some(true),
            (_, (_, end)) => end.map(|_| false),
        }
    });
    Ok(Arc::new(rows.collect::<BooleanArray>()))
}

fn justify(types: &[SqlType], call: defined::Call) -> Option<Overload> {
    Overload::exact(types, &[SqlType::Interval], SqlType::Interval, call)
}

fn ages(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let [left, right] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let (left, right) =
        (left.as_primitive::<TimestampMicrosecondType>(), right.as_primitive::<TimestampMicrosecondType>());
    let rows = left.iter().zip(right).map(|pair| match pair {
        (Some(left), Some(right)) => age(left, right).map(Some).ok_or_else(out_of_range),
        _ => Ok(None),
    });
    Ok(Arc::new(rows.collect::<Result<IntervalMonthDayNanoArray>>()?))
}

fn out_of_range() -> datafusion::common::DataFusionError {
    external(SqlError::new(SqlState::DatetimeFieldOverflow, "interval out of range"))
}

/// From the later moment back to the earlier one in years and months, then in days, then in time: each field is the
/// difference of the fields, and a day that is borrowed is one of the earlier moment's month.
fn age(left: i64, right: i64) -> Option<IntervalMonthDayNano> {
    let (later, earlier, sign) = if left < right { (right, left, -1) } else { (left, right, 1) };
    let moment = |micros| Some(DateTime::from_timestamp_micros(micros)?.naive_utc());
    let (later, earlier): (NaiveDateTime, NaiveDateTime) = (moment(later)?, moment(earlier)?);
    let micros =
        |t: &NaiveDateTime| i64::from(t.num_seconds_from_midnight()) * 1_000_000 + i64::from(t.nanosecond() / 1000);
    let mut months = (later.year() - earlier.year()) * 12 + later.month0() as i32 - earlier.month0() as i32;
    let mut days = later.day() as i32 - earlier.day() as i32;
    let mut time = micros(&later) - micros(&earlier);
    if time < 0 {
        time += DAY_US;
        days -= 1;
    }
    if days < 0 {
        days += days_in_month(&earlier)?;
        months -= 1;
    }
    Some(IntervalMonthDayNano::new(sign * months, sign * days, i64::from(sign) * time * 1000))
}

fn days_in_month(moment: &NaiveDateTime) -> Option<i32> {
    let first = moment.date().with_day(1)?;
    let last = first.checked_add_months(Months::new(1))?.checked_sub_days(Days::new(1))?;
    i32::try_from(last.day()).ok()
}

fn each(columns: &[ArrayRef], of: impl Fn(Parts) -> Option<Parts>) -> Result<ArrayRef> {
    let Some(intervals) = columns.first() else { return Err(external(SqlError::internal("no argument"))) };
    let rows = intervals.as_primitive::<IntervalMonthDayNanoType>().iter().map(|interval| {
        let Some(value) = interval else { return Ok(None) };
        let parts = Parts { months: value.months, days: value.days, micros: value.nanoseconds / 1000 };
        let parts = of(parts).ok_or_else(out_of_range)?;
        Ok(Some(IntervalMonthDayNano::new(parts.months, parts.days, parts.micros * 1000)))
    });
    Ok(Arc::new(rows.collect::<Result<IntervalMonthDayNanoArray>>()?))
}

struct Parts {
    months: i32,
    days: i32,
    micros: i64,
}

/// 24 hours are a day.
fn justified_hours(mut parts: Parts) -> Option<Parts> {
    parts.days = parts.days.checked_add(i32::try_from(parts.micros / DAY_US).ok()?)?;
    parts.micros %= DAY_US;
    Some(with_one_sign_of_time(parts))
}

fn with_one_sign_of_time(mut parts: Parts) -> Parts {
    if parts.days > 0 && parts.micros < 0 {
        parts.micros += DAY_US;
        parts.days -= 1;
    } else if parts.days < 0 && parts.micros > 0 {
        parts.micros -= DAY_US;
        parts.days += 1;
    }
    parts
}

/// 30 days are a month.
fn justified_days(mut parts: Parts) -> Option<Parts> {
    parts.months = parts.months.checked_add(parts.days / DAYS_OF_MONTH)?;
    parts.days %= DAYS_OF_MONTH;
    if parts.months > 0 && parts.days < 0 {
        parts.days += DAYS_OF_MONTH;
        parts.months -= 1;
    } else if parts.months < 0 && parts.days > 0 {
        parts.days -= DAYS_OF_MONTH;
        parts.months += 1;
    }
    Some(parts)
}

/// Both, and all parts with one sign.
fn justified(mut parts: Parts) -> Option<Parts> {
    parts.days = parts.days.checked_add(i32::try_from(parts.micros / DAY_US).ok()?)?;
    parts.micros %= DAY_US;
    parts.months = parts.months.checked_add(parts.days / DAYS_OF_MONTH)?;
    parts.days %= DAYS_OF_MONTH;
    if parts.months > 0 && (parts.days < 0 || parts.days == 0 && parts.micros < 0) {
        parts.days += DAYS_OF_MONTH;
        parts.months -= 1;
    } else if parts.months < 0 && (parts.days > 0 || parts.days == 0 && parts.micros > 0) {
        parts.days -= DAYS_OF_MONTH;
        parts.months += 1;
    }
    Some(with_one_sign_of_time(parts))
}
