//! `to_date` and `to_timestamp`: text read by PostgreSQL's templates (`YYYY-MM-DD HH24:MI:SS`); DataFusion's take those
//! of C.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array, TimestampMicrosecondArray};
use arrow::compute;
use arrow::datatypes::Float64Type;
use chrono::{Days, NaiveDate, NaiveDateTime};
use datafusion::common::Result;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::datetime_input::month_named;
use super::defined::{Definition, Overload, implied};

/// The functions.
pub(super) static ALL: &[Definition] = &[
    Definition {
        name: "to_date",
        resolve: |types| Overload::exact(types, &[SqlType::Text, SqlType::Text], SqlType::Date, to_date),
    },
    Definition {
        name: "to_timestamp",
        resolve: |types| match types {
            [SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_)] => None,
            [seconds] if implied(seconds, &SqlType::Float8) => {
                Some(Overload { args: vec![SqlType::Float8], result: SqlType::Timestamptz, call: from_seconds })
            }
            _ => Overload::exact(types, &[SqlType::Text, SqlType::Text], SqlType::Timestamptz, to_timestamp),
        },
    },
];

fn from_seconds(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let [seconds] = columns else { return Err(external(SqlError::internal("one argument"))) };
    let micros = seconds.as_primitive::<Float64Type>().iter().map(|seconds| {
        let Some(seconds) = seconds else { return Ok(None) };
        let micros = (seconds * 1e6).round_ties_even();
        match micros.abs() < i64::MAX as f64 {
            true => Ok(Some(micros as i64)),
            false => Err(out_of_range(&seconds.to_string())),
        }
    });
    zoned(micros.collect::<Result<_, _>>().map_err(external)?)
}

fn zoned(micros: TimestampMicrosecondArray) -> Result<ArrayRef> {
    Ok(compute::cast(&micros, &SqlType::Timestamptz.data_type())?)
}

fn to_date(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let days = read_rows(columns)?.into_iter().map(|moment| moment.map(|m| m.date().to_epoch_days()));
    Ok(Arc::new(days.collect::<Date32Array>()))
}

fn to_timestamp(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let micros = read_rows(columns)?.into_iter().map(|moment| moment.map(|m| m.and_utc().timestamp_micros()));
    zoned(micros.collect())
}

fn read_rows(columns: &[ArrayRef]) -> Result<Vec<Option<NaiveDateTime>>> {
    let [texts, templates] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let rows = texts.as_string_view().iter().zip(templates.as_string_view()).map(|pair| match pair {
        (Some(text), Some(template)) => read(text, template).map(Some),
        _ => Ok(None),
    });
    rows.collect::<Result<_, _>>().map_err(external)
}

fn out_of_range(text: &str) -> SqlError {
    SqlError::new(SqlState::DatetimeFieldOverflow, format!("date/time field value out of range: \"{text}\""))
}

/// What the digits of a pattern say. The patterns, longer ones before those that they begin with.
const PATTERNS: &[(&str, Part)] = &[
    ("HH24", Part::Number(Field::Hour, 2)),
    ("HH12", Part::Number(Field::Hour12, 2)),
    ("HH", Part::Number(Field::Hour12, 2)),
    ("MI", Part::Number(Field::Minute, 2)),
    ("MONTH", Part::Month),
    ("MON", Part::Month),
    ("MM", Part::Number(Field::Month, 2)),
    ("MS", Part::Fraction(3)),
    ("SSSSS", Part::Number(Field::SecondOfDay, 5)),
    ("SSSS", Part::Number(Field::SecondOfDay, 5)),
    ("SS", Part::Number(Field::Second, 2)),
    ("US", Part::Fraction(6)),
    ("FF1", Part::Fraction(1)),
    ("FF2", Part::Fraction(2)),
    ("FF3", Part::Fraction(3)),
    ("FF4", Part::Fraction(4)),
    ("FF5", Part::Fraction(5)),
    ("FF6", Part::Fraction(6)),
    ("Y,YYY", Part::Thousands),
    ("YYYY", Part::Number(Field::Year, 4)),
    ("YYY", Part::Number(Field::Year, 3)),
    ("YY", Part::Number(Field::Year, 2)),
    ("DDD", Part::Number(Field::DayOfYear, 3)),
    ("DD", Part::Number(Field::Day, 2)),
    ("DAY", Part::Word),
    ("DY", Part::Word),
    ("A.M.", Part::Half),
    ("P.M.", Part::Half),
    ("AM", Part::Half),
    ("PM", Part::Half),
    ("Y", Part::Number(Field::Year, 1)),
    ("Q", Part::Number(Field::Ignored, 1)),
    ("D", Part::Number(Field::Ignored, 1)),
];

/// Patterns that are known and not read.
const UNREAD: &[&str] =
    &["IYYY", "IYY", "IY", "IW", "IDDD", "ID", "WW", "W", "CC", "J", "TZH", "TZM", "TZ", "OF", "BC", "AD", "RM"];

#[derive(Clone, Copy)]
enum Part {
    /// A number of at most so many digits.
    Number(Field, usize),
    /// Digits behind the point of a second, so many of them.
    Fraction(u32),
    /// A year with a comma.
    Thousands,
    /// A month's name.
    Month,
    /// A day's name, which says nothing.
    Word,
    /// Before noon or after.
    Half,
}

#[derive(Clone, Copy)]
enum Field {
    Year,
    Month,
    Day,
    DayOfYear,
    Hour,
    Hour12,
    Minute,
    Second,
    SecondOfDay,
    Ignored,
}

#[derive(Default)]
struct Fields {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    hour: i64,
    is_12: bool,
    is_afternoon: Option<bool>,
    minute: i64,
    second: i64,
    second_of_day: Option<i64>,
    micros: i64,
}

/// Errors: `22007` for a text that is not of the template, `22008` for a field out of range, `0A000` for patterns that
/// are not read.
fn read(text: &str, template: &str) -> Result<NaiveDateTime, SqlError> {
    let mut fields = Fields::default();
    let (mut input, mut rest) = (text, template);
    while let Some(first) = rest.chars().next() {
        if let Some(behind) = without(rest, "FM").or_else(|| without(rest, "FX")) {
            rest = behind;
            continue;
        }
        if let Some(pattern) = UNREAD.iter().find(|pattern| without(rest, pattern).is_some()) {
            return Err(SqlError::unsupported(format!("reading a date with the pattern \"{pattern}\"")));
        }
        let found = PATTERNS.iter().find_map(|(name, part)| Some((*name, *part, without(rest, name)?)));
        if let Some((name, part, behind)) = found {
            rest = behind;
            // Digits end where the next pattern's begin, or where there are no more.
            let is_adjacent = rest.starts_with(|c: char| c.is_ascii_alphanumeric());
            input = fields.read(input.trim_start(), name, part, is_adjacent)?;
            rest = without(rest, "TH").unwrap_or(rest);
            continue;
        }
        if let Some(quoted) = rest.strip_prefix('"') {
            let (skipped, behind) = quoted.split_once('"').unwrap_or((quoted, ""));
            input = skip(input, skipped.chars().count());
            rest = behind;
        } else if first.is_alphanumeric() {
            input = skip(input, 1);
            rest = skip(rest, 1);
        } else {
            let is_separator = |c: char| !c.is_alphanumeric();
            // A sign may belong to the number behind the separators.
            input = input.trim_start_matches(|c| is_separator(c) && !matches!(c, '-' | '+')).trim_start();
            input = input.strip_prefix(['-', '+'].as_slice()).unwrap_or(input).trim_start();
            rest = rest.trim_start_matches(|c| is_separator(c) && c != '"');
        }
    }
    fields.moment().ok_or_else(|| out_of_range(text))
}

fn without<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let start = text.get(..prefix.len())?;
    if start.eq_ignore_ascii_case(prefix) { text.get(prefix.len()..) } else { None }
}

fn skip(text: &str, n_chars: usize) -> &str {
    text.char_indices().nth(n_chars).and_then(|(at, _)| text.get(at..)).unwrap_or_default()
}

impl Fields {
    /// Reads one pattern's value; what is left of the input.
    fn read<'a>(&mut self, input: &'a str, name: &str, part: Part, is_adjacent: bool) -> Result<&'a str, SqlError> {
        let invalid = || {
            let end = input.find(char::is_whitespace).unwrap_or(input.len());
            let message = format!("invalid value \"{}\" for \"{name}\"", input.get(..end).unwrap_or(input));
            SqlError::new(SqlState::InvalidDatetimeFormat, message)
        };
        let digits = |text: &'a str, max: usize| {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()).min(max);
            text.split_at_checked(end).filter(|(digits, _)| !digits.is_empty())
        };
        let (value, rest) = match part {
            Part::Number(..) | Part::Fraction(_) if input.is_empty() => return Ok(input),
            Part::Number(_, width) => {
                let max = if is_adjacent { width } else { usize::MAX };
                let (found, rest) = digits(input, max).ok_or_else(invalid)?;
                (found.parse().map_err(|_| invalid())?, rest)
            }
            Part::Fraction(width) => {
                let (found, rest) =
                    digits(input, if is_adjacent { width as usize } else { usize::MAX }).ok_or_else(invalid)?;
                let six: String = found.chars().chain(std::iter::repeat('0')).take(6).collect();
                self.micros = six.parse().map_err(|_| invalid())?;
                return Ok(rest);
            }
            Part::Thousands => {
                let (thousands, rest) = digits(input, usize::MAX).ok_or_else(invalid)?;
                let (ones, rest) = rest.strip_prefix(',').and_then(|rest| digits(rest, 3)).ok_or_else(invalid)?;
                let year = format!("{thousands}{ones}");
                self.year = Some(year.parse().map_err(|_| invalid())?);
                return Ok(rest);
            }
            Part::Month | Part::Word => {
                let end = input.find(|c: char| !c.is_alphabetic()).unwrap_or(input.len());
                let (word, rest) = input.split_at(end);
                if matches!(part, Part::Month) {
                    self.month = Some(month_named(word).ok_or_else(invalid)?);
                }
                return Ok(rest);
            }
            Part::Half => {
                let halves = [("a.m.", false), ("p.m.", true), ("am", false), ("pm", true)];
                let found = halves.iter().find_map(|(word, after)| Some((*after, without(input, word)?)));
                let (is_afternoon, rest) = found.ok_or_else(invalid)?;
                (self.is_afternoon, self.is_12) = (Some(is_afternoon), true);
                return Ok(rest);
            }
        };
        if let Part::Number(field, width) = part {
            self.set(field, value, input.len() - rest.len(), width);
        }
        Ok(rest)
    }

    fn set(&mut self, field: Field, value: i64, n_digits: usize, width: usize) {
        match field {
            // A short year is the one nearest to 2020.
            Field::Year => {
                let century = match (width.min(n_digits), value) {
                    (4.., _) => 0,
                    (_, 0..70) => 2000,
                    (_, 70..100) => 1900,
                    (_, 100..520) => 2000,
                    (_, 520..1000) => 1000,
                    _ => 0,
                };
                self.year = Some(if width == 4 && n_digits < 4 { value } else { value + century });
            }
            Field::Month => self.month = Some(value),
            Field::Day => self.day = Some(value),
            Field::DayOfYear => self.day_of_year = Some(value),
            Field::Hour => self.hour = value,
            Field::Hour12 => (self.hour, self.is_12) = (value, true),
            Field::Minute => self.minute = value,
            Field::Second => self.second = value,
            Field::SecondOfDay => self.second_of_day = Some(value),
            Field::Ignored => {}
        }
    }

    fn moment(&self) -> Option<NaiveDateTime> {
        let number = |value: i64| u32::try_from(value).ok();
        let year = i32::try_from(self.year.unwrap_or(0)).ok()?;
        // Year 0 is 1 BC, and that is what no year means.
        let first = NaiveDate::from_ymd_opt(year, number(self.month.unwrap_or(1))?, number(self.day.unwrap_or(1))?)?;
        let date = match self.day_of_year {
            Some(day) if self.month.is_none() => {
                let start = NaiveDate::from_ymd_opt(year, 1, 1)?;
                start.checked_add_days(Days::new(u64::try_from(day.checked_sub(1)?).ok()?))?
            }
            _ => first,
        };
        let hour = match (self.is_12, self.is_afternoon) {
            (true, _) if !(1..=12).contains(&self.hour) => return None,
            (true, Some(true)) => self.hour % 12 + 12,
            (true, Some(false)) => self.hour % 12,
            _ => self.hour,
        };
        let (hour, minute, second) = match self.second_of_day {
            Some(second) => (second / 3600, second / 60 % 60, second % 60),
            None => (hour, self.minute, self.second),
        };
        date.and_hms_micro_opt(number(hour)?, number(minute)?, number(second)?, number(self.micros)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_by_templates() {
        let read = |text, template| read(text, template).unwrap().to_string();
        assert_eq!(read("2024-02-09 14:05:06.078", "YYYY-MM-DD HH24:MI:SS.MS"), "2024-02-09 14:05:06.078");
        assert_eq!(read("20240209", "YYYYMMDD"), "2024-02-09 00:00:00");
        assert_eq!(read("9 Feb 24", "DD Mon YY"), "2024-02-09 00:00:00");
        assert_eq!(read("february 9, 1999 2:05 PM", "FMMonth DD, YYYY HH12:MI AM"), "1999-02-09 14:05:00");
        assert_eq!(read("2024/2/9T5", "YYYY-MM-DD\"T\"HH24"), "2024-02-09 05:00:00");
        assert_eq!(read("2024 040", "YYYY DDD"), "2024-02-09 00:00:00");
    }

    #[test]
    fn what_is_not_of_the_template_is_an_error() {
        let state = |text, template| read(text, template).unwrap_err().state();
        assert_eq!(state("2024-xx-09", "YYYY-MM-DD"), SqlState::InvalidDatetimeFormat);
        assert_eq!(state("2024-13-09", "YYYY-MM-DD"), SqlState::DatetimeFieldOverflow);
        assert_eq!(state("13 PM", "HH12 PM"), SqlState::DatetimeFieldOverflow);
        assert_eq!(state("2024", "IYYY"), SqlState::FeatureNotSupported);
    }
}
