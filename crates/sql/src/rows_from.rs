//! Functions in FROM that sqlparser does not read: `ROWS FROM (f(..), g(..))` becomes a call of [`ROWS_FROM`], and
//! `LATERAL f(..)` loses a word that says nothing, because every function there may refer to what stands before it.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

/// The name of the call that stands for ROWS FROM. No function can have it.
pub const ROWS_FROM: &str = "rows from";

/// Rewrites the tokens of a statement.
pub(crate) fn rewrite(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut rewritten: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut skip_from = false;
    for (idx, mut token) in tokens.iter().cloned().enumerate() {
        let following = || tokens.iter().skip(idx + 1).filter(|t| !matches!(t.token, Token::Whitespace(_)));
        let next = following().next().map(|t| &t.token);
        if skip_from && is_word(&token.token, "FROM") {
            skip_from = false;
            continue;
        }
        if is_word(&token.token, "LATERAL") && matches!(next, Some(Token::Word(w)) if w.keyword != Keyword::VIEW) {
            continue;
        }
        let is_call = following().nth(1).is_some_and(|t| t.token == Token::LParen);
        if is_word(&token.token, "ROWS") && next.is_some_and(|t| is_word(t, "FROM")) && is_call {
            token.token =
                Token::Word(Word { value: ROWS_FROM.into(), quote_style: Some('"'), keyword: Keyword::NoKeyword });
            skip_from = true;
        }
        rewritten.push(token);
    }
    rewritten
}

fn is_word(token: &Token, wanted: &str) -> bool {
    matches!(token, Token::Word(Word { value, quote_style: None, .. }) if value.eq_ignore_ascii_case(wanted))
}
