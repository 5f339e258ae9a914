//! Against a naive evaluation that looks at every row of the partition for every row of it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::bool_and_or::bool_or_udaf;
use datafusion::functions_aggregate::string_agg::string_agg_udaf;
use tidewire_types::{Delta, SqlState};

use super::{Arg, Bound, Call, Exclude, Frame, Function, Units, Window};
use crate::aggregate;
use crate::testing::{Accumulated, Random, Row, Steps, Value, batch, check_operator, rows, schema};
use crate::top_n::SortKey;

const K: usize = 0;
const V: usize = 1;
const X: usize = 2;
const F: usize = 3;
const B: usize = 4;

fn input() -> SchemaRef {
    let fields = [
        ("k", DataType::Utf8View),
        ("v", DataType::Int64),
        ("x", DataType::Int32),
        ("f", DataType::Float64),
        ("b", DataType::Boolean),
    ];
    schema(fields.map(|(name, t)| Field::new(name, t, true)).to_vec())
}

fn call(function: Function, args: Vec<Arg>, frame: Frame, data_type: DataType) -> Call {
    Call { function, args, filter: None, frame, field: Arc::new(Field::new("r", data_type, true)) }
}

fn window(partition_by: Vec<usize>, order_by: Vec<SortKey>, calls: Vec<Call>, input: &SchemaRef) -> Window {
    let mut fields: Vec<Field> = input.fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.extend(calls.iter().enumerate().map(|(i, c)| c.field.as_ref().clone().with_name(format!("r{i}"))));
    let tie_break = (0..input.fields().len()).collect();
    Window { partition_by, order_by, tie_break, calls, schema: schema(fields) }
}

fn int(n: i64) -> Arg {
    Arg::Constant(ScalarValue::Int64(Some(n)))
}

/// The rows of a partition in order, and the group of each.
struct Ordered<'a> {
    plan: &'a Window,
    rows: Vec<Row>,
    groups: Vec<usize>,
}

/// Values in an order: NULLs at the wanted end.
fn rank(value: &Value, key: &SortKey) -> (bool, i64, Option<Value>) {
    match value {
        Value::Null => (!key.nulls_first, 0, None),
        Value::Int(v) | Value::Float(v) if key.descending => (key.nulls_first, -v, None),
        Value::Int(v) | Value::Float(v) => (key.nulls_first, *v, None),
        other => (key.nulls_first, 0, Some(other.clone())),
    }
}

impl<'a> Ordered<'a> {
    fn new(plan: &'a Window, mut rows: Vec<Row>) -> Ordered<'a> {
        let order = |r: &Row| plan.order_by.iter().map(|k| rank(&r[k.column], k)).collect::<Vec<_>>();
        // The operator's text order is that of bytes, as Value's is; NULLs are last in both.
        rows.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.cmp(b)));
        let mut groups = vec![];
        for (idx, row) in rows.iter().enumerate() {
            let same = idx > 0 && order(&rows[idx - 1]) == order(row);
            groups.push(groups.last().map_or(0, |g: &usize| g + usize::from(!same)));
        }
        Ordered { plan, rows, groups }
    }

    fn is_in(&self, frame: &Frame, i: usize, j: usize) -> bool {
        let count = |offset: &ScalarValue| match offset {
            ScalarValue::Int64(Some(n)) => *n,
            _ => panic!("an offset"),
        };
        let distance = |unit: &Units| match unit {
            Units::Rows => j as i64 - i as i64,
            _ => self.groups[j] as i64 - self.groups[i] as i64,
        };
        let value = |i: usize| match &self.rows[i][self.plan.order_by[0].column] {
            Value::Int(v) => Some(*v),
            _ => None,
        };
        let is_after_start = |bound: &Bound, sign: i64| {
            let (offset, side) = match bound {
                Bound::UnboundedPreceding => return sign > 0,
                Bound::UnboundedFollowing => return sign < 0,
                Bound::CurrentRow => return distance(&frame.units) * sign >= 0,
                Bound::Preceding(offset) => (count(offset), -1),
                Bound::Following(offset) => (count(offset), 1),
            };
            match frame.units {
                Units::Range => match (value(i), value(j)) {
                    (Some(a), Some(b)) => {
                        let direction = if self.plan.order_by[0].descending { -1 } else { 1 };
                        ((b - a) * direction - offset * side) * sign >= 0
                    }
                    // NULLs are at no distance from each other; from values they are beyond, on their side.
                    (None, None) => true,
                    _ => (j as i64 - i as i64) * sign >= 0,
                },
                units => (distance(&units) - offset * side) * sign >= 0,
            }
        };
        // A NULL is in no frame by distance of a value, but an open end reaches it.
        is_after_start(&frame.start, 1)
            && is_after_start(&frame.end, -1)
            && self.is_near(frame, i, j)
            && match frame.exclude {
                Exclude::NoOthers => true,
                Exclude::CurrentRow => i != j,
                Exclude::Group => self.groups[i] != self.groups[j],
                Exclude::Ties => i == j || self.groups[i] != self.groups[j],
            }
    }

    /// For RANGE with offsets: a NULL and a value see each other only through an open end on that side.
    fn is_near(&self, frame: &Frame, i: usize, j: usize) -> bool {
        if frame.units != Units::Range {
            return true;
        }
        let column = self.plan.order_by.first().map(|k| k.column);
        let is_null = |i: usize| column.is_some_and(|c| self.rows[i][c] == Value::Null);
        if is_null(i) == is_null(j) {
            return true;
        }
        if j < i { frame.start == Bound::UnboundedPreceding } else { frame.end == Bound::UnboundedFollowing }
    }

    fn result(&self, call: &Call, i: usize) -> Value {
        let n = self.rows.len();
        let group = self.groups[i];
        let first = self.groups.iter().position(|g| *g == group).unwrap();
        let last = self.groups.iter().rposition(|g| *g == group).unwrap();
        let arg = |idx: usize, row: &Row| match &call.args[idx] {
            Arg::Column(c) => row[*c].clone(),
            Arg::Constant(ScalarValue::Int64(Some(v))) => Value::Int(*v),
            Arg::Constant(ScalarValue::Utf8View(Some(v))) => Value::Text(v.clone()),
            other => panic!("{other:?}"),
        };
        let frame: Vec<&Row> = (0..n).filter(|j| self.is_in(&call.frame, i, *j)).map(|j| &self.rows[j]).collect();
        let shift = |sign: i64| {
            let offset = if call.args.len() > 1 { arg(1, &self.rows[i]) } else { Value::Int(1) };
            let Value::Int(offset) = offset else { return Value::Null };
            match usize::try_from(i as i64 + sign * offset).ok().and_then(|at| self.rows.get(at)) {
                Some(row) => arg(0, row),
                None if call.args.len() > 2 => arg(2, &self.rows[i]),
                None => Value::Null,
            }
        };
        match &call.function {
            Function::RowNumber => Value::Int(i as i64 + 1),
            Function::Rank => Value::Int(first as i64 + 1),
            Function::DenseRank => Value::Int(group as i64 + 1),
            Function::PercentRank => Value::float(if n <= 1 { 0.0 } else { first as f64 / (n - 1) as f64 }),
            Function::CumeDist => Value::float((last + 1) as f64 / n as f64),
            Function::Ntile => {
                let Value::Int(buckets) = arg(0, &self.rows[0]) else { panic!() };
                let sizes = (0..buckets as usize).map(|b| n / buckets as usize + usize::from(b < n % buckets as usize));
                let mut all = sizes.enumerate().flat_map(|(b, size)| std::iter::repeat_n(b as i64 + 1, size));
                Value::Int(all.nth(i).unwrap())
            }
            Function::Lag => shift(-1),
            Function::Lead => shift(1),
            Function::FirstValue => frame.first().map_or(Value::Null, |r| arg(0, r)),
            Function::LastValue => frame.last().map_or(Value::Null, |r| arg(0, r)),
            Function::NthValue => match arg(1, &self.rows[i]) {
                Value::Int(nth) => frame.get(nth as usize - 1).map_or(Value::Null, |r| arg(0, r)),
                _ => Value::Null,
            },
            Function::Aggregate(function) => {
                let rows = frame.iter().filter(|r| call.filter.is_none_or(|f| r[f] == Value::Bool(true)));
                let values: Vec<Value> = if call.args.is_empty() {
                    rows.map(|_| Value::Int(0)).collect()
                } else {
                    rows.map(|r| arg(0, r)).collect()
                };
                naive_aggregate(function, values.into_iter().filter(|v| *v != Value::Null).collect())
            }
        }
    }
}

fn naive_aggregate(function: &aggregate::Function, values: Vec<Value>) -> Value {
    use aggregate::Function as F;
    let n = values.len();
    if matches!(function, F::Count) {
        return Value::Int(n as i64);
    }
    if n == 0 {
        return Value::Null;
    }
    let is_float = matches!(values[0], Value::Float(_));
    let ints = || values.iter().map(|v| if let Value::Int(i) = v { *i } else { panic!() }).sum::<i64>();
    match function {
        F::Sum if is_float => Value::float(exact(&values)),
        F::Sum => Value::Int(ints()),
        F::Avg if is_float => Value::float(exact(&values) / n as f64),
        F::Avg => Value::float(ints() as f64 / n as f64),
        F::Min => values.iter().min().unwrap().clone(),
        F::Max => values.iter().max().unwrap().clone(),
        F::Other(f) if f.name() == "string_agg" => {
            let texts = values.iter().map(|v| if let Value::Text(t) = v { t.as_str() } else { panic!() });
            Value::Text(texts.collect::<Vec<_>>().join("|"))
        }
        F::Other(_) => Value::Bool(values.contains(&Value::Bool(true))),
        other => panic!("no such call here: {}", other.name()),
    }
}

fn exact(values: &[Value]) -> f64 {
    let mut sum = aggregate::ExactSum::default();
    values.iter().for_each(|v| {
        sum.add(v.as_float().unwrap(), 1);
    });
    sum.value()
}

fn naive(plan: &Window, rows: &[Row]) -> Vec<Row> {
    let mut partitions: BTreeMap<Vec<Value>, Vec<Row>> = BTreeMap::new();
    for row in rows {
        partitions.entry(plan.partition_by.iter().map(|c| row[*c].clone()).collect()).or_default().push(row.clone());
    }
    let mut output = vec![];
    for rows in partitions.into_values() {
        let ordered = Ordered::new(plan, rows);
        for i in 0..ordered.rows.len() {
            let mut row = ordered.rows[i].clone();
            row.extend(plan.calls.iter().map(|call| ordered.result(call, i)));
            output.push(row);
        }
    }
    output
}

fn by_v(descending: bool, nulls_first: bool) -> Vec<SortKey> {
    vec![SortKey { column: V, descending, nulls_first }]
}

fn check(plan: &Window) {
    check_operator(&[input()], &crate::Plan::Window(plan.clone()), |inputs| naive(plan, &inputs[0]));
}

fn aggregates(frame: &Frame) -> Vec<Call> {
    use aggregate::Function as A;
    let of = |function, column: usize, data_type| {
        call(Function::Aggregate(function), vec![Arg::Column(column)], frame.clone(), data_type)
    };
    let mut calls = vec![
        call(Function::Aggregate(A::Count), vec![], frame.clone(), DataType::Int64),
        of(A::Count, X, DataType::Int64),
        of(A::Sum, X, DataType::Int64),
        of(A::Avg, X, DataType::Float64),
        of(A::Sum, F, DataType::Float64),
        of(A::Avg, F, DataType::Float64),
        of(A::Min, K, DataType::Utf8View),
        of(A::Max, X, DataType::Int32),
        of(A::Other(bool_or_udaf()), B, DataType::Boolean),
        call(Function::FirstValue, vec![Arg::Column(F)], frame.clone(), DataType::Float64),
        call(Function::LastValue, vec![Arg::Column(K)], frame.clone(), DataType::Utf8View),
        call(Function::NthValue, vec![Arg::Column(X), int(2)], frame.clone(), DataType::Int32),
    ];
    let separator = Arg::Constant(ScalarValue::Utf8View(Some("|".into())));
    let args = vec![Arg::Column(K), separator];
    let text = call(Function::Aggregate(A::Other(string_agg_udaf())), args, frame.clone(), DataType::LargeUtf8);
    calls.push(Call { filter: Some(B), ..text });
    calls.push(Call { filter: Some(B), ..of(A::Sum, X, DataType::Int64) });
    calls
}

fn frames() -> Vec<Frame> {
    let n = |n: i64| ScalarValue::Int64(Some(n));
    let (p, f) = (|i| Bound::Preceding(n(i)), |i| Bound::Following(n(i)));
    let pairs = [
        (Bound::UnboundedPreceding, Bound::CurrentRow),
        (Bound::UnboundedPreceding, Bound::UnboundedFollowing),
        (Bound::CurrentRow, Bound::UnboundedFollowing),
        (Bound::CurrentRow, Bound::CurrentRow),
        (p(2), f(1)),
        (p(3), p(1)),
        (f(1), f(2)),
        (Bound::UnboundedPreceding, p(1)),
        (Bound::UnboundedPreceding, f(2)),
        (f(1), Bound::UnboundedFollowing),
        (p(1), Bound::UnboundedFollowing),
        (p(1), Bound::CurrentRow),
        (p(0), f(0)),
        (p(1), p(2)),
    ];
    let mut frames = vec![];
    let excludes = [Exclude::NoOthers, Exclude::CurrentRow, Exclude::Group, Exclude::Ties];
    for units in [Units::Rows, Units::Groups, Units::Range] {
        for (start, end) in &pairs {
            // Each with one of them, in turns: all pairs of both are too many for every run of the tests.
            let exclude = excludes[frames.len() % excludes.len()];
            frames.push(Frame { units, start: start.clone(), end: end.clone(), exclude });
        }
    }
    frames
}

#[test]
fn ranks_and_neighbours_equal_the_naive_ones() {
    let standard = Frame::standard;
    let number = |function| call(function, vec![], standard(), DataType::Int64);
    let fraction = |function| call(function, vec![], standard(), DataType::Float64);
    let shifted = |function, args: Vec<Arg>| call(function, args, standard(), DataType::Int32);
    let sets = [
        vec![number(Function::RowNumber)],
        vec![number(Function::Rank), number(Function::RowNumber)],
        vec![number(Function::DenseRank)],
        vec![fraction(Function::PercentRank), fraction(Function::CumeDist)],
        vec![call(Function::Ntile, vec![int(3)], standard(), DataType::Int32)],
        vec![shifted(Function::Lag, vec![Arg::Column(X)]), shifted(Function::Lead, vec![Arg::Column(X), int(2)])],
        vec![shifted(Function::Lag, vec![Arg::Column(X), int(2), Arg::Column(X)])],
        vec![shifted(Function::Lead, vec![Arg::Column(X), Arg::Column(V), int(7)])],
        vec![shifted(Function::Lag, vec![Arg::Column(X), int(-1)])],
        vec![shifted(Function::Lag, vec![Arg::Column(X), int(0)])],
    ];
    for calls in sets {
        for (partition_by, order_by) in [
            (vec![], by_v(false, false)),
            (vec![K], by_v(true, true)),
            (vec![K, B], by_v(false, true)),
            (vec![], vec![]),
        ] {
            check(&window(partition_by, order_by, calls.clone(), &input()));
        }
    }
}

#[test]
fn every_frame_equals_the_naive_one() {
    for (idx, frame) in frames().into_iter().enumerate() {
        let order_by = by_v(idx % 2 == 1, idx % 3 == 1);
        let partition_by = if idx % 5 == 0 { vec![K] } else { vec![] };
        check_few(&window(partition_by, order_by, aggregates(&frame), &input()), &frame);
    }
}

/// As `check`, which tells by its panic what failed but not for which frame.
fn check_few(plan: &Window, frame: &Frame) {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(plan)));
    if outcome.is_err() {
        panic!("frame {frame}, order {:?}", plan.order_by);
    }
}

/// Many rows in one partition, changed a few at a time: summaries of chunks, and runs of rows that are evaluated apart.
#[test]
fn large_partitions_equal_the_naive_evaluation() {
    let frames = frames();
    let pick = |n: usize| frames[n % frames.len()].clone();
    for round in 0..14 {
        let mut calls = aggregates(&pick(round * 11));
        calls.truncate(11);
        if round % 3 == 0 {
            calls = vec![call(Function::RowNumber, vec![], Frame::standard(), DataType::Int64)];
            calls.push(call(Function::Rank, vec![], Frame::standard(), DataType::Int64));
            calls.push(call(Function::Lag, vec![Arg::Column(X), int(2)], Frame::standard(), DataType::Int32));
        }
        let plan = window(vec![], by_v(round % 2 == 1, false), calls, &input());
        let mut operator = plan.build().unwrap();
        let (steps, mut random) = (Steps::default(), Random::new(round as u64));
        let mut present: Vec<Row> = vec![];
        let mut output = Accumulated::default();
        let mut value = |bound: u64| random.below(bound) as i64;
        for epoch in 1..=5 {
            let mut deltas = vec![];
            let n_new = if epoch == 1 { 330 } else { 3 };
            let new: Vec<Row> = (0..n_new)
                .map(|_| {
                    let v = if value(20) == 0 { Value::Null } else { Value::Int(value(150)) };
                    let f = Value::float(value(100) as f64 / 7.0);
                    vec![Value::Text("k".into()), v, Value::Int(value(1000)), f, Value::Bool(value(2) == 0)]
                })
                .collect();
            deltas.push(Delta::insert(batch(&input(), &new.iter().collect::<Vec<_>>())));
            if epoch > 1 {
                let gone: Vec<Row> =
                    (0..3).map(|_| present.swap_remove(value(present.len() as u64) as usize)).collect();
                deltas.push(Delta::delete(batch(&input(), &gone.iter().collect::<Vec<_>>())));
            }
            present.extend(new);
            let mut out = vec![];
            operator.step(&mut [deltas], &steps.context(epoch), &mut out).unwrap();
            output.add(&out);
            let mut expected = Accumulated::default();
            let rows = naive(&plan, &present);
            expected.add(&[Delta::insert(batch(&plan.schema, &rows.iter().collect::<Vec<_>>()))]);
            let first = output.rows().iter().zip(expected.rows()).find(|(a, b)| a != b);
            assert_eq!(first, None, "round {round}, epoch {epoch}, frame {}", plan.calls[0].frame);
            assert_eq!(output.rows().len(), expected.rows().len());
        }
        let all = Delta::delete(batch(&input(), &present.iter().collect::<Vec<_>>()));
        operator.step(&mut [vec![all]], &steps.context(6), &mut vec![]).unwrap();
        assert_eq!(operator.state_rows(), 0);
        assert!(operator.state_bytes() < 4096, "{}", operator.state_bytes());
    }
}

/// Rows put out for one more row in a partition of many.
#[test]
fn a_change_puts_out_only_what_it_reaches() {
    let n = |n: i64| ScalarValue::Int64(Some(n));
    let near =
        Frame { units: Units::Rows, start: Bound::Preceding(n(2)), end: Bound::CurrentRow, exclude: Exclude::NoOthers };
    let sum = aggregate::Function::Sum;
    for (function, args, frame, n_rows) in [
        (Function::RowNumber, vec![], Frame::standard(), 1 + 2 * 500),
        (Function::Lag, vec![Arg::Column(X)], Frame::standard(), 1 + 2),
        (Function::Aggregate(sum.clone()), vec![Arg::Column(X)], near, 1 + 2 * 2),
        (Function::Aggregate(sum), vec![Arg::Column(X)], Frame::standard(), 1 + 2 * 500),
    ] {
        let data_type = if function == Function::Lag { DataType::Int32 } else { DataType::Int64 };
        let plan = window(vec![], by_v(false, false), vec![call(function, args, frame, data_type)], &input());
        let row = |v: i64| vec![Value::Null, Value::Int(v), Value::Int(v % 7 + 1), Value::Null, Value::Null];
        let all: Vec<Row> = (0..1000).map(|v| row(2 * v)).collect();
        let mut operator = plan.build().unwrap();
        let steps = Steps::default();
        let first = Delta::insert(batch(&input(), &all.iter().collect::<Vec<_>>()));
        operator.step(&mut [vec![first]], &steps.context(1), &mut vec![]).unwrap();
        let mut out = vec![];
        let one = Delta::insert(batch(&input(), &[&row(999)]));
        operator.step(&mut [vec![one]], &steps.context(2), &mut out).unwrap();
        assert_eq!(out.iter().map(|d| d.n_rows()).sum::<usize>(), n_rows, "{plan}");
    }
}

#[test]
fn ranges_over_times_follow_the_calendar() {
    let types = [DataType::Timestamp(TimeUnit::Microsecond, None), DataType::Int64];
    let fields = schema(types.map(|t| Field::new(if t == DataType::Int64 { "n" } else { "t" }, t, true)).to_vec());
    let day = 86_400_000_000i64;
    let month = ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(1, 0, 0)));
    let frame = Frame {
        units: Units::Range,
        start: Bound::Preceding(month),
        end: Bound::CurrentRow,
        exclude: Exclude::NoOthers,
    };
    let count = call(Function::Aggregate(aggregate::Function::Count), vec![], frame, DataType::Int64);
    let order_by = vec![SortKey { column: 0, descending: false, nulls_first: false }];
    let plan = window(vec![], order_by, vec![count], &fields);
    let mut operator = plan.build().unwrap();
    // 2026-01-28, -30, -31, 2026-02-28, 2026-03-01, 2026-03-28.
    let days = [20481, 20483, 20484, 20512, 20513, 20540];
    let input: Vec<Row> = days.iter().map(|d| vec![Value::Int(d * day), Value::Int(0)]).collect();
    let mut output = Accumulated::default();
    let steps = Steps::default();
    for (epoch, row) in input.iter().enumerate() {
        let mut out = vec![];
        let delta = Delta::insert(batch(&fields, &[row]));
        operator.step(&mut [vec![delta]], &steps.context(epoch as u32 + 1), &mut out).unwrap();
        output.add(&out);
    }
    let counts: Vec<Value> = output.rows().keys().map(|row| row[2].clone()).collect();
    assert_eq!(counts, [1, 2, 3, 4, 2, 3].map(Value::Int));
}

#[test]
fn what_cannot_be_computed_is_a_row_error_once() {
    let frame = Frame::standard();
    let ntile = call(Function::Ntile, vec![Arg::Column(X)], frame, DataType::Int32);
    let plan = window(vec![K], by_v(false, false), vec![ntile], &input());
    let mut operator = plan.build().unwrap();
    let steps = Steps::default();
    let row = |v: i64, x: i64| vec![Value::Text("a".into()), Value::Int(v), Value::Int(x), Value::Null, Value::Null];
    let n_out = Cell::new(0);
    let mut step = |delta: Delta, epoch: u32| {
        let mut out = vec![];
        operator.step(&mut [vec![delta]], &steps.context(epoch), &mut out).unwrap();
        n_out.set(out.iter().map(|d| rows(d.rows()).len()).sum());
        steps.row_errors()
    };
    let errors = step(Delta::insert(batch(&input(), &[&row(1, 0), &row(2, 5)])), 1);
    assert_eq!((errors.len(), errors[0].error.state()), (2, SqlState::InvalidArgumentForNtile));
    assert_eq!(n_out.get(), 0);
    assert_eq!(step(Delta::insert(batch(&input(), &[&row(3, 5)])), 2).len(), 1);
    assert!(step(Delta::delete(batch(&input(), &[&row(1, 0)])), 3).is_empty());
    assert_eq!(n_out.get(), 2);
}

#[test]
fn offsets_are_checked() {
    let frame = |units, start: ScalarValue| Frame { units, start: Bound::Preceding(start), ..Frame::standard() };
    let state = |frame: Frame, data_type: &DataType| frame.check(Some(data_type)).unwrap_err().state();
    let int = |n: Option<i64>| ScalarValue::Int64(n);
    assert_eq!(state(frame(Units::Rows, int(Some(-1))), &DataType::Int64), SqlState::InvalidPrecedingOrFollowingSize);
    assert_eq!(state(frame(Units::Groups, int(None)), &DataType::Int64), SqlState::NullValueNotAllowed);
    assert_eq!(state(frame(Units::Range, int(Some(-1))), &DataType::Int32), SqlState::InvalidPrecedingOrFollowingSize);
    assert_eq!(state(frame(Units::Range, int(Some(1))), &DataType::Utf8View), SqlState::FeatureNotSupported);
    assert_eq!(state(frame(Units::Range, int(Some(1))), &DataType::Date32), SqlState::FeatureNotSupported);
    assert!(frame(Units::Range, int(Some(1))).check(Some(&DataType::Float64)).is_ok());
}
