//! A line of COPY FROM as fields: text with backslashes, or CSV with quotes, by PostgreSQL's rules.

use std::borrow::Cow;

use tidewire_sql::{CopyFormat, CopyOptions};
use tidewire_types::{Result, SqlError, SqlState};

/// One field of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// What stands for NULL.
    Null,
    /// What stands for the column's default.
    Default,
    /// A value.
    Text(Cow<'a, str>),
}

/// How lines are read.
pub struct FieldReader {
    pub options: CopyOptions,
    /// What stands for a default.
    pub default: Option<String>,
}

impl FieldReader {
    /// The fields of a line. Errors: `22P04` for a quote that nothing closes; `22021` for escapes that are no UTF-8.
    pub fn fields<'a>(&self, line: &'a str) -> Result<Vec<Field<'a>>> {
        match self.options.format {
            CopyFormat::Text => self.escaped(line),
            CopyFormat::Csv => self.quoted(line),
        }
    }

    fn marker(&self, raw: &str) -> Option<Field<'static>> {
        match raw {
            raw if raw == self.options.null => Some(Field::Null),
            raw if self.default.as_deref() == Some(raw) => Some(Field::Default),
            _ => None,
        }
    }

    fn escaped<'a>(&self, line: &'a str) -> Result<Vec<Field<'a>>> {
        let delimiter = self.options.delimiter;
        let bytes = line.as_bytes();
        let mut fields = vec![];
        let (mut start, mut at, mut has_escapes) = (0, 0, false);
        loop {
            match bytes.get(at) {
                Some(b'\\') => {
                    has_escapes = true;
                    at += 2;
                }
                Some(byte) if *byte != delimiter => at += 1,
                found => {
                    // Backslashes and delimiters are ASCII: these are ends of characters.
                    let raw = line.get(start..at.min(line.len())).unwrap_or_default();
                    fields.push(match self.marker(raw) {
                        Some(marker) => marker,
                        None if has_escapes => Field::Text(Cow::Owned(unescaped(raw)?)),
                        None => Field::Text(Cow::Borrowed(raw)),
                    });
                    if found.is_none() {
                        return Ok(fields);
                    }
                    at += 1;
                    (start, has_escapes) = (at, false);
                }
            }
        }
    }

    fn quoted<'a>(&self, line: &'a str) -> Result<Vec<Field<'a>>> {
        let CopyOptions { delimiter, quote, escape, .. } = self.options;
        let bytes = line.as_bytes();
        let mut fields = vec![];
        let mut at = 0;
        loop {
            let start = at;
            let mut is_quoted = false;
            // None: what was read so far is as it stands.
            let mut text: Option<Vec<u8>> = None;
            let mut in_quotes = false;
            let is_last = loop {
                let Some(&byte) = bytes.get(at) else {
                    if in_quotes {
                        return Err(SqlError::new(SqlState::BadCopyFileFormat, "unterminated CSV quoted field"));
                    }
                    break true;
                };
                let follows = bytes.get(at + 1).copied();
                if !in_quotes && byte == delimiter {
                    break false;
                }
                if in_quotes && byte == escape && follows.is_some_and(|b| b == escape || b == quote) {
                    text.get_or_insert_default().extend(follows);
                    at += 2;
                } else if byte == quote {
                    text.get_or_insert_with(|| bytes.get(start..at).unwrap_or_default().to_vec());
                    (in_quotes, is_quoted) = (!in_quotes, true);
                    at += 1;
                } else {
                    if let Some(text) = &mut text {
                        text.push(byte);
                    }
                    at += 1;
                }
            };
            let raw = line.get(start..at).unwrap_or_default();
            fields.push(match (self.marker(raw).filter(|_| !is_quoted), text) {
                (Some(marker), _) => marker,
                (None, Some(text)) => Field::Text(Cow::Owned(utf8(text)?)),
                (None, None) => Field::Text(Cow::Borrowed(raw)),
            });
            if is_last {
                return Ok(fields);
            }
            at += 1;
        }
    }
}

/// A value without its backslashes.
fn unescaped(raw: &str) -> Result<String> {
    let mut bytes = raw.bytes().peekable();
    let mut text = Vec::with_capacity(raw.len());
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        let Some(escape) = bytes.next() else { break };
        let digit = |byte: &u8, radix| char::from(*byte).to_digit(radix).and_then(|digit| u8::try_from(digit).ok());
        text.push(match escape {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'0'..=b'7' => {
                let mut value = escape - b'0';
                for _ in 0..2 {
                    let Some(next) = bytes.peek().and_then(|b| digit(b, 8)) else { break };
                    bytes.next();
                    value = value.wrapping_mul(8).wrapping_add(next);
                }
                value
            }
            b'x' => match bytes.peek().and_then(|b| digit(b, 16)) {
                None => b'x',
                Some(first) => {
                    bytes.next();
                    match bytes.peek().and_then(|b| digit(b, 16)) {
                        None => first,
                        Some(second) => {
                            bytes.next();
                            first * 16 + second
                        }
                    }
                }
            },
            other => other,
        });
    }
    utf8(text)
}

/// Errors: `22021` for bytes that are no text.
pub fn utf8(bytes: Vec<u8>) -> Result<String> {
    let invalid = |bytes: &[u8]| {
        let shown: Vec<String> = bytes.iter().map(|byte| format!("0x{byte:02x}")).collect();
        let message = format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" "));
        SqlError::new(SqlState::CharacterNotInRepertoire, message)
    };
    match String::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => Err(invalid(&[0])),
        Ok(text) => Ok(text),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let rest = error.as_bytes().get(at..).unwrap_or_default();
            // As many as its first byte says that the character has.
            let n = match rest.first() {
                Some(0xc0..=0xdf) => 2,
                Some(0xe0..=0xef) => 3,
                Some(0xf0..=0xf7) => 4,
                _ => 1,
            };
            Err(invalid(rest.get(..n).unwrap_or(rest)))
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;
    use tidewire_sql::Statement;

    use super::*;

    fn reader(sql: &str) -> FieldReader {
        match &tidewire_sql::parse(&format!("COPY t FROM STDIN {sql}")).unwrap()[0].statement {
            Statement::CopyFrom(copy) => FieldReader { options: copy.options.clone(), default: copy.default.clone() },
            other => panic!("{other:?}"),
        }
    }

    fn check(sql: &str, lines: &[&str], expected: Expect) {
        let reader = reader(sql);
        let shown = |line: &&str| match reader.fields(line) {
            Err(error) => format!("{line} -> {}: {error}\n", error.state().code()),
            Ok(fields) => {
                let fields = fields.iter().map(|field| match field {
                    Field::Null => "NULL".to_owned(),
                    Field::Default => "DEFAULT".to_owned(),
                    Field::Text(text) => format!("{text:?}"),
                });
                format!("{line} -> {}\n", fields.collect::<Vec<_>>().join(" | "))
            }
        };
        expected.assert_eq(&lines.iter().map(shown).collect::<String>());
    }

    #[test]
    fn text_has_backslashes() {
        check(
            "(DELIMITER '|', DEFAULT '\\D')",
            &[
                "",
                "a||\\N",
                "\\N|\\D|\\\\N|\\\\D",
                "a\\|b|\\t\\101\\x41\\x4g\\xg\\é\\",
                "\\377",
                "\\0",
                "é\\303\\251|\\1234",
            ],
            expect![[r#"
                 -> ""
                a||\N -> "a" | "" | NULL
                \N|\D|\\N|\\D -> NULL | DEFAULT | "\\N" | "\\D"
                a\|b|\t\101\x41\x4g\xg\é\ -> "a|b" | "\tAA\u{4}gxgé"
                \377 -> 22021: invalid byte sequence for encoding "UTF8": 0xff
                \0 -> 22021: invalid byte sequence for encoding "UTF8": 0x00
                é\303\251|\1234 -> "éé" | "S4"
            "#]],
        );
    }

    #[test]
    fn csv_has_quotes() {
        check(
            "(FORMAT csv, DEFAULT 'def')",
            &["", "a,,\"\"", "\"a,\"\"b\"c,d\"e\"", "def,\"def\"", "é\"é\"", "\"a", "a\""],
            expect![[r#"
                 -> NULL
                a,,"" -> "a" | NULL | ""
                "a,""b"c,d"e" -> "a,\"bc" | "de"
                def,"def" -> DEFAULT | "def"
                é"é" -> "éé"
                "a -> 22P04: unterminated CSV quoted field
                a" -> 22P04: unterminated CSV quoted field
            "#]],
        );
        check(
            "CSV DELIMITER ';' QUOTE '''' ESCAPE '!' NULL 'none'",
            &["'it!'s !!';none;'none';!x", "a!'b';c"],
            expect![[r#"
                'it!'s !!';none;'none';!x -> "it's !" | NULL | "none" | "!x"
                a!'b';c -> "a!b" | "c"
            "#]],
        );
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "[a\"\\\\,\t0-9xé]{0,16}", is_csv in any::<bool>()) {
            // The property is that it returns.
            let _ = reader(if is_csv { "CSV" } else { "" }).fields(&line);
        }
    }
}
