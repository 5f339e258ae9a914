//! The dialect: PostgreSQL's rules, and a few harmless things more (struct and map literals, `SELECT * EXCLUDE`).
//!
//! Invariant: an expression tree is never deeper than the parser's recursion limit times [`CHAIN_MAX`], so that
//! nothing that walks it (a drop, a clone) can overflow the stack.

use std::any::TypeId;

use sqlparser::ast::{BinaryOperator, Expr, Query, UnaryOperator};
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, Word};

/// Operators one after another (`a + b + c ..`) that are allowed; AND and OR have no limit.
const CHAIN_MAX: usize = 300;
/// Terms of an AND or OR from which a balanced tree is built.
pub(crate) const BALANCE_MIN: usize = 64;

const POSTGRES: PostgreSqlDialect = PostgreSqlDialect {};

/// Tidewire's dialect of SQL.
#[derive(Debug)]
pub struct TidewireDialect;

macro_rules! yes {
    ($($name:ident)*) => { $(fn $name(&self) -> bool { true })* };
}

impl Dialect for TidewireDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    yes! {
        supports_unicode_string_literal supports_filter_during_aggregation supports_group_by_expr
        allow_extract_custom allow_extract_single_quotes supports_bitwise_shift_operators supports_empty_projections
        supports_nested_comments supports_string_escape_constant supports_numeric_literal_underscores
        supports_array_typedef_with_brackets supports_notnull_operator supports_interval_options
        supports_insert_table_alias supports_comma_separated_trim supports_string_literal_concatenation_with_newline
        supports_struct_literal supports_dictionary_syntax supports_select_wildcard_exclude
        supports_select_wildcard_except supports_select_wildcard_replace
        supports_geometric_types supports_window_clause_named_window_reference supports_named_fn_args_with_assignment_operator
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        POSTGRES.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        POSTGRES.is_identifier_part(ch)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        POSTGRES.is_reserved_for_identifier(keyword)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        POSTGRES.is_custom_operator_part(ch)
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        POSTGRES.get_next_precedence(parser)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        POSTGRES.prec_value(precedence)
    }

    fn is_select_item_alias(&self, explicit: bool, keyword: &Keyword, parser: &mut Parser) -> bool {
        explicit || !begins_emit(parser) && self.is_column_alias(keyword, parser)
    }

    fn is_table_factor_alias(&self, explicit: bool, keyword: &Keyword, parser: &mut Parser) -> bool {
        explicit || !begins_emit(parser) && self.is_table_alias(keyword, parser)
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        subquery(parser)
    }

    fn parse_infix(&self, parser: &mut Parser, left: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
        let depth = chain(left, CHAIN_MAX);
        if depth >= BALANCE_MIN
            && let Some(op) = connective(parser)
        {
            return Some(balance(parser, left, &op, precedence));
        }
        if depth >= CHAIN_MAX {
            return Some(Err(ParserError::RecursionLimitExceeded));
        }
        between_symmetric(parser, left)
            .or_else(|| is_distinct_from(parser, left, precedence))
            .or_else(|| in_list(parser, left))
    }
}

/// Whether the word just read is the EMIT of `EMIT CHANGES` and not an alias.
fn begins_emit(parser: &Parser<'_>) -> bool {
    let emit = |token: &Token, names: &[&str]| matches!(token, Token::Word(Word { value, quote_style: None, .. }) if names.iter().any(|n| value.eq_ignore_ascii_case(n)));
    emit(&parser.get_current_token().token, &["emit"])
        && emit(&parser.peek_token_ref().token, &["changes", "final", "on"])
}

/// Queries that sqlparser takes for something else: `(VALUES ..)` and, behind ANY and ALL, `VALUES ..` for the call of
/// a function, `((SELECT ..) UNION ..)` for an expression in brackets.
fn subquery(parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
    let in_brackets = parser.peek_token_ref().token == Token::LParen;
    let is_values = |idx: usize| {
        is_keyword(&parser.peek_nth_token_ref(idx).token, &[Keyword::VALUES])
            && parser.peek_nth_token_ref(idx + 1).token == Token::LParen
    };
    let is_query = is_values(usize::from(in_brackets)) || (in_brackets && is_set_operation(parser));
    is_query.then(|| query(parser, in_brackets).map(Expr::Subquery))
}

fn query(parser: &mut Parser<'_>, in_brackets: bool) -> Result<Box<Query>, ParserError> {
    if !in_brackets {
        return parser.parse_query();
    }
    parser.expect_token(&Token::LParen)?;
    let query = parser.parse_query()?;
    parser.expect_token(&Token::RParen)?;
    Ok(query)
}

/// What comes behind a query in brackets that is part of a larger one.
const LARGER: &[Keyword] = &[
    Keyword::UNION,
    Keyword::EXCEPT,
    Keyword::INTERSECT,
    Keyword::ORDER,
    Keyword::LIMIT,
    Keyword::OFFSET,
    Keyword::FETCH,
];

/// Whether a query in brackets of its own comes behind the next bracket, and behind that something of a larger query.
fn is_set_operation(parser: &Parser<'_>) -> bool {
    behind_query_in_brackets(parser, 1).is_some_and(|token| is_keyword(&token, LARGER))
}

/// Where a query in brackets of its own comes after so many tokens, what comes behind it.
/// Looks at each token once: to try and go back would double the work with each level of brackets.
fn behind_query_in_brackets(parser: &Parser<'_>, n_tokens: usize) -> Option<Token> {
    let tokens = (0..).map(|idx| parser.peek_nth_token_no_skip(idx).token);
    let mut tokens = tokens.filter(|token| !matches!(token, Token::Whitespace(_))).skip(n_tokens);
    let mut depth = 0usize;
    let first = loop {
        match tokens.next() {
            Some(Token::LParen) => depth += 1,
            other => break other,
        }
    };
    if depth == 0 || !first.is_some_and(|t| is_keyword(&t, &[Keyword::SELECT, Keyword::WITH, Keyword::VALUES])) {
        return None;
    }
    while depth > 0 {
        match tokens.next() {
            Some(Token::LParen) => depth += 1,
            Some(Token::RParen) => depth -= 1,
            Some(Token::EOF) | None => return None,
            Some(_) => {}
        }
    }
    tokens.next()
}

/// `x [NOT] IN ((SELECT ..), b)`, `x IN ((SELECT ..)::int)`: a list that begins with a subquery, which sqlparser takes for
/// all there is.
fn in_list(parser: &mut Parser<'_>, left: &Expr) -> Option<Result<Expr, ParserError>> {
    let negated = is_keyword(&parser.peek_token_ref().token, &[Keyword::NOT]);
    let at = usize::from(negated);
    if !is_keyword(&parser.peek_nth_token_ref(at).token, &[Keyword::IN])
        || behind_query_in_brackets(parser, at + 2)
            .is_none_or(|token| token == Token::RParen || is_keyword(&token, LARGER))
    {
        return None;
    }
    (0..=at).for_each(|_| parser.advance_token());
    let list = parser.expect_token(&Token::LParen).and_then(|_| {
        let list = parser.parse_comma_separated(Parser::parse_expr)?;
        parser.expect_token(&Token::RParen)?;
        Ok(list)
    });
    Some(list.map(|list| Expr::InList { expr: Box::new(left.clone()), list, negated }))
}

fn is_keyword(token: &Token, keywords: &[Keyword]) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && keywords.contains(&word.keyword))
}

/// `a IS [NOT] DISTINCT FROM b`, whose right side ends before AND, unlike sqlparser's.
fn is_distinct_from(parser: &mut Parser, left: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
    let negated = parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]);
    if !negated && !parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
        return None;
    }
    let make = if negated { Expr::IsNotDistinctFrom } else { Expr::IsDistinctFrom };
    Some(parser.parse_subexpr(precedence).map(|right| make(Box::new(left.clone()), Box::new(right))))
}

/// `x [NOT] BETWEEN SYMMETRIC a AND b`: between them, whichever is the lower one; and ASYMMETRIC, which says nothing.
fn between_symmetric(parser: &mut Parser, left: &Expr) -> Option<Result<Expr, ParserError>> {
    let is_word = |parser: &Parser, idx: usize, word: &str| matches!(&parser.peek_nth_token_ref(idx).token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word));
    let negated = is_word(parser, 0, "not");
    let at = usize::from(negated);
    let symmetric = is_word(parser, at + 1, "symmetric");
    if !is_word(parser, at, "between") || !(symmetric || is_word(parser, at + 1, "asymmetric")) {
        return None;
    }
    (0..at + 2).for_each(|_| parser.advance_token());
    // sqlparser takes NOT and EXISTS for one word, but NOT is of the whole.
    let (left, is_not) = match left.clone() {
        Expr::Exists { subquery, negated: true } => (Expr::Exists { subquery, negated: false }, true),
        other => (other, false),
    };
    let read = parser.parse_between(left, negated);
    let between = read.map(|between| match between {
        Expr::Between { expr, negated, low, high } if symmetric => {
            let between = |low: &Expr, high: &Expr| {
                let (low, high) = (Box::new(low.clone()), Box::new(high.clone()));
                Box::new(Expr::Between { expr: expr.clone(), negated, low, high })
            };
            let (left, right) = (between(&low, &high), between(&high, &low));
            let op = if negated { BinaryOperator::And } else { BinaryOperator::Or };
            Expr::Nested(Box::new(Expr::BinaryOp { left, op, right }))
        }
        other => other,
    });
    Some(between.map(|between| match is_not {
        true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(between) },
        false => between,
    }))
}

fn connective(parser: &Parser<'_>) -> Option<BinaryOperator> {
    match &parser.peek_token_ref().token {
        Token::Word(w) if w.keyword == Keyword::AND => Some(BinaryOperator::And),
        Token::Word(w) if w.keyword == Keyword::OR => Some(BinaryOperator::Or),
        _ => None,
    }
}

/// Reads the rest of a long `a AND b AND ..` and makes a balanced tree of all its terms.
fn balance(parser: &mut Parser, left: &Expr, op: &BinaryOperator, precedence: u8) -> Result<Expr, ParserError> {
    let mut terms = vec![];
    let mut rest = left.clone();
    loop {
        match rest {
            Expr::BinaryOp { left, op: inner, right } if inner == *op => {
                terms.push(*right);
                rest = *left;
            }
            _ => break terms.push(rest),
        }
    }
    terms.reverse();
    while connective(parser).as_ref() == Some(op) {
        parser.advance_token();
        terms.push(parser.parse_subexpr(precedence)?);
    }
    while terms.len() > 1 {
        let mut pairs = terms.into_iter();
        let mut next = Vec::with_capacity(pairs.len() / 2 + 1);
        while let Some(a) = pairs.next() {
            next.push(match pairs.next() {
                Some(b) => Expr::BinaryOp { left: Box::new(a), op: op.clone(), right: Box::new(b) },
                None => a,
            });
        }
        terms = next;
    }
    terms.pop().ok_or_else(|| ParserError::ParserError("nothing to combine".into()))
}

/// How many operators stand on the left edge of an expression, counted up to `max`.
fn chain(expr: &Expr, max: usize) -> usize {
    let mut depth = 0;
    let mut at = Some(expr);
    while let Some(expr) = at
        && depth < max
    {
        depth += 1;
        at = left_edge(expr);
    }
    depth
}

fn left_edge(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::BinaryOp { left, .. } | Expr::AnyOp { left, .. } | Expr::AllOp { left, .. } => Some(left),
        Expr::IsDistinctFrom(left, _) | Expr::IsNotDistinctFrom(left, _) => Some(left),
        Expr::IsNull(e)
        | Expr::IsNotNull(e)
        | Expr::IsTrue(e)
        | Expr::IsNotTrue(e)
        | Expr::IsFalse(e)
        | Expr::IsNotFalse(e)
        | Expr::IsUnknown(e)
        | Expr::IsNotUnknown(e) => Some(e),
        Expr::Cast { expr, .. }
        | Expr::Collate { expr, .. }
        | Expr::UnaryOp { expr, .. }
        | Expr::Between { expr, .. }
        | Expr::InList { expr, .. }
        | Expr::InSubquery { expr, .. }
        | Expr::InUnnest { expr, .. }
        | Expr::Like { expr, .. }
        | Expr::ILike { expr, .. }
        | Expr::SimilarTo { expr, .. }
        | Expr::RLike { expr, .. }
        | Expr::AtTimeZone { timestamp: expr, .. }
        | Expr::IsNormalized { expr, .. } => Some(expr),
        Expr::CompoundFieldAccess { root, .. } => Some(root),
        _ => None,
    }
}
