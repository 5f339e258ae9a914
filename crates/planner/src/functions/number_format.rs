//! `to_char` of numbers, and `to_number`, by PostgreSQL's patterns: `FM999,990.00`, `S99D9`, `99.9MI`.
//!
//! The slots of a format (9 and 0) are filled from the point outwards. What stands before the first digit is blank, but
//! for zeros from the first 0 on; the sign goes to where the number begins.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, StringViewArray};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type};
use datafusion::common::Result;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::defined::{Definition, Overload};

/// Digits behind the point of a numeric without a scale of its own.
const SCALE: usize = 9;
/// Decimal digits that a double has.
const DOUBLE_DIGITS: usize = 15;

/// `to_number(text, format)`
pub(super) static TO_NUMBER: Definition = Definition {
    name: "to_number",
    resolve: |types| {
        let text = [SqlType::Text, SqlType::Text];
        Overload::exact(types, &text, SqlType::Numeric(None), |columns, _| {
            let [texts, formats] = columns else { return Err(external(SqlError::internal("two arguments"))) };
            let rows = texts.as_string_view().iter().zip(formats.as_string_view()).map(|pair| match pair {
                (Some(text), Some(format)) => read(text, format).map(Some).map_err(external),
                _ => Ok(None),
            });
            let numbers: Decimal128Array = rows.collect::<Result<_>>()?;
            Ok(Arc::new(numbers.with_data_type(SqlType::Numeric(None).data_type())))
        })
    },
};

/// `to_char(number, format)`; None: it is no number.
pub(super) fn to_char(types: &[SqlType]) -> Option<Overload> {
    use SqlType as T;
    match types {
        [T::Int2 | T::Int4 | T::Int8, _] => {
            Overload::exact(types, &[T::Numeric(Some((38, 0))), T::Text], T::Text, of_numerics)
        }
        [number @ T::Numeric(_), _] => Overload::exact(types, &[number.clone(), T::Text], T::Text, of_numerics),
        [T::Float4 | T::Float8, _] => Overload::exact(types, &[T::Float8, T::Text], T::Text, of_doubles),
        _ => None,
    }
}

fn of_numerics(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let [numbers, formats] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let DataType::Decimal128(_, scale) = numbers.data_type() else {
        return Err(external(SqlError::internal("a numeric that is no decimal")));
    };
    let scale = usize::from(scale.unsigned_abs());
    let rows = numbers.as_primitive::<Decimal128Type>().iter().zip(formats.as_string_view());
    shown(rows, |value, format| digits_of_numeric(value, scale, format.n_after))
}

fn of_doubles(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let [numbers, formats] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let rows = numbers.as_primitive::<Float64Type>().iter().zip(formats.as_string_view());
    shown(rows, |value: f64, format| {
        let n_whole = format!("{:.0}", value.abs()).len();
        let n_after = format.n_after.min(DOUBLE_DIGITS.saturating_sub(n_whole));
        let text = format!("{:.n_after$}", value.abs());
        let (whole, after) = text.split_once('.').unwrap_or((&text, ""));
        let after = format!("{after:0<width$}", width = format.n_after);
        Digits { is_negative: value < 0.0, whole: whole.to_owned(), after }
    })
}

fn shown<'a, T>(
    rows: impl Iterator<Item = (Option<T>, Option<&'a str>)>,
    digits: impl Fn(T, &Format) -> Digits,
) -> Result<ArrayRef> {
    let mut last: Option<(&str, Format)> = None;
    let texts = rows.map(|(value, pattern)| -> Result<Option<String>> {
        let (Some(value), Some(pattern)) = (value, pattern) else { return Ok(None) };
        let (known, format) = match last.take() {
            Some((known, format)) if known == pattern => (known, format),
            _ => (pattern, Format::of(pattern).map_err(external)?),
        };
        let text = format.show(digits(value, &format));
        last = Some((known, format));
        Ok(Some(text))
    });
    Ok(Arc::new(texts.collect::<Result<StringViewArray>>()?))
}

/// A number's digits before and behind the point.
struct Digits {
    is_negative: bool,
    whole: String,
    after: String,
}

/// Rounded half away from zero to `n_after` digits behind the point.
fn digits_of_numeric(value: i128, scale: usize, n_after: usize) -> Digits {
    let mut units = value.unsigned_abs();
    if n_after < scale {
        let cut = 10_u128.pow((scale - n_after) as u32);
        units = units / cut + u128::from(units % cut >= cut / 2);
    }
    let kept = scale.min(n_after);
    let text = format!("{units:0>width$}", width = kept + 1);
    let (whole, after) = text.split_at(text.len() - kept);
    Digits {
        is_negative: value < 0 && units > 0,
        whole: whole.to_owned(),
        after: format!("{after:0<width$}", width = n_after),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    /// A digit or a blank.
    Nine,
    /// A digit, a zero before the first one.
    Zero,
    Point,
    Group,
    /// S: a sign beside the number.
    Sign,
    /// MI
    Minus,
    /// PL
    Plus,
    /// SG
    EitherSign,
    /// L: a blank, as no currency is set.
    Currency,
    Text(String),
}

/// Where S puts the sign.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SignPlace {
    Before,
    Behind,
}

/// A format, read.
struct Format {
    items: Vec<Item>,
    /// Slots before and behind the point.
    n_before: usize,
    n_after: usize,
    has_point: bool,
    /// FM: neither blanks nor zeros that need not be.
    is_short: bool,
    /// PR: angle brackets around a negative number.
    in_brackets: bool,
    sign: Option<SignPlace>,
    /// The first slot before the point that is a 0, and how many slots stand before the end of the last 0.
    first_zero: Option<usize>,
    zeros_end: usize,
}

impl Format {
    /// Errors: `42601` for patterns that exclude each other, `0A000` for those that there are not.
    fn of(pattern: &str) -> Result<Format, SqlError> {
        let mut format = Format {
            items: vec![],
            n_before: 0,
            n_after: 0,
            has_point: false,
            is_short: false,
            in_brackets: false,
            sign: None,
            first_zero: None,
            zeros_end: 0,
        };
        let mut rest = pattern;
        let mut before_sign = None;
        while let Some(first) = rest.chars().next() {
            if let Some(quoted) = rest.strip_prefix('"') {
                let (text, behind) = quoted.split_once('"').unwrap_or((quoted, ""));
                format.items.push(Item::Text(text.to_owned()));
                rest = behind;
                continue;
            }
            let keyword = KEYWORDS.iter().find(|k| rest.get(..k.len()).is_some_and(|r| r.eq_ignore_ascii_case(k)));
            let Some(keyword) = keyword else {
                format.items.push(Item::Text(first.into()));
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
                continue;
            };
            rest = rest.get(keyword.len()..).unwrap_or_default();
            let item = match *keyword {
                "9" | "0" => {
                    let is_zero = *keyword == "0";
                    if is_zero && !format.has_point {
                        format.first_zero.get_or_insert(format.n_before);
                    }
                    *(if format.has_point { &mut format.n_after } else { &mut format.n_before }) += 1;
                    if is_zero {
                        format.zeros_end = format.n_before + format.n_after;
                    }
                    if is_zero { Item::Zero } else { Item::Nine }
                }
                "." | "D" if format.has_point => {
                    return Err(SqlError::new(SqlState::SyntaxError, "multiple decimal points"));
                }
                "." | "D" => {
                    format.has_point = true;
                    Item::Point
                }
                "," | "G" => Item::Group,
                "FM" => {
                    format.is_short = true;
                    continue;
                }
                "PR" => {
                    format.in_brackets = true;
                    continue;
                }
                "B" => continue,
                "S" if format.sign.is_some() => {
                    return Err(SqlError::new(SqlState::SyntaxError, "cannot use \"S\" twice"));
                }
                "S" => {
                    format.sign = Some(if format.has_point { SignPlace::Behind } else { SignPlace::Before });
                    before_sign = Some(format.n_before);
                    Item::Sign
                }
                "MI" => Item::Minus,
                "PL" => Item::Plus,
                "SG" => Item::EitherSign,
                "L" => Item::Currency,
                other => return Err(SqlError::unsupported(format_args!("the pattern {other} in a number's format"))),
            };
            format.items.push(item);
        }
        if before_sign == Some(format.n_before) {
            format.sign = Some(SignPlace::Behind);
        }
        let has = |item: Item| format.items.contains(&item);
        if format.sign.is_some() && (has(Item::Minus) || has(Item::Plus) || has(Item::EitherSign) || format.in_brackets)
        {
            return Err(SqlError::new(
                SqlState::SyntaxError,
                "cannot use \"S\" and \"PL\"/\"MI\"/\"SG\"/\"PR\" together",
            ));
        }
        Ok(format)
    }

    fn show(&self, digits: Digits) -> String {
        let Digits { is_negative, mut whole, mut after } = digits;
        if whole.len() > self.n_before {
            (whole, after) = ("#".repeat(self.n_before), "#".repeat(self.n_after));
        }
        // `9.9` shows 0.1 as .1
        let hides_zero = self.first_zero.is_none() && whole == "0" && self.n_after > 0;
        let n_blanks = self.n_before - whole.len();
        let n_kept = self.n_kept(&after);
        let sign = if is_negative { '-' } else { '+' };
        let has = |item: Item| self.items.contains(&item);
        let mut sign_is_done = match (has(Item::Minus), has(Item::Plus), has(Item::EitherSign)) {
            (true, ..) | (.., true) => true,
            (_, true, _) => false,
            _ => !is_negative && self.is_short && self.sign.is_none(),
        };
        let is_slot = |item: &Item| matches!(item, Item::Nine | Item::Zero | Item::Point);
        let last = self.items.iter().rposition(is_slot);
        let (mut output, mut place, mut in_number) = (String::new(), 0, false);
        for (idx, item) in self.items.iter().enumerate() {
            let blank = |output: &mut String| {
                if !self.is_short {
                    output.push(' ');
                }
            };
            let begins = place >= n_blanks || self.first_zero.is_some_and(|first| first <= place);
            if is_slot(item) {
                in_number = false;
                let is_hidden = hides_zero && place == n_blanks && *item != Item::Point;
                if !sign_is_done && begins && (!is_hidden || n_kept == Some(0)) {
                    match (self.sign, self.in_brackets) {
                        (Some(SignPlace::Before), _) => output.push(sign),
                        (Some(SignPlace::Behind), _) => {}
                        (None, true) => output.push(if is_negative { '<' } else { ' ' }),
                        (None, false) if is_negative => output.push('-'),
                        (None, false) => blank(&mut output),
                    }
                    sign_is_done = true;
                }
            }
            match item {
                Item::Nine | Item::Zero => {
                    let mut is_left_out = false;
                    let digit = match place.checked_sub(n_blanks) {
                        None => begins.then_some('0'),
                        Some(at) if at < whole.len() => match hides_zero {
                            true if n_kept == Some(0) => Some('0'),
                            true => None,
                            false => whole.chars().nth(at),
                        },
                        Some(at) => {
                            let at = at - whole.len();
                            is_left_out = n_kept.is_some_and(|n| at >= n) && *item == Item::Nine;
                            after.chars().nth(at)
                        }
                    };
                    match digit {
                        _ if is_left_out => {}
                        Some(digit) => {
                            output.push(digit);
                            in_number = true;
                        }
                        None => blank(&mut output),
                    }
                    place += 1;
                }
                Item::Point if self.n_after > 0 => output.push('.'),
                Item::Point | Item::Sign => {}
                Item::Group if in_number => output.push(','),
                Item::Minus if is_negative => output.push('-'),
                Item::Plus if !is_negative => output.push('+'),
                Item::Group | Item::Minus | Item::Plus => blank(&mut output),
                Item::EitherSign => output.push(sign),
                Item::Currency => output.push(' '),
                Item::Text(text) => output.push_str(text),
            }
            if Some(idx) == last {
                match self.sign {
                    Some(SignPlace::Behind) => output.push(sign),
                    None if self.in_brackets && is_negative => output.push('>'),
                    None if self.in_brackets => blank(&mut output),
                    _ => {}
                }
            }
        }
        output
    }

    /// With FM: how many digits behind the point are shown. None: all.
    fn n_kept(&self, after: &str) -> Option<usize> {
        if !self.is_short || !self.has_point {
            return None;
        }
        let significant = after.trim_end_matches('0').len();
        Some(significant.max(self.zeros_end.saturating_sub(self.n_before).min(after.len())))
    }
}

/// Longer ones before those that they begin with.
const KEYWORDS: &[&str] =
    &["EEEE", "FM", "MI", "PL", "PR", "RN", "SG", "SP", "TH", ",", ".", "0", "9", "B", "C", "D", "G", "L", "S", "V"];

/// The number in a text of that format. What the format has and the text has not is passed over.
///
/// Errors: `22P02` where there are no digits, `22003` where there are too many; those of the format.
fn read(text: &str, pattern: &str) -> Result<i128, SqlError> {
    let format = Format::of(pattern)?;
    let mut rest = text.trim_start();
    let (mut is_negative, mut whole, mut after, mut behind_point) = (false, String::new(), String::new(), false);
    let mut sign = |rest: &mut &str| {
        if let Some(behind) = rest.strip_prefix('-') {
            is_negative = true;
            *rest = behind;
        } else if let Some(behind) = rest.strip_prefix('+') {
            *rest = behind;
        }
    };
    for item in &format.items {
        match item {
            Item::Nine | Item::Zero => {
                if whole.is_empty() && after.is_empty() {
                    rest = rest.trim_start();
                    match rest.strip_prefix('<').filter(|_| format.in_brackets) {
                        Some(behind) => rest = behind,
                        None => sign(&mut rest),
                    }
                }
                if let Some(digit) = rest.chars().next().filter(char::is_ascii_digit) {
                    if behind_point {
                        after.push(digit)
                    } else {
                        whole.push(digit)
                    }
                    rest = rest.get(1..).unwrap_or_default();
                }
            }
            Item::Point => {
                if let Some(behind) = rest.strip_prefix('.') {
                    (rest, behind_point) = (behind, true);
                }
            }
            Item::Group => rest = rest.strip_prefix(',').unwrap_or(rest),
            Item::Sign | Item::Minus | Item::Plus | Item::EitherSign => sign(&mut rest),
            Item::Currency => rest = rest.strip_prefix('$').unwrap_or(rest),
            Item::Text(skipped) => {
                for _ in skipped.chars() {
                    let is_data = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | '+' | '-');
                    rest = rest.strip_prefix(|c: char| !is_data(c)).unwrap_or(rest);
                }
            }
        }
    }
    is_negative |= format.in_brackets && text.trim_start().starts_with('<');
    if whole.is_empty() && after.is_empty() {
        let message = "invalid input syntax for type numeric: \" \"";
        return Err(SqlError::new(SqlState::InvalidTextRepresentation, message));
    }
    let digits = format!("{whole}{after:0<width$.width$}", width = SCALE);
    let overflow = || SqlError::new(SqlState::NumericValueOutOfRange, "numeric field overflow");
    let value = digits.parse::<i128>().ok().filter(|value| *value < 10_i128.pow(38)).ok_or_else(overflow)?;
    Ok(if is_negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: i128, scale: usize, pattern: &str) -> String {
        let format = Format::of(pattern).unwrap();
        format.show(digits_of_numeric(value, scale, format.n_after))
    }

    #[test]
    fn numbers_are_shown_as_in_postgresql() {
        for (value, scale, pattern, expected) in [
            (1, 1, ".99", " .##"),
            (1, 1, "9.9", "  .1"),
            (0, 0, "FM9.9", "0."),
            (-5, 1, "FM9.9", "-.5"),
            (12345, 1, "9,999.99", " 1,234.50"),
            (5, 0, "9,999.99", "     5.00"),
            (5, 0, "0,000.99", " 0,005.00"),
            (5, 0, "FM9,999.99", "5."),
            (-5, 0, "S999", "  -5"),
            (5, 0, "999S", "  5+"),
            (-5, 0, "999MI", "  5-"),
            (5, 0, "999MI", "  5 "),
            (-5, 0, "MI999", "-  5"),
            (5, 0, "PL999", "+   5"),
            (-5, 0, "SG999", "-  5"),
            (-5, 0, "999PR", "  <5>"),
            (5, 0, "999PR", "   5 "),
            (485, 0, "\"Good number:\"999", "Good number: 485"),
            (485, 0, "L999", "  485"),
            (-123_450, 1, "999.9", "-###.#"),
            (-1, 3, "9.99", "  .00"),
            (1485, 1, "FM999.990", "148.500"),
            (-485, 0, "9 9 9", "-4 8 5"),
            (-12_345, 3, "FMS99.999", "-12.345"),
            (7, 0, "FM009", "007"),
            (7, 0, "09.90", " 07.00"),
            (7, 0, "99.", "  7"),
            (1, 0, "9,9,9", "     1"),
            (1, 0, "FM0,0,0", "0,0,1"),
        ] {
            assert_eq!(shown(value, scale, pattern), expected, "{value} {pattern}");
        }
        assert!(Format::of("RN").is_err());
        assert!(Format::of("9.9.9").is_err());
    }

    #[test]
    fn numbers_are_read_as_in_postgresql() {
        for (text, pattern, expected) in [
            ("12,454.8-", "99G999D9S", -12_454_800_000_000),
            (" 1,234.50", "9,999.99", 1_234_500_000_000),
            ("-34,338,492", "99G999G999", -34_338_492_000_000_000),
            ("<564646.654564>", "999999.999999PR", -564_646_654_564_000),
            (".01-", "9.99S", -10_000_000),
        ] {
            assert_eq!(read(text, pattern).unwrap(), expected, "{text} {pattern}");
        }
        assert!(read("x", "9").is_err());
    }
}
