//! `ORDER BY .. FETCH FIRST n ROWS WITH TIES`: rows whose rank is at most n.
//!
//! With `OFFSET m` the first m rows are left out, in the order that breaks ties too, and the rank may be m + n.

use std::ops::ControlFlow;

use sqlparser::ast::{self, BinaryOperator, Expr, LimitClause, OrderByKind, Query, SelectItem, SetExpr, Value};
use tidewire_sql::{fold, own_exprs};
use tidewire_types::{Result, SqlError, SqlState};

use super::{call, parameter_number};
use crate::dml::select;
use crate::functions::sets;
use crate::windows::has_window;

pub(super) fn rewrite(query: &mut Query, quantity: Expr) -> Result<()> {
    let offset = match query.limit_clause.take() {
        None => None,
        Some(LimitClause::LimitOffset { limit: None, offset, .. }) => offset.map(|o| o.value),
        Some(_) => return Err(SqlError::new(SqlState::SyntaxError, "multiple LIMIT clauses not allowed")),
    };
    let order_by = match query.order_by.as_ref().map(|o| &o.kind) {
        Some(OrderByKind::Expressions(keys)) if !keys.is_empty() => keys.clone(),
        _ => {
            let message = "WITH TIES cannot be specified without ORDER BY clause";
            return Err(SqlError::new(SqlState::SyntaxError, message));
        }
    };
    let returns_sets = items(&query.body).iter().any(returns_set);
    if returns_sets && !order_by.iter().all(|key| is_output(&key.expr, items(&query.body))) {
        let what = "WITH TIES by what is not in the SELECT list, with a set-returning function there";
        return Err(SqlError::unsupported(what));
    }
    let is_plain = match query.body.as_ref() {
        // A rank over the results of windows comes behind them, and one over the rows of set-returning functions too.
        SetExpr::Select(select) => {
            select.distinct.is_none() && !returns_sets && !orders_by_window(&order_by, &select.projection)
        }
        _ => false,
    };
    let order_by = match is_plain {
        true if !is_set_operation(&query.body) => order_by,
        true => order_by.into_iter().map(|key| by_name(key, &query.body)).collect::<Result<_>>()?,
        false => {
            let named = order_by.into_iter().map(|key| by_name(key, &query.body)).collect::<Result<_>>()?;
            in_subquery(query);
            named
        }
    };
    let SetExpr::Select(body) = query.body.as_mut() else {
        return Err(SqlError::unsupported("FETCH FIRST .. WITH TIES over this query"));
    };
    let keys = order_by.into_iter().map(|mut key| {
        key.expr = meant(key.expr, &body.projection)?;
        Ok(key)
    });
    let keys: Vec<ast::OrderByExpr> = keys.collect::<Result<_>>()?;
    let over = |function: &str| {
        let mut call = call(function, vec![]);
        if let Expr::Function(call) = &mut call {
            let spec =
                ast::WindowSpec { window_name: None, partition_by: vec![], order_by: keys.clone(), window_frame: None };
            call.over = Some(ast::WindowType::WindowSpec(spec));
        }
        call
    };
    let nested = |e: Expr| Box::new(Expr::Nested(Box::new(e)));
    let binary = |left: Expr, op, right: Expr| Expr::BinaryOp { left: nested(left), op, right: nested(right) };
    // The value of a parameter may be NULL, which is no limit.
    let quantity = match &quantity {
        Expr::Value(value) if parameter_number(&value.value).is_some() => {
            call("coalesce", vec![quantity, Expr::value(Value::Number(i64::MAX.to_string(), false))])
        }
        _ => quantity,
    };
    // No row has no ties; behind an OFFSET, the rank alone would let those of the rows before in.
    let some = binary(quantity.clone(), BinaryOperator::Gt, Expr::value(Value::Number("0".into(), false)));
    let is_some =
        matches!(&quantity, Expr::Value(value) if matches!(&value.value, Value::Number(n, _) if n.parse() != Ok(0)));
    let mut condition = match offset {
        None => binary(over("rank"), BinaryOperator::LtEq, quantity),
        Some(offset) => {
            let last = binary(offset.clone(), BinaryOperator::Plus, quantity);
            let ranked = binary(over("rank"), BinaryOperator::LtEq, last);
            binary(binary(over("row_number"), BinaryOperator::Gt, offset), BinaryOperator::And, ranked)
        }
    };
    if !is_some {
        condition = binary(some, BinaryOperator::And, condition);
    }
    if let Some(present) = body.qualify.take() {
        condition = binary(present, BinaryOperator::And, condition);
    }
    body.qualify = Some(condition);
    Ok(())
}

/// Whether a key of ORDER BY is a column of the SELECT list, by its number or name.
fn is_output(key: &Expr, items: &[SelectItem]) -> bool {
    match key {
        Expr::Value(_) => true,
        Expr::Identifier(name) => items.iter().filter_map(name_of).any(|own| fold(own) == fold(name)),
        _ => false,
    }
}

fn returns_set(item: &SelectItem) -> bool {
    let is_call = |expr: &Expr| match expr {
        Expr::Function(function) => {
            function.name.0.last().and_then(|part| part.as_ident()).is_some_and(|name| sets::is_known(&fold(name)))
        }
        _ => false,
    };
    own_exprs(item, &mut |expr| if is_call(expr) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        .is_break()
}

fn orders_by_window(keys: &[ast::OrderByExpr], items: &[SelectItem]) -> bool {
    keys.iter().any(|key| meant(key.expr.clone(), items).is_ok_and(|expr| has_window(&expr)))
}

/// DISTINCT and set operations come before the ranks: they become a subquery.
fn in_subquery(query: &mut Query) {
    let star = vec![SelectItem::Wildcard(ast::WildcardAdditionalOptions::default())];
    let mut inner = select(vec![], vec![], None, None);
    std::mem::swap(&mut inner.body, &mut query.body);
    let table = ast::TableFactor::Derived {
        lateral: false,
        subquery: Box::new(inner),
        alias: Some(ast::TableAlias {
            explicit: true,
            name: ast::Ident::with_quote('"', "__with_ties"),
            columns: vec![],
            at: None,
        }),
        sample: None,
    };
    let from = ast::TableWithJoins { relation: table, joins: vec![] };
    query.body = select(star, vec![from], None, None).body;
}

/// A column's number as its name, which a query around this one knows.
fn by_name(mut key: ast::OrderByExpr, body: &SetExpr) -> Result<ast::OrderByExpr> {
    let Expr::Value(value) = &key.expr else { return Ok(key) };
    let Value::Number(number, _) = &value.value else { return Ok(key) };
    let item = number.parse::<usize>().ok().and_then(|n| n.checked_sub(1)).and_then(|at| items(body).get(at));
    let unnamed = || SqlError::unsupported("WITH TIES with the number of a column that has no name");
    key.expr = Expr::Identifier(item.and_then(name_of).ok_or_else(unnamed)?.clone());
    Ok(key)
}

/// The name of a column of the SELECT list, where it is written.
fn name_of(item: &SelectItem) -> Option<&ast::Ident> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(path)) => path.last(),
        _ => None,
    }
}

/// Whether the body is what [`crate::set_operation`] makes of EXCEPT and INTERSECT.
fn is_set_operation(body: &SetExpr) -> bool {
    matches!(body, SetExpr::Select(select) if operation(select).is_some())
}

/// The query of `SELECT * FROM (query) AS a`.
fn operation(select: &ast::Select) -> Option<&Query> {
    let ([SelectItem::Wildcard(_)], [from]) = (select.projection.as_slice(), select.from.as_slice()) else {
        return None;
    };
    match &from.relation {
        ast::TableFactor::Derived { subquery, .. } if from.joins.is_empty() => Some(subquery),
        _ => None,
    }
}

/// The SELECT list that gives a query's columns their names.
fn items(body: &SetExpr) -> &[SelectItem] {
    match body {
        SetExpr::Select(select) => match operation(select) {
            Some(subquery) => items(&subquery.body),
            None => &select.projection,
        },
        SetExpr::SetOperation { left, .. } => items(left),
        SetExpr::Query(query) => items(&query.body),
        _ => &[],
    }
}

/// What an ORDER BY item stands for: a column of the SELECT list by its number or its name, or itself.
fn meant(expr: Expr, items: &[SelectItem]) -> Result<Expr> {
    let of = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr.clone()),
        _ => None,
    };
    match &expr {
        Expr::Value(value) => {
            let Value::Number(number, _) = &value.value else { return Ok(expr) };
            let at = number.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
            let is_listed = items.iter().all(|item| of(item).is_some());
            match at.and_then(|at| items.get(at)).and_then(of).filter(|_| is_listed) {
                Some(meant) => Ok(meant),
                None if is_listed => {
                    let message = format!("ORDER BY position {number} is not in select list");
                    Err(SqlError::new(SqlState::InvalidColumnReference, message))
                }
                None => Err(SqlError::unsupported("WITH TIES with an ORDER BY position behind *")),
            }
        }
        Expr::Identifier(name) => {
            let name = fold(name);
            let named = items.iter().find_map(|item| match item {
                SelectItem::ExprWithAlias { expr, alias } if fold(alias) == name => Some(expr.clone()),
                _ => None,
            });
            Ok(named.unwrap_or(expr))
        }
        _ => Ok(expr),
    }
}
