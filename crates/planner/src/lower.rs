//! From a logical plan to a [`Dataflow`].
//!
//! A [`Relation`] is a node and the names of its columns. It may have more columns than the logical plan says (join
//! keys that were computed, the value of a scalar subquery): columns are always found by name, and the surplus is
//! projected away where position matters. Invariant: every node is pushed after its inputs, equal nodes once.

mod aggregate;
mod flat_map;
mod join;
mod recursion;
mod top_n;
mod window;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::Alias;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Distinct, EmptyRelation, Expr, LogicalPlan, Operator, Projection, SubqueryAlias, TableScan, Union, Values, lit,
};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_expr::expressions as physical;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::PhysicalExpr;
use tidewire_catalog::{Kind, Object};
use tidewire_operators::{Plan, assert, filter, project, single_row, union};
use tidewire_types::{ObjectId, Result, SqlError, SqlState};

pub(crate) use self::top_n::has_sort;
use crate::column_names::{SUFFIX, visible};
use crate::dataflow::{Dataflow, InputNode, Node, NodeId, NodeKind, Properties};
use crate::errors::planning_error;
use crate::flat_map::FlatMap;
use crate::provider::{object_of, parse_query};
use crate::query::{Context, Logical, Planned};
use crate::sharing::is_equal_node;
use crate::unnest_query::{asked, at_most_one, given, only_row};
use crate::{properties, rules};

/// Plans a view from its analyzed query.
pub(crate) fn dataflow(cx: &Context<'_>, logical: Logical, text: &str) -> Result<(Dataflow, Planned)> {
    if !logical.parameters.is_empty() {
        return Err(SqlError::new(SqlState::UndefinedParameter, "there is no parameter $1"));
    }
    let Logical { plan, schema, parameters, objects } = logical;
    let mut lowering = Lowering::new(cx, text);
    let plan = lowering.optimize(plan)?;
    let relation = lowering.lower(&plan)?;
    let relation = lowering.output(relation, plan.schema(), &with_different_names(&schema))?;
    let identity = lowering.properties(&relation).identity();
    let nodes = reachable(lowering.nodes, relation.node);
    Ok((Dataflow { nodes, identity }, Planned { plan, analyzed: None, parameters, schema, objects, is_lasting: false }))
}

/// The schema with another name for a column whose name another one has: a view may still give its columns names.
fn with_different_names(schema: &SchemaRef) -> SchemaRef {
    let mut seen = HashSet::new();
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(idx, field)| match seen.insert(field.name()) {
            true => field.clone(),
            false => Arc::new(field.as_ref().clone().with_name(format!("{}{SUFFIX}{idx}", field.name()))),
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// A node, and by which names the plan knows its columns.
#[derive(Clone)]
struct Relation {
    node: NodeId,
    columns: Arc<DFSchema>,
}

/// An uncorrelated subquery, and the columns in its place.
struct Scalar {
    plan: LogicalPlan,
    value: Column,
    /// Where it may have several rows.
    n_rows: Option<Column>,
}

impl Scalar {
    fn expr(&self) -> Expr {
        let value = Expr::Column(self.value.clone());
        match &self.n_rows {
            None => value,
            Some(n_rows) => only_row(vec![value, Expr::Column(n_rows.clone())]),
        }
    }
}

struct Lowering<'a> {
    cx: &'a Context<'a>,
    text: &'a str,
    state: SessionState,
    nodes: Vec<Node>,
    views: HashMap<ObjectId, Properties>,
    n_hidden: usize,
    /// The recursive relation whose term is being planned.
    work: Option<recursion::Work>,
}

impl<'a> Lowering<'a> {
    fn new(cx: &'a Context<'a>, text: &'a str) -> Lowering<'a> {
        let state = cx.session.state();
        Lowering { cx, text, state, nodes: vec![], views: HashMap::new(), n_hidden: 0, work: None }
    }

    fn optimize(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        rules::check_functions(&plan)?;
        rules::optimize_for_view(plan, &self.state, self.text)
    }

    fn lower(&mut self, plan: &LogicalPlan) -> Result<Relation> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::Projection(projection) => {
                let input = self.lower(&projection.input)?;
                self.projection(projection, input)
            }
            LogicalPlan::Filter(filter) => match self.row_number(filter)? {
                Some(relation) => Ok(relation),
                None => {
                    let input = self.lower(&filter.input)?;
                    self.filter(&filter.predicate, input)
                }
            },
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.lower(&alias.input)?;
                self.alias(alias, input)
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(input),
            LogicalPlan::Distinct(Distinct::On(distinct)) => self.distinct_on(distinct, None),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Limit(limit) => self.limit(limit),
            // Rows of a view have no order.
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.lower(&sort.input),
            LogicalPlan::Sort(sort) => self.sort_with_fetch(sort),
            LogicalPlan::EmptyRelation(empty) => self.empty(empty),
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::RecursiveQuery(query) => self.recursion(query),
            other => match FlatMap::of(other) {
                Some(node) => self.flat_map(node),
                None => Err(not_maintained(node_name(other))),
            },
        }
    }

    // Inputs.

    fn scan(&mut self, scan: &TableScan) -> Result<Relation> {
        if let Some(relation) = self.work_table(scan)? {
            return Ok(relation);
        }
        let Some(object) = object_of(&scan.source).cloned() else {
            return Err(not_maintained(&format!("the system table \"{}\"", scan.table_name)));
        };
        let all: Vec<usize> = (0..object.schema.fields().len()).collect();
        let mut wanted = scan.projection.clone().unwrap_or(all);
        if wanted.is_empty() {
            wanted = narrowest_column(&object);
        }
        let mut columns = wanted.clone();
        columns.sort_unstable();
        let schema = Arc::new(object.schema.project(&columns)?);
        let properties = self.object_properties(&object).project(&columns.iter().map(|c| Some(*c)).collect::<Vec<_>>());
        let input = InputNode { object: object.id, name: object.name.to_string(), columns };
        let fields = schema.fields().iter().map(|f| (Some(scan.table_name.clone()), f.clone())).collect();
        let node = self.push(NodeKind::Input(input), vec![], schema, properties);
        Ok(Relation { node, columns: dfschema(fields)? })
    }

    fn object_properties(&mut self, object: &Arc<Object>) -> Properties {
        match &object.def {
            Kind::Source(_) => Properties::new(true, vec![]),
            Kind::Index(_) => Properties::default(),
            Kind::Table(table) if table.primary_key.is_empty() => Properties::default(),
            Kind::Table(table) => Properties::of_table(&table.primary_key, object.schema.fields().len()),
            Kind::View(view) | Kind::MaterializedView(view) => {
                if let Some(known) = self.views.get(&object.id) {
                    return known.clone();
                }
                // The same plan that the view itself runs by: what it says of its rows holds for its readers.
                let properties = self.view_properties(&view.query).unwrap_or_default();
                self.views.insert(object.id, properties.clone());
                properties
            }
        }
    }

    fn view_properties(&self, query: &str) -> Result<Properties> {
        let (flow, _) = self.cx.dataflow(&*parse_query(query)?, query)?;
        Ok(flow.nodes.last().map(|node| node.properties.clone()).unwrap_or_default())
    }

    fn empty(&mut self, empty: &EmptyRelation) -> Result<Relation> {
        if !empty.produce_one_row {
            let schema = nullable(empty.schema.as_arrow());
            let columns = dfschema(qualified(&empty.schema))?;
            return Ok(self.constant(RecordBatch::new_empty(schema), columns));
        }
        let batch = RecordBatch::try_from_iter_with_nullable([("one", lit_array()?, true)])?;
        let columns = dfschema(vec![(
            None,
            Arc::new(Field::new(self.hidden(), batch.schema().field(0).data_type().clone(), true)),
        )])?;
        Ok(self.constant(batch, columns))
    }

    fn values(&mut self, values: &Values) -> Result<Relation> {
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?;
        let schema = nullable(values.schema.as_arrow());
        let mut columns: Vec<Vec<ArrayRef>> = vec![vec![]; schema.fields().len()];
        for exprs in &values.values {
            for ((expr, column), field) in exprs.iter().zip(&mut columns).zip(schema.fields()) {
                let value = self.physical(expr, &DFSchema::empty())?.evaluate(&row).and_then(|v| v.into_array(1));
                let value = value.map_err(|e| planning_error(e, self.text))?;
                column.push(compute::cast(&value, field.data_type())?);
            }
        }
        let columns = columns.iter().map(|parts| {
            let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
            compute::concat(&parts)
        });
        let batch = RecordBatch::try_new(schema, columns.collect::<Result<_, _>>()?)?;
        let columns = dfschema(qualified(&values.schema))?;
        Ok(self.constant(batch, columns))
    }

    fn constant(&mut self, batch: RecordBatch, columns: Arc<DFSchema>) -> Relation {
        let keys = if batch.num_rows() <= 1 { vec![vec![]] } else { vec![] };
        let schema = batch.schema();
        let node = self.push(NodeKind::Constant(batch), vec![], schema, Properties::new(true, keys));
        Relation { node, columns }
    }

    // Rows one by one.

    fn projection(&mut self, projection: &Projection, input: Relation) -> Result<Relation> {
        let (exprs, input) = self.with_scalars(projection.expr.clone(), input)?;
        if exprs.is_empty() {
            let hidden = Arc::new(Field::new(self.hidden(), DataType::Boolean, true));
            return self.project(&input, &[lit(true)], vec![(None, hidden)]);
        }
        self.project(&input, &exprs, qualified(&projection.schema))
    }

    /// Computes `exprs`, which get the names and types of `fields`.
    fn project(
        &mut self,
        input: &Relation,
        exprs: &[Expr],
        fields: Vec<(Option<TableReference>, FieldRef)>,
    ) -> Result<Relation> {
        let (exprs, fields) = self.with_number(&input.columns, exprs, fields);
        let (exprs, input) = &self.asserted(exprs, input.clone())?;
        let exprs: Vec<_> = exprs.iter().map(|e| self.physical(e, &input.columns)).collect::<Result<_>>()?;
        let columns = dfschema(fields)?;
        let (exprs, input) = self.through_projection(exprs, input.clone())?;
        let input = &self.without_unread_window(&exprs, input);
        let copied: Vec<_> = exprs.iter().map(column_of).collect();
        let properties = self.properties(input).project(&copied);
        let names = columns.fields().iter().map(|f| f.as_ref().clone().with_name(visible(f.name())));
        let schema = Arc::new(Schema::new(names.collect::<Vec<_>>()));
        let plan = Plan::Project(project::Project { exprs, schema: schema.clone() });
        let node = self.push(NodeKind::Operator(plan), vec![input.node], schema, properties);
        Ok(Relation { node, columns })
    }

    /// Where the input is a projection itself and one of the two only picks columns: both in one.
    fn through_projection(
        &self,
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        input: Relation,
    ) -> Result<(Vec<Arc<dyn PhysicalExpr>>, Relation)> {
        let Some(Node { kind: NodeKind::Operator(Plan::Project(below)), inputs, .. }) = self.nodes.get(input.node)
        else {
            return Ok((exprs, input));
        };
        let picks = |exprs: &[Arc<dyn PhysicalExpr>]| exprs.iter().all(|e| column_of(e).is_some());
        let (Some(node), true) = (inputs.first(), picks(&exprs) || picks(&below.exprs)) else {
            return Ok((exprs, input));
        };
        let merged = exprs.into_iter().map(|expr| {
            expr.transform_up(|expr| match column_of(&expr).and_then(|idx| below.exprs.get(idx)) {
                Some(inner) => Ok(Transformed::yes(inner.clone())),
                None => Ok(Transformed::no(expr)),
            })
        });
        let merged: Result<Vec<_>, _> = merged.map(|t| t.map(|t| t.data)).collect();
        // The names of the columns in between are gone; nobody asks for them any more.
        let relation = Relation { node: *node, columns: input.columns.clone() };
        Ok((merged.map_err(|e| planning_error(e, self.text))?, relation))
    }

    /// Below window functions that nobody reads: their rows are those of their input.
    fn without_unread_window(&self, exprs: &[Arc<dyn PhysicalExpr>], mut input: Relation) -> Relation {
        while let Some(Node { kind: NodeKind::Operator(Plan::Window(window)), inputs, .. }) = self.nodes.get(input.node)
            && let Some(below) = inputs.first()
        {
            let n_columns = window.schema.fields().len() - window.calls.len().min(window.schema.fields().len());
            let reads = |e: &Arc<dyn PhysicalExpr>| collect_columns(e).iter().any(|c| c.index() >= n_columns);
            if exprs.iter().any(reads) {
                break;
            }
            input.node = *below;
        }
        input
    }

    /// The indices of `exprs` among the relation's columns; computes those that are not there behind the others.
    fn columns(&mut self, input: Relation, exprs: &[&Expr]) -> Result<(Relation, Vec<usize>)> {
        let plain = |e: &Expr, columns: &DFSchema| match unaliased(e) {
            Expr::Column(column) => columns.maybe_index_of_column(column),
            _ => None,
        };
        let mut all: Vec<Expr> = input.columns.iter().map(Expr::from).collect();
        let mut fields = qualified(&input.columns);
        let mut indices = vec![];
        for expr in exprs {
            match plain(expr, &input.columns) {
                Some(idx) => indices.push(idx),
                None => {
                    let expr = unaliased(expr);
                    let physical = self.physical(expr, &input.columns)?;
                    let schema = self.schema(&input);
                    let data_type = physical.data_type(&schema).map_err(|e| planning_error(e, self.text))?;
                    indices.push(all.len());
                    all.push(expr.clone());
                    fields.push((None, Arc::new(Field::new(self.hidden(), data_type, true))));
                }
            }
        }
        let relation =
            if all.len() == input.columns.fields().len() { input } else { self.project(&input, &all, fields)? };
        Ok((relation, indices))
    }

    fn filter(&mut self, predicate: &Expr, input: Relation) -> Result<Relation> {
        let (mut exprs, input) = self.with_scalars(vec![predicate.clone()], input)?;
        let predicate = exprs.pop().unwrap_or_else(|| lit(true));
        self.filtered(predicate, input)
    }

    fn filtered(&mut self, predicate: Expr, input: Relation) -> Result<Relation> {
        let (mut exprs, input) = self.asserted(vec![predicate], input)?;
        let predicate = exprs.pop().unwrap_or_else(|| lit(true));
        let predicate = self.physical(&predicate, &input.columns)?;
        let schema = self.schema(&input);
        let plan = Plan::Filter(filter::Filter { predicate, schema: schema.clone() });
        let properties = self.properties(&input);
        let node = self.push(NodeKind::Operator(plan), vec![input.node], schema, properties);
        Ok(Relation { node, columns: input.columns })
    }

    /// The same rows under another name.
    fn alias(&mut self, alias: &SubqueryAlias, input: Relation) -> Result<Relation> {
        let mut fields = qualified(&input.columns);
        for (qualifier, field) in &mut fields {
            // What the alias does not name cannot be seen from outside.
            *qualifier = None;
            if self.is_number(field) {
                continue;
            }
            *field = Arc::new(field.as_ref().clone().with_name(self.hidden()));
        }
        for (idx, (qualifier, field)) in alias.schema.iter().enumerate() {
            let (inner_qualifier, inner) = alias.input.schema().qualified_field(idx);
            let column = Column::new(inner_qualifier.cloned(), inner.name());
            let position = self.index_of(&column, &input.columns)?;
            if let Some(slot) = fields.get_mut(position) {
                *slot = (qualifier.cloned(), field.clone());
            }
        }
        Ok(Relation { node: input.node, columns: dfschema(fields)? })
    }

    fn union(&mut self, union: &Union) -> Result<Relation> {
        let fields = qualified(&union.schema);
        let mut inputs = vec![];
        for input in &union.inputs {
            let relation = self.lower(input)?;
            if self.number_of(&relation.columns).is_some() {
                return Err(not_maintained("UNION inside a recursive term"));
            }
            inputs.push(self.by_position(relation, input.schema(), &fields)?);
        }
        let columns = match fields.is_empty() {
            true => dfschema(vec![(None, Arc::new(Field::new(self.hidden(), DataType::Boolean, true)))])?,
            false => dfschema(fields)?,
        };
        let schema = nullable(columns.as_arrow());
        let all: Vec<_> = inputs.iter().map(|r| self.properties(r)).collect();
        let plan = Plan::Union(union::Union { schema: schema.clone() });
        let nodes = inputs.iter().map(|r| r.node).collect();
        let node = self.push(NodeKind::Operator(plan), nodes, schema, Properties::union(all.iter()));
        Ok(Relation { node, columns })
    }

    /// Exactly the columns of `plan`, in its order, with the types of `fields`.
    fn by_position(
        &mut self,
        input: Relation,
        plan: &DFSchema,
        fields: &[(Option<TableReference>, FieldRef)],
    ) -> Result<Relation> {
        if fields.is_empty() {
            let hidden = Arc::new(Field::new(self.hidden(), DataType::Boolean, true));
            return self.project(&input, &[lit(true)], vec![(None, hidden)]);
        }
        let mut same = plan.fields().len() == input.columns.fields().len();
        let mut exprs = vec![];
        for ((idx, (qualifier, field)), (_, target)) in plan.iter().enumerate().zip(fields) {
            let column = Column::new(qualifier.cloned(), field.name());
            same &= self.index_of(&column, &input.columns)? == idx && field.data_type() == target.data_type();
            let expr = Expr::Column(column);
            exprs.push(match field.data_type() == target.data_type() {
                true => expr,
                false => datafusion::logical_expr::cast(expr, target.data_type().clone()),
            });
        }
        if same { Ok(input) } else { self.project(&input, &exprs, fields.to_vec()) }
    }

    /// The view itself: exactly `schema`.
    fn output(&mut self, input: Relation, plan: &DFSchema, schema: &SchemaRef) -> Result<Relation> {
        let fields: Vec<_> = schema.fields().iter().map(|f| (None, f.clone())).collect();
        let input = self.by_position(input, plan, &fields)?;
        if self.schema(&input) == *schema {
            return Ok(input);
        }
        if let Some(Node { kind: NodeKind::Operator(Plan::Project(top)), schema: present, .. }) =
            self.nodes.get_mut(input.node)
            && present.fields().len() == schema.fields().len()
        {
            // Names and metadata only.
            top.schema = schema.clone();
            *present = schema.clone();
            return Ok(Relation { node: input.node, columns: dfschema(fields)? });
        }
        let exprs: Vec<_> = plan.columns().into_iter().map(Expr::Column).collect();
        self.project(&input, &exprs, fields)
    }

    // Scalar subqueries.

    /// Joins the values of uncorrelated scalar subqueries to the input, and puts columns in their place.
    fn with_scalars(&mut self, exprs: Vec<Expr>, mut input: Relation) -> Result<(Vec<Expr>, Relation)> {
        let mut found: Vec<Scalar> = vec![];
        let mut replaced = vec![];
        for expr in exprs {
            let mut failed = None;
            let expr = expr.transform_down(|expr| {
                let Expr::ScalarSubquery(subquery) = &expr else { return Ok(Transformed::no(expr)) };
                if !subquery.outer_ref_columns.is_empty() {
                    failed = Some(not_maintained("this correlated subquery"));
                    return Ok(Transformed::no(expr));
                }
                let plan = subquery.subquery.as_ref();
                if let Some(present) = found.iter().find(|scalar| scalar.plan == *plan) {
                    return Ok(Transformed::yes(present.expr()));
                }
                let mut column = || Column::from_name(self.hidden());
                let (value, n_rows) = (column(), (!at_most_one(plan)).then(column));
                let scalar = Scalar { plan: plan.clone(), value, n_rows };
                let value = scalar.expr();
                found.push(scalar);
                Ok(Transformed::yes(value))
            });
            replaced.push(expr.map_err(|e| planning_error(e, self.text))?.data);
            if let Some(error) = failed {
                return Err(error);
            }
        }
        for scalar in found {
            input = self.with_scalar(scalar, input)?;
        }
        Ok((replaced, input))
    }

    fn with_scalar(&mut self, scalar: Scalar, input: Relation) -> Result<Relation> {
        let Scalar { plan, value, n_rows } = scalar;
        let plan = self.optimize(plan)?;
        let scalar = self.lower(&plan)?;
        let field = plan.schema().field(0).as_ref().clone();
        let field = Arc::new(field.with_name(&value.name).with_nullable(true));
        let scalar = self.by_position_named(scalar, plan.schema(), vec![(None, field)])?;
        let count = n_rows.as_ref().map(|n_rows| (None, Arc::new(Field::new(&n_rows.name, DataType::Int64, true))));
        let columns = dfschema(qualified(&scalar.columns).into_iter().chain(count).collect())?;
        let schema = nullable(columns.as_arrow());
        let single = Plan::SingleRow(single_row::SingleRow { counts: n_rows.is_some(), schema: schema.clone() });
        let properties = Properties::new(false, vec![vec![]]);
        let node = self.push(NodeKind::Operator(single), vec![scalar.node], schema, properties);
        self.cross(input, Relation { node, columns })
    }

    /// Where `exprs` ask for values of subqueries that may have several rows: the rows for which all of these have one,
    /// and what the expressions are of them.
    fn asserted(&mut self, exprs: Vec<Expr>, input: Relation) -> Result<(Vec<Expr>, Relation)> {
        let failed = |e| planning_error(e, self.text);
        let found = exprs.iter().filter_map(|expr| asked(expr).transpose()).collect::<Result<Vec<_>, _>>();
        let Some(violated) = found.map_err(failed)?.into_iter().reduce(Expr::or) else { return Ok((exprs, input)) };
        let exprs = exprs.into_iter().map(given).collect::<Result<_, _>>().map_err(failed)?;
        let violated = self.physical(&violated, &input.columns)?;
        let schema = self.schema(&input);
        let plan = Plan::Assert(assert::Assert { violated, schema: schema.clone() });
        let properties = self.properties(&input);
        let node = self.push(NodeKind::Operator(plan), vec![input.node], schema, properties);
        Ok((exprs, Relation { node, columns: input.columns }))
    }

    fn by_position_named(
        &mut self,
        input: Relation,
        plan: &DFSchema,
        fields: Vec<(Option<TableReference>, FieldRef)>,
    ) -> Result<Relation> {
        let relation = self.by_position(input, plan, &fields)?;
        Ok(Relation { node: relation.node, columns: dfschema(fields)? })
    }

    // Nodes.

    fn push(&mut self, kind: NodeKind, inputs: Vec<NodeId>, schema: SchemaRef, properties: Properties) -> NodeId {
        let node = Node { kind, inputs, schema, properties };
        if let Some(present) = self.nodes.iter().position(|present| is_equal_node(present, &node)) {
            return present;
        }
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn schema(&self, relation: &Relation) -> SchemaRef {
        self.nodes.get(relation.node).map_or_else(|| Arc::new(Schema::empty()), |n| n.schema.clone())
    }

    fn properties(&self, relation: &Relation) -> Properties {
        self.nodes.get(relation.node).map(|n| n.properties.clone()).unwrap_or_default()
    }

    fn physical(&self, expr: &Expr, columns: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        check_maintained(expr)?;
        let props = self.state.execution_props();
        create_physical_expr(expr, columns, props, &PhysicalPlanningContext::default())
            .map_err(|e| planning_error(e, self.text))
    }

    fn index_of(&self, column: &Column, columns: &DFSchema) -> Result<usize> {
        columns.index_of_column(column).map_err(|e| planning_error(e, self.text))
    }

    /// A name that no user's column has.
    fn hidden(&mut self) -> String {
        self.n_hidden += 1;
        hidden_name(self.n_hidden)
    }
}

fn hidden_name(n: usize) -> String {
    format!("$\u{1}{n}")
}

fn lit_array() -> Result<ArrayRef> {
    Ok(Arc::new(arrow::array::BooleanArray::from(vec![true])))
}

/// A column to stand for rows whose values nobody reads.
fn narrowest_column(object: &Object) -> Vec<usize> {
    let width = |f: &FieldRef| f.data_type().primitive_width().unwrap_or(usize::MAX);
    object.schema.fields().iter().enumerate().min_by_key(|(_, f)| width(f)).map(|(idx, _)| idx).into_iter().collect()
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(Alias { expr, .. }) => unaliased(expr),
        other => other,
    }
}

fn column_of(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expr.downcast_ref::<physical::Column>().map(physical::Column::index)
}

fn qualified(schema: &DFSchema) -> Vec<(Option<TableReference>, FieldRef)> {
    schema.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect()
}

/// All fields nullable: a row's presence in a dataflow says nothing about NOT NULL.
fn dfschema(fields: Vec<(Option<TableReference>, FieldRef)>) -> Result<Arc<DFSchema>> {
    let fields = fields.into_iter().map(|(q, f)| (q, Arc::new(f.as_ref().clone().with_nullable(true)))).collect();
    DFSchema::new_with_metadata(fields, HashMap::new()).map(Arc::new).map_err(|e| planning_error(e, ""))
}

fn nullable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|f| f.as_ref().clone().with_name(visible(f.name())).with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Drops nodes that the last one does not need (a subplan that a rule made superfluous).
fn reachable(nodes: Vec<Node>, root: NodeId) -> Vec<Node> {
    let mut needed = vec![false; nodes.len()];
    let mut stack = vec![root];
    while let Some(id) = stack.pop() {
        if let Some(flag @ false) = needed.get_mut(id) {
            *flag = true;
            stack.extend(nodes.get(id).into_iter().flat_map(|n| n.inputs.iter().copied()));
        }
    }
    let mut renamed = HashMap::new();
    let mut kept: Vec<Node> = vec![];
    let mut last = None;
    for (id, mut node) in nodes.into_iter().enumerate() {
        if needed.get(id) != Some(&true) {
            continue;
        }
        node.inputs = node.inputs.iter().filter_map(|input| renamed.get(input).copied()).collect();
        if id == root {
            last = Some(node);
        } else {
            renamed.insert(id, kept.len());
            kept.push(node);
        }
    }
    kept.extend(last);
    kept
}

fn not_maintained(what: &str) -> SqlError {
    SqlError::unsupported(format!("{what} in a materialized view"))
}

/// Expressions that the rules left because they cannot plan them.
fn check_maintained(expr: &Expr) -> Result<()> {
    let mut refused = None;
    let walked = expr.apply(|expr| {
        use datafusion::common::tree_node::TreeNodeRecursion;
        refused = match expr {
            Expr::Exists(_) => Some("EXISTS here"),
            Expr::InSubquery(_) => Some("IN (SELECT ..) here"),
            Expr::ScalarSubquery(_) => Some("a scalar subquery here"),
            Expr::SetComparison(_) => Some("ANY or ALL (SELECT ..)"),
            Expr::OuterReferenceColumn(..) => Some("this correlated subquery"),
            Expr::WindowFunction(_) => Some("a window function"),
            Expr::Unnest(_) => Some("unnest()"),
            Expr::Placeholder(_) => Some("a parameter"),
            // Of arrays these are functions by now.
            Expr::BinaryExpr(binary) if matches!(binary.op, Operator::AtArrow | Operator::ArrowAt) => {
                Some("@> or <@ of these types")
            }
            _ => None,
        };
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.map_err(tidewire_operators::expr::sql_error)?;
    refused.map_or(Ok(()), |what| Err(not_maintained(what)))
}

fn node_name(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::Unnest(_) => "unnest()",
        LogicalPlan::Subquery(_) => "this LATERAL subquery",
        LogicalPlan::Repartition(_) => "DISTRIBUTE BY",
        LogicalPlan::Extension(_) => "an extension",
        _ => "this statement",
    }
}
