//! Expressions of a wanted type.

use std::cell::Cell;

use super::window::Windows;
use super::{Column, Generator};
use crate::fuzz::features::Feature;
use crate::fuzz::functions::{self, Function, Hole};
use crate::fuzz::tree::{Expr, Part};
use crate::fuzz::types::Type;

/// What expressions at some place of a query may use.
pub(super) struct Cx<'a> {
    /// Columns.
    pub(super) columns: &'a [Column],
    /// Columns of the queries around.
    pub(super) outer: &'a [Column],
    /// In an aggregation: the columns of its input, for the arguments of aggregates.
    pub(super) aggregated: Option<&'a [Column]>,
    /// Where functions OVER a window may stand.
    pub(super) windows: Option<&'a Windows>,
    /// How many queries may stand inside each other here.
    pub(super) nest: usize,
    /// How many aggregates were written.
    pub(super) n_aggregates: Cell<usize>,
}

impl<'a> Cx<'a> {
    pub(super) fn of_columns(columns: &'a [Column]) -> Cx<'a> {
        Cx { columns, outer: &[], aggregated: None, windows: None, nest: 0, n_aggregates: Cell::new(0) }
    }

    /// The same place, for arguments: without windows, and without subqueries where those may not stand anywhere.
    fn argument(&self, nest: usize) -> Cx<'a> {
        Cx { nest, windows: None, n_aggregates: Cell::new(0), ..*self }
    }

    /// All columns that a query inside may use.
    pub(super) fn visible(&self) -> Vec<Column> {
        self.columns.iter().chain(self.outer).cloned().collect()
    }
}

impl Generator {
    pub(super) fn expr(&mut self, ty: Type, cx: &Cx<'_>, depth: usize) -> Expr {
        if let Some(columns) = cx.aggregated
            && self.random.chance(60)
            && let Some(aggregate) = self.aggregate(ty, columns)
        {
            cx.n_aggregates.set(cx.n_aggregates.get() + 1);
            return aggregate;
        }
        if let Some(windows) = cx.windows
            && self.random.chance(40)
            && let Some(call) = self.windowed(ty, cx, windows)
        {
            return call;
        }
        if cx.nest > 0 && self.uses(Feature::ScalarSubquery, 15) {
            return self.scalar_subquery(ty, cx);
        }
        if cx.nest > 0
            && self.uses(Feature::ArrayQuery, 40)
            && let Some(query) = self.array_query(ty, cx)
        {
            return query;
        }
        if depth == 0 || self.random.chance(35) {
            return self.leaf(ty, cx);
        }
        if ty == Type::Bool
            && cx.nest > 0
            && self.random.chance(15)
            && let Some(predicate) = self.subquery_predicate(cx)
        {
            return predicate;
        }
        match self.function(&functions::SCALAR, ty) {
            Some(function) => {
                let nest = if self.on(Feature::SubqueryAnywhere) { cx.nest } else { 0 };
                let argument = cx.argument(nest);
                let call = self.call(&function, &argument, depth - 1);
                cx.n_aggregates.set(cx.n_aggregates.get() + argument.n_aggregates.get());
                call
            }
            None => self.leaf(ty, cx),
        }
    }

    /// A condition: a comparison, or a subquery.
    pub(super) fn predicate(&mut self, cx: &Cx<'_>, depth: usize) -> Expr {
        if cx.nest > 0
            && self.random.chance(40)
            && let Some(predicate) = self.subquery_predicate(cx)
        {
            return predicate;
        }
        let nest = if self.on(Feature::SubqueryAnywhere) { cx.nest } else { 0 };
        let argument = cx.argument(nest);
        match self.function(&functions::SCALAR, Type::Bool) {
            Some(function) => {
                let call = self.call(&function, &argument, depth);
                cx.n_aggregates.set(cx.n_aggregates.get() + argument.n_aggregates.get());
                call
            }
            None => self.leaf(Type::Bool, cx),
        }
    }

    /// A column or a literal.
    pub(super) fn leaf(&mut self, ty: Type, cx: &Cx<'_>) -> Expr {
        let from_outer = self.random.chance(20);
        let columns = if from_outer && !cx.outer.is_empty() { cx.outer } else { cx.columns };
        let of_type: Vec<&Column> = columns.iter().filter(|c| c.ty == ty).collect();
        if !of_type.is_empty() && self.random.chance(80) {
            return Expr::text(ty, self.random.pick(&of_type).sql.clone());
        }
        if self.random.chance(5) {
            return Expr::text(ty, format!("NULL::{}", ty.sql()));
        }
        Expr::text(ty, ty.literal(&mut self.random))
    }

    /// A function with this result, of those that are on.
    pub(super) fn function(&mut self, functions: &[Function], result: Type) -> Option<Function> {
        let fitting: Vec<&Function> = functions.iter().filter(|f| f.result == result && f.on(&self.features)).collect();
        if fitting.is_empty() { None } else { Some((*self.random.pick(&fitting)).clone()) }
    }

    pub(super) fn call(&mut self, function: &Function, cx: &Cx<'_>, depth: usize) -> Expr {
        let mut parts = vec![];
        for hole in &function.template {
            parts.push(match hole {
                Hole::Text(text) => Part::Text(text.clone()),
                Hole::Argument(ty) => Part::Expr(self.expr(*ty, cx, depth)),
                Hole::Literal(ty) => Part::Text(ty.literal(&mut self.random)),
                Hole::Untyped(ty) => Part::Text(ty.untyped(&mut self.random)),
                Hole::Again(nth) => Part::Again(*nth),
                Hole::Distinct if self.uses(Feature::AggregateDistinct, 30) => {
                    Part::Optional(vec![Part::Text("DISTINCT ".into())])
                }
                Hole::Distinct => continue,
            });
        }
        Expr { ty: function.result, parts }
    }

    /// An aggregate over these columns.
    pub(super) fn aggregate(&mut self, ty: Type, columns: &[Column]) -> Option<Expr> {
        let function = self.function(&functions::AGGREGATES, ty)?;
        let cx = Cx::of_columns(columns);
        let depth = self.random.below(2);
        let mut call = self.call(&function, &cx, depth);
        if self.uses(Feature::AggregateFilter, 25) {
            let filter = self.predicate(&cx, 0);
            let parts = vec![Part::Text(" FILTER (WHERE ".into()), Part::Expr(filter), Part::Text(")".into())];
            call.parts.push(Part::Optional(parts));
        }
        Some(call)
    }
}
