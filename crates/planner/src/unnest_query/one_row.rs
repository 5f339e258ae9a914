//! The value of a subquery that should have one row: an error where it has more, and only where it is asked for.

use std::sync::{Arc, LazyLock};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use tidewire_types::{SqlError, SqlState};

use crate::provider::to_datafusion;

static ONLY: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Only { signature: Signature::any(2, Volatility::Immutable) })));

/// The first of (value, number of rows). Errors while it runs: `21000`, where there are several rows.
pub(super) fn only(args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(ONLY.clone(), args))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Only {
    signature: Signature,
}

impl ScalarUDFImpl for Only {
    fn name(&self) -> &str {
        "only row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(
        &self,
        args: datafusion::logical_expr::ReturnFieldArgs<'_>,
    ) -> Result<arrow::datatypes::FieldRef> {
        match args.arg_fields.first() {
            // With the metadata, which says what type it is in SQL.
            Some(value) => Ok(Arc::new(value.as_ref().clone().with_nullable(true))),
            None => internal_err!("a subquery without a value"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Ok([value, n_rows]) = <[ColumnarValue; 2]>::try_from(args.args) else {
            return internal_err!("a subquery without a value");
        };
        let n_rows = n_rows.into_array(args.number_rows)?;
        if n_rows.as_primitive::<Int64Type>().iter().flatten().any(|n| n > 1) {
            let message = "more than one row returned by a subquery used as an expression";
            return Err(to_datafusion(SqlError::new(SqlState::CardinalityViolation, message)));
        }
        Ok(value)
    }
}
