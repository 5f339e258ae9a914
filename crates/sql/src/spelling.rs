//! PostgreSQL's spellings that sqlparser does not read, as ones that mean the same: `TRIM(TRAILING FROM x)`, `ORDER BY x
//! USING >`, a window's offset that is cast (`RANGE '1 day'::interval PRECEDING`), `TABLE t` for `SELECT * FROM
//! t`, `ONLY t`, and a column `top`.

use sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace, Word};

use crate::parser::is_blank;

/// Rewrites the tokens of a statement.
pub(crate) fn rewrite(tokens: &mut Vec<TokenWithSpan>) {
    let mut idx = 0;
    while idx < tokens.len() {
        table(tokens, idx);
        only(tokens, idx);
        top(tokens, idx);
        trim(tokens, idx);
        using(tokens, idx);
        offset(tokens, idx);
        sign(tokens, idx);
        idx += 1;
    }
}

fn is_word(token: Option<&TokenWithSpan>, words: &[&str]) -> bool {
    matches!(token.map(|t| &t.token), Some(Token::Word(Word { value, quote_style: None, .. }))
        if words.iter().any(|word| value.eq_ignore_ascii_case(word)))
}

fn is(token: Option<&TokenWithSpan>, wanted: &Token) -> bool {
    token.is_some_and(|t| t.token == *wanted)
}

/// The place of the `n`th token behind `at` that is no blank.
fn behind(tokens: &[TokenWithSpan], at: usize, n: usize) -> usize {
    let places = tokens.iter().enumerate().skip(at + 1).filter(|(_, token)| !is_blank(token));
    places.map(|(idx, _)| idx).nth(n).unwrap_or(tokens.len())
}

/// `TABLE t`, where a query may begin.
fn table(tokens: &mut Vec<TokenWithSpan>, at: usize) {
    const BEFORE: &[&str] = &["ALL", "AS", "DISTINCT", "EXCEPT", "FOR", "INTERSECT", "SUBSCRIBE", "UNION"];
    const BEHIND: &[&str] = &["FROM", "INTO", "WHERE"];
    if !is_word(tokens.get(at), &["TABLE"]) {
        return;
    }
    let before = tokens.iter().take(at).rfind(|token| !is_blank(token));
    let begins = before.is_none_or(|before| matches!(before.token, Token::LParen | Token::RParen))
        || is_word(before, BEFORE)
        // INSERT INTO t TABLE u
        || is_word(tokens.iter().find(|token| !is_blank(token)), &["INSERT"]);
    let name = tokens.get(behind(tokens, at, 0));
    if !begins || is_word(name, BEHIND) || !matches!(name.map(|t| &t.token), Some(Token::Word(_))) {
        return;
    }
    let Some(span) = tokens.get(at).map(|token| token.span) else { return };
    let words = [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")];
    tokens.splice(at..=at, words.map(|token| TokenWithSpan::new(token, span)));
}

/// `FROM ONLY t`: no table has others that inherit from it.
fn only(tokens: &mut Vec<TokenWithSpan>, at: usize) {
    if !is_word(tokens.get(at), &["ONLY"]) {
        return;
    }
    let before = tokens.iter().take(at).rfind(|token| !is_blank(token));
    let name = behind(tokens, at, 0);
    if is_word(before, &["FROM", "JOIN", "UPDATE"])
        && matches!(tokens.get(name).map(|t| &t.token), Some(Token::Word(_)))
    {
        tokens.drain(at..name);
    }
}

/// `SELECT top FROM t`: a name like any other. sqlparser reads the beginning of `TOP 5`, which PostgreSQL does not have.
fn top(tokens: &mut [TokenWithSpan], at: usize) {
    if is_word(tokens.get(at), &["TOP"])
        && let Some(word) = tokens.get_mut(at)
    {
        word.token = Token::make_word("top", Some('"'));
    }
}

/// `TRIM([BOTH|LEADING|TRAILING] FROM x)` takes blanks.
fn trim(tokens: &mut Vec<TokenWithSpan>, at: usize) {
    if !is_word(tokens.get(at), &["TRIM"]) || !is(tokens.get(behind(tokens, at, 0)), &Token::LParen) {
        return;
    }
    let first = behind(tokens, at, 1);
    let from =
        if is_word(tokens.get(first), &["BOTH", "LEADING", "TRAILING"]) { behind(tokens, first, 0) } else { first };
    if !is_word(tokens.get(from), &["FROM"]) {
        return;
    }
    let Some(span) = tokens.get(from).map(|token| token.span) else { return };
    let mut words = vec![Token::SingleQuotedString(" ".into())];
    if from == first {
        words.insert(0, Token::make_keyword("BOTH"));
    }
    tokens.splice(from..from, words.into_iter().map(|token| TokenWithSpan::new(token, span)));
}

fn using(tokens: &mut [TokenWithSpan], at: usize) {
    if !is_word(tokens.get(at), &["USING"]) {
        return;
    }
    let operator = behind(tokens, at, 0);
    let order = match tokens.get(operator).map(|t| &t.token) {
        Some(Token::Lt) => "ASC",
        Some(Token::Gt) => "DESC",
        _ => return,
    };
    for (place, token) in [(at, Token::make_keyword(order)), (operator, Token::Whitespace(Whitespace::Space))] {
        if let Some(slot) = tokens.get_mut(place) {
            slot.token = token;
        }
    }
}

fn offset(tokens: &mut Vec<TokenWithSpan>, at: usize) {
    if !matches!(tokens.get(at).map(|t| &t.token), Some(Token::SingleQuotedString(_))) {
        return;
    }
    let colons = behind(tokens, at, 0);
    if !is(tokens.get(colons), &Token::DoubleColon) {
        return;
    }
    let [interval, word] = [0, 1].map(|n| behind(tokens, colons, n));
    if is_word(tokens.get(interval), &["INTERVAL"]) && is_word(tokens.get(word), &["PRECEDING", "FOLLOWING"]) {
        tokens.drain(colons..word);
    }
}

/// `j->-1` is `j -> -1`: an operator ends in a sign only if it has characters that no other operator has.
fn sign(tokens: &mut Vec<TokenWithSpan>, at: usize) {
    let Some(TokenWithSpan { token: Token::CustomBinaryOperator(text), span }) = tokens.get(at) else { return };
    let operator = text.trim_end_matches(['+', '-']);
    let token = match operator {
        "->" => Token::Arrow,
        "->>" => Token::LongArrow,
        "=" => Token::Eq,
        "<" => Token::Lt,
        ">" => Token::Gt,
        "<=" => Token::LtEq,
        ">=" => Token::GtEq,
        "<>" => Token::Neq,
        "*" => Token::Mul,
        "/" => Token::Div,
        _ => return,
    };
    let signs = text.chars().skip(operator.len()).map(|sign| if sign == '+' { Token::Plus } else { Token::Minus });
    let parts = std::iter::once(token).chain(signs);
    let parts: Vec<_> = parts.map(|token| TokenWithSpan::new(token, *span)).collect();
    tokens.splice(at..=at, parts);
}

#[cfg(test)]
mod tests {
    fn parsed(text: &str) -> String {
        let mut statements = crate::parse(text).unwrap();
        let crate::Statement::Query(query) = statements.remove(0).statement else { panic!("a query") };
        query.to_string()
    }

    #[test]
    fn spellings_mean_the_same() {
        assert_eq!(
            parsed("SELECT trim(trailing from a), trim(from b)"),
            "SELECT TRIM(TRAILING ' ' FROM a), TRIM(BOTH ' ' FROM b)"
        );
        assert_eq!(parsed("SELECT a FROM t ORDER BY a USING >, b USING <"), "SELECT a FROM t ORDER BY a DESC, b ASC");
        assert_eq!(
            parsed("TABLE t UNION ALL (table s.u) ORDER BY a"),
            "SELECT * FROM t UNION ALL (SELECT * FROM s.u) ORDER BY a"
        );
        assert_eq!(parsed("WITH q AS (TABLE ONLY t) TABLE q"), "WITH q AS (SELECT * FROM t) SELECT * FROM q");
        assert!(crate::parse("INSERT INTO t TABLE u").is_ok());
        assert_eq!(parsed("SELECT 1 AS table FROM t"), "SELECT 1 AS table FROM t");
        assert_eq!(parsed("SELECT j->-1, j->>-2"), "SELECT j -> -1, j ->> -2");
        let window = "SELECT sum(a) OVER (ORDER BY b RANGE BETWEEN '1 day'::interval PRECEDING AND CURRENT ROW) FROM t";
        assert!(parsed(window).contains("INTERVAL '1 day' PRECEDING"), "{}", parsed(window));
    }
}
