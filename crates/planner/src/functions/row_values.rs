//! `ROW(a, b)`: a row as a value, whose fields have the types of the values and are called `f1`, `f2`, .. as in PostgreSQL.

use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::{DataType, Fields};
use datafusion::common::Result;
use tidewire_types::SqlType;

use super::defined::{Definition, Overload};

/// The function's name.
pub(crate) const ROW_VALUE: &str = "row";

/// The functions.
pub(super) static ALL: &[Definition] = &[Definition {
    name: ROW_VALUE,
    resolve: |types| {
        let args: Vec<SqlType> = types.iter().map(of_value).collect();
        let result = row_type(&args);
        (!args.is_empty()).then_some(Overload { args, result, call: row })
    },
}];

/// A NULL alone is a text.
fn of_value(own: &SqlType) -> SqlType {
    if *own == SqlType::Null { SqlType::Text } else { own.clone() }
}

fn row_type(types: &[SqlType]) -> SqlType {
    SqlType::Struct((1..).zip(types).map(|(idx, own)| (format!("f{idx}"), own.clone())).collect())
}

fn row(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let fields = match row_type(types).data_type() {
        DataType::Struct(fields) => fields,
        _ => Fields::empty(),
    };
    Ok(Arc::new(StructArray::try_new(fields, columns.to_vec(), None)?))
}
