//! Tables for queries: the rows of one moment, a topic up to its present end, and Tidewire's own system tables.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::StreamExt;
use tidewire_catalog::{Kind, Object};
use tidewire_connect::{ReadMode, Source};
use tidewire_operators::arrangement::ArrangementReader;
use tidewire_planner::TableResolver;
use tidewire_types::{Result, SqlError, SqlState};
use tokio_stream::wrappers::ReceiverStream;

use crate::shared::{Relation, Snapshot};
use crate::{SystemContext, SystemSchemas, system};

/// Gives a statement its tables: everything at the snapshot's moment.
pub struct Resolver<'a> {
    pub snapshot: &'a Arc<Snapshot>,
    pub system: &'a dyn SystemSchemas,
    pub system_cx: &'a SystemContext,
    /// Makes the tables of the schema `tidewire`.
    pub own: &'a system::Tables,
}

impl TableResolver for Resolver<'_> {
    fn object(&self, object: &Arc<Object>) -> Result<Arc<dyn TableProvider>> {
        let moment = &self.snapshot.moment;
        if let Kind::Source(_) = object.def {
            let source = moment.sources.get(&object.id).ok_or_else(|| no_rows(object))?.clone();
            return Ok(Arc::new(RelationTable { rows: Rows::Source(source), schema: object.schema.clone() }));
        }
        match moment.relations.get(&object.id).ok_or_else(|| no_rows(object))? {
            Relation::Failed(error) => Err(error.clone()),
            Relation::Rows(reader) => {
                let rows = Rows::Snapshot(reader.clone(), self.snapshot.clone());
                Ok(Arc::new(RelationTable { rows, schema: object.schema.clone() }))
            }
        }
    }

    fn system_table(&self, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>> {
        self.own.table(schema, name).or_else(|| self.system.table(schema, name, self.system_cx))
    }

    fn system_tables(&self) -> Vec<(String, String)> {
        let mut names = self.system.names();
        names.extend(system::names());
        names
    }
}

fn no_rows(object: &Object) -> SqlError {
    SqlError::new(SqlState::WrongObjectType, format!("{} \"{}\" cannot be read", object.kind(), object.name))
}

/// The rows of a table, view or source.
#[derive(Debug)]
struct RelationTable {
    rows: Rows,
    schema: SchemaRef,
}

#[derive(Clone)]
enum Rows {
    /// At the snapshot's epoch.
    Snapshot(Arc<ArrangementReader>, Arc<Snapshot>),
    /// What the outside system holds, from the source's start to its present end.
    Source(Arc<dyn Source>),
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rows::Snapshot(_, snapshot) => write!(f, "Snapshot(epoch={})", snapshot.moment.epoch),
            Rows::Source(source) => write!(f, "Source({source:?})"),
        }
    }
}

#[async_trait]
impl TableProvider for RelationTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let columns = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&columns)?);
        let scan = Arc::new(Scan { rows: self.rows.clone(), columns, schema: schema.clone() });
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![scan], None, [], false, limit)?))
    }
}

/// One scan: its columns, in the order of the projection.
#[derive(Debug)]
struct Scan {
    rows: Rows,
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _cx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = self.schema.clone();
        let conform = move |rows: Result<RecordBatch>| conform(rows.map_err(external)?, &schema);
        match &self.rows {
            Rows::Snapshot(reader, snapshot) => {
                // The stream keeps the snapshot, and so its rows.
                let snapshot = snapshot.clone();
                let rows: Box<dyn Iterator<Item = Result<RecordBatch>> + Send> =
                    match reader.scan(snapshot.moment.epoch, Some(&self.columns)) {
                        Ok(rows) => rows,
                        Err(error) => Box::new(std::iter::once(Err(error))),
                    };
                let rows = rows.map(move |rows| {
                    let _readable = &snapshot;
                    conform(rows)
                });
                Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter(rows)))
            }
            Rows::Source(source) => {
                let rows = read_to_end(source.clone(), self.columns.clone()).map(conform);
                Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
            }
        }
    }
}

/// An error that comes back out of DataFusion as it went in.
pub fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The same columns under the names and metadata that the catalog has.
fn conform(rows: RecordBatch, schema: &SchemaRef) -> DfResult<RecordBatch> {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), rows.columns().to_vec(), &options)?)
}

/// What a source holds now, decoded on a thread that may block. It stops reading when the stream is dropped.
///
/// Bad records are left out; they become dead letters when a view reads them.
fn read_to_end(source: Arc<dyn Source>, columns: Vec<usize>) -> ReceiverStream<Result<RecordBatch>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        // Readers take ascending columns; a query may want them in another order.
        let mut ascending = columns.clone();
        ascending.sort_unstable();
        ascending.dedup();
        let places: Vec<usize> = columns.iter().filter_map(|c| ascending.binary_search(c).ok()).collect();
        let read = || -> Result<()> {
            let (start, end) = (source.start()?, source.end()?);
            let positions: tidewire_connect::Positions =
                end.keys().map(|split| (*split, start.get(split).copied().unwrap_or(0))).collect();
            let mut reader = source.read(positions, ascending, ReadMode::Until(end))?;
            loop {
                let batch = reader.poll(Duration::from_millis(100), 1 << 20)?;
                let rows = batch.rows.project(&places)?;
                if sender.is_closed()
                    || (rows.num_rows() > 0 && sender.blocking_send(Ok(rows)).is_err())
                    || batch.finished
                {
                    return Ok(());
                }
            }
        };
        if let Err(error) = read() {
            // The query may be gone.
            let _ = sender.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(receiver)
}
