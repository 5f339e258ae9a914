//! Values of fixed-width types as 64-bit words and back, so that one code path serves them all.
//!
//! `raw` words are the bits of a value, as it lies in the array, zero-extended: equal values have equal words. `ordered`
//! words are `i64`s that sort as the values do.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, BooleanArray, make_array};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use tidewire_types::{Result, SqlError};

/// Whether a value fits in one word.
pub(super) fn is_word(data_type: &DataType) -> bool {
    *data_type == DataType::Boolean || data_type.primitive_width().is_some_and(|width| width <= 8)
}

/// Whether a value fits in two words.
pub(super) fn is_wide(data_type: &DataType) -> bool {
    data_type.primitive_width() == Some(16)
}

/// The raw words of a column. `-0.0` becomes `0.0` and every NaN the same one, as GROUP BY sees them. What stands
/// under a NULL is anything.
pub(super) fn raw_words(column: &ArrayRef) -> Result<Vec<u64>> {
    fn canonical(value: f64) -> f64 {
        if value.is_nan() { f64::NAN } else { value + 0.0 }
    }
    Ok(match column.data_type() {
        DataType::Boolean => column.as_boolean().values().iter().map(u64::from).collect(),
        DataType::Float64 => {
            column.as_primitive::<Float64Type>().values().iter().map(|v| canonical(*v).to_bits()).collect()
        }
        DataType::Float32 => {
            let narrow = |v: &f32| u64::from((canonical(f64::from(*v)) as f32).to_bits());
            column.as_primitive::<Float32Type>().values().iter().map(narrow).collect()
        }
        DataType::Float16 => {
            let word = |v: &half::f16| u64::from(half::f16::from_f64(canonical(f64::from(*v))).to_bits());
            column.as_primitive::<Float16Type>().values().iter().map(word).collect()
        }
        other => {
            let data = column.to_data();
            let range = data.offset()..data.offset() + data.len();
            let buffer = data.buffers().first();
            let words = buffer.and_then(|b| match other.primitive_width()? {
                8 => Some(b.typed_data::<u64>().get(range)?.to_vec()),
                4 => Some(b.typed_data::<u32>().get(range)?.iter().map(|v| u64::from(*v)).collect()),
                2 => Some(b.typed_data::<u16>().get(range)?.iter().map(|v| u64::from(*v)).collect()),
                1 => Some(b.typed_data::<u8>().get(range)?.iter().map(|v| u64::from(*v)).collect()),
                _ => None,
            });
            words.ok_or_else(|| SqlError::internal(format_args!("{other} is not one word wide")))?
        }
    })
}

/// The two-word values of a column.
pub(super) fn wide_words(column: &ArrayRef) -> Result<Vec<u128>> {
    let data = column.to_data();
    let range = data.offset()..data.offset() + data.len();
    // An interval need not lie where a u128 must.
    let halves = data.buffers().first().and_then(|b| b.typed_data::<u64>().get(range.start * 2..range.end * 2));
    let word = |half: &[u64]| match half {
        [low, high] => u128::from(*low) | u128::from(*high) << 64,
        _ => 0,
    };
    let words = halves.map(|halves| halves.chunks_exact(2).map(word).collect());
    words.ok_or_else(|| SqlError::internal(format_args!("{} is not two words wide", column.data_type())))
}

/// A column of raw words. Words under a NULL are anything.
pub(super) fn from_raw_words(data_type: &DataType, words: Vec<u64>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    let len = words.len();
    let buffer = match data_type {
        DataType::Boolean => {
            return Ok(Arc::new(BooleanArray::new(words.iter().map(|w| *w != 0).collect::<Vec<_>>().into(), nulls)));
        }
        other => match other.primitive_width() {
            Some(8) => Buffer::from_vec(words),
            Some(4) => Buffer::from_vec(words.iter().map(|w| *w as u32).collect()),
            Some(2) => Buffer::from_vec(words.iter().map(|w| *w as u16).collect()),
            Some(1) => Buffer::from_vec(words.iter().map(|w| *w as u8).collect()),
            _ => return Err(SqlError::internal(format_args!("{other} is not one word wide"))),
        },
    };
    let data = ArrayData::builder(data_type.clone()).len(len).add_buffer(buffer).nulls(nulls).build()?;
    Ok(make_array(data))
}

/// A column of two-word values.
pub(super) fn from_wide_words(data_type: &DataType, words: Vec<u128>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    let builder = ArrayData::builder(data_type.clone()).len(words.len()).add_buffer(Buffer::from_vec(words));
    Ok(make_array(builder.nulls(nulls).build()?))
}

/// How raw words of a type become ordered ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// A signed integer of this many bits.
    Signed(u32),
    /// Unsigned or boolean, less than 64 bits.
    Unsigned,
    Unsigned64,
    Float64,
    Float32,
}

impl Order {
    /// None for types whose order is not that of one word (intervals).
    pub(super) fn of(data_type: &DataType) -> Option<Order> {
        use DataType as T;
        Some(match data_type {
            T::Int64 | T::Date64 | T::Time64(_) | T::Timestamp(..) | T::Duration(_) | T::Decimal64(..) => {
                Order::Signed(64)
            }
            T::Int32 | T::Date32 | T::Time32(_) | T::Decimal32(..) => Order::Signed(32),
            T::Int16 => Order::Signed(16),
            T::Int8 => Order::Signed(8),
            T::Boolean | T::UInt8 | T::UInt16 | T::UInt32 => Order::Unsigned,
            T::UInt64 => Order::Unsigned64,
            T::Float64 => Order::Float64,
            T::Float32 => Order::Float32,
            _ => return None,
        })
    }

    /// Raw to ordered. NaN is the greatest, as in PostgreSQL.
    #[inline]
    pub(super) fn encode(self, raw: u64) -> i64 {
        match self {
            Order::Signed(64) | Order::Unsigned => raw as i64,
            Order::Signed(bits) => ((raw << (64 - bits)) as i64) >> (64 - bits),
            Order::Unsigned64 => (raw ^ 1 << 63) as i64,
            Order::Float64 => (raw as i64) ^ ((raw as i64) >> 63) & i64::MAX,
            Order::Float32 => i64::from((raw as i32) ^ ((raw as i32) >> 31) & i32::MAX),
        }
    }

    /// Ordered to raw.
    #[inline]
    pub(super) fn decode(self, ordered: i64) -> u64 {
        match self {
            Order::Signed(_) | Order::Unsigned => ordered as u64,
            Order::Unsigned64 => ordered as u64 ^ 1 << 63,
            Order::Float64 => (ordered ^ (ordered >> 63) & i64::MAX) as u64,
            Order::Float32 => u64::from(((ordered as i32) ^ ((ordered as i32) >> 31) & i32::MAX) as u32),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Float32Array, Float64Array, Int16Array, UInt64Array};

    use super::*;

    #[test]
    fn ordered_words_sort_as_the_values_do() {
        let sorted: Vec<ArrayRef> = vec![
            Arc::new(Int16Array::from(vec![-5, -1, 0, 7])),
            Arc::new(Date32Array::from(vec![i32::MIN, -1, 0, i32::MAX])),
            Arc::new(UInt64Array::from(vec![0, 1, u64::MAX])),
            Arc::new(Float64Array::from(vec![f64::NEG_INFINITY, -1.5, 0.0, 1e-300, 2.0, f64::INFINITY, f64::NAN])),
            Arc::new(Float32Array::from(vec![-1.5, 0.0, 2.5, f32::NAN])),
            Arc::new(BooleanArray::from(vec![false, true])),
        ];
        for column in sorted {
            let order = Order::of(column.data_type()).unwrap();
            let raw = raw_words(&column.slice(0, column.len())).unwrap();
            let ordered: Vec<i64> = raw.iter().map(|w| order.encode(*w)).collect();
            assert!(ordered.is_sorted(), "{column:?}");
            let back = from_raw_words(column.data_type(), ordered.iter().map(|w| order.decode(*w)).collect(), None);
            assert_eq!(&back.unwrap(), &column);
        }
    }
}
