//! The checks behind the invariants of ARCHITECTURE.md: those that neither rustc nor clippy makes.

mod dependencies;
mod layers;
mod text;

use crate::files::Workspace;

/// One invariant and how to find what breaks it.
pub struct Check {
    /// The invariant, as ARCHITECTURE.md names it.
    pub invariant: &'static str,
    /// What breaks it: a line each, with the place.
    pub find: fn(&Workspace) -> Vec<String>,
}

/// All checks. Each name stands in ARCHITECTURE.md, which is checked too.
pub static CHECKS: &[Check] = &[
    Check { invariant: "layers", find: layers::upward_dependencies },
    Check { invariant: "one-owner", find: layers::foreign_dependencies },
    Check { invariant: "engine-alone", find: layers::what_the_engine_must_not_reach },
    Check { invariant: "operators-pure", find: text::impure_operators },
    Check { invariant: "unsafe-places", find: text::unsafe_elsewhere },
    Check { invariant: "used-dependencies", find: dependencies::unused },
    Check { invariant: "public-registry", find: dependencies::from_elsewhere },
    Check { invariant: "file-length", find: text::long_files },
    Check { invariant: "file-head", find: text::files_without_head },
    Check { invariant: "nothing-unfinished", find: text::unfinished },
    Check { invariant: "no-machine-paths", find: text::machine_paths },
    Check { invariant: "described", find: undescribed },
];

/// Crates and invariants that ARCHITECTURE.md does not mention.
fn undescribed(workspace: &Workspace) -> Vec<String> {
    let map = workspace.text("ARCHITECTURE.md");
    let crates = workspace.crates().map(|folder| folder.trim_start_matches("crates/"));
    let names = crates.chain(CHECKS.iter().map(|check| check.invariant));
    let missing = names.filter(|name| !map.contains(&format!("`{name}`")));
    missing.map(|name| format!("ARCHITECTURE.md does not mention `{name}`")).collect()
}
