//! How batch queries run a [`FlatMap`](super::FlatMap): slice by slice of the input, so that memory follows the rows
//! of one slice.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr, PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::{StreamExt, stream};
use tidewire_operators::flat_map::{FlatMap, SetCall, SliceRows};

/// Makes the physical plan of a [`FlatMap`](super::FlatMap).
pub(crate) struct FlatMapPlanner;

#[async_trait]
impl ExtensionPlanner for FlatMapPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<super::FlatMap>() else { return Ok(None) };
        let ([logical], [input]) = (logical_inputs, physical_inputs) else {
            return Err(DataFusionError::Internal("FlatMap has one input".into()));
        };
        let physical = |expr, schema| planner.create_physical_expr(expr, schema, session, context);
        let mut calls = vec![];
        for call in &node.calls {
            let args = call.args.iter().map(|arg| physical(arg, logical.schema())).collect::<Result<Vec<_>>>()?;
            calls.push(SetCall { function: call.function.clone(), args });
        }
        let kept = node.kept.iter().map(|column| logical.schema().index_of_column(column)).collect::<Result<_>>()?;
        let schema = datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(node);
        let filter = node.filter.as_ref().map(|filter| physical(filter, schema)).transpose()?;
        let schema: SchemaRef = schema.inner().clone();
        let plan = FlatMap { calls, kept, ordinality: node.ordinality.is_some(), filter, outer: node.outer, schema };
        Ok(Some(Arc::new(FlatMapExec::new(input.clone(), plan))))
    }
}

/// The operator.
#[derive(Debug)]
pub(crate) struct FlatMapExec {
    input: Arc<dyn ExecutionPlan>,
    plan: FlatMap,
    properties: Arc<PlanProperties>,
}

impl FlatMapExec {
    fn new(input: Arc<dyn ExecutionPlan>, plan: FlatMap) -> FlatMapExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(plan.schema.clone()),
            datafusion::physical_plan::Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        FlatMapExec { input, plan, properties: Arc::new(properties) }
    }
}

impl DisplayAs for FlatMapExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlatMapExec: {}", self.plan)
    }
}

impl ExecutionPlan for FlatMapExec {
    fn name(&self) -> &str {
        "FlatMapExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for expr in self.plan.calls.iter().flat_map(|call| &call.args).chain(&self.plan.filter) {
            if f(expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = <[Arc<dyn ExecutionPlan>; 1]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("FlatMapExec has one input".into()))?;
        Ok(Arc::new(FlatMapExec::new(input, self.plan.clone())))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let mode = datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(mode))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context.clone())?;
        let reservation = MemoryConsumer::new("FlatMapExec").register(context.memory_pool());
        let expand = Arc::new(Expand {
            plan: self.plan.clone(),
            reservation,
            batch_rows: context.session_config().batch_size(),
        });
        let rows = input.flat_map(move |batch| {
            let expand = expand.clone();
            let batches: Box<dyn Iterator<Item = Result<RecordBatch>> + Send> = match batch {
                Ok(batch) => Box::new(expand.slices(batch).flatten()),
                Err(error) => Box::new(std::iter::once(Err(error))),
            };
            stream::iter(batches)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.plan.schema.clone(), rows)))
    }
}

struct Expand {
    plan: FlatMap,
    reservation: MemoryReservation,
    batch_rows: usize,
}

impl Expand {
    /// What the batch gives, slice by slice.
    fn slices(self: Arc<Self>, batch: RecordBatch) -> impl Iterator<Item = Vec<Result<RecordBatch>>> {
        let (mut offset, mut rows) = (0, SliceRows::ONE);
        std::iter::from_fn(move || {
            while offset < batch.num_rows() {
                let n_in = rows.of(batch.num_rows(), offset);
                match (self.expanded(&batch.slice(offset, n_in)), SliceRows::instead(n_in)) {
                    // Each row by itself may be well.
                    (Err(_), Some(fewer)) => rows = fewer,
                    (Err(error), None) => {
                        offset = batch.num_rows();
                        return Some(vec![Err(error)]);
                    }
                    (Ok(expanded), _) => {
                        offset += n_in;
                        rows = SliceRows::after(n_in, expanded.num_rows());
                        return Some(self.batches(&expanded));
                    }
                }
            }
            None
        })
    }

    fn expanded(&self, slice: &RecordBatch) -> Result<RecordBatch> {
        let rows = self.plan.rows(slice)?.rows;
        self.reservation.try_resize(rows.get_array_memory_size())?;
        Ok(rows)
    }

    fn batches(&self, rows: &RecordBatch) -> Vec<Result<RecordBatch>> {
        let offsets = (0..rows.num_rows()).step_by(self.batch_rows.max(1));
        offsets.map(|at| Ok(rows.slice(at, self.batch_rows.min(rows.num_rows() - at)))).collect()
    }
}
