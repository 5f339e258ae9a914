//! How the cost of each shape of view grows with its rows: none may be quadratic by accident.
//!
//! `tidewire-bench growth [THOUSAND ROWS]`: a view of each shape stands while its tables are filled with that many rows, in
//! changes of a thousandth of them, and is then fed deletes of a tenth; the same with ten times as many rows. CPU time of the epoch loop and its
//! workers a row, less that of the tables alone. What grows with the logarithm of the rows, or with caches, shows as
//! 1 to 3; a quadratic cost would show as 10.

use std::error::Error;
use std::fmt::Write;

use crate::cpu::threads_cpu_ns;
use crate::server::Server;

/// A name, and the query over `t` (id, k, v; ten rows a key) and `u` (k, w; one row a key).
const SHAPES: &[(&str, &str)] = &[
    ("filter and project", "SELECT id, v * 2 AS v FROM t WHERE v % 2 = 0"),
    ("count, sum, avg by key", "SELECT k, count(*) AS n, sum(v) AS s, avg(v) AS a FROM t GROUP BY k"),
    ("min, max by key", "SELECT k, min(v) AS a, max(v) AS b FROM t GROUP BY k"),
    (
        "global min, max, median",
        "SELECT min(v) AS a, max(v) AS b, percentile_cont(0.5) WITHIN GROUP (ORDER BY v) AS m FROM t",
    ),
    ("count(DISTINCT) by key", "SELECT k % 10 AS k, count(DISTINCT v) AS n FROM t GROUP BY 1"),
    ("string_agg by key", "SELECT k, string_agg(v::text, ',' ORDER BY id) AS s FROM t GROUP BY k"),
    ("array_agg by key", "SELECT k, array_agg(v ORDER BY v) AS s FROM t GROUP BY k"),
    ("stddev by key", "SELECT k, stddev(v) AS s FROM t GROUP BY k"),
    ("ROLLUP", "SELECT k % 100 AS a, k % 10 AS b, count(*) AS n FROM t GROUP BY ROLLUP (1, 2)"),
    ("DISTINCT", "SELECT DISTINCT v FROM t"),
    ("inner join", "SELECT t.id, u.w FROM t JOIN u ON t.k = u.k"),
    ("left join", "SELECT t.id, u.w FROM t LEFT JOIN u ON t.k = u.k AND u.w > 3"),
    ("full join", "SELECT t.id, u.w FROM t FULL JOIN u ON t.k = u.k + 5"),
    ("self join", "SELECT a.id, b.v FROM t a JOIN t b ON a.id = b.id + 1"),
    ("four tables", "SELECT a.id FROM t a JOIN u b ON a.k = b.k JOIN u c ON b.k = c.k JOIN u d ON c.k = d.k"),
    ("EXISTS", "SELECT id FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND w > 3)"),
    ("NOT IN", "SELECT id FROM t WHERE k NOT IN (SELECT k FROM u WHERE w > 3)"),
    ("IN under OR", "SELECT id FROM t WHERE v = 7 OR k IN (SELECT k FROM u WHERE w > 3)"),
    ("correlated scalar", "SELECT k, (SELECT sum(v) FROM t WHERE t.k = u.k) AS s FROM u"),
    ("correlated LIMIT 1", "SELECT k, (SELECT v FROM t WHERE t.k = u.k ORDER BY v DESC, id LIMIT 1) AS s FROM u"),
    ("LATERAL top-3", "SELECT u.k, l.id FROM u, LATERAL (SELECT id FROM t WHERE t.k = u.k ORDER BY v, id LIMIT 3) l"),
    ("above the average", "SELECT id FROM t WHERE v > (SELECT avg(v) FROM t b WHERE b.k = t.k)"),
    ("ORDER BY LIMIT", "SELECT id, v FROM t ORDER BY v DESC, id LIMIT 10"),
    ("DISTINCT ON", "SELECT DISTINCT ON (k) k, id, v FROM t ORDER BY k, v DESC, id"),
    (
        "row_number() <= 3",
        "SELECT k, id FROM (SELECT k, id, row_number() OVER (PARTITION BY k ORDER BY v, id) AS n FROM t) s WHERE n <= 3",
    ),
    (
        "rank() <= 3",
        "SELECT k, id FROM (SELECT k, id, rank() OVER (PARTITION BY k ORDER BY v) AS n FROM t) s WHERE n <= 3",
    ),
    ("sum() OVER, running, by key", "SELECT id, sum(v) OVER (PARTITION BY k ORDER BY id) AS s FROM t"),
    ("lag() OVER all", "SELECT id, lag(v) OVER (ORDER BY id) AS s FROM t"),
    ("avg() OVER 5 rows of all", "SELECT id, avg(v) OVER (ORDER BY id ROWS 4 PRECEDING) AS s FROM t"),
    ("UNION", "SELECT k FROM t UNION SELECT k FROM u"),
    ("EXCEPT", "SELECT k FROM t EXCEPT SELECT k FROM u WHERE w > 3"),
    ("INTERSECT ALL", "SELECT k FROM t INTERSECT ALL SELECT k FROM u"),
    ("generate_series", "SELECT id, g FROM t, generate_series(1, 3) AS g"),
    ("unnest", "SELECT id, x FROM (SELECT id, ARRAY[k, v] AS a FROM t) s, unnest(a) AS x"),
    (
        "recursion, chains of 10",
        "WITH RECURSIVE r AS (SELECT id, k FROM t WHERE id % 10 = 0 UNION SELECT t.id, t.k FROM r JOIN t ON t.id = r.id + 1 WHERE t.id % 10 <> 0) SELECT * FROM r",
    ),
    ("view of a view", "SELECT n, count(*) AS m FROM (SELECT k, count(*) AS n FROM t GROUP BY k) s GROUP BY n"),
];

/// Runs the benchmark.
pub fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let n_rows: u64 = args.first().map_or(Ok(10), |n| n.parse())? * 1_000;
    let (base_small, base_large) = (cost(None, n_rows)?, cost(None, n_rows * 10)?);
    println!("microseconds of CPU a row fed, in changes of a thousandth of the rows, less what the tables take\n");
    println!("| view | {n_rows} rows | {} rows | growth |", n_rows * 10);
    println!("|---|---|---|---|");
    println!("| (tables alone) | {base_small:.2} | {base_large:.2} | {:.2} |", base_large / base_small);
    for (name, query) in SHAPES {
        match (cost(Some(query), n_rows), cost(Some(query), n_rows * 10)) {
            (Ok(small), Ok(large)) => {
                let (small, large) = ((small - base_small).max(0.01), (large - base_large).max(0.01));
                println!("| {name} | {small:.2} | {large:.2} | {:.2} |", large / small);
            }
            (Err(error), _) | (_, Err(error)) => println!("| {name} | {error} | | |"),
        }
    }
    Ok(())
}

/// Microseconds of CPU for each row that is fed while a view of that shape stands.
fn cost(query: Option<&str>, n_rows: u64) -> Result<f64, Box<dyn Error>> {
    let mut server = Server::start()?;
    server.rows("CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT NOT NULL, v BIGINT NOT NULL)")?;
    server.rows("CREATE TABLE u (k BIGINT PRIMARY KEY, w BIGINT NOT NULL)")?;
    if let Some(query) = query {
        server.rows(&format!("CREATE MATERIALIZED VIEW v AS {query}"))?;
    }
    let n_keys = (n_rows / 10).max(1);
    let step = (n_rows / 100).max(1);
    let before = loop_cpu_ns();
    for first in (0..n_rows).step_by(step as usize) {
        let ids = first..(first + step).min(n_rows);
        server.rows(&insert("t", ids.clone(), |id| {
            format!("({id},{},{})", id * 7919 % n_keys, id * 104_729 % n_rows)
        })?)?;
        let keys = ids.filter(|id| id % 10 == 0).map(|id| id / 10);
        server.rows(&insert("u", keys, |k| format!("({k},{})", k % 7))?)?;
    }
    let n_deleted = n_rows / 10;
    for part in 0..10 {
        let (low, high) = (part * n_deleted / 10, (part + 1) * n_deleted / 10);
        server.rows(&format!("DELETE FROM t WHERE id >= {low} AND id < {high}"))?;
    }
    server.settle();
    let n_fed = n_rows + n_keys + n_deleted;
    Ok((loop_cpu_ns() - before) as f64 / 1e3 / n_fed as f64)
}

fn loop_cpu_ns() -> u64 {
    threads_cpu_ns(|name| name == "epoch-loop" || name.starts_with("shard-"))
}

fn insert(table: &str, ids: impl Iterator<Item = u64>, row: impl Fn(u64) -> String) -> Result<String, std::fmt::Error> {
    let mut sql = format!("INSERT INTO {table} VALUES ");
    for (idx, id) in ids.enumerate() {
        write!(sql, "{}{}", if idx > 0 { "," } else { "" }, row(id))?;
    }
    Ok(sql)
}
