//! Rows as bytes that sort as the rows do, and back.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::array::{ArrayRef, Float32Array, Float64Array, RecordBatch};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Fields, Float32Type, Float64Type};
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::HashMap;
use tidewire_types::{Delta, Result, SqlError};

use super::Window;
use super::partition::Row;

/// Changes of one partition.
pub(super) type Changes = Vec<(Row, i64)>;

/// Encodes whole rows: the ORDER BY columns, then the others in the order of the tie break.
pub(super) struct Encoding {
    /// The columns in the order of the encoding, and whether each is one of the ORDER BY.
    columns: Vec<usize>,
    n_order: usize,
    rows: RowConverter,
    order: RowConverter,
    partition_by: Vec<usize>,
    keys: RowConverter,
    /// Of the input.
    fields: Fields,
}

impl Encoding {
    pub(super) fn new(plan: &Window) -> Result<Encoding> {
        let n_columns = plan.schema.fields().len() - plan.calls.len().min(plan.schema.fields().len());
        let fields: Fields = plan.schema.fields().iter().take(n_columns).cloned().collect();
        let type_of = |column: usize| {
            let field = fields.get(column).ok_or_else(|| SqlError::internal(format_args!("no column {column}")))?;
            Ok::<_, SqlError>(field.data_type().clone())
        };
        let mut columns: Vec<usize> = vec![];
        let mut sort_fields = vec![];
        for key in &plan.order_by {
            if !columns.contains(&key.column) {
                columns.push(key.column);
                let options = SortOptions { descending: key.descending, nulls_first: key.nulls_first };
                sort_fields.push(SortField::new_with_options(type_of(key.column)?, options));
            }
        }
        let n_order = columns.len();
        let order = converter(sort_fields.clone())?;
        for column in &plan.tie_break {
            let data_type = type_of(*column)?;
            // The ORDER BY knows only one zero and one NaN: what a float really is stands behind.
            if !columns.contains(column) || is_float(&data_type) {
                columns.push(*column);
                let options = SortOptions { descending: false, nulls_first: false };
                sort_fields.push(SortField::new_with_options(data_type, options));
            }
        }
        let key_fields = plan.partition_by.iter().map(|c| Ok(SortField::new(type_of(*c)?))).collect::<Result<_>>()?;
        Ok(Encoding {
            columns,
            n_order,
            rows: converter(sort_fields)?,
            order,
            partition_by: plan.partition_by.clone(),
            keys: converter(key_fields)?,
            fields,
        })
    }

    /// Adds the rows of a delta to the changes of their partitions.
    pub(super) fn split(&self, delta: &Delta, changes: &mut HashMap<Vec<u8>, Changes>) -> Result<()> {
        let column = |idx: usize| {
            let column = delta.rows().columns().get(idx).cloned();
            column.ok_or_else(|| SqlError::internal(format_args!("no column {idx}")))
        };
        let order = self.columns.iter().take(self.n_order).map(|c| Ok(plain_floats(column(*c)?)));
        let order: Vec<ArrayRef> = order.collect::<Result<_>>()?;
        let rest = self.columns.iter().skip(self.n_order).map(|c| column(*c));
        let all: Vec<ArrayRef> = order.iter().cloned().map(Ok).chain(rest).collect::<Result<_>>()?;
        let rows = self.rows.convert_columns(&all)?;
        let peers = match self.n_order {
            0 => None,
            _ => Some(self.order.convert_columns(&order)?),
        };
        let keys = match self.partition_by.is_empty() {
            true => None,
            false => {
                let columns = self.partition_by.iter().map(|c| Ok(plain_floats(column(*c)?)));
                Some(self.keys.convert_columns(&columns.collect::<Result<Vec<_>>>()?)?)
            }
        };
        for (idx, row) in rows.iter().enumerate() {
            let weight = delta.weight(idx);
            if weight == 0 {
                continue;
            }
            let key = keys.as_ref().map_or(&[][..], |k| k.row(idx).data());
            let peer_len = peers.as_ref().map_or(0, |p| p.row(idx).data().len());
            let row = Row { key: row.data().into(), peer_len: peer_len as u32, count: 1 };
            changes.entry_ref(key).or_default().push((row, weight));
        }
        Ok(())
    }

    /// The input's columns of rows.
    pub(super) fn decode<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let parser = self.rows.parser();
        let decoded = self.rows.convert_rows(rows.map(|row| parser.parse(row)))?;
        let mut columns = vec![];
        for (idx, field) in self.fields.iter().enumerate() {
            // The last one: a float's own bits, not those that it is ordered by.
            let place = self.columns.iter().rposition(|c| *c == idx);
            let column = place.and_then(|p| decoded.get(p)).ok_or_else(|| SqlError::internal("a column is lost"))?;
            columns.push(cast(column, field.data_type())?);
        }
        Ok(columns)
    }

    /// Rows of the input.
    pub(super) fn batch<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<RecordBatch> {
        let fields = self.fields.iter().map(|f| f.as_ref().clone().with_nullable(true));
        let schema = arrow::datatypes::Schema::new(fields.collect::<Vec<_>>());
        Ok(RecordBatch::try_new(Arc::new(schema), self.decode(rows)?)?)
    }

    /// Values of the only ORDER BY column, as rows are compared by them.
    pub(super) fn encode_order(&self, values: ArrayRef) -> Result<Rows> {
        Ok(self.order.convert_columns(&[values])?)
    }

    /// The values of the only ORDER BY column.
    pub(super) fn decode_order<'a>(&self, peers: impl Iterator<Item = &'a [u8]>) -> Result<ArrayRef> {
        let parser = self.order.parser();
        let mut columns = self.order.convert_rows(peers.map(|p| parser.parse(p)))?;
        columns.pop().ok_or_else(|| SqlError::internal("RANGE without an ORDER BY"))
    }
}

pub(super) fn converter(fields: Vec<SortField>) -> Result<RowConverter> {
    RowConverter::new(fields)
        .map_err(|e| SqlError::unsupported("a window over columns of such a type").with_detail(e.to_string()))
}

fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}

/// Minus zero is zero, and all NaNs are one.
fn plain_floats(column: ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            let plain = |v: f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
            Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(plain)) as Arc<Float64Array>
        }
        DataType::Float32 => {
            let plain = |v: f32| if v.is_nan() { f32::NAN } else { v + 0.0 };
            Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(plain)) as Arc<Float32Array>
        }
        _ => column,
    }
}
