//! `ON CONFLICT`: expressions over the row that is there and the row that was to be inserted.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchema, ScalarValue, TableReference};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr as LogicalExpr, ExprSchemable, lit};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionContext;
use sqlparser::ast::{ConflictTarget, OnConflictAction, OnInsert};
use tidewire_operators::expr::sql_error;
use tidewire_sql::fold;
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use super::assignments::{assignments, is_literal, parameter};
use super::change::declare;
use super::values::bound;
use super::{OnConflict, Target, row_schema};
use crate::errors::planning_error;
use crate::functions::cast;
use crate::provider::Provider;
use crate::query::Context;

/// `DO UPDATE SET .. WHERE ..`; parameters may still be open.
#[derive(Clone, Debug)]
pub struct ConflictUpdate {
    /// The new row, one expression a column.
    row: Vec<LogicalExpr>,
    /// Which rows are updated at all.
    condition: LogicalExpr,
    /// The row that is there, followed by `excluded`.
    input: Arc<DFSchema>,
    /// The table's columns, all nullable.
    schema: SchemaRef,
}

/// `DO UPDATE`, ready for rows.
#[derive(Clone, Debug)]
pub struct BoundUpdate {
    row: Vec<Arc<dyn PhysicalExpr>>,
    condition: Arc<dyn PhysicalExpr>,
    input: SchemaRef,
    schema: SchemaRef,
}

impl ConflictUpdate {
    /// Puts the values of parameters in.
    pub fn bind(&self, parameters: &[ScalarValue], session: &SessionContext) -> Result<BoundUpdate> {
        let state = session.state();
        let physical = |expr: &LogicalExpr| bound(expr, parameters, &self.input, &state);
        let row = self.row.iter().map(physical).collect::<Result<_>>()?;
        let condition = physical(&self.condition)?;
        Ok(BoundUpdate { row, condition, input: self.input.inner().clone(), schema: self.schema.clone() })
    }
}

impl BoundUpdate {
    /// The new rows for pairs of an existing row and an excluded one (both with all columns of the table), and which
    /// of them are to be written. The new rows have nullable columns: NOT NULL is still to be checked.
    pub fn resolve(&self, existing: &RecordBatch, excluded: &RecordBatch) -> Result<(RecordBatch, BooleanArray)> {
        let columns = existing.columns().iter().chain(excluded.columns()).cloned().collect();
        let input = RecordBatch::try_new(self.input.clone(), columns)?;
        let evaluate = |expr: &Arc<dyn PhysicalExpr>| {
            expr.evaluate(&input).and_then(|value| value.into_array(input.num_rows())).map_err(sql_error)
        };
        let condition = evaluate(&self.condition)?;
        let condition: BooleanArray = condition.as_boolean().iter().map(|keep| Some(keep == Some(true))).collect();
        if condition.true_count() == 0 {
            return Ok((RecordBatch::try_new(self.schema.clone(), excluded.columns().to_vec())?, condition));
        }
        let row = self.row.iter().map(evaluate).collect::<Result<_>>()?;
        Ok((RecordBatch::try_new(self.schema.clone(), row)?, condition))
    }
}

impl Context<'_> {
    /// Plans ON CONFLICT; also the types of all parameters so far.
    pub(super) fn on_conflict(
        &self,
        on: Option<&OnInsert>,
        target: &Target,
        text: &str,
        declared: Vec<Option<SqlType>>,
    ) -> Result<(OnConflict, Vec<Option<SqlType>>)> {
        let on = match on {
            None => return Ok((OnConflict::Fail, declared)),
            Some(OnInsert::OnConflict(on)) => on,
            Some(_) => return Err(SqlError::unsupported("ON DUPLICATE KEY UPDATE")),
        };
        check_target(on.conflict_target.as_ref(), target)?;
        match &on.action {
            OnConflictAction::DoNothing => Ok((OnConflict::DoNothing, declared)),
            OnConflictAction::DoUpdate(_) if on.conflict_target.is_none() => Err(SqlError::new(
                SqlState::SyntaxError,
                "ON CONFLICT DO UPDATE requires inference specification or constraint name",
            )
            .with_hint("For example, ON CONFLICT (column_name).")),
            OnConflictAction::DoUpdate(update) => {
                let assigned = assignments(&update.assignments, target, text)?;
                let mut types = declared;
                for (idx, value) in &assigned {
                    declare(&mut types, parameter(value), target.table.columns.get(*idx).map(|c| &c.sql_type));
                }
                let update = self.conflict_update(&assigned, update.selection.as_ref(), target, text, &mut types)?;
                Ok((OnConflict::DoUpdate(update), types))
            }
        }
    }

    fn conflict_update(
        &self,
        assigned: &[(usize, sqlparser::ast::Expr)],
        selection: Option<&sqlparser::ast::Expr>,
        target: &Target,
        text: &str,
        types: &mut Vec<Option<SqlType>>,
    ) -> Result<ConflictUpdate> {
        let state = self.session.state();
        let provider = Provider::new(self, &state, 0);
        let schema = row_schema(&target.table);
        let sides = [target.qualifier(), "excluded".to_owned()];
        let fields = sides.iter().flat_map(|side| {
            schema.fields().iter().map(|f| (Some(TableReference::bare(side.as_str())), f.clone())).collect::<Vec<_>>()
        });
        let input = DFSchema::new_with_metadata(fields.collect(), HashMap::new()).map_err(sql_error)?;
        let mut plan = |expr: &sqlparser::ast::Expr| provider.plan_open(expr, &input, types, text);
        let mut row = vec![];
        for (idx, column) in target.table.columns.iter().enumerate() {
            row.push(match assigned.iter().find(|(to, _)| *to == idx) {
                None => LogicalExpr::from(input.qualified_field(idx)),
                Some((_, expr)) => {
                    let function = cast::assignment(&column.name, &column.sql_type, is_literal(expr));
                    LogicalExpr::ScalarFunction(ScalarFunction::new_udf(function, vec![plan(expr)?]))
                }
            });
        }
        let condition = selection.map_or(Ok(lit(true)), &mut plan)?;
        // Wrong types are the statement's error, not that of the first row in conflict.
        for expr in row.iter().chain([&condition]) {
            expr.to_field(&input).map_err(|e| planning_error(e, text))?;
        }
        Ok(ConflictUpdate { row, condition, input: Arc::new(input), schema })
    }
}

/// The target must be the primary key. Errors: `42P10`, `42704`.
fn check_target(conflict: Option<&ConflictTarget>, target: &Target) -> Result<()> {
    match conflict {
        None => Ok(()),
        Some(ConflictTarget::OnConstraint(name)) => {
            let name = name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
            let table = &target.table.name.name;
            match name == format!("{table}_pkey") && !target.primary_key().is_empty() {
                true => Ok(()),
                false => {
                    let message = format!("constraint \"{name}\" for table \"{table}\" does not exist");
                    Err(SqlError::new(SqlState::UndefinedObject, message))
                }
            }
        }
        Some(ConflictTarget::Columns(columns)) => {
            let mut named = vec![];
            for column in columns {
                named.push(target.column_idx(&fold(column), "")?);
            }
            let key = target.primary_key();
            let same = named.iter().all(|c| key.contains(c)) && key.iter().all(|c| named.contains(c));
            match same && !key.is_empty() {
                true => Ok(()),
                false => Err(SqlError::new(
                    SqlState::InvalidColumnReference,
                    "there is no unique or exclusion constraint matching the ON CONFLICT specification",
                )),
            }
        }
    }
}
