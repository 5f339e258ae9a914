//! Expressions over the rows of a table: CHECK constraints, and the condition and the defaults of COPY.
//!
//! They are planned as the SELECT list that they would be. Invariant: each row's values come from that row alone.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use sqlparser::ast::{self, Expr, Ident, SelectItem, TableWithJoins};
use tidewire_catalog::{ColumnDef, Object};
use tidewire_operators::expr::sql_error;
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use super::assignments::default;
use super::change::select;
use super::returning::{Projection, projected, projections, relation};
use crate::functions::convert::convert;
use crate::query::{Context, on_large_stack, with_schema};
use crate::rewrite::{check_depth, has_subquery};

/// Expressions, ready for rows of their table.
#[derive(Clone, Debug)]
pub struct RowExprs {
    schema: SchemaRef,
    table_schema: SchemaRef,
    projections: Vec<Projection>,
}

impl RowExprs {
    /// The value of each expression for each row. `rows` have all columns of the table.
    pub fn evaluate(&self, rows: &RecordBatch, session: &SessionContext) -> Result<RecordBatch> {
        let rows = with_schema(rows, &self.table_schema)?;
        let values = projected(rows, &self.projections, &[], &session.state())?;
        Ok(with_schema(&values, &self.schema)?)
    }

    /// The value of each condition for each row.
    pub fn conditions(&self, rows: &RecordBatch, session: &SessionContext) -> Result<Vec<BooleanArray>> {
        let values = self.evaluate(rows, session)?;
        let condition = |column: &ArrayRef| column.as_boolean_opt().cloned();
        let conditions = values.columns().iter().map(condition).collect::<Option<_>>();
        conditions.ok_or_else(|| SqlError::internal("a condition that is not boolean"))
    }
}

/// Defaults of columns, ready for rows.
#[derive(Clone, Debug)]
pub struct Defaults {
    exprs: RowExprs,
    types: Vec<SqlType>,
}

impl Defaults {
    /// The default of each column for so many rows, of its column's type.
    pub fn evaluate(&self, n_rows: usize, session: &SessionContext) -> Result<Vec<ArrayRef>> {
        let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?;
        let values = projected(rows, &self.exprs.projections, &[], &session.state())?;
        let values = with_schema(&values, &self.exprs.schema)?;
        let from = self.exprs.schema.fields().iter().map(|f| SqlType::of(f));
        let columns = values.columns().iter().zip(from).zip(&self.types);
        columns.map(|((values, from), to)| convert(values, &from, to, true).map_err(sql_error)).collect()
    }
}

/// Where expressions stand, as messages name it.
struct Place {
    one: &'static str,
    many: &'static str,
    argument: &'static str,
}

const CHECK: Place = Place { one: "check constraint", many: "check constraints", argument: "CHECK" };
const DEFAULT: Place = Place { one: "DEFAULT expression", many: "DEFAULT expressions", argument: "DEFAULT" };
const COPY_WHERE: Place =
    Place { one: "COPY FROM WHERE condition", many: "COPY FROM WHERE conditions", argument: "WHERE" };

impl Place {
    /// Why expressions that became this plan cannot stand here.
    fn refusal(&self, plan: &LogicalPlan) -> SqlError {
        let mut refused = (SqlState::FeatureNotSupported, "set-returning functions");
        let _ = plan.apply(|node| {
            refused = match node {
                LogicalPlan::Aggregate(_) => (SqlState::GroupingError, "aggregate functions"),
                LogicalPlan::Window(_) => (SqlState::WindowingError, "window functions"),
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            Ok(TreeNodeRecursion::Stop)
        });
        let (state, functions) = refused;
        SqlError::new(state, format!("{functions} are not allowed in {}", self.many))
    }
}

impl Context<'_> {
    /// Plans the CHECK constraints of a table, in the order of [`Object::checks`].
    ///
    /// Errors: as a query's; `42804` for a condition that is not boolean; `0A000`, `42803`, `42P20` for one that looks
    /// beyond its row.
    pub fn checks(&self, table: &Object) -> Result<RowExprs> {
        let conditions = table.checks().iter().map(|check| tidewire_sql::parse_expr(&check.condition));
        self.conditions(table, &conditions.collect::<Result<Vec<_>>>()?, &CHECK, "")
    }

    /// Plans one CHECK constraint of a table that need not be there yet. Errors: as [`Context::checks`], with the place
    /// in `text`.
    pub fn check(&self, table: &Object, condition: &Expr, text: &str) -> Result<RowExprs> {
        self.conditions(table, std::slice::from_ref(condition), &CHECK, text)
    }

    /// Plans the condition of COPY. Errors: as [`Context::checks`].
    pub fn copy_condition(&self, table: &Object, condition: &Expr, text: &str) -> Result<RowExprs> {
        self.conditions(table, std::slice::from_ref(condition), &COPY_WHERE, text)
    }

    /// Plans the defaults of these columns.
    pub fn defaults(&self, table: &Object, columns: &[usize]) -> Result<Defaults> {
        let types = columns.iter().filter_map(|idx| Some(table.columns.get(*idx)?.sql_type.clone())).collect();
        let exprs = columns.iter().map(|idx| default(table.columns.get(*idx))).collect::<Result<Vec<_>>>()?;
        let exprs = self.row_exprs(table, &exprs, &DEFAULT, "").map_err(|e| e.with_position(None))?;
        Ok(Defaults { exprs, types })
    }

    fn conditions(&self, table: &Object, conditions: &[Expr], of: &Place, text: &str) -> Result<RowExprs> {
        let exprs = self.row_exprs(table, conditions, of, text)?;
        match exprs.schema.fields().iter().map(|f| SqlType::of(f)).find(|t| *t != SqlType::Bool) {
            None => Ok(exprs),
            Some(other) => {
                let message = format!("argument of {} must be type boolean, not type {other}", of.argument);
                Err(SqlError::new(SqlState::DatatypeMismatch, message))
            }
        }
    }

    fn row_exprs(&self, table: &Object, exprs: &[Expr], of: &Place, text: &str) -> Result<RowExprs> {
        if exprs.iter().any(has_subquery) {
            let message = format!("cannot use subquery in {}", of.one);
            return Err(SqlError::new(SqlState::FeatureNotSupported, message));
        }
        let depth = exprs.iter().map(check_depth).collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0);
        // Rows come here before NOT NULL is checked: no plan may rely on that.
        let columns = table.columns.iter().map(|c| ColumnDef { not_null: false, ..c.clone() }).collect();
        let mut catalog = self.catalog.clone();
        catalog.remove(table.id);
        let table =
            catalog.insert(Object::new(table.id, table.name.clone(), String::new(), columns, table.def.clone()))?;
        let cx = Context { catalog: &catalog, ..*self };

        let name = [&table.name.schema, &table.name.name].map(|part| Ident::with_quote('"', part));
        let from = relation(ast::ObjectName::from(name.to_vec()), None);
        let items = exprs.iter().cloned().enumerate();
        let items = items.map(|(idx, expr)| {
            let alias = Ident::with_quote('"', format!("value {idx}"));
            SelectItem::ExprWithAlias { expr, alias }
        });
        let query = select(items.collect(), vec![TableWithJoins { relation: from, joins: vec![] }], None, None);
        let logical = on_large_stack(depth, || cx.logical(&query, text, &[], 0))?;
        if !logical.parameters.is_empty() {
            return Err(SqlError::new(SqlState::UndefinedParameter, "there is no parameter $1"));
        }
        let projections = projections(&logical.plan, table.id).ok_or_else(|| of.refusal(&logical.plan))?;
        Ok(RowExprs { schema: logical.schema, table_schema: table.schema.clone(), projections })
    }
}
