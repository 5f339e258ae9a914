//! A server whose state is in an object store: it comes back, one at a time writes, and a store that is away stops writes only.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: what fails here fails it")]

use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::{Engine, Settings};
use tidewire_state::{Bucket, BucketAddress, BucketFiles, BucketLog, NoCrash, Storage};
use tidewire_testkit::database::{Database, InProcess};
use tidewire_testkit::memory::{Memory, Stored};
use tidewire_testkit::s3::S3Server;
use tidewire_testkit::server::Server;
use tidewire_types::Result;

const DEADLINE: Duration = Duration::from_secs(60);

/// A server in a place, and its way there.
struct InStore {
    engine: Arc<Engine>,
    bucket: Bucket,
}

async fn start(place: &BucketAddress) -> InStore {
    start_with(place, Settings::default(), &Memory::default()).await
}

async fn start_with(place: &BucketAddress, settings: Settings, memory: &Memory) -> InStore {
    let settings = Settings { n_shards: 1, checkpoint_interval: Duration::from_millis(20), ..settings };
    let (bucket, storage) = tokio::task::block_in_place(|| claim(place)).unwrap();
    InStore { engine: Server::engine(&settings, storage, memory).await.unwrap(), bucket }
}

fn claim(place: &BucketAddress) -> Result<(Bucket, Storage)> {
    let bucket = Bucket::open(place)?;
    bucket.claim(None)?;
    let log = Arc::new(BucketLog::open(bucket.clone())?);
    let checkpoints = Arc::new(BucketFiles::new(bucket.clone(), "checkpoints"));
    Ok((bucket, Storage { log, checkpoints, points: Arc::new(NoCrash) }))
}

impl InStore {
    fn client(&self) -> InProcess {
        InProcess(self.engine.session("tidewire", "tidewire"))
    }

    async fn number(&self, sql: &str) -> i64 {
        self.client().run(sql).await.unwrap().rows[0][0].as_deref().unwrap_or("0").parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_and_old_objects_go() {
    let server = S3Server::start().unwrap();
    let door = server.door(1).unwrap();
    let place = door.place("a/b");
    for life in 0..4_i64 {
        let running = start(&place).await;
        let mut db = running.client();
        if life == 0 {
            db.run("CREATE TABLE t (a BIGINT); CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM t")
                .await
                .unwrap();
        }
        assert_eq!(running.number("SELECT n FROM n").await, life * 50);
        for a in 0..50 {
            db.run(&format!("INSERT INTO t VALUES ({a})")).await.unwrap();
        }
        running.engine.shutdown().await;
    }
    let chunks = server.objects("a/b/log").len();
    assert!(chunks < 150, "{chunks} objects of the log are left of over 200");
    assert!(server.objects("a/b/checkpoints").len() < 30, "{:?}", server.objects("a/b/checkpoints"));
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_share_an_object() {
    let server = S3Server::start().unwrap();
    let door = server.door(1).unwrap();
    let running = start(&door.place("a")).await;
    running.client().run("CREATE TABLE t (a BIGINT)").await.unwrap();
    door.delay(Duration::from_millis(20));
    let (_, before) = door.n_requests();
    let writer = |client: i64| {
        let mut db = running.client();
        async move {
            for n in 0..10 {
                db.run(&format!("INSERT INTO t VALUES ({})", client * 10 + n)).await.unwrap();
            }
        }
    };
    futures::future::join_all((0..20).map(writer)).await;
    let (_, after) = door.n_requests();
    assert_eq!(running.number("SELECT count(*) FROM t").await, 200);
    assert!(after - before < 150, "{} puts for 200 commits", after - before);
    running.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_later_takes_over_and_nothing_is_lost() {
    let server = S3Server::start().unwrap();
    let mut doors = vec![server.door(0).unwrap()];
    let mut running = start(&doors[0].place("a")).await;
    running.client().run("CREATE TABLE t (a BIGINT PRIMARY KEY)").await.unwrap();
    let mut n = 0;
    for round in 1..6 {
        // One client goes on writing to the old server while the new one starts.
        let mut db = running.client();
        let (old, bucket) = (running.engine.clone(), running.bucket.clone());
        let first = n;
        let writer = tokio::spawn(async move {
            let mut done = first;
            loop {
                match db.run(&format!("INSERT INTO t VALUES ({done})")).await {
                    Ok(_) => done += 1,
                    Err(error) => return (done, error),
                }
            }
        });
        tokio::time::timeout(DEADLINE, async {
            while running.number("SELECT count(*) FROM t").await < n + 3 * round {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        doors.push(server.door(round as u64).unwrap());
        let next = start(&doors[round as usize].place("a")).await;
        let (done, error) = tokio::time::timeout(DEADLINE, writer).await.unwrap().unwrap();
        let why = format!("{} {error}", error.code);
        assert!(why.contains("another server has taken over") || why.contains("57P01"), "{why}");
        let reason = tokio::time::timeout(DEADLINE, bucket.lost()).await.unwrap();
        assert!(reason.message().contains(&format!("process {}", std::process::id())), "{reason}");
        tokio::time::timeout(DEADLINE, old.failed()).await.unwrap();
        old.shutdown().await;
        let found = next.number("SELECT count(*) FROM t").await;
        assert!(found == done || found == done + 1, "{done} rows were acknowledged, {found} are there");
        assert_eq!(next.number("SELECT max(a) + 1 FROM t").await, found);
        (running, n) = (next, found);
    }
    running.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_stops_writes_and_heals() {
    let server = S3Server::start().unwrap();
    let door = server.door(1).unwrap();
    let running = start(&door.place("a")).await;
    let mut db = running.client();
    db.run("CREATE TABLE t (a BIGINT); INSERT INTO t VALUES (1)").await.unwrap();
    door.set_away(true);
    let mut writer = running.client();
    let mut writing = tokio::spawn(async move { writer.run("INSERT INTO t VALUES (2)").await });
    assert!(tokio::time::timeout(Duration::from_secs(2), &mut writing).await.is_err(), "the write waits");
    assert_eq!(running.number("SELECT count(*) FROM t").await, 1, "what is not in the store is not seen");
    door.set_away(false);
    tokio::time::timeout(DEADLINE, writing).await.unwrap().unwrap().unwrap();
    assert_eq!(running.number("SELECT count(*) FROM t").await, 2);
    running.engine.shutdown().await;
    let again = start(&door.place("a")).await;
    assert_eq!(again.number("SELECT count(*) FROM t").await, 2);
    again.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_and_writers_wait_while_checkpoints_cannot_be_written() {
    let (server, memory) = (S3Server::start().unwrap(), Memory::default());
    let door = server.door(1).unwrap();
    let settings = Settings { checkpoint_held_bytes: 10_000, source_buffer_bytes_max: 10_000, ..Settings::default() };
    let running = start_with(&door.place("a"), settings, &memory).await;
    let mut db = running.client();
    db.run(
        "CREATE SOURCE s (n BIGINT) WITH (connector = 'memory', topic = 'topic', splits = '1') FORMAT PLAIN ENCODE JSON;
         CREATE MATERIALIZED VIEW v AS SELECT n FROM s;
         CREATE TABLE t (n BIGINT)",
    )
    .await
    .unwrap();
    door.set_away(true);
    let wait_for = async |is_so: &dyn Fn() -> bool| {
        let mut again = tokio::time::interval(Duration::from_millis(5));
        let waiting = async {
            while !tokio::task::block_in_place(is_so) {
                again.tick().await;
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.unwrap();
    };
    let mut n_records = 0;
    let is_behind = || running.engine.status().checkpoints.is_behind;
    let mut again = tokio::time::interval(Duration::from_millis(1));
    while !tokio::task::block_in_place(is_behind) {
        memory.append("topic", 0, (0..100).map(|n| Stored::of_value(format!(r#"{{"n": {n}}}"#))));
        n_records += 100;
        again.tick().await;
    }
    let position = || running.engine.status().sources[0].splits[0].position;
    let waits_at = tokio::task::block_in_place(position);
    memory.append("topic", 0, (0..100_000).map(|n| Stored::of_value(format!(r#"{{"n": {n}}}"#))));
    n_records += 100_000;
    running.client().run("SELECT 1").await.unwrap();
    assert_eq!(tokio::task::block_in_place(position), waits_at, "no record is taken");
    // It would be answered at once: nobody waits for its fsync.
    let mut writer = running.client();
    writer.run("SET synchronous_commit = off").await.unwrap();
    let cancelled = tokio::time::timeout(Duration::from_millis(50), writer.run("INSERT INTO t VALUES (1)")).await;
    assert!(cancelled.is_err(), "writers wait too");
    let mut writer = running.client();
    writer.run("SET synchronous_commit = off").await.unwrap();
    let written = tokio::spawn(async move { writer.run("INSERT INTO t VALUES (2)").await });
    door.set_away(false);
    wait_for(&|| position() == n_records).await;
    wait_for(&|| !is_behind()).await;
    assert_eq!(running.number("SELECT count(*) FROM v").await, n_records);
    written.await.unwrap().unwrap();
    assert_eq!(running.number("SELECT sum(n) FROM t").await, 2, "what was cancelled while it waited is not there");
    running.engine.shutdown().await;
}

#[test]
fn what_cannot_be_used_is_told() {
    let server = S3Server::start().unwrap();
    let door = server.door(1).unwrap();
    let refused = |place: &BucketAddress| Bucket::open(place).unwrap().claim(None).unwrap_err();
    std::fs::create_dir_all(server.path_of("b")).unwrap();
    std::fs::write(server.path_of("b/letter.txt"), "x").unwrap();
    let error = refused(&door.place("b"));
    assert_eq!(error.state().code(), "55000");
    assert!(error.message().contains("letter.txt"), "{error}");
    let mut place = door.place("c");
    place.options.insert("aws_secret_access_key".into(), "wrong".into());
    assert_eq!(refused(&place).state().code(), "42501");
    Bucket::open(&door.place("d")).unwrap().claim(Some("0123")).unwrap();
    assert!(refused(&door.place("d")).message().contains("in another data directory"));
    door.set_away(true);
    assert_eq!(refused(&door.place("e")).state().code(), "58030");
}
