//! A log that is computed instead of stored: what the generator and Nexmark sources are made of.
//!
//! Invariant: row k of split s is always the same row, so that a reader can begin anywhere and two readers agree.
//! Rows become readable at a given rate by a monotonic clock, or all at once where there is no rate. This file is the
//! only one in the crate that looks at a clock.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::SchemaRef;
use parking_lot::{Condvar, Mutex};
use tidewire_types::{Result, SqlError, SqlState};

use crate::{
    Batch, Column, ColumnSource, OptionSpec, Options, Position, Positions, ReadMode, Source, SourceReader, SourceSpec,
    Split, schema_of,
};

/// Rows of one batch at most.
const BATCH_ROWS_MAX: i64 = 8192;
const SPLITS_MAX: u32 = 1024;
const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Computes the rows of a log.
pub(crate) trait Rows: Send + Sync + fmt::Debug {
    /// The values of a column for these rows of a split. `n_splits` says how rows are dealt out: row k of split s is
    /// row `k * n_splits + s` of the whole.
    fn fill(&self, column: usize, rows: &GlobalRows) -> Result<ArrayRef>;

    /// About how many bytes a row has.
    fn row_bytes(&self) -> u64;
}

/// Consecutive rows of one split.
#[derive(Clone, Debug)]
pub(crate) struct GlobalRows {
    split: Split,
    n_splits: i64,
    positions: Range<Position>,
}

impl GlobalRows {
    /// The numbers of the rows among those of all splits.
    pub(crate) fn indices(&self) -> impl Iterator<Item = u64> + use<> {
        let (split, n_splits) = (i64::from(self.split.0), self.n_splits);
        self.positions.clone().map(move |k| k.saturating_mul(n_splits).saturating_add(split).cast_unsigned())
    }

    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.positions.end - self.positions.start).unwrap_or(0)
    }
}

/// The options that all computed logs have.
pub(crate) const ROWS: OptionSpec =
    OptionSpec { name: "rows", required: false, help: "How many rows there are in all; default: without end." };
pub(crate) const RATE: OptionSpec = OptionSpec {
    name: "rows.per.second",
    required: false,
    help: "How many rows come in a second, over all splits. Default 10; all at once where rows is given.",
};
pub(crate) const SPLITS: OptionSpec =
    OptionSpec { name: "splits", required: false, help: "How many splits the rows are dealt out to; default 1." };

/// A computed log as a source.
#[derive(Debug)]
pub(crate) struct Log(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rows: Box<dyn Rows>,
    columns: Vec<Column>,
    n_splits: i64,
    n_rows: Option<i64>,
    pace: Pace,
}

impl Log {
    /// Errors: `22023` for an option's value, `42601` for a format: the rows were never bytes.
    pub(crate) fn new(rows: Box<dyn Rows>, spec: SourceSpec) -> Result<Log> {
        let SourceSpec { columns, options, format, .. } = spec;
        if let Some(format) = format.filter(|f| f.encode != "NATIVE") {
            let message = format!("a computed source cannot have ENCODE {}", format.encode);
            return Err(SqlError::new(SqlState::SyntaxError, message).with_hint("Leave FORMAT .. ENCODE out."));
        }
        let positive = |name| match options.get(name) {
            None => Ok(None),
            Some(_) => match options.parse_or::<i64>(name, 0)? {
                n if n > 0 => Ok(Some(n)),
                _ => Err(options.invalid(name, "it must be greater than zero")),
            },
        };
        let n_rows = positive(ROWS.name)?;
        let rate = positive(RATE.name)?.or(if n_rows.is_some() { None } else { Some(10) });
        let n_splits = n_splits(&options)?;
        Ok(Log(Arc::new(Shared { rows, columns, n_splits: i64::from(n_splits), n_rows, pace: Pace::new(rate) })))
    }
}

/// The value of the option `splits`.
pub(crate) fn n_splits(options: &Options) -> Result<u32> {
    match options.parse_or(SPLITS.name, 1)? {
        n @ 1..=SPLITS_MAX => Ok(n),
        _ => Err(options.invalid(SPLITS.name, &format!("it must be between 1 and {SPLITS_MAX}"))),
    }
}

impl Shared {
    fn splits(&self) -> impl Iterator<Item = Split> + use<> {
        (0..u32::try_from(self.n_splits).unwrap_or(1)).map(Split)
    }

    /// How many of the first `total` rows are dealt to a split.
    fn share(&self, split: Split, total: i64) -> i64 {
        total / self.n_splits + i64::from(i64::from(split.0) < total % self.n_splits)
    }

    /// How many rows can be read now.
    fn n_due(&self) -> i64 {
        self.pace.n_due().min(self.n_rows.unwrap_or(i64::MAX))
    }

    fn ends(&self) -> Positions {
        let n_due = self.n_due();
        self.splits().map(|split| (split, self.share(split, n_due))).collect()
    }
}

impl Source for Log {
    fn start(&self) -> Result<Positions> {
        Ok(self.0.splits().map(|split| (split, 0)).collect())
    }

    fn end(&self) -> Result<Positions> {
        Ok(self.0.ends())
    }

    fn read(&self, positions: Positions, projection: Vec<usize>, mode: ReadMode) -> Result<Box<dyn SourceReader>> {
        for (split, position) in &positions {
            if i64::from(split.0) >= self.0.n_splits || *position < 0 {
                let message = format!("split {} has no position {position}", split.0);
                return Err(SqlError::new(SqlState::InvalidParameterValue, message));
            }
        }
        // After a restart the log goes on from where it was read, whatever the new process's clock says.
        self.0.pace.advance_to(positions.values().fold(0, |sum, position| sum.saturating_add(*position)));
        let schema = schema_of(&self.0.columns, &projection);
        Ok(Box::new(LogReader { log: self.0.clone(), positions, projection, schema, mode }))
    }
}

/// Reads a computed log.
#[derive(Debug)]
struct LogReader {
    log: Arc<Shared>,
    positions: Positions,
    projection: Vec<usize>,
    schema: SchemaRef,
    mode: ReadMode,
}

impl LogReader {
    /// How far each split may be read when `ends` is how far it goes.
    fn limit(&self, split: Split, end: i64) -> i64 {
        match &self.mode {
            ReadMode::Follow => end,
            ReadMode::Until(until) => end.min(until.get(&split).copied().unwrap_or(0)),
        }
    }

    /// Whether nothing more will ever come.
    fn is_finished(&self) -> bool {
        let total = self.log.n_rows.unwrap_or(i64::MAX);
        self.positions.iter().all(|(split, position)| *position >= self.limit(*split, self.log.share(*split, total)))
    }

    /// The next rows of each split, `rows_max` over all of them.
    fn ready(&self, ends: &Positions, rows_max: i64) -> Vec<GlobalRows> {
        let ready: Vec<_> = self
            .positions
            .iter()
            .map(|(split, position)| (*split, *position, self.limit(*split, ends.get(split).copied().unwrap_or(0))))
            .filter(|(_, position, limit)| position < limit)
            .collect();
        let share = (rows_max / i64::try_from(ready.len()).unwrap_or(1).max(1)).max(1);
        ready
            .into_iter()
            .map(|(split, position, limit)| GlobalRows {
                split,
                n_splits: self.log.n_splits,
                positions: position..limit.min(position.saturating_add(share)),
            })
            .collect()
    }

    fn rows(&self, rows: &GlobalRows) -> Result<RecordBatch> {
        let arrays = self.projection.iter().map(|idx| self.column(*idx, rows)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
    }

    fn column(&self, idx: usize, rows: &GlobalRows) -> Result<ArrayRef> {
        let column = self.log.columns.get(idx).ok_or_else(|| SqlError::internal("projection beyond the columns"))?;
        Ok(match column.source {
            ColumnSource::Value => self.log.rows.fill(idx, rows)?,
            ColumnSource::Split => Arc::new(Int32Array::from_value(rows.split.0.cast_signed(), rows.len())),
            ColumnSource::Position => Arc::new(Int64Array::from_iter_values(rows.positions.clone())),
            _ => new_null_array(&column.sql_type.data_type(), rows.len()),
        })
    }

    fn batch(&mut self, ends: Positions, bytes_max: usize) -> Result<Batch> {
        let row_bytes = self.log.rows.row_bytes().max(1);
        let rows_max = i64::try_from(bytes_max as u64 / row_bytes).unwrap_or(i64::MAX).clamp(1, BATCH_ROWS_MAX);
        let ready = self.ready(&ends, rows_max);
        let mut batch = Batch::empty(self.schema.clone());
        if !ready.is_empty() {
            let batches = ready.iter().map(|rows| self.rows(rows)).collect::<Result<Vec<_>>>()?;
            batch.rows = arrow::compute::concat_batches(&self.schema, &batches)?;
        }
        for GlobalRows { split, positions, .. } in ready {
            batch.first_positions.insert(split, positions.start);
            batch.positions.insert(split, positions.end);
            self.positions.insert(split, positions.end);
        }
        batch.n_bytes = batch.rows.num_rows() as u64 * row_bytes;
        batch.ends = ends;
        batch.finished = self.is_finished();
        Ok(batch)
    }
}

impl SourceReader for LogReader {
    fn poll(&mut self, timeout: Duration, bytes_max: usize) -> Result<Batch> {
        let ends = self.log.ends();
        if self.ready(&ends, 1).is_empty() && !self.is_finished() {
            self.log.pace.wait_for_more(timeout);
            return self.batch(self.log.ends(), bytes_max);
        }
        self.batch(ends, bytes_max)
    }

    fn set_projection(&mut self, projection: Vec<usize>) {
        self.schema = schema_of(&self.log.columns, &projection);
        self.projection = projection;
    }
}

/// At what rate rows become readable.
#[derive(Debug)]
struct Pace {
    rows_per_second: Option<i64>,
    began: Instant,
    /// Rows that could be read when it began.
    base: Mutex<i64>,
    /// Nobody signals it: it is waited on until a row is due.
    due: Condvar,
}

impl Pace {
    fn new(rows_per_second: Option<i64>) -> Pace {
        Pace { rows_per_second, began: Instant::now(), base: Mutex::new(0), due: Condvar::new() }
    }

    fn n_due(&self) -> i64 {
        match self.rows_per_second {
            None => i64::MAX,
            Some(rate) => self.base.lock().saturating_add(self.n_since_began(rate)),
        }
    }

    fn n_since_began(&self, rate: i64) -> i64 {
        let nanos = i128::try_from(self.began.elapsed().as_nanos()).unwrap_or(i128::MAX / 2);
        i64::try_from(nanos.saturating_mul(i128::from(rate)) / NANOS_PER_SECOND).unwrap_or(i64::MAX)
    }

    /// Makes at least `n` rows readable now.
    fn advance_to(&self, n: i64) {
        if let Some(rate) = self.rows_per_second {
            let n_since = self.n_since_began(rate);
            let mut base = self.base.lock();
            *base = (*base).max(n.saturating_sub(n_since));
        }
    }

    /// Waits until one more row is due, at most `timeout`.
    fn wait_for_more(&self, timeout: Duration) {
        let Some(rate) = self.rows_per_second else { return };
        let next = i128::from(self.n_since_began(rate)) + 1;
        let due = next * NANOS_PER_SECOND / i128::from(rate) + 1;
        let elapsed = i128::try_from(self.began.elapsed().as_nanos()).unwrap_or(due);
        let wait = Duration::from_nanos(u64::try_from(due - elapsed).unwrap_or(0)).min(timeout);
        if !wait.is_zero() {
            self.due.wait_for(&mut self.base.lock(), wait);
        }
    }
}

/// The `n`th number of a random sequence that `seed` names: the same for ever (SplitMix64's output function).
#[inline]
pub(crate) fn random(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number below `limit` (which is not zero) of a random one.
#[inline]
pub(crate) fn below(random: u64, limit: u64) -> u64 {
    ((u128::from(random) * u128::from(limit)) >> 64) as u64
}
