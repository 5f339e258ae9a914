//! Against a real Kafka: what librdkafka's in-process cluster cannot show.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tidewire_connect::{Connector, Health, ReadMode, Split};
use tidewire_kafka::testing::{
    Producer, add_partitions, create_topic, create_topic_with, delete_records, delete_topic,
};
use tidewire_testkit::kafka::Kafka;
use tidewire_types::SqlState;

use crate::reading::{ALL, DEADLINE, Seen, at, create, read_all, refused, send, spec};

/// The broker that all tests share, those excepted that need one of their own.
fn bootstrap() -> String {
    Kafka::shared().unwrap().bootstrap().to_owned()
}

/// A new topic of this name on the shared broker, and a producer.
fn topic(name: &str, partitions: usize) -> (String, Producer) {
    topic_with(name, partitions, &[])
}

fn topic_with(name: &str, partitions: usize, properties: &[(&str, &str)]) -> (String, Producer) {
    let bootstrap = bootstrap();
    // A broker that outlives the tests may have it from last time.
    let _ = delete_topic(&bootstrap, name);
    let began = Instant::now();
    while let Err(error) = create_topic_with(&bootstrap, name, partitions, properties) {
        assert!(error.state() == SqlState::DuplicateObject && began.elapsed() < DEADLINE, "{error}");
    }
    let producer = Producer::new(&bootstrap, &[]).unwrap();
    (bootstrap, producer)
}

#[test]
fn earliest_latest_and_timestamp_begin_where_the_broker_says() {
    let (bootstrap, producer) = topic("start-modes", 2);
    send(&producer, "start-modes", 0, 0..10);
    send(&producer, "start-modes", 1, 0..3);
    delete_records(&bootstrap, "start-modes", 0, 4).unwrap();
    let source = create(&bootstrap, "start-modes", &[]);
    assert_eq!(source.start().unwrap(), at(&[(0, 4), (1, 0)]));
    assert_eq!(source.end().unwrap(), at(&[(0, 10), (1, 3)]));
    assert_eq!(read_all(&*source).ids(0), (4..10).collect::<Vec<_>>());

    let latest = create(&bootstrap, "start-modes", &[("scan.startup.mode", "latest")]);
    assert_eq!(latest.start().unwrap(), at(&[(0, 10), (1, 3)]));
    // Ids are milliseconds after 1000: partition 1 ends before this time.
    let options = [("scan.startup.mode", "timestamp"), ("scan.startup.timestamp.millis", "1007")];
    let timestamp = create(&bootstrap, "start-modes", &options);
    assert_eq!(timestamp.start().unwrap(), at(&[(0, 7), (1, 3)]));
    send(&producer, "start-modes", 0, 10..11);
    send(&producer, "start-modes", 1, 3..4);
    assert_eq!(latest.start().unwrap(), at(&[(0, 10), (1, 3)]));
    assert_eq!(timestamp.start().unwrap(), at(&[(0, 7), (1, 3)]));
    assert_eq!(read_all(&*timestamp).ids(1), [3]);
}

#[test]
fn only_committed_transactions_are_read_and_their_markers_end_nothing_early() {
    let (bootstrap, _) = topic("transactions", 1);
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .set("transactional.id", "tidewire-test")
        .create()
        .unwrap();
    producer.init_transactions(DEADLINE).unwrap();
    let transaction = |ids: std::ops::Range<i64>, commit: bool| {
        producer.begin_transaction().unwrap();
        for id in ids {
            let value = format!("{{\"id\": {id}}}");
            producer.send(BaseRecord::<(), _>::to("transactions").partition(0).payload(&value)).unwrap();
        }
        producer.flush(DEADLINE).unwrap();
        match commit {
            true => producer.commit_transaction(DEADLINE).unwrap(),
            false => producer.abort_transaction(DEADLINE).unwrap(),
        }
    };
    transaction(0..5, true);
    transaction(100..105, false);
    transaction(5..7, true);
    transaction(200..203, false);
    let source = create(&bootstrap, "transactions", &[]);
    // 5 + 5 + 2 + 3 records and a marker for each transaction; the last record before the end is never seen.
    assert_eq!(source.end().unwrap(), at(&[(0, 19)]));
    let seen = read_all(&*source);
    assert_eq!(seen.ids(0), (0..7).collect::<Vec<_>>());
    assert_eq!(seen.positions, at(&[(0, 19)]));

    let mut reader = source.read(at(&[(0, 0)]), ALL.to_vec(), ReadMode::Follow).unwrap();
    let mut seen = Seen::default();
    seen.until(&mut *reader, |seen, _| seen.positions == at(&[(0, 19)]));
    assert_eq!(seen.ends, at(&[(0, 19)]), "no lag is left");

    // An open transaction is beyond the end.
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::<(), _>::to("transactions").partition(0).payload("{\"id\": 7}")).unwrap();
    producer.flush(DEADLINE).unwrap();
    assert_eq!(source.end().unwrap(), at(&[(0, 19)]));
    producer.commit_transaction(DEADLINE).unwrap();
    seen.until(&mut *reader, |seen, _| seen.positions == at(&[(0, 21)]));
    assert_eq!(seen.ids(0), (0..8).collect::<Vec<_>>());
}

#[test]
fn a_compacted_topic_is_read_to_its_end() {
    let properties = [("cleanup.policy", "compact"), ("segment.ms", "1"), ("min.cleanable.dirty.ratio", "0.01")];
    let (bootstrap, producer) = topic_with("compacted", 1, &properties);
    // One key: each record makes the one before it superfluous; a new segment at each flush.
    let began = Instant::now();
    for id in 0.. {
        let value = format!("{{\"id\": {id}}}");
        producer.send("compacted", Some(0), Some(b"k"), Some(value.as_bytes()), None, &[]).unwrap();
        producer.flush(DEADLINE).unwrap();
        if id % 100 != 99 {
            continue;
        }
        let source = create(&bootstrap, "compacted", &[]);
        let seen = read_all(&*source);
        assert_eq!(seen.ids(0).last(), Some(&id));
        assert_eq!(seen.positions, at(&[(0, id + 1)]));
        if i64::try_from(seen.rows.len()).unwrap() <= id {
            // The end lies among the gaps: behind what is left, or where nothing is left.
            let until = ReadMode::Until(at(&[(0, seen.ids(0)[0])]));
            let seen = Seen::to_end(&mut *source.read(at(&[(0, 0)]), vec![0, 1], until.clone()).unwrap());
            assert_eq!((seen.rows.len(), until), (0, ReadMode::Until(seen.positions)));
            return;
        }
        assert!(began.elapsed() < DEADLINE, "Kafka did not compact the topic");
    }
}

#[test]
fn partitions_that_appear_are_read_from_their_beginning() {
    let (bootstrap, producer) = topic("growing", 1);
    send(&producer, "growing", 0, 0..3);
    let source = create(&bootstrap, "growing", &[("metadata.refresh.interval.ms", "100")]);
    let mut reader = source.read(source.start().unwrap(), vec![0, 1], ReadMode::Follow).unwrap();
    let mut seen = Seen::default();
    seen.until(&mut *reader, |seen, _| seen.rows.len() == 3);
    add_partitions(&bootstrap, "growing", 3).unwrap();
    // This producer has not seen the new partitions yet; a new one asks.
    let producer = Producer::new(&bootstrap, &[]).unwrap();
    send(&producer, "growing", 1, 0..5);
    send(&producer, "growing", 0, 3..4);
    seen.until(&mut *reader, |seen, _| seen.rows.len() == 9 && seen.positions.contains_key(&Split(2)));
    assert_eq!((seen.ids(0), seen.ids(1)), ((0..4).collect(), (0..5).collect()));
    assert_eq!(seen.positions, at(&[(0, 4), (1, 5), (2, 0)]));
    assert_eq!(source.start().unwrap().len(), 3);
}

#[test]
fn a_position_that_was_deleted_ends_the_source_with_what_is_left() {
    let (bootstrap, producer) = topic("retention", 1);
    send(&producer, "retention", 0, 0..10);
    delete_records(&bootstrap, "retention", 0, 6).unwrap();
    let source = create(&bootstrap, "retention", &[]);
    let error = |position| {
        let mut reader = source.read(at(&[(0, position)]), vec![0, 1], ReadMode::Follow).unwrap();
        let (mut seen, began) = (Seen::default(), Instant::now());
        loop {
            match seen.poll(&mut *reader) {
                Ok(_) => assert!(began.elapsed() < DEADLINE && seen.rows.is_empty()),
                Err(error) => break error,
            }
        }
    };
    let before = error(2);
    assert_eq!(before.state(), SqlState::ObjectNotInPrerequisiteState);
    assert_eq!(
        before.message(),
        "source \"public.s\" cannot go on: topic \"retention\" has no offset 2 in partition 0"
    );
    let detail = before.detail().unwrap();
    assert!(detail.ends_with("the earliest now there is 6, the next to come 10."), "{detail}");
    assert!(before.hint().is_some());
    let beyond = error(11);
    assert_eq!(beyond.detail(), Some("The partition now holds the offsets from 6 up to 10, exclusive."));
}

#[test]
fn a_record_of_ten_megabytes_is_read() {
    let (bootstrap, _) = topic_with("large", 1, &[("max.message.bytes", "20000000")]);
    let producer = Producer::new(&bootstrap, &[("message.max.bytes", "20000000")]).unwrap();
    let padding = "x".repeat(10 << 20);
    for id in 0..3 {
        let value = format!("{{\"id\": {id}, \"more\": \"{padding}\"}}");
        producer.send("large", Some(0), None, Some(value.as_bytes()), None, &[]).unwrap();
    }
    producer.flush(DEADLINE).unwrap();
    assert_eq!(read_all(&*create(&bootstrap, "large", &[])).ids(0), [0, 1, 2]);
}

#[test]
fn every_compression_is_read() {
    let (bootstrap, _) = topic("compressed", 1);
    for (round, codec) in (0..).zip(["none", "gzip", "snappy", "lz4", "zstd"]) {
        let producer = Producer::new(&bootstrap, &[("compression.type", codec), ("linger.ms", "50")]).unwrap();
        send(&producer, "compressed", 0, round * 100..(round + 1) * 100);
    }
    assert_eq!(read_all(&*create(&bootstrap, "compressed", &[])).ids(0), (0..500).collect::<Vec<_>>());
}

#[test]
fn a_wrong_password_is_told_and_the_right_one_works() {
    // A broker that the environment names may ask for no password.
    let own;
    let kafka = match Kafka::shared().unwrap() {
        shared if shared.is_own() => shared,
        _ => {
            own = Kafka::start_own().unwrap();
            &own
        }
    };
    create_topic(kafka.bootstrap(), "secret", 1).unwrap();
    send(&Producer::new(kafka.bootstrap(), &[]).unwrap(), "secret", 0, 0..2);
    let login = kafka.sasl_bootstrap().unwrap();
    let with = |password| {
        spec(
            &login,
            "secret",
            &[
                ("properties.security.protocol", "SASL_PLAINTEXT"),
                ("properties.sasl.mechanism", "SCRAM-SHA-256"),
                ("properties.sasl.username", "alice"),
                ("properties.sasl.password", password),
            ],
        )
    };
    let began = Instant::now();
    let error = refused(with("wrong"));
    assert_eq!(error.state(), SqlState::InvalidPassword);
    assert_eq!(error.message(), format!("Kafka at \"{login}\" refuses the login"));
    assert!(error.hint().is_some_and(|hint| hint.contains("properties.sasl.password")));
    assert!(began.elapsed() < Duration::from_secs(5));
    let source = tidewire_kafka::Kafka.create(with("alice-secret")).unwrap();
    assert_eq!(read_all(&*source).ids(0), [0, 1]);
}

#[test]
fn a_topic_that_does_not_exist_is_told() {
    let (bootstrap, _) = topic("payments", 1);
    let error = refused(spec(&bootstrap, "paymets", &[]));
    assert_eq!(error.state(), SqlState::UndefinedObject);
    assert_eq!(error.hint(), Some("Perhaps you meant \"payments\"."));
    let error = refused(spec(&bootstrap, "no such topic!", &[]));
    assert_eq!(error.state(), SqlState::InvalidName);
}

#[test]
fn positions_are_shown_by_a_consumer_group() {
    let (bootstrap, producer) = topic("lag", 2);
    send(&producer, "lag", 0, 0..10);
    let source = create(&bootstrap, "lag", &[("properties.group.id", "tidewire-lag-test")]);
    // All but the last may fall between two commits.
    for position in [1, 3, 7] {
        source.commit(&at(&[(0, position), (1, 0)]));
    }
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &bootstrap).set("group.id", "tidewire-lag-test").create().unwrap();
    let began = Instant::now();
    loop {
        let mut question = TopicPartitionList::new();
        question.add_partition_range("lag", 0, 1);
        let committed = consumer.committed_offsets(question, DEADLINE).unwrap().to_topic_map();
        if committed.get(&("lag".to_owned(), 0)) == Some(&Offset::Offset(7)) {
            assert_eq!(committed.get(&("lag".to_owned(), 1)), Some(&Offset::Offset(0)));
            return;
        }
        assert!(began.elapsed() < DEADLINE, "{committed:?}");
    }
}

#[test]
fn a_broker_that_was_killed_is_waited_for_and_nothing_is_lost_or_doubled() {
    let kafka = Kafka::start_own().unwrap();
    let bootstrap = kafka.bootstrap();
    create_topic(bootstrap, "killed", 2).unwrap();
    let producer = Producer::new(bootstrap, &[("enable.idempotence", "true")]).unwrap();
    send(&producer, "killed", 0, 0..1000);
    send(&producer, "killed", 1, 0..1000);
    let source = create(bootstrap, "killed", &[]);
    let mut reader = source.read(source.start().unwrap(), vec![0, 1], ReadMode::Follow).unwrap();
    let mut seen = Seen::default();
    seen.until(&mut *reader, |seen, _| seen.rows.len() == 2000);
    kafka.kill().unwrap();
    let mut words = String::new();
    seen.until(&mut *reader, |_, health| match health {
        Health::Retrying(why) => {
            words.clone_from(why);
            true
        }
        Health::Running => false,
    });
    assert!(!words.is_empty());
    assert_eq!(refused(spec(bootstrap, "killed", &[])).state(), SqlState::ConnectionFailure);
    kafka.restart().unwrap();
    send(&producer, "killed", 0, 1000..1500);
    seen.until(&mut *reader, |seen, health| seen.rows.len() >= 2500 && *health == Health::Running);
    assert_eq!((seen.ids(0), seen.ids(1)), ((0..1500).collect(), (0..1000).collect()));
}
