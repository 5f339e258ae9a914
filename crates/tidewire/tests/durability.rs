//! The binary is killed under load and started again: everything that a client was told of is there.
//!
//! Every wait is for a condition with a deadline. `TIDEWIRE_KILLS=n` kills more often than the few times of CI.
#![expect(clippy::expect_used, clippy::panic, reason = "a test: what fails here fails it")]

#[path = "common/process.rs"]
mod process;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use process::{Running, http_get, number_after, psql, psql_command, serve, tidewire};
use tidewire_testkit::s3::{Door, S3Server};
use tokio_postgres::{NoTls, SimpleQueryMessage};

const N_CLIENTS: u64 = 4;

fn serve_in(directory: &Path) -> process::Server {
    serve(&["--data-dir", directory.to_str().expect("a path of text")])
}

/// `tidewire serve` in a directory, on free ports, whatever becomes of it.
fn start_in(directory: &Path) -> Running {
    let ports = ["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data-dir"];
    Running::start(tidewire().args(ports).arg(directory))
}

/// What one client knows: transactions that were answered; one more may have been done.
#[derive(Clone, Copy, Default)]
struct Known {
    answered: u64,
    has_doubt: bool,
}

/// Moves one unit from account to account and notes it, a transaction each, until the server dies.
async fn transfer(port: u16, client: u64, from: Known, total: &AtomicU64) -> Known {
    let parameters = format!("host=127.0.0.1 port={port} user=tidewire dbname=tidewire");
    let (session, connection) = tokio_postgres::connect(&parameters, NoTls).await.expect("connects");
    let connection = tokio::spawn(connection);
    let mut answered = from.answered;
    loop {
        let n = answered + 1;
        let (giver, taker) = (client * 10 + n % 5, client * 10 + (n + 2) % 5);
        let sql = format!(
            "BEGIN; UPDATE accounts SET balance = balance + CASE WHEN id = {taker} THEN 1 ELSE -1 END \
             WHERE id IN ({giver}, {taker}); INSERT INTO transfers VALUES ({client}, {n}); COMMIT"
        );
        match session.simple_query(&sql).await {
            Ok(_) => answered = n,
            Err(error) if error.code().is_some_and(|code| code.code() != "57P01") => panic!("{error} at {sql}"),
            Err(_) => break,
        }
        total.fetch_add(1, Ordering::Relaxed);
    }
    let _ = connection.await;
    Known { answered, has_doubt: true }
}

fn wait_for_checkpoint(server: &process::Server) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while http_get(server.http_port, "/metrics").1.contains("\ntidewire_checkpoints_total 0\n") {
        assert!(Instant::now() < deadline, "no checkpoint is written");
    }
}

async fn rows(port: u16, sql: &str) -> Vec<Vec<i64>> {
    let parameters = format!("host=127.0.0.1 port={port} user=tidewire dbname=tidewire");
    let (session, connection) = tokio_postgres::connect(&parameters, NoTls).await.expect("connects");
    tokio::spawn(connection);
    let messages = session.simple_query(sql).await.expect("a query that works");
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|idx| row.get(idx).expect("not NULL").parse().expect("a number")).collect())
        }
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

#[test]
fn what_a_client_was_told_survives_kill_9() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let n_kills = std::env::var("TIDEWIRE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(4_u64);
    let mut server = serve_in(directory.path());
    psql(
        server.pg_port,
        "CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL);
         CREATE TABLE transfers (client BIGINT, n BIGINT, PRIMARY KEY (client, n));
         INSERT INTO accounts SELECT c * 10 + a, 100 FROM generate_series(0, 3) AS x(c), generate_series(0, 4) AS y(a);
         CREATE MATERIALIZED VIEW per_client AS SELECT client, count(*) AS n, max(n) AS last FROM transfers GROUP BY client;
         CREATE MATERIALIZED VIEW total AS SELECT sum(balance) AS balance FROM accounts;",
    );
    // From now on a start finds the views in a checkpoint.
    wait_for_checkpoint(&server);
    let mut known = vec![Known::default(); N_CLIENTS as usize];
    for kill in 0..n_kills {
        let done = AtomicU64::new(0);
        let wanted = 40 + kill * 37 % 100;
        let port = server.pg_port;
        known = runtime.block_on(async {
            let clients = known.iter().zip(0..).map(|(known, client)| transfer(port, client, *known, &done));
            let clients = futures::future::join_all(clients);
            let killed = async {
                let deadline = Instant::now() + Duration::from_secs(300);
                let mut again = tokio::time::interval(Duration::from_millis(1));
                while done.load(Ordering::Relaxed) < wanted {
                    assert!(Instant::now() < deadline, "the clients do not come on");
                    again.tick().await;
                }
                server.process.signal("KILL");
            };
            tokio::join!(clients, killed).0
        });
        assert_eq!(server.process.wait(), None, "killed");
        server = serve_in(directory.path());
        let rebuilt = "SELECT count(*) FROM tidewire.materialized_views WHERE origin <> 'restored'";
        assert_eq!(runtime.block_on(rows(server.pg_port, rebuilt)), [[0]], "views are restored");
        let found = runtime.block_on(rows(server.pg_port, "SELECT client, n, last FROM per_client ORDER BY client"));
        let table = "SELECT client, count(*), max(n) FROM transfers GROUP BY client ORDER BY client";
        assert_eq!(runtime.block_on(rows(server.pg_port, table)), found, "the view is its query");
        for (client, known) in known.iter_mut().enumerate() {
            let row = found.iter().find(|row| row.first() == Some(&(client as i64)));
            let (n, last) = row.map_or((0, 0), |row| (row[1], row[2]));
            assert_eq!(n, last, "client {client}: none is missing between");
            let last = last as u64;
            let may_be = known.answered..=known.answered + u64::from(known.has_doubt);
            assert!(may_be.contains(&last), "client {client} was told of {} and finds {last}", known.answered);
            *known = Known { answered: last, has_doubt: false };
        }
        assert_eq!(
            runtime.block_on(rows(server.pg_port, "SELECT balance FROM total")),
            [[2000]],
            "a transfer is whole"
        );
    }
    assert_eq!(server.end("TERM"), Some(0));
}

#[test]
fn everything_comes_back_after_a_stop_and_ids_stay() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = serve_in(directory.path());
    psql(
        server.pg_port,
        "CREATE TABLE t (a INT PRIMARY KEY, b TEXT DEFAULT 'x' || 'y', c NUMERIC(10,2)[], d JSONB);
         CREATE TABLE gone (a INT);
         INSERT INTO t VALUES (1, 'one', ARRAY[1.5, NULL], '{\"k\": 1}'), (2, NULL, NULL, NULL);
         INSERT INTO t (a) VALUES (3);
         DELETE FROM t WHERE a = 2;
         CREATE SOURCE numbers (n BIGINT) WITH (connector = 'generator', rows = '100');
         CREATE VIEW plain AS SELECT a, b FROM t;
         CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM plain;
         CREATE MATERIALIZED VIEW on_source AS SELECT count(*) AS n FROM numbers;
         DROP TABLE gone;",
    );
    let look =
        "SELECT oid::bigint, relname FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'v', 'm') ORDER BY oid;
                SELECT * FROM t ORDER BY a; SELECT * FROM m; SELECT * FROM on_source; SELECT * FROM plain ORDER BY a;";
    let before = psql(server.pg_port, look);
    assert!(before.contains("3|xy||") && before.contains("100"), "{before}");
    assert_eq!(server.end("TERM"), Some(0));
    let server = serve_in(directory.path());
    assert_eq!(psql(server.pg_port, look), before);
    let origins = "SELECT name, origin FROM tidewire.materialized_views ORDER BY name";
    assert_eq!(psql(server.pg_port, origins), "m|restored\non_source|restored\n");
    psql(server.pg_port, "CREATE TABLE new (a INT); INSERT INTO t (a) VALUES (4);");
    let highest = psql(server.pg_port, "SELECT max(oid)::bigint FROM pg_class WHERE relname = 'new'");
    assert!(before.lines().filter_map(|line| line.split('|').next()).all(|oid| oid != highest.trim()), "{highest}");
    assert_eq!(psql(server.pg_port, "SELECT n FROM m").trim(), "3");
    assert_eq!(server.end("TERM"), Some(0));
}

#[test]
fn a_server_that_recovers_tells_its_clients_and_can_be_stopped() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = serve_in(directory.path());
    psql(
        server.pg_port,
        "CREATE SOURCE bids WITH (connector = 'nexmark', table.type = 'bid', rows = '200000000');
         SET background_ddl = on;
         CREATE MATERIALIZED VIEW v AS SELECT auction, count(*) AS n FROM bids GROUP BY auction;",
    );
    assert_eq!(server.end("TERM"), Some(0));
    let mut server = start_in(directory.path());
    let line = server.wait_for("the addresses", |line| line.contains("starting;"));
    let output = psql_command(number_after(&line, "clients=127.0.0.1:")).args(["-c", "SELECT 1"]).output();
    let output = String::from_utf8_lossy(&output.expect("psql runs").stderr).into_owned();
    assert!(output.contains("FATAL:  the database system is starting up"), "{output}");
    let (code, body) = http_get(number_after(&line, "http=127.0.0.1:"), "/health");
    assert_eq!((code, body.contains("\"starting\"")), (503, true), "{body}");
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_directory_that_cannot_be_used_is_told_with_exit_code_1() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("PG_VERSION"), "15\n").expect("writes");
    let (code, output) = start_in(directory.path()).output();
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("it is a data directory of PostgreSQL"), "{output}");

    let read_only = directory.path().join("read-only");
    fs::create_dir(&read_only).expect("a directory");
    fs::set_permissions(&read_only, fs::Permissions::from_mode(0o500)).expect("permissions");
    // Root may write everywhere: then there is nothing to see.
    if fs::write(read_only.join("probe"), "").is_err() {
        let (code, output) = start_in(&read_only).output();
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains("cannot write in the data directory"), "{output}");
    }
}

#[test]
fn damage_in_the_log_is_told_with_its_place_and_cut_on_demand() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = serve_in(directory.path());
    psql(server.pg_port, "CREATE TABLE t (a INT PRIMARY KEY);");
    (1..=5).for_each(|n| drop(psql(server.pg_port, &format!("INSERT INTO t VALUES ({n})"))));
    server.process.signal("KILL");
    assert_eq!(server.process.wait(), None);
    let log = directory.path().join("log");
    let segment = fs::read_dir(&log).expect("a log").next().expect("a segment").expect("an entry").path();
    let mut bytes = fs::read(&segment).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, bytes).expect("writes");

    let (code, output) = start_in(directory.path()).output();
    assert_eq!(code, Some(1), "{output}");
    let name = segment.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(output.contains(name) && output.contains("at offset ") && output.contains("--cut-damaged-log"), "{output}");

    let path = directory.path().to_str().expect("a path of text");
    let server = serve(&["--data-dir", path, "--cut-damaged-log"]);
    let n: i64 = psql(server.pg_port, "SELECT count(*) FROM t").trim().parse().expect("a number");
    assert!((1..5).contains(&n), "{n} rows stand before the damage");
    assert!(
        fs::read_dir(&log).expect("a log").any(|e| e.expect("an entry").path().to_string_lossy().ends_with(".damaged"))
    );
    assert_eq!(server.end("TERM"), Some(0));
}

/// `tidewire serve` in an object store, on free ports.
fn start_in_store(door: &Door, arguments: &[&str]) -> Running {
    let ports = ["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
    Running::start(tidewire().args(ports).args(arguments).envs(door.variables()))
}

/// Waits until it serves: its port.
fn pg_port(running: &mut Running) -> u16 {
    number_after(&running.wait_for("the address", |line| line.contains("PostgreSQL clients: psql")), "-p ")
}

#[test]
fn of_two_servers_in_one_store_the_second_goes_on_and_the_first_says_why_it_ends() {
    let server = S3Server::start().expect("a server");
    let (door, other_door) = (server.door(1).expect("a door"), server.door(2).expect("a door"));
    let place = format!("s3://{}/shop", tidewire_testkit::s3::BUCKET);
    let mut first = start_in_store(&door, &["--data-dir", &place]);
    let first_port = pg_port(&mut first);
    psql(
        first_port,
        "CREATE TABLE t (a INT); CREATE MATERIALIZED VIEW m AS SELECT sum(a) AS s FROM t; INSERT INTO t VALUES (1), (2)",
    );
    let mut second = start_in_store(&other_door, &["--data-dir", &place]);
    let second_port = pg_port(&mut second);
    assert_eq!(psql(second_port, "SELECT s FROM m").trim(), "3");
    // It has nothing to write, and sees it all the same.
    let (code, output) = first.output();
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("another server has taken over") && output.contains("process"), "{output}");
    psql(second_port, "INSERT INTO t VALUES (4)");
    let backup = tempfile::tempdir().expect("a directory");
    let target = backup.path().join("copy");
    psql(second_port, &format!("BACKUP TO '{}'", target.display()));
    second.signal("TERM");
    assert_eq!(second.wait(), Some(0));
    let directory = backup.path().join("restored");
    let mut restore = tidewire();
    let restore = restore.args(["restore", "--from"]).arg(&target).arg("--data-dir").arg(&directory);
    let (code, output) = Running::start(restore).output();
    assert_eq!(code, Some(0), "{output}");
    let restored = serve_in(&directory);
    assert_eq!(psql(restored.pg_port, "SELECT s FROM m").trim(), "7");
    assert_eq!(restored.end("TERM"), Some(0));
}

#[test]
fn checkpoints_may_be_in_a_store_and_the_log_on_disk() {
    let (server, directory) = (S3Server::start().expect("a server"), tempfile::tempdir().expect("a directory"));
    let door = server.door(1).expect("a door");
    let place = format!("s3://{}/checkpoints", tidewire_testkit::s3::BUCKET);
    let data_dir = directory.path().join("data").display().to_string();
    let arguments = ["--data-dir", data_dir.as_str(), "--checkpoint-dir", place.as_str()];
    for life in 0..2 {
        let mut running = start_in_store(&door, &arguments);
        let port = pg_port(&mut running);
        match life {
            0 => psql(port, "CREATE TABLE t (a INT); INSERT INTO t VALUES (1), (2)"),
            _ => psql(port, "INSERT INTO t VALUES (3)"),
        };
        assert_eq!(psql(port, "SELECT count(*) FROM t").trim(), ["2", "3"][life]);
        running.signal(["TERM", "KILL"][life]);
        running.wait();
    }
    // Neither goes without the other.
    let (code, output) = start_in_store(&door, &["--data-dir", &data_dir]).output();
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("its checkpoints are in"), "{output}");
    let other = directory.path().join("other").display().to_string();
    let (code, output) = start_in_store(&door, &["--data-dir", &other, "--checkpoint-dir", &place]).output();
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("in another data directory"), "{output}");
    // The disk is lost: what the last checkpoint has is not.
    let third = directory.path().join("third");
    let mut restore = tidewire();
    let restore = restore.envs(door.variables()).args(["restore", "--from", &place, "--data-dir"]).arg(&third);
    let (code, output) = Running::start(restore).output();
    assert_eq!(code, Some(0), "{output}");
    let restored = serve_in(&third);
    // The third row is in it where a checkpoint was due before the end.
    let found = psql(restored.pg_port, "SELECT count(*) FROM t");
    assert!(["2", "3"].contains(&found.trim()), "{found}");
    assert_eq!(restored.end("TERM"), Some(0));
}

#[test]
fn a_store_that_does_not_answer_is_told_at_the_start() {
    let server = S3Server::start().expect("a server");
    let door = server.door(1).expect("a door");
    door.set_away(true);
    let place = format!("s3://{}/x", tidewire_testkit::s3::BUCKET);
    let (code, output) = start_in_store(&door, &["--data-dir", &place]).output();
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("cannot read \"s3://") && output.contains("AWS_ENDPOINT"), "{output}");
    // One that goes away later does not keep a server from ending.
    door.set_away(false);
    let mut running = start_in_store(&door, &["--data-dir", &place]);
    let port = pg_port(&mut running);
    psql(port, "CREATE TABLE t (a INT)");
    door.set_away(true);
    running.signal("TERM");
    let (code, output) = running.output();
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("did not end within"), "{output}");
}
