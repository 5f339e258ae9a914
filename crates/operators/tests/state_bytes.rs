//! What operators say that their state takes, beside what the allocator says, and bounds for both.
#![expect(clippy::unwrap_used, reason = "a test: what fails here fails it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parking_lot::Mutex;
use tidewire_operators::aggregate::{Aggregate, Call, Function};
use tidewire_operators::join::{Join, Kind};
use tidewire_operators::top_n::{SortKey, TopN};
use tidewire_operators::window::{self, Frame, Window};
use tidewire_operators::{Operator, Plan, StepContext};
use tidewire_types::{Delta, Epoch};

/// Counts the bytes that are allocated.
struct Counting;

static ALLOCATED_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; only a number is kept beside.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        ALLOCATED_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time: they share the count.
static TURN: Mutex<()> = Mutex::new(());

const STEP_ROWS: i64 = 10_000;

/// What a row or group takes.
#[derive(Debug)]
struct Taken {
    /// By the operator's word.
    said: f64,
    /// By the allocator's.
    allocated: f64,
}

/// Feeds `n_rows` rows into every input, some at a time.
fn run(plan: &Plan, n_rows: i64, rows: impl Fn(usize, i64) -> RecordBatch, n_inputs: usize) -> (Taken, usize) {
    let _turn = TURN.lock();
    let row_errors = Mutex::default();
    let before = ALLOCATED_BYTES.load(Ordering::Relaxed);
    let mut operator: Box<dyn Operator> = plan.build(0).unwrap();
    for (epoch, start) in (0..n_rows).step_by(STEP_ROWS as usize).enumerate() {
        let mut inputs: Vec<_> = (0..n_inputs).map(|idx| vec![Delta::insert(rows(idx, start))]).collect();
        let cx = StepContext { epoch: Epoch(epoch as u32 + 1), now_us: 0, row_errors: &row_errors };
        operator.step(&mut inputs, &cx, &mut vec![]).unwrap();
    }
    let allocated = ALLOCATED_BYTES.load(Ordering::Relaxed) - before;
    assert_eq!(row_errors.lock().len(), 0);
    let (said, n) = (operator.state_bytes(), operator.state_rows());
    (Taken { said: said as f64 / n as f64, allocated: allocated as f64 / n as f64 }, n)
}

impl Taken {
    fn is_told_within(&self, percent: f64) {
        let error = (self.said / self.allocated - 1.0).abs() * 100.0;
        assert!(error <= percent, "{error:.1} % between {self:?}");
    }
}

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(fields.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect::<Vec<_>>()))
}

/// Numbers that look random, each once.
fn scattered(n: i64) -> i64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64)
}

fn ints(start: i64, value: impl Fn(i64) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values((start..start + STEP_ROWS).map(value)))
}

/// Values of about thirty bytes.
fn texts(start: i64) -> ArrayRef {
    let text = |n: i64| format!("a text, number {:020}", scattered(n) as u64);
    Arc::new(StringViewArray::from_iter_values((start..start + STEP_ROWS).map(text)))
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
}

fn call(function: Function, args: &[usize], t: DataType) -> Call {
    Call {
        function,
        args: args.to_vec(),
        distinct: false,
        filter: None,
        order_by: vec![],
        ignore_nulls: false,
        field: Arc::new(Field::new("result", t, true)),
    }
}

#[test]
fn a_group_with_count_and_sum_takes_at_most_64_bytes() {
    let sum = DataType::Decimal128(38, 0);
    let input = schema(&[("k", DataType::Int64), ("v", DataType::Int64)]);
    let plan = Plan::Aggregate(Aggregate {
        keys: vec![0],
        calls: vec![call(Function::Count, &[], DataType::Int64), call(Function::Sum, &[1], sum.clone())],
        append_only: false,
        input: Arc::clone(&input),
        schema: schema(&[("k", DataType::Int64), ("n", DataType::Int64), ("s", sum)]),
    });
    // Wherever the table stands between one growth and the next.
    for n_groups in [600_000, 700_000, 800_000, 900_000] {
        let rows = |_: usize, start: i64| batch(&input, vec![ints(start, scattered), ints(start, |n| n)]);
        let (taken, n) = run(&plan, n_groups, rows, 1);
        assert_eq!(n, n_groups as usize);
        assert!(taken.said <= 64.0 && taken.allocated <= 64.0, "{taken:?}");
        taken.is_told_within(2.0);
    }
}

#[test]
fn distinct_rows_with_long_texts_are_told() {
    let input = schema(&[("k", DataType::Utf8View), ("v", DataType::Int64)]);
    let plan = Plan::Aggregate(Aggregate {
        keys: vec![0, 1],
        calls: vec![],
        append_only: false,
        input: Arc::clone(&input),
        schema: Arc::clone(&input),
    });
    let rows = |_: usize, start: i64| batch(&input, vec![texts(start), ints(start, |n| n)]);
    run(&plan, 300_000, rows, 1).0.is_told_within(3.0);
}

fn join(unique: bool, row: &SchemaRef) -> Plan {
    let fields = row.fields().iter().chain(row.fields()).cloned().collect::<Vec<_>>();
    Plan::Join(Join {
        kind: Kind::Inner,
        left_keys: vec![0],
        right_keys: vec![0],
        null_equals_null: false,
        null_aware: false,
        residual: None,
        left_append_only: false,
        right_append_only: false,
        left_unique: unique,
        right_unique: unique,
        left_schema: Arc::clone(row),
        right_schema: Arc::clone(row),
        schema: Arc::new(Schema::new(fields)),
    })
}

/// Two bigints, the narrowest row that is usual, are 16 bytes in Arrow.
#[test]
fn a_join_row_takes_at_most_its_arrow_size_and_a_half_and_24_bytes() {
    let row = schema(&[("k", DataType::Int64), ("v", DataType::Int64)]);
    for unique in [true, false] {
        for n_rows in [260_000, 300_000, 350_000] {
            // No pair; each key once, which is what takes most.
            let rows = |side: usize, start: i64| {
                batch(&row, vec![ints(start, |n| scattered(2 * n + side as i64)), ints(start, |n| n)])
            };
            let (taken, n) = run(&join(unique, &row), n_rows, rows, 2);
            assert_eq!(n, 2 * n_rows as usize);
            assert!(taken.said <= 48.0 && taken.allocated <= 48.0, "unique: {unique}, {n_rows} rows: {taken:?}");
            taken.is_told_within(2.0);
        }
    }
}

#[test]
fn join_rows_with_long_texts_are_told() {
    let row = schema(&[("k", DataType::Utf8View), ("v", DataType::Int64)]);
    let rows = |side: usize, start: i64| batch(&row, vec![texts(start * 2 + side as i64), ints(start, |n| n)]);
    run(&join(false, &row), 150_000, rows, 2).0.is_told_within(3.0);
}

fn by_value() -> Vec<SortKey> {
    vec![SortKey { column: 1, descending: false, nulls_first: false }]
}

#[test]
fn rows_of_a_top_n_are_told() {
    let row = schema(&[("k", DataType::Int64), ("v", DataType::Int64)]);
    for (partition_by, n_keys) in [(vec![], 1), (vec![0], 1_000), (vec![0], 50_000), (vec![0], 200_000)] {
        let plan = Plan::TopN(TopN {
            partition_by,
            order_by: by_value(),
            offset: 0,
            limit: Some(3),
            append_only: false,
            schema: Arc::clone(&row),
        });
        let rows = |_: usize, start: i64| batch(&row, vec![ints(start, |n| n % n_keys), ints(start, scattered)]);
        run(&plan, 200_000, rows, 1).0.is_told_within(3.0);
    }
}

#[test]
fn rows_of_a_window_are_told() {
    let row = schema(&[("k", DataType::Int64), ("v", DataType::Int64)]);
    for n_keys in [10, 1_000, 20_000, 60_000] {
        let plan = Plan::Window(Window {
            partition_by: vec![0],
            order_by: by_value(),
            tie_break: vec![0, 1],
            calls: vec![window::Call {
                function: window::Function::RowNumber,
                args: vec![],
                filter: None,
                frame: Frame::standard(),
                field: Arc::new(Field::new("place", DataType::Int64, true)),
            }],
            schema: schema(&[("k", DataType::Int64), ("v", DataType::Int64), ("place", DataType::Int64)]),
        });
        let rows = |_: usize, start: i64| batch(&row, vec![ints(start, |n| n % n_keys), ints(start, scattered)]);
        run(&plan, 60_000, rows, 1).0.is_told_within(3.0);
    }
}
