//! `@>`, `<@`, `?`, `?|`, `?&`, `||`, `-` over jsonb.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, StringViewArray};
use arrow::compute;
use arrow::datatypes::{DataType, Int32Type};
use datafusion::common::Result;
use datafusion::logical_expr::Expr;
use serde_json::Value;
use sqlparser::ast::BinaryOperator as Op;
use tidewire_connect::jsonb_text;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::defined::{self, Definition, Overload};
use super::json_edit;

static CONTAINS: Definition = Definition { name: "@>", resolve: |types| both(types, |c, _| of_pairs(c, contains)) };
static CONTAINED: Definition =
    Definition { name: "<@", resolve: |types| both(types, |c, _| of_pairs(c, |a, b| contains(b, a))) };
static EXISTS: Definition = Definition {
    name: "?",
    resolve: |types| Overload::exact(types, &[SqlType::Jsonb, SqlType::Text], SqlType::Bool, exists),
};
static ANY_EXISTS: Definition = Definition { name: "?|", resolve: |types| with_keys(types, any_exists) };
static ALL_EXIST: Definition = Definition { name: "?&", resolve: |types| with_keys(types, all_exist) };
static JOINED: Definition = Definition {
    name: "||",
    resolve: |types| Overload::exact(types, &[SqlType::Jsonb, SqlType::Jsonb], SqlType::Jsonb, joined),
};
static WITHOUT: Definition = Definition { name: "-", resolve: without };

/// The call that computes `left op right`, where one side is jsonb. None: there is no such operator of jsonb.
pub(super) fn plan(op: &Op, left: &Expr, right: &Expr, types: (&SqlType, &SqlType)) -> Option<Expr> {
    use SqlType as T;
    let (l, r) = types;
    let open = |t: &T| matches!(t, T::Text | T::Null);
    let definition = match op {
        Op::AtArrow if *l == T::Jsonb || *r == T::Jsonb => &CONTAINS,
        Op::ArrowAt if *l == T::Jsonb || *r == T::Jsonb => &CONTAINED,
        Op::Question if *l == T::Jsonb || open(l) => &EXISTS,
        Op::QuestionPipe if *l == T::Jsonb || open(l) => &ANY_EXISTS,
        Op::QuestionAnd if *l == T::Jsonb || open(l) => &ALL_EXIST,
        Op::StringConcat
            if *l == T::Jsonb && (*r == T::Jsonb || matches!(right, Expr::Literal(..)))
                || matches!(op, Op::StringConcat) && *r == T::Jsonb && matches!(left, Expr::Literal(..)) =>
        {
            &JOINED
        }
        Op::Minus if *l == T::Jsonb => &WITHOUT,
        Op::HashMinus if *l == T::Jsonb || open(l) => &json_edit::WITHOUT_PATH,
        _ => return None,
    };
    Some(defined::call(definition, vec![left.clone(), right.clone()]))
}

fn both(types: &[SqlType], call: defined::Call) -> Option<Overload> {
    Overload::exact(types, &[SqlType::Jsonb, SqlType::Jsonb], SqlType::Bool, call)
}

fn with_keys(types: &[SqlType], call: defined::Call) -> Option<Overload> {
    let keys = SqlType::Array(Box::new(SqlType::Text));
    Overload::exact(types, &[SqlType::Jsonb, keys], SqlType::Bool, call)
}

fn without(types: &[SqlType]) -> Option<Overload> {
    let [_, key] = types else { return None };
    let key = match key {
        SqlType::Int2 | SqlType::Int4 => SqlType::Int4,
        SqlType::Array(_) => SqlType::Array(Box::new(SqlType::Text)),
        _ => SqlType::Text,
    };
    Overload::exact(types, &[SqlType::Jsonb, key], SqlType::Jsonb, removed)
}

pub(super) fn documents(columns: &[ArrayRef], idx: usize) -> Result<Vec<Option<Value>>> {
    let Some(column) = columns.get(idx) else { return Err(external(SqlError::internal("two arguments"))) };
    let invalid =
        |_| external(SqlError::new(SqlState::InvalidTextRepresentation, "invalid input syntax for type json"));
    column
        .as_string_view()
        .iter()
        .map(|json| json.map(|j| serde_json::from_str(j).map_err(invalid)).transpose())
        .collect()
}

fn of_pairs(columns: &[ArrayRef], is: impl Fn(&Value, &Value) -> bool) -> Result<ArrayRef> {
    let (left, right) = (documents(columns, 0)?, documents(columns, 1)?);
    let rows = left.iter().zip(&right).map(|(l, r)| Some(is(l.as_ref()?, r.as_ref()?)));
    Ok(Arc::new(rows.collect::<BooleanArray>()))
}

/// Whether everything of `part` is in `whole`. An array contains a scalar as if it were an array of it.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Array(items), Value::Array(_) | Value::Object(_)) => is_inside(&Value::Array(items.clone()), part),
        (Value::Array(items), scalar) => items.iter().any(|item| is_inside(item, scalar)),
        (whole, part) => is_inside(whole, part),
    }
}

fn is_inside(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| is_inside(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            part.iter().all(|part| whole.iter().any(|whole| is_inside(whole, part)))
        }
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (whole, part) => whole == part,
    }
}

fn has_key(document: &Value, key: &str) -> bool {
    match document {
        Value::Object(fields) => fields.contains_key(key),
        Value::Array(items) => items.iter().any(|item| item.as_str() == Some(key)),
        Value::String(text) => text == key,
        _ => false,
    }
}

fn exists(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let Some(keys) = columns.get(1) else { return Err(external(SqlError::internal("two arguments"))) };
    let rows = documents(columns, 0)?;
    let rows = rows.iter().zip(keys.as_string_view()).map(|(document, key)| Some(has_key(document.as_ref()?, key?)));
    Ok(Arc::new(rows.collect::<BooleanArray>()))
}

fn any_exists(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    of_keys(columns, |document, keys| keys.iter().flatten().any(|key| has_key(document, key)))
}

fn all_exist(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    of_keys(columns, |document, keys| keys.iter().flatten().all(|key| has_key(document, key)))
}

fn of_keys(columns: &[ArrayRef], is: impl Fn(&Value, &StringViewArray) -> bool) -> Result<ArrayRef> {
    let rows = documents(columns, 0)?;
    let keys = texts_of(columns, 1)?;
    let rows = rows.iter().zip(&keys).map(|(document, keys)| Some(is(document.as_ref()?, keys.as_ref()?)));
    Ok(Arc::new(rows.collect::<BooleanArray>()))
}

/// The arrays of texts in a column.
pub(super) fn texts_of(columns: &[ArrayRef], idx: usize) -> Result<Vec<Option<StringViewArray>>> {
    let Some(lists) = columns.get(idx) else { return Err(external(SqlError::internal("two arguments"))) };
    let keys = lists.as_list::<i32>().iter().map(|keys| {
        keys.map(|keys| Ok(compute::cast(&keys, &DataType::Utf8View)?.as_string_view().clone())).transpose()
    });
    keys.collect()
}

pub(super) fn shown(rows: impl Iterator<Item = Result<Option<Value>>>) -> Result<ArrayRef> {
    let rows = rows.map(|value| {
        let text = value?.map(|value| jsonb_text(&value.to_string()));
        text.transpose().map_err(|e| external(SqlError::new(SqlState::InvalidTextRepresentation, e)))
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray>>()?))
}

fn joined(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let (left, right) = (documents(columns, 0)?, documents(columns, 1)?);
    shown(left.into_iter().zip(right).map(|pair| match pair {
        (Some(left), Some(right)) => Ok(Some(join(left, right))),
        _ => Ok(None),
    }))
}

/// Fields of both, those of the second where both have one; else the items of both.
fn join(left: Value, right: Value) -> Value {
    let items = |value| match value {
        Value::Array(items) => items,
        other => vec![other],
    };
    match (left, right) {
        (Value::Object(mut left), Value::Object(right)) => {
            left.extend(right);
            Value::Object(left)
        }
        (left, right) => Value::Array(items(left).into_iter().chain(items(right)).collect()),
    }
}

fn removed(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let rows = documents(columns, 0)?;
    let Some(keys) = columns.get(1) else { return Err(external(SqlError::internal("two arguments"))) };
    let invalid = |message: &str| external(SqlError::new(SqlState::InvalidParameterValue, message));
    match types.get(1) {
        Some(SqlType::Int4) => shown(rows.into_iter().zip(keys.as_primitive::<Int32Type>()).map(|pair| match pair {
            (Some(Value::Array(mut items)), Some(idx)) => {
                let idx = if idx < 0 { items.len() as i64 + i64::from(idx) } else { i64::from(idx) };
                if let Some(idx) = usize::try_from(idx).ok().filter(|idx| *idx < items.len()) {
                    items.remove(idx);
                }
                Ok(Some(Value::Array(items)))
            }
            (Some(Value::Object(_)), Some(_)) => Err(invalid("cannot delete from object using integer index")),
            (Some(_), Some(_)) => Err(invalid("cannot delete from scalar")),
            _ => Ok(None),
        })),
        Some(SqlType::Array(_)) => {
            let keys = texts_of(columns, 1)?;
            shown(rows.into_iter().zip(keys).map(|(row, keys)| match (row, keys) {
                (Some(row), Some(keys)) => keys.iter().flatten().try_fold(row, without_key).map(Some),
                _ => Ok(None),
            }))
        }
        _ => shown(rows.into_iter().zip(keys.as_string_view()).map(|(row, key)| match (row, key) {
            (Some(row), Some(key)) => without_key(row, key).map(Some),
            _ => Ok(None),
        })),
    }
}

fn without_key(document: Value, key: &str) -> Result<Value> {
    match document {
        Value::Object(mut fields) => {
            fields.remove(key);
            Ok(Value::Object(fields))
        }
        Value::Array(items) => Ok(Value::Array(items.into_iter().filter(|item| item.as_str() != Some(key)).collect())),
        _ => Err(external(SqlError::new(SqlState::InvalidParameterValue, "cannot delete from scalar"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containment_is_that_of_postgresql() {
        assert!(contains(&json!([1, 2, {"a": [1, 2]}]), &json!([{"a": [2]}, 1.0])));
        assert!(contains(&json!(["a", 1]), &json!("a")));
        assert!(!contains(&json!([["a"]]), &json!("a")));
        assert!(!contains(&json!({"a": 1}), &json!({"a": 1, "b": null})));
        assert!(!contains(&json!("a"), &json!(["a"])));
    }
}
