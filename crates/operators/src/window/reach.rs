//! Which rows a change can reach.
//!
//! A row that stays has another result only if a changed row lies in its frame, before the changes or after them, or (for
//! what counts rows from the partition's beginning) before it. Distances are taken in the old order, from the place where
//! a changed row is or would be: rows that came in between only bring others out of reach, and rows that left are
//! changes themselves.

use std::ops::Range;

use arrow::array::Array;
use datafusion::common::ScalarValue;
use tidewire_types::Result;

use super::frame::{Edge, Edges, Order};
use super::partition::{Partition, Row};
use super::range::Distance;
use super::{Arg, Call, Exclude, Function};

/// So many changes of so many rows, and everything is evaluated at once.
const FEW: usize = 8;

/// How far the calls of a window look.
#[derive(Default)]
pub(super) struct Reach {
    all_before: bool,
    all_after: bool,
    rows_before: usize,
    rows_after: usize,
    /// Groups before and after the changed row's own.
    groups: Option<(usize, usize)>,
    /// Rows whose value is so far behind or before.
    before: Vec<(Distance, bool)>,
    after: Vec<(Distance, bool)>,
    /// What counts rows: all after a change until as many came as went.
    is_counted: bool,
}

/// A run of rows to evaluate: its places before and after the changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) old: Range<usize>,
    pub(super) new: Range<usize>,
}

impl Reach {
    /// Adds what a call sees; `edges` are those of its frame.
    pub(super) fn add(&mut self, call: &Call, edges: &Edges) {
        match call.function {
            Function::RowNumber => self.is_counted = true,
            Function::Rank => {
                self.own_group();
                self.is_counted = true;
            }
            Function::DenseRank => {
                self.own_group();
                self.all_after = true;
            }
            Function::PercentRank | Function::CumeDist | Function::Ntile => self.everything(),
            Function::Lag => self.offset(call, 1),
            Function::Lead => self.offset(call, -1),
            Function::FirstValue | Function::LastValue | Function::NthValue | Function::Aggregate(_) => {
                self.frame(edges);
            }
        }
    }

    fn everything(&mut self) {
        self.all_before = true;
        self.all_after = true;
    }

    fn own_group(&mut self) {
        self.groups.get_or_insert((0, 0));
    }

    /// `lag` by so many rows; `lead` is a negative lag.
    fn offset(&mut self, call: &Call, sign: i64) {
        let offset = match call.args.get(1) {
            None => Some(1),
            Some(Arg::Constant(ScalarValue::Int32(Some(n)))) => Some(i64::from(*n)),
            Some(Arg::Constant(ScalarValue::Int64(Some(n)))) => Some(*n),
            Some(Arg::Constant(_)) => Some(0),
            Some(Arg::Column(_)) => None,
        };
        match offset.map(|n| n.saturating_mul(sign)) {
            None => self.everything(),
            Some(n) if n >= 0 => self.rows_after = self.rows_after.max(n as usize),
            Some(n) => self.rows_before = self.rows_before.max(n.unsigned_abs() as usize),
        }
    }

    fn frame(&mut self, edges: &Edges) {
        let size = |n: i64| usize::try_from(n).unwrap_or(0);
        if matches!(edges.exclude, Exclude::Group | Exclude::Ties) {
            self.own_group();
        }
        match &edges.start {
            Edge::First | Edge::Last => self.all_after = true,
            Edge::Rows(n) => self.rows_after = self.rows_after.max(size(-n)),
            Edge::Groups(n) => {
                let (before, after) = self.groups.unwrap_or_default();
                self.groups = Some((before, after.max(size(-n))));
            }
            Edge::Value { distance, is_preceding } => {
                self.own_group();
                self.after.push((distance.clone(), *is_preceding));
            }
        }
        match &edges.end {
            Edge::First | Edge::Last => self.all_before = true,
            Edge::Rows(n) => self.rows_before = self.rows_before.max(size(*n)),
            Edge::Groups(n) => {
                let (before, after) = self.groups.unwrap_or_default();
                self.groups = Some((before.max(size(*n)), after));
            }
            Edge::Value { distance, is_preceding } => {
                self.own_group();
                self.before.push((distance.clone(), !*is_preceding));
            }
        }
    }

    /// The runs of rows that sorted changes reach, in order and apart from each other.
    pub(super) fn regions(&self, order: Order<'_>, changes: &[(Row, i64)]) -> Result<Vec<Region>> {
        let len = order.partition.len();
        let net = |changes: &[(Row, i64)]| changes.iter().map(|(_, weight)| *weight).sum::<i64>();
        if changes.is_empty() {
            return Ok(vec![]);
        }
        if changes.len() > order.partition.n_rows() / FEW || (self.all_before && self.all_after) {
            return Ok(vec![Region { old: 0..len, new: 0..len.saturating_add_signed(net(changes) as isize) }]);
        }
        let places: Vec<Range<usize>> = changes.iter().map(|(row, _)| own_places(order.partition, row)).collect();
        // Runs of old places, and how many changes lie before each run and up to its end.
        let mut runs: Vec<(Range<usize>, Range<usize>)> = vec![];
        let mut running = 0i64;
        for (idx, (row, weight)) in changes.iter().enumerate() {
            let mut run = self.around(order, row, places.get(idx).cloned().unwrap_or(0..0))?;
            running += weight;
            if self.is_counted && running != 0 {
                run.end = run.end.max(places.get(idx + 1).map_or(len, |next| next.start));
            }
            let mut of_changes = idx..idx + 1;
            // Touching runs are one: a row may come in between.
            while let Some((last, before)) = runs.pop_if(|(last, _)| run.start <= last.end) {
                run = run.start.min(last.start)..run.end.max(last.end);
                of_changes.start = before.start;
            }
            runs.push((run, of_changes));
        }
        let shifted = |place: usize, n_changes: usize| {
            place.saturating_add_signed(net(changes.get(..n_changes).unwrap_or(changes)) as isize)
        };
        let regions = runs.into_iter().map(|(old, of)| {
            let new = shifted(old.start, of.start)..shifted(old.end, of.end);
            Region { old, new }
        });
        Ok(regions.collect())
    }

    /// The places that a change at `own` reaches.
    fn around(&self, order: Order<'_>, row: &Row, own: Range<usize>) -> Result<Range<usize>> {
        let partition = order.partition;
        let len = partition.len();
        let mut start = own.start.saturating_sub(self.rows_before);
        let mut end = own.end.saturating_add(self.rows_after).min(len);
        if let Some((n_before, n_after)) = self.groups {
            let mut first = partition.group_start(row.peers());
            let mut behind = partition.group_end(row.peers());
            start = start.min(first);
            end = end.max(behind);
            for _ in 0..n_before {
                let Some(previous) = first.checked_sub(1).and_then(|place| partition.row(place)) else { break };
                first = partition.group_start(previous.peers());
                start = start.min(first);
            }
            for _ in 0..n_after {
                let Some(next) = partition.row(behind) else { break };
                behind = partition.group_end(next.peers());
                end = end.max(behind);
            }
        }
        if !self.before.is_empty() || !self.after.is_empty() {
            let value = order.encoding.decode_order(std::iter::once(row.peers()))?;
            if !value.is_null(0) {
                for (distance, _) in self.before.iter().filter(|(_, looks_here)| *looks_here) {
                    start = start.min(order.value_place(&distance.widened(&value, 0)?, &value, 0, true, true)?);
                }
                for (distance, _) in self.after.iter().filter(|(_, looks_here)| *looks_here) {
                    end = end.max(order.value_place(&distance.widened(&value, 0)?, &value, 0, false, false)?);
                }
            }
        }
        if self.all_before {
            start = 0;
        }
        if self.all_after {
            end = len;
        }
        Ok(start..end.max(start))
    }
}

/// Where the row is, or would be.
fn own_places(partition: &Partition, row: &Row) -> Range<usize> {
    let start = partition.place(|r| r.key < row.key);
    let present = partition.row(start).filter(|r| r.key == row.key).map_or(0, |r| r.count as usize);
    start..start + present
}
