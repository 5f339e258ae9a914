//! `SET a = .., (b, c) = (..)`: which column gets which expression.

use sqlparser::ast::{self, Assignment, AssignmentTarget, Expr, SetExpr, Value};
use tidewire_catalog::ColumnDef;
use tidewire_sql::{Statement, fold};
use tidewire_types::{Result, SqlError, SqlState};

use super::Target;

/// The assigned columns and their expressions. Errors: `42703`, `42601` for a column that is assigned twice.
pub(super) fn assignments(list: &[Assignment], target: &Target, text: &str) -> Result<Vec<(usize, Expr)>> {
    let mut assigned: Vec<(usize, Expr)> = vec![];
    for Assignment { target: to, value } in list {
        let pairs: Vec<(&ast::ObjectName, Expr)> = match (to, value) {
            (AssignmentTarget::ColumnName(name), value) => vec![(name, value.clone())],
            (AssignmentTarget::Tuple(names), Expr::Tuple(values)) if names.len() == values.len() => {
                names.iter().zip(values.iter().cloned()).collect()
            }
            (AssignmentTarget::Tuple(_), Expr::Tuple(_)) => {
                let message = "number of columns does not match number of values";
                return Err(SqlError::new(SqlState::SyntaxError, message));
            }
            (AssignmentTarget::Tuple(_), _) => return Err(SqlError::unsupported("SET (..) = with a subquery")),
        };
        for (name, value) in pairs {
            let name = name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
            let idx = target.column_idx(&name, text)?;
            if assigned.iter().any(|(present, _)| *present == idx) {
                let message = format!("multiple assignments to same column \"{name}\"");
                return Err(SqlError::new(SqlState::SyntaxError, message));
            }
            let value = if is_default(&value) { default(target.table.columns.get(idx))? } else { value };
            assigned.push((idx, value));
        }
    }
    Ok(assigned)
}

/// The keyword DEFAULT, which sqlparser takes for a name.
pub(super) fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

/// The expression behind a column's DEFAULT; NULL where it has none.
pub(super) fn default(column: Option<&ColumnDef>) -> Result<Expr> {
    let Some(text) = column.and_then(|c| c.default.as_deref()) else { return Ok(Expr::value(Value::Null)) };
    let parsed = tidewire_sql::parse(&format!("SELECT {text}"))?.pop().map(|p| p.statement);
    if let Some(Statement::Query(query)) = parsed
        && let SetExpr::Select(select) = query.body.as_ref()
        && let Some(ast::SelectItem::UnnamedExpr(expr)) = select.projection.first()
    {
        return Ok(expr.clone());
    }
    Err(SqlError::internal("a stored default is no expression"))
}

/// An untyped literal or a parameter: it takes the column's type, whatever it looks like.
pub(super) fn is_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_literal(inner),
        Expr::Value(value) => {
            matches!(
                value.value,
                Value::SingleQuotedString(_) | Value::EscapedStringLiteral(_) | Value::Null | Value::Placeholder(_)
            )
        }
        _ => false,
    }
}

/// The number of the parameter that is all of the expression.
pub(super) fn parameter(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Nested(inner) => parameter(inner),
        Expr::Value(value) => crate::rewrite::parameter_number(&value.value),
        _ => None,
    }
}
