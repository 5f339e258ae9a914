//! What an accumulator is fed with: argument columns, and how often each row counts for it.
//!
//! A feed folds the weights of the delta, NULL arguments, FILTER and DISTINCT into one list of weights; calls that
//! agree in all of these share one feed.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use tidewire_types::{Result, SqlError};

use super::distinct::Distinct;

/// Which rows a call sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FeedKey {
    /// Columns of the input.
    pub(super) columns: Vec<usize>,
    pub(super) filter: Option<usize>,
    pub(super) distinct: bool,
    /// Rows with a NULL among the columns count too.
    pub(super) keeps_nulls: bool,
}

pub(super) struct Feed {
    pub(super) key: FeedKey,
    /// Made with the first rows.
    distinct: Option<Distinct>,
}

/// One batch for the accumulators of a feed.
pub(super) struct Fed<'a> {
    pub(super) columns: Vec<ArrayRef>,
    /// 0: the row does not count. `None`: every row counts +1.
    pub(super) weights: Option<Cow<'a, [i64]>>,
}

impl Feed {
    pub(super) fn new(key: FeedKey) -> Feed {
        Feed { key, distinct: None }
    }

    /// The batch as this feed's accumulators see it. `ids` are the rows' groups.
    pub(super) fn prepare<'a>(
        &mut self,
        rows: &RecordBatch,
        weights: Option<&'a [i64]>,
        ids: &[u32],
    ) -> Result<Fed<'a>> {
        let column = |idx: &usize| {
            rows.columns().get(*idx).cloned().ok_or_else(|| SqlError::internal(format_args!("no column {idx}")))
        };
        let columns = self.key.columns.iter().map(column).collect::<Result<Vec<_>>>()?;
        let mut weights = weights.map(Cow::Borrowed);
        let mut drop_where = |is_out: &dyn Fn(usize) -> bool| {
            let weights = weights.get_or_insert_with(|| Cow::Owned(vec![1; ids.len()])).to_mut();
            weights.iter_mut().enumerate().filter(|(idx, _)| is_out(*idx)).for_each(|(_, weight)| *weight = 0);
        };
        if !self.key.keeps_nulls {
            for nulls in columns.iter().filter_map(|c| c.logical_nulls()).filter(|n| n.null_count() > 0) {
                drop_where(&|idx| nulls.is_null(idx));
            }
        }
        if let Some(filter) = &self.key.filter {
            let filter = column(filter)?;
            let filter = filter.as_boolean_opt().ok_or_else(|| SqlError::internal("a FILTER that is not boolean"))?;
            if filter.true_count() < filter.len() {
                drop_where(&|idx| filter.is_null(idx) || !filter.value(idx));
            }
        }
        if self.key.distinct {
            let weights = weights.get_or_insert_with(|| Cow::Owned(vec![1; ids.len()])).to_mut();
            let distinct = match &mut self.distinct {
                Some(distinct) => distinct,
                None => self.distinct.insert(Distinct::new(&columns)?),
            };
            distinct.apply(ids, &columns, weights)?;
        }
        Ok(Fed { columns, weights })
    }

    /// Values kept.
    pub(super) fn len(&self) -> usize {
        self.distinct.as_ref().map_or(0, Distinct::len)
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        self.distinct.as_ref().map_or(0, Distinct::bytes)
    }
}
