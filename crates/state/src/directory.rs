//! The data directory: ours, of a layout that is known, and used by one server at a time.
//!
//! ```text
//! tidewire-data/
//!   format.json      what this directory is, and the version of its layout
//!   lock             locked while a server runs
//!   log/             every change since the last two checkpoints, in segments
//!   checkpoints/     rows of tables, dead letters, and manifests that say which files are one checkpoint
//! ```
//! With `--checkpoint-dir` there are no checkpoints in it, but a file that says where they are. All of it may also be in
//! an object store, which has `owner.json` in place of the lock.
//!
//! Invariant: of two servers with one directory, the second does not start. The lock is the operating system's, so a
//! server that was killed leaves none behind.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tidewire_types::{Result, SqlError, SqlState};

use crate::disk::make_dir;
use crate::{
    Bucket, BucketAddress, BucketFiles, BucketLog, Disk, LocalDisk, NoCrash, ObjectStoreFiles, Storage, Store,
};

/// The layout that this version writes.
const VERSION: u64 = 1;
const FORMAT: &str = "format.json";
const NEW_FORMAT: &str = "format.json.new";
const LOCK: &str = "lock";
/// Which log it is, for the place of its checkpoints.
const LOG_ID: &str = "log-id";
/// Where its checkpoints are, if not in it.
const CHECKPOINTS_IN: &str = "checkpoints-in";
/// Files by which other databases' directories are known.
const FOREIGN: &[(&str, &str)] =
    &[("PG_VERSION", "PostgreSQL"), ("ibdata1", "MySQL"), ("mysql.ibd", "MySQL"), ("WiredTiger", "MongoDB")];

/// Where a server keeps its state: `--data-dir`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `memory:`; all is gone when the server ends.
    Memory,
    /// A directory.
    Directory(PathBuf),
    /// A prefix of a bucket: `s3://..`.
    Store(BucketAddress),
}

impl Location {
    /// Reads `memory:`, `s3://bucket/prefix` (how to reach it say the environment variables `AWS_*`), or a path. Errors:
    /// `0A000` for what looks like another URL.
    pub fn parse(text: &str) -> Result<Location> {
        match text {
            "memory:" => Ok(Location::Memory),
            url if url.starts_with("s3://") => Ok(Location::Store(BucketAddress::from_env(url))),
            url if url.contains("://") => Err(SqlError::unsupported(format_args!("data directory \"{url}\""))
                .with_hint("It is a directory of this machine, s3://bucket/prefix, or memory: for one that is gone at the end.")),
            path => Ok(Location::Directory(path.into())),
        }
    }
}

/// A directory, or a prefix of a bucket, that is ours for as long as this lives.
pub struct DataDir {
    place: Place,
    // Where checkpoints are in another place than the log.
    checkpoints: Option<Bucket>,
}

impl fmt::Debug for DataDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Directory { path, .. } => f.debug_tuple("DataDir").field(path).finish(),
            Place::Store(bucket) => f.debug_tuple("DataDir").field(&bucket.describe("")).finish(),
        }
    }
}

enum Place {
    Directory { path: PathBuf, _lock: File },
    Store(Bucket),
}

impl DataDir {
    /// Opens what the command line says; None for one in memory. Blocks.
    ///
    /// Errors: as [`DataDir::open`]; `58030`, `42501` for a store that cannot be used, `55000` where the log and the
    /// checkpoints are not of one server.
    pub fn open_in(location: &Location, checkpoints: Option<&Location>) -> Result<Option<DataDir>> {
        let wrong = |why: &str| Err(SqlError::new(SqlState::InvalidParameterValue, format!("--checkpoint-dir {why}")));
        match (location, checkpoints) {
            (Location::Memory, None) => Ok(None),
            (Location::Directory(path), None) => {
                let data_dir = DataDir::open(path)?;
                match fs::read_to_string(path.join(CHECKPOINTS_IN)) {
                    Err(_) => Ok(Some(data_dir)),
                    Ok(place) => {
                        let why = format!("its checkpoints are in \"{}\"", place.trim());
                        Err(refused(SqlState::ObjectNotInPrerequisiteState, path, &why)
                            .with_hint("Start with --checkpoint-dir as before."))
                    }
                }
            }
            (Location::Store(address), None) => {
                let bucket = Bucket::open(address)?;
                bucket.claim(None)?;
                Ok(Some(DataDir { place: Place::Store(bucket), checkpoints: None }))
            }
            (Location::Directory(path), Some(Location::Store(address))) => {
                let data_dir = DataDir::open(path)?;
                let bucket = bind(path, address)?;
                Ok(Some(DataDir { checkpoints: Some(bucket), ..data_dir }))
            }
            (Location::Directory(_), Some(_)) => wrong("is a place in an object store, such as s3://bucket/prefix"),
            (Location::Memory | Location::Store(_), Some(_)) => wrong("goes with a --data-dir that is a directory"),
        }
    }

    /// Makes the directory where it is missing, locks it, and checks its layout.
    ///
    /// Errors: `42501` where it cannot be written, `55006` when another server uses it, `55000` when it is not ours,
    /// `0A000` when a newer version of Tidewire wrote it.
    pub fn open(path: &Path) -> Result<DataDir> {
        make_dir(path).map_err(|error| unusable(path, "make", &error))?;
        check_foreign(path)?;
        let lock = File::create(path.join(LOCK)).map_err(|error| unusable(path, "write in", &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(refused(SqlState::ObjectInUse, path, "another server is running in it"));
            }
            Err(TryLockError::Error(error)) => return Err(unusable(path, "lock", &error)),
        }
        check_format(path)?;
        Ok(DataDir { place: Place::Directory { path: path.to_owned(), _lock: lock }, checkpoints: None })
    }

    /// Waits until another server has taken over: who. A directory of this machine is locked: there it never ends.
    pub async fn lost(&self) -> SqlError {
        match (&self.place, &self.checkpoints) {
            (Place::Store(bucket), _) | (_, Some(bucket)) => bucket.lost().await,
            _ => std::future::pending().await,
        }
    }

    /// Nothing more is read from or written to a store: who waits for one that is away gets an error.
    pub fn close(&self) {
        match (&self.place, &self.checkpoints) {
            (Place::Store(bucket), _) | (_, Some(bucket)) => bucket.close(),
            _ => {}
        }
    }

    /// Its log and checkpoints.
    pub fn storage(&self) -> Result<Storage> {
        let (log, checkpoints): (Arc<dyn Disk>, Arc<dyn Store>) = match &self.place {
            Place::Store(bucket) => {
                (Arc::new(BucketLog::open(bucket.clone())?), Arc::new(BucketFiles::new(bucket.clone(), "checkpoints")))
            }
            Place::Directory { path, .. } => {
                let unusable = |error| unusable(path, "write in", &error);
                let checkpoints: Arc<dyn Store> = match &self.checkpoints {
                    Some(bucket) => Arc::new(BucketFiles::new(bucket.clone(), "checkpoints")),
                    None => Arc::new(ObjectStoreFiles::local(path.join("checkpoints")).map_err(unusable)?),
                };
                (Arc::new(LocalDisk::open(path.join("log")).map_err(unusable)?), checkpoints)
            }
        };
        Ok(Storage { log, checkpoints, points: Arc::new(NoCrash) })
    }
}

/// Keeps the checkpoints of a directory in a bucket: both say so, so that no log is ever read behind another's checkpoint.
fn bind(path: &Path, address: &BucketAddress) -> Result<Bucket> {
    let unusable = |error| unusable(path, "write in", &error);
    let place = address.url.trim_end_matches('/');
    match fs::read_to_string(path.join(CHECKPOINTS_IN)) {
        Ok(found) if found.trim() != place => {
            let why = format!("its checkpoints are in \"{}\"", found.trim());
            return Err(refused(SqlState::ObjectNotInPrerequisiteState, path, &why));
        }
        Ok(_) => {}
        Err(_) if fs::read_dir(path.join("checkpoints")).is_ok_and(|mut files| files.next().is_some()) => {
            let why = "it has checkpoints in it";
            return Err(refused(SqlState::ObjectNotInPrerequisiteState, path, why)
                .with_hint("BACKUP TO and tidewire restore move a server to another place."));
        }
        Err(_) => {}
    }
    let log = match fs::read_to_string(path.join(LOG_ID)) {
        Ok(log) => log.trim().to_string(),
        Err(_) => {
            let log = format!("{:016x}", RandomState::new().build_hasher().finish());
            write_whole(path, LOG_ID, &log).map_err(unusable)?;
            log
        }
    };
    let bucket = Bucket::open(address)?;
    bucket.claim(Some(&log))?;
    write_whole(path, CHECKPOINTS_IN, place).map_err(unusable)?;
    Ok(bucket)
}

/// Nothing is written into a directory that is somebody else's.
fn check_foreign(path: &Path) -> Result<()> {
    if path.join(FORMAT).exists() {
        return Ok(());
    }
    if let Some((_, owner)) = FOREIGN.iter().find(|(file, _)| path.join(file).exists()) {
        let why = format!("it is a data directory of {owner}");
        return Err(refused(SqlState::ObjectNotInPrerequisiteState, path, &why));
    }
    let entries = fs::read_dir(path).map_err(|error| unusable(path, "read", &error))?;
    for entry in entries {
        let name = entry.map_err(|error| unusable(path, "read", &error))?.file_name();
        // A lock alone is what a start that was cut short leaves; a file system's own folder is in the way of nobody.
        if ![LOCK, NEW_FORMAT, "lost+found"].iter().any(|ours| name == *ours) {
            let why = format!("it has other files in it, such as \"{}\"", name.to_string_lossy());
            return Err(refused(SqlState::ObjectNotInPrerequisiteState, path, &why));
        }
    }
    Ok(())
}

fn check_format(path: &Path) -> Result<()> {
    let file = path.join(FORMAT);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return write_format(path).map_err(|error| unusable(path, "write in", &error));
        }
        Err(error) => return Err(unusable(path, "read", &error)),
    };
    let format: Option<Value> = serde_json::from_str(&text).ok();
    match format.as_ref().and_then(|format| format.get("version")?.as_u64()) {
        Some(version) if version <= VERSION => Ok(()),
        Some(version) => {
            let why = format!("it has layout {version}, and this version of Tidewire knows up to {VERSION}");
            Err(refused(SqlState::FeatureNotSupported, path, &why)
                .with_hint("Start the version of Tidewire that wrote it, or a newer one."))
        }
        None => {
            let why = format!("its file {FORMAT} cannot be read");
            Err(refused(SqlState::ObjectNotInPrerequisiteState, path, &why))
        }
    }
}

fn write_format(path: &Path) -> io::Result<()> {
    let text = json!({ "format": "tidewire data directory", "version": VERSION });
    write_whole(path, FORMAT, &text.to_string())
}

/// Writes a file: all of it is there after a crash, or nothing.
fn write_whole(path: &Path, name: &str, text: &str) -> io::Result<()> {
    let new = path.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(new, path.join(name))?;
    File::open(path)?.sync_all()
}

fn unusable(path: &Path, what: &str, error: &io::Error) -> SqlError {
    let state = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => SqlState::InsufficientPrivilege,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SqlState::DiskFull,
        _ => SqlState::IoError,
    };
    SqlError::new(state, format!("cannot {what} the data directory {}: {error}", path.display()))
        .with_hint("Choose another directory with --data-dir, or memory: for one that is gone at the end.")
}

fn refused(state: SqlState, path: &Path, why: &str) -> SqlError {
    SqlError::new(state, format!("cannot use the data directory {}: {why}", path.display()))
        .with_hint("Choose another directory with --data-dir.")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn error_of(path: &Path) -> SqlError {
        DataDir::open(path).unwrap_err()
    }

    #[test]
    fn a_directory_has_one_server_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        let refused = error_of(&path);
        assert!(refused.message().contains("another server is running in it"), "{refused}");
        first.storage().unwrap();
        drop(first);
        DataDir::open(&path).expect("the lock goes with the server");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        let refused = error_of(&file);
        assert!(refused.message().starts_with("cannot make the data directory"), "{refused}");
        for (name, words) in [("PG_VERSION", "of PostgreSQL"), ("letter.txt", "\"letter.txt\"")] {
            let path = parent.path().join(format!("with {name}"));
            fs::create_dir(&path).unwrap();
            fs::write(path.join(name), "15\n").unwrap();
            let refused = error_of(&path);
            assert!(refused.message().contains(words), "{refused}");
            assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "nothing was written");
        }
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let path = tempfile::tempdir().unwrap();
        drop(DataDir::open(path.path()).unwrap());
        fs::write(path.path().join(FORMAT), r#"{"version": 2}"#).unwrap();
        let refused = error_of(path.path());
        assert_eq!(refused.state(), SqlState::FeatureNotSupported);
        fs::write(path.path().join(FORMAT), "not json").unwrap();
        assert!(error_of(path.path()).message().contains("format.json"));
    }

    #[test]
    fn memory_and_urls_are_told_from_paths() {
        assert_eq!(Location::parse("memory:").unwrap(), Location::Memory);
        assert_eq!(Location::parse("memory").unwrap(), Location::Directory("memory".into()));
        assert!(matches!(Location::parse("s3://bucket/x").unwrap(), Location::Store(a) if a.url == "s3://bucket/x"));
        assert_eq!(Location::parse("ftp://bucket/x").unwrap_err().state(), SqlState::FeatureNotSupported);
    }
}
