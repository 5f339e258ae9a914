//! The write-ahead log: records in order, in segments, durable in groups.
//!
//! Who appends (the epoch loop) only hands bytes to the operating system; a thread of the log makes them durable, all
//! that came while its last `fsync` ran with the next one. A record that somebody waits for is synced at once; one that
//! nobody waits for within [`LogOptions::lazy_sync`].
//!
//! Invariant: records are durable in the order of their numbers, and a failed append leaves nothing behind. After a
//! failed `fsync` nothing is known of what the disk holds, so that the log takes nothing more until it is opened again.
//! Source of the torn-end rule: the frames of [`segment`] say what was durable before them.

mod replay;
mod segment;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tidewire_types::{Result, SqlError, SqlState};
use tracing::error;

pub use self::replay::Replayed;
pub(crate) use self::segment::{file_name as segment_name, first_of as first_of_segment};
use crate::Storage;
use crate::disk::DiskFile;

/// Bytes of the frame that was written last that are kept for the next one.
const FRAME_BYTES_KEPT: usize = 1 << 20;

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Bytes from which a segment is followed by a new one.
    pub segment_bytes_max: u64,
    /// How long a record that nobody waits for may stay without `fsync`.
    pub lazy_sync: Duration,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions { segment_bytes_max: 64 << 20, lazy_sync: Duration::from_millis(100) }
    }
}

/// The writing end; one a directory.
pub struct Log {
    storage: Storage,
    options: LogOptions,
    segment: Segment,
    // The number of the record to come.
    next: u64,
    n_bytes: u64,
    frame: Vec<u8>,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
}

struct Segment {
    name: String,
    file: Arc<dyn DiskFile>,
    len: u64,
}

/// What the log and its thread share.
pub struct Progress {
    // Every record below this number is durable.
    n_durable: AtomicU64,
    state: Mutex<State>,
    // Signalled when there is something to sync.
    appended: Condvar,
    // Signalled when something became durable, or never will.
    synced: Condvar,
}

#[derive(Default)]
struct State {
    // Every record below this number was written.
    n_written: u64,
    // Somebody waits for the records below this number.
    n_wanted: u64,
    // When the oldest record was written that is not durable.
    since: Option<Instant>,
    // When the sync that runs began.
    syncing_since: Option<Instant>,
    // What was written to since the last sync.
    files: Vec<Arc<dyn DiskFile>>,
    // Files were made since the last sync.
    new_files: bool,
    error: Option<SqlError>,
    stopping: bool,
}

/// The files to sync, whether some of them are new, and how many records there are then.
type Group = (Vec<Arc<dyn DiskFile>>, bool, u64);

impl Log {
    /// Calls `each` with the number and payload of every record from number `from` on, in order, and cuts a torn end
    /// off. To be called before `start`, with nobody else in the directory.
    ///
    /// Errors: `XX001` where a record that was durable is damaged or missing, unless `cut_at_damage`; then all from there
    /// on is set aside in files that end in `.damaged`.
    pub fn replay(
        storage: &Storage,
        from: u64,
        cut_at_damage: bool,
        each: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<Replayed> {
        replay::replay(storage, from, cut_at_damage, each)
    }

    /// Begins a new segment whose first record will have the number `next`. `on_synced` is called, on the log's thread,
    /// whenever records have become durable or an `fsync` failed.
    pub fn start(
        storage: Storage,
        next: u64,
        options: LogOptions,
        on_synced: impl Fn() + Send + 'static,
    ) -> Result<Log> {
        let segment = begin_segment(&storage, next)?;
        segment.file.sync().and_then(|()| storage.log.sync()).map_err(|e| sync_failed(&e))?;
        let state = State { n_written: next, n_wanted: next, ..State::default() };
        let progress = Arc::new(Progress {
            n_durable: AtomicU64::new(next),
            state: Mutex::new(state),
            appended: Condvar::new(),
            synced: Condvar::new(),
        });
        let (shared, storage_, lazy_sync) = (progress.clone(), storage.clone(), options.lazy_sync);
        let thread = thread::Builder::new()
            .name("log-sync".to_string())
            .spawn(move || shared.sync_loop(&storage_, lazy_sync, &on_synced))
            .map_err(|e| SqlError::new(SqlState::OutOfMemory, format!("cannot start the log's thread: {e}")))?;
        Ok(Log { storage, options, segment, next, n_bytes: 0, frame: vec![], progress, thread: Some(thread) })
    }

    /// Makes a log without records whose next one will have the number `first`, where there is none.
    pub(crate) fn begin_at(storage: &Storage, first: u64) -> Result<()> {
        let segment = begin_segment(storage, first)?;
        segment.file.sync().and_then(|()| storage.log.sync()).map_err(|e| sync_failed(&e))
    }

    /// Writes a record; its number. It is durable when `n_durable` of the progress is greater; with `wanted` the log's
    /// thread sees to that at once.
    ///
    /// Errors: `53100` when the disk is full, `58030` for any other failure; then the record is not in the log.
    pub fn append(&mut self, payload: &[u8], wanted: bool) -> Result<u64> {
        if let Some(error) = self.progress.error() {
            return Err(error);
        }
        if u32::try_from(payload.len()).is_err() {
            return Err(SqlError::new(SqlState::ProgramLimitExceeded, "a write of more than 4 GB cannot be logged")
                .with_hint("Write the rows in several statements."));
        }
        if let Some(stall) = self.stall()
            && self.storage.log.stall_max().is_some_and(|max| stall > max)
        {
            return Err(SqlError::new(SqlState::IoError, "the store of the log does not answer")
                .with_detail(format!("A write has been waiting for it for {} s.", stall.as_secs()))
                .with_hint("Writes work again when it answers; what is there can be read."));
        }
        if self.segment.len >= self.options.segment_bytes_max || self.segment.file.wants_successor() {
            self.segment = begin_segment(&self.storage, self.next)?;
            let mut state = self.progress.state.lock();
            state.new_files = true;
            state.files.push(self.segment.file.clone());
        }
        self.frame.clear();
        segment::write_frame(&mut self.frame, self.next, self.progress.n_durable(), payload);
        let written = self.storage.points.reach("log.write.before").and_then(|()| {
            self.segment.file.write_at(&self.frame, self.segment.len)?;
            self.storage.points.reach("log.write.after")
        });
        if let Err(error) = written {
            // What is left of the record is beyond the end that is known here, and will be written over.
            let _ = self.segment.file.set_len(self.segment.len);
            return Err(failed("write to", &self.storage.log.describe(&self.segment.name), &error));
        }
        self.segment.len += self.frame.len() as u64;
        self.n_bytes += self.frame.len() as u64;
        if self.frame.capacity() > FRAME_BYTES_KEPT {
            self.frame = vec![];
        }
        let number = self.next;
        self.next += 1;
        self.progress.written(&self.segment.file, self.next, wanted);
        Ok(number)
    }

    /// The number of the record to come: how many there were.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Bytes that were appended since the start.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// For how long the store of the log has not answered; None where it does, or where it is a disk.
    pub fn stall(&self) -> Option<Duration> {
        self.storage.log.stall_max().and_then(|_| self.progress.stall())
    }

    /// What became durable, for whoever waits for it.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Removes the segments that only have records below number `from`.
    pub fn remove_before(storage: &Storage, from: u64) -> Result<()> {
        let listed = storage.log.list().map_err(|e| failed("list", &storage.log.describe(""), &e))?;
        let mut segments: Vec<(u64, String)> =
            listed.into_iter().filter_map(|name| Some((segment::first_of(&name)?, name))).collect();
        segments.sort_unstable();
        let mut following = segments.iter().skip(1);
        for (_, name) in &segments {
            let Some((next_first, _)) = following.next() else { break };
            if *next_first > from {
                break;
            }
            let removed = storage.points.reach("log.remove.before").and_then(|()| storage.log.remove(name));
            removed.map_err(|e| failed("remove", &storage.log.describe(name), &e))?;
        }
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.progress.state.lock().stopping = true;
        self.progress.appended.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the log's thread did not end well");
        }
    }
}

fn begin_segment(storage: &Storage, first: u64) -> Result<Segment> {
    let name = segment::file_name(first);
    let begun = storage.points.reach("log.create.before").and_then(|()| {
        let file = storage.log.create(&name)?;
        file.write_at(&segment::header(first), 0)?;
        storage.points.reach("log.create.after")?;
        Ok(file)
    });
    match begun {
        Ok(file) => Ok(Segment { name, file, len: segment::HEADER_LEN as u64 }),
        Err(error) => Err(failed("create", &storage.log.describe(&name), &error)),
    }
}

impl Progress {
    /// Every record with a number below this is durable.
    pub fn n_durable(&self) -> u64 {
        self.n_durable.load(Ordering::Acquire)
    }

    /// For how long the sync that runs has been running; None where none does.
    pub fn stall(&self) -> Option<Duration> {
        self.state.lock().syncing_since.map(|since| since.elapsed())
    }

    /// Why nothing becomes durable any more.
    pub fn error(&self) -> Option<SqlError> {
        self.state.lock().error.clone()
    }

    /// Waits until all records with a number below `n` are durable. Errors: `58030` when they never will be.
    pub fn wait(&self, n: u64) -> Result<()> {
        let mut state = self.state.lock();
        state.n_wanted = state.n_wanted.max(n);
        self.appended.notify_one();
        loop {
            if self.n_durable() >= n {
                return Ok(());
            }
            if let Some(error) = &state.error {
                return Err(error.clone());
            }
            if state.stopping {
                return Err(SqlError::new(SqlState::AdminShutdown, "the log is closed"));
            }
            self.synced.wait(&mut state);
        }
    }

    fn written(&self, file: &Arc<dyn DiskFile>, n_written: u64, wanted: bool) {
        let mut state = self.state.lock();
        state.n_written = n_written;
        if !state.files.last().is_some_and(|last| Arc::ptr_eq(last, file)) {
            state.files.push(file.clone());
        }
        let is_first = state.since.is_none();
        state.since.get_or_insert_with(Instant::now);
        if wanted {
            state.n_wanted = n_written;
        }
        if wanted || is_first {
            self.appended.notify_one();
        }
    }

    fn sync_loop(&self, storage: &Storage, lazy_sync: Duration, on_synced: &dyn Fn()) {
        while let Some((files, new_files, n_written)) = self.next_group(lazy_sync) {
            let result = sync(storage, &files, new_files);
            let mut state = self.state.lock();
            state.syncing_since = None;
            match result {
                Ok(()) => self.n_durable.store(n_written, Ordering::Release),
                Err(reason) => {
                    error!(%reason, "the log could not be synced: nothing is written any more");
                    state.error = Some(sync_failed(&reason));
                }
            }
            let is_broken = state.error.is_some();
            drop(state);
            self.synced.notify_all();
            on_synced();
            if is_broken {
                return;
            }
        }
    }

    /// Waits for the next records to be synced: the files that have them, and how many records there are then.
    fn next_group(&self, lazy_sync: Duration) -> Option<Group> {
        let mut state = self.state.lock();
        loop {
            let n_durable = self.n_durable();
            if state.n_written > n_durable {
                let due = state.since.map(|since| since + lazy_sync);
                let is_due = due.is_none_or(|due| Instant::now() >= due);
                if state.n_wanted > n_durable || is_due || state.stopping {
                    state.since = None;
                    state.syncing_since = Some(Instant::now());
                    let files = std::mem::take(&mut state.files);
                    return Some((files, std::mem::take(&mut state.new_files), state.n_written));
                }
                if let Some(due) = due {
                    self.appended.wait_until(&mut state, due);
                }
                continue;
            }
            if state.stopping {
                return None;
            }
            self.appended.wait(&mut state);
        }
    }
}

fn sync(storage: &Storage, files: &[Arc<dyn DiskFile>], new_files: bool) -> io::Result<()> {
    storage.points.reach("log.sync.before")?;
    for file in files {
        file.sync()?;
    }
    if new_files {
        storage.log.sync()?;
    }
    storage.points.reach("log.sync.after")
}

fn sync_failed(error: &io::Error) -> SqlError {
    if let Some(lost) = sql_error_in(error) {
        return lost;
    }
    SqlError::new(SqlState::IoError, format!("could not sync the log: {error}"))
        .with_hint("The server has to be started again: it then finds what did reach the disk.")
}

/// What a store says in its own words, such as who has taken over.
pub(crate) fn sql_error_in(error: &io::Error) -> Option<SqlError> {
    error.get_ref()?.downcast_ref::<SqlError>().cloned()
}

/// `53100` or `58030`: what could not be done to a file.
pub(crate) fn failed(what: &str, file: &str, error: &io::Error) -> SqlError {
    if let Some(lost) = sql_error_in(error) {
        return lost;
    }
    let state = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SqlState::DiskFull,
        _ => SqlState::IoError,
    };
    let failed = SqlError::new(state, format!("could not {what} file \"{file}\": {error}"));
    match state {
        SqlState::DiskFull => failed.with_hint("Check free disk space."),
        _ => failed,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::store::tests::no_store;
    use crate::{LocalDisk, NoCrash};

    fn storage(root: &std::path::Path) -> Storage {
        let log = Arc::new(LocalDisk::open(root.join("log")).unwrap());
        Storage { log, checkpoints: no_store(), points: Arc::new(NoCrash) }
    }

    fn read(storage: &Storage, from: u64) -> Result<(Vec<String>, u64)> {
        let mut records = vec![];
        let replayed = Log::replay(storage, from, false, &mut |number, payload| {
            records.push(format!("{number} {}", String::from_utf8_lossy(payload)));
            Ok(())
        })?;
        Ok((records, replayed.next))
    }

    fn write(storage: &Storage, next: u64, records: &[&str]) {
        let options = LogOptions { segment_bytes_max: 100, ..LogOptions::default() };
        let mut log = Log::start(storage.clone(), next, options, || {}).unwrap();
        for record in records {
            let number = log.append(record.as_bytes(), true).unwrap();
            log.progress().wait(number + 1).unwrap();
        }
    }

    fn segments(storage: &Storage) -> Vec<String> {
        let mut names = storage.log.list().unwrap();
        names.sort();
        names
    }

    fn change(storage: &Storage, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = storage.log.read(name).unwrap();
        change(&mut bytes);
        storage.log.create(name).unwrap().write_at(&bytes, 0).unwrap();
    }

    #[test]
    fn records_come_back_in_order_over_segments() {
        let root = tempfile::tempdir().unwrap();
        let storage = storage(root.path());
        assert_eq!(read(&storage, 0).unwrap(), (vec![], 0));
        write(&storage, 0, &["a", "b", "c", "d", "e", "f"]);
        assert_eq!(segments(&storage).len(), 2);
        let all: Vec<String> = ["0 a", "1 b", "2 c", "3 d", "4 e", "5 f"].map(String::from).to_vec();
        assert_eq!(read(&storage, 0).unwrap(), (all.clone(), 6));
        write(&storage, 6, &[]);
        assert_eq!(read(&storage, 4).unwrap(), (all[4..].to_vec(), 6));
        Log::remove_before(&storage, 2).unwrap();
        assert_eq!(segments(&storage).len(), 3, "the first one has a record that is still wanted");
        Log::remove_before(&storage, 6).unwrap();
        assert_eq!(segments(&storage), [segment::file_name(6)], "the last one stays");
        assert_eq!(read(&storage, 3).unwrap_err().state(), SqlState::DataCorrupted, "what is missing is told");
    }

    #[test]
    fn a_torn_end_is_cut_wherever_it_is() {
        let root = tempfile::tempdir().unwrap();
        let storage = storage(root.path());
        write(&storage, 0, &["a", "b"]);
        let name = segment::file_name(0);
        let whole = storage.log.read(&name).unwrap();
        let second = segment::HEADER_LEN + segment::FRAME_LEN + 1;
        for len in (0..whole.len()).rev() {
            storage.log.create(&name).unwrap().write_at(&whole[..len], 0).unwrap();
            let (records, next) = read(&storage, 0).unwrap();
            let expected = usize::from(len >= second) + usize::from(len == whole.len());
            assert_eq!((records.len(), next), (expected, expected as u64), "{len} bytes");
            write(&storage, next, &["z"]);
            let (records, _) = read(&storage, 0).unwrap();
            assert_eq!(records.last().unwrap(), &format!("{next} z"));
            for name in segments(&storage) {
                storage.log.remove(&name).unwrap();
            }
        }
    }

    #[test]
    fn damage_before_durable_records_is_told_with_its_place_and_cut_only_on_demand() {
        let root = tempfile::tempdir().unwrap();
        let storage = storage(root.path());
        write(&storage, 0, &["a", "b", "c", "d", "e"]);
        let name = segment::file_name(0);
        let second = segment::HEADER_LEN + segment::FRAME_LEN + 1;
        change(&storage, &name, |bytes| bytes[second + segment::FRAME_LEN] ^= 1);
        let error = read(&storage, 0).unwrap_err();
        assert_eq!(error.state(), SqlState::DataCorrupted);
        assert!(error.message().contains(&name) && error.message().contains(&format!("offset {second}")), "{error}");
        let mut records = vec![];
        let replayed = Log::replay(&storage, 0, true, &mut |number, _| {
            records.push(number);
            Ok(())
        });
        assert_eq!((records, replayed.unwrap().next), (vec![0], 1));
        assert_eq!(segments(&storage).iter().filter(|name| name.ends_with(".damaged")).count(), 2);
        write(&storage, 1, &["x"]);
        assert_eq!(read(&storage, 0).unwrap().0, ["0 a", "1 x"]);
    }

    #[test]
    fn a_segment_that_is_missing_is_told() {
        let root = tempfile::tempdir().unwrap();
        let storage = storage(root.path());
        write(&storage, 0, &["a", "b", "c", "d", "e", "f", "g"]);
        let names = segments(&storage);
        storage.log.remove(&names[1]).unwrap();
        assert_eq!(read(&storage, 0).unwrap_err().state(), SqlState::DataCorrupted);
    }

    #[test]
    fn a_record_that_nobody_waits_for_is_synced_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        let (sender, synced) = mpsc::channel();
        let options = LogOptions { lazy_sync: Duration::from_millis(5), ..LogOptions::default() };
        let mut log =
            Log::start(storage(root.path()), 0, options, move || sender.send(()).unwrap_or_default()).unwrap();
        log.append(b"a", false).unwrap();
        synced.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(log.progress().n_durable(), 1);
    }

    struct Full(Mutex<Option<io::ErrorKind>>);

    impl crate::CrashPoints for Full {
        fn reach(&self, point: &'static str) -> io::Result<()> {
            match *self.0.lock() {
                Some(kind) if point == "log.write.after" && kind == io::ErrorKind::StorageFull => Err(kind.into()),
                Some(kind) if point == "log.sync.before" && kind == io::ErrorKind::Other => Err(kind.into()),
                _ => Ok(()),
            }
        }
    }

    #[test]
    fn a_full_disk_refuses_a_record_and_heals() {
        let root = tempfile::tempdir().unwrap();
        let full = Arc::new(Full(Mutex::new(None)));
        let storage = Storage { points: full.clone(), ..storage(root.path()) };
        let mut log = Log::start(storage.clone(), 0, LogOptions::default(), || {}).unwrap();
        log.append(b"a", true).unwrap();
        *full.0.lock() = Some(io::ErrorKind::StorageFull);
        assert_eq!(log.append(b"refused, and longer", true).unwrap_err().state(), SqlState::DiskFull);
        *full.0.lock() = None;
        log.append(b"b", true).unwrap();
        drop(log);
        assert_eq!(read(&storage, 0).unwrap().0, ["0 a", "1 b"]);
    }

    /// A store whose files are synced when it is told so.
    struct Away(LocalDisk, Arc<Mutex<()>>);

    struct AwayFile(Arc<dyn DiskFile>, Arc<Mutex<()>>);

    impl crate::Disk for Away {
        fn list(&self) -> io::Result<Vec<String>> {
            self.0.list()
        }
        fn read(&self, name: &str) -> io::Result<Vec<u8>> {
            self.0.read(name)
        }
        fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
            Ok(Arc::new(AwayFile(self.0.create(name)?, self.1.clone())))
        }
        fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
            self.0.open(name)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
        fn describe(&self, name: &str) -> String {
            self.0.describe(name)
        }
        fn stall_max(&self) -> Option<Duration> {
            Some(Duration::from_millis(1))
        }
    }

    impl DiskFile for AwayFile {
        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.0.write_at(bytes, offset)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }
        fn sync(&self) -> io::Result<()> {
            let _answers = self.1.lock();
            self.0.sync()
        }
    }

    #[test]
    fn a_store_that_is_away_refuses_records_after_a_while_and_heals() {
        let root = tempfile::tempdir().unwrap();
        let answers = Arc::new(Mutex::new(()));
        let away = Away(LocalDisk::open(root.path().join("log")).unwrap(), answers.clone());
        let storage = Storage { log: Arc::new(away), ..storage(root.path()) };
        let mut log = Log::start(storage.clone(), 0, LogOptions::default(), || {}).unwrap();
        let is_away = answers.lock();
        let mut n_taken = 0;
        let deadline = Instant::now() + Duration::from_secs(10);
        let refused = loop {
            match log.append(b"a", true) {
                Ok(_) => n_taken += 1,
                Err(error) => break error,
            }
            assert!(Instant::now() < deadline, "nothing is refused");
        };
        assert_eq!(refused.state(), SqlState::IoError);
        assert!(log.stall().is_some());
        drop(is_away);
        log.progress().wait(n_taken).unwrap();
        let number = log.append(b"b", true).unwrap();
        log.progress().wait(number + 1).unwrap();
        drop(log);
        assert_eq!(read(&storage, 0).unwrap().1, n_taken + 1, "what was taken is there");
    }

    #[test]
    fn after_a_failed_sync_nothing_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let failing = Arc::new(Full(Mutex::new(None)));
        let storage = Storage { points: failing.clone(), ..storage(root.path()) };
        let mut log = Log::start(storage, 0, LogOptions::default(), || {}).unwrap();
        *failing.0.lock() = Some(io::ErrorKind::Other);
        let number = log.append(b"a", true).unwrap();
        assert_eq!(log.progress().wait(number + 1).unwrap_err().state(), SqlState::IoError);
        *failing.0.lock() = None;
        assert_eq!(log.append(b"b", true).unwrap_err().state(), SqlState::IoError);
    }
}
