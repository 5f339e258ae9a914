//! Division and square roots of numerics with PostgreSQL's number of digits: at least 16 significant ones.
//!
//! Source: `select_div_scale`, `numeric_stddev_internal` and `sqrt_var` in PostgreSQL's `numeric.c`. There a numeric
//! has digits of base 10,000, which shows in how many decimal digits a quotient gets.

use arrow::datatypes::i256;

/// Digits of base 10,000 that a quotient is to have, in decimal digits.
const SIGNIFICANT_DIGITS: i32 = 16;

/// A number with a point: `value / 10^scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numeric {
    value: i256,
    scale: i32,
}

impl Numeric {
    /// The number at another scale, rounded half away from zero. None where it has more than 38 digits.
    pub(super) fn at_scale(self, scale: i8) -> Option<i128> {
        let more = i32::from(scale) - self.scale;
        let value = match more >= 0 {
            true => self.value.checked_mul(power_of_ten(more)?)?,
            false => divide_rounded(self.value, power_of_ten(-more)?)?,
        };
        let value = value.to_i128()?;
        (value.unsigned_abs() < 10u128.pow(38)).then_some(value)
    }
}

/// One number divided by another, each with its digits behind the point, at a scale. None where it does not fit or the
/// divisor is 0.
pub fn quotient(dividend: (i128, i8), divisor: (i128, i8), to_scale: i8) -> Option<i128> {
    // Below 10,000 there are 16 digits behind the point or more, and 128 bits are mostly enough.
    let more = i32::from(to_scale) + i32::from(divisor.1) - i32::from(dividend.1);
    if to_scale == SIGNIFICANT_DIGITS as i8
        && let Ok(more) = u32::try_from(more)
        && let Some(scaled) = 10i128.checked_pow(more).and_then(|p| dividend.0.checked_mul(p))
        && scaled.unsigned_abs() < u128::MAX / 8
    {
        let (whole, rest) = (scaled.checked_div(divisor.0)?, scaled.checked_rem(divisor.0)?);
        let is_up = rest.unsigned_abs() >= divisor.0.unsigned_abs() - rest.unsigned_abs();
        let step = if (scaled < 0) != (divisor.0 < 0) { -1 } else { 1 };
        let rounded = if is_up { whole + step } else { whole };
        if rounded.unsigned_abs() < 10u128.pow(SIGNIFICANT_DIGITS as u32 + 4) {
            return Some(rounded);
        }
    }
    let divisor = (i256::from_i128(divisor.0), divisor.1);
    divided((i256::from_i128(dividend.0), dividend.1), divisor)?.at_scale(to_scale)
}

/// One number divided by another with as many digits as PostgreSQL gives the result. None where that does not fit.
pub(super) fn divided(dividend: (i256, i8), divisor: (i256, i8)) -> Option<Numeric> {
    let (dividend, scale) = (dividend.0, i32::from(dividend.1));
    let (divisor, divisor_scale) = (divisor.0, i32::from(divisor.1));
    if dividend == i256::ZERO {
        return (divisor != i256::ZERO).then_some(Numeric { value: i256::ZERO, scale: 0 });
    }
    let (weight, first) = leading(dividend, scale);
    let (divisor_weight, divisor_first) = leading(divisor, divisor_scale);
    let mut quotient_weight = weight - divisor_weight;
    if first <= divisor_first {
        quotient_weight -= 1;
    }
    let least = scale.max(divisor_scale).max(0);
    let mut to_scale = (SIGNIFICANT_DIGITS - quotient_weight * 4).max(least);
    // Fewer digits where as many do not fit 256 bits.
    loop {
        let scaled = power_of_ten(to_scale + divisor_scale - scale).and_then(|p| dividend.checked_mul(p));
        match scaled {
            Some(scaled) => return Some(Numeric { value: divide_rounded(scaled, divisor)?, scale: to_scale }),
            None if to_scale > least => to_scale -= 1,
            None => return None,
        }
    }
}

/// One number times another, at a scale, rounded half away from zero. None where it does not fit.
pub fn product(left: (i128, i8), right: (i128, i8), to_scale: i8) -> Option<i128> {
    let value = i256::from_i128(left.0).checked_mul(i256::from_i128(right.0))?;
    Numeric { value, scale: i32::from(left.1) + i32::from(right.1) }.at_scale(to_scale)
}

/// The square root, with as many digits behind the point as the number has. None where that does not fit.
pub(super) fn square_root(number: Numeric) -> Option<Numeric> {
    if number.value <= i256::ZERO {
        return Some(Numeric { value: i256::ZERO, scale: 0 });
    }
    let Numeric { value, mut scale } = number;
    // Twice the digits under the root; fewer where they do not fit.
    let radicand = loop {
        match power_of_ten(2 * scale - number.scale).and_then(|p| value.checked_mul(p)) {
            Some(radicand) => break radicand,
            None if 2 * scale > number.scale + 1 => scale -= 1,
            None => return None,
        }
    };
    let root = integer_root(radicand)?;
    // Up where the rest is more than half.
    let rest = radicand.checked_sub(root.checked_mul(root)?)?;
    let root = if rest > root { root.checked_add(i256::ONE)? } else { root };
    Some(Numeric { value: root, scale })
}

/// The largest number whose square is at most `value`.
fn integer_root(value: i256) -> Option<i256> {
    let n_bits = 256 - value.leading_zeros();
    let mut root = i256::ONE << u8::try_from(n_bits.div_ceil(2)).ok()?;
    loop {
        let next = root.checked_add(value.checked_div(root)?)? >> 1;
        if next >= root {
            return Some(root);
        }
        root = next;
    }
}

fn power_of_ten(exponent: i32) -> Option<i256> {
    i256::from(10i64).checked_pow(u32::try_from(exponent).ok()?)
}

/// The quotient, rounded half away from zero.
fn divide_rounded(dividend: i256, divisor: i256) -> Option<i256> {
    let quotient = dividend.checked_div(divisor)?;
    let rest = dividend.checked_rem(divisor)?.wrapping_abs();
    let divisor_size = divisor.wrapping_abs();
    // rest >= divisor / 2, without doubling what may not fit.
    if rest >= divisor_size.wrapping_sub(rest) {
        let is_negative = (dividend < i256::ZERO) != (divisor < i256::ZERO);
        let step = if is_negative { i256::MINUS_ONE } else { i256::ONE };
        return quotient.checked_add(step);
    }
    Some(quotient)
}

/// The position (0: units) and value of the first base-10,000 digit of `value / 10^scale`.
fn leading(value: i256, scale: i32) -> (i32, u32) {
    // The point lies between digits of base 10,000.
    let padding = (4 - scale.rem_euclid(4)) % 4;
    let n_decimal = match value.to_i128() {
        Some(small) => small.unsigned_abs().checked_ilog10().unwrap_or(0) as i32 + 1,
        None => value.to_string().trim_start_matches('-').len() as i32,
    };
    let n_digits = n_decimal + padding;
    let n_first = (n_digits - 1) % 4 + 1;
    let weight = (n_digits - 1) / 4 - (scale + padding) / 4;
    // The first digits, or all of them and zeros of the padding.
    let first = match n_first <= n_decimal {
        true => power_of_ten(n_decimal - n_first).and_then(|p| value.wrapping_abs().checked_div(p)),
        false => power_of_ten(n_first - n_decimal).and_then(|p| value.wrapping_abs().checked_mul(p)),
    };
    (weight, first.and_then(i256::to_i128).and_then(|first| u32::try_from(first).ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(dividend: i64, scale: i8, divisor: i64) -> (String, i32) {
        let number = divided((i256::from(dividend), scale), (i256::from(divisor), 0)).unwrap();
        (number.value.to_string(), number.scale)
    }

    #[test]
    fn quotients_have_the_digits_of_postgresql() {
        // select 7::numeric/3, 700000::numeric/3, -7.75/3, 28806584102.33333333, 1/3::numeric, 1.000000000000000000000/7
        assert_eq!(exact(7, 0, 3), ("23333333333333333".into(), 16));
        assert_eq!(exact(700_000, 0, 3), ("233333333333333333".into(), 12));
        assert_eq!(exact(-775, 2, 3), ("-25833333333333333".into(), 16));
        assert_eq!(exact(1, 0, 3), ("33333333333333333333".into(), 20));
        assert_eq!(exact(1, 0, 8), ("12500000000000000000".into(), 20));
        assert_eq!(exact(0, 2, 3), ("0".into(), 0));
    }

    #[test]
    fn the_short_way_gives_what_the_long_one_does() {
        for (dividend, divisor) in
            [(7, 3), (-7, 3), (70_001, 7), (29_999, 3), (1, 7), (12_345_678, 11), (-5, -9), (0, 4)]
        {
            let long = divided((i256::from(dividend), 0), (i256::from(divisor), 0)).and_then(|n| n.at_scale(16));
            assert_eq!(quotient((dividend.into(), 0), (divisor.into(), 0), 16), long, "{dividend} / {divisor}");
        }
        assert_eq!(quotient((1, 0), (0, 0), 16), None);
        assert_eq!(quotient((125, 2), (5, 1), 16), Some(25_000_000_000_000_000));
        assert_eq!(product((15, 1), (15, 1), 1), Some(23));
    }

    #[test]
    fn roots_are_rounded() {
        let root = |value: i64, scale| {
            let root = square_root(Numeric { value: i256::from(value), scale }).unwrap();
            (root.value.to_string(), root.scale)
        };
        assert_eq!(root(23_333_333_333_333_333, 16), ("15275252316519467".into(), 16));
        assert_eq!(root(4, 0), ("2".into(), 0));
        assert_eq!(root(7, 0), ("3".into(), 0));
        assert_eq!(root(0, 5), ("0".into(), 0));
    }

    #[test]
    fn numbers_are_rounded_to_a_scale() {
        let number = Numeric { value: i256::from(-12_345i64), scale: 3 };
        assert_eq!(number.at_scale(2), Some(-1235));
        assert_eq!(number.at_scale(4), Some(-123_450));
        assert_eq!(Numeric { value: i256::from(i64::MAX), scale: 0 }.at_scale(20), None);
    }
}
