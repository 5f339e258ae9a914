//! Plans that several views share: run once, their changes are an input of each.
//!
//! A view is built alone. When it joins the loop, its sub-plans are looked up among those that run, the largest first. Where
//! another view runs an equal one, the nodes of that become a plan of their own, with their state: nothing is computed
//! anew, and the two views stand beside each other on it, so that neither's end is the other's. The new view lets its own
//! go, which holds the same: both are of one moment, and the rows of a shareable plan follow from its inputs. Only for
//! sources that is to be looked at (see [`Runtime::has_state_of`]).
//!
//! A shared plan is in no catalog and not in the log: it is how views run, not what they are. Checkpoints have it like a view
//! without rows, and for each view the nodes that are elsewhere. It ends with its last view.
//!
//! A view with a memory limit of its own shares nothing: what it takes would depend on others.

use std::collections::HashSet;

use tidewire_catalog::{Kind, Object};
use tidewire_planner::NodeId;
use tidewire_state::Moved;
use tidewire_types::{ObjectId, Result};
use tracing::{info, warn};

use super::{Core, View};
use crate::memory::limit_of;
use crate::runtime::Runtime;
use crate::status::ViewOrigin;

impl Core {
    /// Adds a view or a shared plan.
    pub(super) fn insert_view(&mut self, id: ObjectId, view: View) {
        self.views.insert(id, view);
        self.order_views();
        self.find_undefined();
    }

    /// Views stand on older ones, but on shared plans of any age.
    fn order_views(&mut self) {
        let (mut seen, mut order) = (HashSet::new(), vec![]);
        for id in self.views.keys() {
            self.add_in_order(*id, &mut seen, &mut order);
        }
        self.view_order = order;
        let plans: Vec<ObjectId> = self.views.iter().filter(|(_, v)| v.is_plan).map(|(id, _)| *id).collect();
        for plan in plans {
            let users: Vec<String> = self.users(plan).into_iter().map(|(_, name)| name).collect();
            if let Some(view) = self.views.get_mut(&plan) {
                view.name = users.join(", ");
            }
        }
    }

    fn add_in_order(&self, id: ObjectId, seen: &mut HashSet<ObjectId>, order: &mut Vec<ObjectId>) {
        let Some(view) = self.views.get(&id) else { return };
        if !seen.insert(id) {
            return;
        }
        for (_, plan) in view.runtime.shared() {
            self.add_in_order(plan, seen, order);
        }
        order.push(id);
    }

    /// The views that a view's own errors concern: itself, or the working ones that share the plan. With their names.
    pub(super) fn users(&self, id: ObjectId) -> Vec<(ObjectId, String)> {
        match self.views.get(&id) {
            Some(view) if !view.is_plan => vec![(id, view.name.clone())],
            _ => {
                let above = self.views.iter().filter(|(_, view)| view.error.is_none() && view.inputs.contains(&id));
                let mut users: Vec<_> = above.flat_map(|(above, _)| self.users(*above)).collect();
                users.sort();
                users.dedup();
                users
            }
        }
    }

    /// Has a view that joins the loop take from others what they run already.
    pub(super) fn share(&mut self, view: &mut View, object: Option<&Object>) {
        if view.relation.is_none() || object.and_then(limit_of).is_some() {
            return;
        }
        let shareable = view.runtime.dataflow().shareable();
        // What a node stands on comes before it.
        for node in (0..shareable.len()).rev().filter(|node| shareable.get(*node) == Some(&true)) {
            if !view.runtime.is_own(node) || !view.runtime.is_closed(node) {
                continue;
            }
            let Some((holder, holder_node)) = self.holder(view, node) else { continue };
            match self.plan_of(holder, holder_node) {
                Ok(plan) => view.runtime.take_from(node, plan),
                Err(error) => warn!(view = %view.name, %error, "a plan cannot be shared: it is run once more"),
            }
        }
        view.inputs = view.runtime.reads().into_iter().collect();
    }

    /// Who runs what a node of a new view does.
    fn holder(&self, view: &View, node: NodeId) -> Option<(ObjectId, NodeId)> {
        let may_share = |id: &ObjectId, other: &View| {
            other.error.is_none()
                && other.fingerprint.is_some() == view.fingerprint.is_some()
                && (other.is_plan || (other.relation.is_some() && !self.state_memory.has_limit(*id)))
        };
        self.views.iter().filter(|(id, other)| may_share(id, other)).find_map(|(id, other)| {
            let n_nodes = other.runtime.dataflow().nodes.len();
            (0..n_nodes)
                .find(|other_node| self.runs(&other.runtime, *other_node, view, node))
                .map(|holder_node| (*id, holder_node))
        })
    }

    fn runs<'a>(&'a self, runtime: &'a Runtime, runtime_node: NodeId, view: &View, node: NodeId) -> bool {
        let kind = |id: ObjectId| self.catalog.by_id(id).map(|object| &object.def);
        let is_source = |id: ObjectId| matches!(kind(id), Some(Kind::Source(_)));
        let plan_of = |id: ObjectId| self.views.get(&id).map(|view| &view.runtime);
        runtime.is_own(runtime_node)
            && view.runtime.dataflow().is_equal(node, runtime.dataflow(), runtime_node)
            && runtime.is_closed(runtime_node)
            && view.runtime.has_state_of(node, runtime, runtime_node, &is_source, &plan_of)
    }

    /// The shared plan that runs a node: the holder itself, or one that is made of it.
    fn plan_of(&mut self, holder: ObjectId, node: NodeId) -> Result<ObjectId> {
        let mut catalog = (*self.catalog).clone();
        let id = catalog.allocate();
        let Some(view) = self.views.get_mut(&holder) else { return Ok(holder) };
        if view.is_plan && view.runtime.root() == Some(node) {
            return Ok(holder);
        }
        let (runtime, nodes) = view.runtime.split(node, id, &self.shared.settings, self.shared.operators)?;
        if let (Some(durability), false) = (&mut self.durability, view.is_new) {
            let nodes = nodes.into_iter().map(|node| u32::try_from(node).unwrap_or(u32::MAX)).collect();
            durability.note_moved(Moved { from: holder, to: id, nodes });
        }
        view.inputs = view.runtime.reads().into_iter().collect();
        let n_columns = runtime.dataflow().nodes.last().map_or(0, |node| node.schema.fields().len());
        let plan = View {
            name: view.name.clone(),
            inputs: runtime.reads().into_iter().collect(),
            runtime,
            relation: None,
            all_columns: (0..n_columns).collect(),
            error: None,
            fingerprint: view.fingerprint.as_ref().map(|_| "shared".to_string()),
            origin: ViewOrigin::Created,
            is_new: false,
            is_plan: true,
        };
        info!(view = %plan.name, plan = %id, "a part of the view is shared from now on");
        // State that has moved is no more than before.
        let _ = self.state_memory.view_took(holder, &plan.name, view.state_bytes(), None);
        let _ = self.state_memory.view_took(id, &plan.name, plan.state_bytes(), None);
        self.catalog = catalog.into();
        self.insert_view(id, plan);
        Ok(id)
    }

    /// Ends the shared plans that no working view takes from any more.
    pub(super) fn drop_unused_plans(&mut self) {
        loop {
            let is_used = |id: &ObjectId| self.views.values().any(|v| v.error.is_none() && v.inputs.contains(id));
            let unused: Vec<ObjectId> =
                self.views.iter().filter(|(id, v)| v.is_plan && !is_used(id)).map(|(id, _)| *id).collect();
            if unused.is_empty() {
                break;
            }
            for id in unused {
                self.views.remove(&id);
                self.state_memory.forget(id);
            }
        }
        self.order_views();
    }

    /// For the nodes of a view that others run too: the names of those.
    pub fn shared_with(&self, id: ObjectId) -> Vec<(NodeId, Vec<String>)> {
        let Some(view) = self.views.get(&id).filter(|view| view.error.is_none()) else { return vec![] };
        let others =
            |plan| self.users(plan).into_iter().filter(|(user, _)| *user != id).map(|(_, name)| name).collect();
        view.runtime.shared().map(|(node, plan)| (node, others(plan))).collect()
    }
}
