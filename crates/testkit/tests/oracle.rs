//! The oracle can fail: a view that a wrong operator maintains is caught.
//!
//! The server is given another view than the oracle: `min` where the definition says `max`, an inner join for a left
//! one, and so on. That is what a wrong operator of that kind would make.
#![expect(clippy::unwrap_used, reason = "a test: what fails here fails it")]

use tidewire_testkit::slt::{Mode, run_script};

const SCRIPT: &str = "
statement ok
CREATE TABLE t (id BIGINT PRIMARY KEY, k TEXT, v BIGINT)

statement ok
CREATE TABLE u (k TEXT PRIMARY KEY, w BIGINT)

statement ok
CREATE MATERIALIZED VIEW v AS VIEW_QUERY

statement ok
INSERT INTO t VALUES (1, 'a', 10), (2, 'a', 20), (3, 'b', 5), (4, 'b', 5), (5, NULL, 7), (6, 'c', NULL)

statement ok
INSERT INTO u VALUES ('a', 100), ('b', 5)

statement ok
UPDATE t SET v = 1 WHERE id = 2

statement ok
DELETE FROM t WHERE id = 3
";

/// Runs the script with `query` as the view. The server gets every statement as `change` makes it.
fn run(query: &str, change: fn(&str) -> String) -> Result<usize, String> {
    let script = SCRIPT.replace("VIEW_QUERY", query);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run_script(&script, "oracle", Mode::AsWritten, change)).map_err(|failures| failures.join("\n"))
}

fn only_view(sql: &str, from: &str, to: &str) -> String {
    if sql.contains("MATERIALIZED VIEW") { sql.replace(from, to) } else { sql.to_string() }
}

macro_rules! caught {
    ($($name:ident: $query:literal with $from:literal -> $to:literal)*) => { $(
        #[test]
        fn $name() {
            assert!(run($query, |sql| sql.to_string()).unwrap() > 0);
            let failure = run($query, |sql| only_view(sql, $from, $to)).unwrap_err();
            assert!(failure.contains("is not its query"), "{failure}");
        }
    )* };
}

caught! {
    an_aggregate_that_takes_the_other_end: "SELECT k, min(v) AS m FROM t GROUP BY k" with "min(" -> "max("
    an_aggregate_that_counts_nulls: "SELECT count(v) AS n FROM t" with "count(v)" -> "count(*)"
    a_distinct_that_keeps_copies: "SELECT DISTINCT k FROM t" with "DISTINCT" -> ""
    a_join_that_loses_unmatched_rows: "SELECT id, w FROM t LEFT JOIN u ON t.k = u.k" with "LEFT JOIN" -> "JOIN"
    a_filter_that_keeps_a_border: "SELECT id FROM t WHERE v > 5" with "> 5" -> ">= 5"
    a_union_that_forgets_copies: "SELECT v FROM t UNION ALL SELECT w FROM u" with "UNION ALL" -> "UNION"
    a_top_n_of_the_wrong_end: "SELECT id FROM t ORDER BY id LIMIT 2" with "ORDER BY id" -> "ORDER BY id DESC"
    a_projection_of_another_column: "SELECT id, v FROM t" with "id, v" -> "id, id AS v"
}

/// The difference is shown.
#[test]
fn a_row_too_few() {
    let failure = run("SELECT id, k FROM t", |sql| only_view(sql, "FROM t", "FROM t WHERE id <> 5")).unwrap_err();
    assert!(failure.contains("only in the query") && failure.contains("5 | NULL"), "{failure}");
}
