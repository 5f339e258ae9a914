//! INSERT, UPDATE and DELETE: which rows, and what becomes of them.
//!
//! A planned statement is plain data. Its `rows` is a query like any other ([`crate::execute`]), or a list of values; the
//! engine applies what that gives. Invariant: values have the column's type when they leave the query, by PostgreSQL's rules for
//! assignment; NOT NULL and keys are the engine's to check.

mod assignments;
mod change;
mod conflict;
mod insert;
mod literals;
mod returning;
mod row_exprs;
mod values;

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use sqlparser::ast;
use tidewire_catalog::{Kind, Object};
use tidewire_sql::fold;
use tidewire_types::{Result, SqlError, SqlState, SqlType};

pub(crate) use self::change::{all_of, select, taken};
pub use self::conflict::{BoundUpdate, ConflictUpdate};
pub use self::returning::Returning;
pub(crate) use self::returning::relation;
pub use self::row_exprs::{Defaults, RowExprs};
pub use self::values::ValueRows;
use crate::errors::position_of;
use crate::provider::Found;
use crate::query::{Context, Planned};

/// `INSERT`.
#[derive(Clone, Debug)]
pub struct Insert {
    /// The table.
    pub table: Arc<Object>,
    /// The rows to insert: all columns of the table, in its order (nullable, whatever the table says).
    pub rows: InsertRows,
    /// What to do about rows whose key is taken.
    pub on_conflict: OnConflict,
    /// `RETURNING`, over the rows that were written.
    pub returning: Option<Returning>,
    /// The types of the whole statement's parameters.
    pub parameters: Vec<SqlType>,
}

/// Where the rows of an INSERT come from.
#[derive(Clone, Debug)]
pub enum InsertRows {
    /// VALUES
    Values(ValueRows),
    /// A query.
    Query(Planned),
}

impl InsertRows {
    /// The types of the parameters that they have.
    pub fn parameters(&self) -> &[SqlType] {
        match self {
            InsertRows::Values(rows) => rows.parameters(),
            InsertRows::Query(planned) => &planned.parameters,
        }
    }
}

/// What an INSERT does about a row whose primary key is taken.
#[derive(Clone, Debug)]
pub enum OnConflict {
    /// `23505`
    Fail,
    /// `ON CONFLICT DO NOTHING`
    DoNothing,
    /// `ON CONFLICT (key) DO UPDATE SET .. WHERE ..`
    DoUpdate(ConflictUpdate),
}

/// `UPDATE`.
#[derive(Clone, Debug)]
pub struct Update {
    /// The table.
    pub table: Arc<Object>,
    /// The affected rows as they are (all columns of the table), followed by the rows to put in their place (all
    /// columns again).
    pub rows: Planned,
    /// `RETURNING`, over the new rows.
    pub returning: Option<Returning>,
    /// The types of the whole statement's parameters.
    pub parameters: Vec<SqlType>,
}

/// `DELETE`.
#[derive(Clone, Debug)]
pub struct Delete {
    /// The table.
    pub table: Arc<Object>,
    /// The rows to remove, all columns.
    pub rows: Planned,
    /// `RETURNING`, over the removed rows.
    pub returning: Option<Returning>,
    /// The types of the whole statement's parameters.
    pub parameters: Vec<SqlType>,
}

/// The table that a statement changes, and under which name its expressions know it.
struct Target {
    table: Arc<Object>,
    name: ast::ObjectName,
    alias: Option<ast::Ident>,
}

impl Target {
    /// What qualifies the table's columns.
    fn qualifier(&self) -> String {
        self.alias.as_ref().map_or_else(|| self.table.name.name.clone(), fold)
    }

    fn column_idx(&self, name: &str, text: &str) -> Result<usize> {
        self.table.columns.iter().position(|c| c.name == name).ok_or_else(|| {
            let message = format!("column \"{name}\" of relation \"{}\" does not exist", self.table.name.name);
            let error = SqlError::new(SqlState::UndefinedColumn, message);
            let error = match tidewire_types::closest(name, self.table.columns.iter().map(|c| c.name.as_str())) {
                Some(near) => error.with_hint(format!("Perhaps you meant the column \"{near}\".")),
                None => error,
            };
            error.with_position(position_of(text, name, None))
        })
    }

    fn primary_key(&self) -> &[usize] {
        match &self.table.def {
            Kind::Table(def) => &def.primary_key,
            Kind::Source(_) | Kind::View(_) | Kind::MaterializedView(_) | Kind::Index(_) => &[],
        }
    }
}

impl Context<'_> {
    /// Finds the table. `verb`: "insert into", "update", "delete from".
    fn target(&self, name: &ast::ObjectName, alias: Option<ast::Ident>, verb: &str, text: &str) -> Result<Target> {
        let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident().map(fold)).collect();
        let (schema, table) = match parts.as_slice() {
            [table] => (None, table),
            [schema, table] | [_, schema, table] => (Some(schema.as_str()), table),
            _ => return Err(SqlError::new(SqlState::SyntaxError, "improper qualified name")),
        };
        match self.lookup(schema, table) {
            None => Err(self.undefined_table(schema, table).with_position(position_of(text, table, None))),
            Some(Found::System(_)) => {
                let message = format!("cannot {verb} system table \"{table}\"");
                Err(SqlError::new(SqlState::InsufficientPrivilege, message))
            }
            Some(Found::Object(object)) => match object.def {
                Kind::Table(_) => Ok(Target { table: object, name: name.clone(), alias }),
                Kind::Source(_) | Kind::View(_) | Kind::MaterializedView(_) | Kind::Index(_) => {
                    let message = format!("cannot {verb} {} \"{}\"", object.kind(), object.name);
                    let detail = "Only tables can be changed.";
                    Err(SqlError::new(SqlState::WrongObjectType, message).with_detail(detail))
                }
            },
        }
    }
}

/// The table's columns, nullable: NULL in a NOT NULL column is the engine's error to report.
fn row_schema(table: &Object) -> SchemaRef {
    Arc::new(Schema::new(
        table.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
    ))
}

/// What a part of the statement found out about its parameters, and behind them what the client declared for those that
/// only later parts have.
fn merged(known: &[SqlType], declared: &[Option<SqlType>]) -> Vec<Option<SqlType>> {
    let mut all: Vec<_> = known.iter().cloned().map(Some).collect();
    all.extend(declared.iter().skip(known.len()).cloned());
    all
}

/// The types of all parameters, where RETURNING is the last part.
fn closed(open: Vec<Option<SqlType>>, returning: Option<&Returning>) -> Vec<SqlType> {
    match returning {
        Some(returning) => returning.parameters().to_vec(),
        None => open.into_iter().map(|t| t.unwrap_or(SqlType::Text)).collect(),
    }
}

fn unexpected(present: bool, what: &str) -> Result<()> {
    if present { Err(SqlError::unsupported(what)) } else { Ok(()) }
}
