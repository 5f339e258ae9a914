//! CREATE and DROP.

use std::sync::Arc;

use tidewire_catalog::{Catalog, ColumnDef, Kind, Name, Object, PUBLIC, SYSTEM, SourceDef, TableDef, ViewDef};
use tidewire_connect::{BadRecord, Column, ColumnSource, Connector, FormatSpec, Options, SourceSpec};
use tidewire_planner::Dataflow;
use tidewire_sql::{CreateSource, CreateTable, CreateView, Drop, Include, ObjectKind, ObjectName, Parsed, Statement};
use tidewire_types::{ObjectId, Result, SqlError, SqlState, SqlType, closest};

use super::Session;
use crate::build::{Build, InLog};
use crate::core::CreatedWith;
use crate::memory::{limit_of, limit_of_options};
use crate::{Notice, Outcome};

impl Session {
    /// A name as it is created: in `public` unless it says otherwise.
    pub(super) fn new_name(&self, name: &ObjectName) -> Result<Name> {
        match name.schema.as_deref() {
            None | Some(PUBLIC) => Ok(Name::new(PUBLIC, &name.name)),
            Some(schema @ (SYSTEM | "pg_catalog" | "information_schema")) => {
                let message = format!("permission denied for schema {schema}");
                Err(SqlError::new(SqlState::InsufficientPrivilege, message).at(name.position))
            }
            Some(schema) => {
                let message = format!("schema \"{schema}\" does not exist");
                Err(SqlError::new(SqlState::InvalidSchemaName, message).at(name.position))
            }
        }
    }

    /// The object of a name. Errors: `42P01` with the position.
    pub(super) fn resolve<'a>(&self, catalog: &'a Catalog, name: &ObjectName) -> Result<&'a Arc<Object>> {
        let schema = name.schema.as_deref().unwrap_or(PUBLIC);
        catalog.resolve(&Name::new(schema, &name.name)).map_err(|e| e.at(name.position))
    }

    /// With IF NOT EXISTS, what is said instead of creating; None: the name is free.
    pub(super) fn exists_already(&self, name: &Name, if_not_exists: bool, tag: &str) -> Result<Option<Outcome>> {
        let moment = self.shared().published();
        let Some(present) = moment.catalog.get(name) else { return Ok(None) };
        let message = format!("relation \"{}\" already exists", name.name);
        if !if_not_exists {
            return Err(
                SqlError::new(SqlState::DuplicateTable, message).with_detail(format!("It is a {}.", present.kind()))
            );
        }
        let notice = Notice { severity: "NOTICE", code: "42P07", message: format!("{message}, skipping") };
        Ok(Some(Outcome::Command { tag: tag.to_string(), notices: vec![notice] }))
    }

    pub(super) async fn create_source(&mut self, create: &CreateSource, text: &str) -> Result<Outcome> {
        let tag = if create.stream { "CREATE STREAM" } else { "CREATE SOURCE" };
        let name = self.new_name(&create.name)?;
        if let Some(outcome) = self.exists_already(&name, create.if_not_exists, tag)? {
            return Ok(outcome);
        }
        let (connector, spec) = source_spec(create, &name, self.engine.connectors)?;
        let columns = spec.columns.iter().map(|c| ColumnDef::new(&c.name, c.sql_type.clone())).collect();
        let made = tokio::task::spawn_blocking(move || {
            let source = connector.create(spec)?;
            let start = source.start_to_keep()?;
            Ok::<_, SqlError>((source, start))
        });
        let source = made.await.map_err(|_| SqlError::internal("the connector panicked"))??;
        let def = Kind::Source(SourceDef { connector: connector.name().to_string(), stream: create.stream });
        let (sql, with) = (text.to_string(), CreatedWith { source: Some(source), ..CreatedWith::default() });
        self.shared().call(move |core| core.create(|id| Object::new(id, name, sql, columns, def), with)).await??;
        Ok(Outcome::command(tag))
    }

    pub(super) async fn create_table(&mut self, create: &CreateTable, parsed: &Parsed) -> Result<Outcome> {
        let name = self.new_name(&create.name)?;
        if let Some(outcome) = self.exists_already(&name, create.if_not_exists, "CREATE TABLE")? {
            return Ok(outcome);
        }
        if let Some((option, _)) = create.options.first() {
            return Err(SqlError::unsupported(format_args!("option \"{option}\" of a table"))
                .with_hint("For records of a topic use CREATE SOURCE."));
        }
        if let Some(query) = &create.query {
            return self.create_table_as(name, create, query, &parsed.text).await;
        }
        check_columns(create.columns.iter().map(|c| (c.name.as_str(), c.position)))?;
        let position = |name: &String| create.columns.iter().position(|c| c.name == *name);
        let missing = |name: &String| {
            SqlError::new(SqlState::UndefinedColumn, format!("column \"{name}\" named in key does not exist"))
        };
        let primary_key: Vec<usize> =
            create.primary_key.iter().map(|n| position(n).ok_or_else(|| missing(n))).collect::<Result<_>>()?;
        let columns = create.columns.iter().enumerate().map(|(idx, c)| ColumnDef {
            name: c.name.clone(),
            sql_type: c.sql_type.clone(),
            not_null: c.not_null || primary_key.contains(&idx),
            default: c.default.clone(),
        });
        let columns: Vec<ColumnDef> = columns.collect();
        self.check_defaults(&columns).await?;
        let table = |id, checks| {
            let def = Kind::Table(TableDef { primary_key: primary_key.clone(), checks });
            Object::new(id, name.clone(), parsed.text.clone(), columns.clone(), def)
        };
        let checks = self.new_checks(&table(ObjectId(0), vec![]), &create.checks).await?;
        let object = table(ObjectId(0), checks);
        let make = |id| Object { id, ..object };
        self.shared().call(move |core| core.create(make, CreatedWith::default())).await??;
        Ok(Outcome::command("CREATE TABLE"))
    }

    pub(super) async fn create_view(&mut self, create: &CreateView, text: &str) -> Result<Outcome> {
        let name = self.new_name(&create.name)?;
        let tag = if create.materialized { "CREATE MATERIALIZED VIEW" } else { "CREATE VIEW" };
        if let Some((option, _)) = create.options.first().filter(|_| !create.materialized) {
            return Err(SqlError::unsupported(format_args!("option \"{option}\" of a view")));
        }
        limit_of_options(&create.options)?;
        let mut replaces = None;
        if create.or_replace {
            if create.materialized {
                return Err(SqlError::unsupported("CREATE OR REPLACE MATERIALIZED VIEW")
                    .with_hint("Drop the view and create it again."));
            }
            replaces = self.replaced_view(&name)?;
        }
        if replaces.is_none()
            && let Some(outcome) = self.exists_already(&name, create.if_not_exists, tag)?
        {
            return Ok(outcome);
        }
        if create.materialized {
            return self.create_materialized_view(name, create, text).await;
        }
        let planned = self.plan_view(create).await?;
        let columns = named_columns(&create.columns, &planned.schema, create.name.position)?;
        let def = ViewDef { query: create.query_text.clone(), depends_on: planned.objects };
        let sql = text.to_string();
        let make = |id| Object::new(id, name, sql, columns, Kind::View(def));
        let with = CreatedWith { replaces, ..CreatedWith::default() };
        self.shared().call(move |core| core.create(make, with)).await??;
        Ok(Outcome::command(tag))
    }

    /// The view that another one of that name may replace, if there is one.
    fn replaced_view(&self, name: &Name) -> Result<Option<ObjectId>> {
        let catalog = self.shared().published().catalog;
        let Some(present) = catalog.get(name) else { return Ok(None) };
        if !matches!(present.def, Kind::View(_)) {
            let message = format!("\"{}\" is not a view", name.name);
            return Err(SqlError::new(SqlState::WrongObjectType, message));
        }
        if let Some(dependant) = catalog.dependants(present.id).next() {
            return Err(SqlError::new(
                SqlState::DependentObjectsStillExist,
                format!("cannot replace view {} because other objects depend on it", name.name),
            )
            .with_detail(depends(dependant, present)));
        }
        Ok(Some(present.id))
    }

    async fn create_materialized_view(&mut self, name: Name, create: &CreateView, text: &str) -> Result<Outcome> {
        let (dataflow, planned) = self.plan_dataflow(&create.query, &create.query_text, create.query_offset).await?;
        let columns = named_columns(&create.columns, &planned.schema, create.name.position)?;
        let depends_on = planned.objects.clone();
        let def = ViewDef { query: create.query_text.clone(), depends_on: depends_on.clone() };
        let (sql, full_name) = (text.to_string(), name.to_string());
        let make = Box::new(move |id| Object::new(id, name, sql, columns, Kind::MaterializedView(def)));
        let is_background = self.settings.is_on("background_ddl");
        let build = Build {
            name: full_name,
            dataflow,
            oid: None,
            in_log: if is_background { InLog::FromTheStart } else { InLog::WhenBuilt },
            make: Some(make),
            depends_on,
            source_history: true,
            initial_rows: true,
            subscriber: None,
            memory_limit: limit_of_options(&create.options)?,
        };
        let building = build.start(self.shared()).await?;
        if is_background {
            building.let_go();
        } else {
            building.finished().await?;
        }
        Ok(Outcome::command("CREATE MATERIALIZED VIEW"))
    }

    /// Builds a materialized view again from its statement: one that the catalog has and that has failed, or that is not in it
    /// yet at a server's start.
    pub(crate) async fn rebuild_view(&mut self, stored: Object) -> Result<()> {
        let (shared, id) = (self.shared().clone(), stored.id);
        shared.dead_letters.begin_rebuild(id);
        let built = self.build_stored_view(stored).await;
        shared.dead_letters.end_rebuild(id);
        built
    }

    async fn build_stored_view(&mut self, stored: Object) -> Result<()> {
        let (dataflow, object) = self.plan_stored_view(stored).await?;
        let build = Build {
            name: object.name.to_string(),
            dataflow,
            oid: Some(object.id),
            in_log: InLog::Before,
            depends_on: object.depends_on().to_vec(),
            memory_limit: limit_of(&object),
            make: Some(Box::new(|_| object)),
            source_history: true,
            initial_rows: true,
            subscriber: None,
        };
        build.start(self.shared()).await?.finished().await.map(|_| ())
    }

    /// Plans a materialized view that was there before the server's start, from its statement.
    pub(crate) async fn plan_stored_view(&mut self, stored: Object) -> Result<(Dataflow, Object)> {
        let parsed = tidewire_sql::parse(&stored.sql)?;
        let Some(Statement::CreateView(create)) = parsed.first().map(|p| &p.statement) else {
            return Err(SqlError::internal("a materialized view without its statement"));
        };
        let (dataflow, planned) = self.plan_dataflow(&create.query, &create.query_text, create.query_offset).await?;
        let columns = named_columns(&create.columns, &planned.schema, create.name.position)?;
        let def = ViewDef { query: create.query_text.clone(), depends_on: planned.objects };
        let object = Object::new(stored.id, stored.name, stored.sql, columns, Kind::MaterializedView(def));
        Ok((dataflow, Object { owner: stored.owner, ..object }))
    }

    pub(super) async fn drop_objects(&mut self, drop: &Drop) -> Result<Outcome> {
        let (word, tag) = match drop.kind {
            ObjectKind::Source => ("source", "DROP SOURCE"),
            ObjectKind::Table => ("table", "DROP TABLE"),
            ObjectKind::View => ("view", "DROP VIEW"),
            ObjectKind::MaterializedView => ("materialized view", "DROP MATERIALIZED VIEW"),
            ObjectKind::Sink => return Err(SqlError::unsupported("DROP SINK")),
            ObjectKind::Index => ("index", "DROP INDEX"),
            ObjectKind::Schema => return Err(SqlError::unsupported("DROP SCHEMA")),
        };
        let catalog = self.shared().published().catalog;
        let mut notices = vec![];
        let mut named = vec![];
        for name in &drop.names {
            match self.resolve(&catalog, name) {
                Ok(object) => named.push(object.clone()),
                Err(_) if self.cancel_build(drop.kind, name).await? => {}
                Err(_) if drop.if_exists => notices.push(Notice {
                    severity: "NOTICE",
                    code: "00000",
                    message: format!("{word} \"{}\" does not exist, skipping", name.name),
                }),
                Err(_) if drop.kind == ObjectKind::Index => {
                    let schema = name.schema.as_deref().unwrap_or(PUBLIC);
                    return Err(Self::no_index(&catalog, schema, &name.name).at(name.position));
                }
                Err(error) => {
                    let message = format!("{word} \"{}\" does not exist", name.name);
                    let error_ = SqlError::new(SqlState::UndefinedTable, message).at(name.position);
                    return Err(match error.hint() {
                        Some(hint) => error_.with_hint(hint),
                        None => error_,
                    });
                }
            }
        }
        for object in &named {
            check_kind(drop.kind, object, word)?;
        }
        let ids = order_to_drop(&catalog, &named, drop.cascade, &mut notices)?;
        self.shared().call(move |core| core.drop_objects(&ids)).await??;
        Ok(Outcome::Command { tag: tag.to_string(), notices })
    }

    /// A view that is being built is dropped by cancelling its build.
    async fn cancel_build(&self, kind: ObjectKind, name: &ObjectName) -> Result<bool> {
        if kind != ObjectKind::MaterializedView {
            return Ok(false);
        }
        let name = Name::new(name.schema.as_deref().unwrap_or(PUBLIC), &name.name);
        self.shared().call(move |core| core.cancel_build(&name)).await
    }
}

/// What a connector is asked to make of a statement.
pub fn source_spec(
    create: &CreateSource,
    name: &Name,
    connectors: &'static [&'static dyn Connector],
) -> Result<(&'static dyn Connector, SourceSpec)> {
    let mut options: Vec<(String, String)> = create.options.clone();
    let bad_record = take_bad_record(&mut options)?;
    let connector = take_connector(&mut options, connectors)?;
    let options = Options::new(options)?;
    let columns = source_columns(create, connector, &options)?;
    let format = create.format.as_ref().map(|f| {
        let options = Options::new(f.options.clone())?;
        Ok::<_, SqlError>(FormatSpec { format: f.format.clone(), encode: f.encode.clone(), options })
    });
    let spec = SourceSpec { name: name.to_string(), columns, options, format: format.transpose()?, bad_record };
    Ok((connector, spec))
}

/// The connector that the options name, taken out of them. ksqlDB's statements name none: `KAFKA_TOPIC` does.
fn take_connector(
    options: &mut Vec<(String, String)>,
    connectors: &'static [&'static dyn Connector],
) -> Result<&'static dyn Connector> {
    let place = options.iter().position(|(name, _)| name == "connector");
    let name = match place {
        Some(place) => options.remove(place).1.to_lowercase(),
        None if options.iter().any(|(name, _)| name == "kafka_topic") => "kafka".to_string(),
        None => {
            return Err(SqlError::new(SqlState::InvalidParameterValue, "option \"connector\" is missing")
                .with_hint("Add connector = 'kafka' (or KAFKA_TOPIC = '..') to the WITH clause."));
        }
    };
    let names = || connectors.iter().map(|c| c.name());
    connectors.iter().copied().find(|c| c.name() == name).ok_or_else(|| {
        let error = SqlError::new(SqlState::UndefinedObject, format!("connector \"{name}\" does not exist"));
        error.with_hint(match closest(&name, names()) {
            Some(near) => format!("Perhaps you meant \"{near}\"."),
            None => format!("There are: {}.", names().collect::<Vec<_>>().join(", ")),
        })
    })
}

/// `bad_record = '..'`, taken out of the options.
fn take_bad_record(options: &mut Vec<(String, String)>) -> Result<BadRecord> {
    let Some(place) = options.iter().position(|(name, _)| name == "bad_record") else {
        return Ok(BadRecord::default());
    };
    let (_, value) = options.remove(place);
    match value.to_lowercase().as_str() {
        "dead_letter" => Ok(BadRecord::DeadLetter),
        "skip" => Ok(BadRecord::Skip),
        "fail" => Ok(BadRecord::Fail),
        _ => Err(SqlError::new(
            SqlState::InvalidParameterValue,
            format!("invalid value for option \"bad_record\": \"{value}\""),
        )
        .with_hint("It is 'dead_letter', 'skip' or 'fail'.")),
    }
}

fn source_columns(create: &CreateSource, connector: &dyn Connector, options: &Options) -> Result<Vec<Column>> {
    let mut columns = match &create.columns {
        Some(columns) => {
            for column in columns {
                if column.primary_key || column.default.is_some() || column.not_null {
                    return Err(SqlError::unsupported("a constraint or default on a column of a source")
                        .at(column.position)
                        .with_detail("A source is not stored."));
                }
            }
            check_columns(columns.iter().map(|c| (c.name.as_str(), c.position)))?;
            let column = |c: &tidewire_sql::Column| Column {
                name: c.name.clone(),
                sql_type: c.sql_type.clone(),
                source: ColumnSource::Value,
            };
            columns.iter().map(column).collect()
        }
        None => connector.default_columns(options)?.ok_or_else(|| {
            SqlError::new(SqlState::InvalidTableDefinition, "a source of this connector needs a list of columns")
                .with_hint(format!("Write CREATE SOURCE {} (column type, ..) WITH (..).", create.name.name))
        })?,
    };
    for include in &create.include {
        let column = include_column(include)?;
        if columns.iter().any(|c| c.name == column.name) {
            return Err(duplicate_column(&column.name)
                .at(include.position)
                .with_hint("Give the included column another name with AS."));
        }
        columns.push(column);
    }
    Ok(columns)
}

fn include_column(include: &Include) -> Result<Column> {
    let headers = || {
        let header = vec![("key".to_string(), SqlType::Text), ("value".to_string(), SqlType::Bytea)];
        SqlType::Array(Box::new(SqlType::Struct(header)))
    };
    let (sql_type, source) = match (include.what.as_str(), &include.header) {
        ("key", _) => (SqlType::Bytea, ColumnSource::Key),
        ("partition", _) => (SqlType::Int4, ColumnSource::Split),
        ("offset", _) => (SqlType::Int8, ColumnSource::Position),
        ("timestamp", _) => (SqlType::Timestamptz, ColumnSource::Timestamp),
        ("header" | "headers", None) => (headers(), ColumnSource::Headers),
        ("header" | "headers", Some(name)) => (SqlType::Bytea, ColumnSource::Header(name.clone())),
        (other, _) => {
            return Err(SqlError::new(SqlState::SyntaxError, format!("cannot include \"{other}\""))
                .at(include.position)
                .with_hint("There are key, partition, offset, timestamp and header."));
        }
    };
    let name = include.alias.clone().unwrap_or_else(|| include.what.clone());
    Ok(Column { name, sql_type, source })
}

fn check_columns<'a>(columns: impl Iterator<Item = (&'a str, usize)>) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for (name, position) in columns {
        if !seen.insert(name) {
            return Err(duplicate_column(name).at(position));
        }
    }
    Ok(())
}

fn duplicate_column(name: &str) -> SqlError {
    SqlError::new(SqlState::DuplicateColumn, format!("column \"{name}\" specified more than once"))
}

/// A query's columns under the names of a statement's list, which may be shorter.
pub(super) fn named_columns(
    names: &[String],
    schema: &arrow::datatypes::Schema,
    position: usize,
) -> Result<Vec<ColumnDef>> {
    if names.len() > schema.fields().len() {
        return Err(SqlError::new(SqlState::SyntaxError, "too many column names were specified").at(position));
    }
    let names = names.iter().map(Some).chain(std::iter::repeat(None));
    let columns: Vec<ColumnDef> = schema
        .fields()
        .iter()
        .zip(names)
        .map(|(field, name)| ColumnDef::new(name.unwrap_or(field.name()), SqlType::of(field)))
        .collect();
    check_columns(columns.iter().map(|c| (c.name.as_str(), position)))
        .map_err(|error| error.with_hint("Give the columns different names with AS."))?;
    Ok(columns)
}

fn check_kind(kind: ObjectKind, object: &Object, word: &str) -> Result<()> {
    let fits = match (&object.def, kind) {
        (Kind::Source(_), ObjectKind::Source)
        | (Kind::Table(_), ObjectKind::Table)
        | (Kind::View(_), ObjectKind::View)
        | (Kind::MaterializedView(_), ObjectKind::MaterializedView)
        | (Kind::Index(_), ObjectKind::Index) => true,
        (Kind::Source(_) | Kind::Table(_) | Kind::View(_) | Kind::MaterializedView(_) | Kind::Index(_), _) => false,
    };
    if fits {
        return Ok(());
    }
    let right = object.kind().to_uppercase();
    Err(SqlError::new(SqlState::WrongObjectType, format!("\"{}\" is not {}", object.name.name, a(word)))
        .with_hint(format!("Use DROP {right} to remove {}.", a(object.kind()))))
}

/// With its article.
fn a(word: &str) -> String {
    if word == "index" { format!("an {word}") } else { format!("a {word}") }
}

/// The named objects and, with CASCADE, what stands on them; dependants first.
fn order_to_drop(
    catalog: &Catalog,
    named: &[Arc<Object>],
    cascade: bool,
    notices: &mut Vec<Notice>,
) -> Result<Vec<ObjectId>> {
    let mut ids: Vec<ObjectId> = vec![];
    for object in named {
        for id in catalog.with_dependants(object.id) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }
    ids.sort_unstable_by(|a, b| b.cmp(a));
    let others: Vec<_> =
        ids.iter().rev().filter(|id| !named.iter().any(|o| o.id == **id)).filter_map(|id| catalog.by_id(*id)).collect();
    // Indexes go with their relation.
    let others: Vec<_> = others.into_iter().filter(|object| !matches!(object.def, Kind::Index(_))).collect();
    if !others.is_empty() && !cascade {
        let standing = |other: &&Arc<Object>| named.iter().find(|o| catalog.with_dependants(o.id).contains(&other.id));
        let first = named.iter().find(|o| others.iter().any(|other| catalog.with_dependants(o.id).contains(&other.id)));
        let what = first.map_or_else(String::new, |o| format!("{} {}", o.kind(), o.name));
        let detail: Vec<String> = others
            .iter()
            .filter_map(|other| {
                let below = other.depends_on().iter().filter_map(|id| catalog.by_id(*id)).find(|o| ids.contains(&o.id));
                Some(depends(other, below.or_else(|| standing(other))?))
            })
            .collect();
        return Err(SqlError::new(
            SqlState::DependentObjectsStillExist,
            format!("cannot drop {what} because other objects depend on it"),
        )
        .with_detail(detail.join("\n"))
        .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
    }
    for other in others {
        let message = format!("drop cascades to {} {}", other.kind(), other.name);
        notices.push(Notice { severity: "NOTICE", code: "00000", message });
    }
    Ok(ids)
}

fn depends(dependant: &Object, on: &Object) -> String {
    format!("{} {} depends on {} {}", dependant.kind(), dependant.name, on.kind(), on.name)
}
