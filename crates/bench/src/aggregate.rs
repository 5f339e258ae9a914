//! `SELECT k, count(*), sum(v), max(v) GROUP BY k`, kept up to date epoch by epoch, beside DataFusion's GROUP BY of the
//! same rows in one batch.
//!
//! `tidewire-bench aggregate [MILLION ROWS] [ROUNDS] [MILLION GROUPS] [EPOCH ROWS]`; without the last two, the whole
//! table. CPU time of this thread. DataFusion puts out its groups once; we put out the old and the new row of every
//! group that an epoch touches, and must end with the same groups.

use std::error::Error;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::functions_aggregate::{count, min_max, sum};
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{Column, lit};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use futures::StreamExt;
use parking_lot::Mutex;
use tidewire_operators::StepContext;
use tidewire_operators::aggregate::{Aggregate, Call, Function};
use tidewire_types::{Delta, Epoch};

use crate::join::thread_cpu;

/// Rows of DataFusion's input batches: its own default.
const BATCH_ROWS: usize = 8192;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Runs the benchmark.
pub fn run(args: &[String]) -> Outcome<()> {
    let millions: f64 = args.first().map_or(Ok(50.0), |n| n.parse())?;
    let n_rounds: usize = args.get(1).map_or(Ok(2), |n| n.parse())?;
    let groups = args.get(2).map(|n| n.parse::<f64>()).transpose()?;
    let epochs = args.get(3).map(|n| n.parse::<usize>()).transpose()?;
    let n_rows = (millions * 1e6) as usize;
    println!("{n_rows} rows, best of {n_rounds} rounds\n");
    println!(
        "| groups | epoch rows | input | Tidewire, M rows/CPU-s | longest epoch, ms | state, MB | DataFusion, M rows/CPU-s | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for n_groups in groups.map_or(vec![10_000, 1_000_000, 10_000_000], |m| vec![(m * 1e6) as usize]) {
        let rows = generate(n_rows, n_groups)?;
        for epoch_rows in epochs.map_or(vec![1_000, 10_000, 100_000], |n| vec![n]) {
            for append_only in [true, false] {
                line(&rows, n_groups, epoch_rows.max(1), append_only, n_rounds)?;
            }
        }
    }
    Ok(())
}

/// Measures one configuration, both sides in turn.
fn line(rows: &RecordBatch, n_groups: usize, epoch_rows: usize, append_only: bool, n_rounds: usize) -> Outcome<()> {
    let (mut ours, mut theirs, mut longest, mut bytes) = (f64::MAX, f64::MAX, f64::MAX, 0);
    for _ in 0..n_rounds {
        let (n_found, seconds) = datafusion(rows, append_only)?;
        let round = tidewire(rows, epoch_rows, append_only)?;
        if round.n_groups != n_found {
            return Err(format!("{} groups, and {n_found} from DataFusion", round.n_groups).into());
        }
        (ours, theirs) = (ours.min(round.seconds), theirs.min(seconds));
        (longest, bytes) = (longest.min(round.longest), round.state_bytes);
    }
    let rate = |seconds: f64| rows.num_rows() as f64 / seconds / 1e6;
    let input = if append_only { "append-only" } else { "any" };
    let (mb, ms, ratio) = (bytes as f64 / 1e6, longest * 1e3, theirs / ours);
    println!(
        "| {n_groups} | {epoch_rows} | {input} | {:.2} | {ms:.1} | {mb:.0} | {:.2} | {ratio:.2} |",
        rate(ours),
        rate(theirs)
    );
    Ok(())
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(["k", "v"].map(|name| Field::new(name, DataType::Int64, true)).to_vec()))
}

/// Keys in random order, every one about as often.
fn generate(n_rows: usize, n_groups: usize) -> Outcome<RecordBatch> {
    let mix = |n: u64| {
        let n = (n ^ (n >> 31)).wrapping_mul(0x7fb5_d329_728e_a185);
        (n ^ (n >> 27)).wrapping_mul(0x81da_def4_bc2d_d44d) >> 16
    };
    let keys = Int64Array::from_iter_values((0..n_rows as u64).map(|n| (mix(n + 1) % n_groups.max(1) as u64) as i64));
    let values = Int64Array::from_iter_values((0..n_rows as u64).map(|n| (mix(n ^ 0x5555) & 0xffff) as i64));
    Ok(RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(values)])?)
}

fn slices(rows: &RecordBatch, len: usize) -> impl Iterator<Item = RecordBatch> {
    (0..rows.num_rows()).step_by(len).map(move |at| rows.slice(at, len.min(rows.num_rows() - at)))
}

struct Round {
    n_groups: usize,
    seconds: f64,
    longest: f64,
    state_bytes: usize,
}

fn tidewire(rows: &RecordBatch, epoch_rows: usize, append_only: bool) -> Outcome<Round> {
    let call = |function, args: &[usize], name: &str, nullable| Call {
        function,
        args: args.to_vec(),
        distinct: false,
        filter: None,
        order_by: vec![],
        ignore_nulls: false,
        field: Arc::new(Field::new(name, DataType::Int64, nullable)),
    };
    let mut calls = vec![call(Function::Count, &[], "n", false), call(Function::Sum, &[1], "total", true)];
    // Over rows that may leave, max keeps every value: another kind of work than DataFusion's, so neither does it.
    if append_only {
        calls.push(call(Function::Max, &[1], "greatest", true));
    }
    let mut fields = vec![Field::new("k", DataType::Int64, true)];
    fields.extend(calls.iter().map(|c| c.field.as_ref().clone()));
    let plan =
        Aggregate { keys: vec![0], calls, append_only, input: rows.schema(), schema: Arc::new(Schema::new(fields)) };
    let mut aggregate = plan.build(0)?;
    let row_errors = Mutex::default();
    let mut round = Round { n_groups: 0, seconds: 0.0, longest: 0.0, state_bytes: 0 };
    let mut n_counted: i64 = 0;
    for (epoch, batch) in slices(rows, epoch_rows).enumerate() {
        let mut deltas = [vec![Delta::insert(batch)]];
        let before = thread_cpu()?;
        let mut out = vec![];
        let cx = StepContext { epoch: Epoch(epoch as u32 + 1), now_us: 0, row_errors: &row_errors };
        aggregate.step(&mut deltas, &cx, &mut out)?;
        let seconds = thread_cpu()? - before;
        round.seconds += seconds;
        round.longest = round.longest.max(seconds);
        for delta in &out {
            let counts = delta.rows().column(1).as_primitive::<Int64Type>();
            n_counted += (0..delta.n_rows()).map(|idx| delta.weight(idx) * counts.value(idx)).sum::<i64>();
        }
    }
    if n_counted != rows.num_rows() as i64 {
        return Err(format!("the counts of all groups sum to {n_counted}").into());
    }
    round.n_groups = aggregate.state_rows();
    round.state_bytes = aggregate.state_bytes();
    Ok(round)
}

fn datafusion(rows: &RecordBatch, with_max: bool) -> Outcome<(usize, f64)> {
    let batches: Vec<RecordBatch> = slices(rows, BATCH_ROWS).collect();
    let source: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&[batches], schema(), None)?;
    let column = |name: &str, idx: usize| -> Arc<dyn PhysicalExpr> { Arc::new(Column::new(name, idx)) };
    let call = |function: Arc<AggregateUDF>, argument: Arc<dyn PhysicalExpr>, name: &str| {
        AggregateExprBuilder::new(function, vec![argument]).schema(schema()).alias(name).build().map(Arc::new)
    };
    let mut calls = vec![call(count::count_udaf(), lit(1i64), "n")?, call(sum::sum_udaf(), column("v", 1), "total")?];
    if with_max {
        calls.push(call(min_max::max_udaf(), column("v", 1), "greatest")?);
    }
    let filters = vec![None; calls.len()];
    let keys = PhysicalGroupBy::new_single(vec![(column("k", 0), "k".to_string())]);
    let aggregate = AggregateExec::try_new(AggregateMode::Single, keys, calls, filters, source, schema())?;
    let before = thread_cpu()?;
    let mut groups = aggregate.execute(0, Arc::new(TaskContext::default()))?;
    let mut n_groups = 0;
    while let Some(batch) = futures::executor::block_on(groups.next()) {
        n_groups += batch?.num_rows();
    }
    drop(groups);
    Ok((n_groups, thread_cpu()? - before))
}
