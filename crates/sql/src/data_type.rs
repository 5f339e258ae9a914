//! Names of types, in all their PostgreSQL spellings, to [`SqlType`].

use sqlparser::ast::{ArrayElemTypeDef, CharacterLength, DataType, ExactNumberInfo, ObjectName, TimezoneInfo};
use tidewire_types::{Result, SqlError, SqlState, SqlType, closest};

use crate::fold;

/// Digits that a numeric may have.
const NUMERIC_PRECISION_MAX: u64 = 38;
/// What PostgreSQL allows as the length of a string type.
const LENGTH_MAX: u64 = 10_485_760;

/// Whether it is a collation that orders text by its bytes: no other is there.
pub fn is_collation(name: &ObjectName) -> bool {
    let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident().map(fold)).collect();
    let name = match parts.as_slice() {
        [name] => name,
        [schema, name] if schema == "pg_catalog" => name,
        _ => return false,
    };
    ["C", "POSIX", "default", "ucs_basic"].contains(&name.as_str())
}

/// The type that a parsed type name stands for: of a column, a cast, a parameter.
///
/// Errors: `42704` for a name that is no type (with the closest one as hint), `22023` for a length or precision out of
/// range, `0A000` for PostgreSQL's types that Tidewire does not have. Without position: the caller knows the place.
pub fn sql_type(data_type: &DataType) -> Result<SqlType> {
    Ok(match data_type {
        DataType::Boolean | DataType::Bool => SqlType::Bool,
        DataType::SmallInt(None) | DataType::Int2(None) | DataType::Int16 => SqlType::Int2,
        DataType::Int(None) | DataType::Integer(None) | DataType::Int4(None) | DataType::Int32 => SqlType::Int4,
        DataType::BigInt(None) | DataType::Int8(None) | DataType::Int64 => SqlType::Int8,
        DataType::Real | DataType::Float4 | DataType::Float32 => SqlType::Float4,
        DataType::Float(ExactNumberInfo::Precision(bits)) => float(*bits)?,
        DataType::Float(ExactNumberInfo::None)
        | DataType::Double(ExactNumberInfo::None)
        | DataType::DoublePrecision
        | DataType::Float8
        | DataType::Float64 => SqlType::Float8,
        DataType::Numeric(info) | DataType::Decimal(info) | DataType::Dec(info) => numeric(info)?,
        DataType::Text | DataType::String(None) => SqlType::Text,
        DataType::Varchar(length) | DataType::CharacterVarying(length) | DataType::CharVarying(length) => {
            SqlType::Varchar(characters(length.as_ref())?)
        }
        DataType::Character(length) | DataType::Char(length) => {
            SqlType::Char(characters(length.as_ref())?.unwrap_or(1))
        }
        DataType::Bytea | DataType::Bytes(None) => SqlType::Bytea,
        DataType::Date => SqlType::Date,
        DataType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => SqlType::Time,
        DataType::Timestamp(precision, zone) => {
            if precision.is_some_and(|p| p > 6) {
                return invalid("timestamp precision must be between 0 and 6");
            }
            match zone {
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => SqlType::Timestamp,
                TimezoneInfo::WithTimeZone | TimezoneInfo::Tz => SqlType::Timestamptz,
            }
        }
        DataType::Interval { .. } => SqlType::Interval,
        DataType::Uuid => SqlType::Uuid,
        DataType::JSON => SqlType::Json,
        DataType::JSONB => SqlType::Jsonb,
        DataType::Array(ArrayElemTypeDef::AngleBracket(element) | ArrayElemTypeDef::SquareBracket(element, _)) => {
            SqlType::Array(Box::new(sql_type(element)?))
        }
        DataType::Struct(fields, _) => SqlType::Struct(
            fields
                .iter()
                .map(|f| match &f.field_name {
                    Some(name) => Ok((fold(name), sql_type(&f.field_type)?)),
                    None => Err(SqlError::new(SqlState::SyntaxError, "a field of a STRUCT needs a name")),
                })
                .collect::<Result<_>>()?,
        ),
        DataType::Custom(name, modifiers) => custom(name, modifiers)?,
        DataType::Time(..) => return Err(SqlError::unsupported("type time with time zone")),
        DataType::Regclass => return Err(SqlError::unsupported("type regclass")),
        DataType::Bit(_) | DataType::BitVarying(_) | DataType::VarBit(_) => {
            return Err(SqlError::unsupported("type bit"));
        }
        DataType::TsVector | DataType::TsQuery | DataType::GeometricType(_) => {
            return Err(SqlError::unsupported(format!("type {}", data_type.to_string().to_lowercase())));
        }
        other => return unknown(&other.to_string().to_lowercase()),
    })
}

fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(SqlError::new(SqlState::InvalidParameterValue, message))
}

fn unknown<T>(name: &str) -> Result<T> {
    const KNOWN: &[&str] = &[
        "bigint",
        "boolean",
        "bytea",
        "char",
        "date",
        "decimal",
        "double precision",
        "float",
        "int",
        "integer",
        "interval",
        "json",
        "jsonb",
        "numeric",
        "real",
        "smallint",
        "struct",
        "text",
        "time",
        "timestamp",
        "timestamptz",
        "uuid",
        "varchar",
    ];
    let error = SqlError::new(SqlState::UndefinedObject, format!("type \"{name}\" does not exist"));
    let bare = name.split('(').next().unwrap_or(name);
    Err(match bare {
        "tinyint" => error.with_hint("Perhaps you meant \"smallint\"."),
        "datetime" => error.with_hint("Perhaps you meant \"timestamp\"."),
        "blob" | "binary" | "varbinary" => error.with_hint("Perhaps you meant \"bytea\"."),
        "map" => error.with_hint("Perhaps you meant \"jsonb\"."),
        _ => match closest(bare, KNOWN.iter().copied()) {
            Some(near) => error.with_hint(format!("Perhaps you meant \"{near}\".")),
            None => error,
        },
    })
}

fn float(bits: u64) -> Result<SqlType> {
    match bits {
        0 => invalid("precision for type float must be at least 1 bit"),
        1..=24 => Ok(SqlType::Float4),
        25..=53 => Ok(SqlType::Float8),
        _ => invalid("precision for type float must be less than 54 bits"),
    }
}

fn numeric(info: &ExactNumberInfo) -> Result<SqlType> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => return Ok(SqlType::Numeric(None)),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    let digits = u8::try_from(precision).ok().filter(|p| (1..=NUMERIC_PRECISION_MAX).contains(&u64::from(*p)));
    let Some(digits) = digits else {
        return invalid(format!("numeric precision {precision} must be between 1 and {NUMERIC_PRECISION_MAX}"));
    };
    match i8::try_from(scale).ok().filter(|s| (0..=i64::from(digits)).contains(&i64::from(*s))) {
        Some(scale) => Ok(SqlType::Numeric(Some((digits, scale)))),
        None => invalid(format!("numeric scale {scale} must be between 0 and precision {precision}")),
    }
}

fn characters(length: Option<&CharacterLength>) -> Result<Option<u32>> {
    match length {
        None => Ok(None),
        Some(CharacterLength::IntegerLength { length: 0, .. }) => invalid("length of a string type must be at least 1"),
        Some(CharacterLength::IntegerLength { length, .. }) if *length <= LENGTH_MAX => Ok(u32::try_from(*length).ok()),
        Some(_) => invalid(format!("length of a string type cannot exceed {LENGTH_MAX}")),
    }
}

/// Names that sqlparser has no keyword for, or that are qualified with `pg_catalog`.
fn custom(name: &ObjectName, modifiers: &[String]) -> Result<SqlType> {
    let mut parts: Vec<String> = name.0.iter().filter_map(|p| p.as_ident()).map(fold).collect();
    if parts.first().is_some_and(|p| p == "pg_catalog") {
        parts.remove(0);
    }
    let name = parts.join(".");
    let length = modifiers.first().and_then(|m| m.parse::<u64>().ok());
    let characters = || characters(length.map(|length| CharacterLength::IntegerLength { length, unit: None }).as_ref());
    let scale = modifiers.get(1).and_then(|m| m.parse::<i64>().ok());
    Ok(match name.as_str() {
        "bool" | "boolean" => SqlType::Bool,
        "int2" | "smallint" => SqlType::Int2,
        "int" | "int4" | "integer" => SqlType::Int4,
        // OIDs are shown and compared as numbers.
        "int8" | "bigint" | "oid" => SqlType::Int8,
        "float4" | "real" => SqlType::Float4,
        "float8" => SqlType::Float8,
        "numeric" | "decimal" => match (length, scale) {
            (Some(p), Some(s)) => numeric(&ExactNumberInfo::PrecisionAndScale(p, s))?,
            (Some(p), None) => numeric(&ExactNumberInfo::Precision(p))?,
            _ => SqlType::Numeric(None),
        },
        "text" | "name" | "char" => SqlType::Text,
        "varchar" => SqlType::Varchar(characters()?),
        "bpchar" => characters()?.map_or(SqlType::Text, SqlType::Char),
        "bytea" => SqlType::Bytea,
        "date" => SqlType::Date,
        "time" => SqlType::Time,
        "timestamp" => SqlType::Timestamp,
        "timestamptz" => SqlType::Timestamptz,
        "interval" => SqlType::Interval,
        "uuid" => SqlType::Uuid,
        "json" => SqlType::Json,
        "jsonb" => SqlType::Jsonb,
        "serial" | "serial2" | "serial4" | "serial8" | "smallserial" | "bigserial" => {
            return Err(SqlError::unsupported(format!("type {name}"))
                .with_hint("Use bigint, and let the program that inserts choose the numbers."));
        }
        "timetz" | "money" | "xml" | "inet" | "cidr" | "macaddr" | "bit" | "varbit" | "point" | "regclass"
        | "regtype" | "regproc" | "hstore" | "citext" | "tsvector" | "int4range" | "tstzrange" => {
            return Err(SqlError::unsupported(format!("type {name}")));
        }
        _ => return unknown(&name),
    })
}
