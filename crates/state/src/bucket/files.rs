//! Checkpoints in a bucket.
//!
//! Which files there are is read once, at the start, and then known: a process that has lost the place without having
//! noticed yet neither sees nor removes what its successor writes.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Bucket, Put};
use crate::Store;

/// The files of a folder.
pub struct BucketFiles {
    bucket: Bucket,
    folder: &'static str,
    known: Mutex<BTreeSet<String>>,
    is_frozen: AtomicBool,
}

impl BucketFiles {
    /// A folder of a bucket; empty for the prefix itself.
    pub fn new(bucket: Bucket, folder: &'static str) -> BucketFiles {
        BucketFiles { bucket, folder, known: Mutex::default(), is_frozen: AtomicBool::new(false) }
    }

    fn name(&self, name: &str) -> String {
        match self.folder {
            "" => name.to_string(),
            folder => format!("{folder}/{name}"),
        }
    }
}

impl Store for BucketFiles {
    fn put_new(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        match self.bucket.create(&self.name(name), bytes)? {
            Put::Done => {
                self.known.lock().insert(name.to_string());
                Ok(())
            }
            Put::Taken => Err(self.bucket.taken()),
        }
    }

    fn get(&self, name: &str) -> io::Result<Bytes> {
        self.bucket.get(&self.name(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        if !self.is_frozen.load(Ordering::Acquire) {
            let listed = self.bucket.list(self.folder)?;
            *self.known.lock() = listed.into_iter().collect();
        }
        Ok(self.known.lock().iter().cloned().collect())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        if self.bucket.is_new() {
            // It stays known, and is removed behind a later checkpoint.
            return Ok(());
        }
        self.bucket.delete(vec![self.name(name)])?;
        self.known.lock().remove(name);
        Ok(())
    }

    fn describe(&self, name: &str) -> String {
        self.bucket.describe(&self.name(name))
    }

    fn owner(&self) -> Option<u64> {
        self.bucket.owner_number()
    }

    fn freeze(&self) {
        self.is_frozen.store(true, Ordering::Release);
    }
}
