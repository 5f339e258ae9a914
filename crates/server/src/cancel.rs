//! Which connections can be cancelled, and by what key.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// All connections of a server by the number that they were told.
#[derive(Default)]
pub struct Cancels {
    last: AtomicI32,
    entries: Mutex<HashMap<i32, (Bytes, Arc<Notify>)>>,
}

impl Cancels {
    /// Enters a connection; it leaves when the registration is dropped. Protocol 3.0 has keys of 4 bytes.
    pub fn register(self: &Arc<Self>, key_bytes: usize) -> Registration {
        let key: [u8; 32] = rand::random();
        let key = Bytes::copy_from_slice(key.get(..key_bytes).unwrap_or(&key));
        let requested = Arc::new(Notify::new());
        let mut entries = self.entries.lock();
        // After 2^31 connections numbers come again: take one that is free.
        let id = loop {
            let id = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1) & i32::MAX;
            if id != 0 && !entries.contains_key(&id) {
                break id;
            }
        };
        entries.insert(id, (key.clone(), requested.clone()));
        Registration { cancels: self.clone(), id, key, requested }
    }

    /// Cancels what the connection runs at this moment, if the key is right.
    pub fn request(&self, id: i32, key: &[u8]) {
        let entries = self.entries.lock();
        if let Some((expected, requested)) = entries.get(&id)
            && is_equal(expected, key)
        {
            requested.notify_waiters();
        }
    }
}

/// Takes the same time wherever the difference is.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
}

/// One connection's entry.
pub struct Registration {
    cancels: Arc<Cancels>,
    /// Its number.
    pub id: i32,
    /// The key that a cancel request must bring.
    pub key: Bytes,
    /// Woken by a cancel request.
    pub requested: Arc<Notify>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.cancels.entries.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_key_cancels() {
        let cancels = Arc::new(Cancels::default());
        let entry = cancels.register(4);
        let mut waiting = Box::pin(entry.requested.clone().notified_owned());
        waiting.as_mut().enable();
        cancels.request(entry.id, b"nope");
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        cancels.request(entry.id, &entry.key);
        assert!(futures::poll!(waiting.as_mut()).is_ready());
        drop(entry);
        assert!(cancels.entries.lock().is_empty());
    }
}
