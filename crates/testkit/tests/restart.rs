//! What a start finds: where sources begin, dead letters, views that cannot be built; and what a bad disk does.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test: what fails here fails it")]

use std::time::Duration;

use tidewire_engine::Settings;
use tidewire_state::Manifest;
use tidewire_testkit::database::{Database, InProcess};
use tidewire_testkit::faulty::{Machine, Sabotage};
use tidewire_testkit::memory::{Memory, Stored};
use tidewire_testkit::server::{End, Server};

/// Checkpoints only when they are asked for.
fn settings() -> Settings {
    Settings { checkpoint_interval: Duration::from_secs(3600), ..Settings::default() }
}

async fn rows(server: &Server, sql: &str) -> Vec<String> {
    let mut db = server.client().await.unwrap();
    text(db.run(sql).await.unwrap_or_else(|e| panic!("{e} at {sql}")).rows)
}

fn text(rows: Vec<Vec<Option<String>>>) -> Vec<String> {
    let cell = |cell: Option<String>| cell.unwrap_or_else(|| "NULL".into());
    rows.into_iter().map(|row| row.into_iter().map(cell).collect::<Vec<_>>().join("|")).collect()
}

async fn code(db: &mut dyn Database, sql: &str) -> String {
    db.run(sql).await.map_or_else(|e| e.code, |_| "00000".into())
}

const ORIGINS: &str = "SELECT name, origin FROM tidewire.materialized_views ORDER BY name";

fn produce(server: &Server, values: &[&str]) {
    server.memory.append("topic", 0, values.iter().map(|v| Stored::of_value(v.to_string())));
}

#[tokio::test]
async fn a_source_that_began_at_the_latest_record_begins_there_for_ever() {
    let mut server = Server::start_on_disk(settings()).await.unwrap();
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
async fn dead_letters_are_kept_and_not_doubled_by_views_that_come_back() {
    let mut server = Server::start_on_disk(settings()).await.unwrap();
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
    assert_eq!(rows(&server, ORIGINS).await, ["v|restored"]);
    // Behind the checkpoint: the records are read again, and their letters are in the log.
    produce(&server, &[r#"{"n": 0}"#, "not json"]);
    server.caught_up().await.unwrap();
    let counted = "SELECT records, bytes, bad_records FROM tidewire.sources";
    let (before, sources) = (rows(&server, letters).await, rows(&server, counted).await);
    assert_eq!((before.len(), sources.as_slice()), (4, &["3|40|2".to_string()][..]));
    for _ in 0..2 {
        rows(&server, "CREATE TABLE IF NOT EXISTS t (a INT)").await;
        server.restart(End::Killed).await.unwrap();
        server.caught_up().await.unwrap();
        assert_eq!(rows(&server, letters).await, before);
        assert_eq!(rows(&server, counted).await, sources, "what is counted goes on");
    }
    // The same row once more is another letter.
    produce(&server, &[r#"{"n": 0}"#]);
    server.caught_up().await.unwrap();
    assert_eq!(rows(&server, letters).await.len(), 5);
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
    let mut server = Server::start_on_disk(settings()).await.unwrap();
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
    // A view that is restored does not need its source.
    server.restart(End::Graceful).await.unwrap();
    assert_eq!(rows(&server, "SELECT n, s FROM above, on_table").await, ["3|7"]);
    // Another number of shards: it is to be built again.
    let shards = |n_shards| Settings { n_shards, n_shards_is_default: false, ..settings() };
    server.restart_with(End::Graceful, shards(3)).await.unwrap();
    assert_eq!(rows(&server, "SELECT s FROM on_table").await, ["7"], "all else works");
    let states = "SELECT name, state FROM tidewire.materialized_views ORDER BY name";
    assert_eq!(rows(&server, states).await, ["above|failed", "on_file|failed", "on_table|running"]);
    let mut db = server.client().await.unwrap();
    assert_eq!(db.run("SELECT * FROM on_file").await.unwrap_err().code, "55000");
    rows(&server, "INSERT INTO t VALUES (1)").await;
    assert_eq!(code(&mut *db, "REFRESH MATERIALIZED VIEW above").await, "55000", "what it stands on has failed");
    assert_eq!(code(&mut *db, "REFRESH MATERIALIZED VIEW t").await, "42809");
    assert_ne!(code(&mut *db, "REFRESH MATERIALIZED VIEW on_file").await, "00000");
    assert_eq!(rows(&server, states).await, ["above|failed", "on_file|failed", "on_table|running"]);
    std::fs::rename(&away, &path).unwrap();
    rows(&server, "REFRESH MATERIALIZED VIEW on_file; REFRESH MATERIALIZED VIEW CONCURRENTLY on_table").await;
    assert_eq!(rows(&server, "SELECT n, s FROM above, on_table").await, ["3|8"]);
    server.restart(End::Graceful).await.unwrap();
    assert_eq!(rows(&server, ORIGINS).await, ["above|restored", "on_file|restored", "on_table|restored"]);
    assert_eq!(rows(&server, "SELECT n, s FROM above, on_table").await, ["3|8"]);
    std::fs::rename(&path, &away).unwrap();
    server.restart_with(End::Graceful, shards(4)).await.unwrap();
    assert_eq!(rows(&server, states).await, ["above|failed", "on_file|failed", "on_table|running"]);
    std::fs::rename(&away, &path).unwrap();
    server.restart(End::Graceful).await.unwrap();
    assert_eq!(rows(&server, "SELECT n, s FROM above, on_table").await, ["3|8"]);
    // One that failed can be dropped, for good.
    std::fs::rename(&path, &away).unwrap();
    server.restart_with(End::Graceful, shards(2)).await.unwrap();
    rows(&server, "DROP MATERIALIZED VIEW on_file CASCADE").await;
    server.restart(End::Killed).await.unwrap();
    assert_eq!(rows(&server, states).await, ["on_table|running"]);
    server.shutdown().await;
}

#[tokio::test]
async fn a_view_whose_broker_was_away_at_the_start_is_built_when_it_answers() {
    let mut server = Server::start_on_disk(settings()).await.unwrap();
    let with = "WITH (connector = 'memory', topic = 'topic') FORMAT PLAIN ENCODE JSON";
    rows(&server, &format!("CREATE SOURCE s (n BIGINT) {with}")).await;
    produce(&server, &[r#"{"n": 5}"#, r#"{"n": 0}"#]);
    rows(&server, "CREATE MATERIALIZED VIEW v AS SELECT 10 / n AS part FROM s").await;
    rows(&server, "CREATE MATERIALIZED VIEW above AS SELECT sum(part) AS n FROM v").await;
    server.memory.set_away(true);
    let other = Settings { n_shards: 3, n_shards_is_default: false, ..settings() };
    server.restart_with(End::Graceful, other).await.unwrap();
    let states = "SELECT name, state FROM tidewire.materialized_views ORDER BY name";
    assert_eq!(rows(&server, states).await, ["above|failed", "v|failed"]);
    server.memory.set_away(false);
    produce(&server, &[r#"{"n": 2}"#]);
    let running = async {
        let mut again = tokio::time::interval(Duration::from_millis(20));
        while rows(&server, states).await != ["above|running", "v|running"] {
            again.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), running).await.unwrap();
    server.caught_up().await.unwrap();
    assert_eq!(rows(&server, "SELECT n FROM above").await, ["7"]);
    assert_eq!(rows(&server, "SELECT count(*) FROM tidewire.dead_letters").await, ["1"], "a row is one letter");
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

/// Views of every kind of operator, with their queries.
const VIEWS: &[(&str, &str)] = &[
    ("agg", "SELECT k, count(*) AS n, sum(v) AS s, min(v) AS least, max(note) AS note FROM t GROUP BY k"),
    ("bag", "SELECT k, v % 3 AS part FROM t"),
    ("best", "SELECT id, v FROM t ORDER BY v DESC, id LIMIT 4"),
    ("bounds", "SELECT id, v > (SELECT min(limits) FROM u) AS above FROM t"),
    // Its plan has a hash map, whose order is another one at each start.
    (
        "chosen",
        "SELECT id, CASE k WHEN 1 THEN 'a' WHEN 2 THEN 'b' WHEN 3 THEN 'c' WHEN 4 THEN 'd' END AS letter FROM t",
    ),
    ("distinct_k", "SELECT DISTINCT k FROM t"),
    ("from_topic", "SELECT u.k, count(s.n) AS n, sum(s.n) AS total FROM u LEFT JOIN s ON s.k = u.k GROUP BY u.k"),
    ("joined", "SELECT t.id, t.note, u.limits FROM t JOIN u ON t.k = u.k"),
    ("left_joined", "SELECT t.id, u.limits FROM t LEFT JOIN u ON t.k = u.k AND u.limits > 15"),
    ("numbers", "WITH RECURSIVE c(n) AS (SELECT k FROM u UNION SELECT n + 1 FROM c WHERE n < 12) SELECT n FROM c"),
    ("on_agg", "SELECT count(*) AS groups, sum(s) AS s FROM agg WHERE n > 1"),
    ("only_topic", "SELECT k, count(*) AS n, max(n) AS last FROM s GROUP BY k"),
    ("ranked", "SELECT id, row_number() OVER (PARTITION BY k ORDER BY v, id) AS place FROM t"),
    ("without", "SELECT k FROM u WHERE k NOT IN (SELECT k FROM t WHERE k IS NOT NULL)"),
];

/// One of several clients that change the same few rows.
async fn write_at_random(mut db: Box<dyn Database>, seed: i64) {
    for n in 0..24 {
        let (key, other) = ((seed * 7 + n * 5) % 40, (seed * 3 + n * 11) % 40);
        let sqls: Vec<String> = match (seed + n) % 6 {
            0 => vec![format!("INSERT INTO t VALUES ({key}, 'a{n}')")],
            1 => vec![format!("INSERT INTO t VALUES ({}, 'b{n}')", 1000 + seed * 100 + n)],
            2 => vec![format!("UPDATE t SET s = s || '{n}' WHERE id = {key}")],
            3 => vec![format!("UPDATE t SET id = {other} WHERE id = {key}")],
            4 => vec![format!("DELETE FROM t WHERE id = {key}")],
            _ => vec![
                "BEGIN".into(),
                format!("INSERT INTO t VALUES ({key}, 'c{n}') ON CONFLICT DO NOTHING"),
                format!("INSERT INTO bag VALUES ({key}), ({key})"),
                "COMMIT".into(),
            ],
        };
        for sql in sqls {
            let code = code(db.as_mut(), &sql).await;
            assert!(["00000", "23505", "40001"].contains(&code.as_str()), "{code} at {sql}");
        }
        let deleted = code(db.as_mut(), &format!("DELETE FROM bag WHERE a = {other}")).await;
        assert!(["00000", "40001"].contains(&deleted.as_str()), "{deleted}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_many_write_at_once_is_in_the_log_as_it_is_in_the_tables() {
    let mut server = Server::start_on_disk(settings()).await.unwrap();
    rows(&server, "CREATE TABLE t (id BIGINT PRIMARY KEY, s TEXT)").await;
    rows(&server, "CREATE TABLE bag (a BIGINT)").await;
    rows(&server, "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, sum(id) AS ids, max(s) AS s FROM t").await;
    rows(&server, "CREATE MATERIALIZED VIEW w AS SELECT a, count(*) AS n FROM bag GROUP BY a").await;
    let mut clients = tokio::task::JoinSet::new();
    for seed in 0..12 {
        clients.spawn(write_at_random(server.client().await.unwrap(), seed));
    }
    clients.join_all().await;
    const ALL: [&str; 4] = [
        "SELECT * FROM t ORDER BY id",
        "SELECT a, count(*) FROM bag GROUP BY a ORDER BY a",
        "SELECT * FROM v",
        "SELECT * FROM w ORDER BY a",
    ];
    let mut before = vec![];
    for sql in ALL {
        before.push(rows(&server, sql).await);
    }
    assert_eq!(before[1], before[3]);
    assert_eq!(before[2], rows(&server, "SELECT count(*), sum(id), max(s) FROM t").await);
    assert!(before[0].len() > 40, "{} rows", before[0].len());
    server.restart(End::Killed).await.unwrap();
    server.caught_up().await.unwrap();
    for (sql, before) in ALL.iter().zip(before) {
        assert_eq!(rows(&server, sql).await, before, "{sql}");
    }
    server.shutdown().await;
}

async fn check_views(server: &Server, when: &str) {
    server.caught_up().await.unwrap();
    let mut db = server.client().await.unwrap();
    for (view, query) in VIEWS {
        let content = db.run(&format!("SELECT * FROM {view}")).await.unwrap_or_else(|e| panic!("{view}: {e}"));
        let batch = db.run(query).await.unwrap_or_else(|e| panic!("{query}: {e}"));
        tidewire_testkit::oracle::compare(&content, &batch).unwrap_or_else(|e| panic!("{when}: {view}: {e}"));
    }
}

/// Changes of all kinds, other ones each time.
async fn change(server: &Server, round: i64) {
    let first = round * 40;
    rows(
        server,
        &format!(
            "INSERT INTO t SELECT n, n * 7 % 5, n * 13 % 17, 'note ' || n FROM generate_series({first}, {}) AS g(n)",
            first + 39
        ),
    )
    .await;
    rows(server, &format!("UPDATE t SET v = v + 1, k = (k + 1) % 6 WHERE id % 7 = {}", round % 7)).await;
    rows(server, &format!("DELETE FROM t WHERE id % 9 = {}", round % 9)).await;
    rows(server, &format!("UPDATE u SET limits = limits + {round} WHERE k = {}", round % 3)).await;
    rows(server, &format!("INSERT INTO u VALUES ({}, {round})", 8 + round)).await;
    let records: Vec<String> = (0..20).map(|n| format!(r#"{{"k": {}, "n": {}}}"#, n % 5, first + n)).collect();
    produce(server, &records.iter().map(String::as_str).collect::<Vec<_>>());
    server.caught_up().await.unwrap();
}

async fn start_with_views(settings: Settings) -> Server {
    let server = Server::start_on_disk(settings).await.unwrap();
    rows(&server, "CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT, v BIGINT, note TEXT)").await;
    rows(&server, "CREATE TABLE u (k BIGINT, limits BIGINT)").await;
    rows(&server, "INSERT INTO u VALUES (0, 10), (1, 20), (2, 30), (2, 30), (9, 1)").await;
    let with = "WITH (connector = 'memory', topic = 'topic', splits = '2') FORMAT PLAIN ENCODE JSON";
    rows(&server, &format!("CREATE SOURCE s (k BIGINT, n BIGINT) {with}")).await;
    for (view, query) in VIEWS {
        rows(&server, &format!("CREATE MATERIALIZED VIEW {view} AS {query}")).await;
    }
    server
}

async fn origins(server: &Server, origin: &str) -> Vec<String> {
    rows(server, &format!("SELECT name FROM tidewire.materialized_views WHERE origin = '{origin}' ORDER BY name")).await
}

fn all_views() -> Vec<String> {
    VIEWS.iter().map(|(name, _)| (*name).to_string()).collect()
}

#[tokio::test]
async fn views_are_restored_with_the_state_of_all_operators() {
    for n_shards in [1, 3] {
        let mut server = start_with_views(Settings { n_shards, parallel_rows_min: 20, ..settings() }).await;
        let mut round = 0;
        for end in [End::Killed, End::Graceful, End::Killed, End::Killed] {
            // Some of it is in the checkpoint, some behind it; after a graceful end all is in it.
            for _ in 0..2 {
                change(&server, round).await;
                server.engine.checkpoint().await.unwrap();
                round += 1;
            }
            change(&server, round).await;
            round += 1;
            check_views(&server, "before").await;
            // The remembered number of shards wins over a default.
            server.restart_with(end, settings()).await.unwrap();
            assert_eq!(origins(&server, "restored").await, all_views());
            check_views(&server, "restored").await;
            change(&server, round).await;
            round += 1;
            check_views(&server, "changed behind it").await;
        }
        let records = rows(&server, "SELECT records FROM tidewire.sources").await;
        assert_eq!(records, [(round * 20).to_string()], "no record is read twice");
        // State goes with the rows.
        rows(&server, "DELETE FROM t").await;
        check_views(&server, "everything deleted").await;
        server.shutdown().await;
    }
}

#[tokio::test]
async fn views_that_no_checkpoint_has_are_built_again_and_dropped_ones_leave_nothing() {
    let mut server = start_with_views(settings()).await;
    change(&server, 0).await;
    server.engine.checkpoint().await.unwrap();
    // Behind the checkpoint: one is dropped, one comes back as another, one is new and one fails.
    for sql in [
        "DROP MATERIALIZED VIEW best",
        "DROP MATERIALIZED VIEW ranked",
        "CREATE MATERIALIZED VIEW ranked AS SELECT id, row_number() OVER (PARTITION BY k ORDER BY v, id) AS place FROM t",
        "CREATE MATERIALIZED VIEW best AS SELECT id, v FROM t ORDER BY v DESC, id LIMIT 4",
        "CREATE MATERIALIZED VIEW above AS SELECT id FROM best",
    ] {
        rows(&server, sql).await;
    }
    change(&server, 1).await;
    server.restart(End::Killed).await.unwrap();
    assert_eq!(origins(&server, "rebuilt").await, ["above", "best", "ranked"]);
    assert_eq!(origins(&server, "restored").await.len(), VIEWS.len() - 2);
    check_views(&server, "after").await;
    change(&server, 2).await;
    server.restart(End::Graceful).await.unwrap();
    assert_eq!(origins(&server, "rebuilt").await, Vec::<String>::new());
    check_views(&server, "all restored").await;
    rows(&server, "DROP TABLE t CASCADE").await;
    rows(&server, "DROP SOURCE s CASCADE").await;
    server.restart(End::Graceful).await.unwrap();
    server.engine.checkpoint().await.unwrap();
    assert_eq!(rows(&server, ORIGINS).await, ["numbers|restored"]);
    server.shutdown().await;
}

#[tokio::test]
async fn a_view_whose_plan_is_another_one_is_built_again_and_so_is_what_stands_on_it() {
    let mut server = start_with_views(settings()).await;
    change(&server, 0).await;
    server.restart(End::Graceful).await.unwrap();
    assert_eq!(origins(&server, "restored").await, all_views());
    let oid: u32 = rows(&server, "SELECT oid::bigint FROM pg_class WHERE relname = 'agg'").await[0].parse().unwrap();
    server
        .shutdown_and(|folder| {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if !path.file_name().unwrap().to_str().unwrap().starts_with("manifest-") {
                    continue;
                }
                let mut manifest = Manifest::decode(&std::fs::read(&path).unwrap()).unwrap().unwrap();
                manifest
                    .views
                    .iter_mut()
                    .filter(|v| v.relation.table == oid)
                    .for_each(|v| v.fingerprint = "other".into());
                std::fs::write(&path, manifest.encode().unwrap()).unwrap();
            }
        })
        .await
        .unwrap();
    assert_eq!(origins(&server, "rebuilt").await, ["agg", "on_agg"]);
    check_views(&server, "after").await;
    change(&server, 1).await;
    check_views(&server, "changed behind it").await;
    server.restart(End::Graceful).await.unwrap();
    assert_eq!(origins(&server, "restored").await, all_views());
    server.shutdown().await;
}

#[tokio::test]
async fn a_view_with_a_damaged_file_is_built_again() {
    let mut server = Server::start_on_disk(settings()).await.unwrap();
    for sql in [
        "CREATE TABLE t (id BIGINT PRIMARY KEY, note TEXT)",
        "INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 6000) AS g(n)",
        "CREATE MATERIALIZED VIEW pairs AS SELECT a.id, b.note FROM t AS a JOIN t AS b ON a.id = b.id",
        "CREATE MATERIALIZED VIEW above AS SELECT count(*) AS n, max(note) AS note FROM pairs",
        "CREATE MATERIALIZED VIEW beside AS SELECT count(*) AS n FROM t",
    ] {
        rows(&server, sql).await;
    }
    let content = rows(&server, "SELECT a.n, a.note, b.n FROM above a, beside b").await;
    let mut n_spoiled = 0;
    server
        .shutdown_and(|folder| {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_string();
                if name.starts_with("view-") && name.contains("-operator") {
                    let mut bytes = std::fs::read(&path).unwrap();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    std::fs::write(&path, bytes).unwrap();
                    n_spoiled += 1;
                }
            }
        })
        .await
        .unwrap();
    assert!(n_spoiled > 0);
    assert_eq!(rows(&server, ORIGINS).await, ["above|rebuilt", "beside|restored", "pairs|rebuilt"]);
    assert_eq!(rows(&server, "SELECT a.n, a.note, b.n FROM above a, beside b").await, content);
    server.restart(End::Graceful).await.unwrap();
    assert_eq!(origins(&server, "restored").await, ["above", "beside", "pairs"]);
    server.shutdown().await;
}

#[tokio::test]
async fn indexes_are_there_again_over_tables_and_over_views_restored_or_built_again() {
    let mut server = Server::start_on_disk(settings()).await.unwrap();
    for sql in [
        "CREATE TABLE t (id INT PRIMARY KEY, k TEXT, v INT)",
        "CREATE MATERIALIZED VIEW m AS SELECT k, v, count(*) AS n FROM t GROUP BY k, v",
        "CREATE MATERIALIZED VIEW above AS SELECT k, sum(n) AS n FROM m GROUP BY k",
        "CREATE INDEX t_k ON t (k)",
        "CREATE INDEX m_k ON m (k)",
        "CREATE INDEX above_n ON above (n)",
        "INSERT INTO t SELECT i, 'k' || i % 100, i % 3 FROM generate_series(1, 2000) AS g(i)",
    ] {
        rows(&server, sql).await;
    }
    let names = "SELECT name, relation FROM tidewire.indexes WHERE name NOT LIKE '%pkey' ORDER BY name";
    let indexes = ["above_n|above", "m_k|m", "t_k|t"];
    assert_eq!(rows(&server, names).await, indexes);
    let mut id = 2000;
    for (end, origin) in [(End::Killed, "rebuilt"), (End::Graceful, "restored"), (End::Killed, "restored")] {
        server.restart(end).await.unwrap();
        server.caught_up().await.unwrap();
        assert_eq!(rows(&server, ORIGINS).await, [format!("above|{origin}"), format!("m|{origin}")], "{end:?}");
        assert_eq!(rows(&server, names).await, indexes, "{end:?}");
        // What the index finds follows writes.
        id += 1;
        rows(&server, &format!("INSERT INTO t VALUES ({id}, 'k7', 5), ({id} + 10000, 'new{id}', 0)")).await;
        let n = id - 2000;
        assert_eq!(rows(&server, "SELECT sum(n) FROM m WHERE k = 'k7'").await, [format!("{}", 20 + n)], "{end:?}");
        assert_eq!(rows(&server, "SELECT count(*) FROM above WHERE n = 1").await, [n.to_string()], "{end:?}");
        assert_eq!(rows(&server, "SELECT count(*) FROM t WHERE k = 'k7'").await, [format!("{}", 20 + n)], "{end:?}");
        let building = "SELECT count(*) FROM tidewire.indexes WHERE state <> 'ready'";
        while rows(&server, building).await != ["0"] {
            tokio::task::yield_now().await;
        }
        let plan = rows(&server, "EXPLAIN SELECT n FROM m WHERE k = 'k7'").await.join("\n");
        assert!(plan.contains("k = 'k7'") && plan.to_lowercase().contains("lookup"), "{end:?}: {plan}");
    }
    // An index is dropped with its name for good.
    rows(&server, "DROP INDEX m_k").await;
    server.restart(End::Graceful).await.unwrap();
    assert_eq!(rows(&server, names).await, ["above_n|above", "t_k|t"]);
    server.shutdown().await;
}
