//! The epoch loop.
//!
//! Wait until any input has something; cut an epoch of what is there; run the dirty part of the graph in topological
//! order; publish all relations in one step; hand the changes to subscriptions and to views being built; answer the
//! writers. No tick: idle, the latency is one hop; under load epochs grow and throughput rises.
//!
//! A write is in the log before views see it. An epoch with writes is published when the log has it on disk: readers
//! never see what a crash could take back, and the loop works on the next epochs meanwhile, which then share an `fsync`.
//! What happens between two epochs (DDL, a view that joins) finds everything published that was applied.
//!
//! Invariant: at every published epoch each view equals its query over the inputs seen so far. A view that fails is
//! marked, and with it what stands on it; all else goes on.

mod failed;
pub mod indexes;
mod kept;
mod lost;
mod publication;
mod sharing;
mod status;
mod undefined;
mod writes;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arrow::array::RecordBatch;
use tidewire_catalog::{Catalog, Kind, Object};
use tidewire_connect::{Health, Position, Positions, Source, Split};
use tidewire_operators::RowError;
use tidewire_operators::arrangement::Arrangement;
use tidewire_state::{Record, TableChange, delta_bytes};
use tidewire_types::{Delta, Epoch, ObjectId, Result, SqlError, SqlState};
use tracing::{error, info, warn};

use self::failed::view_failed;
use self::publication::Unpublished;
use crate::build::{BuildState, InLog};
use crate::dead_letters::Letter;
use crate::durable::Durability;
use crate::memory::StateMemory;
use crate::runtime::{Changes, EpochChanges, Runtime};
use crate::shared::{Call, Published, Relation, Shared, SourceBatch, stopped, undefined};
use crate::source_task::SourceTask;
use crate::status::{SourceState, ViewOrigin};
use crate::stored;
use crate::subscription::Subscriber;
use crate::table::{Change, OnConflict, Table, Write, row_text};
use crate::workers::Workers;

/// How often dead rows are looked for.
const VACUUM_INTERVAL: Duration = Duration::from_millis(100);
/// How long the loop waits when nothing happens.
const IDLE_WAIT: Duration = Duration::from_secs(60);

/// What is done in the same moment as an object's creation.
#[derive(Default)]
pub struct CreatedWith {
    /// Of a source: what reads it, and where it begins, where its options alone do not say it.
    pub source: Option<(Arc<dyn Source>, Option<Positions>)>,
    /// Of a table: its first rows.
    pub rows: Option<RecordBatch>,
    /// The object in whose place it comes; nothing stands on that.
    pub replaces: Option<ObjectId>,
}

/// Everything that the loop owns.
pub struct Core {
    pub shared: Arc<Shared>,
    workers: Workers,
    // The last epoch that was applied.
    epoch: Epoch,
    // The last one that readers see, and those between.
    published: Epoch,
    unpublished: VecDeque<Unpublished>,
    // Calls that wait for the store of the log.
    calls: Vec<Call>,
    // They go before what writes checkpoints, which waits for what they copy, or for their end.
    views: BTreeMap<ObjectId, View>,
    // Views may have more to copy for the checkpoint that is made.
    is_copying: bool,
    // Sources and writers wait for checkpoints.
    was_behind: bool,
    // None: all is gone when the server ends.
    durability: Option<Durability>,
    catalog: Arc<Catalog>,
    tables: BTreeMap<ObjectId, Table>,
    sources: BTreeMap<ObjectId, RunningSource>,
    // Each after what it takes changes of.
    view_order: Vec<ObjectId>,
    // Those whose rows mean nothing.
    undefined: Arc<HashSet<ObjectId>>,
    state_memory: StateMemory,
    builds: BTreeMap<ObjectId, BuildState>,
    subscribers: HashMap<ObjectId, Vec<Subscriber>>,
    next_generation: u64,
    last_vacuum: Instant,
    vacuum_due: bool,
    index_builds: indexes::IndexBuilds,
    n_epochs: u64,
    n_input_rows: u64,
    step_ns: u64,
}

/// A view that is kept up to date. One without a relation serves a subscription and has no content of its own.
pub struct View {
    pub name: String,
    pub runtime: Runtime,
    pub relation: Option<Arrangement>,
    pub inputs: Vec<ObjectId>,
    pub all_columns: Arc<[usize]>,
    pub error: Option<SqlError>,
    /// What its state means; None: checkpoints do not have it.
    pub fingerprint: Option<String>,
    pub origin: ViewOrigin,
    /// Whether no checkpoint has it yet.
    pub is_new: bool,
    /// Whether it is a plan that several views share: it has no relation, and no user sees it.
    pub is_plan: bool,
}

/// A declared source, with its reader where a view needs one.
struct RunningSource {
    name: String,
    source: Arc<dyn Source>,
    reader: Option<Reader>,
    state: SourceState,
    read: SourceRead,
    ends: Positions,
}

struct Reader {
    task: SourceTask,
    generation: u64,
    projection: Arc<[usize]>,
    // The next record of each split that no epoch contains yet.
    positions: Positions,
}

/// What was read of a source.
#[derive(Clone, Copy, Debug, Default)]
pub struct SourceRead {
    pub n_rows: usize,
    pub n_bytes: u64,
    pub n_bad: u64,
}

impl SourceRead {
    fn add(&mut self, more: &SourceRead) {
        self.n_rows += more.n_rows;
        self.n_bytes += more.n_bytes;
        self.n_bad += more.n_bad;
    }
}

/// What a view being built is told when it asks to join a source's running reader.
pub enum Join {
    /// From the next epoch on its tap gets the source's changes; what it must still read lies before these positions.
    Joined(Positions),
    /// It is far behind: it shall read up to here and ask again.
    Behind(Positions),
    /// It is ahead of the running reader in some split: it shall ask again later.
    Ahead,
}

/// What became of a build that wanted to join the loop.
pub enum Finish {
    /// It has.
    Joined,
    /// Its tap holds more than the loop would do inline: it shall take that in and ask again.
    TooMuch { view: Box<View>, deltas: Vec<Delta>, subscriber: Option<Subscriber> },
}

/// Up to how many records a view being built may read while its tap already fills.
const JOIN_DISTANCE_MAX: Position = 100_000;

impl Core {
    pub fn new(shared: Arc<Shared>) -> Result<Core> {
        Core::with(shared, Catalog::default(), Epoch(0), BTreeMap::new(), vec![], None)
    }

    /// Goes on from what was found on disk: `tables` at `epoch`.
    pub fn with(
        shared: Arc<Shared>,
        catalog: Catalog,
        epoch: Epoch,
        tables: BTreeMap<ObjectId, Table>,
        sources: Vec<(ObjectId, String, Arc<dyn Source>)>,
        durability: Option<Durability>,
    ) -> Result<Core> {
        let running = |(id, name, source)| (id, RunningSource::new(name, source));
        let mut core = Core {
            workers: Workers::start(shared.settings.n_shards)?,
            shared,
            epoch,
            published: epoch,
            unpublished: VecDeque::new(),
            calls: vec![],
            durability,
            catalog: Arc::new(catalog),
            tables,
            sources: sources.into_iter().map(running).collect(),
            views: BTreeMap::new(),
            is_copying: false,
            was_behind: false,
            view_order: vec![],
            undefined: Arc::default(),
            state_memory: StateMemory::default(),
            builds: BTreeMap::new(),
            subscribers: HashMap::new(),
            next_generation: 0,
            last_vacuum: Instant::now(),
            vacuum_due: false,
            index_builds: indexes::IndexBuilds::default(),
            n_epochs: 0,
            n_input_rows: 0,
            step_ns: 0,
        };
        core.publish_relations();
        Ok(core)
    }

    /// Runs until the server is stopped.
    pub fn run(mut self) {
        let shared = self.shared.clone();
        while !shared.is_stopping() {
            let taken = shared.take(self.wake_at(), !self.is_behind());
            self.publish_durable();
            self.run_calls(taken.calls);
            if !taken.writes.is_empty() || !taken.batches.is_empty() {
                self.run_epoch(taken.writes, taken.batches);
            }
            self.write_dead_letters();
            self.vacuum();
            self.checkpoint();
            if let Some(reason) = self.durability.as_ref().and_then(Durability::error) {
                shared.fail(reason);
            }
        }
        for build in self.builds.values() {
            build.cancel();
        }
        self.end();
        shared.close();
    }

    /// When the loop has something to do even if nothing comes.
    fn wake_at(&self) -> Instant {
        if self.is_copying {
            return Instant::now();
        }
        let wait = if self.vacuum_due { VACUUM_INTERVAL } else { IDLE_WAIT };
        let wake_at = Instant::now() + wait;
        self.checkpoint_due().map_or(wake_at, |due| due.min(wake_at))
    }

    fn run_epoch(&mut self, writes: Vec<Write>, batches: Vec<SourceBatch>) {
        let began = Instant::now();
        let now_us = now_us();
        let epoch = self.epoch.next();
        let mut changes = EpochChanges::new();
        let (replies, n_durable) = self.write_all(writes, epoch, &mut changes);
        for batch in batches {
            self.take_batch(batch, now_us, &mut changes);
        }
        if !changes.is_empty() {
            self.n_input_rows += changes.values().flat_map(|c| &c.deltas).map(|d| d.n_rows() as u64).sum::<u64>();
            self.step_views(epoch, now_us, &mut changes);
            self.epoch = epoch;
            self.n_epochs += 1;
            self.vacuum_due = true;
        }
        let undefined = self.undefined.clone();
        self.unpublished.push_back(Unpublished { epoch: self.epoch, n_durable, changes, undefined, replies });
        self.publish_durable();
        self.step_ns += began.elapsed().as_nanos() as u64;
    }

    fn take_batch(&mut self, from: SourceBatch, now_us: i64, changes: &mut EpochChanges) {
        let Some(source) = self.sources.get_mut(&from.source) else { return };
        let Some(reader) = source.reader.as_mut().filter(|r| r.generation == from.generation) else { return };
        let batch = match from.batch {
            Ok(batch) => batch,
            Err(err) => {
                error!(source = %source.name, error = %err, "source stopped");
                source.state = SourceState::Failed(err);
                return;
            }
        };
        source.state = match &batch.health {
            Health::Running => SourceState::Running,
            Health::Retrying(why) => SourceState::Retrying(why.clone()),
        };
        let mut read = SourceRead { n_rows: batch.rows.num_rows(), n_bytes: batch.n_bytes, n_bad: batch.n_skipped };
        source.ends.extend(batch.ends.iter().map(|(s, p)| (*s, *p)));
        reader.positions.extend(batch.positions.iter().map(|(s, p)| (*s, *p)));
        reader.task.commit(&reader.positions);
        if let Some(durability) = &mut self.durability {
            durability.note_change();
        }
        for letter in batch.dead_letters {
            warn!(source = %source.name, split = letter.split.0, position = letter.position, error = %letter.error,
                "dead-lettered undecodable record");
            let letter = Letter::record(letter, from.source, &source.name, now_us);
            read.n_bad += u64::from(self.shared.dead_letters.push(letter));
        }
        source.read.add(&read);
        if batch.rows.num_rows() > 0 {
            let columns = || Changes { columns: reader.projection.clone(), deltas: vec![] };
            changes.entry(from.source).or_insert_with(columns).deltas.push(Delta::insert(batch.rows));
        }
    }

    /// Runs every view whose inputs changed, in topological order; what it puts out is an input of later ones.
    fn step_views(&mut self, epoch: Epoch, now_us: i64, changes: &mut EpochChanges) {
        let (mut failed, mut row_errors, mut has_turned) = (vec![], vec![], false);
        let mut sizes: HashMap<ObjectId, usize> = changes.iter().map(|(id, c)| (*id, bytes_of(&c.deltas))).collect();
        for (id, n_bytes) in &sizes {
            if let Some(table) = self.tables.get(id)
                && self.state_memory.table_brought(*id, *n_bytes)
            {
                self.state_memory.table_took(*id, table.rows.state_bytes());
            }
        }
        for id in &self.view_order {
            let Some(view) = self.views.get_mut(id) else { continue };
            if view.error.is_some() || !view.inputs.iter().any(|input| changes.contains_key(input)) {
                continue;
            }
            let was_violated = view.runtime.is_violated();
            view.runtime.set_room(self.state_memory.room(*id, &self.shared.memory));
            let result = view.runtime.step(changes, now_us, Some(&self.workers)).and_then(|output| {
                if let Some(relation) = &mut view.relation {
                    relation.apply(&output.deltas, epoch)?;
                }
                let n_taken: usize = view.inputs.iter().filter_map(|input| sizes.get(input)).sum();
                let n_put_out = bytes_of(&output.deltas);
                sizes.insert(*id, n_put_out);
                if self.state_memory.view_brought(*id, n_taken + n_put_out) {
                    let object = self.catalog.by_id(*id).map(|object| &**object);
                    self.state_memory.view_took(*id, &view.name, view.state_bytes(), object)?;
                }
                Ok(output)
            });
            has_turned |= view.runtime.is_violated() != was_violated;
            match result {
                Ok(output) => {
                    row_errors.push((*id, output.row_errors));
                    if let (Some(durability), Some(_)) = (&mut self.durability, &view.fingerprint) {
                        match &view.relation {
                            Some(relation) => durability.note_view(*id, &output.deltas, relation.n_rows()),
                            None => durability.note_change(),
                        }
                    }
                    if !output.deltas.is_empty() {
                        changes.insert(*id, Changes { columns: view.all_columns.clone(), deltas: output.deltas });
                    }
                }
                Err(err) => failed.push((*id, err)),
            }
        }
        for (id, errors) in row_errors.into_iter().filter(|(_, errors)| !errors.is_empty()) {
            for (user, name) in self.users(id) {
                dead_letter_rows(&self.shared, user, &name, errors.clone(), now_us);
            }
        }
        for (id, err) in failed {
            self.fail_view(id, err);
        }
        self.check_memory();
        if has_turned {
            self.find_undefined();
        }
    }

    /// Stops views while all state together takes more than it may.
    fn check_memory(&mut self) {
        let views = &self.views;
        let name = |id: ObjectId| views.get(&id).map_or_else(String::new, |view| view.name.clone());
        if let Some((id, err)) = self.state_memory.too_much(&self.shared.memory, name) {
            self.fail_view(id, err);
            self.check_memory();
        }
    }

    /// Counts what tables and views take where changes were not counted yet.
    fn count_memory(&mut self) {
        for (id, table) in &self.tables {
            if self.state_memory.is_table_uncounted(*id) {
                self.state_memory.table_took(*id, table.rows.state_bytes());
            }
        }
        let mut failed = vec![];
        for (id, view) in self.views.iter().filter(|(_, view)| view.error.is_none()) {
            if self.state_memory.is_view_uncounted(*id) {
                let object = self.catalog.by_id(*id).map(|object| &**object);
                let took = self.state_memory.view_took(*id, &view.name, view.state_bytes(), object);
                failed.extend(took.err().map(|err| (*id, err)));
            }
        }
        for (id, err) in failed {
            self.fail_view(id, err);
        }
        self.check_memory();
    }

    fn deliver(&mut self, epoch: Epoch, changes: &EpochChanges) {
        for (id, subscribers) in &mut self.subscribers {
            if let Some(changes) = changes.get(id) {
                subscribers.retain(|subscriber| subscriber.send(epoch, &changes.deltas));
            }
        }
        self.subscribers.retain(|_, subscribers| !subscribers.is_empty());
        for build in self.builds.values() {
            build.tap.push(changes);
        }
    }

    fn vacuum(&mut self) {
        if !self.vacuum_due || self.last_vacuum.elapsed() < VACUUM_INTERVAL {
            return;
        }
        self.last_vacuum = Instant::now();
        let oldest = self.shared.oldest_read();
        self.vacuum_due = oldest < self.epoch;
        self.tables.values_mut().for_each(|t| t.rows.vacuum(oldest));
        self.views.values_mut().filter_map(|v| v.relation.as_mut()).for_each(|r| r.vacuum(oldest));
        self.count_memory();
    }

    // ---- What sessions ask for, between two epochs ----

    /// Publishes a changed catalog.
    fn change_catalog<T>(&mut self, change: impl FnOnce(&mut Catalog) -> Result<T>) -> Result<T> {
        let mut catalog = Catalog::clone(&self.catalog);
        let result = change(&mut catalog)?;
        self.catalog = Arc::new(catalog);
        self.publish_relations();
        Ok(result)
    }

    fn publish_relations(&mut self) {
        self.follow_catalog();
        let tables = self.tables.iter().map(|(id, t)| (*id, Relation::Rows(t.rows.reader())));
        let views = self.views.iter().filter_map(|(id, v)| {
            let relation = match &v.error {
                Some(err) => Relation::Failed(view_failed(&v.name, err)),
                None => Relation::Rows(v.relation.as_ref()?.reader()),
            };
            Some((*id, relation))
        });
        let relations = Arc::new(tables.chain(views).collect());
        let sources = Arc::new(self.sources.iter().map(|(id, s)| (*id, s.source.clone())).collect());
        let (epoch, catalog) = (self.published, self.catalog.clone());
        // Of the epoch that is published: in the middle of a later one it stays what it is.
        let undefined = (self.epoch == self.published).then(|| self.undefined.clone());
        self.shared.publish(|p| {
            let undefined = undefined.unwrap_or_else(|| p.undefined.clone());
            *p = Published { epoch, catalog, relations, undefined, sources };
        });
    }

    /// Adds a table, source, index or plain view: `make` gets the new OID. It is durable, with what it comes with, when
    /// this returns: DDL is rare, and so the loop waits for it.
    pub fn create(&mut self, make: impl FnOnce(ObjectId) -> Object, with: CreatedWith) -> Result<Arc<Object>> {
        let mut catalog = Catalog::clone(&self.catalog);
        let object = make(catalog.allocate());
        self.check_inputs_exist(object.depends_on())?;
        self.check_name_free(&object)?;
        let replaced = with.replaces.filter(|id| catalog.by_id(*id).is_some());
        if let Some(replaced) = replaced {
            self.check_not_built_on(replaced)?;
            if let Some(dependant) = catalog.dependants(replaced).next() {
                let message = format!("\"{}\" depends on it", dependant.name);
                return Err(SqlError::new(SqlState::DependentObjectsStillExist, message));
            }
            catalog.remove(replaced);
        }
        let object = catalog.insert(object)?;
        let mut table = None;
        let mut records: Vec<Record> = replaced.map(|id| Record::Drop(vec![id])).into_iter().collect();
        let start = with.source.as_ref().and_then(|(_, start)| start.as_ref());
        records.push(Record::Create(vec![stored::store(&object, start)]));
        if matches!(object.def, Kind::Table(_)) {
            let table = table.insert(Table::new(object.clone())?);
            if let Some(rows) = with.rows.filter(|rows| rows.num_rows() > 0) {
                self.shared.memory.check_write(&object.name.name, &rows)?;
                let rows = RecordBatch::try_new(object.schema.clone(), rows.columns().to_vec())?;
                // Nobody can have read the table: what is put in now was always there.
                let applied = table.apply(Change::Insert(rows, OnConflict::Fail), self.published)?;
                let changes = applied.deltas.iter().map(|delta| TableChange::new(object.id, delta));
                records.push(Record::Rows(changes.collect::<Result<_>>()?));
            }
        }
        if let Some(durability) = &mut self.durability {
            durability.change_catalog(Record::Together(records))?;
        }
        if let Some((source, _)) = with.source {
            self.sources.insert(object.id, RunningSource::new(object.name.to_string(), source));
        }
        if let Some(table) = table {
            self.tables.insert(object.id, table);
        }
        if let Some(replaced) = replaced {
            self.remove(replaced);
        }
        self.catalog = Arc::new(catalog);
        self.publish_relations();
        Ok(object)
    }

    fn check_name_free(&self, object: &Object) -> Result<()> {
        match self.builds.values().find(|b| b.object.as_ref().is_some_and(|o| o.name == object.name)) {
            None => Ok(()),
            Some(_) => Err(SqlError::new(
                SqlState::DuplicateTable,
                format!("materialized view \"{}\" already exists", object.name.name),
            )
            .with_detail("It is being built.")),
        }
    }

    fn check_inputs_exist(&self, inputs: &[ObjectId]) -> Result<()> {
        match inputs.iter().all(|id| self.catalog.by_id(*id).is_some()) {
            true => Ok(()),
            false => Err(SqlError::new(SqlState::UndefinedTable, "a relation of the query has been dropped")),
        }
    }

    fn check_not_built_on(&self, id: ObjectId) -> Result<()> {
        let Some(build) = self.builds.values().find(|b| b.tap.reads(id)) else { return Ok(()) };
        let name = build.object.as_ref().map_or_else(|| "a subscription".to_string(), |o| format!("\"{}\"", o.name));
        Err(SqlError::new(SqlState::ObjectInUse, format!("{name} is being built on it"))
            .with_hint("Cancel that statement, or wait until it has ended."))
    }

    /// Drops objects; each must come after what stands on it.
    pub fn drop_objects(&mut self, ids: &[ObjectId]) -> Result<()> {
        ids.iter().try_for_each(|id| self.check_not_built_on(*id))?;
        if let Some(durability) = &mut self.durability {
            durability.change_catalog(Record::Drop(ids.to_vec()))?;
        }
        let mut catalog = Catalog::clone(&self.catalog);
        for id in ids {
            catalog.remove(*id);
            self.remove(*id);
        }
        self.catalog = Arc::new(catalog);
        self.publish_relations();
        Ok(())
    }

    fn remove(&mut self, id: ObjectId) {
        if let Some(build) = self.builds.get(&id) {
            build.cancel();
        }
        let gone = SqlError::new(SqlState::UndefinedTable, "the relation has been dropped");
        self.tables.remove(&id);
        self.sources.remove(&id);
        self.views.remove(&id);
        self.state_memory.forget(id);
        self.shared.dead_letters.forget(id);
        for subscriber in self.subscribers.remove(&id).unwrap_or_default() {
            subscriber.fail(gone.clone());
        }
        // A subscription's own view may read what is gone.
        let readers: Vec<ObjectId> =
            self.views.iter().filter(|(_, v)| v.inputs.contains(&id)).map(|(id, _)| *id).collect();
        for reader in readers {
            self.fail_view(reader, gone.clone());
        }
        self.stop_idle_sources();
        self.check_memory();
    }

    /// Stops the readers that no view needs any more.
    fn stop_idle_sources(&mut self) {
        self.drop_unused_plans();
        for (id, source) in &mut self.sources {
            let used = self.views.values().any(|v| v.inputs.contains(id) && v.error.is_none())
                || self.builds.values().any(|b| b.tap.reads(*id));
            if !used && source.reader.take().is_some() {
                source.state = SourceState::Idle;
            }
        }
    }

    /// Registers a view being built: its OID (a new one, unless it had one before), and its tap, which from the next epoch on gets the changes of `inputs`.
    pub fn begin_build(
        &mut self,
        oid: Option<ObjectId>,
        make: Option<Box<dyn FnOnce(ObjectId) -> Object + Send>>,
        inputs: &[ObjectId],
        taps: &[ObjectId],
        mut state: BuildState,
    ) -> Result<ObjectId> {
        self.check_inputs_exist(inputs)?;
        for id in inputs {
            if let Some(View { error: Some(err), name, .. }) = self.views.get(id) {
                return Err(view_failed(name, err));
            }
        }
        let mut catalog = Catalog::clone(&self.catalog);
        let id = oid.unwrap_or_else(|| catalog.allocate());
        if let Some(make) = make {
            let object = make(id);
            self.check_name_free(&object)?;
            // Only to hear whether the name is taken: the view is in the catalog when it is built.
            let mut catalog = Catalog::clone(&catalog);
            self.let_go_of_failed(id).then(|| catalog.remove(id));
            let object = catalog.insert(object)?;
            if state.in_log == InLog::FromTheStart
                && let Some(durability) = &mut self.durability
            {
                durability.change_catalog(Record::Create(vec![stored::store(&object, None)]))?;
            }
            state.object = Some(object);
        }
        self.catalog = Arc::new(catalog);
        self.publish_relations();
        taps.iter().for_each(|id| state.tap.open(*id));
        self.builds.insert(id, state);
        Ok(id)
    }

    /// Counts what a view being built has read of a source.
    pub fn count_read(&mut self, id: ObjectId, read: &SourceRead) {
        if let Some(source) = self.sources.get_mut(&id) {
            source.read.add(read);
        }
    }

    /// How far the running reader of a source has come, where one runs.
    pub fn source_positions(&self, id: ObjectId) -> Option<Positions> {
        Some(self.sources.get(&id)?.reader.as_ref()?.positions.clone())
    }

    /// Lets a view being built, which has read `columns` of a source up to `at`, join the source's running reader;
    /// starts one where none runs. `at` of None: from wherever the reader is, or from `start`.
    pub fn join_source(
        &mut self,
        build: ObjectId,
        id: ObjectId,
        columns: &[usize],
        at: Option<&Positions>,
        start: Positions,
    ) -> Result<Join> {
        let source = self.sources.get_mut(&id).ok_or_else(|| SqlError::internal("the source is gone"))?;
        let Some(reader) = &mut source.reader else {
            let positions = at.cloned().unwrap_or(start);
            let reader = start_reader(&self.shared, &mut self.next_generation, id, source, positions, columns)?;
            let positions = reader.positions.clone();
            source.reader = Some(reader);
            source.state = SourceState::Running;
            return self.open_tap(build, id, positions);
        };
        if let SourceState::Failed(why) = &source.state {
            return Err(SqlError::new(SqlState::ConnectionFailure, format!("source \"{}\" has stopped", source.name))
                .with_detail(describe(why))
                .with_hint(
                    why.hint().unwrap_or("Drop and create it again with the views on it, once the cause is gone."),
                ));
        }
        if let Some(at) = at {
            let of = |positions: &Positions, split: &Split| positions.get(split).copied();
            if at.iter().any(|(split, at)| of(&reader.positions, split).is_none_or(|p| p < *at)) {
                return Ok(Join::Ahead);
            }
            let distance: Position =
                reader.positions.iter().map(|(split, p)| p - of(at, split).unwrap_or(0).min(*p)).sum();
            if distance > JOIN_DISTANCE_MAX {
                return Ok(Join::Behind(reader.positions.clone()));
            }
        }
        if !columns.iter().all(|c| reader.projection.contains(c)) {
            // A reader begins again where the epochs have come to; what the old one had ready is thrown away.
            let mut union: Vec<usize> = reader.projection.iter().chain(columns).copied().collect();
            union.sort_unstable();
            union.dedup();
            let positions = reader.positions.clone();
            source.reader = Some(start_reader(&self.shared, &mut self.next_generation, id, source, positions, &union)?);
        }
        let positions = source.reader.as_ref().map(|r| r.positions.clone()).unwrap_or_default();
        self.open_tap(build, id, positions)
    }

    fn open_tap(&mut self, build: ObjectId, id: ObjectId, positions: Positions) -> Result<Join> {
        let build = self.builds.get(&build).ok_or_else(stopped)?;
        build.tap.open(id);
        Ok(Join::Joined(positions))
    }

    /// A view that was built joins the loop; from the next epoch on it is kept up to date here. `view` has taken in
    /// everything but what its tap still holds; `deltas` is what it put out where it has no relation.
    pub fn finish_build(
        &mut self,
        id: ObjectId,
        mut view: View,
        mut deltas: Vec<Delta>,
        subscriber: Option<Subscriber>,
    ) -> Result<Finish> {
        let build = self.builds.get(&id).ok_or_else(stopped)?;
        if build.is_cancelled() {
            return Err(SqlError::new(SqlState::QueryCanceled, "canceling statement due to user request"));
        }
        if build.tap.n_rows() > self.shared.settings.parallel_rows_min {
            return Ok(Finish::TooMuch { view: Box::new(view), deltas, subscriber });
        }
        self.check_inputs_exist(build.object.as_ref().map_or(&[], |o| o.depends_on()))?;
        if let (Some(durability), Some(object), InLog::WhenBuilt) = (&mut self.durability, &build.object, build.in_log)
        {
            durability.change_catalog(Record::Create(vec![stored::store(object, None)]))?;
        }
        let tap = build.tap.clone();
        while let Some(changes) = tap.pop()? {
            let output = view.runtime.step(&changes, now_us(), None)?;
            dead_letter_rows(&self.shared, id, &view.name, output.row_errors, now_us());
            match &mut view.relation {
                Some(relation) => relation.apply(&output.deltas, self.epoch)?,
                None => deltas.extend(output.deltas),
            }
        }
        let object = self.builds.remove(&id).and_then(|b| b.object);
        self.share(&mut view, object.as_deref());
        if let Some(durability) = &mut self.durability {
            durability.note_change();
        }
        self.shared.memory.build_ended(id);
        // The build was within its limit: what its last changes took beyond, its next step says.
        let _ = self.state_memory.view_took(id, &view.name, view.state_bytes(), object.as_deref());
        self.insert_view(id, view);
        if let Some(subscriber) = subscriber
            && self.is_defined_for(id, &subscriber)
            && (deltas.is_empty() || subscriber.send(self.epoch, &deltas))
        {
            self.subscribers.entry(id).or_default().push(subscriber);
        }
        if let Some(object) = object {
            self.change_catalog(|catalog| {
                // A failed view that was built again.
                catalog.remove(id);
                catalog.insert(Object::clone(&object))
            })?;
            info!(view = %object.name, "materialized view is up to date");
        }
        Ok(Finish::Joined)
    }

    /// Forgets a build that failed or was cancelled.
    pub fn abort_build(&mut self, id: ObjectId) {
        // One that a stopping server ends is built at the next start.
        self.shared.memory.build_ended(id);
        if let Some(build) = self.builds.remove(&id)
            && build.in_log == InLog::FromTheStart
            && !self.shared.is_stopping()
            && let Some(durability) = &mut self.durability
            && let Err(error) = durability.change_catalog(Record::Drop(vec![id]))
        {
            warn!(%error, "a view that could not be built is still in the log: it is tried again at the next start");
        }
        self.stop_idle_sources();
    }

    /// Ends a subscription's own view.
    pub fn drop_view(&mut self, id: ObjectId) {
        self.views.remove(&id);
        self.state_memory.forget(id);
        self.subscribers.remove(&id);
        self.stop_idle_sources();
    }

    /// Forgets the subscribers of a relation whose clients are gone.
    pub fn forget_gone_subscribers(&mut self, id: ObjectId) {
        if let Some(subscribers) = self.subscribers.get_mut(&id) {
            subscribers.retain(|subscriber| !subscriber.is_gone());
        }
        self.subscribers.retain(|_, subscribers| !subscribers.is_empty());
    }

    /// From the next epoch on `subscriber` gets the changes of a relation. The epoch that is published stays the same
    /// until this call has ended.
    pub fn subscribe(&mut self, id: ObjectId, subscriber: Subscriber) -> Result<()> {
        match self.views.get(&id) {
            Some(View { error: Some(err), name, .. }) => return Err(view_failed(name, err)),
            Some(view) if self.undefined.contains(&id) => return Err(undefined(&view.name)),
            None if !self.tables.contains_key(&id) => {
                return Err(SqlError::new(SqlState::UndefinedTable, "the relation has been dropped"));
            }
            _ => {}
        }
        self.subscribers.entry(id).or_default().push(subscriber);
        Ok(())
    }

    /// Views being built, to be cancelled by name.
    pub fn cancel_build(&mut self, name: &tidewire_catalog::Name) -> bool {
        let build = self.builds.values().find(|b| b.object.as_ref().is_some_and(|o| o.name == *name));
        build.map(BuildState::cancel).is_some()
    }
}

impl RunningSource {
    fn new(name: String, source: Arc<dyn Source>) -> RunningSource {
        RunningSource {
            name,
            source,
            reader: None,
            state: SourceState::Idle,
            read: SourceRead::default(),
            ends: Positions::new(),
        }
    }
}

fn start_reader(
    shared: &Arc<Shared>,
    next_generation: &mut u64,
    id: ObjectId,
    source: &RunningSource,
    positions: Positions,
    columns: &[usize],
) -> Result<Reader> {
    *next_generation += 1;
    let generation = *next_generation;
    let source = source.source.clone();
    let task = SourceTask::start(shared.clone(), id, generation, source, positions.clone(), columns.to_vec())?;
    Ok(Reader { task, generation, projection: columns.into(), positions })
}

fn bytes_of(deltas: &[Delta]) -> usize {
    deltas.iter().map(delta_bytes).sum()
}

/// Keeps the rows whose expression failed.
pub fn dead_letter_rows(shared: &Shared, id: ObjectId, name: &str, errors: Vec<RowError>, now_us: i64) {
    for row_error in errors {
        warn!(view = %name, expr = %row_error.expr, error = %row_error.error, "dead-lettered failing row");
        let names: Vec<_> = row_error.row.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
        let row = format!("({}) = ({})", names.join(", "), row_text(&row_error.row, 0));
        shared.dead_letters.push(Letter {
            time_us: now_us,
            object: id,
            name: name.to_string(),
            place: None,
            timestamp_us: None,
            key: None,
            value: Some(row.into()),
            error: format!("{}: {} (weight {})", row_error.expr, describe(&row_error.error), row_error.weight),
        });
    }
}

/// The message of an error with its detail.
pub fn describe(err: &SqlError) -> String {
    match err.detail() {
        None => err.message().to_string(),
        Some(detail) => format!("{}: {detail}", err.message()),
    }
}

/// The time of an epoch: microseconds since 1970-01-01 UTC.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}
