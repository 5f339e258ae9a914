//! Statements about the session: settings, transactions, prepared statements.

use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;
use tidewire_types::{Result, SqlError};

use crate::parser::StatementParser;
use crate::{Statement, sql_type};

impl StatementParser<'_> {
    /// `SET [SESSION|LOCAL] name TO|= value, .. | DEFAULT` and its special forms.
    pub fn set(&mut self) -> Result<Statement> {
        self.skip();
        if self.words(&["SESSION", "CHARACTERISTICS", "AS", "TRANSACTION"]) {
            return self.set_transaction("default_transaction_");
        }
        if self.words(&["SESSION", "AUTHORIZATION"]) {
            return self.set_value("session_authorization", false);
        }
        let local = self.word("LOCAL");
        if !local {
            self.word("SESSION");
        }
        if self.word("TRANSACTION") {
            return self.set_transaction("transaction_");
        }
        if self.words(&["TIME", "ZONE"]) {
            self.word("INTERVAL");
            let set =
                if self.word("LOCAL") { Ok(set("timezone", None, local)) } else { self.set_value("timezone", local) };
            // SET TIME ZONE INTERVAL '+01:00' HOUR TO MINUTE
            self.words(&["HOUR", "TO", "MINUTE"]);
            return set;
        }
        if self.word("NAMES") {
            return self.set_value("client_encoding", local);
        }
        if self.words_ahead(0, &["ROLE"]) && !matches!(self.parser.peek_nth_token_ref(1).token, Token::Eq) {
            self.skip();
            return self.set_value("role", local);
        }
        let name = self.setting_name()?;
        if !self.token(&Token::Eq) {
            self.expect("TO")?;
        }
        self.set_value(&name, local)
    }

    fn set_value(&mut self, name: &str, local: bool) -> Result<Statement> {
        if self.word("DEFAULT") {
            return Ok(set(name, None, local));
        }
        let values = self.list(|p| {
            // An unquoted word is folded, as an identifier is.
            let folded = matches!(&p.peek().token, Token::Word(w) if w.quote_style.is_none());
            p.option_value().map(|v| if folded { v.to_lowercase() } else { v })
        })?;
        Ok(set(name, Some(values.join(", ")), local))
    }

    fn setting_name(&mut self) -> Result<String> {
        let mut name = self.any_word()?.to_lowercase();
        while self.token(&Token::Period) {
            name = format!("{name}.{}", self.any_word()?.to_lowercase());
        }
        Ok(name)
    }

    /// `ISOLATION LEVEL x | READ ONLY | ..`: the last one given is the setting.
    fn set_transaction(&mut self, prefix: &str) -> Result<Statement> {
        let local = prefix == "transaction_";
        let mut last = None;
        loop {
            last = match self.transaction_mode()? {
                Some((name, value)) => Some(set(&format!("{prefix}{name}"), Some(value), local)),
                None if last.is_none() => return self.unexpected(),
                None => break,
            };
        }
        last.map_or_else(|| self.unexpected(), Ok)
    }

    fn transaction_mode(&mut self) -> Result<Option<(&'static str, String)>> {
        self.token(&Token::Comma);
        if self.words(&["ISOLATION", "LEVEL"]) {
            for level in
                [&["READ", "COMMITTED"][..], &["READ", "UNCOMMITTED"], &["REPEATABLE", "READ"], &["SERIALIZABLE"]]
            {
                if self.words(level) {
                    return Ok(Some(("isolation", level.join(" ").to_lowercase())));
                }
            }
            return self.unexpected();
        }
        Ok(match () {
            () if self.words(&["READ", "ONLY"]) => Some(("read_only", "on".into())),
            () if self.words(&["READ", "WRITE"]) => Some(("read_only", "off".into())),
            () if self.words(&["NOT", "DEFERRABLE"]) => Some(("deferrable", "off".into())),
            () if self.word("DEFERRABLE") => Some(("deferrable", "on".into())),
            () => None,
        })
    }

    /// `RESET name | ALL | TIME ZONE | SESSION AUTHORIZATION`.
    pub fn reset(&mut self) -> Result<Statement> {
        self.skip();
        if self.word("ALL") {
            return Ok(Statement::ResetAll);
        }
        let name = match self.special_setting() {
            Some(name) => name,
            None => self.setting_name()?,
        };
        Ok(set(&name, None, false))
    }

    /// Settings whose names are several words.
    pub fn special_setting(&mut self) -> Option<String> {
        let names: [(&[&str], &str); 4] = [
            (&["TIME", "ZONE"], "timezone"),
            (&["SESSION", "AUTHORIZATION"], "session_authorization"),
            (&["TRANSACTION", "ISOLATION", "LEVEL"], "transaction_isolation"),
            (&["NAMES"], "client_encoding"),
        ];
        names.into_iter().find(|(words, _)| self.words(words)).map(|(_, name)| name.into())
    }

    /// `SHOW name`.
    pub fn show_setting(&mut self) -> Result<Statement> {
        let name = match self.special_setting() {
            Some(name) => name,
            None => self.setting_name()?,
        };
        Ok(Statement::ShowSetting(name))
    }

    /// `BEGIN [WORK|TRANSACTION] [modes]`, `START TRANSACTION [modes]`.
    pub fn begin(&mut self) -> Result<Statement> {
        if self.word("START") {
            self.expect("TRANSACTION")?;
        } else {
            self.skip();
            let _ = self.word("WORK") || self.word("TRANSACTION");
        }
        let mut read_only = false;
        while let Some((name, value)) = self.transaction_mode()? {
            if name == "read_only" {
                read_only = value == "on";
            }
        }
        Ok(Statement::Begin { read_only })
    }

    /// `COMMIT`, `END`, `ROLLBACK`, `ABORT`, with their noise words; `ROLLBACK TO x`.
    pub fn end_transaction(&mut self) -> Result<Statement> {
        let commit = self.next_is("COMMIT") || self.next_is("END");
        self.skip();
        if self.word("PREPARED") {
            self.skip_all();
            let verb = if commit { "COMMIT PREPARED" } else { "ROLLBACK PREPARED" };
            return Ok(Statement::Unsupported(verb.into()));
        }
        let _ = self.word("WORK") || self.word("TRANSACTION");
        if !commit && self.word("TO") {
            self.word("SAVEPOINT");
            self.identifier()?;
            return Ok(Statement::Savepoint("ROLLBACK TO SAVEPOINT"));
        }
        if self.words(&["AND", "CHAIN"]) {
            return Err(SqlError::unsupported("AND CHAIN"));
        }
        self.words(&["AND", "NO", "CHAIN"]);
        Ok(if commit { Statement::Commit } else { Statement::Rollback })
    }

    /// `SAVEPOINT x`, `RELEASE [SAVEPOINT] x`.
    pub fn named(&mut self, name: &'static str) -> Result<Statement> {
        self.skip();
        if name != "SAVEPOINT" {
            self.word("SAVEPOINT");
        }
        self.identifier()?;
        Ok(Statement::Savepoint(name))
    }

    /// `DISCARD ALL|PLANS|SEQUENCES|TEMP`.
    pub fn discard(&mut self) -> Result<Statement> {
        self.skip();
        if ["ALL", "PLANS", "SEQUENCES", "TEMP", "TEMPORARY"].iter().any(|w| self.word(w)) {
            return Ok(Statement::Discard);
        }
        self.unexpected()
    }

    /// `DEALLOCATE [PREPARE] name | ALL`.
    pub fn deallocate(&mut self) -> Result<Statement> {
        self.skip();
        self.word("PREPARE");
        let name = if self.word("ALL") { None } else { Some(self.identifier()?) };
        Ok(Statement::Deallocate(name))
    }

    /// `PREPARE name [(types)] AS statement`.
    pub fn prepare(&mut self) -> Result<Statement> {
        self.skip();
        if self.next_is("TRANSACTION") {
            self.skip_all();
            return Ok(Statement::Unsupported("PREPARE TRANSACTION".into()));
        }
        let name = self.identifier()?;
        let mut types = vec![];
        if self.token(&Token::LParen) {
            types = self.list(|p| {
                let position = p.position();
                let data_type = p.sql(Parser::parse_data_type)?;
                sql_type(&data_type).or_else(|e| p.at(e, position))
            })?;
            self.expect_token(&Token::RParen)?;
        }
        self.expect("AS")?;
        let statement = Box::new(self.rest()?);
        match statement.statement {
            Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                Ok(Statement::Prepare { name, types, statement })
            }
            _ => Err(SqlError::unsupported("PREPARE of this kind of statement").at(statement.offset + 1)),
        }
    }

    /// `EXECUTE name [(expressions)]`.
    pub fn execute(&mut self) -> Result<Statement> {
        self.skip();
        let name = self.identifier()?;
        let mut args = vec![];
        if self.token(&Token::LParen) && !self.token(&Token::RParen) {
            args = self.list(|p| p.sql(Parser::parse_expr))?;
            self.expect_token(&Token::RParen)?;
        }
        Ok(Statement::Execute { name, args })
    }
}

fn set(name: &str, value: Option<String>, local: bool) -> Statement {
    Statement::Set { name: name.into(), value, local }
}
