//! The state of materialized views: what changed in each part of it since the last checkpoint, and all of it now and then.
//!
//! As with tables a part has a base and files of changes, and changes that exceed a third of the base are put together
//! with it. But nobody else has a part's rows: the base is written anew from the files themselves, in passes over parts
//! of the key space where it is large, and changes whose checkpoint could not be written stay here for the next one.
//!
//! Invariant: what a part's files add up to is the part's state at the checkpoint's moment.

use std::collections::{BTreeMap, HashSet};

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use tidewire_types::{Delta, ObjectId, Result, SqlError, SqlState, hash_rows};
use tracing::warn;

use super::files::{Files, Writer};
use super::sums::{adds_only, change_batches, change_schema, changes_of, put_together, without_removed};
use super::{BASE_FILE_BYTES, CHANGES_PER_BASE, Checkpoints, Cut, MERGED_FILES, TableCut};
use crate::rows::{batch_bytes, compact, delta_bytes, read_file, write_file};
use crate::{FileEntry, Manifest, SharedNode, StateFiles, StatePart, ViewFiles};

/// Files are merged up to this size.
const MERGED_BYTES_MAX: u64 = 64 << 20;
/// Bytes in memory, about, of what one pass puts together.
const PASS_BYTES: u64 = 256 << 20;
/// How much larger rows are in memory than in a file, about.
const BYTES_PER_FILE_BYTE: u64 = 4;

/// The level of a file that was written with all others of its base: it is not merged.
const WHOLE: u32 = u32::MAX;

/// One materialized view at the moment of a checkpoint.
pub struct ViewCut {
    /// What its operators' state means.
    pub fingerprint: String,
    /// Whether files that an earlier checkpoint has of it are of another life.
    pub is_new: bool,
    /// Its rows.
    pub relation: TableCut,
    /// What changed in its operators.
    pub operators: Vec<StateCut>,
    /// The nodes whose rows come from a shared plan.
    pub shared: Vec<SharedNode>,
    /// For each node that reads an object, the rows that came.
    pub n_taken: BTreeMap<u32, u64>,
}

/// The state of some nodes of a view has become another view's.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Whose it was.
    pub from: ObjectId,
    /// Whose it is now.
    pub to: ObjectId,
    /// For each node, which one it was there.
    pub nodes: Vec<u32>,
}

impl Moved {
    /// Where a part is now; None: it has stayed.
    fn place(&self, part: StatePart) -> Option<StatePart> {
        let node = (0_u32..).zip(&self.nodes).find(|(_, old)| **old == part.node)?.0;
        Some(StatePart { node, ..part })
    }
}

/// One part of a view's state.
pub struct StateCut {
    /// Which.
    pub part: StatePart,
    /// Its columns.
    pub schema: SchemaRef,
    /// How many of them are a key: the newest row of a key counts, and one of weight -1 says that there is none. None: a
    /// bag, weights add up.
    pub n_key_columns: Option<usize>,
    /// The rows are all there are, and so many of them changed. None: they are what changed.
    pub is_all_for: Option<usize>,
    /// Makes its rows: what changed since the last cut, in order, or all there are. Called on the thread that writes, which
    /// it may keep waiting.
    pub rows: Box<dyn FnOnce() -> Result<Vec<Delta>> + Send>,
}

/// What is to be written of views: changes of the last cut, and of cuts before it that could not be written.
#[derive(Default)]
pub(super) struct Unwritten {
    views: BTreeMap<u32, View>,
    moved: Vec<Moved>,
    // Views whose changes were lost: they are in no checkpoint, and so are built again.
    lost: HashSet<u32>,
}

#[derive(Default)]
struct View {
    is_new: bool,
    parts: BTreeMap<StatePart, Part>,
}

struct Part {
    schema: SchemaRef,
    n_key_columns: Option<usize>,
    changes: Vec<Delta>,
    // The changes are all there is.
    is_all: bool,
    // Bytes in memory, about, of what changed.
    n_changed_bytes: usize,
}

impl Unwritten {
    /// Takes the views of a cut over; their relations and fingerprints stay with the cut.
    pub(super) fn take(&mut self, views: &mut [ViewCut], moved: Vec<Moved>) {
        moved.into_iter().for_each(|moved| self.take_moved(moved));
        let there: HashSet<u32> = views.iter().map(|view| view.relation.table.0).collect();
        self.views.retain(|view, _| there.contains(view));
        self.lost.retain(|view| there.contains(view));
        for view in views {
            let id = view.relation.table.0;
            if view.is_new {
                self.lost.remove(&id);
                self.views.insert(id, View { is_new: true, parts: BTreeMap::new() });
            }
            let unwritten = self.views.entry(id).or_default();
            for part in std::mem::take(&mut view.operators) {
                if let Err(error) = unwritten.add(part) {
                    warn!(view = id, %error, "the view's state cannot be kept: it is built again at the next start");
                    self.lost.insert(id);
                }
            }
        }
    }

    fn take_moved(&mut self, moved: Moved) {
        let (from, to) = (moved.from.0, moved.to.0);
        if self.lost.contains(&from) {
            self.lost.insert(to);
        }
        if let Some(view) = self.views.get_mut(&from) {
            let parts = std::mem::take(&mut view.parts);
            let (is_new, mut others) = (view.is_new, BTreeMap::new());
            for (part, changes) in parts {
                match moved.place(part) {
                    Some(place) => others.insert(place, changes),
                    None => view.parts.insert(part, changes),
                };
            }
            self.views.insert(to, View { is_new, parts: others });
        }
        self.moved.push(moved);
    }

    /// What the last checkpoint has of each view, as it would be had state not moved since.
    fn before(&self, newest: Option<&Manifest>) -> BTreeMap<u32, ViewFiles> {
        let is_old = |id: &u32| !self.views.get(id).is_some_and(|view| view.is_new);
        let views = newest.iter().flat_map(|manifest| &manifest.views).map(|v| (v.relation.table, v.clone()));
        let mut before: BTreeMap<u32, ViewFiles> = views.filter(|(id, _)| is_old(id)).collect();
        for moved in &self.moved {
            let Some(view) = before.get_mut(&moved.from.0) else { continue };
            let mut files = ViewFiles::default();
            for mut part in std::mem::take(&mut view.operators) {
                match moved.place(part.part) {
                    Some(place) => {
                        part.part = place;
                        files.operators.push(part);
                    }
                    None => view.operators.push(part),
                }
            }
            files.relation.table = moved.to.0;
            before.insert(moved.to.0, files);
        }
        before
    }

    /// Everything is written.
    pub(super) fn clear(&mut self) {
        self.views.clear();
        self.moved.clear();
    }
}

impl View {
    fn add(&mut self, cut: StateCut) -> Result<()> {
        let mut changes = (cut.rows)()?;
        changes.retain(|delta| !delta.is_empty());
        let (schema, n_key_columns) = (super::sums::nullable(&cut.schema), cut.n_key_columns);
        let n_bytes: usize = changes.iter().map(delta_bytes).sum();
        if let Some(n_changed) = cut.is_all_for {
            let n_rows: usize = changes.iter().map(Delta::n_rows).sum();
            let n_changed_bytes = n_bytes / n_rows.max(1) * n_changed.min(n_rows);
            self.parts.insert(cut.part, Part { schema, n_key_columns, changes, is_all: true, n_changed_bytes });
            return Ok(());
        }
        let nothing = Part { schema, n_key_columns, changes: vec![], is_all: false, n_changed_bytes: 0 };
        let part = self.parts.entry(cut.part).or_insert(nothing);
        part.n_changed_bytes += n_bytes;
        // Of one cut a key has one row, unless it was removed.
        let is_sum = part.changes.is_empty() && changes.iter().all(adds_only);
        part.changes.append(&mut changes);
        if !is_sum {
            part.changes = put_together(&part.schema, std::mem::take(&mut part.changes), n_key_columns)?;
        }
        Ok(())
    }
}

impl Checkpoints {
    /// Writes what changed in the views of a cut; the files of all of them.
    pub(super) fn write_views(&self, writer: &mut Writer<'_>, cut: &mut Cut) -> Result<Vec<ViewFiles>> {
        let mut written = vec![];
        let before = self.unwritten.before(self.newest());
        for view in std::mem::take(&mut cut.views) {
            let id = view.relation.table.0;
            if self.unwritten.lost.contains(&id) {
                continue;
            }
            let unwritten = self.unwritten.views.get(&id);
            let before = before.get(&id);
            let relation =
                self.write_table(writer, "view", view.relation, before.map(|v| &v.relation), cut.keeps_bases)?;
            let mut files: BTreeMap<StatePart, StateFiles> =
                before.iter().flat_map(|v| &v.operators).map(|files| (files.part, files.clone())).collect();
            for (part, changed) in unwritten.iter().flat_map(|view| &view.parts) {
                let files = files.entry(*part).or_insert_with(|| StateFiles { part: *part, ..StateFiles::default() });
                write_part(writer, id, changed, files, cut)?;
            }
            let (fingerprint, operators) = (view.fingerprint, files.into_values().collect());
            let (shared, n_taken) = (view.shared, view.n_taken);
            written.push(ViewFiles { fingerprint, relation, operators, shared, n_taken });
        }
        Ok(written)
    }
}

fn file_name(view: u32, part: &StatePart, rest: &str) -> String {
    let StatePart { node, shard, input } = part;
    match input {
        Some(input) => format!("view-{view}-operator{node}-input{input}-shard{shard}-{rest}.arrow"),
        None => format!("view-{view}-operator{node}-rows-shard{shard}-{rest}.arrow"),
    }
}

fn n_bytes(files: &[FileEntry]) -> u64 {
    files.iter().map(|file| file.n_bytes).sum()
}

fn write_part(writer: &mut Writer<'_>, view: u32, changed: &Part, files: &mut StateFiles, cut: &Cut) -> Result<()> {
    writer.note_changes(changed.n_changed_bytes);
    if changed.is_all {
        let mut base = vec![];
        write_base(writer, view, changed, files, &changed.changes, &mut base)?;
        (files.base, files.changes) = (base, vec![]);
        return Ok(());
    }
    let changes = &changed.changes;
    if changes.is_empty() {
        return Ok(());
    }
    let bytes = write_file(&change_schema(&changed.schema), &change_batches(&changed.schema, changes)?)?;
    let (n_base, n_changes) = (n_bytes(&files.base), n_bytes(&files.changes) + bytes.len() as u64);
    let adds = changed.n_key_columns.is_none() && changes.iter().all(adds_only);
    let is_much = n_changes * CHANGES_PER_BASE > n_base;
    if adds && files.changes.iter().all(|file| file.adds_only) {
        // Rows that only come need not be put together: the files are a base as they are.
        files.base.append(&mut files.changes);
        let part = files.base.len();
        let name = file_name(view, &files.part, &format!("base-{:012}-part{part:04}", writer.number));
        let level = 0;
        files.base.push(FileEntry { adds_only: true, ..writer.put(name, bytes, level)? });
        return keep_going(merge(writer, view, changed, files, Merged::Base));
    }
    let is_first = files.base.is_empty() && files.changes.is_empty();
    if is_much && (is_first || !(cut.keeps_bases || (cut.is_stopping)()) && writer.may_rewrite(n_base + n_changes)) {
        match rewrite(writer, view, changed, files) {
            Ok(base) => {
                (files.base, files.changes) = (base, vec![]);
                return Ok(());
            }
            Err(error) if is_first => return Err(error),
            Err(error) => keep_going(Err(error))?,
        }
    }
    let name = file_name(view, &files.part, &format!("changes-{:012}", writer.number));
    files.changes.push(FileEntry { adds_only: adds, ..writer.put(name, bytes, 0)? });
    keep_going(merge(writer, view, changed, files, Merged::Changes))
}

/// A file that cannot be read cannot be put together with others: everything stays as it is, and the next start, which
/// will find the damage, builds the view again.
fn keep_going(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.state() == SqlState::DataCorrupted => {
            warn!(%error, "a view's state cannot be put together");
            Ok(())
        }
        result => result,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Merged {
    Base,
    Changes,
}

/// Where there are many files of one level at the end, one of the next level takes their place.
fn merge(writer: &mut Writer<'_>, view: u32, part: &Part, files: &mut StateFiles, which: Merged) -> Result<()> {
    loop {
        let list = if which == Merged::Base { &files.base } else { &files.changes };
        let Some(level) = list.last().map(|file| file.level) else { return Ok(()) };
        let n = list.iter().rev().take_while(|file| file.level == level).count();
        let (kept, merged) = list.split_at(list.len() - n);
        if n < MERGED_FILES || level == WHOLE || n_bytes(merged) > MERGED_BYTES_MAX {
            return Ok(());
        }
        let mut deltas = vec![];
        for entry in merged {
            deltas.extend(read_list(&writer.read(entry)?)?);
        }
        let mut list = kept.to_vec();
        let sums = put_together(&part.schema, deltas, part.n_key_columns)?;
        if !sums.is_empty() {
            let adds = part.n_key_columns.is_none() && sums.iter().all(adds_only);
            let word = if which == Merged::Base { "base" } else { "changes" };
            let name = file_name(view, &files.part, &format!("{word}-{:012}-merged{}", writer.number, level + 1));
            let bytes = write_file(&change_schema(&part.schema), &change_batches(&part.schema, &sums)?)?;
            list.push(FileEntry { adds_only: adds, ..writer.put(name, bytes, level + 1)? });
        }
        *(if which == Merged::Base { &mut files.base } else { &mut files.changes }) = list;
    }
}

/// Puts base and changes together, in as many passes as their size asks for; each takes the rows of a part of the hash space.
fn rewrite(writer: &mut Writer<'_>, view: u32, part: &Part, files: &StateFiles) -> Result<Vec<FileEntry>> {
    let n_bytes = (n_bytes(&files.base) + n_bytes(&files.changes)) * BYTES_PER_FILE_BYTE;
    let n_passes = n_bytes.div_ceil(PASS_BYTES).max(1);
    let mut base = vec![];
    for pass in 0..n_passes {
        let mut deltas = vec![];
        let mut take = |delta: Delta| {
            let delta = if n_passes == 1 { delta } else { of_pass(&delta, part.n_key_columns, pass, n_passes)? };
            deltas.push(delta);
            Ok(())
        };
        for entry in files.base.iter().chain(&files.changes) {
            read_deltas(&writer.read(entry)?, &mut take)?;
        }
        part.changes.iter().try_for_each(|changes| take(changes.clone()))?;
        let rows = put_together(&part.schema, deltas, part.n_key_columns)?;
        if part.n_key_columns.is_none() && !rows.iter().all(adds_only) {
            return Err(SqlError::internal("the state of an operator has a row less than no times"));
        }
        write_base(writer, view, part, files, &rows, &mut base)?;
    }
    Ok(base)
}

fn of_pass(delta: &Delta, n_key_columns: Option<usize>, pass: u64, n_passes: u64) -> Result<Delta> {
    let columns = delta.rows().columns();
    let columns = n_key_columns.map_or(columns, |n| columns.get(..n).unwrap_or_default());
    let mut hashes = vec![];
    hash_rows(columns, delta.n_rows(), &mut hashes)?;
    // Not the bits that tell shards apart.
    let of_pass: BooleanArray = hashes.iter().map(|hash| Some((hash & 0xffff_ffff) % n_passes == pass)).collect();
    let rows = compact(&filter_record_batch(delta.rows(), &of_pass)?)?;
    let weights = delta.weights().map(|weights| {
        of_pass.values().iter().zip(weights.values()).filter(|(is, _)| *is).map(|(_, weight)| *weight).collect()
    });
    Ok(Delta::new(rows, weights))
}

/// Rows that are all there are of a part, or of a share of its keys; those that are removed are none.
fn write_base(
    writer: &mut Writer<'_>,
    view: u32,
    part: &Part,
    files: &StateFiles,
    rows: &[Delta],
    base: &mut Vec<FileEntry>,
) -> Result<()> {
    let adds_only = part.n_key_columns.is_none();
    let rows = rows.iter().cloned().map(without_removed).collect::<Result<Vec<_>>>()?;
    let (mut of_file, mut n_bytes) = (vec![], 0);
    let mut batches = change_batches(&part.schema, &rows)?.into_iter().peekable();
    while let Some(batch) = batches.next() {
        n_bytes += batch_bytes(&batch);
        of_file.push(batch);
        if n_bytes >= BASE_FILE_BYTES || batches.peek().is_none() {
            let name = file_name(view, &files.part, &format!("base-{:012}-part{:04}", writer.number, base.len()));
            let bytes = write_file(&change_schema(&part.schema), &std::mem::take(&mut of_file))?;
            base.push(FileEntry { adds_only, ..writer.put(name, bytes, WHOLE)? });
            n_bytes = 0;
        }
    }
    Ok(())
}

fn read_deltas(bytes: &[u8], each: &mut dyn FnMut(Delta) -> Result<()>) -> Result<()> {
    for rows in read_file(bytes)? {
        each(changes_of(&rows?)?)?;
    }
    Ok(())
}

fn read_list(bytes: &[u8]) -> Result<Vec<Delta>> {
    read_file(bytes)?.map(|rows| changes_of(&rows?)).collect()
}

impl Files {
    /// Calls `each` with what adds up to the state, a list at a time. After each list the rows add up to a state that the
    /// part can have.
    ///
    /// With a key (see [`StateCut::n_key_columns`]) each key comes once, with its newest row. Errors: `XX001` for a file
    /// that is damaged or missing.
    pub fn read_state(
        &self,
        files: &StateFiles,
        n_key_columns: Option<usize>,
        each: &mut dyn FnMut(Vec<Delta>) -> Result<()>,
    ) -> Result<()> {
        let Some(n_key_columns) = n_key_columns else {
            for entry in &files.base {
                read_deltas(&self.read(entry)?, &mut |delta| each(vec![delta]))?;
            }
            return files.changes.iter().try_for_each(|entry| each(read_list(&self.read(entry)?)?));
        };
        let mut changes = vec![];
        for entry in &files.changes {
            changes.extend(read_list(&self.read(entry)?)?);
        }
        let newest = match changes.first().map(Delta::schema) {
            Some(schema) => put_together(&schema, changes, Some(n_key_columns))?,
            None => vec![],
        };
        // They are one list.
        let changed = newest.first().map(|newest| Keys::new(newest, n_key_columns)).transpose()?;
        for entry in &files.base {
            read_deltas(&self.read(entry)?, &mut |delta| {
                let delta = match &changed {
                    Some(changed) => changed.without(&delta)?,
                    None => delta,
                };
                if delta.is_empty() { Ok(()) } else { each(vec![delta]) }
            })?;
        }
        let newest = newest.into_iter().map(without_removed).collect::<Result<Vec<_>>>()?;
        if newest.iter().all(Delta::is_empty) { Ok(()) } else { each(newest) }
    }

    /// Calls `each` with the changes that make the rows of a table or view, those of one moment at a time. Errors: `XX001` for
    /// a file that is damaged or missing.
    pub fn read_table(&self, files: &crate::TableFiles, each: &mut dyn FnMut(Vec<Delta>) -> Result<()>) -> Result<()> {
        for entry in &files.base {
            for rows in read_file(&self.read(entry)?)? {
                each(vec![Delta::insert(rows?)])?;
            }
        }
        files.changes.iter().try_for_each(|entry| each(read_list(&self.read(entry)?)?))
    }
}

/// Keys of rows, by value.
struct Keys {
    n_columns: usize,
    converter: arrow::row::RowConverter,
    keys: HashSet<Box<[u8]>>,
}

impl Keys {
    fn new(rows: &Delta, n_columns: usize) -> Result<Keys> {
        let columns = rows.rows().columns().get(..n_columns).unwrap_or_default();
        let fields = columns.iter().map(|c| arrow::row::SortField::new(c.data_type().clone())).collect();
        let converter = arrow::row::RowConverter::new(fields)?;
        let keys = match columns.is_empty() {
            true => HashSet::from([Box::default()]),
            false => converter.convert_columns(columns)?.iter().map(|key| key.data().into()).collect(),
        };
        Ok(Keys { n_columns, converter, keys })
    }

    fn without(&self, delta: &Delta) -> Result<Delta> {
        let columns = delta.rows().columns().get(..self.n_columns).unwrap_or_default();
        let others: BooleanArray = match columns.is_empty() {
            true => vec![false; delta.n_rows()].into(),
            false => {
                let keys = self.converter.convert_columns(columns)?;
                keys.iter().map(|key| Some(!self.keys.contains(key.data()))).collect()
            }
        };
        // Rows of a key weigh 1.
        Ok(Delta::insert(filter_record_batch(delta.rows(), &others)?))
    }
}
