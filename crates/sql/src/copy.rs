//! `COPY .. TO STDOUT`: what is copied, and how a line of it looks.
//!
//! Both spellings of the options are read, `WITH (FORMAT csv, HEADER)` and the older `WITH CSV HEADER`; their checks and
//! messages are PostgreSQL's. Invariant: delimiter, quote and escape are one byte of ASCII, so that a line in UTF-8
//! stays UTF-8.

use sqlparser::tokenizer::Token;
use tidewire_types::{Result, SqlError, SqlState};

use crate::parser::StatementParser;
use crate::{Copy, CopyFormat, CopyOptions, Parsed, Statement};

impl StatementParser<'_> {
    /// `COPY name [(columns)] | (query | SUBSCRIBE ..) TO STDOUT [options]`.
    pub fn copy(&mut self) -> Result<Statement> {
        self.skip();
        let from_query = self.next_token_is(&Token::LParen);
        let statement = Box::new(if from_query { self.copied_query()? } else { self.copied_relation()? });
        if !from_query && self.next_is("FROM") {
            let error = SqlError::unsupported("COPY FROM").with_hint("Write rows with INSERT.");
            return self.at(error, self.position());
        }
        self.expect("TO")?;
        if !self.next_is("STDOUT") {
            let is_file = self.next_is("PROGRAM") || matches!(self.peek().token, Token::SingleQuotedString(_));
            if !is_file {
                return self.unexpected();
            }
            let error = SqlError::unsupported("COPY to a file or program of the server")
                .with_hint("Use COPY .. TO STDOUT, or psql's \\copy.");
            return self.at(error, self.position());
        }
        self.skip();
        let options = self.copy_options()?;
        Ok(Statement::Copy(Copy { statement, options }))
    }

    fn copied_query(&mut self) -> Result<Parsed> {
        let first = self.parser.peek_nth_token_ref(1).clone();
        let position = self.source.char(first.span.start) + 1;
        let parsed = self.bracketed()?;
        match &parsed.statement {
            Statement::Query(_) | Statement::Subscribe(_) => Ok(parsed),
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                self.at(SqlError::unsupported("COPY of what a statement returns that writes"), position)
            }
            Statement::Unsupported(what) => self.at(SqlError::unsupported(format!("COPY ({what})")), position),
            _ => self.unexpected_token(&first),
        }
    }

    /// `name [(a, b)]` is `SELECT a, b FROM name`, whose places are those in this statement's text.
    fn copied_relation(&mut self) -> Result<Parsed> {
        let start = self.parser.index();
        self.object_name()?;
        let name = start..self.parser.index();
        let mut columns = 0..0;
        if self.token(&Token::LParen) {
            let first = self.parser.index();
            let mut seen = vec![];
            self.list(|p| {
                let position = p.position();
                let column = p.identifier()?;
                if seen.contains(&column) {
                    let message = format!("column \"{column}\" specified more than once");
                    return p.at(SqlError::new(SqlState::DuplicateColumn, message), position);
                }
                seen.push(column);
                Ok(())
            })?;
            columns = first..self.parser.index();
            self.expect_token(&Token::RParen)?;
        }
        let query = self.select_from(columns, name)?;
        Ok(Parsed { statement: Statement::Query(query), text: self.source.text.into(), offset: self.base })
    }

    fn copy_options(&mut self) -> Result<CopyOptions> {
        let mut given = Given::default();
        self.word("WITH");
        if self.token(&Token::LParen) {
            self.list(|p| {
                let position = p.position();
                let name = p.any_word()?.to_lowercase();
                p.refuse_option(&name, position)?;
                let bare = p.next_token_is(&Token::Comma) || p.next_token_is(&Token::RParen);
                let value = if bare { None } else { Some(p.option_value()?) };
                given.set(&name, value).or_else(|error| p.at(error, position))
            })?;
            self.expect_token(&Token::RParen)?;
        } else {
            while let Token::Word(word) = &self.peek().token {
                let (name, position) = (word.value.to_lowercase(), self.position());
                self.refuse_option(&name, position)?;
                let set = match name.as_str() {
                    "csv" | "binary" => {
                        self.skip();
                        given.set("format", Some(name))
                    }
                    "header" => {
                        self.skip();
                        given.set("header", None)
                    }
                    "delimiter" | "null" | "quote" | "escape" | "encoding" => {
                        self.skip();
                        self.word("AS");
                        given.set(&name, Some(self.string()?))
                    }
                    _ => return self.unexpected(),
                };
                set.or_else(|error| self.at(error, position))?;
            }
        }
        given.options()
    }

    fn refuse_option(&self, name: &str, position: usize) -> Result<()> {
        match name {
            "force" | "force_quote" => self.at(SqlError::unsupported("COPY with FORCE QUOTE"), position),
            _ => Ok(()),
        }
    }
}

/// The options that were written.
#[derive(Default)]
struct Given {
    format: Option<CopyFormat>,
    header: Option<bool>,
    delimiter: Option<u8>,
    null: Option<String>,
    quote: Option<u8>,
    escape: Option<u8>,
    encoding: Option<()>,
}

impl Given {
    fn set(&mut self, name: &str, value: Option<String>) -> Result<()> {
        let needed = || {
            let message = format!("{name} requires a parameter");
            value.clone().ok_or_else(|| SqlError::new(SqlState::SyntaxError, message))
        };
        match name {
            "format" => once(&mut self.format, format(&needed()?)?),
            "header" => once(&mut self.header, header(value.as_deref())?),
            "delimiter" => once(&mut self.delimiter, one_byte(name, &needed()?)?),
            "quote" => once(&mut self.quote, one_byte(name, &needed()?)?),
            "escape" => once(&mut self.escape, one_byte(name, &needed()?)?),
            "null" => once(&mut self.null, needed()?),
            "encoding" => once(&mut self.encoding, encoding(&needed()?)?),
            _ => {
                let message = format!("option \"{name}\" not recognized");
                Err(SqlError::new(SqlState::SyntaxError, message)
                    .with_hint("There are FORMAT (text, csv), HEADER, DELIMITER, NULL, QUOTE, ESCAPE and ENCODING."))
            }
        }
    }

    /// The whole of the options, where they go together.
    fn options(self) -> Result<CopyOptions> {
        let format = self.format.unwrap_or(CopyFormat::Text);
        let is_csv = format == CopyFormat::Csv;
        let (delimiter, null) = if is_csv { (b',', "") } else { (b'\t', "\\N") };
        let quote = self.quote.unwrap_or(b'"');
        let options = CopyOptions {
            format,
            header: self.header.unwrap_or(false),
            delimiter: self.delimiter.unwrap_or(delimiter),
            null: self.null.unwrap_or_else(|| null.to_string()),
            quote,
            escape: self.escape.unwrap_or(quote),
        };
        let is_line_end = |byte| matches!(byte, b'\n' | b'\r');
        let shown = char::from(options.delimiter);
        let invalid = |message: &str| Err(SqlError::new(SqlState::InvalidParameterValue, message));
        if !is_csv && (self.quote.is_some() || self.escape.is_some()) {
            let name = if self.quote.is_some() { "QUOTE" } else { "ESCAPE" };
            return Err(SqlError::new(SqlState::FeatureNotSupported, format!("COPY {name} requires CSV mode")));
        }
        if is_line_end(options.delimiter) {
            return invalid("COPY delimiter cannot be newline or carriage return");
        }
        if options.null.bytes().any(is_line_end) {
            return invalid("COPY null representation cannot use newline or carriage return");
        }
        if !is_csv && (matches!(shown, '\\' | '.') || shown.is_ascii_lowercase() || shown.is_ascii_digit()) {
            return invalid(&format!("COPY delimiter cannot be \"{shown}\""));
        }
        if is_csv && options.delimiter == options.quote {
            return invalid("COPY delimiter and quote must be different");
        }
        if options.null.contains(shown) {
            return invalid("COPY delimiter character must not appear in the NULL specification");
        }
        if is_csv && options.null.contains(char::from(options.quote)) {
            return invalid("CSV quote character must not appear in the NULL specification");
        }
        Ok(options)
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(SqlError::new(SqlState::SyntaxError, "conflicting or redundant options")),
    }
}

fn format(name: &str) -> Result<CopyFormat> {
    match name.to_lowercase().as_str() {
        "text" => Ok(CopyFormat::Text),
        "csv" => Ok(CopyFormat::Csv),
        "binary" => {
            Err(SqlError::unsupported("COPY in binary format").with_hint("There are the formats text and csv."))
        }
        _ => {
            let message = format!("COPY format \"{name}\" not recognized");
            Err(SqlError::new(SqlState::InvalidParameterValue, message))
        }
    }
}

fn header(value: Option<&str>) -> Result<bool> {
    match value.map(str::to_lowercase).as_deref() {
        None | Some("true" | "on" | "1") => Ok(true),
        Some("false" | "off" | "0") => Ok(false),
        Some("match") => {
            Err(SqlError::new(SqlState::FeatureNotSupported, "cannot use \"match\" with HEADER in COPY TO"))
        }
        Some(_) => Err(SqlError::new(SqlState::SyntaxError, "header requires a Boolean value or \"match\"")),
    }
}

fn encoding(name: &str) -> Result<()> {
    match name.to_lowercase().as_str() {
        "utf8" | "utf-8" | "unicode" => Ok(()),
        _ => Err(SqlError::unsupported(format!("COPY in encoding \"{name}\""))),
    }
}

fn one_byte(name: &str, value: &str) -> Result<u8> {
    match value.as_bytes() {
        [byte] if byte.is_ascii() => Ok(*byte),
        _ => {
            let message = format!("COPY {name} must be a single one-byte character");
            Err(SqlError::new(SqlState::FeatureNotSupported, message))
        }
    }
}
