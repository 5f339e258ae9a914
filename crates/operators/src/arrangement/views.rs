//! Strings and bytes as Arrow views over append-only blocks.
//!
//! Invariant (what makes [`Views::into_array`] sound): a [`Views`] is made of a valid view array, or by copying whole
//! values of valid ones, so that every view points to bytes that are there and, where `utf8`, are UTF-8. Its fields
//! are private to this file.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryViewArray, ByteView, StringViewArray};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use parking_lot::Mutex;

use super::raw::{Appender, Shared};
use super::store::{SEGMENT_BITS, SEGMENT_MASK};

/// Longest value that lies in its view.
const INLINE_MAX: u32 = 12;
const BLOCK_BYTES_MIN: usize = 1 << 10;
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Bytes from which a gathered array starts another buffer: offsets are 32 bits.
const GATHERED_BYTES_MAX: usize = 1 << 30;

/// The values of one column of one batch.
pub(crate) struct Views {
    views: ScalarBuffer<u128>,
    buffers: Vec<Buffer>,
    utf8: bool,
}

impl Views {
    pub(crate) fn of_strings(array: &StringViewArray) -> Views {
        Views { views: array.views().clone(), buffers: array.data_buffers().to_vec(), utf8: true }
    }

    pub(crate) fn of_binary(array: &BinaryViewArray) -> Views {
        Views { views: array.views().clone(), buffers: array.data_buffers().to_vec(), utf8: false }
    }

    /// The array. Where `nulls` has another length than the values, it is left out.
    pub(crate) fn into_array(self, nulls: Option<NullBuffer>) -> ArrayRef {
        let nulls = nulls.filter(|nulls| nulls.len() == self.views.len());
        // SAFETY: the views are valid for the buffers (and UTF-8 for strings) by this file's invariant, and the nulls
        // have their length.
        unsafe {
            match self.utf8 {
                true => Arc::new(StringViewArray::new_unchecked(self.views, self.buffers, nulls)),
                false => Arc::new(BinaryViewArray::new_unchecked(self.views, self.buffers, nulls)),
            }
        }
    }

    fn bytes_of(&self, view: ByteView) -> &[u8] {
        bytes_of(view, |idx| self.buffers.get(idx).map_or(&[], |b| b.as_slice()))
    }
}

fn bytes_of<'a>(view: ByteView, block: impl Fn(usize) -> &'a [u8]) -> &'a [u8] {
    let start = view.offset as usize;
    block(view.buffer_index as usize).get(start..start + view.length as usize).unwrap_or_default()
}

/// One column of one segment.
#[derive(Debug)]
pub(crate) struct ViewsColumn {
    views: Appender<u128>,
    blocks: Vec<Appender<u8>>,
    shared_blocks: Arc<Mutex<Vec<Arc<Shared<u8>>>>>,
    utf8: bool,
    /// Bytes in blocks that an overwritten value left behind.
    garbage_bytes: usize,
}

/// The reading end of a column.
#[derive(Debug)]
pub(crate) struct SharedViews {
    views: Arc<Shared<u128>>,
    blocks: Arc<Mutex<Vec<Arc<Shared<u8>>>>>,
    utf8: bool,
}

impl SharedViews {
    /// The first `len` values, without a copy.
    pub(crate) fn prefix(&self, len: usize) -> Views {
        // The views first: the blocks that are there afterwards hold at least what these point to.
        let views = ScalarBuffer::new(self.views.buffer(len), 0, len.min(self.views.len()));
        let buffers = self.blocks.lock().iter().map(|block| block.buffer(block.len())).collect();
        Views { views, buffers, utf8: self.utf8 }
    }
}

impl ViewsColumn {
    pub(crate) fn with_capacity(capacity: usize, utf8: bool) -> ViewsColumn {
        let views = Appender::with_capacity(capacity);
        ViewsColumn { views, blocks: vec![], shared_blocks: Arc::default(), utf8, garbage_bytes: 0 }
    }

    pub(crate) fn share(&self) -> SharedViews {
        SharedViews { views: self.views.shared().clone(), blocks: self.shared_blocks.clone(), utf8: self.utf8 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.views.bytes() + self.blocks.iter().map(Appender::bytes).sum::<usize>()
    }

    /// Appends the values at `rows`; those that `valid` denies become empty. Values of the other kind (text against
    /// bytes) are not taken: the planner's types forbid it, and soundness must not depend on that.
    pub(crate) fn append(&mut self, from: &Views, rows: &[u32], valid: impl Fn(u32) -> bool) {
        for row in rows {
            let view = self.copied(from, *row, valid(*row));
            self.views.extend(std::iter::once(view));
        }
    }

    /// Overwrites one value; false while a reader holds the column.
    pub(crate) fn set(&mut self, offset: usize, from: &Views, row: u32, valid: bool) -> bool {
        let old = self.views.as_slice().get(offset).map_or(0, |view| ByteView::from(*view).length);
        if self.views.as_mut_slice().is_none() {
            return false;
        }
        let view = self.copied(from, row, valid);
        if let Some(place) = self.views.as_mut_slice().and_then(|views| views.get_mut(offset)) {
            *place = view;
        }
        if old > INLINE_MAX {
            self.garbage_bytes += old as usize;
            self.compact();
        }
        true
    }

    /// Writes the blocks anew when more than half of their bytes are of overwritten values.
    fn compact(&mut self) {
        let used = self.blocks.iter().map(Appender::len).sum::<usize>();
        if self.garbage_bytes < BLOCK_BYTES_MIN || self.garbage_bytes * 2 < used {
            return;
        }
        let mut fresh = ViewsColumn::with_capacity(0, self.utf8);
        let block = |idx: usize| self.blocks.get(idx).map_or(&[][..], Appender::as_slice);
        let views: Vec<u128> = (self.views.as_slice().iter())
            .map(|view| {
                let view = ByteView::from(*view);
                if view.length <= INLINE_MAX { view.as_u128() } else { fresh.stored(view, bytes_of(view, block)) }
            })
            .collect();
        if let Some(places) = self.views.as_mut_slice() {
            places.copy_from_slice(&views);
            self.blocks = fresh.blocks;
            self.shared_blocks = fresh.shared_blocks;
            self.garbage_bytes = 0;
        }
    }

    fn copied(&mut self, from: &Views, row: u32, valid: bool) -> u128 {
        let view = match from.views.get(row as usize) {
            Some(view) if valid && from.utf8 == self.utf8 => *view,
            _ => return 0,
        };
        if view as u32 <= INLINE_MAX { view } else { self.stored(view.into(), from.bytes_of(view.into())) }
    }

    /// Copies the bytes of a long value into a block.
    fn stored(&mut self, view: ByteView, bytes: &[u8]) -> u128 {
        if self.blocks.last().is_none_or(|block| block.room() < bytes.len()) {
            let doubled = self.blocks.last().map_or(0, |block| block.len() * 2);
            let capacity = doubled.clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX).max(bytes.len());
            let block = Appender::with_capacity(capacity);
            self.shared_blocks.lock().push(block.shared().clone());
            self.blocks.push(block);
        }
        let buffer_index = self.blocks.len().saturating_sub(1) as u32;
        let Some(block) = self.blocks.last_mut() else { return 0 };
        let offset = block.len() as u32;
        block.extend_from_slice(bytes);
        ByteView { buffer_index, offset, ..view }.as_u128()
    }

    /// Whether the value at `offset` equals that of `row`.
    pub(crate) fn equals(&self, offset: usize, other: &Views, row: u32) -> bool {
        match (self.views.as_slice().get(offset), other.views.get(row as usize)) {
            (Some(a), Some(b)) if *a as u32 <= INLINE_MAX => a == b,
            // Length and the first four bytes are in the low half.
            (Some(a), Some(b)) if *a as u64 == *b as u64 => self.bytes_of((*a).into()) == other.bytes_of((*b).into()),
            _ => false,
        }
    }

    /// Whether the value at `offset` equals that of another column.
    pub(crate) fn equals_stored(&self, offset: usize, other: &ViewsColumn, other_offset: usize) -> bool {
        match (self.views.as_slice().get(offset), other.views.as_slice().get(other_offset)) {
            (Some(a), Some(b)) if *a as u32 <= INLINE_MAX => a == b,
            // Length and the first four bytes are in the low half.
            (Some(a), Some(b)) if *a as u64 == *b as u64 => self.bytes_of((*a).into()) == other.bytes_of((*b).into()),
            _ => false,
        }
    }

    fn bytes_of(&self, view: ByteView) -> &[u8] {
        bytes_of(view, |idx| self.blocks.get(idx).map_or(&[], Appender::as_slice))
    }
}

/// The values at `slots`, copied out of their segments; an empty one for a slot that is not there.
pub(crate) fn gather<'a>(segments: &[Option<&'a ViewsColumn>], slots: &[u32], utf8: bool) -> Views {
    let mut gathered = Gathered::new(slots.len());
    for slot in slots {
        let column: Option<&'a ViewsColumn> =
            segments.get((slot >> SEGMENT_BITS) as usize).copied().flatten().filter(|column| column.utf8 == utf8);
        let stored = column.and_then(|c| Some((c, *c.views.as_slice().get((slot & SEGMENT_MASK) as usize)?)));
        match stored {
            Some((column, view)) => gathered.push(view, |view, out| out.extend_from_slice(column.bytes_of(view))),
            None => gathered.push(0, |_, _| {}),
        }
    }
    gathered.finish(utf8)
}

/// The same for readers: of each segment only so many values are read.
pub(crate) fn gather_shared(segments: &[Option<(&SharedViews, usize)>], slots: &[u32], utf8: bool) -> Views {
    let mut gathered = Gathered::new(slots.len());
    for slot in slots {
        let column = segments.get((slot >> SEGMENT_BITS) as usize).copied().flatten().filter(|(c, _)| c.utf8 == utf8);
        let stored = column.and_then(|(c, len)| Some((c, *c.views.as_slice(len).get((slot & SEGMENT_MASK) as usize)?)));
        match stored {
            // A view that is published has its bytes in a block that is.
            Some((column, view)) => gathered.push(view, |view, out| {
                let block = column.blocks.lock().get(view.buffer_index as usize).cloned();
                let block = block.as_ref().map_or(&[][..], |block| block.as_slice(block.len()));
                out.extend_from_slice(bytes_of(ByteView { buffer_index: 0, ..view }, |_| block));
            }),
            None => gathered.push(0, |_, _| {}),
        }
    }
    gathered.finish(utf8)
}

/// Values that are copied together.
struct Gathered {
    views: Vec<u128>,
    buffers: Vec<Buffer>,
    current: Vec<u8>,
}

impl Gathered {
    fn new(n: usize) -> Gathered {
        Gathered { views: Vec::with_capacity(n), buffers: vec![], current: vec![] }
    }

    /// Adds a value; `copy` appends the bytes of a long one.
    fn push(&mut self, view: u128, copy: impl FnOnce(ByteView, &mut Vec<u8>)) {
        if view as u32 <= INLINE_MAX {
            self.views.push(view);
            return;
        }
        let view = ByteView::from(view);
        if !self.current.is_empty() && self.current.len() + view.length as usize > GATHERED_BYTES_MAX {
            self.buffers.push(Buffer::from_vec(std::mem::take(&mut self.current)));
        }
        let (buffer_index, offset) = (self.buffers.len() as u32, self.current.len() as u32);
        copy(view, &mut self.current);
        // Soundness must not depend on the bytes having been there.
        let is_whole = self.current.len() - offset as usize == view.length as usize;
        self.views.push(if is_whole { ByteView { buffer_index, offset, ..view }.as_u128() } else { 0 });
    }

    fn finish(mut self, utf8: bool) -> Views {
        if !self.current.is_empty() {
            self.buffers.push(Buffer::from_vec(self.current));
        }
        Views { views: self.views.into(), buffers: self.buffers, utf8 }
    }
}
