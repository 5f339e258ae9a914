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
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::StreamExt;
use tidewire_catalog::{Catalog, Kind, Object};
use tidewire_connect::{ReadMode, Source};
use tidewire_operators::arrangement::ArrangementReader;
use tidewire_operators::expr::sql_error;
use tidewire_planner::TableResolver;
use tidewire_types::{Result, SqlError, SqlState};
use tokio_stream::wrappers::ReceiverStream;

use crate::core::indexes::unique_key_name;
use crate::lookup::{self, IndexLookup, Key};
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
        relation_table(object, self.snapshot)
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

/// The rows of an object at the snapshot's moment.
fn relation_table(object: &Arc<Object>, snapshot: &Arc<Snapshot>) -> Result<Arc<dyn TableProvider>> {
    let moment = &snapshot.moment;
    if let Kind::Source(_) = object.def {
        let source = moment.sources.get(&object.id).ok_or_else(|| no_rows(object))?.clone();
        return Ok(Arc::new(RelationTable { rows: Rows::Source(source), object: object.clone(), keys: vec![] }));
    }
    match moment.relations.get(&object.id).ok_or_else(|| no_rows(object))? {
        Relation::Failed(error) => Err(error.clone()),
        Relation::Rows(reader) => {
            let keys = keys(&moment.catalog, object, reader);
            let rows = Rows::Snapshot(reader.clone(), snapshot.clone());
            Ok(Arc::new(RelationTable { rows, object: object.clone(), keys }))
        }
    }
}

/// A relation without its rows, for a plan that is kept. Errors: `XX000` where it is none of the catalog.
pub fn unbound(table: &dyn TableProvider) -> Result<Arc<dyn TableProvider>> {
    let object = object_of(table)?.clone();
    Ok(Arc::new(RelationTable { rows: Rows::Unbound, object, keys: vec![] }))
}

/// The relation of a kept plan at the snapshot's moment.
pub fn bound(table: &dyn TableProvider, snapshot: &Arc<Snapshot>) -> Result<Arc<dyn TableProvider>> {
    relation_table(object_of(table)?, snapshot)
}

/// The rows of a kept plan's relation at the snapshot's moment that the filters may accept, found by key. None: they name
/// no key, or a scan must be made.
pub fn lookup(
    table: &dyn TableProvider,
    snapshot: &Arc<Snapshot>,
    filters: &[Expr],
    column_idxs: &[usize],
    session: &dyn Session,
) -> Result<Option<Vec<RecordBatch>>> {
    let (object, moment) = (object_of(table)?, &snapshot.moment);
    let Some(Relation::Rows(reader)) = moment.relations.get(&object.id) else { return Ok(None) };
    snapshot.check_defined(object)?;
    let keys = keys(&moment.catalog, object, reader);
    let Some(lookup) = lookup::choose(filters, &object.schema, &keys, session) else { return Ok(None) };
    let rows = match lookup.rows(object.id, reader, snapshot, column_idxs)? {
        Some(rows) => rows,
        None if reader.is_small() => reader.scan(moment.epoch, Some(column_idxs))?.collect::<Result<_>>()?,
        None => return Ok(None),
    };
    let schema = Arc::new(object.schema.project(column_idxs)?);
    rows.into_iter().map(|rows| conform(rows, &schema).map_err(sql_error)).collect::<Result<_>>().map(Some)
}

fn object_of(table: &dyn TableProvider) -> Result<&Arc<Object>> {
    let relation = table.downcast_ref::<RelationTable>().map(|relation| &relation.object);
    relation.ok_or_else(|| SqlError::internal("a table that is none of the catalog's"))
}

fn no_rows(object: &Object) -> SqlError {
    SqlError::new(SqlState::WrongObjectType, format!("{} \"{}\" cannot be read", object.kind(), object.name))
}

/// What the rows of a relation can be found by.
fn keys(catalog: &Catalog, object: &Object, reader: &ArrangementReader) -> Vec<Key> {
    let unique_key = reader.unique_key().filter(|key| !key.is_empty());
    let unique =
        unique_key.map(|key| Key { name: unique_key_name(object), column_idxs: key.to_vec(), is_unique: true });
    let indexes = catalog.indexes(object.id).map(|(index, def)| Key {
        name: index.name.name.clone(),
        column_idxs: def.key.clone(),
        is_unique: unique_key == Some(&def.key),
    });
    indexes.chain(unique).collect()
}

/// The rows of a table, view or source.
#[derive(Debug)]
struct RelationTable {
    rows: Rows,
    object: Arc<Object>,
    keys: Vec<Key>,
}

#[derive(Clone)]
enum Rows {
    /// At the snapshot's epoch.
    Snapshot(Arc<ArrangementReader>, Arc<Snapshot>),
    /// What the outside system holds, from the source's start to its present end.
    Source(Arc<dyn Source>),
    /// Not known yet.
    Unbound,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rows::Snapshot(_, snapshot) => write!(f, "Snapshot(epoch={})", snapshot.moment.epoch),
            Rows::Source(source) => write!(f, "Source({source:?})"),
            Rows::Unbound => f.write_str("Unbound"),
        }
    }
}

#[async_trait]
impl TableProvider for RelationTable {
    fn schema(&self) -> SchemaRef {
        self.object.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// The filter stays above: a lookup may give more rows than it accepts.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match lookup::names_keys(filter, &self.object.schema, &self.keys) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let object = &self.object;
        let columns = projection.cloned().unwrap_or_else(|| (0..object.schema.fields().len()).collect());
        let schema = Arc::new(object.schema.project(&columns)?);
        if let Rows::Snapshot(_, snapshot) = &self.rows {
            snapshot.check_defined(object).map_err(external)?;
        }
        if let Rows::Snapshot(reader, snapshot) = &self.rows
            && let Some(lookup) = lookup::choose(filters, &object.schema, &self.keys, state)
        {
            let (name, reader, snapshot) = (object.name.to_string(), reader.clone(), snapshot.clone());
            return Ok(Arc::new(IndexLookup::new(lookup, (object.id, &name), reader, snapshot, columns, schema)));
        }
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
            Rows::Unbound => {
                let error = external(SqlError::internal("a kept plan runs without its tables"));
                Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter([Err(error)])))
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
pub fn conform(rows: RecordBatch, schema: &SchemaRef) -> DfResult<RecordBatch> {
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
