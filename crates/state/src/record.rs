//! What the log's records say.
//!
//! The first byte is the kind; rows are Arrow's IPC, everything else JSON. A kind that is not known is an error, never
//! passed over: a newer server wrote it.

use std::sync::Arc;

use arrow::array::{
    Array, AsArray, BinaryViewArray, Int32Array, Int64Array, RecordBatch, StringViewArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt32Type};
use bytes::Bytes;
use tidewire_types::{Delta, ObjectId, Result, SqlError, SqlState};

use crate::StoredObject;
use crate::rows::{compact, read_rows, write_rows};

/// One record.
#[derive(Clone, Debug)]
pub enum Record {
    /// What one epoch changed in tables, to be applied in this order.
    Rows(Vec<TableChange>),
    /// Objects that were made.
    Create(Vec<StoredObject>),
    /// Objects that were dropped, dependants first.
    Drop(Vec<ObjectId>),
    /// Records and rows that could not be used.
    DeadLetters(Vec<StoredLetter>),
    /// The server ended in good order.
    End,
    /// Records of which all are there or none, in this order.
    Together(Vec<Record>),
}

/// One change of one table: rows that are added, or removed, each once.
#[derive(Clone, Debug)]
pub struct TableChange {
    /// The table.
    pub table: ObjectId,
    /// The rows.
    pub delta: Delta,
}

impl TableChange {
    /// A change that holds on to nothing but its own rows.
    pub fn new(table: ObjectId, delta: &Delta) -> Result<TableChange> {
        Ok(TableChange { table, delta: delta.with_rows(compact(delta.rows())?) })
    }
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLetter {
    /// When it was found: microseconds since 1970-01-01 UTC.
    pub time_us: i64,
    /// The source or view.
    pub object: u32,
    /// Its name.
    pub name: String,
    /// Where a record stood: split and position.
    pub place: Option<(u32, i64)>,
    /// The record's own time.
    pub timestamp_us: Option<i64>,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The record's value.
    pub value: Option<Bytes>,
    /// Why.
    pub error: String,
}

const ROWS: u8 = 1;
const CREATE: u8 = 2;
const DROP: u8 = 3;
const DEAD_LETTERS: u8 = 4;
const END: u8 = 5;
const TOGETHER: u8 = 6;

/// Of a change: the rows are added, or removed.
const ADDED: u8 = 0;
const REMOVED: u8 = 1;

impl Record {
    /// The record as bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = vec![];
        match self {
            Record::Rows(changes) => {
                out.push(ROWS);
                for change in changes {
                    write_change(change, &mut out)?;
                }
            }
            Record::Create(objects) => {
                out.push(CREATE);
                serde_json::to_writer(&mut out, objects).map_err(SqlError::internal)?;
            }
            Record::Drop(ids) => {
                out.push(DROP);
                let ids: Vec<u32> = ids.iter().map(|id| id.0).collect();
                serde_json::to_writer(&mut out, &ids).map_err(SqlError::internal)?;
            }
            Record::DeadLetters(letters) => {
                out.push(DEAD_LETTERS);
                write_rows(&letters_to_rows(letters)?, &mut out)?;
            }
            Record::End => out.push(END),
            Record::Together(records) => {
                out.push(TOGETHER);
                for record in records {
                    let bytes = record.encode()?;
                    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
                    out.extend_from_slice(&bytes);
                }
            }
        }
        Ok(out)
    }

    /// The record of bytes. Errors: `XX001` for what is no record.
    pub fn decode(bytes: &[u8]) -> Result<Record> {
        let (kind, body) = bytes.split_first().ok_or_else(|| unreadable("it is empty"))?;
        match *kind {
            ROWS => read_changes(body).map(Record::Rows),
            CREATE => serde_json::from_slice(body).map(Record::Create).map_err(unreadable),
            DROP => {
                let ids: Vec<u32> = serde_json::from_slice(body).map_err(unreadable)?;
                Ok(Record::Drop(ids.into_iter().map(ObjectId).collect()))
            }
            DEAD_LETTERS => letters_from_rows(&read_rows(body).map_err(unreadable)?).map(Record::DeadLetters),
            END => Ok(Record::End),
            TOGETHER => read_together(body).map(Record::Together),
            kind => Err(unreadable(format_args!("its kind is {kind}"))),
        }
    }
}

fn unreadable(why: impl std::fmt::Display) -> SqlError {
    SqlError::new(SqlState::DataCorrupted, format!("a record of the log cannot be read: {why}"))
        .with_hint("Its checksum is right: a newer version of Tidewire may have written it.")
}

fn write_change(change: &TableChange, out: &mut Vec<u8>) -> Result<()> {
    let sign = match change.delta.weights() {
        None => ADDED,
        Some(weights) if weights.values().iter().all(|weight| *weight == -1) => REMOVED,
        Some(_) => return Err(SqlError::internal("a change of a table with several copies of a row")),
    };
    out.extend_from_slice(&change.table.0.to_le_bytes());
    out.push(sign);
    let len_at = out.len();
    out.extend_from_slice(&[0; 8]);
    write_rows(change.delta.rows(), out)?;
    let len = (out.len() - len_at - 8) as u64;
    if let Some(place) = out.get_mut(len_at..len_at + 8) {
        place.copy_from_slice(&len.to_le_bytes());
    }
    Ok(())
}

fn read_together(mut body: &[u8]) -> Result<Vec<Record>> {
    let mut records = vec![];
    while !body.is_empty() {
        let (record, rest) = split_sized(body)?;
        // None is within another: bytes cannot make this go deep.
        if record.first() == Some(&TOGETHER) {
            return Err(unreadable("records within records"));
        }
        records.push(Record::decode(record)?);
        body = rest;
    }
    Ok(records)
}

/// Bytes with their number before them, and what follows.
fn split_sized(body: &[u8]) -> Result<(&[u8], &[u8])> {
    let short = || unreadable("it ends too early");
    let (len, rest) = body.split_first_chunk::<8>().ok_or_else(short)?;
    let len = usize::try_from(u64::from_le_bytes(*len)).map_err(unreadable)?;
    rest.split_at_checked(len).ok_or_else(short)
}

fn read_changes(mut body: &[u8]) -> Result<Vec<TableChange>> {
    let mut changes = vec![];
    while !body.is_empty() {
        let short = || unreadable("it ends too early");
        let (table, rest) = body.split_first_chunk::<4>().ok_or_else(short)?;
        let (sign, rest) = rest.split_first().ok_or_else(short)?;
        let (rows, rest) = split_sized(rest)?;
        let rows = read_rows(rows).map_err(unreadable)?;
        let delta = match *sign {
            ADDED => Delta::insert(rows),
            REMOVED => Delta::delete(rows),
            sign => return Err(unreadable(format_args!("a change of kind {sign}"))),
        };
        changes.push(TableChange { table: ObjectId(u32::from_le_bytes(*table)), delta });
        body = rest;
    }
    Ok(changes)
}

/// The columns of dead letters.
pub fn letter_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("time_us", DataType::Int64, false),
        Field::new("object", DataType::UInt32, false),
        Field::new("name", DataType::Utf8View, false),
        Field::new("split", DataType::UInt32, true),
        Field::new("position", DataType::Int64, true),
        Field::new("timestamp_us", DataType::Int64, true),
        Field::new("key", DataType::BinaryView, true),
        Field::new("value", DataType::BinaryView, true),
        Field::new("error", DataType::Utf8View, false),
        Field::new("version", DataType::Int32, false),
    ]))
}

/// Dead letters as rows.
pub fn letters_to_rows(letters: &[StoredLetter]) -> Result<RecordBatch> {
    let each = || letters.iter();
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(each().map(|l| l.time_us).collect::<arrow::array::PrimitiveArray<Int64Type>>()),
        Arc::new(UInt32Array::from_iter_values(each().map(|l| l.object))),
        Arc::new(StringViewArray::from_iter_values(each().map(|l| &l.name))),
        Arc::new(each().map(|l| l.place.map(|(split, _)| split)).collect::<UInt32Array>()),
        Arc::new(each().map(|l| l.place.map(|(_, position)| position)).collect::<Int64Array>()),
        Arc::new(each().map(|l| l.timestamp_us).collect::<Int64Array>()),
        Arc::new(each().map(|l| l.key.as_deref()).collect::<BinaryViewArray>()),
        Arc::new(each().map(|l| l.value.as_deref()).collect::<BinaryViewArray>()),
        Arc::new(StringViewArray::from_iter_values(each().map(|l| &l.error))),
        Arc::new(Int32Array::from_value(1, letters.len())),
    ];
    Ok(RecordBatch::try_new(letter_schema(), columns)?)
}

/// What `letters_to_rows` made rows of.
pub fn letters_from_rows(rows: &RecordBatch) -> Result<Vec<StoredLetter>> {
    if rows.schema_ref().as_ref() != letter_schema().as_ref() {
        return Err(unreadable("dead letters have other columns"));
    }
    let [time, object, name, split, position, timestamp, key, value, error, _] = rows.columns() else {
        return Err(unreadable("dead letters have other columns"));
    };
    let (time, object, name) =
        (time.as_primitive::<Int64Type>(), object.as_primitive::<UInt32Type>(), name.as_string_view());
    let (split, position) = (split.as_primitive::<UInt32Type>(), position.as_primitive::<Int64Type>());
    let (timestamp, key, value) = (timestamp.as_primitive::<Int64Type>(), key.as_binary_view(), value.as_binary_view());
    let error = error.as_string_view();
    let bytes =
        |array: &BinaryViewArray, idx: usize| (!array.is_null(idx)).then(|| Bytes::copy_from_slice(array.value(idx)));
    let letter = |idx: usize| StoredLetter {
        time_us: time.value(idx),
        object: object.value(idx),
        name: name.value(idx).to_string(),
        place: (!split.is_null(idx)).then(|| (split.value(idx), position.value(idx))),
        timestamp_us: (!timestamp.is_null(idx)).then(|| timestamp.value(idx)),
        key: bytes(key, idx),
        value: bytes(value, idx),
        error: error.value(idx).to_string(),
    };
    Ok((0..rows.num_rows()).map(letter).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(values: Vec<i32>) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("a", DataType::Int32, true)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int32Array::from(values))]).unwrap()
    }

    fn letter(name: &str, place: Option<(u32, i64)>) -> StoredLetter {
        StoredLetter {
            time_us: 5,
            object: 16385,
            name: name.into(),
            place,
            timestamp_us: place.map(|_| 7),
            key: place.map(|_| Bytes::from_static(b"\xff")),
            value: Some(Bytes::from_static(b"{")),
            error: "no".into(),
        }
    }

    #[test]
    fn every_kind_comes_back() {
        let changes = vec![
            TableChange { table: ObjectId(1), delta: Delta::delete(batch(vec![1, 2])) },
            TableChange { table: ObjectId(2), delta: Delta::insert(batch(vec![])) },
            TableChange { table: ObjectId(1), delta: Delta::insert(batch(vec![3])) },
        ];
        let letters = vec![letter("v", None), letter("s", Some((2, 9)))];
        for record in [
            Record::Rows(changes),
            Record::Create(vec![]),
            Record::Drop(vec![ObjectId(16384)]),
            Record::DeadLetters(letters),
            Record::End,
            Record::Together(vec![Record::Drop(vec![ObjectId(16384)]), Record::Create(vec![])]),
        ] {
            let decoded = Record::decode(&record.encode().unwrap()).unwrap();
            assert_eq!(format!("{decoded:?}"), format!("{record:?}"));
        }
    }

    #[test]
    fn rows_that_are_cut_short_are_an_error() {
        let changes = vec![TableChange { table: ObjectId(1), delta: Delta::delete(batch(vec![1, 2])) }];
        let bytes = Record::Rows(changes).encode().unwrap();
        // Nothing behind the first byte is a record without changes.
        assert!((2..bytes.len()).all(|len| Record::decode(&bytes[..len]).is_err()));
    }

    #[test]
    fn records_within_records_are_an_error() {
        let one = Record::Together(vec![Record::End]);
        let bytes = Record::Together(vec![one]).encode().unwrap();
        assert!(Record::decode(&bytes).unwrap_err().message().contains("records within records"));
    }

    proptest! {
        // What a checksum let through is not random: kinds with Arrow's IPC may ask for as much memory as they say.
        #[test]
        fn bytes_that_are_no_record_are_an_error(
            kind in proptest::sample::select(vec![0_u8, CREATE, DROP, TOGETHER + 1, 255]),
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(Record::decode(&[vec![kind], bytes].concat()).is_err());
        }
    }
}
