//! Sums of floating-point numbers that forget what is removed.
//!
//! Adding and later subtracting floats leaves rounding errors behind. Here the sum is kept exactly: as two
//! non-overlapping doubles while that is enough (values of like magnitude), else as one fixed-point number that spans
//! the whole range of a double. NaN and the infinities are counted, so that they can leave again.
//!
//! Invariant: the value is the exact sum of what is there, rounded once; it does not depend on the order or on what
//! was there before. Sources: Shewchuk, "Adaptive Precision Floating-Point Arithmetic" (1997), for the two doubles;
//! Kulisch's accumulator for the rest.
#![expect(clippy::indexing_slicing, reason = "positions in the fixed-point number follow from a double's exponent")]

use tidewire_types::Result;

use super::values::taken;

/// 2^-1074 (the least double) to 2^1024, and 64 bits for as many terms as there can be.
const N_WORDS: usize = 35;

/// The exact sum of doubles.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExactSum {
    high: f64,
    low: f64,
    wide: Option<Box<Wide>>,
}

/// `a + b` and what rounding took from it, exactly.
#[inline]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_seen = sum - a;
    (sum, (a - (sum - b_seen)) + (b - b_seen))
}

impl ExactSum {
    /// Adds `weight` times `value`. Returns whether the sum has moved to the heap for that.
    #[inline]
    pub(crate) fn add(&mut self, value: f64, weight: i64) -> bool {
        if self.wide.is_none() && (weight == 1 || weight == -1) {
            let (sum, error) = two_sum(self.high, if weight == 1 { value } else { -value });
            let (low, rest) = two_sum(self.low, error);
            // False for a NaN too, which an infinity or an overflow leaves in `rest`.
            if rest == 0.0 && sum.is_finite() {
                (self.high, self.low) = two_sum(sum, low);
                return false;
            }
        }
        self.add_wide(value, weight)
    }

    #[cold]
    fn add_wide(&mut self, value: f64, weight: i64) -> bool {
        let has_moved = self.wide.is_none();
        let (high, low) = (self.high, self.low);
        let wide = self.wide.get_or_insert_with(|| {
            let mut wide = Box::<Wide>::default();
            wide.add(high, 1);
            wide.add(low, 1);
            wide
        });
        wide.add(value, weight);
        has_moved
    }

    /// The sum, rounded to the nearest double; infinite where it is beyond the largest one.
    pub(crate) fn value(&self) -> f64 {
        match &self.wide {
            None => self.high,
            Some(wide) => wide.value(),
        }
    }

    /// Doubles whose sum it is, exactly; a single one where it is not finite.
    pub(super) fn parts(&self) -> Vec<f64> {
        let Some(wide) = &self.wide else {
            return [self.high, self.low].into_iter().filter(|part| *part != 0.0).collect();
        };
        let mut rest = wide.clone();
        let mut parts = vec![];
        loop {
            let part = rest.value();
            if part != 0.0 {
                parts.push(part);
            }
            if part == 0.0 || !part.is_finite() {
                return parts;
            }
            rest.add(part, -1);
        }
    }

    /// Adds all that another sum holds.
    pub(crate) fn merge(&mut self, other: &ExactSum) {
        match &other.wide {
            None => {
                self.add(other.high, 1);
                self.add(other.low, 1);
            }
            Some(other) => {
                if self.wide.is_none() {
                    self.add_wide(0.0, 1);
                }
                if let Some(wide) = &mut self.wide {
                    wide.merge(other);
                }
            }
        }
    }

    /// Appends it as bytes, whatever it has met.
    pub(super) fn save(&self, out: &mut Vec<u8>) {
        match &self.wide {
            None => {
                out.push(0);
                out.extend(self.high.to_le_bytes());
                out.extend(self.low.to_le_bytes());
            }
            Some(wide) => {
                out.push(1);
                wide.words.iter().for_each(|word| out.extend(word.to_le_bytes()));
                [wide.n_nan, wide.n_infinite, wide.n_negative_infinite]
                    .iter()
                    .for_each(|n| out.extend(n.to_le_bytes()));
            }
        }
    }

    /// Takes what `save` has written from the front of `rest`.
    pub(super) fn load(rest: &mut &[u8]) -> Result<ExactSum> {
        let mut sum = ExactSum::default();
        if taken::<1>(rest)? == [0] {
            sum.high = f64::from_le_bytes(taken(rest)?);
            sum.low = f64::from_le_bytes(taken(rest)?);
            return Ok(sum);
        }
        let mut wide = Box::<Wide>::default();
        for word in &mut wide.words {
            *word = u64::from_le_bytes(taken(rest)?);
        }
        for n in [&mut wide.n_nan, &mut wide.n_infinite, &mut wide.n_negative_infinite] {
            *n = i64::from_le_bytes(taken(rest)?);
        }
        sum.wide = Some(wide);
        Ok(sum)
    }

    /// The sum of one value.
    pub(super) fn of(value: f64) -> ExactSum {
        ExactSum { high: value, ..ExactSum::default() }
    }

    /// Whether its value says all of it.
    pub(super) fn is_one_float(&self) -> bool {
        self.low == 0.0 && self.wide.is_none()
    }

    /// Whether it is on the heap.
    pub(super) fn is_wide(&self) -> bool {
        self.wide.is_some()
    }

    /// Bytes that a sum takes on the heap.
    pub(super) const WIDE_BYTES: usize = size_of::<Wide>();
}

/// A fixed-point number in two's complement, least word first; its unit is 2^-1074.
#[derive(Clone, Debug)]
struct Wide {
    words: [u64; N_WORDS],
    n_nan: i64,
    n_infinite: i64,
    n_negative_infinite: i64,
}

impl Default for Wide {
    fn default() -> Wide {
        Wide { words: [0; N_WORDS], n_nan: 0, n_infinite: 0, n_negative_infinite: 0 }
    }
}

const MANTISSA_BITS: usize = 52;
const MANTISSA: u64 = (1 << MANTISSA_BITS) - 1;

impl Wide {
    fn add(&mut self, value: f64, weight: i64) {
        if value.is_nan() {
            self.n_nan += weight;
        } else if value == f64::INFINITY {
            self.n_infinite += weight;
        } else if value == f64::NEG_INFINITY {
            self.n_negative_infinite += weight;
        } else {
            let exponent = (value.to_bits() >> MANTISSA_BITS) as usize & 0x7ff;
            let mantissa = (value.to_bits() & MANTISSA) | if exponent > 0 { MANTISSA + 1 } else { 0 };
            let product = u128::from(mantissa) * u128::from(weight.unsigned_abs());
            self.add_shifted(product, exponent.saturating_sub(1), (value < 0.0) != (weight < 0));
        }
    }

    fn merge(&mut self, other: &Wide) {
        let mut carry = false;
        for (word, part) in self.words.iter_mut().zip(&other.words) {
            let (first, over) = word.overflowing_add(*part);
            let (second, over_again) = first.overflowing_add(u64::from(carry));
            *word = second;
            carry = over || over_again;
        }
        self.n_nan += other.n_nan;
        self.n_infinite += other.n_infinite;
        self.n_negative_infinite += other.n_negative_infinite;
    }

    /// Adds or subtracts `magnitude * 2^shift` units.
    fn add_shifted(&mut self, magnitude: u128, shift: usize, is_negative: bool) {
        let low = u128::from(magnitude as u64) << (shift % 64);
        let high = u128::from((magnitude >> 64) as u64) << (shift % 64);
        let middle = (low >> 64) + u128::from(high as u64);
        let parts = [low as u64, middle as u64, ((high >> 64) + (middle >> 64)) as u64];
        let mut carry = false;
        for (idx, word) in self.words[shift / 64..].iter_mut().enumerate() {
            let part = parts.get(idx).copied().unwrap_or(0);
            if idx >= parts.len() && !carry {
                break;
            }
            let (first, over) = if is_negative { word.overflowing_sub(part) } else { word.overflowing_add(part) };
            let step = u64::from(carry);
            let (second, over_again) =
                if is_negative { first.overflowing_sub(step) } else { first.overflowing_add(step) };
            *word = second;
            carry = over || over_again;
        }
    }

    fn value(&self) -> f64 {
        if self.n_nan > 0 || (self.n_infinite > 0 && self.n_negative_infinite > 0) {
            return f64::NAN;
        }
        if self.n_infinite > 0 {
            return f64::INFINITY;
        }
        if self.n_negative_infinite > 0 {
            return f64::NEG_INFINITY;
        }
        let is_negative = self.words[N_WORDS - 1] >> 63 == 1;
        if !is_negative {
            return round(&self.words);
        }
        let mut words = self.words.map(|w| !w);
        for word in &mut words {
            let (next, over) = word.overflowing_add(1);
            *word = next;
            if !over {
                break;
            }
        }
        -round(&words)
    }
}

/// The double nearest to a non-negative number of units, ties to even.
fn round(words: &[u64; N_WORDS]) -> f64 {
    let Some(top_word) = words.iter().rposition(|w| *w != 0) else { return 0.0 };
    let top = top_word * 64 + 63 - words[top_word].leading_zeros() as usize;
    if top <= MANTISSA_BITS {
        return f64::from_bits(words[0]);
    }
    let lowest = top - MANTISSA_BITS;
    let bit = |position: usize| words[position / 64] >> (position % 64) & 1;
    let next = words.get(lowest / 64 + 1).copied().unwrap_or(0);
    let both = (u128::from(next) << 64 | u128::from(words[lowest / 64])) >> (lowest % 64);
    let mantissa = both as u64 & (MANTISSA | (MANTISSA + 1));
    let is_half = bit(lowest - 1) == 1;
    let below = lowest - 1;
    let is_more = words[..below / 64].iter().any(|w| *w != 0) || words[below / 64] & ((1 << (below % 64)) - 1) != 0;
    let up = u64::from(is_half && (is_more || mantissa & 1 == 1));
    if lowest + 1 >= 0x7ff {
        return f64::INFINITY;
    }
    // A carry out of the mantissa moves into the exponent, as it should.
    f64::from_bits(((lowest as u64 + 1) << MANTISSA_BITS) + (mantissa - MANTISSA - 1) + up)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> ExactSum {
        let mut sum = ExactSum::default();
        for value in values {
            sum.add(*value, 1);
        }
        sum
    }

    #[test]
    fn what_is_removed_leaves_no_trace() {
        let values = [1e300, 0.1, -1e-300, 5e-324, 1.0, f64::MAX, -0.3, 1e17, f64::NAN, f64::INFINITY];
        let mut all = sum(&values);
        assert!(all.value().is_nan());
        for gone in [0, 2, 3, 5, 7, 8, 9] {
            all.add(values[gone], -1);
        }
        assert_eq!(all.value(), sum(&[-0.3, 1.0, 0.1]).value());
        for gone in [1, 4, 6] {
            all.add(values[gone], -1);
        }
        assert_eq!(all.value().to_bits(), 0);
    }

    #[test]
    fn the_sum_is_rounded_once() {
        assert_eq!(sum(&[1e16, 1.0, 1.0]).value(), 1e16 + 2.0);
        assert_eq!(sum(&[1.0, 1e100, 1.0, -1e100]).value(), 2.0);
        assert_eq!(sum(&[0.1; 10]).value(), 1.0);
        assert_eq!(sum(&[f64::MAX, f64::MAX]).value(), f64::INFINITY);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]).value(), f64::MAX);
        assert_eq!(sum(&[-f64::INFINITY, 1.0]).value(), f64::NEG_INFINITY);
    }

    #[test]
    fn the_parts_are_the_sum() {
        let values = [1e300, 0.1, -1e-300, 5e-324, 1.0, -0.3, 1e17];
        let all = sum(&values);
        assert!(all.is_wide());
        let mut rest = sum(&all.parts());
        values.iter().for_each(|value| {
            rest.add(*value, -1);
        });
        assert_eq!(rest.value().to_bits(), 0);
        assert_eq!(sum(&[1.0, 1e-20]).parts(), [1.0, 1e-20]);
        assert!(sum(&[f64::NAN, 1.0]).parts()[0].is_nan());
        assert!(sum(&[]).parts().is_empty());
    }

    #[test]
    fn what_is_saved_comes_back_whole() {
        let values = [1e300, 0.1, -1e-300, f64::NAN, f64::INFINITY, -0.3, 1e17, f64::NEG_INFINITY];
        for n in 0..=values.len() {
            let before = sum(&values[..n]);
            let mut bytes = vec![];
            before.save(&mut bytes);
            let mut rest = &bytes[..];
            let mut after = ExactSum::load(&mut rest).unwrap();
            assert!(rest.is_empty());
            assert_eq!(after.value().to_bits(), before.value().to_bits());
            values[..n].iter().for_each(|value| {
                after.add(*value, -1);
            });
            assert_eq!(after.value(), 0.0);
            assert!(n == 0 || ExactSum::load(&mut &bytes[..bytes.len() - 1]).is_err());
        }
    }

    #[test]
    fn sums_of_parts_make_the_sum_of_all() {
        let values = [1e300, 0.1, -1e-300, 5e-324, 1.0, -0.3, 1e17, -1e300, 7.0];
        for cut in 0..=values.len() {
            let mut first = sum(&values[..cut]);
            first.merge(&sum(&values[cut..]));
            assert_eq!(first.value().to_bits(), sum(&values).value().to_bits());
        }
    }

    #[test]
    fn one_value_comes_back_from_the_fixed_point_number() {
        for value in [5e-324, 1e-310, f64::MIN_POSITIVE, 0.1, 1.0, 3.0, -7.25, 1e15, 1e16 + 2.0, f64::MAX, f64::MIN] {
            let mut wide = Wide::default();
            wide.add(value, 3);
            wide.add(value, -2);
            assert_eq!(wide.value(), value);
        }
        // Halfway between two doubles: to the even one.
        let mut wide = Wide::default();
        wide.add(9007199254740992.0, 1);
        wide.add(1.0, 1);
        assert_eq!(wide.value(), 9007199254740992.0);
        wide.add(2.0, 1);
        assert_eq!(wide.value(), 9007199254740996.0);
    }
}
