//! A value under the type that it has, where DataFusion has lost which of those that share an Arrow type it is.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::compute;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use tidewire_operators::expr::scalar;
use tidewire_types::{SqlError, SqlType};

use super::cast::external;

/// The function that returns its argument, as `target`.
pub(crate) fn typed(target: SqlType) -> Arc<ScalarUDF> {
    let name = target.to_string();
    Arc::new(ScalarUDF::from(Typed { name, target, signature: Signature::any(1, Volatility::Immutable) }))
}

/// The value as one of `target`, which has the same Arrow type.
pub(crate) fn retyped(value: Expr, target: SqlType) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(typed(target), vec![value]))
}

/// The value that the expression gives a type, and that.
pub(crate) fn given_type(expr: &Expr) -> Option<(&Expr, &SqlType)> {
    let Expr::ScalarFunction(call) = expr else { return None };
    Some((call.args.first()?, &call.func.inner().downcast_ref::<Typed>()?.target))
}

/// The type of a list without what the field of its items says, which DataFusion's scalars forget. None: it says nothing.
pub(crate) fn bare(data_type: &DataType) -> Option<SqlType> {
    match data_type {
        DataType::List(item) if !item.metadata().is_empty() => {
            Some(SqlType::Array(Box::new(SqlType::of_data_type(item.data_type()))))
        }
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Typed {
    name: String,
    target: SqlType,
    signature: Signature,
}

impl ScalarUDFImpl for Typed {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.target.data_type())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = args.arg_fields.first().is_none_or(|f| f.is_nullable());
        Ok(Arc::new(self.target.field(&self.name, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(value) = args.args.into_iter().next() else {
            return Err(external(SqlError::internal("no argument")));
        };
        let to = args.return_field.data_type();
        if value.data_type() == *to {
            return Ok(value);
        }
        Ok(match value {
            ColumnarValue::Array(array) => ColumnarValue::Array(with_fields(&array, to)?),
            ColumnarValue::Scalar(value) => ColumnarValue::Scalar(scalar(&with_fields(&value.to_array()?, to)?, 0)?),
        })
    }
}

/// The array under another type, where only fields inside an array differ.
fn with_fields(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    match (array.as_list_opt::<i32>(), to) {
        (Some(lists), DataType::List(field)) => {
            let items = with_fields(lists.values(), field.data_type())?;
            let lists = ListArray::try_new(field.clone(), lists.offsets().clone(), items, lists.nulls().cloned())?;
            Ok(Arc::new(lists))
        }
        _ => Ok(compute::cast(array, to)?),
    }
}
