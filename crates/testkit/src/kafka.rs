//! A real Kafka for tests.
//!
//! The one that the environment variable `TIDEWIRE_TEST_KAFKA` names (`host:port`), else one that is started on
//! loopback from Maven's jars by the script in this crate's folder `kafka`; it needs a JDK and Maven. A broker that was
//! started ends with the process that started it, however that ends: a guard process waits for its pipe to close.

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// The environment variable that names a broker to use.
pub const BROKER: &str = "TIDEWIRE_TEST_KAFKA";
/// Ports of one broker, one after another: plain, SASL, its controller.
const N_PORTS: u16 = 3;
const ATTEMPTS: usize = 5;

/// A running broker.
#[derive(Debug)]
pub struct Kafka {
    bootstrap: String,
    own: Option<Own>,
}

/// A broker of our own.
#[derive(Debug)]
struct Own {
    port: u16,
    data: TempDir,
    guard: Child,
}

impl Kafka {
    /// The broker that the environment names, else a new one. Blocks for some seconds.
    ///
    /// Errors: what is missing, as the script says it.
    pub fn start() -> Result<Kafka, String> {
        match std::env::var(BROKER) {
            Ok(bootstrap) if !bootstrap.trim().is_empty() => {
                Ok(Kafka { bootstrap: bootstrap.trim().to_string(), own: None })
            }
            _ => Kafka::start_own(),
        }
    }

    /// A broker of this test's own, which it may kill.
    pub fn start_own() -> Result<Kafka, String> {
        let mut last = String::new();
        // Another process may take a port between the look and the start.
        for _ in 0..ATTEMPTS {
            let data = TempDir::new().map_err(|e| format!("cannot make a folder for Kafka's data: {e}"))?;
            let port = free_ports()?;
            let own = Own { port, guard: guard(port, data.path())?, data };
            match own.script("start") {
                Ok(_) => return Ok(Kafka { bootstrap: format!("127.0.0.1:{port}"), own: Some(own) }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// One broker for all tests of a process.
    pub fn shared() -> Result<&'static Kafka, String> {
        static SHARED: OnceLock<Result<Kafka, String>> = OnceLock::new();
        SHARED.get_or_init(Kafka::start).as_ref().map_err(Clone::clone)
    }

    /// What `properties.bootstrap.server` is to be.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Where a broker of our own asks for SCRAM-SHA-256 (user `alice`, password `alice-secret`).
    pub fn sasl_bootstrap(&self) -> Option<String> {
        self.own.as_ref().map(|own| format!("127.0.0.1:{}", own.port + 1))
    }

    /// Whether the broker is our own, so that it can be killed.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Ends the broker with `kill -9`; its data stays.
    pub fn kill(&self) -> Result<(), String> {
        self.script("kill").map(drop)
    }

    /// Starts it again on the same data.
    pub fn restart(&self) -> Result<(), String> {
        self.script("start").map(drop)
    }

    /// One of Kafka's own command-line tools, by its name without `kafka-` and `.sh`; its output.
    pub fn tool(&self, name: &str, args: &[&str]) -> Result<String, String> {
        let mut command = script();
        command.args(["tool", name]).args(args);
        run(command)
    }

    fn script(&self, verb: &str) -> Result<String, String> {
        match &self.own {
            Some(own) => own.script(verb),
            None => Err(format!("the broker that {BROKER} names is not ours to {verb}")),
        }
    }
}

impl Own {
    fn script(&self, verb: &str) -> Result<String, String> {
        let mut command = script();
        command.arg(verb).arg(self.port.to_string()).env("KAFKA_DATA", self.data.path());
        run(command)
    }
}

impl Drop for Own {
    /// Closes the guard's pipe, and waits until it has ended the broker.
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// A process in a session of its own that ends the broker once its standard input closes.
fn guard(port: u16, data: &Path) -> Result<Child, String> {
    Command::new("setsid")
        .args(["bash", "-c", "cat >/dev/null; exec \"$0\" clean \"$1\""])
        .arg(script_path())
        .arg(port.to_string())
        .env("KAFKA_DATA", data)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("cannot start setsid: {e}"))
}

fn script_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka").join("kafka")
}

fn script() -> Command {
    let mut command = Command::new("bash");
    command.arg(script_path()).env("KAFKA_HEAP", std::env::var("KAFKA_HEAP").unwrap_or_else(|_| "512m".into()));
    command
}

fn run(mut command: Command) -> Result<String, String> {
    // The broker inherits its standard error; a file does not wait for it to close as a pipe would.
    let mut said = tempfile::tempfile().map_err(|e| format!("cannot make a file: {e}"))?;
    let error = said.try_clone().map_err(|e| format!("cannot make a file: {e}"))?;
    let output = command.stdin(Stdio::null()).stderr(error).output().map_err(|e| format!("cannot run bash: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut text = String::new();
    let _ = std::io::Seek::rewind(&mut said).and_then(|()| said.read_to_string(&mut text));
    Err(text.trim().to_string())
}

/// The first of three ports in a row that nobody listens on.
fn free_ports() -> Result<u16, String> {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0").map_err(|e| format!("cannot find a free port: {e}"))?;
        let port = first.local_addr().map_err(|e| format!("cannot find a free port: {e}"))?.port();
        let Some(last) = port.checked_add(N_PORTS - 1) else { continue };
        if (port + 1..=last).all(|p| TcpListener::bind(("127.0.0.1", p)).is_ok()) {
            return Ok(port);
        }
    }
    Err("cannot find three free ports in a row".into())
}
