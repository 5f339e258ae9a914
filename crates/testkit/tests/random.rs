//! Random writes to two tables under many kinds of views, each compared with its query after every statement.
//!
//! What is written is a function of the seed alone. `TIDEWIRE_SEED=n cargo test -p tidewire-testkit --test random`
//! repeats one run; a failure says its seed.
#![expect(clippy::panic, clippy::indexing_slicing, reason = "a test: what fails here fails it")]

use std::fmt::Write;

use tidewire_testkit::slt::{Mode, Wrong, run_script};

const STATEMENTS: usize = 10;
/// Few values, so that rows meet, groups vanish and values repeat.
const KEYS: u64 = 4;
const VALUES: u64 = 5;

/// What the views are. `a` has columns id, k, v, x; `b` has id, k, w.
const VIEWS: &[&str] = &[
    "SELECT id, v + 1 AS y, coalesce(k, 'none') AS z FROM a WHERE v > 1 OR k IS NULL",
    "SELECT k, count(*) AS n, count(v) AS c, sum(v) AS s, min(v) AS mi, max(x) AS ma, avg(v) AS av FROM a GROUP BY k",
    "SELECT count(*) AS n, sum(x) AS s, min(k) AS mi, max(k) AS ma FROM a",
    "SELECT k, count(DISTINCT v) AS d, sum(DISTINCT v) AS s, count(*) FILTER (WHERE x > 1) AS f FROM a GROUP BY k",
    "SELECT k, v FROM a GROUP BY k, v HAVING count(*) > 1",
    "SELECT DISTINCT k, v FROM a",
    "SELECT a.id, b.id AS other, a.v, b.w FROM a JOIN b ON a.k = b.k",
    "SELECT a.id, b.id AS other, b.w FROM a LEFT JOIN b ON a.k = b.k",
    "SELECT a.id, a.v, b.id AS other FROM a RIGHT JOIN b ON a.k = b.k",
    "SELECT a.id, b.id AS other FROM a FULL JOIN b ON a.k = b.k",
    "SELECT a.id, b.id AS other FROM a JOIN b ON a.k = b.k AND a.v < b.w",
    "SELECT a.id, b.id AS other FROM a LEFT JOIN b ON a.k = b.k AND a.v < b.w",
    "SELECT a.id, b.id AS other FROM a FULL JOIN b ON a.k = b.k AND a.v + b.w > 3",
    "SELECT a.id, b.id AS other FROM a LEFT JOIN b ON a.k = b.k AND a.v = b.w",
    "SELECT x.id, y.id AS other FROM a x JOIN a y ON x.v = y.v AND x.id < y.id",
    "SELECT a.id, b.id AS other FROM a CROSS JOIN b WHERE a.v > b.w",
    "SELECT k, v FROM a UNION ALL SELECT k, w FROM b",
    "SELECT k FROM a UNION SELECT k FROM b",
    "SELECT id FROM a WHERE k IN (SELECT k FROM b)",
    "SELECT id FROM a WHERE k NOT IN (SELECT k FROM b WHERE k IS NOT NULL)",
    "SELECT id FROM a WHERE k NOT IN (SELECT k FROM b)",
    "SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.w > a.v)",
    "SELECT id FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k)",
    "SELECT id, v FROM a WHERE v > (SELECT avg(w) FROM b)",
    "SELECT id, (SELECT sum(w) FROM b WHERE b.k = a.k) AS s, (SELECT count(*) FROM b WHERE b.w < a.v) AS n FROM a",
    "SELECT id, k IN (SELECT k FROM b WHERE b.w > a.v) AS i, v > ALL (SELECT w FROM b WHERE b.k = a.k) AS l FROM a",
    "SELECT id FROM a WHERE v > 3 OR k NOT IN (SELECT k FROM b WHERE b.w = a.v) OR (k, v) IN (SELECT k, w FROM b)",
    "SELECT a.id, q.id AS best FROM a LEFT JOIN LATERAL (SELECT id FROM b WHERE b.k = a.k ORDER BY w DESC, id LIMIT 2) q ON true",
    "SELECT id FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.w > (SELECT min(c.v) FROM a c WHERE c.x = a.x AND c.k = b.k))",
    "SELECT a.id, b.id AS other FROM a LEFT JOIN b ON a.k = b.k AND EXISTS (SELECT 1 FROM b c WHERE c.w = b.w AND c.id <> b.id AND c.w > a.v)",
    "SELECT id, v FROM a ORDER BY v DESC NULLS LAST, id LIMIT 3",
    "SELECT id, k FROM b ORDER BY k, id LIMIT 2 OFFSET 1",
    "SELECT k, n, w FROM (SELECT k, count(*) AS n FROM a GROUP BY k) g JOIN b USING (k)",
    "WITH g AS (SELECT k, sum(v) AS s FROM a GROUP BY k) SELECT l.k, r.k AS other FROM g l JOIN g r ON l.s = r.s",
    "SELECT n, count(*) AS groups FROM (SELECT k, count(*) AS n FROM a GROUP BY k) g GROUP BY n",
    "SELECT k, max(n) AS m FROM v1 GROUP BY k HAVING max(n) < 5",
    "SELECT l.k, l.n, r.d FROM v1 l LEFT JOIN v3 r ON l.k IS NOT DISTINCT FROM r.k",
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn key(&mut self) -> String {
        match self.below(KEYS + 1) {
            0 => "NULL".into(),
            n => format!("'k{n}'"),
        }
    }

    fn value(&mut self) -> String {
        match self.below(VALUES + 1) {
            0 => "NULL".into(),
            n => (n as i64 - 2).to_string(),
        }
    }
}

fn statement(random: &mut Random, next_id: &mut u64) -> String {
    let table = ["a", "b"][random.below(2) as usize];
    let column = if table == "a" { "v" } else { "w" };
    match random.below(10) {
        0..=4 => {
            let rows: Vec<String> = (0..=random.below(6))
                .map(|_| {
                    *next_id += 1;
                    let (k, v) = (random.key(), random.value());
                    let x = if table == "a" { format!(", {}.25", random.below(3)) } else { String::new() };
                    format!("({next_id}, {k}, {v}{x})")
                })
                .collect();
            format!("INSERT INTO {table} VALUES {}", rows.join(", "))
        }
        5 => format!("UPDATE {table} SET {column} = {} WHERE k = {}", random.value(), random.key()),
        6 => format!("UPDATE {table} SET k = {} WHERE {column} = {}", random.key(), random.value()),
        7 => format!("DELETE FROM {table} WHERE k = {}", random.key()),
        8 => format!("DELETE FROM {table} WHERE id % 3 = {}", random.below(3)),
        _ => format!("DELETE FROM {table} WHERE {column} IS NULL OR {column} = {}", random.value()),
    }
}

fn script(seed: u64) -> String {
    let mut random = Random(seed);
    let mut next_id = 0;
    let mut out = String::new();
    let mut add = |sql: &str| writeln!(out, "statement ok\n{sql}\n").unwrap_or_default();
    add("CREATE TABLE a (id BIGINT PRIMARY KEY, k TEXT, v INT, x DOUBLE PRECISION)");
    add("CREATE TABLE b (id BIGINT PRIMARY KEY, k TEXT, w INT)");
    // Some views see everything from the start, the others are built over what is there.
    let n_early = random.below(VIEWS.len() as u64) as usize;
    for (idx, view) in VIEWS.iter().enumerate() {
        if idx == n_early {
            (0..6).for_each(|_| add(&statement(&mut random, &mut next_id)));
        }
        add(&format!("CREATE MATERIALIZED VIEW v{idx} AS {view}"));
    }
    (0..STATEMENTS).for_each(|_| add(&statement(&mut random, &mut next_id)));
    out
}

fn run(mode: Mode, seed: u64) {
    let seed = std::env::var("TIDEWIRE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(seed);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|e| panic!("no runtime: {e}"));
    match runtime.block_on(run_script(&script(seed), "random", mode, Wrong::default())) {
        Ok(n_checks) => assert!(n_checks > VIEWS.len() * STATEMENTS),
        Err(failures) => panic!(
            "seed {seed}, {} failures, the first of them:\n{}\nTIDEWIRE_SEED={seed} repeats it",
            failures.len(),
            failures.first().map_or("", String::as_str)
        ),
    }
}

#[test]
fn views_equal_their_queries_with_a_users_settings() {
    run(Mode::AsWritten, 1);
}

#[test]
fn views_equal_their_queries_with_small_epochs_over_shards() {
    run(Mode::SmallEpochs, 2);
}

#[test]
fn views_are_empty_when_everything_is_deleted() {
    run(Mode::Deleted, 3);
}
