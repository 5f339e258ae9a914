//! A buffer that one writer fills from front to back while readers hold what is already written.
//!
//! This is the only place with raw memory. Invariant: the capacity never changes and nothing before `len` is written
//! again while more than one handle exists, so that a reader may keep an Arrow [`Buffer`] over any published prefix
//! for as long as it likes, without a copy and without a lock.

use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::RefUnwindSafe;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::buffer::Buffer;

/// What may lie in a buffer: plain bits.
pub(crate) trait Plain: Copy + Default + Send + Sync + RefUnwindSafe + PartialEq + 'static {}
impl<T: Copy + Default + Send + Sync + RefUnwindSafe + PartialEq + 'static> Plain for T {}

/// The writing end: there is one, and only it extends.
pub(crate) struct Appender<T: Plain> {
    shared: Arc<Shared<T>>,
    len: usize,
}

/// The reading end.
pub(crate) struct Shared<T: Plain> {
    values: NonNull<T>,
    capacity: usize,
    len: AtomicUsize,
}

// SAFETY: `Shared` owns its memory. Through a shared reference only values before the published length are read, and
// those are not written while the reference lives (see `Appender`). `T` itself is Send and Sync.
unsafe impl<T: Plain> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Shared<T> {}

impl<T: Plain> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: pointer and capacity are those of the Vec that `Appender::with_capacity` took apart; `T` is Copy, so
        // that there is nothing in it to drop.
        drop(unsafe { Vec::from_raw_parts(self.values.as_ptr(), 0, self.capacity) });
    }
}

impl<T: Plain> Appender<T> {
    pub(crate) fn with_capacity(capacity: usize) -> Appender<T> {
        let mut vec = ManuallyDrop::new(Vec::<T>::with_capacity(capacity));
        let capacity = vec.capacity();
        let values = NonNull::new(vec.as_mut_ptr()).unwrap_or(NonNull::dangling());
        Appender { shared: Arc::new(Shared { values, capacity, len: AtomicUsize::new(0) }), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many more values fit.
    pub(crate) fn room(&self) -> usize {
        self.shared.capacity - self.len
    }

    /// Appends and publishes. Values that do not fit are left out: callers look at `room` first.
    pub(crate) fn extend(&mut self, values: impl Iterator<Item = T>) {
        let room = self.room();
        for value in values.take(room) {
            // SAFETY: `len < capacity` because at most `room` values are taken. The place is not yet published, so
            // that no reader looks at it, and `&mut self` is the only writer.
            unsafe { self.shared.values.add(self.len).write(value) };
            self.len += 1;
        }
        self.shared.len.store(self.len, Ordering::Release);
    }

    /// Appends and publishes a slice, in full or (where it does not fit) its front.
    pub(crate) fn extend_from_slice(&mut self, values: &[T]) {
        let n = values.len().min(self.room());
        // SAFETY: `n` values fit behind `len`, that place is unpublished and ours, and `values` cannot overlap it: a
        // slice over unpublished memory is never handed out.
        unsafe { self.shared.values.add(self.len).copy_from_nonoverlapping(NonNull::from(values).cast(), n) };
        self.len += n;
        self.shared.len.store(self.len, Ordering::Release);
    }

    /// What was written.
    pub(crate) fn as_slice(&self) -> &[T] {
        // SAFETY: everything before `len` is initialized, and only `&mut self` writes.
        unsafe { std::slice::from_raw_parts(self.shared.values.as_ptr(), self.len) }
    }

    /// What was written, to be changed; None while a reader holds the buffer.
    pub(crate) fn as_mut_slice(&mut self) -> Option<&mut [T]> {
        let shared = Arc::get_mut(&mut self.shared)?;
        // SAFETY: `get_mut` proves that there is no other handle, hence no reader; everything before `len` is
        // initialized; the borrow keeps new readers away.
        Some(unsafe { std::slice::from_raw_parts_mut(shared.values.as_ptr(), self.len) })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<T>> {
        &self.shared
    }

    pub(crate) fn bytes(&self) -> usize {
        self.shared.capacity * size_of::<T>()
    }
}

impl<T: Plain> Shared<T> {
    /// How many values may be read.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// The first `len` values (fewer where fewer are published).
    pub(crate) fn as_slice(&self, len: usize) -> &[T] {
        // SAFETY: values before the published length are initialized and not written while a handle besides the
        // writer's exists; Acquire pairs with the Release of `extend`.
        unsafe { std::slice::from_raw_parts(self.values.as_ptr(), len.min(self.len())) }
    }

    /// The first `len` values (fewer where fewer are published), without a copy.
    pub(crate) fn buffer(self: &Arc<Self>, len: usize) -> Buffer {
        let n_bytes = len.min(self.len()) * size_of::<T>();
        // SAFETY: as for `as_slice`; the buffer keeps a handle, so that the memory outlives it and the writer cannot
        // change what it shows.
        unsafe { Buffer::from_custom_allocation(self.values.cast(), n_bytes, self.clone()) }
    }
}

impl<T: Plain> fmt::Debug for Appender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl<T: Plain> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} values", self.len(), self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_keeps_its_prefix_while_the_writer_goes_on() {
        let mut writer = Appender::<u64>::with_capacity(1000);
        writer.extend(0..10);
        let before = writer.shared().buffer(10);
        let shared = writer.shared().clone();
        let reader = std::thread::spawn(move || {
            loop {
                let len = shared.len();
                assert!(shared.as_slice(len).iter().copied().eq(0..len as u64));
                if len == 1000 {
                    return shared.buffer(1000);
                }
            }
        });
        for start in (10..1000).step_by(90) {
            writer.extend_from_slice(&(start..start + 90).collect::<Vec<_>>());
        }
        let all = reader.join().unwrap();
        drop(writer);
        assert!(before.typed_data::<u64>().iter().copied().eq(0..10));
        assert!(all.typed_data::<u64>().iter().copied().eq(0..1000));
    }

    #[test]
    fn only_a_sole_owner_may_change_what_is_written() {
        let mut writer = Appender::<u32>::with_capacity(4);
        writer.extend([1, 2].into_iter());
        let held = writer.shared().buffer(2);
        assert!(writer.as_mut_slice().is_none());
        drop(held);
        writer.as_mut_slice().unwrap()[1] = 7;
        assert_eq!(writer.as_slice(), [1, 7]);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut writer = Appender::<u8>::with_capacity(2);
        let capacity = writer.room();
        writer.extend(std::iter::repeat(1));
        writer.extend_from_slice(&[2]);
        assert_eq!((writer.len(), writer.room()), (capacity, 0));
        assert_eq!(Appender::<u8>::with_capacity(0).as_slice(), [0; 0]);
    }
}
