//! Set-returning functions: which there are, the types that they take, and the columns that they return.
//!
//! DataFusion plans a call as one of a scalar function, a *marker*, whose type is that of one row.
//! [`crate::set_returning`] then puts a [`FlatMap`](crate::flat_map::FlatMap) under the expression and a column in the
//! marker's place. Invariant: no marker is ever evaluated.

mod arrays;
mod json;
mod series;
mod text;

use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use tidewire_operators::flat_map::{SetFunction, Sets};
use tidewire_types::{SqlError, SqlState, SqlType};

pub(super) use self::text::{Pattern, groups, split_at};
use super::cast::external;

/// Separates a function's name from the one column of it that a marker stands for.
const COLUMN: char = '\u{1}';
/// The marker that numbers the rows: WITH ORDINALITY.
pub(crate) const ORDINALITY: &str = "set ordinality";
/// What is said of a struct whose fields are to become columns; the query is then planned by DataFusion's own unnest.
const OF_STRUCT: &str = "unnest() of a struct makes columns of its fields";

/// The function of a name for arguments of some types; None: there is none for those.
type Resolve = fn(&'static str, &[SqlType]) -> Option<Arc<dyn SetFunction>>;

/// A set-returning function as the catalog knows it.
struct Definition {
    name: &'static str,
    /// Names of the columns in FROM, where they are not the function's or the alias.
    columns: &'static [&'static str],
    resolve: Resolve,
}

static DEFINITIONS: &[Definition] = &[
    Definition { name: "unnest", columns: &[], resolve: arrays::unnest },
    Definition { name: "generate_series", columns: &[], resolve: series::generate_series },
    Definition { name: "generate_subscripts", columns: &[], resolve: arrays::subscripts },
    Definition { name: "json_array_elements", columns: &["value"], resolve: json::elements },
    Definition { name: "jsonb_array_elements", columns: &["value"], resolve: json::elements },
    Definition { name: "json_array_elements_text", columns: &["value"], resolve: json::elements },
    Definition { name: "jsonb_array_elements_text", columns: &["value"], resolve: json::elements },
    Definition { name: "json_each", columns: &["key", "value"], resolve: json::each },
    Definition { name: "jsonb_each", columns: &["key", "value"], resolve: json::each },
    Definition { name: "json_each_text", columns: &["key", "value"], resolve: json::each },
    Definition { name: "jsonb_each_text", columns: &["key", "value"], resolve: json::each },
    Definition { name: "json_object_keys", columns: &[], resolve: json::keys },
    Definition { name: "jsonb_object_keys", columns: &[], resolve: json::keys },
    Definition { name: "jsonb_path_query", columns: &[], resolve: json::by_path },
    Definition { name: "jsonb_path_query_tz", columns: &[], resolve: json::by_path },
    Definition { name: "regexp_matches", columns: &[], resolve: text::matches },
    Definition { name: "regexp_split_to_table", columns: &[], resolve: text::split },
    Definition { name: "string_to_table", columns: &[], resolve: text::parts },
];

fn definition(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|d| d.name == name)
}

/// Whether `name` is a set-returning function.
pub(crate) fn is_known(name: &str) -> bool {
    definition(name).is_some()
}

/// The names of its columns in FROM that are its own, whatever alias it has.
pub(crate) fn own_columns(name: &str) -> &'static [&'static str] {
    definition(name).map_or(&[], |d| d.columns)
}

/// The name of the marker for one column of a function of several.
pub(crate) fn column_marker(name: &str, column: &str) -> String {
    format!("{name}{COLUMN}{column}")
}

/// The marker of that name.
pub(crate) fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    let (base, column) = match name.split_once(COLUMN) {
        Some((base, column)) => (base, Some(column.to_owned())),
        None => (name, None),
    };
    if base != ORDINALITY && !is_known(base) {
        return None;
    }
    let any = TypeSignature::OneOf(vec![TypeSignature::Nullary, TypeSignature::VariadicAny]);
    let signature = Signature::new(any, Volatility::Volatile);
    Some(Arc::new(ScalarUDF::from(Marker { name: base.to_owned(), column, signature })))
}

/// A call of a set-returning function within an expression.
pub(crate) struct MarkedCall<'a> {
    /// The function's name, or [`ORDINALITY`].
    pub(crate) name: &'a str,
    /// Its one column that is meant; None: the only one, or a row of all.
    pub(crate) column: Option<&'a str>,
    /// Its arguments.
    pub(crate) args: &'a [Expr],
}

/// The call that `expr` is, if it is one.
pub(crate) fn marked_call(expr: &Expr) -> Option<MarkedCall<'_>> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let marker = call.func.inner().downcast_ref::<Marker>()?;
    Some(MarkedCall { name: &marker.name, column: marker.column.as_deref(), args: &call.args })
}

/// The function of that name for arguments of these types; `as_row`: several columns are put into one.
///
/// Errors: `42883`.
pub(crate) fn resolve(name: &str, types: &[SqlType], as_row: bool) -> Result<Arc<dyn SetFunction>, SqlError> {
    let Some(definition) = definition(name) else { return Err(undefined(name, types)) };
    if let (&"unnest", [SqlType::Struct(_)]) = (&definition.name, types) {
        return Err(SqlError::unsupported(OF_STRUCT));
    }
    if let (&"unnest", [SqlType::Null | SqlType::Text]) = (&definition.name, types) {
        return Err(SqlError::new(SqlState::AmbiguousFunction, "function unnest(unknown) is not unique")
            .with_hint("Could not choose a best candidate function. You might need to add explicit type casts."));
    }
    let function = (definition.resolve)(definition.name, types).ok_or_else(|| undefined(name, types))?;
    Ok(if as_row && function.fields().len() > 1 { Arc::new(AsRow::new(function)) } else { function })
}

/// The function that returns as many rows, without columns, as its argument says.
pub(crate) fn copies() -> Arc<dyn SetFunction> {
    Arc::new(arrays::Copies)
}

/// Whether the query has to be planned with DataFusion's own unnest, for a struct.
pub(crate) fn is_of_struct(error: &SqlError) -> bool {
    error.message().starts_with(OF_STRUCT)
}

fn undefined(name: &str, types: &[SqlType]) -> SqlError {
    let types: Vec<String> = types.iter().map(ToString::to_string).collect();
    SqlError::new(SqlState::UndefinedFunction, format!("function {name}({}) does not exist", types.join(", ")))
        .with_hint("No function matches the given name and argument types. You might need to add explicit type casts.")
}

fn column(sql_type: &SqlType, name: &str) -> FieldRef {
    Arc::new(sql_type.field(name, true))
}

/// Stands for a call until [`crate::set_returning`] has planned it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    name: String,
    column: Option<String>,
    signature: Signature,
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(external(SqlError::internal("the type of a set depends on its arguments")))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if self.name == ORDINALITY {
            return Ok(column(&SqlType::Int8, "ordinality"));
        }
        let types: Vec<_> = args.arg_fields.iter().map(|f| SqlType::of(f)).collect();
        let function = resolve(&self.name, &types, self.column.is_none()).map_err(external)?;
        let named = |f: &&FieldRef| self.column.as_ref().is_none_or(|name| f.name() == name);
        let field = function.fields().iter().find(named);
        field.cloned().ok_or_else(|| external(SqlError::internal("a set without that column")))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let message = "set-valued function called in context that cannot accept a set";
        Err(external(SqlError::new(SqlState::FeatureNotSupported, message)))
    }
}

/// Several columns as one row: `SELECT json_each(..)`.
#[derive(Debug)]
struct AsRow {
    function: Arc<dyn SetFunction>,
    fields: Vec<FieldRef>,
}

impl AsRow {
    fn new(function: Arc<dyn SetFunction>) -> AsRow {
        let fields: Fields = function.fields().iter().cloned().collect();
        let field = Arc::new(Field::new(function.name(), DataType::Struct(fields), true));
        AsRow { function, fields: vec![field] }
    }
}

impl SetFunction for AsRow {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn fields(&self) -> &[FieldRef] {
        &self.fields
    }

    fn call(&self, args: &[ArrayRef], n_rows: usize) -> Result<Sets, DataFusionError> {
        let Sets { counts, columns } = self.function.call(args, n_rows)?;
        let fields: Fields = self.function.fields().iter().cloned().collect();
        let row: ArrayRef = Arc::new(StructArray::try_new(fields, columns, None)?);
        Ok(Sets { counts, columns: vec![row] })
    }
}
