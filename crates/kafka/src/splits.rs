//! How far a reader is in each partition of its topic.
//!
//! Invariant: the position of a partition never goes back, and never beyond its end where it has one; the records
//! from a batch's first position up to its position are exactly those that the batch accounts for.

use tidewire_connect::{Position, Positions, ReadMode, Split};

use crate::probe;

/// The partitions of one reader.
#[derive(Debug, Default)]
pub(crate) struct Splits {
    /// By partition; None for those that this reader does not read.
    by_partition: Vec<Option<Progress>>,
    n_open: usize,
    bounded: bool,
    /// Partitions that came to their ends since this was last asked.
    ended: Vec<Split>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Of the next record; None at the beginning of a partition whose first offset is not known.
    next: Option<Position>,
    /// Where the current batch began in this partition, if it has touched it.
    first: Option<Position>,
    /// Exclusive, for a bounded reader.
    end: Option<Position>,
    /// What the next record to arrive will get, as far as known.
    high: Position,
    done: bool,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is this reader's.
    Take(Split),
    /// It lies beyond the end, was read before, or belongs to no partition of this reader.
    Drop,
}

impl Splits {
    pub(crate) fn new(positions: &Positions, mode: &ReadMode) -> Splits {
        let mut splits = Splits::default();
        match mode {
            ReadMode::Follow => {
                for (split, position) in positions {
                    splits.add(*split, Some(*position), None);
                }
            }
            ReadMode::Until(ends) => {
                splits.bounded = true;
                for (split, end) in ends {
                    splits.add(*split, positions.get(split).copied(), Some(*end));
                }
            }
        }
        splits
    }

    /// Adds a partition, unless it is there. False if it was.
    pub(crate) fn add(&mut self, split: Split, next: Option<Position>, end: Option<Position>) -> bool {
        let Ok(idx) = usize::try_from(probe::partition(split)) else { return false };
        if self.by_partition.len() <= idx {
            self.by_partition.resize(idx + 1, None);
        }
        let Some(slot @ None) = self.by_partition.get_mut(idx) else { return false };
        // An end of 0 has nothing before it, whatever the position.
        let done = end.is_some_and(|end| next.unwrap_or(0) >= end);
        *slot = Some(Progress { next, first: None, end, high: next.unwrap_or(0), done });
        self.n_open += usize::from(!done);
        true
    }

    /// The partitions still to be read, and from where (None: from their first record).
    pub(crate) fn open(&self) -> impl Iterator<Item = (Split, Option<Position>)> {
        self.each().filter(|(_, p)| !p.done).map(|(split, p)| (split, p.next))
    }

    /// A bounded reader has nothing more to read.
    pub(crate) fn finished(&self) -> bool {
        self.bounded && self.n_open == 0
    }

    /// Whether new partitions of the topic are to be read too.
    pub(crate) fn follows(&self) -> bool {
        !self.bounded
    }

    /// A record came. If it is to be taken, the position is after it.
    #[inline]
    pub(crate) fn record(&mut self, partition: i32, offset: Position) -> Verdict {
        let Some(progress) = self.progress(partition) else { return Verdict::Drop };
        if progress.done || progress.next.is_some_and(|next| offset < next) {
            return Verdict::Drop;
        }
        if progress.end.is_some_and(|end| offset >= end) {
            self.reach(partition, offset);
            return Verdict::Drop;
        }
        progress.first.get_or_insert(offset);
        progress.next = Some(offset + 1);
        if progress.end == Some(offset + 1) {
            self.finish(partition);
        }
        probe::split(partition).map_or(Verdict::Drop, Verdict::Take)
    }

    /// The record that was taken last is not accounted for after all: its partition stays before it.
    pub(crate) fn give_back(&mut self, split: Split, position: Position) {
        let Some(progress) = self.progress(probe::partition(split)) else { return };
        progress.next = Some(position);
        progress.first = progress.first.filter(|first| *first < position);
        if std::mem::take(&mut progress.done) {
            self.n_open += 1;
            self.ended.retain(|ended| *ended != split);
        }
    }

    /// Nothing but control records, aborted ones and gaps lies before `offset`: the end of a partition was met there,
    /// or a record further on.
    pub(crate) fn reach(&mut self, partition: i32, offset: Position) {
        let Some(progress) = self.progress(partition) else { return };
        if progress.done {
            return;
        }
        progress.high = progress.high.max(offset);
        let offset = progress.end.map_or(offset, |end| end.min(offset));
        if progress.next.is_none_or(|next| next < offset) {
            progress.first.get_or_insert(progress.next.unwrap_or(offset));
            progress.next = Some(offset);
        }
        if progress.end.is_some_and(|end| progress.next >= Some(end)) {
            self.finish(partition);
        }
    }

    /// The brokers said what offset the next record of a partition will get.
    pub(crate) fn set_high(&mut self, split: Split, high: Position) {
        if let Some(progress) = self.progress(probe::partition(split)) {
            progress.high = progress.high.max(high);
        }
    }

    /// Positions after the current batch, and before it, of the partitions that it touched; begins the next batch.
    pub(crate) fn cut(&mut self) -> (Positions, Positions) {
        let (mut positions, mut first_positions) = (Positions::new(), Positions::new());
        for (partition, progress) in self.by_partition.iter_mut().enumerate() {
            let Some(progress) = progress else { continue };
            if let (Some(first), Some(next), Ok(split)) =
                (progress.first.take(), progress.next, u32::try_from(partition))
            {
                positions.insert(Split(split), next);
                first_positions.insert(Split(split), first);
            }
        }
        (positions, first_positions)
    }

    /// What the next record of each partition will get, as far as known.
    pub(crate) fn ends(&self) -> Positions {
        self.each().map(|(split, p)| (split, p.high.max(p.next.unwrap_or(0)))).collect()
    }

    /// All partitions of this reader.
    pub(crate) fn all(&self) -> impl Iterator<Item = Split> {
        self.each().map(|(split, _)| split)
    }

    /// Partitions that came to their ends since the last call.
    pub(crate) fn take_ended(&mut self) -> Vec<Split> {
        std::mem::take(&mut self.ended)
    }

    fn finish(&mut self, partition: i32) {
        if let Some(progress) = self.progress(partition) {
            progress.done = true;
            self.n_open -= 1;
            self.ended.extend(probe::split(partition));
        }
    }

    #[inline]
    fn progress(&mut self, partition: i32) -> Option<&mut Progress> {
        self.by_partition.get_mut(usize::try_from(partition).ok()?)?.as_mut()
    }

    fn each(&self) -> impl Iterator<Item = (Split, &Progress)> {
        (0..).zip(&self.by_partition).filter_map(|(idx, progress)| Some((Split(idx), progress.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pairs: &[(u32, i64)]) -> Positions {
        pairs.iter().map(|(split, position)| (Split(*split), *position)).collect()
    }

    #[test]
    fn a_bounded_reader_takes_what_lies_before_the_end_and_no_more() {
        let mut splits = Splits::new(&at(&[(0, 5), (1, 0), (2, 9)]), &ReadMode::Until(at(&[(0, 7), (1, 3), (2, 9)])));
        assert_eq!(splits.open().map(|(s, _)| s.0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(splits.record(0, 4), Verdict::Drop, "before the position");
        assert_eq!(splits.record(0, 5), Verdict::Take(Split(0)));
        assert_eq!(splits.record(0, 6), Verdict::Take(Split(0)));
        assert_eq!(splits.record(0, 7), Verdict::Drop, "beyond the end");
        assert_eq!(splits.take_ended(), [Split(0)]);
        assert_eq!(splits.cut(), (at(&[(0, 7)]), at(&[(0, 5)])));
        assert!(!splits.finished());
        assert_eq!(splits.record(1, 0), Verdict::Take(Split(1)));
        // Offsets 1 and 2 were compacted away: a later record says so.
        assert_eq!(splits.record(1, 8), Verdict::Drop);
        assert!(splits.finished());
        assert_eq!(splits.cut(), (at(&[(1, 3)]), at(&[(1, 0)])));
    }

    #[test]
    fn the_end_of_a_partition_finishes_what_only_control_records_are_left_of() {
        let mut splits = Splits::new(&at(&[(0, 0)]), &ReadMode::Until(at(&[(0, 4)])));
        assert_eq!(splits.record(0, 0), Verdict::Take(Split(0)));
        splits.reach(0, 3);
        assert!(!splits.finished(), "a record may still come at 3");
        splits.reach(0, 4);
        assert!(splits.finished());
        assert_eq!(splits.cut(), (at(&[(0, 4)]), at(&[(0, 0)])));
    }

    #[test]
    fn a_record_given_back_stays_before_the_position() {
        let mut splits = Splits::new(&at(&[(0, 0)]), &ReadMode::Until(at(&[(0, 2)])));
        splits.record(0, 0);
        splits.record(0, 1);
        splits.give_back(Split(0), 1);
        assert!(!splits.finished());
        assert_eq!(splits.cut(), (at(&[(0, 1)]), at(&[(0, 0)])));
        splits.record(0, 1);
        splits.give_back(Split(0), 1);
        assert_eq!(splits.cut(), (at(&[]), at(&[])));
    }

    #[test]
    fn following_goes_on_and_knows_the_lag() {
        let mut splits = Splits::new(&at(&[(0, 2)]), &ReadMode::Follow);
        assert!(splits.add(Split(1), None, None));
        assert!(!splits.add(Split(0), None, None), "it is there");
        splits.set_high(Split(0), 10);
        assert_eq!(splits.record(0, 2), Verdict::Take(Split(0)));
        assert_eq!(splits.record(1, 100), Verdict::Take(Split(1)));
        assert_eq!(splits.record(7, 0), Verdict::Drop);
        assert_eq!(splits.ends(), at(&[(0, 10), (1, 101)]));
        assert_eq!(splits.cut(), (at(&[(0, 3), (1, 101)]), at(&[(0, 2), (1, 100)])));
        assert_eq!(splits.cut(), (at(&[]), at(&[])));
        splits.reach(0, 10);
        assert_eq!(splits.cut(), (at(&[(0, 10)]), at(&[(0, 3)])));
        assert!(!splits.finished());
    }
}
