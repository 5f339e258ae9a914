//! INSERT: the rows of a query or of VALUES, as rows of the table.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr as LogicalExpr, LogicalPlanBuilder};
use sqlparser::ast::{self, Expr, Query, SetExpr, TableObject};
use tidewire_catalog::ColumnDef;
use tidewire_sql::fold;
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use super::assignments::{default, is_literal, parameter};
use super::change::declare;
use super::{Insert, InsertRows, Target, closed, merged, row_schema, unexpected};
use crate::errors::planning_error;
use crate::functions::cast;
use crate::parameters;
use crate::query::{Context, Logical, Planned, on_large_stack};
use crate::rewrite::{self, check_depth};

impl Context<'_> {
    /// Plans an INSERT.
    ///
    /// Errors: as a query; `42809` for what is no table, `42703`, `42601` for a wrong number of values, `42804` for
    /// wrong types, `42P10` for an ON CONFLICT target that is not the primary key.
    pub fn insert(&self, insert: &ast::Insert, text: &str, parameters: &[Option<SqlType>]) -> Result<Insert> {
        let depth = insert.source.as_ref().map_or(Ok(0), |query| check_depth(query.as_ref()))?;
        on_large_stack(depth, || self.planned_insert(insert, text, parameters))
    }

    fn planned_insert(&self, insert: &ast::Insert, text: &str, parameters: &[Option<SqlType>]) -> Result<Insert> {
        unexpected(insert.or.is_some() || insert.ignore || insert.replace_into, "INSERT OR, INSERT IGNORE or REPLACE")?;
        unexpected(insert.overwrite || insert.partitioned.is_some(), "INSERT OVERWRITE")?;
        unexpected(!insert.assignments.is_empty() || insert.output.is_some(), "INSERT .. SET or OUTPUT")?;
        unexpected(insert.multi_table_insert_type.is_some(), "INSERT into several tables")?;
        let TableObject::TableName(name) = &insert.table else { return Err(SqlError::unsupported("INSERT into this")) };
        let alias = insert.table_alias.as_ref().map(|a| a.alias.clone());
        let target = self.target(name, alias, "insert into", text)?;
        let columns = target_columns(&insert.columns, &target, text)?;

        let explicit = !insert.columns.is_empty();
        let own = parameters::of_part(parameters, &insert.source);
        let rows = match &insert.source {
            // DEFAULT VALUES
            None => InsertRows::Values(self.value_rows(&[&[]], &target, &[], false, text, own)?),
            Some(query) => match rows_of_values(query) {
                Some(rows) => InsertRows::Values(self.value_rows(&rows, &target, &columns, explicit, text, own)?),
                None => {
                    let rows = self.selected(query, &target, &columns, explicit, text, own)?;
                    InsertRows::Query(self.optimized(rows, text)?)
                }
            },
        };
        let open = merged(rows.parameters(), parameters);
        let (on_conflict, open) = self.on_conflict(insert.on.as_ref(), &target, text, open)?;
        let returning = self.returning(insert.returning.as_ref(), &target, text, &open)?;
        let parameters = closed(open, returning.as_ref());
        let rows = match rows {
            InsertRows::Query(rows) => InsertRows::Query(Planned { parameters: parameters.clone(), ..rows }),
            values => values,
        };
        Ok(Insert { table: target.table, rows, on_conflict, returning, parameters })
    }

    fn selected(
        &self,
        query: &Query,
        target: &Target,
        columns: &[usize],
        explicit: bool,
        text: &str,
        declared: &[Option<SqlType>],
    ) -> Result<Logical> {
        let literals = literal_items(query);
        let mut types = declared.to_vec();
        for ((_, number), idx) in literals.iter().zip(columns) {
            declare(&mut types, *number, target.table.columns.get(*idx).map(|c| &c.sql_type));
        }
        let logical = self.logical(query, text, &types, 0)?;
        let sources = logical.plan.schema().columns();
        check_count(sources.len(), columns.len(), explicit)?;
        let state = self.session.state();
        let mut exprs = vec![];
        for (idx, column) in target.table.columns.iter().enumerate() {
            let place = columns.iter().position(|c| *c == idx);
            let value = match place.and_then(|place| Some((place, sources.get(place)?))) {
                Some((place, source)) => {
                    let literal = literals.get(place).is_some_and(|(literal, _)| *literal);
                    assigned(LogicalExpr::Column(source.clone()), column, literal)
                }
                None => self.default_value(column, &state, text)?,
            };
            exprs.push(value.alias(&column.name));
        }
        let plan = LogicalPlanBuilder::from(logical.plan).project(exprs).and_then(|b| b.build());
        let plan = plan.and_then(|plan| state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {}));
        let plan = plan.map_err(|e| planning_error(e, text))?;
        Ok(Logical { plan, schema: row_schema(&target.table), ..logical })
    }

    fn default_value(&self, column: &ColumnDef, state: &SessionState, text: &str) -> Result<LogicalExpr> {
        if column.default.is_none() {
            let null = ScalarValue::try_from(&column.sql_type.data_type()).map_err(SqlError::internal)?;
            return Ok(LogicalExpr::Literal(null, None));
        }
        let expr = default(Some(column))?;
        let literal = is_literal(&expr);
        let value = self.expr(&expr, &DFSchema::empty(), text, state).map_err(|e| e.with_position(None))?;
        Ok(assigned(value, column, literal))
    }
}

/// The value as one of the column.
pub(super) fn assigned(value: LogicalExpr, column: &ColumnDef, literal: bool) -> LogicalExpr {
    // What already is of the type, and cannot be too long, needs no conversion.
    let data_type = match &value {
        LogicalExpr::Literal(literal, _) => literal.data_type(),
        _ => DataType::Null,
    };
    if data_type == column.sql_type.data_type() && !data_type.is_string() {
        return value;
    }
    let function = cast::assignment(&column.name, &column.sql_type, literal);
    LogicalExpr::ScalarFunction(ScalarFunction::new_udf(function, vec![value]))
}

/// The columns that values are for, in the order of the values.
fn target_columns(names: &[ast::ObjectName], target: &Target, text: &str) -> Result<Vec<usize>> {
    if names.is_empty() {
        return Ok((0..target.table.columns.len()).collect());
    }
    let mut columns = vec![];
    for name in names {
        let name = name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
        let idx = target.column_idx(&name, text)?;
        if columns.contains(&idx) {
            let message = format!("column \"{name}\" specified more than once");
            return Err(SqlError::new(SqlState::DuplicateColumn, message));
        }
        columns.push(idx);
    }
    Ok(columns)
}

/// Errors: `42601`.
pub(super) fn check_count(n_values: usize, n_columns: usize, explicit: bool) -> Result<()> {
    if n_values > n_columns {
        return Err(SqlError::new(SqlState::SyntaxError, "INSERT has more expressions than target columns"));
    }
    if n_values < n_columns && explicit {
        return Err(SqlError::new(SqlState::SyntaxError, "INSERT has more target columns than expressions"));
    }
    Ok(())
}

/// The rows of a bare VALUES, all of one length and without subqueries.
fn rows_of_values(query: &Query) -> Option<Vec<&[Expr]>> {
    let bare =
        query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none() && query.fetch.is_none();
    let SetExpr::Values(values) = query.body.as_ref() else { return None };
    let rows: Vec<&[Expr]> = values.rows.iter().map(|row| row.content.as_slice()).collect();
    let n = rows.first().map(|row| row.len());
    let plain = rows.iter().all(|row| Some(row.len()) == n && !row.iter().any(rewrite::has_subquery));
    (bare && plain).then_some(rows)
}

/// For each item of a SELECT list: whether it is an untyped literal, and which parameter it is.
fn literal_items(query: &Query) -> Vec<(bool, Option<usize>)> {
    match query.body.as_ref() {
        SetExpr::Select(select) => {
            let items = select.projection.iter().map(|item| match item {
                ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. } => {
                    Some((is_literal(expr), parameter(expr)))
                }
                _ => None,
            });
            // Behind a wildcard the places are not known.
            items.map_while(|item| item).collect()
        }
        SetExpr::Values(values) => {
            let Some(first) = values.rows.first() else { return vec![] };
            let n = first.content.len();
            let column = |idx: usize| values.rows.iter().all(|row| row.content.get(idx).is_some_and(is_literal));
            (0..n).map(|idx| (column(idx), None)).collect()
        }
        _ => vec![],
    }
}
