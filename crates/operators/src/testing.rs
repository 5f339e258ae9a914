//! The property that every operator must have, checked on random input.
//!
//! [`check_operator`] feeds random deltas (insertions, deletions, updates, NULLs, rows that come and go within one
//! epoch in any order) through a running operator and compares its accumulated output after each epoch with a naive
//! function of the accumulated input. Then it deletes everything: what is left must be the output over empty input, and
//! no state.
//!
//! Meanwhile checkpoints are kept ([`Checkpoint`]). Now and then an operator that is made of them takes over, and the one
//! before it runs beside it: from then on both must put out the same, and report the same errors.

mod checkpoint;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, RecordBatchOptions, StringViewArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::util::display::array_value_to_string;
use parking_lot::Mutex;
use tidewire_types::{Delta, Epoch};

pub(crate) use self::checkpoint::Checkpoint;
use crate::{Kept, Operator, Plan, RowError, StepContext};

/// What is checked.
pub(crate) trait Subject {
    fn build(&self) -> Box<dyn Operator>;
    fn kept(&self) -> Kept;
}

impl Subject for Plan {
    fn build(&self) -> Box<dyn Operator> {
        Plan::build(self, 0).unwrap()
    }

    fn kept(&self) -> Kept {
        Plan::kept(self)
    }
}

/// One value, comparable, in PostgreSQL's order (NULL last).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    Bool(bool),
    Int(i64),
    Decimal(i128),
    /// The bits, mapped so that they sort as the numbers do.
    Float(i64),
    Text(String),
    Null,
}

/// One row.
pub(crate) type Row = Vec<Value>;

impl Value {
    pub(crate) fn float(value: f64) -> Value {
        let bits = (value + 0.0).to_bits() as i64;
        Value::Float(bits ^ (((bits >> 63) as u64) >> 1) as i64)
    }

    pub(crate) fn as_float(&self) -> Option<f64> {
        let Value::Float(bits) = self else { return None };
        Some(f64::from_bits((bits ^ (((bits >> 63) as u64) >> 1) as i64) as u64))
    }
}

/// A schema of these fields.
pub(crate) fn schema(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

/// Where the row errors of some steps go.
#[derive(Default)]
pub(crate) struct Steps {
    row_errors: Mutex<Vec<RowError>>,
}

impl Steps {
    pub(crate) fn context(&self, epoch: u32) -> StepContext<'_> {
        StepContext { epoch: Epoch(epoch), now_us: 0, row_errors: &self.row_errors }
    }

    pub(crate) fn row_errors(&self) -> Vec<RowError> {
        std::mem::take(&mut *self.row_errors.lock())
    }
}

/// Small numbers from a seed (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn row(&mut self, schema: &Schema) -> Row {
        schema.fields().iter().map(|f| self.value(f)).collect()
    }

    fn value(&mut self, field: &Field) -> Value {
        if field.is_nullable() && self.below(6) == 0 {
            return Value::Null;
        }
        let small = self.below(7) as i64 - 2;
        match field.data_type() {
            DataType::Boolean => Value::Bool(small > 0),
            DataType::Decimal128(..) => Value::Decimal(i128::from(small) * 125),
            DataType::Float64 => Value::float([0.1, -2.5, 1e18, 3.0, 1e-9, 7.25, -0.3][(small + 2) as usize]),
            DataType::Utf8View => Value::Text(
                ["", "a", "b", "bb", "a text longer than twelve", "a text longer than twelvf", "z"]
                    [(small + 2) as usize]
                    .to_string(),
            ),
            _ => Value::Int(small),
        }
    }
}

/// One column of rows.
fn column(field: &Field, values: &[&Value]) -> ArrayRef {
    let ints = || values.iter().map(|v| if let Value::Int(i) = v { Some(*i) } else { None });
    match field.data_type() {
        DataType::Boolean => Arc::new(
            values.iter().map(|v| if let Value::Bool(b) = v { Some(*b) } else { None }).collect::<BooleanArray>(),
        ),
        DataType::Int64 => Arc::new(ints().collect::<Int64Array>()),
        DataType::Int32 => Arc::new(ints().map(|i| i.map(|i| i as i32)).collect::<Int32Array>()),
        DataType::Date32 => Arc::new(ints().map(|i| i.map(|i| i as i32)).collect::<Date32Array>()),
        DataType::Timestamp(TimeUnit::Microsecond, None) => Arc::new(ints().collect::<TimestampMicrosecondArray>()),
        DataType::Float64 => Arc::new(values.iter().map(|v| v.as_float()).collect::<Float64Array>()),
        DataType::Decimal128(p, s) => Arc::new(
            values
                .iter()
                .map(|v| if let Value::Decimal(d) = v { Some(*d) } else { None })
                .collect::<Decimal128Array>()
                .with_precision_and_scale(*p, *s)
                .unwrap(),
        ),
        DataType::Utf8View => Arc::new(
            values
                .iter()
                .map(|v| if let Value::Text(t) = v { Some(t.as_str()) } else { None })
                .collect::<StringViewArray>(),
        ),
        other => panic!("no random values of type {other}"),
    }
}

/// Rows as a batch.
pub(crate) fn batch(schema: &SchemaRef, rows: &[&Row]) -> RecordBatch {
    let columns = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(idx, field)| column(field, &rows.iter().map(|r| &r[idx]).collect::<Vec<_>>()))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).unwrap()
}

/// A batch as rows.
pub(crate) fn rows(batch: &RecordBatch) -> Vec<Row> {
    let columns: Vec<Vec<Value>> = batch.columns().iter().map(values).collect();
    (0..batch.num_rows()).map(|row_idx| columns.iter().map(|c| c[row_idx].clone()).collect()).collect()
}

fn values(column: &ArrayRef) -> Vec<Value> {
    let or_null = |idx: usize, value: &dyn Fn() -> Value| if column.is_null(idx) { Value::Null } else { value() };
    let all = 0..column.len();
    match column.data_type() {
        DataType::Null => all.map(|_| Value::Null).collect(),
        DataType::Boolean => all.map(|i| or_null(i, &|| Value::Bool(column.as_boolean().value(i)))).collect(),
        DataType::Decimal128(..) => {
            let decimals = column.as_primitive::<Decimal128Type>();
            all.map(|i| or_null(i, &|| Value::Decimal(decimals.value(i)))).collect()
        }
        DataType::Float64 => {
            let floats = column.as_primitive::<Float64Type>();
            all.map(|i| or_null(i, &|| Value::float(floats.value(i)))).collect()
        }
        t if t.is_integer() || matches!(t, DataType::Date32 | DataType::Timestamp(..)) => {
            let narrow =
                if t.primitive_width() == Some(4) { cast(column, &DataType::Int32).unwrap() } else { column.clone() };
            let ints = cast(&narrow, &DataType::Int64).unwrap();
            let ints = ints.as_primitive::<Int64Type>().clone();
            all.map(|i| or_null(i, &|| Value::Int(ints.value(i)))).collect()
        }
        _ => all.map(|i| or_null(i, &|| Value::Text(array_value_to_string(column, i).unwrap()))).collect(),
    }
}

/// The sum of output deltas.
#[derive(Default)]
pub(crate) struct Accumulated(BTreeMap<Row, i64>);

impl Accumulated {
    pub(crate) fn add(&mut self, deltas: &[Delta]) {
        for delta in deltas {
            for (idx, row) in rows(delta.rows()).into_iter().enumerate() {
                *self.0.entry(row).or_default() += delta.weight(idx);
            }
        }
        self.0.retain(|_, weight| *weight != 0);
    }

    pub(crate) fn rows(&self) -> &BTreeMap<Row, i64> {
        &self.0
    }
}

fn counted(rows: Vec<Row>) -> BTreeMap<Row, i64> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(row).or_default() += 1;
    }
    counts
}

/// The changes of one epoch of one input, applied to `present`, in random order and cut into deltas.
fn random_deltas(random: &mut Random, schema: &SchemaRef, present: &mut Vec<Row>, with_deletes: bool) -> Vec<Delta> {
    let mut changes: Vec<(Row, i64)> = vec![];
    for _ in 0..random.below(14) {
        if with_deletes && !present.is_empty() && random.below(5) < 2 {
            let gone = present.swap_remove(random.below(present.len() as u64) as usize);
            changes.push((gone, -1));
        } else {
            let row = random.row(schema);
            let copies = if random.below(8) == 0 { 2 } else { 1 };
            present.extend(std::iter::repeat_n(row.clone(), copies));
            changes.push((row, copies as i64));
        }
    }
    for idx in (1..changes.len()).rev() {
        changes.swap(idx, random.below(idx as u64 + 1) as usize);
    }
    changes.chunks(1 + random.below(9) as usize).map(|chunk| weighted(schema, chunk)).collect()
}

/// Rows with weights; without weights where all are 1.
fn weighted(schema: &SchemaRef, changes: &[(Row, i64)]) -> Delta {
    let rows = batch(schema, &changes.iter().map(|(row, _)| row).collect::<Vec<_>>());
    let is_plain = changes.iter().all(|(_, weight)| *weight == 1);
    Delta::new(rows, (!is_plain).then(|| changes.iter().map(|(_, weight)| *weight).collect::<Vec<_>>().into()))
}

const N_SEEDS: u64 = 24;

/// Checks an operator, as the module says.
pub(crate) fn check_operator(schemas: &[SchemaRef], subject: &dyn Subject, naive: impl Fn(&[Vec<Row>]) -> Vec<Row>) {
    for seed in 0..N_SEEDS {
        check_seed(schemas, subject, &naive, seed, true);
    }
}

/// The same over input that only ever grows.
pub(crate) fn check_append_only(schemas: &[SchemaRef], subject: &dyn Subject, naive: impl Fn(&[Vec<Row>]) -> Vec<Row>) {
    for seed in 0..N_SEEDS {
        check_seed(schemas, subject, &naive, seed, false);
    }
}

/// An operator, and the one that it was restored from.
struct Pair<'a> {
    subject: &'a dyn Subject,
    leader: Box<dyn Operator>,
    former: Option<Box<dyn Operator>>,
    checkpoint: Checkpoint,
    /// What the steps since the last cut took; None: there was no cut.
    since_cut: Option<Vec<(Vec<Vec<Delta>>, u32)>>,
}

impl<'a> Pair<'a> {
    fn new(subject: &'a dyn Subject, schemas: &[SchemaRef]) -> Pair<'a> {
        let mut leader = subject.build();
        leader.track_changes();
        let checkpoint = Checkpoint::new(subject.kept(), schemas);
        Pair { subject, leader, former: None, checkpoint, since_cut: None }
    }

    fn step(&mut self, mut inputs: Vec<Vec<Delta>>, epoch: u32) -> Vec<Delta> {
        self.checkpoint.record(&inputs);
        self.since_cut.iter_mut().for_each(|steps| steps.push((inputs.clone(), epoch)));
        let mut of_former = self.former.as_mut().map(|former| run(former.as_mut(), inputs.clone(), epoch));
        let (out, errors) = run(self.leader.as_mut(), std::mem::take(&mut inputs), epoch);
        if let Some((out_of_former, errors_of_former)) = of_former.take() {
            let sum = |out: &[Delta]| {
                let mut sum = Accumulated::default();
                sum.add(out);
                sum
            };
            assert_eq!(sum(&out).rows(), sum(&out_of_former).rows(), "epoch {epoch}: the restored one differs");
            assert_eq!(errors, errors_of_former, "epoch {epoch}: the restored one has other errors");
        }
        out
    }

    /// Perhaps a checkpoint is cut, perhaps the operator is restored: from a cut that is made now, or as after a crash from
    /// the last one, and then it takes again what came since.
    fn rest(&mut self, random: &mut Random) {
        // Of what was cut before, rows are made now, or later: the operator has gone on since and goes on.
        match random.below(2) {
            0 => self.checkpoint.settle(self.leader.as_mut()),
            _ => drop(self.leader.copy_changes(1 + random.below(200) as usize)),
        }
        if random.below(3) == 0 {
            self.former = None;
        }
        let is_restart = random.below(4) == 0;
        let is_crash = is_restart && self.checkpoint.has_own_rows() && random.below(2) == 0;
        if is_crash && let Some(steps) = self.since_cut.clone() {
            self.checkpoint.settle(self.leader.as_mut());
            let mut restored = self.checkpoint.restored(self.subject, random);
            for (inputs, epoch) in steps {
                run(restored.as_mut(), inputs, epoch);
            }
            self.replace(restored);
            return;
        }
        if is_restart || random.below(3) == 0 {
            self.checkpoint.cut(self.leader.as_mut(), random.below(4) > 0);
            self.since_cut = Some(vec![]);
        }
        if is_restart {
            self.checkpoint.settle(self.leader.as_mut());
            assert!(self.checkpoint.n_rows() <= self.leader.state_rows().max(1), "more is kept than the state has");
            self.replace(self.checkpoint.restored(self.subject, random));
        }
    }

    fn replace(&mut self, restored: Box<dyn Operator>) {
        let (rows, rows_before) = (restored.state_rows(), self.leader.state_rows());
        assert!(rows <= rows_before, "{rows} rows of state were {rows_before}");
        self.former = Some(std::mem::replace(&mut self.leader, restored));
    }
}

/// A step, perhaps in parts: what comes out, and the errors in any order.
fn run(operator: &mut dyn Operator, mut inputs: Vec<Vec<Delta>>, epoch: u32) -> (Vec<Delta>, Vec<String>) {
    let (steps, mut out) = (Steps::default(), vec![]);
    if epoch.is_multiple_of(3) {
        for idx in 0..inputs.len() {
            let mut part = vec![vec![]; inputs.len()];
            std::mem::swap(&mut part[idx], &mut inputs[idx]);
            operator.step_part(&mut part, &steps.context(epoch), &mut out).unwrap();
        }
    }
    operator.step(&mut inputs, &steps.context(epoch), &mut out).unwrap();
    let text = |error: RowError| format!("{:?} {} {} {:?}", rows(&error.row), error.weight, error.expr, error.error);
    let mut errors: Vec<String> = steps.row_errors().into_iter().map(text).collect();
    errors.sort();
    (out, errors)
}

fn check_seed(
    schemas: &[SchemaRef],
    subject: &dyn Subject,
    naive: &dyn Fn(&[Vec<Row>]) -> Vec<Row>,
    seed: u64,
    with_deletes: bool,
) {
    let (mut random, mut restarts) = (Random::new(seed), Random::new(!seed));
    let steps = Steps::default();
    let mut present: Vec<Vec<Row>> = vec![vec![]; schemas.len()];
    let mut output = Accumulated::default();
    let mut out = vec![];
    let mut pair = Pair::new(subject, schemas);
    pair.leader.start(&steps.context(0), &mut out).unwrap();
    output.add(&out);
    assert_eq!(output.rows(), &counted(naive(&present)), "seed {seed}: before any input");
    for epoch in 1..=11 {
        pair.rest(&mut restarts);
        let inputs: Vec<Vec<Delta>> = schemas
            .iter()
            .zip(&mut present)
            .map(|(schema, present)| random_deltas(&mut random, schema, present, with_deletes))
            .collect();
        output.add(&pair.step(inputs, epoch));
        assert_eq!(output.rows(), &counted(naive(&present)), "seed {seed}, epoch {epoch}: input {present:?}");
    }
    if !with_deletes {
        return;
    }
    let inputs: Vec<Vec<Delta>> = schemas
        .iter()
        .zip(&present)
        .map(|(schema, rows)| vec![Delta::delete(batch(schema, &rows.iter().collect::<Vec<_>>()))])
        .collect();
    output.add(&pair.step(inputs, 12));
    present.iter_mut().for_each(Vec::clear);
    assert_eq!(output.rows(), &counted(naive(&present)), "seed {seed}: everything deleted");
    assert_eq!(pair.leader.state_rows(), 0, "seed {seed}: state is left");
    pair.checkpoint.cut(pair.leader.as_mut(), true);
    pair.checkpoint.settle(pair.leader.as_mut());
    assert!(pair.checkpoint.n_rows() <= 1, "seed {seed}: {} rows are kept of nothing", pair.checkpoint.n_rows());
    let restored = pair.checkpoint.restored(subject, &mut restarts);
    assert_eq!(restored.state_rows(), 0, "seed {seed}: state comes back");
}
