//! `age`, `justify_hours`, `justify_days`, `justify_interval`: intervals in the units that people count in.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, IntervalMonthDayNanoArray};
use arrow::datatypes::{IntervalMonthDayNano, IntervalMonthDayNanoType, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, Days, Months, NaiveDateTime, Timelike};
use datafusion::common::Result;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::defined::{Definition, Overload};

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
];

fn justify(types: &[SqlType], call: super::defined::Call) -> Option<Overload> {
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
