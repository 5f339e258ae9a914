//! One column of one segment, and the few physical forms that all Arrow types are carried in.
//!
//! A type is stored by its width (an `f64`, a `bigint` and a `timestamp` are all eight bytes), as views (text, bytes),
//! or, where it is none of these (lists, structs, dictionaries), as the bytes of its row encoding.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, NullArray, new_empty_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{ArrowNativeType, DataType, i256};
use arrow::row::{RowConverter, SortField};
use tidewire_types::{Result, SqlError};

use super::raw::{Appender, Shared};
use super::store::{SEGMENT_BITS, SEGMENT_MASK};
use super::views::{self, SharedViews, Views, ViewsColumn};

/// What stands for NULL among words.
const NULL_WORD: u64 = u64::MAX;

/// How a type is carried.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    data_type: DataType,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// Its own buffer of values of so many bytes.
    Fixed(usize),
    /// A byte a value.
    Bool,
    /// Views; cast to and from, where the type itself is not a view type.
    Views { utf8: bool },
    /// The row encoding of the value (nulls included), as binary views.
    Rows(Arc<RowConverter>),
    /// Only nulls: nothing.
    Null,
}

/// The values of one column of one batch, in their physical form.
pub(crate) struct Cells {
    values: Values,
    nulls: Option<NullBuffer>,
}

enum Values {
    W1(ScalarBuffer<u8>),
    W2(ScalarBuffer<u16>),
    W4(ScalarBuffer<u32>),
    W8(ScalarBuffer<u64>),
    W16(ScalarBuffer<u128>),
    W32(ScalarBuffer<i256>),
    Views(Views),
    /// So many nulls.
    Null(usize),
}

impl Cells {
    #[inline]
    fn is_valid(&self, row: u32) -> bool {
        self.nulls.as_ref().is_none_or(|nulls| (row as usize) < nulls.len() && nulls.is_valid(row as usize))
    }
}

impl Cells {
    /// What `f` makes of each value as a word, where they are so small: equal words are equal values (floats aside).
    pub(crate) fn map_words<T>(&self, f: impl Fn(u64) -> T) -> Option<Vec<T>> {
        Some(match &self.values {
            Values::W1(v) => v.iter().map(|v| f(u64::from(*v))).collect(),
            Values::W2(v) => v.iter().map(|v| f(u64::from(*v))).collect(),
            Values::W4(v) => v.iter().map(|v| f(u64::from(*v))).collect(),
            Values::W8(v) => v.iter().map(|v| f(*v)).collect(),
            _ => return None,
        })
    }

    /// The values as words, where they are so small. NULL has the word that no other value has, or -1.
    pub(crate) fn words(&self) -> Option<Vec<u64>> {
        let mut words = self.map_words(|word| word)?;
        if let Some(nulls) = &self.nulls {
            words.iter_mut().zip(nulls).filter(|(_, valid)| !valid).for_each(|(word, _)| *word = NULL_WORD);
        }
        Some(words)
    }
}

impl Kind {
    pub(crate) fn new(data_type: &DataType) -> Result<Kind> {
        use DataType as T;
        let form = match data_type {
            T::Null => Form::Null,
            T::Boolean => Form::Bool,
            T::Utf8View | T::Utf8 | T::LargeUtf8 => Form::Views { utf8: true },
            T::BinaryView | T::Binary | T::LargeBinary => Form::Views { utf8: false },
            T::Interval(arrow::datatypes::IntervalUnit::MonthDayNano) => Form::Fixed(16),
            T::Interval(arrow::datatypes::IntervalUnit::DayTime) => Form::Fixed(8),
            t => match t.primitive_width() {
                Some(width) => Form::Fixed(width),
                None => {
                    let converter = RowConverter::new(vec![SortField::new(t.clone())])
                        .map_err(|e| SqlError::unsupported(format_args!("storing {t}")).with_detail(e.to_string()))?;
                    Form::Rows(Arc::new(converter))
                }
            },
        };
        Ok(Kind { data_type: data_type.clone(), form })
    }

    /// A batch's column in its physical form, without a copy where the type allows.
    pub(crate) fn encode(&self, array: &ArrayRef) -> Result<Cells> {
        if array.data_type() != &self.data_type {
            let (is, should) = (array.data_type(), &self.data_type);
            return Err(SqlError::internal(format_args!("a column is {is} where {should} was planned")));
        }
        let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        let values = match &self.form {
            Form::Null => return Ok(Cells { values: Values::Null(array.len()), nulls: None }),
            Form::Bool => Values::W1(array.as_boolean().values().iter().map(u8::from).collect::<Vec<_>>().into()),
            Form::Views { utf8: true } => {
                Values::Views(Views::of_strings(cast(array, &DataType::Utf8View)?.as_string_view()))
            }
            Form::Views { utf8: false } => {
                Values::Views(Views::of_binary(cast(array, &DataType::BinaryView)?.as_binary_view()))
            }
            Form::Rows(converter) => {
                let rows: BinaryArray = converter.convert_columns(std::slice::from_ref(array))?.try_into_binary()?;
                let values = Values::Views(Views::of_binary(&BinaryViewArray::from(&rows)));
                return Ok(Cells { values, nulls: None });
            }
            Form::Fixed(width) => fixed(*width, &array.to_data())?,
        };
        Ok(Cells { values, nulls })
    }

    /// The Arrow array of gathered or shared cells.
    pub(crate) fn decode(&self, cells: Cells) -> Result<ArrayRef> {
        let nulls = cells.nulls;
        Ok(match (&self.form, cells.values) {
            (Form::Null, Values::Null(n)) => Arc::new(NullArray::new(n)),
            (Form::Bool, Values::W1(v)) => {
                let bits = v.iter().map(|byte| *byte != 0).collect::<BooleanBuffer>();
                Arc::new(BooleanArray::new(bits, nulls))
            }
            (Form::Views { .. }, Values::Views(views)) => {
                let array = views.into_array(nulls);
                if array.data_type() == &self.data_type { array } else { cast(&array, &self.data_type)? }
            }
            (Form::Rows(converter), Values::Views(views)) => {
                let array = views.into_array(None);
                if array.is_empty() {
                    return Ok(new_empty_array(&self.data_type));
                }
                let parser = converter.parser();
                let array = array.as_binary_view();
                let null_row = self.null_row(converter)?;
                // A slot that is not there has no bytes: it reads as NULL.
                let bytes = array.iter().map(|b| b.filter(|b| !b.is_empty()).unwrap_or(null_row.value(0)));
                let mut columns = converter.convert_rows(bytes.map(|b| parser.parse(b)))?;
                columns.pop().ok_or_else(|| SqlError::internal("a row encoding without a column"))?
            }
            (Form::Fixed(_), Values::W1(v)) => self.primitive(v.len(), v.into_inner(), nulls)?,
            (Form::Fixed(_), Values::W2(v)) => self.primitive(v.len(), v.into_inner(), nulls)?,
            (Form::Fixed(_), Values::W4(v)) => self.primitive(v.len(), v.into_inner(), nulls)?,
            (Form::Fixed(_), Values::W8(v)) => self.primitive(v.len(), v.into_inner(), nulls)?,
            (Form::Fixed(_), Values::W16(v)) => self.primitive(v.len(), v.into_inner(), nulls)?,
            (Form::Fixed(_), Values::W32(v)) => self.primitive(v.len(), v.into_inner(), nulls)?,
            _ => return Err(SqlError::internal("a column in another form than its type's")),
        })
    }

    fn null_row(&self, converter: &RowConverter) -> Result<BinaryArray> {
        let null = arrow::array::new_null_array(&self.data_type, 1);
        Ok(converter.convert_columns(&[null])?.try_into_binary()?)
    }

    fn primitive(&self, len: usize, values: Buffer, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let data = ArrayData::builder(self.data_type.clone()).len(len).add_buffer(values).nulls(nulls).build()?;
        Ok(arrow::array::make_array(data))
    }

    /// Whether all its values are words (see [`Cells::map_words`]) of which no two are equal.
    pub(crate) fn is_word(&self) -> bool {
        matches!(self.form, Form::Fixed(..=8)) && !self.is_float()
    }

    pub(crate) fn is_float(&self) -> bool {
        matches!(self.data_type, DataType::Float16 | DataType::Float32 | DataType::Float64)
    }
}

/// A primitive array's values by their width.
fn fixed(width: usize, data: &ArrayData) -> Result<Values> {
    fn typed<T: ArrowNativeType>(data: &ArrayData) -> Result<ScalarBuffer<T>> {
        let none = || SqlError::internal("a primitive array without values");
        let buffer = data.buffers().first().ok_or_else(none)?;
        // Intervals and foreign buffers may be less aligned than the type of their width.
        let buffer =
            if buffer.as_ptr().cast::<T>().is_aligned() { buffer.clone() } else { Buffer::from(buffer.as_slice()) };
        Ok(ScalarBuffer::new(buffer, data.offset(), data.len()))
    }
    Ok(match width {
        1 => Values::W1(typed(data)?),
        2 => Values::W2(typed(data)?),
        4 => Values::W4(typed(data)?),
        8 => Values::W8(typed(data)?),
        16 => Values::W16(typed(data)?),
        32 => Values::W32(typed(data)?),
        _ => return Err(SqlError::internal(format_args!("a type of {width} bytes"))),
    })
}

/// One column of one segment.
#[derive(Debug)]
pub(crate) struct Column {
    data: Data,
    /// A byte a row, once there was a null.
    valid: Option<Appender<u8>>,
    shared_valid: Arc<OnceLock<Arc<Shared<u8>>>>,
    capacity: usize,
    len: usize,
}

#[derive(Debug)]
enum Data {
    W1(Appender<u8>),
    W2(Appender<u16>),
    W4(Appender<u32>),
    W8(Appender<u64>),
    W16(Appender<u128>),
    W32(Appender<i256>),
    Views(ViewsColumn),
    Null,
}

/// The reading end of a column.
#[derive(Debug)]
pub(crate) struct SharedColumn {
    data: SharedData,
    valid: Arc<OnceLock<Arc<Shared<u8>>>>,
}

#[derive(Debug)]
enum SharedData {
    W1(Arc<Shared<u8>>),
    W2(Arc<Shared<u16>>),
    W4(Arc<Shared<u32>>),
    W8(Arc<Shared<u64>>),
    W16(Arc<Shared<u128>>),
    W32(Arc<Shared<i256>>),
    Views(SharedViews),
    Null,
}

impl SharedColumn {
    /// The first `len` values, without a copy of fixed-width ones. At least `len` must have been published.
    pub(crate) fn prefix(&self, len: usize) -> Cells {
        fn scalars<T: ArrowNativeType + super::raw::Plain>(shared: &Arc<Shared<T>>, len: usize) -> ScalarBuffer<T> {
            ScalarBuffer::new(shared.buffer(len), 0, len.min(shared.len()))
        }
        let values = match &self.data {
            SharedData::W1(s) => Values::W1(scalars(s, len)),
            SharedData::W2(s) => Values::W2(scalars(s, len)),
            SharedData::W4(s) => Values::W4(scalars(s, len)),
            SharedData::W8(s) => Values::W8(scalars(s, len)),
            SharedData::W16(s) => Values::W16(scalars(s, len)),
            SharedData::W32(s) => Values::W32(scalars(s, len)),
            SharedData::Views(s) => Values::Views(s.prefix(len)),
            SharedData::Null => Values::Null(len),
        };
        Cells { values, nulls: self.valid.get().and_then(|valid| null_buffer(valid.as_slice(len))) }
    }
}

/// The cells of one column at `slots`, for readers: `segments` has the column of each segment and how many of its rows
/// may be read; a slot's segment is the place in that list.
pub(crate) fn gather_shared(kind: &Kind, segments: &[(&SharedColumn, usize)], slots: &[u32]) -> Cells {
    macro_rules! fixed {
        ($form:ident) => {{
            let slices: Vec<_> = segments
                .iter()
                .map(|(column, len)| match &column.data {
                    SharedData::$form(values) => values.as_slice(*len),
                    _ => &[],
                })
                .collect();
            Values::$form(pick(&slices, slots).into())
        }};
    }
    let values = match &kind.form {
        Form::Null => return Cells { values: Values::Null(slots.len()), nulls: None },
        Form::Bool | Form::Fixed(1) => fixed!(W1),
        Form::Fixed(2) => fixed!(W2),
        Form::Fixed(4) => fixed!(W4),
        Form::Fixed(8) => fixed!(W8),
        Form::Fixed(16) => fixed!(W16),
        Form::Fixed(_) => fixed!(W32),
        Form::Views { .. } | Form::Rows(_) => {
            let utf8 = matches!(kind.form, Form::Views { utf8: true });
            let columns: Vec<_> = segments
                .iter()
                .map(|(column, len)| match &column.data {
                    SharedData::Views(views) => Some((views, *len)),
                    _ => None,
                })
                .collect();
            Values::Views(views::gather_shared(&columns, slots, utf8))
        }
    };
    let valid: Vec<Option<&[u8]>> =
        segments.iter().map(|(column, len)| column.valid.get().map(|valid| valid.as_slice(*len))).collect();
    let nulls = valid.iter().any(Option::is_some).then(|| {
        let is_valid = |slot: &u32| match valid.get((slot >> SEGMENT_BITS) as usize).copied().flatten() {
            Some(valid) => valid.get((slot & SEGMENT_MASK) as usize).is_some_and(|byte| *byte != 0),
            None => true,
        };
        NullBuffer::new(slots.iter().map(is_valid).collect::<BooleanBuffer>())
    });
    Cells { values, nulls: nulls.filter(|nulls| nulls.null_count() > 0) }
}

fn null_buffer(valid: &[u8]) -> Option<NullBuffer> {
    let bits = valid.iter().map(|byte| *byte != 0).collect::<BooleanBuffer>();
    Some(NullBuffer::new(bits)).filter(|nulls| nulls.null_count() > 0)
}

impl Column {
    pub(crate) fn new(kind: &Kind, capacity: usize) -> Column {
        let data = match &kind.form {
            Form::Null => Data::Null,
            Form::Bool | Form::Fixed(1) => Data::W1(Appender::with_capacity(capacity)),
            Form::Fixed(2) => Data::W2(Appender::with_capacity(capacity)),
            Form::Fixed(4) => Data::W4(Appender::with_capacity(capacity)),
            Form::Fixed(8) => Data::W8(Appender::with_capacity(capacity)),
            Form::Fixed(16) => Data::W16(Appender::with_capacity(capacity)),
            Form::Fixed(_) => Data::W32(Appender::with_capacity(capacity)),
            Form::Views { utf8 } => Data::Views(ViewsColumn::with_capacity(capacity, *utf8)),
            Form::Rows(_) => Data::Views(ViewsColumn::with_capacity(capacity, false)),
        };
        Column { data, valid: None, shared_valid: Arc::default(), capacity, len: 0 }
    }

    pub(crate) fn share(&self) -> SharedColumn {
        let data = match &self.data {
            Data::W1(a) => SharedData::W1(a.shared().clone()),
            Data::W2(a) => SharedData::W2(a.shared().clone()),
            Data::W4(a) => SharedData::W4(a.shared().clone()),
            Data::W8(a) => SharedData::W8(a.shared().clone()),
            Data::W16(a) => SharedData::W16(a.shared().clone()),
            Data::W32(a) => SharedData::W32(a.shared().clone()),
            Data::Views(v) => SharedData::Views(v.share()),
            Data::Null => SharedData::Null,
        };
        SharedColumn { data, valid: self.shared_valid.clone() }
    }

    pub(crate) fn bytes(&self) -> usize {
        let data = match &self.data {
            Data::W1(a) => a.bytes(),
            Data::W2(a) => a.bytes(),
            Data::W4(a) => a.bytes(),
            Data::W8(a) => a.bytes(),
            Data::W16(a) => a.bytes(),
            Data::W32(a) => a.bytes(),
            Data::Views(v) => v.bytes(),
            Data::Null => 0,
        };
        data + self.valid.as_ref().map_or(0, Appender::bytes)
    }

    /// Appends the cells at `rows`.
    pub(crate) fn append(&mut self, cells: &Cells, rows: &[u32]) {
        fn put<T: super::raw::Plain>(to: &mut Appender<T>, from: &[T], rows: &[u32]) {
            match rows.first() {
                // A range of rows is copied as a whole.
                Some(first) if rows.iter().zip(*first..).all(|(row, expected)| *row == expected) => {
                    let first = *first as usize;
                    to.extend_from_slice(from.get(first..first + rows.len()).unwrap_or_default());
                }
                _ => to.extend(rows.iter().map(|row| from.get(*row as usize).copied().unwrap_or_default())),
            }
        }
        match (&mut self.data, &cells.values) {
            (Data::W1(to), Values::W1(from)) => put(to, from, rows),
            (Data::W2(to), Values::W2(from)) => put(to, from, rows),
            (Data::W4(to), Values::W4(from)) => put(to, from, rows),
            (Data::W8(to), Values::W8(from)) => put(to, from, rows),
            (Data::W16(to), Values::W16(from)) => put(to, from, rows),
            (Data::W32(to), Values::W32(from)) => put(to, from, rows),
            (Data::Views(to), Values::Views(from)) => to.append(from, rows, |row| cells.is_valid(row)),
            // `Kind::encode` has refused everything else.
            _ => {}
        }
        if cells.nulls.is_some() || self.valid.is_some() {
            self.validity().extend(rows.iter().map(|row| u8::from(cells.is_valid(*row))));
        }
        self.len += rows.len();
    }

    /// The validity bytes: made, and seen by readers from now on, at the first null.
    fn validity(&mut self) -> &mut Appender<u8> {
        let (capacity, len, shared) = (self.capacity, self.len, &self.shared_valid);
        self.valid.get_or_insert_with(|| {
            let mut valid = Appender::with_capacity(capacity);
            valid.extend(std::iter::repeat_n(1, len));
            // A second `set` cannot happen: the Option says so.
            let _ = shared.set(valid.shared().clone());
            valid
        })
    }

    /// Overwrites one value; false while a reader holds the column.
    pub(crate) fn set(&mut self, offset: usize, cells: &Cells, row: u32) -> bool {
        fn put<T: super::raw::Plain>(to: &mut Appender<T>, offset: usize, from: &[T], row: u32) -> bool {
            let place = to.as_mut_slice().and_then(|values| values.get_mut(offset));
            match (place, from.get(row as usize)) {
                (Some(place), Some(value)) => {
                    *place = *value;
                    true
                }
                _ => false,
            }
        }
        let valid = cells.is_valid(row);
        let done = match (&mut self.data, &cells.values) {
            (Data::W1(to), Values::W1(from)) => put(to, offset, from, row),
            (Data::W2(to), Values::W2(from)) => put(to, offset, from, row),
            (Data::W4(to), Values::W4(from)) => put(to, offset, from, row),
            (Data::W8(to), Values::W8(from)) => put(to, offset, from, row),
            (Data::W16(to), Values::W16(from)) => put(to, offset, from, row),
            (Data::W32(to), Values::W32(from)) => put(to, offset, from, row),
            (Data::Views(to), Values::Views(from)) => to.set(offset, from, row, valid),
            (Data::Null, Values::Null(_)) => true,
            _ => false,
        };
        if valid && self.valid.is_none() {
            return done;
        }
        self.validity();
        // The private end has one more handle, the OnceLock's: nobody reads it before `share`.
        self.shared_valid = Arc::default();
        match self.valid.as_mut().and_then(Appender::as_mut_slice).and_then(|v| v.get_mut(offset)) {
            Some(place) => *place = u8::from(valid),
            None => return false,
        }
        done
    }
}

/// The values of each segment; none where it has no such column.
macro_rules! slices {
    ($segments:expr, $form:ident) => {
        $segments
            .iter()
            .map(|segment| match segment {
                Some(Column { data: Data::$form(values), .. }) => values.as_slice(),
                _ => &[],
            })
            .collect::<Vec<_>>()
    };
}

/// The cells of one column at `slots`, over all segments. A slot that is not there reads as NULL.
pub(crate) fn gather(kind: &Kind, segments: &[Option<&Column>], slots: &[u32]) -> Cells {
    macro_rules! fixed {
        ($form:ident) => {
            Values::$form(pick(&slices!(segments, $form), slots).into())
        };
    }
    let values = match &kind.form {
        Form::Null => return Cells { values: Values::Null(slots.len()), nulls: None },
        Form::Bool | Form::Fixed(1) => fixed!(W1),
        Form::Fixed(2) => fixed!(W2),
        Form::Fixed(4) => fixed!(W4),
        Form::Fixed(8) => fixed!(W8),
        Form::Fixed(16) => fixed!(W16),
        Form::Fixed(_) => fixed!(W32),
        Form::Views { .. } | Form::Rows(_) => {
            let utf8 = matches!(kind.form, Form::Views { utf8: true });
            let columns: Vec<_> = segments
                .iter()
                .map(|segment| match segment {
                    Some(Column { data: Data::Views(views), .. }) => Some(views),
                    _ => None,
                })
                .collect();
            Values::Views(views::gather(&columns, slots, utf8))
        }
    };
    let absent = slots.contains(&u32::MAX);
    let nullable = absent || segments.iter().flatten().any(|column| column.valid.is_some());
    let nulls = nullable.then(|| {
        let is_valid = |slot: &u32| {
            let column = segments.get((slot >> SEGMENT_BITS) as usize).copied().flatten();
            let valid = |c: &Column| match &c.valid {
                Some(valid) => valid.as_slice().get((slot & SEGMENT_MASK) as usize).is_some_and(|byte| *byte != 0),
                None => true,
            };
            column.is_some_and(valid)
        };
        NullBuffer::new(slots.iter().map(is_valid).collect::<BooleanBuffer>())
    });
    Cells { values, nulls: nulls.filter(|nulls| nulls.null_count() > 0) }
}

#[inline]
fn pick<T: Copy + Default>(slices: &[&[T]], slots: &[u32]) -> Vec<T> {
    slots.iter().map(|slot| at(slices, *slot).copied().unwrap_or_default()).collect()
}

#[inline]
fn at<'a, T>(slices: &[&'a [T]], slot: u32) -> Option<&'a T> {
    slices.get((slot >> SEGMENT_BITS) as usize)?.get((slot & SEGMENT_MASK) as usize)
}

/// Clears `mask[i]` where the value at `slots[i]` is not that of row `rows[i]`; where it is clear already, what is at that slot
/// does not matter. NULL equals NULL; `by_value` makes zeros equal each other and NaNs too.
pub(crate) fn compare(
    kind: &Kind,
    segments: &[Option<&Column>],
    slots: &[u32],
    cells: &Cells,
    rows: &[u32],
    by_value: bool,
    mask: &mut [bool],
) {
    let by_value = by_value && kind.is_float();
    let has_nulls = cells.nulls.is_some() || segments.iter().flatten().any(|column| column.valid.is_some());
    macro_rules! fixed {
        ($form:ident, $values:ident) => {{
            let slices = slices!(segments, $form);
            // Without a branch that would wait for the miss, the misses overlap.
            for ((slot, row), mask) in slots.iter().zip(rows).zip(mask) {
                let value = at(&slices, *slot);
                *mask &= value.is_some() & (value == $values.get(*row as usize));
            }
        }};
    }
    match &cells.values {
        Values::W4(values) if !has_nulls && !by_value => fixed!(W4, values),
        Values::W8(values) if !has_nulls && !by_value => fixed!(W8, values),
        Values::W16(values) if !has_nulls && !by_value => fixed!(W16, values),
        _ => {
            let pairs = slots.iter().zip(rows).zip(mask.iter_mut()).filter(|(_, m)| **m);
            for ((slot, row), mask) in pairs {
                let column = segments.get((slot >> SEGMENT_BITS) as usize).copied().flatten();
                *mask = column.is_some_and(|c| c.equals((slot & SEGMENT_MASK) as usize, cells, *row, by_value));
            }
        }
    }
}

impl Column {
    /// Whether the value at `offset` equals that of `row`; see [`compare`].
    #[inline]
    pub(crate) fn equals(&self, offset: usize, cells: &Cells, row: u32, by_value: bool) -> bool {
        let (is_valid, other_is_valid) = (self.is_valid(offset), cells.is_valid(row));
        if !is_valid || !other_is_valid {
            return is_valid == other_is_valid;
        }
        let idx = row as usize;
        match (&self.data, &cells.values) {
            (Data::W1(a), Values::W1(b)) => equal(a.as_slice().get(offset), b.get(idx), by_value),
            (Data::W2(a), Values::W2(b)) => equal(a.as_slice().get(offset), b.get(idx), by_value),
            (Data::W4(a), Values::W4(b)) => equal(a.as_slice().get(offset), b.get(idx), by_value),
            (Data::W8(a), Values::W8(b)) => equal(a.as_slice().get(offset), b.get(idx), by_value),
            (Data::W16(a), Values::W16(b)) => equal(a.as_slice().get(offset), b.get(idx), by_value),
            (Data::W32(a), Values::W32(b)) => equal(a.as_slice().get(offset), b.get(idx), by_value),
            (Data::Views(a), Values::Views(b)) => a.equals(offset, b, row),
            (Data::Null, Values::Null(_)) => true,
            _ => false,
        }
    }

    /// As `equals`, for a value of another segment.
    #[inline]
    pub(crate) fn equals_stored(&self, offset: usize, other: &Column, idx: usize, by_value: bool) -> bool {
        let (is_valid, other_is_valid) = (self.is_valid(offset), other.is_valid(idx));
        if !is_valid || !other_is_valid {
            return is_valid == other_is_valid;
        }
        match (&self.data, &other.data) {
            (Data::W1(a), Data::W1(b)) => equal(a.as_slice().get(offset), b.as_slice().get(idx), by_value),
            (Data::W2(a), Data::W2(b)) => equal(a.as_slice().get(offset), b.as_slice().get(idx), by_value),
            (Data::W4(a), Data::W4(b)) => equal(a.as_slice().get(offset), b.as_slice().get(idx), by_value),
            (Data::W8(a), Data::W8(b)) => equal(a.as_slice().get(offset), b.as_slice().get(idx), by_value),
            (Data::W16(a), Data::W16(b)) => equal(a.as_slice().get(offset), b.as_slice().get(idx), by_value),
            (Data::W32(a), Data::W32(b)) => equal(a.as_slice().get(offset), b.as_slice().get(idx), by_value),
            (Data::Views(a), Data::Views(b)) => a.equals_stored(offset, b, idx),
            (Data::Null, Data::Null) => true,
            _ => false,
        }
    }

    /// [`Cells::words`] of a range of its values.
    pub(crate) fn words(&self, offsets: Range<usize>) -> Option<Vec<u64>> {
        let mut words: Vec<u64> = match &self.data {
            Data::W1(values) => values.as_slice().get(offsets.clone())?.iter().map(|v| u64::from(*v)).collect(),
            Data::W2(values) => values.as_slice().get(offsets.clone())?.iter().map(|v| u64::from(*v)).collect(),
            Data::W4(values) => values.as_slice().get(offsets.clone())?.iter().map(|v| u64::from(*v)).collect(),
            Data::W8(values) => values.as_slice().get(offsets.clone())?.to_vec(),
            _ => return None,
        };
        if self.valid.is_some() {
            let nulls = words.iter_mut().zip(offsets).filter(|(_, offset)| !self.is_valid(*offset));
            nulls.for_each(|(word, _)| *word = NULL_WORD);
        }
        Some(words)
    }

    #[inline]
    fn is_valid(&self, offset: usize) -> bool {
        match &self.valid {
            Some(valid) => valid.as_slice().get(offset).is_some_and(|byte| *byte != 0),
            None => true,
        }
    }
}

/// A value as its bits, and the float that these are where they are one.
trait Word: Copy + PartialEq {
    fn as_float(self) -> Option<f64> {
        None
    }
}

impl Word for u8 {}
impl Word for u128 {}
impl Word for i256 {}

impl Word for u16 {
    fn as_float(self) -> Option<f64> {
        Some(<arrow::datatypes::Float16Type as arrow::datatypes::ArrowPrimitiveType>::Native::from_bits(self).to_f64())
    }
}

impl Word for u32 {
    fn as_float(self) -> Option<f64> {
        Some(f32::from_bits(self).into())
    }
}

impl Word for u64 {
    fn as_float(self) -> Option<f64> {
        Some(f64::from_bits(self))
    }
}

#[inline]
fn equal<T: Word>(a: Option<&T>, b: Option<&T>, by_value: bool) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return false };
    a == b || (by_value && a.as_float().zip(b.as_float()).is_some_and(|(a, b)| a == b || (a.is_nan() && b.is_nan())))
}
