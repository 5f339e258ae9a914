//! `EXPLAIN (STATE)` before a view is created, beside what it takes then.
#![expect(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: what fails here fails it")]

use tidewire_engine::Settings;
use tidewire_testkit::database::Database;
use tidewire_testkit::server::Server;

/// `name=<number>` of the line that begins so.
fn number(lines: &str, line: &str, name: &str) -> f64 {
    let line = lines.lines().find(|l| l.contains(line)).unwrap_or_else(|| panic!("no {line} in {lines}"));
    let (_, rest) = line.split_once(&format!("{name}=")).unwrap();
    rest.split(',').next().unwrap().trim().parse().unwrap()
}

async fn explain(db: &mut Box<dyn Database>, sql: &str) -> String {
    let lines = db.run(sql).await.unwrap_or_else(|e| panic!("{e} at {sql}"));
    lines.rows.iter().map(|row| row[0].clone().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_estimate_is_near_what_the_view_takes() {
    let server = Server::start(Settings { n_shards: 1, ..Settings::default() }).unwrap();
    let mut db = server.client().await.unwrap();
    db.run(
        "CREATE TABLE orders (id BIGINT, customer BIGINT, kind BIGINT); CREATE TABLE customers (id BIGINT, name TEXT);
            INSERT INTO orders SELECT n, n * 7919 % 5000, n % 10 FROM generate_series(1, 200000) AS s(n);
            INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(0, 4999) AS s(n)",
    )
    .await
    .unwrap();
    for (query, operator, rows_within, bytes_within) in [
        ("SELECT kind, count(*) AS n FROM orders GROUP BY kind", "Aggregate", 1.1, 3.0),
        ("SELECT customer, count(*) AS n FROM orders GROUP BY customer", "Aggregate", 1.6, 3.0),
        // The keys of a sample are far from each other; those of all rows are not, and are in arrays.
        ("SELECT id, sum(kind) AS s FROM orders GROUP BY id", "Aggregate", 1.1, 2.5),
        ("SELECT o.id, c.name FROM orders o JOIN customers c ON o.customer = c.id", "Join", 1.1, 2.0),
    ] {
        let estimated = explain(&mut db, &format!("EXPLAIN (STATE) CREATE MATERIALIZED VIEW v AS {query}")).await;
        assert!(estimated.contains("of 200000 rows of"), "{estimated}");
        assert_eq!(estimated, explain(&mut db, &format!("EXPLAIN (STATE) {query}")).await, "the same each time");
        db.run(&format!("CREATE MATERIALIZED VIEW v AS {query}")).await.unwrap();
        let actual = explain(&mut db, "EXPLAIN ANALYZE MATERIALIZED VIEW v").await;
        db.run("DROP MATERIALIZED VIEW v").await.unwrap();
        let actual = actual.rsplit_once("\n\n").unwrap().1;
        let lines = estimated.rsplit_once("\n\n").unwrap().1;
        let near = |is: f64, should: f64, within: f64| is <= should * within && is * within >= should;
        let (rows, should) = (number(lines, operator, "state_rows"), number(actual, operator, "state_rows"));
        assert!(near(rows, should, rows_within), "{query}: {rows} rows are estimated, {should} are kept");
        let (bytes, should) = (number(lines, "Total", "state_bytes"), number(actual, "Total", "state_bytes"));
        assert!(near(bytes, should, bytes_within), "{query}: {bytes} bytes are estimated, {should} are kept");
    }
    let pairs = explain(&mut db, "EXPLAIN (STATE) SELECT o.id, c.name FROM orders o, customers c").await;
    let rows = number(&pairs, "View", "state_rows");
    assert!((5e8..2e9).contains(&rows), "{pairs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_estimated_is_told() {
    let server = Server::start(Settings::default()).unwrap();
    let mut db = server.client().await.unwrap();
    db.run("CREATE SOURCE s (n BIGINT) WITH (connector = 'generator', rows = '10'); CREATE TABLE t (a BIGINT)")
        .await
        .unwrap();
    let lines = explain(&mut db, "EXPLAIN (STATE) SELECT n, count(*) FROM s JOIN t ON a = n GROUP BY n").await;
    assert!(lines.contains("Nothing is known of source") && lines.contains("All 0 rows of"), "{lines}");
    assert_eq!(db.run("EXPLAIN (STATE) INSERT INTO t VALUES (1)").await.unwrap_err().code, "0A000");
    assert_eq!(db.run("EXPLAIN (STATE) SELECT * FROM missing").await.unwrap_err().code, "42P01");
}
