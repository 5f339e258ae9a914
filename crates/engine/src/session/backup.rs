//! `BACKUP TO 'path or s3://..'`: a copy of everything at one moment, while the server runs.
//!
//! A checkpoint is written, and the thread that writes checkpoints copies it: until it has, no other one takes its place.
//! Writes go on meanwhile; what they change is in the log.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidewire_state::{BackedUp, BackupTarget, Location};
use tidewire_types::{Result, SqlError, SqlState, SqlType};
use tokio::sync::oneshot;

use super::{Session, Transaction};
use crate::system::{bigint, rows, text};

impl Session {
    /// Returns when the backup is whole: one row that says what it has.
    pub(super) async fn backup(&mut self, to: &str) -> Result<RecordBatch> {
        if self.transaction() != Transaction::Idle {
            let message = "BACKUP cannot run inside a transaction block";
            return Err(SqlError::new(SqlState::ActiveSqlTransaction, message));
        }
        self.shared().call(|core| core.check_can_back_up()).await??;
        let location = Location::parse(to)?;
        let target = tokio::task::spawn_blocking(move || BackupTarget::open(&location)).await;
        let target = target.map_err(SqlError::internal)??;
        let (reply, replied) = oneshot::channel();
        self.shared().call(move |core| core.back_up(target, reply)).await??;
        let done = replied.await.map_err(|_| crate::shared::stopped())??;
        backup_rows(Some(&done))
    }

    /// The columns of a BACKUP.
    pub(super) fn backup_schema() -> Result<SchemaRef> {
        Ok(backup_rows(None)?.schema())
    }
}

fn backup_rows(done: Option<&BackedUp>) -> Result<RecordBatch> {
    let number = |of: fn(&BackedUp) -> u64| bigint(done.map(|d| Some(of(d) as i64)));
    rows(vec![
        ("place", SqlType::Text, text(done.map(|d| Some(d.place.as_str())))),
        ("checkpoint", SqlType::Int8, number(|d| d.checkpoint)),
        ("files", SqlType::Int8, number(|d| d.n_files)),
        ("bytes", SqlType::Int8, number(|d| d.n_bytes)),
    ])
}
