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
            "2 IncrementalAggregateExec, 1 IncrementalFilterExec, 2 IncrementalJoinExec, 5 IncrementalProjectionExec, 2 Input"
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
