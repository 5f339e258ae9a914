//! What the options of one source come to: topic, librdkafka's properties, where reading begins.
//!
//! Precedence of properties: ours that correctness needs (a user who sets them otherwise is refused), then the
//! user's, then our defaults. Everything a user writes under `properties.` reaches librdkafka unchanged.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use tidewire_connect::{Options, Position, Positions, SourceSpec, Split};
use tidewire_types::{Result, SqlError, SqlState};

/// Where a source begins to read: `scan.startup.mode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StartMode {
    Earliest,
    Latest,
    /// The first record at or after this time, milliseconds since 1970-01-01 UTC.
    Timestamp(i64),
    /// These offsets; a partition that is not named begins at its earliest record.
    Offsets(Positions),
}

/// One source's options, checked as far as that goes without a broker.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The source's name, for logs and errors.
    pub(crate) name: String,
    pub(crate) topic: String,
    /// `bootstrap.servers`, for errors.
    pub(crate) brokers: String,
    pub(crate) start: StartMode,
    pub(crate) connect_timeout: Duration,
    pub(crate) metadata_interval: Duration,
    properties: BTreeMap<String, String>,
    /// The user says nothing of how long a broker may hold an empty answer back.
    default_wait: bool,
}

/// Without the properties: a password may be among them.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Settings");
        fields.field("name", &self.name).field("topic", &self.topic).field("brokers", &self.brokers);
        fields.field("start", &self.start).finish_non_exhaustive()
    }
}

/// What positions that are ours, exactly once, depend on.
const FIXED: &[(&str, &str, &str)] = &[
    ("enable.auto.commit", "false", "Tidewire commits the offsets that its views have reached."),
    ("enable.auto.offset.store", "false", "Tidewire commits the offsets that its views have reached."),
    ("auto.offset.reset", "error", "Say scan.startup.mode instead: a source never jumps over records silently."),
    ("enable.partition.eof", "true", "Tidewire finds the end of a topic by it."),
];

/// Ours where the user says nothing.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "tidewire"),
    // What librdkafka fetches ahead is bounded by bytes; the count only says when to ask for more.
    ("queued.max.messages.kbytes", "65536"),
    ("queued.min.messages", "100000"),
    // The default of 1 s would starve a reader that empties the queue faster than that.
    ("fetch.queue.backoff.ms", "5"),
    // A broker answers as soon as it has one byte; this bounds how long a partition that was added meanwhile waits.
    ("fetch.wait.max.ms", "50"),
    ("fetch.min.bytes", "1"),
    ("fetch.error.backoff.ms", "100"),
    ("reconnect.backoff.ms", "100"),
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.nagle.disable", "true"),
    ("socket.keepalive.enable", "true"),
    // An engine that holds a source back for long is no dead group member.
    ("max.poll.interval.ms", "86400000"),
];

impl Settings {
    /// Errors: `22023` for an option that is missing, wrong, or says what only Tidewire may say.
    pub(crate) fn new(spec: &SourceSpec) -> Result<Settings> {
        let options = &spec.options;
        let topic = match (options.get("topic"), options.get("kafka_topic")) {
            (Some(_), Some(_)) => return Err(options.invalid("kafka_topic", "\"topic\" is given too")),
            (Some(topic), None) | (None, Some(topic)) => topic.trim().to_owned(),
            (None, None) => options.require("topic")?.to_owned(),
        };
        let mut properties: BTreeMap<String, String> =
            DEFAULTS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        properties.insert("group.id".to_owned(), format!("tidewire-{}", spec.name));
        for (name, value) in options.with_prefix("properties.") {
            let name = if name == "bootstrap.server" { "bootstrap.servers" } else { name };
            if let Some((_, fixed, why)) = FIXED.iter().find(|(fixed, ..)| *fixed == name)
                && value != *fixed
            {
                let error = format!("property \"{name}\" of a Kafka source is always {fixed}");
                return Err(SqlError::new(SqlState::InvalidParameterValue, error).with_hint(*why));
            }
            properties.insert(name.to_owned(), value.to_owned());
        }
        properties.extend(FIXED.iter().map(|(name, value, _)| ((*name).to_owned(), (*value).to_owned())));
        let brokers = match properties.get("bootstrap.servers") {
            Some(brokers) => brokers.clone(),
            None => options.require("properties.bootstrap.server")?.to_owned(),
        };
        Ok(Settings {
            name: spec.name.clone(),
            topic,
            brokers,
            start: start_mode(options)?,
            connect_timeout: millis(options, "connect.timeout.ms", 5_000)?,
            metadata_interval: millis(options, "metadata.refresh.interval.ms", 5_000)?,
            properties,
            default_wait: options.get("properties.fetch.wait.max.ms").is_none(),
        })
    }

    /// The properties for a client of this source. `bounded`: it reads up to known ends, and should learn of them
    /// soon rather than wait for records.
    pub(crate) fn client_config(&self, bounded: bool) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        if bounded && self.default_wait {
            config.set("fetch.wait.max.ms", "10");
        }
        // What is worth showing is decided by the log filter, not here.
        config.set_log_level(RDKafkaLogLevel::Info);
        config
    }
}

fn millis(options: &Options, name: &str, default: u64) -> Result<Duration> {
    match options.parse_or(name, default)? {
        0 => Err(options.invalid(name, "it must be at least 1")),
        ms => Ok(Duration::from_millis(ms)),
    }
}

fn start_mode(options: &Options) -> Result<StartMode> {
    const MODE: &str = "scan.startup.mode";
    const OFFSETS: &str = "scan.startup.specific-offsets";
    let time_option = ["scan.startup.timestamp.millis", "scan.startup.timestamp-millis"]
        .into_iter()
        .find(|name| options.get(name).is_some())
        .unwrap_or("scan.startup.timestamp.millis");
    match options.get(MODE).map(str::to_lowercase).as_deref() {
        Some("earliest" | "earliest-offset") => Ok(StartMode::Earliest),
        Some("latest" | "latest-offset") => Ok(StartMode::Latest),
        Some("timestamp") => {
            options.require(time_option)?;
            Ok(StartMode::Timestamp(options.parse_or(time_option, 0)?))
        }
        Some("offsets" | "specific-offsets") => offsets(options.require(OFFSETS)?)
            .map(StartMode::Offsets)
            .ok_or_else(|| options.invalid(OFFSETS, "write 'partition:0,offset:42;partition:1,offset:300' or '0:42'")),
        Some("group-offsets") => Err(SqlError::unsupported("scan.startup.mode = 'group-offsets'")
            .with_hint("Tidewire keeps its own positions; say earliest, latest, timestamp or offsets.")),
        Some(other) => {
            Err(options.invalid(MODE, &format!("\"{other}\" is not one of earliest, latest, timestamp, offsets")))
        }
        // One of the two says it all; the mode then need not be said.
        None if options.get(time_option).is_some() => Ok(StartMode::Timestamp(options.parse_or(time_option, 0)?)),
        None if options.get(OFFSETS).is_some() => offsets(options.require(OFFSETS)?)
            .map(StartMode::Offsets)
            .ok_or_else(|| options.invalid(OFFSETS, "write 'partition:0,offset:42;partition:1,offset:300' or '0:42'")),
        None => Ok(StartMode::Earliest),
    }
}

/// Both spellings: `partition:0,offset:42;partition:1,offset:300` and `0:42,1:300`. None if it is neither, or names a
/// partition twice.
fn offsets(text: &str) -> Option<Positions> {
    let long = text.contains("partition");
    let mut positions = Positions::new();
    for part in text.split(if long { ';' } else { ',' }).map(str::trim).filter(|part| !part.is_empty()) {
        let (partition, offset) = part.split_once(if long { ',' } else { ':' })?;
        let (partition, offset) = match long {
            true => (partition.trim().strip_prefix("partition:")?, offset.trim().strip_prefix("offset:")?),
            false => (partition, offset),
        };
        let split = Split(u32::try_from(partition.trim().parse::<i32>().ok()?).ok()?);
        let position: Position = offset.trim().parse().ok().filter(|position| *position >= 0)?;
        if positions.insert(split, position).is_some() {
            return None;
        }
    }
    (!positions.is_empty()).then_some(positions)
}

#[cfg(test)]
mod tests {
    use tidewire_connect::BadRecord;

    use super::*;

    fn spec(options: &[(&str, &str)]) -> SourceSpec {
        let options = options.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        SourceSpec {
            name: "s".to_owned(),
            columns: vec![],
            options: Options::new(options).unwrap(),
            format: None,
            bad_record: BadRecord::default(),
        }
    }

    fn with(more: &[(&str, &str)]) -> Result<Settings> {
        Settings::new(&spec(&[&[("topic", "t"), ("properties.bootstrap.server", "b:1")], more].concat()))
    }

    #[test]
    fn both_spellings_of_offsets_mean_the_same() {
        let expected = Positions::from([(Split(0), 42), (Split(1), 300)]);
        assert_eq!(offsets("partition:0,offset:42;partition:1,offset:300"), Some(expected.clone()));
        assert_eq!(offsets(" 0:42, 1:300 "), Some(expected));
        for wrong in ["", "0", "0:x", "-1:3", "0:-3", "0:1,0:2", "partition:0", "partition:0,offset:"] {
            assert_eq!(offsets(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn start_modes_are_read_in_every_spelling() {
        assert_eq!(with(&[]).unwrap().start, StartMode::Earliest);
        assert_eq!(with(&[("scan.startup.mode", "earliest-offset")]).unwrap().start, StartMode::Earliest);
        assert_eq!(with(&[("scan.startup.mode", "LATEST")]).unwrap().start, StartMode::Latest);
        let flink = [("scan.startup.mode", "timestamp"), ("scan.startup.timestamp-millis", "7")];
        assert_eq!(with(&flink).unwrap().start, StartMode::Timestamp(7));
        assert_eq!(with(&[("scan.startup.timestamp.millis", "7")]).unwrap().start, StartMode::Timestamp(7));
        let error = with(&[("scan.startup.mode", "timestamp")]).unwrap_err();
        assert_eq!(error.message(), "option \"scan.startup.timestamp.millis\" is missing");
        assert_eq!(with(&[("scan.startup.mode", "newest")]).unwrap_err().state(), SqlState::InvalidParameterValue);
        assert_eq!(with(&[("scan.startup.mode", "group-offsets")]).unwrap_err().state(), SqlState::FeatureNotSupported);
    }

    #[test]
    fn properties_pass_through_and_those_that_are_ours_are_refused() {
        let settings = with(&[("properties.fetch.wait.max.ms", "7"), ("properties.group.id", "g")]).unwrap();
        let config = settings.client_config(false);
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(settings.client_config(true).get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(config.get("group.id"), Some("g"));
        assert_eq!(config.get("bootstrap.servers"), Some("b:1"));
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
        assert_eq!(with(&[]).unwrap().client_config(false).get("group.id"), Some("tidewire-s"));
        let error = with(&[("properties.auto.offset.reset", "latest")]).unwrap_err();
        assert_eq!(error.message(), "property \"auto.offset.reset\" of a Kafka source is always error");
        assert!(with(&[("properties.enable.auto.commit", "false")]).is_ok());
    }

    #[test]
    fn a_password_is_not_in_what_is_logged() {
        let settings = with(&[("properties.sasl.password", "xyzzy")]).unwrap();
        assert!(!format!("{settings:?}").contains("xyzzy"));
        assert_eq!(settings.client_config(false).get("sasl.password"), Some("xyzzy"));
    }

    #[test]
    fn a_source_names_its_topic_once_and_its_brokers() {
        let ksql = Settings::new(&spec(&[("kafka_topic", "t"), ("properties.bootstrap.servers", "b:1")])).unwrap();
        assert_eq!((ksql.topic.as_str(), ksql.brokers.as_str()), ("t", "b:1"));
        assert!(with(&[("kafka_topic", "u")]).is_err());
        let error = Settings::new(&spec(&[("topic", "t")])).unwrap_err();
        assert_eq!(error.message(), "option \"properties.bootstrap.server\" is missing");
    }
}
