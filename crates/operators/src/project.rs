//! Computes columns from the columns of its input. Linear: needs no state.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::physical_plan::PhysicalExpr;
use tidewire_types::{Result, SqlError};

use crate::Operator;

/// Parameters of the operator.
#[derive(Clone, Debug)]
pub struct Project {
    /// One expression an output column, over the input's columns.
    pub exprs: Vec<Arc<dyn PhysicalExpr>>,
    /// Schema of the output; its types are those of the expressions.
    pub schema: SchemaRef,
}

impl Project {
    /// A running shard.
    pub fn build(&self) -> Result<Box<dyn Operator>> {
        Err(SqlError::internal("to be written"))
    }
}

impl fmt::Display for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expr=[")?;
        for (idx, (expr, field)) in self.exprs.iter().zip(self.schema.fields()).enumerate() {
            write!(f, "{}{expr} as {}", if idx == 0 { "" } else { ", " }, field.name())?;
        }
        f.write_str("]")
    }
}
