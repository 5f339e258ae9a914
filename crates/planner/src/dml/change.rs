//! UPDATE and DELETE: the affected rows are those of a SELECT with the same FROM and WHERE.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr as LogicalExpr, LogicalPlanBuilder};
use sqlparser::ast::{
    self, Expr, FromTable, Ident, Query, SelectItem, SetExpr, TableFactor, TableWithJoins, UpdateTableFromKind,
};
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use super::assignments::{assignments, is_literal, parameter};
use super::{Delete, Target, Update, closed, merged, row_schema, unexpected};
use crate::errors::planning_error;
use crate::functions::cast;
use crate::parameters;
use crate::query::{Context, Logical, on_large_stack};
use crate::rewrite::check_depth;

impl Context<'_> {
    /// Plans an UPDATE (`Statement::Update` of sqlparser).
    ///
    /// Errors: as a query; `42809` for what is no table, `42703` for unknown columns, `42804` for wrong types.
    pub fn update(&self, statement: &ast::Statement, text: &str, parameters: &[Option<SqlType>]) -> Result<Update> {
        let ast::Statement::Update(update) = statement else { return Err(SqlError::internal("no UPDATE")) };
        on_large_stack(check_depth(statement)?, || self.planned_update(update, text, parameters))
    }

    fn planned_update(&self, update: &ast::Update, text: &str, parameters: &[Option<SqlType>]) -> Result<Update> {
        unexpected(update.or.is_some() || update.output.is_some(), "UPDATE OR or OUTPUT")?;
        unexpected(!update.order_by.is_empty() || update.limit.is_some(), "UPDATE with ORDER BY or LIMIT")?;
        unexpected(!update.table.joins.is_empty(), "UPDATE of a join")?;
        let target = self.target_of(&update.table.relation, "update", text)?;
        let others = match &update.from {
            None => vec![],
            Some(UpdateTableFromKind::BeforeSet(tables) | UpdateTableFromKind::AfterSet(tables)) => tables.clone(),
        };
        if !others.is_empty() && target.primary_key().is_empty() {
            return Err(SqlError::unsupported("UPDATE .. FROM of a table without a primary key"));
        }
        let assigned = assignments(&update.assignments, &target, text)?;
        let mut items = columns(&target);
        let mut declared = parameters.to_vec();
        for (idx, value) in &assigned {
            let alias = Ident::with_quote('"', format!("new {idx}"));
            items.push(SelectItem::ExprWithAlias { expr: value.clone(), alias });
            declare(&mut declared, parameter(value), target.table.columns.get(*idx).map(|c| &c.sql_type));
        }
        // A row that several rows of FROM match is updated once.
        let once = (!others.is_empty()).then(|| key_of(&target));
        let from = std::iter::once(update.table.clone()).chain(others).collect();
        let query = select(items, from, update.selection.clone(), once);
        let mut logical = self.logical(&query, text, parameters::of_part(&declared, &query), 0)?;
        self.assign(&mut logical, &target, &assigned, text)?;
        let rows = self.optimized(logical, text)?;
        let open = merged(&rows.parameters, &declared);
        let returning = self.returning(update.returning.as_ref(), &target, text, &open)?;
        let parameters = closed(open, returning.as_ref());
        Ok(Update { table: target.table, rows, returning, parameters })
    }

    /// Turns (old columns, assigned values) into (old columns, new columns).
    fn assign(&self, logical: &mut Logical, target: &Target, assigned: &[(usize, Expr)], text: &str) -> Result<()> {
        let columns: Vec<LogicalExpr> = logical.plan.schema().columns().into_iter().map(LogicalExpr::Column).collect();
        let n_columns = target.table.columns.len();
        let (old, values) = columns.split_at(n_columns.min(columns.len()));
        let places: HashMap<usize, usize> =
            assigned.iter().enumerate().map(|(place, (idx, _))| (*idx, place)).collect();
        let mut exprs = vec![];
        exprs.extend(old.iter().enumerate().map(|(idx, old)| old.clone().alias(format!("old {idx}"))));
        for (idx, (column, old)) in target.table.columns.iter().zip(old).enumerate() {
            let value = match places.get(&idx).and_then(|place| Some((values.get(*place)?, assigned.get(*place)?))) {
                None => old.clone(),
                Some((value, (_, expr))) => {
                    let function = cast::assignment(&column.name, &column.sql_type, is_literal(expr));
                    LogicalExpr::ScalarFunction(ScalarFunction::new_udf(function, vec![value.clone()]))
                }
            };
            exprs.push(value.alias(format!("new {idx}")));
        }
        let plan = LogicalPlanBuilder::from(logical.plan.clone()).project(exprs).and_then(|b| b.build());
        logical.plan = plan.map_err(|e| planning_error(e, text))?;
        let row = row_schema(&target.table);
        let fields = row.fields().iter().chain(row.fields()).cloned();
        logical.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(())
    }

    /// Plans a DELETE.
    ///
    /// Errors: as a query; `42809` for what is no table.
    pub fn delete(&self, delete: &ast::Delete, text: &str, parameters: &[Option<SqlType>]) -> Result<Delete> {
        let depth = delete.selection.as_ref().map_or(Ok(0), check_depth)?;
        on_large_stack(depth, || self.planned_delete(delete, text, parameters))
    }

    fn planned_delete(&self, delete: &ast::Delete, text: &str, parameters: &[Option<SqlType>]) -> Result<Delete> {
        unexpected(!delete.tables.is_empty() || delete.output.is_some(), "DELETE of several tables")?;
        unexpected(!delete.order_by.is_empty() || delete.limit.is_some(), "DELETE with ORDER BY or LIMIT")?;
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let [table] = from.as_slice() else { return Err(SqlError::unsupported("DELETE of several tables")) };
        unexpected(!table.joins.is_empty(), "DELETE of a join")?;
        let target = self.target_of(&table.relation, "delete from", text)?;
        let selection = match &delete.using {
            None => delete.selection.clone(),
            // A row goes once, however many rows of USING match it.
            Some(using) => {
                let one = SelectItem::UnnamedExpr(Expr::value(ast::Value::Number("1".into(), false)));
                let subquery = select(vec![one], using.clone(), delete.selection.clone(), None);
                Some(Expr::Exists { subquery: Box::new(subquery), negated: false })
            }
        };
        let query = select(columns(&target), vec![table.clone()], selection, None);
        let mut logical = self.logical(&query, text, parameters::of_part(parameters, &query), 0)?;
        logical.schema = row_schema(&target.table);
        let rows = self.optimized(logical, text)?;
        let open = merged(&rows.parameters, parameters);
        let returning = self.returning(delete.returning.as_ref(), &target, text, &open)?;
        let parameters = closed(open, returning.as_ref());
        Ok(Delete { table: target.table, rows, returning, parameters })
    }

    fn target_of(&self, relation: &TableFactor, verb: &str, text: &str) -> Result<Target> {
        match relation {
            TableFactor::Table { name, alias, args: None, .. } => {
                self.target(name, alias.as_ref().map(|a| a.name.clone()), verb, text)
            }
            _ => Err(SqlError::new(SqlState::SyntaxError, format!("cannot {verb} what is no table"))),
        }
    }
}

/// The parameter that is all of a value has the column's type, unless the client said otherwise.
pub(super) fn declare(declared: &mut Vec<Option<SqlType>>, number: Option<usize>, sql_type: Option<&SqlType>) {
    let Some(idx) = number.and_then(|n| n.checked_sub(1)).filter(|idx| *idx < usize::from(u16::MAX)) else { return };
    if declared.len() <= idx {
        declared.resize(idx + 1, None);
    }
    if let Some(slot @ None) = declared.get_mut(idx) {
        *slot = sql_type.cloned();
    }
}

/// All columns of the target, qualified.
fn columns(target: &Target) -> Vec<SelectItem> {
    let names = target.table.columns.iter().map(|c| c.name.as_str()).enumerate();
    let item = |(idx, name): (usize, &str)| SelectItem::ExprWithAlias {
        expr: column(target, name),
        alias: Ident::with_quote('"', format!("old {idx}")),
    };
    names.map(item).collect()
}

fn column(target: &Target, name: &str) -> Expr {
    Expr::CompoundIdentifier(vec![Ident::with_quote('"', target.qualifier()), Ident::with_quote('"', name)])
}

fn key_of(target: &Target) -> ast::Distinct {
    let names = target.primary_key().iter().filter_map(|idx| target.table.columns.get(*idx));
    ast::Distinct::On(names.map(|c| column(target, &c.name)).collect())
}

/// `SELECT * FROM (subquery) AS name`
pub(crate) fn all_of(subquery: Query, name: Ident) -> Query {
    let alias = Some(ast::TableAlias { explicit: true, name, columns: vec![], at: None });
    let relation = TableFactor::Derived { lateral: false, subquery: Box::new(subquery), alias, sample: None };
    let all_columns = SelectItem::Wildcard(ast::WildcardAdditionalOptions::default());
    select(vec![all_columns], vec![TableWithJoins { relation, joins: vec![] }], None, None)
}

/// Takes the body out of a query, as one of its own.
pub(crate) fn taken(body: &mut SetExpr) -> Query {
    let no_rows = SetExpr::Values(ast::Values { explicit_row: false, value_keyword: false, rows: vec![] });
    let mut query = select(vec![], vec![], None, None);
    *query.body = std::mem::replace(body, no_rows);
    query
}

/// `SELECT [DISTINCT ..] items FROM from WHERE selection`
pub(crate) fn select(
    items: Vec<SelectItem>,
    from: Vec<TableWithJoins>,
    selection: Option<Expr>,
    distinct: Option<ast::Distinct>,
) -> Query {
    let select = ast::Select {
        select_token: ast::helpers::attached_token::AttachedToken::empty(),
        optimizer_hints: vec![],
        distinct,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: items,
        exclude: None,
        into: None,
        from,
        lateral_views: vec![],
        prewhere: None,
        selection,
        connect_by: vec![],
        group_by: ast::GroupByExpr::Expressions(vec![], vec![]),
        cluster_by: vec![],
        distribute_by: vec![],
        sort_by: vec![],
        having: None,
        named_window: vec![],
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: ast::SelectFlavor::Standard,
    };
    Query {
        with: None,
        body: Box::new(SetExpr::Select(Box::new(select))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: vec![],
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: vec![],
    }
}
