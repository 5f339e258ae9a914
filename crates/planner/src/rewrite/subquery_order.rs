//! The order of a subquery that is all of a query's FROM is the query's, where that has none of its own: `SELECT * FROM
//! (SELECT .. ORDER BY k) t LIMIT 10`, as BI tools write it around a user's query. DataFusion drops it. And it is the
//! order of the rows for the query's aggregates: `SELECT json_agg(t) FROM (SELECT .. ORDER BY k) t`.

use std::ops::ControlFlow;

use sqlparser::ast::{
    self, Expr, Function, FunctionArgumentClause, FunctionArgumentList, FunctionArguments, GroupByExpr, Ident,
    OrderByExpr, OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableFactor, Value,
};
use tidewire_sql::own_exprs_mut;

use crate::aggregates;

/// Begins the names of columns that only the order needs.
const KEY: &str = "key\u{1}order";

/// Gives the query the order of its subquery.
pub(super) fn keep(query: &mut Query) {
    if query.order_by.is_some() {
        return;
    }
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    if let Some(keys) = order_of(select) {
        let kind = OrderByKind::Expressions(keys);
        query.order_by = Some(ast::OrderBy { kind, interpolate: None });
    }
}

fn order_of(select: &mut Select) -> Option<Vec<OrderByExpr>> {
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    if !ungrouped || select.distinct.is_some() || select.having.is_some() || aggregates::in_items(&select.projection) {
        return None;
    }
    if let TableFactor::Derived { subquery, .. } = &select.from.first()?.relation
        && (subquery.limit_clause.is_some() || subquery.fetch.is_some())
    {
        return None;
    }
    keys_of(select, true)
}

/// Gives the aggregates that put rows together, and say no order, the order of the query's subquery.
pub(super) fn in_aggregates(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let mut is_found = false;
    let _ = own_exprs_mut(&mut select.projection, &mut |expr| {
        is_found |= list_in_order_of_rows(expr).is_some();
        ControlFlow::Continue(())
    });
    if !is_found {
        return;
    }
    let Some(keys) = keys_of(select, false) else { return };
    let _ = own_exprs_mut(&mut select.projection, &mut |expr| {
        if let Some(list) = list_in_order_of_rows(expr) {
            list.clauses.push(FunctionArgumentClause::OrderBy(keys.clone()));
        }
        ControlFlow::Continue(())
    });
}

/// The arguments of an aggregate whose value is made in the order in which rows come.
fn list_in_order_of_rows(expr: &mut Expr) -> Option<&mut FunctionArgumentList> {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), over: None, within_group, .. }) = expr
    else {
        return None;
    };
    let name = name.0.last().and_then(|part| part.as_ident()).map(tidewire_sql::fold)?;
    let ordered = ["array_agg", "string_agg", "json_agg", "jsonb_agg", "json_object_agg"];
    let is_such = ordered.contains(&name.as_str())
        && within_group.is_empty()
        && list.duplicate_treatment != Some(ast::DuplicateTreatment::Distinct)
        && list.clauses.is_empty();
    is_such.then_some(list)
}

/// The order of the subquery that is all of FROM, over columns that it returns from now on. None: it has none, or for the
/// query's own order, its columns have names of others.
fn keys_of(select: &mut Select, for_query: bool) -> Option<Vec<OrderByExpr>> {
    let [from] = select.from.as_mut_slice() else { return None };
    let TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None } = &mut from.relation else {
        return None;
    };
    if !from.joins.is_empty() || !alias.columns.is_empty() {
        return None;
    }
    let table = alias.name.clone();
    let Some(ast::OrderBy { kind: OrderByKind::Expressions(keys), interpolate: None }) = &subquery.order_by else {
        return None;
    };
    let mut keys = keys.clone();
    let SetExpr::Select(inner) = subquery.body.as_mut() else { return None };
    let mut added = vec![];
    for (idx, key) in keys.iter_mut().enumerate() {
        let column = match output_name(&key.expr, inner) {
            Some(column) => column,
            None => {
                let name = Ident::with_quote('"', format!("{KEY}{idx}"));
                added.push(SelectItem::ExprWithAlias { expr: key.expr.clone(), alias: name.clone() });
                name
            }
        };
        // DataFusion could not tell the two apart.
        if for_query && select.projection.iter().any(|item| hides(item, &column)) {
            return None;
        }
        key.expr = Expr::CompoundIdentifier(vec![table.clone(), column]);
    }
    if !added.is_empty() {
        if inner.distinct.is_some() || matches!(&inner.group_by, GroupByExpr::All(_)) {
            return None;
        }
        without_wildcards(&mut select.projection, &table, &inner.projection)?;
        inner.projection.extend(added);
    }
    Some(keys)
}

/// The name under which the subquery returns the key. None: it does not.
fn output_name(key: &Expr, inner: &Select) -> Option<Ident> {
    let items = &inner.projection;
    let is_one_table = matches!(inner.from.as_slice(), [from] if from.joins.is_empty());
    let has_wildcard = items.iter().any(|item| name_of(item).is_none());
    match key {
        Expr::Value(place) => {
            let Value::Number(place, _) = &place.value else { return None };
            let place: usize = place.parse().ok().filter(|_| !has_wildcard)?;
            name_of(items.get(place.checked_sub(1)?)?)
        }
        Expr::Identifier(name) => {
            let folded = tidewire_sql::fold(name);
            let named = items.iter().filter_map(name_of).find(|item| tidewire_sql::fold(item) == folded);
            named.or_else(|| has_wildcard.then(|| name.clone()))
        }
        key => {
            let named = items.iter().find_map(|item| match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } if expr == key => name_of(item),
                _ => None,
            });
            let column = match key {
                Expr::CompoundIdentifier(parts) if has_wildcard && is_one_table => parts.last().cloned(),
                _ => None,
            };
            named.or(column)
        }
    }
}

/// Whether something else is returned under the column's name.
fn hides(item: &SelectItem, column: &Ident) -> bool {
    let is_named = |name: &Ident| tidewire_sql::fold(name) == tidewire_sql::fold(column);
    match item {
        SelectItem::ExprWithAlias { expr: Expr::Identifier(own), alias } => is_named(alias) && !is_named(own),
        SelectItem::ExprWithAlias { expr: Expr::CompoundIdentifier(parts), alias } => {
            is_named(alias) && !parts.last().is_some_and(is_named)
        }
        SelectItem::ExprWithAlias { alias, .. } => is_named(alias),
        _ => false,
    }
}

fn name_of(item: &SelectItem) -> Option<Ident> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.clone()),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.clone()),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().cloned(),
        _ => None,
    }
}

/// Spells wildcards out. None: they stand for columns without known names.
fn without_wildcards(projection: &mut Vec<SelectItem>, table: &Ident, items: &[SelectItem]) -> Option<()> {
    let names: Option<Vec<Ident>> = items.iter().map(name_of).collect();
    let mut spelled = vec![];
    for item in projection.iter() {
        let is_all = match item {
            SelectItem::Wildcard(options) => *options == ast::WildcardAdditionalOptions::default(),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(_), _) => true,
            _ => {
                spelled.push(item.clone());
                continue;
            }
        };
        let columns = names.as_ref().filter(|_| is_all)?;
        let column = |name: &Ident| Expr::CompoundIdentifier(vec![table.clone(), name.clone()]);
        spelled
            .extend(columns.iter().map(|name| SelectItem::ExprWithAlias { expr: column(name), alias: name.clone() }));
    }
    *projection = spelled;
    Some(())
}
