//! Rows by key against a scan.
//!
//! `tidewire-bench lookup [THOUSAND ROWS] [LOOKUPS]`: a view of that many groups is read by its key, as an application
//! reads it: a prepared statement with a parameter, then a new text each time, then an index that is not unique. Beside
//! it the same rows found by a filter that no index knows: DataFusion's scan of the same snapshot.

use std::error::Error;
use std::time::Instant;

use arrow::array::RecordBatch;
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use tidewire_engine::{Outcome, Prepared, Session};

use crate::server::Server;

const INSERT_ROWS: u64 = 100_000;
const N_SCANS: u64 = 50;

/// Runs the benchmark.
pub fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let n_rows: u64 = args.first().map_or(Ok(1_000), |n| n.parse())? * 1_000;
    let n_lookups: u64 = args.get(1).map_or(Ok(20_000), |n| n.parse())?;
    let mut server = Server::start()?;
    server.rows("CREATE TABLE t (id BIGINT PRIMARY KEY, g BIGINT, v BIGINT)")?;
    for first in (0..n_rows).step_by(INSERT_ROWS as usize) {
        let last = (first + INSERT_ROWS).min(n_rows) - 1;
        server.rows(&format!(
            "INSERT INTO t SELECT i, i % {}, i * 7919 % 1000003 FROM generate_series({first}::bigint, {last}) AS s(i)",
            (n_rows / 10).max(1)
        ))?;
    }
    server.rows("CREATE MATERIALIZED VIEW v AS SELECT id, min(g) AS g, sum(v) AS s FROM t GROUP BY id")?;
    println!("{n_rows} rows, {n_lookups} lookups, one session\n");
    println!("| read | a second | us each | 99th percentile, us | against the scan |");
    println!("|---|---|---|---|---|");
    let scan = measure(&mut server, "SELECT s FROM v WHERE id + 0 = $1", N_SCANS, n_rows, 1)?;
    let before = server.state_bytes();
    // The first read by key has the index built.
    for _ in 0..N_SCANS {
        measure(&mut server, "SELECT s FROM v WHERE id = $1", 1, n_rows, 1)?;
    }
    let key = measure(&mut server, "SELECT s FROM v WHERE id = $1", n_lookups, n_rows, 1)?;
    let bytes = server.state_bytes() - before;
    let text = measure_texts(&mut server, n_lookups, n_rows)?;
    let scan_of_ten = measure(&mut server, "SELECT s FROM v WHERE g + 0 = $1", N_SCANS, n_rows / 10, 10)?;
    server.rows("CREATE INDEX v_g ON v (g)")?;
    let ten = measure(&mut server, "SELECT s FROM v WHERE g = $1", n_lookups, n_rows / 10, 10)?;
    for (name, times, beside) in [
        ("scan for one row", &scan, &scan),
        ("by the view's key, prepared", &key, &scan),
        ("by the view's key, a new text each time", &text, &scan),
        ("scan for ten rows", &scan_of_ten, &scan_of_ten),
        ("ten rows by an index, prepared", &ten, &scan_of_ten),
    ] {
        let (mean, slow) = (times.mean_us(), times.percentile_us(0.99));
        let ratio = beside.mean_us() / mean;
        println!("| {name} | {:.0} | {mean:.0} | {slow:.0} | {ratio:.1} |", 1e6 / mean);
    }
    println!("\nThe index of the view's key holds {:.1} bytes a row.", bytes as f64 / n_rows as f64);
    Ok(())
}

struct Times(Vec<f64>);

impl Times {
    fn mean_us(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len().max(1) as f64
    }

    fn percentile_us(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
    }
}

/// Runs a prepared query with keys all over the range; each must give so many rows.
fn measure(server: &mut Server, sql: &str, n: u64, n_keys: u64, n_expected: usize) -> Result<Times, Box<dyn Error>> {
    let Server { runtime, session, .. } = server;
    let parsed = tidewire_sql::parse(sql)?.pop().ok_or("no statement")?;
    runtime.block_on(async {
        let prepared = session.prepare(parsed, &[]).await?;
        let mut times = vec![];
        for idx in 0..n {
            let key = ScalarValue::Int64(Some((idx * 15_485_863 % n_keys.max(1)) as i64));
            let began = Instant::now();
            let rows = rows(session, &prepared, vec![key]).await?;
            times.push(began.elapsed().as_secs_f64() * 1e6);
            check(&rows, n_expected)?;
        }
        Ok(Times(times))
    })
}

/// The same with the key in the text.
fn measure_texts(server: &mut Server, n: u64, n_keys: u64) -> Result<Times, Box<dyn Error>> {
    let mut times = vec![];
    for idx in 0..n {
        let sql = format!("SELECT s FROM v WHERE id = {}", idx * 15_485_863 % n_keys.max(1));
        let began = Instant::now();
        let rows = server.rows(&sql)?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
        check(&rows, 1)?;
    }
    Ok(Times(times))
}

async fn rows(
    session: &mut Session,
    prepared: &Prepared,
    parameters: Vec<ScalarValue>,
) -> Result<Vec<RecordBatch>, Box<dyn Error>> {
    match session.execute(prepared, parameters).await? {
        Outcome::Rows { rows, .. } => Ok(rows.try_collect().await?),
        _ => Err("no rows".into()),
    }
}

fn check(rows: &[RecordBatch], n_expected: usize) -> Result<(), Box<dyn Error>> {
    match rows.iter().map(RecordBatch::num_rows).sum::<usize>() {
        n if n == n_expected => Ok(()),
        n => Err(format!("{n} rows where {n_expected} were expected").into()),
    }
}
