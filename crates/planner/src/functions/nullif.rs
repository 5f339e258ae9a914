//! `nullif(a, b)`: a `CASE WHEN a = b THEN NULL ELSE a END` in fewer words.
//!
//! It compares as `=` does and has the type that `a` has there; DataFusion's own has the common type of both. The
//! function stands in a plan until [`crate::comparisons`] writes it out, so that what is around it finds its type.

use tidewire_types::{SqlError, SqlType};

use super::cast::external;
use super::defined::{Definition, Overload};

/// Its name.
pub(crate) const NULLIF: &str = "nullif";

pub(super) static FUNCTION: Definition = Definition {
    name: NULLIF,
    resolve: |types| match types {
        [value, other] => Overload::of(types, type_of(value, other), |_, _| {
            Err(external(SqlError::internal("nullif() is planned as CASE")))
        }),
        _ => None,
    },
};

/// The type of `nullif(value, other)`: what PostgreSQL's `value = other` makes of `value`.
pub(crate) fn type_of(value: &SqlType, other: &SqlType) -> SqlType {
    use SqlType as T;
    let is_integer = |t: &T| matches!(t, T::Int2 | T::Int4 | T::Int8);
    let is_float = |t: &T| matches!(t, T::Float4 | T::Float8);
    match (value, other) {
        (T::Null, T::Varchar(_)) | (T::Varchar(_), _) => T::Text,
        (T::Null, other) => other.clone(),
        (value, T::Numeric(_)) if is_integer(value) => T::Numeric(None),
        (value, other) if is_float(other) && (is_integer(value) || matches!(value, T::Numeric(_))) => T::Float8,
        (value, _) => value.clone(),
    }
}
