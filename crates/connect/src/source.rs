//! Sources: what a connector must do for records to come in, exactly once and from known positions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use tidewire_types::{Result, SqlType};

use crate::{OptionSpec, Options};

/// A part of a source that is read in order by itself: a Kafka partition, a file, a generator lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Split(pub u32);

/// How far a split was read: the position of its next record (a Kafka offset, a byte offset, a row number).
pub type Position = i64;

/// Positions of some splits.
pub type Positions = BTreeMap<Split, Position>;

/// What a column of a source is filled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnSource {
    /// A field of the record's value, by the column's name.
    Value,
    /// `INCLUDE key`: the record's key, in the type of the column (bytea by default).
    Key,
    /// `INCLUDE partition`: the split, integer.
    Split,
    /// `INCLUDE offset`: the position, bigint.
    Position,
    /// `INCLUDE timestamp`: the record's own time, timestamptz.
    Timestamp,
    /// `INCLUDE header`: all headers, `STRUCT<key TEXT, value BYTEA>[]`.
    Headers,
    /// `INCLUDE header 'name'`: the last value of that header, bytea.
    Header(String),
}

/// One declared column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// Where its values come from.
    pub source: ColumnSource,
}

/// What becomes of a record that cannot be decoded: `bad_record = '..'`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadRecord {
    /// Kept with its bytes, position and error; the stream goes on.
    #[default]
    DeadLetter,
    /// Counted and forgotten.
    Skip,
    /// The source stops there.
    Fail,
}

/// How values are encoded: `FORMAT PLAIN ENCODE JSON (..)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatSpec {
    /// `PLAIN`, `UPSERT` or `DEBEZIUM`, upper-case.
    pub format: String,
    /// `JSON`, `CSV`, `BYTES`, `NATIVE`, .., upper-case.
    pub encode: String,
    /// The options behind ENCODE.
    pub options: Options,
}

/// A declared source, as the catalog keeps it.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// Its qualified name, for logs and dead letters.
    pub name: String,
    /// All columns, in the order of the catalog.
    pub columns: Vec<Column>,
    /// The options of WITH, without `connector`.
    pub options: Options,
    /// How values are encoded, where the statement says.
    pub format: Option<FormatSpec>,
    /// What becomes of bad records.
    pub bad_record: BadRecord,
}

/// A kind of source that `WITH (connector = '..')` names.
pub trait Connector: Send + Sync {
    /// The name, lower-case.
    fn name(&self) -> &'static str;

    /// The options it understands in WITH.
    fn options(&self) -> &'static [OptionSpec];

    /// The columns that a statement without a column list gets (`connector = 'nexmark'`), or None where it must have
    /// one.
    fn default_columns(&self, _options: &Options) -> Result<Option<Vec<Column>>> {
        Ok(None)
    }

    /// Checks a source against the world (does the topic exist, does the broker answer, is the password right) and
    /// makes it. Blocks; called off the epoch loop and off tokio's workers.
    ///
    /// Errors: what the user sees at CREATE.
    fn create(&self, spec: SourceSpec) -> Result<Arc<dyn Source>>;
}

/// One declared source: makes readers. All methods may block.
pub trait Source: Send + Sync + fmt::Debug {
    /// The splits that exist now, each with the position where this source begins to read it by its own options
    /// (`scan.startup.mode`). A split that appears while the source runs begins at its earliest record.
    ///
    /// `latest` and `timestamp` are resolved once: a source remembers the positions that it first gave out (see
    /// `start_to_keep`).
    fn start(&self) -> Result<Positions>;

    /// Where reading begins, if the options alone do not say it (`latest`, `timestamp`): asked when the source is created,
    /// kept with it, and given back by `restore_start` when the server was started again. None: the options say it.
    fn start_to_keep(&self) -> Result<Option<Positions>> {
        Ok(None)
    }

    /// The positions that `start_to_keep` gave when the source was created: from now on `start` is these.
    fn restore_start(&self, _start: &Positions) {}

    /// For each split its present end: the position that the next record to arrive will get. Bounded sources (a file,
    /// a generator with a row limit) give their last position.
    fn end(&self) -> Result<Positions>;

    /// For each split the position of the first record that it still has. A source that never loses one need not say.
    fn earliest(&self) -> Result<Positions> {
        self.start()
    }

    /// A reader that begins at `positions` and reads on as `mode` says, decoding only `projection` (indices into
    /// [`SourceSpec::columns`], ascending).
    fn read(&self, positions: Positions, projection: Vec<usize>, mode: ReadMode) -> Result<Box<dyn SourceReader>>;

    /// Tells the outside system how far the views have come (Kafka's consumer group), so that its tools show the lag.
    /// Best effort: nothing depends on it.
    fn commit(&self, _positions: &Positions) {}
}

/// Until when a reader reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// For ever, splits that appear included.
    Follow,
    /// Up to these positions (exclusive) and not one record further; then [`Batch::finished`].
    Until(Positions),
}

/// Reads one source, in order within each split.
pub trait SourceReader: Send {
    /// Waits up to `timeout` for records and returns what there is, at most about `bytes_max` bytes of them; a batch
    /// without rows where nothing came. A short wait is better than a small batch only when nothing is there: as soon
    /// as one record is there, it is returned with whatever else is ready.
    ///
    /// A broker that is away is not an error: the reader goes on trying, and says so in [`Batch::health`].
    /// Errors end the source: a bad record under `bad_record = 'fail'`, a position that no longer exists.
    fn poll(&mut self, timeout: Duration, bytes_max: usize) -> Result<Batch>;

    /// From the next poll on, decodes these columns.
    fn set_projection(&mut self, projection: Vec<usize>);
}

/// What one poll brought.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The rows: the columns of the projection that the reader had, in its order. Records of one split are in order.
    pub rows: RecordBatch,
    /// For each split with records in this batch (bad ones and skipped control records included), the position after
    /// its last one.
    pub positions: Positions,
    /// For each split in `positions`, the position of its first record in this batch.
    pub first_positions: Positions,
    /// Records that could not be decoded (empty unless `bad_record = 'dead_letter'`).
    pub dead_letters: Vec<DeadLetter>,
    /// How many records were skipped under `bad_record = 'skip'`.
    pub n_skipped: u64,
    /// Bytes of the records as they came.
    pub n_bytes: u64,
    /// For each split, the position that its next record will get, as far as the reader knows: the lag is this less
    /// the position reached.
    pub ends: Positions,
    /// Whether the outside system answers.
    pub health: Health,
    /// A bounded reader has come to its end: nothing more will come.
    pub finished: bool,
}

impl Batch {
    /// Nothing came.
    pub fn empty(schema: SchemaRef) -> Batch {
        Batch {
            rows: RecordBatch::new_empty(schema),
            positions: Positions::new(),
            first_positions: Positions::new(),
            dead_letters: vec![],
            n_skipped: 0,
            n_bytes: 0,
            ends: Positions::new(),
            health: Health::Running,
            finished: false,
        }
    }
}

/// Whether the outside system answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Running,
    /// It does not, and the reader keeps trying; what it said last.
    Retrying(String),
}

/// A record that could not be decoded, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it was.
    pub split: Split,
    /// Its position there.
    pub position: Position,
    /// The record's own time, microseconds since 1970-01-01 UTC, where it has one.
    pub timestamp_us: Option<i64>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Why it could not be decoded: a sentence with the column's path where there is one.
    pub error: String,
}
