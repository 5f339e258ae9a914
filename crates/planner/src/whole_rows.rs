//! A whole row as the argument of a function: `row_to_json(t)`, `jsonb_agg(t)`, `to_jsonb(t.*)`, `count(t)`; as a value:
//! `SELECT t FROM t`, `t::text`, `t IS NULL`; and a column of it: `(t).a`.
//!
//! Names become columns only while DataFusion plans, and a row is none. So a query that fails is read again: the
//! columns of the FROM item that is named so are looked up, and the argument becomes a json of them, the value a ROW(..) of
//! them.

use std::ops::ControlFlow;

use sqlparser::ast::{
    self, AccessExpr, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    JoinOperator, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableFactor, TableWithJoins,
    Value, VisitMut, VisitorMut,
};
use tidewire_sql::{own_exprs, own_exprs_mut, walk_mut};
use tidewire_types::{SqlError, SqlState};

use crate::column_names::{self, visible};
use crate::dml::select;
use crate::query::Context;
use crate::rewrite::call;
use crate::rewrite::outer_tables::name_of;
use crate::using;

/// Makes a json of names and values.
pub(crate) const ROW: &str = "row to json";
/// The same; a NULL where all values are NULL, as they are where an outer join has found no row.
pub(crate) const JOINED_ROW: &str = "joined row to json";

const FUNCTIONS: &[&str] = &["count", "json_agg", "jsonb_agg", "row_to_json", "to_json", "to_jsonb"];

/// The query with jsons in the place of rows. None: the error is another one, or there are no such rows.
pub(crate) fn spelled_out(
    context: &Context<'_>,
    query: &Query,
    error: &SqlError,
    text: &str,
    depth: usize,
) -> Option<Query> {
    let repeats = error.state() == SqlState::DuplicateColumn;
    if !repeats && !matches!(error.state(), SqlState::UndefinedColumn | SqlState::FeatureNotSupported) {
        return None;
    }
    let mut query = query.clone();
    let mut rows = Rows { context, text, depth, with: vec![], repeats, is_changed: false };
    let _ = walk_mut(&mut query, &mut rows);
    rows.is_changed.then_some(query)
}

struct Rows<'a, 'c> {
    context: &'a Context<'c>,
    text: &'a str,
    depth: usize,
    /// The WITH clauses around a query.
    with: Vec<Option<ast::With>>,
    /// The error was a column that comes twice.
    repeats: bool,
    is_changed: bool,
}

impl VisitorMut for Rows<'_, '_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.with.push(query.with.clone());
        if let (SetExpr::Select(select), Some(order_by)) = (query.body.as_ref(), &mut query.order_by) {
            self.columns_of_rows(names(select), order_by);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.with.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if self.repeats {
            self.spell_out_stars(select);
            return ControlFlow::Continue(());
        }
        let is_joined = select.from.iter().flat_map(|from| &from.joins).any(|join| is_outer(&join.join_operator));
        let mut named = Named { names: vec![], is_joined };
        let _ = walk_mut(select, &mut named);
        for name in named.names {
            let Some(factor) = factor_of(select, &name).cloned() else { continue };
            let Some(columns) = self.columns(&factor).filter(|columns| !columns.contains(&name)) else { continue };
            let function = if is_joined { JOINED_ROW } else { ROW };
            let columns = columns.into_iter().flat_map(|column| {
                let value = Expr::CompoundIdentifier(vec![quoted(&name), quoted(&column)]);
                [Expr::value(Value::SingleQuotedString(column)), value]
            });
            let row = call(function, columns.collect());
            let _ = walk_mut(select, &mut Replaced { name: &name, row: &row, is_joined });
            self.is_changed = true;
        }
        self.columns_of_rows(names(select), select);
        self.rows_as_values(select, is_joined);
        ControlFlow::Continue(())
    }
}

impl Rows<'_, '_> {
    /// `(t).a` is `t.a`.
    fn columns_of_rows(&mut self, names: Vec<String>, part: &mut impl VisitMut) {
        let mut accessed = Accessed { names, is_changed: false };
        let _ = walk_mut(part, &mut accessed);
        self.is_changed |= accessed.is_changed;
    }

    /// `SELECT *, t.*`: the columns of all stars but the first, each of which gets a name of its own.
    fn spell_out_stars(&mut self, select: &mut Select) {
        let mut items = vec![];
        let mut n_stars = 0;
        for item in std::mem::take(&mut select.projection) {
            let is_star = matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
            n_stars += usize::from(is_star);
            match (is_star && n_stars > 1).then(|| self.columns_of_star(&item, select)).flatten() {
                Some(columns) => {
                    let column = |(table, column): (String, String)| {
                        let column = Expr::CompoundIdentifier(vec![quoted(&table), quoted(&column)]);
                        SelectItem::UnnamedExpr(column)
                    };
                    items.extend(columns.into_iter().map(column));
                    self.is_changed = true;
                }
                None => items.push(item),
            }
        }
        select.projection = items;
    }

    /// The tables' names, and their columns'.
    fn columns_of_star(&self, star: &SelectItem, select: &Select) -> Option<Vec<(String, String)>> {
        let names = match star {
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                vec![tidewire_sql::fold(name.0.last()?.as_ident()?)]
            }
            // A merged column stands for two.
            _ if select
                .from
                .iter()
                .flat_map(|from| &from.joins)
                .any(|join| using::constraint(&join.join_operator).is_some()) =>
            {
                return None;
            }
            _ => names(select),
        };
        let mut all = vec![];
        for name in names {
            let columns = self.columns(factor_of(select, &name)?)?;
            all.extend(columns.into_iter().map(|column| (name.clone(), column)));
        }
        Some(all)
    }

    /// `SELECT t FROM t`, `t::text`, `t IS NULL`. Of an outer join a row that is not there could not be told from one of
    /// NULLs, but where that does not matter.
    fn rows_as_values(&mut self, select: &mut Select, is_joined: bool) {
        for name in names(select) {
            let is_row = |expr: &Expr| matches!(expr, Expr::Identifier(ident) if tidewire_sql::fold(ident) == name);
            let (mut n_named, mut n_null_tests) = (0, 0);
            visit_values(select, &mut |expr| match expr {
                Expr::IsNull(inner) | Expr::IsNotNull(inner) if is_row(inner) => n_null_tests += 1,
                expr => n_named += usize::from(is_row(expr)),
            });
            if n_named == 0 || is_joined && n_named > n_null_tests {
                continue;
            }
            let Some(factor) = factor_of(select, &name).cloned() else { continue };
            let Some(columns) = self.columns(&factor) else { continue };
            let others: Vec<TableFactor> = factors(select).cloned().collect();
            if others.iter().any(|other| self.columns(other).is_some_and(|columns| columns.contains(&name))) {
                continue;
            }
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr) = item
                    && own_exprs(expr, &mut |inner| flow_until(is_row(inner))).is_break()
                {
                    let alias = quoted(&column_names::name_of(expr));
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                }
            }
            let value = |column: String| Expr::CompoundIdentifier(vec![quoted(&name), quoted(&column)]);
            let row = Expr::Tuple(columns.into_iter().map(value).collect());
            visit_values(select, &mut |expr| {
                if is_row(expr) {
                    *expr = row.clone();
                }
            });
            self.is_changed = true;
        }
    }

    /// The names of the columns of a FROM item.
    fn columns(&self, factor: &TableFactor) -> Option<Vec<String>> {
        let all = SelectItem::Wildcard(ast::WildcardAdditionalOptions::default());
        let from = TableWithJoins { relation: factor.clone(), joins: vec![] };
        let mut query = select(vec![all], vec![from], None, None);
        let mut around = self.with.iter().flatten().cloned();
        query.with = around.next().map(|first| {
            around.fold(first, |mut with, inner| {
                with.recursive |= inner.recursive;
                with.cte_tables.extend(inner.cte_tables);
                with
            })
        });
        // What stands behind a query of the WITH clause cannot be part of it, and may not be plannable yet.
        if let (Some(with), TableFactor::Table { name, .. }) = (&mut query.with, factor)
            && let [part] = name.0.as_slice()
            && let Some(name) = part.as_ident().map(tidewire_sql::fold)
        {
            let place = with.cte_tables.iter().rposition(|cte| tidewire_sql::fold(&cte.alias.name) == name);
            match place {
                Some(place) => with.cte_tables.truncate(place + 1),
                None => query.with = None,
            }
        }
        let Ok(planned) = self.context.logical(&query, self.text, &[], self.depth) else {
            return self.columns_as_written(factor);
        };
        Some(planned.schema.fields().iter().map(|field| visible(field.name()).to_owned()).collect())
    }

    /// The same where it cannot be planned alone: it may refer to a query around it.
    fn columns_as_written(&self, factor: &TableFactor) -> Option<Vec<String>> {
        let TableFactor::Derived { subquery, alias, .. } = factor else { return None };
        let mut body = subquery.body.as_ref();
        while let SetExpr::SetOperation { left, .. } = body {
            body = left;
        }
        let SetExpr::Select(select) = body else { return None };
        let mut columns = vec![];
        for item in &select.projection {
            match item {
                SelectItem::UnnamedExpr(expr) => columns.push(column_names::name_of(expr)),
                SelectItem::ExprWithAlias { alias, .. } => columns.push(tidewire_sql::fold(alias)),
                star => columns.extend(self.columns_of_star(star, select)?.into_iter().map(|(_, column)| column)),
            }
        }
        let names = alias.iter().flat_map(|alias| &alias.columns).map(|column| tidewire_sql::fold(&column.name));
        columns.iter_mut().zip(names).for_each(|(column, name)| *column = name);
        Some(columns)
    }
}

fn flow_until(is_found: bool) -> ControlFlow<()> {
    if is_found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The expressions of a SELECT that are values, from the outside to the inside.
fn visit_values(select: &mut Select, see: &mut dyn FnMut(&mut Expr)) {
    let see = &mut |expr: &mut Expr| {
        see(expr);
        ControlFlow::Continue(())
    };
    let _ = own_exprs_mut(&mut select.projection, see);
    let _ = own_exprs_mut(&mut select.selection, see);
    let _ = own_exprs_mut(&mut select.group_by, see);
    let _ = own_exprs_mut(&mut select.having, see);
}

fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

fn is_outer(operator: &JoinOperator) -> bool {
    !matches!(operator, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_))
}

fn factors(select: &Select) -> impl Iterator<Item = &TableFactor> {
    let from = select.from.iter();
    from.flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)))
}

/// What rows of its FROM items are called.
fn names(select: &Select) -> Vec<String> {
    factors(select).filter_map(name_of).collect()
}

/// The FROM item of that name.
fn factor_of<'s>(select: &'s Select, name: &str) -> Option<&'s TableFactor> {
    factors(select).find(|factor| {
        matches!(factor, TableFactor::Table { args: None, .. } | TableFactor::Derived { .. })
            && name_of(factor).is_some_and(|own| own == name)
    })
}

/// The name that an argument of one of the functions consists of.
fn row_name(arg: &FunctionArg) -> Option<String> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(name))) => Some(tidewire_sql::fold(name)),
        FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(name)) => match name.0.as_slice() {
            [part] => part.as_ident().map(tidewire_sql::fold),
            _ => None,
        },
        _ => None,
    }
}

/// The arguments of a call that takes a row as a json.
fn args_of(expr: &mut Expr, is_joined: bool) -> Option<&mut Vec<FunctionArg>> {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr else { return None };
    let [part] = name.0.as_slice() else { return None };
    let name = part.as_ident().map(tidewire_sql::fold)?;
    // Different rows are told apart by their values.
    let is_of_values = list.duplicate_treatment == Some(DuplicateTreatment::Distinct) && name == "count" && !is_joined;
    (FUNCTIONS.contains(&name.as_str()) && !is_of_values).then_some(&mut list.args)
}

/// Collects the names.
struct Named {
    names: Vec<String>,
    is_joined: bool,
}

impl VisitorMut for Named {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        for name in args_of(expr, self.is_joined).into_iter().flatten().filter_map(|arg| row_name(arg)) {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
        ControlFlow::Continue(())
    }
}

/// Takes the brackets away from `(t).a`, where `t` is one of the names.
struct Accessed {
    names: Vec<String>,
    is_changed: bool,
}

impl VisitorMut for Accessed {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::CompoundFieldAccess { root, access_chain } = expr else { return ControlFlow::Continue(()) };
        let (Expr::Nested(inner), [AccessExpr::Dot(Expr::Identifier(column))]) =
            (root.as_ref(), access_chain.as_slice())
        else {
            return ControlFlow::Continue(());
        };
        let Expr::Identifier(row) = inner.as_ref() else { return ControlFlow::Continue(()) };
        if self.names.contains(&tidewire_sql::fold(row)) {
            *expr = Expr::CompoundIdentifier(vec![row.clone(), column.clone()]);
            self.is_changed = true;
        }
        ControlFlow::Continue(())
    }
}

struct Replaced<'a> {
    name: &'a str,
    row: &'a Expr,
    is_joined: bool,
}

impl VisitorMut for Replaced<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        for arg in args_of(expr, self.is_joined).into_iter().flatten() {
            if row_name(arg).is_some_and(|name| name == self.name) {
                *arg = FunctionArg::Unnamed(FunctionArgExpr::Expr(self.row.clone()));
            }
        }
        ControlFlow::Continue(())
    }
}
