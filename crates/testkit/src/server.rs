//! A whole server in this process, with sources in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidewire_connect::{CONNECTORS, Connector};
use tidewire_engine::{Components, Engine, Operators, Settings, SourceState, ViewState};
use tidewire_operators::Plan;
use tidewire_server::{Limits, PgSystem, serve};
use tidewire_state::{DataDir, Storage};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_postgres::NoTls;

use crate::database::{Database, Failure, InProcess, Wire};
use crate::memory::Memory;

/// How long views may take to catch up with what was produced.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);

/// A running server.
pub struct Server {
    /// The engine.
    pub engine: Arc<Engine>,
    /// The topics of `connector = 'memory'`.
    pub memory: Memory,
    settings: Settings,
    // Locked while the engine runs.
    data_dir: Option<(DataDir, TempDir)>,
    port: Option<(u16, oneshot::Sender<()>, tokio::task::JoinHandle<()>)>,
}

/// How a server ends before it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In good order.
    Graceful,
    /// The next one finds the files as they were at some instant. No checkpoint may be written meanwhile: the copy would have
    /// files of different instants.
    Killed,
}

impl Server {
    /// Starts an engine in memory.
    pub fn start(settings: Settings) -> Result<Server, Failure> {
        Server::start_with(settings, Plan::build)
    }

    /// Starts one with other operators.
    pub fn start_with(settings: Settings, operators: Operators) -> Result<Server, Failure> {
        let memory = Memory::default();
        let components = Components { operators, ..components(&memory) };
        let engine = Engine::start(settings.clone(), components)?;
        Ok(Server { engine, memory, settings, data_dir: None, port: None })
    }

    /// Starts an engine in a new directory, which is gone with the server.
    pub async fn start_on_disk(settings: Settings) -> Result<Server, Failure> {
        let memory = Memory::default();
        let directory = tempfile::tempdir().map_err(|e| Failure::of_test(format!("no directory: {e}")))?;
        let data_dir = DataDir::open(directory.path())?;
        let engine = Server::engine(&settings, data_dir.storage()?, &memory).await?;
        Ok(Server { engine, memory, settings, data_dir: Some((data_dir, directory)), port: None })
    }

    /// An engine over what `storage` has, with the topics of `memory`.
    pub async fn engine(settings: &Settings, storage: Storage, memory: &Memory) -> Result<Arc<Engine>, Failure> {
        Ok(Engine::open(settings.clone(), components(memory), storage, false).await?)
    }

    /// Ends the engine and starts it again over what it left on disk. Clients are to be made anew.
    pub async fn restart(&mut self, end: End) -> Result<(), Failure> {
        let Some((data_dir, directory)) = self.data_dir.take() else {
            return Err(Failure::of_test("a server in memory cannot be started again"));
        };
        let failed = |e: std::io::Error| Failure::of_test(format!("cannot copy the data directory: {e}"));
        let directory = match end {
            End::Graceful => directory,
            End::Killed => copy(directory.path()).map_err(failed)?,
        };
        self.engine.shutdown().await;
        drop(data_dir);
        let data_dir = DataDir::open(directory.path())?;
        self.engine = Server::engine(&self.settings, data_dir.storage()?, &self.memory).await?;
        self.data_dir = Some((data_dir, directory));
        Ok(())
    }

    /// The same with other settings from now on.
    pub async fn restart_with(&mut self, end: End, settings: Settings) -> Result<(), Failure> {
        self.settings = settings;
        self.restart(end).await
    }

    /// Stops the server, has `change` do something to the folder with the files of checkpoints, and starts it again.
    pub async fn shutdown_and(&mut self, change: impl FnOnce(&Path)) -> Result<(), Failure> {
        self.engine.shutdown().await;
        if let Some((_, directory)) = &self.data_dir {
            change(&directory.path().join("checkpoints"));
        }
        self.restart(End::Graceful).await
    }

    /// Opens a port for the Postgres protocol on loopback, chosen by the system.
    pub async fn listen(&mut self) -> Result<u16, Failure> {
        let failed = |e: std::io::Error| Failure::of_test(format!("cannot listen: {e}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let (stop, stopped) = oneshot::channel::<()>();
        let engine = self.engine.clone();
        let task = tokio::spawn(serve(listener, engine, Limits::default(), async {
            let _ = stopped.await;
        }));
        self.port = Some((port, stop, task));
        Ok(port)
    }

    /// A new client: over the wire where there is a port, else in process.
    pub async fn client(&self) -> Result<Box<dyn Database>, Failure> {
        match self.port {
            None => Ok(Box::new(self.in_process())),
            Some(_) => Ok(Box::new(self.wire().await?)),
        }
    }

    /// A new client in process.
    pub fn in_process(&self) -> InProcess {
        InProcess(self.engine.session("tidewire", "tidewire"))
    }

    /// A new client of the port that [`Server::listen`] opened.
    pub async fn wire(&self) -> Result<Wire, Failure> {
        let Some((port, ..)) = self.port else { return Err(Failure::of_test("the server has no port")) };
        let parameters = format!("host=127.0.0.1 port={port} user=tidewire dbname=tidewire");
        let (client, connection) = tokio_postgres::connect(&parameters, NoTls)
            .await
            .map_err(|e| Failure::of_test(format!("cannot connect: {e}")))?;
        tokio::spawn(connection);
        Ok(Wire(client))
    }

    /// Waits until no view is being built and every record in memory has reached the views that read it.
    pub async fn caught_up(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + CATCH_UP_MAX;
        let mut again = tokio::time::interval(Duration::from_millis(1));
        while let Some(waiting) = self.waiting_for() {
            if Instant::now() > deadline {
                return Err(Failure::of_test(format!("views did not catch up: {waiting}")));
            }
            again.tick().await;
        }
        Ok(())
    }

    /// What is not there yet.
    fn waiting_for(&self) -> Option<String> {
        let status = self.engine.status();
        if let Some(view) = status.views.iter().find(|v| matches!(v.state, ViewState::Building { .. })) {
            return Some(format!("{} is being built: {:?}", view.name, view.state));
        }
        let reading =
            status.sources.iter().filter(|s| matches!(s.state, SourceState::Running | SourceState::Retrying(_)));
        reading.into_iter().find_map(|source| {
            let position = |split| source.splits.iter().find(|s| s.split == split).map_or(0, |s| s.position);
            let mut ends = self.memory.ends(&source.name)?.into_iter();
            let (split, end) = ends.find(|(split, end)| position(split.0) < *end)?;
            Some(format!("source {} is at {} of {end} in split {}", source.name, position(split.0), split.0))
        })
    }

    /// Ends connections and the engine.
    pub async fn shutdown(self) {
        if let Some((_, stop, task)) = self.port {
            let _ = stop.send(());
            let _ = task.await;
        }
        self.engine.shutdown().await;
    }
}

fn components(memory: &Memory) -> Components {
    // A server knows its connectors for ever; a test's ends with the process.
    let own: &'static Memory = Box::leak(Box::new(memory.clone()));
    let connectors: Vec<&'static dyn Connector> = CONNECTORS.iter().copied().chain([own as &dyn Connector]).collect();
    Components::new(connectors.leak(), Arc::new(PgSystem))
}

/// A copy of a directory whose server runs: what is being written meanwhile is torn.
fn copy(from: &Path) -> std::io::Result<TempDir> {
    let to = tempfile::tempdir()?;
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        std::fs::create_dir_all(to.path().join(&folder))?;
        for entry in std::fs::read_dir(from.join(&folder))? {
            let entry = entry?;
            let name = folder.join(entry.file_name());
            match entry.file_type()?.is_dir() {
                true => folders.push(name),
                false => drop(std::fs::copy(entry.path(), to.path().join(&name))?),
            }
        }
    }
    Ok(to)
}
