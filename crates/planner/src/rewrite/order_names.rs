//! `SELECT -c AS c FROM t ORDER BY t.c`: the key is the table's column, the output's is another.
//!
//! DataFusion adds the key to the SELECT list, where it and the output's column cannot be told apart. So the output's
//! gets a hidden suffix ([`crate::column_names`]), here and in the keys that mean it. Only in a query that no other
//! stands around: there nothing else names its columns.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Ident, OrderByKind, Query, SelectItem, SetExpr, Visitor};
use tidewire_sql::{fold, walk};

/// Renames the columns of the SELECT list that a key's own column would clash with.
pub(super) fn separate(query: &mut Query) {
    let Some(order_by) = &mut query.order_by else { return };
    let (OrderByKind::Expressions(keys), SetExpr::Select(select)) = (&mut order_by.kind, query.body.as_mut()) else {
        return;
    };
    let mut qualified = Qualified::default();
    keys.iter().for_each(|key| _ = walk(&key.expr, &mut qualified));
    for (idx, item) in select.projection.iter_mut().enumerate() {
        let SelectItem::ExprWithAlias { expr, alias } = item else { continue };
        let name = fold(alias);
        let is_clash =
            |key: &Expr| matches!(key, Expr::CompoundIdentifier(parts) if key != expr && is_named(parts, &name));
        if !qualified.0.iter().any(is_clash) {
            continue;
        }
        let hidden = Ident::with_quote('"', format!("{name}\u{1}order{idx}"));
        for key in keys.iter_mut() {
            if matches!(&key.expr, Expr::Identifier(own) if fold(own) == name) {
                key.expr = Expr::Identifier(hidden.clone());
            }
        }
        *alias = hidden;
    }
}

fn is_named(parts: &[Ident], name: &str) -> bool {
    parts.last().is_some_and(|part| fold(part) == name)
}

/// The columns with a qualifier in an expression.
#[derive(Default)]
struct Qualified(Vec<Expr>);

impl Visitor for Qualified {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if matches!(expr, Expr::CompoundIdentifier(_)) {
            self.0.push(expr.clone());
        }
        ControlFlow::Continue(())
    }
}
