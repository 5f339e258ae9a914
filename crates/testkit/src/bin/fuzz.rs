//! `cargo run -p tidewire-testkit --bin fuzz -- --seed 1 --cases 1000 --postgres postgres://postgres@127.0.0.1/postgres`
//!
//! See [`tidewire_testkit::fuzz`]. Ends with 1 when there were findings, with 2 when it could not run.

use std::process::ExitCode;

use tidewire_testkit::fuzz::{self, Feature, Features, Options};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
fuzz [options]
    --seed N              the first case's seed (1)
    --cases N             how many cases (100)
    --postgres ADDRESS    compare with this server too (also: TIDEWIRE_TEST_POSTGRES)
    --only A,B,..         only these features
    --without A,B,..      all features but these
    --script FILE         run this file of statements instead, each of which ends a line with ;
    --batch-every N       with --postgres, run a view's query as a batch at every N-th change only (1)
    --findings N          stop after N different findings (10)
    --no-shrink           show findings as they are
    --trace               say each seed before its case runs
    --features            list the features
";

fn main() -> ExitCode {
    let (options, script) = match read(std::env::args().skip(1)) {
        Ok(Some(read)) => read,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("fuzz: {problem}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("fuzz: no runtime: {error}");
            return ExitCode::from(2);
        }
    };
    if let Some(file) = script {
        return runtime.block_on(run_script(&options, &file));
    }
    match runtime.block_on(fuzz::run(&options, |report| println!("{report}\n"))) {
        Ok((counts, reports)) => {
            println!("{}{} findings", fuzz::statistics(&counts), reports.len());
            if reports.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(failure) => {
            eprintln!("fuzz: {failure}");
            ExitCode::from(2)
        }
    }
}

async fn run_script(options: &Options, file: &str) -> ExitCode {
    let found = match std::fs::read_to_string(file) {
        Ok(script) => fuzz::run_script(options, &script).await.map_err(|e| e.to_string()),
        Err(error) => Err(format!("cannot read {file}: {error}")),
    };
    match found {
        Ok(None) => {
            println!("no finding");
            ExitCode::SUCCESS
        }
        Ok(Some(finding)) => {
            println!("{}\n{}", finding.kind, finding.detail);
            ExitCode::from(1)
        }
        Err(problem) => {
            eprintln!("fuzz: {problem}");
            ExitCode::from(2)
        }
    }
}

/// The options, and the file of a script. None: only help was wanted.
fn read(mut arguments: impl Iterator<Item = String>) -> Result<Option<(Options, Option<String>)>, String> {
    let mut script = None;
    let mut options = Options { postgres: std::env::var("TIDEWIRE_TEST_POSTGRES").ok(), ..Options::default() };
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{option} needs a value"));
        match option.as_str() {
            "--seed" => options.seed = number(&value()?)?,
            "--cases" => options.n_cases = number(&value()?)? as usize,
            "--batch-every" => options.batch_every = number(&value()?)? as usize,
            "--findings" => options.findings_max = number(&value()?)? as usize,
            "--postgres" => options.postgres = Some(value()?),
            "--only" => options.features = Features::only(&features(&value()?)?),
            "--without" => options.features = options.features.without(&features(&value()?)?),
            "--script" => script = Some(value()?),
            "--no-shrink" => options.shrink = false,
            "--trace" => options.trace = true,
            "--features" => {
                Feature::ALL.iter().for_each(|feature| println!("{feature}"));
                return Ok(None);
            }
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("there is no option {option}")),
        }
    }
    Ok(Some((options, script)))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("\"{text}\" is no number"))
}

fn features(text: &str) -> Result<Vec<Feature>, String> {
    text.split(',').filter(|word| !word.is_empty()).map(str::parse).collect()
}
