//! Rows as bytes: Arrow's IPC, so that any Arrow reader can look into a file or a record.
//!
//! A file has each column of whole numbers in the narrowest type that holds its values, and one of NULLs in none: that makes
//! keys and counters as small as compression would, in a fraction of its time. Only a file that has much else is compressed
//! too.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericByteArray, ListArray, RecordBatch, RecordBatchOptions, StructArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, max, min};
use arrow::datatypes::{ByteArrayType, DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, UInt64Type};
use arrow_ipc::CompressionType;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use tidewire_types::{Delta, Result};

/// Copies what the rows' strings show, where they are views into blocks with much more: a row that came out of a large
/// table would otherwise take all of the table's blocks along.
pub fn compact(rows: &RecordBatch) -> Result<RecordBatch> {
    let columns = rows.columns().iter().map(compact_array).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(rows.schema(), columns, &options)?)
}

fn compact_array(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        DataType::List(field) => {
            let list = array.as_list::<i32>();
            // A slice of a list array has the values of all of it.
            let first = list.value_offsets().first().copied().unwrap_or(0);
            let last = list.value_offsets().last().copied().unwrap_or(0);
            let values = list.values().slice(first as usize, (last - first) as usize);
            let offsets = list.value_offsets().iter().map(|offset| offset - first).collect::<Vec<i32>>();
            let offsets = arrow::buffer::OffsetBuffer::new(offsets.into());
            Arc::new(ListArray::try_new(field.clone(), offsets, compact_array(&values)?, list.nulls().cloned())?)
        }
        DataType::Struct(fields) if !fields.is_empty() => {
            let parts = array.as_struct();
            let columns = parts.columns().iter().map(compact_array).collect::<Result<Vec<_>>>()?;
            Arc::new(StructArray::try_new(fields.clone(), columns, parts.nulls().cloned())?)
        }
        _ => array.clone(),
    })
}

/// Appends rows to bytes, with their schema.
pub fn write_rows(rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
    let mut writer = StreamWriter::try_new(out, rows.schema_ref())?;
    writer.write(rows)?;
    Ok(writer.finish()?)
}

/// What `write_rows` wrote.
pub fn read_rows(bytes: &[u8]) -> Result<RecordBatch> {
    let reader = StreamReader::try_new(Cursor::new(bytes), None)?;
    let schema = reader.schema();
    let batches = reader.collect::<std::result::Result<Vec<_>, _>>()?;
    match batches.as_slice() {
        [batch] => Ok(batch.clone()),
        batches => Ok(arrow::compute::concat_batches(&schema, batches)?),
    }
}

/// A field of a file that was narrowed says here which type it had.
const TYPE: &str = "tidewire.type";
/// Bytes of a file beside its columns, about.
const FILE_OVERHEAD_BYTES: usize = 1 << 12;
/// A file is compressed where its columns that could not be narrowed have at least one in so many of its bytes.
const BYTES_PER_COMPRESSIBLE: usize = 4;

/// A whole file of rows.
pub fn write_file(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let n_rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let (mut fields, mut n_narrow, mut n_other) = (vec![], 0, 0);
    for (idx, field) in schema.fields().iter().enumerate() {
        let columns = || batches.iter().filter_map(|batch| batch.columns().get(idx));
        match narrowest(columns(), field.data_type()) {
            Some(narrow) => {
                n_narrow += n_rows * narrow.primitive_width().unwrap_or(0);
                let mut metadata = field.metadata().clone();
                metadata.insert(TYPE.to_string(), field.data_type().to_string());
                fields.push(Arc::new(Field::clone(field).with_data_type(narrow).with_metadata(metadata)));
            }
            None => {
                n_other += columns().map(array_bytes).sum::<usize>();
                fields.push(field.clone());
            }
        }
    }
    let narrow = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let is_compressed = n_other * BYTES_PER_COMPRESSIBLE >= n_narrow + n_other;
    let compression = is_compressed.then_some(CompressionType::LZ4_FRAME);
    let options = IpcWriteOptions::default().try_with_compression(compression)?;
    let bytes = Vec::with_capacity(n_narrow + n_other / if is_compressed { 2 } else { 1 } + FILE_OVERHEAD_BYTES);
    let mut writer = FileWriter::try_new_with_options(bytes, &narrow, options)?;
    for batch in batches {
        writer.write(&with_types(batch, &narrow)?)?;
    }
    Ok(writer.into_inner()?)
}

/// The batches of what `write_file` wrote.
pub fn read_file(bytes: &[u8]) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
    let reader = FileReader::try_new(Cursor::new(bytes), None)?;
    let written = reader.schema();
    let fields = written.fields().iter().map(|field| {
        let mut metadata = field.metadata().clone();
        let Some(wide) = metadata.remove(TYPE) else { return field.clone() };
        let wide = wide.parse().unwrap_or(field.data_type().clone());
        Arc::new(Field::clone(field).with_data_type(wide).with_metadata(metadata))
    });
    let schema = Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), written.metadata().clone()));
    Ok(reader.map(move |batch| with_types(&batch?, &schema)))
}

/// The narrowest type that holds all values of some columns, where it is narrower than theirs.
fn narrowest<'a>(columns: impl Iterator<Item = &'a ArrayRef> + Clone, of: &DataType) -> Option<DataType> {
    use DataType as T;
    let is_null = |column: &ArrayRef| column.null_count() == column.len();
    if columns.clone().next().is_some()
        && columns.clone().all(is_null)
        && of.to_string().parse().ok().as_ref() == Some(of)
    {
        return Some(T::Null);
    }
    // No value needs the narrowest.
    let (mut least, mut greatest) = (0_i64, 0_i64);
    for column in columns {
        let (low, high) = match of {
            T::Int32 => {
                let column = column.as_primitive_opt::<Int32Type>()?;
                (min(column).map(i64::from), max(column).map(i64::from))
            }
            T::Int64 => {
                let column = column.as_primitive_opt::<Int64Type>()?;
                (min(column), max(column))
            }
            T::UInt64 => {
                let greatest = max(column.as_primitive_opt::<UInt64Type>()?).unwrap_or(0);
                (Some(0), Some(i64::try_from(greatest).ok()?))
            }
            _ => return None,
        };
        (least, greatest) = (least.min(low.unwrap_or(0)), greatest.max(high.unwrap_or(0)));
    }
    let fits = |low: i64, high: i64| low <= least && greatest <= high;
    let narrow = match of {
        T::UInt64 if fits(0, u8::MAX.into()) => T::UInt8,
        T::UInt64 if fits(0, u16::MAX.into()) => T::UInt16,
        T::UInt64 if fits(0, u32::MAX.into()) => T::UInt32,
        T::Int32 | T::Int64 if fits(i8::MIN.into(), i8::MAX.into()) => T::Int8,
        T::Int32 | T::Int64 if fits(i16::MIN.into(), i16::MAX.into()) => T::Int16,
        T::Int64 if fits(i32::MIN.into(), i32::MAX.into()) => T::Int32,
        _ => return None,
    };
    Some(narrow)
}

/// `rows` with the types of `schema`, which hold their values.
fn with_types(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let fit = |(column, field): (&ArrayRef, &Arc<Field>)| match (column.data_type(), field.data_type()) {
        (from, to) if from == to => Ok(column.clone()),
        (DataType::Null, to) | (_, to @ DataType::Null) => Ok(new_null_array(to, column.len())),
        (_, to) => cast_with_options(column, to, &options),
    };
    let columns = rows.columns().iter().zip(schema.fields()).map(fit).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// Bytes of the rows themselves: what they share with others is not counted.
pub fn delta_bytes(delta: &Delta) -> usize {
    let weights = delta.weights().map_or(0, |weights| weights.len() * size_of::<i64>());
    batch_bytes(delta.rows()) + weights
}

/// As [`delta_bytes`].
pub fn batch_bytes(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(array_bytes).sum()
}

fn array_bytes(array: &ArrayRef) -> usize {
    let views = |views: &[u128]| views.iter().map(|view| 16 + (*view as u32) as usize).sum();
    match array.data_type() {
        DataType::Utf8View => views(array.as_string_view().views()),
        DataType::BinaryView => views(array.as_binary_view().views()),
        DataType::Utf8 => byte_array_bytes(array.as_string::<i32>()),
        DataType::Binary => byte_array_bytes(array.as_binary::<i32>()),
        DataType::Struct(_) => array.as_struct().columns().iter().map(array_bytes).sum(),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            let (first, last) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
            let values = list.values().slice(first as usize, (last - first) as usize);
            array_bytes(&values) + size_of_val::<[i32]>(offsets)
        }
        other => other.primitive_width().unwrap_or(16) * array.len(),
    }
}

fn byte_array_bytes<T: ByteArrayType<Offset = i32>>(array: &GenericByteArray<T>) -> usize {
    let offsets = array.value_offsets();
    let (first, last) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
    (last - first) as usize + size_of_val::<[i32]>(offsets)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BinaryViewArray, Int32Array, Int64Array, ListBuilder, StringViewArray, StringViewBuilder, UInt64Array,
    };

    use super::*;

    fn rows() -> RecordBatch {
        let long = |idx: i32| format!("a text that is too long to be kept in a view, number {idx}");
        let texts: StringViewArray = (0..1000).map(|i| (i % 7 != 0).then(|| long(i))).collect();
        let bytes: BinaryViewArray = (0..1000).map(|i| Some(long(i).into_bytes())).collect();
        let mut lists = ListBuilder::new(StringViewBuilder::new());
        for i in 0..1000 {
            (0..i % 3).for_each(|_| lists.values().append_value(long(i)));
            lists.append(i % 5 != 0);
        }
        let lists = lists.finish();
        let parts = StructArray::from(vec![(
            Arc::new(Field::new("t", DataType::Utf8View, true)),
            Arc::new(texts.clone()) as ArrayRef,
        )]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from_iter_values(0..1000)),
            Arc::new(texts),
            Arc::new(bytes),
            Arc::new(lists),
            Arc::new(parts),
        ];
        let field = |(idx, c): (usize, &ArrayRef)| Field::new(format!("c{idx}"), c.data_type().clone(), true);
        let schema = Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>());
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    #[test]
    fn rows_come_back_from_bytes_and_files() {
        let rows = rows();
        let mut bytes = vec![];
        write_rows(&rows, &mut bytes).unwrap();
        assert_eq!(read_rows(&bytes).unwrap(), rows);
        let file = write_file(&rows.schema(), &[rows.slice(0, 400), rows.slice(400, 600)]).unwrap();
        assert!(file.len() < bytes.len() / 2, "compressed: {} of {}", file.len(), bytes.len());
        let read = read_file(&file).unwrap().collect::<Result<Vec<_>>>().unwrap();
        assert_eq!(arrow::compute::concat_batches(&rows.schema(), &read).unwrap(), rows);
    }

    #[test]
    fn whole_numbers_are_narrow_in_files_and_wide_again() {
        let words = |greatest: u64| Arc::new(UInt64Array::from(vec![Some(3), None, Some(greatest)])) as ArrayRef;
        let longs = |v: [i64; 2]| Arc::new(Int64Array::from(vec![Some(v[0]), None, Some(v[1])])) as ArrayRef;
        let ints = |v: [i32; 2]| Arc::new(Int32Array::from(vec![Some(v[0]), Some(v[1]), None])) as ArrayRef;
        use DataType as T;
        let columns = [
            (words(255), T::UInt8),
            (words(256), T::UInt16),
            (words(u32::MAX.into()), T::UInt32),
            (words(1 << 32), T::UInt64),
            (words(u64::MAX), T::UInt64),
            (longs([-128, 127]), T::Int8),
            (longs([-129, 0]), T::Int16),
            (longs([0, 128]), T::Int16),
            (longs([i32::MIN.into(), 7]), T::Int32),
            (longs([7, 1 << 31]), T::Int64),
            (longs([i64::MIN, i64::MAX]), T::Int64),
            (ints([1, -1]), T::Int8),
            (ints([300, -1]), T::Int16),
            (ints([i32::MAX, i32::MIN]), T::Int32),
            (Arc::new(Int64Array::from(vec![None, None, None])), T::Null),
            (Arc::new(BinaryViewArray::from(vec![None::<&[u8]>, None, None])), T::Null),
        ];
        let field = |(idx, (c, _)): (usize, &(ArrayRef, T))| Field::new(format!("c{idx}"), c.data_type().clone(), true);
        let schema = Arc::new(Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>()));
        let rows = RecordBatch::try_new(schema.clone(), columns.iter().map(|(c, _)| c.clone()).collect()).unwrap();
        // The first batch alone would be narrower.
        let file = write_file(&schema, &[rows.slice(0, 1), rows.clone()]).unwrap();
        let plain = FileReader::try_new(Cursor::new(&file), None).unwrap();
        let types: Vec<T> = plain.schema().fields().iter().map(|f| f.data_type().clone()).collect();
        assert_eq!(types, columns.map(|(_, narrow)| narrow));
        let read = read_file(&file).unwrap().collect::<Result<Vec<_>>>().unwrap();
        assert_eq!(read, [rows.slice(0, 1), rows.clone()]);
        assert_eq!(read[0].schema(), schema);
        // As a version before this wrote it.
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD)).unwrap();
        let mut writer = FileWriter::try_new_with_options(vec![], &schema, options).unwrap();
        writer.write(&rows).unwrap();
        let read = read_file(&writer.into_inner().unwrap()).unwrap().collect::<Result<Vec<_>>>().unwrap();
        assert_eq!(read, [rows]);
    }

    #[test]
    fn a_row_of_many_takes_only_its_own_strings() {
        let row = rows().slice(501, 1);
        let compact = compact(&row).unwrap();
        assert_eq!(compact, row);
        let mut bytes = vec![];
        write_rows(&compact, &mut bytes).unwrap();
        assert!(bytes.len() < 4000, "{} bytes", bytes.len());
    }
}
