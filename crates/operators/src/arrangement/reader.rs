//! The reading end of an arrangement.
//!
//! Invariant: what `published` names is consistent: a row that `vacuum` has moved is in it once, and the lengths are
//! those of the last `apply`. Its lock is held only to clone two handles.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{FilterBuilder, take};
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use tidewire_types::{Epoch, Result, SqlError};

use super::column::{Column, Kind, SharedColumn};
use super::key_index::KeyIndex;
use super::store::{SEGMENT_BITS, Slots};

/// Rows of one batch at most, where a bag's rows come several times.
const BATCH_ROWS_MAX: usize = 1 << SEGMENT_BITS;

/// One segment as readers see it: the columns, and for each row when it was born, when it died, and its weight.
#[derive(Debug)]
pub(crate) struct Life {
    pub(super) columns: Vec<SharedColumn>,
    /// Born in the high half, died in the low.
    epochs: Box<[AtomicU64]>,
    /// Only once a weight is not 1.
    weights: std::sync::OnceLock<Box<[AtomicI64]>>,
    n_dead: AtomicUsize,
    last_born: AtomicU32,
}

impl Slots for Arc<Life> {
    fn new(capacity: usize, columns: &[Column]) -> Arc<Life> {
        Arc::new(Life {
            columns: columns.iter().map(Column::share).collect(),
            epochs: (0..capacity).map(|_| AtomicU64::new(0)).collect(),
            weights: std::sync::OnceLock::new(),
            n_dead: AtomicUsize::new(0),
            last_born: AtomicU32::new(0),
        })
    }

    fn bytes(&self) -> usize {
        self.epochs.len() * size_of::<u64>() + self.weights.get().map_or(0, |w| w.len() * size_of::<i64>())
    }
}

// Relaxed throughout: a reader learns of an epoch (and of rows) through the lock of `published`, which orders all that
// was written before. What is written later (the death in a later epoch) reads as alive either way.
impl Life {
    pub(crate) fn capacity(&self) -> usize {
        self.epochs.len()
    }

    pub(crate) fn bear(&self, offsets: Range<usize>, epoch: Epoch) {
        for place in self.epochs.get(offsets).unwrap_or_default() {
            place.store(u64::from(epoch.0) << 32 | u64::from(Epoch::NEVER.0), Ordering::Relaxed);
        }
        self.raise_last_born(epoch.0);
    }

    /// Only the writer changes it: no atomic read-and-write is needed.
    fn raise_last_born(&self, epoch: u32) {
        if self.last_born.load(Ordering::Relaxed) < epoch {
            self.last_born.store(epoch, Ordering::Relaxed);
        }
    }

    pub(crate) fn kill(&self, offset: usize, epoch: Epoch) {
        if let Some(place) = self.epochs.get(offset) {
            let born = place.load(Ordering::Relaxed) >> 32;
            place.store(born << 32 | u64::from(epoch.0), Ordering::Relaxed);
            self.n_dead.store(self.n_dead() + 1, Ordering::Relaxed);
        }
    }

    pub(crate) fn died(&self, offset: usize) -> Epoch {
        Epoch(self.epochs.get(offset).map_or(0, |place| place.load(Ordering::Relaxed) as u32))
    }

    pub(crate) fn n_dead(&self) -> usize {
        self.n_dead.load(Ordering::Relaxed)
    }

    /// Whether a row may weigh something else than 1.
    pub(super) fn has_weights(&self) -> bool {
        self.weights.get().is_some()
    }

    /// Whether a row is there at `epoch`.
    #[inline]
    pub(super) fn is_there(&self, offset: usize, epoch: Epoch) -> bool {
        self.epochs.get(offset).is_some_and(|place| {
            let epochs = place.load(Ordering::Relaxed);
            (epochs >> 32) as u32 <= epoch.0 && epoch.0 < epochs as u32
        })
    }

    pub(crate) fn weight(&self, offset: usize) -> i64 {
        let weight = self.weights.get().and_then(|weights| weights.get(offset));
        weight.map_or(1, |place| place.load(Ordering::Relaxed))
    }

    /// How many bytes more it takes since.
    pub(crate) fn set_weight(&self, offset: usize, weight: i64) -> usize {
        let has_weights = self.has_weights();
        if weight == 1 && !has_weights {
            return 0;
        }
        let weights = self.weights.get_or_init(|| (0..self.epochs.len()).map(|_| AtomicI64::new(1)).collect());
        if let Some(place) = weights.get(offset) {
            place.store(weight, Ordering::Relaxed);
        }
        if has_weights { 0 } else { weights.len() * size_of::<i64>() }
    }

    /// Makes row `offset` what `from_offset` of another segment is; how many bytes more it takes since.
    pub(crate) fn copy_from(&self, offset: usize, from: &Life, from_offset: usize) -> usize {
        let epochs = from.epochs.get(from_offset).map_or(0, |place| place.load(Ordering::Relaxed));
        if let Some(place) = self.epochs.get(offset) {
            place.store(epochs, Ordering::Relaxed);
        }
        self.raise_last_born((epochs >> 32) as u32);
        if epochs as u32 != Epoch::NEVER.0 {
            self.n_dead.store(self.n_dead() + 1, Ordering::Relaxed);
        }
        self.set_weight(offset, from.weight(from_offset))
    }

    /// Which of the first `len` rows are there at `epoch`; None: all.
    fn there(&self, len: usize, epoch: Epoch) -> Option<BooleanBuffer> {
        if self.n_dead() == 0 && self.last_born.load(Ordering::Relaxed) <= epoch.0 {
            return None;
        }
        let is_there = |place: &AtomicU64| {
            let epochs = place.load(Ordering::Relaxed);
            (epochs >> 32) as u32 <= epoch.0 && epoch.0 < epochs as u32
        };
        Some(self.epochs.iter().take(len).map(is_there).collect())
    }
}

/// A segment, its number, and how many of its rows are published.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    pub(super) segment_idx: usize,
    pub(super) life: Arc<Life>,
    pub(super) len: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Published {
    /// In the order of their numbers.
    sealed: Arc<Vec<Extent>>,
    tail: Option<Extent>,
}

impl Published {
    /// Rows in all segments, dead or alive.
    pub(super) fn n_rows(&self) -> usize {
        self.sealed.iter().chain(&self.tail).map(|extent| extent.len).sum()
    }

    /// The segment with that number.
    pub(super) fn segment(&self, segment_idx: usize) -> Option<&Extent> {
        match &self.tail {
            Some(tail) if tail.segment_idx == segment_idx => Some(tail),
            _ => {
                let idx = self.sealed.binary_search_by_key(&segment_idx, |extent| extent.segment_idx).ok()?;
                self.sealed.get(idx)
            }
        }
    }
}

/// The reading end: shared, never blocks the writer.
#[derive(Debug)]
pub struct ArrangementReader {
    pub(super) schema: SchemaRef,
    pub(super) kinds: Vec<Kind>,
    pub(super) published: Mutex<Published>,
    /// What rows can be found by; see [`super::lookup`].
    pub(super) indexes: Mutex<Vec<Arc<KeyIndex>>>,
    /// The columns that no two rows share.
    pub(super) unique_key: Option<Vec<usize>>,
}

impl ArrangementReader {
    pub(crate) fn new(schema: SchemaRef, kinds: Vec<Kind>, unique_key: Option<Vec<usize>>) -> ArrangementReader {
        ArrangementReader { schema, kinds, published: Mutex::default(), indexes: Mutex::default(), unique_key }
    }

    /// The schema of the rows.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Shows these segments from now on, all at once; None: the sealed ones are those that it shows.
    pub(crate) fn publish<'a>(
        &self,
        sealed: Option<impl Iterator<Item = (usize, &'a Arc<Life>, usize)>>,
        tail: Option<(usize, &Arc<Life>, usize)>,
    ) {
        let extent = |(segment_idx, life, len): (usize, &Arc<Life>, usize)| {
            let life = life.clone();
            Extent { segment_idx, life, len }
        };
        let sealed = sealed.map(|sealed| Arc::new(sealed.map(extent).collect()));
        let tail = tail.map(extent);
        let mut published = self.published.lock();
        // What it showed is given up after the lock: this may be the last that holds it.
        let before = match sealed {
            Some(sealed) => std::mem::replace(&mut *published, Published { sealed, tail }),
            None => Published { sealed: Arc::default(), tail: std::mem::replace(&mut published.tail, tail) },
        };
        drop(published);
        drop(before);
    }

    /// Rows that are published, those that are dead and not yet gone too.
    pub fn n_slots(&self) -> usize {
        self.published.lock().n_rows()
    }

    /// The rows of `epoch`, in batches of at most a segment, with only the columns of `projection` (all where
    /// `None`). A bag's row comes as often as its weight says. `epoch` must not be older than the last `vacuum`, and
    /// must have been applied.
    pub fn scan(
        self: &Arc<Self>,
        epoch: Epoch,
        projection: Option<&[usize]>,
    ) -> Result<Box<dyn Iterator<Item = Result<RecordBatch>> + Send>> {
        let column_idxs: Vec<usize> = match projection {
            Some(idxs) => idxs.to_vec(),
            None => (0..self.kinds.len()).collect(),
        };
        let schema = Arc::new(self.schema.project(&column_idxs)?);
        let Published { sealed, tail } = self.published.lock().clone();
        let reader = self.clone();
        let n_sealed = sealed.len();
        let extents = (0..n_sealed).filter_map(move |idx| sealed.get(idx).cloned()).chain(tail);
        Ok(Box::new(extents.flat_map(move |extent| match reader.read(&extent, epoch, &column_idxs, &schema) {
            Ok(batches) => batches.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        })))
    }

    /// The rows of one segment.
    fn read(
        &self,
        Extent { life, len, .. }: &Extent,
        epoch: Epoch,
        column_idxs: &[usize],
        schema: &SchemaRef,
    ) -> Result<Vec<RecordBatch>> {
        let there = life.there(*len, epoch);
        let n_rows = there.as_ref().map_or(*len, BooleanBuffer::count_set_bits);
        if n_rows == 0 {
            return Ok(vec![]);
        }
        let column = |idx: &usize| -> Result<ArrayRef> {
            let none = || SqlError::internal("a column that a relation does not have");
            let (kind, column) = self.kinds.get(*idx).zip(life.columns.get(*idx)).ok_or_else(none)?;
            kind.decode(column.prefix(*len))
        };
        let mut columns = column_idxs.iter().map(column).collect::<Result<Vec<_>>>()?;
        let there = there.filter(|_| n_rows < *len);
        if let Some(there) = &there {
            let mut filter = FilterBuilder::new(&BooleanArray::new(there.clone(), None));
            if columns.len() > 1 {
                filter = filter.optimize();
            }
            let filter = filter.build();
            columns = columns.iter().map(|c| Ok(filter.filter(c)?)).collect::<Result<_>>()?;
        }
        let batch = |columns, n_rows| {
            let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
            Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
        };
        if !life.has_weights() {
            return Ok(vec![batch(columns, n_rows)?]);
        }
        let is_there = |offset: &usize| there.as_ref().is_none_or(|t| t.value(*offset));
        let weights = (0..*len).filter(is_there).map(|offset| life.weight(offset));
        repeated(weights)
            .into_iter()
            .map(|rows| {
                let columns = columns.iter().map(|c| Ok(take(c, &rows, None)?)).collect::<Result<_>>()?;
                batch(columns, rows.len())
            })
            .collect()
    }
}

/// The index of each row as often as it weighs, in lists of at most `BATCH_ROWS_MAX`.
pub(super) fn repeated(weights: impl Iterator<Item = i64>) -> Vec<UInt64Array> {
    let mut lists = vec![];
    let mut rows: Vec<u64> = vec![];
    for (row, weight) in (0u64..).zip(weights) {
        let mut n_left = usize::try_from(weight).unwrap_or(0);
        while n_left > 0 {
            let n = n_left.min(BATCH_ROWS_MAX - rows.len());
            rows.extend(std::iter::repeat_n(row, n));
            n_left -= n;
            if rows.len() == BATCH_ROWS_MAX {
                lists.push(UInt64Array::from(std::mem::take(&mut rows)));
            }
        }
    }
    if !rows.is_empty() {
        lists.push(rows.into());
    }
    lists
}
