//! The command line: `tidewire`, `tidewire serve`, `tidewire demo`, and their options.
//!
//! Each option is also an environment variable `TIDEWIRE_*`; the command line wins.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

const AFTER_HELP: &str = "\
Connect with any PostgreSQL client: psql -h 127.0.0.1 -p 7432 -U tidewire tidewire

State is kept in the data directory: a server that is started in it again has the tables, views, sources and dead \
letters that were there, however the last one ended. Materialized views go on where they were.

An option on the command line wins over its environment variable.";

/// Streaming SQL in one binary: streams in, materialized views that are always up to date, served to any PostgreSQL
/// client.
#[derive(Debug, Parser)]
#[command(name = "tidewire", version, after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeOptions,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server (this is what `tidewire` alone does)
    ///
    /// Listens for PostgreSQL clients and for HTTP (health and metrics), until SIGINT or SIGTERM.
    #[command(after_help = AFTER_HELP)]
    Serve(ServeOptions),
    /// Make a data directory of a backup (BACKUP TO in SQL), or of the checkpoints of a server that is gone
    ///
    /// Every file is checked. Then start the server with the same --data-dir.
    Restore(RestoreOptions),
    /// Show Tidewire at work, with nothing else installed
    ///
    /// Starts the server, and beside it in the same process a small Kafka (librdkafka's mock cluster) into which a
    /// generator writes orders, payments and now and then a broken record. Runs a file of plain SQL over them, prints how
    /// to connect, and shows one of the views changing until Ctrl-C.
    Demo(DemoOptions),
}

/// Options of `tidewire serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeOptions {
    /// Where PostgreSQL clients connect
    #[arg(long, env = "TIDEWIRE_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7432")]
    pub listen: String,

    /// Where HTTP is served: / (what runs here), /health and /metrics (Prometheus)
    #[arg(long, env = "TIDEWIRE_HTTP_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7433")]
    pub http_listen: String,

    /// Where state is kept: a directory, made where it is missing and locked so that two servers never share it;
    /// s3://bucket/prefix, where a server that is started later takes over from the one before; or memory: for a server
    /// whose state is gone when it ends
    ///
    /// How a store is reached say AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT and
    /// AWS_ALLOW_HTTP (true: without TLS).
    #[arg(long, env = "TIDEWIRE_DATA_DIR", value_name = "DIR", default_value = "tidewire-data")]
    pub data_dir: String,

    /// Keep checkpoints in an object store, s3://bucket/prefix, and only the log in the data directory
    #[arg(long, env = "TIDEWIRE_CHECKPOINT_DIR", value_name = "URL")]
    pub checkpoint_dir: Option<String>,

    /// Start although the log is damaged: what comes before the damage is kept, and the rest is set aside in files that
    /// end in .damaged
    ///
    /// Writes that were answered and stand behind the damage are lost. Without this option the server does not start.
    #[arg(long, env = "TIDEWIRE_CUT_DAMAGED_LOG")]
    pub cut_damaged_log: bool,

    /// Memory that tables and views may take, such as 4GB or 512MB; default: 80 % of what the cgroup or the machine has
    ///
    /// A view that would pass it is stopped, and rows for tables are refused; all else goes on.
    #[arg(long, env = "TIDEWIRE_MEMORY_LIMIT", value_name = "SIZE", value_parser = memory)]
    pub memory_limit: Option<usize>,

    /// How many parts state and work are divided into, each with a thread of its own for large epochs; default: what the
    /// data directory has, else the number of cores
    ///
    /// With another number than the data directory has, materialized views are built again.
    #[arg(long, env = "TIDEWIRE_SHARDS", value_name = "N", value_parser = shards)]
    pub shards: Option<usize>,

    /// What is logged to stderr: a level (error, warn, info, debug, trace), or levels by module such as
    /// info,tidewire_kafka=debug
    #[arg(long, env = "TIDEWIRE_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
}

/// Options of `tidewire restore`.
#[derive(Args, Clone, Debug)]
pub struct RestoreOptions {
    /// The backup: a directory or s3://bucket/prefix
    #[arg(long, env = "TIDEWIRE_RESTORE_FROM", value_name = "PLACE")]
    pub from: String,

    /// The data directory to make: a directory that does not exist or is empty, or s3://bucket/prefix
    #[arg(long, env = "TIDEWIRE_DATA_DIR", value_name = "DIR")]
    pub data_dir: String,

    /// Put the checkpoints in an object store, s3://bucket/prefix, and only the log in the data directory
    #[arg(long, env = "TIDEWIRE_CHECKPOINT_DIR", value_name = "URL")]
    pub checkpoint_dir: Option<String>,

    /// What is logged to stderr: a level (error, warn, info, debug, trace), or levels by module
    #[arg(long, env = "TIDEWIRE_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
}

/// Options of `tidewire demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoOptions {
    /// Where PostgreSQL clients connect
    #[arg(long, env = "TIDEWIRE_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7432")]
    pub listen: String,

    /// Where HTTP is served: / (what runs here), /health and /metrics (Prometheus)
    #[arg(long, env = "TIDEWIRE_HTTP_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7433")]
    pub http_listen: String,

    /// Orders that the generator writes in a second (each is followed by a payment, most of the time)
    #[arg(long, env = "TIDEWIRE_DEMO_RATE", value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,

    /// End by itself after this time, such as 10s or 500ms; default: run until Ctrl-C
    #[arg(long = "for", env = "TIDEWIRE_DEMO_FOR", value_name = "TIME", value_parser = duration)]
    pub run_for: Option<Duration>,

    /// What is logged to stderr: a level (error, warn, info, debug, trace), or levels by module
    #[arg(long, env = "TIDEWIRE_LOG", value_name = "FILTER", default_value = "error")]
    pub log: String,
}

impl Arguments {
    /// The command: `serve` where none is given.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

/// Parses `10s`, `500ms`, `2m`, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let number_len = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    let seconds_per_unit = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        _ => return Err("write a time such as 10s, 500ms or 2m".to_owned()),
    };
    let seconds = number.parse::<f64>().map_err(|_| "write a time such as 10s, 500ms or 2m".to_owned())?;
    Duration::try_from_secs_f64(seconds * seconds_per_unit).map_err(|error| error.to_string())
}

fn memory(text: &str) -> Result<usize, String> {
    tidewire_engine::memory_size(text).map_err(|error| error.to_string())
}

fn shards(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1024) => Ok(n),
        _ => Err("a number from 1 to 1024 is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &[&str]) -> Result<Command, clap::Error> {
        Arguments::try_parse_from([&["tidewire"], words].concat()).map(Arguments::into_command)
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn serve_is_what_a_bare_call_does() {
        let Ok(Command::Serve(options)) = parse(&["--listen", "127.0.0.1:1", "--shards", "3"]) else {
            panic!("not serve");
        };
        assert_eq!((options.listen.as_str(), options.shards), ("127.0.0.1:1", Some(3)));
        assert!(matches!(parse(&["serve", "--data-dir", "d"]), Ok(Command::Serve(o)) if o.data_dir == "d"));
    }

    #[test]
    fn every_option_has_an_environment_variable() {
        let command = Arguments::command();
        for command in command.get_subcommands() {
            for argument in command.get_arguments().filter(|a| a.get_id() != "help") {
                let variable = argument.get_env().and_then(|name| name.to_str()).unwrap_or_default();
                assert!(variable.starts_with("TIDEWIRE_"), "{} of {}", argument.get_id(), command.get_name());
            }
        }
    }

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "s", "10 parsecs", "-1", "1e99999s", "99999999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_numbers_are_refused() {
        for words in [["--shards", "0"], ["--shards", "many"]] {
            assert!(parse(&words).is_err(), "{words:?}");
        }
        assert!(parse(&["demo", "--rate", "0"]).is_err());
    }
}
