//! Catalog objects as they are stored: JSON that people can read.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use tidewire_types::SqlType;

/// One object of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    /// Its OID, which it keeps for ever.
    pub oid: u32,
    /// The schema that it is in.
    pub schema: String,
    /// Its name there.
    pub name: String,
    /// Who made it.
    pub owner: String,
    /// The statement that made it, as it was written.
    pub sql: String,
    /// Its columns.
    pub columns: Vec<StoredColumn>,
    /// What kind it is.
    pub kind: StoredKind,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type", serialize_with = "write_type", deserialize_with = "read_type")]
    pub sql_type: SqlType,
    /// Whether NULL is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_null: bool,
    /// The default expression as SQL text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// A CHECK constraint of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCheck {
    /// Its name.
    pub name: String,
    /// The condition as SQL text.
    pub condition: String,
}

/// Kinds of objects, with what only that kind has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredKind {
    /// Input that is not stored.
    Source {
        /// The name of the connector.
        connector: String,
        /// Whether the user called it a STREAM.
        stream: bool,
        /// Where reading begins in each split, for a source whose options alone do not say it (`latest`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<BTreeMap<u32, i64>>,
    },
    /// Rows that are stored.
    Table {
        /// Columns of the primary key, in its order.
        primary_key: Vec<usize>,
        /// CHECK constraints.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        checks: Vec<StoredCheck>,
    },
    /// A query with a name.
    View {
        /// The query.
        query: String,
        /// What it directly stands on.
        depends_on: Vec<u32>,
    },
    /// A query whose result is kept.
    MaterializedView {
        /// The query.
        query: String,
        /// What it directly stands on.
        depends_on: Vec<u32>,
    },
    /// Finds rows of a table or materialized view.
    Index {
        /// Whose rows.
        relation: u32,
        /// The columns of its key, in order.
        key: Vec<usize>,
        /// Columns that come with it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        include: Vec<usize>,
        /// No two rows have the same key.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unique: bool,
    },
}

fn write_type<S: Serializer>(sql_type: &SqlType, serializer: S) -> Result<S::Ok, S::Error> {
    type_to_json(sql_type).serialize(serializer)
}

fn read_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SqlType, D::Error> {
    let value = Value::deserialize(deserializer)?;
    type_from_json(&value).ok_or_else(|| serde::de::Error::custom(format!("{value} is not a type")))
}

fn type_to_json(sql_type: &SqlType) -> Value {
    match sql_type {
        SqlType::Array(element) => json!({ "array": type_to_json(element) }),
        SqlType::Struct(fields) => {
            let fields = fields.iter().map(|(name, t)| json!({ "name": name, "type": type_to_json(t) }));
            json!({ "struct": fields.collect::<Vec<_>>() })
        }
        SqlType::Null => json!("null"),
        scalar => json!(scalar.to_string()),
    }
}

fn type_from_json(value: &Value) -> Option<SqlType> {
    if let Some(element) = value.get("array") {
        return Some(SqlType::Array(Box::new(type_from_json(element)?)));
    }
    if let Some(fields) = value.get("struct") {
        let field = |f: &Value| Some((f.get("name")?.as_str()?.to_string(), type_from_json(f.get("type")?)?));
        return Some(SqlType::Struct(fields.as_array()?.iter().map(field).collect::<Option<_>>()?));
    }
    let name = value.as_str()?;
    let numbers = |word: &str| -> Option<Vec<u32>> {
        let inside = name.strip_prefix(word)?.strip_prefix('(')?.strip_suffix(')')?;
        inside.split(',').map(|n| n.parse().ok()).collect()
    };
    if let Some([precision, scale]) = numbers("numeric").as_deref() {
        return Some(SqlType::Numeric(Some((u8::try_from(*precision).ok()?, i8::try_from(*scale).ok()?))));
    }
    if let Some([length]) = numbers("character varying").as_deref() {
        return Some(SqlType::Varchar(Some(*length)));
    }
    if let Some([length]) = numbers("character").as_deref() {
        return Some(SqlType::Char(*length));
    }
    const SCALARS: &[SqlType] = &[
        SqlType::Bool,
        SqlType::Int2,
        SqlType::Int4,
        SqlType::Int8,
        SqlType::Float4,
        SqlType::Float8,
        SqlType::Numeric(None),
        SqlType::Text,
        SqlType::Varchar(None),
        SqlType::Bytea,
        SqlType::Date,
        SqlType::Time,
        SqlType::Timestamp,
        SqlType::Timestamptz,
        SqlType::Interval,
        SqlType::Uuid,
        SqlType::Json,
        SqlType::Jsonb,
    ];
    match name {
        "null" => Some(SqlType::Null),
        name => SCALARS.iter().find(|scalar| scalar.to_string() == name).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_comes_back_from_its_json() {
        let types = [
            SqlType::Bool,
            SqlType::Numeric(None),
            SqlType::Numeric(Some((12, 2))),
            SqlType::Varchar(None),
            SqlType::Varchar(Some(3)),
            SqlType::Char(7),
            SqlType::Timestamptz,
            SqlType::Jsonb,
            SqlType::Null,
            SqlType::Array(Box::new(SqlType::Uuid)),
            SqlType::Struct(vec![("a, b".into(), SqlType::Text), ("c".into(), SqlType::Array(SqlType::Time.into()))]),
        ];
        let column = |(idx, sql_type): (usize, SqlType)| StoredColumn {
            name: format!("c{idx}"),
            sql_type,
            not_null: idx == 1,
            default: (idx == 2).then(|| "1 + 1".to_string()),
        };
        let object = StoredObject {
            oid: 16384,
            schema: "public".into(),
            name: "Übung".into(),
            owner: "u".into(),
            sql: "CREATE ..".into(),
            columns: types.into_iter().enumerate().map(column).collect(),
            kind: StoredKind::Source {
                connector: "kafka".into(),
                stream: true,
                start: Some(BTreeMap::from([(3, 1 << 40)])),
            },
        };
        let text = serde_json::to_string(&object).unwrap();
        assert_eq!(serde_json::from_str::<StoredObject>(&text).unwrap(), object, "{text}");
    }

    #[test]
    fn a_type_that_is_not_known_is_an_error() {
        assert!(serde_json::from_str::<StoredColumn>(r#"{"name": "a", "type": "tesseract"}"#).is_err());
    }
}
