//! `RETURNING`: a SELECT list over the rows that a statement wrote.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use datafusion::prelude::SessionContext;
use sqlparser::ast::{self, SelectItem, TableFactor};
use tidewire_operators::expr::sql_error;
use tidewire_types::{ObjectId, Result, SqlType};

use super::Target;
use super::change::select;
use crate::errors::planning_error;
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
    parameters: Vec<SqlType>,
}

impl Returning {
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
            parameters: self.parameters.clone(),
            schema: self.schema.clone(),
            objects: vec![],
            is_lasting: false,
        };
        execute(&planned, parameters, session).await
    }
}

impl Context<'_> {
    /// Plans `items` over the target's rows; `declared` are the statement's parameters.
    pub(super) fn returning(
        &self,
        items: Option<&Vec<SelectItem>>,
        target: &Target,
        text: &str,
        declared: &[SqlType],
    ) -> Result<Option<Returning>> {
        let Some(items) = items else { return Ok(None) };
        let from = ast::TableWithJoins { relation: relation(target), joins: vec![] };
        let query = select(items.clone(), vec![from], None, None);
        let declared: Vec<_> = declared.iter().cloned().map(Some).collect();
        let Logical { plan, schema, parameters, .. } = self.logical(&query, text, &declared, 0)?;
        let plan = self.with_tables(plan, Some(target.table.id))?;
        let (table, table_schema) = (target.table.id, target.table.schema.clone());
        Ok(Some(Returning { schema, table, table_schema, plan, parameters }))
    }
}

/// The target as FROM names it.
pub(super) fn relation(target: &Target) -> TableFactor {
    let alias = target.alias.clone().map(|name| ast::TableAlias { explicit: true, name, columns: vec![], at: None });
    TableFactor::Table {
        name: target.name.clone(),
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
