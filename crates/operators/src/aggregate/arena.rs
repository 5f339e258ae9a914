//! Bytes of long keys, in blocks that never move: a pile that is written anew once most of it is garbage.

/// Bytes of a block; a longer value gets a block of its own.
const BLOCK_BYTES: usize = 1 << 20;
/// Garbage that is not worth a rewrite.
const GARBAGE_BYTES_MIN: usize = 1 << 16;

/// Long values, addressed by block (upper 32 bits) and position.
#[derive(Default)]
pub(super) struct Arena {
    blocks: Vec<Vec<u8>>,
    total_bytes: usize,
    live_bytes: usize,
}

impl Arena {
    /// Stores a value; returns its place.
    pub(super) fn push(&mut self, value: &[u8]) -> u64 {
        let has_room = self.blocks.last().is_some_and(|b| b.len() + value.len() <= BLOCK_BYTES);
        if !has_room {
            self.blocks.push(vec![]);
        }
        let block_idx = self.blocks.len().saturating_sub(1) as u64;
        self.total_bytes += value.len();
        self.live_bytes += value.len();
        let Some(block) = self.blocks.last_mut() else { return 0 };
        let position = block.len() as u64;
        block.extend_from_slice(value);
        block_idx << 32 | position
    }

    /// The value of `len` bytes at `place`.
    #[inline]
    pub(super) fn get(&self, place: u64, len: usize) -> &[u8] {
        let position = (place & u64::from(u32::MAX)) as usize;
        self.blocks.get((place >> 32) as usize).and_then(|b| b.get(position..position + len)).unwrap_or_default()
    }

    /// Counts a value of `len` bytes as garbage.
    pub(super) fn forget(&mut self, len: usize) {
        self.live_bytes = self.live_bytes.saturating_sub(len);
    }

    /// Whether most of it is garbage.
    pub(super) fn wants_rewrite(&self) -> bool {
        self.total_bytes > 2 * self.live_bytes + GARBAGE_BYTES_MIN
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(Vec::capacity).sum()
    }
}
