//! INSERT, UPDATE, DELETE, TRUNCATE, CREATE TABLE AS.
//!
//! The rows of a statement are computed at a snapshot and applied by the epoch loop. UPDATE and DELETE name the rows
//! as they were: when another session was faster, the loop refuses with `40001` and the statement is computed again;
//! within BEGIN .. COMMIT, where writes are applied at the end, the client gets the `40001`.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use futures::{StreamExt, TryStreamExt};
use tidewire_catalog::{ColumnDef, Kind, Name, Object, TableDef};
use tidewire_operators::expr::sql_error;
use tidewire_planner::{
    Context, Delete, Insert, InsertRows, OnConflict as PlannedConflict, Planned, PointQuery, Returning, RowExprs,
    Update,
};
use tidewire_sql::{CreateTable, ObjectName, Parsed, Statement, ast};
use tidewire_types::{Result, SqlError, SqlState, SqlType};
use tokio::sync::oneshot;

use super::plans::Plan;
use super::query::{Environment, unbound};
use super::{Outcome, Prepared, Session, Transaction, ddl};
use crate::core::CreatedWith;
use crate::shared::{Snapshot, stopped};
use crate::table::{Change, Constraints, OnConflict, Operation, Write};
use crate::tables;

/// How often a statement is computed again because another session changed its rows meanwhile.
const N_TRIES: usize = 20;

/// A planned statement.
#[derive(Clone)]
enum Dml {
    Insert(Insert),
    Update(Update),
    Delete(Delete),
}

/// A statement whose plan is kept: its rows have no tables.
pub struct KeptDml {
    dml: Dml,
    // Where its rows are found by key.
    point: Option<PointQuery>,
}

/// A plan, for a run at the snapshot.
#[derive(Clone)]
enum ReadyPlan {
    /// Holds for any moment.
    Kept(Arc<KeptDml>),
    /// Made for this one.
    Once(Arc<Dml>),
}

/// A planned statement and the moment that its tables stand at.
pub struct ReadyDml {
    plan: ReadyPlan,
    snapshot: Arc<Snapshot>,
    environment: Arc<Environment>,
    text: String,
}

impl KeptDml {
    /// The statement, where its plan can be kept.
    fn new(dml: &Dml) -> Option<KeptDml> {
        if !dml.returning().is_none_or(Returning::is_lasting) {
            return None;
        }
        let mut dml = dml.clone();
        if let Some(query) = dml.query_mut() {
            *query = unbound(query)?;
        }
        let point = dml.query().and_then(PointQuery::of);
        Some(KeptDml { dml, point })
    }
}

impl Plan for KeptDml {
    fn parameters(&self) -> &[SqlType] {
        self.dml.parameters()
    }
}

impl ReadyPlan {
    fn dml(&self) -> &Dml {
        match self {
            ReadyPlan::Kept(kept) => &kept.dml,
            ReadyPlan::Once(dml) => dml,
        }
    }
}

impl Dml {
    fn new(cx: &Context<'_>, parsed: &Parsed, parameters: &[Option<SqlType>]) -> Result<Dml> {
        let text = &parsed.text;
        match &parsed.statement {
            Statement::Insert(insert) => cx.insert(insert, text, parameters).map(Dml::Insert),
            Statement::Update(update) => cx.update(update, text, parameters).map(Dml::Update),
            Statement::Delete(delete) => cx.delete(delete, text, parameters).map(Dml::Delete),
            _ => Err(SqlError::internal("not a statement that writes")),
        }
    }

    fn table(&self) -> &Arc<Object> {
        match self {
            Dml::Insert(p) => &p.table,
            Dml::Update(p) => &p.table,
            Dml::Delete(p) => &p.table,
        }
    }

    /// The query that gives its rows.
    fn query(&self) -> Option<&Planned> {
        match self {
            Dml::Insert(Insert { rows: InsertRows::Values(_), .. }) => None,
            Dml::Insert(Insert { rows: InsertRows::Query(query), .. })
            | Dml::Update(Update { rows: query, .. })
            | Dml::Delete(Delete { rows: query, .. }) => Some(query),
        }
    }

    fn query_mut(&mut self) -> Option<&mut Planned> {
        match self {
            Dml::Insert(Insert { rows: InsertRows::Values(_), .. }) => None,
            Dml::Insert(Insert { rows: InsertRows::Query(query), .. })
            | Dml::Update(Update { rows: query, .. })
            | Dml::Delete(Delete { rows: query, .. }) => Some(query),
        }
    }

    fn parameters(&self) -> &[SqlType] {
        match self {
            Dml::Insert(p) => &p.parameters,
            Dml::Update(p) => &p.parameters,
            Dml::Delete(p) => &p.parameters,
        }
    }

    fn returning(&self) -> Option<&Returning> {
        match self {
            Dml::Insert(p) => p.returning.as_ref(),
            Dml::Update(p) => p.returning.as_ref(),
            Dml::Delete(p) => p.returning.as_ref(),
        }
    }

    /// The words of the command tag before the count.
    fn tag(&self) -> &'static str {
        match self {
            Dml::Insert(_) => "INSERT 0",
            Dml::Update(_) => "UPDATE",
            Dml::Delete(_) => "DELETE",
        }
    }
}

impl Session {
    /// The parameter types and, with RETURNING, the columns of a statement that writes.
    pub(super) async fn describe_dml(
        &mut self,
        parsed: &Parsed,
        parameters: &[Option<SqlType>],
    ) -> Result<(Vec<SqlType>, Option<SchemaRef>)> {
        let ready = self.planned_dml(parsed, parameters).await?;
        let dml = ready.plan.dml();
        let described = (dml.parameters().to_vec(), dml.returning().map(|r| r.schema.clone()));
        self.ready_dml = Some(ready);
        Ok(described)
    }

    /// The plan that `prepare` made, a kept one or a new one. The snapshot must live until the rows are computed.
    async fn planned_dml(&mut self, parsed: &Parsed, types: &[Option<SqlType>]) -> Result<ReadyDml> {
        let text = &parsed.text;
        let snapshot = self.snapshot();
        let environment = self.environment(&snapshot);
        if let Some(ready) = self.ready_dml.take()
            && ready.text == *text
            && Arc::ptr_eq(&ready.environment, &environment)
        {
            match &ready.plan {
                ReadyPlan::Kept(_) => return Ok(ReadyDml { snapshot, ..ready }),
                ReadyPlan::Once(_) if ready.snapshot.is_present() => return Ok(ready),
                ReadyPlan::Once(_) => {}
            }
        }
        if let Some(kept) = self.dml_plans.get(&environment, text, types) {
            return Ok(ReadyDml { plan: ReadyPlan::Kept(kept), snapshot, environment, text: text.clone() });
        }
        let (dml, snapshot) = self.plan(text, |cx| Dml::new(cx, parsed, types)).await?;
        // The moment may be another one by now.
        let environment = self.environment(&snapshot);
        let plan = match KeptDml::new(&dml).map(Arc::new) {
            Some(kept) => {
                // Values without parameters come with a new text each time.
                if kept.dml.query().is_some() || !kept.parameters().is_empty() {
                    self.dml_plans.keep(&environment, text, types, &kept);
                }
                ReadyPlan::Kept(kept)
            }
            None => ReadyPlan::Once(Arc::new(dml)),
        };
        Ok(ReadyDml { plan, snapshot, environment, text: text.clone() })
    }

    pub(super) async fn run_dml(&mut self, prepared: &Prepared, parameters: Vec<ScalarValue>) -> Result<Outcome> {
        let parsed = &prepared.parsed;
        let types: Vec<_> = prepared.parameters.iter().cloned().map(Some).collect();
        for tries_left in (0..N_TRIES).rev() {
            let ReadyDml { plan, snapshot, .. } = self.planned_dml(parsed, &types).await?;
            let planned = plan.dml();
            self.check_not_written(planned.query().map_or(&[], |query| &query.objects))?;
            let rows = self.dml_rows(&plan, &snapshot, &parameters).await?;
            let constraints = self.constraints(planned.table()).await?;
            let change = self.change(planned, rows, &parameters, &constraints)?;
            let operation = Operation { table: planned.table().id, change };
            let rows = match self.transaction {
                Transaction::Open => self.write_later(planned, operation, &snapshot)?,
                Transaction::Idle | Transaction::Failed => {
                    drop(snapshot);
                    match self.write(vec![operation]).await {
                        Ok(mut rows) => rows.pop().ok_or_else(|| SqlError::internal("a write without an answer"))?,
                        Err(error) if error.state() == SqlState::SerializationFailure && tries_left > 0 => continue,
                        Err(error) => return Err(error),
                    }
                }
            };
            return self.answer(planned, rows, parameters).await;
        }
        Err(SqlError::internal("a statement was tried too often"))
    }

    /// The rows that the statement is about, at the snapshot.
    async fn dml_rows(
        &self,
        plan: &ReadyPlan,
        snapshot: &Arc<Snapshot>,
        parameters: &[ScalarValue],
    ) -> Result<RecordBatch> {
        let dml = plan.dml();
        let query = match (dml, dml.query()) {
            (_, Some(query)) => query,
            (Dml::Insert(Insert { rows: InsertRows::Values(values), .. }), None) => {
                return values.evaluate(parameters, &self.engine.datafusion);
            }
            _ => return Err(SqlError::internal("a statement without rows")),
        };
        let parameters = parameters_of(query, parameters);
        let bound;
        let query = match plan {
            ReadyPlan::Once(_) => query,
            ReadyPlan::Kept(kept) => {
                if let Some(point) = &kept.point
                    && let Some(rows) = self.rows_by_key(point, query, snapshot, &parameters)?
                {
                    return Ok(compute::concat_batches(&query.schema, &rows)?);
                }
                bound = query.with_tables(|table| tables::bound(table, snapshot))?;
                &bound
            }
        };
        let mut stream = self.engine.run(query, parameters).await?;
        let mut batches = vec![];
        while let Some(batch) = stream.next().await {
            batches.push(batch?);
        }
        Ok(compute::concat_batches(&query.schema, &batches)?)
    }

    /// What the statement does to its table with these rows.
    fn change(
        &self,
        planned: &Dml,
        rows: RecordBatch,
        parameters: &[ScalarValue],
        constraints: &Constraints,
    ) -> Result<Change> {
        let table = planned.table();
        let n_columns = table.columns.len();
        match planned {
            Dml::Insert(insert) => {
                let on_conflict = match &insert.on_conflict {
                    PlannedConflict::Fail => OnConflict::Fail,
                    PlannedConflict::DoNothing => OnConflict::Ignore,
                    PlannedConflict::DoUpdate(update) => {
                        let bound = update.bind(parameters, &self.engine.datafusion)?;
                        let constraints = constraints.clone();
                        OnConflict::Update(Arc::new(move |existing, excluded| {
                            let (rows, written) = bound.resolve(existing, excluded)?;
                            constraints.check(&compute::filter_record_batch(&rows, &written)?)?;
                            Ok((rows, written))
                        }))
                    }
                };
                constraints.check(&rows)?;
                Ok(Change::Insert(table_rows(table, &rows)?, on_conflict))
            }
            Dml::Update(_) => {
                let columns = |from: usize| (from..from + n_columns).collect::<Vec<_>>();
                let (old, new) = (rows.project(&columns(0))?, rows.project(&columns(n_columns))?);
                constraints.check(&new)?;
                Ok(Change::Update(table_rows(table, &old)?, table_rows(table, &new)?))
            }
            Dml::Delete(_) => Ok(Change::Delete(table_rows(table, &rows)?)),
        }
    }

    /// What rows of the table must be.
    pub(super) async fn constraints(&mut self, table: &Arc<Object>) -> Result<Constraints> {
        let checks = if table.checks().is_empty() { None } else { Some(self.checks(table).await?) };
        Ok(Constraints::new(table.clone(), checks, self.engine.datafusion.clone()))
    }

    /// The CHECK constraints of the table.
    async fn checks(&mut self, table: &Object) -> Result<Arc<RowExprs>> {
        let environment = self.environment(&self.snapshot());
        let kept = environment.checks.lock().get(&table.id).cloned();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let (checks, snapshot) = self.plan("", |cx| cx.checks(table)).await?;
        let checks = Arc::new(checks);
        self.environment(&snapshot).checks.lock().insert(table.id, checks.clone());
        Ok(checks)
    }

    /// Keeps a write until its transaction commits; the rows that RETURNING sees now.
    fn write_later(&mut self, planned: &Dml, mut operation: Operation, snapshot: &Snapshot) -> Result<RecordBatch> {
        if let Change::Insert(rows, OnConflict::Ignore) = &operation.change {
            let rows = self.free_rows(planned.table(), rows, snapshot)?;
            operation.change = Change::Insert(rows, OnConflict::FailIfTaken);
        }
        let rows = match &operation.change {
            Change::Insert(rows, OnConflict::Fail | OnConflict::FailIfTaken) => rows.clone(),
            Change::Insert(rows, _) if planned.returning().is_none() => rows.clone(),
            Change::Insert(..) => {
                return Err(SqlError::unsupported("ON CONFLICT DO UPDATE with RETURNING within a transaction")
                    .with_detail("The writes of a transaction take effect when it commits."));
            }
            Change::Update(_, new) => new.clone(),
            Change::Delete(old) => old.clone(),
            Change::Truncate => return Err(SqlError::internal("TRUNCATE is not kept")),
        };
        if matches!(operation.change, Change::Update(..) | Change::Delete(_)) {
            // Its rows were computed without what this transaction has written of the same table.
            self.check_not_written(&[operation.table])?;
        }
        self.written.push(operation);
        Ok(rows)
    }

    async fn answer(&self, planned: &Dml, rows: RecordBatch, parameters: Vec<ScalarValue>) -> Result<Outcome> {
        let Some(returning) = planned.returning() else {
            return Ok(Outcome::command(format!("{} {}", planned.tag(), rows.num_rows())));
        };
        let stream = returning.evaluate(&rows, parameters, &self.engine.datafusion).await?;
        let rows = stream.map_err(sql_error).boxed();
        Ok(Outcome::Rows { schema: returning.schema.clone(), rows, tag: planned.tag() })
    }

    /// Applies the operations as one transaction; returns when every view shows them.
    pub(super) async fn write(&self, operations: Vec<Operation>) -> Result<Vec<RecordBatch>> {
        let (reply, answer) = oneshot::channel();
        let synchronous = self.settings.get("synchronous_commit").is_none_or(|value| value != "off");
        self.shared().push_write(Write { operations, synchronous, reply })?;
        answer.await.map_err(|_| stopped())?
    }

    pub(super) async fn truncate(&mut self, names: &[ObjectName]) -> Result<Outcome> {
        let catalog = self.shared().published().catalog;
        let mut operations = vec![];
        for name in names {
            let object = self.resolve(&catalog, name)?;
            if !matches!(object.def, Kind::Table(_)) {
                let message = format!("\"{}\" is not a table", object.name);
                return Err(SqlError::new(SqlState::WrongObjectType, message).at(name.position));
            }
            operations.push(Operation { table: object.id, change: Change::Truncate });
        }
        match self.transaction {
            Transaction::Open => self.written.extend(operations),
            Transaction::Idle | Transaction::Failed => drop(self.write(operations).await?),
        }
        Ok(Outcome::command("TRUNCATE TABLE"))
    }

    pub(super) async fn create_table_as(
        &mut self,
        name: Name,
        create: &CreateTable,
        query: &ast::Query,
        text: &str,
    ) -> Result<Outcome> {
        let ready = self.plan_query(query, text, &[]).await?;
        let names: Vec<String> = create.columns.iter().map(|c| c.name.clone()).collect();
        let columns = ddl::named_columns(&names, &ready.planned.schema, create.name.position)?;
        let mut stream = self.engine.run(&ready.planned, vec![]).await?;
        let mut batches = vec![];
        while let Some(batch) = stream.next().await {
            batches.push(batch?);
        }
        let rows = compute::concat_batches(&ready.planned.schema, &batches)?;
        let (sql, def) = (text.to_string(), Kind::Table(TableDef { primary_key: vec![], checks: vec![] }));
        let n_rows = rows.num_rows();
        let make = |id| Object::new(id, name, sql, columns, def);
        let with = CreatedWith { rows: Some(rows), ..CreatedWith::default() };
        self.shared().call(move |core| core.create(make, with)).await??;
        Ok(Outcome::command(format!("SELECT {n_rows}")))
    }

    /// Plans each DEFAULT once, so that a wrong one is the error of CREATE TABLE.
    pub(super) async fn check_defaults(&mut self, columns: &[ColumnDef]) -> Result<()> {
        for default in columns.iter().filter_map(|c| c.default.as_deref()) {
            let text = format!("SELECT {default}");
            for parsed in tidewire_sql::parse(&text)? {
                if let Statement::Query(query) = &parsed.statement {
                    self.plan_query(query, &parsed.text, &[]).await.map_err(|e| e.with_position(None))?;
                }
            }
        }
        Ok(())
    }
}

/// The parameters that a part of a statement knows of.
fn parameters_of(plan: &Planned, parameters: &[ScalarValue]) -> Vec<ScalarValue> {
    parameters.iter().take(plan.parameters.len()).cloned().collect()
}

/// Rows that the table may have, under its schema.
pub(super) fn table_rows(table: &Object, rows: &RecordBatch) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(table.schema.clone(), rows.columns().to_vec(), &options)?)
}
