//! A scalar subquery: exactly one row comes out, all NULL while the input is empty. It is all NULL too while there are
//! several, and a column tells of them: an [`Assert`](crate::assert) stands where the value is asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use tidewire_types::{Delta, Result, SqlError};

use crate::{Operator, StepContext};

/// Parameters of the operator. All rows go to shard 0.
#[derive(Clone, Debug)]
pub struct SingleRow {
    /// Whether the input may have several rows: the last column of the output is how many there are, 2 for more.
    pub counts: bool,
    /// Schema of the output, all columns nullable; but for the count it is the input's.
    pub schema: SchemaRef,
}

impl SingleRow {
    /// A running shard; only shard 0 puts out a row.
    pub fn build(&self, shard_idx: usize) -> Result<Box<dyn Operator>> {
        let fields = value_fields(&self.schema, self.counts).map(|f| SortField::new(f.data_type().clone())).collect();
        let converter = RowConverter::new(fields)
            .map_err(|e| SqlError::unsupported("a scalar subquery of such a type").with_detail(e.to_string()))?;
        let schema = Arc::clone(&self.schema);
        Ok(Box::new(SingleRowShard {
            schema,
            shard_idx,
            counts: self.counts,
            converter,
            rows: BTreeMap::new(),
            row_bytes: 0,
            n_copies: 0,
            shown: (None, 0),
        }))
    }
}

/// All but the count.
fn value_fields(schema: &Schema, counts: bool) -> impl Iterator<Item = &FieldRef> {
    schema.fields().iter().take(schema.fields().len().saturating_sub(usize::from(counts)))
}

/// A row, encoded.
type Encoded = Box<[u8]>;

struct SingleRowShard {
    schema: SchemaRef,
    shard_idx: usize,
    counts: bool,
    converter: RowConverter,
    /// The rows of the subquery, with how many copies.
    rows: BTreeMap<Encoded, i64>,
    row_bytes: usize,
    n_copies: i64,
    /// The row that is out (`None`: all NULL), and the count.
    shown: (Option<Encoded>, i64),
}

impl Operator for SingleRowShard {
    fn start(&mut self, _: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        if self.shard_idx == 0 {
            out.push(Delta::insert(self.row(&self.shown)?));
        }
        Ok(())
    }

    fn step(&mut self, inputs: &mut [Vec<Delta>], _: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        for delta in inputs.iter_mut().flat_map(std::mem::take).filter(|d| !d.is_empty()) {
            self.add(&delta)?;
        }
        let only = self.rows.first_key_value().filter(|_| self.n_copies == 1);
        let shown = (only.map(|(row, _)| row.clone()), self.n_copies.min(2));
        if shown != self.shown {
            out.push(Delta::delete(self.row(&self.shown)?));
            out.push(Delta::insert(self.row(&shown)?));
            self.shown = shown;
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.row_bytes + self.rows.len() * size_of::<(Encoded, i64)>() * 3 / 2
    }

    fn state_rows(&self) -> usize {
        self.rows.len()
    }
}

impl SingleRowShard {
    fn add(&mut self, delta: &Delta) -> Result<()> {
        let rows = self.converter.convert_columns(delta.rows().columns())?;
        for (idx, row) in rows.iter().enumerate() {
            let weight = delta.weight(idx);
            self.n_copies += weight;
            let count = self.rows.entry(row.data().into()).or_insert(0);
            if *count == 0 {
                self.row_bytes += row.data().len();
            }
            *count += weight;
            if *count == 0 {
                self.row_bytes -= row.data().len();
                self.rows.remove(row.data());
            }
        }
        Ok(())
    }

    /// A batch of one row.
    fn row(&self, (row, n_rows): &(Option<Encoded>, i64)) -> Result<RecordBatch> {
        let fields = value_fields(&self.schema, self.counts);
        let mut columns: Vec<ArrayRef> = match row {
            None => fields.map(|f| new_null_array(f.data_type(), 1)).collect(),
            Some(row) => {
                let parser = self.converter.parser();
                let columns = self.converter.convert_rows([parser.parse(row)])?;
                columns.iter().zip(fields).map(|(c, f)| cast(c, f.data_type())).collect::<Result<_, _>>()?
            }
        };
        if self.counts {
            columns.push(Arc::new(Int64Array::from(vec![*n_rows])));
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl fmt::Display for SingleRow {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::testing::{Value, check_operator, schema};

    fn fields() -> Vec<Field> {
        vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8View, true)]
    }

    #[test]
    fn is_one_row_and_how_many_there_are() {
        let output = fields().into_iter().chain([Field::new("count", DataType::Int64, true)]).collect();
        let single = SingleRow { counts: true, schema: schema(output) };
        check_operator(&[schema(fields())], &crate::Plan::SingleRow(single), |inputs| {
            let mut row = match &inputs[0][..] {
                [only] => only.clone(),
                _ => vec![Value::Null, Value::Null],
            };
            row.push(Value::Int(inputs[0].len().min(2) as i64));
            vec![row]
        });
    }
}
