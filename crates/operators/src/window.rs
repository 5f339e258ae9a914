//! OVER: window functions over ordered partitions, kept up to date.
//!
//! Each partition keeps its rows in order. A step finds the runs of rows that its changes can reach, given the
//! functions and their frames (`reach`), evaluates those before and after the changes, and puts out the rows whose
//! results differ. Nothing but the rows is kept: results are a function of the partition's rows in their order, so that
//! what is taken back is exactly what was put out.
//!
//! Rows that are equal in the ORDER BY are ordered by all their columns. So `row_number()` over ties is a function of the
//! rows, and the batch query, which runs this very operator over all rows at once, numbers them alike.
//!
//! Invariant: a partition's rows are those of the input, in order, with their counts, none of them 0.
//! Semantics: PostgreSQL's `nodeWindowAgg.c`, and its `in_range` functions for RANGE.

mod aggregate;
mod encoding;
mod evaluate;
mod frame;
mod groups;
mod partition;
mod range;
mod reach;
mod shard;

use std::fmt;

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::common::ScalarValue;
use tidewire_types::Result;

use crate::Operator;
use crate::top_n::SortKey;

/// Parameters of the operator: all functions over one PARTITION BY and ORDER BY.
#[derive(Clone, Debug)]
pub struct Window {
    /// Columns that divide the rows into partitions; none: one partition.
    pub partition_by: Vec<usize>,
    /// The order in a partition; rows that are equal in it are peers.
    pub order_by: Vec<SortKey>,
    /// All columns of the input, in the order in which they tell peers apart.
    pub tie_break: Vec<usize>,
    /// What is computed for each row.
    pub calls: Vec<Call>,
    /// Schema of the output: the input's columns, then one column a call.
    pub schema: SchemaRef,
}

/// One function over the window.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which.
    pub function: Function,
    /// Its arguments.
    pub args: Vec<Arg>,
    /// A boolean column of the input: an aggregate sees only rows where it is true.
    pub filter: Option<usize>,
    /// The rows that a value function or an aggregate looks at.
    pub frame: Frame,
    /// Name and type of the result.
    pub field: FieldRef,
}

/// An argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    /// A column of the input.
    Column(usize),
    /// The same for all rows.
    Constant(ScalarValue),
}

/// Window functions, by PostgreSQL's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Function {
    /// `row_number()`
    RowNumber,
    /// `rank()`
    Rank,
    /// `dense_rank()`
    DenseRank,
    /// `percent_rank()`
    PercentRank,
    /// `cume_dist()`
    CumeDist,
    /// `ntile(n)`; `22014` where n is not positive.
    Ntile,
    /// `lag(value [, offset [, default]])`
    Lag,
    /// `lead(value [, offset [, default]])`
    Lead,
    /// `first_value(value)`
    FirstValue,
    /// `last_value(value)`
    LastValue,
    /// `nth_value(value, n)`; `22016` where n is not positive.
    NthValue,
    /// An aggregate over the frame.
    Aggregate(crate::aggregate::Function),
}

/// Which rows around the current one a function sees.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// What offsets count.
    pub units: Units,
    /// Where the frame begins.
    pub start: Bound,
    /// Where it ends.
    pub end: Bound,
    /// What is left out of it.
    pub exclude: Exclude,
}

impl Frame {
    /// The frame of an OVER without one: RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW.
    pub fn standard() -> Frame {
        Frame {
            units: Units::Range,
            start: Bound::UnboundedPreceding,
            end: Bound::CurrentRow,
            exclude: Exclude::NoOthers,
        }
    }
}

/// What offsets count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// Rows.
    Rows,
    /// Groups of peers.
    Groups,
    /// The distance between values of the ORDER BY column.
    Range,
}

/// One end of a frame. Offsets are bigints for ROWS and GROUPS, and what is added to the ORDER BY column for RANGE.
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    /// The partition's first row.
    UnboundedPreceding,
    /// So far before the current row.
    Preceding(ScalarValue),
    /// The current row; its peers too, but for ROWS.
    CurrentRow,
    /// So far behind the current row.
    Following(ScalarValue),
    /// The partition's last row.
    UnboundedFollowing,
}

/// Which rows are left out of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclude {
    /// None.
    NoOthers,
    /// The current row.
    CurrentRow,
    /// The current row and its peers.
    Group,
    /// The current row's peers, but not itself.
    Ties,
}

impl Window {
    /// A running shard. Errors: as `check`.
    pub fn build(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(shard::WindowShard::new(self.clone())?))
    }
}

impl Frame {
    /// Checks offsets; `order_by` is the type of the ORDER BY column where there is just one.
    ///
    /// Errors: `22004` for NULL, `22013` for a negative offset, `0A000` for a RANGE over a type that cannot be added to.
    pub fn check(&self, order_by: Option<&DataType>) -> Result<()> {
        frame::Edges::new(self, order_by).map(|_| ())
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls: Vec<_> = self.calls.iter().map(|c| format!("{:?}", c.function)).collect();
        write!(f, "partition_by={:?}, order_by={:?}, calls=[{}]", self.partition_by, self.order_by, calls.join(", "))
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = match self.units {
            Units::Rows => "ROWS",
            Units::Groups => "GROUPS",
            Units::Range => "RANGE",
        };
        let exclude = match self.exclude {
            Exclude::NoOthers => "",
            Exclude::CurrentRow => " EXCLUDE CURRENT ROW",
            Exclude::Group => " EXCLUDE GROUP",
            Exclude::Ties => " EXCLUDE TIES",
        };
        write!(f, "{units} BETWEEN {} AND {}{exclude}", self.start, self.end)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::UnboundedPreceding => f.write_str("UNBOUNDED PRECEDING"),
            Bound::Preceding(offset) => write!(f, "{offset} PRECEDING"),
            Bound::CurrentRow => f.write_str("CURRENT ROW"),
            Bound::Following(offset) => write!(f, "{offset} FOLLOWING"),
            Bound::UnboundedFollowing => f.write_str("UNBOUNDED FOLLOWING"),
        }
    }
}

#[cfg(test)]
mod tests;
