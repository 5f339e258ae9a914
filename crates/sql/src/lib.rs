//! SQL text to Tidewire statements, and nothing else: no catalog, no names resolved.
//!
//! A thin parser over sqlparser: what is ours is parsed here, all else falls through to
//! `sqlparser::Parser::parse_statement`. PostgreSQL's rules for quoting and case hold.

mod statement;

pub use sqlparser::ast;
pub use statement::*;
use tidewire_types::{Result, SqlError};

/// Parses a text of any number of statements separated by semicolons.
///
/// Errors: `42601` with the position in `text`, in the words of PostgreSQL (`syntax error at or near "x"`).
pub fn parse(text: &str) -> Result<Vec<Parsed>> {
    let _ = text;
    Err(SqlError::internal("to be written"))
}
