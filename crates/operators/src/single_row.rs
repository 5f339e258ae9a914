//! A scalar subquery: exactly one row comes out, all NULL while the input is empty. A second row is a state in which
//! the subquery has no value: the row that comes out is all NULL, `21000` is reported once, and the view heals when the
//! row leaves.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use tidewire_types::{Delta, Result, SqlError, SqlState};

use crate::{Operator, RowError, StepContext};

/// Parameters of the operator. All rows go to shard 0.
#[derive(Clone, Debug)]
pub struct SingleRow {
    /// Schema of input and output, all columns nullable.
    pub schema: SchemaRef,
}

impl SingleRow {
    /// A running shard; only shard 0 puts out a row.
    pub fn build(&self, shard_idx: usize) -> Result<Box<dyn Operator>> {
        let fields = self.schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let converter = RowConverter::new(fields)
            .map_err(|e| SqlError::unsupported("a scalar subquery of such a type").with_detail(e.to_string()))?;
        let schema = Arc::clone(&self.schema);
        Ok(Box::new(SingleRowShard {
            schema,
            shard_idx,
            converter,
            rows: BTreeMap::new(),
            row_bytes: 0,
            n_copies: 0,
            shown: None,
        }))
    }
}

/// A row, encoded.
type Encoded = Box<[u8]>;

struct SingleRowShard {
    schema: SchemaRef,
    shard_idx: usize,
    converter: RowConverter,
    /// The rows of the subquery, with how many copies.
    rows: BTreeMap<Encoded, i64>,
    row_bytes: usize,
    n_copies: i64,
    /// The row that is out; `None`: all NULL.
    shown: Option<Encoded>,
}

impl Operator for SingleRowShard {
    fn start(&mut self, _: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        if self.shard_idx == 0 {
            out.push(Delta::insert(self.row(None)?));
        }
        Ok(())
    }

    fn step(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        let n_before = self.n_copies;
        for delta in inputs.iter_mut().flat_map(std::mem::take).filter(|d| !d.is_empty()) {
            self.add(&delta)?;
        }
        let first = self.rows.first_key_value().map(|(row, _)| row.clone());
        if self.n_copies > 1 && n_before <= 1 {
            let error = SqlError::new(
                SqlState::CardinalityViolation,
                "more than one row returned by a subquery used as an expression",
            );
            let row = self.row(first.as_ref())?;
            cx.row_errors.lock().push(RowError { row, weight: 1, expr: "scalar subquery".into(), error });
        }
        let shown = first.filter(|_| self.n_copies == 1);
        if shown != self.shown {
            out.push(Delta::delete(self.row(self.shown.as_ref())?));
            out.push(Delta::insert(self.row(shown.as_ref())?));
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
    fn row(&self, row: Option<&Encoded>) -> Result<RecordBatch> {
        let fields = self.schema.fields().iter();
        let columns = match row {
            None => fields.map(|f| new_null_array(f.data_type(), 1)).collect(),
            Some(row) => {
                let parser = self.converter.parser();
                let columns = self.converter.convert_rows([parser.parse(row)])?;
                columns.iter().zip(fields).map(|(c, f)| cast(c, f.data_type())).collect::<Result<_, _>>()?
            }
        };
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
    use crate::testing::{Accumulated, Row, Steps, Value, batch, check_operator, schema};

    fn input() -> SchemaRef {
        schema(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8View, true)])
    }

    #[test]
    fn is_the_only_row_or_null() {
        check_operator(&[input()], &crate::Plan::SingleRow(SingleRow { schema: input() }), |inputs| {
            match &inputs[0][..] {
                [only] => vec![only.clone()],
                _ => vec![vec![Value::Null, Value::Null]],
            }
        });
    }

    #[test]
    fn a_second_row_is_reported_once_and_heals() {
        let mut operator = SingleRow { schema: input() }.build(0).unwrap();
        let steps = Steps::default();
        let mut output = Accumulated::default();
        let mut out = vec![];
        operator.start(&steps.context(0), &mut out).unwrap();
        let row = |n: i64| -> Row { vec![Value::Int(n), Value::Null] };
        let mut step = |epoch, delta| {
            operator.step(&mut [vec![delta]], &steps.context(epoch), &mut out).unwrap();
            output.add(&std::mem::take(&mut out));
            (output.rows().keys().next().cloned().unwrap(), steps.row_errors().len())
        };
        let rows =
            |n: &[i64]| batch(&input(), &n.iter().map(|n| row(*n)).collect::<Vec<_>>().iter().collect::<Vec<_>>());
        let null = vec![Value::Null, Value::Null];
        assert_eq!(step(1, Delta::insert(rows(&[1]))), (row(1), 0));
        assert_eq!(step(2, Delta::insert(rows(&[2]))), (null.clone(), 1));
        assert_eq!(step(3, Delta::insert(rows(&[3]))), (null, 0));
        assert_eq!(step(4, Delta::delete(rows(&[1, 3]))), (row(2), 0));
    }
}
