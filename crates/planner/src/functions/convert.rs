//! Conversions between SQL types, by PostgreSQL's rules where Arrow's differ.
//!
//! Invariant: what comes out satisfies its type: a uuid has 36 lower-case characters, a jsonb is normalized, a
//! varchar(n) has at most n characters.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewBuilder, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int64Array,
    IntervalMonthDayNanoArray, ListArray, StringViewArray, StringViewBuilder,
};
use arrow::compute::{self, CastOptions};
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int32Type};
use chrono::Utc;
use datafusion::common::{Result, ScalarValue};
use serde_json::Value;
use tidewire_connect::jsonb_text;
use tidewire_operators::expr::sql_error;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::datetime_input;
use super::floats::in_range;
use super::interval::parse_interval;
use super::moments;
use super::text;
use crate::parameters::is_found;

/// Errors of a value are errors of the statement, not NULLs.
const STRICT: CastOptions<'static> =
    CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };

/// How values are read.
#[derive(Clone, Copy, Default)]
struct Reading {
    /// Refuse text that is too long, where a cast cuts it off.
    assign: bool,
    /// The zone of a `timestamptz` that names none. None: UTC.
    zone: Option<Tz>,
    /// What `now` is, in microseconds. None: it is refused.
    now_us: Option<i64>,
}

/// The values that text is in a column of type `to`. Errors: `22P02`, `22003`, `22001`, .. for a value that is none.
pub fn read_text(text: &ArrayRef, to: &SqlType) -> Result<ArrayRef, SqlError> {
    convert(text, &SqlType::Text, to, true).map_err(sql_error)
}

/// The value that a client writes as text at this moment. `zone`: of a `timestamptz` that names none.
///
/// Errors: as [`read_text`].
pub fn read_value(text: &str, to: &SqlType, zone: Option<Tz>) -> Result<ScalarValue, SqlError> {
    let text: ArrayRef = Arc::new(StringViewArray::from(vec![text]));
    let reading = Reading { assign: true, zone, now_us: Some(Utc::now().timestamp_micros()) };
    let value = converted(&text, &SqlType::Text, to, reading).and_then(|v| ScalarValue::try_from_array(&v, 0));
    value.map_err(sql_error)
}

/// The values of `input` as `to`. `assign`: refuse text that is too long, where a cast cuts it off.
///
/// Errors: `22P02`, `22003`, `22001`, .. for a value that does not fit.
pub(crate) fn convert(input: &ArrayRef, from: &SqlType, to: &SqlType, assign: bool) -> Result<ArrayRef> {
    converted(input, from, to, Reading { assign, ..Reading::default() })
}

fn converted(input: &ArrayRef, from: &SqlType, to: &SqlType, reading: Reading) -> Result<ArrayRef> {
    let assign = reading.assign;
    let is_text = matches!(from, SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_));
    if is_text && input.len() == 1 && !matches!(to, SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_)) {
        let text = text::of(input, from)?;
        if text.as_string_view().iter().flatten().any(|text| is_found(text, to)) {
            return Ok(arrow::array::new_null_array(&to.data_type(), 1));
        }
    }
    match to {
        to if to == from && input.data_type() == &to.data_type() => Ok(input.clone()),
        SqlType::Text | SqlType::Varchar(_) if matches!(from, SqlType::Char(_)) => {
            // The blanks that pad a char(n) say nothing.
            to_text(text::of(input, from)?.as_string_view(), |value| to_type(to, assign, value.trim_end_matches(' ')))
        }
        SqlType::Text | SqlType::Varchar(None) => text::of(input, from),
        SqlType::Bytea if is_text => to_bytea(text::of(input, from)?.as_string_view()),
        SqlType::Interval if is_text => {
            let text = text::of(input, from)?;
            let values = text.as_string_view().iter().map(|value| value.map(parse_interval).transpose());
            let values: IntervalMonthDayNanoArray = values.collect::<Result<_, _>>().map_err(external)?;
            Ok(Arc::new(values))
        }
        SqlType::Uuid | SqlType::Json | SqlType::Jsonb | SqlType::Varchar(_) | SqlType::Char(_) => {
            to_text(text::of(input, from)?.as_string_view(), |value| to_type(to, assign, value))
        }
        SqlType::Date | SqlType::Time | SqlType::Timestamp | SqlType::Timestamptz if is_text => {
            to_moment(text::of(input, from)?.as_string_view(), to, reading)
        }
        SqlType::Bool if is_text => {
            let text = text::of(input, from)?;
            let values = text.as_string_view().iter().map(|value| value.map(read_boolean).transpose());
            Ok(Arc::new(values.collect::<Result<BooleanArray, _>>().map_err(external)?))
        }
        SqlType::Numeric(_) if is_text => to_numeric(text::of(input, from)?.as_string_view(), &to.data_type()),
        SqlType::Float8 if is_text => {
            let text = text::of(input, from)?;
            let values =
                text.as_string_view().iter().map(|value| value.map(|value| read_double(value, to)).transpose());
            Ok(Arc::new(values.collect::<Result<Float64Array, _>>().map_err(external)?))
        }
        SqlType::Float4 if is_text => {
            let text = text::of(input, from)?;
            let values = text.as_string_view().iter().map(|value| value.map(read_real).transpose());
            Ok(Arc::new(values.collect::<Result<Float32Array, _>>().map_err(external)?))
        }
        SqlType::Float4 if *from == SqlType::Float8 => {
            let reals = input.as_primitive::<Float64Type>().iter().map(|value| value.map(to_real).transpose());
            Ok(Arc::new(reals.collect::<Result<Float32Array, _>>().map_err(external)?))
        }
        SqlType::Array(element) if is_text => to_array(text::of(input, from)?.as_string_view(), element, reading),
        SqlType::Array(element) => match from {
            SqlType::Array(own) if input.data_type() != &to.data_type() || own != element => {
                to_items(input.as_list(), own, element, reading)
            }
            _ => Ok(compute::cast_with_options(input, &to.data_type(), &STRICT)?),
        },
        SqlType::Int2 | SqlType::Int4 | SqlType::Int8 if *from == SqlType::Jsonb => {
            let numbers = of_json(input, to)?;
            let numbers = compute::cast_with_options(&numbers, &SqlType::Numeric(None).data_type(), &STRICT)?;
            to_integer(&numbers, &to.data_type())
        }
        SqlType::Float4 | SqlType::Float8 | SqlType::Numeric(_) | SqlType::Bool if *from == SqlType::Jsonb => {
            converted(&of_json(input, to)?, &SqlType::Text, to, reading)
        }
        SqlType::Int2 | SqlType::Int4 | SqlType::Int8 => to_integer(input, &to.data_type()),
        to => match moments::converted(input, from, to) {
            Some(converted) => converted,
            None => Ok(compute::cast_with_options(input, &to.data_type(), &STRICT)?),
        },
    }
}

/// The numbers, or the booleans, that jsonb is, as text. Errors: `22023` for something else.
fn of_json(documents: &ArrayRef, to: &SqlType) -> Result<ArrayRef> {
    to_text(text::of(documents, &SqlType::Jsonb)?.as_string_view(), |value| json_scalar(value, to))
}

fn json_scalar(json: &str, to: &SqlType) -> Result<String, SqlError> {
    let is_boolean = *to == SqlType::Bool;
    let kind = match json.chars().next() {
        Some('t' | 'f') if is_boolean => return Ok(json.to_owned()),
        Some('0'..='9' | '-') if is_boolean => "numeric",
        Some('0'..='9' | '-') => return Ok(json.to_owned()),
        Some('n') => "null",
        Some('"') => "string",
        Some('{') => "object",
        Some('[') => "array",
        _ => "boolean",
    };
    Err(SqlError::new(SqlState::InvalidParameterValue, format!("cannot cast jsonb {kind} to type {to}")))
}

/// Fractions are rounded: those of floats to even, those of numerics away from zero.
fn to_integer(input: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    let rounded: ArrayRef = match input.data_type() {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let floats = compute::cast(input, &DataType::Float64)?;
            let rounded: Float64Array = compute::unary(floats.as_primitive::<Float64Type>(), f64::round_ties_even);
            Arc::new(rounded)
        }
        DataType::Decimal128(precision, scale) if *scale > 0 => {
            compute::cast_with_options(input, &DataType::Decimal128(*precision, 0), &STRICT)?
        }
        _ => input.clone(),
    };
    Ok(compute::cast_with_options(&rounded, target, &STRICT)?)
}

/// Arrays written as text: `{a,"b c",NULL}`.
fn to_array(input: &StringViewArray, element: &SqlType, reading: Reading) -> Result<ArrayRef> {
    let mut offsets = vec![0_i32];
    let mut valid = vec![];
    let mut items = StringViewBuilder::new();
    let mut n_items = 0_i32;
    for value in input {
        valid.push(value.is_some());
        for item in value
            .map(|value| parsed_items(value, matches!(element, SqlType::Array(_))))
            .transpose()
            .map_err(external)?
            .unwrap_or_default()
        {
            items.append_option(item);
            n_items += 1;
        }
        offsets.push(n_items);
    }
    let items: ArrayRef = Arc::new(items.finish());
    let items = converted(&items, &SqlType::Text, element, reading)?;
    let field = Arc::new(element.field("item", true));
    let offsets = arrow::buffer::OffsetBuffer::new(offsets.into());
    Ok(Arc::new(ListArray::try_new(field, offsets, items, Some(valid.into()))?))
}

/// Arrays of items of another type.
fn to_items(input: &ListArray, own: &SqlType, element: &SqlType, reading: Reading) -> Result<ArrayRef> {
    let items = converted(input.values(), own, element, reading)?;
    let field = Arc::new(element.field("item", true));
    Ok(Arc::new(ListArray::try_new(field, input.offsets().clone(), items, input.nulls().cloned())?))
}

/// The items of an array that is written as text.
pub(crate) fn array_items(value: &str) -> Result<Vec<Option<String>>, SqlError> {
    parsed_items(value, false)
}

/// The same; of an array of arrays each item is an array that is written as text.
fn parsed_items(value: &str, of_arrays: bool) -> Result<Vec<Option<String>>, SqlError> {
    let malformed = || {
        let message = format!("malformed array literal: \"{}\"", shortened(value));
        SqlError::new(SqlState::InvalidTextRepresentation, message)
    };
    let no_array = || malformed().with_detail("Array value must start with \"{\" or dimension information.");
    let inner = value.trim().strip_prefix('{').ok_or_else(no_array)?.strip_suffix('}').ok_or_else(malformed)?;
    let mut items = vec![];
    let mut chars = inner.chars().peekable();
    while chars.peek().is_some() {
        let (mut item, mut quoted) = (String::new(), false);
        let mut inside = false;
        loop {
            match chars.next() {
                Some('"') => {
                    if !quoted {
                        // Blanks before the quote do not belong to the item.
                        item.clear();
                    }
                    (inside, quoted) = (!inside, true);
                }
                // Nor do those behind it.
                Some(c) if quoted && !inside && c.is_whitespace() => {}
                Some('\\') => item.push(chars.next().ok_or_else(malformed)?),
                Some(',') if !inside => break,
                Some('{') if of_arrays && !quoted && item.trim().is_empty() => {
                    item = inner_array(&mut chars).ok_or_else(malformed)?;
                    quoted = true;
                }
                Some('{') if !inside => {
                    let error =
                        SqlError::unsupported("an array of arrays written as text, whose type has one dimension,");
                    return Err(error.with_hint("Write the type with all its dimensions, as integer[][]."));
                }
                Some('}') if !inside => return Err(malformed()),
                Some(c) => item.push(c),
                None if inside => return Err(malformed()),
                None => break,
            }
        }
        let text = if quoted { item } else { item.trim().to_owned() };
        items.push((quoted || !text.eq_ignore_ascii_case("null")).then_some(text));
    }
    Ok(items)
}

/// An array inside of one, whose brace is read, up to its end.
fn inner_array(chars: &mut impl Iterator<Item = char>) -> Option<String> {
    let (mut text, mut depth, mut inside) = (String::from("{"), 1, false);
    while depth > 0 {
        let c = chars.next()?;
        text.push(c);
        match c {
            '\\' => text.push(chars.next()?),
            '"' => inside = !inside,
            '{' if !inside => depth += 1,
            '}' if !inside => depth -= 1,
            _ => {}
        }
    }
    Some(text)
}

fn to_text(input: &StringViewArray, convert: impl Fn(&str) -> Result<String, SqlError>) -> Result<ArrayRef> {
    let mut output = StringViewBuilder::with_capacity(input.len());
    for value in input {
        match value {
            Some(value) => output.append_value(convert(value).map_err(external)?),
            None => output.append_null(),
        }
    }
    Ok(Arc::new(output.finish()))
}

/// Errors: `22P02`; `22003` for a number that no double is close to.
fn read_double(text: &str, target: &SqlType) -> Result<f64, SqlError> {
    let digits = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let value: f64 = digits.parse().map_err(|_| invalid(&target.to_string(), text))?;
    let mantissa = digits.split(['e', 'E']).next().unwrap_or_default();
    let is_zero = !mantissa.contains(|c: char| ('1'..='9').contains(&c));
    let is_number = digits.contains(|c: char| c.is_ascii_digit());
    match is_number && (value.is_infinite() || value == 0.0 && !is_zero) {
        false => Ok(value),
        true => {
            let message = format!("\"{}\" is out of range for type {target}", shortened(digits));
            Err(SqlError::new(SqlState::NumericValueOutOfRange, message))
        }
    }
}

fn read_real(text: &str) -> Result<f32, SqlError> {
    let value = read_double(text, &SqlType::Float4)?;
    // Rounded once, from the digits.
    let real = text.trim_matches(|c: char| c.is_ascii_whitespace()).parse().unwrap_or(value as f32);
    match value.is_finite() && (real.is_infinite() || real == 0.0 && value != 0.0) {
        false => Ok(real),
        true => {
            let message = format!("\"{}\" is out of range for type real", shortened(text.trim()));
            Err(SqlError::new(SqlState::NumericValueOutOfRange, message))
        }
    }
}

fn to_real(value: f64) -> Result<f32, SqlError> {
    let real = value as f32;
    in_range(real.into(), value.is_finite(), value == 0.0 || value.is_infinite())?;
    Ok(real)
}

/// Any beginning of true, false, yes, no, on, off that is not ambiguous, and 1 and 0.
fn read_boolean(text: &str) -> Result<bool, SqlError> {
    let word = text.trim_matches(|c: char| c.is_ascii_whitespace()).to_ascii_lowercase();
    match word.as_str() {
        "1" | "on" => Ok(true),
        "0" | "of" | "off" => Ok(false),
        "" | "o" => Err(invalid("boolean", text)),
        word if "true".starts_with(word) || "yes".starts_with(word) => Ok(true),
        word if "false".starts_with(word) || "no".starts_with(word) => Ok(false),
        _ => Err(invalid("boolean", text)),
    }
}

fn to_numeric(input: &StringViewArray, to: &DataType) -> Result<ArrayRef> {
    let DataType::Decimal128(precision, scale) = to else {
        return Ok(compute::cast_with_options(input, to, &STRICT)?);
    };
    let values = input.iter().map(|value| value.map(|value| read_numeric(value, *precision, *scale)).transpose());
    let values: Decimal128Array = values.collect::<Result<_, _>>().map_err(external)?;
    Ok(Arc::new(values.with_precision_and_scale(*precision, *scale)?))
}

/// `-12.5e3` as a number of units of the scale, rounded half away from zero.
fn read_numeric(text: &str, precision: u8, scale: i8) -> Result<i128, SqlError> {
    let trimmed = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let unsigned = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| invalid("numeric", text))?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = whole.bytes().chain(fraction.bytes());
    if whole.len() + fraction.len() == 0 || !digits.clone().all(|b| b.is_ascii_digit()) {
        return Err(invalid("numeric", text));
    }
    let out_of_range = || {
        let limit = i32::from(precision) - i32::from(scale);
        SqlError::new(SqlState::NumericValueOutOfRange, "numeric field overflow").with_detail(format!(
            "A field with precision {precision}, scale {scale} must round to an absolute value less than 10^{limit}."
        ))
    };
    // How many of the digits count, zeros behind them included.
    let whole = i32::try_from(whole.len()).map_err(|_| out_of_range())?;
    let n_counting = whole.saturating_add(exponent).saturating_add(i32::from(scale));
    let mut units: i128 = 0;
    for _ in 0..n_counting {
        let digit = match digits.next() {
            Some(digit) => digit - b'0',
            // Nothing but zeros, however large the exponent is.
            None if units == 0 => break,
            None => 0,
        };
        let more = units.checked_mul(10).and_then(|units| units.checked_add(i128::from(digit)));
        units = more.ok_or_else(out_of_range)?;
    }
    if n_counting >= 0 && digits.next().is_some_and(|digit| digit >= b'5') {
        units += 1;
    }
    if units >= 10_i128.pow(u32::from(precision)) {
        return Err(out_of_range());
    }
    Ok(if trimmed.starts_with('-') { -units } else { units })
}

fn to_moment(input: &StringViewArray, to: &SqlType, reading: Reading) -> Result<ArrayRef> {
    let Reading { zone, now_us, .. } = reading;
    let read = |value| datetime_input::read_value(value, to, zone, now_us);
    let values = input.iter().map(|value| value.map(read).transpose());
    let values: Int64Array = values.collect::<Result<_, _>>().map_err(external)?;
    match to {
        SqlType::Date => Ok(Arc::new(
            compute::cast(&values, &DataType::Int32)?.as_primitive::<Int32Type>().reinterpret_cast::<Date32Type>(),
        )),
        _ => Ok(compute::cast(&values, &to.data_type())?),
    }
}

fn to_bytea(input: &StringViewArray) -> Result<ArrayRef> {
    let mut output = BinaryViewBuilder::with_capacity(input.len());
    for value in input {
        match value {
            Some(value) => output.append_value(parse_bytea(value).map_err(external)?),
            None => output.append_null(),
        }
    }
    Ok(Arc::new(output.finish()))
}

fn to_type(target: &SqlType, assign: bool, value: &str) -> Result<String, SqlError> {
    match target {
        SqlType::Uuid => parse_uuid(value),
        SqlType::Json => parse_json(value).map(|_| value.to_owned()),
        SqlType::Jsonb => jsonb_text(value).map_err(|error| invalid_json(value, error)),
        SqlType::Varchar(Some(n)) => fit(value, *n, assign, target),
        SqlType::Char(n) => fit(value, *n, assign, target).map(|s| format!("{s:0$}", *n as usize)),
        _ => Ok(value.to_owned()),
    }
}

/// At most `n` characters. An explicit cast truncates; an assignment truncates blanks only.
fn fit(value: &str, n: u32, assign: bool, target: &SqlType) -> Result<String, SqlError> {
    let Some((end, _)) = value.char_indices().nth(n as usize) else { return Ok(value.to_owned()) };
    let (kept, rest) = value.split_at(end);
    if assign && rest.chars().any(|c| c != ' ') {
        let message = format!("value too long for type {target}");
        return Err(SqlError::new(SqlState::StringDataRightTruncation, message));
    }
    Ok(kept.to_owned())
}

fn invalid(sql_type: &str, value: &str) -> SqlError {
    SqlError::new(
        SqlState::InvalidTextRepresentation,
        format!("invalid input syntax for type {sql_type}: \"{}\"", shortened(value)),
    )
}

fn shortened(value: &str) -> String {
    match value.char_indices().nth(100) {
        Some((end, _)) => format!("{}...", value.get(..end).unwrap_or_default()),
        None => value.to_owned(),
    }
}

/// 32 hexadecimal digits, in braces or not, hyphens after any group of four.
fn parse_uuid(value: &str) -> Result<String, SqlError> {
    let trimmed = value.strip_prefix('{').and_then(|v| v.strip_suffix('}')).unwrap_or(value);
    let mut uuid = String::with_capacity(36);
    let mut n_digits = 0;
    let mut after_hyphen = true;
    for c in trimmed.chars() {
        match c {
            '-' if n_digits % 4 == 0 && !after_hyphen => after_hyphen = true,
            c if c.is_ascii_hexdigit() && n_digits < 32 => {
                if matches!(n_digits, 8 | 12 | 16 | 20) {
                    uuid.push('-');
                }
                uuid.push(c.to_ascii_lowercase());
                n_digits += 1;
                after_hyphen = false;
            }
            _ => return Err(invalid("uuid", value)),
        }
    }
    match n_digits == 32 && !after_hyphen {
        true => Ok(uuid),
        false => Err(invalid("uuid", value)),
    }
}

fn parse_json(value: &str) -> Result<Value, SqlError> {
    Value::from_str(value).map_err(|error| invalid_json(value, error))
}

fn invalid_json(value: &str, error: impl Display) -> SqlError {
    SqlError::new(SqlState::InvalidTextRepresentation, "invalid input syntax for type json")
        .with_detail(format!("The value is \"{}\": {error}.", shortened(value)))
}

/// `\x` and hexadecimal digits, or text with `\\` and `\ooo` escapes.
fn parse_bytea(value: &str) -> Result<Vec<u8>, SqlError> {
    match value.strip_prefix("\\x") {
        Some(digits) => parse_hex(digits),
        None => parse_escapes(value),
    }
}

/// Digits in pairs, blanks between them.
pub(super) fn parse_hex(digits: &str) -> Result<Vec<u8>, SqlError> {
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    let mut high = None;
    for c in digits.chars().filter(|c| !c.is_whitespace()) {
        let Some(digit) = c.to_digit(16) else {
            let message = format!("invalid hexadecimal digit: \"{c}\"");
            return Err(SqlError::new(SqlState::InvalidTextRepresentation, message));
        };
        match high.take() {
            None => high = Some(digit),
            Some(high) => bytes.push((high * 16 + digit) as u8),
        }
    }
    match high {
        None => Ok(bytes),
        Some(_) => {
            Err(SqlError::new(SqlState::InvalidTextRepresentation, "invalid hexadecimal data: odd number of digits"))
        }
    }
}

/// Text with `\\` and `\ooo`.
pub(super) fn parse_escapes(value: &str) -> Result<Vec<u8>, SqlError> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match (rest.next(), rest.clone().next()) {
            (Some(b'\\'), _) => bytes.push(b'\\'),
            (Some(a @ b'0'..=b'3'), Some(b @ b'0'..=b'7')) => {
                rest.next();
                let Some(c @ b'0'..=b'7') = rest.next() else { return Err(invalid("bytea", value)) };
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            }
            _ => return Err(invalid("bytea", value)),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_read_in_all_of_postgresqls_forms() {
        let expected = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for text in [
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
        ] {
            assert_eq!(parse_uuid(text).unwrap(), expected);
        }
        for text in ["", "a0eebc99", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1-1", "a0eebc999c0b4ef8bb6d6bb9bd380a11-", "é"]
        {
            assert_eq!(parse_uuid(text).unwrap_err().state(), SqlState::InvalidTextRepresentation, "{text}");
        }
    }

    #[test]
    fn bytea_is_read_in_both_forms() {
        assert_eq!(parse_bytea("\\x00ffA0").unwrap(), [0, 255, 160]);
        assert_eq!(parse_bytea("a\\\\b\\001").unwrap(), *b"a\\b\x01");
        assert!(parse_bytea("\\x0").is_err());
        assert!(parse_bytea("\\9").is_err());
    }

    #[test]
    fn an_assignment_refuses_what_a_cast_truncates() {
        let varchar = SqlType::Varchar(Some(2));
        assert_eq!(to_type(&varchar, false, "éab").unwrap(), "éa");
        assert_eq!(to_type(&varchar, true, "ab  ").unwrap(), "ab");
        assert_eq!(to_type(&varchar, true, "abc").unwrap_err().state(), SqlState::StringDataRightTruncation);
        assert_eq!(to_type(&SqlType::Char(4), true, "ab").unwrap(), "ab  ");
    }

    #[test]
    fn integers_are_rounded_as_in_postgresql() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![2.5, 3.5, -2.7]));
        let rounded = convert(&floats, &SqlType::Float8, &SqlType::Int4, false).unwrap();
        assert_eq!(rounded.as_primitive::<Int32Type>().values(), &[2, 4, -3]);
        let too_large: ArrayRef = Arc::new(Float64Array::from(vec![3e9]));
        assert!(convert(&too_large, &SqlType::Float8, &SqlType::Int4, false).is_err());
    }

    #[test]
    fn arrays_are_read_from_text() {
        let items = array_items(r#"{a, "b c",NULL,"NULL","x\"y"}"#).unwrap();
        let expected = [Some("a"), Some("b c"), None, Some("NULL"), Some("x\"y")];
        assert_eq!(items, expected.map(|item| item.map(str::to_owned)));
        assert_eq!(array_items("{}").unwrap(), Vec::<Option<String>>::new());
        assert!(array_items("a,b").is_err());
        assert!(array_items("{\"a}").is_err());
    }
}
