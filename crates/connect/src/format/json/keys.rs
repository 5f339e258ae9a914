//! Which column a key of an object means.
//!
//! Records of a topic mostly have the same keys in the same order: the keys of the last object are remembered with
//! what they meant, and the next object's key is first compared with the one remembered at its place.

use super::cursor::Cursor;
use crate::bad::Outcome;

/// How many keys of an object are remembered at most, and how long ones.
const KEYS_MAX: usize = 4096;
const KEY_BYTES_MAX: usize = 256;

/// The names of the columns, and the keys of the last object.
#[derive(Debug)]
pub(crate) struct Keys {
    names: Vec<String>,
    lower_names: Vec<String>,
    seen: Vec<Seen>,
    scratch: String,
}

/// A key of the last object.
#[derive(Debug)]
struct Seen {
    /// As it was written, from its first quote to its colon.
    raw: Vec<u8>,
    /// The first 16 bytes of it, and which of their bits belong to it: most keys are compared in one step.
    head: u128,
    mask: u128,
    key: Key,
}

impl Seen {
    fn new(raw: &[u8], key: Key) -> Seen {
        // A key that is too long is remembered as one that no text begins with.
        let raw = if raw.len() <= KEY_BYTES_MAX { raw } else { b"\0" };
        let n_head = raw.len().min(16);
        let mask = u128::MAX >> (128 - 8 * n_head as u32).min(127);
        let head = raw.iter().rev().skip(raw.len() - n_head).fold(0, |head, byte| head << 8 | u128::from(*byte));
        Seen { raw: raw.to_vec(), head, mask, key }
    }

    /// Steps over the key if it comes next.
    #[inline]
    fn eat(&self, cursor: &mut Cursor<'_>) -> bool {
        match cursor.next_16() {
            Some(next) if self.raw.len() <= 16 => {
                let is_next = next & self.mask == self.head;
                if is_next {
                    cursor.advance(self.raw.len());
                }
                is_next
            }
            _ => cursor.eat(&self.raw),
        }
    }
}

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The column, if there is one of that name.
    pub(super) column: Option<usize>,
    /// The name is the same letter by letter.
    pub(super) exact: bool,
}

impl Keys {
    pub(crate) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Keys {
        let names: Vec<String> = names.map(str::to_string).collect();
        let lower_names = names.iter().map(|n| n.to_lowercase()).collect();
        Keys { names, lower_names, seen: vec![], scratch: String::new() }
    }

    /// Reads the `n`th key (from 0) of an object, and the colon behind it.
    #[inline]
    pub(super) fn read(&mut self, cursor: &mut Cursor<'_>, n: usize) -> Outcome<Key> {
        match self.seen.get(n) {
            Some(seen) if seen.eat(cursor) => Ok(seen.key),
            _ => self.read_new(cursor, n),
        }
    }

    fn read_new(&mut self, cursor: &mut Cursor<'_>, n: usize) -> Outcome<Key> {
        let start = cursor.position();
        let mut scratch = std::mem::take(&mut self.scratch);
        let key = self.find(cursor.string(&mut scratch)?);
        self.scratch = scratch;
        cursor.colon()?;
        let seen = Seen::new(cursor.since(start).as_bytes(), key);
        match self.seen.get_mut(n) {
            Some(place) => *place = seen,
            None if n < KEYS_MAX => self.seen.push(seen),
            None => {}
        }
        Ok(key)
    }

    fn find(&self, name: &str) -> Key {
        if let Some(column) = self.names.iter().position(|n| n == name) {
            return Key { column: Some(column), exact: true };
        }
        let lower = name.to_lowercase();
        Key { column: self.lower_names.iter().position(|n| *n == lower), exact: false }
    }

    /// Whether one of the first `n` keys of the present object was exactly this column's name: then one that differs
    /// in case does not count.
    pub(super) fn had_exact(&self, column: usize, n: usize) -> bool {
        let exact = Key { column: Some(column), exact: true };
        self.seen.iter().take(n).any(|seen| seen.key == exact)
    }
}
