//! What checkpoints keep of a running dataflow: what its operators took since the last one, and the way back.
//!
//! An operator whose state follows from its inputs needs no code for this: the deltas that it takes are held (handles,
//! no copies) until the next checkpoint takes them over. Others hand over rows of their own, which are copied little by
//! little after the cut; see [`Kept`].
//!
//! Invariant: a runtime that was restored is in the state in which it would be after the steps whose changes were kept.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use tidewire_operators::arrangement::Arrangement;
use tidewire_operators::{Kept, Operator, StateChanges, StepContext};
use tidewire_planner::{Dataflow, NodeKind};
use tidewire_state::{Files, StateCut, StateFiles, StatePart, ViewFiles, delta_bytes};
use tidewire_types::{Delta, Epoch, Result, SqlError};

use super::{Origin, Runtime, panic_error};

/// How operators make state of what is kept of them. Another number: views are built again. To be raised when an operator
/// would make other state of the same rows, or keeps other rows of its own.
const STATE_VERSION: u32 = 1;

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
    /// Whether the operator has something to hand over.
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

    /// What changed since the last call, for a checkpoint. What operators hand over of their own is copied by `copy_changes`,
    /// which must be called until it has nothing to do: the checkpoint waits for it. `may_be_all` as for
    /// [`Operator::take_changes`].
    pub fn take_changes(&mut self, may_be_all: bool) -> Vec<StateCut> {
        let mut cuts = vec![];
        for (node, state) in (0_u32..).zip(&mut self.nodes) {
            let Some(held) = &mut state.held else { continue };
            held.n_bytes = 0;
            for ((shard, held_shard), operator) in (0_u32..).zip(&mut held.shards).zip(&mut state.shards) {
                for ((input, deltas), schema) in (0_u32..).zip(&mut held_shard.inputs).zip(&held.schemas) {
                    if deltas.is_empty() {
                        continue;
                    }
                    let (part, deltas) = (StatePart { node, shard, input: Some(input) }, std::mem::take(deltas));
                    let rows = Box::new(move || Ok(deltas));
                    cuts.push(StateCut { part, schema: schema.clone(), n_key_columns: None, is_all_for: None, rows });
                }
                if let Kept::Rows { schema, n_key_columns } = &held.kept
                    && std::mem::take(&mut held_shard.touched)
                {
                    let taken = guarded(operator, |operator| operator.take_changes(may_be_all));
                    // A failure is met when the rows are wanted.
                    let failed = |error| StateChanges { is_all_for: None, rows: Box::new(|| Err(error)) };
                    let StateChanges { is_all_for, rows } = taken.unwrap_or_else(failed);
                    let part = StatePart { node, shard, input: None };
                    let (schema, n_key_columns) = (schema.clone(), *n_key_columns);
                    cuts.push(StateCut { part, schema, n_key_columns, is_all_for, rows });
                }
            }
        }
        cuts
    }

    /// Copies about so many bytes more of what `take_changes` has said. Returns how many; 0: nothing is left.
    pub fn copy_changes(&mut self, n_bytes_max: usize) -> usize {
        let mut n_bytes = 0;
        for operator in self.nodes.iter_mut().filter(|n| n.held.is_some()).flat_map(|n| &mut n.shards) {
            if n_bytes >= n_bytes_max {
                break;
            }
            // Of one that is lost nothing can be copied: whoever waits for it is told.
            n_bytes += guarded(operator, |operator| Ok(operator.copy_changes(n_bytes_max - n_bytes))).unwrap_or(0);
        }
        n_bytes
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

/// Calls an operator between two steps. One that panics is lost, as its next step says.
fn guarded<T>(slot: &mut Option<Box<dyn Operator>>, call: impl FnOnce(&mut dyn Operator) -> Result<T>) -> Result<T> {
    let operator = slot.as_deref_mut().ok_or_else(|| SqlError::internal("an operator failed before"))?;
    catch_unwind(AssertUnwindSafe(|| call(operator))).unwrap_or_else(|panic| {
        *slot = None;
        Err(panic_error(panic.as_ref()))
    })
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
        operator.end_load(&cx(step))?;
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
