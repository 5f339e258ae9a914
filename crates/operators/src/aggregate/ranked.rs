//! An ordered multiset that knows ranks: what percentiles, `mode()` and hypothetical ranks need when rows can leave.
//!
//! A few values are one sorted list. More of them are a treap (a search tree by value, a heap by random priority) whose
//! nodes sum up what is below them: rows, distinct values, and the largest count. A change, the n-th row, the rank of a
//! value and the most frequent value cost O(log n) each.
//!
//! Source: Seidel and Aragon, "Randomized search trees" (1996). The priorities come from a counter, so that the same
//! changes make the same tree.
#![expect(clippy::indexing_slicing, reason = "nodes refer to each other by numbers that this file gives out")]

use std::cmp::Ordering;

/// Up to this many distinct values are kept in one sorted list.
const SMALL_LEN_MAX: usize = 32;
/// No node.
const NIL: u32 = u32::MAX;

/// Values and how often each is there. A count may be negative for a while within a step.
#[derive(Debug)]
pub(super) enum Ranked<V> {
    Small(Vec<(V, i64)>),
    Large(Tree<V>),
}

impl<V> Default for Ranked<V> {
    fn default() -> Self {
        Ranked::Small(vec![])
    }
}

/// How many rows and how many distinct values come before a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rank {
    pub(super) n_rows: i64,
    pub(super) n_values: i64,
}

impl<V: Ord + Default> Ranked<V> {
    /// Adds `weight` copies of `value`. Returns by how much the number of distinct values changed.
    pub(super) fn add(&mut self, value: V, weight: i64) -> isize {
        match self {
            Ranked::Small(list) => match list.binary_search_by(|(v, _)| v.cmp(&value)) {
                Ok(idx) => {
                    list[idx].1 += weight;
                    if list[idx].1 == 0 {
                        list.remove(idx);
                        return -1;
                    }
                    0
                }
                Err(idx) => {
                    list.insert(idx, (value, weight));
                    if list.len() > SMALL_LEN_MAX {
                        let mut tree = Tree::default();
                        for (value, count) in std::mem::take(list) {
                            tree.add(value, count);
                        }
                        *self = Ranked::Large(tree);
                    }
                    1
                }
            },
            Ranked::Large(tree) => {
                let change = tree.add(value, weight);
                if tree.root == NIL {
                    *self = Ranked::default();
                }
                change
            }
        }
    }

    /// Rows, copies counted.
    pub(super) fn n_rows(&self) -> i64 {
        match self {
            Ranked::Small(list) => list.iter().map(|(_, n)| n).sum(),
            Ranked::Large(tree) => tree.total(tree.root).n_rows,
        }
    }

    /// The value of row `n`, from 0.
    pub(super) fn nth(&self, n: i64) -> Option<&V> {
        match self {
            Ranked::Small(list) => {
                let mut end = 0;
                list.iter().find_map(|(value, count)| {
                    end += count;
                    (n < end).then_some(value)
                })
            }
            Ranked::Large(tree) => tree.nth(n),
        }
    }

    /// What comes before `value`.
    pub(super) fn rank(&self, value: &V) -> Rank {
        match self {
            Ranked::Small(list) => {
                let before = list.iter().take_while(|(v, _)| v < value);
                before.fold(Rank::default(), |r, (_, n)| Rank { n_rows: r.n_rows + n, n_values: r.n_values + 1 })
            }
            Ranked::Large(tree) => tree.rank(value),
        }
    }

    /// Copies of `value`.
    pub(super) fn count(&self, value: &V) -> i64 {
        match self {
            Ranked::Small(list) => list.binary_search_by(|(v, _)| v.cmp(value)).map_or(0, |idx| list[idx].1),
            Ranked::Large(tree) => tree.count(value),
        }
    }

    /// The most frequent value; the first in order of several.
    pub(super) fn most_frequent(&self) -> Option<&V> {
        match self {
            Ranked::Small(list) => {
                let most = list.iter().map(|(_, n)| *n).max()?;
                list.iter().find(|(_, n)| *n == most).map(|(v, _)| v)
            }
            Ranked::Large(tree) => tree.most_frequent(),
        }
    }

    /// About the bytes of `n_groups` multisets that hold `n_values` in all; what the values point to apart.
    pub(super) fn estimated_bytes(n_groups: usize, n_values: usize) -> usize {
        // A tree's list of nodes grows by doubling.
        n_groups * size_of::<Self>() + n_values * size_of::<Node<V>>() * 3 / 2
    }
}

#[derive(Debug)]
pub(super) struct Tree<V> {
    nodes: Vec<Node<V>>,
    free: Vec<u32>,
    root: u32,
    n_made: u64,
}

#[derive(Debug)]
struct Node<V> {
    value: V,
    count: i64,
    /// Of the node and all below it.
    n_rows: i64,
    most: i64,
    n_values: u32,
    priority: u32,
    left: u32,
    right: u32,
}

struct Total {
    n_rows: i64,
    n_values: u32,
    most: i64,
}

impl<V> Default for Tree<V> {
    fn default() -> Self {
        Tree { nodes: vec![], free: vec![], root: NIL, n_made: 0 }
    }
}

impl<V: Ord + Default> Tree<V> {
    fn node(&self, id: u32) -> &Node<V> {
        &self.nodes[id as usize]
    }

    fn node_mut(&mut self, id: u32) -> &mut Node<V> {
        &mut self.nodes[id as usize]
    }

    fn total(&self, id: u32) -> Total {
        match self.nodes.get(id as usize) {
            None => Total { n_rows: 0, n_values: 0, most: i64::MIN },
            Some(node) => Total { n_rows: node.n_rows, n_values: node.n_values, most: node.most },
        }
    }

    /// Sums up a node from its children.
    fn update(&mut self, id: u32) {
        let (left, right) = (self.total(self.node(id).left), self.total(self.node(id).right));
        let node = self.node_mut(id);
        node.n_rows = node.count + left.n_rows + right.n_rows;
        node.n_values = 1 + left.n_values + right.n_values;
        node.most = node.count.max(left.most).max(right.most);
    }

    fn make(&mut self, value: V, count: i64) -> u32 {
        // The upper half of a Weyl sequence through a multiplication (splitmix64's finisher).
        self.n_made += 1;
        let mixed = self.n_made.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let priority = (mixed >> 32) as u32;
        let node = Node { value, count, n_rows: count, most: count, n_values: 1, priority, left: NIL, right: NIL };
        match self.free.pop() {
            Some(id) => {
                *self.node_mut(id) = node;
                id
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        }
    }

    fn add(&mut self, value: V, weight: i64) -> isize {
        if self.change(self.root, &value, weight) {
            return 0;
        }
        let (before, rest) = self.split(self.root, &value, false);
        let (same, after) = self.split(rest, &value, true);
        let (same, change) = if same == NIL {
            (self.make(value, weight), 1)
        } else {
            self.node_mut(same).value = V::default();
            self.free.push(same);
            (NIL, -1)
        };
        let left = self.merge(before, same);
        self.root = self.merge(left, after);
        change
    }

    /// Adds to the count of a value that is there and stays. Returns whether it did.
    fn change(&mut self, id: u32, value: &V, weight: i64) -> bool {
        if id == NIL {
            return false;
        }
        let node = self.node(id);
        let done = match value.cmp(&node.value) {
            Ordering::Less => self.change(node.left, value, weight),
            Ordering::Greater => self.change(node.right, value, weight),
            Ordering::Equal if node.count + weight == 0 => false,
            Ordering::Equal => {
                self.node_mut(id).count += weight;
                true
            }
        };
        if done {
            self.update(id);
        }
        done
    }

    /// The nodes before `value` and the others; `value` itself goes to the first part where `is_included`.
    fn split(&mut self, id: u32, value: &V, is_included: bool) -> (u32, u32) {
        if id == NIL {
            return (NIL, NIL);
        }
        let is_before = match self.node(id).value.cmp(value) {
            Ordering::Less => true,
            Ordering::Equal => is_included,
            Ordering::Greater => false,
        };
        if is_before {
            let (middle, after) = self.split(self.node(id).right, value, is_included);
            self.node_mut(id).right = middle;
            self.update(id);
            (id, after)
        } else {
            let (before, middle) = self.split(self.node(id).left, value, is_included);
            self.node_mut(id).left = middle;
            self.update(id);
            (before, id)
        }
    }

    /// Joins two trees; all of the first come before all of the second.
    fn merge(&mut self, a: u32, b: u32) -> u32 {
        if a == NIL || b == NIL {
            return if a == NIL { b } else { a };
        }
        if self.node(a).priority >= self.node(b).priority {
            let right = self.merge(self.node(a).right, b);
            self.node_mut(a).right = right;
            self.update(a);
            a
        } else {
            let left = self.merge(a, self.node(b).left);
            self.node_mut(b).left = left;
            self.update(b);
            b
        }
    }

    fn nth(&self, mut n: i64) -> Option<&V> {
        let mut id = self.root;
        while let Some(node) = self.nodes.get(id as usize) {
            let n_left = self.total(node.left).n_rows;
            if n < n_left {
                id = node.left;
            } else if n < n_left + node.count {
                return Some(&node.value);
            } else {
                n -= n_left + node.count;
                id = node.right;
            }
        }
        None
    }

    fn rank(&self, value: &V) -> Rank {
        let mut rank = Rank::default();
        let mut id = self.root;
        while let Some(node) = self.nodes.get(id as usize) {
            if node.value < *value {
                let left = self.total(node.left);
                rank.n_rows += left.n_rows + node.count;
                rank.n_values += i64::from(left.n_values) + 1;
                id = node.right;
            } else {
                id = node.left;
            }
        }
        rank
    }

    fn count(&self, value: &V) -> i64 {
        let mut id = self.root;
        while let Some(node) = self.nodes.get(id as usize) {
            match value.cmp(&node.value) {
                Ordering::Less => id = node.left,
                Ordering::Greater => id = node.right,
                Ordering::Equal => return node.count,
            }
        }
        0
    }

    fn most_frequent(&self) -> Option<&V> {
        let most = self.total(self.root).most;
        let mut id = self.root;
        while let Some(node) = self.nodes.get(id as usize) {
            if self.total(node.left).most == most {
                id = node.left;
            } else if node.count == most {
                return Some(&node.value);
            } else {
                id = node.right;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::testing::Random;

    #[test]
    fn it_answers_as_a_sorted_list_does() {
        for (seed, n_values) in [(1, 5), (2, 40), (3, 500)] {
            let mut random = Random::new(seed);
            let mut ranked = Ranked::<i64>::default();
            let mut plain = BTreeMap::<i64, i64>::new();
            for _ in 0..3000 {
                let value = random.below(n_values) as i64;
                let weight = random.below(5) as i64 - 2;
                if weight == 0 {
                    continue;
                }
                let before = plain.len();
                let count = plain.entry(value).or_default();
                *count += weight;
                // Within a step a count may be negative; here it is answered for only when it is not.
                if *count < 0 {
                    *count -= weight;
                    plain.retain(|_, n| *n != 0);
                    continue;
                }
                plain.retain(|_, n| *n != 0);
                assert_eq!(ranked.add(value, weight), plain.len() as isize - before as isize);
                check(&ranked, &plain, random.below(n_values) as i64);
            }
            for (value, count) in std::mem::take(&mut plain) {
                ranked.add(value, -count);
            }
            assert!(matches!(ranked, Ranked::Small(list) if list.is_empty()));
        }
    }

    fn check(ranked: &Ranked<i64>, plain: &BTreeMap<i64, i64>, probe: i64) {
        let rows: Vec<i64> = plain.iter().flat_map(|(v, n)| vec![*v; *n as usize]).collect();
        assert_eq!(ranked.n_rows(), rows.len() as i64);
        let n = probe % (rows.len() as i64 + 1);
        assert_eq!(ranked.nth(n), rows.get(n as usize));
        let before = plain.range(..probe);
        let expected = Rank { n_rows: before.clone().map(|(_, n)| n).sum(), n_values: before.count() as i64 };
        assert_eq!(ranked.rank(&probe), expected);
        assert_eq!(ranked.count(&probe), plain.get(&probe).copied().unwrap_or(0));
        let most = plain.iter().max_by_key(|(v, n)| (**n, -**v)).map(|(v, _)| v);
        assert_eq!(ranked.most_frequent(), most);
    }
}
