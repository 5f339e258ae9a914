//! `information_schema`: what the SQL standard says of tables and columns.

use tidewire_catalog::CheckDef;
use tidewire_types::SqlType;

use super::facts::{Facts, Relation, SCHEMAS, SUPERUSER};
use super::table::{Cell, SystemTable};
use crate::oid;

macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$(Cell::from($cell)),*] };
}

const SCHEMA: &str = "information_schema";

pub static TABLES: &[SystemTable] = &[
    SystemTable {
        schema: SCHEMA,
        name: "tables",
        oid: 13_100,
        columns: "table_catalog table_schema table_name table_type self_referencing_column_name reference_generation \
                  user_defined_type_catalog user_defined_type_schema user_defined_type_name is_insertable_into is_typed \
                  commit_action",
        rows: |facts, _| {
            let none = None::<&str>;
            let row = |r: &Relation| {
                let (catalog, schema) = (facts.database.as_str(), r.schema.as_str());
                let kind = table_type(r);
                let insertable = if kind == "BASE TABLE" { "YES" } else { "NO" };
                row![catalog, schema, r.name.as_str(), kind, none, none, none, none, none, insertable, "NO", none]
            };
            facts.relations.iter().map(row).collect()
        },
    },
    SystemTable {
        schema: SCHEMA,
        name: "columns",
        oid: 13_101,
        columns: "table_catalog table_schema table_name column_name ordinal_position:i column_default is_nullable \
                  data_type character_maximum_length:i character_octet_length:i numeric_precision:i \
                  numeric_precision_radix:i numeric_scale:i datetime_precision:i interval_type udt_catalog udt_schema \
                  udt_name is_identity is_generated is_updatable",
        rows: |facts, _| facts.relations.iter().flat_map(|relation| columns(facts, relation)).collect(),
    },
    SystemTable {
        schema: SCHEMA,
        name: "schemata",
        oid: 13_102,
        columns: "catalog_name schema_name schema_owner default_character_set_catalog default_character_set_schema \
                  default_character_set_name sql_path",
        rows: |facts, _| {
            let none = None::<&str>;
            let row = |name: &str| row![facts.database.as_str(), name, SUPERUSER, none, none, none, none];
            SCHEMAS.iter().map(|(name, _)| row(name)).collect()
        },
    },
    SystemTable {
        schema: SCHEMA,
        name: "views",
        oid: 13_103,
        columns: "table_catalog table_schema table_name view_definition check_option is_updatable is_insertable_into",
        rows: |facts, _| {
            let views = facts.relations.iter().filter(|r| r.kind == 'v');
            views
                .map(|r| {
                    let (catalog, schema, name) = (facts.database.as_str(), r.schema.as_str(), r.name.as_str());
                    row![catalog, schema, name, r.query.clone(), "NONE", "NO", "NO"]
                })
                .collect()
        },
    },
    SystemTable {
        schema: SCHEMA,
        name: "table_constraints",
        oid: 13_104,
        columns: "constraint_catalog constraint_schema constraint_name table_catalog table_schema table_name \
                  constraint_type is_deferrable initially_deferred enforced",
        rows: |facts, _| {
            let catalog = facts.database.as_str();
            let mut rows = vec![];
            for r in &facts.relations {
                let (schema, table) = (r.schema.as_str(), r.name.as_str());
                let mut add = |name: &str, kind| {
                    rows.push(row![catalog, schema, name, catalog, schema, table, kind, "NO", "NO", "YES"]);
                };
                if r.has_key() {
                    add(&r.key_name(), "PRIMARY KEY");
                }
                r.checks.iter().for_each(|check| add(&check.name, "CHECK"));
            }
            rows
        },
    },
    SystemTable {
        schema: SCHEMA,
        name: "check_constraints",
        oid: 13_109,
        columns: "constraint_catalog constraint_schema constraint_name check_clause",
        rows: |facts, _| {
            let checks = facts.relations.iter().flat_map(|r| r.checks.iter().map(move |check| (r, check)));
            let row = |(r, check): (&Relation, &CheckDef)| {
                let (catalog, schema) = (facts.database.as_str(), r.schema.as_str());
                row![catalog, schema, check.name.as_str(), format!("(({}))", check.condition)]
            };
            checks.map(row).collect()
        },
    },
    SystemTable {
        schema: SCHEMA,
        name: "key_column_usage",
        oid: 13_105,
        columns: "constraint_catalog constraint_schema constraint_name table_catalog table_schema table_name column_name \
                  ordinal_position:i position_in_unique_constraint:i",
        rows: |facts, _| {
            let catalog = facts.database.as_str();
            let mut rows = vec![];
            for r in facts.relations.iter().filter(|r| r.has_key()) {
                let schema = r.schema.as_str();
                for (position, column) in (1i64..).zip(r.key_columns()) {
                    let (table, column) = (r.name.as_str(), column.name.as_str());
                    let none = None::<i64>;
                    rows.push(row![catalog, schema, r.key_name(), catalog, schema, table, column, position, none]);
                }
            }
            rows
        },
    },
    SystemTable {
        schema: SCHEMA,
        name: "referential_constraints",
        oid: 13_106,
        columns: "constraint_catalog constraint_schema constraint_name unique_constraint_catalog \
                  unique_constraint_schema unique_constraint_name match_option update_rule delete_rule",
        rows: |_, _| vec![],
    },
    SystemTable {
        schema: SCHEMA,
        name: "routines",
        oid: 13_107,
        columns: "specific_catalog specific_schema specific_name routine_catalog routine_schema routine_name \
                  routine_type data_type routine_definition external_language",
        rows: |_, _| vec![],
    },
    SystemTable {
        schema: SCHEMA,
        name: "constraint_column_usage",
        oid: 13_108,
        columns: "table_catalog table_schema table_name column_name constraint_catalog constraint_schema constraint_name",
        rows: |facts, _| {
            let catalog = facts.database.as_str();
            let mut rows = vec![];
            for r in &facts.relations {
                let (schema, table) = (r.schema.as_str(), r.name.as_str());
                let mut add = |column: &str, constraint: &str| {
                    rows.push(row![catalog, schema, table, column, catalog, schema, constraint]);
                };
                r.key_columns().for_each(|column| add(&column.name, &r.key_name()));
                for check in &r.checks {
                    let columns = r.check_columns(check).into_iter().filter_map(|idx| r.columns.get(idx));
                    columns.for_each(|column| add(&column.name, &check.name));
                }
            }
            rows
        },
    },
];

fn table_type(relation: &Relation) -> &'static str {
    match relation.kind {
        'v' => "VIEW",
        'm' => "MATERIALIZED VIEW",
        _ => "BASE TABLE",
    }
}

fn columns(facts: &Facts, relation: &Relation) -> Vec<Vec<Cell>> {
    let catalog = facts.database.as_str();
    relation
        .typed_columns()
        .map(|(number, column, _)| {
            let sql_type = &column.sql_type;
            let length = match sql_type {
                SqlType::Varchar(n) => n.map(i64::from),
                SqlType::Char(n) => Some(i64::from(*n)),
                _ => None,
            };
            let (precision, radix, scale) = number_shape(sql_type);
            let is_time =
                matches!(sql_type, SqlType::Time | SqlType::Timestamp | SqlType::Timestamptz | SqlType::Interval);
            let internal = oid::TYPES.iter().find_map(|t| match oid::oid(sql_type) {
                oid if oid == t.oid => Some(t.name.to_owned()),
                oid if oid == t.array_oid => Some(format!("_{}", t.name)),
                _ => None,
            });
            row![
                catalog,
                relation.schema.as_str(),
                relation.name.as_str(),
                column.name.as_str(),
                number,
                column.default.clone(),
                if column.not_null { "NO" } else { "YES" },
                standard_name(sql_type),
                length,
                None::<i64>,
                precision,
                radix,
                scale,
                is_time.then_some(6i64),
                None::<&str>,
                catalog,
                "pg_catalog",
                internal,
                "NO",
                "NEVER",
                if relation.kind == 'r' { "YES" } else { "NO" }
            ]
        })
        .collect()
}

fn number_shape(sql_type: &SqlType) -> (Option<i64>, Option<i64>, Option<i64>) {
    match sql_type {
        SqlType::Int2 => (Some(16), Some(2), Some(0)),
        SqlType::Int4 => (Some(32), Some(2), Some(0)),
        SqlType::Int8 => (Some(64), Some(2), Some(0)),
        SqlType::Float4 => (Some(24), Some(2), None),
        SqlType::Float8 => (Some(53), Some(2), None),
        SqlType::Numeric(Some((precision, scale))) => (Some(i64::from(*precision)), Some(10), Some(i64::from(*scale))),
        SqlType::Numeric(None) => (None, Some(10), None),
        _ => (None, None, None),
    }
}

/// The type's name without modifier; arrays and structs are what the standard calls them.
fn standard_name(sql_type: &SqlType) -> String {
    match sql_type {
        SqlType::Array(_) => "ARRAY".to_owned(),
        SqlType::Struct(_) => "USER-DEFINED".to_owned(),
        SqlType::Numeric(_) => "numeric".to_owned(),
        SqlType::Varchar(_) => "character varying".to_owned(),
        SqlType::Char(_) => "character".to_owned(),
        other => other.to_string(),
    }
}
