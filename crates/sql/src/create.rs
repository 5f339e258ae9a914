//! CREATE and DROP.

use sqlparser::ast::{self, ColumnOption, TableConstraint};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use crate::parser::StatementParser;
use crate::{
    Check, Column, CreateSource, CreateTable, CreateView, Drop, Format, Include, ObjectKind, Statement, fold, sql_type,
};

/// What stands between the brackets of CREATE TABLE and CREATE SOURCE.
#[derive(Default)]
struct Elements {
    columns: Vec<Column>,
    primary_key: Vec<String>,
    checks: Vec<Check>,
}

impl StatementParser<'_> {
    /// `CREATE ..`.
    pub fn create(&mut self) -> Result<Statement> {
        let replace = self.words_ahead(1, &["OR", "REPLACE"]);
        let at = if replace { 3 } else { 1 };
        let is = |p: &Self, words: &[&str]| p.words_ahead(at, words);
        if is(self, &["VIEW"]) || is(self, &["MATERIALIZED", "VIEW"]) {
            return self.create_view(replace);
        }
        if replace && (is(self, &["SOURCE"]) || is(self, &["STREAM"]) || is(self, &["TABLE"])) {
            return Ok(self.unsupported_kind("CREATE OR REPLACE"));
        }
        if is(self, &["SOURCE", "TABLE"]) {
            return self.refuse("CREATE SOURCE TABLE");
        }
        if is(self, &["SOURCE"]) || is(self, &["STREAM"]) {
            return self.create_source();
        }
        if is(self, &["TABLE"]) {
            return self.create_table();
        }
        if !replace && (is(self, &["INDEX"]) || is(self, &["UNIQUE", "INDEX"])) {
            return self.create_index();
        }
        for (word, name) in [("TEMP", "TABLE"), ("TEMPORARY", "TABLE"), ("TEMP", "VIEW"), ("TEMPORARY", "VIEW")] {
            if is(self, &[word, name]) {
                self.skip_all();
                return Ok(Statement::Unsupported(format!("CREATE TEMPORARY {name}")));
            }
        }
        if matches!(self.parser.peek_nth_token_ref(at).token, Token::Word(_)) {
            return Ok(self.unsupported_kind("CREATE"));
        }
        self.skip();
        self.unexpected()
    }

    fn unsupported_kind(&mut self, verb: &str) -> Statement {
        self.skip();
        let name = self.kind_name(verb);
        self.skip_all();
        Statement::Unsupported(name)
    }

    fn create_view(&mut self, or_replace: bool) -> Result<Statement> {
        self.skip();
        self.words(&["OR", "REPLACE"]);
        let materialized = self.word("MATERIALIZED");
        self.expect("VIEW")?;
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let name = self.object_name()?;
        let columns = if self.token(&Token::LParen) { self.names_to_bracket()? } else { vec![] };
        let options = self.with_options()?;
        self.expect("AS")?;
        let start = self.parser.index();
        let query = self.query()?;
        let (query_text, query_offset) = self.text_since(start);
        // A materialized view always emits its changes: ksqlDB's users write it out.
        if self.next_is("EMIT") && self.emit()?.is_some_and(|e| e.limit.is_some() || !e.options.is_empty()) {
            return self.unexpected();
        }
        if self.words(&["WITH", "NO", "DATA"]) {
            return Err(SqlError::unsupported("CREATE MATERIALIZED VIEW .. WITH NO DATA"));
        }
        self.words(&["WITH", "DATA"]);
        Ok(Statement::CreateView(CreateView {
            name,
            materialized,
            if_not_exists,
            or_replace,
            columns,
            options,
            query,
            query_text,
            query_offset,
        }))
    }

    fn create_table(&mut self) -> Result<Statement> {
        self.skip();
        self.expect("TABLE")?;
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let name = self.object_name()?;
        let elements = if self.token(&Token::LParen) { self.elements()? } else { Elements::default() };
        if self.next_is("INCLUDE") || self.next_is("FORMAT") {
            return self.refuse("a table that is fed by a connector");
        }
        let options = self.with_options()?;
        if self.next_is("INCLUDE") || self.next_is("FORMAT") {
            return self.refuse("a table that is fed by a connector");
        }
        if self.next_is("PARTITION") || self.next_is("INHERITS") || self.next_is("USING") {
            let what = self.any_word()?.to_uppercase();
            return Err(SqlError::unsupported(format!("CREATE TABLE .. {what}")));
        }
        let query = if self.word("AS") { Some(self.query()?) } else { None };
        if self.words(&["WITH", "NO", "DATA"]) {
            return Err(SqlError::unsupported("CREATE TABLE .. AS .. WITH NO DATA"));
        }
        self.words(&["WITH", "DATA"]);
        let nameless = elements.columns.iter().find(|c| c.sql_type == SqlType::Null);
        if let (None, Some(column)) = (&query, nameless) {
            let error = SqlError::new(SqlState::SyntaxError, format!("column \"{}\" has no type", column.name));
            return self.at(error, column.position);
        }
        let Elements { columns, primary_key, checks } = elements;
        Ok(Statement::CreateTable(CreateTable { name, if_not_exists, columns, primary_key, checks, query, options }))
    }

    fn create_source(&mut self) -> Result<Statement> {
        self.skip();
        let stream = self.word("STREAM");
        if !stream {
            self.expect("SOURCE")?;
        }
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let name = self.object_name()?;
        let columns = if self.token(&Token::LParen) {
            let position = self.position();
            let elements = self.elements()?;
            if !elements.primary_key.is_empty() {
                return self.at(SqlError::unsupported("a primary key of a source"), position);
            }
            if !elements.checks.is_empty() {
                return self.at(SqlError::unsupported("a CHECK constraint of a source"), position);
            }
            Some(elements.columns)
        } else {
            None
        };
        let (mut include, mut options, mut format) = (vec![], vec![], None);
        loop {
            match () {
                () if self.next_is("INCLUDE") => include.push(self.include()?),
                () if self.next_is("WITH") && options.is_empty() => {
                    self.skip();
                    options = self.options()?;
                }
                () if self.next_is("FORMAT") && format.is_none() => format = Some(self.format()?),
                () if self.next_is("AS") => return self.refuse("CREATE STREAM .. AS"),
                () if self.next_is("FROM") => return self.refuse("CREATE SOURCE .. FROM"),
                () => break,
            }
        }
        Ok(Statement::CreateSource(CreateSource { name, if_not_exists, stream, columns, include, options, format }))
    }

    fn include(&mut self) -> Result<Include> {
        self.skip();
        let position = self.position();
        let what = self.any_word()?.to_lowercase();
        if !["key", "partition", "offset", "timestamp", "header"].contains(&what.as_str()) {
            let error = SqlError::new(SqlState::SyntaxError, format!("cannot include \"{what}\""))
                .with_hint("A source can include key, partition, offset, timestamp and header.");
            return self.at(error, position);
        }
        let named = what == "header" && matches!(self.peek().token, Token::SingleQuotedString(_));
        let header = if named { Some(self.string()?) } else { None };
        let alias = if self.word("AS") { Some(self.identifier()?) } else { None };
        Ok(Include { what, header, alias, position })
    }

    /// `FORMAT PLAIN ENCODE JSON [(..)]`.
    fn format(&mut self) -> Result<Format> {
        self.skip();
        let format = self.any_word()?.to_uppercase();
        self.expect("ENCODE")?;
        let encode = self.any_word()?.to_uppercase();
        let options = if self.next_token_is(&Token::LParen) { self.options()? } else { vec![] };
        Ok(Format { format, encode, options })
    }

    /// Columns and constraints up to the closing bracket.
    fn elements(&mut self) -> Result<Elements> {
        let mut elements = Elements::default();
        if self.token(&Token::RParen) {
            return Ok(elements);
        }
        self.list(|p| p.element(&mut elements))?;
        self.expect_token(&Token::RParen)?;
        for name in &elements.primary_key {
            if let Some(column) = elements.columns.iter_mut().find(|c| c.name == *name) {
                column.not_null = true;
            }
        }
        Ok(elements)
    }

    fn element(&mut self, elements: &mut Elements) -> Result<()> {
        let position = self.position();
        if self.words_ahead(0, &["WATERMARK", "FOR"]) {
            return self.refuse("WATERMARK");
        }
        if self.next_is("LIKE") {
            return self.refuse("CREATE TABLE .. LIKE");
        }
        if let Some(check) = self.check()? {
            elements.checks.push(check);
            return Ok(());
        }
        if let Some(constraint) = self.sql(Parser::parse_optional_table_constraint)? {
            let names = self.key_of(constraint, position)?;
            return self.set_primary_key(elements, names, position);
        }
        let column = self.column(position, &mut elements.checks)?;
        if column.primary_key {
            self.set_primary_key(elements, vec![column.name.clone()], position)?;
        }
        elements.columns.push(column);
        Ok(())
    }

    fn set_primary_key(&self, elements: &mut Elements, names: Vec<String>, position: usize) -> Result<()> {
        if !elements.primary_key.is_empty() {
            let error = SqlError::new(SqlState::InvalidTableDefinition, "multiple primary keys are not allowed");
            return self.at(error, position);
        }
        elements.primary_key = names;
        Ok(())
    }

    fn key_of(&self, constraint: TableConstraint, position: usize) -> Result<Vec<String>> {
        let what = match constraint {
            TableConstraint::PrimaryKey(key) => {
                let name = |c: &ast::IndexColumn| match &c.column.expr {
                    ast::Expr::Identifier(ident) => Some(fold(ident)),
                    _ => None,
                };
                match key.columns.iter().map(name).collect::<Option<Vec<_>>>() {
                    Some(names) => return Ok(names),
                    None => "a primary key of expressions",
                }
            }
            TableConstraint::Unique(_) => "a UNIQUE constraint",
            TableConstraint::ForeignKey(_) => "a FOREIGN KEY constraint",
            _ => "this kind of table constraint",
        };
        self.at(SqlError::unsupported(what), position)
    }

    /// `[CONSTRAINT name] CHECK (condition)`, if it comes next.
    fn check(&mut self) -> Result<Option<Check>> {
        let name = match () {
            () if self.next_is("CHECK") => None,
            () if self.next_is("CONSTRAINT") && self.words_ahead(2, &["CHECK"]) => {
                self.skip();
                Some(self.identifier()?)
            }
            () => return Ok(None),
        };
        self.skip();
        self.expect_token(&Token::LParen)?;
        let start = self.parser.index();
        let condition = self.sql(Parser::parse_expr)?;
        let (text, offset) = self.text_since(start);
        self.expect_token(&Token::RParen)?;
        // It speaks of tables that others inherit from: there are none.
        self.words(&["NO", "INHERIT"]);
        Ok(Some(Check { name, condition, text, offset }))
    }

    /// A column; its CHECK constraints go to `checks`.
    fn column(&mut self, position: usize, checks: &mut Vec<Check>) -> Result<Column> {
        let name = self.identifier()?;
        let none = |sql_type| Column { name, sql_type, not_null: false, default: None, primary_key: false, position };
        // CREATE TABLE t (a, b) AS ..
        if self.next_token_is(&Token::Comma) || self.next_token_is(&Token::RParen) {
            return Ok(none(SqlType::Null));
        }
        let type_position = self.position();
        let data_type = self.sql(Parser::parse_data_type)?;
        let sql_type = sql_type(&data_type).or_else(|e| self.at(e, type_position))?;
        let mut column = none(sql_type);
        loop {
            if let Some(check) = self.check()? {
                checks.push(check);
                continue;
            }
            let start = self.parser.index();
            let position = self.position();
            if self.word("CONSTRAINT") {
                self.identifier()?;
            }
            // ksqlDB's spelling of a column that is filled from the record's key.
            if self.next_is("KEY") || self.next_is("HEADERS") {
                let what = self.any_word()?.to_uppercase();
                let error = SqlError::unsupported(format!("a {what} column"))
                    .with_hint("Write INCLUDE key or INCLUDE header after the list of columns.");
                return self.at(error, position);
            }
            let Some(option) = self.sql(Parser::parse_optional_column_option)? else { return Ok(column) };
            match option {
                ColumnOption::NotNull => column.not_null = true,
                ColumnOption::Null => column.not_null = false,
                ColumnOption::PrimaryKey(_) => (column.primary_key, column.not_null) = (true, true),
                ColumnOption::Default(_) => {
                    let (text, _) = self.text_since(start);
                    let words = text.split_once(|c: char| !c.is_alphanumeric()).map(|(_, rest)| rest.trim());
                    column.default = words.map(str::to_string);
                }
                option => {
                    let what = match option {
                        ColumnOption::Unique(_) => "a UNIQUE constraint",
                        ColumnOption::ForeignKey(_) => "a FOREIGN KEY constraint",
                        ColumnOption::Generated { .. } | ColumnOption::Identity(_) => "a generated column",
                        ColumnOption::Collation(_) => "COLLATE",
                        _ => "this kind of column constraint",
                    };
                    return self.at(SqlError::unsupported(what), position);
                }
            }
        }
    }

    /// Names up to the closing bracket.
    pub fn names_to_bracket(&mut self) -> Result<Vec<String>> {
        let names = self.list(Self::identifier)?;
        self.expect_token(&Token::RParen)?;
        Ok(names)
    }

    /// `DROP kind [IF EXISTS] a, b [CASCADE|RESTRICT]`.
    pub fn drop(&mut self) -> Result<Statement> {
        self.skip();
        let Some(kind) = self.object_kind() else {
            if !matches!(self.peek().token, Token::Word(_)) {
                return self.unexpected();
            }
            let name = self.kind_name("DROP");
            self.skip_all();
            return Ok(Statement::Unsupported(name));
        };
        if kind == ObjectKind::Index {
            self.word("CONCURRENTLY");
        }
        let if_exists = self.words(&["IF", "EXISTS"]);
        let names = self.list(Self::object_name)?;
        let cascade = self.word("CASCADE");
        if !cascade {
            self.word("RESTRICT");
        }
        Ok(Statement::Drop(Drop { kind, names, if_exists, cascade }))
    }

    /// The kind of object that is named next.
    pub fn object_kind(&mut self) -> Option<ObjectKind> {
        let kinds: [(&[&str], ObjectKind); 8] = [
            (&["SOURCE"], ObjectKind::Source),
            (&["STREAM"], ObjectKind::Source),
            (&["TABLE"], ObjectKind::Table),
            (&["VIEW"], ObjectKind::View),
            (&["MATERIALIZED", "VIEW"], ObjectKind::MaterializedView),
            (&["SINK"], ObjectKind::Sink),
            (&["INDEX"], ObjectKind::Index),
            (&["SCHEMA"], ObjectKind::Schema),
        ];
        kinds.into_iter().find(|(words, _)| self.words(words)).map(|(_, kind)| kind)
    }
}
