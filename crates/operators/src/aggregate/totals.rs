//! sum and avg as a batch query computes them, and of intervals everywhere.
//!
//! (Over numbers an incremental view keeps the sums in the slots of its groups: `accumulate`.) Sums are exact: of
//! integers and numerics in 128 bits, of floats as [`ExactSum`]s, so that a query and a view show the same.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, Decimal128Array, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, FieldRef, Float64Type, Int64Type, IntervalMonthDayNanoType,
};
use datafusion::common::ScalarValue;
use tidewire_types::{Result, SqlError, SqlState};

use super::exact_sum::ExactSum;
use super::numeric::quotient;
use super::ordered::interval_of;
use super::values::{Mergeable, Values, taken};
use crate::expr::sql_error;

/// The state of a sum or an average over an argument of this type.
pub(super) fn totals(is_avg: bool, from: &DataType, field: &FieldRef) -> Box<dyn Mergeable> {
    let field = Arc::clone(field);
    match from {
        DataType::Interval(_) => Box::new(OfIntervals { is_avg, field, groups: vec![] }),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            Box::new(OfFloats { is_avg, field, groups: vec![] })
        }
        _ => {
            let scale = if let DataType::Decimal128(_, scale) = from { *scale } else { 0 };
            Box::new(OfNumbers { is_avg, field, scale, sums: vec![], counts: vec![] })
        }
    }
}

/// The average of numbers, at a scale. None where it does not fit.
pub(super) fn average(sum: i128, scale: i8, n: i64, to_scale: i8) -> Option<i128> {
    quotient((sum, scale), (i128::from(n), 0), to_scale)
}

fn numeric_overflow() -> SqlError {
    SqlError::new(SqlState::NumericValueOutOfRange, "numeric field overflow")
}

fn weight_of(weights: Option<&[i64]>, row_idx: usize) -> i64 {
    weights.and_then(|w| w.get(row_idx)).copied().unwrap_or(1)
}

// Integers and numerics.

struct OfNumbers {
    is_avg: bool,
    field: FieldRef,
    scale: i8,
    sums: Vec<i128>,
    counts: Vec<i64>,
}

impl OfNumbers {
    fn add(&mut self, id: u32, value: i128, n: i64) {
        if let (Some(sum), Some(count)) = (self.sums.get_mut(id as usize), self.counts.get_mut(id as usize)) {
            // What does not fit stays larger than any numeric, and is found when the result is taken.
            *sum = sum.saturating_add(value);
            *count += n;
        }
    }

    fn result(&self, idx: usize) -> Result<Option<i128>> {
        let (Some(sum), Some(n)) = (self.sums.get(idx), self.counts.get(idx)) else { return Ok(None) };
        if *n == 0 {
            return Ok(None);
        }
        let limit = 10u128.pow(u32::from(DECIMAL128_MAX_PRECISION));
        match self.field.data_type() {
            _ if sum.unsigned_abs() >= limit => Err(numeric_overflow()),
            DataType::Decimal128(_, to_scale) if self.is_avg => {
                average(*sum, self.scale, *n, *to_scale).map(Some).ok_or_else(numeric_overflow)
            }
            DataType::Int64 if i64::try_from(*sum).is_err() => {
                Err(SqlError::new(SqlState::NumericValueOutOfRange, "bigint out of range"))
            }
            _ => Ok(Some(*sum)),
        }
    }
}

impl Values for OfNumbers {
    fn grow(&mut self, n_slots: usize) {
        self.sums.resize(n_slots.max(self.sums.len()), 0);
        self.counts.resize(n_slots.max(self.counts.len()), 0);
    }

    fn apply(&mut self, ids: &[u32], columns: &[ArrayRef], weights: Option<&[i64]>) -> Result<()> {
        let Some(column) = columns.first() else { return Ok(()) };
        let nulls = column.logical_nulls();
        let is_valid = |row_idx: usize| nulls.as_ref().is_none_or(|n| n.is_valid(row_idx));
        if let Some(values) = column.as_primitive_opt::<Decimal128Type>() {
            for (row_idx, (id, value)) in ids.iter().zip(values.values()).enumerate() {
                let weight = weight_of(weights, row_idx);
                if weight != 0 && is_valid(row_idx) {
                    self.add(*id, value.saturating_mul(i128::from(weight)), weight);
                }
            }
            return Ok(());
        }
        let to = if *column.data_type() == DataType::UInt64 { DataType::Decimal128(20, 0) } else { DataType::Int64 };
        let column = cast(column, &to)?;
        let Some(values) = column.as_primitive_opt::<Int64Type>() else { return self.apply(ids, &[column], weights) };
        for (row_idx, (id, value)) in ids.iter().zip(values.values()).enumerate() {
            let weight = weight_of(weights, row_idx);
            if weight != 0 && is_valid(row_idx) {
                self.add(*id, i128::from(*value) * i128::from(weight), weight);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, id: u32) -> Result<ScalarValue> {
        let data_type = self.field.data_type();
        let result = self.result(id as usize)?;
        match data_type {
            DataType::Decimal128(precision, scale) => Ok(ScalarValue::Decimal128(result, *precision, *scale)),
            _ => Ok(ScalarValue::Int64(result.and_then(|sum| i64::try_from(sum).ok()))),
        }
    }

    fn forget(&mut self, id: u32) {
        if let (Some(sum), Some(count)) = (self.sums.get_mut(id as usize), self.counts.get_mut(id as usize)) {
            (*sum, *count) = (0, 0);
        }
    }

    fn bytes(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.counts.capacity() * size_of::<i64>()
    }

    fn len(&self) -> usize {
        0
    }

    fn is_small(&self) -> bool {
        true
    }

    fn save(&self, id: u32, out: &mut Vec<u8>) {
        if let (Some(sum), Some(n)) = (self.sums.get(id as usize), self.counts.get(id as usize)) {
            out.extend(sum.to_le_bytes());
            out.extend(n.to_le_bytes());
        }
    }

    fn load(&mut self, id: u32, mut bytes: &[u8]) -> Result<()> {
        if !bytes.is_empty() {
            let sum = i128::from_le_bytes(taken(&mut bytes)?);
            self.add(id, sum, i64::from_le_bytes(taken(&mut bytes)?));
        }
        Ok(())
    }
}

impl Mergeable for OfNumbers {
    fn state_types(&self) -> Vec<DataType> {
        vec![DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0), DataType::Int64]
    }

    fn state(&mut self, n_groups: usize) -> Result<Vec<ArrayRef>> {
        let sums: Decimal128Array = self.sums.iter().take(n_groups).map(|sum| Some(*sum)).collect();
        let counts: Int64Array = self.counts.iter().take(n_groups).map(|n| Some(*n)).collect();
        let sums = sums.with_data_type(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0));
        Ok(vec![Arc::new(sums), Arc::new(counts)])
    }

    fn merge(&mut self, ids: &[u32], columns: &[ArrayRef]) -> Result<()> {
        let [sums, counts] = columns else { return Err(SqlError::internal("a sum without its count")) };
        let (sums, counts) = (sums.as_primitive::<Decimal128Type>(), counts.as_primitive::<Int64Type>());
        for (id, (sum, n)) in ids.iter().zip(sums.values().iter().zip(counts.values())) {
            self.add(*id, *sum, *n);
        }
        Ok(())
    }

    fn drop_first(&mut self, n_groups: usize) {
        self.sums.drain(..n_groups.min(self.sums.len()));
        self.counts.drain(..n_groups.min(self.counts.len()));
    }

    fn results(&mut self, n_groups: usize, data_type: &DataType) -> Result<ArrayRef> {
        let results = (0..n_groups).map(|idx| self.result(idx)).collect::<Result<Vec<_>>>()?;
        Ok(match data_type {
            DataType::Decimal128(..) => {
                Arc::new(results.into_iter().collect::<Decimal128Array>().with_data_type(data_type.clone()))
            }
            _ => {
                let narrow = results.into_iter().map(|sum| sum.and_then(|sum| i64::try_from(sum).ok()));
                Arc::new(narrow.collect::<Int64Array>())
            }
        })
    }
}

// Floats.

struct OfFloats {
    is_avg: bool,
    field: FieldRef,
    groups: Vec<(ExactSum, i64)>,
}

impl OfFloats {
    fn result(&self, idx: usize) -> Option<f64> {
        let (sum, n) = self.groups.get(idx).filter(|(_, n)| *n != 0)?;
        Some(if self.is_avg { sum.value() / *n as f64 } else { sum.value() })
    }
}

impl Values for OfFloats {
    fn grow(&mut self, n_slots: usize) {
        self.groups.resize_with(n_slots.max(self.groups.len()), Default::default);
    }

    fn apply(&mut self, ids: &[u32], columns: &[ArrayRef], weights: Option<&[i64]>) -> Result<()> {
        let Some(column) = columns.first() else { return Ok(()) };
        let column = cast(column, &DataType::Float64)?;
        for (row_idx, (id, value)) in ids.iter().zip(column.as_primitive::<Float64Type>()).enumerate() {
            let weight = weight_of(weights, row_idx);
            if let (Some(value), Some((sum, n))) = (value, self.groups.get_mut(*id as usize))
                && weight != 0
            {
                sum.add(value, weight);
                *n += weight;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, id: u32) -> Result<ScalarValue> {
        ScalarValue::Float64(self.result(id as usize)).cast_to(self.field.data_type()).map_err(sql_error)
    }

    fn forget(&mut self, id: u32) {
        if let Some(group) = self.groups.get_mut(id as usize) {
            *group = Default::default();
        }
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<(ExactSum, i64)>()
    }

    fn len(&self) -> usize {
        0
    }

    fn is_small(&self) -> bool {
        true
    }

    fn save(&self, id: u32, out: &mut Vec<u8>) {
        if let Some((sum, n)) = self.groups.get(id as usize) {
            out.extend(n.to_le_bytes());
            sum.save(out);
        }
    }

    /// Adds to what is there: partial results are put together so.
    fn load(&mut self, id: u32, mut bytes: &[u8]) -> Result<()> {
        let Some((sum, n)) = self.groups.get_mut(id as usize).filter(|_| !bytes.is_empty()) else { return Ok(()) };
        *n += i64::from_le_bytes(taken(&mut bytes)?);
        sum.merge(&ExactSum::load(&mut bytes)?);
        Ok(())
    }
}

impl Mergeable for OfFloats {
    fn state_types(&self) -> Vec<DataType> {
        vec![DataType::Binary]
    }

    fn state(&mut self, n_groups: usize) -> Result<Vec<ArrayRef>> {
        let mut states = BinaryBuilder::new();
        for id in 0..n_groups.min(self.groups.len()) as u32 {
            let mut bytes = vec![];
            self.save(id, &mut bytes);
            states.append_value(bytes);
        }
        Ok(vec![Arc::new(states.finish())])
    }

    fn merge(&mut self, ids: &[u32], columns: &[ArrayRef]) -> Result<()> {
        let Some(states) = columns.first() else { return Ok(()) };
        for (id, bytes) in ids.iter().zip(states.as_binary::<i32>()) {
            self.load(*id, bytes.unwrap_or_default())?;
        }
        Ok(())
    }

    fn drop_first(&mut self, n_groups: usize) {
        self.groups.drain(..n_groups.min(self.groups.len()));
    }

    fn results(&mut self, n_groups: usize, data_type: &DataType) -> Result<ArrayRef> {
        let results: ArrayRef = Arc::new((0..n_groups).map(|idx| self.result(idx)).collect::<Float64Array>());
        Ok(cast(&results, data_type)?)
    }
}

// Intervals.

#[derive(Clone, Copy, Default)]
struct IntervalTotal {
    n: i64,
    months: i64,
    days: i64,
    nanoseconds: i128,
}

struct OfIntervals {
    is_avg: bool,
    field: FieldRef,
    groups: Vec<IntervalTotal>,
}

impl OfIntervals {
    fn add(&mut self, id: u32, total: IntervalTotal, weight: i64) {
        if let Some(group) = self.groups.get_mut(id as usize) {
            group.n += total.n * weight;
            group.months += total.months * weight;
            group.days += total.days * weight;
            group.nanoseconds += total.nanoseconds * i128::from(weight);
        }
    }
}

impl Values for OfIntervals {
    fn grow(&mut self, n_slots: usize) {
        self.groups.resize_with(n_slots.max(self.groups.len()), Default::default);
    }

    fn apply(&mut self, ids: &[u32], columns: &[ArrayRef], weights: Option<&[i64]>) -> Result<()> {
        let Some(column) = columns.first() else { return Ok(()) };
        let values = column
            .as_primitive_opt::<IntervalMonthDayNanoType>()
            .ok_or_else(|| SqlError::internal("a sum of something that is no interval"))?;
        for (row_idx, (id, value)) in ids.iter().zip(values).enumerate() {
            let Some(value) = value else { continue };
            let total = IntervalTotal {
                n: 1,
                months: i64::from(value.months),
                days: i64::from(value.days),
                nanoseconds: i128::from(value.nanoseconds),
            };
            self.add(*id, total, weight_of(weights, row_idx));
        }
        Ok(())
    }

    fn evaluate(&mut self, id: u32) -> Result<ScalarValue> {
        let Some(total) = self.groups.get(id as usize).filter(|t| t.n != 0) else {
            return ScalarValue::try_new_null(self.field.data_type()).map_err(sql_error);
        };
        let n = if self.is_avg { total.n as f64 } else { 1.0 };
        let (months, days) = (total.months as f64 / n, total.days as f64 / n);
        let value = interval_of(months, days, total.nanoseconds as f64 / n)?;
        Ok(ScalarValue::IntervalMonthDayNano(Some(value)))
    }

    fn forget(&mut self, id: u32) {
        if let Some(group) = self.groups.get_mut(id as usize) {
            *group = Default::default();
        }
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<IntervalTotal>()
    }

    fn len(&self) -> usize {
        0
    }

    fn is_small(&self) -> bool {
        true
    }

    fn save(&self, id: u32, out: &mut Vec<u8>) {
        if let Some(total) = self.groups.get(id as usize) {
            [total.n, total.months, total.days].iter().for_each(|part| out.extend(part.to_le_bytes()));
            out.extend(total.nanoseconds.to_le_bytes());
        }
    }

    fn load(&mut self, id: u32, mut bytes: &[u8]) -> Result<()> {
        if !bytes.is_empty() {
            let [n, months, days] = [(); 3].map(|()| taken(&mut bytes).map(i64::from_le_bytes));
            let nanoseconds = i128::from_le_bytes(taken(&mut bytes)?);
            self.add(id, IntervalTotal { n: n?, months: months?, days: days?, nanoseconds }, 1);
        }
        Ok(())
    }
}

impl Mergeable for OfIntervals {
    fn state_types(&self) -> Vec<DataType> {
        let nanoseconds = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);
        vec![DataType::Int64, DataType::Int64, DataType::Int64, nanoseconds]
    }

    fn state(&mut self, n_groups: usize) -> Result<Vec<ArrayRef>> {
        let groups = || self.groups.iter().take(n_groups);
        let nanoseconds: Decimal128Array = groups().map(|t| Some(t.nanoseconds)).collect();
        Ok(vec![
            Arc::new(groups().map(|t| Some(t.n)).collect::<Int64Array>()),
            Arc::new(groups().map(|t| Some(t.months)).collect::<Int64Array>()),
            Arc::new(groups().map(|t| Some(t.days)).collect::<Int64Array>()),
            Arc::new(nanoseconds.with_data_type(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))),
        ])
    }

    fn merge(&mut self, ids: &[u32], columns: &[ArrayRef]) -> Result<()> {
        let [n, months, days, nanoseconds] = columns else { return Err(SqlError::internal("a part of a sum")) };
        let int = |c: &ArrayRef, row: usize| c.as_primitive::<Int64Type>().value(row);
        for (row_idx, id) in ids.iter().enumerate() {
            let total = IntervalTotal {
                n: int(n, row_idx),
                months: int(months, row_idx),
                days: int(days, row_idx),
                nanoseconds: nanoseconds.as_primitive::<Decimal128Type>().value(row_idx),
            };
            self.add(*id, total, 1);
        }
        Ok(())
    }

    fn drop_first(&mut self, n_groups: usize) {
        self.groups.drain(..n_groups.min(self.groups.len()));
    }
}
