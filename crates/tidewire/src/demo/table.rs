//! Rows as a small table of text: left-aligned words, right-aligned numbers.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// The lines of the table: names, a rule, the rows.
pub fn lines(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<String>, ArrowError> {
    let columns =
        (0..schema.fields().len()).map(|column| cells(schema, column, batches)).collect::<Result<Vec<_>, _>>()?;
    let n_lines = columns.iter().map(|column| column.len()).max().unwrap_or(0);
    let line = |row: usize| {
        let cells: Vec<&str> = columns.iter().filter_map(|column| column.get(row)).map(String::as_str).collect();
        cells.join("  ").trim_end().to_owned()
    };
    Ok((0..n_lines).map(line).collect())
}

/// One column: its name, a rule and its values, all of one width.
fn cells(schema: &SchemaRef, column: usize, batches: &[RecordBatch]) -> Result<Vec<String>, ArrowError> {
    let field = schema.field(column);
    let mut cells = vec![field.name().clone()];
    let options = FormatOptions::default().with_null("");
    for batch in batches {
        let formatter = ArrayFormatter::try_new(batch.column(column), &options)?;
        for row in 0..batch.num_rows() {
            cells.push(formatter.value(row).try_to_string()?);
        }
    }
    let width = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
    let right = field.data_type().is_numeric();
    let mut cells: Vec<String> =
        cells.iter().map(|cell| if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }).collect();
    cells.insert(1, "-".repeat(width));
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringViewArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn words_stand_left_and_numbers_right() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("city", DataType::Utf8View, true),
            Field::new("n", DataType::Int64, true),
        ]));
        let cities = StringViewArray::from(vec![Some("Oslo"), Some("Zürich"), None]);
        let numbers = Int64Array::from(vec![Some(5), None, Some(1234)]);
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(cities), Arc::new(numbers)]).unwrap();
        let lines = lines(&schema, &[batch]).unwrap();
        assert_eq!(lines, ["city       n", "------  ----", "Oslo       5", "Zürich", "        1234"]);
    }
}
