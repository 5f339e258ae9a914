//! Bytes of COPY FROM, cut into lines as they come.
//!
//! The rules are PostgreSQL's: the first line says how lines end, and the others must end alike; a quoted field of CSV may
//! have line ends of its own; `\.` ends the data. What is cut at is ASCII, so bytes are looked at and never characters.

use std::ops::Range;

use tidewire_sql::{CopyFormat, CopyOptions};
use tidewire_types::{Result, SqlError, SqlState};

/// Bytes of one line at most.
const LINE_BYTES_MAX: usize = 1 << 28;

/// How lines end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Newline,
    Return,
    Both,
}

/// The bytes that are not lines yet, and where the one at hand begins and goes on.
pub struct Lines {
    is_csv: bool,
    quote: u8,
    /// None: a quote within quotes is written twice.
    escape: Option<u8>,
    buffer: Vec<u8>,
    start: usize,
    at: usize,
    ending: Option<Ending>,
    in_quotes: bool,
    is_escaped: bool,
    /// The number of the line at hand, from 1; line ends within quotes count as soon as they were read.
    pub number: u64,
    /// `\.` was read: the rest is ignored.
    is_ended: bool,
}

/// What was found at a byte.
enum Found {
    /// Nothing: one goes on behind it.
    Nothing(usize),
    /// The line ends here; the next begins behind so many bytes.
    End(usize),
    /// The line and the data end here.
    EndOfData,
    /// What comes next decides.
    Undecided,
}

impl Lines {
    pub fn new(options: &CopyOptions) -> Lines {
        Lines {
            is_csv: options.format == CopyFormat::Csv,
            quote: options.quote,
            escape: (options.escape != options.quote).then_some(options.escape),
            buffer: vec![],
            start: 0,
            at: 0,
            ending: None,
            in_quotes: false,
            is_escaped: false,
            number: 1,
            is_ended: false,
        }
    }

    /// Takes more bytes. Errors: `54000` for a line that is too long.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if self.is_ended {
            return Ok(());
        }
        self.buffer.drain(..self.start);
        self.at -= self.start;
        self.start = 0;
        if self.buffer.len() > LINE_BYTES_MAX {
            let message = format!("a line of COPY cannot have more than {LINE_BYTES_MAX} bytes");
            return Err(SqlError::new(SqlState::ProgramLimitExceeded, message));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole line; at the end of the data also one that nothing ends. [`Lines::number`] is its number until
    /// [`Lines::passed`].
    pub fn next(&mut self, is_end: bool) -> Result<Option<&[u8]>> {
        while let (false, Some(&byte)) = (self.is_ended, self.buffer.get(self.at)) {
            match self.look_at(byte, is_end)? {
                Found::Nothing(n) => self.at += n,
                Found::Undecided => return Ok(None),
                Found::End(n) => {
                    let line = self.start..self.at;
                    self.at += n;
                    self.start = self.at;
                    return Ok(self.buffer.get(line));
                }
                Found::EndOfData => {
                    let line = self.end();
                    return Ok(self.buffer.get(line).filter(|line| !line.is_empty()));
                }
            }
        }
        if self.is_ended || !is_end || self.start == self.buffer.len() {
            return Ok(None);
        }
        let line = self.end();
        Ok(self.buffer.get(line))
    }

    /// The line at hand was taken.
    pub fn passed(&mut self) {
        self.number += 1;
    }

    fn end(&mut self) -> Range<usize> {
        let line = self.start..self.at;
        self.is_ended = true;
        self.start = self.buffer.len();
        self.at = self.start;
        line
    }

    fn look_at(&mut self, byte: u8, is_end: bool) -> Result<Found> {
        let next = self.buffer.get(self.at + 1).copied();
        let may_end = matches!(byte, b'\r' | b'\\');
        if may_end && next.is_none() && !is_end {
            return Ok(Found::Undecided);
        }
        if self.is_csv {
            if self.in_quotes && self.escape == Some(byte) {
                self.is_escaped = !self.is_escaped;
            }
            if byte == self.quote && !self.is_escaped {
                self.in_quotes = !self.in_quotes;
            }
            if self.escape != Some(byte) {
                self.is_escaped = false;
            }
            let line_end = if self.ending == Some(Ending::Newline) { b'\n' } else { b'\r' };
            if self.in_quotes {
                self.number += u64::from(byte == line_end);
                return Ok(Found::Nothing(1));
            }
        }
        match (byte, self.ending) {
            (b'\r', Some(Ending::Newline)) => Err(self.other_end("carriage return", "\\r")),
            (b'\r', None | Some(Ending::Both)) if next == Some(b'\n') => {
                self.ending = Some(Ending::Both);
                Ok(Found::End(2))
            }
            (b'\r', Some(Ending::Both)) => Err(self.other_end("carriage return", "\\r")),
            (b'\r', _) => {
                self.ending = Some(Ending::Return);
                Ok(Found::End(1))
            }
            (b'\n', None | Some(Ending::Newline)) => {
                self.ending = Some(Ending::Newline);
                Ok(Found::End(1))
            }
            (b'\n', _) => Err(self.other_end("newline", "\\n")),
            (b'\\', _) if next == Some(b'.') && (!self.is_csv || self.at == self.start) => self.end_marker(is_end),
            // Whatever comes behind a backslash ends no line.
            (b'\\', _) if !self.is_csv => Ok(Found::Nothing(2.min(self.buffer.len() - self.at))),
            _ => Ok(Found::Nothing(1)),
        }
    }

    /// At `\.`: it ends the data where nothing but a line end comes behind it.
    fn end_marker(&self, is_end: bool) -> Result<Found> {
        let behind = |n: usize| self.buffer.get(self.at + n).copied();
        let (second, third) = (behind(2), behind(3));
        let is_short = second.is_none() || self.ending == Some(Ending::Both) && third.is_none();
        if is_short && !is_end {
            return Ok(Found::Undecided);
        }
        let (end, is_whole) = match (self.ending, second, third) {
            (_, None, _) => return Ok(Found::EndOfData),
            (Some(Ending::Both), Some(b'\r'), third) => (third, true),
            (Some(Ending::Both), second, _) => (second, second == Some(b'\n')),
            (_, second, _) => (second, true),
        };
        let is_line_end = matches!(end, Some(b'\r' | b'\n'));
        if self.is_csv && !(is_whole && is_line_end) {
            return Ok(Found::Nothing(1));
        }
        let bad = |message: &str| Err(SqlError::new(SqlState::BadCopyFileFormat, message));
        if !is_line_end {
            return bad("end-of-copy marker corrupt");
        }
        let fits = match self.ending {
            Some(Ending::Return) => end == Some(b'\r'),
            Some(Ending::Newline) => end == Some(b'\n'),
            Some(Ending::Both) => end == Some(b'\n') && is_whole && second == Some(b'\r'),
            None => true,
        };
        if fits { Ok(Found::EndOfData) } else { bad("end-of-copy marker does not match previous newline style") }
    }

    fn other_end(&self, what: &str, escape: &str) -> SqlError {
        let (kind, hint) = match self.is_csv {
            true => ("unquoted", format!("Use quoted CSV field to represent {what}.")),
            false => ("literal", format!("Use \"{escape}\" to represent {what}.")),
        };
        SqlError::new(SqlState::BadCopyFileFormat, format!("{kind} {what} found in data")).with_hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidewire_sql::Statement;

    use super::*;

    fn options(sql: &str) -> CopyOptions {
        match &tidewire_sql::parse(&format!("COPY t FROM STDIN {sql}")).unwrap()[0].statement {
            Statement::CopyFrom(copy) => copy.options.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// The lines of `text` with their numbers; it comes in pieces of `n` bytes.
    fn cut(sql: &str, text: &str, n: usize) -> Result<Vec<(u64, String)>, String> {
        let mut lines = Lines::new(&options(sql));
        let mut cut = vec![];
        let mut take = |lines: &mut Lines, is_end| -> Result<(), SqlError> {
            while let Some(line) = lines.next(is_end)? {
                let line = String::from_utf8(line.to_vec()).unwrap();
                cut.push((lines.number, line));
                lines.passed();
            }
            Ok(())
        };
        for piece in text.as_bytes().chunks(n) {
            lines.push(piece).and_then(|()| take(&mut lines, false)).map_err(|e| e.to_string())?;
        }
        take(&mut lines, true).map_err(|e| e.to_string())?;
        Ok(cut)
    }

    fn check(sql: &str, text: &str, expected: &[(u64, &str)]) {
        for n in 1..=text.len().max(1) {
            let cut = cut(sql, text, n).unwrap();
            let cut: Vec<_> = cut.iter().map(|(number, line)| (*number, line.as_str())).collect();
            assert_eq!(cut, expected, "in pieces of {n}");
        }
    }

    #[test]
    fn lines_end_as_the_first_one_does() {
        for end in ["\n", "\r", "\r\n"] {
            check("", &format!("a{end}{end}b{end}"), &[(1, "a"), (2, ""), (3, "b")]);
            check("CSV", &format!("a{end}\"b{end}\"{end}c"), &[(1, "a"), (3, &format!("\"b{end}\"")), (4, "c")]);
            check("", &format!("a{end}\\.{end}b{end}"), &[(1, "a")]);
            check("CSV", &format!("a{end}\\.{end}b{end}"), &[(1, "a")]);
        }
        for (sql, text, error) in [
            ("", "a\nb\rc", "literal carriage return found in data"),
            ("", "a\rb\nc", "literal newline found in data"),
            ("", "a\r\nb\nc", "literal newline found in data"),
            ("CSV", "a\r\nb\rc", "unquoted carriage return found in data"),
            ("", "a\nb\\.c\n", "end-of-copy marker corrupt"),
            ("", "a\r\n\\.\nb", "end-of-copy marker does not match previous newline style"),
        ] {
            (1..=text.len()).for_each(|n| assert_eq!(cut(sql, text, n), Err(error.to_string()), "{text:?}"));
        }
    }

    #[test]
    fn what_does_not_end_a_line() {
        check("", "a\\\nb\nc", &[(1, "a\\\nb"), (2, "c")]);
        check("", "a\\\\\nb\\", &[(1, "a\\\\"), (2, "b\\")]);
        check("", "a\\.\nb\n", &[(1, "a")]);
        check("CSV", "a\n\"x\n\"\"y\n\"\nb\n\\.x\n", &[(1, "a"), (4, "\"x\n\"\"y\n\""), (5, "b"), (6, "\\.x")]);
        check("CSV QUOTE '''' ESCAPE '!'", "'a!'\nb'\n'!!'\n", &[(1, "'a!'\nb'"), (2, "'!!'")]);
        check("CSV", "\"never closed\nx\n", &[(1, "\"never closed\nx\n")]);
        check("", "", &[]);
    }

    proptest! {
        /// However the bytes come, the lines are the same.
        #[test]
        fn pieces_do_not_matter(text in "[ab\"\\\\.\r\n]{0,24}", n in 1_usize..8, is_csv in any::<bool>()) {
            let sql = if is_csv { "CSV" } else { "" };
            prop_assert_eq!(cut(sql, &text, n), cut(sql, &text, 64));
        }
    }
}
