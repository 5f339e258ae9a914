//! From a real Kafka: JSON bids of about 200 bytes in two partitions into a filter and into a GROUP BY, in records per
//! CPU-second of the whole process (librdkafka's threads included), beside DataFusion's batch run of the same query
//! over the same rows, decoded and in memory.
//!
//! `tidewire-bench kafka BOOTSTRAP [RECORDS]`. The topic is filled once a number of records and kept.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use tidewire_connect::nexmark::{self, Table};
use tidewire_kafka::testing::{Producer, create_topic};
use tidewire_types::SqlState;

use crate::cpu::process_cpu;
use crate::server::Server;

const N_PARTITIONS: usize = 2;
const BATCH_ROWS: usize = 8192;

/// The queries: a name, and the text over a relation `bids`.
const QUERIES: &[(&str, &str)] = &[
    ("filter and project", "SELECT auction, price FROM bids WHERE auction % 123 = 0"),
    (
        "GROUP BY auction: count, sum, max",
        "SELECT auction, count(*) AS n, sum(price) AS total, max(price) AS top FROM bids GROUP BY auction",
    ),
];

/// Runs the benchmark.
pub fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let mut args = args.iter();
    let bootstrap = args.next().ok_or("usage: tidewire-bench kafka BOOTSTRAP [RECORDS]")?;
    let n_records: u64 = args.next().map_or(Ok(5_000_000), |n| n.parse())?;
    let topic = format!("bids-{n_records}");
    fill(bootstrap, &topic, n_records)?;
    println!("{n_records} JSON bids, {N_PARTITIONS} partitions; million records a CPU-second of the process\n");
    println!("| query | Tidewire, from Kafka | wall, M/s | DataFusion batch, in memory | ratio |");
    println!("|---|---|---|---|---|");
    for (name, query) in QUERIES {
        let (cpu, wall) = stream(bootstrap, &topic, query)?;
        let batch = batch(query, n_records)?;
        let rate = |seconds: f64| n_records as f64 / seconds / 1e6;
        println!(
            "| {name} | {:.2} | {:.2} | {:.1} | {:.3} |",
            rate(cpu),
            rate(wall),
            rate(batch),
            rate(cpu) / rate(batch)
        );
    }
    Ok(())
}

/// Writes the records, unless the topic is there already.
pub fn fill(bootstrap: &str, topic: &str, n_records: u64) -> Result<(), Box<dyn Error>> {
    match create_topic(bootstrap, topic, N_PARTITIONS) {
        Err(error) if error.state() == SqlState::DuplicateObject => return Ok(()),
        created => created?,
    }
    let producer = Producer::new(bootstrap, &[("linger.ms", "50"), ("batch.size", "1000000")])?;
    let mut value = vec![];
    for index in 0..n_records {
        value.clear();
        nexmark::write_bid_json(index, &mut value);
        let partition = i32::try_from(index % N_PARTITIONS as u64)?;
        producer.send(topic, Some(partition), None, Some(&value), None, &[])?;
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(())
}

/// CPU and wall seconds from CREATE MATERIALIZED VIEW until it has read the whole topic.
fn stream(bootstrap: &str, topic: &str, query: &str) -> Result<(f64, f64), Box<dyn Error>> {
    let mut server = Server::start()?;
    server.rows(&format!(
        "CREATE STREAM bids (auction BIGINT, bidder BIGINT, price BIGINT, channel TEXT, url TEXT, date_time TIMESTAMP, extra TEXT)
         WITH (KAFKA_TOPIC = '{topic}', VALUE_FORMAT = 'JSON', properties.bootstrap.server = '{bootstrap}')"
    ))?;
    let (cpu, wall) = (process_cpu(), Instant::now());
    server.rows(&format!("CREATE MATERIALIZED VIEW v AS {query}"))?;
    Ok((process_cpu() - cpu, wall.elapsed().as_secs_f64()))
}

/// CPU seconds of DataFusion's run over the same rows.
fn batch(query: &str, n_records: u64) -> Result<f64, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut batches: Vec<RecordBatch> = vec![];
    for first in (0..n_records).step_by(BATCH_ROWS) {
        let n = usize::try_from((n_records - first).min(BATCH_ROWS as u64))?;
        batches.push(nexmark::rows(Table::Bid, first, n)?);
    }
    let schema = batches.first().map(RecordBatch::schema).ok_or("no records")?;
    let cx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    cx.register_table("bids", Arc::new(MemTable::try_new(schema, vec![batches])?))?;
    let cpu = process_cpu();
    runtime.block_on(async { cx.sql(query).await?.collect().await })?;
    Ok(process_cpu() - cpu)
}
