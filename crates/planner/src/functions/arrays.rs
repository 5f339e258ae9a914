//! Arrays: `&&`, `@>`, `<@`, and what tells of their sizes, which PostgreSQL counts in integers.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{self, SortOptions};
use arrow::datatypes::Int32Type;
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;
use datafusion::logical_expr::Expr;
use sqlparser::ast::BinaryOperator as Op;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::defined::{self, Definition, Overload, implied};
use super::json_order::in_order_of_values;
use super::spans::{SPAN, spans_of};
use super::text;

/// The functions.
pub(super) static ALL: &[Definition] = &[
    Definition { name: "array_length", resolve: |types| with_dimension(types, |c, _| by_dimension(c, |n| n)) },
    Definition { name: "array_upper", resolve: |types| with_dimension(types, |c, _| by_dimension(c, |n| n)) },
    Definition { name: "array_lower", resolve: |types| with_dimension(types, |c, _| by_dimension(c, |_| 1)) },
    Definition { name: "array_position", resolve: position },
    Definition { name: "array_ndims", resolve: |types| of_array(types, |c, _| by_row(c, n_dimensions)) },
    Definition {
        name: NOT_NULL,
        resolve: |types| {
            of_array(types, not_null).map(|o| Overload { result: types.first().cloned().unwrap_or(SqlType::Null), ..o })
        },
    },
    Definition {
        name: "cardinality",
        resolve: |types| of_array(types, |c, _| by_row(c, |items| Some(n_items(items)))),
    },
];

/// The function that makes an empty array of NULL.
pub(crate) const NOT_NULL: &str = "array or empty";

static OVERLAP: Definition = Definition { name: "&&", resolve: |types| of_two(types, overlap) };
static CONTAINS: Definition = Definition { name: "@>", resolve: |types| of_two(types, |c, t| contains(c, t, false)) };
static CONTAINED: Definition = Definition { name: "<@", resolve: |types| of_two(types, |c, t| contains(c, t, true)) };

static LESS: Definition = Definition { name: "<", resolve: |types| of_two(types, |c, _| compared(c, Ordering::is_lt)) };
static LESS_OR_EQUAL: Definition =
    Definition { name: "<=", resolve: |types| of_two(types, |c, _| compared(c, Ordering::is_le)) };
static GREATER: Definition =
    Definition { name: ">", resolve: |types| of_two(types, |c, _| compared(c, Ordering::is_gt)) };
static GREATER_OR_EQUAL: Definition =
    Definition { name: ">=", resolve: |types| of_two(types, |c, _| compared(c, Ordering::is_ge)) };

/// The call that computes `left op right`, where a side is an array. None: DataFusion's operator does.
pub(super) fn plan(op: &Op, left: &Expr, right: &Expr, types: (&SqlType, &SqlType)) -> Option<Expr> {
    let definition = match op {
        Op::PGOverlap => &OVERLAP,
        Op::AtArrow => &CONTAINS,
        Op::ArrowAt => &CONTAINED,
        Op::Lt => &LESS,
        Op::LtEq => &LESS_OR_EQUAL,
        Op::Gt => &GREATER,
        Op::GtEq => &GREATER_OR_EQUAL,
        _ => return None,
    };
    let is_array = |t: &SqlType| matches!(t, SqlType::Array(_));
    (is_array(types.0) || is_array(types.1)).then(|| defined::call(definition, vec![left.clone(), right.clone()]))
}

fn of_array(types: &[SqlType], call: defined::Call) -> Option<Overload> {
    match types {
        [SqlType::Array(_)] => Overload::of(types, SqlType::Int4, call),
        _ => None,
    }
}

fn with_dimension(types: &[SqlType], call: defined::Call) -> Option<Overload> {
    match types {
        [array @ SqlType::Array(_), n] if implied(n, &SqlType::Int4) => {
            Some(Overload { args: vec![array.clone(), SqlType::Int4], result: SqlType::Int4, call })
        }
        _ => None,
    }
}

fn of_two(types: &[SqlType], call: defined::Call) -> Option<Overload> {
    let common = match types {
        [SqlType::Array(left), SqlType::Array(right)] => common(left, right)?,
        [SqlType::Array(own), other] | [other, SqlType::Array(own)]
            if matches!(other, SqlType::Text | SqlType::Null) =>
        {
            own.as_ref().clone()
        }
        _ => return None,
    };
    let args = vec![SqlType::Array(Box::new(common)); 2];
    Some(Overload { args, result: SqlType::Bool, call })
}

pub(super) fn common(left: &SqlType, right: &SqlType) -> Option<SqlType> {
    use SqlType as T;
    match (left, right) {
        (left, right) if left == right => Some(left.clone()),
        (T::Null, other) | (other, T::Null) => Some(other.clone()),
        (T::Array(left), T::Array(right)) => Some(T::Array(Box::new(common(left, right)?))),
        (T::Text | T::Varchar(_) | T::Char(_), T::Text | T::Varchar(_) | T::Char(_)) => Some(T::Text),
        (T::Numeric(_), T::Numeric(_)) => Some(T::Numeric(None)),
        (left, right) if implied(left, right) && *left != T::Text => Some(right.clone()),
        (left, right) if implied(right, left) && *right != T::Text => Some(left.clone()),
        _ => None,
    }
}

/// Texts that are equal where the values are.
pub(super) fn comparable(values: &ArrayRef, own: &SqlType) -> Result<ArrayRef> {
    match own {
        SqlType::Interval => text::of(&spans_of(values)?, &SPAN),
        SqlType::Jsonb => text::of(&in_order_of_values(values)?, &SqlType::Bytea),
        own => text::of(values, own),
    }
}

/// The items of each row as texts: as they are shown, or as they are [`comparable`].
pub(super) fn items(
    columns: &[ArrayRef],
    types: &[SqlType],
    idx: usize,
    as_texts: fn(&ArrayRef, &SqlType) -> Result<ArrayRef>,
) -> Result<Vec<Option<Vec<Option<String>>>>> {
    let (Some(column), Some(SqlType::Array(element))) = (columns.get(idx), types.get(idx)) else {
        return Err(external(SqlError::internal("two arrays")));
    };
    let rows = column.as_list::<i32>().iter().map(|row| {
        let Some(row) = row else { return Ok(None) };
        let texts = as_texts(&row, element)?;
        Ok(Some(texts.as_string_view().iter().map(|item| item.map(str::to_owned)).collect()))
    });
    rows.collect()
}

/// The first items that differ decide, and of them a NULL is the largest; else the lengths.
fn compared(columns: &[ArrayRef], is: impl Fn(Ordering) -> bool) -> Result<ArrayRef> {
    let [left, right] = columns else { return Err(external(SqlError::internal("two arrays"))) };
    let order = SortOptions { descending: false, nulls_first: false };
    let converter = RowConverter::new(vec![SortField::new_with_options(left.data_type().clone(), order)])?;
    let right = compute::cast(right, left.data_type())?;
    let (lefts, rights) = (
        converter.convert_columns(std::slice::from_ref(left))?,
        converter.convert_columns(std::slice::from_ref(&right))?,
    );
    let rows = (0..left.len())
        .map(|row| (left.is_valid(row) && right.is_valid(row)).then(|| is(lefts.row(row).cmp(&rights.row(row)))));
    Ok(Arc::new(rows.collect::<BooleanArray>()))
}

/// `array_position(array, item)`: NULLs are equal to each other.
fn position(types: &[SqlType]) -> Option<Overload> {
    let (SqlType::Array(own), [item, from @ ..]) = (types.first()?, types.get(1..)?) else { return None };
    let element = common(own, item).or_else(|| matches!(item, SqlType::Text).then(|| own.as_ref().clone()))?;
    let mut args = vec![SqlType::Array(Box::new(element.clone())), element];
    match from {
        [] => {}
        [from] if implied(from, &SqlType::Int4) => args.push(SqlType::Int4),
        _ => return None,
    }
    Some(Overload { args, result: SqlType::Int4, call: positions })
}

/// Where the item is for the first time, or for the first time from a place on. Errors: `22004` for no place.
fn positions(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let (Some(wanted), Some(item)) = (columns.get(1), types.get(1)) else {
        return Err(external(SqlError::internal("two arguments")));
    };
    let wanted = comparable(wanted, item)?;
    let from = columns.get(2).map(AsArray::as_primitive::<Int32Type>);
    let rows = items(columns, types, 0, comparable)?.into_iter().zip(wanted.as_string_view()).enumerate();
    let rows = rows.map(|(row, (items, wanted))| {
        let Some(items) = items else { return Ok(None) };
        let n_before = match from {
            None => 0,
            Some(from) if from.is_null(row) => {
                let message = "initial position must not be null";
                return Err(external(SqlError::new(SqlState::NullValueNotAllowed, message)));
            }
            Some(from) => usize::try_from(from.value(row).max(1) - 1).unwrap_or_default(),
        };
        let place = items.iter().skip(n_before).position(|item| item.as_deref() == wanted);
        Ok(place.and_then(|place| i32::try_from(place + n_before + 1).ok()))
    });
    Ok(Arc::new(rows.collect::<Result<Int32Array>>()?))
}

fn overlap(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let (left, right) = (items(columns, types, 0, comparable)?, items(columns, types, 1, comparable)?);
    let rows = left.into_iter().zip(right).map(|(left, right)| {
        let left: HashSet<String> = left?.into_iter().flatten().collect();
        Some(right?.into_iter().flatten().any(|item| left.contains(&item)))
    });
    Ok(Arc::new(rows.collect::<BooleanArray>()))
}

fn contains(columns: &[ArrayRef], types: &[SqlType], swapped: bool) -> Result<ArrayRef> {
    let (left, right) = (items(columns, types, 0, comparable)?, items(columns, types, 1, comparable)?);
    let (wholes, parts) = if swapped { (right, left) } else { (left, right) };
    let rows = wholes.into_iter().zip(parts).map(|(whole, part)| {
        let whole: HashSet<String> = whole?.into_iter().flatten().collect();
        Some(part?.into_iter().all(|item| item.is_some_and(|item| whole.contains(&item))))
    });
    Ok(Arc::new(rows.collect::<BooleanArray>()))
}

fn not_null(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let Some(lists) = columns.first().and_then(|lists| lists.as_list_opt::<i32>()) else {
        return Err(external(SqlError::internal("no array")));
    };
    if lists.null_count() == 0 {
        return Ok(Arc::new(lists.clone()));
    }
    // A NULL may stand over items that do not count.
    let mut offsets = vec![0];
    let mut kept = vec![];
    let mut n_kept = 0;
    for (row, range) in lists.value_offsets().windows(2).enumerate() {
        let [start, end] = range else { continue };
        if lists.is_valid(row) && start < end {
            kept.push(lists.values().slice(*start as usize, (*end - *start) as usize));
            n_kept += end - start;
        }
        offsets.push(n_kept);
    }
    let kept: Vec<&dyn Array> = kept.iter().map(|items| items.as_ref()).collect();
    let items = if kept.is_empty() { lists.values().slice(0, 0) } else { compute::concat(&kept)? };
    let arrow::datatypes::DataType::List(field) = lists.data_type() else {
        return Err(external(SqlError::internal("no array")));
    };
    Ok(Arc::new(ListArray::try_new(field.clone(), OffsetBuffer::new(offsets.into()), items, None)?))
}

fn by_row(columns: &[ArrayRef], of: impl Fn(&ArrayRef) -> Option<i32>) -> Result<ArrayRef> {
    let Some(lists) = columns.first() else { return Err(external(SqlError::internal("no argument"))) };
    Ok(Arc::new(lists.as_list::<i32>().iter().map(|items| of(&items?)).collect::<Int32Array>()))
}

fn by_dimension(columns: &[ArrayRef], of: impl Fn(i32) -> i32) -> Result<ArrayRef> {
    let [lists, dimensions] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let rows = lists.as_list::<i32>().iter().zip(dimensions.as_primitive::<Int32Type>());
    let sizes = rows.map(|(items, dimension)| size(&items?, dimension?).map(&of));
    Ok(Arc::new(sizes.collect::<Int32Array>()))
}

/// The size of a dimension, from 1. None: the array has no such dimension.
fn size(items: &ArrayRef, dimension: i32) -> Option<i32> {
    if dimension < 1 || items.is_empty() {
        return None;
    }
    if dimension == 1 {
        return i32::try_from(items.len()).ok();
    }
    let inner = items.as_list_opt::<i32>()?;
    size(&inner.iter().flatten().next()?, dimension - 1)
}

fn n_dimensions(items: &ArrayRef) -> Option<i32> {
    if items.is_empty() {
        return None;
    }
    match items.as_list_opt::<i32>() {
        None => Some(1),
        Some(inner) => Some(1 + inner.iter().flatten().next().and_then(|items| n_dimensions(&items)).unwrap_or(0)),
    }
}

fn n_items(items: &ArrayRef) -> i32 {
    match items.as_list_opt::<i32>() {
        None => i32::try_from(items.len()).unwrap_or(i32::MAX),
        Some(inner) => inner.iter().flatten().map(|items| n_items(&items)).sum(),
    }
}
