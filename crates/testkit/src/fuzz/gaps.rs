//! Errors that are known to be wrong, so that they do not hide others: a query that meets one is counted as refused.
//!
//! Only errors stand here. A wrong result has no place in this list: it is repaired, or its feature is off.

/// Functions that PostgreSQL has and Tidewire does not.
const MISSING_FUNCTIONS: &[&str] = &[
    "age",
    "array_upper",
    // of intervals
    "avg",
    "cume_dist",
    "dense_rank",
    "format",
    "jsonb_agg",
    "jsonb_array_elements",
    "jsonb_array_elements_text",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_object_agg",
    "jsonb_object_keys",
    "jsonb_strip_nulls",
    "justify_hours",
    "mode",
    "percent_rank",
    "percentile_disc",
    "rank",
    "regexp_matches",
    "regexp_split_to_table",
    "regexp_substr",
    "string_to_table",
    // substring(text FROM pattern)
    "substr",
    "to_jsonb",
    "variance",
    "width_bucket",
];

/// Beginnings of errors, as [`super::check`] words them.
const ERRORS: &[&str] = &[
    // generate_series over columns of items before it
    "42601 arguments must be literals",
    "42601 argument # must be an INTEGER",
    // '{1,2}'::int[]
    "22P02 invalid input syntax for type integer",
    "22000 LIKE does not support escape_char",
    "42804 failed to coerce arguments to satisfy a call to 'array_has'",
    // VALUES with numerics of different scales
    "42601 inconsistent metadata across values",
    // jsonb ? text
    "42601 syntax error at or near \"?\"",
    // (VALUES .. UNION ..) as an expression
    "42601 syntax error at or near \"UNION\"",
    "42601 syntax error at or near \"EXCEPT\"",
    "42601 syntax error at or near \"INTERSECT\"",
    // bytea literals beside what a function makes
    "42883 function coalesce() does not exist",
    // CASE .. THEN jsonb in an UPDATE
    "42804 column \"\" is of type jsonb but expression is of type text",
    // EXCEPT of constant columns in an IN inside a NOT IN
    "42703 column \"\" does not exist",
    // WITH RECURSIVE whose first term is NOT NULL, as a batch
    "42601 cannot project plan column",
    // VALUES with numerics of different precisions
    "42804 VALUES types fieldmetadata",
];

/// Types of results that differ from PostgreSQL's: (here, there).
const TYPES: &[(&str, &str)] = &[];

/// Whether an error (`42883 function f(text) does not exist`) is a known one.
pub(super) fn is_known(error: &str) -> bool {
    let missing =
        |name: &&str| error.strip_prefix("42883 function ").is_some_and(|f| f.starts_with(&format!("{name}(")));
    MISSING_FUNCTIONS.iter().any(missing) || ERRORS.iter().any(|known| error.starts_with(known))
}

/// Whether a difference of types is a known one.
pub(super) fn is_known_type(here: &str, there: &str) -> bool {
    TYPES.contains(&(here, there))
}
