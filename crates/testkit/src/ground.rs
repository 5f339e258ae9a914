//! What a server stands on in the crash tests: a machine whose disk loses what was not synced, or a place in a bucket.
//!
//! In a bucket nothing is lost that was written, but a process dies between any two requests, or within one, and does
//! not know what became of it; requests are refused, and answers lost. All choices follow from the seed.

use std::io;

use parking_lot::Mutex;
use tidewire_state::{Bucket, BucketFiles, BucketLog, CrashPoints, NoCrash, Storage};
use tidewire_types::Result;

use std::sync::Arc;

use crate::faulty::Machine;
use crate::s3::{Door, S3Server};

/// Where a process can be made to die.
pub trait Ground: Sync {
    /// For a new process.
    fn storage(&self) -> Result<Storage>;
    /// The process will die after so many steps.
    fn die_after(&self, n_steps: u64);
    /// One step in so many goes wrong: the disk is full, a request fails.
    fn fail_every(&self, n: Option<u64>);
    /// Kills the process, if it is not dead.
    fn kill(&self);
    /// Whether it has died, and where.
    fn died_at(&self) -> Option<&'static str>;
    /// Makes ready for the next process.
    fn reboot(&self);
}

impl Ground for Machine {
    fn storage(&self) -> Result<Storage> {
        Ok(Machine::storage(self))
    }

    fn die_after(&self, n_steps: u64) {
        Machine::die_after(self, n_steps);
    }

    fn fail_every(&self, n: Option<u64>) {
        self.fill_every(n);
    }

    fn kill(&self) {
        Machine::kill(self);
    }

    fn died_at(&self) -> Option<&'static str> {
        Machine::died_at(self)
    }

    fn reboot(&self) {
        Machine::reboot(self);
    }
}

/// A place in a bucket of a server in this process.
pub struct BucketGround {
    server: S3Server,
    seed: u64,
    process: Mutex<Process>,
}

#[derive(Default)]
struct Process {
    door: Option<Arc<Door>>,
    requests_left: Option<u64>,
    fails_every: Option<u64>,
}

impl BucketGround {
    /// An empty bucket.
    pub fn new(seed: u64) -> io::Result<BucketGround> {
        Ok(BucketGround { server: S3Server::start()?, seed, process: Mutex::default() })
    }

    fn change(&self, change: impl FnOnce(&mut Process)) {
        let mut process = self.process.lock();
        change(&mut process);
        if let Some(door) = process.door.clone() {
            door.fail_every(process.fails_every, process.fails_every);
            if let Some(n) = process.requests_left.take() {
                door.shut_after(n);
            }
        }
    }
}

impl Ground for BucketGround {
    fn storage(&self) -> Result<Storage> {
        let failed = |e: io::Error| tidewire_types::SqlError::internal(e);
        let door = Arc::new(self.server.door(self.seed).map_err(failed)?);
        let bucket = Bucket::open(&door.place("data"))?;
        door.belongs_to(&bucket);
        self.change(|process| process.door = Some(door));
        bucket.claim(None)?;
        let log = BucketLog::open(bucket.clone())?;
        let checkpoints = BucketFiles::new(bucket.clone(), "checkpoints");
        Ok(Storage {
            log: Arc::new(log),
            checkpoints: Arc::new(checkpoints),
            points: Arc::new(NoCrash) as Arc<dyn CrashPoints>,
        })
    }

    fn die_after(&self, n_steps: u64) {
        self.change(|process| process.requests_left = Some(n_steps + 1));
    }

    fn fail_every(&self, n: Option<u64>) {
        self.change(|process| process.fails_every = n);
    }

    fn kill(&self) {
        self.process.lock().door.iter().for_each(|door| door.shut());
    }

    fn died_at(&self) -> Option<&'static str> {
        let process = self.process.lock();
        process.door.as_ref().is_some_and(|door| door.is_shut()).then_some("a request")
    }

    fn reboot(&self) {
        *self.process.lock() = Process::default();
    }
}
