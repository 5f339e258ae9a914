//! Every kind of join against a nested loop over all rows so far, over random epochs.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StringViewArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::logical_expr::Operator as Op;
use datafusion::physical_expr::expressions::{Column, binary, lit};
use datafusion::physical_plan::PhysicalExpr;
use parking_lot::Mutex;
use proptest::prelude::*;
use tidewire_types::{Delta, Epoch};

use super::{Join, Kind};
use crate::arrangement::pages::scramble;
use crate::testing::{Checkpoint, Random};
use crate::{Plan, StepContext};

/// A row: two key parts and a value.
type Row = (Option<u8>, Option<u8>, Option<u8>);
/// A row of the output: the left's, the right's, the mark.
type Out = (Option<Row>, Option<Row>, Option<bool>);

/// What the keys are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Keys {
    Int,
    /// Integers beyond 32 bits among others, whose hashes differ in their lower half only.
    Wide,
    Text,
    Float,
    List,
    IntAndText,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Residual {
    None,
    /// `l.v < r.v`
    Less,
    /// `10 / (l.v - r.v) > 3`: fails where they are equal.
    Quotient,
}

#[derive(Clone, Debug)]
struct Case {
    kind: Kind,
    keys: Keys,
    residual: Residual,
    null_equals_null: bool,
    null_aware: bool,
    append_only: [bool; 2],
    unique: [bool; 2],
}

fn schema() -> SchemaRef {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)));
    let columns = [
        ("i", DataType::Int64),
        ("s", DataType::Utf8View),
        ("f", DataType::Float64),
        ("l", list),
        ("t", DataType::Utf8),
        ("v", DataType::Int32),
        ("w", DataType::Int64),
    ];
    Arc::new(Schema::new(columns.map(|(name, t)| Field::new(name, t, true)).to_vec()))
}

const TEXTS: [&str; 4] =
    ["", "twelve bytes", "a text that is longer than a view", "a text that is longer than another"];

fn columns(rows: &[Option<Row>]) -> Vec<ArrayRef> {
    let a = || rows.iter().map(|row| row.and_then(|(a, ..)| a));
    let text = |b: Option<u8>| b.map(|b| TEXTS[usize::from(b) % 4]);
    let b = rows.iter().map(|row| row.and_then(|(_, b, _)| b));
    vec![
        Arc::new(Int64Array::from_iter(a().map(|a| a.map(i64::from)))),
        Arc::new(StringViewArray::from_iter(a().map(text))),
        // Zero, minus zero and not-a-number are values of their own only as long as they are not compared.
        Arc::new(Float64Array::from_iter(a().map(|a| a.map(|a| [0.0, f64::NAN, 1.5, -1.5][usize::from(a) % 4])))),
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
            a().map(|a| a.map(|a| (0..i32::from(a)).map(|i| (i != 1).then_some(i)))),
        )),
        Arc::new(StringArray::from_iter(b.map(text))),
        Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.and_then(|(.., v)| v.map(i32::from))))),
        Arc::new(Int64Array::from_iter(a().map(|a| a.map(wide)))),
    ]
}

/// 0 and 2, and for each another number whose hash has the same tag.
fn wide(a: u8) -> i64 {
    let other = |upper: u32, twin: u32| i64::from(upper) << 32 | i64::from(twin ^ scramble(upper));
    match a {
        1 => other(1, 0),
        3 => other(u32::MAX, 2),
        a => i64::from(a),
    }
}

fn batch(rows: &[Row]) -> RecordBatch {
    RecordBatch::try_new(schema(), columns(&rows.iter().map(|row| Some(*row)).collect::<Vec<_>>())).unwrap()
}

impl Case {
    fn plan(&self) -> Join {
        let keys = match self.keys {
            Keys::Int => vec![0],
            Keys::Wide => vec![6],
            Keys::Text => vec![1],
            Keys::Float => vec![2],
            Keys::List => vec![3],
            Keys::IntAndText => vec![0, 4],
            Keys::None => vec![],
        };
        let fields = schema().fields().iter().chain(schema().fields()).cloned().collect::<Vec<_>>();
        let pair_schema = Arc::new(Schema::new(fields));
        let column = |idx: usize| -> Arc<dyn PhysicalExpr> { Arc::new(Column::new("v", idx)) };
        let residual = match self.residual {
            Residual::None => None,
            Residual::Less => Some(binary(column(5), Op::Lt, column(12), &pair_schema).unwrap()),
            Residual::Quotient => {
                let difference = binary(column(5), Op::Minus, column(12), &pair_schema).unwrap();
                let quotient = binary(lit(10i32), Op::Divide, difference, &pair_schema).unwrap();
                Some(binary(quotient, Op::Gt, lit(3i32), &pair_schema).unwrap())
            }
        };
        Join {
            kind: self.kind,
            left_keys: keys.clone(),
            right_keys: keys,
            null_equals_null: self.null_equals_null,
            null_aware: self.null_aware,
            residual,
            left_append_only: self.append_only[0],
            right_append_only: self.append_only[1],
            left_unique: self.unique[0],
            right_unique: self.unique[1],
            left_schema: schema(),
            right_schema: schema(),
            schema: self.out_schema(),
        }
    }

    fn out_schema(&self) -> SchemaRef {
        let mut fields = schema().fields().to_vec();
        match self.kind {
            Kind::Inner | Kind::Left | Kind::Right | Kind::Full => fields.extend(schema().fields().iter().cloned()),
            Kind::LeftSemi | Kind::LeftAnti => {}
            Kind::LeftMark => fields.push(Arc::new(Field::new("mark", DataType::Boolean, true))),
        }
        Arc::new(Schema::new(fields))
    }

    fn out_batch(&self, rows: &[Out]) -> RecordBatch {
        let mut out = columns(&rows.iter().map(|(left, ..)| *left).collect::<Vec<_>>());
        match self.kind {
            Kind::LeftSemi | Kind::LeftAnti => {}
            Kind::LeftMark => out.push(Arc::new(BooleanArray::from_iter(rows.iter().map(|(.., mark)| *mark)))),
            _ => out.extend(columns(&rows.iter().map(|(_, right, _)| *right).collect::<Vec<_>>())),
        }
        RecordBatch::try_new(self.out_schema(), out).unwrap()
    }

    fn key_parts(&self, row: Row) -> Vec<Option<u8>> {
        match self.keys {
            Keys::None => vec![],
            Keys::IntAndText => vec![row.0, row.1],
            _ => vec![row.0],
        }
    }

    /// Whether a pair matches; None: unknown.
    fn matches(&self, left: Row, right: Row) -> Option<bool> {
        let holds = match (self.residual, left.2.zip(right.2)) {
            (Residual::None, _) => true,
            (_, None) => false,
            (Residual::Less, Some((l, r))) => l < r,
            (Residual::Quotient, Some((l, r))) => l != r && 10 / (i32::from(l) - i32::from(r)) > 3,
        };
        if !holds {
            return Some(false);
        }
        let mut parts: Vec<_> = self.key_parts(left).into_iter().zip(self.key_parts(right)).collect();
        let is_aware = self.null_aware && matches!(self.kind, Kind::LeftAnti | Kind::LeftMark);
        let last = if is_aware { parts.pop() } else { None };
        let same = parts.iter().all(|(l, r)| l == r && (l.is_some() || self.null_equals_null));
        match last {
            _ if !same => Some(false),
            None => Some(true),
            Some((l, r)) => l.zip(r).map(|(l, r)| l == r),
        }
    }

    fn expected(&self, left: &[Row], right: &[Row]) -> Vec<Out> {
        let mut out = vec![];
        let mut right_matched = vec![false; right.len()];
        for l in left {
            let (mut is_matched, mut is_unknown) = (false, false);
            for (r, right_matched) in right.iter().zip(&mut right_matched) {
                match self.matches(*l, *r) {
                    Some(true) => {
                        is_matched = true;
                        *right_matched = true;
                        if matches!(self.kind, Kind::Inner | Kind::Left | Kind::Right | Kind::Full) {
                            out.push((Some(*l), Some(*r), None));
                        }
                    }
                    Some(false) => {}
                    None => is_unknown = true,
                }
            }
            let is_out = match self.kind {
                Kind::Inner | Kind::Right => false,
                Kind::Left | Kind::Full => !is_matched,
                Kind::LeftSemi => is_matched,
                Kind::LeftAnti => !is_matched && !is_unknown,
                Kind::LeftMark => true,
            };
            if is_out {
                out.push((Some(*l), None, (is_matched || !is_unknown).then_some(is_matched)));
            }
        }
        if matches!(self.kind, Kind::Right | Kind::Full) {
            let unmatched = right.iter().zip(right_matched).filter(|(_, is_matched)| !is_matched);
            out.extend(unmatched.map(|(r, _)| (None, Some(*r), None)));
        }
        out
    }
}

/// Adds the rows of a delta to a bag of rows as text.
fn accumulate(bag: &mut BTreeMap<String, i64>, delta: &Delta) {
    let options = FormatOptions::new().with_null("NULL");
    let columns = delta.rows().columns().iter();
    let columns: Vec<_> = columns.map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
    for row in 0..delta.n_rows() {
        let text = columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|");
        let total = bag.entry(text.clone()).or_default();
        *total += delta.weight(row);
        if *total == 0 {
            bag.remove(&text);
        }
    }
}

/// What one side does in one epoch: a row and how many copies more or (as far as there are) fewer.
type Changes = Vec<(Row, i64)>;

fn run(case: &Case, epochs: &[(Changes, Changes, u64)]) -> Result<(), TestCaseError> {
    let plan = Plan::Join(case.plan());
    let mut join = plan.build(0).unwrap();
    let mut checkpoint = Checkpoint::new(plan.kept(), &[schema(), schema()]);
    let mut inputs: [BTreeMap<Row, i64>; 2] = Default::default();
    let mut output = BTreeMap::new();
    let row_errors = Mutex::new(vec![]);
    let deletion = (vec![], vec![], 0);
    for (idx, (left, right, seed)) in epochs.iter().chain([&deletion]).enumerate() {
        let mut deltas: Vec<Vec<Delta>> = vec![];
        let is_last = idx == epochs.len();
        let n_copies: i64 = inputs.iter().flat_map(BTreeMap::values).sum();
        for (side, changes) in [left, right].into_iter().enumerate() {
            let rows = &mut inputs[side];
            let mut applied = vec![];
            if is_last && !case.append_only[side] {
                applied.extend(std::mem::take(rows).into_iter().map(|(row, n)| (row, -n)));
            }
            for (row, weight) in changes {
                let mut weight = *weight;
                if case.append_only[side] {
                    weight = weight.abs();
                }
                if case.unique[side] {
                    // An update: the former row of the key goes.
                    let key = case.key_parts(*row);
                    let same = |other: &Row| case.key_parts(*other) == key;
                    if let Some(old) = rows.keys().find(|other| same(other)).copied() {
                        if case.append_only[side] {
                            continue;
                        }
                        rows.remove(&old);
                        applied.push((old, -1));
                    }
                    weight = if weight > 0 { 1 } else { continue };
                }
                let total = rows.entry(*row).or_default();
                weight = weight.max(-*total);
                *total += weight;
                if *total == 0 {
                    rows.remove(row);
                }
                applied.push((*row, weight));
            }
            if seed % 2 == 0 {
                applied.reverse();
            }
            let (a, b) = applied.split_at(applied.len().min((seed / 2 % 9) as usize));
            let delta = |changes: &[(Row, i64)]| {
                let rows = batch(&changes.iter().map(|(row, _)| *row).collect::<Vec<_>>());
                let weights: Vec<i64> = changes.iter().map(|(_, weight)| *weight).collect();
                let is_plain = weights.iter().all(|w| *w == 1);
                Delta::new(rows, (!is_plain).then(|| weights.into()))
            };
            deltas.push(vec![delta(a), delta(b)]);
        }
        let cx = StepContext { epoch: Epoch(idx as u32 + 1), now_us: 0, row_errors: &row_errors };
        if seed % 5 < 2 {
            let restored = checkpoint.restored(&plan, &mut Random::new(*seed));
            // Copies of one row may be kept apart.
            for rows in [restored.state_rows(), join.state_rows()] {
                prop_assert!(rows as i64 <= n_copies, "{} rows of state for {} copies", rows, n_copies);
            }
            join = restored;
        }
        checkpoint.record(&deltas);
        let mut out = vec![];
        match seed % 3 {
            1 => join.step_part(&mut deltas, &cx, &mut out).unwrap(),
            _ => join.step(&mut deltas, &cx, &mut out).unwrap(),
        }
        out.iter().for_each(|delta| accumulate(&mut output, delta));
        let [left, right] = inputs
            .each_ref()
            .map(|rows| rows.iter().flat_map(|(row, n)| std::iter::repeat_n(*row, *n as usize)).collect::<Vec<Row>>());
        let mut expected = BTreeMap::new();
        accumulate(&mut expected, &Delta::insert(case.out_batch(&case.expected(&left, &right))));
        prop_assert_eq!(&output, &expected, "epoch {}", idx + 1);
    }
    if case.append_only == [false; 2] {
        prop_assert_eq!(join.state_rows(), 0);
        prop_assert!(join.state_bytes() < 600_000, "{}", join.state_bytes());
    }
    let is_quotient = case.residual == Residual::Quotient;
    prop_assert!(is_quotient || row_errors.lock().is_empty());
    Ok(())
}

fn a_row() -> impl Strategy<Value = Row> {
    let part = |p, n: u8| prop::option::weighted(p, 0..n);
    (part(0.85, 4), part(0.85, 4), part(0.9, 6))
}

fn epochs() -> impl Strategy<Value = Vec<(Changes, Changes, u64)>> {
    let changes = || prop::collection::vec((a_row(), -2i64..3), 0..14);
    prop::collection::vec((changes(), changes(), any::<u64>()), 1..8)
}

fn a_case(kind: Kind) -> impl Strategy<Value = Case> {
    let keys = prop::sample::select(vec![
        Keys::Int,
        Keys::Wide,
        Keys::Text,
        Keys::Float,
        Keys::List,
        Keys::IntAndText,
        Keys::None,
    ]);
    let residual = prop::sample::select(vec![Residual::None, Residual::None, Residual::Less, Residual::Quotient]);
    let flags = (any::<bool>(), any::<bool>(), any::<[bool; 2]>(), any::<[bool; 2]>());
    (keys, residual, flags).prop_map(move |(keys, residual, (nulls, null_aware, append_only, unique))| Case {
        kind,
        keys,
        residual,
        null_equals_null: nulls,
        // Lists have no comparison by SQL's NULL logic, and without a key there is nothing to compare.
        null_aware: null_aware && !matches!(keys, Keys::List | Keys::None | Keys::Float),
        append_only: append_only.map(|flag| flag && nulls),
        unique,
    })
}

macro_rules! kinds {
    ($($name:ident: $kind:expr,)*) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(96))]
            $(
                #[test]
                fn $name(case in a_case($kind), epochs in epochs()) {
                    run(&case, &epochs)?;
                }
            )*
        }
    };
}

kinds! {
    inner: Kind::Inner,
    left: Kind::Left,
    right: Kind::Right,
    full: Kind::Full,
    left_semi: Kind::LeftSemi,
    left_anti: Kind::LeftAnti,
    left_mark: Kind::LeftMark,
}

#[test]
fn a_pair_that_cannot_be_judged_is_a_dead_letter_and_no_match() {
    let case = Case {
        kind: Kind::Left,
        keys: Keys::Int,
        residual: Residual::Quotient,
        null_equals_null: false,
        null_aware: false,
        append_only: [false; 2],
        unique: [false; 2],
    };
    let mut join = case.plan().build().unwrap();
    let row_errors = Mutex::new(vec![]);
    let cx = StepContext { epoch: Epoch(1), now_us: 0, row_errors: &row_errors };
    let rows = |values: &[u8]| {
        vec![Delta::insert(batch(&values.iter().map(|v| (Some(1), None, Some(*v))).collect::<Vec<_>>()))]
    };
    let mut out = vec![];
    join.step(&mut [rows(&[3]), rows(&[1, 3])], &cx, &mut out).unwrap();
    assert_eq!(out.iter().map(Delta::n_rows).sum::<usize>(), 1);
    let errors = row_errors.into_inner();
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0].row.num_columns(), errors[0].weight), (14, 1));
    assert_eq!(errors[0].error.state().code(), "22012");
}

#[test]
fn one_key_with_many_rows_comes_out_in_bounded_batches_and_goes_fast() {
    let case = Case {
        kind: Kind::Full,
        keys: Keys::Int,
        residual: Residual::None,
        null_equals_null: false,
        null_aware: false,
        append_only: [false; 2],
        unique: [false; 2],
    };
    let mut join = case.plan().build().unwrap();
    let row_errors = Mutex::new(vec![]);
    let cx = StepContext { epoch: Epoch(1), now_us: 0, row_errors: &row_errors };
    let n = 500;
    let rows: Vec<Row> = (0..n).map(|i| (Some(7), Some((i % 4) as u8), Some((i / 4) as u8))).collect();
    let mut out = vec![];
    join.step(&mut [vec![Delta::insert(batch(&rows))], vec![Delta::insert(batch(&rows))]], &cx, &mut out).unwrap();
    let n_pairs: usize = out.iter().map(Delta::n_rows).sum();
    // All right rows came first, unmatched: they came out with NULLs, and were taken back.
    assert_eq!(n_pairs, n * n + 2 * n);
    assert!(out.iter().all(|delta| delta.n_rows() <= 1 << 16));
    out.clear();
    join.step(&mut [vec![Delta::delete(batch(&rows))], vec![Delta::delete(batch(&rows))]], &cx, &mut out).unwrap();
    assert_eq!(join.state_rows(), 0);
    assert_eq!(out.iter().map(|d| (0..d.n_rows()).map(|i| d.weight(i)).sum::<i64>()).sum::<i64>(), -((n * n) as i64));
}

#[test]
fn memory_is_bounded_when_one_row_is_updated_for_ever() {
    for unique in [false, true] {
        let case = Case {
            kind: Kind::Left,
            keys: Keys::Text,
            residual: Residual::None,
            null_equals_null: false,
            null_aware: false,
            append_only: [false; 2],
            unique: [unique; 2],
        };
        let mut join = case.plan().build().unwrap();
        let row_errors = Mutex::new(vec![]);
        let cx = StepContext { epoch: Epoch(1), now_us: 0, row_errors: &row_errors };
        let mut out = vec![];
        let row = |v: u32| (Some(2), Some(3), Some((v % 250) as u8));
        join.step(&mut [vec![], vec![Delta::insert(batch(&[row(0)]))]], &cx, &mut out).unwrap();
        for v in 1..5_000 {
            out.clear();
            let delta = Delta::new(batch(&[row(v), row(v - 1)]), Some(vec![1, -1].into()));
            join.step(&mut [vec![], vec![delta]], &cx, &mut out).unwrap();
        }
        assert_eq!(join.state_rows(), 1);
        assert!(join.state_bytes() < 100_000, "{}", join.state_bytes());
    }
}
