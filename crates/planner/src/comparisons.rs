//! IN lists, BETWEEN, IS DISTINCT FROM and CASE x WHEN compare as `=` and `<` do.
//!
//! Binary operators meet PostgreSQL's rules while they are planned (`functions/operators.rs`): blanks at the end of a
//! char(n) do not count, a string literal is read as the type of the other side. DataFusion plans these four without
//! asking, so that the same is done for them here, before the analyzer coerces types.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{Between, BinaryExpr, Case, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};

use crate::functions::comparable;
use crate::literals;

/// Applies the rules to all expressions of a plan.
pub(crate) fn in_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|plan| {
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        // grouping() finds its arguments by how they are written.
        let has_sets = matches!(&plan, LogicalPlan::Aggregate(aggregate)
            if aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))));
        let rewritten = if has_sets { compared_as_operators } else { rewritten };
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(rewritten(expr, &schema)?.update_data(|expr| name.restore(expr)))
        })
    });
    rewritten.map(|t| t.data)
}

/// Applies the rules to an expression over the columns of `schema`.
pub(crate) fn in_expr(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    rewritten(expr, schema).map(|t| t.data)
}

fn rewritten(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    literals::in_expr(expr)?.transform_data(|expr| compared_as_operators(expr, schema))
}

fn compared_as_operators(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let changed = match expr.clone() {
            Expr::InList(InList { expr, list, negated }) => {
                let (expr, list) = compared(*expr, list, schema);
                Expr::InList(InList { expr: Box::new(expr), list, negated })
            }
            Expr::Between(Between { expr, negated, low, high }) => {
                let (_, low) = comparable((*expr).clone(), *low, schema);
                let (expr, high) = comparable(*expr, *high, schema);
                Expr::Between(Between { expr: Box::new(expr), negated, low: Box::new(low), high: Box::new(high) })
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right })
                if matches!(op, Operator::IsDistinctFrom | Operator::IsNotDistinctFrom) =>
            {
                let (left, right) = comparable(*left, *right, schema);
                Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })
            }
            Expr::Case(Case { expr: Some(expr), when_then_expr, else_expr }) => {
                let (whens, thens): (Vec<_>, Vec<_>) = when_then_expr.into_iter().unzip();
                let (expr, whens) = compared(*expr, whens.into_iter().map(|w| *w).collect(), schema);
                let when_then_expr = whens.into_iter().map(Box::new).zip(thens).collect();
                Expr::Case(Case { expr: Some(Box::new(expr)), when_then_expr, else_expr })
            }
            _ => return Ok(Transformed::no(expr)),
        };
        Ok(if changed == expr { Transformed::no(expr) } else { Transformed::yes(changed) })
    })
}

/// The expression, and what it is compared with.
fn compared(expr: Expr, others: Vec<Expr>, schema: &DFSchema) -> (Expr, Vec<Expr>) {
    let mut own = expr.clone();
    let others = others.into_iter().map(|other| {
        let (left, right) = comparable(expr.clone(), other, schema);
        own = left;
        right
    });
    let others = others.collect();
    (own, others)
}
