//! `tidewire demo`: the server, a Kafka and a generator in one process, and one view shown live.
//!
//! What it shows is what any client sees: the statements of `demo/demo.sql` run in a session of the same engine that
//! the Postgres port serves. Nothing in here computes a result.

mod generator;
mod live;
mod script;
mod table;

use std::io::Write;
use std::time::Instant;

use tidewire_engine::{Outcome, Session, Settings};
use tidewire_kafka::testing::MockKafka;

use crate::arguments::DemoOptions;
use crate::demo::generator::Generator;
use crate::failure::Failure;
use crate::serve::{Server, Signals, State};

/// The statements, with `:'broker'` where psql would put a variable.
const SCRIPT: &str = include_str!("../demo/demo.sql");
/// Partitions of each topic. The in-process Kafka keeps the last 5 MB of each, so more of them keep a longer history
/// for views that are made late.
const N_PARTITIONS: usize = 8;
/// Orders that are there before the first statement runs.
const N_FIRST_ORDERS: u32 = 2_000;

/// What a reader may type into psql.
const TO_TRY: &str = "    \\dm
    SELECT * FROM top_items ORDER BY value DESC;
    SELECT * FROM big_cities EMIT CHANGES LIMIT 20;
    SELECT object, position, error, value FROM tidewire.dead_letters LIMIT 4;
    EXPLAIN ANALYZE MATERIALIZED VIEW revenue_by_city;
    CREATE MATERIALIZED VIEW methods AS SELECT method, count(*) FROM payments GROUP BY method;
";

/// Runs the demo until Ctrl-C, or as long as the options say.
pub async fn run(options: DemoOptions) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let server = Server::start(&options.listen, &options.http_listen, Settings::default(), State::default()).await?;
    let shown = tokio::select! {
        shown = show(&options, &server) => shown,
        () = signals.next() => Ok(()),
    };
    live::leave();
    let stopped = server.stop(&mut signals).await;
    shown.and(stopped)
}

async fn show(options: &DemoOptions, server: &Server) -> Result<(), Failure> {
    let kafka = tokio::task::block_in_place(start_kafka)?;
    let broker = kafka.bootstrap();
    say(format_args!(
        "A Kafka runs in this process at {broker}; a generator writes to its topics orders and payments.\n"
    ));
    // Dropped at the end of this function, which ends the generator's thread before the Kafka it writes to.
    let _generator = tokio::task::block_in_place(|| Generator::start(&broker, N_FIRST_ORDERS, options.rate))?;

    let mut session = server.engine.session("tidewire", "tidewire");
    run_script(&mut session, &broker).await?;

    let (host, port) = (server.pg_address.ip(), server.pg_address.port());
    say(format_args!(
        "\nConnect from another terminal:\n\n    psql -h {host} -p {port} -U tidewire tidewire\n\nand try:\n\n{TO_TRY}\n\
         Metrics: http://{}/metrics\n",
        server.http_address
    ));
    live::show(&server.engine, &mut session, options.run_for).await
}

fn start_kafka() -> Result<MockKafka, Failure> {
    let kafka = MockKafka::start(1)?;
    for topic in [generator::ORDERS, generator::PAYMENTS] {
        kafka.create_topic(topic, N_PARTITIONS)?;
    }
    Ok(kafka)
}

/// Runs the statements one by one and prints each as it stands in the file, with its comment.
async fn run_script(session: &mut Session, broker: &str) -> Result<(), Failure> {
    for (text, statement) in script::statements(SCRIPT, broker)? {
        say(format_args!("{text};"));
        let start = Instant::now();
        let prepared = session.prepare(statement, &[]).await?;
        let Outcome::Command { tag, .. } = session.execute(&prepared, vec![]).await? else {
            return Err(Failure::new("a statement of the demo gave rows"));
        };
        say(format_args!("{tag} ({} ms)\n", start.elapsed().as_millis()));
    }
    Ok(())
}

/// Prints a line. A reader that went away (`tidewire demo | head`) is no error.
fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
