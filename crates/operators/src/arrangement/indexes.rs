//! The indexes of a relation: how they come, are kept up with each epoch's changes, and go.
//!
//! A new index is built in slices between epochs; what changes meanwhile is taken in at once, so that a slice adds
//! what is alive in its part of the rows and nothing is missed. See [`super::key_index`] for what an index is.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::buffer::NullBuffer;
use tidewire_types::{Epoch, Result, SqlError, hash_rows};

use super::key_index::{KeyIndex, Locked, Maintained};
use super::reader::Life;
use super::store::{SEGMENT_BITS, SEGMENT_MASK, Store};
use super::{Arrangement, Identity};

/// Indexes, and what has happened to rows since `begin`.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    list: Vec<Maintained>,
    /// Of the last changes.
    epoch: Epoch,
    /// Row of the changes, slot.
    born: Vec<(u32, u32)>,
    died: Vec<u32>,
}

impl Arrangement {
    /// Adds an index on these columns, which [`Arrangement::build_index`] must build; nothing where there is one.
    pub fn add_index(&mut self, column_idxs: &[usize]) {
        if self.indexes.position(column_idxs).is_none() {
            self.indexes.list.push(Maintained::new(column_idxs.to_vec()));
        }
    }

    /// Builds an index further, by about so many rows. Whether it is ready.
    ///
    /// Errors: `XX000` where there is none on these columns.
    pub fn build_index(&mut self, column_idxs: &[usize], n_rows: usize) -> Result<bool> {
        let none = || SqlError::internal("an index is built that is not there");
        let position = self.indexes.position(column_idxs).ok_or_else(none)?;
        let epoch = self.indexes.epoch;
        let index = self.indexes.list.get_mut(position).ok_or_else(none)?;
        let Some(mut next) = index.next else { return Ok(true) };
        let mut n_left = n_rows;
        while n_left > 0 {
            let (segment_idx, offset) = ((next >> SEGMENT_BITS) as usize, (next & SEGMENT_MASK) as usize);
            let Some((segment_idx, segment)) = self.store.segments().find(|(idx, _)| *idx >= segment_idx) else {
                index.built(epoch);
                self.reader.indexes.lock().push(index.index.clone());
                return Ok(true);
            };
            let first = (segment_idx as u32) << SEGMENT_BITS;
            let start = if first > next { 0 } else { offset };
            let end = segment.n_rows.min(start + n_left);
            let is_alive = |offset: &usize| segment.slots.died(*offset) == Epoch::NEVER;
            let slots: Vec<u32> = (start..end).filter(is_alive).map(|offset| first | offset as u32).collect();
            let hashes = hashes_of(&self.store, column_idxs, &slots)?;
            index.add(&hashes.into_iter().zip(slots).collect::<Vec<_>>());
            n_left -= end.saturating_sub(start);
            let is_done = end >= segment.n_rows;
            next = if is_done { ((segment_idx + 1) as u32) << SEGMENT_BITS } else { first | end as u32 };
            index.next = Some(next);
        }
        Ok(false)
    }

    /// Drops the indexes that `keep` does not want, by their columns.
    pub fn retain_indexes(&mut self, keep: impl Fn(&[usize]) -> bool) {
        self.reader.indexes.lock().retain(|index| keep(index.column_idxs()));
        self.indexes.list.retain(|index| {
            let keep = keep(index.index.column_idxs());
            if !keep {
                index.index.retire();
            }
            keep
        });
    }

    /// Columns, rows and bytes of each index that is ready or being built, and whether it is ready.
    pub fn indexes(&self) -> impl Iterator<Item = IndexState<'_>> {
        self.indexes.list.iter().map(|index| IndexState {
            column_idxs: index.index.column_idxs(),
            is_ready: index.next.is_none(),
            n_rows: index.index.n_rows(),
            bytes: index.bytes(),
        })
    }

    /// The columns that no two rows share, where there are such.
    pub fn unique_key(&self) -> Option<&[usize]> {
        match &self.identity {
            Identity::UniqueKey(column_idxs) => Some(column_idxs),
            Identity::AppendOnly | Identity::Bag => None,
        }
    }
}

/// What an index is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexState<'a> {
    /// The columns of its key.
    pub column_idxs: &'a [usize],
    /// Whether readers can use it.
    pub is_ready: bool,
    /// Rows in it.
    pub n_rows: usize,
    /// Bytes of memory that it holds.
    pub bytes: usize,
}

impl Indexes {
    fn position(&self, column_idxs: &[usize]) -> Option<usize> {
        self.list.iter().position(|index| index.index.column_idxs() == column_idxs)
    }

    /// Whether there is one.
    pub(super) fn any(&self) -> bool {
        !self.list.is_empty()
    }

    /// All of them, in order.
    pub(super) fn all(&self) -> Vec<Arc<KeyIndex>> {
        self.list.iter().map(|index| index.index.clone()).collect()
    }

    /// The changes of an epoch begin.
    pub(super) fn begin(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.born.clear();
        self.died.clear();
    }

    /// Rows of the changes are now at these slots.
    pub(super) fn born(&mut self, rows: &[u32], slots: &[u32]) {
        if !self.list.is_empty() {
            self.born.extend(rows.iter().copied().zip(slots.iter().copied()));
        }
    }

    /// A row dies.
    pub(super) fn died(&mut self, slot: u32) {
        if !self.list.is_empty() {
            self.died.push(slot);
        }
    }

    /// Takes in what happened since `begin`; `rows` are those of the changes.
    pub(super) fn keep_up(&mut self, store: &Store<Arc<Life>>, rows: &RecordBatch) -> Result<()> {
        for index in &mut self.list {
            let column_idxs = index.index.column_idxs();
            let columns: Vec<ArrayRef> =
                column_idxs.iter().filter_map(|idx| rows.columns().get(*idx).cloned()).collect();
            let hashes = hashes(&columns, rows.num_rows())?;
            let hash = |row: u32| hashes.get(row as usize).copied().flatten();
            index.add(&self.born.iter().map(|(row, slot)| (hash(*row), *slot)).collect::<Vec<_>>());
            let dead = hashes_of(store, index.index.column_idxs(), &self.died)?;
            index.kill(dead.into_iter().zip(self.died.iter().copied()), self.epoch);
        }
        Ok(())
    }

    /// Forgets the rows that died at or before `epoch`.
    pub(super) fn vacuum(&mut self, epoch: Epoch) {
        self.list.iter_mut().for_each(|index| index.vacuum(epoch));
    }

    /// Rows have moved; `old` ascends.
    pub(super) fn moved(
        &mut self,
        store: &Store<Arc<Life>>,
        old: &[u32],
        new: &[u32],
        locked: &mut Locked<'_>,
    ) -> Result<()> {
        for (index, map) in self.list.iter_mut().zip(locked.maps()) {
            let hashes = hashes_of(store, index.index.column_idxs(), new)?;
            for ((old, new), hash) in old.iter().zip(new).zip(hashes) {
                if let Some(hash) = hash {
                    map.replace(hash, *old, *new);
                }
            }
            index.moved(old, new);
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.list.iter().map(Maintained::bytes).sum()
    }
}

/// The hashes of the keys at these slots; None where there is a NULL in the key.
fn hashes_of(store: &Store<Arc<Life>>, column_idxs: &[usize], slots: &[u32]) -> Result<Vec<Option<u64>>> {
    if slots.is_empty() {
        return Ok(vec![]);
    }
    let columns = column_idxs.iter().map(|idx| store.gather(*idx, slots)).collect::<Result<Vec<_>>>()?;
    hashes(&columns, slots.len())
}

fn hashes(columns: &[ArrayRef], n_rows: usize) -> Result<Vec<Option<u64>>> {
    let mut hashes = vec![];
    hash_rows(columns, n_rows, &mut hashes)?;
    let nulls = columns.iter().fold(None, |nulls, column| NullBuffer::union(nulls.as_ref(), column.nulls()));
    let is_valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    Ok(hashes.into_iter().enumerate().map(|(row, hash)| is_valid(row).then_some(hash)).collect())
}
