//! WITH RECURSIVE .. UNION keeps each row once.
//!
//! DataFusion takes a row for new whose group has a higher number than those before it. But where keys of several columns,
//! or arrays, have one hash (as NULL and an empty array have, or (1, NULL) and (NULL, 1)), it numbers the groups in another
//! order than that of the rows, and loses those that got a lower number. So the rows that are new are found here, and
//! DataFusion is told to keep all.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
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
use futures::StreamExt;
use parking_lot::Mutex;
use tidewire_types::as_grouped;

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
    converter: RowConverter,
    rows: HashSet<Box<[u8]>>,
    n_bytes: usize,
    reservation: MemoryReservation,
}

impl Seen {
    fn new(schema: &SchemaRef, context: &TaskContext) -> Result<Seen> {
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let reservation = MemoryConsumer::new("NewRowsExec").register(context.memory_pool());
        Ok(Seen { converter: RowConverter::new(fields)?, rows: HashSet::new(), n_bytes: 0, reservation })
    }

    /// The rows of the batch that were not seen before. Errors: of the memory limit.
    fn new_of(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = batch.columns().iter().map(as_grouped).collect();
        let rows = self.converter.convert_columns(&columns)?;
        let mut is_new = |row: &[u8]| {
            let is_new = !self.rows.contains(row);
            if is_new {
                self.n_bytes += row.len();
                self.rows.insert(row.into());
            }
            is_new
        };
        let mask: BooleanArray = rows.iter().map(|row| Some(is_new(row.as_ref()))).collect();
        self.reservation.try_resize(self.n_bytes + self.rows.capacity() * size_of::<(Box<[u8]>, u8)>())?;
        Ok(filter_record_batch(batch, &mask)?)
    }
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
        let seen = self.seen.clone();
        let rows = self.input.execute(partition, context)?.map(move |batch| {
            let mut seen = seen.lock();
            let Some(seen) = seen.as_mut() else {
                return Err(DataFusionError::Internal("a recursion begins with its first term".into()));
            };
            seen.new_of(&batch?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
