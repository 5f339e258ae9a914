//! GROUP BY: one row a group, kept up to date. Also DISTINCT (keys, no calls) and global aggregates (no keys).
//!
//! A step resolves the groups of a whole batch first, copies the state of each group as it is touched for the first
//! time, then lets every accumulator take the batch, and at its end puts out the old and the new row of the groups whose
//! result is another one.
//!
//! A result that does not fit its type (a bigint sum) makes no row: it is a row error once, and the group's row comes back when
//! the result fits again.
//!
//! Invariant: after a step, `slots` hold exactly the groups that have rows (and the one of a global aggregate).
//! The shape follows measurements: `groups` has the reasons.

mod accumulate;
mod arena;
mod batch;
mod bits;
mod codec;
mod distinct;
mod exact_sum;
mod extremes;
mod feed;
pub mod functions;
mod groups;
mod kept;
mod keys;
mod layout;
mod lists;
mod multiset;
pub mod numeric;
mod ordered;
mod ranked;
mod shard;
mod statistics;
mod totals;
mod values;
mod words;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::logical_expr::AggregateUDF;
pub use kept::STATE_VERSION;
pub use lists::{List, json_list, json_members, json_text};
pub use ordered::Ordered;
pub use statistics::Statistic;
use tidewire_types::Result;

use crate::Operator;
use crate::top_n::SortKey;

pub(crate) use exact_sum::ExactSum;

/// Parameters of the operator. The planner has projected the input: keys, arguments and filters are plain columns.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// Columns of the input that make the group key. None: one group that exists even without rows.
    pub keys: Vec<usize>,
    /// What is computed for each group.
    pub calls: Vec<Call>,
    /// The input never removes rows: min and max need only their value, and no group ever leaves.
    pub append_only: bool,
    /// Schema of the input: its types and what may be NULL decide how the state lies.
    pub input: SchemaRef,
    /// Schema of the output: the keys, then one column a call.
    pub schema: SchemaRef,
}

/// One aggregate function over a group.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which.
    pub function: Function,
    /// Columns of the input; empty for `count(*)`.
    pub args: Vec<usize>,
    /// Each distinct argument counts once.
    pub distinct: bool,
    /// A boolean column of the input: only rows where it is true count.
    pub filter: Option<usize>,
    /// Order of the rows in the group, for functions that depend on it.
    pub order_by: Vec<SortKey>,
    /// Rows whose first argument is NULL are left out.
    pub ignore_nulls: bool,
    /// Name and type of the result.
    pub field: FieldRef,
}

/// Aggregate functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Function {
    /// `count(*)` and `count(x)`, bigint.
    Count,
    /// `sum(x)`; NULL over no values; `22003` on overflow. The result type is the call's field.
    Sum,
    /// `avg(x)`: sum divided by count, in the type of the call's field.
    Avg,
    /// `min(x)` of any ordered type.
    Min,
    /// `max(x)` of any ordered type.
    Max,
    /// `bool_and(x)`, `every(x)`
    BoolAnd,
    /// `bool_or(x)`
    BoolOr,
    /// `bit_and(x)` of integers
    BitAnd,
    /// `bit_or(x)`
    BitOr,
    /// `bit_xor(x)`
    BitXor,
    /// Rows put together in order.
    List(List),
    /// Percentiles, mode, hypothetical ranks.
    Ordered(Ordered),
    /// Variance, covariance, correlation, regression.
    Statistic(Statistic),
    /// Any other DataFusion aggregate: the group's rows are kept as a multiset and touched groups are evaluated again.
    Other(Arc<AggregateUDF>),
}

impl Aggregate {
    /// A running shard; only shard 0 holds the group of a global aggregate.
    pub fn build(&self, shard_idx: usize) -> Result<Box<dyn Operator>> {
        Ok(Box::new(shard::AggregateShard::new(self.clone(), shard_idx)))
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gby={:?}, aggr={:?}", self.keys, self.calls.iter().map(|c| c.field.name()).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests;
