//! `ENCODE CSV`: one line a record (RFC 4180), its fields the columns in their declared order.
//!
//! An empty field is NULL unless it is quoted (an empty string then), as in PostgreSQL's COPY; a record with fewer or
//! more fields than columns is bad. Values are read as PostgreSQL reads them from text; JSON types, arrays and structs
//! from JSON.

use arrow::array::ArrayRef;
use tidewire_types::Result;

use super::fields::Fields;
use super::{Format, ValueDecoder, append_bytes, utf8};
use crate::bad::{Outcome, bad};
use crate::{Column, OptionSpec, Options};

/// `ENCODE CSV`.
pub(super) struct Csv;

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "delimiter", required: false, help: "The character between fields; default ','." },
    OptionSpec { name: "quote", required: false, help: "The character around fields; default '\"'." },
    OptionSpec { name: "null", required: false, help: "What stands for NULL when not quoted; default: nothing." },
    OptionSpec {
        name: "without_header",
        required: false,
        help: "false: the first line of each file names columns and is left out. Default true.",
    },
];

impl Format for Csv {
    fn name(&self) -> &'static str {
        "CSV"
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn decoder(&self, columns: &[Column], is_read: &[bool], options: &Options) -> Result<Box<dyn ValueDecoder>> {
        Ok(Box::new(CsvDecoder {
            fields: Fields::new(columns, is_read),
            dialect: Dialect::new(options)?,
            null: options.get("null").unwrap_or_default().to_string(),
            scratch: String::new(),
        }))
    }
}

/// The characters with a meaning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    delimiter: u8,
    quote: u8,
}

impl Dialect {
    /// Errors: `22023` for one that is not a single ASCII character.
    pub(crate) fn new(options: &Options) -> Result<Dialect> {
        let character = |name: &str, default: u8| match options.get(name) {
            None => Ok(default),
            Some("\\t" | "TAB" | "tab") => Ok(b'\t'),
            Some("SPACE" | "space") => Ok(b' '),
            Some(text) => match text.as_bytes() {
                [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r') => Ok(*byte),
                _ => Err(options.invalid(name, "it must be one ASCII character")),
            },
        };
        let dialect = Dialect { delimiter: character("delimiter", b',')?, quote: character("quote", b'"')? };
        if dialect.delimiter == dialect.quote {
            return Err(options.invalid("delimiter", "it must differ from the quote"));
        }
        Ok(dialect)
    }

    /// Where the first record of `bytes` ends: behind its line feed. A line feed between quotes is part of a field.
    pub(crate) fn record_end(&self, bytes: &[u8]) -> Option<usize> {
        let mut is_quoted = false;
        bytes
            .iter()
            .position(|b| {
                is_quoted ^= *b == self.quote;
                *b == b'\n' && !is_quoted
            })
            .map(|at| at + 1)
    }
}

#[derive(Debug)]
struct CsvDecoder {
    fields: Fields,
    dialect: Dialect,
    null: String,
    scratch: String,
}

impl ValueDecoder for CsvDecoder {
    fn decode(&mut self, value: &[u8]) -> Result<(), String> {
        let (dialect, null, scratch) = (&self.dialect, &self.null, &mut self.scratch);
        self.fields.append(|columns, _| {
            let line = utf8(value)?;
            let mut rest = Some(line.strip_suffix('\n').map_or(line, |l| l.strip_suffix('\r').unwrap_or(l)));
            let n_columns = columns.len();
            let mut columns = columns.iter_mut();
            let mut n_fields = 0;
            while let Some(text) = rest {
                let (field, is_quoted, next) = dialect.field(text, scratch)?;
                rest = next;
                if let Some(column) = columns.next() {
                    if !is_quoted && field == null {
                        column.builder.append_null();
                    } else {
                        append_bytes(&mut column.builder, field.as_bytes()).map_err(|bad| bad.within(&column.name))?;
                    }
                }
                n_fields += 1;
            }
            if n_fields != n_columns {
                return Err(bad(format!("record has {n_fields} fields, {n_columns} are expected")));
            }
            Ok(())
        })
    }

    fn truncate(&mut self, len: usize) {
        self.fields.truncate(len);
    }

    fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        self.fields.finish()
    }
}

impl Dialect {
    /// The first field of a line, whether it was quoted, and the line behind its delimiter.
    fn field<'a: 'r, 'r>(&self, text: &'a str, scratch: &'r mut String) -> Outcome<(&'r str, bool, Option<&'a str>)> {
        let (delimiter, quote) = (char::from(self.delimiter), char::from(self.quote));
        let Some(mut quoted) = text.strip_prefix(quote) else {
            return Ok(match text.split_once(delimiter) {
                Some((field, rest)) => (field, false, Some(rest)),
                None => (text, false, None),
            });
        };
        scratch.clear();
        loop {
            let (part, rest) = quoted.split_once(quote).ok_or_else(|| bad("not CSV: a quoted field does not end"))?;
            scratch.push_str(part);
            if let Some(more) = rest.strip_prefix(quote) {
                scratch.push(quote);
                quoted = more;
            } else if rest.is_empty() {
                return Ok((scratch, true, None));
            } else if let Some(rest) = rest.strip_prefix(delimiter) {
                return Ok((scratch, true, Some(rest)));
            } else {
                return Err(bad("not CSV: something stands behind a closing quote"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use tidewire_types::SqlType;

    use crate::format::tests::{check_with, column, columns};

    fn check(options: &[(&str, &str)], lines: &[&str], expected: Expect) {
        let columns =
            columns(&[("a", SqlType::Int4), ("b", SqlType::Text), ("c", SqlType::Jsonb), ("d", SqlType::Bool)]);
        check_with("CSV", options, &columns, &[0, 1, 2], lines, expected);
    }

    #[test]
    fn fields_are_columns() {
        check(
            &[],
            &["1,x,,t", "2,\"a \"\"b\"\"\n,c\",\"{\"\"k\"\": 1}\",f\r\n", ",\"\",[1],", "3,,null,"],
            expect![[r#"
                +---+-------+----------+
                | a | b     | c        |
                +---+-------+----------+
                | 1 | x     |          |
                | 2 | a "b" | {"k": 1} |
                |   | ,c    |          |
                |   |       | [1]      |
                | 3 |       |          |
                +---+-------+----------+
            "#]],
        );
    }

    #[test]
    fn bad_lines_leave_no_trace() {
        check(
            &[("delimiter", ";"), ("null", "\\N")],
            &[
                "1;x;\\N;t",
                "1;x",
                "1;x;\\N;t;5",
                "one;x;\\N;t",
                "2;\"x;\\N;t",
                "2;\"x\"y;\\N;t",
                "2;x;{;t",
                "2;\"\\N\";3;f",
            ],
            expect![[r#"
                record has 2 fields, 4 are expected
                record has 5 fields, 4 are expected
                column "a": invalid input syntax for type integer: "one"
                not CSV: a quoted field does not end
                not CSV: something stands behind a closing quote
                column "c": not JSON: expected a key, found the end of the record
                +---+----+---+
                | a | b  | c |
                +---+----+---+
                | 1 | x  |   |
                | 2 | \N | 3 |
                +---+----+---+
            "#]],
        );
    }

    #[test]
    fn a_delimiter_is_one_character() {
        let spec = crate::FormatSpec {
            format: "PLAIN".into(),
            encode: "CSV".into(),
            options: crate::Options::new([("delimiter".to_string(), "ab".to_string())]).unwrap(),
        };
        let error = crate::Decoder::new(&[column("a", SqlType::Text)], &[0], &spec).unwrap_err();
        assert_eq!(error.message(), "invalid value for option \"delimiter\": it must be one ASCII character");
    }
}
