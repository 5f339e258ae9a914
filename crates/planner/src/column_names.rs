//! The names that PostgreSQL gives to columns without an alias: `count`, `case`, `?column?`, ..
//!
//! DataFusion wants the names of one SELECT list to differ, PostgreSQL does not mind. A second column of one name
//! therefore gets a hidden suffix, which [`visible`] takes off again where names reach the user.

use std::collections::HashSet;

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan};
use sqlparser::ast::{self, Expr, Select, SelectItem, TableFactor, TableWithJoins};
use tidewire_sql::{fold, sql_type};
use tidewire_types::SqlType;

use crate::rewrite::outer_tables;

/// Begins the hidden suffix. No identifier that a user can type sensibly contains it.
pub(crate) const SUFFIX: char = '\u{1}';

/// The name as users see it.
pub(crate) fn visible(name: &str) -> &str {
    name.split(SUFFIX).next().unwrap_or(name)
}

/// The node with what `change` makes of its expressions, which keep their names.
pub(crate) fn map_named(
    plan: LogicalPlan,
    mut change: impl FnMut(PlanExpr) -> Result<Transformed<PlanExpr>>,
) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(change(expr)?.update_data(|expr| name.restore(expr)))
    })
}

/// Gives every unnamed expression of a SELECT list its PostgreSQL name, and equal names a hidden suffix.
pub(crate) fn name_select_list(select: &mut Select) {
    let mut tables = HashSet::new();
    select.from.iter().for_each(|from| tables_of(from, &mut tables));
    // Of a column of a query around this one DataFusion would make a name of its own.
    let is_outside = |expr: &Expr| match expr {
        Expr::Identifier(_) => tables.is_empty(),
        Expr::CompoundIdentifier(parts) => {
            matches!(parts.as_slice(), [table, _] if !tables.contains(&fold(table)))
        }
        _ => false,
    };
    let items = &mut select.projection;
    let is_wildcard = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let wildcard = items.iter().any(is_wildcard);
    let mut seen = HashSet::new();
    for (idx, item) in items.iter_mut().enumerate() {
        let (name, plain) = match item {
            SelectItem::UnnamedExpr(expr) => (name_of(expr), is_column(expr) && !is_outside(expr)),
            SelectItem::ExprWithAlias { alias, .. } => (fold(alias), false),
            _ => continue,
        };
        let is_new = seen.insert(name.clone()) && !(wildcard && plain);
        let unique = if is_new { name } else { format!("{name}{SUFFIX}{idx}") };
        match item {
            // A column keeps its qualifier as long as its name is its own.
            SelectItem::UnnamedExpr(_) if plain && is_new => {}
            SelectItem::UnnamedExpr(expr) => {
                let expr = std::mem::replace(expr, Expr::value(ast::Value::Null));
                *item = SelectItem::ExprWithAlias { expr, alias: ast::Ident::with_quote('"', unique) };
            }
            SelectItem::ExprWithAlias { alias, .. } if !is_new => *alias = ast::Ident::with_quote('"', unique),
            _ => {}
        }
    }
}

/// The names of the tables of a FROM item.
fn tables_of(from: &TableWithJoins, names: &mut HashSet<String>) {
    for factor in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
        names.extend(outer_tables::name_of(factor));
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
            tables_of(table_with_joins, names);
        }
    }
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

pub(crate) fn name_of(expr: &Expr) -> String {
    strong_name(expr).or_else(|| weak_name(expr)).unwrap_or_else(|| "?column?".into())
}

/// A name that comes from a column or a function.
fn strong_name(expr: &Expr) -> Option<String> {
    Some(match expr {
        Expr::Identifier(ident) => fold(ident),
        Expr::CompoundIdentifier(parts) => fold(parts.last()?),
        Expr::CompoundFieldAccess { root, access_chain } => access_chain
            .iter()
            .rev()
            .find_map(|access| match access {
                ast::AccessExpr::Dot(Expr::Identifier(ident)) => Some(fold(ident)),
                _ => None,
            })
            .or_else(|| strong_name(root))?,
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => return strong_name(inner),
        Expr::Cast { expr, .. } => return strong_name(expr),
        Expr::Function(function) => fold(function.name.0.last()?.as_ident()?),
        Expr::Case { else_result: Some(result), .. } => return strong_name(result),
        Expr::Subquery(query) => return subquery_name(query),
        Expr::Extract { .. } => "extract".into(),
        Expr::Substring { shorthand: true, .. } => "substr".into(),
        Expr::Substring { .. } => "substring".into(),
        Expr::Trim { trim_where, .. } => match trim_where {
            Some(ast::TrimWhereField::Leading) => "ltrim".into(),
            Some(ast::TrimWhereField::Trailing) => "rtrim".into(),
            _ => "btrim".into(),
        },
        Expr::Position { .. } => "position".into(),
        Expr::Overlay { .. } => "overlay".into(),
        Expr::BinaryOp { op: ast::BinaryOperator::Overlaps, .. } => "overlaps".into(),
        Expr::Ceil { .. } => "ceil".into(),
        Expr::Floor { .. } => "floor".into(),
        Expr::AtTimeZone { .. } => "timezone".into(),
        Expr::Exists { .. } => "exists".into(),
        Expr::Array(_) => "array".into(),
        Expr::Tuple(_) | Expr::Struct { .. } => "row".into(),
        _ => return None,
    })
}

/// A name that comes from the expression's form, where nothing better is inside.
fn weak_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Nested(inner) => weak_name(inner),
        Expr::Case { .. } => Some("case".into()),
        Expr::Cast { data_type, .. } => Some(type_name(data_type)),
        Expr::TypedString(typed) => Some(type_name(&typed.data_type)),
        Expr::Interval(_) => Some("interval".into()),
        _ => None,
    }
}

/// A type's name as `pg_type` has it.
fn type_name(data_type: &ast::DataType) -> String {
    match sql_type(data_type) {
        Ok(sql_type) => name_of_type(sql_type),
        Err(_) => data_type.to_string().to_lowercase(),
    }
}

fn name_of_type(sql_type: SqlType) -> String {
    match sql_type {
        SqlType::Bool => "bool",
        SqlType::Int2 => "int2",
        SqlType::Int4 => "int4",
        SqlType::Int8 => "int8",
        SqlType::Float4 => "float4",
        SqlType::Float8 => "float8",
        SqlType::Numeric(_) => "numeric",
        SqlType::Varchar(_) => "varchar",
        SqlType::Char(_) => "bpchar",
        SqlType::Time => "time",
        SqlType::Timestamp => "timestamp",
        SqlType::Timestamptz => "timestamptz",
        SqlType::Array(element) => return name_of_type(*element),
        SqlType::Struct(_) => "row",
        other => return other.to_string(),
    }
    .into()
}

fn subquery_name(query: &ast::Query) -> Option<String> {
    let ast::SetExpr::Select(select) = query.body.as_ref() else { return None };
    match select.projection.first()? {
        SelectItem::UnnamedExpr(expr) => Some(name_of(expr)),
        SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
        _ => None,
    }
}
