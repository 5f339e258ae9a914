//! A declared Kafka source: where it begins, where it ends now, readers at any positions, and the consumer group that
//! shows how far the views have come.

use std::fmt;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tidewire_connect::{Positions, ReadMode, Source, SourceReader, SourceSpec};
use tidewire_types::{Result, SqlError, SqlState};
use tracing::debug;

use crate::events::Consumer;
use crate::probe;
use crate::reader::{KafkaReader, decoder};
use crate::settings::{Settings, StartMode};

/// Offsets are committed to the consumer group at most this often.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// What a source and its readers share.
pub(crate) struct Shared {
    pub(crate) spec: SourceSpec,
    pub(crate) settings: Settings,
}

/// One `CREATE SOURCE .. WITH (connector = 'kafka')`.
pub(crate) struct KafkaSource {
    shared: Arc<Shared>,
    /// For questions and commits; readers have clients of their own.
    client: Arc<Consumer>,
    /// What `latest` or `timestamp` came to when it was first asked for.
    resolved: Mutex<Option<Positions>>,
    commits: OnceLock<Sender<Positions>>,
}

impl KafkaSource {
    /// Checks the source against the brokers.
    pub(crate) fn create(spec: SourceSpec, settings: Settings) -> Result<KafkaSource> {
        let shared = Arc::new(Shared { spec, settings });
        // A format that does not fit the columns is found before a broker is asked.
        let all: Vec<usize> = (0..shared.spec.columns.len()).collect();
        decoder(&shared, &all)?;
        let client = probe::client(&shared.settings, false)?;
        let partitions = probe::connect(&client, &shared.settings)?;
        let source = KafkaSource { shared, client, resolved: Mutex::default(), commits: OnceLock::new() };
        source.check_offsets(&partitions)?;
        Ok(source)
    }

    /// Offsets named by the user must lie in the topic. One that retention has passed is not checked: it may have been
    /// right when the source was created.
    fn check_offsets(&self, partitions: &[i32]) -> Result<()> {
        let StartMode::Offsets(wanted) = &self.settings().start else { return Ok(()) };
        let ends = probe::offsets(&self.client, self.settings(), partitions, Offset::End)?;
        for (split, position) in wanted {
            let why = match ends.get(split) {
                None => format!("topic \"{}\" has no partition {}", self.settings().topic, split.0),
                Some(end) if position > end => format!("partition {} ends at offset {end}", split.0),
                Some(_) => continue,
            };
            let text = format!("invalid value for option \"scan.startup.specific-offsets\": {why}");
            return Err(SqlError::new(SqlState::InvalidParameterValue, text));
        }
        Ok(())
    }

    fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The positions at which `latest` or `timestamp` begins: of the first call, by what the brokers say then.
    fn resolve(&self, partitions: &[i32]) -> Result<Option<Positions>> {
        let mut resolved = self.resolved.lock();
        if resolved.is_none() {
            *resolved = match &self.settings().start {
                StartMode::Earliest => None,
                StartMode::Offsets(positions) => Some(positions.clone()),
                StartMode::Latest => Some(probe::offsets(&self.client, self.settings(), partitions, Offset::End)?),
                StartMode::Timestamp(ms) => {
                    // The end where no record is that late. Asked for first: what arrives in between is late enough.
                    let mut positions = probe::offsets(&self.client, self.settings(), partitions, Offset::End)?;
                    positions.extend(probe::offsets(&self.client, self.settings(), partitions, Offset::Offset(*ms))?);
                    Some(positions)
                }
            };
        }
        Ok(resolved.clone())
    }

    fn commit_sender(&self) -> Option<&Sender<Positions>> {
        if self.commits.get().is_none() {
            let (sender, receiver) = mpsc::channel();
            let (client, topic) = (Arc::clone(&self.client), self.settings().topic.clone());
            let thread = thread::Builder::new().name("kafka-commit".to_owned());
            thread.spawn(move || commit_loop(&client, &topic, &receiver)).ok()?;
            // Where two came at once, the thread of the second ends with its sender.
            let _ = self.commits.set(sender);
        }
        self.commits.get()
    }
}

impl Source for KafkaSource {
    fn start(&self) -> Result<Positions> {
        let partitions = probe::partitions(&self.client, self.settings())?;
        let resolved = self.resolve(&partitions)?.unwrap_or_default();
        let mut positions = probe::offsets(&self.client, self.settings(), &partitions, Offset::Beginning)?;
        for (split, position) in &mut positions {
            if let Some(chosen) = resolved.get(split) {
                *position = *chosen;
            }
        }
        Ok(positions)
    }

    fn start_to_keep(&self) -> Result<Option<Positions>> {
        match &self.settings().start {
            StartMode::Earliest | StartMode::Offsets(_) => Ok(None),
            StartMode::Latest | StartMode::Timestamp(_) => self.start().map(Some),
        }
    }

    fn restore_start(&self, start: &Positions) {
        *self.resolved.lock() = Some(start.clone());
    }

    fn end(&self) -> Result<Positions> {
        let partitions = probe::partitions(&self.client, self.settings())?;
        probe::offsets(&self.client, self.settings(), &partitions, Offset::End)
    }

    fn earliest(&self) -> Result<Positions> {
        let partitions = probe::partitions(&self.client, self.settings())?;
        probe::offsets(&self.client, self.settings(), &partitions, Offset::Beginning)
    }

    fn read(&self, positions: Positions, projection: Vec<usize>, mode: ReadMode) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(KafkaReader::new(Arc::clone(&self.shared), positions, &projection, mode)?))
    }

    fn commit(&self, positions: &Positions) {
        if let Some(sender) = self.commit_sender() {
            // The receiver is gone only if its thread is: then there is nobody to tell.
            let _ = sender.send(positions.clone());
        }
    }
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource").field("settings", self.settings()).finish_non_exhaustive()
    }
}

/// Commits the newest positions, until the source is gone.
fn commit_loop(client: &Arc<Consumer>, topic: &str, receiver: &Receiver<Positions>) {
    while let Ok(mut positions) = receiver.recv() {
        while let Ok(newer) = receiver.try_recv() {
            positions.extend(newer);
        }
        let mut offsets = TopicPartitionList::with_capacity(positions.len());
        for (split, position) in positions {
            if let Err(error) = offsets.add_partition_offset(topic, probe::partition(split), Offset::Offset(position)) {
                debug!(topic, %error, "position cannot be committed");
            }
        }
        if let Err(error) = client.commit(&offsets, CommitMode::Async) {
            debug!(topic, %error, "could not commit offsets to the consumer group");
        }
        // Serves the answer, and makes the second pass.
        probe::serve_for(client, COMMIT_INTERVAL);
    }
}
