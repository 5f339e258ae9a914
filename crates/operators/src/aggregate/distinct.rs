//! DISTINCT inside an aggregate: which (group, value) pairs are there, and how often.
//!
//! Turns the weights of rows into the weights of distinct values: +1 when the first copy comes, -1 when the last one
//! leaves, 0 otherwise.

use std::hash::BuildHasher;

use arrow::array::{Array, ArrayRef};
use arrow::row::{RowConverter, SortField};
use hashbrown::hash_table::{Entry, HashTable};
use hashbrown::{DefaultHashBuilder, HashMap};
use tidewire_types::{Result, SqlError};

use super::words::{is_word, raw_words};

/// Counts of (group, value).
pub(super) enum Distinct {
    Words(HashMap<(u32, u64), i64>),
    Rows(Box<RowCounts>),
}

pub(super) struct RowCounts {
    converter: RowConverter,
    table: HashTable<(u32, Box<[u8]>, i64)>,
    hasher: DefaultHashBuilder,
    value_bytes: usize,
}

impl Distinct {
    /// For arguments of the types of `columns`.
    pub(super) fn new(columns: &[ArrayRef]) -> Result<Distinct> {
        if let [column] = columns
            && is_word(column.data_type())
        {
            return Ok(Distinct::Words(HashMap::default()));
        }
        Distinct::of_rows(columns)
    }

    /// The same where rows with NULLs count.
    pub(super) fn of_rows(columns: &[ArrayRef]) -> Result<Distinct> {
        let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
        let converter = RowConverter::new(fields)
            .map_err(|e| SqlError::unsupported("DISTINCT of such a type").with_detail(e.to_string()))?;
        let (table, hasher) = (HashTable::new(), DefaultHashBuilder::default());
        Ok(Distinct::Rows(Box::new(RowCounts { converter, table, hasher, value_bytes: 0 })))
    }

    /// Replaces the weights of rows (0: not there at all) by those of distinct values.
    pub(super) fn apply(&mut self, ids: &[u32], columns: &[ArrayRef], weights: &mut [i64]) -> Result<()> {
        match self {
            Distinct::Words(counts) => {
                let Some(column) = columns.first() else { return Ok(()) };
                let nulls = column.nulls();
                let values = raw_words(column)?;
                for (row_idx, ((id, value), weight)) in ids.iter().zip(values).zip(weights).enumerate() {
                    if *weight == 0 {
                        continue;
                    }
                    // Functions that see NULLs keep rows of their own; here a NULL has weight 0 already.
                    debug_assert!(nulls.is_none_or(|n| n.is_valid(row_idx)));
                    let count = counts.entry((*id, value)).or_insert(0);
                    let before = *count;
                    *count += *weight;
                    *weight = change(before, *count);
                    if *count == 0 {
                        counts.remove(&(*id, value));
                    }
                }
            }
            Distinct::Rows(rows) => rows.apply(ids, columns, weights)?,
        }
        Ok(())
    }

    /// Pairs that are there.
    pub(super) fn len(&self) -> usize {
        match self {
            Distinct::Words(counts) => counts.len(),
            Distinct::Rows(rows) => rows.table.len(),
        }
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Distinct::Words(counts) => counts.allocation_size(),
            Distinct::Rows(rows) => rows.table.allocation_size() + rows.value_bytes,
        }
    }
}

/// What it means to the distinct values when a count goes from `before` to `after`.
fn change(before: i64, after: i64) -> i64 {
    i64::from(after > 0) - i64::from(before > 0)
}

impl RowCounts {
    fn apply(&mut self, ids: &[u32], columns: &[ArrayRef], weights: &mut [i64]) -> Result<()> {
        let rows = self.converter.convert_columns(columns)?;
        for ((id, row), weight) in ids.iter().zip(rows.iter()).zip(weights) {
            if *weight == 0 {
                continue;
            }
            let hash = self.hasher.hash_one((id, row.data()));
            let hasher = &self.hasher;
            let is_it = |(i, value, _): &(u32, Box<[u8]>, i64)| i == id && **value == *row.data();
            match self.table.entry(hash, is_it, |(i, value, _)| hasher.hash_one((i, &**value))) {
                Entry::Vacant(place) => {
                    self.value_bytes += row.data().len();
                    place.insert((*id, row.data().into(), *weight));
                    *weight = change(0, *weight);
                }
                Entry::Occupied(mut place) => {
                    let before = place.get().2;
                    place.get_mut().2 += *weight;
                    let after = place.get().2;
                    *weight = change(before, after);
                    if after == 0 {
                        self.value_bytes -= row.data().len();
                        place.remove();
                    }
                }
            }
        }
        Ok(())
    }
}
