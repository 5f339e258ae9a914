//! What a value reads as, and what is refused in which words.

use super::*;
use crate::encode::Rows;

fn text(value: &str, sql_type: &SqlType) -> Result<ScalarValue> {
    decode(Some(value.as_bytes()), Format::Text, sql_type, None)
}

/// Reads a text, writes it in binary, reads that, and gives the text of it.
fn round(value: &str, sql_type: &SqlType) -> String {
    let from_text = text(value, sql_type).unwrap();
    let bytes = written(&from_text, sql_type, Format::Binary);
    let from_binary = decode(Some(&bytes), Format::Binary, sql_type, None).unwrap();
    assert_eq!(from_text, from_binary, "{value}");
    String::from_utf8(written(&from_binary, sql_type, Format::Text)).unwrap()
}

fn written(value: &ScalarValue, sql_type: &SqlType, format: Format) -> Vec<u8> {
    let array = value.to_array().unwrap();
    let batch = arrow::array::RecordBatch::try_from_iter_with_nullable([("v", array, true)]).unwrap();
    let style = crate::encode::Style { time_zone: None };
    let rows = Rows::new(&batch, std::slice::from_ref(sql_type), &[format], style).unwrap();
    let mut out = bytes::BytesMut::new();
    rows.write(0, &mut out).unwrap();
    // Type, length, number of columns, length of the value.
    out[11..].to_vec()
}

#[test]
fn every_type_round_trips() {
    let array = |t: SqlType| SqlType::Array(Box::new(t));
    for (value, sql_type, shown) in [
        ("yes", SqlType::Bool, "t"),
        ("-7", SqlType::Int2, "-7"),
        (" 42 ", SqlType::Int4, "42"),
        ("9223372036854775807", SqlType::Int8, "9223372036854775807"),
        ("1.5", SqlType::Float4, "1.5"),
        ("-Infinity", SqlType::Float8, "-Infinity"),
        ("1e-3", SqlType::Numeric(None), "0.001"),
        ("-12345.678", SqlType::Numeric(Some((12, 2))), "-12345.68"),
        ("0.005", SqlType::Numeric(Some((12, 2))), "0.01"),
        ("100000", SqlType::Numeric(Some((12, 2))), "100000.00"),
        ("-12e4", SqlType::Numeric(Some((12, 2))), "-120000.00"),
        ("0e50000", SqlType::Numeric(None), "0"),
        ("é", SqlType::Text, "é"),
        ("abc", SqlType::Varchar(Some(10)), "abc"),
        ("\\x00ff", SqlType::Bytea, "\\x00ff"),
        ("a\\\\b\\001", SqlType::Bytea, "\\x615c6201"),
        ("2026-11-22", SqlType::Date, "2026-11-22"),
        ("Jan 8 1999", SqlType::Date, "1999-01-08"),
        ("infinity", SqlType::Date, "infinity"),
        ("04:05:06.789", SqlType::Time, "04:05:06.789"),
        ("2026-11-22 04:05:06", SqlType::Timestamp, "2026-11-22 04:05:06"),
        ("2026-11-22T04:05:06+02", SqlType::Timestamp, "2026-11-22 04:05:06"),
        ("2026-11-22 04:05:06+02", SqlType::Timestamptz, "2026-11-22 02:05:06+00"),
        ("1 day 02:00:00", SqlType::Interval, "1 day 02:00:00"),
        ("1 year -2 mons +3 days -04:05:06.7", SqlType::Interval, "10 mons 3 days -04:05:06.7"),
        ("1.5 months", SqlType::Interval, "1 mon 15 days"),
        ("5min ago", SqlType::Interval, "-00:05:00"),
        ("P1Y2M3DT4H5M6.5S", SqlType::Interval, "1 year 2 mons 3 days 04:05:06.5"),
        ("90", SqlType::Interval, "00:01:30"),
        ("A0EEBC999C0B4EF8BB6D6BB9BD380A11", SqlType::Uuid, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("{\"b\" :1}", SqlType::Json, "{\"b\" :1}"),
        ("{\"bb\":[1,2] ,\"a\": null}", SqlType::Jsonb, "{\"a\": null, \"bb\": [1, 2]}"),
        ("{1, NULL ,3}", array(SqlType::Int4), "{1,NULL,3}"),
        ("{}", array(SqlType::Int4), "{}"),
        (r#"{"a b",c\"d,"null"}"#, array(SqlType::Text), r#"{"a b","c\"d","null"}"#),
    ] {
        assert_eq!(round(value, &sql_type), shown, "{sql_type}");
    }
    let nested = array(array(SqlType::Int4));
    let value = text("{{1,2},{3,4}}", &nested).unwrap();
    assert_eq!(written(&value, &nested, Format::Text), b"{{1,2},{3,4}}");
}

#[test]
fn a_moment_without_a_zone_is_of_the_session() {
    let zone = "Europe/Amsterdam".parse().ok();
    let value = decode(Some(b"2026-07-01 12:00:00"), Format::Text, &SqlType::Timestamptz, zone).unwrap();
    assert_eq!(written(&value, &SqlType::Timestamptz, Format::Text), b"2026-07-01 10:00:00+00");
    let moments = SqlType::Array(Box::new(SqlType::Timestamptz));
    let value = decode(Some(b"{2026-07-01 12:00:00,2026-07-01 12:00:00Z}"), Format::Text, &moments, zone).unwrap();
    let shown = br#"{"2026-07-01 10:00:00+00","2026-07-01 12:00:00+00"}"#;
    assert_eq!(written(&value, &moments, Format::Text), shown);
}

#[test]
fn today_is_the_day_when_it_is_read() {
    let day = |word| match text(word, &SqlType::Date).unwrap() {
        ScalarValue::Date32(Some(days)) => days,
        other => panic!("{other:?}"),
    };
    let before = day("today");
    assert!((before..=before + 1).contains(&(day("yesterday") + 1)));
    assert!((before..=before + 1).contains(&day("now")));
}

#[test]
fn what_does_not_fit_is_refused_as_postgres_does() {
    for (value, sql_type, code, message) in [
        ("x", SqlType::Int4, "22P02", "invalid input syntax for type integer: \"x\""),
        ("", SqlType::Int8, "22P02", "invalid input syntax for type bigint: \"\""),
        ("70000", SqlType::Int2, "22003", "value \"70000\" is out of range for type smallint"),
        ("1e400", SqlType::Float8, "22003", "\"1e400\" is out of range for type double precision"),
        ("perhaps", SqlType::Bool, "22P02", "invalid input syntax for type boolean: \"perhaps\""),
        ("1.2.3", SqlType::Numeric(Some((5, 2))), "22P02", "invalid input syntax for type numeric: \"1.2.3\""),
        ("1000", SqlType::Numeric(Some((5, 2))), "22003", "numeric field overflow"),
        ("1e99999", SqlType::Numeric(None), "22003", "numeric field overflow"),
        ("soon", SqlType::Date, "22007", "invalid input syntax for type date: \"soon\""),
        ("2026-13-40", SqlType::Date, "22008", "date/time field value out of range: \"2026-13-40\""),
        ("3 apples", SqlType::Interval, "22007", "invalid input syntax for type interval: \"3 apples\""),
        ("12", SqlType::Uuid, "22P02", "invalid input syntax for type uuid: \"12\""),
        ("{", SqlType::Jsonb, "22P02", "invalid input syntax for type json"),
        ("\\xzz", SqlType::Bytea, "22P02", "invalid hexadecimal digit: \"z\""),
        ("1,2", SqlType::Array(Box::new(SqlType::Int4)), "22P02", "malformed array literal: \"1,2\""),
        ("{1", SqlType::Array(Box::new(SqlType::Int4)), "22P02", "malformed array literal: \"{1\""),
    ] {
        let error = text(value, &sql_type).unwrap_err();
        assert_eq!((error.state().code(), error.message()), (code, message));
    }
    let short = decode(Some(&[1, 2]), Format::Binary, &SqlType::Int4, None).unwrap_err();
    assert_eq!(short.state().code(), "22P03");
    let not_utf8 = decode(Some(&[0xff]), Format::Text, &SqlType::Text, None).unwrap_err();
    assert_eq!(not_utf8.state().code(), "22021");
}

#[test]
fn null_has_the_type_of_its_parameter() {
    let value = decode(None, Format::Binary, &SqlType::Uuid, None).unwrap();
    assert_eq!(value, ScalarValue::Utf8View(None));
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
        let types = [
            SqlType::Bool, SqlType::Int2, SqlType::Int8, SqlType::Float4, SqlType::Numeric(None), SqlType::Bytea,
            SqlType::Date, SqlType::Time, SqlType::Timestamp, SqlType::Timestamptz, SqlType::Interval, SqlType::Uuid,
            SqlType::Jsonb, SqlType::Array(Box::new(SqlType::Numeric(None))),
        ];
        for sql_type in types {
            // The property is that it returns.
            let _ = decode(Some(&bytes), Format::Binary, &sql_type, None);
            let _ = decode(Some(&bytes), Format::Text, &sql_type, None);
        }
    }
}
