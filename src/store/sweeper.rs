//! Persists what has aged, one partition at a time: look, own, persist, and only then say so in the log.
//!
//! Safety rests on the delegate's compare-and-set alone: a sweeper that was paused for a minute and wakes up writes nothing.
//! A failure anywhere leaves all tiers as they were, and the next turn does it again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::state::TypeState;
use crate::clock::Clock;
use crate::coordination::{CoordinationError, Coordinator, Lease};
use crate::delegate::{Delegate, DelegateError, PersistBatch, PersistEntry, Persisting};
use crate::format::record;
use crate::log::{FeatureLog, LogError, NewRecord};
use crate::model::{Expiry, FeatureId, FeatureType, Offset, PartitionId, Persisted, Record, Watermark};
use crate::sabotage::{Safeguard, off};
use crate::transient::{AgeLimits, Aged};

#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error(transparent)]
    Delegate(#[from] DelegateError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
}

/// How long to wait for one's own marker before looking again.
const MARKER_WAIT: Duration = Duration::from_secs(5);

pub struct Sweeper {
    pub state: Arc<TypeState>,
    pub partition: PartitionId,
    pub log: Arc<dyn FeatureLog>,
    pub delegate: Arc<dyn Delegate>,
    pub coordinator: Arc<dyn Coordinator>,
    pub clock: Arc<dyn Clock>,
    pub batch: usize,
    /// How long records stay in the log after they are durable in the delegate.
    pub log_window: Duration,
    /// When, by the clock, the log had become durable to where; newest last.
    pub durable: Mutex<VecDeque<(i64, Offset)>>,
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
            *lease = self.coordinator.acquire(&self.state.lease(self.partition)).await?;
        }
        self.state.partition(self.partition).owner = lease.is_some();
        while lease.as_ref().is_some_and(|l| l.is_held()) && self.sweep().await? {}
        if lease.is_some() { self.cut().await } else { Ok(()) }
    }

    /// Cuts the log behind the watermark, less the window.
    async fn cut(&self) -> Result<(), SweepError> {
        let now_ms = self.clock.now_ms();
        let through = self.state.partition(self.partition).watermark.durable_through;
        let old_enough = {
            let mut durable = self.durable.lock();
            if durable.back().is_none_or(|(_, last)| *last < through) {
                durable.push_back((now_ms, through));
            }
            let window_ms = self.log_window.as_millis() as i64;
            let mut old_enough = None;
            while let Some((_, offset)) = durable.pop_front_if(|(at_ms, _)| *at_ms <= now_ms - window_ms) {
                old_enough = Some(offset);
            }
            old_enough
        };
        if let Some(before) = old_enough.filter(|o| *o > 0) {
            self.log.cut(&self.state.log_name, self.partition, before).await?;
            self.state.partition(self.partition).log_start = before;
        }
        Ok(())
    }

    /// Persists one batch; true when there may be more.
    async fn sweep(&self) -> Result<bool, SweepError> {
        if !self.state.is_ready() {
            return Ok(false);
        }
        let expected = self.delegate.watermarks(&self.state.feature_type()).await?[self.partition as usize];
        self.state.partition(self.partition).watermark = expected;
        if !self.marker_is_in_the_log(expected).await? {
            return Ok(false);
        }
        let (aged, next, feature_type) = {
            let index = self.state.index.read();
            let as_of = index.applied_of(self.partition);
            let behind = as_of < expected.as_of || as_of < expected.durable_through;
            if behind && !off(Safeguard::SweeperCaughtUp) {
                return Ok(false);
            }
            let limits = self.limits();
            let aged = match index.aged(self.partition, limits) {
                Some(aged) => aged,
                // Other instances may hold entries that this one never had, because it started when they had been persisted:
                // it is this one that tells them when those have expired, what is dirty since behind the last change too.
                None => {
                    let behind_changes = as_of.min(index.changed_through(self.partition) + 1);
                    let through = expected.durable_through.max(behind_changes);
                    if index.expired_through(self.partition, limits) < through {
                        return Ok(false);
                    }
                    Aged { entries: Vec::new(), durable_through: through, evict_through: through }
                }
            };
            let next = Watermark {
                durable_through: aged.durable_through,
                evict_through: aged.evict_through.max(expected.evict_through),
                as_of,
            };
            (aged, next, self.state.feature_type())
        };
        let moves = next.durable_through > expected.durable_through || next.evict_through > expected.evict_through;
        if !moves || next.durable_through < expected.durable_through {
            return Ok(false);
        }
        self.persist(&feature_type, aged, expected, next).await
    }

    /// `feature_type`: as it was when these were taken.
    async fn persist(
        &self,
        feature_type: &FeatureType,
        aged: Aged,
        expected: Watermark,
        next: Watermark,
    ) -> Result<bool, SweepError> {
        let more = aged.entries.len() >= self.batch;
        let entries: Vec<PersistEntry> = if feature_type.persist {
            aged.entries
                .into_iter()
                .map(|e| PersistEntry { feature: e.feature(), id: e.id, version: e.version })
                .collect()
        } else {
            Vec::new()
        };
        let ids: Vec<FeatureId> = entries.iter().map(|e| e.id.clone()).collect();
        let forget_deleted_before = self.state.partition(self.partition).log_start;
        let batch = PersistBatch { partition: self.partition, expected, next, entries, forget_deleted_before };
        let refused = match self.delegate.persist(feature_type, batch).await? {
            Persisting::Conflict(now) => {
                // Somebody else was faster: nothing was written.
                self.state.partition(self.partition).watermark = now;
                return Ok(false);
            }
            Persisting::Committed { refused } => refused,
        };
        {
            let mut partition = self.state.partition(self.partition);
            partition.watermark = next;
            partition.swept_features += ids.len() as u64;
        }
        for (id, why) in &refused {
            tracing::error!(feature_type = %feature_type.name, %id, %why, "the long-term store refused a feature; it stays in the index");
        }
        let except: Vec<FeatureId> = refused.into_iter().map(|(id, _)| id).collect();
        let persisted = ids.iter().filter(|id| !except.contains(id));
        self.state.index.write().note_persisted(persisted, next.as_of);
        self.append_marker(next, except).await?;
        Ok(more)
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

    fn limits(&self) -> AgeLimits {
        let (now_ms, feature_type) = (self.clock.now_ms(), self.state.feature_type());
        let before = |age: Duration| now_ms - age.as_millis() as i64;
        AgeLimits {
            expired_before_ms: match feature_type.expiry {
                Expiry::After(age) => Some(before(age)),
                Expiry::Never => None,
            },
            dirty_before_ms: before(feature_type.max_dirty),
            batch: self.batch,
        }
    }
}
