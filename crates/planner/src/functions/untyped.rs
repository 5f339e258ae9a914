//! A literal or a parameter without a type, which has the type of a value that it stands among.
//!
//! [`crate::rewrite`] writes the call, whose second argument is there for its type alone; [`crate::planned_types`] puts the
//! literal of that type in its place.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DFSchema, Result, exec_err};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use tidewire_types::{SqlError, SqlType};

use super::cast::external;
use super::convert::convert;
use super::read_as;
use crate::parameters::is_marked;

/// Its name, which no user's function can have.
pub(crate) const UNTYPED: &str = "untyped among";

static FUNCTION: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Untyped { signature: Signature::any(2, Volatility::Immutable) })));

/// The function of that name.
pub(crate) fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    (name == UNTYPED).then(|| FUNCTION.clone())
}

/// The literal as a value of the type that it has. None: the call is another one.
pub(crate) fn read(call: &ScalarFunction, schema: &DFSchema) -> Result<Option<Expr>> {
    let [literal, typed] = call.args.as_slice() else { return Ok(None) };
    if call.func.name() != UNTYPED {
        return Ok(None);
    }
    let field = typed.to_field(schema)?.1;
    let target = SqlType::of(&field);
    // Which text it is matters to a parameter, whose type is looked for.
    if let (SqlType::Varchar(_), Expr::Literal(value, _)) = (&target, literal)
        && value.try_as_str().flatten().is_some_and(is_marked)
    {
        return Ok(Some(Expr::Cast(Cast::new_from_field(Box::new(literal.clone()), field))));
    }
    Ok(Some(read_as(literal.clone(), &target, field.data_type())))
}

/// The type without the bounds of a column: whatever is compared with the column may have more digits, or more characters.
pub(crate) fn unbounded(sql_type: &SqlType) -> SqlType {
    match sql_type {
        SqlType::Null | SqlType::Varchar(_) | SqlType::Char(_) => SqlType::Text,
        SqlType::Numeric(_) => SqlType::Numeric(None),
        SqlType::Array(item) => SqlType::Array(Box::new(unbounded(item))),
        other => other.clone(),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Untyped {
    signature: Signature,
}

impl ScalarUDFImpl for Untyped {
    fn name(&self) -> &str {
        UNTYPED
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [_, typed] => Ok(unbounded(&SqlType::of_data_type(typed)).data_type()),
            _ => exec_err!("two arguments"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields {
            [_, typed] => Ok(Arc::new(unbounded(&SqlType::of(typed)).field(UNTYPED, true))),
            _ => exec_err!("two arguments"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (Some(literal), Some(own)) = (args.args.first(), args.arg_fields.first()) else {
            return Err(external(SqlError::internal("two arguments")));
        };
        let literal = literal.to_array(args.number_rows)?;
        let target = SqlType::of(&args.return_field);
        Ok(ColumnarValue::Array(convert(&literal, &SqlType::of(own), &target, false)?))
    }
}
