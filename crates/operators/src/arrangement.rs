//! The rows of one relation as they are and as they were: a table's content, a view's content.
//!
//! See DESIGN §5. One writer; any number of readers, each of which sees the rows of one epoch and never waits.
//! Every row carries the epoch it was born and the epoch it died; a reader of epoch e takes the rows with
//! `born <= e < died`, so that publishing an epoch copies nothing. Invariant: the index holds exactly the rows that
//! are alive (but for those that `load` brought, until `settle`); what a reader was given is never written again, but for the
//! epoch of death.

mod column;
pub(crate) mod index;
mod indexes;
mod key_index;
mod lookup;
pub(crate) mod pages;
mod raw;
mod reader;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod views;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use tidewire_types::{Delta, Epoch, Result, SqlError, hash_rows};

pub(crate) use self::column::{Cells, Column};
use self::index::{Index, Load, NONE};
use self::indexes::Indexes;
pub use self::key_index::KeyIndex;
use self::key_index::Locked;
pub use self::reader::ArrangementReader;
use self::reader::Life;
use self::store::{Ranges, SEGMENT_BITS, Store};

/// Rows from which threads share them out.
const PARALLEL_ROWS_MIN: usize = 1 << 16;

/// Segments whose dead one call of `vacuum` counts at most.
const VACUUM_SEGMENTS_MAX: usize = 8;

/// The writing end: owned by the epoch loop.
#[derive(Debug)]
pub struct Arrangement {
    reader: Arc<ArrangementReader>,
    store: Store<Arc<Life>>,
    index: Index,
    /// Rows that are not in `index` yet.
    pending: Ranges,
    /// What readers find rows by.
    indexes: Indexes,
    identity: Identity,
    /// The columns that tell rows apart.
    key_idxs: Vec<usize>,
    n_rows: usize,
    /// The segment that the next `vacuum` looks at first.
    vacuum_idx: usize,
    /// Segments of which half the rows were dead, and may be so.
    worn: BTreeSet<usize>,
    /// The store's segments that readers see: its `n_remakes`.
    published: Option<u64>,
}

/// What is known of a relation's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Rows are only ever added: no index is needed at all.
    AppendOnly,
    /// At most one row with the same values of these columns at any time (no columns: at most one row).
    UniqueKey(Vec<usize>),
    /// A bag: the same row may be there several times.
    Bag,
}

/// The changes of one epoch, put together.
struct Changes {
    rows: RecordBatch,
    cells: Vec<Cells>,
    hashes: Vec<u64>,
}

impl Arrangement {
    /// An empty relation.
    pub fn new(schema: SchemaRef, identity: Identity) -> Result<Arrangement> {
        let key_idxs = match &identity {
            Identity::AppendOnly => vec![],
            Identity::UniqueKey(columns) => columns.clone(),
            Identity::Bag => (0..schema.fields().len()).collect(),
        };
        if key_idxs.iter().any(|idx| *idx >= schema.fields().len()) {
            return Err(SqlError::internal("a key column that the relation does not have"));
        }
        let store = Store::new(schema.clone())?;
        let unique_key = matches!(identity, Identity::UniqueKey(_)).then(|| key_idxs.clone());
        let index = Index::new(unique_key.is_some() && store.is_word(&key_idxs));
        let reader = Arc::new(ArrangementReader::new(schema, store.kinds().to_vec(), unique_key));
        Ok(Arrangement {
            reader,
            store,
            index,
            pending: Ranges::default(),
            indexes: Indexes::default(),
            identity,
            key_idxs,
            n_rows: 0,
            vacuum_idx: 0,
            worn: BTreeSet::new(),
            published: None,
        })
    }

    /// Applies the changes of one epoch. Removals are matched to rows by the identity; within one call removals and
    /// insertions of one key may come in any order.
    ///
    /// Errors: `XX000` when a row is removed that is not there (the view has failed), or when a second row of one
    /// unique key stays after the whole call.
    pub fn apply(&mut self, deltas: &[Delta], epoch: Epoch) -> Result<()> {
        self.settle(1)?;
        let Some((rows, weights)) = put_together(deltas)? else { return Ok(()) };
        let cells = self.store.encode(rows.columns(), None)?;
        let hashes = match self.identity {
            Identity::AppendOnly => vec![],
            _ => self.hashes(&self.key_columns(&rows)?, rows.num_rows())?,
        };
        let changes = Changes { rows, cells, hashes };
        self.indexes.begin(epoch);
        match self.identity {
            Identity::AppendOnly => self.apply_append_only(&changes, weights.as_deref(), epoch)?,
            Identity::UniqueKey(_) => self.apply_unique(&changes, weights.as_deref(), epoch)?,
            Identity::Bag => self.apply_bag(&changes, weights.as_deref(), epoch)?,
        }
        self.indexes.keep_up(&self.store, &changes.rows)?;
        self.publish();
        Ok(())
    }

    /// As `apply`, for the rows that there are at the beginning, which come in many calls: [`Arrangement::settle`] ends them.
    pub fn load(&mut self, deltas: &[Delta], epoch: Epoch) -> Result<()> {
        let is_plain = deltas.iter().all(|delta| delta.weights().is_none());
        if !is_plain || self.identity == Identity::Bag || self.indexes.any() {
            return self.apply(deltas, epoch);
        }
        for delta in deltas {
            let cells = self.store.encode(delta.rows().columns(), None)?;
            let rows: Vec<u32> = (0..delta.n_rows() as u32).collect();
            let slots = self.append(&cells, &rows, epoch)?;
            self.n_rows += slots.len();
            if self.identity != Identity::AppendOnly {
                self.pending.add(&slots);
            }
            if self.index.is_exact() {
                let keys = self.key_idxs.first().and_then(|idx| cells.get(*idx)).and_then(Cells::words);
                self.index.expect(keys.into_iter().flatten());
            }
        }
        self.publish();
        Ok(())
    }

    /// Has the rows found that `load` brought; on so many threads, where they are many.
    ///
    /// Errors: `XX000` where two rows have one unique key.
    pub fn settle(&mut self, n_threads: usize) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let pending = self.settle_pages(pending)?;
        if pending.is_empty() {
            return Ok(());
        }
        let n_threads = if pending.n_slots() < PARALLEL_ROWS_MIN { 1 } else { n_threads.max(1) };
        let mut parts = pending.as_slice().chunks(pending.as_slice().len().div_ceil(n_threads));
        let own = parts.next().unwrap_or_default();
        let entries = |ranges: &[Range<u32>]| {
            let mut load = Load::of_tags(ranges.iter().map(ExactSizeIterator::len).sum());
            for slots in ranges {
                let hashes = self.stored_hashes(slots)?;
                hashes.iter().zip(slots.clone()).for_each(|(hash, slot)| load.push(self.index.spread(*hash), slot));
            }
            Ok(load)
        };
        let loads = std::thread::scope(|scope| {
            let threads: Vec<_> = parts.map(|slots| scope.spawn(|| entries(slots))).collect();
            let panicked = |_| Err(SqlError::internal("a thread that hashes keys has panicked"));
            let own = entries(own);
            let others = threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked));
            std::iter::once(own).chain(others).collect::<Result<Vec<_>>>()
        })?;
        let (store, key_idxs) = (&self.store, &self.key_idxs);
        let same = |slot, other| store.equals_stored(key_idxs, slot, other, true);
        match self.index.insert_all(loads, n_threads, same) {
            true => Ok(()),
            false => Err(second_row()),
        }
    }

    /// Puts those rows into pages of the index whose keys are close to each other; the others.
    fn settle_pages(&mut self, pending: Ranges) -> Result<Ranges> {
        self.index.make_pages();
        if !self.index.has_pages() {
            return Ok(pending);
        }
        let (mut rest, mut unpaged) = (Ranges::default(), vec![]);
        for slots in pending.as_slice() {
            unpaged.clear();
            for (hash, slot) in self.stored_hashes(slots)?.into_iter().zip(slots.clone()) {
                match self.index.put_in_page(hash, slot) {
                    Some(NONE) => {}
                    Some(_) => return Err(second_row()),
                    None => unpaged.push(slot),
                }
            }
            rest.add(&unpaged);
        }
        Ok(rest)
    }

    /// For each row of `keys` (the unique key's columns, in the identity's order), the row that is there now.
    /// The batch holds the rows that were found; the list has, for each key, its index in that batch.
    pub fn get(&self, keys: &RecordBatch) -> Result<(RecordBatch, Vec<Option<usize>>)> {
        let Identity::UniqueKey(key_idxs) = &self.identity else {
            return Err(SqlError::internal("a relation without a unique key is read by key"));
        };
        let cells = self.store.encode(keys.columns(), Some(key_idxs))?;
        let hashes = self.hashes(keys.columns(), keys.num_rows())?;
        let rows: Vec<u32> = (0..keys.num_rows() as u32).collect();
        let mut slots = self.lookup(&hashes, &cells, &rows);
        let mut n_found = 0;
        let places = slots
            .iter()
            .map(|slot| {
                (*slot != NONE).then(|| {
                    n_found += 1;
                    n_found - 1
                })
            })
            .collect();
        slots.retain(|slot| *slot != NONE);
        Ok((self.store.gather_rows(&slots)?, places))
    }

    /// The reading end.
    pub fn reader(&self) -> Arc<ArrangementReader> {
        self.reader.clone()
    }

    /// Bytes of memory that it holds.
    pub fn state_bytes(&self) -> usize {
        self.store.bytes() + self.index.bytes() + self.indexes.bytes() + self.pending.bytes()
    }

    /// Rows that are alive (copies of a bag's row count once each).
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn key_columns(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let none = || SqlError::internal("a key column that a delta does not have");
        self.key_idxs.iter().map(|idx| rows.columns().get(*idx).cloned().ok_or_else(none)).collect()
    }

    /// What the index goes by.
    fn hashes(&self, key_columns: &[ArrayRef], n_rows: usize) -> Result<Vec<u64>> {
        if self.index.is_exact() {
            let cells = self.store.encode(key_columns, Some(&self.key_idxs))?;
            let not_words = || SqlError::internal("a key that is not of words");
            return cells.first().and_then(Cells::words).ok_or_else(not_words);
        }
        let mut hashes = vec![];
        hash_rows(key_columns, n_rows, &mut hashes)?;
        Ok(hashes)
    }

    /// What the index goes by, at a range of slots.
    fn stored_hashes(&self, slots: &Range<u32>) -> Result<Vec<u64>> {
        self.store.key_hashes(&self.key_idxs, self.index.is_exact(), slots)
    }

    /// The slots of the rows that have the keys of `rows`, or `NONE`. `cells` are those of the key columns.
    fn lookup(&self, hashes: &[u64], cells: &[Cells], rows: &[u32]) -> Vec<u32> {
        // Two passes: the misses of the index, and then those of the columns, overlap.
        let hash = |row: u32| hashes.get(row as usize).copied().unwrap_or_default();
        let mut slots = self.index.first_of_all(rows.iter().map(|row| hash(*row)));
        let mut same: Vec<bool> = slots.iter().map(|slot| *slot != NONE).collect();
        self.store.compare(&self.key_idxs, &slots, cells, rows, self.by_value(), &mut same);
        for ((slot, same), row) in slots.iter_mut().zip(same).zip(rows) {
            if !same && *slot != NONE {
                *slot = self.index.find(hash(*row), |slot| self.is_key(slot, cells, *row));
            }
        }
        slots
    }

    fn is_key(&self, slot: u32, cells: &[Cells], row: u32) -> bool {
        self.store.equals(&self.key_idxs, slot, cells, row, self.by_value())
    }

    /// Keys are equal as GROUP BY sees it; a bag's rows only if they are the same bits.
    fn by_value(&self) -> bool {
        self.identity != Identity::Bag
    }

    fn apply_append_only(&mut self, changes: &Changes, weights: Option<&[i64]>, epoch: Epoch) -> Result<()> {
        let mut rows: Vec<u32> = Vec::with_capacity(changes.rows.num_rows());
        match weights {
            None => rows.extend(0..changes.rows.num_rows() as u32),
            Some(weights) => {
                for (row, weight) in (0u32..).zip(weights) {
                    let copies = usize::try_from(*weight).map_err(|_| not_there())?;
                    rows.extend(std::iter::repeat_n(row, copies));
                }
            }
        }
        self.append(&changes.cells, &rows, epoch)?;
        self.n_rows += rows.len();
        Ok(())
    }

    /// Appends rows that are born now.
    fn append(&mut self, cells: &[Cells], rows: &[u32], epoch: Epoch) -> Result<Vec<u32>> {
        let mut slots = vec![];
        self.store.append(cells, rows, &mut slots)?;
        self.indexes.born(rows, &slots);
        for slots in slots.chunk_by(|a, b| a >> SEGMENT_BITS == b >> SEGMENT_BITS) {
            if let Some((life, offset)) = slots.first().and_then(|slot| self.store.at(*slot)) {
                life.bear(offset..offset + slots.len(), epoch);
            }
        }
        Ok(slots)
    }

    fn kill(&mut self, slot: u32, epoch: Epoch) {
        if let Some((life, offset)) = self.store.at(slot) {
            life.kill(offset, epoch);
            self.indexes.died(slot);
            self.wear(slot);
        }
    }

    fn is_alive(&self, slot: u32) -> bool {
        self.store.at(slot).is_some_and(|(life, offset)| life.died(offset) == Epoch::NEVER)
    }

    fn apply_unique(&mut self, changes: &Changes, weights: Option<&[i64]>, epoch: Epoch) -> Result<()> {
        let (minus, mut plus) = match weights {
            None => (vec![], (0..changes.rows.num_rows() as u32).collect()),
            Some(weights) => net_by_key(changes, weights)?,
        };
        let key_cells = self.store.encode(&self.key_columns(&changes.rows)?, Some(&self.key_idxs))?;
        let hash = |row: u32| changes.hashes.get(row as usize).copied().unwrap_or_default();
        let removed = self.lookup(&changes.hashes, &key_cells, &minus);
        let mut absent = vec![];
        for (slot, row) in removed.iter().zip(&minus) {
            match *slot {
                NONE => absent.push(*row),
                slot if self.is_alive(slot) => self.kill(slot, epoch),
                _ => return Err(not_there()),
            }
        }
        if !absent.is_empty() {
            cancel(changes, &absent, &mut plus)?;
        }
        // Dead entries stay in the index until the new rows of the same keys have taken them over.
        let mut found = self.lookup(&changes.hashes, &key_cells, &plus);
        let slots = self.append(&changes.cells, &plus, epoch)?;
        for ((found, slot), row) in found.iter_mut().zip(&slots).zip(&plus) {
            if *found == NONE {
                // Another row of this very call may have the key.
                *found = match self.index.first(hash(*row)) {
                    NONE => NONE,
                    _ => self.index.find(hash(*row), |slot| self.is_key(slot, &key_cells, *row)),
                };
            }
            match *found {
                NONE => self.index.insert(hash(*row), *slot),
                old if self.is_alive(old) || !self.index.replace(hash(*row), old, *slot) => {
                    return Err(second_row());
                }
                _ => {}
            }
        }
        let mut n_gone = 0;
        for (slot, row) in removed.iter().zip(&minus).filter(|(slot, _)| **slot != NONE) {
            n_gone += 1;
            self.index.remove(hash(*row), *slot);
        }
        self.n_rows = (self.n_rows + plus.len()).saturating_sub(n_gone);
        Ok(())
    }

    fn apply_bag(&mut self, changes: &Changes, weights: Option<&[i64]>, epoch: Epoch) -> Result<()> {
        let rows: Vec<u32> = (0..changes.rows.num_rows() as u32).collect();
        let mut found = self.lookup(&changes.hashes, &changes.cells, &rows);
        // What each touched row weighs after this call: its first row here, its slot (if it has one), the weight.
        let mut touched: Vec<(u32, u32, i64)> = vec![];
        let mut places: HashMap<u32, usize> = HashMap::new();
        // Rows without a slot: an index of this call's own.
        let mut fresh = Index::default();
        let mut fresh_rows: Option<RowKeys> = None;
        for (row, slot) in rows.iter().zip(&mut found) {
            let hash = changes.hashes.get(*row as usize).copied().unwrap_or_default();
            let weight = weights.map_or(1, |w| w.get(*row as usize).copied().unwrap_or(1));
            let place = if *slot != NONE {
                *places.entry(*slot).or_insert_with(|| {
                    let old = self.store.at(*slot).map_or(0, |(life, offset)| life.weight(offset));
                    touched.push((*row, *slot, old));
                    touched.len() - 1
                })
            } else {
                let same = match fresh.first(hash) {
                    NONE => NONE,
                    _ => {
                        let keys = match &mut fresh_rows {
                            Some(keys) => keys,
                            none => none.insert(RowKeys::new(&changes.rows)?),
                        };
                        fresh.find(hash, |place| {
                            touched.get(place as usize).is_some_and(|(other, ..)| keys.equal(*other, *row))
                        })
                    }
                };
                if same == NONE {
                    fresh.insert(hash, touched.len() as u32);
                    touched.push((*row, NONE, 0));
                    touched.len() - 1
                } else {
                    same as usize
                }
            };
            if let Some((.., total)) = touched.get_mut(place) {
                *total = total.checked_add(weight).ok_or_else(too_many)?;
            }
        }
        self.settle_bag(changes, &touched, epoch)
    }

    fn settle_bag(&mut self, changes: &Changes, touched: &[(u32, u32, i64)], epoch: Epoch) -> Result<()> {
        let old_weight = |slot: u32| self.store.at(slot).map_or(0, |(life, offset)| life.weight(offset));
        let changed: Vec<_> = touched
            .iter()
            .map(|(row, slot, weight)| (*row, *slot, old_weight(*slot), *weight))
            .filter(|(_, _, old, weight)| old != weight)
            .collect();
        if changed.iter().any(|(.., weight)| *weight < 0) {
            return Err(not_there());
        }
        let rows: Vec<u32> = changed.iter().filter(|(.., weight)| *weight > 0).map(|(row, ..)| *row).collect();
        let mut slots = self.append(&changes.cells, &rows, epoch)?.into_iter();
        for (row, old_slot, old, weight) in changed {
            let hash = changes.hashes.get(row as usize).copied().unwrap_or_default();
            if old_slot != NONE {
                self.kill(old_slot, epoch);
                self.index.remove(hash, old_slot);
            }
            if weight > 0
                && let Some(slot) = slots.next()
            {
                self.index.insert(hash, slot);
                let grown = self.store.at(slot).map_or(0, |(life, offset)| life.set_weight(offset, weight));
                self.store.grew(grown);
            }
            let n_rows = self.n_rows as i64 - old + weight;
            self.n_rows = usize::try_from(n_rows).map_err(|_| too_many())?;
        }
        Ok(())
    }

    /// Lets readers see what is there.
    fn publish(&mut self) {
        let tail_idx = self.store.tail_idx();
        let is_other = self.published.replace(self.store.n_remakes()) != Some(self.store.n_remakes());
        let segments = is_other.then(|| self.store.segments().filter(move |(idx, _)| Some(*idx) != tail_idx));
        let tail = tail_idx.and_then(|idx| Some((idx, self.store.segment(idx)?)));
        fn extent((idx, s): (usize, &store::Segment<Arc<Life>>)) -> (usize, &Arc<Life>, usize) {
            (idx, &s.slots, s.n_rows)
        }
        self.reader.publish(segments.map(|segments| segments.map(extent)), tail.map(extent));
    }

    /// Forgets rows that died at or before `epoch`: no reader will ask for an earlier one. Works a bounded slice a
    /// call: rewrites one segment of which at least half can go, and frees those that go as a whole.
    pub fn vacuum(&mut self, epoch: Epoch) {
        if self.identity == Identity::AppendOnly || !self.pending.is_empty() {
            return;
        }
        self.indexes.vacuum(epoch);
        let candidates = self.vacuum_candidates();
        if candidates.is_empty() {
            return;
        }
        // Until the new list of segments is out, nobody looks up slots.
        let indexes = self.indexes.all();
        let mut locked = Locked::new(&indexes);
        // An index that cannot be mended would be a bug; the segment then stays as it is and nothing is lost.
        if self.vacuum_slice(&candidates, epoch, &mut locked).is_ok_and(|changed| changed) {
            self.publish();
        }
    }

    /// Segments that are worth a look.
    fn vacuum_candidates(&mut self) -> Vec<usize> {
        let (store, mut idxs) = (&self.store, vec![]);
        self.worn.retain(|idx| {
            let Some(segment) = store.segment(*idx) else { return false };
            let is_open = store.tail_idx() == Some(*idx) && segment.slots.capacity() > segment.n_rows;
            let is_worn = is_worn(segment);
            if is_worn && !is_open {
                idxs.push(*idx);
            }
            is_worn || is_open
        });
        let start = idxs.partition_point(|idx| *idx < self.vacuum_idx);
        idxs.rotate_left(start);
        idxs.truncate(VACUUM_SEGMENTS_MAX);
        idxs
    }

    /// A row of that slot's segment is dead since.
    fn wear(&mut self, slot: u32) {
        let idx = (slot >> SEGMENT_BITS) as usize;
        if self.store.segment(idx).is_some_and(is_worn) {
            self.worn.insert(idx);
        }
    }

    fn vacuum_slice(&mut self, candidates: &[usize], epoch: Epoch, locked: &mut Locked<'_>) -> Result<bool> {
        let mut changed = false;
        for idx in candidates.iter().copied() {
            let Some(segment) = self.store.segment(idx) else { continue };
            self.vacuum_idx = idx + 1;
            let kept: Vec<u32> =
                (0..segment.n_rows as u32).filter(|offset| segment.slots.died(*offset as usize) > epoch).collect();
            if kept.len() * 2 > segment.n_rows {
                continue;
            }
            let is_whole = kept.is_empty();
            if !is_whole {
                self.rewrite(idx, &kept, locked)?;
            }
            self.store.free(idx);
            locked.forget_segment(idx);
            changed = true;
            if !is_whole {
                break;
            }
        }
        Ok(changed)
    }

    /// Copies the rows at `offsets` of a segment to the end, with their epochs, and points the index there.
    fn rewrite(&mut self, segment_idx: usize, offsets: &[u32], locked: &mut Locked<'_>) -> Result<()> {
        let old: Vec<u32> = offsets.iter().map(|offset| (segment_idx as u32) << SEGMENT_BITS | offset).collect();
        let n_columns = self.store.kinds().len();
        let cells = (0..n_columns).map(|idx| self.store.gather_cells(idx, &old)).collect::<Result<Vec<_>>>()?;
        let keys = self.key_idxs.iter().map(|idx| self.store.gather(*idx, &old)).collect::<Result<Vec<_>>>()?;
        let hashes = self.hashes(&keys, old.len())?;
        let rows: Vec<u32> = (0..old.len() as u32).collect();
        let mut new = vec![];
        self.store.append(&cells, &rows, &mut new)?;
        for ((old, new), hash) in old.iter().zip(&new).zip(&hashes) {
            let grown = match (self.store.at(*old), self.store.at(*new)) {
                (Some((from, old)), Some((to, new))) => to.copy_from(new, from, old),
                _ => 0,
            };
            self.store.grew(grown);
            self.wear(*new);
            self.index.replace(*hash, *old, *new);
        }
        self.indexes.moved(&self.store, &old, &new, locked)
    }
}

/// Whether half the rows are dead.
fn is_worn(segment: &store::Segment<Arc<Life>>) -> bool {
    segment.slots.n_dead() * 2 >= segment.n_rows
}

/// All deltas as one batch with one list of weights; None where there are no rows.
fn put_together(deltas: &[Delta]) -> Result<Option<(RecordBatch, Option<Vec<i64>>)>> {
    let deltas: Vec<&Delta> = deltas.iter().filter(|delta| !delta.is_empty()).collect();
    let Some(first) = deltas.first() else { return Ok(None) };
    let weights = deltas.iter().any(|delta| delta.weights().is_some());
    let weights = weights.then(|| {
        let mut all = Vec::with_capacity(deltas.iter().map(|delta| delta.n_rows()).sum());
        for delta in &deltas {
            match delta.weights() {
                Some(weights) => all.extend_from_slice(weights.values()),
                None => all.extend(std::iter::repeat_n(1, delta.n_rows())),
            }
        }
        all
    });
    let rows = match deltas.as_slice() {
        [one] => one.rows().clone(),
        _ => concat_batches(&first.schema(), deltas.iter().map(|delta| delta.rows()))?,
    };
    Ok(Some((rows, weights)))
}

/// Rows to remove and rows to add. Where a key is changed more than once, equal rows that are added and removed cancel:
/// what stays is at most one of each, or `apply` finds the contradiction.
fn net_by_key(changes: &Changes, weights: &[i64]) -> Result<(Vec<u32>, Vec<u32>)> {
    let (mut minus, mut plus) = (vec![], vec![]);
    // For each hash, the place in `seen`: whether it was removed, whether it was added, whether more than once.
    let mut places = Index::default();
    let mut seen: Vec<[bool; 3]> = vec![];
    let mut place_of = Vec::with_capacity(weights.len());
    for (hash, weight) in changes.hashes.iter().zip(weights) {
        let place = match places.first(*hash) {
            NONE => {
                places.insert(*hash, seen.len() as u32);
                seen.push([false; 3]);
                seen.len() - 1
            }
            place => place as usize,
        };
        place_of.push(place);
        if let Some([removed, added, twice]) = seen.get_mut(place) {
            let flag = if *weight < 0 { removed } else { added };
            *twice |= *flag || weight.unsigned_abs() > 1;
            *flag |= *weight != 0;
        }
    }
    let mut unclear = vec![];
    for ((row, weight), place) in (0u32..).zip(weights).zip(place_of) {
        match weight {
            0 => {}
            _ if seen.get(place).is_some_and(|[_, _, twice]| *twice) => unclear.push((row, *weight)),
            1.. => plus.push(row),
            _ => minus.push(row),
        }
    }
    if !unclear.is_empty() {
        let keys = RowKeys::new(&changes.rows)?;
        let mut totals: HashMap<&[u8], (u32, i64)> = HashMap::new();
        for (row, weight) in unclear {
            let total = &mut totals.entry(keys.get(row)).or_insert((row, 0)).1;
            *total = total.checked_add(weight).ok_or_else(too_many)?;
        }
        for (row, weight) in totals.into_values() {
            match weight {
                0 => {}
                1 => plus.push(row),
                -1 => minus.push(row),
                _ => return Err(SqlError::internal("several copies of a row with a unique key")),
            }
        }
    }
    Ok((minus, plus))
}

/// Takes from `plus` the rows that `absent` removes: they came and went within the call.
fn cancel(changes: &Changes, absent: &[u32], plus: &mut Vec<u32>) -> Result<()> {
    let keys = RowKeys::new(&changes.rows)?;
    let mut gone: HashMap<&[u8], usize> = HashMap::new();
    absent.iter().for_each(|row| *gone.entry(keys.get(*row)).or_default() += 1);
    plus.retain(|row| match gone.get_mut(keys.get(*row)) {
        Some(n) if *n > 0 => {
            *n -= 1;
            false
        }
        _ => true,
    });
    if gone.values().any(|n| *n > 0) { Err(not_there()) } else { Ok(()) }
}

/// Whole rows as bytes, to compare them.
struct RowKeys(arrow::row::Rows);

impl RowKeys {
    fn new(rows: &RecordBatch) -> Result<RowKeys> {
        let fields = rows.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        Ok(RowKeys(RowConverter::new(fields)?.convert_columns(rows.columns())?))
    }

    fn get(&self, row: u32) -> &[u8] {
        // Without columns all rows are equal and the encoding has no rows.
        if (row as usize) < self.0.num_rows() { self.0.row(row as usize).data() } else { &[] }
    }

    fn equal(&self, a: u32, b: u32) -> bool {
        self.get(a) == self.get(b)
    }
}

fn not_there() -> SqlError {
    SqlError::internal("a row is removed that is not there")
}

fn second_row() -> SqlError {
    SqlError::internal("a second row of a unique key")
}

fn too_many() -> SqlError {
    SqlError::internal("too many copies of a row")
}
