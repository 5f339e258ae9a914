//! Which types of values have one in common, and which are compared with each other.

use datafusion::common::Result;
use tidewire_types::{SqlError, SqlState, SqlType};

use crate::provider::to_datafusion;

pub(crate) fn is_number(sql_type: &SqlType) -> bool {
    use SqlType as T;
    matches!(sql_type, T::Int2 | T::Int4 | T::Int8 | T::Float4 | T::Float8 | T::Numeric(_))
}

pub(crate) fn is_moment(sql_type: &SqlType) -> bool {
    matches!(sql_type, SqlType::Date | SqlType::Timestamp | SqlType::Timestamptz)
}

/// Whether values of both can be of one type without being asked to: those of CASE, of an array, of a column of a UNION.
pub(crate) fn meet(left: &SqlType, right: &SqlType) -> bool {
    use SqlType as T;
    let is_text = |t: &T| matches!(t, T::Text | T::Varchar(_) | T::Char(_));
    // CASE and its like are told to be a text before the analyzer has run, although their values are none.
    let may_be_text = |t: &T| is_text(t) || matches!(t, T::Uuid | T::Json | T::Jsonb);
    match (left, right) {
        (T::Null, _) | (_, T::Null) => true,
        (T::Array(left), T::Array(right)) => meet(left, right),
        (T::Struct(_), T::Struct(_)) => true,
        (left, right) => {
            left == right
                || is_number(left) && is_number(right)
                || is_moment(left) && is_moment(right)
                || is_text(left) && may_be_text(right)
                || may_be_text(left) && is_text(right)
        }
    }
}

/// Whether there is an operator that compares them.
pub(crate) fn are_compared(left: &SqlType, right: &SqlType) -> bool {
    use SqlType as T;
    match (left, right) {
        (T::Json, T::Json) => false,
        (T::Time, T::Interval) | (T::Interval, T::Time) => true,
        (left, right) => meet(left, right),
    }
}

/// Errors: `42804` for types of which none has all values.
pub(crate) fn check_one_type<'a>(what: &str, types: impl IntoIterator<Item = &'a SqlType>) -> Result<()> {
    let mut types = types.into_iter().filter(|t| **t != SqlType::Null);
    let Some(first) = types.next() else { return Ok(()) };
    match types.find(|other| !meet(first, other)) {
        None => Ok(()),
        Some(other) => {
            let message = format!("{what} types {first} and {other} cannot be matched");
            Err(to_datafusion(SqlError::new(SqlState::DatatypeMismatch, message)))
        }
    }
}
