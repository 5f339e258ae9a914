//! The oracle can fail: what a wrong operator makes of a view is caught.
//!
//! Operators are wrong in two ways. In the engine's own dataflow one kind of operator is replaced by one that is right
//! but for one mistake, of the kind that is easily made: a weight that is forgotten, a row that does not leave, a state
//! that is shared by what it should not be. Or the server is given another view than the oracle: `min` for `max`, an
//! inner join for a left one; that is what an operator of that kind would make that computes something else.
#![expect(clippy::unwrap_used, reason = "a test: what fails here fails it")]

use arrow::array::{Int64Array, RecordBatch};
use tidewire_operators::{Operator, Plan, StepContext};
use tidewire_testkit::slt::{Mode, Wrong, run_script};
use tidewire_types::{Delta, Result};

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

fn run(query: &str, wrong: Wrong) -> Result<usize, String> {
    let script = SCRIPT.replace("VIEW_QUERY", query);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run_script(&script, "oracle", Mode::AsWritten, wrong)).map_err(|failures| failures.join("\n"))
}

/// The view is right with the right operators, and found to be wrong with others.
fn check_caught(query: &str, wrong: Wrong) {
    assert!(run(query, Wrong::default()).unwrap() > 0);
    let failure = run(query, wrong).unwrap_err();
    assert!(failure.contains("is not its query"), "{failure}");
}

/// The right operator, but for what `tamper` does to what goes in and what comes out.
struct Tampered {
    right: Box<dyn Operator>,
    tamper_input: fn(Delta) -> Delta,
    tamper_output: fn(Delta) -> Delta,
}

impl Operator for Tampered {
    fn start(&mut self, cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        self.right.start(cx, out)
    }

    fn step(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        for delta in inputs.iter_mut().flatten() {
            *delta = (self.tamper_input)(delta.clone());
        }
        let mut right = vec![];
        self.right.step(inputs, cx, &mut right)?;
        out.extend(right.into_iter().map(self.tamper_output));
        Ok(())
    }
}

fn only_gains(delta: Delta) -> Delta {
    let gains = |rows: &RecordBatch, weights: &Int64Array| {
        let mask = weights.iter().map(|w| w.map(|w| w > 0)).collect();
        arrow::compute::filter_record_batch(rows, &mask).unwrap()
    };
    match delta.weights() {
        None => delta,
        Some(weights) => Delta::insert(gains(delta.rows(), weights)),
    }
}

fn as_if_added(delta: Delta) -> Delta {
    let weights = Int64Array::from((0..delta.n_rows()).map(|idx| delta.weight(idx).abs()).collect::<Vec<_>>());
    Delta::new(delta.rows().clone(), Some(weights))
}

fn without_the_first_row(delta: Delta) -> Delta {
    delta.slice(1, delta.n_rows() - 1)
}

fn unchanged(delta: Delta) -> Delta {
    delta
}

macro_rules! operators_caught {
    ($($name:ident: $plan:pat, $input:ident, $output:ident, $query:literal)*) => { $(
        #[test]
        fn $name() {
            fn operators(plan: &Plan, shard_idx: usize) -> Result<Box<dyn Operator>> {
                let right = plan.build(shard_idx)?;
                match plan {
                    $plan => Ok(Box::new(Tampered { right, tamper_input: $input, tamper_output: $output })),
                    _ => Ok(right),
                }
            }
            check_caught($query, Wrong { operators, ..Wrong::default() });
        }
    )* };
}

operators_caught! {
    an_aggregate_that_overlooks_removals: Plan::Aggregate(_), only_gains, unchanged,
        "SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k"
    an_aggregate_that_adds_what_is_removed: Plan::Aggregate(_), as_if_added, unchanged,
        "SELECT k, sum(v) AS s FROM t GROUP BY k"
    a_join_that_loses_a_row: Plan::Join(_), without_the_first_row, unchanged,
        "SELECT t.id, u.w FROM t LEFT JOIN u ON t.k = u.k"
    a_join_that_takes_nothing_back: Plan::Join(_), unchanged, only_gains,
        "SELECT count(*) AS n FROM t LEFT JOIN u ON t.k = u.k"
    a_filter_that_takes_nothing_back: Plan::Filter(_), unchanged, only_gains,
        "SELECT count(*) AS n FROM t WHERE v > 2"
    a_top_n_that_forgets_who_left: Plan::TopN(_), only_gains, unchanged,
        "SELECT id, v FROM t ORDER BY v DESC NULLS LAST, id LIMIT 3"
    a_projection_that_loses_a_row: Plan::Project(_), unchanged, without_the_first_row,
        "SELECT id, v + 1 AS w FROM t"
    a_union_that_loses_a_row: Plan::Union(_), without_the_first_row, unchanged,
        "SELECT id FROM t UNION ALL SELECT w FROM u"
}

macro_rules! queries_caught {
    ($($name:ident: $query:literal with $from:literal -> $to:literal)*) => { $(
        #[test]
        fn $name() {
            fn statement(sql: &str) -> String {
                if sql.contains("MATERIALIZED VIEW") { sql.replace($from, $to) } else { sql.to_string() }
            }
            check_caught($query, Wrong { statement, ..Wrong::default() });
        }
    )* };
}

queries_caught! {
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
    fn statement(sql: &str) -> String {
        if sql.contains("MATERIALIZED VIEW") { sql.replace("FROM t", "FROM t WHERE id <> 5") } else { sql.to_string() }
    }
    let failure = run("SELECT id, k FROM t", Wrong { statement, ..Wrong::default() }).unwrap_err();
    assert!(failure.contains("only in the query") && failure.contains("5 | NULL"), "{failure}");
}
