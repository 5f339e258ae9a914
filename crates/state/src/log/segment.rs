//! The bytes of one segment of the log: a header, then frames, each with its own checksum.
//!
//! A frame says how many records were durable when it was written. So a reader that meets a frame that is not whole
//! can tell a torn end (nothing behind it was written after it had become durable) from damage (something was).

use std::ops::Range;

/// How long a segment's header is.
pub const HEADER_LEN: usize = 24;
/// How much a frame has besides its payload.
pub const FRAME_LEN: usize = 28;

const HEADER_MAGIC: &[u8; 8] = b"TIDELOG1";
const FRAME_MAGIC: &[u8; 4] = b"REC\x01";
const PREFIX: &str = "records-from-";
const SUFFIX: &str = ".log";

/// The name of the segment whose first record has this number.
pub fn file_name(first: u64) -> String {
    format!("{PREFIX}{first:020}{SUFFIX}")
}

/// The number in a segment's name; None for other files.
pub fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// The header of a segment.
pub fn header(first: u64) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    let (magic, rest) = header.split_at_mut(8);
    magic.copy_from_slice(HEADER_MAGIC);
    let (number, rest) = rest.split_at_mut(8);
    number.copy_from_slice(&first.to_le_bytes());
    let crc = crc32c::crc32c(&first.to_le_bytes());
    let (checksum, _) = rest.split_at_mut(4);
    checksum.copy_from_slice(&crc.to_le_bytes());
    header
}

/// Whether a segment begins as it should.
pub fn has_header(bytes: &[u8], first: u64) -> bool {
    bytes.get(..HEADER_LEN) == Some(&header(first)[..])
}

/// Appends a frame.
pub fn write_frame(out: &mut Vec<u8>, number: u64, n_durable: u64, payload: &[u8]) {
    let len = payload.len() as u32;
    out.extend_from_slice(FRAME_MAGIC);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&checksum(len, number, n_durable, payload).to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&n_durable.to_le_bytes());
    out.extend_from_slice(payload);
}

fn checksum(len: u32, number: u64, n_durable: u64, payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&len.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &number.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &n_durable.to_le_bytes());
    crc32c::crc32c_append(crc, payload)
}

/// A frame that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The record's number.
    pub number: u64,
    /// Every record with a lower number than this was durable when the frame was written.
    pub n_durable: u64,
    /// Where the payload is.
    pub payload: Range<usize>,
}

/// The frame at an offset, where a whole one is.
pub fn read_frame(bytes: &[u8], offset: usize) -> Option<Frame> {
    let head = bytes.get(offset..offset.checked_add(FRAME_LEN)?)?;
    let (magic, head) = head.split_first_chunk::<4>()?;
    let (len, head) = head.split_first_chunk::<4>()?;
    let (crc, head) = head.split_first_chunk::<4>()?;
    let (number, head) = head.split_first_chunk::<8>()?;
    let (n_durable, _) = head.split_first_chunk::<8>()?;
    if magic != FRAME_MAGIC {
        return None;
    }
    let (len, number, n_durable) =
        (u32::from_le_bytes(*len), u64::from_le_bytes(*number), u64::from_le_bytes(*n_durable));
    let begin = offset + FRAME_LEN;
    let payload = begin..begin.checked_add(len as usize)?;
    let found = checksum(len, number, n_durable, bytes.get(payload.clone())?);
    (found == u32::from_le_bytes(*crc)).then_some(Frame { number, n_durable, payload })
}

/// All whole frames at or behind an offset, wherever they begin.
pub fn frames_behind(bytes: &[u8], offset: usize) -> impl Iterator<Item = Frame> {
    let mut at = offset;
    std::iter::from_fn(move || {
        loop {
            let rest = bytes.get(at..)?;
            let found = rest.windows(FRAME_MAGIC.len()).position(|window| window == FRAME_MAGIC)?;
            at += found;
            match read_frame(bytes, at) {
                Some(frame) => {
                    at = frame.payload.end;
                    return Some(frame);
                }
                None => at += 1,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_number_of_its_first_record() {
        assert_eq!(file_name(7), "records-from-00000000000000000007.log");
        assert_eq!(first_of(&file_name(u64::MAX)), Some(u64::MAX));
        assert_eq!(first_of("records-from-7.log"), None);
        assert_eq!(first_of("lock"), None);
    }

    #[test]
    fn any_changed_byte_spoils_a_frame() {
        let mut bytes = vec![];
        write_frame(&mut bytes, 5, 3, b"payload");
        let frame = read_frame(&bytes, 0).unwrap();
        assert_eq!((frame.number, frame.n_durable, &bytes[frame.payload]), (5, 3, &b"payload"[..]));
        for idx in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[idx] ^= 0x10;
            assert_eq!(read_frame(&changed, 0), None, "byte {idx}");
        }
        assert_eq!(read_frame(&bytes[..bytes.len() - 1], 0), None);
        assert_eq!(read_frame(&bytes, usize::MAX), None);
    }

    #[test]
    fn frames_are_found_behind_damage() {
        let mut bytes = vec![];
        for number in 0..4 {
            write_frame(&mut bytes, number, number, b"REC\x01 in the payload");
        }
        bytes[2] ^= 1;
        let found: Vec<u64> = frames_behind(&bytes, 0).map(|frame| frame.number).collect();
        assert_eq!(found, [1, 2, 3]);
    }
}
