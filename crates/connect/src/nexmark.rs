//! `connector = 'nexmark'`: the people, auctions and bids of the Nexmark benchmark.
//!
//! Of 50 events one is a person, three are auctions and 46 are bids. Half of the bids go to a hot auction, three in
//! four come from a hot bidder; the others pick among those active at that moment. Each event is a function of its
//! number only, so that any position can be read again. Model: Tucker et al., "NEXMark, a benchmark for queries over
//! data streams", with the proportions and ratios that Apache Beam's version made usual; the values are our own.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use tidewire_types::{Result, SqlType};

use crate::log::{self, GlobalRows, Log, Rows, below, random};
use crate::{Column, ColumnSource, Connector, OptionSpec, Options, Source, SourceSpec, schema_of};

const FIRST_ID: u64 = 1000;
const FIRST_CATEGORY: u64 = 10;
const N_CATEGORIES: u64 = 5;
/// Of so many consecutive ids one is hot.
const HOT_STRIDE: u64 = 100;
const N_AUCTIONS_OPEN: u64 = 100;
const N_PEOPLE_ACTIVE: u64 = 1000;
/// 2015-07-15 00:00:00, and then an event every 100 microseconds.
const FIRST_EVENT_US: i64 = 1_436_918_400_000_000;
const EVENT_US: i64 = 100;
const CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const FIRST_NAMES: [&str; 8] = ["Anna", "Boris", "Chika", "Daan", "Elif", "Farid", "Greta", "Hugo"];
const LAST_NAMES: [&str; 8] = ["Abbas", "Brandt", "Cruz", "Dubois", "Eriksen", "Fischer", "Garcia", "Haas"];
const CITIES: [(&str, &str); 8] = [
    ("Phoenix", "AZ"),
    ("Los Angeles", "CA"),
    ("San Francisco", "CA"),
    ("Boise", "ID"),
    ("Portland", "OR"),
    ("Bend", "OR"),
    ("Seattle", "WA"),
    ("Cheyenne", "WY"),
];

/// `connector = 'nexmark'`.
#[derive(Debug)]
pub struct Nexmark;

const TABLE: &str = "table.type";

impl Connector for Nexmark {
    fn name(&self) -> &'static str {
        "nexmark"
    }

    fn options(&self) -> &'static [OptionSpec] {
        const OPTIONS: &[OptionSpec] = &[
            OptionSpec { name: TABLE, required: true, help: "Which events: bid, auction or person." },
            log::ROWS,
            log::RATE,
            log::SPLITS,
        ];
        OPTIONS
    }

    fn default_columns(&self, options: &Options) -> Result<Option<Vec<Column>>> {
        Ok(Some(Table::of(options)?.columns()))
    }

    fn create(&self, spec: SourceSpec) -> Result<Arc<dyn Source>> {
        spec.options.check(&[self.options()])?;
        let table = Table::of(&spec.options)?;
        let fields = spec.columns.iter().map(|c| table.field(c)).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Log::new(Box::new(Events { table, fields }), spec)?))
    }
}

/// One of the three kinds of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Who sells and bids.
    Person,
    /// What is sold.
    Auction,
    /// Offers: nearly all events.
    Bid,
}

impl Table {
    fn of(options: &Options) -> Result<Table> {
        match options.require(TABLE)?.to_ascii_lowercase().as_str() {
            "person" => Ok(Table::Person),
            "auction" => Ok(Table::Auction),
            "bid" => Ok(Table::Bid),
            _ => Err(options.invalid(TABLE, "it must be bid, auction or person")),
        }
    }

    /// The columns of these events.
    pub fn columns(self) -> Vec<Column> {
        let columns: &[(&str, SqlType)] = match self {
            Table::Person => &[
                ("id", SqlType::Int8),
                ("name", SqlType::Text),
                ("email_address", SqlType::Text),
                ("credit_card", SqlType::Text),
                ("city", SqlType::Text),
                ("state", SqlType::Text),
                ("date_time", SqlType::Timestamp),
                ("extra", SqlType::Text),
            ],
            Table::Auction => &[
                ("id", SqlType::Int8),
                ("item_name", SqlType::Text),
                ("description", SqlType::Text),
                ("initial_bid", SqlType::Int8),
                ("reserve", SqlType::Int8),
                ("date_time", SqlType::Timestamp),
                ("expires", SqlType::Timestamp),
                ("seller", SqlType::Int8),
                ("category", SqlType::Int8),
                ("extra", SqlType::Text),
            ],
            Table::Bid => &[
                ("auction", SqlType::Int8),
                ("bidder", SqlType::Int8),
                ("price", SqlType::Int8),
                ("channel", SqlType::Text),
                ("url", SqlType::Text),
                ("date_time", SqlType::Timestamp),
                ("extra", SqlType::Text),
            ],
        };
        let column = |(name, sql_type): &(&str, SqlType)| Column {
            name: name.to_string(),
            sql_type: sql_type.clone(),
            source: ColumnSource::Value,
        };
        columns.iter().map(column).collect()
    }

    /// The number that the table's `index`th event has among all events.
    fn event(self, index: u64) -> u64 {
        match self {
            Table::Person => index * 50,
            Table::Auction => index / 3 * 50 + 1 + index % 3,
            Table::Bid => index / 46 * 50 + 4 + index % 46,
        }
    }

    /// Which of the table's own columns a declared one is. Errors: one that it does not have, or of another type.
    fn field(self, column: &Column) -> Result<usize> {
        if column.source != ColumnSource::Value {
            return Ok(usize::MAX);
        }
        let own = self.columns();
        own.iter().position(|c| c.name == column.name && c.sql_type == column.sql_type).ok_or_else(|| {
            tidewire_types::SqlError::new(
                tidewire_types::SqlState::InvalidTableDefinition,
                format!("nexmark has no column \"{}\" of type {} in this table", column.name, column.sql_type),
            )
            .with_hint("Leave the column list out: the connector knows its columns.")
        })
    }

    fn fill(self, field: usize, indices: impl Iterator<Item = u64>) -> ArrayRef {
        let events = indices.map(|index| self.event(index));
        match (self, field) {
            (Table::Bid, 0) => integers(events.map(bid_auction)),
            (Table::Bid, 1) => integers(events.map(bid_bidder)),
            (Table::Bid, 2) => integers(events.map(|e| price(e, 2))),
            (Table::Bid, 3) => texts(events, |e, out| write_channel(channel(e), out)),
            (Table::Bid, 4) => texts(events, |e, out| write_url(channel(e), out)),
            (Table::Bid, 6) => texts(events, |e, out| write_letters(e, 6, 25 + below(random(7, e), 30), out)),
            (Table::Auction, 0) => integers(events.map(|e| FIRST_ID + last_auction(e))),
            (Table::Auction, 1) => texts(events, |e, out| write_letters(e, 11, 8 + below(random(11, e), 13), out)),
            (Table::Auction, 2) => texts(events, |e, out| write_letters(e, 12, 40 + below(random(12, e), 61), out)),
            (Table::Auction, 3) => integers(events.map(|e| price(e, 13))),
            (Table::Auction, 4) => integers(events.map(|e| price(e, 13) + price(e, 14))),
            (Table::Auction, 6) => times(events.map(|e| event_us(e) + auction_length_us(e))),
            (Table::Auction, 7) => integers(events.map(auction_seller)),
            (Table::Auction, 8) => integers(events.map(|e| FIRST_CATEGORY + below(random(15, e), N_CATEGORIES))),
            (Table::Auction, 9) => texts(events, |e, out| write_letters(e, 16, 40 + below(random(16, e), 41), out)),
            (Table::Person, 0) => integers(events.map(|e| FIRST_ID + last_person(e))),
            (Table::Person, 1) => texts(events, |e, out| {
                let (first, last) = name(e);
                out.push_str(first);
                out.push(' ');
                out.push_str(last);
            }),
            (Table::Person, 2) => texts(events, |e, out| {
                let (first, last) = name(e);
                out.push_str(&first.to_lowercase());
                out.push('@');
                out.push_str(&last.to_lowercase());
                out.push_str(".example");
            }),
            (Table::Person, 3) => texts(events, |e, out| {
                let digits = |lane| below(random(lane, e), 10_000);
                out.push_str(&format!("{:04} {:04} {:04} {:04}", digits(23), digits(24), digits(25), digits(26)));
            }),
            (Table::Person, 4) => texts(events, |e, out| out.push_str(city(e).0)),
            (Table::Person, 5) => texts(events, |e, out| out.push_str(city(e).1)),
            (Table::Person, 7) => texts(events, |e, out| write_letters(e, 28, 40 + below(random(28, e), 61), out)),
            // The time is at 5 or 6 in every table, and what is not above.
            _ => times(events.map(event_us)),
        }
    }
}

/// The rows of one table, as a source reads them.
#[derive(Debug)]
struct Events {
    table: Table,
    fields: Vec<usize>,
}

impl Rows for Events {
    fn fill(&self, column: usize, rows: &GlobalRows) -> Result<ArrayRef> {
        Ok(self.table.fill(self.fields.get(column).copied().unwrap_or(usize::MAX), rows.indices()))
    }

    fn row_bytes(&self) -> u64 {
        match self.table {
            Table::Bid => 100,
            Table::Person | Table::Auction => 200,
        }
    }
}

/// `n` rows of a table from its `first`th on, all columns.
pub fn rows(table: Table, first: u64, n: usize) -> Result<RecordBatch> {
    let columns = table.columns();
    let all: Vec<usize> = (0..columns.len()).collect();
    let arrays = all.iter().map(|field| table.fill(*field, first..first.saturating_add(n as u64))).collect();
    Ok(RecordBatch::try_new(schema_of(&columns, &all), arrays)?)
}

/// Appends the `index`th bid as a JSON object of about 210 bytes.
pub fn write_bid_json(index: u64, out: &mut Vec<u8>) {
    let event = Table::Bid.event(index);
    let (mut url, mut extra, mut name) = (String::new(), String::new(), String::new());
    write_channel(channel(event), &mut name);
    write_url(channel(event), &mut url);
    write_letters(event, 6, 25 + below(random(7, event), 30), &mut extra);
    let time = chrono::DateTime::from_timestamp_micros(event_us(event)).unwrap_or_default();
    let (auction, bidder, price) = (bid_auction(event), bid_bidder(event), price(event, 2));
    out.extend_from_slice(
        format!(
            "{{\"auction\":{auction},\"bidder\":{bidder},\"price\":{price},\"channel\":\"{name}\",\"url\":\"{url}\",\
             \"date_time\":\"{}\",\"extra\":\"{extra}\"}}",
            time.format("%Y-%m-%dT%H:%M:%S%.6f")
        )
        .as_bytes(),
    );
}

fn integers(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.map(u64::cast_signed)))
}

fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values))
}

fn texts(events: impl Iterator<Item = u64>, write: impl Fn(u64, &mut String)) -> ArrayRef {
    let mut builder = arrow::array::StringViewBuilder::new();
    let mut text = String::new();
    for event in events {
        text.clear();
        write(event, &mut text);
        builder.append_value(&text);
    }
    let array: StringViewArray = builder.finish();
    Arc::new(array)
}

fn event_us(event: u64) -> i64 {
    FIRST_EVENT_US.saturating_add(event.cast_signed().saturating_mul(EVENT_US))
}

/// The newest person at an event, from 0.
fn last_person(event: u64) -> u64 {
    event / 50
}

/// The newest auction at an event, from 0.
fn last_auction(event: u64) -> u64 {
    match event % 50 {
        0 => (event / 50 * 3).saturating_sub(1),
        offset => event / 50 * 3 + (offset - 1).min(2),
    }
}

/// One of the `n_active` newest of those up to `last`.
fn one_of_newest(last: u64, n_active: u64, random: u64) -> u64 {
    last - below(random, n_active.min(last + 1))
}

fn bid_auction(event: u64) -> u64 {
    let last = last_auction(event);
    let choice = random(0, event);
    FIRST_ID
        + match choice % 2 {
            0 => last / HOT_STRIDE * HOT_STRIDE,
            _ => one_of_newest(last, N_AUCTIONS_OPEN, choice),
        }
}

fn bid_bidder(event: u64) -> u64 {
    let last = last_person(event);
    let choice = random(1, event);
    FIRST_ID
        + match choice % 4 {
            0 => one_of_newest(last, N_PEOPLE_ACTIVE, choice),
            _ => (last / HOT_STRIDE * HOT_STRIDE + 1).min(last),
        }
}

fn auction_seller(event: u64) -> u64 {
    let last = last_person(event);
    let choice = random(17, event);
    FIRST_ID
        + match choice % 4 {
            0 => one_of_newest(last, N_PEOPLE_ACTIVE, choice),
            _ => last / HOT_STRIDE * HOT_STRIDE,
        }
}

fn auction_length_us(event: u64) -> i64 {
    // As long as it takes until about so many auctions are open.
    let mean = N_AUCTIONS_OPEN * 50 / 3 * EVENT_US.unsigned_abs();
    (1 + below(random(18, event), 2 * mean)).cast_signed()
}

/// Between 1.00 and 1,000,000.00, in cents; each power of ten as likely as the others.
fn price(event: u64, lane: u64) -> u64 {
    let choice = random(lane, event);
    10u64.pow((choice % 6) as u32) * (100 + below(choice, 900))
}

/// Half of the bids come by one of four channels, the others by one of ten thousand.
fn channel(event: u64) -> u64 {
    let choice = random(3, event);
    match choice % 2 {
        0 => below(choice, CHANNELS.len() as u64),
        _ => CHANNELS.len() as u64 + below(choice, 10_000),
    }
}

fn write_channel(channel: u64, out: &mut String) {
    match CHANNELS.get(channel as usize) {
        Some(name) => out.push_str(name),
        None => out.push_str(&format!("channel-{channel}")),
    }
}

fn write_url(channel: u64, out: &mut String) {
    out.push_str("https://auctions.example/");
    write_letters(channel, 4, 5, out);
    out.push('/');
    write_letters(channel, 5, 5, out);
    out.push_str(&format!("/item.htm?query={channel}"));
}

fn write_letters(event: u64, lane: u64, n: u64, out: &mut String) {
    let mut bits = 0;
    for at in 0..n {
        if at % 13 == 0 {
            bits = random(lane << 32 | at, event);
        }
        out.push(char::from(b'a' + (bits % 26) as u8));
        bits /= 26;
    }
}

fn name(event: u64) -> (&'static str, &'static str) {
    let pick = |names: &'static [&'static str], lane| {
        names.get(below(random(lane, event), names.len() as u64) as usize).copied().unwrap_or_default()
    };
    (pick(&FIRST_NAMES, 21), pick(&LAST_NAMES, 22))
}

fn city(event: u64) -> (&'static str, &'static str) {
    CITIES.get(below(random(27, event), CITIES.len() as u64) as usize).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use tidewire_types::SqlError;

    use super::*;
    use crate::{BadRecord, Decoder, FormatSpec, ReadMode, Record};

    #[test]
    fn a_bid_is_the_same_as_json_and_as_a_row() {
        let spec = FormatSpec { format: "PLAIN".into(), encode: "JSON".into(), options: Options::default() };
        let mut decoder = Decoder::new(&Table::Bid.columns(), &[0, 1, 2, 3, 4, 5, 6], &spec).unwrap();
        let mut n_bytes = 0;
        for index in 0..1000 {
            let mut json = vec![];
            write_bid_json(index, &mut json);
            decoder.decode(&Record::of_value(&json)).unwrap();
            n_bytes += json.len();
        }
        assert_eq!(decoder.finish().unwrap(), rows(Table::Bid, 0, 1000).unwrap());
        assert!((190..230).contains(&(n_bytes / 1000)), "{n_bytes}");
    }

    #[test]
    fn bids_go_to_auctions_and_come_from_people_that_exist_half_of_them_to_hot_ones() {
        let n_bids = 460_000;
        let bids = rows(Table::Bid, 0, n_bids).unwrap();
        let mut per_auction = BTreeMap::new();
        for (row, auction) in bids.column(0).as_primitive::<Int64Type>().values().iter().enumerate() {
            let newest = FIRST_ID + last_auction(Table::Bid.event(row as u64));
            assert!((FIRST_ID..=newest).contains(&auction.cast_unsigned()));
            *per_auction.entry(*auction).or_insert(0) += 1;
        }
        let hot: usize = per_auction.iter().filter(|(id, _)| *id % 100 == 0).map(|(_, n)| n).sum();
        assert!((n_bids * 49 / 100..n_bids * 53 / 100).contains(&hot), "{hot}");
        for (row, bidder) in bids.column(1).as_primitive::<Int64Type>().values().iter().enumerate() {
            let newest = FIRST_ID + last_person(Table::Bid.event(row as u64));
            assert!((FIRST_ID..=newest).contains(&bidder.cast_unsigned()));
        }
    }

    #[test]
    fn ids_of_people_and_auctions_are_consecutive() {
        for table in [Table::Person, Table::Auction] {
            let rows = rows(table, 0, 100).unwrap();
            let ids: Vec<i64> = rows.column(0).as_primitive::<Int64Type>().values().to_vec();
            assert_eq!(ids, (1000..1100).collect::<Vec<i64>>());
            assert_eq!(rows.columns().iter().map(|c| c.null_count()).sum::<usize>(), 0);
        }
    }

    fn create(options: &[(&str, &str)]) -> Result<Arc<dyn Source>, SqlError> {
        let pairs = options.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let options = Options::new(pairs)?;
        let columns = Nexmark.default_columns(&options)?.unwrap_or_default();
        let (name, bad_record) = ("n".to_string(), BadRecord::DeadLetter);
        Nexmark.create(SourceSpec { name, columns, options, format: None, bad_record })
    }

    #[test]
    fn as_a_source_it_has_its_own_columns() {
        for (table, n_columns) in [("bid", 7), ("auction", 10), ("person", 8)] {
            let source = create(&[("table.type", table), ("rows", "10"), ("splits", "3")]).unwrap();
            let all = (0..n_columns).collect();
            let mut reader = source.read(source.start().unwrap(), all, ReadMode::Follow).unwrap();
            let batch = reader.poll(Duration::ZERO, 1 << 20).unwrap();
            assert_eq!((batch.rows.num_rows(), batch.finished), (10, true));
        }
        assert_eq!(create(&[]).unwrap_err().message(), "option \"table.type\" is missing");
        assert!(create(&[("table.type", "bids")]).unwrap_err().message().contains("it must be bid, auction or person"));
    }
}
