//! The bytes by which arrays are compared, and the greatest and the least of some values that are compared by bytes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray};
use arrow::compute::{SortOptions, interleave};
use arrow::datatypes::{DataType, Field};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;
use datafusion::logical_expr::Expr;
use tidewire_types::SqlType;

use super::defined::{self, Definition, Overload};
use super::json_order::in_order_of_values;
use super::spans::{first, spans_of_items, with_items};

/// Bytes in the order of arrays: item by item, NULL behind all other items, and a longer array behind its beginning.
static IN_ORDER: Definition = Definition {
    name: "order of array",
    resolve: |types| match types {
        [SqlType::Array(_)] => Overload::of(types, SqlType::Bytea, in_order_of_items),
        _ => None,
    },
};

/// What an array is ordered by.
pub(crate) fn in_order(array: Expr) -> Expr {
    defined::call(&IN_ORDER, vec![array])
}

static GREATEST: Definition =
    Definition { name: "greatest in order", resolve: |types| of_one_type(types, |c, types| extreme(c, types, true)) };

static LEAST: Definition =
    Definition { name: "least in order", resolve: |types| of_one_type(types, |c, types| extreme(c, types, false)) };

/// `greatest(..)` or `least(..)` of arrays, or of jsonb.
pub(crate) fn extreme_in_order(values: Vec<Expr>, is_greatest: bool) -> Expr {
    defined::call(if is_greatest { &GREATEST } else { &LEAST }, values)
}

fn of_one_type(types: &[SqlType], call: defined::Call) -> Option<Overload> {
    let own = types.iter().find(|t| matches!(t, SqlType::Array(_) | SqlType::Jsonb))?;
    Some(Overload { args: vec![own.clone(); types.len()], result: own.clone(), call })
}

/// Of each row's values the first one in order, or the last one; those that are NULL do not count.
fn extreme(columns: &[ArrayRef], types: &[SqlType], is_greatest: bool) -> Result<ArrayRef> {
    let keys = columns.iter().zip(types).map(|(column, own)| match own {
        SqlType::Jsonb => in_order_of_values(column),
        own => in_order_of_items(std::slice::from_ref(column), std::slice::from_ref(own)),
    });
    let keys = keys.collect::<Result<Vec<_>>>()?;
    let keys: Vec<_> = keys.iter().map(|keys| keys.as_binary_view()).collect();
    let of_row = |row: usize| {
        let present =
            keys.iter().enumerate().filter(|(_, keys)| keys.is_valid(row)).map(|(idx, keys)| (idx, keys.value(row)));
        let best =
            present.reduce(|best, next| if (next.1 > best.1) == is_greatest && next.1 != best.1 { next } else { best });
        // Of none that is present, any is NULL.
        (best.map_or(0, |(idx, _)| idx), row)
    };
    let rows: Vec<_> = (0..first(columns)?.len()).map(of_row).collect();
    let columns: Vec<_> = columns.iter().map(|column| column.as_ref()).collect();
    Ok(interleave(&columns, &rows)?)
}

fn in_order_of_items(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let lists = first(columns)?;
    let lists = match types {
        [SqlType::Array(item)] if **item == SqlType::Interval => spans_of_items(lists)?,
        [SqlType::Array(item)] if **item == SqlType::Jsonb => {
            with_items(lists, in_order_of_values, Field::new_list_field(DataType::BinaryView, true))?
        }
        _ => lists.clone(),
    };
    let nulls_last = SortOptions { descending: false, nulls_first: false };
    let field = SortField::new_with_options(lists.data_type().clone(), nulls_last);
    let rows = RowConverter::new(vec![field])?.convert_columns(std::slice::from_ref(&lists))?;
    let keys = rows.iter().enumerate().map(|(idx, row)| lists.is_valid(idx).then(|| row.as_ref().to_vec()));
    Ok(Arc::new(keys.collect::<BinaryViewArray>()))
}
