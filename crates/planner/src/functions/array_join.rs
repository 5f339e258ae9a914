//! Arrays put together of values and of others: `ARRAY[..]`, `array_cat`, `array_append`, `array_prepend`, and `||`, which
//! is any of these three. The items get the type that they have in common. A NULL array counts as an empty one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute;
use datafusion::common::Result;
use datafusion::logical_expr::Expr;
use sqlparser::ast::BinaryOperator as Op;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::array_items::collected;
use super::arrays::common;
use super::cast::external;
use super::defined::{self, Definition, Overload};
use super::operators::read_as;
use super::type_names::without_modifier;

/// The functions.
pub(super) static ALL: &[Definition] = &[
    Definition { name: ARRAY, resolve: array },
    Definition { name: "array_cat", resolve: cat },
    Definition { name: "array_append", resolve: append },
    Definition { name: "array_prepend", resolve: prepend },
];

/// `ARRAY[..]` as a function.
pub(crate) const ARRAY: &str = "make_array";

static JOIN: Definition = Definition {
    name: "||",
    resolve: |types| match types {
        [left, right] if is_array(left) && is_array(right) || *left == SqlType::Null || *right == SqlType::Null => {
            cat(types)
        }
        [SqlType::Array(own), item] if !is_other_text(own, item) => append(types),
        [item, SqlType::Array(own)] if !is_other_text(own, item) => prepend(types),
        _ => None,
    },
};

/// The call that computes `left || right`, where a side is an array. None: DataFusion's operator does.
pub(super) fn plan(op: &Op, left: &Expr, right: &Expr, types: (&SqlType, &SqlType)) -> Option<Expr> {
    if !matches!(op, Op::StringConcat) {
        return None;
    }
    // A literal beside an array is read as an array.
    let read = |side: &Expr, other: &SqlType| match other {
        SqlType::Array(_) => read_as(side.clone(), other, &other.data_type()),
        _ => side.clone(),
    };
    (is_array(types.0) || is_array(types.1))
        .then(|| defined::call(&JOIN, vec![read(left, types.1), read(right, types.0)]))
}

fn is_array(sql_type: &SqlType) -> bool {
    matches!(sql_type, SqlType::Array(_))
}

/// Whether the value is a text and the items are none.
fn is_other_text(own: &SqlType, item: &SqlType) -> bool {
    let is_text = |t: &SqlType| matches!(t, SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_));
    is_text(item) && !is_text(own)
}

fn array(types: &[SqlType]) -> Option<Overload> {
    let item = common_item(types).ok()?;
    Some(Overload { args: vec![item.clone(); types.len()], result: SqlType::Array(Box::new(item)), call: listed })
}

/// The type of `ARRAY[..]`'s items. Err: two that have none in common.
fn common_item(types: &[SqlType]) -> std::result::Result<SqlType, (SqlType, SqlType)> {
    let mut item = SqlType::Null;
    for next in types {
        item = match (&item, next) {
            // A literal is still text, and takes the type of the others.
            (_, SqlType::Text) if is_other_text(&item, next) && item != SqlType::Null => item,
            (SqlType::Text, _) if is_other_text(next, &item) && *next != SqlType::Null => next.clone(),
            _ => common_of(&item, next).ok_or_else(|| (item.clone(), next.clone()))?,
        };
    }
    Ok(if item == SqlType::Null { SqlType::Text } else { item })
}

/// As [`common`], with the scale of numerics that have the same.
fn common_of(left: &SqlType, right: &SqlType) -> Option<SqlType> {
    match (left, right) {
        (SqlType::Numeric(Some((l, scale))), SqlType::Numeric(Some((r, other)))) if scale == other => {
            Some(SqlType::Numeric(Some((*l.max(r), *scale))))
        }
        (SqlType::Array(left), SqlType::Array(right)) => {
            common_of(left, right).map(|item| SqlType::Array(Box::new(item)))
        }
        // Of texts, the first one's type counts.
        (SqlType::Varchar(l), SqlType::Varchar(r)) if l != r => Some(SqlType::Varchar(None)),
        (SqlType::Varchar(_), SqlType::Text) => Some(SqlType::Varchar(None)),
        (left, right) if left == right || *left == SqlType::Null || *right == SqlType::Null => common(left, right),
        _ => common(left, right).map(|item| without_modifier(&item)),
    }
}

/// Why there is no array of such items: `42804`.
pub(super) fn unmatched(types: &[SqlType]) -> Option<SqlError> {
    let (left, right) = common_item(types).err()?;
    let (left, right) = (without_modifier(&left), without_modifier(&right));
    let message = format!("ARRAY types {left} and {right} cannot be matched");
    Some(SqlError::new(SqlState::DatatypeMismatch, message))
}

/// A row of the columns as an array.
fn listed(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let (Some(first), Some(item)) = (columns.first(), types.first()) else {
        return Err(external(SqlError::internal("an array of no values")));
    };
    let n_rows = first.len();
    let from: Vec<&dyn Array> = columns.iter().map(AsRef::as_ref).collect();
    let places: Vec<_> = (0..n_rows).flat_map(|row| (0..columns.len()).map(move |idx| (idx, row))).collect();
    let offsets = OffsetBuffer::from_repeated_length(columns.len(), n_rows);
    let field = Arc::new(item.field("item", true));
    Ok(Arc::new(ListArray::try_new(field, offsets, compute::interleave(&from, &places)?, None)?))
}

fn cat(types: &[SqlType]) -> Option<Overload> {
    let array = match types {
        [SqlType::Array(left), SqlType::Array(right)] => array_of(left, right)?,
        [SqlType::Array(item), SqlType::Null] | [SqlType::Null, SqlType::Array(item)] => array_of(item, item)?,
        // Literals are still text.
        [array @ SqlType::Array(_), SqlType::Text] | [SqlType::Text, array @ SqlType::Array(_)] => array.clone(),
        _ => return None,
    };
    Some(Overload { args: vec![array.clone(); 2], result: array, call: joined })
}

fn append(types: &[SqlType]) -> Option<Overload> {
    let [array, item] = types else { return None };
    with_item(array, item, |array, item| vec![array, item])
}

fn prepend(types: &[SqlType]) -> Option<Overload> {
    let [item, array] = types else { return None };
    with_item(array, item, |array, item| vec![item, array])
}

fn with_item(array: &SqlType, item: &SqlType, args: fn(SqlType, SqlType) -> Vec<SqlType>) -> Option<Overload> {
    let array = match (array, item) {
        (_, SqlType::Array(_)) => return None,
        // A literal is still text, and takes the type of the items.
        (SqlType::Array(own), SqlType::Text) if is_other_text(own, item) => array_of(own, own)?,
        (SqlType::Array(own), item) => array_of(own, item)?,
        (SqlType::Null, SqlType::Null) => array_of(&SqlType::Text, &SqlType::Text)?,
        (SqlType::Null, item) => array_of(item, item)?,
        _ => return None,
    };
    let SqlType::Array(item) = &array else { return None };
    Some(Overload { args: args(array.clone(), item.as_ref().clone()), result: array, call: joined })
}

fn array_of(left: &SqlType, right: &SqlType) -> Option<SqlType> {
    let item = common_of(left, right)?;
    // A value of an operator has no length.
    let item = if matches!(item, SqlType::Varchar(_)) { SqlType::Varchar(None) } else { item };
    Some(SqlType::Array(Box::new(item)))
}

/// The items of both sides, each an array or an item. Both being NULL arrays, it is NULL.
fn joined(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let missing = || external(SqlError::internal("two arguments, one of them an array"));
    let ([left, right], [left_type, right_type]) = (columns, types) else { return Err(missing()) };
    let array = if is_array(left_type) { left_type } else { right_type };
    let sides = [Side::of(left, left_type), Side::of(right, right_type)];
    let rows = (0..left.len()).map(|row| {
        let items_of = |(idx, side): (usize, &Side<'_>)| side.items_of(row).map(move |place| (idx, place));
        sides
            .iter()
            .any(|side| side.is_valid(row))
            .then(|| sides.iter().enumerate().flat_map(items_of).collect::<Vec<_>>())
    });
    collected(&array.data_type(), &sides.each_ref().map(Side::items), rows)
}

/// One side of `||`.
enum Side<'a> {
    Lists(&'a ListArray),
    Items(&'a ArrayRef),
}

impl Side<'_> {
    fn of<'a>(column: &'a ArrayRef, sql_type: &SqlType) -> Side<'a> {
        match column.as_list_opt::<i32>() {
            Some(lists) if is_array(sql_type) => Side::Lists(lists),
            _ => Side::Items(column),
        }
    }

    fn items(&self) -> &dyn Array {
        match self {
            Side::Lists(lists) => lists.values().as_ref(),
            Side::Items(items) => items.as_ref(),
        }
    }

    /// Where the row's items stand among all.
    fn items_of(&self, row: usize) -> std::ops::Range<usize> {
        match self {
            Side::Lists(lists) if lists.is_valid(row) => {
                let at = |idx: usize| lists.value_offsets().get(idx).map_or(0, |offset| *offset as usize);
                at(row)..at(row + 1)
            }
            Side::Lists(_) => 0..0,
            Side::Items(_) => row..row + 1,
        }
    }

    /// A value makes an array, also if it is NULL.
    fn is_valid(&self, row: usize) -> bool {
        match self {
            Side::Lists(lists) => lists.is_valid(row),
            Side::Items(_) => true,
        }
    }
}
