//! The file that makes a checkpoint one: which files belong to it, and from where on the log is to be read.
//!
//! Two lines of JSON: the manifest, and its checksum. A manifest is written when all that it names is durable, so that
//! one with a right checksum is a whole checkpoint.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidewire_types::{Result, SqlError, SqlState};

use crate::StoredObject;

/// The layout that this version writes.
const VERSION: u32 = 1;

/// One checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The layout of this file and of those that it names.
    pub version: u32,
    /// The checkpoint's number: each is one greater than the last.
    pub number: u64,
    /// The first record of the log that is not in the checkpoint.
    pub log_from: u64,
    /// The last OID that was given out.
    pub last_oid: u32,
    /// The catalog.
    pub objects: Vec<StoredObject>,
    /// The rows of each table.
    pub tables: Vec<TableFiles>,
    /// Files of dead letters, the oldest first.
    pub dead_letters: Vec<FileEntry>,
}

/// The files of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFiles {
    /// The table's OID.
    pub table: u32,
    /// All of its rows, at some earlier time.
    pub base: Vec<FileEntry>,
    /// What changed since, in order.
    pub changes: Vec<FileEntry>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name.
    pub name: String,
    /// Its length.
    pub n_bytes: u64,
    /// The checksum of its bytes.
    pub crc32c: u32,
    /// How often its rows were merged with those of other files.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub level: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Manifest {
    /// A checkpoint of nothing.
    pub fn new(number: u64) -> Manifest {
        Manifest {
            version: VERSION,
            number,
            log_from: 0,
            last_oid: 0,
            objects: vec![],
            tables: vec![],
            dead_letters: vec![],
        }
    }

    /// The name of the file with that number.
    pub fn file_name(number: u64) -> String {
        format!("manifest-{number:012}.json")
    }

    /// The number in a manifest's name; None for other files.
    pub fn number_of(name: &str) -> Option<u64> {
        name.strip_prefix("manifest-")?.strip_suffix(".json")?.parse().ok()
    }

    /// All files that it names.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        let tables = self.tables.iter().flat_map(|t| t.base.iter().chain(&t.changes));
        tables.chain(&self.dead_letters)
    }

    /// As a file.
    pub fn encode(&self) -> Result<Bytes> {
        let mut text = serde_json::to_string(self).map_err(SqlError::internal)?;
        let checksum = crc32c::crc32c(text.as_bytes());
        text.push_str(&format!("\n{}\n", json!({ "crc32c": checksum })));
        Ok(text.into())
    }

    /// A file's manifest; None where it is not whole. Errors: one of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Option<Manifest>> {
        let Some(newline) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let (text, last) = bytes.split_at(newline);
        let stated = serde_json::from_slice::<serde_json::Value>(last).ok();
        let stated = stated.and_then(|line| line.get("crc32c")?.as_u64());
        if stated != Some(u64::from(crc32c::crc32c(text))) {
            return Ok(None);
        }
        let version = serde_json::from_slice::<serde_json::Value>(text).ok();
        match version.and_then(|manifest| manifest.get("version")?.as_u64()) {
            Some(version) if version > u64::from(VERSION) => {
                let message = format!("a checkpoint has layout {version}, and this version knows up to {VERSION}");
                return Err(SqlError::new(SqlState::FeatureNotSupported, message)
                    .with_hint("Start the version of Tidewire that wrote the data directory, or a newer one."));
            }
            _ => {}
        }
        let manifest = serde_json::from_slice(text);
        manifest
            .map(Some)
            .map_err(|e| SqlError::new(SqlState::DataCorrupted, format!("a manifest cannot be read: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_with_any_byte_changed_is_none() {
        let entry = |name: &str| FileEntry { name: name.into(), n_bytes: 3, crc32c: 4, level: 0 };
        let tables = vec![TableFiles { table: 16384, base: vec![entry("a")], changes: vec![entry("b")] }];
        let manifest = Manifest { log_from: 9, tables, dead_letters: vec![entry("c")], ..Manifest::new(7) };
        assert_eq!(manifest.files().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        let bytes = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(&bytes).unwrap(), Some(manifest));
        for len in 0..bytes.len() - 2 {
            assert_eq!(Manifest::decode(&bytes[..len]).unwrap(), None, "{len}");
        }
        for idx in 0..bytes.len() - 15 {
            let mut changed = bytes.to_vec();
            changed[idx] ^= 1;
            assert_eq!(Manifest::decode(&changed).unwrap(), None, "{idx}");
        }
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let manifest = Manifest { version: VERSION + 1, ..Manifest::new(1) };
        assert!(Manifest::decode(&manifest.encode().unwrap()).is_err());
        assert_eq!(Manifest::number_of(&Manifest::file_name(12)), Some(12));
    }
}
