//! Equal sub-plans of one view are run once: how many nodes of each kind a view has.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};

use crate::NodeKind;
use crate::fixture::{Fixture, query};

/// Checks the number of each operator, and of inputs.
fn check(sql: &str, expected: Expect) {
    let fixture = Fixture::new();
    let (query, text) = query(sql).unwrap();
    let (flow, _) = fixture.context().dataflow(&query, &text).unwrap();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &flow.nodes {
        let name = match &node.kind {
            NodeKind::Input(_) => "Input",
            NodeKind::Constant(_) => "Constant",
            NodeKind::Operator(plan) => plan.name(),
        };
        *counts.entry(name).or_default() += 1;
    }
    let shown: Vec<String> = counts.iter().map(|(name, n)| format!("{n} {name}")).collect();
    expected.assert_eq(&shown.join(", "));
}

#[test]
fn a_cte_that_is_used_twice_is_run_once() {
    check(
        "WITH t AS (SELECT account, sum(amount) AS s FROM payments GROUP BY account)
         SELECT a.account, b.account AS other FROM t a JOIN t b ON a.s = b.s",
        expect![
            "1 IncrementalAggregateExec, 1 IncrementalFilterExec, 1 IncrementalJoinExec, 2 IncrementalProjectionExec, 1 Input"
        ],
    );
}

#[test]
fn subqueries_in_from_that_are_written_twice_are_run_once() {
    check(
        "SELECT a.account, a.n, b.n AS m FROM (SELECT account, count(*) AS n FROM payments GROUP BY account) a
         JOIN (SELECT account, count(*) AS n FROM payments GROUP BY account) b ON a.account < b.account",
        expect!["1 IncrementalAggregateExec, 1 IncrementalJoinExec, 2 IncrementalProjectionExec, 1 Input"],
    );
}

#[test]
fn scalar_subqueries_that_are_equal_are_run_once() {
    check(
        "SELECT id FROM payments WHERE amount > (SELECT avg(amount) FROM payments)
         UNION ALL SELECT id FROM payments WHERE amount < (SELECT avg(amount) FROM payments)",
        expect![
            "1 IncrementalAggregateExec, 2 IncrementalFilterExec, 1 IncrementalJoinExec, 3 IncrementalProjectionExec, 1 IncrementalSingleRowExec, 1 IncrementalUnionExec, 2 Input"
        ],
    );
}

#[test]
fn correlated_subqueries_that_are_equal_are_run_once() {
    check(
        "SELECT id, (SELECT sum(amount) FROM payments p WHERE p.account = a.id) AS x,
                (SELECT sum(amount) FROM payments q WHERE q.account = a.id) AS y FROM accounts a",
        expect![
            "1 IncrementalAggregateExec, 1 IncrementalFilterExec, 2 IncrementalJoinExec, 4 IncrementalProjectionExec, 2 Input"
        ],
    );
}

#[test]
fn a_join_below_two_aggregates_is_run_once() {
    check(
        "SELECT country AS k, count(*) AS n FROM payments p JOIN accounts a ON p.account = a.id GROUP BY country
         UNION ALL
         SELECT country, -count(*) FROM payments p JOIN accounts a ON p.account = a.id GROUP BY country",
        expect![
            "1 IncrementalAggregateExec, 1 IncrementalFilterExec, 1 IncrementalJoinExec, 3 IncrementalProjectionExec, 1 IncrementalUnionExec, 2 Input"
        ],
    );
}

#[test]
fn a_plain_view_that_is_used_twice_is_run_once() {
    check(
        "SELECT a.account, a.amount FROM rich a JOIN rich b ON a.account = b.account AND a.amount = b.amount",
        expect!["1 IncrementalFilterExec, 1 IncrementalJoinExec, 2 IncrementalProjectionExec, 1 Input"],
    );
}

#[test]
fn equal_in_subqueries_are_run_once() {
    check(
        "SELECT id FROM accounts WHERE id IN (SELECT account FROM payments WHERE amount > 3)
         UNION ALL SELECT country FROM accounts WHERE country IN (SELECT account FROM payments WHERE amount > 3)",
        expect![
            "1 IncrementalFilterExec, 2 IncrementalJoinExec, 2 IncrementalProjectionExec, 1 IncrementalUnionExec, 3 Input"
        ],
    );
}

/// Checks what the second view could take from the first: the largest shareable nodes that are equal.
fn check_shared(first: &str, second: &str, expected: Expect) {
    let fixture = Fixture::new();
    let plan = |sql: &str| {
        let (query, text) = query(sql).unwrap();
        fixture.context().dataflow(&query, &text).unwrap().0
    };
    let (first, second) = (plan(first), plan(second));
    let shareable = second.shareable();
    let mut taken = vec![];
    let mut found = vec![];
    for node in (0..second.nodes.len()).rev().filter(|node| shareable[*node]) {
        if !taken.contains(&node) && (0..first.nodes.len()).any(|other| second.is_equal(node, &first, other)) {
            taken.extend(second.below(node));
            found.push(second.describe(node));
        }
    }
    expected.assert_eq(&found.join("\n"));
}

#[test]
fn plans_of_two_views_are_equal_whatever_their_names_are() {
    check_shared(
        "SELECT account, sum(amount) AS s FROM payments GROUP BY account",
        "SELECT x.a AS b FROM (SELECT p.account AS a, sum(p.amount) AS t FROM payments p GROUP BY p.account) x WHERE x.t > 3",
        expect!["IncrementalAggregateExec: gby=[account], aggr=[sum(amount)]"],
    );
    check_shared(
        "SELECT country, sum(amount) AS s FROM payments p JOIN accounts a ON p.account = a.id GROUP BY country",
        "SELECT b.country AS k, max(q.amount) AS m FROM payments q JOIN accounts b ON q.account = b.id GROUP BY b.country",
        expect!["IncrementalJoinExec: join_type=Inner, on=[account = id]"],
    );
}

#[test]
fn plans_that_differ_in_anything_but_names_are_not_equal() {
    let first = "SELECT account, sum(amount) AS s FROM payments WHERE amount > 3 GROUP BY account";
    for second in [
        "SELECT account, sum(amount) AS s FROM payments WHERE amount > 4 GROUP BY account",
        "SELECT account, sum(amount) AS s FROM payments WHERE amount >= 3 GROUP BY account",
        "SELECT account, max(amount) AS s FROM payments WHERE amount > 3 GROUP BY account",
        "SELECT account, sum(DISTINCT amount) AS s FROM payments WHERE amount > 3 GROUP BY account",
        "SELECT account, sum(amount) FILTER (WHERE amount > 5) AS s FROM payments WHERE amount > 3 GROUP BY account",
        "SELECT id, sum(amount) AS s FROM payments WHERE amount > 3 GROUP BY id",
        "SELECT account, sum(amount::float8) AS s FROM payments WHERE amount > 3 GROUP BY account",
    ] {
        check_shared(first, second, expect![""]);
    }
}

#[test]
fn what_depends_on_the_order_of_rows_is_not_shared() {
    for sql in [
        "SELECT account, sum(amount::float8) AS s FROM payments GROUP BY account",
        "SELECT account, array_agg(amount) AS a FROM payments GROUP BY account",
        "SELECT id, n FROM payments, generate_series(1, 2) AS g(n)",
    ] {
        check_shared(sql, sql, expect![""]);
    }
}
