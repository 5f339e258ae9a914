//! Values as the text that PostgreSQL shows.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::compute;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::Result;
use tidewire_types::SqlType;

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
        DataType::Timestamp(..) => formatted(input, without_zeros),
        DataType::Decimal128(..) if *from == SqlType::Numeric(None) => formatted(input, without_zeros),
        DataType::Interval(_) | DataType::Duration(_) | DataType::List(_) | DataType::Struct(_) => {
            formatted(input, |text| text)
        }
        _ => Ok(compute::cast(input, &DataType::Utf8View)?),
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
    let options = FormatOptions::new()
        .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
        .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f"));
    let formatter = ArrayFormatter::try_new(input.as_ref(), &options)?;
    let zone = if matches!(input.data_type(), DataType::Timestamp(_, Some(_))) { "+00" } else { "" };
    Ok(by_value(input, |row| finish(formatter.value(row).to_string()) + zone))
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
}
