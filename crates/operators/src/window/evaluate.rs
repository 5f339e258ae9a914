//! The results of a run of rows.
//!
//! First it is found out which places each call looks at, then the rows there are decoded once, then the results are
//! computed. So a run costs what its frames hold, whatever the partition's size.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, UInt64Array};
use arrow::compute::{cast, interleave, take};
use arrow::datatypes::{DataType, Int64Type};
use tidewire_types::{Result, SqlError, SqlState};

use super::aggregate::{Aggregate, Frames, Prepared};
use super::encoding::Encoding;
use super::frame::{Edges, Framing, Order, pieces};
use super::groups::Groups;
use super::partition::{Partition, Row};
use super::{Arg, Call, Function};
use crate::expr::sql_error;

/// A call that can be computed.
pub(super) struct Evaluator {
    pub(super) call: Call,
    pub(super) edges: Edges,
    pub(super) aggregate: Option<Aggregate>,
}

/// The results of the rows at some places: a column a call, and the rows that have none.
pub(super) struct Evaluated {
    pub(super) columns: Vec<ArrayRef>,
    pub(super) errors: Vec<(usize, SqlError)>,
}

/// Where a row's value comes from.
#[derive(Clone, Copy)]
enum Target {
    Row(usize),
    Default,
    Null,
}

/// What is known of a call before rows are decoded.
enum Job {
    Done(ArrayRef),
    Values(Vec<Target>),
    Aggregate(Frames, Prepared),
}

/// A window of the partition's rows, decoded.
struct Decoded {
    /// Places in order, apart from each other, each with the index of its first row among the columns.
    runs: Vec<(Range<usize>, usize)>,
    columns: Vec<ArrayRef>,
}

/// Evaluates all calls for the rows at `places`.
pub(super) fn evaluate(
    evaluators: &[Evaluator],
    encoding: &Encoding,
    is_descending: bool,
    partition: &mut Partition,
    places: Range<usize>,
) -> Result<Evaluated> {
    let n_groups = evaluators.iter().map(|e| e.edges.n_groups());
    let (n_before, n_behind) = n_groups.fold((0, 0), |(a, b), (c, d)| (a.max(c), b.max(d)));
    let groups = Groups::new(partition, places.clone(), n_before, n_behind);
    let mut errors = vec![];
    let own = match evaluators.iter().any(Evaluator::reads_own) {
        true => Some(decode(encoding, partition, vec![places.clone()])?),
        false => None,
    };
    let mut jobs = vec![];
    for evaluator in evaluators {
        jobs.push(evaluator.plan(encoding, is_descending, partition, &places, &groups, own.as_ref(), &mut errors)?);
    }
    let mut wanted = vec![];
    for job in &jobs {
        match job {
            Job::Done(_) => {}
            Job::Values(targets) => wanted.extend(targets.iter().filter_map(|t| match t {
                Target::Row(place) => Some(*place..place + 1),
                _ => None,
            })),
            Job::Aggregate(_, prepared) => wanted.push(prepared.scope.span.clone()),
        }
    }
    let decoded = decode(encoding, partition, wanted)?;
    let mut columns = vec![];
    for (evaluator, job) in evaluators.iter().zip(jobs) {
        let column = match job {
            Job::Done(column) => column,
            Job::Values(targets) => evaluator.values(&targets, &decoded, own.as_ref())?,
            Job::Aggregate(frames, prepared) => {
                let Some(aggregate) = &evaluator.aggregate else { return Err(SqlError::internal("no aggregate")) };
                let input = aggregate.input(&decoded.slice(&prepared.scope.span))?;
                let to = evaluator.call.field.data_type();
                let results = aggregate.evaluate(&frames, &prepared, &input, to)?;
                errors.extend(results.errors);
                results.column
            }
        };
        let to = evaluator.call.field.data_type();
        columns.push(if column.data_type() == to { column } else { cast(&column, to)? });
    }
    Ok(Evaluated { columns, errors })
}

fn decode(encoding: &Encoding, partition: &Partition, mut wanted: Vec<Range<usize>>) -> Result<Decoded> {
    wanted.retain(|run| !run.is_empty());
    wanted.sort_unstable_by_key(|run| run.start);
    let mut runs: Vec<(Range<usize>, usize)> = vec![];
    for run in wanted {
        match runs.last_mut() {
            Some((last, _)) if run.start <= last.end => last.end = last.end.max(run.end),
            last => {
                let first = last.map_or(0, |(last, first)| *first + last.len());
                runs.push((run, first));
            }
        }
    }
    let rows = runs.iter().flat_map(|(run, _)| partition.rows(run.clone())).map(|row: &Row| &*row.key);
    let columns = if runs.is_empty() { encoding.decode(std::iter::empty())? } else { encoding.decode(rows)? };
    Ok(Decoded { runs, columns })
}

impl Decoded {
    /// Where the row at a place stands among the columns.
    fn idx(&self, place: usize) -> Option<usize> {
        let behind = self.runs.partition_point(|(run, _)| run.start <= place);
        let (run, first) = self.runs.get(behind.checked_sub(1)?)?;
        run.contains(&place).then(|| first + place - run.start)
    }

    /// The columns of consecutive places, all of them decoded.
    fn slice(&self, places: &Range<usize>) -> Vec<ArrayRef> {
        let first = if places.is_empty() { 0 } else { self.idx(places.start).unwrap_or(0) };
        self.columns.iter().map(|c| c.slice(first.min(c.len()), places.len().min(c.len()))).collect()
    }

    fn column(&self, idx: usize) -> Result<&ArrayRef> {
        self.columns.get(idx).ok_or_else(|| SqlError::internal(format_args!("no column {idx}")))
    }
}

impl Evaluator {
    /// Whether arguments differ from row to row: those of the evaluated rows are needed first.
    fn reads_own(&self) -> bool {
        let is_column = |idx: usize| matches!(self.call.args.get(idx), Some(Arg::Column(_)));
        match self.call.function {
            Function::Lag | Function::Lead => is_column(1) || is_column(2),
            Function::NthValue => is_column(1),
            _ => false,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what is known of the rows, passed along")]
    fn plan(
        &self,
        encoding: &Encoding,
        is_descending: bool,
        partition: &mut Partition,
        places: &Range<usize>,
        groups: &Groups,
        own: Option<&Decoded>,
        errors: &mut Vec<(usize, SqlError)>,
    ) -> Result<Job> {
        let len = partition.len();
        let group = |idx: usize| groups.places(groups.of_row(idx));
        let all = 0..places.len();
        let numbers = |number: &mut dyn FnMut(usize) -> usize| -> Job {
            let numbers: Int64Array = all.clone().map(number).map(|n| n as i64).collect::<Vec<_>>().into();
            Job::Done(Arc::new(numbers))
        };
        let fractions = |fraction: &dyn Fn(usize) -> f64| -> Job {
            let fractions: Float64Array = all.clone().map(fraction).collect::<Vec<_>>().into();
            Job::Done(Arc::new(fractions))
        };
        Ok(match &self.call.function {
            Function::RowNumber => numbers(&mut |idx| places.start + idx + 1),
            Function::Rank => numbers(&mut |idx| group(idx).start + 1),
            Function::DenseRank => {
                let before = partition.n_groups(group(0).start);
                numbers(&mut |idx| before + groups.of_row(idx) - groups.own().start + 1)
            }
            Function::PercentRank if len <= 1 => fractions(&|_| 0.0),
            Function::PercentRank => fractions(&|idx| group(idx).start as f64 / (len - 1) as f64),
            Function::CumeDist => fractions(&|idx| group(idx).end as f64 / len as f64),
            Function::Ntile => Job::Done(self.ntile(encoding, partition, places, errors)?),
            Function::Lag => Job::Values(self.shifted(places, len, own, false)?),
            Function::Lead => Job::Values(self.shifted(places, len, own, true)?),
            Function::FirstValue | Function::LastValue | Function::NthValue | Function::Aggregate(_) => {
                let order = Order { partition, encoding, is_descending };
                let whole = Framing { order, groups }.frames(&self.edges, places.clone())?;
                let exclude = self.edges.exclude;
                let cut = |(idx, frame)| pieces(frame, places.start + idx, &group(idx), exclude);
                let frames = Frames { pieces: whole.iter().enumerate().map(cut).collect(), whole, exclude };
                match &self.aggregate {
                    Some(aggregate) => {
                        let prepared = aggregate.prepare(&frames, partition, encoding)?;
                        Job::Aggregate(frames, prepared)
                    }
                    None => Job::Values(self.in_frame(&frames, own, errors)?),
                }
            }
        })
    }

    /// One number for all rows of the partition: that of its first row.
    fn ntile(
        &self,
        encoding: &Encoding,
        partition: &Partition,
        places: &Range<usize>,
        errors: &mut Vec<(usize, SqlError)>,
    ) -> Result<ArrayRef> {
        let n_buckets = match self.call.args.first() {
            Some(Arg::Constant(value)) => {
                integer(&value.to_array_of_size(1).map_err(sql_error)?)?.iter().next().flatten()
            }
            Some(Arg::Column(idx)) => {
                let first = decode(encoding, partition, std::iter::once(0..1).collect())?;
                integer(first.column(*idx)?)?.iter().next().flatten()
            }
            None => None,
        };
        let n_buckets = match n_buckets {
            None => return Ok(Arc::new(Int64Array::new_null(places.len()))),
            Some(n) if n <= 0 => {
                let message = "argument of ntile must be greater than zero";
                let error = SqlError::new(SqlState::InvalidArgumentForNtile, message);
                errors.extend((0..places.len()).map(|idx| (idx, error.clone())));
                return Ok(Arc::new(Int64Array::new_null(places.len())));
            }
            Some(n) => n as usize,
        };
        // The first buckets take one row more where the rows do not divide evenly.
        let (size, n_larger) = (partition.len() / n_buckets, partition.len() % n_buckets);
        let in_larger = n_larger * (size + 1);
        let bucket = |place: usize| match place < in_larger {
            true => place / (size + 1),
            false => n_larger + (place - in_larger) / size.max(1),
        };
        Ok(Arc::new(
            places
                .clone()
                .map(|place| bucket(place) as i64 + 1)
                .collect::<Vec<_>>()
                .into_iter()
                .collect::<Int64Array>(),
        ))
    }

    /// For lag and lead: so many rows before or behind each row.
    fn shifted(&self, places: &Range<usize>, len: usize, own: Option<&Decoded>, ahead: bool) -> Result<Vec<Target>> {
        let offsets = self.numbers(1, places.len(), own)?;
        let target = |(idx, place): (usize, usize)| {
            let offset = match &offsets {
                None => 1,
                Some(offsets) if offsets.is_null(idx) => return Target::Null,
                Some(offsets) => offsets.value(idx),
            };
            let moved = if ahead { offset } else { offset.saturating_neg() };
            match usize::try_from((place as i64).saturating_add(moved)) {
                Ok(at) if at < len => Target::Row(at),
                _ => Target::Default,
            }
        };
        Ok(places.clone().enumerate().map(target).collect())
    }

    /// An integer argument of every row; None where it is not given.
    fn numbers(&self, arg_idx: usize, n_rows: usize, own: Option<&Decoded>) -> Result<Option<Int64Array>> {
        Ok(match (self.call.args.get(arg_idx), own) {
            (None, _) => None,
            (Some(Arg::Constant(value)), _) => Some(integer(&value.to_array_of_size(n_rows).map_err(sql_error)?)?),
            (Some(Arg::Column(idx)), Some(own)) => Some(integer(own.column(*idx)?)?),
            (Some(Arg::Column(_)), None) => return Err(SqlError::internal("the rows are not at hand")),
        })
    }

    /// For first_value, last_value and nth_value: a row of each frame.
    fn in_frame(
        &self,
        frames: &Frames,
        own: Option<&Decoded>,
        errors: &mut Vec<(usize, SqlError)>,
    ) -> Result<Vec<Target>> {
        let numbers = match self.call.function {
            Function::NthValue => self.numbers(1, frames.pieces.len(), own)?,
            _ => None,
        };
        let mut targets = vec![];
        for (idx, pieces) in frames.pieces.iter().enumerate() {
            let mut places = pieces.iter().flat_map(Range::clone);
            let place = match (&self.call.function, &numbers) {
                (Function::LastValue, _) => pieces.iter().rev().find(|p| !p.is_empty()).map(|p| p.end - 1),
                (Function::NthValue, Some(n)) if n.is_null(idx) => None,
                (Function::NthValue, Some(n)) if n.value(idx) <= 0 => {
                    let message = "argument of nth_value must be greater than zero";
                    errors.push((idx, SqlError::new(SqlState::InvalidArgumentForNthValue, message)));
                    None
                }
                (Function::NthValue, Some(n)) => nth(pieces, n.value(idx) as usize - 1),
                _ => places.next(),
            };
            targets.push(place.map_or(Target::Null, Target::Row));
        }
        Ok(targets)
    }

    /// The first argument at the targets.
    fn values(&self, targets: &[Target], decoded: &Decoded, own: Option<&Decoded>) -> Result<ArrayRef> {
        let to = self.call.field.data_type();
        let found = match self.call.args.first() {
            Some(Arg::Column(idx)) => {
                let place = |t: &Target| if let Target::Row(place) = t { decoded.idx(*place) } else { None };
                let indices: UInt64Array = targets.iter().map(|t| place(t).map(|idx| idx as u64)).collect();
                cast(&take(decoded.column(*idx)?, &indices, None)?, to)?
            }
            Some(Arg::Constant(value)) => {
                let one = value.to_array_of_size(1).map_err(sql_error)?;
                let indices: UInt64Array = targets.iter().map(|t| matches!(t, Target::Row(_)).then_some(0)).collect();
                cast(&take(&one, &indices, None)?, to)?
            }
            None => return Err(SqlError::internal("a function without its argument")),
        };
        let is_offset = matches!(self.call.function, Function::Lag | Function::Lead);
        let Some(default) = self.call.args.get(2).filter(|_| is_offset) else { return Ok(found) };
        let default = match (default, own) {
            (Arg::Constant(value), _) => value.to_array_of_size(targets.len()).map_err(sql_error)?,
            (Arg::Column(idx), Some(own)) => Arc::clone(own.column(*idx)?),
            (Arg::Column(_), None) => return Err(SqlError::internal("the rows are not at hand")),
        };
        let default = cast(&default, to)?;
        let picks: Vec<(usize, usize)> =
            targets.iter().enumerate().map(|(idx, t)| (usize::from(matches!(t, Target::Default)), idx)).collect();
        Ok(interleave(&[&found, &default], &picks)?)
    }
}

/// The nth place of the pieces, from 0.
fn nth(pieces: &[Range<usize>], n: usize) -> Option<usize> {
    let mut left = n;
    for piece in pieces.iter().filter(|p| !p.is_empty()) {
        if left < piece.len() {
            return Some(piece.start + left);
        }
        left -= piece.len();
    }
    None
}

fn integer(column: &ArrayRef) -> Result<Int64Array> {
    Ok(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}
