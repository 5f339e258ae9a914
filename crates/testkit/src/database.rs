//! One client of a Tidewire server, in process or over the wire: text in, rows of text out.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{SinkExt, StreamExt};
use tidewire_engine::{Outcome, Session};
use tidewire_types::{SqlError, SqlType};
use tokio_postgres::SimpleQueryMessage;

use crate::text;

/// What a statement gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The types of the columns, where they are known (not over the simple protocol).
    pub types: Option<Vec<SqlType>>,
    /// The rows; None is NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// The number in the command tag.
    pub count: u64,
}

/// An error as a client sees it. Shown as `SQLSTATE: message`, then place, hint and context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The SQLSTATE.
    pub code: String,
    /// The primary line.
    pub message: String,
    /// The HINT sentence.
    pub hint: Option<String>,
    /// The CONTEXT line.
    pub context: Option<String>,
    /// Characters from 1 in the text that was run.
    pub position: Option<usize>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        self.position.iter().try_for_each(|at| write!(f, "\nPOSITION: {at}"))?;
        self.hint.iter().try_for_each(|hint| write!(f, "\nHINT: {hint}"))?;
        self.context.iter().try_for_each(|context| write!(f, "\nCONTEXT: {context}"))
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// A failure of the test itself, not of the server.
    pub fn of_test(message: impl Into<String>) -> Failure {
        Failure { code: "TEST".into(), message: message.into(), hint: None, context: None, position: None }
    }
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Failure {
        Failure {
            code: error.state().code().into(),
            message: error.message().into(),
            hint: error.hint().map(Into::into),
            context: error.context().map(Into::into),
            position: error.position(),
        }
    }
}

/// A client.
#[async_trait]
pub trait Database: Send {
    /// Runs a text of one or more statements; the answer is that of the last.
    async fn run(&mut self, sql: &str) -> Result<Answer, Failure>;

    /// Runs `COPY .. FROM STDIN` with these lines.
    async fn copy_in(&mut self, sql: &str, lines: &str) -> Result<Answer, Failure>;
}

/// A client without a protocol.
pub struct InProcess(pub Session);

#[async_trait]
impl Database for InProcess {
    async fn run(&mut self, sql: &str) -> Result<Answer, Failure> {
        let result = self.run_all(sql).await;
        if result.is_err() {
            self.0.fail_transaction();
        }
        result
    }

    async fn copy_in(&mut self, sql: &str, lines: &str) -> Result<Answer, Failure> {
        let result = self.run_copy(sql, lines).await;
        if result.is_err() {
            self.0.fail_transaction();
        }
        Ok(result?)
    }
}

impl InProcess {
    async fn run_copy(&mut self, sql: &str, lines: &str) -> Result<Answer, SqlError> {
        let parsed = tidewire_sql::parse(sql)?.pop().ok_or_else(|| SqlError::internal("no statement"))?;
        let prepared = self.0.prepare(parsed, &[]).await?;
        let Outcome::CopyIn(mut copy) = self.0.execute(&prepared, vec![]).await? else {
            return Err(SqlError::internal("not a COPY FROM"));
        };
        copy.push(lines.as_bytes())?;
        collect(self.0.finish_copy(*copy).await?).await
    }

    async fn run_all(&mut self, sql: &str) -> Result<Answer, Failure> {
        let mut answer = Answer::default();
        for parsed in tidewire_sql::parse(sql)? {
            let offset = parsed.offset;
            let placed = |e: SqlError| {
                let position = e.position().map(|p| p + offset);
                Failure::from(e.with_position(position))
            };
            let prepared = self.0.prepare(parsed, &[]).await.map_err(placed)?;
            let outcome = self.0.execute(&prepared, vec![]).await.map_err(placed)?;
            answer = collect(outcome).await.map_err(placed)?;
        }
        Ok(answer)
    }
}

async fn collect(outcome: Outcome) -> Result<Answer, SqlError> {
    match outcome {
        Outcome::Rows { schema, rows, .. }
        | Outcome::Push { schema, rows, .. }
        | Outcome::CopyOut { schema, rows, .. } => drain(&schema, rows).await,
        Outcome::Command { tag, .. } => {
            let count = tag.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            Ok(Answer { count, ..Answer::default() })
        }
        Outcome::CopyIn(_) => Err(SqlError::internal("a COPY without lines")),
        Outcome::Empty => Ok(Answer::default()),
    }
}

async fn drain(
    schema: &arrow::datatypes::SchemaRef,
    mut batches: BoxStream<'static, Result<arrow::array::RecordBatch, SqlError>>,
) -> Result<Answer, SqlError> {
    let mut answer = Answer {
        columns: schema.fields().iter().map(|f| f.name().clone()).collect(),
        types: Some(schema.fields().iter().map(|f| SqlType::of(f)).collect()),
        ..Answer::default()
    };
    while let Some(batch) = batches.next().await {
        // The promised schema says the types, whatever the batch has.
        let batch = batch?;
        let batch = match batch.schema() == *schema {
            true => batch,
            false => batch
                .with_schema(schema.clone())
                .map_err(|e| SqlError::internal(format!("a batch has another schema than was promised: {e}")))?,
        };
        answer.rows.extend(text::rows(&batch)?);
    }
    answer.count = answer.rows.len() as u64;
    Ok(answer)
}

/// What a server or its connection said.
pub(crate) fn failure(error: tokio_postgres::Error) -> Failure {
    match error.as_db_error() {
        None => Failure::of_test(format!("the connection failed: {error}")),
        Some(e) => Failure {
            code: e.code().code().into(),
            message: e.message().into(),
            hint: e.hint().map(Into::into),
            context: e.where_().map(Into::into),
            position: match e.position() {
                Some(tokio_postgres::error::ErrorPosition::Original(at)) => usize::try_from(*at).ok(),
                _ => None,
            },
        },
    }
}

/// A client of the Postgres protocol.
pub struct Wire(pub tokio_postgres::Client);

#[async_trait]
impl Database for Wire {
    async fn run(&mut self, sql: &str) -> Result<Answer, Failure> {
        let messages = self.0.simple_query(sql).await.map_err(failure)?;
        let mut answer = Answer::default();
        let mut ended = false;
        for message in messages {
            if std::mem::take(&mut ended) {
                answer = Answer::default();
            }
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    answer.columns = columns.iter().map(|c| c.name().to_string()).collect();
                }
                SimpleQueryMessage::Row(row) => {
                    answer.rows.push((0..row.len()).map(|idx| row.get(idx).map(Into::into)).collect());
                }
                SimpleQueryMessage::CommandComplete(count) => {
                    answer.count = count;
                    ended = true;
                }
                _ => {}
            }
        }
        Ok(answer)
    }

    async fn copy_in(&mut self, sql: &str, lines: &str) -> Result<Answer, Failure> {
        let sink = self.0.copy_in(sql).await.map_err(failure)?;
        let mut sink = std::pin::pin!(sink);
        sink.send(Bytes::copy_from_slice(lines.as_bytes())).await.map_err(failure)?;
        let count = sink.finish().await.map_err(failure)?;
        Ok(Answer { count, ..Answer::default() })
    }
}
