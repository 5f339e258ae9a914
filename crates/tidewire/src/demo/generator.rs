//! Orders, their payments, and now and then a broken record, written to Kafka from a thread of its own.
//!
//! [`Orders`] makes the records and is a function of its seed and the time given; [`Generator`] writes them at a rate.

use std::collections::VecDeque;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidewire_kafka::testing::Producer;

use crate::failure::Failure;

/// The topic of orders.
pub const ORDERS: &str = "orders";
/// The topic of payments.
pub const PAYMENTS: &str = "payments";

const N_CUSTOMERS: u32 = 10;
/// Items and their prices in cents.
const ITEMS: &[(&str, i64)] = &[
    ("bicycle", 64_900),
    ("camera", 42_050),
    ("desk", 28_500),
    ("headphones", 11_995),
    ("kettle", 3_450),
    ("lamp", 5_900),
    ("notebook", 450),
    ("tent", 19_900),
];
const METHODS: &[&str] = &["card", "transfer", "wallet"];
/// Orders between an order and its payment.
const N_WAITING: usize = 30;
/// What goes wrong on real topics: cut off, a word for a number, no JSON, not UTF-8.
const BROKEN: &[&[u8]] = &[
    br#"{"id": 17, "customer": "c3", "item": "#,
    br#"{"id": 18, "customer": "c4", "item": "lamp", "quantity": "three", "price": 59.00}"#,
    b"ORDER 19 c5 lamp",
    b"{\"id\": 20, \"customer\": \"c6\", \"item\": \"l\xffmp\"}",
];

/// How often the thread wakes to write what is due.
const WRITE_INTERVAL: Duration = Duration::from_millis(20);

/// A record for a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    topic: &'static str,
    key: String,
    value: Vec<u8>,
}

/// Makes orders and what follows from them.
struct Orders {
    random: StdRng,
    n_orders: i64,
    /// Orders that will be paid: id and amount in cents.
    waiting: VecDeque<(i64, i64)>,
}

impl Orders {
    fn new(seed: u64) -> Orders {
        Orders { random: StdRng::seed_from_u64(seed), n_orders: 0, waiting: VecDeque::new() }
    }

    /// The next order, and the payments and broken records that come with it.
    fn next(&mut self, now: DateTime<Utc>) -> Vec<Record> {
        let at = now.to_rfc3339_opts(SecondsFormat::Millis, true);
        let mut records = vec![self.order(&at)];
        if self.waiting.len() > N_WAITING {
            records.extend(self.payment(&at));
        }
        if self.random.random_ratio(1, 250) {
            let value = pick(&mut self.random, BROKEN).copied().unwrap_or_default().to_vec();
            records.push(Record { topic: ORDERS, key: "broken".to_owned(), value });
        }
        records
    }

    fn order(&mut self, at: &str) -> Record {
        self.n_orders += 1;
        let id = self.n_orders;
        let customer = self.random.random_range(1..=N_CUSTOMERS);
        let (item, price_cents) = pick(&mut self.random, ITEMS).copied().unwrap_or(("lamp", 5_900));
        let quantity = self.random.random_range(1..=4);
        // One order in twenty is never paid, one in forty is paid a little less.
        if !self.random.random_ratio(1, 20) {
            let discount_cents = if self.random.random_ratio(1, 40) { self.random.random_range(1..=400) } else { 0 };
            self.waiting.push_back((id, price_cents * quantity - discount_cents));
        }
        let value = format!(
            r#"{{"id": {id}, "customer": "c{customer}", "item": "{item}", "quantity": {quantity}, "price": {}, "at": "{at}"}}"#,
            decimal(price_cents)
        );
        Record { topic: ORDERS, key: id.to_string(), value: value.into_bytes() }
    }

    fn payment(&mut self, at: &str) -> Option<Record> {
        let (order_id, amount_cents) = self.waiting.pop_front()?;
        let method = pick(&mut self.random, METHODS).copied().unwrap_or("card");
        let value = format!(
            r#"{{"order_id": {order_id}, "method": "{method}", "amount": {}, "at": "{at}"}}"#,
            decimal(amount_cents)
        );
        Some(Record { topic: PAYMENTS, key: order_id.to_string(), value: value.into_bytes() })
    }
}

fn pick<'a, T>(random: &mut StdRng, of: &'a [T]) -> Option<&'a T> {
    of.get(random.random_range(0..of.len()))
}

fn decimal(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// The running thread; dropping it ends it.
pub struct Generator {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Generator {
    /// Writes `n_first` orders, then goes on in a thread with `rate` orders a second.
    pub fn start(broker: &str, n_first: u32, rate: u32) -> Result<Generator, Failure> {
        let producer = Producer::new(broker, &[])?;
        let mut orders = Orders::new(7);
        for _ in 0..n_first {
            write(&producer, orders.next(Utc::now()));
        }
        producer.flush(Duration::from_secs(10))?;
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("demo-generator".to_owned())
            .spawn(move || write_until(&stopped, &producer, &mut orders, rate))
            .map_err(|error| Failure::new(format!("cannot start the generator: {error}")))?;
        Ok(Generator { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Keeps to the rate over time: an interval that came late writes more.
fn write_until(stopped: &mpsc::Receiver<()>, producer: &Producer, orders: &mut Orders, rate: u32) {
    let start = Instant::now();
    let mut n_written = 0u64;
    while stopped.recv_timeout(WRITE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let n_due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        for _ in n_written..n_due {
            write(producer, orders.next(Utc::now()));
        }
        n_written = n_due;
    }
}

fn write(producer: &Producer, records: Vec<Record>) {
    for Record { topic, key, value } in records {
        if let Err(error) = producer.send(topic, None, Some(key.as_bytes()), Some(&value), None, &[]) {
            tracing::warn!(topic, %error, "the generator lost a record");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn records(n_orders: usize) -> Vec<Record> {
        let mut orders = Orders::new(7);
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        (0..n_orders).flat_map(|_| orders.next(now)).collect()
    }

    #[test]
    fn a_seed_gives_the_same_records_again() {
        assert_eq!(records(500), records(500));
    }

    #[test]
    fn payments_follow_their_orders_and_most_records_are_whole() {
        let mut orders = BTreeSet::new();
        let (mut n_payments, mut n_broken) = (0, 0);
        for record in records(5_000) {
            match serde_json::from_slice::<serde_json::Value>(&record.value) {
                Ok(value) if record.topic == PAYMENTS => {
                    assert!(orders.contains(&value["order_id"].as_i64().unwrap()), "{value}");
                    assert!(value["amount"].as_f64().unwrap() > 0.0, "{value}");
                    n_payments += 1;
                }
                Ok(value) if value["quantity"].is_number() => assert!(orders.insert(value["id"].as_i64().unwrap())),
                _ => n_broken += 1,
            }
        }
        assert_eq!(orders.len(), 5_000);
        assert!((4_500..4_900).contains(&n_payments), "{n_payments}");
        assert!((5..60).contains(&n_broken), "{n_broken}");
    }

    #[test]
    fn money_is_written_exactly() {
        assert_eq!([decimal(5), decimal(5_900), decimal(64_901)], ["0.05", "59.00", "649.01"]);
    }
}
