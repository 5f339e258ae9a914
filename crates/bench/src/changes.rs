//! What a change of one row costs a view over many rows, and how that grows with their number.
//!
//! `tidewire-bench changes [THOUSAND ROWS] [CHANGES] [VIEW]`: each shape of view stands alone over a table of that many rows,
//! and over one of ten times as many; single rows are inserted, updated and deleted, in rounds of the one and the other
//! table in turn. CPU time of the epoch loop's thread for each statement, less what the same statement takes without the
//! view: the median of a round's statements, and of the rounds the least, for the machine may do other things. Beside it
//! what DataFusion takes to run the query once: what a change would cost if it were computed anew.

use std::error::Error;
use std::fmt::Write;
use std::time::Instant;

use crate::cpu::threads_cpu_ns;
use crate::server::Server;

const ROWS_PER_KEY: u64 = 10;
const INSERT_ROWS: u64 = 10_000;
const ROUNDS: u64 = 5;
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
    let mut tables = [Tables::fill(n_rows)?, Tables::fill(n_rows * 10)?];
    let n_of_round = (n_changes / ROUNDS).max(1);
    // The first reads by key have the index built that all others use.
    for tables in &mut tables {
        tables.changes(n_of_round)?;
        tables.indexed()?;
    }
    let [base_small, base_large] = costs(&mut tables, n_of_round)?;
    println!("| (the table alone) | {base_small:.1} | {base_large:.1} | {:.2} | | |", base_large / base_small);
    for (name, query) in SHAPES.iter().filter(|(name, _)| args.get(2).is_none_or(|only| only == name)) {
        let mut state_bytes = 0;
        for tables in &mut tables {
            let before = tables.server.state_bytes();
            tables.server.rows(&format!("CREATE MATERIALIZED VIEW v AS {query}"))?;
            state_bytes = tables.server.state_bytes().saturating_sub(before);
        }
        let [small, large] = costs(&mut tables, n_of_round)?;
        let mut once_ms = 0.0;
        for tables in &mut tables {
            let began = Instant::now();
            tables.server.rows(query)?;
            once_ms = began.elapsed().as_secs_f64() * 1e3;
            tables.server.rows("DROP MATERIALIZED VIEW v")?;
        }
        let (small, large) = ((small - base_small).max(0.1), (large - base_large).max(0.1));
        println!(
            "| {name} | {small:.1} | {large:.1} | {:.2} | {:.0} | {once_ms:.0} |",
            large / small,
            state_bytes as f64 / (n_rows * 10) as f64,
        );
    }
    Ok(())
}

/// Microseconds a statement over each of the tables.
fn costs(tables: &mut [Tables; 2], n_of_round: u64) -> Result<[f64; 2], Box<dyn Error>> {
    let mut costs = [f64::MAX; 2];
    for _ in 0..ROUNDS {
        for (cost, tables) in costs.iter_mut().zip(tables.iter_mut()) {
            *cost = cost.min(tables.changes(n_of_round)?);
        }
    }
    Ok(costs)
}

fn loop_cpu_ns() -> u64 {
    threads_cpu_ns(|name| name == "epoch-loop")
}

/// A server with filled tables.
struct Tables {
    server: Server,
    n_rows: u64,
    /// Changes that were made: the next ones are of other rows.
    n_changes: u64,
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
        Ok(Tables { server, n_rows, n_changes: 0 })
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
        let first = self.n_changes;
        self.n_changes += n_changes;
        for n in first..first + n_changes {
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
