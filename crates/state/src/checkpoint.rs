//! Checkpoints: the rows of all tables, the state of all views and the catalog at one moment and place of the log, so
//! that older log can go.
//!
//! A table has a base (all rows at some time) and files of what changed since. A checkpoint writes only what changed
//! since the last one; when the changes exceed a third of the base, a new base takes their place, and when there are
//! many small files of them, they are merged, each row a few times only. The manifest comes last. [`views`] has what is
//! different with the state of views, [`files`] how files are read and written.
//!
//! Invariant: every file that one of the two newest manifests names is there, and so is the log behind the older of
//! the two: when the newest is damaged, the other one serves.

mod files;
mod sums;
mod views;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidewire_types::{Delta, ObjectId, Result};
use tracing::warn;

pub use self::files::Files;
use self::files::Writer;
use self::sums::{change_batches, change_schema, coalesce, nullable, put_together, with_schema};
use self::views::Unwritten;
pub use self::views::{Moved, StateCut, ViewCut};
use crate::log::Progress;
use crate::record::{letter_schema, letters_from_rows, letters_to_rows};
use crate::rows::{batch_bytes, delta_bytes, read_file, write_file};
use crate::{FileEntry, Log, Manifest, Storage, StoredLetter, StoredObject, StoredSource, TableFiles};

/// Changes may be this part of the base before it is written anew.
const CHANGES_PER_BASE: u64 = 3;
/// How many files of one level are merged to one.
const MERGED_FILES: usize = 8;
/// Bytes in memory of the rows of one file of a base.
const BASE_FILE_BYTES: usize = 32 << 20;
/// Digits of a checkpoint's number in the names of its files.
const NUMBER_DIGITS: usize = 12;
/// Rows of one batch of a file of changes.
const BATCH_ROWS: usize = 65_536;
/// Bytes of files that one checkpoint puts together anew at most, but for one base that is larger: a checkpoint of many
/// large views would keep the next one waiting.
const REWRITE_BYTES_MAX: u64 = 256 << 20;

/// The checkpoints of one data directory.
pub struct Checkpoints {
    storage: Storage,
    files: Files,
    // The newest first, at most two.
    kept: Vec<Manifest>,
    // Of files, and of manifests: the latter has no gaps where several processes may write.
    next_number: u64,
    next_manifest: u64,
    // Tables whose changes since the last checkpoint were in one that could not be written.
    needs_base: HashSet<u32>,
    // The letters of checkpoints that could not be written.
    unwritten_letters: Vec<StoredLetter>,
    unwritten: Unwritten,
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
    /// Every view that works.
    pub views: Vec<ViewCut>,
    /// The state of views that has become another's since the last cut, in the order in which it did.
    pub moved: Vec<Moved>,
    /// How far sources were read.
    pub sources: Vec<StoredSource>,
    /// How many shards the state of views is divided into.
    pub n_shards: u32,
    /// New dead letters.
    pub dead_letters: Vec<StoredLetter>,
    /// Bytes of dead letter files that are kept; beyond, the oldest go.
    pub dead_letter_bytes_max: u64,
    /// The server is about to end: only what changed is written, no base anew.
    pub keeps_bases: bool,
    /// Whether the server is about to end by now.
    pub is_stopping: Box<dyn Fn() -> bool + Send>,
}

/// A checkpoint that was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of its files.
    pub n_bytes: u64,
    /// Bytes in memory, about, of what had changed.
    pub n_changed_bytes: u64,
}

/// The rows of a table, one batch after another.
pub type Rows = Box<dyn Iterator<Item = Result<RecordBatch>>>;

/// One table or view at that place.
pub struct TableCut {
    /// Its OID.
    pub table: ObjectId,
    /// Its columns.
    pub schema: SchemaRef,
    /// What changed since the last cut, in order. None: so much that all rows are written.
    pub changes: Option<Vec<Delta>>,
    /// Gives all of its rows.
    pub rows: Box<dyn FnOnce() -> Result<Rows> + Send>,
}

impl Checkpoints {
    /// Looks for checkpoints. Errors: one of a newer version of Tidewire.
    pub fn open(storage: Storage) -> Result<Checkpoints> {
        let files = Files::new(storage.clone());
        let mut checkpoints = Checkpoints {
            storage,
            files,
            kept: vec![],
            next_number: 1,
            next_manifest: 1,
            needs_base: HashSet::new(),
            unwritten_letters: vec![],
            unwritten: Unwritten::default(),
        };
        let names = checkpoints.list()?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| Manifest::number_of(name)).collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        checkpoints.next_manifest = numbers.first().map_or(1, |newest| newest + 1);
        let of_files = names.iter().filter_map(|name| number_of_file(name)).max();
        checkpoints.next_number = of_files.map_or(1, |newest| newest + 1).max(checkpoints.next_manifest);
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
                self.next_manifest = number + 1;
                self.next_number = self.next_number.max(self.next_manifest);
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(self.files.failed("write", &Manifest::file_name(number), &error)),
        }
    }

    /// Reads the files.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The dead letters of a checkpoint, the oldest first.
    pub fn read_dead_letters(&self, manifest: &Manifest) -> Result<Vec<StoredLetter>> {
        let mut letters = vec![];
        for entry in &manifest.dead_letters {
            for rows in read_file(&self.files.read(entry)?)? {
                letters.extend(letters_from_rows(&rows?)?);
            }
        }
        Ok(letters)
    }

    /// Writes a checkpoint, then removes the files and the log that no checkpoint needs any more.
    ///
    /// Errors: `53100`, `58030`; then the last checkpoint stays the newest, and the next one will hold what this would
    /// have. `55006` when another process writes checkpoints here too.
    pub fn write(&mut self, mut cut: Cut) -> Result<Written> {
        let number = self.next_number;
        self.next_number += 1;
        self.unwritten_letters.append(&mut cut.dead_letters);
        self.unwritten.take(&mut cut.views, std::mem::take(&mut cut.moved));
        let relations = cut.tables.iter().chain(cut.views.iter().map(|v| &v.relation));
        let is_changed = |table: &&TableCut| table.changes.as_ref().is_none_or(|changes| !changes.is_empty());
        let changed: Vec<u32> = relations.filter(is_changed).map(|t| t.table.0).collect();
        match self.write_files(number, cut) {
            Ok((manifest, written)) => {
                self.next_manifest += 1;
                self.kept.insert(0, manifest);
                self.kept.truncate(2);
                self.needs_base.clear();
                self.unwritten_letters.clear();
                self.unwritten.clear();
                // What cannot be removed now is removed behind a later checkpoint.
                if let Err(error) = self.remove_unused() {
                    warn!(%error, "could not remove files of old checkpoints");
                }
                Ok(written)
            }
            Err(error) => {
                // Something may be there all the same.
                self.next_manifest += u64::from(self.storage.checkpoints.owner().is_none());
                self.needs_base.extend(changed);
                Err(error)
            }
        }
    }

    fn write_files(&self, number: u64, mut cut: Cut) -> Result<(Manifest, Written)> {
        let before: HashMap<u32, &TableFiles> =
            self.newest().map(|m| m.tables.iter().map(|t| (t.table, t)).collect()).unwrap_or_default();
        let mut writer = Writer::new(&self.files, number, REWRITE_BYTES_MAX);
        let mut manifest = Manifest::new(self.next_manifest);
        for table in std::mem::take(&mut cut.tables) {
            let files = before.get(&table.table.0).copied();
            manifest.tables.push(self.write_table(&mut writer, "table", table, files, cut.keeps_bases)?);
        }
        manifest.views = self.write_views(&mut writer, &mut cut)?;
        manifest.dead_letters = self.newest().map(|m| m.dead_letters.clone()).unwrap_or_default();
        if !self.unwritten_letters.is_empty() {
            let rows = letters_to_rows(&self.unwritten_letters)?;
            let bytes = write_file(&letter_schema(), &[rows])?;
            manifest.dead_letters.push(writer.put(format!("dead-letters-{number:012}.arrow"), bytes, 0)?);
        }
        let name = |level| format!("dead-letters-{number:012}-merged{level}.arrow");
        merge(&mut writer, &mut manifest.dead_letters, name)?;
        while manifest.dead_letters.len() > 1
            && manifest.dead_letters.iter().map(|f| f.n_bytes).sum::<u64>() > cut.dead_letter_bytes_max
        {
            manifest.dead_letters.remove(0);
        }
        let packs = self.newest().map_or(&[][..], |newest| &newest.packs);
        let written = writer.finish(&mut manifest, packs)?;
        (manifest.log_from, manifest.last_oid, manifest.objects) = (cut.log_from, cut.last_oid, cut.objects);
        (manifest.n_shards, manifest.sources) = (cut.n_shards, cut.sources);
        cut.log.wait(cut.log_from)?;
        let bytes = manifest.encode()?;
        let written = Written { n_bytes: written.n_bytes + bytes.len() as u64, ..written };
        self.files.reach("manifest.put.before")?;
        self.files.put_new(&Manifest::file_name(manifest.number), bytes)?;
        self.files.reach("manifest.put.after")?;
        Ok((manifest, written))
    }

    /// Writes what changed in a table or view (`kind` says which, for the names of files).
    fn write_table(
        &self,
        writer: &mut Writer<'_>,
        kind: &str,
        cut: TableCut,
        before: Option<&TableFiles>,
        keeps_base: bool,
    ) -> Result<TableFiles> {
        let (table, number) = (cut.table.0, writer.number);
        let mut files = TableFiles { table, ..before.cloned().unwrap_or_default() };
        let listed = cut.changes.filter(|_| before.is_some() && !self.needs_base.contains(&table));
        let is_listed = listed.is_some();
        if let Some(changes) = listed {
            // A row that came and went since the last checkpoint leaves nothing.
            let schema = nullable(&cut.schema);
            let changes = put_together(&schema, changes, None)?;
            if changes.is_empty() {
                return Ok(files);
            }
            writer.note_changes(changes.iter().map(delta_bytes).sum());
            let bytes = write_file(&change_schema(&schema), &change_batches(&schema, &changes)?)?;
            let n_changes = bytes.len() as u64 + files.changes.iter().map(|f| f.n_bytes).sum::<u64>();
            let n_base = files.base.iter().map(|f| f.n_bytes).sum();
            if keeps_base || n_changes * CHANGES_PER_BASE <= n_base || !writer.may_rewrite(n_base) {
                files.changes.push(writer.put(format!("{kind}-{table}-changes-{number:012}.arrow"), bytes, 0)?);
                let name = |level| format!("{kind}-{table}-changes-{number:012}-merged{level}.arrow");
                merge(writer, &mut files.changes, name)?;
                return Ok(files);
            }
        }
        (files.base, files.changes) = (vec![], vec![]);
        let mut batches: Vec<RecordBatch> = vec![];
        let (mut n_bytes, mut n_all_bytes) = (0, 0);
        for rows in (cut.rows)()? {
            let rows = rows?;
            n_bytes += batch_bytes(&rows);
            n_all_bytes += batch_bytes(&rows);
            batches.push(rows);
            if n_bytes >= BASE_FILE_BYTES {
                write_base(writer, kind, &cut.schema, &std::mem::take(&mut batches), &mut files)?;
                n_bytes = 0;
            }
        }
        if !batches.is_empty() {
            write_base(writer, kind, &cut.schema, &batches, &mut files)?;
        }
        if !is_listed {
            writer.note_changes(n_all_bytes);
        }
        Ok(files)
    }

    /// Removes what neither of the two newest checkpoints names, and the log that neither needs.
    fn remove_unused(&self) -> Result<()> {
        let mut used: BTreeSet<&str> = self.kept.iter().flat_map(Manifest::files).map(|f| f.name.as_str()).collect();
        let manifests: Vec<String> = self.kept.iter().map(|m| Manifest::file_name(m.number)).collect();
        used.extend(manifests.iter().map(String::as_str));
        let unused: Vec<String> = self.list()?.into_iter().filter(|name| !used.contains(name.as_str())).collect();
        for name in unused {
            self.files.reach("store.delete.before")?;
            self.storage.checkpoints.delete(&name).map_err(|e| self.files.failed("remove", &name, &e))?;
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

    fn list(&self) -> Result<Vec<String>> {
        self.storage.checkpoints.list().map_err(|e| self.files.failed("list", "", &e))
    }

    fn get(&self, name: &str) -> Result<bytes::Bytes> {
        self.storage.checkpoints.get(name).map_err(|e| self.files.failed("read", name, &e))
    }
}

/// The number of the checkpoint that wrote a file: that of its manifest may be smaller.
fn number_of_file(name: &str) -> Option<u64> {
    name.split(['-', '.']).find(|part| part.len() == NUMBER_DIGITS)?.parse().ok()
}

fn write_base(
    writer: &mut Writer<'_>,
    kind: &str,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    files: &mut TableFiles,
) -> Result<()> {
    let batches = batches.iter().map(|rows| with_schema(schema, rows)).collect::<Result<Vec<_>>>()?;
    let name = format!("{kind}-{}-base-{:012}-part{:04}.arrow", files.table, writer.number, files.base.len());
    files.base.push(writer.put(name, write_file(schema, &batches)?, 0)?);
    Ok(())
}

/// Where there are many files of one level at the end, one of the next level takes their place.
fn merge(writer: &mut Writer<'_>, files: &mut Vec<FileEntry>, name: impl Fn(u32) -> String) -> Result<()> {
    while let Some(level) = files.last().map(|f| f.level) {
        let n = files.iter().rev().take_while(|f| f.level == level).count();
        if n < MERGED_FILES {
            break;
        }
        let merged = files.split_off(files.len() - n);
        let mut batches: Vec<RecordBatch> = vec![];
        for entry in &merged {
            for rows in read_file(&writer.read(entry)?)? {
                batches.push(rows?);
            }
        }
        // Files of the first layout have another last column: they are left as they are.
        let Some(schema) =
            batches.first().map(RecordBatch::schema).filter(|s| batches.iter().all(|b| b.schema() == *s))
        else {
            files.extend(merged.into_iter().map(|file| FileEntry { level: level + 1, ..file }));
            break;
        };
        let batches = coalesce(&schema, batches)?;
        files.push(writer.put(name(level + 1), write_file(&schema, &batches)?, level + 1)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};
    use tidewire_types::SqlState;

    use super::*;
    use crate::{DataDir, LogOptions, StatePart};

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
        // For the next cut.
        views: Vec<ViewCut>,
        moved: Vec<Moved>,
        // Whether changes are too many to be listed.
        are_many: bool,
    }

    impl Fixture {
        fn new() -> Fixture {
            let root = tempfile::tempdir().unwrap();
            let storage = DataDir::open(root.path()).unwrap().storage().unwrap();
            let log = Log::start(storage.clone(), 0, LogOptions::default(), || {}).unwrap();
            let checkpoints = Checkpoints::open(storage.clone()).unwrap();
            let (content, views, moved) = (vec![], vec![], vec![]);
            Fixture { _root: root, storage, log, checkpoints, content, views, moved, are_many: false }
        }

        fn write(&mut self, added: std::ops::Range<i64>, removed: std::ops::Range<i64>) -> Result<Written> {
            self.log.append(b"x", true).unwrap();
            self.content.retain(|a| !removed.contains(a));
            self.content.extend(added.clone());
            let content = rows(self.content.clone());
            let changes = vec![Delta::delete(rows(removed)), Delta::insert(rows(added))];
            let rows = move || Ok(Box::new([Ok(content)].into_iter()) as Rows);
            let changes = changes.into_iter().filter(|d| !d.is_empty()).collect();
            let changes = (!self.are_many).then_some(changes);
            let table = TableCut { table: TABLE, schema: schema(), changes, rows: Box::new(rows) };
            self.checkpoints.write(Cut {
                log_from: self.log.next(),
                log: self.log.progress().clone(),
                last_oid: TABLE.0,
                objects: vec![],
                tables: vec![table],
                views: std::mem::take(&mut self.views),
                moved: std::mem::take(&mut self.moved),
                sources: vec![],
                n_shards: 1,
                dead_letters: vec![],
                dead_letter_bytes_max: 1 << 20,
                keeps_bases: false,
                is_stopping: Box::new(|| false),
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
        checkpoints.files().read_table(&checkpoints.newest().unwrap().tables[0], &mut |deltas| {
            for delta in deltas {
                let values = delta.rows().column(0).as_primitive::<arrow::datatypes::Int64Type>();
                for (idx, value) in values.values().iter().enumerate() {
                    *found.entry(*value).or_default() += delta.weight(idx);
                }
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
    fn changes_that_are_not_listed_are_in_a_new_base() {
        let mut fixture = Fixture::new();
        fixture.write(0..1000, 0..0).unwrap();
        fixture.are_many = true;
        fixture.write(1000..1010, 0..990).unwrap();
        assert_eq!(fixture.read().unwrap(), (990..1010).collect::<Vec<_>>());
        // And so they are when that checkpoint could not be written.
        let name = Manifest::file_name(fixture.checkpoints.next_number);
        fixture.storage.checkpoints.put_new(&name, bytes::Bytes::from_static(b"x")).unwrap();
        fixture.write(2000..2010, 990..1000).unwrap_err();
        fixture.are_many = false;
        fixture.write(3000..3001, 1000..1001).unwrap();
        let expected: Vec<i64> = (1001..1010).chain(2000..2010).chain([3000]).collect();
        assert_eq!(fixture.read().unwrap(), expected);
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
        assert!(error.message().contains("small-000000000002.pack") && error.message().contains("checksum"), "{error}");
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

    const VIEW: ObjectId = ObjectId(16385);

    /// Two columns: a key and a value.
    fn pairs(values: &[(i64, i64)]) -> RecordBatch {
        let field = |name| Field::new(name, DataType::Int64, false);
        let schema = Arc::new(Schema::new(vec![field("k"), field("v")]));
        let column = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as _;
        let (keys, values) = values.iter().copied().unzip();
        RecordBatch::try_new(schema, vec![column(keys), column(values)]).unwrap()
    }

    /// A row and how often it is added.
    type Weighted = ((i64, i64), i64);

    /// The state of a view in three parts: one that only grows, a bag, and rows with a key.
    #[derive(Default)]
    struct State {
        sums: [HashMap<(i64, i64), i64>; 3],
        n_changed: usize,
    }

    const KEYS: [Option<usize>; 3] = [None, None, Some(1)];

    impl State {
        /// Changes in each part: what is added, removed, and its weight.
        fn change(&mut self, round: i64, n_rows: i64) -> Vec<StateCut> {
            let mut parts: [Vec<Weighted>; 3] = Default::default();
            for n in round * n_rows..(round + 1) * n_rows {
                parts[0].push(((n, n % 7), 1));
                // Half of the bag's rows go again at once, some later, and some are there twice.
                parts[1].push(((n % 1000, n % 3), 2));
                parts[1].push(((n % 1000, n % 3), if n % 2 == 0 { -2 } else { -1 }));
                if let Some(weight) = self.sums[1].get(&((n * 7) % 1000, 0)).copied().filter(|w| *w > 0 && n % 5 == 0) {
                    let row = ((n * 7) % 1000, 0);
                    if !parts[1].iter().any(|(r, w)| *r == row && *w < -2) {
                        parts[1].push((row, -weight));
                    }
                }
                parts[2].push(((n % 500, n), if n % 11 == 0 { -1 } else { 1 }));
            }
            for (idx, rows) in parts.iter().enumerate() {
                for ((k, v), weight) in rows {
                    if idx == 2 {
                        self.sums[2].retain(|(key, _), _| key != k);
                    }
                    if idx < 2 || *weight > 0 {
                        *self.sums[idx].entry((*k, *v)).or_default() += weight;
                    }
                }
                self.sums[idx].retain(|_, weight| *weight != 0);
                self.n_changed += rows.len();
            }
            let cut = |(idx, rows): (usize, Vec<Weighted>)| {
                // Now and then all rows, and not only what changed.
                let is_all_for = (idx == 2 && round % 3 == 1).then_some(rows.len());
                let rows = match is_all_for {
                    Some(_) => self.sums[2].iter().map(|(row, weight)| (*row, *weight)).collect(),
                    None => rows,
                };
                let weights = rows.iter().map(|(_, weight)| *weight).collect();
                let delta = Delta::new(pairs(&rows.into_iter().map(|(row, _)| row).collect::<Vec<_>>()), Some(weights));
                let part = StatePart { node: 3, shard: 0, input: (idx < 2).then_some(idx as u32) };
                let (schema, rows) = (delta.schema(), Box::new(move || Ok(vec![delta])));
                StateCut { part, schema, n_key_columns: KEYS[idx], is_all_for, rows }
            };
            parts.into_iter().enumerate().map(cut).collect()
        }

        fn check(&self, checkpoints: &Checkpoints) {
            self.check_of(VIEW, checkpoints);
        }

        fn check_of(&self, view: ObjectId, checkpoints: &Checkpoints) {
            let view = checkpoints.newest().unwrap().view(view).unwrap();
            for (idx, expected) in self.sums.iter().enumerate() {
                let input = (idx < 2).then_some(idx as u32);
                let files = view.operators.iter().find(|files| files.part.input == input).unwrap();
                let mut found: HashMap<(i64, i64), i64> = HashMap::new();
                let mut each = |deltas: Vec<Delta>| {
                    for delta in &deltas {
                        let column =
                            |idx: usize| delta.rows().column(idx).as_primitive::<arrow::datatypes::Int64Type>();
                        for row in 0..delta.n_rows() {
                            let sum = found.entry((column(0).value(row), column(1).value(row))).or_default();
                            *sum += delta.weight(row);
                            assert!(KEYS[idx].is_none() || *sum == 1, "each key once");
                        }
                    }
                    assert!(found.values().all(|weight| *weight >= 0), "a state after each list");
                    Ok(())
                };
                checkpoints.files().read_state(files, KEYS[idx], &mut each).unwrap();
                found.retain(|_, weight| *weight != 0);
                assert!(found == *expected, "part {idx}: {} rows of {}", found.len(), expected.len());
            }
        }
    }

    fn view(operators: Vec<StateCut>, is_new: bool) -> ViewCut {
        let empty = move || Ok(Box::new(std::iter::empty()) as Rows);
        let relation = TableCut { table: VIEW, schema: schema(), changes: Some(vec![]), rows: Box::new(empty) };
        let fingerprint = "f".into();
        ViewCut { fingerprint, is_new, relation, operators, shared: vec![], n_taken: BTreeMap::new() }
    }

    #[test]
    fn the_state_of_a_view_is_what_its_files_add_up_to() {
        let mut fixture = Fixture::new();
        let mut state = State::default();
        let (mut n_bytes, mut n_bytes_changed) = (0, 0);
        for round in 0..120 {
            let n_rows = if round == 0 { 20_000 } else { 400 };
            let operators = state.change(if round == 0 { 0 } else { 49 + round }, n_rows);
            n_bytes_changed = state.n_changed * 24;
            fixture.views = vec![view(operators, round == 0)];
            n_bytes += fixture.write(round..round + 1, 0..0).unwrap().n_bytes;
            if round % 10 == 0 || round > 110 {
                state.check(&Checkpoints::open(fixture.storage.clone()).unwrap());
            }
        }
        let manifest = fixture.checkpoints.newest().unwrap();
        let of_parts = &manifest.view(VIEW).unwrap().operators;
        assert!(of_parts.iter().all(|part| part.base.len() + part.changes.len() < 40), "files are merged");
        assert!(manifest.packs.len() < 80, "{} packs", manifest.packs.len());
        assert!(n_bytes < n_bytes_changed as u64 * 2, "{n_bytes} bytes written for {n_bytes_changed}");
        let names: HashSet<&str> =
            fixture.checkpoints.kept.iter().flat_map(Manifest::files).map(|f| f.name.as_str()).collect();
        assert_eq!(fixture.storage.checkpoints.list().unwrap().len(), names.len() + 2, "nothing else is there");
        // A view of that name that was built again begins anew.
        let mut state = State::default();
        fixture.views = vec![view(state.change(0, 100), true)];
        fixture.write(0..1, 0..0).unwrap();
        state.check(&fixture.checkpoints);
        // One that is not among those of a cut is gone.
        fixture.write(1..2, 0..0).unwrap();
        assert!(fixture.checkpoints.newest().unwrap().views.is_empty());
    }

    #[test]
    fn what_a_checkpoint_could_not_write_is_in_the_next_one() {
        for (n_failed, new_at) in (0..5).flat_map(|n| [(n, 0), (n, 3)]) {
            let mut fixture = Fixture::new();
            let mut state = State::default();
            fixture.views = vec![view(state.change(0, 1000), true)];
            fixture.write(0..1, 0..0).unwrap();
            for round in 1..=n_failed {
                if round == new_at {
                    state = State::default();
                }
                fixture.views = vec![view(state.change(round, 500), round == new_at)];
                // Another file of that name is in the way.
                let name = Manifest::file_name(fixture.checkpoints.next_number);
                fixture.storage.checkpoints.put_new(&name, bytes::Bytes::from_static(b"x")).unwrap();
                fixture.write(1..2, 0..0).unwrap_err();
            }
            fixture.views = vec![view(state.change(n_failed + 1, 500), false)];
            fixture.write(1..2, 0..0).unwrap();
            state.check(&Checkpoints::open(fixture.storage.clone()).unwrap());
        }
    }

    #[test]
    fn state_that_becomes_another_views_is_there_as_a_whole() {
        const PLAN: ObjectId = ObjectId(16386);
        // Of the cuts before the last one as many cannot be written.
        for n_failed in 0..3 {
            let mut fixture = Fixture::new();
            let mut state = State::default();
            fixture.views = vec![view(state.change(0, 1000), true)];
            fixture.write(0..1, 0..0).unwrap();
            for round in 1..4 {
                let mut operators = state.change(round, 500);
                fixture.views = match round {
                    1 => vec![view(operators, false)],
                    _ => {
                        operators.iter_mut().for_each(|cut| cut.part.node = 1);
                        let mut plan = view(operators, false);
                        plan.relation.table = PLAN;
                        vec![view(vec![], false), plan]
                    }
                };
                if round == 2 {
                    fixture.moved = vec![Moved { from: VIEW, to: PLAN, nodes: vec![7, 3] }];
                }
                if round + n_failed >= 3 && round < 3 {
                    let name = Manifest::file_name(fixture.checkpoints.next_number);
                    fixture.storage.checkpoints.put_new(&name, bytes::Bytes::from_static(b"x")).unwrap();
                    fixture.write(round..round + 1, 0..0).unwrap_err();
                } else {
                    fixture.write(round..round + 1, 0..0).unwrap();
                }
            }
            let checkpoints = Checkpoints::open(fixture.storage.clone()).unwrap();
            state.check_of(PLAN, &checkpoints);
            assert!(checkpoints.newest().unwrap().view(VIEW).unwrap().operators.is_empty());
        }
    }
}
