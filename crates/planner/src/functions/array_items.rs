//! Arrays made from the items of another, or of one value: `array_remove`, `array_replace`, `array_positions`,
//! `trim_array`, `array_fill`. A NULL among the items equals a NULL that is looked for.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute;
use arrow::datatypes::{DataType, Int32Type};
use datafusion::common::{DataFusionError, Result};
use tidewire_types::{SqlError, SqlState, SqlType};

use super::arrays::{common, comparable, items};
use super::cast::external;
use super::defined::{Call, Definition, Overload, implied};

/// Items that one array may have.
const ITEMS_MAX: i64 = (1 << 27) - 1;

/// The functions.
pub(super) static ALL: &[Definition] = &[
    Definition { name: "array_remove", resolve: |types| with_items(types, 1, remove) },
    Definition { name: "array_replace", resolve: |types| with_items(types, 2, replace) },
    Definition {
        name: "array_positions",
        resolve: |types| {
            let result = SqlType::Array(Box::new(SqlType::Int4));
            with_items(types, 1, positions).map(|overload| Overload { result, ..overload })
        },
    },
    Definition {
        name: "trim_array",
        resolve: |types| match types {
            [array @ SqlType::Array(_), n] if implied(n, &SqlType::Int4) => {
                Some(Overload { args: vec![array.clone(), SqlType::Int4], result: array.clone(), call: trim })
            }
            _ => None,
        },
    },
    Definition {
        name: "array_fill",
        resolve: |types| match types {
            [item, sizes @ SqlType::Array(_)] => {
                let integers = SqlType::Array(Box::new(SqlType::Int4));
                let item = if *item == SqlType::Null { &SqlType::Text } else { item };
                let result = SqlType::Array(Box::new(item.clone()));
                (*sizes == integers).then(|| Overload { args: vec![item.clone(), integers], result, call: fill })
            }
            _ => None,
        },
    },
];

/// An array and so many items of its type.
fn with_items(types: &[SqlType], n_items: usize, call: Call) -> Option<Overload> {
    let [SqlType::Array(own), given @ ..] = types else { return None };
    if given.len() != n_items {
        return None;
    }
    let mut element = own.as_ref().clone();
    for item in given.iter().filter(|item| !matches!(item, SqlType::Text)) {
        element = common(&element, item)?;
    }
    let array = SqlType::Array(Box::new(element.clone()));
    let args = std::iter::once(array.clone()).chain(std::iter::repeat_n(element, n_items)).collect();
    Some(Overload { args, result: array, call })
}

fn missing() -> DataFusionError {
    external(SqlError::internal("too few arguments"))
}

/// The array, and which of its items are equal to the row's second argument.
fn matched(columns: &[ArrayRef], types: &[SqlType]) -> Result<(ListArray, Vec<Option<Vec<bool>>>)> {
    let (Some(lists), Some(wanted), Some(element)) = (columns.first(), columns.get(1), types.get(1)) else {
        return Err(missing());
    };
    let wanted = comparable(wanted, element)?;
    let rows = items(columns, types, 0, comparable)?.into_iter().zip(wanted.as_string_view());
    let rows = rows.map(|(items, wanted)| Some(items?.iter().map(|item| item.as_deref() == wanted).collect()));
    Ok((lists.as_list::<i32>().clone(), rows.collect()))
}

fn remove(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let (lists, rows) = matched(columns, types)?;
    let kept = rows.iter().enumerate().map(|(row, matched)| {
        let matched = matched.as_ref()?;
        Some(
            matched
                .iter()
                .enumerate()
                .filter(|(_, matched)| !**matched)
                .map(|(idx, _)| (0, place(&lists, row, idx)))
                .collect::<Vec<_>>(),
        )
    });
    collected(lists.data_type(), &[lists.values()], kept)
}

fn replace(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let (lists, rows) = matched(columns, types)?;
    let Some(others) = columns.get(2) else { return Err(missing()) };
    let replaced = rows.iter().enumerate().map(|(row, matched)| {
        let item = |(idx, matched): (usize, &bool)| if *matched { (1, row) } else { (0, place(&lists, row, idx)) };
        Some(matched.as_ref()?.iter().enumerate().map(item).collect::<Vec<_>>())
    });
    collected(lists.data_type(), &[lists.values(), others], replaced)
}

fn positions(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let (_, rows) = matched(columns, types)?;
    let positions = rows.into_iter().map(|matched| {
        Some(
            (1..).zip(matched?).filter(|(_, matched)| *matched).map(|(position, _)| Some(position)).collect::<Vec<_>>(),
        )
    });
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(positions);
    Ok(compute::cast(&lists, &SqlType::Array(Box::new(SqlType::Int4)).data_type())?)
}

/// Errors: `2202E`.
fn trim(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let [lists, counts] = columns else { return Err(missing()) };
    let lists = lists.as_list::<i32>();
    let mut kept = vec![];
    for (row, n) in counts.as_primitive::<Int32Type>().iter().enumerate() {
        let Some(n) = n.filter(|_| lists.is_valid(row)) else {
            kept.push(None);
            continue;
        };
        let n_items = lists.value(row).len();
        let n_kept = usize::try_from(n).ok().and_then(|n| n_items.checked_sub(n)).ok_or_else(|| {
            let message = format!("number of elements to trim must be between 0 and {n_items}");
            external(SqlError::new(SqlState::ArraySubscriptError, message))
        })?;
        kept.push(Some((0..n_kept).map(|idx| (0, place(lists, row, idx))).collect::<Vec<_>>()));
    }
    collected(lists.data_type(), &[lists.values()], kept.into_iter())
}

/// Errors: `0A000` for more than one dimension, `22004`, `54000`.
fn fill(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let ([items, sizes], Some(item)) = (columns, types.first()) else { return Err(missing()) };
    let null = || external(SqlError::new(SqlState::NullValueNotAllowed, "dimension values cannot be null"));
    let mut indices = vec![];
    let mut offsets = vec![0_i32];
    for (row, sizes) in sizes.as_list::<i32>().iter().enumerate() {
        let sizes = sizes.ok_or_else(null)?;
        let size = match sizes.as_primitive::<Int32Type>().iter().collect::<Vec<_>>().as_slice() {
            [] => 0,
            [size] => size.ok_or_else(null)?,
            _ => return Err(external(SqlError::unsupported("array_fill() of several dimensions"))),
        };
        let n_items = indices.len() as i64 + i64::from(size);
        if size < 0 || n_items > ITEMS_MAX {
            let message = format!("array size exceeds the maximum allowed ({ITEMS_MAX})");
            return Err(external(SqlError::new(SqlState::ProgramLimitExceeded, message)));
        }
        indices.extend(std::iter::repeat_n(row as i32, size as usize));
        offsets.push(n_items as i32);
    }
    let values = compute::take(items, &Int32Array::from(indices), None)?;
    let field = Arc::new(item.field("item", true));
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::new(offsets.into()), values, None)?))
}

/// Where an item of a row stands among the items of all rows.
fn place(lists: &ListArray, row: usize, idx: usize) -> usize {
    lists.value_offsets().get(row).map_or(0, |offset| *offset as usize) + idx
}

/// Arrays of that type, each of items that are told by the array of `from` and the place in it.
pub(super) fn collected<I: IntoIterator<Item = (usize, usize)>>(
    lists: &DataType,
    from: &[&dyn Array],
    rows: impl Iterator<Item = Option<I>>,
) -> Result<ArrayRef> {
    let DataType::List(field) = lists else { return Err(external(SqlError::internal("no array"))) };
    let mut places = vec![];
    let mut offsets = vec![0_i32];
    let mut valid = vec![];
    for row in rows {
        valid.push(row.is_some());
        places.extend(row.into_iter().flatten());
        let end = i32::try_from(places.len()).map_err(|_| external(SqlError::internal("too many items at once")))?;
        offsets.push(end);
    }
    let items = compute::interleave(from, &places)?;
    let nulls = NullBuffer::from(valid);
    Ok(Arc::new(ListArray::try_new(field.clone(), OffsetBuffer::new(offsets.into()), items, Some(nulls))?))
}
