//! The fields of a date or time, told apart by their form.

use super::Bad;

/// Fields of one text.
const FIELDS_MAX: usize = 25;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// Digits, with a fraction or not.
    Number,
    /// Several parts with `-`, `/` or `.` between them.
    Date,
    /// Parts with colons between them.
    Time,
    /// `+02:00`
    Offset,
    Word,
}

/// A field as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
}

/// Splits a text into fields.
pub(super) fn split(text: &str) -> Result<Vec<Token<'_>>, Bad> {
    let mut tokens = vec![];
    let mut rest = Rest { text, at: 0 };
    loop {
        rest.skip(|c| c.is_ascii_whitespace());
        let Some(first) = rest.peek() else { return Ok(tokens) };
        let begin = rest.at;
        let kind = match first {
            '0'..='9' => rest.number(),
            '.' => {
                rest.next();
                rest.skip(|c| c.is_ascii_digit());
                Kind::Number
            }
            'a'..='z' | 'A'..='Z' => rest.word(),
            '+' | '-' => rest.signed()?,
            // Other punctuation only separates.
            c if c.is_ascii_punctuation() => {
                rest.next();
                continue;
            }
            _ => return Err(Bad::Syntax),
        };
        if tokens.len() == FIELDS_MAX {
            return Err(Bad::Syntax);
        }
        tokens.push(Token { kind, text: text.get(begin..rest.at).unwrap_or_default() });
    }
}

struct Rest<'a> {
    text: &'a str,
    at: usize,
}

impl Rest<'_> {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    fn next(&mut self) {
        self.at += self.peek().map_or(0, char::len_utf8);
    }

    fn skip(&mut self, is: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&is) {
            self.next();
        }
    }

    fn number(&mut self) -> Kind {
        self.skip(|c| c.is_ascii_digit());
        match self.peek() {
            Some(':') => {
                self.skip(|c| c.is_ascii_digit() || matches!(c, ':' | '.'));
                Kind::Time
            }
            Some(delimiter @ ('-' | '/' | '.')) => {
                self.next();
                if !self.peek().is_some_and(|c| c.is_ascii_digit()) {
                    self.skip(|c| c.is_ascii_alphanumeric() || c == delimiter);
                    return Kind::Date;
                }
                self.skip(|c| c.is_ascii_digit());
                if self.peek() != Some(delimiter) {
                    return if delimiter == '.' { Kind::Number } else { Kind::Date };
                }
                self.skip(|c| c.is_ascii_digit() || c == delimiter);
                Kind::Date
            }
            _ => Kind::Number,
        }
    }

    /// A word, a date that begins with one, or the name of a zone.
    fn word(&mut self) -> Kind {
        let begin = self.at;
        self.skip(|c| c.is_ascii_alphabetic());
        let word = self.text.get(begin..self.at).unwrap_or_default();
        let is_longer = match self.peek() {
            Some('-' | '/' | '.') => true,
            Some(c) if c == '+' || c.is_ascii_digit() => !super::words::is_known(word),
            _ => false,
        };
        if !is_longer {
            return Kind::Word;
        }
        self.skip(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '/' | '_' | '.' | ':'));
        Kind::Date
    }

    /// An offset, or a word with a sign; there may be blanks behind the sign.
    fn signed(&mut self) -> Result<Kind, Bad> {
        self.next();
        self.skip(|c| c.is_ascii_whitespace());
        match self.peek() {
            Some('0'..='9') => {
                self.skip(|c| c.is_ascii_digit() || matches!(c, ':' | '.' | '-'));
                Ok(Kind::Offset)
            }
            Some(c) if c.is_ascii_alphabetic() => {
                self.skip(|c| c.is_ascii_alphabetic());
                Ok(Kind::Word)
            }
            _ => Err(Bad::Syntax),
        }
    }
}
