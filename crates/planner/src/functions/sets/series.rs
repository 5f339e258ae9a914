//! `generate_series` over integers, numerics and timestamps.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array, IntervalMonthDayNanoArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Decimal128Type, FieldRef, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
    TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, Result};
use tidewire_operators::flat_map::{ROWS_MAX, SetFunction, Sets, too_many_rows};
use tidewire_types::{SqlError, SqlState, SqlType};

use super::column;
use crate::functions::cast::external;
use crate::functions::convert::convert;

const NAME: &str = "generate_series";
/// Digits of a numeric in memory.
const NUMERIC_PRECISION: u8 = 38;

#[derive(Debug)]
struct GenerateSeries {
    given: Vec<SqlType>,
    /// The type of the series.
    result: SqlType,
    fields: Vec<FieldRef>,
}

/// For two ends of one kind, and a step of that kind or an interval.
pub(super) fn generate_series(_: &'static str, types: &[SqlType]) -> Option<Arc<dyn SetFunction>> {
    let result = match types {
        [start, stop] => number(&[start, stop])?,
        [start, stop, step] => match number(&[start, stop, step]) {
            Some(result) => result,
            None if matches!(step, SqlType::Interval | SqlType::Text | SqlType::Null) => moment(start, stop)?,
            None => return None,
        },
        _ => return None,
    };
    let fields = vec![column(&result, NAME)];
    Some(Arc::new(GenerateSeries { given: types.to_vec(), result, fields }))
}

/// The widest of some integers and numerics.
fn number(types: &[&SqlType]) -> Option<SqlType> {
    let mut widest = None;
    for sql_type in types {
        let scale_of = |t: &SqlType| match t.data_type() {
            DataType::Decimal128(_, scale) => scale,
            _ => 0,
        };
        widest = match (widest, sql_type) {
            (widest, SqlType::Null) => widest,
            (Some(SqlType::Numeric(None)), SqlType::Numeric(_) | SqlType::Int2 | SqlType::Int4 | SqlType::Int8)
            | (_, SqlType::Numeric(None)) => Some(SqlType::Numeric(None)),
            (widest, numeric @ SqlType::Numeric(Some(_))) => {
                let scale = scale_of(numeric).max(widest.as_ref().map_or(0, scale_of));
                Some(SqlType::Numeric(Some((NUMERIC_PRECISION, scale))))
            }
            (Some(SqlType::Numeric(Some((_, scale)))), SqlType::Int2 | SqlType::Int4 | SqlType::Int8) => {
                Some(SqlType::Numeric(Some((NUMERIC_PRECISION, scale))))
            }
            (Some(SqlType::Int8), SqlType::Int2 | SqlType::Int4) | (_, SqlType::Int8) => Some(SqlType::Int8),
            (None | Some(SqlType::Int4), SqlType::Int2 | SqlType::Int4) => Some(SqlType::Int4),
            _ => return None,
        };
    }
    widest
}

/// Dates count as timestamps with time zone, the type that PostgreSQL prefers.
fn moment(start: &SqlType, stop: &SqlType) -> Option<SqlType> {
    use SqlType as T;
    let is_moment = |t: &T| matches!(t, T::Date | T::Timestamp | T::Timestamptz | T::Text | T::Null);
    if !is_moment(start) || !is_moment(stop) {
        return None;
    }
    match (start, stop) {
        (T::Timestamptz, _) | (_, T::Timestamptz) => Some(T::Timestamptz),
        (T::Timestamp, _) | (_, T::Timestamp) => Some(T::Timestamp),
        (T::Date, _) | (_, T::Date) => Some(T::Timestamptz),
        _ => None,
    }
}

impl SetFunction for GenerateSeries {
    fn name(&self) -> &str {
        NAME
    }

    fn fields(&self) -> &[FieldRef] {
        &self.fields
    }

    fn call(&self, args: &[ArrayRef], n_rows: usize) -> Result<Sets, DataFusionError> {
        let target = |idx: usize| match (&self.result, idx) {
            (SqlType::Timestamp | SqlType::Timestamptz, 2) => SqlType::Interval,
            (SqlType::Int4, _) => SqlType::Int8,
            (result, _) => result.clone(),
        };
        let args = args.iter().zip(&self.given).enumerate();
        let args: Vec<ArrayRef> =
            args.map(|(idx, (arg, given))| convert(arg, given, &target(idx), false)).collect::<Result<_>>()?;
        let mut series = Series::default();
        match self.result {
            SqlType::Int4 | SqlType::Int8 => {
                let value = |idx: usize, row| integer(args.get(idx), row);
                for row in 0..n_rows {
                    series.numbers(value(0, row), value(1, row), of_step(args.len(), 1, value(2, row)))?;
                }
            }
            SqlType::Numeric(_) => {
                let DataType::Decimal128(_, scale) = self.result.data_type() else { return Err(lost()) };
                let one = 10i128.pow(u32::from(scale.unsigned_abs()));
                let value = |idx: usize, row| decimal(args.get(idx), row);
                for row in 0..n_rows {
                    series.numbers(value(0, row), value(1, row), of_step(args.len(), one, value(2, row)))?;
                }
            }
            _ => self.moments(&args, n_rows, &mut series)?,
        }
        Ok(Sets { counts: series.counts, columns: vec![self.column(series.values)?] })
    }
}

impl GenerateSeries {
    fn moments(&self, args: &[ArrayRef], n_rows: usize, series: &mut Series) -> Result<()> {
        let [start, stop, step] = args else { return Err(lost()) };
        let start = start.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(lost)?;
        let stop = stop.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(lost)?;
        let step: &IntervalMonthDayNanoArray = step.as_primitive_opt::<IntervalMonthDayNanoType>().ok_or_else(lost)?;
        for row in 0..n_rows {
            match start.is_valid(row) && stop.is_valid(row) && step.is_valid(row) {
                true => series.moments(start.value(row), stop.value(row), step.value(row))?,
                false => series.counts.push(0),
            }
        }
        Ok(())
    }

    fn column(&self, values: Vec<i128>) -> Result<ArrayRef> {
        let narrow = |values: Vec<i128>| values.into_iter().map(|v| v as i64);
        Ok(match self.result.data_type() {
            // What lies between two integers is one too.
            DataType::Int32 => Arc::new(Int32Array::from_iter_values(values.into_iter().map(|v| v as i32))),
            DataType::Int64 => Arc::new(Int64Array::from_iter_values(narrow(values))),
            DataType::Timestamp(_, zone) => {
                Arc::new(TimestampMicrosecondArray::from_iter_values(narrow(values)).with_timezone_opt(zone))
            }
            DataType::Decimal128(precision, scale) => {
                Arc::new(Decimal128Array::from_iter_values(values).with_precision_and_scale(precision, scale)?)
            }
            _ => return Err(lost()),
        })
    }
}

fn lost() -> DataFusionError {
    external(SqlError::internal("generate_series with other types than it was planned with"))
}

fn integer(array: Option<&ArrayRef>, row: usize) -> Option<i128> {
    let array = array?.as_primitive_opt::<Int64Type>()?;
    array.is_valid(row).then(|| i128::from(array.value(row)))
}

fn decimal(array: Option<&ArrayRef>, row: usize) -> Option<i128> {
    let array = array?.as_primitive_opt::<Decimal128Type>()?;
    array.is_valid(row).then(|| array.value(row))
}

/// The third argument, or one where there is none.
fn of_step(n_args: usize, one: i128, given: Option<i128>) -> Option<i128> {
    if n_args < 3 { Some(one) } else { given }
}

fn step_zero() -> DataFusionError {
    external(SqlError::new(SqlState::InvalidParameterValue, "step size cannot equal zero"))
}

#[derive(Default)]
struct Series {
    counts: Vec<u32>,
    values: Vec<i128>,
}

impl Series {
    fn numbers(&mut self, start: Option<i128>, stop: Option<i128>, step: Option<i128>) -> Result<()> {
        let (Some(start), Some(stop), Some(step)) = (start, stop, step) else {
            self.counts.push(0);
            return Ok(());
        };
        if step == 0 {
            return Err(step_zero());
        }
        let is_empty = if step > 0 { start > stop } else { start < stop };
        let n = match is_empty {
            true => 0,
            false => stop.checked_sub(start).map_or(i128::MAX, |distance| distance / step + 1),
        };
        let n = usize::try_from(n).ok().filter(|n| n + self.values.len() <= ROWS_MAX);
        let n = n.ok_or_else(|| too_many_rows(NAME))?;
        self.values.extend((0..n).map(|idx| start + idx as i128 * step));
        self.counts.push(n as u32);
        Ok(())
    }

    /// Adds the step again and again, as PostgreSQL does: from January 31 by months come February 28, March 28, ..
    fn moments(&mut self, start: i64, stop: i64, step: IntervalMonthDayNano) -> Result<()> {
        let days = i128::from(step.months) * 30 + i128::from(step.days);
        let direction = days * 86_400_000_000_000 + i128::from(step.nanoseconds);
        if direction == 0 {
            return Err(step_zero());
        }
        let utc: Tz = "+00:00".parse().map_err(|_| lost())?;
        let (mut at, mut n) = (start, 0);
        while if direction > 0 { at <= stop } else { at >= stop } {
            if self.values.len() >= ROWS_MAX {
                return Err(too_many_rows(NAME));
            }
            self.values.push(i128::from(at));
            n += 1;
            at = TimestampMicrosecondType::add_month_day_nano(at, step, utc)
                .ok_or_else(|| external(SqlError::new(SqlState::DatetimeFieldOverflow, "timestamp out of range")))?;
        }
        self.counts.push(n);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_ends_where_the_step_would_pass_its_end() {
        let mut series = Series::default();
        for (start, stop, step) in [(1, 6, 2), (5, 1, -2), (1, 0, 1), (0, 1, -1)] {
            series.numbers(Some(start), Some(stop), Some(step)).unwrap();
        }
        series.numbers(None, Some(1), Some(1)).unwrap();
        assert_eq!((series.counts, series.values), (vec![3, 3, 0, 0, 0], vec![1, 3, 5, 5, 3, 1]));
        let huge = Series::default().numbers(Some(0), Some(i128::from(i64::MAX)), Some(1)).unwrap_err();
        assert!(huge.to_string().contains("more than"));
        assert!(Series::default().numbers(Some(0), Some(1), Some(0)).is_err());
    }

    #[test]
    fn months_are_added_one_by_one() {
        let mut series = Series::default();
        let day = 86_400_000_000;
        // From 1970-01-31 on.
        series.moments(30 * day, 90 * day, IntervalMonthDayNano::new(1, 0, 0)).unwrap();
        assert_eq!(series.values, [30, 58, 86].map(|d| i128::from(d * day)));
    }

    #[test]
    fn the_type_is_the_widest() {
        use SqlType as T;
        let numeric = T::Numeric(Some((4, 1)));
        assert_eq!(number(&[&T::Int2, &T::Int2]), Some(T::Int4));
        assert_eq!(number(&[&T::Int4, &T::Int8]), Some(T::Int8));
        assert_eq!(number(&[&T::Int8, &T::Int4]), Some(T::Int8));
        assert_eq!(number(&[&T::Int8, &numeric, &T::Null]), Some(T::Numeric(Some((38, 1)))));
        assert_eq!(number(&[&numeric, &T::Int8]), Some(T::Numeric(Some((38, 1)))));
        assert_eq!(number(&[&T::Float8, &T::Int4]), None);
        assert_eq!(moment(&T::Date, &T::Text), Some(T::Timestamptz));
        assert_eq!(moment(&T::Date, &T::Timestamp), Some(T::Timestamp));
    }
}
