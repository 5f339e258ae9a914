//! CREATE INDEX.

use sqlparser::tokenizer::Token;
use tidewire_types::{Result, SqlError, SqlState};

use crate::parser::StatementParser;
use crate::{CreateIndex, NamedColumn, Statement};

/// Access methods of PostgreSQL that Tidewire does not have.
const OTHER_METHODS: &[&str] = &["brin", "gin", "gist", "spgist"];

impl StatementParser<'_> {
    /// `CREATE [UNIQUE] INDEX [CONCURRENTLY] [[IF NOT EXISTS] name] ON t [USING method] (columns) [INCLUDE (columns)]`.
    pub fn create_index(&mut self) -> Result<Statement> {
        self.skip();
        let unique = self.word("UNIQUE");
        self.expect("INDEX")?;
        // An index is always built beside what else goes on.
        self.word("CONCURRENTLY");
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let is_named = if_not_exists || !self.next_is("ON");
        let name = if is_named { Some(self.object_name()?) } else { None };
        self.expect("ON")?;
        self.word("ONLY");
        let relation = self.object_name()?;
        if self.word("USING") {
            self.access_method()?;
        }
        self.expect_token(&Token::LParen)?;
        let columns = self.list(Self::index_column)?;
        self.expect_token(&Token::RParen)?;
        let include = if self.word("INCLUDE") {
            self.expect_token(&Token::LParen)?;
            let include = self.list(Self::plain_column)?;
            self.expect_token(&Token::RParen)?;
            include
        } else {
            vec![]
        };
        if self.words(&["NULLS", "DISTINCT"]) {
            // As it is anyway.
        } else if self.words(&["NULLS", "NOT", "DISTINCT"]) {
            return self.refuse("NULLS NOT DISTINCT");
        }
        if self.next_is("WITH") || self.next_is("TABLESPACE") {
            return self.refuse("an option of an index");
        }
        if self.next_is("WHERE") {
            let error = SqlError::unsupported("a partial index")
                .with_hint("Create a materialized view with that WHERE, and the index on it.");
            return self.at(error, self.position());
        }
        Ok(Statement::CreateIndex(CreateIndex { name, if_not_exists, unique, relation, columns, include }))
    }

    fn access_method(&mut self) -> Result<()> {
        let position = self.position();
        let method = self.identifier()?;
        match method.as_str() {
            "hash" | "btree" => Ok(()),
            other if OTHER_METHODS.contains(&other) => {
                let error = SqlError::unsupported(format_args!("access method \"{other}\""));
                self.at(error.with_hint("Indexes are hash indexes: they find rows by equality."), position)
            }
            other => {
                let message = format!("access method \"{other}\" does not exist");
                self.at(SqlError::new(SqlState::UndefinedObject, message), position)
            }
        }
    }

    /// A column, and what PostgreSQL takes behind it that says nothing about equality.
    fn index_column(&mut self) -> Result<NamedColumn> {
        let column = self.plain_column()?;
        if self.next_is("COLLATE") {
            return self.refuse("COLLATE");
        }
        if !self.word("ASC") {
            self.word("DESC");
        }
        if !self.words(&["NULLS", "FIRST"]) {
            self.words(&["NULLS", "LAST"]);
        }
        match &self.peek().token {
            Token::Comma | Token::RParen => Ok(column),
            Token::Word(_) => self.refuse("an operator class"),
            _ => self.unexpected(),
        }
    }

    fn plain_column(&mut self) -> Result<NamedColumn> {
        let position = self.position();
        let is_expression = self.next_token_is(&Token::LParen)
            || matches!(self.parser.peek_nth_token_ref(1).token, Token::LParen | Token::Period);
        if is_expression {
            let error = SqlError::unsupported("an index on an expression")
                .with_hint("Create a materialized view with the expression as a column, and the index on it.");
            return self.at(error, position);
        }
        Ok(NamedColumn { name: self.identifier()?, position })
    }
}
