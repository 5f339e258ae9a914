//! One client: runs statements, one at a time.

mod backup;
mod checks;
mod copy;
mod copy_from;
mod cursor;
pub mod ddl;
mod dml;
mod estimate;
mod free_rows;
mod index;
mod plans;
mod query;
pub mod refresh;
pub mod settings;
mod show;
mod skip_lost;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use futures::StreamExt;
use futures::stream::BoxStream;
use tidewire_sql::{CopyOptions, Parsed, Statement};
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use crate::Engine;
use crate::shared::{Shared, Snapshot};
use crate::table::Operation;
pub use copy_from::CopyIn;
use cursor::Cursor;
use settings::SessionSettings;

/// One client: its settings, its transaction, its prepared statements by name and cursors.
///
/// Methods take `&mut self`: a session runs one statement at a time. Dropping a stream or the future of a call cancels
/// what it does.
pub struct Session {
    engine: Arc<Engine>,
    user: String,
    database: String,
    settings: SessionSettings,
    transaction: Transaction,
    // What an open transaction has written: applied when it commits.
    written: Vec<Operation>,
    prepared: HashMap<String, Prepared>,
    cursors: HashMap<String, Cursor>,
    // The plan that `prepare` made, for an `execute` that follows at the same moment.
    ready: Option<query::Ready>,
    plans: plans::Plans<query::KeptQuery>,
    dml_plans: plans::Plans<dml::KeptDml>,
    ready_dml: Option<dml::ReadyDml>,
    environment: Option<Arc<query::Environment>>,
}

/// A statement that is ready to run: parsed, planned, its parameter and result types known.
#[derive(Clone)]
pub struct Prepared {
    /// What was parsed.
    pub parsed: Parsed,
    /// The types of `$1 ..`.
    pub parameters: Vec<SqlType>,
    /// The columns of its result, where it has rows.
    pub schema: Option<SchemaRef>,
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
    /// Rows that end.
    Rows {
        /// The columns.
        schema: SchemaRef,
        /// The rows.
        rows: BoxStream<'static, Result<RecordBatch>>,
        /// The words of the command tag before the count: `SELECT`, `INSERT 0`, `FETCH`.
        tag: &'static str,
    },
    /// Rows that go on until the client cancels: each batch is sent at once.
    Push {
        /// The columns.
        schema: SchemaRef,
        /// The rows.
        rows: BoxStream<'static, Result<RecordBatch>>,
        /// The words of the command tag before the count: `SUBSCRIBE`.
        tag: &'static str,
    },
    /// Rows that are written as lines; the command tag is `COPY` and their count.
    CopyOut {
        /// The columns.
        schema: SchemaRef,
        /// The rows.
        rows: BoxStream<'static, Result<RecordBatch>>,
        /// They go on until the client cancels: each batch is sent at once.
        is_push: bool,
        /// How the lines look.
        options: CopyOptions,
    },
    /// Lines are to come: [`CopyIn::push`] takes them, [`Session::finish_copy`] writes their rows.
    CopyIn(Box<CopyIn>),
    /// No rows.
    Command {
        /// The whole command tag (`CREATE TABLE`, `INSERT 0 3`).
        tag: String,
        /// Notices for the client.
        notices: Vec<Notice>,
    },
    /// An empty statement.
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

impl Outcome {
    /// A command tag alone.
    pub(crate) fn command(tag: impl Into<String>) -> Outcome {
        Outcome::Command { tag: tag.into(), notices: vec![] }
    }

    /// A command tag and one warning.
    fn warning(tag: &str, code: &'static str, message: &str) -> Outcome {
        let notice = Notice { severity: "WARNING", code, message: message.to_string() };
        Outcome::Command { tag: tag.to_string(), notices: vec![notice] }
    }

    /// Rows that are there already.
    pub(crate) fn rows(rows: RecordBatch, tag: &'static str) -> Outcome {
        Outcome::Rows { schema: rows.schema(), rows: futures::stream::iter([Ok(rows)]).boxed(), tag }
    }
}

impl Session {
    pub(crate) fn new(engine: Arc<Engine>, user: &str, database: &str) -> Session {
        let mut settings = SessionSettings::default();
        // The setting exists, and a name is a valid value.
        let _ = settings.set("session_authorization", Some(user), false);
        settings.take_reported();
        Session {
            engine,
            user: user.to_string(),
            database: database.to_string(),
            settings,
            transaction: Transaction::Idle,
            written: vec![],
            prepared: HashMap::new(),
            cursors: HashMap::new(),
            ready: None,
            plans: plans::Plans::default(),
            dml_plans: plans::Plans::default(),
            ready_dml: None,
            environment: None,
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.engine.shared
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.shared().snapshot()
    }

    /// Plans a statement. `parameters` are the types that the client declared.
    pub async fn prepare(&mut self, parsed: Parsed, parameters: &[Option<SqlType>]) -> Result<Prepared> {
        self.check_transaction(&parsed.statement)?;
        let (parameters, schema) = match &parsed.statement {
            Statement::Query(query) => {
                let ready = self.plan_query(query, &parsed.text, parameters).await?;
                let described = (ready.planned.parameters.clone(), Some(ready.planned.schema.clone()));
                self.ready = Some(ready);
                described
            }
            Statement::Subscribe(subscribe) => {
                let planned = self.plan_query(&subscribe.query, &parsed.text, &[]).await?.planned;
                (vec![], Some(query::push_schema(&planned.schema)))
            }
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                self.describe_dml(&parsed, parameters).await?
            }
            Statement::Fetch { name, .. } => (vec![], Some(self.cursor(name)?.schema.clone())),
            Statement::Execute { name, .. } => (vec![], self.prepared_statement(name)?.schema.clone()),
            Statement::Backup { .. } => (vec![], Some(Session::backup_schema()?)),
            Statement::Show(_) | Statement::ShowSetting(_) => (vec![], Some(self.show_rows(&parsed).await?.schema())),
            Statement::Explain(explain) => {
                let parameters = self.explain_parameters(explain, parameters).await?;
                (parameters, Some(Session::explain_rows("")?.schema()))
            }
            _ => (vec![], None),
        };
        Ok(Prepared { parsed, parameters, schema })
    }

    /// Runs a statement with the values of its parameters, which have the types that [`Prepared::parameters`] says.
    pub async fn execute(&mut self, prepared: &Prepared, parameters: Vec<ScalarValue>) -> Result<Outcome> {
        let parsed = &prepared.parsed;
        self.check_transaction(&parsed.statement)?;
        if parameters.len() != prepared.parameters.len() {
            let message = format!(
                "bind message supplies {} parameters, but prepared statement requires {}",
                parameters.len(),
                prepared.parameters.len()
            );
            return Err(SqlError::new(SqlState::ProtocolViolation, message));
        }
        match &parsed.statement {
            Statement::Query(query) => self.run_query(query, prepared, parameters).await,
            Statement::Subscribe(subscribe) => self.subscribe(subscribe, &parsed.text).await,
            Statement::CreateSource(create) => self.create_source(create, &parsed.text).await,
            Statement::CreateTable(create) => self.create_table(create, parsed).await,
            Statement::CreateView(create) => self.create_view(create, &parsed.text).await,
            Statement::CreateIndex(create) => self.create_index(create, &parsed.text).await,
            Statement::Drop(drop) => self.drop_objects(drop).await,
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                self.run_dml(prepared, parameters).await
            }
            Statement::Truncate(names) => self.truncate(names).await,
            Statement::Explain(explain) => {
                let plan = self.explain(explain, &prepared.parameters, parameters).await?;
                Ok(Outcome::rows(Session::explain_rows(&plan)?, "EXPLAIN"))
            }
            Statement::Show(_) | Statement::ShowSetting(_) => Ok(Outcome::rows(self.show_rows(parsed).await?, "SHOW")),
            Statement::Set { name, value, local } => {
                self.settings.set(name, value.as_deref(), *local)?;
                Ok(Outcome::command(if value.is_some() { "SET" } else { "RESET" }))
            }
            Statement::ResetAll => {
                self.settings.reset_all();
                Ok(Outcome::command("RESET"))
            }
            Statement::Begin { .. } => Ok(self.begin()),
            Statement::Commit => self.commit().await,
            Statement::Rollback => Ok(self.rollback()),
            Statement::Savepoint(what) => Err(SqlError::unsupported(what)),
            Statement::Discard => {
                self.settings.reset_all();
                self.prepared.clear();
                self.cursors.clear();
                Ok(Outcome::command("DISCARD ALL"))
            }
            Statement::Deallocate(name) => self.deallocate(name.as_deref()),
            Statement::Prepare { name, types, statement } => self.prepare_named(name, types, statement).await,
            Statement::Execute { name, args } => self.execute_named(name, args, &parsed.text).await,
            Statement::Declare { name, hold, statement } => self.declare(name, *hold, statement).await,
            Statement::Fetch { name, count, timeout_ms } => self.fetch(name, *count, *timeout_ms).await,
            Statement::Close(name) => self.close(name.as_deref()),
            Statement::Flush => Ok(Outcome::command("FLUSH")),
            Statement::Copy(copy) => self.copy(copy, parsed).await,
            Statement::Refresh(name) => self.refresh(name).await,
            Statement::SkipLostRecords(name) => self.skip_lost_records(name).await,
            Statement::CopyFrom(copy) => self.copy_from(copy, &parsed.text).await,
            Statement::Backup { to } => Ok(Outcome::rows(self.backup(to).await?, "BACKUP")),
            Statement::Unsupported(what) => Err(SqlError::unsupported(what)),
            Statement::Empty => Ok(Outcome::Empty),
        }
    }

    /// In a failed transaction only its end is allowed: `25P02`.
    fn check_transaction(&self, statement: &Statement) -> Result<()> {
        match (self.transaction, statement) {
            (Transaction::Failed, Statement::Commit | Statement::Rollback) => Ok(()),
            (Transaction::Failed, _) => Err(SqlError::new(
                SqlState::InFailedSqlTransaction,
                "current transaction is aborted, commands ignored until end of transaction block",
            )),
            (
                Transaction::Open,
                Statement::CreateSource(_)
                | Statement::CreateTable(_)
                | Statement::CreateView(_)
                | Statement::CreateIndex(_)
                | Statement::Refresh(_)
                | Statement::SkipLostRecords(_)
                | Statement::Drop(_),
            ) if !self.written.is_empty() => Err(SqlError::unsupported("DDL behind a write in one transaction")
                .with_hint("Commit first: DDL takes effect at once.")),
            _ => Ok(()),
        }
    }

    fn begin(&mut self) -> Outcome {
        if self.transaction == Transaction::Open {
            return Outcome::warning("BEGIN", "25001", "there is already a transaction in progress");
        }
        self.transaction = Transaction::Open;
        Outcome::command("BEGIN")
    }

    async fn commit(&mut self) -> Result<Outcome> {
        let (transaction, written) = (self.transaction, std::mem::take(&mut self.written));
        self.end_transaction();
        match transaction {
            Transaction::Idle => Ok(Outcome::warning("COMMIT", "25P01", "there is no transaction in progress")),
            Transaction::Failed => Ok(Outcome::command("ROLLBACK")),
            Transaction::Open => {
                if !written.is_empty() {
                    self.write(written).await?;
                }
                Ok(Outcome::command("COMMIT"))
            }
        }
    }

    fn rollback(&mut self) -> Outcome {
        let transaction = self.transaction;
        self.end_transaction();
        match transaction {
            Transaction::Idle => Outcome::warning("ROLLBACK", "25P01", "there is no transaction in progress"),
            Transaction::Open | Transaction::Failed => Outcome::command("ROLLBACK"),
        }
    }

    fn end_transaction(&mut self) {
        self.transaction = Transaction::Idle;
        self.written.clear();
        self.cursors.retain(|_, cursor| cursor.hold);
        self.settings.end_transaction();
    }

    fn deallocate(&mut self, name: Option<&str>) -> Result<Outcome> {
        match name {
            None => {
                self.prepared.clear();
                Ok(Outcome::command("DEALLOCATE ALL"))
            }
            Some(name) => {
                self.prepared_statement(name)?;
                self.prepared.remove(name);
                Ok(Outcome::command("DEALLOCATE"))
            }
        }
    }

    fn prepared_statement(&self, name: &str) -> Result<&Prepared> {
        self.prepared.get(name).ok_or_else(|| {
            let message = format!("prepared statement \"{name}\" does not exist");
            SqlError::new(SqlState::InvalidSqlStatementName, message)
        })
    }

    async fn prepare_named(&mut self, name: &str, types: &[SqlType], statement: &Parsed) -> Result<Outcome> {
        if self.prepared.contains_key(name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(SqlError::new(SqlState::DuplicatePreparedStatement, message));
        }
        let types: Vec<_> = types.iter().cloned().map(Some).collect();
        let prepared = Box::pin(self.prepare(statement.clone(), &types)).await?;
        self.prepared.insert(name.to_string(), prepared);
        Ok(Outcome::command("PREPARE"))
    }

    async fn execute_named(&mut self, name: &str, args: &[tidewire_sql::ast::Expr], text: &str) -> Result<Outcome> {
        let (prepared, values) = self.execution(name, args, text).await?;
        Box::pin(self.execute(&prepared, values)).await
    }

    /// What `EXECUTE name (args)` runs: the statement and the values of its parameters.
    async fn execution(
        &mut self,
        name: &str,
        args: &[tidewire_sql::ast::Expr],
        text: &str,
    ) -> Result<(Prepared, Vec<ScalarValue>)> {
        let prepared = self.prepared_statement(name)?.clone();
        let mut values = vec![];
        for (arg, sql_type) in args.iter().zip(&prepared.parameters) {
            values.push(self.constant(arg, text, sql_type).await?);
        }
        if args.len() != prepared.parameters.len() {
            let message = format!("wrong number of parameters for prepared statement \"{name}\"");
            return Err(SqlError::new(SqlState::SyntaxError, message).with_detail(format!(
                "Expected {} parameters but got {}.",
                prepared.parameters.len(),
                args.len()
            )));
        }
        Ok((prepared, values))
    }

    /// A setting, as SHOW gives it.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.settings.get(name)
    }

    /// Sets a setting, as SET does (startup parameters of a client).
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        self.settings.set(name, Some(value), false)
    }

    /// Settings that changed since the last call and that clients are told of (`TimeZone`, `application_name`, ..).
    pub fn take_reported(&mut self) -> Vec<(String, String)> {
        self.settings.take_reported()
    }

    /// Whether a transaction is open, or has failed.
    pub fn transaction(&self) -> Transaction {
        self.transaction
    }

    /// Marks an open transaction failed (the server calls it after any error).
    pub fn fail_transaction(&mut self) {
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::Failed;
            self.written.clear();
        }
    }
}
