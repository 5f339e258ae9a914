//! The aggregate against naive recomputation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::{array_agg, median, stddev, string_agg};
use tidewire_types::{Delta, SqlState};

use super::exact_sum::ExactSum;
use super::*;
use crate::testing::{
    Accumulated, Checkpoint, Random, Row, Steps, Subject, Value, batch, check_append_only, check_operator,
};
use crate::{Kept, Plan, StateChanges, StepContext};

mod bits;
mod lists;
mod ordered;
mod statistics;

const DECIMAL: DataType = DataType::Decimal128(10, 2);

/// k: bigint, s: text, i: integer, f: float, d: decimal, b: boolean, t: timestamp; all nullable.
fn input() -> SchemaRef {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(
        [
            ("k", DataType::Int64),
            ("s", DataType::Utf8View),
            ("i", DataType::Int32),
            ("f", DataType::Float64),
            ("d", DECIMAL),
            ("b", DataType::Boolean),
            ("t", timestamp),
        ]
        .map(|(name, t)| Field::new(name, t, true))
        .to_vec(),
    ))
}

const K: usize = 0;
const S: usize = 1;
const I: usize = 2;
const F: usize = 3;
const D: usize = 4;
const B: usize = 5;
const T: usize = 6;

fn call(function: Function, args: &[usize], to: DataType) -> Call {
    Call {
        function,
        args: args.to_vec(),
        distinct: false,
        filter: None,
        order_by: vec![],
        ignore_nulls: false,
        field: Arc::new(Field::new("result", to, true)),
    }
}

type Naive = Box<dyn Fn(&[Row]) -> Value>;

/// A call and the same function written plainly.
struct Case(Call, Naive);

fn case(call: Call, naive: impl Fn(&[Row]) -> Value + 'static) -> Case {
    Case(call, Box::new(naive))
}

fn present(rows: &[Row], column: usize) -> Vec<Value> {
    rows.iter().map(|r| r[column].clone()).filter(|v| *v != Value::Null).collect()
}

fn ints(values: &[Value]) -> Vec<i64> {
    values.iter().filter_map(|v| if let Value::Int(i) = v { Some(*i) } else { None }).collect()
}

fn exact(values: &[Value]) -> f64 {
    let mut sum = ExactSum::default();
    for value in values.iter().filter_map(Value::as_float) {
        sum.add(value, 1);
    }
    sum.value()
}

fn or_null(values: &[Value], result: impl Fn(&[Value]) -> Value) -> Value {
    if values.is_empty() { Value::Null } else { result(values) }
}

fn decimals(values: &[Value]) -> i128 {
    values.iter().map(|v| if let Value::Decimal(d) = v { *d } else { 0 }).sum()
}

const AVERAGE: DataType = DataType::Decimal128(38, 16);

/// With 16 digits behind the point, rounded half away from zero. Right below 10,000, where PostgreSQL has as many.
fn average(sum: i128, scale: u32, n: usize) -> i128 {
    let (scaled, n) = (sum * 10i128.pow(16 - scale) * 2, n as i128);
    (scaled + n * sum.signum()) / (n * 2)
}

fn numbers() -> Vec<Case> {
    let count = |n: usize| Value::Int(n as i64);
    vec![
        case(call(Function::Count, &[], DataType::Int64), move |rows| count(rows.len())),
        case(call(Function::Count, &[I], DataType::Int64), move |rows| count(present(rows, I).len())),
        case(call(Function::Sum, &[I], DataType::Int64), |rows| {
            or_null(&present(rows, I), |v| Value::Int(ints(v).iter().sum()))
        }),
        case(call(Function::Avg, &[I], AVERAGE), |rows| {
            or_null(&present(rows, I), |v| Value::Decimal(average(ints(v).iter().sum::<i64>().into(), 0, v.len())))
        }),
        case(call(Function::Sum, &[K], DataType::Decimal128(38, 0)), |rows| {
            or_null(&present(rows, K), |v| Value::Decimal(ints(v).iter().sum::<i64>().into()))
        }),
        case(call(Function::Min, &[I], DataType::Int32), |rows| {
            present(rows, I).into_iter().min().unwrap_or(Value::Null)
        }),
        case(call(Function::Max, &[T], DataType::Timestamp(TimeUnit::Microsecond, None)), |rows| {
            present(rows, T).into_iter().max().unwrap_or(Value::Null)
        }),
        case(call(Function::Sum, &[D], DataType::Decimal128(20, 2)), |rows| {
            or_null(&present(rows, D), |v| Value::Decimal(decimals(v)))
        }),
        case(call(Function::Avg, &[D], AVERAGE), |rows| {
            or_null(&present(rows, D), |v| Value::Decimal(average(decimals(v), 2, v.len())))
        }),
        case(call(Function::Max, &[D], DECIMAL), |rows| present(rows, D).into_iter().max().unwrap_or(Value::Null)),
        case(call(Function::Min, &[B], DataType::Boolean), |rows| {
            present(rows, B).into_iter().min().unwrap_or(Value::Null)
        }),
    ]
}

fn floats() -> Vec<Case> {
    vec![
        case(call(Function::Sum, &[F], DataType::Float64), |rows| {
            or_null(&present(rows, F), |v| Value::float(exact(v)))
        }),
        case(call(Function::Avg, &[F], DataType::Float64), |rows| {
            or_null(&present(rows, F), |v| Value::float(exact(v) / v.len() as f64))
        }),
        case(call(Function::Min, &[F], DataType::Float64), |rows| {
            present(rows, F).into_iter().min().unwrap_or(Value::Null)
        }),
        case(call(Function::Max, &[F], DataType::Float64), |rows| {
            present(rows, F).into_iter().max().unwrap_or(Value::Null)
        }),
    ]
}

fn texts() -> Vec<Case> {
    let distinct = |c: Call| Call { distinct: true, ..c };
    let filtered = |c: Call| Call { filter: Some(B), ..c };
    let unique = |rows: &[Row], column| present(rows, column).into_iter().collect::<BTreeSet<_>>();
    let is_true = |r: &&Row| r[B] == Value::Bool(true);
    vec![
        case(call(Function::Min, &[S], DataType::Utf8View), |rows| {
            present(rows, S).into_iter().min().unwrap_or(Value::Null)
        }),
        case(call(Function::Max, &[S], DataType::Utf8View), |rows| {
            present(rows, S).into_iter().max().unwrap_or(Value::Null)
        }),
        case(distinct(call(Function::Count, &[S], DataType::Int64)), move |rows| {
            Value::Int(unique(rows, S).len() as i64)
        }),
        case(distinct(call(Function::Sum, &[I], DataType::Int64)), move |rows| {
            let values: Vec<Value> = unique(rows, I).into_iter().collect();
            or_null(&values, |v| Value::Int(ints(v).iter().sum()))
        }),
        case(filtered(call(Function::Count, &[], DataType::Int64)), move |rows| {
            Value::Int(rows.iter().filter(is_true).count() as i64)
        }),
        case(filtered(call(Function::Sum, &[I], DataType::Int64)), move |rows| {
            let rows: Vec<Row> = rows.iter().filter(is_true).cloned().collect();
            or_null(&present(&rows, I), |v| Value::Int(ints(v).iter().sum()))
        }),
        case(filtered(distinct(call(Function::Count, &[I], DataType::Int64))), move |rows| {
            let rows: Vec<Row> = rows.iter().filter(is_true).cloned().collect();
            Value::Int(unique(&rows, I).len() as i64)
        }),
    ]
}

fn evaluated_anew() -> Vec<Case> {
    let other = |f| Function::Other(f);
    let by_int_descending = SortKey { column: I, descending: true, nulls_first: false };
    let mut joined = call(other(string_agg::string_agg_udaf()), &[S], DataType::LargeUtf8);
    joined.order_by = vec![by_int_descending];
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)));
    let mut listed = call(other(array_agg::array_agg_udaf()), &[I], list);
    listed.order_by = vec![by_int_descending];
    listed.distinct = true;
    // One argument and a separator: the function wants the latter as a literal.
    joined.args = vec![S, 7];
    vec![
        case(joined, |rows| {
            let mut rows = rows.to_vec();
            // Largest first, NULL last; ties by the text.
            rows.sort_by(|a, b| match (&a[I], &b[I]) {
                (Value::Int(x), Value::Int(y)) => y.cmp(x).then(a[S].cmp(&b[S])),
                (x, y) => x.cmp(y).then(a[S].cmp(&b[S])),
            });
            let texts: Vec<String> =
                present(&rows, S).into_iter().map(|v| if let Value::Text(t) = v { t } else { String::new() }).collect();
            if texts.is_empty() { Value::Null } else { Value::Text(texts.join("; ")) }
        }),
        case(listed, |rows| {
            let unique: BTreeSet<Value> = rows.iter().map(|r| r[I].clone()).collect();
            let mut shown: Vec<String> =
                ints(&unique.iter().cloned().collect::<Vec<_>>()).iter().rev().map(i64::to_string).collect();
            if unique.contains(&Value::Null) {
                shown.push(String::new());
            }
            if rows.is_empty() { Value::Null } else { Value::Text(format!("[{}]", shown.join(", "))) }
        }),
        case(call(other(median::median_udaf()), &[F], DataType::Float64), |rows| {
            let mut values = present(rows, F);
            values.sort();
            let at = |idx: usize| values[idx].as_float().unwrap();
            match values.len() {
                0 => Value::Null,
                n if n % 2 == 1 => Value::float(at(n / 2)),
                n => Value::float((at(n / 2 - 1) + at(n / 2)) / 2.0),
            }
        }),
    ]
}

fn plan(keys: &[usize], cases: &[Case], append_only: bool) -> Aggregate {
    let mut fields: Vec<Field> = keys.iter().map(|k| input().field(*k).clone()).collect();
    fields.extend(cases.iter().map(|c| c.0.field.as_ref().clone()));
    Aggregate {
        keys: keys.to_vec(),
        calls: cases.iter().map(|c| c.0.clone()).collect(),
        append_only,
        input: input(),
        schema: Arc::new(Schema::new(fields)),
    }
}

fn naive(keys: &[usize], cases: &[Case], rows: &[Row]) -> Vec<Row> {
    let mut groups: BTreeMap<Row, Vec<Row>> = BTreeMap::new();
    if keys.is_empty() {
        groups.insert(vec![], vec![]);
    }
    for row in rows {
        groups.entry(keys.iter().map(|k| row[*k].clone()).collect()).or_default().push(row.clone());
    }
    groups.into_iter().map(|(key, rows)| key.into_iter().chain(cases.iter().map(|c| (c.1)(&rows))).collect()).collect()
}

fn check(keys: &[usize], cases: impl Fn() -> Vec<Case>) {
    let cases = cases();
    check_operator(&[input()], &Plan::Aggregate(plan(keys, &cases, false)), |inputs| naive(keys, &cases, &inputs[0]));
    check_append_only(&[input()], &Plan::Aggregate(plan(keys, &cases, true)), |inputs| naive(keys, &cases, &inputs[0]));
}

#[test]
fn numbers_by_one_integer() {
    check(&[K], numbers);
}

#[test]
fn numbers_by_one_text() {
    check(&[S], numbers);
}

#[test]
fn numbers_over_all_rows() {
    check(&[], numbers);
}

#[test]
fn distinct_and_filtered_calls() {
    check(&[K], texts);
    check(&[], texts);
}

#[test]
fn several_keys_of_all_kinds() {
    check(&[S, I, B], || vec![case(call(Function::Count, &[], DataType::Int64), |rows| Value::Int(rows.len() as i64))]);
    check(&[D, T, F], || vec![case(call(Function::Count, &[], DataType::Int64), |rows| Value::Int(rows.len() as i64))]);
}

#[test]
fn distinct_rows() {
    check(&[K, S], Vec::new);
}

#[test]
fn float_sums_do_not_remember_what_left() {
    let cases = floats();
    check_operator(&[input()], &Plan::Aggregate(plan(&[K], &cases, false)), |inputs| naive(&[K], &cases, &inputs[0]));
}

#[test]
fn functions_that_are_evaluated_anew() {
    let cases = evaluated_anew();
    check_with(&[ScalarValue::Utf8View(Some("; ".into()))], &cases);
}

/// Adds constant columns behind the input's.
struct WithConstants<T>(T, Vec<ScalarValue>);

impl Subject for WithConstants<Plan> {
    fn build(&self) -> Box<dyn Operator> {
        Box::new(WithConstants(Subject::build(&self.0), self.1.clone()))
    }

    fn kept(&self) -> Kept {
        self.0.kept()
    }
}

impl<T> WithConstants<T> {
    fn add(&self, inputs: &mut [Vec<Delta>]) {
        for delta in inputs.iter_mut().flatten() {
            let mut columns = delta.rows().columns().to_vec();
            columns.extend(self.1.iter().map(|value| value.to_array_of_size(delta.n_rows()).unwrap()));
            *delta = delta.with_rows(RecordBatch::try_new(with_constants(&self.1), columns).unwrap());
        }
    }
}

/// The schema of the input with these constants behind it.
fn with_constants(constants: &[ScalarValue]) -> SchemaRef {
    let mut fields = input().fields().to_vec();
    fields.extend(constants.iter().map(|value| Arc::new(Field::new("constant", value.data_type(), true))));
    Arc::new(Schema::new(fields))
}

impl Operator for WithConstants<Box<dyn Operator>> {
    fn start(&mut self, cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        self.0.start(cx, out)
    }

    fn step(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        self.add(inputs);
        self.0.step(inputs, cx, out)
    }

    fn load(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>) -> Result<()> {
        self.add(inputs);
        self.0.load(inputs, cx)
    }

    fn track_changes(&mut self) {
        self.0.track_changes();
    }

    fn take_changes(&mut self, may_be_all: bool) -> Result<StateChanges> {
        self.0.take_changes(may_be_all)
    }

    fn copy_changes(&mut self, n_bytes_max: usize) -> usize {
        self.0.copy_changes(n_bytes_max)
    }

    fn restore(&mut self, rows: &Delta) -> Result<()> {
        self.0.restore(rows)
    }

    fn state_rows(&self) -> usize {
        self.0.state_rows()
    }
}

/// Over all rows and by key, with rows that leave and without; the constants are columns 7 and up.
fn check_with(constants: &[ScalarValue], cases: &[Case]) {
    for keys in [&[K][..], &[]] {
        let subject = |append_only| {
            let plan = Aggregate { input: with_constants(constants), ..plan(keys, cases, append_only) };
            WithConstants(Plan::Aggregate(plan), constants.to_vec())
        };
        check_operator(&[input()], &subject(false), |inputs| naive(keys, cases, &inputs[0]));
        check_append_only(&[input()], &subject(true), |inputs| naive(keys, cases, &inputs[0]));
    }
}

#[test]
fn a_null_result_of_a_global_function_is_there_before_any_row() {
    let cases = vec![case(call(Function::Other(stddev::stddev_udaf()), &[F], DataType::Float64), |_| Value::Null)];
    let mut out = vec![];
    let steps = Steps::default();
    plan(&[], &cases, false).build(1).unwrap().start(&steps.context(0), &mut out).unwrap();
    assert!(out.is_empty(), "only shard 0 holds the group");
    plan(&[], &cases, false).build(0).unwrap().start(&steps.context(0), &mut out).unwrap();
    assert_eq!(crate::testing::rows(out[0].rows()), [[Value::Null]]);
}

#[test]
fn a_sum_that_left_its_range_comes_back() {
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Int64, true)]));
    let row = |k, v| vec![Value::Int(k), Value::Int(v)];
    let plan = Aggregate {
        keys: vec![0],
        calls: vec![call(Function::Sum, &[1], DataType::Int64)],
        append_only: false,
        input: schema.clone(),
        schema: schema.clone(),
    };
    let mut operator = plan.build(0).unwrap();
    let steps = Steps::default();
    let mut output = Accumulated::default();
    let mut step = |epoch: u32, delta: Delta| {
        let mut out = vec![];
        operator.step(&mut [vec![delta]], &steps.context(epoch), &mut out).unwrap();
        output.add(&out);
        output.rows().keys().cloned().collect::<Vec<_>>()
    };
    let rows = |rows: &[Row]| batch(&schema, &rows.iter().collect::<Vec<_>>());
    assert_eq!(step(1, Delta::insert(rows(&[row(1, i64::MAX), row(2, 5)]))), [row(1, i64::MAX), row(2, 5)]);
    assert_eq!(step(2, Delta::insert(rows(&[row(1, 3), row(1, i64::MAX)]))), [row(2, 5)]);
    let errors = steps.row_errors();
    assert_eq!(errors.len(), 1);
    assert_eq!(
        (errors[0].error.state(), errors[0].error.message()),
        (SqlState::NumericValueOutOfRange, "bigint out of range")
    );
    assert_eq!(crate::testing::rows(&errors[0].row), [[Value::Int(1), Value::Null]]);
    assert_eq!(step(3, Delta::insert(rows(&[row(2, 1)]))), [row(2, 6)]);
    assert_eq!(step(4, Delta::delete(rows(&[row(1, i64::MAX)]))), [row(2, 6)]);
    assert_eq!(step(5, Delta::delete(rows(&[row(1, i64::MAX)]))), [row(1, 3), row(2, 6)]);
    assert!(steps.row_errors().is_empty());
}

/// A sum that is beyond its type, and one beyond its word, are so after a restart.
#[test]
fn a_sum_beyond_its_range_survives_a_restart() {
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Int64, true)]));
    let row = |v| vec![Value::Int(1), Value::Int(v)];
    let rows = |rows: &[Row]| batch(&schema, &rows.iter().collect::<Vec<_>>());
    let numeric = DataType::Decimal128(38, 0);
    for (keys, to) in
        [(vec![0], DataType::Int64), (vec![0], numeric.clone()), (vec![], DataType::Int64), (vec![], numeric)]
    {
        let sum = call(Function::Sum, &[1], to.clone());
        let mut fields: Vec<Field> = keys.iter().map(|k: &usize| schema.field(*k).clone()).collect();
        fields.push(sum.field.as_ref().clone());
        let output = Arc::new(Schema::new(fields));
        let aggregate = Aggregate { keys, calls: vec![sum], append_only: false, input: schema.clone(), schema: output };
        let plan = Plan::Aggregate(aggregate);
        let mut operator = Subject::build(&plan);
        operator.track_changes();
        let mut checkpoint = Checkpoint::new(plan.kept(), std::slice::from_ref(&schema));
        let steps = Steps::default();
        let mut out = vec![];
        let too_large = rows(&[row(i64::MAX), row(i64::MAX), row(i64::MAX), row(5)]);
        operator.step(&mut [vec![Delta::insert(too_large)]], &steps.context(1), &mut out).unwrap();
        assert_eq!(steps.row_errors().len(), usize::from(to == DataType::Int64));
        checkpoint.cut(operator.as_mut(), false);
        checkpoint.settle(operator.as_mut());
        let mut restored = checkpoint.restored(&plan, &mut Random::new(1));
        let less = rows(&[row(i64::MAX), row(i64::MAX), row(i64::MAX)]);
        let mut sums = [vec![], vec![]];
        for (operator, out) in [&mut operator, &mut restored].into_iter().zip(&mut sums) {
            operator.step(&mut [vec![Delta::delete(less.clone())]], &steps.context(2), out).unwrap();
        }
        let [expected, got] = sums.map(|out| {
            let mut sum = Accumulated::default();
            sum.add(&out);
            sum.rows().clone()
        });
        assert!(!expected.is_empty());
        assert_eq!(got, expected, "{to}");
    }
}

#[test]
fn a_cut_holds_what_changed_since_the_last_one() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8View, true)]));
    let fields = vec![schema.field(0).clone(), Field::new("n", DataType::Int64, true)];
    let plan = Aggregate {
        keys: vec![0],
        calls: vec![call(Function::Count, &[], DataType::Int64)],
        append_only: false,
        input: schema.clone(),
        schema: Arc::new(Schema::new(fields)),
    };
    let mut operator = plan.build(0).unwrap();
    operator.track_changes();
    let steps = Steps::default();
    let rows = |keys: std::ops::Range<i32>| {
        let rows: Vec<Row> = keys.map(|i| vec![Value::Text(format!("a long key, number {i}"))]).collect();
        batch(&schema, &rows.iter().collect::<Vec<_>>())
    };
    // How many rows of weight 1, and of weight -1, a cut after these changes has.
    let mut step = |epoch, deltas: Vec<Delta>| {
        operator.step(&mut [deltas], &steps.context(epoch), &mut vec![]).unwrap();
        let cut = operator.take_changes(false).unwrap();
        while operator.copy_changes(1000) > 0 {}
        let cut = (cut.rows)().unwrap();
        let weights: Vec<i64> = cut.iter().flat_map(|d| (0..d.n_rows()).map(|idx| d.weight(idx))).collect();
        (weights.iter().filter(|w| **w == 1).count(), weights.iter().filter(|w| **w == -1).count())
    };
    assert_eq!(step(1, vec![Delta::insert(rows(0..1000))]), (1000, 0));
    assert_eq!(step(2, vec![]), (0, 0));
    assert_eq!(step(3, vec![Delta::insert(rows(10..13)), Delta::delete(rows(7..9))]), (3, 2));
    // One that comes and goes between two cuts was in no checkpoint.
    assert_eq!(step(4, vec![Delta::insert(rows(2000..2001)), Delta::delete(rows(2000..2001))]), (0, 0));
    assert_eq!(step(5, vec![Delta::insert(rows(7..8)), Delta::delete(rows(0..1))]), (1, 1));
    assert_eq!(
        step(6, vec![Delta::delete(rows(1..8)), Delta::delete(rows(9..1000)), Delta::delete(rows(10..13))]),
        (0, 998)
    );
    assert_eq!(step(7, vec![]), (0, 0));
}

#[test]
fn a_cut_is_of_its_moment_however_late_it_is_copied() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
    let fields = vec![schema.field(0).clone(), Field::new("n", DataType::Int64, true)];
    let plan = Aggregate {
        keys: vec![0],
        calls: vec![call(Function::Count, &[], DataType::Int64)],
        append_only: false,
        input: schema.clone(),
        schema: Arc::new(Schema::new(fields)),
    };
    let rows = |keys: std::ops::Range<i64>| {
        let rows: Vec<Row> = keys.map(|key| vec![Value::Int(key)]).collect();
        batch(&schema, &rows.iter().collect::<Vec<_>>())
    };
    // How many groups are copied before they change, and whether the cut may be all groups.
    for (n_copied, may_be_all) in [0, 1, 70, 100].into_iter().flat_map(|n| [(n, false), (n, true)]) {
        let mut operator = plan.build(0).unwrap();
        operator.track_changes();
        let steps = Steps::default();
        let step = |operator: &mut dyn Operator, epoch, deltas: Vec<Delta>| {
            operator.step(&mut [deltas], &steps.context(epoch), &mut vec![]).unwrap();
        };
        step(operator.as_mut(), 1, vec![Delta::insert(rows(0..200))]);
        let first = operator.take_changes(false).unwrap();
        while operator.copy_changes(usize::MAX) > 0 {}
        assert_eq!((first.rows)().unwrap().iter().map(Delta::n_rows).sum::<usize>(), 200);
        step(operator.as_mut(), 2, vec![Delta::insert(rows(0..100)), Delta::delete(rows(190..200))]);
        let cut = operator.take_changes(may_be_all).unwrap();
        assert_eq!(cut.is_all_for, may_be_all.then_some(110));
        for _ in 0..n_copied {
            assert!(operator.copy_changes(1) > 0);
        }
        // Some change, some go, some come, in the places of some that have gone.
        step(operator.as_mut(), 3, vec![Delta::insert(rows(50..150)), Delta::insert(rows(195..220))]);
        step(operator.as_mut(), 4, vec![Delta::delete(rows(0..50)), Delta::delete(rows(0..50))]);
        step(operator.as_mut(), 5, vec![Delta::insert(rows(300..400))]);
        while operator.copy_changes(1) > 0 {}
        let (mut present, mut removed) = (vec![], vec![]);
        for delta in (cut.rows)().unwrap() {
            for (idx, row) in crate::testing::rows(delta.rows()).into_iter().enumerate() {
                match (delta.weight(idx), &row[..]) {
                    (1, [Value::Int(key), Value::Int(n), ..]) => present.push((*key, *n)),
                    (-1, [Value::Int(key), ..]) => removed.push(*key),
                    other => panic!("{other:?}"),
                }
            }
        }
        present.sort_unstable();
        removed.sort_unstable();
        let others = if may_be_all { 100..190 } else { 0..0 };
        let expected: Vec<(i64, i64)> = (0..100).map(|key| (key, 2)).chain(others.map(|key| (key, 1))).collect();
        assert_eq!(present, expected, "{n_copied} were copied before");
        assert_eq!(removed, if may_be_all { vec![] } else { (190..200).collect::<Vec<_>>() });
    }
}

/// More groups than are put out together, some of them there before, some gone, in a step of several parts.
#[test]
fn many_groups_are_put_out_in_pieces() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false)]));
    let fields = vec![schema.field(0).clone(), Field::new("n", DataType::Int64, false)];
    let plan = Aggregate {
        keys: vec![0],
        calls: vec![call(Function::Count, &[], DataType::Int64)],
        append_only: false,
        input: schema.clone(),
        schema: Arc::new(Schema::new(fields)),
    };
    let mut operator = plan.build(0).unwrap();
    let steps = Steps::default();
    let rows = |keys: &mut dyn Iterator<Item = i64>| {
        let keys: ArrayRef = Arc::new(arrow::array::Int64Array::from_iter_values(keys));
        RecordBatch::try_new(schema.clone(), vec![keys]).unwrap()
    };
    const N: i64 = 70_000;
    let (mut output, mut expected) = (Accumulated::default(), BTreeMap::new());
    for (epoch, first) in [(1, 0), (2, N / 2)] {
        let deltas = [
            Delta::insert(rows(&mut (first..first + N))),
            Delta::insert(rows(&mut (first..first + N).filter(|k| k % 2 == 0))),
            Delta::delete(rows(&mut (first..first + N).filter(|k| k % 3 == 0))),
        ];
        let mut out = vec![];
        for delta in deltas {
            for (idx, row) in crate::testing::rows(delta.rows()).into_iter().enumerate() {
                *expected.entry(row).or_default() += delta.weight(idx);
            }
            operator.step_part(&mut [vec![delta]], &steps.context(epoch), &mut out).unwrap();
        }
        assert!(out.is_empty());
        operator.step(&mut [vec![]], &steps.context(epoch), &mut out).unwrap();
        assert!(out.len() > 2, "{} pieces", out.len());
        output.add(&out);
        let is_there = |(key, n): (&Row, &i64)| (*n > 0).then(|| (vec![key[0].clone(), Value::Int(*n)], 1));
        assert_eq!(output.rows(), &expected.iter().filter_map(is_there).collect::<BTreeMap<_, _>>());
    }
}

#[test]
fn many_groups_come_and_go_in_bounded_memory() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8View, true)]));
    let plan = Aggregate {
        keys: vec![0],
        calls: vec![call(Function::Count, &[], DataType::Int64)],
        append_only: false,
        input: schema.clone(),
        schema: Arc::new(Schema::new(vec![
            Field::new("k", DataType::Utf8View, true),
            Field::new("n", DataType::Int64, true),
        ])),
    };
    let mut operator = plan.build(0).unwrap();
    let steps = Steps::default();
    let rows = |epoch: u32| {
        let rows: Vec<Row> =
            (0..2000).map(|i| vec![Value::Text(format!("a long key of epoch {epoch}, number {i}"))]).collect();
        batch(&schema, &rows.iter().collect::<Vec<_>>())
    };
    let mut bytes_after_ten = 0;
    for epoch in 1..100 {
        let mut input = vec![Delta::insert(rows(epoch))];
        if epoch > 3 {
            input.push(Delta::delete(rows(epoch - 3)));
        }
        operator.step(&mut [input], &steps.context(epoch), &mut vec![]).unwrap();
        assert_eq!(operator.state_rows(), 2000 * epoch.min(3) as usize);
        if epoch == 10 {
            bytes_after_ten = operator.state_bytes();
        }
    }
    assert!(operator.state_bytes() <= bytes_after_ten * 2, "{} after {bytes_after_ten}", operator.state_bytes());
}

/// Every type that can be a key or have a least value, with these texts cast to it.
#[test]
fn keys_and_least_values_of_every_type() {
    use DataType as T;
    let numbers = ["3", "1", "2", "1"];
    let texts = ["a text longer than twelve", "", "b", ""];
    let times = ["2026-01-03", "2026-01-01", "2026-01-02", "2026-01-01"];
    let more = [T::Float32, T::Float64, T::Decimal128(20, 3), T::Dictionary(Box::new(T::Int32), Box::new(T::Utf8))];
    let all: [(&[&str; 4], &[DataType]); 4] = [
        (&numbers, &more),
        (&numbers, &[T::Int8, T::Int16, T::Int32, T::Int64, T::UInt8, T::UInt16, T::UInt32, T::UInt64]),
        (&texts, &[T::Utf8, T::LargeUtf8, T::Utf8View, T::Binary, T::LargeBinary, T::BinaryView]),
        (
            &times,
            &[T::Date32, T::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), T::Timestamp(TimeUnit::Second, None)],
        ),
    ];
    for (values, types) in all {
        for data_type in types {
            check_key_type(values, data_type);
        }
    }
}

fn check_key_type(values: &[&str; 4], data_type: &DataType) {
    let texts: ArrayRef = Arc::new(arrow::array::StringArray::from(values.to_vec()));
    let column = arrow::compute::cast(&texts, data_type).unwrap();
    let field = Field::new("k", data_type.clone(), true);
    let rows = RecordBatch::try_new(Arc::new(Schema::new(vec![field.clone()])), vec![column.clone()]).unwrap();
    let least = |append_only| Aggregate {
        keys: vec![],
        calls: vec![call(Function::Min, &[0], data_type.clone())],
        append_only,
        input: rows.schema(),
        schema: Arc::new(Schema::new(vec![Field::new("least", data_type.clone(), true)])),
    };
    let steps = Steps::default();
    for append_only in [false, true] {
        let schema = Arc::new(Schema::new(vec![field.clone()]));
        let keys = Aggregate { keys: vec![0], calls: vec![], append_only, input: rows.schema(), schema };
        let mut out = vec![];
        keys.build(0).unwrap().step(&mut [vec![Delta::insert(rows.clone())]], &steps.context(1), &mut out).unwrap();
        assert_eq!(out[0].rows().column(0), &column.slice(0, 3), "{data_type}");
        out.clear();
        least(append_only)
            .build(0)
            .unwrap()
            .step(&mut [vec![Delta::insert(rows.clone())]], &steps.context(1), &mut out)
            .unwrap();
        // The row of an empty input goes, this one comes.
        assert_eq!(out[0].weights().unwrap().values(), &[-1, 1]);
        assert_eq!(&out[0].rows().column(0).slice(1, 1), &column.slice(1, 1), "{data_type}");
    }
}

#[test]
fn functions_of_ours_are_known_as_such() {
    for udaf in functions::all() {
        let function = functions::function_of(&Arc::new(udaf.clone()));
        assert!(!matches!(function, Function::Other(_)), "{}", udaf.name());
    }
}
