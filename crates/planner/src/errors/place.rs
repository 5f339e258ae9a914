//! Where in the text an error stands whose message names no word: at the one operator, literal or cast that it can be
//! about. Where there are several it has no place: DataFusion's expressions do not know theirs.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::offset_of;

/// Characters from 1.
pub(super) fn place_of(text: &str, message: &str) -> Option<usize> {
    if let Some(operation) = message.strip_prefix("operator does not exist: ") {
        let is_operator = |part: &&str| !part.is_empty() && part.chars().all(|c| "+-*/%^<>=~!@#&|?".contains(c));
        let operator = operation.split(' ').find(is_operator)?;
        return only(text, |token| match operator {
            "<>" => *token == Token::Neq,
            "~~" | "!~~" => is_keyword(token, "LIKE"),
            "~~*" | "!~~*" => is_keyword(token, "ILIKE"),
            _ => !matches!(token, Token::Word(_)) && token.to_string() == operator,
        });
    }
    if message.starts_with("cannot cast type ") {
        return only(text, |token| *token == Token::DoubleColon || is_keyword(token, "CAST"));
    }
    let begins_with = |start: &&str| message.starts_with(start);
    ["invalid input", "date/time field value out of range", "value \""].iter().find(|start| begins_with(start))?;
    let (value, _) = message.split_once('"')?.1.rsplit_once('"')?;
    only(text, |token| matches!(token, Token::SingleQuotedString(literal) if literal == value))
}

fn is_keyword(token: &Token, keyword: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(keyword))
}

/// Where the token is that is such, if it is the only one.
fn only(text: &str, is_such: impl Fn(&Token) -> bool) -> Option<usize> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location().ok()?;
    let mut found = tokens.iter().filter(|token| is_such(&token.token));
    let (token, None) = (found.next()?, found.next()) else { return None };
    let start = token.span.start;
    let chars: Vec<char> = text.chars().collect();
    offset_of(&chars, usize::try_from(start.line).ok()?, usize::try_from(start.column).ok()?).map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_operator_literal_or_cast_has_a_place() {
        let missing = "operator does not exist: integer = boolean";
        assert_eq!(place_of("SELECT 1 = true", missing), Some(10));
        assert_eq!(place_of("SELECT '='\n,  1 = true", missing), Some(17));
        assert_eq!(place_of("SELECT 1 = true, 2 = 2", missing), None);
        assert_eq!(place_of("SELECT 1 != 'a'::text", "operator does not exist: integer <> text"), Some(10));
        assert_eq!(place_of("SELECT 1 LIKE 2", "operator does not exist: integer ~~ integer"), Some(10));
        let bad = "invalid input syntax for type integer: \"x\"";
        assert_eq!(place_of("SELECT x + 'x' FROM t", bad), Some(12));
        assert_eq!(place_of("SELECT 'x' + 'x'", bad), None);
        let range = "value \"99999999999\" is out of range for type integer";
        assert_eq!(place_of("SELECT '99999999999'::int", range), Some(8));
        assert_eq!(place_of("SELECT k::date FROM t", "cannot cast type integer to date"), Some(9));
        assert_eq!(place_of("SELECT CAST(k AS date) FROM t", "cannot cast type integer to date"), Some(8));
        assert_eq!(place_of("SELECT 'unended", bad), None);
    }
}
