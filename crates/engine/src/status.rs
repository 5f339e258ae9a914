//! Where everything stands: what `tidewire.sources`, `SHOW JOBS`, `/metrics` and `EXPLAIN ANALYZE` show.

use tidewire_types::{Epoch, ObjectId, SqlError};

/// The whole server.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The last published epoch.
    pub epoch: Epoch,
    /// Epochs since the start.
    pub n_epochs: u64,
    /// Rows that entered epochs since the start.
    pub n_input_rows: u64,
    /// Time that the loop spent in steps since the start, in nanoseconds.
    pub step_ns: u64,
    /// Bytes of all operator state and relations.
    pub state_bytes: usize,
    /// Dead letters since the start.
    pub n_dead_letters: u64,
    /// Open subscriptions.
    pub n_subscriptions: usize,
    /// The checkpoints since the start.
    pub checkpoints: CheckpointStatus,
    /// Every source.
    pub sources: Vec<SourceStatus>,
    /// Every index that readers can use or that is being built.
    pub indexes: Vec<IndexStatus>,
    /// Every materialized view.
    pub views: Vec<ViewStatus>,
}

/// The checkpoints of a server that has a data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointStatus {
    /// How many were written.
    pub n_written: u64,
    /// How many could not be written.
    pub n_failed: u64,
    /// Bytes of all that were written.
    pub n_bytes: u64,
    /// Bytes in memory, about, of what had changed.
    pub n_changed_bytes: u64,
    /// Time in which they were written, beside the epoch loop, in nanoseconds.
    pub write_ns: u64,
    /// How long the epoch loop stood still for one, at most, in nanoseconds.
    pub pause_ns_max: u64,
    /// The same in sum.
    pub pause_ns: u64,
    /// Bytes, about, of changes that the next one will have.
    pub held_bytes: usize,
    /// Whether so much waits for being written that sources and writers wait.
    pub is_behind: bool,
}

/// One index. Indexes on the same columns of a relation are one, with several names.
#[derive(Clone, Debug)]
pub struct IndexStatus {
    /// Its name.
    pub name: String,
    /// The table or materialized view.
    pub relation: String,
    /// The columns of its key.
    pub columns: Vec<String>,
    /// Whether readers can use it.
    pub is_ready: bool,
    /// Rows in it.
    pub n_rows: usize,
    /// Bytes of memory that it holds, which are part of its relation's.
    pub bytes: usize,
}

/// One source.
#[derive(Clone, Debug)]
pub struct SourceStatus {
    /// Its OID.
    pub id: ObjectId,
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: SourceState,
    /// Records decoded since the start.
    pub n_rows: u64,
    /// Bytes of records since the start.
    pub n_bytes: u64,
    /// Records that could not be decoded since the start.
    pub n_bad_records: u64,
    /// Its splits.
    pub splits: Vec<SplitStatus>,
}

/// What a source does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// No view reads it.
    Idle,
    /// It reads.
    Running,
    /// The outside system does not answer; what it said last.
    Retrying(String),
    /// It stopped at an error.
    Failed(SqlError),
}

/// One split.
#[derive(Clone, Debug)]
pub struct SplitStatus {
    /// Its number.
    pub split: u32,
    /// The position of the next record that views will contain.
    pub position: i64,
    /// The position that the next record to arrive will get, where known.
    pub end: Option<i64>,
}

/// One materialized view.
#[derive(Clone, Debug)]
pub struct ViewStatus {
    /// Its OID.
    pub id: ObjectId,
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: ViewState,
    /// Where its content comes from.
    pub origin: ViewOrigin,
    /// Rows in it.
    pub n_rows: usize,
    /// Bytes of its operators and of its content.
    pub state_bytes: usize,
    /// Its operators, in the order of its dataflow.
    pub operators: Vec<OperatorStatus>,
}

/// What a view does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewState {
    /// It is being built: rows read so far, and of how many where known.
    Building {
        /// Rows read so far.
        n_rows: u64,
        /// Rows there are to read.
        n_rows_total: Option<u64>,
    },
    /// It is kept up to date.
    Running,
    /// It is kept up to date, and cannot be read before it has a value again.
    Undefined,
    /// It stopped at an error.
    Failed(String),
}

/// Where the content of a view comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewOrigin {
    /// It was created since the server's start.
    Created,
    /// A checkpoint had it when the server started.
    Restored,
    /// It was there before the server's start and was built again.
    Rebuilt,
}

/// One operator of a view, all its shards together.
#[derive(Clone, Debug, Default)]
pub struct OperatorStatus {
    /// Name and parameters, as EXPLAIN prints them.
    pub description: String,
    /// Rows that came in.
    pub n_input_rows: u64,
    /// Rows that went out.
    pub n_output_rows: u64,
    /// Time in steps, in nanoseconds.
    pub step_ns: u64,
    /// Rows of state.
    pub state_rows: usize,
    /// Bytes of state.
    pub state_bytes: usize,
}
