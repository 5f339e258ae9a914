//! From the calls of an aggregate to feeds, accumulators and the words of a slot, and back to result columns.
//!
//! Calls share what they can: `sum(x)`, `avg(x)` and `count(x)` use one count of `x`; `count(*)` is the group's row
//! count.
#![expect(clippy::indexing_slicing, reason = "hot loops; words are laid out by this module")]

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::AggregateUDF;
use tidewire_types::{Result, SqlError};

use super::accumulate::{Accumulator, Kind, ValueStore, wide};
use super::feed::{Feed, FeedKey};
use super::functions::Columns;
use super::totals::average;
use super::values::{BestBytes, Reevaluated, Values};
use super::words::{Order, from_raw_words, from_wide_words};
use super::{Aggregate, Call, Function};
use crate::expr::sql_error;
use crate::top_n::SortKey;

/// How a call's result is read.
#[derive(Clone, Debug)]
pub(super) enum Output {
    /// A count.
    Count {
        at: usize,
    },
    /// A one-word sum; NULL where the count of values is 0. Also raw float bits.
    Int {
        at: usize,
        n_at: usize,
    },
    Float {
        at: usize,
        n_at: usize,
    },
    /// A two-word sum.
    Wide {
        at: usize,
        n_at: usize,
    },
    /// A float sum divided by the count.
    AvgFloat {
        at: usize,
        n_at: usize,
    },
    /// A one-word sum and what it is beyond its word, as a numeric.
    IntWide {
        accumulator_idx: usize,
        at: usize,
        n_at: usize,
    },
    /// The same divided by the count.
    AvgInt {
        accumulator_idx: usize,
        at: usize,
        n_at: usize,
    },
    /// A decimal sum with `scale` digits behind the point, divided by the count.
    AvgDecimal {
        at: usize,
        n_at: usize,
        scale: i8,
    },
    /// Whether all values are true.
    BoolAnd {
        true_at: usize,
        n_at: usize,
    },
    /// Whether some value is true.
    BoolOr {
        true_at: usize,
        n_at: usize,
    },
    /// The bits of an integer.
    Bits {
        at: usize,
        n_at: usize,
    },
    /// min or max.
    Best {
        at: usize,
        n_at: usize,
        order: Order,
    },
    BestWide {
        at: usize,
        n_at: usize,
    },
    /// The result that this accumulator keeps.
    Value {
        accumulator_idx: usize,
    },
}

/// Everything that follows from the plan and the types of the input.
pub(super) struct Layout {
    pub(super) feeds: Vec<Feed>,
    pub(super) accumulators: Vec<Accumulator>,
    pub(super) outputs: Vec<(Output, DataType)>,
    /// By accumulator: a sum that is beyond its words has no result.
    pub(super) must_fit: Vec<bool>,
    /// Some result may not fit its type although its sum fits its words.
    pub(super) has_limits: bool,
    /// The word with the group's row count, where rows can leave.
    pub(super) n_rows_at: Option<usize>,
    /// Words of a slot before the accumulators'.
    base: usize,
    /// Words of a slot.
    width: usize,
    append_only: bool,
}

impl Layout {
    /// `input` are columns of the input; but for DataFusion's own functions, only their types matter. `base`: words
    /// before the accumulators.
    pub(super) fn new(plan: &Aggregate, input: &[ArrayRef], base: usize) -> Result<Layout> {
        let mut layout = Layout {
            feeds: vec![],
            accumulators: vec![],
            outputs: vec![],
            must_fit: vec![],
            has_limits: false,
            n_rows_at: None,
            base,
            width: base,
            append_only: plan.append_only,
        };
        if !plan.append_only {
            let all_rows = FeedKey { columns: vec![], filter: None, distinct: false, keeps_nulls: false };
            layout.n_rows_at = Some(layout.count(all_rows));
        }
        for call in &plan.calls {
            let args = columns(input, &call.args)?;
            let output = layout.call(call, &args, input, &plan.input)?;
            layout.outputs.push((output, call.field.data_type().clone()));
        }
        let outputs = || layout.outputs.iter().map(|(output, _)| output);
        layout.must_fit =
            layout.accumulators.iter().map(|a| outputs().any(|output| output.is_sum_at(a.offset))).collect();
        layout.has_limits = outputs().any(|output| matches!(output, Output::Wide { .. } | Output::AvgDecimal { .. }));
        Ok(layout)
    }

    /// The words of a new group behind its key.
    pub(super) fn initial(&self) -> Vec<u64> {
        let mut words = vec![0; self.width - self.base];
        for accumulator in &self.accumulators {
            let at = accumulator.offset - self.base;
            for (to, from) in words[at..].iter_mut().zip(accumulator.initial()) {
                *to = from;
            }
        }
        words
    }

    /// Words of a slot.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Whether a group's state is its words and a few bytes: its size does not follow the group's rows.
    pub(super) fn is_small(&self) -> bool {
        !self.feeds.iter().any(|feed| feed.key.distinct) && self.accumulators.iter().all(Accumulator::is_small)
    }

    fn feed(&mut self, key: FeedKey) -> usize {
        self.feeds.iter().position(|f| f.key == key).unwrap_or_else(|| {
            self.feeds.push(Feed::new(key));
            self.feeds.len() - 1
        })
    }

    /// An accumulator over a feed; one that is there already where `same` says so.
    fn accumulator(&mut self, key: FeedKey, kind: Kind, same: impl Fn(&Kind) -> bool) -> usize {
        let feed_idx = self.feed(key);
        let known = self.accumulators.iter().position(|a| a.feed_idx == feed_idx && same(&a.kind));
        known.unwrap_or_else(|| {
            let accumulator = Accumulator { kind, feed_idx, offset: self.width };
            self.width += accumulator.initial().len();
            self.accumulators.push(accumulator);
            self.accumulators.len() - 1
        })
    }

    /// The word that counts the rows of a feed.
    fn count(&mut self, key: FeedKey) -> usize {
        let idx = self.accumulator(key, Kind::Count, |k| matches!(k, Kind::Count));
        self.accumulators[idx].offset
    }

    fn call(&mut self, call: &Call, args: &[ArrayRef], input: &[ArrayRef], schema: &Schema) -> Result<Output> {
        // A column that is never NULL need not be looked at to count rows.
        let is_nullable = |idx: &usize| schema.fields().get(*idx).is_none_or(|f| f.is_nullable());
        let is_order_free = matches!(call.function, Function::Min | Function::Max);
        let key = FeedKey {
            columns: call.args.clone(),
            filter: call.filter,
            distinct: call.distinct && !is_order_free,
            keeps_nulls: false,
        };
        let counted = if key.distinct || call.args.iter().any(is_nullable) {
            key.clone()
        } else {
            FeedKey { columns: vec![], ..key.clone() }
        };
        let to = call.field.data_type();
        let from = args.first().map(|a| a.data_type().clone()).unwrap_or(DataType::Null);
        match &call.function {
            Function::Count => Ok(Output::Count { at: self.count(counted) }),
            Function::Sum => match self.sum(&key, &counted, &from, to) {
                Some(output) => Ok(output),
                None => self.stored(call, key, input),
            },
            Function::Avg => match self.avg(&key, &counted, &from, to) {
                Some(output) => Ok(output),
                None => self.stored(call, key, input),
            },
            Function::Min => self.best(call, key, &counted, &from, false, input),
            Function::Max => self.best(call, key, &counted, &from, true, input),
            Function::BoolAnd | Function::BoolOr => {
                let n_at = self.count(counted);
                let idx = self.accumulator(key, Kind::CountTrue, |k| matches!(k, Kind::CountTrue));
                let true_at = self.offset(idx);
                Ok(match call.function {
                    Function::BoolAnd => Output::BoolAnd { true_at, n_at },
                    _ => Output::BoolOr { true_at, n_at },
                })
            }
            Function::BitXor if from.is_integer() => {
                let n_at = self.count(counted);
                let idx = self.accumulator(key, Kind::Xor, |k| matches!(k, Kind::Xor));
                Ok(Output::Bits { at: self.offset(idx), n_at })
            }
            Function::BitAnd | Function::BitOr if from.is_integer() => {
                let n_at = self.count(counted);
                let idx = self.accumulator(key, Kind::Bits { groups: vec![] }, |k| matches!(k, Kind::Bits { .. }));
                let skip = usize::from(call.function == Function::BitOr);
                Ok(Output::Bits { at: self.offset(idx) + skip, n_at })
            }
            Function::BitAnd | Function::BitOr | Function::BitXor => {
                Err(SqlError::internal("bits of something that is no integer"))
            }
            Function::Statistic(_) => self.stored(call, key, input),
            Function::List(_) => {
                let mut needed = call.args.clone();
                needed.extend(call.order_by.iter().map(|key| key.column));
                // DISTINCT is applied to the rows that are kept.
                let key = FeedKey { columns: needed, filter: call.filter, distinct: false, keeps_nulls: true };
                self.stored(call, key, input)
            }
            Function::Ordered(_) => self.stored(call, FeedKey { keeps_nulls: true, distinct: false, ..key }, input),
            Function::Other(function) => self.reevaluated(call, Arc::clone(function), input),
        }
    }

    /// A call whose result is in no slot.
    fn stored(&mut self, call: &Call, key: FeedKey, input: &[ArrayRef]) -> Result<Output> {
        let mut needed = call.args.clone();
        needed.extend(call.order_by.iter().map(|key| key.column));
        let types = columns(input, &needed)?.iter().map(|c| c.data_type().clone()).collect();
        let options = |key: &SortKey| SortOptions { descending: key.descending, nulls_first: key.nulls_first };
        let of_call = Columns { types, order: call.order_by.iter().map(options).collect() };
        let state = call.function.values(&of_call, &call.field, call.distinct, call.ignore_nulls)?;
        let state = state.ok_or_else(|| SqlError::internal("a function without a state"))?;
        let default = call.function.over_nothing(call.field.data_type())?;
        Ok(self.value(key, state, default))
    }

    fn offset(&self, accumulator_idx: usize) -> usize {
        self.accumulators[accumulator_idx].offset
    }

    fn sum_float(&mut self, key: &FeedKey) -> usize {
        // Distinct values can come and go only where rows can.
        let idx = if self.append_only {
            self.accumulator(key.clone(), Kind::SumFloat, |k| matches!(k, Kind::SumFloat))
        } else {
            self.accumulator(key.clone(), Kind::SumExact { sums: vec![], n_wide: 0 }, |k| {
                matches!(k, Kind::SumExact { .. })
            })
        };
        self.offset(idx)
    }

    fn sum_wide(&mut self, key: &FeedKey, data_type: DataType) -> usize {
        let same = data_type.clone();
        let kind = Kind::SumWide { data_type };
        let idx = self.accumulator(key.clone(), kind, |k| matches!(k, Kind::SumWide { data_type: t } if *t == same));
        self.offset(idx)
    }

    fn sum(&mut self, key: &FeedKey, counted: &FeedKey, from: &DataType, to: &DataType) -> Option<Output> {
        if !is_number(from) {
            return None;
        }
        let n_at = self.count(counted.clone());
        Some(match to {
            DataType::Int64 if is_small_integer(from) => {
                let idx = self.accumulator(key.clone(), Kind::SumWord, |k| matches!(k, Kind::SumWord));
                Output::Int { at: self.offset(idx), n_at }
            }
            DataType::Decimal128(_, 0) if is_small_integer(from) => {
                let idx = self.accumulator(key.clone(), Kind::SumWord, |k| matches!(k, Kind::SumWord));
                Output::IntWide { accumulator_idx: idx, at: self.offset(idx), n_at }
            }
            DataType::Float64 | DataType::Float32 => Output::Float { at: self.sum_float(key), n_at },
            DataType::Decimal128(_, scale) => {
                let data_type = match from {
                    DataType::Decimal128(_, s) if s == scale => from.clone(),
                    _ => DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale),
                };
                Output::Wide { at: self.sum_wide(key, data_type), n_at }
            }
            _ => return None,
        })
    }

    fn avg(&mut self, key: &FeedKey, counted: &FeedKey, from: &DataType, to: &DataType) -> Option<Output> {
        if !is_number(from) {
            return None;
        }
        let n_at = self.count(counted.clone());
        Some(match (from, to) {
            (_, DataType::Float64) => Output::AvgFloat { at: self.sum_float(key), n_at },
            (DataType::Decimal128(_, scale), DataType::Decimal128(..)) => {
                Output::AvgDecimal { at: self.sum_wide(key, from.clone()), n_at, scale: *scale }
            }
            (_, DataType::Decimal128(..)) if is_small_integer(from) => {
                let idx = self.accumulator(key.clone(), Kind::SumWord, |k| matches!(k, Kind::SumWord));
                Output::AvgInt { accumulator_idx: idx, at: self.offset(idx), n_at }
            }
            (_, DataType::Decimal128(..)) => {
                let wide = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);
                Output::AvgDecimal { at: self.sum_wide(key, wide), n_at, scale: 0 }
            }
            _ => return None,
        })
    }

    fn best(
        &mut self,
        call: &Call,
        key: FeedKey,
        counted: &FeedKey,
        from: &DataType,
        is_max: bool,
        input: &[ArrayRef],
    ) -> Result<Output> {
        if from != call.field.data_type() {
            return self.stored(call, key, input);
        }
        if let Some(order) = Order::of(from) {
            let n_at = self.count(counted.clone());
            let (idx, skip) = if self.append_only {
                let kind = Kind::BestWord { order, is_max };
                (self.accumulator(key, kind, |k| matches!(k, Kind::BestWord { is_max: m, .. } if *m == is_max)), 0)
            } else {
                let kind = Kind::OrderedWord { order, groups: vec![], n_values: 0 };
                (self.accumulator(key, kind, |k| matches!(k, Kind::OrderedWord { .. })), usize::from(is_max))
            };
            return Ok(Output::Best { at: self.offset(idx) + skip, n_at, order });
        }
        use DataType as T;
        match from {
            T::Decimal128(..) => {
                let n_at = self.count(counted.clone());
                let (idx, skip) = if self.append_only {
                    let kind = Kind::BestWide { is_max };
                    (self.accumulator(key, kind, |k| matches!(k, Kind::BestWide { is_max: m } if *m == is_max)), 0)
                } else {
                    let kind = Kind::OrderedWide { groups: vec![], n_values: 0 };
                    (self.accumulator(key, kind, |k| matches!(k, Kind::OrderedWide { .. })), 2 * usize::from(is_max))
                };
                Ok(Output::BestWide { at: self.offset(idx) + skip, n_at })
            }
            T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Binary | T::LargeBinary | T::BinaryView => {
                let state = BestBytes {
                    is_max,
                    data_type: from.clone(),
                    append_only: self.append_only,
                    groups: vec![],
                    n_values: 0,
                    value_bytes: 0,
                };
                let default = ScalarValue::try_new_null(from).map_err(sql_error)?;
                Ok(self.value(key, Box::new(state), default))
            }
            _ => self.stored(call, key, input),
        }
    }

    fn reevaluated(&mut self, call: &Call, function: Arc<AggregateUDF>, input: &[ArrayRef]) -> Result<Output> {
        let mut needed = call.args.clone();
        needed.extend(call.order_by.iter().map(|key| key.column));
        let default = function.default_value(call.field.data_type()).map_err(sql_error)?;
        let state = Reevaluated::new(call, function, &columns(input, &needed)?)?;
        // DISTINCT is applied to the rows that are kept.
        let key = FeedKey { columns: needed, filter: call.filter, distinct: false, keeps_nulls: true };
        Ok(self.value(key, Box::new(state), default))
    }

    fn value(&mut self, key: FeedKey, state: Box<dyn Values>, default: ScalarValue) -> Output {
        let store = ValueStore { state, default, results: vec![], before: vec![] };
        Output::Value { accumulator_idx: self.accumulator(key, Kind::Value(store), |_| false) }
    }
}

/// Columns of the input by number.
pub(super) fn columns(input: &[ArrayRef], wanted: &[usize]) -> Result<Vec<ArrayRef>> {
    let column = |idx: &usize| {
        input.get(*idx).cloned().ok_or_else(|| SqlError::internal(format_args!("the input has no column {idx}")))
    };
    wanted.iter().map(column).collect()
}

/// Whether every value fits an `i64`.
fn is_small_integer(data_type: &DataType) -> bool {
    data_type.is_integer() && *data_type != DataType::UInt64
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(data_type, DataType::Float16 | DataType::Float32 | DataType::Float64 | DataType::Decimal128(..))
}

impl Output {
    /// Whether the result is of the sum at `offset`, and nothing where that has left its words.
    pub(super) fn is_sum_at(&self, offset: usize) -> bool {
        match self {
            Output::Int { at, .. } | Output::Wide { at, .. } | Output::AvgDecimal { at, .. } => *at == offset,
            _ => false,
        }
    }

    /// Whether two states of a group have the same result.
    #[inline]
    pub(super) fn same(&self, a: &[u64], b: &[u64]) -> bool {
        match self {
            Output::Count { at } => a[*at] == b[*at],
            Output::Int { at, n_at }
            | Output::IntWide { at, n_at, .. }
            | Output::Float { at, n_at }
            | Output::Bits { at, n_at }
            | Output::Best { at, n_at, .. } => a[*at] == b[*at] && (a[*n_at] == 0) == (b[*n_at] == 0),
            Output::Wide { at, n_at } | Output::BestWide { at, n_at } => {
                a[*at..at + 2] == b[*at..at + 2] && (a[*n_at] == 0) == (b[*n_at] == 0)
            }
            Output::AvgFloat { at, n_at } | Output::AvgInt { at, n_at, .. } => a[*at] == b[*at] && a[*n_at] == b[*n_at],
            Output::BoolAnd { true_at, n_at } | Output::BoolOr { true_at, n_at } => {
                a[*true_at] == b[*true_at] && a[*n_at] == b[*n_at]
            }
            Output::AvgDecimal { at, n_at, .. } => a[*at..at + 2] == b[*at..at + 2] && a[*n_at] == b[*n_at],
            // Compared where results are kept.
            Output::Value { .. } => true,
        }
    }

    /// Whether the result fits its type; sums that left their words are known elsewhere.
    pub(super) fn fits(&self, words: &[u64], data_type: &DataType) -> bool {
        let DataType::Decimal128(precision, to_scale) = data_type else { return true };
        match self {
            Output::Wide { at, .. } => {
                let limit = 10u128.pow(u32::from((*precision).min(DECIMAL128_MAX_PRECISION)));
                wide(&words[*at..]).unsigned_abs() < limit
            }
            // Mostly the sum itself would fit.
            Output::AvgDecimal { at, n_at, scale } => {
                let digits =
                    (i32::from(DECIMAL128_MAX_PRECISION) - i32::from(*to_scale) + i32::from(*scale)).clamp(0, 38);
                wide(&words[*at..]).unsigned_abs() < 10u128.pow(digits as u32)
                    || words[*n_at] == 0
                    || average(wide(&words[*at..]), *scale, words[*n_at] as i64, *to_scale).is_some()
            }
            _ => true,
        }
    }

    /// The result column of groups: `rows` holds `width` words a group. `carries`: how far one-word sums are beyond
    /// their words; empty where none is.
    pub(super) fn column(&self, rows: &[u64], width: usize, data_type: &DataType, carries: &[i64]) -> Result<ArrayRef> {
        let rows = || rows.chunks_exact(width);
        let nulls =
            |n_at: usize| rows().any(|r| r[n_at] == 0).then(|| rows().map(|r| r[n_at] != 0).collect::<NullBuffer>());
        let column: ArrayRef = match self {
            Output::Count { at } => {
                Arc::new(rows().map(|r| r[*at] as i64).collect::<Vec<_>>().into_iter().collect::<Int64Array>())
            }
            Output::Int { at, n_at } => {
                let values: Vec<i64> = rows().map(|r| r[*at] as i64).collect();
                Arc::new(Int64Array::new(values.into(), nulls(*n_at)))
            }
            Output::Float { at, n_at } => {
                let values: Vec<f64> = rows().map(|r| f64::from_bits(r[*at])).collect();
                Arc::new(Float64Array::new(values.into(), nulls(*n_at)))
            }
            Output::AvgFloat { at, n_at } => {
                let values: Vec<f64> = rows().map(|r| f64::from_bits(r[*at]) / r[*n_at] as i64 as f64).collect();
                Arc::new(Float64Array::new(values.into(), nulls(*n_at)))
            }
            Output::Wide { at, n_at } => decimals(rows().map(|r| wide(&r[*at..])).collect(), nulls(*n_at), data_type)?,
            Output::IntWide { at, n_at, .. } => {
                let sums = rows().enumerate().map(|(idx, r)| carried(r[*at], carries.get(idx))).collect();
                decimals(sums, nulls(*n_at), data_type)?
            }
            Output::AvgInt { at, n_at, .. } => {
                let sums = rows().enumerate().map(|(idx, r)| (carried(r[*at], carries.get(idx)), r[*n_at]));
                averages(sums, 0, nulls(*n_at), data_type)?
            }
            Output::AvgDecimal { at, n_at, scale } => {
                averages(rows().map(|r| (wide(&r[*at..]), r[*n_at])), *scale, nulls(*n_at), data_type)?
            }
            Output::BoolAnd { true_at, n_at } => {
                let values: Vec<bool> = rows().map(|r| r[*true_at] == r[*n_at]).collect();
                Arc::new(BooleanArray::new(values.into(), nulls(*n_at)))
            }
            Output::BoolOr { true_at, n_at } => {
                let values: Vec<bool> = rows().map(|r| r[*true_at] != 0).collect();
                Arc::new(BooleanArray::new(values.into(), nulls(*n_at)))
            }
            Output::Bits { at, n_at } => from_raw_words(data_type, rows().map(|r| r[*at]).collect(), nulls(*n_at))?,
            Output::Best { at, n_at, order } => {
                let words = rows().map(|r| order.decode(r[*at] as i64)).collect();
                from_raw_words(data_type, words, nulls(*n_at))?
            }
            Output::BestWide { at, n_at } => {
                let words = rows().map(|r| wide(&r[*at..]) as u128).collect();
                from_wide_words(data_type, words, nulls(*n_at))?
            }
            Output::Value { .. } => return Err(SqlError::internal("a result that is in no slot")),
        };
        Ok(if column.data_type() == data_type { column } else { cast(&column, data_type)? })
    }
}

/// A one-word sum with what is beyond its word.
fn carried(word: u64, carry: Option<&i64>) -> i128 {
    i128::from(word as i64) + (i128::from(carry.copied().unwrap_or(0)) << 64)
}

/// Averages of (sum, count), as PostgreSQL rounds them.
fn averages(
    sums: impl Iterator<Item = (i128, u64)>,
    scale: i8,
    nulls: Option<NullBuffer>,
    data_type: &DataType,
) -> Result<ArrayRef> {
    let DataType::Decimal128(_, to_scale) = data_type else {
        return Err(SqlError::internal("an average that is no numeric"));
    };
    // What does not fit has been found before, and is not shown.
    let values = sums.map(|(sum, n)| average(sum, scale, (n as i64).max(1), *to_scale).unwrap_or(0));
    decimals(values.collect(), nulls, data_type)
}

fn decimals(values: Vec<i128>, nulls: Option<NullBuffer>, data_type: &DataType) -> Result<ArrayRef> {
    Ok(Arc::new(Decimal128Array::new(values.into(), nulls).with_data_type(data_type.clone())))
}
