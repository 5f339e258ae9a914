//! `COPY .. TO STDOUT` and `COPY .. FROM STDIN`: what is copied, and how a line of it looks.
//!
//! Both spellings of the options are read, `WITH (FORMAT csv, HEADER)` and the older `WITH CSV HEADER`; their checks and
//! messages are PostgreSQL's. Invariant: delimiter, quote and escape are one byte of ASCII, so that a line in UTF-8
//! stays UTF-8.

use std::ops::Range;

use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;
use tidewire_types::{Result, SqlError, SqlState};

use crate::parser::StatementParser;
use crate::{Copy, CopyFormat, CopyFrom, CopyOptions, NamedColumn, ObjectName, Parsed, Statement};

/// `name [(columns)]`, and which tokens these are.
struct CopiedRelation {
    name: ObjectName,
    columns: Vec<NamedColumn>,
    name_tokens: Range<usize>,
    column_tokens: Range<usize>,
}

impl StatementParser<'_> {
    /// `COPY name [(columns)] | (query | SUBSCRIBE ..) TO STDOUT [options]`, `COPY name [(columns)] FROM STDIN [options]
    /// [WHERE condition]`.
    pub fn copy(&mut self) -> Result<Statement> {
        self.skip();
        let statement = match self.next_token_is(&Token::LParen) {
            true => self.copied_query()?,
            false => {
                let relation = self.copied_relation()?;
                if self.word("FROM") {
                    return self.copy_from(relation);
                }
                // Its places are those in this statement's text.
                let query = self.select_from(relation.column_tokens, relation.name_tokens)?;
                Parsed { statement: Statement::Query(query), text: self.source.text.into(), offset: self.base }
            }
        };
        self.expect("TO")?;
        self.copied_through("STDOUT", "TO STDOUT", "to")?;
        let options = self.copy_options()?.to_options()?;
        Ok(Statement::Copy(Copy { statement: Box::new(statement), options }))
    }

    fn copy_from(&mut self, relation: CopiedRelation) -> Result<Statement> {
        self.copied_through("STDIN", "FROM STDIN", "from")?;
        let given = self.copy_options()?;
        let condition = if self.word("WHERE") { Some(self.sql(Parser::parse_expr)?) } else { None };
        given.copy_from(relation.name, relation.columns, condition).map(|copy| Statement::CopyFrom(Box::new(copy)))
    }

    /// The client's end of the connection: a server's files and programs are none.
    fn copied_through(&mut self, word: &str, instead: &str, preposition: &str) -> Result<()> {
        if self.word(word) {
            return Ok(());
        }
        let is_file = self.next_is("PROGRAM") || matches!(self.peek().token, Token::SingleQuotedString(_));
        if !is_file {
            return self.unexpected();
        }
        let error = SqlError::unsupported(format_args!("COPY {preposition} a file or program of the server"))
            .with_hint(format!("Use COPY .. {instead}, or psql's \\copy."));
        self.at(error, self.position())
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

    /// `name [(a, b)]`.
    fn copied_relation(&mut self) -> Result<CopiedRelation> {
        let start = self.parser.index();
        let name = self.object_name()?;
        let name_tokens = start..self.parser.index();
        let (mut columns, mut column_tokens) = (vec![], 0..0);
        if self.token(&Token::LParen) {
            let first = self.parser.index();
            columns = self.named_columns()?;
            column_tokens = first..self.parser.index();
            self.expect_token(&Token::RParen)?;
        }
        Ok(CopiedRelation { name, columns, name_tokens, column_tokens })
    }

    /// `a, b`. Errors: `42701`.
    fn named_columns(&mut self) -> Result<Vec<NamedColumn>> {
        let mut seen = vec![];
        self.list(|p| {
            let column = NamedColumn { position: p.position(), name: p.identifier()? };
            if seen.contains(&column.name) {
                let message = format!("column \"{}\" specified more than once", column.name);
                return p.at(SqlError::new(SqlState::DuplicateColumn, message), column.position);
            }
            seen.push(column.name.clone());
            Ok(column)
        })
    }

    fn copy_options(&mut self) -> Result<Given> {
        let mut given = Given::default();
        self.word("WITH");
        if self.token(&Token::LParen) {
            self.list(|p| {
                let position = p.position();
                let name = p.any_word()?.to_lowercase();
                p.refuse_option(&name, position)?;
                if name.starts_with("force_") && p.token(&Token::LParen) {
                    let columns = p.named_columns()?;
                    p.expect_token(&Token::RParen)?;
                    return given.set_columns(&name, columns).or_else(|error| p.at(error, position));
                }
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
                    "force" => {
                        let option = match () {
                            () if self.words(&["FORCE", "NOT", "NULL"]) => "force_not_null",
                            () if self.words(&["FORCE", "NULL"]) => "force_null",
                            () => return self.refuse("COPY with FORCE QUOTE"),
                        };
                        given.set_columns(option, self.named_columns()?)
                    }
                    "where" => break,
                    _ => return self.unexpected(),
                };
                set.or_else(|error| self.at(error, position))?;
            }
        }
        Ok(given)
    }

    fn refuse_option(&self, name: &str, position: usize) -> Result<()> {
        match name {
            "force_quote" => self.at(SqlError::unsupported("COPY with FORCE QUOTE"), position),
            "freeze" => self.at(SqlError::unsupported("COPY with FREEZE"), position),
            _ => Ok(()),
        }
    }
}

/// The options that were written.
#[derive(Default)]
struct Given {
    format: Option<CopyFormat>,
    header: Option<Header>,
    delimiter: Option<u8>,
    null: Option<String>,
    quote: Option<u8>,
    escape: Option<u8>,
    encoding: Option<()>,
    default: Option<String>,
    force_not_null: Option<Vec<NamedColumn>>,
    force_null: Option<Vec<NamedColumn>>,
}

/// What the first line is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Header {
    None,
    Names,
    /// Names that must be those of the columns.
    Match,
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
            "default" => once(&mut self.default, needed()?),
            "encoding" => once(&mut self.encoding, encoding(&needed()?)?),
            "force_not_null" | "force_null" => {
                let message = format!("argument to option \"{name}\" must be a list of column names");
                Err(SqlError::new(SqlState::InvalidParameterValue, message))
            }
            _ => {
                let message = format!("option \"{name}\" not recognized");
                Err(SqlError::new(SqlState::SyntaxError, message).with_hint(
                    "There are FORMAT (text, csv), HEADER, DELIMITER, NULL, DEFAULT, QUOTE, ESCAPE, FORCE_NOT_NULL, \
                     FORCE_NULL and ENCODING.",
                ))
            }
        }
    }

    fn set_columns(&mut self, name: &str, columns: Vec<NamedColumn>) -> Result<()> {
        match name {
            "force_not_null" => once(&mut self.force_not_null, columns),
            "force_null" => once(&mut self.force_null, columns),
            _ => self.set(name, None),
        }
    }

    /// The whole of a COPY FROM, where its options go together.
    fn copy_from(
        self,
        table: ObjectName,
        columns: Vec<NamedColumn>,
        condition: Option<sqlparser::ast::Expr>,
    ) -> Result<CopyFrom> {
        let options = self.options()?;
        let is_csv = options.format == CopyFormat::Csv;
        let forced = [("FORCE_NOT_NULL", &self.force_not_null), ("FORCE_NULL", &self.force_null)];
        if let Some((name, _)) = forced.iter().find(|(_, columns)| columns.is_some() && !is_csv) {
            let message = format!("COPY {name} requires CSV mode");
            return Err(SqlError::new(SqlState::FeatureNotSupported, message));
        }
        if let Some(default) = &self.default {
            let invalid = |message: &str| Err(SqlError::new(SqlState::InvalidParameterValue, message));
            if default.bytes().any(is_line_end) {
                return invalid("COPY default representation cannot use newline or carriage return");
            }
            if default.contains(char::from(options.delimiter)) {
                return invalid("COPY delimiter character must not appear in the DEFAULT specification");
            }
            if is_csv && default.contains(char::from(options.quote)) {
                return invalid("CSV quote character must not appear in the DEFAULT specification");
            }
            if *default == options.null {
                return invalid("NULL specification and DEFAULT specification cannot be the same");
            }
        }
        Ok(CopyFrom {
            table,
            columns,
            options,
            header_match: self.header == Some(Header::Match),
            default: self.default,
            force_not_null: self.force_not_null.unwrap_or_default(),
            force_null: self.force_null.unwrap_or_default(),
            condition,
        })
    }

    /// The whole of the options of a COPY TO, where they go together.
    fn to_options(&self) -> Result<CopyOptions> {
        let unsupported = |message: &str| Err(SqlError::new(SqlState::FeatureNotSupported, message));
        if self.header == Some(Header::Match) {
            return unsupported("cannot use \"match\" with HEADER in COPY TO");
        }
        if self.default.is_some() {
            return unsupported("COPY DEFAULT cannot be used with COPY TO");
        }
        if self.force_not_null.is_some() {
            return unsupported("COPY FORCE_NOT_NULL cannot be used with COPY TO");
        }
        if self.force_null.is_some() {
            return unsupported("COPY FORCE_NULL cannot be used with COPY TO");
        }
        self.options()
    }

    /// What both directions have, where it goes together.
    fn options(&self) -> Result<CopyOptions> {
        let format = self.format.unwrap_or(CopyFormat::Text);
        let is_csv = format == CopyFormat::Csv;
        let (delimiter, null) = if is_csv { (b',', "") } else { (b'\t', "\\N") };
        let quote = self.quote.unwrap_or(b'"');
        let options = CopyOptions {
            format,
            header: self.header.is_some_and(|header| header != Header::None),
            delimiter: self.delimiter.unwrap_or(delimiter),
            null: self.null.clone().unwrap_or_else(|| null.to_string()),
            quote,
            escape: self.escape.unwrap_or(quote),
        };
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

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
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

fn header(value: Option<&str>) -> Result<Header> {
    match value.map(str::to_lowercase).as_deref() {
        None | Some("true" | "on" | "1") => Ok(Header::Names),
        Some("false" | "off" | "0") => Ok(Header::None),
        Some("match") => Ok(Header::Match),
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
