//! `ENCODE JSON`: an object a record, read straight into the columns.
//!
//! The schema drives the parser: each value is read as what its column is, without a tree or tokens in between, and
//! what no column wants is only checked. Numbers never pass through a float on their way to an exact type.
//!
//! - A key is a column by its exact name, else without regard to case; of equal keys the last one counts; a missing
//!   column is NULL and so is JSON's null; unknown keys are left alone.
//! - A number may stand in a string, a number or a boolean may be the value of a text column.
//! - Times are ISO 8601 strings or numbers since 1970 (option `timestamp`); bytea is base64 or `\x` and hexadecimal.
//! - Bad are: what is not JSON (RFC 8259) or not UTF-8, anything behind the object, a value of another type, out of
//!   range or too long for `varchar(n)`, more than 128 levels.

mod cursor;
mod jsonb;
mod keys;
mod value;

use arrow::array::ArrayRef;
use tidewire_types::Result;

use self::cursor::Cursor;
pub(crate) use self::jsonb::jsonb_text;
pub(crate) use self::keys::Keys;
use self::value::Context;
use super::fields::Fields;
use super::{Format, ValueDecoder, utf8};
use crate::bad::{Outcome, bad};
use crate::column::Builder;
use crate::text::EpochUnit;
use crate::{Column, OptionSpec, Options};

/// `ENCODE JSON`.
pub(super) struct Json;

impl Format for Json {
    fn name(&self) -> &'static str {
        "JSON"
    }

    fn options(&self) -> &'static [OptionSpec] {
        &[OptionSpec {
            name: "timestamp",
            required: false,
            help: "What a number means where a time is expected: second, milli, micro, nano, or auto (default): by its \
                   size, seconds below 10^11, milliseconds below 10^14, microseconds below 10^17, else nanoseconds.",
        }]
    }

    fn decoder(&self, columns: &[Column], is_read: &[bool], options: &Options) -> Result<Box<dyn ValueDecoder>> {
        let epoch = match options.get("timestamp") {
            None => EpochUnit::Auto,
            Some(name) => EpochUnit::read(name)
                .ok_or_else(|| options.invalid("timestamp", "it must be auto, second, milli, micro or nano"))?,
        };
        let keys = Keys::new(columns.iter().map(|c| c.name.as_str()));
        Ok(Box::new(JsonDecoder { fields: Fields::new(columns, is_read), keys, context: Context::new(epoch) }))
    }
}

/// Reads objects into columns.
#[derive(Debug)]
struct JsonDecoder {
    fields: Fields,
    keys: Keys,
    context: Context,
}

impl ValueDecoder for JsonDecoder {
    fn decode(&mut self, value: &[u8]) -> Result<(), String> {
        let (keys, context) = (&mut self.keys, &mut self.context);
        self.fields.append(|fields, row| {
            let mut cursor = Cursor::new(utf8(value)?);
            match cursor.peek() {
                b'{' => {}
                0 if cursor.at_end() => return Err(bad("record is empty")),
                _ => {
                    // What is no JSON at all is told from what is JSON of another kind.
                    cursor.skip(0)?;
                    return Err(bad("record is not a JSON object"));
                }
            }
            context.object(&mut cursor, fields, keys, row, 0)?;
            cursor.end()
        })
    }

    fn truncate(&mut self, len: usize) {
        self.fields.truncate(len);
    }

    fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        self.fields.finish()
    }
}

/// Appends the value that a JSON text is; the builder must be truncated after an error.
pub(crate) fn append_json(builder: &mut Builder, text: &str) -> Outcome<()> {
    let mut cursor = Cursor::new(text);
    Context::new(EpochUnit::Auto).value(&mut cursor, builder, 0)?;
    cursor.end()
}

/// Whether a text is one JSON value.
pub(crate) fn check_json(text: &str) -> Outcome<()> {
    let mut cursor = Cursor::new(text);
    cursor.skip(0)?;
    cursor.end()
}

#[cfg(test)]
mod tests;
