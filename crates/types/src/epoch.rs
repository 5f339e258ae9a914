//! One atomic step of the whole server.

use std::fmt;

/// The number of an epoch. Epoch 0 is the empty server; the first change makes epoch 1.
///
/// 32 bits, because every stored row carries the epochs of its birth and death: at a thousand epochs a second that is
/// 49 days of uninterrupted load between two restarts, and a checkpoint renumbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

impl Epoch {
    /// "Not yet": the death epoch of a row that is alive.
    pub const NEVER: Epoch = Epoch(u32::MAX);

    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
