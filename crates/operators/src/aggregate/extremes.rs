//! min and max of floats as a batch query computes them: NaN is the greatest, which DataFusion's do not hold to.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use datafusion::common::ScalarValue;
use tidewire_types::Result;

use super::values::{Mergeable, Values};
use crate::expr::sql_error;

/// The least or greatest float of rows that do not leave.
pub(super) struct BestFloats {
    is_max: bool,
    field: FieldRef,
    groups: Vec<Option<f64>>,
}

impl BestFloats {
    pub(super) fn new(is_max: bool, field: FieldRef) -> BestFloats {
        BestFloats { is_max, field, groups: vec![] }
    }

    fn column(&self, n_groups: usize) -> ArrayRef {
        Arc::new(self.groups.iter().take(n_groups).copied().collect::<Float64Array>())
    }
}

impl Values for BestFloats {
    fn grow(&mut self, n_slots: usize) {
        self.groups.resize(n_slots.max(self.groups.len()), None);
    }

    fn apply(&mut self, ids: &[u32], columns: &[ArrayRef], weights: Option<&[i64]>) -> Result<()> {
        let Some(column) = columns.first() else { return Ok(()) };
        let column = cast(column, &DataType::Float64)?;
        for (row_idx, (id, value)) in ids.iter().zip(column.as_primitive::<Float64Type>()).enumerate() {
            let is_there = weights.and_then(|w| w.get(row_idx)).is_none_or(|w| *w > 0);
            // One NaN, greater than all else; one zero.
            let value = value.filter(|_| is_there).map(|v| if v.is_nan() { f64::NAN } else { v + 0.0 });
            let (Some(value), Some(best)) = (value, self.groups.get_mut(*id as usize)) else { continue };
            let is_better = best.is_none_or(|best| match self.is_max {
                true => value.total_cmp(&best).is_gt(),
                false => value.total_cmp(&best).is_lt(),
            });
            if is_better {
                *best = Some(value);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, id: u32) -> Result<ScalarValue> {
        let best = self.groups.get(id as usize).copied().flatten();
        ScalarValue::Float64(best).cast_to(self.field.data_type()).map_err(sql_error)
    }

    fn forget(&mut self, id: u32) {
        if let Some(group) = self.groups.get_mut(id as usize) {
            *group = None;
        }
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<Option<f64>>()
    }

    fn len(&self) -> usize {
        0
    }
}

impl Mergeable for BestFloats {
    fn state_types(&self) -> Vec<DataType> {
        vec![DataType::Float64]
    }

    fn state(&mut self, n_groups: usize) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.column(n_groups)])
    }

    fn merge(&mut self, ids: &[u32], columns: &[ArrayRef]) -> Result<()> {
        self.apply(ids, columns, None)
    }

    fn drop_first(&mut self, n_groups: usize) {
        self.groups.drain(..n_groups.min(self.groups.len()));
    }

    fn results(&mut self, n_groups: usize, data_type: &DataType) -> Result<ArrayRef> {
        Ok(cast(&self.column(n_groups), data_type)?)
    }
}
