//! An object store of S3's kind: `s3://bucket/prefix`.
//!
//! Every call here blocks; what it waits for runs on two threads of the bucket's own, so that it may be called from any
//! thread. A write is tried again, with growing pauses, until it is known what became of it: a store that is away stops
//! writes, and they go on when it answers again. A read gives up after a minute.
//!
//! Invariant: an object is written once ([`PutMode::Create`]). Where there is one of that name already, its bytes tell
//! whether an earlier try of ours wrote it (its answer was lost) or another process: then this one has lost the place,
//! for good ([`Bucket::lost`]).

mod files;
mod log;
mod owner;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig,
};
use tidewire_types::{Result, SqlError, SqlState};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tracing::{info, warn};

pub use self::files::BucketFiles;
pub use self::log::BucketLog;
use self::owner::Owner;

/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// For how long after it took over an owner removes nothing.
const GRACE: Duration = Duration::from_secs(60);
/// How long a read is tried.
const READ_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a start waits for a store that does not answer.
const START_TIME_MAX: Duration = Duration::from_secs(15);
/// Requests that run at once where there are many.
const PARALLEL: usize = 16;

/// Where a bucket is and how it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketAddress {
    /// `s3://bucket/prefix`.
    pub url: String,
    /// The options of `object_store`, such as `aws_endpoint`.
    pub options: BTreeMap<String, String>,
    /// For how long whoever takes over removes nothing: the one before may not know yet that it has been replaced.
    pub grace: Duration,
}

impl BucketAddress {
    /// With the options of the environment variables `AWS_*`.
    pub fn from_env(url: &str) -> BucketAddress {
        let aws = |(name, value): (String, String)| name.starts_with("AWS_").then(|| (name.to_lowercase(), value));
        let vars =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        BucketAddress { url: url.to_string(), options: vars.filter_map(aws).collect(), grace: GRACE }
    }

    /// The bucket's name and the prefix. Errors: `22023`.
    fn parts(&self) -> Result<(&str, Path)> {
        let wrong = || {
            SqlError::new(
                SqlState::InvalidParameterValue,
                format!("\"{}\" is not a place in an object store", self.url),
            )
            .with_hint("Write s3://bucket/prefix.")
        };
        let rest = self.url.strip_prefix("s3://").ok_or_else(wrong)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        match bucket.is_empty() {
            true => Err(wrong()),
            false => Ok((bucket, Path::parse(prefix.trim_end_matches('/')).map_err(|_| wrong())?)),
        }
    }
}

/// A prefix of a bucket. Clones are the same one.
#[derive(Clone)]
pub struct Bucket(Arc<Inner>);

struct Inner {
    store: Arc<dyn ObjectStore>,
    root: Path,
    url: String,
    grace: Duration,
    // None only while it is dropped.
    io: Option<Runtime>,
    is_closed: watch::Sender<bool>,
    lost: watch::Sender<Option<SqlError>>,
    owner: watch::Sender<Option<Claim>>,
}

/// What a process knows of its place.
#[derive(Clone)]
struct Claim {
    owner: Owner,
    since: Instant,
    // When it was last asked whether the place is still this owner's, by both clocks: one may have stood still.
    asked: (Instant, SystemTime),
}

impl Drop for Inner {
    fn drop(&mut self) {
        // May be dropped by a thread that must not block.
        if let Some(io) = self.io.take() {
            io.shutdown_background();
        }
    }
}

/// What became of an object that was to be written.
enum Put {
    /// It is there, and ours.
    Done,
    /// Another one is there.
    Taken,
}

impl Bucket {
    /// For reading and for single writes: the place is not claimed. Errors: options that are wrong.
    pub fn open(address: &BucketAddress) -> Result<Bucket> {
        let (bucket, root) = address.parts()?;
        let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_retry(RetryConfig {
            // Tries are counted here, where their outcome is judged.
            max_retries: 0,
            backoff: BackoffConfig::default(),
            retry_timeout: READ_TIME_MAX,
        });
        builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout), "5 seconds");
        for (key, value) in &address.options {
            // Other programs' variables that begin alike are none of ours.
            if let Ok(key) = key.parse() {
                builder = builder.with_config(key, value);
            }
        }
        let wrong = |e: Error| {
            SqlError::new(SqlState::InvalidParameterValue, format!("cannot use \"{}\": {e}", address.url))
                .with_hint("See AWS_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ALLOW_HTTP.")
        };
        let store = builder.build().map_err(wrong)?;
        let mut io = tokio::runtime::Builder::new_multi_thread();
        let io = io.worker_threads(2).thread_name("bucket-io").enable_all().build();
        let io = io.map_err(|e| SqlError::new(SqlState::OutOfMemory, format!("cannot start threads: {e}")))?;
        Ok(Bucket(Arc::new(Inner {
            store: Arc::new(store),
            root,
            url: address.url.trim_end_matches('/').to_string(),
            grace: address.grace,
            io: Some(io),
            is_closed: watch::Sender::new(false),
            lost: watch::Sender::new(None),
            owner: watch::Sender::new(None),
        })))
    }

    /// Nothing is read or written any more; who waits gets an error.
    pub fn close(&self) {
        self.0.is_closed.send_replace(true);
    }

    /// Waits until another process has taken over: who.
    pub async fn lost(&self) -> SqlError {
        let mut lost = self.0.lost.subscribe();
        let error = lost.wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
        match error {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Where an object is, for messages.
    pub fn describe(&self, name: &str) -> String {
        format!("{}/{name}", self.0.url)
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').filter(|part| !part.is_empty()).fold(self.0.root.clone(), |path, part| path.join(part))
    }

    /// Runs something on the bucket's threads and waits for it.
    fn wait<T: Send + 'static>(&self, work: impl Future<Output = io::Result<T>> + Send + 'static) -> io::Result<T> {
        let (sender, receiver) = mpsc::channel();
        let mut is_closed = self.0.is_closed.subscribe();
        let io = self.0.io.as_ref().ok_or_else(closed)?;
        io.spawn(async move {
            let done = tokio::select! {
                done = work => done,
                _ = is_closed.wait_for(|closed| *closed) => Err(closed()),
            };
            let _ = sender.send(done);
        });
        receiver.recv().map_err(|_| closed())?
    }

    /// Writes an object where there is none of that name; tried until it is known what became of it.
    ///
    /// An owner that has slept long may write where its successor has been and gone: it asks before anybody is told.
    fn create(&self, name: &str, bytes: Bytes) -> io::Result<Put> {
        let (bucket, name) = (self.clone(), name.to_string());
        self.wait(async move {
            let put = bucket.try_create(&name, bytes, None).await.map_err(io_error)?;
            match put {
                Put::Done if bucket.is_doubtful() && !bucket.ask().await.map_err(io_error)? => Ok(Put::Taken),
                put => Ok(put),
            }
        })
    }

    async fn try_create(&self, name: &str, bytes: Bytes, time_max: Option<Duration>) -> Result<Put, Error> {
        let path = self.path(name);
        let put = || {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            self.0.store.put_opts(&path, bytes.clone().into(), options)
        };
        // Only what is known to be there ends the tries: an error of rights may follow a try whose answer was lost.
        let may_heal = |e: &Error| !matches!(e, Error::AlreadyExists { .. } | Error::NotImplemented { .. });
        match self.tried("write", name, time_max, may_heal, put).await {
            Ok(_) => Ok(Put::Done),
            Err(Error::AlreadyExists { .. }) => {
                let get = || async { self.0.store.get(&path).await?.bytes().await };
                match self.tried("read", name, time_max, is_transient, get).await {
                    Ok(there) => Ok(if there == bytes { Put::Done } else { Put::Taken }),
                    // It was there, and its writer has removed it since.
                    Err(Error::NotFound { .. }) => Ok(Put::Taken),
                    Err(e) => Err(e),
                }
            }
            Err(e) => Err(e),
        }
    }

    /// Writes an object, whatever is there.
    fn overwrite(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        let (bucket, name) = (self.clone(), name.to_string());
        self.wait(async move {
            let path = bucket.path(&name);
            let put = || bucket.0.store.put(&path, bytes.clone().into());
            bucket.tried("write", &name, Some(READ_TIME_MAX), is_transient, put).await.map_err(io_error).map(|_| ())
        })
    }

    fn get(&self, name: &str) -> io::Result<Bytes> {
        let (bucket, name) = (self.clone(), name.to_string());
        self.wait(async move { bucket.try_get(&name, READ_TIME_MAX).await.map_err(io_error) })
    }

    async fn try_get(&self, name: &str, time_max: Duration) -> Result<Bytes, Error> {
        let path = self.path(name);
        let get = || async { self.0.store.get(&path).await?.bytes().await };
        self.tried("read", name, Some(time_max), is_transient, get).await
    }

    /// The first `len` bytes of many objects; None for one that is gone.
    fn get_heads(&self, names: Vec<String>, len: u64) -> io::Result<Vec<Option<Bytes>>> {
        let bucket = self.clone();
        self.wait(async move {
            let head = |name: String| {
                let bucket = bucket.clone();
                async move {
                    let path = bucket.path(&name);
                    let get = || bucket.0.store.get_range(&path, 0..len);
                    match bucket.tried("read", &name, Some(READ_TIME_MAX), is_transient, get).await {
                        Ok(bytes) => Ok(Some(bytes)),
                        Err(Error::NotFound { .. }) => Ok(None),
                        Err(e) => Err(io_error(e)),
                    }
                }
            };
            futures::stream::iter(names).map(head).buffered(PARALLEL).try_collect().await
        })
    }

    /// Many whole objects, in the order of their names here; None for one that is gone.
    fn get_all(&self, names: Vec<String>) -> io::Result<Vec<Option<Bytes>>> {
        let bucket = self.clone();
        self.wait(async move {
            let whole = |name: String| {
                let bucket = bucket.clone();
                async move {
                    match bucket.try_get(&name, READ_TIME_MAX).await {
                        Ok(bytes) => Ok(Some(bytes)),
                        Err(Error::NotFound { .. }) => Ok(None),
                        Err(e) => Err(io_error(e)),
                    }
                }
            };
            futures::stream::iter(names).map(whole).buffered(PARALLEL).try_collect().await
        })
    }

    /// The names of all objects in a folder, without the folder.
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let (bucket, folder) = (self.clone(), folder.to_string());
        self.wait(async move {
            let path = bucket.path(&folder);
            let in_folder = &path;
            let list = || async {
                let name = |path: Path| {
                    let parts = path.prefix_match(in_folder);
                    parts.map(|parts| parts.map(|part| part.as_ref().to_string()).collect::<Vec<_>>().join("/"))
                };
                let listed: Vec<_> = bucket.0.store.list(Some(in_folder)).map_ok(|m| m.location).try_collect().await?;
                Ok(listed.into_iter().filter_map(name).collect())
            };
            bucket.tried("list", &folder, Some(READ_TIME_MAX), is_transient, list).await.map_err(io_error)
        })
    }

    /// Removes objects; one that is not there is none to remove.
    fn delete(&self, names: Vec<String>) -> io::Result<()> {
        let bucket = self.clone();
        self.wait(async move {
            let delete = |name: String| {
                let bucket = bucket.clone();
                async move {
                    let path = bucket.path(&name);
                    let delete = || bucket.0.store.delete(&path);
                    match bucket.tried("remove", &name, Some(READ_TIME_MAX), is_transient, delete).await {
                        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                        Err(e) => Err(io_error(e)),
                    }
                }
            };
            futures::stream::iter(names).map(delete).buffer_unordered(PARALLEL).try_collect().await
        })
    }

    /// Tries again, with growing pauses, while `may_heal` and for no longer than `time_max`.
    async fn tried<T, F: Future<Output = Result<T, Error>>>(
        &self,
        what: &str,
        name: &str,
        time_max: Option<Duration>,
        may_heal: impl Fn(&Error) -> bool,
        attempt: impl Fn() -> F,
    ) -> Result<T, Error> {
        let began = Instant::now();
        let mut pause = Duration::from_millis(20);
        let mut n_failed = 0_u32;
        loop {
            let error = match attempt().await {
                Ok(done) => {
                    if pause >= PAUSE_MAX {
                        info!(store = %self.0.url, n_failed, "the store answers again");
                    }
                    return Ok(done);
                }
                Err(error) => error,
            };
            let is_over = time_max.is_some_and(|max| began.elapsed() + pause > max);
            if is_over || !may_heal(&error) {
                return Err(error);
            }
            if n_failed.is_power_of_two() {
                warn!(object = %self.describe(name), %error, n_failed, "cannot {what}; it is tried again");
            }
            n_failed += 1;
            pause_for(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing tells when a store that is away answers again")]
async fn pause_for(pause: Duration) {
    tokio::time::sleep(pause).await;
}

/// Whether the same call may work a moment later.
fn is_transient(error: &Error) -> bool {
    matches!(error, Error::Generic { .. } | Error::JoinError { .. })
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the object store is closed")
}

/// The operating system's error inside, where there is one.
pub(crate) fn io_error(error: Error) -> io::Error {
    let kind = match &error {
        Error::AlreadyExists { .. } => Some(io::ErrorKind::AlreadyExists),
        Error::NotFound { .. } => Some(io::ErrorKind::NotFound),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Some(io::ErrorKind::PermissionDenied),
        _ => None,
    };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut inner = None;
    while let Some(error) = cause {
        inner = inner.or_else(|| error.downcast_ref::<io::Error>().map(io::Error::kind));
        cause = error.source();
    }
    io::Error::new(kind.or(inner).unwrap_or(io::ErrorKind::Other), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_bucket_and_prefix() {
        let parts = |url: &str| {
            let address = BucketAddress { url: url.into(), ..BucketAddress::default() };
            address.parts().map(|(bucket, prefix)| (bucket.to_string(), prefix.to_string()))
        };
        assert_eq!(parts("s3://b").unwrap(), ("b".into(), String::new()));
        assert_eq!(parts("s3://b/a/c/").unwrap(), ("b".into(), "a/c".into()));
        for wrong in ["s3://", "s3:///a", "gs://b/a", "s3://b/a//c"] {
            assert_eq!(parts(wrong).unwrap_err().state(), SqlState::InvalidParameterValue, "{wrong}");
        }
    }
}
