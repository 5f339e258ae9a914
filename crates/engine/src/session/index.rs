//! CREATE INDEX: the catalog's side, and waiting until readers can use it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewire_catalog::{Catalog, ColumnDef, IndexDef, Kind, Name, Object};
use tidewire_sql::{CreateIndex, NamedColumn};
use tidewire_types::{ObjectId, Result, SqlError, SqlState, SqlType};

use super::Session;
use crate::Outcome;
use crate::core::CreatedWith;
use crate::shared::{Relation, Shared};

const COLUMNS_MAX: usize = 32;

impl Session {
    pub(super) async fn create_index(&mut self, create: &CreateIndex, text: &str) -> Result<Outcome> {
        let moment = self.shared().published();
        let relation = self.resolve(&moment.catalog, &create.relation)?.clone();
        check_relation(&relation).map_err(|e| e.at(create.relation.position))?;
        let key = columns(&relation, &create.columns)?;
        let include = columns(&relation, &create.include)?;
        key.iter().try_for_each(|idx| check_type(&relation, *idx))?;
        let name = match &create.name {
            Some(name) if name.schema.is_some() => {
                let message = "an index is in the schema of its table: its name takes none";
                return Err(SqlError::new(SqlState::SyntaxError, message).at(name.position));
            }
            Some(name) => Name::new(&relation.name.schema, &name.name),
            None => free_name(&moment.catalog, &relation, &key),
        };
        if let Some(outcome) = self.exists_already(&name, create.if_not_exists, "CREATE INDEX")? {
            return Ok(outcome);
        }
        if create.unique {
            let unique = match moment.relations.get(&relation.id) {
                Some(Relation::Rows(reader)) => reader.unique_key().map(<[usize]>::to_vec),
                _ => None,
            };
            check_unique(&relation, unique.as_deref(), &key)?;
        }
        let copies = key.iter().chain(&include).filter_map(|idx| relation.columns.get(*idx));
        let copies = copies.map(|column| ColumnDef::new(&column.name, column.sql_type.clone())).collect();
        let def = IndexDef { relation: relation.id, key: key.clone(), include, unique: create.unique };
        let (sql, id) = (text.to_string(), relation.id);
        let (object, ready) = self
            .shared()
            .call(move |core| {
                let object =
                    core.create(|id| Object::new(id, name, sql, copies, Kind::Index(def)), CreatedWith::default())?;
                Ok::<_, SqlError>((object, core.when_indexed(id, &key)))
            })
            .await??;
        // A client that goes away before it is built has no index.
        let mut unbuilt = Unbuilt { shared: self.shared().clone(), index: Some(object.id) };
        ready.await.map_err(|_| SqlError::new(SqlState::UndefinedTable, "the relation has been dropped"))?;
        unbuilt.index = None;
        Ok(Outcome::command("CREATE INDEX"))
    }

    /// What is said of a name that DROP INDEX does not find: a primary key's index goes with its table only.
    pub(super) fn no_index(catalog: &Catalog, schema: &str, name: &str) -> SqlError {
        let table = name.strip_suffix("_pkey").and_then(|table| catalog.get(&Name::new(schema, table)));
        match table {
            Some(object) if matches!(&object.def, Kind::Table(def) if !def.primary_key.is_empty()) => {
                let table = &object.name;
                SqlError::new(
                    SqlState::DependentObjectsStillExist,
                    format!("cannot drop index {name} because constraint {name} on table {table} requires it"),
                )
                .with_hint("The primary key of a table cannot be dropped.")
            }
            _ => SqlError::new(SqlState::UndefinedObject, format!("index \"{name}\" does not exist")),
        }
    }
}

/// Drops an index whose CREATE was cancelled.
struct Unbuilt {
    shared: Arc<Shared>,
    index: Option<ObjectId>,
}

impl Drop for Unbuilt {
    fn drop(&mut self) {
        if let Some(id) = self.index {
            self.shared.cast(move |core| {
                if let Err(error) = core.drop_objects(&[id]) {
                    tracing::warn!(%error, "an index whose CREATE was cancelled stays");
                }
            });
        }
    }
}

/// Only what keeps rows can be indexed. Errors: `42809`.
fn check_relation(relation: &Object) -> Result<()> {
    let what = match &relation.def {
        Kind::Table(_) | Kind::MaterializedView(_) => return Ok(()),
        Kind::View(_) => "views",
        Kind::Source(_) => "sources",
        Kind::Index(_) => "indexes",
    };
    let message = format!("cannot create index on relation \"{}\"", relation.name.name);
    let error = SqlError::new(SqlState::WrongObjectType, message)
        .with_detail(format!("This operation is not supported for {what}."));
    Err(match relation.def {
        Kind::Index(_) => error,
        _ => error.with_hint("Create a materialized view of it, and the index on that."),
    })
}

/// The columns of these names. Errors: `42703`, `54011`.
fn columns(relation: &Object, names: &[NamedColumn]) -> Result<Vec<usize>> {
    if names.len() > COLUMNS_MAX {
        let message = format!("cannot use more than {COLUMNS_MAX} columns in an index");
        return Err(SqlError::new(SqlState::ProgramLimitExceeded, message));
    }
    let column = |name: &NamedColumn| {
        relation.columns.iter().position(|column| column.name == name.name).ok_or_else(|| {
            let message = format!("column \"{}\" does not exist", name.name);
            let error = SqlError::new(SqlState::UndefinedColumn, message).at(name.position);
            match tidewire_types::closest(&name.name, relation.columns.iter().map(|c| c.name.as_str())) {
                Some(near) => error.with_hint(format!("Perhaps you meant the column \"{near}\".")),
                None => error,
            }
        })
    };
    names.iter().map(column).collect()
}

/// Only types whose equality is that of their bytes. Errors: `42704`, `0A000`.
fn check_type(relation: &Object, idx: usize) -> Result<()> {
    let Some(column) = relation.columns.get(idx) else { return Ok(()) };
    match &column.sql_type {
        SqlType::Json => Err(SqlError::new(
            SqlState::UndefinedObject,
            "data type json has no default operator class for access method \"hash\"",
        )
        .with_hint(
            "You must specify an operator class for the index or define a default operator class for the data type.",
        )),
        SqlType::Interval | SqlType::Jsonb | SqlType::Array(_) | SqlType::Struct(_) | SqlType::Null => {
            Err(SqlError::unsupported(format_args!("an index on a column of type {}", column.sql_type)))
        }
        _ => Ok(()),
    }
}

/// A unique index must be unique anyway: nothing checks it at each write. Errors: `0A000`.
fn check_unique(relation: &Object, unique: Option<&[usize]>, key: &[usize]) -> Result<()> {
    if unique.is_some_and(|unique| unique.iter().all(|idx| key.contains(idx))) {
        return Ok(());
    }
    let error = SqlError::unsupported("a UNIQUE index on columns that are not known to be unique");
    Err(match &relation.def {
        Kind::Table(_) => error
            .with_detail("Writes are checked against the primary key only.")
            .with_hint("Declare the columns as PRIMARY KEY, or create the index without UNIQUE."),
        _ => error
            .with_detail("The view's query does not say that no two rows have the same values there.")
            .with_hint("Create the index without UNIQUE."),
    })
}

/// `t_a_b_idx`, or with a number behind it.
fn free_name(catalog: &Catalog, relation: &Object, key: &[usize]) -> Name {
    let mut parts = vec![relation.name.name.as_str()];
    let mut seen = BTreeSet::new();
    let names = key.iter().filter(|idx| seen.insert(**idx)).filter_map(|idx| relation.columns.get(*idx));
    parts.extend(names.map(|column| column.name.as_str()));
    parts.push("idx");
    let base = parts.join("_");
    let schema = relation.name.schema.as_str();
    let mut name = Name::new(schema, &base);
    for n in 1.. {
        if catalog.get(&name).is_none() {
            break;
        }
        name = Name::new(schema, format!("{base}{n}"));
    }
    name
}
