//! Errors that are known to be wrong, so that they do not hide others: a query that meets one is counted as refused.
//!
//! Only errors stand here. A wrong result has no place in this list: it is repaired, or its feature is off.

/// Functions that PostgreSQL has and Tidewire does not.
const MISSING_FUNCTIONS: &[&str] = &[
    // its symbolic form, and that of intervals
    "age", "avg",
];

/// Beginnings of errors, as [`super::check`] words them.
const ERRORS: &[&str] = &[
    // VALUES with numerics of different scales
    "42601 inconsistent metadata across values",
    "42804 VALUES types fieldmetadata",
    // ALL ((SELECT array ..)), which PostgreSQL takes for a subquery too, but for other types
    "42601 expr type Int# can't cast to List(Int#) in InSubquery",
];

/// Types of results that differ from PostgreSQL's: (here, there).
const TYPES: &[(&str, &str)] = &[];

/// Types of parameters that differ, and that drivers send alike.
const PARAMETERS: &[(&str, &str)] =
    &[("text", "varchar"), ("varchar", "text"), ("_text", "_varchar"), ("_varchar", "_text"), ("text", "jsonpath")];

/// Whether an error (`42883 function f(text) does not exist`) is a known one.
pub(super) fn is_known(error: &str) -> bool {
    let missing =
        |name: &&str| error.strip_prefix("42883 function ").is_some_and(|f| f.starts_with(&format!("{name}(")));
    MISSING_FUNCTIONS.iter().any(missing) || ERRORS.iter().any(|known| error.starts_with(known))
}

/// Whether what PostgreSQL refuses with this error is accepted: it has no operators over arrays of text and of varchar.
pub(super) fn is_accepted(error: &str) -> bool {
    error.starts_with("42883 operator does not exist") && error.contains("character varying[]")
}

/// Whether a difference of types is a known one.
pub(super) fn is_known_type(here: &str, there: &str) -> bool {
    TYPES.contains(&(here, there))
}

/// Whether a difference of the types of a parameter is a known one.
pub(super) fn is_known_parameter(here: &str, there: &str) -> bool {
    PARAMETERS.contains(&(here, there))
}
