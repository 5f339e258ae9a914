//! What the tests of this crate share: a source over topic `t` with one column of each kind, and all that a reader of
//! it gave.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use tidewire_connect::{
    BadRecord, Column, ColumnSource, Connector, DeadLetter, FormatSpec, Health, Options, Position, Positions, ReadMode,
    Source, SourceReader, SourceSpec, Split,
};
use tidewire_kafka::Kafka;
use tidewire_kafka::testing::Producer;
use tidewire_types::{Result, SqlError, SqlType};

pub const DEADLINE: Duration = Duration::from_secs(60);

/// Any columns of [`spec`].
pub const ALL: [usize; 6] = [0, 1, 2, 3, 4, 5];

/// A source named `public.s` over a topic, with more options.
pub fn spec(bootstrap: &str, topic: &str, more: &[(&str, &str)]) -> SourceSpec {
    let mut options = vec![("topic", topic), ("properties.bootstrap.server", bootstrap)];
    options.extend(more);
    let column = |name: &str, sql_type, source| Column { name: name.to_owned(), sql_type, source };
    SourceSpec {
        name: "public.s".to_owned(),
        columns: vec![
            column("id", SqlType::Int8, ColumnSource::Value),
            column("part", SqlType::Int4, ColumnSource::Split),
            column("off", SqlType::Int8, ColumnSource::Position),
            column("ts", SqlType::Timestamptz, ColumnSource::Timestamp),
            column("k", SqlType::Bytea, ColumnSource::Key),
            column("h", SqlType::Bytea, ColumnSource::Header("h".to_owned())),
        ],
        options: Options::new(options.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned()))).unwrap(),
        format: Some(FormatSpec { format: "PLAIN".into(), encode: "JSON".into(), options: Options::default() }),
        bad_record: BadRecord::DeadLetter,
    }
}

/// The same, made.
pub fn create(bootstrap: &str, topic: &str, more: &[(&str, &str)]) -> Arc<dyn Source> {
    Kafka.create(spec(bootstrap, topic, more)).unwrap()
}

/// The error of making it.
pub fn refused(spec: SourceSpec) -> SqlError {
    Kafka.create(spec).unwrap_err()
}

/// Sends `{"id": ..}` to one partition, the time of each being 1000 ms and its id, and waits until it is there.
pub fn send(producer: &Producer, topic: &str, partition: i32, ids: std::ops::Range<i64>) {
    for id in ids {
        let value = format!("{{\"id\": {id}}}");
        producer.send(topic, Some(partition), None, Some(value.as_bytes()), Some(1_000 + id), &[]).unwrap();
    }
    producer.flush(DEADLINE).unwrap();
}

/// Positions, by partition.
pub fn at(pairs: &[(u32, Position)]) -> Positions {
    pairs.iter().map(|(split, position)| (Split(*split), *position)).collect()
}

/// Everything that a reader gave.
#[derive(Default)]
pub struct Seen {
    pub rows: Vec<(i32, i64)>,
    pub dead: Vec<DeadLetter>,
    pub positions: Positions,
    pub ends: Positions,
    pub n_skipped: u64,
    pub batches: Vec<RecordBatch>,
}

impl Seen {
    /// One poll; whether the reader has finished, and its health.
    pub fn poll(&mut self, reader: &mut dyn SourceReader) -> Result<(bool, Health)> {
        let batch = reader.poll(Duration::from_millis(100), 1 << 20)?;
        let (part, id) = (batch.rows.column_by_name("part"), batch.rows.column_by_name("id"));
        if let (Some(part), Some(id)) = (part, id) {
            let (part, id) = (part.as_primitive::<Int32Type>(), id.as_primitive::<Int64Type>());
            self.rows.extend(part.values().iter().copied().zip(id.values().iter().copied()));
        }
        for (split, first) in &batch.first_positions {
            let before = self.positions.get(split).copied().unwrap_or(0);
            assert!(*first >= before, "a batch begins at {first}, before {before}");
            assert!(batch.positions.get(split).is_some_and(|next| next >= first));
        }
        assert_eq!(batch.positions.len(), batch.first_positions.len());
        self.positions.extend(batch.positions);
        self.ends = batch.ends;
        self.dead.extend(batch.dead_letters);
        self.n_skipped += batch.n_skipped;
        self.batches.push(batch.rows);
        Ok((batch.finished, batch.health))
    }

    /// Polls until the condition holds.
    pub fn until(&mut self, reader: &mut dyn SourceReader, mut condition: impl FnMut(&Seen, &Health) -> bool) {
        let began = Instant::now();
        loop {
            let (_, health) = self.poll(reader).unwrap();
            if condition(self, &health) {
                return;
            }
            assert!(began.elapsed() < DEADLINE, "waited in vain; positions {:?}, {health:?}", self.positions);
        }
    }

    /// All of a bounded reader.
    pub fn to_end(reader: &mut dyn SourceReader) -> Seen {
        let mut seen = Seen::default();
        let began = Instant::now();
        while !seen.poll(reader).unwrap().0 {
            assert!(began.elapsed() < DEADLINE, "never finished; positions {:?}", seen.positions);
        }
        seen
    }

    /// The ids that came from a partition, in the order in which they came.
    pub fn ids(&self, partition: i32) -> Vec<i64> {
        self.rows.iter().filter(|(p, _)| *p == partition).map(|(_, id)| *id).collect()
    }
}

/// Everything in a source now.
pub fn read_all(source: &dyn Source) -> Seen {
    let until = ReadMode::Until(source.end().unwrap());
    Seen::to_end(&mut *source.read(source.start().unwrap(), vec![0, 1], until).unwrap())
}
