//! Dates, times and timestamps as PostgreSQL reads them: `2024-02-29 10:00`, `Jan 8 1999`, `08-Jan-1999`,
//! `20040506 070809`, `4:05 PM`, `J2451187`, `infinity`.
//!
//! A text is split into fields, which say what they are by their form, by what has been read before, or by their word.
//! Where a date could be read in two ways, the month comes before the day. Source: PostgreSQL's `datetime.c`, whose
//! errors these are too.

mod fields;
mod tokens;
mod words;

use arrow::array::timezone::Tz;
use tidewire_types::{SqlError, SqlState, SqlType};

use self::fields::Fields;
use self::words::Day;
pub(super) use self::words::month_named;
use super::arithmetic::{DATE_MAX, DATE_MIN};
use super::timezone;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;
/// The Julian day of 1970-01-01.
const EPOCH_JULIAN: i64 = 2_440_588;

/// Why a text is none.
enum Bad {
    Syntax,
    /// A field is not in its range.
    Field,
    /// The offset of a zone is too large.
    Offset,
    Zone(String),
}

/// What is read.
#[derive(Debug, PartialEq)]
pub(crate) enum Moment {
    /// Days, or microseconds, since 1970-01-01; microseconds since midnight.
    At(i64),
    /// So many days from today, and the microseconds behind midnight.
    FromToday(i64, i64),
    /// The present.
    Now,
}

/// Reads a date, time or timestamp.
///
/// Errors: `22007` for what is none, `22008` for one with a field out of range, `22009`, `22023` for an unknown zone.
pub(crate) fn read(text: &str, target: &SqlType) -> Result<Moment, SqlError> {
    if let Some(at) = iso(text, target) {
        return Ok(Moment::At(at));
    }
    placed(read_fields(text, target, None), text, target)
}

/// The error that PostgreSQL has for what is none.
fn placed(read: Result<Moment, Bad>, text: &str, target: &SqlType) -> Result<Moment, SqlError> {
    read.map_err(|bad| match bad {
        Bad::Syntax => {
            let name = match target {
                SqlType::Timestamp => "timestamp",
                SqlType::Timestamptz => "timestamp with time zone",
                SqlType::Time => "time",
                _ => "date",
            };
            SqlError::new(SqlState::InvalidDatetimeFormat, format!("invalid input syntax for type {name}: \"{text}\""))
        }
        Bad::Field => out_of_range("date/time field value", text),
        Bad::Offset => SqlError::new(
            SqlState::InvalidTimeZoneDisplacement,
            format!("time zone displacement out of range: \"{text}\""),
        ),
        Bad::Zone(zone) => {
            SqlError::new(SqlState::InvalidParameterValue, format!("time zone \"{zone}\" not recognized"))
        }
    })
}

/// Reads a value: days of a date, else microseconds. `zone`: of a `timestamptz` that names none; `now_us`: what `now` is.
///
/// Errors: as [`read`]; `0A000` for `now` and its like where `now_us` is none.
pub(super) fn read_value(text: &str, target: &SqlType, zone: Option<Tz>, now_us: Option<i64>) -> Result<i64, SqlError> {
    let is_zoned = *target == SqlType::Timestamptz;
    let moment = match zone.filter(|_| is_zoned) {
        None => read(text, target)?,
        Some(zone) => placed(read_fields(text, target, Some(zone)), text, target)?,
    };
    let now_us = || {
        now_us.ok_or_else(|| {
            SqlError::unsupported(format!("\"{}\" in a value that is not a literal", text.trim()))
                .with_hint("Use current_date or now().")
        })
    };
    // Days and times of day are those of the zone.
    let local = |us: i64| zone.and_then(|zone| timezone::local(us, zone)).unwrap_or(us);
    let of_day = |us: i64| match *target {
        SqlType::Date => us.div_euclid(DAY_US),
        SqlType::Time => us.rem_euclid(DAY_US),
        _ => us,
    };
    match moment {
        Moment::At(at) => Ok(at),
        Moment::Now if is_zoned => now_us(),
        Moment::Now => Ok(of_day(local(now_us()?))),
        Moment::FromToday(days, micros) => {
            let day = local(now_us()?).div_euclid(DAY_US).saturating_add(days);
            let at = day.saturating_mul(DAY_US).saturating_add(micros);
            let in_utc = |zone| timezone::moment(at, zone).ok_or_else(|| out_of_range("date/time field value", text));
            if is_zoned { zone.map_or(Ok(at), in_utc) } else { Ok(of_day(at)) }
        }
    }
}

fn out_of_range(what: &str, text: &str) -> SqlError {
    SqlError::new(SqlState::DatetimeFieldOverflow, format!("{what} out of range: \"{text}\""))
}

/// The one form that most texts have: `2024-02-29`, `2024-02-29 10:00:00.5`, without a zone. None: it is another one.
fn iso(text: &str, target: &SqlType) -> Option<i64> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| {
        let part = bytes.get(from..to)?;
        part.iter().try_fold(0, |n: i64, byte| byte.is_ascii_digit().then(|| n * 10 + i64::from(byte - b'0')))
    };
    let is = |at: usize, expected: u8| bytes.get(at) == Some(&expected);
    if !(is(4, b'-') && is(7, b'-')) {
        return None;
    }
    let days = days_of(digits(0, 4).filter(|year| *year > 0)?, digits(5, 7)?, digits(8, 10)?).ok()?;
    match (target, bytes.len()) {
        (SqlType::Date, 10) => return Some(days),
        (SqlType::Timestamp | SqlType::Timestamptz, 10) => return Some(days * DAY_US),
        (SqlType::Timestamp | SqlType::Timestamptz, 19..=26) => {}
        _ => return None,
    }
    if !(is(10, b' ') && is(13, b':') && is(16, b':')) {
        return None;
    }
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    let fraction = match bytes.len() {
        19 => 0,
        length if is(19, b'.') && length > 20 => digits(20, length)? * 10_i64.pow(u32::try_from(26 - length).ok()?),
        _ => return None,
    };
    let is_time = hour < 24 && minute < 60 && second < 60;
    is_time.then(|| days * DAY_US + ((hour * 60 + minute) * 60 + second) * SECOND_US + fraction)
}

/// `zone`: of a text that names none; UTC.
fn read_fields(text: &str, target: &SqlType, zone: Option<Tz>) -> Result<Moment, Bad> {
    let fields = Fields::read(&tokens::split(text)?, *target == SqlType::Time)?;
    if *target == SqlType::Time {
        return match fields.day {
            Some(Day::Now) => Ok(Moment::Now),
            Some(_) => Err(Bad::Syntax),
            None => fields.time().map(Moment::At),
        };
    }
    let is_date = *target == SqlType::Date;
    let days = match fields.day {
        Some(Day::Now) => return Ok(Moment::Now),
        Some(Day::FromToday(n)) => return Ok(Moment::FromToday(n, fields.time_of_day()?)),
        Some(Day::Infinity) => return Ok(Moment::At(if is_date { i64::from(i32::MAX) } else { i64::MAX })),
        Some(Day::MinusInfinity) => return Ok(Moment::At(if is_date { i64::from(i32::MIN) } else { i64::MIN })),
        Some(Day::Epoch) => return Ok(Moment::At(0)),
        None => fields.days()?,
    };
    if !(i64::from(DATE_MIN)..=i64::from(DATE_MAX)).contains(&days) {
        return Err(Bad::Field);
    }
    let time = fields.time_of_day()?;
    if is_date {
        return Ok(Moment::At(days));
    }
    let local = days.checked_mul(DAY_US).and_then(|us| us.checked_add(time)).ok_or(Bad::Field)?;
    if *target == SqlType::Timestamp {
        return Ok(Moment::At(local));
    }
    fields.in_utc(local, zone).map(Moment::At)
}

/// More than any date has.
const YEARS_MAX: i64 = 10_000_000;

/// Days since 1970-01-01 of a date of the Gregorian calendar; the year before 1 is 0.
fn days_of(year: i64, month: i64, day: i64) -> Result<i64, Bad> {
    if !(-YEARS_MAX..=YEARS_MAX).contains(&year) {
        return Err(Bad::Field);
    }
    let is_leap = year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    let n_days = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return Err(Bad::Field),
    };
    if !(1..=n_days).contains(&day) {
        return Err(Bad::Field);
    }
    // Years that begin with March, so that the day of a leap year is the last one (Hinnant's `days_from_civil`).
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Ok(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, NaiveDate};
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str, target: &SqlType) -> String {
        match (read(text, target), target) {
            (Ok(Moment::At(days)), SqlType::Date) => {
                NaiveDate::from_epoch_days(i32::try_from(days).unwrap()).unwrap().to_string()
            }
            (Ok(Moment::At(micros)), _) => DateTime::from_timestamp_micros(micros).unwrap().naive_utc().to_string(),
            (Ok(other), _) => format!("{other:?}"),
            (Err(error), _) => error.state().code().into(),
        }
    }

    proptest! {
        /// Whatever stands there, it is read or refused.
        #[test]
        fn no_text_panics(parts in prop::collection::vec(prop_oneof![
            "[0-9]{1,20}".boxed(),
            "[-+:./ TJ,a-zé]{1,3}".boxed(),
            prop::sample::select(vec!["bc", "pm", "jan", "allballs", "infinity", "UTC", "j", "9223372036854775807"])
                .prop_map(str::to_owned)
                .boxed(),
        ], 0..9)) {
            for target in [SqlType::Date, SqlType::Time, SqlType::Timestamp, SqlType::Timestamptz] {
                let _ = read(&parts.concat(), &target);
            }
        }
    }

    #[test]
    fn numbers_that_are_too_large_are_refused() {
        let max = i64::MAX;
        for (text, target) in [
            (format!("1:{max}"), SqlType::Time),
            (format!("1:2:{max}"), SqlType::Time),
            (format!("{max}:1"), SqlType::Time),
            (format!("{max}-1-1"), SqlType::Date),
            (format!("J{max}"), SqlType::Timestamp),
            ("9000000-01-01".into(), SqlType::Timestamp),
        ] {
            assert_eq!(shown(&text, &target), "22008", "{text}");
        }
        assert_eq!(shown("2026-01-01 1:2:3+5:-9223372036854775807", &SqlType::Timestamptz), "22009");
    }

    #[test]
    fn dates_are_read_in_postgresqls_forms() {
        for text in [
            "1999-01-08",
            "Jan 8 1999",
            "January 8, 1999",
            "1999.01.08",
            "08-Jan-1999",
            "8 Jan 99",
            "1/8/1999",
            "1999-Jan-08",
            "Jan-08-1999",
            "19990108",
            "990108",
            "1999.008",
            "J2451187",
            "1999-01-08 10:00+02",
            "Fri Jan 08 1999",
        ] {
            assert_eq!(shown(text, &SqlType::Date), "1999-01-08", "{text}");
        }
        assert_eq!(shown("04-05-06", &SqlType::Date), "2006-04-05");
        assert_eq!(shown("March 15, 44 BC", &SqlType::Date), "-0043-03-15");
        for text in ["1999-13-01", "1999-02-29", "18/01/1999", "0000-01-01", "6000000-01-01", "4714-11-23 BC"] {
            assert_eq!(shown(text, &SqlType::Date), "22008", "{text}");
        }
        for text in ["", "x", "2000", "2004-05", "Smarch 5 1999", "1999-01-08 1999-01-09", "99-Jan-Jan"] {
            assert_eq!(shown(text, &SqlType::Date), "22007", "{text}");
        }
        assert_eq!(shown("tomorrow", &SqlType::Date), "FromToday(1, 0)");
    }

    #[test]
    fn timestamps_are_read_in_postgresqls_forms() {
        for text in [
            "2004-05-06 07:08:09",
            "2004-05-06T07:08:09",
            "20040506 070809",
            "20040506T070809",
            "2004-05-06 07:08:09 AM",
            "Thu May 06 07:08:09 2004",
            "07:08:09 2004-05-06",
            "2004-05-06 07:08:09.000000",
            "2004-05-06 7:8:9",
        ] {
            assert_eq!(shown(text, &SqlType::Timestamp), "2004-05-06 07:08:09", "{text}");
        }
        for text in [
            "2004-05-06 05:08:09-2",
            "2004-05-06 09:08:09+0200",
            "2004-05-06 09:08:09 Europe/Berlin",
            "2004-05-06T07:08:09Z",
            "2004-05-06 03:08:09 EDT",
        ] {
            assert_eq!(shown(text, &SqlType::Timestamptz), "2004-05-06 07:08:09", "{text}");
        }
        for text in ["2004-05-06 25:00", "2004-05-06 10:60", "2004-05-06 13:00 PM", "300000-01-01"] {
            assert_eq!(shown(text, &SqlType::Timestamp), "22008", "{text}");
        }
        for text in ["10:00", "2004-05-06 10", "2004-05-06 10:00 xyz", "2024-01-01 10:00:00.5.5"] {
            assert_eq!(shown(text, &SqlType::Timestamp), "22007", "{text}");
        }
        assert_eq!(shown("2004-05-06 04:05:06+20", &SqlType::Timestamptz), "22009");
        assert_eq!(shown("2004-05-06 04:05:06 Nowhere/Land", &SqlType::Timestamptz), "22023");
    }

    #[test]
    fn times_are_read_in_postgresqls_forms() {
        let time = |text| read(text, &SqlType::Time).map_err(|error| error.state().code());
        let clock =
            |hour: i64, minute: i64, second: i64| Ok(Moment::At(((hour * 60 + minute) * 60 + second) * SECOND_US));
        assert_eq!(time("04:05:06"), clock(4, 5, 6));
        assert_eq!(time("040506"), clock(4, 5, 6));
        assert_eq!(time("4:05 pm"), clock(16, 5, 0));
        assert_eq!(time("2003-04-12 04:05:06 America/New_York"), clock(4, 5, 6));
        assert_eq!(time("24:00:00"), clock(24, 0, 0));
        assert_eq!(time("24:00:01"), Err("22008"));
        assert_eq!(time("Jan 8 1999"), Err("22007"));
    }

    #[test]
    fn the_common_form_is_read_as_all_others() {
        for text in ["2024-02-29 23:59:59.123", "0001-01-01 00:00:00", "1969-12-31 00:00:00.5", "9999-12-31"] {
            let at = iso(text, &SqlType::Timestamp).unwrap();
            assert_eq!(read_fields(text, &SqlType::Timestamp, None).ok(), Some(Moment::At(at)), "{text}");
        }
    }
}
