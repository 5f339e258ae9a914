//! Parameters in text.

use arrow::array::timezone::Tz;
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::{Date32Type, Time64MicrosecondType};
use chrono::Utc;
use datafusion::common::ScalarValue;
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use super::{array, interval, json, null, numeric, numeric_shape, scaled, string};
use crate::encode::{parse_uuid, write_uuid};

pub(super) fn decode(text: &str, sql_type: &SqlType, zone: Option<Tz>) -> Result<ScalarValue> {
    let invalid = || syntax_error(text, sql_type);
    Ok(match sql_type {
        SqlType::Bool => ScalarValue::Boolean(Some(boolean(text).ok_or_else(invalid)?)),
        SqlType::Int2 => ScalarValue::Int16(Some(integer(text, sql_type)?)),
        SqlType::Int4 => ScalarValue::Int32(Some(integer(text, sql_type)?)),
        SqlType::Int8 => ScalarValue::Int64(Some(integer(text, sql_type)?)),
        SqlType::Float4 => ScalarValue::Float32(Some(float4(text)?)),
        SqlType::Float8 => ScalarValue::Float64(Some(float8(text)?)),
        SqlType::Numeric(_) => numeric(decimal(text, sql_type)?, sql_type)?,
        SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Null => string(text),
        SqlType::Bytea => ScalarValue::BinaryView(Some(bytea(text).ok_or_else(invalid)?)),
        SqlType::Date => {
            // What follows the day, a time of day, does not count.
            let day = text.trim().split([' ', 'T']).next().unwrap_or_default();
            ScalarValue::Date32(Some(Date32Type::parse(day).ok_or_else(|| datetime_error(text, sql_type))?))
        }
        SqlType::Time => {
            let micros = Time64MicrosecondType::parse(text.trim()).ok_or_else(|| datetime_error(text, sql_type))?;
            ScalarValue::Time64Microsecond(Some(micros))
        }
        SqlType::Timestamp => {
            let parsed = string_to_datetime(&Utc, without_offset(text.trim()));
            let at = parsed.map_err(|_| datetime_error(text, sql_type))?;
            ScalarValue::TimestampMicrosecond(Some(at.timestamp_micros()), None)
        }
        SqlType::Timestamptz => {
            let micros = match zone {
                Some(zone) => string_to_datetime(&zone, text.trim()).map(|at| at.timestamp_micros()),
                None => string_to_datetime(&Utc, text.trim()).map(|at| at.timestamp_micros()),
            };
            let micros = micros.map_err(|_| datetime_error(text, sql_type))?;
            ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()))
        }
        SqlType::Interval => ScalarValue::IntervalMonthDayNano(Some(
            interval::parse(text).ok_or_else(|| datetime_error(text, sql_type))?,
        )),
        SqlType::Uuid => string(write_uuid(parse_uuid(text.trim()).ok_or_else(invalid)?)),
        SqlType::Json | SqlType::Jsonb => json(text, sql_type)?,
        SqlType::Array(element) => list(text, element, zone)?,
        SqlType::Struct(_) => return Err(SqlError::unsupported("input of anonymous composite types")),
    })
}

fn syntax_error(text: &str, sql_type: &SqlType) -> SqlError {
    // PostgreSQL names the type without its modifier.
    let name = match sql_type {
        SqlType::Numeric(_) => "numeric".to_owned(),
        other => other.to_string(),
    };
    SqlError::new(SqlState::InvalidTextRepresentation, format!("invalid input syntax for type {name}: \"{text}\""))
}

/// A date that has the right shape is out of range; else it is no date.
fn datetime_error(text: &str, sql_type: &SqlType) -> SqlError {
    let has_shape = text.len() >= 8
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | ':' | '.' | '+' | ' ' | 'T' | 'Z'));
    if has_shape {
        let message = format!("date/time field value out of range: \"{text}\"");
        return SqlError::new(SqlState::DatetimeFieldOverflow, message);
    }
    let message = format!("invalid input syntax for type {sql_type}: \"{text}\"");
    SqlError::new(SqlState::InvalidDatetimeFormat, message)
}

/// Any beginning of true, false, yes, no, on, off that is not ambiguous, and 1 and 0.
fn boolean(text: &str) -> Option<bool> {
    let word = text.trim().to_ascii_lowercase();
    match word.as_str() {
        "" | "o" => None,
        "1" | "on" => Some(true),
        "0" | "of" | "off" => Some(false),
        w if "true".starts_with(w) || "yes".starts_with(w) => Some(true),
        w if "false".starts_with(w) || "no".starts_with(w) => Some(false),
        _ => None,
    }
}

fn integer<T: TryFrom<i64>>(text: &str, sql_type: &SqlType) -> Result<T> {
    let digits = text.trim();
    let unsigned = digits.strip_prefix(['-', '+']).unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return Err(syntax_error(text, sql_type));
    }
    digits.parse::<i64>().ok().and_then(|n| T::try_from(n).ok()).ok_or_else(|| {
        let message = format!("value \"{text}\" is out of range for type {sql_type}");
        SqlError::new(SqlState::NumericValueOutOfRange, message)
    })
}

fn float8(text: &str) -> Result<f64> {
    let value: f64 = float(text).ok_or_else(|| syntax_error(text, &SqlType::Float8))?;
    match value.is_infinite() && text.contains(|c: char| c.is_ascii_digit()) {
        true => Err(float_range(text, &SqlType::Float8)),
        false => Ok(value),
    }
}

fn float4(text: &str) -> Result<f32> {
    let value: f32 = float(text).ok_or_else(|| syntax_error(text, &SqlType::Float4))?;
    match value.is_infinite() && text.contains(|c: char| c.is_ascii_digit()) {
        true => Err(float_range(text, &SqlType::Float4)),
        false => Ok(value),
    }
}

fn float<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

fn float_range(text: &str, sql_type: &SqlType) -> SqlError {
    SqlError::new(SqlState::NumericValueOutOfRange, format!("\"{text}\" is out of range for type {sql_type}"))
}

/// `-12.5e3` as an integer of the type's scale.
fn decimal(text: &str, sql_type: &SqlType) -> Result<i128> {
    let invalid = || syntax_error(text, sql_type);
    let trimmed = text.trim();
    let unsigned = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().map_err(|_| invalid())?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(invalid());
    }
    let point = i64::try_from(whole.len()).unwrap_or(i64::MAX).saturating_add(exponent);
    // A beginning of zeros would count as digits that a large exponent multiplies.
    if digits.iter().all(|d| *d == b'0') {
        return Ok(0);
    }
    scaled(trimmed.starts_with('-'), &digits, point, numeric_shape(sql_type).1)
        .ok_or_else(|| SqlError::new(SqlState::NumericValueOutOfRange, "numeric field overflow"))
}

/// `\x6869`, or text with octal escapes.
fn bytea(text: &str) -> Option<Vec<u8>> {
    if let Some(hex) = text.strip_prefix("\\x") {
        let digits: Option<Vec<u32>> = hex.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16)).collect();
        let digits = digits?;
        let pairs = digits.chunks(2).map(|pair| match pair {
            [high, low] => u8::try_from(high * 16 + low).ok(),
            _ => None,
        });
        return pairs.collect();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        match tail {
            [b'\\', after @ ..] => {
                bytes.push(b'\\');
                rest = after;
            }
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                bytes.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => return None,
        }
    }
    Some(bytes)
}

/// A `timestamp` ignores the zone that stands in its text, as in PostgreSQL.
fn without_offset(text: &str) -> &str {
    let Some(time) = text.get(10..) else { return text };
    match time.find(['+', '-', 'Z', 'z']) {
        Some(at) => text.get(..10 + at).unwrap_or(text).trim_end(),
        None => text,
    }
}

/// `{1,NULL,"a b"}`, nested for arrays of arrays.
fn list(text: &str, element: &SqlType, zone: Option<Tz>) -> Result<ScalarValue> {
    let mut reader = ListReader { text, rest: text.trim(), element, zone };
    let value = reader.list(element)?;
    match reader.rest.trim().is_empty() {
        true => Ok(value),
        false => Err(reader.malformed()),
    }
}

struct ListReader<'a> {
    text: &'a str,
    rest: &'a str,
    element: &'a SqlType,
    zone: Option<Tz>,
}

impl ListReader<'_> {
    fn malformed(&self) -> SqlError {
        let message = format!("malformed array literal: \"{}\"", self.text);
        SqlError::new(SqlState::InvalidTextRepresentation, message)
            .with_detail(format!("An array of {} looks like {{a,b}}.", self.element))
    }

    fn eat(&mut self, c: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn list(&mut self, element: &SqlType) -> Result<ScalarValue> {
        if !self.eat('{') {
            return Err(self.malformed());
        }
        let mut values = vec![];
        if self.eat('}') {
            return array(values, element);
        }
        loop {
            values.push(match element {
                SqlType::Array(inner) => self.list(inner)?,
                element => self.item(element)?,
            });
            if self.eat('}') {
                return array(values, element);
            }
            if !self.eat(',') {
                return Err(self.malformed());
            }
        }
    }

    fn item(&mut self, element: &SqlType) -> Result<ScalarValue> {
        self.rest = self.rest.trim_start();
        let is_quoted = self.rest.starts_with('"');
        let mut value = String::new();
        let mut chars = self.rest.char_indices();
        if is_quoted {
            chars.next();
        }
        let end = loop {
            match chars.next() {
                None => return Err(self.malformed()),
                Some((_, '\\')) => value.push(chars.next().ok_or_else(|| self.malformed())?.1),
                Some((at, '"')) if is_quoted => break at + 1,
                Some((at, ',' | '}')) if !is_quoted => break at,
                Some((_, '"' | '{')) if !is_quoted => return Err(self.malformed()),
                Some((_, c)) => value.push(c),
            }
        };
        self.rest = self.rest.get(end..).unwrap_or_default();
        if !is_quoted {
            let word = value.trim_end();
            if word.is_empty() {
                return Err(self.malformed());
            }
            if word.eq_ignore_ascii_case("null") {
                return null(element);
            }
            return decode(word, element, self.zone);
        }
        decode(&value, element, self.zone)
    }
}
