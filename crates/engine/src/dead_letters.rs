//! What could not be used: undecodable records and rows whose expression failed, each whole and with its error.
//!
//! The newest are kept, up to a number of bytes; the counter counts all. With a data directory they are in the log too.

use std::collections::{HashSet, VecDeque};

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
    // While views are built again: what rows of views were kept for already.
    known_rows: Option<HashSet<(ObjectId, Option<Bytes>, String)>>,
    // Records that are kept: a record that a second view reads again is the same dead letter.
    seen: HashSet<(ObjectId, Split, Position)>,
    n_bytes: usize,
    n_total: u64,
}

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

    fn n_bytes(&self) -> usize {
        let len = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
        size_of::<Letter>() + self.name.len() + self.error.len() + len(&self.key) + len(&self.value)
    }
}

impl Inner {
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

    /// Keeps a letter, unless the same record is kept already: then false.
    pub fn push(&self, letter: Letter) -> bool {
        let mut inner = self.inner.lock();
        if let Some((split, position)) = letter.place
            && !inner.seen.insert((letter.object, split, position))
        {
            return false;
        }
        if let Some(known) = &inner.known_rows
            && letter.place.is_none()
            && known.contains(&(letter.object, letter.value.clone(), letter.error.clone()))
        {
            return false;
        }
        if let Some(unwritten) = &mut inner.unwritten {
            unwritten.push(letter.clone());
        }
        inner.keep(letter, self.bytes_max);
        true
    }

    /// Begins with letters that were kept before, and keeps what comes for `take_unwritten`. Until `views_are_built`
    /// a failing row that is known already is not kept again: views that are built again meet the same ones.
    pub fn restore(&self, letters: Vec<Letter>) {
        let mut inner = self.inner.lock();
        let of_rows = letters.iter().filter(|l| l.place.is_none());
        inner.known_rows = Some(of_rows.map(|l| (l.object, l.value.clone(), l.error.clone())).collect());
        inner.unwritten = Some(vec![]);
        for letter in letters {
            if let Some((split, position)) = letter.place {
                inner.seen.insert((letter.object, split, position));
            }
            inner.keep(letter, self.bytes_max);
        }
    }

    /// Every failing row from now on is a new one.
    pub fn views_are_built(&self) {
        self.inner.lock().known_rows = None;
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
        inner.n_bytes = inner.letters.iter().map(Letter::n_bytes).sum();
    }
}
