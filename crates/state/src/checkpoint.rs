//! Checkpoints: the rows of all tables and the catalog at one place of the log, so that older log can go.
//!
//! A table has a base (all rows at some time) and files of what changed since. A checkpoint writes only what changed
//! since the last one; when the changes exceed a third of the base, a new base takes their place, and when there are
//! many small files of them, they are merged, each row a few times only. The manifest comes last.
//!
//! Invariant: every file that one of the two newest manifests names is there, and so is the log behind the older of
//! the two: when the newest is damaged, the other one serves.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int8Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int8Type, Schema, SchemaRef};
use bytes::Bytes;
use tidewire_types::{Delta, ObjectId, Result, SqlError, SqlState};
use tracing::warn;

use crate::log::{Progress, failed, sql_error_in};
use crate::record::{letter_schema, letters_from_rows, letters_to_rows};
use crate::rows::{read_file, write_file};
use crate::{FileEntry, Log, Manifest, Storage, StoredLetter, StoredObject, TableFiles};

/// Changes may be this part of the base before it is written anew.
const CHANGES_PER_BASE: u64 = 3;
/// How many files of one level are merged to one.
const MERGED_FILES: usize = 8;
/// Bytes in memory of the rows of one file of a base.
const BASE_FILE_BYTES: usize = 32 << 20;
/// Rows of one batch of a file of changes.
const BATCH_ROWS: usize = 65_536;
/// The column of a file of changes that says whether a row was added (1) or removed (-1).
const CHANGE: &str = "tidewire.change";

/// The checkpoints of one data directory.
pub struct Checkpoints {
    storage: Storage,
    // The newest first, at most two.
    kept: Vec<Manifest>,
    // Of files, and of manifests: the latter has no gaps where several processes may write.
    next_number: u64,
    next_manifest: u64,
    // Tables whose changes since the last checkpoint were in one that could not be written.
    needs_base: HashSet<u32>,
    // The letters of checkpoints that could not be written.
    unwritten_letters: Vec<StoredLetter>,
}

/// What a checkpoint is made of: everything at one place of the log.
pub struct Cut {
    /// The first record of the log that is not in it.
    pub log_from: u64,
    /// The log, which must be durable up to there before the manifest is.
    pub log: Arc<Progress>,
    /// The last OID that was given out.
    pub last_oid: u32,
    /// The catalog.
    pub objects: Vec<StoredObject>,
    /// Every table.
    pub tables: Vec<TableCut>,
    /// New dead letters.
    pub dead_letters: Vec<StoredLetter>,
    /// Bytes of dead letter files that are kept; beyond, the oldest go.
    pub dead_letter_bytes_max: u64,
    /// The server is about to end: only what changed is written, no base anew.
    pub keeps_bases: bool,
}

/// The rows of a table, one batch after another.
pub type Rows = Box<dyn Iterator<Item = Result<RecordBatch>>>;

/// One table at that place.
pub struct TableCut {
    /// The table.
    pub table: ObjectId,
    /// Its columns.
    pub schema: SchemaRef,
    /// What changed since the last cut, in order.
    pub changes: Vec<Delta>,
    /// Gives all of its rows.
    pub rows: Box<dyn FnOnce() -> Result<Rows> + Send>,
}

impl Checkpoints {
    /// Looks for checkpoints. Errors: one of a newer version of Tidewire.
    pub fn open(storage: Storage) -> Result<Checkpoints> {
        let mut checkpoints = Checkpoints {
            storage,
            kept: vec![],
            next_number: 1,
            next_manifest: 1,
            needs_base: HashSet::new(),
            unwritten_letters: vec![],
        };
        let mut numbers: Vec<u64> = checkpoints.list()?.iter().filter_map(|name| Manifest::number_of(name)).collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        checkpoints.next_number = numbers.first().map_or(1, |newest| newest + 1);
        checkpoints.next_manifest = checkpoints.next_number;
        for number in numbers {
            let name = Manifest::file_name(number);
            match Manifest::decode(&checkpoints.get(&name)?)? {
                Some(manifest) if checkpoints.kept.len() < 2 => checkpoints.kept.push(manifest),
                Some(_) => {}
                None => warn!(file = %name, "a manifest is not whole: it is passed over"),
            }
        }
        Ok(checkpoints)
    }

    /// The newest checkpoint, where there is one.
    pub fn newest(&self) -> Option<&Manifest> {
        self.kept.first()
    }

    /// Passes over the newest checkpoint, which cannot be read. False where there is no older one.
    pub fn pass_over_newest(&mut self) -> bool {
        if self.kept.len() < 2 {
            return false;
        }
        self.kept.remove(0);
        true
    }

    /// Where another process may still write here: takes its next manifest's place with the newest one once more, so that
    /// none of its checkpoints comes behind this. False where it has written one meanwhile, and all is to be read again.
    pub fn fence(&mut self) -> Result<bool> {
        if self.storage.checkpoints.owner().is_none() {
            return Ok(true);
        }
        let number = self.next_manifest;
        let newest = self.newest().cloned().unwrap_or_else(|| Manifest::new(number));
        let manifest = Manifest { number, ..newest };
        match self.storage.checkpoints.put_new(&Manifest::file_name(number), manifest.encode()?) {
            Ok(()) => {
                self.storage.checkpoints.freeze();
                self.kept.insert(0, manifest);
                self.kept.truncate(2);
                (self.next_manifest, self.next_number) = (number + 1, number + 1);
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(self.failed("write", &Manifest::file_name(number), &error)),
        }
    }

    /// Calls `each` with the changes that make the table. Errors: `XX001` for a file that is damaged or missing.
    pub fn read_table(&self, files: &TableFiles, each: &mut dyn FnMut(Delta) -> Result<()>) -> Result<()> {
        for entry in &files.base {
            for rows in read_file(&self.read(entry)?)? {
                each(Delta::insert(rows?))?;
            }
        }
        for entry in &files.changes {
            for rows in read_file(&self.read(entry)?)? {
                split_changes(&rows?, each)?;
            }
        }
        Ok(())
    }

    /// The dead letters of a checkpoint, the oldest first.
    pub fn read_dead_letters(&self, manifest: &Manifest) -> Result<Vec<StoredLetter>> {
        let mut letters = vec![];
        for entry in &manifest.dead_letters {
            for rows in read_file(&self.read(entry)?)? {
                letters.extend(letters_from_rows(&rows?)?);
            }
        }
        Ok(letters)
    }

    /// Writes a checkpoint, then removes the files and the log that no checkpoint needs any more.
    ///
    /// Errors: `53100`, `58030`; then the last checkpoint stays the newest, and the next one will hold what this would
    /// have. `55006` when another process writes checkpoints here too.
    pub fn write(&mut self, cut: Cut) -> Result<()> {
        let number = self.next_number;
        self.next_number += 1;
        self.unwritten_letters.extend(cut.dead_letters.iter().cloned());
        let changed: Vec<u32> = cut.tables.iter().filter(|t| !t.changes.is_empty()).map(|t| t.table.0).collect();
        match self.write_files(number, cut) {
            Ok(manifest) => {
                self.next_manifest += 1;
                self.kept.insert(0, manifest);
                self.kept.truncate(2);
                self.needs_base.clear();
                self.unwritten_letters.clear();
                // What cannot be removed now is removed behind a later checkpoint.
                if let Err(error) = self.remove_unused() {
                    warn!(%error, "could not remove files of old checkpoints");
                }
                Ok(())
            }
            Err(error) => {
                // Something may be there all the same.
                self.next_manifest += u64::from(self.storage.checkpoints.owner().is_none());
                self.needs_base.extend(changed);
                Err(error)
            }
        }
    }

    fn write_files(&self, number: u64, cut: Cut) -> Result<Manifest> {
        let before: HashMap<u32, &TableFiles> =
            self.newest().map(|m| m.tables.iter().map(|t| (t.table, t)).collect()).unwrap_or_default();
        let mut manifest = Manifest::new(self.next_manifest);
        for table in cut.tables {
            let files = before.get(&table.table.0).copied();
            manifest.tables.push(self.write_table(number, table, files, cut.keeps_bases)?);
        }
        manifest.dead_letters = self.newest().map(|m| m.dead_letters.clone()).unwrap_or_default();
        if !self.unwritten_letters.is_empty() {
            let rows = letters_to_rows(&self.unwritten_letters)?;
            let bytes = write_file(&letter_schema(), &[rows])?;
            manifest.dead_letters.push(self.put(format!("dead-letters-{number:012}.arrow"), bytes, 0)?);
        }
        self.merge(&mut manifest.dead_letters, |level| format!("dead-letters-{number:012}-merged{level}.arrow"))?;
        while manifest.dead_letters.len() > 1
            && manifest.dead_letters.iter().map(|f| f.n_bytes).sum::<u64>() > cut.dead_letter_bytes_max
        {
            manifest.dead_letters.remove(0);
        }
        (manifest.log_from, manifest.last_oid, manifest.objects) = (cut.log_from, cut.last_oid, cut.objects);
        cut.log.wait(cut.log_from)?;
        self.reach("manifest.put.before")?;
        self.put_new(&Manifest::file_name(manifest.number), manifest.encode()?)?;
        self.reach("manifest.put.after")?;
        Ok(manifest)
    }

    fn write_table(
        &self,
        number: u64,
        cut: TableCut,
        before: Option<&TableFiles>,
        keeps_base: bool,
    ) -> Result<TableFiles> {
        let table = cut.table.0;
        let mut files = TableFiles { table, ..before.cloned().unwrap_or_default() };
        let needs_base = before.is_none() || self.needs_base.contains(&table);
        if cut.changes.is_empty() && !needs_base {
            return Ok(files);
        }
        if !needs_base {
            let bytes = write_file(&change_schema(&cut.schema), &change_batches(&cut.schema, &cut.changes)?)?;
            let n_changes = bytes.len() as u64 + files.changes.iter().map(|f| f.n_bytes).sum::<u64>();
            if keeps_base || n_changes * CHANGES_PER_BASE <= files.base.iter().map(|f| f.n_bytes).sum() {
                files.changes.push(self.put(format!("table-{table}-changes-{number:012}.arrow"), bytes, 0)?);
                let name = |level| format!("table-{table}-changes-{number:012}-merged{level}.arrow");
                self.merge(&mut files.changes, name)?;
                return Ok(files);
            }
        }
        (files.base, files.changes) = (vec![], vec![]);
        let mut batches: Vec<RecordBatch> = vec![];
        let mut n_bytes = 0;
        for rows in (cut.rows)()? {
            let rows = rows?;
            n_bytes += rows.get_array_memory_size();
            batches.push(rows);
            if n_bytes >= BASE_FILE_BYTES {
                self.write_base(number, &cut.schema, &std::mem::take(&mut batches), &mut files)?;
                n_bytes = 0;
            }
        }
        if !batches.is_empty() {
            self.write_base(number, &cut.schema, &batches, &mut files)?;
        }
        Ok(files)
    }

    fn write_base(
        &self,
        number: u64,
        schema: &SchemaRef,
        batches: &[RecordBatch],
        files: &mut TableFiles,
    ) -> Result<()> {
        let name = format!("table-{}-base-{number:012}-part{:04}.arrow", files.table, files.base.len());
        files.base.push(self.put(name, write_file(schema, batches)?, 0)?);
        Ok(())
    }

    /// Where there are many files of one level at the end, one of the next level takes their place.
    fn merge(&self, files: &mut Vec<FileEntry>, name: impl Fn(u32) -> String) -> Result<()> {
        while let Some(level) = files.last().map(|f| f.level) {
            let n = files.iter().rev().take_while(|f| f.level == level).count();
            if n < MERGED_FILES {
                break;
            }
            let merged = files.split_off(files.len() - n);
            let mut batches = vec![];
            for entry in &merged {
                for rows in read_file(&self.read(entry)?)? {
                    batches.push(rows?);
                }
            }
            let Some(schema) = batches.first().map(RecordBatch::schema) else { break };
            let batches = coalesce(&schema, batches)?;
            files.push(self.put(name(level + 1), write_file(&schema, &batches)?, level + 1)?);
        }
        Ok(())
    }

    /// Removes what neither of the two newest checkpoints names, and the log that neither needs.
    fn remove_unused(&self) -> Result<()> {
        let mut used: BTreeSet<&str> = self.kept.iter().flat_map(Manifest::files).map(|f| f.name.as_str()).collect();
        let manifests: Vec<String> = self.kept.iter().map(|m| Manifest::file_name(m.number)).collect();
        used.extend(manifests.iter().map(String::as_str));
        let unused: Vec<String> = self.list()?.into_iter().filter(|name| !used.contains(name.as_str())).collect();
        for name in unused {
            self.reach("store.delete.before")?;
            self.storage.checkpoints.delete(&name).map_err(|e| self.failed("remove", &name, &e))?;
        }
        match self.kept.as_slice() {
            [_, older] => Log::remove_before(&self.storage, older.log_from),
            _ => Ok(()),
        }
    }

    /// Removes files that a crash left behind. Called once, when the newest checkpoint has been read.
    pub fn remove_leftovers(&self) -> Result<()> {
        self.remove_unused()
    }

    fn put(&self, name: String, bytes: Vec<u8>, level: u32) -> Result<FileEntry> {
        let name = match (self.storage.checkpoints.owner(), name.strip_suffix(".arrow")) {
            (Some(owner), Some(stem)) => format!("{stem}-owner{owner}.arrow"),
            _ => name,
        };
        let entry = FileEntry { name, n_bytes: bytes.len() as u64, crc32c: crc32c::crc32c(&bytes), level };
        self.reach("store.put.before")?;
        self.put_new(&entry.name, bytes.into())?;
        self.reach("store.put.after")?;
        Ok(entry)
    }

    fn put_new(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.storage.checkpoints.put_new(name, bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists if sql_error_in(&error).is_some() => self.failed("write", name, &error),
            std::io::ErrorKind::AlreadyExists => {
                let place = self.storage.checkpoints.describe(name);
                SqlError::new(SqlState::ObjectInUse, format!("another process has written the checkpoint \"{place}\""))
                    .with_hint("Two servers must not use one data directory.")
            }
            _ => self.failed("write", name, &error),
        })
    }

    /// The bytes of a file, checked.
    pub(crate) fn read(&self, entry: &FileEntry) -> Result<Bytes> {
        let damaged = |why: String| {
            let place = self.storage.checkpoints.describe(&entry.name);
            SqlError::new(SqlState::DataCorrupted, format!("the checkpoint file \"{place}\" is damaged: {why}"))
                .with_hint("Restore the data directory from a backup.")
        };
        let bytes = match self.storage.checkpoints.get(&entry.name) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(damaged("it is missing".into())),
            Err(error) => return Err(self.failed("read", &entry.name, &error)),
        };
        if bytes.len() as u64 != entry.n_bytes {
            return Err(damaged(format!("it has {} bytes instead of {}", bytes.len(), entry.n_bytes)));
        }
        match crc32c::crc32c(&bytes) == entry.crc32c {
            true => Ok(bytes),
            false => Err(damaged("its checksum is wrong".into())),
        }
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        self.storage.checkpoints.get(name).map_err(|e| self.failed("read", name, &e))
    }

    fn list(&self) -> Result<Vec<String>> {
        self.storage.checkpoints.list().map_err(|e| self.failed("list", "", &e))
    }

    fn reach(&self, point: &'static str) -> Result<()> {
        self.storage.points.reach(point).map_err(|e| self.failed("write", point, &e))
    }

    fn failed(&self, what: &str, name: &str, error: &std::io::Error) -> SqlError {
        failed(what, &self.storage.checkpoints.describe(name), error)
    }
}

fn change_schema(schema: &Schema) -> SchemaRef {
    let change = Arc::new(Field::new(CHANGE, DataType::Int8, false));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([change]).collect::<Vec<_>>()))
}

/// Changes as rows with one more column, few large batches of them.
fn change_batches(schema: &SchemaRef, changes: &[Delta]) -> Result<Vec<RecordBatch>> {
    let schema = change_schema(schema);
    let mut batches = vec![];
    for delta in changes {
        let sign = if delta.weights().is_none() { 1 } else { -1 };
        let sign: ArrayRef = Arc::new(Int8Array::from_value(sign, delta.n_rows()));
        let columns = delta.rows().columns().iter().cloned().chain([sign]).collect();
        batches.push(RecordBatch::try_new(schema.clone(), columns)?);
    }
    coalesce(&schema, batches)
}

fn coalesce(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
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

/// What `change_batches` made rows of, as runs of rows of one kind.
fn split_changes(rows: &RecordBatch, each: &mut dyn FnMut(Delta) -> Result<()>) -> Result<()> {
    let n_columns = rows.num_columns().saturating_sub(1);
    let signs = rows.columns().last().and_then(|column| column.as_primitive_opt::<Int8Type>());
    let signs = signs.ok_or_else(|| SqlError::internal("a file of changes without its last column"))?.values().clone();
    let rows = rows.project(&(0..n_columns).collect::<Vec<_>>())?;
    let mut begin = 0;
    for run in signs.chunk_by(|a, b| a == b) {
        let part = rows.slice(begin, run.len());
        begin += run.len();
        each(if run.first() == Some(&1) { Delta::insert(part) } else { Delta::delete(part) })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;
    use crate::{DataDir, LogOptions};

    const TABLE: ObjectId = ObjectId(16384);

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]))
    }

    fn rows(values: impl IntoIterator<Item = i64>) -> RecordBatch {
        RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from_iter_values(values))]).unwrap()
    }

    /// A directory, its log, and the rows that its one table should have.
    struct Fixture {
        _root: tempfile::TempDir,
        storage: Storage,
        log: Log,
        checkpoints: Checkpoints,
        content: Vec<i64>,
    }

    impl Fixture {
        fn new() -> Fixture {
            let root = tempfile::tempdir().unwrap();
            let storage = DataDir::open(root.path()).unwrap().storage().unwrap();
            let log = Log::start(storage.clone(), 0, LogOptions::default(), || {}).unwrap();
            let checkpoints = Checkpoints::open(storage.clone()).unwrap();
            Fixture { _root: root, storage, log, checkpoints, content: vec![] }
        }

        fn write(&mut self, added: std::ops::Range<i64>, removed: std::ops::Range<i64>) -> Result<()> {
            self.log.append(b"x", true).unwrap();
            self.content.retain(|a| !removed.contains(a));
            self.content.extend(added.clone());
            let content = rows(self.content.clone());
            let changes = vec![Delta::delete(rows(removed)), Delta::insert(rows(added))];
            let rows = move || Ok(Box::new([Ok(content)].into_iter()) as Rows);
            let changes = changes.into_iter().filter(|d| !d.is_empty()).collect();
            let table = TableCut { table: TABLE, schema: schema(), changes, rows: Box::new(rows) };
            self.checkpoints.write(Cut {
                log_from: self.log.next(),
                log: self.log.progress().clone(),
                last_oid: TABLE.0,
                objects: vec![],
                tables: vec![table],
                dead_letters: vec![],
                dead_letter_bytes_max: 1 << 20,
                keeps_bases: false,
            })
        }

        /// What a start would find, sorted.
        fn read(&self) -> Result<Vec<i64>> {
            read(&Checkpoints::open(self.storage.clone())?)
        }

        fn files(&self) -> TableFiles {
            self.checkpoints.newest().unwrap().tables[0].clone()
        }

        fn spoil(&self, name: &str) {
            let mut bytes = self.storage.checkpoints.get(name).unwrap().to_vec();
            bytes[10] ^= 1;
            self.storage.checkpoints.delete(name).unwrap();
            self.storage.checkpoints.put_new(name, bytes.into()).unwrap();
        }
    }

    fn read(checkpoints: &Checkpoints) -> Result<Vec<i64>> {
        let mut found: HashMap<i64, i64> = HashMap::new();
        checkpoints.read_table(&checkpoints.newest().unwrap().tables[0], &mut |delta| {
            let values = delta.rows().column(0).as_primitive::<arrow::datatypes::Int64Type>();
            for (idx, value) in values.values().iter().enumerate() {
                *found.entry(*value).or_default() += delta.weight(idx);
            }
            Ok(())
        })?;
        assert!(found.values().all(|weight| [0, 1].contains(weight)), "{found:?}");
        let mut values: Vec<i64> =
            found.into_iter().filter(|(_, weight)| *weight == 1).map(|(value, _)| value).collect();
        values.sort_unstable();
        Ok(values)
    }

    #[test]
    fn a_checkpoint_writes_what_changed_and_a_new_base_when_that_is_much() {
        let mut fixture = Fixture::new();
        fixture.write(0..100_000, 0..0).unwrap();
        let base = fixture.files().base;
        for n in 0..60 {
            fixture.write(200_000 + n * 300..200_000 + (n + 1) * 300, n * 100..(n + 1) * 100).unwrap();
            let mut expected = fixture.content.clone();
            expected.sort_unstable();
            assert_eq!(fixture.read().unwrap(), expected, "after {n}");
            let files = fixture.files();
            assert_eq!(files.base, base, "little has changed");
            assert!(files.changes.len() < 2 * MERGED_FILES, "{} files", files.changes.len());
            let bytes = |files: &[FileEntry]| files.iter().map(|f| f.n_bytes).sum::<u64>();
            assert!(bytes(&files.changes) * CHANGES_PER_BASE <= bytes(&files.base) + 20_000);
        }
        fixture.write(300_000..400_000, 0..0).unwrap();
        assert!(fixture.files().base != base && fixture.files().changes.is_empty(), "much has changed");
        let named: usize = fixture.checkpoints.kept.iter().map(|m| m.files().count() + 1).sum();
        assert!(fixture.storage.checkpoints.list().unwrap().len() <= named, "nothing else is there");
    }

    #[test]
    fn a_damaged_file_is_told_and_the_checkpoint_before_serves() {
        let mut fixture = Fixture::new();
        fixture.write(0..10_000, 0..0).unwrap();
        let first = fixture.read().unwrap();
        fixture.write(20_000..20_010, 0..0).unwrap();
        fixture.spoil(&fixture.files().changes[0].name);
        let mut checkpoints = Checkpoints::open(fixture.storage.clone()).unwrap();
        let error = read(&checkpoints).unwrap_err();
        assert_eq!(error.state(), SqlState::DataCorrupted);
        assert!(error.message().contains("table-16384-changes-") && error.message().contains("checksum"), "{error}");
        assert!(checkpoints.pass_over_newest());
        assert_eq!(read(&checkpoints).unwrap(), first);
        assert_eq!(checkpoints.newest().unwrap().log_from, 1, "the log behind it is to be read");
        assert!(!checkpoints.pass_over_newest(), "there is no third one");
    }

    #[test]
    fn a_manifest_that_is_not_whole_is_passed_over() {
        let mut fixture = Fixture::new();
        fixture.write(0..10, 0..0).unwrap();
        fixture.write(10..20, 0..0).unwrap();
        fixture.spoil(&Manifest::file_name(2));
        assert_eq!(fixture.read().unwrap(), (0..10).collect::<Vec<_>>());
        fixture.checkpoints = Checkpoints::open(fixture.storage.clone()).unwrap();
        fixture.checkpoints.remove_leftovers().unwrap();
        fixture.write(20..30, 0..0).unwrap();
        assert_eq!(fixture.checkpoints.newest().unwrap().number, 3, "a number is used once");
    }

    #[test]
    fn two_processes_on_one_store_do_not_both_write() {
        let mut fixture = Fixture::new();
        let other = Checkpoints::open(fixture.storage.clone()).unwrap();
        fixture.write(0..10, 0..0).unwrap();
        fixture.checkpoints = other;
        assert_eq!(fixture.write(10..20, 0..0).unwrap_err().state(), SqlState::ObjectInUse);
    }
}
