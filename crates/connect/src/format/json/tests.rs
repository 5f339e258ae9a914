//! The JSON decoder on small tables, and against serde_json on random records.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type};
use expect_test::{Expect, expect};
use proptest::prelude::*;
use tidewire_types::SqlType;

use crate::format::tests::{check_with, column, columns};
use crate::{Column, Decoder, FormatSpec, Options, Record};

fn check(fields: &[(&str, SqlType)], values: &[&str], expected: Expect) {
    let columns = columns(fields);
    let all: Vec<usize> = (0..columns.len()).collect();
    check_with("JSON", &[], &columns, &all, values, expected);
}

fn decoder(columns: &[Column]) -> Decoder {
    let spec = FormatSpec { format: "PLAIN".into(), encode: "JSON".into(), options: Options::default() };
    let all: Vec<usize> = (0..columns.len()).collect();
    Decoder::new(columns, &all, &spec).unwrap()
}

fn error_of(sql_type: SqlType, value: &str) -> String {
    let mut decoder = decoder(&[column("c", sql_type)]);
    let error = decoder.decode(&Record::of_value(format!("{{\"c\": {value}}}").as_bytes())).unwrap_err();
    assert_eq!(decoder.finish().unwrap().num_rows(), 0);
    error
}

#[test]
fn keys_find_their_columns() {
    check(
        &[("id", SqlType::Int4), ("Name", SqlType::Text)],
        &[
            r#"{"id": 1, "Name": "a"}"#,
            r#"{"Name": "order", "id": 2}"#,
            r#"{"ID": 3, "NAME": "case"}"#,
            r#"{"id": 4, "ID": 40, "x": {"id": [5]}, "name": "exact wins", "y": null}"#,
            r#"{"ID": 50, "id": 5, "Name": "first", "Name": "last"}"#,
            r#"{"\u0069d": 6, "N\u0061me": null}"#,
            r#" { } "#,
        ],
        expect![[r#"
            +----+------------+
            | id | Name       |
            +----+------------+
            | 1  | a          |
            | 2  | order      |
            | 3  | case       |
            | 4  | exact wins |
            | 5  | last       |
            | 6  |            |
            |    |            |
            +----+------------+
        "#]],
    );
}

#[test]
fn numbers_stand_in_strings_and_texts_are_numbers() {
    check(
        &[
            ("i", SqlType::Int8),
            ("f", SqlType::Float8),
            ("r", SqlType::Float4),
            ("n", SqlType::Numeric(Some((20, 3)))),
            ("t", SqlType::Text),
            ("b", SqlType::Bool),
        ],
        &[
            r#"{"i": -9223372036854775808, "f": 0.1, "r": 16777217, "n": 12345678901234567.8905, "t": 1.50, "b": true}"#,
            r#"{"i": "9223372036854775807", "f": "NaN", "r": "-Infinity", "n": "-0.0005", "t": false, "b": "off"}"#,
            r#"{"i": 1e3, "f": 1e300, "r": "1e10", "n": 1E2, "t": "\ud83d\ude00\n", "b": null}"#,
        ],
        expect![[r#"
            +----------------------+-------+---------------+-----------------------+-------+-------+
            | i                    | f     | r             | n                     | t     | b     |
            +----------------------+-------+---------------+-----------------------+-------+-------+
            | -9223372036854775808 | 0.1   | 16777216.0    | 12345678901234567.891 | 1.50  | true  |
            | 9223372036854775807  | NaN   | -inf          | -0.001                | false | false |
            | 1000                 | 1e300 | 10000000000.0 | 100.000               | 😀    |       |
            |                      |       |               |                       |       |       |
            +----------------------+-------+---------------+-----------------------+-------+-------+
        "#]],
    );
}

#[test]
fn nested_values() {
    let buyer = SqlType::Struct(vec![("name".into(), SqlType::Text), ("city".into(), SqlType::Varchar(Some(6)))]);
    check(
        &[
            ("buyer", buyer.clone()),
            ("tags", SqlType::Array(Box::new(SqlType::Text))),
            ("m", SqlType::Array(Box::new(SqlType::Array(Box::new(SqlType::Int2))))),
            ("old", SqlType::Array(Box::new(buyer))),
        ],
        &[
            r#"{"buyer": {"city": "Delft", "name": "Jan"}, "tags": ["a", null, "b"], "m": [[1], [], null], "old": []}"#,
            r#"{"buyer": {}, "tags": [], "m": [], "old": [{"name": "x"}, null, {"city": "y"}]}"#,
            r#"{"buyer": {"city": 12, "name": "Jan"}, "tags": ["a", {}]}"#,
            r#"{"buyer": {"name": "Jan", "city": "Rotterdam"}}"#,
            r#"{"tags": ["a"], "old": [{"name": "x", "city": "y"}, {"name": "x", "city": []}]}"#,
            r#"{"m": [[1, 2], [3, 70000]]}"#,
            r#"{"buyer": null, "tags": null, "m": [[7]]}"#,
        ],
        expect![[r#"
            column "tags[2]": an object where type text is expected
            column "buyer.city": value too long for type character varying(6)
            column "old[2].city": an array where type character varying is expected
            column "m[2][2]": value "70000" is out of range for type smallint
            +--------------------------+----------+-------------+------------------------------------------+
            | buyer                    | tags     | m           | old                                      |
            +--------------------------+----------+-------------+------------------------------------------+
            | {name: Jan, city: Delft} | [a, , b] | [[1], [], ] | []                                       |
            | {name: , city: }         | []       | []          | [{name: x, city: }, , {name: , city: y}] |
            |                          |          | [[7]]       |                                          |
            +--------------------------+----------+-------------+------------------------------------------+
        "#]],
    );
}

#[test]
fn times_bytes_and_other_types() {
    check(
        &[
            ("d", SqlType::Date),
            ("t", SqlType::Time),
            ("ts", SqlType::Timestamp),
            ("tz", SqlType::Timestamptz),
            ("i", SqlType::Interval),
            ("u", SqlType::Uuid),
            ("b", SqlType::Bytea),
            ("c", SqlType::Char(3)),
        ],
        &[
            r#"{"d": "2026-01-31", "t": "12:34:56.5", "ts": "2026-01-31 12:34:56", "tz": "2026-01-31T12:34:56+01:00",
                "i": "1 day 02:00:00", "u": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "b": "\\x00ff", "c": "ab"}"#,
            r#"{"d": 20484, "t": 45296000, "ts": 1769862896, "tz": 1769862896000, "i": "PT1S", "b": "aGk=", "c": "abc  "}"#,
        ],
        expect![[r#"
            +------------+--------------+---------------------+----------------------+------------------+--------------------------------------+------+-----+
            | d          | t            | ts                  | tz                   | i                | u                                    | b    | c   |
            +------------+--------------+---------------------+----------------------+------------------+--------------------------------------+------+-----+
            | 2026-01-31 | 12:34:56.500 | 2026-01-31T12:34:56 | 2026-01-31T11:34:56Z | 1 days 2 hours   | a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 | 00ff | ab  |
            | 2026-01-31 | 12:34:56     | 2026-01-31T12:34:56 | 2026-01-31T12:34:56Z | 1.000000000 secs |                                      | 6869 | abc |
            +------------+--------------+---------------------+----------------------+------------------+--------------------------------------+------+-----+
        "#]],
    );
}

#[test]
fn json_is_kept_and_jsonb_is_normalized() {
    check(
        &[("j", SqlType::Json), ("b", SqlType::Jsonb)],
        &[
            r#"{"j": { "b":1,  "a" : [1e2,2] }, "b": { "bb":1,  "a" : [1e2,-0.0, 1.50e1, 12e-3,{}], "bb": "\u00e9\u0001\/" }}"#,
            r#"{"j": "\u0000", "b": "text"}"#,
            r#"{"j": null, "b": null}"#,
            r#"{"b": "\u0000"}"#,
            r#"{"b": 1e1001}"#,
            r#"{"b": [1, 2}"#,
        ],
        expect![[r#"
            column "b": text cannot hold the character U+0000
            column "b": number with exponent 1001 is out of range for type jsonb
            column "b": not JSON: expected "," or "]" at byte 12
            +---------------------------+------------------------------------------------------+
            | j                         | b                                                    |
            +---------------------------+------------------------------------------------------+
            | { "b":1,  "a" : [1e2,2] } | {"a": [100, 0.0, 15.0, 0.012, {}], "bb": "é\u0001/"} |
            | "\u0000"                  | "text"                                               |
            |                           |                                                      |
            +---------------------------+------------------------------------------------------+
        "#]],
    );
}

#[test]
fn what_is_not_json_is_bad() {
    check(
        &[("a", SqlType::Text)],
        &[
            "",
            "  ",
            "null",
            "[1]",
            "{",
            r#"{"a"}"#,
            r#"{"a":1,}"#,
            r#"{"a":1} x"#,
            r#"{"a":1}{"a":2}"#,
            r#"{a:1}"#,
            r#"{"a":01}"#,
            r#"{"a":-}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":1e}"#,
            r#"{"a":tru}"#,
            r#"{"a":"x"#,
            "{\"a\":\"line\nfeed\"}",
            r#"{"a":"\x"}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\ud800\u0041"}"#,
            r#"{"b":"\ud800", "a": "kept"}"#,
            r#"{"b":"\u12g4"}"#,
            r#"{"b":[1 2]}"#,
            r#"{"b":NaN}"#,
            r#"{"a":{}}"#,
            "\u{feff}{}",
        ],
        expect![[r#"
            record is empty
            record is empty
            record is not a JSON object
            record is not a JSON object
            not JSON: expected a key, found the end of the record
            not JSON: expected ":" behind a key at byte 5
            not JSON: expected a key at byte 8
            not JSON: expected the end at byte 9
            not JSON: expected the end at byte 8
            not JSON: expected a key at byte 2
            column "a": not JSON: expected a number at byte 6
            column "a": not JSON: expected a number at byte 7
            column "a": not JSON: expected a digit at byte 8
            column "a": not JSON: expected a value at byte 6
            column "a": not JSON: expected a digit at byte 8
            column "a": not JSON: expected a value at byte 6
            column "a": not JSON: a string does not end
            column "a": not JSON: a control character in a string at byte 11
            column "a": not JSON: expected an escape at byte 8
            column "a": not JSON: expected a surrogate pair, not half of one at byte 13
            column "a": not JSON: expected the second half of a surrogate pair at byte 19
            not JSON: expected a hexadecimal digit at byte 11
            not JSON: expected "," or "]" at byte 9
            not JSON: expected a value at byte 6
            column "a": an object where type text is expected
            not JSON: expected a value at byte 1
            +------+
            | a    |
            +------+
            | kept |
            +------+
        "#]],
    );
}

#[test]
fn the_error_says_what_is_wrong() {
    let list = |t| SqlType::Array(Box::new(t));
    let errors = [
        error_of(SqlType::Int2, "32768"),
        error_of(SqlType::Int4, "\"12x\""),
        error_of(SqlType::Int8, "9223372036854775808"),
        error_of(SqlType::Int8, "1.5"),
        error_of(SqlType::Int8, "true"),
        error_of(SqlType::Bool, "1"),
        error_of(SqlType::Bool, "\"perhaps\""),
        error_of(SqlType::Float4, "1e39"),
        error_of(SqlType::Numeric(Some((4, 2))), "99.995"),
        error_of(SqlType::Timestamptz, "\"2026-02-30\""),
        error_of(SqlType::Timestamptz, "\"yesterday\""),
        error_of(SqlType::Uuid, "\"a\""),
        error_of(SqlType::Bytea, "\"*\""),
        error_of(SqlType::Varchar(Some(2)), "\"häß\""),
        error_of(SqlType::Text, "[1]"),
        error_of(list(SqlType::Int4), "\"{1,2}\""),
        error_of(list(SqlType::Struct(vec![("x".into(), list(SqlType::Date))])), r#"[{}, {"x": ["2026-01-01", {}]}]"#),
    ];
    expect![[r#"
        column "c": value "32768" is out of range for type smallint
        column "c": invalid input syntax for type integer: "12x"
        column "c": value "9223372036854775808" is out of range for type bigint
        column "c": a number with a fraction where type bigint is expected
        column "c": a boolean where type bigint is expected
        column "c": a number where type boolean is expected
        column "c": invalid input syntax for type boolean: "perhaps"
        column "c": value "1e39" is out of range for type real
        column "c": value "99.995" is out of range for type numeric
        column "c": value "2026-02-30" is out of range for type timestamp with time zone
        column "c": invalid input syntax for type timestamp with time zone: "yesterday"
        column "c": invalid input syntax for type uuid: "a"
        column "c": invalid input syntax for type bytea: "*"
        column "c": value too long for type character varying(2)
        column "c": an array where type text is expected
        column "c": a string where type array is expected
        column "c[2].x[2]": an object where type date is expected"#]]
    .assert_eq(&errors.join("\n"));
}

#[test]
fn deep_and_long_records_are_read_or_refused() {
    let mut decoder = decoder(&[column("a", SqlType::Jsonb), column("b", SqlType::Text)]);
    let nested = |n: usize| format!(r#"{{"a": {}{}}}"#, "[".repeat(n), "]".repeat(n));
    let ignored = |n: usize| format!(r#"{{"x": {}{}}}"#, r#"{"k":["#.repeat(n), "]}".repeat(n));
    assert!(decoder.decode(&Record::of_value(nested(127).as_bytes())).is_ok());
    for deep in [nested(128), nested(1_000_000), ignored(64), ignored(1_000_000), "[".repeat(1_000_000)] {
        let error = decoder.decode(&Record::of_value(deep.as_bytes())).unwrap_err();
        assert_eq!(error.rsplit(": ").next(), Some("JSON is nested deeper than 128 levels"));
    }
    let long = "x".repeat(10 << 20);
    assert!(decoder.decode(&Record::of_value(format!(r#"{{"b": "{long}"}}"#).as_bytes())).is_ok());
    assert!(decoder.decode(&Record::of_value(format!(r#"{{"b": "{long}"#).as_bytes())).is_err());
    assert!(decoder.decode(&Record::of_value(format!(r#"{{"a": [{}0]}}"#, "0,".repeat(5 << 20)).as_bytes())).is_ok());
    let batch = decoder.finish().unwrap();
    assert_eq!(batch.num_rows(), 3);
    assert_eq!(batch.column(1).as_string_view().value(1).len(), 10 << 20);
}

/// A random JSON value of a type, and what serde_json makes of it is the expectation.
fn value_of(sql_type: &SqlType) -> BoxedStrategy<serde_json::Value> {
    use serde_json::Value;
    let plain = match sql_type {
        SqlType::Int8 => any::<i64>().prop_map(Value::from).boxed(),
        SqlType::Float8 => prop_oneof![any::<f64>(), -1e6..1e6].prop_map(Value::from).boxed(),
        SqlType::Bool => any::<bool>().prop_map(Value::from).boxed(),
        SqlType::Text => "[^\\x00]{0,30}".prop_map(Value::from).boxed(),
        SqlType::Array(element) => prop::collection::vec(value_of(element), 0..4).prop_map(Value::from).boxed(),
        SqlType::Struct(fields) => object_of(fields.clone()),
        _ => unreachable!("not made by type_strategy"),
    };
    prop_oneof![1 => Just(Value::Null), 6 => plain].boxed()
}

/// An object with the fields in random order, some missing, some unknown.
fn object_of(fields: Vec<(String, SqlType)>) -> BoxedStrategy<serde_json::Value> {
    let members: Vec<_> = fields
        .iter()
        .map(|(name, t)| (Just(name.clone()), prop::option::weighted(0.8, value_of(t))))
        .chain([(Just("unknown".to_string()), prop::option::weighted(0.3, value_of(&SqlType::Text)))])
        .collect();
    members
        .prop_shuffle()
        .prop_map(|members| members.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
        .boxed()
}

fn type_strategy() -> BoxedStrategy<SqlType> {
    let leaf = prop_oneof![Just(SqlType::Int8), Just(SqlType::Float8), Just(SqlType::Bool), Just(SqlType::Text)];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|t| SqlType::Array(Box::new(t))),
            prop::collection::btree_map("[a-z]{1,3}", inner, 1..4)
                .prop_map(|fields: BTreeMap<String, SqlType>| SqlType::Struct(fields.into_iter().collect())),
        ]
    })
    .boxed()
}

/// The value at a row as JSON: NULL and missing are null, unknown fields are not there.
fn value_at(array: &dyn Array, row: usize, sql_type: &SqlType) -> serde_json::Value {
    use serde_json::Value;
    if array.is_null(row) {
        return Value::Null;
    }
    match sql_type {
        SqlType::Int8 => Value::from(array.as_primitive::<Int64Type>().value(row)),
        SqlType::Float8 => Value::from(array.as_primitive::<Float64Type>().value(row)),
        SqlType::Bool => Value::from(array.as_boolean().value(row)),
        SqlType::Text => Value::from(array.as_string_view().value(row)),
        SqlType::Array(element) => {
            let elements = array.as_list::<i32>().value(row);
            (0..elements.len()).map(|n| value_at(&elements, n, element)).collect()
        }
        SqlType::Struct(fields) => fields
            .iter()
            .zip(array.as_struct().columns())
            .map(|((name, t), column)| (name.clone(), value_at(column, row, t)))
            .collect(),
        _ => unreachable!("not made by type_strategy"),
    }
}

/// What `value` is expected to be in a column of this type.
fn expected(value: Option<&serde_json::Value>, sql_type: &SqlType) -> serde_json::Value {
    use serde_json::Value;
    match (value, sql_type) {
        (None | Some(Value::Null), _) => Value::Null,
        (Some(Value::Array(values)), SqlType::Array(element)) => {
            values.iter().map(|v| expected(Some(v), element)).collect()
        }
        (Some(Value::Object(object)), SqlType::Struct(fields)) => {
            fields.iter().map(|(name, t)| (name.clone(), expected(object.get(name), t))).collect()
        }
        (Some(value), _) => value.clone(),
    }
}

fn schema_and_records() -> impl Strategy<Value = (Vec<(String, SqlType)>, Vec<serde_json::Value>)> {
    prop::collection::btree_map("[a-z]{1,4}", type_strategy(), 1..6).prop_flat_map(|fields| {
        let fields: Vec<(String, SqlType)> = fields.into_iter().collect();
        (Just(fields.clone()), prop::collection::vec(object_of(fields), 1..8))
    })
}

fn assert_rows(fields: &[(String, SqlType)], records: &[serde_json::Value], decoder: &mut Decoder) {
    let batch = decoder.finish().unwrap();
    assert_eq!(batch.num_rows(), records.len());
    for ((name, t), column) in fields.iter().zip(batch.columns()) {
        for (row, record) in records.iter().enumerate() {
            assert_eq!(value_at(column, row, t), expected(record.get(name), t), "column {name}, row {row}");
        }
    }
}

/// Cuts a record or changes some of its bytes.
fn damaged(record: &str, cut: usize, bytes: &[(usize, u8)]) -> Vec<u8> {
    let mut damaged = record.as_bytes().to_vec();
    for (at, byte) in bytes {
        let len = damaged.len();
        damaged[at % len] = *byte;
    }
    damaged.truncate(cut % (damaged.len() + 1));
    damaged
}

proptest! {
    #[test]
    fn records_are_what_serde_json_says((fields, records) in schema_and_records(), pretty: bool) {
        let columns: Vec<Column> = fields.iter().map(|(name, t)| column(name, t.clone())).collect();
        let mut decoder = decoder(&columns);
        for record in &records {
            let text = if pretty { serde_json::to_string_pretty(record) } else { serde_json::to_string(record) };
            decoder.decode(&Record::of_value(text.unwrap().as_bytes())).unwrap();
        }
        assert_rows(&fields, &records, &mut decoder);
    }

    /// Whatever stands between good records: no panic, and the good ones are as if it had not been there.
    #[test]
    fn bad_records_do_not_disturb_their_neighbours(
        (fields, records) in schema_and_records(),
        damage in prop::collection::vec((any::<usize>(), prop::collection::vec(any::<(usize, u8)>(), 0..4)), 8),
        noise in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let columns: Vec<Column> = fields.iter().map(|(name, t)| column(name, t.clone())).collect();
        let mut decoder = decoder(&columns);
        let mut kept = vec![];
        for (record, (cut, bytes)) in records.iter().zip(&damage) {
            let text = record.to_string();
            decoder.decode(&Record::of_value(text.as_bytes())).unwrap();
            kept.push(record.clone());
            for broken in [damaged(&text, *cut, bytes), noise.clone()] {
                let parsed = serde_json::from_slice::<serde_json::Value>(&broken);
                if parsed.is_err() {
                    prop_assert!(decoder.decode(&Record::of_value(&broken)).is_err(), "{:?}", broken);
                }
            }
        }
        assert_rows(&fields, &kept, &mut decoder);
    }

    /// A value is skipped exactly when serde_json reads it (but for halves of surrogate pairs, which only it refuses).
    #[test]
    fn unknown_values_must_be_json(text in "[\\[\\]{}:,\"a0-9eE.+ -]{0,12}|[\\[\\]{},:1]{0,8}") {
        let mut decoder = decoder(&[column("a", SqlType::Text)]);
        let record = format!("{{\"x\":{text}}}");
        let is_json = serde_json::from_str::<BTreeMap<String, serde_json::Value>>(&record).is_ok();
        let is_overflow = text.contains(['e', 'E']);
        prop_assume!(is_json || !is_overflow);
        prop_assert_eq!(decoder.decode(&Record::of_value(record.as_bytes())).is_ok(), is_json, "{}", record);
    }

    #[test]
    fn jsonb_is_equal_json_and_normal(value in value_of(&SqlType::Struct(vec![
        ("b".into(), SqlType::Text), ("aa".into(), SqlType::Int8), ("c".into(), SqlType::Array(Box::new(SqlType::Bool))),
    ]))) {
        let text = crate::jsonb_text(&value.to_string()).unwrap();
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        prop_assert_eq!(crate::jsonb_text(&text).unwrap(), text);
    }
}
