//! Where checkpoint files are: whole files that are written once, through `object_store`.
//!
//! The local file system of `object_store` does not sync what it writes. So a local store does that itself, behind
//! each put: the file, then the directory. What a crash leaves between the two is caught by the files' checksums.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::executor::block_on;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use crate::bucket::io_error;
use crate::disk::make_dir;

/// A flat set of files that are written once. All methods block.
pub trait Store: Send + Sync {
    /// Writes a new file; it is durable when this returns. Errors: `AlreadyExists` where there is one of that name.
    fn put_new(&self, name: &str, bytes: Bytes) -> io::Result<()>;
    /// The whole content of a file.
    fn get(&self, name: &str) -> io::Result<Bytes>;
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Removes a file.
    fn delete(&self, name: &str) -> io::Result<()>;
    /// Where a file is, for messages.
    fn describe(&self, name: &str) -> String;
    /// Where several processes may write here: the number of this one, which later ones' are above. Its files have it in
    /// their names, and it has to fence the one before.
    fn owner(&self) -> Option<u64> {
        None
    }
    /// The one before is fenced: from now on there are the files that are there and those that are written here.
    fn freeze(&self) {}
}

/// Files of an `object_store`.
pub struct ObjectStoreFiles {
    store: Arc<dyn ObjectStore>,
    // Of a local store: where its files are to be synced.
    local: Option<PathBuf>,
}

impl ObjectStoreFiles {
    /// A directory of this machine; made where it is missing.
    pub fn local(root: impl Into<PathBuf>) -> io::Result<ObjectStoreFiles> {
        let root = root.into();
        make_dir(&root)?;
        let store = LocalFileSystem::new_with_prefix(&root).map_err(io_error)?;
        Ok(ObjectStoreFiles { store: Arc::new(store), local: Some(root) })
    }
}

impl Store for ObjectStoreFiles {
    fn put_new(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        block_on(self.store.put_opts(&Path::from(name), bytes.into(), options)).map_err(io_error)?;
        if let Some(root) = &self.local {
            File::open(root.join(name))?.sync_all()?;
            File::open(root)?.sync_all()?;
        }
        Ok(())
    }

    fn get(&self, name: &str) -> io::Result<Bytes> {
        let path = Path::from(name);
        let read = async { self.store.get(&path).await?.bytes().await };
        block_on(read).map_err(io_error)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let listed = self.store.list(None).map_ok(|meta| meta.location.to_string()).try_collect();
        block_on(listed).map_err(io_error)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        block_on(self.store.delete(&Path::from(name))).map_err(io_error)
    }

    fn describe(&self, name: &str) -> String {
        match &self.local {
            Some(root) => root.join(name).display().to_string(),
            None => format!("{}/{name}", self.store),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    struct NoStore;

    impl Store for NoStore {
        fn put_new(&self, _: &str, _: Bytes) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn get(&self, _: &str) -> io::Result<Bytes> {
            Err(io::ErrorKind::NotFound.into())
        }
        fn list(&self) -> io::Result<Vec<String>> {
            Ok(vec![])
        }
        fn delete(&self, _: &str) -> io::Result<()> {
            Ok(())
        }
        fn describe(&self, name: &str) -> String {
            name.to_string()
        }
    }

    /// For tests of the log alone.
    pub(crate) fn no_store() -> Arc<dyn Store> {
        Arc::new(NoStore)
    }

    #[test]
    fn a_file_is_written_once() {
        let root = tempfile::tempdir().unwrap();
        let files = ObjectStoreFiles::local(root.path().join("checkpoints")).unwrap();
        files.put_new("a.json", Bytes::from_static(b"1")).unwrap();
        let again = files.put_new("a.json", Bytes::from_static(b"2")).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(files.get("a.json").unwrap(), Bytes::from_static(b"1"));
        assert_eq!(files.get("b.json").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(files.list().unwrap(), ["a.json"]);
        files.delete("a.json").unwrap();
        assert!(files.list().unwrap().is_empty());
    }
}
