//! `x LIKE ANY (ARRAY[..])` and `x NOT LIKE ALL (ARRAY[..])`: one comparison an item.

use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Value, ValueWithSpan,
};
use tidewire_types::{Result, SqlError};

/// Rewrites `expr` if it is one. Errors: `0A000` where the patterns are no list.
pub(super) fn rewrite(expr: &mut Expr) -> Result<()> {
    let (Expr::Like { pattern, any, .. } | Expr::ILike { pattern, any, .. }) = expr else { return Ok(()) };
    let (list, op) = match pattern.as_ref() {
        list if *any => (list.clone(), BinaryOperator::Or),
        Expr::Function(function) => match all_of(function) {
            Some(list) => (list, BinaryOperator::And),
            None => return Ok(()),
        },
        _ => return Ok(()),
    };
    let patterns = items(list).ok_or_else(|| SqlError::unsupported("LIKE ANY or ALL of patterns that are no list"))?;
    let one = expr.clone();
    let each = patterns.into_iter().map(|item| {
        let mut one = one.clone();
        if let Expr::Like { pattern, any, .. } | Expr::ILike { pattern, any, .. } = &mut one {
            (**pattern, *any) = (item, false);
        }
        one
    });
    let none = Expr::value(Value::Boolean(op == BinaryOperator::And));
    let all =
        each.reduce(|left, right| Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) });
    *expr = Expr::Nested(Box::new(all.unwrap_or(none)));
    Ok(())
}

/// What stands in `ALL (..)`, which the parser takes for a call.
fn all_of(function: &Function) -> Option<Expr> {
    let [name] = function.name.0.as_slice() else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))] = list.args.as_slice() else { return None };
    name.as_ident()
        .is_some_and(|name| name.quote_style.is_none() && name.value.eq_ignore_ascii_case("all"))
        .then(|| arg.clone())
}

fn items(list: Expr) -> Option<Vec<Expr>> {
    match list {
        Expr::Nested(inner) => items(*inner),
        Expr::Tuple(items) => Some(items),
        Expr::Array(array) => Some(array.elem),
        Expr::Cast { expr, .. } => items(*expr),
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => {
            let items = crate::functions::array_items(&text).ok()?;
            let value = |item: Option<String>| Expr::value(item.map_or(Value::Null, Value::SingleQuotedString));
            Some(items.into_iter().map(value).collect())
        }
        _ => None,
    }
}
