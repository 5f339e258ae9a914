//! The values that clients bind, in text or binary, as values of the type that the statement expects.
//!
//! Errors are PostgreSQL's: `22P02` (`invalid input syntax for type integer: "x"`), `22003`, `22007`, `22008` for text,
//! `22P03` for binary that does not fit its type, `22021` for text that is not UTF-8.

mod binary;
mod interval;
mod text;

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ListArray, new_empty_array};
use arrow::buffer::OffsetBuffer;
use datafusion::common::ScalarValue;
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use crate::encode::Format;

/// Reads one value; `None` is NULL. `zone`: of a `timestamptz` in text that names none.
pub fn decode(value: Option<&[u8]>, format: Format, sql_type: &SqlType, zone: Option<Tz>) -> Result<ScalarValue> {
    let Some(bytes) = value else {
        return null(sql_type);
    };
    match format {
        Format::Binary => binary::decode(bytes, sql_type),
        Format::Text => text::decode(utf8(bytes)?, sql_type, zone),
    }
}

fn null(sql_type: &SqlType) -> Result<ScalarValue> {
    ScalarValue::try_from(&sql_type.data_type()).map_err(SqlError::internal)
}

/// Text of a client. Errors: `22021`.
pub fn utf8(bytes: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let bad = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
        SqlError::new(
            SqlState::CharacterNotInRepertoire,
            format!("invalid byte sequence for encoding \"UTF8\": 0x{bad:02x}"),
        )
    })?;
    if text.contains('\0') {
        return Err(SqlError::new(
            SqlState::CharacterNotInRepertoire,
            "invalid byte sequence for encoding \"UTF8\": 0x00",
        ));
    }
    Ok(text)
}

/// An array value of elements of type `element`.
fn array(values: Vec<ScalarValue>, element: &SqlType) -> Result<ScalarValue> {
    let field = Arc::new(element.field("item", true));
    let length = values.len();
    let items = match length {
        0 => new_empty_array(field.data_type()),
        _ => ScalarValue::iter_to_array(values).map_err(SqlError::internal)?,
    };
    let list = ListArray::try_new(field, OffsetBuffer::from_lengths([length]), items, None)?;
    debug_assert_eq!(list.len(), 1);
    Ok(ScalarValue::List(Arc::new(list)))
}

/// A string value of the type that strings have in memory.
fn string(text: impl Into<String>) -> ScalarValue {
    ScalarValue::Utf8View(Some(text.into()))
}

fn numeric(value: i128, sql_type: &SqlType) -> Result<ScalarValue> {
    let (precision, scale) = numeric_shape(sql_type);
    if value.unsigned_abs() >= 10u128.pow(u32::from(precision)) {
        let limit = i32::from(precision) - i32::from(scale);
        return Err(SqlError::new(SqlState::NumericValueOutOfRange, "numeric field overflow").with_detail(format!(
            "A field with precision {precision}, scale {scale} must round to an absolute value less than 10^{limit}."
        )));
    }
    Ok(ScalarValue::Decimal128(Some(value), precision, scale))
}

fn numeric_shape(sql_type: &SqlType) -> (u8, i8) {
    match sql_type.data_type() {
        arrow::datatypes::DataType::Decimal128(precision, scale) => (precision, scale),
        _ => (38, 9),
    }
}

/// A number of decimal digits as an integer of `scale`, rounded half away from zero. `digits` are ASCII; `point` is
/// how many of them stand before the decimal point (may be negative or beyond the end). None: it does not fit.
fn scaled(is_negative: bool, digits: &[u8], point: i64, scale: i8) -> Option<i128> {
    let n_wanted = point.checked_add(i64::from(scale))?;
    let mut value: i128 = 0;
    let taken = usize::try_from(n_wanted).unwrap_or(0);
    for digit in digits.iter().take(taken) {
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    if value != 0 {
        for _ in digits.len()..taken {
            value = value.checked_mul(10)?;
        }
    }
    if n_wanted >= 0 && digits.get(taken).is_some_and(|d| *d >= b'5') {
        value = value.checked_add(1)?;
    }
    Some(if is_negative { -value } else { value })
}

/// JSON text checked, and for `jsonb` brought to PostgreSQL's form.
fn json(text: &str, sql_type: &SqlType) -> Result<ScalarValue> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| {
        SqlError::new(SqlState::InvalidTextRepresentation, format!("invalid input syntax for type {sql_type}"))
            .with_detail(format!("{error}."))
    })?;
    if *sql_type == SqlType::Json {
        return Ok(string(text));
    }
    let mut out = String::with_capacity(text.len());
    write_jsonb(&value, &mut out);
    Ok(string(out))
}

/// Keys by length, then by bytes; a blank after colons and commas.
fn write_jsonb(value: &serde_json::Value, out: &mut String) {
    match value {
        serde_json::Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                out.push_str(if n > 0 { ", " } else { "" });
                write_jsonb(item, out);
            }
            out.push(']');
        }
        serde_json::Value::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by(|(a, _), (b, _)| (a.len(), a.as_bytes()).cmp(&(b.len(), b.as_bytes())));
            out.push('{');
            for (n, (key, item)) in entries.into_iter().enumerate() {
                out.push_str(if n > 0 { ", " } else { "" });
                out.push_str(&serde_json::Value::String(key.clone()).to_string());
                out.push_str(": ");
                write_jsonb(item, out);
            }
            out.push('}');
        }
        leaf => out.push_str(&leaf.to_string()),
    }
}

#[cfg(test)]
mod tests;
