//! SELECT: a snapshot. EMIT CHANGES and SUBSCRIBE: the rows of a snapshot and then every change.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, UInt32Array};
use arrow::compute;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::prelude::SessionContext;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tidewire_catalog::{Kind, Object};
use tidewire_operators::arrangement::ArrangementReader;
use tidewire_operators::consolidate;
use tidewire_planner::{Context, Dataflow, Planned, PointQuery, RowExprs};
use tidewire_sql::ast;
use tidewire_sql::{CreateView, Subscribe};
use tidewire_types::{Delta, Epoch, ObjectId, Result, SqlError, SqlState, SqlType};
use tokio::runtime::{Handle, RuntimeFlavor};

use super::plans::Plan;
use super::{Outcome, Prepared, Session};
use crate::SystemContext;
use crate::build::{Build, InLog};
use crate::shared::{Relation, Shared, Snapshot};
use crate::subscription::{self, EpochDeltas, Receiver};
use crate::system;
use crate::tables::{self, Resolver};

/// Bytes of a statement that may take long to plan.
const LONG_TEXT_BYTES: usize = 1024;
/// Rows of one batch that is pushed.
const PUSH_ROWS: usize = 8192;

/// Runs `f`, which may take long, so that other sessions do not wait for this one's thread.
fn beside_others<T>(f: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(f),
        _ => f(),
    }
}

/// A planned query and the moment that its tables stand at.
pub struct Ready {
    pub planned: Planned,
    snapshot: Arc<Snapshot>,
    text: String,
}

/// A query whose plan is kept, without its tables.
pub struct KeptQuery {
    planned: Planned,
    // Where it only reads by key.
    point: Option<PointQuery>,
}

impl KeptQuery {
    /// The query, where its plan can be kept.
    fn new(planned: &Planned) -> Option<KeptQuery> {
        let planned = unbound(planned)?;
        let point = PointQuery::of(&planned);
        Some(KeptQuery { planned, point })
    }
}

impl Plan for KeptQuery {
    fn parameters(&self) -> &[SqlType] {
        &self.planned.parameters
    }
}

/// The plan without its tables, where it holds for later moments: system tables are made for one.
pub(super) fn unbound(planned: &Planned) -> Option<Planned> {
    if !planned.is_lasting {
        return None;
    }
    planned.with_tables(tables::unbound).ok()
}

/// What a session's statements are planned with.
pub struct Environment {
    system: SystemContext,
    session: SessionContext,
    settings_version: u64,
    /// The CHECK constraints of tables that were written to.
    pub checks: Mutex<HashMap<ObjectId, Arc<RowExprs>>>,
}

impl Session {
    /// What system tables and functions are made of. Kept while neither the catalog nor a setting changes.
    pub(super) fn environment(&mut self, snapshot: &Snapshot) -> Arc<Environment> {
        let (catalog, version) = (&snapshot.moment.catalog, self.settings.version());
        if let Some(kept) = &self.environment
            && Arc::ptr_eq(&kept.system.catalog, catalog)
            && kept.settings_version == version
        {
            return kept.clone();
        }
        let system = SystemContext {
            catalog: catalog.clone(),
            user: self.user.clone(),
            database: self.database.clone(),
            settings: self.settings.all(),
        };
        let session = self.engine.session_for(&system);
        let made = Arc::new(Environment { system, session, settings_version: version, checks: Mutex::default() });
        self.environment = Some(made.clone());
        made
    }

    /// Runs `f` with what planning may look at, at a new snapshot.
    pub(super) async fn plan<T>(
        &mut self,
        text: &str,
        f: impl FnOnce(&Context<'_>) -> Result<T>,
    ) -> Result<(T, Arc<Snapshot>)> {
        let snapshot = self.snapshot();
        let own = self.system_tables(text).await?;
        let environment = self.environment(&snapshot);
        let system = self.engine.system.as_ref();
        let resolver = Resolver { snapshot: &snapshot, system, system_cx: &environment.system, own: &own };
        let search_path = self.settings.search_path();
        let cx = Context {
            catalog: &snapshot.moment.catalog,
            tables: &resolver,
            search_path: &search_path,
            session: &environment.session,
        };
        let result = if text.len() < LONG_TEXT_BYTES { f(&cx) } else { beside_others(|| f(&cx)) };
        Ok((result?, snapshot))
    }

    /// The status is asked of the loop only for statements that can show it.
    async fn system_tables(&self, text: &str) -> Result<system::Tables> {
        if !text.to_lowercase().contains(tidewire_catalog::SYSTEM) {
            return Ok(system::Tables { status: crate::Status::default(), dead_letters: vec![] });
        }
        let status = self.shared().call(|core| core.status()).await?;
        Ok(system::Tables { status, dead_letters: self.shared().dead_letters.all() })
    }

    pub(super) async fn plan_query(
        &mut self,
        query: &ast::Query,
        text: &str,
        parameters: &[Option<SqlType>],
    ) -> Result<Ready> {
        let snapshot = self.snapshot();
        let environment = self.environment(&snapshot);
        if let Some(kept) = self.plans.get(&environment, text, parameters) {
            self.check_not_written(&kept.planned.objects)?;
            let planned = kept.planned.with_tables(|table| tables::bound(table, &snapshot))?;
            return Ok(Ready { planned, snapshot, text: text.to_string() });
        }
        let mut query = query.clone();
        self.engine.system.rewrite(&mut query, &environment.system);
        let (planned, snapshot) = self.plan(text, |cx| cx.query(&query, text, parameters)).await?;
        self.check_not_written(&planned.objects)?;
        // The moment may be another one by now.
        let environment = self.environment(&snapshot);
        if let Some(kept) = KeptQuery::new(&planned) {
            self.plans.keep(&environment, text, parameters, &Arc::new(kept));
        }
        Ok(Ready { planned, snapshot, text: text.to_string() })
    }

    /// A transaction's writes are applied when it commits; reading them before is refused, not answered wrongly.
    pub(super) fn check_not_written(&self, objects: &[ObjectId]) -> Result<()> {
        if self.written.is_empty() {
            return Ok(());
        }
        let catalog = self.shared().published().catalog;
        let written = |id: &ObjectId| {
            self.written.iter().any(|w| w.table == *id || catalog.with_dependants(w.table).contains(id))
        };
        match objects.iter().any(written) {
            false => Ok(()),
            true => Err(SqlError::unsupported("reading what the same transaction has written")
                .with_detail("The writes of a transaction take effect when it commits.")
                .with_hint("Commit first, or use RETURNING.")),
        }
    }

    /// The value of an expression without columns.
    pub(super) async fn constant(&mut self, expr: &ast::Expr, text: &str, to: &SqlType) -> Result<ScalarValue> {
        Ok(self.plan(text, |cx| cx.constant(expr, text, to)).await?.0)
    }

    pub(super) async fn run_query(
        &mut self,
        query: &ast::Query,
        prepared: &Prepared,
        parameters: Vec<ScalarValue>,
    ) -> Result<Outcome> {
        let text = &prepared.parsed.text;
        if let Some(outcome) = self.read_by_key(prepared, &parameters)? {
            return Ok(outcome);
        }
        let ready = self.ready.take().filter(|ready| ready.text == *text && ready.snapshot.is_present());
        let ready = match ready {
            Some(ready) => ready,
            None => {
                let types: Vec<_> = prepared.parameters.iter().cloned().map(Some).collect();
                self.plan_query(query, text, &types).await?
            }
        };
        let schema = ready.planned.schema.clone();
        if let Some(expected) = &prepared.schema
            && !same_types(expected, &schema)
        {
            return Err(SqlError::new(SqlState::FeatureNotSupported, "cached plan must not change result type"));
        }
        let rows = self.engine.run(&ready.planned, parameters).await?;
        Ok(Outcome::Rows { schema, rows, tag: "SELECT" })
    }

    /// The rows of a query that was kept and only reads by key. None: it must be planned.
    fn read_by_key(&mut self, prepared: &Prepared, parameters: &[ScalarValue]) -> Result<Option<Outcome>> {
        let snapshot = self.snapshot();
        let environment = self.environment(&snapshot);
        let types: Vec<_> = prepared.parameters.iter().cloned().map(Some).collect();
        let Some(kept) = self.plans.get(&environment, &prepared.parsed.text, &types) else { return Ok(None) };
        let KeptQuery { planned, point: Some(point) } = kept.as_ref() else { return Ok(None) };
        let schema = planned.schema.clone();
        if prepared.schema.as_ref().is_none_or(|expected| !same_types(expected, &schema)) {
            return Ok(None);
        }
        self.check_not_written(&planned.objects)?;
        let Some(rows) = self.rows_by_key(point, planned, &snapshot, parameters)? else { return Ok(None) };
        self.ready = None;
        let rows = stream::iter(rows.into_iter().map(Ok)).boxed();
        Ok(Some(Outcome::Rows { schema, rows, tag: "SELECT" }))
    }

    /// The rows that a kept plan gives at the snapshot, found by key. None: it must be planned.
    pub(super) fn rows_by_key(
        &self,
        point: &PointQuery,
        planned: &Planned,
        snapshot: &Arc<Snapshot>,
        parameters: &[ScalarValue],
    ) -> Result<Option<Vec<RecordBatch>>> {
        let state = self.engine.datafusion.state_ref();
        let state = state.read();
        let Some(filters) = point.filters(parameters) else { return Ok(None) };
        let found = tables::lookup(point.table.as_ref(), snapshot, &filters, &point.column_idxs, &*state)?;
        found.and_then(|rows| point.run(rows, parameters, &state, planned)).transpose()
    }

    /// Plans a plain view's query.
    pub(super) async fn plan_view(&mut self, create: &CreateView) -> Result<Planned> {
        let (query, offset) = (&create.query, create.query_offset);
        let planned = self.plan(&create.query_text, |cx| cx.query(query, &create.query_text, &[])).await;
        Ok(planned.map_err(|e| shift(e, offset))?.0)
    }

    /// Plans a materialized view's query, whose text begins at `offset` of the statement.
    pub(super) async fn plan_dataflow(
        &mut self,
        query: &ast::Query,
        text: &str,
        offset: usize,
    ) -> Result<(Dataflow, Planned)> {
        let planned = self.plan(text, |cx| cx.dataflow(query, text)).await;
        Ok(planned.map_err(|e| shift(e, offset))?.0)
    }

    pub(super) async fn subscribe(&mut self, subscribe: &Subscribe, text: &str) -> Result<Outcome> {
        let options = PushOptions::new(&subscribe.options)?;
        let ready = self.plan_query(&subscribe.query, text, &[]).await?;
        let schema = push_schema(&ready.planned.schema);
        let catalog = &ready.snapshot.moment.catalog;
        let whole = whole_relation(&subscribe.query, self, catalog);
        let rows = match whole {
            Some(object) => follow_relation(self.shared(), &object, &options, &schema).await?,
            None => self.follow_query(subscribe, &options, &schema, text).await?,
        };
        let rows = match subscribe.limit {
            None => rows,
            Some(limit) => limited(rows, limit).boxed(),
        };
        Ok(Outcome::Push { schema, rows, tag: "SUBSCRIBE" })
    }

    /// Any query: a view of its own that ends with the subscription.
    async fn follow_query(
        &mut self,
        subscribe: &Subscribe,
        options: &PushOptions,
        schema: &SchemaRef,
        text: &str,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let (dataflow, planned) = self.plan_dataflow(&subscribe.query, text, 0).await?;
        let catalog = self.shared().published().catalog;
        let has_source = |id: &ObjectId| catalog.by_id(*id).is_some_and(|o| matches!(o.def, Kind::Source(_)));
        // What a stream held before is history; what a table holds is the present.
        let snapshot = options.snapshot.unwrap_or(!planned.objects.iter().any(has_source));
        let (subscriber, receiver) = subscription::channel(self.shared().settings.subscription_buffer_bytes_max);
        let build = Build {
            name: "subscription".to_string(),
            dataflow,
            oid: None,
            in_log: InLog::WhenBuilt,
            make: None,
            depends_on: planned.objects,
            source_history: snapshot,
            initial_rows: snapshot,
            subscriber: Some(subscriber),
            memory_limit: None,
        };
        let view = build.start(self.shared()).await?.finished().await?;
        let guard = Unsubscribe { shared: self.shared().clone(), id: view, own_view: true };
        Ok(changes(receiver, schema.clone(), None, guard).boxed())
    }
}

/// `WITH (..)` of a push.
struct PushOptions {
    /// Begin with what is there; None: as is usual for what is followed.
    snapshot: Option<bool>,
}

impl PushOptions {
    fn new(options: &[(String, String)]) -> Result<PushOptions> {
        let mut parsed = PushOptions { snapshot: None };
        for (name, value) in options {
            let invalid = || {
                let message = format!("invalid value for option \"{name}\": \"{value}\"");
                SqlError::new(SqlState::InvalidParameterValue, message)
            };
            match (name.as_str(), value.to_lowercase().as_str()) {
                ("snapshot", "true" | "on" | "1" | "") => parsed.snapshot = Some(true),
                ("snapshot", "false" | "off" | "0") => parsed.snapshot = Some(false),
                ("snapshot", _) => return Err(invalid().with_hint("It is true or false.")),
                ("start", "earliest") => parsed.snapshot = Some(true),
                ("start", "latest") => parsed.snapshot = Some(false),
                ("start", _) => return Err(invalid().with_hint("It is 'earliest' or 'latest'.")),
                _ => {
                    let message = format!("option \"{name}\" is not recognized");
                    return Err(SqlError::new(SqlState::InvalidParameterValue, message)
                        .with_hint("There are snapshot (true, false) and start ('earliest', 'latest')."));
                }
            }
        }
        Ok(parsed)
    }
}

/// Ends a subscription when the client goes.
struct Unsubscribe {
    shared: Arc<Shared>,
    id: ObjectId,
    // The view is the subscription's own.
    own_view: bool,
}

impl Drop for Unsubscribe {
    fn drop(&mut self) {
        let (id, own_view) = (self.id, self.own_view);
        self.shared.cast(move |core| if own_view { core.drop_view(id) } else { core.forget_gone_subscribers(id) });
    }
}

/// An error whose place is in a part of a statement that begins at `offset`.
pub(super) fn shift(error: SqlError, offset: usize) -> SqlError {
    let position = error.position().map(|p| p + offset);
    error.with_position(position)
}

fn same_types(a: &Schema, b: &Schema) -> bool {
    a.fields().len() == b.fields().len()
        && a.fields().iter().zip(b.fields()).all(|(a, b)| a.data_type() == b.data_type())
}

/// The columns of a push: what happened and when, then the row.
pub fn push_schema(schema: &Schema) -> SchemaRef {
    let mut fields = vec![Arc::new(SqlType::Text.field("op", false)), Arc::new(SqlType::Int8.field("epoch", false))];
    fields.extend(schema.fields().iter().cloned());
    Arc::new(Schema::new(fields))
}

/// The relation that a query is all of: `SELECT * FROM name` and nothing else.
fn whole_relation(query: &ast::Query, session: &Session, catalog: &tidewire_catalog::Catalog) -> Option<Arc<Object>> {
    let ast::SetExpr::Select(select) = query.body.as_ref() else { return None };
    let [ast::SelectItem::Wildcard(_)] = select.projection.as_slice() else { return None };
    let [from] = select.from.as_slice() else { return None };
    let ast::TableFactor::Table { name, alias: None, args: None, .. } = &from.relation else { return None };
    // The same text with nothing else in it prints the same.
    if !from.joins.is_empty() || query.to_string() != format!("SELECT * FROM {name}") {
        return None;
    }
    let mut parts = name.0.iter().rev().filter_map(|part| part.as_ident()).map(tidewire_sql::fold);
    let (name, schema) = (parts.next()?, parts.next());
    let name = tidewire_sql::ObjectName { schema, name, position: 1 };
    let object = session.resolve(catalog, &name).ok()?;
    matches!(object.def, Kind::Table(_) | Kind::MaterializedView(_)).then(|| object.clone())
}

/// A table's or view's rows and then its changes, straight from the loop.
async fn follow_relation(
    shared: &Arc<Shared>,
    object: &Object,
    options: &PushOptions,
    schema: &SchemaRef,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let (subscriber, receiver) = subscription::channel(shared.settings.subscription_buffer_bytes_max);
    let (id, shared_) = (object.id, shared.clone());
    let snapshot = shared
        .call(move |core| {
            core.subscribe(id, subscriber)?;
            // In one call of the loop: the changes begin where the snapshot ends.
            Ok::<_, SqlError>(shared_.snapshot())
        })
        .await??;
    let initial = match snapshot.moment.relations.get(&id) {
        Some(Relation::Rows(reader)) if options.snapshot != Some(false) => Some((reader.clone(), snapshot)),
        _ => None,
    };
    let guard = Unsubscribe { shared: shared.clone(), id, own_view: false };
    Ok(changes(receiver, schema.clone(), initial, guard).boxed())
}

/// The rows of a push.
fn changes(
    receiver: Receiver,
    schema: SchemaRef,
    initial: Option<(Arc<ArrangementReader>, Arc<Snapshot>)>,
    guard: Unsubscribe,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let schema_ = schema.clone();
    let initial = stream::iter(initial).flat_map(move |(reader, snapshot)| {
        let epoch = snapshot.moment.epoch;
        let schema = schema_.clone();
        let rows = match reader.scan(epoch, None) {
            Ok(rows) => rows,
            Err(error) => Box::new(std::iter::once(Err(error))),
        };
        stream::iter(rows.map(move |rows| {
            let _readable = &snapshot;
            push_rows(&schema, "insert", epoch, rows?.columns().to_vec())
        }))
    });
    // Dropped in this order: when the loop is told, the receiver is gone.
    let live = stream::unfold((receiver, guard), |(mut receiver, guard)| async move {
        let received = receiver.recv().await?;
        Some((received, (receiver, guard)))
    });
    initial.chain(live.flat_map(move |received| {
        let rows = received.and_then(|changes| epoch_rows(&schema, changes));
        stream::iter(match rows {
            Ok(batches) => batches.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    }))
}

/// The net changes of an epoch: what left, then what came.
fn epoch_rows(schema: &SchemaRef, changes: EpochDeltas) -> Result<Vec<RecordBatch>> {
    let mut batches = vec![];
    let (mut left, mut came) = (vec![], vec![]);
    for delta in net(changes.deltas)? {
        for (wanted, list) in [(-1, &mut left), (1, &mut came)] {
            let rows: UInt32Array = (0..delta.n_rows())
                .filter(|idx| delta.weight(*idx).signum() == wanted)
                .flat_map(|idx| std::iter::repeat_n(idx as u32, delta.weight(idx).unsigned_abs() as usize))
                .collect();
            if !rows.is_empty() {
                list.push(compute::take_record_batch(delta.rows(), &rows)?);
            }
        }
    }
    for (op, list) in [("delete", left), ("insert", came)] {
        for rows in list {
            for offset in (0..rows.num_rows()).step_by(PUSH_ROWS) {
                let part = rows.slice(offset, PUSH_ROWS.min(rows.num_rows() - offset));
                batches.push(push_rows(schema, op, changes.epoch, part.columns().to_vec())?);
            }
        }
    }
    Ok(batches)
}

/// The deltas as one whose equal rows are summed.
fn net(deltas: Vec<Delta>) -> Result<Vec<Delta>> {
    // Rows that were only added cannot cancel each other.
    if deltas.iter().all(|d| d.weights().is_none()) {
        return Ok(deltas);
    }
    let Some(schema) = deltas.first().map(Delta::schema) else { return Ok(vec![]) };
    let rows = compute::concat_batches(&schema, deltas.iter().map(Delta::rows))?;
    let weights: Int64Array = deltas.iter().flat_map(|d| (0..d.n_rows()).map(|idx| d.weight(idx))).collect();
    Ok(vec![consolidate(Delta::new(rows, Some(weights)))?])
}

fn push_rows(schema: &SchemaRef, op: &str, epoch: Epoch, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let n_rows = columns.first().map_or(0, |c| c.len());
    let mut all: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(op, n_rows))),
        Arc::new(Int64Array::from(vec![i64::from(epoch.0); n_rows])),
    ];
    all.extend(columns);
    Ok(RecordBatch::try_new(schema.clone(), all)?)
}

/// The first `limit` rows, then the end.
fn limited(
    rows: BoxStream<'static, Result<RecordBatch>>,
    limit: u64,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let left = usize::try_from(limit).unwrap_or(usize::MAX);
    stream::unfold((rows, left), |(mut rows, left)| async move {
        if left == 0 {
            return None;
        }
        let batch = rows.next().await?;
        let batch = batch.map(|batch| batch.slice(0, batch.num_rows().min(left)));
        let left = left - batch.as_ref().map_or(left, RecordBatch::num_rows);
        Some((batch, (rows, left)))
    })
}
