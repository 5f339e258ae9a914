//! `SELECT .. EMIT CHANGES` and `SUBSCRIBE`: a query whose changes are pushed.

use sqlparser::ast;
use sqlparser::tokenizer::Token;
use tidewire_types::Result;

use crate::parser::StatementParser;
use crate::{Statement, Subscribe};

impl StatementParser<'_> {
    /// `SUBSCRIBE [TO] name | (query) | query [WITH (..)]`.
    pub fn subscribe(&mut self) -> Result<Statement> {
        self.skip();
        self.word("TO");
        let bare = ["SELECT", "WITH", "VALUES"].iter().any(|w| self.next_is(w));
        let query = if bare || self.next_token_is(&Token::LParen) { self.query()? } else { self.select_all()? };
        let options = self.with_options()?;
        let limit = self.emit_limit()?;
        Ok(Statement::Subscribe(Subscribe { query, options, limit }))
    }

    /// `EMIT CHANGES [LIMIT n] [WITH (..)]` after a query; its query is still to be filled in.
    pub fn emit(&mut self) -> Result<Option<Subscribe>> {
        if !self.next_is("EMIT") {
            return Ok(None);
        }
        if self.words_ahead(1, &["FINAL"]) || self.words_ahead(1, &["ON"]) {
            return self.refuse("EMIT ON WINDOW CLOSE");
        }
        self.skip();
        self.expect("CHANGES")?;
        let limit = self.emit_limit()?;
        let options = self.with_options()?;
        let limit = if limit.is_none() { self.emit_limit()? } else { limit };
        Ok(Some(Subscribe { query: empty_query(), options, limit }))
    }

    fn emit_limit(&mut self) -> Result<Option<u64>> {
        if !self.word("LIMIT") {
            return Ok(None);
        }
        self.sql(|p| p.parse_literal_uint()).map(Some)
    }
}

fn empty_query() -> Box<ast::Query> {
    let values = ast::Values { explicit_row: false, value_keyword: false, rows: vec![] };
    Box::new(ast::Query {
        with: None,
        body: Box::new(ast::SetExpr::Values(values)),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: vec![],
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: vec![],
    })
}
