//! Dependencies: each is used, and each comes from crates.io.

use crate::files::Workspace;

/// Dependencies that no source names, and why they are there all the same.
const UNNAMED: &[(&str, &str, &str)] =
    &[("crates/types", "tidewire-preflight", "its build script checks for system packages before the C builds")];

/// Dependencies that a crate declares and no source of it names.
pub fn unused(workspace: &Workspace) -> Vec<String> {
    let mut violations = vec![];
    for folder in workspace.crates() {
        for dependency in declared(workspace.text(&format!("{folder}/Cargo.toml"))) {
            let excused = UNNAMED.iter().any(|(of, name, _)| *of == folder && *name == dependency);
            let name = dependency.replace('-', "_");
            let in_crate = |path: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
            let mut files = workspace.rust_files().filter(|file| in_crate(&file.path));
            if !excused && !files.any(|file| names(&file.text, &name)) {
                violations.push(format!("{folder} declares {dependency} and never names it"));
            }
        }
    }
    violations
}

/// The names under `[dependencies]` and its kin.
fn declared(manifest: &str) -> Vec<&str> {
    let mut in_section = false;
    let mut names = vec![];
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_section = line.contains("dependencies]");
        } else if in_section && !line.starts_with('#') {
            let end = line.find(['.', '=', ' ']).unwrap_or(0);
            names.extend(line.get(..end).filter(|name| !name.is_empty()));
        }
    }
    names
}

/// Whether `name` stands in `text` as a word of its own.
fn names(text: &str, name: &str) -> bool {
    let part_of_word = |c: char| c == '_' || c.is_alphanumeric();
    text.match_indices(name).any(|(start, _)| {
        let before = text.get(..start).and_then(|text| text.chars().next_back());
        let after = text.get(start + name.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

/// Packages that come from elsewhere than crates.io or this workspace.
pub fn from_elsewhere(workspace: &Workspace) -> Vec<String> {
    const HOME: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let lock = workspace.text("Cargo.lock").lines();
    let foreign = lock.filter(|line| line.starts_with("source = ") && *line != HOME);
    let configured = workspace.text(".cargo/config.toml").lines();
    let configured = configured.filter(|line| line.starts_with("[source") || line.starts_with("[registr"));
    let told = |file: &'static str| move |line: &str| format!("{file}: {line}");
    foreign.map(told("Cargo.lock")).chain(configured.map(told(".cargo/config.toml"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_dependencies_are_found_in_all_sections() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\na-b.workspace = true\n# c.workspace = true\n\
                        d = { path = \"..\" }\n[lints]\nworkspace = true\n[dev-dependencies]\ne = \"1\"\n";
        assert_eq!(declared(manifest), ["a-b", "d", "e"]);
    }

    #[test]
    fn a_name_within_a_longer_word_does_not_count() {
        assert!(names("use bytes::Bytes;", "bytes"));
        assert!(!names("let n_bytes = state_bytes;", "bytes"));
        assert!(!names("", "bytes"));
    }
}
