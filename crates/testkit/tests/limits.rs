//! Memory that runs out: the view that takes too much is stopped, the build fails alone, rows are refused, all else goes on.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: what fails here fails it")]

use tidewire_engine::Settings;
use tidewire_testkit::database::Database;
use tidewire_testkit::server::Server;

fn server(limit: usize) -> Server {
    Server::start(Settings { n_shards: 2, memory_limit: Some(limit), ..Settings::default() }).unwrap()
}

async fn number(db: &mut Box<dyn Database>, sql: &str) -> i64 {
    db.run(sql).await.unwrap().rows[0][0].as_deref().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_grows_too_large_is_stopped_and_all_else_goes_on() {
    let server = server(32 << 20);
    let mut db = server.client().await.unwrap();
    db.run("CREATE TABLE t (a BIGINT); CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM t;
            CREATE MATERIALIZED VIEW large AS SELECT x.a, count(*) AS n, array_agg(x.a) AS all_of FROM t x JOIN t y USING (a) GROUP BY x.a;
            CREATE MATERIALIZED VIEW above AS SELECT count(*) AS n FROM large")
        .await
        .unwrap();
    let mut n_rows = 0;
    let error = loop {
        let rows = format!("INSERT INTO t SELECT * FROM generate_series({n_rows}, {n_rows} + 9999)");
        db.run(&rows).await.unwrap();
        n_rows += 10_000;
        if let Err(error) = db.run("SELECT count(*) FROM large").await {
            break error;
        }
        assert!(n_rows < 2_000_000, "nothing is stopped");
    };
    assert_eq!(error.code, "53200", "{error}");
    let jobs = db.run("SHOW JOBS").await.unwrap();
    let text = format!("{:?}", jobs.rows);
    assert!(text.contains("large\\\" takes more memory than there is: Its state takes"), "{text}");
    assert_eq!(db.run("SELECT n FROM above").await.unwrap_err().code, "53200", "what stands on it is stopped too");
    assert_eq!(number(&mut db, "SELECT n FROM n").await, n_rows);
    db.run("INSERT INTO t VALUES (-1)").await.unwrap();
    assert_eq!(number(&mut db, "SELECT n FROM n").await, n_rows + 1, "its memory is free again");
    db.run("DROP MATERIALIZED VIEW above, large").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_by_mistake_fails_alone() {
    let server = server(64 << 20);
    let mut db = server.client().await.unwrap();
    db.run("CREATE TABLE t (a BIGINT); CREATE TABLE u (b BIGINT); CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM t").await.unwrap();
    db.run(
        "INSERT INTO t SELECT * FROM generate_series(1, 50000); INSERT INTO u SELECT * FROM generate_series(1, 50000)",
    )
    .await
    .unwrap();
    let error = db.run("CREATE MATERIALIZED VIEW pairs AS SELECT a, b FROM t, u").await.unwrap_err();
    assert_eq!(error.code, "53200", "{error}");
    assert!(error.to_string().contains("pairs"), "{error}");
    assert_eq!(db.run("SELECT * FROM pairs").await.unwrap_err().code, "42P01");
    // One that begins with nothing is stopped in the step of the epoch in which both sides meet.
    db.run("CREATE TABLE v (b BIGINT); CREATE MATERIALIZED VIEW later AS SELECT count(*) FROM t, v").await.unwrap();
    db.run("INSERT INTO v SELECT * FROM generate_series(1, 50000)").await.unwrap();
    assert_eq!(db.run("SELECT * FROM later").await.unwrap_err().code, "53200");
    assert_eq!(number(&mut db, "SELECT n FROM n").await, 50_000);
    db.run("CREATE TABLE w (b INT); CREATE MATERIALIZED VIEW series AS SELECT i FROM w, generate_series(1, b) AS s(i)")
        .await
        .unwrap();
    db.run("INSERT INTO w SELECT 100000 FROM generate_series(1, 200)").await.unwrap();
    let error = db.run("SELECT * FROM series").await.unwrap_err();
    assert_eq!(error.code, "53200", "{error}");
    assert_eq!(number(&mut db, "SELECT n FROM n").await, 50_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_has_its_own_limit() {
    let server = server(1 << 30);
    let mut db = server.client().await.unwrap();
    db.run(
        "CREATE TABLE t (a BIGINT);
            CREATE MATERIALIZED VIEW small WITH (memory_limit = '1MB') AS SELECT a, count(*) AS n FROM t GROUP BY a;
            CREATE MATERIALIZED VIEW same AS SELECT a, count(*) AS n FROM t GROUP BY a",
    )
    .await
    .unwrap();
    db.run("INSERT INTO t SELECT * FROM generate_series(1, 100)").await.unwrap();
    assert_eq!(number(&mut db, "SELECT count(*) FROM small").await, 100);
    db.run("INSERT INTO t SELECT * FROM generate_series(101, 100000)").await.unwrap();
    assert_eq!(db.run("SELECT count(*) FROM small").await.unwrap_err().code, "53200");
    assert_eq!(number(&mut db, "SELECT count(*) FROM same").await, 100_000);
    let build =
        "CREATE MATERIALIZED VIEW other WITH (memory_limit = '1MB') AS SELECT a, count(*) AS n FROM t GROUP BY a";
    assert_eq!(db.run(build).await.unwrap_err().code, "53200");
    assert_eq!(db.run("REFRESH MATERIALIZED VIEW small").await.unwrap_err().code, "53200");
    assert_eq!(db.run("SELECT count(*) FROM small").await.unwrap_err().code, "53200", "it stays as it was");
    db.run("DELETE FROM t WHERE a > 1000; REFRESH MATERIALIZED VIEW small; INSERT INTO t VALUES (0)").await.unwrap();
    assert_eq!(number(&mut db, "SELECT count(*) FROM small").await, 1001);
    let wrong = "CREATE MATERIALIZED VIEW other WITH (memory_limit = 'much') AS SELECT a FROM t";
    assert_eq!(db.run(wrong).await.unwrap_err().code, "22023");
    let wrong = "CREATE MATERIALIZED VIEW other WITH (speed = 'high') AS SELECT a FROM t";
    assert_eq!(db.run(wrong).await.unwrap_err().code, "0A000");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_refused_and_can_be_deleted() {
    // Some segments of rows: the last one of a table is not let go before it is full.
    let server = server(40 << 20);
    let mut db = server.client().await.unwrap();
    db.run("CREATE TABLE t (a BIGINT, b TEXT)").await.unwrap();
    let mut n_done = 0;
    let error = loop {
        let from = n_done * 10_000;
        let rows = format!("INSERT INTO t SELECT {from} + n, repeat('x', 100) FROM generate_series(1, 10000) AS s(n)");
        match db.run(&rows).await {
            Ok(_) => n_done += 1,
            Err(error) => break error,
        }
        assert!(n_done < 100, "nothing is refused");
    };
    assert_eq!(error.code, "53200", "{error}");
    assert_eq!(number(&mut db, "SELECT count(*) FROM t").await, n_done * 10_000);
    let error = db.run("UPDATE t SET b = repeat('y', 200)").await.unwrap_err();
    assert_eq!(error.code, "53200", "{error}");
    db.run("DELETE FROM t").await.unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    // The rows' memory is free when nobody reads them any more.
    while let Err(error) = db.run("INSERT INTO t VALUES (1, 'x')").await {
        assert_eq!(error.code, "53200");
        assert!(std::time::Instant::now() < deadline, "nothing can be written after all was deleted");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_needs_too_much_fails_alone() {
    let server = server(8 << 20);
    let mut db = server.client().await.unwrap();
    let query = "SELECT count(*) FROM (SELECT n, count(*) FROM generate_series(1, 1000000) AS s(n) GROUP BY n) AS q";
    let error = db.run(query).await.unwrap_err();
    assert_eq!(error.code, "53200", "{error}");
    assert_eq!(number(&mut db, "SELECT 1").await, 1);
}
