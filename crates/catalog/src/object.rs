//! Catalog objects: sources, tables, views, materialized views, indexes.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use tidewire_types::{ObjectId, SqlType};

/// A qualified name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The schema.
    pub schema: String,
    /// The name within it.
    pub name: String,
}

impl Name {
    /// A name in a schema.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Name {
        Name { schema: schema.into(), name: name.into() }
    }
}

/// As a message quotes it: without the schema where that is `public`.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.schema.as_str() {
            crate::PUBLIC => f.write_str(&self.name),
            schema => write!(f, "{schema}.{}", self.name),
        }
    }
}

/// A column of any object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDef {
    /// Its name.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// The default expression as SQL text.
    pub default: Option<String>,
}

impl ColumnDef {
    /// A nullable column without default.
    pub fn new(name: impl Into<String>, sql_type: SqlType) -> ColumnDef {
        ColumnDef { name: name.into(), sql_type, not_null: false, default: None }
    }
}

/// One object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its OID.
    pub id: ObjectId,
    /// Its name.
    pub name: Name,
    /// Who made it.
    pub owner: String,
    /// The CREATE statement as the user wrote it.
    pub sql: String,
    /// Its columns.
    pub columns: Vec<ColumnDef>,
    /// The columns as an Arrow schema, with the metadata of [`SqlType`].
    pub schema: SchemaRef,
    /// What kind of object, with what only that kind has.
    pub def: Kind,
}

/// Kinds of objects.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Append-only input, not stored.
    Source(SourceDef),
    /// Stored, changed by DML.
    Table(TableDef),
    /// A query with a name.
    View(ViewDef),
    /// A query whose result is kept.
    MaterializedView(ViewDef),
    /// Finds rows of a table or materialized view. Its columns are copies of those.
    Index(IndexDef),
}

/// What only a source has.
#[derive(Clone, Debug)]
pub struct SourceDef {
    /// The name of the connector.
    pub connector: String,
    /// Whether the user called it a STREAM (they see their own word).
    pub stream: bool,
}

/// What only a table has.
#[derive(Clone, Debug)]
pub struct TableDef {
    /// Columns of the primary key, in its order; empty: none.
    pub primary_key: Vec<usize>,
    /// CHECK constraints, in the order of their names.
    pub checks: Vec<CheckDef>,
}

/// A CHECK constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckDef {
    /// Its name.
    pub name: String,
    /// The condition as SQL text: a row is refused where it is false.
    pub condition: String,
}

/// What only views have.
#[derive(Clone, Debug)]
pub struct ViewDef {
    /// The query, as SQL text.
    pub query: String,
    /// What it directly stands on.
    pub depends_on: Vec<ObjectId>,
}

/// What only an index has.
#[derive(Clone, Debug)]
pub struct IndexDef {
    /// The table or materialized view whose rows it finds.
    pub relation: ObjectId,
    /// The columns of its key, in order.
    pub key: Vec<usize>,
    /// Columns that come with it.
    pub include: Vec<usize>,
    /// No two rows have the same key.
    pub unique: bool,
}

impl Object {
    /// An object; the schema derives from the columns.
    pub fn new(id: ObjectId, name: Name, sql: String, columns: Vec<ColumnDef>, def: Kind) -> Object {
        let fields: Vec<_> = columns.iter().map(|c| c.sql_type.field(&c.name, !c.not_null)).collect();
        Object { id, name, owner: "tidewire".into(), sql, columns, schema: Arc::new(Schema::new(fields)), def }
    }

    /// The CHECK constraints of its rows.
    pub fn checks(&self) -> &[CheckDef] {
        match &self.def {
            Kind::Table(table) => &table.checks,
            Kind::Source(_) | Kind::View(_) | Kind::MaterializedView(_) | Kind::Index(_) => &[],
        }
    }

    /// The kind, as messages name it.
    pub fn kind(&self) -> &'static str {
        match &self.def {
            Kind::Source(SourceDef { stream: true, .. }) => "stream",
            Kind::Source(_) => "source",
            Kind::Table(_) => "table",
            Kind::View(_) => "view",
            Kind::MaterializedView(_) => "materialized view",
            Kind::Index(_) => "index",
        }
    }

    /// What it directly stands on.
    pub fn depends_on(&self) -> &[ObjectId] {
        match &self.def {
            Kind::View(v) | Kind::MaterializedView(v) => &v.depends_on,
            Kind::Index(index) => std::slice::from_ref(&index.relation),
            Kind::Source(_) | Kind::Table(_) => &[],
        }
    }
}
