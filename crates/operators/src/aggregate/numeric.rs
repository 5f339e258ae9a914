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

/// `(dividend / 10^scale) / divisor` with as many digits as PostgreSQL gives it. None where that does not fit.
pub(super) fn divided(dividend: i256, scale: i8, divisor: i256) -> Option<Numeric> {
    if dividend == i256::ZERO {
        return Some(Numeric { value: i256::ZERO, scale: 0 });
    }
    let (weight, first) = leading(dividend, i32::from(scale));
    let (divisor_weight, divisor_first) = leading(divisor, 0);
    let mut quotient_weight = weight - divisor_weight;
    if first <= divisor_first {
        quotient_weight -= 1;
    }
    let mut to_scale = (SIGNIFICANT_DIGITS - quotient_weight * 4).max(i32::from(scale)).max(0);
    // Fewer digits where as many do not fit 256 bits.
    loop {
        let more = to_scale - i32::from(scale);
        let scaled = match more >= 0 {
            true => power_of_ten(more).and_then(|p| dividend.checked_mul(p)),
            false => None,
        };
        match scaled {
            Some(scaled) => return Some(Numeric { value: divide_rounded(scaled, divisor)?, scale: to_scale }),
            None if to_scale > i32::from(scale) => to_scale -= 1,
            None => return None,
        }
    }
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

    fn quotient(dividend: i64, scale: i8, divisor: i64) -> (String, i32) {
        let number = divided(i256::from(dividend), scale, i256::from(divisor)).unwrap();
        (number.value.to_string(), number.scale)
    }

    #[test]
    fn quotients_have_the_digits_of_postgresql() {
        // select 7::numeric/3, 700000::numeric/3, -7.75/3, 28806584102.33333333, 1/3::numeric, 1.000000000000000000000/7
        assert_eq!(quotient(7, 0, 3), ("23333333333333333".into(), 16));
        assert_eq!(quotient(700_000, 0, 3), ("233333333333333333".into(), 12));
        assert_eq!(quotient(-775, 2, 3), ("-25833333333333333".into(), 16));
        assert_eq!(quotient(1, 0, 3), ("33333333333333333333".into(), 20));
        assert_eq!(quotient(1, 0, 8), ("12500000000000000000".into(), 20));
        assert_eq!(quotient(0, 2, 3), ("0".into(), 0));
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
