//! Kafka from the other side, for tests and for `tidewire demo`: an in-process cluster, a producer, and the few
//! administrative calls that tests need. Nothing in the connector uses it.
//!
//! The in-process cluster is librdkafka's mock: it keeps records in memory (about 5 MB a partition, the oldest go
//! first), and knows neither transactions, compaction nor administration. Those need a real broker.

use std::future::Future;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidewire_types::{Result, SqlError, SqlState};

use crate::error::words;

const TIMEOUT: Duration = Duration::from_secs(30);

fn failed(what: &str, error: &KafkaError) -> SqlError {
    SqlError::new(SqlState::ConnectionFailure, format!("cannot {what}: {}", words(error)))
}

/// A Kafka cluster inside this process, gone when dropped.
pub struct MockKafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl MockKafka {
    /// Starts it on loopback ports of its own choice.
    pub fn start(n_brokers: usize) -> Result<MockKafka> {
        let n_brokers = i32::try_from(n_brokers).unwrap_or(i32::MAX);
        let cluster = MockCluster::new(n_brokers).map_err(|e| failed("start the in-process Kafka", &e))?;
        Ok(MockKafka { cluster })
    }

    /// What `properties.bootstrap.server` is to be.
    pub fn bootstrap(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Creates a topic.
    pub fn create_topic(&self, name: &str, partitions: usize) -> Result<()> {
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        self.cluster.create_topic(name, partitions, 1).map_err(|e| failed("create a topic", &e))
    }

    /// All brokers vanish: connections break, new ones are refused.
    pub fn down(&self) -> Result<()> {
        self.cluster.broker_down(-1).map_err(|e| failed("stop the brokers", &e))
    }

    /// All brokers are back, with what they had.
    pub fn up(&self) -> Result<()> {
        self.cluster.broker_up(-1).map_err(|e| failed("start the brokers", &e))
    }
}

impl std::fmt::Debug for MockKafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MockKafka").field(&self.bootstrap()).finish()
    }
}

/// Writes records. Sending only queues them; [`Producer::flush`] waits until the brokers have them.
pub struct Producer {
    inner: BaseProducer<Deliveries>,
    lost: Arc<AtomicU64>,
}

/// Counts what did not arrive.
struct Deliveries(Arc<AtomicU64>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Producer {
    /// A producer for the cluster at `bootstrap`; `properties` are librdkafka's.
    pub fn new(bootstrap: &str, properties: &[(&str, &str)]) -> Result<Producer> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("linger.ms", "1").set_log_level(RDKafkaLogLevel::Warning);
        for (name, value) in properties {
            config.set(*name, *value);
        }
        let lost = Arc::new(AtomicU64::new(0));
        let inner = config
            .create_with_context(Deliveries(Arc::clone(&lost)))
            .map_err(|e| failed("make a Kafka producer", &e))?;
        Ok(Producer { inner, lost })
    }

    /// Queues one record; waits only while the queue is full. Without a partition, the key's hash chooses it.
    pub fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp_ms: Option<i64>,
        headers: &[(&str, &[u8])],
    ) -> Result<()> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
        (record.partition, record.key, record.payload, record.timestamp) = (partition, key, value, timestamp_ms);
        if !headers.is_empty() {
            let owned = OwnedHeaders::new_with_capacity(headers.len());
            let insert =
                |owned: OwnedHeaders, (key, value): &(&str, &[u8])| owned.insert(Header { key, value: Some(*value) });
            record = record.headers(headers.iter().fold(owned, insert));
        }
        let began = Instant::now();
        loop {
            self.inner.poll(Duration::ZERO);
            match self.inner.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if began.elapsed() < TIMEOUT =>
                {
                    record = back;
                    self.inner.poll(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(failed("send a record", &error)),
            }
        }
    }

    /// Waits until the brokers have all that was sent. Errors: time is up, or some record was refused.
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        self.inner.flush(timeout).map_err(|e| failed("send all records", &e))?;
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => Ok(()),
            n => Err(SqlError::new(SqlState::ConnectionFailure, format!("the brokers refused {n} records"))),
        }
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

/// Reads a topic from its beginning as a plain client of librdkafka does, a record at a time, until `each` says false.
pub fn consume(bootstrap: &str, topic: &str, n_partitions: i32, mut each: impl FnMut(&[u8]) -> bool) -> Result<()> {
    let what = "read a topic";
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "plain").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().map_err(|e| failed(what, &e))?;
    let mut all = TopicPartitionList::new();
    for partition in 0..n_partitions {
        all.add_partition_offset(topic, partition, Offset::Beginning).map_err(|e| failed(what, &e))?;
    }
    consumer.assign(&all).map_err(|e| failed(what, &e))?;
    loop {
        let Some(message) = consumer.poll(TIMEOUT) else { return Ok(()) };
        let message = message.map_err(|e| failed(what, &e))?;
        if !each(message.payload().unwrap_or_default()) {
            return Ok(());
        }
    }
}

fn admin(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set_log_level(RDKafkaLogLevel::Warning);
    config.create().map_err(|e| failed("make a Kafka client", &e))
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT))
}

fn run(what: &str, call: impl Future<Output = KafkaResult<Vec<TopicResult>>>) -> Result<()> {
    for result in block_on(call).map_err(|e| failed(what, &e))? {
        if let Err((topic, code)) = result {
            let state = match code {
                RDKafkaErrorCode::TopicAlreadyExists => SqlState::DuplicateObject,
                RDKafkaErrorCode::UnknownTopicOrPartition => SqlState::UndefinedObject,
                _ => SqlState::ConnectionFailure,
            };
            return Err(SqlError::new(state, format!("cannot {what} \"{topic}\": {code}")));
        }
    }
    Ok(())
}

/// Creates a topic in a real cluster, with one replica.
pub fn create_topic(bootstrap: &str, name: &str, partitions: usize) -> Result<()> {
    create_topic_with(bootstrap, name, partitions, &[])
}

/// The same with properties of the topic (`cleanup.policy`, ..).
pub fn create_topic_with(bootstrap: &str, name: &str, partitions: usize, properties: &[(&str, &str)]) -> Result<()> {
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let topic = properties.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    run("create topic", admin(bootstrap)?.create_topics([&topic], &options()))
}

/// Gives a topic more partitions: `partitions` in all.
pub fn add_partitions(bootstrap: &str, topic: &str, partitions: usize) -> Result<()> {
    run(
        "add partitions to topic",
        admin(bootstrap)?.create_partitions([&NewPartitions::new(topic, partitions)], &options()),
    )
}

/// Deletes a topic.
pub fn delete_topic(bootstrap: &str, name: &str) -> Result<()> {
    run("delete topic", admin(bootstrap)?.delete_topics(&[name], &options()))
}

/// Deletes the records of a partition before an offset, as retention does.
pub fn delete_records(bootstrap: &str, topic: &str, partition: i32, before: i64) -> Result<()> {
    let what = "delete records";
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, partition, Offset::Offset(before)).map_err(|e| failed(what, &e))?;
    let answer = block_on(admin(bootstrap)?.delete_records(&offsets, &options())).map_err(|e| failed(what, &e))?;
    answer.elements().iter().try_for_each(|element| element.error()).map_err(|e| failed(what, &e))
}
