//! `jsonb_set`, `jsonb_insert`, `#-`, `jsonb_pretty`, and objects of arrays of keys and values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringViewArray};
use arrow::compute;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use serde_json::{Map, Value};
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::defined::{Call, Definition, Overload};
use super::json_operators::{documents, shown, texts_of};

/// The functions.
pub(super) static ALL: &[Definition] = &[
    Definition { name: "jsonb_set", resolve: |types| with_new(types, |c, _| edited(c, Edit::Set)) },
    Definition { name: "jsonb_insert", resolve: |types| with_new(types, |c, _| edited(c, Edit::Insert)) },
    Definition {
        name: "jsonb_pretty",
        resolve: |types| Overload::exact(types, &[SqlType::Jsonb], SqlType::Text, pretty),
    },
    Definition { name: "json_object", resolve: |types| of_arrays(types, SqlType::Json, |c, _| objects(c, false)) },
    Definition { name: "jsonb_object", resolve: |types| of_arrays(types, SqlType::Jsonb, |c, _| objects(c, true)) },
];

/// `jsonb #- path`
pub(super) static WITHOUT_PATH: Definition = Definition {
    name: "#-",
    resolve: |types| Overload::exact(types, &[SqlType::Jsonb, texts()], SqlType::Jsonb, |c, _| edited(c, Edit::Remove)),
};

fn texts() -> SqlType {
    SqlType::Array(Box::new(SqlType::Text))
}

fn with_new(types: &[SqlType], call: Call) -> Option<Overload> {
    let wanted = [SqlType::Jsonb, texts(), SqlType::Jsonb, SqlType::Bool];
    Overload::exact(types, wanted.get(..types.len().clamp(3, 4))?, SqlType::Jsonb, call)
}

fn of_arrays(types: &[SqlType], result: SqlType, call: Call) -> Option<Overload> {
    Overload::exact(types, [texts(), texts()].get(..types.len().clamp(1, 2))?, result, call)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    Set,
    Insert,
    Remove,
}

fn edited(columns: &[ArrayRef], edit: Edit) -> Result<ArrayRef> {
    let (documents_, paths) = (documents(columns, 0)?, texts_of(columns, 1)?);
    let mut new = if columns.len() > 2 { documents(columns, 2)? } else { vec![] }.into_iter();
    // Whether what is missing is made; for an insert, whether it goes behind the element.
    let flags = columns.get(3).map(|flags| flags.as_boolean().clone());
    shown(documents_.into_iter().zip(paths).enumerate().map(|(row, (document, path))| {
        let flag = flags
            .as_ref()
            .map_or(Some(edit == Edit::Set), |flags: &BooleanArray| flags.is_valid(row).then(|| flags.value(row)));
        let new = if edit == Edit::Remove { Some(Value::Null) } else { new.next().flatten() };
        let (Some(document), Some(path), Some(new), Some(flag)) = (document, path, new, flag) else { return Ok(None) };
        Change { path: &path, edit, new: &new, flag }.of(document).map(Some).map_err(external)
    }))
}

struct Change<'a> {
    path: &'a StringViewArray,
    edit: Edit,
    new: &'a Value,
    flag: bool,
}

impl Change<'_> {
    fn of(&self, mut document: Value) -> Result<Value, SqlError> {
        if let Some(at) = (0..self.path.len()).find(|at| self.path.is_null(*at)) {
            let message = format!("path element at position {} is null", at + 1);
            return Err(SqlError::new(SqlState::NullValueNotAllowed, message));
        }
        if !document.is_array() && !document.is_object() {
            let message =
                if self.edit == Edit::Remove { "cannot delete path in scalar" } else { "cannot set path in scalar" };
            return Err(SqlError::new(SqlState::InvalidParameterValue, message));
        }
        if !self.path.is_empty() {
            self.inside(&mut document, 0)?;
        }
        Ok(document)
    }

    /// Changes what is below the first `depth` keys of the path.
    fn inside(&self, document: &mut Value, depth: usize) -> Result<(), SqlError> {
        let key = self.path.value(depth);
        let is_last = depth + 1 == self.path.len();
        match document {
            Value::Object(fields) if !is_last => fields.get_mut(key).map_or(Ok(()), |v| self.inside(v, depth + 1)),
            Value::Object(fields) => self.field(fields, key),
            Value::Array(items) => {
                let idx: i64 = key.parse().map_err(|_| {
                    let message = format!("path element at position {} is not an integer: \"{key}\"", depth + 1);
                    SqlError::new(SqlState::InvalidTextRepresentation, message)
                })?;
                // From the end; before the first one is None.
                let idx = if idx < 0 { idx + items.len() as i64 } else { idx };
                let idx = usize::try_from(idx).ok();
                if is_last {
                    self.item(items, idx);
                    return Ok(());
                }
                idx.and_then(|idx| items.get_mut(idx)).map_or(Ok(()), |item| self.inside(item, depth + 1))
            }
            _ => Ok(()),
        }
    }

    fn field(&self, fields: &mut Map<String, Value>, key: &str) -> Result<(), SqlError> {
        match (self.edit, fields.contains_key(key)) {
            (Edit::Remove, _) => drop(fields.remove(key)),
            (Edit::Insert, true) => {
                let error = SqlError::new(SqlState::InvalidParameterValue, "cannot replace existing key");
                return Err(error.with_hint("Try using the function jsonb_set to replace key value."));
            }
            (Edit::Set, false) if !self.flag => {}
            _ => drop(fields.insert(key.to_owned(), self.new.clone())),
        }
        Ok(())
    }

    fn item(&self, items: &mut Vec<Value>, idx: Option<usize>) {
        match (self.edit, idx.filter(|idx| *idx < items.len())) {
            (Edit::Remove, Some(idx)) => drop(items.remove(idx)),
            (Edit::Remove, None) => {}
            (Edit::Set, Some(idx)) => {
                if let Some(item) = items.get_mut(idx) {
                    *item = self.new.clone();
                }
            }
            (Edit::Set, None) if !self.flag => {}
            (Edit::Insert, Some(idx)) => items.insert(if self.flag { idx + 1 } else { idx }, self.new.clone()),
            (_, None) => items.insert(if idx.is_none() { 0 } else { items.len() }, self.new.clone()),
        }
    }
}

fn pretty(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let rows = documents(columns, 0)?.into_iter().map(|document| {
        let mut output = String::new();
        indent(&document?, 0, &mut output);
        Some(output)
    });
    Ok(Arc::new(rows.collect::<StringViewArray>()))
}

/// Four blanks a level, as PostgreSQL does it; fields in the order of a jsonb.
fn indent(value: &Value, depth: usize, output: &mut String) {
    let line = |output: &mut String, depth: usize| {
        output.push('\n');
        output.extend(std::iter::repeat_n("    ", depth));
    };
    let (open, close, parts): (_, _, Vec<(Option<&String>, &Value)>) = match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().map(|(key, value)| (Some(key), value)).collect();
            fields.sort_by_key(|(key, _)| key.map(|key| (key.len(), key.as_str())));
            ('{', '}', fields)
        }
        Value::Array(items) => ('[', ']', items.iter().map(|item| (None, item)).collect()),
        scalar => return output.push_str(&scalar.to_string()),
    };
    output.push(open);
    for (idx, (key, value)) in parts.into_iter().enumerate() {
        if idx > 0 {
            output.push(',');
        }
        line(output, depth + 1);
        if let Some(key) = key {
            output.push_str(&Value::String(key.clone()).to_string());
            output.push_str(": ");
        }
        indent(value, depth + 1, output);
    }
    line(output, depth);
    output.push(close);
}

/// Objects of `{key, value, ..}`, or of keys and values.
fn objects(columns: &[ArrayRef], binary: bool) -> Result<ArrayRef> {
    let keys = texts_of(columns, 0)?;
    let values = if columns.len() > 1 { Some(texts_of(columns, 1)?) } else { None };
    let rows = keys.into_iter().enumerate().map(|(row, keys)| {
        let Some(keys) = keys else { return Ok(None) };
        let pairs: Vec<(Option<&str>, Option<&str>)> = match &values {
            Some(values) => {
                let Some(values) = values.get(row).and_then(Option::as_ref) else { return Ok(None) };
                if keys.len() != values.len() {
                    return Err(SqlError::new(SqlState::ArraySubscriptError, "mismatched array dimensions"));
                }
                keys.iter().zip(values).collect()
            }
            None if keys.len() % 2 == 1 => {
                return Err(SqlError::new(SqlState::ArraySubscriptError, "array must have even number of elements"));
            }
            None => keys.iter().step_by(2).zip(keys.iter().skip(1).step_by(2)).collect(),
        };
        let mut fields = vec![];
        for (key, value) in pairs {
            let null = || SqlError::new(SqlState::NullValueNotAllowed, "null value not allowed for object key");
            let value = value.map_or(Value::Null, |value| Value::String(value.to_owned()));
            fields.push(format!("{} : {value}", Value::String(key.ok_or_else(null)?.to_owned())));
        }
        let text = format!("{{{}}}", fields.join(", "));
        Ok(Some(text))
    });
    let texts = rows.collect::<Result<StringViewArray, SqlError>>().map_err(external)?;
    let texts: ArrayRef = Arc::new(texts);
    match binary {
        true => super::convert::convert(&texts, &SqlType::Text, &SqlType::Jsonb, false),
        false => Ok(compute::cast(&texts, &DataType::Utf8View)?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changed(document: Value, path: &[&str], edit: Edit, flag: bool) -> Value {
        let path = StringViewArray::from_iter_values(path);
        Change { path: &path, edit, new: &json!("new"), flag }.of(document).unwrap()
    }

    #[test]
    fn documents_are_changed_at_a_path() {
        let document = || json!({"a": [1, {"b": 2}], "c": null});
        assert_eq!(changed(document(), &["a", "1", "b"], Edit::Set, true), json!({"a": [1, {"b": "new"}], "c": null}));
        assert_eq!(changed(document(), &["d"], Edit::Set, false), document());
        assert_eq!(changed(document(), &["d", "e"], Edit::Set, true), document());
        assert_eq!(changed(document(), &["a", "-9"], Edit::Set, true), json!({"a": ["new", 1, {"b": 2}], "c": null}));
        assert_eq!(
            changed(document(), &["a", "9"], Edit::Insert, false),
            json!({"a": [1, {"b": 2}, "new"], "c": null})
        );
        assert_eq!(changed(document(), &["a", "0"], Edit::Insert, true), json!({"a": [1, "new", {"b": 2}], "c": null}));
        assert_eq!(changed(document(), &["a", "-1"], Edit::Remove, false), json!({"a": [1], "c": null}));
    }
}
