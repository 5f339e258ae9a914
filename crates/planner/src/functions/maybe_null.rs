//! A value that the plan does not know to be not NULL.

use super::defined::{Definition, Overload};

/// The function that returns its argument.
pub(crate) const MAYBE_NULL: &str = "maybe null";

pub(super) static FUNCTION: Definition = Definition {
    name: MAYBE_NULL,
    resolve: |types| match types {
        [only] => Overload::of(types, only.clone(), |columns, _| {
            columns.first().cloned().ok_or_else(|| super::cast::external(tidewire_types::SqlError::internal("no argument")))
        }),
        _ => None,
    },
};
