//! `tidewire serve`: opens the ports, recovers what the data directory has, and ends in good order.
//!
//! While it recovers, PostgreSQL clients are told so (57P03), and /health says "starting". Order at the end: health says 503, no new clients, the engine ends (and with it all pushes), then HTTP. A second
//! signal ends the process at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::{Components, Engine, Settings};
use tidewire_server::{Limits, PgSystem, refuse_until};
use tidewire_state::{DataDir, Location};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::arguments::ServeOptions;
use crate::connectors::CONNECTORS;
use crate::failure::Failure;
use crate::http::{self, Site};
use crate::memory_limit;
use crate::ports;

/// How long the parts may take to end before the process ends without them.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// Runs the server until a signal ends it.
pub async fn run(options: ServeOptions) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let location = Location::parse(&options.data_dir)?;
    let checkpoints = options.checkpoint_dir.as_deref().map(Location::parse).transpose()?;
    // Ours until the engine has ended.
    let opening = {
        let location = location.clone();
        move || DataDir::open_in(&location, checkpoints.as_ref())
    };
    let data_dir = tokio::select! {
        opened = tokio::task::spawn_blocking(opening) => opened.map_err(|error| Failure::new(error.to_string()))??,
        () = signals.next() => return Ok(()),
    };
    let mut settings = Settings::default();
    if let Some(n_shards) = options.shards {
        (settings.n_shards, settings.n_shards_is_default) = (n_shards, false);
    }
    settings.memory_limit = options.memory_limit.or_else(memory_limit::default_limit);
    if let Some(limit) = settings.memory_limit {
        tracing::info!(limit_mb = limit >> 20, "tables and views may take this much memory");
    }
    let state = State { data_dir: data_dir.as_ref(), cut_damaged_log: options.cut_damaged_log };
    let starting = Server::start(&options.listen, &options.http_listen, settings, state);
    let server = tokio::select! {
        server = starting => server?,
        () = signals.next() => {
            tracing::info!("stopped before everything was recovered");
            return Ok(());
        }
    };
    tracing::info!(address = %server.pg_address, "PostgreSQL clients: psql -h {} -p {} -U tidewire tidewire",
        server.pg_address.ip(), server.pg_address.port());
    tracing::info!(address = %server.http_address, "HTTP: / /health /metrics");
    match &location {
        Location::Memory => tracing::warn!(
            "state is kept in memory only: when this server ends, tables and views are gone and sources must be declared again"
        ),
        Location::Directory(path) => tracing::info!(path = %path.display(), "state is kept in this directory"),
        Location::Store(address) => tracing::info!(url = %address.url, "state is kept in this object store"),
    }
    if let Some(url) = &options.checkpoint_dir {
        tracing::info!(%url, "checkpoints are kept in this object store");
    }
    let lost = async {
        match &data_dir {
            Some(data_dir) => data_dir.lost().await,
            None => std::future::pending().await,
        }
    };
    let reason = tokio::select! {
        () = signals.next() => None,
        reason = server.engine.failed() => Some(reason),
        reason = lost => {
            // What is not written yet will never be.
            data_dir.iter().for_each(DataDir::close);
            Some(reason)
        }
    };
    tracing::info!("stopping");
    let stopped = server.stop(&mut signals).await;
    if stopped.is_err() {
        // A store that is away must not keep the process.
        data_dir.iter().for_each(DataDir::close);
    }
    match reason {
        Some(reason) => Err(reason.into()),
        None => stopped,
    }
}

/// Where a server's state is.
#[derive(Clone, Copy, Default)]
pub struct State<'a> {
    /// None: in memory.
    pub data_dir: Option<&'a DataDir>,
    /// What comes before damage in the log is taken, and the rest set aside.
    pub cut_damaged_log: bool,
}

/// A running server: the engine and both ports.
pub struct Server {
    /// The engine, for sessions in this process.
    pub engine: Arc<Engine>,
    /// Where PostgreSQL clients connect.
    pub pg_address: SocketAddr,
    /// Where HTTP is served.
    pub http_address: SocketAddr,
    stopping: CancellationToken,
    stopped: CancellationToken,
    pg: JoinHandle<()>,
    http: JoinHandle<()>,
}

impl Server {
    /// Opens both ports and starts the engine. While it recovers, both ports say so.
    pub async fn start(
        listen: &str,
        http_listen: &str,
        settings: Settings,
        state: State<'_>,
    ) -> Result<Server, Failure> {
        let pg_listener = ports::listen(listen, "--listen").await?;
        let http_listener = ports::listen(http_listen, "--http-listen").await?;
        let (pg_address, http_address) = (address_of(&pg_listener)?, address_of(&http_listener)?);
        let components = Components::new(CONNECTORS.as_slice(), Arc::new(PgSystem));
        let (stopping, stopped) = (CancellationToken::new(), CancellationToken::new());
        let site = Site { engine: Arc::default(), stopping: stopping.clone(), pg_address };
        let http = tokio::spawn(http::serve(http_listener, site.clone(), stopped.clone()));
        let engine = match state.data_dir {
            None => Engine::start(settings, components)?,
            Some(data_dir) => {
                tracing::info!(clients = %pg_address, http = %http_address, "starting; clients are told to wait");
                let storage = tokio::task::block_in_place(|| data_dir.storage())?;
                let recovering = Engine::open(settings, components, storage, state.cut_damaged_log);
                refuse_until(&pg_listener, &Limits::default(), recovering).await?
            }
        };
        // Nobody else sets it.
        let _ = site.engine.set(engine.clone());
        let shutdown = stopping.clone().cancelled_owned();
        let pg = tokio::spawn(tidewire_server::serve(pg_listener, engine.clone(), Limits::default(), shutdown));
        Ok(Server { engine, pg_address, http_address, stopping, stopped, pg, http })
    }

    /// Ends all parts, or says that they did not end in time.
    pub async fn stop(self, signals: &mut Signals) -> Result<(), Failure> {
        self.stopping.cancel();
        let parts = async {
            self.engine.shutdown().await;
            let pg = self.pg.await;
            self.stopped.cancel();
            let http = self.http.await;
            pg.and(http).map_err(|error| Failure::new(format!("a part of the server ended badly: {error}")))
        };
        tokio::select! {
            ended = tokio::time::timeout(STOP_TIME_MAX, parts) => ended.unwrap_or_else(|_| {
                Err(Failure::new(format!("the server did not end within {} s", STOP_TIME_MAX.as_secs())))
            }),
            () = signals.next() => Err(Failure::new("ended by a second signal")),
        }
    }
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|error| Failure::new(format!("cannot listen: {error}")))
}

/// SIGINT and SIGTERM.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on these signals no longer end the process by themselves.
    pub fn new() -> Result<Signals, Failure> {
        let handler = |kind| signal(kind).map_err(|error| Failure::new(format!("cannot handle signals: {error}")));
        Ok(Signals { interrupt: handler(SignalKind::interrupt())?, terminate: handler(SignalKind::terminate())? })
    }

    /// Waits for one of them.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
