//! A reader's other thread: shows librdkafka's log lines, looks for new partitions, and knows whether brokers answer.
//!
//! It is apart from the reader so that no record ever waits for a question about metadata. The reader asks one atomic
//! flag for news. The thread ends, without being waited for, soon after its [`Watch`] is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::Consumer as _;
use rdkafka::metadata::Metadata;
use tidewire_connect::Health;
use tidewire_types::{Result, SqlError};

use crate::error;
use crate::events::Consumer;
use crate::probe;
use crate::queue::LogQueue;
use crate::source::Shared;

/// While no broker answers, it is asked this often.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// What the thread found out.
pub(crate) struct Watch {
    state: Arc<State>,
    logs: Arc<LogQueue>,
}

#[derive(Default)]
struct State {
    stop: AtomicBool,
    news: AtomicBool,
    away: AtomicBool,
    /// Why the brokers count as away.
    words: Mutex<String>,
    /// The topic's partitions, by the last answer.
    partitions: Mutex<Vec<i32>>,
}

impl Watch {
    /// Watches over a reader's client.
    pub(crate) fn start(client: &Arc<Consumer>, shared: &Arc<Shared>) -> Result<Watch> {
        let logs = LogQueue::new(client).ok_or_else(|| SqlError::internal("librdkafka gives no queue for its log"))?;
        let watch = Watch { state: Arc::default(), logs: Arc::new(logs) };
        let (state, logs) = (Arc::clone(&watch.state), Arc::clone(&watch.logs));
        let (client, shared) = (Arc::clone(client), Arc::clone(shared));
        thread::Builder::new()
            .name("kafka-watch".to_owned())
            .spawn(move || watch_loop(&client, &shared, &state, &logs))
            .map_err(|e| SqlError::internal(format!("cannot start a thread: {e}")))?;
        Ok(watch)
    }

    /// The topic's partitions, if they were looked up since the last call.
    pub(crate) fn news(&self) -> Option<Vec<i32>> {
        // The common case must stay one load.
        (self.state.news.load(Ordering::Acquire) && self.state.news.swap(false, Ordering::AcqRel))
            .then(|| self.state.partitions.lock().clone())
    }

    /// Whether brokers answer, as far as known.
    pub(crate) fn health(&self) -> Health {
        match self.state.is_away() {
            false => Health::Running,
            true => Health::Retrying(self.state.words.lock().clone()),
        }
    }

    /// A broker has just sent something.
    pub(crate) fn answered(&self) {
        if self.state.away.load(Ordering::Relaxed) {
            self.state.away.store(false, Ordering::Release);
        }
    }

    /// A broker says that it cannot serve a partition at present.
    pub(crate) fn troubled(&self, words: String) {
        self.state.set_away(words);
        self.logs.wake();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Release);
        self.logs.wake();
    }
}

impl State {
    fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    fn set_away(&self, words: String) {
        *self.words.lock() = words;
        self.away.store(true, Ordering::Release);
    }
}

fn watch_loop(client: &Arc<Consumer>, shared: &Arc<Shared>, state: &State, logs: &LogQueue) {
    let interval = shared.settings.metadata_interval;
    let mut asked: Option<Instant> = None;
    while !state.stop.load(Ordering::Acquire) {
        // A reported error is looked into at once, but not over and over.
        let pause = if state.is_away() { RETRY_INTERVAL.min(interval) } else { interval };
        let left = asked.map_or(Duration::ZERO, |asked| pause.saturating_sub(asked.elapsed()));
        if !left.is_zero() {
            logs.wait(left, |level, facility, text| {
                let error = client.client().context().line(level, facility, text);
                let Some(words) = error else { return };
                // "0/1 brokers are down" says less than what came before it, or comes after it.
                if !words.ends_with("brokers are down") {
                    state.set_away(words);
                } else if !state.is_away() {
                    state.set_away("no broker can be reached".to_owned());
                }
            });
            continue;
        }
        match client.fetch_metadata(Some(&shared.settings.topic), REQUEST_TIMEOUT) {
            Ok(metadata) => take_answer(&metadata, &shared.settings.topic, state),
            Err(error) if state.is_away() && !state.words.lock().is_empty() => {
                // What the broker's failure said is more telling than that the question failed.
                tracing::debug!(%error, "no metadata");
            }
            Err(error) => state.set_away(error::words(&error)),
        }
        asked = Some(Instant::now());
    }
}

fn take_answer(metadata: &Metadata, topic: &str, state: &State) {
    match probe::topic_partitions(metadata, topic) {
        Err(code) => return state.set_away(format!("topic {topic}: {code}")),
        Ok(partitions) => {
            *state.partitions.lock() = partitions;
            state.news.store(true, Ordering::Release);
        }
    }
    let leaderless = metadata.topics().iter().flat_map(|t| t.partitions()).find(|p| p.leader() < 0);
    match leaderless {
        Some(partition) => state.set_away(format!("partition {} of topic {topic} has no leader", partition.id())),
        None => state.away.store(false, Ordering::Release),
    }
}
