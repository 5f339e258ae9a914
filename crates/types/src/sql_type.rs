//! PostgreSQL's types, and the Arrow fields that carry them.
//!
//! Where two SQL types share an Arrow type (text, uuid and jsonb are all strings), the field's metadata tells which,
//! under [`TYPE_KEY`]. A field without it has the plain type, so that whatever DataFusion computes has a SQL type.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, TimeUnit};

/// The key in a field's metadata that tells types apart which share an Arrow type.
pub const TYPE_KEY: &str = "tidewire.type";

/// Digits of a `numeric` without precision: as many as 128 bits hold.
const NUMERIC_PRECISION_MAX: u8 = 38;
/// Digits after the point of a `numeric` without precision.
pub const NUMERIC_SCALE_DEFAULT: i8 = 9;

/// A column type as SQL names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SqlType {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric(precision, scale)`; `None` is `numeric`, kept with 38 digits of which 9 after the point, and shown
    /// without trailing zeros.
    Numeric(Option<(u8, i8)>),
    /// `text`
    Text,
    /// `varchar(n)`, n in characters
    Varchar(Option<u32>),
    /// `char(n)`, n in characters, padded with blanks
    Char(u32),
    /// `bytea`
    Bytea,
    /// `date`
    Date,
    /// `time`, microseconds
    Time,
    /// `timestamp`, microseconds
    Timestamp,
    /// `timestamptz`, microseconds UTC
    Timestamptz,
    /// `interval`
    Interval,
    /// `uuid`, kept as its 36 lower-case characters
    Uuid,
    /// `json`, kept as written
    Json,
    /// `jsonb`, kept as normalized text
    Jsonb,
    /// An array of one element type
    Array(Box<SqlType>),
    /// `STRUCT<name type, ..>`
    Struct(Vec<(String, SqlType)>),
    /// The type of a bare NULL
    Null,
}

impl SqlType {
    /// The Arrow type that values have in memory.
    pub fn data_type(&self) -> DataType {
        match self {
            SqlType::Bool => DataType::Boolean,
            SqlType::Int2 => DataType::Int16,
            SqlType::Int4 => DataType::Int32,
            SqlType::Int8 => DataType::Int64,
            SqlType::Float4 => DataType::Float32,
            SqlType::Float8 => DataType::Float64,
            SqlType::Numeric(None) => DataType::Decimal128(NUMERIC_PRECISION_MAX, NUMERIC_SCALE_DEFAULT),
            SqlType::Numeric(Some((precision, scale))) => DataType::Decimal128(*precision, *scale),
            SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Uuid | SqlType::Json | SqlType::Jsonb => {
                DataType::Utf8View
            }
            SqlType::Bytea => DataType::BinaryView,
            SqlType::Date => DataType::Date32,
            SqlType::Time => DataType::Time64(TimeUnit::Microsecond),
            SqlType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            SqlType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            SqlType::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            SqlType::Array(element) => DataType::List(Arc::new(element.field("item", true))),
            SqlType::Struct(fields) => {
                DataType::Struct(fields.iter().map(|(name, t)| t.field(name, true)).collect::<Fields>())
            }
            SqlType::Null => DataType::Null,
        }
    }

    /// A field of this type, with the metadata that tells it from others of the same Arrow type.
    pub fn field(&self, name: &str, nullable: bool) -> Field {
        let field = Field::new(name, self.data_type(), nullable);
        match self {
            SqlType::Varchar(_)
            | SqlType::Char(_)
            | SqlType::Uuid
            | SqlType::Json
            | SqlType::Jsonb
            | SqlType::Numeric(None) => field.with_metadata(HashMap::from([(TYPE_KEY.into(), self.to_string())])),
            _ => field,
        }
    }

    /// The SQL type of a field. Total: an Arrow type that SQL has no name for gets the nearest one that can show its
    /// values (an unsigned 64-bit integer is `numeric(20,0)`, a map is `text`).
    pub fn of(field: &Field) -> SqlType {
        let tagged = field.metadata().get(TYPE_KEY).and_then(|tag| SqlType::from_tag(tag));
        match tagged {
            // A function may change a column's type and keep its metadata: believe only what fits.
            Some(tagged)
                if tagged.data_type() == *field.data_type()
                    || (tagged.data_type().is_string() && field.data_type().is_string()) =>
            {
                tagged
            }
            _ => SqlType::of_data_type(field.data_type()),
        }
    }

    /// The SQL type of an Arrow type without metadata.
    pub fn of_data_type(data_type: &DataType) -> SqlType {
        match data_type {
            DataType::Null => SqlType::Null,
            DataType::Boolean => SqlType::Bool,
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => SqlType::Int2,
            DataType::Int32 | DataType::UInt16 => SqlType::Int4,
            DataType::Int64 | DataType::UInt32 => SqlType::Int8,
            DataType::UInt64 => SqlType::Numeric(Some((20, 0))),
            DataType::Float16 | DataType::Float32 => SqlType::Float4,
            DataType::Float64 => SqlType::Float8,
            DataType::Decimal32(p, s)
            | DataType::Decimal64(p, s)
            | DataType::Decimal128(p, s)
            | DataType::Decimal256(p, s) => SqlType::Numeric(Some((*p, *s))),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                SqlType::Bytea
            }
            DataType::Date32 | DataType::Date64 => SqlType::Date,
            DataType::Time32(_) | DataType::Time64(_) => SqlType::Time,
            DataType::Timestamp(_, None) => SqlType::Timestamp,
            DataType::Timestamp(_, Some(_)) => SqlType::Timestamptz,
            DataType::Interval(_) | DataType::Duration(_) => SqlType::Interval,
            DataType::List(f)
            | DataType::LargeList(f)
            | DataType::ListView(f)
            | DataType::LargeListView(f)
            | DataType::FixedSizeList(f, _) => SqlType::Array(Box::new(SqlType::of(f))),
            DataType::Struct(fields) => {
                SqlType::Struct(fields.iter().map(|f| (f.name().clone(), SqlType::of(f))).collect())
            }
            DataType::Dictionary(_, value) => SqlType::of_data_type(value),
            DataType::RunEndEncoded(_, value) => SqlType::of(value),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Map(..) | DataType::Union(..) => {
                SqlType::Text
            }
        }
    }

    fn from_tag(tag: &str) -> Option<SqlType> {
        let (name, length) = match tag.split_once('(') {
            None => (tag, None),
            Some((name, rest)) => (name, rest.strip_suffix(')')?.parse::<u32>().ok()),
        };
        Some(match (name, length) {
            ("uuid", None) => SqlType::Uuid,
            ("json", None) => SqlType::Json,
            ("jsonb", None) => SqlType::Jsonb,
            ("numeric", None) => SqlType::Numeric(None),
            ("character varying", length) => SqlType::Varchar(length),
            ("character", Some(length)) => SqlType::Char(length),
            _ => return None,
        })
    }
}

/// The name as PostgreSQL's `format_type` prints it.
impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            SqlType::Bool => "boolean",
            SqlType::Int2 => "smallint",
            SqlType::Int4 => "integer",
            SqlType::Int8 => "bigint",
            SqlType::Float4 => "real",
            SqlType::Float8 => "double precision",
            SqlType::Numeric(None) => "numeric",
            SqlType::Numeric(Some((precision, scale))) => return write!(f, "numeric({precision},{scale})"),
            SqlType::Text | SqlType::Null => "text",
            SqlType::Varchar(None) => "character varying",
            SqlType::Varchar(Some(n)) => return write!(f, "character varying({n})"),
            SqlType::Char(n) => return write!(f, "character({n})"),
            SqlType::Bytea => "bytea",
            SqlType::Date => "date",
            SqlType::Time => "time without time zone",
            SqlType::Timestamp => "timestamp without time zone",
            SqlType::Timestamptz => "timestamp with time zone",
            SqlType::Interval => "interval",
            SqlType::Uuid => "uuid",
            SqlType::Json => "json",
            SqlType::Jsonb => "jsonb",
            SqlType::Array(element) => return write!(f, "{element}[]"),
            SqlType::Struct(fields) => {
                f.write_str("struct<")?;
                for (idx, (name, t)) in fields.iter().enumerate() {
                    write!(f, "{}{name} {t}", if idx == 0 { "" } else { ", " })?;
                }
                ">"
            }
        };
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_comes_back_from_its_field() {
        for t in [
            SqlType::Bool,
            SqlType::Int2,
            SqlType::Float8,
            SqlType::Numeric(None),
            SqlType::Numeric(Some((12, 2))),
            SqlType::Text,
            SqlType::Varchar(Some(10)),
            SqlType::Varchar(None),
            SqlType::Char(3),
            SqlType::Bytea,
            SqlType::Timestamptz,
            SqlType::Interval,
            SqlType::Uuid,
            SqlType::Jsonb,
            SqlType::Array(Box::new(SqlType::Uuid)),
            SqlType::Struct(vec![("a".into(), SqlType::Jsonb), ("b".into(), SqlType::Int4)]),
        ] {
            assert_eq!(SqlType::of(&t.field("c", true)), t);
        }
    }

    #[test]
    fn metadata_that_does_not_fit_the_data_is_not_believed() {
        let tag = HashMap::from([(TYPE_KEY.to_string(), "uuid".to_string())]);
        let field = Field::new("length", DataType::Int32, true).with_metadata(tag);
        assert_eq!(SqlType::of(&field), SqlType::Int4);
    }
}
