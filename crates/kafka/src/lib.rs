//! The Kafka connector: `WITH (connector = 'kafka', topic = '..', properties.bootstrap.server = '..')`.
//!
//! Tidewire owns its positions: a reader assigns partitions at given offsets by itself and takes part in no consumer
//! group. Offsets are committed to a group all the same, so that Kafka's own tools show the lag; nothing is ever read
//! back from there. This is the only crate that sees librdkafka, and Kafka's words (partition, offset, broker) stay in
//! it: a partition is a split, an offset is a position.

mod connector;
mod error;
mod events;
mod probe;
mod queue;
mod reader;
mod settings;
mod source;
mod splits;
pub mod testing;
mod watch;

pub use connector::Kafka;
