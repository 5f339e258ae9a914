//! `pg_typeof(x)`: the name of a value's type.

use std::sync::Arc;

use arrow::array::{Array, StringViewArray};
use tidewire_types::{SqlError, SqlType};

use super::cast::external;
use super::defined::{Definition, Overload};

pub(super) static PG_TYPEOF: Definition = Definition {
    name: "pg_typeof",
    resolve: |types| match types {
        [_] => Overload::of(types, SqlType::Text, |columns, types| {
            let ([values], [of]) = (columns, types) else {
                return Err(external(SqlError::internal("one argument")));
            };
            let name = if *of == SqlType::Null { "unknown".to_owned() } else { without_modifier(of).to_string() };
            Ok(Arc::new(std::iter::repeat_n(Some(name), values.len()).collect::<StringViewArray>()))
        }),
        _ => None,
    },
};

/// The type as it is without a length, a precision or a scale.
pub(super) fn without_modifier(sql_type: &SqlType) -> SqlType {
    match sql_type {
        SqlType::Numeric(_) => SqlType::Numeric(None),
        SqlType::Varchar(_) => SqlType::Varchar(None),
        SqlType::Array(item) => SqlType::Array(Box::new(without_modifier(item))),
        other => other.clone(),
    }
}
