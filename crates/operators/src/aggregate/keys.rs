//! Group keys as rows of 64-bit words.
//!
//! Every column becomes one word (numbers, dates, times, booleans), two (128-bit values) or two that describe bytes
//! (strings): the length and the first four bytes, then eight more bytes where the value has at most twelve. Longer
//! values lie in the [`Arena`], and the second word says where. NULL is a bit of a mask of its own. What does not fit
//! this (nested types, more than 32 columns) is turned into one value of bytes by arrow-row.
//!
//! Invariant: two keys are equal exactly if their masks and words are, and the bytes of long values.
#![expect(clippy::indexing_slicing, reason = "hot loops; offsets and widths are laid out once, by this file")]

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BinaryViewBuilder};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use arrow::row::{RowConverter, SortField};
use tidewire_types::{Result, SqlError};

use super::arena::Arena;
use super::words::{from_raw_words, from_wide_words, is_wide, is_word, raw_words, wide_words};

/// Longest value of bytes that needs no place in the arena.
const INLINE_BYTES: u64 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Word,
    Wide,
    Bytes,
}

struct KeyColumn {
    kind: Kind,
    data_type: DataType,
    /// First word, from the start of the key.
    offset: usize,
}

/// How the keys of one aggregate become words.
pub(super) struct Keys {
    columns: Vec<KeyColumn>,
    n_words: usize,
    has_bytes: bool,
    /// All key columns in one value of bytes.
    rows: Option<(RowConverter, Vec<DataType>)>,
}

/// The keys of a batch.
pub(super) struct EncodedKeys {
    /// `n_words` a row.
    pub(super) words: Vec<u64>,
    /// Bit `c` of a row's mask: column `c` is NULL. Empty where nothing is.
    pub(super) nulls: Vec<u32>,
    /// The values of the columns of bytes, by column.
    bytes: Vec<Option<BinaryViewArray>>,
}

impl EncodedKeys {
    #[inline]
    pub(super) fn mask(&self, row_idx: usize) -> u32 {
        if self.nulls.is_empty() { 0 } else { self.nulls[row_idx] }
    }

    fn bytes(&self, column_idx: usize, row_idx: usize) -> &[u8] {
        self.bytes.get(column_idx).and_then(Option::as_ref).map_or(&[], |b| b.value(row_idx))
    }
}

#[inline]
fn is_long(word: u64) -> bool {
    word & u64::from(u32::MAX) > INLINE_BYTES
}

impl Keys {
    /// Errors: `0A000` for types that cannot be keys.
    pub(super) fn new(fields: &[&Field]) -> Result<Keys> {
        let types: Vec<DataType> = fields.iter().map(|f| f.data_type().clone()).collect();
        let is_plain = |t: &DataType| is_word(t) || is_wide(t) || is_bytes(t);
        let (types, rows) = if types.len() <= 32 && types.iter().all(is_plain) {
            (types, None)
        } else {
            let converter = RowConverter::new(types.iter().cloned().map(SortField::new).collect());
            let converter =
                converter.map_err(|e| SqlError::unsupported("GROUP BY of such a type").with_detail(e.to_string()))?;
            (vec![DataType::Binary], Some((converter, types)))
        };
        let mut columns = vec![];
        let mut n_words = 0;
        for data_type in types {
            let kind = match &data_type {
                t if is_word(t) => Kind::Word,
                t if is_wide(t) => Kind::Wide,
                _ => Kind::Bytes,
            };
            columns.push(KeyColumn { kind, data_type, offset: n_words });
            n_words += if kind == Kind::Word { 1 } else { 2 };
        }
        let has_bytes = columns.iter().any(|c| c.kind == Kind::Bytes);
        Ok(Keys { columns, n_words, has_bytes, rows })
    }

    /// Words of one key.
    pub(super) fn n_words(&self) -> usize {
        self.n_words
    }

    /// Whether some value may lie in the arena.
    pub(super) fn has_bytes(&self) -> bool {
        self.has_bytes
    }

    /// Encodes the key columns of a batch. They have the types of the fields that `new` was given.
    pub(super) fn encode(&self, columns: &[ArrayRef], n_rows: usize) -> Result<EncodedKeys> {
        let packed: Vec<ArrayRef>;
        let columns = match &self.rows {
            None => columns,
            Some((converter, _)) => {
                let rows = converter.convert_columns(columns)?;
                packed = vec![std::sync::Arc::new(BinaryArray::from_iter_values(rows.iter().map(|r| r.data())))];
                &packed
            }
        };
        if let ([KeyColumn { kind: Kind::Word, .. }], [column]) = (&self.columns[..], columns)
            && column.null_count() == 0
        {
            return Ok(EncodedKeys { words: raw_words(column)?, nulls: vec![], bytes: vec![] });
        }
        let mut keys = EncodedKeys { words: vec![0; n_rows * self.n_words], nulls: vec![], bytes: vec![] };
        for (column_idx, (spec, column)) in self.columns.iter().zip(columns).enumerate() {
            self.encode_column(spec, column, &mut keys)?;
            if let Some(nulls) = column.nulls().filter(|n| n.null_count() > 0) {
                keys.nulls.resize(n_rows, 0);
                for row_idx in (0..n_rows).filter(|idx| nulls.is_null(*idx)) {
                    keys.nulls[row_idx] |= 1 << column_idx;
                    let start = row_idx * self.n_words + spec.offset;
                    keys.words[start..start + if spec.kind == Kind::Word { 1 } else { 2 }].fill(0);
                }
            }
        }
        Ok(keys)
    }

    fn encode_column(&self, spec: &KeyColumn, column: &ArrayRef, keys: &mut EncodedKeys) -> Result<()> {
        let rows = keys.words.chunks_exact_mut(self.n_words);
        match spec.kind {
            Kind::Word => rows.zip(raw_words(column)?).for_each(|(row, word)| row[spec.offset] = word),
            Kind::Wide => rows.zip(wide_words(column)?).for_each(|(row, wide)| {
                row[spec.offset] = wide as u64;
                row[spec.offset + 1] = (wide >> 64) as u64;
            }),
            Kind::Bytes => {
                let bytes = cast(column, &DataType::BinaryView)?.as_binary_view().clone();
                for (row, view) in rows.zip(bytes.views().iter()) {
                    // A view's first half is the length and four bytes, as here.
                    row[spec.offset] = *view as u64;
                    row[spec.offset + 1] = if is_long(*view as u64) { 0 } else { (view >> 64) as u64 };
                }
                keys.bytes.resize(self.columns.len(), None);
                if let Some(place) = self.columns.iter().position(|c| c.offset == spec.offset) {
                    keys.bytes[place] = Some(bytes);
                }
            }
        }
        Ok(())
    }

    /// Whether row `row_idx` of `keys` is the key that `words` holds (its mask apart).
    #[inline]
    pub(super) fn equal(&self, keys: &EncodedKeys, row_idx: usize, words: &[u64], arena: &Arena) -> bool {
        let row = &keys.words[row_idx * self.n_words..(row_idx + 1) * self.n_words];
        if !self.has_bytes {
            return row == words;
        }
        self.columns.iter().enumerate().all(|(column_idx, column)| {
            let at = column.offset;
            if row[at] != words[at] {
                return false;
            }
            match column.kind {
                Kind::Word => true,
                Kind::Bytes if is_long(row[at]) => {
                    arena.get(words[at + 1], length(row[at])) == keys.bytes(column_idx, row_idx)
                }
                _ => row[at + 1] == words[at + 1],
            }
        })
    }

    /// Writes the key of a new group into `words`.
    pub(super) fn store(&self, keys: &EncodedKeys, row_idx: usize, words: &mut [u64], arena: &mut Arena) {
        words.copy_from_slice(&keys.words[row_idx * self.n_words..(row_idx + 1) * self.n_words]);
        for (column_idx, column) in self.columns.iter().enumerate().filter(|(_, c)| c.kind == Kind::Bytes) {
            if is_long(words[column.offset]) {
                words[column.offset + 1] = arena.push(keys.bytes(column_idx, row_idx));
            }
        }
    }

    /// Forgets the key of a group that is gone.
    pub(super) fn forget(&self, words: &mut [u64], arena: &mut Arena) {
        for column in self.columns.iter().filter(|c| c.kind == Kind::Bytes) {
            if is_long(words[column.offset]) {
                arena.forget(length(words[column.offset]));
            }
        }
        words.fill(0);
    }

    /// Moves the long values of a key from one arena to another.
    pub(super) fn relocate(&self, words: &mut [u64], from: &Arena, to: &mut Arena) {
        for column in self.columns.iter().filter(|c| c.kind == Kind::Bytes) {
            if is_long(words[column.offset]) {
                words[column.offset + 1] = to.push(from.get(words[column.offset + 1], length(words[column.offset])));
            }
        }
    }

    /// The key columns of groups. `rows` holds `width` words a group: the header, whose upper half is the mask, then
    /// the key.
    pub(super) fn decode(&self, rows: &[u64], width: usize, arena: &Arena) -> Result<Vec<ArrayRef>> {
        let columns = self.columns.iter().enumerate().map(|(idx, c)| decode_column(idx, c, rows, width, arena));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let (Some((converter, types)), [packed]) = (&self.rows, &columns[..]) else { return Ok(columns) };
        let parser = converter.parser();
        let packed = packed.as_binary::<i32>();
        let columns = converter.convert_rows(packed.iter().map(|row| parser.parse(row.unwrap_or_default())))?;
        Ok(columns.iter().zip(types).map(|(c, t)| cast(c, t)).collect::<Result<_, _>>()?)
    }
}

fn length(word: u64) -> usize {
    (word & u64::from(u32::MAX)) as usize
}

fn is_bytes(data_type: &DataType) -> bool {
    use DataType as T;
    matches!(data_type, T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Binary | T::LargeBinary | T::BinaryView)
}

fn decode_column(idx: usize, column: &KeyColumn, rows: &[u64], width: usize, arena: &Arena) -> Result<ArrayRef> {
    let rows = || rows.chunks_exact(width);
    let is_null = |row: &[u64]| row[0] >> (32 + idx) & 1 == 1;
    let nulls = rows().any(is_null).then(|| rows().map(|r| !is_null(r)).collect::<NullBuffer>());
    // The key starts behind the header.
    let at = column.offset + 1;
    match column.kind {
        Kind::Word => from_raw_words(&column.data_type, rows().map(|r| r[at]).collect(), nulls),
        Kind::Wide => {
            let wide = rows().map(|r| u128::from(r[at]) | u128::from(r[at + 1]) << 64).collect();
            from_wide_words(&column.data_type, wide, nulls)
        }
        Kind::Bytes => {
            let mut builder = BinaryViewBuilder::with_capacity(rows().len());
            for row in rows() {
                if is_null(row) {
                    builder.append_null();
                } else if is_long(row[at]) {
                    builder.append_value(arena.get(row[at + 1], length(row[at])));
                } else {
                    let view = u128::from(row[at]) | u128::from(row[at + 1]) << 64;
                    builder.append_value(&view.to_le_bytes()[4..4 + length(row[at])]);
                }
            }
            Ok(from_binary_view(builder.finish(), &column.data_type)?)
        }
    }
}

/// Bytes that came from strings become strings again.
fn from_binary_view(bytes: BinaryViewArray, data_type: &DataType) -> Result<ArrayRef> {
    let column: ArrayRef = std::sync::Arc::new(bytes);
    Ok(cast(&column, data_type)?)
}
