//! `->`, `->>`, `#>`, `#>>` over json and jsonb, and the functions that do the same.
//!
//! A json value is text whose field is tagged with its type; a result of `->` has the type of its argument.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::compute;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use serde_json::Value;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::convert::array_items;
use super::json_pieces::{as_text, by_index, by_key, by_step, checked, invalid};

/// One of the operators, under a function's name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonGet {
    name: &'static str,
    /// The right side is a path (an array of keys) rather than one key.
    path: bool,
    /// The result is text rather than json.
    text: bool,
    signature: Signature,
}

/// The function for `->` and its relatives.
pub(super) fn operator(path: bool, text: bool) -> ScalarUDF {
    let name = match (path, text) {
        (false, false) => "->",
        (false, true) => "->>",
        (true, false) => "#>",
        (true, true) => "#>>",
    };
    ScalarUDF::from(JsonGet { name, path, text, signature: Signature::any(2, Volatility::Immutable) })
}

/// The functions to register.
pub(super) fn all() -> Vec<ScalarUDF> {
    vec![ScalarUDF::from(JsonTypeof::new()), ScalarUDF::from(JsonArrayLength::new())]
}

fn is_json(sql_type: &SqlType) -> bool {
    matches!(sql_type, SqlType::Json | SqlType::Jsonb | SqlType::Text | SqlType::Varchar(_) | SqlType::Null)
}

fn undefined(what: String) -> DataFusionError {
    external(SqlError::new(SqlState::UndefinedFunction, what).with_hint("The argument must be json or jsonb."))
}

impl ScalarUDFImpl for JsonGet {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|f| SqlType::of(f)).collect();
        let [json, key] = types.as_slice() else {
            return Err(undefined(format!("operator {} needs two sides", self.name)));
        };
        let key_fits = match key {
            SqlType::Int2 | SqlType::Int4 | SqlType::Int8 => !self.path,
            SqlType::Array(element) => self.path && matches!(**element, SqlType::Text | SqlType::Varchar(_)),
            key => is_json(key),
        };
        if !is_json(json) || !key_fits {
            return Err(undefined(format!("operator does not exist: {json} {} {key}", self.name)));
        }
        let result = match (self.text, json.clone()) {
            (false, t @ (SqlType::Json | SqlType::Jsonb)) => t,
            (false, _) => SqlType::Json,
            (true, _) => SqlType::Text,
        };
        Ok(Arc::new(result.field(self.name, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [json, key] = arrays.as_slice() else {
            return Err(undefined(format!("operator {} needs two sides", self.name)));
        };
        let key = &match key.data_type() {
            DataType::List(_) => key.clone(),
            t if t.is_integer() => compute::cast(key, &DataType::Int64)?,
            _ => compute::cast(key, &DataType::Utf8View)?,
        };
        let jsonb = args.arg_fields.first().is_none_or(|f| SqlType::of(f) != SqlType::Json);
        let documents = compute::cast(json, &DataType::Utf8View)?;
        let documents = documents.as_string_view();
        let mut output = StringViewBuilder::with_capacity(documents.len());
        for row in 0..documents.len() {
            let found = match documents.is_null(row) || key.is_null(row) {
                true => None,
                false => self.get(checked(documents.value(row))?, key, row, jsonb)?,
            };
            match found {
                Some(value) if self.text => output.append_option(as_text(value)?),
                found => output.append_option(found),
            }
        }
        Ok(ColumnarValue::Array(Arc::new(output.finish())))
    }
}

impl JsonGet {
    fn get<'a>(&self, document: &'a str, key: &ArrayRef, row: usize, jsonb: bool) -> Result<Option<&'a str>> {
        Ok(match key.data_type() {
            DataType::Int64 => match key.as_primitive::<Int64Type>().value(row) {
                // A jsonb that is neither array nor object is an array of one.
                0 | -1 if jsonb && !document.starts_with(['[', '{']) => Some(document),
                idx => by_index(document, idx),
            },
            DataType::List(_) => {
                let steps = compute::cast(&key.as_list::<i32>().value(row), &DataType::Utf8View)?;
                steps.as_string_view().iter().try_fold(document, |document, step| by_step(document, step?))
            }
            _ if self.path => {
                let steps = array_items(key.as_string_view().value(row)).map_err(external)?;
                steps.iter().try_fold(document, |document, step| by_step(document, step.as_deref()?))
            }
            _ => by_key(document, key.as_string_view().value(row)),
        })
    }
}

macro_rules! json_function {
    ($type:ident, $name:literal, $alias:literal, $result:expr, $of:expr) => {
        #[derive(Debug, PartialEq, Eq, Hash)]
        struct $type {
            signature: Signature,
            aliases: Vec<String>,
        }

        impl $type {
            fn new() -> $type {
                let signature = Signature::any(1, Volatility::Immutable);
                $type { signature, aliases: vec![$alias.into()] }
            }
        }

        impl ScalarUDFImpl for $type {
            fn name(&self) -> &str {
                $name
            }

            fn aliases(&self) -> &[String] {
                &self.aliases
            }

            fn signature(&self) -> &Signature {
                &self.signature
            }

            fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
                match args.arg_fields.first().map(|f| SqlType::of(f)) {
                    Some(t) if is_json(&t) => Ok(Arc::new(Field::new($name, $result, true))),
                    t => {
                        let t = t.unwrap_or(SqlType::Null);
                        Err(undefined(format!("function {}({t}) does not exist", $name)))
                    }
                }
            }

            fn return_type(&self, _: &[DataType]) -> Result<DataType> {
                Ok($result)
            }

            fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
                let arrays = ColumnarValue::values_to_arrays(&args.args)?;
                let Some(json) = arrays.first() else {
                    return Err(external(SqlError::internal("no argument")));
                };
                let json = compute::cast(json, &DataType::Utf8View)?;
                let values = json.as_string_view().iter().map(|text| text.map(parse).transpose());
                $of(values)
            }
        }
    };
}

fn parse(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|_| invalid())
}

fn types_of(values: impl Iterator<Item = Result<Option<Value>>>) -> Result<ColumnarValue> {
    let mut output = StringViewBuilder::new();
    for value in values {
        output.append_option(value?.map(|v| match v {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }));
    }
    Ok(ColumnarValue::Array(Arc::new(output.finish())))
}

fn lengths_of(values: impl Iterator<Item = Result<Option<Value>>>) -> Result<ColumnarValue> {
    let mut output = arrow::array::Int32Builder::new();
    for value in values {
        match value? {
            None => output.append_null(),
            Some(Value::Array(items)) => output.append_value(i32::try_from(items.len()).unwrap_or(i32::MAX)),
            Some(_) => {
                let message = "cannot get array length of a non-array";
                return Err(external(SqlError::new(SqlState::InvalidParameterValue, message)));
            }
        }
    }
    Ok(ColumnarValue::Array(Arc::new(output.finish())))
}

json_function!(JsonTypeof, "jsonb_typeof", "json_typeof", DataType::Utf8View, types_of);
json_function!(JsonArrayLength, "jsonb_array_length", "json_array_length", DataType::Int32, lengths_of);
