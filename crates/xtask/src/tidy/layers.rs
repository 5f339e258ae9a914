//! Which crate may stand on which: dependencies point downwards, and some libraries have one owner.

use crate::files::Workspace;
use crate::steps::cargo;

/// The crates and their levels. A crate depends only on crates of lower levels (in its tests it may do otherwise).
const LEVELS: &[(&str, u32)] = &[
    ("tidewire-preflight", 0),
    ("tidewire-types", 1),
    ("tidewire-sql", 2),
    ("tidewire-catalog", 2),
    ("tidewire-connect", 2),
    ("tidewire-state", 2),
    ("tidewire-operators", 3),
    ("tidewire-kafka", 3),
    ("tidewire-planner", 4),
    ("tidewire-engine", 5),
    ("tidewire-server", 6),
    ("tidewire", 7),
    ("tidewire-testkit", 7),
    ("tidewire-bench", 8),
    ("xtask", 8),
];

/// Libraries, and the crates that alone see them.
const OWNERS: &[(&str, &[&str])] = &[
    ("rdkafka", &["tidewire-kafka"]),
    ("pgwire", &["tidewire-server"]),
    ("sqlparser", &["tidewire-sql", "tidewire-planner", "tidewire-server"]),
    ("axum", &["tidewire"]),
    ("object_store", &["tidewire-state"]),
    ("clap", &["tidewire"]),
    ("mimalloc", &["tidewire", "tidewire-bench", "tidewire-testkit"]),
    (
        "datafusion",
        &[
            "tidewire-operators",
            "tidewire-planner",
            "tidewire-engine",
            "tidewire-server",
            "tidewire",
            "tidewire-testkit",
            "tidewire-bench",
        ],
    ),
];

/// What the engine must not reach by any way: it runs without a port, without Kafka and without a command line.
const BEYOND_THE_ENGINE: &[&str] = &["rdkafka", "pgwire", "axum", "clap", "tidewire-server", "tidewire-kafka"];

/// Dependencies of a crate on one of its own or a higher level.
pub fn upward_dependencies(_: &Workspace) -> Vec<String> {
    let level = |name: &str| LEVELS.iter().find(|(known, _)| *known == name).map(|(_, level)| *level);
    let mut violations = vec![];
    for Edges { name, dependencies } in direct_dependencies() {
        let Some(own) = level(&name) else {
            violations.push(format!("{name} has no level"));
            continue;
        };
        for dependency in dependencies {
            if level(&dependency).is_some_and(|other| other >= own) {
                violations.push(format!("{name} depends on {dependency}, which is not below it"));
            }
        }
    }
    violations
}

/// Direct dependencies on a library that another crate owns.
pub fn foreign_dependencies(_: &Workspace) -> Vec<String> {
    let mut violations = vec![];
    for Edges { name, dependencies } in direct_dependencies() {
        for (library, owners) in OWNERS {
            if !owners.contains(&name.as_str()) && dependencies.iter().any(|dependency| dependency == library) {
                violations.push(format!("{name} depends on {library}; only {} may", owners.join(", ")));
            }
        }
    }
    violations
}

/// What the engine reaches and must not.
pub fn what_the_engine_must_not_reach(_: &Workspace) -> Vec<String> {
    let tree = tree(&["-p", "tidewire-engine", "--prefix", "none"]);
    let reached = |name: &&&str| tree.lines().any(|line| package(line) == **name);
    BEYOND_THE_ENGINE.iter().filter(reached).map(|name| format!("tidewire-engine reaches {name}")).collect()
}

struct Edges {
    name: String,
    dependencies: Vec<String>,
}

/// The normal (not test, not build) dependencies of each crate.
fn direct_dependencies() -> Vec<Edges> {
    parse_edges(&tree(&["--workspace", "--depth", "1", "--prefix", "depth", "--no-dedupe"]))
}

/// Reads lines such as `0tidewire v0.1.0 (..)` and, below it, `1clap v4.5.0`.
fn parse_edges(tree: &str) -> Vec<Edges> {
    let mut all: Vec<Edges> = vec![];
    for line in tree.lines() {
        if let Some(line) = line.strip_prefix('0') {
            all.push(Edges { name: package(line).to_owned(), dependencies: vec![] });
        } else if let (Some(line), Some(edges)) = (line.strip_prefix('1'), all.last_mut()) {
            edges.dependencies.push(package(line).to_owned());
        }
    }
    all
}

/// The first word of `clap v4.5.0 (*)`.
fn package(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

/// What `cargo tree` prints; where it fails, a line that breaks the checks instead of an empty text that passes them.
fn tree(arguments: &[&str]) -> String {
    let mut command = cargo(&["tree", "-e", "normal", "--format", "{p}"]);
    let output = command.args(arguments).output();
    match output {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        Ok(output) => format!("0(cargo tree failed: {})", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => format!("0(cargo tree failed: {error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_read_crate_by_crate() {
        let edges =
            parse_edges("0tidewire v0.1.0 (/x)\n1clap v4.5.0\n1tidewire-sql v0.1.0 (/y)\n\n0xtask v0.1.0 (/z)\n");
        let names: Vec<&str> = edges.iter().map(|edges| edges.name.as_str()).collect();
        assert_eq!(names, ["tidewire", "xtask"]);
        assert_eq!(edges[0].dependencies, ["clap", "tidewire-sql"]);
        assert!(edges[1].dependencies.is_empty());
    }
}
