//! A value that the plan does not know to be not NULL.

use datafusion::logical_expr::Expr;

use super::defined::{self, Definition, Overload};

/// The function that returns its argument.
pub(crate) const MAYBE_NULL: &str = "maybe null";

pub(super) static FUNCTION: Definition = Definition {
    name: MAYBE_NULL,
    resolve: |types| match types {
        [only] => Overload::of(types, only.clone(), |columns, _| {
            columns
                .first()
                .cloned()
                .ok_or_else(|| super::cast::external(tidewire_types::SqlError::internal("no argument")))
        }),
        _ => None,
    },
};

/// A call of it.
pub(crate) fn maybe_null(value: Expr) -> Expr {
    defined::call(&FUNCTION, vec![value])
}
