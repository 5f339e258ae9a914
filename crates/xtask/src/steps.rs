//! The steps of `cargo xtask test`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::files::Workspace;
use crate::tally::Tally;
use crate::tidy;

/// One step.
pub struct Step {
    /// Its name, as `--only` takes it.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    action: fn() -> Tally,
}

/// All steps, in the order in which they run: what fails quickly comes first.
pub static STEPS: &[Step] = &[
    Step { name: "tools", purpose: "java, mvn and psql are there", action: tools },
    Step { name: "fmt", purpose: "the code is formatted", action: fmt },
    Step { name: "tidy", purpose: "the invariants of ARCHITECTURE.md hold", action: tidy_checks },
    Step { name: "clippy", purpose: "no lint fires, in any target", action: clippy },
    Step { name: "doc", purpose: "the documentation builds without warnings", action: doc },
    Step { name: "tests", purpose: "all tests pass, those against a real Kafka included", action: tests },
];

/// Runs a step and says how it went.
pub fn run(step: &Step) -> Tally {
    println!("== {}: {}", step.name, step.purpose);
    let start = Instant::now();
    let tally = (step.action)();
    let word = if tally.n_failed == 0 { "ok" } else { "FAILED" };
    println!("== {}: {word}, {:.1} s", step.name, start.elapsed().as_secs_f64());
    tally
}

fn tools() -> Tally {
    let missing = tidewire_preflight::missing(tidewire_preflight::TEST);
    for line in tidewire_preflight::advice(&missing) {
        println!("{line}");
    }
    Tally::one(missing.is_empty())
}

fn fmt() -> Tally {
    Tally::one(succeeds(cargo(&["fmt", "--all", "--check"])))
}

fn clippy() -> Tally {
    Tally::one(succeeds(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])))
}

fn doc() -> Tally {
    let mut command = cargo(&["doc", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    Tally::one(succeeds(command))
}

fn tidy_checks() -> Tally {
    let workspace = match Workspace::read() {
        Ok(workspace) => workspace,
        Err(error) => {
            println!("cannot read the workspace: {error}");
            return Tally::one(false);
        }
    };
    let mut tally = Tally::default();
    for check in tidy::CHECKS {
        let violations = (check.find)(&workspace);
        let word = if violations.is_empty() { "ok" } else { "FAILED" };
        println!("tidy {} ... {word}", check.invariant);
        violations.iter().for_each(|violation| println!("    {violation}"));
        tally.add(Tally::one(violations.is_empty()));
    }
    tally
}

/// Passes on what the tests print, and counts.
fn tests() -> Tally {
    let mut command = cargo(&["test", "--workspace", "--no-fail-fast"]);
    let mut child = match command.stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            println!("cannot run cargo: {error}");
            return Tally::one(false);
        }
    };
    let mut tally = Tally::default();
    if let Some(output) = child.stdout.take() {
        // Bytes and not lines of text: a test may print anything.
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            let _ = writeln!(std::io::stdout(), "{line}");
            tally.add(Tally::of_line(&line).unwrap_or_default());
        }
    }
    let succeeded = child.wait().is_ok_and(|status| status.success());
    // What did not compile, or ended before it could count, must not look like success.
    if !succeeded && tally.n_failed == 0 {
        tally.add(Tally::one(false));
    }
    tally
}

/// The cargo that runs this program, so that the toolchain is the same.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn succeeds(mut command: Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}
