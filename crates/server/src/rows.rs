//! Sending a result: batch by batch as they come, up to a limit, resumable.
//!
//! Rows of a push leave with their batch; other rows leave when there is enough of them, and at the end.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use futures::stream::BoxStream;
use tidewire_types::{Result, SqlType};

use crate::connection::{Fault, Watch};
use crate::encode::{Format, Rows, Style};
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
        ResultRows { stream, is_push, tag, types, formats, style, current: None, n_sent: 0 }
    }

    /// Sends up to `limit` rows.
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
        let mut n_left = limit.unwrap_or(u64::MAX);
        loop {
            while let Some((rows, next, n_rows)) = &mut self.current {
                while *next < *n_rows && n_left > 0 && !output.is_full() {
                    rows.write(*next, &mut output.buffer)?;
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
                None => return Ok(Progress::Done(self.command_tag())),
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
