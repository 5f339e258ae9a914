//! Reading the log at the start: every record in order, until its end.
//!
//! Where a frame is not whole there are two cases. Nothing behind it was written after it had become durable: the end
//! is torn, as a crash leaves it, nobody was told of these records, and they are cut off. Or something was: a record
//! that somebody was told of is damaged.

use tidewire_types::{Result, SqlError, SqlState};
use tracing::{info, warn};

use super::failed;
use super::segment::{self, Frame};
use crate::Storage;

/// What files that were set aside end in.
const DAMAGED: &str = ".damaged";

/// What reading the log came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The number of the record to come.
    pub next: u64,
    /// How many records were read.
    pub n_records: u64,
}

struct Segment {
    first: u64,
    name: String,
}

/// The first place where there is no whole frame.
struct Gap {
    segment_idx: usize,
    offset: usize,
    // The record that should be there.
    number: u64,
}

/// See [`super::Log::replay`].
pub fn replay(
    storage: &Storage,
    from: u64,
    cut_at_damage: bool,
    each: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<Replayed> {
    let mut segments = list(storage)?;
    let n_before = segments.iter().skip(1).take_while(|segment| segment.first <= from).count();
    segments.drain(..n_before);
    let Some(oldest) = segments.first() else {
        return match from {
            0 => Ok(Replayed { next: 0, n_records: 0 }),
            _ if cut_at_damage => Ok(Replayed { next: from, n_records: 0 }),
            _ => Err(damaged(format!("the log is missing: there is no file in \"{}\"", storage.log.describe("")))),
        };
    };
    if oldest.first > from {
        let last = oldest.first - 1;
        return Err(damaged(format!("records {from} to {last} of the log are missing before \"{}\"", oldest.name)));
    }
    let (mut next, mut n_records) = (oldest.first, 0);
    for (segment_idx, segment) in segments.iter().enumerate() {
        let bytes = read(storage, &segment.name)?;
        let mut offset = 0;
        if segment.first == next && segment::has_header(&bytes, segment.first) {
            offset = segment::HEADER_LEN;
            while let Some(frame) = segment::read_frame(&bytes, offset).filter(|frame| frame.number == next) {
                if frame.number >= from {
                    each(frame.number, bytes.get(frame.payload.clone()).unwrap_or_default())?;
                    n_records += 1;
                }
                offset = frame.payload.end;
                next += 1;
            }
            if offset == bytes.len() {
                continue;
            }
        }
        cut(storage, &segments, &Gap { segment_idx, offset, number: next }, &bytes, cut_at_damage)?;
        break;
    }
    if next < from {
        if !cut_at_damage {
            return Err(damaged(format!("the log ends before record {from}, where the newest checkpoint begins")));
        }
        next = from;
    }
    Ok(Replayed { next, n_records })
}

fn list(storage: &Storage) -> Result<Vec<Segment>> {
    let names = storage.log.list().map_err(|e| failed("list", &storage.log.describe(""), &e))?;
    let mut segments: Vec<Segment> =
        names.into_iter().filter_map(|name| Some(Segment { first: segment::first_of(&name)?, name })).collect();
    segments.sort_unstable_by_key(|segment| segment.first);
    Ok(segments)
}

fn read(storage: &Storage, name: &str) -> Result<Vec<u8>> {
    storage.log.read(name).map_err(|e| failed("read", &storage.log.describe(name), &e))
}

/// Takes away what comes from a gap on, where that is allowed.
fn cut(storage: &Storage, segments: &[Segment], gap: &Gap, bytes: &[u8], cut_at_damage: bool) -> Result<()> {
    let Some(segment) = segments.get(gap.segment_idx) else { return Ok(()) };
    let later = segments.get(gap.segment_idx + 1..).unwrap_or_default();
    let place = storage.log.describe(&segment.name);
    let was_durable = |frame: Frame| frame.n_durable > gap.number;
    let mut is_damage = segment::frames_behind(bytes, gap.offset).any(was_durable);
    for segment in later {
        is_damage = is_damage || segment::frames_behind(&read(storage, &segment.name)?, 0).any(was_durable);
    }
    if is_damage && !cut_at_damage {
        let message = format!("the log is damaged in file \"{place}\" at offset {}", gap.offset);
        return Err(damaged(message).with_detail(
            "Records behind that place were written after it had become durable: it is not the end of a write that was cut short.",
        ));
    }
    if is_damage {
        warn!(file = %place, offset = gap.offset, "the damaged log is cut; the rest is set aside");
    } else {
        info!(file = %place, offset = gap.offset, "the log's torn end is cut off");
    }
    let done = (|| {
        for segment in later.iter().rev() {
            match is_damage {
                true => storage.log.rename(&segment.name, &format!("{}{DAMAGED}", segment.name))?,
                false => storage.log.remove(&segment.name)?,
            }
        }
        if is_damage {
            let copy = storage.log.create(&format!("{}{DAMAGED}", segment.name))?;
            copy.write_at(bytes, 0)?;
            copy.sync()?;
        }
        // Cut last: a crash before this finds the same gap again.
        storage.log.sync()?;
        match gap.offset {
            0 => storage.log.remove(&segment.name)?,
            offset => {
                let file = storage.log.open(&segment.name)?;
                file.set_len(offset as u64)?;
                file.sync()?;
            }
        }
        storage.log.sync()
    })();
    done.map_err(|e| failed("cut", &place, &e))
}

fn damaged(message: String) -> SqlError {
    SqlError::new(SqlState::DataCorrupted, message).with_hint(
        "Restore the data directory from a backup, or start once with --cut-damaged-log: it keeps what comes before \
         that place and sets the rest aside in files that end in .damaged.",
    )
}
