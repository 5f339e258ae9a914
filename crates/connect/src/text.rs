//! SQL values read from text, as PostgreSQL's input functions read them: numbers exactly, out of range an error.

mod datetime;
mod interval;

pub(crate) use datetime::{
    DAY_US, EpochUnit, Offset, date, date_of_number, time_of_day, time_of_number, timestamp, timestamp_of_number,
};
pub(crate) use interval::interval;

/// Why a text is not a value of the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It is not written like one.
    Syntax,
    /// It is one that the type cannot hold.
    Range,
}

type Read<T> = Result<T, Wrong>;

/// An integer of 64 bits.
pub(crate) fn integer(text: &str) -> Read<i64> {
    let text = text.trim();
    text.parse().map_err(|error: std::num::ParseIntError| match error.kind() {
        std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => Wrong::Range,
        _ => Wrong::Syntax,
    })
}

/// A float; `NaN`, `Infinity` and `inf` in any case are values. A number too large to be one is out of range.
pub(crate) fn float<T: std::str::FromStr + Into<f64> + Copy>(text: &str) -> Read<T> {
    let text = text.trim();
    let value: T = text.parse().map_err(|_| Wrong::Syntax)?;
    if value.into().is_infinite() && text.bytes().any(|b| b.is_ascii_digit()) {
        return Err(Wrong::Range);
    }
    Ok(value)
}

/// `true`, `t`, `yes`, `on`, `1` and their opposites, or the beginning of a word that says which.
pub(crate) fn boolean(text: &str) -> Read<bool> {
    let text = text.trim().to_ascii_lowercase();
    let begins = |word: &str, at_least: usize| text.len() >= at_least && word.starts_with(&text);
    match text.as_str() {
        "1" => Ok(true),
        "0" => Ok(false),
        _ if begins("true", 1) || begins("yes", 1) || begins("on", 2) => Ok(true),
        _ if begins("false", 1) || begins("no", 1) || begins("off", 2) => Ok(false),
        _ => Err(Wrong::Syntax),
    }
}

/// A number times 10^`scale`, exact; digits beyond the scale are rounded half away from zero.
pub(crate) fn decimal(text: &str, precision: u8, scale: i8) -> Read<i128> {
    let number = Decimal::read(text.trim())?;
    let value = number.scaled(i64::from(scale))?;
    let limit = 10i128.checked_pow(u32::from(precision)).ok_or(Wrong::Range)?;
    if value >= limit { Err(Wrong::Range) } else { Ok(if number.negative { -value } else { value }) }
}

/// A number in its parts: digits (a point may stand among them) times ten to the exponent.
struct Decimal<'a> {
    negative: bool,
    digits: &'a str,
    n_digits: i64,
    exponent: i64,
}

impl<'a> Decimal<'a> {
    fn read(text: &'a str) -> Read<Decimal<'a>> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (digits, exponent) = match unsigned.split_once(['e', 'E']) {
            None => (unsigned, 0),
            Some((digits, exponent)) => (digits, exponent_of(exponent)?),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let n_digits = whole.len() + fraction.len();
        if n_digits == 0 || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
            return Err(Wrong::Syntax);
        }
        Ok(Decimal { negative, digits, n_digits: n_digits as i64, exponent: exponent - fraction.len() as i64 })
    }

    /// The number without its sign times 10^scale, rounded half away from zero.
    fn scaled(&self, scale: i64) -> Read<i128> {
        let shift = self.exponent + scale;
        let n_kept = if shift >= 0 { self.n_digits } else { self.n_digits + shift };
        let mut digits = self.digits.bytes().filter(|b| *b != b'.').map(|b| i128::from(b - b'0'));
        let mut value = 0i128;
        for _ in 0..n_kept {
            let digit = digits.next().unwrap_or(0);
            value = value.checked_mul(10).and_then(|v| v.checked_add(digit)).ok_or(Wrong::Range)?;
        }
        if n_kept >= 0 && digits.next().is_some_and(|digit| digit >= 5) {
            value = value.checked_add(1).ok_or(Wrong::Range)?;
        }
        if shift > 0 && value != 0 {
            let factor = u32::try_from(shift).ok().and_then(|shift| 10i128.checked_pow(shift)).ok_or(Wrong::Range)?;
            value = value.checked_mul(factor).ok_or(Wrong::Range)?;
        }
        Ok(value)
    }
}

/// An exponent; one beyond what any number needs is cut to what still overflows or vanishes.
fn exponent_of(text: &str) -> Read<i64> {
    const EXPONENT_MAX: i64 = 1 << 40;
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Wrong::Syntax);
    }
    let size = digits.parse::<i64>().unwrap_or(EXPONENT_MAX).min(EXPONENT_MAX);
    Ok(if text.starts_with('-') { -size } else { size })
}

/// A UUID in its usual form: hyphens may be missing, braces may stand around it, letters may be upper-case.
pub(crate) fn uuid(text: &str) -> Read<String> {
    let text = text.trim();
    let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
    let mut uuid = String::with_capacity(36);
    let mut n_digits = 0;
    let mut hyphen = false;
    for byte in text.bytes() {
        match byte {
            b'-' if !hyphen && n_digits % 4 == 0 && n_digits > 0 && n_digits < 32 => hyphen = true,
            b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' if n_digits < 32 => {
                if matches!(n_digits, 8 | 12 | 16 | 20) {
                    uuid.push('-');
                }
                uuid.push(char::from(byte.to_ascii_lowercase()));
                n_digits += 1;
                hyphen = false;
            }
            _ => return Err(Wrong::Syntax),
        }
    }
    if n_digits == 32 { Ok(uuid) } else { Err(Wrong::Syntax) }
}

/// Bytes: `\x` and hexadecimal digits, or base64 in either alphabet, with or without padding.
pub(crate) fn bytea(text: &str) -> Read<Vec<u8>> {
    match text.strip_prefix("\\x") {
        Some(digits) => hexadecimal(digits),
        None => base64(text.trim()),
    }
}

fn hexadecimal(digits: &str) -> Read<Vec<u8>> {
    let nibble = |b: u8| char::from(b).to_digit(16).map(|d| d as u8).ok_or(Wrong::Syntax);
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Ok(nibble(*high)? << 4 | nibble(*low)?),
            _ => Err(Wrong::Syntax),
        })
        .collect()
}

fn base64(text: &str) -> Read<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let n_padding = text.len() - digits.len();
    if digits.len() % 4 == 1 || n_padding > 2 || (n_padding > 0 && !text.len().is_multiple_of(4)) {
        return Err(Wrong::Syntax);
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for chunk in digits.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for (idx, digit) in chunk.iter().enumerate() {
            bits |= sextet(*digit)? << (18 - 6 * idx);
        }
        // The last digit's bits that are left over must be zero, else two texts would be the same bytes.
        let (n_bytes, left_over) = match chunk.len() {
            4 => (3, 0),
            3 => (2, 0xff),
            _ => (1, 0xffff),
        };
        if bits & left_over != 0 {
            return Err(Wrong::Syntax);
        }
        bytes.extend(bits.to_be_bytes().iter().skip(1).take(n_bytes));
    }
    Ok(bytes)
}

fn sextet(digit: u8) -> Read<u32> {
    Ok(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return Err(Wrong::Syntax),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_exact_or_an_error() {
        let numeric = |text| decimal(text, 12, 2);
        assert_eq!(numeric("12.345"), Ok(1235));
        assert_eq!(numeric("-12.345"), Ok(-1235));
        assert_eq!(numeric("0.004999"), Ok(0));
        assert_eq!(numeric("0.005"), Ok(1));
        assert_eq!(numeric("9999999999.994"), Ok(999_999_999_999));
        assert_eq!(numeric("9999999999.995"), Err(Wrong::Range));
        assert_eq!(numeric("1.5e3"), Ok(150_000));
        assert_eq!(numeric("1e-400000000000000000000"), Ok(0));
        assert_eq!(numeric("0e400000000000000000000"), Ok(0));
        assert_eq!(numeric("1e400000000000000000000"), Err(Wrong::Range));
        assert_eq!(numeric(".5"), Ok(50));
        assert_eq!(numeric("5."), Ok(500));
        assert_eq!(numeric("."), Err(Wrong::Syntax));
        assert_eq!(numeric("NaN"), Err(Wrong::Syntax));
        assert_eq!(numeric("1e"), Err(Wrong::Syntax));
        assert_eq!(decimal("12345", 3, -2), Ok(123));
        assert_eq!(decimal("12350", 3, -2), Ok(124));
        assert_eq!(integer("9223372036854775808"), Err(Wrong::Range));
        assert_eq!(integer("12x"), Err(Wrong::Syntax));
        assert_eq!(float::<f64>("1e999"), Err(Wrong::Range));
        assert_eq!(float::<f32>("1e39"), Err(Wrong::Range));
        assert_eq!(float::<f64>("-Infinity"), Ok(f64::NEG_INFINITY));
        assert!(float::<f64>("nan").unwrap().is_nan());
    }

    #[test]
    fn booleans_uuids_and_bytes() {
        assert_eq!(["t", "TRUE", "on", "1", "y", "o"].map(boolean).map(|b| b.ok()), {
            let yes = Some(true);
            [yes, yes, yes, yes, yes, None]
        });
        let canonical = Ok("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11".to_string());
        assert_eq!(uuid("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"), canonical);
        assert_eq!(uuid("{a0eebc999c0b4ef8bb6d6bb9bd380a11}"), canonical);
        assert_eq!(uuid("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1"), Err(Wrong::Syntax));
        assert_eq!(uuid("a0eebc99--9c0b4ef8-bb6d-6bb9bd380a11"), Err(Wrong::Syntax));
        assert_eq!(bytea("\\x00fF"), Ok(vec![0, 255]));
        assert_eq!(bytea("\\x0"), Err(Wrong::Syntax));
        assert_eq!(bytea("aGk="), Ok(b"hi".to_vec()));
        assert_eq!(bytea("aGk"), Ok(b"hi".to_vec()));
        assert_eq!(bytea("aGl="), Err(Wrong::Syntax));
        assert_eq!(bytea("a"), Err(Wrong::Syntax));
    }

    proptest! {
        #[test]
        fn decimals_of_i64_are_themselves(value: i64, scale in 0..9i8) {
            let text = format!("{value}");
            prop_assert_eq!(decimal(&text, 38, scale), Ok(i128::from(value) * 10i128.pow(scale as u32)));
            prop_assert_eq!(decimal(&format!("{value}e-3"), 38, 3), Ok(i128::from(value)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*|[-+0-9.eE:T Zdhms]{0,30}") {
            let _ = (integer(&text), decimal(&text, 38, 9), float::<f64>(&text), boolean(&text), uuid(&text));
            let _ = (bytea(&text), date(&text), time_of_day(&text), interval(&text));
            let _ = (timestamp(&text, Offset::Applied), timestamp(&text, Offset::Ignored));
        }
    }
}
