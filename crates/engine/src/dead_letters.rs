//! What could not be used: undecodable records and rows whose expression failed, each whole and with its error.
//!
//! Kept in memory, the newest up to a number of bytes; the counter counts all.

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
        inner.n_total += 1;
        inner.n_bytes += letter.n_bytes();
        inner.letters.push_back(letter);
        while inner.n_bytes > self.bytes_max && inner.letters.len() > 1 {
            let Some(oldest) = inner.letters.pop_front() else { break };
            inner.n_bytes -= oldest.n_bytes();
            if let Some((split, position)) = oldest.place {
                inner.seen.remove(&(oldest.object, split, position));
            }
        }
        true
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
        inner.seen.retain(|(o, ..)| *o != object);
        inner.n_bytes = inner.letters.iter().map(Letter::n_bytes).sum();
    }
}
