//! Literals and parameters without a type, where DataFusion would not give them that of the values they stand among: a
//! boolean where a condition stands, and the type of the others of CASE, coalesce(), nullif(), lag() and IS DISTINCT FROM.
//!
//! The others are known by their type once the statement is planned: a call of [`UNTYPED`] holds the literal and one of
//! them until then.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    self, BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, JoinOperator, Select, UnaryOperator,
    Value,
};
use tidewire_sql::{fold, walk};
use tidewire_types::SqlType;

use super::{call, parameter_number};
use crate::functions::untyped::UNTYPED;

/// The types that are known of parameters, by their numbers.
type Parameters = HashMap<usize, SqlType>;

/// Rewrites `expr` if it gives values or conditions one type. What conditions tell of parameters is added to `parameters`.
pub(super) fn rewrite(expr: &mut Expr, parameters: &mut Parameters) {
    let mut condition = |expr: &mut Expr| condition(expr, parameters);
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
            condition(left);
            condition(right);
        }
        Expr::UnaryOp { op: UnaryOperator::Not, expr: inner }
        | Expr::IsTrue(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsUnknown(inner)
        | Expr::IsNotUnknown(inner) => condition(inner),
        Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
            beside(left, right);
            beside(right, left);
        }
        Expr::Case { operand, conditions, else_result, .. } => {
            if operand.is_none() {
                conditions.iter_mut().for_each(|when| condition(&mut when.condition));
            }
            let thens = conditions.iter_mut().map(|when| &mut when.result);
            among(thens.chain(else_result.as_deref_mut()).collect());
        }
        Expr::Array(array) => among(array.elem.iter_mut().collect()),
        Expr::Function(function) => {
            let name = name_of(function);
            function.filter.as_deref_mut().into_iter().for_each(&mut condition);
            let Some(mut args) = args_of(&mut function.args) else { return };
            match (name.as_deref(), args.as_mut_slice()) {
                (Some("coalesce" | "greatest" | "least"), _) => among(args),
                (Some("nullif"), [value, other]) => {
                    beside(value, other);
                    beside(other, value);
                }
                (Some("lag" | "lead"), [value, _, default]) => beside(default, value),
                _ => {}
            }
        }
        _ => {}
    }
}

/// The conditions of a SELECT.
pub(super) fn conditions(select: &mut Select, parameters: &mut Parameters) {
    let joins = select.from.iter_mut().flat_map(|item| item.joins.iter_mut());
    for join in joins {
        let constraint = match &mut join.join_operator {
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::Left(constraint)
            | JoinOperator::LeftOuter(constraint)
            | JoinOperator::Right(constraint)
            | JoinOperator::RightOuter(constraint)
            | JoinOperator::FullOuter(constraint) => constraint,
            _ => continue,
        };
        if let ast::JoinConstraint::On(on) = constraint {
            condition(on, parameters);
        }
    }
    select.selection.iter_mut().chain(&mut select.having).for_each(|expr| condition(expr, parameters));
}

/// Makes a literal of digits a number.
pub(super) fn number(expr: &mut Expr) {
    if let Expr::Value(literal) = expr
        && let Value::SingleQuotedString(text) = &literal.value
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
    {
        literal.value = Value::Number(text.clone(), false);
    }
}

/// Makes a literal a boolean, and a parameter one.
fn condition(expr: &mut Expr, parameters: &mut Parameters) {
    if let Expr::Value(value) = expr
        && let Some(number) = parameter_number(&value.value)
    {
        parameters.entry(number).or_insert(SqlType::Bool);
        return;
    }
    match expr {
        Expr::Nested(inner) => condition(inner, parameters),
        literal if is_untyped(literal) => {
            let inner = Box::new(std::mem::replace(literal, Expr::value(Value::Null)));
            let data_type = ast::DataType::Boolean;
            *literal = Expr::Cast { kind: ast::CastKind::Cast, expr: inner, data_type, array: false, format: None };
        }
        _ => {}
    }
}

/// Gives `value` the type of `other`, if it has none of its own.
fn beside(value: &mut Expr, other: &Expr) {
    if is_untyped(value)
        && let Some(typed) = typed_part(other)
    {
        hold(value, typed.clone());
    }
}

/// Gives the values the type of the first of them that has one. What DataFusion reads as the others' type stays.
fn among(values: Vec<&mut Expr>) {
    let Some(first) = values.iter().position(|value| typed_part(value).is_some()) else { return };
    let Some(typed) = values.get(first).and_then(|value| typed_part(value)).cloned() else { return };
    for (idx, value) in values.into_iter().enumerate() {
        if is_untyped(value) && (idx < first || is_parameter(value)) {
            hold(value, typed.clone());
        }
    }
}

fn hold(value: &mut Expr, typed: Expr) {
    let literal = std::mem::replace(value, Expr::value(Value::Null));
    *value = call(UNTYPED, vec![literal, typed]);
}

/// What stands in the expression and has its type. None: it has none, or it is not to be planned twice.
fn typed_part(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::Nested(inner) => typed_part(inner),
        Expr::Value(value) if matches!(value.value, Value::Null) => None,
        literal if is_untyped(literal) => None,
        Expr::Case { conditions, else_result, .. } => {
            conditions.iter().map(|when| &when.result).chain(else_result.as_deref()).find_map(typed_part)
        }
        Expr::Function(function) => match name_of(function).as_deref() {
            Some("coalesce" | "greatest" | "least" | "nullif") => {
                let FunctionArguments::List(list) = &function.args else { return None };
                list.args.iter().find_map(|arg| match arg {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)) => typed_part(arg),
                    _ => None,
                })
            }
            Some(UNTYPED) => None,
            _ => Some(expr).filter(|expr| !has_nested_subqueries(expr)),
        },
        other => Some(other).filter(|expr| !has_nested_subqueries(expr)),
    }
}

/// Whether subqueries stand inside each other: where each level was planned twice, all would be planned very often.
fn has_nested_subqueries(expr: &Expr) -> bool {
    #[derive(Default)]
    struct Finder(usize);
    impl ast::Visitor for Finder {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            self.0 += usize::from(is_subquery(expr));
            if self.0 > 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }

        fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            self.0 -= usize::from(is_subquery(expr));
            ControlFlow::Continue(())
        }
    }
    walk(expr, &mut Finder::default()).is_break()
}

fn is_subquery(expr: &Expr) -> bool {
    matches!(expr, Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. })
}

fn is_untyped(expr: &Expr) -> bool {
    let Expr::Value(value) = expr else { return false };
    value.value.clone().into_string().is_some() || is_parameter(expr)
}

fn is_parameter(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if parameter_number(&value.value).is_some())
}

fn name_of(function: &ast::Function) -> Option<String> {
    match function.name.0.as_slice() {
        [part] => part.as_ident().map(fold),
        _ => None,
    }
}

fn args_of(args: &mut FunctionArguments) -> Option<Vec<&mut Expr>> {
    let FunctionArguments::List(list) = args else { return None };
    list.args
        .iter_mut()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)) => Some(arg),
            _ => None,
        })
        .collect()
}
