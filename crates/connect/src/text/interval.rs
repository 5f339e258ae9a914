//! Intervals from text: PostgreSQL's `1 year 2 mons -3 days 04:05:06.7 [ago]` and ISO 8601's `P1Y2M3DT4H5M6.7S`.
//!
//! A fraction of a unit goes down to the next smaller ones as in PostgreSQL: a month has 30 days, a day 24 hours.

use arrow::datatypes::IntervalMonthDayNano;

use super::{Read, Wrong, decimal, time_of_day};

const NANO: i128 = 1_000_000_000;
const DAY_NS: i128 = 86_400 * NANO;

/// Months, days and nanoseconds while they are summed.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    months: i128,
    days: i128,
    nanoseconds: i128,
}

/// A unit of time: what one of it is.
#[derive(Clone, Copy)]
enum Unit {
    Months(i128),
    Days(i128),
    Nanoseconds(i128),
}

/// An interval; digits beyond the microsecond are rounded.
pub(crate) fn interval(text: &str) -> Read<IntervalMonthDayNano> {
    let text = text.trim();
    let sum = match text.strip_prefix(['P', 'p']) {
        Some(rest) => iso(rest)?,
        None => verbose(text)?,
    };
    let range = |v: i128| i32::try_from(v).map_err(|_| Wrong::Range);
    let microseconds = (sum.nanoseconds + sum.nanoseconds.signum() * 500) / 1_000;
    let nanoseconds = i64::try_from(microseconds * 1_000).map_err(|_| Wrong::Range)?;
    Ok(crate::column::interval(range(sum.months)?, range(sum.days)?, nanoseconds))
}

fn iso(text: &str) -> Read<Sum> {
    let (date, time) = match text.split_once(['T', 't']) {
        Some((_, "")) => return Err(Wrong::Syntax),
        Some((date, time)) => (date, time),
        None => (text, ""),
    };
    if text.is_empty() {
        return Err(Wrong::Syntax);
    }
    let mut sum = Sum::default();
    for (part, is_time) in [(date, false), (time, true)] {
        for piece in part.split_inclusive(|c: char| c.is_ascii_alphabetic()) {
            let (at, letter) = piece.char_indices().next_back().ok_or(Wrong::Syntax)?;
            let unit = match (letter.to_ascii_uppercase(), is_time) {
                ('Y', false) => Unit::Months(12),
                ('M', false) => Unit::Months(1),
                ('W', false) => Unit::Days(7),
                ('D', false) => Unit::Days(1),
                ('H', true) => Unit::Nanoseconds(3_600 * NANO),
                ('M', true) => Unit::Nanoseconds(60 * NANO),
                ('S', true) => Unit::Nanoseconds(NANO),
                _ => return Err(Wrong::Syntax),
            };
            sum.add(piece.get(..at).unwrap_or_default(), unit)?;
        }
    }
    Ok(sum)
}

fn verbose(text: &str) -> Read<Sum> {
    let mut sum = Sum::default();
    let mut words = text.split_ascii_whitespace().filter(|word| *word != "@").peekable();
    words.peek().ok_or(Wrong::Syntax)?;
    let mut ago = false;
    while let Some(word) = words.next() {
        if ago {
            return Err(Wrong::Syntax);
        }
        if word.eq_ignore_ascii_case("ago") {
            ago = true;
        } else if word.contains(':') {
            sum.add_clock(word)?;
        } else {
            // The unit is the next word, or stands right behind the number: `3d`.
            let end = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
            let (number, unit) = word.split_at_checked(end).ok_or(Wrong::Syntax)?;
            let unit = match unit {
                "" => words.next().unwrap_or("second"),
                unit => unit,
            };
            sum.add(number, named(unit)?)?;
        }
    }
    if ago {
        sum = Sum { months: -sum.months, days: -sum.days, nanoseconds: -sum.nanoseconds };
    }
    Ok(sum)
}

fn named(unit: &str) -> Read<Unit> {
    let unit = unit.to_ascii_lowercase();
    Ok(match unit.strip_suffix('s').filter(|u| u.len() > 1).unwrap_or(&unit) {
        "millennium" | "mil" => Unit::Months(12_000),
        "century" | "centurie" | "c" => Unit::Months(1_200),
        "decade" | "dec" => Unit::Months(120),
        "year" | "yr" | "y" => Unit::Months(12),
        "month" | "mon" => Unit::Months(1),
        "week" | "w" => Unit::Days(7),
        "day" | "d" => Unit::Days(1),
        "hour" | "hr" | "h" => Unit::Nanoseconds(3_600 * NANO),
        "minute" | "min" | "m" => Unit::Nanoseconds(60 * NANO),
        "second" | "sec" | "s" => Unit::Nanoseconds(NANO),
        "millisecond" | "msec" | "ms" => Unit::Nanoseconds(1_000_000),
        "microsecond" | "usec" | "us" => Unit::Nanoseconds(1_000),
        _ => return Err(Wrong::Syntax),
    })
}

impl Sum {
    fn add(&mut self, number: &str, unit: Unit) -> Read<()> {
        let billionths = decimal(number, 28, 9)?;
        match unit {
            Unit::Months(n) => {
                let months = billionths * n;
                self.months += months / NANO;
                // Of a year only whole months count; the rest of a month is days.
                if n == 1 {
                    self.add_days(months % NANO * 30);
                }
            }
            Unit::Days(n) => self.add_days(billionths * n),
            Unit::Nanoseconds(n) => {
                self.nanoseconds += billionths.checked_mul(n).ok_or(Wrong::Range)? / NANO;
            }
        }
        Ok(())
    }

    fn add_days(&mut self, billionths: i128) {
        self.days += billionths / NANO;
        self.nanoseconds += billionths % NANO * DAY_NS / NANO;
    }

    fn add_clock(&mut self, word: &str) -> Read<()> {
        let (sign, clock) = match word.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, word.strip_prefix('+').unwrap_or(word)),
        };
        let (hours, rest) = clock.split_once(':').ok_or(Wrong::Syntax)?;
        if hours.is_empty() || !hours.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Wrong::Syntax);
        }
        let below_hour = time_of_day(&format!("0:{rest}"))?;
        let hours = hours.parse::<u32>().map_err(|_| Wrong::Range)?;
        self.nanoseconds += sign * (i128::from(hours) * 3_600 * NANO + i128::from(below_hour) * 1_000);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_from_text() {
        let check = |text: &str, months: i32, days: i32, seconds: f64| {
            let ns = (seconds * 1e9) as i64;
            assert_eq!(interval(text), Ok(IntervalMonthDayNano::new(months, days, ns)), "{text}");
        };
        check("1 year 2 mons -3 days 04:05:06.5", 14, -3, 14706.5);
        check("1 day ago", 0, -1, 0.0);
        check("1.5 months", 1, 15, 0.0);
        check("1.5 days", 0, 1, 43200.0);
        check("1.5 years", 18, 0, 0.0);
        check("3d 2h", 0, 3, 7200.0);
        check("10", 0, 0, 10.0);
        check("P1Y2M3DT4H5M6.5S", 14, 3, 14706.5);
        check("PT0.5S", 0, 0, 0.5);
        check("P-1W", 0, -7, 0.0);
        check("100:00:00", 0, 0, 360_000.0);
        for text in ["", "P", "PT", "1 fortnight", "ago 1 day", "1:2:3:4", "P1H", "day"] {
            assert_eq!(interval(text), Err(Wrong::Syntax), "{text}");
        }
        assert_eq!(interval("9999999999 years"), Err(Wrong::Range));
    }
}
