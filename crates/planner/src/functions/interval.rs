//! Intervals as PostgreSQL reads them: `1 year 2 months 3 days 04:05:06.7`, `1-2`, `P1Y2MT3H`, `2 hours ago`.

use std::iter::Peekable;
use std::str::Chars;

use arrow::datatypes::IntervalMonthDayNano;
use tidewire_types::{SqlError, SqlState};

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// Reads an interval. Errors: `22007` for what is none, `22008` for one that is too long.
pub(crate) fn parse_interval(text: &str) -> Result<IntervalMonthDayNano, SqlError> {
    let lower = text.trim().to_ascii_lowercase();
    let mut sum = Sum::default();
    let read = match lower.strip_prefix('p') {
        Some(iso) => sum.read_iso(iso),
        None => sum.read(lower.strip_prefix('@').unwrap_or(&lower)),
    };
    match read {
        Err(Bad::Syntax) => {
            let message = format!("invalid input syntax for type interval: \"{text}\"");
            Err(SqlError::new(SqlState::InvalidDatetimeFormat, message))
        }
        Err(Bad::Range) => {
            let message = format!("interval field value out of range: \"{text}\"");
            Err(SqlError::new(SqlState::IntervalFieldOverflow, message))
        }
        Ok(()) => sum.interval().ok_or_else(|| SqlError::new(SqlState::IntervalFieldOverflow, "interval out of range")),
    }
}

/// An interval as PostgreSQL shows it: `1 year 2 mons -3 days +04:05:06.7`.
pub(crate) fn interval_text(value: IntervalMonthDayNano) -> String {
    let mut parts: Vec<String> = vec![];
    let mut after_negative = false;
    for (n, unit) in [(value.months / 12, "year"), (value.months % 12, "mon"), (value.days, "day")] {
        if n != 0 {
            // A part after a negative one carries its sign.
            let plus = if after_negative && n > 0 { "+" } else { "" };
            parts.push(format!("{plus}{n} {unit}{}", if n == 1 { "" } else { "s" }));
            after_negative = n < 0;
        }
    }
    let micros = value.nanoseconds / 1000;
    if micros != 0 || parts.is_empty() {
        let sign = match micros < 0 {
            true => "-",
            false if after_negative => "+",
            false => "",
        };
        let (seconds, fraction) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
        let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:06}") };
        parts.push(format!("{sign}{clock}{}", fraction.trim_end_matches('0')));
    }
    parts.join(" ")
}

enum Bad {
    Syntax,
    Range,
}

/// A number as it is written.
#[derive(Clone, Copy)]
struct Number {
    whole: i64,
    fraction: f64,
}

#[derive(Default)]
struct Sum {
    months: i64,
    days: i64,
    micros: i64,
}

impl Sum {
    fn interval(&self) -> Option<IntervalMonthDayNano> {
        let (months, days) = (i32::try_from(self.months).ok()?, i32::try_from(self.days).ok()?);
        Some(IntervalMonthDayNano::new(months, days, self.micros.checked_mul(1000)?))
    }

    fn read(&mut self, text: &str) -> Result<(), Bad> {
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let ago = words.last() == Some(&"ago");
        if ago {
            words.pop();
        }
        if words.is_empty() {
            return Err(Bad::Syntax);
        }
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next() {
            if word.contains(':') {
                self.add_clock(word)?;
                continue;
            }
            if let Some((years, months)) = year_month(word) {
                self.add("year", years)?;
                self.add("month", months)?;
                continue;
            }
            let mut chars = word.chars().peekable();
            let number = number(&mut chars)?;
            let attached: String = chars.collect();
            let unit = match (attached.as_str(), words.peek()) {
                ("", None) => "second",
                ("", Some(next)) if next.contains(':') => "day",
                ("", Some(_)) => words.next().unwrap_or_default(),
                (attached, _) => attached,
            };
            self.add(unit, number)?;
        }
        if ago {
            (self.months, self.days, self.micros) = (-self.months, -self.days, -self.micros);
        }
        Ok(())
    }

    /// ISO 8601, without its P.
    fn read_iso(&mut self, text: &str) -> Result<(), Bad> {
        let mut chars = text.chars().peekable();
        let mut in_time = false;
        let mut n_fields = 0;
        while chars.peek().is_some() {
            if chars.next_if_eq(&'t').is_some() {
                in_time = true;
                continue;
            }
            let number = number(&mut chars)?;
            let unit = match (chars.next(), in_time) {
                (Some('y'), false) => "year",
                (Some('m'), false) => "month",
                (Some('w'), false) => "week",
                (Some('d'), false) => "day",
                (Some('h'), true) => "hour",
                (Some('m'), true) => "minute",
                (Some('s'), true) => "second",
                _ => return Err(Bad::Syntax),
            };
            self.add(unit, number)?;
            n_fields += 1;
        }
        if n_fields == 0 { Err(Bad::Syntax) } else { Ok(()) }
    }

    /// `[+-]hh:mm[:ss[.f]]`
    fn add_clock(&mut self, word: &str) -> Result<(), Bad> {
        let (negative, clock) = match word.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, word.strip_prefix('+').unwrap_or(word)),
        };
        let mut parts = clock.split(':');
        let units = ["hour", "minute", "second"];
        for (idx, unit) in units.into_iter().enumerate() {
            let Some(part) = parts.next() else { return if idx == 2 { Ok(()) } else { Err(Bad::Syntax) } };
            let mut chars = part.chars().peekable();
            if !chars.peek().is_some_and(char::is_ascii_digit) {
                return Err(Bad::Syntax);
            }
            let mut number = number(&mut chars)?;
            if chars.next().is_some() || (unit != "second" && number.fraction != 0.0) {
                return Err(Bad::Syntax);
            }
            if unit != "hour" && number.whole >= 60 {
                return Err(Bad::Range);
            }
            if negative {
                number = Number { whole: -number.whole, fraction: -number.fraction };
            }
            self.add(unit, number)?;
        }
        if parts.next().is_some() { Err(Bad::Syntax) } else { Ok(()) }
    }

    fn add(&mut self, unit: &str, number: Number) -> Result<(), Bad> {
        let Number { whole, fraction } = number;
        let micros = |unit_us: i64| {
            let fraction = (fraction * unit_us as f64).round() as i64;
            whole.checked_mul(unit_us).and_then(|us| us.checked_add(fraction)).ok_or(Bad::Range)
        };
        let (mut n_months, mut n_days, mut n_micros) = (0, 0, 0);
        let years = match unit {
            "microsecond" | "microseconds" | "us" | "usec" | "usecs" => {
                n_micros = micros(1)?;
                0
            }
            "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" => {
                n_micros = micros(1000)?;
                0
            }
            "second" | "seconds" | "sec" | "secs" | "s" => {
                n_micros = micros(SECOND_US)?;
                0
            }
            "minute" | "minutes" | "min" | "mins" | "m" => {
                n_micros = micros(60 * SECOND_US)?;
                0
            }
            "hour" | "hours" | "hr" | "hrs" | "h" => {
                n_micros = micros(3600 * SECOND_US)?;
                0
            }
            "day" | "days" | "d" => {
                (n_days, n_micros) = (whole, (fraction * DAY_US as f64).round() as i64);
                0
            }
            "week" | "weeks" | "w" => {
                (n_days, n_micros) = days(whole.checked_mul(7).ok_or(Bad::Range)?, fraction * 7.0);
                0
            }
            "month" | "months" | "mon" | "mons" => {
                n_months = whole;
                (n_days, n_micros) = days(0, fraction * 30.0);
                0
            }
            "year" | "years" | "yr" | "yrs" | "y" => 1,
            "decade" | "decades" | "dec" | "decs" => 10,
            "century" | "centuries" | "cent" | "c" => 100,
            "millennium" | "millennia" | "mil" | "mils" => 1000,
            _ => return Err(Bad::Syntax),
        };
        if years > 0 {
            let fraction = (fraction * 12.0 * years as f64).round() as i64;
            n_months = whole.checked_mul(12 * years).and_then(|n| n.checked_add(fraction)).ok_or(Bad::Range)?;
        }
        for (total, n) in [(&mut self.months, n_months), (&mut self.days, n_days), (&mut self.micros, n_micros)] {
            *total = total.checked_add(n).ok_or(Bad::Range)?;
        }
        Ok(())
    }
}

/// Whole days and the rest as a time.
fn days(whole: i64, more: f64) -> (i64, i64) {
    (whole.saturating_add(more.trunc() as i64), (more.fract() * DAY_US as f64).round() as i64)
}

/// `1-2`: years and months.
fn year_month(word: &str) -> Option<(Number, Number)> {
    let (negative, digits) = word.strip_prefix('-').map_or((false, word), |rest| (true, rest));
    let (years, months) = digits.split_once('-')?;
    let sign = if negative { -1 } else { 1 };
    let part = |text: &str| {
        let value: i64 = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())??;
        Some(Number { whole: sign * value, fraction: 0.0 })
    };
    Some((part(years)?, part(months).filter(|m| m.whole.abs() < 12)?))
}

fn number(chars: &mut Peekable<Chars<'_>>) -> Result<Number, Bad> {
    let negative = match chars.peek() {
        Some('-') => {
            chars.next();
            true
        }
        Some('+') => {
            chars.next();
            false
        }
        _ => false,
    };
    let digits = |chars: &mut Peekable<Chars<'_>>| {
        let mut digits = String::new();
        while let Some(c) = chars.next_if(char::is_ascii_digit) {
            digits.push(c);
        }
        digits
    };
    let whole = digits(chars);
    let fraction = if chars.next_if_eq(&'.').is_some() { digits(chars) } else { String::new() };
    if whole.is_empty() && fraction.is_empty() {
        return Err(Bad::Syntax);
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| Bad::Range)? };
    let fraction: f64 = format!("0.{fraction}0").parse().map_err(|_| Bad::Syntax)?;
    let sign = if negative { -1 } else { 1 };
    Ok(Number { whole: sign * whole, fraction: sign as f64 * fraction })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_shown_as_in_postgresql() {
        let shown = |text| interval_text(parse_interval(text).unwrap());
        assert_eq!(shown("1 mon"), "1 mon");
        assert_eq!(shown("-14 mons +3 days -04:05:06.7"), "-1 years -2 mons +3 days -04:05:06.7");
        assert_eq!(shown("0"), "00:00:00");
        assert_eq!(shown("-1 day 2 hours"), "-1 days +02:00:00");
    }

    #[test]
    fn intervals_are_read_in_postgresqls_forms() {
        let micro = 1_000;
        let hour = 3_600_000_000 * micro;
        for (text, months, days, nanos) in [
            ("1 year 2 months 3 days 04:05:06.7", 14, 3, 14_706_700_000 * micro),
            ("-1 day", 0, -1, 0),
            ("90 minutes", 0, 0, hour + hour / 2),
            ("0", 0, 0, 0),
            ("1.5 days", 0, 1, 12 * hour),
            ("1.5 months", 1, 15, 0),
            ("1-2", 14, 0, 0),
            ("3 04:00", 0, 3, 4 * hour),
            ("2h", 0, 0, 2 * hour),
            ("1 day -01:00", 0, 1, -hour),
            ("@ 2 hours ago", 0, 0, -2 * hour),
            ("P1Y2M3W4DT5H", 14, 25, 5 * hour),
            ("PT-1.5S", 0, 0, -1_500_000 * micro),
        ] {
            let read = parse_interval(text).unwrap();
            assert_eq!((read.months, read.days, read.nanoseconds), (months, days, nanos), "{text}");
        }
        for text in ["", "soon", "1 moon", "day", "1:2:3:4", "p", "pt", "1:", "--1 day"] {
            let state = parse_interval(text).unwrap_err().state();
            assert_eq!(state, SqlState::InvalidDatetimeFormat, "{text}");
        }
        for text in ["99999999999 years", "99999999999999999999 days", "1:60"] {
            let state = parse_interval(text).unwrap_err().state();
            assert_eq!(state, SqlState::IntervalFieldOverflow, "{text}");
        }
    }
}
