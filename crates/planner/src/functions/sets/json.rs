//! Sets from json and jsonb: the elements of an array, the fields of an object.
//!
//! A document is checked, then cut at its outermost level, so that an element of a json stays as it was written.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::compute;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DataFusionError, Result};
use serde::de::IgnoredAny;
use tidewire_connect::jsonb_text;
use tidewire_operators::flat_map::{SetFunction, Sets};
use tidewire_types::{SqlError, SqlState, SqlType};

use super::column;
use crate::functions::cast::external;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Elements,
    Each,
    Keys,
}

#[derive(Debug)]
struct JsonSet {
    name: &'static str,
    part: Part,
    /// Values as text rather than json.
    text: bool,
    /// The argument is text that may not be normalized.
    normalize: bool,
    fields: Vec<FieldRef>,
}

pub(super) fn elements(name: &'static str, types: &[SqlType]) -> Option<Arc<dyn SetFunction>> {
    set(name, types, Part::Elements)
}

pub(super) fn each(name: &'static str, types: &[SqlType]) -> Option<Arc<dyn SetFunction>> {
    set(name, types, Part::Each)
}

pub(super) fn keys(name: &'static str, types: &[SqlType]) -> Option<Arc<dyn SetFunction>> {
    set(name, types, Part::Keys)
}

fn set(name: &'static str, types: &[SqlType], part: Part) -> Option<Arc<dyn SetFunction>> {
    let [given] = types else { return None };
    let own = if name.starts_with("jsonb") { SqlType::Jsonb } else { SqlType::Json };
    // A literal has the type that is asked for.
    let is_literal = matches!(given, SqlType::Text | SqlType::Null);
    if *given != own && !is_literal {
        return None;
    }
    let text = name.ends_with("_text");
    let value = column(if text { &SqlType::Text } else { &own }, "value");
    let fields = match part {
        Part::Elements => vec![value],
        Part::Each => vec![column(&SqlType::Text, "key"), value],
        Part::Keys => vec![column(&SqlType::Text, name)],
    };
    Some(Arc::new(JsonSet { name, part, text, normalize: is_literal && own == SqlType::Jsonb, fields }))
}

impl SetFunction for JsonSet {
    fn name(&self) -> &str {
        self.name
    }

    fn fields(&self) -> &[FieldRef] {
        &self.fields
    }

    fn call(&self, args: &[ArrayRef], n_rows: usize) -> Result<Sets, DataFusionError> {
        let Some(documents) = args.first() else { return Err(external(SqlError::internal("no argument"))) };
        let documents = compute::cast(documents, &DataType::Utf8View)?;
        let documents = documents.as_string_view();
        let mut counts = Vec::with_capacity(n_rows);
        let (mut keys, mut values) = (StringViewBuilder::new(), StringViewBuilder::new());
        for row in 0..n_rows {
            let mut count = 0;
            if documents.is_valid(row) {
                let normalized = match self.normalize {
                    true => Some(jsonb_text(documents.value(row)).map_err(|_| invalid())?),
                    false => None,
                };
                let document = normalized.as_deref().unwrap_or_else(|| documents.value(row));
                for (key, value) in self.items(document)? {
                    count += 1;
                    keys.append_option(key.map(unquoted).transpose()?);
                    values.append_option(if self.text { as_text(value)? } else { Some(value.to_owned()) });
                }
            }
            counts.push(count);
        }
        let (keys, values): (ArrayRef, ArrayRef) = (Arc::new(keys.finish()), Arc::new(values.finish()));
        let columns = match self.part {
            Part::Elements => vec![values],
            Part::Each => vec![keys, values],
            Part::Keys => vec![keys],
        };
        Ok(Sets { counts, columns })
    }
}

/// An item of a document: its key, where the document is an object, and its value, both as they are written.
type Item<'a> = (Option<&'a str>, &'a str);

impl JsonSet {
    fn items<'a>(&self, document: &'a str) -> Result<Vec<Item<'a>>> {
        serde_json::from_str::<IgnoredAny>(document).map_err(|_| invalid())?;
        let inner = document.trim_matches(is_blank);
        match (self.part, inner.as_bytes().first()) {
            (Part::Elements, Some(b'[')) => Ok(cut(inner, false)),
            (Part::Each | Part::Keys, Some(b'{')) => Ok(cut(inner, true)),
            (_, first) => Err(self.wrong_shape(first.copied())),
        }
    }

    fn wrong_shape(&self, first: Option<u8>) -> DataFusionError {
        let name = self.name;
        let shape = match first {
            Some(b'[') => "array",
            Some(b'{') => "object",
            _ => "scalar",
        };
        let article = if shape == "scalar" { "a" } else { "an" };
        let binary = name.starts_with("jsonb");
        let message = match (self.part, binary, shape) {
            (Part::Elements, true, _) => format!("cannot extract elements from {article} {shape}"),
            (Part::Elements, false, "object") => format!("cannot call {name} on a non-array"),
            (Part::Elements, false, _) => format!("cannot call {name} on a scalar"),
            (Part::Each, true, _) => format!("cannot call {name} on a non-object"),
            (Part::Each, false, "array") => "cannot deconstruct an array as an object".into(),
            (Part::Each, false, _) => "cannot deconstruct a scalar".into(),
            (Part::Keys, _, _) => format!("cannot call {name} on {article} {shape}"),
        };
        external(SqlError::new(SqlState::InvalidParameterValue, message))
    }
}

fn invalid() -> DataFusionError {
    external(SqlError::new(SqlState::InvalidTextRepresentation, "invalid input syntax for type json"))
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// Cuts a valid array or object, without blanks around it, at its commas (and colons).
fn cut(document: &str, is_object: bool) -> Vec<Item<'_>> {
    let mut items = vec![];
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let mut begin = 1;
    let mut key = None;
    let part = |begin: usize, end: usize| document.get(begin..end).unwrap_or_default().trim_matches(is_blank);
    for (at, byte) in document.bytes().enumerate() {
        if in_string {
            (in_string, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b':' if depth == 1 && is_object => {
                key = Some(part(begin, at));
                begin = at + 1;
            }
            b',' | b']' | b'}' if depth == 1 => {
                let value = part(begin, at);
                // Nothing stands in `[]`.
                if !value.is_empty() {
                    items.push((key.take(), value));
                }
                begin = at + 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    items
}

fn unquoted(text: &str) -> Result<String> {
    serde_json::from_str(text).map_err(|_| invalid())
}

/// As `->>` shows it: a string without its quotes, null as NULL.
fn as_text(value: &str) -> Result<Option<String>> {
    match value.as_bytes().first() {
        Some(b'"') => unquoted(value).map(Some),
        _ if value == "null" => Ok(None),
        _ => Ok(Some(value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_cut_at_its_outermost_level() {
        assert_eq!(cut("[]", false), []);
        assert_eq!(cut("{ }", true), []);
        assert_eq!(
            cut(r#"[1, "a,]\"" , [2,3],{"x":1} ]"#, false).iter().map(|i| i.1).collect::<Vec<_>>(),
            ["1", r#""a,]\"""#, "[2,3]", r#"{"x":1}"#]
        );
        let twice = r#"{"b" : 1, "a": {"b": [2]}, "b": "\\"}"#;
        assert_eq!(
            cut(twice, true),
            [(Some(r#""b""#), "1"), (Some(r#""a""#), r#"{"b": [2]}"#), (Some(r#""b""#), r#""\\""#)]
        );
    }

    #[test]
    fn text_is_without_quotes() {
        assert_eq!(as_text(r#""\u00e9\n""#).unwrap().as_deref(), Some("é\n"));
        assert_eq!(as_text("null").unwrap(), None);
        assert_eq!(as_text("1.50").unwrap().as_deref(), Some("1.50"));
    }
}
