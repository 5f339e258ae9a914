//! The `tidewire` binary: command line, list of connectors, HTTP, and the demo.
//!
//! Everything else is in the crates below; this one only puts them together. Invariant: whatever can be wrong with the
//! options, the ports or the data directory is told on stderr in a line or two with exit code 1, never by a panic.

mod arguments;
mod connectors;
mod demo;
mod failure;
mod http;
mod memory_limit;
mod metrics;
mod ports;
mod process;
mod restore;
mod serve;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;

// Deltas are many short-lived allocations on several threads, which the system allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Arguments::parse().into_command();
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tidewire: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Bytes of stack that a query may need to run.
const QUERY_STACK_BYTES: usize = 32 << 20;

fn run(command: Command) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("tidewire-io")
        // A query of some hundred joins runs as deep; only the pages that are touched cost memory.
        .thread_stack_size(QUERY_STACK_BYTES)
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    match command {
        Command::Serve(options) => {
            start_log(&options.log)?;
            runtime.block_on(serve::run(options))
        }
        Command::Restore(options) => {
            start_log(&options.log)?;
            restore::run(&options)
        }
        Command::Demo(options) => {
            start_log(&options.log)?;
            runtime.block_on(demo::run(options))
        }
    }
}

fn start_log(filter: &str) -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| Failure::new(format!("--log \"{filter}\" is not a filter: {error}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}
