//! `BACKUP TO` while clients write, and what `tidewire restore` makes of it: one moment, whole.
#![expect(clippy::unwrap_used, reason = "a test: what fails here fails it")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidewire_engine::{Engine, Settings, ViewOrigin};
use tidewire_state::{BackupTarget, DataDir, Location, restore};
use tidewire_testkit::database::{Database, InProcess};
use tidewire_testkit::memory::Memory;
use tidewire_testkit::s3::S3Server;
use tidewire_testkit::server::Server;

struct Running {
    engine: Arc<Engine>,
    _data_dir: DataDir,
}

async fn start(path: &Path) -> Running {
    let settings = Settings { n_shards: 1, checkpoint_interval: Duration::from_millis(20), ..Settings::default() };
    let data_dir = DataDir::open(path).unwrap();
    let engine = Server::engine(&settings, data_dir.storage().unwrap(), &Memory::default()).await.unwrap();
    Running { engine, _data_dir: data_dir }
}

impl Running {
    fn client(&self) -> InProcess {
        InProcess(self.engine.session("tidewire", "tidewire"))
    }

    async fn numbers(&self, sql: &str) -> Vec<i64> {
        let row = self.client().run(sql).await.unwrap().rows.remove(0);
        row.iter().map(|v| v.as_deref().unwrap_or("0").parse().unwrap()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_one_moment() {
    let root = tempfile::tempdir().unwrap();
    let running = start(&root.path().join("data")).await;
    running
        .client()
        .run(
            "CREATE TABLE a (n BIGINT PRIMARY KEY, filler TEXT); CREATE TABLE b (n BIGINT);
              CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n, sum(n) AS s FROM a",
        )
        .await
        .unwrap();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = {
        let (mut db, stop, done) = (running.client(), stop.clone(), done.clone());
        tokio::spawn(async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                let sql = format!("BEGIN; INSERT INTO a VALUES ({n}, 'x'); INSERT INTO b VALUES ({n}); COMMIT");
                db.run(&sql).await.unwrap();
                n += 1;
                done.store(n, Ordering::Relaxed);
            }
        })
    };
    for round in 0..4 {
        let before = done.load(Ordering::Relaxed) as i64;
        let target = root.path().join(format!("backup-{round}"));
        let answer = running.client().run(&format!("BACKUP TO '{}'", target.display())).await.unwrap();
        assert_eq!(answer.rows[0][0].as_deref(), target.to_str());
        let after = done.load(Ordering::Relaxed) as i64 + 1;
        let restored = root.path().join(format!("restored-{round}"));
        let data_dir = DataDir::open(&restored).unwrap();
        restore(&Location::Directory(target), &data_dir).unwrap();
        drop(data_dir);
        let copy = start(&restored).await;
        let found = copy.numbers("SELECT count(*), max(n) + 1, count(DISTINCT n) FROM a").await;
        assert!((before..=after).contains(&found[0]), "{found:?} of {before} to {after}");
        assert!(found.iter().all(|n| *n == found[0]), "none is missing between: {found:?}");
        assert_eq!(copy.numbers("SELECT count(*) FROM b").await, [found[0]], "a transaction is whole");
        assert_eq!(copy.numbers("SELECT n FROM m").await, [found[0]]);
        let origins: Vec<ViewOrigin> = copy.engine.status().views.iter().map(|view| view.origin).collect();
        assert_eq!(origins, [ViewOrigin::Restored], "the backup has the view's state");
        copy.client().run("INSERT INTO a VALUES (-1, 'new')").await.unwrap();
        copy.engine.shutdown().await;
        drop(copy);
        let again = start(&restored).await;
        assert_eq!(again.numbers("SELECT count(*) FROM a").await, [found[0] + 1]);
        assert_eq!(again.numbers("SELECT n FROM m").await, [found[0] + 1]);
        again.engine.shutdown().await;
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    running.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_in_a_bucket_is_checked_when_it_is_restored() {
    let (root, server) = (tempfile::tempdir().unwrap(), S3Server::start().unwrap());
    let door = server.door(1).unwrap();
    let place = Location::Store(door.place("backups/monday"));
    {
        let running = start(&root.path().join("data")).await;
        running.client().run("CREATE TABLE t (a BIGINT); INSERT INTO t VALUES (1), (2)").await.unwrap();
        running.engine.shutdown().await;
    }
    // The statement reads the environment of the process; what it does with the place is this.
    let target = tokio::task::block_in_place(|| BackupTarget::open(&place)).unwrap();
    let data_dir = DataDir::open(&root.path().join("data")).unwrap();
    let checkpoints = tidewire_state::Checkpoints::open(data_dir.storage().unwrap()).unwrap();
    let done = tokio::task::block_in_place(|| target.write(&checkpoints)).unwrap();
    assert_eq!(done.n_files, server.objects("backups/monday").iter().filter(|o| !o.contains("/.")).count() as u64);
    assert_eq!(BackupTarget::open(&place).err().unwrap().state().code(), "58P02");
    let restored = DataDir::open(&root.path().join("restored")).unwrap();
    restore(&place, &restored).unwrap();
    assert_eq!(restore(&place, &restored).unwrap_err().state().code(), "58P02");
    drop(restored);
    let copy = start(&root.path().join("restored")).await;
    assert_eq!(copy.numbers("SELECT sum(a) FROM t").await, [3]);
    copy.engine.shutdown().await;
    let file = server.objects("backups/monday").into_iter().find(|o| o.ends_with(".pack")).unwrap();
    let mut bytes = std::fs::read(server.path_of(&file)).unwrap();
    bytes[100] ^= 1;
    std::fs::write(server.path_of(&file), bytes).unwrap();
    let other = DataDir::open(&root.path().join("other")).unwrap();
    assert_eq!(restore(&place, &other).unwrap_err().state().code(), "XX001");
    let nothing = Location::Directory(root.path().join("nothing"));
    let other = DataDir::open(&root.path().join("third")).unwrap();
    assert_eq!(restore(&nothing, &other).unwrap_err().state().code(), "58P01");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_backed_up_is_told() {
    let root = tempfile::tempdir().unwrap();
    let running = start(&root.path().join("data")).await;
    let mut db = running.client();
    let mut code = async |sql: String| db.run(&sql).await.err().map(|e| e.code).unwrap();
    assert_eq!(code("BACKUP TO 'relative'".into()).await, "42602");
    assert_eq!(code(format!("BACKUP TO '{}'", root.path().display())).await, "58P02");
    assert_eq!(code("BACKUP TO 'ftp://host/x'".into()).await, "0A000");
    assert_eq!(code("BACKUP TO".into()).await, "42601");
    let target = root.path().join("new").display().to_string();
    assert_eq!(code(format!("BEGIN; BACKUP TO '{target}'")).await, "25001");
    running.engine.shutdown().await;
    let memory = Server::start(Settings::default()).unwrap();
    let mut db = memory.client().await.unwrap();
    assert_eq!(db.run(&format!("BACKUP TO '{target}'")).await.unwrap_err().code, "55000");
}
