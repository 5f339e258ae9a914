//! Sending a result: batch by batch as they come, up to a limit, resumable.
//!
//! Rows of a push leave with their batch; other rows leave when there is enough of them, and at the end.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::BytesMut;
use futures::StreamExt;
use futures::stream::BoxStream;
use tidewire_sql::CopyOptions;
use tidewire_types::{Result, SqlType};

use crate::backend;
use crate::connection::{Fault, Watch};
use crate::encode::{self, Format, Rows, Style};
use crate::wire::{Input, Output};

/// Names and types of a result's columns.
pub fn columns(schema: &SchemaRef) -> Vec<(String, SqlType)> {
    schema.fields().iter().map(|field| (field.name().clone(), SqlType::of(field))).collect()
}

/// A result that is being sent.
pub struct ResultRows {
    stream: BoxStream<'static, Result<RecordBatch>>,
    is_push: bool,
    tag: &'static str,
    types: Vec<SqlType>,
    formats: Vec<Format>,
    /// The rows travel as lines of COPY.
    copy: Option<CopyOptions>,
    style: Style,
    /// The batch at hand, its next row, and the number of its rows.
    current: Option<(Rows, usize, usize)>,
    n_sent: u64,
}

/// How far a result has been sent.
pub enum Progress {
    /// To its end: the command tag.
    Done(String),
    /// The limit was reached; there may be more.
    Suspended,
}

impl ResultRows {
    /// A result of which nothing has been sent.
    pub fn new(
        stream: BoxStream<'static, Result<RecordBatch>>,
        is_push: bool,
        tag: &'static str,
        columns: Vec<(String, SqlType)>,
        formats: Vec<Format>,
        style: Style,
    ) -> ResultRows {
        let types = columns.into_iter().map(|(_, t)| t).collect();
        ResultRows { stream, is_push, tag, types, formats, copy: None, style, current: None, n_sent: 0 }
    }

    /// A result that travels as lines of COPY: tells the client so, with the names of the columns where they are wanted.
    pub fn copy_out(
        stream: BoxStream<'static, Result<RecordBatch>>,
        is_push: bool,
        columns: Vec<(String, SqlType)>,
        options: CopyOptions,
        style: Style,
        out: &mut BytesMut,
    ) -> Result<ResultRows> {
        backend::copy_out(out, columns.len())?;
        if options.header {
            encode::write_names(columns.iter().map(|(name, _)| name.as_str()), &options, out)?;
        }
        let formats = vec![Format::Text; columns.len()];
        let rows = ResultRows::new(stream, is_push, "COPY", columns, formats, style);
        Ok(ResultRows { copy: Some(options), ..rows })
    }

    /// Sends up to `limit` rows; COPY has no limit, as in PostgreSQL.
    pub async fn send(
        &mut self,
        limit: Option<u64>,
        input: &mut Input,
        output: &mut Output,
        watch: &mut Watch,
    ) -> Result<Progress, Fault> {
        if self.is_push {
            watch.deadline = None;
            // The client sees that it has begun, even when nothing changes for a while.
            watch.run(input, output.flush()).await??;
        }
        let mut n_left = limit.filter(|_| self.copy.is_none()).unwrap_or(u64::MAX);
        loop {
            while let Some((rows, next, n_rows)) = &mut self.current {
                while *next < *n_rows && n_left > 0 && !output.is_full() {
                    match &self.copy {
                        None => rows.write(*next, &mut output.buffer)?,
                        Some(options) => rows.write_line(*next, options, &mut output.buffer)?,
                    }
                    *next += 1;
                    n_left -= 1;
                    self.n_sent += 1;
                }
                if *next == *n_rows {
                    self.current = None;
                }
                if output.is_full() {
                    watch.run(input, output.flush()).await??;
                }
                if n_left == 0 {
                    return Ok(Progress::Suspended);
                }
            }
            if self.is_push {
                watch.run(input, output.flush()).await??;
            }
            match watch.run(input, self.stream.next()).await? {
                None => {
                    if self.copy.is_some() {
                        backend::copy_done(&mut output.buffer);
                    }
                    return Ok(Progress::Done(self.command_tag()));
                }
                Some(batch) => {
                    let batch = batch?;
                    let rows = Rows::new(&batch, &self.types, &self.formats, self.style)?;
                    self.current = Some((rows, 0, batch.num_rows()));
                }
            }
        }
    }

    /// `SELECT 3`; SHOW and EXPLAIN have no count.
    fn command_tag(&self) -> String {
        match self.tag {
            "SHOW" | "EXPLAIN" => self.tag.to_owned(),
            tag => format!("{tag} {}", self.n_sent),
        }
    }
}
