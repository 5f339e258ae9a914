//! Views that run a part of their plans once: each stays its query, whatever becomes of the others.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test: what fails here fails it")]

use std::time::Duration;

use tidewire_engine::Settings;
use tidewire_testkit::memory::Stored;
use tidewire_testkit::server::{End, Server};

/// `totals` and `largest` have a join in common, `few` has all of `totals` below its filter.
const VIEWS: [(&str, &str); 3] = [
    ("totals", "SELECT u.name, sum(t.v) AS s FROM t JOIN u ON t.k = u.k GROUP BY u.name"),
    ("largest", "SELECT u.name, max(t.v) AS m FROM t JOIN u ON t.k = u.k GROUP BY u.name"),
    (
        "few",
        "SELECT name AS n, s AS total FROM
             (SELECT b.name, sum(a.v) AS s FROM t AS a JOIN u AS b ON a.k = b.k GROUP BY b.name) AS x WHERE s > 40",
    ),
];

fn settings() -> Settings {
    Settings { checkpoint_interval: Duration::from_secs(3600), ..Settings::default() }
}

async fn rows(server: &Server, sql: &str) -> Vec<String> {
    let mut db = server.client().await.unwrap();
    let found = db.run(sql).await.unwrap_or_else(|e| panic!("{e} at {sql}")).rows;
    let cell = |cell: Option<String>| cell.unwrap_or_else(|| "NULL".into());
    found.into_iter().map(|row| row.into_iter().map(cell).collect::<Vec<_>>().join("|")).collect()
}

async fn create(server: &Server, view: &str) {
    let (_, query) = VIEWS.iter().find(|(name, _)| *name == view).unwrap();
    rows(server, &format!("CREATE MATERIALIZED VIEW {view} AS {query}")).await;
}

async fn start(views: &[&str]) -> Server {
    let server = Server::start_on_disk(settings()).await.unwrap();
    rows(&server, "CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT, v BIGINT)").await;
    rows(&server, "CREATE TABLE u (k BIGINT, name TEXT)").await;
    rows(&server, "INSERT INTO u VALUES (0, 'a'), (1, 'b'), (2, 'b'), (2, 'c'), (9, 'd')").await;
    rows(&server, "INSERT INTO t SELECT n, n % 4, n FROM generate_series(1, 20) AS g(n)").await;
    for view in views {
        create(&server, view).await;
    }
    server
}

/// Rows that come, change and go, on both sides of the join.
async fn change(server: &Server, round: i64) {
    rows(
        server,
        &format!("INSERT INTO t SELECT n, n % 4, n FROM generate_series({0}, {0} + 9) AS g(n)", 100 + round * 10),
    )
    .await;
    rows(server, &format!("UPDATE t SET v = v + 1, k = (k + 1) % 4 WHERE id % 7 = {}", round % 7)).await;
    rows(server, &format!("DELETE FROM t WHERE id % 11 = {}", round % 11)).await;
    rows(server, &format!("INSERT INTO u VALUES ({}, 'e')", round % 4)).await;
    rows(server, &format!("DELETE FROM u WHERE k = {} AND name = 'b'", round % 3)).await;
}

async fn check(server: &Server, when: &str) {
    let present = rows(server, "SELECT name FROM tidewire.materialized_views WHERE state = 'running'").await;
    for (view, query) in VIEWS.iter().filter(|(name, _)| present.iter().any(|p| p == name)) {
        let mut batch = rows(server, query).await;
        let mut kept = rows(server, &format!("SELECT * FROM {view}")).await;
        batch.sort();
        kept.sort();
        assert_eq!(kept, batch, "{view} {when}");
    }
}

async fn shared(server: &Server, view: &str) -> Vec<String> {
    let plan = rows(server, &format!("EXPLAIN MATERIALIZED VIEW {view}")).await;
    let of_line = |line: &String| {
        let (operator, others) = (line.trim().split(':').next()?, line.split("shared with ").nth(1)?);
        Some(format!("{operator}: {others}"))
    };
    plan.iter().filter_map(of_line).collect()
}

const ORIGINS: &str = "SELECT name, origin FROM tidewire.materialized_views ORDER BY name";

#[tokio::test]
async fn explain_tells_what_is_shared_and_state_counts_once() {
    let server = start(&["totals"]).await;
    assert_eq!(shared(&server, "totals").await, Vec::<String>::new());
    let bytes = "SELECT sum(state_bytes)::bigint FROM tidewire.operators";
    let joins = "SELECT sum(state_rows)::bigint FROM tidewire.operators WHERE description LIKE '%Join%'";
    let before = rows(&server, joins).await;
    create(&server, "largest").await;
    create(&server, "few").await;
    assert_eq!(shared(&server, "totals").await, ["IncrementalAggregateExec: few"]);
    assert_eq!(shared(&server, "few").await, ["IncrementalAggregateExec: totals"]);
    assert_eq!(shared(&server, "largest").await, ["IncrementalJoinExec: totals, few"]);
    assert_eq!(rows(&server, joins).await, before, "one join runs");
    assert_ne!(rows(&server, bytes).await, ["0"]);
    check(&server, "at once").await;
    change(&server, 0).await;
    check(&server, "changed").await;
    // What shares with nobody any more runs on.
    rows(&server, "DROP MATERIALIZED VIEW totals").await;
    rows(&server, "DROP MATERIALIZED VIEW largest").await;
    assert_eq!(shared(&server, "few").await, Vec::<String>::new());
    change(&server, 1).await;
    check(&server, "alone").await;
    rows(&server, "DROP MATERIALIZED VIEW few").await;
    assert_eq!(rows(&server, "SELECT count(*) FROM tidewire.operators").await, ["0"]);
    rows(&server, "DROP TABLE t").await;
    server.shutdown().await;
}

#[tokio::test]
async fn views_that_share_come_back_with_what_they_share() {
    let mut server = start(&["totals"]).await;
    let mut rounds = 0..;
    let mut round = || rounds.next().unwrap();
    // What moves to a shared plan is in the checkpoint already, or only in memory, or in part.
    for (view, with_checkpoint) in [("largest", true), ("few", false)] {
        change(&server, round()).await;
        if with_checkpoint {
            server.engine.checkpoint().await.unwrap();
            change(&server, round()).await;
        }
        create(&server, view).await;
        for end in [End::Killed, End::Graceful, End::Killed] {
            change(&server, round()).await;
            server.engine.checkpoint().await.unwrap();
            change(&server, round()).await;
            server.restart(end).await.unwrap();
            let origins = rows(&server, ORIGINS).await;
            assert!(origins.iter().all(|view| view.ends_with("|restored")), "{origins:?}");
            check(&server, "restored").await;
            change(&server, round()).await;
            check(&server, "changed behind it").await;
        }
    }
    assert_eq!(shared(&server, "totals").await, ["IncrementalAggregateExec: few"]);
    assert_eq!(shared(&server, "largest").await, ["IncrementalJoinExec: totals, few"]);
    // Killed behind a DROP that no checkpoint has, and before any checkpoint of a view.
    rows(&server, "DROP MATERIALIZED VIEW totals").await;
    server.restart(End::Killed).await.unwrap();
    assert_eq!(rows(&server, ORIGINS).await, ["few|restored", "largest|restored"]);
    create(&server, "totals").await;
    change(&server, round()).await;
    server.restart(End::Killed).await.unwrap();
    assert_eq!(rows(&server, ORIGINS).await, ["few|restored", "largest|restored", "totals|rebuilt"]);
    assert_eq!(
        shared(&server, "totals").await,
        ["IncrementalAggregateExec: few"],
        "one that is built again shares too"
    );
    check(&server, "one built again").await;
    rows(&server, "DELETE FROM t").await;
    check(&server, "everything deleted").await;
    server.shutdown().await;
}

#[tokio::test]
async fn views_that_share_are_dropped_in_any_order() {
    for created in [["totals", "largest", "few"], ["few", "totals", "largest"], ["largest", "few", "totals"]] {
        for dropped in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            let mut server = start(&created).await;
            check(&server, "created").await;
            for (round, idx) in (0..).zip(dropped) {
                if round == 1 {
                    server.engine.checkpoint().await.unwrap();
                }
                rows(&server, &format!("DROP MATERIALIZED VIEW {}", created[idx])).await;
                change(&server, round).await;
                check(&server, "dropped").await;
                if round == 1 {
                    server.restart(End::Killed).await.unwrap();
                    check(&server, "dropped and started again").await;
                }
            }
            rows(&server, "DROP TABLE t").await;
            rows(&server, "DROP TABLE u").await;
            server.shutdown().await;
        }
    }
}

#[tokio::test]
async fn a_view_that_fails_leaves_the_others_what_they_share() {
    let mut server = start(&["totals", "largest"]).await;
    rows(&server, "CREATE TABLE one (n BIGINT)").await;
    rows(&server, "DROP MATERIALIZED VIEW totals").await;
    let failing = "WITH RECURSIVE r AS (SELECT n FROM one UNION ALL SELECT n FROM r)
        SELECT u.name, sum(t.v) + (SELECT count(*) FROM r) AS s FROM t JOIN u ON t.k = u.k GROUP BY u.name";
    rows(&server, &format!("CREATE MATERIALIZED VIEW failing AS {failing}")).await;
    create(&server, "totals").await;
    assert_eq!(shared(&server, "failing").await, ["IncrementalAggregateExec: totals"]);
    server.engine.checkpoint().await.unwrap();
    // Without end.
    rows(&server, "INSERT INTO one VALUES (1)").await;
    let states = "SELECT name, state FROM tidewire.materialized_views ORDER BY name";
    assert_eq!(rows(&server, states).await, ["failing|failed", "largest|running", "totals|running"]);
    assert_eq!(shared(&server, "largest").await, ["IncrementalJoinExec: totals"], "a view that failed runs nothing");
    change(&server, 0).await;
    check(&server, "after the failure").await;
    server.engine.checkpoint().await.unwrap();
    change(&server, 1).await;
    server.restart(End::Killed).await.unwrap();
    check(&server, "after a start").await;
    rows(&server, "DROP MATERIALIZED VIEW failing").await;
    change(&server, 2).await;
    check(&server, "without it").await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_row_that_fails_is_a_dead_letter_of_each_view() {
    let server = start(&[]).await;
    for view in ["p", "q"] {
        rows(&server, &format!("CREATE MATERIALIZED VIEW {view} AS SELECT k, sum(100 / v) AS s FROM t GROUP BY k"))
            .await;
    }
    assert_eq!(shared(&server, "p").await, ["IncrementalAggregateExec: q"]);
    rows(&server, "INSERT INTO t VALUES (50, 1, 0)").await;
    assert_eq!(rows(&server, "SELECT object FROM tidewire.dead_letters ORDER BY object").await, ["p", "q"]);
    server.shutdown().await;
}

#[tokio::test]
async fn views_over_a_source_share_when_they_have_read_the_same() {
    let mut server = Server::start_on_disk(settings()).await.unwrap();
    let with = "WITH (connector = 'memory', topic = 'topic', splits = '2') FORMAT PLAIN ENCODE JSON";
    rows(&server, &format!("CREATE SOURCE s (k BIGINT, n BIGINT) {with}")).await;
    let produce = |server: &Server, from: i64| {
        let record = |n: i64| Stored::of_value(format!(r#"{{"k": {}, "n": {n}}}"#, n % 3));
        server.memory.append("topic", (from % 2) as u32, (from..from + 10).map(record));
    };
    produce(&server, 0);
    rows(&server, "CREATE MATERIALIZED VIEW p AS SELECT k, sum(n) AS s FROM s GROUP BY k").await;
    produce(&server, 11);
    server.caught_up().await.unwrap();
    server.engine.checkpoint().await.unwrap();
    produce(&server, 20);
    server.restart(End::Killed).await.unwrap();
    produce(&server, 31);
    rows(&server, "CREATE MATERIALIZED VIEW q AS SELECT k AS key, sum(n) + 1 AS more FROM s GROUP BY k").await;
    assert_eq!(shared(&server, "q").await, ["IncrementalAggregateExec: p"]);
    let equal = "SELECT count(*) FROM p JOIN q ON p.k = q.key AND p.s + 1 = q.more";
    for end in [End::Killed, End::Graceful] {
        produce(&server, 40);
        server.caught_up().await.unwrap();
        assert_eq!(rows(&server, equal).await, ["3"]);
        server.engine.checkpoint().await.unwrap();
        produce(&server, 51);
        server.restart(end).await.unwrap();
        server.caught_up().await.unwrap();
        assert_eq!(rows(&server, ORIGINS).await, ["p|restored", "q|restored"]);
        assert_eq!(rows(&server, equal).await, ["3"]);
        assert_eq!(shared(&server, "q").await, ["IncrementalAggregateExec: p"]);
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_view_with_a_limit_or_without_exact_rows_runs_its_own() {
    let server = start(&["totals"]).await;
    let (_, query) = VIEWS[0];
    rows(&server, &format!("CREATE MATERIALIZED VIEW limited WITH (memory_limit = '1GB') AS {query}")).await;
    assert_eq!(shared(&server, "limited").await, Vec::<String>::new());
    for view in ["x", "y"] {
        let query = "SELECT k, sum(v::float8) AS s FROM t GROUP BY k";
        rows(&server, &format!("CREATE MATERIALIZED VIEW {view} AS {query}")).await;
    }
    assert_eq!(
        shared(&server, "x").await,
        Vec::<String>::new(),
        "a sum of floating point numbers depends on the order"
    );
    server.shutdown().await;
}
