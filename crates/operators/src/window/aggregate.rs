//! Aggregates over frames.
//!
//! Sums, counts and averages of whole numbers are differences of running sums; sums of floats are kept exactly while the
//! frame slides, so that nothing drifts; the least and the greatest value come from a tree over the rows. All of these
//! know the rows before (or behind) the evaluated ones by the summaries of their chunks. Every other aggregate is
//! the accumulator of a batch query: fed on while only the frame's end moves, fed anew else.

mod float;
mod least;
mod other;
mod whole;

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::DataType;
use tidewire_types::{Result, SqlError};

use super::encoding::Encoding;
use super::frame::{Edge, Edges, Pieces};
use super::partition::{Partition, Row};
use super::{Arg, Call, Exclude};
use crate::aggregate::Function;
use crate::aggregate::functions::udaf_of;

/// How a call is computed.
enum Method {
    Whole(whole::Whole),
    Float(float::Float),
    Least(least::Least),
    Other(other::Other),
}

/// One aggregate over frames.
pub(super) struct Aggregate {
    method: Method,
    args: Vec<Arg>,
    filter: Option<usize>,
    call_idx: usize,
    /// The frame reaches to the partition's first (last) row always.
    from_first: bool,
    to_last: bool,
}

/// The frames of the evaluated rows, in order.
pub(super) struct Frames {
    pub(super) pieces: Vec<Pieces>,
    /// Before anything was excluded.
    pub(super) whole: Vec<Range<usize>>,
    pub(super) exclude: Exclude,
}

/// The result of each row, and the rows that have none.
pub(super) struct Results {
    pub(super) column: ArrayRef,
    pub(super) errors: Vec<(usize, SqlError)>,
}

/// What a method needs to know beside the rows of the span.
pub(super) struct Scope {
    /// The places whose rows must be at hand.
    pub(super) span: Range<usize>,
    /// Places before the span count by summaries.
    pub(super) from_first: bool,
    /// Places behind the span count by summaries.
    pub(super) to_last: bool,
    /// Places in the partition.
    len: usize,
}

/// The argument columns of the rows of a span, and which of the rows count.
pub(super) struct Input {
    pub(super) columns: Vec<ArrayRef>,
    filter: Option<BooleanArray>,
}

impl Input {
    /// Whether the row counts at all.
    pub(super) fn passes(&self, idx: usize) -> bool {
        self.filter.as_ref().is_none_or(|f| f.is_valid(idx) && f.value(idx))
    }

    /// Whether the row counts and its argument is not NULL.
    pub(super) fn counts(&self, idx: usize) -> bool {
        // An array that has nothing but NULLs tells of none.
        self.passes(idx) && self.columns.iter().all(|c| !c.data_type().is_null() && !c.is_null(idx))
    }
}

/// What was found out before the rows of the span are at hand.
pub(super) struct Prepared {
    pub(super) scope: Scope,
    before: Before,
}

/// Summaries of the rows outside of the span.
enum Before {
    None,
    Whole(whole::Outside),
    Float(float::Outside),
    Least(least::Outside),
}

impl Aggregate {
    /// `input`: the types of the input's columns.
    pub(super) fn new(
        function: &Function,
        call: &Call,
        edges: &Edges,
        call_idx: usize,
        type_of: &dyn Fn(&Arg) -> Result<DataType>,
    ) -> Result<Aggregate> {
        let types = call.args.iter().map(type_of).collect::<Result<Vec<_>>>()?;
        let to = call.field.data_type();
        let other = |function| Ok::<_, SqlError>(Method::Other(other::Other::new(function, call, &types)?));
        let as_in_batch = || {
            let udaf = udaf_of(function);
            udaf.ok_or_else(|| SqlError::internal("an aggregate that no batch query has")).and_then(other)
        };
        let method = match (function, types.as_slice()) {
            (Function::Count, _) => Method::Whole(whole::Whole::count()),
            (Function::Sum, [from]) => match whole::Whole::sum(from, to) {
                Some(whole) => Method::Whole(whole),
                None if is_number(from) && is_float(to) => Method::Float(float::Float { is_average: false }),
                None => as_in_batch()?,
            },
            (Function::Avg, [from]) => match whole::Whole::avg(from, to) {
                Some(whole) => Method::Whole(whole),
                None if is_number(from) && is_float(to) => Method::Float(float::Float { is_average: true }),
                None => as_in_batch()?,
            },
            (Function::Min | Function::Max, [from]) => {
                let is_max = *function == Function::Max;
                match least::Least::new(from, to, is_max) {
                    Some(least) => Method::Least(least?),
                    None => as_in_batch()?,
                }
            }
            (Function::Other(function), _) => other(function.clone())?,
            _ => return Err(SqlError::internal("an aggregate with the wrong number of arguments")),
        };
        // A float's sum slides over what is excluded: those rows must be at hand.
        let by_summaries = match method {
            Method::Whole(_) | Method::Least(_) => true,
            Method::Float(_) => edges.exclude == Exclude::NoOthers,
            Method::Other(_) => false,
        };
        Ok(Aggregate {
            method,
            args: call.args.clone(),
            filter: call.filter,
            call_idx,
            from_first: by_summaries && matches!(edges.start, Edge::First),
            to_last: by_summaries && matches!(edges.end, Edge::Last),
        })
    }

    /// Finds the rows that must be at hand, and sums up the others.
    pub(super) fn prepare(&self, frames: &Frames, partition: &mut Partition, encoding: &Encoding) -> Result<Prepared> {
        let len = partition.len();
        let scope = self.scope(frames, partition);
        let before = if scope.from_first || scope.to_last {
            let make = |rows: &mut dyn Iterator<Item = &Row>| -> Result<Input> {
                self.input(&encoding.decode(rows.map(|r| &*r.key))?)
            };
            let first = if scope.from_first { 0..scope.span.start } else { 0..0 };
            let last = if scope.to_last { scope.span.end..len } else { len..len };
            match &self.method {
                Method::Whole(whole) => Before::Whole(whole.outside(partition, self.call_idx, first, last, make)?),
                Method::Float(float) => Before::Float(float.outside(partition, self.call_idx, first, last, make)?),
                Method::Least(least) => Before::Least(least.outside(partition, self.call_idx, first, last, make)?),
                Method::Other(_) => Before::None,
            }
        } else {
            Before::None
        };
        Ok(Prepared { scope, before })
    }

    /// The rows around which the frames differ; those that are in all frames need not be at hand.
    fn scope(&self, frames: &Frames, partition: &Partition) -> Scope {
        let len = partition.len();
        let is_large = partition.is_large();
        let (from_first, to_last) = (self.from_first && is_large, self.to_last && is_large);
        let is_outer = |place: usize| (from_first && place == 0) || (to_last && place == len);
        // Where rows are excluded the sums slide over the holes too.
        let whole = frames.whole.iter().filter(|_| frames.exclude != Exclude::NoOthers);
        let pieces = frames.pieces.iter().flatten().chain(whole).filter(|p| !p.is_empty());
        let bounds = pieces.flat_map(|p| [p.start, p.end]).filter(|place| !is_outer(*place));
        let (low, high) = bounds.fold((usize::MAX, 0), |(low, high), b| (low.min(b), high.max(b)));
        // No bounds but the outer ones: nothing need be at hand.
        let (low, high) =
            if low > high { (if to_last { len } else { 0 }, if to_last { len } else { 0 }) } else { (low, high) };
        let start = if from_first { partition.chunk_start(low) } else { low };
        let end = if to_last { partition.chunk_end(high) } else { high };
        Scope { span: start..end.max(start), from_first, to_last, len }
    }

    /// The arguments among the input's columns.
    pub(super) fn input(&self, columns: &[ArrayRef]) -> Result<Input> {
        let column =
            |idx: usize| columns.get(idx).cloned().ok_or_else(|| SqlError::internal(format_args!("no column {idx}")));
        let args = self.args.iter().filter_map(|arg| match arg {
            Arg::Column(idx) => Some(column(*idx)),
            // Accumulators take constants as literals.
            Arg::Constant(_) => None,
        });
        let filter = match self.filter {
            None => None,
            Some(idx) => {
                let flags = column(idx)?;
                let flags = flags.as_boolean_opt().cloned();
                Some(flags.ok_or_else(|| SqlError::internal("a FILTER that is not boolean"))?)
            }
        };
        Ok(Input { columns: args.collect::<Result<_>>()?, filter })
    }

    /// The results; `input` holds the rows of the span.
    pub(super) fn evaluate(
        &self,
        frames: &Frames,
        prepared: &Prepared,
        input: &Input,
        to: &DataType,
    ) -> Result<Results> {
        let scope = &prepared.scope;
        match (&self.method, &prepared.before) {
            (Method::Whole(whole), before) => {
                let outside = if let Before::Whole(outside) = before { Some(outside) } else { None };
                whole.evaluate(frames, scope, outside, input, to)
            }
            (Method::Float(float), before) => {
                let outside = if let Before::Float(outside) = before { Some(outside) } else { None };
                float.evaluate(frames, scope, outside, input, to)
            }
            (Method::Least(least), before) => {
                let outside = if let Before::Least(outside) = before { Some(outside) } else { None };
                least.evaluate(frames, scope, outside, input, to)
            }
            (Method::Other(other), _) => other.evaluate(frames, scope, input),
        }
    }
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}
