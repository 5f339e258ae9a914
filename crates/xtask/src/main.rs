//! `cargo xtask test`: everything that must hold before a change is good, in one command; CI calls exactly this.
//!
//! Steps run in order and each is reported with its time; a failing one does not hide the next. The last line is
//! `N passed, N failed`: the tests of all binaries, plus one for each tidy check and each of formatting, lints and docs.

mod files;
mod steps;
mod tally;
mod tidy;

use std::process::ExitCode;

use crate::steps::{STEPS, Step};
use crate::tally::Tally;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["test"] => run(STEPS),
        ["test", "--only", name] => match STEPS.iter().find(|step| step.name == *name) {
            Some(step) => run(std::slice::from_ref(step)),
            None => usage(&format!("there is no step \"{name}\"")),
        },
        ["tidy"] => run(STEPS.iter().filter(|step| step.name == "tidy")),
        [] | ["help" | "--help" | "-h"] => {
            print!("{}", help());
            ExitCode::SUCCESS
        }
        [first, ..] => usage(&format!("\"{first}\" with these arguments is not a task")),
    }
}

fn run(steps: impl IntoIterator<Item = &'static Step>) -> ExitCode {
    let mut tally = Tally::default();
    for step in steps {
        tally.add(steps::run(step));
    }
    println!("\n{tally}");
    if tally.n_failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn help() -> String {
    let steps: String = STEPS.iter().map(|step| format!("    {:8} {}\n", step.name, step.purpose)).collect();
    format!(
        "\
cargo xtask test                all steps, in this order:
{steps}cargo xtask test --only STEP    one of them
cargo xtask tidy                the same as test --only tidy

Tests against a real Kafka use the broker that TIDEWIRE_TEST_KAFKA names (host:port). Without it they fetch Apache
Kafka through Maven once, and start it on loopback.
"
    )
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("xtask: {problem}\n\n{}", help());
    ExitCode::from(2)
}
