//! Parts of arrays, and arrays as texts: subscripts, slices, `array_to_string`, `array_dims`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StringViewArray};
use arrow::compute;
use arrow::datatypes::Int64Type;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use tidewire_types::{SqlError, SqlType};

use super::array_items::collected;
use super::arrays::items;
use super::cast::external;
use super::defined::{self, Definition, Overload, implied};
use super::text;

/// The functions.
pub(super) static ALL: &[Definition] = &[
    Definition {
        name: "array_to_string",
        resolve: |types| match types {
            [array @ SqlType::Array(_), texts @ ..]
                if matches!(texts.len(), 1 | 2) && texts.iter().all(|t| implied(t, &SqlType::Text)) =>
            {
                let args = std::iter::once(array.clone()).chain(texts.iter().map(|_| SqlType::Text)).collect();
                Some(Overload { args, result: SqlType::Text, call: to_string })
            }
            _ => None,
        },
    },
    Definition {
        name: "array_dims",
        resolve: |types| match types {
            [SqlType::Array(_)] => Overload::of(types, SqlType::Text, dimensions),
            _ => None,
        },
    },
];

static SLICE: Definition = Definition {
    name: "slice of array",
    resolve: |types| match types {
        [array @ SqlType::Array(_), from, to] if implied(from, &SqlType::Int8) && implied(to, &SqlType::Int8) => {
            let args = vec![array.clone(), SqlType::Int8, SqlType::Int8];
            Some(Overload { args, result: array.clone(), call: sliced })
        }
        _ => None,
    },
};

static ITEM: Definition = Definition {
    name: "item of array",
    resolve: |types| match types {
        [array @ SqlType::Array(item), at] if implied(at, &SqlType::Int8) => {
            let args = vec![array.clone(), SqlType::Int8];
            Some(Overload { args, result: item.as_ref().clone(), call: item_at })
        }
        _ => None,
    },
};

/// `array[at]`.
pub(super) fn item(array: Expr, at: Expr) -> Expr {
    defined::call(&ITEM, vec![array, at])
}

/// `array[from:to]`.
pub(super) fn slice(array: Expr, from: Expr, to: Expr) -> Expr {
    defined::call(&SLICE, vec![array, from, to])
}

fn missing() -> DataFusionError {
    external(SqlError::internal("too few arguments"))
}

/// The item of that place, counted from 1; NULL where there is none.
fn item_at(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let [lists, at] = columns else { return Err(missing()) };
    let lists = lists.as_list_opt::<i32>().ok_or_else(missing)?;
    let places = at.as_primitive::<Int64Type>().iter().enumerate().map(|(row, at)| {
        let range = range(lists, row).filter(|_| lists.is_valid(row))?;
        let at = at.filter(|at| *at > 0)?.checked_add(range.start - 1)?;
        range.contains(&at).then_some(at)
    });
    let places: Int64Array = places.collect();
    Ok(compute::take(lists.values(), &places, None)?)
}

/// Where the items of a row stand among those of all rows.
fn range(lists: &ListArray, row: usize) -> Option<std::ops::Range<i64>> {
    let at = |idx: usize| lists.value_offsets().get(idx).map(|offset| i64::from(*offset));
    Some(at(row)?..at(row + 1)?)
}

/// The items from one place to another, both counted from 1; no items where there are none, NULL for a NULL bound.
fn sliced(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let [lists, from, to] = columns else { return Err(missing()) };
    let lists = lists.as_list_opt::<i32>().ok_or_else(missing)?;
    let bounds = from.as_primitive::<Int64Type>().iter().zip(to.as_primitive::<Int64Type>()).enumerate();
    let rows = bounds.map(|(row, bounds)| {
        let ((Some(from), Some(to)), Some(all), true) = (bounds, range(lists, row), lists.is_valid(row)) else {
            return None;
        };
        let from = all.start.saturating_add(from.max(1) - 1);
        let end = all.end.min(all.start.saturating_add(to.max(0)));
        Some((from..end).map(|place| (0, place as usize)))
    });
    collected(lists.data_type(), &[lists.values()], rows)
}

/// The items as texts with a text between them; a NULL as the third argument, or left out.
fn to_string(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let [_, between, for_null @ ..] = columns else { return Err(missing()) };
    let is_bool = matches!(types.first(), Some(SqlType::Array(item)) if **item == SqlType::Bool);
    let for_null = for_null.first().map(AsArray::as_string_view);
    let rows = items(columns, types, 0, text::of)?.into_iter().zip(between.as_string_view()).enumerate();
    let texts = rows.map(|(row, (items, between))| {
        let for_null = for_null.filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row));
        let items = items?;
        // A boolean is t or f here.
        let shown = items
            .iter()
            .map(|item| item.as_deref().map(|item| if is_bool { item.get(..1).unwrap_or(item) } else { item }));
        let shown: Vec<&str> = shown.filter_map(|item| item.or(for_null)).collect();
        Some(shown.join(between?))
    });
    Ok(Arc::new(texts.collect::<StringViewArray>()))
}

fn dimensions(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    fn of(list: &ArrayRef) -> String {
        let inner = list.as_list_opt::<i32>().filter(|lists| !lists.is_empty()).map(|lists| of(&lists.value(0)));
        format!("[1:{}]{}", list.len(), inner.unwrap_or_default())
    }
    let [lists] = columns else { return Err(missing()) };
    let texts = lists.as_list::<i32>().iter().map(|list| list.filter(|list| !list.is_empty()).map(|list| of(&list)));
    Ok(Arc::new(texts.collect::<StringViewArray>()))
}
