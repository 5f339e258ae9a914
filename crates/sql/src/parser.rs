//! One statement: what is Tidewire's own is parsed by the files beside this one, the rest by sqlparser.

use std::ops::Range;

use sqlparser::ast;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Word};
use tidewire_types::{Result, SqlError, SqlState};

use crate::depth;
use crate::dialect::TidewireDialect;
use crate::errors::{self, End};
use crate::rows_from;
use crate::source::Source;
use crate::{Explain, ObjectName, Parsed, Statement, exclude, spelling};

/// Statements inside each other (`EXPLAIN DECLARE .. CURSOR FOR ..`).
const STATEMENTS_MAX: usize = 3;
/// sqlparser counts expressions, queries and table factors inside each other.
const RECURSION_MAX: usize = 120;
/// Statements within a text, each with the place where it ends.
pub(crate) fn parse_text(text: &str) -> Result<Vec<Parsed>> {
    let source = Source::new(text);
    let mut statements = vec![];
    let mut tokens = vec![];
    for token in tokenize(&source)? {
        if token.token == Token::SemiColon {
            let end = End { near: Some(';'), position: source.char(token.span.start) + 1 };
            statements.extend(parse_tokens(&source, std::mem::take(&mut tokens), Outer::default(), end)?);
        } else {
            tokens.push(token);
        }
    }
    let end = End { near: None, position: source.n_chars() + 1 };
    statements.extend(parse_tokens(&source, tokens, Outer::default(), end)?);
    if statements.is_empty() {
        statements.push(Parsed { statement: Statement::Empty, text: String::new(), offset: 0 });
    }
    Ok(statements)
}

fn tokenize(source: &Source<'_>) -> Result<Vec<TokenWithSpan>> {
    let mut tokens = vec![];
    match Tokenizer::new(&TidewireDialect, source.text).tokenize_with_location_into_buf(&mut tokens) {
        Ok(()) => Ok(tokens),
        Err(error) => {
            let start = tokens.last().map_or(Location { line: 1, column: 1 }, |t| t.span.end);
            Err(errors::of_tokenizer(&error, source, start))
        }
    }
}

pub(crate) fn is_blank(token: &TokenWithSpan) -> bool {
    matches!(token.token, Token::Whitespace(_) | Token::EOF)
}

/// Where a statement stands that is part of another (`EXPLAIN ..`, `PREPARE ..`).
#[derive(Clone, Copy, Default)]
struct Outer {
    /// Where the outer statement's text begins in the whole text.
    base: usize,
    /// How many statements are around this one.
    depth: usize,
}

/// Parses tokens of `source`. None where there are only blanks.
fn parse_tokens(source: &Source<'_>, tokens: Vec<TokenWithSpan>, outer: Outer, end: End) -> Result<Option<Parsed>> {
    let Some(first) = tokens.iter().find(|t| !is_blank(t)).map(|t| t.span.start) else { return Ok(None) };
    let last = tokens.iter().rfind(|t| !is_blank(t)).map_or(first, |t| t.span.end);
    let text = source.slice(Span::new(first, last));
    let base = outer.base + source.char(first);
    if outer.depth > STATEMENTS_MAX {
        return Err(errors::too_deep());
    }
    depth::check(&tokens)?;
    let tokens = rows_from::rewrite(tokens);

    let mut tokens = tokens;
    exclude::rewrite(&mut tokens);
    spelling::rewrite(&mut tokens);
    let tokens = tokens.into_iter().skip_while(is_blank).map(|t| TokenWithSpan::new(t.token, shift(t.span, first)));
    let own = Source::new(text);
    let parser =
        Parser::new(&TidewireDialect).with_recursion_limit(RECURSION_MAX).with_tokens_with_locations(tokens.collect());
    let mut parser = StatementParser { parser, source: own, base, depth: outer.depth, end };
    if let Some(token) = misplaced(&parser) {
        return Err(errors::syntax(&parser.source, base, end, token));
    }
    let statement = parser.statement()?;
    if parser.peek().token != Token::EOF {
        return parser.unexpected();
    }
    Ok(Some(Parsed { statement, text: text.into(), offset: base }))
}

/// A word that begins a clause where a name or an expression must stand: sqlparser would take it for a name
/// (`SELECT 1 FROM WHERE`).
fn misplaced<'a>(parser: &'a StatementParser<'_>) -> Option<&'a TokenWithSpan> {
    const BEFORE: &[&str] = &["FROM", "JOIN", "WHERE", "BY", "HAVING", "AND", "OR", "NOT", "LIMIT", "OFFSET"];
    const CLAUSE: &[&str] =
        &["FROM", "WHERE", "GROUP", "HAVING", "ORDER", "UNION", "EXCEPT", "INTERSECT", "LIMIT", "OFFSET", "ON", "THEN"];
    let tokens = &parser.parser;
    let mut before = false;
    for idx in 0.. {
        let token = tokens.token_at(idx);
        match &token.token {
            Token::EOF => break,
            Token::Whitespace(_) => continue,
            Token::Word(Word { value, quote_style: None, .. }) => {
                let is = |words: &[&str]| words.iter().any(|w| value.eq_ignore_ascii_case(w));
                if before && is(CLAUSE) {
                    return Some(token);
                }
                before = is(BEFORE);
            }
            token => before = *token == Token::Comma,
        }
    }
    None
}

/// A place in a text as a place in the part of it that begins at `origin`.
fn shift(span: Span, origin: Location) -> Span {
    let to = |at: Location| Location {
        line: at.line.saturating_sub(origin.line) + 1,
        column: if at.line == origin.line { at.column.saturating_sub(origin.column) + 1 } else { at.column },
    };
    Span::new(to(span.start), to(span.end))
}

/// Reads one statement. Places in what it makes are those in the statement's own text.
pub(crate) struct StatementParser<'a> {
    pub parser: Parser<'a>,
    pub source: Source<'a>,
    /// Where the statement's text begins in the whole text.
    pub base: usize,
    /// How many statements are around this one.
    depth: usize,
    end: End,
}

impl<'a> StatementParser<'a> {
    fn statement(&mut self) -> Result<Statement> {
        let Token::Word(Word { value, quote_style: None, .. }) = &self.peek().token else {
            return if self.peek().token == Token::LParen { self.query_statement() } else { self.unexpected() };
        };
        let word = value.to_ascii_uppercase();
        match word.as_str() {
            "SELECT" | "WITH" | "VALUES" => self.query_statement(),
            "SUBSCRIBE" => self.subscribe(),
            "CREATE" => self.create(),
            "DROP" => self.drop(),
            "INSERT" | "UPDATE" | "DELETE" => self.dml(),
            "COPY" => self.copy(),
            "TRUNCATE" => self.truncate(),
            "EXPLAIN" => self.explain(),
            "SHOW" => self.show(),
            "DESCRIBE" | "DESC" => self.describe(),
            "SET" => self.set(),
            "RESET" => self.reset(),
            "BEGIN" | "START" => self.begin(),
            "COMMIT" | "END" | "ROLLBACK" | "ABORT" => self.end_transaction(),
            "SAVEPOINT" => self.named("SAVEPOINT"),
            "RELEASE" => self.named("RELEASE SAVEPOINT"),
            "DISCARD" => self.discard(),
            "DEALLOCATE" => self.deallocate(),
            "PREPARE" => self.prepare(),
            "EXECUTE" => self.execute(),
            "DECLARE" => self.declare(),
            "FETCH" => self.fetch(),
            "CLOSE" => self.close(),
            "BACKUP" => self.backup(),
            "REFRESH" if self.words_ahead(1, &["MATERIALIZED"]) => self.refresh(),
            "ALTER" if self.words_ahead(1, &["SOURCE"]) || self.words_ahead(1, &["STREAM"]) => self.alter_source(),
            "FLUSH" => {
                self.skip();
                Ok(Statement::Flush)
            }
            _ => self.unsupported(&word),
        }
    }

    /// Statements that PostgreSQL or others have and Tidewire does not.
    fn unsupported(&mut self, word: &str) -> Result<Statement> {
        const ALONE: &[&str] = &[
            "ANALYZE",
            "ANALYSE",
            "CALL",
            "CHECKPOINT",
            "CLUSTER",
            "COMMENT",
            "DO",
            "GRANT",
            "LISTEN",
            "LOAD",
            "LOCK",
            "MERGE",
            "MOVE",
            "NOTIFY",
            "REASSIGN",
            "REINDEX",
            "REVOKE",
            "SECURITY",
            "UNLISTEN",
            "VACUUM",
        ];
        const OWN: &[&str] = &["CANCEL", "PAUSE", "RESUME", "REPLAY", "PRINT", "RECOVER", "WAIT", "USE"];
        if !ALONE.contains(&word) && !OWN.contains(&word) && !["ALTER", "REFRESH", "IMPORT"].contains(&word) {
            return self.unexpected();
        }
        self.skip();
        let name = if ALONE.contains(&word) { word.into() } else { self.kind_name(word) };
        self.skip_all();
        Ok(Statement::Unsupported(name))
    }

    /// `CREATE UNIQUE INDEX ..` is `CREATE INDEX`: the verb and the kind of object that follows.
    pub fn kind_name(&mut self, verb: &str) -> String {
        const ADJECTIVES: &[&str] = &[
            "OR",
            "REPLACE",
            "TEMP",
            "TEMPORARY",
            "UNLOGGED",
            "UNIQUE",
            "GLOBAL",
            "LOCAL",
            "TRUSTED",
            "PROCEDURAL",
            "CONSTRAINT",
        ];
        const PAIRS: &[&str] =
            &["RECURSIVE", "MATERIALIZED", "FOREIGN", "EVENT", "ACCESS", "USER", "TEXT", "DEAD", "DEFAULT"];
        let mut name = verb.to_string();
        while let Token::Word(word) = &self.peek().token {
            let word = word.value.to_ascii_uppercase();
            self.skip();
            if ADJECTIVES.contains(&word.as_str()) {
                continue;
            }
            name = format!("{name} {word}");
            if !PAIRS.contains(&word.as_str()) || word == "USER" && !self.next_is("MAPPING") {
                break;
            }
        }
        name
    }

    fn backup(&mut self) -> Result<Statement> {
        self.skip();
        self.expect("TO")?;
        Ok(Statement::Backup { to: self.string()? })
    }

    /// `REFRESH MATERIALIZED VIEW [CONCURRENTLY] name [WITH [NO] DATA]`.
    fn refresh(&mut self) -> Result<Statement> {
        self.skip();
        self.expect("MATERIALIZED")?;
        self.expect("VIEW")?;
        self.word("CONCURRENTLY");
        let name = self.object_name()?;
        if self.words(&["WITH", "NO", "DATA"]) {
            return Ok(Statement::Unsupported("REFRESH MATERIALIZED VIEW .. WITH NO DATA".into()));
        }
        let _ = self.words(&["WITH", "DATA"]);
        Ok(Statement::Refresh(name))
    }

    /// `ALTER SOURCE name SKIP LOST RECORDS`; nothing else of a source can be altered.
    fn alter_source(&mut self) -> Result<Statement> {
        self.skip();
        self.skip();
        let name = self.object_name()?;
        if self.words(&["SKIP", "LOST", "RECORDS"]) {
            return Ok(Statement::SkipLostRecords(name));
        }
        self.skip_all();
        Ok(Statement::Unsupported("ALTER SOURCE other than SKIP LOST RECORDS".into()))
    }

    fn query_statement(&mut self) -> Result<Statement> {
        let query = self.sql(Parser::parse_query)?;
        let query = match insert_with(query) {
            Ok(insert) => return Ok(Statement::Insert(insert)),
            Err(query) => query,
        };
        if let Some(name) = changes_data(&query) {
            return Ok(Statement::Unsupported(name.into()));
        }
        match self.emit()? {
            Some(mut subscribe) => {
                subscribe.query = query;
                Ok(Statement::Subscribe(subscribe))
            }
            None => Ok(Statement::Query(query)),
        }
    }

    /// A query up to where it ends (before EMIT, WITH NO DATA, ..).
    pub fn query(&mut self) -> Result<Box<ast::Query>> {
        let first = self.peek().clone();
        let query = self.sql(Parser::parse_query)?;
        match changes_data(&query) {
            None => Ok(query),
            Some(_) => Err(errors::syntax(&self.source, self.base, self.end, &first)),
        }
    }

    /// Reads a name and makes `SELECT * FROM name`.
    pub fn select_all(&mut self) -> Result<Box<ast::Query>> {
        let start = self.parser.index();
        self.object_name()?;
        self.select_from(0..0, start..self.parser.index())
    }

    /// Makes `SELECT columns FROM name` of two ranges of tokens; no columns is `*`.
    pub fn select_from(&self, columns: Range<usize>, name: Range<usize>) -> Result<Box<ast::Query>> {
        let start = self.parser.token_at(name.start).span.start;
        let at = |token| TokenWithSpan::new(token, Span::new(start, start));
        let copied = |range: Range<usize>| range.map(|idx| self.parser.token_at(idx).clone());
        let mut tokens = vec![at(Token::make_keyword("SELECT"))];
        match columns.is_empty() {
            true => tokens.push(at(Token::Mul)),
            false => tokens.extend(copied(columns)),
        }
        tokens.push(at(Token::make_keyword("FROM")));
        tokens.extend(copied(name));
        let mut inner = Parser::new(&TidewireDialect).with_tokens_with_locations(tokens);
        inner.parse_query().map_err(|e| errors::of_parser(&e, &inner, &self.source, self.base, self.end))
    }

    fn dml(&mut self) -> Result<Statement> {
        let statement = self.sql(Parser::parse_statement)?;
        Ok(match statement {
            ast::Statement::Insert(insert) => Statement::Insert(Box::new(insert)),
            ast::Statement::Delete(delete) => Statement::Delete(Box::new(delete)),
            update @ ast::Statement::Update(_) => Statement::Update(Box::new(update)),
            _ => return Err(SqlError::internal("a DML statement became another")),
        })
    }

    /// `TRUNCATE [TABLE] [ONLY] a [*], b [RESTART IDENTITY] [CASCADE|RESTRICT]`.
    fn truncate(&mut self) -> Result<Statement> {
        self.skip();
        self.word("TABLE");
        let names = self.list(|p| {
            p.word("ONLY");
            let name = p.object_name()?;
            p.token(&Token::Mul);
            Ok(name)
        })?;
        let _ = self.words(&["RESTART", "IDENTITY"]) || self.words(&["CONTINUE", "IDENTITY"]);
        let _ = self.word("CASCADE") || self.word("RESTRICT");
        Ok(Statement::Truncate(names))
    }

    /// `EXPLAIN [(options)] [ANALYZE] [VERBOSE] statement | MATERIALIZED VIEW name`.
    fn explain(&mut self) -> Result<Statement> {
        self.skip();
        let (mut analyze, mut verbose, mut state) = (false, false, false);
        if self.next_token_is(&Token::LParen) && !self.words_ahead(1, &["SELECT"]) && !self.words_ahead(1, &["WITH"]) {
            self.skip();
            self.list(|p| {
                let name = p.any_word()?;
                let on = match p.next_token_is(&Token::Comma) || p.next_token_is(&Token::RParen) {
                    true => true,
                    false => !matches!(p.option_value()?.to_ascii_lowercase().as_str(), "false" | "off" | "0"),
                };
                match name.to_ascii_lowercase().as_str() {
                    "analyze" | "analyse" => analyze = on,
                    "verbose" => verbose = on,
                    "state" => state = on,
                    _ => {}
                }
                Ok(())
            })?;
            self.expect_token(&Token::RParen)?;
        } else {
            analyze = self.word("ANALYZE") || self.word("ANALYSE");
            verbose = self.word("VERBOSE");
        }
        if self.words(&["MATERIALIZED", "VIEW"]) {
            let name = self.object_name()?;
            return Ok(Statement::Explain(Explain::MaterializedView { name, analyze }));
        }
        let statement = Box::new(self.rest()?);
        match statement.statement {
            _ if state => Ok(Statement::Explain(Explain::State { statement })),
            Statement::Query(_)
            | Statement::Subscribe(_)
            | Statement::CreateView(_)
            | Statement::CreateTable(_)
            | Statement::Insert(_)
            | Statement::Update(_)
            | Statement::Delete(_)
            | Statement::Declare { .. }
            | Statement::Execute { .. } => Ok(Statement::Explain(Explain::Plan { statement, analyze, verbose })),
            _ => Err(SqlError::unsupported("EXPLAIN of this kind of statement").at(statement.offset + 1)),
        }
    }

    /// What is left of the statement, as a statement of its own.
    pub fn rest(&mut self) -> Result<Parsed> {
        let mut tokens = vec![];
        loop {
            let token = self.parser.token_at(self.parser.index());
            if token.token == Token::EOF {
                break;
            }
            tokens.push(token.clone());
            if self.parser.next_token_no_skip().is_none() {
                break;
            }
        }
        match parse_tokens(&self.source, tokens, Outer { base: self.base, depth: self.depth + 1 }, self.end)? {
            Some(parsed) => Ok(parsed),
            None => self.unexpected(),
        }
    }

    /// What stands within brackets, as a statement of its own.
    pub fn bracketed(&mut self) -> Result<Parsed> {
        self.expect_token(&Token::LParen)?;
        let mut tokens = vec![];
        let mut n_open = 1;
        loop {
            let token = self.parser.token_at(self.parser.index()).clone();
            match token.token {
                Token::LParen => n_open += 1,
                Token::RParen => n_open -= 1,
                Token::EOF => return self.unexpected(),
                _ => {}
            }
            if n_open == 0 {
                break;
            }
            tokens.push(token);
            self.parser.next_token_no_skip();
        }
        let end = End { near: Some(')'), position: self.base + self.position() };
        match parse_tokens(&self.source, tokens, Outer { base: self.base, depth: self.depth + 1 }, end)? {
            Some(parsed) => {
                self.skip();
                Ok(parsed)
            }
            None => self.unexpected(),
        }
    }

    /// A name of one to three parts; the third is the database, which must be the only one there is.
    pub fn object_name(&mut self) -> Result<ObjectName> {
        let position = self.position();
        let mut parts = vec![self.identifier()?];
        while self.token(&Token::Period) {
            parts.push(self.identifier()?);
        }
        let error = |state, message: String| Err(SqlError::new(state, message).at(self.base + position));
        let (name, schema, database) = (parts.pop(), parts.pop(), parts.pop());
        if !parts.is_empty() {
            return error(SqlState::SyntaxError, "improper qualified name (too many dotted names)".into());
        }
        match database {
            Some(other) if other != "tidewire" => error(
                SqlState::FeatureNotSupported,
                format!("cross-database references are not supported: \"{other}\""),
            ),
            _ => Ok(ObjectName { schema, name: name.unwrap_or_default(), position }),
        }
    }

    /// An identifier, folded. A word that PostgreSQL reserves must be quoted.
    pub fn identifier(&mut self) -> Result<String> {
        match &self.peek().token {
            Token::Word(word) if word.quote_style.is_some() || !is_reserved(&word.value) => {
                let name = crate::fold(&word.to_ident(Span::empty()));
                self.skip();
                Ok(name)
            }
            _ => self.unexpected(),
        }
    }

    /// Any word, as written.
    pub fn any_word(&mut self) -> Result<String> {
        match &self.peek().token {
            Token::Word(word) => {
                let word = word.value.clone();
                self.skip();
                Ok(word)
            }
            _ => self.unexpected(),
        }
    }

    /// A string literal.
    pub fn string(&mut self) -> Result<String> {
        self.sql(Parser::parse_literal_string)
    }

    /// Items between commas.
    pub fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = vec![item(self)?];
        while self.token(&Token::Comma) {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// Calls sqlparser and says its errors in PostgreSQL's words.
    pub fn sql<T>(&mut self, parse: impl FnOnce(&mut Parser<'a>) -> Result<T, ParserError>) -> Result<T> {
        parse(&mut self.parser).map_err(|e| errors::of_parser(&e, &self.parser, &self.source, self.base, self.end))
    }

    /// Takes the next word if it is this one (unquoted, in any case).
    pub fn word(&mut self, word: &str) -> bool {
        self.words(&[word])
    }

    /// Takes the next words if they are these.
    pub fn words(&mut self, words: &[&str]) -> bool {
        let found = self.words_ahead(0, words);
        if found {
            words.iter().for_each(|_| self.skip());
        }
        found
    }

    /// Whether the next word is this one.
    pub fn next_is(&self, word: &str) -> bool {
        self.words_ahead(0, &[word])
    }

    /// Whether these words stand `ahead` tokens from here.
    pub fn words_ahead(&self, ahead: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(idx, expected)| {
            matches!(&self.parser.peek_nth_token_ref(ahead + idx).token,
                Token::Word(Word { value, quote_style: None, .. }) if value.eq_ignore_ascii_case(expected))
        })
    }

    /// Takes the word or fails.
    pub fn expect(&mut self, word: &str) -> Result<()> {
        if self.word(word) { Ok(()) } else { self.unexpected() }
    }

    /// Takes the next token if it is this one.
    pub fn token(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    /// Whether the next token is this one.
    pub fn next_token_is(&self, token: &Token) -> bool {
        self.peek().token == *token
    }

    /// Takes the token or fails.
    pub fn expect_token(&mut self, token: &Token) -> Result<()> {
        if self.token(token) { Ok(()) } else { self.unexpected() }
    }

    /// The next token.
    pub fn peek(&self) -> &TokenWithSpan {
        self.parser.peek_token_ref()
    }

    /// Goes past the next token.
    pub fn skip(&mut self) {
        self.parser.advance_token();
    }

    /// Goes to the end.
    pub fn skip_all(&mut self) {
        while self.peek().token != Token::EOF {
            self.skip();
        }
    }

    /// Where the next token stands in the statement's text: characters from 1.
    pub fn position(&self) -> usize {
        self.source.char(self.peek().span.start) + 1
    }

    /// The text of the tokens from index `start` to the present one, and where it begins: characters from 0.
    pub fn text_since(&self, start: usize) -> (String, usize) {
        let tokens = || (start..self.parser.index()).map(|idx| self.parser.token_at(idx)).filter(|t| !is_blank(t));
        match (tokens().next(), tokens().next_back()) {
            (Some(first), Some(last)) => {
                let text = self.source.slice(Span::new(first.span.start, last.span.end));
                (text.into(), self.source.char(first.span.start))
            }
            _ => (String::new(), 0),
        }
    }

    /// An error at a place in the statement's text (characters from 1).
    pub fn at<T>(&self, error: SqlError, position: usize) -> Result<T> {
        Err(error.at(self.base + position))
    }

    /// `0A000` at the next token.
    pub fn refuse<T>(&self, what: &str) -> Result<T> {
        self.at(SqlError::unsupported(what), self.position())
    }

    /// The syntax error at the next token.
    pub fn unexpected<T>(&self) -> Result<T> {
        self.unexpected_token(self.peek())
    }

    /// The syntax error at a token.
    pub fn unexpected_token<T>(&self, token: &TokenWithSpan) -> Result<T> {
        Err(errors::syntax(&self.source, self.base, self.end, token))
    }
}

/// `WITH .. INSERT INTO t query` is `INSERT INTO t WITH .. query`.
fn insert_with(mut query: Box<ast::Query>) -> Result<Box<ast::Insert>, Box<ast::Query>> {
    match (query.body.as_mut(), &query.with) {
        (ast::SetExpr::Insert(ast::Statement::Insert(insert)), Some(with)) => {
            let Some(source) = insert.source.as_mut() else { return Err(query) };
            let mut with = with.clone();
            if let Some(own) = source.with.take() {
                with.recursive |= own.recursive;
                with.cte_tables.extend(own.cte_tables);
            }
            source.with = Some(with);
            Ok(Box::new(insert.clone()))
        }
        _ => Err(query),
    }
}

/// The name of the statement, where a query is none that only reads.
fn changes_data(query: &ast::Query) -> Option<&'static str> {
    match query.body.as_ref() {
        ast::SetExpr::Insert(_) => Some("WITH .. INSERT"),
        ast::SetExpr::Update(_) => Some("WITH .. UPDATE"),
        ast::SetExpr::Delete(_) => Some("WITH .. DELETE"),
        ast::SetExpr::Merge(_) => Some("MERGE"),
        ast::SetExpr::Select(select) if select.into.is_some() => Some("SELECT INTO"),
        _ => None,
    }
}

/// Words that PostgreSQL takes as names only in quotes.
/// Whether a word is reserved, so that it is a name in quotes only.
pub fn is_reserved(word: &str) -> bool {
    const RESERVED: &[&str] = &[
        "all",
        "analyse",
        "analyze",
        "and",
        "any",
        "array",
        "as",
        "asc",
        "asymmetric",
        "both",
        "case",
        "cast",
        "check",
        "collate",
        "column",
        "constraint",
        "create",
        "current_catalog",
        "current_date",
        "current_role",
        "current_time",
        "current_timestamp",
        "current_user",
        "default",
        "deferrable",
        "desc",
        "distinct",
        "do",
        "else",
        "end",
        "except",
        "false",
        "fetch",
        "for",
        "foreign",
        "from",
        "grant",
        "group",
        "having",
        "in",
        "initially",
        "intersect",
        "into",
        "lateral",
        "leading",
        "limit",
        "localtime",
        "localtimestamp",
        "not",
        "null",
        "offset",
        "on",
        "only",
        "or",
        "order",
        "placing",
        "primary",
        "references",
        "returning",
        "select",
        "session_user",
        "some",
        "symmetric",
        "table",
        "then",
        "to",
        "trailing",
        "true",
        "union",
        "unique",
        "user",
        "using",
        "variadic",
        "when",
        "where",
        "window",
        "with",
    ];
    RESERVED.binary_search(&word.to_ascii_lowercase().as_str()).is_ok()
}

/// One expression and nothing after it.
pub(crate) fn parse_expression(text: &str) -> Result<ast::Expr> {
    let source = Source::new(text);
    let tokens = tokenize(&source)?;
    depth::check(&tokens)?;
    let end = End { near: None, position: source.n_chars() + 1 };
    let parser = Parser::new(&TidewireDialect).with_recursion_limit(RECURSION_MAX).with_tokens_with_locations(tokens);
    let mut parser = StatementParser { parser, source, base: 0, depth: 0, end };
    let expr = parser.sql(Parser::parse_expr)?;
    if parser.peek().token == Token::EOF { Ok(expr) } else { parser.unexpected() }
}
