//! Puts its inputs together, as UNION ALL. Linear: needs no state.

use std::fmt;

use arrow::datatypes::SchemaRef;
use tidewire_types::{Result, SqlError};

use crate::Operator;

/// Parameters of the operator. The planner has given all inputs the types of `schema`; their column names may differ.
#[derive(Clone, Debug)]
pub struct Union {
    /// Schema of the output.
    pub schema: SchemaRef,
}

impl Union {
    /// A running shard.
    pub fn build(&self) -> Result<Box<dyn Operator>> {
        Err(SqlError::internal("to be written"))
    }
}

impl fmt::Display for Union {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
