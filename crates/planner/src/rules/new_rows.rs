//! WITH RECURSIVE .. UNION keeps each row once.
//!
//! DataFusion takes a row for new whose group has a higher number than those before it. But where keys of several columns,
//! or arrays, have one hash (as NULL and an empty array have, or (1, NULL) and (NULL, 1)), it numbers the groups in another
//! order than that of the rows, and loses those that got a lower number. So the rows that are new are found here, and
//! DataFusion is told to keep all.
//!
//! Equal rows may differ ('1 day' and '24 hours'). Of those that one iteration gives, the least is taken, as a view does.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, PhysicalExpr, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tidewire_types::as_grouped;

use crate::spans::row_keys;

/// Has the terms of a recursive UNION give only rows that are new.
#[derive(Debug)]
pub(crate) struct NewRows;

impl PhysicalOptimizerRule for NewRows {
    fn name(&self) -> &str {
        "new_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(plan.transform_up(with_new_rows)?.data)
    }
}

fn with_new_rows(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let Some(recursion) = plan.downcast_ref::<RecursiveQueryExec>().filter(|recursion| recursion.is_distinct()) else {
        return Ok(Transformed::no(plan));
    };
    let seen = Arc::new(Mutex::new(None));
    let new_rows = |input: &Arc<dyn ExecutionPlan>, is_first| -> Arc<dyn ExecutionPlan> {
        Arc::new(NewRowsExec { input: input.clone(), is_first, seen: seen.clone() })
    };
    let (first, next) = (new_rows(recursion.static_term(), true), new_rows(recursion.recursive_term(), false));
    let (name, schema) = (RecursiveQueryExec::name(recursion).to_owned(), plan.schema());
    Ok(Transformed::yes(Arc::new(RecursiveQueryExec::try_new(name, schema, first, next, false)?)))
}

/// The rows of the terms of one recursion so far.
struct Seen {
    /// What rows are told apart by. None: by themselves.
    keys: Option<Vec<Arc<dyn PhysicalExpr>>>,
    /// Of the keys, or of the rows where there are none.
    converter: RowConverter,
    rows: HashSet<Box<[u8]>>,
    n_bytes: usize,
    reservation: MemoryReservation,
}

impl Seen {
    fn new(schema: &SchemaRef, context: &TaskContext) -> Result<Seen> {
        let keys = row_keys(schema)?;
        let types: Vec<DataType> = match &keys {
            Some(keys) => keys.iter().map(|key| key.data_type(schema)).collect::<Result<_>>()?,
            None => schema.fields().iter().map(|field| field.data_type().clone()).collect(),
        };
        let converter = RowConverter::new(types.into_iter().map(SortField::new).collect())?;
        let reservation = MemoryConsumer::new("NewRowsExec").register(context.memory_pool());
        Ok(Seen { keys, converter, rows: HashSet::new(), n_bytes: 0, reservation })
    }

    /// The rows of the batch that were not seen before. Where rows have keys it is all that an iteration gives. Errors: of
    /// the memory limit.
    fn new_of(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = batch.columns().iter().map(as_grouped).collect();
        let mask: BooleanArray = match &self.keys {
            None => {
                let rows = self.converter.convert_columns(&columns)?;
                rows.iter().map(|row| Some(self.is_new(row.data()))).collect()
            }
            Some(keys) => {
                let keys = keys.iter().map(|key| Ok(as_grouped(&key.evaluate(batch)?.into_array(batch.num_rows())?)));
                let keys = self.converter.convert_columns(&keys.collect::<Result<Vec<_>>>()?)?;
                let least = least_of_each(&keys, &columns)?;
                let is_least = |idx: usize, key: &[u8]| least.get(key) == Some(&idx);
                keys.iter()
                    .enumerate()
                    .map(|(idx, key)| Some(is_least(idx, key.data()) && self.is_new(key.data())))
                    .collect()
            }
        };
        self.reservation.try_resize(self.n_bytes + self.rows.capacity() * size_of::<(Box<[u8]>, u8)>())?;
        Ok(filter_record_batch(&RecordBatch::try_new(batch.schema(), columns)?, &mask)?)
    }

    fn is_new(&mut self, row: &[u8]) -> bool {
        let is_new = !self.rows.contains(row);
        if is_new {
            self.n_bytes += row.len();
            self.rows.insert(row.into());
        }
        is_new
    }
}

/// Of each key the place of its least row.
fn least_of_each<'a>(keys: &'a Rows, columns: &[ArrayRef]) -> Result<HashMap<&'a [u8], usize>> {
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let rows = RowConverter::new(fields)?.convert_columns(columns)?;
    let mut least = HashMap::new();
    for (idx, key) in keys.iter().enumerate() {
        let place = least.entry(key.data()).or_insert(idx);
        if rows.row(idx) < rows.row(*place) {
            *place = idx;
        }
    }
    Ok(least)
}

/// Passes the rows on that no term of the recursion has given before.
struct NewRowsExec {
    input: Arc<dyn ExecutionPlan>,
    /// Whether it is over the term that begins the recursion, and so forgets all rows when it is run.
    is_first: bool,
    /// Of both terms. None: none was run yet.
    seen: Arc<Mutex<Option<Seen>>>,
}

impl fmt::Debug for NewRowsExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewRowsExec {:?}", self.input)
    }
}

impl DisplayAs for NewRowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewRowsExec")
    }
}

impl ExecutionPlan for NewRowsExec {
    fn name(&self) -> &str {
        "NewRowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = <[Arc<dyn ExecutionPlan>; 1]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("NewRowsExec has one input".into()))?;
        Ok(Arc::new(NewRowsExec { input, is_first: self.is_first, seen: self.seen.clone() }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.schema();
        if self.is_first {
            *self.seen.lock() = Some(Seen::new(&schema, &context)?);
        }
        let has_keys = self.seen.lock().as_ref().is_some_and(|seen| seen.keys.is_some());
        let mut input = self.input.execute(partition, context)?;
        if has_keys {
            input = all_at_once(input);
        }
        let seen = self.seen.clone();
        let rows = input.map(move |batch| {
            let mut seen = seen.lock();
            let Some(seen) = seen.as_mut() else {
                return Err(DataFusionError::Internal("a recursion begins with its first term".into()));
            };
            seen.new_of(&batch?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

fn all_at_once(input: SendableRecordBatchStream) -> SendableRecordBatchStream {
    let schema = input.schema();
    let whole = stream::once({
        let schema = schema.clone();
        async move {
            let batches: Vec<RecordBatch> = input.try_collect().await?;
            Ok(concat_batches(&schema, &batches)?)
        }
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, whole))
}
