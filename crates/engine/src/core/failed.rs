//! Views that have failed: with them what stands on them, and all else goes on. They are there until they are dropped, or built
//! again.

use tidewire_catalog::Object;
use tidewire_types::{ObjectId, Result, SqlError, SqlState};
use tracing::error;

use super::{Core, View, describe};
use crate::runtime::Runtime;
use crate::status::ViewOrigin;

impl Core {
    /// Marks a view failed, and what stands on it.
    pub(super) fn fail_view(&mut self, id: ObjectId, err: SqlError) {
        let Some(view) = self.views.get_mut(&id) else { return };
        if view.error.is_some() {
            return;
        }
        error!(view = %view.name, error = %err, "materialized view failed");
        let (name, is_plan) = (view.name.clone(), view.is_plan);
        view.error = Some(err.clone());
        if err.state() == SqlState::OutOfMemory {
            (view.runtime, view.relation) = (Runtime::without_state(), None);
            self.state_memory.forget(id);
        }
        for subscriber in self.subscribers.remove(&id).unwrap_or_default() {
            subscriber.fail(view_failed(&name, &err));
        }
        self.builds.values().filter(|b| b.tap.reads(id)).for_each(|b| b.tap.fail(view_failed(&name, &err)));
        self.publish_relations();
        let above: Vec<ObjectId> =
            self.views.iter().filter(|(_, v)| v.inputs.contains(&id)).map(|(id, _)| *id).collect();
        for dependant in above {
            self.fail_view(dependant, if is_plan { err.clone() } else { view_failed(&name, &err) });
        }
        self.drop_unused_plans();
    }

    /// Frees what a failed view that is built again still holds. Whether there is one.
    pub(super) fn let_go_of_failed(&mut self, id: ObjectId) -> bool {
        let Some(view) = self.views.get_mut(&id).filter(|view| view.error.is_some()) else { return false };
        (view.runtime, view.relation) = (Runtime::without_state(), None);
        self.state_memory.forget(id);
        self.drop_unused_plans();
        true
    }

    /// Adds a view that was there before the server's start and cannot be built now. It stays until it is dropped, and is
    /// tried again at the next start.
    pub fn add_failed_view(&mut self, object: Object, error: SqlError) -> Result<()> {
        let id = object.id;
        let view = View {
            name: object.name.to_string(),
            runtime: Runtime::without_state(),
            relation: None,
            inputs: object.depends_on().to_vec(),
            all_columns: (0..object.columns.len()).collect(),
            error: Some(error),
            fingerprint: None,
            origin: ViewOrigin::Rebuilt,
            is_new: true,
            is_plan: false,
        };
        self.insert_view(id, view);
        self.change_catalog(|catalog| catalog.insert(object)).map(|_| ())
    }
}

/// `55000`: what a reader of a failed view gets.
pub(super) fn view_failed(name: &str, err: &SqlError) -> SqlError {
    // One that was stopped for want of memory says so by its SQLSTATE.
    let state = match err.state() {
        SqlState::OutOfMemory => SqlState::OutOfMemory,
        _ => SqlState::ObjectNotInPrerequisiteState,
    };
    SqlError::new(state, format!("materialized view \"{name}\" has failed"))
        .with_detail(describe(err))
        .with_hint("REFRESH MATERIALIZED VIEW builds it again; SHOW JOBS tells the state of each view.")
}
