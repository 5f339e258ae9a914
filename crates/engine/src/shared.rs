//! What the epoch loop and everybody else share: the inbox of the loop, and the moment that it published last.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use tidewire_catalog::{Catalog, Object};
use tidewire_connect::{Batch, Source};
use tidewire_operators::arrangement::ArrangementReader;
use tidewire_operators::assert::several_rows;
use tidewire_types::{Epoch, ObjectId, Result, SqlError, SqlState};
use tokio::sync::{oneshot, watch};

use crate::core::Core;
use crate::dead_letters::DeadLetters;
use crate::memory::Memory;
use crate::table::Write;
use crate::{Operators, Settings};

/// Something that the loop does for a caller between two epochs.
pub type Call = Box<dyn FnOnce(&mut Core) + Send>;

/// One handle a server.
pub struct Shared {
    pub settings: Settings,
    pub operators: Operators,
    pub dead_letters: DeadLetters,
    /// Whether there are checkpoints, so that the state of views is to be held for them.
    pub is_durable: bool,
    pub memory: Memory,
    inbox: Mutex<Inbox>,
    // Signalled when the inbox gets something for the loop.
    filled: Condvar,
    // Signalled when the loop took batches: a source that waited for room goes on.
    emptied: Condvar,
    published: RwLock<Published>,
    pins: Mutex<BTreeMap<Epoch, usize>>,
    stopping: AtomicBool,
    // Why the loop ended by itself.
    ended: watch::Sender<Option<SqlError>>,
}

#[derive(Default)]
struct Inbox {
    calls: Vec<Call>,
    writes: Vec<Write>,
    batches: Vec<SourceBatch>,
    // Bytes in `batches` by source.
    queued_bytes: HashMap<ObjectId, usize>,
    // Something became durable, which the loop may now publish.
    woken: bool,
    // The loop has ended: nothing will be answered any more.
    closed: bool,
}

/// What a source's reader brought.
pub struct SourceBatch {
    pub source: ObjectId,
    /// Of the reader: batches of a reader that was replaced are thrown away.
    pub generation: u64,
    pub batch: Result<Batch>,
}

/// What the loop took out of the inbox at once.
pub struct Taken {
    pub calls: Vec<Call>,
    pub writes: Vec<Write>,
    pub batches: Vec<SourceBatch>,
}

/// A relation's state for readers.
#[derive(Clone, Debug)]
pub enum Relation {
    /// Its rows.
    Rows(Arc<ArrangementReader>),
    /// The view stopped at this error.
    Failed(SqlError),
}

/// One moment: what is consistent with each other.
#[derive(Clone)]
pub struct Published {
    pub epoch: Epoch,
    pub catalog: Arc<Catalog>,
    pub relations: Arc<HashMap<ObjectId, Relation>>,
    /// The views whose rows mean nothing, because a subquery of theirs has several rows.
    pub undefined: Arc<HashSet<ObjectId>>,
    pub sources: Arc<HashMap<ObjectId, Arc<dyn Source>>>,
}

/// A moment that stays readable for as long as this lives.
pub struct Snapshot {
    pub moment: Published,
    shared: Arc<Shared>,
}

impl Snapshot {
    /// Whether nothing has been published since.
    pub fn is_present(&self) -> bool {
        let present = self.shared.published.read();
        present.epoch == self.moment.epoch && Arc::ptr_eq(&present.relations, &self.moment.relations)
    }

    /// Errors: `21000` for a view that means nothing at this moment.
    pub fn check_defined(&self, object: &Object) -> Result<()> {
        match self.moment.undefined.contains(&object.id) {
            true => Err(undefined(&object.name.to_string())),
            false => Ok(()),
        }
    }

    /// Has later readers of a relation find rows by its unique key.
    pub fn index_unique_key(&self, relation: ObjectId) {
        self.shared.cast(move |core| core.index_unique_key(relation));
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let mut pins = self.shared.pins.lock();
        if let Some(n) = pins.get_mut(&self.moment.epoch) {
            *n -= 1;
            if *n == 0 {
                pins.remove(&self.moment.epoch);
            }
        }
    }
}

impl Shared {
    pub fn new(settings: Settings, operators: Operators, is_durable: bool) -> Arc<Shared> {
        let moment = Published {
            epoch: Epoch(0),
            catalog: Arc::new(Catalog::default()),
            relations: Arc::default(),
            undefined: Arc::default(),
            sources: Arc::default(),
        };
        Arc::new(Shared {
            dead_letters: DeadLetters::new(settings.dead_letter_bytes_max),
            memory: Memory::new(settings.memory_limit),
            settings,
            operators,
            is_durable,
            inbox: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            published: RwLock::new(moment),
            pins: Mutex::default(),
            stopping: AtomicBool::new(false),
            ended: watch::Sender::new(None),
        })
    }

    /// The last published moment, without keeping it readable.
    pub fn published(&self) -> Published {
        self.published.read().clone()
    }

    /// The last published moment; readable until dropped.
    pub fn snapshot(self: &Arc<Self>) -> Arc<Snapshot> {
        // Pinned under the lock: the loop vacuums only what is older than every pin and the published epoch.
        let mut pins = self.pins.lock();
        let moment = self.published();
        *pins.entry(moment.epoch).or_default() += 1;
        Arc::new(Snapshot { moment, shared: self.clone() })
    }

    /// For the loop: an epoch that it has applied, published or not, readable until dropped.
    pub fn snapshot_at(self: &Arc<Self>, epoch: Epoch) -> Arc<Snapshot> {
        *self.pins.lock().entry(epoch).or_default() += 1;
        Arc::new(Snapshot { moment: Published { epoch, ..self.published() }, shared: self.clone() })
    }

    /// The oldest epoch that somebody reads.
    pub fn oldest_read(&self) -> Epoch {
        let pins = self.pins.lock();
        let published = self.published.read().epoch;
        pins.keys().next().map_or(published, |oldest| (*oldest).min(published))
    }

    pub fn publish(&self, change: impl FnOnce(&mut Published)) {
        change(&mut self.published.write());
    }

    /// Has the loop run `f` between two epochs. Errors: `57P01` when the server stops.
    pub async fn call<T: Send + 'static>(&self, f: impl FnOnce(&mut Core) -> T + Send + 'static) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        self.push_call(Box::new(move |core| {
            // A caller that went away wants no answer.
            let _ = sender.send(f(core));
        }))?;
        receiver.await.map_err(|_| stopped())
    }

    /// The same for a thread that may block.
    pub fn call_blocking<T: Send + 'static>(&self, f: impl FnOnce(&mut Core) -> T + Send + 'static) -> Result<T> {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.push_call(Box::new(move |core| {
            let _ = sender.send(f(core));
        }))?;
        receiver.recv().map_err(|_| stopped())
    }

    /// Hands `f` to the loop without waiting; nothing happens when the server has stopped.
    pub fn cast(&self, f: impl FnOnce(&mut Core) + Send + 'static) {
        let _ = self.push_call(Box::new(f));
    }

    fn push_call(&self, call: Call) -> Result<()> {
        let mut inbox = self.inbox.lock();
        if inbox.closed {
            return Err(stopped());
        }
        inbox.calls.push(call);
        self.filled.notify_one();
        Ok(())
    }

    /// Hands a write to the next epoch.
    pub fn push_write(&self, write: Write) -> Result<()> {
        let mut inbox = self.inbox.lock();
        if inbox.closed {
            return Err(stopped());
        }
        inbox.writes.push(write);
        self.filled.notify_one();
        Ok(())
    }

    /// Hands a source's batch to the next epoch. Waits while too many bytes of this source wait already, unless
    /// `cancelled` says stop; false when the batch was not taken.
    pub fn push_batch(&self, batch: SourceBatch, cancelled: &AtomicBool) -> bool {
        let n_bytes = batch.batch.as_ref().map_or(0, |b| b.n_bytes as usize);
        let mut inbox = self.inbox.lock();
        while inbox.queued_bytes.get(&batch.source).copied().unwrap_or(0) >= self.settings.source_buffer_bytes_max {
            if cancelled.load(Ordering::Relaxed) || inbox.closed {
                return false;
            }
            self.emptied.wait_for(&mut inbox, Duration::from_millis(100));
        }
        if inbox.closed {
            return false;
        }
        *inbox.queued_bytes.entry(batch.source).or_default() += n_bytes;
        inbox.batches.push(batch);
        self.filled.notify_one();
        true
    }

    /// For the loop: waits until there is something to do, at most until `deadline`, and takes it; of the batches as
    /// many as fit one epoch. Without input only calls: writers wait, and sources when what they may buffer is full.
    pub fn take(&self, deadline: Instant, with_input: bool) -> Taken {
        let mut inbox = self.inbox.lock();
        while inbox.calls.is_empty()
            && (inbox.writes.is_empty() && inbox.batches.is_empty() || !with_input)
            && !inbox.woken
            && !self.is_stopping()
        {
            if self.filled.wait_until(&mut inbox, deadline).timed_out() {
                break;
            }
        }
        inbox.woken = false;
        let mut n_rows = 0;
        let mut n_batches = 0;
        for batch in inbox.batches.iter().filter(|_| with_input) {
            n_rows += batch.batch.as_ref().map_or(0, |b| b.rows.num_rows());
            n_batches += 1;
            if n_rows >= self.settings.epoch_rows_max {
                break;
            }
        }
        let batches: Vec<_> = inbox.batches.drain(..n_batches).collect();
        for batch in &batches {
            let n_bytes = batch.batch.as_ref().map_or(0, |b| b.n_bytes as usize);
            if let Some(queued) = inbox.queued_bytes.get_mut(&batch.source) {
                *queued = queued.saturating_sub(n_bytes);
            }
        }
        if !batches.is_empty() {
            self.emptied.notify_all();
        }
        let mut writes = if with_input { std::mem::take(&mut inbox.writes) } else { vec![] };
        // A statement that was cancelled while it waited.
        writes.retain(|write| !write.reply.is_closed());
        Taken { calls: std::mem::take(&mut inbox.calls), writes, batches }
    }

    /// Has the loop look at what became durable.
    pub fn wake(&self) {
        self.inbox.lock().woken = true;
        self.filled.notify_one();
    }

    /// The loop ends by itself, for this reason.
    pub fn fail(&self, reason: SqlError) {
        self.ended.send_replace(Some(reason));
        self.stop();
    }

    /// Waits until the loop ends by itself: why.
    pub async fn failed(&self) -> SqlError {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(stopped),
            Err(_) => std::future::pending().await,
        }
    }

    /// Asks the loop to end.
    pub fn stop(&self) {
        let _inbox = self.inbox.lock();
        self.stopping.store(true, Ordering::Release);
        self.filled.notify_one();
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// For the loop, when it has ended: what still waits is dropped, which its callers see as `57P01`.
    pub fn close(&self) {
        let mut inbox = self.inbox.lock();
        inbox.closed = true;
        inbox.calls.clear();
        inbox.writes.clear();
        inbox.batches.clear();
        self.emptied.notify_all();
    }
}

/// `21000`: what a reader of a view gets while it means nothing.
pub fn undefined(name: &str) -> SqlError {
    several_rows()
        .with_detail(format!("The materialized view \"{name}\" has no value while this is so."))
        .with_hint("It goes on: read it again when the subquery has no second row any more.")
}

/// `57P01`: the server stops.
pub fn stopped() -> SqlError {
    SqlError::new(SqlState::AdminShutdown, "terminating connection due to administrator command")
}
