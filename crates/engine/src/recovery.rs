//! The start of a server that has a data directory: everything is as it was.
//!
//! The newest checkpoint and the log behind it give the catalog, the rows of tables and the dead letters. Sources are
//! declared again from their statements, with the positions at which they began. Materialized views are built again, by
//! the way that CREATE takes: from the tables, and from sources at their start.
//!
//! Invariant: nothing that was there is lost because it does not work now. A source whose broker is away is made when
//! it is next asked for; a view that cannot be built is marked failed, with the reason, until it is dropped or built
//! at the next start.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tidewire_catalog::{Catalog, Kind, Object};
use tidewire_connect::{Connector, Positions, ReadMode, Source, SourceReader, SourceSpec};
use tidewire_sql::Statement;
use tidewire_state::{Checkpoints, Log, Record, Storage, StoredLetter, StoredObject, TableFiles};
use tidewire_types::{Delta, Epoch, ObjectId, Result, SqlError, SqlState};
use tracing::{info, warn};

use crate::core::Core;
use crate::durable::{Durability, Found};
use crate::session::ddl::source_spec;
use crate::shared::Shared;
use crate::stored;
use crate::table::Table;
use crate::{Components, Engine, Settings};

/// The epoch at which everything was that is found: a start renumbers.
const FIRST_EPOCH: Epoch = Epoch(1);
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
        let Recovered { tables, last_oid, letters, found, .. } = recovered;
        let shared = Shared::new(settings, components.operators);
        shared.dead_letters.restore(letters.into_iter().map(stored::restore_letter).collect());

        let objects: Vec<StoredObject> = found.objects.values().cloned().collect();
        let n_objects = objects.len();
        let (views, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(stored::is_materialized);
        let mut catalog = Catalog::default();
        catalog.reserve(last_oid);
        for object in &others {
            catalog.insert(stored::restore(object))?;
        }
        let sources = make_sources(others, components.connectors).await?;
        let durability = Durability::start(&storage, found, &shared)?;
        let core = Core::with(shared.clone(), catalog, FIRST_EPOCH, tables, sources, Some(durability))?;
        let engine = Engine::run_core(shared, core, components)?;
        if n_objects > 0 {
            info!(n_objects, n_views = views.len(), "catalog and tables are read; views are built again");
        }
        engine.rebuild_views(views).await?;
        engine.shared.dead_letters.views_are_built();
        if n_objects > 0 {
            info!(elapsed_ms = began.elapsed().as_millis() as u64, "everything is as it was");
        }
        Ok(engine)
    }

    /// Builds materialized views, each after those that it stands on.
    async fn rebuild_views(self: &Arc<Self>, views: Vec<StoredObject>) -> Result<()> {
        let n_views = views.len();
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
                    self.shared.call(move |core| core.add_failed_view(object, error)).await??;
                }
            }
        }
        Ok(())
    }
}

/// What checkpoint and log say.
struct Recovered {
    tables: BTreeMap<ObjectId, Table>,
    last_oid: u32,
    letters: Vec<StoredLetter>,
    found: Found,
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
        let found = Found { checkpoints, next: 0, objects, changes: HashMap::new(), dead_letters: vec![] };
        let mut recovered = Recovered { tables, last_oid, letters, found, n_records: 0 };
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
        match Record::decode(bytes)? {
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
        }
        self.n_records += 1;
        if self.n_records.is_multiple_of(VACUUM_RECORDS) {
            self.vacuum();
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
    checkpoints.read_table(files, &mut |delta: Delta| table.rows.apply(&[delta], FIRST_EPOCH))
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

    fn read(&self, positions: Positions, projection: Vec<usize>, mode: ReadMode) -> Result<Box<dyn SourceReader>> {
        self.source()?.read(positions, projection, mode)
    }

    fn commit(&self, positions: &Positions) {
        if let Some(source) = &*self.made.lock() {
            source.commit(positions);
        }
    }
}
