//! `SELECT .. FROM account WHERE EXISTS (SELECT .. FROM payment WHERE payment.account = account.id)`: inside, DataFusion
//! takes `account.id` for a field of the column `payment.account`. So a table of a query outside gets a schema as well.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Ident, Query, Select, SetExpr, TableFactor, TableWithJoins, VisitorMut};
use tidewire_sql::{fold, walk_mut};

/// The schema. No column has this name; the names of tables in a query have no schema, and match with any.
pub(crate) const OUTER: &str = "outer\u{1}";

/// Marks the names of tables outside.
pub(super) fn mark(query: &mut Query) {
    let _ = walk_mut(query, &mut Marker::default());
}

#[derive(Default)]
struct Marker {
    /// The names of the FROM items of the queries and SELECTs around, and those of the query itself.
    around: Vec<Vec<String>>,
    /// Those that a subquery in FROM, which is not LATERAL, does not see.
    hidden: Vec<Vec<String>>,
}

impl VisitorMut for Marker {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        // ORDER BY stands outside of the SELECT.
        self.around.push(match (query.body.as_ref(), query.order_by.is_some()) {
            (SetExpr::Select(select), true) => names(select),
            _ => vec![],
        });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.around.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if matches!(factor, TableFactor::Derived { lateral: false, .. }) {
            self.hidden.push(self.around.last_mut().map(std::mem::take).unwrap_or_default());
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if matches!(factor, TableFactor::Derived { lateral: false, .. })
            && let (Some(own), Some(names)) = (self.around.last_mut(), self.hidden.pop())
        {
            *own = names;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.around.push(names(select));
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &mut Select) -> ControlFlow<()> {
        self.around.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::CompoundIdentifier(parts) = expr else { return ControlFlow::Continue(()) };
        let ([table, _], Some((own, around))) = (parts.as_slice(), self.around.split_last()) else {
            return ControlFlow::Continue(());
        };
        let table = fold(table);
        if !own.contains(&table) && around.iter().any(|names| names.contains(&table)) {
            parts.insert(0, Ident::with_quote('"', OUTER));
        }
        ControlFlow::Continue(())
    }
}

/// The names of the items of FROM.
fn names(select: &Select) -> Vec<String> {
    let mut names = vec![];
    select.from.iter().for_each(|item| add_names(item, &mut names));
    names
}

fn add_names(item: &TableWithJoins, names: &mut Vec<String>) {
    for factor in std::iter::once(&item.relation).chain(item.joins.iter().map(|join| &join.relation)) {
        names.extend(name_of(factor));
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
            add_names(table_with_joins, names);
        }
    }
}

/// The name that an item of FROM has in the query.
pub(crate) fn name_of(factor: &TableFactor) -> Option<String> {
    let alias = match factor {
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. }
        | TableFactor::NestedJoin { alias, .. } => alias.as_ref(),
        _ => None,
    };
    match (alias, factor) {
        (Some(alias), _) => Some(fold(&alias.name)),
        (None, TableFactor::Table { name, .. }) => name.0.last().and_then(|part| part.as_ident()).map(fold),
        _ => None,
    }
}
