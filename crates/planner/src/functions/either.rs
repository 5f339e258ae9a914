//! Functions that DataFusion has, but for other arguments too here, or with another result for some: of these types ours
//! is called, of all others DataFusion's.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use tidewire_types::SqlType;

use super::defined::{self, Definition, Same};

/// `theirs`, but for the types that `ours` takes.
pub(super) fn function(theirs: Arc<ScalarUDF>, ours: &'static Definition) -> ScalarUDF {
    let signature = Signature::user_defined(theirs.signature().volatility);
    let aliases = theirs.aliases().to_vec();
    ScalarUDF::from(Either { theirs, ours: defined::function(ours), takes: Same(ours), aliases, signature })
}

/// The arguments with integers for smallints, which PostgreSQL takes wherever it takes integers.
fn widened(fields: &[FieldRef]) -> Vec<FieldRef> {
    let widened = |field: &FieldRef| match field.data_type() {
        DataType::Int16 => Arc::new(Field::new("", DataType::Int32, true)),
        _ => field.clone(),
    };
    fields.iter().map(widened).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Either {
    theirs: Arc<ScalarUDF>,
    ours: ScalarUDF,
    takes: Same,
    aliases: Vec<String>,
    signature: Signature,
}

impl Either {
    fn is_ours(&self, fields: &[FieldRef]) -> bool {
        let types: Vec<_> = fields.iter().map(|field| SqlType::of(field)).collect();
        (self.takes.0.resolve)(&types).is_some()
    }

    fn side(&self, fields: &[FieldRef]) -> &ScalarUDF {
        if self.is_ours(fields) { &self.ours } else { &self.theirs }
    }
}

impl ScalarUDFImpl for Either {
    fn name(&self) -> &str {
        self.theirs.name()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let fields: Vec<FieldRef> = types.iter().map(|t| Arc::new(Field::new("", t.clone(), true))).collect();
        if self.is_ours(&fields) {
            return Ok(types.to_vec());
        }
        let theirs = |fields: &[FieldRef]| fields_with_udf(fields, self.theirs.as_ref());
        let fields = theirs(&fields).or_else(|error| theirs(&widened(&fields)).map_err(|_| error))?;
        Ok(fields.iter().map(|field| field.data_type().clone()).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.theirs.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.side(args.arg_fields).return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.side(&args.arg_fields).invoke_with_args(args)
    }
}
