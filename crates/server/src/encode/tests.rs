//! Text and binary of every type, and every Arrow type that carries one.

use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{Fields, Int32Type, IntervalMonthDayNano, IntervalYearMonthType, i256};
use expect_test::{Expect, expect};

use super::*;

/// The values of a column in text, one a line; NULL is `-`.
fn texts(array: ArrayRef, sql_type: &SqlType, style: Style) -> String {
    fields(&array, sql_type, Format::Text, style)
        .into_iter()
        .map(|value| value.map_or("-".into(), |bytes| String::from_utf8(bytes).unwrap()))
        .collect::<Vec<_>>()
        .join("\n")
}

fn fields(array: &ArrayRef, sql_type: &SqlType, format: Format, style: Style) -> Vec<Option<Vec<u8>>> {
    let column = Column::new(array, sql_type).unwrap();
    (0..array.len())
        .map(|row| {
            let mut out = BytesMut::new();
            column.write_field(row, format, style, &mut out).unwrap();
            let length = i32::from_be_bytes(out[..4].try_into().unwrap());
            assert_eq!(length.max(0) as usize, out.len() - 4);
            (length >= 0).then(|| out[4..].to_vec())
        })
        .collect()
}

fn check(array: impl Array + 'static, expected: Expect) {
    let array: ArrayRef = Arc::new(array);
    let sql_type = SqlType::of_data_type(array.data_type());
    expected.assert_eq(&texts(array, &sql_type, Style { time_zone: None }));
}

fn binary(array: impl Array + 'static, sql_type: &SqlType) -> Vec<String> {
    let array: ArrayRef = Arc::new(array);
    let values = fields(&array, sql_type, Format::Binary, Style { time_zone: None });
    values.into_iter().map(|value| value.unwrap().iter().map(|byte| format!("{byte:02x}")).collect()).collect()
}

#[test]
fn numbers() {
    check(BooleanArray::from(vec![Some(true), Some(false), None]), expect!["t\nf\n-"]);
    check(Int64Array::from(vec![i64::MIN, 0, 42]), expect!["-9223372036854775808\n0\n42"]);
    check(UInt64Array::from(vec![u64::MAX]), expect!["18446744073709551615"]);
    check(UInt8Array::from(vec![255]), expect!["255"]);
    check(
        Float64Array::from(vec![
            0.0,
            -0.0,
            1.0,
            0.1,
            1e14,
            1e15,
            1e20,
            1e-4,
            1e-5,
            123456.789,
            f64::NAN,
            f64::INFINITY,
            -f64::INFINITY,
            1.2345678901234568e17,
        ]),
        expect![[r#"
            0
            -0
            1
            0.1
            100000000000000
            1e+15
            1e+20
            0.0001
            1e-05
            123456.789
            NaN
            Infinity
            -Infinity
            1.2345678901234568e+17"#]],
    );
    check(
        Float32Array::from(vec![1e5, 1e6, 1_234_567.0, 0.1, 16_777_216.0]),
        expect!["100000\n1e+06\n1.234567e+06\n0.1\n1.6777216e+07"],
    );
}

#[test]
fn numerics() {
    let two = |values: Vec<i128>| Decimal128Array::from(values).with_precision_and_scale(12, 2).unwrap();
    check(two(vec![0, 5, -5, 150, -12_345]), expect!["0.00\n0.05\n-0.05\n1.50\n-123.45"]);
    let plain: ArrayRef = Arc::new(
        Decimal128Array::from(vec![1_500_000_000, -2_000_000_000, 1, 0]).with_precision_and_scale(38, 9).unwrap(),
    );
    let shown = texts(plain, &SqlType::Numeric(None), Style { time_zone: None });
    expect!["1.5\n-2\n0.000000001\n0"].assert_eq(&shown);
    let wide = Decimal256Array::from(vec![i256::from_i128(-123_456)]).with_precision_and_scale(50, 3).unwrap();
    check(wide, expect!["-123.456"]);
    check(Decimal128Array::from(vec![7]).with_precision_and_scale(5, -2).unwrap(), expect!["700"]);
    check(Decimal64Array::from(vec![7]).with_precision_and_scale(5, 1).unwrap(), expect!["0.7"]);
}

/// Bytes as PostgreSQL 15's `numeric_send` gives them.
#[test]
fn numerics_in_binary() {
    let numeric = SqlType::Numeric(Some((12, 2)));
    let two = |value: i128| Decimal128Array::from(vec![value]).with_precision_and_scale(12, 2).unwrap();
    assert_eq!(binary(two(0), &numeric), ["0000000000000002"]);
    assert_eq!(binary(two(5), &numeric), ["0001ffff0000000201f4"]);
    assert_eq!(binary(two(-1_234_567), &numeric), ["0003000140000002000109291a2c"]);
    assert_eq!(binary(two(1_000_000), &numeric), ["00010001000000020001"]);
}

#[test]
fn times() {
    check(
        Date32Array::from(vec![0, 20_778, -719_528, i32::MAX, 2_932_897]),
        expect!["1970-01-01\n2026-11-21\n0001-01-01 BC\ninfinity\n10000-01-01"],
    );
    check(Date64Array::from(vec![86_400_000]), expect!["1970-01-02"]);
    check(
        Time64MicrosecondArray::from(vec![0, 3_661_000_001, 86_399_999_000]),
        expect!["00:00:00\n01:01:01.000001\n23:59:59.999"],
    );
    check(Time32SecondArray::from(vec![61]), expect!["00:01:01"]);
    check(
        TimestampMicrosecondArray::from(vec![0, -1, 1_700_000_000_123_400, i64::MIN]),
        expect!["1970-01-01 00:00:00\n1969-12-31 23:59:59.999999\n2023-11-14 22:13:20.1234\n-infinity"],
    );
    check(TimestampSecondArray::from(vec![1]), expect!["1970-01-01 00:00:01"]);
    check(TimestampNanosecondArray::from(vec![1_500]).with_timezone("UTC"), expect!["1970-01-01 00:00:00.000001+00"]);
}

#[test]
fn a_moment_is_shown_in_the_zone_of_the_session() {
    let at = |zone: &str| {
        let array: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from(vec![1_700_000_000_000_000]).with_timezone("UTC"));
        texts(array, &SqlType::Timestamptz, Style::new(Some(zone)))
    };
    assert_eq!(at("UTC"), "2023-11-14 22:13:20+00");
    assert_eq!(at("Europe/Amsterdam"), "2023-11-14 23:13:20+01");
    assert_eq!(at("Asia/Kolkata"), "2023-11-15 03:43:20+05:30");
    assert_eq!(at("America/New_York"), "2023-11-14 17:13:20-05");
}

#[test]
fn intervals() {
    let interval = |months, days, micros: i64| IntervalMonthDayNano::new(months, days, micros * 1000);
    check(
        IntervalMonthDayNanoArray::from(vec![
            interval(0, 0, 0),
            interval(14, 3, 14_706_789_000),
            interval(-14, 3, -1_000_000),
            interval(0, -1, 1_500_000),
            interval(1, 0, 0),
            interval(0, 0, 360_000_000_000 * 3),
        ]),
        expect![[r#"
            00:00:00
            1 year 2 mons 3 days 04:05:06.789
            -1 years -2 mons +3 days -00:00:01
            -1 days +00:00:01.5
            1 mon
            300:00:00"#]],
    );
    check(PrimitiveArray::<IntervalYearMonthType>::from(vec![13]), expect!["1 year 1 mon"]);
    check(DurationMillisecondArray::from(vec![1500]), expect!["00:00:01.5"]);
}

#[test]
fn strings_and_bytes() {
    check(StringArray::from(vec![Some("é"), Some(""), None]), expect!["é\n\n-"]);
    check(LargeStringArray::from(vec!["a"]), expect!["a"]);
    check(BinaryArray::from(vec![&b"\x00\xff"[..], b""]), expect!["\\x00ff\n\\x"]);
    check(FixedSizeBinaryArray::try_from_iter([[1u8, 2]].into_iter()).unwrap(), expect!["\\x0102"]);
    check(vec!["x", "y", "x"].into_iter().collect::<DictionaryArray<Int32Type>>(), expect!["x\ny\nx"]);
    let runs = RunArray::try_new(&Int32Array::from(vec![2, 3]), &StringArray::from(vec!["a", "b"])).unwrap();
    check(runs, expect!["a\na\nb"]);
    check(NullArray::new(2), expect!["-\n-"]);
    let padded: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "abcd"]));
    assert_eq!(texts(padded, &SqlType::Char(3), Style { time_zone: None }), "a  \nabcd");
}

#[test]
fn arrays() {
    let texts = ["plain", "two words", "", "NULL", "q\"uo\\te", "a,b", "{x}"];
    let mut lists = ListBuilder::new(StringBuilder::new());
    texts.iter().for_each(|text| lists.values().append_value(text));
    lists.values().append_null();
    lists.append(true);
    lists.append(true);
    lists.append(false);
    check(
        lists.finish(),
        expect![[r#"
        {plain,"two words","","NULL","q\"uo\\te","a,b","{x}",NULL}
        {}
        -"#]],
    );
    let inner = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(1), Some(2)]),
        Some(vec![Some(3), None]),
        Some(vec![Some(4)]),
    ]);
    let field = Arc::new(arrow::datatypes::Field::new("item", inner.data_type().clone(), true));
    let nested = ListArray::new(field, OffsetBuffer::from_lengths([2, 1]), Arc::new(inner), None);
    let sql_type = SqlType::of_data_type(nested.data_type());
    assert_eq!(
        binary(nested.clone(), &sql_type)[0],
        [
            "00000002", "00000001", "00000017", "00000002", "00000001", "00000002", "00000001", "00000004", "00000001",
            "00000004", "00000002", "00000004", "00000003", "ffffffff"
        ]
        .concat()
    );
    check(nested, expect!["{{1,2},{3,NULL}}\n{{4}}"]);
    check(
        FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), Some(2)])], 2),
        expect!["{1,2}"],
    );
}

#[test]
fn a_ragged_array_has_no_binary_form() {
    let inner = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1)]), Some(vec![])]);
    let field = Arc::new(arrow::datatypes::Field::new("item", inner.data_type().clone(), true));
    let nested: ArrayRef = Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([2]), Arc::new(inner), None));
    let column = Column::new(&nested, &SqlType::of_data_type(nested.data_type())).unwrap();
    let error = column.write_field(0, Format::Binary, Style { time_zone: None }, &mut BytesMut::new()).unwrap_err();
    assert_eq!(error.state(), SqlState::DataException);
}

#[test]
fn rows() {
    let fields = Fields::from(vec![
        arrow::datatypes::Field::new("a", DataType::Int32, true),
        arrow::datatypes::Field::new("b", DataType::Utf8, true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![Some(1), None])),
        Arc::new(StringArray::from(vec![Some("x (y) \"z\""), Some("")])),
    ];
    let array = StructArray::new(fields, columns, None);
    check(
        array.clone(),
        expect![[r#"
        (1,"x (y) ""z""")
        (,"")"#]],
    );
    let sql_type = SqlType::of_data_type(array.data_type());
    assert_eq!(binary(array, &sql_type)[1], "0000000200000017ffffffff0000001900000000");
}

#[test]
fn a_map_is_shown_as_text() {
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    maps.keys().append_value("a");
    maps.values().append_value(1);
    maps.append(true).unwrap();
    check(maps.finish(), expect!["{a: 1}"]);
}

#[test]
fn uuids() {
    let text = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    let bytes = parse_uuid(text).unwrap();
    assert_eq!(write_uuid(bytes), text);
    assert_eq!(parse_uuid("{A0EEBC999C0B4EF8BB6D6BB9BD380A11}"), Some(bytes));
    assert_eq!(parse_uuid("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1"), None);
    assert_eq!(parse_uuid("a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11"), None);
    let views: ArrayRef = Arc::new(StringViewArray::from(vec![text]));
    let binary = fields(&views, &SqlType::Uuid, Format::Binary, Style { time_zone: None });
    assert_eq!(binary, [Some(bytes.to_vec())]);
}

#[test]
fn a_data_row_has_the_lengths_it_says() {
    let batch = RecordBatch::try_from_iter([
        ("a", Arc::new(Int32Array::from(vec![7])) as ArrayRef),
        ("b", Arc::new(StringArray::from(vec![None::<&str>])) as ArrayRef),
    ])
    .unwrap();
    let types = [SqlType::Int4, SqlType::Text];
    let rows = Rows::new(&batch, &types, &[Format::Binary, Format::Text], Style { time_zone: None }).unwrap();
    let mut out = BytesMut::new();
    rows.write(0, &mut out).unwrap();
    assert_eq!(&out[..], b"D\0\0\0\x12\0\x02\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff");
}
