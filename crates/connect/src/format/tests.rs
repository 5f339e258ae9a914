//! What the tests of the formats share, and tests of metadata columns and of `format_spec`.

use arrow::util::pretty::pretty_format_batches;
use expect_test::{Expect, expect};
use tidewire_types::SqlType;

use super::*;

pub(crate) fn column(name: &str, sql_type: SqlType) -> Column {
    Column { name: name.into(), sql_type, source: ColumnSource::Value }
}

pub(crate) fn columns(columns: &[(&str, SqlType)]) -> Vec<Column> {
    columns.iter().map(|(name, t)| column(name, t.clone())).collect()
}

fn spec(encode: &str, options: &[(&str, &str)]) -> FormatSpec {
    let options = options.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    FormatSpec { format: "PLAIN".into(), encode: encode.into(), options: Options::new(options).unwrap() }
}

/// Decodes the values, one record each; expects the errors, then the rows as a table. The batch must have exactly the
/// types of the columns.
pub(crate) fn check_with(
    encode: &str,
    options: &[(&str, &str)],
    columns: &[Column],
    projection: &[usize],
    values: &[&str],
    expected: Expect,
) {
    let mut decoder = Decoder::new(columns, projection, &spec(encode, options)).unwrap();
    let mut found = String::new();
    let mut n_good = 0;
    for value in values {
        match decoder.decode(&Record::of_value(value.as_bytes())) {
            Ok(()) => n_good += 1,
            Err(error) => found += &format!("{error}\n"),
        }
        assert_eq!(decoder.n_rows(), n_good);
    }
    let batch = decoder.finish().unwrap();
    assert_eq!(batch.num_rows(), n_good);
    for (array, idx) in batch.columns().iter().zip(projection) {
        assert_eq!(*array.data_type(), columns[*idx].sql_type.data_type());
    }
    found += &format!("{}\n", pretty_format_batches(&[batch]).unwrap());
    // Blanks at the end of a line do not survive in an editor.
    let found = found.lines().map(|l| l.trim_end().to_string() + "\n").collect::<String>();
    expected.assert_eq(&found);
}

#[test]
fn metadata_columns_come_with_the_values() {
    let header = SqlType::Struct(vec![("key".into(), SqlType::Text), ("value".into(), SqlType::Bytea)]);
    let all = [
        ("k", SqlType::Int8, ColumnSource::Key),
        ("a", SqlType::Int4, ColumnSource::Value),
        ("p", SqlType::Int4, ColumnSource::Split),
        ("o", SqlType::Int8, ColumnSource::Position),
        ("t", SqlType::Timestamptz, ColumnSource::Timestamp),
        ("h", SqlType::Array(Box::new(header)), ColumnSource::Headers),
        ("x", SqlType::Bytea, ColumnSource::Header("x".into())),
    ]
    .map(|(name, sql_type, source)| Column { name: name.into(), sql_type, source });
    let mut decoder = Decoder::new(&all, &[0, 1, 2, 3, 4, 5, 6], &spec("JSON", &[])).unwrap();
    assert!(decoder.needs_headers());
    let record = Record {
        key: Some(b"7"),
        value: Some(br#"{"a": 1}"#),
        split: Split(3),
        position: 42,
        timestamp_us: Some(1_000_000),
        headers: &[("x", Some(b"1")), ("y", None), ("x", Some(b"\xff"))],
    };
    decoder.decode(&record).unwrap();
    let bad_key = decoder.decode(&Record { key: Some(b"seven"), ..record }).unwrap_err();
    assert_eq!(bad_key, "column \"k\": invalid input syntax for type bigint: \"seven\"");
    let no_value = decoder.decode(&Record { value: None, ..record }).unwrap_err();
    assert_eq!(no_value, "record has no value");
    decoder.decode(&Record { key: None, timestamp_us: None, headers: &[], position: 43, ..record }).unwrap();
    expect![[r#"
        +---+---+---+----+----------------------+---------------------------------------------------------------+----+
        | k | a | p | o  | t                    | h                                                             | x  |
        +---+---+---+----+----------------------+---------------------------------------------------------------+----+
        | 7 | 1 | 3 | 42 | 1970-01-01T00:00:01Z | [{key: x, value: 31}, {key: y, value: }, {key: x, value: ff}] | ff |
        |   | 1 | 3 | 43 |                      | []                                                            |    |
        +---+---+---+----+----------------------+---------------------------------------------------------------+----+"#]].assert_eq(&pretty_format_batches(&[decoder.finish().unwrap()]).unwrap().to_string());
}

#[test]
fn a_record_is_bad_whatever_is_read_of_it() {
    let all = [
        column("a", SqlType::Int4),
        Column { name: "o".into(), sql_type: SqlType::Int8, source: ColumnSource::Position },
    ];
    let mut decoder = Decoder::new(&all, &[1], &spec("JSON", &[])).unwrap();
    assert!(decoder.decode(&Record::of_value(b"{nonsense")).is_err());
    assert!(decoder.decode(&Record { value: None, ..Record::of_value(b"") }).is_err());
    assert!(decoder.decode(&Record::of_value(b"{}")).is_ok());
    assert_eq!(decoder.finish().unwrap().num_rows(), 1);

    let mut only_metadata = Decoder::new(&all[1..], &[0], &spec("JSON", &[])).unwrap();
    assert!(only_metadata.decode(&Record { value: None, ..Record::of_value(b"") }).is_ok());
    let mut nothing = Decoder::new(&all, &[], &spec("JSON", &[])).unwrap();
    assert!(nothing.decode(&Record::of_value(b"{}")).is_ok());
    assert_eq!(nothing.finish().unwrap().num_rows(), 1);
}

#[test]
fn bytes_are_one_column() {
    let one = [column("raw", SqlType::Text)];
    check_with(
        "BYTES",
        &[],
        &one,
        &[0],
        &["a", ""],
        expect![[r#"
        +-----+
        | raw |
        +-----+
        | a   |
        |     |
        +-----+
    "#]],
    );
    let mut decoder = Decoder::new(&one, &[0], &spec("BYTES", &[])).unwrap();
    assert_eq!(decoder.decode(&Record::of_value(b"ab\xff")).unwrap_err(), "column \"raw\": not UTF-8 at byte 3");
    let two = [column("a", SqlType::Bytea), column("b", SqlType::Bytea)];
    let error = Decoder::new(&two, &[0], &spec("BYTES", &[])).unwrap_err();
    assert_eq!(error.message(), "ENCODE BYTES needs exactly one column");
}

#[test]
fn the_format_comes_from_the_statement_or_from_with() {
    let with = |pairs: &[(&str, &str)]| {
        Options::new(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string()))).unwrap()
    };
    let found = format_spec(&with(&[("value_format", "json"), ("timestamp.handling.mode", "milli")]), None).unwrap();
    assert_eq!(found, spec("JSON", &[("timestamp", "milli")]));
    let found = format_spec(&with(&[("value_format", "DELIMITED"), ("value_delimiter", ";")]), None).unwrap();
    assert_eq!(found, spec("CSV", &[("delimiter", ";")]));
    let error = |options: &[(&str, &str)], given| {
        let error = format_spec(&with(options), given).unwrap_err();
        format!("{} {}", error.state().code(), error.message())
    };
    assert_eq!(error(&[], None), "42601 the source does not say how its values are encoded");
    assert_eq!(
        error(&[("json.tmestamp", "x"), ("format", "json")], None),
        "22023 option \"tmestamp\" is not recognized"
    );
    assert_eq!(error(&[], Some(spec("JSN", &[]))), "42704 encoding \"JSN\" does not exist");
    assert_eq!(error(&[], Some(spec("AVRO", &[]))), "0A000 ENCODE AVRO is not supported");
    let debezium = FormatSpec { format: "DEBEZIUM".into(), ..spec("JSON", &[]) };
    assert_eq!(error(&[], Some(debezium)), "0A000 FORMAT DEBEZIUM is not supported");
}
