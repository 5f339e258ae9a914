//! The connector of topics in memory keeps what the traits promise.
#![expect(clippy::unwrap_used, reason = "a test: what fails here fails it")]

use std::sync::Arc;
use std::time::Duration;

use tidewire_connect::{
    BadRecord, Column, ColumnSource, Connector, FormatSpec, Options, Positions, ReadMode, Source, SourceSpec, Split,
};
use tidewire_testkit::memory::{Memory, Stored};
use tidewire_types::SqlType;

fn spec(bad_record: BadRecord, options: &[(&str, &str)]) -> SourceSpec {
    let column = |name: &str, sql_type, source| Column { name: name.into(), sql_type, source };
    SourceSpec {
        name: "s".into(),
        columns: vec![
            column("id", SqlType::Int8, ColumnSource::Value),
            column("p", SqlType::Int4, ColumnSource::Split),
            column("o", SqlType::Int8, ColumnSource::Position),
        ],
        options: Options::new(options.iter().map(|(k, v)| (k.to_string(), v.to_string()))).unwrap(),
        format: Some(FormatSpec { format: "PLAIN".into(), encode: "JSON".into(), options: Options::default() }),
        bad_record,
    }
}

fn source(memory: &Memory, bad_record: BadRecord) -> Arc<dyn Source> {
    memory.create(spec(bad_record, &[("topic", "t")])).unwrap()
}

fn record(text: &str) -> Stored {
    Stored::of_value(text.to_string())
}

/// Polls until the reader has finished; rows, dead letters, skipped.
fn read(source: &dyn Source, until: Positions) -> tidewire_types::Result<(usize, usize, u64)> {
    let mut reader = source.read(source.start()?, vec![0, 2], ReadMode::Until(until))?;
    let mut read = (0, 0, 0);
    loop {
        let batch = reader.poll(Duration::from_secs(1), 20)?;
        read = (read.0 + batch.rows.num_rows(), read.1 + batch.dead_letters.len(), read.2 + batch.n_skipped);
        if batch.finished {
            return Ok(read);
        }
    }
}

#[test]
fn bad_records_become_what_the_source_says() {
    let memory = Memory::default();
    memory.append("t", 0, ["{\"id\": 1}", "bad", "{\"id\": 3}", "{}"].map(record));
    let end = source(&memory, BadRecord::Skip).end().unwrap();
    assert_eq!(end, Positions::from([(Split(0), 4)]));
    assert_eq!(read(&*source(&memory, BadRecord::DeadLetter), end.clone()).unwrap(), (3, 1, 0));
    assert_eq!(read(&*source(&memory, BadRecord::Skip), end.clone()).unwrap(), (3, 0, 1));
    let failure = read(&*source(&memory, BadRecord::Fail), end).unwrap_err();
    assert!(failure.message().contains("position 1"), "{failure}");
    // A reader stops before its end, not at the topic's.
    let until = Positions::from([(Split(0), 1)]);
    assert_eq!(read(&*source(&memory, BadRecord::Fail), until).unwrap(), (1, 0, 0));
}

#[test]
fn a_follower_sees_later_records_and_new_splits() {
    let memory = Memory::default();
    let source = source(&memory, BadRecord::Fail);
    let mut reader = source.read(source.start().unwrap(), vec![0, 1], ReadMode::Follow).unwrap();
    assert_eq!(reader.poll(Duration::from_millis(1), 1000).unwrap().rows.num_rows(), 0);
    memory.append("t", 2, [record("{\"id\": 7}")]);
    let batch = reader.poll(Duration::from_secs(1), 1000).unwrap();
    assert_eq!(batch.positions, Positions::from([(Split(2), 1)]));
    assert_eq!(batch.rows.num_rows(), 1);
    reader.set_projection(vec![0, 1, 2]);
    memory.append("t", 0, [record("{\"id\": 8}")]);
    let batch = reader.poll(Duration::from_secs(1), 1000).unwrap();
    assert_eq!((batch.rows.num_rows(), batch.rows.num_columns(), batch.finished), (1, 3, false));
}

#[test]
fn latest_is_resolved_once() {
    let memory = Memory::default();
    memory.append("t", 0, [record("{\"id\": 1}")]);
    let latest = memory.create(spec(BadRecord::Fail, &[("topic", "t"), ("scan.startup.mode", "latest")])).unwrap();
    memory.append("t", 0, [record("{\"id\": 2}")]);
    assert_eq!(latest.start().unwrap(), Positions::from([(Split(0), 1)]));
    assert_eq!(memory.ends("s"), Some(Positions::from([(Split(0), 2)])));
}
