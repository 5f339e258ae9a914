//! Set-returning functions in the SELECT list, as PostgreSQL runs them: behind grouping and windows, all that stand
//! side by side in lock step, those inside the arguments of others first.
//!
//! A call in FROM is rewritten to a LATERAL subquery that has it in its SELECT list ([`from`]), and such subqueries
//! become part of the query around them ([`lateral`]). Invariant: no [marker](crate::functions::sets) is left.

pub(crate) mod from;
mod lateral;
pub(crate) mod record;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, Projection};
use tidewire_types::{SqlError, SqlState, SqlType};

use crate::flat_map::{Call, FlatMap};
use crate::functions::sets::{self, ORDINALITY};
use crate::provider::to_datafusion;
use crate::set_operation;

/// Puts [`FlatMap`]s in the place of all markers of an analyzed plan. Errors: `0A000` where no set may stand.
pub(crate) fn plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut names = Names(0);
    let planned = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Projection(projection) => of_projection(projection, &mut names),
        LogicalPlan::Aggregate(aggregate) => of_aggregate(aggregate, &mut names),
        LogicalPlan::SubqueryAlias(alias) => set_operation::plan(alias),
        LogicalPlan::Join(join) => {
            check_join(&join.filter)?;
            lateral::of_join(join, &mut names)
        }
        other => {
            check(&other)?;
            Ok(Transformed::no(other))
        }
    })?;
    Ok(planned.data)
}

/// Hidden names for the columns of calls.
struct Names(usize);

impl Names {
    fn next(&mut self, name: &str) -> String {
        self.0 += 1;
        format!("{name}\u{1}set{}", self.0)
    }
}

fn has_marker(expr: &Expr) -> bool {
    expr.exists(|e| Ok(sets::marked_call(e).is_some())).unwrap_or(false)
}

fn of_projection(projection: Projection, names: &mut Names) -> Result<Transformed<LogicalPlan>> {
    if !projection.expr.iter().any(has_marker) {
        return Ok(Transformed::no(LogicalPlan::Projection(projection)));
    }
    let preserver = NamePreserver::new_for_projection();
    let saved: Vec<_> = projection.expr.iter().map(|e| preserver.save(e)).collect();
    let (exprs, input) = expand(projection.expr, projection.input, names)?;
    let exprs = exprs.into_iter().zip(saved).map(|(expr, name)| name.restore(expr)).collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(exprs, input)?)))
}

/// `GROUP BY unnest(xs)`: the groups are those of the rows that it makes.
fn of_aggregate(aggregate: Aggregate, names: &mut Names) -> Result<Transformed<LogicalPlan>> {
    if aggregate.aggr_expr.iter().any(has_marker) {
        return Err(not_here("aggregate function calls cannot contain set-returning function calls", true));
    }
    if !aggregate.group_expr.iter().any(has_marker) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    if aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
        return Err(to_datafusion(SqlError::unsupported("a set-returning function in GROUPING SETS")));
    }
    let preserver = NamePreserver::new_for_projection();
    let saved: Vec<_> = aggregate.group_expr.iter().map(|e| preserver.save(e)).collect();
    let (group, input) = expand(aggregate.group_expr, aggregate.input, names)?;
    let group = group.into_iter().zip(saved).map(|(expr, name)| name.restore(expr)).collect();
    Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(input, group, aggregate.aggr_expr)?)))
}

/// Makes columns of all calls in `exprs`, level by level.
fn expand(
    mut exprs: Vec<Expr>,
    mut input: Arc<LogicalPlan>,
    names: &mut Names,
) -> Result<(Vec<Expr>, Arc<LogicalPlan>)> {
    while exprs.iter().any(has_marker) {
        let mut level = Level { schema: input.schema().as_ref().clone(), calls: vec![], ordinality: None, names };
        exprs = exprs.into_iter().map(|expr| level.take(expr)).collect::<Result<_>>()?;
        let Level { calls, ordinality, .. } = level;
        if ordinality.is_some() && exprs.iter().any(has_marker) {
            return Err(not_here("set-returning functions must appear at top level of FROM", false));
        }
        input = Arc::new(FlatMap::new(input, calls, ordinality)?.into_plan());
    }
    Ok((exprs, input))
}

/// The calls whose arguments have no calls.
struct Level<'a> {
    schema: DFSchema,
    calls: Vec<Call>,
    ordinality: Option<String>,
    names: &'a mut Names,
}

impl Level<'_> {
    fn take(&mut self, expr: Expr) -> Result<Expr> {
        let taken = expr.transform_down(|expr| {
            check_inside(&expr)?;
            let Some(call) = sets::marked_call(&expr) else { return Ok(Transformed::no(expr)) };
            if call.args.iter().any(has_marker) {
                return Ok(Transformed::no(expr));
            }
            let name = if call.name == ORDINALITY {
                self.ordinality.get_or_insert_with(|| self.names.next("ordinality")).clone()
            } else {
                self.column(&call)?
            };
            Ok(Transformed::new(Expr::Column(Column::from_name(name)), true, TreeNodeRecursion::Jump))
        })?;
        Ok(taken.data)
    }

    /// The column of a call, which is made once for all equal ones.
    fn column(&mut self, marked: &sets::MarkedCall<'_>) -> Result<String> {
        let mut types = vec![];
        for arg in marked.args {
            types.push(SqlType::of(&arg.to_field(&self.schema)?.1));
        }
        let function = sets::resolve(marked.name, &types, marked.column.is_none()).map_err(to_datafusion)?;
        let same = |call: &&Call| {
            call.args == marked.args
                && call.function.name() == marked.name
                && call.function.fields() == function.fields()
        };
        let idx = function.fields().iter().position(|f| marked.column.is_none_or(|name| f.name() == name)).unwrap_or(0);
        if let Some(name) = self.calls.iter().find(same).and_then(|call| call.names.get(idx)) {
            return Ok(name.clone());
        }
        let names: Vec<String> = function.fields().iter().map(|f| self.names.next(f.name())).collect();
        let name = names.get(idx).cloned().unwrap_or_default();
        self.calls.push(Call { function, args: marked.args.to_vec(), names });
        Ok(name)
    }
}

fn not_here(message: &str, movable: bool) -> datafusion::common::DataFusionError {
    let error = SqlError::new(SqlState::FeatureNotSupported, message);
    to_datafusion(match movable {
        true => error.with_hint("You might be able to move the set-returning function into a LATERAL FROM item."),
        false => error,
    })
}

/// What is computed for some rows only cannot contain sets.
fn check_inside(expr: &Expr) -> Result<()> {
    let place = match expr {
        Expr::Case(_) => "CASE",
        Expr::ScalarFunction(call) if call.func.name() == "coalesce" => "COALESCE",
        _ => return Ok(()),
    };
    match has_marker(expr) {
        true => Err(not_here(&format!("set-returning functions are not allowed in {place}"), true)),
        false => Ok(()),
    }
}

fn check_join(filter: &Option<Expr>) -> Result<()> {
    match filter.as_ref().is_some_and(has_marker) {
        true => Err(not_here("set-returning functions are not allowed in JOIN conditions", false)),
        false => Ok(()),
    }
}

fn check(plan: &LogicalPlan) -> Result<()> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found |= has_marker(expr);
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !found {
        return Ok(());
    }
    let place = match plan {
        LogicalPlan::Filter(filter) => match filter.input.as_ref() {
            LogicalPlan::Aggregate(_) => "HAVING",
            _ => "WHERE",
        },
        LogicalPlan::Values(_) => "VALUES",
        LogicalPlan::Limit(_) => "LIMIT",
        LogicalPlan::Window(_) => {
            return Err(not_here("window function calls cannot contain set-returning function calls", true));
        }
        LogicalPlan::Sort(_) => "this ORDER BY",
        _ => "this clause",
    };
    Err(not_here(&format!("set-returning functions are not allowed in {place}"), false))
}
