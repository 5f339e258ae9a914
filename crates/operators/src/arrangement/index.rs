//! A hash index: from a 64-bit hash to slots, of which the caller knows which one is meant.
//!
//! An *exact* index takes keys that are words for hashes; those that are close to each other may be in an array: see
//! [`super::pages`].
//!
//! Open addressing with linear probing, the upper half of the hash (the *tag*) beside the slot, so that a probe touches one
//! cache line and growth reads no rows. Once it is large it is split into sub-tables by the tag's lowest bits: each grows
//! alone, so that no single step pays for all, and by a fifth, so that an entry takes ten to twelve bytes. Removal shifts
//! back: no tombstones, memory and probe lengths do not grow under churn.
//! Invariant: an entry lies between its home position and the next free place.

#![expect(clippy::indexing_slicing, reason = "positions are masked to the length of the table, a power of two")]

use super::pages::{PageCounts, Pages, scrambled, unscrambled};

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;

const SUB_TABLE_BITS: u32 = 6;
/// Entries from which the index is split.
const SPLIT_ENTRIES: usize = 4096;
const ENTRIES_MIN: usize = 16;
/// 2^32 divided by the golden ratio, odd: multiples of it are far from each other.
const SPREAD: u32 = 0x9e37_79b9;
/// Probes whose cache lines are fetched together.
pub(crate) const TOUCHED_MAX: usize = 256;
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

/// How many places a table has after so many.
fn larger(n_places: usize) -> usize {
    let larger = if n_places < DOUBLING_MAX { n_places * 2 } else { n_places * 6 / 5 };
    larger.max(ENTRIES_MIN)
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
    /// In the tables.
    n_used: usize,
    /// Where it is exact.
    pages: Pages,
    /// The keys that are about to come, for pages.
    expected: PageCounts,
    is_exact: bool,
}

/// Entries that go in together, apart by the sub-table of each: one table after the other is filled, and is in the cache
/// meanwhile.
#[derive(Debug)]
pub(crate) struct Load {
    groups: Vec<Group>,
    has_hashes: bool,
}

#[derive(Debug)]
struct Group {
    entries: Vec<Entry>,
    /// What the tags are not. Empty: not kept, and 0 to those who see hashes.
    lower_hashes: Vec<u32>,
}

impl Load {
    /// For about so many entries, many of them with keys that others have too.
    pub(crate) fn new(n_entries: usize) -> Load {
        Load::with_capacity(n_entries, true)
    }

    /// For about so many entries that their tags tell apart, or that have each a key of its own.
    pub(crate) fn of_tags(n_entries: usize) -> Load {
        Load::with_capacity(n_entries, false)
    }

    fn with_capacity(n_entries: usize, has_hashes: bool) -> Load {
        let mean = n_entries >> SUB_TABLE_BITS;
        // Few groups are larger than this, and those grow.
        let capacity = mean + mean / 8;
        let group = |_| {
            let lower_hashes = Vec::with_capacity(if has_hashes { capacity } else { 0 });
            Group { entries: Vec::with_capacity(capacity), lower_hashes }
        };
        Load { groups: (0..1 << SUB_TABLE_BITS).map(group).collect(), has_hashes }
    }

    pub(crate) fn push(&mut self, hash: u64, slot: u32) {
        let mask = self.groups.len() - 1;
        let group = &mut self.groups[tag_of(hash) as usize & mask];
        group.entries.push(Entry::new(hash, slot));
        if self.has_hashes {
            group.lower_hashes.push(hash as u32);
        }
    }

    fn len(&self) -> usize {
        self.groups.iter().map(|group| group.entries.len()).sum()
    }
}

/// Two entries with the same tag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) old: u32,
    pub(crate) new: u32,
    /// That their whole hashes are the same is known.
    pub(crate) same_hash: bool,
}

impl Group {
    #[inline]
    fn slot(&self, place: usize) -> u32 {
        self.entries[place].slot()
    }

    fn hash(&self, place: usize) -> u64 {
        u64::from(self.entries[place].tag()) << 32 | u64::from(self.lower_hashes.get(place).copied().unwrap_or(0))
    }
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
            self.resize(larger(n_places));
        }
        self.put(entry);
        self.n_used += 1;
    }

    /// Makes room for so many entries more.
    fn reserve(&mut self, n_more: usize) {
        let n_used = self.n_used + n_more;
        if n_used * 5 > self.entries.len() * 4 {
            self.resize((n_used * 4 / 3).max(ENTRIES_MIN));
        }
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

    /// [`Index::put`] for each entry, with `same(state, pair)`; then `done(state, hash, new, old)`. How many are new.
    fn put_all<T>(
        &mut self,
        group: &Group,
        state: &mut T,
        same: impl Fn(&T, Pair) -> bool,
        done: impl Fn(&mut T, u64, u32, u32),
    ) -> usize {
        let n_before = self.n_used;
        if n_before > 0 || group.lower_hashes.is_empty() {
            let same = |state: &T, old, new: usize| same(state, Pair { old, new: group.slot(new), same_hash: false });
            let done = |state: &mut T, new, old| done(state, group.hash(new), group.slot(new), old);
            self.put_each(group, state, same, |_, entry| entry, done);
            return self.n_used - n_before;
        }
        // Entries point to their places in the group meanwhile: there is the rest of their hashes.
        let same = |state: &T, old: u32, new: usize| {
            let old = old as usize;
            let pair = Pair { old: group.slot(old), new: group.slot(new), same_hash: true };
            group.lower_hashes[old] == group.lower_hashes[new] && same(state, pair)
        };
        let done = |state: &mut T, new, old| {
            let old = if old == NONE { NONE } else { group.slot(old as usize) };
            done(state, group.hash(new), group.slot(new), old);
        };
        self.put_each(group, state, same, |place, entry| Entry::new(entry.0, place as u32), done);
        for entry in self.entries.iter_mut().filter(|entry| entry.slot() != NONE) {
            *entry = group.entries[entry.slot() as usize];
        }
        self.n_used
    }

    fn put_each<T>(
        &mut self,
        group: &Group,
        state: &mut T,
        same: impl Fn(&T, u32, usize) -> bool,
        stored: impl Fn(usize, Entry) -> Entry,
        done: impl Fn(&mut T, usize, u32),
    ) {
        for (idx, entry) in group.entries.iter().enumerate() {
            let n_places = self.entries.len();
            if (self.n_used + 1) * 5 > n_places * 4 {
                let n_used_max = self.n_used + group.entries.len() - idx;
                self.resize((n_used_max * 4 / 3).clamp(larger(n_places), (n_places * 2).max(ENTRIES_MIN)));
            }
            let Some(position) = self.probe(entry.0, |old| same(state, old, idx)) else { continue };
            let old = self.entries[position].slot();
            self.entries[position] = stored(idx, *entry);
            self.n_used += usize::from(old == NONE);
            done(state, idx, old);
        }
        // Most were not new: the table was made too large.
        if self.n_used * 5 < self.entries.len() * 3 && self.entries.len() > DOUBLING_MAX {
            self.resize(self.n_used * 4 / 3);
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
    /// Exact: its hashes are words, each of which is one key.
    pub(crate) fn new(is_exact: bool) -> Index {
        Index { is_exact, ..Index::default() }
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// The hash as tables have it, and a [`Load`].
    #[inline]
    pub(crate) fn spread(&self, hash: u64) -> u64 {
        if self.is_exact { scrambled(hash) } else { hash }
    }

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
        self.n_used + self.pages.n_used()
    }

    /// Brings the places where probes for these hashes start into the cache. Nothing here depends on what is read, so
    /// that all misses overlap; a probe's branches would wait for each.
    pub(crate) fn touch(&self, hashes: impl Iterator<Item = u64>) {
        let slot = |hash| match self.table(hash) {
            Some(table) if !table.entries.is_empty() => table.entries[table.home(tag_of(hash))].slot(),
            _ => 0,
        };
        std::hint::black_box(hashes.fold(0, |all, hash| all ^ slot(self.spread(hash))));
    }

    /// The slot of the first entry with this hash's tag, or `NONE`.
    #[inline]
    pub(crate) fn first(&self, hash: u64) -> u32 {
        self.find(hash, |_| true)
    }

    /// `first` for each hash.
    pub(crate) fn first_of_all(&self, hashes: impl Iterator<Item = u64> + Clone) -> Vec<u32> {
        if self.pages.n_used() == 0 {
            return self.first_in_tables(hashes);
        }
        let (mut unpaged, mut places) = (vec![], vec![]);
        let slot = |(place, hash)| {
            self.pages.get(hash).unwrap_or_else(|| {
                unpaged.push(hash);
                places.push(place);
                NONE
            })
        };
        let mut slots: Vec<u32> = hashes.enumerate().map(slot).collect();
        for (place, slot) in places.into_iter().zip(self.first_in_tables(unpaged.iter().copied())) {
            slots[place] = slot;
        }
        slots
    }

    fn first_in_tables(&self, hashes: impl Iterator<Item = u64> + Clone) -> Vec<u32> {
        let mut slots = Vec::with_capacity(hashes.size_hint().0);
        let (mut ahead, mut hashes) = (hashes.clone(), hashes);
        loop {
            let n_done = slots.len();
            // As many as stay in the fastest cache.
            self.touch(ahead.by_ref().take(TOUCHED_MAX));
            slots.extend(hashes.by_ref().take(TOUCHED_MAX).map(|hash| self.first(hash)));
            if slots.len() == n_done {
                return slots;
            }
        }
    }

    /// The slot of the entry with this hash's tag that `found` accepts, or `NONE`.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut found: impl FnMut(u32) -> bool) -> u32 {
        if let Some(slot) = self.pages.get(hash) {
            return if slot != NONE && found(slot) { slot } else { NONE };
        }
        let hash = self.spread(hash);
        match self.table(hash) {
            None => NONE,
            Some(table) => table.probe(hash, found).map_or(NONE, |position| table.entries[position].slot()),
        }
    }

    /// These keys will come, most of them only once, before any other call but this one and `make_pages`.
    pub(crate) fn expect(&mut self, hashes: impl Iterator<Item = u64>) {
        if self.is_exact && self.len() == 0 {
            self.expected.add(hashes);
        }
    }

    /// Makes pages for the keys that are expected. How many of those will find one.
    pub(crate) fn make_pages(&mut self) -> usize {
        let expected = std::mem::take(&mut self.expected);
        if self.len() > 0 {
            return 0;
        }
        let (pages, n_paged) = Pages::new(&expected);
        self.pages = pages;
        n_paged
    }

    /// Whether [`Index::put_in_page`] comes before anything is put into tables.
    pub(crate) fn has_pages(&self) -> bool {
        !self.pages.is_empty()
    }

    /// As `touch`, for the places of keys that have a page.
    pub(crate) fn touch_pages(&self, hashes: &[u64]) {
        std::hint::black_box(hashes.iter().fold(0, |all, hash| all ^ self.pages.get(*hash).unwrap_or(0)));
    }

    /// `put` for a key that has a page. None: it has none.
    #[inline]
    pub(crate) fn put_in_page(&mut self, hash: u64, slot: u32) -> Option<u32> {
        self.pages.put(hash, slot)
    }

    /// Adds an entry; none with the same key is there.
    pub(crate) fn insert(&mut self, hash: u64, slot: u32) {
        if self.pages.put(hash, slot).is_some() {
            return;
        }
        if self.tables.len() <= 1 && self.n_used >= SPLIT_ENTRIES {
            self.split();
        }
        let hash = self.spread(hash);
        self.table_mut(hash).insert(Entry::new(hash, slot));
        self.n_used += 1;
    }

    fn split(&mut self) {
        let old = std::mem::take(&mut self.tables);
        self.tables.resize_with(1 << SUB_TABLE_BITS, Table::default);
        for entry in old.into_iter().flat_map(|table| table.entries).filter(|e| e.slot() != NONE) {
            self.table_mut(entry.0).insert(entry);
        }
    }

    /// `put` for each entry: `same(state, pair)` says whether an entry with the same tag is meant, and `done(state,
    /// hash, new, old)` hears where it pointed (of the hash, the tag alone is right). Where an index without entries gets all
    /// of them at once, `same` is asked only of those with the same hash.
    pub(crate) fn put_all<T>(
        &mut self,
        load: Load,
        state: &mut T,
        same: impl Fn(&T, Pair) -> bool,
        done: impl Fn(&mut T, u64, u32, u32),
    ) {
        self.make_tables(load.len());
        let is_exact = self.is_exact;
        let done =
            |state: &mut T, hash, new, old| done(state, if is_exact { unscrambled(hash) } else { hash }, new, old);
        let mask = self.tables.len() - 1;
        // About as many entries of each group are new as were of the one before: its table need not grow through all sizes.
        let mut n_of_a_thousand: usize = 0;
        // Each group is given up once it is in: the next table takes its memory.
        for (idx, group) in load.groups.into_iter().enumerate() {
            let table = &mut self.tables[idx & mask];
            table.reserve(group.entries.len() * n_of_a_thousand / 1000);
            let n_new = table.put_all(&group, state, &same, done);
            // A few more than that: else half of the tables would grow once more.
            n_of_a_thousand = n_new * 1050 / group.entries.len().max(1);
            self.n_used += n_new;
        }
    }

    /// Adds entries of which no two are the same, nor one that is there: `same(old, new)` is asked where tags are equal. Tables
    /// are shared out to threads. False where two are the same; the index is then of no use.
    pub(crate) fn insert_all(
        &mut self,
        loads: Vec<Load>,
        n_threads: usize,
        same: impl Fn(u32, u32) -> bool + Sync,
    ) -> bool {
        self.make_tables(loads.iter().map(Load::len).sum());
        let n_tables = self.tables.len();
        // The groups of each table; one table alone takes all.
        let mut groups: Vec<Vec<Group>> = (0..n_tables).map(|_| vec![]).collect();
        for (idx, group) in loads.into_iter().flat_map(|load| load.groups.into_iter().enumerate()) {
            groups[idx & (n_tables - 1)].push(group);
        }
        let fill = |tables: &mut [Table], groups: &mut [Vec<Group>]| {
            let (mut n_new, mut is_unique) = (0, true);
            for (table, groups) in tables.iter_mut().zip(groups) {
                table.reserve(groups.iter().map(|group| group.entries.len()).sum());
                // Each is given up once it is in: the next table takes its memory.
                for group in std::mem::take(groups) {
                    let same = |_: &bool, pair: Pair| same(pair.old, pair.new);
                    let done = |is_unique: &mut bool, _, _, old| *is_unique &= old == NONE;
                    n_new += table.put_all(&group, &mut is_unique, same, done);
                }
            }
            (n_new, is_unique)
        };
        let n_each = n_tables.div_ceil(n_threads.max(1));
        let mut parts = self.tables.chunks_mut(n_each).zip(groups.chunks_mut(n_each));
        let fill = &fill;
        let filled: Vec<_> = std::thread::scope(|scope| {
            let own = parts.next();
            let threads: Vec<_> = parts.map(|(tables, groups)| scope.spawn(move || fill(tables, groups))).collect();
            let own = own.map(|(tables, groups)| fill(tables, groups));
            own.into_iter().chain(threads.into_iter().map(|thread| thread.join().unwrap_or((0, false)))).collect()
        });
        self.n_used += filled.iter().map(|(n_new, _)| n_new).sum::<usize>();
        filled.iter().all(|(_, is_unique)| *is_unique)
    }

    /// Tables for so many entries more.
    fn make_tables(&mut self, n_more: usize) {
        if self.tables.is_empty() {
            self.tables.push(Table::default());
        }
        if self.tables.len() == 1 && self.n_used + n_more >= SPLIT_ENTRIES {
            self.split();
        }
    }

    /// Lets the entry with this hash that `found` accepts point to `slot` and returns where it pointed; where there is
    /// none, adds one and returns `NONE`.
    #[inline]
    pub(crate) fn put(&mut self, hash: u64, slot: u32, found: impl FnMut(u32) -> bool) -> u32 {
        if let Some(old) = self.pages.put(hash, slot) {
            return old;
        }
        let spread = self.spread(hash);
        let table = self.table_mut(spread);
        if let Some(position) = table.probe(spread, found) {
            let old = table.entries[position].slot();
            if old != NONE {
                table.entries[position] = Entry::new(spread, slot);
                return old;
            }
        }
        self.insert(hash, slot);
        NONE
    }

    /// Lets the entry (hash, old) point to another slot. False where there is none.
    pub(crate) fn replace(&mut self, hash: u64, old: u32, new: u32) -> bool {
        if let Some(was_there) = self.pages.replace(hash, old, new) {
            return was_there;
        }
        let hash = self.spread(hash);
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
        if let Some(was_there) = self.pages.remove(hash, slot) {
            self.pages.give_up(hash).into_iter().for_each(|(hash, slot)| self.insert(hash, slot));
            return was_there;
        }
        let hash = self.spread(hash);
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
        entries * size_of::<Entry>() + self.tables.capacity() * size_of::<Table>() + self.pages.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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

    proptest! {
        /// Keys that come together and get pages, keys that get none, and what is changed later; against a map.
        #[test]
        fn pages_agree_with_a_map(
            loaded in prop::collection::btree_set(0u64..100, 0..60),
            ops in prop::collection::vec((0u8..4, 0u64..120, 0u32..8), 0..300),
        ) {
            let mut index = Index::new(true);
            let hash = |key: u64| if key < 110 { key } else { key << 32 };
            index.expect(loaded.iter().map(|key| hash(*key)));
            let n_paged = index.make_pages();
            let mut map: BTreeMap<u64, u32> = BTreeMap::new();
            let mut load = Load::of_tags(loaded.len() - n_paged);
            for key in loaded {
                match index.put_in_page(hash(key), 1000) {
                    Some(old) => prop_assert_eq!(old, NONE),
                    None => load.push(index.spread(hash(key)), 1000),
                }
                map.insert(key, 1000);
            }
            prop_assert_eq!(load.len(), map.len() - n_paged);
            prop_assert!(index.insert_all(vec![load], 1, |_, _| true));
            for (op, key, slot) in ops {
                let old = map.get(&key).copied();
                match op {
                    0 => {
                        prop_assert_eq!(index.put(hash(key), slot, |other| Some(other) == old), old.unwrap_or(NONE));
                        map.insert(key, slot);
                    }
                    1 => prop_assert!(!index.remove(hash(key), slot + 10) && !index.replace(hash(key), slot + 10, 0)),
                    2 => if let Some(old) = map.remove(&key) {
                        prop_assert!(index.remove(hash(key), old));
                    },
                    _ => if let Some(old) = old {
                        prop_assert!(index.replace(hash(key), old, slot));
                        map.insert(key, slot);
                    },
                }
                prop_assert_eq!(index.len(), map.len());
                let found = (0..120).map(|key| index.find(hash(key), |slot| map.get(&key) == Some(&slot)));
                prop_assert!(found.eq((0..120).map(|key| map.get(&key).copied().unwrap_or(NONE))));
                let firsts = index.first_of_all((0..110).map(hash));
                prop_assert!(firsts.into_iter().eq((0..110).map(|key| map.get(&key).copied().unwrap_or(NONE))));
            }
            for (key, slot) in map {
                prop_assert!(index.remove(hash(key), slot));
            }
            prop_assert!(index.len() == 0 && index.bytes() < 5000);
        }
    }

    /// Entries that go in together are as those that go in one by one.
    #[test]
    fn many_at_once_are_as_one_by_one() {
        let hash = |n: u32| u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for n in [0, 1, 100, 5_000, 300_000] {
            let (mut one_by_one, mut at_once, mut unique) = (Index::default(), Index::default(), Index::default());
            // Each of so many keys three times, and what is there before.
            let key = |slot: u32| slot % (n / 3 + 1);
            let before = (0..n.min(10)).map(|slot| (hash(key(slot)), slot));
            for index in [&mut one_by_one, &mut at_once] {
                for (hash, slot) in before.clone() {
                    index.put(hash, slot, |_| true);
                }
            }
            let load = || {
                let mut load = Load::new(n as usize);
                (10..n).for_each(|slot| load.push(hash(key(slot)), slot));
                load
            };
            let mut expected = vec![];
            for slot in 10..n {
                expected.push((slot, one_by_one.put(hash(key(slot)), slot, |_| true)));
            }
            let mut done = vec![];
            let same = |_: &Vec<(u32, u32)>, pair: Pair| key(pair.old) == key(pair.new);
            at_once.put_all(load(), &mut done, same, |done, _, new, old| done.push((new, old)));
            done.sort_unstable();
            assert_eq!(done, expected);
            assert_eq!(at_once.len(), one_by_one.len());
            assert!((0..n).all(|slot| at_once.first(hash(key(slot))) == one_by_one.first(hash(key(slot)))));
            assert!(n < 5_000 || at_once.bytes() <= one_by_one.bytes() * 6 / 5, "{}", at_once.bytes());
            assert_eq!(Index::default().insert_all(vec![load()], 2, |old, new| key(old) == key(new)), n <= 10);
            let loads = [0, 1].map(|half| {
                let mut load = Load::of_tags(n as usize / 2);
                (0..n).filter(|slot| slot % 2 == half).for_each(|slot| load.push(hash(slot), slot));
                load
            });
            assert!(unique.insert_all(loads.into(), 2, |old, new| old == new));
            assert_eq!(unique.len(), n as usize);
            assert!((0..n).all(|slot| unique.first(hash(slot)) == slot));
        }
    }

    /// Nobody is asked whether keys are the same whose hashes differ where the tags do not.
    #[test]
    fn hashes_beyond_the_tag_tell_keys_apart() {
        let key = |slot: u32| slot % 5_000;
        let mut load = Load::new(10_000);
        (0..10_000).for_each(|slot| load.push(u64::from(key(slot) % 4) << 32 | u64::from(key(slot)), slot));
        let (mut index, mut done) = (Index::default(), vec![]);
        let same = |_: &Vec<(u32, u32)>, pair: Pair| {
            assert!(pair.same_hash && key(pair.old) == key(pair.new));
            true
        };
        index.put_all(load, &mut done, same, |done, _, new, old| done.push((new, old)));
        done.sort_unstable();
        assert!(done.into_iter().eq((0..10_000u32).map(|slot| (slot, slot.checked_sub(5_000).unwrap_or(NONE)))));
        assert_eq!(index.len(), 5_000);
        for slot in 5_000..10_000 {
            assert_eq!(index.find(u64::from(key(slot) % 4) << 32, |other| key(other) == key(slot)), slot);
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
