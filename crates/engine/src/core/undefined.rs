//! Views that mean nothing while a scalar subquery of theirs has a second row where its value is asked for: who reads
//! them gets `21000`. They go on, and mean something again when the row has left.

use std::collections::HashSet;
use std::sync::Arc;

use tidewire_types::ObjectId;
use tracing::{info, warn};

use super::Core;
use crate::shared::undefined;
use crate::subscription::Subscriber;

impl Core {
    /// Looks at all views anew, each after what it takes changes of.
    pub(super) fn find_undefined(&mut self) {
        let mut found = HashSet::new();
        for id in &self.view_order {
            let Some(view) = self.views.get(id).filter(|view| view.error.is_none()) else { continue };
            if view.runtime.is_violated() || view.inputs.iter().any(|input| found.contains(input)) {
                found.insert(*id);
            }
        }
        if found == *self.undefined {
            return;
        }
        for (id, view) in self.views.iter().filter(|(_, view)| !view.is_plan) {
            match (self.undefined.contains(id), found.contains(id)) {
                (false, true) => warn!(view = %view.name, "a subquery has several rows: the view cannot be read"),
                (true, false) => info!(view = %view.name, "the view can be read again"),
                _ => {}
            }
        }
        self.undefined = Arc::new(found);
    }

    /// Tells the subscribers of views that mean nothing.
    pub(super) fn end_subscriptions(&mut self, ids: &HashSet<ObjectId>) {
        for id in ids {
            let Some(subscribers) = self.subscribers.remove(id) else { continue };
            let name = self.views.get(id).map_or_else(String::new, |view| view.name.clone());
            subscribers.iter().for_each(|subscriber| subscriber.fail(undefined(&name)));
        }
    }

    /// Whether a view means something at this moment; else its subscriber is told.
    pub(super) fn is_defined_for(&self, id: ObjectId, subscriber: &Subscriber) -> bool {
        let is_defined = !self.undefined.contains(&id);
        if !is_defined {
            let name = self.views.get(&id).map_or_else(String::new, |view| view.name.clone());
            subscriber.fail(undefined(&name));
        }
        is_defined
    }
}
