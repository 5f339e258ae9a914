//! `WITH (name = value, ..)`: names with dots, values of any simple kind, all as text.

use sqlparser::tokenizer::Token;
use tidewire_types::Result;

use crate::parser::StatementParser;

impl StatementParser<'_> {
    /// `WITH (..)` where it stands, else nothing.
    pub fn with_options(&mut self) -> Result<Vec<(String, String)>> {
        if self.next_is("WITH") && self.parser.peek_nth_token_ref(1).token == Token::LParen {
            self.skip();
            return self.options();
        }
        Ok(vec![])
    }

    /// `(a.b = 'x', c = 1)`; `a 'x'` and a bare name (true) too. Names become lower-case.
    pub fn options(&mut self) -> Result<Vec<(String, String)>> {
        self.expect_token(&Token::LParen)?;
        if self.token(&Token::RParen) {
            return Ok(vec![]);
        }
        let options = self.list(|p| {
            let name = p.option_name()?;
            let bare = p.next_token_is(&Token::Comma) || p.next_token_is(&Token::RParen);
            if !bare {
                p.token(&Token::Eq);
            }
            Ok((name, if bare { "true".into() } else { p.option_value()? }))
        })?;
        self.expect_token(&Token::RParen)?;
        Ok(options)
    }

    fn option_name(&mut self) -> Result<String> {
        if let Token::SingleQuotedString(name) = &self.peek().token {
            let name = name.to_lowercase();
            self.skip();
            return Ok(name);
        }
        let mut name = self.any_word()?.to_lowercase();
        while self.token(&Token::Period) {
            name = format!("{name}.{}", self.any_word()?.to_lowercase());
        }
        // Words of Kafka's settings may have hyphens: `client-id`.
        while self.next_token_is(&Token::Minus) {
            self.skip();
            name = format!("{name}-{}", self.any_word()?.to_lowercase());
        }
        Ok(name)
    }

    /// A string, a number with its sign, or a word, as text.
    pub fn option_value(&mut self) -> Result<String> {
        let sign = if self.token(&Token::Minus) { "-" } else { "" };
        self.token(&Token::Plus);
        let value = match &self.peek().token {
            Token::Number(number, _) => format!("{sign}{number}"),
            _ if !sign.is_empty() => return self.unexpected(),
            Token::Word(word) => word.value.clone(),
            Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_) | Token::DollarQuotedString(_) => {
                return self.string();
            }
            _ => return self.unexpected(),
        };
        self.skip();
        Ok(value)
    }
}
