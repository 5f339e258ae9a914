//! The text that `jsonb` keeps: as PostgreSQL prints it, so that equal values are equal texts.
//!
//! Keys are ordered by length, then by bytes; of equal keys the last one stays; one blank stands behind each comma and
//! colon; numbers have no exponent and zero has no sign; escapes are only those that must be.

use super::cursor::Cursor;
use crate::bad::{Outcome, bad};

/// Digits that writing out an exponent may need: enough for every double.
const NUMBER_DIGITS_MAX: i64 = 1_000;
/// Bytes of one value; PostgreSQL's limit is near.
const JSONB_BYTES_MAX: usize = 1 << 28;

/// What `jsonb` makes of a JSON text.
pub(crate) fn jsonb_text(text: &str) -> Outcome<String> {
    let mut cursor = Cursor::new(text);
    let mut out = String::with_capacity(text.len());
    write_jsonb(&mut cursor, 0, &mut out)?;
    cursor.end()?;
    Ok(out)
}

/// Reads the value that begins here and appends its normal form.
pub(super) fn write_jsonb(cursor: &mut Cursor<'_>, depth: u32, out: &mut String) -> Outcome<()> {
    match cursor.peek() {
        b'"' => {
            let mut scratch = String::new();
            write_string(cursor.string(&mut scratch)?, out);
        }
        b'-' | b'0'..=b'9' => write_number(cursor.number()?.text, out)?,
        b'[' => {
            let depth = cursor.enter(depth)?;
            out.push('[');
            cursor.elements(|cursor, n| {
                if n > 1 {
                    out.push_str(", ");
                }
                write_jsonb(cursor, depth, out)
            })?;
            out.push(']');
        }
        b'{' => write_object(cursor, cursor.enter(depth)?, out)?,
        _ => {
            let start = cursor.position();
            cursor.skip(depth)?;
            out.push_str(cursor.since(start));
        }
    }
    if out.len() > JSONB_BYTES_MAX {
        return Err(bad("value too long for type jsonb"));
    }
    Ok(())
}

fn write_object(cursor: &mut Cursor<'_>, depth: u32, out: &mut String) -> Outcome<()> {
    // Members are written in the order in which they come, behind `out`, and then put in order.
    let mut members: Vec<(String, std::ops::Range<usize>)> = vec![];
    let mut written = String::new();
    cursor.members(|cursor| {
        let mut key = String::new();
        let name = cursor.string(&mut key)?.to_string();
        cursor.colon()?;
        let start = written.len();
        write_jsonb(cursor, depth, &mut written)?;
        members.push((name, start..written.len()));
        Ok(())
    })?;
    // Stable, so that of equal keys the last one is last.
    members.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
    out.push('{');
    let mut is_first = true;
    for (idx, (name, range)) in members.iter().enumerate() {
        if members.get(idx + 1).is_some_and(|(next, _)| next == name) {
            continue;
        }
        if !is_first {
            out.push_str(", ");
        }
        is_first = false;
        write_string(name, out);
        out.push_str(": ");
        out.push_str(written.get(range.clone()).unwrap_or_default());
    }
    out.push('}');
    Ok(())
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate().filter(|(_, b)| matches!(b, b'"' | b'\\' | 0..=0x1f)) {
        out.push_str(text.get(plain..at).unwrap_or_default());
        plain = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x8 => out.push_str("\\b"),
            0xc => out.push_str("\\f"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => out.push_str(&format!("\\u{control:04x}")),
        }
    }
    out.push_str(text.get(plain..).unwrap_or_default());
    out.push('"');
}

/// A number without exponent, its digits behind the point kept.
fn write_number(text: &str, out: &mut String) -> Outcome<()> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (digits, exponent) = match unsigned.split_once(['e', 'E']) {
        None => (unsigned, 0),
        Some((digits, exponent)) => (digits, exponent.parse().unwrap_or(i64::MAX)),
    };
    let is_zero = digits.bytes().all(|b| matches!(b, b'0' | b'.'));
    if unsigned.len() < text.len() && !is_zero {
        out.push('-');
    }
    if exponent == 0 {
        out.push_str(digits);
        return Ok(());
    }
    if exponent.saturating_abs() > NUMBER_DIGITS_MAX {
        return Err(bad(format!("number with exponent {exponent} is out of range for type jsonb")));
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    // Where the point is to stand in `all`.
    let point = whole.len() as i64 + exponent;
    let before = usize::try_from(point).unwrap_or(0);
    let (whole, fraction) = all.split_at_checked(before).unwrap_or((&all, ""));
    let whole = format!("{whole}{}", "0".repeat(before.saturating_sub(all.len())));
    let whole = whole.trim_start_matches('0');
    out.push_str(if whole.is_empty() { "0" } else { whole });
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(&"0".repeat(usize::try_from(-point).unwrap_or(0)));
        out.push_str(fraction);
    }
    Ok(())
}
