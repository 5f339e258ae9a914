//! Functions in FROM: `f(..) [WITH ORDINALITY]` and `ROWS FROM (f(..), g(..))` become LATERAL subqueries that have the
//! calls in their SELECT list, which is what they mean.

use sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, SelectItem, TableAlias, TableFactor,
};
use tidewire_sql::has_expr;
use tidewire_types::{Result, SqlError, SqlState};

use crate::dml::select;
use crate::functions::sets::{self, ORDINALITY};
use crate::rewrite::call;

/// Aliases of functions whose one column has a name of its own (`jsonb_array_elements(..) AS e`). In PostgreSQL the
/// alias, as a row of one column, may stand for that column: `e->>'k'`.
#[derive(Clone, Default)]
pub(crate) struct RowNames {
    /// Those that stand in the query.
    pub(crate) present: Vec<String>,
    /// Those that the column is to be called by, because the query reads them.
    pub(crate) read: Vec<String>,
}

impl RowNames {
    /// Whether the error is that one of the names is no column; the next rewrite makes it one.
    pub(crate) fn read_instead(&mut self, error: &SqlError) -> bool {
        let name = error.message().strip_prefix("column \"").and_then(|rest| rest.strip_suffix("\" does not exist"));
        let name = name.filter(|_| error.state() == SqlState::UndefinedColumn);
        match name {
            Some(name) if self.present.iter().any(|n| n == name) && !self.read.iter().any(|n| n == name) => {
                self.read.push(name.to_owned());
                true
            }
            _ => false,
        }
    }
}

/// Rewrites a FROM item that is a call. Errors: `42P10` for too many column names, `0A000` for options.
pub(crate) fn rewrite(table: &mut TableFactor, row_names: &mut RowNames) -> Result<()> {
    let Some((calls, alias, with_ordinality)) = calls_of(table)? else { return Ok(()) };
    if calls.iter().any(|call| call.args.iter().any(calls_set)) {
        let message = "set-returning functions must appear at top level of FROM";
        return Err(SqlError::new(SqlState::FeatureNotSupported, message));
    }
    let lateral = calls.iter().any(|call| call.args.iter().any(reads_columns));
    let mut items: Vec<(Expr, String)> = vec![];
    let alias_name = alias.as_ref().map(|a| tidewire_sql::fold(&a.name));
    for one in &calls {
        let name = one.name.as_str();
        match sets::own_columns(name) {
            [] => {
                let shown = alias_name.as_deref().filter(|_| calls.len() == 1).unwrap_or(name);
                items.push((call(name, one.args.clone()), shown.to_owned()));
            }
            [column] => {
                let row_name = alias_name.as_deref().filter(|_| calls.len() == 1);
                row_names.present.extend(row_name.map(str::to_owned));
                let row_name = row_name.filter(|name| row_names.read.iter().any(|read| read == name));
                items.push((call(name, one.args.clone()), row_name.unwrap_or(column).to_owned()));
            }
            columns => items.extend(
                columns
                    .iter()
                    .map(|column| (call(&sets::column_marker(name, column), one.args.clone()), (*column).to_owned())),
            ),
        }
    }
    if with_ordinality {
        items.push((call(ORDINALITY, vec![]), "ordinality".into()));
    }
    let first = calls.first().map(|call| call.name.clone()).unwrap_or_default();
    let alias = alias.unwrap_or_else(|| TableAlias { explicit: true, name: quoted(&first), columns: vec![], at: None });
    name_columns(&mut items, &alias)?;
    let items = items.into_iter().map(|(expr, name)| SelectItem::ExprWithAlias { expr, alias: quoted(&name) });
    let subquery = select(items.collect(), vec![], None, None);
    let alias = Some(TableAlias { columns: vec![], ..alias });
    *table = TableFactor::Derived { lateral, subquery: Box::new(subquery), alias, sample: None };
    Ok(())
}

pub(super) fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

struct FromCall {
    name: String,
    args: Vec<Expr>,
}

type Calls = (Vec<FromCall>, Option<TableAlias>, bool);

/// The calls that a FROM item consists of; None: it is no call of a set-returning function.
fn calls_of(table: &TableFactor) -> Result<Option<Calls>> {
    match table {
        TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality, .. } => {
            Ok(Some((each_array(array_exprs.clone()), alias.clone(), *with_ordinality)))
        }
        TableFactor::Table { name, args: Some(args), alias, with_ordinality, .. } => {
            calls_named(name, &args.args, alias.as_ref(), *with_ordinality)
        }
        TableFactor::Function { name, args, alias, with_ordinality, .. } => {
            calls_named(name, args, alias.as_ref(), *with_ordinality)
        }
        _ => Ok(None),
    }
}

fn calls_named(
    name: &ast::ObjectName,
    args: &[FunctionArg],
    alias: Option<&TableAlias>,
    with_ordinality: bool,
) -> Result<Option<Calls>> {
    let Some(name) = function_name(name) else { return Ok(None) };
    let calls = if name == tidewire_sql::ROWS_FROM {
        let mut calls = vec![];
        for function in plain_args(&name, args)? {
            match function {
                Expr::Function(ast::Function { name, args: FunctionArguments::List(list), .. }) => {
                    let name = function_name(&name).filter(|name| sets::is_known(name));
                    let name = name.ok_or_else(|| SqlError::unsupported("ROWS FROM with this function"))?;
                    calls.extend(call_of(name, &list.args)?);
                }
                _ => return Err(SqlError::new(SqlState::SyntaxError, "ROWS FROM takes function calls")),
            }
        }
        calls
    } else if sets::is_known(&name) {
        call_of(name, args)?
    } else {
        return Ok(None);
    };
    Ok(Some((calls, alias.cloned(), with_ordinality)))
}

/// The name of a function of PostgreSQL's that is called. None: it is one of another schema.
pub(crate) fn function_name(name: &ast::ObjectName) -> Option<String> {
    let parts: Option<Vec<String>> = name.0.iter().map(|part| part.as_ident().map(tidewire_sql::fold)).collect();
    match parts?.as_slice() {
        [name] => Some(name.clone()),
        [schema, name] if schema == "pg_catalog" => Some(name.clone()),
        _ => None,
    }
}

fn call_of(name: String, args: &[FunctionArg]) -> Result<Vec<FromCall>> {
    let args = plain_args(&name, args)?;
    Ok(if name == "unnest" { each_array(args) } else { vec![FromCall { name, args }] })
}

/// `unnest(a, b)` is `ROWS FROM (unnest(a), unnest(b))`.
fn each_array(arrays: Vec<Expr>) -> Vec<FromCall> {
    arrays.into_iter().map(|array| FromCall { name: "unnest".into(), args: vec![array] }).collect()
}

pub(super) fn plain_args(name: &str, args: &[FunctionArg]) -> Result<Vec<Expr>> {
    let plain = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr.clone()),
        _ => Err(SqlError::unsupported(format_args!("such an argument of {name}()"))),
    };
    args.iter().map(plain).collect()
}

/// Gives the columns the names that follow the alias.
fn name_columns(items: &mut [(Expr, String)], alias: &TableAlias) -> Result<()> {
    if alias.columns.len() > items.len() {
        let (table, n, m) = (tidewire_sql::fold(&alias.name), items.len(), alias.columns.len());
        let message = format!("table \"{table}\" has {n} columns available but {m} columns specified");
        return Err(SqlError::new(SqlState::InvalidColumnReference, message));
    }
    for ((_, name), column) in items.iter_mut().zip(&alias.columns) {
        if column.data_type.is_some() {
            return Err(SqlError::unsupported("a list of column definitions in FROM"));
        }
        *name = tidewire_sql::fold(&column.name);
    }
    Ok(())
}

/// Whether there is a call of a set-returning function in it.
fn calls_set(expr: &Expr) -> bool {
    let is_set = |expr: &Expr| matches!(expr, Expr::Function(call) if function_name(&call.name).is_some_and(|name| sets::is_known(&name)));
    !crate::rewrite::has_subquery(expr) && has_expr(expr, &is_set)
}

/// `(json_each(..)).key`: a call of which one column is wanted.
pub(crate) fn column_of_row(expr: &mut Expr) {
    let Expr::CompoundFieldAccess { root, access_chain } = expr else { return };
    let [ast::AccessExpr::Dot(Expr::Identifier(column))] = access_chain.as_slice() else { return };
    let mut inner = root.as_ref();
    while let Expr::Nested(nested) = inner {
        inner = nested;
    }
    let Expr::Function(ast::Function { name, args: FunctionArguments::List(list), .. }) = inner else { return };
    let Some(name) = function_name(name) else { return };
    let column = tidewire_sql::fold(column);
    if sets::own_columns(&name).len() > 1
        && sets::own_columns(&name).contains(&column.as_str())
        && let Ok(args) = plain_args(&name, &list.args)
    {
        *expr = call(&sets::column_marker(&name, &column), args);
    }
}

/// Whether an expression may read columns, which are then those of FROM items before it.
pub(crate) fn reads_columns(expr: &Expr) -> bool {
    has_expr(expr, &|expr| matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)))
}
