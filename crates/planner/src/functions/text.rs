//! Values as the text that PostgreSQL shows.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringViewBuilder, StructArray};
use arrow::compute;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, IntervalMonthDayNanoType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};
use datafusion::common::Result;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::interval::interval_text;

/// The texts of a column's values, as `text`.
pub(super) fn of(input: &ArrayRef, from: &SqlType) -> Result<ArrayRef> {
    match input.data_type() {
        DataType::Float64 => Ok(by_value(input, |row| float(input.as_primitive::<Float64Type>().value(row)))),
        DataType::Float32 => {
            // Through its own shortest text: 0.1 as real is not 0.1 as double.
            Ok(by_value(input, |row| float_text(&format!("{:e}", input.as_primitive::<Float32Type>().value(row)))))
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let bytes = compute::cast(input, &DataType::BinaryView)?;
            Ok(by_value(&bytes, |row| hex(bytes.as_binary_view().value(row))))
        }
        DataType::Date32 | DataType::Timestamp(..) => moments(input),
        DataType::Time32(_) | DataType::Time64(_) => formatted(input, without_zeros),
        DataType::Decimal128(..) if *from == SqlType::Numeric(None) => formatted(input, without_zeros),
        DataType::Interval(_) | DataType::Duration(_) => {
            let values = compute::cast(input, &SqlType::Interval.data_type())?;
            let values = values.as_primitive::<IntervalMonthDayNanoType>();
            Ok(by_value(input, |row| interval_text(values.value(row))))
        }
        DataType::List(_) => arrays(input.as_list(), from),
        DataType::Struct(_) => records(input.as_struct()),
        _ => Ok(compute::cast(input, &DataType::Utf8View)?),
    }
}

/// Dates and timestamps; those of years before 1 are `BC`, the extreme ones stand for infinity.
fn moments(input: &ArrayRef) -> Result<ArrayRef> {
    let zone = if matches!(input.data_type(), DataType::Timestamp(_, Some(_))) { "+00" } else { "" };
    let is_date = *input.data_type() == DataType::Date32;
    let values = compute::cast(input, if is_date { &DataType::Int32 } else { &DataType::Int64 })?;
    let values = compute::cast(&values, &DataType::Int64)?;
    let values = values.as_primitive::<Int64Type>();
    let (least, greatest) = if is_date { (i64::from(i32::MIN), i64::from(i32::MAX)) } else { (i64::MIN, i64::MAX) };
    let format = if is_date { "-%m-%d" } else { "-%m-%d %H:%M:%S%.f" };
    let mut output = StringViewBuilder::with_capacity(input.len());
    for value in values {
        let Some(value) = value else {
            output.append_null();
            continue;
        };
        let moment = match is_date {
            true => i32::try_from(value).ok().and_then(NaiveDate::from_epoch_days).map(NaiveDateTime::from),
            false => DateTime::from_timestamp_micros(value).map(|moment| moment.naive_utc()),
        };
        match moment {
            _ if value == least => output.append_value("-infinity"),
            _ if value == greatest => output.append_value("infinity"),
            None => {
                let message = if is_date { "date out of range" } else { "timestamp out of range" };
                return Err(external(SqlError::new(SqlState::DatetimeFieldOverflow, message)));
            }
            Some(moment) => {
                let (year, era) = if moment.year() > 0 { (moment.year(), "") } else { (1 - moment.year(), " BC") };
                let rest = without_zeros(moment.format(format).to_string());
                output.append_value(format!("{year:04}{rest}{zone}{era}"));
            }
        }
    }
    Ok(Arc::new(output.finish()))
}

/// `{1,NULL,"a b"}`
fn arrays(input: &ListArray, from: &SqlType) -> Result<ArrayRef> {
    let element = match from {
        SqlType::Array(element) => element.as_ref().clone(),
        _ => SqlType::of_data_type(&input.value_type()),
    };
    let nested = matches!(element, SqlType::Array(_));
    let texts = of(input.values(), &element)?;
    let mut output = StringViewBuilder::with_capacity(input.len());
    for (row, range) in input.value_offsets().windows(2).enumerate() {
        let [start, end] = range else { continue };
        let items = texts.slice(*start as usize, (*end - *start) as usize);
        let items = items.as_string_view().iter().map(|item| match item {
            None => "NULL".to_owned(),
            Some(item) if nested => item.to_owned(),
            Some(item) if element == SqlType::Bool => item.chars().take(1).collect(),
            Some(item) => quoted_item(item),
        });
        output.append_option(input.is_valid(row).then(|| format!("{{{}}}", items.collect::<Vec<_>>().join(","))));
    }
    Ok(Arc::new(output.finish()))
}

/// `(1,,"a b")`
fn records(input: &StructArray) -> Result<ArrayRef> {
    let mut columns = vec![];
    for (field, values) in input.fields().iter().zip(input.columns()) {
        let own = SqlType::of(field);
        columns.push((of(values, &own)?, own == SqlType::Bool));
    }
    let mut output = StringViewBuilder::with_capacity(input.len());
    for row in 0..input.len() {
        let values = columns.iter().map(|(texts, is_bool)| match texts.as_string_view() {
            texts if texts.is_null(row) => String::new(),
            texts if *is_bool => texts.value(row).chars().take(1).collect(),
            texts => quoted_field(texts.value(row)),
        });
        output.append_option(input.is_valid(row).then(|| format!("({})", values.collect::<Vec<_>>().join(","))));
    }
    Ok(Arc::new(output.finish()))
}

/// A value of a row, in quotes where it could be read as something else.
fn quoted_field(value: &str) -> String {
    let is_special = |c: char| matches!(c, '(' | ')' | ',' | '"' | '\\') || c.is_ascii_whitespace();
    match value.is_empty() || value.contains(is_special) {
        true => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\"\"")),
        false => value.to_owned(),
    }
}

/// An item of an array, in quotes where it could be read as something else.
fn quoted_item(item: &str) -> String {
    let is_special = |c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_ascii_whitespace();
    match item.is_empty() || item.eq_ignore_ascii_case("null") || item.contains(is_special) {
        true => format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\"")),
        false => item.to_owned(),
    }
}

fn by_value(input: &ArrayRef, show: impl Fn(usize) -> String) -> ArrayRef {
    let mut output = StringViewBuilder::with_capacity(input.len());
    for row in 0..input.len() {
        output.append_option((!input.is_null(row)).then(|| show(row)));
    }
    Arc::new(output.finish())
}

fn formatted(input: &ArrayRef, finish: impl Fn(String) -> String) -> Result<ArrayRef> {
    let options = FormatOptions::new();
    let formatter = ArrayFormatter::try_new(input.as_ref(), &options)?;
    Ok(by_value(input, |row| finish(formatter.value(row).to_string())))
}

/// Without zeros at the end of the fraction.
fn without_zeros(text: String) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

fn float(value: f64) -> String {
    float_text(&format!("{value:e}"))
}

/// The shortest digits, with an exponent only where PostgreSQL writes one. `scientific` is Rust's `{:e}`.
fn float_text(scientific: &str) -> String {
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return match scientific {
            "inf" => "Infinity".into(),
            "-inf" => "-Infinity".into(),
            other => other.into(),
        };
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..15).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |d| ("-", d));
    let digits = digits.replace('.', "");
    let point = exponent + 1;
    match usize::try_from(point) {
        Ok(point) if point >= digits.len() && point > 0 => format!("{sign}{digits:0<point$}"),
        Ok(point) if point > 0 => {
            let (whole, fraction) = digits.split_at(point);
            format!("{sign}{whole}.{fraction}")
        }
        _ => format!("{sign}0.{}{digits}", "0".repeat(point.unsigned_abs() as usize)),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("\\x");
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_look_as_in_postgresql() {
        let shown: Vec<_> = [1.0, -0.5, 0.0001, 1234.5, 1e14, 1e15, 1.5e-7, 0.0, f64::INFINITY].map(float).into();
        assert_eq!(shown, ["1", "-0.5", "0.0001", "1234.5", "100000000000000", "1e+15", "1.5e-07", "0", "Infinity"]);
        assert_eq!(hex(&[0, 255]), "\\x00ff");
        assert_eq!(without_zeros("1.500".into()), "1.5");
    }

    #[test]
    fn items_of_arrays_are_quoted_where_they_must_be() {
        assert_eq!(
            ["a", "", "a b", "null", "a\"\\"].map(quoted_item),
            ["a", "\"\"", "\"a b\"", "\"null\"", "\"a\\\"\\\\\""]
        );
    }

    #[test]
    fn values_of_rows_are_quoted_where_they_must_be() {
        assert_eq!(
            ["a", "", "a b", "null", "a\"\\", "(", "{"].map(quoted_field),
            ["a", "\"\"", "\"a b\"", "null", "\"a\"\"\\\\\"", "\"(\"", "{"]
        );
    }
}
