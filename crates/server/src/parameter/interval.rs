//! Intervals in text: `1 year 2 mons 3 days 04:05:06.7`, `-1.5 hours`, `1 day ago`, `P1Y2M3DT4H5M6S`.
//!
//! A fraction of a unit goes down to the smaller ones as in PostgreSQL: of years to months, of months to days of which
//! a month has 30, of weeks and days to time.

use arrow::datatypes::IntervalMonthDayNano;

/// Units in months, days or nanoseconds, by their beginnings as PostgreSQL knows them.
#[derive(Clone, Copy)]
enum Unit {
    Months(f64),
    Days(f64),
    Nanos(f64),
}

const SECOND: f64 = 1e9;

fn unit(name: &str) -> Option<Unit> {
    Some(match name {
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Months(12.0),
        "mon" | "mons" | "month" | "months" => Unit::Months(1.0),
        "dec" | "decs" | "decade" | "decades" => Unit::Months(120.0),
        "c" | "cent" | "century" | "centuries" => Unit::Months(1200.0),
        "mil" | "mils" | "millennium" | "millennia" => Unit::Months(12_000.0),
        "w" | "week" | "weeks" => Unit::Days(7.0),
        "d" | "day" | "days" => Unit::Days(1.0),
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Nanos(3600.0 * SECOND),
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Nanos(60.0 * SECOND),
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Nanos(SECOND),
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => Unit::Nanos(1e6),
        "us" | "usec" | "usecs" | "microsecond" | "microseconds" => Unit::Nanos(1e3),
        _ => return None,
    })
}

#[derive(Default)]
struct Sum {
    months: f64,
    days: f64,
    nanos: f64,
}

impl Sum {
    fn add(&mut self, n: f64, unit: Unit) {
        match unit {
            Unit::Months(months) => {
                let months = n * months;
                self.months += months.trunc();
                // What is left of a year is whole months; what is left of a month, days.
                self.add(months.fract() * 30.0, Unit::Days(1.0));
            }
            Unit::Days(days) => {
                let days = n * days;
                self.days += days.trunc();
                self.nanos += (days.fract() * 86_400.0 * 1e6).round() * 1e3;
            }
            Unit::Nanos(nanos) => self.nanos += (n * nanos / 1e3).round() * 1e3,
        }
    }

    fn finish(&self, sign: f64) -> Option<IntervalMonthDayNano> {
        let small = |n: f64| (n.abs() <= f64::from(i32::MAX)).then_some((n * sign) as i32);
        let nanos = (self.nanos.abs() < i64::MAX as f64).then_some((self.nanos * sign) as i64);
        Some(IntervalMonthDayNano::new(small(self.months)?, small(self.days)?, nanos?))
    }
}

/// Reads an interval; None where it is none.
pub(super) fn parse(text: &str) -> Option<IntervalMonthDayNano> {
    let text = text.trim().to_ascii_lowercase();
    if let Some(iso) = text.strip_prefix('p') {
        return iso_8601(iso);
    }
    let text = text.strip_prefix('@').unwrap_or(&text);
    let mut sum = Sum::default();
    let mut sign = 1.0;
    let mut number = None;
    let mut n_parts = 0;
    let mut words = text.split_whitespace().flat_map(split_unit).peekable();
    while let Some(word) = words.next() {
        match (number, word) {
            (None, "ago") if n_parts > 0 && words.peek().is_none() => sign = -1.0,
            (Some(n), name) if unit(name).is_some() => {
                sum.add(n, unit(name)?);
                number = None;
            }
            (_, time) if time.contains(':') => {
                // A number before a time of day is days: `3 04:05`.
                number.take().into_iter().for_each(|n| sum.add(n, Unit::Days(1.0)));
                sum.nanos += clock(time)?;
            }
            (None, digits) => number = Some(decimal(digits)?),
            (Some(_), _) => return None,
        }
        n_parts += 1;
    }
    // A number without a unit is seconds.
    number.into_iter().for_each(|n| sum.add(n, Unit::Nanos(SECOND)));
    (n_parts > 0).then(|| sum.finish(sign)).flatten()
}

/// `5min` in its two parts.
fn split_unit(word: &str) -> impl Iterator<Item = &str> {
    let at = match word.contains(':') {
        true => None,
        false => word.find(|c: char| c.is_ascii_alphabetic()).filter(|at| *at > 0),
    };
    let (first, second) = at.and_then(|at| word.split_at_checked(at)).map_or((word, None), |(a, b)| (a, Some(b)));
    std::iter::once(first).chain(second)
}

fn decimal(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_plain = unsigned.chars().all(|c| c.is_ascii_digit() || c == '.') && unsigned.contains(|c: char| c != '.');
    if is_plain { text.parse().ok() } else { None }
}

/// `04:05:06.7`, `-04:05`, in nanoseconds.
fn clock(text: &str) -> Option<f64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut parts = text.split(':').map(decimal);
    let (hours, minutes) = (parts.next()??, parts.next()??);
    let seconds = parts.next().unwrap_or(Some(0.0))?;
    if parts.next().is_some() || minutes >= 60.0 || seconds >= 61.0 {
        return None;
    }
    Some(sign * ((hours * 3600.0 + minutes * 60.0) * SECOND + (seconds * 1e6).round() * 1e3))
}

/// What follows the P: `1Y2M3W4DT5H6M7.8S`.
fn iso_8601(text: &str) -> Option<IntervalMonthDayNano> {
    let (date, time) = text.split_once('t').map_or((text, None), |(date, time)| (date, Some(time)));
    let mut sum = Sum::default();
    let mut n_parts = 0;
    for (part, is_time) in [(date, false), (time.unwrap_or_default(), true)] {
        let mut rest = part;
        while let Some(at) = rest.find(|c: char| c.is_ascii_alphabetic()) {
            let (digits, tail) = rest.split_at_checked(at)?;
            let (designator, tail) = tail.split_at_checked(1)?;
            let unit = match (designator, is_time) {
                ("y", false) => Unit::Months(12.0),
                ("m", false) => Unit::Months(1.0),
                ("w", false) => Unit::Days(7.0),
                ("d", false) => Unit::Days(1.0),
                ("h", true) => Unit::Nanos(3600.0 * SECOND),
                ("m", true) => Unit::Nanos(60.0 * SECOND),
                ("s", true) => Unit::Nanos(SECOND),
                _ => return None,
            };
            sum.add(decimal(digits)?, unit);
            n_parts += 1;
            rest = tail;
        }
        if !rest.is_empty() {
            return None;
        }
    }
    (n_parts > 0).then(|| sum.finish(1.0)).flatten()
}
