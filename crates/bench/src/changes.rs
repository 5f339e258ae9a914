//! What a change of one row costs a view over many rows, and how that grows with their number.
//!
//! `tidewire-bench changes [THOUSAND ROWS] [CHANGES]`: each shape of view stands alone over a table of that many rows,
//! then over one of ten times as many; single rows are inserted, updated and deleted. CPU time of the epoch loop's thread
//! for each statement (the median, for the machine may do other things), less what the same statement takes without the view. Beside it what DataFusion takes to run the query once:
//! what a change would cost if it were computed anew.

use std::error::Error;
use std::fmt::Write;
use std::time::Instant;

use crate::cpu::threads_cpu_ns;
use crate::server::Server;

const ROWS_PER_KEY: u64 = 10;
const INSERT_ROWS: u64 = 10_000;
/// A loop that works longer than that for a read still builds an index.
const INDEXED_NS: u64 = 500_000;

/// The shapes: a name, and the query over `t` (id, k, v; ten rows a key) and `u` (k, w; one row a key).
const SHAPES: &[(&str, &str)] = &[
    ("filter", "SELECT id, v FROM t WHERE v % 2 = 0"),
    ("aggregate", "SELECT k, count(*) AS n, sum(v) AS s, max(v) AS m FROM t GROUP BY k"),
    ("join", "SELECT t.id, t.v, u.w FROM t JOIN u ON t.k = u.k"),
    ("left join", "SELECT t.id, t.v, u.w FROM t LEFT JOIN u ON t.k = u.k AND u.w > 3"),
    ("DISTINCT", "SELECT DISTINCT k FROM t"),
    ("top-N", "SELECT id, v FROM t ORDER BY v DESC, id LIMIT 10"),
    ("top-N by key", "SELECT DISTINCT ON (k) k, id, v FROM t ORDER BY k, v DESC, id"),
    ("semi join", "SELECT id FROM t WHERE k IN (SELECT k FROM u WHERE w > 3)"),
    ("anti join", "SELECT id FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND w > 3)"),
    ("OVER by key", "SELECT id, sum(v) OVER (PARTITION BY k ORDER BY id) AS s FROM t"),
    ("scalar subquery by key", "SELECT id, (SELECT max(w) FROM u WHERE u.k = t.k) AS w FROM t"),
    ("global aggregate", "SELECT count(*) AS n, sum(v) AS s, max(v) AS m FROM t"),
];

/// Runs the benchmark.
pub fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let n_rows: u64 = args.first().map_or(Ok(1_000), |n| n.parse())? * 1_000;
    let n_changes: u64 = args.get(1).map_or(Ok(300), |n| n.parse())?;
    println!(
        "{n_changes} INSERTs, UPDATEs and DELETEs of one row each; microseconds of CPU of the epoch loop a statement\n"
    );
    println!("| view | {n_rows} rows | ten times as many | growth | state, bytes a row | the query once, ms |");
    println!("|---|---|---|---|---|---|");
    let mut small = Tables::fill(n_rows)?;
    let mut large = Tables::fill(n_rows * 10)?;
    // The first reads by key have the index built that all others use.
    small.changes(n_changes)?;
    large.changes(n_changes)?;
    let (base_small, base_large) = (small.indexed()?.changes(n_changes)?, large.indexed()?.changes(n_changes)?);
    println!("| (the table alone) | {base_small:.1} | {base_large:.1} | {:.2} | | |", base_large / base_small);
    for (name, query) in SHAPES {
        let (Ok(cost_small), Ok(cost_large)) = (small.view(query, n_changes), large.view(query, n_changes)) else {
            println!("| {name} | not maintained | | | | |");
            continue;
        };
        let (us_small, us_large) = ((cost_small.us - base_small).max(0.1), (cost_large.us - base_large).max(0.1));
        println!(
            "| {name} | {us_small:.1} | {us_large:.1} | {:.2} | {:.0} | {:.0} |",
            us_large / us_small,
            cost_large.state_bytes as f64 / (n_rows * 10) as f64,
            cost_large.once_ms
        );
    }
    Ok(())
}

fn loop_cpu_ns() -> u64 {
    threads_cpu_ns(|name| name == "epoch-loop")
}

/// What one view came to.
struct Cost {
    us: f64,
    state_bytes: usize,
    once_ms: f64,
}

/// A server with filled tables.
struct Tables {
    server: Server,
    n_rows: u64,
}

impl Tables {
    fn fill(n_rows: u64) -> Result<Tables, Box<dyn Error>> {
        let mut server = Server::start()?;
        server.rows("CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT, v BIGINT)")?;
        server.rows("CREATE TABLE u (k BIGINT PRIMARY KEY, w BIGINT)")?;
        let n_keys = n_rows / ROWS_PER_KEY;
        for first in (0..n_rows).step_by(INSERT_ROWS as usize) {
            insert(&mut server, "t", first..(first + INSERT_ROWS).min(n_rows), |sql, id| {
                write!(sql, "({id}, {}, {})", id % n_keys.max(1), id * 7919 % 1_000_003)
            })?;
        }
        for first in (0..n_keys).step_by(INSERT_ROWS as usize) {
            insert(&mut server, "u", first..(first + INSERT_ROWS).min(n_keys), |sql, k| {
                write!(sql, "({k}, {})", k % 7)
            })?;
        }
        Ok(Tables { server, n_rows })
    }

    /// Waits until a row is found by its key without a scan.
    fn indexed(&mut self) -> Result<&mut Tables, Box<dyn Error>> {
        loop {
            let before = loop_cpu_ns();
            self.server.rows("SELECT v FROM t WHERE id = 1")?;
            self.server.settle();
            if loop_cpu_ns() - before < INDEXED_NS {
                return Ok(self);
            }
        }
    }

    /// Microseconds of CPU of the epoch loop for each statement: the mean of the medians of the three kinds.
    fn changes(&mut self, n_changes: u64) -> Result<f64, Box<dyn Error>> {
        let n_keys = (self.n_rows / ROWS_PER_KEY).max(1);
        let mut costs: [Vec<u64>; 3] = Default::default();
        for n in 0..n_changes {
            let (id, key) = (self.n_rows + n, n * 104_729 % n_keys);
            let statements = [
                format!("INSERT INTO t VALUES ({id}, {key}, {})", n * 31 % 1_000_003),
                format!("UPDATE t SET v = v + 1 WHERE id = {}", n * 15_485_863 % self.n_rows),
                format!("DELETE FROM t WHERE id = {id}"),
            ];
            for (costs, statement) in costs.iter_mut().zip(statements) {
                let before = loop_cpu_ns();
                self.server.rows(&statement)?;
                self.server.settle();
                costs.push(loop_cpu_ns() - before);
            }
        }
        let medians = costs.map(|mut costs| {
            costs.sort_unstable();
            costs.get(costs.len() / 2).copied().unwrap_or(0) as f64 / 1e3
        });
        Ok(medians.iter().sum::<f64>() / medians.len() as f64)
    }

    fn view(&mut self, query: &str, n_changes: u64) -> Result<Cost, Box<dyn Error>> {
        let before = self.server.state_bytes();
        self.server.rows(&format!("CREATE MATERIALIZED VIEW v AS {query}"))?;
        let state_bytes = self.server.state_bytes().saturating_sub(before);
        let us = self.changes(n_changes)?;
        let began = Instant::now();
        self.server.rows(query)?;
        let once_ms = began.elapsed().as_secs_f64() * 1e3;
        self.server.rows("DROP MATERIALIZED VIEW v")?;
        Ok(Cost { us, state_bytes, once_ms })
    }
}

fn insert(
    server: &mut Server,
    table: &str,
    ids: std::ops::Range<u64>,
    row: impl Fn(&mut String, u64) -> std::fmt::Result,
) -> Result<(), Box<dyn Error>> {
    let mut sql = format!("INSERT INTO {table} VALUES ");
    for (idx, id) in ids.enumerate() {
        if idx > 0 {
            sql.push(',');
        }
        row(&mut sql, id)?;
    }
    server.rows(&sql)?;
    Ok(())
}
