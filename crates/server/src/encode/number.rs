//! Numbers as PostgreSQL writes them.
//!
//! Floats have the fewest digits that read back the same, with an exponent outside of 1e-4 .. 1e15 (1e6 for `real`),
//! as PostgreSQL has printed them since version 12. `numeric` in binary is groups of four decimal digits.

use arrow::datatypes::i256;
use bytes::{BufMut, BytesMut};

pub(super) fn write_integer(out: &mut BytesMut, value: impl itoa::Integer) {
    out.put_slice(itoa::Buffer::new().format(value).as_bytes());
}

pub(super) fn write_float4(out: &mut BytesMut, value: f32) {
    match special(value.is_nan(), value.is_infinite(), value.is_sign_negative()) {
        Some(word) => out.put_slice(word),
        None => write_shortest(out, &format!("{value:e}"), 6),
    }
}

pub(super) fn write_float8(out: &mut BytesMut, value: f64) {
    match special(value.is_nan(), value.is_infinite(), value.is_sign_negative()) {
        Some(word) => out.put_slice(word),
        None => write_shortest(out, &format!("{value:e}"), 15),
    }
}

fn special(is_nan: bool, is_infinite: bool, is_negative: bool) -> Option<&'static [u8]> {
    match (is_nan, is_infinite, is_negative) {
        (true, ..) => Some(b"NaN"),
        (_, true, true) => Some(b"-Infinity"),
        (_, true, false) => Some(b"Infinity"),
        _ => None,
    }
}

/// `scientific` is what `{:e}` gives: `-1.2345e-7`.
fn write_shortest(out: &mut BytesMut, scientific: &str, exponent_max: i32) {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..exponent_max).contains(&exponent) {
        out.put_slice(mantissa.as_bytes());
        out.put_slice(format!("e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()).as_bytes());
        return;
    }
    let digits = mantissa.strip_prefix('-').unwrap_or(mantissa);
    if digits.len() < mantissa.len() {
        out.put_u8(b'-');
    }
    let digits: Vec<u8> = digits.bytes().filter(|b| *b != b'.').collect();
    match usize::try_from(exponent) {
        Err(_) => {
            out.put_slice(b"0.");
            out.put_bytes(b'0', exponent.unsigned_abs() as usize - 1);
            out.put_slice(&digits);
        }
        Ok(exponent) => {
            let (whole, fraction) = digits.split_at(digits.len().min(exponent + 1));
            out.put_slice(whole);
            out.put_bytes(b'0', exponent + 1 - whole.len());
            if !fraction.is_empty() {
                out.put_u8(b'.');
                out.put_slice(fraction);
            }
        }
    }
}

/// A decimal number: its digits around the point.
pub(super) struct Digits {
    is_negative: bool,
    /// Digits before the point, without leading zeros (empty for 0.x), then `n_fraction` after it.
    digits: Vec<u8>,
    n_fraction: usize,
}

impl Digits {
    /// `value` x 10^-scale. `trim` leaves out zeros at the end of the fraction.
    pub(super) fn of_i128(value: i128, scale: i8, trim: bool) -> Digits {
        let mut buffer = itoa::Buffer::new();
        Digits::new(value < 0, buffer.format(value.unsigned_abs()), scale, trim)
    }

    pub(super) fn of_i256(value: i256, scale: i8) -> Digits {
        let text = value.to_string();
        Digits::new(value.is_negative(), text.trim_start_matches('-'), scale, false)
    }

    fn new(is_negative: bool, text: &str, scale: i8, trim: bool) -> Digits {
        let mut digits = text.trim_start_matches('0').as_bytes().to_vec();
        let mut n_fraction = 0;
        match usize::try_from(scale) {
            Ok(scale) => {
                n_fraction = scale;
                if digits.len() < scale {
                    let zeros = scale - digits.len();
                    digits.splice(0..0, std::iter::repeat_n(b'0', zeros));
                }
            }
            // A negative scale counts zeros before the point.
            Err(_) if !digits.is_empty() => digits.extend(std::iter::repeat_n(b'0', usize::from(scale.unsigned_abs()))),
            Err(_) => {}
        }
        while trim && n_fraction > 0 && digits.last() == Some(&b'0') {
            digits.pop();
            n_fraction -= 1;
        }
        Digits { is_negative, digits, n_fraction }
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        self.digits.split_at(self.digits.len() - self.n_fraction)
    }

    pub(super) fn write_text(&self, out: &mut BytesMut) {
        let (whole, fraction) = self.parts();
        if self.is_negative {
            out.put_u8(b'-');
        }
        out.put_slice(if whole.is_empty() { b"0" } else { whole });
        if !fraction.is_empty() {
            out.put_u8(b'.');
            out.put_slice(fraction);
        }
    }

    /// Number of groups, weight of the first, sign, digits after the point, groups.
    pub(super) fn write_binary(&self, out: &mut BytesMut) {
        let (whole, fraction) = self.parts();
        let lead = (4 - whole.len() % 4) % 4;
        let padded: Vec<u8> = std::iter::repeat_n(b'0', lead)
            .chain(whole.iter().copied())
            .chain(fraction.iter().copied())
            .chain(std::iter::repeat_n(b'0', (4 - fraction.len() % 4) % 4))
            .collect();
        let group = |four: &[u8]| four.iter().fold(0i16, |n, digit| n * 10 + i16::from(digit - b'0'));
        let mut groups: Vec<i16> = padded.chunks(4).map(group).collect();
        let n_zeros = groups.iter().take_while(|g| **g == 0).count();
        groups.drain(..n_zeros);
        while groups.last() == Some(&0) {
            groups.pop();
        }
        let weight = ((whole.len() + lead) / 4) as i16 - 1 - n_zeros as i16;
        out.put_i16(groups.len() as i16);
        out.put_i16(if groups.is_empty() { 0 } else { weight });
        out.put_u16(if self.is_negative { 0x4000 } else { 0 });
        out.put_u16(self.n_fraction as u16);
        for group in groups {
            out.put_i16(group);
        }
    }
}
