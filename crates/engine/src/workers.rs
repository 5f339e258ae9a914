//! The threads that run the shards of large epochs.
//!
//! A hand-off to a sleeping thread costs 7-50 us, so small epochs never come here: the epoch loop runs them inline.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use tidewire_types::{Result, SqlError, SqlState};

type Job = Box<dyn FnOnce() + Send>;

/// One thread for each shard but the first, which the caller's own thread runs.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<Sender<Job>>,
}

impl Workers {
    /// Threads for `n_shards` shards; they end when this is dropped.
    pub fn start(n_shards: usize) -> Result<Workers> {
        let threads = (1..n_shards).map(start_thread).collect::<Result<_>>()?;
        Ok(Workers { threads })
    }

    /// Runs the jobs side by side, the first on this thread; returns when all have ended, results in the jobs' order.
    /// A job that does not come back (it panicked) is an error.
    pub fn run<T: Send + 'static>(&self, jobs: Vec<impl FnOnce() -> T + Send + 'static>) -> Result<Vec<T>> {
        let mut jobs = jobs.into_iter();
        let first = jobs.next();
        let mut waiting = vec![];
        for (idx, job) in jobs.enumerate() {
            let (sender, receiver) = channel();
            let thread = self.threads.get(idx).ok_or_else(|| SqlError::internal("more jobs than shards"))?;
            let job = Box::new(move || {
                // The receiver waits below and cannot be gone.
                let _ = sender.send(job());
            });
            thread.send(job).map_err(|_| thread_gone())?;
            waiting.push(receiver);
        }
        let mut results: Vec<T> = first.map(|job| job()).into_iter().collect();
        for receiver in waiting {
            results.push(receiver.recv().map_err(|_| thread_gone())?);
        }
        Ok(results)
    }
}

fn start_thread(shard_idx: usize) -> Result<Sender<Job>> {
    let (sender, receiver) = channel::<Job>();
    thread::Builder::new()
        .name(format!("shard-{shard_idx}"))
        // A job that panics does not answer; the thread is there for the next one.
        .spawn(move || receiver.into_iter().for_each(|job| drop(catch_unwind(AssertUnwindSafe(job)))))
        .map_err(|e| SqlError::new(SqlState::OutOfMemory, format!("cannot start a shard thread: {e}")))?;
    Ok(sender)
}

fn thread_gone() -> SqlError {
    SqlError::internal("a job of a shard thread has panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_run_and_answer_in_order() {
        let workers = Workers::start(3).unwrap();
        let jobs: Vec<_> = (0..3).map(|n| move || (n, thread::current().name().map(str::to_string))).collect();
        let results = workers.run(jobs).unwrap();
        assert_eq!(results.iter().map(|r| r.0).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(results[2].1.as_deref(), Some("shard-2"));
    }
}
