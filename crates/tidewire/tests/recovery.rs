//! A server that is killed over a real Kafka goes on after the last record that its views contain.
//!
//! Every wait is for a condition with a deadline.
#![expect(clippy::expect_used, reason = "a test: what fails here fails it")]

#[path = "common/process.rs"]
mod process;

use std::path::Path;
use std::time::{Duration, Instant};

use process::{http_get, psql, serve};
use tidewire_kafka::testing::{Producer, add_partitions, create_topic, delete_records};
use tidewire_testkit::kafka::Kafka;

const DEADLINE: Duration = Duration::from_secs(60);

fn serve_in(directory: &Path) -> process::Server {
    serve(&["--data-dir", directory.to_str().expect("a path of text")])
}

/// Records with these numbers in one partition, which the broker may have been given only now.
fn produce(broker: &str, topic: &str, partition: i32, numbers: std::ops::Range<i64>) {
    let deadline = Instant::now() + DEADLINE;
    let record = |n: i64| format!(r#"{{"k": {}, "n": {n}}}"#, n % 3);
    let mut producer = Producer::new(broker, &[]).expect("a producer");
    for n in numbers {
        loop {
            let sent = producer.send(topic, Some(partition), None, Some(record(n).as_bytes()), None, &[]);
            if sent.and_then(|()| producer.flush(DEADLINE)).is_ok() {
                break;
            }
            assert!(Instant::now() < deadline, "partition {partition} takes no records");
            producer = Producer::new(broker, &[]).expect("a producer");
        }
    }
}

fn wait_until(server: &process::Server, sql: &str, expected: &str) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let found = psql(server.pg_port, sql);
        if found.trim() == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{found} instead of {expected} at {sql}");
    }
}

/// Waits until a checkpoint has been written that began after this call.
fn wait_for_checkpoint(server: &process::Server) {
    let written = || {
        let (_, page) = http_get(server.http_port, "/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix("tidewire_checkpoints_total "));
        line.and_then(|n| n.parse::<u64>().ok()).expect("the metric")
    };
    let (before, deadline) = (written(), Instant::now() + DEADLINE);
    // The one that is being written now may have begun before.
    let mut n = 0;
    while written() < before + 2 {
        assert!(Instant::now() < deadline, "no checkpoint is written");
        psql(server.pg_port, &format!("INSERT INTO ticks VALUES ({n})"));
        n += 1;
    }
}

#[test]
fn a_topic_is_read_on_after_the_last_record_that_views_contain() {
    let kafka = Kafka::start().expect("a Kafka");
    let broker = kafka.bootstrap();
    let topic = format!("recovery-{}", std::process::id());
    create_topic(broker, &topic, 2).expect("a topic");
    produce(broker, &topic, 0, 0..100);
    produce(broker, &topic, 1, 100..150);

    let directory = tempfile::tempdir().expect("a directory");
    let server = serve_in(directory.path());
    psql(
        server.pg_port,
        &format!(
            "CREATE SOURCE s (k BIGINT, n BIGINT) WITH (connector = 'kafka', topic = '{topic}',
                 properties.bootstrap.server = '{broker}') FORMAT PLAIN ENCODE JSON;
             CREATE TABLE ticks (n BIGINT);
             CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS n, sum(n) AS total FROM s;
             CREATE MATERIALIZED VIEW largest AS SELECT k, max(n) AS n FROM s GROUP BY k;
             CREATE MATERIALIZED VIEW above AS SELECT sum(n) AS n FROM largest;"
        ),
    );
    let totals = "SELECT n, total, (SELECT n FROM above) FROM totals";
    let sum = |from: i64, to: i64| (from..to).sum::<i64>();
    wait_until(&server, totals, &format!("150|{}|{}", sum(0, 150), 147 + 148 + 149));
    wait_for_checkpoint(&server);
    // Behind the checkpoint, perhaps; and while nobody reads, in a partition that was not there too.
    produce(broker, &topic, 0, 150..160);
    wait_until(&server, totals, &format!("160|{}|{}", sum(0, 160), 157 + 158 + 159));
    assert_eq!(server.end("KILL"), None);
    add_partitions(broker, &topic, 3).expect("a partition");
    produce(broker, &topic, 1, 160..170);
    produce(broker, &topic, 2, 170..180);
    // Its first records are in the views, and nowhere else any more.
    delete_records(broker, &topic, 0, 90).expect("deleted");

    let server = serve_in(directory.path());
    wait_until(&server, totals, &format!("180|{}|{}", sum(0, 180), 177 + 178 + 179));
    let origins = "SELECT string_agg(name || ' ' || origin, ', ' ORDER BY name) FROM tidewire.materialized_views";
    let restored = "public.above restored, public.largest restored, public.totals restored".replace("public.", "");
    assert_eq!(psql(server.pg_port, origins).trim(), restored);
    assert_eq!(
        psql(server.pg_port, "SELECT records FROM tidewire.sources").trim(),
        "330",
        "each of two builds has read all"
    );
    wait_for_checkpoint(&server);
    assert_eq!(server.end("KILL"), None);

    // What no view contains is gone: that is told, and what views contain is there.
    produce(broker, &topic, 0, 180..190);
    delete_records(broker, &topic, 0, 115).expect("deleted");
    let server = serve_in(directory.path());
    wait_until(&server, "SELECT state FROM tidewire.sources", "failed");
    let error = psql(server.pg_port, "SELECT error FROM tidewire.sources");
    assert!(error.contains("has no offset 110 in partition 0") && error.contains("were deleted before"), "{error}");
    assert_eq!(psql(server.pg_port, totals).trim(), format!("180|{}|{}", sum(0, 180), 177 + 178 + 179));

    // It goes on without them when somebody says so, and has not forgotten it after a crash. Offset 115 is record 185.
    psql(server.pg_port, "ALTER SOURCE s SKIP LOST RECORDS");
    let without_lost = format!("185|{}|{}", sum(0, 180) + sum(185, 190), 187 + 188 + 189);
    wait_until(&server, totals, &without_lost);
    assert_eq!(server.end("KILL"), None);
    let server = serve_in(directory.path());
    wait_until(&server, totals, &without_lost);
    assert_eq!(psql(server.pg_port, "SELECT state FROM tidewire.sources").trim(), "running");
    produce(broker, &topic, 0, 190..191);
    wait_until(&server, totals, &format!("186|{}|{}", sum(0, 180) + sum(185, 191), 188 + 189 + 190));
    assert_eq!(server.end("TERM"), Some(0));
}
