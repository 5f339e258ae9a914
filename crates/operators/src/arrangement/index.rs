//! A hash index: from a 64-bit hash to slots, of which the caller knows which one is meant.
//!
//! Open addressing with linear probing, the upper half of the hash (the *tag*) beside the slot, so that a probe touches one
//! cache line and growth reads no rows. Once it is large it is split into sub-tables by the tag's lowest bits: each grows
//! alone, so that no single step pays for all, and by a fifth, so that an entry takes ten to twelve bytes. Removal shifts
//! back: no tombstones, memory and probe lengths do not grow under churn.
//! Invariant: an entry lies between its home position and the next free place.

#![expect(clippy::indexing_slicing, reason = "positions are masked to the length of the table, a power of two")]

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;

const SUB_TABLE_BITS: u32 = 6;
/// Entries from which the index is split.
const SPLIT_ENTRIES: usize = 4096;
const ENTRIES_MIN: usize = 16;
/// 2^32 divided by the golden ratio, odd: multiples of it are far from each other.
const SPREAD: u32 = 0x9e37_79b9;
/// Places up to which a table doubles: the small ones take little and grow often.
const DOUBLING_MAX: usize = 4096;

/// The tag above, the slot below.
#[derive(Clone, Copy, Debug)]
struct Entry(u64);

const FREE: Entry = Entry(NONE as u64);

impl Entry {
    fn new(hash: u64, slot: u32) -> Entry {
        Entry(hash >> 32 << 32 | u64::from(slot))
    }

    #[inline]
    fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    fn slot(self) -> u32 {
        self.0 as u32
    }
}

#[inline]
fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[derive(Debug, Default)]
struct Table {
    /// None, or places of which at least a fifth is free.
    entries: Vec<Entry>,
    n_used: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    /// One table, or `1 << SUB_TABLE_BITS`.
    tables: Vec<Table>,
    n_used: usize,
}

impl Table {
    /// Where the probe for a tag begins: all tags in equal shares. The upper bits of the hash say which shard a row is of, so
    /// that the tags of one table are all in one part of their range: the lower bits must decide too.
    #[inline]
    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag.wrapping_mul(SPREAD)) * self.entries.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, position: usize) -> usize {
        if position + 1 == self.entries.len() { 0 } else { position + 1 }
    }

    /// Steps of a probe from one place to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.entries.len() - from }
    }

    /// Where the entry is that `found` accepts, or the free place that ends the probe. None: there are no places.
    #[inline]
    fn probe(&self, hash: u64, mut found: impl FnMut(u32) -> bool) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        let tag = tag_of(hash);
        let mut position = self.home(tag);
        loop {
            let entry = self.entries[position];
            if entry.slot() == NONE || (entry.tag() == tag && found(entry.slot())) {
                return Some(position);
            }
            position = self.next(position);
        }
    }

    fn insert(&mut self, entry: Entry) {
        let n_places = self.entries.len();
        if (self.n_used + 1) * 5 > n_places * 4 {
            let larger = if n_places < DOUBLING_MAX { n_places * 2 } else { n_places * 6 / 5 };
            self.resize(larger.max(ENTRIES_MIN));
        }
        self.put(entry);
        self.n_used += 1;
    }

    fn resize(&mut self, n_places: usize) {
        let old = std::mem::replace(&mut self.entries, vec![FREE; n_places]);
        old.into_iter().filter(|e| e.slot() != NONE).for_each(|e| self.put(e));
    }

    fn put(&mut self, entry: Entry) {
        if let Some(position) = self.probe(entry.0, |_| false) {
            self.entries[position] = entry;
        }
    }

    fn remove(&mut self, mut hole: usize) {
        let mut position = hole;
        loop {
            position = self.next(position);
            let entry = self.entries[position];
            if entry.slot() == NONE {
                break;
            }
            // It may fill the hole unless its home lies behind the hole.
            if self.distance(self.home(entry.tag()), position) >= self.distance(hole, position) {
                self.entries[hole] = entry;
                hole = position;
            }
        }
        self.entries[hole] = FREE;
        self.n_used -= 1;
    }

    /// Gives memory back when an eighth or less is used.
    fn shrink(&mut self) {
        if self.entries.len() > ENTRIES_MIN && self.n_used * 8 <= self.entries.len() {
            let capacity = match self.n_used {
                0 => 0,
                n => (n * 2).max(ENTRIES_MIN),
            };
            self.resize(capacity);
        }
    }
}

impl Index {
    #[inline]
    fn table(&self, hash: u64) -> Option<&Table> {
        match self.tables.len() {
            0 => None,
            n => Some(&self.tables[tag_of(hash) as usize & (n - 1)]),
        }
    }

    #[inline]
    fn table_mut(&mut self, hash: u64) -> &mut Table {
        if self.tables.is_empty() {
            self.tables.push(Table::default());
        }
        let mask = self.tables.len() - 1;
        &mut self.tables[tag_of(hash) as usize & mask]
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.n_used
    }

    /// Brings the places where probes for these hashes start into the cache. Nothing here depends on what is read, so
    /// that all misses overlap; a probe's branches would wait for each.
    pub(crate) fn touch(&self, hashes: impl Iterator<Item = u64>) {
        let slot = |hash| match self.table(hash) {
            Some(table) if !table.entries.is_empty() => table.entries[table.home(tag_of(hash))].slot(),
            _ => 0,
        };
        std::hint::black_box(hashes.fold(0, |all, hash| all ^ slot(hash)));
    }

    /// The slot of the first entry with this hash's tag, or `NONE`.
    #[inline]
    pub(crate) fn first(&self, hash: u64) -> u32 {
        self.find(hash, |_| true)
    }

    /// `first` for each hash.
    pub(crate) fn first_of_all(&self, hashes: impl Iterator<Item = u64> + Clone) -> Vec<u32> {
        self.touch(hashes.clone());
        hashes.map(|hash| self.first(hash)).collect()
    }

    /// The slot of the entry with this hash's tag that `found` accepts, or `NONE`.
    #[inline]
    pub(crate) fn find(&self, hash: u64, found: impl FnMut(u32) -> bool) -> u32 {
        match self.table(hash) {
            None => NONE,
            Some(table) => table.probe(hash, found).map_or(NONE, |position| table.entries[position].slot()),
        }
    }

    /// Adds an entry, whether or not there is one with its hash.
    pub(crate) fn insert(&mut self, hash: u64, slot: u32) {
        if self.tables.len() <= 1 && self.n_used >= SPLIT_ENTRIES {
            let old = std::mem::take(&mut self.tables);
            self.tables.resize_with(1 << SUB_TABLE_BITS, Table::default);
            for entry in old.into_iter().flat_map(|table| table.entries).filter(|e| e.slot() != NONE) {
                self.table_mut(entry.0).insert(entry);
            }
        }
        self.table_mut(hash).insert(Entry::new(hash, slot));
        self.n_used += 1;
    }

    /// Lets the entry with this hash that `found` accepts point to `slot` and returns where it pointed; where there is
    /// none, adds one and returns `NONE`.
    #[inline]
    pub(crate) fn put(&mut self, hash: u64, slot: u32, found: impl FnMut(u32) -> bool) -> u32 {
        let table = self.table_mut(hash);
        if let Some(position) = table.probe(hash, found) {
            let old = table.entries[position].slot();
            if old != NONE {
                table.entries[position] = Entry::new(hash, slot);
                return old;
            }
        }
        self.insert(hash, slot);
        NONE
    }

    /// Lets the entry (hash, old) point to another slot. False where there is none.
    pub(crate) fn replace(&mut self, hash: u64, old: u32, new: u32) -> bool {
        let table = self.table_mut(hash);
        match table.probe(hash, |slot| slot == old) {
            Some(position) if table.entries[position].slot() != NONE => {
                table.entries[position] = Entry::new(hash, new);
                true
            }
            _ => false,
        }
    }

    /// Removes the entry (hash, slot). False where there is none.
    pub(crate) fn remove(&mut self, hash: u64, slot: u32) -> bool {
        let table = self.table_mut(hash);
        match table.probe(hash, |other| other == slot) {
            Some(position) if table.entries[position].slot() != NONE => {
                table.remove(position);
                table.shrink();
                self.n_used -= 1;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let entries: usize = self.tables.iter().map(|t| t.entries.capacity()).sum();
        entries * size_of::<Entry>() + self.tables.capacity() * size_of::<Table>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few distinct hashes, so that probes collide and wrap; against a plain list.
        #[test]
        fn agrees_with_a_list(ops in prop::collection::vec((0u8..4, 0u64..40, 0u32..8), 0..400)) {
            let mut index = Index::default();
            let mut list: Vec<(u64, u32)> = vec![];
            for (op, hash, slot) in ops {
                let hash = hash << 58 | hash;
                let place = list.iter().position(|e| *e == (hash, slot));
                match op {
                    0 | 1 if place.is_none() => {
                        index.insert(hash, slot);
                        list.push((hash, slot));
                    }
                    2 => {
                        prop_assert_eq!(index.remove(hash, slot), place.is_some());
                        place.map(|place| list.swap_remove(place));
                    }
                    3 => {
                        prop_assert_eq!(index.replace(hash, slot, slot + 100), place.is_some());
                        if let Some(place) = place {
                            list[place].1 = slot + 100;
                            prop_assert!(index.remove(hash, slot + 100));
                            list.swap_remove(place);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(index.len(), list.len());
                for (hash, slot) in &list {
                    prop_assert_eq!(index.find(*hash, |s| s == *slot), *slot);
                }
            }
        }
    }

    /// The rows of one shard have hashes from one part of the range.
    #[test]
    fn probes_are_short_in_each_shard() {
        for shard in 0..4_u64 {
            let mut index = Index::default();
            let hash = |slot: u32| {
                let word = (u64::from(slot) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                (word ^ word >> 31) >> 2 | shard << 62
            };
            (0..100_000).for_each(|slot| index.insert(hash(slot), slot));
            let steps = |table: &Table| -> usize {
                let used = table.entries.iter().enumerate().filter(|(_, entry)| entry.slot() != NONE);
                used.map(|(position, entry)| table.distance(table.home(entry.tag()), position)).sum()
            };
            let n_steps: usize = index.tables.iter().map(steps).sum();
            assert!(n_steps < 100_000 * 4, "{n_steps} steps beyond the first");
        }
    }

    #[test]
    fn a_large_index_splits_and_gives_its_memory_back() {
        let mut index = Index::default();
        let hash = |slot: u32| u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..100_000).for_each(|slot| index.insert(hash(slot), slot));
        assert_eq!(index.tables.len(), 64);
        assert!((0..100_000).all(|slot| index.first(hash(slot)) == slot));
        assert!((0..100_000).all(|slot| index.remove(hash(slot), slot)));
        assert_eq!(index.len(), 0);
        assert!(index.bytes() < 100_000, "{}", index.bytes());
    }
}
