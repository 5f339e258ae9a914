//! The thread that reads one source ahead of the epoch loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use arrow::datatypes::Schema;
use parking_lot::Mutex;
use tidewire_connect::{Batch, Health, Positions, ReadMode, Source, SourceReader};
use tidewire_types::{ObjectId, Result, SqlError, SqlState};

use crate::shared::{Shared, SourceBatch};

/// How long a reader waits for records before it looks whether it shall stop.
const POLL_TIMEOUT: Duration = Duration::from_millis(200);
/// Bytes of records that one poll brings at most.
const POLL_BYTES_MAX: usize = 4 << 20;
/// How often positions are told to the outside system.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// How long it waits before it tries again to reach an outside system that was away when it began.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// A running reader; it stops when this is dropped.
pub struct SourceTask {
    cancelled: Arc<AtomicBool>,
    // Its thread hears when this is gone.
    _alive: Sender<()>,
    // What the views contain, for the consumer group.
    committed: Arc<Mutex<Option<Positions>>>,
}

impl Drop for SourceTask {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl SourceTask {
    /// Reads `source` from `positions` on. What it brings goes to the inbox under `generation`.
    pub fn start(
        shared: Arc<Shared>,
        id: ObjectId,
        generation: u64,
        source: Arc<dyn Source>,
        positions: Positions,
        projection: Vec<usize>,
    ) -> Result<SourceTask> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let committed = Arc::new(Mutex::new(None));
        let (alive, gone) = channel();
        let task = SourceTask { cancelled: cancelled.clone(), _alive: alive, committed: committed.clone() };
        let run = move || {
            let output = Output { shared: &shared, id, generation, cancelled: &cancelled };
            let open = || source.read(positions.clone(), projection.clone(), ReadMode::Follow);
            let result = match output.open(&open, &gone) {
                Ok(Some(mut reader)) => output.follow(reader.as_mut(), source.as_ref(), &committed),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                shared.push_batch(SourceBatch { source: id, generation, batch: Err(error) }, &cancelled);
            }
        };
        thread::Builder::new()
            .name(format!("source-{id}"))
            .spawn(run)
            .map_err(|e| SqlError::new(SqlState::OutOfMemory, format!("cannot start a source thread: {e}")))?;
        Ok(task)
    }

    /// What the views contain now.
    pub fn commit(&self, positions: &Positions) {
        *self.committed.lock() = Some(positions.clone());
    }
}

struct Output<'a> {
    shared: &'a Shared,
    id: ObjectId,
    generation: u64,
    cancelled: &'a AtomicBool,
}

impl Output<'_> {
    /// A reader, as soon as the outside system answers: at a server's start it may come up later. None: nobody waits.
    fn open(
        &self,
        open: &dyn Fn() -> Result<Box<dyn SourceReader>>,
        gone: &Receiver<()>,
    ) -> Result<Option<Box<dyn SourceReader>>> {
        loop {
            let error = match open() {
                Err(error) if error.state() == SqlState::ConnectionFailure => error,
                result => return result.map(Some),
            };
            let health = Health::Retrying(error.message().to_string());
            let batch = Batch { health, ..Batch::empty(Arc::new(Schema::empty())) };
            let batch = SourceBatch { source: self.id, generation: self.generation, batch: Ok(batch) };
            if !self.shared.push_batch(batch, self.cancelled)
                || gone.recv_timeout(REOPEN_INTERVAL) == Err(RecvTimeoutError::Disconnected)
            {
                return Ok(None);
            }
        }
    }

    fn follow(
        &self,
        reader: &mut dyn SourceReader,
        source: &dyn Source,
        committed: &Mutex<Option<Positions>>,
    ) -> Result<()> {
        let mut last_commit = Instant::now();
        let mut last_health = Health::Running;
        let mut last_ends = Positions::new();
        while !self.cancelled.load(Ordering::Relaxed) {
            let batch = reader.poll(POLL_TIMEOUT, POLL_BYTES_MAX)?;
            let finished = batch.finished;
            // The first ends are news, so that an idle source has a lag of zero; later ones come with records.
            if is_news(&batch, &last_health) || (last_ends.is_empty() && !batch.ends.is_empty()) {
                last_health = batch.health.clone();
                last_ends.extend(&batch.ends);
                let batch = SourceBatch { source: self.id, generation: self.generation, batch: Ok(batch) };
                if !self.shared.push_batch(batch, self.cancelled) {
                    return Ok(());
                }
            }
            if finished {
                return Ok(());
            }
            if last_commit.elapsed() >= COMMIT_INTERVAL {
                last_commit = Instant::now();
                if let Some(positions) = committed.lock().take() {
                    source.commit(&positions);
                }
            }
        }
        Ok(())
    }
}

/// Whether the loop should hear of it: an idle source wakes nobody.
fn is_news(batch: &Batch, last_health: &Health) -> bool {
    batch.rows.num_rows() > 0
        || !batch.positions.is_empty()
        || !batch.dead_letters.is_empty()
        || batch.n_skipped > 0
        || batch.health != *last_health
}
