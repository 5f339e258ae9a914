//! An S3 server in this process, and doors to it that fail.
//!
//! The server is `s3s-fs` over a temporary directory, with signatures and conditional puts. A test reaches it through a
//! [`Door`], a port of its own, which can lose an answer, refuse a request, wait, or be shut for good: so a process of
//! an earlier life is cut off from the store at any request, and does not know whether it was carried out.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tidewire_state::{Bucket, BucketAddress};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::faulty::Random;

/// The one bucket that there is.
pub const BUCKET: &str = "tidewire-test";
const ACCESS_KEY: &str = "test-access-key";
const SECRET_KEY: &str = "test-secret-key";

/// The server. It has threads of its own, and ends when it is dropped.
pub struct S3Server {
    directory: TempDir,
    service: S3Service,
    // The file system looks first and renames then: a conditional put is one step only where nobody else writes.
    one_write: Arc<tokio::sync::Mutex<()>>,
    runtime: Option<Runtime>,
}

impl S3Server {
    /// A server with an empty bucket.
    pub fn start() -> io::Result<S3Server> {
        let directory = tempfile::tempdir()?;
        std::fs::create_dir(directory.path().join(BUCKET))?;
        let files = FileSystem::new(directory.path()).map_err(|e| io::Error::other(format!("{e:?}")))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).thread_name("s3-server").enable_all().build()?;
        Ok(S3Server { directory, service: builder.build(), one_write: Arc::default(), runtime: Some(runtime) })
    }

    /// Another way in.
    pub fn door(&self, seed: u64) -> io::Result<Door> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let faults = Arc::new(Mutex::new(Faults { random: Random(seed), ..Faults::default() }));
        let room = Room { service: self.service.clone(), one_write: self.one_write.clone(), faults: faults.clone() };
        let runtime = self.runtime.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let (closing, closed) = tokio::sync::watch::channel(());
        runtime.spawn(serve(listener, room, closed));
        Ok(Door { address, faults, _closing: closing })
    }

    /// The names of all objects below a prefix.
    pub fn objects(&self, prefix: &str) -> Vec<String> {
        fn walk(directory: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    true => walk(&entry.path(), found),
                    false => found.push(entry.path()),
                }
            }
        }
        let root = self.directory.path().join(BUCKET);
        let mut found = vec![];
        walk(&root.join(prefix), &mut found);
        let name = |path: std::path::PathBuf| Some(path.strip_prefix(&root).ok()?.to_str()?.to_string());
        found.into_iter().filter_map(name).collect()
    }

    /// Where an object's bytes are, to be damaged.
    pub fn path_of(&self, object: &str) -> std::path::PathBuf {
        self.directory.path().join(BUCKET).join(object)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A port of the server. It is shut when this is dropped.
pub struct Door {
    address: SocketAddr,
    faults: Arc<Mutex<Faults>>,
    _closing: tokio::sync::watch::Sender<()>,
}

/// What goes wrong at a door. "Every" n: one in n requests, by chance.
#[derive(Default)]
struct Faults {
    random: Random,
    refuse_every: Option<u64>,
    lose_every: Option<u64>,
    delay_max: Duration,
    is_away: bool,
    // How many requests until it is shut for good, and the process behind it dead.
    requests_left: Option<u64>,
    process: Option<Bucket>,
    n_requests: u64,
    n_writes: u64,
}

/// What becomes of one request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Served,
    // 503, nothing is done.
    Refused,
    // The connection ends, nothing is done.
    Unheard,
    // It is carried out, and the connection ends.
    Unanswered,
}

impl Door {
    /// The place of a prefix, through this door.
    pub fn place(&self, prefix: &str) -> BucketAddress {
        let options = self.variables().into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
        BucketAddress { url: format!("s3://{BUCKET}/{prefix}"), options, grace: Duration::ZERO }
    }

    /// The environment variables by which a process comes in here.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.into()),
        ]
    }

    /// One request in so many is refused with 503, one in so many is carried out without an answer.
    pub fn fail_every(&self, refuse: Option<u64>, lose: Option<u64>) {
        let mut faults = self.faults.lock();
        (faults.refuse_every, faults.lose_every) = (refuse, lose);
    }

    /// Each request waits for up to so long.
    pub fn delay(&self, max: Duration) {
        self.faults.lock().delay_max = max;
    }

    /// Whether nothing is answered, until it is again.
    pub fn set_away(&self, is_away: bool) {
        self.faults.lock().is_away = is_away;
    }

    /// After so many requests nothing passes any more; the last one may have been carried out.
    pub fn shut_after(&self, n_requests: u64) {
        self.faults.lock().requests_left = Some(n_requests);
    }

    /// The process that comes in here: it dies when the door is shut.
    pub fn belongs_to(&self, process: &Bucket) {
        self.faults.lock().process = Some(process.clone());
    }

    /// Shuts the door at once.
    pub fn shut(&self) {
        let mut faults = self.faults.lock();
        faults.requests_left = Some(0);
        faults.process.iter().for_each(Bucket::close);
    }

    /// Whether it has been shut for good.
    pub fn is_shut(&self) -> bool {
        self.faults.lock().requests_left == Some(0)
    }

    /// How many requests came, and how many of them to write.
    pub fn n_requests(&self) -> (u64, u64) {
        let faults = self.faults.lock();
        (faults.n_requests, faults.n_writes)
    }
}

impl Faults {
    fn fate(&mut self, method: &Method) -> (Fate, Duration) {
        self.n_requests += 1;
        self.n_writes += u64::from(method == Method::PUT);
        let by_chance = |random: &mut Random, every: Option<u64>| every.is_some_and(|n| random.below(n) == 0);
        let delay = self.random.below(self.delay_max.as_millis() as u64 + 1);
        let fate = match self.requests_left {
            Some(n) if n <= 1 => {
                self.requests_left = Some(0);
                self.process.iter().for_each(Bucket::close);
                if n == 0 || self.random.below(2) == 0 { Fate::Unheard } else { Fate::Unanswered }
            }
            left => {
                self.requests_left = left.map(|n| n - 1);
                match self.is_away {
                    true => Fate::Unheard,
                    false if by_chance(&mut self.random, self.refuse_every) => Fate::Refused,
                    false if by_chance(&mut self.random, self.lose_every) => Fate::Unanswered,
                    false => Fate::Served,
                }
            }
        };
        (fate, Duration::from_millis(delay))
    }
}

#[derive(Clone)]
struct Room {
    service: S3Service,
    one_write: Arc<tokio::sync::Mutex<()>>,
    faults: Arc<Mutex<Faults>>,
}

impl Room {
    /// Errors: the connection is to end without an answer.
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, HttpError> {
        let lost = || HttpError::new("the answer is lost".into());
        let (fate, delay) = self.faults.lock().fate(request.method());
        if !delay.is_zero() {
            tokio::time::interval_at(tokio::time::Instant::now() + delay, delay).tick().await;
        }
        match fate {
            Fate::Unheard => return Err(lost()),
            Fate::Refused => {
                let mut refused = Response::new(Body::empty());
                *refused.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                return Ok(refused);
            }
            Fate::Served | Fate::Unanswered => {}
        }
        let is_write = matches!(*request.method(), Method::PUT | Method::DELETE | Method::POST);
        let alone = if is_write { Some(self.one_write.clone().lock_owned().await) } else { None };
        let answer = self.service.call(request.map(Body::from)).await;
        drop(alone);
        if fate == Fate::Unanswered { Err(lost()) } else { answer }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    room: Room,
    mut closed: tokio::sync::watch::Receiver<()>,
) -> Result<(), Infallible> {
    let Ok(listener) = TcpListener::from_std(listener) else { return Ok(()) };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closed.changed() => return Ok(()),
        };
        let Ok((socket, _)) = accepted else { continue };
        let room = room.clone();
        let mut closed = closed.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| room.clone().answer(request));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer);
            tokio::select! {
                _ = connection => {}
                _ = closed.changed() => {}
            }
        });
    }
}
