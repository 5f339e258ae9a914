//! What is known of the rows of each node: never removed, unique keys.
//!
//! Invariant: a property is only claimed where it holds at every moment; not knowing costs speed, claiming wrongly
//! costs results.

use tidewire_operators::arrangement::Identity;
use tidewire_operators::join::Kind;

use crate::dataflow::Properties;

/// More sets than this are forgotten: each join multiplies them.
const KEYS_MAX: usize = 8;

impl Properties {
    pub(crate) fn new(append_only: bool, unique_keys: Vec<Vec<usize>>) -> Properties {
        let mut kept: Vec<Vec<usize>> = vec![];
        let mut candidates = unique_keys;
        for key in &mut candidates {
            key.sort_unstable();
            key.dedup();
        }
        candidates.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        for key in candidates {
            // A set that contains a smaller unique one says nothing new.
            if kept.len() < KEYS_MAX && !kept.iter().any(|k| k.iter().all(|column| key.contains(column))) {
                kept.push(key);
            }
        }
        Properties { append_only, unique_keys: kept, determined: vec![] }
    }

    /// Those of a table with this primary key.
    pub(crate) fn of_table(primary_key: &[usize], n_columns: usize) -> Properties {
        let determined = vec![(primary_key.to_vec(), (0..n_columns).collect())];
        Properties { determined, ..Properties::new(false, vec![primary_key.to_vec()]) }
    }

    fn with_determined(self, determined: Vec<(Vec<usize>, Vec<usize>)>) -> Properties {
        let told = determined.into_iter().filter(|(_, columns)| !columns.is_empty()).take(KEYS_MAX);
        Properties { determined: told.collect(), ..self }
    }

    /// How a relation with these properties tells its rows apart.
    pub(crate) fn identity(&self) -> Identity {
        match (self.append_only, self.unique_keys.first()) {
            (true, _) => Identity::AppendOnly,
            (false, Some(key)) => Identity::UniqueKey(key.clone()),
            (false, None) => Identity::Bag,
        }
    }

    /// No two rows share the values of `columns`.
    pub(crate) fn unique_on(&self, columns: &[usize]) -> bool {
        self.unique_keys.iter().any(|key| key.iter().all(|column| columns.contains(column)))
    }

    /// After a projection: `columns[i]` is the input's column that output column `i` is a copy of.
    pub(crate) fn project(&self, columns: &[Option<usize>]) -> Properties {
        let renamed = |key: &Vec<usize>| {
            key.iter().map(|column| columns.iter().position(|c| *c == Some(*column))).collect::<Option<Vec<_>>>()
        };
        let unique_keys = self.unique_keys.iter().filter_map(renamed).collect();
        Properties::new(self.append_only, unique_keys).with_determined(self.determined_by(columns))
    }

    /// Which columns determine others after a projection.
    fn determined_by(&self, columns: &[Option<usize>]) -> Vec<(Vec<usize>, Vec<usize>)> {
        let copies = |column: &usize| {
            let copies = columns.iter().enumerate().filter(move |(_, c)| **c == Some(*column));
            copies.map(|(idx, _)| idx).collect::<Vec<_>>()
        };
        let renamed = |(key, others): &(Vec<usize>, Vec<usize>)| {
            let key = key.iter().map(|column| copies(column).first().copied()).collect::<Option<Vec<_>>>()?;
            Some((key, others.iter().flat_map(copies).collect()))
        };
        self.determined.iter().filter_map(renamed).collect()
    }

    /// GROUP BY; of each key the output column and the input's. Constants are none.
    pub(crate) fn aggregate(&self, keys: &[(usize, usize)], n_calls: usize) -> Properties {
        let mut telling = keys.to_vec();
        for (key, others) in &self.determined {
            if key.iter().all(|column| telling.iter().any(|(_, input)| input == column)) {
                telling.retain(|(_, input)| key.contains(input) || !others.contains(input));
            }
        }
        let width = keys.iter().map(|(output, _)| output + 1).max().unwrap_or(0);
        let mut columns = vec![None; width];
        for (output, input) in keys {
            if let Some(column) = columns.get_mut(*output) {
                *column = Some(*input);
            }
        }
        // DISTINCT over rows that stay never takes a row back.
        let append_only = self.append_only && n_calls == 0 && !keys.is_empty();
        let unique = telling.into_iter().map(|(output, _)| output).collect();
        Properties::new(append_only, vec![unique]).with_determined(self.determined_by(&columns))
    }

    /// ORDER BY .. LIMIT.
    pub(crate) fn top_n(&self, partition_by: &[usize], limit: Option<u64>) -> Properties {
        let mut keys = self.unique_keys.clone();
        if limit.is_some_and(|n| n <= 1) {
            keys.push(partition_by.to_vec());
        }
        Properties::new(false, keys).with_determined(self.determined.clone())
    }

    /// Set-returning functions; `kept` are the input's columns that come first, `number` the one that numbers the rows
    /// of each input row.
    pub(crate) fn flat_map(&self, kept: &[usize], number: Option<usize>) -> Properties {
        let columns: Vec<Option<usize>> = kept.iter().map(|column| Some(*column)).collect();
        let projected = self.project(&columns);
        let numbered =
            number.map(|number| projected.unique_keys.iter().map(|key| [&key[..], &[number]].concat()).collect());
        Properties::new(self.append_only, numbered.unwrap_or_default()).with_determined(projected.determined)
    }

    /// UNION ALL.
    pub(crate) fn union<'a>(mut inputs: impl Iterator<Item = &'a Properties>) -> Properties {
        Properties::new(inputs.all(|p| p.append_only), vec![])
    }
}

/// A join of `left`, which has `n_left` columns, with `right`, on `left_keys` = `right_keys`.
pub(crate) fn join(
    kind: Kind,
    left: &Properties,
    right: &Properties,
    n_left: usize,
    left_keys: &[usize],
    right_keys: &[usize],
) -> Properties {
    let append_only = left.append_only && right.append_only && matches!(kind, Kind::Inner | Kind::LeftSemi);
    let unique_keys = match kind {
        Kind::LeftSemi | Kind::LeftAnti | Kind::LeftMark => left.unique_keys.clone(),
        // Unmatched rows of both sides could share a NULL key.
        Kind::Full => vec![],
        Kind::Inner | Kind::Left | Kind::Right => {
            let shift = |key: &Vec<usize>| key.iter().map(|c| c + n_left).collect::<Vec<_>>();
            let mut keys = vec![];
            if right.unique_on(right_keys) && kind != Kind::Right {
                keys.extend(left.unique_keys.iter().cloned());
            }
            if left.unique_on(left_keys) && kind != Kind::Left {
                keys.extend(right.unique_keys.iter().map(shift));
            }
            for l in &left.unique_keys {
                keys.extend(right.unique_keys.iter().map(|r| l.iter().copied().chain(shift(r)).collect()));
            }
            keys
        }
    };
    let shifted = |columns: &[usize]| columns.iter().map(|column| column + n_left).collect::<Vec<_>>();
    let mut determined = left.determined.clone();
    // Where a side has no row, all of its columns are NULL; no row of a table has a NULL in its primary key.
    if !matches!(kind, Kind::LeftSemi | Kind::LeftAnti | Kind::LeftMark) {
        determined.extend(right.determined.iter().map(|(key, others)| (shifted(key), shifted(others))));
    }
    if kind == Kind::Inner {
        // Columns that are equal are one as well as the other.
        let pairs: Vec<(usize, usize)> = left_keys.iter().copied().zip(shifted(right_keys)).collect();
        let other = |column: &usize| {
            let pair = pairs.iter().find(|(left, right)| left == column || right == column);
            pair.map_or(*column, |(left, right)| if left == column { *right } else { *left })
        };
        let renamed = determined.iter().map(|(key, others)| (key.iter().map(other).collect(), others.clone()));
        let renamed: Vec<(Vec<usize>, Vec<usize>)> = renamed.filter(|renamed| !determined.contains(renamed)).collect();
        determined.extend(renamed);
    }
    Properties::new(append_only, unique_keys).with_determined(determined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_on_a_key_keeps_the_other_sides_keys() {
        let facts = Properties::new(true, vec![vec![0]]);
        let dims = Properties::new(false, vec![vec![1]]);
        let inner = join(Kind::Inner, &facts, &dims, 3, &[2], &[1]);
        assert_eq!(inner, Properties { append_only: false, unique_keys: vec![vec![0]], determined: vec![] });
        let left = join(Kind::Left, &facts, &dims, 3, &[2], &[0]);
        assert_eq!(left.unique_keys, vec![vec![0, 4]]);
        let full = join(Kind::Full, &facts, &dims, 3, &[2], &[1]);
        assert_eq!(full.identity(), Identity::Bag);
        let right = join(Kind::Right, &facts, &dims, 3, &[2], &[1]);
        assert_eq!(right.unique_keys, vec![vec![0, 4]]);
    }

    #[test]
    fn a_projection_loses_keys_that_it_drops() {
        let p = Properties::new(false, vec![vec![0, 1], vec![2], vec![2, 3]]);
        assert_eq!(p.unique_keys.len(), 2);
        assert_eq!(p.project(&[Some(2), None]).unique_keys, vec![vec![0]]);
        assert_eq!(p.project(&[Some(1), Some(0)]).unique_keys, vec![vec![0, 1]]);
        assert_eq!(p.aggregate(&[], 1).unique_keys, vec![Vec::<usize>::new()]);
    }

    #[test]
    fn groups_by_a_primary_key_and_what_hangs_on_it_are_told_apart_by_the_key() {
        let users = Properties::of_table(&[0], 3);
        let orders = Properties::of_table(&[1], 2);
        for kind in [Kind::Left, Kind::Right, Kind::Full] {
            let joined = join(kind, &users, &orders, 3, &[0], &[0]);
            // GROUP BY users.name, users.id, orders.user, and by orders' key too.
            assert_eq!(joined.aggregate(&[(0, 1), (1, 0), (2, 3)], 1).unique_keys, vec![vec![1, 2]]);
            let both = joined.aggregate(&[(0, 1), (1, 0), (2, 3), (3, 4)], 1);
            assert_eq!(both.unique_keys, vec![vec![1, 3]]);
            assert_eq!(both.determined, vec![(vec![1], vec![1, 0]), (vec![3], vec![2, 3])]);
            assert_eq!(joined.aggregate(&[(0, 1), (1, 2)], 1).unique_keys, vec![vec![0, 1]]);
            let named = joined.project(&[Some(1), Some(0), None, Some(1)]);
            assert_eq!(named.determined, vec![(vec![1], vec![1, 0, 3])]);
        }
        // What is equal to the key determines as much.
        let inner = join(Kind::Inner, &users, &orders, 3, &[0], &[0]);
        assert_eq!(inner.aggregate(&[(0, 1), (1, 3)], 1).unique_keys, vec![vec![1]]);
        assert_eq!(inner.aggregate(&[(0, 1), (1, 0), (2, 3)], 1).unique_keys, vec![vec![2]]);
        assert_eq!(
            join(Kind::Left, &users, &orders, 3, &[0], &[0]).aggregate(&[(0, 1), (1, 3)], 1).unique_keys,
            vec![vec![0, 1]]
        );
        let some = join(Kind::LeftSemi, &users, &orders, 3, &[0], &[0]);
        assert_eq!(some.determined, users.determined);
    }
}
