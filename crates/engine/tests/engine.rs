//! The engine as a session sees it, over the connectors that need no other system.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::ScalarUDF;
use futures::StreamExt;
use tidewire_engine::{Components, Engine, Outcome, Prepared, Session, Settings, SystemContext, SystemSchemas};
use tidewire_sql::ast;
use tidewire_types::{Result, SqlState, SqlType};

struct NoSystem;

impl SystemSchemas for NoSystem {
    fn table(&self, _: &str, _: &str, _: &SystemContext) -> Option<Arc<dyn TableProvider>> {
        None
    }
    fn names(&self) -> Vec<(String, String)> {
        vec![]
    }
    fn rewrite(&self, _: &mut ast::Query, _: &SystemContext) {}
    fn functions(&self, _: &SystemContext) -> Vec<Arc<ScalarUDF>> {
        vec![]
    }
}

fn engine(settings: Settings) -> Arc<Engine> {
    let components = Components::new(tidewire_connect::CONNECTORS, Arc::new(NoSystem));
    Engine::start(settings, components).unwrap()
}

async fn run(session: &mut Session, sql: &str) -> Result<String> {
    let mut shown = String::new();
    for parsed in tidewire_sql::parse(sql)? {
        let prepared = session.prepare(parsed, &[]).await?;
        match session.execute(&prepared, vec![]).await? {
            Outcome::Rows { rows, .. } => {
                let batches = rows.collect::<Vec<_>>().await.into_iter().collect::<Result<Vec<_>>>()?;
                shown = pretty_format_batches(&batches).unwrap().to_string();
            }
            Outcome::Push { mut rows, .. } | Outcome::CopyOut { mut rows, .. } => {
                let first = rows.next().await.unwrap()?;
                shown = pretty_format_batches(&[first]).unwrap().to_string();
            }
            Outcome::Command { tag, .. } => shown = tag,
            Outcome::CopyIn(_) | Outcome::Empty => {}
        }
    }
    Ok(shown)
}

/// Runs a statement as a prepared one: the same one each time.
async fn bind(session: &mut Session, prepared: &Prepared, values: &[i64]) -> Result<String> {
    let values = values.iter().map(|value| ScalarValue::Int64(Some(*value))).collect();
    match session.execute(prepared, values).await? {
        Outcome::Rows { rows, .. } => {
            let batches = rows.collect::<Vec<_>>().await.into_iter().collect::<Result<Vec<_>>>()?;
            Ok(pretty_format_batches(&batches).unwrap().to_string())
        }
        Outcome::Command { tag, .. } => Ok(tag),
        _ => Ok(String::new()),
    }
}

async fn prepare(session: &mut Session, sql: &str) -> Prepared {
    session.prepare(tidewire_sql::parse(sql).unwrap().remove(0), &[]).await.unwrap()
}

const BIDS: &str = "CREATE SOURCE bids WITH (connector = 'nexmark', table.type = 'bid', rows = '20000', splits = '2')";

#[tokio::test]
async fn a_view_over_a_source_is_its_query() {
    let engine = engine(Settings { n_shards: 2, parallel_rows_min: 1000, ..Settings::default() });
    let mut s = engine.session("u", "tidewire");
    run(&mut s, BIDS).await.unwrap();
    run(&mut s, "CREATE MATERIALIZED VIEW v AS SELECT auction, count(*) AS n, sum(price) AS total, max(price) AS top FROM bids GROUP BY auction").await.unwrap();
    run(&mut s, "CREATE MATERIALIZED VIEW big AS SELECT * FROM v WHERE n > 100").await.unwrap();
    let view = run(&mut s, "SELECT * FROM v ORDER BY auction").await.unwrap();
    let batch = run(&mut s, "SELECT auction, count(*) AS n, sum(price) AS total, max(price) AS top FROM bids GROUP BY auction ORDER BY auction").await.unwrap();
    assert_eq!(view, batch);
    let sum = run(&mut s, "SELECT sum(n) AS n FROM v").await.unwrap();
    assert!(sum.contains("20000"), "{sum}");
    let big = run(&mut s, "SELECT * FROM big ORDER BY auction").await.unwrap();
    assert_eq!(big, run(&mut s, "SELECT * FROM v WHERE n > 100 ORDER BY auction").await.unwrap());
    let error = run(&mut s, "DROP MATERIALIZED VIEW v").await.unwrap_err();
    assert_eq!(error.state(), SqlState::DependentObjectsStillExist);
    run(&mut s, "DROP MATERIALIZED VIEW v CASCADE").await.unwrap();
    assert_eq!(run(&mut s, "SELECT * FROM big").await.unwrap_err().state(), SqlState::UndefinedTable);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_view_made_later_counts_each_record_once() {
    let engine = engine(Settings::default());
    let mut s = engine.session("u", "tidewire");
    run(
        &mut s,
        "CREATE SOURCE g (id BIGINT, k INT) WITH (connector = 'generator', rows = '30000', rows.per.second = '60000', splits = '2')",
    )
    .await
    .unwrap();
    run(&mut s, "CREATE MATERIALIZED VIEW a AS SELECT count(*) AS n, sum(k) AS t FROM g").await.unwrap();
    // Joins the reader that runs for the first view, with a column more.
    run(&mut s, "CREATE MATERIALIZED VIEW b AS SELECT count(id) AS n, sum(k) AS t FROM g").await.unwrap();
    let mut follower = engine.session("u", "tidewire");
    let parsed = tidewire_sql::parse("SUBSCRIBE TO b").unwrap().pop().unwrap();
    let prepared = follower.prepare(parsed, &[]).await.unwrap();
    let Outcome::Push { mut rows, .. } = follower.execute(&prepared, vec![]).await.unwrap() else { panic!("no push") };
    let all = async {
        while let Some(batch) = rows.next().await {
            if pretty_format_batches(&[batch.unwrap()]).unwrap().to_string().contains("| 30000 |") {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), all).await.unwrap();
    let (a, b) = (run(&mut s, "SELECT * FROM a").await.unwrap(), run(&mut s, "SELECT * FROM b").await.unwrap());
    assert_eq!(a, b);
    drop(rows);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_view_shows_each_write_when_it_returns() {
    let engine = engine(Settings { n_shards: 2, ..Settings::default() });
    let mut s = engine.session("u", "tidewire");
    run(&mut s, "CREATE TABLE t (id TEXT PRIMARY KEY, k INT NOT NULL, opened DATE DEFAULT '2026-01-01')")
        .await
        .unwrap();
    run(&mut s, "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n FROM t GROUP BY k").await.unwrap();
    run(&mut s, "CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, max(id) AS last FROM t").await.unwrap();
    assert_eq!(run(&mut s, "INSERT INTO t (id, k) VALUES ('a', 1), ('b', 1), ('c', 2)").await.unwrap(), "INSERT 0 3");
    let both = "SELECT k, n, (SELECT n FROM total) AS total FROM v ORDER BY k";
    let expected = "+---+---+-------+\n| k | n | total |\n+---+---+-------+\n| 1 | 2 | 3     |\n| 2 | 1 | 3     |\n+---+---+-------+";
    assert_eq!(run(&mut s, both).await.unwrap(), expected);
    assert_eq!(run(&mut s, "UPDATE t SET k = k + 1 WHERE id = 'a'").await.unwrap(), "UPDATE 1");
    assert_eq!(run(&mut s, "DELETE FROM t WHERE id = 'b'").await.unwrap(), "DELETE 1");
    let state = |e: Result<String>| e.unwrap_err().state();
    assert_eq!(state(run(&mut s, "INSERT INTO t VALUES ('x', 1), ('a', 1)").await), SqlState::UniqueViolation);
    assert_eq!(state(run(&mut s, "INSERT INTO t (id) VALUES ('x')").await), SqlState::NotNullViolation);
    let upsert = "INSERT INTO t VALUES ('a', 7) ON CONFLICT (id) DO UPDATE SET k = excluded.k + t.k RETURNING k";
    assert!(run(&mut s, upsert).await.unwrap().contains("| 9 |"));
    let expected = "+---+---+-------+\n| k | n | total |\n+---+---+-------+\n| 2 | 1 | 2     |\n| 9 | 1 | 2     |\n+---+---+-------+";
    assert_eq!(run(&mut s, both).await.unwrap(), expected);
    run(&mut s, "BEGIN").await.unwrap();
    run(&mut s, "INSERT INTO t VALUES ('p', 5)").await.unwrap();
    run(&mut s, "INSERT INTO t VALUES ('a', 5)").await.unwrap();
    assert_eq!(state(run(&mut s, "SELECT * FROM v").await), SqlState::FeatureNotSupported);
    assert_eq!(state(run(&mut s, "COMMIT").await), SqlState::UniqueViolation);
    assert_eq!(run(&mut s, both).await.unwrap(), expected);
    run(&mut s, "TRUNCATE t").await.unwrap();
    assert!(run(&mut s, "SELECT * FROM total").await.unwrap().contains("| 0 |"));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_slow_subscriber_is_cut_off_and_nobody_else_waits() {
    let engine = engine(Settings { subscription_buffer_bytes_max: 4096, ..Settings::default() });
    let mut s = engine.session("u", "tidewire");
    run(&mut s, "CREATE TABLE t (id BIGINT, name TEXT)").await.unwrap();
    let mut slow = engine.session("u", "tidewire");
    let parsed = tidewire_sql::parse("SUBSCRIBE TO t").unwrap().pop().unwrap();
    let prepared = slow.prepare(parsed, &[]).await.unwrap();
    let Outcome::Push { mut rows, .. } = slow.execute(&prepared, vec![]).await.unwrap() else { panic!("no push") };
    for id in 0..100 {
        run(&mut s, &format!("INSERT INTO t VALUES ({id}, 'some text that is longer than a view holds inline')"))
            .await
            .unwrap();
    }
    let mut n_rows = 0;
    let error = loop {
        match rows.next().await.unwrap() {
            Ok(batch) => n_rows += batch.num_rows(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.state(), SqlState::ProgramLimitExceeded);
    assert!(n_rows < 100);
    assert!(rows.next().await.is_none());
    assert!(run(&mut s, "SELECT count(*) FROM t").await.unwrap().contains("| 100 "));
    engine.shutdown().await;
}

#[tokio::test]
async fn while_a_view_has_no_value_nobody_reads_or_follows_it() {
    let engine = engine(Settings { n_shards: 2, ..Settings::default() });
    let mut s = engine.session("u", "tidewire");
    run(&mut s, "CREATE TABLE t (id BIGINT PRIMARY KEY); CREATE TABLE one (v INT)").await.unwrap();
    run(&mut s, "CREATE MATERIALIZED VIEW v AS SELECT id, (SELECT v FROM one) AS v FROM t").await.unwrap();
    run(&mut s, "CREATE INDEX by_id ON v (id)").await.unwrap();
    run(&mut s, "INSERT INTO t VALUES (1), (2); INSERT INTO one VALUES (5)").await.unwrap();
    let by_key = prepare(&mut s, "SELECT v FROM v WHERE id = $1").await;
    assert!(bind(&mut s, &by_key, &[1]).await.unwrap().contains("| 5 "));
    let followed = [
        "SUBSCRIBE TO v",
        "SELECT id FROM v WHERE v > 1 EMIT CHANGES",
        "SELECT id FROM t WHERE id < (SELECT v FROM one) EMIT CHANGES",
    ];
    let mut followers = vec![];
    for sql in followed {
        let mut session = engine.session("u", "tidewire");
        let prepared = prepare(&mut session, sql).await;
        let Outcome::Push { mut rows, .. } = session.execute(&prepared, vec![]).await.unwrap() else {
            panic!("no push")
        };
        assert_eq!(rows.next().await.unwrap().unwrap().num_rows(), 2);
        followers.push((session, prepared, rows));
    }
    run(&mut s, "INSERT INTO one VALUES (6)").await.unwrap();
    let state = |result: Result<String>| result.unwrap_err().state();
    assert_eq!(state(run(&mut s, "SELECT * FROM v").await), SqlState::CardinalityViolation);
    assert_eq!(state(bind(&mut s, &by_key, &[1]).await), SqlState::CardinalityViolation);
    for (session, prepared, rows) in &mut followers {
        let error = loop {
            if let Err(error) = rows.next().await.unwrap() {
                break error;
            }
        };
        assert_eq!(error.state(), SqlState::CardinalityViolation);
        assert!(rows.next().await.is_none());
        let again = match session.execute(prepared, vec![]).await {
            Ok(Outcome::Push { mut rows, .. }) => rows.next().await.unwrap().map(|_| ()),
            other => other.map(|_| ()),
        };
        assert_eq!(again.unwrap_err().state(), SqlState::CardinalityViolation);
    }
    // Others go on, and it does too.
    run(&mut s, "INSERT INTO t VALUES (3)").await.unwrap();
    run(&mut s, "DELETE FROM one WHERE v = 5").await.unwrap();
    assert!(bind(&mut s, &by_key, &[3]).await.unwrap().contains("| 6 "));
    for (session, prepared, _) in &mut followers {
        let Outcome::Push { mut rows, .. } = session.execute(prepared, vec![]).await.unwrap() else {
            panic!("no push")
        };
        assert_eq!(rows.next().await.unwrap().unwrap().num_rows(), 3);
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn a_name_is_taken_while_its_view_is_built_and_a_dropped_future_cancels_it() {
    let engine = engine(Settings::default());
    let mut s = engine.session("u", "tidewire");
    // Unbounded in time: the build reads a source that never reaches its end before it is cancelled.
    run(&mut s, "CREATE SOURCE g (id BIGINT) WITH (connector = 'generator', rows = '1000000', rows.per.second = '10')")
        .await
        .unwrap();
    run(&mut s, "SET background_ddl = on").await.unwrap();
    run(&mut s, "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM g").await.unwrap();
    let jobs = run(&mut s, "SHOW JOBS").await.unwrap();
    assert!(jobs.contains("| v"), "{jobs}");
    run(&mut s, "DROP MATERIALIZED VIEW IF EXISTS v").await.unwrap();
    engine.shutdown().await;
}

/// The plan of a prepared write outlives what others write and what becomes of its table.
#[tokio::test]
async fn a_prepared_write_sees_each_moment() {
    let engine = engine(Settings::default());
    let mut s = engine.session("u", "tidewire");
    let mut other = engine.session("u", "tidewire");
    let table = "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT, w BIGINT DEFAULT 7, s TEXT DEFAULT 'x' || 'y')";
    run(&mut s, table).await.unwrap();
    let insert = prepare(&mut s, "INSERT INTO t VALUES ($1, $2)").await;
    let returning =
        prepare(&mut s, "INSERT INTO t (v, id) VALUES ($2, $1::bigint + 100) RETURNING id + v AS sum, s").await;
    let copied = prepare(&mut s, "INSERT INTO t SELECT id + $1, v FROM t WHERE id = $2").await;
    let update = prepare(&mut s, "UPDATE t SET v = v + $2 WHERE id = $1").await;
    let delete = prepare(&mut s, "DELETE FROM t WHERE id = $1 RETURNING v").await;
    assert_eq!(insert.parameters, [SqlType::Int8, SqlType::Int8]);
    let all = "SELECT * FROM t ORDER BY id";
    for round in 1..4 {
        assert_eq!(bind(&mut s, &insert, &[1, 10]).await.unwrap(), "INSERT 0 1");
        assert_eq!(bind(&mut s, &insert, &[1, 10]).await.unwrap_err().state(), SqlState::UniqueViolation);
        assert_eq!(run(&mut other, "UPDATE t SET v = 20 WHERE id = 1").await.unwrap(), "UPDATE 1");
        assert_eq!(bind(&mut s, &update, &[1, 3]).await.unwrap(), "UPDATE 1");
        assert_eq!(bind(&mut s, &update, &[2, 3]).await.unwrap(), "UPDATE 0");
        assert_eq!(bind(&mut s, &copied, &[10, 1]).await.unwrap(), "INSERT 0 1");
        let row = bind(&mut s, &returning, &[1, round]).await.unwrap();
        assert!(row.contains(&format!("| {} | xy |", 101 + round)), "{row}");
        let shown = run(&mut s, all).await.unwrap();
        assert!(shown.contains("| 1   | 23 | 7 | xy |") && shown.contains("| 11  | 23 | 7 | xy |"), "{shown}");
        assert!(bind(&mut s, &delete, &[1]).await.unwrap().contains("| 23 |"));
        assert_eq!(run(&mut other, "DELETE FROM t WHERE id > 1").await.unwrap(), "DELETE 2");
        if round == 2 {
            // Another table of the same name.
            run(&mut other, "DROP TABLE t").await.unwrap();
            run(&mut other, table).await.unwrap();
        }
    }
    run(&mut other, "DROP TABLE t").await.unwrap();
    for (prepared, values) in [(&insert, &[1, 2][..]), (&update, &[1, 2]), (&delete, &[1])] {
        assert_eq!(bind(&mut s, prepared, values).await.unwrap_err().state(), SqlState::UndefinedTable);
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn a_default_that_depends_on_the_time_is_of_each_run() {
    let engine = engine(Settings::default());
    let mut s = engine.session("u", "tidewire");
    run(&mut s, "CREATE TABLE t (id BIGINT PRIMARY KEY, at TIMESTAMPTZ DEFAULT now())").await.unwrap();
    let insert = prepare(&mut s, "INSERT INTO t (id) VALUES ($1)").await;
    for id in 0..3 {
        bind(&mut s, &insert, &[id]).await.unwrap();
    }
    let again =
        "INSERT INTO t VALUES (1, NULL) ON CONFLICT (id) DO UPDATE SET at = now() RETURNING at > now() AS later";
    assert!(run(&mut s, again).await.unwrap().contains("| false |"));
    assert!(run(&mut s, "SELECT count(DISTINCT at) AS n FROM t").await.unwrap().contains("| 3 |"));
    assert!(run(&mut s, "SELECT count(*) AS n FROM t WHERE at > now()").await.unwrap().contains("| 0 |"));
    engine.shutdown().await;
}

#[tokio::test]
async fn rows_that_a_transaction_was_told_are_new_are_written_or_it_fails() {
    let engine = engine(Settings::default());
    let (mut a, mut b) = (engine.session("u", "tidewire"), engine.session("u", "tidewire"));
    run(&mut a, "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)").await.unwrap();
    let insert = "INSERT INTO t VALUES (1, 0), (2, 0) ON CONFLICT DO NOTHING";
    run(&mut a, "BEGIN").await.unwrap();
    assert_eq!(run(&mut a, insert).await.unwrap(), "INSERT 0 2");
    assert_eq!(run(&mut b, "INSERT INTO t VALUES (2, 7)").await.unwrap(), "INSERT 0 1");
    assert_eq!(run(&mut a, "COMMIT").await.unwrap_err().state(), SqlState::SerializationFailure);
    run(&mut a, "BEGIN").await.unwrap();
    assert_eq!(run(&mut a, insert).await.unwrap(), "INSERT 0 1");
    // What was there when the statement ran may go: that changes nothing of what the client was told.
    assert_eq!(run(&mut b, "DELETE FROM t").await.unwrap(), "DELETE 1");
    run(&mut a, "COMMIT").await.unwrap();
    assert!(run(&mut a, "SELECT id FROM t").await.unwrap().contains("| 1  |"));
    // A table of many rows is read by its key.
    run(&mut a, "INSERT INTO t SELECT * FROM generate_series(10, 5000), (VALUES (0))").await.unwrap();
    for _ in 0..3 {
        run(&mut a, "BEGIN").await.unwrap();
        let insert = "INSERT INTO t VALUES (10, 1), (5001, 1), (5000, 1) ON CONFLICT DO NOTHING";
        assert_eq!(run(&mut a, insert).await.unwrap(), "INSERT 0 1");
        run(&mut a, "ROLLBACK").await.unwrap();
    }
    engine.shutdown().await;
}
