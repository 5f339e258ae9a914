//! A catalog with rows for the tests of this crate.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::compute;
use arrow::datatypes::DataType;
use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use tidewire_catalog::{Catalog, ColumnDef, Kind, Name, Object, SourceDef, TableDef, ViewDef};
use tidewire_operators::expr::sql_error;
use tidewire_sql::{Parsed, Statement, ast};
use tidewire_types::{ObjectId, Result, SqlError, SqlType};

use crate::{Context, TableResolver, execute, session_context};

pub(crate) struct Fixture {
    pub(crate) catalog: Catalog,
    rows: HashMap<ObjectId, RecordBatch>,
    pub(crate) session: SessionContext,
    pub(crate) search_path: Vec<String>,
}

/// A table with rows, written as text.
fn rows(object: &Object, text: &[&[Option<&str>]]) -> RecordBatch {
    let columns = object.schema.fields().iter().enumerate().map(|(idx, field)| {
        let column: StringArray = text.iter().map(|row| row[idx]).collect();
        let column: arrow::array::ArrayRef = Arc::new(column);
        match field.data_type() {
            DataType::List(_) | DataType::Struct(_) => arrow::array::new_null_array(field.data_type(), column.len()),
            t => compute::cast(&column, t).unwrap(),
        }
    });
    RecordBatch::try_new(object.schema.clone(), columns.collect()).unwrap()
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        let mut fixture = Fixture {
            catalog: Catalog::default(),
            rows: HashMap::new(),
            session: session_context(1, None).unwrap(),
            search_path: vec!["public".into()],
        };
        let column = ColumnDef::new;
        let not_null = |name, t| ColumnDef { not_null: true, ..ColumnDef::new(name, t) };
        fixture.add(
            "accounts",
            vec![
                not_null("id", SqlType::Text),
                not_null("country", SqlType::Text),
                ColumnDef { default: Some("'2026-01-01'".into()), ..column("opened", SqlType::Date) },
            ],
            Kind::Table(TableDef { primary_key: vec![0], checks: vec![] }),
            &[&[Some("a"), Some("NL"), Some("2026-01-01")], &[Some("b"), Some("DE"), None]],
        );
        fixture.add(
            "payments",
            vec![
                column("id", SqlType::Int8),
                column("account", SqlType::Text),
                column("amount", SqlType::Numeric(Some((12, 2)))),
                column("at", SqlType::Timestamptz),
            ],
            Kind::Source(SourceDef { connector: "memory".into(), stream: true }),
            &[
                &[Some("1"), Some("a"), Some("10.50"), Some("2026-01-01T10:00:00Z")],
                &[Some("2"), Some("b"), Some("2.25"), Some("2026-01-02T11:30:00Z")],
                &[Some("3"), Some("a"), None, None],
            ],
        );
        fixture.add(
            "things",
            vec![
                column("i", SqlType::Int4),
                column("f", SqlType::Float8),
                column("u", SqlType::Uuid),
                column("j", SqlType::Jsonb),
                column("v", SqlType::Varchar(Some(5))),
                column("b", SqlType::Bool),
                column("s", SqlType::Struct(vec![("x".into(), SqlType::Int4)])),
                column("tags", SqlType::Array(Box::new(SqlType::Text))),
            ],
            Kind::Table(TableDef { primary_key: vec![], checks: vec![] }),
            &[&[
                Some("1"),
                Some("1.5"),
                Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
                Some(r#"{"k": [1, "x"]}"#),
                Some("abc"),
                Some("true"),
                None,
                None,
            ]],
        );
        fixture.add_view("rich", "SELECT account, amount FROM payments WHERE amount > 5", false);
        fixture.add_view("per_account", "SELECT account, count(*) AS n FROM payments GROUP BY account", true);
        fixture
    }

    pub(crate) fn add(&mut self, name: &str, columns: Vec<ColumnDef>, kind: Kind, text: &[&[Option<&str>]]) {
        let id = self.catalog.allocate();
        let object = self.catalog.insert(Object::new(id, Name::new("public", name), String::new(), columns, kind));
        let object = object.unwrap();
        self.rows.insert(id, rows(&object, text));
    }

    fn add_view(&mut self, name: &str, query: &str, materialized: bool) {
        let planned = self.plan(query, &[]).unwrap();
        let columns =
            planned.schema.fields().iter().map(|f| ColumnDef::new(f.name(), SqlType::of(f))).collect::<Vec<_>>();
        let def = ViewDef { query: query.into(), depends_on: planned.objects };
        let kind = if materialized { Kind::MaterializedView(def) } else { Kind::View(def) };
        self.add(name, columns, kind, &[]);
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context { catalog: &self.catalog, tables: self, search_path: &self.search_path, session: &self.session }
    }

    pub(crate) fn plan(&self, sql: &str, types: &[Option<SqlType>]) -> Result<crate::Planned> {
        let (query, text) = query(sql)?;
        self.context().query(&query, &text, types)
    }

    /// Names, types and rows of a query, or its error.
    pub(crate) fn show(&self, sql: &str) -> String {
        match self.run(sql, vec![]) {
            Ok(shown) => shown,
            Err(error) => show_error(&error),
        }
    }

    pub(crate) fn rows_of(&self, object: ObjectId) -> &RecordBatch {
        &self.rows[&object]
    }

    pub(crate) fn batches(&self, planned: &crate::Planned, parameters: Vec<ScalarValue>) -> Result<Vec<RecordBatch>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let batches: Vec<RecordBatch> = runtime.block_on(async {
            let stream = execute(planned, parameters, &self.session).await?;
            stream.try_collect().await.map_err(sql_error)
        })?;
        for batch in &batches {
            assert_eq!(batch.schema(), planned.schema);
        }
        Ok(batches)
    }

    pub(crate) fn run(&self, sql: &str, parameters: Vec<ScalarValue>) -> Result<String> {
        let planned = self.plan(sql, &[])?;
        let batches = self.batches(&planned, parameters)?;
        let mut shown = String::new();
        for field in planned.schema.fields() {
            shown += &format!("{} {}, ", field.name(), SqlType::of(field));
        }
        let shown = shown.trim_end_matches(", ").to_owned();
        Ok(format!("{shown}\n{}", pretty_format_batches(&batches).unwrap()))
    }
}

pub(crate) fn query(sql: &str) -> Result<(Box<ast::Query>, String)> {
    let Parsed { statement: Statement::Query(query), text, .. } = tidewire_sql::parse(sql)?.remove(0) else {
        panic!("no query: {sql}");
    };
    Ok((query, text))
}

pub(crate) fn show_error(error: &SqlError) -> String {
    let mut shown = format!("{}: {error}", error.state().code());
    if let Some(position) = error.position() {
        shown += &format!(" at {position}");
    }
    for (label, text) in [("DETAIL", error.detail()), ("HINT", error.hint())] {
        if let Some(text) = text {
            shown += &format!("\n{label}: {text}");
        }
    }
    shown
}

impl TableResolver for Fixture {
    fn object(&self, object: &Arc<Object>) -> Result<Arc<dyn TableProvider>> {
        let batch = self.rows.get(&object.id).cloned().ok_or_else(|| SqlError::internal("no rows"))?;
        Ok(Arc::new(MemTable::try_new(object.schema.clone(), vec![vec![batch]]).map_err(sql_error)?))
    }

    fn system_table(&self, _: &str, _: &str) -> Option<Arc<dyn TableProvider>> {
        None
    }

    fn system_tables(&self) -> Vec<(String, String)> {
        vec![("tidewire".into(), "sources".into())]
    }
}
