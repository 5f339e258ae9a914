//! Runs every file of `sql-tests/` in every mode, one file a core, and prints a line a file.
//!
//! `cargo test -p tidewire-testkit --test slt -- join` runs the files whose path has `join` in it. All failures are
//! printed before the test fails. `TIDEWIRE_SLT_MODE=Restarted` runs one mode only.
#![expect(clippy::expect_used, clippy::panic, reason = "a test: what fails here fails it")]

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tidewire_testkit::slt::{Mode, run_file};

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sql-tests");
    let root = root.canonicalize().unwrap_or(root);
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let listing = std::env::args().any(|a| a == "--list");
    let mut files = vec![];
    collect(&root, &mut files);
    files.sort();
    files.retain(|f| wanted.is_empty() || wanted.iter().any(|w| f.display().to_string().contains(w)));
    if listing {
        files.iter().for_each(|f| println!("{}: test", name(f)));
        return ExitCode::SUCCESS;
    }
    let mode = std::env::var("TIDEWIRE_SLT_MODE").ok();
    let modes: Vec<Mode> =
        Mode::ALL.into_iter().filter(|m| mode.as_ref().is_none_or(|mode| *mode == format!("{m:?}"))).collect();
    let failures: Mutex<Vec<(String, Vec<Mode>)>> = Mutex::default();
    let next = AtomicUsize::new(0);
    // A file waits most of its time for one core.
    let n_threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(8);
    std::thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let mut n_checks = 0;
                    let mut verdict = "ok";
                    for mode in modes.iter().copied() {
                        match runtime.block_on(run_file(file, mode)) {
                            Ok(n) => n_checks += n,
                            Err(failed) => {
                                verdict = "FAILED";
                                let mut failures = failures.lock().expect("a lock");
                                failed.into_iter().for_each(|f| note(&mut failures, mode, f));
                            }
                        }
                    }
                    let took = start.elapsed().as_millis();
                    println!("{verdict:6} {:32} {n_checks:5} comparisons {took:6} ms", name(file));
                }
            });
        }
    });
    let failures = failures.into_inner().expect("a lock");
    failures.iter().for_each(|(failure, modes)| println!("\n{modes:?} {failure}"));
    println!("\n{} files in {} modes, {} failures", files.len(), modes.len(), failures.len());
    if failures.is_empty() && !(files.is_empty() && wanted.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A failure that is the same in several modes is shown once.
fn note(failures: &mut Vec<(String, Vec<Mode>)>, mode: Mode, failure: String) {
    match failures.iter_mut().find(|(f, _)| *f == failure) {
        Some((_, modes)) => modes.push(mode),
        None => failures.push((failure, vec![mode])),
    }
}

fn name(file: &Path) -> String {
    let parts: Vec<_> = file.iter().rev().take(2).map(|p| p.to_string_lossy()).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("cannot read {}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder's entry").path();
        match path.is_dir() {
            true => collect(&path, files),
            false if path.extension().is_some_and(|e| e == "slt") => files.push(path),
            false => {}
        }
    }
}
