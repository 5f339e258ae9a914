//! Dataflows that have a part in common: one runtime runs it, the others take its changes.
//!
//! A runtime keeps its whole dataflow and says for each node where its rows come from, so that the nodes of its own keep
//! their numbers in checkpoints. Invariant: a node that is another runtime's holds no state here.

use std::collections::{BTreeMap, BTreeSet};

use tidewire_planner::{Dataflow, NodeId, NodeKind};
use tidewire_types::{ObjectId, Result};

use super::{NodeState, Origin, Runtime};
use crate::{OperatorStatus, Operators, Settings};

/// Of rows that came before a checkpoint which did not say how many.
const UNKNOWN: u64 = u64::MAX;

impl Runtime {
    /// The plan of the whole, whoever runs it.
    pub fn dataflow(&self) -> &Dataflow {
        &self.dataflow
    }

    /// Everything that the steps take changes of.
    pub fn reads(&self) -> BTreeSet<ObjectId> {
        self.inputs().map(|input| input.object).chain(self.shared().map(|(_, plan)| plan)).collect()
    }

    /// The nodes that take the changes of a shared plan, and which.
    pub fn shared(&self) -> impl Iterator<Item = (NodeId, ObjectId)> {
        self.nodes.iter().enumerate().filter_map(|(id, state)| match state.origin {
            Origin::Shared(plan) => Some((id, plan)),
            Origin::Own | Origin::Unused => None,
        })
    }

    /// Whether the node is run here.
    pub fn is_own(&self, node: NodeId) -> bool {
        self.nodes.get(node).is_some_and(|state| state.origin == Origin::Own)
    }

    /// For each input that is read here, the rows that came, before the server's start too.
    pub fn n_taken(&self) -> BTreeMap<u32, u64> {
        let own = (0_u32..).zip(&self.nodes).filter(|(_, state)| state.origin == Origin::Own);
        own.filter(|(_, s)| matches!(s.node.kind, NodeKind::Input(_))).map(|(id, state)| (id, state.n_taken)).collect()
    }

    /// Says what came before the server's start.
    pub fn set_taken(&mut self, n_taken: &BTreeMap<u32, u64>) {
        for (id, state) in (0_u32..).zip(&mut self.nodes) {
            state.n_taken = n_taken.get(&id).copied().unwrap_or(UNKNOWN);
        }
    }

    /// Whether a node's state could go to another runtime: nothing else here needs any state below it.
    pub fn is_closed(&self, node: NodeId) -> bool {
        let needed = self.needed(Some(node));
        let stays = |id: &NodeId| {
            let state = self.nodes.get(*id);
            needed.contains(id) && state.is_some_and(|state| state.origin == Origin::Own && state.has_state())
        };
        !self.dataflow.below(node).iter().filter(|id| **id != node).any(stays)
    }

    /// Whether a node here holds what an equal one of `other` holds. That follows from the rows of tables and views, which
    /// all see alike; a source may have lost records since one of them read it, or they were decoded otherwise.
    pub fn has_state_of<'a>(
        &self,
        node: NodeId,
        other: &'a Runtime,
        other_node: NodeId,
        is_source: &dyn Fn(ObjectId) -> bool,
        plan_of: &dyn Fn(ObjectId) -> Option<&'a Runtime>,
    ) -> bool {
        let (here, there) = (self.dataflow.below(node), other.dataflow.below(other_node));
        let reads_source = |id: &NodeId| {
            let node = self.dataflow.nodes.get(*id);
            node.is_some_and(|n| matches!(&n.kind, NodeKind::Input(input) if is_source(input.object)))
        };
        if !here.iter().any(reads_source) {
            return true;
        }
        here.iter().zip(&there).all(|(l_id, r_id)| {
            let Some((l, r)) = self.nodes.get(*l_id).zip(other.nodes.get(*r_id)) else { return false };
            match (l.origin, r.origin) {
                (Origin::Own, Origin::Own) => {
                    (!reads_source(l_id) || (l.n_taken == r.n_taken && l.n_taken != UNKNOWN))
                        && l.status().state_rows == r.status().state_rows
                }
                (Origin::Own, Origin::Shared(plan)) => plan_of(plan).is_some_and(|plan| {
                    plan.root().is_some_and(|root| self.has_state_of(*l_id, plan, root, is_source, plan_of))
                }),
                // Below a shared one.
                (_, Origin::Unused) => true,
                (l, r) => l == r,
            }
        })
    }

    /// The node whose rows are the runtime's output.
    pub fn root(&self) -> Option<NodeId> {
        self.nodes.len().checked_sub(1)
    }

    /// Takes a node's rows from a shared plan from now on. What it stands on is let go, unless something else needs it.
    pub fn take_from(&mut self, node: NodeId, plan: ObjectId) {
        if let Some(state) = self.nodes.get_mut(node) {
            state.origin = Origin::Shared(plan);
        }
        let needed = self.needed(None);
        for (id, state) in self.nodes.iter_mut().enumerate() {
            if !needed.contains(&id) {
                state.origin = Origin::Unused;
            }
            if state.origin != Origin::Own {
                (state.shards, state.held) = (vec![], None);
            }
        }
        self.count_uses();
    }

    /// Makes a node and what it stands on a runtime of its own, with their state, and takes its rows from there. Also:
    /// for each of its nodes, which one it was here. `node` must be closed.
    pub fn split(
        &mut self,
        node: NodeId,
        plan: ObjectId,
        settings: &Settings,
        operators: Operators,
    ) -> Result<(Runtime, Vec<NodeId>)> {
        let below = self.dataflow.below(node);
        let mut split = Runtime::new(&self.dataflow.sub_plan(node), settings, operators)?;
        for (new, old) in split.nodes.iter_mut().zip(&below) {
            let Some(old) = self.nodes.get_mut(*old) else { continue };
            (new.origin, new.n_taken) = (old.origin, old.n_taken);
            (new.n_input_rows, new.n_output_rows, new.step_ns) = (old.n_input_rows, old.n_output_rows, old.step_ns);
            if old.has_state() || old.origin != Origin::Own {
                (new.shards, new.held) = (std::mem::take(&mut old.shards), old.held.take());
            }
        }
        split.step = self.step;
        split.count_uses();
        self.take_from(node, plan);
        Ok((split, below))
    }

    /// Nodes whose rows are wanted, where those of `given` come from elsewhere.
    fn needed(&self, given: Option<NodeId>) -> BTreeSet<NodeId> {
        let mut needed = BTreeSet::new();
        let mut stack: Vec<NodeId> = self.root().into_iter().collect();
        while let Some(id) = stack.pop() {
            if let Some(state) = self.nodes.get(id)
                && needed.insert(id)
                && state.origin == Origin::Own
                && Some(id) != given
            {
                stack.extend(&state.node.inputs);
            }
        }
        needed
    }

    pub(super) fn count_uses(&mut self) {
        let own = self.nodes.iter().filter(|state| state.origin == Origin::Own);
        let used: Vec<NodeId> = own.flat_map(|state| state.node.inputs.iter().copied()).collect();
        for (id, state) in self.nodes.iter_mut().enumerate() {
            state.n_uses = used.iter().filter(|input| **input == id).count();
        }
    }

    /// Puts what `plan`, which runs a node and what it stands on, says of its nodes in the place of this runtime's.
    pub fn fill_status(&self, node: NodeId, plan: &[OperatorStatus], status: &mut [OperatorStatus]) {
        for (status_of, id) in plan.iter().zip(self.dataflow.below(node)) {
            if let Some(slot) = status.get_mut(id)
                && !self.is_own(id)
            {
                *slot = OperatorStatus { description: std::mem::take(&mut slot.description), ..status_of.clone() };
            }
        }
    }
}

impl NodeState {
    fn has_state(&self) -> bool {
        match &self.node.kind {
            NodeKind::Operator(plan) => !matches!(plan.kept(), tidewire_operators::Kept::Nothing),
            NodeKind::Input(_) | NodeKind::Constant(_) => false,
        }
    }
}
