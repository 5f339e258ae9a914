//! `INSERT .. ON CONFLICT DO NOTHING` within a transaction: which of its rows are new, at the moment of the statement.
//!
//! The client is told how many there are long before they are written. Invariant: they are all written, or the
//! transaction fails with `40001` because another one took a key meanwhile.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute;
use arrow::row::OwnedRow;
use tidewire_catalog::{Kind, Object};
use tidewire_operators::arrangement::ArrangementReader;
use tidewire_types::{Result, SqlError};

use super::Session;
use crate::shared::{Relation, Snapshot};
use crate::table::{Change, converter, owned_rows};

impl Session {
    /// The rows whose keys are free at the snapshot with what this transaction has written; of equal keys the first.
    pub(super) fn free_rows(&self, table: &Object, rows: &RecordBatch, snapshot: &Snapshot) -> Result<RecordBatch> {
        let primary_key = match &table.def {
            Kind::Table(def) => def.primary_key.as_slice(),
            Kind::Source(_) | Kind::View(_) | Kind::MaterializedView(_) | Kind::Index(_) => &[],
        };
        if primary_key.is_empty() || rows.num_rows() == 0 {
            return Ok(rows.clone());
        }
        let keys = rows.project(primary_key)?;
        let converter = converter(&keys)?;
        let keys_of = |rows: &RecordBatch| -> Result<Vec<OwnedRow>> {
            Ok(owned_rows(&converter, &rows.project(primary_key)?)?.collect())
        };
        let wanted: HashSet<_> = owned_rows(&converter, &keys)?.collect();
        let mut taken = HashSet::new();
        for present in present_keys(table, snapshot, primary_key, keys.columns())? {
            taken.extend(owned_rows(&converter, &present?)?.filter(|key| wanted.contains(key)));
        }
        for written in self.written.iter().filter(|written| written.table == table.id) {
            let (old, new) = match &written.change {
                Change::Insert(new, _) => (None, Some(new)),
                Change::Update(old, new) => (Some(old), Some(new)),
                Change::Delete(old) => (Some(old), None),
                Change::Truncate => {
                    taken.clear();
                    (None, None)
                }
            };
            for key in old.map(&keys_of).transpose()?.into_iter().flatten() {
                taken.remove(&key);
            }
            taken.extend(new.map(&keys_of).transpose()?.into_iter().flatten().filter(|key| wanted.contains(key)));
        }
        let free: BooleanArray = owned_rows(&converter, &keys)?.map(|key| Some(taken.insert(key))).collect();
        Ok(compute::filter_record_batch(rows, &free)?)
    }
}

/// The keys that the table has at the snapshot: at least those of `keys`.
fn present_keys(
    table: &Object,
    snapshot: &Snapshot,
    primary_key: &[usize],
    keys: &[ArrayRef],
) -> Result<Box<dyn Iterator<Item = Result<RecordBatch>> + Send>> {
    let moment = &snapshot.moment;
    let reader: &Arc<ArrangementReader> = match moment.relations.get(&table.id) {
        Some(Relation::Rows(reader)) => reader,
        Some(Relation::Failed(error)) => return Err(error.clone()),
        None => return Err(SqlError::internal("a table without rows")),
    };
    match reader.index_on(primary_key) {
        Some(index) => {
            if let Some(found) = reader.lookup(&index, moment.epoch, keys, primary_key)? {
                return Ok(Box::new(found.into_iter().map(Ok)));
            }
        }
        None if !reader.is_small() => snapshot.index_unique_key(table.id),
        None => {}
    }
    reader.scan(moment.epoch, Some(primary_key))
}
