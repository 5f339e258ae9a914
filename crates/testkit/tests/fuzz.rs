//! A few hundred random cases: each view equals its query after every change, and where `TIDEWIRE_TEST_POSTGRES` names
//! a server (`host=.. user=..`), both equal PostgreSQL's result.
//!
//! `cargo run -p tidewire-testkit --bin fuzz -- --seed N --cases 1` repeats a case that fails here.
#![expect(clippy::unwrap_used, reason = "a test: what fails here fails it")]

use tidewire_testkit::fuzz::{self, Options};

const CASES: usize = 250;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

#[test]
fn views_equal_their_queries_and_postgresql() {
    let postgres = std::env::var("TIDEWIRE_TEST_POSTGRES").ok();
    let options = Options { n_cases: CASES, postgres, findings_max: 3, ..Options::default() };
    let (counts, reports) = runtime().block_on(fuzz::run(&options, |_| {})).unwrap_or_else(|e| panic!("{e}"));
    // The fuzzer takes what panics say for itself, so that the findings are printed here.
    reports.iter().for_each(|report| println!("{report}\n"));
    println!("{}", fuzz::statistics(&counts));
    assert!(reports.is_empty(), "{} findings", reports.len());
    // The cases do something: most views are made, and compared after each change.
    assert!(counts.n_views > CASES / 2, "{}", fuzz::statistics(&counts));
    assert!(counts.n_with_query > 2 * CASES, "{}", fuzz::statistics(&counts));
}

#[test]
fn an_error_is_a_finding() {
    let run = |script: &str| runtime().block_on(fuzz::run_script(&Options::default(), script)).unwrap();
    let tables = "CREATE TABLE t (id int4 PRIMARY KEY);\nINSERT INTO t VALUES (1);\n";
    assert_eq!(run(&format!("{tables}CREATE MATERIALIZED VIEW v AS SELECT id FROM t;\nDELETE FROM t;\n")), None);
    let found = run(&format!("{tables}CREATE MATERIALIZED VIEW v AS SELECT id FROM nothing;\n")).unwrap();
    assert!(found.kind.starts_with("error 42P01"), "{found:?}");
}
