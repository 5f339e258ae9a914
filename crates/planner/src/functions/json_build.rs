//! json and jsonb from other values: `to_jsonb`, `jsonb_build_object`, `jsonb_build_array`, `jsonb_strip_nulls`, and
//! the same for json.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use arrow::compute;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use serde_json::Value;
use tidewire_connect::jsonb_text;
use tidewire_operators::aggregate::{json_list, json_members, json_text};
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::defined::{Definition, Overload};
use super::{text, to_json};
use crate::whole_rows::{JOINED_ROW, ROW};

/// An array of json as json, as `json_agg` writes it. No user's function can have these names.
pub(crate) const JSON_LIST: &str = "json list";
/// An array of keys and one of json as json, as `json_object_agg` writes it.
pub(crate) const JSON_MEMBERS: &str = "json members";

/// The functions.
pub(super) static ALL: &[Definition] = &[
    Definition { name: JSON_LIST, resolve: |types| Overload::of(types, SqlType::Json, |c, _| list(c)) },
    Definition { name: JSON_MEMBERS, resolve: |types| Overload::of(types, SqlType::Json, |c, _| members(c)) },
    Definition { name: "to_json", resolve: |types| one(types, SqlType::Json, json_of) },
    Definition { name: "to_jsonb", resolve: |types| one(types, SqlType::Jsonb, jsonb_of) },
    Definition {
        name: "json_build_array",
        resolve: |types| Overload::of(types, SqlType::Json, |c, t| array(c, t, false)),
    },
    Definition {
        name: "jsonb_build_array",
        resolve: |types| Overload::of(types, SqlType::Jsonb, |c, t| array(c, t, true)),
    },
    Definition {
        name: "json_build_object",
        resolve: |types| Overload::of(types, SqlType::Json, |c, t| object(c, t, false)),
    },
    Definition {
        name: "jsonb_build_object",
        resolve: |types| Overload::of(types, SqlType::Jsonb, |c, t| object(c, t, true)),
    },
    Definition { name: ROW, resolve: |types| Overload::of(types, SqlType::Json, |c, t| rows(c, t, false)) },
    Definition { name: JOINED_ROW, resolve: |types| Overload::of(types, SqlType::Json, |c, t| rows(c, t, true)) },
    Definition {
        name: "json_strip_nulls",
        resolve: |types| Overload::exact(types, &[SqlType::Json], SqlType::Json, strip),
    },
    Definition {
        name: "jsonb_strip_nulls",
        resolve: |types| Overload::exact(types, &[SqlType::Jsonb], SqlType::Jsonb, strip_binary),
    },
];

fn one(types: &[SqlType], result: SqlType, call: super::defined::Call) -> Option<Overload> {
    if types.len() != 1 {
        return None;
    }
    Overload::of(types, result, call)
}

/// The texts of each row's array; none where one is NULL.
fn lists(columns: &[ArrayRef]) -> Result<Vec<Vec<Option<StringViewArray>>>> {
    let texts = |items: ArrayRef| Ok(compute::cast(&items, &DataType::Utf8View)?.as_string_view().clone());
    let column = |column: &ArrayRef| match column.as_list_opt::<i32>() {
        Some(lists) => lists.iter().map(|items| items.map(texts).transpose()).collect(),
        None => Ok(vec![None; column.len()]),
    };
    columns.iter().map(column).collect()
}

fn list(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let lists = lists(columns)?.into_iter().next().unwrap_or_default();
    let json = |items: &Option<StringViewArray>| items.as_ref().map(|items| json_list(items.iter()));
    Ok(Arc::new(lists.iter().map(json).collect::<StringViewArray>()))
}

fn members(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [keys, values] = lists(columns)?.try_into().map_err(|_| external(SqlError::internal("two arrays")))?;
    let json = |(keys, values): (&Option<StringViewArray>, &Option<StringViewArray>)| {
        let (Some(keys), Some(values)) = (keys, values) else { return Ok(None) };
        json_members(keys.iter().zip(values)).map(Some).map_err(external)
    };
    let rows = keys.iter().zip(&values).map(json).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(rows.into_iter().collect::<StringViewArray>()))
}

fn json_of(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let [column] = values(columns, types)?.try_into().map_err(|_| external(SqlError::internal("one argument")))?;
    let column: Vec<Option<String>> = column;
    Ok(Arc::new(column.into_iter().collect::<StringViewArray>()))
}

fn jsonb_of(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let column = json_of(columns, types)?;
    normalized(column.as_string_view().iter().map(|json| json.map(str::to_owned)))
}

/// The arguments as json, column by column.
fn values(columns: &[ArrayRef], types: &[SqlType]) -> Result<Vec<Vec<Option<String>>>> {
    columns.iter().zip(types).map(|(column, from)| to_json::texts(column, from)).collect()
}

fn n_rows(columns: &[ArrayRef]) -> usize {
    columns.first().map_or(0, |c| c.len())
}

fn array(columns: &[ArrayRef], types: &[SqlType], binary: bool) -> Result<ArrayRef> {
    let values = values(columns, types)?;
    let rows = (0..n_rows(columns)).map(|row| {
        let items = values.iter().map(|column| column.get(row).and_then(Option::as_deref).unwrap_or("null"));
        Some(format!("[{}]", items.collect::<Vec<_>>().join(", ")))
    });
    finished(rows, binary)
}

/// Errors: `22023` for a key without a value, or that is NULL.
fn object(columns: &[ArrayRef], types: &[SqlType], binary: bool) -> Result<ArrayRef> {
    let invalid = |message: String| external(SqlError::new(SqlState::InvalidParameterValue, message));
    if types.len() % 2 == 1 {
        return Err(invalid("argument list must have even number of elements".into()));
    }
    let mut pairs = vec![];
    for (columns, types) in columns.chunks(2).zip(types.chunks(2)) {
        let ([key, value], [key_type, value_type]) = (columns, types) else { continue };
        pairs.push((text::of(key, key_type)?, to_json::texts(value, value_type)?));
    }
    let mut rows = vec![];
    for row in 0..n_rows(columns) {
        let mut members = vec![];
        for (idx, (keys, values)) in pairs.iter().enumerate() {
            if keys.is_null(row) {
                return Err(invalid(format!("argument {}: key must not be null", 2 * idx + 1)));
            }
            let value = values.get(row).and_then(Option::as_deref).unwrap_or("null");
            members.push(format!("{} : {value}", json_text(keys.as_string_view().value(row))));
        }
        rows.push(Some(format!("{{{}}}", members.join(", "))));
    }
    finished(rows.into_iter(), binary)
}

/// Objects of names and values, as PostgreSQL's `row_to_json` writes them. `joined`: NULL where all values are.
fn rows(columns: &[ArrayRef], types: &[SqlType], joined: bool) -> Result<ArrayRef> {
    let mut pairs = vec![];
    for (columns, types) in columns.chunks(2).zip(types.chunks(2)) {
        let ([key, value], [_, value_type]) = (columns, types) else { continue };
        let names = compute::cast(key, &DataType::Utf8View)?;
        pairs.push((names, to_json::texts(value, value_type)?));
    }
    let rows = (0..n_rows(columns)).map(|row| {
        let is_missing = |values: &Vec<Option<String>>| values.get(row).is_none_or(Option::is_none);
        if joined && pairs.iter().all(|(_, values)| is_missing(values)) {
            return None;
        }
        let members = pairs.iter().map(|(names, values)| {
            let value = values.get(row).and_then(Option::as_deref).unwrap_or("null");
            format!("{}:{value}", json_text(names.as_string_view().value(row)))
        });
        Some(format!("{{{}}}", members.collect::<Vec<_>>().join(",")))
    });
    Ok(Arc::new(rows.collect::<StringViewArray>()))
}

fn finished(rows: impl Iterator<Item = Option<String>>, binary: bool) -> Result<ArrayRef> {
    match binary {
        true => normalized(rows),
        false => Ok(Arc::new(rows.collect::<StringViewArray>())),
    }
}

fn normalized(rows: impl Iterator<Item = Option<String>>) -> Result<ArrayRef> {
    let invalid = |error| external(SqlError::new(SqlState::InvalidTextRepresentation, error));
    let rows = rows.map(|json| json.map(|json| jsonb_text(&json).map_err(invalid)).transpose());
    Ok(Arc::new(rows.collect::<Result<StringViewArray>>()?))
}

fn strip(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let Some(documents) = columns.first() else { return Err(external(SqlError::internal("no argument"))) };
    let rows = documents.as_string_view().iter().map(|json| {
        let invalid =
            |_| external(SqlError::new(SqlState::InvalidTextRepresentation, "invalid input syntax for type json"));
        json.map(|json| Ok(without_nulls(serde_json::from_str(json).map_err(invalid)?).to_string())).transpose()
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray>>()?))
}

fn strip_binary(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let stripped = strip(columns, types)?;
    normalized(stripped.as_string_view().iter().map(|json| json.map(str::to_owned)))
}

/// Without fields of objects that are null; nulls in arrays stay.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}
