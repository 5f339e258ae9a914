//! Literals without a type, where DataFusion would not give them that of the values they stand among: a boolean where a
//! condition stands, the type of the others of CASE, coalesce(), nullif(), lag() and IS DISTINCT FROM, and that of the
//! arguments of functions ([`super::arguments`]).
//!
//! The type of the others is known once the statement is planned: a call of [`UNTYPED`] holds the literal and an expression
//! of that type until then.

use std::ops::ControlFlow;

use sqlparser::ast::{
    self, BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, JoinConstraint, Select, UnaryOperator,
    Value,
};
use tidewire_sql::walk;

use super::arguments::{self, Argument};
use super::{call, rewrite_cast};
use crate::functions::untyped::UNTYPED;
use crate::set_returning::from::function_name;
use crate::windows::constraint;

/// Rewrites `expr` if it gives values or conditions one type.
pub(super) fn rewrite(expr: &mut Expr) {
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
        Expr::Substring { substring_from, substring_for, shorthand: true, .. } => {
            let numbers = substring_from.iter_mut().chain(substring_for.iter_mut());
            numbers.filter(|n| is_untyped(n)).for_each(|n| become_cast(n, ast::DataType::Int(None)));
        }
        Expr::Floor { expr: inner, .. } | Expr::Ceil { expr: inner, .. } if is_untyped(inner) => {
            become_cast(inner, ast::DataType::DoublePrecision);
        }
        Expr::Array(array) => among(array.elem.iter_mut().collect()),
        // Where it has a type, that is the type of what the list has without one.
        Expr::InList { expr: value, list, .. } if is_untyped(value) => {
            among(std::iter::once(&mut **value).chain(list).collect());
        }
        Expr::Function(function) => {
            let name = function_name(&function.name);
            function.filter.as_deref_mut().into_iter().for_each(condition);
            let Some(mut args) = args_of(&mut function.args) else { return };
            match (name.as_deref(), args.as_mut_slice()) {
                (Some("coalesce" | "greatest" | "least"), _) => among(args),
                (Some("nullif"), [value, other]) => {
                    beside(value, other);
                    beside(other, value);
                }
                (Some("lag" | "lead"), [value, offset, default]) => {
                    beside(default, value);
                    if is_untyped(offset) {
                        become_cast(offset, ast::DataType::Int(None));
                    }
                }
                (Some(name), args) => in_arguments(name, args),
                (None, _) => {}
            }
        }
        _ => {}
    }
}

/// The conditions of a SELECT.
pub(super) fn conditions(select: &mut Select) {
    for join in select.from.iter_mut().flat_map(|item| item.joins.iter_mut()) {
        if let Some(JoinConstraint::On(on)) = constraint(&mut join.join_operator) {
            condition(on);
        }
    }
    select.selection.iter_mut().chain(&mut select.having).for_each(condition);
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

/// Makes a literal a boolean.
fn condition(expr: &mut Expr) {
    match expr {
        Expr::Nested(inner) => condition(inner),
        literal if is_untyped(literal) => become_cast(literal, ast::DataType::Boolean),
        _ => {}
    }
}

fn become_cast(literal: &mut Expr, data_type: ast::DataType) {
    let inner = Box::new(std::mem::replace(literal, Expr::value(Value::Null)));
    *literal = Expr::Cast { kind: ast::CastKind::Cast, expr: inner, data_type, array: false, format: None };
    // The visitor has been here. All these types are known.
    let _ = rewrite_cast(literal);
}

/// Gives arguments of a function the types that they have in its place.
fn in_arguments(name: &str, args: &mut [&mut Expr]) {
    for idx in 0..args.len() {
        let all: Vec<&Expr> = args.iter().map(|arg| &**arg).collect();
        let argument = arguments::of_function(name, &all, idx);
        let Some(arg) = args.get_mut(idx).filter(|arg| is_untyped(arg)) else { continue };
        match argument {
            Some(Argument::Of(data_type)) => become_cast(arg, data_type),
            Some(Argument::Like(typed)) if !has_nested_subqueries(typed.as_ref()) => hold(arg, *typed),
            _ => {}
        }
    }
}

/// Gives `value` the type of `other`, if it has none of its own.
fn beside(value: &mut Expr, other: &Expr) {
    if is_untyped(value)
        && let Some(typed) = common(&[other])
    {
        hold(value, typed);
    }
}

/// Gives the values the type that the others have in common. What DataFusion reads as the others' type stays.
fn among(values: Vec<&mut Expr>) {
    let is_typed = |value: &&mut Expr| typed_parts(value).is_none_or(|parts| !parts.is_empty());
    let first = values.iter().position(is_typed).unwrap_or(values.len());
    if !values.iter().take(first).any(|value| is_untyped(value)) {
        return;
    }
    let Some(typed) = common(&values.iter().map(|value| &**value).collect::<Vec<_>>()) else { return };
    for value in values.into_iter().take(first) {
        if is_untyped(value) {
            hold(value, typed.clone());
        }
    }
}

fn hold(value: &mut Expr, typed: Expr) {
    let literal = std::mem::replace(value, Expr::value(Value::Null));
    *value = call(UNTYPED, vec![literal, typed]);
}

/// An expression of the type that the values have in common. None: none of them has one, or they are not to be planned twice.
fn common(values: &[&Expr]) -> Option<Expr> {
    let mut parts: Vec<&Expr> = vec![];
    for part in parts_of(values.iter().copied())? {
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    match parts.as_slice() {
        [] => None,
        [only] => Some((*only).clone()),
        parts => Some(call("coalesce", parts.iter().map(|part| (*part).clone()).collect())),
    }
}

/// What stands in the expression and gives it its type: none for a literal. None: it is not to be planned twice.
fn typed_parts(expr: &Expr) -> Option<Vec<&Expr>> {
    match expr {
        Expr::Nested(inner) => typed_parts(inner),
        Expr::Value(value) if matches!(value.value, Value::Null) => Some(vec![]),
        literal if is_untyped(literal) => Some(vec![]),
        Expr::Case { conditions, else_result, .. } => {
            parts_of(conditions.iter().map(|when| &when.result).chain(else_result.as_deref()))
        }
        Expr::Function(function) if function_name(&function.name).is_some_and(|name| name == UNTYPED) => Some(vec![]),
        Expr::Function(function)
            if function_name(&function.name).is_some_and(|name| CHOICES.contains(&name.as_str())) =>
        {
            let FunctionArguments::List(list) = &function.args else { return Some(vec![]) };
            parts_of(list.args.iter().filter_map(value_of))
        }
        other if has_nested_subqueries(other) => None,
        other => Some(vec![other]),
    }
}

fn parts_of<'a>(values: impl Iterator<Item = &'a Expr>) -> Option<Vec<&'a Expr>> {
    values.map(typed_parts).collect::<Option<Vec<_>>>().map(|parts| parts.concat())
}

/// Functions that give one of their arguments.
const CHOICES: &[&str] = &["coalesce", "greatest", "least", "nullif"];

fn value_of(arg: &FunctionArg) -> Option<&Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value),
        _ => None,
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

/// Whether it is a literal without a type.
pub(super) fn is_untyped(expr: &Expr) -> bool {
    let Expr::Value(value) = expr else { return false };
    value.value.clone().into_string().is_some()
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
