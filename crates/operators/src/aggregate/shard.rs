//! The running aggregate: one shard of its groups.
#![expect(clippy::indexing_slicing, reason = "hot loops; words and numbers of groups come from this operator's state")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, new_empty_array, new_null_array,
};
use arrow::compute::{cast, filter, filter_record_batch};
use arrow::datatypes::{Field, Schema};
use datafusion::common::ScalarValue;
use tidewire_types::{Delta, Result, SqlError, SqlState, SqlType, hash_rows};

use super::Aggregate;
use super::accumulate::{Kind, Overflows};
use super::groups::{Groups, IN_CHECKPOINT, STAMP};
use super::kept::{Tracking, keys_of};
use super::layout::{Layout, Output, columns};
use crate::expr::sql_error;
use crate::{Operator, RowError, StateChanges, StepContext};

/// Rows that go through all passes together.
const SLICE_ROWS: usize = 2048;
/// Groups that are put out together: what a step leaves behind for them is near when it becomes columns.
const PIECE_GROUPS: usize = 1 << 15;

/// One shard of an aggregate.
pub(super) struct AggregateShard {
    plan: Aggregate,
    shard_idx: usize,
    /// Made with the first rows, which DataFusion's own functions want to see.
    state: Option<State>,
    tracks_changes: bool,
}

impl AggregateShard {
    pub(super) fn new(plan: Aggregate, shard_idx: usize) -> AggregateShard {
        AggregateShard { plan, shard_idx, state: None, tracks_changes: false }
    }
}

impl Operator for AggregateShard {
    fn start(&mut self, _: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        if self.plan.keys.is_empty() && self.shard_idx == 0 {
            out.push(Delta::insert(initial_row(&self.plan)?));
        }
        Ok(())
    }

    fn step(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        self.step_part(inputs, cx, out)?;
        match &mut self.state {
            Some(state) if !state.touched.is_empty() => state.finish(&self.plan, cx, out),
            _ => Ok(()),
        }
    }

    fn step_part(&mut self, inputs: &mut [Vec<Delta>], _: &StepContext<'_>, _: &mut Vec<Delta>) -> Result<()> {
        for delta in inputs.iter_mut().flat_map(std::mem::take) {
            let delta = without_zeros(planned(&self.plan, delta)?)?;
            if delta.is_empty() {
                continue;
            }
            let state = match &mut self.state {
                Some(state) => state,
                None => self.state.insert(State::new(&self.plan, delta.rows().columns(), self.tracks_changes)?),
            };
            // Small enough that what one pass over the rows has read is near when the next one comes.
            for at in (0..delta.n_rows()).step_by(SLICE_ROWS) {
                state.take(&self.plan, &delta.slice(at, SLICE_ROWS.min(delta.n_rows() - at)))?;
            }
        }
        Ok(())
    }

    fn track_changes(&mut self) {
        self.tracks_changes = true;
        if let Some(state) = &mut self.state {
            state.tracking.begin();
        }
    }

    fn take_changes(&mut self, may_be_all: bool) -> Result<StateChanges> {
        match &mut self.state {
            Some(state) => Ok(state.take_changes(&self.plan, may_be_all)),
            None => Ok(StateChanges { is_all_for: None, rows: Box::new(|| Ok(vec![])) }),
        }
    }

    fn copy_changes(&mut self, n_bytes_max: usize) -> usize {
        self.state.as_mut().map_or(0, |state| state.copy_changes(n_bytes_max))
    }

    fn restore(&mut self, rows: &Delta) -> Result<()> {
        let state = match &mut self.state {
            Some(state) => state,
            None => self.state.insert(State::new(&self.plan, &types_of(&self.plan), self.tracks_changes)?),
        };
        state.restore(&self.plan, rows)
    }

    fn state_bytes(&self) -> usize {
        self.state.as_ref().map_or(0, State::bytes)
    }

    fn state_rows(&self) -> usize {
        self.state.as_ref().map_or(0, |state| {
            let kept: usize = state.layout.accumulators.iter().map(|a| a.len()).sum();
            state.groups.len() + kept + state.layout.feeds.iter().map(|f| f.len()).sum::<usize>()
        })
    }
}

/// Empty columns of the input's types.
pub(super) fn types_of(plan: &Aggregate) -> Vec<ArrayRef> {
    plan.input.fields().iter().map(|field| new_empty_array(field.data_type())).collect()
}

/// A delta with the types that the state is laid out for.
fn planned(plan: &Aggregate, delta: Delta) -> Result<Delta> {
    let columns = delta.rows().columns();
    let is_planned = |(column, field): (&ArrayRef, &Arc<Field>)| column.data_type() == field.data_type();
    if columns.iter().zip(plan.input.fields()).all(is_planned) {
        return Ok(delta);
    }
    let fit = |(column, field): (&ArrayRef, &Arc<Field>)| cast(column, field.data_type());
    let columns = columns.iter().zip(plan.input.fields()).map(fit).collect::<Result<Vec<_>, _>>()?;
    Ok(delta.with_rows(RecordBatch::try_new(Arc::clone(&plan.input), columns)?))
}

/// A delta without rows that mean nothing: they must not make groups.
fn without_zeros(delta: Delta) -> Result<Delta> {
    match delta.weights() {
        Some(weights) if weights.values().contains(&0) => {
            let mask: BooleanArray = weights.values().iter().map(|w| Some(*w != 0)).collect();
            let kept: Int64Array = filter(weights, &mask)?.to_data().into();
            Ok(Delta::new(filter_record_batch(delta.rows(), &mask)?, Some(kept)))
        }
        _ => Ok(delta),
    }
}

/// The row of a global aggregate over nothing.
fn initial_row(plan: &Aggregate) -> Result<RecordBatch> {
    let columns =
        plan.calls.iter().map(|call| call.function.over_nothing(call.field.data_type())?.to_array().map_err(sql_error));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    batch(plan, columns, 1)
}

fn batch(plan: &Aggregate, columns: Vec<ArrayRef>, n_rows: usize) -> Result<RecordBatch> {
    let fit = |(column, field): (ArrayRef, &Arc<Field>)| {
        if column.data_type() == field.data_type() { Ok(column) } else { cast(&column, field.data_type()) }
    };
    let columns = columns.into_iter().zip(plan.schema.fields()).map(fit).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(&plan.schema), columns, &options)?)
}

/// What the output shows of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// The group has no rows.
    Absent,
    /// Its result does not fit its type.
    Failed,
    Row,
}

/// What a step changes, of some of the groups that it touched.
#[derive(Default)]
struct Changes {
    /// Numbers of touched groups whose old row goes.
    old: Vec<u32>,
    /// Groups whose new row comes.
    new: Vec<u32>,
    /// Words of the old rows, then of the new ones.
    words: Vec<u64>,
}

/// Appends the words of a slot. The usual widths are copied in place: a call to copy eight words costs as much as the
/// copy.
#[inline]
pub(super) fn push_words(to: &mut Vec<u64>, slot: &[u64]) {
    fn exactly<const N: usize>(to: &mut Vec<u64>, slot: &[u64]) {
        if let Some(words) = slot.first_chunk::<N>() {
            to.extend_from_slice(words);
        }
    }
    match slot.len() {
        2 => exactly::<2>(to, slot),
        4 => exactly::<4>(to, slot),
        5 => exactly::<5>(to, slot),
        8 => exactly::<8>(to, slot),
        _ => to.extend_from_slice(slot),
    }
}

pub(super) struct State {
    pub(super) layout: Layout,
    pub(super) groups: Groups,
    pub(super) is_global: bool,
    append_only: bool,
    pub(super) overflows: Overflows,
    /// Those of the groups touched in this step, before it.
    overflows_before: Overflows,
    /// Groups and accumulators whose evaluation failed.
    pub(super) failed: BTreeSet<(u32, usize)>,
    /// Number of the step; 0 is that of no step.
    pub(super) step: u32,
    pub(super) tracking: Tracking,
    /// Groups touched in this step, what was shown of them before, and the words of those that were there.
    touched: Vec<u32>,
    shown_before: Vec<Shown>,
    before: Vec<u64>,
    /// Words of the groups whose new row comes.
    after: Vec<u64>,
    pub(super) ids: Vec<u32>,
    hashes: Vec<u64>,
}

impl State {
    pub(super) fn new(plan: &Aggregate, rows: &[ArrayRef], tracks_changes: bool) -> Result<State> {
        let keys = keys_of(plan)?;
        let layout = Layout::new(plan, rows, 1 + keys.n_words())?;
        let mut groups = Groups::new(keys, &layout.initial());
        let is_global = plan.keys.is_empty();
        if is_global {
            groups.make_global();
        }
        Ok(State {
            layout,
            groups,
            is_global,
            append_only: plan.append_only,
            overflows: Overflows::new(),
            overflows_before: Overflows::new(),
            failed: BTreeSet::new(),
            step: 1,
            tracking: Tracking::new(tracks_changes),
            touched: vec![],
            shown_before: vec![],
            before: vec![],
            after: vec![],
            ids: vec![],
            hashes: vec![],
        })
    }

    fn bytes(&self) -> usize {
        let scratch =
            (self.before.capacity() + self.after.capacity()) * 8 + self.hashes.capacity() * 8 + self.ids.capacity() * 4;
        let beside: usize = self.layout.accumulators.iter().map(|a| a.bytes()).sum();
        self.groups.bytes()
            + self.tracking.bytes()
            + scratch
            + beside
            + self.layout.feeds.iter().map(|f| f.bytes()).sum::<usize>()
    }

    /// Takes one delta.
    fn take(&mut self, plan: &Aggregate, delta: &Delta) -> Result<()> {
        let weights = delta.weights().map(|w| &w.values()[..]);
        if self.append_only && weights.is_some_and(|w| w.iter().any(|w| *w < 0)) {
            return Err(SqlError::internal("a row left an input that only grows"));
        }
        self.resolve(plan, delta.rows().columns(), delta.n_rows())?;
        self.copy_before_change();
        self.touch();
        let State { layout, groups, ids, overflows, .. } = self;
        let n_slots = groups.n_slots();
        for (feed_idx, feed) in layout.feeds.iter_mut().enumerate() {
            let fed = feed.prepare(delta.rows(), weights, ids)?;
            for (own_idx, accumulator) in layout.accumulators.iter_mut().enumerate() {
                if accumulator.feed_idx == feed_idx {
                    accumulator.apply(own_idx, ids, &fed, &mut groups.slots, n_slots, overflows)?;
                }
            }
        }
        Ok(())
    }

    /// Finds the group of every row.
    fn resolve(&mut self, plan: &Aggregate, rows: &[ArrayRef], n_rows: usize) -> Result<()> {
        match self.is_global {
            true => self.resolve_keys(plan, vec![], n_rows),
            false => self.resolve_keys(plan, columns(rows, &plan.keys)?, n_rows),
        }
    }

    /// Finds or makes the groups with these keys: `ids`.
    pub(super) fn resolve_keys(&mut self, plan: &Aggregate, mut keys: Vec<ArrayRef>, n_rows: usize) -> Result<()> {
        if self.is_global {
            self.ids.clear();
            self.ids.resize(n_rows, 0);
            return Ok(());
        }
        for (key, field) in keys.iter_mut().zip(plan.schema.fields()) {
            if key.data_type() != field.data_type() {
                *key = cast(key, field.data_type())?;
            }
        }
        hash_rows(&keys, n_rows, &mut self.hashes)?;
        let encoded = self.groups.keys().encode(&keys, n_rows)?;
        self.groups.resolve(&encoded, &self.hashes, &mut self.ids);
        Ok(())
    }

    /// Notes the groups that this step sees for the first time, and their words.
    fn touch(&mut self) {
        let (start, mut at) = (self.touched.len(), self.before.len());
        for id in &self.ids {
            let slot = self.groups.slots.get_mut(*id);
            let header = slot[0] as u32;
            let stamp = header & STAMP;
            if stamp == self.step {
                continue;
            }
            let in_checkpoint = self.tracking.touch(*id, header);
            slot[0] = slot[0] >> 32 << 32 | u64::from(in_checkpoint | self.step);
            self.touched.push(*id);
            if stamp == 0 && !self.is_global {
                self.shown_before.push(Shown::Absent);
            } else {
                self.shown_before.push(Shown::Row);
                push_words(&mut self.before, slot);
            }
        }
        if !self.overflows.is_empty() {
            for id in &self.touched[start..] {
                let of_group = self.overflows.range((*id, 0)..=(*id, usize::MAX));
                self.overflows_before.extend(of_group.map(|(key, n)| (*key, *n)));
            }
        }
        if self.can_fail() {
            let width = self.groups.slots.width();
            for idx in start..self.touched.len() {
                if self.shown_before[idx] == Shown::Absent {
                    continue;
                }
                if !self.fits(self.touched[idx], &self.before[at..at + width]) {
                    self.shown_before[idx] = Shown::Failed;
                }
                at += width;
            }
        }
    }

    /// Whether some result may not fit its type. Mostly not, and then no group is looked at.
    fn can_fail(&self) -> bool {
        !self.overflows.is_empty() || !self.failed.is_empty() || self.layout.has_limits
    }

    /// Whether the results of a group with these words fit their types.
    fn fits(&self, id: u32, words: &[u64]) -> bool {
        let of_group = (id, 0)..=(id, usize::MAX);
        !self.overflows.range(of_group.clone()).any(|((_, idx), _)| self.layout.must_fit[*idx])
            && self.failed.range(of_group).next().is_none()
            && self.layout.outputs.iter().all(|(output, data_type)| output.fits(words, data_type))
    }

    /// Ends the step: puts out what changed, forgets the groups that are gone.
    fn finish(&mut self, plan: &Aggregate, cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        for accumulator in &mut self.layout.accumulators {
            accumulator.settle(&self.touched, &mut self.groups.slots);
        }
        let mut errors = vec![];
        let values_changed = self.evaluate_values(&mut errors);
        let mut gone = vec![];
        // From the last piece on: the words of each are the end of what is left.
        let mut end = self.touched.len();
        while end > 0 {
            let start = (end - 1) / PIECE_GROUPS * PIECE_GROUPS;
            let changes = self.changes(start..end, &values_changed, &mut gone, &mut errors)?;
            if !changes.old.is_empty() || !changes.new.is_empty() {
                out.push(self.delta(plan, &changes)?);
            }
            if start == 0 {
                // To be used again.
                self.before = changes.words;
            }
            end = start;
        }
        for (id, error) in errors {
            let row = self.error_row(plan, id)?;
            let expr = plan.to_string();
            cx.row_errors.lock().push(RowError { row, weight: 1, expr, error });
        }
        self.forget(&gone)?;
        self.groups.tidy();
        self.overflows_before.clear();
        self.touched.clear();
        self.before.clear();
        self.shown_before.clear();
        self.step += 1;
        if self.step == STAMP {
            self.groups.clear_stamps();
            self.tracking.cut = 1;
            self.step = 2;
        }
        Ok(())
    }

    /// Evaluates the results that no slot holds. Returns which touched groups have another one; empty where there are
    /// no such results.
    fn evaluate_values(&mut self, errors: &mut Vec<(u32, SqlError)>) -> Vec<bool> {
        let mut changed = vec![];
        for (own_idx, accumulator) in self.layout.accumulators.iter_mut().enumerate() {
            let Kind::Value(store) = &mut accumulator.kind else { continue };
            changed.resize(self.touched.len(), false);
            store.before.clear();
            for (id, changed) in self.touched.iter().zip(&mut changed) {
                let had_failed = self.failed.remove(&(*id, own_idx));
                let result = store.state.evaluate(*id).unwrap_or_else(|error| {
                    self.failed.insert((*id, own_idx));
                    if !had_failed {
                        errors.push((*id, error));
                    }
                    store.default.clone()
                });
                *changed |= store.results[*id as usize] != result;
                store.before.push(std::mem::replace(&mut store.results[*id as usize], result));
            }
        }
        changed
    }

    /// Compares the last of the touched groups with what they were; takes their words from the end of `before`.
    fn changes(
        &mut self,
        range: Range<usize>,
        values_changed: &[bool],
        gone: &mut Vec<u32>,
        errors: &mut Vec<(u32, SqlError)>,
    ) -> Result<Changes> {
        let width = self.groups.slots.width();
        let can_fail = self.can_fail();
        let mut changes = Changes::default();
        let n_there = self.shown_before[range.clone()].iter().filter(|shown| **shown != Shown::Absent).count();
        let mut all_words = match self.before.len() - n_there * width {
            0 => std::mem::take(&mut self.before),
            start => self.before.split_off(start),
        };
        let (mut at, mut n_old) = (0, 0);
        self.after.clear();
        for idx in range {
            let id = self.touched[idx];
            let slot = self.groups.slots.get(id);
            let before = self.shown_before[idx];
            let from = at;
            at += if before == Shown::Absent { 0 } else { width };
            let words = &all_words[from..at];
            let n_rows = self.layout.n_rows_at.map_or(1, |at| slot[at] as i64);
            if n_rows < 0 {
                return Err(SqlError::internal("a row was removed from a group that does not have it"));
            }
            let after = if n_rows == 0 && !self.is_global {
                gone.push(id);
                Shown::Absent
            } else if can_fail && !self.fits(id, slot) {
                if before != Shown::Failed && self.failed.range((id, 0)..=(id, usize::MAX)).next().is_none() {
                    errors.push((id, self.overflow_error(id, slot)));
                }
                Shown::Failed
            } else {
                Shown::Row
            };
            let is_same = || {
                before == Shown::Absent
                    || !values_changed.get(idx).copied().unwrap_or(false)
                        && self.layout.outputs.iter().all(|(output, _)| output.same(words, slot))
                        && self.overflows_are_same(id)
            };
            if before == after && is_same() {
                continue;
            }
            if after == Shown::Row {
                push_words(&mut self.after, slot);
                changes.new.push(id);
            }
            if before == Shown::Row {
                if n_old < from {
                    all_words.copy_within(from..at, n_old);
                }
                n_old += width;
                changes.old.push(idx as u32);
            }
        }
        all_words.truncate(n_old);
        all_words.extend_from_slice(&self.after);
        changes.words = all_words;
        Ok(changes)
    }

    /// Whether sums are as far beyond their words as before the step.
    fn overflows_are_same(&self, id: u32) -> bool {
        let of_group = (id, 0)..=(id, usize::MAX);
        (self.overflows.is_empty() && self.overflows_before.is_empty())
            || self.overflows.range(of_group.clone()).eq(self.overflows_before.range(of_group))
    }

    /// How far this accumulator's sums are beyond their words; empty where none is.
    fn carries(&self, accumulator_idx: usize, old: &[u32], new: &[u32]) -> Vec<i64> {
        if self.overflows.is_empty() && self.overflows_before.is_empty() {
            return vec![];
        }
        let of = |all: &Overflows, id: u32| all.get(&(id, accumulator_idx)).copied().unwrap_or(0);
        let before = old.iter().map(|idx| of(&self.overflows_before, self.touched[*idx as usize]));
        before.chain(new.iter().map(|id| of(&self.overflows, *id))).collect()
    }

    /// The delta of old rows that go and new rows that come.
    fn delta(&self, plan: &Aggregate, changes: &Changes) -> Result<Delta> {
        let width = self.groups.slots.width();
        let Changes { old, new, words } = changes;
        let n_rows = old.len() + new.len();
        let mut columns = self.groups.keys().decode(words, width, self.groups.arena())?;
        for (output, data_type) in &self.layout.outputs {
            columns.push(match output {
                Output::Value { accumulator_idx } => self.value_column(*accumulator_idx, old, new)?,
                Output::IntWide { accumulator_idx, .. } | Output::AvgInt { accumulator_idx, .. } => {
                    let carries = self.carries(*accumulator_idx, old, new);
                    output.column(words, width, data_type, &carries)?
                }
                output => output.column(words, width, data_type, &[])?,
            });
        }
        let rows = batch(plan, columns, n_rows)?;
        let weights = (!old.is_empty()).then(|| {
            let mut weights = vec![-1; old.len()];
            weights.resize(n_rows, 1);
            weights.into()
        });
        Ok(Delta::new(rows, weights))
    }

    fn value_column(&self, accumulator_idx: usize, old: &[u32], new: &[u32]) -> Result<ArrayRef> {
        let Kind::Value(store) = &self.layout.accumulators[accumulator_idx].kind else {
            return Err(SqlError::internal("a result that is not where it should be"));
        };
        let before = old.iter().map(|idx| store.before[*idx as usize].clone());
        let after = new.iter().map(|id| store.results[*id as usize].clone());
        ScalarValue::iter_to_array(before.chain(after)).map_err(sql_error)
    }

    fn overflow_error(&self, id: u32, slot: &[u64]) -> SqlError {
        let mut of_group = self.overflows.range((id, 0)..=(id, usize::MAX)).map(|((_, idx), _)| *idx);
        let accumulator = of_group.find(|idx| self.layout.must_fit[*idx]);
        let at = accumulator.map(|idx| self.layout.accumulators[idx].offset);
        let is_it = |(output, data_type): &&(Output, _)| match at {
            Some(at) => output.is_sum_at(at),
            None => !output.fits(slot, data_type),
        };
        match self.layout.outputs.iter().find(is_it) {
            Some((_, data_type)) if SqlType::of_data_type(data_type) == SqlType::Int8 => {
                SqlError::new(SqlState::NumericValueOutOfRange, "bigint out of range")
            }
            _ => SqlError::new(SqlState::NumericValueOutOfRange, "numeric field overflow"),
        }
    }

    /// The row of a group whose results cannot be shown: its key, and NULLs.
    fn error_row(&self, plan: &Aggregate, id: u32) -> Result<RecordBatch> {
        let slot = self.groups.slots.get(id);
        let mut columns = self.groups.keys().decode(slot, slot.len(), self.groups.arena())?;
        columns.extend(plan.calls.iter().map(|call| new_null_array(call.field.data_type(), 1)));
        let fields = plan.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(RecordBatch::try_new(schema, columns)?)
    }

    /// Forgets groups without rows.
    fn forget(&mut self, gone: &[u32]) -> Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        let width = self.groups.slots.width();
        let words: Vec<u64> = gone.iter().flat_map(|id| self.groups.slots.get(*id).iter().copied()).collect();
        let keys = self.groups.keys().decode(&words, width, self.groups.arena())?;
        hash_rows(&keys, gone.len(), &mut self.hashes)?;
        for (id, hash) in gone.iter().zip(&self.hashes) {
            if self.groups.slots.get(*id)[0] as u32 & IN_CHECKPOINT != 0 {
                self.tracking.forget(&self.groups, *id);
            }
            for accumulator in &mut self.layout.accumulators {
                accumulator.forget(*id);
            }
            if !self.failed.is_empty() {
                self.failed.retain(|(failed, _)| failed != id);
            }
            self.groups.remove(*id, *hash);
        }
        Ok(())
    }
}
