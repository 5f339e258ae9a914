//! The engine as a session sees it, over the connectors that need no other system.

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
    let components = Components { connectors: tidewire_connect::CONNECTORS, system: Arc::new(NoSystem) };
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
            Outcome::Push { mut rows, .. } => {
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
            if pretty_format_batches(&[batch.unwrap()]).unwrap().to_string().contains("30000") {
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
