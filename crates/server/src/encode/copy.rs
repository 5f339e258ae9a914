//! Rows as lines of COPY: text with backslashes, or CSV with quotes, each line a CopyData message.
//!
//! The rules are PostgreSQL's for COPY TO. What must be escaped is ASCII, so bytes are looked at and never characters.

use bytes::{BufMut, BytesMut};
use tidewire_sql::{CopyFormat, CopyOptions};
use tidewire_types::Result;

use super::{Rows, set_length};

impl Rows {
    /// Appends the CopyData message of one row.
    pub fn write_line(&self, row: usize, options: &CopyOptions, out: &mut BytesMut) -> Result<()> {
        let mut scratch = BytesMut::new();
        let alone = self.columns.len() == 1;
        line(out, self.columns.iter(), options, |(column, _), out| {
            if column.is_null(row) {
                return out.put_slice(options.null.as_bytes());
            }
            scratch.clear();
            column.write_text(row, self.style, &mut scratch);
            write_value(&scratch, alone, options, out);
        })
    }
}

/// Appends the CopyData message of the columns' names.
pub fn write_names<'a>(
    names: impl ExactSizeIterator<Item = &'a str>,
    options: &CopyOptions,
    out: &mut BytesMut,
) -> Result<()> {
    let alone = names.len() == 1;
    line(out, names, options, |name, out| write_value(name.as_bytes(), alone, options, out))
}

fn line<T>(
    out: &mut BytesMut,
    values: impl Iterator<Item = T>,
    options: &CopyOptions,
    mut write: impl FnMut(T, &mut BytesMut),
) -> Result<()> {
    out.put_u8(b'd');
    let start = out.len();
    out.put_i32(0);
    for (n, value) in values.enumerate() {
        if n > 0 {
            out.put_u8(options.delimiter);
        }
        write(value, out);
    }
    out.put_u8(b'\n');
    set_length(out, start, out.len() - start)
}

/// `alone`: it is the only value of its line.
fn write_value(value: &[u8], alone: bool, options: &CopyOptions, out: &mut BytesMut) {
    match options.format {
        CopyFormat::Text => write_escaped(value, options.delimiter, out),
        CopyFormat::Csv => write_quoted(value, alone, options, out),
    }
}

fn write_escaped(value: &[u8], delimiter: u8, out: &mut BytesMut) {
    out.reserve(value.len());
    for &byte in value {
        let escaped = match byte {
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x0b => b'v',
            b'\\' => b'\\',
            byte if byte == delimiter => byte,
            byte => {
                out.put_u8(byte);
                continue;
            }
        };
        out.put_u8(b'\\');
        out.put_u8(escaped);
    }
}

fn write_quoted(value: &[u8], alone: bool, options: &CopyOptions, out: &mut BytesMut) {
    let special = |byte: &u8| [options.delimiter, options.quote, b'\n', b'\r'].contains(byte);
    // A value must not read as NULL, nor a line as the end of the data.
    let misread = value == options.null.as_bytes() || alone && value == b"\\.";
    if !misread && !value.iter().any(special) {
        return out.put_slice(value);
    }
    out.put_u8(options.quote);
    for &byte in value {
        if byte == options.quote || byte == options.escape {
            out.put_u8(options.escape);
        }
        out.put_u8(byte);
    }
    out.put_u8(options.quote);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    use expect_test::{Expect, expect};
    use tidewire_sql::Statement;
    use tidewire_types::SqlType;

    use super::super::{Format, Style};
    use super::*;

    fn options(sql: &str) -> CopyOptions {
        match &tidewire_sql::parse(&format!("COPY t TO STDOUT {sql}")).unwrap()[0].statement {
            Statement::Copy(copy) => copy.options.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// The lines of `rows`; the lengths of the messages are checked.
    fn check(sql: &str, rows: &[&[Option<&str>]], expected: Expect) {
        let options = options(sql);
        let columns = (0..rows[0].len()).map(|idx| {
            let values: StringArray = rows.iter().map(|row| row[idx]).collect();
            (format!("c,{idx}"), Arc::new(values) as ArrayRef, true)
        });
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let n = batch.num_columns();
        let style = Style { time_zone: None };
        let encoded = Rows::new(&batch, &vec![SqlType::Text; n], &vec![Format::Text; n], style).unwrap();
        let mut out = BytesMut::new();
        if options.header {
            let schema = batch.schema();
            write_names(schema.fields().iter().map(|f| f.name().as_str()), &options, &mut out).unwrap();
        }
        (0..batch.num_rows()).for_each(|row| encoded.write_line(row, &options, &mut out).unwrap());
        let mut text = String::new();
        while !out.is_empty() {
            assert_eq!(out[0], b'd');
            let length = u32::from_be_bytes(out[1..5].try_into().unwrap()) as usize;
            text += std::str::from_utf8(&out.split_to(length + 1)[5..]).unwrap();
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn text_escapes_with_backslashes() {
        let rows: &[&[_]] = &[
            &[Some("a\tb"), None],
            &[Some("new\nline\r"), Some("back\\slash")],
            &[Some("\u{8}\u{b}\u{c}\u{1}é|"), Some("")],
        ];
        check("", rows, expect!["a\\tb\t\\N\nnew\\nline\\r\tback\\\\slash\n\\b\\v\\f\u{1}é|\t\n"]);
        check(
            "(DELIMITER '|', NULL '', HEADER)",
            &[&[Some("a|b"), None, Some("c")]],
            expect!["c,0|c,1|c,2\na\\|b||c\n"],
        );
    }

    #[test]
    fn csv_quotes_where_it_must() {
        let rows: &[&[_]] = &[
            &[Some("plain"), None, Some("")],
            &[Some("a,b"), Some("say \"x\""), Some("two\nlines")],
            &[Some(" blank "), Some("\\."), Some("\\")],
        ];
        check(
            "CSV HEADER",
            rows,
            expect![[r#"
                "c,0","c,1","c,2"
                plain,,""
                "a,b","say ""x""","two
                lines"
                 blank ,\.,\
            "#]],
        );
        check("CSV", &[&[Some("\\.")]], expect!["\"\\.\"\n"]);
        let rows: &[&[_]] = &[&[Some("it's"), Some("a!b;"), Some("a!b"), Some("none"), None]];
        check(
            "CSV DELIMITER ';' QUOTE '''' ESCAPE '!' NULL 'none'",
            rows,
            expect!["'it!'s';'a!!b;';a!b;'none';none\n"],
        );
    }
}
