//! `coalesce`, `greatest` and `least` with PostgreSQL's common type: a string literal takes the type of the other
//! arguments, and a float with numbers of other types makes floats. DataFusion makes texts and numerics of these.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::functions::core;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use tidewire_types::SqlType;

/// The functions to register.
pub(super) fn all() -> Vec<ScalarUDF> {
    [core::coalesce(), core::greatest(), core::least()].map(|inner| ScalarUDF::from(OneType { inner })).into()
}

/// DataFusion's function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OneType {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for OneType {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, context)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        // Columns of text are views: this is a literal, or made of literals.
        let is_literal = |t: &DataType| *t == DataType::Utf8;
        let typed: Vec<_> = types.iter().filter(|t| !is_literal(t) && !t.is_null()).cloned().collect();
        let common = match float_of(&typed) {
            Some(float) => float,
            None if typed.is_empty() => return self.inner.coerce_types(types),
            None => self.inner.coerce_types(&typed)?.swap_remove(0),
        };
        match common {
            text if text.is_string() => self.inner.coerce_types(types),
            // Any number may stand in the literal, not only one that fits the others.
            DataType::Decimal128(..) if types.iter().any(is_literal) => {
                Ok(vec![SqlType::Numeric(None).data_type(); types.len()])
            }
            common => Ok(vec![common; types.len()]),
        }
    }
}

/// The type of floats among numbers. None: there are none, or not only numbers.
pub(crate) fn float_of(types: &[DataType]) -> Option<DataType> {
    let is_number = types.iter().all(|t| t.is_integer() || t.is_floating() || t.is_decimal());
    let widest = types.iter().filter(|t| t.is_floating()).max_by_key(|t| t.primitive_width())?;
    is_number.then(|| widest.clone())
}
