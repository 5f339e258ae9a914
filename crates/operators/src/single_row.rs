//! A scalar subquery: exactly one row comes out, all NULL while the input is empty. A second row is a state in which
//! the subquery has no value: readers of the view get `21000`, and the view heals when the row leaves.

use std::fmt;

use arrow::datatypes::SchemaRef;
use tidewire_types::{Result, SqlError};

use crate::Operator;

/// Parameters of the operator. All rows go to shard 0.
#[derive(Clone, Debug)]
pub struct SingleRow {
    /// Schema of input and output, all columns nullable.
    pub schema: SchemaRef,
}

impl SingleRow {
    /// A running shard; only shard 0 puts out a row.
    pub fn build(&self, _shard_idx: usize) -> Result<Box<dyn Operator>> {
        Err(SqlError::internal("to be written"))
    }
}

impl fmt::Display for SingleRow {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
