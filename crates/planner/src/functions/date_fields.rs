//! `extract(field FROM moment)`, a numeric, and `date_part('field', moment)`, a double precision.
//!
//! A field is an exact number of units behind the point: seconds and epochs have six of them, milliseconds three.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array};
use arrow::compute;
use arrow::datatypes::{
    DataType, Date32Type, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Timelike};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::date_units::unit;
use super::moments::is_finite;
use super::text;

/// The functions to register; calls of `extract` are also planned from the syntax.
pub(super) fn all() -> Vec<ScalarUDF> {
    vec![function("date_part"), function("extract")]
}

/// One of the two.
pub(super) fn function(name: &'static str) -> ScalarUDF {
    ScalarUDF::from(DateField { name, signature: Signature::any(2, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateField {
    name: &'static str,
    signature: Signature,
}

/// A value of so many digits behind the point.
type Units = (i128, u32);

/// What an infinite moment has of a field that grows for ever.
const MINUS_INFINITY: Units = (i128::MIN, 0);
const INFINITY: Units = (i128::MAX, 0);

impl ScalarUDFImpl for DateField {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(external(SqlError::internal("the type of a function without its fields")))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        use SqlType as T;
        let types: Vec<_> = args.arg_fields.iter().map(|f| T::of(f)).collect();
        let fits = |t: &T| matches!(t, T::Date | T::Time | T::Timestamp | T::Timestamptz | T::Interval | T::Null);
        let [T::Text | T::Varchar(_) | T::Null, from] = types.as_slice() else { return Err(self.undefined(&types)) };
        if !fits(from) {
            return Err(self.undefined(&types));
        }
        let result = match (self.name, args.scalar_arguments.first()) {
            ("extract", Some(Some(field))) => {
                let field = field.try_as_str().flatten().unwrap_or_default();
                match scale(&name_of(field), from) {
                    0 => T::Numeric(None),
                    scale => T::Numeric(Some((38, scale as i8))),
                }
            }
            ("extract", _) => T::Numeric(Some((38, 6))),
            _ => T::Float8,
        };
        Ok(Arc::new(result.field(self.name, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let from = args.arg_fields.get(1).map_or(SqlType::Null, |f| SqlType::of(f));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [fields, values] = arrays.as_slice() else { return Err(external(SqlError::internal("two arguments"))) };
        let fields = text::of(fields, &SqlType::Text)?;
        let values = Values::new(values, &from)?;
        let mut units = vec![];
        for (row, field) in fields.as_string_view().iter().enumerate() {
            units.push(match field {
                Some(field) => values.field(row, &name_of(field)).map_err(external)?,
                None => None,
            });
        }
        let output: ArrayRef = match args.return_field.data_type() {
            to @ DataType::Decimal128(_, to_scale) => {
                let to_scale = u32::from(to_scale.unsigned_abs());
                if units.iter().flatten().any(|units| matches!(*units, MINUS_INFINITY | INFINITY)) {
                    let error = SqlError::unsupported("an infinite numeric");
                    return Err(external(error.with_hint("date_part() gives an infinite double precision.")));
                }
                let values =
                    units.into_iter().map(|u| u.map(|(n, scale)| n * 10_i128.pow(to_scale.saturating_sub(scale))));
                Arc::new(values.collect::<Decimal128Array>().with_data_type(to.clone()))
            }
            _ => {
                let values = units
                    .into_iter()
                    .zip(fields.as_string_view())
                    .map(|(units, field)| units.map(|units| as_double(units, &name_of(field.unwrap_or_default()))));
                Arc::new(values.collect::<Float64Array>())
            }
        };
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&output, 0)?),
            false => ColumnarValue::Array(output),
        })
    }
}

fn as_double((n, scale): Units, field: &str) -> f64 {
    match ((n, scale), field) {
        (MINUS_INFINITY, _) => f64::NEG_INFINITY,
        (INFINITY, _) => f64::INFINITY,
        // PostgreSQL adds the fraction to the whole seconds.
        (_, "second") => (n / 1_000_000) as f64 + (n % 1_000_000) as f64 / 1e6,
        (_, "millisecond") => (n / 1_000_000 * 1_000) as f64 + (n % 1_000_000) as f64 / 1e3,
        _ => n as f64 / 10_f64.powi(scale as i32),
    }
}

impl DateField {
    fn undefined(&self, types: &[SqlType]) -> datafusion::common::DataFusionError {
        let types: Vec<_> = types.iter().map(ToString::to_string).collect();
        let message = format!("function {}({}) does not exist", self.name, types.join(", "));
        external(SqlError::new(SqlState::UndefinedFunction, message).with_hint(
            "No function matches the given name and argument types. You might need to add explicit type casts.",
        ))
    }
}

/// The field as it is known here.
fn name_of(field: &str) -> Cow<'static, str> {
    match unit(field) {
        Some(unit) => Cow::Borrowed(unit),
        None => match field.to_ascii_lowercase().as_str() {
            "j" | "jd" => Cow::Borrowed("julian"),
            other => Cow::Owned(other.to_owned()),
        },
    }
}

/// Digits behind the point of a field.
fn scale(field: &str, from: &SqlType) -> u32 {
    match field {
        "epoch" if *from == SqlType::Date => 0,
        "epoch" | "second" | "julian" if *from != SqlType::Date => 6,
        "millisecond" => 3,
        _ => 0,
    }
}

enum Values {
    Date(ArrayRef),
    Time(ArrayRef),
    /// With and without a zone, which is UTC.
    Moment(ArrayRef, SqlType),
    Interval(ArrayRef),
    Null,
}

impl Values {
    fn new(values: &ArrayRef, from: &SqlType) -> Result<Values> {
        Ok(match from {
            SqlType::Date => Values::Date(compute::cast(values, &DataType::Date32)?),
            SqlType::Time => Values::Time(compute::cast(values, &DataType::Time64(TimeUnit::Microsecond))?),
            SqlType::Timestamp | SqlType::Timestamptz => {
                let micros = compute::cast(values, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
                Values::Moment(micros, from.clone())
            }
            SqlType::Interval => Values::Interval(compute::cast(values, &SqlType::Interval.data_type())?),
            _ => Values::Null,
        })
    }

    /// Errors: `0A000` for a field that values of the type do not have, `22023` for one that there is not.
    fn field(&self, row: usize, field: &str) -> Result<Option<Units>, SqlError> {
        let (found, name) = match self {
            Values::Date(dates) if dates.is_valid(row) => {
                let days = dates.as_primitive::<Date32Type>().value(row);
                if matches!(days, i32::MIN | i32::MAX) && is_field(field) {
                    return Ok(of_infinity(days > 0, field));
                }
                let date = NaiveDate::from_epoch_days(days).and_then(|date| date.and_hms_opt(0, 0, 0));
                let found = match (date, field) {
                    (_, "epoch") => Some((i128::from(days) * 86_400, 0)),
                    (Some(date), _) => of_date(&date, field),
                    (None, _) => None,
                };
                (found, "date")
            }
            Values::Moment(moments, sql_type) if moments.is_valid(row) => {
                let micros = moments.as_primitive::<TimestampMicrosecondType>().value(row);
                if !is_finite(micros) && is_field(field) {
                    return Ok(of_infinity(micros > 0, field));
                }
                let moment = DateTime::from_timestamp_micros(micros).map(|moment| moment.naive_utc());
                let found = match (moment, field) {
                    (_, "epoch") => Some((i128::from(micros), 6)),
                    (_, "timezone" | "timezone_hour" | "timezone_minute") if *sql_type == SqlType::Timestamptz => {
                        Some((0, 0))
                    }
                    (Some(moment), _) => of_date(&moment, field).or_else(|| of_clock(micros.rem_euclid(DAY_US), field)),
                    (None, _) => None,
                };
                let name = if *sql_type == SqlType::Timestamptz {
                    "timestamp with time zone"
                } else {
                    "timestamp without time zone"
                };
                (found, name)
            }
            Values::Time(times) if times.is_valid(row) => {
                let micros = times.as_primitive::<Time64MicrosecondType>().value(row);
                let found = match field {
                    "epoch" => Some((i128::from(micros), 6)),
                    other => of_clock(micros, other),
                };
                (found, "time without time zone")
            }
            Values::Interval(values) if values.is_valid(row) => {
                (of_interval(values.as_primitive::<IntervalMonthDayNanoType>().value(row), field), "interval")
            }
            _ => return Ok(None),
        };
        match found {
            Some(units) => Ok(Some(units)),
            None if is_field(field) => Err(SqlError::new(
                SqlState::FeatureNotSupported,
                format!("unit \"{field}\" not supported for type {name}"),
            )),
            None => Err(SqlError::new(
                SqlState::InvalidParameterValue,
                format!("unit \"{field}\" not recognized for type {name}"),
            )),
        }
    }
}

const DAY_US: i64 = 86_400_000_000;

fn is_field(field: &str) -> bool {
    matches!(
        field,
        "year"
            | "month"
            | "day"
            | "hour"
            | "minute"
            | "second"
            | "millisecond"
            | "microsecond"
            | "dow"
            | "isodow"
            | "doy"
            | "week"
            | "quarter"
            | "decade"
            | "century"
            | "millennium"
            | "isoyear"
            | "julian"
            | "epoch"
            | "timezone"
            | "timezone_hour"
            | "timezone_minute"
    )
}

/// What grows for ever is infinite; what comes round has no value.
fn of_infinity(is_positive: bool, field: &str) -> Option<Units> {
    let grows = matches!(field, "epoch" | "year" | "isoyear" | "decade" | "century" | "millennium" | "julian");
    grows.then_some(if is_positive { INFINITY } else { MINUS_INFINITY })
}

fn of_date(date: &NaiveDateTime, field: &str) -> Option<Units> {
    let year = i128::from(date.year());
    // There is no year 0: the one before 1 is 1 BC.
    let shown = if year > 0 { year } else { year - 1 };
    let rounded = |unit: i128| if shown > 0 { (shown + unit - 1) / unit } else { (shown - unit + 1) / unit };
    let whole = match field {
        "year" => shown,
        "month" => i128::from(date.month()),
        "day" => i128::from(date.day()),
        "dow" => i128::from(date.weekday().num_days_from_sunday()),
        "isodow" => i128::from(date.weekday().number_from_monday()),
        "doy" => i128::from(date.ordinal()),
        "week" => i128::from(date.iso_week().week()),
        "isoyear" => i128::from(date.iso_week().year()),
        "quarter" => i128::from(date.month0() / 3 + 1),
        "decade" => year.div_euclid(10),
        "century" => rounded(100),
        "millennium" => rounded(1000),
        "julian" if date.num_seconds_from_midnight() == 0 && date.nanosecond() == 0 => {
            i128::from(date.num_days_from_ce()) + 1_721_425
        }
        _ => return None,
    };
    Some((whole, 0))
}

fn of_clock(micros: i64, field: &str) -> Option<Units> {
    let micros = i128::from(micros);
    Some(match field {
        "hour" => (micros / 3_600_000_000, 0),
        "minute" => (micros / 60_000_000 % 60, 0),
        "second" => (micros % 60_000_000, 6),
        "millisecond" => (micros % 60_000_000, 3),
        "microsecond" => (micros % 60_000_000, 0),
        _ => return None,
    })
}

fn of_interval(value: IntervalMonthDayNano, field: &str) -> Option<Units> {
    let (months, days) = (i128::from(value.months), i128::from(value.days));
    let micros = i128::from(value.nanoseconds / 1000);
    let years = months / 12;
    Some(match field {
        "year" => (years, 0),
        "month" => (months % 12, 0),
        "day" => (days, 0),
        "quarter" => (months % 12 / 3 + 1, 0),
        "decade" => (years / 10, 0),
        "century" => (years / 100, 0),
        "millennium" => (years / 1000, 0),
        // A year has 365.25 days, a month 30.
        "epoch" => (years * 31_557_600_000_000 + (months % 12 * 30 + days) * i128::from(DAY_US) + micros, 6),
        other => return of_clock(value.nanoseconds / 1000, other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centuries_begin_with_their_first_year() {
        let date = |year| NaiveDate::from_ymd_opt(year, 1, 1).unwrap().and_hms_opt(0, 0, 0).unwrap();
        let century = |year| of_date(&date(year), "century").unwrap().0;
        assert_eq!([2000, 2001, 1, 0, -99, -100].map(century), [20, 21, 1, -1, -1, -2]);
        assert_eq!(of_date(&date(-5), "decade"), Some((-1, 0)));
    }

    #[test]
    fn an_epoch_of_an_interval_has_years_and_months() {
        let interval = IntervalMonthDayNano::new(13, 1, 1_500_000_000);
        assert_eq!(of_interval(interval, "epoch"), Some((34_236_001_500_000, 6)));
    }
}
