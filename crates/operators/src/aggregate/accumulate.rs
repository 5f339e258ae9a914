//! The accumulators: what each kind of call keeps for a group and how a batch changes it.
//!
//! Most keep one or two words in the group's slot. Some keep more beside it (an exact float sum, a multiset for min and
//! max over rows that can leave) and write their result into the slot when the step settles, so that old and new
//! results are always read from slots. Those whose result is no number keep it in [`ValueStore`].
//!
//! Integer sums keep their low bits in the slot; what leaves 64 (or 128) bits is counted in [`Overflows`], so that
//! a sum comes back when the rows that made it too large leave.
#![expect(clippy::indexing_slicing, reason = "hot loops; words are laid out by this module")]

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use datafusion::common::ScalarValue;
use tidewire_types::{Result, SqlError};

use super::bits::BitCounts;
use super::exact_sum::ExactSum;
use super::feed::Fed;
use super::groups::Slots;
use super::multiset::Multiset;
use super::values::Values;
use super::words::{Order, raw_words};

/// How far sums are beyond their words, by group and accumulator.
pub(super) type Overflows = BTreeMap<(u32, usize), i64>;

/// One accumulator of every group.
pub(super) struct Accumulator {
    pub(super) kind: Kind,
    /// Which feed it takes.
    pub(super) feed_idx: usize,
    /// Its first word in the slot.
    pub(super) offset: usize,
}

pub(super) enum Kind {
    /// Rows that count. One word.
    Count,
    /// Sum of integers that fits one word.
    SumWord,
    /// Sum of decimals in two words.
    SumWide { data_type: DataType },
    /// Sum of floats that never leave. One word.
    SumFloat,
    /// Sum of floats that may leave. One word.
    SumExact { sums: Vec<ExactSum>, n_wide: usize },
    /// Least or greatest of values that never leave. One word.
    BestWord { order: Order, is_max: bool },
    /// The same of decimals. Two words.
    BestWide { is_max: bool },
    /// Least and greatest of values that may leave. Two words.
    OrderedWord { order: Order, groups: Vec<Multiset<i64>>, n_values: usize },
    /// The same of decimals. Four words.
    OrderedWide { groups: Vec<Multiset<i128>>, n_values: usize },
    /// Booleans that are true. One word.
    CountTrue,
    /// Exclusive or of integers. One word.
    Xor,
    /// And, then or, of integers. Two words.
    Bits { groups: Vec<BitCounts> },
    /// A result that is no number. No words.
    Value(ValueStore),
}

/// Results that are no numbers.
pub(super) struct ValueStore {
    pub(super) state: Box<dyn Values>,
    pub(super) default: ScalarValue,
    /// By group, as of the last step that touched it.
    pub(super) results: Vec<ScalarValue>,
    /// Of the groups touched in this step, in that order: the results before it.
    pub(super) before: Vec<ScalarValue>,
}

/// Calls `apply` for every row that counts: its number, its weight, its group's slot.
#[inline]
fn each(ids: &[u32], weights: Option<&[i64]>, slots: &mut Slots, mut apply: impl FnMut(usize, i64, &mut [u64])) {
    match weights {
        None => ids.iter().enumerate().for_each(|(row_idx, id)| apply(row_idx, 1, slots.get_mut(*id))),
        Some(weights) => {
            for (row_idx, (id, weight)) in ids.iter().zip(weights).enumerate() {
                if *weight != 0 {
                    apply(row_idx, *weight, slots.get_mut(*id));
                }
            }
        }
    }
}

/// Calls `apply` for every row that counts: its number, its weight, its group.
fn each_group(ids: &[u32], weights: Option<&[i64]>, mut apply: impl FnMut(usize, i64, usize)) {
    for (row_idx, id) in ids.iter().enumerate() {
        let weight = weights.map_or(1, |w| w[row_idx]);
        if weight != 0 {
            apply(row_idx, weight, *id as usize);
        }
    }
}

#[inline]
pub(super) fn wide(words: &[u64]) -> i128 {
    (u128::from(words[0]) | u128::from(words[1]) << 64) as i128
}

#[inline]
fn set_wide(words: &mut [u64], value: i128) {
    words[0] = value as u64;
    words[1] = (value >> 64) as u64;
}

impl Accumulator {
    /// The words of a new group.
    pub(super) fn initial(&self) -> Vec<u64> {
        match self.kind {
            Kind::Count | Kind::SumWord | Kind::SumFloat | Kind::SumExact { .. } => vec![0],
            Kind::CountTrue | Kind::Xor => vec![0],
            Kind::SumWide { .. } | Kind::Bits { .. } => vec![0; 2],
            Kind::BestWord { is_max, .. } => vec![if is_max { i64::MIN } else { i64::MAX } as u64],
            Kind::BestWide { is_max } => {
                let mut words = vec![0; 2];
                set_wide(&mut words, if is_max { i128::MIN } else { i128::MAX });
                words
            }
            Kind::OrderedWord { .. } => vec![i64::MAX as u64, i64::MIN as u64],
            Kind::OrderedWide { .. } => {
                let mut words = vec![0; 4];
                set_wide(&mut words, i128::MAX);
                set_wide(&mut words[2..], i128::MIN);
                words
            }
            Kind::Value(_) => vec![],
        }
    }

    /// Adds a batch. `own_idx` is this accumulator's number, for overflows.
    pub(super) fn apply(
        &mut self,
        own_idx: usize,
        ids: &[u32],
        fed: &Fed<'_>,
        slots: &mut Slots,
        n_slots: usize,
        overflows: &mut Overflows,
    ) -> Result<()> {
        let weights = fed.weights.as_deref();
        let at = self.offset;
        match &mut self.kind {
            Kind::Count => each(ids, weights, slots, |_, weight, slot| slot[at] = slot[at].wrapping_add(weight as u64)),
            Kind::SumWord => {
                let values = argument(fed, &DataType::Int64)?;
                let values = values.as_primitive::<Int64Type>().values();
                let mut over = vec![];
                each(ids, weights, slots, |row_idx, weight, slot| {
                    let carry = add_word(&mut slot[at], values[row_idx], weight);
                    if carry != 0 {
                        over.push((row_idx, carry));
                    }
                });
                over.iter().for_each(|(row_idx, carry)| note(overflows, (ids[*row_idx], own_idx), *carry));
            }
            Kind::SumWide { data_type } => {
                let values = argument(fed, data_type)?;
                let values = values.as_primitive::<Decimal128Type>().values();
                sum_wide(own_idx, ids, weights, slots, at, |row_idx| values[row_idx], overflows);
            }
            Kind::SumFloat => {
                let values = argument(fed, &DataType::Float64)?;
                let values = values.as_primitive::<Float64Type>().values();
                each(ids, weights, slots, |row_idx, weight, slot| {
                    slot[at] = (f64::from_bits(slot[at]) + values[row_idx] * weight as f64).to_bits();
                });
            }
            Kind::SumExact { sums, n_wide } => {
                let values = argument(fed, &DataType::Float64)?;
                let values = values.as_primitive::<Float64Type>().values();
                sums.resize_with(n_slots.max(sums.len()), ExactSum::default);
                each_group(ids, weights, |row_idx, weight, id| {
                    *n_wide += usize::from(sums[id].add(values[row_idx], weight));
                });
            }
            Kind::BestWord { order, is_max } => {
                let (order, values) = (*order, raw_words(first(fed)?)?);
                let value = |row_idx: usize| order.encode(values[row_idx]);
                if *is_max {
                    each(ids, weights, slots, |row, _, slot| slot[at] = (slot[at] as i64).max(value(row)) as u64);
                } else {
                    each(ids, weights, slots, |row, _, slot| slot[at] = (slot[at] as i64).min(value(row)) as u64);
                }
            }
            Kind::BestWide { is_max } => {
                let values = first(fed)?.as_primitive::<Decimal128Type>().values().clone();
                each(ids, weights, slots, |row_idx, _, slot| {
                    let best = wide(&slot[at..]);
                    let value = values[row_idx];
                    set_wide(&mut slot[at..], if *is_max { best.max(value) } else { best.min(value) });
                });
            }
            Kind::OrderedWord { order, groups, n_values } => {
                let values = raw_words(first(fed)?)?;
                groups.resize_with(n_slots.max(groups.len()), Multiset::default);
                each_group(ids, weights, |row_idx, weight, id| {
                    let change = groups[id].add(order.encode(values[row_idx]), weight);
                    *n_values = n_values.saturating_add_signed(change);
                });
            }
            Kind::OrderedWide { groups, n_values } => {
                let values = first(fed)?.as_primitive::<Decimal128Type>().values().clone();
                groups.resize_with(n_slots.max(groups.len()), Multiset::default);
                each_group(ids, weights, |row_idx, weight, id| {
                    let change = groups[id].add(values[row_idx], weight);
                    *n_values = n_values.saturating_add_signed(change);
                });
            }
            Kind::CountTrue => {
                let values = first(fed)?.as_boolean_opt();
                let values = values.ok_or_else(|| SqlError::internal("an argument that is not boolean"))?.values();
                each(ids, weights, slots, |row_idx, weight, slot| {
                    if values.value(row_idx) {
                        slot[at] = slot[at].wrapping_add(weight as u64);
                    }
                });
            }
            Kind::Xor => {
                let values = raw_words(first(fed)?)?;
                each(ids, weights, slots, |row_idx, weight, slot| {
                    if weight % 2 != 0 {
                        slot[at] ^= values[row_idx];
                    }
                });
            }
            Kind::Bits { groups } => {
                let values = raw_words(first(fed)?)?;
                groups.resize_with(n_slots.max(groups.len()), BitCounts::default);
                each_group(ids, weights, |row_idx, weight, id| groups[id].add(values[row_idx], weight));
            }
            Kind::Value(store) => {
                store.state.grow(n_slots);
                store.results.resize(n_slots.max(store.results.len()), store.default.clone());
                store.state.apply(ids, &fed.columns, weights)?;
            }
        }
        Ok(())
    }

    /// Writes what is kept beside the slots into the slots of the touched groups.
    pub(super) fn settle(&mut self, touched: &[u32], slots: &mut Slots) {
        let at = self.offset;
        match &mut self.kind {
            Kind::SumExact { sums, .. } => touched.iter().for_each(|id| {
                slots.get_mut(*id)[at] = sums.get(*id as usize).map_or(0.0, ExactSum::value).to_bits();
            }),
            Kind::OrderedWord { groups, .. } => touched.iter().for_each(|id| {
                let slot = slots.get_mut(*id);
                let group = groups.get(*id as usize);
                slot[at] = group.and_then(Multiset::first).copied().unwrap_or(i64::MAX) as u64;
                slot[at + 1] = group.and_then(Multiset::last).copied().unwrap_or(i64::MIN) as u64;
            }),
            Kind::OrderedWide { groups, .. } => touched.iter().for_each(|id| {
                let slot = slots.get_mut(*id);
                let group = groups.get(*id as usize);
                set_wide(&mut slot[at..], group.and_then(Multiset::first).copied().unwrap_or(i128::MAX));
                set_wide(&mut slot[at + 2..], group.and_then(Multiset::last).copied().unwrap_or(i128::MIN));
            }),
            Kind::Bits { groups } => touched.iter().for_each(|id| {
                let slot = slots.get_mut(*id);
                let group = groups.get(*id as usize);
                slot[at] = group.map_or(0, BitCounts::and);
                slot[at + 1] = group.map_or(0, BitCounts::or);
            }),
            _ => {}
        }
    }

    /// Forgets what is kept beside the slot of a group that is gone.
    pub(super) fn forget(&mut self, id: u32) {
        let idx = id as usize;
        match &mut self.kind {
            Kind::SumExact { sums, n_wide } => {
                *n_wide -= usize::from(sums.get(idx).is_some_and(ExactSum::is_wide));
                reset(sums, idx);
            }
            Kind::OrderedWord { groups, .. } => reset(groups, idx),
            Kind::OrderedWide { groups, .. } => reset(groups, idx),
            Kind::Bits { groups } => reset(groups, idx),
            Kind::Value(store) => {
                store.state.forget(id);
                if let Some(result) = store.results.get_mut(idx) {
                    *result = store.default.clone();
                }
            }
            _ => {}
        }
    }

    /// Whether a group's words and what `save` gives are all of its state.
    pub(super) fn is_small(&self) -> bool {
        match &self.kind {
            Kind::OrderedWord { .. } | Kind::OrderedWide { .. } => false,
            Kind::Value(store) => store.state.is_small(),
            _ => true,
        }
    }

    /// Whether something is kept beside the slots.
    pub(super) fn is_beside(&self) -> bool {
        matches!(self.kind, Kind::SumExact { .. } | Kind::Bits { .. } | Kind::Value(_))
    }

    /// Appends what a group keeps beside its slot, where the slot does not say it.
    pub(super) fn save(&self, id: u32, out: &mut Vec<u8>) {
        match &self.kind {
            Kind::SumExact { sums, .. } => {
                if let Some(sum) = sums.get(id as usize).filter(|sum| !sum.is_one_float()) {
                    sum.save(out);
                }
            }
            Kind::Bits { groups } => groups.get(id as usize).iter().for_each(|group| group.save(out)),
            Kind::Value(store) => store.state.save(id, out),
            _ => {}
        }
    }

    /// Takes what `save` has written, for a group whose slot has its words again. False where its result cannot be
    /// computed.
    pub(super) fn load(&mut self, id: u32, slot: &[u64], n_slots: usize, bytes: &[u8]) -> Result<bool> {
        let idx = id as usize;
        match &mut self.kind {
            Kind::SumExact { sums, n_wide } => {
                sums.resize_with(n_slots.max(sums.len()), ExactSum::default);
                let sum = match bytes {
                    [] => ExactSum::of(f64::from_bits(slot[self.offset])),
                    mut bytes => ExactSum::load(&mut bytes)?,
                };
                *n_wide += usize::from(sum.is_wide());
                sums[idx] = sum;
            }
            Kind::Bits { groups } => {
                groups.resize_with(n_slots.max(groups.len()), BitCounts::default);
                if !bytes.is_empty() {
                    groups[idx] = BitCounts::load(bytes)?;
                }
            }
            Kind::Value(store) => {
                store.state.grow(n_slots);
                store.results.resize(n_slots.max(store.results.len()), store.default.clone());
                store.state.load(id, bytes)?;
                match store.state.evaluate(id) {
                    Ok(result) => store.results[idx] = result,
                    Err(_) => return Ok(false),
                }
            }
            _ => {}
        }
        Ok(true)
    }

    /// Values kept beside the slots.
    pub(super) fn len(&self) -> usize {
        match &self.kind {
            Kind::OrderedWord { n_values, .. } | Kind::OrderedWide { n_values, .. } => *n_values,
            Kind::Value(store) => store.state.len(),
            _ => 0,
        }
    }

    /// Bytes allocated beside the slots.
    pub(super) fn bytes(&self) -> usize {
        match &self.kind {
            Kind::SumExact { sums, n_wide } => sums.capacity() * size_of::<ExactSum>() + n_wide * ExactSum::WIDE_BYTES,
            Kind::OrderedWord { groups, n_values, .. } => {
                Multiset::<i64>::estimated_bytes(groups.capacity(), *n_values)
            }
            Kind::OrderedWide { groups, n_values } => Multiset::<i128>::estimated_bytes(groups.capacity(), *n_values),
            Kind::Bits { groups } => groups.capacity() * size_of::<BitCounts>() + groups.len() * BitCounts::HEAP_BYTES,
            Kind::Value(store) => store.state.bytes() + store.results.capacity() * size_of::<ScalarValue>(),
            _ => 0,
        }
    }
}

fn reset<T: Default>(groups: &mut [T], idx: usize) {
    if let Some(group) = groups.get_mut(idx) {
        *group = T::default();
    }
}

fn first<'a>(fed: &'a Fed<'_>) -> Result<&'a ArrayRef> {
    fed.columns.first().ok_or_else(|| SqlError::internal("an aggregate function without an argument"))
}

/// The argument as this type.
fn argument(fed: &Fed<'_>, data_type: &DataType) -> Result<ArrayRef> {
    let column = first(fed)?;
    Ok(if column.data_type() == data_type { ArrayRef::clone(column) } else { cast(column, data_type)? })
}

/// Adds `weight * value`; returns how many times 2^64 the sum is now further away than its word tells.
#[inline]
fn add_word(word: &mut u64, value: i64, weight: i64) -> i64 {
    if weight == 1 {
        let (sum, over) = (*word as i64).overflowing_add(value);
        *word = sum as u64;
        return if over { if value < 0 { -1 } else { 1 } } else { 0 };
    }
    let sum = i128::from(*word as i64) + i128::from(value) * i128::from(weight);
    *word = sum as u64;
    ((sum - i128::from(*word as i64)) >> 64) as i64
}

fn sum_wide(
    own_idx: usize,
    ids: &[u32],
    weights: Option<&[i64]>,
    slots: &mut Slots,
    at: usize,
    value: impl Fn(usize) -> i128,
    overflows: &mut Overflows,
) {
    each(ids, weights, slots, |row_idx, weight, slot| {
        // A copy at a time where the product would not fit: decimals near 10^38 with a weight are rare.
        let (term, times) = match value(row_idx).checked_mul(i128::from(weight)) {
            Some(product) => (product, 1),
            None => (value(row_idx) * i128::from(weight.signum()), weight.unsigned_abs()),
        };
        for _ in 0..times {
            let (sum, over) = wide(&slot[at..]).overflowing_add(term);
            set_wide(&mut slot[at..], sum);
            if over {
                note(overflows, (ids[row_idx], own_idx), if term < 0 { -1 } else { 1 });
            }
        }
    });
}

#[cold]
fn note(overflows: &mut Overflows, key: (u32, usize), carry: i64) {
    let count = overflows.entry(key).or_insert(0);
    *count += carry;
    if *count == 0 {
        overflows.remove(&key);
    }
}
