//! The connector as `WITH (connector = 'kafka')` names it: its options, and what is checked at CREATE.

use std::sync::{Arc, LazyLock};

use tidewire_connect::{Connector, FORMAT_OPTIONS, OptionSpec, Source, SourceSpec};
use tidewire_types::Result;

use crate::settings::Settings;
use crate::source::KafkaSource;

/// `connector = 'kafka'`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kafka;

/// All options in WITH, those of the formats included.
static ALL_OPTIONS: LazyLock<Vec<OptionSpec>> = LazyLock::new(|| [OPTIONS, FORMAT_OPTIONS].concat());

/// This connector's own options. Other engines' spellings are taken where they mean the same.
const OPTIONS: &[OptionSpec] = &[
    option("topic", "The topic to read."),
    option("kafka_topic", "The topic to read, as ksqlDB spells it."),
    option("properties.bootstrap.server", "One or more brokers: host:port, separated by commas."),
    option("properties.bootstrap.servers", "The same, as Kafka spells it."),
    option("properties.group.id", "The consumer group that shows the lag; default tidewire-<source>."),
    option("properties.*", "Any property of librdkafka, passed on unchanged."),
    option(
        "scan.startup.mode",
        "Where reading begins: earliest (the default), latest, timestamp, or offsets; Flink's spellings too.",
    ),
    option("scan.startup.timestamp.millis", "For mode timestamp: milliseconds since 1970-01-01 UTC."),
    option("scan.startup.timestamp-millis", "The same, as Flink spells it."),
    option(
        "scan.startup.specific-offsets",
        "For mode offsets: 'partition:0,offset:42;partition:1,offset:300' or '0:42,1:300'; others begin at the earliest.",
    ),
    option("connect.timeout.ms", "How long CREATE waits for a broker to answer; default 5000."),
    option("metadata.refresh.interval.ms", "How often a running source looks for new partitions; default 5000."),
];

const fn option(name: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, required: false, help }
}

impl Connector for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn options(&self) -> &'static [OptionSpec] {
        &ALL_OPTIONS
    }

    fn create(&self, spec: SourceSpec) -> Result<Arc<dyn Source>> {
        spec.options.check(&[self.options()])?;
        let settings = Settings::new(&spec)?;
        Ok(Arc::new(KafkaSource::create(spec, settings)?))
    }
}
