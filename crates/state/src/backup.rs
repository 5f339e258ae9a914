//! Backups: one checkpoint and all files that it names, in a place of its own.
//!
//! ```text
//! <target>/manifest-<n>.json and the files that it names, as in a data directory's checkpoints/
//! ```
//! Every file is checked against its sum when it is copied, in both directions. The manifest comes last: a place with a
//! manifest is a whole backup. A restored data directory has an empty log that begins where the checkpoint ends.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tidewire_types::{Result, SqlError, SqlState};
use tracing::info;

use crate::log::failed;
use crate::{
    Bucket, BucketFiles, Checkpoints, DataDir, Location, Log, Manifest, NoCrash, ObjectStoreFiles, Storage, Store,
};

/// After how many files it is told how far a copy has come.
const PROGRESS_FILES: u64 = 100;

/// A place for a backup: nothing is in it.
pub struct BackupTarget {
    store: Arc<dyn Store>,
    place: String,
}

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// Where to, or where from.
    pub place: String,
    /// The number of the checkpoint.
    pub checkpoint: u64,
    /// How many files it has, the manifest among them.
    pub n_files: u64,
    /// Their bytes.
    pub n_bytes: u64,
}

impl BackupTarget {
    /// Makes a directory, or looks at a prefix. Blocks.
    ///
    /// Errors: `42602` for a relative path, `58P02` where something is there, `0A000` for memory, `58030`, `42501`.
    pub fn open(location: &Location) -> Result<BackupTarget> {
        let (store, place): (Arc<dyn Store>, String) = match location {
            Location::Memory => return Err(SqlError::unsupported("a backup in memory")),
            Location::Directory(path) if !path.is_absolute() => {
                return Err(SqlError::new(SqlState::InvalidName, "relative path not allowed for BACKUP")
                    .with_hint("Write a path that begins with /, or s3://bucket/prefix."));
            }
            Location::Directory(path) => {
                let place = path.display().to_string();
                let is_empty = fs::read_dir(path).map_or(true, |mut files| files.next().is_none());
                if !is_empty {
                    return Err(not_empty(&place));
                }
                let store = ObjectStoreFiles::local(path).map_err(|e| failed("write to", &place, &e))?;
                (Arc::new(store), place)
            }
            Location::Store(address) => {
                (Arc::new(BucketFiles::new(Bucket::open(address)?, "")), address.url.trim_end_matches('/').to_string())
            }
        };
        let listed = store.list().map_err(|e| failed("list", &place, &e))?;
        match listed.is_empty() {
            true => Ok(BackupTarget { store, place }),
            false => Err(not_empty(&place)),
        }
    }

    /// Copies the newest checkpoint, which nobody may replace meanwhile. Blocks.
    pub fn write(&self, checkpoints: &Checkpoints) -> Result<BackedUp> {
        let newest = checkpoints.newest().ok_or_else(|| SqlError::internal("no checkpoint has been written"))?;
        copy(checkpoints, newest, &*self.store, &self.place)
    }
}

/// Makes a data directory of a backup, or of the checkpoints of a server that has ended. Blocks.
///
/// Errors: `58P01` where there is no backup, `58P02` where the data directory is not empty, `XX001` for a damaged file.
pub fn restore(from: &Location, to: &DataDir) -> Result<BackedUp> {
    let storage = to.storage()?;
    let there = [storage.log.list(), storage.checkpoints.list()];
    for listed in there {
        if !listed.map_err(|e| failed("list", &storage.checkpoints.describe(""), &e))?.is_empty() {
            return Err(not_empty(&storage.checkpoints.describe("")));
        }
    }
    let backup = find(from, &storage)?;
    let newest = backup.newest().ok_or_else(|| no_backup(&place_of(from)))?;
    Log::begin_at(&storage, newest.log_from)?;
    let done = copy(&backup, newest, &*storage.checkpoints, &storage.checkpoints.describe(""))?;
    Ok(BackedUp { place: place_of(from), ..done })
}

/// The checkpoints of a backup, or of a data directory.
fn find(from: &Location, storage: &Storage) -> Result<Checkpoints> {
    for folder in ["", "checkpoints"] {
        let store: Arc<dyn Store> = match from {
            Location::Memory => return Err(no_backup("memory:")),
            Location::Directory(path) => {
                let path = path.join(folder);
                if !path.is_dir() {
                    continue;
                }
                Arc::new(ObjectStoreFiles::local(&path).map_err(|e| failed("read", &path.display().to_string(), &e))?)
            }
            Location::Store(address) => Arc::new(BucketFiles::new(Bucket::open(address)?, folder)),
        };
        let source = Storage { checkpoints: store, points: Arc::new(NoCrash), ..storage.clone() };
        let checkpoints = Checkpoints::open(source)?;
        if checkpoints.newest().is_some() {
            return Ok(checkpoints);
        }
    }
    Err(no_backup(&place_of(from)))
}

fn copy(from: &Checkpoints, manifest: &Manifest, to: &dyn Store, place: &str) -> Result<BackedUp> {
    let (mut n_files, mut n_bytes) = (0, 0);
    for entry in manifest.files() {
        let bytes = from.read(entry)?;
        n_bytes += bytes.len() as u64;
        to.put_new(&entry.name, bytes).map_err(|e| failed("write", &to.describe(&entry.name), &e))?;
        n_files += 1;
        if n_files % PROGRESS_FILES == 0 {
            info!(place, n_files, n_bytes, "copying");
        }
    }
    let name = Manifest::file_name(manifest.number);
    let bytes = manifest.encode()?;
    n_bytes += bytes.len() as u64;
    to.put_new(&name, bytes).map_err(|e| failed("write", &to.describe(&name), &e))?;
    Ok(BackedUp { place: place.to_string(), checkpoint: manifest.number, n_files: n_files + 1, n_bytes })
}

fn place_of(location: &Location) -> String {
    match location {
        Location::Memory => "memory:".to_string(),
        Location::Directory(path) => Path::display(path).to_string(),
        Location::Store(address) => address.url.clone(),
    }
}

fn no_backup(place: &str) -> SqlError {
    SqlError::new(SqlState::UndefinedFile, format!("there is no backup in \"{place}\""))
        .with_hint("A backup has a file manifest-<number>.json; BACKUP TO writes it last.")
}

fn not_empty(place: &str) -> SqlError {
    SqlError::new(SqlState::DuplicateFile, format!("\"{place}\" exists and is not empty"))
        .with_hint("Choose a place that does not exist, or is empty.")
}
