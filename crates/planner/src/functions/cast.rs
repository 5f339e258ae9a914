//! Casts and assignments as functions: PostgreSQL's rules, and results that say which type they are.
//!
//! Arrow knows neither uuid nor jsonb nor varchar(n), cuts fractions off instead of rounding, and shows timestamps
//! its own way; casts to such types become calls of the functions here.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use sqlparser::parser::Parser;
use tidewire_operators::expr::scalar;
use tidewire_sql::TidewireDialect;
use tidewire_types::{SqlError, SqlState, SqlType, TYPE_KEY};

use super::convert::convert;
use crate::type_classes::{is_moment, is_number};

/// The prefix of the names that [`crate::rewrite`] gives these casts; no user's function can have it.
const PREFIX: &str = "cast to ";

/// The name of the function that casts to `target`; None where Arrow's own cast does it.
pub(crate) fn function_name(target: &SqlType) -> Option<String> {
    needs_function(target).then(|| format!("{PREFIX}{target}"))
}

/// The name of the function that casts to `target`, whoever else can do it.
pub(crate) fn any_name(target: &SqlType) -> String {
    format!("{PREFIX}{target}")
}

fn needs_function(target: &SqlType) -> bool {
    use SqlType as T;
    let integer = matches!(target, T::Int2 | T::Int4 | T::Int8);
    integer
        || matches!(
            target,
            T::Text | T::Uuid | T::Json | T::Jsonb | T::Bytea | T::Interval | T::Varchar(_) | T::Char(_) | T::Array(_)
        )
}

/// The value cast to `target` by our function for it; as it is where there is none.
pub(crate) fn to(value: Expr, target: &SqlType) -> Expr {
    match function_name(target).and_then(|name| function(&name)) {
        Some(function) => Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![value])),
        None => value,
    }
}

/// The function of that name, if it is one of ours.
pub(crate) fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    let target = match name.strip_prefix(PREFIX)? {
        "smallint" => SqlType::Int2,
        "integer" => SqlType::Int4,
        "bigint" => SqlType::Int8,
        "bytea" => SqlType::Bytea,
        "text" => SqlType::Text,
        "interval" => SqlType::Interval,
        array if array.ends_with("[]") => spelled(array)?,
        other if spelled(other).as_ref().is_some_and(is_arrows) => spelled(other)?,
        tag => {
            let metadata = [(TYPE_KEY.to_string(), tag.to_string())].into();
            SqlType::of(&Field::new("", DataType::Utf8View, true).with_metadata(metadata))
        }
    };
    (needs_function(&target) || is_arrows(&target)).then(|| udf(target, None))
}

/// The function for a cast that Arrow would do in another way. None: Arrow does it well.
pub(crate) fn checked(from: &SqlType, target: &SqlType) -> Option<Arc<ScalarUDF>> {
    use SqlType as T;
    let is_ours = match (from, target) {
        (from, target) if from == target => false,
        (T::Text | T::Varchar(_) | T::Char(_), T::Numeric(_)) => true,
        (T::Text | T::Varchar(_) | T::Char(_), target) => is_read(target),
        (T::Float8, T::Float4) => true,
        (from, target) if is_moment(from) => is_moment(target) || *target == T::Time,
        (T::Interval, T::Time) => true,
        (T::Jsonb, T::Bool) => true,
        (T::Jsonb, target) => is_number(target),
        _ => false,
    };
    is_ours.then(|| udf(target.clone(), None))
}

/// Whether a text is read as the type in another way than Arrow's.
pub(crate) fn is_read(target: &SqlType) -> bool {
    use SqlType as T;
    matches!(target, T::Bool | T::Float4 | T::Float8 | T::Date | T::Time | T::Timestamp | T::Timestamptz)
}

/// A moment as one of another type.
pub(crate) fn to_moment(value: Expr, target: &SqlType) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(udf(target.clone(), None), vec![value]))
}

/// Whether Arrow's own cast to the type would do.
fn is_arrows(target: &SqlType) -> bool {
    use SqlType as T;
    let is_moment = matches!(target, T::Date | T::Time | T::Timestamp | T::Timestamptz);
    is_moment || matches!(target, T::Bool | T::Float4 | T::Float8 | T::Numeric(_))
}

/// The type that `name` spells as SQL does.
pub(crate) fn spelled(name: &str) -> Option<SqlType> {
    let mut parser = Parser::new(&TidewireDialect).try_with_sql(name).ok()?;
    tidewire_sql::sql_type(&parser.parse_data_type().ok()?).ok()
}

/// The function that converts a value for a column on INSERT and UPDATE. `literal`: the value is an untyped literal or
/// a parameter, and may be text whatever the column's type.
pub(crate) fn assignment(column: &str, target: &SqlType, literal: bool) -> Arc<ScalarUDF> {
    udf(target.clone(), Some(Assign { column: column.to_owned(), literal }))
}

/// Whether a value of type `from` can be assigned to the column. `literal`: as in [`assignment`].
///
/// Errors: `42804`.
pub(crate) fn check_assignment(column: &str, from: &SqlType, to: &SqlType, literal: bool) -> Result<(), SqlError> {
    if can_assign(from, to) || (literal && is_text(from)) {
        return Ok(());
    }
    let message = format!("column \"{column}\" is of type {to} but expression is of type {from}");
    Err(SqlError::new(SqlState::DatatypeMismatch, message)
        .with_hint("You will need to rewrite or cast the expression."))
}

fn udf(target: SqlType, assign: Option<Assign>) -> Arc<ScalarUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(ScalarUDF::from(CastTo { name: target.to_string(), target, assign, signature }))
}

/// The value that the call casts, and to which type. None: it is another one.
pub(crate) fn of_call(call: &ScalarFunction) -> Option<(&Expr, &SqlType)> {
    let cast = call.func.inner().downcast_ref::<CastTo>()?;
    call.args.first().map(|value| (value, &cast.target))
}

/// Refuses a call that casts a value to what it cannot become. The value must have its type: while a statement is planned it
/// may have another one ([`crate::planned_types`]).
///
/// Errors: `42846`.
pub(crate) fn check_call(call: &ScalarFunction, schema: &DFSchema) -> Result<()> {
    match (call.func.inner().downcast_ref::<CastTo>(), call.args.first().map(|value| value.to_field(schema))) {
        (Some(CastTo { target, assign: None, .. }), Some(Ok((_, field)))) => check_cast(&SqlType::of(&field), target),
        // A parameter may have no type yet.
        _ => Ok(()),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CastTo {
    name: String,
    target: SqlType,
    assign: Option<Assign>,
    signature: Signature,
}

/// The column that is assigned to.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Assign {
    column: String,
    literal: bool,
}

impl ScalarUDFImpl for CastTo {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.target.data_type())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        // A cast is checked by [`check_call`].
        if let Some(Assign { column, literal }) = &self.assign {
            let from = args.arg_fields.first().map_or(SqlType::Null, |f| SqlType::of(f));
            check_assignment(column, &from, &self.target, *literal).map_err(external)?;
        }
        Ok(Arc::new(self.target.field(&self.name, true)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(arg) = args.args.into_iter().next() else {
            return Err(external(SqlError::internal("a cast of nothing")));
        };
        let from = args.arg_fields.first().map_or(SqlType::Text, |f| SqlType::of(f));
        let is_scalar = matches!(arg, ColumnarValue::Scalar(_));
        let input = arg.into_array(if is_scalar { 1 } else { args.number_rows })?;
        let output = convert(&input, &from, &self.target, self.assign.is_some())?;
        match is_scalar {
            true => Ok(ColumnarValue::Scalar(scalar(&output, 0)?)),
            false => Ok(ColumnarValue::Array(output)),
        }
    }
}

fn is_text(sql_type: &SqlType) -> bool {
    matches!(sql_type, SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Null)
}

/// What PostgreSQL converts where it is asked to.
fn can_cast(from: &SqlType, to: &SqlType) -> bool {
    use SqlType as T;
    match (from, to) {
        (from, to) if from == to || is_text(from) || is_text(to) => true,
        (T::Bool, T::Int4) | (T::Int4 | T::Jsonb, T::Bool) => true,
        (T::Jsonb, to) if is_number(to) => true,
        (T::Time, T::Interval) | (T::Interval, T::Time) => true,
        (T::Array(from), T::Array(to)) => can_cast(from, to),
        (from, to) => can_assign(from, to),
    }
}

/// Errors: `42846` for types of which none becomes the other.
pub(crate) fn check_cast(from: &SqlType, to: &SqlType) -> Result<()> {
    match can_cast(from, to) {
        true => Ok(()),
        false => {
            let message = format!("cannot cast type {from} to {to}");
            Err(external(SqlError::new(SqlState::CannotCoerce, message)))
        }
    }
}

/// What PostgreSQL converts by itself when a value is stored in a column.
fn can_assign(from: &SqlType, to: &SqlType) -> bool {
    use SqlType as T;
    match (from, to) {
        (T::Null, _) | (_, T::Text | T::Varchar(_) | T::Char(_)) => true,
        (T::Json | T::Jsonb, T::Json | T::Jsonb) => true,
        (from, to) if is_moment(from) && is_moment(to) => true,
        (T::Timestamp | T::Timestamptz, T::Time) => true,
        (T::Array(from), T::Array(to)) => can_assign(from, to),
        (T::Struct(from), T::Struct(to)) => {
            from.len() == to.len() && from.iter().zip(to).all(|((_, from), (_, to))| can_assign(from, to))
        }
        (from, to) => from == to || (is_number(from) && is_number(to)),
    }
}

/// A [`SqlError`] on its way through DataFusion.
pub(crate) fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
