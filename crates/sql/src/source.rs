//! Places in a text: the tokenizer counts lines and columns, PostgreSQL counts characters.

use sqlparser::tokenizer::{Location, Span};

/// A text and where its lines begin.
pub(crate) struct Source<'a> {
    pub text: &'a str,
    lines: Vec<Line>,
    ascii: bool,
}

/// Where a line begins.
#[derive(Clone, Copy)]
struct Line {
    byte: usize,
    char: usize,
}

impl<'a> Source<'a> {
    pub fn new(text: &'a str) -> Source<'a> {
        let ascii = text.is_ascii();
        let mut at = Line { byte: 0, char: 0 };
        let mut lines = vec![at];
        for line in text.split_inclusive('\n') {
            at.byte += line.len();
            at.char += if ascii { line.len() } else { line.chars().count() };
            lines.push(at);
        }
        Source { text, lines, ascii }
    }

    /// The byte where `location` points; the end of the text for a location outside it.
    pub fn byte(&self, location: Location) -> usize {
        let Some((line, column)) = self.line(location) else { return self.text.len() };
        let rest = self.text.get(line.byte..).unwrap_or_default();
        let within = if self.ascii { Some(column) } else { rest.char_indices().nth(column).map(|(byte, _)| byte) };
        within.map_or(self.text.len(), |byte| (line.byte + byte).min(self.text.len()))
    }

    /// The character where `location` points; the first is 0.
    pub fn char(&self, location: Location) -> usize {
        match self.line(location) {
            Some((line, column)) => line.char + column,
            None => self.n_chars(),
        }
    }

    /// How many characters there are.
    pub fn n_chars(&self) -> usize {
        self.lines.last().map_or(0, |end| end.char)
    }

    /// What stands at `span`.
    pub fn slice(&self, span: Span) -> &'a str {
        self.text.get(self.byte(span.start)..self.byte(span.end)).unwrap_or_default()
    }

    fn line(&self, location: Location) -> Option<(Line, usize)> {
        let line = self.lines.get(usize::try_from(location.line).ok()?.checked_sub(1)?)?;
        Some((*line, usize::try_from(location.column).ok()?.checked_sub(1)?))
    }
}
