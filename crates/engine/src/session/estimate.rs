//! `EXPLAIN (STATE) query`: what the state of a view would take, before it is created.
//!
//! The view's own operators run over a sample of each table, and again with a half and a quarter of one table's sample. How a
//! number grows from a quarter to a half to all says how it goes on: the groups of few distinct keys do not grow, the rows
//! that a join keeps grow as the table does, the pairs of a table with itself as its square; pairs of two tables show
//! when both are halved. A table that fits into its sample is not estimated but counted.
//!
//! Invariant: the estimate costs one scan of each table and a bounded amount of memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use tidewire_operators::arrangement::Arrangement;
use tidewire_planner::Dataflow;
use tidewire_types::{Delta, Epoch, ObjectId, Result, SqlError, SqlState};

use super::Session;
use crate::core::now_us;
use crate::runtime::{Changes, EpochChanges, Runtime};
use crate::shared::{Relation, Snapshot};
use crate::{Operators, Settings};

/// Rows of a sample at first, and how far it is made smaller where its rows make too many.
const SAMPLE_ROWS: usize = 20_000;
const SAMPLE_ROWS_MIN: usize = 100;
/// Bytes that a sample's rows may make at once.
const SAMPLE_BYTES: usize = 24 << 20;

/// The sample of one input.
struct Sample {
    name: String,
    rows: Vec<RecordBatch>,
    n_rows: usize,
    // How many rows there are.
    n_rows_all: usize,
}

/// What a node keeps: rows, and bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    n_rows: usize,
    n_bytes: usize,
}

impl Session {
    /// The lines of EXPLAIN (STATE).
    pub(super) async fn explain_state(&self, dataflow: Dataflow) -> Result<String> {
        let (snapshot, operators) = (self.snapshot(), self.shared().operators);
        let estimate = move || estimate(&dataflow, &snapshot, operators);
        tokio::task::spawn_blocking(estimate).await.map_err(SqlError::internal)?
    }
}

fn estimate(dataflow: &Dataflow, snapshot: &Arc<Snapshot>, operators: Operators) -> Result<String> {
    let mut n_rows_max = SAMPLE_ROWS;
    loop {
        let samples = samples(dataflow, snapshot, n_rows_max, operators)?;
        match extrapolate(dataflow, &samples, operators) {
            Err(error) if error.state() == SqlState::OutOfMemory && n_rows_max / 8 >= SAMPLE_ROWS_MIN => {
                n_rows_max /= 8;
            }
            result => return Ok(lines(dataflow, &samples, &result?, snapshot)),
        }
    }
}

/// A sample of each table and view that the dataflow reads. Sources are not looked at.
fn samples(
    dataflow: &Dataflow,
    snapshot: &Snapshot,
    n_rows_max: usize,
    operators: Operators,
) -> Result<BTreeMap<ObjectId, Sample>> {
    let runtime = Runtime::new(dataflow, &settings(), operators)?;
    let mut samples = BTreeMap::new();
    for input in runtime.inputs() {
        let reader = match snapshot.moment.relations.get(&input.object) {
            Some(Relation::Rows(reader)) => reader,
            Some(Relation::Failed(error)) => return Err(error.clone()),
            None => continue,
        };
        if samples.contains_key(&input.object) {
            continue;
        }
        let epoch = snapshot.moment.epoch;
        let mut n_rows_all = 0;
        for rows in reader.scan(epoch, Some(&[]))? {
            n_rows_all += rows?.num_rows();
        }
        let mut sample = Sample { name: input.name.clone(), rows: vec![], n_rows: 0, n_rows_all };
        let mut place = u64::from(input.object.0) << 40;
        for rows in reader.scan(epoch, None)? {
            let rows = pick(&rows?, n_rows_max as f64 / n_rows_all as f64, &mut place)?;
            sample.n_rows += rows.num_rows();
            sample.rows.push(rows);
        }
        samples.insert(input.object, sample);
    }
    Ok(samples)
}

/// Rows by chance, each with this chance; by what seems chance and is the same each time.
fn pick(rows: &RecordBatch, chance: f64, place: &mut u64) -> Result<RecordBatch> {
    if chance >= 1.0 {
        return Ok(rows.clone());
    }
    let limit = (chance.max(0.0) * u64::MAX as f64) as u64;
    let mask: BooleanArray = (0..rows.num_rows())
        .map(|_| {
            *place += 1;
            // The finish of SplitMix64.
            let mixed = (*place ^ (*place >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            Some((mixed ^ (mixed >> 31)) <= limit)
        })
        .collect();
    Ok(filter_record_batch(rows, &mask)?)
}

/// What each node would keep over all rows, and the view itself last.
///
/// What it keeps of a whole sample, plus how that grows with each table alone, plus how it grows with each two together.
fn extrapolate(dataflow: &Dataflow, samples: &BTreeMap<ObjectId, Sample>, operators: Operators) -> Result<Vec<Kept>> {
    let parts = |parts: &[(ObjectId, f64)]| run(dataflow, samples, parts, operators);
    let whole = parts(&[])?;
    let mut grown: Vec<f64> = whole.iter().map(|kept| kept.n_rows as f64).collect();
    // Of each table that is sampled: its growth by node, and the runs with half of it.
    let mut tables: Vec<(ObjectId, Vec<f64>, Vec<Kept>)> = vec![];
    for (id, sample) in samples.iter().filter(|(_, sample)| sample.n_rows_all > sample.n_rows) {
        let (half, quarter) = (parts(&[(*id, 0.5)])?, parts(&[(*id, 0.25)])?);
        let doublings = (sample.n_rows_all as f64 / sample.n_rows.max(1) as f64).log2();
        let mut growth = vec![];
        for (((grown, whole), half), quarter) in grown.iter_mut().zip(&whole).zip(&half).zip(&quarter) {
            let (first, last) = (rows_between(quarter, half), rows_between(half, whole));
            let times = growth_of(first, last, doublings);
            *grown += last * times;
            growth.push(times);
        }
        tables.push((*id, growth, half));
    }
    for (idx, (first, first_growth, first_half)) in tables.iter().enumerate() {
        for (second, second_growth, second_half) in tables.iter().skip(idx + 1) {
            let both = parts(&[(*first, 0.5), (*second, 0.5)])?;
            let growth = first_growth.iter().zip(second_growth);
            let halves = first_half.iter().zip(second_half).zip(&both);
            for (((grown, whole), (g1, g2)), ((h1, h2), both)) in grown.iter_mut().zip(&whole).zip(growth).zip(halves) {
                let together = rows_between(h1, whole) - rows_between(both, h2);
                *grown += (together * g1 * g2).max(0.0);
            }
        }
    }
    let kept = whole.iter().zip(grown).map(|(kept, n_rows)| Kept {
        n_rows: n_rows.round() as usize,
        // Bytes are as many a row as in the sample.
        n_bytes: (kept.n_bytes as f64 * n_rows / (kept.n_rows.max(1) as f64)).max(kept.n_bytes as f64) as usize,
    });
    Ok(kept.collect())
}

fn rows_between(fewer: &Kept, more: &Kept) -> f64 {
    more.n_rows as f64 - fewer.n_rows as f64
}

/// How many times its last growth a number grows over some doublings of a table's size, when it grew by `first` from a
/// quarter to a half and by `last` from there. A line doubles its growth each time, a product quadruples it, and what
/// saturates halves it or less.
fn growth_of(first: f64, last: f64, doublings: f64) -> f64 {
    let ratio = match first > 0.0 {
        true => (last / first).clamp(0.0, 4.0),
        // Nothing in a quarter and a half: too few rows met to say, and the growth may be a product's.
        false => 4.0,
    };
    match (ratio - 1.0).abs() < 1e-6 {
        true => doublings,
        false => ratio * (ratio.powf(doublings) - 1.0) / (ratio - 1.0),
    }
}

/// Runs the operators over the samples; of some tables only a part.
fn run(
    dataflow: &Dataflow,
    samples: &BTreeMap<ObjectId, Sample>,
    parts: &[(ObjectId, f64)],
    operators: Operators,
) -> Result<Vec<Kept>> {
    let mut runtime = Runtime::new(dataflow, &settings(), operators)?;
    runtime.set_room(SAMPLE_BYTES);
    let schema = dataflow.nodes.last().map(|node| node.schema.clone());
    let schema = schema.ok_or_else(|| SqlError::internal("a dataflow without nodes"))?;
    let mut view = Arrangement::new(schema, dataflow.identity.clone())?;
    let mut changes = EpochChanges::new();
    for (id, sample) in samples {
        let mut deltas = vec![];
        let part = parts.iter().find(|(table, _)| table == id).map_or(1.0, |(_, part)| *part);
        let mut place = (u64::from(id.0) << 40) + (1 << 39);
        for rows in &sample.rows {
            deltas.push(Delta::insert(pick(rows, part, &mut place)?));
        }
        let n_columns = sample.rows.first().map_or(0, RecordBatch::num_columns);
        changes.insert(*id, Changes { columns: (0..n_columns).collect(), deltas });
    }
    changes.retain(|_, changes| !changes.deltas.is_empty());
    let first = runtime.start(now_us())?;
    view.apply(&first.deltas, Epoch(1))?;
    let output = runtime.step(&changes, now_us(), None)?;
    view.apply(&output.deltas, Epoch(1))?;
    let of_nodes = runtime.status().into_iter();
    let mut kept: Vec<Kept> = of_nodes.map(|op| Kept { n_rows: op.state_rows, n_bytes: op.state_bytes }).collect();
    kept.push(Kept { n_rows: view.n_rows(), n_bytes: view.state_bytes() });
    Ok(kept)
}

/// One shard: bytes that each shard allocates ahead are counted once.
fn settings() -> Settings {
    Settings { n_shards: 1, ..Settings::default() }
}

fn lines(dataflow: &Dataflow, samples: &BTreeMap<ObjectId, Sample>, kept: &[Kept], snapshot: &Snapshot) -> String {
    let mut lines = dataflow.to_string();
    lines.push_str("\n\n");
    let mut total = 0_usize;
    for (id, kept) in kept.iter().enumerate() {
        let name = match dataflow.nodes.get(id) {
            Some(_) => format!("#{id} {}", dataflow.describe(id).split(':').next().unwrap_or_default()),
            None => "View".to_string(),
        };
        lines.push_str(&format!("{name}: state_rows={}, state_bytes={}\n", kept.n_rows, kept.n_bytes));
        total = total.saturating_add(kept.n_bytes);
    }
    lines.push_str(&format!("Total: state_bytes={total}\n"));
    for sample in samples.values() {
        lines.push_str(&match sample.n_rows < sample.n_rows_all {
            true => format!("Estimated from {} of {} rows of {}\n", sample.n_rows, sample.n_rows_all, sample.name),
            false => format!("All {} rows of {} were counted\n", sample.n_rows, sample.name),
        });
    }
    for source in dataflow.nodes.iter().filter_map(|node| match &node.kind {
        tidewire_planner::NodeKind::Input(input) if snapshot.moment.sources.contains_key(&input.object) => Some(input),
        _ => None,
    }) {
        lines.push_str(&format!(
            "Nothing is known of source {}: what its records take is not in this estimate\n",
            source.name
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_follows_lines_products_and_what_saturates() {
        let near = |is: f64, should: f64| assert!((is - should).abs() < 1e-6, "{is}");
        // n + 5000 rows of 20,000, tenfold: 15,000 from a half, and 180,000 more.
        near(10_000.0 * growth_of(5_000.0, 10_000.0, 10_f64.log2()), 180_000.0);
        // n * n at 1: 3/4 from a half, and 99 more.
        near(0.75 * growth_of(0.1875, 0.75, 10_f64.log2()), 99.0);
        near(growth_of(8.0, 0.0, 5.0), 0.0);
        near(growth_of(1.0, 1.0, 5.0), 5.0);
        assert!(growth_of(8.0, 4.0, 100.0) <= 1.0);
    }
}
