//! Servers that die at any step, on a disk that loses what was not synced, again and again: what was acknowledged is
//! there, what was refused is not, and every view is its query.
//!
//! All choices follow from the seed, but not how threads meet: a seed that fails fails again most of the time.
//! `TIDEWIRE_SEED=n cargo test -p tidewire-testkit --test crash` repeats one, `TIDEWIRE_CRASHES=n` runs more of them.
#![expect(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: what fails here fails it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidewire_engine::{Engine, Settings, ViewOrigin};
use tidewire_testkit::database::{Database, Failure, InProcess};
use tidewire_testkit::faulty::{Machine, Random, Sabotage};
use tidewire_testkit::ground::{BucketGround, Ground};
use tidewire_testkit::memory::{Memory, Stored};
use tidewire_testkit::server::Server;

const N_CLIENTS: u64 = 3;
const N_KEYS: u64 = 6;
/// Rows of each table that is made of a query.
const N_COPIED: &str = "5";
/// Statements of one client in one life of the server, at most.
const N_STATEMENTS: u64 = 25;
/// Crashes of one seed.
const N_LIVES: u64 = 8;

/// A client's rows of both tables, by key. It alone writes them.
type Rows = BTreeMap<(u64, u64), u64>;

/// One client, and what it knows.
struct Client {
    number: u64,
    random: Random,
    // What was acknowledged.
    rows: Rows,
    // What would be there if the statement whose answer never came has worked.
    doubtful: Option<Rows>,
    // The last number in the journal that it was told of, or saw.
    journal: u64,
    // Tables that it made of a query, and how often it put a view in the place of another.
    copies: u64,
    newest: u64,
}

/// What a statement of a client adds to.
enum Kind {
    Rows,
    Journal,
    Copy,
    Replace,
}

impl Client {
    /// Writes until the server dies. Errors: a wrong answer.
    async fn live(&mut self, engine: &Arc<Engine>) -> Result<(), String> {
        let mut db = InProcess(engine.session("tidewire", "tidewire"));
        for _ in 0..N_STATEMENTS {
            let (sql, rows, kind) = self.statement();
            let is_journal = matches!(kind, Kind::Journal);
            match db.run(&sql).await {
                Ok(_) => {
                    self.rows = rows;
                    match kind {
                        Kind::Rows => {}
                        Kind::Journal => self.journal += 1,
                        Kind::Copy => self.copies += 1,
                        Kind::Replace => self.newest += 1,
                    }
                }
                Err(e) if e.code == "53100" => {
                    // A transaction that could not be written has left nothing.
                    let _ = db.run("ROLLBACK").await;
                }
                Err(e) if ["57P01", "58030"].contains(&e.code.as_str()) => {
                    self.doubtful = Some(rows);
                    return Ok(());
                }
                Err(e) => return Err(format!("client {}: {e} at {sql}", self.number)),
            }
            // What it sees must outlive any crash, even if its own write was not answered.
            if is_journal
                && let Ok(seen) = db.run(&format!("SELECT max(n) FROM journal WHERE client = {}", self.number)).await
            {
                let seen = seen.rows[0][0].as_deref().map_or(0, |n| n.parse().unwrap());
                self.journal = self.journal.max(seen);
            }
        }
        Ok(())
    }

    fn statement(&mut self) -> (String, Rows, Kind) {
        let (client, key, value) = (self.number, self.random.below(N_KEYS), self.random.below(1000));
        let mut rows = self.rows.clone();
        let upsert = |table: u64| {
            format!(
                "INSERT INTO t{table} VALUES ({client}, {key}, {value}, 'a text of client {client} that is long enough') \
                 ON CONFLICT (client, k) DO UPDATE SET v = excluded.v"
            )
        };
        let mut kind = Kind::Rows;
        let sql = match self.random.below(16) {
            0..5 => {
                rows.insert((0, key), value);
                upsert(0)
            }
            5 | 6 => {
                rows.insert((0, key), value);
                rows.insert((1, key), value);
                format!("BEGIN; {}; {}; COMMIT", upsert(0), upsert(1))
            }
            7..9 => {
                rows.iter_mut().filter(|((table, _), _)| *table == 0).for_each(|(_, v)| *v += 1);
                format!("UPDATE t0 SET v = v + 1 WHERE client = {client}")
            }
            9..11 => {
                rows.remove(&(1, key));
                format!("DELETE FROM t1 WHERE client = {client} AND k = {key}")
            }
            11..14 => {
                kind = Kind::Journal;
                format!("INSERT INTO journal VALUES ({client}, {})", self.journal + 1)
            }
            14 => {
                kind = Kind::Copy;
                let (table, series) = (self.copy(self.copies + 1), format!("generate_series(1, {N_COPIED})"));
                format!("CREATE TABLE {table} AS SELECT i FROM {series} AS s(i)")
            }
            _ => {
                kind = Kind::Replace;
                format!("CREATE OR REPLACE VIEW newest_{client} AS SELECT {} AS n", self.newest + 1)
            }
        };
        (sql, rows, kind)
    }

    /// Compares what is there with what it knows.
    async fn check(&mut self, db: &mut InProcess) -> Result<(), String> {
        let mut found = Rows::new();
        for table in 0..2 {
            let answer = db.run(&format!("SELECT k, v FROM t{table} WHERE client = {}", self.number)).await;
            for row in answer.map_err(|e| e.to_string())?.rows {
                let number = |idx: usize| row[idx].as_deref().unwrap().parse::<u64>().unwrap();
                if found.insert((table, number(0)), number(1)).is_some() {
                    return Err(format!("client {}: key {} of t{table} is there twice", self.number, number(0)));
                }
            }
        }
        let is_doubtful = self.doubtful.take().is_some_and(|rows| rows == found);
        if found != self.rows && !is_doubtful {
            return Err(format!("client {} had {:?} and finds {found:?}", self.number, self.rows));
        }
        self.rows = found;
        let journal = format!("SELECT count(*), max(n) FROM journal WHERE client = {}", self.number);
        let answer = db.run(&journal).await.map_err(|e| e.to_string())?;
        let number = |idx: usize| answer.rows[0][idx].as_deref().map_or(0, |n| n.parse::<u64>().unwrap());
        if number(0) != number(1) || number(1) < self.journal {
            let (n, max) = (number(0), number(1));
            return Err(format!(
                "client {}: of {} journal rows {n} are found, the last is {max}",
                self.number, self.journal
            ));
        }
        self.journal = number(1);
        // A table that is made with rows has them; a view that takes another's place leaves no gap.
        let last = self.copies + 1;
        for n in 1..=last {
            match db.run(&format!("SELECT count(*) FROM {}", self.copy(n))).await {
                Ok(answer) if answer.rows[0][0].as_deref() == Some(N_COPIED) => self.copies = n,
                Err(e) if n == last && e.code == "42P01" => {}
                answer => return Err(format!("{}: {answer:?}", self.copy(n))),
            }
        }
        let newest = match db.run(&format!("SELECT n FROM newest_{}", self.number)).await {
            Ok(answer) => answer.rows[0][0].as_deref().unwrap().parse::<u64>().unwrap(),
            Err(e) if e.code == "42P01" => 0,
            Err(e) => return Err(e.to_string()),
        };
        if ![self.newest, self.newest + 1].contains(&newest) {
            return Err(format!("client {}: the view says {newest}, it was {}", self.number, self.newest));
        }
        self.newest = newest;
        Ok(())
    }

    fn copy(&self, n: u64) -> String {
        format!("copy_{}_{n}", self.number)
    }
}

const TABLES: &str = "
    CREATE TABLE t0 (client INT, k INT, v BIGINT, note TEXT, PRIMARY KEY (client, k));
    CREATE TABLE t1 (client INT, k INT, v BIGINT, note TEXT, PRIMARY KEY (client, k));
    CREATE TABLE journal (client INT, n INT);
    CREATE MATERIALIZED VIEW totals AS SELECT client, count(*) AS n, sum(v) AS total FROM t0 GROUP BY client;
    CREATE VIEW latest AS SELECT client, max(n) AS n FROM journal GROUP BY client;
    CREATE MATERIALIZED VIEW last_entry AS SELECT client, max(n) AS n FROM journal GROUP BY client;
    CREATE MATERIALIZED VIEW largest AS SELECT client, k, v FROM t0 ORDER BY v DESC, client, k LIMIT 5;
    CREATE MATERIALIZED VIEW ranked AS SELECT client, k, row_number() OVER (PARTITION BY client ORDER BY v, k) AS n FROM t0;
    CREATE MATERIALIZED VIEW over_all AS SELECT count(*) AS clients, sum(total) AS total FROM totals;
    CREATE MATERIALIZED VIEW vs AS SELECT v % 3 AS v FROM t0;
    CREATE SOURCE s (client INT, n BIGINT) WITH (connector = 'memory', topic = 'topic', splits = '2') FORMAT PLAIN ENCODE JSON;
    CREATE MATERIALIZED VIEW records AS SELECT client, count(*) AS n, sum(n) AS total FROM s GROUP BY client;
    CREATE MATERIALIZED VIEW by_key AS SELECT client, k, count(*) AS n, sum(v) AS total FROM t0 GROUP BY client, k;
    CREATE MATERIALIZED VIEW by_n AS SELECT n % 60 AS n, count(*) AS records, min(client) AS least FROM s GROUP BY n % 60;
    CREATE MATERIALIZED VIEW pairs AS SELECT t0.client, t0.k, t0.v - t1.v AS difference FROM t0 JOIN t1 USING (client, k);
";

/// Checkpoints all the time and small segments, so that a crash meets every kind of step.
fn settings(random: &mut Random) -> Settings {
    Settings {
        n_shards: 1,
        checkpoint_interval: Duration::from_millis(random.below(3)),
        // Of many groups one at a time, so that most of them change before they are copied.
        checkpoint_copy_bytes: [1, 200, 1 << 20][random.below(3) as usize],
        log_segment_bytes_max: 1000 + random.below(20_000),
        ..Settings::default()
    }
}

async fn open(random: &mut Random, machine: &dyn Ground, memory: &Memory) -> Result<Arc<Engine>, Failure> {
    let storage = tokio::task::block_in_place(|| machine.storage())?;
    Server::engine(&settings(random), storage, memory).await
}

/// Records come to the topic until the server is dead.
async fn produce(memory: &Memory, random: &mut Random, ended: &AtomicBool) {
    let mut again = tokio::time::interval(Duration::from_millis(1));
    while !ended.load(Ordering::Relaxed) {
        let record = |n| Stored::of_value(format!(r#"{{"client": {}, "n": {n}}}"#, n % N_CLIENTS));
        let records: Vec<Stored> = (0..random.below(4)).map(|_| record(random.below(1000))).collect();
        memory.append("topic", random.below(2) as u32, records);
        again.tick().await;
    }
}

/// Waits until views have every record of the topic.
async fn catch_up(engine: &Engine, memory: &Memory) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut again = tokio::time::interval(Duration::from_millis(1));
    loop {
        let ends = memory.ends("s").ok_or("there is no topic")?;
        let sources = engine.status().sources;
        let positions = sources.iter().flat_map(|source| &source.splits).map(|s| (s.split, s.position));
        let positions: BTreeMap<u32, i64> = positions.collect();
        if ends.iter().all(|(split, end)| positions.get(&split.0).copied().unwrap_or(0) >= *end) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("records do not arrive: {positions:?} of {ends:?}: {sources:?}"));
        }
        again.tick().await;
    }
}

/// What became of one seed.
#[derive(Default)]
struct Lives {
    /// The steps at which a server died.
    died_at: BTreeSet<&'static str>,
    /// Views that a start restored.
    n_restored: usize,
    /// Views that a start built again.
    n_rebuilt: usize,
}

impl Lives {
    fn add(&mut self, more: Lives) {
        self.died_at.extend(more.died_at);
        self.n_restored += more.n_restored;
        self.n_rebuilt += more.n_rebuilt;
    }
}

/// One seed: some lives of a server, each ended by a crash. Errors: what was wrong.
async fn crash_and_recover(seed: u64, machine: &dyn Ground) -> Result<Lives, String> {
    let mut result = Lives::default();
    let memory = Memory::default();
    let mut random = Random(seed);
    let engine = open(&mut random, machine, &memory).await.map_err(|e| format!("the first start: {e}"))?;
    let mut db = InProcess(engine.session("tidewire", "tidewire"));
    db.run(TABLES).await.map_err(|e| format!("the tables: {e}"))?;
    drop(db);
    let client = |number| Client {
        number,
        random: Random(seed ^ (number << 32)),
        rows: Rows::new(),
        doubtful: None,
        journal: 0,
        copies: 0,
        newest: 0,
    };
    let mut clients: Vec<Client> = (0..N_CLIENTS).map(client).collect();
    let mut engine = Some(engine);
    for life in 0..N_LIVES {
        if let Some(engine) = engine.take() {
            machine.fail_every((random.below(3) == 0).then_some(10));
            if random.below(8) > 0 {
                machine.die_after(random.below(if life == 0 { 60 } else { 300 }));
            }
            let ended = AtomicBool::new(false);
            let lives = clients.iter_mut().map(|client| client.live(&engine));
            let lives = async {
                let lives = futures::future::join_all(lives).await;
                ended.store(true, Ordering::Relaxed);
                lives
            };
            let mut records = Random(seed ^ life);
            let (lives, ()) = tokio::join!(lives, produce(&memory, &mut records, &ended));
            lives.into_iter().collect::<Result<Vec<()>, _>>()?;
            // Some servers end in good order, some die while they do.
            let is_killed = random.below(3) > 0;
            if is_killed {
                machine.kill();
            }
            engine.shutdown().await;
        }
        result.died_at.extend(machine.died_at());
        machine.reboot();
        // A start may be cut short too: the next one finds what it has left.
        if random.below(4) == 0 {
            machine.die_after(random.below(12));
            if let Ok(started) = open(&mut random, machine, &memory).await {
                machine.kill();
                started.shutdown().await;
            }
            machine.reboot();
        }
        machine.fail_every(None);
        let started =
            open(&mut random, machine, &memory).await.map_err(|e| format!("life {life}, the next start: {e}"))?;
        let mut db = InProcess(started.session("tidewire", "tidewire"));
        for client in &mut clients {
            client.check(&mut db).await.map_err(|e| format!("life {life}: {e}"))?;
        }
        catch_up(&started, &memory).await.map_err(|e| format!("life {life}: {e}"))?;
        check_views(&mut db).await.map_err(|e| format!("life {life}: {e}"))?;
        for view in started.status().views {
            result.n_restored += usize::from(view.origin == ViewOrigin::Restored);
            result.n_rebuilt += usize::from(view.origin == ViewOrigin::Rebuilt);
        }
        engine = Some(started);
    }
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(result)
}

async fn check_views(db: &mut InProcess) -> Result<(), String> {
    for (view, query) in [
        ("totals", "SELECT client, count(*) AS n, sum(v) AS total FROM t0 GROUP BY client"),
        ("pairs", "SELECT t0.client, t0.k, t0.v - t1.v AS difference FROM t0 JOIN t1 USING (client, k)"),
        ("last_entry", "SELECT client, max(n) AS n FROM journal GROUP BY client"),
        ("largest", "SELECT client, k, v FROM t0 ORDER BY v DESC, client, k LIMIT 5"),
        ("ranked", "SELECT client, k, row_number() OVER (PARTITION BY client ORDER BY v, k) AS n FROM t0"),
        ("over_all", "SELECT count(*) AS clients, sum(total) AS total FROM totals"),
        ("vs", "SELECT v % 3 AS v FROM t0"),
        ("records", "SELECT client, count(*) AS n, sum(n) AS total FROM s GROUP BY client"),
        ("by_key", "SELECT client, k, count(*) AS n, sum(v) AS total FROM t0 GROUP BY client, k"),
        ("by_n", "SELECT n % 60 AS n, count(*) AS records, min(client) AS least FROM s GROUP BY n % 60"),
        ("latest", "SELECT client, max(n) AS n FROM journal GROUP BY client"),
    ] {
        let content = db.run(&format!("SELECT * FROM {view}")).await.map_err(|e| format!("{view}: {e}"))?;
        let batch = db.run(query).await.map_err(|e| format!("{view} as a query: {e}"))?;
        tidewire_testkit::oracle::compare(&content, &batch).map_err(|e| format!("{view} is not its query: {e}"))?;
    }
    Ok(())
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64, machine: &dyn Ground) -> Result<Lives, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(crash_and_recover(seed, machine))
}

/// The seeds of this run: some, or those that the environment asks for.
fn seeds(n_crashes: u64) -> std::ops::Range<u64> {
    match (variable("TIDEWIRE_SEED"), variable("TIDEWIRE_CRASHES")) {
        (Some(seed), _) => seed..seed + 1,
        (None, asked) => 1..1 + (asked.unwrap_or(n_crashes) / N_LIVES).max(1),
    }
}

#[test]
fn what_was_acknowledged_is_there_after_any_crash() {
    let (seeds, mut all) = (seeds(64), Lives::default());
    let n_seeds = seeds.end - seeds.start;
    for seed in seeds {
        match run(seed, &Machine::new(seed, Sabotage::None)) {
            Ok(lives) => all.add(lives),
            Err(failure) => panic!(
                "seed {seed}: {failure}\nTIDEWIRE_SEED={seed} cargo test -p tidewire-testkit --test crash repeats it"
            ),
        }
    }
    let Lives { died_at, n_restored, n_rebuilt } = all;
    println!("{} lives, ended at {died_at:?}; {n_restored} views restored, {n_rebuilt} built again", n_seeds * N_LIVES);
    assert!(n_restored > 3 * n_rebuilt, "{n_restored} views were restored, {n_rebuilt} built again");
    assert!(died_at.len() > 5 || n_seeds == 1, "the crashes meet all kinds of steps");
}

#[test]
fn what_was_acknowledged_is_there_after_any_crash_over_an_object_store() {
    let mut all = Lives::default();
    for seed in seeds(32) {
        match run(seed, &BucketGround::new(seed).unwrap()) {
            Ok(lives) => all.add(lives),
            Err(failure) => panic!(
                "seed {seed}: {failure}\nTIDEWIRE_SEED={seed} cargo test -p tidewire-testkit --test crash repeats it"
            ),
        }
    }
    let Lives { died_at, n_restored, n_rebuilt } = all;
    println!("{n_restored} views restored, {n_rebuilt} built again");
    assert!(n_restored > n_rebuilt, "{n_restored} views were restored, {n_rebuilt} built again");
    assert!(!died_at.is_empty(), "no process died at a request");
}

/// Shows that the harness would find it.
fn is_found(sabotage: Sabotage) {
    let found = (1..=40).find_map(|seed| run(seed, &Machine::new(seed, sabotage)).map(drop).err());
    match found {
        Some(failure) => println!("{sabotage:?} is found: {failure}"),
        None => panic!("{sabotage:?} is not found"),
    }
}

#[test]
fn a_removed_fsync_is_found() {
    is_found(Sabotage::NoSync);
}

#[test]
fn a_manifest_that_is_written_too_early_is_found() {
    is_found(Sabotage::EarlyManifest);
}
