//! The start of a server that has a data directory: everything is as it was.
//!
//! The newest checkpoint and the log behind it give the catalog, the rows of tables and the dead letters. Sources are
//! declared again from their statements, with the positions at which they began. Materialized views are restored: their
//! operators and rows from the checkpoint, then what the log changed in tables, and sources go on at the checkpoint's
//! positions. A view that cannot be (its plan is another now, a file is damaged, it was created after the checkpoint) is built
//! again, and so is what stands on it, by the way that CREATE takes.
//!
//! Invariant: nothing that was there is lost because it does not work now. A source whose broker is away is made when
//! it is next asked for; a view that cannot be built is marked failed, with the reason, until it is dropped or built
//! again: by REFRESH, at the next start, or, where a broker was away, by itself. No checkpoint is written before everything
//! that was restored is one moment again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidewire_catalog::{Catalog, Kind, Object};
use tidewire_connect::{Connector, Positions, ReadMode, Source, SourceReader, SourceSpec};
use tidewire_operators::arrangement::Arrangement;
use tidewire_planner::Dataflow;
use tidewire_sql::Statement;
use tidewire_state::{
    Checkpoints, Files, Log, Manifest, Record, Storage, StoredLetter, StoredObject, TableFiles, ViewFiles,
};
use tidewire_types::{Delta, Epoch, ObjectId, Result, SqlError, SqlState};
use tracing::{info, warn};

use crate::core::{Core, View, now_us};
use crate::durable::{Durability, Found};
use crate::runtime::{Changes, EpochChanges, Runtime, fingerprint};
use crate::session::ddl::source_spec;
use crate::session::refresh::has_failed;
use crate::shared::Shared;
use crate::status::ViewOrigin;
use crate::stored;
use crate::table::Table;
use crate::{Components, Engine, Settings};

/// The epoch at which everything was that is found: a start renumbers.
const FIRST_EPOCH: Epoch = Epoch(1);
/// How long a view waits before its broker is asked again: twice as long each time, up to the second.
const TRY_AGAIN: Duration = Duration::from_secs(1);
const TRY_AGAIN_MAX: Duration = Duration::from_secs(30);
/// After how many records of the log dead rows are let go.
const VACUUM_RECORDS: u64 = 4096;

impl Engine {
    /// Starts a server over what `storage` has. Returns when every view shows what it showed.
    ///
    /// Errors: `XX001` where a file is damaged; with `cut_damaged_log` what comes before the damage in the log is taken.
    pub async fn open(
        settings: Settings,
        components: Components,
        storage: Storage,
        cut_damaged_log: bool,
    ) -> Result<Arc<Engine>> {
        let began = Instant::now();
        let storage_ = storage.clone();
        let read = tokio::task::spawn_blocking(move || Recovered::read(&storage_, cut_damaged_log));
        let recovered = read.await.map_err(|_| SqlError::internal("reading the data directory panicked"))??;
        let Recovered { tables, last_oid, letters, found, saved, .. } = recovered;
        let shared = Shared::new(saved.settings(settings), components.operators, true);
        let letters = letters.into_iter().map(stored::restore_letter).collect();
        shared.dead_letters.restore(letters, found.dead_letters.len());

        let objects: Vec<StoredObject> = found.objects.values().cloned().collect();
        let n_objects = objects.len();
        let (views, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(stored::is_materialized);
        let mut catalog = Catalog::default();
        catalog.reserve(last_oid);
        for object in &others {
            catalog.insert(stored::restore(object))?;
        }
        let sources = make_sources(others, components.connectors).await?;
        let changes = changes_of_tables(&tables, &found);
        let durability = Durability::start(&storage, found, &shared)?;
        let core = Core::with(shared.clone(), catalog, FIRST_EPOCH, tables, sources, Some(durability))?;
        let engine = Engine::run_core(shared, core, components)?;
        if n_objects > 0 {
            info!(n_objects, n_views = views.len(), "catalog and tables are read; views follow");
        }
        let others = engine.restore_views(views, saved, changes).await?;
        engine.rebuild_views(others).await?;
        if n_objects > 0 {
            info!(elapsed_ms = began.elapsed().as_millis() as u64, "everything is as it was");
        }
        Ok(engine)
    }

    /// Restores the views that a checkpoint has, all of one moment. The views that are to be built again.
    async fn restore_views(
        self: &Arc<Self>,
        views: Vec<StoredObject>,
        saved: Saved,
        changes: EpochChanges,
    ) -> Result<Vec<StoredObject>> {
        let (mut restored, mut others) = (HashSet::new(), vec![]);
        let sources = saved.manifest.as_ref().map(|m| m.sources.clone()).unwrap_or_default();
        let saved = Arc::new(saved);
        for stored in views {
            let began = Instant::now();
            let object = stored::restore(&stored);
            let (id, name) = (object.id, object.name.to_string());
            match self.restore_view(&stored.owner, object, &saved, &mut restored).await {
                Ok(()) => {
                    info!(view = %name, elapsed_ms = began.elapsed().as_millis() as u64, "view is restored");
                    restored.insert(id);
                }
                Err(error) if self.shared.is_stopping() => return Err(error),
                Err(why) => {
                    warn!(view = %name, %why, "the view's state cannot be taken from the checkpoint: it is built again");
                    others.push(stored);
                }
            }
        }
        self.shared.call(move |core| core.finish_restore(changes, &sources)).await??;
        Ok(others)
    }

    /// Errors: why it is to be built again.
    async fn restore_view(
        self: &Arc<Self>,
        owner: &str,
        stored: Object,
        saved: &Arc<Saved>,
        restored: &mut HashSet<ObjectId>,
    ) -> Result<()> {
        let why = |why: &str| SqlError::new(SqlState::ObjectNotInPrerequisiteState, why);
        let manifest = saved.manifest.as_ref().ok_or_else(|| why("there is no checkpoint"))?;
        let files =
            manifest.view(stored.id).ok_or_else(|| why("it was not up to date at the last checkpoint"))?.clone();
        let settings = &self.shared.settings;
        if manifest.n_shards as usize != settings.n_shards {
            let why = format!("its state is divided into {} shards, not {}", manifest.n_shards, settings.n_shards);
            return Err(SqlError::new(SqlState::ObjectNotInPrerequisiteState, why));
        }
        let mut session = self.session(owner, "tidewire");
        let (dataflow, object) = session.plan_stored_view(stored).await?;
        let print = fingerprint(&dataflow);
        if print != files.fingerprint {
            return Err(why("its plan, or the layout of state, is another one in this version"));
        }
        let mut plans = vec![];
        shared_plans(manifest, &files, &dataflow, &mut plans)?;
        for (plan, dataflow) in plans {
            if restored.contains(&plan) {
                continue;
            }
            let files = manifest.view(plan).ok_or_else(|| why("the checkpoint has no plan that it shares"))?.clone();
            let view = self.load_view(object.name.to_string(), &dataflow, files, None, saved, restored).await?;
            self.shared.call(move |core| core.add_restored_plan(plan, view)).await?;
            restored.insert(plan);
        }
        let schema = dataflow.nodes.last().map(|node| node.schema.clone());
        let schema = schema.ok_or_else(|| SqlError::internal("a dataflow without nodes"))?;
        let relation = Arrangement::new(schema, dataflow.identity.clone())?;
        let view = self.load_view(object.name.to_string(), &dataflow, files, Some(relation), saved, restored).await?;
        self.shared.call(move |core| core.add_restored_view(object, view)).await?
    }

    /// Loads a view, or without a relation a shared plan. Errors: why it is to be built again.
    async fn load_view(
        self: &Arc<Self>,
        name: String,
        dataflow: &Dataflow,
        files: ViewFiles,
        mut relation: Option<Arrangement>,
        saved: &Arc<Saved>,
        restored: &HashSet<ObjectId>,
    ) -> Result<View> {
        let why = |why: &str| SqlError::new(SqlState::ObjectNotInPrerequisiteState, why);
        let mut runtime = Runtime::new(dataflow, &self.shared.settings, self.shared.operators)?;
        for shared in &files.shared {
            runtime.take_from(shared.node as usize, ObjectId(shared.plan));
        }
        let inputs = runtime.reads();
        let catalog = self.shared.published().catalog;
        let sources = saved.manifest.iter().flat_map(|manifest| &manifest.sources);
        let positions: HashSet<u32> = sources.filter(|s| s.positions.is_some()).map(|s| s.source).collect();
        for input in &inputs {
            match catalog.by_id(*input).map(|object| &object.def) {
                Some(Kind::MaterializedView(_)) | None if !restored.contains(input) => {
                    return Err(why("a view that it reads is built again"));
                }
                Some(Kind::Source(_)) if !positions.contains(&input.0) => {
                    return Err(why("the checkpoint does not say how far a source was read"));
                }
                _ => {}
            }
        }
        let n_columns = dataflow.nodes.last().map_or(0, |node| node.schema.fields().len());
        let (fingerprint, is_plan) = (files.fingerprint.clone(), relation.is_none());
        let reader = saved.files.clone();
        let load = move || {
            runtime.restore(&files, &reader, relation.as_mut(), FIRST_EPOCH, now_us())?;
            runtime.keep();
            Ok::<_, SqlError>((runtime, relation))
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        let (runtime, relation) = loaded.map_err(|_| SqlError::internal("reading the state panicked"))??;
        Ok(View {
            name,
            runtime,
            relation,
            inputs: inputs.into_iter().collect(),
            all_columns: (0..n_columns).collect(),
            error: None,
            fingerprint: Some(fingerprint),
            origin: ViewOrigin::Restored,
            is_new: false,
            is_plan,
        })
    }

    /// Builds materialized views, each after those that it stands on.
    async fn rebuild_views(self: &Arc<Self>, views: Vec<StoredObject>) -> Result<()> {
        let (n_views, mut without_broker) = (views.len(), vec![]);
        for (idx, stored) in views.iter().enumerate() {
            let began = Instant::now();
            let object = stored::restore(stored);
            let name = object.name.to_string();
            let mut session = self.session(&stored.owner, "tidewire");
            match session.rebuild_view(object.clone()).await {
                Ok(()) => {
                    let elapsed_ms = began.elapsed().as_millis() as u64;
                    info!(view = %name, elapsed_ms, "view {} of {n_views} is built", idx + 1);
                }
                Err(error) if self.shared.is_stopping() => return Err(error),
                Err(error) => {
                    warn!(view = %name, %error, "the view cannot be built; it is marked failed");
                    if error.state() == SqlState::ConnectionFailure {
                        without_broker.push(object.id);
                    }
                    self.shared.call(move |core| core.add_failed_view(object, error)).await??;
                }
            }
        }
        if !without_broker.is_empty() {
            tokio::spawn(try_again(Arc::downgrade(self), without_broker));
        }
        Ok(())
    }
}

/// Builds views, and what stands on them, as soon as what they read can be reached.
#[expect(clippy::disallowed_methods, reason = "a broker does not tell that it is there again")]
async fn try_again(engine: Weak<Engine>, mut views: Vec<ObjectId>) {
    let mut pause = TRY_AGAIN;
    while !views.is_empty() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(TRY_AGAIN_MAX);
        let Some(engine) = engine.upgrade().filter(|engine| !engine.shared.is_stopping()) else { return };
        let moment = engine.shared.published();
        // Some may have been dropped, or built by REFRESH.
        views.retain(|view| has_failed(&moment, *view));
        let mut still = vec![];
        for view in views {
            match engine.build_failed(view).await {
                Err(error) if error.state() == SqlState::ConnectionFailure => still.push(view),
                Err(error) => warn!(view = view.0, %error, "the view cannot be built again"),
                Ok(()) => {}
            }
        }
        views = still;
    }
}

/// The plans that a view or plan shares with others, each after those that it takes from itself.
fn shared_plans(
    manifest: &Manifest,
    files: &ViewFiles,
    dataflow: &Dataflow,
    found: &mut Vec<(ObjectId, Dataflow)>,
) -> Result<()> {
    for shared in &files.shared {
        let (id, plan) = (ObjectId(shared.plan), dataflow.sub_plan(shared.node as usize));
        if let Some(files) = manifest.view(id) {
            shared_plans(manifest, files, &plan, found)?;
        }
        found.push((id, plan));
    }
    Ok(())
}

/// What the log changed in tables behind the checkpoint.
fn changes_of_tables(tables: &BTreeMap<ObjectId, Table>, found: &Found) -> EpochChanges {
    let of_table = |(id, deltas): (&ObjectId, &Vec<Delta>)| {
        let columns = (0..tables.get(id)?.object.columns.len()).collect();
        Some((*id, Changes { columns, deltas: deltas.clone() }))
    };
    found.changes.iter().filter_map(of_table).collect()
}

/// The checkpoint that views are restored from.
struct Saved {
    manifest: Option<Manifest>,
    files: Files,
}

impl Saved {
    /// State stays divided as it is, unless somebody asked for another number of shards.
    fn settings(&self, settings: Settings) -> Settings {
        match &self.manifest {
            Some(manifest) if settings.n_shards_is_default && manifest.n_shards > 0 => {
                Settings { n_shards: manifest.n_shards as usize, ..settings }
            }
            _ => settings,
        }
    }
}

/// What checkpoint and log say.
struct Recovered {
    tables: BTreeMap<ObjectId, Table>,
    last_oid: u32,
    letters: Vec<StoredLetter>,
    found: Found,
    saved: Saved,
    n_records: u64,
}

impl Recovered {
    /// Errors: `XX001` where neither of the two newest checkpoints can be read, or the log is damaged.
    fn read(storage: &Storage, cut_damaged_log: bool) -> Result<Recovered> {
        let mut checkpoints = Checkpoints::open(storage.clone())?;
        let (tables, letters) = loop {
            match read_checkpoint(&checkpoints) {
                Ok(read) if checkpoints.fence()? => break read,
                Ok(_) => checkpoints = Checkpoints::open(storage.clone())?,
                Err(error) if error.state() == SqlState::DataCorrupted && checkpoints.pass_over_newest() => {
                    warn!(%error, "the newest checkpoint cannot be read; the one before it and more of the log are");
                }
                Err(error) => return Err(error),
            }
        };
        let newest = checkpoints.newest();
        let from = newest.map_or(0, |m| m.log_from);
        let last_oid = newest.map_or(0, |m| m.last_oid);
        let objects = newest.map(|m| m.objects.iter().map(|o| (o.oid, o.clone())).collect()).unwrap_or_default();
        let saved = Saved { manifest: newest.cloned(), files: checkpoints.files().clone() };
        let found = Found { checkpoints, next: 0, objects, changes: HashMap::new(), dead_letters: vec![] };
        let mut recovered = Recovered { tables, last_oid, letters, found, saved, n_records: 0 };
        let replayed = Log::replay(storage, from, cut_damaged_log, &mut |_, bytes| recovered.apply(bytes))?;
        recovered.found.next = replayed.next;
        // The files of a checkpoint may still have letters of objects that were dropped.
        let Recovered { letters, found, .. } = &mut recovered;
        letters.retain(|letter| found.objects.contains_key(&letter.object));
        found.dead_letters.retain(|letter| found.objects.contains_key(&letter.object));
        recovered.vacuum();
        // What a crash left of a checkpoint that was being written.
        recovered.found.checkpoints.remove_leftovers()?;
        if replayed.n_records > 0 {
            info!(n_records = replayed.n_records, "the log is read");
        }
        Ok(recovered)
    }

    fn apply(&mut self, bytes: &[u8]) -> Result<()> {
        self.apply_record(Record::decode(bytes)?)?;
        self.n_records += 1;
        if self.n_records.is_multiple_of(VACUUM_RECORDS) {
            self.vacuum();
        }
        Ok(())
    }

    fn apply_record(&mut self, record: Record) -> Result<()> {
        match record {
            Record::Rows(changes) => {
                for change in changes {
                    let table = self.tables.get_mut(&change.table).ok_or_else(|| no_table(change.table))?;
                    table.rows.apply(std::slice::from_ref(&change.delta), FIRST_EPOCH)?;
                    self.found.changes.entry(change.table).or_default().push(change.delta);
                }
            }
            Record::Create(objects) => {
                for object in objects {
                    self.last_oid = self.last_oid.max(object.oid);
                    add_table(&object, &mut self.tables)?;
                    self.found.objects.insert(object.oid, object);
                }
            }
            Record::Drop(ids) => {
                for id in ids {
                    self.tables.remove(&id);
                    self.found.objects.remove(&id.0);
                    self.found.changes.remove(&id);
                    self.letters.retain(|letter| letter.object != id.0);
                    self.found.dead_letters.retain(|letter| letter.object != id.0);
                }
            }
            Record::DeadLetters(letters) => {
                self.letters.extend(letters.iter().cloned());
                self.found.dead_letters.extend(letters);
            }
            Record::End => {}
            Record::Together(records) => records.into_iter().try_for_each(|record| self.apply_record(record))?,
        }
        Ok(())
    }

    /// Rows that the log removed again: nobody reads them.
    fn vacuum(&mut self) {
        self.tables.values_mut().for_each(|table| table.rows.vacuum(FIRST_EPOCH));
    }
}

fn read_checkpoint(checkpoints: &Checkpoints) -> Result<(BTreeMap<ObjectId, Table>, Vec<StoredLetter>)> {
    let mut tables = BTreeMap::new();
    let Some(manifest) = checkpoints.newest() else { return Ok((tables, vec![])) };
    manifest.objects.iter().try_for_each(|object| add_table(object, &mut tables))?;
    for files in &manifest.tables {
        // A table whose files are there and which is not in the catalog was being dropped.
        if let Some(table) = tables.get_mut(&ObjectId(files.table)) {
            read_table(checkpoints, files, table)?;
        }
    }
    Ok((tables, checkpoints.read_dead_letters(manifest)?))
}

fn read_table(checkpoints: &Checkpoints, files: &TableFiles, table: &mut Table) -> Result<()> {
    checkpoints.files().read_table(files, &mut |deltas| table.rows.apply(&deltas, FIRST_EPOCH))
}

fn add_table(stored: &StoredObject, tables: &mut BTreeMap<ObjectId, Table>) -> Result<()> {
    let object = Arc::new(stored::restore(stored));
    if let Kind::Table(_) = object.def {
        tables.insert(object.id, Table::new(object)?);
    }
    Ok(())
}

fn no_table(id: ObjectId) -> SqlError {
    SqlError::new(SqlState::DataCorrupted, format!("the log changes table {id}, which it has not created"))
        .with_hint("Restore the data directory from a backup.")
}

/// The sources among the objects, each with its OID and name.
async fn make_sources(
    objects: Vec<StoredObject>,
    connectors: &'static [&'static dyn Connector],
) -> Result<Vec<(ObjectId, String, Arc<dyn Source>)>> {
    let mut sources = vec![];
    for stored in objects {
        let object = stored::restore(&stored);
        if !matches!(object.def, Kind::Source(_)) {
            continue;
        }
        let name = object.name.to_string();
        let spec = declared(&object, connectors);
        let source = Arc::new(LateSource { spec, start: stored::start_of(&stored), made: Mutex::default() });
        let trial = source.clone();
        let made = tokio::task::spawn_blocking(move || trial.source().map(|_| ())).await;
        if let Err(error) = made.map_err(|_| SqlError::internal("the connector panicked"))? {
            warn!(source = %name, %error, "the source cannot be opened; it is tried again when it is read");
        }
        sources.push((object.id, name, source as Arc<dyn Source>));
    }
    Ok(sources)
}

/// What the statement of a source asks for.
fn declared(
    object: &Object,
    connectors: &'static [&'static dyn Connector],
) -> Result<(&'static dyn Connector, SourceSpec)> {
    match tidewire_sql::parse(&object.sql)?.first().map(|p| &p.statement) {
        Some(Statement::CreateSource(create)) => source_spec(create, &object.name, connectors),
        _ => Err(SqlError::internal("a source without its statement")),
    }
}

/// A source that was declared before the server's start. Its connector makes it when it can.
struct LateSource {
    spec: Result<(&'static dyn Connector, SourceSpec)>,
    start: Option<Positions>,
    made: Mutex<Option<Arc<dyn Source>>>,
}

impl LateSource {
    fn source(&self) -> Result<Arc<dyn Source>> {
        let mut made = self.made.lock();
        if let Some(source) = &*made {
            return Ok(source.clone());
        }
        let (connector, spec) = self.spec.clone()?;
        let source = connector.create(spec)?;
        if let Some(start) = &self.start {
            source.restore_start(start);
        }
        Ok(made.insert(source).clone())
    }
}

impl fmt::Debug for LateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LateSource").field("made", &*self.made.lock()).finish_non_exhaustive()
    }
}

impl Source for LateSource {
    fn start(&self) -> Result<Positions> {
        self.source()?.start()
    }

    fn start_to_keep(&self) -> Result<Option<Positions>> {
        Ok(self.start.clone())
    }

    fn end(&self) -> Result<Positions> {
        self.source()?.end()
    }

    fn earliest(&self) -> Result<Positions> {
        self.source()?.earliest()
    }

    fn read(&self, positions: Positions, projection: Vec<usize>, mode: ReadMode) -> Result<Box<dyn SourceReader>> {
        self.source()?.read(positions, projection, mode)
    }

    fn commit(&self, positions: &Positions) {
        if let Some(source) = &*self.made.lock() {
            source.commit(positions);
        }
    }
}
