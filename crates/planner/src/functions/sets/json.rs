//! Sets from json and jsonb: the elements of an array, the fields of an object.
//!
//! A document is checked, then cut at its outermost level, so that an element of a json stays as it was written.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray, StringViewBuilder};
use arrow::compute;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DataFusionError, Result};
use tidewire_connect::jsonb_text;
use tidewire_operators::flat_map::{SetFunction, Sets};
use tidewire_types::{SqlError, SqlState, SqlType};

use super::column;
use crate::functions::cast::external;
use crate::functions::convert::convert;
use crate::functions::json_path;
use crate::functions::json_pieces::{Item, as_text, checked, cut, invalid, unquoted};

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

/// What a path finds.
pub(super) fn by_path(name: &'static str, types: &[SqlType]) -> Option<Arc<dyn SetFunction>> {
    let args = json_path::arguments(types)?;
    Some(Arc::new(PathSet { name, given: types.to_vec(), args, fields: vec![column(&SqlType::Jsonb, name)] }))
}

#[derive(Debug)]
struct PathSet {
    name: &'static str,
    given: Vec<SqlType>,
    args: Vec<SqlType>,
    fields: Vec<FieldRef>,
}

impl SetFunction for PathSet {
    fn name(&self) -> &str {
        self.name
    }

    fn fields(&self) -> &[FieldRef] {
        &self.fields
    }

    fn call(&self, args: &[ArrayRef], _: usize) -> Result<Sets, DataFusionError> {
        let types = self.given.iter().zip(&self.args);
        let columns = args.iter().zip(types).map(|(column, (from, to))| convert(column, from, to, false));
        let rows = json_path::found(&columns.collect::<Result<Vec<_>>>()?, self.name.ends_with("_tz"), false)?;
        let rows: Vec<_> = rows.into_iter().map(json_path::Found::values).collect();
        let counts = rows.iter().map(|values| u32::try_from(values.len()).unwrap_or(u32::MAX)).collect();
        let values = rows.iter().flatten().map(|value| json_path::text(value).map(Some));
        Ok(Sets { counts, columns: vec![Arc::new(values.collect::<Result<StringViewArray>>()?)] })
    }
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

impl JsonSet {
    fn items<'a>(&self, document: &'a str) -> Result<Vec<Item<'a>>> {
        let inner = checked(document)?;
        match (self.part, inner.as_bytes().first()) {
            (Part::Elements, Some(b'[')) | (Part::Each | Part::Keys, Some(b'{')) => Ok(cut(inner)),
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
