//! IN lists, BETWEEN, IS DISTINCT FROM, CASE x WHEN and nullif() compare as `=` and `<` do; functions of texts see a char(n)
//! without its padding.
//!
//! Binary operators meet PostgreSQL's rules while they are planned (`functions/operators.rs`): blanks at the end of a
//! char(n) do not count, a string literal is read as the type of the other side. DataFusion plans these without
//! asking, so that the same is done for them here, before the analyzer coerces types; on the way the values of one type
//! agree (`agreement.rs`).

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{
    Between, BinaryExpr, Case, Cast, InList, InSubquery, ScalarFunction, SetComparison,
};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, Projection, Subquery, when};
use sqlparser::ast::BinaryOperator;
use tidewire_operators::aggregate::functions::function_of;
use tidewire_types::SqlType;

use crate::agreement::{agreed, is_choice, united};
use crate::column_names::map_named;
use crate::functions::maybe_null::maybe_null;
use crate::functions::nullif::{self, NULLIF};
use crate::functions::typed::retyped;
use crate::functions::{cast, comparable, met, met_as};
use crate::grouping_sets::has_sets;
use crate::unnest_query::ROW;
use crate::{casts, literals, planned_types};

/// Applies the rules to all expressions of a plan.
pub(crate) fn in_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut has_other_types = false;
    let rewritten = plan.transform_up_with_subqueries(|plan| {
        let plan = match plan {
            LogicalPlan::Union(union) => {
                let union = united(union)?;
                has_other_types |= union.transformed;
                return Ok(union);
            }
            other => other,
        };
        let schema = merge_schema(&plan.inputs());
        // grouping() finds its arguments by how they are written.
        let has_sets = matches!(&plan, LogicalPlan::Aggregate(aggregate) if has_sets(aggregate));
        let rewritten = if has_sets { compared_in_sets } else { rewritten };
        let plan = map_named(plan, |expr| rewritten(expr, &schema))?;
        // A union that has other types than before changes the columns of everything above it.
        if has_other_types { plan.map_data(LogicalPlan::recompute_schema) } else { Ok(plan) }
    });
    rewritten.and_then(|t| casts::in_plan(t.data))
}

/// Applies the rules to an expression over the columns of `schema`.
pub(crate) fn in_expr(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    rewritten(expr, schema).and_then(|t| casts::in_expr(t.data, schema))
}

fn rewritten(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let literals = literals::in_expr(expr)?;
    let typed = literals.transform_data(|expr| planned_types::in_expr(expr, schema));
    let compared = typed?.transform_data(|expr| compared_as_operators(expr, schema));
    compared?.transform_data(|expr| each_nullif(expr, |value, other| nullif_as_case(value, other, schema)))
}

/// A key of grouping sets cannot keep its name when it changes: its nullif() stays one, of the arguments' common type.
fn compared_in_sets(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    compared_as_operators(expr, schema)?.transform_data(|expr| {
        each_nullif(expr, |value, other| {
            let args = vec![value.clone(), met(value.clone(), other.clone(), schema).1];
            let function = datafusion::functions::core::nullif();
            let call = Expr::ScalarFunction(ScalarFunction::new_udf(function, args));
            // An integer keeps its own type; a cast is no part of a name.
            let own = value.get_type(schema)?;
            let is_narrow = own.is_integer() && other.get_type(schema)?.is_integer();
            Ok(if is_narrow { Expr::Cast(Cast::new(Box::new(call), own)) } else { call })
        })
    })
}

fn each_nullif(expr: Expr, write: impl Fn(&Expr, &Expr) -> Result<Expr>) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| match &expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == NULLIF => match args.as_slice() {
            [value, other] => write(value, other).map(Transformed::yes),
            _ => Ok(Transformed::no(expr)),
        },
        _ => Ok(Transformed::no(expr)),
    })
}

fn nullif_as_case(value: &Expr, other: &Expr, schema: &DFSchema) -> Result<Expr> {
    let (left, right) = comparable(&BinaryOperator::Eq, value.clone(), other.clone(), schema)?;
    let own = SqlType::of(&value.to_field(schema)?.1);
    let target = nullif::type_of(&own, &SqlType::of(&other.to_field(schema)?.1));
    let data_type = match value.get_type(schema)? {
        DataType::Null => other.get_type(schema)?,
        own => own,
    };
    let null = Expr::Literal(ScalarValue::try_from(&data_type)?, None);
    if own == SqlType::Null {
        return Ok(cast::to(null, &target));
    }
    let kept = when(left.eq(right), null).otherwise(value.clone())?;
    Ok(match target {
        SqlType::Text if matches!(own, SqlType::Varchar(_)) => retyped(kept, target),
        SqlType::Numeric(_) | SqlType::Float8 if own != target && own != SqlType::Null => {
            Expr::Cast(Cast::new_from_field(Box::new(kept), Arc::new(target.field("", true))))
        }
        _ => kept,
    })
}

fn compared_as_operators(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let changed = match expr.clone() {
            Expr::InList(InList { expr, list, negated }) => {
                let (expr, list) = compared(*expr, list, schema)?;
                Expr::InList(InList { expr: Box::new(expr), list, negated })
            }
            Expr::Between(Between { expr, negated, low, high }) => {
                let (own, low) = comparable(&BinaryOperator::GtEq, (*expr).clone(), *low, schema)?;
                comparable(&BinaryOperator::LtEq, *expr, (*high).clone(), schema)?;
                let (expr, high) = comparable(&BinaryOperator::LtEq, own, *high, schema)?;
                let low = met(expr.clone(), low, schema).1;
                Expr::Between(Between { expr: Box::new(expr), negated, low: Box::new(low), high: Box::new(high) })
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let (expr, subquery) = compared_with_rows(*expr, subquery, schema)?;
                Expr::InSubquery(InSubquery { expr: Box::new(expr), subquery, negated })
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
                let (expr, subquery) = compared_with_rows(*expr, subquery, schema)?;
                Expr::SetComparison(SetComparison { expr: Box::new(expr), subquery, op, quantifier })
            }
            // Those of ANY and ALL were planned without the rules for operators.
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
                let (left, right) = comparable(&named(op), *left, *right, schema)?;
                Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })
            }
            // DataFusion takes `x # x` for 0 even where x is NULL, unless it does not see that both are the same.
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::BitwiseXor, right }) => {
                Expr::BinaryExpr(BinaryExpr { left: Box::new(maybe_null(*left)), op: Operator::BitwiseXor, right })
            }
            Expr::Case(Case { expr: Some(expr), when_then_expr, else_expr }) => {
                let (whens, thens): (Vec<_>, Vec<_>) = when_then_expr.into_iter().unzip();
                let (expr, whens) = compared(*expr, whens.into_iter().map(|w| *w).collect(), schema)?;
                let when_then_expr = whens.into_iter().map(Box::new).zip(thens).collect();
                agreed(Expr::Case(Case { expr: Some(Box::new(expr)), when_then_expr, else_expr }), schema)?
            }
            Expr::Case(case) => agreed(Expr::Case(case), schema)?,
            Expr::ScalarFunction(mut call) if TEXT_FUNCTIONS.contains(&call.func.name()) => {
                call.args = call.args.into_iter().map(|arg| without_blanks(arg, schema)).collect();
                Expr::ScalarFunction(call)
            }
            Expr::AggregateFunction(mut call) if function_of(&call.func).name() == "string_agg" => {
                call.params.args = call.params.args.into_iter().map(|arg| without_blanks(arg, schema)).collect();
                Expr::AggregateFunction(call)
            }
            Expr::ScalarFunction(call) if is_choice(call.func.name()) => agreed(Expr::ScalarFunction(call), schema)?,
            _ => return Ok(Transformed::no(expr)),
        };
        Ok(if changed == expr { Transformed::no(expr) } else { Transformed::yes(changed) })
    })
}

/// Functions of DataFusion's that take texts: the blanks that pad a char(n) are none of theirs.
const TEXT_FUNCTIONS: &[&str] = &[
    "ascii",
    "btrim",
    "character_length",
    "initcap",
    "left",
    "lower",
    "lpad",
    "md5",
    "repeat",
    "replace",
    "reverse",
    "right",
    "rpad",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "translate",
    "upper",
];

fn without_blanks(arg: Expr, schema: &DFSchema) -> Expr {
    let is_char = arg.to_field(schema).is_ok_and(|(_, field)| matches!(SqlType::of(&field), SqlType::Char(_)));
    if is_char { cast::to(arg, &SqlType::Text) } else { arg }
}

fn is_comparison(op: Operator) -> bool {
    use Operator as O;
    matches!(op, O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq | O::IsDistinctFrom | O::IsNotDistinctFrom)
}

/// An expression, and the rows of a subquery that it is compared with.
fn compared_with_rows(expr: Expr, subquery: Subquery, schema: &DFSchema) -> Result<(Expr, Subquery)> {
    let plan = &subquery.subquery;
    if plan.schema().fields().len() != 1 {
        return Ok((expr, subquery));
    }
    let (qualifier, field) = plan.schema().qualified_field(0);
    let of_rows = Expr::from((qualifier, field));
    let (value, of_row, input) = match (row_values(&expr), row_of(plan)) {
        (Some(outer), Some((inner, input))) if outer.args.len() == inner.args.len() => {
            let (outer, inner) = met_one_by_one(outer, inner, (schema, input.schema()));
            (outer, inner, input)
        }
        _ => {
            let (value, of_row) = met_between(expr, of_rows.clone(), (schema, plan.schema()));
            if of_row == of_rows {
                return Ok((value, subquery));
            }
            (value, of_row, plan)
        }
    };
    let of_row = of_row.alias_qualified(qualifier.cloned(), field.name());
    let plan = Projection::try_new(vec![of_row], input.clone())?;
    Ok((value, subquery.with_plan(Arc::new(LogicalPlan::Projection(plan)))))
}

/// The row that a subquery selects, and what it selects it from.
fn row_of(plan: &LogicalPlan) -> Option<(&ScalarFunction, &Arc<LogicalPlan>)> {
    let LogicalPlan::Projection(projection) = plan else { return None };
    let [only] = projection.expr.as_slice() else { return None };
    Some((row_values(only)?, &projection.input))
}

fn row_values(expr: &Expr) -> Option<&ScalarFunction> {
    match expr {
        Expr::Alias(alias) => row_values(&alias.expr),
        Expr::ScalarFunction(call) if call.func.name() == ROW => Some(call),
        _ => None,
    }
}

/// Each value of a row with that in its place.
fn met_one_by_one(outer: &ScalarFunction, inner: &ScalarFunction, schemas: (&DFSchema, &DFSchema)) -> (Expr, Expr) {
    let pairs = outer.args.iter().cloned().zip(inner.args.iter().cloned());
    let (left, right) = pairs.map(|(left, right)| met_between(left, right, schemas)).unzip();
    let row = |args| Expr::ScalarFunction(ScalarFunction::new_udf(outer.func.clone(), args));
    (row(left), row(right))
}

/// Both sides of a comparison, over the columns of two schemas.
fn met_between(left: Expr, right: Expr, (of_left, of_right): (&DFSchema, &DFSchema)) -> (Expr, Expr) {
    let (Ok((_, l)), Ok((_, r))) = (left.to_field(of_left), right.to_field(of_right)) else { return (left, right) };
    let (l, r) = (SqlType::of(&l), SqlType::of(&r));
    (met_as(left, &l, &r), met_as(right, &r, &l))
}

/// The expression, and what it is compared with by `=`.
fn compared(expr: Expr, others: Vec<Expr>, schema: &DFSchema) -> Result<(Expr, Vec<Expr>)> {
    let mut own = expr.clone();
    let others = others.into_iter().map(|other| {
        let (left, right) = comparable(&BinaryOperator::Eq, expr.clone(), other, schema)?;
        own = met(left, own.clone(), schema).0;
        Ok(right)
    });
    let others = others.collect::<Result<Vec<_>>>()?;
    let others = others.into_iter().map(|other| met(own.clone(), other, schema).1).collect();
    Ok((own, others))
}

/// The operator as SQL has it: IS DISTINCT FROM compares as `=` does.
fn named(op: Operator) -> BinaryOperator {
    match op {
        Operator::NotEq => BinaryOperator::NotEq,
        Operator::Lt => BinaryOperator::Lt,
        Operator::LtEq => BinaryOperator::LtEq,
        Operator::Gt => BinaryOperator::Gt,
        Operator::GtEq => BinaryOperator::GtEq,
        _ => BinaryOperator::Eq,
    }
}
