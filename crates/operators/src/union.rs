//! Puts its inputs together, as UNION ALL. Linear: needs no state, copies nothing.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use tidewire_types::{Delta, Result};

use crate::{Operator, StepContext};

/// Parameters of the operator. The planner has given all inputs the types of `schema`; their column names may differ.
#[derive(Clone, Debug)]
pub struct Union {
    /// Schema of the output.
    pub schema: SchemaRef,
}

impl Union {
    /// A running shard.
    pub fn build(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(UnionShard { schema: Arc::clone(&self.schema) }))
    }
}

struct UnionShard {
    schema: SchemaRef,
}

impl Operator for UnionShard {
    fn step(&mut self, inputs: &mut [Vec<Delta>], _: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        for delta in inputs.iter_mut().flat_map(std::mem::take).filter(|d| !d.is_empty()) {
            let (rows, weights) = delta.into_parts();
            let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
            let (_, columns, _) = rows.into_parts();
            let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
            out.push(Delta::new(rows, weights));
        }
        Ok(())
    }
}

impl fmt::Display for Union {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::testing::{check_operator, schema};

    #[test]
    fn equals_both_inputs_together() {
        let left = schema(vec![Field::new("a", DataType::Int64, true)]);
        let right = schema(vec![Field::new("other", DataType::Int64, true)]);
        let union = Union { schema: left.clone() };
        check_operator(&[left, right], &crate::Plan::Union(union), |inputs| inputs.concat());
    }
}
