//! The system tables that tell of relations and their columns.

use super::facts::{Facts, Index, Relation, SUPERUSER, quote_ident, role_oid, schema_oid};
use super::table::{Cell, SystemTable};
use crate::oid;

macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$(Cell::from($cell)),*] };
}

pub static TABLES: &[SystemTable] = &[
    SystemTable {
        schema: "pg_catalog",
        name: "pg_class",
        oid: 1259,
        columns: "oid:i relname relnamespace:i reltype:i reloftype:i relowner:i relam:i relfilenode:i reltablespace:i \
                  relpages:i reltuples:f relallvisible:i reltoastrelid:i relhasindex:b relisshared:b relpersistence \
                  relkind relnatts:i relchecks:i relhasrules:b relhastriggers:b relhassubclass:b relrowsecurity:b \
                  relforcerowsecurity:b relispopulated:b relreplident relispartition:b relrewrite:i relfrozenxid:i \
                  relminmxid:i relacl:a reloptions:a relpartbound tableoid:i",
        rows: |facts, _| {
            let mut rows = vec![];
            for relation in &facts.relations {
                let (name, n_columns) = (relation.name.clone(), relation.columns.len());
                let is_indexed = facts.is_indexed(relation);
                rows.push(class(relation, relation.oid, name, relation.kind, n_columns, is_indexed));
            }
            for (index, relation) in facts.all_indexes() {
                rows.push(class(relation, index.oid, index.name.clone(), 'i', index.column_idxs.len(), false));
            }
            rows
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_attribute",
        oid: 1249,
        columns: "attrelid:i attname atttypid:i attstattarget:i attlen:i attnum:i attndims:i attcacheoff:i atttypmod:i \
                  attbyval:b attalign attstorage attcompression attnotnull:b atthasdef:b atthasmissing:b attidentity \
                  attgenerated attisdropped:b attislocal:b attinhcount:i attcollation:i attacl:a attoptions:a \
                  attfdwoptions:a attmissingval tableoid:i",
        rows: |facts, _| {
            let of_indexes = facts.all_indexes().flat_map(|(index, relation)| index_attributes(index, relation));
            facts.relations.iter().flat_map(attributes).chain(of_indexes).collect()
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_attrdef",
        oid: 2604,
        columns: "oid:i adrelid:i adnum:i adbin",
        rows: |facts, _| {
            let mut rows = vec![];
            for relation in &facts.relations {
                for (number, column, _) in relation.typed_columns() {
                    if let Some(default) = &column.default {
                        rows.push(row![relation.oid, relation.oid, number, default.as_str()]);
                    }
                }
            }
            rows
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_index",
        oid: 2610,
        columns: "indexrelid:i indrelid:i indnatts:i indnkeyatts:i indisunique:b indnullsnotdistinct:b indisprimary:b \
                  indisexclusion:b indimmediate:b indisclustered:b indisvalid:b indcheckxmin:b indisready:b indislive:b \
                  indisreplident:b indkey indcollation indclass indoption indexprs indpred",
        rows: |facts, _| {
            facts
                .all_indexes()
                .map(|(index, relation)| {
                    let numbers: Vec<String> = index.column_idxs.iter().map(|idx| (idx + 1).to_string()).collect();
                    let zeros = vec!["0"; index.n_key].join(" ");
                    row![
                        index.oid,
                        relation.oid,
                        index.column_idxs.len() as i64,
                        index.n_key as i64,
                        index.unique,
                        false,
                        index.primary,
                        false,
                        true,
                        false,
                        true,
                        false,
                        true,
                        true,
                        false,
                        numbers.join(" "),
                        zeros.as_str(),
                        zeros.as_str(),
                        zeros.as_str(),
                        None::<&str>,
                        None::<&str>
                    ]
                })
                .collect()
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_constraint",
        oid: 2606,
        columns: "oid:i conname connamespace:i contype condeferrable:b condeferred:b convalidated:b conrelid:i contypid:i \
                  conindid:i conparentid:i confrelid:i confupdtype confdeltype confmatchtype conislocal:b coninhcount:i \
                  connoinherit:b conkey:a confkey:a conpfeqop:a conppeqop:a conffeqop:a confdelsetcols:a conexclop:a \
                  conbin",
        rows: |facts, _| {
            let mut rows = vec![];
            for relation in &facts.relations {
                if relation.has_key() {
                    let (oid, name, index) = (relation.constraint_oid(), relation.key_name(), relation.index_oid());
                    rows.push(constraint(relation, oid, &name, 'p', index, &relation.primary_key, None));
                }
                for (oid, check) in relation.checks() {
                    let columns = relation.check_columns(check);
                    rows.push(constraint(relation, oid, &check.name, 'c', 0, &columns, Some(&check.condition)));
                }
            }
            rows
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_tables",
        oid: 12_000,
        columns: "schemaname tablename tableowner tablespace hasindexes:b hasrules:b hastriggers:b rowsecurity:b",
        rows: |facts, _| {
            of_kind(facts, 'r')
                .map(|r| {
                    let (schema, name, owner) = (r.schema.as_str(), r.name.as_str(), r.owner.as_str());
                    row![schema, name, owner, None::<&str>, facts.is_indexed(r), false, false, false]
                })
                .collect()
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_views",
        oid: 12_001,
        columns: "schemaname viewname viewowner definition",
        rows: |facts, _| {
            let views = of_kind(facts, 'v');
            views.map(|r| row![r.schema.as_str(), r.name.as_str(), r.owner.as_str(), r.query.clone()]).collect()
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_matviews",
        oid: 12_002,
        columns: "schemaname matviewname matviewowner tablespace hasindexes:b ispopulated:b definition",
        rows: |facts, _| {
            of_kind(facts, 'm')
                .map(|r| {
                    let (schema, name, owner) = (r.schema.as_str(), r.name.as_str(), r.owner.as_str());
                    row![schema, name, owner, None::<&str>, facts.is_indexed(r), true, r.query.clone()]
                })
                .collect()
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_indexes",
        oid: 12_003,
        columns: "schemaname tablename indexname tablespace indexdef",
        rows: |facts, _| {
            facts
                .all_indexes()
                .map(|(index, r)| {
                    let (schema, table, name) = (r.schema.as_str(), r.name.as_str(), index.name.as_str());
                    row![schema, table, name, None::<&str>, index_definition(index, r)]
                })
                .collect()
        },
    },
];

fn of_kind(facts: &Facts, kind: char) -> impl Iterator<Item = &Relation> {
    facts.relations.iter().filter(move |relation| relation.kind == kind)
}

fn class(relation: &Relation, oid: u32, name: String, kind: char, n_columns: usize, is_indexed: bool) -> Vec<Cell> {
    // Only an index has an access method: tables have none that a user could choose.
    let access_method = if kind == 'i' { super::fixed::HASH_METHOD } else { 0 };
    let mut row = row![
        oid,
        name,
        schema_oid(&relation.schema),
        0i64,
        0i64,
        role_oid(&relation.owner),
        access_method,
        oid,
        0i64,
        0i64,
        -1i64,
        0i64,
        0i64,
        is_indexed,
        false,
        'p',
        kind,
        n_columns as i64,
        if kind == 'r' { relation.checks.len() as i64 } else { 0 },
        false,
        false,
        false,
        false,
        false,
        true,
        'd',
        false,
        0i64,
        0i64,
        0i64
    ];
    row.extend([Cell::Null, Cell::Null, Cell::Null, Cell::from(1259u32)]);
    row
}

fn constraint(
    relation: &Relation,
    oid: u32,
    name: &str,
    kind: char,
    index_oid: u32,
    columns: &[usize],
    condition: Option<&str>,
) -> Vec<Cell> {
    let mut row = row![
        oid,
        name,
        schema_oid(&relation.schema),
        kind,
        false,
        false,
        true,
        relation.oid,
        0i64,
        index_oid,
        0i64,
        0i64,
        ' ',
        ' ',
        ' ',
        true,
        0i64,
        kind == 'p'
    ];
    row.push(Cell::List(columns.iter().map(|idx| (idx + 1).to_string()).collect()));
    row.extend(std::iter::repeat_n(Cell::Null, 6));
    row.push(Cell::from(condition));
    row
}

fn attributes(relation: &Relation) -> Vec<Vec<Cell>> {
    relation
        .typed_columns()
        .map(|(number, column, type_oid)| {
            attribute(relation.oid, number, column, type_oid, column.not_null, column.default.is_some())
        })
        .collect()
}

fn index_attributes(index: &Index, relation: &Relation) -> Vec<Vec<Cell>> {
    let typed: Vec<_> = relation.typed_columns().collect();
    let columns = index.column_idxs.iter().filter_map(|idx| typed.get(*idx));
    (1..).zip(columns).map(|(n, (_, column, oid))| attribute(index.oid, n, column, *oid, false, false)).collect()
}

fn attribute(
    relation_oid: u32,
    number: u32,
    column: &tidewire_catalog::ColumnDef,
    type_oid: u32,
    not_null: bool,
    has_default: bool,
) -> Vec<Cell> {
    let sql_type = &column.sql_type;
    let size = i64::from(oid::size(sql_type));
    let is_array = matches!(sql_type, tidewire_types::SqlType::Array(_));
    let is_text = matches!(oid::oid(sql_type), 25 | 1042 | 1043);
    let mut row = row![
        relation_oid,
        column.name.as_str(),
        type_oid,
        -1i64,
        size,
        number,
        i64::from(is_array),
        -1i64,
        i64::from(oid::modifier(sql_type)),
        (1..=8).contains(&size),
        if size == 8 { 'd' } else { 'i' },
        if size > 0 { 'p' } else { 'x' },
        "",
        not_null,
        has_default,
        false,
        "",
        "",
        false,
        true,
        0i64,
        if is_text { 100i64 } else { 0 }
    ];
    row.extend([Cell::Null, Cell::Null, Cell::Null, Cell::Null, Cell::from(1249u32)]);
    row
}

/// An index as a statement. All of them are hash indexes, whatever USING said.
pub fn index_definition(index: &Index, relation: &Relation) -> String {
    let (key, include) = index.column_idxs.split_at(index.n_key.min(index.column_idxs.len()));
    let names = |idxs: &[usize]| {
        let columns = idxs.iter().filter_map(|idx| relation.columns.get(*idx));
        columns.map(|column| quote_ident(&column.name)).collect::<Vec<_>>().join(", ")
    };
    let include = match include {
        [] => String::new(),
        columns => format!(" INCLUDE ({})", names(columns)),
    };
    format!(
        "CREATE {}INDEX {} ON {}.{} USING hash ({}){include}",
        if index.unique { "UNIQUE " } else { "" },
        quote_ident(&index.name),
        quote_ident(&relation.schema),
        quote_ident(&relation.name),
        names(key)
    )
}

/// The columns of a primary key, with commas.
pub fn key_list(relation: &Relation) -> String {
    let names: Vec<String> = relation.key_columns().map(|c| quote_ident(&c.name)).collect();
    names.join(", ")
}

/// Whether a role may do anything: the owner of the system.
pub fn is_superuser(name: &str, user: &str) -> bool {
    // Without passwords every user from loopback is as good as the owner.
    name == SUPERUSER || name == user
}
