//! The file that makes a checkpoint one: which files belong to it, and from where on the log is to be read.
//!
//! Two lines of JSON: the manifest, and its checksum. A manifest is written when all that it names is durable, so that
//! one with a right checksum is a whole checkpoint.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidewire_types::{ObjectId, Result, SqlError, SqlState};

use crate::StoredObject;

/// The layout that this version writes. 1: no views, and no packs. 2: no shared plans. 3: no narrow columns in files.
const VERSION: u32 = 4;

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
    /// How many shards the state of views is divided into; 0: nobody has said.
    #[serde(default)]
    pub n_shards: u32,
    /// The state of each materialized view, all of one moment.
    #[serde(default)]
    pub views: Vec<ViewFiles>,
    /// How far each source was read at that moment.
    #[serde(default)]
    pub sources: Vec<StoredSource>,
    /// Files that hold several small ones, one after the other.
    #[serde(default)]
    pub packs: Vec<FileEntry>,
}

/// The state of one materialized view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewFiles {
    /// What its operators' state means: another plan cannot read it.
    pub fingerprint: String,
    /// Its rows; `table` is the view's OID.
    pub relation: TableFiles,
    /// What its operators keep.
    pub operators: Vec<StateFiles>,
    /// The nodes whose rows come from a plan that several views share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<SharedNode>,
    /// For each node that reads an object, the rows that came.
    #[serde(default)]
    pub n_taken: BTreeMap<u32, u64>,
}

/// A node whose rows come from a shared plan, which is kept as a view without rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedNode {
    /// The node.
    pub node: u32,
    /// The plan's OID.
    pub plan: u32,
}

/// What one shard of one operator keeps: of one of its inputs, or rows of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFiles {
    /// Which.
    #[serde(flatten)]
    pub part: StatePart,
    /// All of it, at some earlier time.
    pub base: Vec<FileEntry>,
    /// What changed since, in order.
    pub changes: Vec<FileEntry>,
}

/// A part of a view's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StatePart {
    /// The operator: a node of the view's dataflow.
    pub node: u32,
    /// The shard.
    pub shard: u32,
    /// The input whose rows are summed up; None: rows of the operator's own.
    pub input: Option<u32>,
}

/// How far a source was read, and what was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSource {
    /// The source's OID.
    pub source: u32,
    /// The next record of each split that no view contains; None: no view reads it.
    pub positions: Option<BTreeMap<u32, i64>>,
    /// Records that were decoded.
    pub n_rows: u64,
    /// Their bytes.
    pub n_bytes: u64,
    /// Records that could not be decoded.
    pub n_bad: u64,
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

/// One file, or a part of a pack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name, or that of the pack.
    pub name: String,
    /// Where it begins in its pack; None: it is a file of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Its length.
    pub n_bytes: u64,
    /// The checksum of its bytes.
    pub crc32c: u32,
    /// How often its rows were merged with those of other files.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub level: u32,
    /// Of a view's state: it only adds rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adds_only: bool,
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
            n_shards: 0,
            views: vec![],
            sources: vec![],
            packs: vec![],
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

    /// All files that it names, packs in place of their parts.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        self.entries().filter(|entry| entry.offset.is_none()).chain(&self.packs)
    }

    /// Everything that is read: files of their own, and parts of packs.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &FileEntry> {
        let relations = self.tables.iter().chain(self.views.iter().map(|v| &v.relation));
        let states = self.views.iter().flat_map(|v| &v.operators);
        let relations = relations.flat_map(|t| t.base.iter().chain(&t.changes));
        relations.chain(states.flat_map(|s| s.base.iter().chain(&s.changes))).chain(&self.dead_letters)
    }

    /// The same, to be changed.
    pub(crate) fn entries_mut(&mut self) -> impl Iterator<Item = &mut FileEntry> {
        let (mut relations, mut states) = (vec![], vec![]);
        relations.extend(self.tables.iter_mut());
        for view in &mut self.views {
            relations.push(&mut view.relation);
            states.extend(&mut view.operators);
        }
        let relations = relations.into_iter().flat_map(|t| t.base.iter_mut().chain(&mut t.changes));
        let states = states.into_iter().flat_map(|s| s.base.iter_mut().chain(&mut s.changes));
        relations.chain(states).chain(&mut self.dead_letters)
    }

    /// What it has of a view.
    pub fn view(&self, view: ObjectId) -> Option<&ViewFiles> {
        self.views.iter().find(|files| files.relation.table == view.0)
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
        let entry = |name: &str| FileEntry { name: name.into(), n_bytes: 3, crc32c: 4, ..FileEntry::default() };
        let tables = vec![TableFiles { table: 16384, base: vec![entry("a")], changes: vec![entry("b")] }];
        let part = StatePart { node: 2, shard: 1, input: Some(0) };
        let packed = FileEntry { offset: Some(5), adds_only: true, ..entry("p") };
        let operators = vec![StateFiles { part, base: vec![entry("d")], changes: vec![packed] }];
        let views = vec![ViewFiles { fingerprint: "f".into(), operators, ..ViewFiles::default() }];
        let positions = Some(BTreeMap::from([(3, 1 << 40)]));
        let sources = vec![StoredSource { source: 16385, positions, ..StoredSource::default() }];
        let (dead_letters, packs) = (vec![entry("c")], vec![entry("p")]);
        let manifest = Manifest { log_from: 9, tables, dead_letters, views, sources, packs, ..Manifest::new(7) };
        assert_eq!(manifest.files().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["a", "b", "d", "c", "p"]);
        assert_eq!(manifest.entries().cloned().collect::<Vec<_>>(), {
            let mut manifest = manifest.clone();
            manifest.entries_mut().map(|e| e.clone()).collect::<Vec<_>>()
        });
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
