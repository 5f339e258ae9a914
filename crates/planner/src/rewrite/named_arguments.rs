//! `make_interval(days => 3)`: arguments by name become arguments in their order.

use sqlparser::ast::{Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Value};
use tidewire_types::{Result, SqlError, SqlState};

use crate::functions::INTERVAL_ARGUMENTS;

/// Rewrites the call if it has arguments by name. Errors: `42883` for a name that the function does not have, `42601`.
pub(super) fn rewrite(expr: &mut Expr) -> Result<()> {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr else { return Ok(()) };
    if !name.to_string().eq_ignore_ascii_case("make_interval") || !list.args.iter().any(is_named) {
        return Ok(());
    }
    let mut values = vec![None; INTERVAL_ARGUMENTS.len()];
    let mut n_before = 0;
    for arg in std::mem::take(&mut list.args) {
        let (place, value) = match arg {
            FunctionArg::Named { name, arg, .. } => (place_of(&tidewire_sql::fold(&name)), arg),
            FunctionArg::ExprNamed { name: Expr::Identifier(name), arg, .. } => {
                (place_of(&tidewire_sql::fold(&name)), arg)
            }
            FunctionArg::Unnamed(arg) => {
                n_before += 1;
                (Some(n_before - 1), arg)
            }
            FunctionArg::ExprNamed { arg, .. } => (None, arg),
        };
        match place.and_then(|place| values.get_mut(place)) {
            Some(slot @ None) => *slot = Some(value),
            _ => return Err(undefined()),
        }
    }
    let zero = || FunctionArgExpr::Expr(Expr::value(Value::Number("0".into(), false)));
    list.args = values.into_iter().map(|value| FunctionArg::Unnamed(value.unwrap_or_else(zero))).collect();
    Ok(())
}

fn is_named(arg: &FunctionArg) -> bool {
    !matches!(arg, FunctionArg::Unnamed(_))
}

fn place_of(name: &str) -> Option<usize> {
    INTERVAL_ARGUMENTS.iter().position(|known| *known == name)
}

fn undefined() -> SqlError {
    SqlError::new(SqlState::UndefinedFunction, "function make_interval with these arguments does not exist")
        .with_hint(format!("Its arguments are {}, in this order or by name.", INTERVAL_ARGUMENTS.join(", ")))
}
