//! A million groups with count and sum (of values that may be NULL) over a bigint key: what they say they take, and what the process takes.
#![expect(clippy::unwrap_used, reason = "a test: what fails here fails it")]

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use parking_lot::Mutex;
use tidewire_operators::aggregate::{Aggregate, Call, Function};
use tidewire_operators::{Plan, StepContext};
use tidewire_types::{Delta, Epoch};

const N_GROUPS: i64 = 1_000_000;
const GROUP_BYTES_MAX: usize = 64;

/// Pages of this process that are in memory, in bytes.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn a_group_with_count_and_sum_takes_at_most_64_bytes() {
    let field = |name: &str, t| Arc::new(Field::new(name, t, true));
    let call = |function, args: &[usize], t| Call {
        function,
        args: args.to_vec(),
        distinct: false,
        filter: None,
        order_by: vec![],
        ignore_nulls: false,
        field: field("result", t),
    };
    let schema = Arc::new(Schema::new(vec![field("k", DataType::Int64), field("v", DataType::Int64)]));
    let sum = DataType::Decimal128(38, 0);
    let fields = vec![field("k", DataType::Int64), field("n", DataType::Int64), field("s", sum.clone())];
    let plan = Plan::Aggregate(Aggregate {
        keys: vec![0],
        calls: vec![call(Function::Count, &[], DataType::Int64), call(Function::Sum, &[1], sum)],
        append_only: false,
        input: Arc::clone(&schema),
        schema: Arc::new(Schema::new(fields)),
    });
    let mut operator = plan.build(0).unwrap();
    let row_errors = Mutex::default();
    let before = resident_bytes();
    for (epoch, start) in (0..N_GROUPS).step_by(10_000).enumerate() {
        let keys = Int64Array::from_iter_values(
            (start..start + 10_000).map(|k| k.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64)),
        );
        let values = Int64Array::from_iter_values(start..start + 10_000);
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(keys), Arc::new(values)]).unwrap();
        let cx = StepContext { epoch: Epoch(epoch as u32 + 1), now_us: 0, row_errors: &row_errors };
        operator.step(&mut [vec![Delta::insert(rows)]], &cx, &mut vec![]).unwrap();
    }
    assert_eq!(operator.state_rows(), N_GROUPS as usize);
    let said = operator.state_bytes() / N_GROUPS as usize;
    assert!(said <= GROUP_BYTES_MAX, "{said} bytes a group");
    // What the process has beside the state: batches of a step, freed pages of tables that grew.
    let taken = (resident_bytes() - before) / N_GROUPS as usize;
    assert!(taken <= GROUP_BYTES_MAX + GROUP_BYTES_MAX / 2, "{taken} bytes a group, {said} of them told");
    assert!(taken + 8 >= said, "{taken} bytes a group, but {said} told");
}
