//! Questions to the brokers: does the topic exist, which partitions has it, where do they begin and end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tidewire_connect::{Positions, Split};
use tidewire_types::Result;

use crate::error;
use crate::events::{Consumer, Events, serve};
use crate::settings::Settings;

/// How long a question may take once the brokers are known to be there.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// When every known broker has refused, waiting on for the whole deadline helps only one that is just starting.
const ALL_DOWN_PATIENCE: Duration = Duration::from_secs(1);

/// A client for this source, not reading anything yet. Errors: `22023` for properties that librdkafka refuses.
pub(crate) fn client(settings: &Settings, bounded: bool) -> Result<Arc<Consumer>> {
    let events = Events::new(&settings.name);
    let client = settings.client_config(bounded).create_with_context(events).map_err(|e| error::config(&e))?;
    Ok(Arc::new(client))
}

/// Waits for the brokers' first answer and for the topic to be in it. Gives the partitions.
///
/// Errors: `08006` no answer, `28P01` wrong password, `42704` no such topic, `42501` may not read it.
pub(crate) fn connect(client: &Arc<Consumer>, settings: &Settings) -> Result<Vec<i32>> {
    let began = Instant::now();
    // Short questions first: librdkafka learns of a wrong password between them.
    let mut patience = Duration::from_millis(200);
    loop {
        let left = settings.connect_timeout.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(error::no_answer(settings, &client.client().context().seen()));
        }
        let answer = client.fetch_metadata(Some(&settings.topic), patience.min(left));
        serve(client);
        match answer.map_err(|e| e.rdkafka_error_code()) {
            Ok(metadata) => match topic_partitions(&metadata, &settings.topic) {
                Ok(partitions) => return Ok(partitions),
                Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                    return Err(no_topic(client, settings));
                }
                // A topic that was created a moment ago.
                Err(RDKafkaErrorCode::LeaderNotAvailable) => {}
                Err(code) => return Err(error::topic(settings, code)),
            },
            Err(Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {
                return Err(no_topic(client, settings));
            }
            Err(_) => {
                let seen = client.client().context().seen();
                let hopeless = seen.all_down && began.elapsed() >= ALL_DOWN_PATIENCE;
                if seen.authentication.is_some() || hopeless {
                    return Err(error::no_answer(settings, &seen));
                }
                patience = (patience * 2).min(Duration::from_secs(2));
            }
        }
        // An answer that comes at once, and is none, is not asked for again at once.
        serve_for(client, Duration::from_millis(100).min(left));
    }
}

/// Serves the client's events for a while.
pub(crate) fn serve_for(client: &Arc<Consumer>, duration: Duration) {
    let until = Instant::now() + duration;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        client.poll(left);
    }
}

fn no_topic(client: &Arc<Consumer>, settings: &Settings) -> tidewire_types::SqlError {
    let all = client.fetch_metadata(None, REQUEST_TIMEOUT);
    let names = all.iter().flat_map(|metadata| metadata.topics()).map(|topic| topic.name());
    error::no_topic(settings, names.filter(|name| !name.starts_with("__") && *name != settings.topic))
}

/// The partitions of the topic in an answer. Errors: what the brokers say about the topic.
pub(crate) fn topic_partitions(metadata: &Metadata, topic: &str) -> Result<Vec<i32>, RDKafkaErrorCode> {
    let Some(topic) = metadata.topics().iter().find(|t| t.name() == topic) else {
        return Err(RDKafkaErrorCode::UnknownTopicOrPartition);
    };
    if let Some(error) = topic.error() {
        return Err(error.into());
    }
    let mut partitions: Vec<i32> = topic.partitions().iter().map(|p| p.id()).collect();
    partitions.sort_unstable();
    match partitions.is_empty() {
        true => Err(RDKafkaErrorCode::LeaderNotAvailable),
        false => Ok(partitions),
    }
}

/// The partitions that the topic has now.
pub(crate) fn partitions(client: &Arc<Consumer>, settings: &Settings) -> Result<Vec<i32>> {
    serve(client);
    let metadata = client
        .fetch_metadata(Some(&settings.topic), REQUEST_TIMEOUT)
        .map_err(|e| error::request(settings, "the partitions", &e))?;
    topic_partitions(&metadata, &settings.topic).map_err(|code| match code {
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => no_topic(client, settings),
        code => error::topic(settings, code),
    })
}

/// For each partition its first offset (`Offset::Beginning`), the offset of its next record (`Offset::End`; with
/// `read_committed`, of the first record of an open transaction), or the first record at or after a time, where there
/// is one. One question to each broker.
pub(crate) fn offsets(
    client: &Arc<Consumer>,
    settings: &Settings,
    partitions: &[i32],
    which: Offset,
) -> Result<Positions> {
    let what = if which == Offset::Beginning { "the first offsets" } else { "the offsets" };
    let failed = |e: KafkaError| error::request(settings, what, &e);
    let mut question = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        question.add_partition_offset(&settings.topic, *partition, which).map_err(failed)?;
    }
    let answer = client.offsets_for_times(question, REQUEST_TIMEOUT).map_err(failed)?;
    let mut positions = Positions::new();
    for element in answer.elements() {
        element.error().map_err(failed)?;
        // A time after the last record has no offset.
        if let (Offset::Offset(offset), Some(split)) = (element.offset(), split(element.partition())) {
            positions.insert(split, offset);
        }
    }
    Ok(positions)
}

/// A partition as a split; None for the negative numbers that stand for no partition.
pub(crate) fn split(partition: i32) -> Option<Split> {
    u32::try_from(partition).ok().map(Split)
}

/// A split as a partition; none has a number beyond `i32`.
pub(crate) fn partition(split: Split) -> i32 {
    i32::try_from(split.0).unwrap_or(i32::MAX)
}
