//! Rows as bytes: Arrow's IPC, so that any Arrow reader can look into a file or a record.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow_ipc::CompressionType;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use tidewire_types::Result;

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

/// A whole file of rows, compressed.
pub fn write_file(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD))?;
    let mut writer = FileWriter::try_new_with_options(vec![], schema, options)?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?)
}

/// The batches of what `write_file` wrote.
pub fn read_file(bytes: &[u8]) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
    let reader = FileReader::try_new(Cursor::new(bytes), None)?;
    Ok(reader.map(|batch| Ok(batch?)))
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryViewArray, Int32Array, ListBuilder, StringViewArray, StringViewBuilder};
    use arrow::datatypes::{Field, Schema};

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
    fn a_row_of_many_takes_only_its_own_strings() {
        let row = rows().slice(501, 1);
        let compact = compact(&row).unwrap();
        assert_eq!(compact, row);
        let mut bytes = vec![];
        write_rows(&compact, &mut bytes).unwrap();
        assert!(bytes.len() < 4000, "{} bytes", bytes.len());
    }
}
