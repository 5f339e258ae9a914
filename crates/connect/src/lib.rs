//! How records come in: the [`Connector`], [`Source`] and [`SourceReader`] traits, the formats that make columns of
//! bytes, and the connectors that need no other system (generator, Nexmark, file).
//!
//! A *source* is divided into *splits* (a Kafka partition, a file, a generator lane); a *position* says how far a split
//! was read: the position of the next record. Positions are the engine's, not the outside system's: a reader is made
//! at given positions and hands out batches that say which positions they cover.

pub mod options;
mod source;

pub use options::{OptionSpec, Options};
pub use source::*;
