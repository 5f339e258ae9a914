//! Single bytes and bits of a bytea: `get_byte`, `set_byte`, `get_bit`, `set_bit`, `bit_count`; `convert_to`; and how long
//! bytes and texts are.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryViewArray, Int32Array, Int64Array};
use arrow::datatypes::{Int32Type, Int64Type};
use datafusion::common::{DataFusionError, Result};
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::defined::{Call, Definition, Overload};

const BYTEA: SqlType = SqlType::Bytea;

/// The functions.
pub(super) static ALL: &[Definition] = &[
    Definition {
        name: "length",
        resolve: |types| of_bytes(types, |c, _| lengths(c, |text| text.chars().count(), <[u8]>::len)),
    },
    Definition {
        name: "octet_length",
        resolve: |types| match types {
            // The blanks of a char(n) belong to its bytes.
            [SqlType::Char(_)] => Overload::of(types, SqlType::Int4, |c, _| lengths(c, str::len, <[u8]>::len)),
            _ => of_bytes(types, |c, _| lengths(c, str::len, <[u8]>::len)),
        },
    },
    Definition {
        name: "bit_length",
        resolve: |types| of_bytes(types, |c, _| lengths(c, |text| text.len() * 8, |bytes| bytes.len() * 8)),
    },
    Definition {
        name: "get_byte",
        resolve: |types| Overload::exact(types, &[BYTEA, SqlType::Int8], SqlType::Int4, |c, _| read(c, byte)),
    },
    Definition {
        name: "get_bit",
        resolve: |types| Overload::exact(types, &[BYTEA, SqlType::Int8], SqlType::Int4, |c, _| read(c, bit)),
    },
    Definition {
        name: "set_byte",
        resolve: |types| {
            Overload::exact(types, &[BYTEA, SqlType::Int8, SqlType::Int4], BYTEA, |c, _| write(c, with_byte))
        },
    },
    Definition {
        name: "set_bit",
        resolve: |types| {
            Overload::exact(types, &[BYTEA, SqlType::Int8, SqlType::Int4], BYTEA, |c, _| write(c, with_bit))
        },
    },
    Definition {
        name: "bit_count",
        resolve: |types| Overload::exact(types, &[BYTEA], SqlType::Int8, |c, _| bit_counts(c)),
    },
    Definition {
        name: "convert_to",
        resolve: |types| Overload::exact(types, &[SqlType::Text, SqlType::Text], BYTEA, |c, _| encoded(c)),
    },
];

/// The overload for a bytea or a text.
fn of_bytes(types: &[SqlType], call: Call) -> Option<Overload> {
    match types {
        [SqlType::Bytea] => Overload::of(types, SqlType::Int4, call),
        _ => Overload::exact(types, &[SqlType::Text], SqlType::Int4, call),
    }
}

fn lengths(columns: &[ArrayRef], of_text: fn(&str) -> usize, of_bytes: fn(&[u8]) -> usize) -> Result<ArrayRef> {
    let [values] = columns else { return Err(missing()) };
    let length = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
    let lengths: Int32Array = match values.as_binary_view_opt() {
        Some(bytes) => bytes.iter().map(|bytes| bytes.map(of_bytes).map(length)).collect(),
        None => values.as_string_view().iter().map(|text| text.map(of_text).map(length)).collect(),
    };
    Ok(Arc::new(lengths))
}

fn missing() -> DataFusionError {
    external(SqlError::internal("too few arguments"))
}

fn read(columns: &[ArrayRef], of: impl Fn(&[u8], i64) -> Result<i32, SqlError>) -> Result<ArrayRef> {
    let [bytes, indices] = columns else { return Err(missing()) };
    let rows = bytes.as_binary_view().iter().zip(indices.as_primitive::<Int64Type>());
    let values = rows.map(|(bytes, idx)| bytes.zip(idx).map(|(bytes, idx)| of(bytes, idx)).transpose());
    Ok(Arc::new(values.collect::<Result<Int32Array, _>>().map_err(external)?))
}

fn write(columns: &[ArrayRef], of: impl Fn(&mut [u8], i64, i32) -> Result<(), SqlError>) -> Result<ArrayRef> {
    let [bytes, indices, values] = columns else { return Err(missing()) };
    let rows = bytes.as_binary_view().iter().zip(indices.as_primitive::<Int64Type>());
    let rows = rows.zip(values.as_primitive::<Int32Type>()).map(|row| {
        let ((Some(bytes), Some(idx)), Some(value)) = row else { return Ok(None) };
        let mut bytes = bytes.to_vec();
        of(&mut bytes, idx, value).map(|()| Some(bytes))
    });
    Ok(Arc::new(rows.collect::<Result<BinaryViewArray, _>>().map_err(external)?))
}

/// Errors: `2202E`.
fn place(idx: i64, len: usize) -> Result<usize, SqlError> {
    usize::try_from(idx).ok().filter(|idx| *idx < len).ok_or_else(|| {
        let message = format!("index {idx} out of valid range, 0..{}", len as i64 - 1);
        SqlError::new(SqlState::ArraySubscriptError, message)
    })
}

fn byte(bytes: &[u8], idx: i64) -> Result<i32, SqlError> {
    let at = place(idx, bytes.len())?;
    Ok(bytes.get(at).copied().unwrap_or_default().into())
}

/// The lowest bit of a byte comes first.
fn bit(bytes: &[u8], idx: i64) -> Result<i32, SqlError> {
    let at = place(idx, bytes.len() * 8)?;
    let byte = bytes.get(at / 8).copied().unwrap_or_default();
    Ok(i32::from(byte >> (at % 8) & 1))
}

fn with_byte(bytes: &mut [u8], idx: i64, value: i32) -> Result<(), SqlError> {
    let at = place(idx, bytes.len())?;
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value as u8;
    }
    Ok(())
}

fn with_bit(bytes: &mut [u8], idx: i64, value: i32) -> Result<(), SqlError> {
    let at = place(idx, bytes.len() * 8)?;
    if !matches!(value, 0 | 1) {
        return Err(SqlError::new(SqlState::InvalidParameterValue, "new bit must be 0 or 1"));
    }
    if let Some(byte) = bytes.get_mut(at / 8) {
        *byte = *byte & !(1 << (at % 8)) | (value as u8) << (at % 8);
    }
    Ok(())
}

fn bit_counts(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [bytes] = columns else { return Err(missing()) };
    let count = |bytes: &[u8]| bytes.iter().map(|byte| i64::from(byte.count_ones())).sum::<i64>();
    Ok(Arc::new(bytes.as_binary_view().iter().map(|bytes| bytes.map(count)).collect::<Int64Array>()))
}

/// Errors: `0A000` for an encoding other than UTF8.
fn encoded(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [texts, encodings] = columns else { return Err(missing()) };
    let rows = texts.as_string_view().iter().zip(encodings.as_string_view()).map(|row| match row {
        (Some(text), Some(encoding)) if super::replaced::is_utf8(encoding) => Ok(Some(text.as_bytes())),
        (Some(_), Some(encoding)) => {
            Err(external(SqlError::unsupported(format!("convert_to with encoding \"{encoding}\""))))
        }
        _ => Ok(None),
    });
    Ok(Arc::new(rows.collect::<Result<BinaryViewArray>>()?))
}
