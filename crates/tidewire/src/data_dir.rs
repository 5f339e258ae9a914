//! The data directory: made where it is missing, and locked while a server runs in it.
//!
//! Invariant: of two servers with one directory, the second does not start. The lock is the operating system's, so a
//! server that was killed leaves none behind.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use crate::failure::Failure;

/// Keeps the directory locked until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Makes the directory where it is missing, and locks it.
    pub fn open(path: &Path) -> Result<DataDir, Failure> {
        let failure = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(format!("cannot {what} the data directory {}: {error}", path.display()))
                .with_hint("Choose another directory with --data-dir.")
        };
        fs::create_dir_all(path).map_err(|error| failure("make", &error))?;
        let lock = File::create(path.join("lock")).map_err(|error| failure("write in", &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(DataDir { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(failure("use", &"another server is running in it")),
            Err(TryLockError::Error(error)) => Err(failure("lock", &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_server_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        let refused = DataDir::open(&path).unwrap_err().to_string();
        assert!(refused.contains("another server is running in it"), "{refused}");
        drop(first);
        assert!(DataDir::open(&path).is_ok(), "the lock goes with the server");
    }

    #[test]
    fn a_file_in_the_way_is_told() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        fs::write(&path, "").unwrap();
        let refused = DataDir::open(&path).unwrap_err().to_string();
        assert!(refused.starts_with("cannot make the data directory"), "{refused}");
    }
}
