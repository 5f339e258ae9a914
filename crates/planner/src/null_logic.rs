//! `IN (SELECT ..)` with SQL's three values, where DataFusion knows only two.
//!
//! A top-level `NOT IN` becomes a null-aware anti join, and an `IN` that can only make a filter true needs no NULL. In
//! any other place (under OR with NOT, correlated NOT IN, IS NULL of it) DataFusion's mark join would say false where
//! SQL says NULL. There `x IN (q)` is spelled out: true where a row of q equals x; else NULL where q has a NULL, or
//! where x is NULL and q has a row; else false.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Subquery, lit, when};

/// Spells out every IN whose NULL matters, in all filters of the plan.
pub(crate) fn spell_out(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut n_names = 0;
    let rewritten = plan.transform_up_with_subqueries(|plan| {
        let LogicalPlan::Filter(Filter { predicate, input, .. }) = plan else { return Ok(Transformed::no(plan)) };
        let conjuncts = split_conjunction_owned(predicate);
        let mut changed = false;
        let mut kept = vec![];
        for conjunct in conjuncts {
            let rewritten = in_conjunct(conjunct, &input, &mut n_names)?;
            changed |= rewritten.transformed;
            kept.push(rewritten.data);
        }
        let predicate = kept.into_iter().reduce(Expr::and).unwrap_or_else(|| lit(true));
        let filter = LogicalPlan::Filter(Filter::try_new(predicate, input)?);
        Ok(Transformed::new_transformed(filter, changed))
    });
    rewritten.map(|t| t.data)
}

fn in_conjunct(conjunct: Expr, input: &LogicalPlan, n_names: &mut usize) -> Result<Transformed<Expr>> {
    match &conjunct {
        // As a whole conjunct, DataFusion's own joins are right.
        Expr::InSubquery(InSubquery { negated: false, .. }) => Ok(Transformed::no(conjunct)),
        Expr::InSubquery(InSubquery { subquery, .. }) if subquery.outer_ref_columns.is_empty() => {
            Ok(Transformed::no(conjunct))
        }
        _ => conjunct.transform_up(|expr| match expr {
            Expr::InSubquery(in_subquery) if null_is_possible(&in_subquery, input)? => {
                *n_names += 1;
                three_valued(in_subquery, input, &format!("__in_{n_names}")).map(Transformed::yes)
            }
            other => Ok(Transformed::no(other)),
        }),
    }
}

fn null_is_possible(in_subquery: &InSubquery, input: &LogicalPlan) -> Result<bool> {
    let of_list = in_subquery.subquery.subquery.schema().fields().first().is_none_or(|f| f.is_nullable());
    Ok(of_list || in_subquery.expr.nullable(input.schema())?)
}

fn three_valued(in_subquery: InSubquery, input: &LogicalPlan, name: &str) -> Result<Expr> {
    let InSubquery { expr, subquery, negated } = in_subquery;
    let Some(value) = subquery.subquery.schema().columns().into_iter().next().map(Expr::Column) else {
        return Ok(Expr::InSubquery(InSubquery::new(expr, subquery, negated)));
    };
    // Under a name of its own: both queries may read the same table.
    let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone()).project([value.alias(name)])?.build()?;
    let subquery = Subquery { subquery: Arc::new(plan), ..subquery };
    let value = Expr::Column(Column::from_name(name));
    let (outer, references) = outer_reference(expr.as_ref().clone(), input)?;
    let equal = exists(&subquery, Some(value.clone().eq(outer)), references)?;
    let has_null = exists(&subquery, Some(value.is_null()), vec![])?;
    let has_row = exists(&subquery, None, vec![])?;
    let unknown = has_null.or(expr.is_null().and(has_row));
    when(equal, lit(!negated)).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(negated))
}

/// The expression as a correlated subquery sees it, and the columns of the outer query that it reads.
fn outer_reference(expr: Expr, input: &LogicalPlan) -> Result<(Expr, Vec<Expr>)> {
    let mut references = vec![];
    let expr = expr.transform_up(|expr| match expr {
        Expr::Column(column) => {
            let field = input.schema().qualified_field_from_column(&column)?.1.clone();
            let reference = Expr::OuterReferenceColumn(field, column);
            references.push(reference.clone());
            Ok(Transformed::yes(reference))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok((expr.data, references))
}

fn exists(subquery: &Subquery, predicate: Option<Expr>, references: Vec<Expr>) -> Result<Expr> {
    let plan = match predicate {
        None => subquery.subquery.clone(),
        Some(predicate) => {
            Arc::new(LogicalPlanBuilder::from(subquery.subquery.as_ref().clone()).filter(predicate)?.build()?)
        }
    };
    let outer_ref_columns = subquery.outer_ref_columns.iter().cloned().chain(references).collect();
    let subquery = Subquery { subquery: plan, outer_ref_columns, spans: subquery.spans.clone() };
    Ok(Expr::Exists(Exists { subquery, negated: false }))
}
