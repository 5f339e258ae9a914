//! Values in a form in which equal ones are equal texts.

use tidewire_types::SqlType;

use crate::database::Answer;

/// Where floats count as zero: sums that cancel, variances of equal values.
const ZERO: f64 = 1e-9;

/// An answer whose numerics do not show their scale, of which 7 digits count, and whose intervals are lengths: equal
/// intervals have several texts (`1 day`, `24:00:00`), and a group shows any of them.
pub(super) fn normalized(answer: &Answer) -> Answer {
    let Some(types) = &answer.types else { return answer.clone() };
    let mut answer = Answer { types: Some(types.iter().map(compared_as).collect()), ..answer.clone() };
    for row in &mut answer.rows {
        for (cell, sql_type) in row.iter_mut().zip(types) {
            if let Some(text) = cell {
                *text = value(text, sql_type);
            }
        }
    }
    answer
}

fn compared_as(sql_type: &SqlType) -> SqlType {
    match sql_type {
        SqlType::Numeric(_) => SqlType::Float8,
        other => other.clone(),
    }
}

fn value(text: &str, sql_type: &SqlType) -> String {
    match (sql_type, text.parse::<f64>()) {
        (SqlType::Numeric(_) | SqlType::Float4 | SqlType::Float8, Ok(number)) if number.abs() < ZERO => "0".into(),
        (SqlType::Numeric(_), Ok(number)) => format!("{number:.6e}"),
        (SqlType::Interval, _) => match interval_us(text) {
            Some(us) => us.to_string(),
            None => text.to_string(),
        },
        _ => text.to_string(),
    }
}

/// Microseconds of an interval as PostgreSQL prints it; a month has 30 days, as where intervals are compared.
fn interval_us(text: &str) -> Option<i128> {
    const DAY: i128 = 24 * 3600 * 1_000_000;
    let mut total = 0;
    let mut words = text.split(' ');
    while let Some(word) = words.next() {
        if word.contains(':') {
            total += clock_us(word)?;
            continue;
        }
        let number: i128 = word.parse().ok()?;
        total += number
            * match words.next()?.trim_end_matches('s') {
                "year" => 360 * DAY,
                "mon" => 30 * DAY,
                "day" => DAY,
                _ => return None,
            };
    }
    Some(total)
}

fn clock_us(clock: &str) -> Option<i128> {
    let (sign, digits) = match clock.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, clock.trim_start_matches('+')),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut seconds = 0;
    for part in whole.split(':') {
        seconds = seconds * 60 + part.parse::<i128>().ok()?;
    }
    let fraction: i128 = format!("{fraction:0<6}").parse().ok()?;
    Some(sign * (seconds * 1_000_000 + fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_intervals_are_equal() {
        assert_eq!(interval_us("1 day -02:00:00"), interval_us("22:00:00"));
        assert_eq!(interval_us("1 mon"), interval_us("30 days"));
        assert_eq!(interval_us("-00:00:00.5"), Some(-500_000));
        assert_eq!(interval_us("1 fortnight"), None);
    }

    #[test]
    fn numerics_are_compared_by_value() {
        let numeric = SqlType::Numeric(None);
        assert_eq!(value("1.50", &numeric), value("1.5", &numeric));
        assert_ne!(value("1.51", &numeric), value("1.5", &numeric));
        assert_eq!(value("-0", &SqlType::Float8), "0");
    }
}
