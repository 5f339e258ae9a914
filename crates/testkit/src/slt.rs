//! Runs the files of `sql-tests/`, each in several modes, each time on a server of its own.
//!
//! The format is sqllogictest's. Besides SQL a statement may be one of ours:
//! - `PRODUCE topic [SPLIT n] [KEY 'k'] [AT '2026-01-01 00:00:00']`, then a record on each further line, appends to a
//!   topic of `connector = 'memory'` and waits until the views have it (a line `NULL` is a record without value);
//! - `COPY t FROM STDIN ..;`, then a line of data on each further line;
//! - `ORACLE OFF view` and `ORACLE ON view`: whether the view is compared with its query.
//!
//! A file leaves its tables and views behind, so that everything can be deleted at its end.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use tidewire_engine::{Operators, Settings, ViewOrigin, ViewState, ViewStatus};
use tidewire_operators::Plan;
use tidewire_sql::Statement;
use tidewire_types::ObjectId;
use tokio::sync::{Mutex, RwLock};

use crate::database::{Answer, Database, Failure};
use crate::memory::Stored;
use crate::oracle::{Change, Oracle};
use crate::server::{End, Server};

/// How long a statement may take.
const STATEMENT_MAX: Duration = Duration::from_secs(20);

/// How a file is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With the settings of a user.
    AsWritten,
    /// Three shards that always run on threads of their own, and epochs of a few rows.
    SmallEpochs,
    /// One shard; at the end everything is deleted.
    Deleted,
    /// Over the Postgres protocol.
    Wire,
    /// On disk: the server is killed and started again somewhere in the file, some way behind a checkpoint, and stopped and
    /// started once more at its end. Views that the checkpoint has must be restored, not built again.
    Restarted,
}

impl Mode {
    /// All modes.
    pub const ALL: [Mode; 5] = [Mode::AsWritten, Mode::SmallEpochs, Mode::Deleted, Mode::Wire, Mode::Restarted];

    fn settings(self) -> Settings {
        let settings = Settings::default();
        match self {
            Mode::AsWritten | Mode::Wire => settings,
            // Only when it is asked for.
            Mode::Restarted => {
                Settings { checkpoint_interval: Duration::from_secs(3600), checkpoint_copy_bytes: 1, ..settings }
            }
            Mode::SmallEpochs => Settings { n_shards: 3, epoch_rows_max: 2, parallel_rows_min: 1, ..settings },
            Mode::Deleted => Settings { n_shards: 1, ..settings },
        }
    }
}

/// Runs a file. Returns how many comparisons the oracle made.
///
/// Errors: all that went wrong, with file and line. A statement that fails does not keep the next from being run.
pub async fn run_file(path: &Path, mode: Mode) -> Result<usize, Vec<String>> {
    let script = std::fs::read_to_string(path).map_err(|e| vec![format!("cannot read {}: {e}", path.display())])?;
    run_script(&script, &path.display().to_string(), mode, Wrong::default()).await
}

/// What is wrong about a server on purpose: so a test shows that the oracle finds it.
#[derive(Clone, Copy)]
pub struct Wrong {
    /// Rewrites statements on their way to the server; the oracle sees them unchanged.
    pub statement: fn(&str) -> String,
    /// Makes the operators.
    pub operators: Operators,
}

impl Default for Wrong {
    fn default() -> Wrong {
        Wrong { statement: str::to_string, operators: Plan::build }
    }
}

/// Runs a script on a server of its own.
pub async fn run_script(script: &str, name: &str, mode: Mode, wrong: Wrong) -> Result<usize, Vec<String>> {
    let mut server = match mode {
        Mode::Restarted => Server::start_on_disk(mode.settings()).await,
        _ => Server::start_with(mode.settings(), wrong.operators),
    }
    .map_err(|e| vec![e.to_string()])?;
    if mode == Mode::Wire {
        server.listen().await.map_err(|e| vec![e.to_string()])?;
    }
    let server = RwLock::new(server);
    let change = wrong.statement;
    let (n_restarts, oracle, saved) = (AtomicUsize::new(0), Mutex::default(), Mutex::default());
    let shared = Arc::new(Shared { server, n_restarts, oracle, saved, change });
    let mut runner = Runner::new(|| Connection::open(shared.clone()));
    runner.add_label(if mode == Mode::Wire { "wire" } else { "in-process" });
    let records = sqllogictest::parse_with_name(script, name).map_err(|e| vec![e.to_string()])?;
    let mut failures = vec![];
    let restart_at = if mode == Mode::Restarted { restart_at(script, records.len()) } else { None };
    for (idx, record) in records.into_iter().enumerate() {
        if restart_at.is_some_and(|at| at * 2 / 3 == idx)
            && let Err(failure) = shared.checkpoint().await
        {
            failures.push(format!("checkpoint: {failure}\nat {name}, record {idx}"));
        }
        if restart_at == Some(idx)
            && let Err(failure) = shared.restart(End::Killed).await
        {
            failures.push(format!("killed and started again: {failure}\nat {name}, record {idx}"));
        }
        if let Err(failure) = runner.run_async(record).await {
            failures.push(failure.to_string());
        }
    }
    if mode == Mode::Restarted
        && let Err(failure) = shared.restart(End::Graceful).await
    {
        failures.push(format!("stopped and started again: {failure}\nat {name}"));
    }
    runner.shutdown_async().await;
    drop(runner);
    if mode == Mode::Deleted
        && failures.is_empty()
        && let Err(failure) = shared.delete_everything().await
    {
        failures.push(format!("after everything was deleted: {failure}\nat {name}"));
    }
    let n_checks = shared.oracle.lock().await.n_checks;
    if let Some(shared) = Arc::into_inner(shared) {
        shared.server.into_inner().shutdown().await;
    }
    if failures.is_empty() { Ok(n_checks) } else { Err(failures) }
}

/// Before which record of a file the server is killed; nowhere in a file whose sessions have state of their own, or
/// that looks at what was counted since the start.
fn restart_at(script: &str, n_records: usize) -> Option<usize> {
    const NEEDS_SESSION: &[&str] = &["SET ", "PREPARE ", "DECLARE ", "BEGIN", "TIDEWIRE.", "SHOW ", "EXPLAIN ANALYZE"];
    let script = script.to_ascii_uppercase();
    if n_records == 0 || NEEDS_SESSION.iter().any(|words| script.contains(words)) {
        return None;
    }
    Some(script.bytes().fold(7_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())) % n_records)
}

struct Shared {
    server: RwLock<Server>,
    n_restarts: AtomicUsize,
    oracle: Mutex<Oracle>,
    // The views that the last checkpoint has.
    saved: Mutex<BTreeSet<ObjectId>>,
    change: fn(&str) -> String,
}

impl Shared {
    async fn client(&self) -> Result<Box<dyn Database>, Failure> {
        self.server.read().await.client().await
    }

    async fn delete_everything(&self) -> Result<(), Failure> {
        let mut db = self.client().await?;
        self.oracle.lock().await.empty_tables(db.as_mut()).await
    }

    async fn checkpoint(&self) -> Result<(), Failure> {
        let server = self.server.read().await;
        server.caught_up().await?;
        server.engine.checkpoint().await?;
        *self.saved.lock().await = running_views(&server).map(|view| view.id).collect();
        Ok(())
    }

    /// Ends the server and starts it again: every table must be what it was, and every view its query.
    async fn restart(&self, end: End) -> Result<(), Failure> {
        let mut oracle = self.oracle.lock().await;
        let mut server = self.server.write().await;
        server.caught_up().await?;
        let before = oracle.tables(server.client().await?.as_mut()).await?;
        let mut saved = self.saved.lock().await;
        if end == End::Graceful {
            *saved = running_views(&server).map(|view| view.id).collect();
        }
        server.restart(end).await?;
        for view in running_views(&server) {
            let expected = if saved.contains(&view.id) { ViewOrigin::Restored } else { ViewOrigin::Rebuilt };
            if view.origin != expected {
                let (name, origin) = (view.name, view.origin);
                return Err(Failure::of_test(format!("view {name} was {origin:?}, not {expected:?}")));
            }
        }
        self.n_restarts.fetch_add(1, Ordering::Relaxed);
        server.caught_up().await?;
        let mut db = server.client().await?;
        let after = oracle.tables(db.as_mut()).await?;
        for (name, rows) in &before {
            let found = after.get(name).map_or(0, Vec::len);
            if after.get(name) != Some(rows) {
                let n_before = rows.len();
                return Err(Failure::of_test(format!("{name} had {n_before} rows and has {found} others")));
            }
        }
        oracle.check(db.as_mut(), &Change::Rows).await
    }
}

fn running_views(server: &Server) -> impl Iterator<Item = ViewStatus> + use<> {
    let views = server.engine.status().views;
    views.into_iter().filter(|view| matches!(view.state, ViewState::Running | ViewState::Undefined))
}

/// One `connection` of a file.
struct Connection {
    shared: Arc<Shared>,
    db: Box<dyn Database>,
    // How often the server had been started again when `db` was made.
    n_restarts: usize,
    in_transaction: bool,
}

impl Connection {
    async fn open(shared: Arc<Shared>) -> Result<Connection, Failure> {
        let db = shared.client().await?;
        let n_restarts = shared.n_restarts.load(Ordering::Relaxed);
        Ok(Connection { shared, db, n_restarts, in_transaction: false })
    }

    /// After a restart the client is a new one.
    async fn connect_again(&mut self) -> Result<(), Failure> {
        let n_restarts = self.shared.n_restarts.load(Ordering::Relaxed);
        if self.n_restarts != n_restarts {
            self.db = self.shared.client().await?;
            self.n_restarts = n_restarts;
        }
        Ok(())
    }

    async fn run_sql(&mut self, sql: &str) -> Result<Answer, Failure> {
        let sql_sent = (self.shared.change)(sql);
        let run = async {
            match copied(&sql_sent) {
                Some((sql, lines)) => self.db.copy_in(sql, lines).await,
                None => self.db.run(&sql_sent).await,
            }
        };
        let answer = match tokio::time::timeout(STATEMENT_MAX, run).await {
            Ok(answer) => answer?,
            Err(_) => {
                self.db = self.shared.client().await?;
                return Err(Failure::of_test("the statement did not end (a push needs EMIT CHANGES LIMIT n)"));
            }
        };
        let mut oracle = self.shared.oracle.lock().await;
        let mut change = Change::Nothing;
        for parsed in tidewire_sql::parse(copied(sql).map_or(sql, |(sql, _)| sql))? {
            change = change.max(oracle.observe(&parsed));
            match parsed.statement {
                Statement::Begin { .. } => self.in_transaction = true,
                Statement::Commit | Statement::Rollback => self.in_transaction = false,
                _ => {}
            }
        }
        if change != Change::Nothing && !self.in_transaction {
            self.shared.server.read().await.caught_up().await?;
            oracle.check(self.db.as_mut(), &change).await?;
        }
        Ok(answer)
    }

    async fn produce(&mut self, command: &str) -> Result<Answer, Failure> {
        let (first, rest) = command.split_once('\n').unwrap_or((command, ""));
        let target = Target::read(first)?;
        let records: Vec<Stored> = rest.lines().map(|line| target.record(line)).collect();
        let count = records.len() as u64;
        self.shared.server.read().await.memory.append(&target.topic, target.split, records);
        self.shared.server.read().await.caught_up().await?;
        self.shared.oracle.lock().await.check(self.db.as_mut(), &Change::Rows).await?;
        Ok(Answer { count, ..Answer::default() })
    }
}

/// The first line of PRODUCE.
#[derive(Debug, Default, PartialEq, Eq)]
struct Target {
    topic: String,
    split: u32,
    key: Option<Bytes>,
    timestamp_us: Option<i64>,
}

impl Target {
    fn read(line: &str) -> Result<Target, Failure> {
        let bad = |why: &str| Failure::of_test(format!("{why} in \"{line}\""));
        let (words, quoted) = words(line);
        let mut words = words.into_iter().skip(1);
        let mut quoted = quoted.into_iter();
        let mut target = Target { topic: words.next().ok_or_else(|| bad("no topic"))?, ..Target::default() };
        while let Some(word) = words.next() {
            match word.to_ascii_uppercase().as_str() {
                "SPLIT" => {
                    let n = words.next().and_then(|n| n.parse().ok());
                    target.split = n.ok_or_else(|| bad("no number after SPLIT"))?;
                }
                "KEY" => target.key = Some(quoted.next().ok_or_else(|| bad("no string after KEY"))?.into()),
                "AT" => {
                    let text = quoted.next().ok_or_else(|| bad("no string after AT"))?;
                    let at = chrono::NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S%.f");
                    let at = at.map_err(|_| bad("no timestamp after AT"))?;
                    target.timestamp_us = Some(at.and_utc().timestamp_micros());
                }
                _ => return Err(bad("a word that is not known")),
            }
        }
        Ok(target)
    }

    fn record(&self, line: &str) -> Stored {
        let value = if line == "NULL" { None } else { Some(Bytes::copy_from_slice(line.as_bytes())) };
        Stored { key: self.key.clone(), value, timestamp_us: self.timestamp_us, headers: vec![] }
    }
}

/// `COPY .. FROM STDIN ..`, and its lines.
fn copied(sql: &str) -> Option<(&str, &str)> {
    let upper = sql.to_ascii_uppercase();
    let is_copy = upper.starts_with("COPY") && upper.contains("FROM STDIN");
    sql.split_once(";\n").filter(|_| is_copy)
}

/// The words outside quotes, and what stands in quotes.
fn words(line: &str) -> (Vec<String>, Vec<String>) {
    let parts = line.split('\'').enumerate();
    let (inside, outside): (Vec<_>, Vec<_>) = parts.partition(|(idx, _)| idx % 2 == 1);
    let words = outside.into_iter().flat_map(|(_, part)| part.split_whitespace().map(str::to_string));
    (words.collect(), inside.into_iter().map(|(_, part)| part.to_string()).collect())
}

#[async_trait]
impl AsyncDB for Connection {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        self.connect_again().await?;
        let answer = match sql.split_whitespace().next().map(str::to_ascii_uppercase).as_deref() {
            Some("PRODUCE") => self.produce(sql).await?,
            Some("ORACLE") => {
                let words: Vec<&str> = sql.split_whitespace().collect();
                let [_, switch, view] = words.as_slice() else { return Err(Failure::of_test("ORACLE ON|OFF view")) };
                self.shared.oracle.lock().await.switch(view, switch.eq_ignore_ascii_case("on"));
                Answer::default()
            }
            _ => self.run_sql(sql).await?,
        };
        if answer.columns.is_empty() {
            return Ok(DBOutput::StatementComplete(answer.count));
        }
        let cell = |cell: Option<String>| match cell {
            None => "NULL".to_string(),
            Some(text) if text.is_empty() => "(empty)".to_string(),
            Some(text) => text,
        };
        Ok(DBOutput::Rows {
            types: vec![DefaultColumnType::Any; answer.columns.len()],
            rows: answer.rows.into_iter().map(|row| row.into_iter().map(cell).collect()).collect(),
        })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "tidewire"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_produce() {
        let target = Target::read("PRODUCE t SPLIT 2 KEY 'a b' AT '1970-01-01 00:00:01.5'").unwrap();
        let expected = Target { topic: "t".into(), split: 2, key: Some("a b".into()), timestamp_us: Some(1_500_000) };
        assert_eq!(target, expected);
        assert_eq!(Target::read("produce t").unwrap().topic, "t");
        assert!(Target::read("PRODUCE").is_err());
        assert!(Target::read("PRODUCE t FOO").is_err());
    }
}
