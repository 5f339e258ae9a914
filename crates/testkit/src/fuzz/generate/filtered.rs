//! Conditions over subqueries whose rows depend on each other, which an optimizer must not put below them.

use super::expr::Cx;
use super::from::Scope;
use super::query::{Typed, numbered, plain};
use super::{Column, Generator};
use crate::fuzz::features::Feature;
use crate::fuzz::tree::{Body, Expr, From, On, Part, Query, Select};
use crate::fuzz::types::Type;

impl Generator {
    /// A subquery in FROM whose rows depend on each other: bare, so that the conditions around it are about it, or
    /// under conditions of its own, alone or as a side of a join.
    pub(super) fn filtered(&mut self, nest: usize) -> (From, Scope) {
        let (query, types, key) = self.dependent_rows(nest);
        let alias = self.name();
        let columns: Vec<_> = types.iter().enumerate().map(|(idx, ty)| (format!("c{idx}"), *ty)).collect();
        let scope = Scope::of(&alias, columns.clone(), key.clone());
        let from = From::Query { query: Box::new(query), alias, lateral: false };
        if self.random.chance(30) {
            return (from, scope);
        }
        let mut filter = self.simple_condition(&scope.columns);
        if self.random.chance(30) {
            let second = self.simple_condition(&scope.columns);
            let word = *self.random.pick(&[" AND ", " AND ", " OR "]);
            filter = conjunction(filter, word, second);
        }
        let exprs = scope.columns.iter().map(|c| Expr::text(c.ty, c.sql.clone())).collect();
        let (from, key) = match self.random.chance(40).then(|| self.joined(&from, &scope)).flatten() {
            Some(join) => (join, None),
            None => (from, key),
        };
        let select = Select { filter: Some(filter), ..plain(numbered(exprs), vec![from]) };
        let query = Query { ctes: vec![], body: Body::Select(Box::new(select)), top: None };
        let alias = self.name();
        let outside = Scope::of(&alias, columns, key);
        (From::Query { query: Box::new(query), alias, lateral: false }, outside)
    }

    /// A join of it with a table by one of its columns: on either side, so that it may be the one whose rows stay.
    fn joined(&mut self, from: &From, scope: &Scope) -> Option<From> {
        let relation = self.random.pick(&self.relations).clone();
        let (item, more) = self.relation_item(relation);
        let pairs = self.pairs(&scope.columns, &more.columns);
        if pairs.is_empty() {
            return None;
        }
        let (l, r) = *self.random.pick(&pairs);
        let mut on = Expr::text(Type::Bool, format!("{} = {}", l.sql, r.sql));
        if self.random.chance(40) {
            let condition = self.simple_condition(&scope.columns);
            on = conjunction(on, " AND ", condition);
        }
        let kinds = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"];
        let kind = if self.on(Feature::OuterJoin) { *self.random.pick(&kinds) } else { "JOIN" };
        let (left, right) = if self.random.chance(50) { (from.clone(), item) } else { (item, from.clone()) };
        Some(From::Join { left: Box::new(left), kind, right: Box::new(right), on: On::Expr(on) })
    }

    /// A condition as people write them: of one column and a value, or of two columns.
    fn simple_condition(&mut self, columns: &[Column]) -> Expr {
        let ordered: Vec<&Column> = columns.iter().filter(|c| c.ty.ordered()).collect();
        if ordered.is_empty() || self.random.chance(20) {
            return self.predicate(&Cx::of_columns(columns), 1);
        }
        let column = (*self.random.pick(&ordered)).clone();
        let same: Vec<&Column> = ordered.into_iter().filter(|c| c.ty == column.ty && c.sql != column.sql).collect();
        let op = *self.random.pick(&["=", "=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM"]);
        let text = match self.random.below(6) {
            0 => format!("{} IS NOT NULL", column.sql),
            1 => format!("{} IS NULL", column.sql),
            2 if !same.is_empty() => format!("{} {op} {}", column.sql, self.random.pick(&same).sql),
            3 => {
                let (a, b) = (self.compared_literal(column.ty), self.compared_literal(column.ty));
                format!("{} IN ({a}, {b})", column.sql)
            }
            _ => format!("{} {op} {}", column.sql, self.compared_literal(column.ty)),
        };
        Expr::text(Type::Bool, text)
    }

    /// A literal beside a value of this type.
    fn compared_literal(&mut self, ty: Type) -> String {
        if self.uses(Feature::Untyped, 50) { ty.untyped(&mut self.random) } else { ty.literal(&mut self.random) }
    }

    /// A query whose rows depend on each other.
    fn dependent_rows(&mut self, nest: usize) -> Typed {
        let kinds = [
            (Feature::DistinctOn, 3),
            (Feature::TopN, 2),
            (Feature::Window, 2),
            (Feature::TopNPerKey, 1),
            (Feature::Aggregate, 2),
            (Feature::SetDifference, 1),
            (Feature::BagDifference, 1),
            (Feature::Distinct, 1),
            (Feature::SelectRows, 1),
        ];
        let kinds: Vec<Feature> = kinds
            .into_iter()
            .filter(|(feature, _)| self.on(*feature))
            .flat_map(|(feature, weight)| std::iter::repeat_n(feature, weight))
            .collect();
        let kind = if kinds.is_empty() { Feature::Derived } else { *self.random.pick(&kinds) };
        match kind {
            Feature::SetDifference => {
                let op = *self.random.pick(&["INTERSECT", "EXCEPT", "UNION"]);
                self.bare(op, nest)
            }
            Feature::BagDifference => {
                let op = *self.random.pick(&["INTERSECT ALL", "EXCEPT ALL", "UNION ALL"]);
                self.bare(op, nest)
            }
            Feature::Derived => self.query(None, &[], nest),
            kind => self.dependent_select(kind, nest),
        }
    }

    fn bare(&mut self, op: &'static str, nest: usize) -> Typed {
        let (body, types, key) = self.set_operation(op, None, &[], nest);
        (Query { ctes: vec![], body, top: None }, types, key)
    }

    /// A SELECT of columns as they are, with what makes its rows depend on each other.
    fn dependent_select(&mut self, kind: Feature, nest: usize) -> Typed {
        let (from, scope) = self.from(&[], nest);
        let ordered: Vec<Column> = scope.columns.iter().filter(|c| c.ty.ordered()).cloned().collect();
        if ordered.is_empty() {
            return self.query(None, &[], nest);
        }
        let filter = self.random.chance(25).then(|| self.simple_condition(&scope.columns));
        let mut columns: Vec<Column> = vec![];
        for _ in 0..self.random.between(2, 4) {
            let column = self.random.pick(&ordered).clone();
            if !columns.iter().any(|c| c.sql == column.sql) {
                columns.push(column);
            }
        }
        let n_columns = columns.len();
        let mut exprs: Vec<Expr> = columns.iter().map(|c| Expr::text(c.ty, c.sql.clone())).collect();
        let mut select = plain(vec![], vec![]);
        let mut top = None;
        let mut key = None;
        let name = |idx: usize| format!("c{idx}");
        match kind {
            Feature::DistinctOn => {
                select.distinct_on = self.random.between(1, n_columns);
                key = Some((0..select.distinct_on).map(name).collect());
                top = Some(self.top(n_columns, true));
            }
            Feature::TopN => top = Some(self.top(n_columns, false)),
            Feature::Aggregate => {
                select = self.grouped(None, &scope, &[], 0);
                exprs = select.items.drain(..).map(|item| item.expr).collect();
            }
            Feature::Distinct => {
                select.distinct = true;
                key = Some((0..n_columns).map(name).collect());
            }
            Feature::SelectRows => exprs.extend(self.rows_call(&scope.columns)),
            _ => {
                let windows = self.windows(&scope);
                let cx = Cx::of_columns(&scope.columns);
                for _ in 0..self.random.between(1, 2) {
                    let ty = *self.random.pick(&[Type::Int8, Type::Int8, Type::Int4, Type::Text, Type::Numeric]);
                    exprs.extend(self.windowed(ty, &cx, &windows));
                }
                select.window.clone_from(&windows.named);
                let place = |key: &String| columns.iter().position(|c| c.sql == *key).map(name);
                key = scope.key.as_ref().and_then(|key| key.iter().map(place).collect());
            }
        }
        let select = Select { items: numbered(exprs), from, filter, ..select };
        let types = select.items.iter().map(|item| item.expr.ty).collect();
        (Query { ctes: vec![], body: Body::Select(Box::new(select)), top }, types, key)
    }
}

fn conjunction(a: Expr, word: &str, b: Expr) -> Expr {
    let more = Part::Optional(vec![Part::Text(word.into()), Part::Expr(b)]);
    Expr { ty: Type::Bool, parts: vec![Part::Text("(".into()), Part::Expr(a), more, Part::Text(")".into())] }
}
