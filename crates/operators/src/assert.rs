//! Rows that may not be: a scalar subquery's second row, where the subquery's value is asked for.
//!
//! While there are such rows, the query has no value: that is `21000` for whoever reads the view. The operator counts
//! them and lets the others through; when the last one has left, all is as if they had never been.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::physical_plan::PhysicalExpr;
use tidewire_types::{Delta, Result, SqlError, SqlState};

use crate::expr::evaluate;
use crate::filter::keep;
use crate::{Kept, Operator, StateChanges, StepContext};

/// Parameters of the operator. All rows go to shard 0, so that what it counts is never negative.
#[derive(Clone, Debug)]
pub struct Assert {
    /// A boolean expression over the input's columns: true for the rows that may not be.
    pub violated: Arc<dyn PhysicalExpr>,
    /// Schema of input and output.
    pub schema: SchemaRef,
}

impl Assert {
    /// A running shard.
    pub fn build(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(AssertShard { violated: [Arc::clone(&self.violated)], n_violations: 0, is_changed: false }))
    }

    pub(crate) fn kept(&self) -> Kept {
        Kept::Rows { schema: kept_schema(), n_key_columns: Some(0) }
    }
}

/// What is wrong while there are violations.
pub const SEVERAL_ROWS: &str = "more than one row returned by a subquery used as an expression";

/// `21000`: what a reader is told while there are violations.
pub fn several_rows() -> SqlError {
    SqlError::new(SqlState::CardinalityViolation, SEVERAL_ROWS)
}

struct AssertShard {
    violated: [Arc<dyn PhysicalExpr>; 1],
    n_violations: i64,
    /// Since the last checkpoint.
    is_changed: bool,
}

impl Operator for AssertShard {
    fn step(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        for delta in inputs.iter_mut().flat_map(std::mem::take).filter(|d| !d.is_empty()) {
            let (columns, delta) = evaluate(&self.violated, delta, cx)?;
            let violated = columns.first().and_then(|column| column.as_boolean_opt());
            let violated = violated.ok_or_else(|| SqlError::internal("an assertion that is not boolean"))?;
            if violated.true_count() == 0 {
                out.push(delta);
                continue;
            }
            let violated = match violated.nulls() {
                Some(known) => violated.values() & known.inner(),
                None => violated.values().clone(),
            };
            let weights = violated.set_indices().map(|idx| delta.weight(idx));
            self.n_violations = weights.fold(self.n_violations, i64::saturating_add);
            self.is_changed = true;
            let others: ArrayRef = Arc::new(BooleanArray::from(!&violated));
            out.extend(keep(Some(&others), delta)?);
        }
        Ok(())
    }

    fn take_changes(&mut self, _: bool) -> Result<StateChanges> {
        let (is_changed, n_violations) = (std::mem::take(&mut self.is_changed), self.n_violations);
        let rows = move || {
            if !is_changed {
                return Ok(vec![]);
            }
            let row = RecordBatch::try_new(kept_schema(), vec![Arc::new(Int64Array::from(vec![n_violations]))])?;
            Ok(vec![if n_violations == 0 { Delta::delete(row) } else { Delta::insert(row) }])
        };
        Ok(StateChanges { is_all_for: None, rows: Box::new(rows) })
    }

    fn restore(&mut self, rows: &Delta) -> Result<()> {
        let counts = rows.rows().columns().first().and_then(|column| column.as_primitive_opt::<Int64Type>());
        let counts = counts.ok_or_else(|| SqlError::internal("a count of another type"))?;
        self.n_violations = counts.iter().flatten().fold(self.n_violations, i64::saturating_add);
        Ok(())
    }

    fn n_violations(&self) -> i64 {
        self.n_violations
    }

    fn state_rows(&self) -> usize {
        usize::from(self.n_violations != 0)
    }
}

fn kept_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n_violations", DataType::Int64, false)]))
}

impl fmt::Display for Assert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "violated={}", self.violated)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::Operator as BinaryOperator;
    use datafusion::physical_expr::expressions::{binary, col, lit};

    use super::*;
    use crate::Plan;
    use crate::testing::{Random, Steps, Value, batch, check_operator, schema};

    fn assert_over(schema: &SchemaRef) -> Assert {
        let violated = binary(col("n", schema).unwrap(), BinaryOperator::Gt, lit(1i64), schema).unwrap();
        Assert { violated, schema: schema.clone() }
    }

    fn input() -> SchemaRef {
        schema(vec![Field::new("n", DataType::Int64, true), Field::new("b", DataType::Utf8View, true)])
    }

    #[test]
    fn lets_the_other_rows_through() {
        check_operator(&[input()], &Plan::Assert(assert_over(&input())), |inputs| {
            inputs[0].iter().filter(|row| !matches!(row[0], Value::Int(n) if n > 1)).cloned().collect()
        });
    }

    #[test]
    fn counts_what_may_not_be() {
        let (schema, mut random) = (input(), Random::new(1));
        let mut operator = assert_over(&schema).build().unwrap();
        let steps = Steps::default();
        let mut present = vec![];
        for epoch in 1..=60 {
            let is_removal = epoch > 40 || (random.below(3) == 0 && !present.is_empty());
            let n = if is_removal { present.pop().unwrap_or(0) } else { random.below(4) as i64 };
            let rows = batch(&schema, &[&vec![Value::Int(n), Value::Null]]);
            let delta = if is_removal { Delta::delete(rows) } else { Delta::insert(rows) };
            if !is_removal {
                present.push(n);
            }
            operator.step(&mut [vec![delta]], &steps.context(epoch), &mut vec![]).unwrap();
            assert_eq!(operator.n_violations(), present.iter().filter(|n| **n > 1).count() as i64);
        }
        assert_eq!((operator.n_violations(), operator.state_rows()), (0, 0));
    }
}
