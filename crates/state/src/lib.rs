//! What a server keeps on disk: bytes that become durable one epoch at a time.
//!
//! Two parts. The [`Log`] has every change of tables and catalog, in order, with one `fsync` for all that came while
//! the last one ran. A checkpoint ([`Checkpoints`]) has the rows of all tables and the catalog at one place of the log,
//! so that a start reads the newest checkpoint and the log behind it, and older log is removed.
//!
//! Invariant: what was reported durable is found again after the process or the machine stopped at any instant; what
//! is found is a prefix of what was written. Damage that would break this is an error that names file and offset.
//! The log writes through [`Disk`], checkpoints through [`Store`] (over `object_store`); tests put faulty ones there.

mod backup;
mod bucket;
mod checkpoint;
mod directory;
mod disk;
mod log;
mod manifest;
mod object;
mod points;
mod record;
mod rows;
mod store;

use std::sync::Arc;

pub use backup::{BackedUp, BackupTarget, restore};
pub use bucket::{Bucket, BucketAddress, BucketFiles, BucketLog};
pub use checkpoint::{Checkpoints, Cut, Files, Moved, StateCut, TableCut, ViewCut, Written};
pub use directory::{DataDir, Location};
pub use disk::{Disk, DiskFile, LocalDisk};
pub use log::{Log, LogOptions, Replayed};
pub use manifest::{FileEntry, Manifest, SharedNode, StateFiles, StatePart, StoredSource, TableFiles, ViewFiles};
pub use object::{StoredCheck, StoredColumn, StoredKind, StoredObject};
pub use points::{CrashPoints, NoCrash};
pub use record::{Record, StoredLetter, TableChange};
pub use rows::delta_bytes;
pub use store::{ObjectStoreFiles, Store};

/// Where a server's bytes go.
#[derive(Clone)]
pub struct Storage {
    /// Where the log is.
    pub log: Arc<dyn Disk>,
    /// Where checkpoints are.
    pub checkpoints: Arc<dyn Store>,
    /// Told of each durable step, for tests.
    pub points: Arc<dyn CrashPoints>,
}
