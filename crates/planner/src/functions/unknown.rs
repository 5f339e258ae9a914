//! A function that does not exist, kept until its arguments have types: the error then names them as PostgreSQL does.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use tidewire_types::{SqlError, SqlState, SqlType, closest};

#[derive(Debug, PartialEq, Eq, Hash)]
struct Unknown {
    name: String,
    near: Option<String>,
    signature: Signature,
}

/// Stands for the function `name`; any use of it is `42883`. `known` are the names that exist, for the hint.
pub(crate) fn unknown_function<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Arc<ScalarUDF> {
    let near = closest(name, known).map(str::to_owned);
    let any = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
    let signature = Signature::one_of(any, Volatility::Immutable);
    Arc::new(ScalarUDF::from(Unknown { name: name.to_owned(), near, signature }))
}

impl Unknown {
    fn error(&self, arg_types: impl Iterator<Item = SqlType>) -> DataFusionError {
        let types: Vec<_> = arg_types.map(|t| t.to_string()).collect();
        let hint = match &self.near {
            Some(near) => format!("Perhaps you meant \"{near}\"."),
            None => "No function matches the given name and argument types. You might need to add explicit type \
                     casts."
                .into(),
        };
        let message = format!("function {}({}) does not exist", self.name, types.join(", "));
        DataFusionError::External(Box::new(SqlError::new(SqlState::UndefinedFunction, message).with_hint(hint)))
    }
}

impl ScalarUDFImpl for Unknown {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        Err(self.error(args.arg_fields.iter().map(|f| SqlType::of(f))))
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Err(self.error(arg_types.iter().map(SqlType::of_data_type)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(self.error(std::iter::empty()))
    }
}
