//! An index that readers use: from the values of some columns to the rows that have them, or had them.
//!
//! Each tag (the upper half of the hash of key values) has a chain of slots, the newest row first, linked both ways through
//! arrays beside the segments, so that adding and removing a row cost the same in a chain of a million. Nothing here
//! compares keys: a reader gets every row whose tag is right and compares itself. Rows with NULL in a key column are left out: no
//! equality finds them. A row that died stays until `vacuum` knows that nobody reads its epoch any more.
//!
//! Invariant: at every epoch from `ready_from` on that can still be read, each row without NULL in its key is in the
//! chain of its hash. What a reader finds through `map` and what the relation has published at that moment fit
//! together: slots are moved and freed only while `map` is held for writing until the new list of segments is out.
//! A reader holds the lock for one key's walk, the writer for a thousand rows at most, so that neither waits long.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{RwLock, RwLockWriteGuard};
use tidewire_types::Epoch;

use super::index::{Index, NONE};
use super::store::{SEGMENT_BITS, SEGMENT_MASK, segment_rows};

/// Rows that are added or removed before readers get their turn.
const ROWS_A_LOCK: usize = 1024;
/// A slot that is in no chain.
const ABSENT: u32 = NONE - 1;

/// Which rows have which key.
#[derive(Debug)]
pub struct KeyIndex {
    column_idxs: Vec<usize>,
    map: RwLock<Map>,
    /// The first epoch whose rows are all there.
    ready_from: AtomicU32,
}

/// The chains.
#[derive(Debug, Default)]
pub(crate) struct Map {
    /// The newest slot of each tag.
    heads: Index,
    /// By segment, then by offset.
    links: Vec<Option<Box<[Link]>>>,
    /// In all segments.
    n_links: usize,
    n_rows: usize,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    older: u32,
    newer: u32,
}

const NO_LINK: Link = Link { older: ABSENT, newer: ABSENT };

impl KeyIndex {
    fn new(column_idxs: Vec<usize>) -> KeyIndex {
        KeyIndex { column_idxs, map: RwLock::default(), ready_from: AtomicU32::new(Epoch::NEVER.0) }
    }

    /// The columns of its key.
    pub fn column_idxs(&self) -> &[usize] {
        &self.column_idxs
    }

    /// Whether it has all rows of that epoch.
    pub fn is_ready(&self, epoch: Epoch) -> bool {
        self.ready_from.load(Ordering::Acquire) <= epoch.0
    }

    /// Bytes of memory that it holds.
    pub fn bytes(&self) -> usize {
        self.map.read().bytes()
    }

    /// Rows that are in it, those included that died and may still be read.
    pub fn n_rows(&self) -> usize {
        self.map.read().n_rows
    }

    /// Gives `f` the chains as they are while nothing is moved. None: they do not have all rows of that epoch.
    pub(crate) fn read<T>(&self, epoch: Epoch, f: impl FnOnce(&Map) -> T) -> Option<T> {
        let map = self.map.read();
        self.is_ready(epoch).then(|| f(&map))
    }

    /// Nobody keeps it up any more: readers that hold it make a scan from now on.
    pub(super) fn retire(&self) {
        let _map = self.map.write();
        self.ready_from.store(Epoch::NEVER.0, Ordering::Release);
    }

    /// Does `f` for each of many, with pauses in which readers get the lock.
    fn for_each<T>(&self, items: &[T], f: impl Fn(&mut Map, &T)) {
        for part in items.chunks(ROWS_A_LOCK) {
            let mut map = self.map.write();
            part.iter().for_each(|item| f(&mut map, item));
        }
    }
}

impl Map {
    /// The newest slot of a hash, or `NONE`.
    pub(crate) fn newest(&self, hash: u64) -> u32 {
        self.heads.first(hash)
    }

    /// The slot behind this one in its chain, or `NONE`.
    pub(crate) fn older(&self, slot: u32) -> u32 {
        match self.link(slot).older {
            ABSENT => NONE,
            older => older,
        }
    }

    fn link(&self, slot: u32) -> Link {
        let segment = self.links.get((slot >> SEGMENT_BITS) as usize).and_then(Option::as_ref);
        segment.and_then(|links| links.get((slot & SEGMENT_MASK) as usize)).copied().unwrap_or(NO_LINK)
    }

    /// The link of a slot, to be written. None: its segment has none yet.
    fn link_mut(&mut self, slot: u32) -> Option<&mut Link> {
        let segment = self.links.get_mut((slot >> SEGMENT_BITS) as usize).and_then(Option::as_mut);
        segment.and_then(|links| links.get_mut((slot & SEGMENT_MASK) as usize))
    }

    fn set(&mut self, slot: u32, link: Link) {
        let segment_idx = (slot >> SEGMENT_BITS) as usize;
        if self.links.len() <= segment_idx {
            self.links.resize_with(segment_idx + 1, || None);
        }
        if let Some(place @ None) = self.links.get_mut(segment_idx) {
            *place = Some(vec![NO_LINK; segment_rows(segment_idx)].into());
            self.n_links += segment_rows(segment_idx);
        }
        if let Some(place) = self.link_mut(slot) {
            *place = link;
        }
    }

    /// Adds a row, unless it is there.
    fn add(&mut self, hash: u64, slot: u32) {
        if self.link(slot).older != ABSENT {
            return;
        }
        let older = self.heads.put(hash, slot, |_| true);
        self.set(slot, Link { older, newer: NONE });
        if let Some(link) = self.link_mut(older) {
            link.newer = slot;
        }
        self.n_rows += 1;
    }

    /// Removes a row, if it is there.
    fn remove(&mut self, hash: u64, slot: u32) {
        let Link { older, newer } = self.link(slot);
        if older == ABSENT {
            return;
        }
        match (newer, older) {
            (NONE, NONE) => {
                self.heads.remove(hash, slot);
            }
            (NONE, older) => {
                self.heads.replace(hash, slot, older);
            }
            (newer, older) => {
                if let Some(link) = self.link_mut(newer) {
                    link.older = older;
                }
            }
        }
        if let Some(link) = self.link_mut(older) {
            link.newer = newer;
        }
        self.set(slot, NO_LINK);
        self.n_rows -= 1;
    }

    /// Lets a row be at another slot, if it is there.
    pub(super) fn replace(&mut self, hash: u64, old: u32, new: u32) {
        let link = self.link(old);
        if link.older == ABSENT {
            return;
        }
        self.set(new, link);
        self.set(old, NO_LINK);
        match link.newer {
            NONE => {
                self.heads.replace(hash, old, new);
            }
            newer => {
                if let Some(link) = self.link_mut(newer) {
                    link.older = new;
                }
            }
        }
        if let Some(link) = self.link_mut(link.older) {
            link.newer = new;
        }
    }

    fn forget_segment(&mut self, segment_idx: usize) {
        if let Some(links) = self.links.get_mut(segment_idx).and_then(Option::take) {
            self.n_links -= links.len();
        }
    }

    fn bytes(&self) -> usize {
        self.heads.bytes() + self.n_links * size_of::<Link>() + self.links.capacity() * size_of::<Option<Box<[Link]>>>()
    }
}

/// The writing end: what the owner of the relation does for one index.
#[derive(Debug)]
pub(super) struct Maintained {
    pub(super) index: Arc<KeyIndex>,
    /// The row at which the next slice of the building begins: a slot. None: built.
    pub(super) next: Option<u32>,
    /// Rows that died, in the order of their epochs.
    dead: VecDeque<Dead>,
}

#[derive(Clone, Copy, Debug)]
struct Dead {
    epoch: Epoch,
    hash: u64,
    slot: u32,
}

impl Maintained {
    /// An index that has no rows yet.
    pub(super) fn new(column_idxs: Vec<usize>) -> Maintained {
        Maintained { index: Arc::new(KeyIndex::new(column_idxs)), next: Some(0), dead: VecDeque::new() }
    }

    /// Adds rows: a hash (None: NULL in the key) and a slot each.
    pub(super) fn add(&self, rows: &[(Option<u64>, u32)]) {
        self.index.for_each(rows, |map, (hash, slot)| {
            if let Some(hash) = hash {
                map.add(*hash, *slot);
            }
        });
    }

    /// Rows die.
    pub(super) fn kill(&mut self, rows: impl Iterator<Item = (Option<u64>, u32)>, epoch: Epoch) {
        self.dead.extend(rows.filter_map(|(hash, slot)| Some(Dead { epoch, hash: hash?, slot })));
    }

    /// Removes the rows that died at or before `epoch`.
    pub(super) fn vacuum(&mut self, epoch: Epoch) {
        let n_due = self.dead.partition_point(|dead| dead.epoch <= epoch);
        let due: Vec<Dead> = self.dead.drain(..n_due).collect();
        self.index.for_each(&due, |map, dead| map.remove(dead.hash, dead.slot));
        if self.dead.is_empty() {
            self.dead.shrink_to(ROWS_A_LOCK);
        }
    }

    /// Rows have moved, from one list of slots to the other; both are of one segment each or in order.
    pub(super) fn moved(&mut self, old: &[u32], new: &[u32]) {
        for dead in &mut self.dead {
            if let Some(new) = old.binary_search(&dead.slot).ok().and_then(|idx| new.get(idx)) {
                dead.slot = *new;
            }
        }
    }

    /// From this epoch on readers may use it.
    pub(super) fn built(&mut self, epoch: Epoch) {
        self.next = None;
        self.index.ready_from.store(epoch.0, Ordering::Release);
    }

    pub(super) fn bytes(&self) -> usize {
        self.index.bytes() + self.dead.capacity() * size_of::<Dead>()
    }
}

/// All indexes of a relation, locked: readers wait until it is dropped.
pub(super) struct Locked<'a>(Vec<RwLockWriteGuard<'a, Map>>);

impl<'a> Locked<'a> {
    pub(super) fn new(indexes: &'a [Arc<KeyIndex>]) -> Locked<'a> {
        Locked(indexes.iter().map(|index| index.map.write()).collect())
    }

    /// The chains of each index, in order.
    pub(super) fn maps(&mut self) -> impl Iterator<Item = &mut Map> {
        self.0.iter_mut().map(|map| &mut **map)
    }

    /// A segment is freed: all of its rows have been removed or moved.
    pub(super) fn forget_segment(&mut self, segment_idx: usize) {
        self.maps().for_each(|map| map.forget_segment(segment_idx));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn chain(map: &Map, hash: u64) -> Vec<u32> {
        let mut slots = vec![];
        let mut slot = map.newest(hash);
        while slot != NONE {
            slots.push(slot);
            slot = map.older(slot);
        }
        slots
    }

    proptest! {
        /// Against a list of slots for each hash.
        #[test]
        fn agrees_with_lists(ops in prop::collection::vec((0u8..4, 0u32..600), 0..300)) {
            let slot_of = |n: u32| (n / 200) << SEGMENT_BITS | (n % 200);
            let mut map = Map::default();
            let mut lists: BTreeMap<u64, Vec<u32>> = (0..7).map(|tag| (tag << 32, vec![])).collect();
            for (op, n) in ops {
                // A slot always has the same hash, as a row has.
                let (slot, hash) = (slot_of(n), u64::from(n % 7) << 32);
                let list = lists.get_mut(&hash).unwrap();
                let place = list.iter().position(|s| *s == slot);
                match op {
                    0 | 1 => {
                        map.add(hash, slot);
                        if place.is_none() {
                            list.insert(0, slot);
                        }
                    }
                    2 => {
                        map.remove(hash, slot);
                        place.map(|place| list.remove(place));
                    }
                    _ => {
                        let new = slot_of(n + 7000);
                        if !list.contains(&new) {
                            map.replace(hash, slot, new);
                            if let Some(place) = place {
                                list[place] = new;
                            }
                        }
                    }
                }
                for (hash, list) in &lists {
                    prop_assert_eq!(&chain(&map, *hash), list);
                }
                prop_assert_eq!(map.n_rows, lists.values().map(Vec::len).sum::<usize>());
            }
            for (hash, list) in &lists {
                list.iter().for_each(|slot| map.remove(*hash, *slot));
            }
            prop_assert_eq!((map.n_rows, map.heads.len()), (0, 0));
        }
    }
}
