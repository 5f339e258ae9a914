//! The 22 queries of TPC-H as views, while all eight tables are fed, beside the same queries run once over the final tables.
//!
//! `tidewire-bench tpch [SCALE FACTOR] [ROWS A CHANGE]`: data of dbgen. CPU time of the epoch loop and its workers
//! (parsing of the INSERTs is not in it), beside the CPU time of the process for one run of each query as a batch.
//! Each view must end equal to its query.

use std::error::Error;
use std::fmt::Write;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidewire_testkit::tpch::TABLES;
use tidewire_testkit::tpch::queries::QUERIES;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};

use crate::cpu::{process_cpu, threads_cpu_ns};
use crate::server::Server;

/// Runs the benchmark.
pub fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let scale: f64 = args.first().map_or(Ok(0.1), |n| n.parse())?;
    let n_rows: usize = args.get(1).map_or(Ok(10_000), |n| n.parse())?;
    let mut server = Server::start()?;
    for (name, columns) in TABLES {
        server.rows(&format!("CREATE TABLE {name} ({columns})"))?;
    }
    for (number, query) in QUERIES {
        server.rows(&format!("CREATE MATERIALIZED VIEW q{number} AS {query}"))?;
    }
    let (before, began) = (loop_cpu(), Instant::now());
    let mut n_fed = 0;
    for (name, _) in TABLES {
        let mut rows = lines(name, scale);
        while let Some(insert) = insert(name, rows.by_ref().take(n_rows))? {
            n_fed += server.insert(&insert)?;
        }
    }
    let (fed_cpu, fed_s) = (loop_cpu() - before, began.elapsed().as_secs_f64());
    println!("{n_fed} rows in changes of {n_rows}, {fed_s:.1} s\n");
    println!("| query | view: step, ms | state, MB | rows of state | once as a batch, CPU ms | ratio |");
    println!("|---|---|---|---|---|---|");
    let mut batch_cpu = 0.0;
    let status = server.status();
    for (number, query) in QUERIES {
        let before = process_cpu();
        let expected = text(&server.rows(query)?)?;
        // The system counts in hundredths: small queries are run until there is something to count.
        let (mut n_runs, mut cpu) = (1, process_cpu() - before);
        while cpu < 0.3 && n_runs < 20 {
            server.rows(query)?;
            (n_runs, cpu) = (n_runs + 1, process_cpu() - before);
        }
        let once_ms = cpu / f64::from(n_runs) * 1e3;
        batch_cpu += once_ms / 1e3;
        if text(&server.rows(&format!("SELECT * FROM q{number}"))?)? != expected {
            return Err(format!("view q{number} is not its query").into());
        }
        let view = status.views.iter().find(|v| v.name.ends_with(&format!("q{number}")));
        let view = view.ok_or_else(|| format!("no view q{number}"))?;
        let step_ms = view.operators.iter().map(|o| o.step_ns).sum::<u64>() as f64 / 1e6;
        let n_rows: usize = view.operators.iter().map(|o| o.state_rows).sum();
        let mb = view.state_bytes as f64 / 1e6;
        println!("| q{number} | {step_ms:.0} | {mb:.1} | {n_rows} | {once_ms:.0} | {:.1} |", step_ms / once_ms);
    }
    println!("| all | {:.0} (CPU) | | | {:.0} | {:.2} |", fed_cpu * 1e3, batch_cpu * 1e3, fed_cpu / batch_cpu);
    Ok(())
}

/// Seconds of CPU of the threads that keep views up to date.
fn loop_cpu() -> f64 {
    threads_cpu_ns(|name| name == "epoch-loop" || name.starts_with("shard-")) as f64 / 1e9
}

/// The rows of a table in dbgen's own text: values with a bar behind each.
fn lines(table: &str, scale: f64) -> Box<dyn Iterator<Item = String>> {
    macro_rules! lines {
        ($generator:ident) => {
            Box::new($generator::new(scale, 1, 1).iter().map(|row| row.to_string()))
        };
    }
    match table {
        "region" => lines!(RegionGenerator),
        "nation" => lines!(NationGenerator),
        "supplier" => lines!(SupplierGenerator),
        "part" => lines!(PartGenerator),
        "partsupp" => lines!(PartSuppGenerator),
        "customer" => lines!(CustomerGenerator),
        "orders" => lines!(OrderGenerator),
        _ => lines!(LineItemGenerator),
    }
}

/// An INSERT of the rows; None: there are none.
fn insert(table: &str, rows: impl Iterator<Item = String>) -> Result<Option<String>, std::fmt::Error> {
    let mut sql = String::new();
    for row in rows {
        sql.push_str(if sql.is_empty() { "INSERT INTO " } else { "," });
        if sql.len() == "INSERT INTO ".len() {
            write!(sql, "{table} VALUES ")?;
        }
        let values = row.trim_end().trim_end_matches('|').replace('\'', "''").replace('|', "','");
        write!(sql, "('{values}')")?;
    }
    Ok(Some(sql).filter(|sql| !sql.is_empty()))
}

/// The rows as sorted lines: the order of a view's rows is not defined.
fn text(batches: &[RecordBatch]) -> Result<Vec<String>, Box<dyn Error>> {
    let options = FormatOptions::default();
    let mut lines = vec![];
    for batch in batches {
        let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            lines.push(columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|"));
        }
    }
    lines.sort_unstable();
    Ok(lines)
}
