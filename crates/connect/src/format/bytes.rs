//! `ENCODE BYTES`: the value as it is, in one column of type bytea (or text, where it must be UTF-8).

use arrow::array::ArrayRef;
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use super::{Format, ValueDecoder, append_bytes};
use crate::column::Builder;
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

    fn decoder(&self, columns: &[Column], _options: &Options) -> Result<Box<dyn ValueDecoder>> {
        let [column] = columns else {
            let error = SqlError::new(SqlState::InvalidTableDefinition, "ENCODE BYTES needs exactly one column");
            return Err(error.with_hint("Declare one column of type bytea; metadata columns come by INCLUDE."));
        };
        if !matches!(column.sql_type, SqlType::Bytea | SqlType::Text | SqlType::Varchar(_)) {
            let message = format!("column \"{}\" of type {} cannot hold bytes", column.name, column.sql_type);
            return Err(SqlError::new(SqlState::DatatypeMismatch, message)
                .with_hint("ENCODE BYTES fills a column of type bytea or text."));
        }
        let (name, builder) = (column.name.clone(), Builder::new(&column.sql_type));
        Ok(Box::new(BytesDecoder { name, builder }))
    }
}

#[derive(Debug)]
struct BytesDecoder {
    name: String,
    builder: Builder,
}

impl ValueDecoder for BytesDecoder {
    fn decode(&mut self, value: &[u8]) -> Result<(), String> {
        let len = self.builder.len();
        let appended = append_bytes(&mut self.builder, value).map_err(|bad| bad.within(&self.name).to_string());
        if appended.is_err() {
            self.builder.truncate(len);
        }
        appended
    }

    fn truncate(&mut self, len: usize) {
        self.builder.truncate(len);
    }

    fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.builder.finish()?])
    }
}
