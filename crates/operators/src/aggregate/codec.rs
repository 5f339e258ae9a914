//! Sort keys of rows as values that Rust can compare: one word where the type allows, else arrow-row's bytes.
//!
//! Invariant: keys compare as the rows do under ORDER BY with the given directions, and come back as they went in.

use arrow::array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoArray};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use arrow::row::{RowConverter, SortField};
use tidewire_types::{Result, SqlError};

use super::words::{Order, from_raw_words, raw_words};

const DAY_NS: i128 = 86_400_000_000_000;

/// How the columns of an order become keys.
pub(super) trait Codec: Send + Sync {
    /// What is kept.
    type Key: Ord + Clone + Default + Send + Sync;
    /// The key of every row. What stands where a single column is NULL is anything.
    fn encode(&self, columns: &[ArrayRef]) -> Result<Vec<Self::Key>>;
    /// The first column of the rows with these keys.
    fn decode(&self, keys: &[Self::Key]) -> Result<ArrayRef>;
    /// The last of the keys whose values equal that of this one. None: there is no other.
    fn last_equal(_: &Self::Key) -> Option<Self::Key> {
        None
    }
    /// Bytes that a key takes on the heap.
    fn heap_bytes(_: &Self::Key) -> usize {
        0
    }
}

/// A column of numbers, dates or times without NULLs.
pub(super) struct Words {
    order: Order,
    data_type: DataType,
    is_descending: bool,
}

impl Words {
    pub(super) fn new(data_type: &DataType, is_descending: bool) -> Option<Words> {
        Some(Words { order: Order::of(data_type)?, data_type: data_type.clone(), is_descending })
    }
}

impl Codec for Words {
    type Key = i64;

    fn encode(&self, columns: &[ArrayRef]) -> Result<Vec<i64>> {
        let column = columns.first().ok_or_else(|| SqlError::internal("no column to order by"))?;
        let flip = if self.is_descending { -1 } else { 0 };
        Ok(raw_words(column)?.into_iter().map(|word| self.order.encode(word) ^ flip).collect())
    }

    fn decode(&self, keys: &[i64]) -> Result<ArrayRef> {
        let flip = if self.is_descending { -1 } else { 0 };
        from_raw_words(&self.data_type, keys.iter().map(|key| self.order.decode(key ^ flip)).collect(), None)
    }
}

/// Any columns, NULLs included.
pub(super) struct Rows {
    converter: RowConverter,
    types: Vec<DataType>,
}

impl Rows {
    pub(super) fn new(types: Vec<DataType>, order: &[SortOptions]) -> Result<Rows> {
        let field = |(idx, t): (usize, &DataType)| {
            let default = SortOptions { descending: false, nulls_first: false };
            SortField::new_with_options(t.clone(), order.get(idx).copied().unwrap_or(default))
        };
        let converter = RowConverter::new(types.iter().enumerate().map(field).collect())
            .map_err(|e| SqlError::unsupported("an order of such a type").with_detail(e.to_string()))?;
        Ok(Rows { converter, types })
    }

    /// All columns of the rows with these keys.
    pub(super) fn columns<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        let columns = self.converter.convert_rows(keys.map(|key| parser.parse(key)))?;
        // The encoding has no dictionaries.
        Ok(columns.iter().zip(&self.types).map(|(c, t)| cast(c, t)).collect::<Result<_, _>>()?)
    }

    /// The keys of rows, not yet owned.
    pub(super) fn encoded(&self, columns: &[ArrayRef]) -> Result<arrow::row::Rows> {
        let cast_column = |(column, data_type): (&ArrayRef, &DataType)| match column.data_type() == data_type {
            true => Ok(ArrayRef::clone(column)),
            false => cast(column, data_type),
        };
        let columns: Vec<ArrayRef> = columns.iter().zip(&self.types).map(cast_column).collect::<Result<_, _>>()?;
        Ok(self.converter.convert_columns(&columns)?)
    }
}

impl Codec for Rows {
    type Key = Box<[u8]>;

    fn encode(&self, columns: &[ArrayRef]) -> Result<Vec<Box<[u8]>>> {
        Ok(self.encoded(columns)?.iter().map(|row| row.data().into()).collect())
    }

    fn decode(&self, keys: &[Box<[u8]>]) -> Result<ArrayRef> {
        let columns = self.columns(keys.iter().map(|key| &**key))?;
        columns.into_iter().next().ok_or_else(|| SqlError::internal("no column to order by"))
    }

    fn heap_bytes(key: &Box<[u8]>) -> usize {
        key.len()
    }
}

/// Intervals, by their length: a month counts 30 days.
pub(super) struct Intervals {
    pub(super) is_descending: bool,
}

impl Intervals {
    pub(super) fn takes(data_type: &DataType) -> bool {
        *data_type == DataType::Interval(IntervalUnit::MonthDayNano)
    }
}

impl Codec for Intervals {
    /// Length in nanoseconds, months, days. The last two tell intervals of one length apart.
    type Key = (i128, i32, i32);

    fn encode(&self, columns: &[ArrayRef]) -> Result<Vec<Self::Key>> {
        let column = columns.first().ok_or_else(|| SqlError::internal("no column to order by"))?;
        let sign = if self.is_descending { -1 } else { 1 };
        let key = |value: &IntervalMonthDayNano| {
            let days = i128::from(value.months) * 30 + i128::from(value.days);
            let length = days * DAY_NS + i128::from(value.nanoseconds);
            (length * sign, value.months, value.days)
        };
        Ok(column.as_primitive::<IntervalMonthDayNanoType>().values().iter().map(key).collect())
    }

    fn decode(&self, keys: &[Self::Key]) -> Result<ArrayRef> {
        let sign = if self.is_descending { -1 } else { 1 };
        let value = |(length, months, days): &Self::Key| {
            let whole_days = i128::from(*months) * 30 + i128::from(*days);
            IntervalMonthDayNano::new(*months, *days, (length * sign - whole_days * DAY_NS) as i64)
        };
        Ok(std::sync::Arc::new(keys.iter().map(|key| Some(value(key))).collect::<IntervalMonthDayNanoArray>()))
    }

    fn last_equal((length, ..): &Self::Key) -> Option<Self::Key> {
        Some((*length, i32::MAX, i32::MAX))
    }
}
