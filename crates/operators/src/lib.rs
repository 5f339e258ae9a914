//! The incremental operators, one file each: synchronous, no clock, no IO.
//!
//! An [`Operator`] takes the deltas of one epoch and appends the deltas of its output. It is one shard of one node of
//! a dataflow: rows reach it by the hash of its key columns ([`Plan::distribution`]), so that no two shards share
//! state. [`Plan`] is the plain description that the planner makes, EXPLAIN prints, and [`Plan::build`] turns into
//! running shards.
//!
//! Invariant of every operator: after the steps of epochs `1..=e`, the sum of all output deltas equals the operator's
//! batch function of the sum of all input deltas.

pub mod aggregate;
pub mod arrangement;
pub mod assert;
pub mod budget;
pub mod expr;
pub mod filter;
pub mod flat_map;
pub mod join;
pub mod project;
pub mod recursion;
pub mod single_row;
pub mod top_n;
pub mod union;
pub mod window;

mod consolidate;
#[cfg(test)]
mod testing;

use std::fmt;

use arrow::datatypes::SchemaRef;
pub use consolidate::consolidate;
pub use expr::RowError;
use parking_lot::Mutex;
use tidewire_types::{Delta, Epoch, Result, SqlError};

/// What a step may know of the world.
pub struct StepContext<'a> {
    /// The epoch that is being computed.
    pub epoch: Epoch,
    /// What `now()` is in this epoch: microseconds since 1970-01-01 UTC.
    pub now_us: i64,
    /// Rows that an expression could not be computed for: they are left out of the output and end as dead letters.
    pub row_errors: &'a Mutex<Vec<RowError>>,
}

/// One shard of one node of a running dataflow.
pub trait Operator: Send {
    /// The output before any input came: the single row of a global aggregate. Called once, before the first step.
    fn start(&mut self, _cx: &StepContext<'_>, _out: &mut Vec<Delta>) -> Result<()> {
        Ok(())
    }

    /// Takes this epoch's deltas, one list per input, appends the output deltas. Runs to completion; waits for nothing.
    ///
    /// The inputs may be taken (`std::mem::take`). An error leaves the state unusable: the view has failed.
    fn step(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()>;

    /// As `step`, for a step whose rows come in several calls, the last of which is `step`. An operator that gains by doing
    /// a thing once for all of them ([`Plan::waits_for_step`]) waits for that: an aggregate puts out, a join makes its index.
    fn step_part(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        self.step(inputs, cx, out)
    }

    /// Takes rows that its inputs brought before the server's start, for [`Kept::Inputs`]: afterwards the state is that after
    /// `step` with them. Where an operator has a cheaper way than to compute the output, it takes it. Not every operator can
    /// tell errors in rows here; those in `cx` were told before the start, and mean nothing. Comes instead of `start`.
    fn load(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>) -> Result<()> {
        self.step(inputs, cx, &mut vec![])
    }

    /// After the last `load`, once: what that put off until all rows are there.
    fn end_load(&mut self, _cx: &StepContext<'_>) -> Result<()> {
        Ok(())
    }

    /// For [`Kept::Rows`]: from now on it remembers what changes. Called before the first step (and before or after
    /// `restore`), or not at all.
    fn track_changes(&mut self) {}

    /// For [`Kept::Rows`]: what changed since the last call, as it is now. It copies little, for it runs between two epochs:
    /// what is much is copied by `copy_changes`, and before a step changes it. `may_be_all`: it may say all rows there are,
    /// where that costs little more than what changed.
    fn take_changes(&mut self, _may_be_all: bool) -> Result<StateChanges> {
        Ok(StateChanges { is_all_for: None, rows: Box::new(|| Ok(vec![])) })
    }

    /// For [`Kept::Rows`]: copies about so many bytes more of what `take_changes` has said. Returns how many; 0: nothing is
    /// left to copy.
    fn copy_changes(&mut self, _n_bytes_max: usize) -> usize {
        0
    }

    /// For [`Kept::Rows`]: takes rows that `take_changes` gave before the server's start; each once, and instead of `start`.
    fn restore(&mut self, _rows: &Delta) -> Result<()> {
        Err(SqlError::internal("an operator that keeps no rows of its own"))
    }

    /// How many rows there are that may not be: while there are any, the output means nothing, and who reads it gets
    /// [`assert::several_rows`]. See [`Plan::Assert`].
    fn n_violations(&self) -> i64 {
        0
    }

    /// Bytes of memory that the state holds, allocated and not only used.
    fn state_bytes(&self) -> usize {
        0
    }

    /// Rows (groups, join rows, ..) that the state holds.
    fn state_rows(&self) -> usize {
        0
    }
}

/// What changed in an operator's state, or all of it. See [`Kept::Rows`].
pub struct StateChanges {
    /// The rows are all there are, and so many of them changed. None: they are what changed.
    pub is_all_for: Option<usize>,
    /// Makes the rows, on another thread: it waits until all is copied. With a key, each key comes once, or twice where it
    /// was removed first. Errors: the operator is gone before that.
    pub rows: Box<dyn FnOnce() -> Result<Vec<Delta>> + Send>,
}

/// How a checkpoint keeps the state of an operator.
#[derive(Clone, Debug)]
pub enum Kept {
    /// There is none.
    Nothing,
    /// The state follows from the sum of what each input brought, however that was cut into steps: a checkpoint keeps
    /// the sums, one relation an input, and [`Operator::load`] takes them.
    Inputs,
    /// The operator hands over rows of this schema ([`Operator::take_changes`]) and takes them back ([`Operator::restore`]).
    Rows {
        /// Columns of the rows.
        schema: SchemaRef,
        /// How many of the first columns are a key: the newest row of a key counts, and a row of weight -1 says that
        /// there is none any more (its other columns mean nothing). None: a bag, weights add up.
        n_key_columns: Option<usize>,
    },
}

/// How the rows of one input must be spread over the shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Any shard will do.
    Any,
    /// Equal values of these columns (of the input) on the same shard. No columns: all rows on the first shard.
    Hash(Vec<usize>),
}

/// What a node of a dataflow does: one variant an operator, each with the parameters its own file documents.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Keeps the rows a predicate is true for.
    Filter(filter::Filter),
    /// Computes columns.
    Project(project::Project),
    /// Calls set-returning functions.
    FlatMap(flat_map::FlatMap),
    /// WITH RECURSIVE.
    Recursion(Box<recursion::Recursion>),
    /// Puts its inputs together, as UNION ALL.
    Union(union::Union),
    /// GROUP BY, DISTINCT and global aggregates.
    Aggregate(aggregate::Aggregate),
    /// Joins of two inputs.
    Join(join::Join),
    /// ORDER BY .. LIMIT, per key or over all.
    TopN(top_n::TopN),
    /// A scalar subquery: exactly one row comes out.
    SingleRow(single_row::SingleRow),
    /// Where a scalar subquery's value is asked for: the rows that have one.
    Assert(assert::Assert),
    /// Functions OVER windows.
    Window(window::Window),
}

impl Plan {
    /// The name as EXPLAIN shows it, in DataFusion's manner.
    pub fn name(&self) -> &'static str {
        match self {
            Plan::Filter(_) => "IncrementalFilterExec",
            Plan::Project(_) => "IncrementalProjectionExec",
            Plan::FlatMap(_) => "IncrementalFlatMapExec",
            Plan::Recursion(_) => "IncrementalRecursionExec",
            Plan::Union(_) => "IncrementalUnionExec",
            Plan::Aggregate(_) => "IncrementalAggregateExec",
            Plan::Join(_) => "IncrementalJoinExec",
            Plan::TopN(_) => "IncrementalTopNExec",
            Plan::SingleRow(_) => "IncrementalSingleRowExec",
            Plan::Assert(_) => "IncrementalAssertExec",
            Plan::Window(_) => "IncrementalWindowExec",
        }
    }

    /// The schema of the output rows.
    pub fn schema(&self) -> SchemaRef {
        match self {
            Plan::Filter(p) => p.schema.clone(),
            Plan::Project(p) => p.schema.clone(),
            Plan::FlatMap(p) => p.schema.clone(),
            Plan::Recursion(p) => p.schema.clone(),
            Plan::Union(p) => p.schema.clone(),
            Plan::Aggregate(p) => p.schema.clone(),
            Plan::Join(p) => p.schema.clone(),
            Plan::TopN(p) => p.schema.clone(),
            Plan::SingleRow(p) => p.schema.clone(),
            Plan::Assert(p) => p.schema.clone(),
            Plan::Window(p) => p.schema.clone(),
        }
    }

    /// How the rows of input `input_idx` must reach the shards.
    pub fn distribution(&self, input_idx: usize) -> Distribution {
        match self {
            Plan::Filter(_) | Plan::Project(_) | Plan::FlatMap(_) | Plan::Union(_) => Distribution::Any,
            Plan::Aggregate(p) => Distribution::Hash(p.keys.clone()),
            Plan::Join(p) => Distribution::Hash(p.shard_keys(input_idx).to_vec()),
            Plan::TopN(p) => Distribution::Hash(p.partition_by.clone()),
            Plan::SingleRow(_) | Plan::Assert(_) | Plan::Recursion(_) => Distribution::Hash(vec![]),
            Plan::Window(p) => Distribution::Hash(p.partition_by.clone()),
        }
    }

    /// Whether [`Operator::step_part`] leaves something for the next `step`, which then must be called.
    pub fn waits_for_step(&self) -> bool {
        matches!(self, Plan::Aggregate(_) | Plan::Join(_))
    }

    /// How a checkpoint keeps the state of a shard.
    pub fn kept(&self) -> Kept {
        match self {
            Plan::Filter(_) | Plan::Project(_) | Plan::FlatMap(_) | Plan::Union(_) => Kept::Nothing,
            Plan::Aggregate(p) => p.kept(),
            Plan::TopN(p) => p.kept(),
            Plan::Assert(p) => p.kept(),
            Plan::Join(_) | Plan::SingleRow(_) | Plan::Recursion(_) | Plan::Window(_) => Kept::Inputs,
        }
    }

    /// What the columns of [`Kept::Rows`] mean beyond their schema: rows of another version cannot be taken back.
    pub fn state_version(&self) -> u32 {
        match self {
            Plan::Aggregate(_) => aggregate::STATE_VERSION,
            _ => 0,
        }
    }

    /// A running shard, with empty state. `shard_idx` of 0 is the one that rows without a key go to; it alone makes
    /// the rows that exist before any input (see [`Operator::start`]).
    pub fn build(&self, shard_idx: usize) -> Result<Box<dyn Operator>> {
        match self {
            Plan::Filter(p) => p.build(),
            Plan::Project(p) => p.build(),
            Plan::FlatMap(p) => p.build(),
            Plan::Recursion(p) => p.build(),
            Plan::Union(p) => p.build(),
            Plan::Aggregate(p) => p.build(shard_idx),
            Plan::Join(p) => p.build(),
            Plan::TopN(p) => p.build(),
            Plan::SingleRow(p) => p.build(shard_idx),
            Plan::Assert(p) => p.build(),
            Plan::Window(p) => p.build(),
        }
    }
}

/// One line of parameters, as EXPLAIN shows them behind the name.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Plan::Filter(p) => p.fmt(f),
            Plan::Project(p) => p.fmt(f),
            Plan::FlatMap(p) => p.fmt(f),
            Plan::Recursion(p) => p.fmt(f),
            Plan::Union(p) => p.fmt(f),
            Plan::Aggregate(p) => p.fmt(f),
            Plan::Join(p) => p.fmt(f),
            Plan::TopN(p) => p.fmt(f),
            Plan::SingleRow(p) => p.fmt(f),
            Plan::Assert(p) => p.fmt(f),
            Plan::Window(p) => p.fmt(f),
        }
    }
}
