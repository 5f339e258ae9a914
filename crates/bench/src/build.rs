//! Building a view over rows that are there already, while somebody writes elsewhere.
//!
//! `tidewire-bench build [MILLION ROWS] [VIEW]`: the time of CREATE MATERIALIZED VIEW beside that of the same query as a batch, and
//! how long INSERTs of one row into another table (with a view on it) take meanwhile. CPU time is the whole process's, with
//! those INSERTs.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidewire_engine::Session;
use tidewire_types::Result as SqlResult;

use crate::cpu::process_cpu;
use crate::memory::touch;
use crate::server::{Server, rows};

/// More than a build takes.
const GIGABYTES: usize = 3;

const QUERIES: &[(&str, &str)] = &[
    ("aggregate", "SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k"),
    ("filter", "SELECT id, v FROM t WHERE v % 10 = 0"),
    ("join", "SELECT t.id, u.w FROM t JOIN u ON t.k = u.k WHERE t.v % 2 = 0"),
];

/// Runs the benchmark.
pub fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let n_rows = (args.first().map_or(Ok(10.0), |n| n.parse::<f64>())? * 1e6) as u64;
    let mut server = Server::start()?;
    server.rows("CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT NOT NULL, v BIGINT NOT NULL)")?;
    server.rows("CREATE TABLE u (k BIGINT PRIMARY KEY, w BIGINT NOT NULL)")?;
    server.rows("CREATE TABLE other (id BIGINT PRIMARY KEY)")?;
    server.rows("CREATE MATERIALIZED VIEW n_other AS SELECT count(*) AS n FROM other")?;
    let n_keys = n_rows / 10;
    for first in (0..n_rows).step_by(1_000_000) {
        let last = (first + 1_000_000).min(n_rows) - 1;
        server.rows(&format!(
            "INSERT INTO t SELECT g, g * 7919 % {n_keys}, g % 1000 FROM generate_series({first}::bigint, {last}) AS s(g)"
        ))?;
    }
    server.rows(&format!("INSERT INTO u SELECT g, g % 7 FROM generate_series(0, {}) AS s(g)", n_keys - 1))?;
    println!("{n_rows} rows\n");
    println!(
        "| view | as a batch, s | CREATE, s | ratio | CPU, s | CPU, s | ratio | INSERTs meanwhile | p50, ms | p99, ms | longest, ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for (name, query) in QUERIES.iter().filter(|(name, _)| args.get(1).is_none_or(|only| only == name)) {
        touch(GIGABYTES)?;
        let (began, before) = (Instant::now(), process_cpu());
        server.rows(query)?;
        let (batch, batch_cpu) = (began.elapsed().as_secs_f64(), process_cpu() - before);
        touch(GIGABYTES)?;
        let stop = Arc::new(AtomicBool::new(false));
        let writer = server.runtime.spawn(write(server.session(), stop.clone()));
        let (began, before) = (Instant::now(), process_cpu());
        server.rows(&format!("CREATE MATERIALIZED VIEW v AS {query}"))?;
        let (create, create_cpu) = (began.elapsed().as_secs_f64(), process_cpu() - before);
        stop.store(true, Ordering::Relaxed);
        let mut times = server.runtime.block_on(writer)??;
        times.sort_unstable();
        let at = |part: f64| {
            let idx = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
            times.get(idx).map_or(0.0, |t| t.as_secs_f64() * 1e3)
        };
        println!(
            "| {name} | {batch:.2} | {create:.2} | {:.2} | {batch_cpu:.2} | {create_cpu:.2} | {:.2} | {} | {:.2} | {:.2} | {:.1} |",
            batch / create,
            batch_cpu / create_cpu,
            times.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
        server.rows("DROP MATERIALIZED VIEW v")?;
        server.rows("DELETE FROM other")?;
    }
    Ok(())
}

/// Inserts single rows, a thousand a second at most; how long each took.
async fn write(mut session: Session, stop: Arc<AtomicBool>) -> SqlResult<Vec<Duration>> {
    let mut times = vec![];
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let began = Instant::now();
        rows(&mut session, &format!("INSERT INTO other VALUES ({})", times.len())).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}
