//! SQL/JSON paths over jsonb: `jsonb_path_exists`, `jsonb_path_match`, `jsonb_path_query` and its like, `@?`, `@@`.
//! Variables come as a third argument; with a true fourth one, or by an operator, what errors is NULL.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringViewArray};
use chrono::{Offset, Utc};
use datafusion::common::Result;
use datafusion::logical_expr::Expr;
use serde_json::Value;
use sql_json_path::{EvalError, JsonPath};
use sqlparser::ast::BinaryOperator as Op;
use tidewire_connect::jsonb_text;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::defined::{self, Call, Definition, Overload};
use super::json_operators::documents;

/// Operators and steps of a path: each may be one more level of the recursion that reads it and runs it.
const STEPS_MAX: usize = 200;
/// Brackets inside each other, and signs in a row: the library's parser takes five times as long for each more.
const NESTED_MAX: usize = 5;

/// The functions. What is said with `_tz` compares moments with times, which are UTC's.
pub(super) static ALL: &[Definition] = &[
    Definition {
        name: "jsonb_path_exists",
        resolve: |types| of_path(types, SqlType::Bool, |c, _| exists(c, false, false)),
    },
    Definition {
        name: "jsonb_path_exists_tz",
        resolve: |types| of_path(types, SqlType::Bool, |c, _| exists(c, true, false)),
    },
    Definition {
        name: "jsonb_path_match",
        resolve: |types| of_path(types, SqlType::Bool, |c, _| matches(c, false, false)),
    },
    Definition {
        name: "jsonb_path_match_tz",
        resolve: |types| of_path(types, SqlType::Bool, |c, _| matches(c, true, false)),
    },
    Definition {
        name: "jsonb_path_query_array",
        resolve: |types| of_path(types, SqlType::Jsonb, |c, _| all_of(c, false)),
    },
    Definition {
        name: "jsonb_path_query_array_tz",
        resolve: |types| of_path(types, SqlType::Jsonb, |c, _| all_of(c, true)),
    },
    Definition {
        name: "jsonb_path_query_first",
        resolve: |types| of_path(types, SqlType::Jsonb, |c, _| first_of(c, false)),
    },
    Definition {
        name: "jsonb_path_query_first_tz",
        resolve: |types| of_path(types, SqlType::Jsonb, |c, _| first_of(c, true)),
    },
];

static EXISTS: Definition = Definition { name: "@?", resolve: |types| operator(types, |c, _| exists(c, false, true)) };
static MATCHES: Definition =
    Definition { name: "@@", resolve: |types| operator(types, |c, _| matches(c, false, true)) };

/// The call that computes `left op right`, where that is a path's operator.
pub(super) fn plan(op: &Op, left: &Expr, right: &Expr, types: (&SqlType, &SqlType)) -> Option<Expr> {
    let definition = match op {
        Op::AtQuestion => &EXISTS,
        Op::AtAt => &MATCHES,
        _ => return None,
    };
    (*types.0 == SqlType::Jsonb).then(|| defined::call(definition, vec![left.clone(), right.clone()]))
}

/// The types of a path's arguments: a document, a path, perhaps variables, and perhaps whether it is silent.
pub(super) fn arguments(types: &[SqlType]) -> Option<Vec<SqlType>> {
    let wanted = [SqlType::Jsonb, SqlType::Text, SqlType::Jsonb, SqlType::Bool];
    let wanted = wanted.get(..types.len()).filter(|wanted| wanted.len() >= 2)?;
    Overload::exact(types, wanted, SqlType::Bool, |c, _| exists(c, false, false)).map(|overload| overload.args)
}

fn of_path(types: &[SqlType], result: SqlType, call: Call) -> Option<Overload> {
    arguments(types).map(|args| Overload { args, result, call })
}

fn operator(types: &[SqlType], call: Call) -> Option<Overload> {
    Overload::exact(types, &[SqlType::Jsonb, SqlType::Text], SqlType::Bool, call)
}

fn exists(columns: &[ArrayRef], tz: bool, all_silent: bool) -> Result<ArrayRef> {
    let any = |found| if let Found::Values(values) = found { Some(!values.is_empty()) } else { None };
    Ok(Arc::new(found(columns, tz, all_silent)?.into_iter().map(any).collect::<BooleanArray>()))
}

/// Errors: `22038` where the path's result is not one boolean.
fn matches(columns: &[ArrayRef], tz: bool, all_silent: bool) -> Result<ArrayRef> {
    let silent = silent(columns);
    let rows = found(columns, tz, all_silent)?.into_iter().enumerate().map(|(row, found)| match is_true(&found) {
        Err(_) if all_silent || silent.get(row) == Some(&true) => Ok(None),
        other => other.map_err(|error| failed(&error)),
    });
    Ok(Arc::new(rows.collect::<Result<BooleanArray>>()?))
}

fn is_true(found: &Found) -> Result<Option<bool>, EvalError> {
    match found {
        Found::Null | Found::Silenced => Ok(None),
        Found::Values(values) => match values.as_slice() {
            [Value::Bool(is)] => Ok(Some(*is)),
            [Value::Null] => Ok(None),
            _ => Err(EvalError::ExpectSingleBoolean),
        },
    }
}

fn all_of(columns: &[ArrayRef], tz: bool) -> Result<ArrayRef> {
    let rows = found(columns, tz, false)?.into_iter().map(|found| match found {
        Found::Null => Ok(None),
        found => text(&Value::Array(found.values())).map(Some),
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray>>()?))
}

fn first_of(columns: &[ArrayRef], tz: bool) -> Result<ArrayRef> {
    let rows = found(columns, tz, false)?.into_iter().map(|found| found.values().first().map(text).transpose());
    Ok(Arc::new(rows.collect::<Result<StringViewArray>>()?))
}

/// A value as jsonb.
pub(super) fn text(value: &Value) -> Result<String> {
    jsonb_text(&value.to_string()).map_err(|_| external(SqlError::internal("a value that is no json")))
}

/// Which rows say that what errors is NULL.
fn silent(columns: &[ArrayRef]) -> Vec<bool> {
    let Some(column) = columns.get(3) else { return vec![] };
    column.as_boolean().iter().map(Option::unwrap_or_default).collect()
}

/// What a path finds in a document.
pub(super) enum Found {
    /// An argument is NULL.
    Null,
    /// An error that is not to be told.
    Silenced,
    Values(Vec<Value>),
}

impl Found {
    /// The values; of an error, none.
    pub(super) fn values(self) -> Vec<Value> {
        if let Found::Values(values) = self { values } else { vec![] }
    }
}

/// What each row's path finds.
///
/// Errors: `42601` for a path that is none, and what its evaluation says.
pub(super) fn found(columns: &[ArrayRef], tz: bool, all_silent: bool) -> Result<Vec<Found>> {
    let Some(paths) = columns.get(1) else { return Err(external(SqlError::internal("two arguments"))) };
    let paths = paths.as_string_view();
    let documents = documents(columns, 0)?;
    let variables = if columns.len() > 2 { Some(self::documents(columns, 2)?) } else { None };
    let silent = silent(columns);
    let none = Value::Object(serde_json::Map::new());
    let utc = Utc.fix();
    let mut last: Option<(&str, JsonPath)> = None;
    let mut rows = Vec::with_capacity(documents.len());
    for (row, document) in documents.iter().enumerate() {
        let variables = match &variables {
            None => Some(&none),
            Some(variables) => variables.get(row).and_then(Option::as_ref),
        };
        let is_null = columns.get(3).is_some_and(|silent| silent.is_null(row)) || paths.is_null(row);
        let (Some(document), Some(variables), false) = (document, variables, is_null) else {
            rows.push(Found::Null);
            continue;
        };
        let path = match last.take() {
            Some((text, path)) if text == paths.value(row) => path,
            _ => read(paths.value(row))?,
        };
        let path = &last.insert((paths.value(row), path)).1;
        let values = match tz {
            true => path.query_with_vars_tz(document, variables, utc),
            false => path.query_with_vars(document, variables),
        };
        let is_silent = all_silent || silent.get(row) == Some(&true);
        rows.push(match values {
            Ok(values) => Found::Values(values.into_iter().map(|value| value.into_owned()).collect()),
            Err(error) if is_silent && error.can_silent() => Found::Silenced,
            Err(error) => return Err(failed(&error)),
        });
    }
    Ok(rows)
}

/// Errors: `42601`, `54001`.
fn read(path: &str) -> Result<JsonPath> {
    let mut is_quoted = false;
    let (mut n_steps, mut n_open, mut n_nested, mut n_signs) = (0, 0_usize, 0, 0);
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => _ = chars.next(),
            '"' => is_quoted = !is_quoted,
            c if !is_quoted && c.is_ascii_punctuation() => {
                n_steps += 1;
                n_open = match c {
                    '(' | '[' => n_open + 1,
                    ')' | ']' => n_open.saturating_sub(1),
                    _ => n_open,
                };
                n_signs = if matches!(c, '!' | '-' | '+') { n_signs + 1 } else { 0 };
                n_nested = n_nested.max(n_open).max(n_signs);
            }
            c if c.is_whitespace() => {}
            _ => n_signs = 0,
        }
    }
    if n_nested > NESTED_MAX {
        let error = SqlError::new(SqlState::StatementTooComplex, "the jsonpath is nested too deep");
        return Err(external(error.with_detail(format!("At most {NESTED_MAX} brackets may be inside each other."))));
    }
    if n_steps > STEPS_MAX {
        let error = SqlError::new(SqlState::StatementTooComplex, "the jsonpath has too many steps");
        return Err(external(error.with_detail(format!("It has {n_steps} signs, and may have {STEPS_MAX}."))));
    }
    JsonPath::new(path).map_err(|error| {
        let error = SqlError::new(SqlState::SyntaxError, "syntax error in jsonpath").with_detail(error.to_string());
        external(error)
    })
}

fn failed(error: &EvalError) -> datafusion::common::DataFusionError {
    use EvalError as E;
    let state = match error {
        E::NoKey(_) => SqlState::SqlJsonMemberNotFound,
        E::MemberAccess | E::WildcardMemberAccess | E::KeyValueNotObject => SqlState::SqlJsonObjectNotFound,
        E::ArrayAccess | E::WildcardArrayAccess | E::SizeNotArray => SqlState::SqlJsonArrayNotFound,
        E::ArrayIndexOutOfBounds | E::ArrayIndexOutOfRange | E::ArrayIndexNotNumeric => {
            SqlState::InvalidSqlJsonSubscript
        }
        E::NoVariable(_) => SqlState::UndefinedObject,
        E::VarsNotObject => SqlState::InvalidParameterValue,
        E::UnaryOperandNotNumeric(_) => SqlState::SqlJsonNumberNotFound,
        E::LeftOperandNotNumeric(_) | E::RightOperandNotNumeric(_) | E::ExpectSingleBoolean => {
            SqlState::SingletonSqlJsonItemRequired
        }
        E::DivisionByZero => SqlState::DivisionByZero,
        _ => SqlState::NonNumericSqlJsonItem,
    };
    external(SqlError::new(state, error.to_string()))
}
