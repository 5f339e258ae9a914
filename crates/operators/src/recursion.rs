//! WITH RECURSIVE: the rows of a first term, then those that a second term makes of them, and so on.
//!
//! The second term (the *body*) is a dataflow of its own inside this operator. It reads the rows of the iteration
//! before, each with the number of its iteration as one more column, and relations from outside. SQL allows one
//! reference to the recursive relation, so the body is linear in it, and its operators hold the rows of all iterations
//! in one state: a change outside at once gives the changes of every iteration, each with its number.
//!
//! A step settles the iterations in ascending order. What is derived for iteration i, from outside and from the changes
//! of iteration i - 1, is complete when its turn comes; the rows of i that changed then go through the body. So a row
//! never supports itself, also where the data has cycles, and a removed row takes with it exactly what was derived from
//! it. With UNION a row is shown in the first iteration that derives it, and `Support` counts, for each iteration, how
//! often it is derived there: when the first goes, the next takes its place, without recomputing anything.
//!
//! Rows that are equal may differ ('1 day' and '24 hours'). Then they are told apart by keys, and of those that the first
//! iteration derives, the least (of their encodings) is shown.
//!
//! Invariant: after a step the state is that of an evaluation from nothing over the present input, iteration by
//! iteration. The cost follows the derivations that change. Source: nested streams in Budiu et al., "DBSP", VLDB 2023.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::physical_plan::PhysicalExpr;
use hashbrown::HashMap;
use tidewire_types::{Delta, Epoch, Result, SqlError, SqlState, as_grouped};

use crate::expr::{columns_of, sql_error};
use crate::{Operator, Plan, StepContext};

/// Parameters of the operator. Input 0 is the first term, the others are what the body reads from outside. All rows go
/// to shard 0.
#[derive(Clone, Debug)]
pub struct Recursion {
    /// The name of the relation, for errors.
    pub name: String,
    /// UNION and not UNION ALL.
    pub distinct: bool,
    /// What UNION tells rows apart by, over the columns of `schema`. None: by the rows themselves.
    pub keys: Option<Vec<Arc<dyn PhysicalExpr>>>,
    /// The body: every node comes after its inputs; the last one's output has the columns of `schema`, then the number
    /// of the iteration (bigint) that its rows were made from.
    pub body: Vec<BodyNode>,
    /// Relations that the body reads from outside.
    pub n_outer: usize,
    /// An iteration of a higher number is an error.
    pub iterations_max: i64,
    /// The rows of an iteration: the columns of `schema`, then the number of the iteration.
    pub work_schema: SchemaRef,
    /// Schema of the output.
    pub schema: SchemaRef,
}

/// A node of the body.
#[derive(Clone, Debug)]
pub enum BodyNode {
    /// The rows of the iteration before.
    Work,
    /// An operator over other nodes.
    Operator(Plan, Vec<BodyInput>),
}

/// Where a node's rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyInput {
    /// A node of the body.
    Node(usize),
    /// A relation from outside.
    Outer(usize),
}

impl Recursion {
    /// A running shard.
    pub fn build(&self) -> Result<Box<dyn Operator>> {
        let converter = encoder(self.schema.fields().iter().map(|f| f.data_type().clone()))?;
        let of_keys = |keys: &Vec<Arc<dyn PhysicalExpr>>| {
            let types = keys.iter().map(|key| key.data_type(&self.schema).map_err(sql_error));
            encoder(types.collect::<Result<Vec<_>>>()?)
        };
        let key_converter = self.keys.as_ref().map(of_keys).transpose()?;
        let build = |node: &BodyNode| match node {
            BodyNode::Work => Ok(None),
            BodyNode::Operator(plan, _) => plan.build(0).map(Some),
        };
        let operators = self.body.iter().map(build).collect::<Result<_>>()?;
        let body = Body { nodes: self.body.clone(), operators, epoch: Epoch(0) };
        Ok(Box::new(RecursionShard {
            plan: self.clone(),
            converter,
            key_converter,
            body,
            support: HashMap::new(),
            row_bytes: 0,
            loaded: vec![],
        }))
    }
}

fn encoder(types: impl IntoIterator<Item = DataType>) -> Result<RowConverter> {
    RowConverter::new(types.into_iter().map(SortField::new).collect())
        .map_err(|e| SqlError::unsupported("WITH RECURSIVE over such a type").with_detail(e.to_string()))
}

/// A row or its key, encoded.
type Encoded = Vec<u8>;

/// Rows and what is added to each.
type Changes = HashMap<Encoded, i64>;

/// What one iteration has to settle.
#[derive(Default)]
struct Pending {
    weight: i64,
    /// The same by rows, where those differ from their keys.
    forms: Vec<(Encoded, i64)>,
    /// The row was shown in this iteration and is now shown in an earlier one.
    moved: bool,
}

/// Iterations that have something to settle.
type Queue = BTreeMap<i64, HashMap<Encoded, Pending>>;

/// How often a row is derived, by iteration.
#[derive(Default)]
struct Support {
    counts: BTreeMap<i64, i64>,
    /// The same by iteration and row, where rows differ from their keys.
    forms: BTreeMap<(i64, Encoded), i64>,
    /// The iteration that it is shown in.
    shown: Option<i64>,
}

struct RecursionShard {
    plan: Recursion,
    converter: RowConverter,
    /// Where the plan has keys.
    key_converter: Option<RowConverter>,
    body: Body,
    /// Of every row by its key, for UNION; UNION ALL needs none.
    support: HashMap<Encoded, Support>,
    /// Bytes of all keys and forms.
    row_bytes: usize,
    /// Rows of the first term, while rows are loaded: nothing is derived of them before all that the body reads is there,
    /// for over a part of it the iterations might never end.
    loaded: Vec<Delta>,
}

impl Operator for RecursionShard {
    fn step(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        self.advance(inputs, cx, out)
    }

    fn load(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>) -> Result<()> {
        let mut inputs = inputs.iter_mut().map(std::mem::take);
        self.loaded.extend(inputs.next().unwrap_or_default().into_iter().filter(|delta| !delta.is_empty()));
        let outer: Vec<Vec<Delta>> = inputs.collect();
        if outer.iter().flatten().any(|d| !d.is_empty()) {
            self.body.run(vec![], &outer, cx)?;
        }
        Ok(())
    }

    fn end_load(&mut self, cx: &StepContext<'_>) -> Result<()> {
        let first_term = std::mem::take(&mut self.loaded);
        self.advance(&mut [first_term], cx, &mut vec![])
    }

    /// Its own rows, and the body's.
    fn state_rows(&self) -> usize {
        self.support.len() + self.body.operators.iter().flatten().map(|op| op.state_rows()).sum::<usize>()
    }

    fn n_violations(&self) -> i64 {
        self.body.operators.iter().flatten().map(|operator| operator.n_violations()).sum()
    }

    fn state_bytes(&self) -> usize {
        let n_rows = self.support.len();
        let body: usize = self.body.operators.iter().flatten().map(|op| op.state_bytes()).sum();
        let loaded: usize = self.loaded.iter().map(|delta| delta.rows().get_array_memory_size()).sum();
        // Mostly a row is derived in one iteration and one form, which take a B-tree node of their own each.
        let forms = if self.plan.keys.is_some() { size_of::<(i64, Encoded, i64)>() } else { 0 };
        let nodes = n_rows * (size_of::<(i64, i64)>() + forms) * 11;
        body + loaded + self.row_bytes + self.support.allocation_size() + nodes
    }
}

impl RecursionShard {
    fn advance(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        let mut queue = Queue::new();
        let mut inputs = inputs.iter_mut().map(std::mem::take);
        for delta in inputs.next().unwrap_or_default() {
            self.derive(&delta, |_| 0, &mut queue)?;
        }
        let outer: Vec<Vec<Delta>> = inputs.collect();
        if outer.iter().flatten().any(|d| !d.is_empty()) {
            let derived = self.body.run(vec![], &outer, cx)?;
            self.derive_next(derived, &mut queue)?;
        }
        let mut total = Changes::new();
        while let Some((iteration, pending)) = queue.pop_first() {
            let changes = self.settle(iteration, pending, &mut queue)?;
            if changes.is_empty() {
                continue;
            }
            if iteration > self.plan.iterations_max {
                return Err(self.endless());
            }
            for (row, weight) in &changes {
                *total.entry_ref(row.as_slice()).or_insert(0) += weight;
            }
            let rows = self.decode(&changes, Some(iteration))?;
            let derived = self.body.run(vec![rows], &[], cx)?;
            self.derive_next(derived, &mut queue)?;
        }
        total.retain(|_, weight| *weight != 0);
        if !total.is_empty() {
            out.push(self.decode(&total, None)?);
        }
        Ok(())
    }

    fn endless(&self) -> SqlError {
        let (name, max) = (&self.plan.name, self.plan.iterations_max);
        let message = format!("recursive query \"{name}\" does not end after {max} iterations");
        SqlError::new(SqlState::ProgramLimitExceeded, message)
            .with_hint("Add a condition that stops it, or use UNION instead of UNION ALL.")
    }

    /// Adds rows to what the iterations that `iteration_of` tells have to settle.
    fn derive(&self, delta: &Delta, iteration_of: impl Fn(usize) -> i64, queue: &mut Queue) -> Result<()> {
        let columns = delta.rows().columns().iter().take(self.plan.schema.fields().len());
        let columns: Vec<ArrayRef> = match self.plan.distinct {
            true => columns.map(as_grouped).collect(),
            false => columns.cloned().collect(),
        };
        let rows = self.converter.convert_columns(&columns)?;
        let keys = match (&self.plan.keys, &self.key_converter) {
            (Some(keys), Some(converter)) => {
                let keys = columns_of(keys, delta.rows()).map_err(sql_error)?;
                Some(converter.convert_columns(&keys.iter().map(as_grouped).collect::<Vec<_>>())?)
            }
            _ => None,
        };
        for (idx, row) in rows.iter().enumerate() {
            let iteration = queue.entry(iteration_of(idx)).or_default();
            let weight = delta.weight(idx);
            match &keys {
                None => iteration.entry_ref(row.data()).or_default().weight += weight,
                Some(keys) => {
                    let pending = iteration.entry_ref(keys.row(idx).data()).or_default();
                    pending.weight += weight;
                    pending.forms.push((row.data().to_vec(), weight));
                }
            }
        }
        Ok(())
    }

    /// What the body made belongs to the iteration after the one that it was made from.
    fn derive_next(&self, deltas: Vec<Delta>, queue: &mut Queue) -> Result<()> {
        for delta in deltas.into_iter().filter(|d| !d.is_empty()) {
            let number = delta.rows().columns().last().and_then(|number| number.as_primitive_opt::<Int64Type>());
            let number = number.ok_or_else(lost)?;
            let next = |idx: usize| number.values().get(idx).map_or(0, |n| n.saturating_add(1));
            self.derive(&delta, next, queue)?;
        }
        Ok(())
    }

    /// The changes of an iteration, from what was derived for it.
    fn settle(&mut self, iteration: i64, pending: HashMap<Encoded, Pending>, queue: &mut Queue) -> Result<Changes> {
        if !self.plan.distinct {
            let changes = pending.into_iter().map(|(row, p)| (row, p.weight));
            return Ok(changes.filter(|(_, weight)| *weight != 0).collect());
        }
        let mut changes = Changes::new();
        for (key, pending) in pending {
            let is_new = !self.support.contains_key(&key);
            let support = self.support.entry_ref(key.as_slice()).or_default();
            self.row_bytes += if is_new { key.len() } else { 0 };
            let before = (pending.moved || support.shown == Some(iteration)).then(|| support.form(iteration));
            self.row_bytes = self.row_bytes.saturating_add_signed(support.count_forms(iteration, pending.forms));
            support.settle(iteration, pending.weight, |other, moved| {
                let waiting = queue.entry(other).or_default().entry_ref(key.as_slice()).or_default();
                waiting.moved |= moved;
            })?;
            let after = (support.shown == Some(iteration)).then(|| support.form(iteration));
            if support.counts.is_empty() && support.shown.is_none() {
                self.support.remove(&key);
                self.row_bytes -= key.len();
            }
            if before != after {
                // Without forms the key is the row.
                let mut row = |form: Option<Encoded>, weight| {
                    changes.insert(form.unwrap_or_else(|| key.clone()), weight);
                };
                before.into_iter().for_each(|form| row(form, -1));
                after.into_iter().for_each(|form| row(form, 1));
            }
        }
        Ok(changes)
    }

    /// Encoded rows as a delta, with the number of their iteration where one is given.
    fn decode(&self, changes: &Changes, iteration: Option<i64>) -> Result<Delta> {
        let parser = self.converter.parser();
        let decoded = self.converter.convert_rows(changes.keys().map(|row| parser.parse(row)))?;
        let mut columns = vec![];
        for (column, field) in decoded.iter().zip(self.plan.schema.fields()) {
            columns.push(cast(column, field.data_type())?);
        }
        let schema = match iteration {
            None => &self.plan.schema,
            Some(number) => {
                columns.push(Arc::new(Int64Array::from(vec![number; changes.len()])));
                &self.plan.work_schema
            }
        };
        let rows = RecordBatch::try_new(Arc::clone(schema), columns)?;
        let weights: Vec<i64> = changes.values().copied().collect();
        let is_plain = weights.iter().all(|weight| *weight == 1);
        Ok(Delta::new(rows, (!is_plain).then(|| weights.into())))
    }
}

fn lost() -> SqlError {
    SqlError::internal("a recursive term without the number of its iteration")
}

impl Support {
    /// The row that stands for all that are equal to it in an iteration. None: they do not differ.
    fn form(&self, iteration: i64) -> Option<Encoded> {
        let first = self.forms.range((iteration, vec![])..).next();
        first.filter(|((of, _), _)| *of == iteration).map(|((_, form), _)| form.clone())
    }

    /// Counts rows of one iteration by what they are. Returns by how many bytes the state grows.
    fn count_forms(&mut self, iteration: i64, forms: Vec<(Encoded, i64)>) -> isize {
        let mut n_bytes = 0;
        for (form, weight) in forms {
            let len = form.len() as isize;
            match self.forms.entry((iteration, form)) {
                Entry::Vacant(_) if weight == 0 => {}
                Entry::Vacant(entry) => {
                    entry.insert(weight);
                    n_bytes += len;
                }
                Entry::Occupied(mut entry) if *entry.get() + weight != 0 => *entry.get_mut() += weight,
                Entry::Occupied(entry) => {
                    entry.remove();
                    n_bytes -= len;
                }
            }
        }
        n_bytes
    }

    /// Adds `weight` derivations in `iteration`, all earlier ones being settled, and settles whether the row is shown
    /// there. `later` is told of a later iteration that has to look at the row, and whether the row leaves it.
    fn settle(&mut self, iteration: i64, weight: i64, mut later: impl FnMut(i64, bool)) -> Result<()> {
        let count = self.counts.entry(iteration).or_insert(0);
        *count += weight;
        match *count {
            0 => {
                self.counts.remove(&iteration);
            }
            1.. => {}
            _ => return Err(SqlError::internal("a row was removed that is not there")),
        }
        let first = self.counts.first_key_value().map(|(first, _)| *first);
        match (first == Some(iteration), self.shown) {
            (true, Some(shown)) if shown == iteration => {}
            (true, shown) => {
                if let Some(shown) = shown {
                    later(shown, true);
                }
                self.shown = Some(iteration);
            }
            (false, Some(shown)) if shown == iteration => {
                self.shown = None;
                if let Some(next) = first {
                    later(next, false);
                }
            }
            // It was to be shown here, after an earlier iteration lost it, and is not derived here any more either.
            (false, None) => {
                if let Some(next) = first.filter(|first| *first > iteration) {
                    later(next, false);
                }
            }
            (false, _) => {}
        }
        Ok(())
    }
}

/// The running body.
struct Body {
    nodes: Vec<BodyNode>,
    operators: Vec<Option<Box<dyn Operator>>>,
    /// Counts steps: operators stamp what they touch with it.
    epoch: Epoch,
}

impl Body {
    /// The output for some changes of its inputs.
    fn run(&mut self, work: Vec<Delta>, outer: &[Vec<Delta>], cx: &StepContext<'_>) -> Result<Vec<Delta>> {
        self.epoch = self.epoch.next();
        let cx = StepContext { epoch: self.epoch, now_us: cx.now_us, row_errors: cx.row_errors };
        let mut outputs: Vec<Vec<Delta>> = vec![];
        for (node, operator) in self.nodes.iter().zip(&mut self.operators) {
            let output = match (node, operator) {
                (BodyNode::Operator(_, inputs), Some(operator)) => {
                    let deltas = |input: &BodyInput| match input {
                        BodyInput::Node(idx) => outputs.get(*idx).cloned().unwrap_or_default(),
                        BodyInput::Outer(idx) => outer.get(*idx).cloned().unwrap_or_default(),
                    };
                    let mut inputs: Vec<Vec<Delta>> = inputs.iter().map(deltas).collect();
                    let mut output = vec![];
                    if inputs.iter().flatten().any(|d| !d.is_empty()) {
                        operator.step(&mut inputs, &cx, &mut output)?;
                    }
                    output
                }
                _ => work.clone(),
            };
            outputs.push(output);
        }
        Ok(outputs.pop().unwrap_or_default())
    }
}

impl fmt::Display for Recursion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "name={}, union={}, body=[", self.name, if self.distinct { "distinct" } else { "all" })?;
        let operators = self.body.iter().filter_map(|node| match node {
            BodyNode::Work => None,
            BodyNode::Operator(plan, _) => Some(plan.name()),
        });
        f.write_str(&operators.collect::<Vec<_>>().join(", "))?;
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests;
