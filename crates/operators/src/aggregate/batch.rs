//! The aggregates of this crate as DataFusion runs them in a batch query: the same states as in a view, so that both
//! compute the same.
//!
//! A [`Merged`] state adds rows at once and is small. Everything else, and whatever is DISTINCT, keeps its rows
//! ([`Buffered`]): partial results are the rows themselves, and the state is made of all of them at the end.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, StructArray, UInt32Array, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

use super::distinct::Distinct;
use super::values::{Mergeable, Values};
use crate::expr::{scalar, to_datafusion};

/// Makes a state whose parts can be put together.
pub(super) type MakeMergeable = Box<dyn Fn() -> Box<dyn Mergeable> + Send + Sync>;

/// A state whose parts can be put together.
pub(super) struct Merged {
    make: MakeMergeable,
    state: Box<dyn Mergeable>,
    field: FieldRef,
    n_groups: usize,
    weights: Vec<i64>,
}

impl Merged {
    pub(super) fn new(make: MakeMergeable, field: FieldRef) -> Merged {
        let state = make();
        Merged { make, state, field, n_groups: 0, weights: vec![] }
    }

    fn grow(&mut self, n_groups: usize) {
        self.n_groups = self.n_groups.max(n_groups);
        self.state.grow(n_groups);
    }

    fn emitted(&mut self, emit_to: EmitTo) -> usize {
        match emit_to {
            EmitTo::All => self.n_groups,
            EmitTo::First(n) => n.min(self.n_groups),
        }
    }

    fn drop_first(&mut self, n_groups: usize) {
        self.state.drop_first(n_groups);
        self.n_groups -= n_groups;
    }
}

impl fmt::Debug for Merged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Merged({})", self.field.name())
    }
}

fn ids_of(group_indices: &[usize]) -> Vec<u32> {
    group_indices.iter().map(|idx| *idx as u32).collect()
}

/// Weight 0 where the filter is not true.
fn weights_of(filter: Option<&BooleanArray>, weights: &mut Vec<i64>) -> bool {
    let Some(filter) = filter else { return false };
    weights.clear();
    weights.extend(filter.iter().map(|is_in| i64::from(is_in == Some(true))));
    true
}

impl GroupsAccumulator for Merged {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        n_groups: usize,
    ) -> Result<()> {
        self.grow(n_groups);
        let is_filtered = weights_of(filter, &mut self.weights);
        let weights = is_filtered.then_some(&self.weights[..]);
        self.state.apply(&ids_of(group_indices), values, weights).map_err(to_datafusion)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let n_groups = self.emitted(emit_to);
        let results = self.state.results(n_groups, self.field.data_type()).map_err(to_datafusion)?;
        self.drop_first(n_groups);
        Ok(results)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let n_groups = self.emitted(emit_to);
        let state = self.state.state(n_groups).map_err(to_datafusion)?;
        self.drop_first(n_groups);
        Ok(state)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], n_groups: usize) -> Result<()> {
        self.grow(n_groups);
        self.state.merge(&ids_of(group_indices), values).map_err(to_datafusion)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let n_rows = values.first().map_or(0, |c| c.len());
        let ids: Vec<u32> = (0..n_rows as u32).collect();
        let mut weights = vec![];
        let is_filtered = weights_of(filter, &mut weights);
        let mut state = (self.make)();
        state.grow(n_rows);
        let added = state.apply(&ids, values, is_filtered.then_some(&weights[..]));
        added.and_then(|()| state.state(n_rows)).map_err(to_datafusion)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.state.bytes()
    }
}

impl Accumulator for Merged {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(values, None)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(values, Some(-1))
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.grow(1);
        self.state.evaluate(0).map_err(to_datafusion)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.grow(1);
        let state = self.state.state(1).map_err(to_datafusion)?;
        state.iter().map(|column| scalar(column, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.grow(1);
        let n_rows = states.first().map_or(0, |c| c.len());
        self.state.merge(&vec![0; n_rows], states).map_err(to_datafusion)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.state.bytes()
    }
}

impl Merged {
    fn add(&mut self, values: &[ArrayRef], weight: Option<i64>) -> Result<()> {
        self.grow(1);
        let n_rows = values.first().map_or(0, |c| c.len());
        let weights = weight.map(|weight| vec![weight; n_rows]);
        self.state.apply(&vec![0; n_rows], values, weights.as_deref()).map_err(to_datafusion)
    }
}

/// Makes a state.
pub(super) type Make = Box<dyn Fn() -> tidewire_types::Result<Box<dyn Values>> + Send + Sync>;

/// Rows of one batch.
struct Part {
    ids: Vec<u32>,
    columns: Vec<ArrayRef>,
    weight: i64,
}

/// Rows that are kept until their groups are complete.
pub(super) struct Buffered {
    make: Make,
    field: FieldRef,
    /// Arguments, then ORDER BY columns.
    row: Fields,
    /// Of the columns of a row, those that DISTINCT compares.
    n_distinct: Option<usize>,
    /// A window slides over the rows: they are not asked for again.
    slides: bool,
    parts: Vec<Part>,
    n_groups: usize,
    /// What has been made of the first parts.
    live: Option<Live>,
}

struct Live {
    values: Box<dyn Values>,
    distinct: Option<Distinct>,
    n_parts: usize,
}

/// The fields of a row that is kept.
pub(super) fn row_fields(types: &[DataType]) -> Fields {
    types.iter().enumerate().map(|(idx, t)| Field::new(format!("c{idx}"), t.clone(), true)).collect()
}

/// The type of a group's rows, as partial result.
pub(super) fn rows_type(types: &[DataType]) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Struct(row_fields(types)), true)))
}

impl Buffered {
    pub(super) fn new(make: Make, field: FieldRef, types: &[DataType], n_distinct: Option<usize>) -> Buffered {
        let row = row_fields(types);
        Buffered { make, field, row, n_distinct, slides: false, parts: vec![], n_groups: 0, live: None }
    }

    pub(super) fn sliding(self) -> Buffered {
        Buffered { slides: true, ..self }
    }

    fn push(&mut self, ids: Vec<u32>, columns: &[ArrayRef], weight: i64, n_groups: usize) -> Result<()> {
        self.n_groups = self.n_groups.max(n_groups);
        if !ids.is_empty() {
            self.parts.push(Part { ids, columns: columns.to_vec(), weight });
        }
        if self.slides {
            self.live().map_err(to_datafusion)?;
            self.parts.clear();
            if let Some(live) = &mut self.live {
                live.n_parts = 0;
            }
        }
        Ok(())
    }

    /// The state of all rows that are there.
    fn live(&mut self) -> tidewire_types::Result<&mut dyn Values> {
        let mut live = match self.live.take() {
            Some(live) => live,
            None => Live { values: (self.make)()?, distinct: None, n_parts: 0 },
        };
        live.values.grow(self.n_groups);
        for part in self.parts.iter().skip(live.n_parts) {
            let mut weights = vec![part.weight; part.ids.len()];
            if let Some(n_distinct) = self.n_distinct {
                let compared = part.columns.get(..n_distinct).unwrap_or(&part.columns);
                let distinct = match &mut live.distinct {
                    Some(distinct) => distinct,
                    None => live.distinct.insert(Distinct::of_rows(compared)?),
                };
                distinct.apply(&part.ids, compared, &mut weights)?;
            }
            live.values.apply(&part.ids, &part.columns, Some(&weights))?;
        }
        live.n_parts = self.parts.len();
        Ok(self.live.insert(live).values.as_mut())
    }

    /// Takes the rows of the first groups out: their columns, sorted by group, and how many each group has.
    fn take_rows(&mut self, n_groups: usize) -> Result<(Vec<ArrayRef>, Vec<usize>)> {
        self.live = None;
        let parts = std::mem::take(&mut self.parts);
        let mut columns = vec![];
        for (idx, field) in self.row.iter().enumerate() {
            let arrays: Vec<&dyn Array> = parts.iter().filter_map(|p| p.columns.get(idx)).map(AsRef::as_ref).collect();
            columns.push(match arrays.is_empty() {
                true => new_empty_array(field.data_type()),
                false => concat(&arrays)?,
            });
        }
        let ids: Vec<u32> = parts.iter().flat_map(|p| p.ids.iter().copied()).collect();
        let mut order: Vec<u32> = (0..ids.len() as u32).collect();
        let id_of = |row: &u32| ids.get(*row as usize).copied().unwrap_or(u32::MAX);
        order.sort_by_key(id_of);
        let n_out = order.partition_point(|row| (id_of(row) as usize) < n_groups);
        let (out, rest) = order.split_at(n_out);
        let pick = |rows: &[u32]| -> Result<Vec<ArrayRef>> {
            let rows = UInt32Array::from(rows.to_vec());
            Ok(columns.iter().map(|c| take(c, &rows, None)).collect::<Result<_, _>>()?)
        };
        let mut lengths = vec![0; n_groups];
        for row in out {
            if let Some(length) = lengths.get_mut(id_of(row) as usize) {
                *length += 1;
            }
        }
        if !rest.is_empty() {
            let ids = rest.iter().map(|row| id_of(row) - n_groups as u32).collect();
            self.parts.push(Part { ids, columns: pick(rest)?, weight: 1 });
        }
        self.n_groups -= n_groups.min(self.n_groups);
        Ok((pick(out)?, lengths))
    }

    fn emitted(&self, emit_to: EmitTo) -> usize {
        match emit_to {
            EmitTo::All => self.n_groups,
            EmitTo::First(n) => n.min(self.n_groups),
        }
    }

    fn rows_of(&mut self, n_groups: usize) -> Result<ArrayRef> {
        let (columns, lengths) = self.take_rows(n_groups)?;
        let n_rows = lengths.iter().sum();
        list_of(&self.row, columns, lengths.into_iter(), n_rows)
    }

    fn merge_rows(&mut self, states: &[ArrayRef], group_of: impl Fn(usize) -> u32, n_groups: usize) -> Result<()> {
        let Some(lists) = states.first().and_then(|c| c.as_list_opt::<i32>()) else { return Ok(()) };
        for row_idx in (0..lists.len()).filter(|row_idx| lists.is_valid(*row_idx)) {
            let rows = lists.value(row_idx);
            let ids = vec![group_of(row_idx); rows.len()];
            self.push(ids, rows.as_struct().columns(), 1, n_groups)?;
        }
        self.n_groups = self.n_groups.max(n_groups);
        Ok(())
    }

    fn held_bytes(&self) -> usize {
        let columns = self.parts.iter().flat_map(|p| &p.columns).map(|c| c.get_array_memory_size());
        let ids: usize = self.parts.iter().map(|p| p.ids.capacity() * size_of::<u32>()).sum();
        size_of::<Self>() + columns.sum::<usize>() + ids + self.live.as_ref().map_or(0, |live| live.values.bytes())
    }
}

/// Lists of rows with these columns.
fn list_of(
    row: &Fields,
    columns: Vec<ArrayRef>,
    lengths: impl Iterator<Item = usize>,
    n_rows: usize,
) -> Result<ArrayRef> {
    let rows: ArrayRef = match columns.is_empty() {
        true => Arc::new(StructArray::new_empty_fields(n_rows, None)),
        false => Arc::new(StructArray::try_new(row.clone(), columns, None)?),
    };
    let item = Arc::new(Field::new_list_field(DataType::Struct(row.clone()), true));
    Ok(Arc::new(ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), rows, None)?))
}

impl fmt::Debug for Buffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffered({})", self.field.name())
    }
}

impl GroupsAccumulator for Buffered {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        n_groups: usize,
    ) -> Result<()> {
        let ids = ids_of(group_indices);
        let Some(filter) = filter else { return self.push(ids, values, 1, n_groups) };
        let rows: Vec<u32> =
            (0..filter.len()).filter(|i| filter.is_valid(*i) && filter.value(*i)).map(|i| i as u32).collect();
        let ids = rows.iter().filter_map(|row| ids.get(*row as usize).copied()).collect();
        let rows = UInt32Array::from(rows);
        let kept = values.iter().map(|c| take(c, &rows, None)).collect::<Result<Vec<_>, _>>()?;
        self.push(ids, &kept, 1, n_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let n_groups = self.emitted(emit_to);
        let values = self.live().map_err(to_datafusion)?;
        let results = (0..n_groups as u32).map(|id| values.evaluate(id)).collect::<tidewire_types::Result<Vec<_>>>();
        let results = results.map_err(to_datafusion)?;
        self.take_rows(n_groups)?;
        match results.is_empty() {
            true => Ok(new_empty_array(self.field.data_type())),
            false => ScalarValue::iter_to_array(results),
        }
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let n_groups = self.emitted(emit_to);
        Ok(vec![self.rows_of(n_groups)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], n_groups: usize) -> Result<()> {
        let group_of = |row_idx: usize| group_indices.get(row_idx).copied().unwrap_or(0) as u32;
        self.merge_rows(values, group_of, n_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let n_rows = values.first().map_or(0, |c| c.len());
        let is_in = |row: &u32| filter.is_none_or(|f| f.is_valid(*row as usize) && f.value(*row as usize));
        let rows: Vec<u32> = (0..n_rows as u32).filter(is_in).collect();
        let lengths = (0..n_rows as u32).map(|row| usize::from(is_in(&row)));
        let rows = UInt32Array::from(rows);
        let kept = values.iter().map(|c| take(c, &rows, None)).collect::<Result<Vec<_>, _>>()?;
        Ok(vec![list_of(&self.row, kept, lengths, rows.len())?])
    }

    fn size(&self) -> usize {
        self.held_bytes()
    }
}

impl Accumulator for Buffered {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let n_rows = values.first().map_or(0, |c| c.len());
        self.push(vec![0; n_rows], values, 1, 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let n_rows = values.first().map_or(0, |c| c.len());
        self.push(vec![0; n_rows], values, -1, 1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.n_groups = 1;
        self.live().and_then(|values| values.evaluate(0)).map_err(to_datafusion)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.n_groups = 1;
        Ok(vec![scalar(&self.rows_of(1)?, 0)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.merge_rows(states, |_| 0, 1)
    }

    fn size(&self) -> usize {
        self.held_bytes()
    }
}
