//! `ARRAY(query)`: the values of a query's only column as an array, in the query's order; an empty one where there are
//! no rows.
//!
//! It becomes a scalar subquery with `array_agg`, whose order is the query's ORDER BY.

use sqlparser::ast::{
    self, Distinct, Expr, FunctionArguments, Ident, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor, Value,
};
use tidewire_types::{Result, SqlError, SqlState};

use super::call;
use crate::dml::select;
use crate::functions::arrays::NOT_NULL;

/// The name of a query whose rows become an array, and of its item.
pub(crate) const ITEM: &str = "item\u{1}array";

/// Rewrites `expr` if it is one. Errors: `42601` for a query of several columns, `42P10` for an order that is not there.
pub(super) fn rewrite(expr: &mut Expr) -> Result<()> {
    let Expr::Function(function) = expr else { return Ok(()) };
    let FunctionArguments::Subquery(query) = &mut function.args else { return Ok(()) };
    let is_array = matches!(function.name.0.as_slice(), [part] if part.as_ident().is_some_and(|name| name.value.eq_ignore_ascii_case("array")));
    if !is_array {
        return Ok(());
    }
    let mut query = std::mem::replace(query.as_mut(), select(vec![], vec![], None, None));
    while let (None, None, None, None, SetExpr::Query(inner)) =
        (&query.with, &query.order_by, &query.limit_clause, &query.fetch, query.body.as_mut())
    {
        query = std::mem::replace(inner, select(vec![], vec![], None, None));
    }
    let (order, n_keys) = take_order(&mut query)?;
    let item = Ident::with_quote('"', ITEM);
    let names = std::iter::once(item.clone()).chain((0..n_keys).map(key_name));
    let columns = names.map(|name| ast::TableAliasColumnDef { name, data_type: None }).collect();
    let alias = ast::TableAlias { explicit: true, name: item.clone(), columns, at: None };
    let relation = TableFactor::Derived { lateral: false, subquery: Box::new(query), alias: Some(alias), sample: None };
    let from = vec![ast::TableWithJoins { relation, joins: vec![] }];
    let mut aggregate = call("array_agg", vec![Expr::Identifier(item)]);
    if let Expr::Function(function) = &mut aggregate
        && let FunctionArguments::List(list) = &mut function.args
        && !order.is_empty()
    {
        list.clauses.push(ast::FunctionArgumentClause::OrderBy(order));
    }
    let all = select(vec![SelectItem::UnnamedExpr(aggregate)], from, None, None);
    *expr = call(NOT_NULL, vec![Expr::Subquery(Box::new(all))]);
    Ok(())
}

fn key_name(idx: usize) -> Ident {
    Ident::with_quote('"', format!("{ITEM}{idx}"))
}

/// The query's order, over the item and further columns that the query gets for it, and how many these are. The query keeps
/// its order where that decides about its rows.
fn take_order(query: &mut Query) -> Result<(Vec<ast::OrderByExpr>, usize)> {
    let Some(ast::OrderBy { kind: OrderByKind::Expressions(keys), .. }) = &query.order_by else {
        return Ok((vec![], 0));
    };
    let keys = keys.clone();
    let is_cut = query.limit_clause.is_some() || query.fetch.is_some();
    let mut further: Vec<Expr> = vec![];
    let mut order = vec![];
    let mut select = match query.body.as_mut() {
        SetExpr::Select(select) => Some(select),
        _ => None,
    };
    for key in keys {
        let is_item = match &select {
            Some(select) => is_item(&key.expr, select)?,
            // That of a set operation has no other columns to sort by.
            None => true,
        };
        let name = if is_item { Ident::with_quote('"', ITEM) } else { key_name(further.len()) };
        if !is_item {
            further.push(key.expr.clone());
        }
        order.push(ast::OrderByExpr { expr: Expr::Identifier(name), ..key });
    }
    let n_keys = further.len();
    if let Some(select) = &mut select {
        if matches!(select.distinct, Some(Distinct::Distinct)) && n_keys > 0 {
            let message = "for SELECT DISTINCT, ORDER BY expressions must appear in select list";
            return Err(SqlError::new(SqlState::InvalidColumnReference, message));
        }
        let further = further.into_iter().enumerate();
        let items = further.map(|(idx, expr)| SelectItem::ExprWithAlias { expr, alias: key_name(idx) });
        select.projection.extend(items);
        if !is_cut && !matches!(select.distinct, Some(Distinct::On(_))) {
            query.order_by = None;
        }
    }
    Ok((order, n_keys))
}

/// Whether the only column of the query is what it is sorted by.
fn is_item(key: &Expr, select: &Select) -> Result<bool> {
    let [item] = select.projection.as_slice() else {
        return Err(SqlError::new(SqlState::SyntaxError, "subquery must return only one column"));
    };
    if let Expr::Value(place) = key
        && let Value::Number(place, _) = &place.value
    {
        if place == "1" {
            return Ok(true);
        }
        let message = format!("ORDER BY position {place} is not in select list");
        return Err(SqlError::new(SqlState::InvalidColumnReference, message));
    }
    let (value, name) = match item {
        SelectItem::ExprWithAlias { expr, alias } => (expr, Some(alias)),
        SelectItem::UnnamedExpr(expr) => (expr, last_name(expr)),
        // Of DISTINCT * there is no other column.
        _ => return Ok(matches!(key, Expr::Identifier(_)) && select.distinct.is_some()),
    };
    let is_name = |ident: &Ident| name.is_some_and(|name| tidewire_sql::fold(name) == tidewire_sql::fold(ident));
    Ok(key == value || matches!(key, Expr::Identifier(ident) if is_name(ident)))
}

fn last_name(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Identifier(ident) => Some(ident),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    }
}
