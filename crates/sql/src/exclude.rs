//! `EXCLUDE ..` at the end of a window's frame, which sqlparser does not know.
//!
//! The words are taken out, and what they say is put where sqlparser takes any expression: into PARTITION BY, as a name
//! that no column has ([`EXCLUDE`] and the words). The planner takes it out again.

use sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};

use crate::parser::is_blank;

/// Begins the name that stands for EXCLUDE in a PARTITION BY.
pub const EXCLUDE: &str = "\u{1}exclude ";

/// Rewrites every `(.. EXCLUDE CURRENT ROW | GROUP | TIES | NO OTHERS)`.
pub(crate) fn rewrite(tokens: &mut Vec<TokenWithSpan>) {
    let mut from = 0;
    while let Some(found) = tokens.iter().skip(from).position(|t| is_word(t, "EXCLUDE")).map(|idx| idx + from) {
        from = found + 1;
        let Some((what, end)) = excluded(tokens, found) else { continue };
        let Some(start) = start_of_window(tokens, found) else { continue };
        let span = tokens.get(found).map_or(Span::empty(), |t| t.span);
        tokens.drain(found..end);
        insert(tokens, start, what, span);
    }
}

fn is_word(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(Word { value, quote_style: None, .. }) if value.eq_ignore_ascii_case(word))
}

/// The next token that is no blank, from `at` on.
fn next(tokens: &[TokenWithSpan], at: usize) -> Option<usize> {
    tokens.iter().skip(at).position(|t| !is_blank(t)).map(|idx| idx + at)
}

/// What is excluded, and where the words end; a parenthesis must close behind them.
fn excluded(tokens: &[TokenWithSpan], at: usize) -> Option<(&'static str, usize)> {
    const FORMS: [(&str, &[&str]); 4] = [
        ("current row", &["CURRENT", "ROW"]),
        ("group", &["GROUP"]),
        ("ties", &["TIES"]),
        ("no others", &["NO", "OTHERS"]),
    ];
    FORMS.into_iter().find_map(|(what, words)| {
        let mut end = at + 1;
        for word in words {
            let idx = next(tokens, end)?;
            is_word(tokens.get(idx)?, word).then_some(())?;
            end = idx + 1;
        }
        let close = next(tokens, end)?;
        (tokens.get(close)?.token == Token::RParen).then_some((what, end))
    })
}

/// Behind the parenthesis that opens the window, if there is a frame between it and `end`.
fn start_of_window(tokens: &[TokenWithSpan], end: usize) -> Option<usize> {
    let mut depth = 0;
    let mut has_frame = false;
    for (idx, token) in tokens.iter().enumerate().take(end).rev() {
        match &token.token {
            Token::RParen => depth += 1,
            Token::LParen if depth == 0 => return has_frame.then_some(idx + 1),
            Token::LParen => depth -= 1,
            _ if depth == 0 => has_frame |= is_frame(token),
            _ => {}
        }
    }
    None
}

fn is_frame(token: &TokenWithSpan) -> bool {
    ["ROWS", "RANGE", "GROUPS"].iter().any(|word| is_word(token, word))
}

fn insert(tokens: &mut Vec<TokenWithSpan>, start: usize, what: &str, span: Span) {
    let Some(mut at) = next(tokens, start) else { return };
    let begins = |at: usize, words: &[&str]| tokens.get(at).is_some_and(|t| words.iter().any(|w| is_word(t, w)));
    // The name of the window that this one is made from.
    if !begins(at, &["PARTITION", "ORDER", "ROWS", "RANGE", "GROUPS"]) {
        at += 1;
    }
    let token = |token: Token| TokenWithSpan::new(token, span);
    let name = token(Token::make_word(&format!("{EXCLUDE}{what}"), Some('"')));
    let by = next(tokens, at).filter(|at| begins(*at, &["PARTITION"])).and_then(|at| next(tokens, at + 1));
    match by {
        Some(by) => {
            tokens.splice(by + 1..by + 1, [name, token(Token::Comma)]);
        }
        None => {
            let words = ["PARTITION", "BY"].map(|word| token(Token::make_keyword(word)));
            tokens.splice(at..at, words.into_iter().chain([name]));
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlparser::tokenizer::Tokenizer;

    use super::*;
    use crate::TidewireDialect;

    fn rewritten(text: &str) -> String {
        let mut tokens = vec![];
        Tokenizer::new(&TidewireDialect, text).tokenize_with_location_into_buf(&mut tokens).unwrap();
        rewrite(&mut tokens);
        let shown = tokens.iter().filter(|t| !is_blank(t)).map(|t| t.token.to_string());
        shown.collect::<Vec<_>>().join(" ").replace('\u{1}', "!")
    }

    #[test]
    fn the_words_move_to_partition_by() {
        let of = |window: &str| rewritten(&format!("sum(x) OVER ({window})")).replace("sum ( x ) OVER ", "");
        assert_eq!(of("ROWS 1 PRECEDING EXCLUDE TIES"), "( PARTITION BY \"!exclude ties\" ROWS 1 PRECEDING )");
        assert_eq!(
            of("w ORDER BY f(rows) RANGE CURRENT ROW exclude current row"),
            "( w PARTITION BY \"!exclude current row\" ORDER BY f ( rows ) RANGE CURRENT ROW )"
        );
        assert_eq!(
            of("PARTITION BY a, b GROUPS UNBOUNDED PRECEDING EXCLUDE NO OTHERS"),
            "( PARTITION BY \"!exclude no others\" , a , b GROUPS UNBOUNDED PRECEDING )"
        );
    }

    #[test]
    fn other_words_stay() {
        for text in
            ["(SELECT exclude group)", "exclude ties )", "OVER (ROWS 1 PRECEDING EXCLUDE GROUP", "(rows EXCLUDE x)"]
        {
            assert!(!rewritten(text).contains('!'), "{text}");
        }
    }
}
