//! Views being built, each on a thread of its own beside the epoch loop.
//!
//! A build takes in what its inputs hold (the rows of tables and views at one epoch, the records of sources from their
//! start) in slices, then what happened meanwhile, and then joins the loop between two epochs. Nobody waits for it.
//!
//! Invariant: each change of each input is taken in exactly once. For a relation: its rows at the epoch at which the
//! build's tap opened, then the tap. For a source: every record before the positions at which its tap opened, then the
//! tap.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tidewire_catalog::Object;
use tidewire_connect::{Positions, ReadMode, Source};
use tidewire_operators::arrangement::{Arrangement, ArrangementReader};
use tidewire_planner::Dataflow;
use tidewire_state::delta_bytes;
use tidewire_types::{Delta, Epoch, ObjectId, Result, SqlError, SqlState};
use tokio::sync::oneshot;

use crate::core::{Core, Finish, Join, SourceRead, View, dead_letter_rows, now_us};
use crate::dead_letters::Letter;
use crate::runtime::{Changes, EpochChanges, Runtime, StepOutput, fingerprint, panic_error};
use crate::shared::{Relation, Shared, Snapshot};
use crate::status::{ViewOrigin, ViewState, ViewStatus};
use crate::subscription::Subscriber;
use crate::workers::Workers;

/// Bytes of records that one slice reads.
const SLICE_BYTES: usize = 4 << 20;
/// Rows, and bytes, from which what was read of a relation is a slice.
const SLICE_ROWS: usize = 1 << 18;
const SLICE_ROW_BYTES: usize = 32 << 20;
/// How long a build waits for records, or for a source's running reader to come by.
const WAIT: Duration = Duration::from_millis(50);

/// What the loop knows of a build.
pub struct BuildState {
    /// What will be in the catalog; None for a subscription's own view.
    pub object: Option<Arc<Object>>,
    /// Where the loop puts the changes of its inputs.
    pub tap: Arc<Tap>,
    /// When the log hears of it.
    pub in_log: InLog,
    progress: Arc<Progress>,
}

/// When the log hears of a view that is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InLog {
    /// When it is built: then its CREATE returns.
    WhenBuilt,
    /// At once: its CREATE has returned before.
    FromTheStart,
    /// It was there before the server's start.
    Before,
}

impl InLog {
    fn origin(self) -> ViewOrigin {
        match self {
            InLog::WhenBuilt | InLog::FromTheStart => ViewOrigin::Created,
            InLog::Before => ViewOrigin::Rebuilt,
        }
    }
}

#[derive(Default)]
struct Progress {
    n_rows: AtomicU64,
    n_rows_total: AtomicU64,
    cancelled: AtomicBool,
}

impl BuildState {
    /// Asks it to end.
    pub fn cancel(&self) {
        self.progress.cancelled.store(true, Ordering::Relaxed);
        self.tap.wake();
    }

    /// Whether it was asked to end.
    pub fn is_cancelled(&self) -> bool {
        self.progress.cancelled.load(Ordering::Relaxed)
    }

    /// How far it is; None for a subscription's.
    pub fn status(&self, id: ObjectId) -> Option<ViewStatus> {
        let n_rows = self.progress.n_rows.load(Ordering::Relaxed);
        let total = self.progress.n_rows_total.load(Ordering::Relaxed);
        Some(ViewStatus {
            id,
            name: self.object.as_ref()?.name.to_string(),
            state: ViewState::Building { n_rows, n_rows_total: (total > 0).then_some(total.max(n_rows)) },
            origin: self.in_log.origin(),
            n_rows: 0,
            state_bytes: 0,
            operators: vec![],
        })
    }
}

/// The changes of a build's inputs since each of them was opened.
#[derive(Default)]
pub struct Tap {
    inner: Mutex<TapInner>,
    filled: Condvar,
}

#[derive(Default)]
struct TapInner {
    open: BTreeSet<ObjectId>,
    queue: VecDeque<EpochChanges>,
    n_rows: usize,
    error: Option<SqlError>,
}

impl Tap {
    /// From the next epoch on, the changes of `id` are kept.
    pub fn open(&self, id: ObjectId) {
        self.inner.lock().open.insert(id);
    }

    /// Whether changes of `id` are kept.
    pub fn reads(&self, id: ObjectId) -> bool {
        self.inner.lock().open.contains(&id)
    }

    /// Keeps what concerns this build of an epoch's changes.
    pub fn push(&self, changes: &EpochChanges) {
        let mut inner = self.inner.lock();
        let kept: EpochChanges =
            changes.iter().filter(|(id, _)| inner.open.contains(id)).map(|(id, c)| (*id, c.clone())).collect();
        if !kept.is_empty() {
            inner.n_rows += n_rows(&kept);
            inner.queue.push_back(kept);
        }
        self.filled.notify_one();
    }

    /// An input failed: so does the build.
    pub fn fail(&self, error: SqlError) {
        self.inner.lock().error = Some(error);
        self.filled.notify_one();
    }

    /// The oldest epoch's changes.
    pub fn pop(&self) -> Result<Option<EpochChanges>> {
        let mut inner = self.inner.lock();
        if let Some(error) = &inner.error {
            return Err(error.clone());
        }
        let popped = inner.queue.pop_front();
        inner.n_rows -= popped.as_ref().map_or(0, n_rows);
        Ok(popped)
    }

    /// Rows that wait.
    pub fn n_rows(&self) -> usize {
        self.inner.lock().n_rows
    }

    fn wake(&self) {
        self.filled.notify_one();
    }

    fn wait(&self) {
        self.filled.wait_for(&mut self.inner.lock(), WAIT);
    }
}

fn n_rows(changes: &EpochChanges) -> usize {
    changes.values().flat_map(|c| &c.deltas).map(Delta::n_rows).sum()
}

/// What is to be built.
pub struct Build {
    /// For errors and logs.
    pub name: String,
    /// The plan.
    pub dataflow: Dataflow,
    /// The OID that it had before the server's start.
    pub oid: Option<ObjectId>,
    /// When the log hears of it.
    pub in_log: InLog,
    /// Makes the catalog object; None: the view serves one subscription and keeps no content.
    pub make: Option<Box<dyn FnOnce(ObjectId) -> Object + Send>>,
    /// What the query names, plain views too.
    pub depends_on: Vec<ObjectId>,
    /// Whether the records that a source holds already are taken in (else only what arrives from now on).
    pub source_history: bool,
    /// Whether a subscriber gets the rows that there are at the beginning.
    pub initial_rows: bool,
    /// Gets the initial rows and then the changes.
    pub subscriber: Option<Subscriber>,
    /// Bytes that its state may take.
    pub memory_limit: Option<usize>,
}

/// A build that runs. Dropping it cancels the build, unless it was let go.
pub struct Building {
    progress: Arc<Progress>,
    tap: Arc<Tap>,
    done: oneshot::Receiver<Result<ObjectId>>,
    let_go: bool,
}

impl Drop for Building {
    fn drop(&mut self) {
        if !self.let_go {
            self.progress.cancelled.store(true, Ordering::Relaxed);
            self.tap.wake();
        }
    }
}

impl Building {
    /// Waits until the view is up to date; its OID.
    pub async fn finished(mut self) -> Result<ObjectId> {
        let result = (&mut self.done).await.map_err(|_| crate::shared::stopped())?;
        self.let_go = true;
        result
    }

    /// Lets it run by itself.
    pub fn let_go(mut self) {
        self.let_go = true;
    }
}

impl Build {
    /// Whether checkpoints will have it: a subscription's own view ends with the server.
    fn is_kept(&self, shared: &Shared) -> bool {
        shared.is_durable && self.subscriber.is_none()
    }

    /// Starts the build on a thread of its own. Errors: a name that is taken, an input that has failed.
    pub async fn start(mut self, shared: &Arc<Shared>) -> Result<Building> {
        let mut runtime = Runtime::new(&self.dataflow, &shared.settings, shared.operators)?;
        if self.is_kept(shared) {
            runtime.keep();
        }
        let tap = Arc::new(Tap::default());
        let progress = Arc::new(Progress::default());
        let state = BuildState { object: None, tap: tap.clone(), in_log: self.in_log, progress: progress.clone() };
        let oid = self.oid;
        let inputs: BTreeSet<ObjectId> = runtime.inputs().map(|i| i.object).collect();
        let (make, depends_on, shared_) = (self.make.take(), self.depends_on.clone(), shared.clone());
        let wanted = inputs.clone();
        let (id, snapshot) = shared
            .call(move |core| {
                // In one call of the loop: the snapshot is the moment at which the taps open.
                let snapshot = shared_.snapshot();
                let relations = &snapshot.moment.relations;
                let taps: Vec<_> = wanted.iter().copied().filter(|id| relations.contains_key(id)).collect();
                Ok::<_, SqlError>((core.begin_build(oid, make, &depends_on, &taps, state)?, snapshot))
            })
            .await??;
        let (sender, done) = oneshot::channel();
        let worker = Worker {
            shared: shared.clone(),
            id,
            tap: tap.clone(),
            progress: progress.clone(),
            snapshot,
            runtime,
            workers: None,
        };
        let run = move || {
            let shared = worker.shared.clone();
            let result = catch_unwind(AssertUnwindSafe(|| worker.run(self, inputs)));
            let result = result.unwrap_or_else(|panic| Err(panic_error(panic.as_ref())));
            if result.is_err() {
                shared.cast(move |core| core.abort_build(id));
            }
            // Whoever waited may be gone.
            let _ = sender.send(result.map(|()| id));
        };
        if let Err(error) = thread::Builder::new().name(format!("build-{id}")).spawn(run) {
            shared.cast(move |core| core.abort_build(id));
            return Err(SqlError::new(SqlState::OutOfMemory, format!("cannot start a thread: {error}")));
        }
        Ok(Building { progress, tap, done, let_go: false })
    }
}

/// `53200` gets the view's name.
fn too_large(name: &str, error: SqlError) -> SqlError {
    if error.state() != SqlState::OutOfMemory {
        return error;
    }
    let detail = error.detail().map_or_else(|| error.message().to_string(), |d| format!("{}: {d}", error.message()));
    SqlError::new(SqlState::OutOfMemory, format!("materialized view \"{name}\" takes more memory than there is"))
        .with_detail(detail)
        .with_hint("Check that its joins have conditions, or start the server with a larger --memory-limit.")
}

struct Worker {
    shared: Arc<Shared>,
    id: ObjectId,
    tap: Arc<Tap>,
    progress: Arc<Progress>,
    snapshot: Arc<Snapshot>,
    runtime: Runtime,
    // Threads of its own, once there is much to do.
    workers: Option<Workers>,
}

/// Where the output goes while a view is being built.
struct Content {
    relation: Option<Arrangement>,
    // A subscription's initial rows.
    deltas: Vec<Delta>,
    epoch: Epoch,
}

impl Content {
    fn state_bytes(&self) -> usize {
        let deltas: usize = self.deltas.iter().map(|delta| delta.rows().get_array_memory_size()).sum();
        deltas + self.relation.as_ref().map_or(0, Arrangement::state_bytes)
    }

    fn take(&mut self, output: Vec<Delta>) -> Result<()> {
        match &mut self.relation {
            Some(relation) => relation.load(&output, self.epoch),
            None => {
                self.deltas.extend(output);
                Ok(())
            }
        }
    }
}

impl Worker {
    fn run(mut self, build: Build, inputs: BTreeSet<ObjectId>) -> Result<()> {
        let output_schema = build.dataflow.nodes.last().map(|n| n.schema.clone());
        let schema = output_schema.ok_or_else(|| SqlError::internal("a dataflow without nodes"))?;
        let all_columns: Arc<[usize]> = (0..schema.fields().len()).collect();
        let relation = match build.subscriber {
            None => Some(Arrangement::new(schema, build.dataflow.identity.clone())?),
            Some(_) => None,
        };
        let mut content = Content { relation, deltas: vec![], epoch: self.snapshot.moment.epoch };
        let first = self.runtime.start(now_us())?;
        self.keep(first, &build, &mut content)?;
        let columns = self.columns_by_input();
        let moment = self.snapshot.moment.clone();
        let mut relations = vec![];
        for id in &inputs {
            match (moment.relations.get(id), columns.get(id)) {
                (Some(Relation::Rows(reader)), Some(columns)) => relations.push((*id, reader, columns)),
                (Some(Relation::Failed(error)), _) => return Err(error.clone()),
                _ => {}
            }
        }
        // The small ones first: a join then looks the many rows up among the few.
        relations.sort_by_key(|(_, reader, _)| reader.n_slots());
        for (id, reader, columns) in relations {
            self.read_relation(id, reader, columns, &build, &mut content)?;
        }
        for id in &inputs {
            if let (Some(source), Some(columns)) = (moment.sources.get(id), columns.get(id)) {
                self.read_source(*id, source, columns, &build, &mut content)?;
            }
        }
        if !build.initial_rows {
            self.end_step(&build, &mut content)?;
            content.deltas.clear();
        }
        self.finish(build, content, inputs, all_columns)
    }

    /// The columns that the dataflow needs of each input.
    fn columns_by_input(&self) -> HashMap<ObjectId, Vec<usize>> {
        let mut columns: HashMap<ObjectId, BTreeSet<usize>> = HashMap::new();
        for input in self.runtime.inputs() {
            columns.entry(input.object).or_default().extend(&input.columns);
        }
        columns.into_iter().map(|(id, columns)| (id, columns.into_iter().collect())).collect()
    }

    fn check_cancelled(&self) -> Result<()> {
        match self.progress.cancelled.load(Ordering::Relaxed) || self.shared.is_stopping() {
            true => Err(SqlError::new(SqlState::QueryCanceled, "canceling statement due to user request")),
            false => Ok(()),
        }
    }

    fn step(&mut self, changes: &EpochChanges, build: &Build, content: &mut Content) -> Result<()> {
        self.check_cancelled()?;
        self.progress.n_rows.fetch_add(n_rows(changes) as u64, Ordering::Relaxed);
        self.set_room(build);
        if self.workers.is_none() && n_rows(changes) >= self.shared.settings.parallel_rows_min {
            self.workers = Some(Workers::start(self.shared.settings.n_shards)?);
        }
        let output = self.runtime.step_part(changes, now_us(), self.workers.as_ref());
        self.stepped(output, build, content)
    }

    /// Has operators put out what they waited with.
    fn end_step(&mut self, build: &Build, content: &mut Content) -> Result<()> {
        self.set_room(build);
        let output = self.runtime.step(&EpochChanges::new(), now_us(), self.workers.as_ref());
        self.stepped(output, build, content)
    }

    fn set_room(&mut self, build: &Build) {
        self.runtime.set_room(self.shared.memory.room().min(build.memory_limit.unwrap_or(usize::MAX)));
    }

    fn stepped(&mut self, output: Result<StepOutput>, build: &Build, content: &mut Content) -> Result<()> {
        self.keep(output.map_err(|error| too_large(&build.name, error))?, build, content)?;
        let n_bytes = self.runtime.state_bytes() + content.state_bytes();
        self.shared.memory.build_takes(self.id, &build.name, n_bytes, build.memory_limit)
    }

    fn keep(&self, output: StepOutput, build: &Build, content: &mut Content) -> Result<()> {
        dead_letter_rows(&self.shared, self.id, &build.name, output.row_errors, now_us());
        content.take(output.deltas)
    }

    /// Takes in what came meanwhile.
    fn drain_tap(&mut self, build: &Build, content: &mut Content) -> Result<()> {
        while let Some(changes) = self.tap.pop()? {
            self.step(&changes, build, content)?;
        }
        Ok(())
    }

    fn read_relation(
        &mut self,
        id: ObjectId,
        reader: &Arc<ArrangementReader>,
        columns: &[usize],
        build: &Build,
        content: &mut Content,
    ) -> Result<()> {
        let columns_shared: Arc<[usize]> = columns.into();
        let mut scan = reader.scan(self.snapshot.moment.epoch, Some(columns))?;
        loop {
            let (mut deltas, mut n_rows, mut n_bytes) = (vec![], 0, 0);
            while n_rows < SLICE_ROWS
                && n_bytes < SLICE_ROW_BYTES
                && let Some(rows) = scan.next()
            {
                let delta = Delta::insert(rows?);
                (n_rows, n_bytes) = (n_rows + delta.n_rows(), n_bytes + delta_bytes(&delta));
                deltas.push(delta);
            }
            if deltas.is_empty() {
                return Ok(());
            }
            let changes = EpochChanges::from([(id, Changes { columns: columns_shared.clone(), deltas })]);
            self.step(&changes, build, content)?;
            self.drain_tap(build, content)?;
        }
    }

    fn read_source(
        &mut self,
        id: ObjectId,
        source: &Arc<dyn Source>,
        columns: &[usize],
        build: &Build,
        content: &mut Content,
    ) -> Result<()> {
        let mut at = match build.source_history {
            true => Some(source.start()?),
            false => None,
        };
        if let Some(at) = &mut at {
            let running = self.shared.call_blocking(move |core| core.source_positions(id))?;
            let target = running.map_or_else(|| source.end(), Ok)?;
            self.read_until(id, source, columns, at, &target, build, content)?;
        }
        let start = if at.is_some() { Positions::new() } else { source.end()? };
        loop {
            let (build_id, columns_, at_, start_) = (self.id, columns.to_vec(), at.clone(), start.clone());
            let join = move |core: &mut Core| core.join_source(build_id, id, &columns_, at_.as_ref(), start_);
            match (self.shared.call_blocking(join)??, &mut at) {
                (Join::Joined(_) | Join::Behind(_), None) => return Ok(()),
                (Join::Joined(target), Some(at)) => {
                    return self.read_until(id, source, columns, at, &target, build, content);
                }
                (Join::Behind(target), Some(at)) => {
                    self.read_until(id, source, columns, at, &target, build, content)?;
                }
                (Join::Ahead, _) => self.tap.wait(),
            }
            self.check_cancelled()?;
            self.drain_tap(build, content)?;
        }
    }

    /// Reads a source from `at` to `target` and moves `at` there.
    #[expect(clippy::too_many_arguments, reason = "the build's own state, passed along")]
    fn read_until(
        &mut self,
        id: ObjectId,
        source: &Arc<dyn Source>,
        columns: &[usize],
        at: &mut Positions,
        target: &Positions,
        build: &Build,
        content: &mut Content,
    ) -> Result<()> {
        let from: Positions = target
            .keys()
            .map(|split| (*split, at.get(split).copied().unwrap_or(0)))
            .filter(|(split, position)| target.get(split).is_some_and(|end| position < end))
            .collect();
        let until: Positions =
            target.iter().filter(|(split, _)| from.contains_key(split)).map(|(s, p)| (*s, *p)).collect();
        if from.is_empty() {
            return Ok(());
        }
        let distance: i64 = until.iter().map(|(split, end)| end - from.get(split).copied().unwrap_or(0)).sum();
        self.progress.n_rows_total.fetch_add(distance.max(0) as u64, Ordering::Relaxed);
        let columns_shared: Arc<[usize]> = columns.into();
        let mut reader = source.read(from, columns.to_vec(), ReadMode::Until(until))?;
        let name = self.snapshot.moment.catalog.by_id(id).map_or_else(String::new, |o| o.name.to_string());
        loop {
            let batch = reader.poll(WAIT, SLICE_BYTES)?;
            let mut read = SourceRead { n_rows: batch.rows.num_rows(), n_bytes: batch.n_bytes, n_bad: batch.n_skipped };
            for letter in batch.dead_letters {
                read.n_bad += u64::from(self.shared.dead_letters.push(Letter::record(letter, id, &name, now_us())));
            }
            self.shared.cast(move |core| core.count_read(id, &read));
            if batch.rows.num_rows() > 0 {
                let changes = Changes { columns: columns_shared.clone(), deltas: vec![Delta::insert(batch.rows)] };
                self.step(&EpochChanges::from([(id, changes)]), build, content)?;
            }
            if batch.finished {
                break;
            }
            self.check_cancelled()?;
            self.drain_tap(build, content)?;
        }
        at.extend(
            target
                .iter()
                .map(|(split, end)| (*split, at.get(split).copied().unwrap_or(0).max(*end)))
                .collect::<Vec<_>>(),
        );
        Ok(())
    }

    /// Joins the loop, as soon as what it must still take in is little.
    fn finish(
        mut self,
        mut build: Build,
        mut content: Content,
        inputs: BTreeSet<ObjectId>,
        all_columns: Arc<[usize]>,
    ) -> Result<()> {
        let fingerprint = build.is_kept(&self.shared).then(|| fingerprint(&build.dataflow));
        loop {
            self.drain_tap(&build, &mut content)?;
            self.end_step(&build, &mut content)?;
            if let Some(relation) = &mut content.relation {
                relation.settle(self.shared.settings.n_shards)?;
            }
            let subscriber = build.subscriber.take();
            let view = View {
                name: build.name.clone(),
                runtime: self.runtime,
                relation: content.relation,
                inputs: inputs.iter().copied().collect(),
                all_columns: all_columns.clone(),
                error: None,
                fingerprint: fingerprint.clone(),
                origin: build.in_log.origin(),
                is_new: true,
                is_plan: false,
            };
            let (id, deltas) = (self.id, content.deltas);
            let finished = move |core: &mut Core| core.finish_build(id, view, deltas, subscriber);
            match self.shared.call_blocking(finished)?? {
                Finish::Joined => return Ok(()),
                Finish::TooMuch { view, deltas, subscriber } => {
                    self.runtime = view.runtime;
                    content = Content { relation: view.relation, deltas, epoch: content.epoch };
                    build.subscriber = subscriber;
                }
            }
        }
    }
}
