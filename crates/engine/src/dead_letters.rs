//! What could not be used: undecodable records and rows whose expression failed, each whole and with its error.
//!
//! The newest are kept, up to a number of bytes; the counter counts all. With a data directory they are in the log too.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;
use tidewire_connect::{DeadLetter, Position, Split};
use tidewire_types::ObjectId;

/// All dead letters of a server.
pub struct DeadLetters {
    bytes_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    letters: VecDeque<Letter>,
    // What is not in the log yet, where there is one.
    unwritten: Option<Vec<Letter>>,
    // Views that are built again, and the rows that were kept for them already.
    rebuilt: HashMap<ObjectId, HashSet<RowLetter>>,
    // Rows that came behind the checkpoint that views were restored from, and how often: they come once more.
    rows_again: HashMap<RowLetter, usize>,
    // The same for records of sources.
    records_again: HashSet<(ObjectId, Split, Position)>,
    // Records that are kept: a record that a second view reads again is the same dead letter.
    seen: HashSet<(ObjectId, Split, Position)>,
    n_bytes: usize,
    n_total: u64,
}

/// What tells a failing row from others: the view, the row, the error.
type RowLetter = (ObjectId, Option<Bytes>, String);

/// One dead letter.
#[derive(Clone, Debug)]
pub struct Letter {
    /// When it was found: microseconds since 1970-01-01 UTC.
    pub time_us: i64,
    /// The source or view, and its name.
    pub object: ObjectId,
    /// The name of the source or view.
    pub name: String,
    /// Where a record stood.
    pub place: Option<(Split, Position)>,
    /// The record's own time.
    pub timestamp_us: Option<i64>,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The record's value; of a failing row, its columns as text.
    pub value: Option<Bytes>,
    /// Why.
    pub error: String,
}

impl Letter {
    /// A record of a source.
    pub fn record(letter: DeadLetter, object: ObjectId, name: &str, time_us: i64) -> Letter {
        Letter {
            time_us,
            object,
            name: name.to_string(),
            place: Some((letter.split, letter.position)),
            timestamp_us: letter.timestamp_us,
            key: letter.key,
            value: letter.value,
            error: letter.error,
        }
    }

    fn of_row(&self) -> RowLetter {
        (self.object, self.value.clone(), self.error.clone())
    }

    fn n_bytes(&self) -> usize {
        let len = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
        size_of::<Letter>() + self.name.len() + self.error.len() + len(&self.key) + len(&self.value)
    }
}

impl Inner {
    /// Whether a failing row is kept already.
    fn is_known(&mut self, letter: &Letter) -> bool {
        if let Some(known) = self.rebuilt.get(&letter.object) {
            return known.contains(&letter.of_row());
        }
        if self.rows_again.is_empty() {
            return false;
        }
        let row = letter.of_row();
        let Some(n) = self.rows_again.get_mut(&row) else { return false };
        *n -= 1;
        if *n == 0 {
            self.rows_again.remove(&row);
        }
        true
    }

    fn keep(&mut self, letter: Letter, bytes_max: usize) {
        self.n_total += 1;
        self.n_bytes += letter.n_bytes();
        self.letters.push_back(letter);
        while self.n_bytes > bytes_max && self.letters.len() > 1 {
            let Some(oldest) = self.letters.pop_front() else { break };
            self.n_bytes -= oldest.n_bytes();
            if let Some((split, position)) = oldest.place {
                self.seen.remove(&(oldest.object, split, position));
            }
        }
    }
}

impl DeadLetters {
    pub fn new(bytes_max: usize) -> DeadLetters {
        DeadLetters { bytes_max, inner: Mutex::default() }
    }

    /// Keeps a letter, unless the same record is kept already. Whether it is to be counted.
    pub fn push(&self, letter: Letter) -> bool {
        let mut inner = self.inner.lock();
        match letter.place {
            Some((split, position)) => {
                let record = (letter.object, split, position);
                if !inner.seen.insert(record) {
                    // What was counted behind the checkpoint is not in the counters that it has.
                    return inner.records_again.remove(&record);
                }
            }
            None if inner.is_known(&letter) => return false,
            None => {}
        }
        if let Some(unwritten) = &mut inner.unwritten {
            unwritten.push(letter.clone());
        }
        inner.keep(letter, self.bytes_max);
        true
    }

    /// Begins with letters that were kept before, and keeps what comes for `take_unwritten`. The last `n_behind` letters came
    /// behind the checkpoint that views are restored from: views will meet them once more.
    pub fn restore(&self, letters: Vec<Letter>, n_behind: usize) {
        let mut inner = self.inner.lock();
        for letter in letters.iter().rev().take(n_behind) {
            match letter.place {
                Some((split, position)) => drop(inner.records_again.insert((letter.object, split, position))),
                None => *inner.rows_again.entry(letter.of_row()).or_default() += 1,
            }
        }
        inner.unwritten = Some(vec![]);
        for letter in letters {
            if let Some((split, position)) = letter.place {
                inner.seen.insert((letter.object, split, position));
            }
            inner.keep(letter, self.bytes_max);
        }
    }

    /// A view is built again: until `end_rebuild` a failing row of it that is kept already is not kept again.
    pub fn begin_rebuild(&self, view: ObjectId) {
        let mut inner = self.inner.lock();
        let known =
            inner.letters.iter().filter(|l| l.object == view && l.place.is_none()).map(Letter::of_row).collect();
        inner.rebuilt.insert(view, known);
        inner.rows_again.retain(|(of, ..), _| *of != view);
    }

    /// The view is built, or cannot be.
    pub fn end_rebuild(&self, view: ObjectId) {
        self.inner.lock().rebuilt.remove(&view);
    }

    /// What came since the last call, where it is to be written.
    pub fn take_unwritten(&self) -> Vec<Letter> {
        self.inner.lock().unwritten.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What is kept, the oldest first.
    pub fn all(&self) -> Vec<Letter> {
        self.inner.lock().letters.iter().cloned().collect()
    }

    /// How many there were since the start.
    pub fn n_total(&self) -> u64 {
        self.inner.lock().n_total
    }

    /// Forgets those of an object that was dropped.
    pub fn forget(&self, object: ObjectId) {
        let mut inner = self.inner.lock();
        inner.letters.retain(|l| l.object != object);
        if let Some(unwritten) = &mut inner.unwritten {
            unwritten.retain(|l| l.object != object);
        }
        inner.seen.retain(|(o, ..)| *o != object);
        inner.records_again.retain(|(o, ..)| *o != object);
        inner.rows_again.retain(|(o, ..), _| *o != object);
        inner.n_bytes = inner.letters.iter().map(Letter::n_bytes).sum();
    }
}
