//! Values as PostgreSQL's text output shows them, written apart from the server's encoder: where the two disagree, a
//! file of `sql-tests/` fails either in process or over the wire.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    Date32Type, Decimal128Type, DecimalType, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::util::display::array_value_to_string;
use chrono::{DateTime, NaiveDate, TimeDelta};
use tidewire_types::{Result, SqlType};

/// The rows of a batch as text; None is NULL.
pub fn rows(batch: &RecordBatch) -> Result<Vec<Vec<Option<String>>>> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, array)| column(array, &SqlType::of(field)));
    let mut columns: Vec<_> = columns.map(|c| c.map(Vec::into_iter)).collect::<Result<_>>()?;
    Ok((0..batch.num_rows()).map(|_| columns.iter_mut().map(|c| c.next().flatten()).collect()).collect())
}

fn column(array: &ArrayRef, sql_type: &SqlType) -> Result<Vec<Option<String>>> {
    // What functions compute may have another width or layout than the type's own.
    let own = sql_type.data_type();
    let array = if *array.data_type() == own { array.clone() } else { arrow::compute::cast(array, &own)? };
    Ok((0..array.len()).map(|row| cell(&array, sql_type, row)).collect())
}

fn cell(array: &ArrayRef, sql_type: &SqlType, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    Some(match sql_type {
        SqlType::Bool => if array.as_boolean().value(row) { "t" } else { "f" }.to_string(),
        SqlType::Int2 => array.as_primitive::<Int16Type>().value(row).to_string(),
        SqlType::Int4 => array.as_primitive::<Int32Type>().value(row).to_string(),
        SqlType::Int8 => array.as_primitive::<Int64Type>().value(row).to_string(),
        SqlType::Float4 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            float(&format!("{value:e}"), f64::from(value), 6)
        }
        SqlType::Float8 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            float(&format!("{value:e}"), value, 15)
        }
        SqlType::Numeric(digits) => {
            let decimal = array.as_primitive::<Decimal128Type>();
            let text = Decimal128Type::format_decimal(decimal.value(row), decimal.precision(), decimal.scale());
            match digits {
                None if text.contains('.') => text.trim_end_matches('0').trim_end_matches('.').to_string(),
                _ => text,
            }
        }
        SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Uuid | SqlType::Json | SqlType::Jsonb => {
            array.as_string_view().value(row).to_string()
        }
        SqlType::Bytea => array.as_binary_view().value(row).iter().fold("\\x".to_string(), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        }),
        SqlType::Date => date(array.as_primitive::<Date32Type>().value(row)),
        SqlType::Time => time(array.as_primitive::<Time64MicrosecondType>().value(row)),
        SqlType::Timestamp => timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        SqlType::Timestamptz => timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row)) + "+00",
        SqlType::Interval => interval(array.as_primitive::<IntervalMonthDayNanoType>().value(row)),
        SqlType::Array(element) => {
            let values = array.as_list::<i32>().value(row);
            let items: Vec<_> = (0..values.len()).map(|idx| item(cell(&values, element, idx), element)).collect();
            format!("{{{}}}", items.join(","))
        }
        SqlType::Struct(types) => {
            let columns = array.as_struct().columns();
            let fields: Vec<_> = types.iter().zip(columns).map(|((_, t), c)| field(cell(c, t, row))).collect();
            format!("({})", fields.join(","))
        }
        SqlType::Null => array_value_to_string(array, row).unwrap_or_default(),
    })
}

/// An element of an array, in quotes where they are needed.
fn item(text: Option<String>, element: &SqlType) -> String {
    let Some(text) = text else { return "NULL".into() };
    let special = |c: char| c.is_whitespace() || "{},\"\\".contains(c);
    if matches!(element, SqlType::Array(_))
        || !text.is_empty() && !text.eq_ignore_ascii_case("null") && !text.contains(special)
    {
        return text;
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A field of a record, in quotes where they are needed.
fn field(text: Option<String>) -> String {
    let Some(text) = text else { return String::new() };
    let special = |c: char| c.is_whitespace() || "(),\"\\".contains(c);
    if !text.is_empty() && !text.contains(special) {
        return text;
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\""))
}

/// A float of its shortest digits (`1.25e3`): in full from 0.0001 on, with less than `digits_max` before the point.
fn float(scientific: &str, value: f64, digits_max: i32) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    if value != 0.0 && !(-4..digits_max).contains(&exponent) {
        let (e_sign, e) = if exponent < 0 { ('-', -exponent) } else { ('+', exponent) };
        return format!("{sign}{mantissa}e{e_sign}{e:02}");
    }
    let digits = mantissa.replace('.', "");
    let Ok(whole) = usize::try_from(exponent + 1) else { return sign.to_string() + &below_one(&digits, exponent) };
    match digits.split_at_checked(whole) {
        _ if whole == 0 => sign.to_string() + &below_one(&digits, exponent),
        Some((whole, "")) => format!("{sign}{whole}"),
        Some((whole, fraction)) => format!("{sign}{whole}.{fraction}"),
        None => format!("{sign}{digits:0<whole$}"),
    }
}

fn below_one(digits: &str, exponent: i32) -> String {
    let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
    format!("0.{}{digits}", "0".repeat(zeros))
}

fn date(days: i32) -> String {
    let epoch = NaiveDate::default();
    match epoch.checked_add_signed(TimeDelta::days(i64::from(days))) {
        Some(date) => date.format("%Y-%m-%d").to_string(),
        None => format!("day {days}"),
    }
}

fn time(us: i64) -> String {
    let (seconds, fraction) = (us.div_euclid(1_000_000), us.rem_euclid(1_000_000));
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}{}", fraction_text(fraction))
}

fn fraction_text(us: i64) -> String {
    match us {
        0 => String::new(),
        us => format!(".{us:06}").trim_end_matches('0').to_string(),
    }
}

fn timestamp(us: i64) -> String {
    match DateTime::from_timestamp_micros(us) {
        Some(at) => format!("{}{}", at.format("%Y-%m-%d %H:%M:%S"), fraction_text(us.rem_euclid(1_000_000))),
        None => format!("microsecond {us}"),
    }
}

fn interval(value: IntervalMonthDayNano) -> String {
    let mut out = String::new();
    let mut before = false;
    let parts = [(value.months / 12, "year"), (value.months % 12, "mon"), (value.days, "day")];
    for (n, unit) in parts.into_iter().filter(|(n, _)| *n != 0) {
        let blank = if out.is_empty() { "" } else { " " };
        let plus = if before && n > 0 { "+" } else { "" };
        let plural = if n == 1 { "" } else { "s" };
        let _ = write!(out, "{blank}{plus}{n} {unit}{plural}");
        before = n < 0;
    }
    let us = value.nanoseconds / 1000;
    if us != 0 || out.is_empty() {
        let blank = if out.is_empty() { "" } else { " " };
        let sign = if us < 0 {
            "-"
        } else if before {
            "+"
        } else {
            ""
        };
        let _ = write!(out, "{blank}{sign}{}", time(us.abs()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_as_postgres_shows_them() {
        let shown = |v: f64| float(&format!("{v:e}"), v, 15);
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (1.25e300, "1.25e+300"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(shown(value), text);
        }
        assert_eq!(float(&format!("{:e}", 1e6_f32), 1e6, 6), "1e+06");
        assert_eq!(float(&format!("{:e}", 123_456_f32), 123_456.0, 6), "123456");
    }

    #[test]
    fn intervals_as_postgres_shows_them() {
        let shown = |m, d, us: i64| interval(IntervalMonthDayNano::new(m, d, us * 1000));
        assert_eq!(shown(0, 0, 0), "00:00:00");
        assert_eq!(shown(14, 3, 4_000_000), "1 year 2 mons 3 days 00:00:04");
        assert_eq!(shown(-1, 1, -1_500_000), "-1 mons +1 day -00:00:01.5");
        assert_eq!(shown(0, -1, 3_600_000_000), "-1 days +01:00:00");
    }
}
