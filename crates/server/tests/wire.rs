//! Clients against a running server: tokio-postgres, psql, and bare sockets.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what a helper here cannot do fails the test")]

use std::io::BufRead;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, TryStreamExt};
use tidewire_engine::{Components, Engine, Settings};
use tidewire_server::{Limits, PgSystem, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// How long anything here may take before the test fails.
const DEADLINE: Duration = Duration::from_secs(60);

struct Server {
    address: SocketAddr,
    engine: Arc<Engine>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start() -> Server {
        Server::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Server {
        let components = Components::new(&[], Arc::new(PgSystem));
        let engine = Engine::start(Settings::default(), components).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { drop(stopped.await) };
        let task = tokio::spawn(serve(listener, engine.clone(), limits, shutdown));
        Server { address, engine, stop: Some(stop), task }
    }

    fn config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.address.port()).user("ada").dbname("tidewire");
        config
    }

    async fn client(&self) -> Client {
        let (client, connection) = self.config().connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        within(self.task).await.unwrap();
        within(self.engine.shutdown()).await;
    }

    fn psql(&self, commands: &[&str]) -> String {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-h", "127.0.0.1", "-U", "ada", "-d", "tidewire", "-p", &self.address.port().to_string()]);
        for command in commands {
            psql.args(["-c", command]);
        }
        let output = psql.output().expect("psql must be installed (Debian: postgresql-client)");
        let errors = String::from_utf8(output.stderr).unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &errors;
        // psql pads the last column.
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("took too long")
}

fn rows(messages: Vec<SimpleQueryMessage>) -> Vec<String> {
    messages
        .into_iter()
        .map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                (0..row.len()).map(|idx| row.get(idx).unwrap_or("NULL")).collect::<Vec<_>>().join("|")
            }
            SimpleQueryMessage::CommandComplete(n) => format!("done {n}"),
            SimpleQueryMessage::RowDescription(_) => "columns".to_owned(),
            _ => "other".to_owned(),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_one_text_run_until_the_first_error() {
    let server = Server::start().await;
    let client = server.client().await;
    let answer = client.simple_query("SELECT 1, NULL; ; SELECT 'x' AS a WHERE false").await.unwrap();
    assert_eq!(rows(answer), ["columns", "1|NULL", "done 1", "columns", "done 0"]);
    assert_eq!(rows(client.simple_query("-- nothing").await.unwrap()), ["done 0"]);
    let error = client.simple_query("SELECT 1; SELECT nope; CREATE TABLE never (a int)").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code(), &SqlState::UNDEFINED_COLUMN);
    assert_eq!(error.position(), Some(&tokio_postgres::error::ErrorPosition::Original(18)));
    let error = client.simple_query("SELECT * FROM never").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::UNDEFINED_TABLE));
    let error = client.simple_query("SELECT 1 +").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::SYNTAX_ERROR));
    assert_eq!(rows(client.simple_query("SELECT 2").await.unwrap()), ["columns", "2", "done 1"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_and_results_travel_in_binary() {
    let server = Server::start().await;
    let client = server.client().await;
    let row = client
        .query_one(
            "SELECT ($1::int + 1)::int, $2::text || '!', $3::float8, $4::bool, $5::smallint, $6::bigint, $7::bytea",
            &[&41i32, &"hi", &1.5f64, &true, &7i16, &i64::MAX, &&b"\x00\x01"[..]],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, i32>(0), 42);
    assert_eq!(row.get::<_, &str>(1), "hi!");
    assert_eq!(row.get::<_, f64>(2), 1.5);
    assert!(row.get::<_, bool>(3));
    assert_eq!(row.get::<_, i16>(4), 7);
    assert_eq!(row.get::<_, i64>(5), i64::MAX);
    assert_eq!(row.get::<_, &[u8]>(6), b"\x00\x01");
    let row = client.query_one("SELECT ARRAY[1, 2, NULL]::bigint[] AS a, $1::text[] AS b", &[&vec!["x", "y z"]]).await;
    let row = row.unwrap();
    assert_eq!(row.get::<_, Vec<Option<i64>>>(0), [Some(1), Some(2), None]);
    assert_eq!(row.get::<_, Vec<String>>(1), ["x", "y z"]);
    let statement =
        client.prepare("SELECT $1::numeric(12,2) AS n, $2::timestamptz AS at, $3::uuid AS id").await.unwrap();
    let types: Vec<&str> = statement.columns().iter().map(|c| c.type_().name()).collect();
    assert_eq!(types, ["numeric", "timestamptz", "uuid"]);
    let types: Vec<&str> = statement.params().iter().map(|t| t.name()).collect();
    assert_eq!(types, ["numeric", "timestamptz", "uuid"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_have_the_types_that_postgres_gives_them() {
    let server = Server::start().await;
    let client = server.client().await;
    let table = "CREATE TABLE t (id int PRIMARY KEY, a int[], s text, sa text[], j jsonb, b bool, h smallint, \
                 n numeric(8,2), f float8, d date, ts timestamp, tz timestamptz, iv interval, v varchar(5), u uuid, \
                 y bytea, ti time, c char(5), l bigint, r real)";
    client.batch_execute(table).await.unwrap();
    let mut differences = vec![];
    for line in include_str!("parameters.txt").lines().filter(|line| !line.starts_with('#')) {
        let (sql, _) = line.split_once(" :: ").unwrap();
        let seen = match client.prepare(sql).await {
            Ok(statement) => {
                let parameters: Vec<&str> = statement.params().iter().map(|t| t.name()).collect();
                let columns: Vec<&str> = statement.columns().iter().map(|c| c.type_().name()).collect();
                // As clients do that list all parameters, and declare no type of any.
                let listed = client.prepare_typed(sql, &vec![Type::UNKNOWN; parameters.len()]).await;
                assert_eq!(listed.unwrap().params(), statement.params(), "{sql}");
                format!("{sql} :: {} :: {}", parameters.join(", "), columns.join(", "))
            }
            Err(error) => format!("{sql}: {error:?}"),
        };
        if seen != line {
            differences.push(format!("{line}\n  but {seen}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_takes_the_parameters_of_its_query() {
    let server = Server::start().await;
    let client = server.client().await;
    let sql = "EXPLAIN SELECT n + $1 FROM generate_series(1, 3) AS t(n) WHERE n > $2 LIMIT $3";
    let statement = client.prepare(sql).await.unwrap();
    assert_eq!(statement.params().len(), 3);
    let rows = client.query(&statement, &[&1_i32, &2_i32, &5_i64]).await.unwrap();
    let plan: String = rows.iter().map(|row| row.get::<_, String>(0)).collect();
    assert!(plan.contains("> 2") && !plan.contains('$'), "{plan}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_the_extended_protocol_leaves_the_session_usable() {
    let server = Server::start().await;
    let client = server.client().await;
    let error = client.query("SELECT 1 / $1::int", &[&0i32]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
    let error = client.prepare("SELECT 1; SELECT 2").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::SYNTAX_ERROR));
    assert_eq!(client.query_one("SELECT 3", &[]).await.unwrap().get::<_, i32>(0), 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_goes_on_where_its_limit_stopped_it() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let transaction = client.transaction().await.unwrap();
    let statement = transaction.prepare("SELECT * FROM (VALUES (1), (2), (3)) AS t(n) ORDER BY n").await.unwrap();
    let portal = transaction.bind(&statement, &[]).await.unwrap();
    let mut seen = vec![];
    for _ in 0..3 {
        let rows = transaction.query_portal(&portal, 2).await.unwrap();
        seen.push(rows.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>());
    }
    assert_eq!(seen, [vec![1, 2], vec![3], vec![]]);
    transaction.commit().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_sends_each_change_at_once_and_ends_with_a_cancel() {
    let server = Server::start().await;
    let (writer, reader) = (server.client().await, server.client().await);
    writer.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    writer.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let cancel = reader.cancel_token();
    let pushed = reader.simple_query_raw("SUBSCRIBE TO t").await.unwrap();
    let mut pushed = std::pin::pin!(pushed.try_filter_map(|message| async move {
        Ok(match message {
            SimpleQueryMessage::Row(row) => row.get("id").map(str::to_owned),
            _ => None,
        })
    }));
    assert_eq!(within(pushed.next()).await.unwrap().unwrap(), "1");
    for n in 2..5 {
        writer.batch_execute(&format!("INSERT INTO t VALUES ({n})")).await.unwrap();
        assert_eq!(within(pushed.next()).await.unwrap().unwrap(), n.to_string());
    }
    cancel.cancel_query(NoTls).await.unwrap();
    let error = within(pushed.next()).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(reader.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_waits_ends_with_a_cancel() {
    let server = Server::start().await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE quiet (id int PRIMARY KEY)").await.unwrap();
    let cancel = client.cancel_token();
    let pushed = client.simple_query_raw("SUBSCRIBE TO quiet").await.unwrap();
    let mut pushed = std::pin::pin!(pushed);
    // The columns come at once, though no row does.
    let first = within(pushed.next()).await.unwrap().unwrap();
    assert!(matches!(first, SimpleQueryMessage::RowDescription(_)));
    cancel.cancel_query(NoTls).await.unwrap();
    let error = within(pushed.next()).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_ends_its_push() {
    let server = Server::start().await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let mut socket = greeted(&server).await;
    socket.write_all(&message(b'Q', b"SUBSCRIBE TO t\0")).await.unwrap();
    within(async {
        while server.engine.status().n_subscriptions == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(socket);
    // The engine looks after its subscribers when there is something to send.
    within(async {
        for n in 0.. {
            if server.engine.status().n_subscriptions == 0 {
                break;
            }
            client.batch_execute(&format!("INSERT INTO t VALUES ({n})")).await.unwrap();
        }
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_has_the_time_that_statement_timeout_says() {
    let server = Server::start().await;
    let client = server.client().await;
    let rows = "CREATE TABLE c AS SELECT g AS g, g % 3 AS k FROM generate_series(1, 30000) AS g";
    client.batch_execute(rows).await.unwrap();
    client.batch_execute("SET statement_timeout = '50ms'").await.unwrap();
    // Each would run for hours: what makes very many rows pauses, whatever becomes of them.
    for endless in [
        "SELECT sum(a % 7) FROM generate_series(1, 100000) a, generate_series(1, 100000) b, generate_series(1, 100000) c",
        "SELECT count(*) FROM c a, c b, c d",
        "SELECT * FROM c a, c b, c d WHERE a.g + b.g + d.g < 0",
        "SELECT * FROM c a JOIN c b ON a.k = b.k JOIN c d ON b.k = d.k AND a.g + b.g + d.g < 0",
        "SELECT * FROM c a JOIN c b ON a.k = b.k JOIN c d ON b.k = d.k WHERE a.g + b.g + d.g < 0",
        "SELECT count(*) FROM c a, c b WHERE EXISTS (SELECT FROM c d WHERE d.k = b.k AND a.g + d.g < 0)",
        "SELECT count(*) FROM c, generate_series(1, 1000000 / c.g) x, generate_series(1, 1000000) y WHERE x + y < 0",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    ] {
        let error = within(client.simple_query(endless)).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{endless}: {error}");
    }
    server.stop().await;
}

/// The values of parameters decide what is read, as literals do.
#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_query_does_not_compute_what_its_parameters_exclude() {
    let server = Server::start().await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE c AS SELECT g FROM generate_series(1, 100000) AS g").await.unwrap();
    let huge = "FROM c a, c b, c d";
    let asked = client.prepare(&format!("SELECT a.g {huge} WHERE $1 AND a.g + b.g + d.g < 0")).await.unwrap();
    assert_eq!(within(client.query(&asked, &[&false])).await.unwrap().len(), 0);
    let compared =
        client.prepare(&format!("SELECT a.g {huge} WHERE $1 > $2 + 1 ORDER BY a.g + b.g + d.g")).await.unwrap();
    assert_eq!(within(client.query(&compared, &[&1, &1])).await.unwrap().len(), 0);
    let limited = client.prepare(&format!("SELECT a.g {huge} ORDER BY a.g + b.g + d.g LIMIT $1")).await.unwrap();
    assert_eq!(within(client.query(&limited, &[&0i64])).await.unwrap().len(), 0);
    let ranked = "SELECT g, row_number() OVER (ORDER BY g) FROM c WHERE $1 ORDER BY g LIMIT 1";
    let ranked = client.prepare(ranked).await.unwrap();
    assert_eq!(within(client.query(&ranked, &[&false])).await.unwrap().len(), 0);
    assert_eq!(within(client.query_one(&ranked, &[&true])).await.unwrap().get::<_, i64>(1), 1);
    server.stop().await;
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend((body.len() as u32 + 4).to_be_bytes());
    message.extend(body);
    message
}

fn startup(version: u32, parameters: &[u8]) -> Vec<u8> {
    let mut packet = (parameters.len() as u32 + 8).to_be_bytes().to_vec();
    packet.extend(version.to_be_bytes());
    packet.extend(parameters);
    packet
}

/// Reads messages up to and with one of `kind`.
async fn read_to(socket: &mut TcpStream, kind: u8) -> Vec<(u8, Vec<u8>)> {
    let mut messages = vec![];
    loop {
        let (found, body) = read_message(socket).await.expect("the connection ended early");
        messages.push((found, body));
        if found == kind {
            return messages;
        }
    }
}

async fn read_message(socket: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    within(async {
        let kind = socket.read_u8().await.ok()?;
        let length = socket.read_u32().await.ok()? as usize;
        let mut body = vec![0; length - 4];
        socket.read_exact(&mut body).await.ok()?;
        Some((kind, body))
    })
    .await
}

async fn greeted(server: &Server) -> TcpStream {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(&startup(196_608, b"user\0ada\0database\0tidewire\0\0")).await.unwrap();
    read_to(&mut socket, b'Z').await;
    socket
}

/// All bytes until the server closes.
async fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![];
    // A reset is an end too.
    let _ = within(socket.read_to_end(&mut bytes)).await;
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_postgres_protocol_end_only_their_connection() {
    let server = Server::start().await;
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\0\0\0\0",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\0\0\0\x09\0\x03\0\0x",
    ] {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        socket.shutdown().await.unwrap();
        rest(&mut socket).await;
    }
    for (garbage, code) in [
        (message(b'?', b"what"), "08P01"),
        (b"Q\0\0\0\x03".to_vec(), "08P01"),
        (b"Q\x7f\xff\xff\xff".to_vec(), "08P01"),
    ] {
        let mut socket = greeted(&server).await;
        socket.write_all(&garbage).await.unwrap();
        let answer = String::from_utf8_lossy(&rest(&mut socket).await).into_owned();
        assert!(answer.contains("FATAL") && answer.contains(code), "{answer:?}");
    }
    // A message that lies about its lengths fails alone; after it the session goes on.
    let mut socket = greeted(&server).await;
    socket.write_all(&message(b'B', b"\0\0\0\x05")).await.unwrap();
    socket.write_all(&message(b'S', b"")).await.unwrap();
    socket.write_all(&message(b'Q', b"SELECT 1\0")).await.unwrap();
    assert_eq!(read_to(&mut socket, b'Z').await[0].0, b'E');
    assert_eq!(read_to(&mut socket, b'Z').await[0].0, b'T');
    assert_eq!(server.client().await.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_is_refused_and_a_newer_protocol_negotiated() {
    let server = Server::start().await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    for request in [80_877_103u32, 80_877_104] {
        socket.write_all(&startup(request, b"")).await.unwrap();
        assert_eq!(within(socket.read_u8()).await.unwrap(), b'N');
    }
    socket.write_all(&startup(3 << 16 | 9, b"user\0ada\0_pq_.odd\0x\0\0")).await.unwrap();
    let messages = read_to(&mut socket, b'Z').await;
    assert_eq!(messages[0], (b'v', [&(3u32 << 16 | 2).to_be_bytes()[..], &[0, 0, 0, 1], b"_pq_.odd\0"].concat()));
    let key = messages.iter().find(|(kind, _)| *kind == b'K').unwrap();
    assert_eq!(key.1.len(), 4 + 32);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_database_and_a_full_server_are_refused() {
    let server = Server::with(Limits { connections_max: 2, ..Limits::default() }).await;
    let error = server.config().dbname("shop").connect(NoTls).await.err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::INVALID_CATALOG_NAME));
    let (_a, b) = (server.client().await, server.client().await);
    let error = server.config().connect(NoTls).await.err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::TOO_MANY_CONNECTIONS));
    drop(b);
    // The seat is free once the server has seen the client go.
    within(async { while server.config().connect(NoTls).await.is_err() {} }).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_at_once() {
    let server = Server::start().await;
    let clients = futures::future::join_all((0..200).map(|_| server.client())).await;
    let answers = clients.iter().enumerate().map(|(n, client)| async move {
        client.query_one("SELECT ($1::int * 2)::int", &[&(n as i32)]).await.unwrap().get::<_, i32>(0)
    });
    let answers = within(futures::future::join_all(answers)).await;
    assert!(answers.into_iter().eq((0..200).map(|n| n * 2)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_server_is_told_to_its_clients() {
    let server = Server::start().await;
    let mut socket = greeted(&server).await;
    server.stop().await;
    let answer = String::from_utf8_lossy(&rest(&mut socket).await).into_owned();
    assert!(answer.contains("57P01"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_answered_in_order() {
    let server = Server::start().await;
    let client = server.client().await;
    let queries = (0..50).map(|n| {
        let client = &client;
        async move { client.query_one("SELECT $1::int", &[&n]).await.unwrap().get::<_, i32>(0) }
    });
    assert_eq!(within(futures::future::join_all(queries)).await, (0..50).collect::<Vec<_>>());
    server.stop().await;
}

/// Copies in through the extended protocol; each piece is a message.
async fn copy_in(client: &Client, sql: &str, pieces: &[&str]) -> Result<u64, tokio_postgres::Error> {
    let sink = client.copy_in(sql).await?;
    let mut sink = std::pin::pin!(sink);
    for piece in pieces {
        sink.feed(Bytes::copy_from_slice(piece.as_bytes())).await?;
    }
    within(sink.finish()).await
}

async fn one(client: &Client, sql: &str) -> String {
    rows(client.simple_query(sql).await.unwrap()).swap_remove(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_lines_become_rows() {
    let server = Server::start().await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, a text, n int DEFAULT 7 CHECK (n > 0))").await.unwrap();
    client.batch_execute("CREATE MATERIALIZED VIEW v AS SELECT n, count(*) AS c FROM t GROUP BY n").await.unwrap();
    // Messages end anywhere.
    let pieces = ["1\tx\t1\n2", "\t\\N", "\t2", "\n3\ty\\", "tz\t3\n4\té", "\t4"];
    assert_eq!(copy_in(&client, "COPY t FROM STDIN", &pieces).await.unwrap(), 4);
    assert_eq!(
        one(&client, "SELECT string_agg(id || coalesce(a, '-') || n, ',' ORDER BY id) FROM t").await,
        "1x1,2-2,3y\tz3,4é4"
    );
    assert_eq!(copy_in(&client, "COPY t (id) FROM STDIN", &[]).await.unwrap(), 0);
    assert_eq!(
        copy_in(&client, "COPY t (id, a) FROM STDIN CSV HEADER", &["id,a\r\n5,\"", "\r\n\"\r\n"]).await.unwrap(),
        1
    );
    assert_eq!(one(&client, "SELECT a || n FROM t WHERE id = 5").await, "\r\n7");
    assert_eq!(one(&client, "SELECT sum(c) FROM v").await, "5");

    // A wrong line refuses all of them, and the session goes on.
    let error = copy_in(&client, "COPY t (id, n) FROM STDIN CSV", &["6,1\n", "7,0\n", "8,x\n"]).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code(), &SqlState::CHECK_VIOLATION);
    assert_eq!(error.where_(), Some("COPY t, line 2: \"7,0\""));
    let error = copy_in(&client, "COPY t (id) FROM STDIN", &["6\n", "1\n"]).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!((error.code(), error.where_()), (&SqlState::UNIQUE_VIOLATION, Some("COPY t, line 2")));
    // (The driver loses its place where COPY fails before it asks for lines.)
    let error = client.batch_execute("COPY t (id, nope) FROM STDIN").await.unwrap_err();
    assert_eq!(error.as_db_error().unwrap().position(), Some(&tokio_postgres::error::ErrorPosition::Original(13)));
    let error = copy_in(&client, "COPY t FROM STDIN (FORMAT binary)", &["PGCOPY"]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED));
    assert_eq!(one(&client, "SELECT count(*) FROM t").await, "5");

    // In a transaction rows are there when it commits, and gone when it does not.
    client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(copy_in(&client, "COPY t (id) FROM STDIN", &["6\n7\n"]).await.unwrap(), 2);
    client.batch_execute("ROLLBACK; BEGIN").await.unwrap();
    assert_eq!(copy_in(&client, "COPY t (id) FROM STDIN", &["8\n"]).await.unwrap(), 1);
    client.batch_execute("INSERT INTO t (id) VALUES (9); COMMIT").await.unwrap();
    assert_eq!(one(&client, "SELECT string_agg(id::text, ',' ORDER BY id) FROM t WHERE id > 5").await, "8,9");
    client.batch_execute("BEGIN").await.unwrap();
    let error = copy_in(&client, "COPY t (id) FROM STDIN", &["x\n"]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INVALID_TEXT_REPRESENTATION));
    let error = client.simple_query("SELECT 1").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    client.batch_execute("ROLLBACK").await.unwrap();

    // A client that goes away, or gives up, has written nothing.
    let leaving = server.client().await;
    let sink = leaving.copy_in::<_, Bytes>("COPY t (id) FROM STDIN").await.unwrap();
    let mut sink = Box::pin(sink);
    sink.send(Bytes::from_static(b"10\n")).await.unwrap();
    drop((sink, leaving));
    assert_eq!(one(&client, "SELECT count(*) FROM t").await, "7");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_lines_are_copied() {
    let server = Server::start().await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, a text)").await.unwrap();
    let mut lines = String::new();
    (0..50_000).for_each(|id| lines += &format!("{id},\"row {id}\"\n"));
    let pieces: Vec<&str> = lines.as_bytes().chunks(10_007).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
    assert_eq!(copy_in(&client, "COPY t FROM STDIN (FORMAT csv)", &pieces).await.unwrap(), 50_000);
    assert_eq!(one(&client, "SELECT count(*), sum(id), max(a) FROM t").await, "50000|1249975000|row 9999");
    // The last of them is there already: none is taken.
    let lines: String = (0..20_000).map(|n| format!("{}\tx\n", 69_998 - n)).collect();
    let error = copy_in(&client, "COPY t FROM STDIN", &[&lines]).await.unwrap_err();
    assert_eq!(error.as_db_error().unwrap().where_(), Some("COPY t, line 20000"));
    assert_eq!(one(&client, "SELECT count(*) FROM t").await, "50000");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_copies_a_file() {
    let server = Server::start().await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, a text)").await.unwrap();
    let file = std::env::temp_dir().join(format!("tidewire-copy-{}.csv", std::process::id()));
    std::fs::write(&file, "id,a\n1,one\n2,\"two, and more\"\n").unwrap();
    let path = file.display();
    let answer = server.psql(&[
        &format!("\\copy t from '{path}' csv header"),
        &format!("\\copy t (id) from '{path}' csv"),
        "SELECT * FROM t ORDER BY id",
    ]);
    let expected = "COPY 2\n id |       a\n----+---------------\n  1 | one\n  2 | two, and more\n(2 rows)\n\n\
                    ERROR:  extra data after last expected column\nCONTEXT:  COPY t, line 1: \"id,a\"";
    assert_eq!(answer, expected);
    std::fs::remove_file(&file).unwrap();
    server.stop().await;
}

/// What the server says until it waits for a query, outside of a transaction.
async fn until_ready(socket: &mut TcpStream) -> String {
    let mut answer = vec![];
    while !answer.ends_with(b"Z\0\0\0\x05I") {
        let mut bytes = [0; 4096];
        let n = within(socket.read(&mut bytes)).await.unwrap();
        assert!(n > 0, "the server went away");
        answer.extend(bytes.get(..n).unwrap());
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_instead_of_lines() {
    let server = Server::start().await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let startup = [&0x0003_0000_u32.to_be_bytes()[..], b"user\0ada\0\0"].concat();
    socket.write_all(&u32::try_from(startup.len() + 4).unwrap().to_be_bytes()).await.unwrap();
    socket.write_all(&startup).await.unwrap();
    until_ready(&mut socket).await;
    let copy = message(b'Q', b"COPY t FROM STDIN; SELECT 'next'\0");
    let line = message(b'd', b"1\n");
    let mut answers = vec![];
    for sent in [
        // The client gives up; what it had sent ahead is passed over.
        [copy.clone(), line.clone(), message(b'f', b"no more\0"), line.clone(), message(b'c', b"")].concat(),
        // Flush and Sync mean nothing here; a query must wait.
        [copy.clone(), message(b'H', b""), message(b'S', b""), line.clone(), message(b'Q', b"SELECT 1\0")].concat(),
        // What comes behind the end of the data is passed over.
        [copy, message(b'd', b"2\n\\.\nx\n"), line, message(b'c', b"")].concat(),
    ] {
        socket.write_all(&sent).await.unwrap();
        answers.push(until_ready(&mut socket).await);
    }
    assert!(answers[0].contains("C57014\0MCOPY from stdin failed: no more\0WCOPY t, line 2\0"), "{}", answers[0]);
    assert!(answers[1].contains("unexpected message type 0x51 during COPY from stdin"), "{}", answers[1]);
    assert!(answers[2].contains("COPY 1\0") && answers[2].contains("next"), "{}", answers[2]);
    assert!(!answers[0].contains("next") && !answers[1].contains("next"));
    assert_eq!(one(&client, "SELECT string_agg(id::text, ',') FROM t").await, "2");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_writes_rows_as_lines() {
    let server = Server::start().await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, a text, b numeric(5,1))").await.unwrap();
    client.batch_execute("INSERT INTO t VALUES (1, E'x\\ty', 2.5), (2, NULL, NULL), (3, 'a,b', 0)").await.unwrap();
    client.batch_execute("CREATE MATERIALIZED VIEW v AS SELECT a, id FROM t WHERE id < 3").await.unwrap();
    let copied = async |sql: &str| {
        let lines: Vec<_> = client.copy_out(sql).await?.try_collect().await?;
        Ok::<_, tokio_postgres::Error>(lines.into_iter().map(|l| String::from_utf8(l.to_vec()).unwrap()).collect())
    };
    let lines: Vec<String> = copied("COPY (SELECT * FROM t ORDER BY id) TO STDOUT").await.unwrap();
    assert_eq!(lines, ["1\tx\\ty\t2.5\n", "2\t\\N\t\\N\n", "3\ta,b\t0.0\n"]);
    let lines: Vec<String> = copied("COPY (SELECT a, id FROM t ORDER BY id) TO STDOUT CSV HEADER").await.unwrap();
    assert_eq!(lines, ["a,id\n", "x\ty,1\n", ",2\n", "\"a,b\",3\n"]);
    let mut lines: Vec<String> = copied("COPY v (id) TO STDOUT").await.unwrap();
    lines.sort();
    assert_eq!(lines, ["1\n", "2\n"]);
    // The last 3 changes end it.
    let push = "COPY (SELECT id FROM t WHERE id > 0 EMIT CHANGES LIMIT 3) TO STDOUT (FORMAT csv)";
    let lines: Vec<String> = copied(push).await.unwrap();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line.starts_with("insert,")), "{lines:?}");

    let error = copied("COPY (SELECT 1, nope FROM t) TO STDOUT").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::UNDEFINED_COLUMN));
    let position = error.as_db_error().unwrap().position();
    assert_eq!(position, Some(&tokio_postgres::error::ErrorPosition::Original(17)));
    let error = copied("COPY t (id, nope) TO STDOUT").await.unwrap_err();
    assert_eq!(error.as_db_error().unwrap().position(), Some(&tokio_postgres::error::ErrorPosition::Original(13)));
    let error = copied("COPY (SELECT $1::int) TO STDOUT").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::UNDEFINED_PARAMETER));
    // An error behind the first lines ends the data, not the session.
    let error = copied("COPY (SELECT 1 / (id - 3) FROM t) TO STDOUT").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
    assert_eq!(server.psql(&["COPY t (id, b) TO STDOUT WITH CSV HEADER NULL '-'"]).lines().next(), Some("id,b"));
    // psql does not show the command tag of a COPY, but a script may go on behind it.
    assert_eq!(server.psql(&["COPY (SELECT 'x', NULL) TO STDOUT; SELECT 7 AS n"]), "x\t\\N\n n\n---\n 7\n(1 row)\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_copied_sends_each_change_at_once() {
    let server = Server::start().await;
    let (writer, reader) = (server.client().await, server.client().await);
    writer.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let cancel = reader.cancel_token();
    let lines = reader.copy_out("COPY (SUBSCRIBE TO t) TO STDOUT").await.unwrap();
    let mut lines = std::pin::pin!(lines);
    for n in 1..4 {
        writer.batch_execute(&format!("INSERT INTO t VALUES ({n})")).await.unwrap();
        let line = within(lines.next()).await.unwrap().unwrap();
        let fields: Vec<&str> = std::str::from_utf8(&line).unwrap().split('\t').collect();
        assert_eq!((fields[0], fields[2]), ("insert", format!("{n}\n").as_str()));
    }
    cancel.cancel_query(NoTls).await.unwrap();
    let error = within(lines.next()).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(reader.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
    server.stop().await;
}

/// psql shows a line of COPY when it comes, where it would keep the rows of a SUBSCRIBE until its end.
#[tokio::test(flavor = "multi_thread")]
async fn psql_shows_a_copied_subscription_as_it_runs() {
    let server = Server::start().await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    client.batch_execute("INSERT INTO t VALUES (41)").await.unwrap();
    // Into a pipe psql writes whole blocks unless it is told otherwise; to a terminal it writes lines.
    let mut psql = Command::new("stdbuf")
        .args(["-oL", "psql", "-X", "-h", "127.0.0.1", "-U", "ada", "-d", "tidewire"])
        .args(["-p", &server.address.port().to_string(), "-c", "COPY (SUBSCRIBE TO t) TO STDOUT CSV"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("stdbuf must be installed (Debian: coreutils)");
    let lines = std::io::BufReader::new(psql.stdout.take().unwrap()).lines();
    let (sender, mut shown) = mpsc::unbounded_channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    assert!(within(shown.recv()).await.unwrap().ends_with(",41"));
    client.batch_execute("INSERT INTO t VALUES (42)").await.unwrap();
    assert!(within(shown.recv()).await.unwrap().ends_with(",42"));
    psql.kill().unwrap();
    psql.wait().unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_describes_what_there_is() {
    let server = Server::start().await;
    let client = server.client().await;
    client
        .batch_execute(
            "CREATE TABLE accounts (id TEXT PRIMARY KEY, country VARCHAR(2) NOT NULL, opened DATE DEFAULT current_date,
                                    total NUMERIC(12,2) CHECK (total >= 0), tags TEXT[], buyer STRUCT<name TEXT, city TEXT>);
             CREATE VIEW big AS SELECT id, total FROM accounts WHERE total > 10;
             CREATE MATERIALIZED VIEW per_country AS SELECT country, count(*) AS n FROM accounts GROUP BY country;
             CREATE INDEX by_country ON accounts (country, opened) INCLUDE (total);
             CREATE UNIQUE INDEX ON per_country (country)",
        )
        .await
        .unwrap();
    let server = tokio::task::spawn_blocking(move || {
        expect_test::expect_file!["psql/describe.txt"].assert_eq(&server.psql(&[
            "\\d",
            "\\d accounts",
            "\\d big",
            "\\d per_country",
            "\\d+ accounts",
            "\\d+ big",
            "\\d+ per_country",
            "\\d nothing",
        ]));
        let lists =
            ["\\dt", "\\dt+", "\\dv", "\\dm", "\\di", "\\l", "\\dn", "\\df", "\\df abs", "\\du", "\\dx", "\\dp"];
        expect_test::expect_file!["psql/lists.txt"].assert_eq(&server.psql(&lists));
        server
    })
    .await
    .unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drivers_find_their_way_in_the_catalogs() {
    let server = Server::start().await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE t (a int PRIMARY KEY, b text NOT NULL); CREATE INDEX i ON t (b)").await.unwrap();
    client.batch_execute("CREATE TABLE c (a int CHECK (a > 0))").await.unwrap();
    for (query, expected) in [
        ("SELECT current_database(), current_schema(), current_user", "tidewire|public|ada"),
        ("SELECT 't'::regclass::oid = c.oid FROM pg_catalog.pg_class c WHERE relname = 't'", "t"),
        ("SELECT c.oid::regclass::text FROM pg_class c WHERE c.oid = 't'::regclass", "t"),
        ("SELECT 'i'::regclass::text, to_regclass('public.t_pkey')::regclass::text", "i|t_pkey"),
        ("SELECT indisprimary FROM pg_index WHERE indexrelid = 't_pkey'::regclass", "t"),
        ("SELECT relname FROM pg_class WHERE relkind = ANY ('{r,v}') AND relnamespace = 'public'::regnamespace", "t"),
        ("SELECT string_agg(column_name, ',') FROM information_schema.columns WHERE table_name = 't'", "a,b"),
        ("SELECT typname FROM pg_type WHERE oid = 'integer'::regtype", "int4"),
        ("SELECT pg_catalog.format_type(1043, 14)", "character varying(10)"),
        ("SELECT count(*) FROM pg_catalog.pg_trigger", "0"),
        ("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 't'::regclass", "PRIMARY KEY (a)"),
        (
            "SELECT conname, pg_get_constraintdef(oid), conkey FROM pg_constraint WHERE contype = 'c'",
            "c_a_check|CHECK ((a > 0))|{1}",
        ),
        ("SELECT constraint_name, check_clause FROM information_schema.check_constraints", "c_a_check|((a > 0))"),
        ("SELECT column_name FROM information_schema.constraint_column_usage WHERE table_name = 'c'", "a"),
        ("SELECT constraint_type FROM information_schema.table_constraints WHERE table_name = 'c'", "CHECK"),
        ("SELECT ARRAY(SELECT nspname FROM pg_namespace WHERE nspname = 'public')", "{public}"),
        ("SELECT current_setting('server_version') LIKE '15%'", "t"),
    ] {
        let answer = client.simple_query(query).await.map(rows);
        let answer = answer.unwrap_or_else(|error| panic!("{query}: {error:?}"));
        assert_eq!(answer[1], expected, "{query}");
    }
    let error = client.simple_query("SELECT 'nope'::regclass").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::UNDEFINED_TABLE));
    server.stop().await;
}
