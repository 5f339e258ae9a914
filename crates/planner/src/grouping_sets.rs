//! GROUPING SETS, ROLLUP and CUBE as a UNION ALL of plain aggregates, one a set, in queries and in views.
//!
//! Each branch groups by the columns of its set, puts NULL for the others, and its own number for `__grouping_id`, from
//! which DataFusion has made `grouping()` by now. So a NULL of the data is never taken for one of grouping, the empty
//! set has its row over empty input, a set that is listed twice comes twice, and a view keeps each set as it keeps any
//! aggregate.

use std::sync::Arc;

use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::utils::{enumerate_grouping_sets, grouping_set_to_exprlist};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, lit};
use tidewire_types::{SqlError, SqlState};

use crate::provider::to_datafusion;

/// PostgreSQL's limit.
pub(crate) const SETS_MAX: usize = 4096;

/// Expands every grouping set of a plan.
pub(crate) fn expand(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Aggregate(aggregate) if has_sets(&aggregate) => union_of_sets(&aggregate).map(Transformed::yes),
        plan => Ok(Transformed::no(plan)),
    })
    .map(|t| t.data)
}

/// Whether the aggregate has grouping sets.
pub(crate) fn has_sets(aggregate: &Aggregate) -> bool {
    aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_)))
}

/// The sets, each with what it groups by.
fn sets_of(aggregate: &Aggregate) -> Result<Vec<Vec<Expr>>> {
    let group = enumerate_grouping_sets(aggregate.group_expr.clone())?;
    Ok(match group.into_iter().next() {
        Some(Expr::GroupingSet(GroupingSet::GroupingSets(sets))) => sets,
        Some(Expr::GroupingSet(GroupingSet::Rollup(exprs))) => {
            (0..=exprs.len()).rev().map(|n| exprs.iter().take(n).cloned().collect()).collect()
        }
        Some(Expr::GroupingSet(GroupingSet::Cube(exprs))) => {
            if exprs.len() > SETS_MAX.ilog2() as usize {
                return Err(to_datafusion(SqlError::new(
                    SqlState::StatementTooComplex,
                    "too many grouping sets present (maximum 4096)",
                )));
            }
            let is_in = |set: usize, idx: usize| set >> (exprs.len() - 1 - idx) & 1 == 1;
            let of = |set| exprs.iter().enumerate().filter(|(i, _)| is_in(set, *i)).map(|(_, e)| e.clone()).collect();
            (0..1usize << exprs.len()).rev().map(of).collect()
        }
        _ => return Err(to_datafusion(SqlError::internal("grouping sets without a set"))),
    })
}

fn union_of_sets(aggregate: &Aggregate) -> Result<LogicalPlan> {
    let sets = sets_of(aggregate)?;
    if sets.len() > SETS_MAX {
        let message = "too many grouping sets present (maximum 4096)";
        return Err(to_datafusion(SqlError::new(SqlState::StatementTooComplex, message)));
    }
    let keys: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
    let mut union: Option<LogicalPlanBuilder> = None;
    for set in &sets {
        let branch = branch(aggregate, &keys, set)?;
        union = Some(match union {
            None => LogicalPlanBuilder::from(branch),
            Some(union) => union.union(branch)?,
        });
    }
    let union = union.ok_or_else(|| to_datafusion(SqlError::internal("grouping sets without a set")))?;
    // The names that the rest of the plan knows.
    let columns = aggregate.schema.iter().enumerate().map(|(idx, (qualifier, field))| {
        Expr::Column(Column::from_name(name(idx))).alias_qualified(qualifier.cloned(), field.name())
    });
    union.project(columns.collect::<Vec<_>>())?.build()
}

fn name(idx: usize) -> String {
    format!("__grouped_{idx}")
}

/// The aggregate over one set: keys, `__grouping_id`, results.
fn branch(aggregate: &Aggregate, keys: &[Expr], set: &[Expr]) -> Result<LogicalPlan> {
    let mut distinct: Vec<Expr> = vec![];
    for key in set {
        if !distinct.contains(key) {
            distinct.push(key.clone());
        }
    }
    let mut calls = aggregate.aggr_expr.clone();
    if distinct.is_empty() && calls.is_empty() {
        // The empty set has its row, whatever is asked of it.
        calls.push(count(lit(1i64)).alias(name(keys.len() + 1)));
    }
    let plain = Aggregate::try_new(Arc::clone(&aggregate.input), distinct.clone(), calls)?;
    let columns: Vec<Expr> = plain.schema.iter().map(Expr::from).collect();
    let mut exprs = vec![];
    let mut grouping_id = 0u64;
    for (idx, key) in keys.iter().enumerate() {
        let place = distinct.iter().position(|k| k == key);
        let expr = match place.and_then(|place| columns.get(place)) {
            Some(column) => column.clone(),
            None => {
                grouping_id |= 1 << (keys.len() - 1 - idx);
                let field = aggregate.schema.field(idx);
                let metadata = (!field.metadata().is_empty()).then(|| FieldMetadata::from(field.metadata()));
                Expr::Literal(ScalarValue::try_from(field.data_type())?, metadata)
            }
        };
        exprs.push(expr.alias(name(idx)));
    }
    let id_type = aggregate.schema.field(keys.len()).data_type();
    let id = ScalarValue::UInt64(Some(grouping_id)).cast_to(id_type)?;
    exprs.push(Expr::Literal(id, None).alias(name(keys.len())));
    for (idx, column) in columns.iter().skip(distinct.len()).take(aggregate.aggr_expr.len()).enumerate() {
        exprs.push(column.clone().alias(name(keys.len() + 1 + idx)));
    }
    LogicalPlanBuilder::from(LogicalPlan::Aggregate(plain)).project(exprs)?.build()
}
