//! DECLARE, FETCH, CLOSE: a query's rows, or a subscription's, taken a few at a time.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tidewire_sql::{Parsed, Statement};
use tidewire_types::{Result, SqlError, SqlState};
use tokio::time::{Instant, timeout_at};

use super::{Outcome, Session, Transaction};

/// An open cursor.
pub struct Cursor {
    /// The columns of its rows.
    pub schema: SchemaRef,
    /// It outlives the transaction.
    pub hold: bool,
    // In a Mutex, which nobody locks, so that a session can be shared between threads by reference.
    rows: Mutex<BoxStream<'static, Result<RecordBatch>>>,
    // Of the last batch, what was not fetched.
    rest: Option<RecordBatch>,
    // A subscription's rows never end: a FETCH takes what is there.
    push: bool,
}

impl Session {
    pub(super) fn cursor(&self, name: &str) -> Result<&Cursor> {
        self.cursors.get(name).ok_or_else(|| no_cursor(name))
    }

    pub(super) async fn declare(&mut self, name: &str, hold: bool, statement: &Parsed) -> Result<Outcome> {
        if self.cursors.contains_key(name) {
            return Err(SqlError::new(SqlState::DuplicateCursor, format!("cursor \"{name}\" already exists")));
        }
        let push = matches!(statement.statement, Statement::Subscribe(_));
        // A subscription is not of a transaction's moment: it may outlive it without being asked to.
        let hold = hold || push;
        if !hold && self.transaction == Transaction::Idle {
            return Err(SqlError::new(
                SqlState::NoActiveSqlTransaction,
                "DECLARE CURSOR can only be used in transaction blocks",
            )
            .with_hint("Begin a transaction, or declare the cursor WITH HOLD."));
        }
        let prepared = Box::pin(self.prepare(statement.clone(), &[])).await?;
        match Box::pin(self.execute(&prepared, vec![])).await? {
            Outcome::Rows { schema, rows, .. } | Outcome::Push { schema, rows, .. } => {
                self.cursors
                    .insert(name.to_string(), Cursor { schema, hold, rows: Mutex::new(rows), rest: None, push });
                Ok(Outcome::command("DECLARE CURSOR"))
            }
            Outcome::CopyOut { .. } | Outcome::CopyIn(_) | Outcome::Command { .. } | Outcome::Empty => {
                Err(SqlError::unsupported("a cursor for this statement"))
            }
        }
    }

    pub(super) async fn fetch(&mut self, name: &str, count: Option<u64>, timeout_ms: Option<u64>) -> Result<Outcome> {
        let cursor = self.cursors.get_mut(name).ok_or_else(|| no_cursor(name))?;
        let count = count.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let rows = cursor.fetch(count, timeout_ms.map(Duration::from_millis)).await?;
        Ok(Outcome::rows(rows, "FETCH"))
    }

    pub(super) fn close(&mut self, name: Option<&str>) -> Result<Outcome> {
        match name {
            None => self.cursors.clear(),
            Some(name) => drop(self.cursors.remove(name).ok_or_else(|| no_cursor(name))?),
        }
        Ok(Outcome::command("CLOSE CURSOR"))
    }
}

fn no_cursor(name: &str) -> SqlError {
    SqlError::new(SqlState::InvalidCursorName, format!("cursor \"{name}\" does not exist"))
}

impl Cursor {
    /// Up to `count` rows. A subscription waits for the first, at most `wait`, and then gives what is there. Without a
    /// `wait` it waits until the client cancels: psql (with FETCH_COUNT) takes a FETCH without rows for the end.
    async fn fetch(&mut self, count: usize, wait: Option<Duration>) -> Result<RecordBatch> {
        let mut batches = vec![];
        let mut n_rows = 0;
        let deadline = wait.map(|wait| Instant::now() + wait);
        while n_rows < count {
            let batch = match self.rest.take() {
                Some(rest) => rest,
                None if !self.push => match self.rows.get_mut().next().await {
                    Some(batch) => batch?,
                    None => break,
                },
                None => {
                    // Once there are rows, only what is ready already joins them.
                    let until = if n_rows == 0 { deadline } else { Some(Instant::now()) };
                    let next = self.rows.get_mut().next();
                    let batch = match until {
                        Some(until) => timeout_at(until, next).await.ok().flatten(),
                        None => next.await,
                    };
                    match batch {
                        Some(batch) => batch?,
                        None => break,
                    }
                }
            };
            let taken = batch.num_rows().min(count - n_rows);
            if taken < batch.num_rows() {
                self.rest = Some(batch.slice(taken, batch.num_rows() - taken));
            }
            n_rows += taken;
            batches.push(batch.slice(0, taken));
        }
        Ok(compute::concat_batches(&self.schema, &batches)?)
    }
}
