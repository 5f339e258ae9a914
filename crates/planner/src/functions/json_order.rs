//! The bytes by which jsonb is compared, in PostgreSQL's order of its values.
//!
//! Of two types the order is null, string, number, boolean, array, object. The longer array is the greater one, whatever is in
//! it, and so is the object with more keys. A scalar by itself is an array of one item there, which comes before all
//! other arrays of one item; so an empty array comes before every scalar. Numbers are equal by their value (1.0 is 1).

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryViewArray};
use datafusion::common::Result;
use datafusion::logical_expr::Expr;
use serde_json::Value;
use tidewire_types::SqlType;

use super::defined::{self, Definition, Overload};
use super::json_pieces::invalid;
use super::spans::first;

static IN_ORDER: Definition = Definition {
    name: "order of jsonb",
    resolve: |types| match types {
        [_] => Overload::of(&[SqlType::Jsonb], SqlType::Bytea, |columns, _| in_order_of_values(first(columns)?)),
        _ => None,
    },
};

/// What a jsonb is compared and ordered by.
pub(crate) fn in_json_order(json: Expr) -> Expr {
    defined::call(&IN_ORDER, vec![json])
}

const NULL: u8 = 1;
const STRING: u8 = 2;
const NUMBER: u8 = 3;
const BOOLEAN: u8 = 4;
const ARRAY: u8 = 5;
const OBJECT: u8 = 6;

pub(super) fn in_order_of_values(documents: &ArrayRef) -> Result<ArrayRef> {
    let keys = documents.as_string_view().iter().map(|document| {
        let Some(document) = document else { return Ok(None) };
        let value: Value = serde_json::from_str(document).map_err(|_| invalid())?;
        let mut key = vec![];
        if !value.is_array() && !value.is_object() {
            begin(ARRAY, 1, &mut key);
            key.push(0);
        }
        put(&value, &mut key);
        Ok(Some(key))
    });
    Ok(Arc::new(keys.collect::<Result<BinaryViewArray>>()?))
}

fn begin(kind: u8, n_items: usize, key: &mut Vec<u8>) {
    key.push(kind);
    key.extend((n_items as u64).to_be_bytes());
}

fn put(value: &Value, key: &mut Vec<u8>) {
    match value {
        Value::Null => key.push(NULL),
        Value::String(text) => put_text(text, key),
        Value::Number(number) => {
            key.push(NUMBER);
            put_number(number.as_str(), key);
        }
        Value::Bool(value) => key.extend([BOOLEAN, u8::from(*value)]),
        Value::Array(items) => {
            begin(ARRAY, items.len(), key);
            key.push(1);
            items.iter().for_each(|item| put(item, key));
        }
        Value::Object(map) => {
            begin(OBJECT, map.len(), key);
            // As they are stored: the shorter key first.
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_unstable_by_key(|(name, _)| (name.len(), *name));
            for (name, value) in pairs {
                put_text(name, key);
                put(value, key);
            }
        }
    }
}

/// A text of jsonb has no character 0.
fn put_text(text: &str, key: &mut Vec<u8>) {
    key.push(STRING);
    key.extend(text.as_bytes());
    key.push(0);
}

/// The sign, the place of the first digit before or behind the point, and the digits; of a negative number the complement of
/// the latter two.
fn put_number(number: &str, key: &mut Vec<u8>) {
    let (is_negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number),
    };
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let n_leading = digits.len() - digits.trim_start_matches('0').len();
    let digits = digits.trim_matches('0');
    if digits.is_empty() {
        key.push(1);
        return;
    }
    let place = exponent.saturating_add(whole.len() as i64).saturating_sub(n_leading as i64);
    key.push(if is_negative { 0 } else { 2 });
    let start = key.len();
    key.extend((place as u64 ^ 1 << 63).to_be_bytes());
    key.extend(digits.as_bytes());
    key.push(0);
    if is_negative {
        key.iter_mut().skip(start).for_each(|byte| *byte = !*byte);
    }
}
