//! Sets from arrays: `unnest`, `generate_subscripts`; and the copies that bag operators make.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray, UInt32Array};
use arrow::compute;
use arrow::datatypes::{FieldRef, Int64Type};
use datafusion::common::{DataFusionError, Result};
use tidewire_operators::flat_map::{ROWS_MAX, SetFunction, Sets, too_many_rows};
use tidewire_types::{SqlError, SqlType};

use super::column;
use crate::functions::cast::external;
use crate::functions::convert::convert;

/// The items of an array, those of inner arrays one by one.
#[derive(Debug)]
struct Unnest {
    given: SqlType,
    fields: Vec<FieldRef>,
}

pub(super) fn unnest(name: &'static str, types: &[SqlType]) -> Option<Arc<dyn SetFunction>> {
    let [given @ SqlType::Array(_)] = types else { return None };
    let mut item = given;
    while let SqlType::Array(element) = item {
        item = element;
    }
    Some(Arc::new(Unnest { given: given.clone(), fields: vec![column(item, name)] }))
}

impl SetFunction for Unnest {
    fn name(&self) -> &str {
        "unnest"
    }

    fn fields(&self) -> &[FieldRef] {
        &self.fields
    }

    fn call(&self, args: &[ArrayRef], _: usize) -> Result<Sets, DataFusionError> {
        let [arrays] = args else { return Err(lost()) };
        let arrays = convert(arrays, &self.given, &self.given, false)?;
        let (mut counts, mut items) = items_of(list(&arrays)?)?;
        while let Some(inner) = items.as_list_opt::<i32>() {
            let (inner_counts, inner_items) = items_of(inner)?;
            let mut rest = inner_counts.iter();
            for count in &mut counts {
                *count = rest.by_ref().take(*count as usize).sum();
            }
            items = inner_items;
        }
        Ok(Sets { counts, columns: vec![items] })
    }
}

fn list(array: &ArrayRef) -> Result<&ListArray> {
    array.as_list_opt::<i32>().ok_or_else(lost)
}

fn lost() -> DataFusionError {
    external(SqlError::internal("a set of another type than it was planned with"))
}

/// How many items each list has, and the items of all.
fn items_of(lists: &ListArray) -> Result<(Vec<u32>, ArrayRef)> {
    let offsets = lists.value_offsets();
    let ranges = || offsets.windows(2).map(|pair| if let [begin, end] = pair { *begin..*end } else { 0..0 });
    let is_valid = |row: usize| lists.nulls().is_none_or(|n| n.is_valid(row));
    let counts = ranges().enumerate().map(|(row, r)| if is_valid(row) { r.len() as u32 } else { 0 }).collect();
    let hides_items = lists.null_count() > 0 && ranges().enumerate().any(|(row, r)| !is_valid(row) && !r.is_empty());
    if hides_items {
        let kept = ranges().enumerate().filter(|(row, _)| is_valid(*row)).flat_map(|(_, r)| r);
        let indices: UInt32Array = kept.map(|idx| idx as u32).collect();
        return Ok((counts, compute::take(lists.values(), &indices, None)?));
    }
    let (begin, end) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
    Ok((counts, lists.values().slice(begin as usize, (end - begin) as usize)))
}

/// The indices of an array's items in one of its dimensions.
#[derive(Debug)]
struct Subscripts {
    given: SqlType,
    fields: Vec<FieldRef>,
}

pub(super) fn subscripts(name: &'static str, types: &[SqlType]) -> Option<Arc<dyn SetFunction>> {
    let is_integer = |t: &SqlType| matches!(t, SqlType::Int2 | SqlType::Int4 | SqlType::Int8 | SqlType::Null);
    match types {
        [SqlType::Array(_), dimension] if is_integer(dimension) => {}
        [SqlType::Array(_), dimension, SqlType::Bool | SqlType::Null] if is_integer(dimension) => {}
        _ => return None,
    }
    let given = types.first()?.clone();
    Some(Arc::new(Subscripts { given, fields: vec![column(&SqlType::Int4, name)] }))
}

impl SetFunction for Subscripts {
    fn name(&self) -> &str {
        "generate_subscripts"
    }

    fn fields(&self) -> &[FieldRef] {
        &self.fields
    }

    fn call(&self, args: &[ArrayRef], n_rows: usize) -> Result<Sets, DataFusionError> {
        let [arrays, dimensions, rest @ ..] = args else { return Err(lost()) };
        let arrays = convert(arrays, &self.given, &self.given, false)?;
        let dimensions = compute::cast(dimensions, &SqlType::Int8.data_type())?;
        let dimensions = dimensions.as_primitive_opt::<Int64Type>().ok_or_else(lost)?;
        let reverse = rest.first().map(|r| compute::cast(r, &SqlType::Bool.data_type())).transpose()?;
        let mut counts = vec![];
        let mut values: Vec<i32> = vec![];
        for row in 0..n_rows {
            let is_reverse = match reverse.as_ref().and_then(|r| r.as_boolean_opt()) {
                None => Some(false),
                Some(flags) => flags.is_valid(row).then(|| flags.value(row)),
            };
            let n = match (dimensions.is_valid(row), is_reverse) {
                (true, Some(_)) => length(&arrays, row, dimensions.value(row))?,
                _ => 0,
            };
            let end = i32::try_from(n).map_err(|_| too_many_rows("generate_subscripts"))?;
            match is_reverse {
                Some(true) => values.extend((1..=end).rev()),
                _ => values.extend(1..=end),
            }
            counts.push(n);
        }
        Ok(Sets { counts, columns: vec![Arc::new(Int32Array::from(values))] })
    }
}

/// How many items the array has in its `dimension`th dimension; 0 where it has no such.
fn length(arrays: &ArrayRef, row: usize, dimension: i64) -> Result<u32> {
    let Some(lists) = arrays.as_list_opt::<i32>().filter(|_| dimension > 0) else { return Ok(0) };
    if lists.is_null(row) {
        return Ok(0);
    }
    let items = lists.value(row);
    match dimension {
        1 => Ok(items.len() as u32),
        _ if items.is_empty() => Ok(0),
        _ => length(&items, 0, dimension - 1),
    }
}

/// As many rows as the argument says, and no columns.
#[derive(Debug)]
pub(super) struct Copies;

impl SetFunction for Copies {
    fn name(&self) -> &str {
        "copies"
    }

    fn fields(&self) -> &[FieldRef] {
        &[]
    }

    fn call(&self, args: &[ArrayRef], _: usize) -> Result<Sets, DataFusionError> {
        let counts = args.first().and_then(|a| a.as_primitive_opt::<Int64Type>()).ok_or_else(lost)?;
        let count = |n: Option<i64>| {
            let n = usize::try_from(n.unwrap_or(0).max(0)).unwrap_or(usize::MAX);
            if n > ROWS_MAX { Err(too_many_rows("copies")) } else { Ok(n as u32) }
        };
        Ok(Sets { counts: counts.iter().map(count).collect::<Result<_>>()?, columns: vec![] })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Builder, ListBuilder};
    use arrow::buffer::NullBuffer;
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn null_and_empty_arrays_have_no_items() {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
            Some(vec![Some(4)]),
        ]);
        let (counts, items) = items_of(&lists.slice(1, 3)).unwrap();
        assert_eq!((counts, items.len()), (vec![0, 0, 1], 1));
        // A NULL that hides items.
        let (field, offsets, values, _) = lists.into_parts();
        let hidden = ListArray::new(field, offsets, values, Some(NullBuffer::from(vec![false, true, true, true])));
        let (counts, items) = items_of(&hidden).unwrap();
        assert_eq!(counts, [0, 0, 0, 1]);
        assert_eq!(items.as_primitive::<Int32Type>().values(), &[4]);
    }

    #[test]
    fn items_of_inner_arrays_come_one_by_one() {
        let mut builder = ListBuilder::new(ListBuilder::new(Int32Builder::new()));
        builder.values().append_value([Some(1), Some(2)]);
        builder.values().append_value([Some(3)]);
        builder.append(true);
        builder.append(true);
        builder.values().append_value([Some(4)]);
        builder.append(true);
        let nested: ArrayRef = Arc::new(builder.finish());
        assert_eq!(length(&nested, 0, 1).unwrap(), 2);
        assert_eq!(length(&nested, 0, 2).unwrap(), 2);
        assert_eq!(length(&nested, 0, 3).unwrap(), 0);
        let given = SqlType::Array(Box::new(SqlType::Array(Box::new(SqlType::Int4))));
        let sets = unnest("unnest", &[given]).unwrap().call(&[nested], 3).unwrap();
        assert_eq!(sets.counts, [3, 0, 1]);
        assert_eq!(sets.columns[0].as_primitive::<Int32Type>().values(), &[1, 2, 3, 4]);
    }
}
