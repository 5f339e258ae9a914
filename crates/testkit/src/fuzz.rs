//! A differential fuzzer: random tables, changes and queries; each materialized view is compared with its query as a
//! batch after every change, and both with PostgreSQL.
//!
//! What is generated is a function of the seed alone; `--seed n --cases 1` repeats the n-th case, and needs the same
//! features. A case that fails is shrunk ([`shrink`](self)) to a script that runs in psql too. A query that PostgreSQL
//! takes and Tidewire refuses with 0A000 is counted by its reason; any other difference is a finding, and so is every
//! panic, internal error and statement that does not end.
//!
//! Sources: McKeeman, "Differential testing for software", 1998; Zeller and Hildebrandt, "Simplifying and isolating
//! failure-inducing input", TSE 2002.

mod case;
mod check;
mod features;
mod functions;
mod gaps;
mod generate;
mod panics;
mod random;
mod shrink;
mod tree;
mod types;
mod values;

use std::fmt::Write;

use tidewire_engine::Settings;
use tokio_postgres::NoTls;

pub use self::check::{Counts, Finding};
pub use self::features::{Feature, Features};
pub use self::random::Random;

use self::case::Case;
use self::check::Place;
use crate::database::{Database, Failure, Wire};
use crate::server::Server;

/// Runs of a case that shrinking may take.
const SHRINK_RUNS_MAX: usize = 1200;
/// Cases that one server runs before the next takes over.
const CASES_A_SERVER: usize = 200;

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The first case's seed; the others follow.
    pub seed: u64,
    /// How many cases.
    pub n_cases: usize,
    /// What is generated and checked.
    pub features: Features,
    /// Where PostgreSQL is (`host=.. user=..` or `postgres://..`).
    pub postgres: Option<String>,
    /// Stop after so many findings of different kinds.
    pub findings_max: usize,
    /// Every how many changes a view's query is run as a batch too, where PostgreSQL says what is right.
    pub batch_every: usize,
    /// Whether findings are shrunk.
    pub shrink: bool,
    /// Say each seed before its case runs.
    pub trace: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            seed: 1,
            n_cases: 100,
            features: Features::default(),
            postgres: None,
            findings_max: 10,
            batch_every: 1,
            shrink: true,
            trace: false,
        }
    }
}

/// A finding with what repeats it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What is wrong.
    pub finding: Finding,
    /// The statements, with `;`.
    pub script: String,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Report { seed, finding, script } = self;
        writeln!(f, "seed {seed}: {}\n{}\n{script}-- --seed {seed} --cases 1 repeats it", finding.kind, finding.detail)
    }
}

/// Runs the cases. `show` gets each finding as it is found: the first of each kind.
///
/// Errors: a server that does not start, PostgreSQL that does not answer.
pub async fn run(options: &Options, mut show: impl FnMut(&Report)) -> Result<(Counts, Vec<Report>), Failure> {
    panics::watch();
    let mut runner = Runner::new(options).await?;
    let mut counts = Counts::default();
    let mut reports: Vec<Report> = vec![];
    for seed in (options.seed..).take(options.n_cases) {
        if options.trace {
            eprintln!("seed {seed}");
        }
        let case = generate::case(seed, &options.features);
        let Some(finding) = runner.run(&case, &mut counts).await? else { continue };
        if reports.iter().any(|r| r.finding.kind == finding.kind) {
            continue;
        }
        let report = runner.report(case, finding).await?;
        show(&report);
        reports.push(report);
        if reports.len() >= options.findings_max {
            break;
        }
    }
    runner.server.shutdown().await;
    Ok((counts, reports))
}

/// Runs a script (a replay, or what someone wrote) on a server of its own, and compares as for a generated case.
pub async fn run_script(options: &Options, script: &str) -> Result<Option<Finding>, Failure> {
    panics::watch();
    let mut runner = Runner::new(options).await?;
    let found = runner.run(&Case::of_script(script), &mut Counts::default()).await;
    runner.server.shutdown().await;
    found
}

/// What the cases have used, as lines of text.
pub fn statistics(counts: &Counts) -> String {
    let Counts {
        n_cases,
        n_views,
        n_with_query,
        n_bound,
        n_with_postgres,
        n_changes,
        n_left,
        n_row_errors,
        n_undefined,
        refused,
    } = counts;
    let mut out = format!(
        "{n_cases} cases, {n_views} views, {n_changes} changes, {n_with_query} comparisons of a view with its query, \
         {n_with_postgres} with PostgreSQL, {n_bound} of statements with parameters\n{n_left} cases left early, {n_row_errors} queries that failed in PostgreSQL only, \
         {n_undefined} views that had no value where their query had one\n"
    );
    let mut reasons: Vec<_> = refused.iter().collect();
    reasons.sort_by_key(|(reason, (n, _))| (std::cmp::Reverse(*n), *reason));
    for (reason, (n, seed)) in reasons {
        let _ = writeln!(out, "refused {n:5} {reason} (seed {seed})");
    }
    out
}

struct Runner<'a> {
    options: &'a Options,
    server: Server,
    /// A client over the wire.
    driver: Wire,
    n_on_server: usize,
    postgres: Option<Wire>,
}

impl<'a> Runner<'a> {
    async fn new(options: &'a Options) -> Result<Runner<'a>, Failure> {
        let postgres = match &options.postgres {
            None => None,
            Some(address) => Some(connect(address).await?),
        };
        let (server, driver) = start(options.seed).await?;
        Ok(Runner { options, server, driver, n_on_server: 0, postgres })
    }

    async fn run(&mut self, case: &Case, counts: &mut Counts) -> Result<Option<Finding>, Failure> {
        self.n_on_server += 1;
        if self.n_on_server > CASES_A_SERVER {
            self.renew(case.seed).await?;
        }
        let place = Place {
            server: &self.server,
            driver: &self.driver,
            postgres: self.postgres.as_mut(),
            features: &self.options.features,
            batch_every: self.options.batch_every,
        };
        let ended = check::run(case, place, counts).await?;
        if !ended.clean {
            // What the case left behind must not meet the next one.
            self.renew(case.seed).await?;
        }
        Ok(ended.found)
    }

    async fn renew(&mut self, seed: u64) -> Result<(), Failure> {
        let (server, driver) = start(seed).await?;
        self.driver = driver;
        std::mem::replace(&mut self.server, server).shutdown().await;
        self.n_on_server = 0;
        Ok(())
    }

    /// Shrinks the case.
    async fn report(&mut self, case: Case, finding: Finding) -> Result<Report, Failure> {
        let (mut smallest, mut finding) = (case, finding);
        let mut n_left = if self.options.shrink { SHRINK_RUNS_MAX } else { 0 };
        let mut ignored = Counts::default();
        'simpler: loop {
            for simple in shrink::simpler(&smallest) {
                if n_left == 0 {
                    break 'simpler;
                }
                n_left -= 1;
                match self.run(&simple, &mut ignored).await? {
                    Some(found) if found.kind == finding.kind => {
                        (smallest, finding) = (simple, found);
                        continue 'simpler;
                    }
                    _ => {}
                }
            }
            break;
        }
        Ok(Report { seed: smallest.seed, finding, script: smallest.to_string() })
    }
}

/// Shards and epochs take turns: none of them may change a result.
fn settings(seed: u64) -> Settings {
    let settings = Settings::default();
    match seed % 3 {
        0 => Settings { n_shards: 3, epoch_rows_max: 2, parallel_rows_min: 1, ..settings },
        1 => Settings { n_shards: 1, ..settings },
        _ => settings,
    }
}

async fn start(seed: u64) -> Result<(Server, Wire), Failure> {
    let mut server = Server::start(settings(seed))?;
    server.listen().await?;
    let driver = server.wire().await?;
    Ok((server, driver))
}

async fn connect(address: &str) -> Result<Wire, Failure> {
    let failed = |e: tokio_postgres::Error| Failure::of_test(format!("cannot reach PostgreSQL: {e}"));
    let (client, connection) = tokio_postgres::connect(address, NoTls).await.map_err(failed)?;
    tokio::spawn(connection);
    let mut postgres = Wire(client);
    postgres
        .run("SET client_min_messages = error; SET timezone = 'UTC'; SET statement_timeout = '5s'; SET jit = off")
        .await?;
    Ok(postgres)
}
