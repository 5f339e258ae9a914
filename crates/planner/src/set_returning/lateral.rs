//! LATERAL subqueries over set-returning functions become part of the query around them.
//!
//! `t, LATERAL (SELECT f(x) + 1 AS y FROM unnest(t.xs) AS x WHERE x > t.a)` computes each of its rows from one row of
//! `t`: its projections, filters and calls are put on top of `t`, and the references to `t` become plain columns. With
//! LEFT JOIN the call itself keeps the rows of `t` that nothing comes of.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, JoinType, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    EmptyRelation, Expr, Filter, Join, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, Union, when,
};

use super::Names;
use crate::flat_map::{Call, FlatMap};

/// A join whose right side is such a subquery, as a plan without a subquery and with the same columns.
pub(super) fn of_join(join: Join, names: &mut Names) -> Result<Transformed<LogicalPlan>> {
    let is_ours = matches!(join.join_type, JoinType::Inner | JoinType::Left) && is_lateral(&join.right)?;
    let planned = match is_ours {
        true => Attach { base: join.left.schema().as_ref().clone(), before: vec![], names }.join(&join)?,
        false => None,
    };
    Ok(match planned {
        Some(plan) => Transformed::yes(plan),
        None => Transformed::no(LogicalPlan::Join(join)),
    })
}

/// Whether there is a lateral subquery in it that only calls functions.
fn is_lateral(plan: &LogicalPlan) -> Result<bool> {
    let (mut is_subquery, mut calls, mut scans) = (false, false, false);
    plan.apply(|node| {
        is_subquery |= matches!(node, LogicalPlan::Subquery(_));
        scans |= matches!(node, LogicalPlan::TableScan(_));
        calls |= FlatMap::of(node).is_some();
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(is_subquery && (calls || !scans))
}

fn is_correlated(plan: &LogicalPlan) -> Result<bool> {
    let found = plan.apply_with_subqueries(|node| {
        Ok(if node.contains_outer_reference() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found == TreeNodeRecursion::Stop)
}

/// A plan on top of another one.
struct Attached {
    plan: LogicalPlan,
    /// The value of each of the plan's columns, over the columns of `plan` here.
    exprs: Vec<Expr>,
    /// Conditions that are still to be applied.
    pending: Vec<Expr>,
    /// What was put on top: nothing, one call, or more than a left join can have.
    steps: Steps,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Steps {
    None,
    OneCall,
    More,
}

impl Attached {
    /// The plan with its conditions applied.
    fn filtered(self) -> Result<LogicalPlan> {
        match conjunction(self.pending) {
            None => Ok(self.plan),
            Some(predicate) => Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(self.plan))?)),
        }
    }
}

struct Attach<'a> {
    /// The columns that the subquery refers to.
    base: DFSchema,
    /// What stands before a LATERAL item inside of it, the outermost first: its columns, and their values.
    before: Vec<(DFSchema, Vec<Expr>)>,
    names: &'a mut Names,
}

impl Attach<'_> {
    fn join(&mut self, join: &Join) -> Result<Option<LogicalPlan>> {
        let Some(attached) = self.attach(&join.right, join.left.as_ref().clone())? else { return Ok(None) };
        let on = join.on.iter().map(|(left, right)| left.clone().eq(right.clone()));
        let condition = conjunction(on.chain(join.filter.clone()));
        let left: Vec<Expr> = join.left.schema().columns().into_iter().map(Expr::Column).collect();
        let n_left = left.len();
        let (plan, right, condition) = match join.join_type {
            JoinType::Inner => {
                let right = attached.exprs.clone();
                (attached.filtered()?, right, condition)
            }
            _ if attached.steps != Steps::OneCall => return Ok(None),
            _ => {
                let values: Vec<Expr> = left.iter().cloned().chain(attached.exprs.iter().cloned()).collect();
                let condition = condition.map(|c| self.substitute(c, &join.schema, &values)).transpose()?;
                let Some(condition) = transpose(condition) else { return Ok(None) };
                let (plan, right) = self.outer(attached, condition)?;
                (plan, right, None)
            }
        };
        let right = right.into_iter().zip(join.schema.iter().skip(n_left));
        let right = right.map(|(expr, (qualifier, field))| expr.alias_qualified(qualifier.cloned(), field.name()));
        let plan = Projection::try_new(left.into_iter().chain(right).collect(), Arc::new(plan))?;
        let plan = LogicalPlan::Projection(plan);
        Ok(Some(match condition {
            None => plan,
            Some(condition) => LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?),
        }))
    }

    /// One call as a left join; values that are no columns of the call are NULL where it returned nothing.
    fn outer(&mut self, attached: Attached, condition: Option<Expr>) -> Result<(LogicalPlan, Vec<Expr>)> {
        let Some(node) = FlatMap::of(&attached.plan).cloned() else { return Err(lost()) };
        let filter = conjunction(attached.pending.into_iter().chain(condition));
        let own = node.own_fields();
        let is_own = |expr: &Expr| matches!(expr, Expr::Column(c) if own.iter().any(|f| *f.name() == c.name));
        let number = node.ordinality.clone().unwrap_or_else(|| self.names.next("ordinality"));
        let is_there = Expr::Column(Column::from_name(&number)).is_not_null();
        let mut exprs = vec![];
        for expr in attached.exprs {
            exprs.push(if is_own(&expr) { expr } else { when(is_there.clone(), expr).end()? });
        }
        let calls = node.calls.clone();
        Ok((FlatMap::new(node.input, calls, Some(number))?.outer(filter).into_plan(), exprs))
    }

    /// `plan` on top of `onto`. None: it has parts that cannot be computed row by row.
    fn attach(&mut self, plan: &LogicalPlan, onto: LogicalPlan) -> Result<Option<Attached>> {
        match plan {
            LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, .. }) => {
                Ok(Some(Attached { plan: onto, exprs: vec![], pending: vec![], steps: Steps::None }))
            }
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => self.attach(input, onto),
            LogicalPlan::Subquery(subquery) => self.attach(&subquery.subquery, onto),
            plan if !is_correlated(plan)? && FlatMap::of(plan).is_none() && has_rows_of_its_own(plan)? => {
                self.cross(plan, onto).map(Some)
            }
            LogicalPlan::Projection(projection) => {
                let Some(mut below) = self.attach(&projection.input, onto)? else { return Ok(None) };
                let mut exprs = vec![];
                for expr in &projection.expr {
                    let expr = expr.clone().unalias();
                    match self.substitute(expr, projection.input.schema(), &below.exprs)? {
                        Some(expr) => exprs.push(expr),
                        None => return Ok(None),
                    }
                }
                below.exprs = exprs;
                Ok(Some(below))
            }
            LogicalPlan::Filter(filter) => {
                let Some(mut below) = self.attach(&filter.input, onto)? else { return Ok(None) };
                let predicate = self.substitute(filter.predicate.clone(), filter.input.schema(), &below.exprs)?;
                let Some(predicate) = predicate else { return Ok(None) };
                below.pending.push(predicate);
                Ok(Some(below))
            }
            LogicalPlan::Join(join) if matches!(join.join_type, JoinType::Inner | JoinType::Left) => {
                self.attach_join(join, onto)
            }
            LogicalPlan::Union(union) => self.attach_union(union, onto),
            plan => match FlatMap::of(plan) {
                Some(node) => self.attach_calls(node, onto),
                None => Ok(None),
            },
        }
    }

    fn attach_calls(&mut self, node: &FlatMap, onto: LogicalPlan) -> Result<Option<Attached>> {
        let Some(below) = self.attach(&node.input, onto)? else { return Ok(None) };
        let mut calls = vec![];
        for call in &node.calls {
            let args = call.args.iter().cloned();
            let args = args.map(|arg| self.substitute(arg, node.input.schema(), &below.exprs));
            let Some(args) = args.collect::<Result<Option<Vec<_>>>>()? else { return Ok(None) };
            let names = call.function.fields().iter().map(|f| self.names.next(f.name())).collect();
            calls.push(Call { function: call.function.clone(), args, names });
        }
        let ordinality = node.ordinality.is_some().then(|| self.names.next("ordinality"));
        let mut exprs = vec![];
        for column in &node.kept {
            let idx = node.input.schema().index_of_column(column)?;
            exprs.push(below.exprs.get(idx).cloned().ok_or_else(lost)?);
        }
        let own = calls.iter().flat_map(|call| &call.names).chain(&ordinality);
        exprs.extend(own.map(|name| Expr::Column(Column::from_name(name))));
        let is_first = below.steps == Steps::None && below.pending.is_empty() && !node.outer;
        let mut above = FlatMap::new(Arc::new(below.filtered()?), calls, ordinality)?;
        if node.outer {
            let schema = datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(node);
            let filter = node.filter.clone().map(|f| self.substitute(f, schema, &exprs)).transpose()?;
            let Some(filter) = transpose(filter) else { return Ok(None) };
            above = above.outer(filter);
        }
        let steps = if is_first { Steps::OneCall } else { Steps::More };
        Ok(Some(Attached { plan: above.into_plan(), exprs, pending: vec![], steps }))
    }

    fn attach_join(&mut self, join: &Join, onto: LogicalPlan) -> Result<Option<Attached>> {
        let Some(left) = self.attach(&join.left, onto)? else { return Ok(None) };
        let mut exprs = left.exprs.clone();
        let left = left.filtered()?;
        let on = join.on.iter().map(|(l, r)| l.clone().eq(r.clone()));
        let condition = conjunction(on.chain(join.filter.clone()));
        let is_correlated = is_correlated(&join.right)?;
        let (plan, right) = match join.join_type {
            JoinType::Inner => {
                self.before.push((join.left.schema().as_ref().clone(), exprs.clone()));
                let right = self.attach(&join.right, left)?;
                self.before.pop();
                let Some(right) = right else { return Ok(None) };
                let exprs = right.exprs.clone();
                (right.filtered()?, exprs)
            }
            _ if is_correlated => return Ok(None),
            _ => {
                let (right, columns) = self.renamed(&join.right)?;
                exprs.extend(columns);
                let condition = condition.map(|c| self.substitute(c, &join.schema, &exprs)).transpose()?;
                let Some(condition) = transpose(condition) else { return Ok(None) };
                let plan = LogicalPlanBuilder::from(left).join_on(right, join.join_type, condition)?.build()?;
                return Ok(Some(Attached { plan, exprs, pending: vec![], steps: Steps::More }));
            }
        };
        exprs.extend(right);
        let condition = condition.map(|c| self.substitute(c, &join.schema, &exprs)).transpose()?;
        let Some(condition) = transpose(condition) else { return Ok(None) };
        Ok(Some(Attached { plan, exprs, pending: condition.into_iter().collect(), steps: Steps::More }))
    }

    /// Each part of a union on top of its own copy: LATERAL (VALUES ..).
    fn attach_union(&mut self, union: &Union, onto: LogicalPlan) -> Result<Option<Attached>> {
        let mut next_names =
            |schema: &DFSchema| -> Vec<String> { schema.fields().iter().map(|f| self.names.next(f.name())).collect() };
        let (base_names, own_names) = (next_names(onto.schema()), next_names(&union.schema));
        let base: Vec<Expr> = onto.schema().columns().into_iter().map(Expr::Column).collect();
        let mut all: Option<LogicalPlanBuilder> = None;
        for input in &union.inputs {
            let Some(attached) = self.attach(input, onto.clone())? else { return Ok(None) };
            let exprs: Vec<Expr> = base.iter().chain(&attached.exprs).cloned().collect();
            let named = exprs.into_iter().zip(base_names.iter().chain(&own_names)).map(|(e, name)| e.alias(name));
            let part = LogicalPlanBuilder::from(attached.filtered()?).project(named.collect::<Vec<_>>())?;
            all = Some(match all {
                None => part,
                Some(all) => all.union(part.build()?)?,
            });
        }
        let Some(all) = all else { return Ok(None) };
        let column = |name: &String| Expr::Column(Column::from_name(name));
        let base = base_names.iter().zip(onto.schema().iter());
        let base = base.map(|(name, (q, field))| column(name).alias_qualified(q.cloned(), field.name()));
        let exprs: Vec<Expr> = own_names.iter().map(column).collect();
        let plan = all.project(base.chain(exprs.iter().cloned()).collect::<Vec<_>>())?.build()?;
        Ok(Some(Attached { plan, exprs, pending: vec![], steps: Steps::More }))
    }

    /// Every row of `onto` with every row of `plan`.
    fn cross(&mut self, plan: &LogicalPlan, onto: LogicalPlan) -> Result<Attached> {
        let (right, exprs) = self.renamed(plan)?;
        let plan = LogicalPlanBuilder::from(onto).cross_join(right)?.build()?;
        Ok(Attached { plan, exprs, pending: vec![], steps: Steps::More })
    }

    /// The plan under names that clash with no others.
    fn renamed(&mut self, plan: &LogicalPlan) -> Result<(LogicalPlan, Vec<Expr>)> {
        let names: Vec<String> = plan.schema().fields().iter().map(|f| self.names.next(f.name())).collect();
        let columns = plan.schema().columns().into_iter().zip(&names);
        let columns: Vec<Expr> = columns.map(|(column, name)| Expr::Column(column).alias(name)).collect();
        let renamed = LogicalPlanBuilder::from(plan.clone()).project(columns)?.build()?;
        Ok((renamed, names.iter().map(|name| Expr::Column(Column::from_name(name))).collect()))
    }

    /// The value of a column that is referred to. None: it is of a query further out.
    fn value(&self, column: &Column) -> Result<Option<Expr>> {
        for (schema, values) in self.before.iter().rev() {
            if schema.has_column(column) {
                return values.get(schema.index_of_column(column)?).cloned().map(Some).ok_or_else(lost);
            }
        }
        Ok(self.base.has_column(column).then(|| Expr::Column(column.clone())))
    }

    /// `expr`, over the columns of `schema`, with the values of those columns in their place, and with columns for
    /// references to the base. None: there is a subquery in it.
    fn substitute(&self, expr: Expr, schema: &DFSchema, values: &[Expr]) -> Result<Option<Expr>> {
        let mut has_subquery = false;
        let substituted = expr.transform_up(|expr| match expr {
            Expr::Column(column) => {
                let value = values.get(schema.index_of_column(&column)?).cloned().ok_or_else(lost)?;
                Ok(Transformed::yes(value))
            }
            Expr::OuterReferenceColumn(field, column) => Ok(match self.value(&column)? {
                Some(value) => Transformed::yes(value),
                None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
            }),
            expr => {
                has_subquery |= matches!(
                    expr,
                    Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_)
                );
                Ok(Transformed::no(expr))
            }
        })?;
        Ok((!has_subquery).then_some(substituted.data))
    }
}

/// Whether it is more than functions of nothing.
fn has_rows_of_its_own(plan: &LogicalPlan) -> Result<bool> {
    let row_wise = plan.apply(|node| {
        let is_row_wise = matches!(
            node,
            LogicalPlan::Projection(_)
                | LogicalPlan::Filter(_)
                | LogicalPlan::SubqueryAlias(_)
                | LogicalPlan::Subquery(_)
                | LogicalPlan::EmptyRelation(_)
                | LogicalPlan::Union(_)
        ) || FlatMap::of(node).is_some();
        Ok(if is_row_wise { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(row_wise == TreeNodeRecursion::Stop)
}

/// None: nothing to do it with. Some(None): there is no condition.
fn transpose(condition: Option<Option<Expr>>) -> Option<Option<Expr>> {
    match condition {
        None => Some(None),
        Some(None) => None,
        Some(condition) => Some(condition),
    }
}

fn lost() -> DataFusionError {
    DataFusionError::Internal("a column of a LATERAL subquery is lost".into())
}
