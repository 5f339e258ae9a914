//! What checkpoints cost, how long a start takes, and how much is on disk.
//!
//! `tidewire-bench durability [THOUSAND ROWS OF STATE] [ROUNDS]`: for a GROUP BY with a fifth as many groups and for a join
//! that keeps all rows, records come from memory as fast as the server takes them, once with durability off and once with a
//! checkpoint every second. First as many as said, while the state is made; then four times as many, over the same groups
//! and the same dimension. Then the server is stopped and started again. All ratios are of one run; the default is five
//! million rows.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use parking_lot::{Condvar, Mutex};
use tidewire_connect::{Batch, Connector, OptionSpec, Positions, ReadMode, Source, SourceReader, SourceSpec, Split};
use tidewire_engine::{CheckpointStatus, Settings};
use tidewire_types::Result as SqlResult;

use crate::server::Server;

const BATCH_ROWS: i64 = 8192;
/// How many times as many records come once the state is made.
const MORE: i64 = 4;
const SPLIT: Split = Split(0);

/// A shape: its name, its sources with the rows of each in parts of all rows, its view, and what is asked after a start.
struct Shape {
    name: &'static str,
    sources: &'static [(&'static str, &'static str, f64)],
    view: &'static str,
    question: &'static str,
}

const SHAPES: &[Shape] = &[
    Shape {
        name: "aggregate",
        sources: &[("facts", "scattered", 1.0)],
        view: "SELECT k, count(*) AS n, sum(v) AS s, max(v) AS m FROM facts GROUP BY k",
        question: "SELECT n FROM v WHERE k = 17",
    },
    Shape {
        name: "join",
        sources: &[("dims", "sequence", 0.1), ("facts", "scattered", 0.9)],
        view: "SELECT count(*) AS n, sum(f.v) AS s FROM facts AS f JOIN dims AS d ON f.k = d.k",
        question: "SELECT n FROM v",
    },
];

/// Runs the benchmark.
pub fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let n_rows = args.first().map_or(Ok(5_000), |n| n.parse::<i64>())? * 1_000;
    let n_rounds = args.get(1).map_or(Ok(1), |n| n.parse::<usize>())?;
    println!("{n_rows} rows; checkpoints every second against durability off\n");
    println!(
        "| shape | M rows/s, off | on | ratio | then, off | on | ratio | longest pause, ms | checkpoints | written / changed bytes | disk / state | start, s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for shape in SHAPES {
        for _ in 0..n_rounds {
            let off = Server::start()?;
            let off = ingest(shape, off, n_rows)?.rows_per_second;
            let directory = tempfile::tempdir()?;
            let on = ingest(shape, Server::open(directory.path(), Settings::default())?, n_rows)?;
            let on_disk = bytes_of(directory.path())?;
            let began = Instant::now();
            let mut server = Server::open(directory.path(), Settings::default())?;
            server.rows(shape.question)?;
            let start = began.elapsed();
            let restored = server.status().views.iter().all(|v| v.origin == tidewire_engine::ViewOrigin::Restored);
            if !restored {
                return Err("the view was built again".into());
            }
            let rates = |off: f64, on: f64| format!("{:.2} | {:.2} | {:.2}", off / 1e6, on / 1e6, on / off);
            let ([off_first, off_then], [on_first, on_then]) = (off, on.rows_per_second);
            let (first, then) = (rates(off_first, on_first), rates(off_then, on_then));
            let CheckpointStatus { n_written, n_bytes, n_changed_bytes, pause_ns_max, .. } = on.checkpoints;
            println!(
                "| {} | {first} | {then} | {:.1} | {n_written} | {:.2} | {:.2} | {:.2} |",
                shape.name,
                pause_ns_max as f64 / 1e6,
                n_bytes as f64 / n_changed_bytes.max(1) as f64,
                on_disk as f64 / on.state_bytes.max(1) as f64,
                start.as_secs_f64(),
            );
        }
    }
    Ok(())
}

/// What one run came to.
struct Ingest {
    /// While the state is made, and then.
    rows_per_second: [f64; 2],
    checkpoints: CheckpointStatus,
    state_bytes: usize,
}

/// Feeds all rows to a view that is there already; then stops the server.
fn ingest(shape: &Shape, mut server: Server, n_rows: i64) -> Result<Ingest, Box<dyn Error>> {
    let n_keys = (n_rows / 10).max(1);
    for (name, kind, _) in shape.sources {
        open_gate(name, 0);
        // A fifth as many groups as rows.
        let n_keys = if shape.sources.len() == 1 { n_keys * 2 } else { n_keys };
        server.rows(&format!(
            "CREATE SOURCE {name} (k BIGINT, v BIGINT) WITH (connector = 'feed', gate = '{name}', kind = '{kind}', keys = '{n_keys}')"
        ))?;
    }
    server.rows(&format!("CREATE MATERIALIZED VIEW v AS {}", shape.view))?;
    let feed = |name: &str, end: i64| {
        open_gate(name, end);
        server.wait(|status| {
            let source = status.sources.iter().find(|s| s.name.ends_with(name));
            source.is_some_and(|s| s.splits.first().is_some_and(|split| split.position >= end))
        });
    };
    let ends = || shape.sources.iter().map(|(name, _, part)| (*name, (n_rows as f64 * part) as i64));
    let began = Instant::now();
    ends().for_each(|(name, end)| feed(name, end));
    let first = n_rows as f64 / began.elapsed().as_secs_f64();
    let began = Instant::now();
    ends().filter(|(name, _)| *name == "facts").for_each(|(name, end)| feed(name, end + MORE * n_rows));
    let then = (MORE * n_rows) as f64 / began.elapsed().as_secs_f64();
    server.checkpoint()?;
    let status = server.status();
    let rows_per_second = [first, then];
    Ok(Ingest { rows_per_second, checkpoints: status.checkpoints, state_bytes: status.state_bytes })
}

fn bytes_of(directory: &Path) -> std::io::Result<u64> {
    let mut n_bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        n_bytes += if entry.file_type()?.is_dir() { bytes_of(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(n_bytes)
}

/// Up to where each source has records.
static GATES: LazyLock<Gates> = LazyLock::new(Gates::default);

#[derive(Default)]
struct Gates {
    ends: Mutex<HashMap<String, i64>>,
    opened: Condvar,
}

fn open_gate(name: &str, end: i64) {
    GATES.ends.lock().insert(name.to_string(), end);
    GATES.opened.notify_all();
}

fn end_of(gate: &str) -> i64 {
    GATES.ends.lock().get(gate).copied().unwrap_or(0)
}

/// `connector = 'feed'`: rows made of their positions, up to where a gate is open.
pub struct Feed;

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "gate", required: true, help: "The gate's name." },
    OptionSpec { name: "kind", required: true, help: "scattered or sequence." },
    OptionSpec { name: "keys", required: true, help: "How many keys there are." },
];

impl Connector for Feed {
    fn name(&self) -> &'static str {
        "feed"
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn create(&self, spec: SourceSpec) -> SqlResult<Arc<dyn Source>> {
        let gate = spec.options.require("gate")?.to_string();
        let is_scattered = spec.options.require("kind")? == "scattered";
        Ok(Arc::new(FeedSource { gate, is_scattered, n_keys: spec.options.parse_or("keys", 1)? }))
    }
}

#[derive(Clone, Debug)]
struct FeedSource {
    gate: String,
    is_scattered: bool,
    n_keys: i64,
}

impl Source for FeedSource {
    fn start(&self) -> SqlResult<Positions> {
        Ok(Positions::from([(SPLIT, 0)]))
    }

    fn end(&self) -> SqlResult<Positions> {
        Ok(Positions::from([(SPLIT, end_of(&self.gate))]))
    }

    fn read(&self, positions: Positions, projection: Vec<usize>, mode: ReadMode) -> SqlResult<Box<dyn SourceReader>> {
        let position = positions.get(&SPLIT).copied().unwrap_or(0);
        Ok(Box::new(FeedReader { source: self.clone(), position, projection, mode }))
    }
}

struct FeedReader {
    source: FeedSource,
    position: i64,
    projection: Vec<usize>,
    mode: ReadMode,
}

impl FeedReader {
    fn rows(&self, end: i64) -> SqlResult<RecordBatch> {
        let key = |position: i64| match self.source.is_scattered {
            true => ((position as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as i64 % self.source.n_keys,
            false => position,
        };
        let keys = Int64Array::from_iter_values((self.position..end).map(key));
        let values = Int64Array::from_iter_values(self.position..end);
        let field = |name| Field::new(name, DataType::Int64, true);
        let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(values)];
        let rows = RecordBatch::try_new(Arc::new(Schema::new(vec![field("k"), field("v")])), columns)?;
        Ok(rows.project(&self.projection)?)
    }
}

impl SourceReader for FeedReader {
    fn poll(&mut self, timeout: Duration, _: usize) -> SqlResult<Batch> {
        let open = {
            let mut ends = GATES.ends.lock();
            if ends.get(&self.source.gate).is_none_or(|end| *end <= self.position) {
                GATES.opened.wait_for(&mut ends, timeout);
            }
            ends.get(&self.source.gate).copied().unwrap_or(0)
        };
        let limit = match &self.mode {
            ReadMode::Follow => open,
            ReadMode::Until(ends) => ends.get(&SPLIT).copied().unwrap_or(0).min(open),
        };
        let end = limit.min(self.position + BATCH_ROWS).max(self.position);
        let rows = self.rows(end)?;
        let mut batch = Batch::empty(rows.schema());
        if end > self.position {
            batch.first_positions.insert(SPLIT, self.position);
            batch.positions.insert(SPLIT, end);
        }
        (batch.n_bytes, batch.rows) = ((end - self.position) as u64 * 16, rows);
        batch.ends.insert(SPLIT, open);
        self.position = end;
        batch.finished =
            matches!(&self.mode, ReadMode::Until(ends) if ends.get(&SPLIT).is_none_or(|end| self.position >= *end));
        Ok(batch)
    }

    fn set_projection(&mut self, projection: Vec<usize>) {
        self.projection = projection;
    }
}
