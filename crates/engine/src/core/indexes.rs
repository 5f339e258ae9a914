//! Indexes of relations: which there must be, and how they are built between epochs.
//!
//! There are those of the catalog, and those of unique keys (a primary key, a view's key), which are built when somebody
//! first reads by them: what nobody reads by key pays nothing. Indexes on the same columns are one. Building goes in
//! slices, each a call of the loop, so that epochs run in between.

use std::collections::HashMap;

use tidewire_catalog::{Kind, Object};
use tidewire_operators::arrangement::Arrangement;
use tidewire_types::ObjectId;
use tokio::sync::oneshot;

use super::Core;
use crate::status::IndexStatus;

/// Rows of one slice: about a millisecond or two.
const SLICE_ROWS: usize = 8192;

/// Indexes that are being built.
#[derive(Default)]
pub(super) struct IndexBuilds {
    /// A slice is on its way.
    is_running: bool,
    waiting: Vec<Waiting>,
}

/// Somebody waits until readers can use an index.
struct Waiting {
    relation: ObjectId,
    column_idxs: Vec<usize>,
    answer: oneshot::Sender<()>,
}

impl Core {
    /// Has readers find the rows of a relation by its unique key, as soon as the index is built.
    pub fn index_unique_key(&mut self, id: ObjectId) {
        if let Some(relation) = self.relation_mut(id)
            && let Some(key) = relation.unique_key().map(<[usize]>::to_vec)
        {
            relation.add_index(&key);
            self.build_indexes();
        }
    }

    /// Answered when readers can use the index; dropped when it is no longer there.
    pub fn when_indexed(&mut self, relation: ObjectId, column_idxs: &[usize]) -> oneshot::Receiver<()> {
        let (answer, ready) = oneshot::channel();
        self.index_builds.waiting.push(Waiting { relation, column_idxs: column_idxs.to_vec(), answer });
        self.answer_waiting();
        ready
    }

    /// Begins and drops indexes, so that there are those that the catalog has.
    pub(super) fn follow_catalog(&mut self) {
        let mut wanted: HashMap<ObjectId, Vec<Vec<usize>>> = HashMap::new();
        for object in self.catalog.objects() {
            if let Kind::Index(def) = &object.def {
                wanted.entry(def.relation).or_default().push(def.key.clone());
            }
        }
        let tables = self.tables.iter_mut().map(|(id, table)| (id, &mut table.rows));
        let views = self.views.iter_mut().filter_map(|(id, view)| Some((id, view.relation.as_mut()?)));
        for (id, relation) in tables.chain(views) {
            let keys = wanted.remove(id).unwrap_or_default();
            let unique = relation.unique_key().map(<[usize]>::to_vec);
            relation.retain_indexes(|columns| {
                unique.as_deref() == Some(columns) || keys.iter().any(|key| key.as_slice() == columns)
            });
            keys.iter().for_each(|key| relation.add_index(key));
        }
        self.build_indexes();
    }

    /// Begins to build what is not ready, unless that is on its way.
    fn build_indexes(&mut self) {
        if !self.index_builds.is_running && self.unready_index().is_some() {
            self.index_builds.is_running = true;
            self.shared.cast(Core::build_indexes_slice);
        }
    }

    fn build_indexes_slice(&mut self) {
        if let Some((id, column_idxs)) = self.unready_index()
            && let Some(relation) = self.relation_mut(id)
            && let Err(error) = relation.build_index(&column_idxs, SLICE_ROWS)
        {
            // Readers make scans without it.
            tracing::error!(%error, "an index cannot be built");
            relation.retain_indexes(|columns| columns != column_idxs);
        }
        self.answer_waiting();
        self.index_builds.is_running = false;
        self.build_indexes();
    }

    /// Tells those whose index is ready, and lets go those whose index is gone.
    fn answer_waiting(&mut self) {
        for waiting in std::mem::take(&mut self.index_builds.waiting) {
            let index = self.relation(waiting.relation).and_then(|relation| {
                relation.indexes().find(|index| index.column_idxs == waiting.column_idxs).map(|index| index.is_ready)
            });
            match index {
                Some(true) => {
                    // Whoever waited may be gone.
                    let _ = waiting.answer.send(());
                }
                Some(false) => self.index_builds.waiting.push(waiting),
                None => {}
            }
        }
    }

    fn unready_index(&self) -> Option<(ObjectId, Vec<usize>)> {
        self.relations().find_map(|(id, relation)| {
            let index = relation.indexes().find(|index| !index.is_ready)?;
            Some((id, index.column_idxs.to_vec()))
        })
    }

    fn relations(&self) -> impl Iterator<Item = (ObjectId, &Arrangement)> {
        let tables = self.tables.iter().map(|(id, table)| (*id, &table.rows));
        tables.chain(self.views.iter().filter_map(|(id, view)| Some((*id, view.relation.as_ref()?))))
    }

    fn relation(&self, id: ObjectId) -> Option<&Arrangement> {
        match self.tables.get(&id) {
            Some(table) => Some(&table.rows),
            None => self.views.get(&id)?.relation.as_ref(),
        }
    }

    fn relation_mut(&mut self, id: ObjectId) -> Option<&mut Arrangement> {
        match self.tables.get_mut(&id) {
            Some(table) => Some(&mut table.rows),
            None => self.views.get_mut(&id)?.relation.as_mut(),
        }
    }

    /// Every index that there is, under each of its names.
    pub(super) fn index_status(&self) -> Vec<IndexStatus> {
        let mut all = vec![];
        for (id, relation) in self.relations() {
            let Some(object) = self.catalog.by_id(id) else { continue };
            for index in relation.indexes() {
                let named = self.catalog.indexes(id).filter(|(_, def)| def.key == index.column_idxs);
                let mut names: Vec<String> = named.map(|(named, _)| named.name.to_string()).collect();
                if names.is_empty() {
                    names.push(unique_key_name(object));
                }
                let column = |idx: &usize| object.columns.get(*idx).map(|column| column.name.clone());
                all.extend(names.into_iter().map(|name| IndexStatus {
                    name,
                    relation: object.name.to_string(),
                    columns: index.column_idxs.iter().filter_map(column).collect(),
                    is_ready: index.is_ready,
                    n_rows: index.n_rows,
                    bytes: index.bytes,
                }));
            }
        }
        all
    }
}

/// The name of the index of a primary key, or of a view's unique key.
pub fn unique_key_name(relation: &Object) -> String {
    format!("{}_pkey", relation.name.name)
}
