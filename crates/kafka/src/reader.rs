//! Reads the partitions of one topic, from given positions, straight from librdkafka's memory into columns.
//!
//! Invariant: each record of a partition is accounted for once, in order: as a row, a dead letter or a skipped one.
//! A reader that failed says so again at each poll.

use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tidewire_connect::{
    BadRecord, Batch, ColumnSource, DeadLetter, Decoder, Health, Positions, ReadMode, Record, SourceReader, Split,
    format_spec,
};
use tidewire_types::{Result, SqlError, SqlState};

use crate::error;
use crate::events::{Consumer, serve};
use crate::probe;
use crate::queue::{Message, Queue, topic_name};
use crate::source::Shared;
use crate::splits::{Splits, Verdict};
use crate::watch::Watch;

/// Records taken from librdkafka in one call.
const TAKE_MAX: usize = 8192;
/// A batch ends here even where its records are tiny.
const BATCH_RECORDS_MAX: usize = 65_536;
/// How often the ends of the partitions are asked of librdkafka (which knows them without asking a broker).
const ENDS_INTERVAL: Duration = Duration::from_millis(100);

/// A [`SourceReader`] over one topic.
pub(crate) struct KafkaReader {
    intake: Intake,
    /// None if there is nothing to read from the start.
    stream: Option<Stream>,
}

/// The connection to the brokers.
struct Stream {
    // In this order: the queue's messages go before the client.
    queue: Queue,
    watch: Watch,
    client: Arc<Consumer>,
    topic: CString,
    ends_asked: Option<Instant>,
}

/// An error in place of a record.
struct Trouble {
    code: RDKafkaErrorCode,
    partition: i32,
    offset: i64,
    words: String,
}

/// Where records go: the batch under construction, and how far it is.
struct Intake {
    shared: Arc<Shared>,
    decoder: Decoder,
    needs_timestamp: bool,
    splits: Splits,
    dead_letters: Vec<DeadLetter>,
    n_skipped: u64,
    n_bytes: usize,
    n_records: usize,
    failed: Option<SqlError>,
}

impl KafkaReader {
    pub(crate) fn new(
        shared: Arc<Shared>,
        positions: Positions,
        projection: &[usize],
        mode: ReadMode,
    ) -> Result<KafkaReader> {
        let splits = Splits::new(&positions, &mode);
        let stream = match splits.finished() {
            true => None,
            false => Some(Stream::open(&shared, &splits)?),
        };
        let intake = Intake {
            decoder: decoder(&shared, projection)?,
            needs_timestamp: needs_timestamp(&shared, projection),
            shared,
            splits,
            dead_letters: vec![],
            n_skipped: 0,
            n_bytes: 0,
            n_records: 0,
            failed: None,
        };
        Ok(KafkaReader { intake, stream })
    }
}

/// What makes columns of the records of this source. Errors: a format that does not exist or does not fit.
pub(crate) fn decoder(shared: &Shared, projection: &[usize]) -> Result<Decoder> {
    let spec = &shared.spec;
    Decoder::new(&spec.columns, projection, &format_spec(&spec.options, spec.format.clone())?)
}

fn needs_timestamp(shared: &Shared, projection: &[usize]) -> bool {
    let mut columns = projection.iter().filter_map(|idx| shared.spec.columns.get(*idx));
    columns.any(|column| column.source == ColumnSource::Timestamp)
}

impl SourceReader for KafkaReader {
    fn poll(&mut self, timeout: Duration, bytes_max: usize) -> Result<Batch> {
        if let Some(error) = &self.intake.failed {
            return Err(error.clone());
        }
        let Some(stream) = &mut self.stream else { return self.intake.cut(Health::Running) };
        stream.adopt_new_partitions(&mut self.intake.splits)?;
        if stream.queue.fill(timeout) {
            stream.drain(&mut self.intake, bytes_max);
        }
        stream.pause(&self.intake.splits.take_ended());
        stream.ask_ends(&mut self.intake.splits);
        let health = stream.watch.health();
        if self.intake.splits.finished() {
            self.stream = None;
        }
        self.intake.cut(health)
    }

    fn set_projection(&mut self, projection: Vec<usize>) {
        match decoder(&self.intake.shared, &projection) {
            Ok(decoder) => {
                self.intake.decoder = decoder;
                self.intake.needs_timestamp = needs_timestamp(&self.intake.shared, &projection);
            }
            // The same columns were decodable at CREATE: this is a bug, and the next poll says so.
            Err(error) => self.intake.failed = Some(error),
        }
    }
}

impl Stream {
    fn open(shared: &Arc<Shared>, splits: &Splits) -> Result<Stream> {
        let client = probe::client(&shared.settings, !splits.follows())?;
        let watch = Watch::start(&client, shared)?;
        // Log lines from before the watch wait among the records, where librdkafka would print them.
        serve(&client);
        let queue = Queue::new(&client, TAKE_MAX)
            .ok_or_else(|| SqlError::internal("librdkafka gives no queue for its records"))?;
        let topic = topic_name(&shared.settings.topic)
            .ok_or_else(|| SqlError::new(SqlState::InvalidName, "a topic's name holds no zero byte"))?;
        let assignment = assignment(&shared.settings.topic, splits.open())?;
        client.assign(&assignment).map_err(|e| error::local("assign partitions", &e))?;
        Ok(Stream { queue, watch, client, topic, ends_asked: None })
    }

    /// Partitions that the topic was given while we read it: from their first records.
    fn adopt_new_partitions(&mut self, splits: &mut Splits) -> Result<()> {
        let Some(partitions) = self.watch.news().filter(|_| splits.follows()) else { return Ok(()) };
        let mut added: Vec<(Split, Option<i64>)> = vec![];
        for split in partitions.into_iter().filter_map(probe::split) {
            if splits.add(split, None, None) {
                added.push((split, None));
            }
        }
        if added.is_empty() {
            return Ok(());
        }
        let topic = self.topic.to_string_lossy();
        tracing::info!(%topic, partitions = ?added, "reading new partitions");
        let assignment = assignment(&topic, added)?;
        self.client.incremental_assign(&assignment).map_err(|e| error::local("assign partitions", &e))
    }

    /// Takes what is there, up to the bounds of a batch.
    fn drain(&mut self, intake: &mut Intake, bytes_max: usize) {
        while let Some(trouble) = self.take_records(intake, bytes_max) {
            self.meet(trouble, intake);
        }
    }

    /// Takes records until none is there, the batch is full, or there is trouble in place of a record.
    fn take_records(&mut self, intake: &mut Intake, bytes_max: usize) -> Option<Trouble> {
        let (mut answered, mut trouble) = (false, None);
        while trouble.is_none() && intake.has_room(bytes_max) && self.queue.fill(Duration::ZERO) {
            while trouble.is_none() && intake.has_room(bytes_max) {
                let Some(message) = self.queue.next() else { break };
                match message.error() {
                    None => intake.record(&message),
                    Some(RDKafkaErrorCode::PartitionEOF) => intake.splits.reach(message.partition(), message.offset()),
                    Some(code) => {
                        let (partition, offset) = (message.partition(), message.offset());
                        trouble = Some(Trouble { code, partition, offset, words: message.error_text() });
                        continue;
                    }
                }
                answered = true;
            }
        }
        if answered {
            self.watch.answered();
        }
        trouble
    }

    /// A lost position ends the source, all else is waited out.
    fn meet(&self, trouble: Trouble, intake: &mut Intake) {
        use RDKafkaErrorCode::{AutoOffsetReset, LogTruncation, OffsetOutOfRange};
        let Trouble { code, partition, offset, words } = trouble;
        if !matches!(code, AutoOffsetReset | LogTruncation | OffsetOutOfRange) {
            return self.watch.troubled(words);
        }
        let settings = &intake.shared.settings;
        let holds = self.client.fetch_watermarks(&settings.topic, partition, Duration::from_secs(2)).ok();
        intake.failed = Some(error::lost(settings, partition, offset, holds, &words));
    }

    /// Fetches no more of partitions that are read to their ends.
    fn pause(&self, ended: &[Split]) {
        if ended.is_empty() {
            return;
        }
        let topic = self.topic.to_string_lossy();
        let mut partitions = TopicPartitionList::with_capacity(ended.len());
        for split in ended {
            partitions.add_partition(&topic, probe::partition(*split));
        }
        if let Err(error) = self.client.pause(&partitions) {
            // Only a waste: what still comes is dropped.
            tracing::debug!(%error, "could not pause partitions");
        }
    }

    fn ask_ends(&mut self, splits: &mut Splits) {
        if self.ends_asked.is_some_and(|asked| asked.elapsed() < ENDS_INTERVAL) {
            return;
        }
        self.ends_asked = Some(Instant::now());
        let all: Vec<Split> = splits.all().collect();
        for split in all {
            if let Some(high) = self.queue.high_watermark(&self.topic, probe::partition(split)) {
                splits.set_high(split, high);
            }
        }
    }
}

fn assignment(topic: &str, splits: impl IntoIterator<Item = (Split, Option<i64>)>) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (split, position) in splits {
        let offset = position.map_or(Offset::Beginning, Offset::Offset);
        list.add_partition_offset(topic, probe::partition(split), offset)
            .map_err(|e| error::local("assign partitions", &e))?;
    }
    Ok(list)
}

impl Intake {
    fn has_room(&self, bytes_max: usize) -> bool {
        self.n_bytes < bytes_max && self.n_records < BATCH_RECORDS_MAX && self.failed.is_none()
    }

    /// One record: a row, a dead letter, a skipped one, or the end of the source.
    #[inline]
    fn record(&mut self, message: &Message<'_>) {
        let offset = message.offset();
        let Verdict::Take(split) = self.splits.record(message.partition(), offset) else { return };
        let (key, value) = (message.key(), message.value());
        self.n_records += 1;
        self.n_bytes += key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        let mut headers = vec![];
        if self.decoder.needs_headers() {
            message.headers(&mut headers);
        }
        let timestamp_us = if self.needs_timestamp { message.timestamp_us() } else { None };
        let record = Record { key, value, split, position: offset, timestamp_us, headers: &headers };
        if let Err(why) = self.decoder.decode(&record) {
            self.bad_record(&record, message.timestamp_us(), why);
        }
    }

    #[cold]
    fn bad_record(&mut self, record: &Record<'_>, timestamp_us: Option<i64>, why: String) {
        let name = &self.shared.spec.name;
        match self.shared.spec.bad_record {
            BadRecord::Skip => self.n_skipped += 1,
            BadRecord::DeadLetter => self.dead_letters.push(DeadLetter {
                split: record.split,
                position: record.position,
                timestamp_us,
                key: record.key.map(Bytes::copy_from_slice),
                value: record.value.map(Bytes::copy_from_slice),
                error: why,
            }),
            BadRecord::Fail => {
                let place = format!("partition {}, offset {}", record.split.0, record.position);
                let error =
                    SqlError::new(SqlState::DataException, format!("bad record in source \"{name}\" at {place}"))
                        .with_detail(format!("{}.", why.trim_end_matches('.')))
                        .with_hint("With bad_record = 'dead_letter' the source goes on and keeps such records aside.");
                self.failed = Some(error);
                self.splits.give_back(record.split, record.position);
            }
        }
    }

    /// What was taken since the last cut. A failure meanwhile is told by the next poll, after the rows before it.
    fn cut(&mut self, health: Health) -> Result<Batch> {
        let rows = self.decoder.finish()?;
        let (positions, first_positions) = self.splits.cut();
        self.n_records = 0;
        Ok(Batch {
            rows,
            positions,
            first_positions,
            dead_letters: std::mem::take(&mut self.dead_letters),
            n_skipped: std::mem::take(&mut self.n_skipped),
            n_bytes: u64::try_from(std::mem::take(&mut self.n_bytes)).unwrap_or(u64::MAX),
            ends: self.splits.ends(),
            health,
            finished: self.splits.finished(),
        })
    }
}
