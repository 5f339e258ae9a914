//! Scalar functions as a table: a name, the types that it takes, and what it computes from columns of them.
//!
//! A [`Definition`] finds the [`Overload`] for the arguments' types; arguments are converted to its types before the
//! call. Invariant: a strict function is never called with a NULL that matters: it gives NULL for such rows.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use tidewire_operators::expr::scalar;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::array_join;
use super::cast::external;
use super::convert::convert;

/// What a function computes: columns of one length, with their types.
pub(super) type Call = fn(&[ArrayRef], &[SqlType]) -> Result<ArrayRef>;

/// A function.
#[derive(Debug)]
pub(super) struct Definition {
    /// Its name in SQL.
    pub(super) name: &'static str,
    /// The overload for arguments of these types; None: there is none.
    pub(super) resolve: fn(&[SqlType]) -> Option<Overload>,
}

/// A function for certain types.
pub(super) struct Overload {
    /// What arguments are converted to.
    pub(super) args: Vec<SqlType>,
    /// The type of its value.
    pub(super) result: SqlType,
    /// What it computes; the value has the Arrow type of `result`.
    pub(super) call: Call,
}

impl Overload {
    /// The overload that takes the arguments as they are.
    pub(super) fn of(args: &[SqlType], result: SqlType, call: Call) -> Option<Overload> {
        Some(Overload { args: args.to_vec(), result, call })
    }

    /// The overload whose arguments are of `wanted`. None: the given ones are not, and no conversion is implied.
    pub(super) fn exact(given: &[SqlType], wanted: &[SqlType], result: SqlType, call: Call) -> Option<Overload> {
        let fits =
            given.len() == wanted.len() && given.iter().zip(wanted).all(|(given, wanted)| implied(given, wanted));
        fits.then(|| Overload { args: wanted.to_vec(), result, call })
    }
}

/// Whether an argument becomes one of `wanted` by itself. A literal is still text.
pub(super) fn implied(given: &SqlType, wanted: &SqlType) -> bool {
    use SqlType as T;
    let rank = |t: &T| match t {
        T::Int2 => Some(0),
        T::Int4 => Some(1),
        T::Int8 => Some(2),
        T::Numeric(_) => Some(3),
        T::Float4 => Some(4),
        T::Float8 => Some(5),
        _ => None,
    };
    match (given, wanted) {
        (T::Null | T::Text, _) => true,
        (T::Varchar(_) | T::Char(_), T::Text) => true,
        (T::Date | T::Timestamp, T::Timestamp) => true,
        (T::Date | T::Timestamp | T::Timestamptz, T::Timestamptz) => true,
        (given, wanted) => given == wanted || rank(given).is_some_and(|g| rank(wanted).is_some_and(|w| g <= w)),
    }
}

/// The function to register.
pub(super) fn function(definition: &'static Definition) -> ScalarUDF {
    let any = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
    ScalarUDF::from(Defined {
        name: definition.name,
        definition: Same(definition),
        signature: Signature::one_of(any, Volatility::Immutable),
    })
}

/// A call of the function over arguments that are planned.
pub(super) fn call(
    definition: &'static Definition,
    args: Vec<datafusion::logical_expr::Expr>,
) -> datafusion::logical_expr::Expr {
    let function = Arc::new(function(definition));
    datafusion::logical_expr::Expr::ScalarFunction(datafusion::logical_expr::expr::ScalarFunction::new_udf(
        function, args,
    ))
}

/// Equal by its name.
#[derive(Debug)]
pub(super) struct Same(pub(super) &'static Definition);

impl PartialEq for Same {
    fn eq(&self, other: &Same) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Same {}

impl std::hash::Hash for Same {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Defined {
    name: &'static str,
    definition: Same,
    signature: Signature,
}

impl Defined {
    fn overload(&self, fields: &[FieldRef]) -> Result<Overload> {
        // Only counts are unsigned in DataFusion.
        let types: Vec<_> = fields
            .iter()
            .map(|f| if *f.data_type() == DataType::UInt64 { SqlType::Int8 } else { SqlType::of(f) })
            .collect();
        (self.definition.0.resolve)(&types).ok_or_else(|| {
            if self.name == array_join::ARRAY
                && let Some(error) = array_join::unmatched(&types)
            {
                return external(error);
            }
            let types: Vec<_> = types.iter().map(ToString::to_string).collect();
            let is_operator = !self.name.starts_with(|c: char| c.is_ascii_alphabetic());
            let message = match (is_operator, types.as_slice()) {
                (true, [left, right]) => format!("operator does not exist: {left} {} {right}", self.name),
                _ => format!("function {}({}) does not exist", self.name, types.join(", ")),
            };
            let kind = if is_operator { "operator" } else { "function" };
            external(SqlError::new(SqlState::UndefinedFunction, message).with_hint(format!(
                "No {kind} matches the given name and argument types. You might need to add explicit type casts."
            )))
        })
    }
}

impl ScalarUDFImpl for Defined {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(external(SqlError::internal("the type of a function without its fields")))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(self.overload(args.arg_fields)?.result.field(self.name, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let overload = self.overload(&args.arg_fields)?;
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let n_rows = if is_scalar { 1 } else { args.number_rows };
        let mut columns = vec![];
        for ((arg, field), to) in args.args.into_iter().zip(&args.arg_fields).zip(&overload.args) {
            columns.push(convert(&arg.into_array(n_rows)?, &SqlType::of(field), to, false)?);
        }
        if columns.is_empty() {
            // A function without arguments still needs to know that there is one row.
            columns.push(Arc::new(arrow::array::NullArray::new(n_rows)));
        }
        let output = (overload.call)(&columns, &overload.args)?;
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(scalar(&output, 0)?),
            false => ColumnarValue::Array(output),
        })
    }
}
