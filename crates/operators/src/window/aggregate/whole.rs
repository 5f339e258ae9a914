//! count, and sums and averages of integers and decimals: differences of running sums.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Int64Type, i256};
use tidewire_types::{Result, SqlError, SqlState};

use super::{Frames, Input, Results, Scope};
use crate::window::partition::{Partition, Row, Summary};

/// What is made of count and sum.
#[derive(Clone, Debug)]
enum Output {
    Count,
    Bigint,
    /// Divided by the count where it is an average; the sum has this many digits more to get than the values have.
    Decimal {
        n_digits: u32,
        is_average: bool,
    },
    FloatAverage,
}

pub(super) struct Whole {
    output: Output,
    /// What values are read as.
    data_type: DataType,
}

/// How many values, and their sum.
pub(super) type Total = (i64, i256);

/// Totals of the rows before the span, and of all rows.
pub(super) struct Outside {
    before: Total,
    behind: Total,
}

impl Whole {
    pub(super) fn count() -> Whole {
        Whole { output: Output::Count, data_type: DataType::Null }
    }

    /// None: not by whole numbers.
    pub(super) fn sum(from: &DataType, to: &DataType) -> Option<Whole> {
        let (output, data_type) = match (from, to) {
            (_, DataType::Int64) if from.is_signed_integer() => (Output::Bigint, DataType::Int64),
            (DataType::Decimal128(_, scale), DataType::Decimal128(_, to_scale)) if to_scale >= scale => {
                let n_digits = u32::try_from(to_scale - scale).ok()?;
                (Output::Decimal { n_digits, is_average: false }, from.clone())
            }
            (_, DataType::Decimal128(_, to_scale)) if from.is_signed_integer() => {
                let n_digits = u32::try_from(*to_scale).ok()?;
                (Output::Decimal { n_digits, is_average: false }, DataType::Int64)
            }
            _ => return None,
        };
        Some(Whole { output, data_type })
    }

    /// None: not by whole numbers.
    pub(super) fn avg(from: &DataType, to: &DataType) -> Option<Whole> {
        if *to == DataType::Float64 && from.is_signed_integer() {
            return Some(Whole { output: Output::FloatAverage, data_type: DataType::Int64 });
        }
        let mut whole = Whole::sum(from, to)?;
        match &mut whole.output {
            Output::Decimal { is_average, .. } => *is_average = true,
            _ => return None,
        }
        Some(whole)
    }

    /// Adds the rows' values to running sums, the first of which is `first`.
    fn running(&self, input: &Input, n_rows: usize, first: Total) -> Result<Vec<Total>> {
        let mut sums = Vec::with_capacity(n_rows + 1);
        let (mut n, mut sum) = first;
        sums.push(first);
        let values = match (&self.output, input.columns.first()) {
            (Output::Count, _) | (_, None) => None,
            (_, Some(column)) => Some(cast(column, &self.data_type)?),
        };
        let value: Box<dyn Fn(usize) -> i128> = match &values {
            None => Box::new(|_| 0),
            Some(values) => match values.as_primitive_opt::<Int64Type>() {
                Some(values) => Box::new(|idx| i128::from(values.value(idx))),
                None => {
                    let values = values.as_primitive::<Decimal128Type>();
                    Box::new(|idx| values.value(idx))
                }
            },
        };
        for idx in 0..n_rows {
            if input.counts(idx) {
                n += 1;
                sum = sum.wrapping_add(i256::from_i128(value(idx)));
            }
            sums.push((n, sum));
        }
        Ok(sums)
    }

    pub(super) fn outside(
        &self,
        partition: &mut Partition,
        call_idx: usize,
        first: Range<usize>,
        last: Range<usize>,
        make: impl Fn(&mut dyn Iterator<Item = &Row>) -> Result<Input>,
    ) -> Result<Outside> {
        let mut total = |places: Range<usize>| {
            let summaries = partition.summaries(call_idx, places, |rows| {
                let mut n_rows = 0;
                let input = make(&mut rows.inspect(|_| n_rows += 1))?;
                let (n, sum) = self.running(&input, n_rows, (0, i256::ZERO))?.pop().unwrap_or((0, i256::ZERO));
                Ok(Summary::Whole(n, sum))
            })?;
            let totals = summaries.into_iter().filter_map(|s| match s {
                Summary::Whole(n, sum) => Some((*n, *sum)),
                _ => None,
            });
            Ok::<_, SqlError>(totals.fold((0, i256::ZERO), |(n, sum), (m, more)| (n + m, sum.wrapping_add(more))))
        };
        Ok(Outside { before: total(first)?, behind: total(last)? })
    }

    pub(super) fn evaluate(
        &self,
        frames: &Frames,
        scope: &Scope,
        outside: Option<&Outside>,
        input: &Input,
        to: &DataType,
    ) -> Result<Results> {
        let zero = (0, i256::ZERO);
        let first = outside.filter(|_| scope.from_first).map_or(zero, |o| o.before);
        let sums = self.running(input, scope.span.len(), first)?;
        let end = sums.last().copied().unwrap_or(zero);
        let total = outside.map_or(end, |o| (end.0 + o.behind.0, end.1.wrapping_add(o.behind.1)));
        let at = |place: usize| -> Total {
            if scope.from_first && place == 0 {
                return zero;
            }
            if scope.to_last && place == scope.len {
                return total;
            }
            place.checked_sub(scope.span.start).and_then(|idx| sums.get(idx)).copied().unwrap_or(end)
        };
        let mut totals = Vec::with_capacity(frames.pieces.len());
        for pieces in &frames.pieces {
            let mut sum = zero;
            for piece in pieces.iter().filter(|p| !p.is_empty()) {
                let (from, until) = (at(piece.start), at(piece.end));
                sum = (sum.0 + until.0 - from.0, sum.1.wrapping_add(until.1.wrapping_sub(from.1)));
            }
            totals.push(sum);
        }
        self.column(&totals, to)
    }

    fn column(&self, totals: &[Total], to: &DataType) -> Result<Results> {
        let mut errors = vec![];
        let too_large = |idx: usize, message: &str| (idx, SqlError::new(SqlState::NumericValueOutOfRange, message));
        let column: ArrayRef = match &self.output {
            Output::Count => {
                Arc::new(totals.iter().map(|(n, _)| *n).collect::<Vec<_>>().into_iter().collect::<Int64Array>())
            }
            Output::Bigint => {
                let bigint = |(idx, (n, sum)): (usize, &Total)| {
                    let value = sum.to_i128().and_then(|sum| i64::try_from(sum).ok());
                    if value.is_none() {
                        errors.push(too_large(idx, "bigint out of range"));
                    }
                    value.filter(|_| *n > 0)
                };
                Arc::new(totals.iter().enumerate().map(bigint).collect::<Int64Array>())
            }
            Output::FloatAverage => {
                let average = |(n, sum): &Total| (*n > 0).then(|| sum.to_i128().unwrap_or(0) as f64 / *n as f64);
                Arc::new(totals.iter().map(average).collect::<Float64Array>())
            }
            Output::Decimal { n_digits, is_average } => {
                let DataType::Decimal128(precision, _) = to else {
                    return Err(SqlError::internal("a numeric result of another type"));
                };
                let limit = 10i128.checked_pow(u32::from((*precision).min(DECIMAL128_MAX_PRECISION)));
                let factor = i256::from_i128(10i128.checked_pow(*n_digits).unwrap_or(1));
                let decimal = |(idx, (n, sum)): (usize, &Total)| {
                    if *n == 0 {
                        return None;
                    }
                    let divisor = i256::from_i128(if *is_average { i128::from(*n) } else { 1 });
                    let value = sum.checked_mul(factor).and_then(|s| s.checked_div(divisor));
                    let value = value.and_then(i256::to_i128);
                    let value = value.filter(|v| limit.is_none_or(|l| v.unsigned_abs() < l.unsigned_abs()));
                    if value.is_none() {
                        errors.push(too_large(idx, "numeric field overflow"));
                    }
                    value
                };
                let values: Decimal128Array = totals.iter().enumerate().map(decimal).collect();
                Arc::new(values.with_data_type(to.clone()))
            }
        };
        Ok(Results { column, errors })
    }
}
