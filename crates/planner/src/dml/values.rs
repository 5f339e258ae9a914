//! The rows of VALUES, made without a plan: what applications insert most is one row of literals or parameters, and a
//! plan for it would cost ten times what all else does.
//!
//! A column whose values are literals of one kind is one conversion, however many rows there are. Invariant: each value
//! becomes what its column takes it for on its own: a column's values need not agree in their types.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr as LogicalExpr, LogicalPlan, LogicalPlanBuilder, Values, lit};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionContext;
use sqlparser::ast::{Expr, Value};
use tidewire_catalog::ColumnDef;
use tidewire_operators::expr::sql_error;
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use super::assignments::{default, is_default, is_literal, parameter};
use super::change::declare;
use super::insert::{assigned, check_count};
use super::literals::{Literals, literals};
use super::{Target, row_schema};
use crate::errors::{planning_error, position_of_expr};
use crate::functions::cast;
use crate::functions::convert::convert;
use crate::provider::Provider;
use crate::query::{Context, on_large_stack};
use crate::rewrite::check_depth;

/// Rows whose values are known but for parameters and what expressions give when they run.
#[derive(Clone, Debug)]
pub struct ValueRows {
    n_rows: usize,
    schema: SchemaRef,
    columns: Vec<ValueColumn>,
    // Each of the type of the column that it is for.
    exprs: Vec<LogicalExpr>,
    depth: usize,
    parameters: Vec<SqlType>,
}

/// The values of one column of the table.
#[derive(Clone, Debug)]
struct ValueColumn {
    sql_type: SqlType,
    // In the order of the rows.
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    /// Values of any number of rows.
    Values(ArrayRef),
    /// The value of this parameter, from 0.
    Parameter(usize),
    /// The value of this one of the expressions.
    Expr(usize),
}

impl ValueRows {
    /// The types of the parameters.
    pub fn parameters(&self) -> &[SqlType] {
        &self.parameters
    }

    /// The rows: all columns of the table. Errors: as a conversion's or an expression's.
    pub fn evaluate(&self, parameters: &[ScalarValue], session: &SessionContext) -> Result<RecordBatch> {
        let evaluated = match self.exprs.as_slice() {
            [] => vec![],
            exprs => on_large_stack(self.depth, || evaluated(exprs, parameters, &session.state()))?,
        };
        let columns = self.columns.iter().map(|column| {
            let value = |part: &Part| self.value(part, &column.sql_type, parameters, &evaluated);
            match column.parts.as_slice() {
                [one] => value(one),
                parts => {
                    let parts = parts.iter().map(value).collect::<Result<Vec<_>>>()?;
                    Ok(compute::concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())?)
                }
            }
        });
        let options = RecordBatchOptions::new().with_row_count(Some(self.n_rows));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns.collect::<Result<_>>()?, &options)?)
    }

    fn value(&self, part: &Part, to: &SqlType, parameters: &[ScalarValue], evaluated: &[ArrayRef]) -> Result<ArrayRef> {
        let missing = || SqlError::internal("a value is missing");
        match part {
            Part::Values(values) => Ok(values.clone()),
            Part::Parameter(idx) => {
                let (value, from) = parameters.get(*idx).zip(self.parameters.get(*idx)).ok_or_else(missing)?;
                let value = value.to_array().map_err(sql_error)?;
                convert(&value, from, to, true).map_err(sql_error)
            }
            Part::Expr(idx) => evaluated.get(*idx).cloned().ok_or_else(missing),
        }
    }
}

/// The value of each expression, as an array of one.
fn evaluated(exprs: &[LogicalExpr], parameters: &[ScalarValue], state: &SessionState) -> Result<Vec<ArrayRef>> {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?;
    let value = |expr: &LogicalExpr| {
        let expr = bound(expr, parameters, &DFSchema::empty(), state)?;
        expr.evaluate(&row).and_then(|value| value.into_array(1)).map_err(|e| planning_error(e, ""))
    };
    exprs.iter().map(value).collect()
}

/// The expression over the columns of `input`, with the values of its parameters.
pub(super) fn bound(
    expr: &LogicalExpr,
    parameters: &[ScalarValue],
    input: &DFSchema,
    state: &SessionState,
) -> Result<Arc<dyn PhysicalExpr>> {
    let bound = expr.clone().transform_up(|expr| match &expr {
        LogicalExpr::Placeholder(placeholder) => {
            let number = placeholder.id.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
            match number.checked_sub(1).and_then(|idx| parameters.get(idx)) {
                Some(value) => Ok(Transformed::yes(lit(value.clone()))),
                None => Ok(Transformed::no(expr)),
            }
        }
        _ => Ok(Transformed::no(expr)),
    });
    // Functions of the time are put in by the simplifier.
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(input.clone()))
        .with_config_options(state.config_options().clone())
        .with_query_execution_start_time(state.execution_props().query_execution_start_time)
        .build();
    let simplified = bound.and_then(|bound| ExprSimplifier::new(context).simplify(bound.data));
    simplified.and_then(|expr| state.create_physical_expr(expr, input)).map_err(|e| planning_error(e, ""))
}

impl Context<'_> {
    /// Plans rows for `columns` of the table; the other columns have their defaults.
    pub(super) fn value_rows(
        &self,
        rows: &[&[Expr]],
        target: &Target,
        columns: &[usize],
        explicit: bool,
        text: &str,
        declared: &[Option<SqlType>],
    ) -> Result<ValueRows> {
        let mut types = declared.to_vec();
        for row in rows {
            let first_more = row.get(columns.len()).and_then(|expr| position_of_expr(text, expr));
            check_count(row.len(), columns.len(), explicit).map_err(|e| e.with_position(first_more))?;
            for (expr, column) in row.iter().zip(columns.iter().filter_map(|idx| target.table.columns.get(*idx))) {
                declare(&mut types, parameter(expr), Some(&column.sql_type));
            }
        }
        let mut planning = Planning { cx: self, state: None, types, exprs: vec![], depth: 0, text };
        let mut planned = vec![];
        for (idx, column) in target.table.columns.iter().enumerate() {
            let place = columns.iter().position(|c| *c == idx);
            let cells = rows.iter().map(|row| place.and_then(|place| row.get(place)).filter(|expr| !is_default(expr)));
            let parts = planning.parts(column, &cells.collect::<Vec<_>>())?;
            planned.push(ValueColumn { sql_type: column.sql_type.clone(), parts });
        }
        let (exprs, depth, parameters) = planning.end()?;
        for (column, planned) in target.table.columns.iter().zip(&planned) {
            for part in &planned.parts {
                check_parameter(part, column, &parameters)?;
            }
        }
        let (n_rows, schema) = (rows.len(), row_schema(&target.table));
        Ok(ValueRows { n_rows, schema, columns: planned, exprs, depth, parameters })
    }
}

/// Errors: `42804` for a parameter that its column cannot take.
fn check_parameter(part: &Part, column: &ColumnDef, parameters: &[SqlType]) -> Result<()> {
    let Part::Parameter(idx) = part else { return Ok(()) };
    let undefined = || SqlError::new(SqlState::UndefinedParameter, format!("there is no parameter ${}", idx + 1));
    cast::check_assignment(&column.name, parameters.get(*idx).ok_or_else(undefined)?, &column.sql_type, true)
}

struct Planning<'a> {
    cx: &'a Context<'a>,
    // Only expressions need it.
    state: Option<SessionState>,
    types: Vec<Option<SqlType>>,
    exprs: Vec<LogicalExpr>,
    // The deepest expression's.
    depth: usize,
    text: &'a str,
}

impl Planning<'_> {
    /// A column of which these are the values; None: the default.
    fn parts(&mut self, column: &ColumnDef, cells: &[Option<&Expr>]) -> Result<Vec<Part>> {
        let default = match cells.iter().any(Option::is_none) {
            true => default(Some(column))?,
            false => Expr::value(Value::Null),
        };
        let exprs: Vec<&Expr> = cells.iter().map(|cell| cell.unwrap_or(&default)).collect();
        if let Some(literals) = literals(&exprs, &column.sql_type) {
            // Where one is wrong, a look at each says which.
            if let Ok(values) = self.values(&literals, column) {
                return Ok(vec![values]);
            }
        }
        let part = |(cell, expr): (&Option<&Expr>, &&Expr)| {
            if let Some(literals) = literals(&[expr], &column.sql_type) {
                let position = || cell.and_then(|cell| position_of_expr(self.text, cell));
                return self.values(&literals, column).map_err(|e| e.with_position(position()));
            }
            match (cell, parameter(expr).and_then(|number| number.checked_sub(1))) {
                (Some(_), Some(idx)) => Ok(Part::Parameter(idx)),
                (cell, _) => self.expr(expr, column, cell.is_none()),
            }
        };
        cells.iter().zip(&exprs).map(part).collect()
    }

    /// Literals as the column's type. Errors: `42804` where it cannot take them, `22P02`, .. for a wrong value.
    fn values(&self, literals: &Literals, column: &ColumnDef) -> Result<Part> {
        let Literals { values, sql_type, is_untyped } = literals;
        cast::check_assignment(&column.name, sql_type, &column.sql_type, *is_untyped)?;
        let values = convert(values, sql_type, &column.sql_type, true);
        values.map(Part::Values).map_err(|e| planning_error(e, self.text))
    }

    /// An expression that gives the column's type. Errors: as a query's.
    fn expr(&mut self, expr: &Expr, column: &ColumnDef, is_default: bool) -> Result<Part> {
        self.depth = self.depth.max(check_depth(expr)?);
        let state = self.state.get_or_insert_with(|| self.cx.session.state());
        let value = match is_default {
            true => self.cx.expr(expr, &DFSchema::empty(), self.text, state).map_err(|e| e.with_position(None))?,
            false => {
                Provider::new(self.cx, state, 0).plan_open(expr, &DFSchema::empty(), &mut self.types, self.text)?
            }
        };
        self.exprs.push(assigned(value, column, is_literal(expr)));
        Ok(Part::Expr(self.exprs.len() - 1))
    }

    /// The expressions with all types put in, how deep they are, and the types of parameters. Errors: as a query's.
    fn end(self) -> Result<(Vec<LogicalExpr>, usize, Vec<SqlType>)> {
        let parameters = self.types.into_iter().map(|t| t.unwrap_or(SqlType::Text)).collect();
        let Some(state) = self.state else { return Ok((vec![], 0, parameters)) };
        let plan = LogicalPlanBuilder::values(vec![self.exprs]).and_then(|b| b.build());
        let plan = plan.and_then(|plan| state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {}));
        match plan.map_err(|e| planning_error(e, self.text))? {
            LogicalPlan::Values(Values { mut values, .. }) if values.len() == 1 => {
                Ok((values.pop().unwrap_or_default(), self.depth, parameters))
            }
            _ => Err(SqlError::internal("values are no values")),
        }
    }
}
