//! The generator, and with it the computed log.

use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::util::pretty::pretty_format_batches;
use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::{BadRecord, Batch, Positions, ReadMode, Split};

fn spec(columns: &[(&str, SqlType, ColumnSource)], options: &[(&str, &str)]) -> SourceSpec {
    let column = |(name, sql_type, source): &(&str, SqlType, ColumnSource)| Column {
        name: name.to_string(),
        sql_type: sql_type.clone(),
        source: source.clone(),
    };
    SourceSpec {
        name: "g".into(),
        columns: columns.iter().map(column).collect(),
        options: Options::new(options.iter().map(|(name, value)| (name.to_string(), value.to_string()))).unwrap(),
        format: None,
        bad_record: BadRecord::DeadLetter,
    }
}

fn error(columns: &[(&str, SqlType, ColumnSource)], options: &[(&str, &str)]) -> String {
    Generator.create(spec(columns, options)).unwrap_err().message().to_string()
}

/// Reads until the reader says that it is finished.
fn read_all(source: &dyn Source, positions: Positions, mode: ReadMode, bytes_max: usize) -> Vec<Batch> {
    let mut reader = source.read(positions, vec![0], mode).unwrap();
    let mut batches = vec![];
    loop {
        let batch = reader.poll(Duration::from_secs(5), bytes_max).unwrap();
        let finished = batch.finished;
        batches.push(batch);
        if finished {
            return batches;
        }
    }
}

fn ids(batches: &[Batch]) -> Vec<i64> {
    batches.iter().flat_map(|b| b.rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

const ID: (&str, SqlType, ColumnSource) = ("id", SqlType::Int8, ColumnSource::Value);

#[test]
fn every_type_has_values() {
    let value = |name, t| (name, t, ColumnSource::Value);
    let columns = [
        ID,
        value("amount", SqlType::Numeric(Some((6, 2)))),
        value("word", SqlType::Varchar(Some(4))),
        value("pick", SqlType::Text),
        value("at", SqlType::Timestamptz),
        value("day", SqlType::Date),
        value("on", SqlType::Bool),
        value("ratio", SqlType::Float8),
        value("u", SqlType::Uuid),
        value("j", SqlType::Jsonb),
        value("l", SqlType::Array(Box::new(SqlType::Int4))),
        value("s", SqlType::Struct(vec![("a".into(), SqlType::Date), ("b".into(), SqlType::Char(2))])),
        ("p", SqlType::Int4, ColumnSource::Split),
        ("o", SqlType::Int8, ColumnSource::Position),
    ];
    let options = [
        ("rows", "4"),
        ("splits", "2"),
        ("fields.id.kind", "sequence"),
        ("fields.id.start", "100"),
        ("fields.pick.values", "red, green,blue"),
        ("fields.at.kind", "sequence"),
        ("fields.at.step", "1 day 1 hour"),
        ("fields.day.max", "2026-01-02"),
        ("fields.ratio.min", "-1"),
        ("fields.ratio.max", "-0.5"),
        ("fields.word.nulls", "0.5"),
    ];
    let source = Generator.create(spec(&columns, &options)).unwrap();
    let all = (0..columns.len()).collect();
    let mut reader = source.read(source.start().unwrap(), all, ReadMode::Follow).unwrap();
    let batch = reader.poll(Duration::ZERO, 1 << 20).unwrap();
    assert!(batch.finished);
    expect![[r#"
        +-----+--------+------+-------+----------------------+------------+-------+---------------------+--------------------------------------+---------------------------+----------------+------------------------+---+---+
        | id  | amount | word | pick  | at                   | day        | on    | ratio               | u                                    | j                         | l              | s                      | p | o |
        +-----+--------+------+-------+----------------------+------------+-------+---------------------+--------------------------------------+---------------------------+----------------+------------------------+---+---+
        | 100 | 276.23 | gvmk | red   | 2026-01-01T00:00:00Z | 2026-01-01 | false | -0.5423009518571353 | 256e9a20-4e27-44f2-9625-9fc765d92633 | {"n": 829, "tag": "tnmt"} | [178, 134, 39] | {a: 2026-11-30, b: ba} | 0 | 0 |
        | 102 | 879.10 | mafg | green | 2026-01-03T02:00:00Z | 2026-01-01 | true  | -0.8460252084216189 | c88943c3-9425-4458-a2c7-d5921fc82a7a | {"n": 192, "tag": "fypm"} | [476, 293]     | {a: 2026-03-20, b: lp} | 0 | 1 |
        | 101 | 215.86 | kskp | green | 2026-01-02T01:00:00Z | 2026-01-01 | false | -0.8027713544715404 | 3d07a880-f3f7-40bb-91b8-b430ca467630 | {"n": 352, "tag": "pahu"} | [8, 79]        | {a: 2026-07-23, b: yk} | 1 | 0 |
        | 103 | 150.91 |      | blue  | 2026-01-04T03:00:00Z | 2026-01-01 | true  | -0.9407575214896677 | 9440b41f-157e-44c0-8595-2c476339cdaf | {"n": 820, "tag": "vxox"} | []             | {a: 2026-07-14, b: gm} | 1 | 1 |
        +-----+--------+------+-------+----------------------+------------+-------+---------------------+--------------------------------------+---------------------------+----------------+------------------------+---+---+"#]].assert_eq(&pretty_format_batches(&[batch.rows]).unwrap().to_string());
}

#[test]
fn rows_become_due_by_the_clock_and_after_a_restart_go_on() {
    let source = Generator.create(spec(&[ID], &[("rows.per.second", "1000")])).unwrap();
    let begin: Positions = [(Split(0), 1_000_000)].into();
    let mut reader = source.read(begin, vec![0], ReadMode::Follow).unwrap();
    let mut n_rows = 0;
    while n_rows < 20 {
        let batch = reader.poll(Duration::from_secs(5), 1 << 20).unwrap();
        assert!(!batch.finished);
        n_rows += batch.rows.num_rows();
    }
    let end = source.end().unwrap()[&Split(0)];
    assert!((1_000_020..2_000_000).contains(&end), "{end}");
    // A second reader sees what the first one saw, and ends there.
    let until = ReadMode::Until([(Split(0), 1_000_020)].into());
    let batches = read_all(&*source, [(Split(0), 1_000_000)].into(), until, 1 << 20);
    assert_eq!(ids(&batches).len(), 20);
}

#[test]
fn wrong_options_are_refused() {
    let text = ("word", SqlType::Varchar(Some(3)), ColumnSource::Value);
    let columns = [ID, text];
    let errors = [
        error(&columns, &[("fields.ib.kind", "sequence")]),
        error(&columns, &[("fields.id.kin", "sequence")]),
        error(&columns, &[("fields.id.kind", "series")]),
        error(&columns, &[("fields.id.min", "x")]),
        error(&columns, &[("fields.id.min", "7"), ("fields.id.max", "3")]),
        error(&columns, &[("fields.word.values", "one,three")]),
        error(&columns, &[("fields.word.length", "4")]),
        error(&columns, &[("fields.id.nulls", "2")]),
        error(&columns, &[("splits", "0")]),
        error(&columns, &[("rows", "-1")]),
        error(&columns, &[("row", "1")]),
        error(&[("b", SqlType::Bool, ColumnSource::Value)], &[("fields.b.kind", "sequence")]),
    ];
    expect![[r#"
        option "fields.ib.kind" names no column
        option "fields.id.kin" is not recognized
        invalid value for option "fields.id.kind": it must be random or sequence
        invalid value for option "fields.id.min": "x" is not a bigint
        invalid value for option "fields.id.max": it is less than min
        invalid value for option "fields.word.values": value too long for type character varying(3)
        invalid value for option "fields.word.length": it is more than 3
        invalid value for option "fields.id.nulls": it must be between 0 and 1
        invalid value for option "splits": it must be between 1 and 1024
        invalid value for option "rows": it must be greater than zero
        option "row" is not recognized
        invalid value for option "fields.b.kind": a column of type boolean cannot be a sequence"#]]
    .assert_eq(&errors.join("\n"));
}

proptest! {
    /// Whatever the batches are, each split's rows are the same, and together they are all rows once.
    #[test]
    fn any_position_can_be_read_again(rows in 1..300i64, splits in 1..5u32, bytes in 1..2000usize, cut in 0..300i64) {
        let (n, s) = (rows.to_string(), splits.to_string());
        let options = [("rows", n.as_str()), ("splits", s.as_str()), ("fields.id.kind", "sequence")];
        let source = Generator.create(spec(&[ID], &options)).unwrap();
        let end = source.end().unwrap();
        let mut all = ids(&read_all(&*source, source.start().unwrap(), ReadMode::Follow, bytes));
        all.sort_unstable();
        prop_assert_eq!(&all, &(0..rows).collect::<Vec<_>>());
        prop_assert_eq!(end.values().sum::<i64>(), rows);

        let middle: Positions = end.iter().map(|(split, end)| (*split, (*end).min(cut))).collect();
        let before = read_all(&*source, source.start().unwrap(), ReadMode::Until(middle.clone()), bytes);
        let after = read_all(&*source, middle, ReadMode::Until(end), bytes);
        let mut both = ids(&before);
        both.extend(ids(&after));
        both.sort_unstable();
        prop_assert_eq!(both, all);
    }
}
