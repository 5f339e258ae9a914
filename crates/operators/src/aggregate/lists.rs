//! Aggregates that put the rows of a group together, in order: `string_agg`, `array_agg`, `json_agg`,
//! `json_object_agg`, `first_value`, `last_value`, `any_value`.
//!
//! The rows of a group are an ordered multiset; a touched group is put together anew once a step. Rows are ordered by
//! the ORDER BY inside the call, then by the arguments, so that the result is a function of the input.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, Int64Array, ListArray, StringViewArray};
use arrow::compute::{SortOptions, cast, take};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use tidewire_types::{Result, SqlError, SqlState};

use super::codec::Rows;
use super::multiset::Multiset;
use super::ordered::list_value;
use super::values::Values;
use crate::expr::{scalar, sql_error};

/// How rows are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// `string_agg(text or bytea, separator)`: NULLs are left out.
    Text,
    /// `array_agg(any)`, NULLs included.
    Array,
    /// `json_agg(json)`, NULLs as `null`.
    Json,
    /// `json_object_agg(key text, value json)`.
    JsonObject,
    /// `first_value(any)`.
    First,
    /// `last_value(any)`.
    Last,
    /// `any_value(any)`: the least one that is not NULL.
    Any,
}

/// The state of one such call.
pub(super) struct Lists {
    function: List,
    field: FieldRef,
    distinct: bool,
    ignore_nulls: bool,
    n_args: usize,
    n_order: usize,
    /// Encodes the ORDER BY columns, then the arguments.
    codec: Rows,
    groups: Vec<Multiset<Box<[u8]>>>,
    n_values: usize,
    value_bytes: usize,
}

/// What such a call is made of.
pub(super) struct ListCall<'a> {
    pub(super) function: List,
    pub(super) field: &'a FieldRef,
    pub(super) distinct: bool,
    pub(super) ignore_nulls: bool,
    /// Of the arguments, then the ORDER BY columns.
    pub(super) types: &'a [DataType],
    pub(super) order: &'a [SortOptions],
}

impl Lists {
    pub(super) fn new(call: &ListCall<'_>) -> Result<Lists> {
        let n_order = call.order.len();
        let n_args = call.types.len().saturating_sub(n_order);
        let mut types = call.types.to_vec();
        types.rotate_left(n_args);
        Ok(Lists {
            function: call.function,
            field: Arc::clone(call.field),
            distinct: call.distinct,
            ignore_nulls: call.ignore_nulls || call.function == List::Any,
            n_args,
            n_order,
            codec: Rows::new(types, call.order)?,
            groups: vec![],
            n_values: 0,
            value_bytes: 0,
        })
    }
}

impl Values for Lists {
    fn grow(&mut self, n_slots: usize) {
        self.groups.resize_with(n_slots.max(self.groups.len()), Multiset::default);
    }

    fn apply(&mut self, ids: &[u32], columns: &[ArrayRef], weights: Option<&[i64]>) -> Result<()> {
        let skips_nulls = self.ignore_nulls || self.function == List::Text;
        let nulls = columns.first().filter(|_| skips_nulls).and_then(|c| c.logical_nulls());
        let mut in_order = columns.to_vec();
        in_order.rotate_left(self.n_args.min(columns.len()));
        let rows = self.codec.encoded(&in_order)?;
        for (row_idx, (id, row)) in ids.iter().zip(rows.iter()).enumerate() {
            let weight = weights.and_then(|w| w.get(row_idx)).copied().unwrap_or(1);
            if weight == 0 || nulls.as_ref().is_some_and(|n| n.is_null(row_idx)) {
                continue;
            }
            if let Some(group) = self.groups.get_mut(*id as usize) {
                let change = group.add(row.data().into(), weight);
                self.n_values = self.n_values.saturating_add_signed(change);
                self.value_bytes = self.value_bytes.saturating_add_signed(change * row.data().len() as isize);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, id: u32) -> Result<ScalarValue> {
        let null = || ScalarValue::try_new_null(self.field.data_type()).map_err(sql_error);
        let Some(group) = self.groups.get(id as usize) else { return null() };
        let first = match self.function {
            List::First | List::Any => group.first(),
            List::Last => group.last(),
            _ => None,
        };
        if let Some(row) = first {
            let columns = self.codec.columns(std::iter::once(&**row))?;
            return match columns.get(self.n_order) {
                Some(column) => value_of(column, self.field.data_type()),
                None => null(),
            };
        }
        let args = self.rows(group)?;
        let n_rows = args.first().map_or(0, |c| c.len());
        if n_rows == 0 {
            return null();
        }
        match self.function {
            List::Text => joined(&args, self.field.data_type()),
            List::Array => array(&args, self.field.data_type()),
            List::Json => json_array(&args),
            List::JsonObject => json_object(&args),
            List::First | List::Last | List::Any => null(),
        }
    }

    fn forget(&mut self, id: u32) {
        if let Some(group) = self.groups.get_mut(id as usize) {
            *group = Multiset::default();
        }
    }

    fn bytes(&self) -> usize {
        Multiset::<Box<[u8]>>::estimated_bytes(self.groups.capacity(), self.n_values) + self.value_bytes
    }

    fn len(&self) -> usize {
        self.n_values
    }
}

impl Lists {
    /// The argument columns of a group's rows in order; copies written out unless DISTINCT.
    fn rows(&self, group: &Multiset<Box<[u8]>>) -> Result<Vec<ArrayRef>> {
        let columns = self.codec.columns(group.iter().map(|(row, _)| &**row))?;
        let args = columns.get(self.n_order..).unwrap_or_default();
        let is_plain = self.distinct || group.iter().all(|(_, count)| count == 1);
        if is_plain {
            return Ok(args.to_vec());
        }
        let counts = group.iter().enumerate();
        let copies = counts.flat_map(|(idx, (_, n))| (0..n).map(move |_| idx as i64)).collect::<Vec<_>>();
        let copies = Int64Array::from(copies);
        Ok(args.iter().map(|c| take(c, &copies, None)).collect::<Result<_, _>>()?)
    }
}

fn value_of(column: &ArrayRef, data_type: &DataType) -> Result<ScalarValue> {
    let column = if column.data_type() == data_type { Arc::clone(column) } else { cast(column, data_type)? };
    scalar(&column, 0).map_err(sql_error)
}

fn array(args: &[ArrayRef], data_type: &DataType) -> Result<ScalarValue> {
    let (Some(items), DataType::List(item)) = (args.first(), data_type) else {
        return Err(SqlError::internal("array_agg that gives no array"));
    };
    if let Some(lists) = items.as_list_opt::<i32>() {
        check_lengths(lists)?;
    }
    let items = if items.data_type() == item.data_type() { Arc::clone(items) } else { cast(items, item.data_type())? };
    list_value(items, item)
}

/// The arrays in an array are all there and have one length, which is not 0.
fn check_lengths(lists: &ListArray) -> Result<()> {
    if lists.null_count() > 0 {
        return Err(SqlError::new(SqlState::NullValueNotAllowed, "cannot accumulate null arrays"));
    }
    let mut lengths = lists.offsets().lengths();
    let first = lengths.next().unwrap_or(0);
    let message = match first {
        0 => "cannot accumulate empty arrays",
        _ if lengths.any(|length| length != first) => "cannot accumulate arrays of different dimensionality",
        _ => return Ok(()),
    };
    Err(SqlError::new(SqlState::ArraySubscriptError, message))
}

fn joined(args: &[ArrayRef], data_type: &DataType) -> Result<ScalarValue> {
    let as_bytes = args.iter().map(|c| cast(c, &DataType::BinaryView)).collect::<Result<Vec<_>, _>>()?;
    let columns: Vec<&BinaryViewArray> = as_bytes.iter().map(|c| c.as_binary_view()).collect();
    let [values, separators] = columns[..] else { return Err(SqlError::internal("string_agg of no two arguments")) };
    let mut all: Vec<u8> = vec![];
    for (row_idx, (value, separator)) in values.iter().zip(separators).enumerate() {
        if row_idx > 0 {
            all.extend_from_slice(separator.unwrap_or_default());
        }
        all.extend_from_slice(value.unwrap_or_default());
    }
    ScalarValue::BinaryView(Some(all)).cast_to(data_type).map_err(sql_error)
}

fn texts(args: &[ArrayRef]) -> Result<Vec<StringViewArray>> {
    let text = |c: &ArrayRef| Ok(cast(c, &DataType::Utf8View)?.as_string_view().clone());
    args.iter().map(text).collect()
}

fn json_array(args: &[ArrayRef]) -> Result<ScalarValue> {
    let columns = texts(args)?;
    Ok(ScalarValue::Utf8View(Some(json_list(columns.first().into_iter().flatten()))))
}

/// Values that are json (NULL is `null`) as one array, as `json_agg` writes it.
pub fn json_list<'a>(values: impl Iterator<Item = Option<&'a str>>) -> String {
    format!("[{}]", values.map(|value| value.unwrap_or("null")).collect::<Vec<_>>().join(", "))
}

fn json_object(args: &[ArrayRef]) -> Result<ScalarValue> {
    let columns = texts(args)?;
    let [keys, values] = &columns[..] else { return Err(SqlError::internal("json_object_agg of no two arguments")) };
    Ok(ScalarValue::Utf8View(Some(json_members(keys.iter().zip(values))?)))
}

/// Keys and values that are json (NULL is `null`) as one object, as `json_object_agg` writes it.
///
/// Errors: `22023` for a key that is NULL.
pub fn json_members<'a>(members: impl Iterator<Item = (Option<&'a str>, Option<&'a str>)>) -> Result<String> {
    let mut all = String::from("{ ");
    for (idx, (key, value)) in members.enumerate() {
        let Some(key) = key else {
            return Err(SqlError::new(SqlState::InvalidParameterValue, "field name must not be null"));
        };
        if idx > 0 {
            all.push_str(", ");
        }
        all.push_str(&json_text(key));
        all.push_str(" : ");
        all.push_str(value.unwrap_or("null"));
    }
    all.push_str(" }");
    Ok(all)
}

/// Text as a json string, escaped as PostgreSQL does.
pub fn json_text(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            c if c < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}
