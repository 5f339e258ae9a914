//! Reads sources, cuts epochs, runs dataflows, publishes snapshots, feeds subscriptions.
//!
//! [`Engine`] owns the epoch loop; a [`Session`] is one client's view of it: it runs statements. The Postgres
//! protocol, the test runner and the benchmarks all stand on `Session`.

mod build;
mod core;
mod dead_letters;
mod durable;
mod lookup;
mod memory;
mod recovery;
mod runtime;
mod session;
mod shared;
mod sleep;
mod source_task;
mod status;
mod stored;
mod subscription;
mod system;
mod table;
mod tables;
mod workers;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::logical_expr::ScalarUDF;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::{displayable, execute_stream};
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tidewire_catalog::Catalog;
use tidewire_connect::Connector;
use tidewire_operators::expr::sql_error;
use tidewire_operators::{Operator, Plan};
use tidewire_planner::Planned;
pub use tidewire_planner::read_value;
use tidewire_sql::ast;
use tidewire_types::{Result, SqlError, SqlState};

use crate::core::Core;
pub use crate::memory::memory_size;
pub use crate::runtime::panic_error;
pub use crate::session::settings::milliseconds;
pub use crate::session::{CopyIn, Notice, Outcome, Prepared, Session, Transaction};
use crate::shared::Shared;
pub use crate::status::{
    CheckpointStatus, OperatorStatus, SourceState, SourceStatus, SplitStatus, Status, ViewOrigin, ViewState, ViewStatus,
};

/// The part of the memory limit that all queries may take besides state.
const QUERY_PART: usize = 4;

/// Settings of a server, all with sensible defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Shards (and threads for large epochs); default: the number of cores.
    pub n_shards: usize,
    /// Nobody asked for `n_shards`: a data directory whose state is divided into another number of shards keeps that.
    pub n_shards_is_default: bool,
    /// Rows that one epoch takes at most.
    pub epoch_rows_max: usize,
    /// Rows from which an epoch is run on all shard threads instead of inline.
    pub parallel_rows_min: usize,
    /// Bytes of decoded records that may wait for the epoch loop, a source.
    pub source_buffer_bytes_max: usize,
    /// Bytes of changes that may wait for a slow subscriber before it is cut off.
    pub subscription_buffer_bytes_max: usize,
    /// Bytes of dead letters that are kept; beyond, the oldest go.
    pub dead_letter_bytes_max: usize,
    /// How long a server with a data directory may go on before what changed goes into a checkpoint.
    pub checkpoint_interval: Duration,
    /// Bytes of log from which it does so earlier.
    pub checkpoint_log_bytes: u64,
    /// Bytes of changes held in memory from which it does so earlier.
    pub checkpoint_held_bytes: usize,
    /// Bytes of operator state, about, that are copied for a checkpoint between two epochs.
    pub checkpoint_copy_bytes: usize,
    /// Bytes from which a segment of the log is followed by a new one.
    pub log_segment_bytes_max: u64,
    /// Bytes that the state of tables and views may take together; a quarter as much again may queries. None: no end.
    pub memory_limit: Option<usize>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            n_shards: thread::available_parallelism().map_or(1, |n| n.get()),
            n_shards_is_default: true,
            epoch_rows_max: 100_000,
            parallel_rows_min: 10_000,
            source_buffer_bytes_max: 64 << 20,
            subscription_buffer_bytes_max: 16 << 20,
            dead_letter_bytes_max: 256 << 20,
            checkpoint_interval: Duration::from_secs(1),
            checkpoint_log_bytes: 64 << 20,
            checkpoint_held_bytes: 256 << 20,
            checkpoint_copy_bytes: 8 << 20,
            log_segment_bytes_max: 64 << 20,
            memory_limit: None,
        }
    }
}

/// What a server is made of besides its settings.
pub struct Components {
    /// The connectors that `WITH (connector = '..')` may name.
    pub connectors: &'static [&'static dyn Connector],
    /// Makes the system tables of the Postgres protocol (pg_catalog, information_schema).
    pub system: Arc<dyn SystemSchemas>,
    /// Makes a running shard of an operator: [`Plan::build`], unless a test wants to see what a wrong one does.
    pub operators: Operators,
}

/// From an operator's parameters and the number of a shard to that shard, with empty state.
pub type Operators = fn(&Plan, usize) -> Result<Box<dyn Operator>>;

impl Components {
    /// With the operators as they are.
    pub fn new(connectors: &'static [&'static dyn Connector], system: Arc<dyn SystemSchemas>) -> Components {
        Components { connectors, system, operators: Plan::build }
    }
}

/// Tables that are made of the catalog and the session, by the crate that knows who asks for them.
pub trait SystemSchemas: Send + Sync {
    /// The table, or None where there is none of that name.
    fn table(&self, schema: &str, name: &str, cx: &SystemContext) -> Option<Arc<dyn TableProvider>>;
    /// All (schema, name) there are.
    fn names(&self) -> Vec<(String, String)>;
    /// Changes what only catalog queries use and DataFusion does not plan (`OPERATOR(pg_catalog.~)`, `'x'::regclass`,
    /// `COLLATE`, `pg_catalog.` before functions) into what it does. Called on every query before it is planned; leaves
    /// a query without such things as it is.
    fn rewrite(&self, query: &mut ast::Query, cx: &SystemContext);
    /// Scalar functions to register besides DataFusion's (`pg_get_userbyid`, ..).
    fn functions(&self, cx: &SystemContext) -> Vec<Arc<ScalarUDF>>;
}

/// What system tables are made of.
#[derive(Clone)]
pub struct SystemContext {
    /// All objects of this moment.
    pub catalog: Arc<Catalog>,
    /// The session's user.
    pub user: String,
    /// The session's database.
    pub database: String,
    /// The session's settings as `SHOW ALL` gives them: name, value, description.
    pub settings: Vec<(String, String, String)>,
}

/// A running server without a port.
pub struct Engine {
    shared: Arc<Shared>,
    connectors: &'static [&'static dyn Connector],
    system: Arc<dyn SystemSchemas>,
    datafusion: SessionContext,
    epoch_loop: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Starts an empty server in memory: all is gone when it ends. Errors: threads that cannot be started.
    pub fn start(settings: Settings, components: Components) -> Result<Arc<Engine>> {
        let shared = Shared::new(settings, components.operators, false);
        let core = Core::new(shared.clone())?;
        Engine::run_core(shared, core, components)
    }

    /// Starts the epoch loop.
    fn run_core(shared: Arc<Shared>, core: Core, components: Components) -> Result<Arc<Engine>> {
        let pool = |limit: usize| Arc::new(GreedyMemoryPool::new(limit / QUERY_PART)) as Arc<dyn MemoryPool>;
        let pool = shared.settings.memory_limit.map(pool);
        let datafusion = tidewire_planner::session_context(shared.settings.n_shards, pool)?;
        datafusion.register_udf(sleep::function());
        let epoch_loop = thread::Builder::new()
            .name("epoch-loop".to_string())
            .spawn(|| core.run())
            .map_err(|e| SqlError::new(SqlState::OutOfMemory, format!("cannot start the epoch loop: {e}")))?;
        Ok(Arc::new(Engine {
            shared,
            connectors: components.connectors,
            system: components.system,
            datafusion,
            epoch_loop: Mutex::new(Some(epoch_loop)),
        }))
    }

    /// A new session.
    pub fn session(self: &Arc<Self>, user: &str, database: &str) -> Session {
        Session::new(self.clone(), user, database)
    }

    /// Where everything stands. Waits for the epoch that runs to end.
    pub fn status(&self) -> Status {
        self.shared.call_blocking(|core| core.status()).unwrap_or_default()
    }

    /// Writes a checkpoint of everything that is there now; returns when it is on disk. Nothing to do in memory.
    pub async fn checkpoint(&self) -> Result<()> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.shared.call(move |core| core.ask_for_checkpoint(sender)).await?;
        receiver.await.map_err(|_| shared::stopped())?
    }

    /// Waits until the server has ended by itself, because it cannot go on: why.
    pub async fn failed(&self) -> SqlError {
        self.shared.failed().await
    }

    /// Ends sources, views and subscriptions; returns when the loop has ended.
    pub async fn shutdown(&self) {
        self.shared.stop();
        let epoch_loop = self.epoch_loop.lock().take();
        if let Some(epoch_loop) = epoch_loop {
            let joined = tokio::task::spawn_blocking(|| epoch_loop.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the epoch loop did not end well");
            }
        }
    }

    /// A DataFusion session that has the functions of the client's session.
    fn session_for(&self, cx: &SystemContext) -> SessionContext {
        let functions = self.system.functions(cx);
        if functions.is_empty() {
            return self.datafusion.clone();
        }
        let session = SessionContext::new_with_state(self.datafusion.state());
        functions.into_iter().for_each(|f| session.register_udf(f.as_ref().clone()));
        session
    }

    /// Runs a planned query.
    async fn run(
        &self,
        planned: &Planned,
        parameters: Vec<ScalarValue>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let rows = tidewire_planner::execute(planned, parameters, &self.datafusion).await?;
        Ok(rows.map(|batch| batch.map_err(sql_error)).boxed())
    }

    /// The batch plan of a query as text; with `analyze` it is run first.
    async fn explain(&self, planned: &Planned, parameters: Vec<ScalarValue>, analyze: bool) -> Result<String> {
        let plan = tidewire_planner::physical_plan(planned, parameters, &self.datafusion).await?;
        if analyze {
            let mut rows = execute_stream(plan.clone(), self.datafusion.task_ctx()).map_err(sql_error)?;
            while let Some(batch) = rows.next().await {
                batch.map_err(sql_error)?;
            }
            return Ok(DisplayableExecutionPlan::with_metrics(plan.as_ref()).indent(false).to_string());
        }
        Ok(displayable(plan.as_ref()).indent(false).to_string())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.stop();
    }
}
