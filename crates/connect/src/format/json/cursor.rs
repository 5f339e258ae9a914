//! A cursor over one JSON text: reads or skips one token or value at a time, strictly by RFC 8259.
//!
//! Invariant: the text is UTF-8 and the cursor stands on a character's first byte, so that what lies between two
//! quotes is a `str` without another check. Never deeper than [`DEPTH_MAX`], so recursion cannot exhaust the stack.
//! Strings are scanned eight bytes at a time, two words a step (Mycroft's zero-byte test, as in Lamport's "Multiple
//! byte processing with full-word instructions").

use crate::bad::{Bad, Outcome, bad};

/// How many arrays and objects may stand in each other.
pub(super) const DEPTH_MAX: u32 = 128;

/// A place in a JSON text.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    pos: usize,
}

/// A number: its text and, where it is a whole number without an exponent, its digits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<'a> {
    pub(super) text: &'a str,
    pub(super) negative: bool,
    /// No point and no exponent.
    pub(super) integral: bool,
    /// The digits before the point; right where there are at most 19 of them.
    digits: u64,
    n_digits: usize,
}

impl Number<'_> {
    /// The number, where it is written as a whole one and 64 bits hold it.
    #[inline]
    pub(super) fn integer(&self) -> Option<i64> {
        if !self.integral || self.n_digits > 19 {
            None
        } else if self.negative {
            (self.digits <= i64::MIN.unsigned_abs()).then_some(0i64.wrapping_sub_unsigned(self.digits))
        } else {
            i64::try_from(self.digits).ok()
        }
    }
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Cursor<'a> {
        Cursor { text, pos: 0 }
    }

    #[inline]
    fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.pos).copied().unwrap_or(0)
    }

    /// The next byte that is not a blank; 0, which begins nothing, at the end.
    #[inline]
    pub(super) fn peek(&mut self) -> u8 {
        loop {
            match self.byte() {
                b' ' | b'\t' | b'\n' | b'\r' => self.pos += 1,
                byte => return byte,
            }
        }
    }

    /// Steps over these bytes if they come next.
    #[inline]
    pub(super) fn eat(&mut self, bytes: &[u8]) -> bool {
        let next = self.text.as_bytes().get(self.pos..).is_some_and(|rest| rest.starts_with(bytes));
        if next {
            self.pos += bytes.len();
        }
        next
    }

    /// The next 16 bytes, the first one lowest; None near the end.
    #[inline]
    pub(super) fn next_16(&self) -> Option<u128> {
        let next = self.text.as_bytes().get(self.pos..self.pos + 16)?;
        Some(u128::from_le_bytes(next.try_into().ok()?))
    }

    /// Steps over bytes that [`Cursor::next_16`] has shown; they must end a token.
    #[inline]
    pub(super) fn advance(&mut self, n: usize) {
        self.pos += n;
    }

    /// The colon behind a key.
    #[inline]
    pub(super) fn colon(&mut self) -> Outcome<()> {
        if self.peek() != b':' {
            return Err(self.error("expected \":\" behind a key"));
        }
        self.pos += 1;
        Ok(())
    }

    pub(super) fn at_end(&self) -> bool {
        self.pos >= self.text.len()
    }

    /// Nothing but blanks follow.
    #[inline]
    pub(super) fn end(&mut self) -> Outcome<()> {
        self.peek();
        if self.at_end() { Ok(()) } else { Err(self.error("expected the end")) }
    }

    /// How far the cursor is, for [`Cursor::since`].
    pub(super) fn position(&self) -> usize {
        self.pos
    }

    /// The text from a position up to the cursor.
    pub(super) fn since(&self, position: usize) -> &'a str {
        self.text.get(position..self.pos).unwrap_or_default()
    }

    /// An error here.
    #[cold]
    pub(super) fn error(&self, expected: &str) -> Box<Bad> {
        if self.at_end() {
            bad(format!("not JSON: {expected}, found the end of the record"))
        } else {
            bad(format!("not JSON: {expected} at byte {}", self.pos + 1))
        }
    }

    /// One level deeper than `depth`.
    #[inline]
    pub(super) fn enter(&self, depth: u32) -> Outcome<u32> {
        if depth >= DEPTH_MAX {
            return Err(bad(format!("JSON is nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(depth + 1)
    }

    /// `true`, `false` or `null`, which `peek` has shown to begin here.
    #[inline]
    pub(super) fn literal(&mut self, word: &str) -> Outcome<()> {
        if self.eat(word.as_bytes()) { Ok(()) } else { Err(self.error("expected a value")) }
    }

    /// The string that begins here, escapes resolved; `scratch` is used where there are any.
    #[inline]
    pub(super) fn string<'r>(&mut self, scratch: &'r mut String) -> Outcome<&'r str>
    where
        'a: 'r,
    {
        let start = self.pos + 1;
        self.pos = self.string_end(start);
        match self.byte() {
            b'"' => {
                let string = self.since(start);
                self.pos += 1;
                Ok(string)
            }
            b'\\' => {
                scratch.clear();
                self.unescape(start, scratch)?;
                Ok(scratch)
            }
            _ => Err(self.unfinished()),
        }
    }

    /// Where the next quote, backslash or control character is; the end of the text if there is none.
    #[inline]
    fn string_end(&self, start: usize) -> usize {
        let bytes = self.text.as_bytes();
        let mut pos = start;
        while let Some((low, high)) = bytes.get(pos..pos + 16).and_then(|chunk| {
            let (low, high) = chunk.split_first_chunk::<8>()?;
            Some((special_bytes(u64::from_le_bytes(*low)), special_bytes(u64::from_le_bytes(high.try_into().ok()?))))
        }) {
            if low | high != 0 {
                let found = u128::from(low) | u128::from(high) << 64;
                return pos + (found.trailing_zeros() / 8) as usize;
            }
            pos += 16;
        }
        if let Some(chunk) = bytes.get(pos..pos + 8)
            && let Ok(chunk) = <[u8; 8]>::try_from(chunk)
        {
            let found = special_bytes(u64::from_le_bytes(chunk));
            if found != 0 {
                return pos + (found.trailing_zeros() / 8) as usize;
            }
            pos += 8;
        }
        let rest = bytes.get(pos..).unwrap_or_default();
        pos + rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len())
    }

    #[cold]
    fn unfinished(&self) -> Box<Bad> {
        if self.at_end() {
            bad("not JSON: a string does not end")
        } else {
            bad(format!("not JSON: a control character in a string at byte {}", self.pos + 1))
        }
    }

    /// The rest of a string whose first backslash is here.
    fn unescape(&mut self, start: usize, out: &mut String) -> Outcome<()> {
        out.push_str(self.since(start));
        loop {
            match self.byte() {
                b'"' => {
                    self.pos += 1;
                    return Ok(());
                }
                b'\\' => out.push(self.escape()?),
                _ => return Err(self.unfinished()),
            }
            let plain = self.pos;
            self.pos = self.string_end(plain);
            out.push_str(self.since(plain));
        }
    }

    /// One escape, whose backslash is here.
    fn escape(&mut self) -> Outcome<char> {
        self.pos += 1;
        let escaped = match self.byte() {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return Err(self.error("expected an escape")),
        };
        self.pos += 1;
        Ok(escaped)
    }

    fn unicode_escape(&mut self) -> Outcome<char> {
        let mut code = self.four_digits()?;
        if (0xd800..0xdc00).contains(&code) && self.eat(b"\\") {
            let low = if self.byte() == b'u' { self.four_digits()? } else { 0 };
            if !(0xdc00..0xe000).contains(&low) {
                return Err(self.error("expected the second half of a surrogate pair"));
            }
            code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        if code == 0 {
            // As in PostgreSQL; a json column keeps it, as it is written.
            return Err(bad("text cannot hold the character U+0000"));
        }
        char::from_u32(code).ok_or_else(|| self.error("expected a surrogate pair, not half of one"))
    }

    /// The four hexadecimal digits behind the `u` that is here.
    fn four_digits(&mut self) -> Outcome<u32> {
        self.pos += 1;
        let mut code = 0;
        for _ in 0..4 {
            let digit = char::from(self.byte()).to_digit(16);
            code = code << 4 | digit.ok_or_else(|| self.error("expected a hexadecimal digit"))?;
            self.pos += 1;
        }
        Ok(code)
    }

    /// The number that begins here.
    #[inline]
    pub(super) fn number(&mut self) -> Outcome<Number<'a>> {
        let start = self.pos;
        let negative = self.byte() == b'-';
        self.pos += usize::from(negative);
        let first = self.pos;
        let mut digits = 0u64;
        while let digit @ b'0'..=b'9' = self.byte() {
            digits = digits.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.pos += 1;
        }
        let n_digits = self.pos - first;
        if n_digits == 0 || (n_digits > 1 && self.text.as_bytes().get(first) == Some(&b'0')) {
            self.pos = first;
            return Err(self.error("expected a number"));
        }
        let integral = !matches!(self.byte(), b'.' | b'e' | b'E');
        if !integral {
            self.fraction_and_exponent()?;
        }
        Ok(Number { text: self.since(start), negative, integral, digits, n_digits })
    }

    fn fraction_and_exponent(&mut self) -> Outcome<()> {
        if self.byte() == b'.' {
            self.pos += 1;
            self.some_digits()?;
        }
        if matches!(self.byte(), b'e' | b'E') {
            self.pos += 1;
            if matches!(self.byte(), b'+' | b'-') {
                self.pos += 1;
            }
            self.some_digits()?;
        }
        Ok(())
    }

    fn some_digits(&mut self) -> Outcome<()> {
        let first = self.pos;
        while self.byte().is_ascii_digit() {
            self.pos += 1;
        }
        if self.pos == first { Err(self.error("expected a digit")) } else { Ok(()) }
    }

    /// Steps over one value, checking it.
    pub(super) fn skip(&mut self, depth: u32) -> Outcome<()> {
        match self.peek() {
            b'"' => self.skip_string(),
            b'-' | b'0'..=b'9' => self.number().map(|_| ()),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'[' => {
                let depth = self.enter(depth)?;
                self.elements(|cursor, _| cursor.skip(depth))
            }
            b'{' => {
                let depth = self.enter(depth)?;
                self.members(|cursor| {
                    cursor.skip_string()?;
                    cursor.colon()?;
                    cursor.skip(depth)
                })
            }
            _ => Err(self.error("expected a value")),
        }
    }

    fn skip_string(&mut self) -> Outcome<()> {
        self.pos += 1;
        loop {
            self.pos = self.string_end(self.pos);
            match self.byte() {
                b'"' => {
                    self.pos += 1;
                    return Ok(());
                }
                // Half a surrogate pair is grammatical; it is bad only where its text is wanted.
                b'\\' if self.text.as_bytes().get(self.pos + 1) == Some(&b'u') => {
                    self.pos += 1;
                    self.four_digits()?;
                }
                b'\\' => {
                    self.escape()?;
                }
                _ => return Err(self.unfinished()),
            }
        }
    }

    /// Reads the array that begins here: calls `element` at each value, with its number from 1.
    #[inline]
    pub(super) fn elements(&mut self, mut element: impl FnMut(&mut Self, usize) -> Outcome<()>) -> Outcome<()> {
        self.pos += 1;
        if self.peek() == b']' {
            self.pos += 1;
            return Ok(());
        }
        for n in 1.. {
            element(self, n)?;
            match self.peek() {
                b',' => self.pos += 1,
                b']' => break,
                _ => return Err(self.error("expected \",\" or \"]\"")),
            }
        }
        self.pos += 1;
        Ok(())
    }

    /// Reads the object that begins here: calls `member` at each key's quote.
    #[inline]
    pub(super) fn members(&mut self, mut member: impl FnMut(&mut Self) -> Outcome<()>) -> Outcome<()> {
        self.pos += 1;
        if self.peek() == b'}' {
            self.pos += 1;
            return Ok(());
        }
        loop {
            if self.peek() != b'"' {
                return Err(self.error("expected a key"));
            }
            member(self)?;
            match self.peek() {
                b',' => self.pos += 1,
                b'}' => break,
                _ => return Err(self.error("expected \",\" or \"}\"")),
            }
        }
        self.pos += 1;
        Ok(())
    }
}

/// A word whose lowest set bit lies in the first byte that is a quote, a backslash or a control character; zero if
/// there is none. (Bits above the lowest one may be wrong: borrows run upwards.)
#[inline]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    (below(quote, 1) | below(backslash, 1) | below(word, 0x20)) & HIGH
}
