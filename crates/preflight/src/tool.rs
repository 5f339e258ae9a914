//! The tools and how to find out whether they are there. Also a module of `build.rs`, so it stands alone.

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};

/// Something that must be installed.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// What it is, as an error names it.
    pub name: &'static str,
    /// What needs it.
    pub purpose: &'static str,
    /// The Debian and Ubuntu package that has it.
    pub package: &'static str,
    present: fn() -> bool,
}

/// What the build needs: librdkafka is configured and compiled by its own `configure` and `make`.
pub const BUILD: &[Tool] = &[
    Tool {
        name: "a C compiler (cc)",
        purpose: "librdkafka, zstd and mimalloc are C",
        package: "build-essential",
        present: has_c_compiler,
    },
    Tool {
        name: "a C++ compiler (c++)",
        purpose: "librdkafka's configure asks for one",
        package: "build-essential",
        present: || runs_any("CXX", &["c++", "g++", "clang++"]),
    },
    Tool {
        name: "make",
        purpose: "librdkafka is built with it",
        package: "build-essential",
        present: || runs_any("MAKE", &["make", "gmake"]),
    },
    Tool {
        name: "bash",
        purpose: "librdkafka's configure is a bash script",
        package: "bash",
        present: || runs("bash"),
    },
    Tool {
        name: "pkg-config",
        purpose: "OpenSSL is found with it",
        package: "pkg-config",
        present: || openssl_is_named() || runs_any("PKG_CONFIG", &["pkg-config", "pkgconf"]),
    },
    Tool {
        name: "the OpenSSL headers",
        purpose: "Kafka over TLS and SASL/SCRAM",
        package: "libssl-dev",
        present: has_openssl,
    },
];

/// What the tests need besides. Java and Maven are not needed where `TIDEWIRE_TEST_KAFKA` names a broker.
pub const TEST: &[Tool] = &[
    Tool {
        name: "java",
        purpose: "the tests start a real Apache Kafka (or set TIDEWIRE_TEST_KAFKA to a broker's host:port)",
        package: "default-jdk-headless",
        present: || kafka_is_named() || runs_with("java", "-version"),
    },
    Tool {
        name: "mvn",
        purpose: "the tests fetch Apache Kafka with it (or set TIDEWIRE_TEST_KAFKA to a broker's host:port)",
        package: "maven",
        present: || kafka_is_named() || runs("mvn"),
    },
    Tool {
        name: "psql",
        purpose: "the tests use it as a client",
        package: "postgresql-client",
        present: || runs("psql"),
    },
];

/// Those of `tools` that are not there.
pub fn missing(tools: &'static [Tool]) -> Vec<&'static Tool> {
    tools.iter().filter(|tool| !(tool.present)()).collect()
}

/// What to tell the user: a line for each missing tool, then the command that installs them all.
pub fn advice(missing: &[&Tool]) -> Vec<String> {
    if missing.is_empty() {
        return vec![];
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let lines =
        missing.iter().map(|tool| format!("{} is missing ({}): package {}", tool.name, tool.purpose, tool.package));
    lines.chain([format!("on Debian or Ubuntu: sudo apt-get install {}", packages.join(" "))]).collect()
}

fn runs(program: &str) -> bool {
    runs_with(program, "--version")
}

fn runs_with(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether the program that `variable` names, or one of the usual ones, is there.
fn runs_any(variable: &str, usual: &[&str]) -> bool {
    // A variable may hold arguments too (`ccache cc`); the builds cope with that, so it is believed.
    env::var_os(variable).is_some() || usual.iter().any(|program| runs(program))
}

fn has_c_compiler() -> bool {
    env::var_os("CC").is_some() || compiles("int main(void) { return 0; }")
}

fn has_openssl() -> bool {
    let by_pkg_config = || {
        let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
        Command::new(program).args(["--exists", "openssl"]).status().is_ok_and(|status| status.success())
    };
    // Elsewhere than on Linux openssl-sys knows more places (Homebrew, vcpkg, the base system).
    !cfg!(target_os = "linux") || openssl_is_named() || by_pkg_config() || compiles("#include <openssl/ssl.h>")
}

/// Whether the variables that openssl-sys reads say where OpenSSL is.
fn openssl_is_named() -> bool {
    ["OPENSSL_DIR", "OPENSSL_INCLUDE_DIR"].iter().any(|name| env::var_os(name).is_some())
}

fn kafka_is_named() -> bool {
    env::var_os("TIDEWIRE_TEST_KAFKA").is_some()
}

fn compiles(source: &str) -> bool {
    ["cc", "gcc", "clang"].iter().any(|compiler| compiles_with(compiler, source))
}

fn compiles_with(compiler: &str, source: &str) -> bool {
    let mut command = Command::new(compiler);
    command.args(["-x", "c", "-fsyntax-only", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    let written = child.stdin.take().is_some_and(|mut stdin| stdin.write_all(source.as_bytes()).is_ok());
    child.wait().is_ok_and(|status| status.success()) && written
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE: &[Tool] = &[
        Tool { name: "x", purpose: "tests", package: "package-b", present: || runs("no-such-program-anywhere") },
        Tool { name: "y", purpose: "tests", package: "package-a", present: || compiles("#include <no/such.h>") },
        Tool { name: "z", purpose: "tests", package: "package-a", present: || false },
        Tool { name: "w", purpose: "tests", package: "package-c", present: || true },
    ];

    #[test]
    fn what_is_missing_is_named_with_one_line_that_installs_it() {
        let missing = missing(GONE);
        let advice = advice(&missing);
        assert_eq!(missing.len(), 3);
        assert_eq!(advice.len(), 4);
        assert_eq!(advice[0], "x is missing (tests): package package-b");
        assert_eq!(advice[3], "on Debian or Ubuntu: sudo apt-get install package-a package-b");
    }

    #[test]
    fn nothing_missing_says_nothing() {
        assert_eq!(missing(BUILD).len(), 0, "this was built, so all was there");
        assert!(advice(&[]).is_empty());
    }
}
