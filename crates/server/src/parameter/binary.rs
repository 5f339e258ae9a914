//! Parameters in binary.

use arrow::datatypes::IntervalMonthDayNano;
use bytes::Buf;
use datafusion::common::ScalarValue;
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use super::{array, null, of_text, string, utf8};
use crate::encode::{date_from_pg, timestamp_from_pg, write_uuid};

pub(super) fn decode(bytes: &[u8], sql_type: &SqlType) -> Result<ScalarValue> {
    Ok(match sql_type {
        SqlType::Bool => ScalarValue::Boolean(Some(fixed::<1>(bytes)? != [0])),
        SqlType::Int2 => ScalarValue::Int16(Some(i16::from_be_bytes(fixed(bytes)?))),
        SqlType::Int4 => ScalarValue::Int32(Some(i32::from_be_bytes(fixed(bytes)?))),
        SqlType::Int8 => ScalarValue::Int64(Some(int8(bytes)?)),
        SqlType::Float4 => ScalarValue::Float32(Some(f32::from_be_bytes(fixed(bytes)?))),
        SqlType::Float8 => ScalarValue::Float64(Some(f64::from_be_bytes(fixed(bytes)?))),
        SqlType::Numeric(_) => of_text(&decimal(bytes)?, sql_type, None)?,
        SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Null => string(utf8(bytes)?),
        SqlType::Bytea => ScalarValue::BinaryView(Some(bytes.to_vec())),
        SqlType::Date => ScalarValue::Date32(Some(date_from_pg(i32::from_be_bytes(fixed(bytes)?)))),
        SqlType::Time => ScalarValue::Time64Microsecond(Some(i64::from_be_bytes(fixed(bytes)?))),
        SqlType::Timestamp => {
            ScalarValue::TimestampMicrosecond(Some(timestamp_from_pg(i64::from_be_bytes(fixed(bytes)?))), None)
        }
        SqlType::Timestamptz => ScalarValue::TimestampMicrosecond(
            Some(timestamp_from_pg(i64::from_be_bytes(fixed(bytes)?))),
            Some("UTC".into()),
        ),
        SqlType::Interval => {
            let mut rest: &[u8] = &fixed::<16>(bytes)?;
            let micros = rest.get_i64();
            let days = rest.get_i32();
            let months = rest.get_i32();
            let nanoseconds = micros
                .checked_mul(1000)
                .ok_or_else(|| SqlError::new(SqlState::DatetimeFieldOverflow, "interval out of range"))?;
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, nanoseconds)))
        }
        SqlType::Uuid => string(write_uuid(fixed(bytes)?)),
        SqlType::Json => of_text(utf8(bytes)?, sql_type, None)?,
        SqlType::Jsonb => match bytes.split_first() {
            Some((1, text)) => of_text(utf8(text)?, sql_type, None)?,
            _ => return Err(malformed()),
        },
        SqlType::Array(element) => list(bytes, element)?,
        SqlType::Struct(_) => return Err(SqlError::unsupported("input of anonymous composite types")),
    })
}

fn malformed() -> SqlError {
    SqlError::new(SqlState::InvalidBinaryRepresentation, "incorrect binary data format in bind parameter")
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| malformed())
}

/// Eight bytes, or the four of an `oid`.
fn int8(bytes: &[u8]) -> Result<i64> {
    match bytes.len() {
        4 => Ok(i64::from(u32::from_be_bytes(fixed(bytes)?))),
        _ => Ok(i64::from_be_bytes(fixed(bytes)?)),
    }
}

/// Number of groups of four digits, weight of the first, sign, digits to show, groups; as text.
fn decimal(mut bytes: &[u8]) -> Result<String> {
    if bytes.remaining() < 8 {
        return Err(malformed());
    }
    let n_groups = i32::from(bytes.get_u16());
    let weight = i32::from(bytes.get_i16());
    let sign = match bytes.get_u16() {
        0 => "",
        0x4000 => "-",
        _ => return Err(SqlError::unsupported("NaN or infinity as numeric")),
    };
    bytes.get_u16();
    let mut digits = String::from(sign);
    while bytes.remaining() >= 2 {
        match bytes.get_u16() {
            group @ 0..=9999 => digits.push_str(&format!("{group:04}")),
            _ => return Err(malformed()),
        }
    }
    if digits.len() - sign.len() != n_groups as usize * 4 || !bytes.is_empty() {
        return Err(malformed());
    }
    // The point stands behind the first groups, as many as the weight says and one.
    Ok(format!("{digits}0e{}", (weight + 1 - n_groups) * 4 - 1))
}

/// Dimensions, flag, OID of an element, length and first index of each dimension, elements.
fn list(mut bytes: &[u8], element: &SqlType) -> Result<ScalarValue> {
    if bytes.remaining() < 12 {
        return Err(malformed());
    }
    let n_dimensions = bytes.get_i32();
    bytes.advance(8);
    match n_dimensions {
        0 => array(vec![], element),
        1 if bytes.remaining() >= 8 => {
            let length = bytes.get_i32();
            bytes.get_i32();
            let mut values = vec![];
            for _ in 0..length {
                values.push(item(&mut bytes, element)?);
            }
            match bytes.is_empty() {
                true => array(values, element),
                false => Err(malformed()),
            }
        }
        1 => Err(malformed()),
        _ => Err(SqlError::unsupported("an array of several dimensions as a binary parameter")),
    }
}

fn item(bytes: &mut &[u8], element: &SqlType) -> Result<ScalarValue> {
    if bytes.remaining() < 4 {
        return Err(malformed());
    }
    let Ok(length) = usize::try_from(bytes.get_i32()) else {
        return null(element);
    };
    let (value, rest) = bytes.split_at_checked(length).ok_or_else(malformed)?;
    *bytes = rest;
    decode(value, element)
}
