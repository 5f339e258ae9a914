//! A running dataflow: the operators of one view, `n_shards` of each, and how rows move between them.
//!
//! A step takes the changes of one epoch through the dirty part of the graph, node by node in topological order. A
//! node that needs its rows by key gets them through one exchange; a large node runs its shards side by side.
//!
//! Invariant: an error or a panic in any operator leaves the runtime unusable and everything outside it untouched.

mod kept;
mod sharing;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute;
use parking_lot::Mutex;
use tidewire_operators::arrangement::Identity;
use tidewire_operators::budget::Budget;
use tidewire_operators::{Distribution, Operator, Plan, RowError, StepContext};
use tidewire_planner::{Dataflow, InputNode, Node, NodeKind};
use tidewire_types::{Delta, Epoch, ObjectId, Result, SqlError, hash_rows, shard_of};

use self::kept::Held;
pub use self::kept::fingerprint;
use crate::workers::Workers;
use crate::{OperatorStatus, Operators, Settings};

/// What changed in one object in one epoch.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Which of the object's columns the deltas have, ascending.
    pub columns: Arc<[usize]>,
    /// The changes.
    pub deltas: Vec<Delta>,
}

/// What changed in the whole server in one epoch.
pub type EpochChanges = HashMap<ObjectId, Changes>;

/// The operators of one view.
pub struct Runtime {
    dataflow: Arc<Dataflow>,
    nodes: Vec<NodeState>,
    n_shards: usize,
    parallel_rows_min: usize,
    // Counts steps: operators stamp what they touch with it, so it never repeats within one runtime.
    step: Epoch,
    // Bytes that one operator may put out in one step.
    room: usize,
}

/// Where the rows of a node come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// It makes them.
    Own,
    /// A plan that several views share, which the loop runs by itself.
    Shared(ObjectId),
    /// It makes none: only a shared plan would need them.
    Unused,
}

struct NodeState {
    node: Node,
    origin: Origin,
    description: String,
    n_uses: usize,
    // Of an input: rows that came, before the server's start too.
    n_taken: u64,
    shards: Vec<Option<Box<dyn Operator>>>,
    // For the next checkpoint, where there will be one.
    held: Option<Held>,
    // It took rows of a step that goes on, and waits for its end.
    is_waiting: bool,
    n_input_rows: u64,
    n_output_rows: u64,
    step_ns: u64,
}

/// The deltas that wait at the output of a node, a list for each shard.
type Edge = Vec<Vec<Delta>>;

/// What a step gave.
#[derive(Debug, Default)]
pub struct StepOutput {
    /// The changes of the view.
    pub deltas: Vec<Delta>,
    /// Rows that were left out because an expression failed.
    pub row_errors: Vec<RowError>,
}

impl Runtime {
    /// Operators with empty state.
    pub fn new(dataflow: &Dataflow, settings: &Settings, operators: Operators) -> Result<Runtime> {
        let Settings { n_shards, parallel_rows_min, .. } = *settings;
        let mut nodes = vec![];
        for (id, node) in dataflow.nodes.iter().enumerate() {
            let shards = match &node.kind {
                NodeKind::Operator(plan) => {
                    (0..n_shards).map(|shard| operators(plan, shard).map(Some)).collect::<Result<Vec<_>>>()?
                }
                NodeKind::Input(_) | NodeKind::Constant(_) => vec![],
            };
            let node = node.clone();
            let description = dataflow.describe(id);
            nodes.push(NodeState {
                node,
                origin: Origin::Own,
                description,
                n_uses: 0,
                n_taken: 0,
                shards,
                held: None,
                is_waiting: false,
                n_input_rows: 0,
                n_output_rows: 0,
                step_ns: 0,
            });
        }
        let dataflow = Arc::new(dataflow.clone());
        let mut runtime = Runtime { dataflow, nodes, n_shards, parallel_rows_min, step: Epoch(0), room: usize::MAX };
        runtime.count_uses();
        Ok(runtime)
    }

    /// Of a view that could not be planned.
    pub fn without_state() -> Runtime {
        Runtime {
            dataflow: Arc::new(Dataflow { nodes: vec![], identity: Identity::Bag }),
            nodes: vec![],
            n_shards: 1,
            parallel_rows_min: usize::MAX,
            step: Epoch(0),
            room: usize::MAX,
        }
    }

    /// The objects that the dataflow reads itself.
    pub fn inputs(&self) -> impl Iterator<Item = &InputNode> {
        self.nodes.iter().filter_map(|n| match (&n.node.kind, n.origin) {
            (NodeKind::Input(input), Origin::Own) => Some(input),
            _ => None,
        })
    }

    /// From the next step on an operator that would put out more bytes at once fails with `53200`.
    pub fn set_room(&mut self, n_bytes: usize) {
        self.room = n_bytes;
    }

    /// The output before any input came: constants, and the row of a global aggregate. Called once, first.
    pub fn start(&mut self, now_us: i64) -> Result<StepOutput> {
        self.run(&EpochChanges::new(), now_us, None, Part::First)
    }

    /// Takes the changes of one epoch. Large steps use `workers`, where given.
    pub fn step(&mut self, changes: &EpochChanges, now_us: i64, workers: Option<&Workers>) -> Result<StepOutput> {
        self.run(changes, now_us, workers, Part::Last)
    }

    /// As `step`, for one that goes on: operators that gain by it put out what changed only at the `step` that ends it.
    pub fn step_part(&mut self, changes: &EpochChanges, now_us: i64, workers: Option<&Workers>) -> Result<StepOutput> {
        self.run(changes, now_us, workers, Part::Some)
    }

    fn run(
        &mut self,
        changes: &EpochChanges,
        now_us: i64,
        workers: Option<&Workers>,
        part: Part,
    ) -> Result<StepOutput> {
        self.step = self.step.next();
        let mut output = StepOutput::default();
        let mut edges: Vec<Edge> = vec![vec![]; self.nodes.len()];
        let mut uses_left: Vec<usize> = self.nodes.iter().map(|n| n.n_uses).collect();
        for (id, state) in self.nodes.iter_mut().enumerate() {
            let edge = match (state.origin, &state.node.kind) {
                (Origin::Unused, _) => continue,
                (Origin::Shared(plan), _) => match changes.get(&plan) {
                    None => continue,
                    Some(changes) => {
                        let columns: Vec<usize> = (0..state.node.schema.fields().len()).collect();
                        let deltas = changes.deltas.iter().map(|delta| project(delta, &columns, &state.node));
                        spread(deltas.collect::<Result<_>>()?, self.n_shards, self.parallel_rows_min)
                    }
                },
                (Origin::Own, NodeKind::Input(input)) => match changes.get(&input.object) {
                    None => continue,
                    Some(changes) => {
                        let deltas = input_deltas(&state.node, input, changes)?;
                        let n_rows = deltas.iter().map(|delta| delta.n_rows() as u64).sum();
                        state.n_taken = state.n_taken.saturating_add(n_rows);
                        spread(deltas, self.n_shards, self.parallel_rows_min)
                    }
                },
                (Origin::Own, NodeKind::Constant(rows)) if part == Part::First => {
                    vec![vec![Delta::insert(rows.clone())]]
                }
                (Origin::Own, NodeKind::Constant(_)) => continue,
                (Origin::Own, NodeKind::Operator(_)) => {
                    let inputs = take_inputs(&state.node.inputs, &mut edges, &mut uses_left);
                    let parallel_rows_min = self.parallel_rows_min;
                    let shared = Step { step: self.step, now_us, part, parallel_rows_min, room: self.room };
                    state.run(inputs, self.n_shards, shared, workers, &mut output.row_errors)?
                }
            };
            if let Some(slot) = edges.get_mut(id) {
                *slot = edge;
            }
        }
        output.deltas = edges.pop().into_iter().flatten().flatten().filter(|d| !d.is_empty()).collect();
        Ok(output)
    }

    /// Whether there are rows that may not be: while there are, the output means nothing.
    pub fn is_violated(&self) -> bool {
        let own = self.nodes.iter().filter(|n| n.origin == Origin::Own && n.asserts());
        own.flat_map(|n| n.shards.iter().flatten()).any(|operator| operator.n_violations() > 0)
    }

    /// Rows, time and state of each node, in the order of the dataflow.
    pub fn status(&self) -> Vec<OperatorStatus> {
        self.nodes.iter().map(NodeState::status).collect()
    }

    /// Bytes of all operator state.
    pub fn state_bytes(&self) -> usize {
        self.nodes.iter().flat_map(|n| n.shards.iter().flatten()).map(|op| op.state_bytes()).sum()
    }
}

/// Which part of a step is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Before any input: see [`Operator::start`].
    First,
    /// Of a step that goes on.
    Some,
    /// The whole, or what ends it.
    Last,
}

#[derive(Clone, Copy)]
struct Step {
    step: Epoch,
    now_us: i64,
    part: Part,
    parallel_rows_min: usize,
    room: usize,
}

impl NodeState {
    /// Runs every shard that has something to do.
    fn run(
        &mut self,
        inputs: Vec<Edge>,
        n_shards: usize,
        step: Step,
        workers: Option<&Workers>,
        row_errors: &mut Vec<RowError>,
    ) -> Result<Edge> {
        let n_rows: usize = inputs.iter().flatten().flatten().map(Delta::n_rows).sum();
        let NodeKind::Operator(plan) = &self.node.kind else { return Ok(vec![]) };
        let runs_all = step.part == Part::First || self.is_waiting && step.part == Part::Last;
        if n_rows == 0 && !runs_all {
            return Ok(vec![]);
        }
        let began = Instant::now();
        self.is_waiting = step.part == Part::Some && plan.waits_for_step();
        let workers = workers.filter(|_| n_rows >= step.parallel_rows_min || runs_all);
        let mut by_shard: Vec<Vec<Vec<Delta>>> = vec![vec![]; n_shards];
        for (input_idx, edge) in inputs.into_iter().enumerate() {
            let edge = exchange(edge, &plan.distribution(input_idx), n_shards, workers)?;
            for (shard, deltas) in by_shard.iter_mut().zip(edge.into_iter().chain(std::iter::repeat(vec![]))) {
                shard.push(deltas);
            }
        }
        if let Some(held) = &mut self.held {
            held.note(&by_shard, step.part == Part::First);
        }
        let mut tasks = vec![];
        let budget = Budget::new(step.room);
        for (shard_idx, (slot, inputs)) in self.shards.iter_mut().zip(by_shard).enumerate() {
            if runs_all || inputs.iter().any(|deltas| !deltas.is_empty()) {
                let operator = slot.take().ok_or_else(|| SqlError::internal("an operator failed before"))?;
                tasks.push(Task { shard_idx, operator, inputs, step, budget: budget.clone() });
            }
        }
        let done = match workers {
            Some(workers) if tasks.len() > 1 => {
                workers.run(tasks.into_iter().map(|task| move || task.run()).collect())?
            }
            _ => tasks.into_iter().map(Task::run).collect(),
        };
        let mut edge: Edge = vec![vec![]; n_shards];
        for Done { shard_idx, operator, output, errors } in done {
            row_errors.extend(errors);
            let output = output?;
            if let (Some(slot), Some(out)) = (self.shards.get_mut(shard_idx), edge.get_mut(shard_idx)) {
                *slot = Some(operator);
                *out = output;
            }
        }
        self.n_input_rows += n_rows as u64;
        self.n_output_rows += edge.iter().flatten().map(|d| d.n_rows() as u64).sum::<u64>();
        self.step_ns += began.elapsed().as_nanos() as u64;
        Ok(edge)
    }

    fn asserts(&self) -> bool {
        matches!(&self.node.kind, NodeKind::Operator(Plan::Assert(_) | Plan::Recursion(_)))
    }

    fn status(&self) -> OperatorStatus {
        let shards = || self.shards.iter().flatten();
        OperatorStatus {
            description: self.description.clone(),
            n_input_rows: self.n_input_rows,
            n_output_rows: self.n_output_rows,
            step_ns: self.step_ns,
            state_rows: shards().map(|op| op.state_rows()).sum(),
            state_bytes: shards().map(|op| op.state_bytes()).sum(),
        }
    }
}

/// One shard's share of a step. It owns the operator, so that it can go to another thread and come back.
struct Task {
    shard_idx: usize,
    operator: Box<dyn Operator>,
    inputs: Vec<Vec<Delta>>,
    step: Step,
    budget: Arc<Budget>,
}

struct Done {
    shard_idx: usize,
    operator: Box<dyn Operator>,
    output: Result<Vec<Delta>>,
    errors: Vec<RowError>,
}

impl Task {
    fn run(mut self) -> Done {
        let row_errors = Mutex::new(vec![]);
        let cx = StepContext { epoch: self.step.step, now_us: self.step.now_us, row_errors: &row_errors };
        let (operator, inputs, part) = (&mut self.operator, &mut self.inputs, self.step.part);
        let budget = self.budget.clone();
        let result = catch_unwind(AssertUnwindSafe(|| {
            budget.run(|| {
                let mut out = vec![];
                match part {
                    Part::First => {
                        operator.start(&cx, &mut out)?;
                        if inputs.iter().any(|deltas| !deltas.is_empty()) {
                            operator.step(inputs, &cx, &mut out)?;
                        }
                    }
                    Part::Some => operator.step_part(inputs, &cx, &mut out)?,
                    Part::Last => operator.step(inputs, &cx, &mut out)?,
                }
                Ok(out)
            })
        }));
        let output = result.unwrap_or_else(|panic| Err(panic_error(panic.as_ref())));
        Done { shard_idx: self.shard_idx, operator: self.operator, output, errors: row_errors.into_inner() }
    }
}

/// What a panic said, as an error.
pub fn panic_error(panic: &(dyn std::any::Any + Send)) -> SqlError {
    let message = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_string())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic".to_string());
    SqlError::internal(message)
}

/// The input's columns of an object's changes, under the node's schema.
fn input_deltas(node: &Node, input: &InputNode, changes: &Changes) -> Result<Vec<Delta>> {
    let mut positions = vec![];
    for column in &input.columns {
        let position = changes.columns.binary_search(column);
        positions
            .push(position.map_err(|_| SqlError::internal(format!("column {column} of {} was not read", input.name)))?);
    }
    changes.deltas.iter().map(|delta| project(delta, &positions, node)).collect()
}

fn project(delta: &Delta, positions: &[usize], node: &Node) -> Result<Delta> {
    let rows = delta.rows();
    let columns = positions.iter().filter_map(|p| rows.columns().get(*p).cloned()).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(delta.with_rows(RecordBatch::try_new_with_options(node.schema.clone(), columns, &options)?))
}

/// Many rows are cut into as many parts as there are shards; few stay together on the first.
fn spread(deltas: Vec<Delta>, n_shards: usize, parallel_rows_min: usize) -> Edge {
    let n_rows: usize = deltas.iter().map(Delta::n_rows).sum();
    if n_shards == 1 || n_rows < parallel_rows_min {
        return vec![deltas];
    }
    let mut edge: Edge = vec![vec![]; n_shards];
    for delta in deltas {
        let part = delta.n_rows().div_ceil(n_shards).max(1);
        for (shard_idx, shard) in edge.iter_mut().enumerate() {
            let begin = (shard_idx * part).min(delta.n_rows());
            let len = part.min(delta.n_rows() - begin);
            if len > 0 {
                shard.push(delta.slice(begin, len));
            }
        }
    }
    edge
}

/// The deltas of a node's inputs; the last user of an edge takes it, the others get a (cheap) copy.
fn take_inputs(inputs: &[usize], edges: &mut [Edge], uses_left: &mut [usize]) -> Vec<Edge> {
    let mut taken = vec![];
    for input in inputs {
        let (Some(edge), Some(left)) = (edges.get_mut(*input), uses_left.get_mut(*input)) else { continue };
        *left = left.saturating_sub(1);
        taken.push(if *left == 0 { std::mem::take(edge) } else { edge.clone() });
    }
    taken
}

/// Moves rows to the shards that their distribution asks for.
fn exchange(edge: Edge, distribution: &Distribution, n_shards: usize, workers: Option<&Workers>) -> Result<Edge> {
    let Distribution::Hash(columns) = distribution else { return Ok(edge) };
    if n_shards == 1 || columns.is_empty() {
        return Ok(vec![edge.into_iter().flatten().filter(|d| !d.is_empty()).collect()]);
    }
    let Some(workers) = workers else { return by_hash(edge.into_iter().flatten(), columns, n_shards) };
    let columns: Arc<[usize]> = columns.as_slice().into();
    let job = |deltas: Vec<Delta>| {
        let columns = columns.clone();
        move || by_hash(deltas.into_iter(), &columns, n_shards)
    };
    let mut out: Edge = vec![vec![]; n_shards];
    for edge in workers.run(edge.into_iter().map(job).collect())? {
        out.iter_mut().zip(edge?).for_each(|(out, deltas)| out.extend(deltas));
    }
    Ok(out)
}

/// The rows of each shard.
fn by_hash(deltas: impl Iterator<Item = Delta>, columns: &[usize], n_shards: usize) -> Result<Edge> {
    let mut out: Edge = vec![vec![]; n_shards];
    let mut hashes = vec![];
    let mut rows_of: Vec<Vec<u32>> = vec![vec![]; n_shards];
    for delta in deltas.filter(|d| !d.is_empty()) {
        let keys: Vec<_> = columns.iter().filter_map(|c| delta.rows().columns().get(*c).cloned()).collect();
        hash_rows(&keys, delta.n_rows(), &mut hashes)?;
        rows_of.iter_mut().for_each(Vec::clear);
        for (row, hash) in (0u32..).zip(&hashes) {
            if let Some(rows) = rows_of.get_mut(shard_of(*hash, n_shards)) {
                rows.push(row);
            }
        }
        for (shard, rows) in out.iter_mut().zip(&rows_of) {
            if rows.len() == delta.n_rows() {
                shard.push(delta.clone());
            } else if !rows.is_empty() {
                shard.push(take(&delta, rows)?);
            }
        }
    }
    Ok(out)
}

fn take(delta: &Delta, rows: &[u32]) -> Result<Delta> {
    let indices = UInt32Array::from(rows.to_vec());
    let batch = compute::take_record_batch(delta.rows(), &indices)?;
    let weight = |weights: &Int64Array, row: u32| weights.values().get(row as usize).copied().unwrap_or(1);
    let weights = delta.weights().map(|weights| rows.iter().map(|row| weight(weights, *row)).collect());
    Ok(Delta::new(batch, weights))
}
