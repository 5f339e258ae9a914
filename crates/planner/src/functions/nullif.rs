//! `nullif(a, b)`: a `CASE WHEN a = b THEN NULL ELSE a END` in fewer words.
//!
//! It compares as `=` does and has the type of `a`, whatever `b` is; DataFusion's own has the common type of both. The
//! function stands in a plan until [`crate::comparisons`] writes it out, so that what is around it finds its type.

use tidewire_types::{SqlError, SqlType};

use super::cast::external;
use super::defined::{Definition, Overload};

/// Its name.
pub(crate) const NULLIF: &str = "nullif";

pub(super) static FUNCTION: Definition = Definition {
    name: NULLIF,
    resolve: |types| match types {
        [SqlType::Null, other] | [other, _] => {
            Overload::of(types, other.clone(), |_, _| Err(external(SqlError::internal("nullif() is planned as CASE"))))
        }
        _ => None,
    },
};
