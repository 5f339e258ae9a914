//! A statement and a catalog become a [`Dataflow`] (for views) or a DataFusion plan (for queries).
//!
//! `sqlparser AST -> SqlToRel with our own ContextProvider -> analyzer -> our own list of rules -> Dataflow`.

mod dataflow;
mod query;

pub use dataflow::{Dataflow, InputNode, Node, NodeId, NodeKind, Properties};
pub use query::{Context, Planned, TableResolver};
