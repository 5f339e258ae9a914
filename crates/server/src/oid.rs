//! The OIDs, lengths and modifiers by which PostgreSQL's protocol and catalogs name types.
//!
//! One list of types serves RowDescription, parameters and `pg_type`. Source: PostgreSQL's `pg_type.dat` (numbers only).

use tidewire_types::SqlType;

/// A type that clients know by its OID.
#[derive(Clone, Copy, Debug)]
pub struct PgType {
    /// Its OID.
    pub oid: u32,
    /// The OID of arrays of it.
    pub array_oid: u32,
    /// Its internal name (`int4`).
    pub name: &'static str,
    /// Its SQL name (`integer`), without modifier.
    pub sql_name: &'static str,
    /// Bytes of a value, -1 where they vary.
    pub size: i16,
    /// Its category in `pg_type`.
    pub category: char,
}

const fn pg_type(
    oid: u32,
    array_oid: u32,
    name: &'static str,
    sql_name: &'static str,
    size: i16,
    category: char,
) -> PgType {
    PgType { oid, array_oid, name, sql_name, size, category }
}

/// The OID of an anonymous row.
pub const RECORD: u32 = 2249;
/// The OID of arrays of anonymous rows.
pub const RECORD_ARRAY: u32 = 2287;
/// The OID of `text`.
pub const TEXT: u32 = 25;

/// All base types that clients meet, those included that only the catalogs use.
pub const TYPES: &[PgType] = &[
    pg_type(16, 1000, "bool", "boolean", 1, 'B'),
    pg_type(17, 1001, "bytea", "bytea", -1, 'U'),
    pg_type(18, 1002, "char", "\"char\"", 1, 'Z'),
    pg_type(19, 1003, "name", "name", 64, 'S'),
    pg_type(20, 1016, "int8", "bigint", 8, 'N'),
    pg_type(21, 1005, "int2", "smallint", 2, 'N'),
    pg_type(22, 1006, "int2vector", "int2vector", -1, 'A'),
    pg_type(23, 1007, "int4", "integer", 4, 'N'),
    pg_type(24, 1008, "regproc", "regproc", 4, 'N'),
    pg_type(25, 1009, "text", "text", -1, 'S'),
    pg_type(26, 1028, "oid", "oid", 4, 'N'),
    pg_type(30, 1013, "oidvector", "oidvector", -1, 'A'),
    pg_type(114, 199, "json", "json", -1, 'U'),
    pg_type(700, 1021, "float4", "real", 4, 'N'),
    pg_type(701, 1022, "float8", "double precision", 8, 'N'),
    pg_type(705, 0, "unknown", "unknown", -2, 'X'),
    pg_type(1042, 1014, "bpchar", "character", -1, 'S'),
    pg_type(1043, 1015, "varchar", "character varying", -1, 'S'),
    pg_type(1082, 1182, "date", "date", 4, 'D'),
    pg_type(1083, 1183, "time", "time without time zone", 8, 'D'),
    pg_type(1114, 1115, "timestamp", "timestamp without time zone", 8, 'D'),
    pg_type(1184, 1185, "timestamptz", "timestamp with time zone", 8, 'D'),
    pg_type(1186, 1187, "interval", "interval", 16, 'T'),
    pg_type(1700, 1231, "numeric", "numeric", -1, 'N'),
    pg_type(2205, 2210, "regclass", "regclass", 4, 'N'),
    pg_type(2206, 2211, "regtype", "regtype", 4, 'N'),
    pg_type(2249, 2287, "record", "record", -1, 'P'),
    pg_type(2278, 0, "void", "void", 4, 'P'),
    pg_type(2950, 2951, "uuid", "uuid", 16, 'U'),
    pg_type(3802, 3807, "jsonb", "jsonb", -1, 'U'),
];

/// The entry of a base type (not an array).
fn base(sql_type: &SqlType) -> (u32, i16) {
    match sql_type {
        SqlType::Bool => (16, 1),
        SqlType::Int2 => (21, 2),
        SqlType::Int4 => (23, 4),
        SqlType::Int8 => (20, 8),
        SqlType::Float4 => (700, 4),
        SqlType::Float8 => (701, 8),
        SqlType::Numeric(_) => (1700, -1),
        SqlType::Text | SqlType::Null => (TEXT, -1),
        SqlType::Varchar(_) => (1043, -1),
        SqlType::Char(_) => (1042, -1),
        SqlType::Bytea => (17, -1),
        SqlType::Date => (1082, 4),
        SqlType::Time => (1083, 8),
        SqlType::Timestamp => (1114, 8),
        SqlType::Timestamptz => (1184, 8),
        SqlType::Interval => (1186, 16),
        SqlType::Uuid => (2950, 16),
        SqlType::Json => (114, -1),
        SqlType::Jsonb => (3802, -1),
        SqlType::Array(element) => (array_of(element), -1),
        SqlType::Struct(_) => (RECORD, -1),
    }
}

/// The OID of arrays of `element`; arrays of arrays have the OID of arrays of what is innermost.
fn array_of(element: &SqlType) -> u32 {
    match element {
        SqlType::Array(inner) => array_of(inner),
        element => {
            let oid = base(element).0;
            TYPES.iter().find(|t| t.oid == oid).map_or(RECORD_ARRAY, |t| t.array_oid)
        }
    }
}

/// The OID of a type.
pub fn oid(sql_type: &SqlType) -> u32 {
    base(sql_type).0
}

/// Bytes of a value, -1 where they vary.
pub fn size(sql_type: &SqlType) -> i16 {
    base(sql_type).1
}

/// The modifier: length, or precision and scale; -1 for none.
pub fn modifier(sql_type: &SqlType) -> i32 {
    let length = |n: &u32| i32::try_from(*n).map_or(-1, |n| n.saturating_add(4));
    match sql_type {
        SqlType::Numeric(Some((precision, scale))) => {
            ((i32::from(*precision) << 16) | (i32::from(*scale) & 0x7ff)).saturating_add(4)
        }
        SqlType::Varchar(Some(n)) | SqlType::Char(n) => length(n),
        SqlType::Array(element) => modifier(element),
        _ => -1,
    }
}

/// The type that a client means by an OID. `Ok(None)`: it leaves the choice to the server. `Err`: no such type here.
pub fn sql_type(oid: u32) -> Result<Option<SqlType>, u32> {
    Ok(Some(match oid {
        0 | 705 => return Ok(None),
        16 => SqlType::Bool,
        17 => SqlType::Bytea,
        20 | 26 | 24 | 2205 | 2206 => SqlType::Int8,
        21 => SqlType::Int2,
        23 => SqlType::Int4,
        18 | 19 | 25 => SqlType::Text,
        114 => SqlType::Json,
        700 => SqlType::Float4,
        701 => SqlType::Float8,
        1042 | 1043 => SqlType::Varchar(None),
        1082 => SqlType::Date,
        1083 => SqlType::Time,
        1114 => SqlType::Timestamp,
        1184 => SqlType::Timestamptz,
        1186 => SqlType::Interval,
        1700 => SqlType::Numeric(None),
        2950 => SqlType::Uuid,
        3802 => SqlType::Jsonb,
        array => {
            let element = TYPES.iter().find(|t| t.array_oid == array && array != 0).ok_or(oid)?;
            let element = sql_type(element.oid)?.ok_or(oid)?;
            SqlType::Array(Box::new(element))
        }
    }))
}

/// The name of a type with its modifier, as `format_type` prints it; None where there is no such type.
pub fn format_type(oid: u32, modifier: i32) -> Option<String> {
    if let Some(found) = TYPES.iter().find(|t| t.oid == oid) {
        let length = modifier.saturating_sub(4);
        return Some(match oid {
            1042 | 1043 if length > 0 => format!("{}({length})", found.sql_name),
            1700 if modifier >= 4 => format!("numeric({},{})", (length >> 16) & 0xffff, length & 0x7ff),
            _ => found.sql_name.to_owned(),
        });
    }
    let element = TYPES.iter().find(|t| t.array_oid == oid && oid != 0)?;
    format_type(element.oid, modifier).map(|name| name + "[]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_comes_back_from_its_oid() {
        for t in [SqlType::Bool, SqlType::Int4, SqlType::Uuid, SqlType::Jsonb, SqlType::Numeric(None)] {
            assert_eq!(sql_type(oid(&t)), Ok(Some(t.clone())));
            let array = SqlType::Array(Box::new(t));
            assert_eq!(sql_type(oid(&array)), Ok(Some(array)));
        }
        assert_eq!(sql_type(0), Ok(None));
        assert_eq!(sql_type(600), Err(600));
    }

    #[test]
    fn names_carry_their_modifier() {
        let named = |t: SqlType| format_type(oid(&t), modifier(&t)).unwrap();
        for t in [
            SqlType::Numeric(Some((12, 2))),
            SqlType::Numeric(None),
            SqlType::Varchar(Some(10)),
            SqlType::Char(3),
            SqlType::Timestamptz,
            SqlType::Array(Box::new(SqlType::Varchar(Some(10)))),
        ] {
            assert_eq!(named(t.clone()), t.to_string());
        }
    }
}
