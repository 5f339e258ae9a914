//! `connector = 'memory'`: topics in this process, so that tests of streams are deterministic.
//!
//! Invariant: records of a split keep the order in which they were appended, and their positions are 0, 1, 2, ..

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tidewire_connect::{
    BadRecord, Batch, Connector, DeadLetter, Decoder, FORMAT_OPTIONS, FormatSpec, OptionSpec, Position, Positions,
    ReadMode, Record, Source, SourceReader, SourceSpec, Split, format_spec,
};
use tidewire_types::{Result, SqlError, SqlState};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "topic", required: true, help: "The topic; it is made where there is none." },
    OptionSpec { name: "splits", required: false, help: "How many splits the topic has at least; default 1." },
    OptionSpec { name: "scan.startup.mode", required: false, help: "earliest (default) or latest." },
];

/// All topics of one server. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Topics>);

#[derive(Debug, Default)]
struct Topics {
    state: Mutex<State>,
    appended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    topics: BTreeMap<String, Vec<Vec<Stored>>>,
    /// Which topic a source reads, by the source's qualified name.
    sources: BTreeMap<String, String>,
    /// Whether nothing answers.
    is_away: bool,
}

/// One record in a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; None is a tombstone.
    pub value: Option<Bytes>,
    /// Its own time, microseconds since 1970-01-01 UTC.
    pub timestamp_us: Option<i64>,
    /// Its headers.
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl Stored {
    /// A record that is only a value.
    pub fn of_value(value: impl Into<Bytes>) -> Stored {
        Stored { value: Some(value.into()), ..Stored::default() }
    }
}

impl Memory {
    /// Appends records to a split; topic and split are made where there are none.
    pub fn append(&self, topic: &str, split: u32, records: impl IntoIterator<Item = Stored>) {
        let mut state = self.0.state.lock();
        let splits = state.topics.entry(topic.to_string()).or_default();
        let index = split as usize;
        if splits.len() <= index {
            splits.resize(index + 1, vec![]);
        }
        if let Some(stored) = splits.get_mut(index) {
            stored.extend(records);
        }
        self.0.appended.notify_all();
    }

    /// Has everything that sources ask fail as if a broker were away, or answer again. Readers that run go on.
    pub fn set_away(&self, is_away: bool) {
        self.0.state.lock().is_away = is_away;
    }

    /// The end of every split of the topic that a source reads; None for a source of another connector.
    pub fn ends(&self, source: &str) -> Option<Positions> {
        let state = self.0.state.lock();
        let topic = state.sources.get(source).or_else(|| state.sources.get(source.rsplit('.').next()?))?;
        Some(ends(state.topics.get(topic)?))
    }
}

fn ends(splits: &[Vec<Stored>]) -> Positions {
    let end = |stored: &Vec<Stored>| Position::try_from(stored.len()).unwrap_or(Position::MAX);
    (0..).map(Split).zip(splits.iter().map(end)).collect()
}

impl Connector for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn create(&self, spec: SourceSpec) -> Result<Arc<dyn Source>> {
        spec.options.check(&[OPTIONS, FORMAT_OPTIONS])?;
        let format = format_spec(&spec.options, spec.format.clone())?;
        Decoder::new(&spec.columns, &[], &format)?;
        let topic = spec.options.require("topic")?.to_string();
        let n_splits = spec.options.parse_or("splits", 1_u32)?;
        if n_splits == 0 {
            return Err(spec.options.invalid("splits", "it must be greater than zero"));
        }
        self.append(&topic, n_splits - 1, []);
        let start = match spec.options.get("scan.startup.mode").unwrap_or("earliest") {
            "earliest" => Positions::new(),
            "latest" => self.0.state.lock().topics.get(&topic).map(|s| ends(s)).unwrap_or_default(),
            other => {
                let why = format!("\"{other}\" is neither earliest nor latest");
                return Err(SqlError::new(SqlState::InvalidParameterValue, why));
            }
        };
        self.0.state.lock().sources.insert(spec.name.clone(), topic.clone());
        let start = Arc::new(Mutex::new(start));
        Ok(Arc::new(MemorySource { topics: self.0.clone(), topic, format, spec, start }))
    }
}

#[derive(Debug)]
struct MemorySource {
    topics: Arc<Topics>,
    topic: String,
    format: FormatSpec,
    spec: SourceSpec,
    start: Arc<Mutex<Positions>>,
}

impl MemorySource {
    fn ends(&self) -> Positions {
        self.topics.state.lock().topics.get(&self.topic).map(|s| ends(s)).unwrap_or_default()
    }

    fn check_there(&self) -> Result<()> {
        match self.topics.state.lock().is_away {
            true => Err(SqlError::new(SqlState::ConnectionFailure, "nothing answers")),
            false => Ok(()),
        }
    }

    fn decoder(&self, projection: &[usize]) -> Result<Decoder> {
        Decoder::new(&self.spec.columns, projection, &self.format)
    }
}

impl Source for MemorySource {
    fn start(&self) -> Result<Positions> {
        self.check_there()?;
        let start = self.start.lock().clone();
        Ok(self.ends().into_keys().map(|s| (s, start.get(&s).copied().unwrap_or(0))).collect())
    }

    fn start_to_keep(&self) -> Result<Option<Positions>> {
        Ok(Some(self.start.lock().clone()).filter(|start| !start.is_empty()))
    }

    fn restore_start(&self, start: &Positions) {
        *self.start.lock() = start.clone();
    }

    fn end(&self) -> Result<Positions> {
        self.check_there()?;
        Ok(self.ends())
    }

    fn read(&self, positions: Positions, projection: Vec<usize>, mode: ReadMode) -> Result<Box<dyn SourceReader>> {
        self.check_there()?;
        let decoder = self.decoder(&projection)?;
        let source = MemorySource {
            topics: self.topics.clone(),
            topic: self.topic.clone(),
            format: self.format.clone(),
            spec: self.spec.clone(),
            start: self.start.clone(),
        };
        Ok(Box::new(MemoryReader { source, decoder, positions, mode, next_projection: None }))
    }
}

struct MemoryReader {
    source: MemorySource,
    decoder: Decoder,
    positions: Positions,
    mode: ReadMode,
    next_projection: Option<Vec<usize>>,
}

impl MemoryReader {
    /// Takes records that are there: from every split in turn, up to about `bytes_max`.
    fn take(&mut self, bytes_max: usize) -> Vec<(Split, Position, Stored)> {
        let state = self.source.topics.state.lock();
        let Some(splits) = state.topics.get(&self.source.topic) else { return vec![] };
        let mut taken = vec![];
        let mut n_bytes = 0;
        for (split, stored) in (0..).map(Split).zip(splits) {
            let end = match &self.mode {
                ReadMode::Follow => Position::MAX,
                ReadMode::Until(ends) => ends.get(&split).copied().unwrap_or(0),
            };
            // A split that appeared while the source runs begins at its earliest record.
            let position = self.positions.entry(split).or_insert(0);
            while *position < end
                && n_bytes < bytes_max
                && let Some(record) = usize::try_from(*position).ok().and_then(|idx| stored.get(idx))
            {
                n_bytes += record.value.as_ref().map_or(0, Bytes::len) + 1;
                taken.push((split, *position, record.clone()));
                *position += 1;
            }
        }
        taken
    }

    fn decode(&mut self, taken: Vec<(Split, Position, Stored)>) -> Result<Batch> {
        let mut batch = Batch::empty(self.decoder.schema().clone());
        for (split, position, stored) in taken {
            batch.first_positions.entry(split).or_insert(position);
            batch.positions.insert(split, position + 1);
            batch.n_bytes += stored.value.as_ref().map_or(0, |v| v.len() as u64);
            let headers: Vec<_> = stored.headers.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
            let record = Record {
                key: stored.key.as_deref(),
                value: stored.value.as_deref(),
                split,
                position,
                timestamp_us: stored.timestamp_us,
                headers: &headers,
            };
            let Err(error) = self.decoder.decode(&record) else { continue };
            match self.source.spec.bad_record {
                BadRecord::Skip => batch.n_skipped += 1,
                BadRecord::Fail => {
                    let at = format!("bad record at position {position} of split {}: {error}", split.0);
                    return Err(SqlError::new(SqlState::DataException, at));
                }
                BadRecord::DeadLetter => batch.dead_letters.push(DeadLetter {
                    split,
                    position,
                    timestamp_us: stored.timestamp_us,
                    key: stored.key,
                    value: stored.value,
                    error,
                }),
            }
        }
        batch.rows = self.decoder.finish()?;
        Ok(batch)
    }

    fn finished(&self) -> bool {
        match &self.mode {
            ReadMode::Follow => false,
            ReadMode::Until(ends) => ends.iter().all(|(s, end)| self.positions.get(s).is_some_and(|at| at >= end)),
        }
    }
}

impl SourceReader for MemoryReader {
    fn poll(&mut self, timeout: Duration, bytes_max: usize) -> Result<Batch> {
        if let Some(projection) = self.next_projection.take() {
            self.decoder = self.source.decoder(&projection)?;
        }
        let mut taken = self.take(bytes_max);
        if taken.is_empty() && !self.finished() {
            let topics = self.source.topics.clone();
            // Between the look above and this wait a record may come: then it is seen at the next poll.
            topics.appended.wait_for(&mut topics.state.lock(), timeout.min(Duration::from_millis(20)));
            taken = self.take(bytes_max);
        }
        let mut batch = self.decode(taken)?;
        batch.ends = self.source.ends();
        batch.finished = self.finished();
        Ok(batch)
    }

    fn set_projection(&mut self, projection: Vec<usize>) {
        self.next_projection = Some(projection);
    }
}
