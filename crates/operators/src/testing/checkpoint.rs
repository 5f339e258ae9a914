//! What a checkpoint holds of one operator, kept as [`Kept`] says, and an operator that is made of it again.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use tidewire_types::Delta;

use super::{Random, Steps, Subject};
use crate::{Kept, Operator, StateChanges};

/// Rows with their weights, added up.
struct Bag {
    schema: SchemaRef,
    converter: RowConverter,
    weights: BTreeMap<Vec<u8>, i64>,
}

impl Bag {
    fn new(schema: SchemaRef) -> Bag {
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        Bag { schema, converter: RowConverter::new(fields).unwrap(), weights: BTreeMap::new() }
    }

    fn add(&mut self, delta: &Delta) {
        let rows = self.converter.convert_columns(delta.rows().columns()).unwrap();
        for (idx, row) in rows.iter().enumerate() {
            *self.weights.entry(row.data().to_vec()).or_default() += delta.weight(idx);
        }
        self.weights.retain(|_, weight| *weight != 0);
    }

    /// All rows, in an order of the bytes' and not of the history.
    fn delta(&self) -> Delta {
        let parser = self.converter.parser();
        let columns = self.converter.convert_rows(self.weights.keys().map(|row| parser.parse(row))).unwrap();
        let cast = |(column, field): (&ArrayRef, &arrow::datatypes::FieldRef)| cast(column, field.data_type()).unwrap();
        let columns = columns.iter().zip(self.schema.fields()).map(cast).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.weights.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).unwrap();
        let weights: Int64Array = self.weights.values().copied().collect::<Vec<_>>().into();
        let is_plain = weights.values().iter().all(|w| *w == 1);
        Delta::new(rows, (!is_plain).then_some(weights))
    }
}

/// The newest row of each key.
struct Newest {
    schema: SchemaRef,
    n_key_columns: usize,
    rows: BTreeMap<Vec<u8>, RecordBatch>,
}

impl Newest {
    fn add(&mut self, delta: &Delta) {
        let columns = &delta.rows().columns()[..self.n_key_columns];
        let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
        let keys = (self.n_key_columns > 0).then(|| {
            let converter = RowConverter::new(fields).unwrap();
            converter.convert_columns(columns).unwrap()
        });
        for idx in 0..delta.n_rows() {
            let key = keys.as_ref().map_or(vec![], |keys| keys.row(idx).data().to_vec());
            match delta.weight(idx) {
                1 => {
                    self.rows.insert(key, delta.rows().slice(idx, 1));
                }
                -1 => {
                    self.rows.remove(&key);
                }
                other => panic!("a weight of {other}"),
            }
        }
    }

    fn delta(&self) -> Delta {
        Delta::insert(concat_batches(&self.schema, self.rows.values()).unwrap())
    }
}

enum Held {
    Nothing,
    /// The sums of the inputs, and what each brought, step by step.
    Inputs(Vec<Bag>, Vec<Vec<Vec<Delta>>>),
    Bag(Bag),
    Newest(Newest),
}

/// The checkpoints of one operator.
pub(crate) struct Checkpoint {
    held: Held,
    /// Cut, but not yet made into rows: that happens while the operator goes on.
    cut: Vec<StateChanges>,
}

impl Checkpoint {
    pub(crate) fn new(kept: Kept, inputs: &[SchemaRef]) -> Checkpoint {
        let held = match kept {
            Kept::Nothing => Held::Nothing,
            Kept::Inputs => Held::Inputs(inputs.iter().cloned().map(Bag::new).collect(), vec![vec![]; inputs.len()]),
            Kept::Rows { schema, n_key_columns: None } => Held::Bag(Bag::new(schema)),
            Kept::Rows { schema, n_key_columns: Some(n_key_columns) } => {
                Held::Newest(Newest { schema, n_key_columns, rows: BTreeMap::new() })
            }
        };
        Checkpoint { held, cut: vec![] }
    }

    /// Notes what the operator is about to take.
    pub(crate) fn record(&mut self, inputs: &[Vec<Delta>]) {
        let Held::Inputs(sums, history) = &mut self.held else { return };
        for ((sum, history), deltas) in sums.iter_mut().zip(history).zip(inputs) {
            deltas.iter().for_each(|delta| sum.add(delta));
            history.push(deltas.clone());
        }
    }

    /// Whether it keeps rows of the operator's own.
    pub(crate) fn has_own_rows(&self) -> bool {
        matches!(self.held, Held::Bag(_) | Held::Newest(_))
    }

    /// A cut between two steps.
    pub(crate) fn cut(&mut self, operator: &mut dyn Operator, may_be_all: bool) {
        if self.has_own_rows() {
            self.cut.push(operator.take_changes(may_be_all).unwrap());
        }
    }

    /// What was cut becomes rows; what of it was not copied yet is copied now.
    pub(crate) fn settle(&mut self, operator: &mut dyn Operator) {
        while operator.copy_changes(1000) > 0 {}
        for StateChanges { is_all_for, rows } in std::mem::take(&mut self.cut) {
            if let (Some(_), Held::Newest(newest)) = (is_all_for, &mut self.held) {
                newest.rows.clear();
            }
            for delta in rows().unwrap() {
                match &mut self.held {
                    Held::Bag(bag) => {
                        bag.add(&delta);
                        assert!(bag.weights.values().all(|weight| *weight > 0), "a kept row of negative weight");
                    }
                    Held::Newest(newest) => newest.add(&delta),
                    _ => panic!("rows of an operator that keeps none"),
                }
            }
        }
    }

    /// Rows of its own that it keeps.
    pub(crate) fn n_rows(&self) -> usize {
        match &self.held {
            Held::Bag(bag) => bag.weights.len(),
            Held::Newest(newest) => newest.rows.len(),
            _ => 0,
        }
    }

    /// The operator as it is after a restart. All cuts must be settled.
    pub(crate) fn restored(&self, subject: &dyn Subject, random: &mut Random) -> Box<dyn Operator> {
        let mut operator = subject.build();
        let is_tracked_first = random.below(2) == 0;
        if is_tracked_first {
            operator.track_changes();
        }
        match &self.held {
            Held::Nothing => {}
            Held::Bag(bag) => pieces(bag.delta(), random).iter().for_each(|rows| operator.restore(rows).unwrap()),
            Held::Newest(newest) => {
                pieces(newest.delta(), random).iter().for_each(|rows| operator.restore(rows).unwrap());
            }
            Held::Inputs(sums, history) => {
                let is_summed = random.below(2) == 0;
                let mut waiting: Vec<Vec<Vec<Delta>>> = match is_summed {
                    true => {
                        let steps = |sum: &Bag| pieces(sum.delta(), random).into_iter().map(|d| vec![d]).collect();
                        sums.iter().map(steps).collect()
                    }
                    false => history.clone(),
                };
                let steps = Steps::default();
                while waiting.iter().any(|steps| !steps.is_empty()) {
                    let next = |steps: &mut Vec<Vec<Delta>>| {
                        let n = random.below(3).min(steps.len() as u64) as usize;
                        steps.drain(..n).flatten().collect::<Vec<Delta>>()
                    };
                    let mut inputs: Vec<Vec<Delta>> = waiting.iter_mut().map(next).collect();
                    operator.load(&mut inputs, &steps.context(1)).unwrap();
                }
                operator.end_load(&steps.context(1)).unwrap();
            }
        }
        if !is_tracked_first {
            operator.track_changes();
        }
        operator
    }
}

/// The rows in any order, in pieces.
fn pieces(delta: Delta, random: &mut Random) -> Vec<Delta> {
    let mut order: Vec<u32> = (0..delta.n_rows() as u32).collect();
    for idx in (1..order.len()).rev() {
        order.swap(idx, random.below(idx as u64 + 1) as usize);
    }
    let mut pieces = vec![];
    let mut rest = &order[..];
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(1 + random.below(9) as usize));
        let rows = take_record_batch(delta.rows(), &UInt32Array::from(now.to_vec())).unwrap();
        let weights = delta.weights().map(|_| now.iter().map(|idx| delta.weight(*idx as usize)).collect::<Vec<_>>());
        pieces.push(Delta::new(rows, weights.map(Into::into)));
        rest = later;
    }
    pieces
}
