//! The engine as a session sees it, over the connectors that need no other system.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::ScalarUDF;
use futures::StreamExt;
use tidewire_engine::{Components, Engine, Outcome, Session, Settings, SystemContext, SystemSchemas};
use tidewire_sql::ast;
use tidewire_types::{Result, SqlState};

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
            Outcome::Empty => {}
        }
    }
    Ok(shown)
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
