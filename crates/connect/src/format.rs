//! Formats: how the bytes of a record become a row. [`Decoder`] is what a connector uses.
//!
//! Invariant: a record either appends exactly one value to every column or, when it is bad, leaves all columns as they
//! were; what comes before and after it is not touched.
//! Whether a record is bad does not depend on the metadata columns that are read with it, and as little as can be on
//! the projection: a record that is not JSON is bad for every reader.

mod bytes;
pub(crate) mod csv;
mod fields;
mod json;

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use tidewire_types::{Result, SqlError, SqlState, SqlType, closest};

use crate::bad::{Outcome, bad};
use crate::column::{Builder, TextKind};
use crate::{Column, ColumnSource, FormatSpec, OptionSpec, Options, Position, Split};

pub(crate) use json::{Keys, check_json, jsonb_text};

/// All encodings that `ENCODE` names.
pub static FORMATS: &[&dyn Format] = &[&json::Json, &csv::Csv, &bytes::Bytes];

/// One record as a connector has it, without a copy.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; None is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Where it was read.
    pub split: Split,
    /// Its position there.
    pub position: Position,
    /// Its own time, microseconds since 1970-01-01 UTC.
    pub timestamp_us: Option<i64>,
    /// Its headers, in order; may be left empty unless [`Decoder::needs_headers`].
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl<'a> Record<'a> {
    /// A record that is only a value.
    pub fn of_value(value: &'a [u8]) -> Record<'a> {
        Record { key: None, value: Some(value), split: Split(0), position: 0, timestamp_us: None, headers: &[] }
    }
}

/// An encoding that `ENCODE` names.
pub trait Format: Send + Sync {
    /// The word behind ENCODE, upper-case.
    fn name(&self) -> &'static str;

    /// The options it understands behind ENCODE, and with the encoding's name as prefix in WITH (`json.timestamp`).
    fn options(&self) -> &'static [OptionSpec];

    /// A decoder of the columns that values have. It checks all of them and keeps those of which `is_read` says so.
    ///
    /// Errors: a column type that the encoding cannot carry, an option's value.
    fn decoder(&self, columns: &[Column], is_read: &[bool], options: &Options) -> Result<Box<dyn ValueDecoder>>;
}

/// Decodes values into the columns that it was made for.
pub trait ValueDecoder: Send + fmt::Debug {
    /// Appends one row, or leaves everything as it was and says why the value is bad.
    fn decode(&mut self, value: &[u8]) -> Result<(), String>;

    /// Takes back the rows from the `len`th on.
    fn truncate(&mut self, len: usize);

    /// The columns, anything in the place of those that are not read; the decoder is empty afterwards.
    fn finish(&mut self) -> Result<Vec<ArrayRef>>;
}

/// Makes batches of records: the columns of a projection, values and metadata.
#[derive(Debug)]
pub struct Decoder {
    schema: SchemaRef,
    /// None where no declared column comes from the value: then values are not looked at.
    values: Option<Box<dyn ValueDecoder>>,
    metadata: Vec<Metadata>,
    /// For each column of the projection, which of the finished columns it is: values first, then metadata.
    order: Vec<usize>,
    n_rows: usize,
}

/// One metadata column under construction.
#[derive(Debug)]
struct Metadata {
    name: String,
    source: ColumnSource,
    builder: Builder,
}

impl Decoder {
    /// A decoder of the columns `projection` (ascending indices into `columns`).
    ///
    /// Whatever the projection, every value is read as the type of its column: whether a record is bad depends on the
    /// record and the declaration alone, never on which columns the views of the moment read.
    ///
    /// Errors: `0A000` for a format that is not there, `42704` for one that no one has, `22023` for an option, `42804`
    /// for a column type that the encoding or a metadata column cannot have.
    pub fn new(columns: &[Column], projection: &[usize], spec: &FormatSpec) -> Result<Decoder> {
        let format = find_format(spec)?;
        let declared: Vec<Column> = columns.iter().filter(|c| c.source == ColumnSource::Value).cloned().collect();
        let (mut order, mut metadata) = (vec![], vec![]);
        let mut is_read = vec![false; declared.len()];
        for idx in projection {
            let column = columns.get(*idx).ok_or_else(|| SqlError::internal("projection beyond the columns"))?;
            if column.source == ColumnSource::Value {
                let place = columns.iter().take(*idx).filter(|c| c.source == ColumnSource::Value).count();
                is_read.iter_mut().skip(place).take(1).for_each(|is_read| *is_read = true);
                order.push(place);
            } else {
                order.push(declared.len() + metadata.len());
                metadata.push(Metadata::new(column)?);
            }
        }
        let values = match declared.is_empty() {
            true => None,
            false => Some(format.decoder(&declared, &is_read, &spec.options)?),
        };
        Ok(Decoder { schema: schema_of(columns, projection), values, metadata, order, n_rows: 0 })
    }

    /// The schema of the batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether a column is filled from headers: else [`Record::headers`] may be empty.
    pub fn needs_headers(&self) -> bool {
        self.metadata.iter().any(|m| matches!(m.source, ColumnSource::Headers | ColumnSource::Header(_)))
    }

    /// Rows decoded since the last batch.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Appends a record, or says why it is bad and forgets it.
    #[inline]
    pub fn decode(&mut self, record: &Record<'_>) -> Result<(), String> {
        if let Some(values) = &mut self.values {
            match record.value {
                Some(value) => values.decode(value)?,
                None => return Err("record has no value".into()),
            }
        }
        if !self.metadata.is_empty() {
            self.append_metadata(record)?;
        }
        self.n_rows += 1;
        Ok(())
    }

    fn append_metadata(&mut self, record: &Record<'_>) -> Result<(), String> {
        let appended = self.metadata.iter_mut().try_for_each(|m| m.append(record).map_err(|bad| bad.within(&m.name)));
        appended.map_err(|bad| {
            if let Some(values) = &mut self.values {
                values.truncate(self.n_rows);
            }
            self.metadata.iter_mut().for_each(|m| m.builder.truncate(self.n_rows));
            bad.to_string()
        })
    }

    /// The rows so far as a batch; the decoder is empty afterwards.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        let mut arrays = match &mut self.values {
            Some(values) => values.finish()?,
            None => vec![],
        };
        for metadata in &mut self.metadata {
            arrays.push(metadata.builder.finish()?);
        }
        let arrays = self.order.iter().filter_map(|place| arrays.get(*place).cloned()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.n_rows)));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
    }
}

/// The Arrow schema of some columns; every column of a source may be NULL.
pub fn schema_of(columns: &[Column], projection: &[usize]) -> SchemaRef {
    let columns = projection.iter().filter_map(|idx| columns.get(*idx));
    Arc::new(Schema::new(columns.map(|c| c.sql_type.field(&c.name, true)).collect::<Vec<_>>()))
}

impl Metadata {
    fn new(column: &Column) -> Result<Metadata> {
        let expected = match column.source {
            ColumnSource::Value | ColumnSource::Key => None,
            ColumnSource::Split => Some(SqlType::Int4),
            ColumnSource::Position => Some(SqlType::Int8),
            ColumnSource::Timestamp => Some(SqlType::Timestamptz),
            ColumnSource::Headers => {
                let header = vec![("key".to_string(), SqlType::Text), ("value".to_string(), SqlType::Bytea)];
                Some(SqlType::Array(Box::new(SqlType::Struct(header))))
            }
            ColumnSource::Header(_) => Some(SqlType::Bytea),
        };
        match expected {
            Some(expected) if expected != column.sql_type => {
                let message = format!("column \"{}\" must be of type {expected}", column.name);
                Err(SqlError::new(SqlState::DatatypeMismatch, message))
            }
            _ => Ok(Metadata {
                name: column.name.clone(),
                source: column.source.clone(),
                builder: Builder::new(&column.sql_type),
            }),
        }
    }

    fn append(&mut self, record: &Record<'_>) -> Outcome<()> {
        match (&self.source, &mut self.builder) {
            (ColumnSource::Key, builder) => match record.key {
                Some(key) => return append_bytes(builder, key),
                None => builder.append_null(),
            },
            (ColumnSource::Split, Builder::Int4(b)) => b.append(record.split.0.cast_signed()),
            (ColumnSource::Position, Builder::Int8(b)) => b.append(record.position),
            (ColumnSource::Timestamp, builder) => match (record.timestamp_us, builder) {
                (Some(us), Builder::Timestamptz(b)) => b.append(us),
                (_, builder) => builder.append_null(),
            },
            (ColumnSource::Headers, Builder::Array(lists)) => {
                if let Builder::Struct(header) = &mut lists.element {
                    for (key, value) in record.headers {
                        if let [name, bytes] = header.fields.as_mut_slice() {
                            name.builder.append_text(key)?;
                            append_bytes_or_null(&mut bytes.builder, *value)?;
                        }
                        header.valid.append_non_null();
                    }
                }
                lists.close_row(true);
            }
            (ColumnSource::Header(name), builder) => {
                let value = record.headers.iter().rev().find(|(key, _)| key == name).and_then(|(_, value)| *value);
                return append_bytes_or_null(builder, value);
            }
            (_, builder) => builder.append_null(),
        }
        Ok(())
    }
}

fn append_bytes_or_null(builder: &mut Builder, bytes: Option<&[u8]>) -> Outcome<()> {
    match bytes {
        Some(bytes) => append_bytes(builder, bytes),
        None => {
            builder.append_null();
            Ok(())
        }
    }
}

/// Appends bytes as they are to bytea, as JSON to the types that JSON has, and as text to the others.
pub(crate) fn append_bytes(builder: &mut Builder, bytes: &[u8]) -> Outcome<()> {
    match builder {
        Builder::Bytea(b) => {
            b.append(bytes);
            Ok(())
        }
        Builder::Array(_) | Builder::Struct(_) | Builder::Text(_, TextKind::Json | TextKind::Jsonb) => {
            json::append_json(builder, utf8(bytes)?)
        }
        builder => builder.append_text(utf8(bytes)?),
    }
}

pub(crate) fn utf8(bytes: &[u8]) -> Outcome<&str> {
    std::str::from_utf8(bytes).map_err(|error| bad(format!("not UTF-8 at byte {}", error.valid_up_to() + 1)))
}

fn find_format(spec: &FormatSpec) -> Result<&'static dyn Format> {
    match spec.format.as_str() {
        "PLAIN" => {}
        "UPSERT" | "DEBEZIUM" => return Err(SqlError::unsupported(format!("FORMAT {}", spec.format))),
        other => {
            let error = SqlError::new(SqlState::UndefinedObject, format!("format \"{other}\" does not exist"));
            return Err(error.with_hint("The format is PLAIN."));
        }
    }
    if let Some(format) = FORMATS.iter().find(|f| f.name() == spec.encode) {
        return Ok(*format);
    }
    if matches!(spec.encode.as_str(), "AVRO" | "PROTOBUF" | "JSON_SR" | "TEXT" | "PARQUET") {
        return Err(SqlError::unsupported(format!("ENCODE {}", spec.encode)));
    }
    let error = SqlError::new(SqlState::UndefinedObject, format!("encoding \"{}\" does not exist", spec.encode));
    Err(match closest(&spec.encode, FORMATS.iter().map(|f| f.name())) {
        Some(near) => error.with_hint(format!("Perhaps you meant {near}.")),
        None => error,
    })
}

/// The options of WITH that say how values are encoded; a connector whose records are bytes accepts them besides its
/// own.
pub const FORMAT_OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "value_format", required: false, help: "ksqlDB's spelling of FORMAT PLAIN ENCODE ..." },
    OptionSpec { name: "format", required: false, help: "The encoding, where the statement has no FORMAT .. ENCODE." },
    OptionSpec { name: "json.*", required: false, help: "An option of ENCODE JSON." },
    OptionSpec { name: "csv.*", required: false, help: "An option of ENCODE CSV." },
    OptionSpec { name: "value_delimiter", required: false, help: "ksqlDB's spelling of the CSV option delimiter." },
    OptionSpec {
        name: "timestamp.handling.mode",
        required: false,
        help: "What a JSON number means where a time is expected: auto (default), second, milli, micro or nano.",
    },
];

/// How values are encoded: what the statement says behind FORMAT, else what WITH says (`value_format = 'JSON'`), with
/// the encoding's options from both. Errors: `42601` where neither says, `22023` for an unknown option.
pub fn format_spec(options: &Options, given: Option<FormatSpec>) -> Result<FormatSpec> {
    let from_options = options.get("value_format").or_else(|| options.get("format"));
    let mut spec = match (given, from_options) {
        (Some(spec), _) => spec,
        (None, Some(name)) => {
            let encode = match name.to_uppercase().as_str() {
                "DELIMITED" => "CSV".to_string(),
                "KAFKA" | "NONE" | "RAW" => "BYTES".to_string(),
                other => other.to_string(),
            };
            FormatSpec { format: "PLAIN".into(), encode, options: Options::default() }
        }
        (None, None) => {
            let error = SqlError::new(SqlState::SyntaxError, "the source does not say how its values are encoded");
            return Err(error.with_hint("Add FORMAT PLAIN ENCODE JSON behind the WITH clause."));
        }
    };
    let prefix = format!("{}.", spec.encode.to_lowercase());
    let own = spec.options.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let prefixed = options.with_prefix(&prefix).map(|(name, value)| (name.to_string(), value.to_string()));
    let renamed = [("JSON", "timestamp.handling.mode", "timestamp"), ("CSV", "value_delimiter", "delimiter")];
    let renamed = renamed.into_iter().filter(|(encode, ..)| *encode == spec.encode).filter_map(|(_, from, to)| {
        let value = options.get(from)?;
        Some((to.to_string(), value.to_string()))
    });
    spec.options = Options::new(own.chain(prefixed).chain(renamed))?;
    let format = find_format(&spec)?;
    spec.options.check(&[format.options()])?;
    Ok(spec)
}

#[cfg(test)]
pub(crate) mod tests;
