//! The condition that a pair must satisfy besides its keys.
//!
//! Invariant: a pair that the condition cannot be computed for is a dead letter and does not match, each time that it
//! is looked at.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, UInt32Type};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::PhysicalExpr;
use parking_lot::Mutex;
use tidewire_types::{Delta, Result, SqlError};

use crate::{StepContext, expr};

/// For which pairs the residual is true (not false, not NULL).
pub(super) fn holds(
    residual: &Arc<dyn PhysicalExpr>,
    pairs: &RecordBatch,
    weights: Option<&Int64Array>,
    cx: &StepContext<'_>,
) -> Result<Vec<bool>> {
    let n_rows = pairs.num_rows();
    let is_true = |array: &ArrayRef| -> Result<Vec<bool>> {
        let array = array.as_boolean_opt().ok_or_else(|| SqlError::internal("a join condition that is not boolean"))?;
        Ok(array.iter().map(|value| value == Some(true)).collect())
    };
    if let Ok(array) = residual.evaluate(pairs).and_then(|value| value.into_array(n_rows)) {
        return is_true(&array);
    }
    // Once more, with a column that tells which rows could be computed.
    let n_columns = pairs.num_columns();
    let ordinal: Arc<dyn PhysicalExpr> = Arc::new(Column::new("ordinal", n_columns));
    let mut fields = pairs.schema().fields().to_vec();
    fields.push(Arc::new(Field::new("ordinal", DataType::UInt32, false)));
    let schema = Arc::new(Schema::new(fields));
    let mut columns = pairs.columns().to_vec();
    columns.push(Arc::new(UInt32Array::from_iter_values(0..n_rows as u32)));
    let delta = Delta::new(RecordBatch::try_new(schema, columns)?, weights.cloned());
    let errors = Mutex::default();
    let inner = StepContext { epoch: cx.epoch, now_us: cx.now_us, row_errors: &errors };
    let (computed, _) = expr::evaluate(&[residual.clone(), ordinal], delta, &inner)?;
    let own_columns: Vec<usize> = (0..n_columns).collect();
    for mut error in errors.into_inner() {
        error.row = error.row.project(&own_columns)?;
        cx.row_errors.lock().push(error);
    }
    let mut holds = vec![false; n_rows];
    if let [values, ordinals] = computed.as_slice()
        && let Some(ordinals) = ordinals.as_primitive_opt::<UInt32Type>()
    {
        for (value, row) in is_true(values)?.into_iter().zip(ordinals.values()) {
            if let Some(place) = holds.get_mut(*row as usize) {
                *place = value;
            }
        }
    }
    Ok(holds)
}
