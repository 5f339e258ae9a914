//! INSERT, UPDATE, DELETE, TRUNCATE.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use tidewire_sql::{ObjectName, Parsed};
use tidewire_types::{Result, SqlError, SqlType};
use tokio::sync::oneshot;

use super::{Outcome, Prepared, Session};
use crate::shared::stopped;
use crate::table::{Operation, Write};

impl Session {
    pub(super) async fn describe_dml(
        &self,
        _: &Parsed,
        _: &[Option<SqlType>],
    ) -> Result<(Vec<SqlType>, Option<SchemaRef>)> {
        Err(SqlError::unsupported("DML"))
    }

    pub(super) async fn run_dml(&mut self, _: &Prepared, _: Vec<ScalarValue>) -> Result<Outcome> {
        Err(SqlError::unsupported("DML"))
    }

    pub(super) async fn truncate(&mut self, _: &[ObjectName]) -> Result<Outcome> {
        Err(SqlError::unsupported("DML"))
    }

    pub(super) async fn create_table_as(
        &mut self,
        _: tidewire_catalog::Name,
        _: &tidewire_sql::CreateTable,
        _: &tidewire_sql::ast::Query,
        _: &str,
    ) -> Result<Outcome> {
        Err(SqlError::unsupported("DML"))
    }

    pub(super) fn check_defaults(&self, _: &[tidewire_catalog::ColumnDef]) -> Result<()> {
        Ok(())
    }

    /// Applies the operations as one transaction; returns when every view shows them.
    pub(super) async fn write(&self, operations: Vec<Operation>) -> Result<Vec<RecordBatch>> {
        let (reply, answer) = oneshot::channel();
        self.shared().push_write(Write { operations, reply })?;
        answer.await.map_err(|_| stopped())?
    }
}
