//! What must and must not stand in the files.

use crate::files::{TextFile, Workspace};

const LINES_MAX: usize = 900;
/// For tables of test cases.
const TEST_LINES_MAX: usize = 1_500;
/// Files that may be longer, and why.
const LONG: &[(&str, &str)] = &[("Cargo.lock", "written by cargo")];

/// Where `unsafe` may stand, and why.
const UNSAFE: &[(&str, &str)] = &[
    ("crates/kafka/src/queue.rs", "librdkafka's batch consumer has no safe wrapper"),
    ("crates/operators/src/arrangement/raw.rs", "readers share a column that its one writer appends to"),
    ("crates/operators/src/arrangement/views.rs", "string views over blocks that only grow"),
    ("crates/operators/tests/state_bytes.rs", "an allocator that counts has no safe form"),
];

// Written in parts, so that this file is not found by itself.
const UNFINISHED: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:"), concat!("#[ig", "nore"), concat!("todo", "!(")];
const MACHINE_PATHS: &[&str] =
    &[concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];

/// What operators must not call: they are functions of their input and state.
const IMPURE: &[&str] = &["Instant::now", "SystemTime::now", "std::fs", "std::net", "tokio::", "thread::spawn"];

/// Files with too many lines.
pub fn long_files(workspace: &Workspace) -> Vec<String> {
    let files = workspace.files.iter().filter(|file| !LONG.iter().any(|(path, _)| *path == file.path));
    files.filter_map(too_long).collect()
}

fn too_long(file: &TextFile) -> Option<String> {
    let lines_max = if file.path.contains("/tests/") { TEST_LINES_MAX } else { LINES_MAX };
    let n_lines = file.text.lines().count();
    let long = n_lines > lines_max && !file.path.ends_with(".slt");
    long.then(|| format!("{} has {n_lines} lines, more than {lines_max}", file.path))
}

/// Rust files that do not begin with what they are.
pub fn files_without_head(workspace: &Workspace) -> Vec<String> {
    let without = workspace.rust_files().filter(|file| !file.text.starts_with("//! "));
    without.map(|file| format!("{} does not begin with `//!` and what it is", file.path)).collect()
}

/// Marks of work that is not done, and tests that do not run.
pub fn unfinished(workspace: &Workspace) -> Vec<String> {
    workspace.files.iter().flat_map(|file| lines_with(file, UNFINISHED)).collect()
}

/// Paths that exist on one machine only.
pub fn machine_paths(workspace: &Workspace) -> Vec<String> {
    workspace.files.iter().flat_map(|file| lines_with(file, MACHINE_PATHS)).collect()
}

/// A clock, input or output, or a thread in an operator. Its tests may have them.
pub fn impure_operators(workspace: &Workspace) -> Vec<String> {
    let operators = workspace.rust_files().filter(|file| file.path.starts_with("crates/operators/src/"));
    let operators = operators.filter(|file| !file.path.ends_with("/tests.rs"));
    operators.flat_map(|file| lines_with(&without_tests(file), IMPURE)).collect()
}

/// A file up to its module of tests.
fn without_tests(file: &TextFile) -> TextFile {
    let text = file.text.split("\n#[cfg(test)]").next().unwrap_or_default();
    TextFile { path: file.path.clone(), text: text.to_owned() }
}

/// `unsafe` outside of its places.
pub fn unsafe_elsewhere(workspace: &Workspace) -> Vec<String> {
    let elsewhere = workspace.rust_files().filter(|file| !UNSAFE.iter().any(|(path, _)| *path == file.path));
    const MARKS: &[&str] = &[concat!("unsafe", " {"), concat!("unsafe", " fn"), concat!("unsafe", " impl")];
    elsewhere.flat_map(|file| lines_with(file, MARKS)).collect()
}

/// `path:line: text` for each line that has one of `marks`.
fn lines_with(file: &TextFile, marks: &[&str]) -> Vec<String> {
    let lines = file.text.lines().enumerate();
    let found = lines.filter(|(_, line)| marks.iter().any(|mark| line.contains(mark)));
    found.map(|(index, line)| format!("{}:{}: {}", file.path, index + 1, line.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(path: &str, text: &str) -> Workspace {
        Workspace { files: vec![TextFile { path: path.to_owned(), text: text.to_owned() }] }
    }

    #[test]
    fn each_check_finds_what_it_is_for() {
        let todo = format!("//! X.\n// {} later\n", UNFINISHED[0]);
        assert_eq!(unfinished(&workspace("a.rs", &todo)), [format!("a.rs:2: // {} later", UNFINISHED[0])]);
        let path = format!("see {}x", MACHINE_PATHS[0]);
        assert_eq!(machine_paths(&workspace("a.md", &path)).len(), 1);
        assert_eq!(files_without_head(&workspace("a.rs", "use x;\n")).len(), 1);
        let long = "x\n".repeat(LINES_MAX + 1);
        assert_eq!(long_files(&workspace("crates/a/src/b.rs", &long)).len(), 1);
        assert!(long_files(&workspace("crates/a/tests/b.rs", &long)).is_empty());
        assert_eq!(impure_operators(&workspace("crates/operators/src/a.rs", "Instant::now()")).len(), 1);
        let in_test = "//! X.\n#[cfg(test)]\nmod tests { Instant::now() }";
        assert!(impure_operators(&workspace("crates/operators/src/a.rs", in_test)).is_empty());
        let block = format!("{} x }}", concat!("unsafe", " {"));
        assert_eq!(unsafe_elsewhere(&workspace("crates/a/src/b.rs", &block)).len(), 1);
        assert!(unsafe_elsewhere(&workspace("crates/kafka/src/queue.rs", &block)).is_empty());
    }

    #[test]
    fn a_good_file_passes() {
        let good = workspace("crates/operators/src/a.rs", "//! X.\nfn f() {}\n");
        for find in [long_files, files_without_head, unfinished, machine_paths, impure_operators, unsafe_elsewhere] {
            assert!(find(&good).is_empty());
        }
    }
}
