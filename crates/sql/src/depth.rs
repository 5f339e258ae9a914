//! How deep a statement's tree can be at most, estimated from its tokens before anything recurses over it.
//!
//! Invariant: a statement that passes makes a tree that a clone or a drop walks within a 2 MiB stack, in a build
//! without optimization too. The estimate counts operators that stand in a row (each makes the tree one deeper), and
//! adds up what is inside brackets.

use sqlparser::tokenizer::{Token, TokenWithSpan, Word};
use tidewire_types::Result;

use crate::dialect::BALANCE_MIN;
use crate::errors;

/// Brackets inside each other.
const BRACKETS_MAX: usize = 100;
/// Levels of the tree.
const DEPTH_MAX: usize = 400;
/// What a query within brackets weighs.
const QUERY_WEIGHT: usize = 10;
/// What a join within brackets weighs.
const JOIN_WEIGHT: usize = 20;
/// What `INTERVAL INTERVAL` weighs.
const INTERVAL_WEIGHT: usize = 50;
/// What one UNION weighs: a query is a larger thing than an expression.
const SET_OPERATOR_WEIGHT: usize = 4;

/// What stands between two brackets, from the last separator on.
#[derive(Clone, Copy, Default)]
struct Level {
    operators: usize,
    /// The deepest bracket since the last separator.
    inner: usize,
    /// The deepest of what stood between separators.
    deepest: usize,
    connectives: usize,
    /// A query or a join stands here, itself a tree of some depth.
    weight: usize,
    set_operators: usize,
    /// BETWEENs whose AND is still to come.
    betweens: usize,
}

impl Level {
    fn separate(&mut self) {
        self.deepest = self.deepest.max(self.operators + self.inner);
        (self.operators, self.inner) = (0, 0);
    }

    fn depth(mut self) -> usize {
        self.separate();
        // Longer rows of AND and OR become balanced trees.
        let set_operators = SET_OPERATOR_WEIGHT * self.set_operators;
        self.deepest + self.connectives.min(BALANCE_MIN) + set_operators + self.weight.max(1)
    }
}

/// Refuses (`54001`) what would nest too deep.
pub(crate) fn check(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut outer: Vec<Level> = vec![];
    // Brackets of types (`STRUCT<..>`) that are open: elsewhere `>` is an operator.
    let mut angles = 0_usize;
    let mut level = Level::default();
    let mut previous = &Token::EOF;
    for TokenWithSpan { token, .. } in tokens {
        let kind = match token {
            Token::Gt | Token::ShiftRight if angles > 0 => {
                let n = angles.min(if *token == Token::Gt { 1 } else { 2 });
                angles -= n;
                Kind::Close(n)
            }
            Token::Lt if word(previous, &["struct", "array", "map"]) => {
                angles += 1;
                Kind::Open
            }
            token => kind(token),
        };
        match kind {
            Kind::Blank => continue,
            Kind::Open => {
                // `int[][]` is an array of arrays: brackets in a row make the tree deeper too.
                level.operators += usize::from(*token == Token::LBracket);
                outer.push(std::mem::take(&mut level));
                if outer.len() > BRACKETS_MAX {
                    return Err(errors::too_deep());
                }
            }
            Kind::Close(n) => {
                for _ in 0..n {
                    let Some(around) = outer.pop() else { break };
                    let depth = level.depth();
                    level = around;
                    level.inner = level.inner.max(depth);
                }
            }
            // sqlparser recurses here without its own guard.
            Kind::Operator if word(token, &["interval"]) && word(previous, &["interval"]) => {
                level.operators += INTERVAL_WEIGHT;
            }
            Kind::Operator => level.operators += 1,
            Kind::Between => {
                level.operators += 1;
                level.betweens += 1;
            }
            Kind::And if level.betweens > 0 => level.betweens -= 1,
            Kind::And | Kind::Or => {
                level.connectives += 1;
                level.separate();
            }
            Kind::SetOperator => {
                level.set_operators += 1;
                level.separate();
            }
            Kind::Heavy(weight) => {
                level.weight = level.weight.max(weight);
                level.separate();
            }
            Kind::Separator => level.separate(),
            Kind::Operand => {}
        }
        previous = token;
        if level.operators + level.inner > DEPTH_MAX || level.depth() > DEPTH_MAX {
            return Err(errors::too_deep());
        }
    }
    // What is never closed is a syntax error, but sqlparser walks it all the same.
    let depth = outer.into_iter().map(Level::depth).sum::<usize>() + level.depth();
    if depth > DEPTH_MAX { Err(errors::too_deep()) } else { Ok(()) }
}

enum Kind {
    Blank,
    Open,
    Close(usize),
    Operator,
    Between,
    And,
    Or,
    SetOperator,
    Heavy(usize),
    Separator,
    Operand,
}

fn kind(token: &Token) -> Kind {
    match token {
        Token::Whitespace(_) => Kind::Blank,
        Token::LParen | Token::LBrace | Token::LBracket => Kind::Open,
        Token::RParen | Token::RBracket | Token::RBrace => Kind::Close(1),
        Token::Comma | Token::SemiColon => Kind::Separator,
        Token::Word(Word { quote_style: None, .. }) => kind_of_word(token),
        Token::Word(_)
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::DollarQuotedString(_)
        | Token::Placeholder(_)
        | Token::Period => Kind::Operand,
        _ => Kind::Operator,
    }
}

fn kind_of_word(token: &Token) -> Kind {
    const OPERATORS: &[&str] = &[
        "not", "is", "in", "like", "ilike", "similar", "at", "collate", "isnull", "notnull", "operator", "interval",
        "prior", "overlaps", "any", "all", "some", "rlike", "regexp",
    ];
    const SEPARATORS: &[&str] = &[
        "select",
        "from",
        "where",
        "group",
        "order",
        "having",
        "limit",
        "on",
        "set",
        "values",
        "when",
        "then",
        "else",
        "by",
        "as",
        "returning",
    ];
    match () {
        () if word(token, &["case"]) => Kind::Open,
        () if word(token, &["end"]) => Kind::Close(1),
        () if word(token, &["and"]) => Kind::And,
        () if word(token, &["select"]) => Kind::Heavy(QUERY_WEIGHT),
        () if word(token, &["join"]) => Kind::Heavy(JOIN_WEIGHT),
        () if word(token, &["or"]) => Kind::Or,
        () if word(token, &["between"]) => Kind::Between,
        () if word(token, &["union", "except", "intersect"]) => Kind::SetOperator,
        () if word(token, OPERATORS) => Kind::Operator,
        () if word(token, SEPARATORS) => Kind::Separator,
        () => Kind::Operand,
    }
}

fn word(token: &Token, words: &[&str]) -> bool {
    matches!(token, Token::Word(Word { value, quote_style: None, .. })
        if words.iter().any(|word| value.eq_ignore_ascii_case(word)))
}
