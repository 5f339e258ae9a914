//! A disk that loses what was not synced: for tests that kill a server at any step.
//!
//! What is written is seen at once, as by the operating system's cache, and is durable only when the file, and the
//! directory it was made in, have been synced. The process can be made to die at any step ([`Machine::die_after`]); from
//! then on every call fails. [`Machine::reboot`] leaves what a real machine might: of each write that was not synced all,
//! nothing or a part, whatever became of the others. All choices follow from the seed.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tidewire_state::{CrashPoints, Disk, DiskFile, Storage, Store};

/// SplitMix64: all random choices of a test from one seed.
#[derive(Clone, Debug, Default)]
pub struct Random(pub u64);

impl Random {
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// What is wrong with a machine, so that a test can show that it would be found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// Nothing.
    #[default]
    None,
    /// `fsync` does nothing.
    NoSync,
    /// The files of a checkpoint become durable after the manifest that names them.
    EarlyManifest,
}

/// One machine: a log directory and a store of checkpoints. Clones are the same one.
#[derive(Clone)]
pub struct Machine {
    state: Arc<Mutex<State>>,
    // A process of an earlier life stays dead, whatever its threads still do.
    life: u64,
}

struct State {
    life: u64,
    random: Random,
    sabotage: Sabotage,
    // How many steps the process still lives; None: it is not to die.
    steps_left: Option<u64>,
    is_dead: bool,
    // The point at which it died.
    died_at: Option<&'static str>,
    // One write in so many finds the disk full.
    full_every: Option<u64>,
    sync_fails: bool,
    files: Vec<File>,
    // As seen, and as a crash would leave it: the index of the file of each name.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    objects: BTreeMap<String, Bytes>,
    // Under `EarlyManifest`: objects that are not durable yet.
    late_objects: Vec<String>,
}

#[derive(Clone, Default)]
struct File {
    content: Vec<u8>,
    durable: Vec<u8>,
    // What was done since the last sync.
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write(offset, bytes) => {
                let offset = *offset as usize;
                if content.len() < offset + bytes.len() {
                    content.resize(offset + bytes.len(), 0);
                }
                if let Some(place) = content.get_mut(offset..offset + bytes.len()) {
                    place.copy_from_slice(bytes);
                }
            }
            Change::SetLen(len) => content.resize(*len as usize, 0),
        }
    }
}

impl Machine {
    /// A machine with empty disks.
    pub fn new(seed: u64, sabotage: Sabotage) -> Machine {
        let state = State {
            life: 0,
            random: Random(seed),
            sabotage,
            steps_left: None,
            is_dead: false,
            died_at: None,
            full_every: None,
            sync_fails: false,
            files: vec![],
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            objects: BTreeMap::new(),
            late_objects: vec![],
        };
        Machine { state: Arc::new(Mutex::new(state)), life: 0 }
    }

    /// For a server on this machine, until the next reboot.
    pub fn storage(&self) -> Storage {
        let life = self.state.lock().life;
        let machine = Arc::new(Machine { state: self.state.clone(), life });
        Storage { log: machine.clone(), checkpoints: machine.clone(), points: machine }
    }

    /// The process will die at the step after so many others.
    pub fn die_after(&self, n_steps: u64) {
        self.state.lock().steps_left = Some(n_steps);
    }

    /// One write in so many finds the disk full.
    pub fn fill_every(&self, n_writes: Option<u64>) {
        self.state.lock().full_every = n_writes;
    }

    /// Whether `fsync` of a file fails from now on.
    pub fn fail_syncs(&self, fails: bool) {
        self.state.lock().sync_fails = fails;
    }

    /// Bytes of all files and objects that are there.
    pub fn n_bytes(&self) -> usize {
        let state = self.state.lock();
        let files = state.names.values().filter_map(|idx| state.files.get(*idx)).map(|f| f.content.len());
        files.sum::<usize>() + state.objects.values().map(Bytes::len).sum::<usize>()
    }

    /// Whether the process has died, and where.
    pub fn died_at(&self) -> Option<&'static str> {
        self.state.lock().died_at
    }

    /// Kills the process, if it is not dead.
    pub fn kill(&self) {
        self.state.lock().die("between two steps");
    }

    /// Power comes back: what was not durable is there, or not, or in part.
    pub fn reboot(&self) {
        let mut state = self.state.lock();
        let State { random, files, names, durable_names, .. } = &mut *state;
        let all: Vec<String> = names.keys().chain(durable_names.keys()).cloned().collect();
        for name in all {
            let pick = if random.below(2) == 0 { &*names } else { &*durable_names }.get(&name).copied();
            match pick {
                Some(file) => drop(durable_names.insert(name, file)),
                None => drop(durable_names.remove(&name)),
            }
        }
        *names = durable_names.clone();
        for file in files {
            let mut content = std::mem::take(&mut file.durable);
            for change in file.pending.drain(..) {
                match (random.below(4), change) {
                    (0, _) => {}
                    (1, Change::Write(offset, bytes)) => {
                        let len = random.below(bytes.len() as u64 + 1) as usize;
                        Change::Write(offset, bytes.get(..len).unwrap_or_default().to_vec()).apply(&mut content);
                    }
                    (_, change) => change.apply(&mut content),
                }
            }
            (file.content, file.durable) = (content.clone(), content);
        }
        for name in std::mem::take(&mut state.late_objects) {
            if state.random.below(2) == 0 {
                state.objects.remove(&name);
            }
        }
        (state.is_dead, state.steps_left, state.died_at) = (false, None, None);
        state.life += 1;
    }
}

impl State {
    fn die(&mut self, at: &'static str) {
        self.is_dead = true;
        self.died_at.get_or_insert(at);
    }

    /// One more step. Errors: the process is dead.
    fn step(&mut self, life: u64, at: &'static str) -> io::Result<()> {
        self.alive(life)?;
        match &mut self.steps_left {
            Some(0) => self.die(at),
            Some(n) => *n -= 1,
            None => {}
        }
        self.alive(life)
    }

    fn alive(&self, life: u64) -> io::Result<()> {
        match self.is_dead || self.life != life {
            true => Err(io::Error::other("the process is dead")),
            false => Ok(()),
        }
    }

    fn file(&mut self, idx: usize) -> io::Result<&mut File> {
        self.files.get_mut(idx).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl CrashPoints for Machine {
    fn reach(&self, point: &'static str) -> io::Result<()> {
        self.state.lock().step(self.life, point)
    }
}

struct Handle {
    machine: Machine,
    file: usize,
}

impl Disk for Machine {
    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.alive(self.life)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut state = self.state.lock();
        state.alive(self.life)?;
        let idx = state.find(name)?;
        Ok(state.file(idx)?.content.clone())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.alive(self.life)?;
        let file = match state.names.get(name).copied() {
            Some(file) => {
                let emptied = state.file(file)?;
                emptied.content.clear();
                emptied.pending.push(Change::SetLen(0));
                file
            }
            None => {
                state.files.push(File::default());
                let file = state.files.len() - 1;
                state.names.insert(name.to_string(), file);
                file
            }
        };
        Ok(Arc::new(Handle { machine: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state.lock();
        state.alive(self.life)?;
        Ok(Arc::new(Handle { machine: self.clone(), file: state.find(name)? }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step(self.life, "disk.remove")?;
        state.names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step(self.life, "disk.rename")?;
        let file = state.find(from)?;
        state.names.remove(from);
        state.names.insert(to.to_string(), file);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step(self.life, "disk.sync")?;
        if state.sabotage != Sabotage::NoSync {
            state.durable_names = state.names.clone();
        }
        Ok(())
    }

    fn describe(&self, name: &str) -> String {
        format!("log/{name}")
    }
}

impl DiskFile for Handle {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.machine.state.lock();
        state.alive(self.machine.life)?;
        let is_full = state.full_every.is_some_and(|n| state.random.clone().below(n) == 0);
        state.random.below(2);
        let len = if is_full { state.random.below(bytes.len() as u64) as usize } else { bytes.len() };
        let change = Change::Write(offset, bytes.get(..len).unwrap_or_default().to_vec());
        let file = state.file(self.file)?;
        change.apply(&mut file.content);
        file.pending.push(change);
        if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.machine.state.lock();
        state.alive(self.machine.life)?;
        let file = state.file(self.file)?;
        let change = Change::SetLen(len);
        change.apply(&mut file.content);
        file.pending.push(change);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.machine.state.lock();
        state.step(self.machine.life, "file.sync")?;
        if state.sync_fails {
            return Err(io::Error::other("the disk does not answer"));
        }
        if state.sabotage != Sabotage::NoSync {
            let file = state.file(self.file)?;
            file.durable = file.content.clone();
            file.pending.clear();
        }
        Ok(())
    }
}

impl Store for Machine {
    fn put_new(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.step(self.life, "store.put").is_err() {
            // The process died within the put: all of the object may be there, nothing, or a part.
            if state.life == self.life && state.died_at == Some("store.put") && !state.objects.contains_key(name) {
                let len = state.random.below(bytes.len() as u64 * 2 + 1).min(bytes.len() as u64) as usize;
                if len > 0 {
                    state.objects.insert(name.to_string(), bytes.slice(..len));
                }
                state.died_at = Some("within store.put");
            }
            return Err(io::Error::other("the process is dead"));
        }
        if state.objects.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.full_every.is_some_and(|n| state.random.below(n) == 0) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.objects.insert(name.to_string(), bytes);
        if state.sabotage == Sabotage::EarlyManifest && !name.starts_with("manifest") {
            state.late_objects.push(name.to_string());
        }
        Ok(())
    }

    fn get(&self, name: &str) -> io::Result<Bytes> {
        let state = self.state.lock();
        state.alive(self.life)?;
        state.objects.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.alive(self.life)?;
        Ok(state.objects.keys().cloned().collect())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step(self.life, "store.delete")?;
        state.objects.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn describe(&self, name: &str) -> String {
        format!("checkpoints/{name}")
    }
}
