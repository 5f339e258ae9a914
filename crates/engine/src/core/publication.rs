//! Which epochs readers see, and what goes to disk before they do.
//!
//! Invariant: epochs are published in order, and one with writes that somebody waits for when the log has them on disk.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use tidewire_state::{BackedUp, BackupTarget, TableChange, Written};
use tidewire_types::{Delta, Epoch, ObjectId, Result, SqlError, SqlState};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::Core;
use crate::durable::{Asking, Backup, Durability};
use crate::runtime::EpochChanges;
use crate::shared::Call;
use crate::stored;

/// How many epochs may wait for a store that is away.
const UNPUBLISHED_MAX: usize = 1024;

/// An epoch that readers do not see yet.
pub(super) struct Unpublished {
    /// Its number.
    pub epoch: Epoch,
    /// Every record of the log below this number must be durable before.
    pub n_durable: u64,
    /// For subscriptions and views being built.
    pub changes: EpochChanges,
    /// The views that mean nothing in it.
    pub undefined: Arc<HashSet<ObjectId>>,
    /// Whom to answer when it is published.
    pub replies: Vec<Reply>,
}

/// Who waits for a write, and what it gave.
pub(super) type Reply = (oneshot::Sender<Result<Vec<RecordBatch>>>, Result<Vec<RecordBatch>>);

impl Core {
    /// Shows readers the epochs that are durable, in order.
    pub(super) fn publish_durable(&mut self) {
        let n_durable = self.durability.as_ref().map_or(u64::MAX, Durability::n_durable);
        while let Some(next) = self.unpublished.pop_front_if(|next| next.n_durable <= n_durable) {
            if next.epoch != self.published {
                self.published = next.epoch;
                self.shared.publish(|p| (p.epoch, p.undefined) = (next.epoch, next.undefined.clone()));
                self.end_subscriptions(&next.undefined);
                self.deliver(next.epoch, &next.changes);
            }
            for (reply, result) in next.replies {
                // A client that went away wants no answer.
                let _ = reply.send(result);
            }
        }
    }

    /// Waits until everything is published that was applied. When the log fails, whoever waits for it is told.
    pub(super) fn settle(&mut self) {
        let n_durable = self.unpublished.iter().map(|u| u.n_durable).max();
        let waited = match (&self.durability, n_durable) {
            (Some(durability), Some(n)) => durability.wait(n),
            _ => Ok(()),
        };
        self.publish_durable();
        if let Err(error) = waited {
            for (reply, _) in self.unpublished.drain(..).flat_map(|u| u.replies) {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }

    /// What callers want done between two epochs. While the store of the log is away it waits, and the loop goes on.
    pub(super) fn run_calls(&mut self, calls: Vec<Call>) {
        self.calls.extend(calls);
        let is_stalled = self.durability.as_ref().is_some_and(Durability::is_stalled);
        if is_stalled && self.unpublished.len() < UNPUBLISHED_MAX {
            return;
        }
        if !self.calls.is_empty() {
            self.settle();
        }
        for call in std::mem::take(&mut self.calls) {
            call(self);
        }
    }

    /// Writes what transactions did to the log, where there is one. How many records must be durable before anybody is
    /// told: none, where its client does not want to wait.
    pub(super) fn log(&mut self, done: &[(ObjectId, Vec<Delta>)], synchronous: bool) -> Result<u64> {
        let Some(durability) = &mut self.durability else { return Ok(0) };
        let changes = done.iter().flat_map(|(id, deltas)| deltas.iter().map(|d| TableChange::new(*id, d)));
        let changes = changes.collect::<Result<Vec<_>>>()?;
        if changes.is_empty() {
            return Ok(0);
        }
        let n_durable = durability.write(changes, synchronous)?;
        Ok(if synchronous { n_durable } else { 0 })
    }

    pub(super) fn write_dead_letters(&mut self) {
        if let Some(durability) = &mut self.durability {
            let letters = self.shared.dead_letters.take_unwritten();
            if !letters.is_empty() {
                durability.write_dead_letters(letters.iter().map(stored::store_letter).collect());
            }
        }
    }

    /// Goes on with the checkpoint that is made, or begins one where one is due.
    pub(super) fn checkpoint(&mut self) {
        self.copy_changes();
        if self.checkpoint_due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        let began = Instant::now();
        self.cut(false);
        if let Some(durability) = &mut self.durability {
            durability.paused(began.elapsed());
        }
    }

    /// Whether checkpoints are so far behind that sources and writers wait.
    pub(super) fn is_behind(&mut self) -> bool {
        let is_behind = self.durability.as_ref().is_some_and(|durability| durability.is_behind(self.held_bytes()));
        if is_behind != std::mem::replace(&mut self.was_behind, is_behind) {
            match is_behind {
                true => warn!("checkpoints are not written as fast as changes come: sources and writers wait"),
                false => info!("sources and writers go on: checkpoints are written"),
            }
        }
        is_behind
    }

    /// When the next checkpoint is due, if ever.
    pub(super) fn checkpoint_due(&self) -> Option<Instant> {
        self.durability.as_ref()?.checkpoint_due(self.held_bytes())
    }

    /// Hands everything that was applied to the thread that writes checkpoints.
    fn cut(&mut self, at_end: bool) {
        if self.durability.as_ref().is_none_or(|d| d.error().is_some() || !d.is_recovered()) {
            return;
        }
        let held_bytes = self.held_bytes();
        let (views, sources) = (self.kept_views(at_end), self.kept_sources());
        if let Some(durability) = &mut self.durability {
            durability.cut(&self.shared.snapshot_at(self.epoch), &self.shared, views, sources, held_bytes, at_end);
        }
    }

    /// Has a checkpoint written at once.
    pub fn ask_for_checkpoint(&mut self, asking: Asking) {
        match &mut self.durability {
            Some(durability) => durability.ask_for_checkpoint(asking),
            // Whoever asked may be gone.
            None => drop(asking.send(Ok(()))),
        }
    }

    /// Errors: `55000` where there is nothing on disk.
    pub fn check_can_back_up(&self) -> Result<()> {
        match self.durability {
            Some(_) => Ok(()),
            None => Err(SqlError::new(
                SqlState::ObjectNotInPrerequisiteState,
                "cannot back up a server without a data directory",
            )
            .with_hint("Start it with --data-dir.")),
        }
    }

    /// Has a checkpoint written at once, and copied.
    pub fn back_up(&mut self, target: BackupTarget, reply: oneshot::Sender<Result<BackedUp>>) -> Result<()> {
        self.check_can_back_up()?;
        if let Some(durability) = &mut self.durability {
            durability.ask_for_backup(Backup { target, reply });
        }
        Ok(())
    }

    /// A checkpoint was written, or was not.
    pub fn checkpoint_ended(&mut self, result: &Result<Written>, elapsed: Duration) {
        let ended = self.durability.as_mut().map_or(Ok(()), |durability| durability.cut_ended(result, elapsed));
        if let Err(reason) = ended {
            error!(%reason, "another process writes here: this one ends");
            self.shared.fail(reason);
        }
    }

    /// The last things that go to disk.
    pub(super) fn end(&mut self) {
        self.settle();
        self.write_dead_letters();
        if self.durability.as_ref().is_some_and(Durability::is_dirty) {
            self.cut(true);
        }
        while self.is_copying {
            self.copy_changes();
        }
        match self.durability.take().map(Durability::finish) {
            Some(Ok(())) => info!("everything is on disk"),
            Some(Err(error)) => error!(%error, "the log could not be ended in good order"),
            None => {}
        }
    }
}
