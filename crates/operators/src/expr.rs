//! Evaluation of DataFusion expressions over deltas, row errors included.
//!
//! Expressions are evaluated a batch at a time. When that fails (a division by zero, a bad cast), the batch is
//! bisected until the offending rows are alone: those become [`RowError`]s, the others go on.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::compute;
use datafusion::common::DataFusionError;
use datafusion::physical_plan::PhysicalExpr;
use tidewire_types::{Delta, Result, SqlError};

use crate::StepContext;

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
/// did), row for row with the columns.
pub fn evaluate(exprs: &[Arc<dyn PhysicalExpr>], delta: Delta, cx: &StepContext<'_>) -> Result<(Vec<ArrayRef>, Delta)> {
    let _ = (exprs, delta, cx);
    let _ = |b: &BooleanArray, a: &Int64Array| compute::filter(a, b);
    Err(SqlError::internal("evaluate: to be written"))
}

/// What a DataFusion error means to a user: the SQLSTATE that PostgreSQL gives.
pub fn sql_error(error: DataFusionError) -> SqlError {
    SqlError::internal(error)
}
