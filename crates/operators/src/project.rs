//! Computes columns from the columns of its input. Linear: needs no state. A plain column is shared, not copied.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::physical_plan::PhysicalExpr;
use tidewire_types::{Delta, Result};

use crate::expr::evaluate;
use crate::{Operator, StepContext};

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
        Ok(Box::new(ProjectShard { plan: self.clone() }))
    }
}

struct ProjectShard {
    plan: Project,
}

impl Operator for ProjectShard {
    fn step(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        for delta in inputs.iter_mut().flat_map(std::mem::take).filter(|d| !d.is_empty()) {
            let (columns, delta) = evaluate(&self.plan.exprs, delta, cx)?;
            if delta.is_empty() {
                continue;
            }
            // A row without columns (`SELECT FROM t`) still counts.
            let options = RecordBatchOptions::new().with_row_count(Some(delta.n_rows()));
            let rows = RecordBatch::try_new_with_options(Arc::clone(&self.plan.schema), columns, &options)?;
            out.push(delta.with_rows(rows));
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use datafusion::logical_expr::Operator as BinaryOperator;
    use datafusion::physical_expr::expressions::{binary, col, lit};

    use super::*;
    use crate::testing::{Value, check_operator, schema};

    #[test]
    fn equals_the_projected_input() {
        let input = schema(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8View, true)]);
        let sum = binary(col("a", &input).unwrap(), BinaryOperator::Plus, lit(1i64), &input).unwrap();
        let project = Project {
            exprs: vec![col("b", &input).unwrap(), sum],
            schema: schema(vec![Field::new("b", DataType::Utf8View, true), Field::new("c", DataType::Int64, true)]),
        };
        check_operator(&[input], &crate::Plan::Project(project), |inputs| {
            let plus_one = |v: &Value| if let Value::Int(a) = v { Value::Int(a + 1) } else { Value::Null };
            inputs[0].iter().map(|r| vec![r[1].clone(), plus_one(&r[0])]).collect()
        });
    }
}
