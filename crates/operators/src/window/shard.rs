//! One shard of a running window.

use std::cmp::Ordering;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashMap;
use tidewire_types::{Delta, Result, SqlError};

use super::aggregate::Aggregate;
use super::encoding::{Changes, Encoding, converter};
use super::evaluate::{Evaluator, evaluate};
use super::frame::{Edges, Order};
use super::partition::{Partition, Row};
use super::reach::Reach;
use super::{Arg, Function, Window};
use crate::{Operator, RowError, StepContext};

pub(super) struct WindowShard {
    plan: Window,
    encoding: Encoding,
    evaluators: Vec<Evaluator>,
    reach: Reach,
    is_descending: bool,
    /// Encodes results.
    results: RowConverter,
    partitions: HashMap<Vec<u8>, Partition>,
    n_rows: usize,
    row_bytes: usize,
    partition_bytes: usize,
}

/// Output rows: the input row's key and the encoded results.
type Output = Vec<(Row, Box<[u8]>, i64)>;

/// Rows of a run with their results, by key, then by result. A row without result has an error.
type Results = Vec<(Row, Result<Box<[u8]>>)>;

impl WindowShard {
    pub(super) fn new(plan: Window) -> Result<WindowShard> {
        let encoding = Encoding::new(&plan)?;
        let type_of = |arg: &Arg| match arg {
            Arg::Constant(value) => Ok(value.data_type()),
            Arg::Column(idx) => match plan.schema.fields().get(*idx) {
                Some(field) => Ok(field.data_type().clone()),
                None => Err(SqlError::internal(format_args!("no column {idx}"))),
            },
        };
        let order_type: Option<DataType> = match plan.order_by.as_slice() {
            [key] => Some(type_of(&Arg::Column(key.column))?),
            _ => None,
        };
        let mut reach = Reach::default();
        let mut evaluators = vec![];
        for (idx, call) in plan.calls.iter().enumerate() {
            let edges = Edges::new(&call.frame, order_type.as_ref())?;
            reach.add(call, &edges);
            let aggregate = match &call.function {
                Function::Aggregate(function) => Some(Aggregate::new(function, call, &edges, idx, &type_of)?),
                _ => None,
            };
            evaluators.push(Evaluator { call: call.clone(), edges, aggregate });
        }
        let results = plan.calls.iter().map(|call| SortField::new(call.field.data_type().clone())).collect();
        Ok(WindowShard {
            is_descending: plan.order_by.first().is_some_and(|key| key.descending),
            results: converter(results)?,
            plan,
            encoding,
            evaluators,
            reach,
            partitions: HashMap::new(),
            n_rows: 0,
            row_bytes: 0,
            partition_bytes: 0,
        })
    }

    /// Applies the changes of one partition and appends what changes in its output.
    fn change(&mut self, key: &[u8], mut changes: Changes, cx: &StepContext<'_>, output: &mut Output) -> Result<()> {
        consolidate(&mut changes);
        if changes.is_empty() {
            return Ok(());
        }
        let mut partition = self.partitions.remove(key).unwrap_or_default();
        self.n_rows -= partition.n_rows();
        self.partition_bytes -= if partition.n_rows() > 0 { partition.bytes() + key.len() } else { 0 };
        let order = Order { partition: &partition, encoding: &self.encoding, is_descending: self.is_descending };
        let regions = self.reach.regions(order, &changes)?;
        let mut before = vec![];
        for region in &regions {
            before.push(self.evaluate(&mut partition, region.old.clone())?);
        }
        partition.apply(&changes, &mut self.row_bytes)?;
        for (region, before) in regions.iter().zip(before) {
            let after = self.evaluate(&mut partition, region.new.clone())?;
            self.difference(before, after, cx, output)?;
        }
        self.put_back(key, partition);
        Ok(())
    }

    fn put_back(&mut self, key: &[u8], partition: Partition) {
        self.n_rows += partition.n_rows();
        if partition.n_rows() > 0 {
            self.partition_bytes += partition.bytes() + key.len();
            self.partitions.insert(key.to_vec(), partition);
        }
    }

    fn evaluate(&self, partition: &mut Partition, places: std::ops::Range<usize>) -> Result<Results> {
        if places.is_empty() {
            return Ok(vec![]);
        }
        let evaluated = evaluate(&self.evaluators, &self.encoding, self.is_descending, partition, places.clone())?;
        let encoded = self.results.convert_columns(&evaluated.columns)?;
        let rows = partition.rows(places).zip(encoded.iter());
        let mut results: Results = rows.map(|(row, result)| (row.clone(), Ok(result.data().into()))).collect();
        for (idx, error) in evaluated.errors {
            if let Some((_, result)) = results.get_mut(idx) {
                *result = Err(error);
            }
        }
        Ok(results)
    }

    /// Appends what must be added to `before` to get `after`. Both are in the order of keys.
    fn difference(&self, before: Results, after: Results, cx: &StepContext<'_>, output: &mut Output) -> Result<()> {
        let (mut before, mut after) = (before.into_iter().peekable(), after.into_iter().peekable());
        loop {
            let key = match (before.peek(), after.peek()) {
                (None, None) => return Ok(()),
                (Some((row, _)), None) | (None, Some((row, _))) => row.clone(),
                (Some((old, _)), Some((new, _))) => if old.key <= new.key { old } else { new }.clone(),
            };
            let (mut old, mut n_failed) = (vec![], 0usize);
            while let Some((_, result)) = before.next_if(|(row, _)| row.key == key.key) {
                match result {
                    Ok(result) => old.push(result),
                    Err(_) => n_failed += 1,
                }
            }
            let mut new = vec![];
            while let Some((row, result)) = after.next_if(|(row, _)| row.key == key.key) {
                match result {
                    Ok(result) => new.push(result),
                    // It has been told already.
                    Err(_) if n_failed > 0 => n_failed -= 1,
                    Err(error) => self.report(&row, error, cx)?,
                }
            }
            of_copies(&key, old, new, output);
        }
    }

    /// A row whose result could not be computed.
    fn report(&self, row: &Row, error: SqlError, cx: &StepContext<'_>) -> Result<()> {
        let row = self.encoding.batch(std::iter::once(&*row.key))?;
        let calls: Vec<_> = self.plan.calls.iter().map(|c| c.field.name().as_str()).collect();
        cx.row_errors.lock().push(RowError { row, weight: 1, expr: calls.join(", "), error });
        Ok(())
    }

    /// Output rows as a delta of this operator's schema.
    fn decode(&self, output: &Output) -> Result<Delta> {
        let mut columns: Vec<ArrayRef> = self.encoding.decode(output.iter().map(|(row, ..)| &*row.key))?;
        let parser = self.results.parser();
        let results = self.results.convert_rows(output.iter().map(|(_, result, _)| parser.parse(result)))?;
        for (column, call) in results.iter().zip(&self.plan.calls) {
            columns.push(arrow::compute::cast(column, call.field.data_type())?);
        }
        let rows = RecordBatch::try_new(self.plan.schema.clone(), columns)?;
        let weights: Int64Array = output.iter().map(|(.., weight)| *weight).collect::<Vec<_>>().into();
        let is_plain = weights.values().iter().all(|w| *w == 1);
        Ok(Delta::new(rows, (!is_plain).then_some(weights)))
    }
}

impl Operator for WindowShard {
    fn step(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        let mut changes: HashMap<Vec<u8>, Changes> = HashMap::new();
        for delta in inputs.iter_mut().flat_map(std::mem::take).filter(|d| !d.is_empty()) {
            self.encoding.split(&delta, &mut changes)?;
        }
        let mut output = vec![];
        for (key, changes) in changes {
            self.change(&key, changes, cx, &mut output)?;
        }
        if !output.is_empty() {
            out.push(self.decode(&output)?);
        }
        Ok(())
    }

    /// Results are not kept: the rows are all there is to put in.
    fn load(&mut self, inputs: &mut [Vec<Delta>], _: &StepContext<'_>) -> Result<()> {
        let mut changes: HashMap<Vec<u8>, Changes> = HashMap::new();
        for delta in inputs.iter_mut().flat_map(std::mem::take).filter(|d| !d.is_empty()) {
            self.encoding.split(&delta, &mut changes)?;
        }
        for (key, mut changes) in changes {
            consolidate(&mut changes);
            let mut partition = self.partitions.remove(&key).unwrap_or_default();
            self.n_rows -= partition.n_rows();
            self.partition_bytes -= if partition.n_rows() > 0 { partition.bytes() + key.len() } else { 0 };
            partition.apply(&changes, &mut self.row_bytes)?;
            self.put_back(&key, partition);
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.row_bytes + self.partition_bytes + self.partitions.allocation_size()
    }

    fn state_rows(&self) -> usize {
        self.n_rows
    }
}

/// Appends the results that some copies of a row have and had not, or had and have not.
fn of_copies(row: &Row, mut old: Vec<Box<[u8]>>, mut new: Vec<Box<[u8]>>, output: &mut Output) {
    old.sort_unstable();
    new.sort_unstable();
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(o), Some(n)) => o.cmp(n),
        };
        let gone = if order.is_le() { old.next() } else { None };
        let come = if order.is_ge() { new.next() } else { None };
        match (gone, come) {
            (Some(result), None) => output.push((row.clone(), result, -1)),
            (None, Some(result)) => output.push((row.clone(), result, 1)),
            _ => {}
        }
    }
}

/// Sorts changes; one for each row, none of weight 0.
fn consolidate(changes: &mut Changes) {
    changes.sort_unstable_by(|(a, _), (b, _)| a.key.cmp(&b.key));
    changes.dedup_by(|(row, weight), (kept, sum)| {
        let same = row.key == kept.key;
        if same {
            *sum += *weight;
        }
        same
    });
    changes.retain(|(_, weight)| *weight != 0);
}
