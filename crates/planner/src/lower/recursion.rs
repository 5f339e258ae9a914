//! WITH RECURSIVE: the recursive term becomes the body of one operator.
//!
//! The term is planned like any other, over a placeholder for the rows of the iteration before. That has one more
//! column, the number of the iteration, which every node passes on. The nodes that depend on the placeholder are the
//! body; what they read of other nodes comes to the operator as inputs. Invariant: all operators of a body treat the
//! rows of different iterations apart.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::logical_expr::{Expr, RecursiveQuery, TableScan};
use tidewire_operators::Plan;
use tidewire_operators::join::Kind;
use tidewire_operators::recursion::{BodyInput, BodyNode, Recursion};
use tidewire_types::{Result, SqlError, SqlType};

use super::{Lowering, Relation, dfschema, not_maintained, nullable, qualified};
use crate::dataflow::{Node, NodeId, NodeKind, Properties};
use crate::errors::planning_error;
use crate::{provider, spans};

/// Iterations that a view may need. A chain of managers or of parts is shorter; a cycle under UNION ALL has no end.
const ITERATIONS_MAX: i64 = 10_000;

/// The recursive relation whose term is being planned.
pub(super) struct Work {
    name: String,
    node: NodeId,
    columns: Vec<FieldRef>,
    /// Name of the column that numbers the iterations.
    number: String,
}

impl Lowering<'_> {
    pub(super) fn recursion(&mut self, query: &RecursiveQuery) -> Result<Relation> {
        if self.work.is_some() {
            return Err(not_maintained("WITH RECURSIVE inside a recursive term"));
        }
        let fields = qualified(&query.schema);
        let base = self.lower(&query.static_term)?;
        let base = self.by_position(base, query.static_term.schema(), &fields)?;
        let columns = dfschema(fields.clone())?;
        let schema = nullable(columns.as_arrow());
        let number = self.hidden();
        let numbered = schema.fields().iter().cloned().chain([Arc::new(SqlType::Int8.field(&number, true))]);
        let work_schema = Arc::new(Schema::new(numbered.collect::<Vec<_>>()));
        let placeholder = NodeKind::Constant(RecordBatch::new_empty(work_schema.clone()));
        let node = self.push(placeholder, vec![], work_schema.clone(), Properties::default());
        let work = Work { name: query.name.clone(), node, columns: query.schema.fields().to_vec(), number };
        self.work = Some(work);
        let term = self.lower(&query.recursive_term);
        let term = term.and_then(|term| self.by_position(term, query.recursive_term.schema(), &fields));
        let Some(work) = self.work.take() else { return Err(SqlError::internal("a recursion is lost")) };
        let term = term?;
        if term.columns.fields().last().is_none_or(|field| *field.name() != work.number) {
            return Err(not_maintained("this recursive term"));
        }
        let (body, outer) = self.body(work.node, term.node)?;
        let n_outer = outer.len();
        let keys = match query.is_distinct {
            true => spans::row_keys(&schema).map_err(|e| planning_error(e, self.text))?,
            false => None,
        };
        let operator = Recursion {
            name: query.name.clone(),
            distinct: query.is_distinct,
            keys,
            body,
            n_outer,
            iterations_max: ITERATIONS_MAX,
            work_schema,
            schema: schema.clone(),
        };
        let keys = if query.is_distinct { vec![(0..schema.fields().len()).collect()] } else { vec![] };
        let inputs = std::iter::once(base.node).chain(outer).collect();
        let plan = NodeKind::Operator(Plan::Recursion(Box::new(operator)));
        let node = self.push(plan, inputs, schema, Properties::new(false, keys));
        Ok(Relation { node, columns })
    }

    /// The scan of the recursive relation inside its own term.
    pub(super) fn work_table(&self, scan: &TableScan) -> Result<Option<Relation>> {
        let Some((name, _)) = provider::work_table(scan) else { return Ok(None) };
        let Some(work) = self.work.as_ref().filter(|work| work.name == name) else {
            return Err(not_maintained("this recursive reference"));
        };
        let qualifier = Some(scan.table_name.clone());
        let mut fields: Vec<_> = work.columns.iter().map(|field| (qualifier.clone(), field.clone())).collect();
        fields.push((None, Arc::new(SqlType::Int8.field(&work.number, true))));
        Ok(Some(Relation { node: work.node, columns: dfschema(fields)? }))
    }

    /// Whether it is the column that numbers the iterations, which keeps its name.
    pub(super) fn is_number(&self, field: &FieldRef) -> bool {
        self.work.as_ref().is_some_and(|work| work.number == *field.name())
    }

    /// The number of the iteration among the columns of a relation.
    pub(super) fn number_of(&self, columns: &DFSchema) -> Option<(usize, FieldRef)> {
        columns.fields().iter().enumerate().find(|(_, f)| self.is_number(f)).map(|(idx, f)| (idx, f.clone()))
    }

    /// Passes the number of the iteration on.
    pub(super) fn with_number(
        &self,
        columns: &DFSchema,
        exprs: &[Expr],
        mut fields: Vec<(Option<TableReference>, FieldRef)>,
    ) -> (Vec<Expr>, Vec<(Option<TableReference>, FieldRef)>) {
        let mut exprs = exprs.to_vec();
        if let Some((_, field)) = self.number_of(columns)
            && !fields.iter().any(|(_, f)| self.is_number(f))
        {
            exprs.push(Expr::Column(Column::from_name(field.name())));
            fields.push((None, field));
        }
        (exprs, fields)
    }

    /// The nodes between the placeholder and the term, and the other nodes that they read.
    fn body(&self, work: NodeId, term: NodeId) -> Result<(Vec<BodyNode>, Vec<NodeId>)> {
        let mut dependent = BTreeSet::from([work]);
        for (id, node) in self.nodes.iter().enumerate().skip(work + 1) {
            if node.inputs.iter().any(|input| dependent.contains(input)) {
                dependent.insert(id);
            }
        }
        let mut needed = BTreeSet::from([work]);
        let mut stack = vec![term];
        while let Some(id) = stack.pop() {
            if dependent.contains(&id) && needed.insert(id) {
                stack.extend(self.nodes.get(id).into_iter().flat_map(|n| n.inputs.iter().copied()));
            }
        }
        let places: Vec<NodeId> = needed.into_iter().collect();
        let mut outer: Vec<NodeId> = vec![];
        let mut body = vec![];
        for id in &places {
            let Some(node) = self.nodes.get(*id) else { continue };
            let NodeKind::Operator(plan) = &node.kind else {
                body.push(BodyNode::Work);
                continue;
            };
            self.check_body(plan, node, &places)?;
            let inputs = node.inputs.iter().map(|input| match places.iter().position(|place| place == input) {
                Some(idx) => BodyInput::Node(idx),
                None => {
                    let known = outer.iter().position(|present| present == input);
                    BodyInput::Outer(known.unwrap_or_else(|| {
                        outer.push(*input);
                        outer.len() - 1
                    }))
                }
            });
            let inputs = inputs.collect();
            body.push(BodyNode::Operator(plan.clone(), inputs));
        }
        Ok((body, outer))
    }

    /// Errors: `0A000` for an operator that would mix the rows of different iterations.
    fn check_body(&self, plan: &Plan, node: &Node, places: &[NodeId]) -> Result<()> {
        let depends = |idx: usize| node.inputs.get(idx).is_some_and(|input| places.contains(input));
        let is_apart = match plan {
            Plan::Filter(_) | Plan::Assert(_) | Plan::Project(_) | Plan::FlatMap(_) => true,
            Plan::Join(join) => match join.kind {
                Kind::Inner => !(depends(0) && depends(1)),
                Kind::Left | Kind::LeftSemi | Kind::LeftAnti | Kind::LeftMark => !depends(1),
                Kind::Right => !depends(0),
                Kind::Full => false,
            },
            // DISTINCT, over all columns.
            Plan::Aggregate(aggregate) => {
                aggregate.calls.is_empty() && aggregate.keys.len() == node.schema.fields().len()
            }
            _ => false,
        };
        match is_apart {
            true => Ok(()),
            false => Err(not_maintained(&format!("{} in a recursive term", plan.name()))),
        }
    }
}
