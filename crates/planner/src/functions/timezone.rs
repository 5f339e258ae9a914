//! `ts AT TIME ZONE zone`: a local time becomes a moment, a moment the local time of a zone.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute;
use arrow::datatypes::{DataType, FieldRef, TimestampMicrosecondType};
use chrono::{DateTime, TimeDelta, TimeZone};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::moments::is_finite;

/// `timezone(zone, timestamp)`, which the operator stands for.
pub(super) fn timezone() -> ScalarUDF {
    ScalarUDF::from(Timezone { signature: Signature::any(2, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Timezone {
    signature: Signature,
}

impl ScalarUDFImpl for Timezone {
    fn name(&self) -> &str {
        "timezone"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(SqlType::Timestamp.data_type())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|f| SqlType::of(f)).collect();
        let result = match types.as_slice() {
            [SqlType::Text | SqlType::Varchar(_), SqlType::Timestamp | SqlType::Date] => SqlType::Timestamptz,
            [SqlType::Text | SqlType::Varchar(_), SqlType::Timestamptz] => SqlType::Timestamp,
            other => {
                let types: Vec<_> = other.iter().map(ToString::to_string).collect();
                let message = format!("function timezone({}) does not exist", types.join(", "));
                return Err(external(SqlError::new(SqlState::UndefinedFunction, message)));
            }
        };
        Ok(Arc::new(result.field("timezone", true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let to_moment = args.return_field.data_type() == &SqlType::Timestamptz.data_type();
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [zones, times] = arrays.as_slice() else { return Err(external(SqlError::internal("two arguments"))) };
        let source = if to_moment { SqlType::Timestamp } else { SqlType::Timestamptz };
        let times = compute::cast(times, &source.data_type())?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let zones = compute::cast(zones, &DataType::Utf8View)?;
        let zones = zones.as_string_view();
        let mut last: Option<(&str, Tz)> = None;
        let mut output = Vec::with_capacity(times.len());
        for row in 0..times.len() {
            if times.is_null(row) || zones.is_null(row) {
                output.push(None);
                continue;
            }
            let name = zones.value(row);
            let tz = match last {
                Some((known, tz)) if known == name => tz,
                _ => posix_zone(name)?,
            };
            last = Some((name, tz));
            let time = times.value(row);
            output.push(match is_finite(time) {
                false => Some(time),
                true if to_moment => moment(time, tz),
                true => local(time, tz),
            });
        }
        let output = TimestampMicrosecondArray::from(output);
        let output: ArrayRef = if to_moment { Arc::new(output.with_timezone("UTC")) } else { Arc::new(output) };
        Ok(ColumnarValue::Array(output))
    }
}

/// A zone by its name, or by its offset: `+03` is three hours ahead. Errors: `22023`.
pub(super) fn zone(name: &str) -> Result<Tz> {
    let unknown = || SqlError::new(SqlState::InvalidParameterValue, format!("time zone \"{name}\" not recognized"));
    Tz::from_str(name).map_err(|_| external(unknown()))
}

/// A zone by its name, or as POSIX writes it: `+03` and `UTC+3` are three hours behind. Errors: `22023`.
fn posix_zone(name: &str) -> Result<Tz> {
    let posix = name.find(['+', '-']).map(|at| name.split_at(at));
    let posix = posix.filter(|(letters, _)| letters.is_empty() || letters.len() >= 3).and_then(|(letters, offset)| {
        let is_name = letters.chars().all(|c| c.is_ascii_alphabetic());
        is_name.then(|| posix_offset(offset)).flatten()
    });
    posix.and_then(|offset| Tz::from_str(&offset).ok()).map_or_else(|| zone(name), Ok)
}

/// `+3`, `-03` or `+03:30` with the other sign, as ISO writes it. None: it is none of these.
fn posix_offset(offset: &str) -> Option<String> {
    let (sign, rest) = offset.split_at_checked(1)?;
    let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "0"));
    let number = |text: &str| text.parse::<u8>().ok().filter(|_| text.len() <= 2);
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let sign = if sign == "+" { '-' } else { '+' };
    Some(format!("{sign}{hours:02}:{minutes:02}"))
}

/// The moment when clocks in the zone show this time. A time that clocks skip is read with the offset before it.
pub(super) fn moment(local_us: i64, tz: Tz) -> Option<i64> {
    let local = DateTime::from_timestamp_micros(local_us)?.naive_utc();
    let moment = tz.from_local_datetime(&local).earliest().or_else(|| {
        let hour = TimeDelta::hours(1);
        Some(tz.from_local_datetime(&(local - hour)).earliest()? + hour)
    })?;
    Some(moment.timestamp_micros())
}

/// What clocks in the zone show at this moment.
pub(super) fn local(moment_us: i64, tz: Tz) -> Option<i64> {
    let moment = DateTime::from_timestamp_micros(moment_us)?.with_timezone(&tz);
    Some(moment.naive_local().and_utc().timestamp_micros())
}
