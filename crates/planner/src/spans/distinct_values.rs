//! Aggregates of DISTINCT values whose equal ones may differ: `array_agg(DISTINCT interval)`, `jsonb_agg(DISTINCT jsonb)`.
//!
//! A window numbers the values that are equal within their group, and the aggregate takes the first of them: the one whose
//! text is the least, so that a view and its query agree on it.

use std::sync::Arc;

use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, ExprFunctionExt, LogicalPlan, Window, lit};
use tidewire_operators::aggregate::Function;
use tidewire_operators::aggregate::functions::function_of;
use tidewire_types::SqlType;

use super::{has_forms, key, sort_key, sort_keys};
use crate::functions::{TO_JSON, cast};
use crate::windows::function::row_number;

/// The aggregate without such calls, over its input with the numbers of values. A count needs none: it counts keys.
pub(super) fn in_aggregate(aggregate: Aggregate) -> Result<Aggregate> {
    let Aggregate { input, group_expr, aggr_expr, .. } = &aggregate;
    let schema = input.schema();
    let mut numbers: Vec<Expr> = vec![];
    let mut calls = vec![];
    for expr in aggr_expr {
        let (Expr::AggregateFunction(call), name) = (expr.clone().unalias(), expr.schema_name().to_string()) else {
            calls.push(expr.clone());
            continue;
        };
        let args: Vec<&Expr> = call.params.args.iter().map(value_of).collect();
        if !call.params.distinct || is_count(&call) || !args.iter().any(|arg| has_forms(arg, schema)) {
            calls.push(expr.clone());
            continue;
        }
        // What the filter leaves out is numbered by itself.
        let filter = call.params.filter.iter().map(|filter| filter.clone().is_true());
        let equal = group_expr.iter().chain(args.iter().copied()).map(|expr| key(expr.clone().unalias(), schema));
        let texts = args.iter().map(|arg| cast::to((*arg).clone(), &SqlType::Text).sort(true, false));
        let partition = equal.chain(filter).collect();
        let number = row_number().partition_by(partition).order_by(texts.collect()).build()?;
        let place = numbers.iter().position(|other| *other == number).unwrap_or(numbers.len());
        if place == numbers.len() {
            numbers.push(number);
        }
        calls.push(of_first(call, &name_of(place), schema)?.alias(name));
    }
    if numbers.is_empty() {
        return Ok(aggregate);
    }
    let numbers = numbers.into_iter().enumerate().map(|(place, number)| number.alias(name_of(place))).collect();
    let numbered = LogicalPlan::Window(Window::try_new(numbers, Arc::clone(input))?);
    Aggregate::try_new(Arc::new(numbered), group_expr.clone(), calls)
}

fn name_of(place: usize) -> String {
    format!("number\u{1}{place}")
}

fn is_count(call: &AggregateFunction) -> bool {
    matches!(function_of(&call.func), Function::Count)
}

/// What an argument of a json aggregate is made of.
fn value_of(arg: &Expr) -> &Expr {
    match arg {
        Expr::ScalarFunction(call) if call.func.name() == TO_JSON => call.args.first().unwrap_or(arg),
        arg => arg,
    }
}

/// The call over the values with number 1.
fn of_first(mut call: AggregateFunction, number: &str, schema: &DFSchema) -> Result<Expr> {
    let params = &mut call.params;
    params.distinct = false;
    let is_first = Expr::Column(Column::new_unqualified(number)).eq(lit(1i64));
    params.filter = Some(Box::new(match params.filter.take() {
        Some(filter) => filter.and(is_first),
        None => is_first,
    }));
    params.order_by = match params.order_by.is_empty() {
        // Values that are different come in their order.
        true if matches!(function_of(&call.func), Function::List(_)) => {
            params.args.iter().map(|arg| sort_key(value_of(arg).clone(), schema).sort(true, false)).collect()
        }
        true => vec![],
        false => sort_keys(std::mem::take(&mut params.order_by), schema),
    };
    Ok(Expr::AggregateFunction(call))
}
