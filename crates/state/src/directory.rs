//! The data directory: ours, of a layout that is known, and used by one server at a time.
//!
//! ```text
//! tidewire-data/
//!   format.json      what this directory is, and the version of its layout
//!   lock             locked while a server runs
//!   log/             every change since the last two checkpoints, in segments
//!   checkpoints/     rows of tables, dead letters, and manifests that say which files are one checkpoint
//! ```
//! Invariant: of two servers with one directory, the second does not start. The lock is the operating system's, so a
//! server that was killed leaves none behind.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tidewire_types::{Result, SqlError, SqlState};

use crate::disk::make_dir;
use crate::{LocalDisk, NoCrash, ObjectStoreFiles, Storage};

/// The layout that this version writes.
const VERSION: u64 = 1;
const FORMAT: &str = "format.json";
const NEW_FORMAT: &str = "format.json.new";
const LOCK: &str = "lock";
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
}

impl Location {
    /// Reads `memory:` or a path. Errors: `0A000` for what looks like a URL.
    pub fn parse(text: &str) -> Result<Location> {
        match text {
            "memory:" => Ok(Location::Memory),
            url if url.contains("://") => Err(SqlError::unsupported(format_args!("data directory \"{url}\""))
                .with_hint("It is a directory of this machine, or memory: for one that is gone at the end.")),
            path => Ok(Location::Directory(path.into())),
        }
    }
}

/// A directory that is ours for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
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
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    /// Its log and checkpoints.
    pub fn storage(&self) -> Result<Storage> {
        let log = LocalDisk::open(self.path.join("log")).map_err(|error| unusable(&self.path, "write in", &error))?;
        let checkpoints = ObjectStoreFiles::local(self.path.join("checkpoints"))
            .map_err(|error| unusable(&self.path, "write in", &error))?;
        Ok(Storage { log: Arc::new(log), checkpoints: Arc::new(checkpoints), points: Arc::new(NoCrash) })
    }
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
    let new = path.join(NEW_FORMAT);
    let mut file = File::create(&new)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(new, path.join(FORMAT))?;
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

    #[test]
    fn a_directory_has_one_server_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        let refused = DataDir::open(&path).unwrap_err();
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
        let refused = DataDir::open(&file).unwrap_err();
        assert!(refused.message().starts_with("cannot make the data directory"), "{refused}");
        for (name, words) in [("PG_VERSION", "of PostgreSQL"), ("letter.txt", "\"letter.txt\"")] {
            let path = parent.path().join(format!("with {name}"));
            fs::create_dir(&path).unwrap();
            fs::write(path.join(name), "15\n").unwrap();
            let refused = DataDir::open(&path).unwrap_err();
            assert!(refused.message().contains(words), "{refused}");
            assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "nothing was written");
        }
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let path = tempfile::tempdir().unwrap();
        drop(DataDir::open(path.path()).unwrap());
        fs::write(path.path().join(FORMAT), r#"{"version": 2}"#).unwrap();
        let refused = DataDir::open(path.path()).unwrap_err();
        assert_eq!(refused.state(), SqlState::FeatureNotSupported);
        fs::write(path.path().join(FORMAT), "not json").unwrap();
        assert!(DataDir::open(path.path()).unwrap_err().message().contains("format.json"));
    }

    #[test]
    fn memory_and_urls_are_told_from_paths() {
        assert_eq!(Location::parse("memory:").unwrap(), Location::Memory);
        assert_eq!(Location::parse("memory").unwrap(), Location::Directory("memory".into()));
        assert_eq!(Location::parse("s3://bucket/x").unwrap_err().state(), SqlState::FeatureNotSupported);
    }
}
