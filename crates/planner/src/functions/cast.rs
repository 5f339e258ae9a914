//! Casts to types that Arrow does not tell apart: uuid, json, jsonb, bytea, varchar(n), char(n).
//!
//! Invariant: what comes out satisfies its type (a uuid has 36 lower-case characters, a jsonb is normalized), and the
//! result's field says which type it is.

use std::fmt::Write;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewBuilder, StringViewArray, StringViewBuilder};
use arrow::compute;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use serde_json::Value;
use tidewire_types::{SqlError, SqlState, SqlType, TYPE_KEY};

use super::text;

/// The prefix of the names that [`crate::rewrite`] gives these casts; no user's function can have it.
const PREFIX: &str = "cast to ";
/// The prefix of casts on INSERT and UPDATE, which refuse what explicit casts truncate.
const ASSIGN_PREFIX: &str = "assign to ";

/// The name of the function that casts to `target`; None where Arrow's own cast does it.
pub(crate) fn function_name(target: &SqlType) -> Option<String> {
    needs_function(target).then(|| format!("{PREFIX}{target}"))
}

fn needs_function(target: &SqlType) -> bool {
    use SqlType as T;
    matches!(target, T::Text | T::Uuid | T::Json | T::Jsonb | T::Bytea | T::Varchar(_) | T::Char(_))
}

/// The function of that name, if it is one of ours.
pub(crate) fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    let (tag, assign) = match name.strip_prefix(PREFIX) {
        Some(tag) => (tag, false),
        None => (name.strip_prefix(ASSIGN_PREFIX)?, true),
    };
    let target = match tag {
        "bytea" => SqlType::Bytea,
        "text" => SqlType::Text,
        tag => {
            let metadata = [(TYPE_KEY.to_string(), tag.to_string())].into();
            SqlType::of(&Field::new("", DataType::Utf8View, true).with_metadata(metadata))
        }
    };
    needs_function(&target).then(|| udf(target, assign))
}

/// The function that converts to `target` on INSERT and UPDATE; None where Arrow's own cast does it.
pub(crate) fn assignment(target: &SqlType) -> Option<Arc<ScalarUDF>> {
    needs_function(target).then(|| udf(target.clone(), true))
}

fn udf(target: SqlType, assign: bool) -> Arc<ScalarUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(ScalarUDF::from(CastTo { name: target.to_string(), target, assign, signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CastTo {
    name: String,
    target: SqlType,
    assign: bool,
    signature: Signature,
}

impl ScalarUDFImpl for CastTo {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.target.data_type())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields.first().map(|f| SqlType::of(f)) {
            Some(from) if self.accepts(&from) => Ok(Arc::new(self.target.field(&self.name, true))),
            from => Err(self.refused(&from.unwrap_or(SqlType::Null))),
        }
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(arg) = args.args.into_iter().next() else { return Err(self.refused(&SqlType::Null)) };
        let from = args.arg_fields.first().map_or(SqlType::Text, |f| SqlType::of(f));
        let scalar = matches!(arg, ColumnarValue::Scalar(_));
        let input = arg.into_array(if scalar { 1 } else { args.number_rows })?;
        let output = self.convert(&input, &from)?;
        match scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&output, 0)?)),
            false => Ok(ColumnarValue::Array(output)),
        }
    }
}

impl CastTo {
    /// Anything has a text; uuid, json and bytea come of text (or of themselves).
    fn accepts(&self, from: &SqlType) -> bool {
        let is_text = matches!(from, SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Null);
        match &self.target {
            SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) => true,
            SqlType::Json | SqlType::Jsonb => is_text || matches!(from, SqlType::Json | SqlType::Jsonb),
            target => is_text || target == from,
        }
    }

    fn refused(&self, from: &SqlType) -> DataFusionError {
        external(SqlError::new(SqlState::CannotCoerce, format!("cannot cast type {from} to {}", self.target)))
    }

    fn convert(&self, input: &ArrayRef, from: &SqlType) -> Result<ArrayRef> {
        if self.target == SqlType::Bytea && *from == SqlType::Bytea {
            return Ok(compute::cast(input, &DataType::BinaryView)?);
        }
        let text = text::of(input, from)?;
        if matches!(self.target, SqlType::Text | SqlType::Varchar(None)) {
            return Ok(text);
        }
        let text = text.as_string_view();
        match &self.target {
            SqlType::Bytea => to_bytea(text),
            target => to_text(text, |value| to_type(target, self.assign, value)),
        }
    }
}

fn to_text(input: &StringViewArray, convert: impl Fn(&str) -> Result<String, SqlError>) -> Result<ArrayRef> {
    let mut output = StringViewBuilder::with_capacity(input.len());
    for value in input {
        match value {
            Some(value) => output.append_value(convert(value).map_err(external)?),
            None => output.append_null(),
        }
    }
    Ok(Arc::new(output.finish()))
}

fn to_bytea(input: &StringViewArray) -> Result<ArrayRef> {
    let mut output = BinaryViewBuilder::with_capacity(input.len());
    for value in input {
        match value {
            Some(value) => output.append_value(parse_bytea(value).map_err(external)?),
            None => output.append_null(),
        }
    }
    Ok(Arc::new(output.finish()))
}

fn to_type(target: &SqlType, assign: bool, value: &str) -> Result<String, SqlError> {
    match target {
        SqlType::Uuid => parse_uuid(value),
        SqlType::Json => parse_json(value).map(|_| value.to_owned()),
        SqlType::Jsonb => parse_json(value).map(|json| normalize(&json)),
        SqlType::Varchar(Some(n)) => fit(value, *n, assign, target),
        SqlType::Char(n) => fit(value, *n, assign, target).map(|s| format!("{s:0$}", *n as usize)),
        _ => Ok(value.to_owned()),
    }
}

/// At most `n` characters. An explicit cast truncates; an assignment truncates blanks only.
fn fit(value: &str, n: u32, assign: bool, target: &SqlType) -> Result<String, SqlError> {
    let Some((end, _)) = value.char_indices().nth(n as usize) else { return Ok(value.to_owned()) };
    let (kept, rest) = value.split_at(end);
    if assign && rest.chars().any(|c| c != ' ') {
        let message = format!("value too long for type {target}");
        return Err(SqlError::new(SqlState::StringDataRightTruncation, message));
    }
    Ok(kept.to_owned())
}

fn invalid(sql_type: &str, value: &str) -> SqlError {
    SqlError::new(
        SqlState::InvalidTextRepresentation,
        format!("invalid input syntax for type {sql_type}: \"{}\"", shortened(value)),
    )
}

fn shortened(value: &str) -> String {
    match value.char_indices().nth(100) {
        Some((end, _)) => format!("{}...", value.get(..end).unwrap_or_default()),
        None => value.to_owned(),
    }
}

/// 32 hexadecimal digits, in braces or not, hyphens after any group of four.
fn parse_uuid(value: &str) -> Result<String, SqlError> {
    let trimmed = value.strip_prefix('{').and_then(|v| v.strip_suffix('}')).unwrap_or(value);
    let mut uuid = String::with_capacity(36);
    let mut n_digits = 0;
    let mut after_hyphen = true;
    for c in trimmed.chars() {
        match c {
            '-' if n_digits % 4 == 0 && !after_hyphen => after_hyphen = true,
            c if c.is_ascii_hexdigit() && n_digits < 32 => {
                if matches!(n_digits, 8 | 12 | 16 | 20) {
                    uuid.push('-');
                }
                uuid.push(c.to_ascii_lowercase());
                n_digits += 1;
                after_hyphen = false;
            }
            _ => return Err(invalid("uuid", value)),
        }
    }
    match n_digits == 32 && !after_hyphen {
        true => Ok(uuid),
        false => Err(invalid("uuid", value)),
    }
}

fn parse_json(value: &str) -> Result<Value, SqlError> {
    Value::from_str(value).map_err(|error| {
        SqlError::new(SqlState::InvalidTextRepresentation, "invalid input syntax for type json")
            .with_detail(format!("The value is \"{}\": {error}.", shortened(value)))
    })
}

/// jsonb as PostgreSQL prints it: keys by length and then by bytes, one blank after each comma and colon.
pub(crate) fn normalize(json: &Value) -> String {
    let mut out = String::new();
    write_json(json, &mut out);
    out
}

fn write_json(json: &Value, out: &mut String) {
    match json {
        Value::Array(items) => {
            out.push('[');
            for (idx, item) in items.iter().enumerate() {
                out.push_str(if idx == 0 { "" } else { ", " });
                write_json(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| (key.len(), key.as_str()));
            out.push('{');
            for (idx, (key, value)) in fields.into_iter().enumerate() {
                out.push_str(if idx == 0 { "" } else { ", " });
                // Writing to a String cannot fail.
                let _ = write!(out, "{}: ", Value::from(key.as_str()));
                write_json(value, out);
            }
            out.push('}');
        }
        scalar => {
            let _ = write!(out, "{scalar}");
        }
    }
}

/// `\x` and hexadecimal digits, or text with `\\` and `\ooo` escapes.
fn parse_bytea(value: &str) -> Result<Vec<u8>, SqlError> {
    match value.strip_prefix("\\x") {
        Some(digits) => parse_hex(digits),
        None => parse_escapes(value),
    }
}

fn parse_hex(digits: &str) -> Result<Vec<u8>, SqlError> {
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    let mut high = None;
    for c in digits.chars().filter(|c| !c.is_whitespace()) {
        let Some(digit) = c.to_digit(16) else {
            let message = format!("invalid hexadecimal digit: \"{c}\"");
            return Err(SqlError::new(SqlState::InvalidTextRepresentation, message));
        };
        match high.take() {
            None => high = Some(digit),
            Some(high) => bytes.push((high * 16 + digit) as u8),
        }
    }
    match high {
        None => Ok(bytes),
        Some(_) => {
            Err(SqlError::new(SqlState::InvalidTextRepresentation, "invalid hexadecimal data: odd number of digits"))
        }
    }
}

fn parse_escapes(value: &str) -> Result<Vec<u8>, SqlError> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match (rest.next(), rest.clone().next()) {
            (Some(b'\\'), _) => bytes.push(b'\\'),
            (Some(a @ b'0'..=b'3'), Some(b @ b'0'..=b'7')) => {
                rest.next();
                let Some(c @ b'0'..=b'7') = rest.next() else { return Err(invalid("bytea", value)) };
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            }
            _ => return Err(invalid("bytea", value)),
        }
    }
    Ok(bytes)
}

pub(crate) fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_read_in_all_of_postgresqls_forms() {
        let expected = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for text in [
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
        ] {
            assert_eq!(parse_uuid(text).unwrap(), expected);
        }
        for text in ["", "a0eebc99", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1-1", "a0eebc999c0b4ef8bb6d6bb9bd380a11-", "é"]
        {
            assert_eq!(parse_uuid(text).unwrap_err().state(), SqlState::InvalidTextRepresentation, "{text}");
        }
    }

    #[test]
    fn jsonb_is_normalized() {
        let json = parse_json(r#"{"bb":1,"a":[1 ,{"x":null}], "a": "é\n"}"#).unwrap();
        assert_eq!(normalize(&json), r#"{"a": "é\n", "bb": 1}"#);
    }

    #[test]
    fn bytea_is_read_in_both_forms() {
        assert_eq!(parse_bytea("\\x00ffA0").unwrap(), [0, 255, 160]);
        assert_eq!(parse_bytea("a\\\\b\\001").unwrap(), *b"a\\b\x01");
        assert!(parse_bytea("\\x0").is_err());
        assert!(parse_bytea("\\9").is_err());
    }

    #[test]
    fn an_assignment_refuses_what_a_cast_truncates() {
        let varchar = SqlType::Varchar(Some(2));
        assert_eq!(to_type(&varchar, false, "éab").unwrap(), "éa");
        assert_eq!(to_type(&varchar, true, "ab  ").unwrap(), "ab");
        assert_eq!(to_type(&varchar, true, "abc").unwrap_err().state(), SqlState::StringDataRightTruncation);
        assert_eq!(to_type(&SqlType::Char(4), true, "ab").unwrap(), "ab  ");
    }
}
