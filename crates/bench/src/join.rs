//! Facts joined to dimensions, both without end: our join by epochs of interleaved rows beside DataFusion's hash join
//! in one batch over the same rows.
//!
//! `tidewire-bench join [MILLION FACTS] [EPOCH ROWS] [ROUNDS]`; there are ten facts a dimension. CPU time of this
//! thread. DataFusion indexes the dimensions alone and once; we keep both sides and must give the same number of rows.

use std::error::Error;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::NullEquality;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::JoinType;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use futures::StreamExt;
use parking_lot::Mutex;
use tidewire_operators::StepContext;
use tidewire_operators::join::{Join, Kind};
use tidewire_types::{Delta, Epoch};

const FACTS_PER_DIMENSION: usize = 10;
/// Odd, so that no two keys become one.
const SCATTER: i64 = 0x2545_f491_4f6c_dd1d;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The rows of one epoch.
struct Input {
    facts: Vec<RecordBatch>,
    dimensions: Vec<RecordBatch>,
}

/// Runs the benchmark.
pub fn run(args: &[String]) -> Outcome<()> {
    let millions: f64 = args.first().map_or(Ok(10.0), |n| n.parse())?;
    let epoch_rows: usize = args.get(1).map_or(Ok(10_000), |n| n.parse())?;
    let n_rounds: usize = args.get(2).map_or(Ok(3), |n| n.parse())?;
    let n_facts = (millions * 1e6) as usize;
    let epoch_rows = epoch_rows.max(FACTS_PER_DIMENSION + 1);
    let n_rows = (n_facts + n_facts / FACTS_PER_DIMENSION) as f64;
    println!("{n_facts} facts, a tenth as many dimensions, epochs of {epoch_rows} rows, best of {n_rounds} rounds\n");
    println!("| keys | inputs | Tidewire, M rows/CPU-s | state, MB | longest epoch, ms | DataFusion | ratio |");
    println!("|---|---|---|---|---|---|---|");
    // Keys without gaps: DataFusion looks them up in a plain array instead of a hash table.
    for (keys, factor) in [("scattered", SCATTER), ("without gaps", 1)] {
        let input = generate(n_facts, n_facts / FACTS_PER_DIMENSION, epoch_rows, factor)?;
        for (name, append_only, unique) in
            [("append-only", true, false), ("with a unique key", true, true), ("any", false, false)]
        {
            let (mut ours, mut theirs, mut longest, mut bytes) = (f64::MAX, f64::MAX, f64::MAX, 0);
            for _ in 0..n_rounds {
                let round = tidewire(&input, append_only, unique)?;
                let (n_out, seconds) = datafusion(&input)?;
                if round.n_out != n_out {
                    return Err(format!("{} rows, and {n_out} from DataFusion", round.n_out).into());
                }
                (ours, theirs) = (ours.min(round.seconds), theirs.min(seconds));
                (longest, bytes) = (longest.min(round.longest), round.state_bytes);
            }
            let rate = |seconds: f64| n_rows / seconds / 1e6;
            let (mb, ms, ratio) = (bytes as f64 / 1e6, longest * 1e3, theirs / ours);
            println!("| {keys} | {name} | {:.2} | {mb:.0} | {ms:.1} | {:.2} | {ratio:.2} |", rate(ours), rate(theirs));
        }
    }
    Ok(())
}

fn fact_schema() -> SchemaRef {
    let columns = [("id", DataType::Int64), ("dimension", DataType::Int64), ("amount", DataType::Float64)];
    Arc::new(Schema::new(columns.map(|(name, t)| Field::new(name, t, false)).to_vec()))
}

fn dimension_schema() -> SchemaRef {
    let columns = [("id", DataType::Int64), ("country", DataType::Utf8View), ("rate", DataType::Float64)];
    Arc::new(Schema::new(columns.map(|(name, t)| Field::new(name, t, false)).to_vec()))
}

/// Batches of one epoch each. Dimensions come in their own shuffled order, facts point to any.
fn generate(n_facts: usize, n_dimensions: usize, epoch_rows: usize, factor: i64) -> Outcome<Input> {
    let mix = |n: u64| {
        let n = (n ^ (n >> 31)).wrapping_mul(0x7fb5_d329_728e_a185);
        (n ^ (n >> 27)).wrapping_mul(0x81da_def4_bc2d_d44d) >> 16
    };
    // An odd factor and a power of two make a permutation; what lies outside the range is skipped.
    let places = n_dimensions.next_power_of_two() as u64;
    let permuted = (0..places).map(|n| n.wrapping_mul(0x9e37_79b1) & (places - 1)).filter(|n| *n < n_dimensions as u64);
    let ids: Vec<i64> = permuted.map(|n| (n as i64).wrapping_mul(factor)).collect();
    let dimension_rows = (epoch_rows / (FACTS_PER_DIMENSION + 1)).max(1);
    let dimensions = ids.chunks(dimension_rows).map(|ids| {
        let country = |id: &i64| ["NL", "DE", "Liechtenstein", "FR"].get(*id as usize / 8 % 4).copied();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(ids.to_vec())),
            Arc::new(StringViewArray::from_iter(ids.iter().map(country))),
            Arc::new(Float64Array::from_iter_values(ids.iter().map(|id| *id as f64))),
        ];
        RecordBatch::try_new(dimension_schema(), columns)
    });
    let fact_rows = epoch_rows - dimension_rows;
    let facts = (0..n_facts.div_ceil(fact_rows)).map(|batch_idx| {
        let ids = batch_idx * fact_rows..((batch_idx + 1) * fact_rows).min(n_facts);
        let dimension = |id: usize| ((mix(id as u64 + 1) % n_dimensions.max(1) as u64) as i64).wrapping_mul(factor);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(ids.clone().map(|id| id as i64))),
            Arc::new(Int64Array::from_iter_values(ids.clone().map(dimension))),
            Arc::new(Float64Array::from_iter_values(ids.map(|id| id as f64 / 100.0))),
        ];
        RecordBatch::try_new(fact_schema(), columns)
    });
    Ok(Input { facts: facts.collect::<Result<_, _>>()?, dimensions: dimensions.collect::<Result<_, _>>()? })
}

struct Round {
    n_out: usize,
    seconds: f64,
    longest: f64,
    state_bytes: usize,
}

fn tidewire(input: &Input, append_only: bool, unique: bool) -> Outcome<Round> {
    let fields = fact_schema().fields().iter().chain(dimension_schema().fields()).cloned().collect::<Vec<_>>();
    let plan = Join {
        kind: Kind::Inner,
        left_keys: vec![1],
        right_keys: vec![0],
        null_equals_null: false,
        null_aware: false,
        residual: None,
        left_append_only: append_only,
        right_append_only: append_only,
        left_unique: false,
        right_unique: unique,
        left_schema: fact_schema(),
        right_schema: dimension_schema(),
        schema: Arc::new(Schema::new(fields)),
    };
    let mut join = plan.build()?;
    let row_errors = Mutex::default();
    let mut round = Round { n_out: 0, seconds: 0.0, longest: 0.0, state_bytes: 0 };
    let n_epochs = input.facts.len().max(input.dimensions.len());
    for epoch in 0..n_epochs {
        let side = |batches: &[RecordBatch]| batches.get(epoch).cloned().map(Delta::insert).into_iter().collect();
        let mut deltas = [side(&input.facts), side(&input.dimensions)];
        let before = thread_cpu()?;
        let mut out = vec![];
        let cx = StepContext { epoch: Epoch(epoch as u32 + 1), now_us: 0, row_errors: &row_errors };
        join.step(&mut deltas, &cx, &mut out)?;
        round.n_out += out.iter().map(Delta::n_rows).sum::<usize>();
        drop(out);
        let seconds = thread_cpu()? - before;
        round.seconds += seconds;
        round.longest = round.longest.max(seconds);
    }
    round.state_bytes = join.state_bytes();
    Ok(round)
}

fn datafusion(input: &Input) -> Outcome<(usize, f64)> {
    let source = |batches: &[RecordBatch], schema: SchemaRef| -> Outcome<Arc<dyn ExecutionPlan>> {
        Ok(MemorySourceConfig::try_new_exec(&[batches.to_vec()], schema, None)?)
    };
    let column = |name: &str, idx: usize| -> Arc<dyn PhysicalExpr> { Arc::new(Column::new(name, idx)) };
    let join = HashJoinExec::try_new(
        source(&input.dimensions, dimension_schema())?,
        source(&input.facts, fact_schema())?,
        vec![(column("id", 0), column("dimension", 1))],
        None,
        &JoinType::Inner,
        None,
        PartitionMode::CollectLeft,
        NullEquality::NullEqualsNothing,
        false,
    )?;
    let before = thread_cpu()?;
    let mut rows = join.execute(0, Arc::new(TaskContext::default()))?;
    let mut n_out = 0;
    while let Some(batch) = futures::executor::block_on(rows.next()) {
        n_out += batch?.num_rows();
    }
    drop(rows);
    Ok((n_out, thread_cpu()? - before))
}

/// CPU seconds of this thread, from the scheduler's accounting.
pub fn thread_cpu() -> Outcome<f64> {
    // The scheduler brings its count up to date when a thread gives up the processor.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos: u64 = text.split_whitespace().next().ok_or("schedstat is empty")?.parse()?;
    Ok(nanos as f64 / 1e9)
}
