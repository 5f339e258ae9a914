//! Crash points: the places around each durable step where a test may have the process die.

use std::io;

/// Told of each durable step as it is reached: `log.write.before`, `manifest.put.after`, ..
///
/// An error stands for the death of the process: whoever gets it must not touch the disk any more.
pub trait CrashPoints: Send + Sync {
    /// A step is about to be done, or was done.
    fn reach(&self, point: &'static str) -> io::Result<()>;
}

/// Nobody dies here.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCrash;

impl CrashPoints for NoCrash {
    fn reach(&self, _: &'static str) -> io::Result<()> {
        Ok(())
    }
}
