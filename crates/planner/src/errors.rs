//! What a planning error means to a user: SQLSTATE, PostgreSQL's words, and the place in the text.

mod place;

use std::str::FromStr;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::{Column, DataFusionError, SchemaError};
use sqlparser::ast::{Expr, Spanned};
use tidewire_operators::expr::sql_error;
use tidewire_types::{SqlError, SqlState, SqlType, closest};

use crate::column_names::visible;
use crate::rewrite::outer_tables::OUTER;

/// Translates an error of DataFusion's planner about the statement `text`.
pub(crate) fn planning_error(error: DataFusionError, text: &str) -> SqlError {
    let span = error.diagnostic().and_then(|d| d.span).map(|s| (s.start.line as usize, s.start.column as usize));
    let (error, word) = translate(error);
    if error.position().is_some() {
        return error;
    }
    let position = match word {
        Some(word) => position_of(text, &word, span),
        None => place::place_of(text, error.message()),
    };
    error.with_position(position)
}

/// An error of ours about the statement `text`, with its place.
pub(crate) fn placed(error: SqlError, text: &str) -> SqlError {
    planning_error(DataFusionError::External(Box::new(error)), text)
}

/// The error, and the word in the text that it is about.
fn translate(error: DataFusionError) -> (SqlError, Option<String>) {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => translate(*inner),
        DataFusionError::Collection(errors) => match errors.into_iter().next() {
            Some(first) => translate(first),
            None => (SqlError::internal("an empty list of errors"), None),
        },
        DataFusionError::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
            Ok(error) => translate(error),
            Err(shared) => (sql_error(DataFusionError::Shared(shared)), None),
        },
        DataFusionError::External(inner) => match inner.downcast::<SqlError>() {
            Ok(error) => {
                let word = quoted_word(error.message());
                (*error, word)
            }
            Err(inner) => (sql_error(DataFusionError::External(inner)), None),
        },
        DataFusionError::ArrowError(inner, trace) => match *inner {
            ArrowError::ExternalError(inner) => match inner.downcast::<DataFusionError>() {
                Ok(error) => translate(*error),
                Err(inner) => translate(DataFusionError::External(inner)),
            },
            other => (sql_error(DataFusionError::ArrowError(Box::new(other), trace)), None),
        },
        DataFusionError::SchemaError(schema_error, _) => of_schema(*schema_error),
        DataFusionError::Plan(message) => of_plan(&first_part(&message)),
        DataFusionError::NotImplemented(message) => (unsupported(&first_part(&message)), None),
        other => (sql_error(other), None),
    }
}

/// DataFusion appends backtraces behind a blank line.
fn first_part(message: &str) -> String {
    message.split("\n\nbacktrace").next().unwrap_or(message).to_owned()
}

fn unsupported(message: &str) -> SqlError {
    if let Some((from, to)) = message.strip_prefix("Unsupported CAST from ").and_then(|cast| cast.split_once(" to ")) {
        let to = to.lines().next().unwrap_or(to);
        let message = format!("cannot cast type {} to {}", type_name(from), type_name(to));
        return SqlError::new(SqlState::CannotCoerce, message);
    }
    let what = message.lines().next().unwrap_or(message);
    let short = what.chars().count() <= 120;
    SqlError::new(
        SqlState::FeatureNotSupported,
        if short { lower_first(what) } else { "this expression is not supported".into() },
    )
}

fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    match (chars.next(), chars.clone().next()) {
        // An acronym or a keyword keeps its capitals.
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(chars).collect(),
        _ => message.to_owned(),
    }
    .trim_end_matches('.')
    .to_owned()
}

/// What the message of an error of ours is about: the word in double quotes, or the function's name.
fn quoted_word(message: &str) -> Option<String> {
    if let Some(rest) = message.strip_prefix("function ") {
        return rest.split('(').next().map(str::to_owned);
    }
    // A bad value in quotes is no name.
    if message.contains("invalid input") {
        return None;
    }
    let name = message.split('"').nth(1)?;
    name.rsplit('.').next().map(str::to_owned)
}

fn of_schema(error: SchemaError) -> (SqlError, Option<String>) {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let word = visible(&field.name).to_owned();
            (no_column(&field, &valid_fields), Some(word))
        }
        SchemaError::AmbiguousReference { field } => {
            let name = visible(&field.name).to_owned();
            let message = format!("column reference \"{name}\" is ambiguous");
            (SqlError::new(SqlState::AmbiguousColumn, message), Some(name))
        }
        SchemaError::DuplicateQualifiedField { qualifier, .. } => {
            let table = qualifier.table().to_owned();
            let message = format!("table name \"{table}\" specified more than once");
            (SqlError::new(SqlState::DuplicateAlias, message), None)
        }
        SchemaError::DuplicateUnqualifiedField { name } => {
            let message = format!("column \"{}\" specified more than once", visible(&name));
            (SqlError::new(SqlState::DuplicateColumn, message), None)
        }
    }
}

fn no_column(field: &Column, valid: &[Column]) -> SqlError {
    let name = visible(&field.name);
    if name.contains("(outer_ref(") {
        return SqlError::unsupported("an aggregate over columns of the outer query");
    }
    let Some(relation) = &field.relation else {
        let error = SqlError::new(SqlState::UndefinedColumn, format!("column \"{name}\" does not exist"));
        return with_closest(error, name, valid.iter());
    };
    let table = relation.table();
    let of_table = |c: &&Column| c.relation.as_ref().is_some_and(|r| r.table() == table);
    let is_outside = relation.schema() == Some(OUTER);
    if !is_outside && !valid.is_empty() && !valid.iter().any(|c| of_table(&c)) {
        let message = format!("missing FROM-clause entry for table \"{table}\"");
        return SqlError::new(SqlState::UndefinedTable, message);
    }
    let error = SqlError::new(SqlState::UndefinedColumn, format!("column {table}.{name} does not exist"));
    with_closest(error, name, valid.iter().filter(of_table))
}

fn with_closest<'a>(error: SqlError, name: &str, valid: impl Iterator<Item = &'a Column>) -> SqlError {
    match closest(name, valid.map(|c| c.name.as_str())) {
        Some(near) => error.with_hint(format!("Perhaps you meant the column \"{}\".", visible(near))),
        None => error,
    }
}

/// DataFusion's planner tells errors apart by their words only.
fn of_plan(message: &str) -> (SqlError, Option<String>) {
    let contains = |part: &str| message.contains(part);
    let simple = |state, text: &str| (SqlError::new(state, text), None);
    if let Some(call) = between(message, "argument types '", "'. You might") {
        return no_function(call);
    }
    if let Some(name) = between(message, "Invalid function '", "'") {
        let error = SqlError::new(SqlState::UndefinedFunction, format!("function {name}() does not exist"));
        return (error, Some(name.to_owned()));
    }
    for start in ["comparison operation ", "logical boolean operation ", "regex operation ", "for operation "] {
        if let Some((_, operation)) = message.split_once(start) {
            return (no_operator(operation), None);
        }
    }
    if let Some(operation) = between(message, "annot get result type for temporal operation ", ": ") {
        return (no_operator(operation), None);
    }
    if let Some(operation) = between(message, "Cannot coerce arithmetic expression ", " to valid types") {
        return (no_operator(operation), None);
    }
    if contains("must be in GROUP BY") || contains("must appear in the GROUP BY") || contains("must be in the GROUP BY")
    {
        return not_grouped(message);
    }
    if contains("to grouping function is not in grouping columns") {
        let message = "arguments to GROUPING must be grouping expressions of the associated query level";
        return simple(SqlState::GroupingError, message);
    }
    if contains("ggregate function calls cannot contain window function calls") {
        return simple(SqlState::GroupingError, "aggregate function calls cannot contain window function calls");
    }
    if contains("ggregate functions are not allowed in") {
        return simple(SqlState::GroupingError, "aggregate functions are not allowed in WHERE");
    }
    if let Some(name) = between(message, "WITH query name \"", "\" specified more than once") {
        let message = format!("WITH query name \"{name}\" specified more than once");
        return (SqlError::new(SqlState::DuplicateAlias, message), Some(name.to_owned()));
    }
    for (clause, state) in
        [("LIMIT", SqlState::InvalidRowCountInLimitClause), ("OFFSET", SqlState::InvalidRowCountInResultOffsetClause)]
    {
        if message.starts_with(&format!("{clause} must be >=")) {
            return (SqlError::new(state, format!("{clause} must not be negative")), None);
        }
        if message.starts_with(&format!("Expected {clause} to be an integer")) {
            let message = format!("argument of {clause} must be type bigint");
            return (SqlError::new(SqlState::DatatypeMismatch, message), Some(clause.to_owned()));
        }
    }
    if contains("different number of columns") || contains("same number of columns") {
        return simple(SqlState::SyntaxError, "each UNION query must have the same number of columns");
    }
    if contains("across values list")
        && let Some((was, found)) = message.split_once(". Was ").and_then(|(_, types)| types.split_once(" but found "))
    {
        let message = format!("VALUES types {} and {} cannot be matched", type_name(was), type_name(found));
        return (SqlError::new(SqlState::DatatypeMismatch, message), None);
    }
    if contains("Inconsistent data length across values list") {
        return simple(SqlState::SyntaxError, "VALUES lists must all be the same length");
    }
    if contains("subquery should only return one column") || contains("should only return one column") {
        return simple(SqlState::SyntaxError, "subquery must return only one column");
    }
    if contains("Projections require unique expression names") {
        return simple(SqlState::DuplicateColumn, "the same column appears twice in a SELECT list");
    }
    if contains("Cannot automatically convert") || contains("Incompatible inputs") || contains("coercion from") {
        return (SqlError::new(SqlState::DatatypeMismatch, lower_first(message)), None);
    }
    if contains("filter predicate must return BOOLEAN") || contains("non-boolean predicate") {
        return simple(SqlState::DatatypeMismatch, "argument of WHERE must be type boolean");
    }
    if contains("columns but only") && contains("names given") {
        return (SqlError::new(SqlState::InvalidColumnReference, lower_first(message)), None);
    }
    if contains("ot supported") || contains("nsupported") || contains("non-executable") || contains("not implemented") {
        return (unsupported(message), None);
    }
    if let Some(position) = between(message, "order by column out of bounds, specified: ", ",")
        .or_else(|| between(message, "Order by column out of bounds, specified: ", ","))
    {
        let message = format!("ORDER BY position {position} is not in select list");
        return (SqlError::new(SqlState::InvalidColumnReference, message), None);
    }
    if contains("column position") || contains("ORDER BY") {
        return (SqlError::new(SqlState::InvalidColumnReference, lower_first(message)), None);
    }
    (SqlError::new(SqlState::SyntaxError, lower_first(message)), None)
}

/// `abs(Utf8)`
fn no_function(call: &str) -> (SqlError, Option<String>) {
    let (name, types) = call.split_once('(').unwrap_or((call, ""));
    let types = types.strip_suffix(')').unwrap_or(types);
    let types: Vec<_> = types.split(", ").filter(|t| !t.is_empty()).map(type_name).collect();
    if let ("coalesce" | "greatest" | "least", [first, others @ ..]) = (name, types.as_slice())
        && let Some(other) = others.iter().find(|other| *other != first)
    {
        let message = format!("{} types {first} and {other} cannot be matched", name.to_uppercase());
        return (SqlError::new(SqlState::DatatypeMismatch, message), None);
    }
    let error =
        SqlError::new(SqlState::UndefinedFunction, format!("function {name}({}) does not exist", types.join(", ")))
            .with_hint(
                "No function matches the given name and argument types. You might need to add explicit type casts.",
            );
    (error, Some(name.to_owned()))
}

/// `Utf8 + Boolean`
fn no_operator(operation: &str) -> SqlError {
    let parts: Vec<_> = operation.split(' ').collect();
    let shown = match parts.as_slice() {
        [left, op, right] => format!("{} {op} {}", type_name(left), type_name(right)),
        _ => operation.to_owned(),
    };
    SqlError::new(SqlState::UndefinedFunction, format!("operator does not exist: {shown}"))
        .with_hint("No operator matches the given name and argument types. You might need to add explicit type casts.")
}

fn type_name(arrow: &str) -> String {
    match DataType::from_str(arrow.trim_end_matches('.')) {
        Ok(data_type) => SqlType::of_data_type(&data_type).to_string(),
        Err(_) => arrow.to_lowercase(),
    }
}

fn not_grouped(message: &str) -> (SqlError, Option<String>) {
    let column = between(message, "column \"", "\"");
    let Some(column) = column else {
        let message = "a column must appear in the GROUP BY clause or be used in an aggregate function";
        return (SqlError::new(SqlState::GroupingError, message), None);
    };
    let message = format!("column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function");
    (SqlError::new(SqlState::GroupingError, message), column.rsplit('.').next().map(str::to_owned))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.split_once(start)?.1.split_once(end).map(|(found, _)| found)
}

/// Where `word` stands in `text` as an identifier: at (line, column) if it is there, else its first occurrence
/// outside of strings and comments. Characters from 1.
pub(crate) fn position_of(text: &str, word: &str, span: Option<(usize, usize)>) -> Option<usize> {
    let chars: Vec<char> = text.chars().collect();
    let word: Vec<char> = word.chars().collect();
    if let Some((line, column)) = span
        && let Some(start) = offset_of(&chars, line, column)
        && let Some(found) = (start..chars.len().min(start + 200)).find(|at| is_word(&chars, *at, &word))
    {
        return Some(found + 1);
    }
    let mut at = 0;
    while at < chars.len() {
        match chars.get(at) {
            Some('\'') => at += skip_until(&chars, at + 1, '\''),
            Some('-') if chars.get(at + 1) == Some(&'-') => at += skip_until(&chars, at + 1, '\n'),
            _ if is_word(&chars, at, &word) => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where an expression begins. Characters from 1.
pub(crate) fn position_of_expr(text: &str, expr: &Expr) -> Option<usize> {
    let start = expr.span().start;
    let (line, column) = (usize::try_from(start.line).ok()?, usize::try_from(start.column).ok()?);
    let chars: Vec<char> = text.chars().collect();
    offset_of(&chars, line, column).filter(|at| *at < chars.len()).map(|at| at + 1)
}

fn skip_until(chars: &[char], from: usize, end: char) -> usize {
    chars.iter().skip(from).position(|c| *c == end).map_or(chars.len(), |n| n + 1)
}

fn offset_of(chars: &[char], line: usize, column: usize) -> Option<usize> {
    let mut start = 0;
    for _ in 1..line {
        start += chars.iter().skip(start).position(|c| *c == '\n')? + 1;
    }
    Some(start + column.checked_sub(1)?)
}

fn is_word(chars: &[char], at: usize, word: &[char]) -> bool {
    let is_part = |c: Option<&char>| c.is_some_and(|c| c.is_alphanumeric() || *c == '_');
    let Some(found) = chars.get(at..at + word.len()).filter(|found| !found.is_empty()) else { return false };
    let before = at.checked_sub(1).and_then(|before| chars.get(before));
    let same = |(a, b): (&char, &char)| a == b || a.to_lowercase().eq(b.to_lowercase());
    found.iter().zip(word).all(same) && !is_part(chars.get(at + word.len())) && !is_part(before)
}
