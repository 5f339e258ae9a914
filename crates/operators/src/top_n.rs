//! ORDER BY .. LIMIT .. OFFSET, over all rows or per key.
//!
//! Each partition keeps its rows in order. A step compares the window of rows `offset .. offset + limit` before and after
//! its changes, only for partitions with a change at or before the end of their window, and walks no further than that
//! end.
//!
//! Invariant: `Partition::rows` are the rows of the partition with their counts, none of them 0; over input that only
//! grows, those of the first `offset + limit`. Those a checkpoint keeps as they are, and not the input, which may be without
//! bounds: rows that came among the first since the last cut, and rows that are no more among them (`TopNShard::changed`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, RowParser, SortField};
use hashbrown::HashMap;
use tidewire_types::{Delta, Result, SqlError};

use crate::{Kept, Operator, StateChanges, StepContext};

/// One column of an ORDER BY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// Column of the input.
    pub column: usize,
    /// Largest first.
    pub descending: bool,
    /// NULLs before all other values.
    pub nulls_first: bool,
}

/// Parameters of the operator.
#[derive(Clone, Debug)]
pub struct TopN {
    /// Columns that divide the rows into partitions; none: one partition.
    pub partition_by: Vec<usize>,
    /// The order; rows that are equal in it are ordered by all their columns, so that the result is a function of the
    /// input.
    pub order_by: Vec<SortKey>,
    /// Rows left out at the beginning of each partition.
    pub offset: u64,
    /// Rows kept behind those; `None`: all.
    pub limit: Option<u64>,
    /// The input never removes rows: only what can still matter needs to be kept.
    pub append_only: bool,
    /// Schema of input and output.
    pub schema: SchemaRef,
}

impl TopN {
    /// How a checkpoint keeps the state.
    pub fn kept(&self) -> Kept {
        match self.append_only && self.limit.is_some() {
            true => Kept::Rows { schema: Arc::clone(&self.schema), n_key_columns: None },
            false => Kept::Inputs,
        }
    }

    /// A running shard.
    pub fn build(&self) -> Result<Box<dyn Operator>> {
        let mut columns: Vec<usize> = vec![];
        let mut fields = vec![];
        let types = self.schema.fields();
        let all = (0..types.len()).map(|column| SortKey { column, descending: false, nulls_first: true });
        for key in self.order_by.iter().copied().chain(all) {
            let Some(field) = types.get(key.column) else {
                return Err(SqlError::internal(format_args!("no column {} to order by", key.column)));
            };
            // What the order has settled already needs no second place in the encoding.
            if !columns.contains(&key.column) {
                columns.push(key.column);
                let options = SortOptions { descending: key.descending, nulls_first: key.nulls_first };
                fields.push(SortField::new_with_options(field.data_type().clone(), options));
            }
        }
        let partition_types = self.partition_by.iter().filter_map(|idx| types.get(*idx));
        let partition_fields = partition_types.map(|f| SortField::new(f.data_type().clone())).collect();
        let encoding = Encoding {
            schema: Arc::clone(&self.schema),
            rows: converter(fields)?,
            columns,
            partition_by: self.partition_by.clone(),
            keys: converter(partition_fields)?,
        };
        let shard = TopNShard {
            plan: self.clone(),
            encoding: Arc::new(encoding),
            partitions: HashMap::new(),
            n_rows: 0,
            row_bytes: 0,
            partition_bytes: 0,
            changed: None,
        };
        Ok(Box::new(shard))
    }
}

fn converter(fields: Vec<SortField>) -> Result<RowConverter> {
    RowConverter::new(fields).map_err(|e| SqlError::unsupported("ORDER BY of such a type").with_detail(e.to_string()))
}

/// Rows of one delta of a checkpoint.
const DELTA_ROWS: usize = 1 << 16;

/// A row, encoded so that bytes sort as the rows do.
type Encoded = Arc<[u8]>;

#[derive(Default)]
struct Partition {
    rows: BTreeMap<Encoded, i64>,
    /// Last row of the window, where the window is full.
    end: Option<Encoded>,
}

/// Rows as bytes and back.
struct Encoding {
    schema: SchemaRef,
    /// Encodes whole rows: the ORDER BY columns, then the others.
    rows: RowConverter,
    /// The columns in the order of that encoding.
    columns: Vec<usize>,
    partition_by: Vec<usize>,
    keys: RowConverter,
}

struct TopNShard {
    plan: TopN,
    encoding: Arc<Encoding>,
    partitions: HashMap<Vec<u8>, Partition>,
    n_rows: usize,
    /// Of the encoded rows.
    row_bytes: usize,
    /// Of the trees, and the keys of the partitions.
    partition_bytes: usize,
    /// What is added to the kept rows of the last checkpoint, where one keeps them.
    changed: Option<HashMap<Encoded, i64>>,
}

/// Changes of one partition, in any order.
type Changes = Vec<(Encoded, i64)>;

/// The changes of each partition.
type ByPartition = HashMap<Vec<u8>, Changes>;

impl Operator for TopNShard {
    fn step(&mut self, inputs: &mut [Vec<Delta>], _: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        let mut changes = ByPartition::new();
        for delta in inputs.iter_mut().flat_map(std::mem::take).filter(|d| !d.is_empty()) {
            self.encoding.split(&delta, &mut changes)?;
        }
        if self.plan.limit == Some(0) {
            return Ok(());
        }
        let mut output: Changes = vec![];
        for (key, mut changes) in changes {
            let partition = self.partitions.entry_ref(&key[..]).or_default();
            let bytes_before = partition.bytes(&key);
            if self.plan.append_only {
                changes.retain(|(row, _)| partition.wants(row));
            }
            let is_seen = |(row, _): &(Encoded, i64)| partition.end.as_ref().is_none_or(|end| row <= end);
            let touches_window = changes.iter().any(is_seen);
            let window = Window { first: self.plan.offset, len: self.plan.limit };
            let before = if touches_window { window.of(&partition.rows).0 } else { vec![] };
            let mut doubtful = vec![];
            for (row, weight) in changes {
                if weight < 0 {
                    doubtful.push(Arc::clone(&row));
                }
                note(&mut self.changed, &row, weight);
                self.n_rows = self.n_rows.saturating_add_signed(partition.add(row, weight, &mut self.row_bytes)?);
            }
            if doubtful.iter().any(|row| partition.rows.get(row).is_some_and(|count| *count < 0)) {
                return Err(SqlError::internal("a row was removed that is not there"));
            }
            if touches_window {
                let (after, is_full) = window.of(&partition.rows);
                partition.end = is_full.then(|| after.last().map(|(row, _)| Arc::clone(row))).flatten();
                difference(&before, &after, &mut output);
            }
            if self.plan.append_only && partition.end.is_some() {
                self.n_rows -= partition.prune(&mut self.row_bytes, &mut self.changed);
            }
            self.partition_bytes = self.partition_bytes + partition.bytes(&key) - bytes_before;
            if partition.rows.is_empty() {
                self.partitions.remove(&key);
            }
        }
        if !output.is_empty() {
            out.push(self.encoding.decode(&output)?);
        }
        Ok(())
    }

    /// Puts the rows in, and looks at the windows of their partitions only to know where they end.
    fn load(&mut self, inputs: &mut [Vec<Delta>], _: &StepContext<'_>) -> Result<()> {
        inputs.iter_mut().flat_map(std::mem::take).try_for_each(|delta| self.restore(&delta))
    }

    fn track_changes(&mut self) {
        self.changed = matches!(self.plan.kept(), Kept::Rows { .. }).then(HashMap::new);
    }

    fn take_changes(&mut self, _: bool) -> Result<StateChanges> {
        let changed = self.changed.as_mut().map(std::mem::take).unwrap_or_default();
        let encoding = Arc::clone(&self.encoding);
        let rows = move || {
            let changed: Changes = changed.into_iter().collect();
            changed.chunks(DELTA_ROWS).map(|rows| encoding.decode(rows)).collect()
        };
        Ok(StateChanges { is_all_for: None, rows: Box::new(rows) })
    }

    fn restore(&mut self, rows: &Delta) -> Result<()> {
        let mut changes = ByPartition::new();
        self.encoding.split(rows, &mut changes)?;
        if self.plan.limit == Some(0) {
            return Ok(());
        }
        let window = Window { first: self.plan.offset, len: self.plan.limit };
        for (key, changes) in changes {
            let partition = self.partitions.entry_ref(&key[..]).or_default();
            let bytes_before = partition.bytes(&key);
            for (row, weight) in changes {
                self.n_rows = self.n_rows.saturating_add_signed(partition.add(row, weight, &mut self.row_bytes)?);
            }
            partition.end = window.end(&partition.rows);
            self.partition_bytes = self.partition_bytes + partition.bytes(&key) - bytes_before;
            if partition.rows.is_empty() {
                self.partitions.remove(&key);
            }
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.row_bytes
            + self.partition_bytes
            + self.partitions.allocation_size()
            + self.changed.as_ref().map_or(0, HashMap::allocation_size)
    }

    fn state_rows(&self) -> usize {
        self.n_rows
    }
}

/// Notes a change of the kept rows.
fn note(changed: &mut Option<HashMap<Encoded, i64>>, row: &Encoded, weight: i64) {
    let Some(changed) = changed else { return };
    let total = changed.entry(Arc::clone(row)).or_insert(0);
    *total += weight;
    if *total == 0 {
        changed.remove(row);
    }
}

impl Encoding {
    /// Adds the rows of a delta to the changes of their partitions.
    fn split(&self, delta: &Delta, changes: &mut ByPartition) -> Result<()> {
        let all = delta.rows().columns();
        let pick = |wanted: &[usize]| -> Vec<ArrayRef> { wanted.iter().filter_map(|i| all.get(*i).cloned()).collect() };
        let rows = self.rows.convert_columns(&pick(&self.columns))?;
        let keys = match self.partition_by.is_empty() {
            true => None,
            false => Some(self.keys.convert_columns(&pick(&self.partition_by))?),
        };
        for (row_idx, row) in rows.iter().enumerate() {
            let weight = delta.weight(row_idx);
            if weight != 0 {
                let key = keys.as_ref().map_or(&[][..], |k| k.row(row_idx).data());
                changes.entry_ref(key).or_default().push((row.data().into(), weight));
            }
        }
        Ok(())
    }

    /// Encoded rows as a delta of this operator's schema.
    fn decode(&self, changes: &[(Encoded, i64)]) -> Result<Delta> {
        let parser: RowParser = self.rows.parser();
        let decoded = self.rows.convert_rows(changes.iter().map(|(row, _)| parser.parse(row)))?;
        let mut columns = vec![];
        for (idx, field) in self.schema.fields().iter().enumerate() {
            let place = self.columns.iter().position(|c| *c == idx);
            let column = place.and_then(|p| decoded.get(p)).ok_or_else(|| SqlError::internal("a column is lost"))?;
            columns.push(cast(column, field.data_type())?);
        }
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        let weights: Int64Array = changes.iter().map(|(_, weight)| *weight).collect::<Vec<_>>().into();
        let is_plain = weights.values().iter().all(|w| *w == 1);
        Ok(Delta::new(rows, (!is_plain).then_some(weights)))
    }
}

impl Partition {
    /// Whether a row can still matter where rows only come.
    fn wants(&self, row: &Encoded) -> bool {
        self.end.as_ref().is_none_or(|end| row < end)
    }

    /// Bytes of the tree and the key; of none, nothing.
    fn bytes(&self, key: &[u8]) -> usize {
        let n_rows = self.rows.len();
        if n_rows == 0 { 0 } else { tree_bytes(n_rows) + key.len() }
    }

    /// Returns by how much the number of distinct rows changed.
    fn add(&mut self, row: Encoded, weight: i64, row_bytes: &mut usize) -> Result<isize> {
        let bytes = encoded_bytes(row.len());
        let count = self.rows.entry(Arc::clone(&row)).or_insert(0);
        let was_absent = *count == 0;
        *count = count.checked_add(weight).ok_or_else(|| SqlError::internal("too many copies of a row"))?;
        if *count == 0 {
            self.rows.remove(&row);
            *row_bytes -= bytes;
            return Ok(-1);
        }
        if was_absent {
            *row_bytes += bytes;
        }
        Ok(isize::from(was_absent))
    }

    /// Drops what lies behind a full window. Returns how many distinct rows that were.
    fn prune(&mut self, row_bytes: &mut usize, changed: &mut Option<HashMap<Encoded, i64>>) -> usize {
        let Some(end) = &self.end else { return 0 };
        let mut n_dropped = 0;
        while let Some(last) = self.rows.last_entry().filter(|last| last.key() > end) {
            let (row, count) = last.remove_entry();
            *row_bytes -= encoded_bytes(row.len());
            note(changed, &row, -count);
            n_dropped += 1;
        }
        n_dropped
    }
}

/// Bytes of an encoded row on the heap: behind an `Arc`'s two counts, filled up to words.
pub(crate) fn encoded_bytes(len: usize) -> usize {
    (2 * size_of::<usize>() + len).next_multiple_of(align_of::<usize>())
}

/// Bytes of the nodes of a B-tree: one has room for eleven rows, and is three quarters full where there are many.
fn tree_bytes(n_rows: usize) -> usize {
    const ROOM: usize = 11;
    let leaf_bytes = ROOM * size_of::<(Encoded, i64)>() + 2 * size_of::<usize>();
    if n_rows <= ROOM {
        return leaf_bytes;
    }
    let n_leaves = (n_rows * 10).div_ceil(83);
    let n_inner = (n_leaves * 10).div_ceil(89);
    n_leaves * leaf_bytes + n_inner * (leaf_bytes + (ROOM + 1) * size_of::<usize>())
}

/// Which rows of a partition come out.
#[derive(Clone, Copy)]
struct Window {
    first: u64,
    len: Option<u64>,
}

impl Window {
    /// The rows in it, in order, with how many copies; and whether it is full.
    fn of(self, rows: &BTreeMap<Encoded, i64>) -> (Changes, bool) {
        let mut skip = self.first;
        let mut room = self.len.unwrap_or(u64::MAX);
        let mut window = vec![];
        for (row, count) in rows {
            if room == 0 {
                break;
            }
            let count = u64::try_from(*count).unwrap_or(0);
            let skipped = skip.min(count);
            skip -= skipped;
            let taken = (count - skipped).min(room);
            room -= taken;
            if taken > 0 {
                window.push((Arc::clone(row), taken as i64));
            }
        }
        (window, room == 0)
    }
}

impl Window {
    /// The last row in it, where it is full.
    fn end(self, rows: &BTreeMap<Encoded, i64>) -> Option<Encoded> {
        let mut n_wanted = self.first.saturating_add(self.len?);
        let mut rows = rows.iter();
        rows.find_map(|(row, count)| {
            n_wanted = n_wanted.saturating_sub(u64::try_from(*count).unwrap_or(0));
            (n_wanted == 0).then(|| Arc::clone(row))
        })
    }
}

/// Appends what must be added to `before` to get `after`. Both are in order.
fn difference(before: &Changes, after: &Changes, out: &mut Changes) {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((b, _)), Some((a, _))) => b.cmp(a),
        };
        let old = if order.is_le() { before.next() } else { None };
        let new = if order.is_ge() { after.next() } else { None };
        let weight = new.map_or(0, |(_, n)| *n) - old.map_or(0, |(_, n)| *n);
        if let Some((row, _)) = old.or(new).filter(|_| weight != 0) {
            out.push((Arc::clone(row), weight));
        }
    }
}

impl fmt::Display for TopN {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order_by={:?}, limit={:?}, offset={}", self.order_by, self.limit, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::testing::{Row, Value, check_append_only, check_operator, schema};

    fn input() -> SchemaRef {
        let fields = [("k", DataType::Utf8View), ("v", DataType::Int64), ("w", DataType::Int32)];
        schema(fields.map(|(name, t)| Field::new(name, t, true)).to_vec())
    }

    /// By v, largest first, NULLs first; then by all columns as the operator says.
    fn naive(plan: &TopN, rows: &[Row]) -> Vec<Row> {
        // NULL sorts first where ties are broken: as the least value.
        let rank = |v: &Value| (*v != Value::Null, v.clone());
        let sort_key = |r: &Row| {
            let descending = match &r[1] {
                Value::Int(v) => (1, -v),
                _ => (0, 0),
            };
            (descending, rank(&r[0]), rank(&r[2]))
        };
        let mut partitions: BTreeMap<Vec<Value>, Vec<Row>> = BTreeMap::new();
        for row in rows {
            partitions
                .entry(plan.partition_by.iter().map(|c| row[*c].clone()).collect())
                .or_default()
                .push(row.clone());
        }
        let limit = plan.limit.map_or(usize::MAX, |l| l as usize);
        let window = |mut rows: Vec<Row>| {
            rows.sort_by_key(sort_key);
            rows.into_iter().skip(plan.offset as usize).take(limit)
        };
        partitions.into_values().flat_map(window).collect()
    }

    #[test]
    fn equals_the_first_rows_of_the_sorted_input() {
        for (partition_by, offset, limit) in [
            (vec![], 0, Some(3)),
            (vec![], 2, Some(4)),
            (vec![0], 0, Some(1)),
            (vec![0], 1, Some(2)),
            (vec![], 3, None),
            (vec![], 0, Some(0)),
        ] {
            for append_only in [false, true] {
                let plan = TopN {
                    partition_by: partition_by.clone(),
                    order_by: vec![SortKey { column: 1, descending: true, nulls_first: true }],
                    offset,
                    limit,
                    append_only,
                    schema: input(),
                };
                let subject = crate::Plan::TopN(plan.clone());
                let expected = |inputs: &[Vec<Row>]| naive(&plan, &inputs[0]);
                if append_only {
                    check_append_only(&[input()], &subject, expected);
                } else {
                    check_operator(&[input()], &subject, expected);
                }
            }
        }
    }

    #[test]
    fn input_that_only_grows_keeps_only_what_can_still_matter() {
        let plan = TopN {
            partition_by: vec![],
            order_by: vec![SortKey { column: 1, descending: false, nulls_first: false }],
            offset: 1,
            limit: Some(2),
            append_only: true,
            schema: input(),
        };
        let mut operator = plan.build().unwrap();
        let steps = crate::testing::Steps::default();
        for epoch in 1..50 {
            let row = |n: i64| vec![Value::Null, Value::Int(n), Value::Int(n)];
            let rows = [row(i64::from(epoch) * 7 % 50), row(i64::from(epoch) * 11 % 50)];
            let delta = Delta::insert(crate::testing::batch(&input(), &rows.iter().collect::<Vec<_>>()));
            operator.step(&mut [vec![delta]], &steps.context(epoch), &mut vec![]).unwrap();
            assert!(operator.state_rows() <= 3);
        }
    }
}
