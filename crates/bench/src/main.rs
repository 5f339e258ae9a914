//! Benchmarks, each beside DataFusion or Arrow doing the same work on the same rows in the same process, so that the
//! ratios mean something on any machine. `tidewire-bench NAME [ARGUMENTS]`; `docs/benchmarks.md` holds the results.

use std::error::Error;
use std::process::ExitCode;

mod aggregate;
mod build;
mod changes;
mod cpu;
mod durability;
mod growth;
mod join;
mod json;
mod kafka;
mod latency;
mod lookup;
mod memory;
mod server;
mod tpch;

/// The allocator that the server has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How a benchmark ends.
type Outcome = Result<(), Box<dyn Error>>;

/// One benchmark: its name, what it measures, and what runs it with the arguments behind its name.
struct Benchmark {
    name: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Outcome,
}

/// All benchmarks: a new one adds its module above and its line here.
static BENCHMARKS: &[Benchmark] = &[
    Benchmark { name: "json", help: "[RECORDS] [ROUNDS]: JSON records to columns, beside arrow-json", run: json::run },
    Benchmark {
        name: "aggregate",
        help: "[MILLION ROWS] [ROUNDS] [MILLION GROUPS] [EPOCH ROWS]: GROUP BY of an endless input, beside DataFusion's",
        run: aggregate::run,
    },
    Benchmark {
        name: "join",
        help: "[MILLION FACTS] [EPOCH ROWS] [ROUNDS]: a join of two unbounded inputs, beside DataFusion's hash join",
        run: join::run,
    },
    Benchmark {
        name: "changes",
        help: "[THOUSAND ROWS] [CHANGES] [VIEW]: one-row changes under a view, and how their cost grows with the rows",
        run: changes::run,
    },
    Benchmark {
        name: "growth",
        help: "[THOUSAND ROWS]: what a row costs each shape of view, and ten times as many rows",
        run: growth::run,
    },
    Benchmark {
        name: "build",
        help: "[MILLION ROWS] [VIEW]: CREATE MATERIALIZED VIEW over rows that are there, beside the query as a batch",
        run: build::run,
    },
    Benchmark {
        name: "tpch",
        help: "[SCALE FACTOR] [ROWS A CHANGE]: TPC-H's queries as views, beside one run of each as a batch",
        run: tpch::run,
    },
    Benchmark {
        name: "durability",
        help: "[THOUSAND ROWS] [ROUNDS]: ingest with checkpoints every second beside durability off; pauses, disk, recovery",
        run: durability::run,
    },
    Benchmark {
        name: "kafka",
        help: "BOOTSTRAP [RECORDS]: JSON from a real Kafka into views, beside DataFusion's batch over the same rows",
        run: kafka::run,
    },
    Benchmark {
        name: "latency",
        help: "BOOTSTRAP [SECONDS]: how long a change takes to reach a subscriber; what an idle server costs",
        run: latency::run,
    },
    Benchmark {
        name: "lookup",
        help: "[THOUSAND ROWS] [LOOKUPS]: rows of a view by key, beside a scan of it",
        run: lookup::run,
    },
    Benchmark {
        name: "memory",
        help: "[GIGABYTES]: touches memory, so that a host has given it to this machine; measures nothing",
        run: memory::run,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = args.split_first() else { return usage() };
    let Some(benchmark) = BENCHMARKS.iter().find(|b| b.name == name) else { return usage() };
    match (benchmark.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: tidewire-bench NAME [ARGUMENTS]");
    for benchmark in BENCHMARKS {
        eprintln!("  {} {}", benchmark.name, benchmark.help);
    }
    ExitCode::FAILURE
}
