//! How records come in: the [`Connector`], [`Source`] and [`SourceReader`] traits, the formats that make columns of
//! bytes, and the connectors that need no other system (generator, Nexmark, file).
//!
//! A *source* is divided into *splits* (a Kafka partition, a file, a generator lane); a *position* says how far a split
//! was read: the position of the next record. Positions are the engine's, not the outside system's: a reader is made
//! at given positions and hands out batches that say which positions they cover.

mod bad;
mod column;
mod file;
pub mod format;
mod generator;
mod log;
pub mod nexmark;
pub mod options;
mod source;
mod text;

pub use format::{Decoder, FORMAT_OPTIONS, Record, format_spec, schema_of};
pub use options::{OptionSpec, Options};
pub use source::*;

/// The connectors that need no other system.
pub static CONNECTORS: &[&dyn Connector] = &[&generator::Generator, &nexmark::Nexmark, &file::File];

/// The text that `jsonb` keeps for a JSON text: keys by length, then by bytes, the last of equal ones; one blank behind
/// each comma and colon. Errors: why the text is not JSON, or holds what `jsonb` cannot.
pub fn jsonb_text(json: &str) -> Result<String, String> {
    format::jsonb_text(json).map_err(|bad| bad.to_string())
}
