//! Sums the weights of equal rows.

use tidewire_types::{Delta, Result, SqlError};

/// Sums weights of equal rows and drops those that cancel.
///
/// In: N rows, any order. Out: at most N rows, all weights non-zero. Nulls compare equal, as in GROUP BY.
pub fn consolidate(delta: Delta) -> Result<Delta> {
    let _ = delta;
    Err(SqlError::internal("to be written"))
}
