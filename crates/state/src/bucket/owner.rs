//! Who writes in a bucket: one process, the one that started last.
//!
//! The object `owner.json` has the owner's number, and is replaced only by who has read it (a conditional put). Whoever
//! comes later takes over. The old owner is fenced by what both have to write next: the next object of the log, and the
//! next manifest, which the new one writes before it reads; the old one finds its place taken. One that has nothing to
//! write looks at `owner.json` now and then, and ends too.
//!
//! Invariant: what fences an old owner stays for [`super::BucketAddress::grace`]; an owner that has not asked for [`DOUBT_AFTER`] whether it
//! still is one asks before it tells anybody that something was written. So one that slept through both finds out.
//! Source: the fencing of SlateDB's manifest and write-ahead log.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use object_store::{Error, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidewire_types::{Result, SqlError, SqlState};
use tracing::{debug, info};

use super::{Bucket, Claim, Put, START_TIME_MAX, io_error, is_transient};

/// The object that says who owns the place.
const OWNER: &str = "owner.json";
/// The object that says what the place is.
const FORMAT: &str = "format.json";
/// The layout that this version writes.
const VERSION: u64 = 1;
/// How often an owner looks whether it still is.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// After how long without having looked it must, before it tells that something was written.
const DOUBT_AFTER: Duration = Duration::from_secs(10);
/// How many others may come first while one starts.
const CLAIMS_MAX: u32 = 10;

/// What `owner.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Each owner's is one greater than the last's.
    pub number: u64,
    /// Told from all others by this.
    pub nonce: u64,
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// Seconds since 1970-01-01 UTC.
    pub since: u64,
}

impl Owner {
    fn new() -> Owner {
        let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_string();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        // Keyed by the operating system's randomness.
        let nonce = RandomState::new().build_hasher().finish();
        Owner { number: 0, nonce, host, pid: std::process::id(), since }
    }
}

impl Bucket {
    /// Becomes the owner, and takes the place from who was. `log` says whose log the checkpoints here belong to: none
    /// where it is in the bucket too.
    ///
    /// Errors: `55000` where other things are there, or another log's checkpoints; `0A000` for what a newer version
    /// wrote; `58030`, `42501` where the store cannot be used.
    pub fn claim(&self, log: Option<&str>) -> Result<()> {
        let bucket = self.clone();
        let log = log.map(str::to_string);
        let claimed = self.wait(async move { Ok(bucket.try_claim(log.as_deref()).await) });
        claimed.map_err(|e| SqlError::new(SqlState::IoError, format!("cannot use \"{}\": {e}", self.0.url)))??;
        self.look_after();
        Ok(())
    }

    async fn try_claim(&self, log: Option<&str>) -> Result<()> {
        self.check_format(log).await?;
        let path = self.path(OWNER);
        let mut owner = Owner::new();
        for _ in 0..CLAIMS_MAX {
            let (before, mode) = match self.read_owner().await.map_err(|e| self.unusable("read", &e))? {
                Some((before, e_tag)) => (Some(before), PutMode::Update(UpdateVersion { e_tag, version: None })),
                None => (None, PutMode::Create),
            };
            if before.as_ref().is_some_and(|before| before.nonce == owner.nonce) {
                // A try whose answer was lost.
            } else {
                owner.number = before.as_ref().map_or(1, |before| before.number + 1);
                let bytes: Bytes = serde_json::to_vec_pretty(&owner).map_err(SqlError::internal)?.into();
                let options = PutOptions { mode, ..PutOptions::default() };
                let put = self.0.store.put_opts(&path, bytes.into(), options).await;
                match put {
                    Ok(_) => {}
                    Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => continue,
                    // Read again to see what became of it.
                    Err(e) if is_transient(&e) => continue,
                    Err(e) => return Err(self.unusable("write in", &e)),
                }
            }
            if let Some(before) = &before {
                info!(store = %self.0.url, number = owner.number, before = %describe(before), "the place is taken over");
            }
            let claim = Claim { owner, since: Instant::now(), asked: (Instant::now(), SystemTime::now()) };
            self.0.owner.send_replace(Some(claim));
            return Ok(());
        }
        Err(SqlError::new(SqlState::ObjectInUse, format!("cannot become the owner of \"{}\"", self.0.url))
            .with_detail("Other servers are started there at the same time, or the store does not answer."))
    }

    /// Nothing is written into a prefix that is somebody else's.
    async fn check_format(&self, log: Option<&str>) -> Result<()> {
        let refused = |state, why: String| {
            Err(SqlError::new(state, format!("cannot use \"{}\": {why}", self.0.url))
                .with_hint("Choose another prefix of the bucket."))
        };
        let found = match self.try_get(FORMAT, START_TIME_MAX).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => {
                use futures::StreamExt;
                let root = self.0.root.clone();
                let first = self.0.store.list((!root.as_ref().is_empty()).then_some(&root)).next().await;
                match first {
                    Some(Ok(other)) => {
                        let why = format!("it has other objects in it, such as \"{}\"", other.location);
                        return refused(SqlState::ObjectNotInPrerequisiteState, why);
                    }
                    Some(Err(e)) => return Err(self.unusable("list", &e)),
                    None => {}
                }
                let format = json!({ "format": "tidewire data in an object store", "version": VERSION, "log": log });
                let format = Bytes::from(format!("{format}\n"));
                match self.try_create(FORMAT, format.clone(), Some(START_TIME_MAX)).await {
                    Ok(Put::Done) => format,
                    Ok(Put::Taken) => {
                        self.try_get(FORMAT, START_TIME_MAX).await.map_err(|e| self.unusable("read", &e))?
                    }
                    Err(e) => return Err(self.unusable("write in", &e)),
                }
            }
            Err(e) => return Err(self.unusable("read", &e)),
        };
        let format: Option<serde_json::Value> = serde_json::from_slice(&found).ok();
        let version = format.as_ref().and_then(|format| format.get("version")?.as_u64());
        let found_log = format.as_ref().and_then(|format| format.get("log")?.as_str());
        match version {
            Some(version) if version > VERSION => {
                let why = format!("it has layout {version}, and this version of Tidewire knows up to {VERSION}");
                refused(SqlState::FeatureNotSupported, why)
            }
            None => refused(SqlState::ObjectNotInPrerequisiteState, format!("its object {FORMAT} cannot be read")),
            Some(_) if found_log == log => Ok(()),
            Some(_) => {
                let why = match found_log {
                    Some(_) => "the log that its checkpoints belong to is in another data directory",
                    None => "its log is in the store",
                };
                let refused = SqlError::new(
                    SqlState::ObjectNotInPrerequisiteState,
                    format!("cannot use \"{}\": {why}", self.0.url),
                );
                Err(refused.with_hint(
                    "Where that log is lost, tidewire restore makes a data directory of the newest checkpoint.",
                ))
            }
        }
    }

    async fn read_owner(&self) -> Result<Option<(Owner, Option<String>)>, Error> {
        let path = self.path(OWNER);
        let get = || async {
            let found = self.0.store.get(&path).await?;
            let e_tag = found.meta.e_tag.clone();
            Ok((found.bytes().await?, e_tag))
        };
        match self.tried("read", OWNER, Some(START_TIME_MAX), is_transient, get).await {
            Ok((bytes, e_tag)) => match serde_json::from_slice(&bytes) {
                Ok(owner) => Ok(Some((owner, e_tag))),
                Err(e) => Err(Error::Generic { store: "S3", source: Box::new(e) }),
            },
            Err(Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The owner's number; None where the place was not claimed.
    pub(super) fn owner_number(&self) -> Option<u64> {
        self.owner().map(|owner| owner.number)
    }

    pub(super) fn owner(&self) -> Option<Owner> {
        self.0.owner.borrow().as_ref().map(|claim| claim.owner.clone())
    }

    /// Whether this owner has just taken over: the old one may not know yet.
    pub(super) fn is_new(&self) -> bool {
        self.0.owner.borrow().as_ref().is_some_and(|claim| claim.since.elapsed() < self.0.grace)
    }

    /// Whether it is long ago that this owner looked whether it still is one.
    pub(super) fn is_doubtful(&self) -> bool {
        self.0.owner.borrow().as_ref().is_some_and(|claim| {
            let (instant, time) = claim.asked;
            instant.elapsed() > DOUBT_AFTER || time.elapsed().is_ok_and(|elapsed| elapsed > DOUBT_AFTER)
        })
    }

    /// Looks whether the place is still this owner's.
    pub(super) async fn ask(&self) -> Result<bool, Error> {
        let asked = (Instant::now(), SystemTime::now());
        let found = self.read_owner().await?;
        let Some(mine) = self.owner() else { return Ok(false) };
        match found {
            Some((owner, _)) if owner.nonce == mine.nonce => {
                self.0.owner.send_if_modified(|claim| claim.as_mut().map(|claim| claim.asked = asked).is_some());
                Ok(true)
            }
            found => {
                self.lose(found.map(|(owner, _)| owner));
                Ok(false)
            }
        }
    }

    /// What this process wanted to write is there already. With a [`SqlError`] inside where another one is the owner now.
    pub(super) fn taken(&self) -> io::Error {
        let bucket = self.clone();
        let is_mine = self.wait(async move { bucket.ask().await.map_err(io_error) });
        match self.0.lost.borrow().clone() {
            Some(lost) => io::Error::new(io::ErrorKind::AlreadyExists, lost),
            None => is_mine.err().unwrap_or_else(|| io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn lose(&self, by: Option<Owner>) {
        let url = &self.0.url;
        let message = match by {
            Some(by) => format!("another server has taken over \"{url}\": {}", describe(&by)),
            None => format!("another server has taken over \"{url}\""),
        };
        let error = SqlError::new(SqlState::ObjectInUse, message)
            .with_hint("Of two servers in one place the one that was started last goes on.");
        self.0.lost.send_if_modified(|lost| lost.is_none() && lost.replace(error).is_none());
    }

    /// Looks now and then whether somebody has taken over.
    fn look_after(&self) {
        let Some(io) = self.0.io.as_ref() else { return };
        let inner = std::sync::Arc::downgrade(&self.0);
        let mut is_closed = self.0.is_closed.subscribe();
        io.spawn(async move {
            let mut again = tokio::time::interval(LOOK_INTERVAL);
            loop {
                tokio::select! {
                    _ = again.tick() => {}
                    _ = is_closed.wait_for(|closed| *closed) => return,
                }
                let Some(inner) = inner.upgrade() else { return };
                match Bucket(inner).ask().await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => debug!(%error, "cannot look who the owner is"),
                }
            }
        });
    }

    fn unusable(&self, what: &str, error: &Error) -> SqlError {
        let state = match error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => SqlState::InsufficientPrivilege,
            _ => SqlState::IoError,
        };
        // The cause says more than what it is wrapped in.
        let mut cause: &dyn std::error::Error = error;
        let mut text = cause.to_string();
        while let Some(inner) = cause.source() {
            cause = inner;
            if !text.contains(&cause.to_string()) {
                text = format!("{text}: {cause}");
            }
        }
        SqlError::new(state, format!("cannot {what} \"{}\": {text}", self.0.url))
            .with_hint("See AWS_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ALLOW_HTTP.")
    }
}

fn describe(owner: &Owner) -> String {
    let since = Duration::from_secs(owner.since);
    let ago = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + since).map_or(0, |d| d.as_secs());
    format!("process {} on \"{}\", which started {ago} s ago", owner.pid, owner.host)
}
