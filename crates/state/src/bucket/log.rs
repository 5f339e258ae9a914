//! The log in a bucket: a segment is a sequence of objects, each what was written between two syncs.
//!
//! ```text
//! log/chunk-<number>     header: owner, nonce, segment, offset; then the bytes
//! ```
//! All objects of the log are numbered in one sequence, and each is written only where there is none of its number. So
//! the first object of a new owner, written before it reads the log, is where the old owner's next one would be: from
//! then on nothing of the old one is acknowledged. An object is there whole or not at all: there is no torn end.
//!
//! Invariant: in the order of their numbers, each object of a segment cuts it to its offset and appends its bytes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tidewire_types::{Result, SqlError};

use super::{Bucket, Put};
use crate::disk::{Disk, DiskFile};
use crate::log::{failed, first_of_segment, segment_name, sql_error_in};

const FOLDER: &str = "log";
const MAGIC: &[u8; 8] = b"TIDECHK1";
const HEADER_LEN: usize = 8 * 5 + 4;
/// A segment of so many objects is followed by a new one, so that old ones can go.
const SEGMENT_CHUNKS_MAX: usize = 256;
/// For how long the store may be away before writes are refused, rather than wait.
const STALL_MAX: Duration = Duration::from_secs(30);
/// The segment of an object that only takes its number from others.
const FENCE: u64 = u64::MAX;

/// The log's directory in a bucket. Clones are the same one.
#[derive(Clone)]
pub struct BucketLog(Arc<Inner>);

struct Inner {
    bucket: Bucket,
    owner: u64,
    nonce: u64,
    // The number of the object to come; held while it is written.
    next: Mutex<u64>,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    // The objects of each segment, in the order of their numbers.
    segments: BTreeMap<u64, Vec<Chunk>>,
    // Objects that fenced older owners.
    fences: Vec<u64>,
    // Files that are one object, such as those that were set aside.
    others: Vec<String>,
}

#[derive(Clone, Copy)]
struct Chunk {
    number: u64,
    offset: u64,
}

/// What stands before an object's bytes.
struct Header {
    owner: u64,
    nonce: u64,
    segment: u64,
    offset: u64,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for number in [self.owner, self.nonce, self.segment, self.offset] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Header> {
        let (numbers, rest) = bytes.split_at_checked(HEADER_LEN - 4)?;
        let crc = u32::from_le_bytes(*rest.first_chunk()?);
        let (magic, numbers) = numbers.split_first_chunk::<8>()?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let [owner, nonce, segment, offset] = numbers else { return None };
        let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        let is_whole = magic == MAGIC && crc == crc32c::crc32c(bytes.get(..HEADER_LEN - 4)?);
        is_whole.then(|| Header {
            owner: number(owner),
            nonce: number(nonce),
            segment: number(segment),
            offset: number(offset),
        })
    }
}

fn chunk_name(number: u64) -> String {
    format!("{FOLDER}/chunk-{number:020}")
}

impl BucketLog {
    /// Fences whoever wrote before, and looks what is there. The bucket must have been claimed.
    pub fn open(bucket: Bucket) -> Result<BucketLog> {
        let owner = bucket.owner().ok_or_else(|| SqlError::internal("a bucket that was not claimed"))?;
        let log = BucketLog(Arc::new(Inner {
            bucket,
            owner: owner.number,
            nonce: owner.nonce,
            next: Mutex::new(1),
            files: Mutex::default(),
        }));
        log.fence_and_list().map_err(|e| failed("open", &log.0.bucket.describe(FOLDER), &e))?;
        Ok(log)
    }

    fn fence_and_list(&self) -> io::Result<()> {
        let Inner { bucket, .. } = &*self.0;
        let mut names;
        loop {
            names = bucket.list(FOLDER)?;
            let last = names.iter().filter_map(|name| number_of(name)).max().unwrap_or(0);
            let fence = Header { owner: self.0.owner, nonce: self.0.nonce, segment: FENCE, offset: 0 }.encode();
            // Where the old owner was faster once more, what it wrote is looked at too.
            if let Put::Done = bucket.create(&chunk_name(last + 1), fence.into())? {
                *self.0.next.lock() = last + 2;
                break;
            }
            self.check_owner()?;
        }
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        numbers.sort_unstable();
        let heads = bucket.get_heads(numbers.iter().map(|number| chunk_name(*number)).collect(), HEADER_LEN as u64)?;
        let mut files = self.0.files.lock();
        files.others = names.into_iter().filter(|name| number_of(name).is_none()).collect();
        for (number, head) in numbers.into_iter().zip(heads) {
            // The old owner may have removed it since.
            let Some(head) = head else { continue };
            let header = Header::decode(&head).ok_or_else(|| {
                let place = bucket.describe(&chunk_name(number));
                io::Error::new(io::ErrorKind::InvalidData, format!("the object \"{place}\" is damaged"))
            })?;
            match header.segment {
                FENCE => files.fences.push(number),
                segment => {
                    let chunk = Chunk { number, offset: header.offset };
                    files.segments.entry(segment).or_default().push(chunk);
                }
            }
        }
        Ok(())
    }

    /// Somebody else has written: it may be the old owner, or one that came after this one.
    fn check_owner(&self) -> io::Result<()> {
        match self.0.bucket.taken() {
            error if sql_error_in(&error).is_some() => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes the next object of the log.
    fn write_chunk(&self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Inner { bucket, owner, nonce, next, files } = &*self.0;
        let mut next = next.lock();
        let mut object = Header { owner: *owner, nonce: *nonce, segment, offset }.encode();
        object.extend_from_slice(bytes);
        match bucket.create(&chunk_name(*next), object.into())? {
            Put::Done => {
                let chunk = Chunk { number: *next, offset };
                files.lock().segments.entry(segment).or_default().push(chunk);
                *next += 1;
                Ok(())
            }
            Put::Taken => Err(bucket.taken()),
        }
    }

    /// The segment's content, and none where it has no objects.
    fn read_segment(&self, segment: u64) -> io::Result<Vec<u8>> {
        let chunks = self.0.files.lock().segments.get(&segment).cloned().ok_or(io::ErrorKind::NotFound)?;
        let objects = self.0.bucket.get_all(chunks.iter().map(|chunk| chunk_name(chunk.number)).collect())?;
        let mut content: Vec<u8> = vec![];
        for (chunk, object) in chunks.iter().zip(&objects) {
            // One that is missing leaves a hole, which no checksum of the log fits.
            let Some(bytes) = object.as_ref().and_then(|object| object.get(HEADER_LEN..)) else { continue };
            content.resize(chunk.offset as usize, 0);
            content.extend_from_slice(bytes);
        }
        Ok(content)
    }

    fn remove_segment(&self, segment: u64) -> io::Result<()> {
        let chunks = self.0.files.lock().segments.get(&segment).cloned().ok_or(io::ErrorKind::NotFound)?;
        self.0.bucket.delete(chunks.iter().map(|chunk| chunk_name(chunk.number)).collect())?;
        self.0.files.lock().segments.remove(&segment);
        Ok(())
    }
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix("chunk-")?.parse().ok()
}

impl Disk for BucketLog {
    fn list(&self) -> io::Result<Vec<String>> {
        let files = self.0.files.lock();
        Ok(files.segments.keys().map(|first| segment_name(*first)).chain(files.others.iter().cloned()).collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        match first_of_segment(name) {
            Some(segment) => self.read_segment(segment),
            None => Ok(self.0.bucket.get(&format!("{FOLDER}/{name}"))?.to_vec()),
        }
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let kind = match first_of_segment(name) {
            Some(segment) => Kind::Segment(segment),
            None => Kind::Object(name.to_string()),
        };
        // What was there is cut off by the first object that is written.
        let unwritten = Unwritten { offset: 0, bytes: vec![], is_cut: true };
        Ok(Arc::new(File { log: self.clone(), kind, unwritten: Mutex::new(unwritten) }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let segment = first_of_segment(name).ok_or(io::ErrorKind::Unsupported)?;
        let offset = self.read_segment(segment)?.len() as u64;
        let unwritten = Unwritten { offset, bytes: vec![], is_cut: false };
        Ok(Arc::new(File { log: self.clone(), kind: Kind::Segment(segment), unwritten: Mutex::new(unwritten) }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if self.0.bucket.is_new() {
            // It is asked for again behind the next checkpoint.
            return Ok(());
        }
        let fences = std::mem::take(&mut self.0.files.lock().fences);
        self.0.bucket.delete(fences.into_iter().map(chunk_name).collect())?;
        match first_of_segment(name) {
            Some(segment) => self.remove_segment(segment),
            None => self.0.bucket.delete(vec![format!("{FOLDER}/{name}")]),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let content = self.read(from)?;
        self.0.bucket.overwrite(&format!("{FOLDER}/{to}"), content.into())?;
        self.0.files.lock().others.push(to.to_string());
        match first_of_segment(from) {
            Some(segment) => self.remove_segment(segment),
            None => self.0.bucket.delete(vec![format!("{FOLDER}/{from}")]),
        }
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn describe(&self, name: &str) -> String {
        self.0.bucket.describe(&format!("{FOLDER}/{name}"))
    }

    fn stall_max(&self) -> Option<Duration> {
        Some(STALL_MAX)
    }
}

enum Kind {
    Segment(u64),
    // A whole object.
    Object(String),
}

/// An open file.
struct File {
    log: BucketLog,
    kind: Kind,
    unwritten: Mutex<Unwritten>,
}

/// What comes with the next sync.
struct Unwritten {
    offset: u64,
    bytes: Vec<u8>,
    // It cuts what is there, even where it appends nothing.
    is_cut: bool,
}

impl DiskFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut unwritten = self.unwritten.lock();
        match offset.checked_sub(unwritten.offset) {
            Some(at) => unwritten.bytes.resize(at as usize, 0),
            None => {
                unwritten.bytes.clear();
                (unwritten.offset, unwritten.is_cut) = (offset, true);
            }
        }
        unwritten.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut unwritten = self.unwritten.lock();
        match len.checked_sub(unwritten.offset) {
            Some(at) => unwritten.bytes.truncate(at as usize),
            None => {
                unwritten.bytes.clear();
                (unwritten.offset, unwritten.is_cut) = (len, true);
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut unwritten = self.unwritten.lock();
        if unwritten.bytes.is_empty() && !unwritten.is_cut {
            return Ok(());
        }
        if let Kind::Object(name) = &self.kind {
            self.log.0.bucket.overwrite(&format!("{FOLDER}/{name}"), Bytes::from(unwritten.bytes.clone()))?;
            unwritten.is_cut = false;
            self.log.0.files.lock().others.push(name.clone());
            return Ok(());
        }
        // Appends go on while the object is written.
        let (offset, bytes) = (unwritten.offset, std::mem::take(&mut unwritten.bytes));
        unwritten.offset += bytes.len() as u64;
        unwritten.is_cut = false;
        drop(unwritten);
        match self.kind {
            Kind::Segment(segment) => self.log.write_chunk(segment, offset, &bytes),
            Kind::Object(_) => Ok(()),
        }
    }

    fn wants_successor(&self) -> bool {
        match self.kind {
            Kind::Segment(segment) => {
                let files = self.log.0.files.lock();
                files.segments.get(&segment).is_some_and(|chunks| chunks.len() >= SEGMENT_CHUNKS_MAX)
            }
            Kind::Object(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_any_byte_changed_is_none() {
        let bytes = Header { owner: 1, nonce: 2, segment: 3, offset: 4 }.encode();
        let header = Header::decode(&bytes).unwrap();
        assert_eq!((header.owner, header.nonce, header.segment, header.offset), (1, 2, 3, 4));
        assert_eq!(bytes.len(), HEADER_LEN);
        for idx in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[idx] ^= 1;
            assert!(Header::decode(&changed).is_none(), "byte {idx}");
            assert!(Header::decode(&bytes[..idx]).is_none());
        }
    }
}
