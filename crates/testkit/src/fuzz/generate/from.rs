//! FROM: tables, subqueries, functions that give rows, and joins of them.

use super::expr::Cx;
use super::query::{numbered, plain};
use super::{Column, Generator, Relation};
use crate::fuzz::features::Feature;
use crate::fuzz::tree::{Body, Expr, From, On, Part, Query, Select};
use crate::fuzz::types::Type;

/// What FROM gives.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// Its columns.
    pub(super) columns: Vec<Column>,
    /// Columns that tell its rows apart.
    pub(super) key: Option<Vec<String>>,
    /// The columns of its tables that have a primary key, which comes first.
    pub(super) keyed: Vec<Vec<Column>>,
}

impl Scope {
    /// Of an item under an alias.
    pub(super) fn of(alias: &str, columns: Vec<(String, Type)>, key: Option<Vec<String>>) -> Scope {
        let sql = |name: &str| format!("{alias}.{name}");
        Scope {
            columns: columns.into_iter().map(|(name, ty)| Column { sql: sql(&name), ty }).collect(),
            key: key.map(|key| key.iter().map(|name| sql(name)).collect()),
            keyed: vec![],
        }
    }

    fn join(mut self, other: Scope) -> Scope {
        self.columns.extend(other.columns);
        self.keyed.extend(other.keyed);
        self.key = self.key.zip(other.key).map(|(a, b)| [a, b].concat());
        self
    }
}

impl Generator {
    pub(super) fn from(&mut self, outer: &[Column], nest: usize) -> (Vec<From>, Scope) {
        let n_items = *self.random.pick(&[1, 1, 1, 2, 2, 2, 3]);
        let (first, mut scope) = self.table_item(&[], outer, nest);
        let mut items = vec![first];
        for _ in 1..n_items {
            let beside = scope.columns.clone();
            let (item, more) = self.table_item(&beside, outer, nest);
            let uses_left = is_lateral(&item);
            if uses_left || self.uses(Feature::CrossJoin, 15) {
                let both = scope.clone().join(more);
                if uses_left
                    && self.random.chance(50)
                    && let Some(left) = items.pop()
                {
                    let (kind, on) = *self.random.pick(&[("CROSS JOIN", false), ("LEFT JOIN", true), ("JOIN", true)]);
                    let on = if on { On::Expr(Expr::text(Type::Bool, "TRUE")) } else { On::Nothing };
                    items.push(From::Join { left: Box::new(left), kind, right: Box::new(item), on });
                } else {
                    items.push(item);
                }
                scope = both;
                continue;
            }
            // With a comma before it a join binds to what stands after the comma only: ON sees no other columns.
            if items.len() > 1 {
                items.push(item);
                scope = scope.join(more);
                continue;
            }
            let Some(left) = items.pop() else { continue };
            let (kind, on) = self.join(&left, &item, &scope, &more, outer, nest);
            items.push(From::Join { left: Box::new(left), kind, right: Box::new(item), on });
            scope = scope.join(more);
        }
        (items, scope)
    }

    /// One item. `beside` are columns of items before it, for LATERAL.
    fn table_item(&mut self, beside: &[Column], outer: &[Column], nest: usize) -> (From, Scope) {
        let correlated: Vec<Column> = if self.on(Feature::Correlated) { outer.to_vec() } else { vec![] };
        if nest > 0 && !beside.is_empty() && self.uses(Feature::Lateral, 30) {
            let visible: Vec<Column> = beside.iter().chain(&correlated).cloned().collect();
            return self.derived(&visible, nest - 1, true);
        }
        if nest > 0 && self.uses(Feature::Filtered, 20) {
            return self.filtered(nest - 1);
        }
        if nest > 0 && self.uses(Feature::TopNPerKey, 15) {
            return self.top_per_key(nest - 1);
        }
        if nest > 0 && self.uses(Feature::Derived, 20) {
            return self.derived(&[], nest - 1, false);
        }
        if self.uses(Feature::Values, 8) {
            let types: Vec<Type> = (0..self.random.between(1, 2)).map(|_| self.any_type()).collect();
            return self.values_item(&types);
        }
        if self.random.chance(20)
            && let Some(item) = self.function_item(beside)
        {
            return item;
        }
        let relation = self.random.pick(&self.relations).clone();
        self.relation_item(relation)
    }

    pub(super) fn relation_item(&mut self, relation: Relation) -> (From, Scope) {
        let alias = self.name();
        let has_primary_key = relation.is_table && relation.key.is_some();
        let mut scope = Scope::of(&alias, relation.columns, relation.key);
        if has_primary_key {
            scope.keyed.push(scope.columns.clone());
        }
        (From::Relation { name: relation.name, alias }, scope)
    }

    fn derived(&mut self, visible: &[Column], nest: usize, lateral: bool) -> (From, Scope) {
        let (query, types, key) = self.query(None, visible, nest);
        let alias = self.name();
        let columns = types.into_iter().enumerate().map(|(idx, ty)| (format!("c{idx}"), ty)).collect();
        // A lateral query's key tells its rows apart for one row at its left, which the join's key has.
        let scope = Scope::of(&alias, columns, key);
        (From::Query { query: Box::new(query), alias, lateral }, scope)
    }

    fn values_item(&mut self, types: &[Type]) -> (From, Scope) {
        let alias = self.name();
        let body = self.values(types);
        let columns: Vec<_> = types.iter().enumerate().map(|(idx, ty)| (format!("c{idx}"), *ty)).collect();
        let names: Vec<_> = columns.iter().map(|(name, _)| name.clone()).collect();
        let scope = Scope::of(&alias, columns, None);
        let query = Box::new(Query { ctes: vec![], body, top: None });
        (From::Query { query, alias: format!("{alias}({})", names.join(", ")), lateral: false }, scope)
    }

    fn function_item(&mut self, beside: &[Column]) -> Option<(From, Scope)> {
        let mut call = self.rows_call(beside)?;
        let alias = self.name();
        let mut columns = vec![("c0".to_string(), call.ty)];
        let mut names = "c0".to_string();
        if self.uses(Feature::Ordinality, 40) {
            call.parts.push(Part::Text(" WITH ORDINALITY".into()));
            columns.push(("c1".into(), Type::Int8));
            names += ", c1";
        }
        let key = (columns.len() > 1).then(|| vec!["c1".to_string()]);
        let scope = Scope::of(&alias, columns, key);
        Some((From::Function { call, alias: format!("{alias}({names})") }, scope))
    }

    /// The first rows of each key of a relation.
    fn top_per_key(&mut self, nest: usize) -> (From, Scope) {
        let (from, scope) = self.from(&[], nest);
        let sortable: Vec<&Column> = scope.columns.iter().filter(|c| c.ty.ordered()).collect();
        if sortable.len() < scope.columns.len() || sortable.is_empty() {
            return self.derived(&[], nest, false);
        }
        let by = self.random.pick(&sortable).sql.clone();
        let direction = *self.random.pick(&["", " DESC", " NULLS FIRST"]);
        let all: Vec<_> = sortable.iter().map(|c| c.sql.clone()).collect();
        let order = self.random.pick(&sortable).sql.clone() + direction;
        let (function, order) = match self.random.below(3) {
            0 => ("rank()", order),
            1 => ("dense_rank()", order),
            _ => ("row_number()", format!("{order}, {}", scope.key.as_ref().unwrap_or(&all).join(", "))),
        };
        let mut exprs: Vec<Expr> = scope.columns.iter().map(|c| Expr::text(c.ty, c.sql.clone())).collect();
        let n_columns = exprs.len();
        exprs.push(Expr::text(Type::Int8, format!("{function} OVER (PARTITION BY {by} ORDER BY {order})")));
        let types: Vec<Type> = exprs.iter().map(|e| e.ty).collect();
        let inner_alias = self.name();
        let alias = self.name();
        let inner = Query { ctes: vec![], body: Body::Select(Box::new(plain(numbered(exprs), from))), top: None };
        let ranked = From::Query { query: Box::new(inner), alias: inner_alias.clone(), lateral: false };
        let n_first = self.random.between(1, 2);
        let items = types.iter().enumerate().take(n_columns);
        let items = items.map(|(idx, ty)| Expr::text(*ty, format!("{inner_alias}.c{idx}"))).collect();
        let filter = Expr::text(Type::Bool, format!("{inner_alias}.c{n_columns} <= {n_first}"));
        let select = Select { filter: Some(filter), ..plain(numbered(items), vec![ranked]) };
        let query = Query { ctes: vec![], body: Body::Select(Box::new(select)), top: None };
        let columns = types.into_iter().take(n_columns).enumerate().map(|(idx, ty)| (format!("c{idx}"), ty)).collect();
        let outside = Scope::of(&alias, columns, None);
        (From::Query { query: Box::new(query), alias, lateral: false }, outside)
    }

    fn join(
        &mut self,
        left: &From,
        right: &From,
        scope: &Scope,
        more: &Scope,
        outer: &[Column],
        nest: usize,
    ) -> (&'static str, On) {
        let outer_kinds = ["LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT JOIN"];
        let kind = if self.uses(Feature::OuterJoin, 55) { *self.random.pick(&outer_kinds) } else { "JOIN" };
        if let Some(on) = self.using(left, right) {
            return match (on, kind) {
                (On::Nothing, "JOIN") => ("NATURAL JOIN", On::Nothing),
                (On::Nothing, "LEFT JOIN") => ("NATURAL LEFT JOIN", On::Nothing),
                (On::Nothing, "RIGHT JOIN") => ("NATURAL RIGHT JOIN", On::Nothing),
                (On::Nothing, _) => ("NATURAL FULL JOIN", On::Nothing),
                (on, kind) => (kind, on),
            };
        }
        let condition = self.condition_of_join(kind, scope, more, outer, nest);
        match condition {
            Some(condition) => (kind, On::Expr(condition)),
            None => ("CROSS JOIN", On::Nothing),
        }
    }

    /// USING or NATURAL (nothing), between tables that have columns of one name.
    fn using(&mut self, left: &From, right: &From) -> Option<On> {
        let (From::Relation { name: left, .. }, From::Relation { name: right, .. }) = (left, right) else {
            return None;
        };
        if !self.uses(Feature::Using, 40) {
            return None;
        }
        let find = |name: &str| self.relations.iter().find(|r| r.name == name && r.is_table);
        let (left, right) = (find(left)?.clone(), find(right)?.clone());
        let mut common: Vec<(String, Type)> =
            left.columns.iter().filter(|c| right.columns.contains(c)).cloned().collect();
        let same_name = left.columns.iter().filter(|(n, _)| right.columns.iter().any(|(m, _)| m == n)).count();
        common.retain(|(_, ty)| ty.ordered());
        if common.is_empty() {
            return None;
        }
        if same_name == common.len() && self.random.chance(40) {
            return Some(On::Nothing);
        }
        let n_columns = self.random.between(1, common.len().min(2));
        Some(On::Using(common.into_iter().take(n_columns).map(|(name, _)| name).collect()))
    }

    /// None: the two have no columns that could be compared.
    fn condition_of_join(
        &mut self,
        kind: &str,
        scope: &Scope,
        more: &Scope,
        outer: &[Column],
        nest: usize,
    ) -> Option<Expr> {
        let pairs = self.pairs(&scope.columns, &more.columns);
        let theta = kind != "FULL JOIN" && self.uses(Feature::ThetaJoin, 25);
        if pairs.is_empty() && !theta {
            return None;
        }
        let both: Vec<Column> = scope.columns.iter().chain(&more.columns).cloned().collect();
        let nest = if self.on(Feature::SubqueryAnywhere) { nest } else { 0 };
        let cx = Cx { outer, nest, ..Cx::of_columns(&both) };
        if theta || pairs.is_empty() {
            return Some(self.predicate(&cx, 0));
        }
        let op = if self.uses(Feature::NullKey, 15) && kind != "FULL JOIN" { "IS NOT DISTINCT FROM" } else { "=" };
        let (l, r) = *self.random.pick(&pairs);
        let key = Expr::text(Type::Bool, format!("{} {op} {}", l.sql, r.sql));
        if !self.random.chance(25) {
            return Some(key);
        }
        let more = self.predicate(&cx, 0);
        let more = Part::Optional(vec![Part::Text(" AND ".into()), Part::Expr(more)]);
        Some(Expr {
            ty: Type::Bool,
            parts: vec![Part::Text("(".into()), Part::Expr(key), more, Part::Text(")".into())],
        })
    }
}

/// Whether an item may use columns of those before it.
fn is_lateral(item: &From) -> bool {
    matches!(item, From::Query { lateral: true, .. } | From::Function { .. })
}
