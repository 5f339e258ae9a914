//! The values that clients bind, in text or binary, as values of the type that the statement expects.
//!
//! Errors are PostgreSQL's: `22P02` (`invalid input syntax for type integer: "x"`), `22003`, `22007`, `22008` for text,
//! `22P03` for binary that does not fit its type, `22021` for text that is not UTF-8.

mod binary;

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ListArray, new_empty_array};
use arrow::buffer::OffsetBuffer;
use datafusion::common::ScalarValue;
use tidewire_engine::read_value;
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use crate::encode::Format;

/// Reads one value; `None` is NULL. `zone`: of a `timestamptz` in text that names none.
pub fn decode(value: Option<&[u8]>, format: Format, sql_type: &SqlType, zone: Option<Tz>) -> Result<ScalarValue> {
    let Some(bytes) = value else {
        return null(sql_type);
    };
    match format {
        Format::Binary => binary::decode(bytes, sql_type),
        Format::Text => of_text(utf8(bytes)?, sql_type, zone),
    }
}

fn of_text(text: &str, sql_type: &SqlType, zone: Option<Tz>) -> Result<ScalarValue> {
    match sql_type {
        SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Null => Ok(string(text)),
        SqlType::Struct(_) => Err(SqlError::unsupported("input of anonymous composite types")),
        _ => read_value(text, sql_type, zone),
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

#[cfg(test)]
mod tests;
