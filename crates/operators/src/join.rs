//! Joins of two inputs, kept up to date.
//!
//! For inputs L and R a step makes `L_old * dR`, then `dL * R_new`: both sides are kept, indexed by key. Rows are put
//! in before rows are taken out, so that each pass goes from one bag of rows to another, whatever the order in a delta.
//! A row's *status* is whether it has a match; outer, semi, anti and mark joins put out what their kind makes of it,
//! and a row whose status flips is put out anew. Without a residual the status is whether the other side's index has
//! the key; with one, the matches of each row are counted.
//! Source: Budiu et al., "DBSP", VLDB 2023.

mod not_in;
mod operator;
mod output;
mod residual;
mod side;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::physical_plan::PhysicalExpr;
use tidewire_types::Result;

use crate::Operator;

/// Which rows come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pairs that match. Columns: left, right.
    Inner,
    /// Pairs, and left rows without a match with NULLs on the right.
    Left,
    /// Pairs, and right rows without a match with NULLs on the left.
    Right,
    /// Pairs, and the unmatched rows of both sides.
    Full,
    /// Left rows that have a match. Columns: left.
    LeftSemi,
    /// Left rows that have no match. Columns: left.
    LeftAnti,
    /// Every left row with a boolean column that tells whether it has a match. Columns: left, mark.
    LeftMark,
}

/// Parameters of the operator.
#[derive(Clone, Debug)]
pub struct Join {
    /// Which rows come out.
    pub kind: Kind,
    /// Columns of the left input that must equal `right_keys`, pairwise of one type. None: every pair is a candidate,
    /// and all rows go to shard 0.
    pub left_keys: Vec<usize>,
    /// Columns of the right input.
    pub right_keys: Vec<usize>,
    /// NULL equals NULL in the keys (IS NOT DISTINCT FROM, set operations). Otherwise a NULL key matches nothing.
    pub null_equals_null: bool,
    /// `NOT IN` (LeftAnti) and `IN` (LeftMark) by SQL's NULL logic over the one key (the last one, where there are
    /// correlation keys before it): a NULL on the right, or a NULL on the left against a non-empty right, is unknown.
    /// LeftAnti drops unknown rows; LeftMark marks them NULL.
    pub null_aware: bool,
    /// A boolean expression over the left's columns followed by the right's, that a matching pair must satisfy.
    pub residual: Option<Arc<dyn PhysicalExpr>>,
    /// The left input never removes rows.
    pub left_append_only: bool,
    /// The right input never removes rows.
    pub right_append_only: bool,
    /// At most one left row a key at any time.
    pub left_unique: bool,
    /// At most one right row a key at any time.
    pub right_unique: bool,
    /// Schema of the left input.
    pub left_schema: SchemaRef,
    /// Schema of the right input.
    pub right_schema: SchemaRef,
    /// Schema of the output.
    pub schema: SchemaRef,
}

impl Join {
    /// A running shard.
    pub fn build(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(operator::JoinOperator::new(self)?))
    }

    /// Whether the last key is compared by SQL's NULL logic.
    fn is_null_aware(&self) -> bool {
        self.null_aware && matches!(self.kind, Kind::LeftAnti | Kind::LeftMark)
    }

    /// The columns of an input that decide a row's shard: the keys, but for one that is compared by SQL's NULL logic,
    /// where a NULL concerns rows with any value.
    pub(crate) fn shard_keys(&self, input_idx: usize) -> &[usize] {
        match (if input_idx == 0 { &self.left_keys } else { &self.right_keys }).as_slice() {
            [keys @ .., _] if self.is_null_aware() => keys,
            keys => keys,
        }
    }
}

impl fmt::Display for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "join_type={:?}, on={:?}={:?}", self.kind, self.left_keys, self.right_keys)?;
        if let Some(residual) = &self.residual {
            write!(f, ", filter={residual}")?;
        }
        Ok(())
    }
}
