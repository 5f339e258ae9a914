//! Queries: WITH, set operations, SELECT, ORDER BY and LIMIT.

use std::cell::Cell;

use super::expr::Cx;
use super::from::Scope;
use super::window::Windows;
use super::{Column, Generator, Relation};
use crate::fuzz::features::Feature;
use crate::fuzz::functions;
use crate::fuzz::tree::{Body, Cte, Expr, From, Grouping, Item, Part, Query, Select, Sets, Top};
use crate::fuzz::types::Type;

/// A query, the types of its columns, and the columns that tell its rows apart, where there are such.
pub(super) type Typed = (Query, Vec<Type>, Option<Vec<String>>);

const DIRECTIONS: &[&str] = &["", "", " DESC", " NULLS FIRST", " DESC NULLS LAST"];
const UNION: &[&str] = &["UNION", "UNION ALL", "UNION ALL"];
const DIFFERENCE: &[&str] = &["INTERSECT", "EXCEPT"];
const BAG_DIFFERENCE: &[&str] = &["INTERSECT ALL", "EXCEPT ALL"];

impl Generator {
    /// A query with columns of these types (None: of any), which may use the columns around it.
    pub(super) fn query(&mut self, want: Option<&[Type]>, outer: &[Column], nest: usize) -> Typed {
        let n_relations = self.relations.len();
        let mut ctes = vec![];
        if nest > 0 && self.uses(Feature::Cte, 20) {
            ctes.push(self.cte(nest - 1));
        }
        if nest > 0 && self.uses(Feature::Recursive, 20) {
            ctes.extend(self.recursive());
        }
        let (body, types, mut key) = self.body(want, outer, nest);
        let mut query = Query { ctes, body, top: None };
        let sortable = types.iter().all(|t| t.ordered());
        let on = matches!(&query.body, Body::Select(select) if select.distinct_on > 0);
        if sortable && (on || self.uses(Feature::TopN, 20)) {
            query.top = Some(self.top(types.len(), on));
        }
        if on
            && !sortable
            && let Body::Select(select) = &mut query.body
        {
            select.distinct_on = 0;
            key = None;
        }
        self.relations.truncate(n_relations);
        (query, types, key)
    }

    pub(super) fn top(&mut self, n_columns: usize, distinct_on: bool) -> Top {
        let directions = (0..n_columns).map(|_| *self.random.pick(DIRECTIONS)).collect();
        let limit = (!distinct_on || self.random.chance(30)).then(|| self.random.below(5));
        let offset = self.random.chance(25).then(|| self.random.below(3));
        let ties = (limit.is_some() && !distinct_on && self.uses(Feature::WithTies, 40))
            .then(|| self.random.between(1, n_columns));
        // Which of the rows with the same place are skipped is not determined.
        let offset = offset.filter(|_| ties.is_none_or(|n_sorted| n_sorted == n_columns));
        Top { directions, limit, offset, ties }
    }

    /// The first row of a query: one value, or none.
    pub(super) fn first_row(&mut self, ty: Type, outer: &[Column], nest: usize) -> Query {
        let ordered = if ty.ordered() { ty } else { Type::Int4 };
        if ordered != ty {
            let select = self.global(ty, outer, nest);
            return Query { ctes: vec![], body: Body::Select(Box::new(select)), top: None };
        }
        let (select, _, _) = self.select(Some(&[ty]), outer, nest, true);
        let direction = *self.random.pick(DIRECTIONS);
        let top = Top { directions: vec![direction], limit: Some(1), offset: None, ties: None };
        Query { ctes: vec![], body: Body::Select(Box::new(select)), top: Some(top) }
    }

    fn cte(&mut self, nest: usize) -> Cte {
        let (query, types, key) = self.query(None, &[], nest);
        let name = self.name();
        let columns: Vec<String> = (0..types.len()).map(|idx| format!("c{idx}")).collect();
        let typed = columns.iter().cloned().zip(types).collect();
        self.relations.push(Relation { name: name.clone(), columns: typed, key, is_table: false });
        Cte { name, columns, recursive: false, query }
    }

    /// A walk along a table: from each row to those whose one column is its other column.
    fn recursive(&mut self) -> Option<Cte> {
        let tables: Vec<Relation> = self.relations.iter().filter(|r| r.is_table).cloned().collect();
        let table = self.random.pick(&tables).clone();
        let (from, ty) = self.random.pick(&table.columns).clone();
        let same: Vec<_> = table.columns.iter().filter(|(_, t)| *t == ty).map(|(c, _)| c.clone()).collect();
        let to = self.random.pick(&same).clone();
        let (name, base, step) = (self.name(), self.name(), self.name());
        let counts = self.random.chance(60);
        let op = if counts && self.random.chance(50) { "UNION ALL" } else { "UNION" };
        let cast = format!("::{}", ty.sql());
        let count = |text: String| counts.then(|| Expr::text(Type::Int4, text));
        let items = |values: [Option<Expr>; 2]| {
            let named = values.into_iter().flatten().enumerate();
            named.map(|(idx, expr)| Item { expr, name: format!("c{idx}") }).collect::<Vec<_>>()
        };
        let walked = if counts { "c1" } else { "c0" };
        let relation = |name: &str, alias: &str| From::Relation { name: name.into(), alias: alias.into() };
        let cx_columns: Vec<Column> =
            table.columns.iter().map(|(c, t)| Column { sql: format!("{base}.{c}"), ty: *t }).collect();
        let filter = self.random.chance(50).then(|| self.predicate(&Cx::of_columns(&cx_columns), 0));
        let first = Select {
            filter,
            ..plain(
                items([count("0".into()), Some(Expr::text(ty, format!("{base}.{from}{cast}")))]),
                vec![relation(&table.name, &base)],
            )
        };
        let key = Expr::text(Type::Bool, format!("{step}.{from} = {name}.{walked}"));
        let next = Select {
            filter: count(format!("{name}.c0 < 3")).map(|e| Expr { ty: Type::Bool, ..e }),
            ..plain(
                items([count(format!("{name}.c0 + 1")), Some(Expr::text(ty, format!("{step}.{to}{cast}")))]),
                vec![From::Join {
                    left: Box::new(From::Relation { name: name.clone(), alias: name.clone() }),
                    kind: "JOIN",
                    right: Box::new(relation(&table.name, &step)),
                    on: crate::fuzz::tree::On::Expr(key),
                }],
            )
        };
        let body = Body::Set(Box::new(Body::Select(Box::new(first))), op, Box::new(Body::Select(Box::new(next))));
        let types: Vec<Type> = counts.then_some(Type::Int4).into_iter().chain([ty]).collect();
        let columns: Vec<String> = (0..types.len()).map(|idx| format!("c{idx}")).collect();
        let typed = columns.iter().cloned().zip(types).collect();
        self.relations.push(Relation { name: name.clone(), columns: typed, key: None, is_table: false });
        Some(Cte { name, columns, recursive: true, query: Query { ctes: vec![], body, top: None } })
    }

    fn body(&mut self, want: Option<&[Type]>, outer: &[Column], nest: usize) -> (Body, Vec<Type>, Option<Vec<String>>) {
        let operators: Vec<&'static str> =
            [(Feature::Union, UNION), (Feature::SetDifference, DIFFERENCE), (Feature::BagDifference, BAG_DIFFERENCE)]
                .into_iter()
                .filter(|(f, _)| self.on(*f))
                .flat_map(|(_, ops)| ops.iter().copied())
                .collect();
        if !operators.is_empty() && self.random.chance(25) {
            let op = *self.random.pick(&operators);
            return self.set_operation(op, want, outer, nest);
        }
        let (select, types, key) = self.select(want, outer, nest, false);
        (Body::Select(Box::new(select)), types, key)
    }

    pub(super) fn set_operation(
        &mut self,
        op: &'static str,
        want: Option<&[Type]>,
        outer: &[Column],
        nest: usize,
    ) -> (Body, Vec<Type>, Option<Vec<String>>) {
        let types: Vec<Type> = match want {
            Some(types) => types.to_vec(),
            None => (0..self.random.between(1, 3)).map(|_| self.any_type()).collect(),
        };
        // The first operand gives the columns their names, which VALUES would not.
        let narrower: Vec<Type> = types.iter().map(|ty| self.narrower(*ty)).collect();
        let (mut first, _, _) = self.select(Some(&narrower), outer, nest.saturating_sub(1), false);
        first.distinct_on = 0;
        // Of two operands one gives the type; the others may have literals without one.
        let is_first_untyped = narrower == types && self.untyped_items(&mut first);
        let mut body = Body::Select(Box::new(first));
        let n_operands = self.random.between(1, 2);
        for nth in 0..n_operands {
            let mut right = self.operand(&types, outer, nest);
            if let Body::Select(select) = &mut right
                && !(is_first_untyped && nth == 0)
            {
                self.untyped_items(select);
            }
            body = Body::Set(Box::new(body), op, Box::new(right));
        }
        (body, types, None)
    }

    /// Puts literals without a type for some items of an operand of a set operation, whose type is that of the other
    /// operand's column. Whether there are such.
    fn untyped_items(&mut self, select: &mut Select) -> bool {
        // What DISTINCT and GROUP BY compare is a text.
        if select.distinct || select.grouping.is_some() || !self.uses(Feature::Untyped, 25) {
            return false;
        }
        for item in &mut select.items {
            if !gives_rows(&item.expr) && self.random.chance(60) {
                item.expr = Expr::text(item.expr.ty, item.expr.ty.untyped(&mut self.random));
            }
        }
        true
    }

    /// A type whose values a column of this one may begin with: what follows makes it this one.
    fn narrower(&mut self, ty: Type) -> Type {
        let narrower: &[Type] = match ty {
            Type::Int4 => &[Type::Int2],
            Type::Int8 => &[Type::Int2, Type::Int4],
            Type::Numeric => &[Type::Int4, Type::Int8],
            Type::Float8 => &[Type::Int4, Type::Numeric],
            Type::Timestamp => &[Type::Date],
            _ => &[],
        };
        let possible: Vec<Type> = narrower.iter().copied().filter(|t| t.feature().is_none_or(|f| self.on(f))).collect();
        if possible.is_empty() || !self.uses(Feature::MixedTypes, 30) { ty } else { *self.random.pick(&possible) }
    }

    fn operand(&mut self, types: &[Type], outer: &[Column], nest: usize) -> Body {
        if self.uses(Feature::Values, 15) {
            return self.values(types);
        }
        let sortable = types.iter().all(|t| t.ordered());
        let (mut select, _, _) = self.select(Some(types), outer, nest.saturating_sub(1), false);
        select.distinct_on = 0;
        let body = Body::Select(Box::new(select));
        if sortable && self.uses(Feature::TopN, 10) {
            let top = Some(self.top(types.len(), false));
            return Body::Nested(Box::new(Query { ctes: vec![], body, top }));
        }
        body
    }

    pub(super) fn values(&mut self, types: &[Type]) -> Body {
        let n_rows = self.random.between(1, 3);
        // A column of literals without a type alone is a text.
        let typed: Vec<usize> = types.iter().map(|_| self.random.below(n_rows)).collect();
        let row = |generator: &mut Generator, nth: usize| {
            let literal = |(ty, typed): (&Type, &usize)| {
                if nth != *typed && generator.uses(Feature::Untyped, 40) {
                    return Expr::text(*ty, ty.untyped(&mut generator.random));
                }
                generator.leaf(*ty, &Cx::of_columns(&[]))
            };
            types.iter().zip(&typed).map(literal).collect()
        };
        Body::Values((0..n_rows).map(|nth| row(self, nth)).collect())
    }

    /// A SELECT. `rows_as_they_are`: without DISTINCT and functions that give rows.
    pub(super) fn select(
        &mut self,
        want: Option<&[Type]>,
        outer: &[Column],
        nest: usize,
        rows_as_they_are: bool,
    ) -> (Select, Vec<Type>, Option<Vec<String>>) {
        let (from, scope) = self.from(outer, nest);
        let filter = self.filter(&scope, outer, nest);
        let mut select = if self.uses(Feature::Aggregate, 35) {
            self.grouped(want, &scope, outer, nest)
        } else {
            self.ungrouped(want, &scope, outer, nest, rows_as_they_are)
        };
        select.from = from;
        select.filter = filter;
        let types = select.items.iter().map(|item| item.expr.ty).collect();
        let key = key_of(&select, &scope);
        (select, types, key)
    }

    /// A condition that ties a subquery to the columns around it, and others.
    fn filter(&mut self, scope: &Scope, outer: &[Column], nest: usize) -> Option<Expr> {
        let cx = Cx { outer, nest, ..Cx::of_columns(&scope.columns) };
        let tied = if !outer.is_empty() && self.random.chance(75) { self.tie(&scope.columns, outer) } else { None };
        let condition = self.random.chance(50).then(|| self.predicate(&cx, 1));
        match (tied, condition) {
            (Some(a), Some(b)) => {
                Some(Expr { ty: Type::Bool, parts: vec![Part::Expr(a), Part::Text(" AND ".into()), Part::Expr(b)] })
            }
            (a, b) => a.or(b),
        }
    }

    /// A comparison of a column inside with one outside.
    fn tie(&mut self, inner: &[Column], outer: &[Column]) -> Option<Expr> {
        let pairs = self.pairs(inner, outer);
        if pairs.is_empty() {
            return None;
        }
        let op = *self.random.pick(&["=", "=", "=", "=", "<", ">=", "<>", "IS NOT DISTINCT FROM"]);
        let (i, o) = self.random.pick(&pairs);
        Some(Expr::text(Type::Bool, format!("{} {op} {}", i.sql, o.sql)))
    }

    fn ungrouped(
        &mut self,
        want: Option<&[Type]>,
        scope: &Scope,
        outer: &[Column],
        nest: usize,
        rows_as_they_are: bool,
    ) -> Select {
        let windows = self.uses(Feature::Window, 50).then(|| self.windows(scope));
        let nest = if self.on(Feature::SubqueryAnywhere) { nest } else { 0 };
        let cx = Cx { outer, nest, windows: windows.as_ref(), ..Cx::of_columns(&scope.columns) };
        let mut exprs: Vec<Expr> = match want {
            Some(types) => types.iter().map(|ty| self.item(*ty, &cx)).collect(),
            None => (0..self.random.between(1, 4)).map(|_| self.free_item(&cx)).collect(),
        };
        let mut select = plain(vec![], vec![]);
        if want.is_none() && !rows_as_they_are && windows.is_none() && self.uses(Feature::SelectRows, 40) {
            exprs.extend(self.rows_call(&scope.columns));
        } else if !rows_as_they_are {
            select.distinct = self.uses(Feature::Distinct, 20);
            if !select.distinct && self.uses(Feature::DistinctOn, 20) {
                // Literals and repeated columns cannot stand there.
                let texts: Vec<String> = exprs.iter().map(ToString::to_string).collect();
                let is_key = |(idx, text): &(usize, &String)| {
                    text.starts_with('q') && !texts.iter().take(*idx).any(|t| t == *text)
                };
                let n_keys = texts.iter().enumerate().take_while(is_key).count();
                select.distinct_on = if n_keys > 0 { self.random.between(1, n_keys) } else { 0 };
            }
        }
        select.items = numbered(exprs);
        select.window = windows.and_then(|w| w.named);
        select
    }

    /// A function that gives rows, in the SELECT list.
    pub(super) fn rows_call(&mut self, columns: &[Column]) -> Option<Expr> {
        let features = &self.features;
        let fitting: Vec<_> = functions::ROWS.iter().filter(|f| f.on(features)).collect();
        if fitting.is_empty() {
            return None;
        }
        let function = (*self.random.pick(&fitting)).clone();
        let depth = self.random.below(2);
        Some(self.call(&function, &Cx::of_columns(columns), depth))
    }

    pub(super) fn windows(&mut self, scope: &Scope) -> Windows {
        let sortable: Vec<_> = scope.columns.iter().filter(|c| c.ty.ordered()).map(|c| (c.sql.clone(), c.ty)).collect();
        let (total, n_positional) = match &scope.key {
            Some(key) => (Some(key.clone()), usize::MAX),
            None if sortable.len() == scope.columns.len() => {
                (Some(sortable.iter().map(|(c, _)| c.clone()).collect()), 1)
            }
            None => (None, 0),
        };
        let total: Option<Vec<String>> = total.filter(|t| !t.is_empty());
        let mut windows = Windows { sortable, total, n_positional: Cell::new(n_positional), named: None };
        if self.random.chance(25)
            && scope.key.is_some()
            && let Some(parts) = self.total_order(&windows)
        {
            windows.named = Some(Expr { ty: Type::Bool, parts }.to_string());
        }
        windows
    }

    /// A column of the result, of this type.
    fn item(&mut self, ty: Type, cx: &Cx<'_>) -> Expr {
        let depth = self.random.below(3);
        self.expr(ty, cx, depth)
    }

    /// A column of the result, of any type: most often a column as it is.
    fn free_item(&mut self, cx: &Cx<'_>) -> Expr {
        if !cx.columns.is_empty() && self.random.chance(50) {
            let column = self.random.pick(cx.columns);
            return Expr::text(column.ty, column.sql.clone());
        }
        let ty = self.any_type();
        self.item(ty, cx)
    }

    pub(super) fn grouped(&mut self, want: Option<&[Type]>, scope: &Scope, outer: &[Column], nest: usize) -> Select {
        let n_keys = self.random.below(3).min(scope.columns.len());
        let mut keys: Vec<Column> = (0..n_keys).map(|_| self.random.pick(&scope.columns).clone()).collect();
        let mut readable = keys.clone();
        let by_primary_key = !scope.keyed.is_empty() && self.uses(Feature::GroupByPrimaryKey, 30);
        if by_primary_key {
            let columns = self.random.pick(&scope.keyed).clone();
            keys.extend(columns.first().cloned());
            readable.extend(columns);
        }
        let n_keys = keys.len();
        let nest = if self.on(Feature::SubqueryAnywhere) { nest } else { 0 };
        let windows = (n_keys > 0 && self.uses(Feature::Window, 20)).then(|| Windows {
            sortable: keys.iter().filter(|k| k.ty.ordered()).map(|k| (k.sql.clone(), k.ty)).collect(),
            total: keys.iter().all(|k| k.ty.ordered()).then(|| keys.iter().map(|k| k.sql.clone()).collect()),
            n_positional: Cell::new(1),
            named: None,
        });
        let cx = Cx {
            outer,
            aggregated: Some(&scope.columns),
            nest,
            windows: windows.as_ref(),
            ..Cx::of_columns(&readable)
        };
        let mut exprs: Vec<Expr> = match want {
            Some(types) => types.iter().map(|ty| self.item(*ty, &cx)).collect(),
            None => self.free_grouped(&readable, &cx),
        };
        // A known gap: grouping sets where there are columns of a query around.
        let sets = if outer.is_empty() && !by_primary_key { self.sets(n_keys) } else { Sets::One };
        if want.is_none()
            && !matches!(sets, Sets::One)
            && self.random.chance(40)
            && let Some(key) = keys.first()
        {
            exprs.push(Expr::text(Type::Int4, format!("grouping({})", key.sql)));
        }
        let mut having = self.uses(Feature::Having, 30).then(|| self.predicate(&cx, 1));
        if n_keys == 0 && having.is_none() && cx.n_aggregates.get() == 0 {
            having = Some(Expr::text(Type::Bool, "count(*) >= 0"));
        }
        let keys = keys.into_iter().map(|k| Expr::text(k.ty, k.sql)).collect();
        Select { grouping: Some(Grouping { keys, sets }), having, ..plain(numbered(exprs), vec![]) }
    }

    fn free_grouped(&mut self, keys: &[Column], cx: &Cx<'_>) -> Vec<Expr> {
        let mut exprs: Vec<Expr> = vec![];
        for key in keys {
            if self.random.chance(85) {
                exprs.push(Expr::text(key.ty, key.sql.clone()));
            }
        }
        for _ in 0..self.random.between(1, 3) {
            let ty = self.any_type();
            exprs.push(self.item(ty, cx));
        }
        exprs
    }

    fn sets(&mut self, n_keys: usize) -> Sets {
        if n_keys == 0 || !self.uses(Feature::GroupingSets, 40) {
            return Sets::One;
        }
        match self.random.below(3) {
            0 => Sets::Rollup,
            1 => Sets::Cube,
            _ => {
                let n_sets = self.random.between(1, 3);
                let set =
                    |random: &mut crate::fuzz::random::Random| (0..n_keys).filter(|_| random.chance(60)).collect();
                let mut sets: Vec<Vec<usize>> = (0..n_sets).map(|_| set(&mut self.random)).collect();
                // A column that is in no set is not grouped by.
                let left_out = |key: &usize| !sets.iter().any(|set| set.contains(key));
                let left_out: Vec<usize> = (0..n_keys).filter(left_out).collect();
                sets.iter_mut().take(1).for_each(|set| set.extend(&left_out));
                Sets::Listed(sets)
            }
        }
    }

    /// An aggregation of one row and one column.
    pub(super) fn global(&mut self, ty: Type, outer: &[Column], nest: usize) -> Select {
        let (from, scope) = self.from(outer, nest);
        let filter = self.filter(&scope, outer, nest);
        let aggregate = self.aggregate(ty, &scope.columns);
        let having = aggregate.is_none().then(|| Expr::text(Type::Bool, "count(*) >= 0"));
        let expr = match aggregate {
            Some(aggregate) => aggregate,
            None => self.leaf(ty, &Cx { outer, ..Cx::of_columns(&[]) }),
        };
        let grouping = Some(Grouping { keys: vec![], sets: Sets::One });
        Select { filter, grouping, having, ..plain(numbered(vec![expr]), from) }
    }
}

/// The columns of the result that tell its rows apart.
fn key_of(select: &Select, scope: &Scope) -> Option<Vec<String>> {
    let names = |wanted: &[String]| {
        let of = |key: &String| select.items.iter().find(|i| i.expr.to_string() == *key).map(|i| i.name.clone());
        wanted.iter().map(of).collect::<Option<Vec<_>>>()
    };
    if select.distinct {
        return Some(select.items.iter().map(|i| i.name.clone()).collect())
            .filter(|_| select.items.iter().all(|i| i.expr.ty.ordered()));
    }
    match &select.grouping {
        Some(Grouping { keys, sets: Sets::One }) if !keys.is_empty() => {
            names(&keys.iter().map(ToString::to_string).collect::<Vec<_>>())
        }
        Some(_) => None,
        // A function that gives rows repeats the others.
        None if select.items.iter().any(|i| gives_rows(&i.expr)) => None,
        None => names(scope.key.as_ref()?),
    }
}

fn gives_rows(expr: &Expr) -> bool {
    let text = expr.to_string();
    ["generate_series(", "unnest(", "_to_table(", "jsonb_array_elements", "jsonb_object_keys(", "regexp_matches("]
        .iter()
        .any(|name| text.contains(name))
}

pub(super) fn plain(items: Vec<Item>, from: Vec<From>) -> Select {
    Select { distinct: false, distinct_on: 0, items, from, filter: None, grouping: None, having: None, window: None }
}

pub(super) fn numbered(exprs: Vec<Expr>) -> Vec<Item> {
    exprs.into_iter().enumerate().map(|(idx, expr)| Item { expr, name: format!("c{idx}") }).collect()
}
