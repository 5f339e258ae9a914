//! Numerics divided and multiplied with PostgreSQL's digits: a quotient has at least 16 significant ones, where
//! DataFusion's has four more than its dividend; a product that would have more digits than there is room for loses those
//! at its end.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::compute;
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use sqlparser::ast::BinaryOperator as Op;
use tidewire_operators::aggregate::numeric::{product, quotient};
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;

const PRECISION: u8 = 38;
/// Digits behind the point of a quotient.
const QUOTIENT_SCALE: i8 = 16;
/// Digits behind the point that a product may have without losing any.
const PRODUCT_SCALE_MAX: i8 = 20;

/// The call that computes `left op right` where that is of numerics. None: DataFusion's operator does.
pub(super) fn plan(op: &Op, left: &Expr, right: &Expr, types: (&SqlType, &SqlType)) -> Option<Expr> {
    let is_exact = |t: &SqlType| matches!(t, SqlType::Numeric(_) | SqlType::Int2 | SqlType::Int4 | SqlType::Int8);
    let is_numeric = |t: &SqlType| matches!(t, SqlType::Numeric(_));
    let (l, r) = types;
    if !is_exact(l) || !is_exact(r) || !(is_numeric(l) || is_numeric(r)) {
        return None;
    }
    let divides = match op {
        Op::Divide => true,
        Op::Multiply if scale_of(&l.data_type()) + scale_of(&r.data_type()) > PRODUCT_SCALE_MAX => false,
        _ => return None,
    };
    let udf = ScalarUDF::from(NumericOperator { divides, signature: Signature::any(2, Volatility::Immutable) });
    Some(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(udf), vec![left.clone(), right.clone()])))
}

fn scale_of(data_type: &DataType) -> i8 {
    if let DataType::Decimal128(_, scale) = data_type { *scale } else { 0 }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct NumericOperator {
    divides: bool,
    signature: Signature,
}

impl ScalarUDFImpl for NumericOperator {
    fn name(&self) -> &str {
        if self.divides { "/" } else { "*" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let scale = types.iter().map(scale_of).fold(QUOTIENT_SCALE, i8::max);
        Ok(DataType::Decimal128(PRECISION, scale))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, true)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let to = args.return_field.data_type();
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = arrays.as_slice() else { return Err(external(SqlError::internal("two arguments"))) };
        let (left, left_scale) = decimals(left)?;
        let (right, right_scale) = decimals(right)?;
        let to_scale = scale_of(to);
        let mut values = Vec::with_capacity(left.len());
        for pair in left.iter().zip(&right) {
            let (Some(l), Some(r)) = pair else {
                values.push(None);
                continue;
            };
            let value = match self.divides {
                true if r == 0 => return Err(external(SqlError::new(SqlState::DivisionByZero, "division by zero"))),
                true => quotient((l, left_scale), (r, right_scale), to_scale),
                false => product((l, left_scale), (r, right_scale), to_scale),
            };
            let overflow = || external(SqlError::new(SqlState::NumericValueOutOfRange, "numeric field overflow"));
            values.push(Some(value.ok_or_else(overflow)?));
        }
        let output: ArrayRef = Arc::new(Decimal128Array::from(values).with_data_type(to.clone()));
        match is_scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&output, 0)?)),
            false => Ok(ColumnarValue::Array(output)),
        }
    }
}

/// A column of numbers as decimals.
fn decimals(column: &ArrayRef) -> Result<(Decimal128Array, i8)> {
    let column = match column.data_type() {
        DataType::Decimal128(..) => column.clone(),
        _ => compute::cast(column, &DataType::Decimal128(20, 0))?,
    };
    let scale = scale_of(column.data_type());
    Ok((column.as_primitive::<Decimal128Type>().clone(), scale))
}
