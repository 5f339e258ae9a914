//! `bit_and` and `bit_or` over integers that may leave: how many of them have each bit; and `bit_xor` as a batch query
//! computes it over DISTINCT values.
#![expect(clippy::indexing_slicing, reason = "a word has 64 bits")]

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::FieldRef;
use datafusion::common::ScalarValue;
use tidewire_types::{Result, SqlError};

use super::values::{Values, taken};
use super::words::{from_raw_words, raw_words};
use crate::expr::sql_error;

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

    /// Appends the counts as bytes; nothing where there are none.
    pub(super) fn save(&self, out: &mut Vec<u8>) {
        self.0.iter().flat_map(|counts| counts.iter()).for_each(|count| out.extend(count.to_le_bytes()));
    }

    /// Takes what `save` has written.
    pub(super) fn load(mut bytes: &[u8]) -> Result<BitCounts> {
        let mut counts = Box::new([0; 65]);
        for count in counts.iter_mut() {
            *count = i64::from_le_bytes(taken(&mut bytes)?);
        }
        Ok(BitCounts(Some(counts)))
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

/// Exclusive or.
pub(super) struct Xor {
    field: FieldRef,
    groups: Vec<(u64, i64)>,
}

impl Xor {
    pub(super) fn new(field: FieldRef) -> Xor {
        Xor { field, groups: vec![] }
    }
}

impl Values for Xor {
    fn grow(&mut self, n_slots: usize) {
        self.groups.resize(n_slots.max(self.groups.len()), (0, 0));
    }

    fn apply(&mut self, ids: &[u32], columns: &[ArrayRef], weights: Option<&[i64]>) -> Result<()> {
        let column = columns.first().ok_or_else(|| SqlError::internal("bit_xor of nothing"))?;
        let nulls = column.logical_nulls();
        for (row_idx, (id, word)) in ids.iter().zip(raw_words(column)?).enumerate() {
            let weight = weights.and_then(|w| w.get(row_idx)).copied().unwrap_or(1);
            if nulls.as_ref().is_some_and(|n| n.is_null(row_idx)) {
                continue;
            }
            if let Some((xor, n)) = self.groups.get_mut(*id as usize) {
                *n += weight;
                if weight % 2 != 0 {
                    *xor ^= word;
                }
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, id: u32) -> Result<ScalarValue> {
        let data_type = self.field.data_type();
        match self.groups.get(id as usize) {
            Some((xor, n)) if *n != 0 => {
                let column = from_raw_words(data_type, vec![*xor], None)?;
                ScalarValue::try_from_array(&column, 0).map_err(sql_error)
            }
            _ => ScalarValue::try_new_null(data_type).map_err(sql_error),
        }
    }

    fn forget(&mut self, id: u32) {
        if let Some(group) = self.groups.get_mut(id as usize) {
            *group = (0, 0);
        }
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<(u64, i64)>()
    }

    fn len(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back_when_a_value_leaves() {
        let mut bits = BitCounts::default();
        for (word, weight) in [(6, 1), (3, 2), (u64::MAX, 1)] {
            bits.add(word, weight);
        }
        assert_eq!((bits.and(), bits.or()), (2, u64::MAX));
        bits.add(u64::MAX, -1);
        assert_eq!((bits.and(), bits.or()), (2, 7));
        bits.add(6, -1);
        assert_eq!((bits.and(), bits.or()), (3, 3));
    }
}
