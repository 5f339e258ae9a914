//! One input of a join as it is kept: its rows in columns, chained by key behind a hash index.
//!
//! Private to the join, hence without epochs. What a side does not need it does not pay for: no weights while all are
//! 1, no way back in a chain and no index of whole rows but for the chains that are long, where rows are removed and keys
//! repeat. A chain becomes long when it has very many rows, or when a row of it is removed and it has many; all of it is
//! walked then, and never again. A row of a short chain is looked for from its head. Freed slots are used again.
//! Invariant: but for those that `pending` names, the rows of one key are one chain that starts at the index's entry for
//! that key; every stored row weighs more than zero; `row_index` has the rows of long chains, where equal rows are one.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use tidewire_types::{Result, SqlError, SqlState, hash_rows};

use crate::arrangement::index::{Index, Load, NONE, Pair, TOUCHED_MAX};
use crate::arrangement::pages::scramble;
use crate::arrangement::store::{Ranges, SEGMENT_BITS, Slots, Store};
use crate::arrangement::{Cells, Column};

/// Rows of one output batch at most.
pub(super) const BATCH_ROWS_MAX: usize = 1 << 16;
/// Rows whose keys are looked at together before they are put into the index.
const INSERTED_MAX: usize = 4096;
/// Bytes from which an empty side gives its memory back.
const EMPTY_BYTES_MAX: usize = 1 << 16;
/// Rows of a chain that is walked to find one that is removed. Tests have few rows, and long chains too.
const WALKED_ROWS_MAX: usize = if cfg!(test) { 3 } else { 16 };
/// Rows of a chain that stays short as long as none of them is removed: many keys never lose a row.
const SHORT_ROWS_MAX: usize = if cfg!(test) { 6 } else { 256 };
/// One in so many rows looks whether its chain is still short. Together they look at about as many rows as they are.
const ROWS_A_LOOK: u32 = if cfg!(test) { 1 } else { 256 };
/// The row before the first one of a long chain. No slot.
const LONG: u32 = NONE - 1;

/// What is kept of a slot.
#[derive(Debug)]
struct Links {
    /// Only once a key has two rows.
    next: Vec<u32>,
    /// Of the rows of long chains: the row before, or `LONG`.
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
        Links { next: vec![], prev: vec![], weights: vec![], counts: vec![], capacity }
    }

    fn bytes(&self) -> usize {
        (self.next.capacity() + self.prev.capacity()) * size_of::<u32>()
            + self.weights.capacity() * size_of::<i64>()
            + self.counts.capacity() * size_of::<Count>()
    }
}

/// Sets a value in a list that is made when something else than the default is set; the bytes of a list that was made.
fn set<T: Copy + PartialEq>(list: &mut Vec<T>, capacity: usize, offset: usize, value: T, default: T) -> usize {
    let n_before = list.capacity();
    if list.is_empty() && value != default {
        list.resize(capacity, default);
    }
    if let Some(place) = list.get_mut(offset) {
        *place = value;
    }
    (list.capacity() - n_before) * size_of::<T>()
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
    /// Rows that are in no chain yet.
    pending: Ranges,
    /// Rows are removed and keys repeat.
    has_chains: bool,
    /// From a whole row of a long chain to its slot.
    row_index: Index,
    /// Rows of long chains that `row_index` must still get, with the hashes of their keys.
    unindexed: Vec<(u64, u32)>,
    key_idxs: Vec<usize>,
    all_idxs: Vec<usize>,
    null_equals_null: bool,
    append_only: bool,
    /// Where the index is exact: no stored key is 2^32 or more, so that the tag, which it keeps of a hash, says all.
    is_narrow: bool,
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
        let store = Store::new(schema)?;
        let index = Index::new(!null_equals_null && store.is_word(&key_idxs));
        Ok(Side {
            store,
            index,
            pending: Ranges::default(),
            has_chains: !append_only && !unique,
            row_index: Index::default(),
            unindexed: vec![],
            key_idxs,
            all_idxs,
            null_equals_null,
            append_only,
            is_narrow: true,
            is_weighted: false,
            free: vec![],
            n_slots: 0,
        })
    }

    pub(super) fn n_rows(&self) -> usize {
        self.n_slots
    }

    pub(super) fn bytes(&self) -> usize {
        self.store.bytes()
            + self.index.bytes()
            + self.row_index.bytes()
            + self.pending.bytes()
            + self.free.capacity() * size_of::<u32>()
    }

    /// Whether a row may weigh something else than 1.
    pub(super) fn is_weighted(&self) -> bool {
        self.is_weighted
    }

    /// The keys of rows of this or the other side, whose key columns are `columns`.
    pub(super) fn keys(&self, columns: &[ArrayRef], n_rows: usize) -> Result<Keys> {
        let cells = self.store.encode(columns, Some(&self.key_idxs))?;
        let hashes = self.hashes(columns, n_rows, &cells)?;
        let nulls: Vec<_> = match self.null_equals_null {
            true => vec![],
            false => columns.iter().filter_map(|c| c.logical_nulls()).filter(|n| n.null_count() > 0).collect(),
        };
        let has_key = |row: &u32| nulls.iter().all(|nulls| nulls.is_valid(*row as usize));
        let rows = (0..n_rows as u32).filter(has_key).collect();
        Ok(Keys { hashes, cells, rows })
    }

    fn hashes(&self, columns: &[ArrayRef], n_rows: usize, cells: &[Cells]) -> Result<Vec<u64>> {
        let words = cells.first().filter(|_| self.index.is_exact()).and_then(Cells::words);
        match words {
            Some(hashes) => Ok(hashes),
            None => {
                let mut hashes = vec![];
                hash_rows(columns, n_rows, &mut hashes)?;
                Ok(hashes)
            }
        }
    }

    /// For each of `rows`, the first slot of its key's chain, or `NONE`. [`Side::link`] comes before.
    pub(super) fn probe(&self, keys: &Keys, rows: &[u32]) -> Vec<u32> {
        let (mut slots, same) = self.likely(keys, rows);
        for ((slot, same), row) in slots.iter_mut().zip(same).zip(rows) {
            if !same && *slot != NONE {
                *slot = self.find(keys, *row);
            }
        }
        slots
    }

    /// For each of `rows`, the slot of the first entry with its tag, or `NONE`, and whether it has the row's key.
    fn likely(&self, keys: &Keys, rows: &[u32]) -> (Vec<u32>, Vec<bool>) {
        // First the index for all, then the keys for all: the misses overlap.
        let slots = self.index.first_of_all(rows.iter().map(|row| keys.hash(*row)));
        let mut same: Vec<bool> = slots.iter().map(|slot| *slot != NONE).collect();
        match self.is_told_by_tag() {
            true => same.iter_mut().zip(rows).for_each(|(same, row)| *same &= is_narrow(keys.hash(*row))),
            false => self.store.compare(&self.key_idxs, &slots, &keys.cells, rows, true, &mut same),
        }
        (slots, same)
    }

    fn find(&self, keys: &Keys, row: u32) -> u32 {
        self.index.find(keys.hash(row), |slot| self.has_key(slot, keys, row))
    }

    #[inline]
    fn has_key(&self, slot: u32, keys: &Keys, row: u32) -> bool {
        match self.is_told_by_tag() {
            true => is_narrow(keys.hash(row)),
            false => self.store.equals(&self.key_idxs, slot, &keys.cells, row, true),
        }
    }

    /// Whether two stored keys are the same where their tags are.
    fn is_told_by_tag(&self) -> bool {
        self.index.is_exact() && self.is_narrow
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
            let grown = set(&mut links.counts, links.capacity, offset, count, Count::default());
            self.store.grew(grown);
        }
    }

    fn set_weight(&mut self, slot: u32, weight: i64) {
        self.is_weighted |= weight != 1;
        if let Some((links, offset)) = self.store.at_mut(slot) {
            let grown = set(&mut links.weights, links.capacity, offset, weight, 1);
            self.store.grew(grown);
        }
    }

    fn set_next(&mut self, slot: u32, next: u32) {
        if let Some((links, offset)) = self.store.at_mut(slot) {
            let grown = set(&mut links.next, links.capacity, offset, next, NONE);
            self.store.grew(grown);
        }
    }

    fn prev(&self, slot: u32) -> u32 {
        self.store.at(slot).and_then(|(links, offset)| links.prev.get(offset).copied()).unwrap_or(NONE)
    }

    fn is_long(&self, head: u32) -> bool {
        self.prev(head) == LONG
    }

    /// Whether the chain that begins at `head` has more than so many rows.
    fn has_more(&self, head: u32, n_rows: usize) -> bool {
        (0..n_rows).try_fold(head, |slot, _| Some(self.next(slot)).filter(|next| *next != NONE)).is_some()
    }

    fn set_prev(&mut self, slot: u32, prev: u32) {
        if let Some((links, offset)) = self.store.at_mut(slot) {
            let grown = set(&mut links.prev, links.capacity, offset, prev, NONE);
            self.store.grew(grown);
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
        let slots = self.keep(rows, keys, weights, counts)?;
        for (rows, slots) in keys.rows.chunks(INSERTED_MAX).zip(slots.chunks(INSERTED_MAX)) {
            let (heads, same) = self.likely(keys, rows);
            for (((row, slot), head), same) in rows.iter().zip(slots).zip(heads).zip(same) {
                let (store, key_idxs, is_told_by_tag) = (&self.store, &self.key_idxs, self.is_told_by_tag());
                let is_key = |other| match other == head {
                    true => same,
                    false => is_told_by_tag || store.equals(key_idxs, other, &keys.cells, *row, true),
                };
                let head = self.index.put(keys.hash(*row), *slot, is_key);
                self.chain(keys.hash(*row), *slot, head);
            }
        }
        self.index_rows()
    }

    /// As `insert`, but nothing finds the rows before [`Side::link`].
    pub(super) fn insert_later(
        &mut self,
        rows: &RecordBatch,
        keys: &Keys,
        weights: Option<&[i64]>,
        counts: Option<&[Count]>,
    ) -> Result<()> {
        let slots = self.keep(rows, keys, weights, counts)?;
        self.pending.add(&slots);
        self.index.expect(keys.rows.iter().map(|row| keys.hash(*row)));
        Ok(())
    }

    /// Has all rows found from now on. Of many rows together each costs less than by itself.
    pub(super) fn link(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(());
        }
        let is_told_by_tag = self.is_told_by_tag();
        let mut index = std::mem::take(&mut self.index);
        let is_exact = index.is_exact();
        let n_unpaged = pending.n_slots() - index.make_pages();
        let mut load = if is_told_by_tag { Load::of_tags(n_unpaged) } else { Load::new(n_unpaged) };
        for slots in pending.as_slice() {
            let (mut slots, hashes) = (slots.clone(), self.store.key_hashes(&self.key_idxs, is_exact, slots)?);
            for hashes in hashes.chunks(TOUCHED_MAX) {
                index.touch_pages(hashes);
                for (hash, slot) in hashes.iter().zip(slots.by_ref()) {
                    match index.put_in_page(*hash, slot) {
                        Some(head) => self.chain(*hash, slot, head),
                        None => load.push(index.spread(*hash), slot),
                    }
                }
            }
        }
        let same = |side: &Side, pair: Pair| {
            is_told_by_tag
                || is_exact && pair.same_hash
                || side.store.equals_stored(&side.key_idxs, pair.old, pair.new, true)
        };
        index.put_all(load, self, same, Side::chain);
        self.index = index;
        self.index_rows()
    }

    /// Stores rows with their weights and counts; their slots.
    fn keep(
        &mut self,
        rows: &RecordBatch,
        keys: &Keys,
        weights: Option<&[i64]>,
        counts: Option<&[Count]>,
    ) -> Result<Vec<u32>> {
        let cells = self.store.encode(rows.columns(), None)?;
        let slots = self.store_rows(&cells, &keys.rows)?;
        self.n_slots += slots.len();
        self.is_narrow &= !self.index.is_exact() || keys.rows.iter().all(|row| is_narrow(keys.hash(*row)));
        if weights.is_some() || self.is_weighted {
            for (row, slot) in keys.rows.iter().zip(&slots) {
                self.set_weight(*slot, weights.map_or(1, |w| w.get(*row as usize).copied().unwrap_or(1)));
            }
        }
        if let Some(counts) = counts {
            for (row, slot) in keys.rows.iter().zip(&slots) {
                self.set_count(*slot, counts.get(*row as usize).copied().unwrap_or_default());
            }
        }
        Ok(slots)
    }

    /// Puts a row before the one that was the first of its key.
    fn chain(&mut self, hash: u64, slot: u32, head: u32) {
        self.set_next(slot, head);
        if !self.has_chains {
            return;
        }
        if self.is_long(head) {
            self.set_prev(head, slot);
            self.set_prev(slot, LONG);
            self.unindexed.push((hash, slot));
        } else {
            self.set_prev(slot, NONE);
            let looks = scramble(slot).is_multiple_of(ROWS_A_LOOK);
            if looks && self.has_more(slot, SHORT_ROWS_MAX) {
                self.lengthen(hash, slot);
            }
        }
    }

    /// Makes the chain that begins at `head` a long one.
    fn lengthen(&mut self, hash: u64, head: u32) {
        let (mut prev, mut slot) = (LONG, head);
        while slot != NONE {
            self.set_prev(slot, prev);
            self.unindexed.push((hash, slot));
            (prev, slot) = (slot, self.next(slot));
        }
    }

    /// Lets the rows of long chains be found, and makes equal ones one.
    fn index_rows(&mut self) -> Result<()> {
        let unindexed = std::mem::take(&mut self.unindexed);
        for rows in unindexed.chunks(BATCH_ROWS_MAX) {
            let slots: Vec<u32> = rows.iter().map(|(_, slot)| *slot).collect();
            let mut hashes = vec![];
            hash_rows(&self.gather(&slots)?, slots.len(), &mut hashes)?;
            self.row_index.touch(hashes.iter().copied());
            for ((key_hash, slot), hash) in rows.iter().zip(&hashes) {
                let equals = |other| self.store.equals_stored(&self.all_idxs, other, *slot, false);
                match self.row_index.find(*hash, equals) {
                    NONE => self.row_index.insert(*hash, *slot),
                    known => {
                        self.add_weight(known, self.weight(*slot))?;
                        self.unlink_from_long(*key_hash, *slot)?;
                    }
                }
            }
        }
        Ok(())
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

    /// Removes as many copies as `weights` says (positive numbers) of the rows `keys.rows`.
    ///
    /// Errors: `XX000` where a row is not there, or not so often.
    pub(super) fn remove(&mut self, rows: &RecordBatch, keys: &Keys, weights: &[i64]) -> Result<()> {
        if self.append_only && !keys.rows.is_empty() {
            return Err(SqlError::internal("a row is removed from an append-only join input"));
        }
        self.link()?;
        let cells = self.store.encode(rows.columns(), None)?;
        // Looked up one after the other below, for chains change. This brings their heads into the cache.
        let heads = self.probe(keys, &keys.rows);
        for (row, head) in keys.rows.iter().zip(heads) {
            if self.has_chains && !self.is_long(head) && self.has_more(head, WALKED_ROWS_MAX) {
                self.lengthen(keys.hash(*row), head);
            }
        }
        self.index_rows()?;
        let mut row_hashes = vec![];
        if self.row_index.len() > 0 {
            hash_rows(rows.columns(), rows.num_rows(), &mut row_hashes)?;
            self.row_index.touch(row_hashes.iter().copied());
        }
        for row in &keys.rows {
            let key_hash = keys.hash(*row);
            let row_hash = row_hashes.get(*row as usize).copied().unwrap_or_default();
            let mut n_left = weights.get(*row as usize).copied().unwrap_or(1);
            // Equal rows may have slots of their own.
            while n_left > 0 {
                let head = self.find(keys, *row);
                let is_long = self.is_long(head);
                let equals = |slot| self.store.equals(&self.all_idxs, slot, &cells, *row, false);
                let (prev, slot) = match is_long {
                    true => (NONE, self.row_index.find(row_hash, equals)),
                    false => self.in_chain(head, equals),
                };
                if slot == NONE {
                    return Err(SqlError::internal("a row is removed from a join that is not there"));
                }
                let weight = self.weight(slot);
                if weight > n_left {
                    self.set_weight(slot, weight - n_left);
                    break;
                }
                n_left -= weight;
                if is_long {
                    self.row_index.remove(row_hash, slot);
                    self.unlink_from_long(key_hash, slot)?;
                } else {
                    self.unlink(key_hash, slot, prev)?;
                }
            }
        }
        if self.n_slots == 0 && self.bytes() > EMPTY_BYTES_MAX {
            self.store.clear();
            self.free = vec![];
            self.is_narrow = true;
        }
        Ok(())
    }

    /// The first slot of a chain that `is_it` accepts, and the one before it.
    fn in_chain(&self, head: u32, is_it: impl Fn(u32) -> bool) -> (u32, u32) {
        let (mut prev, mut slot) = (NONE, head);
        while slot != NONE && !is_it(slot) {
            (prev, slot) = (slot, self.next(slot));
        }
        (prev, slot)
    }

    fn unlink_from_long(&mut self, hash: u64, slot: u32) -> Result<()> {
        let (prev, next) = (self.prev(slot), self.next(slot));
        self.unlink(hash, slot, if prev == LONG { NONE } else { prev })?;
        if next != NONE {
            // Where it was the first, the next now is, and the chain still long.
            self.set_prev(next, prev);
        }
        Ok(())
    }

    /// Takes a row out of its chain, where `prev` is before it, and frees its slot.
    fn unlink(&mut self, hash: u64, slot: u32, prev: u32) -> Result<()> {
        let done = match (prev, self.next(slot)) {
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

/// Whether a word is below 2^32.
#[inline]
fn is_narrow(word: u64) -> bool {
    word <= u64::from(u32::MAX)
}
