//! A whole server in this process, for the end-to-end benchmarks.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::StreamExt;
use futures::stream::BoxStream;
use tidewire_connect::Connector;
use tidewire_engine::{Components, Engine, Outcome, Session, Settings, Status};
use tidewire_kafka::Kafka;
use tidewire_server::PgSystem;
use tidewire_state::DataDir;
use tidewire_types::Result as SqlResult;
use tokio::runtime::Runtime;

use crate::durability::Feed;

static KAFKA: Kafka = Kafka;
static CONNECTORS: &[&dyn Connector] = &[&KAFKA, &tidewire_connect::nexmark::Nexmark, &Feed];

/// A server and one session.
pub struct Server {
    pub runtime: Runtime,
    pub session: Session,
    engine: Arc<Engine>,
    // Locked while the engine runs.
    _data_dir: Option<DataDir>,
}

impl Server {
    /// Starts one with default settings.
    pub fn start() -> Result<Server, Box<dyn Error>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let components = Components::new(CONNECTORS, Arc::new(PgSystem));
        let engine = Engine::start(Settings::default(), components)?;
        let session = engine.session("tidewire", "tidewire");
        Ok(Server { runtime, session, engine, _data_dir: None })
    }

    /// Starts one over what a directory has.
    pub fn open(directory: &Path, settings: Settings) -> Result<Server, Box<dyn Error>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let components = Components::new(CONNECTORS, Arc::new(PgSystem));
        let data_dir = DataDir::open(directory)?;
        let engine = runtime.block_on(Engine::open(settings, components, data_dir.storage()?, false))?;
        let session = engine.session("tidewire", "tidewire");
        Ok(Server { runtime, session, engine, _data_dir: Some(data_dir) })
    }

    /// Where everything stands.
    pub fn status(&self) -> Status {
        self.engine.status()
    }

    /// Waits until it stands as is wanted.
    pub fn wait(&self, is_so: impl Fn(&Status) -> bool) {
        self.runtime.block_on(async {
            let mut again = tokio::time::interval(Duration::from_millis(5));
            while !is_so(&tokio::task::block_in_place(|| self.engine.status())) {
                again.tick().await;
            }
        });
    }

    /// Has everything written that a checkpoint has.
    pub fn checkpoint(&self) -> Result<(), Box<dyn Error>> {
        Ok(self.runtime.block_on(self.engine.checkpoint())?)
    }

    /// Another session of the same server.
    pub fn session(&self) -> Session {
        self.engine.session("tidewire", "tidewire")
    }

    /// Bytes of all state.
    pub fn state_bytes(&self) -> usize {
        self.engine.status().state_bytes
    }

    /// Runs an INSERT; how many rows it says that it made.
    pub fn insert(&mut self, sql: &str) -> Result<u64, Box<dyn Error>> {
        let session = &mut self.session;
        match self.runtime.block_on(async { outcome(session, sql).await })? {
            Outcome::Command { tag, .. } => Ok(tag.rsplit(' ').next().map_or(Ok(0), str::parse)?),
            _ => Err("not an INSERT".into()),
        }
    }

    /// Waits until the epoch loop has done what was asked before.
    pub fn settle(&self) {
        self.engine.status();
    }

    /// Runs one statement and gives its rows.
    pub fn rows(&mut self, sql: &str) -> Result<Vec<RecordBatch>, Box<dyn Error>> {
        let session = &mut self.session;
        Ok(self.runtime.block_on(async { rows(session, sql).await })?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.runtime.block_on(self.engine.shutdown());
    }
}

/// Runs one statement and gives its rows.
pub async fn rows(session: &mut Session, sql: &str) -> SqlResult<Vec<RecordBatch>> {
    match outcome(session, sql).await? {
        Outcome::Rows { rows, .. } => rows.collect::<Vec<_>>().await.into_iter().collect(),
        Outcome::Push { .. }
        | Outcome::CopyOut { .. }
        | Outcome::CopyIn(_)
        | Outcome::Command { .. }
        | Outcome::Empty => Ok(vec![]),
    }
}

/// Starts a push and gives its stream.
pub async fn push(session: &mut Session, sql: &str) -> SqlResult<BoxStream<'static, SqlResult<RecordBatch>>> {
    match outcome(session, sql).await? {
        Outcome::Push { rows, .. } => Ok(rows),
        Outcome::Rows { .. }
        | Outcome::CopyOut { .. }
        | Outcome::CopyIn(_)
        | Outcome::Command { .. }
        | Outcome::Empty => Ok(futures::stream::empty().boxed()),
    }
}

async fn outcome(session: &mut Session, sql: &str) -> SqlResult<Outcome> {
    let mut outcome = Outcome::Empty;
    for parsed in tidewire_sql::parse(sql)? {
        let prepared = session.prepare(parsed, &[]).await?;
        outcome = session.execute(&prepared, vec![]).await?;
    }
    Ok(outcome)
}
