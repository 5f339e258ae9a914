//! What the fields of a date or time say, one after the other.

use std::str::FromStr;

use arrow::array::timezone::Tz;

use super::tokens::{Kind, Token};
use super::words::{Day, Word, meaning};
use super::{Bad, DAY_US, EPOCH_JULIAN, SECOND_US, days_of};
use crate::functions::timezone;

/// Hours that a zone may be away from Greenwich.
const OFFSET_HOURS_MAX: i64 = 15;

enum Zone {
    /// Seconds east of Greenwich.
    Offset(i64),
    Named(Tz),
}

/// A field that only the next one gives a meaning.
#[derive(PartialEq)]
enum Prefix {
    Julian,
    Time,
}

/// What has been read.
#[derive(Default)]
pub(super) struct Fields {
    /// A day that is no date; there may be a time with it.
    pub(super) day: Option<Day>,
    year: Option<i64>,
    /// The year was written with two digits.
    is_short_year: bool,
    month: Option<i64>,
    /// The month was a word.
    is_month_named: bool,
    day_of_month: Option<i64>,
    day_of_year: Option<i64>,
    julian: Option<i64>,
    /// The hour, and the microseconds behind it.
    clock: Option<(i64, i64)>,
    is_afternoon: Option<bool>,
    is_before_christ: Option<bool>,
    zone: Option<Zone>,
}

impl Fields {
    /// Reads all fields. `is_time`: of a time, where a date may stand before it.
    pub(super) fn read(tokens: &[Token<'_>], is_time: bool) -> Result<Fields, Bad> {
        let mut fields = Fields::default();
        let mut prefix = None;
        let is_last_date = tokens.last().is_some_and(|last| last.kind == Kind::Date);
        let is_second_time = tokens.get(1).is_some_and(|second| second.kind == Kind::Time);
        for (idx, token) in tokens.iter().enumerate() {
            // A date before a time only shows on which day a zone has its offset.
            let can_be_date = !is_time || idx == 0 && tokens.len() > 1 && (is_last_date || is_second_time);
            let before = prefix.take();
            match token.kind {
                Kind::Word => prefix = fields.word(token.text, is_time)?,
                Kind::Offset => fields.set_zone(Zone::Offset(offset(token.text)?))?,
                Kind::Time if before != Some(Prefix::Julian) => fields.clock(token.text)?,
                Kind::Number if before == Some(Prefix::Julian) => fields.julian(token.text)?,
                Kind::Date if before.is_none() && can_be_date && !fields.has_date() => fields.date(token.text)?,
                Kind::Date => fields.after_date(token.text)?,
                Kind::Number if before == Some(Prefix::Time) => fields.run_together(token.text, true)?,
                Kind::Number => fields.number(token.text, can_be_date, is_time)?,
                Kind::Time => return Err(Bad::Syntax),
            }
        }
        match prefix {
            Some(_) => Err(Bad::Syntax),
            None => Ok(fields),
        }
    }

    /// Days since 1970-01-01.
    pub(super) fn days(&self) -> Result<i64, Bad> {
        if let Some(julian) = self.julian {
            return Ok(julian - EPOCH_JULIAN);
        }
        let (Some(year), true) = (self.year, self.has_date()) else { return Err(Bad::Syntax) };
        let year = match (self.is_before_christ, year) {
            (_, ..0) => return Err(Bad::Field),
            (Some(true), 0) => return Err(Bad::Field),
            (Some(true), year) => 1 - year,
            (_, 0..70) if self.is_short_year => year + 2000,
            (_, 70..100) if self.is_short_year => year + 1900,
            (_, 0) => return Err(Bad::Field),
            (_, year) => year,
        };
        match (self.day_of_year, self.month, self.day_of_month) {
            (Some(day), ..) => Ok(days_of(year, 1, 1)? + day - 1),
            (None, Some(month), Some(day)) => days_of(year, month, day),
            _ => Err(Bad::Syntax),
        }
    }

    /// Microseconds since midnight; of a day without a time, none.
    pub(super) fn time_of_day(&self) -> Result<i64, Bad> {
        if self.clock.is_none() { self.is_afternoon.map_or(Ok(0), |_| Err(Bad::Syntax)) } else { self.time() }
    }

    /// Microseconds since midnight.
    pub(super) fn time(&self) -> Result<i64, Bad> {
        let (hour, rest) = self.clock.ok_or(Bad::Syntax)?;
        if self.day.is_none() && self.has_date() {
            self.days()?;
        }
        if matches!(self.zone, Some(Zone::Named(_))) && !self.has_date() {
            return Err(Bad::Syntax);
        }
        let hour = match (self.is_afternoon, hour) {
            (Some(_), 13..) => return Err(Bad::Field),
            (Some(false), 12) => 0,
            (Some(true), hour) if hour < 12 => hour + 12,
            _ => hour,
        };
        let time = hour * 3600 * SECOND_US + rest;
        if (0..=DAY_US).contains(&time) { Ok(time) } else { Err(Bad::Field) }
    }

    /// The moment when clocks in the zone, or in `other` where none is named, show this time.
    pub(super) fn in_utc(&self, local: i64, other: Option<Tz>) -> Result<i64, Bad> {
        match &self.zone {
            None => other.map_or(Ok(local), |zone| timezone::moment(local, zone).ok_or(Bad::Field)),
            Some(Zone::Offset(seconds)) => local.checked_sub(seconds * SECOND_US).ok_or(Bad::Field),
            Some(Zone::Named(zone)) => timezone::moment(local, *zone).ok_or(Bad::Field),
        }
    }

    fn has_date(&self) -> bool {
        let has_day = self.day_of_year.is_some() || self.month.is_some() && self.day_of_month.is_some();
        self.julian.is_some() || self.day.is_some() || self.year.is_some() && has_day
    }

    fn set_zone(&mut self, zone: Zone) -> Result<(), Bad> {
        set(&mut self.zone, zone)
    }

    fn word(&mut self, text: &str, is_time: bool) -> Result<Option<Prefix>, Bad> {
        let word = text.split_whitespace().collect::<String>().to_ascii_lowercase();
        match meaning(&word) {
            Some(Word::Ignored) => {}
            Some(Word::Month(_)) if is_time => return Err(Bad::Syntax),
            Some(Word::Month(month)) => self.month_name(month)?,
            Some(Word::Afternoon(is_afternoon)) => set(&mut self.is_afternoon, is_afternoon)?,
            Some(Word::BeforeChrist(is_before)) => set(&mut self.is_before_christ, is_before)?,
            Some(Word::Zone(seconds)) => self.set_zone(Zone::Offset(seconds))?,
            Some(Word::Day(_)) if self.has_date() => return Err(Bad::Syntax),
            Some(Word::Day(day)) => self.day = Some(day),
            Some(Word::Midnight) => {
                set(&mut self.clock, (0, 0))?;
                self.set_zone(Zone::Offset(0))?;
            }
            Some(Word::Julian) => return Ok(Some(Prefix::Julian)),
            Some(Word::Time) if is_time || self.has_date() => return Ok(Some(Prefix::Time)),
            Some(Word::Time | Word::Unit) => return Err(Bad::Syntax),
            None => {
                self.set_zone(Zone::Named(zone_named(text).ok_or(Bad::Syntax)?))?;
            }
        }
        Ok(None)
    }

    fn month_name(&mut self, month: i64) -> Result<(), Bad> {
        // The number before it was the day: `8 Jan 1999`.
        if let (Some(day), None, false) = (self.month, self.day_of_month, self.is_month_named) {
            (self.day_of_month, self.month) = (Some(day), None);
        }
        self.is_month_named = true;
        set(&mut self.month, month)
    }

    /// `1999-01-08`, `08-Jan-1999`
    fn date(&mut self, text: &str) -> Result<(), Bad> {
        let parts = parts(text);
        // A word is the month wherever it stands.
        for part in parts.iter().filter(|part| part.starts_with(|c: char| c.is_ascii_alphabetic())) {
            match meaning(&part.to_ascii_lowercase()) {
                Some(Word::Ignored) => {}
                Some(Word::Month(month)) => {
                    self.is_month_named = true;
                    set(&mut self.month, month)?;
                }
                _ => return Err(Bad::Syntax),
            }
        }
        for part in parts.iter().filter(|part| part.starts_with(|c: char| c.is_ascii_digit())) {
            self.date_part(part)?;
        }
        if self.has_date() { Ok(()) } else { Err(Bad::Syntax) }
    }

    /// One number of a date: which one it is depends on those before it, and on how many digits it has.
    fn date_part(&mut self, digits: &str) -> Result<(), Bad> {
        let value: i64 = digits.parse().map_err(|_| Bad::Field)?;
        let is_long = digits.len() >= 3;
        match (self.year, self.month, self.day_of_month) {
            (Some(_), None, None) if digits.len() == 3 && (1..=366).contains(&value) => {
                set(&mut self.day_of_year, value)
            }
            (None, None, None) if is_long => self.year_of(digits, value),
            (None | Some(_), None, None) | (None, None, Some(_)) => set(&mut self.month, value),
            (None, Some(_), None) if self.is_month_named && is_long => self.year_of(digits, value),
            (Some(year), Some(_), None) if self.is_month_named && is_long && self.is_short_year => {
                // The first number was the day after all.
                (self.day_of_month, self.year, self.is_short_year) = (Some(year), Some(value), false);
                Ok(())
            }
            (_, Some(_), None) => set(&mut self.day_of_month, value),
            (None, Some(_), Some(_)) => self.year_of(digits, value),
            (Some(_), ..) => Err(Bad::Syntax),
        }
    }

    fn year_of(&mut self, digits: &str, year: i64) -> Result<(), Bad> {
        self.is_short_year = digits.len() <= 2;
        set(&mut self.year, year)
    }

    fn number(&mut self, text: &str, can_be_date: bool, is_time: bool) -> Result<(), Bad> {
        let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
        if fraction.is_some() && can_be_date && !self.has_date() {
            return self.date(text);
        }
        let is_long = if is_time { whole.len() > 4 } else { whole.len() >= 6 };
        let is_open = !self.has_date() || self.clock.is_none();
        if fraction.is_some() || is_long && is_open || is_time || self.has_date() {
            return self.run_together(text, is_time);
        }
        self.date_part(whole)
    }

    /// `20040506`, `070809`, `0708`
    fn run_together(&mut self, text: &str, is_time: bool) -> Result<(), Bad> {
        let (digits, fraction) = text.split_once('.').map_or((text, None), |(digits, rest)| (digits, Some(rest)));
        let part = |from: usize, to: usize| -> Result<i64, Bad> {
            digits.get(from..to).ok_or(Bad::Syntax)?.parse().map_err(|_| Bad::Field)
        };
        if fraction.is_none() && !is_time && !self.has_date() {
            let (year, day) = match digits.len() {
                length @ 6.. => (length - 4, length - 2),
                _ => return Err(Bad::Syntax),
            };
            set(&mut self.day_of_month, part(day, digits.len())?)?;
            set(&mut self.month, part(year, day)?)?;
            return self.year_of(digits.get(..year).unwrap_or_default(), part(0, year)?);
        }
        let (hour, minute, second) = match digits.len() {
            6 => (part(0, 2)?, part(2, 4)?, part(4, 6)?),
            4 => (part(0, 2)?, part(2, 4)?, 0),
            _ => return Err(Bad::Syntax),
        };
        self.set_clock(hour, minute, second, fraction)
    }

    /// `07:08[:09[.5]]`; `08:09.5` are minutes and seconds.
    fn clock(&mut self, text: &str) -> Result<(), Bad> {
        let (clock, fraction) = text.split_once('.').map_or((text, None), |(clock, rest)| (clock, Some(rest)));
        let parts: Vec<_> = clock.split(':').collect();
        // Nothing between two colons is a zero.
        let number = |text: &str| -> Result<i64, Bad> {
            if text.is_empty() { Ok(0) } else { text.parse().map_err(|_| Bad::Field) }
        };
        match parts.as_slice() {
            [minute, second] if fraction.is_some() => self.set_clock(0, number(minute)?, number(second)?, fraction),
            [hour, minute] => self.set_clock(number(hour)?, number(minute)?, 0, None),
            [hour, minute, second] => self.set_clock(number(hour)?, number(minute)?, number(second)?, fraction),
            _ => Err(Bad::Syntax),
        }
    }

    fn set_clock(&mut self, hour: i64, minute: i64, second: i64, fraction: Option<&str>) -> Result<(), Bad> {
        if !fraction.is_none_or(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())) {
            return Err(Bad::Syntax);
        }
        let fraction = match fraction {
            None | Some("") => 0.0,
            Some(digits) => format!("0.{digits}").parse::<f64>().map_err(|_| Bad::Syntax)?,
        };
        if !(0..=24).contains(&hour) || !(0..60).contains(&minute) || !(0..=60).contains(&second) {
            return Err(Bad::Field);
        }
        let micros = (minute * 60 + second) * SECOND_US + (fraction * 1e6).round_ties_even() as i64;
        if hour == 24 && micros > 0 {
            return Err(Bad::Field);
        }
        set(&mut self.clock, (hour, micros))
    }

    /// Behind a date something with its separators is a time with an offset (`070809-02`) or the name of a zone.
    fn after_date(&mut self, text: &str) -> Result<(), Bad> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let at = text.find('-').ok_or(Bad::Syntax)?;
            let (time, zone) = text.split_at(at);
            self.set_zone(Zone::Offset(offset(zone)?))?;
            return self.run_together(time, true);
        }
        self.set_zone(Zone::Named(zone_named(text).ok_or_else(|| Bad::Zone(text.to_owned()))?))
    }

    fn julian(&mut self, text: &str) -> Result<(), Bad> {
        if self.has_date() {
            return Err(Bad::Syntax);
        }
        set(&mut self.julian, text.parse().map_err(|_| Bad::Syntax)?)
    }
}

/// A field that is there twice is none.
fn set<T>(slot: &mut Option<T>, value: T) -> Result<(), Bad> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Bad::Syntax),
    }
}

/// The zone of that name, which may be written without its capitals.
fn zone_named(name: &str) -> Option<Tz> {
    let mut capitals = String::with_capacity(name.len());
    for c in name.chars() {
        let is_first = !capitals.ends_with(|before: char| before.is_ascii_alphabetic());
        capitals.push(if is_first { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() });
    }
    Tz::from_str(name).or_else(|_| Tz::from_str(&capitals)).ok()
}

/// The runs of digits and those of letters.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = vec![];
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let is_digit = |c: char| c.is_ascii_digit();
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let end = rest.find(|c: char| is_digit(c) != is_digit(first)).unwrap_or(rest.len());
            let (part, behind) = rest.split_at(end);
            parts.push(part);
            rest = behind;
        }
    }
    parts
}

/// Seconds east of Greenwich: `+2`, `-0330`, `+05:30`, `+02:30:15`.
fn offset(text: &str) -> Result<i64, Bad> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| Bad::Syntax);
    let parts: Vec<_> = digits.split(':').collect();
    let (hour, minute, second) = match parts.as_slice() {
        [one] if one.trim().len() > 2 => (number(one)? / 100, number(one)? % 100, 0),
        [hour] => (number(hour)?, 0, 0),
        [hour, minute] => (number(hour)?, number(minute)?, 0),
        [hour, minute, second] => (number(hour)?, number(minute)?, number(second)?),
        _ => return Err(Bad::Syntax),
    };
    if !(0..=OFFSET_HOURS_MAX).contains(&hour) || !(0..60).contains(&minute) || !(0..60).contains(&second) {
        return Err(Bad::Offset);
    }
    Ok(sign * ((hour * 60 + minute) * 60 + second))
}
