//! Variance, covariance, correlation and regression over rows that come and go.
//!
//! What is kept are sums: of values, squares and products. Over integers and numerics they are whole numbers and the
//! result is a numeric, over floats they are [`ExactSum`]s and the result is a double: in both, what left leaves no
//! trace, and `n * sum(x²) - sum(x)²` loses nothing, however large the mean is beside the deviation.
//!
//! Pairs follow SQL: `regr_slope(y, x)`; a row counts where neither is NULL.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, FieldRef, Float64Type, Int64Type, i256};
use datafusion::common::ScalarValue;
use tidewire_types::{Result, SqlError, SqlState};

use super::exact_sum::ExactSum;
use super::numeric::{divided, square_root};
use super::values::{Mergeable, Values, taken};
use crate::expr::sql_error;

/// Which statistic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "they are named as in SQL")]
pub enum Statistic {
    VarPop,
    VarSamp,
    StddevPop,
    StddevSamp,
    CovarPop,
    CovarSamp,
    Corr,
    RegrAvgx,
    RegrAvgy,
    RegrCount,
    RegrIntercept,
    RegrR2,
    RegrSlope,
    RegrSxx,
    RegrSxy,
    RegrSyy,
}

impl Statistic {
    /// Whether it is one of two columns.
    pub fn is_of_pairs(self) -> bool {
        !matches!(self, Statistic::VarPop | Statistic::VarSamp | Statistic::StddevPop | Statistic::StddevSamp)
    }

    /// The result over no rows.
    pub fn over_nothing(self, data_type: &DataType) -> Result<ScalarValue> {
        match self {
            Statistic::RegrCount => Ok(ScalarValue::Int64(Some(0))),
            _ => ScalarValue::try_new_null(data_type).map_err(sql_error),
        }
    }
}

/// The state of such a call over arguments of these types.
pub(super) fn statistics(function: Statistic, types: &[DataType], field: &FieldRef) -> Box<dyn Mergeable> {
    let field = FieldRef::clone(field);
    match types.first() {
        Some(DataType::Decimal128(_, scale)) if !function.is_of_pairs() => {
            Box::new(OfNumerics { function, field, scale: *scale, groups: vec![] })
        }
        Some(t) if t.is_integer() && !function.is_of_pairs() => {
            Box::new(OfNumerics { function, field, scale: 0, groups: vec![] })
        }
        _ => Box::new(OfFloats { function, field, groups: vec![] }),
    }
}

/// Calls `apply` for every row that counts: its number, its weight, its group.
fn each(ids: &[u32], columns: &[ArrayRef], weights: Option<&[i64]>, mut apply: impl FnMut(usize, i64, usize)) {
    for (row_idx, id) in ids.iter().enumerate() {
        let weight = weights.and_then(|w| w.get(row_idx)).copied().unwrap_or(1);
        if weight != 0 && columns.iter().all(|c| c.is_valid(row_idx)) {
            apply(row_idx, weight, *id as usize);
        }
    }
}

// Integers and numerics.

/// Sums of whole numbers.
#[derive(Clone, Debug, Default)]
struct Whole {
    n: i64,
    sum: i128,
    squares: i256,
    /// The sum of squares roughly: tells when it has left its 256 bits.
    rough: f64,
}

struct OfNumerics {
    function: Statistic,
    field: FieldRef,
    /// Digits behind the point of the argument.
    scale: i8,
    groups: Vec<Whole>,
}

impl Values for OfNumerics {
    fn grow(&mut self, n_slots: usize) {
        self.groups.resize_with(n_slots.max(self.groups.len()), Whole::default);
    }

    fn apply(&mut self, ids: &[u32], columns: &[ArrayRef], weights: Option<&[i64]>) -> Result<()> {
        let Some(column) = columns.first() else { return Ok(()) };
        let groups = &mut self.groups;
        let mut add = |value: i128, weight: i64, id: usize| {
            let Some(group) = groups.get_mut(id) else { return };
            let value = i256::from_i128(value);
            let weighted = value.wrapping_mul(i256::from(weight));
            group.n += weight;
            group.sum = group.sum.wrapping_add(weighted.as_i128());
            group.squares = group.squares.wrapping_add(weighted.wrapping_mul(value));
            group.rough += value.as_i128() as f64 * value.as_i128() as f64 * weight as f64;
        };
        match column.as_primitive_opt::<Decimal128Type>() {
            Some(values) => each(ids, columns, weights, |row, weight, id| add(values.value(row), weight, id)),
            None => {
                let column = cast(column, &DataType::Int64)?;
                let values = column.as_primitive::<Int64Type>();
                each(ids, columns, weights, |row, weight, id| add(i128::from(values.value(row)), weight, id));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, id: u32) -> Result<ScalarValue> {
        let data_type = self.field.data_type();
        let (DataType::Decimal128(_, to_scale), Some(group)) = (data_type, self.groups.get(id as usize)) else {
            return self.function.over_nothing(data_type);
        };
        let is_sample = matches!(self.function, Statistic::VarSamp | Statistic::StddevSamp);
        if group.n <= i64::from(is_sample) {
            return self.function.over_nothing(data_type);
        }
        let overflow = || SqlError::new(SqlState::NumericValueOutOfRange, "numeric field overflow");
        // Half of what fits: the sum above is rough.
        if group.rough.abs() > 2e76 {
            return Err(overflow());
        }
        let n = i256::from(group.n);
        let sum = i256::from_i128(group.sum);
        let square = sum.checked_mul(sum).ok_or_else(overflow)?;
        let deviations = n.checked_mul(group.squares).and_then(|s| s.checked_sub(square)).ok_or_else(overflow)?;
        let divisor = n.checked_mul(if is_sample { n.wrapping_sub(i256::ONE) } else { n }).ok_or_else(overflow)?;
        let is_root = matches!(self.function, Statistic::StddevPop | Statistic::StddevSamp);
        let variance = divided((deviations, 2 * self.scale.max(0)), (divisor, 0)).ok_or_else(overflow)?;
        let result = if is_root { square_root(variance).ok_or_else(overflow)? } else { variance };
        let result = result.at_scale(*to_scale).ok_or_else(overflow)?;
        Ok(ScalarValue::Decimal128(Some(result), DECIMAL128_MAX_PRECISION, *to_scale))
    }

    fn forget(&mut self, id: u32) {
        if let Some(group) = self.groups.get_mut(id as usize) {
            *group = Whole::default();
        }
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<Whole>()
    }

    fn len(&self) -> usize {
        0
    }

    fn is_small(&self) -> bool {
        true
    }

    fn save(&self, id: u32, out: &mut Vec<u8>) {
        let Some(group) = self.groups.get(id as usize) else { return };
        out.extend(group.n.to_le_bytes());
        out.extend(group.sum.to_le_bytes());
        out.extend(group.squares.to_le_bytes());
        out.extend(group.rough.to_le_bytes());
    }

    /// Adds to what is there: partial results are put together so.
    fn load(&mut self, id: u32, mut bytes: &[u8]) -> Result<()> {
        let Some(group) = self.groups.get_mut(id as usize).filter(|_| !bytes.is_empty()) else { return Ok(()) };
        group.n += i64::from_le_bytes(taken(&mut bytes)?);
        group.sum = group.sum.wrapping_add(i128::from_le_bytes(taken(&mut bytes)?));
        group.squares = group.squares.wrapping_add(i256::from_le_bytes(taken(&mut bytes)?));
        group.rough += f64::from_le_bytes(taken(&mut bytes)?);
        Ok(())
    }
}

impl Mergeable for OfNumerics {
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
}

// Floats.

/// Sums over (y, x); over one column, that is y.
#[derive(Debug, Default)]
struct Sums {
    n: i64,
    y: ExactSum,
    yy: ExactSum,
    /// Boxed: variance has none.
    x: Option<Box<SumsOfX>>,
}

#[derive(Debug, Default)]
struct SumsOfX {
    x: ExactSum,
    xx: ExactSum,
    xy: ExactSum,
}

struct OfFloats {
    function: Statistic,
    field: FieldRef,
    groups: Vec<Sums>,
}

/// Adds `weight * a * b`, exactly.
fn add_product(sum: &mut ExactSum, a: f64, b: f64, weight: i64) {
    let product = a * b;
    sum.add(product, weight);
    if product.is_finite() {
        sum.add(a.mul_add(b, -product), weight);
    }
}

/// `n * sum(ab) - sum(a) * sum(b)`, rounded once.
fn centered(n: i64, ab: &ExactSum, a: &ExactSum, b: &ExactSum) -> f64 {
    let mut result = ExactSum::default();
    for part in ab.parts() {
        add_product(&mut result, n as f64, part, 1);
    }
    for left in a.parts() {
        for right in b.parts() {
            add_product(&mut result, left, right, -1);
        }
    }
    result.value()
}

impl Sums {
    fn add(&mut self, y: f64, x: Option<f64>, weight: i64) {
        self.n += weight;
        self.y.add(y, weight);
        add_product(&mut self.yy, y, y, weight);
        if let Some(x) = x {
            let of_x = self.x.get_or_insert_default();
            of_x.x.add(x, weight);
            add_product(&mut of_x.xx, x, x, weight);
            add_product(&mut of_x.xy, x, y, weight);
        }
    }

    /// All sums, in the order of the state.
    fn all_mut(&mut self, is_of_pairs: bool) -> Vec<&mut ExactSum> {
        let mut all = vec![&mut self.y, &mut self.yy];
        if is_of_pairs {
            let SumsOfX { x, xx, xy } = self.x.get_or_insert_default().as_mut();
            all.extend([x, xx, xy]);
        }
        all
    }

    fn evaluate(&self, function: Statistic) -> Option<f64> {
        use Statistic as S;
        let n = self.n as f64;
        let empty = SumsOfX::default();
        let SumsOfX { x, xx, xy } = self.x.as_deref().unwrap_or(&empty);
        // Each is n times the sum of the products of deviations.
        let syy = || centered(self.n, &self.yy, &self.y, &self.y).max(0.0);
        let sxx = || centered(self.n, xx, x, x).max(0.0);
        let sxy = || nan_or(x, nan_or(&self.y, centered(self.n, xy, x, &self.y)));
        let syy_or_nan = || nan_or(&self.y, syy());
        let sxx_or_nan = || nan_or(x, sxx());
        let is_sample = matches!(function, S::VarSamp | S::StddevSamp | S::CovarSamp);
        if self.n <= i64::from(is_sample) {
            return None;
        }
        Some(match function {
            S::VarPop => syy_or_nan() / n / n,
            S::VarSamp => syy_or_nan() / n / (n - 1.0),
            S::StddevPop => (syy_or_nan() / n / n).sqrt(),
            S::StddevSamp => (syy_or_nan() / n / (n - 1.0)).sqrt(),
            S::CovarPop => sxy() / n / n,
            S::CovarSamp => sxy() / n / (n - 1.0),
            S::RegrCount => n,
            S::RegrAvgx => x.value() / n,
            S::RegrAvgy => self.y.value() / n,
            S::RegrSxx => sxx_or_nan() / n,
            S::RegrSyy => syy_or_nan() / n,
            S::RegrSxy => sxy() / n,
            S::Corr => {
                let (sxx, syy) = (sxx_or_nan(), syy_or_nan());
                if sxx == 0.0 || syy == 0.0 {
                    return None;
                }
                (sxy() / (sxx.sqrt() * syy.sqrt())).clamp(-1.0, 1.0)
            }
            S::RegrR2 => {
                let (sxx, syy) = (sxx_or_nan(), syy_or_nan());
                if sxx == 0.0 {
                    return None;
                }
                if syy == 0.0 {
                    return Some(1.0);
                }
                let sxy = sxy();
                (sxy / sxx) * (sxy / syy)
            }
            S::RegrSlope | S::RegrIntercept => {
                let sxx = sxx_or_nan();
                if sxx == 0.0 {
                    return None;
                }
                let sxy = sxy();
                match function {
                    S::RegrSlope => sxy / sxx,
                    _ => (self.y.value() - x.value() * (sxy / sxx)) / n,
                }
            }
        })
    }

    /// Finite values whose squares are not.
    fn overflows(&self) -> bool {
        let is_over = |sum: &ExactSum, square: &ExactSum| sum.value().is_finite() && !square.value().is_finite();
        is_over(&self.y, &self.yy) || self.x.as_ref().is_some_and(|s| is_over(&s.x, &s.xx))
    }
}

/// `max` hides a NaN; a deviation from an infinite mean is one.
fn nan_or(sum: &ExactSum, value: f64) -> f64 {
    if sum.value().is_finite() { value } else { f64::NAN }
}

impl Values for OfFloats {
    fn grow(&mut self, n_slots: usize) {
        self.groups.resize_with(n_slots.max(self.groups.len()), Sums::default);
    }

    fn apply(&mut self, ids: &[u32], columns: &[ArrayRef], weights: Option<&[i64]>) -> Result<()> {
        let n_columns = if self.function.is_of_pairs() { 2 } else { 1 };
        let floats = columns.iter().take(n_columns).map(|c| cast(c, &DataType::Float64));
        let floats = floats.collect::<Result<Vec<ArrayRef>, _>>()?;
        let values: Vec<_> = floats.iter().map(|c| c.as_primitive::<Float64Type>()).collect();
        let Some((y, x)) = values.split_first() else { return Ok(()) };
        let groups = &mut self.groups;
        each(ids, &floats, weights, |row_idx, weight, id| {
            if let Some(group) = groups.get_mut(id) {
                group.add(y.value(row_idx), x.first().map(|x| x.value(row_idx)), weight);
            }
        });
        Ok(())
    }

    fn evaluate(&mut self, id: u32) -> Result<ScalarValue> {
        let data_type = self.field.data_type();
        let Some(group) = self.groups.get(id as usize).filter(|g| g.n > 0) else {
            return self.function.over_nothing(data_type);
        };
        if self.function == Statistic::RegrCount {
            return Ok(ScalarValue::Int64(Some(group.n)));
        }
        if group.overflows() {
            return Err(SqlError::new(SqlState::NumericValueOutOfRange, "value out of range: overflow"));
        }
        ScalarValue::Float64(group.evaluate(self.function)).cast_to(data_type).map_err(sql_error)
    }

    fn forget(&mut self, id: u32) {
        if let Some(group) = self.groups.get_mut(id as usize) {
            *group = Sums::default();
        }
    }

    fn bytes(&self) -> usize {
        let of_x = if self.function.is_of_pairs() { size_of::<SumsOfX>() } else { 0 };
        // Most sums of squares are on the heap.
        let n_wide = if self.function.is_of_pairs() { 3 } else { 1 };
        self.groups.capacity() * (size_of::<Sums>() + of_x) + self.groups.len() * n_wide * ExactSum::WIDE_BYTES
    }

    fn len(&self) -> usize {
        0
    }

    fn is_small(&self) -> bool {
        true
    }

    fn save(&self, id: u32, out: &mut Vec<u8>) {
        let Some(group) = self.groups.get(id as usize) else { return };
        out.extend(group.n.to_le_bytes());
        group.y.save(out);
        group.yy.save(out);
        if self.function.is_of_pairs() {
            let empty = SumsOfX::default();
            let SumsOfX { x, xx, xy } = group.x.as_deref().unwrap_or(&empty);
            [x, xx, xy].iter().for_each(|sum| sum.save(out));
        }
    }

    /// Adds to what is there: partial results are put together so.
    fn load(&mut self, id: u32, mut bytes: &[u8]) -> Result<()> {
        let Some(group) = self.groups.get_mut(id as usize).filter(|_| !bytes.is_empty()) else { return Ok(()) };
        group.n += i64::from_le_bytes(taken(&mut bytes)?);
        for sum in group.all_mut(self.function.is_of_pairs()) {
            sum.merge(&ExactSum::load(&mut bytes)?);
        }
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
}
