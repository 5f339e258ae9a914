//! The files of checkpoints: read with their checksums, written with small ones put together.
//!
//! A checkpoint of many views changes many parts of state by a little. A file (on a disk an `fsync`, in an object store
//! a request) for each would cost more than its bytes, so what is small goes into one pack a checkpoint. A pack of which
//! little is still used is given up: what is used moves to the newest pack.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tidewire_types::{Result, SqlError, SqlState};

use super::Written;
use crate::log::{failed, sql_error_in};
use crate::{FileEntry, Manifest, Storage};

/// A file with fewer bytes goes into the pack.
const PACKED_BYTES_MAX: usize = 64 << 10;
/// Bytes of packs that are kept in memory: what is small is soon read again, to be merged.
const CACHE_BYTES_MAX: usize = 32 << 20;
/// A pack of which less than one in so many bytes is used is given up.
const UNUSED_PER_USED: u64 = 4;

/// Reads and writes files of checkpoints. Clones share what is cached.
#[derive(Clone)]
pub struct Files {
    storage: Storage,
    cache: Arc<Mutex<Cache>>,
}

#[derive(Default)]
struct Cache {
    packs: HashMap<String, Bytes>,
    order: VecDeque<String>,
    n_bytes: usize,
}

impl Cache {
    fn keep(&mut self, name: &str, pack: &Bytes) {
        if self.packs.insert(name.to_string(), pack.clone()).is_none() {
            self.n_bytes += pack.len();
            self.order.push_back(name.to_string());
        }
        while self.n_bytes > CACHE_BYTES_MAX && self.order.len() > 1 {
            let oldest = self.order.pop_front().and_then(|name| self.packs.remove(&name));
            self.n_bytes -= oldest.map_or(0, |pack| pack.len());
        }
    }
}

impl Files {
    pub(super) fn new(storage: Storage) -> Files {
        Files { storage, cache: Arc::default() }
    }

    /// The bytes of a file or of a part of a pack. Errors: `XX001` where they are not those that were written.
    pub(crate) fn read(&self, entry: &FileEntry) -> Result<Bytes> {
        let bytes = match entry.offset {
            None => self.get(entry)?,
            Some(offset) => {
                let cached = self.cache.lock().packs.get(&entry.name).cloned();
                let pack = match cached {
                    Some(pack) => pack,
                    None => {
                        let pack = self.get(entry)?;
                        self.cache.lock().keep(&entry.name, &pack);
                        pack
                    }
                };
                let range = offset as usize..(offset + entry.n_bytes) as usize;
                match pack.get(range.clone()) {
                    Some(_) => pack.slice(range),
                    None => return Err(self.damaged(entry, &format!("it has only {} bytes", pack.len()))),
                }
            }
        };
        if bytes.len() as u64 != entry.n_bytes {
            return Err(self.damaged(entry, &format!("it has {} bytes instead of {}", bytes.len(), entry.n_bytes)));
        }
        match crc32c::crc32c(&bytes) == entry.crc32c {
            true => Ok(bytes),
            false => Err(self.damaged(entry, "its checksum is wrong")),
        }
    }

    fn get(&self, entry: &FileEntry) -> Result<Bytes> {
        match self.storage.checkpoints.get(&entry.name) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(self.damaged(entry, "it is missing")),
            Err(error) => Err(self.failed("read", &entry.name, &error)),
        }
    }

    fn damaged(&self, entry: &FileEntry, why: &str) -> SqlError {
        let place = self.storage.checkpoints.describe(&entry.name);
        let part = entry.offset.map(|offset| format!(" at offset {offset}")).unwrap_or_default();
        SqlError::new(SqlState::DataCorrupted, format!("the checkpoint file \"{place}\" is damaged{part}: {why}"))
            .with_hint("Restore the data directory from a backup.")
    }

    /// Writes a new file. Errors: `55006` where there is one.
    pub(super) fn put_new(&self, name: &str, bytes: Bytes) -> Result<()> {
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

    pub(super) fn reach(&self, point: &'static str) -> Result<()> {
        self.storage.points.reach(point).map_err(|e| self.failed("write", point, &e))
    }

    pub(super) fn failed(&self, what: &str, name: &str, error: &std::io::Error) -> SqlError {
        failed(what, &self.storage.checkpoints.describe(name), error)
    }
}

/// Writes the files of one checkpoint.
pub(super) struct Writer<'a> {
    files: &'a Files,
    /// Of the checkpoint.
    pub number: u64,
    // Where several processes may write: who this is.
    owner: Option<u64>,
    pack_name: String,
    pack: Vec<u8>,
    n_bytes: u64,
    n_changed_bytes: u64,
    // Bytes that bases may still be written anew with, in this checkpoint.
    rewrite_bytes_left: u64,
}

impl<'a> Writer<'a> {
    pub(super) fn new(files: &'a Files, number: u64, rewrite_bytes_max: u64) -> Writer<'a> {
        let owner = files.storage.checkpoints.owner();
        let pack_name = owned(owner, format!("small-{number:012}.pack"));
        Writer {
            files,
            number,
            owner,
            pack_name,
            pack: vec![],
            n_bytes: 0,
            n_changed_bytes: 0,
            rewrite_bytes_left: rewrite_bytes_max,
        }
    }

    /// Writes a file, or puts it into the pack.
    pub(super) fn put(&mut self, name: String, bytes: Vec<u8>, level: u32) -> Result<FileEntry> {
        let (n_bytes, crc32c) = (bytes.len() as u64, crc32c::crc32c(&bytes));
        let entry = FileEntry { name, n_bytes, crc32c, level, ..FileEntry::default() };
        if bytes.len() < PACKED_BYTES_MAX {
            let offset = Some(self.pack.len() as u64);
            self.pack.extend_from_slice(&bytes);
            return Ok(FileEntry { name: self.pack_name.clone(), offset, ..entry });
        }
        let entry = FileEntry { name: owned(self.owner, entry.name), ..entry };
        self.put_file(&entry.name, bytes.into())?;
        Ok(entry)
    }

    fn put_file(&mut self, name: &str, bytes: Bytes) -> Result<()> {
        self.n_bytes += bytes.len() as u64;
        self.files.reach("store.put.before")?;
        self.files.put_new(name, bytes)?;
        self.files.reach("store.put.after")
    }

    /// The bytes of a file, of this checkpoint too.
    pub(super) fn read(&self, entry: &FileEntry) -> Result<Bytes> {
        match entry.offset {
            Some(offset) if entry.name == self.pack_name => {
                let range = offset as usize..(offset + entry.n_bytes) as usize;
                let bytes = self.pack.get(range).ok_or_else(|| SqlError::internal("a part that is not in the pack"))?;
                Ok(Bytes::copy_from_slice(bytes))
            }
            _ => self.files.read(entry),
        }
    }

    /// Whether a base of so many bytes may be written anew now, or shall wait for a later checkpoint.
    pub(super) fn may_rewrite(&mut self, n_bytes: u64) -> bool {
        let may = self.rewrite_bytes_left > 0;
        self.rewrite_bytes_left = self.rewrite_bytes_left.saturating_sub(n_bytes);
        may
    }

    /// Counts what had changed.
    pub(super) fn note_changes(&mut self, n_bytes: usize) {
        self.n_changed_bytes += n_bytes as u64;
    }

    /// Writes the pack, and notes in the manifest which packs there are. `before` are those of the last checkpoint.
    pub(super) fn finish(mut self, manifest: &mut Manifest, before: &[FileEntry]) -> Result<Written> {
        let mut used: HashMap<&str, u64> = HashMap::new();
        for entry in manifest.entries().filter(|entry| entry.offset.is_some()) {
            *used.entry(&entry.name).or_default() += entry.n_bytes;
        }
        let n_used = |pack: &FileEntry| used.get(pack.name.as_str()).copied().unwrap_or(0);
        let (sparse, mut packs): (Vec<_>, Vec<_>) = before
            .iter()
            .filter(|pack| n_used(pack) > 0)
            .cloned()
            .partition(|p| n_used(p) * UNUSED_PER_USED < p.n_bytes);
        for pack in sparse {
            if self.move_out_of(&pack.name, manifest).is_err() {
                // It cannot be read; who needs it will say so.
                packs.push(pack);
            }
        }
        if !self.pack.is_empty() {
            let bytes = Bytes::from(std::mem::take(&mut self.pack));
            let name = self.pack_name.clone();
            let (n_bytes, crc32c) = (bytes.len() as u64, crc32c::crc32c(&bytes));
            self.put_file(&name, bytes.clone())?;
            self.files.cache.lock().keep(&name, &bytes);
            packs.push(FileEntry { name, n_bytes, crc32c, ..FileEntry::default() });
        }
        manifest.packs = packs;
        Ok(Written { n_bytes: self.n_bytes, n_changed_bytes: self.n_changed_bytes })
    }

    fn move_out_of(&mut self, pack: &str, manifest: &mut Manifest) -> Result<()> {
        let of_pack: Vec<&mut FileEntry> =
            manifest.entries_mut().filter(|e| e.offset.is_some() && e.name == pack).collect();
        let bytes = of_pack.iter().map(|entry| self.files.read(entry)).collect::<Result<Vec<_>>>()?;
        for (entry, bytes) in of_pack.into_iter().zip(bytes) {
            (entry.name, entry.offset) = (self.pack_name.clone(), Some(self.pack.len() as u64));
            self.pack.extend_from_slice(&bytes);
        }
        Ok(())
    }
}

/// A file's name that no other owner of the place gives.
fn owned(owner: Option<u64>, name: String) -> String {
    match (owner, name.rsplit_once('.')) {
        (Some(owner), Some((stem, ending))) => format!("{stem}-owner{owner}.{ending}"),
        _ => name,
    }
}
