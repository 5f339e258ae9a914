//! `num_nulls` and `num_nonnulls`: how many of the arguments are NULL, or are not.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array};
use datafusion::common::Result;
use tidewire_types::SqlType;

use super::defined::{Call, Definition, Overload};

/// The functions.
pub(super) static ALL: &[Definition] = &[
    Definition { name: "num_nulls", resolve: |types| of_any(types, |columns, _| counts(columns, true)) },
    Definition { name: "num_nonnulls", resolve: |types| of_any(types, |columns, _| counts(columns, false)) },
];

fn of_any(types: &[SqlType], call: Call) -> Option<Overload> {
    if types.is_empty() { None } else { Overload::of(types, SqlType::Int4, call) }
}

fn counts(columns: &[ArrayRef], of_nulls: bool) -> Result<ArrayRef> {
    let n_rows = columns.first().map_or(0, |column| column.len());
    let nulls: Vec<_> = columns.iter().map(|column| column.logical_nulls()).collect();
    let is_null = |nulls: &Option<arrow::buffer::NullBuffer>, row| nulls.as_ref().is_some_and(|n| n.is_null(row));
    let n_matching = |row| nulls.iter().filter(|nulls| is_null(nulls, row) == of_nulls).count();
    Ok(Arc::new((0..n_rows).map(|row| i32::try_from(n_matching(row)).ok()).collect::<Int32Array>()))
}
