//! Any value as json, as PostgreSQL's `to_json` writes it: what the json aggregates take.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use tidewire_operators::aggregate::json_text;
use tidewire_types::SqlType;

use super::text;

/// The name of the function. No user's function can have it.
pub(crate) const TO_JSON: &str = "to json";

/// The function to register.
pub(super) fn to_json() -> ScalarUDF {
    ScalarUDF::from(ToJson { signature: Signature::any(1, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToJson {
    signature: Signature,
}

impl ScalarUDFImpl for ToJson {
    fn name(&self) -> &str {
        TO_JSON
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(SqlType::Json.data_type())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(SqlType::Json.field(TO_JSON, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let from = args.arg_fields.first().map_or(SqlType::Null, |f| SqlType::of(f));
        let is_scalar = matches!(args.args.first(), Some(ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let column = match arrays.into_iter().next() {
            Some(column) => texts(&column, &from)?,
            None => vec![],
        };
        let column: ArrayRef = Arc::new(column.into_iter().collect::<StringViewArray>());
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&column, 0)?),
            false => ColumnarValue::Array(column),
        })
    }
}

/// Every value as json; None is NULL.
pub(super) fn texts(column: &ArrayRef, from: &SqlType) -> Result<Vec<Option<String>>> {
    use SqlType as T;
    if let T::Array(item) = from
        && let Some(lists) = column.as_list_opt::<i32>()
    {
        let items = texts(lists.values(), item)?;
        let json = |row: usize| {
            let range =
                lists.value_offsets().get(row..row + 2).map(|o| o.iter().map(|o| *o as usize).collect::<Vec<_>>());
            let (start, end) = range.and_then(|o| Some((*o.first()?, *o.last()?))).unwrap_or_default();
            let items = items.get(start..end).unwrap_or_default().iter().map(|item| item.as_deref().unwrap_or("null"));
            format!("[{}]", items.collect::<Vec<_>>().join(","))
        };
        return Ok((0..lists.len()).map(|row| lists.is_valid(row).then(|| json(row))).collect());
    }
    if let (T::Struct(fields), Some(rows)) = (from, column.as_struct_opt()) {
        let columns = rows.columns().iter().zip(fields).map(|(c, (_, t))| texts(c, t)).collect::<Result<Vec<_>>>()?;
        let json = |row: usize| {
            let value =
                |column: &Vec<Option<String>>| column.get(row).cloned().flatten().unwrap_or_else(|| "null".into());
            let parts = columns.iter().zip(fields).map(|(c, (name, _))| format!("{}:{}", json_text(name), value(c)));
            format!("{{{}}}", parts.collect::<Vec<_>>().join(","))
        };
        return Ok((0..rows.len()).map(|row| rows.is_valid(row).then(|| json(row))).collect());
    }
    let values = text::of(column, from)?;
    let json = |value: &str| match from {
        T::Bool | T::Int2 | T::Int4 | T::Int8 | T::Numeric(_) | T::Json | T::Jsonb => value.to_owned(),
        T::Float4 | T::Float8 if value.bytes().any(|b| b.is_ascii_digit()) => value.to_owned(),
        T::Timestamp => json_text(&value.replacen(' ', "T", 1)),
        T::Timestamptz => json_text(&format!("{}:00", value.replacen(' ', "T", 1))),
        _ => json_text(value),
    };
    Ok(values.as_string_view().iter().map(|value| value.map(json)).collect())
}
