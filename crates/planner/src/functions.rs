//! Functions and operators that PostgreSQL has and DataFusion has not.

mod arithmetic;
pub(crate) mod cast;
pub(crate) mod convert;
pub(crate) mod interval;
mod json;
mod operators;
mod replaced;
pub(crate) mod sets;
mod text;
mod timezone;
mod unknown;

use datafusion::logical_expr::ScalarUDF;
pub(crate) use operators::PostgresOperators;
pub(crate) use unknown::unknown_function;

/// Every function to register in a session.
pub(crate) fn all() -> Vec<ScalarUDF> {
    let mut all = json::all();
    all.extend(replaced::all());
    all.push(timezone::timezone());
    all.push(ScalarUDF::from(datafusion::functions::string::uuid::UuidFunc::new()).with_aliases(["gen_random_uuid"]));
    all
}
