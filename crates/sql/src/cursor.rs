//! DECLARE, FETCH and CLOSE.

use sqlparser::tokenizer::Token;
use tidewire_types::{Result, SqlError, SqlState};

use crate::Statement;
use crate::parser::StatementParser;

impl StatementParser<'_> {
    /// `DECLARE name [BINARY] [INSENSITIVE] [[NO] SCROLL] CURSOR [WITH HOLD] FOR query | SUBSCRIBE ..`.
    pub fn declare(&mut self) -> Result<Statement> {
        self.skip();
        let name = self.identifier()?;
        loop {
            if self.next_is("SUBSCRIPTION") {
                return self.refuse("a SUBSCRIPTION CURSOR");
            }
            let no_scroll = self.words(&["NO", "SCROLL"]);
            if !no_scroll && !["BINARY", "INSENSITIVE", "ASENSITIVE", "SCROLL"].iter().any(|w| self.word(w)) {
                break;
            }
        }
        self.expect("CURSOR")?;
        let hold = self.words(&["WITH", "HOLD"]);
        if !hold {
            self.words(&["WITHOUT", "HOLD"]);
        }
        self.expect("FOR")?;
        let position = self.position();
        let statement = Box::new(self.rest()?);
        match statement.statement {
            Statement::Query(_) | Statement::Subscribe(_) => Ok(Statement::Declare { name, hold, statement }),
            _ => self.at(SqlError::new(SqlState::SyntaxError, "a cursor needs a query"), position),
        }
    }

    /// `FETCH [n | ALL | NEXT | FORWARD [n | ALL]] [FROM|IN] name [WITH (timeout = '1s')]`.
    pub fn fetch(&mut self) -> Result<Statement> {
        self.skip();
        let count = self.fetch_count()?;
        if !self.word("FROM") {
            self.word("IN");
        }
        let name = self.identifier()?;
        let position = self.position();
        let mut timeout_ms = None;
        for (option, value) in self.with_options()? {
            let error = match option.as_str() {
                "timeout" => match milliseconds(&value) {
                    Some(ms) => {
                        timeout_ms = Some(ms);
                        continue;
                    }
                    None => SqlError::new(
                        SqlState::InvalidParameterValue,
                        format!("invalid value for option \"timeout\": \"{value}\""),
                    )
                    .with_hint("Write a number with its unit, for example '500ms' or '1s'."),
                },
                _ => SqlError::new(SqlState::InvalidParameterValue, format!("option \"{option}\" is not recognized")),
            };
            return self.at(error, position);
        }
        Ok(Statement::Fetch { name, count, timeout_ms })
    }

    fn fetch_count(&mut self) -> Result<Option<u64>> {
        const BACK: &[&str] = &["PRIOR", "FIRST", "LAST", "ABSOLUTE", "RELATIVE", "BACKWARD"];
        // A cursor may have one of these words as its name: `FETCH last`.
        let alone = self.parser.peek_nth_token_ref(1).token == Token::EOF;
        let negative = self.next_token_is(&Token::Minus);
        if negative || !alone && BACK.iter().any(|w| self.next_is(w)) {
            return self.at(SqlError::unsupported("FETCH in any direction but forward"), self.position());
        }
        if !alone && (self.word("FORWARD") || self.word("NEXT")) && !matches!(self.peek().token, Token::Number(..)) {
            return Ok(if self.word("ALL") { None } else { Some(1) });
        }
        if self.word("ALL") {
            return Ok(None);
        }
        match self.peek().token {
            Token::Number(..) => self.sql(|p| p.parse_literal_uint()).map(Some),
            _ => Ok(Some(1)),
        }
    }

    /// `CLOSE name | ALL`.
    pub fn close(&mut self) -> Result<Statement> {
        self.skip();
        let name = if self.word("ALL") { None } else { Some(self.identifier()?) };
        Ok(Statement::Close(name))
    }
}

/// `1s`, `500 ms`, `0`, `2 minutes`.
fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let number: f64 = number.parse().ok()?;
    let scale = match unit.trim().to_ascii_lowercase().as_str() {
        "" if number == 0.0 => 1.0,
        "ms" | "millisecond" | "milliseconds" => 1.0,
        "s" | "sec" | "second" | "seconds" => 1000.0,
        "m" | "min" | "minute" | "minutes" => 60_000.0,
        "h" | "hour" | "hours" => 3_600_000.0,
        _ => return None,
    };
    // A float becomes an integer by saturation.
    Some((number * scale) as u64)
}
