//! The rows that can be reached, by both kinds of union, while rows and edges come and go.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::Operator as BinaryOperator;
use datafusion::physical_expr::expressions::{Column, binary, lit};

use super::*;
use crate::join::{Join, Kind};
use crate::project::Project;
use crate::testing::{Row, Steps, Value, batch, check_operator, schema};

fn ints(names: &[&str]) -> SchemaRef {
    schema(names.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect())
}

/// `SELECT edges.to FROM reached JOIN edges ON edges.from = reached.n [AND edges.from < edges.to]`
fn reached(distinct: bool, iterations_max: i64) -> Recursion {
    let both = ints(&["n", "iteration", "from", "to"]);
    let column = |name: &str, idx| Arc::new(Column::new(name, idx)) as _;
    let ascending = binary(column("from", 2), BinaryOperator::Lt, column("to", 3), &both).unwrap();
    let join = Join {
        kind: Kind::Inner,
        left_keys: vec![0],
        right_keys: vec![0],
        null_equals_null: false,
        null_aware: false,
        residual: (!distinct).then_some(ascending),
        left_append_only: false,
        right_append_only: false,
        left_unique: false,
        right_unique: false,
        left_schema: ints(&["n", "iteration"]),
        right_schema: ints(&["from", "to"]),
        schema: both,
    };
    let project = Project { exprs: vec![column("to", 3), column("iteration", 1)], schema: ints(&["n", "iteration"]) };
    Recursion {
        name: "reached".into(),
        distinct,
        keys: None,
        body: vec![
            BodyNode::Work,
            BodyNode::Operator(Plan::Join(join), vec![BodyInput::Node(0), BodyInput::Outer(0)]),
            BodyNode::Operator(Plan::Project(project), vec![BodyInput::Node(1)]),
        ],
        n_outer: 1,
        iterations_max,
        work_schema: ints(&["n", "iteration"]),
        schema: ints(&["n"]),
    }
}

fn next(rows: &[Row], edges: &[Row], ascending: bool) -> Vec<Row> {
    let of_row = |row: &Row| {
        let matching = edges.iter().filter(|e| e[0] == row[0] && e[0] != Value::Null);
        let matching = matching.filter(|e| !ascending || (e[1] != Value::Null && e[0] < e[1]));
        matching.map(|e| vec![e[1].clone()]).collect::<Vec<_>>()
    };
    rows.iter().flat_map(of_row).collect()
}

/// With rows that are equal where their halves are: the least of those that an iteration derives is shown.
fn naive_by_halves(inputs: &[Vec<Row>]) -> Vec<Row> {
    let half = |row: &Row| match row[0] {
        Value::Int(n) => Some(n / 2),
        _ => None,
    };
    let mut all: Vec<Row> = vec![];
    let mut seen = BTreeSet::new();
    let mut work = inputs[0].clone();
    while !work.is_empty() {
        work.sort();
        work.retain(|row| seen.insert(half(row)));
        all.extend(work.iter().cloned());
        work = next(&work, &inputs[1], false);
    }
    all
}

fn naive(inputs: &[Vec<Row>], distinct: bool) -> Vec<Row> {
    let mut all: Vec<Row> = vec![];
    let mut seen = BTreeSet::new();
    let mut work = inputs[0].clone();
    loop {
        if distinct {
            work.retain(|row| seen.insert(row.clone()));
        }
        if work.is_empty() {
            return all;
        }
        all.extend(work.iter().cloned());
        work = next(&work, &inputs[1], !distinct);
    }
}

#[test]
fn union_equals_the_closure_also_over_cycles() {
    let plan = reached(true, 100);
    check_operator(&[ints(&["n"]), ints(&["from", "to"])], &Plan::Recursion(Box::new(plan)), |inputs| {
        naive(inputs, true)
    });
}

#[test]
fn of_equal_rows_the_least_of_the_first_iteration_is_shown() {
    let half = binary(Arc::new(Column::new("n", 0)), BinaryOperator::Divide, lit(2_i64), &ints(&["n"])).unwrap();
    let plan = Recursion { keys: Some(vec![half]), ..reached(true, 100) };
    check_operator(&[ints(&["n"]), ints(&["from", "to"])], &Plan::Recursion(Box::new(plan)), naive_by_halves);
}

#[test]
fn union_all_equals_all_paths() {
    let plan = reached(false, 100);
    check_operator(&[ints(&["n"]), ints(&["from", "to"])], &Plan::Recursion(Box::new(plan)), |inputs| {
        naive(inputs, false)
    });
}

fn rows(names: &[&str], values: &[&[i64]]) -> RecordBatch {
    let rows: Vec<Row> = values.iter().map(|row| row.iter().map(|v| Value::Int(*v)).collect()).collect();
    batch(&ints(names), &rows.iter().collect::<Vec<_>>())
}

#[test]
fn a_cycle_that_lost_its_entry_does_not_support_itself() {
    let mut operator = reached(true, 100).build().unwrap();
    let steps = Steps::default();
    let mut step = |epoch, base: Vec<Delta>, edges: Vec<Delta>| {
        let mut out = vec![];
        operator.step(&mut [base, edges], &steps.context(epoch), &mut out).unwrap();
        out.iter().map(|d| (0..d.n_rows()).map(|idx| d.weight(idx)).sum::<i64>()).sum::<i64>()
    };
    let edges = rows(&["from", "to"], &[&[1, 2], &[2, 3], &[3, 4], &[4, 2]]);
    assert_eq!(step(1, vec![Delta::insert(rows(&["n"], &[&[1]]))], vec![Delta::insert(edges)]), 4);
    assert_eq!(step(2, vec![], vec![Delta::delete(rows(&["from", "to"], &[&[1, 2]]))]), -3);
    assert_eq!(step(3, vec![], vec![Delta::insert(rows(&["from", "to"], &[&[1, 3]]))]), 3);
}

/// Two is derived in iterations 0 (as a first row), 1 (of itself) and 2 (of zero): the first takes the second with it.
#[test]
fn a_row_that_loses_two_derivations_in_one_step_is_shown_by_the_third() {
    let mut operator = reached(true, 100).build().unwrap();
    let steps = Steps::default();
    let edges = rows(&["from", "to"], &[&[2, 2], &[3, 0], &[0, 2]]);
    let base = vec![Delta::insert(rows(&["n"], &[&[2], &[3]]))];
    let mut out = vec![];
    operator.step(&mut [base, vec![Delta::insert(edges)]], &steps.context(1), &mut out).unwrap();
    out.clear();
    let gone = vec![Delta::delete(rows(&["n"], &[&[2]]))];
    operator.step(&mut [gone, vec![]], &steps.context(2), &mut out).unwrap();
    assert_eq!(out.iter().map(Delta::n_rows).sum::<usize>(), 0);
}

#[test]
fn what_does_not_end_is_an_error() {
    let mut plan = reached(true, 10);
    plan.distinct = false;
    let mut operator = plan.build().unwrap();
    let steps = Steps::default();
    let base = vec![Delta::insert(rows(&["n"], &[&[1]]))];
    let edges = vec![Delta::insert(rows(&["from", "to"], &[&[1, 2], &[2, 1]]))];
    let error = operator.step(&mut [base, edges], &steps.context(1), &mut vec![]).unwrap_err();
    assert_eq!(error.state(), SqlState::ProgramLimitExceeded);
}
