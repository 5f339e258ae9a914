//! The rows of one partition in order, found by key or by place.
//!
//! Rows stand in chunks, so that an insertion moves few of them and a place is found without walking over all. What an
//! evaluation needs to know of all rows before some place is summed up for each chunk (`Summary`) and kept until the chunk
//! changes.
//!
//! A place counts copies: a row that is there three times takes three places.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::i256;
use tidewire_types::{Result, SqlError};

use crate::aggregate::ExactSum;
use crate::top_n::encoded_bytes;

/// A chunk with more rows is cut in two.
const CHUNK_ROWS_MAX: usize = 256;

/// A row, encoded so that bytes sort as the rows do.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) key: Arc<[u8]>,
    /// So many bytes of the key are the ORDER BY columns.
    pub(super) peer_len: u32,
    /// How many copies.
    pub(super) count: u32,
}

impl Row {
    /// What the row and its peers have in common.
    pub(super) fn peers(&self) -> &[u8] {
        self.key.get(..self.peer_len as usize).unwrap_or(&self.key)
    }
}

/// What one call needs to know of a run of rows.
#[derive(Clone, Debug)]
pub(super) enum Summary {
    /// How many values, and their exact sum.
    Whole(i64, i256),
    /// The same of floats.
    Float(i64, ExactSum),
    /// The least or greatest value, encoded.
    Best(Option<Box<[u8]>>),
}

#[derive(Default)]
struct Chunk {
    rows: Vec<Row>,
    /// Place of its first row.
    start: usize,
    /// Places in it.
    len: usize,
    /// Groups of peers in it.
    n_groups: usize,
    /// By call; made when asked for.
    summaries: Vec<Option<Summary>>,
}

/// The rows of a partition.
#[derive(Default)]
pub(super) struct Partition {
    chunks: Vec<Chunk>,
    n_rows: usize,
    /// Rows that the chunks have room for.
    capacity: usize,
}

impl Partition {
    /// Places, copies counted.
    pub(super) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |c| c.start + c.len)
    }

    /// Distinct rows.
    pub(super) fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Bytes beside the rows' keys. Of the summaries an estimate: as if all chunks had as many as the first one.
    pub(super) fn bytes(&self) -> usize {
        let summaries = self.chunks.first().map_or(0, |c| c.summaries.capacity() * size_of::<Option<Summary>>());
        self.chunks.capacity() * size_of::<Chunk>() + self.chunks.len() * summaries + self.capacity * size_of::<Row>()
    }

    /// How many places the rows take for which `is_before` holds; they must come first.
    pub(super) fn place(&self, is_before: impl Fn(&Row) -> bool) -> usize {
        let chunk_idx = self.chunks.partition_point(|c| c.rows.last().is_some_and(&is_before));
        let Some(chunk) = self.chunks.get(chunk_idx) else { return self.len() };
        let n_before = chunk.rows.partition_point(&is_before);
        chunk.start + chunk.rows.iter().take(n_before).map(|r| r.count as usize).sum::<usize>()
    }

    /// The place of the first of a row's peers.
    pub(super) fn group_start(&self, peers: &[u8]) -> usize {
        self.place(|row| row.peers() < peers)
    }

    /// The place behind the last of a row's peers.
    pub(super) fn group_end(&self, peers: &[u8]) -> usize {
        self.place(|row| row.peers() <= peers)
    }

    fn chunk_idx(&self, place: usize) -> usize {
        self.chunks.partition_point(|c| c.start + c.len <= place)
    }

    /// The row at a place.
    pub(super) fn row(&self, place: usize) -> Option<&Row> {
        self.rows(place..place + 1).next()
    }

    /// The rows at these places; one for each place.
    pub(super) fn rows(&self, places: Range<usize>) -> impl Iterator<Item = &Row> {
        let chunks = self.chunks.get(self.chunk_idx(places.start)..).unwrap_or(&[]);
        let skipped = places.start - chunks.first().map_or(places.start, |c| c.start);
        let copies = chunks.iter().flat_map(|c| &c.rows).flat_map(|row| std::iter::repeat_n(row, row.count as usize));
        copies.skip(skipped).take(places.len())
    }

    /// How many groups of peers begin before a place.
    pub(super) fn n_groups(&self, before: usize) -> usize {
        let mut n = 0;
        let mut last: Option<&Row> = None;
        for chunk in &self.chunks {
            let Some(first) = chunk.rows.first() else { continue };
            if chunk.start >= before {
                break;
            }
            // A group that spans two chunks is one.
            n -= usize::from(last.is_some_and(|row| row.peers() == first.peers()));
            if chunk.start + chunk.len <= before {
                n += chunk.n_groups;
                last = chunk.rows.last();
                continue;
            }
            let rows: Vec<&Row> = self.rows(chunk.start..before).collect();
            return n + count_groups(rows.into_iter());
        }
        n
    }

    /// Adds sorted changes, each row once.
    pub(super) fn apply(&mut self, changes: &[(Row, i64)], row_bytes: &mut usize) -> Result<()> {
        let mut first_touched = usize::MAX;
        if changes.len() > CHUNK_ROWS_MAX && changes.len() > self.n_rows / 4 {
            self.merge(changes, row_bytes)?;
            first_touched = 0;
        } else {
            for (row, weight) in changes {
                first_touched = first_touched.min(self.change(row, *weight, row_bytes)?);
            }
        }
        self.chunks.retain(|c| !c.rows.is_empty());
        let mut start = match first_touched.checked_sub(1).and_then(|idx| self.chunks.get(idx)) {
            Some(before) => before.start + before.len,
            None => 0,
        };
        for chunk in self.chunks.iter_mut().skip(first_touched) {
            chunk.start = start;
            start += chunk.len;
        }
        Ok(())
    }

    /// One change; returns the first chunk whose place or length is another one now.
    fn change(&mut self, row: &Row, weight: i64, row_bytes: &mut usize) -> Result<usize> {
        if self.chunks.is_empty() {
            // Most partitions are small.
            self.chunks = Vec::with_capacity(1);
            self.chunks.push(Chunk::default());
        }
        // Chunks that were emptied in this step stay until its end and hold nothing back.
        let behind = self.chunks.partition_point(|c| c.rows.last().is_none_or(|last| last.key < row.key));
        let chunk_idx = behind.min(self.chunks.len() - 1);
        let Some(chunk) = self.chunks.get_mut(chunk_idx) else { return Ok(chunk_idx) };
        self.capacity -= chunk.rows.capacity();
        match chunk.rows.binary_search_by(|r| r.key.cmp(&row.key)) {
            Ok(idx) => {
                let Some(present) = chunk.rows.get_mut(idx) else { return Ok(chunk_idx) };
                present.count = counted(i64::from(present.count), weight)?;
                if present.count == 0 {
                    *row_bytes -= encoded_bytes(row.key.len());
                    self.n_rows -= 1;
                    chunk.rows.remove(idx);
                    if chunk.rows.is_empty() {
                        chunk.rows = vec![];
                    }
                }
            }
            Err(idx) => {
                let count = counted(0, weight)?;
                // One row takes room for one, and a chunk that is about to be cut in two does not double.
                if chunk.rows.is_empty() || chunk.rows.len() == CHUNK_ROWS_MAX {
                    chunk.rows.reserve_exact(1);
                }
                chunk.rows.insert(idx, Row { count, ..row.clone() });
                *row_bytes += encoded_bytes(row.key.len());
                self.n_rows += 1;
            }
        }
        if chunk.rows.len() > CHUNK_ROWS_MAX {
            let rest = chunk.rows.split_off(CHUNK_ROWS_MAX / 2);
            chunk.refresh();
            self.capacity += chunk.rows.capacity() + rest.capacity();
            let mut next = Chunk { rows: rest, ..Chunk::default() };
            next.refresh();
            self.chunks.insert(chunk_idx + 1, next);
        } else {
            chunk.refresh();
            self.capacity += chunk.rows.capacity();
        }
        Ok(chunk_idx)
    }

    /// Many changes: all rows are put into chunks anew.
    fn merge(&mut self, changes: &[(Row, i64)], row_bytes: &mut usize) -> Result<()> {
        let mut old = std::mem::take(&mut self.chunks).into_iter().flat_map(|c| c.rows).peekable();
        let mut all: Vec<Row> = Vec::with_capacity(self.n_rows + changes.len());
        for (row, weight) in changes {
            while let Some(before) = old.next_if(|o| o.key < row.key) {
                all.push(before);
            }
            let present = old.next_if(|o| o.key == row.key);
            let count = counted(present.as_ref().map_or(0, |p| i64::from(p.count)), *weight)?;
            match (present.is_some(), count) {
                (false, _) => *row_bytes += encoded_bytes(row.key.len()),
                (true, 0) => *row_bytes -= encoded_bytes(row.key.len()),
                (true, _) => {}
            }
            if count > 0 {
                all.push(Row { count, ..row.clone() });
            }
        }
        all.extend(old);
        self.n_rows = all.len();
        self.capacity = 0;
        let mut all = all.into_iter();
        loop {
            // Half full: the next insertions cut nothing.
            let rows: Vec<Row> = all.by_ref().take(CHUNK_ROWS_MAX / 2).collect();
            if rows.is_empty() {
                return Ok(());
            }
            self.capacity += rows.capacity();
            let mut chunk = Chunk { rows, ..Chunk::default() };
            chunk.refresh();
            self.chunks.push(chunk);
        }
    }

    /// Whether sums over chunks save anything.
    pub(super) fn is_large(&self) -> bool {
        self.chunks.len() > 1
    }

    /// The last place at or before `place` where a chunk begins.
    pub(super) fn chunk_start(&self, place: usize) -> usize {
        self.chunks.get(self.chunk_idx(place)).map_or(self.len(), |c| c.start)
    }

    /// The first place at or behind `place` where a chunk ends.
    pub(super) fn chunk_end(&self, place: usize) -> usize {
        let Some(before) = place.checked_sub(1) else { return 0 };
        self.chunks.get(self.chunk_idx(before)).map_or(self.len(), |c| c.start + c.len)
    }

    /// The summaries of call `call_idx` over the chunks within `places`, in order; `make` gives those that are missing.
    pub(super) fn summaries(
        &mut self,
        call_idx: usize,
        places: Range<usize>,
        mut make: impl FnMut(&mut dyn Iterator<Item = &Row>) -> Result<Summary>,
    ) -> Result<Vec<&Summary>> {
        let first = self.chunk_idx(places.start);
        let mut found = vec![];
        for chunk in self.chunks.iter_mut().skip(first).take_while(|c| c.start + c.len <= places.end) {
            if chunk.summaries.len() <= call_idx {
                chunk.summaries.resize(call_idx + 1, None);
            }
            let Some(slot) = chunk.summaries.get_mut(call_idx) else { continue };
            let summary = match slot {
                Some(summary) => summary,
                None => {
                    let mut rows = chunk.rows.iter().flat_map(|r| std::iter::repeat_n(r, r.count as usize));
                    slot.insert(make(&mut rows)?)
                }
            };
            found.push(&*summary);
        }
        Ok(found)
    }
}

impl Chunk {
    /// After its rows have changed.
    fn refresh(&mut self) {
        self.len = self.rows.iter().map(|r| r.count as usize).sum();
        self.n_groups = count_groups(self.rows.iter());
        self.summaries.clear();
    }
}

fn count_groups<'a>(rows: impl Iterator<Item = &'a Row>) -> usize {
    let mut n = 0;
    let mut last: Option<&Row> = None;
    for row in rows {
        n += usize::from(last.is_none_or(|l| l.peers() != row.peers()));
        last = Some(row);
    }
    n
}

fn counted(count: i64, weight: i64) -> Result<u32> {
    let count = count.checked_add(weight).unwrap_or(i64::MAX);
    if count < 0 {
        return Err(SqlError::internal("a row was removed that is not there"));
    }
    u32::try_from(count).map_err(|_| SqlError::internal("too many copies of a row"))
}
