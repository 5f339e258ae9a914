//! The groups of an aggregate: a hash table of our own over fixed-width slots.
//!
//! One slot a group: a header word (the number of the step that touched it last, whether a checkpoint has the group, and
//! the mask of NULL keys), the key, then whatever the accumulators keep. The table maps a hash to the slot; a bucket holds
//! 32 bits of the hash beside the slot's number, so that growth and removal do not read slots.
//!
//! Why this shape: the slots of a batch are resolved in passes (touch every bucket, compare tags, compare keys, and only
//! then the few rows that are left), so that the cache misses of many rows overlap; one slot then serves key and
//! accumulators with one miss. Slots lie in chunks that never move and the table is split into parts, so that growth
//! never stops a step for long.
//!
//! Invariant: a slot is in the table exactly once, or on the free list.
#![expect(clippy::indexing_slicing, reason = "hot loops; positions are masked or come from the table itself")]

use std::sync::Arc;

use super::arena::Arena;
use super::keys::{EncodedKeys, Keys};

/// Slots of a chunk, as a power of two: few enough chunks that their list stays in the first cache.
const CHUNK_BITS: u32 = 16;
const CHUNK_LEN: usize = 1 << CHUNK_BITS;
/// Parts of the table, as a power of two.
const PART_BITS: u32 = 6;
const EMPTY: u64 = u64::MAX;
/// No slot.
const MISSING: u32 = u32::MAX;

/// Of a slot's header: the number of the step that touched it last; 0: of none.
pub(super) const STAMP: u32 = u32::MAX >> 1;
/// Of a slot's header: the group was there when the last checkpoint was cut.
pub(super) const IN_CHECKPOINT: u32 = !STAMP;

/// Fixed-width slots, by number.
pub(super) struct Slots {
    chunks: Vec<Vec<u64>>,
    width: usize,
    n_slots: usize,
    free: Vec<u32>,
}

impl Slots {
    fn new(width: usize) -> Slots {
        Slots { chunks: vec![], width, n_slots: 0, free: vec![] }
    }

    /// Words a slot.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> &[u64] {
        let start = (id as usize & (CHUNK_LEN - 1)) * self.width;
        &self.chunks[(id >> CHUNK_BITS) as usize][start..start + self.width]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> &mut [u64] {
        let start = (id as usize & (CHUNK_LEN - 1)) * self.width;
        &mut self.chunks[(id >> CHUNK_BITS) as usize][start..start + self.width]
    }

    /// A slot with these words, one that is free or a new one.
    fn allocate(&mut self, initial: &[u64]) -> u32 {
        if let Some(id) = self.free.pop() {
            self.get_mut(id).copy_from_slice(initial);
            return id;
        }
        let id = self.n_slots;
        self.n_slots += 1;
        if id.is_multiple_of(CHUNK_LEN) {
            // A small aggregate has a small chunk, which grows by doubling; the others are filled.
            let n_slots = if id == 0 { 0 } else { CHUNK_LEN };
            self.chunks.push(Vec::with_capacity(n_slots * self.width));
        }
        self.chunks[id / CHUNK_LEN].extend_from_slice(initial);
        id as u32
    }

    fn bytes(&self) -> usize {
        let first = self.chunks.first().map_or(0, Vec::capacity);
        let others = self.chunks.len().saturating_sub(1) * CHUNK_LEN * self.width;
        (first + others) * size_of::<u64>()
            + self.chunks.capacity() * size_of::<Vec<u64>>()
            + self.free.capacity() * size_of::<u32>()
    }
}

/// One part of the table: open addressing, linear probing, no tombstones. It grows by half, and not by doubling, so that
/// it is never mostly empty.
struct Part {
    /// The low 32 bits of the hash above, the slot below.
    buckets: Vec<u64>,
    n_used: usize,
}

const BUCKETS_MIN: usize = 4;

#[inline]
fn part_of(hash: u64) -> usize {
    (hash as u32 >> (32 - PART_BITS)) as usize
}

impl Part {
    /// Where the probe for a tag begins: the tags of a part, whose upper bits are the part's number, in equal shares.
    #[inline]
    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag << PART_BITS) * self.buckets.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() { 0 } else { at + 1 }
    }

    /// Steps of a probe from one place to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.buckets.len() - from }
    }

    fn insert(&mut self, tag: u32, id: u32) {
        if (self.n_used + 1) * 3 > self.buckets.len() * 2 {
            self.grow();
        }
        self.n_used += 1;
        self.place(u64::from(tag) << 32 | u64::from(id));
    }

    fn place(&mut self, bucket: u64) {
        let mut at = self.home((bucket >> 32) as u32);
        while self.buckets[at] != EMPTY {
            at = self.next(at);
        }
        self.buckets[at] = bucket;
    }

    fn grow(&mut self) {
        let larger = vec![EMPTY; (self.buckets.len() * 3 / 2).max(BUCKETS_MIN)];
        for bucket in std::mem::replace(&mut self.buckets, larger) {
            if bucket != EMPTY {
                self.place(bucket);
            }
        }
    }

    /// Takes a slot out and closes the gap.
    fn remove(&mut self, tag: u32, id: u32) {
        let wanted = u64::from(tag) << 32 | u64::from(id);
        let mut gap = self.home(tag);
        while self.buckets[gap] != wanted {
            if self.buckets[gap] == EMPTY {
                return;
            }
            gap = self.next(gap);
        }
        self.n_used -= 1;
        let mut at = gap;
        loop {
            at = self.next(at);
            let bucket = self.buckets[at];
            if bucket == EMPTY {
                break;
            }
            let home = self.home((bucket >> 32) as u32);
            // It may move into the gap unless its home lies behind the gap.
            if self.distance(home, at) >= self.distance(gap, at) {
                self.buckets[gap] = bucket;
                gap = at;
            }
        }
        self.buckets[gap] = EMPTY;
    }
}

/// The words of a slot such that a small one lies in one cache line: what comparing the key has fetched, the accumulators
/// need not fetch again. Five words are the usual count and sum by one key: three more would be too dear.
fn padded(n_words: usize) -> usize {
    if n_words <= 8 && n_words != 5 { n_words.next_power_of_two() } else { n_words }
}

/// Groups by key.
pub(super) struct Groups {
    pub(super) slots: Slots,
    parts: Vec<Part>,
    keys: Arc<Keys>,
    arena: Arena,
    /// The words of a new slot.
    initial: Vec<u64>,
    n_groups: usize,
    candidates: Vec<u64>,
}

impl Groups {
    /// `state` are the words of a new group behind its key.
    pub(super) fn new(keys: Keys, state: &[u64]) -> Groups {
        let mut initial = vec![0; 1 + keys.n_words()];
        initial.extend_from_slice(state);
        initial.resize(padded(initial.len()), 0);
        Groups {
            slots: Slots::new(initial.len()),
            parts: empty_parts(),
            keys: Arc::new(keys),
            arena: Arena::default(),
            initial,
            n_groups: 0,
            candidates: vec![],
        }
    }

    /// The only group of a global aggregate. It is in no table.
    pub(super) fn make_global(&mut self) -> u32 {
        self.slots.allocate(&self.initial)
    }

    pub(super) fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    pub(super) fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Groups in the table.
    pub(super) fn len(&self) -> usize {
        self.n_groups
    }

    /// One more than the largest slot number.
    pub(super) fn n_slots(&self) -> usize {
        self.slots.n_slots
    }

    pub(super) fn bytes(&self) -> usize {
        let buckets: usize = self.parts.iter().map(|p| p.buckets.capacity()).sum();
        self.slots.bytes()
            + (buckets + self.candidates.capacity()) * size_of::<u64>()
            + self.parts.capacity() * size_of::<Part>()
            + self.arena.bytes()
    }

    /// The slot of every row, made where there is none yet.
    pub(super) fn resolve(&mut self, keys: &EncodedKeys, hashes: &[u64], ids: &mut Vec<u32>) {
        ids.clear();
        if self.keys.n_words() == 1 && !self.keys.has_bytes() && keys.nulls.is_empty() {
            let words = &keys.words;
            self.find(hashes, ids, |row_idx, slot, _, _| slot[1] == words[row_idx] && slot[0] >> 32 == 0);
        } else {
            let n_words = self.keys.n_words();
            self.find(hashes, ids, |row_idx, slot, all, arena| {
                slot[0] >> 32 == u64::from(keys.mask(row_idx)) && all.equal(keys, row_idx, &slot[1..1 + n_words], arena)
            });
        }
        for row_idx in 0..ids.len() {
            if ids[row_idx] == MISSING {
                ids[row_idx] = self.find_or_insert(keys, row_idx, hashes[row_idx]);
            }
        }
    }

    /// The slots of the rows whose key is found by its tag at the first try; `MISSING` for the others.
    #[inline]
    fn find(&mut self, hashes: &[u64], ids: &mut Vec<u32>, is_key: impl Fn(usize, &[u64], &Keys, &Arena) -> bool) {
        // Pass 1 reads every home bucket: the misses overlap.
        let home = |hash: &u64| {
            let part = &self.parts[part_of(*hash)];
            part.buckets[part.home(*hash as u32)]
        };
        self.candidates.clear();
        self.candidates.extend(hashes.iter().map(home));
        // Pass 2 compares tags, mostly in lines that are near by now.
        for (hash, candidate) in hashes.iter().zip(&self.candidates) {
            let mut bucket = *candidate;
            if bucket >> 32 != *hash & u64::from(u32::MAX) && bucket != EMPTY {
                let part = &self.parts[part_of(*hash)];
                let mut at = part.home(*hash as u32);
                while bucket >> 32 != *hash & u64::from(u32::MAX) && bucket != EMPTY {
                    at = part.next(at);
                    bucket = part.buckets[at];
                }
            }
            ids.push(bucket as u32);
        }
        // Pass 3 compares keys: the slots' misses overlap.
        for (row_idx, id) in ids.iter_mut().enumerate() {
            if *id != MISSING && !is_key(row_idx, self.slots.get(*id), &self.keys, &self.arena) {
                *id = MISSING;
            }
        }
    }

    fn find_or_insert(&mut self, keys: &EncodedKeys, row_idx: usize, hash: u64) -> u32 {
        let tag = hash as u32;
        let n_words = self.keys.n_words();
        let part = &self.parts[part_of(hash)];
        let mut at = part.home(tag);
        loop {
            let bucket = part.buckets[at];
            if bucket == EMPTY {
                break;
            }
            if (bucket >> 32) as u32 == tag {
                let slot = self.slots.get(bucket as u32);
                if slot[0] >> 32 == u64::from(keys.mask(row_idx))
                    && self.keys.equal(keys, row_idx, &slot[1..1 + n_words], &self.arena)
                {
                    return bucket as u32;
                }
            }
            at = part.next(at);
        }
        let id = self.slots.allocate(&self.initial);
        let slot = self.slots.get_mut(id);
        slot[0] = u64::from(keys.mask(row_idx)) << 32;
        self.keys.store(keys, row_idx, &mut slot[1..1 + n_words], &mut self.arena);
        self.parts[part_of(hash)].insert(tag, id);
        self.n_groups += 1;
        id
    }

    /// Forgets a group. `hash` is that of its key.
    pub(super) fn remove(&mut self, id: u32, hash: u64) {
        self.parts[part_of(hash)].remove(hash as u32, id);
        self.n_groups -= 1;
        let n_words = self.keys.n_words();
        let slot = self.slots.get_mut(id);
        self.keys.forget(&mut slot[1..1 + n_words], &mut self.arena);
        slot[0] = 0;
        self.slots.free.push(id);
        if self.n_groups == 0 {
            self.clear();
        }
    }

    /// Gives the memory back once nothing is left.
    fn clear(&mut self) {
        self.slots = Slots::new(self.initial.len());
        self.parts = empty_parts();
        self.arena = Arena::default();
    }

    /// Writes long keys anew where most of the arena is garbage.
    pub(super) fn tidy(&mut self) {
        if !self.arena.wants_rewrite() {
            return;
        }
        let from = std::mem::take(&mut self.arena);
        let n_words = self.keys.n_words();
        for id in 0..self.slots.n_slots as u32 {
            let slot = self.slots.get_mut(id);
            self.keys.relocate(&mut slot[1..1 + n_words], &from, &mut self.arena);
        }
    }

    /// Forgets which step touched which slot.
    pub(super) fn clear_stamps(&mut self) {
        for id in 0..self.slots.n_slots as u32 {
            let slot = self.slots.get_mut(id);
            // 1, not 0: that would make it a new group. A free slot has no stamp.
            if slot[0] as u32 & STAMP != 0 {
                slot[0] = slot[0] & !u64::from(STAMP) | 1;
            }
        }
    }
}

fn empty_parts() -> Vec<Part> {
    (0..1 << PART_BITS).map(|_| Part { buckets: vec![EMPTY], n_used: 0 }).collect()
}
