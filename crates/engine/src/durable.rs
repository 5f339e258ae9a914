//! What the epoch loop writes to disk: the log, and now and then a checkpoint.
//!
//! A write is in the log before any view sees it, and so a full disk refuses a write without a trace. The `fsync` is
//! another thread's; the loop goes on with the next epochs and publishes each when the disk has it. Checkpoints are
//! written by a third thread, from a snapshot that stays readable meanwhile: the loop only hands over lists.
//!
//! Invariant: `objects` is what the log says of the catalog, views that are still being built again included.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tidewire_catalog::Kind;
use tidewire_state::{
    BackedUp, BackupTarget, Checkpoints, Cut, Log, LogOptions, Record, Storage, StoredLetter, StoredObject,
    TableChange, TableCut,
};
use tidewire_types::{Delta, ObjectId, Result, SqlError, SqlState};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::shared::{Relation, Shared, Snapshot, stopped};

/// From when on a store that has not answered is taken to be away.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// One a server that is not in memory alone; owned by the loop.
pub struct Durability {
    log: Log,
    objects: BTreeMap<u32, StoredObject>,
    // Since the last cut.
    changes: HashMap<ObjectId, Vec<Delta>>,
    dead_letters: Vec<StoredLetter>,
    checkpointer: Checkpointer,
    checkpoint_interval: Duration,
    checkpoint_log_bytes: u64,
    n_bytes_cut: u64,
    last_cut: Instant,
    is_cut_running: bool,
    is_dirty: bool,
}

/// What was found on disk, and what follows from it for the next checkpoint.
pub struct Found {
    /// The checkpoints that there are.
    pub checkpoints: Checkpoints,
    /// The number of the log's next record.
    pub next: u64,
    /// The catalog.
    pub objects: BTreeMap<u32, StoredObject>,
    /// What the log changed behind the newest checkpoint.
    pub changes: HashMap<ObjectId, Vec<Delta>>,
    /// Dead letters behind the newest checkpoint.
    pub dead_letters: Vec<StoredLetter>,
}

impl Durability {
    /// Goes on behind what was found.
    pub fn start(storage: &Storage, found: Found, shared: &Arc<Shared>) -> Result<Durability> {
        let weak = Arc::downgrade(shared);
        let on_synced = move || {
            if let Some(shared) = weak.upgrade() {
                shared.wake();
            }
        };
        let is_dirty = !found.changes.is_empty() || !found.dead_letters.is_empty();
        let settings = &shared.settings;
        let options = LogOptions { segment_bytes_max: settings.log_segment_bytes_max, ..LogOptions::default() };
        Ok(Durability {
            log: Log::start(storage.clone(), found.next, options, on_synced)?,
            objects: found.objects,
            changes: found.changes,
            dead_letters: found.dead_letters,
            checkpointer: Checkpointer::start(found.checkpoints, shared)?,
            checkpoint_interval: settings.checkpoint_interval,
            checkpoint_log_bytes: settings.checkpoint_log_bytes,
            n_bytes_cut: 0,
            last_cut: Instant::now(),
            is_cut_running: false,
            is_dirty,
        })
    }

    /// Every record with a number below this is durable.
    pub fn n_durable(&self) -> u64 {
        self.log.progress().n_durable()
    }

    /// Whether the log's store does not answer.
    pub fn is_stalled(&self) -> bool {
        self.log.stall().is_some_and(|stall| stall > STALLED_AFTER)
    }

    /// Waits until every record with a number below `n` is durable.
    pub fn wait(&self, n: u64) -> Result<()> {
        self.log.progress().wait(n)
    }

    /// Why nothing becomes durable any more.
    pub fn error(&self) -> Option<SqlError> {
        self.log.progress().error()
    }

    /// Writes what one transaction changed: when that many records are durable, it is.
    pub fn write(&mut self, changes: Vec<TableChange>, synchronous: bool) -> Result<u64> {
        let record = Record::Rows(changes);
        let number = self.log.append(&record.encode()?, synchronous)?;
        if let Record::Rows(changes) = record {
            changes.into_iter().for_each(|c| self.changes.entry(c.table).or_default().push(c.delta));
        }
        self.is_dirty = true;
        Ok(number + 1)
    }

    /// Writes new objects; they are durable when this returns.
    pub fn create(&mut self, objects: Vec<StoredObject>) -> Result<()> {
        self.write_and_wait(&Record::Create(objects.clone()))?;
        self.objects.extend(objects.into_iter().map(|object| (object.oid, object)));
        Ok(())
    }

    /// Writes that objects are dropped; durable when this returns.
    pub fn drop_objects(&mut self, ids: &[ObjectId]) -> Result<()> {
        self.write_and_wait(&Record::Drop(ids.to_vec()))?;
        for id in ids {
            self.objects.remove(&id.0);
            self.changes.remove(id);
        }
        self.dead_letters.retain(|letter| !ids.contains(&ObjectId(letter.object)));
        Ok(())
    }

    fn write_and_wait(&mut self, record: &Record) -> Result<()> {
        let number = self.log.append(&record.encode()?, true)?;
        self.is_dirty = true;
        self.wait(number + 1)
    }

    /// Writes dead letters; nobody waits for them.
    pub fn write_dead_letters(&mut self, letters: Vec<StoredLetter>) {
        let record = Record::DeadLetters(letters);
        let written = record.encode().and_then(|bytes| self.log.append(&bytes, false));
        if let Err(error) = written {
            warn!(%error, "dead letters are not in the log; the next checkpoint may still have them");
        }
        if let Record::DeadLetters(letters) = record {
            self.dead_letters.extend(letters);
        }
        self.is_dirty = true;
    }

    /// When the next checkpoint is due; None: nothing has changed.
    pub fn checkpoint_due(&self) -> Option<Instant> {
        // While the store of the log is away the loop would wait for it.
        if self.is_cut_running || !self.is_dirty || self.is_stalled() {
            return None;
        }
        match self.log.n_bytes() - self.n_bytes_cut >= self.checkpoint_log_bytes {
            true => Some(self.last_cut),
            false => Some(self.last_cut + self.checkpoint_interval),
        }
    }

    /// Hands over everything that a checkpoint is made of; what `snapshot` shows must be all that was logged.
    pub fn cut(&mut self, snapshot: &Arc<Snapshot>, shared: &Arc<Shared>, last_oid: u32, at_end: bool) {
        self.cut_and_copy(snapshot, shared, last_oid, at_end, None);
    }

    /// The same, and the checkpoint is copied before another one takes its place.
    pub fn cut_and_copy(
        &mut self,
        snapshot: &Arc<Snapshot>,
        shared: &Arc<Shared>,
        last_oid: u32,
        at_end: bool,
        backup: Option<Backup>,
    ) {
        let mut changes = std::mem::take(&mut self.changes);
        let is_table = |(id, relation): (&ObjectId, &Relation)| match (relation, snapshot.moment.catalog.by_id(*id)) {
            (Relation::Rows(reader), Some(object)) if matches!(object.def, Kind::Table(_)) => {
                Some((*id, reader.clone()))
            }
            _ => None,
        };
        let mut tables = vec![];
        for (table, reader) in snapshot.moment.relations.iter().filter_map(is_table) {
            let (schema, snapshot, shared) = (reader.schema(), snapshot.clone(), shared.clone());
            let rows = move || {
                let rows = reader.scan(snapshot.moment.epoch, None)?;
                // A server that stops does not wait for all rows of a large table.
                let rows = rows.map(move |rows| if !at_end && shared.is_stopping() { Err(stopped()) } else { rows });
                Ok(Box::new(Pinned { rows, _snapshot: snapshot }) as _)
            };
            let changes = changes.remove(&table).unwrap_or_default();
            tables.push(TableCut { table, schema, changes, rows: Box::new(rows) });
        }
        let cut = Cut {
            log_from: self.log.next(),
            log: self.log.progress().clone(),
            last_oid,
            objects: self.objects.values().cloned().collect(),
            tables,
            dead_letters: std::mem::take(&mut self.dead_letters),
            dead_letter_bytes_max: shared.settings.dead_letter_bytes_max as u64,
            keeps_bases: at_end,
        };
        self.checkpointer.send(cut, backup);
        self.n_bytes_cut = self.log.n_bytes();
        self.last_cut = Instant::now();
        self.is_cut_running = true;
        self.is_dirty = false;
    }

    /// A checkpoint was written, or was not. Errors: another process writes here.
    pub fn cut_ended(&mut self, result: &Result<()>) -> Result<()> {
        self.is_cut_running = false;
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.state() == SqlState::ObjectInUse => Err(error.clone()),
            Err(error) => {
                warn!(%error, "no checkpoint could be written; the log goes on");
                // Its changes are only in the log now: the next one writes these tables anew.
                self.is_dirty = true;
                Ok(())
            }
        }
    }

    /// Whether the last checkpoint has everything.
    pub fn is_dirty(&self) -> bool {
        self.is_dirty || self.is_cut_running
    }

    /// Ends in good order: whatever was written is durable.
    pub fn finish(mut self) -> Result<()> {
        self.checkpointer.finish();
        let number = self.log.append(&Record::End.encode()?, true)?;
        self.wait(number + 1)
    }
}

/// Rows of a snapshot that stays readable until they have been read.
struct Pinned<I> {
    rows: I,
    _snapshot: Arc<Snapshot>,
}

impl<I: Iterator> Iterator for Pinned<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.rows.next()
    }
}

/// Who wants a copy of a checkpoint.
pub struct Backup {
    /// Where to.
    pub target: BackupTarget,
    /// Who waits for it.
    pub reply: oneshot::Sender<Result<BackedUp>>,
}

impl Backup {
    fn answer(self, written: &Result<()>, checkpoints: &Checkpoints) {
        if self.reply.is_closed() {
            return;
        }
        let done = written.clone().and_then(|()| self.target.write(checkpoints));
        if let Ok(BackedUp { place, n_files, n_bytes, .. }) = &done {
            info!(%place, n_files, n_bytes, "the backup is written");
        }
        let _ = self.reply.send(done);
    }
}

/// The thread that writes checkpoints.
struct Checkpointer {
    sender: Option<Sender<(Cut, Option<Backup>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    fn start(mut checkpoints: Checkpoints, shared: &Arc<Shared>) -> Result<Checkpointer> {
        let (sender, receiver) = channel::<(Cut, Option<Backup>)>();
        let shared = Arc::downgrade(shared);
        let run = move || {
            while let Ok((cut, backup)) = receiver.recv() {
                let began = Instant::now();
                let result = checkpoints.write(cut);
                if result.is_ok() {
                    info!(elapsed_ms = began.elapsed().as_millis() as u64, "checkpoint written");
                }
                if let Some(backup) = backup {
                    backup.answer(&result, &checkpoints);
                }
                if let Some(shared) = shared.upgrade() {
                    shared.cast(move |core| core.checkpoint_ended(&result));
                }
            }
        };
        let thread = thread::Builder::new().name("checkpoint".to_string()).spawn(run);
        let thread = thread
            .map_err(|e| SqlError::new(SqlState::OutOfMemory, format!("cannot start the checkpoint thread: {e}")))?;
        Ok(Checkpointer { sender: Some(sender), thread: Some(thread) })
    }

    fn send(&self, cut: Cut, backup: Option<Backup>) {
        // The thread lives as long as the sender.
        let _ = self.sender.as_ref().map(|sender| sender.send((cut, backup)));
    }

    /// Waits until the last checkpoint is written.
    fn finish(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the checkpoint thread did not end well");
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.finish();
    }
}
