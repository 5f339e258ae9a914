//! Dates, times and timestamps from ISO 8601 text and from numbers.
//!
//! Text: `2026-01-31`, then `T` or a blank, `12:34[:56[.789]]`, then `Z`, `+02`, `+0200`, `+02:00`. Digits beyond the
//! microsecond are rounded. Like PostgreSQL, `timestamp` keeps the time on the wall and does not look at an offset;
//! `timestamptz` applies it, and takes a time without one as UTC.
//! Days from dates: Howard Hinnant, "chrono-compatible low-level date algorithms".

use super::{Read, Wrong};

/// Microseconds of a day.
pub(crate) const DAY_US: i64 = 86_400_000_000;
const SECOND_US: i64 = 1_000_000;

/// What an offset in a text does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offset {
    /// Nothing: `timestamp`.
    Ignored,
    /// The time is made UTC: `timestamptz`.
    Applied,
}

/// What a number means where a time is expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EpochUnit {
    /// By its size: below 10^11 seconds (until the year 5138), below 10^14 milliseconds, below 10^17 microseconds, else
    /// nanoseconds.
    #[default]
    Auto,
    Second,
    Milli,
    Micro,
    Nano,
}

impl EpochUnit {
    pub(crate) fn read(name: &str) -> Option<EpochUnit> {
        Some(match name.to_ascii_lowercase().as_str() {
            "auto" => EpochUnit::Auto,
            "s" | "second" | "seconds" => EpochUnit::Second,
            "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => EpochUnit::Milli,
            "us" | "micro" | "micros" | "microsecond" | "microseconds" => EpochUnit::Micro,
            "ns" | "nano" | "nanos" | "nanosecond" | "nanoseconds" => EpochUnit::Nano,
            _ => return None,
        })
    }

    /// How many of the unit a second has; `limits` are the sizes where seconds, milliseconds, microseconds end.
    fn per_second(self, size: u128, limits: [u128; 3]) -> i128 {
        let [seconds, millis, micros] = limits;
        match self {
            EpochUnit::Second => 1,
            EpochUnit::Milli => 1_000,
            EpochUnit::Micro => 1_000_000,
            EpochUnit::Nano => 1_000_000_000,
            EpochUnit::Auto if size < seconds => 1,
            EpochUnit::Auto if size < millis => 1_000,
            EpochUnit::Auto if size < micros => 1_000_000,
            EpochUnit::Auto => 1_000_000_000,
        }
    }
}

/// Microseconds since 1970-01-01 from a number; a fraction counts.
pub(crate) fn timestamp_of_number(number: &str, unit: EpochUnit) -> Read<i64> {
    const LIMITS: [u128; 3] = [100_000_000_000, 100_000_000_000_000, 100_000_000_000_000_000];
    microseconds(number, unit, LIMITS)
}

/// Microseconds since midnight from a number. `Auto`: each unit as long as it stays within a day.
pub(crate) fn time_of_number(number: &str, unit: EpochUnit) -> Read<i64> {
    const LIMITS: [u128; 3] = [86_400, 86_400_000, 86_400_000_000];
    let us = microseconds(number, unit, LIMITS)?;
    if (0..=DAY_US).contains(&us) { Ok(us) } else { Err(Wrong::Range) }
}

/// Days since 1970-01-01 from a number: days where it is below 10^7 and no unit is set, else the day of that instant.
pub(crate) fn date_of_number(number: &str, unit: EpochUnit) -> Read<i32> {
    const DAYS_MAX: i64 = 10_000_000;
    match super::integer(number) {
        Ok(days) if unit == EpochUnit::Auto && days.abs() < DAYS_MAX => Ok(days as i32),
        _ => i32::try_from(timestamp_of_number(number, unit)?.div_euclid(DAY_US)).map_err(|_| Wrong::Range),
    }
}

fn microseconds(number: &str, unit: EpochUnit, limits: [u128; 3]) -> Read<i64> {
    const BILLION: i128 = 1_000_000_000;
    let billionths = super::decimal(number, 38, 9)?;
    let per_second = unit.per_second((billionths / BILLION).unsigned_abs(), limits);
    // Of billionths of the unit, this many are a microsecond.
    let divisor = per_second * 1_000;
    let half = if billionths < 0 { -divisor / 2 } else { divisor / 2 };
    i64::try_from((billionths + half) / divisor).map_err(|_| Wrong::Range)
}

/// Days since 1970-01-01. A time behind the date is read and left out, as PostgreSQL does.
pub(crate) fn date(text: &str) -> Read<i32> {
    let mut scan = Scan(text.trim().as_bytes());
    let days = scan.date()?;
    if !scan.0.is_empty() {
        scan.separator()?;
        scan.time()?;
        scan.offset()?;
    }
    scan.end()?;
    i32::try_from(days).map_err(|_| Wrong::Range)
}

/// Microseconds since midnight; an offset is read and left out.
pub(crate) fn time_of_day(text: &str) -> Read<i64> {
    let mut scan = Scan(text.trim().as_bytes());
    let us = scan.time()?;
    scan.offset()?;
    scan.end()?;
    Ok(us)
}

/// Microseconds since 1970-01-01.
pub(crate) fn timestamp(text: &str, offset: Offset) -> Read<i64> {
    let mut scan = Scan(text.trim().as_bytes());
    let days = scan.date()?;
    let (mut us, mut offset_us) = (0, 0);
    if !scan.0.is_empty() {
        scan.separator()?;
        us = scan.time()?;
        offset_us = scan.offset()?;
    }
    scan.end()?;
    let applied = if offset == Offset::Applied { offset_us } else { 0 };
    days.checked_mul(DAY_US).and_then(|d| d.checked_add(us - applied)).ok_or(Wrong::Range)
}

/// What is left to read.
struct Scan<'a>(&'a [u8]);

impl Scan<'_> {
    fn eat(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, byte: u8) -> Read<()> {
        if self.eat(byte) { Ok(()) } else { Err(Wrong::Syntax) }
    }

    fn end(&self) -> Read<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Wrong::Syntax) }
    }

    /// A number of `min` to `max` digits.
    fn digits(&mut self, min: usize, max: usize) -> Read<i64> {
        let mut value = 0;
        let mut n = 0;
        while n < max
            && let Some((digit @ b'0'..=b'9', rest)) = self.0.split_first()
        {
            value = value * 10 + i64::from(digit - b'0');
            self.0 = rest;
            n += 1;
        }
        if n < min { Err(Wrong::Syntax) } else { Ok(value) }
    }

    /// Two digits that may not be more than `max`.
    fn two(&mut self, max: i64) -> Read<i64> {
        let value = self.digits(1, 2)?;
        if value > max { Err(Wrong::Range) } else { Ok(value) }
    }

    /// `y-m-d`: days since 1970-01-01.
    fn date(&mut self) -> Read<i64> {
        let year = self.digits(4, 6)?;
        self.expect(b'-')?;
        let month = self.digits(1, 2)?;
        self.expect(b'-')?;
        let day = self.digits(1, 2)?;
        if year == 0 || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return Err(Wrong::Range);
        }
        Ok(days_from_civil(year, month, day))
    }

    /// The `T` or blank between date and time.
    fn separator(&mut self) -> Read<()> {
        if self.eat(b'T') || self.eat(b't') || self.eat(b' ') { Ok(()) } else { Err(Wrong::Syntax) }
    }

    /// `h:m[:s[.fraction]]` in microseconds. 24:00 and the second 60 are times, as in PostgreSQL.
    fn time(&mut self) -> Read<i64> {
        let hour = self.two(24)?;
        self.expect(b':')?;
        let minute = self.two(59)?;
        let mut us = (hour * 60 + minute) * 60 * SECOND_US;
        if self.eat(b':') {
            us += self.two(60)? * SECOND_US;
            if self.eat(b'.') || self.eat(b',') {
                us += self.fraction()?;
            }
        }
        if us > DAY_US { Err(Wrong::Range) } else { Ok(us) }
    }

    /// Digits behind the point, in microseconds, rounded.
    fn fraction(&mut self) -> Read<i64> {
        let n_before = self.0.len();
        let mut us = self.digits(1, 6)?;
        for _ in (n_before - self.0.len())..6 {
            us *= 10;
        }
        if let Some(b'5'..=b'9') = self.0.first() {
            us += 1;
        }
        while let Some((b'0'..=b'9', rest)) = self.0.split_first() {
            self.0 = rest;
        }
        Ok(us)
    }

    /// `Z` or `+hh[[:]mm[:ss]]`, or nothing, in microseconds east of UTC.
    fn offset(&mut self) -> Read<i64> {
        while self.eat(b' ') {}
        if self.eat(b'Z') || self.eat(b'z') {
            return Ok(0);
        }
        let sign = match self.0.first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Ok(0),
        };
        self.0 = self.0.get(1..).unwrap_or_default();
        let hours = self.two(15)?;
        let (mut minutes, mut seconds) = (0, 0);
        if self.eat(b':') || !self.0.is_empty() {
            minutes = self.two(59)?;
            if self.eat(b':') {
                seconds = self.two(59)?;
            }
        }
        Ok(sign * ((hours * 60 + minutes) * 60 + seconds) * SECOND_US)
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, NaiveDate};
    use proptest::prelude::*;

    use super::*;

    fn utc(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    #[test]
    fn timestamps_from_text() {
        let tz = |text| timestamp(text, Offset::Applied);
        let expected = utc("2026-02-28T23:59:59.123457Z");
        assert_eq!(tz("2026-02-28T23:59:59.123457Z"), Ok(expected));
        assert_eq!(tz("2026-02-28 23:59:59.1234567"), Ok(expected));
        assert_eq!(tz("2026-03-01T01:59:59.123457+02"), Ok(expected));
        assert_eq!(tz("2026-03-01T01:59:59.123457 +0200"), Ok(expected));
        assert_eq!(tz("2026-02-28T18:29:59.123457-05:30"), Ok(expected));
        assert_eq!(timestamp("2026-02-28T23:59:59.123457+05:30", Offset::Ignored), Ok(expected));
        assert_eq!(tz("2026-02-28"), Ok(utc("2026-02-28T00:00:00Z")));
        assert_eq!(tz("2026-02-28T24:00"), Ok(utc("2026-03-01T00:00:00Z")));
        assert_eq!(tz("2026-02-28T23:59:60"), Ok(utc("2026-03-01T00:00:00Z")));
        assert_eq!(tz("2026-02-29"), Err(Wrong::Range));
        assert_eq!(tz("2026-02-28T25:00:00"), Err(Wrong::Range));
        assert_eq!(tz("2026-02-28T"), Err(Wrong::Syntax));
        assert_eq!(tz("2026-02-28T10:00:00+"), Err(Wrong::Syntax));
        assert_eq!(tz("28.2.2026"), Err(Wrong::Syntax));
        assert_eq!(date("2026-03-01T10:00"), Ok((utc("2026-03-01T00:00:00Z") / DAY_US) as i32));
        assert_eq!(time_of_day("07:08:09.5"), Ok(25_689_500_000));
    }

    #[test]
    fn times_from_numbers() {
        let expected = utc("2026-11-22T17:00:00.5Z");
        for number in ["1795366800.5", "1795366800500", "1795366800500000", "1795366800500000000", "17953668005e-1"] {
            assert_eq!(timestamp_of_number(number, EpochUnit::Auto), Ok(expected), "{number}");
        }
        assert_eq!(timestamp_of_number("1500", EpochUnit::Milli), Ok(1_500_000));
        assert_eq!(timestamp_of_number("-1500", EpochUnit::Nano), Ok(-2));
        assert_eq!(timestamp_of_number("1e30", EpochUnit::Auto), Err(Wrong::Range));
        assert_eq!(date_of_number("20000", EpochUnit::Auto), Ok(20_000));
        assert_eq!(date_of_number("1795366800500", EpochUnit::Auto), Ok(20_779));
        assert_eq!(time_of_number("3600", EpochUnit::Auto), Ok(3_600_000_000));
        assert_eq!(time_of_number("3600000", EpochUnit::Auto), Ok(3_600_000_000));
        assert_eq!(time_of_number("3600000000", EpochUnit::Auto), Ok(3_600_000_000));
        assert_eq!(time_of_number("90000", EpochUnit::Second), Err(Wrong::Range));
    }

    proptest! {
        #[test]
        fn dates_are_those_of_chrono(days in -700_000..2_000_000i32) {
            let day = NaiveDate::from_epoch_days(days).unwrap();
            prop_assume!((1..=9999).contains(&chrono::Datelike::year(&day)));
            prop_assert_eq!(date(&day.format("%Y-%m-%d").to_string()), Ok(days));
        }
    }
}
