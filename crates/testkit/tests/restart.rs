//! What a start finds: where sources begin, dead letters, views that cannot be built; and what a bad disk does.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test: what fails here fails it")]

use std::time::Duration;

use tidewire_engine::Settings;
use tidewire_testkit::database::{Database, InProcess};
use tidewire_testkit::faulty::{Machine, Sabotage};
use tidewire_testkit::memory::{Memory, Stored};
use tidewire_testkit::server::{End, Server};

async fn rows(server: &Server, sql: &str) -> Vec<String> {
    let mut db = server.client().await.unwrap();
    text(db.run(sql).await.unwrap_or_else(|e| panic!("{e} at {sql}")).rows)
}

fn text(rows: Vec<Vec<Option<String>>>) -> Vec<String> {
    let cell = |cell: Option<String>| cell.unwrap_or_else(|| "NULL".into());
    rows.into_iter().map(|row| row.into_iter().map(cell).collect::<Vec<_>>().join("|")).collect()
}

async fn code(db: &mut InProcess, sql: &str) -> String {
    db.run(sql).await.map_or_else(|e| e.code, |_| "00000".into())
}

fn produce(server: &Server, values: &[&str]) {
    server.memory.append("topic", 0, values.iter().map(|v| Stored::of_value(v.to_string())));
}

#[tokio::test]
async fn a_source_that_began_at_the_latest_record_begins_there_for_ever() {
    let mut server = Server::start_on_disk(Settings::default()).await.unwrap();
    produce(&server, &[r#"{"n": 1}"#, r#"{"n": 2}"#]);
    let with = "WITH (connector = 'memory', topic = 'topic', scan.startup.mode = 'latest') FORMAT PLAIN ENCODE JSON";
    rows(&server, &format!("CREATE SOURCE s (n BIGINT) {with}")).await;
    produce(&server, &[r#"{"n": 3}"#]);
    // No view reads it yet: it begins where it was created all the same.
    server.restart(End::Killed).await.unwrap();
    produce(&server, &[r#"{"n": 4}"#]);
    rows(&server, "CREATE MATERIALIZED VIEW v AS SELECT n FROM s").await;
    server.caught_up().await.unwrap();
    assert_eq!(rows(&server, "SELECT n FROM v ORDER BY n").await, ["3", "4"]);
    server.restart(End::Graceful).await.unwrap();
    server.caught_up().await.unwrap();
    assert_eq!(rows(&server, "SELECT n FROM v ORDER BY n").await, ["3", "4"]);
    server.shutdown().await;
}

#[tokio::test]
async fn dead_letters_are_kept_and_not_doubled_by_views_that_are_built_again() {
    let mut server = Server::start_on_disk(Settings::default()).await.unwrap();
    let with = "WITH (connector = 'memory', topic = 'topic') FORMAT PLAIN ENCODE JSON";
    rows(&server, &format!("CREATE SOURCE s (n BIGINT) {with}")).await;
    rows(&server, "CREATE MATERIALIZED VIEW v AS SELECT 10 / n AS part FROM s").await;
    produce(&server, &[r#"{"n": 5}"#, "not json", r#"{"n": 0}"#]);
    server.caught_up().await.unwrap();
    let letters = "SELECT time, object, position, value, error FROM tidewire.dead_letters ORDER BY time, object";
    let before = rows(&server, letters).await;
    assert_eq!(before.len(), 2, "{before:?}");
    for end in [End::Killed, End::Graceful, End::Killed] {
        // They are written behind the loop's back, at its next step.
        rows(&server, "CREATE TABLE IF NOT EXISTS t (a INT)").await;
        server.restart(end).await.unwrap();
        server.caught_up().await.unwrap();
        assert_eq!(rows(&server, letters).await, before);
    }
    produce(&server, &[r#"{"n": 0}"#, "not json"]);
    server.caught_up().await.unwrap();
    assert_eq!(rows(&server, letters).await.len(), 4);
    rows(&server, "DROP SOURCE s CASCADE").await;
    server.restart(End::Graceful).await.unwrap();
    assert!(rows(&server, letters).await.is_empty(), "they go with their objects");
    server.shutdown().await;
}

#[tokio::test]
async fn a_view_that_cannot_be_built_is_marked_and_comes_back_when_its_source_does() {
    let folder = tempfile::tempdir().unwrap();
    let (path, away) = (folder.path().join("a.csv"), folder.path().join("away.csv"));
    std::fs::write(&path, "1\n2\n").unwrap();
    let mut server = Server::start_on_disk(Settings::default()).await.unwrap();
    let source = format!(
        "CREATE SOURCE f (n BIGINT) WITH (connector = 'file', path = '{}') FORMAT PLAIN ENCODE CSV",
        path.display()
    );
    for sql in [
        source.as_str(),
        "CREATE TABLE t (a INT)",
        "INSERT INTO t VALUES (7)",
        "CREATE MATERIALIZED VIEW on_file AS SELECT count(*) AS n FROM f",
        "CREATE MATERIALIZED VIEW above AS SELECT n + 1 AS n FROM on_file",
        "CREATE MATERIALIZED VIEW on_table AS SELECT sum(a) AS s FROM t",
    ] {
        rows(&server, sql).await;
    }
    assert_eq!(rows(&server, "SELECT n FROM above").await, ["3"]);
    std::fs::rename(&path, &away).unwrap();
    server.restart(End::Graceful).await.unwrap();
    assert_eq!(rows(&server, "SELECT s FROM on_table").await, ["7"], "all else works");
    let states = "SELECT name, state FROM tidewire.materialized_views ORDER BY name";
    assert_eq!(rows(&server, states).await, ["above|failed", "on_file|failed", "on_table|running"]);
    let mut db = server.client().await.unwrap();
    assert_eq!(db.run("SELECT * FROM on_file").await.unwrap_err().code, "55000");
    rows(&server, "INSERT INTO t VALUES (1)").await;
    std::fs::rename(&away, &path).unwrap();
    server.restart(End::Graceful).await.unwrap();
    assert_eq!(rows(&server, "SELECT n, s FROM above, on_table").await, ["3|8"]);
    // One that failed can be dropped, for good.
    std::fs::rename(&path, &away).unwrap();
    server.restart(End::Graceful).await.unwrap();
    rows(&server, "DROP MATERIALIZED VIEW on_file CASCADE").await;
    server.restart(End::Killed).await.unwrap();
    assert_eq!(rows(&server, states).await, ["on_table|running"]);
    server.shutdown().await;
}

#[tokio::test]
async fn a_full_disk_refuses_writes_keeps_reads_and_heals() {
    let machine = Machine::new(1, Sabotage::None);
    let engine = Server::engine(&Settings::default(), machine.storage(), &Memory::default()).await.unwrap();
    let mut db = InProcess(engine.session("u", "tidewire"));
    db.run("CREATE TABLE t (a INT PRIMARY KEY); CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t")
        .await
        .unwrap();
    db.run("INSERT INTO t VALUES (1)").await.unwrap();
    machine.fill_every(Some(1));
    assert_eq!(code(&mut db, "INSERT INTO t VALUES (2)").await, "53100");
    assert_eq!(code(&mut db, "BEGIN; DELETE FROM t; INSERT INTO t VALUES (3); COMMIT").await, "53100");
    db.run("ROLLBACK").await.unwrap();
    assert_eq!(code(&mut db, "CREATE TABLE u (a INT)").await, "53100");
    assert_eq!(code(&mut db, "DROP MATERIALIZED VIEW v").await, "53100");
    assert_eq!(text(db.run("SELECT a, n FROM t, v").await.unwrap().rows), ["1|1"]);
    machine.fill_every(None);
    db.run("INSERT INTO t VALUES (2); CREATE TABLE u (a INT)").await.unwrap();
    engine.shutdown().await;
    machine.reboot();
    let engine = Server::engine(&Settings::default(), machine.storage(), &Memory::default()).await.unwrap();
    let mut db = InProcess(engine.session("u", "tidewire"));
    assert_eq!(
        text(db.run("SELECT count(*), (SELECT n FROM v), (SELECT count(*) FROM u) FROM t").await.unwrap().rows),
        ["2|2|0"]
    );
    engine.shutdown().await;
}

#[tokio::test]
async fn nobody_reads_what_is_not_durable_and_a_failed_fsync_ends_the_server() {
    let machine = Machine::new(1, Sabotage::None);
    let engine = Server::engine(&Settings::default(), machine.storage(), &Memory::default()).await.unwrap();
    let mut db = InProcess(engine.session("u", "tidewire"));
    db.run("CREATE TABLE t (a INT); CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t").await.unwrap();
    machine.fail_syncs(true);
    assert_eq!(code(&mut db, "INSERT INTO t VALUES (1)").await, "58030");
    let reason = tokio::time::timeout(Duration::from_secs(10), engine.failed()).await.unwrap();
    assert_eq!(reason.state().code(), "58030");
    assert_eq!(text(db.run("SELECT count(*), (SELECT n FROM v) FROM t").await.unwrap().rows), ["0|0"]);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_write_that_does_not_wait_is_read_at_once_and_reaches_the_disk() {
    let machine = Machine::new(1, Sabotage::None);
    let engine = Server::engine(&Settings::default(), machine.storage(), &Memory::default()).await.unwrap();
    let mut db = InProcess(engine.session("u", "tidewire"));
    db.run("CREATE TABLE t (a INT); SET synchronous_commit = off").await.unwrap();
    for n in 0..100 {
        db.run(&format!("INSERT INTO t VALUES ({n})")).await.unwrap();
    }
    assert_eq!(text(db.run("SELECT count(*) FROM t").await.unwrap().rows), ["100"]);
    // A write that waits has all before it on disk.
    db.run("SET synchronous_commit = on; INSERT INTO t VALUES (100)").await.unwrap();
    machine.kill();
    engine.shutdown().await;
    machine.reboot();
    let engine = Server::engine(&Settings::default(), machine.storage(), &Memory::default()).await.unwrap();
    let mut db = InProcess(engine.session("u", "tidewire"));
    assert_eq!(text(db.run("SELECT count(*) FROM t").await.unwrap().rows), ["101"]);
    engine.shutdown().await;
}

#[tokio::test]
async fn the_disk_does_not_grow_with_updates() {
    let machine = Machine::new(1, Sabotage::None);
    let settings =
        Settings { checkpoint_interval: Duration::from_millis(1), log_segment_bytes_max: 4000, ..Settings::default() };
    let engine = Server::engine(&settings, machine.storage(), &Memory::default()).await.unwrap();
    let mut db = InProcess(engine.session("u", "tidewire"));
    db.run(
        "CREATE TABLE t (a INT PRIMARY KEY, b BIGINT); INSERT INTO t SELECT n, n FROM generate_series(1, 2000) AS g(n)",
    )
    .await
    .unwrap();
    let mut largest = 0;
    for n in 0..150 {
        db.run(&format!("UPDATE t SET b = b + {n} WHERE a % 20 = {}", n % 20)).await.unwrap();
        largest = largest.max(machine.n_bytes());
    }
    engine.shutdown().await;
    // Two checkpoints of about 20 kB and some log; the log of all updates would be 150 times 6 kB.
    assert!(machine.n_bytes() < 200_000, "{} bytes at the end, {largest} at most", machine.n_bytes());
    let engine = Server::engine(&settings, machine.storage(), &Memory::default()).await.unwrap();
    let mut db = InProcess(engine.session("u", "tidewire"));
    let expected = (0..150).map(|n| n * 100).sum::<u64>() + 2000 * 2001 / 2;
    assert_eq!(text(db.run("SELECT count(*), sum(b) FROM t").await.unwrap().rows), [format!("2000|{expected}")]);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_view_whose_create_has_returned_is_built_at_the_next_start() {
    let machine = Machine::new(1, Sabotage::None);
    let engine = Server::engine(&Settings::default(), machine.storage(), &Memory::default()).await.unwrap();
    let mut db = InProcess(engine.session("u", "tidewire"));
    db.run("CREATE SOURCE s WITH (connector = 'nexmark', table.type = 'bid', rows = '30000')").await.unwrap();
    db.run("SET background_ddl = on; CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s").await.unwrap();
    machine.kill();
    engine.shutdown().await;
    machine.reboot();
    let engine = Server::engine(&Settings::default(), machine.storage(), &Memory::default()).await.unwrap();
    let mut db = InProcess(engine.session("u", "tidewire"));
    assert_eq!(text(db.run("SELECT n FROM v").await.unwrap().rows), ["30000"]);
    engine.shutdown().await;
}
