//! One input of a join as it is kept: its rows in columns, chained by key behind a hash index.
//!
//! Private to the join, hence without epochs. What a side does not need it does not pay for: no weights while all are
//! 1, no way back in a chain and no index of whole rows unless rows are removed and keys repeat. Freed slots are used
//! again. Invariant: the rows of one key are one chain that starts at the index's entry for that key; every stored
//! row weighs more than zero.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use tidewire_types::{Result, SqlError, SqlState, hash_rows};

use crate::arrangement::index::{Index, NONE};
use crate::arrangement::store::{SEGMENT_BITS, Slots, Store};
use crate::arrangement::{Cells, Column};

/// Rows of one output batch at most.
pub(super) const BATCH_ROWS_MAX: usize = 1 << 16;
/// Bytes from which an empty side gives its memory back.
const EMPTY_BYTES_MAX: usize = 1 << 16;

/// What is kept of a slot.
#[derive(Debug)]
struct Links {
    next: Vec<u32>,
    /// Only where rows are found by their whole value.
    prev: Vec<u32>,
    /// Only once a weight is not 1.
    weights: Vec<i64>,
    /// Only where matches are counted.
    counts: Vec<Count>,
    capacity: usize,
}

/// How many rows (copies) of the other side match a row, and for how many that is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) n_true: i64,
    pub(super) n_unknown: i64,
}

impl Slots for Links {
    fn new(capacity: usize, _: &[Column]) -> Links {
        Links { next: vec![NONE; capacity], prev: vec![], weights: vec![], counts: vec![], capacity }
    }

    fn bytes(&self) -> usize {
        (self.next.capacity() + self.prev.capacity()) * size_of::<u32>()
            + self.weights.capacity() * size_of::<i64>()
            + self.counts.capacity() * size_of::<Count>()
    }
}

/// Sets a value in a list that is made when something else than the default is set.
fn set<T: Copy + PartialEq>(list: &mut Vec<T>, capacity: usize, offset: usize, value: T, default: T) {
    if list.is_empty() && value != default {
        list.resize(capacity, default);
    }
    if let Some(place) = list.get_mut(offset) {
        *place = value;
    }
}

/// What is known of a side before it has rows.
#[derive(Clone, Debug)]
pub(super) struct Properties {
    pub(super) schema: SchemaRef,
    pub(super) key_idxs: Vec<usize>,
    pub(super) null_equals_null: bool,
    pub(super) append_only: bool,
    pub(super) unique: bool,
}

#[derive(Debug)]
pub(super) struct Side {
    store: Store<Links>,
    /// From a key to the first slot of its chain.
    index: Index,
    /// From a whole row to its slot, where rows are removed and keys repeat.
    row_index: Option<Index>,
    key_idxs: Vec<usize>,
    all_idxs: Vec<usize>,
    null_equals_null: bool,
    append_only: bool,
    /// The tag that the index keeps of the hash is one-to-one with the key: equal tags need no second look.
    is_exact: bool,
    is_weighted: bool,
    free: Vec<u32>,
    n_slots: usize,
}

/// The keys of a chunk of rows, ready for probing.
pub(super) struct Keys {
    hashes: Vec<u64>,
    cells: Vec<Cells>,
    /// The rows whose key can match anything, ascending.
    pub(super) rows: Vec<u32>,
}

impl Side {
    pub(super) fn new(properties: Properties) -> Result<Side> {
        let Properties { schema, key_idxs, null_equals_null, append_only, unique } = properties;
        let all_idxs = (0..schema.fields().len()).collect();
        let is_exact = match key_idxs.as_slice() {
            [idx] if !null_equals_null => {
                let data_type = schema.fields().get(*idx).map(|field| field.data_type());
                data_type.is_some_and(|t| t.primitive_width().is_some_and(|w| w <= 4) && !t.is_floating())
            }
            _ => false,
        };
        let row_index = (!append_only && !unique).then(Index::default);
        let store = Store::new(schema)?;
        Ok(Side {
            store,
            index: Index::default(),
            row_index,
            key_idxs,
            all_idxs,
            null_equals_null,
            append_only,
            is_exact,
            is_weighted: false,
            free: vec![],
            n_slots: 0,
        })
    }

    pub(super) fn n_rows(&self) -> usize {
        self.n_slots
    }

    pub(super) fn bytes(&self) -> usize {
        let rows = self.row_index.as_ref().map_or(0, Index::bytes);
        self.store.bytes() + self.index.bytes() + rows + self.free.capacity() * size_of::<u32>()
    }

    /// Whether a row may weigh something else than 1.
    pub(super) fn is_weighted(&self) -> bool {
        self.is_weighted
    }

    /// The keys of rows of this or the other side, whose key columns are `columns`.
    pub(super) fn keys(&self, columns: &[ArrayRef], n_rows: usize) -> Result<Keys> {
        let cells = self.store.encode(columns, Some(&self.key_idxs))?;
        let mut hashes = vec![];
        match cells.first().filter(|_| self.is_exact).and_then(Cells::words) {
            Some(words) => hashes = words.map(|word| u64::from(scramble(word as u32)) << 32).collect(),
            None => hash_rows(columns, n_rows, &mut hashes)?,
        }
        let nulls: Vec<_> = match self.null_equals_null {
            true => vec![],
            false => columns.iter().filter_map(|c| c.logical_nulls()).filter(|n| n.null_count() > 0).collect(),
        };
        let has_key = |row: &u32| nulls.iter().all(|nulls| nulls.is_valid(*row as usize));
        let rows = (0..n_rows as u32).filter(has_key).collect();
        Ok(Keys { hashes, cells, rows })
    }

    /// For each of `rows`, the first slot of its key's chain, or `NONE`.
    pub(super) fn probe(&self, keys: &Keys, rows: &[u32]) -> Vec<u32> {
        // First the index for all, then the keys for all: the misses overlap.
        let mut slots = self.index.first_of_all(rows.iter().map(|row| keys.hash(*row)));
        if !self.is_exact {
            let mut same: Vec<bool> = slots.iter().map(|slot| *slot != NONE).collect();
            self.store.compare(&self.key_idxs, &slots, &keys.cells, rows, true, &mut same);
            for ((slot, same), row) in slots.iter_mut().zip(same).zip(rows) {
                if !same && *slot != NONE {
                    *slot = self.find(keys, *row);
                }
            }
        }
        slots
    }

    fn find(&self, keys: &Keys, row: u32) -> u32 {
        self.index.find(keys.hash(row), |slot| self.has_key(slot, keys, row))
    }

    #[inline]
    fn has_key(&self, slot: u32, keys: &Keys, row: u32) -> bool {
        self.is_exact || self.store.equals(&self.key_idxs, slot, &keys.cells, row, true)
    }

    /// Calls `visit` with all pairs of a row and a slot of the chain that starts at its slot, some at a time.
    pub(super) fn chains(
        &self,
        mut rows: Vec<u32>,
        mut slots: Vec<u32>,
        mut visit: impl FnMut(&[u32], &[u32]) -> Result<()>,
    ) -> Result<()> {
        let is_chained = self.n_slots > self.index.len();
        if !is_chained {
            return pieces(&rows, &slots, &mut visit);
        }
        let (mut all_rows, mut all_slots) = (vec![], vec![]);
        // Level by level: the misses of one level overlap.
        while !slots.is_empty() {
            let room = BATCH_ROWS_MAX - all_rows.len();
            if slots.len() <= room {
                all_rows.extend_from_slice(&rows);
                all_slots.extend_from_slice(&slots);
            } else {
                visit(&all_rows, &all_slots)?;
                all_rows.clear();
                all_slots.clear();
                pieces(&rows, &slots, &mut visit)?;
            }
            let mut n_kept = 0;
            for idx in 0..slots.len() {
                let (Some(slot), Some(row)) = (slots.get(idx).copied(), rows.get(idx).copied()) else { break };
                // Written in any case and counted only where there is a next: a branch would wait for the miss.
                let next = self.next(slot);
                if let (Some(to_slot), Some(to_row)) = (slots.get_mut(n_kept), rows.get_mut(n_kept)) {
                    (*to_slot, *to_row) = (next, row);
                }
                n_kept += usize::from(next != NONE);
            }
            slots.truncate(n_kept);
            rows.truncate(n_kept);
        }
        if all_rows.is_empty() { Ok(()) } else { visit(&all_rows, &all_slots) }
    }

    #[inline]
    fn next(&self, slot: u32) -> u32 {
        self.store.at(slot).and_then(|(links, offset)| links.next.get(offset).copied()).unwrap_or(NONE)
    }

    pub(super) fn weight(&self, slot: u32) -> i64 {
        self.store.at(slot).and_then(|(links, offset)| links.weights.get(offset).copied()).unwrap_or(1)
    }

    pub(super) fn count(&self, slot: u32) -> Count {
        self.store.at(slot).and_then(|(links, offset)| links.counts.get(offset).copied()).unwrap_or_default()
    }

    pub(super) fn set_count(&mut self, slot: u32, count: Count) {
        if let Some((links, offset)) = self.store.at_mut(slot) {
            set(&mut links.counts, links.capacity, offset, count, Count::default());
        }
    }

    fn set_weight(&mut self, slot: u32, weight: i64) {
        self.is_weighted |= weight != 1;
        if let Some((links, offset)) = self.store.at_mut(slot) {
            set(&mut links.weights, links.capacity, offset, weight, 1);
        }
    }

    fn set_next(&mut self, slot: u32, next: u32) {
        if let Some((links, offset)) = self.store.at_mut(slot)
            && let Some(place) = links.next.get_mut(offset)
        {
            *place = next;
        }
    }

    fn set_prev(&mut self, slot: u32, prev: u32) {
        if let Some((links, offset)) = self.store.at_mut(slot) {
            set(&mut links.prev, links.capacity, offset, prev, NONE);
        }
    }

    /// All columns of the rows at `slots`.
    pub(super) fn gather(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.all_idxs.iter().map(|idx| self.store.gather(*idx, slots)).collect()
    }

    /// One column of the rows at `slots`.
    pub(super) fn gather_column(&self, column_idx: usize, slots: &[u32]) -> Result<ArrayRef> {
        self.store.gather(column_idx, slots)
    }

    /// The slots of all rows.
    pub(super) fn all_slots(&self) -> Vec<u32> {
        let free: HashSet<u32> = self.free.iter().copied().collect();
        let segments = self.store.segments();
        let slots = segments.flat_map(|(idx, segment)| {
            let first = (idx as u32) << SEGMENT_BITS;
            first..first + segment.n_rows as u32
        });
        slots.filter(|slot| !free.contains(slot)).collect()
    }

    /// Adds rows: those of `keys.rows`, each with its weight and its count of matches (where these are kept).
    pub(super) fn insert(
        &mut self,
        rows: &RecordBatch,
        keys: &Keys,
        weights: Option<&[i64]>,
        counts: Option<&[Count]>,
    ) -> Result<()> {
        let cells = self.store.encode(rows.columns(), None)?;
        let weight = |row: u32| weights.map_or(1, |w| w.get(row as usize).copied().unwrap_or(1));
        let mut row_hashes = vec![];
        let fresh = match &self.row_index {
            None => keys.rows.clone(),
            Some(row_index) => {
                hash_rows(rows.columns(), rows.num_rows(), &mut row_hashes)?;
                let known = self.lookup_rows(row_index, &row_hashes, &cells, &keys.rows);
                for (row, slot) in keys.rows.iter().zip(&known).filter(|(_, slot)| **slot != NONE) {
                    self.add_weight(*slot, weight(*row))?;
                }
                keys.rows.iter().zip(known).filter(|(_, slot)| *slot == NONE).map(|(row, _)| *row).collect()
            }
        };
        let slots = self.store_rows(&cells, &fresh)?;
        self.index.touch(fresh.iter().map(|row| keys.hash(*row)));
        for (row, slot) in fresh.iter().zip(&slots) {
            let (row, slot) = (*row, *slot);
            if self.row_index.is_some() {
                let hash = row_hashes.get(row as usize).copied().unwrap_or_default();
                if let Some(known) = self.remember(hash, slot, &cells, row) {
                    // The same row a second time in this chunk.
                    self.add_weight(known, weight(row))?;
                    self.free.push(slot);
                    continue;
                }
            }
            if weight(row) != 1 || self.is_weighted {
                self.set_weight(slot, weight(row));
            }
            if let Some(count) = counts.and_then(|counts| counts.get(row as usize)) {
                self.set_count(slot, *count);
            }
            self.link(keys, row, slot);
        }
        Ok(())
    }

    /// Puts the row into the index of whole rows; the slot of an equal row, where there is one.
    fn remember(&mut self, hash: u64, slot: u32, cells: &[Cells], row: u32) -> Option<u32> {
        let row_index = self.row_index.as_mut()?;
        if row_index.first(hash) != NONE {
            let known = row_index.find(hash, |slot| self.store.equals(&self.all_idxs, slot, cells, row, false));
            if known != NONE {
                return Some(known);
            }
        }
        row_index.insert(hash, slot);
        None
    }

    fn lookup_rows(&self, row_index: &Index, hashes: &[u64], cells: &[Cells], rows: &[u32]) -> Vec<u32> {
        let hash = |row: u32| hashes.get(row as usize).copied().unwrap_or_default();
        let mut slots = row_index.first_of_all(rows.iter().map(|row| hash(*row)));
        let mut same: Vec<bool> = slots.iter().map(|slot| *slot != NONE).collect();
        self.store.compare(&self.all_idxs, &slots, cells, rows, false, &mut same);
        for ((slot, same), row) in slots.iter_mut().zip(same).zip(rows) {
            if !same && *slot != NONE {
                let equals = |slot| self.store.equals(&self.all_idxs, slot, cells, *row, false);
                *slot = row_index.find(hash(*row), equals);
            }
        }
        slots
    }

    fn add_weight(&mut self, slot: u32, weight: i64) -> Result<()> {
        let too_many = || SqlError::new(SqlState::NumericValueOutOfRange, "too many copies of a row");
        let total = self.weight(slot).checked_add(weight).ok_or_else(too_many)?;
        self.set_weight(slot, total);
        Ok(())
    }

    /// Stores values: in freed slots first.
    fn store_rows(&mut self, cells: &[Cells], rows: &[u32]) -> Result<Vec<u32>> {
        let n_reused = rows.len().min(self.free.len());
        let mut slots = self.free.split_off(self.free.len() - n_reused);
        let (reused, appended) = rows.split_at(n_reused);
        self.store.overwrite(cells, reused, &slots)?;
        self.store.append(cells, appended, &mut slots)?;
        Ok(slots)
    }

    fn link(&mut self, keys: &Keys, row: u32, slot: u32) {
        let (store, key_idxs, is_exact) = (&self.store, &self.key_idxs, self.is_exact);
        let same = |other| is_exact || store.equals(key_idxs, other, &keys.cells, row, true);
        let head = self.index.put(keys.hash(row), slot, same);
        self.set_next(slot, head);
        if self.row_index.is_some() {
            self.set_prev(slot, NONE);
            if head != NONE {
                self.set_prev(head, slot);
            }
        }
        self.n_slots += 1;
    }

    /// Removes as many copies as `weights` says (positive numbers) of the rows `keys.rows`.
    ///
    /// Errors: `XX000` where a row is not there, or not so often.
    pub(super) fn remove(&mut self, rows: &RecordBatch, keys: &Keys, weights: &[i64]) -> Result<()> {
        if self.append_only && !keys.rows.is_empty() {
            return Err(SqlError::internal("a row is removed from an append-only join input"));
        }
        let cells = self.store.encode(rows.columns(), None)?;
        let mut row_hashes = vec![];
        let slots = match &self.row_index {
            Some(row_index) => {
                hash_rows(rows.columns(), rows.num_rows(), &mut row_hashes)?;
                self.lookup_rows(row_index, &row_hashes, &cells, &keys.rows)
            }
            // Looked up one after the other below: equal rows have slots of their own. This warms the cache.
            None => self.probe(keys, &keys.rows),
        };
        for (row, mut slot) in keys.rows.iter().zip(slots) {
            if self.row_index.is_none() {
                slot = self.in_chain(self.find(keys, *row), &cells, *row);
            }
            let weight = weights.get(*row as usize).copied().unwrap_or(1);
            let left = self.weight(slot) - weight;
            if slot == NONE || left < 0 {
                return Err(SqlError::internal("a row is removed from a join that is not there"));
            }
            if left > 0 {
                self.set_weight(slot, left);
                continue;
            }
            let row_hash = row_hashes.get(*row as usize).copied();
            if let (Some(row_index), Some(hash)) = (&mut self.row_index, row_hash)
                && !row_index.remove(hash, slot)
            {
                return Err(SqlError::internal("a row is removed twice from a join"));
            }
            self.unlink(keys, *row, slot)?;
        }
        if self.n_slots == 0 && self.bytes() > EMPTY_BYTES_MAX {
            self.store.clear();
            self.free = vec![];
        }
        Ok(())
    }

    /// The slot of the row itself, from the first slot of its key.
    fn in_chain(&self, mut slot: u32, cells: &[Cells], row: u32) -> u32 {
        while slot != NONE && !self.store.equals(&self.all_idxs, slot, cells, row, false) {
            slot = self.next(slot);
        }
        slot
    }

    fn unlink(&mut self, keys: &Keys, row: u32, slot: u32) -> Result<()> {
        let next = self.next(slot);
        let prev = match self.row_index {
            Some(_) => {
                let prev = self.store.at(slot).and_then(|(links, offset)| links.prev.get(offset).copied());
                prev.unwrap_or(NONE)
            }
            // Keys hardly repeat: the chain is short.
            None => {
                let (mut prev, mut at) = (NONE, self.find(keys, row));
                while at != slot && at != NONE {
                    (prev, at) = (at, self.next(at));
                }
                if at == NONE {
                    return Err(SqlError::internal("a row is removed twice from a join"));
                }
                prev
            }
        };
        if next != NONE && self.row_index.is_some() {
            self.set_prev(next, prev);
        }
        let hash = keys.hash(row);
        let done = match (prev, next) {
            (NONE, NONE) => self.index.remove(hash, slot),
            (NONE, next) => self.index.replace(hash, slot, next),
            (prev, next) => {
                self.set_next(prev, next);
                true
            }
        };
        if !done {
            return Err(SqlError::internal("a row of a join is not in its index"));
        }
        self.free.push(slot);
        self.n_slots -= 1;
        Ok(())
    }
}

impl Keys {
    #[inline]
    fn hash(&self, row: u32) -> u64 {
        self.hashes.get(row as usize).copied().unwrap_or_default()
    }
}

fn pieces(rows: &[u32], slots: &[u32], visit: &mut impl FnMut(&[u32], &[u32]) -> Result<()>) -> Result<()> {
    rows.chunks(BATCH_ROWS_MAX).zip(slots.chunks(BATCH_ROWS_MAX)).try_for_each(|(rows, slots)| visit(rows, slots))
}

/// A one-to-one scrambling of 32 bits (the finalizer of MurmurHash3, by Austin Appleby).
#[inline]
fn scramble(mut word: u32) -> u32 {
    word = (word ^ (word >> 16)).wrapping_mul(0x85eb_ca6b);
    word = (word ^ (word >> 13)).wrapping_mul(0xc2b2_ae35);
    word ^ (word >> 16)
}
