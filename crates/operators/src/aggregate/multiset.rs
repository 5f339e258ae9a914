//! An ordered multiset: what min and max need when rows can leave.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Up to this many distinct values are kept in one sorted list.
const SMALL_LEN_MAX: usize = 32;

/// Values and how often each is there. A count may be negative for a while within a step.
#[derive(Debug)]
pub(super) enum Multiset<V> {
    Small(Vec<(V, i64)>),
    Large(BTreeMap<V, i64>),
}

impl<V> Default for Multiset<V> {
    fn default() -> Self {
        Multiset::Small(vec![])
    }
}

impl<V: Ord> Multiset<V> {
    /// Adds `weight` copies of `value`. Returns by how much the number of distinct values changed.
    pub(super) fn add(&mut self, value: V, weight: i64) -> isize {
        match self {
            Multiset::Small(list) => match list.binary_search_by(|(v, _)| v.cmp(&value)) {
                Ok(idx) => {
                    let is_gone = list.get_mut(idx).is_some_and(|(_, count)| {
                        *count += weight;
                        *count == 0
                    });
                    if is_gone {
                        list.remove(idx);
                        return -1;
                    }
                    0
                }
                Err(idx) => {
                    list.insert(idx, (value, weight));
                    if list.len() > SMALL_LEN_MAX {
                        *self = Multiset::Large(std::mem::take(list).into_iter().collect());
                    }
                    1
                }
            },
            Multiset::Large(map) => match map.entry(value) {
                Entry::Vacant(place) => {
                    place.insert(weight);
                    1
                }
                Entry::Occupied(mut place) => {
                    *place.get_mut() += weight;
                    if *place.get() != 0 {
                        return 0;
                    }
                    place.remove();
                    if map.is_empty() {
                        *self = Multiset::default();
                    }
                    -1
                }
            },
        }
    }

    /// The least value.
    pub(super) fn first(&self) -> Option<&V> {
        match self {
            Multiset::Small(list) => list.first().map(|(v, _)| v),
            Multiset::Large(map) => map.first_key_value().map(|(v, _)| v),
        }
    }

    /// The greatest value.
    pub(super) fn last(&self) -> Option<&V> {
        match self {
            Multiset::Small(list) => list.last().map(|(v, _)| v),
            Multiset::Large(map) => map.last_key_value().map(|(v, _)| v),
        }
    }

    /// All values with their counts, in order.
    pub(super) fn iter(&self) -> Box<dyn Iterator<Item = (&V, i64)> + '_> {
        match self {
            Multiset::Small(list) => Box::new(list.iter().map(|(v, n)| (v, *n))),
            Multiset::Large(map) => Box::new(map.iter().map(|(v, n)| (v, *n))),
        }
    }

    /// About the bytes of `n_groups` multisets that hold `n_values` in all; what the values point to apart. An estimate,
    /// because every step asks and must not walk over all groups.
    pub(super) fn estimated_bytes(n_groups: usize, n_values: usize) -> usize {
        // Lists and B-tree nodes are about two thirds full.
        n_groups * size_of::<Self>() + n_values * size_of::<(V, i64)>() * 3 / 2
    }
}
