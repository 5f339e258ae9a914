//! Row values: `(a, b) = (1, 2)`, `(a, b) < (c, d)`, `(a, b) IN (SELECT x, y ..)`, `(a, b) = (SELECT x, y ..)`.
//!
//! A comparison of rows becomes one of their values, from the left to the right as PostgreSQL does it. With a subquery
//! on the other side, `=` and `<` compare with a subquery for each of its columns, and IN, ANY and ALL compare rows that
//! [`crate::unnest_query`] takes apart.

use std::ops::ControlFlow;

use sqlparser::ast::{
    self, BinaryOperator as Op, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, VisitorMut,
};
use tidewire_sql::walk_mut;
use tidewire_types::{Result, SqlError, SqlState};

use super::call;
use crate::dml::select;
use crate::functions::ROW_VALUE;
use crate::unnest_query::ROW;

/// Copies of a subquery that a statement may need.
const COPIES_MAX: usize = 1000;

/// Rewrites `expr` if it is about rows. `n_copies` counts the copies that were made of subqueries.
pub(super) fn rewrite(expr: &mut Expr, n_copies: &mut usize) -> Result<()> {
    if let Some(rewritten) = rewritten(expr, n_copies)? {
        *expr = rewritten;
    }
    Ok(())
}

/// Rows that nothing is compared with are values: DataFusion takes brackets around names and literals only.
pub(super) fn as_values(query: &mut Query) {
    struct Rows;
    impl VisitorMut for Rows {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Tuple(values) = expr
                && !values.is_empty()
            {
                *expr = call(ROW_VALUE, std::mem::take(values));
            }
            ControlFlow::Continue(())
        }
    }
    let _ = walk_mut(query, &mut Rows);
}

fn rewritten(expr: &mut Expr, n_copies: &mut usize) -> Result<Option<Expr>> {
    Ok(match expr {
        Expr::InSubquery { expr, subquery, .. } => {
            if let Some(values) = row(expr) {
                **subquery = of_rows(subquery, values.len());
                **expr = call(ROW, values);
            }
            None
        }
        Expr::AnyOp { left, right, .. } | Expr::AllOp { left, right, .. } => {
            if let (Some(values), Expr::Subquery(subquery)) = (row(left), right.as_mut()) {
                **subquery = of_rows(subquery, values.len());
                **left = call(ROW, values);
            }
            None
        }
        Expr::InList { expr, list, negated } => match row(expr) {
            None => None,
            Some(values) => {
                let mut any = None;
                for item in list {
                    let equal = compared(&values, &Op::Eq, &same_length(&values, item)?);
                    any = Some(match any {
                        None => equal,
                        Some(before) => binary(before, Op::Or, equal),
                    });
                }
                any.map(|any| if *negated { not(any) } else { any })
            }
        },
        Expr::BinaryOp { left, op, right } if is_comparison(op) => match (row(left), row(right)) {
            (None, None) => None,
            (Some(l), None) => match subquery(right) {
                Some(query) => Some(compared(&l, op, &columns_of(query, l.len(), n_copies)?)),
                None => return Err(unequal()),
            },
            (None, Some(r)) => match subquery(left) {
                Some(query) => Some(compared(&columns_of(query, r.len(), n_copies)?, op, &r)),
                None => return Err(unequal()),
            },
            (Some(l), Some(_)) => Some(compared(&l, op, &same_length(&l, right)?)),
        },
        Expr::Between { expr, low, high, negated } => match row(expr) {
            None => None,
            Some(values) => {
                let from = compared(&values, &Op::GtEq, &same_length(&values, low)?);
                let to = compared(&values, &Op::LtEq, &same_length(&values, high)?);
                let between = binary(from, Op::And, to);
                Some(if *negated { not(between) } else { between })
            }
        },
        Expr::IsDistinctFrom(left, right) => match row(left) {
            None => None,
            Some(l) => {
                let pairs = l.iter().cloned().zip(same_length(&l, right)?);
                folded(pairs.map(|(a, b)| Expr::IsDistinctFrom(nested(a), nested(b))), &Op::Or)
            }
        },
        Expr::IsNotDistinctFrom(left, right) => match row(left) {
            None => None,
            Some(l) => {
                let pairs = l.iter().cloned().zip(same_length(&l, right)?);
                folded(pairs.map(|(a, b)| Expr::IsNotDistinctFrom(nested(a), nested(b))), &Op::And)
            }
        },
        Expr::IsNull(inner) => {
            row(inner).and_then(|values| folded(values.into_iter().map(|v| Expr::IsNull(nested(v))), &Op::And))
        }
        Expr::IsNotNull(inner) => {
            row(inner).and_then(|values| folded(values.into_iter().map(|v| Expr::IsNotNull(nested(v))), &Op::And))
        }
        _ => None,
    })
}

/// The values of `(a, b)` or `ROW(a, b)`.
fn row(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Nested(inner) => row(inner),
        Expr::Tuple(values) => Some(values.clone()),
        Expr::Function(function) => {
            let [part] = function.name.0.as_slice() else { return None };
            let ident = part.as_ident()?;
            if ident.quote_style.is_some() || !ident.value.eq_ignore_ascii_case("row") {
                return None;
            }
            let FunctionArguments::List(list) = &function.args else { return None };
            list.args
                .iter()
                .map(|arg| match arg {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                    _ => None,
                })
                .collect()
        }
        _ => None,
    }
}

fn same_length(values: &[Expr], other: &Expr) -> Result<Vec<Expr>> {
    row(other).filter(|other| other.len() == values.len() && !other.is_empty()).ok_or_else(unequal)
}

fn unequal() -> SqlError {
    SqlError::new(SqlState::SyntaxError, "unequal number of entries in row expressions")
}

fn is_comparison(op: &Op) -> bool {
    matches!(op, Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq)
}

fn subquery(expr: &Expr) -> Option<&Query> {
    match expr {
        Expr::Nested(inner) => subquery(inner),
        Expr::Subquery(query) => Some(query),
        _ => None,
    }
}

/// `left op right`: equality is all equal; an order is that of the first values that differ.
fn compared(left: &[Expr], op: &Op, right: &[Expr]) -> Expr {
    let pairs = || left.iter().cloned().zip(right.iter().cloned());
    let each = |op: Op| pairs().map(move |(l, r)| binary(l, op.clone(), r));
    let all = match op {
        Op::Eq => folded(each(Op::Eq), &Op::And),
        Op::NotEq => folded(each(Op::NotEq), &Op::Or),
        _ => {
            let strict = match op {
                Op::LtEq => Op::Lt,
                Op::GtEq => Op::Gt,
                other => other.clone(),
            };
            let mut reversed = pairs().rev();
            let last = reversed.next().map(|(l, r)| binary(l, op.clone(), r));
            last.map(|last| {
                reversed.fold(last, |rest, (l, r)| {
                    let differs = binary(l.clone(), strict.clone(), r.clone());
                    let same = binary(l, Op::Eq, r);
                    binary(differs, Op::Or, binary(same, Op::And, rest))
                })
            })
        }
    };
    all.unwrap_or_else(|| Expr::value(ast::Value::Boolean(true)))
}

/// A subquery for each of its columns.
fn columns_of(query: &Query, n: usize, n_copies: &mut usize) -> Result<Vec<Expr>> {
    *n_copies += n;
    if *n_copies > COPIES_MAX {
        let detail = format!("Rows are compared with more than {COPIES_MAX} columns of subqueries.");
        return Err(SqlError::new(SqlState::StatementTooComplex, "stack depth limit exceeded").with_detail(detail));
    }
    let one = |idx| Expr::Subquery(Box::new(over(query, n, vec![Expr::Identifier(column(idx))])));
    Ok((0..n).map(one).collect())
}

/// The subquery with its columns as one row.
fn of_rows(query: &Query, n: usize) -> Query {
    let values = (0..n).map(|idx| Expr::Identifier(column(idx))).collect();
    over(query, n, vec![call(ROW, values)])
}

/// `SELECT items FROM (query) AS row (column, ..)`
fn over(query: &Query, n: usize, items: Vec<Expr>) -> Query {
    let columns = (0..n).map(|idx| ast::TableAliasColumnDef { name: column(idx), data_type: None }).collect();
    let alias = ast::TableAlias { explicit: true, name: Ident::with_quote('"', ROW), columns, at: None };
    let subquery = Box::new(query.clone());
    let relation = ast::TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None };
    let from = vec![ast::TableWithJoins { relation, joins: vec![] }];
    let items = items.into_iter().map(ast::SelectItem::UnnamedExpr).collect();
    select(items, from, None, None)
}

fn column(idx: usize) -> Ident {
    Ident::with_quote('"', format!("row\u{1}{idx}"))
}

fn binary(left: Expr, op: Op, right: Expr) -> Expr {
    Expr::BinaryOp { left: nested(left), op, right: nested(right) }
}

fn not(expr: Expr) -> Expr {
    Expr::UnaryOp { op: ast::UnaryOperator::Not, expr: nested(expr) }
}

fn nested(expr: Expr) -> Box<Expr> {
    Box::new(Expr::Nested(Box::new(expr)))
}

fn folded(exprs: impl Iterator<Item = Expr>, op: &Op) -> Option<Expr> {
    exprs.reduce(|a, b| binary(a, op.clone(), b))
}
