//! `ENCODE BYTES`: the value as it is, in one column of type bytea (or text, where it must be UTF-8).

use arrow::array::ArrayRef;
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use super::fields::Fields;
use super::{Format, ValueDecoder, append_bytes};
use crate::column::NamedBuilder;
use crate::{Column, OptionSpec, Options};

/// `ENCODE BYTES`.
pub(super) struct Bytes;

impl Format for Bytes {
    fn name(&self) -> &'static str {
        "BYTES"
    }

    fn options(&self) -> &'static [OptionSpec] {
        &[]
    }

    fn decoder(&self, columns: &[Column], is_read: &[bool], _options: &Options) -> Result<Box<dyn ValueDecoder>> {
        let [column] = columns else {
            let error = SqlError::new(SqlState::InvalidTableDefinition, "ENCODE BYTES needs exactly one column");
            return Err(error.with_hint("Declare one column of type bytea; metadata columns come by INCLUDE."));
        };
        if !matches!(column.sql_type, SqlType::Bytea | SqlType::Text | SqlType::Varchar(_)) {
            let message = format!("column \"{}\" of type {} cannot hold bytes", column.name, column.sql_type);
            return Err(SqlError::new(SqlState::DatatypeMismatch, message)
                .with_hint("ENCODE BYTES fills a column of type bytea or text."));
        }
        Ok(Box::new(BytesDecoder { fields: Fields::new(columns, is_read) }))
    }
}

#[derive(Debug)]
struct BytesDecoder {
    fields: Fields,
}

impl ValueDecoder for BytesDecoder {
    fn decode(&mut self, value: &[u8]) -> Result<(), String> {
        self.fields.append(|columns, _| {
            let append = |c: &mut NamedBuilder| append_bytes(&mut c.builder, value).map_err(|bad| bad.within(&c.name));
            columns.iter_mut().try_for_each(append)
        })
    }

    fn truncate(&mut self, len: usize) {
        self.fields.truncate(len);
    }

    fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        self.fields.finish()
    }
}
