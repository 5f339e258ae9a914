//! The types of generated columns and expressions, and their few values: few, so that rows meet, groups vanish and
//! values repeat.

use super::features::Feature;
use super::random::Random;

macro_rules! types {
    ($($name:ident = $sql:literal, $prefix:literal, $feature:expr, [$($value:literal),*];)*) => {
        /// A type. Those that PostgreSQL treats alike (text and varchar) are one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Type { $($name,)* }

        impl Type {
            /// All of them.
            pub const ALL: &[Type] = &[$(Type::$name,)*];

            /// The name in a cast.
            pub fn sql(self) -> &'static str {
                match self { $(Type::$name => $sql,)* }
            }

            /// What names of columns of the type begin with, so that columns of one name have one type.
            pub fn prefix(self) -> &'static str {
                match self { $(Type::$name => $prefix,)* }
            }

            /// The feature without which there are no such columns.
            pub fn feature(self) -> Option<Feature> {
                match self { $(Type::$name => $feature,)* }
            }

            fn values(self) -> &'static [&'static str] {
                match self { $(Type::$name => &[$($value),*],)* }
            }
        }
    };
}

types! {
    Bool = "bool", "b", None, ["true", "false"];
    Int2 = "int2", "h", None, ["0", "1", "2", "-1", "3"];
    Int4 = "int4", "i", None, ["0", "1", "2", "3", "-1", "7"];
    Int8 = "int8", "l", None, ["0", "1", "2", "5", "-3"];
    Numeric = "numeric", "n", Some(Feature::Numeric), ["0", "1", "1.50", "-0.25", "2.75", "10"];
    Float8 = "float8", "f", Some(Feature::Float), ["0", "0.25", "1.5", "-2", "3"];
    Text = "text", "s", None, ["a", "b", "ab", "B", "", "a b", "ä"];
    Date = "date", "d", Some(Feature::Time), ["2024-01-01", "2024-02-29", "2023-12-31", "2024-01-31"];
    Time = "time", "t", Some(Feature::Time), ["00:00:00", "12:30:00", "23:59:59.5"];
    Timestamp = "timestamp", "ts", Some(Feature::Time), ["2024-01-01 00:00:00", "2024-01-31 12:30:00", "2023-12-31 23:59:59.5"];
    Timestamptz = "timestamptz", "tz", Some(Feature::Time), ["2024-01-01 00:00:00+00", "2024-02-29 06:00:00+00"];
    Interval = "interval", "v", Some(Feature::Interval), ["1 day", "1 mon", "30 days", "-2 hours", "1 day 02:00:00"];
    Uuid = "uuid", "u", Some(Feature::Bytes), ["00000000-0000-0000-0000-000000000001", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"];
    Bytea = "bytea", "y", Some(Feature::Bytes), ["\\x00", "\\x6162", "\\x"];
    Jsonb = "jsonb", "j", Some(Feature::Json), ["{\"a\": 1}", "{\"a\": null, \"b\": [1, 2]}", "[1, \"x\"]", "null", "1"];
    Ints = "int4[]", "ai", Some(Feature::Array), ["{1,2}", "{}", "{NULL,3}", "{2,1}"];
    Texts = "text[]", "as", Some(Feature::Array), ["{a,b}", "{}", "{b,NULL}"];
}

impl Type {
    /// By the name that templates use.
    pub fn named(name: &str) -> Option<Type> {
        Type::ALL.iter().copied().find(|t| t.sql() == name)
    }

    /// Whether values can be sorted, by the same order here and in PostgreSQL.
    pub fn ordered(self) -> bool {
        self != Type::Jsonb
    }

    /// Other types whose values are compared with those of this one, and can be assigned to its columns.
    pub fn comparable(self) -> &'static [Type] {
        use Type as T;
        match self {
            T::Int2 => &[T::Int4, T::Int8, T::Numeric, T::Float8],
            T::Int4 => &[T::Int2, T::Int8, T::Numeric, T::Float8],
            T::Int8 => &[T::Int2, T::Int4, T::Numeric, T::Float8],
            T::Numeric => &[T::Int2, T::Int4, T::Int8, T::Float8],
            T::Float8 => &[T::Int2, T::Int4, T::Int8, T::Numeric],
            T::Date => &[T::Timestamp, T::Timestamptz],
            T::Timestamp => &[T::Date, T::Timestamptz],
            T::Timestamptz => &[T::Date, T::Timestamp],
            _ => &[],
        }
    }

    /// The type in CREATE TABLE.
    pub fn column(self, random: &mut Random) -> &'static str {
        match self {
            Type::Numeric => "numeric(8,2)",
            Type::Text if random.chance(20) => "varchar(20)",
            other => other.sql(),
        }
    }

    /// A value as it stands in VALUES.
    pub fn value(self, random: &mut Random) -> String {
        let value = *random.pick(self.values());
        match self {
            Type::Bool | Type::Int2 | Type::Int4 | Type::Int8 | Type::Numeric | Type::Float8 => value.to_string(),
            _ => format!("'{value}'"),
        }
    }

    /// A value of exactly this type, as it stands in an expression.
    pub fn literal(self, random: &mut Random) -> String {
        let value = self.value(random);
        match self {
            // A cast binds more closely than a sign.
            Type::Int4 if value.starts_with('-') => format!("({value})"),
            Type::Bool | Type::Int4 => value,
            Type::Numeric if value.contains('.') && !value.starts_with('-') => value,
            _ if value.starts_with('-') => format!("({value})::{}", self.sql()),
            _ => format!("{value}::{}", self.sql()),
        }
    }

    /// A value without a type, as it stands in an expression.
    pub fn untyped(self, random: &mut Random) -> String {
        if random.chance(20) { "NULL".into() } else { format!("'{}'", random.pick(self.values())) }
    }

    /// The simplest value, for shrinking.
    pub fn plain(self) -> String {
        match self {
            Type::Bool => "true".into(),
            // Behind GROUP BY and ORDER BY a bare number is a column's.
            Type::Int4 => "1::int4".into(),
            Type::Jsonb => "'1'::jsonb".into(),
            other => match other.values() {
                [_, second, ..] => format!("'{second}'::{}", self.sql()),
                _ => format!("NULL::{}", self.sql()),
            },
        }
    }
}
