//! Where everything stands, as the loop knows it.

use std::collections::BTreeSet;

use tidewire_connect::{Position, Split};
use tidewire_operators::arrangement::Arrangement;
use tidewire_types::ObjectId;

use super::{Core, RunningSource, View, describe};
use crate::OperatorStatus;
use crate::runtime::Runtime;
use crate::status::{SourceStatus, SplitStatus, Status, ViewState, ViewStatus};

impl Core {
    /// Where everything stands.
    pub fn status(&mut self) -> Status {
        let (mut views, mut counted): (Vec<ViewStatus>, _) = (vec![], BTreeSet::new());
        for (id, view) in self.views.iter().filter(|(id, _)| self.catalog.by_id(**id).is_some()) {
            if self.builds.contains_key(id) {
                continue;
            }
            let mut status = view.status(*id, self.undefined.contains(id));
            self.add_shared(&view.runtime, &mut status.operators, &mut status.state_bytes, &mut counted);
            views.push(status);
        }
        views.extend(self.builds.iter().filter_map(|(id, build)| build.status(*id)));
        let relations = self.tables.values().map(|t| t.rows.state_bytes()).sum::<usize>();
        let of_views: usize = self.views.values().map(View::state_bytes).sum();
        Status {
            epoch: self.epoch,
            n_epochs: self.n_epochs,
            n_input_rows: self.n_input_rows,
            step_ns: self.step_ns,
            state_bytes: relations + of_views,
            n_dead_letters: self.shared.dead_letters.n_total(),
            n_subscriptions: self.subscribers.values().map(Vec::len).sum(),
            checkpoints: self.durability.as_ref().map(|d| d.status(self.held_bytes())).unwrap_or_default(),
            sources: self.sources.iter().map(|(id, s)| s.status(*id)).collect(),
            indexes: self.index_status(),
            views,
        }
    }
}

impl Core {
    /// What several views share counts as the oldest one's.
    fn add_shared(
        &self,
        runtime: &Runtime,
        operators: &mut [OperatorStatus],
        state_bytes: &mut usize,
        counted: &mut BTreeSet<ObjectId>,
    ) {
        for (node, id) in runtime.shared() {
            if let Some(plan) = self.views.get(&id)
                && counted.insert(id)
            {
                *state_bytes += plan.state_bytes();
                let mut of_plan = plan.runtime.status();
                self.add_shared(&plan.runtime, &mut of_plan, state_bytes, counted);
                runtime.fill_status(node, &of_plan, operators);
            }
        }
    }
}

impl View {
    pub(super) fn state_bytes(&self) -> usize {
        self.runtime.state_bytes() + self.relation.as_ref().map_or(0, Arrangement::state_bytes)
    }

    fn status(&self, id: ObjectId, is_undefined: bool) -> ViewStatus {
        let state = match &self.error {
            None if is_undefined => ViewState::Undefined,
            None => ViewState::Running,
            Some(err) => ViewState::Failed(describe(err)),
        };
        ViewStatus {
            id,
            name: self.name.clone(),
            state,
            origin: self.origin,
            n_rows: self.relation.as_ref().map_or(0, Arrangement::n_rows),
            state_bytes: self.state_bytes(),
            operators: self.runtime.status(),
        }
    }
}

impl RunningSource {
    fn status(&self, id: ObjectId) -> SourceStatus {
        let positions = self.reader.as_ref().map(|r| r.positions.clone()).unwrap_or_default();
        let split = |(split, position): (&Split, &Position)| SplitStatus {
            split: split.0,
            position: *position,
            end: self.ends.get(split).map(|end| (*end).max(*position)),
        };
        SourceStatus {
            id,
            name: self.name.clone(),
            state: self.state.clone(),
            n_rows: self.read.n_rows as u64,
            n_bytes: self.read.n_bytes,
            n_bad_records: self.read.n_bad,
            splits: positions.iter().map(split).collect(),
        }
    }
}
