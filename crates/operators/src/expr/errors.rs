//! What a DataFusion error means to a user: the SQLSTATE that PostgreSQL gives, in its words where one can tell.
//!
//! Arrow reports bad values in the text of its messages only; the patterns here are those of arrow-cast. A message that
//! matches none keeps its text and gets the class of its variant.

use std::error::Error;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};
use tidewire_types::{SqlError, SqlState, SqlType};

/// What a DataFusion error means to a user: the SQLSTATE that PostgreSQL gives.
pub fn sql_error(error: DataFusionError) -> SqlError {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<SqlError>() {
            Ok(error) => *error,
            Err(inner) => external(inner.as_ref()),
        },
        error => by_reference(&error),
    }
}

/// An error of ours on its way through DataFusion; [`sql_error`] gives it back.
pub fn to_datafusion(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn by_reference(error: &DataFusionError) -> SqlError {
    use DataFusionError as E;
    let state = match error {
        E::ArrowError(e, _) => return arrow_error(e),
        E::Context(_, inner) | E::Diagnostic(_, inner) => return by_reference(inner),
        E::Shared(inner) => return by_reference(inner),
        E::Collection(all) => {
            return all.first().map_or_else(|| SqlError::internal("an empty list of errors"), by_reference);
        }
        E::External(inner) => return external(inner.as_ref()),
        E::SchemaError(e, _) => return schema_error(e),
        E::ResourcesExhausted(_) => SqlState::OutOfMemory,
        E::NotImplemented(_) => SqlState::FeatureNotSupported,
        E::IoError(_) => SqlState::IoError,
        E::SQL(..) => SqlState::SyntaxError,
        E::Configuration(_) => SqlState::InvalidParameterValue,
        E::Plan(message) => plan_state(message),
        E::Execution(message) => return bad_value(message, SqlState::DataException),
        _ => SqlState::InternalError,
    };
    SqlError::new(state, plain(&error.message()))
}

fn external(error: &(dyn Error + Send + Sync + 'static)) -> SqlError {
    if let Some(error) = error.downcast_ref::<SqlError>() {
        return error.clone();
    }
    if let Some(error) = error.downcast_ref::<DataFusionError>() {
        return by_reference(error);
    }
    if let Some(error) = error.downcast_ref::<ArrowError>() {
        return arrow_error(error);
    }
    SqlError::new(SqlState::DataException, plain(&error.to_string()))
}

fn arrow_error(error: &ArrowError) -> SqlError {
    use ArrowError as E;
    match error {
        E::DivideByZero => SqlError::new(SqlState::DivisionByZero, "division by zero"),
        E::ArithmeticOverflow(message) => {
            SqlError::new(SqlState::NumericValueOutOfRange, "value out of range").with_detail(sentence(message))
        }
        E::ExternalError(inner) => external(inner.as_ref()),
        E::CastError(m) | E::ParseError(m) => bad_value(m, SqlState::InvalidTextRepresentation),
        E::InvalidArgumentError(m) | E::ComputeError(m) => bad_value(m, SqlState::DataException),
        E::NotYetImplemented(m) => SqlError::new(SqlState::FeatureNotSupported, plain(m)),
        E::MemoryError(m) => SqlError::new(SqlState::OutOfMemory, plain(m)),
        E::OffsetOverflowError(_) => SqlError::new(SqlState::ProgramLimitExceeded, "a column holds more than 2 GB"),
        E::IoError(m, _) => SqlError::new(SqlState::IoError, plain(m)),
        other => SqlError::internal(other),
    }
}

fn schema_error(error: &SchemaError) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let name = field.name();
            let error = SqlError::new(SqlState::UndefinedColumn, format!("column \"{name}\" does not exist"));
            match tidewire_types::closest(name, valid_fields.iter().map(|f| f.name())) {
                None => error,
                Some(near) => error.with_hint(format!("Perhaps you meant to reference the column \"{near}\".")),
            }
        }
        SchemaError::AmbiguousReference { field } => {
            SqlError::new(SqlState::AmbiguousColumn, format!("column reference \"{}\" is ambiguous", field.name()))
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            SqlError::new(SqlState::DuplicateColumn, format!("column \"{name}\" specified more than once"))
        }
    }
}

/// DataFusion tells planning errors apart by their text only.
fn plan_state(message: &str) -> SqlState {
    let has = |part: &str| message.contains(part);
    if has("cannot find column with position") {
        SqlState::InvalidColumnReference
    } else if has("GROUP BY") {
        SqlState::GroupingError
    } else if [
        "Invalid function",
        "No function matches",
        "does not support",
        "coerce",
        "Cannot infer common argument type",
    ]
    .iter()
    .any(|part| has(part))
    {
        SqlState::UndefinedFunction
    } else if has("table ") && has("not found") {
        SqlState::UndefinedTable
    } else {
        SqlState::SyntaxError
    }
}

/// An error about one value. `other` is the state where the text tells nothing more.
fn bad_value(message: &str, other: SqlState) -> SqlError {
    let lower = message.to_lowercase();
    if let Some((value, type_name)) = cast_of_string(message) {
        return bad_text(value, type_name);
    }
    if lower.contains("divide by zero") || lower.contains("division by zero") {
        return SqlError::new(SqlState::DivisionByZero, "division by zero");
    }
    if lower.contains("field position must not be zero") {
        return SqlError::new(SqlState::InvalidParameterValue, "field position must not be zero");
    }
    if lower.contains("negative count not allowed") || lower.contains("negative substring length") {
        return SqlError::new(SqlState::SubstringError, "negative substring length not allowed");
    }
    if lower.contains("square root of a negative") {
        return SqlError::new(
            SqlState::InvalidArgumentForPowerFunction,
            "cannot take square root of a negative number",
        );
    }
    if lower.contains("scalar subquery returned more than one row") {
        let message = "more than one row returned by a subquery used as an expression";
        return SqlError::new(SqlState::CardinalityViolation, message);
    }
    if let Some(rest) = message.strip_prefix("can't parse the string value ") {
        let value = rest.strip_suffix(" to decimal").unwrap_or(rest);
        return SqlError::new(
            SqlState::InvalidTextRepresentation,
            format!("invalid input syntax for type numeric: \"{value}\""),
        );
    }
    if lower.contains("too large to store in a decimal") || lower.contains("parse decimal overflow") {
        return SqlError::new(SqlState::NumericValueOutOfRange, "numeric field overflow")
            .with_detail(sentence(message));
    }
    if let Some(type_name) = message.split_once("Can't cast value ").and_then(|(_, rest)| rest.rsplit_once(" to type "))
    {
        return SqlError::new(SqlState::NumericValueOutOfRange, format!("{} out of range", sql_name(type_name.1)));
    }
    if lower.contains("overflow") || lower.contains("out of range") {
        let state = if lower.contains("date") || lower.contains("timestamp") {
            SqlState::DatetimeFieldOverflow
        } else {
            SqlState::NumericValueOutOfRange
        };
        return SqlError::new(state, plain(message));
    }
    if lower.contains("parsing timestamp") || lower.contains("parsing date") || lower.contains("as time") {
        return bad_time(message.split('\'').nth(1).unwrap_or_default(), "timestamp");
    }
    SqlError::new(other, plain(message))
}

/// `Cannot cast string 'x' to value of Int64 type`: the value and the Arrow type.
fn cast_of_string(message: &str) -> Option<(&str, &str)> {
    let rest = message.split_once("Cannot cast string '").or_else(|| message.split_once("Cannot cast value '"))?.1;
    let (value, rest) = rest.rsplit_once("' to value of ")?;
    Some((value, rest.strip_suffix(" type").unwrap_or(rest)))
}

fn bad_text(value: &str, arrow_type: &str) -> SqlError {
    let name = sql_name(arrow_type);
    let is_time = ["Date", "Time", "Interval", "Duration"].iter().any(|t| arrow_type.starts_with(t));
    // PostgreSQL tells a number that is too large from one that is none.
    let is_number = arrow_type.starts_with("Int") && !is_time;
    let digits = value.trim().trim_start_matches(['-', '+']);
    if is_number && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        let message = format!("value \"{value}\" is out of range for type {name}");
        return SqlError::new(SqlState::NumericValueOutOfRange, message);
    }
    if is_time {
        return bad_time(value, &name);
    }
    SqlError::new(SqlState::InvalidTextRepresentation, format!("invalid input syntax for type {name}: \"{value}\""))
}

/// PostgreSQL tells a date that no calendar has from one that is none.
fn bad_time(value: &str, type_name: &str) -> SqlError {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let (first, rest) = value.trim().split_once([' ', 'T']).unwrap_or((value.trim(), ""));
    let is_date = first.split('-').count() == 3 && first.split('-').all(is_number);
    let clock = if is_date { rest } else { first };
    let is_clock = clock.contains(':') && clock.split([':', '.', '+']).all(is_number);
    if (is_date && (rest.is_empty() || is_clock)) || (is_clock && rest.is_empty()) {
        let message = format!("date/time field value out of range: \"{value}\"");
        return SqlError::new(SqlState::DatetimeFieldOverflow, message);
    }
    SqlError::new(SqlState::InvalidDatetimeFormat, format!("invalid input syntax for type {type_name}: \"{value}\""))
}

/// The SQL name of a type as Arrow prints it.
fn sql_name(arrow_type: &str) -> String {
    match arrow_type.parse::<DataType>() {
        Ok(t @ DataType::Decimal128(..)) | Ok(t @ DataType::Decimal256(..)) => {
            SqlType::of_data_type(&t).to_string().split('(').next().unwrap_or("numeric").to_string()
        }
        Ok(t) => SqlType::of_data_type(&t).to_string(),
        Err(_) if arrow_type.starts_with("Decimal") => "numeric".to_string(),
        Err(_) => arrow_type.to_lowercase(),
    }
}

/// A primary line: one line, lower-case at its start, no full stop.
fn plain(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default().trim().trim_end_matches('.');
    let mut chars = line.chars();
    match (chars.next(), chars.next()) {
        // A word in capitals (`SQL`, `GROUP BY`) stays as it is.
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().collect::<String>() + line.get(first.len_utf8()..).unwrap_or_default()
        }
        _ => line.to_string(),
    }
}

/// A DETAIL sentence.
fn sentence(message: &str) -> String {
    format!("{}.", message.trim().trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringViewArray};
    use arrow::compute::{CastOptions, cast_with_options};

    use super::*;

    fn cast_error(value: impl Into<ArrayRef>, to: &DataType) -> (SqlState, String) {
        let error =
            cast_with_options(&value.into(), to, &CastOptions { safe: false, ..Default::default() }).unwrap_err();
        let error = sql_error(error.into());
        (error.state(), error.message().to_string())
    }

    fn text(value: &str) -> ArrayRef {
        Arc::new(StringViewArray::from(vec![value]))
    }

    #[test]
    fn a_bad_cast_says_what_postgresql_says() {
        use SqlState as S;
        let number: ArrayRef = Arc::new(Int64Array::from(vec![300_000_000_000]));
        for (value, to, state, message) in [
            (text("x"), DataType::Int64, S::InvalidTextRepresentation, "invalid input syntax for type bigint: \"x\""),
            (
                text("99999999999"),
                DataType::Int32,
                S::NumericValueOutOfRange,
                "value \"99999999999\" is out of range for type integer",
            ),
            (
                text("x"),
                DataType::Float64,
                S::InvalidTextRepresentation,
                "invalid input syntax for type double precision: \"x\"",
            ),
            (
                text("x"),
                DataType::Boolean,
                S::InvalidTextRepresentation,
                "invalid input syntax for type boolean: \"x\"",
            ),
            (text("x"), DataType::Date32, S::InvalidDatetimeFormat, "invalid input syntax for type date: \"x\""),
            (
                text("x"),
                DataType::Decimal128(10, 2),
                S::InvalidTextRepresentation,
                "invalid input syntax for type numeric: \"x\"",
            ),
            (number, DataType::Int16, S::NumericValueOutOfRange, "smallint out of range"),
        ] {
            assert_eq!(cast_error(value, &to), (state, message.to_string()));
        }
    }

    #[test]
    fn an_error_of_our_own_comes_back_from_inside() {
        let own = SqlError::new(SqlState::UniqueViolation, "twice");
        let wrapped = DataFusionError::External(Box::new(own.clone())).context("while inserting");
        assert_eq!(sql_error(wrapped), own);
    }
}
