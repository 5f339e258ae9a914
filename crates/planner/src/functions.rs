//! Functions and operators that PostgreSQL has and DataFusion has not.

mod arithmetic;
pub(crate) mod cast;
pub(crate) mod convert;
pub(crate) mod interval;
mod json;
mod numeric;
mod operators;
mod replaced;
pub(crate) mod sets;
mod text;
mod timezone;
mod to_json;
mod unknown;

use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::SessionContext;
pub(crate) use operators::{PostgresOperators, comparable};
pub(crate) use to_json::TO_JSON;
pub(crate) use unknown::unknown_function;

/// Every function to register in a session.
pub(crate) fn all() -> Vec<ScalarUDF> {
    let mut all = json::all();
    all.extend(replaced::all());
    all.push(timezone::timezone());
    all.push(to_json::to_json());
    all.push(ScalarUDF::from(datafusion::functions::string::uuid::UuidFunc::new()).with_aliases(["gen_random_uuid"]));
    all
}

/// Aggregates of DataFusion that cannot be called here: `crate::aggregates` makes other calls of these names.
const REPLACED_AGGREGATES: &[&str] = &[
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "median",
    "nth_value",
    "percentile_cont",
    "quantile_cont",
    "stddev",
    "var",
    "var_population",
    "var_sample",
    "mean",
    "covar",
    "variance",
];

/// Registers every aggregate function.
pub(crate) fn register_aggregates(session: &SessionContext) {
    for name in REPLACED_AGGREGATES {
        session.deregister_udaf(name);
    }
    for function in tidewire_operators::aggregate::functions::all() {
        session.register_udaf(function);
    }
}
