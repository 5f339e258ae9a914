//! The columns that a decoder fills, a row at a time.
//!
//! Invariant: between two calls all columns have `n_rows` rows, whatever a bad record left behind.

use std::sync::Arc;

use arrow::array::{ArrayRef, NullArray};
use tidewire_types::Result;

use crate::Column;
use crate::bad::Outcome;
use crate::column::{Builder, NamedBuilder};

/// Columns under construction.
#[derive(Debug)]
pub(super) struct Fields {
    fields: Vec<NamedBuilder>,
    is_read: Vec<bool>,
    n_rows: usize,
}

impl Fields {
    /// A builder a column; where `is_read` says no, values are checked and not kept.
    pub(super) fn new(columns: &[Column], is_read: &[bool]) -> Fields {
        let field = |(column, is_read): (&Column, &bool)| {
            let builder = Builder::new(&column.sql_type);
            NamedBuilder { name: column.name.clone(), builder: if *is_read { builder } else { builder.unread() } }
        };
        Fields { fields: columns.iter().zip(is_read).map(field).collect(), is_read: is_read.to_vec(), n_rows: 0 }
    }

    /// Has `read` append one value to each column; it is given the columns and the number of the row. Where it fails,
    /// nothing of the row stays.
    #[inline]
    pub(super) fn append(
        &mut self,
        read: impl FnOnce(&mut [NamedBuilder], usize) -> Outcome<()>,
    ) -> Result<(), String> {
        match read(&mut self.fields, self.n_rows) {
            Ok(()) => {
                self.n_rows += 1;
                Ok(())
            }
            Err(bad) => {
                self.truncate(self.n_rows);
                Err(bad.to_string())
            }
        }
    }

    /// Takes back the rows from the `len`th on.
    pub(super) fn truncate(&mut self, len: usize) {
        self.n_rows = len;
        self.fields.iter_mut().for_each(|f| f.builder.truncate(len));
    }

    /// The columns, those that are not read all NULL; no rows are left.
    pub(super) fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        let n_rows = std::mem::take(&mut self.n_rows);
        let finish = |(field, is_read): (&mut NamedBuilder, &bool)| match is_read {
            true => field.builder.finish(),
            false => {
                field.builder.truncate(0);
                Ok(Arc::new(NullArray::new(n_rows)) as ArrayRef)
            }
        };
        self.fields.iter_mut().zip(&self.is_read).map(finish).collect()
    }
}
