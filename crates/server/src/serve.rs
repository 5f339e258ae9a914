//! The accept loop: one task a connection, a limit on their number, an orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tidewire_engine::Engine;
use tidewire_types::{SqlError, SqlState};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::backend;
use crate::cancel::Cancels;
use crate::connection::Connection;
use crate::startup::{self, DATABASE, Greeting, Opening};
use crate::wire;

/// A silent connection is asked whether it is alive after this time, then at this interval, this many times.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 6;

/// What one server takes from its clients.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Sessions at once; more are refused with `53300`.
    pub connections_max: usize,
    /// How long a client may take to say who it is.
    pub startup_timeout: Duration,
    /// Bytes of one message of a client.
    pub message_bytes_max: usize,
    /// How long open connections have to end when the server does.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 500,
            startup_timeout: Duration::from_secs(60),
            message_bytes_max: 64 << 20,
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

struct Server {
    engine: Arc<Engine>,
    limits: Limits,
    cancels: Arc<Cancels>,
    n_sessions: AtomicUsize,
    shutdown: CancellationToken,
}

/// Serves clients until `shutdown` completes; returns when all connections have ended.
pub async fn serve(
    listener: TcpListener,
    engine: Arc<Engine>,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) {
    let server = Arc::new(Server {
        engine,
        limits,
        cancels: Arc::default(),
        n_sessions: AtomicUsize::new(0),
        shutdown: CancellationToken::new(),
    });
    let mut tasks = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = tasks.join_next() => {
                if let Err(failure) = ended {
                    error!(%failure, "a connection ended by a bug");
                }
            }
            accepted = listener.accept() => match accepted {
                // Clients beyond twice the limit that do not even say who they are get no task.
                Ok(_) if tasks.len() >= server.limits.connections_max.saturating_mul(2).saturating_add(16) => {
                    warn!("too many connections: one was closed unheard");
                }
                Ok((socket, peer)) => {
                    tasks.spawn(server.clone().client(socket, peer));
                }
                Err(reason) => {
                    warn!(%reason, "could not accept a connection");
                    // Out of file descriptors: accepting again at once would spin.
                    if tokio::time::timeout(Duration::from_millis(50), &mut shutdown).await.is_ok() {
                        break;
                    }
                }
            },
        }
    }
    drop(listener);
    server.shutdown.cancel();
    let all_ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(server.limits.shutdown_timeout, all_ended).await.is_err() {
        tasks.shutdown().await;
    }
}

/// Answers clients with `57P03` until `ready` completes, as PostgreSQL does while it recovers; then its output.
pub async fn refuse_until<T>(listener: &TcpListener, limits: &Limits, ready: impl Future<Output = T>) -> T {
    let mut tasks = JoinSet::new();
    let mut ready = std::pin::pin!(ready);
    loop {
        tokio::select! {
            output = &mut ready => return output,
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept() => {
                if let Ok((socket, _)) = accepted && tasks.len() < limits.connections_max {
                    tasks.spawn(tokio::time::timeout(limits.startup_timeout, refuse(socket, limits.message_bytes_max)));
                }
            }
        }
    }
}

async fn refuse(socket: TcpStream, message_bytes_max: usize) {
    let (mut input, mut output) = wire::split(socket, message_bytes_max);
    let error = match startup::open(&mut input, &mut output).await {
        Opening::Nothing | Opening::Cancel { .. } => return,
        Opening::Refused(error) => error,
        Opening::Session(_) => SqlError::new(SqlState::CannotConnectNow, "the database system is starting up"),
    };
    backend::error(&mut output.buffer, "FATAL", &error);
    // The client is gone, or reads it.
    let _ = output.flush().await;
}

impl Server {
    async fn client(self: Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        if let Err(reason) = set_up(&socket) {
            debug!(%reason, "could not set up a connection's socket");
        }
        let (mut input, mut output) = wire::split(socket, self.limits.message_bytes_max);
        let opening = tokio::select! {
            opening = startup::open(&mut input, &mut output) => opening,
            () = tokio::time::sleep_until(tokio::time::Instant::now() + self.limits.startup_timeout) => Opening::Nothing,
            () = self.shutdown.cancelled() => Opening::Nothing,
        };
        let refused = match opening {
            Opening::Nothing => return,
            Opening::Cancel { id, key } => return self.cancels.request(id, &key),
            Opening::Refused(error) => error,
            Opening::Session(greeting) => match self.admit(&greeting, peer) {
                Err(error) => error,
                Ok(seat) => match self.session(&greeting) {
                    Err(error) => error,
                    Ok(session) => {
                        let key_bytes = if greeting.has_long_keys { 32 } else { 4 };
                        let registration = self.cancels.register(key_bytes);
                        backend::authentication_ok(&mut output.buffer);
                        startup::report(&mut output, &session, &greeting.user);
                        backend::key_data(&mut output.buffer, registration.id, registration.key.clone());
                        Connection::new(input, output, session, registration, self.shutdown.clone()).run().await;
                        drop(seat);
                        return;
                    }
                },
            },
        };
        backend::error(&mut output.buffer, "FATAL", &refused);
        let _ = tokio::time::timeout(Duration::from_secs(1), output.flush()).await;
    }

    /// Takes a seat for a client that may come in.
    fn admit(self: &Arc<Self>, greeting: &Greeting, peer: SocketAddr) -> Result<Seat, SqlError> {
        if !peer.ip().to_canonical().is_loopback() {
            return Err(SqlError::new(
                SqlState::InvalidAuthorization,
                format!("no entry for host \"{}\", user \"{}\", database \"{DATABASE}\"", peer.ip(), greeting.user),
            )
            .with_hint("Connections are accepted from the server's own machine only."));
        }
        let seat = Seat(self.clone());
        if self.n_sessions.fetch_add(1, Ordering::Relaxed) >= self.limits.connections_max {
            return Err(SqlError::new(SqlState::TooManyConnections, "sorry, too many clients already"));
        }
        Ok(seat)
    }

    fn session(&self, greeting: &Greeting) -> Result<tidewire_engine::Session, SqlError> {
        let mut session = self.engine.session(&greeting.user, DATABASE);
        for (name, value) in &greeting.settings {
            session.set(name, value)?;
        }
        // The client is told of all settings below.
        session.take_reported();
        Ok(session)
    }
}

/// Small messages leave at once; a client whose machine is gone is noticed although nothing is sent to it.
fn set_up(socket: &TcpStream) -> std::io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)?;
    socket.set_nodelay(true)
}

/// One of the sessions that a server has room for.
struct Seat(Arc<Server>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.n_sessions.fetch_sub(1, Ordering::Relaxed);
    }
}
