//! The plan of one view, as plain data: nodes, edges, and what is known of each node's rows.
//!
//! Planner and engine meet only here; EXPLAIN prints it.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidewire_operators::Plan;
use tidewire_operators::arrangement::Identity;
use tidewire_types::ObjectId;

/// Index of a node in its dataflow.
pub type NodeId = usize;

/// The plan of one view.
#[derive(Clone, Debug)]
pub struct Dataflow {
    /// Every node comes after its inputs; the last one's output is the view.
    pub nodes: Vec<Node>,
    /// How the view's rows are told apart.
    pub identity: Identity,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub kind: NodeKind,
    /// The nodes whose outputs it takes.
    pub inputs: Vec<NodeId>,
    /// Schema of its output.
    pub schema: SchemaRef,
    /// What is known of its rows.
    pub properties: Properties,
}

/// Kinds of nodes.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// The changes of a source, table or materialized view.
    Input(InputNode),
    /// Rows that never change (VALUES, a query without FROM): put out once.
    Constant(RecordBatch),
    /// An incremental operator.
    Operator(Plan),
}

/// The changes of another object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputNode {
    /// A source, table or materialized view.
    pub object: ObjectId,
    /// Its name, for EXPLAIN.
    pub name: String,
    /// The columns that are needed, ascending indices into the object's columns.
    pub columns: Vec<usize>,
}

/// What is known of a node's rows at every moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Rows are never removed.
    pub append_only: bool,
    /// Sets of columns, each of which no two rows share. An empty set: there is at most one row.
    pub unique_keys: Vec<Vec<usize>>,
    /// Sets of columns, and for each the columns that are the same in all rows that share it (NULLs are one value). They
    /// stem from primary keys, and hold where a key comes many times: in a join.
    pub determined: Vec<(Vec<usize>, Vec<usize>)>,
}
