//! `NOT IN` and `IN` by SQL's NULL logic, without correlation: the right side is one list.
//!
//! A left row is matched where its value is in the list; unknown where the list has rows and either its value or one of
//! the list's is NULL. Invariant: NULL keys are kept on both sides, as a key like any other.

use arrow::array::{Array, ArrayRef, new_null_array};
use tidewire_types::{Delta, Result, SqlError};

use super::operator::{Chunk, JoinOperator, LEFT, RIGHT, Status};
use super::side::{BATCH_ROWS_MAX, Keys};
use crate::arrangement::index::NONE;

impl JoinOperator {
    /// The status of a left row whose value is not NULL and not in the list.
    pub(super) fn unlisted(&self) -> Result<Status> {
        Ok(if self.list_has_null()? { Status::Unknown } else { Status::False })
    }

    fn list_has_null(&self) -> Result<bool> {
        let right = self.side(RIGHT)?;
        if right.n_rows() == 0 {
            return Ok(false);
        }
        let null = new_null_array(&self.list_key_type()?, 1);
        let keys = right.keys(&[null], 1)?;
        Ok(right.probe(&keys, &keys.rows).iter().any(|slot| *slot != NONE))
    }

    fn list_key_type(&self) -> Result<arrow::datatypes::DataType> {
        let (schema, idx) = (&self.schemas[RIGHT], self.key_idxs[RIGHT].first());
        let field = idx.and_then(|idx| schema.fields().get(*idx));
        field.map(|field| field.data_type().clone()).ok_or_else(|| SqlError::internal("a list without a column"))
    }

    /// The status of left rows by their values.
    pub(super) fn listed(&self, values: &ArrayRef) -> Result<Vec<Status>> {
        let right = self.side(RIGHT)?;
        if right.n_rows() == 0 {
            return Ok(vec![Status::False; values.len()]);
        }
        let unlisted = self.unlisted()?;
        let keys = right.keys(std::slice::from_ref(values), values.len())?;
        let slots = right.probe(&keys, &keys.rows);
        let nulls = values.logical_nulls();
        let status = |(row, slot): (usize, &u32)| match *slot {
            _ if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) => Status::Unknown,
            NONE => unlisted,
            _ => Status::True,
        };
        Ok(slots.iter().enumerate().map(status).collect())
    }

    /// Whether a chunk of the list may make it empty or not empty, or bring or take its NULL: then any left row may flip.
    pub(super) fn may_turn(&self, chunk: &Chunk, values: &ArrayRef) -> Result<bool> {
        let n_rows = self.side(RIGHT)?.n_rows();
        let may_empty = chunk.is_removal && chunk.n_copies() >= n_rows as i64;
        Ok(n_rows == 0 || may_empty || values.logical_null_count() > 0)
    }

    /// A chunk of the list after which all left rows are looked at.
    pub(super) fn turn(&mut self, chunk: &Chunk, keys: &Keys, out: &mut Vec<Delta>) -> Result<()> {
        let slots = self.side(LEFT)?.all_slots();
        let before = self.listed_slots(&slots)?;
        self.keep(RIGHT, chunk, keys, None)?;
        let after = self.listed_slots(&slots)?;
        let (mut flipped, mut old, mut new) = (vec![], vec![], vec![]);
        for ((slot, before), after) in slots.into_iter().zip(before).zip(after) {
            if before != after {
                flipped.push(slot);
                old.push(before);
                new.push(after);
            }
        }
        let statuses = old.chunks(BATCH_ROWS_MAX).zip(new.chunks(BATCH_ROWS_MAX));
        flipped
            .chunks(BATCH_ROWS_MAX)
            .zip(statuses)
            .try_for_each(|(slots, (old, new))| self.put_out_flips(LEFT, slots, old, new, out))
    }

    fn listed_slots(&self, slots: &[u32]) -> Result<Vec<Status>> {
        let idx = self.key_idxs[LEFT].first().copied().unwrap_or_default();
        let left = self.side(LEFT)?;
        let pieces = slots.chunks(BATCH_ROWS_MAX).map(|slots| self.listed(&left.gather_column(idx, slots)?));
        Ok(pieces.collect::<Result<Vec<_>>>()?.concat())
    }
}
