//! Columns under construction: one builder a column, from which a failed row can be taken back.
//!
//! Invariant: `truncate(n)` leaves a builder as it was when it had `n` rows, whatever was appended since, also in
//! nested builders that a failed row filled only in part.
//! Arrow's own builders cannot shorten; these hold plain vectors, and string columns note what to leave out at the end.

use std::fmt;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BooleanArray, BooleanBufferBuilder, GenericByteViewBuilder, ListArray, NullArray,
    NullBufferBuilder, PrimitiveArray, StructArray,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowNativeTypeOp, BinaryViewType, ByteViewType, DataType, Date32Type, Decimal128Type, Field, Fields, Float32Type,
    Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, StringViewType,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use tidewire_types::{Result, SqlError, SqlType};

use crate::bad::{Outcome, bad, out_of_range, wrong_syntax};
use crate::format::Keys;
use crate::text;

/// One column under construction.
#[derive(Debug)]
pub(crate) enum Builder {
    Null(usize),
    Bool(Bools),
    Int2(Values<Int16Type>),
    Int4(Values<Int32Type>),
    Int8(Values<Int64Type>),
    Float4(Values<Float32Type>),
    Float8(Values<Float64Type>),
    Numeric(Numerics),
    Text(Views<StringViewType>, TextKind),
    Bytea(Views<BinaryViewType>),
    Date(Values<Date32Type>),
    Time(Values<Time64MicrosecondType>),
    Timestamp(Values<TimestampMicrosecondType>),
    Timestamptz(Values<TimestampMicrosecondType>),
    Interval(Values<IntervalMonthDayNanoType>),
    Array(Box<Lists>),
    Struct(Box<Structs>),
}

/// What a string column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextKind {
    Text,
    Varchar(u32),
    Char(u32),
    Uuid,
    Json,
    Jsonb,
}

impl Builder {
    pub(crate) fn new(sql_type: &SqlType) -> Builder {
        let text = |kind| Builder::Text(Views::new(), kind);
        match sql_type {
            SqlType::Null => Builder::Null(0),
            SqlType::Bool => Builder::Bool(Bools::new()),
            SqlType::Int2 => Builder::Int2(Values::new()),
            SqlType::Int4 => Builder::Int4(Values::new()),
            SqlType::Int8 => Builder::Int8(Values::new()),
            SqlType::Float4 => Builder::Float4(Values::new()),
            SqlType::Float8 => Builder::Float8(Values::new()),
            SqlType::Numeric(_) => Builder::Numeric(Numerics::new(sql_type)),
            SqlType::Text | SqlType::Varchar(None) => text(TextKind::Text),
            SqlType::Varchar(Some(n)) => text(TextKind::Varchar(*n)),
            SqlType::Char(n) => text(TextKind::Char(*n)),
            SqlType::Uuid => text(TextKind::Uuid),
            SqlType::Json => text(TextKind::Json),
            SqlType::Jsonb => text(TextKind::Jsonb),
            SqlType::Bytea => Builder::Bytea(Views::new()),
            SqlType::Date => Builder::Date(Values::new()),
            SqlType::Time => Builder::Time(Values::new()),
            SqlType::Timestamp => Builder::Timestamp(Values::new()),
            SqlType::Timestamptz => Builder::Timestamptz(Values::new()),
            SqlType::Interval => Builder::Interval(Values::new()),
            SqlType::Array(element) => Builder::Array(Box::new(Lists::new(element))),
            SqlType::Struct(fields) => Builder::Struct(Box::new(Structs::new(fields))),
        }
    }

    /// The same for a column that nobody reads: values are checked and counted, strings are not kept. `finish` is then
    /// not for it; it is emptied by `truncate(0)`.
    #[must_use]
    pub(crate) fn unread(mut self) -> Builder {
        match &mut self {
            Builder::Text(b, _) => b.is_kept = false,
            Builder::Bytea(b) => b.is_kept = false,
            Builder::Array(b) => {
                let element = mem::replace(&mut b.element, Builder::Null(0));
                b.element = element.unread();
            }
            Builder::Struct(b) => b.fields.iter_mut().for_each(|f| {
                let field = mem::replace(&mut f.builder, Builder::Null(0));
                f.builder = field.unread();
            }),
            _ => {}
        }
        self
    }

    /// Rows so far.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Builder::Null(len) => *len,
            Builder::Bool(b) => b.valid.len(),
            Builder::Int2(b) => b.values.len(),
            Builder::Int4(b) => b.values.len(),
            Builder::Int8(b) => b.values.len(),
            Builder::Float4(b) => b.values.len(),
            Builder::Float8(b) => b.values.len(),
            Builder::Numeric(b) => b.values.values.len(),
            Builder::Text(b, _) => b.len(),
            Builder::Bytea(b) => b.len(),
            Builder::Date(b) => b.values.len(),
            Builder::Time(b) => b.values.len(),
            Builder::Timestamp(b) | Builder::Timestamptz(b) => b.values.len(),
            Builder::Interval(b) => b.values.len(),
            Builder::Array(b) => b.valid.len(),
            Builder::Struct(b) => b.valid.len(),
        }
    }

    pub(crate) fn append_null(&mut self) {
        match self {
            Builder::Null(len) => *len += 1,
            Builder::Bool(b) => {
                b.values.append(false);
                b.valid.append_null();
            }
            Builder::Int2(b) => b.append_null(),
            Builder::Int4(b) => b.append_null(),
            Builder::Int8(b) => b.append_null(),
            Builder::Float4(b) => b.append_null(),
            Builder::Float8(b) => b.append_null(),
            Builder::Numeric(b) => b.values.append_null(),
            Builder::Text(b, _) => b.append_null(),
            Builder::Bytea(b) => b.append_null(),
            Builder::Date(b) => b.append_null(),
            Builder::Time(b) => b.append_null(),
            Builder::Timestamp(b) | Builder::Timestamptz(b) => b.append_null(),
            Builder::Interval(b) => b.append_null(),
            Builder::Array(b) => b.close_row(false),
            Builder::Struct(b) => {
                b.fields.iter_mut().for_each(|f| f.builder.append_null());
                b.valid.append_null();
            }
        }
    }

    /// Takes back all rows from the `len`th on, and what a failed row left behind it.
    pub(crate) fn truncate(&mut self, len: usize) {
        match self {
            Builder::Null(n) => *n = len.min(*n),
            Builder::Bool(b) => {
                if b.values.len() > len {
                    b.values.truncate(len);
                }
                b.valid.truncate(len);
            }
            Builder::Int2(b) => b.truncate(len),
            Builder::Int4(b) => b.truncate(len),
            Builder::Int8(b) => b.truncate(len),
            Builder::Float4(b) => b.truncate(len),
            Builder::Float8(b) => b.truncate(len),
            Builder::Numeric(b) => b.values.truncate(len),
            Builder::Text(b, _) => b.truncate(len),
            Builder::Bytea(b) => b.truncate(len),
            Builder::Date(b) => b.truncate(len),
            Builder::Time(b) => b.truncate(len),
            Builder::Timestamp(b) | Builder::Timestamptz(b) => b.truncate(len),
            Builder::Interval(b) => b.truncate(len),
            Builder::Array(b) => b.truncate(len),
            Builder::Struct(b) => {
                b.fields.iter_mut().for_each(|f| f.builder.truncate(len));
                b.valid.truncate(len);
            }
        }
    }

    /// The array, of exactly `sql_type`'s Arrow type; the builder is empty afterwards.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef> {
        Ok(match self {
            Builder::Null(len) => Arc::new(NullArray::new(mem::take(len))),
            Builder::Bool(b) => Arc::new(BooleanArray::new(b.values.finish(), b.valid.finish())),
            Builder::Int2(b) => Arc::new(b.finish()?),
            Builder::Int4(b) => Arc::new(b.finish()?),
            Builder::Int8(b) => Arc::new(b.finish()?),
            Builder::Float4(b) => Arc::new(b.finish()?),
            Builder::Float8(b) => Arc::new(b.finish()?),
            Builder::Numeric(b) => Arc::new(b.values.finish()?.with_precision_and_scale(b.precision, b.scale)?),
            Builder::Text(b, _) => b.finish()?,
            Builder::Bytea(b) => b.finish()?,
            Builder::Date(b) => Arc::new(b.finish()?),
            Builder::Time(b) => Arc::new(b.finish()?),
            Builder::Timestamp(b) => Arc::new(b.finish()?),
            Builder::Timestamptz(b) => Arc::new(b.finish()?.with_timezone("UTC")),
            Builder::Interval(b) => Arc::new(b.finish()?),
            Builder::Array(b) => b.finish()?,
            Builder::Struct(b) => b.finish()?,
        })
    }

    /// The type, as messages call it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Builder::Null(_) => "null",
            Builder::Bool(_) => "boolean",
            Builder::Int2(_) => "smallint",
            Builder::Int4(_) => "integer",
            Builder::Int8(_) => "bigint",
            Builder::Float4(_) => "real",
            Builder::Float8(_) => "double precision",
            Builder::Numeric(_) => "numeric",
            Builder::Text(_, kind) => kind.type_name(),
            Builder::Bytea(_) => "bytea",
            Builder::Date(_) => "date",
            Builder::Time(_) => "time",
            Builder::Timestamp(_) => "timestamp",
            Builder::Timestamptz(_) => "timestamp with time zone",
            Builder::Interval(_) => "interval",
            Builder::Array(_) => "array",
            Builder::Struct(_) => "struct",
        }
    }

    /// Appends a value written as text, as PostgreSQL's input functions read it. JSON types, arrays and structs are
    /// not for here: their text is JSON.
    pub(crate) fn append_text(&mut self, text: &str) -> Outcome<()> {
        let name = self.type_name();
        let read = match self {
            Builder::Text(views, kind) => return append_string(views, *kind, text),
            Builder::Bool(b) => text::boolean(text).map(|v| b.append(v)),
            Builder::Int2(b) => text::integer(text).and_then(|v| b.append_integer(v)),
            Builder::Int4(b) => text::integer(text).and_then(|v| b.append_integer(v)),
            Builder::Int8(b) => text::integer(text).map(|v| b.append(v)),
            Builder::Float4(b) => text::float::<f32>(text).map(|v| b.append(v)),
            Builder::Float8(b) => text::float::<f64>(text).map(|v| b.append(v)),
            Builder::Numeric(b) => text::decimal(text, b.precision, b.scale).map(|v| b.values.append(v)),
            Builder::Bytea(b) => text::bytea(text).map(|v| b.append(&v)),
            Builder::Date(b) => text::date(text).map(|v| b.append(v)),
            Builder::Time(b) => text::time_of_day(text).map(|v| b.append(v)),
            Builder::Timestamp(b) => text::timestamp(text, text::Offset::Ignored).map(|v| b.append(v)),
            Builder::Timestamptz(b) => text::timestamp(text, text::Offset::Applied).map(|v| b.append(v)),
            Builder::Interval(b) => text::interval(text).map(|v| b.append(v)),
            Builder::Null(_) | Builder::Array(_) | Builder::Struct(_) => Err(text::Wrong::Syntax),
        };
        read.map_err(|wrong| match wrong {
            text::Wrong::Syntax => wrong_syntax(name, text),
            text::Wrong::Range => out_of_range(name, text),
        })
    }
}

impl TextKind {
    fn type_name(self) -> &'static str {
        match self {
            TextKind::Text => "text",
            TextKind::Varchar(_) => "character varying",
            TextKind::Char(_) => "character",
            TextKind::Uuid => "uuid",
            TextKind::Json => "json",
            TextKind::Jsonb => "jsonb",
        }
    }
}

/// Appends to a string column what its kind makes of a text.
#[inline]
pub(crate) fn append_string(views: &mut Views<StringViewType>, kind: TextKind, text: &str) -> Outcome<()> {
    if kind == TextKind::Text {
        views.append(text);
        return Ok(());
    }
    append_checked_string(views, kind, text)
}

fn append_checked_string(views: &mut Views<StringViewType>, kind: TextKind, text: &str) -> Outcome<()> {
    match kind {
        TextKind::Text => views.append(text),
        TextKind::Varchar(n) => views.append(within(text, n, "character varying")?.0),
        TextKind::Char(n) => {
            let (text, n_missing) = within(text, n, "character")?;
            views.append(&format!("{text}{:n_missing$}", ""));
        }
        TextKind::Uuid => match text::uuid(text) {
            Ok(uuid) => views.append(&uuid),
            Err(_) => return Err(wrong_syntax("uuid", text)),
        },
        TextKind::Json => {
            crate::format::check_json(text)?;
            views.append(text);
        }
        TextKind::Jsonb => views.append(&crate::format::jsonb_text(text)?),
    }
    Ok(())
}

/// The text without the blanks that are over `n_max` characters, and how many characters it is short of them.
fn within<'a>(text: &'a str, n_max: u32, type_name: &str) -> Outcome<(&'a str, usize)> {
    let n_max = n_max as usize;
    let (end, n_chars) = match text.char_indices().nth(n_max) {
        None => (text.len(), text.chars().count()),
        Some((end, _)) => (end, n_max),
    };
    let (kept, over) = text.split_at_checked(end).unwrap_or((text, ""));
    if over.bytes().any(|b| b != b' ') {
        return Err(bad(format!("value too long for type {type_name}({n_max})")));
    }
    Ok((kept, n_max - n_chars))
}

/// Values of a fixed width.
#[derive(Debug)]
pub(crate) struct Values<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    valid: NullBufferBuilder,
}

impl<T: ArrowPrimitiveType> Values<T> {
    fn new() -> Values<T> {
        Values { values: Vec::new(), valid: NullBufferBuilder::new(0) }
    }

    #[inline]
    pub(crate) fn append(&mut self, value: T::Native) {
        self.values.push(value);
        self.valid.append_non_null();
    }

    /// Appends an integer if the column's type can hold it.
    #[inline]
    pub(crate) fn append_integer(&mut self, value: i64) -> Result<(), text::Wrong>
    where
        T::Native: TryFrom<i64>,
    {
        self.append(T::Native::try_from(value).map_err(|_| text::Wrong::Range)?);
        Ok(())
    }

    fn append_null(&mut self) {
        self.values.push(T::Native::ZERO);
        self.valid.append_null();
    }

    fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.valid.truncate(len);
    }

    fn finish(&mut self) -> Result<PrimitiveArray<T>> {
        let next = Vec::with_capacity(self.values.len());
        let values = ScalarBuffer::from(mem::replace(&mut self.values, next));
        Ok(PrimitiveArray::try_new(values, self.valid.finish())?)
    }
}

/// Booleans, one bit each.
#[derive(Debug)]
pub(crate) struct Bools {
    values: BooleanBufferBuilder,
    valid: NullBufferBuilder,
}

impl Bools {
    fn new() -> Bools {
        Bools { values: BooleanBufferBuilder::new(0), valid: NullBufferBuilder::new(0) }
    }

    #[inline]
    pub(crate) fn append(&mut self, value: bool) {
        self.values.append(value);
        self.valid.append_non_null();
    }
}

/// Exact numbers of one precision and scale.
#[derive(Debug)]
pub(crate) struct Numerics {
    pub(crate) values: Values<Decimal128Type>,
    pub(crate) precision: u8,
    pub(crate) scale: i8,
}

impl Numerics {
    fn new(sql_type: &SqlType) -> Numerics {
        let (precision, scale) = match sql_type.data_type() {
            DataType::Decimal128(precision, scale) => (precision, scale),
            _ => (38, 0),
        };
        Numerics { values: Values::new(), precision, scale }
    }
}

/// Strings or bytes. A view cannot be taken back from Arrow's builder: `dropped` says which ones `finish` leaves out.
pub(crate) struct Views<T: ByteViewType + ?Sized> {
    builder: GenericByteViewBuilder<T>,
    /// Else values are only counted.
    is_kept: bool,
    n_appended: usize,
    dropped: Vec<Range<usize>>,
    n_dropped: usize,
}

// Arrow's marker types have no Debug of their own.
impl<T: ByteViewType + ?Sized> fmt::Debug for Views<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Views").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<T: ByteViewType + ?Sized> Views<T> {
    fn new() -> Views<T> {
        Views { builder: GenericByteViewBuilder::new(), is_kept: true, n_appended: 0, dropped: vec![], n_dropped: 0 }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.n_appended - self.n_dropped
    }

    #[inline]
    pub(crate) fn append(&mut self, value: &T::Native) {
        if self.is_kept {
            self.builder.append_value(value);
        }
        self.n_appended += 1;
    }

    fn append_null(&mut self) {
        if self.is_kept {
            self.builder.append_null();
        }
        self.n_appended += 1;
    }

    /// Drops the last rows: walks back from the end over rows still there, merging the ranges dropped before.
    fn truncate(&mut self, len: usize) {
        let mut n_left = self.len().saturating_sub(len);
        if n_left == 0 {
            return;
        }
        if !self.is_kept {
            self.n_appended = len;
            return;
        }
        let mut start = self.n_appended;
        loop {
            let before = self.dropped.last().map_or(0, |range| range.end);
            if before == start && start > 0 {
                if let Some(range) = self.dropped.pop() {
                    self.n_dropped -= range.len();
                    start = range.start;
                }
                continue;
            }
            if n_left == 0 {
                break;
            }
            let n_step = n_left.min(start - before);
            start -= n_step;
            n_left -= n_step;
        }
        self.n_dropped += self.n_appended - start;
        self.dropped.push(start..self.n_appended);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let all: ArrayRef = Arc::new(self.builder.finish());
        let n_appended = mem::take(&mut self.n_appended);
        if mem::take(&mut self.n_dropped) == 0 {
            return Ok(all);
        }
        let mut keep = BooleanBufferBuilder::new(n_appended);
        for range in self.dropped.drain(..) {
            keep.append_n(range.start - keep.len(), true);
            keep.append_n(range.len(), false);
        }
        keep.append_n(n_appended - keep.len(), true);
        Ok(arrow::compute::filter(&all, &BooleanArray::new(keep.finish(), None))?)
    }
}

/// Arrays: the elements of all rows, and where each row's end.
#[derive(Debug)]
pub(crate) struct Lists {
    pub(crate) element: Builder,
    ends: Vec<i32>,
    valid: NullBufferBuilder,
    field: Arc<Field>,
}

impl Lists {
    fn new(element: &SqlType) -> Lists {
        Lists {
            element: Builder::new(element),
            ends: vec![],
            valid: NullBufferBuilder::new(0),
            field: Arc::new(element.field("item", true)),
        }
    }

    /// The elements appended since the last row are the next row.
    pub(crate) fn close_row(&mut self, valid: bool) {
        // A batch of more than i32::MAX elements would need records of more bytes than a batch may have.
        self.ends.push(i32::try_from(self.element.len()).unwrap_or(i32::MAX));
        self.valid.append(valid);
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.valid.truncate(len);
        self.element.truncate(self.ends.last().map_or(0, |end| *end as usize));
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let mut offsets = Vec::with_capacity(self.ends.len() + 1);
        offsets.push(0);
        offsets.append(&mut self.ends);
        let values = self.element.finish()?;
        if values.len() > i32::MAX as usize {
            return Err(SqlError::internal("more array elements in one batch than it can number"));
        }
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        Ok(Arc::new(ListArray::try_new(self.field.clone(), offsets, values, self.valid.finish())?))
    }
}

/// One named field of a struct, or one column of a record.
#[derive(Debug)]
pub(crate) struct NamedBuilder {
    pub(crate) name: String,
    pub(crate) builder: Builder,
}

/// Structs: a builder for each field, in step.
#[derive(Debug)]
pub(crate) struct Structs {
    pub(crate) fields: Vec<NamedBuilder>,
    /// The keys that the last JSON object had here.
    pub(crate) keys: Keys,
    pub(crate) valid: NullBufferBuilder,
    arrow_fields: Fields,
}

impl Structs {
    fn new(fields: &[(String, SqlType)]) -> Structs {
        let builders: Vec<NamedBuilder> =
            fields.iter().map(|(name, t)| NamedBuilder { name: name.clone(), builder: Builder::new(t) }).collect();
        Structs {
            keys: Keys::new(fields.iter().map(|(name, _)| name.as_str())),
            fields: builders,
            valid: NullBufferBuilder::new(0),
            arrow_fields: fields.iter().map(|(name, t)| t.field(name, true)).collect(),
        }
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let len = self.valid.len();
        let arrays = self.fields.iter_mut().map(|f| f.builder.finish()).collect::<Result<Vec<_>>>()?;
        let (fields, valid) = (self.arrow_fields.clone(), self.valid.finish());
        Ok(Arc::new(StructArray::try_new_with_length(fields, arrays, valid, len)?))
    }
}

/// An interval, in PostgreSQL's three parts.
pub(crate) fn interval(months: i32, days: i32, nanoseconds: i64) -> IntervalMonthDayNano {
    IntervalMonthDayNano::new(months, days, nanoseconds)
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Appending and taking back in any order is the same as on a vector.
        #[test]
        fn views_taken_back_are_gone(steps in prop::collection::vec((0..4usize, 0..40usize), 0..60)) {
            let mut views = Views::<StringViewType>::new();
            let mut model: Vec<Option<String>> = vec![];
            for (what, n) in steps {
                match what {
                    0 => { views.append_null(); model.push(None); }
                    1 | 2 => {
                        let text = "x".repeat(n);
                        views.append(&text);
                        model.push(Some(text));
                    }
                    _ => { let len = n % (model.len() + 1); views.truncate(len); model.truncate(len); }
                }
                prop_assert_eq!(views.len(), model.len());
            }
            let array = views.finish().unwrap();
            let found: Vec<_> = array.as_string_view().iter().map(|s| s.map(str::to_string)).collect();
            prop_assert_eq!(found, model);
        }
    }

    #[test]
    fn a_half_filled_struct_in_an_array_is_taken_back() {
        let element = SqlType::Struct(vec![("a".into(), SqlType::Int4), ("b".into(), SqlType::Text)]);
        let mut builder = Builder::new(&SqlType::Array(Box::new(element)));
        builder.append_null();
        if let Builder::Array(lists) = &mut builder
            && let Builder::Struct(structs) = &mut lists.element
        {
            structs.fields[0].builder.append_text("7").unwrap();
        }
        builder.truncate(1);
        builder.append_null();
        let array = builder.finish().unwrap();
        assert_eq!((array.len(), array.null_count()), (2, 2));
    }
}
