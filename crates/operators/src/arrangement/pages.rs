//! The part of an index that is an array: from integer keys that are close to each other to their slots.
//!
//! Nothing is compared, and keys that follow each other share cache lines. Pages are made when many keys come at once, for
//! those parts of the range of which at least a third may be there: a page takes no more than entries of the hash table
//! would. One that is nearly empty is given up.
//! Invariant: a key that has a page is nowhere else in the index.

use super::index::NONE;

/// Tests have few keys.
const PAGE_BITS: u32 = if cfg!(test) { 3 } else { 14 };
const PAGE_KEYS: usize = 1 << PAGE_BITS;
/// Keys from 2^32 on have none.
const PAGES_MAX: usize = 1 << 18;
/// A page is made where this part of its keys, or more, comes.
const FULL_PART: usize = 3;
/// A page is given up where less than this part of its keys is left.
const WORN_PART: usize = if cfg!(test) { 4 } else { 16 };
/// One-to-one. Words below 2^32 are told apart by the upper half (what the index keeps of a hash), and have 0 below.
#[inline]
pub(super) fn scrambled(word: u64) -> u64 {
    let upper = (word >> 32) as u32;
    u64::from(scramble(word as u32 ^ scramble(upper))) << 32 | u64::from(upper)
}

/// What was scrambled.
pub(super) fn unscrambled(hash: u64) -> u64 {
    let upper = hash as u32;
    u64::from(upper) << 32 | u64::from(unscramble((hash >> 32) as u32) ^ scramble(upper))
}

/// A one-to-one scrambling of 32 bits (the finalizer of MurmurHash3, by Austin Appleby).
#[inline]
pub(crate) fn scramble(mut word: u32) -> u32 {
    word = (word ^ (word >> 16)).wrapping_mul(0x85eb_ca6b);
    word = (word ^ (word >> 13)).wrapping_mul(0xc2b2_ae35);
    word ^ (word >> 16)
}

/// The steps back, with the inverses of the factors.
fn unscramble(mut word: u32) -> u32 {
    word = (word ^ (word >> 16)).wrapping_mul(0x7ed1_b41d);
    word = (word ^ (word >> 13) ^ (word >> 26)).wrapping_mul(0xa5cb_9243);
    word ^ (word >> 16)
}

/// The page of a key and the place in it.
#[inline]
fn place(word: u64) -> (usize, usize) {
    ((word >> PAGE_BITS) as usize, word as usize & (PAGE_KEYS - 1))
}

#[derive(Debug)]
struct Page {
    /// The complements of slots: memory that is all 0 has none.
    slots: Vec<u32>,
    n_used: usize,
}

#[derive(Debug, Default)]
pub(super) struct Pages {
    pages: Vec<Option<Page>>,
    n_pages: usize,
    n_used: usize,
}

/// How many keys of each page are about to come.
#[derive(Debug, Default)]
pub(super) struct PageCounts(Vec<u32>);

impl PageCounts {
    pub(super) fn add(&mut self, words: impl Iterator<Item = u64>) {
        for word in words {
            let (idx, _) = place(word);
            if idx >= self.0.len() && idx < PAGES_MAX {
                self.0.resize(idx + 1, 0);
            }
            if let Some(n) = self.0.get_mut(idx) {
                *n += 1;
            }
        }
    }
}

impl Pages {
    /// Pages for those keys of which enough come, and how many come.
    pub(super) fn new(counts: &PageCounts) -> (Pages, usize) {
        let is_full = |n: &u32| *n as usize >= PAGE_KEYS / FULL_PART;
        let n_all = counts.0.iter().rposition(is_full).map_or(0, |last| last + 1);
        let counts = counts.0.iter().take(n_all);
        let page = |n| is_full(n).then(|| Page { slots: vec![0; PAGE_KEYS], n_used: 0 });
        let pages: Vec<_> = counts.clone().map(page).collect();
        let n_pages = pages.iter().flatten().count();
        (Pages { pages, n_pages, n_used: 0 }, counts.filter(|n| is_full(n)).map(|n| *n as usize).sum())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.n_pages == 0
    }

    /// How many keys have a slot.
    pub(super) fn n_used(&self) -> usize {
        self.n_used
    }

    pub(super) fn bytes(&self) -> usize {
        self.n_pages * PAGE_KEYS * size_of::<u32>() + self.pages.capacity() * size_of::<Option<Page>>()
    }

    /// The slot of a key, or `NONE`. None: the key has no page.
    #[inline]
    pub(super) fn get(&self, word: u64) -> Option<u32> {
        let (idx, offset) = place(word);
        self.pages.get(idx)?.as_ref()?.slots.get(offset).map(|slot| !slot)
    }

    #[inline]
    fn page_mut(&mut self, word: u64) -> Option<(&mut Page, usize)> {
        let (idx, offset) = place(word);
        Some((self.pages.get_mut(idx)?.as_mut()?, offset))
    }

    /// Sets the slot of a key and returns the one before, or `NONE`. None: the key has no page.
    #[inline]
    pub(super) fn put(&mut self, word: u64, slot: u32) -> Option<u32> {
        let (page, offset) = self.page_mut(word)?;
        let place = page.slots.get_mut(offset)?;
        let old = !std::mem::replace(place, !slot);
        let n_new = usize::from(old == NONE);
        page.n_used += n_new;
        self.n_used += n_new;
        Some(old)
    }

    /// Sets the slot of a key where it was `old`, and whether it was. None: the key has no page.
    pub(super) fn replace(&mut self, word: u64, old: u32, new: u32) -> Option<bool> {
        let (page, offset) = self.page_mut(word)?;
        let place = page.slots.get_mut(offset).filter(|place| **place == !old);
        Some(place.map(|place| *place = !new).is_some())
    }

    /// Takes the slot of a key where it was `slot`, and whether it was. None: the key has no page.
    pub(super) fn remove(&mut self, word: u64, slot: u32) -> Option<bool> {
        let (page, offset) = self.page_mut(word)?;
        let place = page.slots.get_mut(offset).filter(|place| **place == !slot);
        let was_there = place.map(|place| *place = 0).is_some();
        page.n_used -= usize::from(was_there);
        self.n_used -= usize::from(was_there);
        Some(was_there)
    }

    /// Gives up the page of a key, which has one, where few of its keys are left: these and their slots.
    pub(super) fn give_up(&mut self, word: u64) -> Vec<(u64, u32)> {
        let (idx, _) = place(word);
        let is_worn = |page: &mut Page| page.n_used * WORN_PART < PAGE_KEYS;
        let Some(page) = self.pages.get_mut(idx).and_then(|page| page.take_if(is_worn)) else { return vec![] };
        self.n_pages -= 1;
        self.n_used -= page.n_used;
        if self.n_pages == 0 {
            self.pages = vec![];
        }
        let first = (idx as u64) << PAGE_BITS;
        let entries = (first..).zip(page.slots).filter(|(_, slot)| *slot != 0);
        entries.map(|(word, slot)| (word, !slot)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_tell_their_words() {
        for word in (0..1 << 20).chain((0..64).map(|bit| 1 << bit)).chain([u32::MAX.into(), u64::MAX, 0x8000_0001]) {
            assert_eq!(unscrambled(scrambled(word)), word);
            assert_eq!(scrambled(word) as u32 == 0, word <= u32::MAX.into());
        }
    }
}
