//! Reading by key: the rows of an epoch that have one of some keys, at a cost that follows their number.
//!
//! Invariant: at a readable epoch a lookup gives every row with one of the keys, as often as a scan would; it may give
//! others too (equal hashes), which the caller's own comparison leaves out.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::take;
use tidewire_types::{Epoch, Result, SqlError, hash_rows};

use super::ArrangementReader;
use super::column::{SharedColumn, gather_shared};
use super::index::NONE;
use super::key_index::{KeyIndex, Map};
use super::reader::{Extent, repeated};
use super::store::{SEGMENT_BITS, SEGMENT_MASK};

/// Rows of one key that are looked at while the index is locked. A key with more is left to a scan.
const WALK_MAX: usize = 1 << 16;

/// Rows that were found: segments, and slots whose segment is the place in that list.
#[derive(Default)]
struct Found {
    extents: Vec<Extent>,
    slots: Vec<u32>,
}

impl ArrangementReader {
    /// The columns that no two rows share, where there are such.
    pub fn unique_key(&self) -> Option<&[usize]> {
        self.unique_key.as_deref()
    }

    /// The index on exactly these columns, in this order.
    pub fn index_on(&self, column_idxs: &[usize]) -> Option<Arc<KeyIndex>> {
        self.indexes.lock().iter().find(|index| index.column_idxs() == column_idxs).cloned()
    }

    /// Whether a scan reads only a few rows, so that no index would help.
    pub fn is_small(&self) -> bool {
        // The first segment is small.
        let published = self.published.lock().clone();
        published.n_rows() <= super::store::segment_rows(1)
    }

    /// The rows of `epoch` that have one of the keys (arrays of the index's columns), with only the columns of
    /// `projection`. None: a scan must be made, because the index does not have all rows of that epoch or a key has
    /// too many.
    pub fn lookup(
        &self,
        index: &KeyIndex,
        epoch: Epoch,
        keys: &[ArrayRef],
        projection: &[usize],
    ) -> Result<Option<Vec<RecordBatch>>> {
        let mut hashes = vec![];
        hash_rows(keys, keys.first().map_or(0, |key| key.len()), &mut hashes)?;
        hashes.sort_unstable();
        hashes.dedup();
        let mut batches = vec![];
        // The lock is free between two keys; each part is right by itself, since the snapshot keeps its rows.
        for hash in hashes {
            let Some(found) = index.read(epoch, |map| self.walk(map, hash, epoch)).flatten() else {
                return Ok(None);
            };
            if !found.slots.is_empty() {
                batches.extend(self.gather(&found, projection)?);
            }
        }
        Ok(Some(batches))
    }

    /// The rows of one hash. None: too many.
    fn walk(&self, map: &Map, hash: u64, epoch: Epoch) -> Option<Found> {
        let mut found = Found::default();
        let mut slot = map.newest(hash);
        if slot == NONE {
            return Some(found);
        }
        // What is published cannot change in a way that matters here while the map is held.
        let published = self.published.lock().clone();
        for _ in 0..WALK_MAX {
            let (segment_idx, offset) = ((slot >> SEGMENT_BITS) as usize, slot & SEGMENT_MASK);
            // A row beyond what is published was born later.
            if let Some(extent) = published.segment(segment_idx)
                && (offset as usize) < extent.len
                && extent.life.is_there(offset as usize, epoch)
            {
                found.push(extent, offset);
            }
            slot = map.older(slot);
            if slot == NONE {
                return Some(found);
            }
        }
        None
    }

    fn gather(&self, found: &Found, projection: &[usize]) -> Result<Vec<RecordBatch>> {
        let schema = Arc::new(self.schema.project(projection)?);
        let column = |idx: &usize| -> Result<ArrayRef> {
            let none = || SqlError::internal("a column that a relation does not have");
            let kind = self.kinds.get(*idx).ok_or_else(none)?;
            let segments: Vec<(&SharedColumn, usize)> =
                found.extents.iter().filter_map(|e| Some((e.life.columns.get(*idx)?, e.len))).collect();
            kind.decode(gather_shared(kind, &segments, &found.slots))
        };
        let columns = projection.iter().map(column).collect::<Result<Vec<_>>>()?;
        let batch = |columns, n_rows| {
            let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
            Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
        };
        if !found.extents.iter().any(|extent| extent.life.has_weights()) {
            return Ok(vec![batch(columns, found.slots.len())?]);
        }
        repeated(found.slots.iter().map(|slot| found.weight(*slot)))
            .into_iter()
            .map(|rows| {
                let columns = columns.iter().map(|c| Ok(take(c, &rows, None)?)).collect::<Result<_>>()?;
                batch(columns, rows.len())
            })
            .collect()
    }
}

impl Found {
    fn push(&mut self, extent: &Extent, offset: u32) {
        // A segment may be in the list twice: chains mostly go from the newest segment to the oldest.
        if self.extents.last().is_none_or(|last| last.segment_idx != extent.segment_idx) {
            self.extents.push(extent.clone());
        }
        self.slots.push((self.extents.len() as u32 - 1) << SEGMENT_BITS | offset);
    }

    fn weight(&self, slot: u32) -> i64 {
        let extent = self.extents.get((slot >> SEGMENT_BITS) as usize);
        extent.map_or(0, |extent| extent.life.weight((slot & SEGMENT_MASK) as usize))
    }
}
