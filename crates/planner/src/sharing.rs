//! Which sub-plans of two views are equal, so that one run of them can serve both.
//!
//! Equal are plans that compute the same rows of the same objects; by which names they know their columns does not
//! matter. Shareable is a sub-plan with state of its own whose rows follow from the rows of its inputs alone, to the last
//! bit and in whatever order they came: a view that computed them by itself may go on with those of another run.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::Volatility;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::PhysicalExpr;
use tidewire_operators::aggregate::{Aggregate, Function};
use tidewire_operators::arrangement::Identity;
use tidewire_operators::flat_map::FlatMap;
use tidewire_operators::join::Join;
use tidewire_operators::recursion::BodyNode;
use tidewire_operators::top_n::TopN;
use tidewire_operators::window::{self, Window};
use tidewire_operators::{Kept, Plan};

use crate::dataflow::{Dataflow, Node, NodeId, NodeKind};

impl Dataflow {
    /// A node and what it stands on, each once and after its inputs. The order follows from the shape of the plan alone.
    pub fn below(&self, node: NodeId) -> Vec<NodeId> {
        let mut found = vec![];
        self.add_below(node, &mut vec![false; self.nodes.len()], &mut found);
        found
    }

    fn add_below(&self, id: NodeId, seen: &mut [bool], found: &mut Vec<NodeId>) {
        let (Some(seen_), Some(node)) = (seen.get_mut(id), self.nodes.get(id)) else { return };
        if std::mem::replace(seen_, true) {
            return;
        }
        node.inputs.iter().for_each(|input| self.add_below(*input, seen, found));
        found.push(id);
    }

    /// The plan of one node, with its nodes in the order of [`Dataflow::below`].
    pub fn sub_plan(&self, node: NodeId) -> Dataflow {
        let below = self.below(node);
        let place: HashMap<NodeId, NodeId> = below.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        let moved = |node: &Node| {
            let inputs = node.inputs.iter().filter_map(|input| place.get(input).copied()).collect();
            Node { inputs, ..node.clone() }
        };
        // Nobody keeps its rows.
        Dataflow {
            nodes: below.iter().filter_map(|id| self.nodes.get(*id)).map(moved).collect(),
            identity: Identity::Bag,
        }
    }

    /// For each node, whether its sub-plan is shareable.
    pub fn shareable(&self) -> Vec<bool> {
        let mut exact: Vec<bool> = vec![];
        let mut shareable = vec![];
        for node in &self.nodes {
            let below = node.inputs.iter().all(|input| exact.get(*input) == Some(&true));
            exact.push(below && is_exact(&node.kind));
            let has_state = matches!(&node.kind, NodeKind::Operator(plan) if !matches!(plan.kept(), Kept::Nothing));
            shareable.push(has_state && exact.last() == Some(&true));
        }
        shareable
    }

    /// Whether two nodes have equal sub-plans: node by node, in the order of [`Dataflow::below`].
    pub fn is_equal(&self, node: NodeId, other: &Dataflow, other_node: NodeId) -> bool {
        let likely = self.nodes.get(node).zip(other.nodes.get(other_node)).is_some_and(|(l, r)| does_the_same(l, r));
        likely && {
            let (left, right) = (self.sub_plan(node).nodes, other.sub_plan(other_node).nodes);
            left.len() == right.len() && left.iter().zip(&right).all(|(l, r)| is_equal_node(l, r))
        }
    }
}

/// Whether two nodes of one dataflow have the same rows.
pub(crate) fn is_equal_node(left: &Node, right: &Node) -> bool {
    left.inputs == right.inputs && does_the_same(left, right)
}

fn does_the_same(left: &Node, right: &Node) -> bool {
    types(&left.schema).eq(types(&right.schema)) && kinds(&left.kind, &right.kind)
}

fn kinds(left: &NodeKind, right: &NodeKind) -> bool {
    match (left, right) {
        (NodeKind::Input(l), NodeKind::Input(r)) => (l.object, &l.columns) == (r.object, &r.columns),
        // With the names of their columns: those of an empty one may be all that tells it from others.
        (NodeKind::Constant(l), NodeKind::Constant(r)) => l == r,
        (NodeKind::Operator(l), NodeKind::Operator(r)) => plans(l, r),
        _ => false,
    }
}

fn plans(left: &Plan, right: &Plan) -> bool {
    match (left, right) {
        (Plan::Filter(l), Plan::Filter(r)) => exprs([&l.predicate], [&r.predicate]),
        (Plan::Project(l), Plan::Project(r)) => exprs(&l.exprs, &r.exprs),
        (Plan::Union(_), Plan::Union(_)) => true,
        (Plan::SingleRow(l), Plan::SingleRow(r)) => l.counts == r.counts,
        (Plan::Assert(l), Plan::Assert(r)) => exprs([&l.violated], [&r.violated]),
        (Plan::Aggregate(l), Plan::Aggregate(r)) => aggregates(l, r),
        (Plan::Join(l), Plan::Join(r)) => joins(l, r),
        (Plan::TopN(l), Plan::TopN(r)) => {
            let parameters = |p: &TopN| (p.partition_by.clone(), p.order_by.clone(), p.offset, p.limit, p.append_only);
            parameters(l) == parameters(r)
        }
        (Plan::Window(l), Plan::Window(r)) => windows(l, r),
        // Their names do matter, and whatever else they have; but a NULL in a literal looks like an empty text.
        (Plan::FlatMap(l), Plan::FlatMap(r)) => {
            let args = |map: &FlatMap| map.calls.iter().flat_map(|call| call.args.clone()).collect::<Vec<_>>();
            format!("{left:?}") == format!("{right:?}") && exprs(&args(l), &args(r)) && exprs(&l.filter, &r.filter)
        }
        (Plan::Recursion(l), Plan::Recursion(r)) => {
            let same = l.body.iter().zip(&r.body).all(|pair| match pair {
                (BodyNode::Operator(l, _), BodyNode::Operator(r, _)) => plans(l, r),
                _ => true,
            });
            format!("{left:?}") == format!("{right:?}") && same
        }
        _ => false,
    }
}

fn aggregates(left: &Aggregate, right: &Aggregate) -> bool {
    left.keys == right.keys
        && left.append_only == right.append_only
        && types(&left.input).eq(types(&right.input))
        && left.calls.len() == right.calls.len()
        && left.calls.iter().zip(&right.calls).all(|(l, r)| {
            (&l.function, &l.args, l.distinct, l.filter, &l.order_by, l.ignore_nulls)
                == (&r.function, &r.args, r.distinct, r.filter, &r.order_by, r.ignore_nulls)
        })
}

fn joins(left: &Join, right: &Join) -> bool {
    let flags = |p: &Join| {
        let append_only = (p.left_append_only, p.right_append_only);
        (p.kind, p.null_equals_null, p.null_aware, append_only, p.left_unique, p.right_unique)
    };
    flags(left) == flags(right)
        && left.left_keys == right.left_keys
        && left.right_keys == right.right_keys
        && exprs(&left.residual, &right.residual)
}

fn windows(left: &Window, right: &Window) -> bool {
    (&left.partition_by, &left.order_by, &left.tie_break) == (&right.partition_by, &right.order_by, &right.tie_break)
        && left.calls.len() == right.calls.len()
        && left
            .calls
            .iter()
            .zip(&right.calls)
            .all(|(l, r)| (&l.function, &l.args, l.filter, &l.frame) == (&r.function, &r.args, r.filter, &r.frame))
}

/// Types, with what makes them SQL's: an array of `varchar` is not one of `text`.
fn types(schema: &SchemaRef) -> impl Iterator<Item = (&DataType, bool, &HashMap<String, String>)> {
    schema.fields().iter().map(|field| (field.data_type(), field.is_nullable(), field.metadata()))
}

fn exprs<'a>(
    left: impl IntoIterator<Item = &'a Arc<dyn PhysicalExpr>>,
    right: impl IntoIterator<Item = &'a Arc<dyn PhysicalExpr>>,
) -> bool {
    let nameless = |expr: &Arc<dyn PhysicalExpr>| {
        let nameless = Arc::clone(expr).transform_up(|expr| match expr.downcast_ref::<Column>() {
            Some(column) => {
                let nameless: Arc<dyn PhysicalExpr> = Arc::new(Column::new("", column.index()));
                Ok(Transformed::yes(nameless))
            }
            None => Ok(Transformed::no(expr)),
        });
        nameless.map(|expr| expr.data).ok()
    };
    let (left, right): (Vec<_>, Vec<_>) = (left.into_iter().collect(), right.into_iter().collect());
    // An expression that cannot be written anew equals none.
    left.len() == right.len()
        && left.iter().zip(right).all(|(l, r)| nameless(l).zip(nameless(r)).is_some_and(|(l, r)| *l == *r))
}

/// Whether a node's rows follow from those of its inputs alone.
fn is_exact(kind: &NodeKind) -> bool {
    let NodeKind::Operator(plan) = kind else { return true };
    match plan {
        Plan::Filter(p) => is_immutable(&p.predicate),
        Plan::Assert(p) => is_immutable(&p.violated),
        Plan::Project(p) => p.exprs.iter().all(is_immutable),
        Plan::Union(_) => true,
        Plan::Join(p) => p.residual.iter().all(is_immutable),
        Plan::SingleRow(p) => has_one_form(&p.schema),
        Plan::TopN(p) => has_one_form(&p.schema),
        Plan::Aggregate(p) => has_one_form(&p.schema) && p.calls.iter().all(|call| is_unordered(&call.function)),
        Plan::Window(p) => {
            has_one_form(&p.schema)
                && p.calls.iter().all(|call| match &call.function {
                    window::Function::Aggregate(function) => is_unordered(function),
                    _ => true,
                })
        }
        Plan::FlatMap(_) | Plan::Recursion(_) => false,
    }
}

/// Whether the order of the rows does not matter.
fn is_unordered(function: &Function) -> bool {
    match function {
        Function::Count
        | Function::Sum
        | Function::Avg
        | Function::Min
        | Function::Max
        | Function::BoolAnd
        | Function::BoolOr
        | Function::BitAnd
        | Function::BitOr
        | Function::BitXor => true,
        Function::List(_) | Function::Ordered(_) | Function::Statistic(_) | Function::Other(_) => false,
    }
}

/// Whether equal values of every column are the same bits. Those of floating point numbers (0 and -0) and of intervals
/// are not, and sums of the former depend on the order.
fn has_one_form(schema: &Schema) -> bool {
    schema.fields().iter().all(|field| {
        let data_type = field.data_type();
        data_type.is_integer()
            || data_type.is_decimal()
            || matches!(
                data_type,
                DataType::Boolean
                    | DataType::Utf8View
                    | DataType::BinaryView
                    | DataType::Date32
                    | DataType::Time64(_)
                    | DataType::Timestamp(..)
            )
    })
}

fn is_immutable(expr: &Arc<dyn PhysicalExpr>) -> bool {
    let mut immutable = true;
    // The walk itself cannot fail.
    let _ = expr.apply(|expr| {
        let call = expr.downcast_ref::<ScalarFunctionExpr>();
        immutable &= !expr.is_volatile_node()
            && call.is_none_or(|call| call.fun().signature().volatility == Volatility::Immutable);
        Ok(if immutable { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    immutable
}
