//! Changes on their way to one client: a queue bounded by bytes. A client that does not keep up is told and cut off;
//! nobody else waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidewire_types::{Delta, Epoch, Result, SqlError, SqlState};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The loop's end.
pub struct Subscriber {
    sender: UnboundedSender<Result<EpochDeltas>>,
    queued_bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// The client's end.
pub struct Receiver {
    receiver: UnboundedReceiver<Result<EpochDeltas>>,
    queued_bytes: Arc<AtomicUsize>,
}

/// The changes of one epoch.
pub struct EpochDeltas {
    /// The epoch.
    pub epoch: Epoch,
    /// The changes; rows may cancel each other.
    pub deltas: Vec<Delta>,
    n_bytes: usize,
}

/// A queue that holds up to `bytes_max` bytes.
pub fn channel(bytes_max: usize) -> (Subscriber, Receiver) {
    let (sender, receiver) = unbounded_channel();
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    (Subscriber { sender, queued_bytes: queued_bytes.clone(), bytes_max }, Receiver { receiver, queued_bytes })
}

impl Subscriber {
    /// Hands over the changes of an epoch. False when the client is gone, or was cut off because its queue is full.
    pub fn send(&self, epoch: Epoch, deltas: &[Delta]) -> bool {
        let n_bytes = deltas.iter().map(|d| d.rows().get_array_memory_size()).sum();
        // One epoch may be larger than the bound; a second one behind it may not.
        let queued = self.queued_bytes.load(Ordering::Relaxed);
        if queued > 0 && queued + n_bytes > self.bytes_max {
            self.fail(
                SqlError::new(SqlState::ProgramLimitExceeded, "the subscription is too slow")
                    .with_detail(format!("{queued} bytes of changes wait for the client."))
                    .with_hint("Read faster, or subscribe to less; subscribe again to go on."),
            );
            return false;
        }
        self.queued_bytes.fetch_add(n_bytes, Ordering::Relaxed);
        self.sender.send(Ok(EpochDeltas { epoch, deltas: deltas.to_vec(), n_bytes })).is_ok()
    }

    /// Whether the client is gone.
    pub fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }

    /// Ends the subscription with an error, behind what waits already.
    pub fn fail(&self, error: SqlError) {
        // A client that went away wants no answer.
        let _ = self.sender.send(Err(error));
    }
}

impl Receiver {
    /// The changes of the next epoch with any; None when the server has ended.
    pub async fn recv(&mut self) -> Option<Result<EpochDeltas>> {
        let received = self.receiver.recv().await?;
        if let Ok(changes) = &received {
            self.queued_bytes.fetch_sub(changes.n_bytes, Ordering::Relaxed);
        }
        Some(received)
    }
}
