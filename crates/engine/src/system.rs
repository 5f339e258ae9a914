//! The tables of the schema `tidewire`: what the server knows of itself, as SQL.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryViewArray, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use tidewire_catalog::SYSTEM;
use tidewire_operators::assert::SEVERAL_ROWS;
use tidewire_types::{Result, SqlType};

use crate::core::describe;
use crate::dead_letters::Letter;
use crate::status::{IndexStatus, SourceState, SourceStatus, Status, ViewOrigin, ViewState};

/// The tables there are.
const NAMES: &[&str] = &["dead_letters", "indexes", "materialized_views", "operators", "sources", "splits"];

/// All (schema, name) there are.
pub fn names() -> impl Iterator<Item = (String, String)> {
    NAMES.iter().map(|name| (SYSTEM.to_string(), (*name).to_string()))
}

/// What a statement may read of them: the status at its beginning.
pub struct Tables {
    /// Where everything stands.
    pub status: Status,
    /// What could not be used.
    pub dead_letters: Vec<Letter>,
}

impl Tables {
    /// The table of that name.
    pub fn table(&self, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>> {
        if schema != SYSTEM {
            return None;
        }
        let rows = match name {
            "dead_letters" => dead_letters(&self.dead_letters),
            "indexes" => indexes(&self.status.indexes),
            "materialized_views" => materialized_views(&self.status),
            "operators" => operators(&self.status),
            "sources" => sources(&self.status.sources),
            "splits" => splits(&self.status.sources),
            _ => return None,
        };
        let rows = rows.ok()?;
        Some(Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]]).ok()?))
    }
}

/// Rows of named columns; each column's SQL type is that of its values.
pub fn rows(columns: Vec<(&str, SqlType, ArrayRef)>) -> Result<RecordBatch> {
    let fields: Vec<Field> = columns.iter().map(|(name, sql_type, _)| sql_type.field(name, true)).collect();
    let arrays = columns.into_iter().map(|(.., array)| array).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// A text column.
pub fn text<S: AsRef<str>>(values: impl IntoIterator<Item = Option<S>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringViewArray>())
}

/// A bigint column.
pub fn bigint(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Int64Array>())
}

fn timestamptz(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn bytea<'a>(values: impl IntoIterator<Item = Option<&'a [u8]>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<BinaryViewArray>())
}

fn int(n: impl TryInto<i64>) -> Option<i64> {
    n.try_into().ok()
}

fn dead_letters(letters: &[Letter]) -> Result<RecordBatch> {
    let each = || letters.iter();
    rows(vec![
        ("time", SqlType::Timestamptz, timestamptz(each().map(|l| Some(l.time_us)))),
        ("object", SqlType::Text, text(each().map(|l| Some(&l.name)))),
        (
            "split",
            SqlType::Int4,
            Arc::new(each().map(|l| l.place.map(|(split, _)| split.0 as i32)).collect::<Int32Array>()),
        ),
        ("position", SqlType::Int8, bigint(each().map(|l| l.place.map(|(_, position)| position)))),
        ("record_time", SqlType::Timestamptz, timestamptz(each().map(|l| l.timestamp_us))),
        ("key", SqlType::Bytea, bytea(each().map(|l| l.key.as_deref()))),
        ("value", SqlType::Bytea, bytea(each().map(|l| l.value.as_deref()))),
        ("error", SqlType::Text, text(each().map(|l| Some(&l.error)))),
    ])
}

fn source_state(state: &SourceState) -> (&'static str, Option<String>) {
    match state {
        SourceState::Idle => ("idle", None),
        SourceState::Running => ("running", None),
        SourceState::Retrying(why) => ("retrying", Some(why.clone())),
        SourceState::Failed(why) => {
            let hint = why.hint().map(|hint| format!(" HINT: {hint}")).unwrap_or_default();
            ("failed", Some(format!("{}{hint}", describe(why))))
        }
    }
}

/// The records that views do not contain yet, where known.
fn lag(source: &SourceStatus) -> Option<i64> {
    source.splits.iter().map(|s| Some(s.end? - s.position)).sum()
}

fn sources(sources: &[SourceStatus]) -> Result<RecordBatch> {
    let each = || sources.iter();
    rows(vec![
        ("name", SqlType::Text, text(each().map(|s| Some(&s.name)))),
        ("state", SqlType::Text, text(each().map(|s| Some(source_state(&s.state).0)))),
        ("error", SqlType::Text, text(each().map(|s| source_state(&s.state).1))),
        ("splits", SqlType::Int8, bigint(each().map(|s| int(s.splits.len())))),
        ("records", SqlType::Int8, bigint(each().map(|s| int(s.n_rows)))),
        ("bytes", SqlType::Int8, bigint(each().map(|s| int(s.n_bytes)))),
        ("bad_records", SqlType::Int8, bigint(each().map(|s| int(s.n_bad_records)))),
        ("lag", SqlType::Int8, bigint(each().map(lag))),
    ])
}

fn splits(sources: &[SourceStatus]) -> Result<RecordBatch> {
    let each = || sources.iter().flat_map(|source| source.splits.iter().map(move |split| (source, split)));
    rows(vec![
        ("source", SqlType::Text, text(each().map(|(source, _)| Some(&source.name)))),
        ("split", SqlType::Int8, bigint(each().map(|(_, split)| int(split.split)))),
        ("position", SqlType::Int8, bigint(each().map(|(_, split)| Some(split.position)))),
        ("end", SqlType::Int8, bigint(each().map(|(_, split)| split.end))),
        ("lag", SqlType::Int8, bigint(each().map(|(_, split)| Some(split.end? - split.position)))),
    ])
}

/// The word for a view's state, and its error.
pub fn view_state(state: &ViewState) -> (&'static str, Option<&str>) {
    match state {
        ViewState::Building { .. } => ("building", None),
        ViewState::Running => ("running", None),
        ViewState::Undefined => ("undefined", Some(SEVERAL_ROWS)),
        ViewState::Failed(why) => ("failed", Some(why)),
    }
}

fn view_origin(origin: ViewOrigin) -> &'static str {
    match origin {
        ViewOrigin::Created => "created",
        ViewOrigin::Restored => "restored",
        ViewOrigin::Rebuilt => "rebuilt",
    }
}

/// The indexes in the order of their names.
pub fn indexes(indexes: &[IndexStatus]) -> Result<RecordBatch> {
    let mut indexes: Vec<&IndexStatus> = indexes.iter().collect();
    indexes.sort_by(|a, b| (&a.relation, &a.name).cmp(&(&b.relation, &b.name)));
    let each = || indexes.iter();
    rows(vec![
        ("name", SqlType::Text, text(each().map(|i| Some(&i.name)))),
        ("relation", SqlType::Text, text(each().map(|i| Some(&i.relation)))),
        ("columns", SqlType::Text, text(each().map(|i| Some(i.columns.join(", "))))),
        ("state", SqlType::Text, text(each().map(|i| Some(if i.is_ready { "ready" } else { "building" })))),
        ("rows", SqlType::Int8, bigint(each().map(|i| int(i.n_rows)))),
        ("state_bytes", SqlType::Int8, bigint(each().map(|i| int(i.bytes)))),
    ])
}

fn materialized_views(status: &Status) -> Result<RecordBatch> {
    let each = || status.views.iter();
    rows(vec![
        ("name", SqlType::Text, text(each().map(|v| Some(&v.name)))),
        ("state", SqlType::Text, text(each().map(|v| Some(view_state(&v.state).0)))),
        ("error", SqlType::Text, text(each().map(|v| view_state(&v.state).1))),
        ("origin", SqlType::Text, text(each().map(|v| Some(view_origin(v.origin))))),
        ("rows", SqlType::Int8, bigint(each().map(|v| int(v.n_rows)))),
        ("state_bytes", SqlType::Int8, bigint(each().map(|v| int(v.state_bytes)))),
    ])
}

fn operators(status: &Status) -> Result<RecordBatch> {
    let each =
        || status.views.iter().flat_map(|view| view.operators.iter().enumerate().map(move |(id, op)| (view, id, op)));
    rows(vec![
        ("view", SqlType::Text, text(each().map(|(view, ..)| Some(&view.name)))),
        ("operator", SqlType::Int8, bigint(each().map(|(_, id, _)| int(id)))),
        ("description", SqlType::Text, text(each().map(|(.., op)| Some(&op.description)))),
        ("input_rows", SqlType::Int8, bigint(each().map(|(.., op)| int(op.n_input_rows)))),
        ("output_rows", SqlType::Int8, bigint(each().map(|(.., op)| int(op.n_output_rows)))),
        ("step_ns", SqlType::Int8, bigint(each().map(|(.., op)| int(op.step_ns)))),
        ("state_rows", SqlType::Int8, bigint(each().map(|(.., op)| int(op.state_rows)))),
        ("state_bytes", SqlType::Int8, bigint(each().map(|(.., op)| int(op.state_bytes)))),
    ])
}
