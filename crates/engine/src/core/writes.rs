//! The writes of an epoch: applied to their tables one after another, and logged together.
//!
//! Writers that come at the same time share what costs as much for one row as for many: rows of several INSERTs go into
//! their table at once, all that an epoch's writes did is one record of the log, and views get few deltas.
//!
//! Invariant: of each transaction all operations are applied and logged, or none.

use std::collections::{BTreeMap, HashSet};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use tidewire_types::{Delta, Epoch, ObjectId, Result, SqlError, SqlState, hash_rows};

use super::Core;
use super::publication::Reply;
use crate::runtime::{Changes, EpochChanges};
use crate::table::{Applied, Change, OnConflict, Operation, Write};

/// What an operation did to its table.
type Done = (ObjectId, Vec<Delta>);

/// INSERTs of one table that fail where a key is taken: each one's rows and the write that it is all of.
type Inserts = Vec<(RecordBatch, Write)>;

impl Core {
    /// Applies all writes: what to answer, and how many records of the log must be durable before anybody is told.
    pub(super) fn write_all(
        &mut self,
        writes: Vec<Write>,
        epoch: Epoch,
        changes: &mut EpochChanges,
    ) -> (Vec<Reply>, u64) {
        let synchronous = writes.iter().any(|write| write.synchronous);
        let (mut done, mut replies) = (vec![], vec![]);
        let mut inserts = BTreeMap::<ObjectId, Inserts>::new();
        for write in writes {
            if let [Operation { table, change: Change::Insert(rows, OnConflict::Fail) }] = write.operations.as_slice() {
                inserts.entry(*table).or_default().push((rows.clone(), write));
                continue;
            }
            // What came before it in the same tables is done before.
            for table in write.operations.iter().map(|operation| operation.table) {
                if let Some(inserts) = inserts.remove(&table) {
                    self.insert_all(table, inserts, epoch, &mut done, &mut replies);
                }
            }
            let result = self.write(write.operations, epoch, &mut done);
            replies.push((write.reply, result));
        }
        for (table, inserts) in inserts {
            self.insert_all(table, inserts, epoch, &mut done, &mut replies);
        }
        let logged = self.merged(&done).and_then(|merged| Ok((self.log(&merged, synchronous)?, merged)));
        let logged = match logged {
            Ok(logged) => Ok(logged),
            Err(error) => self.undo(&done, epoch).and(Err(error)),
        };
        match logged {
            Err(error) => {
                let refused = |(reply, result): Reply| (reply, result.and_then(|_| Err(error.clone())));
                (replies.into_iter().map(refused).collect(), 0)
            }
            Ok((n_durable, merged)) => {
                for (id, deltas) in merged {
                    if let Some(table) = self.tables.get(&id) {
                        let all = || (0..table.object.columns.len()).collect();
                        let entry = changes.entry(id).or_insert_with(|| Changes { columns: all(), deltas: vec![] });
                        entry.deltas.extend(deltas);
                    }
                }
                (replies, n_durable)
            }
        }
    }

    /// Rows of many writers at once; one by one where that does not work out for all of them.
    fn insert_all(
        &mut self,
        table: ObjectId,
        inserts: Inserts,
        epoch: Epoch,
        done: &mut Vec<Done>,
        replies: &mut Vec<Reply>,
    ) {
        if let Some(rows) = together(&inserts) {
            let together = Operation { table, change: Change::Insert(rows, OnConflict::Fail) };
            if self.write(vec![together], epoch, done).is_ok() {
                replies.extend(inserts.into_iter().map(|(rows, write)| (write.reply, Ok(vec![rows]))));
                return;
            }
        }
        for (rows, write) in inserts {
            let alone = Operation { table, change: Change::Insert(rows, OnConflict::Fail) };
            let result = self.write(vec![alone], epoch, done);
            replies.push((write.reply, result));
        }
    }

    /// One transaction: all of its operations or none; its rows.
    fn write(&mut self, operations: Vec<Operation>, epoch: Epoch, done: &mut Vec<Done>) -> Result<Vec<RecordBatch>> {
        let (mut own, mut rows) = (vec![], vec![]);
        for operation in operations {
            let id = operation.table;
            match self.apply(operation, epoch) {
                Ok(applied) => {
                    own.push((id, applied.deltas));
                    rows.push(applied.rows);
                }
                Err(error) => {
                    self.undo(&own, epoch)?;
                    return Err(error);
                }
            }
        }
        done.extend(own);
        Ok(rows)
    }

    fn apply(&mut self, operation: Operation, epoch: Epoch) -> Result<Applied> {
        let table = self.tables.get_mut(&operation.table);
        let table = table.ok_or_else(|| SqlError::new(SqlState::UndefinedTable, "the table has been dropped"))?;
        if let Change::Insert(rows, _) | Change::Update(_, rows) = &operation.change {
            self.shared.memory.check_write(&table.object.name.name, rows)?;
        }
        table.apply(operation.change, epoch)
    }

    /// The deltas of each table, as few as they can be without a change of what they say.
    fn merged(&self, done: &[Done]) -> Result<Vec<Done>> {
        let mut tables = BTreeMap::<ObjectId, Merging>::new();
        for (id, deltas) in done {
            let Some(table) = self.tables.get(id) else { continue };
            let merging = tables.entry(*id).or_default();
            deltas.iter().try_for_each(|delta| merging.push(delta.clone(), table.key_idxs()))?;
        }
        let ended = tables.into_iter().map(|(id, mut merging)| {
            merging.end_run();
            (id, merging.merged)
        });
        Ok(ended.collect())
    }

    fn undo(&mut self, done: &[Done], epoch: Epoch) -> Result<()> {
        for (id, deltas) in done.iter().rev() {
            if let Some(table) = self.tables.get_mut(id) {
                table.undo(deltas, epoch)?;
            }
        }
        Ok(())
    }
}

/// The rows of several INSERTs, where there are several.
fn together(inserts: &Inserts) -> Option<RecordBatch> {
    let (first, _) = inserts.first()?;
    if inserts.len() < 2 {
        return None;
    }
    concat_batches(first.schema_ref(), inserts.iter().map(|(rows, _)| rows)).ok()
}

/// Deltas of one table that may be told as what they remove and then what they add.
#[derive(Default)]
struct Merging {
    merged: Vec<Delta>,
    removed: Vec<Delta>,
    added: Vec<Delta>,
    // Of the keys in the first so many of `added`.
    hashes: HashSet<u64>,
    n_hashed: usize,
}

impl Merging {
    /// Takes the next delta; `key_idxs` are the columns that tell the table's rows apart.
    fn push(&mut self, delta: Delta, key_idxs: &[usize]) -> Result<()> {
        if delta.weights().is_none() {
            self.added.push(delta);
            return Ok(());
        }
        if !self.added.is_empty() {
            for added in self.added.get(self.n_hashed..).unwrap_or_default() {
                self.hashes.extend(key_hashes(added, key_idxs)?);
            }
            self.n_hashed = self.added.len();
            // A row that was added just now must not be removed before.
            if key_hashes(&delta, key_idxs)?.iter().any(|hash| self.hashes.contains(hash)) {
                self.end_run();
            }
        }
        self.removed.push(delta);
        Ok(())
    }

    fn end_run(&mut self) {
        self.merged.extend(as_one(std::mem::take(&mut self.removed), Delta::delete));
        self.merged.extend(as_one(std::mem::take(&mut self.added), Delta::insert));
        self.hashes.clear();
        self.n_hashed = 0;
    }
}

fn key_hashes(delta: &Delta, key_idxs: &[usize]) -> Result<Vec<u64>> {
    let mut hashes = vec![];
    hash_rows(delta.rows().project(key_idxs)?.columns(), delta.n_rows(), &mut hashes)?;
    Ok(hashes)
}

/// Several deltas as one; as they are where Arrow cannot put so many rows together.
fn as_one(deltas: Vec<Delta>, make: fn(RecordBatch) -> Delta) -> Vec<Delta> {
    match deltas.as_slice() {
        [first, _, ..] => match concat_batches(&first.schema(), deltas.iter().map(Delta::rows)) {
            Ok(rows) => vec![make(rows)],
            Err(_) => deltas,
        },
        _ => deltas,
    }
}
