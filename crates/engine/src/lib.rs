//! Reads sources, cuts epochs, runs dataflows, publishes snapshots, feeds subscriptions.
//!
//! [`Engine`] owns the epoch loop; a [`Session`] is one client's view of it: it runs statements. The Postgres
//! protocol, the test runner and the benchmarks all stand on `Session`.

mod status;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use futures::stream::BoxStream;
use tidewire_connect::Connector;
use tidewire_sql::Parsed;
use tidewire_types::{Result, SqlError, SqlType};

pub use crate::status::{OperatorStatus, SourceState, SourceStatus, SplitStatus, Status, ViewState, ViewStatus};

/// Settings of a server, all with sensible defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Shards (and threads for large epochs); default: the number of cores.
    pub n_shards: usize,
    /// Rows that one epoch takes at most.
    pub epoch_rows_max: usize,
    /// Rows from which an epoch is run on all shard threads instead of inline.
    pub parallel_rows_min: usize,
    /// Bytes of decoded records that may wait for the epoch loop, a source.
    pub source_buffer_bytes_max: usize,
    /// Bytes of changes that may wait for a slow subscriber before it is cut off.
    pub subscription_buffer_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            n_shards: std::thread::available_parallelism().map_or(1, |n| n.get()),
            epoch_rows_max: 100_000,
            parallel_rows_min: 10_000,
            source_buffer_bytes_max: 64 << 20,
            subscription_buffer_bytes_max: 16 << 20,
        }
    }
}

/// What a server is made of besides its settings.
pub struct Components {
    /// The connectors that `WITH (connector = '..')` may name.
    pub connectors: &'static [&'static dyn Connector],
    /// Makes the system tables of the Postgres protocol (pg_catalog, information_schema).
    pub system: Arc<dyn SystemSchemas>,
}

/// Tables that are made of the catalog and the session, by the crate that knows who asks for them.
pub trait SystemSchemas: Send + Sync {
    /// The table, or None where there is none of that name.
    fn table(
        &self,
        schema: &str,
        name: &str,
        cx: &SystemContext,
    ) -> Option<Arc<dyn datafusion::catalog::TableProvider>>;
    /// All (schema, name) there are.
    fn names(&self) -> Vec<(String, String)>;
    /// Changes what only catalog queries use and DataFusion does not plan (`OPERATOR(pg_catalog.~)`, `'x'::regclass`,
    /// `COLLATE`, `pg_catalog.` before functions) into what it does. Called on every query before it is planned; leaves
    /// a query without such things as it is.
    fn rewrite(&self, query: &mut tidewire_sql::ast::Query, cx: &SystemContext);
    /// Scalar functions to register besides DataFusion's (`pg_get_userbyid`, ..).
    fn functions(&self, cx: &SystemContext) -> Vec<Arc<datafusion::logical_expr::ScalarUDF>>;
}

/// What system tables are made of.
#[derive(Clone)]
pub struct SystemContext {
    /// All objects of this moment.
    pub catalog: Arc<tidewire_catalog::Catalog>,
    /// The session's user.
    pub user: String,
    /// The session's database.
    pub database: String,
    /// The session's settings as `SHOW ALL` gives them: name, value, description.
    pub settings: Vec<(String, String, String)>,
}

/// A running server without a port.
pub struct Engine;

impl Engine {
    /// Starts the epoch loop.
    pub fn start(_settings: Settings, _components: Components) -> Result<Arc<Engine>> {
        Err(SqlError::internal("to be written"))
    }

    /// A new session.
    pub fn session(self: &Arc<Self>, user: &str, database: &str) -> Session {
        let _ = (user, database);
        Session
    }

    /// Where everything stands.
    pub fn status(&self) -> Status {
        Status::default()
    }

    /// Ends all sessions' pushes, sources and the loop; returns when they have ended.
    pub async fn shutdown(&self) {}
}

/// One client: its settings, its transaction, its prepared statements by name and cursors.
///
/// Methods take `&mut self`: a session runs one statement at a time. Dropping a stream or the future of a call cancels
/// what it does.
pub struct Session;

/// A statement that is ready to run: parsed, planned, its parameter and result types known.
pub struct Prepared {
    /// What was parsed.
    pub parsed: Parsed,
    /// The types of `$1 ..`.
    pub parameters: Vec<SqlType>,
    /// The columns of its result, where it has rows.
    pub schema: Option<SchemaRef>,
}

impl Session {
    /// Plans a statement. `parameters` are the types that the client declared.
    pub async fn prepare(&mut self, parsed: Parsed, parameters: &[Option<SqlType>]) -> Result<Prepared> {
        let _ = (parsed, parameters);
        Err(SqlError::internal("to be written"))
    }

    /// Runs a statement with the values of its parameters, which have the types that [`Prepared::parameters`] says.
    pub async fn execute(&mut self, prepared: &Prepared, parameters: Vec<ScalarValue>) -> Result<Outcome> {
        let _ = (prepared, parameters);
        Err(SqlError::internal("to be written"))
    }

    /// A setting, as SHOW gives it.
    pub fn setting(&self, _name: &str) -> Option<String> {
        None
    }

    /// Sets a setting, as SET does (startup parameters of a client).
    pub fn set(&mut self, _name: &str, _value: &str) -> Result<()> {
        Ok(())
    }

    /// Settings that changed since the last call and that clients are told of (`TimeZone`, `application_name`, ..).
    pub fn take_reported(&mut self) -> Vec<(String, String)> {
        vec![]
    }

    /// Whether a transaction is open, or has failed.
    pub fn transaction(&self) -> Transaction {
        Transaction::Idle
    }

    /// Marks an open transaction failed (the server calls it after any error).
    pub fn fail_transaction(&mut self) {}
}

/// The state that ReadyForQuery reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// None is open.
    Idle,
    /// One is open.
    Open,
    /// One is open and every statement but ROLLBACK fails.
    Failed,
}

/// What a statement gave.
pub enum Outcome {
    /// Rows that end. The tag is `SELECT n`, `INSERT 0 n`, `FETCH n`: the words before the count.
    Rows {
        /// The columns.
        schema: SchemaRef,
        /// The rows.
        rows: BoxStream<'static, Result<RecordBatch>>,
        /// `SELECT`, `INSERT 0`, `UPDATE`, ..
        tag: &'static str,
    },
    /// Rows that go on until the client cancels: each batch is sent at once.
    Push {
        /// The columns.
        schema: SchemaRef,
        /// The rows.
        rows: BoxStream<'static, Result<RecordBatch>>,
        /// `SUBSCRIBE`
        tag: &'static str,
    },
    /// No rows: the whole tag (`CREATE TABLE`, `INSERT 0 3`) and notices (severity, message).
    Command {
        /// The command tag.
        tag: String,
        /// Notices for the client.
        notices: Vec<Notice>,
    },
    /// COPY .. TO STDOUT: rows to be sent in the copy format; COPY .. FROM STDIN: see the server.
    Empty,
}

/// A NOTICE or WARNING.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// `NOTICE`, `WARNING`, `INFO`
    pub severity: &'static str,
    /// The SQLSTATE (`00000`, `25P01`, ..).
    pub code: &'static str,
    /// The message.
    pub message: String,
}
