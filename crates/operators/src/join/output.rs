//! What a join makes of pairs and of rows by their status.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::filter;
use tidewire_types::{Delta, Result};

use crate::budget;

use super::Kind;
use super::operator::{Chunk, JoinOperator, LEFT, RIGHT, Status};

impl JoinOperator {
    /// Puts out what the status of a chunk's own rows makes of them.
    pub(super) fn put_out_chunk(
        &self,
        from: usize,
        chunk: &Chunk,
        statuses: &[Status],
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        let weights = (!chunk.is_plain()).then(|| (0..statuses.len() as u32).map(|row| chunk.signed(row)).collect());
        self.put_out_rows(from, chunk.rows.columns(), statuses, weights, out)
    }

    /// Takes kept rows back as they were put out, and puts them out as they are now.
    pub(super) fn put_out_flips(
        &self,
        side_idx: usize,
        slots: &[u32],
        old: &[Status],
        new: &[Status],
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        let side = self.side(side_idx)?;
        let columns = side.gather(slots)?;
        let weights: Vec<i64> = slots.iter().map(|slot| side.weight(*slot)).collect();
        self.put_out_rows(side_idx, &columns, old, Some(weights.iter().map(|w| -w).collect()), out)?;
        self.put_out_rows(side_idx, &columns, new, Some(weights), out)
    }

    pub(super) fn put_out_rows(
        &self,
        side_idx: usize,
        columns: &[ArrayRef],
        statuses: &[Status],
        weights: Option<Vec<i64>>,
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        let is_out = |status: &Status| match self.kind {
            Kind::LeftMark => true,
            Kind::LeftSemi => *status == Status::True,
            Kind::Inner | Kind::Left | Kind::Right | Kind::Full | Kind::LeftAnti => *status == Status::False,
        };
        let mask: BooleanArray = statuses.iter().map(|status| Some(is_out(status))).collect();
        let n_out = mask.true_count();
        if n_out == 0 {
            return Ok(());
        }
        let weights = weights.map(Int64Array::from);
        let (mut own, weights) = if n_out == statuses.len() {
            (columns.to_vec(), weights)
        } else {
            let own = columns.iter().map(|c| Ok(filter(c, &mask)?)).collect::<Result<Vec<_>>>()?;
            (own, weights.map(|w| filter(&w, &mask)).transpose()?.map(|w| w.as_primitive().clone()))
        };
        let nulls = |side: usize| -> Vec<ArrayRef> {
            let fields = self.schemas.get(side).map(|schema| schema.fields().iter());
            fields.into_iter().flatten().map(|field| new_null_array(field.data_type(), n_out)).collect()
        };
        match self.kind {
            Kind::LeftMark => {
                let mark = |status: &Status| match status {
                    Status::True => Some(true),
                    Status::False => Some(false),
                    Status::Unknown => None,
                };
                own.push(Arc::new(statuses.iter().map(mark).collect::<BooleanArray>()));
            }
            Kind::LeftSemi | Kind::LeftAnti => {}
            _ if side_idx == LEFT => own.extend(nulls(RIGHT)),
            _ => own.splice(0..0, nulls(LEFT)).for_each(drop),
        }
        self.put_out(own, n_out, weights, out)
    }

    pub(super) fn put_out(
        &self,
        columns: Vec<ArrayRef>,
        n_rows: usize,
        weights: Option<Int64Array>,
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        if n_rows > 0 {
            let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
            let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
            budget::spend(&rows)?;
            out.push(Delta::new(rows, weights));
        }
        Ok(())
    }
}
