//! The binary from outside: starts, answers psql and HTTP, tells what is wrong, ends cleanly.
//!
//! Every wait is for a condition with a deadline. Ports are the system's choice, so that tests run side by side.

#[path = "common/process.rs"]
mod process;

use std::net::TcpListener;

use process::{Running, demo, http_get, psql, serve, tidewire};

/// SQL through psql, as a user sees it.
const VIEWS: &str = "
    CREATE TABLE accounts (id TEXT PRIMARY KEY, country TEXT NOT NULL);
    CREATE TABLE payments (id BIGINT PRIMARY KEY, account TEXT, amount NUMERIC(12,2));
    CREATE MATERIALIZED VIEW per_country AS SELECT country, count(*) AS n, sum(amount) AS total
      FROM payments p JOIN accounts a ON p.account = a.id GROUP BY country;
    CREATE MATERIALIZED VIEW big AS SELECT country FROM per_country WHERE total > 1000;
    INSERT INTO accounts VALUES ('a', 'NL'), ('b', 'PT');
    INSERT INTO payments VALUES (1, 'a', 1000.50), (2, 'b', 20), (3, 'a', 0.25);
    SELECT * FROM per_country ORDER BY country;
    SELECT * FROM big;
    UPDATE payments SET amount = 1.00 WHERE id = 1;
    SELECT country, total, (SELECT count(*) FROM big) FROM per_country ORDER BY country;
";

#[test]
fn psql_sees_views_follow_tables_and_a_signal_ends_the_server() {
    let server = serve(&[]);
    let output = psql(server.pg_port, VIEWS);
    let rows: Vec<&str> = output.lines().filter(|line| line.contains('|') || *line == "NL").collect();
    assert_eq!(rows, ["NL|2|1000.75", "PT|1|20.00", "NL", "NL|1.25|0", "PT|20.00|0"], "{output}");

    let (code, body) = http_get(server.http_port, "/health");
    assert_eq!((code, body.contains("\"running\"")), (200, true), "{body}");
    let (code, body) = http_get(server.http_port, "/metrics");
    assert_eq!(code, 200);
    assert!(body.lines().any(|line| line.ends_with("_rows{view=\"per_country\"} 2")), "{body}");
    assert!(body.contains("\nprocess_resident_memory_bytes "), "{body}");
    let (code, body) = http_get(server.http_port, "/");
    assert!(code == 200 && body.contains(&format!("-p {}", server.pg_port)), "{body}");
    assert_eq!(http_get(server.http_port, "/nothing").0, 404);

    assert_eq!(server.end("TERM"), Some(0));
}

#[test]
fn a_server_says_at_the_start_that_state_is_in_memory() {
    let mut server = serve(&["--data-dir", "memory:"]);
    server.wait_for("WARN", |line| line.contains("WARN") && line.contains("memory only"));
    assert_eq!(server.end("INT"), Some(0));
}

#[test]
fn a_push_does_not_keep_the_server_from_ending() {
    let server = serve(&[]);
    psql(server.pg_port, "CREATE TABLE t (a INT PRIMARY KEY); INSERT INTO t VALUES (1);");
    let mut client = Running::start(process::psql_command(server.pg_port).args([
        "-v",
        "FETCH_COUNT=1",
        "-c",
        "SELECT * FROM t EMIT CHANGES",
    ]));
    client.wait_for("the first row", |line| line.contains('1'));
    assert_eq!(server.end("TERM"), Some(0));
    assert_ne!(client.wait(), Some(0), "psql is told that the server went away");
}

#[test]
fn a_port_in_use_or_a_bad_address_is_told_with_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    for option in ["--listen", "--http-listen"] {
        let other = if option == "--listen" { "--http-listen" } else { "--listen" };
        let (code, output) = Running::start(
            tidewire()
                .arg("serve")
                .args([option, &address, other, "127.0.0.1:0"])
                .arg("--data-dir")
                .arg(directory.path()),
        )
        .output();
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains(&format!("tidewire: cannot listen on {address}: the port is in use")), "{output}");
        assert!(output.contains(&format!("another port with {option}")), "{output}");
    }
    let (code, output) = Running::start(tidewire().args(["demo", "--listen", "nowhere"])).output();
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("tidewire: cannot listen on nowhere"), "{output}");
}

#[test]
fn two_servers_do_not_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let first = serve(&["--data-dir", path]);
    let (code, output) = Running::start(tidewire().args([
        "--listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
        "--data-dir",
        path,
    ]))
    .output();
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("another server is running in it"), "{output}");
    assert_eq!(first.end("TERM"), Some(0));
}

#[test]
fn options_come_from_the_environment_too_and_wrong_ones_are_told() {
    let (code, output) = Running::start(tidewire().env("TIDEWIRE_LISTEN", "nowhere:x")).output();
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("nowhere:x"), "{output}");
    let (code, output) = Running::start(tidewire().args(["--log", "a=b=c"])).output();
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("is not a filter"), "{output}");
    let (code, output) = Running::start(tidewire().arg("--no-such-option")).output();
    assert_eq!(code, Some(2), "{output}");
    let (code, output) = Running::start(tidewire().arg("--help")).output();
    assert_eq!(code, Some(0), "{output}");
    for word in ["--listen", "TIDEWIRE_HTTP_LISTEN", "demo", "State is kept in the data directory"] {
        assert!(output.contains(word), "{word} in {output}");
    }
}

#[test]
fn the_demo_runs_its_sql_shows_a_view_and_ends_by_itself() {
    let (code, output) = demo(&["--for", "3s"]).process.output();
    assert_eq!(code, Some(0), "{output}");
    for words in ["CREATE MATERIALIZED VIEW top_items AS", "psql -h 127.0.0.1 -p ", "revenue_by_city"] {
        assert!(output.contains(words), "{words} in {output}");
    }
    let rows = output.lines().filter(|line| line.starts_with("Amsterdam ")).collect::<Vec<_>>();
    assert!(rows.len() >= 2, "shown again as it changes: {output}");
    assert!(!output.contains('\x1b'), "plain lines where there is no terminal");
}

#[test]
fn the_demo_answers_clients_while_it_runs_and_ends_at_ctrl_c() {
    let mut demo = demo(&["--rate", "1000"]);
    demo.process.wait_for("a row of the view", |line| line.starts_with("Amsterdam "));
    let top_items = psql(demo.pg_port, "SELECT item FROM top_items ORDER BY value DESC");
    assert_eq!(top_items.lines().count(), 5, "{top_items}");
    let shown = psql(
        demo.pg_port,
        "SELECT count(*) = (SELECT count(*) FROM revenue_by_city WHERE revenue > 100000) FROM big_cities",
    );
    assert_eq!(shown.trim(), "t");
    let letters = psql(demo.pg_port, "SELECT count(*) > 0 FROM tidewire.dead_letters WHERE object LIKE '%orders'");
    assert_eq!(letters.trim(), "t");
    assert_eq!(demo.end("INT"), Some(0));
}
