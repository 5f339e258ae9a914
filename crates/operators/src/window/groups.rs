//! The groups of peers around a run of rows.

use std::ops::Range;

use super::partition::Partition;

/// Consecutive groups of a partition.
pub(super) struct Groups {
    /// Where each begins, and where the last one ends.
    bounds: Vec<usize>,
    /// Those of the rows that are evaluated.
    own: Range<usize>,
    /// The group of each of these rows.
    of_row: Vec<usize>,
}

impl Groups {
    /// The groups of the rows at `places` (not empty), with so many before and behind them.
    pub(super) fn new(partition: &Partition, places: Range<usize>, n_before: usize, n_behind: usize) -> Groups {
        let mut before = vec![];
        let peers = |place: usize| partition.row(place).map(|r| r.peers()).unwrap_or_default();
        let mut start = partition.group_start(peers(places.start));
        let first = start;
        while start > 0 && before.len() < n_before {
            start = partition.group_start(peers(start - 1));
            before.push(start);
        }
        before.reverse();
        let mut bounds = before;
        let own_start = bounds.len();
        bounds.push(first);
        let mut of_row = Vec::with_capacity(places.len());
        let mut last: &[u8] = &[];
        for (place, row) in places.clone().zip(partition.rows(places.clone())) {
            if place > places.start && row.peers() != last {
                bounds.push(place);
            }
            last = row.peers();
            of_row.push(bounds.len() - 1);
        }
        let own = own_start..bounds.len();
        let mut end = partition.group_end(last);
        let mut n = 0;
        while end < partition.len() && n < n_behind {
            bounds.push(end);
            end = partition.group_end(peers(end));
            n += 1;
        }
        bounds.push(end);
        Groups { bounds, own, of_row }
    }

    /// The group of a row, counted from the first row that is evaluated.
    pub(super) fn of_row(&self, row_idx: usize) -> usize {
        self.of_row.get(row_idx).copied().unwrap_or(0)
    }

    /// The places of a group.
    pub(super) fn places(&self, group: usize) -> Range<usize> {
        let at = |idx: usize| self.bounds.get(idx).copied().unwrap_or(0);
        at(group)..at(group + 1)
    }

    /// The groups of the rows that are evaluated.
    pub(super) fn own(&self) -> Range<usize> {
        self.own.clone()
    }

    /// Where the group begins that is `distance` behind `group`; 0 or `len` where there is none so far away.
    pub(super) fn start_of(&self, group: usize, distance: i64, len: usize) -> usize {
        match i64::try_from(group).unwrap_or(i64::MAX).saturating_add(distance) {
            at if at < 0 => 0,
            at => match usize::try_from(at) {
                // The last bound is the end of the last group.
                Ok(at) if at + 1 < self.bounds.len() => self.places(at).start,
                _ => len,
            },
        }
    }

    /// Where that group ends.
    pub(super) fn end_of(&self, group: usize, distance: i64, len: usize) -> usize {
        match i64::try_from(group).unwrap_or(i64::MAX).saturating_add(distance) {
            at if at < 0 => 0,
            at => match usize::try_from(at) {
                Ok(at) if at + 1 < self.bounds.len() => self.places(at).end,
                _ => len,
            },
        }
    }
}
