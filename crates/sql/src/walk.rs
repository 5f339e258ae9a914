//! Visitors of the AST behind a pointer. sqlparser compiles its whole traversal again for each type of visitor; there are
//! some twenty, and together they were most of the planner's code.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, ObjectName, Query, Select, Statement, TableFactor, ValueWithSpan, Visit, VisitMut, Visitor, VisitorMut,
};

/// Shows `visitor` all that stands in `node`, until it breaks.
pub fn walk<T: Visit, B>(node: &T, visitor: &mut dyn Visitor<Break = B>) -> ControlFlow<B> {
    node.visit(&mut Shared(visitor))
}

/// The same, where the visitor may change what it sees.
pub fn walk_mut<T: VisitMut, B>(node: &mut T, visitor: &mut dyn VisitorMut<Break = B>) -> ControlFlow<B> {
    node.visit(&mut Unique(visitor))
}

/// Whether there is such an expression in `node`, also in its subqueries.
pub fn has_expr<T: Visit>(node: &T, is: &dyn Fn(&Expr) -> bool) -> bool {
    walk(node, &mut Finds(is)).is_break()
}

struct Finds<'a>(&'a dyn Fn(&Expr) -> bool);

impl Visitor for Finds<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if (self.0)(expr) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Shows `see` each expression that stands in `node` itself, not those in its subqueries, until it breaks.
pub fn own_exprs<T: Visit>(node: &T, see: &mut dyn FnMut(&Expr) -> ControlFlow<()>) -> ControlFlow<()> {
    walk(node, &mut Own { see, n_queries: 0 })
}

/// The same, where `see` may change what it sees.
pub fn own_exprs_mut<T: VisitMut>(node: &mut T, see: &mut dyn FnMut(&mut Expr) -> ControlFlow<()>) -> ControlFlow<()> {
    walk_mut(node, &mut Own { see, n_queries: 0 })
}

struct Own<F> {
    see: F,
    /// The queries around the place where the walk is.
    n_queries: usize,
}

impl Visitor for Own<&mut dyn FnMut(&Expr) -> ControlFlow<()>> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.n_queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.n_queries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.n_queries == 0 { (self.see)(expr) } else { ControlFlow::Continue(()) }
    }
}

impl VisitorMut for Own<&mut dyn FnMut(&mut Expr) -> ControlFlow<()>> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.n_queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.n_queries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.n_queries == 0 { (self.see)(expr) } else { ControlFlow::Continue(()) }
    }
}

struct Shared<'a, B>(&'a mut dyn Visitor<Break = B>);
struct Unique<'a, B>(&'a mut dyn VisitorMut<Break = B>);

macro_rules! forward {
    ($($name:ident($node:ty);)*) => {
        $(fn $name(&mut self, node: $node) -> ControlFlow<B> {
            self.0.$name(node)
        })*
    };
}

impl<B> Visitor for Shared<'_, B> {
    type Break = B;

    forward! {
        pre_visit_query(&Query);
        post_visit_query(&Query);
        pre_visit_select(&Select);
        post_visit_select(&Select);
        pre_visit_relation(&ObjectName);
        post_visit_relation(&ObjectName);
        pre_visit_table_factor(&TableFactor);
        post_visit_table_factor(&TableFactor);
        pre_visit_expr(&Expr);
        post_visit_expr(&Expr);
        pre_visit_statement(&Statement);
        post_visit_statement(&Statement);
        pre_visit_value(&ValueWithSpan);
        post_visit_value(&ValueWithSpan);
    }
}

impl<B> VisitorMut for Unique<'_, B> {
    type Break = B;

    forward! {
        pre_visit_query(&mut Query);
        post_visit_query(&mut Query);
        pre_visit_select(&mut Select);
        post_visit_select(&mut Select);
        pre_visit_relation(&mut ObjectName);
        post_visit_relation(&mut ObjectName);
        pre_visit_table_factor(&mut TableFactor);
        post_visit_table_factor(&mut TableFactor);
        pre_visit_expr(&mut Expr);
        post_visit_expr(&mut Expr);
        pre_visit_statement(&mut Statement);
        post_visit_statement(&mut Statement);
        pre_visit_value(&mut ValueWithSpan);
        post_visit_value(&mut ValueWithSpan);
    }
}
