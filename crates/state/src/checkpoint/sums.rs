//! Many changes as few: rows with weights, in files and put together.
//!
//! A bag's changes are summed up by whole row, so that a row that came and went leaves nothing; of keyed rows the newest
//! of each key counts. Both keep the order of first appearance, and neither changes what the rows add up to.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DynComparator, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array, make_comparator,
};
use arrow::compute::{SortOptions, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int8Type, Int64Type, Schema, SchemaRef};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use tidewire_types::{Delta, Result, SqlError, hash_rows};

use super::BATCH_ROWS;
use crate::rows::compact;

/// The column of a file of changes that says how often a row was added (negative: removed).
const CHANGE: &str = "tidewire.change";

/// What `deltas` add up to: those of a bag summed up, or the newest of each key. As they are where nothing can cancel.
pub(super) fn put_together(
    schema: &SchemaRef,
    mut deltas: Vec<Delta>,
    n_key_columns: Option<usize>,
) -> Result<Vec<Delta>> {
    deltas.retain(|delta| !delta.is_empty());
    if n_key_columns.is_none() && deltas.iter().all(adds_only) || deltas.is_empty() {
        return Ok(deltas);
    }
    let n_rows = deltas.iter().map(Delta::n_rows).sum();
    let batches = deltas.iter().map(|delta| with_schema(schema, delta.rows())).collect::<Result<Vec<_>>>()?;
    let rows = concat_batches_of(schema, &batches, n_rows)?;
    let mut weights: Vec<i64> = Vec::with_capacity(n_rows);
    for delta in &deltas {
        match delta.weights() {
            Some(of_delta) => weights.extend_from_slice(of_delta.values()),
            None => weights.extend(std::iter::repeat_n(1, delta.n_rows())),
        }
    }
    drop((batches, deltas));
    let columns = match n_key_columns {
        Some(n) => rows.columns().get(..n).unwrap_or_default(),
        None => rows.columns(),
    };
    // Values of some types cannot be compared: then rows stay apart.
    let Some(equals) = Equals::of(columns, n_rows) else { return Ok(vec![weighted(rows, weights)]) };
    let mut places: HashTable<(u64, u32)> = HashTable::with_capacity(n_rows);
    let mut kept: Vec<(u32, i64)> = Vec::with_capacity(n_rows);
    for ((hash, row), weight) in equals.hashes.iter().zip(0_u32..).zip(&weights) {
        let is_row = |(of, place): &(u64, u32)| {
            of == hash && kept.get(*place as usize).is_some_and(|(other, _)| equals.rows(row, *other))
        };
        match places.entry(*hash, is_row, |(hash, _)| *hash) {
            Entry::Vacant(vacant) => {
                vacant.insert((*hash, kept.len() as u32));
                kept.push((row, *weight));
            }
            Entry::Occupied(place) => match (kept.get_mut(place.get().1 as usize), n_key_columns) {
                (Some((_, sum)), None) => *sum += *weight,
                (Some(newest), Some(_)) => *newest = (row, *weight),
                (None, _) => {}
            },
        }
    }
    kept.retain(|(_, weight)| *weight != 0);
    if kept.is_empty() {
        return Ok(vec![]);
    }
    let rows = match kept.len() == n_rows {
        true => rows,
        false => take_record_batch(&rows, &UInt32Array::from_iter_values(kept.iter().map(|(row, _)| *row)))?,
    };
    Ok(vec![weighted(rows, kept.into_iter().map(|(_, weight)| weight).collect())])
}

/// Which rows have equal values.
struct Equals {
    hashes: Vec<u64>,
    columns: Vec<DynComparator>,
}

impl Equals {
    fn of(columns: &[ArrayRef], n_rows: usize) -> Option<Equals> {
        let mut hashes = vec![];
        hash_rows(columns, n_rows, &mut hashes).ok()?;
        let comparator = |column: &ArrayRef| make_comparator(column, column, SortOptions::default()).ok();
        Some(Equals { hashes, columns: columns.iter().map(comparator).collect::<Option<_>>()? })
    }

    fn rows(&self, one: u32, other: u32) -> bool {
        self.columns.iter().all(|compare| compare(one as usize, other as usize).is_eq())
    }
}

fn weighted(rows: RecordBatch, weights: Vec<i64>) -> Delta {
    match weights.iter().all(|weight| *weight == 1) {
        true => Delta::insert(rows),
        false => Delta::new(rows, Some(weights.into())),
    }
}

/// Whether no row is removed.
pub(super) fn adds_only(delta: &Delta) -> bool {
    delta.weights().is_none_or(|weights| weights.values().iter().all(|weight| *weight > 0))
}

/// Only the rows that are not removed.
pub(super) fn without_removed(delta: Delta) -> Result<Delta> {
    if adds_only(&delta) {
        return Ok(delta);
    }
    let kept: Vec<u32> =
        (0_u32..).zip(0..delta.n_rows()).filter(|(_, idx)| delta.weight(*idx) > 0).map(|(n, _)| n).collect();
    let weights = kept.iter().map(|idx| delta.weight(*idx as usize)).collect();
    Ok(weighted(take_record_batch(delta.rows(), &UInt32Array::from(kept))?, weights))
}

/// `rows` under a schema of the same types.
pub(super) fn with_schema(schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), rows.columns().to_vec(), &options)?)
}

fn concat_batches_of(schema: &SchemaRef, batches: &[RecordBatch], n_rows: usize) -> Result<RecordBatch> {
    match batches {
        [one] => Ok(one.clone()),
        _ if schema.fields().is_empty() => {
            let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
            Ok(RecordBatch::try_new_with_options(schema.clone(), vec![], &options)?)
        }
        _ => Ok(concat_batches(schema, batches)?),
    }
}

/// The columns of a file of changes. Nothing in it is declared NOT NULL: what the rows have decides.
pub(super) fn change_schema(schema: &Schema) -> SchemaRef {
    let change = Arc::new(Field::new(CHANGE, DataType::Int64, false));
    Arc::new(Schema::new(nullable(schema).fields().iter().cloned().chain([change]).collect::<Vec<_>>()))
}

/// The same columns, all of which may be NULL.
pub(super) fn nullable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Changes as rows with one more column, few large batches of them. They hold on to nothing but their own rows.
pub(super) fn change_batches(schema: &SchemaRef, changes: &[Delta]) -> Result<Vec<RecordBatch>> {
    let schema = change_schema(schema);
    let mut batches = vec![];
    for delta in changes {
        for begin in (0..delta.n_rows()).step_by(BATCH_ROWS) {
            let part = delta.slice(begin, BATCH_ROWS.min(delta.n_rows() - begin));
            let weights: ArrayRef = match part.weights() {
                Some(weights) => Arc::new(weights.clone()),
                None => Arc::new(Int64Array::from_value(1, part.n_rows())),
            };
            let columns = compact(part.rows())?.columns().iter().cloned().chain([weights]).collect();
            batches.push(RecordBatch::try_new(schema.clone(), columns)?);
        }
    }
    coalesce(&schema, batches)
}

/// Small batches put together.
pub(super) fn coalesce(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let mut out = vec![];
    let mut group: Vec<RecordBatch> = vec![];
    let mut n_rows = 0;
    for batch in batches {
        if n_rows + batch.num_rows() > BATCH_ROWS && !group.is_empty() {
            out.push(concat_batches(schema, &std::mem::take(&mut group))?);
            n_rows = 0;
        }
        n_rows += batch.num_rows();
        group.push(batch);
    }
    if !group.is_empty() {
        out.push(concat_batches(schema, &group)?);
    }
    Ok(out)
}

/// What `change_batches` made a batch of. The first layout wrote a byte for each row.
pub(super) fn changes_of(rows: &RecordBatch) -> Result<Delta> {
    let last = rows.columns().last().ok_or_else(no_weights)?;
    let weights: Int64Array = match last.data_type() {
        DataType::Int64 => last.as_primitive::<Int64Type>().clone(),
        DataType::Int8 => last.as_primitive::<Int8Type>().values().iter().map(|weight| i64::from(*weight)).collect(),
        _ => return Err(no_weights()),
    };
    let columns: Vec<usize> = (0..rows.num_columns() - 1).collect();
    let rows = rows.project(&columns)?;
    Ok(match weights.values().iter().all(|weight| *weight == 1) {
        true => Delta::insert(rows),
        false => Delta::new(rows, Some(weights)),
    })
}

fn no_weights() -> SqlError {
    SqlError::internal("a file of changes without its last column")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::array::StringViewArray;
    use proptest::prelude::*;

    use super::*;

    fn rows(values: &[(Option<i64>, &str)]) -> RecordBatch {
        let numbers: Int64Array = values.iter().map(|(n, _)| *n).collect();
        let texts: StringViewArray = values.iter().map(|(_, t)| Some(*t)).collect();
        RecordBatch::try_from_iter_with_nullable([
            ("n", Arc::new(numbers) as ArrayRef, true),
            ("t", Arc::new(texts) as ArrayRef, true),
        ])
        .unwrap()
    }

    fn content(deltas: &[Delta]) -> Vec<(Option<i64>, String, i64)> {
        let of_delta = |delta: &Delta| {
            let numbers = delta.rows().column(0).as_primitive::<Int64Type>();
            let texts = delta.rows().column(1).as_string_view();
            let n = |idx| (!numbers.is_null(idx)).then(|| numbers.value(idx));
            let row = |idx| (n(idx), texts.value(idx).to_string(), delta.weight(idx));
            (0..delta.n_rows()).map(row).collect::<Vec<_>>()
        };
        deltas.iter().flat_map(of_delta).collect()
    }

    #[test]
    fn of_keyed_rows_the_newest_counts() {
        let first = Delta::insert(rows(&[(Some(1), "a"), (None, "b"), (Some(2), "c")]));
        let then = Delta::new(rows(&[(Some(1), "d"), (Some(2), "")]), Some(vec![1, -1].into()));
        let kept = put_together(&first.schema(), vec![first.clone(), then], Some(1)).unwrap();
        let expected = vec![(Some(1), "d".into(), 1), (None, "b".into(), 1), (Some(2), String::new(), -1)];
        assert_eq!(content(&kept), expected);
        assert_eq!(content(&[without_removed(kept[0].clone()).unwrap()]), expected[..2]);
        // A key of no columns has one row.
        let kept = put_together(&first.schema(), vec![first.clone()], Some(0)).unwrap();
        assert_eq!(content(&kept), [(Some(2), "c".into(), 1)]);
    }

    proptest! {
        #[test]
        fn sums_and_files_keep_what_the_rows_add_up_to(
            steps in proptest::collection::vec(proptest::collection::vec((0_i64..4, 0..3_usize, -2_i64..3), 0..20), 0..6),
        ) {
            let texts = ["", "x", "a text that is too long to be kept in a view"];
            let mut expected: HashMap<(Option<i64>, String), i64> = HashMap::new();
            let mut deltas = vec![];
            for step in steps {
                let number = |n: i64| (n > 0).then_some(n);
                let values: Vec<_> = step.iter().map(|(n, t, _)| (number(*n), texts[*t])).collect();
                for ((n, t), (.., weight)) in values.iter().zip(&step) {
                    *expected.entry((*n, (*t).to_string())).or_default() += weight;
                }
                deltas.push(Delta::new(rows(&values), Some(step.iter().map(|(.., w)| *w).collect())));
            }
            expected.retain(|_, weight| *weight != 0);
            let schema = rows(&[]).schema();
            let mut found: HashMap<(Option<i64>, String), i64> = HashMap::new();
            for batch in change_batches(&schema, &deltas).unwrap() {
                for (n, t, weight) in content(&[changes_of(&batch).unwrap()]) {
                    *found.entry((n, t)).or_default() += weight;
                }
            }
            found.retain(|_, weight| *weight != 0);
            prop_assert_eq!(&found, &expected);
            let sums = content(&put_together(&schema, deltas.clone(), None).unwrap());
            // Without a removal equal rows stay apart.
            if deltas.iter().all(adds_only) {
                prop_assert!(sums.iter().all(|(.., weight)| *weight > 0));
            } else {
                prop_assert_eq!(sums.len(), expected.len());
            }
            let mut found: HashMap<(Option<i64>, String), i64> = HashMap::new();
            sums.into_iter().for_each(|(n, t, weight)| *found.entry((n, t)).or_default() += weight);
            found.retain(|_, weight| *weight != 0);
            prop_assert_eq!(found, expected);
        }
    }
}
