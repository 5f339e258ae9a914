//! Keeps the rows that a predicate is true for (not false, not NULL). Linear: needs no state.

use std::fmt;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute;
use arrow::datatypes::SchemaRef;
use datafusion::physical_plan::PhysicalExpr;
use tidewire_types::{Delta, Result, SqlError};

use crate::expr::evaluate;
use crate::{Operator, StepContext};

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
        Ok(Box::new(FilterShard { predicate: [Arc::clone(&self.predicate)] }))
    }
}

struct FilterShard {
    predicate: [Arc<dyn PhysicalExpr>; 1],
}

impl Operator for FilterShard {
    fn step(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        for delta in inputs.iter_mut().flat_map(std::mem::take).filter(|d| !d.is_empty()) {
            let (columns, delta) = evaluate(&self.predicate, delta, cx)?;
            out.extend(keep(columns.first(), delta)?);
        }
        Ok(())
    }
}

/// The rows of `delta` where `mask` is true; the same delta where it always is.
pub(crate) fn keep(mask: Option<&arrow::array::ArrayRef>, delta: Delta) -> Result<Option<Delta>> {
    let Some(mask) = mask.and_then(|m| m.as_boolean_opt()) else {
        return Err(SqlError::internal("a filter's predicate is not boolean"));
    };
    match mask.true_count() {
        0 => Ok(None),
        n if n == delta.n_rows() => Ok(Some(delta)),
        _ => {
            let rows = compute::filter_record_batch(delta.rows(), mask)?;
            let weights = match delta.weights() {
                None => None,
                Some(weights) => Some(compute::filter(weights, mask)?.as_primitive().clone()),
            };
            Ok(Some(Delta::new(rows, weights)))
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "predicate={}", self.predicate)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use datafusion::logical_expr::Operator as BinaryOperator;
    use datafusion::physical_expr::expressions::{binary, col, lit};

    use super::*;
    use crate::testing::{Value, check_operator, schema};

    #[test]
    fn equals_the_filtered_input() {
        let schema = schema(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8View, true)]);
        let predicate = binary(col("a", &schema).unwrap(), BinaryOperator::Gt, lit(2i64), &schema).unwrap();
        let filter = Filter { predicate, schema: schema.clone() };
        check_operator(&[schema], &crate::Plan::Filter(filter), |inputs| {
            inputs[0].iter().filter(|r| matches!(r[0], Value::Int(a) if a > 2)).cloned().collect()
        });
    }
}
