//! PostgreSQL's rules for WITH RECURSIVE: the form `term UNION [ALL] term`, and one reference, where each of its rows
//! counts by itself.

use std::ops::ControlFlow;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Expr as PlanExpr, ExprSchemable, LogicalPlan};
use sqlparser::ast::{
    self, Cte, Expr, Ident, JoinOperator, ObjectName, Query, Select, SelectItem, SetExpr, SetOperator, TableFactor,
    TableWithJoins,
};
use tidewire_sql::{has_expr, walk};
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use crate::agreement::is_choice;
use crate::dml::{all_of, taken};
use crate::functions::maybe_null::MAYBE_NULL;
use crate::provider::to_datafusion;
use crate::set_returning::from::function_name;
use crate::{aggregates, column_names};

/// Checks the recursive queries of a WITH clause. Errors: `42P19`, `0A000`.
pub(crate) fn check(query: &Query) -> Result<()> {
    let Some(with) = query.with.as_ref().filter(|with| with.recursive) else { return Ok(()) };
    with.cte_tables.iter().try_for_each(check_one)
}

/// The first term gives the types: DataFusion would cut fractions off to keep to them. Errors: `42804`.
pub(crate) fn check_types(plan: &LogicalPlan) -> datafusion::common::Result<()> {
    plan.apply_with_subqueries(|node| {
        let LogicalPlan::RecursiveQuery(query) = node else { return Ok(TreeNodeRecursion::Continue) };
        let LogicalPlan::Projection(term) = query.recursive_term.as_ref() else {
            return Ok(TreeNodeRecursion::Continue);
        };
        for (idx, (expr, field)) in term.expr.iter().zip(query.static_term.schema().fields()).enumerate() {
            // A cast to an integer that a user wrote is a call of a function of ours.
            let PlanExpr::Cast(cast) = expr.clone().unalias() else { continue };
            let from = cast.expr.get_type(term.input.schema())?;
            let is_wider = from.is_integer() && !matches!(cast.expr.as_ref(), PlanExpr::Literal(..)) && {
                let width = |t: &arrow::datatypes::DataType| t.primitive_width().unwrap_or(0);
                width(&from) > width(field.data_type())
            };
            if field.data_type().is_integer() && (from.is_floating() || from.is_decimal() || is_wider) {
                let (name, column, first) = (&query.name, idx + 1, SqlType::of(field));
                let overall = SqlType::of_data_type(&from).to_string();
                let overall = overall.split('(').next().unwrap_or_default();
                let message = format!(
                    "recursive query \"{name}\" column {column} has type {first} in non-recursive term but type {overall} overall"
                );
                let error = SqlError::new(SqlState::DatatypeMismatch, message);
                return Err(to_datafusion(
                    error.with_hint("Cast the output of the non-recursive term to the correct type."),
                ));
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map(|_| ())
}

/// Writes the recursive queries of a WITH clause as DataFusion plans them rightly.
///
/// A column that is never NULL in the first term may be in what follows, and its type in the plan is that of both. A query
/// beside them that is none, though it is a UNION, may have a WITH, an ORDER BY and a LIMIT, which DataFusion would not see.
pub(crate) fn prepare(query: &mut Query) {
    let Some(with) = query.with.as_mut().filter(|with| with.recursive) else { return };
    for cte in &mut with.cte_tables {
        let name = tidewire_sql::fold(&cte.alias.name);
        if n_references(cte.query.as_ref(), &name) == 0 {
            if cte.query.with.is_some() || matches!(cte.query.body.as_ref(), SetExpr::SetOperation { .. }) {
                let inner = cte.query.clone();
                *cte.query = Query {
                    with: None,
                    body: Box::new(SetExpr::Query(inner)),
                    order_by: None,
                    limit_clause: None,
                    fetch: None,
                    ..cte.query.as_ref().clone()
                };
            }
            continue;
        }
        let inner = cte.query.with.take();
        let SetExpr::SetOperation { op: SetOperator::Union, left, right, .. } = cte.query.body.as_mut() else {
            continue;
        };
        let let_be_null = |expr: &mut Expr| {
            let value = std::mem::replace(expr, Expr::value(ast::Value::Null));
            *expr = crate::rewrite::call(MAYBE_NULL, vec![value]);
        };
        match left.as_mut() {
            SetExpr::Select(select) => {
                column_names::name_select_list(select);
                for item in &mut select.projection {
                    if let SelectItem::ExprWithAlias { expr, .. } = item {
                        let_be_null(expr);
                    }
                }
            }
            SetExpr::Values(values) => {
                values.rows.iter_mut().flat_map(|row| row.content.iter_mut()).for_each(let_be_null)
            }
            _ => {}
        }
        if has_choice(left.as_ref()) {
            **left = *all_of(taken(left), Ident::new("term")).body;
        }
        // DataFusion does not see a WITH before the two terms.
        if let Some(inner) = inner {
            for term in [left, right] {
                let mut query = taken(term);
                query.with = Some(inner.clone());
                **term = SetExpr::Query(Box::new(query));
            }
        }
    }
}

/// Whether there is something in it that has the type of its values, which a relation in FROM is given.
fn has_choice(term: &SetExpr) -> bool {
    has_expr(term, &|expr| match expr {
        Expr::Case { .. } | Expr::Array(_) => true,
        Expr::Function(call) => function_name(&call.name).is_some_and(|name| is_choice(&name)),
        _ => false,
    })
}

fn invalid(message: String) -> SqlError {
    SqlError::new(SqlState::InvalidRecursion, message)
}

fn check_one(cte: &Cte) -> Result<()> {
    let name = tidewire_sql::fold(&cte.alias.name);
    if n_references(cte.query.as_ref(), &name) == 0 {
        return Ok(());
    }
    let SetExpr::SetOperation { op: SetOperator::Union, left, right, .. } = cte.query.body.as_ref() else {
        let form = "does not have the form non-recursive-term UNION [ALL] recursive-term";
        return Err(invalid(format!("recursive query \"{name}\" {form}")));
    };
    let clause = match cte.query.as_ref() {
        Query { order_by: Some(_), .. } => Some("ORDER BY"),
        Query { limit_clause: Some(_), .. } | Query { fetch: Some(_), .. } => Some("LIMIT"),
        Query { locks, .. } if !locks.is_empty() => Some("FOR UPDATE/SHARE"),
        _ => None,
    };
    if let Some(clause) = clause {
        let message = format!("{clause} in a recursive query is not implemented");
        return Err(SqlError::new(SqlState::FeatureNotSupported, message));
    }
    let reference = Reference { name: &name };
    if n_references(left.as_ref(), &name) > 0 {
        return Err(reference.wrong("appear within its non-recursive term"));
    }
    match reference.in_set(right, None)? {
        n if n_references(right.as_ref(), &name) > n => Err(reference.wrong("appear within a subquery")),
        n if n > 1 => Err(reference.wrong("appear more than once")),
        _ => Ok(()),
    }
}

/// How often a relation of that name stands in something.
fn n_references<T: ast::Visit>(node: &T, name: &str) -> usize {
    struct Counter<'a> {
        name: &'a str,
        n: usize,
    }
    impl ast::Visitor for Counter<'_> {
        type Break = ();

        fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
            self.n += usize::from(is_named(relation, self.name));
            ControlFlow::Continue(())
        }
    }
    let mut counter = Counter { name, n: 0 };
    let _ = walk(node, &mut counter);
    counter.n
}

fn is_named(relation: &ObjectName, name: &str) -> bool {
    matches!(relation.0.as_slice(), [part] if part.as_ident().is_some_and(|ident| tidewire_sql::fold(ident) == name))
}

/// Counts the references in FROM clauses, which are those that may be.
struct Reference<'a> {
    name: &'a str,
}

/// Where no reference may stand.
type Forbidden = Option<&'static str>;

impl Reference<'_> {
    fn wrong(&self, what: &str) -> SqlError {
        invalid(format!("recursive reference to query \"{}\" must not {what}", self.name))
    }

    fn in_query(&self, query: &Query, forbidden: Forbidden) -> Result<usize> {
        let mut n = 0;
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            n += self.in_query(&cte.query, forbidden)?;
        }
        Ok(n + self.in_set(&query.body, forbidden)?)
    }

    fn in_set(&self, body: &SetExpr, forbidden: Forbidden) -> Result<usize> {
        match body {
            SetExpr::Select(select) => self.in_select(select, forbidden),
            SetExpr::Query(query) => self.in_query(query, forbidden),
            SetExpr::SetOperation { op, left, right, .. } => {
                let (of_left, of_right) = match op {
                    SetOperator::Union => (forbidden, forbidden),
                    SetOperator::Except | SetOperator::Minus => (forbidden, Some("EXCEPT")),
                    SetOperator::Intersect => (Some("INTERSECT"), Some("INTERSECT")),
                };
                Ok(self.in_set(left, of_left)? + self.in_set(right, of_right)?)
            }
            _ => Ok(0),
        }
    }

    fn in_select(&self, select: &Select, forbidden: Forbidden) -> Result<usize> {
        let mut n = 0;
        for item in &select.from {
            n += self.in_joins(item, forbidden)?;
        }
        let having = select.having.iter();
        let items = select.projection.iter().filter_map(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
            _ => None,
        });
        if n > 0 && items.chain(having).any(aggregates::has_aggregate) {
            return Err(invalid("aggregate functions are not allowed in a recursive query's recursive term".into()));
        }
        Ok(n)
    }

    fn in_joins(&self, item: &TableWithJoins, forbidden: Forbidden) -> Result<usize> {
        const OUTER: Forbidden = Some("an outer join");
        let of_right = |operator: &JoinOperator| match operator {
            JoinOperator::Left(_) | JoinOperator::LeftOuter(_) | JoinOperator::FullOuter(_) => OUTER,
            _ => forbidden,
        };
        let is_nullable = |operator: &JoinOperator| {
            matches!(operator, JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_))
        };
        let mut n = 0;
        for (idx, join) in item.joins.iter().enumerate() {
            // A later right join makes NULLs of all that stands before it.
            let later = item.joins.iter().skip(idx + 1).any(|join| is_nullable(&join.join_operator));
            n += self.in_factor(&join.relation, if later { OUTER } else { of_right(&join.join_operator) })?;
        }
        let of_first = if item.joins.iter().any(|join| is_nullable(&join.join_operator)) { OUTER } else { forbidden };
        Ok(n + self.in_factor(&item.relation, of_first)?)
    }

    fn in_factor(&self, factor: &TableFactor, forbidden: Forbidden) -> Result<usize> {
        match factor {
            TableFactor::Table { name, .. } if is_named(name, self.name) => match forbidden {
                None => Ok(1),
                Some(place) => Err(self.wrong(&format!("appear within {place}"))),
            },
            TableFactor::Derived { subquery, .. } => self.in_query(subquery, forbidden),
            TableFactor::NestedJoin { table_with_joins, .. } => self.in_joins(table_with_joins, forbidden),
            _ => Ok(0),
        }
    }
}
