//! A system table: its columns in one line of text, its rows by a function.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListBuilder, RecordBatch, RecordBatchOptions, StringArray,
    StringBuilder,
};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::{MemTable, TableProvider};
use tidewire_engine::SystemContext;
use tidewire_types::SqlType;
use tracing::error;

use super::facts::Facts;

/// A system table.
pub struct SystemTable {
    /// Its schema.
    pub schema: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its OID.
    pub oid: u32,
    /// `name:kind name:kind ..`; kinds: `i` bigint (OIDs too), `t` text, `b` boolean, `f` double precision, `a` text[].
    pub columns: &'static str,
    /// Its rows.
    pub rows: fn(&Facts, &SystemContext) -> Vec<Vec<Cell>>,
}

/// A value in a system table.
#[derive(Clone, Debug)]
pub enum Cell {
    /// NULL.
    Null,
    /// text
    Text(String),
    /// bigint
    Int(i64),
    /// boolean
    Bool(bool),
    /// text[]
    List(Vec<String>),
}

impl From<&str> for Cell {
    fn from(value: &str) -> Cell {
        Cell::Text(value.to_owned())
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Cell {
        Cell::Text(value)
    }
}

impl From<char> for Cell {
    fn from(value: char) -> Cell {
        Cell::Text(value.to_string())
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Cell {
        Cell::Int(value)
    }
}

impl From<u32> for Cell {
    fn from(value: u32) -> Cell {
        Cell::Int(i64::from(value))
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Cell {
        Cell::Bool(value)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Null, Into::into)
    }
}

impl SystemTable {
    /// Names and kinds of its columns.
    fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.columns.split_whitespace().map(|column| column.split_once(':').unwrap_or((column, "t")))
    }

    /// Names and types of its columns.
    pub fn column_types(&self) -> impl Iterator<Item = (&'static str, SqlType)> {
        self.kinds().map(|(name, kind)| {
            let sql_type = match kind {
                "i" => SqlType::Int8,
                "b" => SqlType::Bool,
                "f" => SqlType::Float8,
                "a" => SqlType::Array(Box::new(SqlType::Text)),
                _ => SqlType::Text,
            };
            (name, sql_type)
        })
    }

    /// The table with its rows of this moment.
    pub fn provider(&self, facts: &Facts, cx: &SystemContext) -> Option<Arc<dyn TableProvider>> {
        let rows = (self.rows)(facts, cx);
        let made = self.batch(&rows).and_then(|batch| {
            let schema = batch.schema();
            MemTable::try_new(schema, vec![vec![batch]]).map_err(|e| e.to_string())
        });
        match made {
            Ok(table) => Some(Arc::new(table)),
            Err(reason) => {
                error!(table = self.name, %reason, "could not make a system table");
                None
            }
        }
    }

    fn batch(&self, rows: &[Vec<Cell>]) -> Result<RecordBatch, String> {
        let width = self.kinds().count();
        if let Some(row) = rows.iter().find(|row| row.len() != width) {
            return Err(format!("a row has {} of {width} columns", row.len()));
        }
        let mut fields = vec![];
        let mut arrays = vec![];
        for (idx, (name, kind)) in self.kinds().enumerate() {
            let array = column(rows, idx, kind);
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).map_err(|e| e.to_string())
    }
}

fn column(rows: &[Vec<Cell>], idx: usize, kind: &str) -> ArrayRef {
    let cells = rows.iter().map(|row| row.get(idx).unwrap_or(&Cell::Null));
    match kind {
        "i" => Arc::new(Int64Array::from_iter(cells.map(|cell| match cell {
            Cell::Int(n) => Some(*n),
            _ => None,
        }))),
        "b" => Arc::new(BooleanArray::from_iter(cells.map(|cell| match cell {
            Cell::Bool(b) => Some(*b),
            _ => None,
        }))),
        "f" => Arc::new(Float64Array::from_iter(cells.map(|cell| match cell {
            Cell::Int(n) => Some(*n as f64),
            _ => None,
        }))),
        "a" => {
            let mut lists = ListBuilder::new(StringBuilder::new()).with_field(Field::new("item", DataType::Utf8, true));
            for cell in cells {
                match cell {
                    Cell::List(items) => lists.append_value(items.iter().map(Some)),
                    _ => lists.append_null(),
                }
            }
            Arc::new(lists.finish())
        }
        _ => Arc::new(StringArray::from_iter(cells.map(|cell| match cell {
            Cell::Text(text) => Some(text.as_str()),
            _ => None,
        }))),
    }
}
