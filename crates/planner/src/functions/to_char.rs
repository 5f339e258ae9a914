//! `to_char`, of dates, timestamps and intervals here, by PostgreSQL's patterns; DataFusion's takes those of C.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringViewArray};
use arrow::datatypes::{IntervalMonthDayNano, IntervalMonthDayNanoType, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
use datafusion::common::Result;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::defined::{Definition, Overload};
use super::number_format;

/// The function.
pub(super) static TO_CHAR: Definition = Definition {
    name: "to_char",
    resolve: |types| match types {
        [SqlType::Date | SqlType::Timestamp, _] => {
            Overload::exact(types, &[SqlType::Timestamp, SqlType::Text], SqlType::Text, to_char)
        }
        [SqlType::Timestamptz, _] => {
            Overload::exact(types, &[SqlType::Timestamptz, SqlType::Text], SqlType::Text, to_char)
        }
        [SqlType::Interval, _] => {
            Overload::exact(types, &[SqlType::Interval, SqlType::Text], SqlType::Text, |c, _| of_intervals(c))
        }
        _ => number_format::to_char(types),
    },
};

fn of_intervals(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [intervals, formats] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let rows = intervals.as_primitive::<IntervalMonthDayNanoType>().iter().zip(formats.as_string_view());
    let rows = rows.map(|pair| {
        let (Some(interval), Some(format)) = pair else { return Ok(None) };
        shown(format, |pattern, fill| part_of_interval(interval, pattern, fill)).map(Some).map_err(external)
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray>>()?))
}

fn to_char(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let [moments, formats] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let zone = types.first() == Some(&SqlType::Timestamptz);
    let rows = moments.as_primitive::<TimestampMicrosecondType>().iter().zip(formats.as_string_view()).map(|pair| {
        let (Some(micros), Some(format)) = pair else { return Ok(None) };
        let out_of_range = || SqlError::new(SqlState::DatetimeFieldOverflow, "timestamp out of range");
        let moment = DateTime::from_timestamp_micros(micros).ok_or_else(out_of_range);
        moment
            .and_then(|moment| shown(format, |pattern, fill| Ok(part(&moment.naive_utc(), pattern, fill, zone))))
            .map(Some)
            .map_err(external)
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray>>()?))
}

/// The patterns, longer ones before those that they begin with.
const PATTERNS: &[&str] = &[
    "HH24", "HH12", "HH", "MI", "MONTH", "Month", "month", "MON", "Mon", "mon", "MM", "MS", "SSSSS", "SSSS", "SS",
    "US", "YYYY", "YYY", "YY", "Y", "IYYY", "IW", "ID", "DDD", "DD", "DAY", "Day", "day", "DY", "Dy", "dy", "D", "Q",
    "WW", "W", "CC", "J", "AM", "PM", "am", "pm", "TZ", "tz", "OF",
];

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub(super) const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The format with what `part` says for its patterns. Errors: `0A000` for the modifiers TH and SP.
fn shown(format: &str, part: impl Fn(&str, bool) -> Result<String, SqlError>) -> Result<String, SqlError> {
    let mut output = String::new();
    let mut rest = format;
    let mut fill = true;
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (text, behind) = quoted.split_once('"').unwrap_or((quoted, ""));
            output.push_str(text);
            rest = behind;
            continue;
        }
        if let Some(behind) = rest.strip_prefix("FM") {
            fill = false;
            rest = behind;
            continue;
        }
        // Digits are of either case, names of months and days have that of the pattern.
        let found = PATTERNS.iter().find(|p| {
            let is_name =
                matches!(p.to_ascii_lowercase().as_str(), "month" | "mon" | "day" | "dy" | "am" | "pm" | "tz");
            rest.get(..p.len()).is_some_and(|start| if is_name { start == **p } else { start.eq_ignore_ascii_case(p) })
        });
        let Some(pattern) = found else {
            output.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            fill = true;
            continue;
        };
        rest = rest.get(pattern.len()..).unwrap_or_default();
        if rest.get(..2).is_some_and(|m| m.eq_ignore_ascii_case("th") || m == "SP") {
            return Err(SqlError::unsupported(format!(
                "to_char with the modifier \"{}\"",
                rest.get(..2).unwrap_or_default()
            )));
        }
        output.push_str(&part(pattern, fill)?);
        fill = true;
    }
    Ok(output)
}

fn part(moment: &NaiveDateTime, pattern: &str, fill: bool, zone: bool) -> String {
    let number = |value: i64, width: usize| if fill { format!("{value:0width$}") } else { value.to_string() };
    let micros = i64::from(moment.nanosecond() / 1000);
    let hour = i64::from(moment.hour());
    let named = |name: &str, width: usize| if fill { format!("{name:width$}") } else { name.to_owned() };
    let cased = |name: &str| match pattern.chars().nth(1) {
        Some(second) if second.is_lowercase() && pattern.starts_with(char::is_lowercase) => name.to_lowercase(),
        Some(second) if second.is_lowercase() => name.to_owned(),
        _ => name.to_uppercase(),
    };
    let month = MONTHS.get(moment.month0() as usize).copied().unwrap_or_default();
    let day = DAYS.get(moment.weekday().num_days_from_sunday() as usize).copied().unwrap_or_default();
    let short = |name: &str| name.chars().take(3).collect::<String>();
    let year = i64::from(moment.year());
    match pattern {
        "HH24" => number(hour, 2),
        "HH12" | "HH" => number((hour + 11) % 12 + 1, 2),
        "MI" => number(i64::from(moment.minute()), 2),
        "SS" => number(i64::from(moment.second()), 2),
        "SSSSS" | "SSSS" => i64::from(moment.num_seconds_from_midnight()).to_string(),
        "MS" => number(micros / 1000, 3),
        "US" => number(micros, 6),
        "MM" => number(i64::from(moment.month()), 2),
        "MONTH" | "Month" | "month" => named(&cased(month), 9),
        "MON" | "Mon" | "mon" => cased(&short(month)),
        "DAY" | "Day" | "day" => named(&cased(day), 9),
        "DY" | "Dy" | "dy" => cased(&short(day)),
        "DDD" => number(i64::from(moment.ordinal()), 3),
        "DD" => number(i64::from(moment.day()), 2),
        "D" => (moment.weekday().num_days_from_sunday() + 1).to_string(),
        "ID" => moment.weekday().number_from_monday().to_string(),
        "YYYY" => number(year, 4),
        "YYY" => number(year.rem_euclid(1000), 3),
        "YY" => number(year.rem_euclid(100), 2),
        "Y" => year.rem_euclid(10).to_string(),
        "IYYY" => number(i64::from(moment.iso_week().year()), 4),
        "IW" => number(i64::from(moment.iso_week().week()), 2),
        "Q" => (moment.month0() / 3 + 1).to_string(),
        "WW" => number(i64::from(moment.ordinal0() / 7 + 1), 2),
        "W" => (moment.day0() / 7 + 1).to_string(),
        "CC" => number((year + 99).div_euclid(100), 2),
        "J" => (i64::from(moment.date().num_days_from_ce()) + 1_721_425).to_string(),
        "AM" | "PM" => {
            if hour < 12 {
                "AM".into()
            } else {
                "PM".into()
            }
        }
        "am" | "pm" => {
            if hour < 12 {
                "am".into()
            } else {
                "pm".into()
            }
        }
        "TZ" if zone => "UTC".into(),
        "tz" if zone => "utc".into(),
        "OF" => "+00".into(),
        _ => String::new(),
    }
}

/// A pattern of an interval's own fields: years and months, days, hours and less. Errors: `22007` for one of dates.
fn part_of_interval(interval: IntervalMonthDayNano, pattern: &str, fill: bool) -> Result<String, SqlError> {
    // A sign is one more of two or four digits, and else takes the place of one; of days, too.
    let number = |value: i64, width: usize| match fill {
        true if pattern == "DD" => format!("{value:02}"),
        true => format!("{value:0width$}", width = width + usize::from(value < 0 && matches!(width, 2 | 4))),
        false => value.to_string(),
    };
    let (months, days, micros) = (i64::from(interval.months), i64::from(interval.days), interval.nanoseconds / 1000);
    let (year, month, seconds, hour) = (months / 12, months % 12, micros / 1_000_000, micros / 3_600_000_000);
    Ok(match pattern {
        "HH24" => number(hour, 2),
        "HH12" | "HH" => number(if hour % 12 == 0 { 12 } else { hour % 12 }, 2),
        "MI" => number(seconds / 60 % 60, 2),
        "SS" => number(seconds % 60, 2),
        "SSSSS" | "SSSS" => seconds.to_string(),
        "MS" => number(micros % 1_000_000 / 1000, 3),
        "US" => number(micros % 1_000_000, 6),
        "MM" => number(month, 2),
        "DDD" => number(months * 30 + days, 3),
        "DD" => number(days, 2),
        "YYYY" => number(year, 4),
        "YYY" => number(year % 1000, 3),
        "YY" => number(year % 100, 2),
        "Y" => (year % 10).to_string(),
        "Q" if month == 0 => String::new(),
        "Q" => ((month - 1) / 3 + 1).to_string(),
        "CC" => number(year / 100, 2),
        "AM" | "PM" => if hour.rem_euclid(24) < 12 { "AM" } else { "PM" }.into(),
        "am" | "pm" => if hour.rem_euclid(24) < 12 { "am" } else { "pm" }.into(),
        _ => {
            let message = "invalid format specification for an interval value";
            let error = SqlError::new(SqlState::InvalidDatetimeFormat, message);
            return Err(error.with_hint("Intervals are not tied to specific calendar dates."));
        }
    })
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;

    #[test]
    fn patterns_are_postgresqls() {
        let moment = NaiveDate::from_ymd_opt(2024, 2, 9).unwrap().and_hms_micro_opt(14, 5, 6, 78_000).unwrap();
        let shown = |format| shown(format, |pattern, fill| Ok(part(&moment, pattern, fill, false))).unwrap();
        assert_eq!(shown("YYYY-MM-DD HH24:MI:SS.MS"), "2024-02-09 14:05:06.078");
        assert_eq!(shown("Day, FMMonth DD, HH12:MI am"), "Friday   , February 09, 02:05 pm");
        assert_eq!(shown("MON Dy DDD Q IW \"at YYYY\" yy"), "FEB Fri 040 1 06 at YYYY 24");
    }
}
