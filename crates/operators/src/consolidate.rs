//! Sums the weights of equal rows.

use arrow::array::{Int64Array, UInt32Array};
use arrow::compute;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashMap;
use tidewire_types::{Delta, Result, SqlError};

/// Sums weights of equal rows and drops those that cancel.
///
/// In: N rows, any order. Out: at most N rows in the order of their first appearance, all weights non-zero. Nulls
/// compare equal, as in GROUP BY. A delta without weights comes back as it is: nothing in it can cancel, and to look
/// for equal rows would cost the append-only paths more than it saves.
///
/// Errors: `0A000` for a type whose values cannot be compared.
pub fn consolidate(delta: Delta) -> Result<Delta> {
    let Some(weights) = delta.weights() else { return Ok(delta) };
    let mut sums: Vec<(u32, i64)> = Vec::with_capacity(delta.n_rows());
    if delta.rows().num_columns() == 0 {
        sums.extend(Some((0, weights.values().iter().fold(0i64, |a, w| a.wrapping_add(*w)))));
    } else {
        let fields = delta.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let converter = RowConverter::new(fields)
            .map_err(|e| SqlError::unsupported("a type of this relation").with_detail(e.to_string()))?;
        let keys = converter.convert_columns(delta.rows().columns())?;
        let mut first: HashMap<&[u8], usize> = HashMap::with_capacity(delta.n_rows());
        for (row_idx, (key, weight)) in keys.iter().zip(weights.values()).enumerate() {
            let sum_idx = *first.entry(key.data()).or_insert(sums.len());
            match sums.get_mut(sum_idx) {
                Some((_, sum)) => *sum = sum.wrapping_add(*weight),
                None => sums.push((row_idx as u32, *weight)),
            }
        }
    }
    sums.retain(|(_, weight)| *weight != 0);
    let is_unchanged = sums.len() == delta.n_rows();
    let weights: Int64Array = sums.iter().map(|(_, weight)| *weight).collect::<Vec<_>>().into();
    if is_unchanged {
        return Ok(Delta::new(delta.rows().clone(), Some(weights)));
    }
    let indices: UInt32Array = sums.iter().map(|(idx, _)| *idx).collect::<Vec<_>>().into();
    Ok(Delta::new(compute::take_record_batch(delta.rows(), &indices)?, Some(weights)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, RecordBatch, StringViewArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn equal_rows_add_up_and_cancelled_ones_go() {
        let a: Int64Array = vec![Some(1), None, Some(1), Some(2), None].into();
        let b: StringViewArray = vec![Some("x"), None, Some("x"), Some("y"), None].into();
        let rows = RecordBatch::try_from_iter([("a", Arc::new(a) as _), ("b", Arc::new(b) as _)]).unwrap();
        let delta = consolidate(Delta::new(rows, Some(vec![1, 1, -1, 2, 4].into()))).unwrap();
        assert_eq!(delta.weights().unwrap().values(), &[5, 2]);
        let kept = delta.rows().column(0).as_primitive::<Int64Type>();
        assert_eq!(kept.iter().collect::<Vec<_>>(), [None, Some(2)]);
    }
}
