//! `-x` and `~x`. DataFusion's `-` wraps around and negates only the first part of an interval literal; `~` it has not.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::kernels::numeric;
use arrow::compute::unary;
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::convert::convert;

/// The function for `-x`.
pub(crate) const NEGATIVE: &str = "negative of";
/// The function for `~x`.
pub(crate) const COMPLEMENT: &str = "complement of";

/// The functions to register.
pub(super) fn all() -> Vec<ScalarUDF> {
    let function =
        |complement| ScalarUDF::from(Unary { complement, signature: Signature::any(1, Volatility::Immutable) });
    vec![function(false), function(true)]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Unary {
    complement: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Unary {
    fn name(&self) -> &str {
        if self.complement { COMPLEMENT } else { NEGATIVE }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(external(SqlError::internal("the type of an operator without its fields")))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        use SqlType as T;
        let from = args.arg_fields.first().map_or(T::Null, |f| T::of(f));
        let result = match from {
            // A count of DataFusion's.
            T::Numeric(Some((20, 0))) if args.arg_fields.iter().any(|f| *f.data_type() == DataType::UInt64) => T::Int8,
            T::Int2 | T::Int4 | T::Int8 => from,
            T::Float4 | T::Float8 | T::Numeric(_) | T::Interval if !self.complement => from,
            T::Null if !self.complement => T::Float8,
            other => {
                let sign = if self.complement { '~' } else { '-' };
                let message = format!("operator does not exist: {sign} {other}");
                return Err(external(SqlError::new(SqlState::UndefinedFunction, message).with_hint(
                    "No operator matches the given name and argument type. You might need to add an explicit type cast.",
                )));
            }
        };
        Ok(Arc::new(result.field(self.name(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(arg) = args.args.into_iter().next() else { return Err(external(SqlError::internal("no argument"))) };
        let is_scalar = matches!(arg, ColumnarValue::Scalar(_));
        let input = arg.into_array(if is_scalar { 1 } else { args.number_rows })?;
        let (from, to) =
            (args.arg_fields.first().map_or(SqlType::Null, |f| SqlType::of(f)), SqlType::of(&args.return_field));
        let input = convert(&input, &from, &to, false)?;
        let output = match self.complement {
            true => complement(&input),
            false => numeric::neg(&input).map(one_nan).map_err(|error| match error {
                ArrowError::ArithmeticOverflow(_) => {
                    external(SqlError::new(SqlState::NumericValueOutOfRange, format!("{to} out of range")))
                }
                other => other.into(),
            })?,
        };
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&output, 0)?),
            false => ColumnarValue::Array(output),
        })
    }
}

/// NaN has no sign: with one it would be less than every number, and not equal to itself.
fn one_nan(values: ArrayRef) -> ArrayRef {
    if let Some(values) = values.as_primitive_opt::<Float64Type>() {
        let values: PrimitiveArray<Float64Type> = unary(values, |v| if v.is_nan() { f64::NAN } else { v });
        return Arc::new(values);
    }
    if let Some(values) = values.as_primitive_opt::<Float32Type>() {
        let values: PrimitiveArray<Float32Type> = unary(values, |v| if v.is_nan() { f32::NAN } else { v });
        return Arc::new(values);
    }
    values
}

fn complement(input: &ArrayRef) -> ArrayRef {
    match input.data_type() {
        DataType::Int16 => Arc::new(unary::<_, _, Int16Type>(input.as_primitive::<Int16Type>(), |v| !v)),
        DataType::Int32 => Arc::new(unary::<_, _, Int32Type>(input.as_primitive::<Int32Type>(), |v| !v)),
        _ => {
            let output: PrimitiveArray<Int64Type> = unary(input.as_primitive::<Int64Type>(), |v| !v);
            Arc::new(output)
        }
    }
}
