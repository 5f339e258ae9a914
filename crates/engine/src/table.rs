//! Tables: the content, and how one write changes it.
//!
//! All writes of an epoch are applied one after another, each seeing the ones before it; a write is applied whole or
//! not at all.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute;
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use datafusion::prelude::SessionContext;
use tidewire_catalog::{CheckDef, ColumnDef, Kind, Object};
use tidewire_operators::arrangement::{Arrangement, Identity};
use tidewire_planner::{RowExprs, show};
use tidewire_types::{Delta, Epoch, ObjectId, Result, SqlError, SqlState, SqlType, as_grouped, hash_rows};
use tokio::sync::oneshot;

/// What one transaction writes, and who waits for it.
pub struct Write {
    /// Applied in order; all or none.
    pub operations: Vec<Operation>,
    /// Whether it is answered only when it is durable, and shown to nobody before.
    pub synchronous: bool,
    /// Answered when every view shows it: the rows of each operation.
    pub reply: oneshot::Sender<Result<Vec<RecordBatch>>>,
}

/// One statement's change of one table.
pub struct Operation {
    /// The table.
    pub table: ObjectId,
    /// The change.
    pub change: Change,
}

/// Kinds of changes. Batches have all the table's columns.
pub enum Change {
    /// New rows, and what to do about rows that are there already.
    Insert(RecordBatch, OnConflict),
    /// Rows as they are, and the rows to put in their place, pairwise.
    Update(RecordBatch, RecordBatch),
    /// Rows as they are, to be removed.
    Delete(RecordBatch),
    /// All rows.
    Truncate,
}

/// `existing` and `excluded` rows, pairwise, become new rows and which of them to write.
pub type Resolve = dyn Fn(&RecordBatch, &RecordBatch) -> Result<(RecordBatch, BooleanArray)> + Send + Sync;

/// What an INSERT does about a row whose key is taken.
#[derive(Clone)]
pub enum OnConflict {
    /// `23505`
    Fail,
    /// `23505`, with the context that the row of this index has.
    FailIn(Arc<dyn Fn(usize) -> String + Send + Sync>),
    /// `DO NOTHING`
    Ignore,
    /// `40001`: the keys were free when the statement ran, and its client was told so.
    FailIfTaken,
    /// `DO UPDATE`
    Update(Arc<Resolve>),
}

/// A table's content.
pub struct Table {
    /// What the catalog says.
    pub object: Arc<Object>,
    /// Its rows.
    pub rows: Arrangement,
    primary_key: Vec<usize>,
    // All of them where it has no key.
    key_idxs: Vec<usize>,
}

/// What a change did: the deltas, and the rows that RETURNING sees.
pub struct Applied {
    /// For views and subscriptions.
    pub deltas: Vec<Delta>,
    /// The rows that the statement wrote (removed, for a DELETE).
    pub rows: RecordBatch,
}

impl Table {
    /// An empty table.
    pub fn new(object: Arc<Object>) -> Result<Table> {
        let primary_key = match &object.def {
            Kind::Table(def) => def.primary_key.clone(),
            Kind::Source(_) | Kind::View(_) | Kind::MaterializedView(_) | Kind::Index(_) => vec![],
        };
        let identity = if primary_key.is_empty() { Identity::Bag } else { Identity::UniqueKey(primary_key.clone()) };
        let key_idxs = if primary_key.is_empty() { (0..object.columns.len()).collect() } else { primary_key.clone() };
        Ok(Table { rows: Arrangement::new(object.schema.clone(), identity)?, object, primary_key, key_idxs })
    }

    /// The columns that tell its rows apart.
    pub fn key_idxs(&self) -> &[usize] {
        &self.key_idxs
    }

    /// Applies one change as part of `epoch`.
    ///
    /// Errors: `23505` when a key would be there twice; then nothing has changed.
    pub fn apply(&mut self, change: Change, epoch: Epoch) -> Result<Applied> {
        let (removed, added, rows) = match change {
            Change::Insert(rows, on_conflict) => self.resolve(rows, &on_conflict)?,
            Change::Update(old, new) => {
                self.check_present(&old)?;
                self.check_update(&old, &new)?;
                (old, new.clone(), new)
            }
            Change::Delete(old) => {
                self.check_present(&old)?;
                (old.clone(), self.nothing(), old)
            }
            Change::Truncate => {
                let batches = self.rows.reader().scan(Epoch(epoch.0), None)?.collect::<Result<Vec<_>>>()?;
                let all = compute::concat_batches(&self.object.schema, &batches)?;
                (all.clone(), self.nothing(), all)
            }
        };
        let mut deltas = vec![];
        if removed.num_rows() > 0 {
            deltas.push(Delta::delete(removed));
        }
        if added.num_rows() > 0 {
            deltas.push(Delta::insert(added));
        }
        match self.rows.apply(&deltas, epoch) {
            // A table without a key finds out here that a row is no longer there.
            Err(_) if self.primary_key.is_empty() => Err(changed_meanwhile()),
            Err(error) => Err(error),
            Ok(()) => Ok(Applied { deltas, rows }),
        }
    }

    /// Takes a change of the same epoch back.
    pub fn undo(&mut self, deltas: &[Delta], epoch: Epoch) -> Result<()> {
        let back: Vec<_> = deltas.iter().rev().map(Delta::negate).collect();
        self.rows.apply(&back, epoch)
    }

    fn nothing(&self) -> RecordBatch {
        RecordBatch::new_empty(self.object.schema.clone())
    }

    /// What an INSERT removes, adds and returns.
    fn resolve(&self, rows: RecordBatch, on_conflict: &OnConflict) -> Result<(RecordBatch, RecordBatch, RecordBatch)> {
        if self.primary_key.is_empty() || rows.num_rows() == 0 {
            return Ok((self.nothing(), rows.clone(), rows));
        }
        let keys = rows.project(&self.primary_key)?;
        let (existing, found) = self.rows.get(&keys)?;
        let repeated = repeated_rows(&keys)?;
        let fresh: BooleanArray =
            found.iter().zip(&repeated).map(|(found, repeated)| Some(found.is_none() && !repeated)).collect();
        if fresh.true_count() == rows.num_rows() {
            return Ok((self.nothing(), rows.clone(), rows));
        }
        match on_conflict {
            OnConflict::Fail | OnConflict::FailIn(_) => {
                let taken = fresh.iter().position(|fresh| fresh == Some(false)).unwrap_or(0);
                let error = self.duplicate_key(&keys, taken);
                Err(match on_conflict {
                    OnConflict::FailIn(context) => error.with_context(context(taken)),
                    _ => error,
                })
            }
            OnConflict::FailIfTaken => Err(changed_meanwhile()),
            OnConflict::Ignore => {
                let rows = compute::filter_record_batch(&rows, &fresh)?;
                Ok((self.nothing(), rows.clone(), rows))
            }
            OnConflict::Update(resolve) => {
                if repeated.iter().any(|repeated| *repeated) {
                    return Err(SqlError::new(
                        SqlState::CardinalityViolation,
                        "ON CONFLICT DO UPDATE command cannot affect row a second time",
                    )
                    .with_hint(
                        "Ensure that no rows proposed for insertion within the same command have duplicate constrained values.",
                    ));
                }
                let excluded = compute::filter_record_batch(&rows, &compute::not(&fresh)?)?;
                let order: arrow::array::UInt32Array = found.iter().flatten().map(|idx| *idx as u32).collect();
                let existing = compute::take_record_batch(&existing, &order)?;
                let (updated, written) = resolve(&existing, &excluded)?;
                let old = compute::filter_record_batch(&existing, &written)?;
                let updated = compute::filter_record_batch(&updated, &written)?;
                let fresh = compute::filter_record_batch(&rows, &fresh)?;
                let added = compute::concat_batches(&self.object.schema, [&fresh, &updated])?;
                self.check_update(&old, &added)?;
                Ok((old, added.clone(), added))
            }
        }
    }

    /// Refuses rows that are not there as they are named: another session changed them meanwhile. `40001`
    fn check_present(&self, old: &RecordBatch) -> Result<()> {
        if self.primary_key.is_empty() || old.num_rows() == 0 {
            return Ok(());
        }
        let (present, found) = self.rows.get(&old.project(&self.primary_key)?)?;
        let converter = converter(old)?;
        let named = converter.convert_columns(old.columns())?;
        let present = converter.convert_columns(present.columns())?;
        let same =
            |(idx, found): (usize, &Option<usize>)| found.is_some_and(|place| present.row(place) == named.row(idx));
        match found.iter().enumerate().all(same) {
            true => Ok(()),
            false => Err(changed_meanwhile()),
        }
    }

    /// Refuses new rows whose key another row has: one that is not among the `old` ones, or another new one.
    fn check_update(&self, old: &RecordBatch, new: &RecordBatch) -> Result<()> {
        if self.primary_key.is_empty() {
            return Ok(());
        }
        let new_keys = new.project(&self.primary_key)?;
        if let Some(idx) = repeated_rows(&new_keys)?.iter().position(|repeated| *repeated) {
            return Err(self.duplicate_key(&new_keys, idx));
        }
        let (_, found) = self.rows.get(&new_keys)?;
        if found.iter().all(Option::is_none) {
            return Ok(());
        }
        let converter = converter(&new_keys)?;
        let leaving: HashSet<OwnedRow> = owned_rows(&converter, &old.project(&self.primary_key)?)?.collect();
        for (idx, (row, found)) in owned_rows(&converter, &new_keys)?.zip(&found).enumerate() {
            if found.is_some() && !leaving.contains(&row) {
                return Err(self.duplicate_key(&new_keys, idx));
            }
        }
        Ok(())
    }

    fn duplicate_key(&self, keys: &RecordBatch, idx: usize) -> SqlError {
        let table = &self.object.name.name;
        let names: Vec<_> = keys.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
        SqlError::new(
            SqlState::UniqueViolation,
            format!("duplicate key value violates unique constraint \"{table}_pkey\""),
        )
        .with_detail(format!("Key ({})=({}) already exists.", names.join(", "), row_text(keys, idx)))
    }
}

fn changed_meanwhile() -> SqlError {
    SqlError::new(SqlState::SerializationFailure, "could not serialize access due to concurrent update")
        .with_hint("Run the transaction again.")
}

/// For comparing rows.
pub fn converter(rows: &RecordBatch) -> Result<RowConverter> {
    let fields = rows.columns().iter().map(|c| SortField::new(c.data_type().clone())).collect();
    Ok(RowConverter::new(fields)?)
}

/// Rows that can be compared, as GROUP BY does it.
fn compared_rows(converter: &RowConverter, rows: &RecordBatch) -> Result<Rows> {
    let columns: Vec<ArrayRef> = rows.columns().iter().map(as_grouped).collect();
    Ok(converter.convert_columns(&columns)?)
}

/// Rows that can be compared, each by itself.
pub fn owned_rows(converter: &RowConverter, rows: &RecordBatch) -> Result<impl Iterator<Item = OwnedRow>> {
    let rows = compared_rows(converter, rows)?;
    Ok((0..rows.num_rows()).map(move |idx| rows.row(idx).owned()))
}

/// For each row, whether an equal one comes before it.
fn repeated_rows(rows: &RecordBatch) -> Result<Vec<bool>> {
    if rows.num_rows() < 2 {
        return Ok(vec![false; rows.num_rows()]);
    }
    let mut hashes = vec![];
    hash_rows(rows.columns(), rows.num_rows(), &mut hashes)?;
    let mut by_hash: Vec<(u64, usize)> = hashes.into_iter().zip(0..).collect();
    by_hash.sort_unstable();
    let mut repeated = vec![false; rows.num_rows()];
    // Mostly no two rows have one hash, and there is nothing to compare.
    let mut compared = None;
    for alike in by_hash.chunk_by(|l, r| l.0 == r.0).filter(|alike| alike.len() > 1) {
        let values = match &compared {
            Some(values) => values,
            None => compared.insert(compared_rows(&converter(rows)?, rows)?),
        };
        let mut seen = HashSet::with_capacity(alike.len());
        for (_, idx) in alike {
            if let Some(repeated) = repeated.get_mut(*idx) {
                *repeated = !seen.insert(values.row(*idx));
            }
        }
    }
    Ok(repeated)
}

/// The values of a row, as messages show them.
fn shown_values(rows: &RecordBatch, idx: usize) -> impl Iterator<Item = String> {
    rows.columns().iter().zip(rows.schema_ref().fields()).map(move |(column, field)| {
        let value = show(&column.slice(idx.min(column.len().saturating_sub(1)), 1), &SqlType::of(field));
        match value.as_ref().map(|value| (value.as_string_view_opt(), value.is_null(0))) {
            Ok((_, true)) => "null".to_string(),
            Ok((Some(value), false)) => value.value(0).to_string(),
            Ok((None, false)) | Err(_) => "?".to_string(),
        }
    })
}

/// The values of a row, with commas.
pub fn row_text(rows: &RecordBatch, idx: usize) -> String {
    shown_values(rows, idx).collect::<Vec<_>>().join(", ")
}

/// Bytes of a value that the message about its row shows.
const SHOWN_BYTES: usize = 64;

/// What rows of a table must be, besides unique.
#[derive(Clone)]
pub struct Constraints {
    table: Arc<Object>,
    // None where there are no CHECK constraints.
    checks: Option<Arc<RowExprs>>,
    session: SessionContext,
}

impl Constraints {
    /// `checks` are those of the table.
    pub fn new(table: Arc<Object>, checks: Option<Arc<RowExprs>>, session: SessionContext) -> Constraints {
        Constraints { table, checks, session }
    }

    /// Refuses the first row that has NULL where a column is NOT NULL, `23502`, or that fails a CHECK constraint, `23514`.
    pub fn check(&self, rows: &RecordBatch) -> Result<()> {
        let first_null = |(column, values): (&ColumnDef, &ArrayRef)| {
            let is_checked = column.not_null && values.null_count() > 0;
            is_checked
                .then(|| (0..values.len()).find(|idx| values.is_null(*idx)).map(|idx| (idx, column.name.clone())))?
        };
        let columns = self.table.columns.iter().zip(rows.columns());
        // Of several in one row the first.
        let null = columns.filter_map(first_null).min_by_key(|(idx, _)| *idx);
        if let Some(checks) = &self.checks {
            let n_before = null.as_ref().map_or(rows.num_rows(), |(idx, _)| *idx);
            let failed = self.first_failed(checks, &rows.slice(0, n_before))?;
            if let Some((idx, check)) = failed {
                let name = &self.table.name.name;
                let message = format!("new row for relation \"{name}\" violates check constraint \"{}\"", check.name);
                return Err(failing_row(SqlError::new(SqlState::CheckViolation, message), rows, idx));
            }
        }
        let Some((idx, column)) = null else { return Ok(()) };
        let relation = &self.table.name.name;
        let message =
            format!("null value in column \"{column}\" of relation \"{relation}\" violates not-null constraint");
        Err(failing_row(SqlError::new(SqlState::NotNullViolation, message), rows, idx))
    }

    /// The first row that fails a check, and the first check that it fails.
    fn first_failed(&self, checks: &RowExprs, rows: &RecordBatch) -> Result<Option<(usize, &CheckDef)>> {
        if rows.num_rows() == 0 {
            return Ok(None);
        }
        let conditions = checks.conditions(rows, &self.session)?;
        let first = |(values, check): (BooleanArray, _)| {
            // NULL is not false.
            Some((values.iter().position(|value| value == Some(false))?, check))
        };
        Ok(conditions.into_iter().zip(self.table.checks()).filter_map(first).min_by_key(|(idx, _)| *idx))
    }
}

fn failing_row(error: SqlError, rows: &RecordBatch, idx: usize) -> SqlError {
    let values = shown_values(rows, idx).map(|value| shortened(&value, SHOWN_BYTES));
    error.with_detail(format!("Failing row contains ({}).", values.collect::<Vec<_>>().join(", ")))
}

/// At most so many bytes of a text.
pub fn shortened(text: &str, n_bytes_max: usize) -> String {
    if text.len() <= n_bytes_max {
        return text.to_owned();
    }
    let end = (0..=n_bytes_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", text.get(..end).unwrap_or_default())
}
