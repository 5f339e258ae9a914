//! `RETURNING`: a SELECT list over the rows that a statement wrote.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchemaRef, ScalarValue};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use sqlparser::ast::{self, SelectItem, TableFactor};
use tidewire_operators::expr::sql_error;
use tidewire_types::{ObjectId, Result, SqlType};

use super::Target;
use super::change::select;
use super::values::bound;
use crate::errors::planning_error;
use crate::point::project;
use crate::provider::object_of;
use crate::query::{Context, Logical, Planned, execute, with_schema};

/// `RETURNING`, ready for rows of its table.
#[derive(Clone, Debug)]
pub struct Returning {
    /// The columns of the result.
    pub schema: SchemaRef,
    table: ObjectId,
    table_schema: SchemaRef,
    plan: LogicalPlan,
    // What becomes of each row, where that is all; from the rows up.
    projections: Option<Vec<Projection>>,
    parameters: Vec<SqlType>,
}

/// Expressions over the columns of what is below.
#[derive(Clone, Debug)]
pub(super) struct Projection(Vec<Expr>, DFSchemaRef);

impl Returning {
    /// Whether it reads nothing but the rows, so that it holds for later ones too.
    pub fn is_lasting(&self) -> bool {
        self.projections.is_some()
    }

    /// The types of the parameters that the list and the statement before it have.
    pub(super) fn parameters(&self) -> &[SqlType] {
        &self.parameters
    }

    /// Evaluates the list over `rows`, which have all columns of the table.
    pub async fn evaluate(
        &self,
        rows: &RecordBatch,
        parameters: Vec<ScalarValue>,
        session: &SessionContext,
    ) -> Result<SendableRecordBatchStream> {
        let rows = with_schema(rows, &self.table_schema)?;
        if let Some(projections) = &self.projections {
            let rows = projected(rows, projections, &parameters, &session.state())?;
            let rows = with_schema(&rows, &self.schema)?;
            let stream = futures::stream::iter([Ok(rows)]);
            return Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream)));
        }
        let table = MemTable::try_new(self.table_schema.clone(), vec![vec![rows]]).map_err(sql_error)?;
        let source = provider_as_source(Arc::new(table));
        let plan = self.plan.clone().transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::TableScan(scan) if object_of(&scan.source).is_some_and(|o| o.id == self.table) => {
                Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source: source.clone(), ..scan })))
            }
            other => Ok(Transformed::no(other)),
        });
        let plan = plan.and_then(|t| session.state().optimize(&t.data)).map_err(|e| planning_error(e, ""))?;
        let planned = Planned {
            plan,
            analyzed: None,
            parameters: self.parameters.clone(),
            schema: self.schema.clone(),
            objects: vec![],
            is_lasting: false,
        };
        execute(&planned, parameters, session).await
    }
}

/// The projections of a plan that is nothing else, over the object's rows.
pub(super) fn projections(plan: &LogicalPlan, table: ObjectId) -> Option<Vec<Projection>> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let mut all = projections(&projection.input, table)?;
            all.push(Projection(projection.expr.clone(), projection.input.schema().clone()));
            Some(all)
        }
        LogicalPlan::SubqueryAlias(alias) => projections(&alias.input, table),
        LogicalPlan::TableScan(scan) => {
            let is_whole = scan.projection.is_none() && scan.filters.is_empty() && scan.fetch.is_none();
            (is_whole && object_of(&scan.source).is_some_and(|object| object.id == table)).then(Vec::new)
        }
        _ => None,
    }
}

pub(super) fn projected(
    rows: RecordBatch,
    projections: &[Projection],
    parameters: &[ScalarValue],
    state: &SessionState,
) -> Result<RecordBatch> {
    projections.iter().try_fold(rows, |rows, Projection(exprs, input)| {
        let exprs = exprs.iter().map(|expr| bound(expr, parameters, input, state)).collect::<Result<Vec<_>>>()?;
        project(&exprs, &rows)
    })
}

impl Context<'_> {
    /// Plans `items` over the target's rows; `declared` are the statement's parameters.
    pub(super) fn returning(
        &self,
        items: Option<&Vec<SelectItem>>,
        target: &Target,
        text: &str,
        declared: &[Option<SqlType>],
    ) -> Result<Option<Returning>> {
        let Some(items) = items else { return Ok(None) };
        let from = ast::TableWithJoins { relation: relation(target.name.clone(), target.alias.clone()), joins: vec![] };
        let query = select(items.clone(), vec![from], None, None);
        let Logical { plan, schema, parameters, .. } = self.logical(&query, text, declared, 0)?;
        let projections = projections(&plan, target.table.id);
        let plan = self.with_tables(plan, Some(target.table.id))?;
        let (table, table_schema) = (target.table.id, target.table.schema.clone());
        Ok(Some(Returning { schema, table, table_schema, plan, projections, parameters }))
    }
}

/// A relation as FROM names it.
pub(crate) fn relation(name: ast::ObjectName, alias: Option<ast::Ident>) -> TableFactor {
    let alias = alias.map(|name| ast::TableAlias { explicit: true, name, columns: vec![], at: None });
    TableFactor::Table {
        name,
        alias,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}
