//! Ordered-set and hypothetical-set aggregates: percentiles, `mode()`, `rank(..) WITHIN GROUP`; also min and max of
//! intervals and arrays.
//!
//! The rows of a group are a [`Ranked`] multiset of their sort keys, so that one changed row costs O(log n), whatever
//! the size of the group. The columns are the direct arguments, then the sort columns. Direct arguments are the same for
//! all rows of a group (constants, or group keys).
//!
//! The formulas are those of PostgreSQL's `orderedsetaggs.c`.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, IntervalMonthDayNanoArray};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{
    DataType, Field, FieldRef, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
};
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use hashbrown::HashMap;
use tidewire_types::{Result, SqlError, SqlState};

use super::codec::{Codec, Intervals, Rows, Words};
use super::ranked::Ranked;
use super::values::Values;
use crate::expr::sql_error;

/// What is asked of the ordered rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ordered {
    /// `percentile_cont(fraction or array of fractions)`: interpolated, of double precision or interval.
    PercentileCont,
    /// `percentile_disc(fraction or array of fractions)`: the first value at or behind it.
    PercentileDisc,
    /// `mode()`: the most frequent value.
    Mode,
    /// `rank(row)`: the rank that the row would have.
    Rank,
    /// `dense_rank(row)`
    DenseRank,
    /// `percent_rank(row)`
    PercentRank,
    /// `cume_dist(row)`
    CumeDist,
    /// The first row: min of a type that has no simpler way.
    First,
    /// The last row.
    Last,
}

impl Ordered {
    /// Whether rows with NULLs count, and a row of direct arguments is compared with them.
    pub fn is_hypothetical(self) -> bool {
        matches!(self, Ordered::Rank | Ordered::DenseRank | Ordered::PercentRank | Ordered::CumeDist)
    }

    /// Direct arguments among `n_args`.
    pub fn n_direct(self, n_args: usize) -> usize {
        match self {
            Ordered::PercentileCont | Ordered::PercentileDisc => n_args.min(1),
            Ordered::Mode | Ordered::First | Ordered::Last => 0,
            _ => n_args / 2,
        }
    }

    /// The result over no rows.
    pub fn over_nothing(self, data_type: &DataType) -> Result<ScalarValue> {
        Ok(match self {
            Ordered::Rank | Ordered::DenseRank => ScalarValue::Int64(Some(1)),
            Ordered::PercentRank => ScalarValue::Float64(Some(0.0)),
            Ordered::CumeDist => ScalarValue::Float64(Some(1.0)),
            _ => ScalarValue::try_new_null(data_type).map_err(sql_error)?,
        })
    }
}

/// The state of such a call. `types` are those of the arguments, `order` that of the sort columns among them.
pub(super) fn ordered(
    function: Ordered,
    types: &[DataType],
    order: &[SortOptions],
    field: &FieldRef,
) -> Result<Box<dyn Values>> {
    let n_direct = function.n_direct(types.len());
    let (direct_types, keys) = types.split_at(n_direct);
    let is_descending = order.first().is_some_and(|o| o.descending);
    let Some(key) = keys.first() else { return Err(SqlError::internal("no column to order by")) };
    let direct = Direct::new(direct_types)?;
    let of = |codec: Sorted| -> Result<Box<dyn Values>> {
        let (function, field) = (function, FieldRef::clone(field));
        Ok(match codec {
            Sorted::Words(codec) => Box::new(State::new(function, codec, n_direct, direct, field)),
            Sorted::Intervals(codec) => Box::new(State::new(function, codec, n_direct, direct, field)),
            Sorted::Rows(codec) => Box::new(State::new(function, codec, n_direct, direct, field)),
        })
    };
    if function.is_hypothetical() {
        let common = direct_types.iter().zip(keys).map(|(direct, key)| common_type(direct, key));
        return of(Sorted::Rows(Rows::new(common.collect(), order)?));
    }
    if Intervals::takes(key) {
        return of(Sorted::Intervals(Intervals { is_descending }));
    }
    let key = if function == Ordered::PercentileCont { &DataType::Float64 } else { key };
    match Words::new(key, is_descending) {
        Some(words) => of(Sorted::Words(words)),
        None => of(Sorted::Rows(Rows::new(vec![key.clone()], order)?)),
    }
}

/// The type that a direct argument and its sort column are compared in; a text literal is read as what it is compared
/// with.
fn common_type(direct: &DataType, key: &DataType) -> DataType {
    match direct.is_string() || direct.is_null() {
        true => key.clone(),
        false => comparison_coercion(direct, key).unwrap_or_else(|| key.clone()),
    }
}

/// The value that most rows have. Intervals of one length are equal; the first in order stands for them.
fn most_frequent<C: Codec>(group: &Ranked<C::Key>) -> Option<&C::Key> {
    C::last_equal(group.nth(0)?).map_or_else(|| group.most_frequent(), |_| most_frequent_of_equal::<C>(group))
}

/// O(n log n) in the number of different values.
fn most_frequent_of_equal<C: Codec>(group: &Ranked<C::Key>) -> Option<&C::Key> {
    let (mut best, mut n_best, mut begin) = (None, 0, 0);
    while let Some(first) = group.nth(begin) {
        let last = C::last_equal(first)?;
        let end = group.rank(&last).n_rows + group.count(&last);
        if end - begin > n_best {
            (best, n_best) = (Some(first), end - begin);
        }
        begin = end.max(begin + 1);
    }
    best
}

enum Sorted {
    Words(Words),
    Intervals(Intervals),
    Rows(Rows),
}

struct State<C: Codec> {
    function: Ordered,
    codec: C,
    n_direct: usize,
    direct: Direct,
    field: FieldRef,
    groups: Vec<Ranked<C::Key>>,
    n_values: usize,
    key_bytes: usize,
}

impl<C: Codec> State<C> {
    fn new(function: Ordered, codec: C, n_direct: usize, direct: Direct, field: FieldRef) -> State<C> {
        State { function, codec, n_direct, direct, field, groups: vec![], n_values: 0, key_bytes: 0 }
    }
}

impl<C: Codec> Values for State<C> {
    fn grow(&mut self, n_slots: usize) {
        self.groups.resize_with(n_slots.max(self.groups.len()), Ranked::default);
    }

    fn apply(&mut self, ids: &[u32], columns: &[ArrayRef], weights: Option<&[i64]>) -> Result<()> {
        let (direct, sorted) = columns.split_at(self.n_direct.min(columns.len()));
        self.direct.apply(ids, direct, weights)?;
        let mut sorted = sorted.to_vec();
        if self.function == Ordered::PercentileCont
            && let Some(first) = sorted.first_mut()
            && first.data_type().is_numeric()
        {
            *first = cast(first, &DataType::Float64)?;
        }
        let nulls = match self.function.is_hypothetical() {
            true => None,
            false => sorted.first().and_then(|c| c.logical_nulls()),
        };
        for (row_idx, (id, key)) in ids.iter().zip(self.codec.encode(&sorted)?).enumerate() {
            let weight = weights.and_then(|w| w.get(row_idx)).copied().unwrap_or(1);
            if weight == 0 || nulls.as_ref().is_some_and(|n| n.is_null(row_idx)) {
                continue;
            }
            if let Some(group) = self.groups.get_mut(*id as usize) {
                let heap = C::heap_bytes(&key);
                let change = group.add(key, weight);
                self.n_values = self.n_values.saturating_add_signed(change);
                self.key_bytes = self.key_bytes.saturating_add_signed(change * heap as isize);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, id: u32) -> Result<ScalarValue> {
        let data_type = self.field.data_type();
        let Some(group) = self.groups.get(id as usize).filter(|g| g.n_rows() > 0) else {
            return self.function.over_nothing(data_type);
        };
        let n_rows = group.n_rows();
        let one = |key: Option<&C::Key>| self.column(key.cloned().as_slice());
        match self.function {
            Ordered::Mode => scalar(&one(most_frequent::<C>(group))?, 0, data_type),
            Ordered::First => scalar(&one(group.nth(0))?, 0, data_type),
            Ordered::Last => scalar(&one(group.nth(n_rows - 1))?, 0, data_type),
            Ordered::PercentileCont | Ordered::PercentileDisc => self.percentiles(group, n_rows, id),
            _ => self.hypothetical(group, n_rows, id),
        }
    }

    fn forget(&mut self, id: u32) {
        if let Some(group) = self.groups.get_mut(id as usize) {
            *group = Ranked::default();
        }
        self.direct.own.remove(&id);
    }

    fn bytes(&self) -> usize {
        Ranked::<C::Key>::estimated_bytes(self.groups.capacity(), self.n_values)
            + self.key_bytes
            + self.direct.own.allocation_size()
    }

    fn len(&self) -> usize {
        self.n_values
    }
}

impl<C: Codec> State<C> {
    fn column(&self, keys: &[C::Key]) -> Result<ArrayRef> {
        self.codec.decode(keys)
    }

    fn percentiles(&self, group: &Ranked<C::Key>, n_rows: i64, id: u32) -> Result<ScalarValue> {
        let data_type = self.field.data_type();
        let direct = self.direct.of(id)?;
        let Some(argument) = direct.first() else { return Err(SqlError::internal("a percentile without a fraction")) };
        // An array of fractions gives an array.
        let is_list = matches!(argument.data_type(), DataType::List(_));
        let fractions = match argument.as_list_opt::<i32>() {
            Some(list) if list.is_null(0) => return ScalarValue::try_new_null(data_type).map_err(sql_error),
            Some(list) => list.value(0),
            None => ArrayRef::clone(argument),
        };
        let fractions = cast(&fractions, &DataType::Float64)?;
        let fractions = fractions.as_primitive::<Float64Type>();
        let mut results = vec![];
        for fraction in fractions {
            results.push(fraction.map(|f| self.percentile(group, n_rows, f)).transpose()?);
        }
        if !is_list {
            let result = results.pop().flatten();
            return result
                .map_or_else(|| ScalarValue::try_new_null(data_type).map_err(sql_error), |r| scalar(&r, 0, data_type));
        }
        let DataType::List(item) = data_type else { return Err(SqlError::internal("percentiles that are no array")) };
        list_of(&results, item)
    }

    /// An array of one value.
    fn percentile(&self, group: &Ranked<C::Key>, n_rows: i64, fraction: f64) -> Result<ArrayRef> {
        if !(0.0..=1.0).contains(&fraction) {
            let message = format!("percentile value {fraction} is not between 0 and 1");
            return Err(SqlError::new(SqlState::NumericValueOutOfRange, message));
        }
        let nth = |n: i64| group.nth(n.clamp(0, n_rows - 1)).cloned();
        if self.function == Ordered::PercentileDisc {
            let row = ((fraction * n_rows as f64).ceil() as i64 - 1).max(0);
            return self.column(nth(row).as_slice());
        }
        let position = fraction * (n_rows - 1) as f64;
        let (low, high) = (position.floor() as i64, position.ceil() as i64);
        let ends = self.column(&[nth(low), nth(high)].into_iter().flatten().collect::<Vec<_>>())?;
        if low == high {
            return Ok(ends.slice(0, 1));
        }
        let part = position - low as f64;
        if let Some(ends) = ends.as_primitive_opt::<IntervalMonthDayNanoType>() {
            let between = between_intervals(ends.value(0), ends.value(1), part)?;
            return Ok(std::sync::Arc::new(IntervalMonthDayNanoArray::from(vec![between])));
        }
        let ends = ends.as_primitive::<Float64Type>();
        let (low, high) = (ends.value(0), ends.value(1));
        Ok(std::sync::Arc::new(Float64Array::from(vec![low + part * (high - low)])))
    }

    fn hypothetical(&self, group: &Ranked<C::Key>, n_rows: i64, id: u32) -> Result<ScalarValue> {
        let key = self.codec.encode(&self.direct.of(id)?)?.into_iter().next();
        let key = key.ok_or_else(|| SqlError::internal("a rank of no row"))?;
        let before = group.rank(&key);
        Ok(match self.function {
            Ordered::Rank => ScalarValue::Int64(Some(before.n_rows + 1)),
            Ordered::DenseRank => ScalarValue::Int64(Some(before.n_values + 1)),
            Ordered::PercentRank => ScalarValue::Float64(Some(before.n_rows as f64 / n_rows as f64)),
            _ => {
                let up_to = before.n_rows + group.count(&key) + 1;
                ScalarValue::Float64(Some(up_to as f64 / (n_rows + 1) as f64))
            }
        })
    }
}

fn scalar(column: &ArrayRef, row_idx: usize, data_type: &DataType) -> Result<ScalarValue> {
    let column = if column.data_type() == data_type { ArrayRef::clone(column) } else { cast(column, data_type)? };
    crate::expr::scalar(&column, row_idx).map_err(sql_error)
}

/// An array value of single values; `None` is NULL.
fn list_of(values: &[Option<ArrayRef>], item: &FieldRef) -> Result<ScalarValue> {
    let items = values.iter().map(|value| match value {
        Some(value) => scalar(value, 0, item.data_type()),
        None => ScalarValue::try_new_null(item.data_type()).map_err(sql_error),
    });
    let items = items.collect::<Result<Vec<_>>>()?;
    let items = match items.is_empty() {
        true => arrow::array::new_empty_array(item.data_type()),
        false => ScalarValue::iter_to_array(items).map_err(sql_error)?,
    };
    list_value(items, item)
}

/// One array value with these items.
pub(super) fn list_value(items: ArrayRef, item: &FieldRef) -> Result<ScalarValue> {
    let offsets = arrow::buffer::OffsetBuffer::from_lengths([items.len()]);
    let list = arrow::array::ListArray::try_new(FieldRef::clone(item), offsets, items, None)?;
    Ok(ScalarValue::List(std::sync::Arc::new(list)))
}

/// `low + part * (high - low)`, a product's fraction of a month spilling into days and that of a day into time.
fn between_intervals(low: IntervalMonthDayNano, high: IntervalMonthDayNano, part: f64) -> Result<IntervalMonthDayNano> {
    let months = f64::from(high.months) - f64::from(low.months);
    let days = f64::from(high.days) - f64::from(low.days);
    let nanoseconds = high.nanoseconds as f64 - low.nanoseconds as f64;
    let step = interval_of(months * part, days * part, nanoseconds * part)?;
    let overflow = || SqlError::new(SqlState::DatetimeFieldOverflow, "interval out of range");
    Ok(IntervalMonthDayNano::new(
        low.months.checked_add(step.months).ok_or_else(overflow)?,
        low.days.checked_add(step.days).ok_or_else(overflow)?,
        low.nanoseconds.checked_add(step.nanoseconds).ok_or_else(overflow)?,
    ))
}

/// An interval of fractional parts, as PostgreSQL's `interval_mul` rounds them: to microseconds.
pub(super) fn interval_of(months: f64, days: f64, nanoseconds: f64) -> Result<IntervalMonthDayNano> {
    const DAY_US: f64 = 86_400_000_000.0;
    let whole_months = months.trunc();
    let month_days = micro_rounded((months - whole_months) * 30.0);
    let day_part = days - days.trunc();
    let mut whole_days = days.trunc() + month_days.trunc();
    let mut day_us = micro_rounded((day_part + (month_days - month_days.trunc())) * 86_400.0) * 1e6;
    // What rounding made a whole day is a day.
    if day_us.abs() >= DAY_US {
        whole_days += (day_us / DAY_US).trunc();
        day_us %= DAY_US;
    }
    let us = (nanoseconds / 1000.0 + day_us).round_ties_even();
    let is_in_range = whole_months.abs() <= f64::from(i32::MAX)
        && whole_days.abs() <= f64::from(i32::MAX)
        && us.abs() <= (i64::MAX / 1000) as f64;
    match is_in_range {
        true => Ok(IntervalMonthDayNano::new(whole_months as i32, whole_days as i32, us as i64 * 1000)),
        false => Err(SqlError::new(SqlState::DatetimeFieldOverflow, "interval out of range")),
    }
}

fn micro_rounded(value: f64) -> f64 {
    (value * 1e6).round_ties_even() / 1e6
}

/// The direct arguments of groups: mostly the same for all.
struct Direct {
    converter: Option<RowConverter>,
    common: Option<Box<[u8]>>,
    /// Of the groups where they are others.
    own: HashMap<u32, Box<[u8]>>,
}

impl Direct {
    fn new(types: &[DataType]) -> Result<Direct> {
        let converter = match types.is_empty() {
            true => None,
            false => {
                let fields = types.iter().cloned().map(SortField::new).collect();
                Some(RowConverter::new(fields).map_err(|e| {
                    SqlError::unsupported("a direct argument of such a type").with_detail(e.to_string())
                })?)
            }
        };
        Ok(Direct { converter, common: None, own: HashMap::default() })
    }

    fn apply(&mut self, ids: &[u32], columns: &[ArrayRef], weights: Option<&[i64]>) -> Result<()> {
        let Some(converter) = &self.converter else { return Ok(()) };
        let rows = converter.convert_columns(columns)?;
        for (row_idx, (id, row)) in ids.iter().zip(rows.iter()).enumerate() {
            if weights.and_then(|w| w.get(row_idx)).is_some_and(|w| *w <= 0) {
                continue;
            }
            let common = self.common.get_or_insert_with(|| row.data().into());
            if **common != *row.data() {
                self.own.insert(*id, row.data().into());
            } else if !self.own.is_empty() {
                self.own.remove(id);
            }
        }
        Ok(())
    }

    /// One row of columns.
    fn of(&self, id: u32) -> Result<Vec<ArrayRef>> {
        let (Some(converter), Some(common)) = (&self.converter, &self.common) else { return Ok(vec![]) };
        let row = self.own.get(&id).unwrap_or(common);
        Ok(converter.convert_rows([converter.parser().parse(row)])?)
    }
}

/// Whether percentile_cont can take the type: what is no interval is interpolated as double precision.
pub(super) fn is_interpolated(data_type: &DataType) -> bool {
    data_type.is_numeric() || *data_type == DataType::Interval(IntervalUnit::MonthDayNano)
}

/// The type of an array with items like `item`.
pub(super) fn list_of_type(item: Field) -> DataType {
    DataType::List(std::sync::Arc::new(item.with_name("item").with_nullable(true)))
}
