//! Aggregates whose result is not a number in a slot: min and max of strings, and every DataFusion aggregate that has
//! no incremental form here.
//!
//! The latter keep the rows of each group as an ordered multiset and evaluate touched groups anew with the function's
//! own `Accumulator`. Rows are ordered by the ORDER BY inside the call, then by the arguments, so that the result is a
//! function of the input.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, new_empty_array};
use arrow::compute::{SortOptions, cast, take};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, AggregateUDF};
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::PhysicalExpr;
use tidewire_types::{Result, SqlError};

use super::Call;
use super::multiset::Multiset;
use crate::expr::{scalar, sql_error};

/// What a group keeps behind one such call.
pub(super) trait Values: Send + Sync {
    /// Makes room for groups up to `n_slots`.
    fn grow(&mut self, n_slots: usize);
    /// Adds rows to groups; a weight of 0 means that the row is not there.
    fn apply(&mut self, ids: &[u32], columns: &[ArrayRef], weights: Option<&[i64]>) -> Result<()>;
    /// The result of a group as it is now.
    fn evaluate(&mut self, id: u32) -> Result<ScalarValue>;
    /// Forgets what a group without rows still holds.
    fn forget(&mut self, id: u32);
    /// Bytes allocated.
    fn bytes(&self) -> usize;
    /// Rows or values kept.
    fn len(&self) -> usize;

    /// Whether `save` and `load` know the state: its size does not follow the rows of the group.
    fn is_small(&self) -> bool {
        false
    }

    /// Appends the state of a group as bytes.
    fn save(&self, _id: u32, _out: &mut Vec<u8>) {}

    /// Gives a group without rows the state that `save` has written.
    fn load(&mut self, _id: u32, _bytes: &[u8]) -> Result<()> {
        Err(SqlError::internal("a state that is not kept as bytes"))
    }
}

/// The next bytes of a state.
pub(super) fn taken<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk().ok_or_else(|| SqlError::internal("a state that is too short"))?;
    *rest = after;
    Ok(*bytes)
}

/// What is kept is small and can be put together: in a batch query, partial results are.
pub(super) trait Mergeable: Values {
    /// The types of a group's state.
    fn state_types(&self) -> Vec<DataType>;
    /// The states of the first groups.
    fn state(&mut self, n_groups: usize) -> Result<Vec<ArrayRef>>;
    /// Adds states to groups.
    fn merge(&mut self, ids: &[u32], columns: &[ArrayRef]) -> Result<()>;
    /// Takes the first groups out; the others move down.
    fn drop_first(&mut self, n_groups: usize);

    /// The results of the first groups.
    fn results(&mut self, n_groups: usize, data_type: &DataType) -> Result<ArrayRef> {
        if n_groups == 0 {
            return Ok(new_empty_array(data_type));
        }
        let results = (0..n_groups as u32).map(|id| self.evaluate(id)).collect::<Result<Vec<_>>>()?;
        ScalarValue::iter_to_array(results).map_err(sql_error)
    }
}

/// min or max of bytes.
pub(super) struct BestBytes {
    pub(super) is_max: bool,
    pub(super) data_type: DataType,
    /// Keep only the best value: nothing ever leaves.
    pub(super) append_only: bool,
    pub(super) groups: Vec<Multiset<Box<[u8]>>>,
    pub(super) n_values: usize,
    pub(super) value_bytes: usize,
}

impl BestBytes {
    fn best(&self, id: u32) -> Option<&[u8]> {
        let group = self.groups.get(id as usize)?;
        if self.is_max { group.last() } else { group.first() }.map(|v| &**v)
    }
}

impl Values for BestBytes {
    fn grow(&mut self, n_slots: usize) {
        self.groups.resize_with(n_slots.max(self.groups.len()), Multiset::default);
    }

    fn apply(&mut self, ids: &[u32], columns: &[ArrayRef], weights: Option<&[i64]>) -> Result<()> {
        let Some(column) = columns.first() else { return Ok(()) };
        let bytes = cast(column, &DataType::BinaryView)?;
        let bytes = bytes.as_binary_view();
        for (row_idx, id) in ids.iter().enumerate() {
            let weight = weights.and_then(|w| w.get(row_idx)).copied().unwrap_or(1);
            if weight == 0 || bytes.is_null(row_idx) {
                continue;
            }
            let value = bytes.value(row_idx);
            if self.append_only {
                let is_better = match self.best(*id) {
                    None => true,
                    Some(best) if self.is_max => value > best,
                    Some(best) => value < best,
                };
                if !is_better {
                    continue;
                }
                if let Some(group) = self.groups.get_mut(*id as usize) {
                    *group = Multiset::default();
                }
            }
            if let Some(group) = self.groups.get_mut(*id as usize) {
                let change = group.add(value.into(), weight);
                self.n_values = self.n_values.saturating_add_signed(change);
                self.value_bytes = self.value_bytes.saturating_add_signed(change * value.len() as isize);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, id: u32) -> Result<ScalarValue> {
        let Some(best) = self.best(id) else { return ScalarValue::try_new_null(&self.data_type).map_err(sql_error) };
        let bytes = ScalarValue::BinaryView(Some(best.to_vec()));
        bytes.cast_to(&self.data_type).map_err(sql_error)
    }

    fn forget(&mut self, id: u32) {
        if let Some(group) = self.groups.get_mut(id as usize) {
            *group = Multiset::default();
        }
    }

    fn bytes(&self) -> usize {
        Multiset::<Box<[u8]>>::estimated_bytes(self.groups.capacity(), self.n_values) + self.value_bytes
    }

    fn len(&self) -> usize {
        if self.append_only { 0 } else { self.n_values }
    }

    fn is_small(&self) -> bool {
        self.append_only
    }

    /// Nothing for none, else the value behind one byte.
    fn save(&self, id: u32, out: &mut Vec<u8>) {
        if let Some(best) = self.best(id) {
            out.push(1);
            out.extend_from_slice(best);
        }
    }

    fn load(&mut self, id: u32, bytes: &[u8]) -> Result<()> {
        if let (Some((_, value)), Some(group)) = (bytes.split_first(), self.groups.get_mut(id as usize)) {
            self.n_values += 1;
            self.value_bytes += value.len();
            group.add(value.into(), 1);
        }
        Ok(())
    }
}

/// Any DataFusion aggregate, evaluated anew for touched groups.
pub(super) struct Reevaluated {
    function: Arc<AggregateUDF>,
    field: FieldRef,
    distinct: bool,
    /// Of the argument columns followed by the ORDER BY columns.
    schema: Schema,
    n_args: usize,
    order_by: Vec<SortOptions>,
    /// The function takes its arguments behind the first as literals (`string_agg(x, ',')`).
    literal_args: bool,
    converter: RowConverter,
    groups: Vec<Multiset<Box<[u8]>>>,
    n_values: usize,
    value_bytes: usize,
}

impl Reevaluated {
    /// `columns`: the arguments, then the ORDER BY columns.
    pub(super) fn new(call: &Call, function: Arc<AggregateUDF>, columns: &[ArrayRef]) -> Result<Reevaluated> {
        let fields: Vec<Field> =
            columns.iter().enumerate().map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true)).collect();
        let order_by: Vec<SortOptions> = call
            .order_by
            .iter()
            .map(|key| SortOptions { descending: key.descending, nulls_first: key.nulls_first })
            .collect();
        let n_args = call.args.len();
        // In the encoding the ORDER BY columns come first.
        let sort_fields = (n_args..columns.len())
            .chain(0..n_args)
            .filter_map(|idx| columns.get(idx).map(|c| (idx, c)))
            .map(|(idx, c)| {
                let options = idx.checked_sub(n_args).and_then(|i| order_by.get(i)).copied().unwrap_or_default();
                SortField::new_with_options(c.data_type().clone(), options)
            })
            .collect();
        let converter = RowConverter::new(sort_fields).map_err(|e| {
            SqlError::unsupported(format_args!("{} of such a type", function.name())).with_detail(e.to_string())
        })?;
        let mut state = Reevaluated {
            function,
            field: Arc::clone(&call.field),
            distinct: call.distinct,
            schema: Schema::new(fields),
            n_args,
            order_by,
            literal_args: false,
            converter,
            groups: vec![],
            n_values: 0,
            value_bytes: 0,
        };
        let first: Vec<ArrayRef> = columns.iter().map(|c| c.slice(0, c.len().min(1))).collect();
        if state.accumulator(&first).is_err() {
            state.literal_args = true;
            state.accumulator(&first)?;
        }
        Ok(state)
    }

    /// A fresh accumulator; `columns` are the rows that it will see.
    fn accumulator(&self, columns: &[ArrayRef]) -> Result<Box<dyn Accumulator>> {
        let column = |idx: usize| -> Arc<dyn PhysicalExpr> { Arc::new(Column::new(&format!("c{idx}"), idx)) };
        let exprs = (0..self.n_args)
            .map(|idx| match columns.get(idx) {
                Some(values) if self.literal_args && idx > 0 && !values.is_empty() => {
                    let value = scalar(values, 0).map_err(sql_error)?;
                    Ok(Arc::new(Literal::new(value)) as Arc<dyn PhysicalExpr>)
                }
                _ => Ok(column(idx)),
            })
            .collect::<Result<Vec<_>>>()?;
        let expr_fields: Vec<FieldRef> = self.schema.fields().iter().take(self.n_args).cloned().collect();
        let order_bys: Vec<PhysicalSortExpr> = self
            .order_by
            .iter()
            .enumerate()
            .map(|(idx, options)| PhysicalSortExpr { expr: column(self.n_args + idx), options: *options })
            .collect();
        let args = AccumulatorArgs {
            return_field: Arc::clone(&self.field),
            schema: &self.schema,
            ignore_nulls: false,
            order_bys: &order_bys,
            is_reversed: false,
            name: self.field.name(),
            // Equal rows are one row already.
            is_distinct: false,
            exprs: &exprs,
            expr_fields: &expr_fields,
        };
        self.function.accumulator(args).map_err(sql_error)
    }

    /// The rows of a group: arguments, then ORDER BY columns; copies written out.
    fn rows(&self, id: u32) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        let Some(group) = self.groups.get(id as usize) else { return Ok(vec![]) };
        let encoded = group.iter().map(|(row, _)| parser.parse(row));
        let mut columns = self.converter.convert_rows(encoded)?;
        let n_order = self.order_by.len().min(columns.len());
        columns.rotate_left(n_order);
        let counts: Vec<i64> = group.iter().map(|(_, count)| if self.distinct { 1 } else { count }).collect();
        if counts.iter().any(|count| *count != 1) {
            let copies = counts.iter().enumerate().flat_map(|(idx, n)| (0..*n).map(move |_| idx as i64));
            let copies: Int64Array = copies.collect::<Vec<_>>().into();
            columns = columns.iter().map(|c| take(c, &copies, None)).collect::<Result<_, _>>()?;
        }
        // The encoding has no dictionaries.
        let types = self.schema.fields().iter().map(|f| f.data_type());
        Ok(columns.iter().zip(types).map(|(c, t)| cast(c, t)).collect::<Result<_, _>>()?)
    }
}

impl Values for Reevaluated {
    fn grow(&mut self, n_slots: usize) {
        self.groups.resize_with(n_slots.max(self.groups.len()), Multiset::default);
    }

    fn apply(&mut self, ids: &[u32], columns: &[ArrayRef], weights: Option<&[i64]>) -> Result<()> {
        let mut in_order = columns.to_vec();
        in_order.rotate_left(self.n_args.min(columns.len()));
        let rows = self.converter.convert_columns(&in_order)?;
        for (row_idx, (id, row)) in ids.iter().zip(rows.iter()).enumerate() {
            let weight = weights.and_then(|w| w.get(row_idx)).copied().unwrap_or(1);
            if weight == 0 {
                continue;
            }
            if let Some(group) = self.groups.get_mut(*id as usize) {
                let change = group.add(row.data().into(), weight);
                self.n_values = self.n_values.saturating_add_signed(change);
                self.value_bytes = self.value_bytes.saturating_add_signed(change * row.data().len() as isize);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, id: u32) -> Result<ScalarValue> {
        let rows = self.rows(id)?;
        if rows.first().is_none_or(|c| c.is_empty()) {
            return self.function.default_value(self.field.data_type()).map_err(sql_error);
        }
        let mut accumulator = self.accumulator(&rows)?;
        accumulator.update_batch(&rows).map_err(sql_error)?;
        accumulator.evaluate().map_err(sql_error)
    }

    fn forget(&mut self, id: u32) {
        if let Some(group) = self.groups.get_mut(id as usize) {
            *group = Multiset::default();
        }
    }

    fn bytes(&self) -> usize {
        Multiset::<Box<[u8]>>::estimated_bytes(self.groups.capacity(), self.n_values) + self.value_bytes
    }

    fn len(&self) -> usize {
        self.n_values
    }
}
