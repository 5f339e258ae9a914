//! What all system tables are made of: relations, roles, derived OIDs.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewire_catalog::{Catalog, CheckDef, ColumnDef, Kind, Object, PUBLIC, SYSTEM};
use tidewire_engine::SystemContext;
use tidewire_types::SqlType;

use crate::oid;

/// Schemas and their OIDs.
pub const SCHEMAS: &[(&str, u32)] =
    &[("pg_catalog", 11), (PUBLIC, 2200), ("information_schema", 13_000), (SYSTEM, 13_001)];

/// The role that owns what the system made.
pub const SUPERUSER: &str = "tidewire";
/// Its OID.
const SUPERUSER_OID: u32 = 10;
/// The OID of the one database.
pub const DATABASE_OID: u32 = 16_383;

/// Derived OIDs: ranges far above those that objects are given.
const INDEXES: u32 = 3_000_000_000;
const CONSTRAINTS: u32 = 3_250_000_000;
const STRUCTS: u32 = 1_000_000_000;
const STRUCT_ARRAYS: u32 = 2_000_000_000;
const ROLES: u32 = 3_500_000_000;
const FUNCTIONS: u32 = 3_750_000_000;
const CHECKS: u32 = 4_000_000_000;
const RANGE: u32 = 250_000_000;

/// The catalog of one moment as one user sees it.
#[derive(Debug)]
pub struct Facts {
    catalog: Arc<Catalog>,
    user: String,
    /// The database.
    pub database: String,
    /// All relations but indexes, by OID; system tables come first.
    pub relations: Vec<Relation>,
    /// All indexes: of primary keys, and those that were created.
    pub indexes: Vec<Index>,
    /// Names of roles by OID.
    pub roles: BTreeMap<u32, String>,
}

/// An index.
#[derive(Debug)]
pub struct Index {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// The OID of whose rows it finds.
    pub relation_oid: u32,
    /// Indices of its columns, those of the key first.
    pub column_idxs: Vec<usize>,
    /// How many of them are the key.
    pub n_key: usize,
    /// No two rows have the same key.
    pub unique: bool,
    /// It is the primary key's.
    pub primary: bool,
}

impl Index {
    fn all(catalog: &Catalog, relations: &[Relation]) -> Vec<Index> {
        let keyed = relations.iter().filter(|relation| relation.has_key());
        let mut indexes: Vec<Index> = keyed
            .map(|relation| Index {
                oid: relation.index_oid(),
                name: relation.key_name(),
                relation_oid: relation.oid,
                column_idxs: relation.primary_key.clone(),
                n_key: relation.primary_key.len(),
                unique: true,
                primary: true,
            })
            .collect();
        indexes.extend(catalog.objects().filter_map(|object| match &object.def {
            Kind::Index(def) => Some(Index {
                oid: object.id.0,
                name: object.name.name.clone(),
                relation_oid: def.relation.0,
                column_idxs: def.key.iter().chain(&def.include).copied().collect(),
                n_key: def.key.len(),
                unique: def.unique,
                primary: false,
            }),
            _ => None,
        }));
        indexes
    }
}

/// A row of `pg_class`.
#[derive(Debug)]
pub struct Relation {
    /// Its OID.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `r` table or source, `v` view, `m` materialized view.
    pub kind: char,
    /// Who made it.
    pub owner: String,
    /// Its columns.
    pub columns: Vec<ColumnDef>,
    /// Columns of the primary key.
    pub primary_key: Vec<usize>,
    /// CHECK constraints.
    pub checks: Vec<CheckDef>,
    /// The query of a view.
    pub query: Option<String>,
}

impl Facts {
    /// Gathers what a moment's tables need.
    pub fn new(cx: &SystemContext) -> Facts {
        let mut relations: Vec<Relation> = super::tables().map(Relation::of_system).collect();
        relations.extend(cx.catalog.objects().filter_map(|object| Relation::of_object(object)));
        let indexes = Index::all(&cx.catalog, &relations);
        let mut roles = BTreeMap::from([(SUPERUSER_OID, SUPERUSER.to_owned())]);
        for name in relations.iter().map(|r| r.owner.as_str()).chain([cx.user.as_str()]) {
            roles.insert(role_oid(name), name.to_owned());
        }
        Facts {
            catalog: cx.catalog.clone(),
            user: cx.user.clone(),
            database: cx.database.clone(),
            relations,
            indexes,
            roles,
        }
    }

    /// Whether these are the facts of that context.
    pub fn is_of(&self, cx: &SystemContext) -> bool {
        Arc::ptr_eq(&self.catalog, &cx.catalog) && self.user == cx.user && self.database == cx.database
    }

    /// The relation of an OID.
    pub fn relation(&self, oid: i64) -> Option<&Relation> {
        self.relations.iter().find(|relation| i64::from(relation.oid) == oid)
    }

    /// The relation of a name as users write it: folded unless quoted; without a schema, public or a system one.
    pub fn relation_named(&self, text: &str) -> Option<&Relation> {
        let parts = split_name(text)?;
        match parts.as_slice() {
            [name] => [PUBLIC, "pg_catalog"].into_iter().find_map(|schema| self.find(schema, name)),
            [schema, name] => self.find(schema, name),
            [database, schema, name] if *database == self.database => self.find(schema, name),
            _ => None,
        }
    }

    /// The OID of the relation or the index that a `regclass` names.
    pub fn class_named(&self, text: &str) -> Option<u32> {
        if let Some(relation) = self.relation_named(text) {
            return Some(relation.oid);
        }
        let mut parts = split_name(text)?;
        let name = parts.pop()?;
        let is_named = |index: &&Index| {
            let schema = || self.relation(i64::from(index.relation_oid)).map(|relation| relation.schema.as_str());
            let is_there = match parts.as_slice() {
                [] => true,
                [wanted] => schema() == Some(wanted.as_str()),
                [database, wanted] => *database == self.database && schema() == Some(wanted.as_str()),
                _ => false,
            };
            is_there && index.name == name
        };
        self.indexes.iter().find(is_named).map(|index| index.oid)
    }

    fn find(&self, schema: &str, name: &str) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.schema == schema && relation.name == name)
    }

    /// The relation whose key's index or constraint has that OID.
    pub fn relation_of_key(&self, oid: i64) -> Option<&Relation> {
        self.relations.iter().find(|relation| {
            relation.has_key() && [relation.index_oid(), relation.constraint_oid()].map(i64::from).contains(&oid)
        })
    }

    /// The CHECK constraint of that OID.
    pub fn check(&self, oid: i64) -> Option<&CheckDef> {
        let checks = self.relations.iter().flat_map(Relation::checks);
        checks.filter(|(check_oid, _)| i64::from(*check_oid) == oid).map(|(_, check)| check).next()
    }

    /// The index of an OID, and the relation whose rows it finds.
    pub fn index(&self, oid: i64) -> Option<(&Index, &Relation)> {
        let index = self.indexes.iter().find(|index| i64::from(index.oid) == oid)?;
        Some((index, self.relation(i64::from(index.relation_oid))?))
    }

    /// All indexes, each with its relation.
    pub fn all_indexes(&self) -> impl Iterator<Item = (&Index, &Relation)> {
        self.indexes.iter().filter_map(|index| Some((index, self.relation(i64::from(index.relation_oid))?)))
    }

    /// Whether a relation has indexes.
    pub fn is_indexed(&self, relation: &Relation) -> bool {
        self.indexes.iter().any(|index| index.relation_oid == relation.oid)
    }

    /// The name of a type with its modifier; None where there is none of that OID.
    pub fn format_type(&self, oid: i64, modifier: i64) -> Option<String> {
        let oid = u32::try_from(oid).ok()?;
        let modifier = i32::try_from(modifier).unwrap_or(-1);
        oid::format_type(oid, modifier).or_else(|| {
            let columns = self.relations.iter().flat_map(|relation| relation.typed_columns());
            columns.filter(|(_, _, type_oid)| *type_oid == oid).map(|(_, column, _)| column.sql_type.to_string()).next()
        })
    }

    /// The session's user.
    pub fn user(&self) -> &str {
        &self.user
    }
}

impl Relation {
    fn of_system(table: &'static super::SystemTable) -> Relation {
        Relation {
            oid: table.oid,
            schema: table.schema.to_owned(),
            name: table.name.to_owned(),
            kind: if table.schema == "information_schema" { 'v' } else { 'r' },
            owner: SUPERUSER.to_owned(),
            columns: table.column_types().map(|(name, t)| ColumnDef::new(name, t)).collect(),
            primary_key: vec![],
            checks: vec![],
            query: None,
        }
    }

    fn of_object(object: &Object) -> Option<Relation> {
        let (kind, primary_key, query) = match &object.def {
            Kind::Source(_) => ('r', vec![], None),
            Kind::Table(table) => ('r', table.primary_key.clone(), None),
            Kind::View(view) => ('v', vec![], Some(view.query.clone())),
            Kind::MaterializedView(view) => ('m', vec![], Some(view.query.clone())),
            Kind::Index(_) => return None,
        };
        Some(Relation {
            oid: object.id.0,
            schema: object.name.schema.clone(),
            name: object.name.name.clone(),
            kind,
            owner: object.owner.clone(),
            columns: object.columns.clone(),
            primary_key,
            checks: object.checks().to_vec(),
            query,
        })
    }

    /// Whether it came from a user.
    pub fn is_user(&self) -> bool {
        self.oid >= tidewire_catalog::FIRST_USER_OID
    }

    /// Whether it has a primary key.
    pub fn has_key(&self) -> bool {
        !self.primary_key.is_empty()
    }

    /// The OID of its key's index.
    pub fn index_oid(&self) -> u32 {
        INDEXES + self.oid % RANGE
    }

    /// The OID of its key's constraint.
    pub fn constraint_oid(&self) -> u32 {
        CONSTRAINTS + self.oid % RANGE
    }

    /// The name of its key's index and constraint, as PostgreSQL makes it.
    pub fn key_name(&self) -> String {
        format!("{}_pkey", self.name)
    }

    /// Its CHECK constraints with their OIDs.
    pub fn checks(&self) -> impl Iterator<Item = (u32, &CheckDef)> {
        let first = self.oid.wrapping_mul(100) % RANGE;
        (0u32..).zip(&self.checks).map(move |(n, check)| (CHECKS + (first + n) % RANGE, check))
    }

    /// Indices of the columns that a CHECK constraint reads.
    pub fn check_columns(&self, check: &CheckDef) -> Vec<usize> {
        let condition = tidewire_sql::parse_expr(&check.condition);
        let read = condition.map(|condition| tidewire_sql::column_names(&condition)).unwrap_or_default();
        (0..self.columns.len()).filter(|idx| self.columns.get(*idx).is_some_and(|c| read.contains(&c.name))).collect()
    }

    /// The columns of its key.
    pub fn key_columns(&self) -> impl Iterator<Item = &ColumnDef> {
        self.primary_key.iter().filter_map(|idx| self.columns.get(*idx))
    }

    /// Its columns with their numbers (from 1) and the OIDs of their types.
    pub fn typed_columns(&self) -> impl Iterator<Item = (u32, &ColumnDef, u32)> {
        (1..).zip(&self.columns).map(|(number, column)| (number, column, self.type_oid(number, &column.sql_type)))
    }

    /// Every struct column has a type of its own, as a table's row type is in PostgreSQL.
    fn type_oid(&self, number: u32, sql_type: &SqlType) -> u32 {
        let own = (self.oid % 1_000_000) * 1000 + number % 1000;
        match sql_type {
            SqlType::Struct(_) => STRUCTS + own,
            SqlType::Array(element) if matches!(**element, SqlType::Struct(_)) => STRUCT_ARRAYS + own,
            other => oid::oid(other),
        }
    }
}

/// The OID of a schema; 0 for one that is not there.
pub fn schema_oid(name: &str) -> u32 {
    SCHEMAS.iter().find(|(schema, _)| *schema == name).map_or(0, |(_, oid)| *oid)
}

/// The OID of a role.
pub fn role_oid(name: &str) -> u32 {
    if name == SUPERUSER { SUPERUSER_OID } else { ROLES + fingerprint(name) % RANGE }
}

/// The OID of a function.
pub fn function_oid(name: &str) -> u32 {
    FUNCTIONS + fingerprint(name) % RANGE
}

/// FNV-1a: the same in every run.
fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// `a."B c".d` in its parts, folded.
fn split_name(text: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = text.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                chars.next();
                parts.last_mut()?.push('"');
            }
            '"' => is_quoted = !is_quoted,
            '.' if !is_quoted => parts.push(String::new()),
            c if is_quoted => parts.last_mut()?.push(c),
            c => parts.last_mut()?.extend(c.to_lowercase()),
        }
    }
    (!is_quoted).then_some(parts)
}

/// A name in quotes where it needs them.
pub fn quote_ident(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

impl Relation {
    /// Its name as `regclass` shows it: with the schema where the search path does not find it.
    pub fn shown_name(&self) -> String {
        match self.schema.as_str() {
            PUBLIC | "pg_catalog" => quote_ident(&self.name),
            schema => format!("{}.{}", quote_ident(schema), quote_ident(&self.name)),
        }
    }
}
