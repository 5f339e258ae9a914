//! One client: its messages in order, one statement at a time.
//!
//! Whatever a statement waits for, four things can end it: a cancel request, its deadline, the end of the server, and
//! the client's going away; [`Watch`] runs every wait beside these. Dropping what is waited for is what cancels it.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::BytesMut;
use futures::FutureExt;
use futures::stream::BoxStream;
use tidewire_engine::{CopyIn, Outcome, Session, Transaction, panic_error};
use tidewire_sql::{Parsed, Statement};
use tidewire_types::{SqlError, SqlState};
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend;
use crate::cancel::Registration;
use crate::encode::{Format, Style};
use crate::extended::{Portal, PreparedStatement};
use crate::frontend::{self, Message};
use crate::rows::{Progress, ResultRows, columns};
use crate::wire::{FrameError, Input, Output};

/// Why a statement, or a connection, ended.
pub enum Fault {
    /// The statement failed; the session goes on.
    Statement(SqlError),
    /// The connection ends after this error.
    Connection(SqlError),
    /// The client has gone.
    Gone,
}

impl From<SqlError> for Fault {
    fn from(error: SqlError) -> Fault {
        Fault::Statement(error)
    }
}

impl From<std::io::Error> for Fault {
    fn from(_: std::io::Error) -> Fault {
        Fault::Gone
    }
}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Fault {
        match error {
            FrameError::Closed => Fault::Gone,
            FrameError::Length(length) => {
                let message = format!("invalid message length {length}");
                Fault::Connection(SqlError::new(SqlState::ProtocolViolation, message))
            }
        }
    }
}

/// One client.
pub struct Connection {
    pub(crate) input: Input,
    pub(crate) output: Output,
    pub(crate) session: Session,
    pub(crate) statements: HashMap<String, Arc<PreparedStatement>>,
    pub(crate) portals: HashMap<String, Portal>,
    registration: Registration,
    shutdown: CancellationToken,
    /// After an error in an extended query all is ignored up to Sync.
    skips_to_sync: bool,
}

impl Connection {
    /// A connection whose client has been greeted.
    pub fn new(
        input: Input,
        output: Output,
        session: Session,
        registration: Registration,
        shutdown: CancellationToken,
    ) -> Connection {
        Connection {
            input,
            output,
            session,
            statements: HashMap::new(),
            portals: HashMap::new(),
            registration,
            shutdown,
            skips_to_sync: false,
        }
    }

    /// Serves the client until it leaves or something ends the connection.
    pub async fn run(mut self) {
        backend::ready(&mut self.output.buffer, self.session.transaction());
        let fault = match self.output.flush().await {
            Ok(()) => self.serve().await,
            Err(error) => error.into(),
        };
        if let Fault::Connection(error) | Fault::Statement(error) = fault {
            backend::error(&mut self.output.buffer, "FATAL", &error);
            // A client that does not read must not keep the task.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.output.flush()).await;
        }
    }

    async fn serve(&mut self) -> Fault {
        loop {
            let message = tokio::select! {
                message = self.input.message() => message,
                () = self.shutdown.cancelled() => return Fault::Connection(shutting_down()),
            };
            let (kind, body) = match message {
                Ok(message) => message,
                Err(error) => return error.into(),
            };
            if let Err(fault) = self.handle(kind, body).await {
                return fault;
            }
        }
    }

    /// Errors here end the connection; those of statements are sent.
    async fn handle(&mut self, kind: u8, body: bytes::Bytes) -> Result<(), Fault> {
        if self.skips_to_sync && !matches!(kind, b'S' | b'X') {
            return Ok(());
        }
        let done = match frontend::decode(kind, body) {
            Ok(message) => self.answer(message).await,
            Err(error) if !frontend::is_known(kind) => return Err(Fault::Connection(error)),
            Err(error) => Err(error.into()),
        };
        match done {
            Err(Fault::Statement(error)) => {
                self.fail(&error);
                if frontend::is_extended(kind) {
                    self.skips_to_sync = true;
                    Ok(())
                } else {
                    self.ready().await
                }
            }
            done => done,
        }
    }

    async fn answer(&mut self, message: Message) -> Result<(), Fault> {
        match message {
            Message::Query(text) => self.simple_query(&text).await,
            Message::Parse { name, query, types } => self.parse(name, &query, &types).await,
            Message::Bind(bind) => self.bind(bind),
            Message::Describe(target) => self.describe(&target),
            Message::Execute { portal, n_rows_max } => self.execute_portal(&portal, n_rows_max).await,
            Message::Close(target) => {
                self.close(&target);
                Ok(())
            }
            Message::Sync => {
                self.skips_to_sync = false;
                self.ready().await
            }
            Message::Flush => Ok(self.output.flush().await?),
            Message::Terminate => Err(Fault::Gone),
            Message::Copy => Ok(()),
        }
    }

    /// Sends an error, and marks an open transaction failed.
    fn fail(&mut self, error: &SqlError) {
        self.session.fail_transaction();
        backend::error(&mut self.output.buffer, "ERROR", error);
    }

    /// Ends a query: what clients must know of the session, and that it waits.
    async fn ready(&mut self) -> Result<(), Fault> {
        let transaction = self.session.transaction();
        // A portal lives as long as its transaction.
        if transaction == Transaction::Idle {
            self.portals.clear();
        }
        for (name, value) in self.session.take_reported() {
            backend::parameter_status(&mut self.output.buffer, &name, &value);
        }
        backend::ready(&mut self.output.buffer, transaction);
        let mut watch = self.watch();
        // The result is complete: a cancel comes too late and a deadline does not hold here.
        watch.deadline = None;
        loop {
            match watch.run(&mut self.input, self.output.flush()).await {
                Err(Fault::Statement(_)) => watch = self.watch(),
                Err(fault) => return Err(fault),
                Ok(flushed) => return Ok(flushed?),
            }
        }
    }

    /// Watches over one statement from now on.
    pub(crate) fn watch(&self) -> Watch {
        let mut cancelled = Box::pin(self.registration.requested.clone().notified_owned());
        cancelled.as_mut().enable();
        let timeout = self.session.setting("statement_timeout").and_then(|text| statement_timeout(&text));
        Watch { cancelled, deadline: timeout.map(|timeout| Instant::now() + timeout), shutdown: self.shutdown.clone() }
    }

    pub(crate) fn style(&self) -> Style {
        Style::new(self.session.setting("timezone").as_deref())
    }

    /// Runs the statements of a text one after another; the first error ends it.
    async fn simple_query(&mut self, text: &str) -> Result<(), Fault> {
        self.statements.remove("");
        self.portals.remove("");
        let mut statements = tidewire_sql::parse(text)?;
        statements.retain(|parsed| parsed.statement != Statement::Empty);
        if statements.is_empty() {
            backend::empty(&mut self.output.buffer);
        }
        for parsed in statements {
            let offset = parsed.offset;
            self.run_statement(parsed).await.map_err(|fault| moved(fault, offset))?;
        }
        self.ready().await
    }

    async fn run_statement(&mut self, parsed: Parsed) -> Result<(), Fault> {
        if self.deallocate(&parsed.statement) {
            backend::complete(&mut self.output.buffer, "DEALLOCATE");
            return Ok(());
        }
        let forgets_statements = matches!(parsed.statement, Statement::Discard | Statement::Deallocate(None));
        let mut watch = self.watch();
        let prepared = watch.run(&mut self.input, self.session.prepare(parsed, &[])).await??;
        if !prepared.parameters.is_empty() {
            return Err(SqlError::new(SqlState::UndefinedParameter, "there is no parameter $1").into());
        }
        let outcome = watch.run(&mut self.input, self.session.execute(&prepared, vec![])).await??;
        if forgets_statements {
            self.statements.clear();
        }
        let style = self.style();
        let out = &mut self.output.buffer;
        let mut rows = match outcome {
            Outcome::Rows { schema, rows, tag } => described(&schema, rows, false, tag, style, out),
            Outcome::Push { schema, rows, tag } => described(&schema, rows, true, tag, style, out),
            Outcome::CopyOut { schema, rows, is_push, options } => {
                ResultRows::copy_out(rows, is_push, columns(&schema), options, style, out)?
            }
            Outcome::CopyIn(copy) => return self.copy_in(*copy, &mut watch).await,
            Outcome::Command { tag, notices } => {
                notices.iter().for_each(|notice| backend::notice(out, notice));
                backend::complete(out, &tag);
                return Ok(());
            }
            Outcome::Empty => {
                backend::empty(out);
                return Ok(());
            }
        };
        match rows.send(None, &mut self.input, &mut self.output, &mut watch).await? {
            Progress::Done(tag) => backend::complete(&mut self.output.buffer, &tag),
            // Without a limit nothing is suspended.
            Progress::Suspended => {}
        }
        Ok(())
    }

    /// Takes the lines of a COPY, and writes their rows.
    pub(crate) async fn copy_in(&mut self, mut copy: CopyIn, watch: &mut Watch) -> Result<(), Fault> {
        backend::copy_in(&mut self.output.buffer, copy.n_columns())?;
        watch.run(&mut self.input, self.output.flush()).await??;
        loop {
            let (kind, body) = watch.message(&mut self.input).await?;
            match kind {
                b'd' => watch.run(&mut self.input, async { copy.push(&body) }).await??,
                b'c' => break,
                b'f' => return Err(copy.failed(&frontend::copy_failure(body)?).into()),
                // A client that sent them with Execute could not know that lines would be asked for.
                b'H' | b'S' => {}
                b'X' => return Err(Fault::Gone),
                other => {
                    let message = format!("unexpected message type 0x{other:02X} during COPY from stdin");
                    return Err(SqlError::new(SqlState::ProtocolViolation, message).into());
                }
            }
        }
        let outcome = watch.run(&mut self.input, self.session.finish_copy(copy)).await??;
        if let Outcome::Command { tag, .. } = outcome {
            backend::complete(&mut self.output.buffer, &tag);
        }
        Ok(())
    }

    /// `DEALLOCATE x` of a statement that Parse made: the session does not know those.
    pub(crate) fn deallocate(&mut self, statement: &Statement) -> bool {
        match statement {
            Statement::Deallocate(Some(name)) => self.statements.remove(name).is_some(),
            _ => false,
        }
    }
}

/// A result in text, whose columns the client is told.
fn described(
    schema: &SchemaRef,
    rows: BoxStream<'static, Result<RecordBatch, SqlError>>,
    is_push: bool,
    tag: &'static str,
    style: Style,
    out: &mut BytesMut,
) -> ResultRows {
    let columns = columns(schema);
    let formats = vec![Format::Text; columns.len()];
    backend::row_description(out, &columns, &formats);
    ResultRows::new(rows, is_push, tag, columns, formats, style)
}

/// An error of a statement that begins `offset` characters into what the client sent.
pub fn moved(fault: Fault, offset: usize) -> Fault {
    match fault {
        Fault::Statement(error) => {
            let position = error.position().map(|position| position + offset);
            Fault::Statement(error.with_position(position))
        }
        fault => fault,
    }
}

fn shutting_down() -> SqlError {
    SqlError::new(SqlState::AdminShutdown, "terminating connection due to administrator command")
}

/// What can end a wait.
pub struct Watch {
    cancelled: Pin<Box<OwnedNotified>>,
    /// When the statement has had its time; a push has none.
    pub deadline: Option<Instant>,
    shutdown: CancellationToken,
}

impl Watch {
    /// Waits for `work` unless something ends the wait; then `work` is dropped. A panic in it is an error of the statement.
    pub async fn run<T>(&mut self, input: &mut Input, work: impl Future<Output = T>) -> Result<T, Fault> {
        // In this order: work that is always ready must not keep a cancel from being seen.
        tokio::select! {
            biased;
            fault = self.ended() => Err(fault),
            value = AssertUnwindSafe(work).catch_unwind() => {
                value.map_err(|panic| Fault::Statement(panic_error(panic.as_ref())))
            }
            () = input.client_gone() => Err(Fault::Gone),
        }
    }

    /// The next message of the client, unless something ends the wait.
    async fn message(&mut self, input: &mut Input) -> Result<(u8, bytes::Bytes), Fault> {
        tokio::select! {
            biased;
            fault = self.ended() => Err(fault),
            message = input.message() => Ok(message?),
        }
    }

    /// What ends a wait, as soon as it does.
    async fn ended(&mut self) -> Fault {
        tokio::select! {
            biased;
            () = self.cancelled.as_mut() => canceled("user request"),
            () = at(self.deadline) => canceled("statement timeout"),
            () = self.shutdown.cancelled() => Fault::Connection(shutting_down()),
        }
    }
}

fn canceled(why: &str) -> Fault {
    Fault::Statement(SqlError::new(SqlState::QueryCanceled, format!("canceling statement due to {why}")))
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The longest time that a statement may take; none where the setting is 0.
fn statement_timeout(setting: &str) -> Option<Duration> {
    tidewire_engine::milliseconds(setting).filter(|ms| *ms > 0).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_statement_is_its_error() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut input, _output) = crate::wire::split(listener.accept().await.unwrap().0, 1024);
        let cancelled = Box::pin(Arc::new(tokio::sync::Notify::new()).notified_owned());
        let mut watch = Watch { cancelled, deadline: None, shutdown: CancellationToken::new() };
        let failed = watch.run(&mut input, async { panic!("a bug") }).await;
        assert!(matches!(failed, Err(Fault::Statement(error)) if error.state().code() == "XX000"));
        assert_eq!(watch.run(&mut input, async { 7 }).await.ok(), Some(7));
    }

    #[test]
    fn timeouts_have_units() {
        assert_eq!(statement_timeout("250"), Some(Duration::from_millis(250)));
        assert_eq!(statement_timeout("5s"), Some(Duration::from_secs(5)));
        assert_eq!(statement_timeout("2 min"), Some(Duration::from_secs(120)));
        assert_eq!(statement_timeout("0"), None);
        assert_eq!(statement_timeout("soon"), None);
    }
}
