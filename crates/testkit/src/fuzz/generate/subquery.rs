//! Queries inside expressions.

use super::Generator;
use super::expr::Cx;
use crate::fuzz::features::Feature;
use crate::fuzz::tree::{Body, Expr, Part, Query, Top};
use crate::fuzz::types::Type;

impl Generator {
    /// `(query)` as a value: of one row, or with the feature for that, of as many as there are.
    pub(super) fn scalar_subquery(&mut self, ty: Type, cx: &Cx<'_>) -> Expr {
        let outer = self.outer_columns(cx);
        let query = match self.random.below(3) {
            0 if self.on(Feature::TopN) => self.first_row(ty, &outer, cx.nest - 1),
            1 if self.on(Feature::ManyRows) => self.query(Some(&[ty]), &outer, cx.nest - 1).0,
            _ => self.one_row(ty, &outer, cx.nest - 1),
        };
        Expr { ty, parts: vec![Part::Query(Box::new(query))] }
    }

    /// `ARRAY(query)`, whose query has an order. None: the type is none of those arrays.
    pub(super) fn array_query(&mut self, ty: Type, cx: &Cx<'_>) -> Option<Expr> {
        let item = match ty {
            Type::Ints => Type::Int4,
            Type::Texts => Type::Text,
            _ => return None,
        };
        let outer = self.outer_columns(cx);
        let mut query = self.query(Some(&[item]), &outer, cx.nest - 1).0;
        if query.top.is_none() {
            let top = self.top(1, false);
            let is_whole = self.random.chance(60);
            query.top = Some(if is_whole { Top { limit: None, offset: None, ties: None, ..top } } else { top });
        }
        Some(Expr { ty, parts: vec![Part::Text("ARRAY".into()), Part::Query(Box::new(query))] })
    }

    /// The columns that a subquery may use.
    fn outer_columns(&mut self, cx: &Cx<'_>) -> Vec<super::Column> {
        if self.on(Feature::Correlated) { cx.visible() } else { vec![] }
    }

    /// EXISTS, IN, ANY or ALL. None where all are off.
    pub(super) fn subquery_predicate(&mut self, cx: &Cx<'_>) -> Option<Expr> {
        let kinds = [Feature::Exists, Feature::InSubquery, Feature::Quantified];
        let kinds: Vec<_> = kinds.into_iter().filter(|f| self.on(*f)).collect();
        if kinds.is_empty() {
            return None;
        }
        let outer = self.outer_columns(cx);
        Some(match *self.random.pick(&kinds) {
            Feature::Exists => {
                let query = self.query(None, &outer, cx.nest - 1).0;
                let not = if self.random.chance(50) { "NOT EXISTS " } else { "EXISTS " };
                boolean(vec![Part::Text(not.into()), Part::Query(Box::new(query))])
            }
            Feature::InSubquery => self.in_subquery(cx, &outer),
            _ => {
                let ty = self.sortable_type();
                let value = self.expr(ty, &Cx { nest: 0, windows: None, ..Cx::like(cx) }, 1);
                let ty = self.compared_type(ty);
                let mut query = self.query(Some(&[ty]), &outer, cx.nest - 1).0;
                // A known gap: the parser reads neither WITH nor a bracket behind ANY and ALL.
                let begins_with_bracket = matches!(&query.body, Body::Set(left, ..) if matches!(**left, Body::Set(..)));
                if !query.ctes.is_empty() || begins_with_bracket {
                    query = self.one_row(ty, &outer, cx.nest - 1);
                }
                let op = *self.random.pick(&["=", "<>", "<", "<=", ">", ">="]);
                let word = *self.random.pick(&["ANY", "ALL", "SOME"]);
                let parts = vec![Part::Expr(value), Part::Text(format!(" {op} {word} ")), Part::Query(Box::new(query))];
                parenthesized(parts)
            }
        })
    }

    fn in_subquery(&mut self, cx: &Cx<'_>, outer: &[super::Column]) -> Expr {
        let not = if self.random.chance(50) { " NOT IN " } else { " IN " };
        let plain = Cx { nest: 0, windows: None, ..Cx::like(cx) };
        let ty = self.column_type(cx);
        let value = self.expr(ty, &plain, 0);
        let mut types = vec![ty];
        let mut parts = vec![Part::Expr(value)];
        if self.uses(Feature::RowValue, 30) {
            let second = self.column_type(cx);
            let value = self.expr(second, &plain, 0);
            types.push(second);
            parts = vec![
                Part::Text("(".into()),
                parts.remove(0),
                Part::Text(", ".into()),
                Part::Expr(value),
                Part::Text(")".into()),
            ];
        }
        let types: Vec<Type> = types.into_iter().map(|ty| self.compared_type(ty)).collect();
        let query = self.query(Some(&types), outer, cx.nest - 1).0;
        parts.extend([Part::Text(not.into()), Part::Query(Box::new(query))]);
        parenthesized(parts)
    }

    fn sortable_type(&mut self) -> Type {
        let ty = self.any_type();
        if ty.ordered() { ty } else { Type::Int4 }
    }

    /// The type of a column that there is.
    fn column_type(&mut self, cx: &Cx<'_>) -> Type {
        if cx.columns.is_empty() { self.any_type() } else { self.random.pick(cx.columns).ty }
    }

    /// A query of exactly one row: an aggregation without keys.
    fn one_row(&mut self, ty: Type, outer: &[super::Column], nest: usize) -> Query {
        let select = self.global(ty, outer, nest);
        Query { ctes: vec![], body: Body::Select(Box::new(select)), top: None }
    }
}

impl<'a> Cx<'a> {
    fn like(other: &Cx<'a>) -> Cx<'a> {
        Cx { n_aggregates: std::cell::Cell::new(0), ..*other }
    }
}

fn boolean(parts: Vec<Part>) -> Expr {
    Expr { ty: Type::Bool, parts }
}

fn parenthesized(parts: Vec<Part>) -> Expr {
    boolean([vec![Part::Text("(".into())], parts, vec![Part::Text(")".into())]].concat())
}
