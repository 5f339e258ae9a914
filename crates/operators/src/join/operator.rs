//! One running shard of a join.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::kernels::cmp;
use arrow::compute::{filter, take};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::physical_plan::PhysicalExpr;
use tidewire_types::{Delta, Result, SqlError, SqlState};

use super::side::{BATCH_ROWS_MAX, Count, Keys, Properties, Side};
use super::{Join, Kind, residual};
use crate::arrangement::index::NONE;
use crate::{Operator, StepContext};

/// The two sides, as indices.
pub(super) const LEFT: usize = 0;
pub(super) const RIGHT: usize = 1;

/// Whether a row has a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    False,
    Unknown,
    True,
}

impl From<Count> for Status {
    fn from(count: Count) -> Status {
        match count {
            Count { n_true: 1.., .. } => Status::True,
            Count { n_unknown: 1.., .. } => Status::Unknown,
            _ => Status::False,
        }
    }
}

pub(super) struct JoinOperator {
    pub(super) kind: Kind,
    sides: [Side; 2],
    pub(super) key_idxs: [Vec<usize>; 2],
    /// For each column of a side, the column of the other side that has the same bits in every pair.
    twins: [Vec<Option<usize>>; 2],
    pub(super) schemas: [SchemaRef; 2],
    pub(super) schema: SchemaRef,
    /// The left's columns, then the right's: what the residual sees.
    pair_schema: SchemaRef,
    residual: Option<Arc<dyn PhysicalExpr>>,
    /// The columns that are compared by SQL's NULL logic for each pair: not part of the keys.
    null_aware: Option<[usize; 2]>,
    /// The one key is compared by SQL's NULL logic, and nothing else: see `not_in`.
    is_not_in: bool,
    /// More rows of this step will come: those that it brings need not be found before they have.
    is_part: bool,
}

/// Rows of one delta that are all put in, or all taken out.
pub(super) struct Chunk {
    pub(super) rows: RecordBatch,
    /// Copies of each row, positive; None: one each.
    weights: Option<Vec<i64>>,
    pub(super) is_removal: bool,
}

impl Chunk {
    /// The weight of a row in the delta.
    pub(super) fn signed(&self, row: u32) -> i64 {
        let weight = self.weights.as_ref().map_or(1, |w| w.get(row as usize).copied().unwrap_or(1));
        if self.is_removal { -weight } else { weight }
    }

    pub(super) fn n_copies(&self) -> i64 {
        let sum = |weights: &Vec<i64>| weights.iter().fold(0, |sum: i64, weight| sum.saturating_add(*weight));
        self.weights.as_ref().map_or(self.rows.num_rows() as i64, sum)
    }

    pub(super) fn is_plain(&self) -> bool {
        self.weights.is_none() && !self.is_removal
    }
}

/// The chunks of all deltas: first what is put in, then what is taken out.
fn chunks(deltas: Vec<Delta>) -> Result<Vec<Chunk>> {
    let (mut added, mut removed) = (vec![], vec![]);
    for delta in deltas.into_iter().filter(|delta| !delta.is_empty()) {
        let (rows, weights) = delta.into_parts();
        let Some(weights) = weights else {
            added.push(Chunk { rows, weights: None, is_removal: false });
            continue;
        };
        for (is_removal, chunks) in [(false, &mut added), (true, &mut removed)] {
            let is_taken = |w: &i64| if is_removal { *w < 0 } else { *w > 0 };
            let n_taken = weights.values().iter().filter(|w| is_taken(w)).count();
            if n_taken == 0 {
                continue;
            }
            let taken = weights.values().iter().filter(|w| is_taken(w));
            let copies: Vec<i64> = taken.map(|w| w.checked_abs().ok_or_else(overflow)).collect::<Result<_>>()?;
            let rows = match n_taken == rows.num_rows() {
                true => rows.clone(),
                false => {
                    let mask: BooleanArray = weights.values().iter().map(|w| Some(is_taken(w))).collect();
                    arrow::compute::filter_record_batch(&rows, &mask)?
                }
            };
            let weights = copies.iter().any(|w| *w != 1).then_some(copies);
            chunks.push(Chunk { rows, weights, is_removal });
        }
    }
    added.append(&mut removed);
    Ok(added)
}

impl Operator for JoinOperator {
    fn step(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        self.sides.iter_mut().try_for_each(Side::link)?;
        self.pass_all(inputs, cx, out)
    }

    /// Rows that come in many calls are put into the index together, when first they are looked for or the step ends.
    fn step_part(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        self.is_part = !self.is_not_in;
        self.pass_all(inputs, cx, out)?;
        self.is_part = false;
        Ok(())
    }

    /// Puts the rows in, and looks for matches only where each row's are counted.
    fn load(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>) -> Result<()> {
        let is_counting = self.counts() && (self.has_status(LEFT) || self.has_status(RIGHT));
        self.is_part = !self.is_not_in;
        for from in [RIGHT, LEFT] {
            let deltas = inputs.get_mut(from).map(std::mem::take).unwrap_or_default();
            for chunk in chunks(deltas)? {
                match is_counting {
                    true => self.pass(from, &chunk, cx, &mut vec![])?,
                    false => {
                        let columns = self.key_columns(from, &chunk)?;
                        let keys = self.side(from)?.keys(&columns, chunk.rows.num_rows())?;
                        self.keep(from, &chunk, &keys, None)?;
                    }
                }
            }
        }
        self.is_part = false;
        Ok(())
    }

    fn end_load(&mut self, _: &StepContext<'_>) -> Result<()> {
        self.sides.iter_mut().try_for_each(Side::link)
    }

    fn state_bytes(&self) -> usize {
        self.sides.iter().map(Side::bytes).sum()
    }

    fn state_rows(&self) -> usize {
        self.sides.iter().map(Side::n_rows).sum()
    }
}

impl JoinOperator {
    pub(super) fn new(plan: &Join) -> Result<JoinOperator> {
        let is_not_in = plan.is_null_aware() && plan.left_keys.len() == 1 && plan.residual.is_none();
        let key_idxs = match is_not_in {
            true => [plan.left_keys.clone(), plan.right_keys.clone()],
            false => [plan.shard_keys(LEFT).to_vec(), plan.shard_keys(RIGHT).to_vec()],
        };
        let null_aware = match (plan.left_keys.last(), plan.right_keys.last()) {
            (Some(left), Some(right)) if plan.is_null_aware() && !is_not_in => Some([*left, *right]),
            _ => None,
        };
        let side = |schema: &SchemaRef, keys: &[usize], append_only, unique| {
            Side::new(Properties {
                schema: schema.clone(),
                key_idxs: keys.to_vec(),
                null_equals_null: plan.null_equals_null || is_not_in,
                append_only,
                // A unique key is unique no more without its last column.
                unique: unique && null_aware.is_none(),
            })
        };
        let [left, right] = &key_idxs;
        let sides = [
            side(&plan.left_schema, left, plan.left_append_only, plan.left_unique)?,
            side(&plan.right_schema, right, plan.right_append_only, plan.right_unique)?,
        ];
        let twins = twins(&key_idxs, [&plan.left_schema, &plan.right_schema]);
        let fields = plan.left_schema.fields().iter().chain(plan.right_schema.fields());
        let pair_schema = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
        Ok(JoinOperator {
            kind: plan.kind,
            sides,
            key_idxs,
            twins,
            schemas: [plan.left_schema.clone(), plan.right_schema.clone()],
            schema: plan.schema.clone(),
            pair_schema,
            residual: plan.residual.clone(),
            null_aware,
            is_not_in,
            is_part: false,
        })
    }

    fn pass_all(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        for from in [RIGHT, LEFT] {
            let deltas = inputs.get_mut(from).map(std::mem::take).unwrap_or_default();
            for chunk in chunks(deltas)? {
                self.pass(from, &chunk, cx, out)?;
            }
        }
        Ok(())
    }

    fn puts_out_pairs(&self) -> bool {
        matches!(self.kind, Kind::Inner | Kind::Left | Kind::Right | Kind::Full)
    }

    /// Whether the status of that side's rows shows in the output.
    pub(super) fn has_status(&self, side: usize) -> bool {
        match self.kind {
            Kind::Inner => false,
            Kind::Left | Kind::LeftSemi | Kind::LeftAnti | Kind::LeftMark => side == LEFT,
            Kind::Right => side == RIGHT,
            Kind::Full => true,
        }
    }

    fn counts(&self) -> bool {
        self.residual.is_some() || self.null_aware.is_some()
    }

    pub(super) fn side(&self, idx: usize) -> Result<&Side> {
        self.sides.get(idx).ok_or_else(no_side)
    }

    pub(super) fn side_mut(&mut self, idx: usize) -> Result<&mut Side> {
        self.sides.get_mut(idx).ok_or_else(no_side)
    }

    fn key_columns(&self, from: usize, chunk: &Chunk) -> Result<Vec<ArrayRef>> {
        let key_idxs = self.key_idxs.get(from).ok_or_else(no_side)?;
        let none = || SqlError::internal("a join input without a key column");
        let key = |idx: &usize| chunk.rows.columns().get(*idx).cloned().ok_or_else(none);
        key_idxs.iter().map(key).collect()
    }

    /// One chunk of one side meets the other side, and is kept.
    fn pass(&mut self, from: usize, chunk: &Chunk, cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        let columns = self.key_columns(from, chunk)?;
        let keys = self.side(from)?.keys(&columns, chunk.rows.num_rows())?;
        if let ([values], RIGHT) = (columns.as_slice(), from)
            && self.is_not_in
            && self.may_turn(chunk, values)?
        {
            return self.turn(chunk, &keys, out);
        }
        if let ([values], LEFT) = (columns.as_slice(), from)
            && self.is_not_in
        {
            self.put_out_chunk(LEFT, chunk, &self.listed(values)?, out)?;
            return self.keep(LEFT, chunk, &keys, None);
        }
        self.side_mut(1 - from)?.link()?;
        let heads = self.side(1 - from)?.probe(&keys, &keys.rows);
        let (rows, slots): (Vec<u32>, Vec<u32>) =
            keys.rows.iter().zip(&heads).filter(|(_, slot)| **slot != NONE).map(|(row, slot)| (*row, *slot)).unzip();
        match self.counts() {
            true => self.counted_pass(from, chunk, &keys, (rows, slots), cx, out),
            false => self.plain_pass(from, chunk, &keys, (rows, slots), out),
        }
    }

    /// A pass where rows match as soon as their keys do.
    fn plain_pass(
        &mut self,
        from: usize,
        chunk: &Chunk,
        keys: &Keys,
        (rows, heads): (Vec<u32>, Vec<u32>),
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        if self.has_status(from) {
            let mut statuses = vec![Status::False; chunk.rows.num_rows()];
            for row in &rows {
                if let Some(status) = statuses.get_mut(*row as usize) {
                    *status = Status::True;
                }
            }
            self.put_out_chunk(from, chunk, &statuses, out)?;
        }
        if self.puts_out_pairs() {
            let other = self.side(1 - from)?;
            other.chains(rows.clone(), heads.clone(), |rows, slots| {
                let columns = self.pair_columns(from, chunk, rows, slots)?;
                let weights = self.pair_weights(from, chunk, rows, slots)?;
                self.put_out(columns, rows.len(), weights, out)
            })?;
        }
        let flips = self.has_status(1 - from) && !rows.is_empty();
        if flips {
            self.side_mut(from)?.link()?;
        }
        let mut known = if flips && !chunk.is_removal { self.side(from)?.probe(keys, &rows) } else { vec![] };
        self.keep(from, chunk, keys, None)?;
        if !flips {
            return Ok(());
        }
        if chunk.is_removal {
            known = self.side(from)?.probe(keys, &rows);
        }
        // Keys that this side did not have before, or has no more: the other side's rows of them flip.
        let mut seen = HashSet::new();
        let flipped = known.iter().zip(rows.iter().zip(&heads)).filter(|(known, _)| **known == NONE);
        let (rows, heads) = flipped.map(|(_, pair)| pair).filter(|(_, head)| seen.insert(**head)).unzip();
        let unmatched = if self.is_not_in { self.unlisted()? } else { Status::False };
        let (old, new) = if chunk.is_removal { (Status::True, unmatched) } else { (unmatched, Status::True) };
        self.side(1 - from)?.chains(rows, heads, |_, slots| {
            self.put_out_flips(1 - from, slots, &vec![old; slots.len()], &vec![new; slots.len()], out)
        })
    }

    /// A pass where each pair is judged, and each row's matches are counted.
    fn counted_pass(
        &mut self,
        from: usize,
        chunk: &Chunk,
        keys: &Keys,
        (rows, heads): (Vec<u32>, Vec<u32>),
        cx: &StepContext<'_>,
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        let mut counts = vec![Count::default(); chunk.rows.num_rows()];
        let mut changes: HashMap<u32, Count> = HashMap::new();
        let other = self.side(1 - from)?;
        other.chains(rows, heads, |rows, slots| {
            let columns = self.pair_columns(from, chunk, rows, slots)?;
            let weights = self.pair_weights(from, chunk, rows, slots)?;
            let statuses = self.judge(&columns, rows.len(), weights.as_ref(), cx)?;
            for ((row, slot), status) in rows.iter().zip(slots).zip(&statuses) {
                if let Some(count) = counts.get_mut(*row as usize) {
                    add(count, *status, other.weight(*slot))?;
                }
                if self.has_status(1 - from) && *status != Status::False {
                    add(changes.entry(*slot).or_default(), *status, chunk.signed(*row))?;
                }
            }
            if self.puts_out_pairs() {
                let mask: BooleanArray = statuses.iter().map(|status| Some(*status == Status::True)).collect();
                let columns = columns.iter().map(|c| Ok(filter(c, &mask)?)).collect::<Result<Vec<_>>>()?;
                let weights = weights.map(|w| filter(&w, &mask)).transpose()?;
                let weights = weights.map(|w| w.as_primitive().clone());
                self.put_out(columns, mask.true_count(), weights, out)?;
            }
            Ok(())
        })?;
        if self.has_status(from) {
            let statuses: Vec<Status> = counts.iter().map(|count| Status::from(*count)).collect();
            self.put_out_chunk(from, chunk, &statuses, out)?;
        }
        self.recount(1 - from, changes, out)?;
        let counts = self.has_status(from).then_some(counts);
        self.keep(from, chunk, keys, counts.as_deref())
    }

    /// Changes the counts of kept rows, and puts out those whose status flips.
    fn recount(&mut self, side_idx: usize, changes: HashMap<u32, Count>, out: &mut Vec<Delta>) -> Result<()> {
        let (mut slots, mut old, mut new) = (vec![], vec![], vec![]);
        let side = self.side_mut(side_idx)?;
        for (slot, change) in changes {
            let before = side.count(slot);
            let mut after = before;
            add(&mut after, Status::True, change.n_true)?;
            add(&mut after, Status::Unknown, change.n_unknown)?;
            side.set_count(slot, after);
            if Status::from(before) != Status::from(after) {
                slots.push(slot);
                old.push(Status::from(before));
                new.push(Status::from(after));
            }
        }
        let pieces = slots.chunks(BATCH_ROWS_MAX).zip(old.chunks(BATCH_ROWS_MAX)).zip(new.chunks(BATCH_ROWS_MAX));
        for ((slots, old), new) in pieces {
            self.put_out_flips(side_idx, slots, old, new, out)?;
        }
        Ok(())
    }

    pub(super) fn keep(&mut self, from: usize, chunk: &Chunk, keys: &Keys, counts: Option<&[Count]>) -> Result<()> {
        let is_part = self.is_part;
        let side = self.side_mut(from)?;
        match (chunk.is_removal, &chunk.weights) {
            (false, weights) if is_part => side.insert_later(&chunk.rows, keys, weights.as_deref(), counts),
            (false, weights) => side.insert(&chunk.rows, keys, weights.as_deref(), counts),
            (true, Some(weights)) => side.remove(&chunk.rows, keys, weights),
            (true, None) => side.remove(&chunk.rows, keys, &vec![1; chunk.rows.num_rows()]),
        }
    }

    /// The columns of pairs of a chunk's rows and the other side's slots: left, right.
    fn pair_columns(&self, from: usize, chunk: &Chunk, rows: &[u32], slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let is_all = rows.len() == chunk.rows.num_rows() && rows.iter().zip(0..).all(|(row, idx)| *row == idx);
        let own = match is_all {
            true => chunk.rows.columns().to_vec(),
            false => {
                let rows = UInt32Array::from(rows.to_vec());
                chunk.rows.columns().iter().map(|c| Ok(take(c, &rows, None)?)).collect::<Result<_>>()?
            }
        };
        let other = self.side(1 - from)?;
        let twins = self.twins.get(1 - from).ok_or_else(no_side)?;
        let others = twins.iter().enumerate().map(|(idx, twin)| match twin.and_then(|twin| own.get(twin)) {
            Some(column) => Ok(column.clone()),
            None => other.gather_column(idx, slots),
        });
        let others = others.collect::<Result<Vec<_>>>()?;
        let (mut left, right) = if from == LEFT { (own, others) } else { (others, own) };
        left.extend(right);
        Ok(left)
    }

    /// The weights of pairs; None: all 1.
    fn pair_weights(&self, from: usize, chunk: &Chunk, rows: &[u32], slots: &[u32]) -> Result<Option<Int64Array>> {
        let other = self.side(1 - from)?;
        if chunk.is_plain() && !other.is_weighted() {
            return Ok(None);
        }
        let weight = |(row, slot): (&u32, &u32)| chunk.signed(*row).checked_mul(other.weight(*slot));
        let weights: Option<Vec<i64>> = rows.iter().zip(slots).map(weight).collect();
        Ok(Some(weights.ok_or_else(overflow)?.into()))
    }

    /// What the residual and the NULL logic say of each pair.
    fn judge(
        &self,
        columns: &[ArrayRef],
        n_rows: usize,
        weights: Option<&Int64Array>,
        cx: &StepContext<'_>,
    ) -> Result<Vec<Status>> {
        let mut statuses = vec![Status::True; n_rows];
        if let Some(residual) = &self.residual {
            let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
            let pairs = RecordBatch::try_new_with_options(self.pair_schema.clone(), columns.to_vec(), &options)?;
            let holds = residual::holds(residual, &pairs, weights, cx)?;
            for (status, holds) in statuses.iter_mut().zip(holds) {
                if !holds {
                    *status = Status::False;
                }
            }
        }
        if let Some([left, right]) = self.null_aware {
            let n_left = self.schemas.first().map_or(0, |schema| schema.fields().len());
            let (Some(left), Some(right)) = (columns.get(left), columns.get(n_left + right)) else {
                return Err(SqlError::internal("a join input without a key column"));
            };
            let equal = cmp::eq(left, right)?;
            for (status, equal) in statuses.iter_mut().zip(&equal).filter(|(status, _)| **status == Status::True) {
                *status = match equal {
                    Some(true) => Status::True,
                    Some(false) => Status::False,
                    None => Status::Unknown,
                };
            }
        }
        Ok(statuses)
    }
}

/// Keys that are equal have the same bits, but for floats (two zeros): such a column of the other side need not be
/// fetched from wherever its rows are.
fn twins(key_idxs: &[Vec<usize>; 2], schemas: [&SchemaRef; 2]) -> [Vec<Option<usize>>; 2] {
    let [left, right] = schemas;
    let mut twins = [vec![None; left.fields().len()], vec![None; right.fields().len()]];
    let [left_keys, right_keys] = key_idxs;
    for (l, r) in left_keys.iter().zip(right_keys) {
        let (Some(left), Some(right)) = (left.fields().get(*l), right.fields().get(*r)) else { continue };
        let data_type = left.data_type();
        if data_type != right.data_type() || data_type.is_floating() || data_type.is_nested() {
            continue;
        }
        let [of_left, of_right] = &mut twins;
        of_left.iter_mut().skip(*l).take(1).for_each(|twin| *twin = Some(*r));
        of_right.iter_mut().skip(*r).take(1).for_each(|twin| *twin = Some(*l));
    }
    twins
}

fn add(count: &mut Count, status: Status, n: i64) -> Result<()> {
    let place = match status {
        Status::False => return Ok(()),
        Status::True => &mut count.n_true,
        Status::Unknown => &mut count.n_unknown,
    };
    *place = place.checked_add(n).ok_or_else(overflow)?;
    Ok(())
}

fn overflow() -> SqlError {
    SqlError::new(SqlState::NumericValueOutOfRange, "too many copies of a row")
}

fn no_side() -> SqlError {
    SqlError::internal("a join has two sides")
}
