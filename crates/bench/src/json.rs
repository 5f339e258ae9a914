//! JSON records of about 200 bytes to columns: our decoder beside arrow-json's, both fed one record a call.
//!
//! `tidewire-bench json [RECORDS] [ROUNDS]`. CPU time of this thread, the best of interleaved rounds. Both must give
//! the same rows, or the benchmark fails.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidewire_connect::nexmark::{Table, write_bid_json};
use tidewire_connect::{Decoder, FormatSpec, Options, Record};

const BATCH_ROWS: usize = 8192;
/// A round goes over the records so many times, so that the clock's grain does not show.
const REPEATS: usize = 4;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Runs the benchmark.
pub fn run(args: &[String]) -> Outcome<()> {
    let n_records: u64 = args.first().map_or(Ok(200_000), |n| n.parse())?;
    let n_rounds: usize = args.get(1).map_or(Ok(5), |n| n.parse())?;
    let records: Vec<Vec<u8>> = (0..n_records).map(bid).collect();
    let n_bytes: usize = records.iter().map(Vec::len).sum();
    println!("{n_records} bids of {} bytes, best of {n_rounds} rounds, one core\n", n_bytes / records.len().max(1));
    println!("| columns | Tidewire, M records/CPU-s | MB/CPU-s | arrow-json, M records/CPU-s | ratio |");
    println!("|---|---|---|---|---|");
    for (name, projection) in [("7 of 7", vec![0, 1, 2, 3, 4, 5, 6]), ("2 of 7", vec![0, 2])] {
        check_equal(&records, &projection)?;
        let (mut ours, mut theirs) = (f64::MAX, f64::MAX);
        for _ in 0..n_rounds {
            ours = ours.min(timed(|| tidewire(&records, &projection, forget))?);
            theirs = theirs.min(timed(|| arrow_json(&records, &projection, forget))?);
        }
        let rate = |seconds: f64| n_records as f64 / seconds / 1e6;
        let (mb, ratio) = (n_bytes as f64 / ours / 1e6, theirs / ours);
        println!("| {name} | {:.2} | {mb:.0} | {:.2} | {ratio:.2} |", rate(ours), rate(theirs));
    }
    Ok(())
}

fn bid(index: u64) -> Vec<u8> {
    let mut json = Vec::new();
    write_bid_json(index, &mut json);
    json
}

/// A batch is dropped as soon as it is made, as an epoch does.
fn forget(batch: RecordBatch) {
    drop(black_box(batch));
}

/// CPU seconds of one pass.
fn timed(pass: impl Fn() -> Outcome<()>) -> Outcome<f64> {
    let before = thread_cpu()?;
    for _ in 0..REPEATS {
        pass()?;
    }
    Ok((thread_cpu()? - before) / REPEATS as f64)
}

/// CPU seconds of this thread, from the scheduler's accounting.
fn thread_cpu() -> Outcome<f64> {
    // The scheduler brings its count up to date when a thread gives up the processor.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos: u64 = text.split_whitespace().next().ok_or("schedstat is empty")?.parse()?;
    Ok(nanos as f64 / 1e9)
}

fn tidewire(records: &[Vec<u8>], projection: &[usize], mut take: impl FnMut(RecordBatch)) -> Outcome<()> {
    let spec = FormatSpec { format: "PLAIN".into(), encode: "JSON".into(), options: Options::default() };
    let mut decoder = Decoder::new(&Table::Bid.columns(), projection, &spec)?;
    for record in records {
        decoder.decode(&Record::of_value(record))?;
        if decoder.n_rows() == BATCH_ROWS {
            take(decoder.finish()?);
        }
    }
    take(decoder.finish()?);
    Ok(())
}

/// Strings as offsets and bytes: faster for arrow-json than views.
fn arrow_schema(projection: &[usize]) -> SchemaRef {
    let columns = Table::Bid.columns();
    let fields = projection.iter().filter_map(|idx| columns.get(*idx)).map(|c| match c.sql_type.data_type() {
        DataType::Utf8View => Field::new(&c.name, DataType::Utf8, true),
        other => Field::new(&c.name, other, true),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn arrow_json(records: &[Vec<u8>], projection: &[usize], mut take: impl FnMut(RecordBatch)) -> Outcome<()> {
    let builder = arrow_json::ReaderBuilder::new(arrow_schema(projection)).with_batch_size(BATCH_ROWS);
    let mut decoder = builder.build_decoder()?;
    for (n, record) in records.iter().enumerate() {
        decoder.decode(record)?;
        if (n + 1) % BATCH_ROWS == 0
            && let Some(batch) = decoder.flush()?
        {
            take(batch);
        }
    }
    if let Some(batch) = decoder.flush()? {
        take(batch);
    }
    Ok(())
}

fn check_equal(records: &[Vec<u8>], projection: &[usize]) -> Outcome<()> {
    let (mut ours, mut theirs) = (vec![], vec![]);
    tidewire(records, projection, |batch| ours.push(batch))?;
    arrow_json(records, projection, |batch| theirs.push(batch))?;
    let (ours, theirs) = (columns(&ours)?, columns(&theirs)?);
    if ours == theirs { Ok(()) } else { Err("the decoders disagree".into()) }
}

fn columns(batches: &[RecordBatch]) -> Outcome<Vec<ArrayRef>> {
    let schema = batches.first().ok_or("no rows")?.schema();
    let all = concat_batches(&schema, batches)?;
    let column = |array: &ArrayRef| match array.data_type() {
        DataType::Utf8View => cast(array, &DataType::Utf8),
        _ => Ok(array.clone()),
    };
    Ok(all.columns().iter().map(column).collect::<Result<_, _>>()?)
}
