//! `encode` and `decode`: bytes as text in hexadecimal digits, in base64, or with escapes; `unistr`. DataFusion's base64 has neither
//! padding nor lines.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryViewArray, StringViewArray};
use datafusion::common::Result;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::convert::{parse_escapes, parse_hex};
use super::defined::{Definition, Overload};

/// The functions.
pub(super) static ALL: &[Definition] = &[
    Definition {
        name: "encode",
        resolve: |types| Overload::exact(types, &[SqlType::Bytea, SqlType::Text], SqlType::Text, encode),
    },
    Definition {
        name: "decode",
        resolve: |types| Overload::exact(types, &[SqlType::Text, SqlType::Text], SqlType::Bytea, decode),
    },
    Definition {
        name: "unistr",
        resolve: |types| Overload::exact(types, &[SqlType::Text], SqlType::Text, |columns, _| unescaped(columns)),
    },
];

/// `\0041`, `\+000041`, `\u0041` and `\U00000041` as the character with that number, `\\` as a backslash.
///
/// Errors: `42601` for another escape, `22023` for the number of no character.
fn unescaped(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [texts] = columns else { return Err(external(SqlError::internal("one argument"))) };
    let texts = texts.as_string_view().iter().map(|text| text.map(unistr).transpose());
    Ok(Arc::new(texts.collect::<Result<StringViewArray, _>>().map_err(external)?))
}

fn unistr(text: &str) -> Result<String, SqlError> {
    let bad = || {
        SqlError::new(SqlState::SyntaxError, "invalid Unicode escape")
            .with_hint("Unicode escapes must be \\XXXX, \\+XXXXXX, \\uXXXX, or \\UXXXXXXXX.")
    };
    let (mut output, mut rest, mut high) = (String::new(), text, None);
    loop {
        let (plain, escaped) = rest.split_once('\\').map_or((rest, None), |(plain, escaped)| (plain, Some(escaped)));
        if high.is_some() && (!plain.is_empty() || escaped.is_none()) {
            return Err(invalid("invalid Unicode surrogate pair"));
        }
        output.push_str(plain);
        let Some(escaped) = escaped else { return Ok(output) };
        if let Some(behind) = escaped.strip_prefix('\\').filter(|_| high.is_none()) {
            output.push('\\');
            rest = behind;
            continue;
        }
        let (digits, n_digits) = match escaped.chars().next() {
            Some('u') => (escaped.get(1..), 4),
            Some('U') => (escaped.get(1..), 8),
            Some('+') => (escaped.get(1..), 6),
            _ => (Some(escaped), 4),
        };
        let (digits, behind) = digits.and_then(|digits| digits.split_at_checked(n_digits)).ok_or_else(bad)?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u32::from_str_radix(digits, 16).ok().filter(|_| is_hex).ok_or_else(bad)?;
        rest = behind;
        let number = match (high.take(), number) {
            (None, 0xD800..0xDC00) => {
                high = Some(number);
                continue;
            }
            (Some(high), 0xDC00..0xE000) => 0x10000 + ((high - 0xD800) << 10) + (number - 0xDC00),
            (Some(_), _) | (None, 0xDC00..0xE000) => return Err(invalid("invalid Unicode surrogate pair")),
            (None, number) => number,
        };
        let character = char::from_u32(number).filter(|c| *c != '\0');
        output.push(character.ok_or_else(|| invalid(format!("invalid Unicode code point: {number:04X}")))?);
    }
}

/// How many characters a line of base64 has.
const LINE_CHARS: usize = 76;
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[derive(Clone, Copy)]
enum Format {
    Hex,
    Base64,
    Escape,
}

/// Errors: `22023`.
fn format_of(name: &str) -> Result<Format, SqlError> {
    match name.to_ascii_lowercase().as_str() {
        "hex" => Ok(Format::Hex),
        "base64" => Ok(Format::Base64),
        "escape" => Ok(Format::Escape),
        _ => Err(invalid(format!("unrecognized encoding: \"{name}\""))),
    }
}

fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::InvalidParameterValue, message)
}

fn encode(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let [bytes, formats] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let rows = bytes.as_binary_view().iter().zip(formats.as_string_view()).map(|pair| {
        let (Some(bytes), Some(format)) = pair else { return Ok(None) };
        Ok(Some(match format_of(format)? {
            Format::Hex => hex(bytes),
            Format::Base64 => base64(bytes),
            Format::Escape => escaped(bytes),
        }))
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray, SqlError>>().map_err(external)?))
}

fn decode(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let [texts, formats] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let rows = texts.as_string_view().iter().zip(formats.as_string_view()).map(|pair| {
        let (Some(text), Some(format)) = pair else { return Ok(None) };
        match format_of(format)? {
            Format::Hex => parse_hex(text),
            Format::Base64 => from_base64(text),
            Format::Escape => parse_escapes(text),
        }
        .map(Some)
    });
    Ok(Arc::new(rows.collect::<Result<BinaryViewArray, SqlError>>().map_err(external)?))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() / 3 * 4 + bytes.len() / 57 + 4);
    for (idx, chunk) in bytes.chunks(3).enumerate() {
        if idx > 0 && (idx * 4).is_multiple_of(LINE_CHARS) {
            text.push('\n');
        }
        let bits = chunk.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let place = ((bits >> (18 - 6 * digit)) & 63) as usize;
            let digit = DIGITS.get(place).filter(|_| digit <= chunk.len()).copied().unwrap_or(b'=');
            text.push(char::from(digit));
        }
    }
    text
}

/// Blanks and lines do not count.
fn from_base64(text: &str) -> Result<Vec<u8>, SqlError> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut n_digits, mut n_padding) = (0_u32, 0, 0);
    for c in text.bytes().filter(|c| !c.is_ascii_whitespace()) {
        match DIGITS.iter().position(|digit| *digit == c) {
            Some(value) if n_padding == 0 => bits = (bits << 6) | value as u32,
            None if c == b'=' && n_digits >= 2 => {
                bits <<= 6;
                n_padding += 1;
            }
            Some(_) => return Err(invalid("unexpected \"=\" while decoding base64 sequence")),
            None => {
                let message = format!("invalid symbol \"{}\" found while decoding base64 sequence", char::from(c));
                return Err(invalid(message));
            }
        }
        n_digits += 1;
        if n_digits == 4 {
            bytes.extend(bits.to_be_bytes().iter().skip(1).take(3 - n_padding));
            (bits, n_digits) = (0, 0);
        }
    }
    match n_digits {
        0 => Ok(bytes),
        _ => Err(invalid("invalid base64 end sequence")
            .with_hint("Input data is missing padding, is truncated, or is otherwise corrupted.")),
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            0 | 128.. => {
                let _ = write!(text, "\\{byte:03o}");
            }
            byte => text.push(char::from(*byte)),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_and_read_as_in_postgresql() {
        assert_eq!(escaped(b"a\\b\x00\xff\n"), "a\\\\b\\000\\377\n");
        for (bytes, text) in [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("abcd", "YWJjZA==")] {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(from_base64(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(base64(&[0; 60]).find('\n'), Some(LINE_CHARS));
        assert_eq!(from_base64("YW Jj\nZA==").unwrap(), b"abcd");
        for text in ["YWJ", "Y=JJ", "=", "YQ==YQ==", "a!bc"] {
            assert_eq!(from_base64(text).unwrap_err().state(), SqlState::InvalidParameterValue, "{text}");
        }
    }
}
