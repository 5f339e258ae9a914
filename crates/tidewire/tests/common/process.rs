//! Starts the binary and psql, reads what they print, and ends them. A module of each test binary.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(missing_docs, reason = "helpers of tests")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Long enough for a debug build on a machine that does other things too.
const DEADLINE: Duration = Duration::from_secs(60);

/// A process, and the lines that it prints on either output.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: String,
}

impl Running {
    pub fn start(command: &mut Command) -> Running {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let (sender, lines) = channel();
        read_lines(child.stdout.take().expect("piped"), sender.clone());
        read_lines(child.stderr.take().expect("piped"), sender);
        Running { child, lines, seen: String::new() }
    }

    /// Waits for a line, and returns it.
    pub fn wait_for(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    self.seen.push('\n');
                    if is_it(&line) {
                        return line;
                    }
                }
                Err(error) => panic!("{what} did not come ({error}); what came:\n{}", self.seen),
            }
        }
    }

    /// Waits until it has ended: its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + DEADLINE;
        // Both outputs are closed when the process ends.
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.extend([line.as_str(), "\n"]),
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().expect("ends").code(),
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; what came:\n{}", self.seen),
            }
        }
    }

    /// Its exit code and all that it printed.
    pub fn output(mut self) -> (Option<i32>, String) {
        (self.wait(), std::mem::take(&mut self.seen))
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed leaves no process behind; one that ended by itself has no use for this.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(output: impl Read + Send + 'static, to: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if to.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
}

/// The binary.
pub fn tidewire() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEWIRE_")) {
        command.env_remove(name);
    }
    command
}

/// A running server and its ports.
pub struct Server {
    pub process: Running,
    pub pg_port: u16,
    pub http_port: u16,
    _directory: Option<tempfile::TempDir>,
}

impl Server {
    /// Sends a signal and waits: the exit code.
    pub fn end(mut self, signal: &str) -> Option<i32> {
        self.process.signal(signal);
        self.process.wait()
    }

    pub fn wait_for(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        self.process.wait_for(what, is_it)
    }
}

/// `tidewire serve` on free ports, ready for clients.
pub fn serve(options: &[&str]) -> Server {
    let mut command = tidewire();
    command.args(["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]).args(options);
    let directory = tempfile::tempdir().expect("a directory");
    if !options.contains(&"--data-dir") {
        command.arg("--data-dir").arg(directory.path());
    }
    let mut process = Running::start(&mut command);
    let line = process.wait_for("the address for psql", |line| line.contains("psql -h"));
    let pg_port = number_after(&line, "-p ");
    let line = process.wait_for("the address for HTTP", |line| line.contains("HTTP"));
    let http_port = number_after(&line, "127.0.0.1:");
    Server { process, pg_port, http_port, _directory: Some(directory) }
}

/// `tidewire demo` on free ports, its SQL done.
pub fn demo(options: &[&str]) -> Server {
    let mut command = tidewire();
    command.args(["demo", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]).args(options);
    let mut process = Running::start(&mut command);
    // The statements come before it, and a comment among them shows psql too.
    let line = process.wait_for("how to connect", |line| line.starts_with("    psql -h"));
    let pg_port = number_after(&line, "-p ");
    let line = process.wait_for("the address of the metrics", |line| line.contains("/metrics"));
    let http_port = number_after(&line, "127.0.0.1:");
    Server { process, pg_port, http_port, _directory: None }
}

/// The number behind a mark.
pub fn number_after(line: &str, mark: &str) -> u16 {
    let (_, rest) = line.split_once(mark).unwrap_or_else(|| panic!("no {mark} in {line}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number after {mark} in {line}"))
}

/// psql for a server on loopback.
pub fn psql_command(port: u16) -> Command {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "tidewire", "-p"]);
    command.arg(port.to_string()).arg("tidewire").env("PGCONNECT_TIMEOUT", "30");
    command
}

/// Runs SQL: what psql prints, bare. Panics where a statement fails.
pub fn psql(port: u16, sql: &str) -> String {
    feed(psql_command(port).args(["-A", "-t"]), sql)
}

/// Runs SQL: what psql prints for people, without blanks at the ends of lines.
pub fn psql_aligned(port: u16, sql: &str) -> String {
    let output = feed(&mut psql_command(port), sql);
    output.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn feed(psql: &mut Command, sql: &str) -> String {
    psql.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = psql.spawn().expect("psql starts");
    child.stdin.take().expect("piped").write_all(sql.as_bytes()).expect("psql reads");
    let output = child.wait_with_output().expect("psql ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "psql failed: {}\n{text}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The status code and the body.
pub fn http_get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (code, body.to_owned())
}
