//! Arrow columns as PostgreSQL's text and binary values.
//!
//! A batch's columns are brought to one physical type for each SQL type and downcast once; a cell then costs one
//! `match`. Invariant: every Arrow type has a form here, if need be the text that Arrow shows for it.

mod copy;
mod datetime;
mod nested;
mod number;

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array,
    Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, RecordBatch,
    StringViewArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::{BufMut, BytesMut};
use tidewire_types::{Result, SqlError, SqlState, SqlType};

pub use copy::write_names;
pub use datetime::{date_from_pg, parse_uuid, timestamp_from_pg, write_uuid};

/// How values look that a session's settings shape.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// The zone that `timestamptz` is shown in; None: UTC.
    pub time_zone: Option<Tz>,
}

impl Style {
    /// From the session's `TimeZone`; a zone that Arrow does not know is shown as UTC.
    pub fn new(time_zone: Option<&str>) -> Style {
        let utc = |zone: &str| zone.eq_ignore_ascii_case("utc") || zone.eq_ignore_ascii_case("etc/utc");
        Style { time_zone: time_zone.filter(|zone| !utc(zone)).and_then(|zone| zone.parse().ok()) }
    }
}

/// The two forms of a value on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text.
    Text,
    /// Binary.
    Binary,
}

impl Format {
    /// The format of a code in Bind. Errors: `08P01`.
    pub fn from_code(code: i16) -> Result<Format> {
        match code {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            other => Err(SqlError::new(SqlState::ProtocolViolation, format!("unsupported format code: {other}"))),
        }
    }

    /// Its code.
    pub fn code(self) -> i16 {
        match self {
            Format::Text => 0,
            Format::Binary => 1,
        }
    }
}

/// A batch whose rows are ready to be written.
pub struct Rows {
    columns: Vec<(Column, Format)>,
    n_columns: i16,
    style: Style,
}

impl Rows {
    /// Prepares a batch: `types` and `formats` of its columns, in order.
    pub fn new(batch: &RecordBatch, types: &[SqlType], formats: &[Format], style: Style) -> Result<Rows> {
        let columns = batch
            .columns()
            .iter()
            .zip(types)
            .zip(formats)
            .map(|((array, sql_type), format)| Ok((Column::new(array, sql_type)?, *format)))
            .collect::<Result<Vec<_>>>()?;
        let n_columns = i16::try_from(columns.len()).map_err(|_| too_many_columns())?;
        Ok(Rows { columns, n_columns, style })
    }

    /// Appends the DataRow message of one row.
    pub fn write(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        out.put_u8(b'D');
        let start = out.len();
        out.put_i32(0);
        out.put_i16(self.n_columns);
        for (column, format) in &self.columns {
            column.write_field(row, *format, self.style, out)?;
        }
        set_length(out, start, out.len() - start)
    }
}

/// `54000`: the protocol counts columns in 16 bits.
pub fn too_many_columns() -> SqlError {
    SqlError::new(SqlState::ProgramLimitExceeded, "a row can have at most 32767 columns")
}

/// Writes a length into the four bytes kept for it at `at`.
fn set_length(out: &mut BytesMut, at: usize, length: usize) -> Result<()> {
    let length = i32::try_from(length)
        .map_err(|_| SqlError::new(SqlState::ProgramLimitExceeded, "a row is longer than 2 GB"))?;
    if let Some(slot) = out.get_mut(at..at + 4) {
        slot.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// One column, downcast.
struct Column {
    nulls: Option<NullBuffer>,
    values: Values,
}

enum Values {
    Null,
    Bool(BooleanArray),
    Int2(Int16Array),
    Int4(Int32Array),
    Int8(Int64Array),
    Float4(Float32Array),
    Float8(Float64Array),
    /// The flag: trailing zeros are not shown.
    Numeric(Decimal128Array, bool),
    WideNumeric(Decimal256Array),
    Text(StringViewArray),
    /// Padded to so many characters.
    Char(StringViewArray, usize),
    Uuid(StringViewArray),
    Jsonb(StringViewArray),
    Bytea(BinaryViewArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp(TimestampMicrosecondArray),
    Timestamptz(TimestampMicrosecondArray),
    Interval(IntervalMonthDayNanoArray),
    /// Rows, elements, OID of an element.
    Array(ListArray, Box<Column>, u32),
    /// Fields with their OIDs.
    Record(Vec<(u32, Column)>),
}

impl Column {
    fn new(array: &ArrayRef, sql_type: &SqlType) -> Result<Column> {
        let array = canonical(array, sql_type)?;
        let values = match sql_type {
            SqlType::Null => Values::Null,
            SqlType::Bool => Values::Bool(array.as_boolean().clone()),
            SqlType::Int2 => Values::Int2(array.as_primitive::<Int16Type>().clone()),
            SqlType::Int4 => Values::Int4(array.as_primitive::<Int32Type>().clone()),
            SqlType::Int8 => Values::Int8(array.as_primitive::<Int64Type>().clone()),
            SqlType::Float4 => Values::Float4(array.as_primitive::<Float32Type>().clone()),
            SqlType::Float8 => Values::Float8(array.as_primitive::<Float64Type>().clone()),
            SqlType::Numeric(precision) => match array.as_primitive_opt::<Decimal256Type>() {
                Some(wide) => Values::WideNumeric(wide.clone()),
                None => Values::Numeric(array.as_primitive::<Decimal128Type>().clone(), precision.is_none()),
            },
            SqlType::Text | SqlType::Varchar(_) | SqlType::Json => Values::Text(array.as_string_view().clone()),
            SqlType::Char(n) => Values::Char(array.as_string_view().clone(), usize::try_from(*n).unwrap_or(0)),
            SqlType::Uuid => Values::Uuid(array.as_string_view().clone()),
            SqlType::Jsonb => Values::Jsonb(array.as_string_view().clone()),
            SqlType::Bytea => Values::Bytea(array.as_binary_view().clone()),
            SqlType::Date => Values::Date(array.as_primitive::<Date32Type>().clone()),
            SqlType::Time => Values::Time(array.as_primitive::<Time64MicrosecondType>().clone()),
            SqlType::Timestamp => Values::Timestamp(array.as_primitive::<TimestampMicrosecondType>().clone()),
            SqlType::Timestamptz => Values::Timestamptz(array.as_primitive::<TimestampMicrosecondType>().clone()),
            SqlType::Interval => Values::Interval(array.as_primitive::<IntervalMonthDayNanoType>().clone()),
            SqlType::Array(element) => {
                let lists = array.as_list::<i32>().clone();
                let elements = Column::new(lists.values(), element)?;
                Values::Array(lists, Box::new(elements), crate::oid::oid(element))
            }
            SqlType::Struct(fields) => {
                let columns = array.as_struct().columns().iter().zip(fields);
                let columns = columns.map(|(c, (_, t))| Ok((crate::oid::oid(t), Column::new(c, t)?)));
                Values::Record(columns.collect::<Result<_>>()?)
            }
        };
        Ok(Column { nulls: array.logical_nulls(), values })
    }

    fn is_null(&self, row: usize) -> bool {
        matches!(self.values, Values::Null) || self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Length and value; -1 for NULL.
    fn write_field(&self, row: usize, format: Format, style: Style, out: &mut BytesMut) -> Result<()> {
        if self.is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        let start = out.len();
        out.put_i32(0);
        match format {
            Format::Text => self.write_text(row, style, out),
            Format::Binary => self.write_binary(row, style, out)?,
        }
        set_length(out, start, out.len() - start - 4)
    }

    /// The text of a value that is not NULL.
    fn write_text(&self, row: usize, style: Style, out: &mut BytesMut) {
        match &self.values {
            Values::Null => {}
            Values::Bool(a) => out.put_u8(if a.value(row) { b't' } else { b'f' }),
            Values::Int2(a) => number::write_integer(out, a.value(row)),
            Values::Int4(a) => number::write_integer(out, a.value(row)),
            Values::Int8(a) => number::write_integer(out, a.value(row)),
            Values::Float4(a) => number::write_float4(out, a.value(row)),
            Values::Float8(a) => number::write_float8(out, a.value(row)),
            Values::Numeric(a, trim) => number::Digits::of_i128(a.value(row), a.scale(), *trim).write_text(out),
            Values::WideNumeric(a) => number::Digits::of_i256(a.value(row), a.scale()).write_text(out),
            Values::Text(a) | Values::Uuid(a) | Values::Jsonb(a) => out.put_slice(a.value(row).as_bytes()),
            Values::Char(a, n) => write_padded(out, a.value(row), *n),
            Values::Bytea(a) => write_hex(out, a.value(row)),
            Values::Date(a) => datetime::write_date(out, a.value(row)),
            Values::Time(a) => datetime::write_time(out, a.value(row)),
            Values::Timestamp(a) => datetime::write_timestamp(out, a.value(row)),
            Values::Timestamptz(a) => datetime::write_timestamptz(out, a.value(row), style.time_zone),
            Values::Interval(a) => datetime::write_interval(out, a.value(row)),
            Values::Array(lists, elements, _) => nested::write_array(out, lists, elements, row, style),
            Values::Record(columns) => nested::write_record(out, columns, row, style),
        }
    }

    /// The bytes of a value that is not NULL.
    fn write_binary(&self, row: usize, style: Style, out: &mut BytesMut) -> Result<()> {
        match &self.values {
            Values::Null => {}
            Values::Bool(a) => out.put_u8(u8::from(a.value(row))),
            Values::Int2(a) => out.put_i16(a.value(row)),
            Values::Int4(a) => out.put_i32(a.value(row)),
            Values::Int8(a) => out.put_i64(a.value(row)),
            Values::Float4(a) => out.put_f32(a.value(row)),
            Values::Float8(a) => out.put_f64(a.value(row)),
            Values::Numeric(a, trim) => number::Digits::of_i128(a.value(row), a.scale(), *trim).write_binary(out),
            Values::WideNumeric(a) => number::Digits::of_i256(a.value(row), a.scale()).write_binary(out),
            Values::Text(a) => out.put_slice(a.value(row).as_bytes()),
            Values::Char(a, n) => write_padded(out, a.value(row), *n),
            Values::Uuid(a) => match parse_uuid(a.value(row)) {
                Some(bytes) => out.put_slice(&bytes),
                None => return Err(SqlError::internal(format!("\"{}\" is kept as a uuid", a.value(row)))),
            },
            Values::Jsonb(a) => {
                out.put_u8(1);
                out.put_slice(a.value(row).as_bytes());
            }
            Values::Bytea(a) => out.put_slice(a.value(row)),
            Values::Date(a) => out.put_i32(datetime::date_to_pg(a.value(row))),
            Values::Time(a) => out.put_i64(a.value(row)),
            Values::Timestamp(a) | Values::Timestamptz(a) => out.put_i64(datetime::timestamp_to_pg(a.value(row))),
            Values::Interval(a) => datetime::write_interval_binary(out, a.value(row)),
            Values::Array(lists, elements, oid) => {
                nested::write_array_binary(out, lists, elements, *oid, row, style)?;
            }
            Values::Record(columns) => nested::write_record_binary(out, columns, row, style)?,
        }
        Ok(())
    }
}

fn write_padded(out: &mut BytesMut, value: &str, length: usize) {
    out.put_slice(value.as_bytes());
    out.put_bytes(b' ', length.saturating_sub(value.chars().count()));
}

fn write_hex(out: &mut BytesMut, bytes: &[u8]) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    out.put_slice(b"\\x");
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.put_u8(digit(byte >> 4));
        out.put_u8(digit(byte & 15));
    }
}

/// The array in the one physical type that [`Column`] takes for `sql_type`.
fn canonical(array: &ArrayRef, sql_type: &SqlType) -> Result<ArrayRef> {
    let target = match (sql_type, array.data_type()) {
        (SqlType::Null, _) => return Ok(array.clone()),
        (SqlType::Numeric(_), DataType::Decimal128(..) | DataType::Decimal256(..)) => return Ok(array.clone()),
        (SqlType::Numeric(_), DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale)) => {
            DataType::Decimal128(38, *scale)
        }
        // A cast between zones would move the instant; what counts here is only the unit.
        (SqlType::Timestamp | SqlType::Timestamptz, DataType::Timestamp(_, zone)) => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        (SqlType::Interval, _) => DataType::Interval(IntervalUnit::MonthDayNano),
        (SqlType::Array(_), DataType::List(_)) | (SqlType::Struct(_), DataType::Struct(_)) => return Ok(array.clone()),
        (
            SqlType::Array(_),
            DataType::LargeList(f) | DataType::ListView(f) | DataType::LargeListView(f) | DataType::FixedSizeList(f, _),
        ) => DataType::List(f.clone()),
        (_, DataType::Dictionary(_, value)) => {
            return canonical(&cast(array, value)?, sql_type);
        }
        (_, DataType::RunEndEncoded(_, value)) => {
            return canonical(&cast(array, value.data_type())?, sql_type);
        }
        (_, DataType::Map(..) | DataType::Union(..)) => return shown(array),
        (sql_type, _) => sql_type.data_type(),
    };
    if array.data_type() == &target {
        return Ok(array.clone());
    }
    match cast(array, &target) {
        Ok(array) => Ok(array),
        Err(_) if target == DataType::Utf8View => shown(array),
        Err(error) => Err(error),
    }
}

fn cast(array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    Ok(cast_with_options(array, target, &CastOptions { safe: false, ..CastOptions::default() })?)
}

/// The text that Arrow shows, for types without a counterpart in SQL.
fn shown(array: &ArrayRef) -> Result<ArrayRef> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options)?;
    let nulls = array.logical_nulls();
    let text = |row| match nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
        true => Ok(None),
        false => formatter.value(row).try_to_string().map(Some),
    };
    let texts = (0..array.len()).map(text).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(StringViewArray::from_iter(texts)))
}

#[cfg(test)]
mod tests;
