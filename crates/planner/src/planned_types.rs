//! The types that CASE, coalesce(), UNION and the like have once a plan is analyzed, while it is planned.
//!
//! DataFusion plans an expression over them with the type of their first value: `(CASE WHEN x THEN 1 ELSE 2.5 END) + 1` would
//! add integers. Operators and casts are chosen by that type, so it has to be right then. The expression stays as it is,
//! for others are compared with it (in GROUP BY): the type is put around it, and taken away when it is there
//! (`common_types.rs`).

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRewriter};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Projection, SubqueryAlias, Union, lit};
use datafusion::optimizer::analyzer::type_coercion::TypeCoercionRewriter;
use tidewire_types::SqlType;

use crate::agreement::{agreed, is_choice, united};
use crate::column_names::map_named;
use crate::common_types::{is_represented, retype, union_of_types};
use crate::functions::typed::{given_type, retyped};
use crate::functions::untyped::{self, UNTYPED};
use crate::grouping_sets::has_sets;
use crate::{set_operation, using};

/// A subquery, with its names resolved, whose columns have their types. What is wrong with it is found when the whole is analyzed.
pub(crate) fn in_relation(plan: LogicalPlan) -> LogicalPlan {
    if !plan.exists(|node| Ok(has_choice(node))).unwrap_or(true) {
        return plan;
    }
    typed_relation(plan.clone()).unwrap_or(plan)
}

fn typed_relation(plan: LogicalPlan) -> Result<LogicalPlan> {
    let typed = plan.transform_up(|node| match node {
        LogicalPlan::Union(union) => over_union(union),
        LogicalPlan::SubqueryAlias(alias) => above_set_operation(alias),
        // A key of grouping sets is found by how it is written.
        LogicalPlan::Aggregate(aggregate) if has_sets(&aggregate) => {
            Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)))
        }
        node => {
            let schema = merge_schema(&node.inputs());
            let node = map_named(node, |expr| in_expr(expr, &schema))?;
            Ok(Transformed::yes(node.data.recompute_schema()?))
        }
    });
    typed.map(|typed| typed.data)
}

fn has_choice(node: &LogicalPlan) -> bool {
    match node {
        LogicalPlan::Union(_) => true,
        node => node.expressions().iter().any(is_to_be_typed),
    }
}

fn is_to_be_typed(expr: &Expr) -> bool {
    let is = |expr: &Expr| chooses(expr) || is_untyped(expr) || matches!(expr, Expr::ScalarSubquery(_));
    expr.exists(|expr| Ok(is(expr))).unwrap_or(true)
}

fn is_untyped(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.name() == UNTYPED)
}

fn chooses(expr: &Expr) -> bool {
    match expr {
        Expr::Case(_) => true,
        Expr::ScalarFunction(call) => is_choice(call.func.name()),
        _ => false,
    }
}

/// An expression whose parts have their types, as far as those can be told.
pub(crate) fn in_operand(expr: Expr, schema: &DFSchema) -> Expr {
    in_expr(expr.clone(), schema).map_or(expr, |typed| typed.data)
}

/// The same. Errors: of DataFusion, where the expression is wrong.
pub(crate) fn in_expr(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if !is_to_be_typed(&expr) {
        return Ok(Transformed::no(expr));
    }
    expr.transform_up(|expr| match expr {
        Expr::ScalarSubquery(mut query) => {
            let subquery = using::strip(Arc::unwrap_or_clone(query.subquery))?;
            query.subquery = Arc::new(in_relation(subquery));
            Ok(Transformed::yes(Expr::ScalarSubquery(query)))
        }
        Expr::ScalarFunction(call) if call.func.name() == UNTYPED => {
            let read = untyped::read(&call, schema)?;
            Ok(Transformed::yes(read.unwrap_or(Expr::ScalarFunction(call))))
        }
        expr if chooses(&expr) => Ok(match type_to_come(&expr, schema) {
            Some(sql_type) => Transformed::yes(retyped(expr, sql_type)),
            None => Transformed::no(expr),
        }),
        expr => Ok(match given_twice(&expr) {
            Some(inner) => Transformed::yes(inner.clone()),
            None => Transformed::no(expr),
        }),
    })
}

/// The expression without the outer one of two types that are the same.
fn given_twice(expr: &Expr) -> Option<&Expr> {
    let (inner, target) = given_type(expr)?;
    given_type(inner).filter(|(_, same)| *same == target).map(|_| inner)
}

/// The type that the expression has once it is analyzed. None: it has it already, or it cannot be told.
fn type_to_come(expr: &Expr, schema: &DFSchema) -> Option<SqlType> {
    let own = SqlType::of(&expr.to_field(schema).ok()?.1);
    let values = match expr.clone() {
        // What it compares is another matter.
        Expr::Case(case) => {
            let when_then_expr = case.when_then_expr.into_iter().map(|(_, then)| (Box::new(lit(true)), then)).collect();
            Expr::Case(Case { expr: None, when_then_expr, else_expr: case.else_expr })
        }
        other => other,
    };
    let coerced = agreed(values, schema).and_then(|values| TypeCoercionRewriter::new(schema).f_up(values));
    let analyzed = coerced.and_then(|values| retype(values.data, schema)).ok()?;
    let field = analyzed.data.to_field(schema).ok()?.1;
    let to_come = SqlType::of(&field);
    (to_come != own && is_represented(&to_come, field.data_type())).then_some(to_come)
}

/// The types that a union's columns have once it is analyzed, over it.
fn over_union(union: Union) -> Result<Transformed<LogicalPlan>> {
    let coerced = united(union.clone()).and_then(|union| match union.data {
        LogicalPlan::Union(union) => TypeCoercionRewriter::coerce_union(union),
        other => Ok(other),
    });
    let analyzed = match coerced? {
        LogicalPlan::Union(union) => union_of_types(union)?,
        other => other,
    };
    let columns = typed_columns(&union.schema, analyzed.schema());
    let union = LogicalPlan::Union(union);
    let Some(columns) = columns else { return Ok(Transformed::no(union)) };
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(union))?)))
}

/// The columns of `own` with the types of `to_come`. None: they have them.
fn typed_columns(own: &DFSchema, to_come: &DFSchema) -> Option<Vec<Expr>> {
    let columns = own.iter().zip(to_come.fields()).map(|((qualifier, field), to_come)| {
        let column = Expr::from((qualifier, field));
        let sql_type = SqlType::of(to_come);
        match SqlType::of(field) != sql_type && is_represented(&sql_type, to_come.data_type()) {
            true => retyped(column, sql_type).alias_qualified(qualifier.cloned(), field.name()),
            false => column,
        }
    });
    let columns: Vec<Expr> = columns.collect();
    columns.iter().any(|column| !matches!(column, Expr::Column(_))).then_some(columns)
}

/// A union that stands for another operation is found right below its name: its types come above that.
fn above_set_operation(alias: SubqueryAlias) -> Result<Transformed<LogicalPlan>> {
    if let LogicalPlan::Projection(Projection { input, schema, .. }) = alias.input.as_ref()
        && matches!(input.as_ref(), LogicalPlan::Union(_))
        && set_operation::is_name(&alias.alias)
    {
        let below = SubqueryAlias::try_new(input.clone(), alias.alias)?;
        if let Some(columns) = typed_columns(&below.schema, schema) {
            let below = Arc::new(LogicalPlan::SubqueryAlias(below));
            return Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, below)?)));
        }
        return Ok(Transformed::yes(LogicalPlan::SubqueryAlias(below)));
    }
    Ok(Transformed::yes(LogicalPlan::SubqueryAlias(alias).recompute_schema()?))
}
