//! Functions and operators that PostgreSQL has and DataFusion has not.

pub(crate) mod any;
mod arithmetic;
mod array_items;
mod array_join;
mod array_order;
mod array_parts;
pub(crate) mod arrays;
mod byte_parts;
mod bytes;
pub(crate) mod cast;
pub(crate) mod convert;
mod date_fields;
mod date_units;
mod dates;
pub(crate) mod datetime_input;
mod defined;
mod degrees;
mod either;
mod encoding;
mod floats;
mod format;
mod from_template;
pub(crate) mod interval;
mod json;
mod json_build;
mod json_edit;
mod json_operators;
mod json_order;
mod json_path;
mod json_pieces;
mod make_dates;
mod math;
pub(crate) mod maybe_null;
mod moments;
pub(crate) mod nullif;
mod nulls;
mod number_format;
mod numeric;
mod one_type;
mod operators;
pub(crate) mod patterns;
mod regexp;
pub(crate) mod replaced;
mod row_values;
pub(crate) mod sets;
mod spans;
mod text;
mod timezone;
mod to_char;
mod to_json;
mod type_names;
pub(crate) mod typed;
pub(crate) mod unary;
mod unknown;
pub(crate) mod untyped;

pub(crate) use array_join::ARRAY;
pub(crate) use array_order::{extreme_in_order, in_order};
pub(crate) use convert::array_items;
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::SessionContext;
pub(crate) use json_build::{JSON_LIST, JSON_MEMBERS};
pub(crate) use json_order::in_json_order;
pub(crate) use make_dates::INTERVAL_ARGUMENTS;
pub(crate) use one_type::float_of;
pub(crate) use operators::{PostgresOperators, comparable, met, met_as, read_as};
pub(crate) use row_values::ROW_VALUE;
pub(crate) use spans::{longest, shortest, span};
pub(crate) use to_json::TO_JSON;
pub(crate) use unknown::unknown_function;

/// Every function to register in a session.
pub(crate) fn all() -> Vec<ScalarUDF> {
    let mut all = json::all();
    all.extend(replaced::all());
    all.extend(one_type::all());
    all.extend(patterns::all());
    all.extend(unary::all());
    all.extend(date_fields::all());
    all.extend(any::all());
    all.extend(byte_parts::all());
    all.extend(math::of_both());
    all.push(dates::date_trunc());
    let tables = [
        array_items::ALL,
        array_join::ALL,
        array_parts::ALL,
        arrays::ALL,
        bytes::ALL,
        dates::ALL,
        degrees::ALL,
        encoding::ALL,
        floats::ALL,
        format::ALL,
        from_template::ALL,
        json_build::ALL,
        json_edit::ALL,
        json_path::ALL,
        make_dates::ALL,
        math::ALL,
        nulls::ALL,
        regexp::ALL,
        row_values::ALL,
    ];
    all.extend(
        tables
            .into_iter()
            .flatten()
            .chain([&maybe_null::FUNCTION, &nullif::FUNCTION, &number_format::TO_NUMBER])
            .chain([&to_char::TO_CHAR, &type_names::PG_TYPEOF])
            .map(defined::function),
    );
    all.push(timezone::timezone());
    all.push(to_json::to_json());
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
