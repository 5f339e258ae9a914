//! Windows in batch queries: the operator of the views, over all rows at once.
//!
//! DataFusion's own window node has no EXCLUDE, other frames at NULLs and infinities, other types of results, and breaks ties
//! as rows happen to come. So it is replaced after DataFusion's rules have run, which know windows well.

use std::cmp::Ordering;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, Result, ScalarValue};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{Distribution, EquivalenceProperties};
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, InputDistributionRequirements, PhysicalExpr,
    PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tidewire_operators::StepContext;
use tidewire_operators::window::Window;
use tidewire_types::{Delta, Epoch, SqlError};

use super::spec::{Spec, is_hashable, names, specs, stacked};
use crate::provider::to_datafusion;

/// Puts the operator in the place of DataFusion's window nodes.
pub(crate) fn replace(plan: LogicalPlan) -> Result<LogicalPlan> {
    // From above: of windows that stand on each other the highest one takes the others in.
    plan.transform_down_with_subqueries(|plan| {
        let LogicalPlan::Window(window) = plan else { return Ok(Transformed::no(plan)) };
        let (window_expr, input) = stacked(&window);
        let node = WindowNode { input: Arc::unwrap_or_clone(input), window_expr, schema: window.schema };
        Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: Arc::new(node) })))
    })
    .map(|t| t.data)
}

/// A window node as DataFusion had it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowNode {
    input: LogicalPlan,
    window_expr: Vec<Expr>,
    schema: DFSchemaRef,
}

impl PartialOrd for WindowNode {
    fn partial_cmp(&self, other: &WindowNode) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for WindowNode {
    fn name(&self) -> &str {
        "Window"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.window_expr.clone()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exprs: Vec<_> = self.window_expr.iter().map(ToString::to_string).collect();
        write!(f, "Window: {}", exprs.join(", "))
    }

    fn with_exprs_and_inputs(&self, window_expr: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let input = inputs.pop().ok_or_else(|| to_datafusion(SqlError::internal("a window without input")))?;
        Ok(WindowNode { input, window_expr, schema: self.schema.clone() })
    }
}

/// Makes the physical plan of windows.
pub(crate) struct WindowPlanner;

#[async_trait]
impl ExtensionPlanner for WindowPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical: &[&LogicalPlan],
        physical: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<WindowNode>() else { return Ok(None) };
        let (Some(logical), Some(input)) = (logical.first(), physical.first()) else { return Ok(None) };
        let n_input = logical.schema().fields().len();
        let fields: Vec<FieldRef> = node.schema.fields().iter().skip(n_input).cloned().collect();
        let specs = specs(&node.window_expr, &fields).map_err(to_datafusion)?;
        let names = names(logical.schema());
        let mut plan = Arc::clone(input);
        let mut results: Vec<Option<usize>> = vec![None; fields.len()];
        for spec in &specs {
            let exprs = spec
                .exprs()
                .into_iter()
                .map(|expr| planner.create_physical_expr(&expr, logical.schema(), session, context));
            let exprs = exprs.collect::<Result<Vec<_>>>()?;
            let (with_exprs, places) = columns(plan, exprs)?;
            for ((idx, _), place) in spec.results().zip(with_exprs.schema().fields().len()..) {
                if let Some(slot) = results.get_mut(idx) {
                    *slot = Some(place);
                }
            }
            plan = Arc::new(WindowExec::new(spec, &places, &names, with_exprs).map_err(to_datafusion)?);
        }
        projected(plan, n_input, &results, &fields).map(Some)
    }
}

/// The input with a column for each expression, and the places of these.
fn columns(
    input: Arc<dyn ExecutionPlan>,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
) -> Result<(Arc<dyn ExecutionPlan>, Vec<usize>)> {
    let schema = input.schema();
    let mut all: Vec<ProjectionExpr> = vec![];
    for (idx, field) in schema.fields().iter().enumerate() {
        all.push(ProjectionExpr { expr: Arc::new(Column::new(field.name(), idx)), alias: field.name().clone() });
    }
    let mut places = vec![];
    for expr in exprs {
        match expr.downcast_ref::<Column>() {
            Some(column) => places.push(column.index()),
            None => {
                places.push(all.len());
                all.push(ProjectionExpr { expr, alias: format!("__window_{}", all.len()) });
            }
        }
    }
    if all.is_empty() {
        // The operator takes rows without columns for no rows.
        let expr = Arc::new(Literal::new(ScalarValue::Boolean(Some(true))));
        all.push(ProjectionExpr { expr, alias: "__window_row".into() });
    }
    if all.len() == schema.fields().len() {
        return Ok((input, places));
    }
    Ok((Arc::new(ProjectionExec::try_new(all, input)?), places))
}

/// The query's columns and the results, in the order of the logical plan.
fn projected(
    plan: Arc<dyn ExecutionPlan>,
    n_input: usize,
    results: &[Option<usize>],
    fields: &[FieldRef],
) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = plan.schema();
    let picked = (0..n_input).map(Some).chain(results.iter().copied());
    let is_there = picked.clone().enumerate().all(|(idx, place)| place == Some(idx));
    if is_there && schema.fields().len() == n_input + fields.len() {
        return Ok(plan);
    }
    let exprs = picked.map(|place| {
        let idx = place.ok_or_else(|| to_datafusion(SqlError::internal("a result is lost")))?;
        let name = schema.fields().get(idx).map_or("", |f| f.name()).to_owned();
        Ok(ProjectionExpr { expr: Arc::new(Column::new(&name, idx)), alias: name })
    });
    Ok(Arc::new(ProjectionExec::try_new(exprs.collect::<Result<Vec<_>>>()?, plan)?))
}

/// Runs the window operator over all rows of a partition.
#[derive(Debug)]
struct WindowExec {
    window: Arc<Window>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl WindowExec {
    fn new(
        spec: &Spec,
        places: &[usize],
        names: &[String],
        input: Arc<dyn ExecutionPlan>,
    ) -> tidewire_types::Result<WindowExec> {
        let window = spec.plan(places, &input.schema(), names)?;
        // What cannot run is refused before it does.
        window.build()?;
        Ok(WindowExec::over(Arc::new(window), input))
    }

    fn over(window: Arc<Window>, input: Arc<dyn ExecutionPlan>) -> WindowExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(window.schema.clone()),
            input.output_partitioning().clone(),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        WindowExec { window, input, properties: Arc::new(properties) }
    }
}

impl DisplayAs for WindowExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowExec: {}", self.window)
    }
}

impl ExecutionPlan for WindowExec {
    fn name(&self) -> &str {
        "WindowExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let schema = self.input.schema();
        let fields = self.window.partition_by.iter().filter_map(|idx| schema.fields().get(*idx).map(|f| (*idx, f)));
        let keys = fields.map(|(idx, field)| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), idx));
            is_hashable(field.data_type()).then_some(column)
        });
        let distribution = match keys.collect::<Option<Vec<_>>>() {
            Some(keys) if !keys.is_empty() => Distribution::KeyPartitioned(keys),
            _ => Distribution::SinglePartition,
        };
        InputDistributionRequirements::new(vec![distribution])
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| to_datafusion(SqlError::internal("a window without input")))?;
        Ok(Arc::new(WindowExec::over(self.window.clone(), input)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut input = self.input.execute(partition, context.clone())?;
        let memory = MemoryConsumer::new("WindowExec").register(context.memory_pool());
        let window = self.window.clone();
        let batch_size = context.session_config().batch_size();
        let output = async move {
            let mut rows = vec![];
            while let Some(batch) = input.next().await {
                let batch = batch?;
                // The rows, their encoding and their results.
                memory.try_grow(3 * batch.get_array_memory_size())?;
                rows.push(Delta::insert(batch));
            }
            let batches = run(&window, rows).map_err(to_datafusion)?;
            let parts = batches.into_iter().flat_map(move |b| slices(&b, batch_size)).map(Ok);
            // The memory is given back with the last batch.
            Ok::<_, datafusion::common::DataFusionError>(stream::iter(parts).chain(stream::once(async move {
                drop(memory);
                Ok(RecordBatch::new_empty(window.schema.clone()))
            })))
        };
        let schema: SchemaRef = self.window.schema.clone();
        let stream = stream::once(output).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

/// Errors: the first row's that has no result.
fn run(window: &Window, rows: Vec<Delta>) -> tidewire_types::Result<Vec<RecordBatch>> {
    let row_errors = Mutex::new(vec![]);
    let context = StepContext { epoch: Epoch(1), now_us: 0, row_errors: &row_errors };
    let mut out = vec![];
    window.build()?.step(&mut [rows], &context, &mut out)?;
    match row_errors.into_inner().into_iter().next() {
        Some(failed) => Err(failed.error),
        // Each copy of a row has come out with its own result.
        None => Ok(out.iter().map(|delta| delta.rows().clone()).collect()),
    }
}

fn slices(batch: &RecordBatch, size: usize) -> Vec<RecordBatch> {
    let starts = (0..batch.num_rows()).step_by(size.max(1));
    starts.map(|start| batch.slice(start, size.min(batch.num_rows() - start))).collect()
}
