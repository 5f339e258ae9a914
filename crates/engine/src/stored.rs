//! Catalog objects and dead letters, to and from what is kept on disk.

use tidewire_catalog::{CheckDef, ColumnDef, IndexDef, Kind, Name, Object, SourceDef, TableDef, ViewDef};
use tidewire_connect::{Positions, Split};
use tidewire_state::{StoredCheck, StoredColumn, StoredKind, StoredLetter, StoredObject};
use tidewire_types::ObjectId;

use crate::dead_letters::Letter;

/// An object as it is stored; `start` is where a source begins, when its options alone do not say it.
pub fn store(object: &Object, start: Option<&Positions>) -> StoredObject {
    let oids = |ids: &[ObjectId]| ids.iter().map(|id| id.0).collect();
    let kind = match &object.def {
        Kind::Source(def) => StoredKind::Source {
            connector: def.connector.clone(),
            stream: def.stream,
            start: start.map(|start| start.iter().map(|(split, position)| (split.0, *position)).collect()),
        },
        Kind::Table(def) => {
            let check = |c: &CheckDef| StoredCheck { name: c.name.clone(), condition: c.condition.clone() };
            let checks = def.checks.iter().map(check).collect();
            StoredKind::Table { primary_key: def.primary_key.clone(), checks }
        }
        Kind::View(def) => StoredKind::View { query: def.query.clone(), depends_on: oids(&def.depends_on) },
        Kind::MaterializedView(def) => {
            StoredKind::MaterializedView { query: def.query.clone(), depends_on: oids(&def.depends_on) }
        }
        Kind::Index(def) => StoredKind::Index {
            relation: def.relation.0,
            key: def.key.clone(),
            include: def.include.clone(),
            unique: def.unique,
        },
    };
    let column = |column: &ColumnDef| StoredColumn {
        name: column.name.clone(),
        sql_type: column.sql_type.clone(),
        not_null: column.not_null,
        default: column.default.clone(),
    };
    StoredObject {
        oid: object.id.0,
        schema: object.name.schema.clone(),
        name: object.name.name.clone(),
        owner: object.owner.clone(),
        sql: object.sql.clone(),
        columns: object.columns.iter().map(column).collect(),
        kind,
    }
}

/// The object that was stored.
pub fn restore(stored: &StoredObject) -> Object {
    let view = |query: &String, depends_on: &[u32]| ViewDef {
        query: query.clone(),
        depends_on: depends_on.iter().map(|oid| ObjectId(*oid)).collect(),
    };
    let def = match &stored.kind {
        StoredKind::Source { connector, stream, .. } => {
            Kind::Source(SourceDef { connector: connector.clone(), stream: *stream })
        }
        StoredKind::Table { primary_key, checks } => {
            let check = |c: &StoredCheck| CheckDef { name: c.name.clone(), condition: c.condition.clone() };
            let checks = checks.iter().map(check).collect();
            Kind::Table(TableDef { primary_key: primary_key.clone(), checks })
        }
        StoredKind::View { query, depends_on } => Kind::View(view(query, depends_on)),
        StoredKind::MaterializedView { query, depends_on } => Kind::MaterializedView(view(query, depends_on)),
        StoredKind::Index { relation, key, include, unique } => Kind::Index(IndexDef {
            relation: ObjectId(*relation),
            key: key.clone(),
            include: include.clone(),
            unique: *unique,
        }),
    };
    let column = |column: &StoredColumn| ColumnDef {
        name: column.name.clone(),
        sql_type: column.sql_type.clone(),
        not_null: column.not_null,
        default: column.default.clone(),
    };
    let name = Name::new(&stored.schema, &stored.name);
    let columns = stored.columns.iter().map(column).collect();
    let object = Object::new(ObjectId(stored.oid), name, stored.sql.clone(), columns, def);
    Object { owner: stored.owner.clone(), ..object }
}

/// Where a stored source begins, when its options alone do not say it.
pub fn start_of(stored: &StoredObject) -> Option<Positions> {
    match &stored.kind {
        StoredKind::Source { start, .. } => {
            Some(start.as_ref()?.iter().map(|(split, position)| (Split(*split), *position)).collect())
        }
        StoredKind::Table { .. }
        | StoredKind::View { .. }
        | StoredKind::MaterializedView { .. }
        | StoredKind::Index { .. } => None,
    }
}

/// Whether it is a materialized view: built again at every start.
pub fn is_materialized(stored: &StoredObject) -> bool {
    matches!(stored.kind, StoredKind::MaterializedView { .. })
}

/// A dead letter as it is stored.
pub fn store_letter(letter: &Letter) -> StoredLetter {
    StoredLetter {
        time_us: letter.time_us,
        object: letter.object.0,
        name: letter.name.clone(),
        place: letter.place.map(|(split, position)| (split.0, position)),
        timestamp_us: letter.timestamp_us,
        key: letter.key.clone(),
        value: letter.value.clone(),
        error: letter.error.clone(),
    }
}

/// The dead letter that was stored.
pub fn restore_letter(stored: StoredLetter) -> Letter {
    Letter {
        time_us: stored.time_us,
        object: ObjectId(stored.object),
        name: stored.name,
        place: stored.place.map(|(split, position)| (Split(split), position)),
        timestamp_us: stored.timestamp_us,
        key: stored.key,
        value: stored.value,
        error: stored.error,
    }
}
