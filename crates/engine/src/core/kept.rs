//! What checkpoints keep of views and sources, and how they come back into the loop at a start.
//!
//! Invariant: a checkpoint's views and positions are of one epoch: a source that goes on from there brings exactly the
//! records that these views do not contain. All of it is taken between two epochs; what is copied later is as it was then.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tidewire_catalog::Object;
use tidewire_connect::{Positions, Split};
use tidewire_state::{SharedNode, StoredSource};
use tidewire_types::{ObjectId, Result};

use super::{Core, SourceRead, View, now_us, start_reader};
use crate::durable::KeptView;
use crate::runtime::EpochChanges;
use crate::status::SourceState;

/// For how long an epoch waits while something is copied for a checkpoint.
const COPY_TIME_MAX: Duration = Duration::from_millis(5);
/// Bytes that are copied between two looks at the clock.
const COPY_BYTES: usize = 1 << 18;

impl Core {
    /// Bytes, about, that views hold for the next checkpoint.
    pub(super) fn held_bytes(&self) -> usize {
        self.views.values().map(|view| view.runtime.held_bytes()).sum()
    }

    /// Copies some more of what the last cut took, so that no epoch waits for long.
    pub(super) fn copy_changes(&mut self) {
        if !self.is_copying {
            return;
        }
        let began = Instant::now();
        let mut n_bytes_left = self.shared.settings.checkpoint_copy_bytes;
        self.is_copying = false;
        for view in self.views.values_mut() {
            while !self.is_copying {
                match view.runtime.copy_changes(n_bytes_left.min(COPY_BYTES)) {
                    0 => break,
                    n_bytes => n_bytes_left = n_bytes_left.saturating_sub(n_bytes),
                }
                self.is_copying = n_bytes_left == 0 || began.elapsed() >= COPY_TIME_MAX;
            }
        }
        if let Some(durability) = &mut self.durability {
            durability.paused(began.elapsed());
        }
    }

    /// What changed in each view that works. What is much is copied from now on by `copy_changes`. A server that is about to
    /// end keeps no more than what changed.
    pub(super) fn kept_views(&mut self, at_end: bool) -> Vec<KeptView> {
        let mut kept = vec![];
        for (id, view) in self.views.iter_mut().filter(|(_, view)| view.error.is_none()) {
            if let Some(fingerprint) = view.fingerprint.clone() {
                kept.push(KeptView {
                    id: *id,
                    fingerprint,
                    is_new: std::mem::take(&mut view.is_new),
                    operators: view.runtime.take_changes(!at_end),
                    is_plan: view.is_plan,
                    shared: view.runtime.shared().map(|(node, plan)| shared_node(node, plan)).collect(),
                    n_taken: view.runtime.n_taken(),
                });
            }
        }
        self.is_copying = true;
        kept
    }

    /// How far each source was read.
    pub(super) fn kept_sources(&self) -> Vec<StoredSource> {
        let kept = |(id, source): (&ObjectId, &super::RunningSource)| StoredSource {
            source: id.0,
            positions: source.reader.as_ref().map(|r| r.positions.iter().map(|(s, p)| (s.0, *p)).collect()),
            n_rows: source.read.n_rows as u64,
            n_bytes: source.read.n_bytes,
            n_bad: source.read.n_bad,
        };
        self.sources.iter().map(kept).collect()
    }

    /// Adds a view that a checkpoint had.
    pub fn add_restored_view(&mut self, object: Object, view: View) -> Result<()> {
        if let Err(error) = self.state_memory.view_took(object.id, &view.name, view.state_bytes(), Some(&object)) {
            // It was within its limit when it was written: the next step that makes it larger stops it.
            tracing::warn!(%error, "a restored view takes more than before");
        }
        self.insert_view(object.id, view);
        self.change_catalog(|catalog| catalog.insert(object)).map(|_| ())
    }

    /// Adds a shared plan that a checkpoint had; the views that share it follow.
    pub fn add_restored_plan(&mut self, id: ObjectId, view: View) {
        // Without a limit of its own.
        let _ = self.state_memory.view_took(id, &view.name, view.state_bytes(), None);
        self.insert_view(id, view);
    }

    /// All views of a checkpoint are there: brings them to where the log ends, and has sources go on.
    pub fn finish_restore(&mut self, mut changes: EpochChanges, sources: &[StoredSource]) -> Result<()> {
        self.drop_unused_plans();
        // In the epoch in which tables are as at the end of the log already: nobody has read it.
        self.step_views(self.epoch, now_us(), &mut changes);
        self.count_memory();
        for stored in sources {
            self.restore_source(stored)?;
        }
        if let Some(durability) = &mut self.durability {
            durability.recovered();
        }
        Ok(())
    }

    fn restore_source(&mut self, stored: &StoredSource) -> Result<()> {
        let id = ObjectId(stored.source);
        let views = self.views.values().filter(|view| view.inputs.contains(&id));
        let columns = views.flat_map(|v| v.runtime.inputs()).filter(|i| i.object == id).flat_map(|i| &i.columns);
        let columns: BTreeSet<usize> = columns.copied().collect();
        let is_read = self.views.values().any(|view| view.inputs.contains(&id));
        let Some(source) = self.sources.get_mut(&id) else { return Ok(()) };
        source.read = SourceRead { n_rows: stored.n_rows as usize, n_bytes: stored.n_bytes, n_bad: stored.n_bad };
        if let (Some(positions), true) = (&stored.positions, is_read) {
            let positions: Positions = positions.iter().map(|(split, position)| (Split(*split), *position)).collect();
            let columns: Vec<usize> = columns.into_iter().collect();
            let reader = start_reader(&self.shared, &mut self.next_generation, id, source, positions, &columns)?;
            source.reader = Some(reader);
            source.state = SourceState::Running;
        }
        Ok(())
    }
}

fn shared_node(node: usize, plan: ObjectId) -> SharedNode {
    SharedNode { node: u32::try_from(node).unwrap_or(u32::MAX), plan: plan.0 }
}
