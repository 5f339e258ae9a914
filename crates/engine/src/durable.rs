//! What the epoch loop writes to disk: the log, and now and then a checkpoint.
//!
//! A write is in the log before any view sees it, and so a full disk refuses a write without a trace. The `fsync` is
//! another thread's; the loop goes on with the next epochs and publishes each when the disk has it. Checkpoints are
//! written by a third thread, from a snapshot that stays readable meanwhile: the loop only hands over lists.
//!
//! A checkpoint is of one epoch that the loop has applied, whether it is published or not: its manifest waits until the log
//! is durable up to there, and so does the publication.
//!
//! Invariant: `objects` is what the log says of the catalog, views that are still being built again included.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arrow::datatypes::Schema;
use tidewire_catalog::Kind;
use tidewire_operators::arrangement::ArrangementReader;
use tidewire_state::{
    BackedUp, BackupTarget, Checkpoints, Cut, Log, LogOptions, Moved, Record, SharedNode, StateCut, Storage,
    StoredLetter, StoredObject, StoredSource, TableChange, TableCut, ViewCut, Written, delta_bytes,
};
use tidewire_types::{Delta, ObjectId, Result, SqlError, SqlState};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use crate::shared::{Relation, Shared, Snapshot, stopped};
use crate::status::CheckpointStatus;

/// How many times the bytes of changes that make a checkpoint due may wait in memory for being written.
const WAITING_PARTS_MAX: usize = 4;
/// From when on a store that has not answered is taken to be away.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// One a server that is not in memory alone; owned by the loop.
pub struct Durability {
    log: Log,
    objects: BTreeMap<u32, StoredObject>,
    // Since the last cut, of tables and of views.
    changes: HashMap<ObjectId, Noted>,
    // State of views that has become another's since the last cut.
    moved: Vec<Moved>,
    dead_letters: Vec<StoredLetter>,
    checkpointer: Checkpointer,
    checkpoint_interval: Duration,
    checkpoint_log_bytes: u64,
    checkpoint_held_bytes: usize,
    n_bytes_cut: u64,
    // Bytes of changes in cuts that are not written.
    n_unwritten_bytes: usize,
    last_cut: Instant,
    is_cut_running: bool,
    is_dirty: bool,
    // Not yet everything that was found is in the loop.
    is_recovering: bool,
    status: CheckpointStatus,
    // Who waits for a checkpoint that is to begin, and for the one that is written.
    asking: Vec<Asking>,
    waiting: Vec<Asking>,
    // Who wants a copy of the checkpoint that is to begin.
    backups: Vec<Backup>,
}

/// Who waits for a checkpoint.
pub type Asking = oneshot::Sender<Result<()>>;

/// What the loop hands over of one materialized view.
pub struct KeptView {
    /// Its OID.
    pub id: ObjectId,
    /// What its operators' state means.
    pub fingerprint: String,
    /// Whether no checkpoint of this life has it.
    pub is_new: bool,
    /// What changed in its operators.
    pub operators: Vec<StateCut>,
    /// Whether it is a plan that several views share, which has no rows.
    pub is_plan: bool,
    /// The nodes whose rows come from a shared plan.
    pub shared: Vec<SharedNode>,
    /// For each node that reads an object, the rows that came.
    pub n_taken: BTreeMap<u32, u64>,
}

/// What changed in a table or view since the last cut.
#[derive(Default)]
struct Noted {
    deltas: Vec<Delta>,
    // Of a view.
    n_rows: usize,
    n_bytes: usize,
    // More than the view has rows: they are not held, and the checkpoint has all rows.
    is_too_much: bool,
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
        let noted = |(id, deltas)| (id, Noted { deltas, ..Noted::default() });
        let changes = found.changes.into_iter().map(noted).collect();
        let settings = &shared.settings;
        let options = LogOptions { segment_bytes_max: settings.log_segment_bytes_max, ..LogOptions::default() };
        Ok(Durability {
            log: Log::start(storage.clone(), found.next, options, on_synced)?,
            objects: found.objects,
            changes,
            moved: vec![],
            dead_letters: found.dead_letters,
            checkpointer: Checkpointer::start(found.checkpoints, shared)?,
            checkpoint_interval: settings.checkpoint_interval,
            checkpoint_log_bytes: settings.checkpoint_log_bytes,
            checkpoint_held_bytes: settings.checkpoint_held_bytes,
            n_bytes_cut: 0,
            n_unwritten_bytes: 0,
            last_cut: Instant::now(),
            is_cut_running: false,
            is_dirty,
            is_recovering: true,
            status: CheckpointStatus::default(),
            asking: vec![],
            waiting: vec![],
            backups: vec![],
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

    /// Writes what transactions changed, all or nothing of it: when that many records are durable, it is.
    pub fn write(&mut self, changes: Vec<TableChange>, synchronous: bool) -> Result<u64> {
        let record = Record::Rows(changes);
        let number = self.log.append(&record.encode()?, synchronous)?;
        self.note(record);
        Ok(number + 1)
    }

    /// What a step changed in a view that has `n_rows` now.
    ///
    /// Changes that outnumber the rows are let go: all rows are written sooner than so many changes are summed up.
    pub fn note_view(&mut self, view: ObjectId, deltas: &[Delta], n_rows: usize) {
        self.is_dirty = true;
        let noted = self.changes.entry(view).or_default();
        if noted.is_too_much {
            return;
        }
        noted.n_rows += deltas.iter().map(Delta::n_rows).sum::<usize>();
        if noted.n_rows > n_rows {
            *noted = Noted { is_too_much: true, ..Noted::default() };
            return;
        }
        noted.n_bytes += deltas.iter().map(delta_bytes).sum::<usize>();
        noted.deltas.extend_from_slice(deltas);
    }

    /// Bytes of what changed in tables and views since the last cut.
    fn n_change_bytes(&self) -> usize {
        self.changes.values().map(|noted| noted.n_bytes).sum()
    }

    /// State of a view that the last cut had has become another's.
    pub fn note_moved(&mut self, moved: Moved) {
        self.moved.push(moved);
        self.is_dirty = true;
    }

    /// Something else that checkpoints have is not what the last one has.
    pub fn note_change(&mut self) {
        self.is_dirty = true;
    }

    /// Everything that was found on disk is in the loop: from now on checkpoints are written.
    pub fn recovered(&mut self) {
        self.is_recovering = false;
        self.last_cut = Instant::now();
    }

    /// Writes a change of the catalog; it is durable when this returns.
    pub fn change_catalog(&mut self, record: Record) -> Result<()> {
        let number = self.log.append(&record.encode()?, true)?;
        self.is_dirty = true;
        self.wait(number + 1)?;
        self.note(record);
        Ok(())
    }

    /// What the log has and the next checkpoint must have.
    fn note(&mut self, record: Record) {
        self.is_dirty = true;
        match record {
            Record::Rows(changes) => {
                for change in changes {
                    let noted = self.changes.entry(change.table).or_default();
                    noted.n_bytes += delta_bytes(&change.delta);
                    noted.deltas.push(change.delta);
                }
            }
            Record::Create(objects) => self.objects.extend(objects.into_iter().map(|object| (object.oid, object))),
            Record::Drop(ids) => {
                for id in &ids {
                    self.objects.remove(&id.0);
                    self.changes.remove(id);
                }
                self.dead_letters.retain(|letter| !ids.contains(&ObjectId(letter.object)));
            }
            Record::DeadLetters(letters) => self.dead_letters.extend(letters),
            Record::End => {}
            Record::Together(records) => records.into_iter().for_each(|record| self.note(record)),
        }
    }

    /// Writes dead letters; nobody waits for them.
    pub fn write_dead_letters(&mut self, letters: Vec<StoredLetter>) {
        let record = Record::DeadLetters(letters);
        let written = record.encode().and_then(|bytes| self.log.append(&bytes, false));
        if let Err(error) = written {
            warn!(%error, "dead letters are not in the log; the next checkpoint may still have them");
        }
        self.note(record);
    }

    /// Has the next checkpoint written at once.
    pub fn ask_for_checkpoint(&mut self, asking: Asking) {
        match self.is_dirty() || self.is_recovering {
            true => self.asking.push(asking),
            // Whoever asked may be gone.
            false => drop(asking.send(Ok(()))),
        }
    }

    /// Has the next checkpoint written at once, whether anything has changed or not, and copied before another one takes
    /// its place.
    pub fn ask_for_backup(&mut self, backup: Backup) {
        self.backups.push(backup);
    }

    /// When the next checkpoint is due, with so many bytes held elsewhere; None: nothing has changed.
    pub fn checkpoint_due(&self, held_bytes: usize) -> Option<Instant> {
        // While the store of the log is away the loop would wait for it.
        if self.is_cut_running || self.is_recovering || self.is_stalled() {
            return None;
        }
        if !self.backups.is_empty() {
            return Some(self.last_cut);
        }
        if !self.is_dirty {
            return None;
        }
        let is_much = self.log.n_bytes() - self.n_bytes_cut >= self.checkpoint_log_bytes
            || held_bytes + self.n_change_bytes() >= self.checkpoint_held_bytes;
        match is_much || !self.asking.is_empty() {
            true => Some(self.last_cut),
            false => Some(self.last_cut + self.checkpoint_interval),
        }
    }

    /// Whether so much waits for being written, with so many bytes held elsewhere, that no more shall come.
    pub fn is_behind(&self, held_bytes: usize) -> bool {
        let n_bytes = held_bytes + self.n_change_bytes() + self.n_unwritten_bytes;
        n_bytes >= WAITING_PARTS_MAX * self.checkpoint_held_bytes
    }

    /// Hands over everything that a checkpoint is made of, `held_bytes` among it; what `snapshot` shows must be all that was logged.
    pub fn cut(
        &mut self,
        snapshot: &Arc<Snapshot>,
        shared: &Arc<Shared>,
        views: Vec<KeptView>,
        sources: Vec<StoredSource>,
        held_bytes: usize,
        at_end: bool,
    ) {
        self.n_unwritten_bytes += held_bytes + self.n_change_bytes();
        let moment = &snapshot.moment;
        let mut changes = std::mem::take(&mut self.changes);
        let mut relation = |id: ObjectId, reader: &Arc<ArrangementReader>| {
            let Noted { deltas, is_too_much, .. } = changes.remove(&id).unwrap_or_default();
            let changes = (!is_too_much).then_some(deltas);
            relation_cut(id, reader.clone(), changes, snapshot.clone(), shared.clone(), at_end)
        };
        let rows = |id: &ObjectId| match moment.relations.get(id) {
            Some(Relation::Rows(reader)) => Some(reader),
            Some(Relation::Failed(_)) | None => None,
        };
        let is_table = |id: &&ObjectId| moment.catalog.by_id(**id).is_some_and(|o| matches!(o.def, Kind::Table(_)));
        let tables = moment.relations.keys().filter(is_table).filter_map(|id| Some(relation(*id, rows(id)?))).collect();
        let view = |kept: KeptView| {
            let KeptView { id, fingerprint, is_new, operators, is_plan, shared, n_taken } = kept;
            let relation = if is_plan { without_rows(id) } else { relation(id, rows(&id)?) };
            Some(ViewCut { fingerprint, is_new, relation, operators, shared, n_taken })
        };
        let views = views.into_iter().filter_map(view).collect();
        let shared = shared.clone();
        let cut = Cut {
            log_from: self.log.next(),
            log: self.log.progress().clone(),
            last_oid: moment.catalog.last_oid(),
            objects: self.objects.values().cloned().collect(),
            tables,
            views,
            moved: std::mem::take(&mut self.moved),
            sources,
            n_shards: shared.settings.n_shards as u32,
            dead_letters: std::mem::take(&mut self.dead_letters),
            dead_letter_bytes_max: shared.settings.dead_letter_bytes_max as u64,
            keeps_bases: at_end,
            is_stopping: Box::new(move || shared.is_stopping()),
        };
        // A server that ends begins no copy.
        let backups = std::mem::take(&mut self.backups);
        self.checkpointer.send(cut, if at_end { vec![] } else { backups });
        self.n_bytes_cut = self.log.n_bytes();
        self.last_cut = Instant::now();
        self.is_cut_running = true;
        self.is_dirty = false;
        self.waiting.append(&mut self.asking);
    }

    /// How long the loop stood still for a cut, or for a part of one.
    pub fn paused(&mut self, pause: Duration) {
        let pause_ns = pause.as_nanos() as u64;
        self.status.pause_ns += pause_ns;
        self.status.pause_ns_max = self.status.pause_ns_max.max(pause_ns);
        debug!(pause_us = pause.as_micros() as u64, "copied for a checkpoint");
    }

    /// A checkpoint was written, or was not. Errors: another process writes here.
    pub fn cut_ended(&mut self, result: &Result<Written>, elapsed: Duration) -> Result<()> {
        self.is_cut_running = false;
        for waiting in self.waiting.drain(..) {
            // Whoever asked may be gone.
            let _ = waiting.send(result.as_ref().map(|_| ()).map_err(Clone::clone));
        }
        match result {
            Ok(written) => {
                self.status.n_written += 1;
                self.status.n_bytes += written.n_bytes;
                self.status.n_changed_bytes += written.n_changed_bytes;
                self.status.write_ns += elapsed.as_nanos() as u64;
                self.n_unwritten_bytes = 0;
                Ok(())
            }
            Err(error) if error.state() == SqlState::ObjectInUse => Err(error.clone()),
            Err(error) => {
                warn!(%error, "no checkpoint could be written; the log goes on");
                self.status.n_failed += 1;
                // Its changes are only in the log and in memory now: the next one writes these tables anew.
                self.is_dirty = true;
                Ok(())
            }
        }
    }

    /// What was written since the start.
    pub fn status(&self, held_bytes: usize) -> CheckpointStatus {
        let is_behind = self.is_behind(held_bytes);
        CheckpointStatus { held_bytes: self.n_change_bytes() + held_bytes, is_behind, ..self.status.clone() }
    }

    /// Whether the last checkpoint has everything.
    pub fn is_dirty(&self) -> bool {
        self.is_dirty || self.is_cut_running
    }

    /// Whether a checkpoint would have everything.
    pub fn is_recovered(&self) -> bool {
        !self.is_recovering
    }

    /// Ends in good order: whatever was written is durable.
    pub fn finish(mut self) -> Result<()> {
        self.checkpointer.finish();
        let number = self.log.append(&Record::End.encode()?, true)?;
        self.wait(number + 1)
    }
}

/// A table or view of a checkpoint.
fn relation_cut(
    table: ObjectId,
    reader: Arc<ArrangementReader>,
    changes: Option<Vec<Delta>>,
    snapshot: Arc<Snapshot>,
    shared: Arc<Shared>,
    at_end: bool,
) -> TableCut {
    let schema = reader.schema();
    let rows = move || {
        let rows = reader.scan(snapshot.moment.epoch, None)?;
        // A server that stops does not wait for all rows of a large table.
        let rows = rows.map(move |rows| if !at_end && shared.is_stopping() { Err(stopped()) } else { rows });
        Ok(Box::new(Pinned { rows, _snapshot: snapshot }) as _)
    };
    TableCut { table, schema, changes, rows: Box::new(rows) }
}

fn without_rows(plan: ObjectId) -> TableCut {
    let rows = || Ok(Box::new(std::iter::empty()) as _);
    TableCut { table: plan, schema: Arc::new(Schema::empty()), changes: Some(vec![]), rows: Box::new(rows) }
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
    fn answer(self, written: &Result<Written>, checkpoints: &Checkpoints) {
        if self.reply.is_closed() {
            return;
        }
        let done = written.clone().and_then(|_| self.target.write(checkpoints));
        if let Ok(BackedUp { place, n_files, n_bytes, .. }) = &done {
            info!(%place, n_files, n_bytes, "the backup is written");
        }
        let _ = self.reply.send(done);
    }
}

/// The thread that writes checkpoints.
struct Checkpointer {
    sender: Option<Sender<(Box<Cut>, Vec<Backup>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    fn start(mut checkpoints: Checkpoints, shared: &Arc<Shared>) -> Result<Checkpointer> {
        let (sender, receiver) = channel::<(Box<Cut>, Vec<Backup>)>();
        let shared = Arc::downgrade(shared);
        let run = move || {
            while let Ok((cut, backups)) = receiver.recv() {
                let began = Instant::now();
                let result = checkpoints.write(*cut);
                let elapsed = began.elapsed();
                if let Ok(Written { n_bytes, n_changed_bytes }) = result {
                    debug!(elapsed_ms = elapsed.as_millis() as u64, n_bytes, n_changed_bytes, "checkpoint written");
                }
                backups.into_iter().for_each(|backup| backup.answer(&result, &checkpoints));
                if let Some(shared) = shared.upgrade() {
                    shared.cast(move |core| core.checkpoint_ended(&result, elapsed));
                }
            }
        };
        let thread = thread::Builder::new().name("checkpoint".to_string()).spawn(run);
        let thread = thread
            .map_err(|e| SqlError::new(SqlState::OutOfMemory, format!("cannot start the checkpoint thread: {e}")))?;
        Ok(Checkpointer { sender: Some(sender), thread: Some(thread) })
    }

    fn send(&self, cut: Cut, backups: Vec<Backup>) {
        // The thread lives as long as the sender.
        if let Some(sender) = &self.sender {
            let _ = sender.send((Box::new(cut), backups));
        }
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
