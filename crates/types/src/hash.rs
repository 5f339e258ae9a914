//! The hash of a row: decides its shard, and indexes state.
//!
//! The values are part of the state's layout (a row's shard is where its state lies), so this is our own function and
//! not a library's that may change: a folded multiply as in wyhash. Equal rows hash alike whether a string is stored
//! as `Utf8` or `Utf8View`; nulls are a value; `-0.0` and `0.0`, and all NaNs, hash alike, as GROUP BY sees them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, i256};
use arrow::downcast_primitive_array;
use arrow::row::{RowConverter, SortField};

use crate::{Result, SqlError};

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX: u64 = 0xa076_1d64_78bd_642f;
const NULL: u64 = 0xe703_7ed1_a0b4_28db;

#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ MIX) * u128::from(b ^ SEED);
    (product as u64) ^ ((product >> 64) as u64)
}

#[inline]
fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = mix(hash, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    mix(hash, u64::from_le_bytes(last))
}

/// A value as the word that is hashed.
trait Word: Copy {
    fn word(self) -> u64;
}

macro_rules! word {
    ($($t:ty: $v:ident => $e:expr;)*) => { $(impl Word for $t { #[inline] fn word(self) -> u64 { let $v = self; $e } })* };
}
word! {
    i8: v => v as u64;
    i16: v => v as u64;
    i32: v => v as u64;
    i64: v => v as u64;
    u8: v => u64::from(v);
    u16: v => u64::from(v);
    u32: v => u64::from(v);
    u64: v => v;
    i128: v => mix(v as u64, (v >> 64) as u64);
    i256: v => hash_bytes(&v.to_le_bytes());
    half::f16: v => f64::from(v).word();
    f32: v => f64::from(v).word();
    f64: v => if v.is_nan() { f64::NAN.to_bits() } else if v == 0.0 { 0 } else { v.to_bits() };
    arrow::datatypes::IntervalDayTime: v => mix(v.days as u64, v.milliseconds as u64);
    arrow::datatypes::IntervalMonthDayNano: v => mix(mix(v.months as u64, v.days as u64), v.nanoseconds as u64);
}

/// Writes one hash a row of `columns` into `out` (cleared first).
///
/// `columns` all have `n_rows` rows; with no columns every row hashes alike. Errors: `0A000` for a type that has no
/// order either (unions, maps).
pub fn hash_rows(columns: &[ArrayRef], n_rows: usize, out: &mut Vec<u64>) -> Result<()> {
    out.clear();
    out.resize(n_rows, SEED);
    columns.iter().try_for_each(|column| hash_column(column, out))
}

fn hash_column(column: &ArrayRef, out: &mut [u64]) -> Result<()> {
    fn each(column: &dyn Array, out: &mut [u64], value: impl Fn(usize) -> u64) {
        match column.nulls().filter(|n| n.null_count() > 0) {
            None => out.iter_mut().enumerate().for_each(|(idx, hash)| *hash = mix(*hash, value(idx))),
            Some(nulls) => out.iter_mut().enumerate().for_each(|(idx, hash)| {
                *hash = mix(*hash, if nulls.is_valid(idx) { value(idx) } else { NULL });
            }),
        }
    }
    let array: &dyn Array = column.as_ref();
    downcast_primitive_array!(
        array => {
            let values = array.values();
            match array.nulls().filter(|n| n.null_count() > 0) {
                None => out.iter_mut().zip(values.iter()).for_each(|(hash, v)| *hash = mix(*hash, v.word())),
                Some(nulls) => out.iter_mut().zip(values.iter()).enumerate().for_each(|(idx, (hash, v))| {
                    *hash = mix(*hash, if nulls.is_valid(idx) { v.word() } else { NULL });
                }),
            }
        },
        DataType::Boolean => { let a = array.as_boolean(); each(a, out, |idx| u64::from(a.value(idx))) },
        DataType::Utf8 => { let a = array.as_string::<i32>(); each(a, out, |idx| hash_bytes(a.value(idx).as_bytes())) },
        DataType::LargeUtf8 => { let a = array.as_string::<i64>(); each(a, out, |idx| hash_bytes(a.value(idx).as_bytes())) },
        DataType::Utf8View => { let a = array.as_string_view(); each(a, out, |idx| hash_bytes(a.value(idx).as_bytes())) },
        DataType::Binary => { let a = array.as_binary::<i32>(); each(a, out, |idx| hash_bytes(a.value(idx))) },
        DataType::LargeBinary => { let a = array.as_binary::<i64>(); each(a, out, |idx| hash_bytes(a.value(idx))) },
        DataType::BinaryView => { let a = array.as_binary_view(); each(a, out, |idx| hash_bytes(a.value(idx))) },
        DataType::FixedSizeBinary(_) => { let a = array.as_fixed_size_binary(); each(a, out, |idx| hash_bytes(a.value(idx))) },
        DataType::Null => out.iter_mut().for_each(|hash| *hash = mix(*hash, NULL)),
        _ => hash_nested(column, out)?,
    );
    Ok(())
}

/// Lists, structs and the like, through their row encoding.
fn hash_nested(column: &ArrayRef, out: &mut [u64]) -> Result<()> {
    let converter = RowConverter::new(vec![SortField::new(column.data_type().clone())]);
    let rows = converter.and_then(|c| c.convert_columns(std::slice::from_ref(column))).map_err(|e| {
        SqlError::unsupported(format_args!("a key of type {}", column.data_type())).with_detail(e.to_string())
    })?;
    for (hash, row) in out.iter_mut().zip(rows.iter()) {
        *hash = mix(*hash, hash_bytes(row.as_ref()));
    }
    Ok(())
}

/// The column with one zero and one NaN, as GROUP BY sees them (`-0.0` becomes `0.0`); columns of no floats as they are.
pub fn as_grouped(column: &ArrayRef) -> ArrayRef {
    if let Some(floats) = column.as_primitive_opt::<Float64Type>() {
        return Arc::new(floats.unary::<_, Float64Type>(|f| if f.is_nan() { f64::NAN } else { f + 0.0 }));
    }
    if let Some(floats) = column.as_primitive_opt::<Float32Type>() {
        return Arc::new(floats.unary::<_, Float32Type>(|f| if f.is_nan() { f32::NAN } else { f + 0.0 }));
    }
    Arc::clone(column)
}

/// The shard, of `n_shards`, that a row with this hash belongs to. Uses the high bits; indexes use the low ones.
#[inline]
pub fn shard_of(hash: u64, n_shards: usize) -> usize {
    (((hash >> 32) * n_shards as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray, StringViewArray};

    use super::*;

    fn hashes(column: impl Array + 'static) -> Vec<u64> {
        let column: ArrayRef = Arc::new(column);
        let mut out = vec![];
        hash_rows(std::slice::from_ref(&column), column.len(), &mut out).unwrap();
        out
    }

    #[test]
    fn a_string_hashes_alike_however_it_is_stored() {
        let values = [Some("a"), None, Some("a string longer than twelve bytes"), Some("")];
        let plain = hashes(StringArray::from_iter(values));
        assert_eq!(plain, hashes(StringViewArray::from_iter(values)));
        assert_eq!(plain.iter().collect::<std::collections::HashSet<_>>().len(), 4);
    }

    #[test]
    fn zeros_and_nans_hash_alike() {
        let h = hashes(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]));
        assert_eq!((h[0], h[2]), (h[1], h[3]));
    }

    #[test]
    fn shards_are_even() {
        let mut counts = [0; 4];
        for hash in hashes(Int64Array::from_iter_values(0..40_000)) {
            counts[shard_of(hash, 4)] += 1;
        }
        assert!(counts.iter().all(|n| (9_000..11_000).contains(n)), "{counts:?}");
    }
}
