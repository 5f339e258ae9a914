//! Syntax errors in the words of PostgreSQL: what stands at the place, and the place in characters from 1.

use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, TokenizerError};
use tidewire_types::{SqlError, SqlState};

use crate::source::Source;

/// How a statement ends: what an error at its end points to.
#[derive(Clone, Copy)]
pub(crate) struct End {
    /// What stands there: a semicolon, or the bracket around the statement. None: the text ends.
    pub near: Option<char>,
    /// The place in the whole text: characters from 1.
    pub position: usize,
}

/// `54001`: brackets, operators or subqueries inside each other beyond what is allowed.
pub(crate) fn too_deep() -> SqlError {
    SqlError::new(SqlState::StatementTooComplex, "statement is nested too deeply")
        .with_hint("Split the statement, for example with views or common table expressions.")
}

/// The error at `token`. `base` is where `source` begins in the whole text.
pub(crate) fn syntax(source: &Source<'_>, base: usize, end: End, token: &TokenWithSpan) -> SqlError {
    if token.token == Token::EOF || token.span.start.line == 0 {
        let message = match end.near {
            Some(near) => format!("syntax error at or near \"{near}\""),
            None => "syntax error at end of input".to_string(),
        };
        return SqlError::new(SqlState::SyntaxError, message).at(end.position);
    }
    let near = source.slice(token.span);
    SqlError::new(SqlState::SyntaxError, format!("syntax error at or near \"{near}\""))
        .at(base + source.char(token.span.start) + 1)
}

/// What sqlparser says, as PostgreSQL says it.
pub(crate) fn of_parser(
    error: &ParserError,
    parser: &Parser<'_>,
    source: &Source<'_>,
    base: usize,
    end: End,
) -> SqlError {
    let message = match error {
        ParserError::RecursionLimitExceeded => return too_deep(),
        ParserError::ParserError(message) | ParserError::TokenizerError(message) => message,
    };
    let found = match location(message) {
        Some(location) => token_at(parser, location),
        None if message.contains("found: EOF") => TokenWithSpan::new_eof(),
        None => parser.peek_token(),
    };
    syntax(source, base, end, &found)
}

/// Reads the end of a message of sqlparser: ` at Line: 1, Column: 8`.
fn location(message: &str) -> Option<Location> {
    let (_, place) = message.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    Some(Location { line: line.parse().ok()?, column: column.trim().parse().ok()? })
}

fn token_at(parser: &Parser<'_>, location: Location) -> TokenWithSpan {
    // Tokens are in order, and `token_at` gives the end for an index beyond them.
    let mut low = 0;
    let mut high = 1;
    while parser.token_at(high).token != Token::EOF && parser.token_at(high).span.start < location {
        low = high;
        high *= 2;
    }
    while low < high {
        let middle = low + (high - low) / 2;
        let token = parser.token_at(middle);
        if token.token != Token::EOF && token.span.start < location { low = middle + 1 } else { high = middle }
    }
    parser.token_at(low).clone()
}

/// What the tokenizer says of the text that begins at `start`, as PostgreSQL says it.
pub(crate) fn of_tokenizer(error: &TokenizerError, source: &Source<'_>, start: Location) -> SqlError {
    let rest = source.text.get(source.byte(start)..).unwrap_or_default();
    let what = match error.message.as_str() {
        m if m.contains("dollar-quoted") => "unterminated dollar-quoted string",
        m if m.starts_with("Unterminated") => "unterminated quoted string",
        m if m.contains("close delimiter") => "unterminated quoted identifier",
        m if m.contains("comment") => "unterminated /* comment",
        _ => {
            let near: String = rest.chars().take(1).collect();
            return SqlError::new(SqlState::SyntaxError, format!("syntax error at or near \"{near}\""))
                .at(source.char(start) + 1);
        }
    };
    SqlError::new(SqlState::SyntaxError, format!("{what} at or near \"{rest}\"")).at(source.char(start) + 1)
}
