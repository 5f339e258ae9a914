//! What librdkafka says outside of calls: its log lines and its errors.
//!
//! Both go to `tracing` and nothing to stderr; errors are also remembered, so that CREATE can say why no broker
//! answered and a reader can say why it is retrying.

use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use tracing::{debug, info, warn};

/// A client whose log lines and errors go to [`Events`].
pub(crate) type Consumer = BaseConsumer<Events>;

/// The listener of one client.
#[derive(Debug)]
pub(crate) struct Events {
    source: String,
    seen: Mutex<Seen>,
}

/// The errors since they were last asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The last error's words.
    pub(crate) last: Option<String>,
    /// The words of the last error that says the password is wrong.
    pub(crate) authentication: Option<String>,
    /// No known broker can be reached.
    pub(crate) all_down: bool,
}

impl Events {
    pub(crate) fn new(source: &str) -> Events {
        Events { source: source.to_owned(), seen: Mutex::default() }
    }

    /// What was seen up to now.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    /// One log line of librdkafka. Gives the words of a line that reports an error of the whole client.
    pub(crate) fn line(&self, level: RDKafkaLogLevel, facility: &str, text: &str) -> Option<String> {
        let source = self.source.as_str();
        match level {
            // A client's errors come twice: as the failure of a broker, and as an event. One is enough.
            _ if facility == "ERROR" => {
                debug!(target: "librdkafka", source, "{text}");
                return Some(words(text));
            }
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => warn!(target: "librdkafka", source, facility, "{text}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                info!(target: "librdkafka", source, facility, "{text}");
            }
            RDKafkaLogLevel::Debug => debug!(target: "librdkafka", source, facility, "{text}"),
        }
        None
    }
}

/// Without the names of threads and clients that librdkafka puts before its lines.
fn words(text: &str) -> String {
    let mut text = text.trim();
    if let Some((_, rest)) = text.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")) {
        text = rest;
    }
    while let Some((_, rest)) = text.split_once(": ").filter(|(head, _)| head.contains("#consumer-")) {
        text = rest;
    }
    text.to_owned()
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut seen = self.seen.lock();
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                seen.authentication = Some(reason.to_owned());
            }
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                seen.all_down = true;
                // "1/1 brokers are down" says less than what came before it.
                if seen.last.is_some() {
                    return;
                }
            }
            _ => {}
        }
        seen.last = Some(words(reason));
        debug!(target: "librdkafka", source = self.source.as_str(), "{reason}");
    }
}

impl ConsumerContext for Events {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            debug!(source = self.source.as_str(), %error, "could not commit offsets to the consumer group");
        }
    }
}

/// Serves what waits in the client's queue of events, without waiting.
pub(crate) fn serve(consumer: &Arc<Consumer>) {
    while consumer.poll(std::time::Duration::ZERO).is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_without_names_of_threads() {
        let text = "[thrd:app]: tidewire#consumer-1: 127.0.0.1:1/bootstrap: Connect failed: Connection refused";
        assert_eq!(words(text), "127.0.0.1:1/bootstrap: Connect failed: Connection refused");
        assert_eq!(words("1/1 brokers are down"), "1/1 brokers are down");
    }
}
