//! Against librdkafka's in-process cluster: everything that needs no real broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use tidewire_connect::{BadRecord, Connector, FormatSpec, Health, Options, ReadMode, Source, SourceSpec, Split};
use tidewire_kafka::Kafka;
use tidewire_kafka::testing::{MockKafka, Producer};
use tidewire_types::SqlState;

use crate::reading::{ALL, DEADLINE, Seen, at, read_all, refused};

fn spec(bootstrap: &str, more: &[(&str, &str)]) -> SourceSpec {
    crate::reading::spec(bootstrap, "t", more)
}

fn create(kafka: &MockKafka, more: &[(&str, &str)]) -> Arc<dyn Source> {
    crate::reading::create(&kafka.bootstrap(), "t", more)
}

fn send(producer: &Producer, partition: i32, ids: std::ops::Range<i64>) {
    crate::reading::send(producer, "t", partition, ids);
}

/// A cluster with topic `t`, and a producer.
fn kafka(partitions: usize) -> (MockKafka, Producer) {
    let kafka = MockKafka::start(1).unwrap();
    kafka.create_topic("t", partitions).unwrap();
    let producer = Producer::new(&kafka.bootstrap(), &[]).unwrap();
    (kafka, producer)
}

#[test]
fn a_bounded_reader_gives_each_record_up_to_the_end_once_and_in_order() {
    let (kafka, producer) = kafka(2);
    send(&producer, 0, 0..100);
    send(&producer, 1, 0..50);
    let source = create(&kafka, &[]);
    let (start, end) = (source.start().unwrap(), source.end().unwrap());
    assert_eq!((start.clone(), end.clone()), (at(&[(0, 0), (1, 0)]), at(&[(0, 100), (1, 50)])));
    send(&producer, 0, 100..110);
    let mut reader = source.read(start, ALL.to_vec(), ReadMode::Until(end.clone())).unwrap();
    let seen = Seen::to_end(&mut *reader);
    assert_eq!(seen.ids(0), (0..100).collect::<Vec<_>>());
    assert_eq!(seen.ids(1), (0..50).collect::<Vec<_>>());
    assert_eq!(seen.positions, end);
    assert!(reader.poll(Duration::ZERO, 1).unwrap().finished, "it stays finished");

    let until = ReadMode::Until(at(&[(0, 70), (1, 50)]));
    let mut reader = source.read(at(&[(0, 60), (1, 50)]), vec![0, 1], until).unwrap();
    let seen = Seen::to_end(&mut *reader);
    assert_eq!(seen.ids(0), (60..70).collect::<Vec<_>>());
    assert!(seen.ids(1).is_empty());
}

#[test]
fn a_following_reader_goes_on_from_its_positions_and_tells_the_lag() {
    let (kafka, producer) = kafka(1);
    send(&producer, 0, 0..10);
    let source = create(&kafka, &[]);
    let mut reader = source.read(at(&[(0, 4)]), vec![0, 1], ReadMode::Follow).unwrap();
    let mut seen = Seen::default();
    seen.until(&mut *reader, |seen, _| seen.rows.len() >= 6);
    assert_eq!(seen.ids(0), (4..10).collect::<Vec<_>>());
    send(&producer, 0, 10..2000);
    seen.until(&mut *reader, |seen, _| seen.rows.len() >= 1996);
    assert_eq!(seen.ids(0), (4..2000).collect::<Vec<_>>());
    assert_eq!((seen.positions, seen.ends), (at(&[(0, 2000)]), at(&[(0, 2000)])));
}

#[test]
fn a_batch_ends_at_its_bytes_and_loses_nothing() {
    let (kafka, producer) = kafka(1);
    send(&producer, 0, 0..500);
    let source = create(&kafka, &[]);
    let mut reader = source.read(at(&[(0, 0)]), vec![0], ReadMode::Follow).unwrap();
    let (mut n_rows, mut n_batches, began) = (0, 0, Instant::now());
    while n_rows < 500 && began.elapsed() < DEADLINE {
        let batch = reader.poll(Duration::from_millis(100), 100).unwrap();
        assert!(batch.n_bytes < 100 + 12, "{} bytes", batch.n_bytes);
        assert_eq!(batch.rows.num_columns(), 1);
        n_rows += batch.rows.num_rows();
        n_batches += usize::from(batch.rows.num_rows() > 0);
    }
    assert_eq!(n_rows, 500);
    assert!(n_batches > 40, "{n_batches} batches");
}

#[test]
fn latest_is_resolved_once() {
    let (kafka, producer) = kafka(2);
    send(&producer, 0, 0..5);
    let source = create(&kafka, &[("scan.startup.mode", "latest")]);
    assert_eq!(source.start().unwrap(), at(&[(0, 5), (1, 0)]));
    send(&producer, 0, 5..7);
    assert_eq!(source.start().unwrap(), at(&[(0, 5), (1, 0)]));
    assert_eq!(source.end().unwrap(), at(&[(0, 7), (1, 0)]));
}

#[test]
fn offsets_are_taken_as_said_and_checked_at_create() {
    let (kafka, producer) = kafka(2);
    send(&producer, 1, 0..9);
    let offsets = |text| [("scan.startup.mode", "specific-offsets"), ("scan.startup.specific-offsets", text)];
    assert_eq!(create(&kafka, &offsets("1:4")).start().unwrap(), at(&[(0, 0), (1, 4)]));
    let error = |text| refused(spec(&kafka.bootstrap(), &offsets(text)));
    assert_eq!(error("1:10").state(), SqlState::InvalidParameterValue);
    assert!(error("1:10").message().ends_with("partition 1 ends at offset 9"), "{}", error("1:10"));
    assert!(error("5:0").message().ends_with("topic \"t\" has no partition 5"), "{}", error("5:0"));
}

#[test]
fn metadata_columns_come_from_the_record() {
    let (kafka, producer) = kafka(1);
    let headers: [(&str, &[u8]); 2] = [("h", b"old"), ("h", b"new")];
    producer.send("t", Some(0), Some(b"key"), Some(b"{\"id\": 1}"), Some(1_700_000_000_123), &headers).unwrap();
    producer.send("t", Some(0), None, Some(b"{\"id\": 2}"), Some(1), &[]).unwrap();
    producer.flush(DEADLINE).unwrap();
    let source = create(&kafka, &[]);
    let until = ReadMode::Until(source.end().unwrap());
    let seen = Seen::to_end(&mut *source.read(source.start().unwrap(), ALL.to_vec(), until).unwrap());
    let rows = seen.batches.iter().find(|rows| rows.num_rows() > 0).unwrap();
    assert_eq!(rows.column(2).as_primitive::<Int64Type>().values(), &[0, 1]);
    assert_eq!(rows.column(3).as_primitive::<TimestampMicrosecondType>().values(), &[1_700_000_000_123_000, 1_000]);
    let bytes = |idx: usize| {
        let text = arrow::compute::cast(rows.column(idx), &DataType::Binary).unwrap();
        text.as_binary::<i32>().iter().map(|v| v.map(<[u8]>::to_vec)).collect::<Vec<_>>()
    };
    assert_eq!(bytes(4), [Some(b"key".to_vec()), None]);
    assert_eq!(bytes(5), [Some(b"new".to_vec()), None]);
}

fn with_bad_records(bad_record: BadRecord) -> (MockKafka, Arc<dyn Source>) {
    let (kafka, producer) = kafka(1);
    send(&producer, 0, 0..3);
    producer.send("t", Some(0), Some(b"k"), Some(b"{\"id\": tru"), Some(77), &[]).unwrap();
    producer.send("t", Some(0), None, None, Some(78), &[]).unwrap();
    send(&producer, 0, 5..7);
    let spec = SourceSpec { bad_record, ..spec(&kafka.bootstrap(), &[]) };
    let source = Kafka.create(spec).unwrap();
    (kafka, source)
}

#[test]
fn bad_records_become_dead_letters_with_their_bytes() {
    let (_kafka, source) = with_bad_records(BadRecord::DeadLetter);
    let seen = read_all(&*source);
    assert_eq!(seen.ids(0), [0, 1, 2, 5, 6]);
    let [first, second] = seen.dead.as_slice() else { panic!("{:?}", seen.dead) };
    assert_eq!((first.split, first.position, first.timestamp_us), (Split(0), 3, Some(77_000)));
    assert_eq!((first.key.as_deref(), first.value.as_deref()), (Some(&b"k"[..]), Some(&b"{\"id\": tru"[..])));
    assert!(!first.error.is_empty());
    assert_eq!((second.position, second.value.as_deref()), (4, None));
}

#[test]
fn bad_records_are_counted_when_they_are_skipped() {
    let (_kafka, source) = with_bad_records(BadRecord::Skip);
    let seen = read_all(&*source);
    assert_eq!((seen.ids(0), seen.n_skipped, seen.dead.len()), (vec![0, 1, 2, 5, 6], 2, 0));
}

#[test]
fn a_bad_record_stops_the_source_after_the_rows_before_it() {
    let (_kafka, source) = with_bad_records(BadRecord::Fail);
    let mut reader = source.read(source.start().unwrap(), vec![0, 1], ReadMode::Follow).unwrap();
    let (mut seen, began) = (Seen::default(), Instant::now());
    let error = loop {
        match seen.poll(&mut *reader) {
            Ok(_) => assert!(began.elapsed() < DEADLINE),
            Err(error) => break error,
        }
    };
    assert_eq!((seen.ids(0), seen.positions), (vec![0, 1, 2], at(&[(0, 3)])));
    assert_eq!(error.message(), "bad record in source \"public.s\" at partition 0, offset 3");
    assert_eq!(reader.poll(Duration::ZERO, 1).unwrap_err(), error);
}

#[test]
fn a_projection_can_change_between_polls() {
    let (kafka, producer) = kafka(1);
    send(&producer, 0, 0..3);
    let source = create(&kafka, &[]);
    let mut reader = source.read(at(&[(0, 0)]), vec![2], ReadMode::Follow).unwrap();
    let mut seen = Seen::default();
    seen.until(&mut *reader, |seen, _| seen.positions == at(&[(0, 3)]));
    assert!(seen.batches.iter().all(|rows| rows.schema().field(0).name() == "off"));
    reader.set_projection(vec![0, 1]);
    send(&producer, 0, 3..6);
    seen.until(&mut *reader, |seen, _| seen.positions == at(&[(0, 6)]));
    assert_eq!(seen.ids(0), [3, 4, 5]);
}

#[test]
fn brokers_that_go_away_are_waited_for() {
    let (kafka, producer) = kafka(1);
    send(&producer, 0, 0..10);
    let source = create(&kafka, &[]);
    let mut reader = source.read(at(&[(0, 0)]), vec![0, 1], ReadMode::Follow).unwrap();
    let mut seen = Seen::default();
    seen.until(&mut *reader, |seen, _| seen.rows.len() == 10);
    kafka.down().unwrap();
    let mut words = String::new();
    seen.until(&mut *reader, |_, health| match health {
        Health::Retrying(why) => {
            words.clone_from(why);
            true
        }
        Health::Running => false,
    });
    assert!(!words.is_empty());
    kafka.up().unwrap();
    send(&producer, 0, 10..20);
    seen.until(&mut *reader, |seen, health| seen.rows.len() >= 20 && *health == Health::Running);
    assert_eq!(seen.ids(0), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_topic_that_does_not_exist_is_told_at_create_with_the_closest() {
    let kafka = MockKafka::start(1).unwrap();
    kafka.create_topic("payments", 1).unwrap();
    let error = refused(crate::reading::spec(&kafka.bootstrap(), "paymets", &[]));
    assert_eq!(error.state(), SqlState::UndefinedObject);
    assert_eq!(error.message(), "topic \"paymets\" does not exist");
    assert_eq!(error.hint(), Some("Perhaps you meant \"payments\"."));
}

#[test]
fn a_broker_that_does_not_answer_is_told_at_create() {
    // Bound, but nobody accepts: connecting succeeds, and no answer comes.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let began = Instant::now();
    let error = refused(spec(&address, &[("connect.timeout.ms", "500")]));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(error.state(), SqlState::ConnectionFailure);
    assert_eq!(error.message(), format!("no Kafka broker answers at \"{address}\""));

    drop(silent);
    let error = refused(spec(&address, &[]));
    assert_eq!(error.state(), SqlState::ConnectionFailure);
    assert!(error.detail().is_some_and(|detail| detail.contains("Connection refused")), "{:?}", error.detail());
}

#[test]
fn properties_that_librdkafka_does_not_take_are_told() {
    let unknown = refused(spec("b:1", &[("properties.no.such.thing", "1")]));
    assert_eq!(unknown.state(), SqlState::InvalidParameterValue);
    assert_eq!(unknown.message(), "librdkafka has no property \"no.such.thing\"");
    let wrong = refused(spec("b:1", &[("properties.fetch.min.bytes", "many")]));
    assert_eq!(wrong.message(), "invalid value for option \"properties.fetch.min.bytes\"");
    let protocol = [("properties.security.protocol", "sasl_plaintext"), ("properties.sasl.mechanism", "SCRAM-SHA-256")];
    assert_eq!(refused(spec("b:1", &protocol)).state(), SqlState::InvalidParameterValue);
}

#[test]
fn an_option_that_nobody_knows_is_told_with_the_closest() {
    let error = refused(spec("b:1", &[("scan.startup.mod", "latest")]));
    assert_eq!(error.state(), SqlState::InvalidParameterValue);
    assert_eq!(error.hint(), Some("Perhaps you meant \"scan.startup.mode\"."));
}

#[test]
fn a_format_that_does_not_exist_is_told_before_a_broker_is_asked() {
    let mut spec = spec("127.0.0.1:1", &[]);
    spec.format = Some(FormatSpec { format: "PLAIN".into(), encode: "JSN".into(), options: Options::default() });
    assert_eq!(refused(spec).state(), SqlState::UndefinedObject);
}
