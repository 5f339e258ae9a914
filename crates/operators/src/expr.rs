//! Evaluation of DataFusion expressions over deltas, row errors included.
//!
//! Expressions are evaluated a batch at a time. When that fails (a division by zero, a bad cast), the batch is
//! bisected until the offending rows are alone: those become [`RowError`]s, the others go on.
//!
//! Invariant: every row of a delta comes out exactly once, either among the columns or as a row error.

mod errors;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::physical_plan::PhysicalExpr;
pub use errors::{sql_error, to_datafusion};
use tidewire_types::{Delta, Result, SqlError, SqlState};

use crate::StepContext;

/// The value of a row. Of an array it keeps what the field of its items says, which DataFusion's own way forgets.
pub fn scalar(column: &ArrayRef, row_idx: usize) -> datafusion::common::Result<ScalarValue> {
    match column.as_list_opt::<i32>() {
        Some(lists) => Ok(ScalarValue::List(Arc::new(lists.slice(row_idx, 1)))),
        None => ScalarValue::try_from_array(column, row_idx),
    }
}

/// A row that an expression could not be computed for.
#[derive(Clone, Debug)]
pub struct RowError {
    /// The row, as the operator saw it (one row).
    pub row: RecordBatch,
    /// How many copies the delta added or removed.
    pub weight: i64,
    /// The expression, as EXPLAIN prints it.
    pub expr: String,
    /// Why it failed.
    pub error: SqlError,
}

/// Evaluates `exprs` over the rows of `delta`.
///
/// Returns the columns, one an expression, and the delta without the rows that failed (the same delta where none
/// did), row for row with the columns. Errors: `53200`, because memory that is short is not the fault of a row.
pub fn evaluate(exprs: &[Arc<dyn PhysicalExpr>], delta: Delta, cx: &StepContext<'_>) -> Result<(Vec<ArrayRef>, Delta)> {
    if let Ok(columns) = columns_of(exprs, delta.rows()) {
        return Ok((columns, delta));
    }
    let expr_of = |row: &RecordBatch| {
        let failed = exprs.iter().find(|e| columns_of(&[Arc::clone(e)], row).is_err());
        failed.map(ToString::to_string).unwrap_or_default()
    };
    let parts = by_parts(&delta, cx, &expr_of, &|rows| columns_of(exprs, rows))?;
    join_parts(exprs, &delta, &parts)
}

/// Runs `compute` over the rows of `delta`: over all of them, or over the runs between those that it fails for, which
/// become row errors. `expr_of` names what failed for one row. Errors: `53200`, as [`evaluate`].
pub(crate) fn by_parts<T>(
    delta: &Delta,
    cx: &StepContext<'_>,
    expr_of: &dyn Fn(&RecordBatch) -> String,
    compute: &dyn Fn(&RecordBatch) -> Result<T, DataFusionError>,
) -> Result<Vec<Part<T>>> {
    let mut search = Search { compute, expr_of, delta, good: vec![], errors: vec![] };
    search.bisect(0, delta.n_rows())?;
    cx.row_errors.lock().extend(search.errors);
    Ok(search.good)
}

/// The columns of every expression, or the first error.
pub(crate) fn columns_of(
    exprs: &[Arc<dyn PhysicalExpr>],
    rows: &RecordBatch,
) -> Result<Vec<ArrayRef>, DataFusionError> {
    exprs.iter().map(|expr| expr.evaluate(rows)?.into_array(rows.num_rows())).collect()
}

/// A run of rows that could be computed.
pub(crate) struct Part<T> {
    pub(crate) offset: usize,
    pub(crate) len: usize,
    pub(crate) value: T,
}

struct Search<'a, T> {
    compute: &'a dyn Fn(&RecordBatch) -> Result<T, DataFusionError>,
    expr_of: &'a dyn Fn(&RecordBatch) -> String,
    delta: &'a Delta,
    good: Vec<Part<T>>,
    errors: Vec<RowError>,
}

impl<T> Search<'_, T> {
    fn bisect(&mut self, offset: usize, len: usize) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let rows = self.delta.rows().slice(offset, len);
        match (self.compute)(&rows) {
            Ok(value) => self.good.push(Part { offset, len, value }),
            Err(_) if len > 1 => {
                self.bisect(offset, len / 2)?;
                self.bisect(offset + len / 2, len - len / 2)?;
            }
            Err(error) => {
                let error = sql_error(error);
                if error.state() == SqlState::OutOfMemory {
                    return Err(error);
                }
                let (expr, weight) = ((self.expr_of)(&rows), self.delta.weight(offset));
                self.errors.push(RowError { row: rows, weight, expr, error });
            }
        }
        Ok(())
    }
}

/// Puts the runs together again: columns and the delta's own rows.
fn join_parts(
    exprs: &[Arc<dyn PhysicalExpr>],
    delta: &Delta,
    parts: &[Part<Vec<ArrayRef>>],
) -> Result<(Vec<ArrayRef>, Delta)> {
    let schema = delta.schema();
    if parts.is_empty() {
        let empty = Delta::empty(schema);
        let columns = columns_of(exprs, empty.rows()).map_err(sql_error)?;
        return Ok((columns, empty));
    }
    let columns = (0..exprs.len())
        .map(|idx| {
            let arrays: Vec<&dyn Array> = parts.iter().filter_map(|p| p.value.get(idx)).map(AsRef::as_ref).collect();
            compute::concat(&arrays)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let slices: Vec<Delta> = parts.iter().map(|p| delta.slice(p.offset, p.len)).collect();
    let rows = compute::concat_batches(&schema, slices.iter().map(Delta::rows))?;
    let weights = delta
        .weights()
        .map(|_| slices.iter().flat_map(|s| (0..s.n_rows()).map(|idx| s.weight(idx))).collect::<Vec<_>>().into());
    Ok((columns, Delta::new(rows, weights)))
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::logical_expr::Operator as BinaryOperator;
    use datafusion::physical_expr::expressions::{binary, cast, col, lit};

    use super::*;
    use crate::testing::Steps;

    fn input(values: &[i64], weights: Option<Vec<i64>>) -> Delta {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let rows = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values.to_vec()))]).unwrap();
        Delta::new(rows, weights.map(Into::into))
    }

    #[test]
    fn rows_that_cannot_be_computed_are_told_apart_from_the_rest() {
        let delta = input(&[1, 0, 5, 0, 10], Some(vec![1, -1, 2, 3, 1]));
        let schema = delta.schema();
        let expr = binary(lit(100i64), BinaryOperator::Divide, col("a", &schema).unwrap(), &schema).unwrap();
        let steps = Steps::default();
        let (columns, rest) = evaluate(&[expr, col("a", &schema).unwrap()], delta, &steps.context(1)).unwrap();
        assert_eq!(columns[0].as_primitive::<Int64Type>().values(), &[100, 20, 10]);
        assert_eq!(columns[1].as_primitive::<Int64Type>().values(), &[1, 5, 10]);
        assert_eq!(rest.weights().unwrap().values(), &[1, 2, 1]);
        let errors = steps.row_errors();
        assert_eq!(errors.iter().map(|e| e.weight).collect::<Vec<_>>(), [-1, 3]);
        assert_eq!(errors[0].error, SqlError::new(SqlState::DivisionByZero, "division by zero"));
        assert_eq!(errors[0].expr, "100 / a@0");
    }

    #[test]
    fn nothing_is_left_when_every_row_fails() {
        let delta = input(&[i64::MAX, i64::MAX], None);
        let schema = delta.schema();
        let expr = cast(col("a", &schema).unwrap(), &schema, DataType::Int32).unwrap();
        let steps = Steps::default();
        let (columns, rest) = evaluate(&[expr], delta, &steps.context(1)).unwrap();
        assert_eq!((columns[0].len(), rest.n_rows()), (0, 0));
        assert_eq!(columns[0].data_type(), &DataType::Int32);
        let errors = steps.row_errors();
        assert_eq!((errors.len(), errors[0].error.state()), (2, SqlState::NumericValueOutOfRange));
    }
}
