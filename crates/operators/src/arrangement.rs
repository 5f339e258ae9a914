//! The rows of one relation as they are and as they were: a table's content, a view's content, a join side.
//!
//! See DESIGN §5. One writer; any number of readers, each of which sees the rows of one epoch and never waits.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidewire_types::{Delta, Epoch, Result, SqlError};

/// The writing end: owned by the epoch loop.
#[derive(Debug)]
pub struct Arrangement {
    reader: Arc<ArrangementReader>,
}

/// What is known of a relation's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Rows are only ever added: no index is needed at all.
    AppendOnly,
    /// At most one row with the same values of these columns at any time (no columns: at most one row).
    UniqueKey(Vec<usize>),
    /// A bag: the same row may be there several times.
    Bag,
}

impl Arrangement {
    /// An empty relation.
    pub fn new(schema: SchemaRef, identity: Identity) -> Result<Arrangement> {
        let _ = identity;
        Ok(Arrangement { reader: Arc::new(ArrangementReader { schema }) })
    }

    /// Applies the changes of one epoch. Removals are matched to rows by the identity; within one call removals and
    /// insertions of one key may come in any order.
    ///
    /// Errors: `XX000` when a row is removed that is not there (the view has failed), or when a second row of one
    /// unique key stays after the whole call.
    pub fn apply(&mut self, deltas: &[Delta], epoch: Epoch) -> Result<()> {
        let _ = (deltas, epoch);
        Err(SqlError::internal("to be written"))
    }

    /// For each row of `keys` (the unique key's columns, in the identity's order), the row that is there now.
    /// The batch holds the rows that were found; the list has, for each key, its index in that batch.
    pub fn get(&self, keys: &RecordBatch) -> Result<(RecordBatch, Vec<Option<usize>>)> {
        let _ = keys;
        Err(SqlError::internal("to be written"))
    }

    /// Forgets rows that died at or before `epoch`: no reader will ask for an earlier one. Works a bounded slice a
    /// call.
    pub fn vacuum(&mut self, epoch: Epoch) {
        let _ = epoch;
    }

    /// The reading end.
    pub fn reader(&self) -> Arc<ArrangementReader> {
        self.reader.clone()
    }

    /// Bytes of memory that it holds.
    pub fn state_bytes(&self) -> usize {
        0
    }

    /// Rows that are alive (copies of a bag's row count once each).
    pub fn n_rows(&self) -> usize {
        0
    }
}

/// The reading end: shared, never blocks the writer.
#[derive(Debug)]
pub struct ArrangementReader {
    schema: SchemaRef,
}

impl ArrangementReader {
    /// The schema of the rows.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The rows of `epoch`, in batches of at most a segment, with only the columns of `projection` (all where
    /// `None`). A bag's row comes as often as its weight says. `epoch` must not be older than the last `vacuum`, and
    /// must have been applied.
    pub fn scan(
        self: &Arc<Self>,
        epoch: Epoch,
        projection: Option<&[usize]>,
    ) -> Result<Box<dyn Iterator<Item = Result<RecordBatch>> + Send>> {
        let _ = (epoch, projection);
        Err(SqlError::internal("to be written"))
    }
}
