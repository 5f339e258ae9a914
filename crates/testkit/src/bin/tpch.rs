//! `cargo run -p tidewire-testkit --bin tpch -- postgres://postgres@127.0.0.1/postgres sql-tests/tpch`
//!
//! Writes the files of TPC-H: a file has a few of the 22 queries as materialized views, some made before the data and
//! some after; then rows come, change and go in all eight tables. The expected values are what that PostgreSQL gives.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;

use tidewire_testkit::database::{Database, Wire};
use tidewire_testkit::tpch::queries::QUERIES;
use tidewire_testkit::tpch::{DELETES, Share, TABLES, UPDATES, inserts};
use tokio_postgres::NoTls;

const SEED: u64 = 22;
const QUERIES_A_FILE: usize = 6;

type Failed = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, folder] = arguments.as_slice() else {
        return Err("tpch POSTGRES FOLDER".into());
    };
    let (client, connection) = tokio_postgres::connect(address, NoTls).await?;
    tokio::spawn(connection);
    let mut postgres = Wire(client);
    for queries in QUERIES.chunks(QUERIES_A_FILE) {
        let text = file(queries, &mut postgres).await?;
        let (Some((first, _)), Some((last, _))) = (queries.first(), queries.last()) else { continue };
        let path = Path::new(folder).join(format!("q{first:02}_to_q{last:02}.slt"));
        std::fs::write(&path, text)?;
        println!("{}", path.display());
    }
    Ok(())
}

async fn file(queries: &[(usize, &str)], postgres: &mut Wire) -> Result<String, Failed> {
    let mut out = String::from(
        "# Queries of TPC-H while all eight tables change. Written by `cargo run -p tidewire-testkit --bin tpch`.\n\n",
    );
    postgres.run("DISCARD TEMP").await?;
    for (name, columns) in TABLES {
        statement(&mut out, &format!("CREATE TABLE {name} ({columns})"));
        postgres.run(&format!("CREATE TEMP TABLE {name} ({columns})")).await?;
    }
    let (early, late) = queries.split_at(queries.len() / 2);
    views(&mut out, early, postgres).await?;
    transaction(&mut out, inserts(SEED, Share::First), postgres).await?;
    views(&mut out, late, postgres).await?;
    results(&mut out, queries, postgres).await?;
    transaction(&mut out, inserts(SEED, Share::Later), postgres).await?;
    results(&mut out, queries, postgres).await?;
    transaction(&mut out, UPDATES.iter().map(ToString::to_string).collect(), postgres).await?;
    results(&mut out, queries, postgres).await?;
    transaction(&mut out, DELETES.iter().map(ToString::to_string).collect(), postgres).await?;
    results(&mut out, queries, postgres).await?;
    out.push_str("statement error 42703\nSELECT l_nothing FROM lineitem\n");
    Ok(out)
}

fn statement(out: &mut String, sql: &str) {
    let _ = write!(out, "statement ok\n{sql}\n\n");
}

async fn views(out: &mut String, queries: &[(usize, &str)], postgres: &mut Wire) -> Result<(), Failed> {
    for (number, query) in queries {
        statement(out, &format!("CREATE MATERIALIZED VIEW q{number} AS {query}"));
        postgres.run(&format!("CREATE TEMP VIEW q{number} AS {query}")).await?;
    }
    Ok(())
}

/// The writes, seen together.
async fn transaction(out: &mut String, writes: Vec<String>, postgres: &mut Wire) -> Result<(), Failed> {
    statement(out, "BEGIN");
    for sql in writes {
        postgres.run(&sql).await?;
        statement(out, &sql);
    }
    statement(out, "COMMIT");
    Ok(())
}

async fn results(out: &mut String, queries: &[(usize, &str)], postgres: &mut Wire) -> Result<(), Failed> {
    for (number, _) in queries {
        let sql = reading(*number, postgres).await?;
        let answer = postgres.run(&sql).await?;
        if answer.rows.is_empty() {
            println!("q{number} has no rows");
        }
        let _ = write!(out, "query {} rowsort\n{sql}\n----\n", "T".repeat(answer.columns.len()));
        // As the runner sorts: by cells.
        let cell = |cell: Option<String>| cell.unwrap_or_else(|| "NULL".into());
        let mut rows: Vec<Vec<String>> =
            answer.rows.into_iter().map(|row| row.into_iter().map(cell).collect()).collect();
        rows.sort_unstable();
        rows.iter().for_each(|row| {
            let _ = writeln!(out, "{}", row.iter().map(|c| c.trim()).collect::<Vec<_>>().join(" "));
        });
        out.push('\n');
    }
    Ok(())
}

/// Numerics are read with a scale: PostgreSQL shows an average with more digits than are kept here.
async fn reading(number: usize, postgres: &Wire) -> Result<String, Failed> {
    let prepared = postgres.0.prepare(&format!("SELECT * FROM q{number}")).await?;
    let column = |c: &tokio_postgres::Column| match c.type_().name() {
        "numeric" => format!("{0}::numeric(20,4) AS {0}", c.name()),
        _ => c.name().to_string(),
    };
    let columns: Vec<String> = prepared.columns().iter().map(column).collect();
    Ok(format!("SELECT {} FROM q{number}", columns.join(", ")))
}
