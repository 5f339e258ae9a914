//! The tutorial of README.md, as it stands there, against a real Kafka.
//!
//! SQL, records and expected output are read from the file, so that it cannot drift from what the binary does.

#[path = "common/process.rs"]
mod process;

use std::time::{Duration, Instant};

use process::{psql, psql_aligned, serve};
use tidewire_kafka::testing::{Producer, create_topic};
use tidewire_testkit::kafka::Kafka;

const README: &str = include_str!("../../../README.md");
const DEADLINE: Duration = Duration::from_secs(60);

/// What stands between ```` ```language ```` and ```` ``` ````, in order.
fn blocks(language: &str) -> Vec<String> {
    let (mut blocks, mut block) = (vec![], None::<String>);
    for line in README.lines() {
        match (line.strip_prefix("```"), &mut block) {
            (Some(_), Some(_)) => blocks.extend(block.take()),
            (Some(named), None) if named == language => block = Some(String::new()),
            (None, Some(block)) => block.extend([line, "\n"]),
            _ => {}
        }
    }
    blocks
}

fn records() -> Vec<String> {
    let shell = blocks("sh").concat();
    shell.lines().filter(|line| line.starts_with("{\"id\"")).map(str::to_owned).collect()
}

#[test]
fn the_tutorial_of_the_readme_works_as_written() {
    let kafka = Kafka::start().expect("a Kafka");
    let broker = kafka.bootstrap();
    // A broker that the environment names may have a topic of the plain name already.
    let topic = format!("tutorial-{}", std::process::id());
    create_topic(broker, &topic, 2).expect("a topic");
    let [declarations, views, reading, looking] = blocks("sql").try_into().expect("four blocks of SQL");
    let declarations = declarations.replace("127.0.0.1:19092", broker).replace("'payments'", &format!("'{topic}'"));
    assert!(declarations.contains(&topic) && declarations.contains(broker), "{declarations}");

    let server = serve(&[]);
    psql(server.pg_port, &declarations);
    psql(server.pg_port, &views);
    let producer = Producer::new(broker, &[]).expect("a producer");
    let records = records();
    assert_eq!(records.len(), 4);
    for record in &records {
        producer.send(&topic, None, None, Some(record.as_bytes()), None, &[]).expect("queued");
    }
    producer.flush(DEADLINE).expect("sent");

    let all_read = "SELECT records + bad_records >= 4 AND lag = 0 FROM tidewire.sources";
    let deadline = Instant::now() + DEADLINE;
    while psql(server.pg_port, all_read).trim() != "t" {
        assert!(Instant::now() < deadline, "{}", psql(server.pg_port, "SELECT * FROM tidewire.sources"));
    }
    let shown = psql_aligned(server.pg_port, &reading);
    let expected = blocks("text").into_iter().find(|block| block.contains("NL ")).expect("expected output");
    assert!(shown.starts_with(&expected), "{shown}");
    assert!(shown.contains("amount"), "the dead letter says what was wrong: {shown}");
    let looked = psql_aligned(server.pg_port, &looking);
    for word in ["Aggregate", "per_country", "CREATE MATERIALIZED VIEW big"] {
        assert!(looked.contains(word), "{word} in {looked}");
    }
    assert_eq!(server.end("TERM"), Some(0));
}
