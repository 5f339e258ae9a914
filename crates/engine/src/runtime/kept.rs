//! What checkpoints keep of a running dataflow: what its operators took since the last one, and the way back.
//!
//! An operator whose state follows from its inputs needs no code for this: the deltas that it takes are held (handles,
//! no copies) until the next checkpoint takes them over. Others hand over rows of their own; see [`Kept`].
//!
//! Invariant: a runtime that was restored is in the state in which it would be after the steps whose changes were kept.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use parking_lot::Mutex;
use tidewire_operators::arrangement::Arrangement;
use tidewire_operators::{Kept, Operator, StateChanges, StepContext};
use tidewire_planner::{Dataflow, NodeKind};
use tidewire_state::{Files, StateCut, StateFiles, StatePart, ViewFiles};
use tidewire_types::{Delta, Epoch, Result};

use super::{NodeState, Origin, Runtime, panic_error};
use crate::workers::Workers;

/// How operators make state of what is kept of them. Another number: views are built again. To be raised when an operator
/// would make other state of the same rows, or keeps other rows of its own.
const STATE_VERSION: u32 = 1;
/// Bytes from which copying them takes longer than to wake another thread for a part of them.
const PARALLEL_BYTES_MIN: usize = 1 << 20;

/// What the state of a dataflow means: where two are equal, one reads what the other has kept.
///
/// Plans hold hash maps (what CASE looks up, what fields say), which tell their parts in another order at each start: of
/// all that only debugging shows, the words count and not their order, which the description has.
pub fn fingerprint(dataflow: &Dataflow) -> String {
    let mut text = format!("{STATE_VERSION} {:?}", dataflow.identity);
    let mut words = 0u128;
    for (id, node) in dataflow.nodes.iter().enumerate() {
        text.push_str(&format!("\n{} {:?}", dataflow.describe(id), node.inputs));
        for field in node.schema.fields() {
            text.push_str(&format!(" {} {} {}", field.name(), field.data_type(), field.is_nullable()));
        }
        let all = format!("{:?} {:?}", node.schema, node.kind);
        let each = all.split(|c: char| c.is_whitespace() || ",:{}()[]".contains(c));
        words = each.fold(words, |sum, word| sum.wrapping_add(fnv(word)));
    }
    tracing::trace!(%text, "fingerprint");
    format!("{:032x}", fnv(&format!("{text} {words:x}")))
}

/// FNV-1a with 128 bits.
fn fnv(text: &str) -> u128 {
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// What one node has taken since the last checkpoint.
pub(super) struct Held {
    kept: Kept,
    schemas: Vec<SchemaRef>,
    shards: Vec<HeldShard>,
    n_bytes: usize,
}

#[derive(Default)]
struct HeldShard {
    /// For each input.
    inputs: Vec<Vec<Delta>>,
    /// Handed over by the operator.
    rows: Vec<StateChanges>,
    /// Whether the operator has more to hand over.
    touched: bool,
}

impl Held {
    /// A step begins.
    pub(super) fn note(&mut self, by_shard: &[Vec<Vec<Delta>>], first: bool) {
        for (held, inputs) in self.shards.iter_mut().zip(by_shard) {
            held.touched |= first || inputs.iter().any(|deltas| !deltas.is_empty());
            if !matches!(self.kept, Kept::Inputs) {
                continue;
            }
            for (held, deltas) in held.inputs.iter_mut().zip(inputs) {
                for delta in deltas.iter().filter(|delta| !delta.is_empty()) {
                    self.n_bytes += delta_bytes(delta);
                    held.push(delta.clone());
                }
            }
        }
    }
}

impl Runtime {
    /// From now on it holds what the next checkpoint must have. Called before the first step.
    pub fn keep(&mut self) {
        let schemas: Vec<SchemaRef> = self.nodes.iter().map(|n| n.node.schema.clone()).collect();
        for state in &mut self.nodes {
            let NodeKind::Operator(plan) = &state.node.kind else { continue };
            if state.origin != Origin::Own {
                continue;
            }
            let kept = plan.kept();
            match kept {
                Kept::Nothing => continue,
                Kept::Inputs => {}
                Kept::Rows { .. } => state.shards.iter_mut().flatten().for_each(|operator| operator.track_changes()),
            }
            let schemas: Vec<SchemaRef> = state.node.inputs.iter().filter_map(|id| schemas.get(*id).cloned()).collect();
            let shard = || HeldShard { inputs: vec![vec![]; schemas.len()], ..HeldShard::default() };
            let shards = state.shards.iter().map(|_| shard()).collect();
            state.held = Some(Held { kept, schemas, shards, n_bytes: 0 });
        }
    }

    /// Bytes, about, of what is held for the next checkpoint.
    pub fn held_bytes(&self) -> usize {
        self.nodes.iter().filter_map(|n| n.held.as_ref()).map(|held| held.n_bytes).sum()
    }

    /// Bytes, about, that `collect_changes` would copy.
    pub fn changed_bytes(&self) -> usize {
        let of_node = |n: &NodeState| match &n.held {
            Some(Held { kept: Kept::Rows { .. }, .. }) => {
                n.shards.iter().flatten().map(|operator| operator.changed_bytes()).sum()
            }
            _ => 0,
        };
        self.nodes.iter().map(of_node).sum()
    }

    /// Has operators hand over their own rows now: what a checkpoint finds handed over it need not copy. Shards work side by
    /// side where there is much to copy, and `workers` are given.
    pub fn collect_changes(&mut self, workers: Option<&Workers>) {
        let workers = workers.filter(|_| self.changed_bytes() >= PARALLEL_BYTES_MIN);
        let mut jobs: Vec<Vec<Collect>> = (0..self.n_shards).map(|_| vec![]).collect();
        for (node_idx, state) in self.nodes.iter_mut().enumerate() {
            let Some(held) = state.held.as_mut().filter(|held| matches!(held.kept, Kept::Rows { .. })) else {
                continue;
            };
            for ((job, held), slot) in jobs.iter_mut().zip(&mut held.shards).zip(&mut state.shards) {
                if held.touched
                    && let Some(operator) = slot.take()
                {
                    held.touched = false;
                    job.push(Collect { node_idx, operator });
                }
            }
        }
        let run = |job: Vec<Collect>| move || job.into_iter().map(Collect::run).collect::<Vec<_>>();
        let jobs = jobs.into_iter().map(run);
        let done = match workers {
            Some(workers) => workers.run(jobs.collect()),
            None => Ok(jobs.map(|job| job()).collect()),
        };
        let done = done.unwrap_or_else(|error| {
            // The operators are lost, as their next step says; what a checkpoint would have without them is no state.
            for shard in self.nodes.iter_mut().filter_map(|n| n.held.as_mut()).flat_map(|held| &mut held.shards) {
                let error = error.clone();
                shard.rows.push(Box::new(|| Err(error)));
            }
            vec![]
        });
        for (shard_idx, done) in done.into_iter().enumerate() {
            for Collected { node_idx, operator, n_bytes, rows } in done {
                let Some(state) = self.nodes.get_mut(node_idx) else { continue };
                if let Some(slot) = state.shards.get_mut(shard_idx) {
                    *slot = Some(operator);
                }
                if let Some(held) = &mut state.held
                    && let Some(shard) = held.shards.get_mut(shard_idx)
                {
                    held.n_bytes += n_bytes;
                    shard.rows.push(rows);
                }
            }
        }
    }

    /// What changed since the last call, for a checkpoint.
    pub fn take_changes(&mut self, workers: Option<&Workers>) -> Vec<StateCut> {
        self.collect_changes(workers);
        let mut cuts = vec![];
        for (node, state) in (0_u32..).zip(&mut self.nodes) {
            let Some(held) = &mut state.held else { continue };
            held.n_bytes = 0;
            for (shard, held_shard) in (0_u32..).zip(&mut held.shards) {
                for ((input, deltas), schema) in (0_u32..).zip(&mut held_shard.inputs).zip(&held.schemas) {
                    if deltas.is_empty() {
                        continue;
                    }
                    let (part, deltas) = (StatePart { node, shard, input: Some(input) }, std::mem::take(deltas));
                    let changes = Box::new(move || Ok(deltas));
                    cuts.push(StateCut { part, schema: schema.clone(), n_key_columns: None, changes });
                }
                if let Kept::Rows { schema, n_key_columns } = &held.kept
                    && !held_shard.rows.is_empty()
                {
                    let (part, rows) = (StatePart { node, shard, input: None }, std::mem::take(&mut held_shard.rows));
                    let changes = move || {
                        let lists = rows.into_iter().map(|rows| rows()).collect::<Result<Vec<_>>>()?;
                        Ok(lists.into_iter().flatten().collect())
                    };
                    let (schema, n_key_columns) = (schema.clone(), *n_key_columns);
                    cuts.push(StateCut { part, schema, n_key_columns, changes: Box::new(changes) });
                }
            }
        }
        cuts
    }

    /// Takes what a checkpoint has kept, in place of `start`: shards side by side, and the view's rows too, where it has any.
    ///
    /// Errors: a file that is damaged, rows that an operator does not take. Then the view is to be built again.
    pub fn restore(
        &mut self,
        saved: &ViewFiles,
        files: &Files,
        relation: Option<&mut Arrangement>,
        epoch: Epoch,
        now_us: i64,
    ) -> Result<()> {
        self.set_taken(&saved.n_taken);
        let schemas: Vec<SchemaRef> = self.nodes.iter().map(|n| n.node.schema.clone()).collect();
        let mut tasks: VecDeque<Task<'_>> = relation.map(Task::Relation).into_iter().collect();
        for (node, state) in (0_u32..).zip(&mut self.nodes) {
            let NodeKind::Operator(plan) = &state.node.kind else { continue };
            let kept = plan.kept();
            let schemas: Vec<SchemaRef> = state.node.inputs.iter().filter_map(|id| schemas.get(*id).cloned()).collect();
            for (shard, operator) in (0_u32..).zip(state.shards.iter_mut().flatten()) {
                let of_shard = |files: &&StateFiles| files.part.node == node && files.part.shard == shard;
                let parts: Vec<&StateFiles> = saved.operators.iter().filter(of_shard).collect();
                let operator = operator.as_mut();
                tasks.push_back(Task::Shard(Shard { operator, kept: kept.clone(), schemas: schemas.clone(), parts }));
            }
        }
        let tasks = Mutex::new(tasks);
        let last_step = Mutex::new(Ok(self.step));
        let work = || {
            loop {
                let Some(task) = tasks.lock().pop_front() else { break };
                let run = || match task {
                    Task::Shard(shard) => shard.load(files, now_us),
                    Task::Relation(relation) => load_relation(relation, saved, files, epoch),
                };
                let result =
                    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(panic_error(panic.as_ref())));
                let mut last_step = last_step.lock();
                match (&*last_step, result) {
                    (Err(_), _) => return,
                    (Ok(last), Ok(step)) => *last_step = Ok((*last).max(step)),
                    (Ok(_), Err(error)) => *last_step = Err(error),
                }
            }
        };
        thread::scope(|scope| {
            (1..self.n_shards).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        self.step = last_step.into_inner()?;
        Ok(())
    }
}

/// One shard of an operator that hands over its rows. It owns the operator, so that it can go to another thread and back.
struct Collect {
    node_idx: usize,
    operator: Box<dyn Operator>,
}

struct Collected {
    node_idx: usize,
    operator: Box<dyn Operator>,
    n_bytes: usize,
    rows: StateChanges,
}

impl Collect {
    fn run(mut self) -> Collected {
        let n_bytes = self.operator.changed_bytes();
        let taken = catch_unwind(AssertUnwindSafe(|| self.operator.take_changes()))
            .unwrap_or_else(|panic| Err(panic_error(panic.as_ref())));
        // A failure is met when the rows are wanted.
        let rows = taken.unwrap_or_else(|error| Box::new(|| Err(error)));
        Collected { node_idx: self.node_idx, operator: self.operator, n_bytes, rows }
    }
}

enum Task<'a> {
    Shard(Shard<'a>),
    Relation(&'a mut Arrangement),
}

/// One shard of one operator, to be loaded.
struct Shard<'a> {
    operator: &'a mut dyn Operator,
    kept: Kept,
    schemas: Vec<SchemaRef>,
    parts: Vec<&'a StateFiles>,
}

impl Shard<'_> {
    /// The last step that it has counted.
    fn load(self, files: &Files, now_us: i64) -> Result<Epoch> {
        let Shard { operator, kept, schemas, parts } = self;
        // They were told when the rows came.
        let row_errors = Mutex::new(vec![]);
        let cx = |epoch| StepContext { epoch, now_us, row_errors: &row_errors };
        let mut step = Epoch(1);
        if let Kept::Rows { schema, n_key_columns } = &kept
            && !parts.is_empty()
        {
            for part in parts {
                files.read_state(part, *n_key_columns, &mut |deltas| {
                    deltas.iter().try_for_each(|delta| operator.restore(&with_schema(delta, schema)?))
                })?;
            }
            return Ok(step);
        }
        operator.start(&cx(step), &mut vec![])?;
        for part in parts {
            let input_idx = part.part.input.map_or(usize::MAX, |input| input as usize);
            let Some(schema) = schemas.get(input_idx) else { continue };
            files.read_state(part, None, &mut |deltas| {
                step = step.next();
                let mut inputs: Vec<Vec<Delta>> = vec![vec![]; schemas.len()];
                if let Some(input) = inputs.get_mut(input_idx) {
                    *input = deltas.iter().map(|delta| with_schema(delta, schema)).collect::<Result<_>>()?;
                }
                operator.load(&mut inputs, &cx(step))?;
                row_errors.lock().clear();
                Ok(())
            })?;
        }
        Ok(step)
    }
}

fn load_relation(relation: &mut Arrangement, saved: &ViewFiles, files: &Files, epoch: Epoch) -> Result<Epoch> {
    let schema = relation.reader().schema();
    files.read_table(&saved.relation, &mut |deltas| {
        let deltas = deltas.iter().map(|delta| with_schema(delta, &schema)).collect::<Result<Vec<_>>>()?;
        relation.load(&deltas, epoch)
    })?;
    relation.settle(1)?;
    Ok(Epoch(0))
}

fn with_schema(delta: &Delta, schema: &SchemaRef) -> Result<Delta> {
    let options = RecordBatchOptions::new().with_row_count(Some(delta.n_rows()));
    let columns = delta.rows().columns().to_vec();
    Ok(delta.with_rows(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?))
}

/// Bytes of the rows themselves: what they share with others is not counted.
pub fn delta_bytes(delta: &Delta) -> usize {
    let weights = delta.weights().map_or(0, |weights| weights.len() * size_of::<i64>());
    delta.rows().columns().iter().map(array_bytes).sum::<usize>() + weights
}

fn array_bytes(array: &ArrayRef) -> usize {
    let views = |views: &[u128]| views.iter().map(|view| 16 + (*view as u32) as usize).sum();
    match array.data_type() {
        DataType::Utf8View => views(array.as_string_view().views()),
        DataType::BinaryView => views(array.as_binary_view().views()),
        DataType::Struct(_) => array.as_struct().columns().iter().map(array_bytes).sum(),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            let (first, last) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
            let values = list.values().slice(first as usize, (last - first) as usize);
            array_bytes(&values) + size_of_val::<[i32]>(offsets)
        }
        other => other.primitive_width().unwrap_or(16) * array.len(),
    }
}
