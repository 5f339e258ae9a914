//! `connector = 'file'`: the lines of files, one record each.
//!
//! A split is a file, in the order of `path`; a position is a byte offset, the beginning of a record. Files are read to
//! the end that they had when the reader was made, and with `follow = 'true'` on as they grow; then a last line waits
//! for its line feed, while at the end of a file that is not followed it is a record as it is.

use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tidewire_types::{Result, SqlError, SqlState};

use crate::format::csv::Dialect;
use crate::{
    BadRecord, Batch, Column, Connector, DeadLetter, Decoder, FORMAT_OPTIONS, FormatSpec, OptionSpec, Position,
    Positions, ReadMode, Record, Source, SourceReader, SourceSpec, Split, format_spec, schema_of,
};

/// `connector = 'file'`.
#[derive(Debug)]
pub(crate) struct File;

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "path", required: true, help: "The file, or several with commas between them." },
    OptionSpec {
        name: "follow",
        required: false,
        help: "true: lines that are appended later are read too. Default false: the source ends with its files.",
    },
];

/// How long to wait before looking again whether a followed file has grown.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A line longer than this ends the source: it is no line, and a batch could not hold it.
const LINE_BYTES_MAX: usize = 1 << 28;

impl Connector for File {
    fn name(&self) -> &'static str {
        "file"
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn create(&self, spec: SourceSpec) -> Result<Arc<dyn Source>> {
        spec.options.check(&[OPTIONS, FORMAT_OPTIONS])?;
        let format = format_spec(&spec.options, spec.format.clone())?;
        let paths: Vec<PathBuf> = spec.options.require("path")?.split(',').map(|p| PathBuf::from(p.trim())).collect();
        // Declared columns that the format cannot carry are refused here rather than by the first reader.
        Decoder::new(&spec.columns, &[], &format)?;
        let lines = Lines {
            dialect: if format.encode == "CSV" { Some(Dialect::new(&format.options)?) } else { None },
            has_header: format.encode == "CSV" && !format.options.parse_or("without_header", true)?,
        };
        let follow = spec.options.parse_or("follow", false)?;
        let source = FileSource {
            shared: Arc::new(Shared {
                paths,
                lines,
                follow,
                format,
                columns: spec.columns,
                bad_record: spec.bad_record,
            }),
        };
        source.end()?;
        Ok(Arc::new(source))
    }
}

#[derive(Debug)]
struct FileSource {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    paths: Vec<PathBuf>,
    lines: Lines,
    follow: bool,
    format: FormatSpec,
    columns: Vec<Column>,
    bad_record: BadRecord,
}

/// How bytes are records.
#[derive(Debug)]
struct Lines {
    /// CSV, where a line feed may stand inside quotes.
    dialect: Option<Dialect>,
    /// The first line names columns.
    has_header: bool,
}

impl Lines {
    /// The length of the first record with its line feed, if it is whole.
    fn record_end(&self, bytes: &[u8]) -> Option<usize> {
        match &self.dialect {
            Some(dialect) => dialect.record_end(bytes),
            None => bytes.iter().position(|b| *b == b'\n').map(|at| at + 1),
        }
    }
}

impl Shared {
    fn splits(&self) -> impl Iterator<Item = (Split, &PathBuf)> {
        (0..).map(Split).zip(&self.paths)
    }

    fn ends(&self) -> Result<Positions> {
        self.splits()
            .map(|(split, path)| {
                let metadata = fs::metadata(path).map_err(|error| io_error(path, &error))?;
                if metadata.is_dir() {
                    let message = format!("\"{}\" is a directory", path.display());
                    return Err(SqlError::new(SqlState::InvalidParameterValue, message));
                }
                // While a file grows, a line without its line feed is not there yet.
                let end = if self.follow { whole_lines_end(path, metadata.len())? } else { metadata.len() };
                Ok((split, Position::try_from(end).unwrap_or(Position::MAX)))
            })
            .collect()
    }
}

impl Source for FileSource {
    fn start(&self) -> Result<Positions> {
        Ok(self.shared.splits().map(|(split, _)| (split, 0)).collect())
    }

    fn end(&self) -> Result<Positions> {
        self.shared.ends()
    }

    fn read(&self, positions: Positions, projection: Vec<usize>, mode: ReadMode) -> Result<Box<dyn SourceReader>> {
        let shared = self.shared.clone();
        let decoder = Decoder::new(&shared.columns, &projection, &shared.format)?;
        let limits = match mode {
            ReadMode::Until(until) => Some(until),
            ReadMode::Follow if shared.follow => None,
            ReadMode::Follow => Some(shared.ends()?),
        };
        let mut open = vec![];
        for (split, position) in positions {
            let path = shared.paths.get(split.0 as usize);
            let path = path.ok_or_else(|| SqlError::internal(format!("there is no split {}", split.0)))?;
            let file = fs::File::open(path).map_err(|error| io_error(path, &error))?;
            let limit = limits.as_ref().map(|l| l.get(&split).copied().unwrap_or(0));
            open.push(OpenFile { split, path: path.clone(), file, position, limit, bytes: vec![], n_searched: 0 });
        }
        Ok(Box::new(FileReader { shared, files: open, decoder, next_decoder: None, grown: Growth::default() }))
    }
}

/// The offset behind the last line feed of a file, looked for from its end.
fn whole_lines_end(path: &Path, len: u64) -> Result<u64> {
    const CHUNK_BYTES: u64 = 1 << 12;
    let read = |from: u64, n: u64| {
        let mut chunk = vec![];
        let mut file = fs::File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        file.take(n).read_to_end(&mut chunk)?;
        Ok(chunk)
    };
    let mut end = len;
    while end > 0 {
        let from = end.saturating_sub(CHUNK_BYTES);
        let chunk = read(from, end - from).map_err(|error| io_error(path, &error))?;
        if let Some(at) = chunk.iter().rposition(|b| *b == b'\n') {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

fn io_error(path: &Path, error: &std::io::Error) -> SqlError {
    let state = match error.kind() {
        ErrorKind::NotFound => SqlState::UndefinedObject,
        ErrorKind::PermissionDenied => SqlState::InsufficientPrivilege,
        _ => SqlState::IoError,
    };
    SqlError::new(state, format!("could not read file \"{}\": {}", path.display(), error.kind()))
        .with_detail(format!("The system says: {error}."))
}

/// Reads files in turn, each in order.
#[derive(Debug)]
struct FileReader {
    shared: Arc<Shared>,
    files: Vec<OpenFile>,
    decoder: Decoder,
    next_decoder: Option<Decoder>,
    grown: Growth,
}

/// Waits for files to grow: by looking again, since no event says so on every system.
#[derive(Debug, Default)]
struct Growth {
    lock: Mutex<()>,
    signal: Condvar,
}

#[derive(Debug)]
struct OpenFile {
    split: Split,
    path: PathBuf,
    file: fs::File,
    /// Where the next record begins.
    position: Position,
    /// Where reading ends; None: never.
    limit: Option<Position>,
    /// What was read from `position` on and is no whole record yet.
    bytes: Vec<u8>,
    /// How many of `bytes` were seen to hold no end of a record; CSV begins anew, since quotes count from the start.
    n_searched: usize,
}

impl OpenFile {
    fn is_finished(&self) -> bool {
        self.limit.is_some_and(|limit| self.position >= limit)
    }

    /// Reads on, at most `n_max` bytes. Whether any came.
    fn fill(&mut self, n_max: usize) -> Result<bool> {
        let n_before = self.bytes.len();
        let from = self.position.cast_unsigned().saturating_add(n_before as u64);
        let left = self.limit.map_or(u64::MAX, |limit| limit.cast_unsigned().saturating_sub(from));
        let result = self
            .file
            .seek(SeekFrom::Start(from))
            .and_then(|_| self.file.by_ref().take(left.min(n_max as u64)).read_to_end(&mut self.bytes));
        result.map_err(|error| io_error(&self.path, &error))?;
        if self.bytes.len() > LINE_BYTES_MAX {
            let message = format!("file \"{}\" has a line of more than {LINE_BYTES_MAX} bytes", self.path.display());
            return Err(SqlError::new(SqlState::ProgramLimitExceeded, message));
        }
        Ok(self.bytes.len() > n_before)
    }

    /// The length of the next record in `bytes` from `start` on.
    fn next_record(&mut self, start: usize, lines: &Lines) -> Option<usize> {
        let rest = self.bytes.get(start..).unwrap_or_default();
        let skipped = if lines.dialect.is_none() { self.n_searched.saturating_sub(start) } else { 0 };
        let found = lines.record_end(rest.get(skipped..).unwrap_or_default()).map(|n| n + skipped);
        let is_all =
            self.limit.is_some_and(|limit| self.position.saturating_add_unsigned(self.bytes.len() as u64) >= limit);
        match found {
            None if is_all && !rest.is_empty() => Some(rest.len()),
            None => {
                self.n_searched = self.bytes.len();
                None
            }
            found => found,
        }
    }
}

impl FileReader {
    /// Decodes the whole records that one file has read. Errors: a bad one under `bad_record = 'fail'`.
    fn decode(&mut self, idx: usize, batch: &mut Batch) -> Result<()> {
        let Some(file) = self.files.get_mut(idx) else { return Ok(()) };
        let mut start = 0;
        while let Some(n) = file.next_record(start, &self.shared.lines) {
            let position = file.position.saturating_add_unsigned(start as u64);
            let line = file.bytes.get(start..start + n).unwrap_or_default();
            let value = line.strip_suffix(b"\n").unwrap_or(line);
            let value = value.strip_suffix(b"\r").unwrap_or(value);
            start += n;
            batch.n_bytes += n as u64;
            let is_header = position == 0 && self.shared.lines.has_header;
            if is_header || value.is_empty() {
                continue;
            }
            let record = Record { split: file.split, position, ..Record::of_value(value) };
            if let Err(error) = self.decoder.decode(&record) {
                bad_record(&self.shared, record, error, batch, file)?;
            }
        }
        if start > 0 {
            batch.first_positions.insert(file.split, file.position);
            file.position = file.position.saturating_add_unsigned(start as u64);
            batch.positions.insert(file.split, file.position);
            file.bytes.drain(..start);
            file.n_searched = 0;
        }
        Ok(())
    }

    fn read_all(&mut self, bytes_max: usize, batch: &mut Batch) -> Result<()> {
        const READ_BYTES_MIN: usize = 1 << 12;
        for idx in 0..self.files.len() {
            let n_left = bytes_max.saturating_sub(usize::try_from(batch.n_bytes).unwrap_or(usize::MAX));
            if n_left == 0 {
                break;
            }
            // Until at least one record is whole, however long it is.
            while let Some(file) = self.files.get_mut(idx).filter(|f| !f.is_finished()) {
                if !file.fill(n_left.max(READ_BYTES_MIN))? {
                    break;
                }
                let position = file.position;
                self.decode(idx, batch)?;
                if self.files.get(idx).is_some_and(|f| f.position > position) {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn bad_record(shared: &Shared, record: Record<'_>, error: String, batch: &mut Batch, file: &OpenFile) -> Result<()> {
    match shared.bad_record {
        BadRecord::Skip => batch.n_skipped += 1,
        BadRecord::DeadLetter => batch.dead_letters.push(DeadLetter {
            split: record.split,
            position: record.position,
            timestamp_us: None,
            key: None,
            value: record.value.map(Bytes::copy_from_slice),
            error,
        }),
        BadRecord::Fail => {
            let message = format!("bad record in file \"{}\" at byte {}", file.path.display(), record.position);
            return Err(SqlError::new(SqlState::DataException, message).with_detail(format!("{error}.")));
        }
    }
    Ok(())
}

impl SourceReader for FileReader {
    fn poll(&mut self, timeout: Duration, bytes_max: usize) -> Result<Batch> {
        if let Some(decoder) = self.next_decoder.take() {
            self.decoder = decoder;
        }
        let mut batch = Batch::empty(self.decoder.schema().clone());
        self.read_all(bytes_max, &mut batch)?;
        batch.finished = self.files.iter().all(OpenFile::is_finished);
        if batch.positions.is_empty() && !batch.finished && !timeout.is_zero() {
            self.grown.signal.wait_for(&mut self.grown.lock.lock(), timeout.min(LOOK_AGAIN));
            self.read_all(bytes_max, &mut batch)?;
        }
        batch.rows = self.decoder.finish()?;
        batch.ends = self.shared.ends()?;
        Ok(batch)
    }

    fn set_projection(&mut self, projection: Vec<usize>) {
        debug_assert_eq!(schema_of(&self.shared.columns, &projection).fields().len(), projection.len());
        // The projection was made of the same columns: a decoder of it cannot fail where the first one did not.
        self.next_decoder = Decoder::new(&self.shared.columns, &projection, &self.shared.format).ok();
    }
}

#[cfg(test)]
mod tests;
