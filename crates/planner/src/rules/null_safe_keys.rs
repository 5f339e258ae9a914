//! Joins with `=` and with `IS NOT DISTINCT FROM` keys side by side.
//!
//! DataFusion's joins have one rule for NULL in all keys, and its rules put an equality among keys for which NULL equals
//! NULL ([`ExtractEquijoinPredicate`], EliminateCrossJoin): rows with NULLs on both sides would meet. Here such an
//! equality becomes a key with the condition that it is not NULL, and a mixed tree of inner joins is given to
//! EliminateCrossJoin as conditions.
//!
//! [`ExtractEquijoinPredicate`]: datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{JoinType, NullEquality, Result};
use datafusion::logical_expr::utils::{can_hash, find_valid_equijoin_key_pair, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Filter, Join, LogicalPlan, Operator, binary_expr};
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::{join_order, linked_first};

/// Makes keys of equalities and of IS NOT DISTINCT FROM. It goes before ExtractEquijoinPredicate and, as later rules
/// move conditions into joins, after all of them.
#[derive(Debug, Default)]
pub(super) struct NullSafeKeys;

impl OptimizerRule for NullSafeKeys {
    fn name(&self) -> &str {
        "null_safe_keys"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Join(Join { filter: Some(filter), null_aware: false, null_equality, .. }) = &plan else {
            return Ok(Transformed::no(plan));
        };
        // Without any key, ExtractEquijoinPredicate finds the equalities.
        let wanted = match null_equality {
            NullEquality::NullEqualsNull => Operator::Eq,
            NullEquality::NullEqualsNothing => Operator::IsNotDistinctFrom,
        };
        let conjuncts = split_conjunction_owned(filter.clone());
        if !conjuncts.iter().any(|e| matches!(e, Expr::BinaryExpr(b) if b.op == wanted)) {
            return Ok(Transformed::no(plan));
        }
        let LogicalPlan::Join(join) = plan else { return Ok(Transformed::no(plan)) };
        with_keys(join, conjuncts)
    }
}

fn with_keys(join: Join, conjuncts: Vec<Expr>) -> Result<Transformed<LogicalPlan>> {
    let mut equal = vec![];
    let mut same = vec![];
    let mut rest = vec![];
    for conjunct in conjuncts {
        let pair = match &conjunct {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Eq | Operator::IsNotDistinctFrom), right }) => {
                find_valid_equijoin_key_pair(left, right, join.left.schema(), join.right.schema())?
                    .map(|(l, r)| (*op, l, r))
            }
            _ => None,
        };
        match pair {
            Some((op, l, r)) if hashable(&l, &r, &join)? => {
                if op == Operator::Eq {
                    equal.push((l, r))
                } else {
                    same.push((l, r))
                }
            }
            _ => rest.push(conjunct),
        }
    }
    let of_keys = if join.null_equality == NullEquality::NullEqualsNull { &mut same } else { &mut equal };
    of_keys.extend(join.on.iter().cloned());
    if same.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    rest.extend(equal.iter().map(|(l, _)| l.clone().is_not_null()));
    let on = equal.into_iter().chain(same).collect();
    let filter = rest.into_iter().reduce(Expr::and);
    let null_equality = NullEquality::NullEqualsNull;
    Ok(Transformed::yes(LogicalPlan::Join(Join { on, filter, null_equality, ..join })))
}

fn hashable(left: &Expr, right: &Expr, join: &Join) -> Result<bool> {
    Ok(can_hash(&left.get_type(join.left.schema())?) && can_hash(&right.get_type(join.right.schema())?))
}

/// EliminateCrossJoin over tables in a sensible order, to which the keys of inner joins for which NULL equals NULL are conditions.
#[derive(Debug, Default)]
pub(super) struct OrderJoins {
    eliminate: EliminateCrossJoin,
    of_a_view: bool,
}

impl OrderJoins {
    /// For a plan that keeps its intermediate results.
    pub(super) fn of_a_view() -> OrderJoins {
        OrderJoins { of_a_view: true, ..OrderJoins::default() }
    }
}

impl OptimizerRule for OrderJoins {
    fn name(&self) -> &str {
        "order_joins"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let plain = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Join(join) if is_inner_null_safe(&join) => as_conditions(join).map(Transformed::yes),
            other => Ok(Transformed::no(other)),
        })?;
        let linked = match self.of_a_view {
            true => join_order::reorder_all(plain.data)?,
            false => plain.data.transform_down_with_subqueries(linked_first::reorder)?,
        };
        let ordered = self.eliminate.rewrite(linked.data, config)?;
        let transformed = plain.transformed || linked.transformed || ordered.transformed;
        Ok(Transformed::new_transformed(ordered.data, transformed))
    }
}

fn is_inner_null_safe(join: &Join) -> bool {
    join.join_type == JoinType::Inner && join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty()
}

fn as_conditions(join: Join) -> Result<LogicalPlan> {
    let Join { on, filter, .. } = &join;
    let same = on.iter().map(|(l, r)| binary_expr(l.clone(), Operator::IsNotDistinctFrom, r.clone()));
    let conditions = same.chain(filter.clone()).reduce(Expr::and);
    let null_equality = NullEquality::NullEqualsNothing;
    let plain = LogicalPlan::Join(Join { on: vec![], filter: None, null_equality, ..join });
    Ok(match conditions {
        None => plain,
        Some(predicate) => LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plain))?),
    })
}
