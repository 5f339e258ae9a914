//! Changes to a relation: rows, and how often each counts.

use arrow::array::{Int64Array, RecordBatch};
use arrow::compute;
use arrow::datatypes::SchemaRef;

/// Rows of one schema and how often each counts.
///
/// The weight of a row is the number of copies to add; a negative one removes copies. `weights = None` means every
/// row counts +1, so that append-only paths carry no weights at all. Weights are never null; a weight of zero is
/// allowed and means nothing.
#[derive(Clone, Debug)]
pub struct Delta {
    rows: RecordBatch,
    weights: Option<Int64Array>,
}

impl Delta {
    /// Every row of `rows` added once.
    pub fn insert(rows: RecordBatch) -> Delta {
        Delta { rows, weights: None }
    }

    /// Every row of `rows` removed once.
    pub fn delete(rows: RecordBatch) -> Delta {
        let weights = Int64Array::from(vec![-1; rows.num_rows()]);
        Delta { rows, weights: Some(weights) }
    }

    /// Rows with their weights. `weights` must have one value a row; where it has fewer or more, the missing ones
    /// count +1 and the extra ones nothing.
    pub fn new(rows: RecordBatch, weights: Option<Int64Array>) -> Delta {
        debug_assert!(weights.as_ref().is_none_or(|w| w.len() == rows.num_rows()));
        Delta { rows, weights }
    }

    /// No rows.
    pub fn empty(schema: SchemaRef) -> Delta {
        Delta::insert(RecordBatch::new_empty(schema))
    }

    /// The rows, each once whatever its weight.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// The weights, where not all are +1.
    pub fn weights(&self) -> Option<&Int64Array> {
        self.weights.as_ref()
    }

    /// The weight of row `idx`.
    pub fn weight(&self, idx: usize) -> i64 {
        self.weights.as_ref().and_then(|w| w.values().get(idx).copied()).unwrap_or(1)
    }

    /// How many (row, weight) pairs there are.
    pub fn n_rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }

    /// The schema of the rows.
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// The same weights over other rows: what a projection makes. `rows` must have as many rows as this delta.
    #[must_use]
    pub fn with_rows(&self, rows: RecordBatch) -> Delta {
        Delta::new(rows, self.weights.clone())
    }

    /// Rows and weights.
    pub fn into_parts(self) -> (RecordBatch, Option<Int64Array>) {
        (self.rows, self.weights)
    }

    /// Rows `offset .. offset + len`, without a copy.
    #[must_use]
    pub fn slice(&self, offset: usize, len: usize) -> Delta {
        Delta { rows: self.rows.slice(offset, len), weights: self.weights.as_ref().map(|w| w.slice(offset, len)) }
    }

    /// The change that undoes this one.
    #[must_use]
    pub fn negate(&self) -> Delta {
        let weights = match &self.weights {
            None => Int64Array::from(vec![-1; self.n_rows()]),
            Some(w) => compute::unary(w, i64::wrapping_neg),
        };
        Delta { rows: self.rows.clone(), weights: Some(weights) }
    }
}
