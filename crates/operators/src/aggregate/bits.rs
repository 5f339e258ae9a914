//! `bit_and` and `bit_or` over integers that may leave: how many of them have each bit.
#![expect(clippy::indexing_slicing, reason = "a word has 64 bits")]

/// How often each bit is set, and behind that how many values there are.
#[derive(Debug, Default)]
pub(super) struct BitCounts(Option<Box<[i64; 65]>>);

impl BitCounts {
    /// Bytes that the counts take on the heap.
    pub(super) const HEAP_BYTES: usize = size_of::<[i64; 65]>();

    /// Adds `weight` copies of `word`.
    pub(super) fn add(&mut self, word: u64, weight: i64) {
        let counts = self.0.get_or_insert_with(|| Box::new([0; 65]));
        counts[64] += weight;
        let mut rest = word;
        while rest != 0 {
            counts[rest.trailing_zeros() as usize] += weight;
            rest &= rest - 1;
        }
    }

    /// The bits that all values have; over none, of no meaning.
    pub(super) fn and(&self) -> u64 {
        self.word(|count, n| count == n)
    }

    /// The bits that some value has.
    pub(super) fn or(&self) -> u64 {
        self.word(|count, _| count > 0)
    }

    fn word(&self, is_set: impl Fn(i64, i64) -> bool) -> u64 {
        let Some(counts) = &self.0 else { return 0 };
        (0..64).fold(0, |word, bit| word | u64::from(is_set(counts[bit], counts[64])) << bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back_when_a_value_leaves() {
        let mut bits = BitCounts::default();
        [(6, 1), (3, 2), (u64::MAX, 1)].map(|(word, weight)| bits.add(word, weight));
        assert_eq!((bits.and(), bits.or()), (2, u64::MAX));
        bits.add(u64::MAX, -1);
        assert_eq!((bits.and(), bits.or()), (2, 7));
        bits.add(6, -1);
        assert_eq!((bits.and(), bits.or()), (3, 3));
    }
}
