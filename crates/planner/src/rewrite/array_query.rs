//! `ARRAY(query)`: the values of a query's only column as an array, in the query's order; an empty one where there are
//! no rows.
//!
//! It becomes a scalar subquery with `array_agg`, whose order is the query's ORDER BY.

use sqlparser::ast::{
    self, Expr, FunctionArguments, GroupByExpr, Ident, OrderByKind, Query, SelectItem, SetExpr, TableFactor, Value,
};
use tidewire_types::{Result, SqlError, SqlState};

use super::call;
use crate::dml::select;
use crate::functions::arrays::NOT_NULL;

const ITEM: &str = "item\u{1}array";

/// Rewrites `expr` if it is one. Errors: `42601` for a query of several columns, `0A000` for an order that is lost.
pub(super) fn rewrite(expr: &mut Expr) -> Result<()> {
    let Expr::Function(function) = expr else { return Ok(()) };
    let FunctionArguments::Subquery(query) = &mut function.args else { return Ok(()) };
    let is_array = matches!(function.name.0.as_slice(), [part] if part.as_ident().is_some_and(|name| name.value.eq_ignore_ascii_case("array")));
    if !is_array {
        return Ok(());
    }
    let order = order_of(query)?;
    query.order_by = if order.is_some() { None } else { query.order_by.take() };
    let item = Ident::with_quote('"', ITEM);
    let keys = order.unwrap_or_default();
    if !keys.is_empty() {
        add_keys(query, &keys);
    }
    let names = std::iter::once(item.clone()).chain((0..keys.len()).map(key_name));
    let columns = names.map(|name| ast::TableAliasColumnDef { name, data_type: None }).collect();
    let alias = ast::TableAlias { explicit: true, name: item.clone(), columns, at: None };
    let subquery = Box::new(std::mem::replace(query.as_mut(), select(vec![], vec![], None, None)));
    let relation = TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None };
    let from = vec![ast::TableWithJoins { relation, joins: vec![] }];
    let mut aggregate = call("array_agg", vec![Expr::Identifier(item)]);
    if let Expr::Function(function) = &mut aggregate
        && let FunctionArguments::List(list) = &mut function.args
        && !keys.is_empty()
    {
        let order = keys
            .into_iter()
            .enumerate()
            .map(|(idx, key)| ast::OrderByExpr { expr: Expr::Identifier(key_name(idx)), ..key });
        list.clauses.push(ast::FunctionArgumentClause::OrderBy(order.collect()));
    }
    let all = select(vec![SelectItem::UnnamedExpr(aggregate)], from, None, None);
    *expr = call(NOT_NULL, vec![Expr::Subquery(Box::new(all))]);
    Ok(())
}

fn key_name(idx: usize) -> Ident {
    Ident::with_quote('"', format!("{ITEM}{idx}"))
}

/// The keys of the query's order, over its FROM clause. None: it has none, or LIMIT needs it where it is.
fn order_of(query: &Query) -> Result<Option<Vec<ast::OrderByExpr>>> {
    let Some(ast::OrderBy { kind: OrderByKind::Expressions(keys), .. }) = &query.order_by else { return Ok(None) };
    let refused = || Err(SqlError::unsupported("ARRAY(query) with this ORDER BY"));
    let SetExpr::Select(body) = query.body.as_ref() else { return refused() };
    let is_grouped = !matches!(&body.group_by, GroupByExpr::Expressions(exprs, _) if exprs.is_empty());
    if body.distinct.is_some() || is_grouped || query.limit_clause.is_some() || query.fetch.is_some() {
        return refused();
    }
    let [item] = body.projection.as_slice() else {
        return Err(SqlError::new(SqlState::SyntaxError, "subquery must return only one column"));
    };
    let (value, name) = match item {
        SelectItem::UnnamedExpr(expr) => (expr, None),
        SelectItem::ExprWithAlias { expr, alias } => (expr, Some(alias)),
        _ => return refused(),
    };
    let keys = keys.iter().map(|key| {
        let is_item = match &key.expr {
            Expr::Value(place) => matches!(&place.value, Value::Number(place, _) if place == "1"),
            Expr::Identifier(ident) => name.is_some_and(|name| tidewire_sql::fold(name) == tidewire_sql::fold(ident)),
            _ => false,
        };
        ast::OrderByExpr { expr: if is_item { value.clone() } else { key.expr.clone() }, ..key.clone() }
    });
    Ok(Some(keys.collect()))
}

/// The keys as further columns of the query.
fn add_keys(query: &mut Query, keys: &[ast::OrderByExpr]) {
    let SetExpr::Select(body) = query.body.as_mut() else { return };
    let keys = keys.iter().enumerate();
    body.projection
        .extend(keys.map(|(idx, key)| SelectItem::ExprWithAlias { expr: key.expr.clone(), alias: key_name(idx) }));
}
