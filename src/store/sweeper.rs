//! Persists what has aged, one partition at a time: look, own, persist, and only then say so in the log.
//!
//! Safety rests on the delegate's compare-and-set alone: a sweeper that was paused for a minute and wakes up writes nothing.
//! A failure anywhere leaves all tiers as they were, and the next turn does it again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::memory::Memory;
use super::progress::Progress;
use super::state::{PutBack, TypeState};
use crate::clock::Clock;
use crate::coordination::{CoordinationError, Coordinator, Lease};
use crate::delegate::{Delegate, DelegateError, PersistBatch, PersistEntry, Persisting};
use crate::format::record;
use crate::log::{FeatureLog, LogError, NewRecord};
use crate::model::{Expiry, FeatureId, FeatureType, Growth, Offset, PartitionId, Persisted, Record, Watermark};
use crate::sabotage::{Safeguard, off};
use crate::transient::{AgeLimits, Aged, Entry};

#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error(transparent)]
    Delegate(#[from] DelegateError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    /// The marker that names them would be no record that the log takes.
    #[error(
        "{0} features are refused by the long-term store, more than can be held apart: nothing more is persisted until some are mended"
    )]
    TooManyRefused(usize),
    #[error(transparent)]
    PutBack(#[from] PutBack),
}

/// What a marker takes for an excepted id besides its bytes, at most.
const BYTES_PER_EXCEPTED: usize = 3;

/// How long to wait for one's own marker before looking again.
const MARKER_WAIT: Duration = Duration::from_secs(5);

pub struct Sweeper {
    pub state: Arc<TypeState>,
    pub partition: PartitionId,
    pub log: Arc<dyn FeatureLog>,
    pub delegate: Arc<dyn Delegate>,
    pub coordinator: Arc<dyn Coordinator>,
    pub clock: Arc<dyn Clock>,
    pub memory: Arc<Memory>,
    pub batch: usize,
    /// How often a batch of what the delegate refuses is tried again.
    pub refused_interval: Duration,
    pub retry: Mutex<Retry>,
    /// How long after tracks have left the indexes what stands apart of them is put into their lines.
    pub track_rest: Duration,
    /// Up to where tracks have left the indexes.
    pub resting: Mutex<Progress>,
    /// How long records stay in the log after they are durable in the delegate.
    pub log_window: Duration,
    /// Not to be had while a backup is made.
    pub cutting: Arc<tokio::sync::RwLock<()>>,
    /// How far the log had become durable.
    pub durable: Mutex<Progress>,
}

/// What goes into one transaction of the delegate, and into the marker after it.
struct Batch {
    /// As it was when the entries were taken.
    feature_type: Arc<FeatureType>,
    entries: Vec<Entry>,
    growths: Vec<Growth>,
    /// There may be more to persist behind it.
    more: bool,
    except: Vec<FeatureId>,
    expected: Watermark,
    next: Watermark,
}

impl Batch {
    fn moves(&self) -> bool {
        let Batch { expected, next, .. } = self;
        next.durable_through > expected.durable_through || next.evict_through > expected.evict_through
    }
}

/// When what stands refused was tried again, and which of it comes next.
#[derive(Debug, Default)]
pub struct Retry {
    at: Option<Instant>,
    from: Offset,
}

impl Sweeper {
    /// One turn under the lease, as long as there is something to do.
    pub async fn turn(&self, lease: &mut Option<Box<dyn Lease>>) -> Result<(), SweepError> {
        if lease.as_ref().is_some_and(|l| !l.is_held())
            && let Some(lost) = lease.take()
        {
            lost.release().await;
        }
        if lease.is_none() {
            // Asking may fail.
            self.state.partition(self.partition).owner = false;
            *lease = self.coordinator.acquire(&self.state.lease(self.partition)).await?;
        }
        self.state.partition(self.partition).owner = lease.is_some();
        if lease.is_some() {
            // First, so that a mended table ends what too many refused features have stopped.
            self.retry_refused().await?;
        }
        let is_held = || lease.as_ref().is_some_and(|l| l.is_held());
        while is_held() && self.sweep().await? {}
        if lease.is_none() {
            return Ok(());
        }
        self.cut().await?;
        let Some(before) = self.rested() else { return Ok(()) };
        while is_held() {
            if self.delegate.fold(&self.state.feature_type(), self.partition, before).await? == 0 {
                self.resting.lock().done();
                break;
            }
            // They have time, and what ages has not.
            while is_held() && self.sweep().await? {}
        }
        Ok(())
    }

    /// Before where tracks were last changed that left the indexes a while ago, and are not all whole in the delegate's tables:
    /// so one that comes and goes fix by fix is written whole once in that time at most.
    fn rested(&self) -> Option<Offset> {
        if !self.state.feature_type().keeps_tails() {
            return None;
        }
        let left = self.state.partition(self.partition).watermark.evict_through;
        self.resting.lock().before(self.track_rest, left)
    }

    /// Cuts the log behind the watermark, less the window.
    async fn cut(&self) -> Result<(), SweepError> {
        let Ok(_cutting) = self.cutting.try_read() else { return Ok(()) };
        if self.state.stopped().is_some() {
            return Ok(());
        }
        let through = self.state.partition(self.partition).watermark.durable_through;
        let Some(before) = self.durable.lock().before(self.log_window, through).filter(|o| *o > 0) else {
            return Ok(());
        };
        // Long after the last look, if this instance stood still, or was not ready: the store may have been put back.
        let least = self.state.least();
        let watermarks = self.delegate.watermarks(&self.state.feature_type()).await?;
        self.state.check_not_put_back(&least, &watermarks)?;
        self.log.cut(&self.state.log_name, self.partition, before).await?;
        self.durable.lock().done();
        self.state.partition(self.partition).log_start = before;
        Ok(())
    }

    /// The watermark to start from; `None` while this instance is behind it, or the log does not show it yet.
    async fn watermark(&self) -> Result<Option<Watermark>, SweepError> {
        if !self.state.is_ready() {
            return Ok(None);
        }
        let least = self.state.least();
        let watermarks = self.delegate.watermarks(&self.state.feature_type()).await?;
        self.state.check_not_put_back(&least, &watermarks)?;
        let watermark = watermarks[self.partition as usize];
        self.state.partition(self.partition).watermark = watermark;
        if !self.marker_is_in_the_log(watermark).await? {
            return Ok(None);
        }
        let applied = self.state.index.read().applied_of(self.partition);
        let behind = applied < watermark.as_of || applied < watermark.durable_through;
        Ok((!behind || off(Safeguard::SweeperCaughtUp)).then_some(watermark))
    }

    /// Persists one batch; true when there may be more.
    async fn sweep(&self) -> Result<bool, SweepError> {
        let Some(expected) = self.watermark().await? else { return Ok(false) };
        self.state.weigh();
        let batch = {
            let index = self.state.index.read();
            if !self.state.partition(self.partition).suits(&expected) {
                return Ok(false);
            }
            let as_of = index.applied_of(self.partition);
            let limits = self.limits(expected);
            let aged = match index.aged(self.partition, limits) {
                Some(aged) => aged,
                // Other instances may hold entries that this one never had, because it started when they had been persisted:
                // it is this one that tells them when those have expired, what is dirty since behind the last change too.
                None if index.unresolved_of(self.partition) > 0 => return Ok(false),
                None => {
                    let behind_changes = as_of.min(index.changed_through(self.partition) + 1);
                    let through = expected.durable_through.max(behind_changes);
                    if index.expired_through(self.partition, limits) < through {
                        return Ok(false);
                    }
                    Aged { durable_through: through, evict_through: through, ..Aged::default() }
                }
            };
            let next = Watermark {
                // What was refused is behind the watermark, and comes up again when it has changed.
                durable_through: aged.durable_through.max(expected.durable_through),
                evict_through: aged.evict_through.max(expected.evict_through),
                as_of,
            };
            let except = index.excepted(self.partition, next.durable_through, aged.ids());
            let Aged { entries, growths, more, .. } = aged;
            Batch { feature_type: self.state.feature_type(), entries, growths, more, except, expected, next }
        };
        // What is durable is not read again by who starts: until then the tracks must have what other programs have put here.
        let underived = self.state.partition(self.partition).foreign.front().map(|(offset, ..)| *offset);
        if underived.is_some_and(|offset| offset < batch.next.durable_through) {
            return Ok(false);
        }
        if !batch.moves() && batch.entries.is_empty() && batch.growths.is_empty() {
            return Ok(false);
        }
        let bytes: usize = batch.except.iter().map(|id| id.len() + BYTES_PER_EXCEPTED).sum();
        // The other half is for what of this batch is refused.
        if bytes > self.log.max_value_bytes() / 2 {
            return Err(SweepError::TooManyRefused(batch.except.len()));
        }
        self.persist(batch).await
    }

    /// Tries a batch again of what stands refused, now and then: its table may have been mended.
    async fn retry_refused(&self) -> Result<(), SweepError> {
        let from = {
            let retry = self.retry.lock();
            if retry.at.is_some_and(|at| at.elapsed() < self.refused_interval) {
                return Ok(());
            }
            retry.from
        };
        let Some(expected) = self.watermark().await? else { return Ok(()) };
        let batch = {
            let index = self.state.index.read();
            if !self.state.partition(self.partition).suits(&expected) {
                return Ok(());
            }
            let entries = index.refused(self.partition, from, self.batch);
            // The next time those behind these, or the first ones again.
            let from = entries.last().filter(|_| entries.len() >= self.batch).map_or(0, |last| last.dirty_since + 1);
            *self.retry.lock() = Retry { at: Some(Instant::now()), from };
            let next = Watermark { as_of: index.applied_of(self.partition), ..expected };
            let except = index.excepted(self.partition, next.durable_through, entries.iter().map(|e| &e.id));
            let (growths, more) = (Vec::new(), false);
            Batch { feature_type: self.state.feature_type(), entries, growths, more, except, expected, next }
        };
        if !batch.entries.is_empty() {
            self.persist(batch).await?;
        }
        Ok(())
    }

    async fn persist(&self, batch: Batch) -> Result<bool, SweepError> {
        let moves = batch.moves();
        let Batch { feature_type, entries, mut growths, more, mut except, expected, next } = batch;
        let entries: Vec<PersistEntry> = if feature_type.persist {
            entries
                .into_iter()
                .map(|e| PersistEntry {
                    feature: e.feature(),
                    id: e.id,
                    version: e.version,
                    event_time: e.deleted_time,
                })
                .collect()
        } else {
            growths.clear();
            Vec::new()
        };
        self.keep_dead_letters(next.durable_through).await?;
        let tried: Vec<(FeatureId, Offset)> = entries.iter().map(|e| (e.id.clone(), e.version)).collect();
        let grown: Vec<FeatureId> = growths.iter().map(|g| g.id.clone()).collect();
        let forget_deleted_before = self.state.partition(self.partition).log_start;
        let now_ms = self.clock.now_ms();
        let partition = self.partition;
        let batch = PersistBatch { partition, expected, next, entries, growths, forget_deleted_before, now_ms };
        let refused = match self.delegate.persist(&feature_type, batch).await? {
            Persisting::Conflict(now) => {
                // Somebody else was faster: nothing was written.
                self.state.partition(self.partition).watermark = now;
                return Ok(false);
            }
            Persisting::Unfit => {
                self.state.index.write().persist_whole(grown.iter());
                return Ok(true);
            }
            Persisting::Committed { refused } => refused.into_iter().collect::<FxHashMap<_, _>>(),
        };
        let (refusals, persisted): (Vec<_>, Vec<_>) = tried.into_iter().partition(|(id, _)| refused.contains_key(id));
        {
            let mut partition = self.state.partition(self.partition);
            partition.watermark = next;
            partition.follow(next.durable_through, next.evict_through);
            partition.swept_features += (persisted.len() + grown.len()) as u64;
        }
        // What was refused before is behind the watermark.
        for (id, why) in refused.iter().filter(|_| moves) {
            tracing::error!(feature_type = %feature_type.name, %id, %why, "the long-term store refused a feature; it stays in the index");
        }
        {
            let mut index = self.state.index.write();
            index.note_persisted(persisted.iter().map(|(id, _)| id), next.as_of);
            index.note_grown(grown.iter(), next.as_of);
            index.note_refused(refusals.iter().map(|(id, version)| (id, *version)));
        }
        // When all of them are refused again there is nothing to tell.
        if moves || !persisted.is_empty() || !grown.is_empty() {
            except.extend(refused.into_keys());
            self.append_marker(next, except).await?;
        }
        Ok(more)
    }

    /// Once the watermark has passed them, the log may be cut, and no instance that starts reads them.
    async fn keep_dead_letters(&self, before: Offset) -> Result<(), SweepError> {
        let letters = self.state.dead_letters.lock().to_give(self.partition, before);
        if !letters.is_empty() {
            self.delegate.keep_dead_letters(&self.state.feature_type(), letters).await?;
        }
        self.state.dead_letters.lock().note_given(self.partition, before);
        Ok(())
    }

    /// After a crash between the delegate's commit and the marker, the watermark is ahead of the log's last marker: the next
    /// owner appends it.
    async fn marker_is_in_the_log(&self, watermark: Watermark) -> Result<bool, SweepError> {
        let marker = self.state.partition(self.partition).marker.clone();
        let ahead =
            watermark.durable_through > marker.durable_through || watermark.evict_through > marker.evict_through;
        if ahead && !off(Safeguard::LostMarker) && self.state.index.read().applied_of(self.partition) >= watermark.as_of
        {
            let feature_type = self.state.feature_type();
            tracing::info!(feature_type = %feature_type.name, self.partition, watermark.durable_through, "a sweep was cut short: writing its marker");
            let refused = self.delegate.refused(&feature_type).await?.into_iter();
            // What is refused was read later: it may be of a store that was put back meanwhile.
            if self.delegate.watermarks(&feature_type).await?[self.partition as usize] != watermark {
                return Ok(false);
            }
            let except = refused.filter(|r| r.partition == self.partition).map(|r| r.entry.id).collect();
            self.append_marker(watermark, except).await?;
        }
        Ok(!ahead)
    }

    async fn append_marker(&self, watermark: Watermark, except: Vec<FeatureId>) -> Result<(), SweepError> {
        let Watermark { durable_through, evict_through, .. } = watermark;
        let marker = Persisted { durable_through, evict_through, except };
        let record = NewRecord {
            log: self.state.log_name.clone(),
            partition: self.partition,
            key: Bytes::new(),
            value: record::encode(&Record::Persisted(marker), self.state.feature_type().schema_version),
        };
        let offsets = self.log.append(vec![record]).await?;
        let end = offsets[0] + 1;
        let partition = self.partition;
        self.state.wait_until(Instant::now() + MARKER_WAIT, |index| index.applied_of(partition) >= end).await;
        Ok(())
    }

    /// After this watermark. Where memory is scarce everything has aged: expiry is a wish, memory a fact.
    fn limits(&self, watermark: Watermark) -> AgeLimits {
        let (now_ms, feature_type) = (self.clock.now_ms(), self.state.feature_type());
        let before = |age: Duration| now_ms - age.as_millis() as i64;
        AgeLimits {
            expired_before_ms: match feature_type.expiry {
                _ if self.memory.presses(&self.state.share) => Some(i64::MAX),
                Expiry::After(age) => Some(before(age)),
                Expiry::Never => None,
            },
            dirty_before_ms: before(feature_type.max_dirty),
            batch: self.batch,
            durable_through: watermark.durable_through,
            tails: feature_type.keeps_tails(),
        }
    }
}
