//! ORDER BY .. LIMIT .. OFFSET, over all rows or per key.

use std::fmt;

use arrow::datatypes::SchemaRef;
use tidewire_types::{Result, SqlError};

use crate::Operator;

/// One column of an ORDER BY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// Column of the input.
    pub column: usize,
    /// Largest first.
    pub descending: bool,
    /// NULLs before all other values.
    pub nulls_first: bool,
}

/// Parameters of the operator.
#[derive(Clone, Debug)]
pub struct TopN {
    /// Columns that divide the rows into partitions; none: one partition.
    pub partition_by: Vec<usize>,
    /// The order; rows that are equal in it are ordered by all their columns, so that the result is a function of the
    /// input.
    pub order_by: Vec<SortKey>,
    /// Rows left out at the beginning of each partition.
    pub offset: u64,
    /// Rows kept behind those; `None`: all.
    pub limit: Option<u64>,
    /// The input never removes rows: only what can still matter needs to be kept.
    pub append_only: bool,
    /// Schema of input and output.
    pub schema: SchemaRef,
}

impl TopN {
    /// A running shard.
    pub fn build(&self) -> Result<Box<dyn Operator>> {
        Err(SqlError::internal("to be written"))
    }
}

impl fmt::Display for TopN {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order_by={:?}, limit={:?}, offset={}", self.order_by, self.limit, self.offset)
    }
}
