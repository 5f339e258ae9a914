//! Keeps the rows that a predicate is true for (not false, not NULL). Linear: needs no state.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::physical_plan::PhysicalExpr;
use tidewire_types::{Result, SqlError};

use crate::Operator;

/// Parameters of the operator.
#[derive(Clone, Debug)]
pub struct Filter {
    /// A boolean expression over the input's columns.
    pub predicate: Arc<dyn PhysicalExpr>,
    /// Schema of input and output.
    pub schema: SchemaRef,
}

impl Filter {
    /// A running shard.
    pub fn build(&self) -> Result<Box<dyn Operator>> {
        Err(SqlError::internal("to be written"))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "predicate={}", self.predicate)
    }
}
