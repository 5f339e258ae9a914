//! How long a change takes to reach a subscriber, and what an idle server costs.
//!
//! `tidewire-bench latency BOOTSTRAP [SECONDS]`: records produced to Kafka at 20,000 a second and pushed from a stream;
//! rows inserted into a table and pushed from a view. Latencies in milliseconds; producer and server share the process.

use std::error::Error;
use std::time::{Duration, Instant, SystemTime};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::StreamExt;
use tidewire_kafka::testing::{Producer, consume, create_topic};

use crate::cpu::process_cpu;
use crate::server::{Server, push};

const RECORDS_PER_SECOND: u64 = 20_000;
const WARM_UP_SECONDS: usize = 3;
const N_INSERTS: usize = 2_000;
const N_IDLE_VIEWS: usize = 100;

/// Runs the benchmark.
pub fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let mut args = args.iter();
    let bootstrap = args.next().ok_or("usage: tidewire-bench latency BOOTSTRAP [SECONDS]")?;
    let seconds: u64 = args.next().map_or(Ok(10), |n| n.parse())?;
    println!("| what | p50, ms | p99, ms | worst, ms |\n|---|---|---|---|");
    let (pushed, plain) = from_kafka(bootstrap, seconds)?;
    print("Kafka record at 20,000/s to subscriber", pushed);
    print("the same records to a plain Kafka consumer, in the same run", plain);
    print("INSERT to subscriber", from_insert(false)?);
    print("INSERT returns", from_insert(true)?);
    let (cpu, resident) = idle(seconds)?;
    println!(
        "\nidle with {N_IDLE_VIEWS} views: {:.2} % of a core, {resident} MB resident in this process",
        cpu * 100.0
    );
    Ok(())
}

fn print(name: &str, mut latencies: Vec<f64>) {
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let idx = ((latencies.len() as f64 * share) as usize).min(latencies.len().saturating_sub(1));
        latencies.get(idx).copied().unwrap_or(f64::NAN)
    };
    println!("| {name} ({} samples) | {:.2} | {:.2} | {:.2} |", latencies.len(), at(0.5), at(0.99), at(1.0));
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

/// The latencies of a pushed batch: its `sent_us` column is when each row was made.
fn record(batch: &RecordBatch, latencies: &mut Vec<f64>) {
    let now = now_us();
    if let Some(sent) = batch.column_by_name("sent_us").and_then(|c| c.as_primitive_opt::<Int64Type>()) {
        latencies.extend(sent.values().iter().map(|sent| (now - sent) as f64 / 1e3));
    }
}

/// The latencies of a subscriber and, of the same records at the same time, those of a plain consumer beside it: what
/// broker, producer and machine take by themselves.
fn from_kafka(bootstrap: &str, seconds: u64) -> Result<(Vec<f64>, Vec<f64>), Box<dyn Error>> {
    let topic = format!("latency-{}", now_us());
    create_topic(bootstrap, &topic, 2)?;
    let mut server = Server::start()?;
    server.rows(&format!(
        "CREATE STREAM events (id BIGINT, sent_us BIGINT, note TEXT)
         WITH (KAFKA_TOPIC = '{topic}', VALUE_FORMAT = 'JSON', properties.bootstrap.server = '{bootstrap}')"
    ))?;
    let mut session = server.session();
    let mut changes = server.runtime.block_on(push(&mut session, "SELECT id, sent_us FROM events EMIT CHANGES"))?;
    let n_records = RECORDS_PER_SECOND * seconds;
    let place = (bootstrap.to_string(), topic.clone());
    let reading = std::thread::spawn(move || read_plain(&place.0, &place.1, n_records));
    let (bootstrap, topic) = (bootstrap.to_string(), topic.clone());
    let producing = std::thread::spawn(move || produce(&bootstrap, &topic, n_records).map_err(|e| e.to_string()));
    let latencies = server.runtime.block_on(async {
        let mut latencies = vec![];
        while (latencies.len() as u64) < n_records
            && let Ok(Some(batch)) = tokio::time::timeout(Duration::from_secs(10), changes.next()).await
        {
            record(&batch?, &mut latencies);
        }
        Ok::<_, tidewire_types::SqlError>(latencies)
    })?;
    producing.join().map_err(|_| "the producer panicked")??;
    drop(changes);
    let plain = reading.join().map_err(|_| "the plain consumer panicked")??;
    // The first seconds warm connections up; the first commit of offsets has the broker make a topic for them.
    let warm =
        |latencies: Vec<f64>| latencies.into_iter().skip(WARM_UP_SECONDS * RECORDS_PER_SECOND as usize).collect();
    Ok((warm(latencies), warm(plain)))
}

fn read_plain(bootstrap: &str, topic: &str, n_records: u64) -> Result<Vec<f64>, tidewire_types::SqlError> {
    let mut latencies = vec![];
    consume(bootstrap, topic, 2, |value| {
        let text = std::str::from_utf8(value).unwrap_or_default();
        let sent = text.split_once("\"sent_us\":").and_then(|(_, rest)| rest.split(',').next()?.parse::<i64>().ok());
        latencies.extend(sent.map(|sent| (now_us() - sent) as f64 / 1e3));
        (latencies.len() as u64) < n_records
    })?;
    Ok(latencies)
}

fn produce(bootstrap: &str, topic: &str, n_records: u64) -> Result<(), Box<dyn Error>> {
    let producer = Producer::new(bootstrap, &[("linger.ms", "1")])?;
    let note = "x".repeat(130);
    let began = Instant::now();
    let (_never, pause) = std::sync::mpsc::channel::<()>();
    for id in 0..n_records {
        let due = began + Duration::from_nanos(id * 1_000_000_000 / RECORDS_PER_SECOND);
        // A pause of a millisecond, not a wait for each record.
        if let Some(early) = due.checked_duration_since(Instant::now()).filter(|d| *d > Duration::from_millis(1)) {
            let _ = pause.recv_timeout(early);
        }
        let value = format!("{{\"id\":{id},\"sent_us\":{},\"note\":\"{note}\"}}", now_us());
        producer.send(topic, Some((id % 2) as i32), None, Some(value.as_bytes()), None, &[])?;
    }
    Ok(producer.flush(Duration::from_secs(30))?)
}

/// Latencies of single-row inserts: until the statement returns, or until a subscriber of a view has the row.
fn from_insert(until_return: bool) -> Result<Vec<f64>, Box<dyn Error>> {
    let mut server = Server::start()?;
    server.rows("CREATE TABLE t (id BIGINT PRIMARY KEY, sent_us BIGINT)")?;
    server.rows("CREATE MATERIALIZED VIEW v AS SELECT id, sent_us FROM t WHERE id >= 0")?;
    let mut reader = server.session();
    let mut changes = server.runtime.block_on(push(&mut reader, "SUBSCRIBE TO v"))?;
    let mut latencies = vec![];
    let mut returns = vec![];
    for id in 0..N_INSERTS {
        let began = Instant::now();
        server.rows(&format!("INSERT INTO t VALUES ({id}, {})", now_us()))?;
        returns.push(began.elapsed().as_secs_f64() * 1e3);
        let batch = server.runtime.block_on(changes.next()).ok_or("the subscription ended")??;
        record(&batch, &mut latencies);
    }
    Ok(if until_return { returns } else { latencies })
}

/// The share of a core that an idle server with views takes, and the process's resident megabytes.
fn idle(seconds: u64) -> Result<(f64, u64), Box<dyn Error>> {
    let mut server = Server::start()?;
    server.rows("CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT)")?;
    for n in 0..N_IDLE_VIEWS {
        server.rows(&format!(
            "CREATE MATERIALIZED VIEW v{n} AS SELECT k, count(*) AS n FROM t WHERE id > {n} GROUP BY k"
        ))?;
    }
    let (_never, pause) = std::sync::mpsc::channel::<()>();
    let _ = pause.recv_timeout(Duration::from_secs(1));
    let (cpu, wall) = (process_cpu(), Instant::now());
    let _ = pause.recv_timeout(Duration::from_secs(seconds));
    let share = (process_cpu() - cpu) / wall.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let resident =
        status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok((share, resident.unwrap_or(0) / 1024))
}
