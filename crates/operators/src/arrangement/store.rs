//! Rows in columns, in segments that never move; a row's place is its slot.
//!
//! A slot is `segment << 16 | offset`. The first segments are small, so that a small relation is small; a segment's
//! number is used again after it was freed, so that slots do not run out. Invariant: a slot that was given out means
//! the same row until its segment is freed (or, in a private store, the row is overwritten); `n_bytes` is what all
//! segments take: nothing that a change of one row does may look at all of them.

use std::borrow::Cow;
use std::ops::Range;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use tidewire_types::{Result, SqlError, SqlState, hash_rows};

use super::column::{self, Cells, Column, Kind};

/// Bits of a slot that are the offset in its segment.
pub(crate) const SEGMENT_BITS: u32 = 16;
/// The offset in its segment.
pub(crate) const SEGMENT_MASK: u32 = (1 << SEGMENT_BITS) - 1;
const SEGMENT_ROWS_MIN: usize = 256;
/// The last number is not used: the slot `u32::MAX` means "none".
const SEGMENTS_MAX: usize = (1 << (32 - SEGMENT_BITS)) - 1;
/// Slots up to which only the segments that they are in are looked at.
const FEW_SLOTS_MAX: usize = 32;

/// Rows that the segment with this number holds: 256, 1 k, 4 k, 16 k, then 64 k.
pub(crate) fn segment_rows(segment_idx: usize) -> usize {
    SEGMENT_ROWS_MIN << (2 * segment_idx.min(4))
}

/// What is kept of each slot beside the row's values.
pub(crate) trait Slots {
    /// For a new segment.
    fn new(capacity: usize, columns: &[Column]) -> Self;
    fn bytes(&self) -> usize;
}

#[derive(Debug)]
pub(crate) struct Segment<S> {
    columns: Vec<Column>,
    pub(crate) slots: S,
    pub(crate) n_rows: usize,
    capacity: usize,
}

#[derive(Debug)]
pub(crate) struct Store<S> {
    schema: SchemaRef,
    kinds: Vec<Kind>,
    segments: Vec<Option<Segment<S>>>,
    /// The segment that rows are appended to.
    tail_idx: Option<usize>,
    free: Vec<usize>,
    n_bytes: usize,
    /// How often segments were made and freed.
    n_remakes: u64,
}

impl<S: Slots> Segment<S> {
    fn bytes(&self) -> usize {
        self.slots.bytes() + self.column_bytes()
    }

    fn column_bytes(&self) -> usize {
        self.columns.iter().map(Column::bytes).sum()
    }
}

/// Many slots that mostly follow each other: ranges, each within one segment.
#[derive(Debug, Default)]
pub(crate) struct Ranges(Vec<Range<u32>>);

impl Ranges {
    pub(crate) fn add(&mut self, slots: &[u32]) {
        for slots in slots.chunk_by(|a, b| a + 1 == *b && b & SEGMENT_MASK != 0) {
            let (Some(first), Some(last)) = (slots.first(), slots.last()) else { continue };
            match self.0.last_mut() {
                Some(range) if range.end == *first && first & SEGMENT_MASK != 0 => range.end = last + 1,
                _ => self.0.push(*first..last + 1),
            }
        }
    }

    pub(crate) fn as_slice(&self) -> &[Range<u32>] {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn n_slots(&self) -> usize {
        self.0.iter().map(ExactSizeIterator::len).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Range<u32>>()
    }
}

impl<S: Slots> Store<S> {
    pub(crate) fn new(schema: SchemaRef) -> Result<Store<S>> {
        let kinds = schema.fields().iter().map(|f| Kind::new(f.data_type())).collect::<Result<_>>()?;
        Ok(Store { schema, kinds, segments: vec![], tail_idx: None, free: vec![], n_bytes: 0, n_remakes: 0 })
    }

    pub(crate) fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// The physical form of a batch's columns; `column_idxs` names them in this store (all where None).
    pub(crate) fn encode(&self, columns: &[ArrayRef], column_idxs: Option<&[usize]>) -> Result<Vec<Cells>> {
        let n_expected = column_idxs.map_or(self.kinds.len(), <[_]>::len);
        if columns.len() != n_expected {
            let message = format!("{} columns where {n_expected} were planned", columns.len());
            return Err(SqlError::internal(message));
        }
        let kind = |idx: usize| {
            let idx = column_idxs.map_or(Some(idx), |idxs| idxs.get(idx).copied());
            idx.and_then(|idx| self.kinds.get(idx)).ok_or_else(no_column)
        };
        columns.iter().enumerate().map(|(idx, column)| kind(idx)?.encode(column)).collect()
    }

    /// Appends the rows (indices into `cells`) and tells their slots.
    ///
    /// Errors: `54000` when all slots are used.
    pub(crate) fn append(&mut self, cells: &[Cells], mut rows: &[u32], slots: &mut Vec<u32>) -> Result<()> {
        slots.reserve(rows.len());
        while !rows.is_empty() {
            let tail_idx = self.tail()?;
            let Some(Some(tail)) = self.segments.get_mut(tail_idx) else { return Err(no_column()) };
            let (now, later) = rows.split_at(rows.len().min(tail.capacity - tail.n_rows));
            let n_before = tail.column_bytes();
            tail.columns.iter_mut().zip(cells).for_each(|(column, cells)| column.append(cells, now));
            self.n_bytes += tail.column_bytes() - n_before;
            let first = (tail_idx as u32) << SEGMENT_BITS | tail.n_rows as u32;
            slots.extend(first..first + now.len() as u32);
            tail.n_rows += now.len();
            rows = later;
        }
        Ok(())
    }

    /// The number of a segment with room.
    fn tail(&mut self) -> Result<usize> {
        let has_room = |s: &Segment<S>| s.n_rows < s.capacity;
        if let Some(idx) = self.tail_idx
            && self.segment(idx).is_some_and(has_room)
        {
            return Ok(idx);
        }
        let idx = self.free.pop().unwrap_or(self.segments.len());
        if idx >= SEGMENTS_MAX {
            return Err(SqlError::new(SqlState::ProgramLimitExceeded, "a relation has too many rows"));
        }
        let capacity = segment_rows(idx);
        let columns: Vec<_> = self.kinds.iter().map(|kind| Column::new(kind, capacity)).collect();
        let slots = S::new(capacity, &columns);
        let segment = Segment { columns, slots, n_rows: 0, capacity };
        self.n_bytes += segment.bytes();
        self.n_remakes += 1;
        let segment = Some(segment);
        match self.segments.get_mut(idx) {
            Some(place) => *place = segment,
            None => self.segments.push(segment),
        }
        self.tail_idx = Some(idx);
        Ok(idx)
    }

    /// Overwrites the rows at `slots`. Errors: `XX000` where a reader holds them: only for private stores.
    pub(crate) fn overwrite(&mut self, cells: &[Cells], rows: &[u32], slots: &[u32]) -> Result<()> {
        for (row, slot) in rows.iter().zip(slots) {
            let segment = self.segments.get_mut((slot >> SEGMENT_BITS) as usize).and_then(Option::as_mut);
            let columns = segment.map_or(&mut [][..], |segment| &mut segment.columns);
            let offset = (slot & SEGMENT_MASK) as usize;
            let mut n_set = 0;
            for (column, value) in columns.iter_mut().zip(cells) {
                let n_before = column.bytes();
                n_set += usize::from(column.set(offset, value, *row));
                self.n_bytes = self.n_bytes + column.bytes() - n_before;
            }
            if n_set != self.kinds.len() {
                return Err(SqlError::internal("a stored row cannot be overwritten"));
            }
        }
        Ok(())
    }

    /// Frees a segment: its slots mean nothing from now on.
    pub(crate) fn free(&mut self, segment_idx: usize) {
        if let Some(segment) = self.segments.get_mut(segment_idx).and_then(Option::take) {
            self.n_bytes -= segment.bytes();
            self.n_remakes += 1;
            self.free.push(segment_idx);
        }
        if self.tail_idx == Some(segment_idx) {
            self.tail_idx = None;
        }
    }

    /// Frees everything.
    pub(crate) fn clear(&mut self) {
        self.segments = vec![];
        self.tail_idx = None;
        self.free = vec![];
        self.n_bytes = 0;
        self.n_remakes += 1;
    }

    /// What is kept of a slot beside its row takes so many bytes more.
    pub(crate) fn grew(&mut self, n_bytes: usize) {
        self.n_bytes += n_bytes;
    }

    /// Another number whenever there are other segments, or another one is appended to.
    pub(crate) fn n_remakes(&self) -> u64 {
        self.n_remakes
    }

    #[inline]
    pub(crate) fn segment(&self, segment_idx: usize) -> Option<&Segment<S>> {
        self.segments.get(segment_idx).and_then(Option::as_ref)
    }

    /// The segment of a slot and the offset in it.
    #[inline]
    pub(crate) fn at(&self, slot: u32) -> Option<(&S, usize)> {
        let segment = self.segment((slot >> SEGMENT_BITS) as usize)?;
        Some((&segment.slots, (slot & SEGMENT_MASK) as usize))
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, slot: u32) -> Option<(&mut S, usize)> {
        let segment = self.segments.get_mut((slot >> SEGMENT_BITS) as usize)?.as_mut()?;
        Some((&mut segment.slots, (slot & SEGMENT_MASK) as usize))
    }

    pub(crate) fn segments(&self) -> impl Iterator<Item = (usize, &Segment<S>)> + Clone {
        self.segments.iter().enumerate().filter_map(|(idx, segment)| Some((idx, segment.as_ref()?)))
    }

    pub(crate) fn tail_idx(&self) -> Option<usize> {
        self.tail_idx
    }

    /// One column of segments, and the slots with the places in that list for the segments' numbers. Of few slots only the
    /// segments that they are in are listed.
    fn columns<'s>(&self, column_idx: usize, slots: &'s [u32]) -> (Vec<Option<&Column>>, Cow<'s, [u32]>) {
        if slots.len() >= self.segments.len().min(FEW_SLOTS_MAX) {
            let columns = self.segments.iter().map(|s| s.as_ref().and_then(|s| s.columns.get(column_idx)));
            return (columns.collect(), Cow::Borrowed(slots));
        }
        let mut idxs: Vec<u32> = Vec::with_capacity(slots.len());
        let place = |slot: &u32| {
            let idx = slot >> SEGMENT_BITS;
            let place = idxs.iter().position(|known| *known == idx).unwrap_or_else(|| {
                idxs.push(idx);
                idxs.len() - 1
            });
            if *slot == u32::MAX { *slot } else { (place as u32) << SEGMENT_BITS | slot & SEGMENT_MASK }
        };
        let slots = slots.iter().map(place).collect();
        let column = |idx: &u32| self.segment(*idx as usize).and_then(|s| s.columns.get(column_idx));
        (idxs.iter().map(column).collect(), slots)
    }

    /// One column's cells at `slots`; a slot that is not there reads as NULL.
    pub(crate) fn gather_cells(&self, column_idx: usize, slots: &[u32]) -> Result<Cells> {
        let kind = self.kinds.get(column_idx).ok_or_else(no_column)?;
        let (columns, slots) = self.columns(column_idx, slots);
        Ok(column::gather(kind, &columns, &slots))
    }

    /// Whether a key is one column of words: then it can be its own hash.
    pub(crate) fn is_word(&self, key_idxs: &[usize]) -> bool {
        matches!(key_idxs, [idx] if self.kinds.get(*idx).is_some_and(Kind::is_word))
    }

    /// The hashes of the keys at slots of one segment; `is_exact`: the words that they are.
    pub(crate) fn key_hashes(&self, key_idxs: &[usize], is_exact: bool, slots: &Range<u32>) -> Result<Vec<u64>> {
        if let (true, [idx]) = (is_exact, key_idxs) {
            let segment = self.segment((slots.start >> SEGMENT_BITS) as usize);
            let first = (slots.start & SEGMENT_MASK) as usize;
            let words = segment.and_then(|s| s.columns.get(*idx)?.words(first..first + slots.len()));
            return words.ok_or_else(no_column);
        }
        let slots: Vec<u32> = slots.clone().collect();
        let keys = key_idxs.iter().map(|idx| self.gather(*idx, &slots)).collect::<Result<Vec<_>>>()?;
        let mut hashes = vec![];
        hash_rows(&keys, slots.len(), &mut hashes)?;
        Ok(hashes)
    }

    /// One column at `slots`; a slot that is not there reads as NULL.
    pub(crate) fn gather(&self, column_idx: usize, slots: &[u32]) -> Result<ArrayRef> {
        let kind = self.kinds.get(column_idx).ok_or_else(no_column)?;
        kind.decode(self.gather_cells(column_idx, slots)?)
    }

    /// The rows at `slots`.
    pub(crate) fn gather_rows(&self, slots: &[u32]) -> Result<RecordBatch> {
        let columns = (0..self.kinds.len()).map(|idx| self.gather(idx, slots)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(slots.len()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    /// For each pair of a slot and a row, whether the columns `column_idxs` of the one equal `cells` of the other.
    pub(crate) fn compare(
        &self,
        column_idxs: &[usize],
        slots: &[u32],
        cells: &[Cells],
        rows: &[u32],
        by_value: bool,
        mask: &mut [bool],
    ) {
        for (column_idx, cells) in column_idxs.iter().zip(cells) {
            if let Some(kind) = self.kinds.get(*column_idx) {
                let (columns, slots) = self.columns(*column_idx, slots);
                column::compare(kind, &columns, &slots, cells, rows, by_value, mask);
            }
        }
    }

    /// As `compare`, for one pair.
    pub(crate) fn equals(&self, column_idxs: &[usize], slot: u32, cells: &[Cells], row: u32, by_value: bool) -> bool {
        let Some(segment) = self.segment((slot >> SEGMENT_BITS) as usize) else { return false };
        let offset = (slot & SEGMENT_MASK) as usize;
        column_idxs.iter().zip(cells).all(|(idx, cells)| match (self.kinds.get(*idx), segment.columns.get(*idx)) {
            (Some(kind), Some(column)) => column.equals(offset, cells, row, by_value && kind.is_float()),
            _ => false,
        })
    }

    /// As `equals`, for two slots.
    pub(crate) fn equals_stored(&self, column_idxs: &[usize], slot: u32, other: u32, by_value: bool) -> bool {
        let segment = |slot: u32| self.segment((slot >> SEGMENT_BITS) as usize);
        let (Some(segment), Some(others)) = (segment(slot), segment(other)) else { return false };
        let (offset, other) = ((slot & SEGMENT_MASK) as usize, (other & SEGMENT_MASK) as usize);
        column_idxs.iter().all(|idx| {
            match (self.kinds.get(*idx), segment.columns.get(*idx), others.columns.get(*idx)) {
                (Some(kind), Some(a), Some(b)) => a.equals_stored(offset, b, other, by_value && kind.is_float()),
                _ => false,
            }
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        debug_assert_eq!(self.n_bytes, self.segments.iter().flatten().map(Segment::bytes).sum::<usize>());
        self.n_bytes + self.segments.capacity() * size_of::<Option<Segment<S>>>()
    }
}

fn no_column() -> SqlError {
    SqlError::internal("a column that a relation does not have")
}
