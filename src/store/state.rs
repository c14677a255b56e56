//! One feature type as this instance has it: its index, how far it has come, and whether it may be asked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::api::{PartitionStatus, ReadError};
use super::dead_letters::DeadLetters;
use super::memory::{Memory, Share};
use super::tailer::Start;
use crate::delegate::Refused;
use crate::model::{Change, FeatureType, Offset, PartitionId, Persisted, Position, Watermark};
use crate::sabotage::{Safeguard, off};
use crate::task::Tasks;
use crate::transient::TransientIndex;

pub struct TypeState {
    /// Written under the index's lock alone: what the index holds suits it, for whoever holds that lock.
    feature_type: RwLock<Arc<FeatureType>>,
    pub log_name: Arc<str>,
    pub index: RwLock<TransientIndex>,
    pub partitions: Vec<Mutex<PartitionState>>,
    /// What the index takes of the instance's memory.
    pub share: Share,
    /// The delegate did not give the bases that the tailer last asked for: changes are kept without, until the resolver gets
    /// an answer.
    pub bases_away: AtomicBool,
    /// Told whenever the index has moved.
    progress: Notify,
    pub dead_letters: Mutex<DeadLetters>,
    pub tasks: Tasks,
    /// Why nothing is served, written, swept or cut until the index has begun anew.
    stopped: Mutex<Option<String>>,
}

/// The delegate has less than it had: it was put back to an earlier state. What has left the index since is in no tier.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "the long-term store of '{feature_type}', partition {partition}, was put back: it had all before {had}, and has all before {has}"
)]
pub struct PutBack {
    feature_type: String,
    partition: PartitionId,
    had: Offset,
    has: Offset,
}

/// What is known of a partition besides its index.
#[derive(Clone, Debug, Default)]
pub struct PartitionState {
    /// Nothing is served before the index is here: the watermark's `as_of` and the log's end as of the start.
    pub ready_at: Offset,
    /// The watermark from which the index began, and the end of the markers that it includes.
    pub start: (Watermark, Offset),
    /// As far as this instance knows.
    pub watermark: Watermark,
    /// The last marker that the log has shown.
    pub marker: Persisted,
    /// `durable_through` and `evict_through` that the delegate has at least, by all that this index goes by: the start, markers,
    /// bases, and what was persisted here.
    least: (Offset, Offset),
    pub end: Offset,
    /// The log has been cut before this, as far as this instance knows; memories of deleted features end here.
    pub log_start: Offset,
    /// The running maximum of the log's append times.
    pub time_ms: i64,
    pub owner: bool,
    /// What other programs have put here, with its offset and the log's time, until the tracks of these points have it.
    pub foreign: VecDeque<(Offset, i64, Change)>,
    pub swept_features: u64,
    pub sweep_failures: u64,
    pub last_error: Option<String>,
}

impl PartitionState {
    /// From here on the index goes by what the delegate has up to there: what a marker evicts, records that a base includes.
    pub fn follow(&mut self, durable_through: Offset, evict_through: Offset) {
        let (durable, evict) = self.least;
        self.least = (durable.max(durable_through), evict.max(evict_through));
    }

    /// False of a watermark that was read before the index came to go by a later one: a batch of what the index holds now would
    /// not be all that the delegate lacks, if it was put back meanwhile.
    pub fn suits(&self, watermark: &Watermark) -> bool {
        watermark.durable_through >= self.least.0 && watermark.evict_through >= self.least.1
    }

    /// False of a marker from before the start that tells of more than the delegate had: the delegate was restored to an earlier
    /// state, and what the marker evicts would be gone from both tiers.
    pub fn is_held(&self, offset: Offset, marker: &Persisted) -> bool {
        let (watermark, markers_end) = &self.start;
        offset >= *markers_end
            || (marker.durable_through <= watermark.durable_through && marker.evict_through <= watermark.evict_through)
    }
}

impl TypeState {
    /// `instance`: whose tasks they are.
    pub fn new(feature_type: Arc<FeatureType>, start: Start, instance: &str, memory: &Arc<Memory>) -> TypeState {
        let state = TypeState {
            log_name: feature_type.log_name().into(),
            index: RwLock::new(TransientIndex::new(&feature_type, &[])),
            partitions: start.partitions.iter().map(|_| Mutex::default()).collect(),
            feature_type: RwLock::new(feature_type.clone()),
            share: memory.index(),
            bases_away: AtomicBool::new(false),
            progress: Notify::new(),
            dead_letters: Mutex::default(),
            tasks: Tasks::of(instance),
            stopped: Mutex::default(),
        };
        state.begin_anew(&feature_type, start);
        state
    }

    /// Begins anew from what the delegate and the log have now, read under this version of the type: nothing is done when there
    /// is a later one.
    pub fn begin_anew(&self, feature_type: &Arc<FeatureType>, mut start: Start) {
        let offsets: Vec<Offset> = start.partitions.iter().map(|p| p.watermark.durable_through).collect();
        let mut index = self.index.write();
        if !self.is_at(feature_type) {
            return;
        }
        for (partition, start) in self.partitions.iter().zip(&start.partitions) {
            let mut partition = partition.lock();
            partition.watermark = start.watermark;
            partition.start = (start.watermark, start.markers_end);
            partition.least = (start.watermark.durable_through, start.watermark.evict_through);
            partition.marker = Persisted::default();
            partition.end = partition.end.max(start.end);
            partition.ready_at = partition.end.max(start.watermark.as_of);
            partition.foreign.clear();
        }
        index.begin_anew(feature_type, &offsets);
        // A read that is under way looks at the index again: it must not be served before those are that begin now.
        for partition in self.partition_ids().filter(|_| !off(Safeguard::ReadinessGate)) {
            index.serve_from(partition, self.partition(partition).ready_at);
        }
        start.refused.retain(|_| !off(Safeguard::RefusedAtStart));
        start.refused.sort_by_key(|r| r.entry.version);
        for Refused { partition, entry, .. } in start.refused {
            index.restore(partition, &entry.id, entry.version, entry.feature);
        }
        *self.stopped.lock() = None;
        drop(index);
        self.moved();
    }

    /// As this instance knows it now. It may be another one a moment later: what must go together is to be taken once.
    pub fn feature_type(&self) -> Arc<FeatureType> {
        self.feature_type.read().clone()
    }

    /// True while this instance knows no later version of the type than that one.
    pub fn is_at(&self, feature_type: &Arc<FeatureType>) -> bool {
        Arc::ptr_eq(&self.feature_type.read(), feature_type)
    }

    /// Takes up a later version of the type, and has the index suit it, in one step for whoever looks at both. Tails begin again
    /// under it; reads and sweeps that have begun go on under the one that they began with.
    pub fn follow(&self, later: FeatureType) {
        let mut index = self.index.write();
        let known = self.feature_type();
        if later.schema_version > known.schema_version {
            tracing::info!(feature_type = %later.name, version = later.schema_version, "the feature type has changed");
            index.widen(&known, &later);
            *self.feature_type.write() = Arc::new(later);
        }
        drop(index);
        self.moved();
    }

    /// Ends serving, writing, sweeping and cutting until the index has begun anew, which the tailers go about at once.
    pub fn stop(&self, why: String) {
        let mut stopped = self.stopped.lock();
        if stopped.as_ref() != Some(&why) {
            tracing::error!(feature_type = %self.feature_type().name, %why, "the feature type stops");
            *stopped = Some(why);
        }
        drop(stopped);
        self.moved();
    }

    pub fn stopped(&self) -> Option<String> {
        self.stopped.lock().clone()
    }

    /// What the delegate has of each partition, at least: for [`Self::check_not_put_back`], before it is asked.
    pub fn least(&self) -> Vec<(Offset, Offset)> {
        self.partitions.iter().map(|p| p.lock().least).collect()
    }

    /// Stops the type when the delegate, asked later than `least`, has less: reads would miss what was evicted since, sweeps
    /// and cuts would go on as if it were there.
    pub fn check_not_put_back(&self, least: &[(Offset, Offset)], now: &[Watermark]) -> Result<(), PutBack> {
        let back = |((durable, evict), now): (&(Offset, Offset), &Watermark)| {
            now.durable_through < *durable || now.evict_through < *evict
        };
        let Some(partition) = least.iter().zip(now).position(back) else { return Ok(()) };
        let put_back = PutBack {
            feature_type: self.feature_type().name.clone(),
            partition: partition as PartitionId,
            had: least[partition].0,
            has: now[partition].durable_through,
        };
        // It may have begun anew meanwhile.
        if self.least().iter().zip(now).any(back) {
            self.stop(put_back.to_string());
        }
        Err(put_back)
    }

    pub fn partition(&self, partition: PartitionId) -> parking_lot::MutexGuard<'_, PartitionState> {
        self.partitions[partition as usize].lock()
    }

    /// What a partition's sweeper must hold.
    pub fn lease(&self, partition: PartitionId) -> String {
        format!("{}.{partition}", self.log_name)
    }

    pub fn partition_ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        0..self.partitions.len() as PartitionId
    }

    pub fn is_ready(&self) -> bool {
        if self.stopped.lock().is_some() {
            return false;
        }
        let applied = self.index.read().applied();
        off(Safeguard::ReadinessGate) || applied.iter().zip(&self.partitions).all(|(a, p)| *a >= p.lock().ready_at)
    }

    /// Tells those who wait that the index has moved.
    pub fn moved(&self) {
        self.weigh();
        self.progress.notify_waiters();
    }

    /// Tells the instance's memory what the index takes now; the next time if it is being changed just now.
    pub fn weigh(&self) {
        if let Some(index) = self.index.try_read() {
            self.share.set(index.bytes());
        }
    }

    /// Waits until `reached` holds of the index; false when the time is over.
    pub async fn wait_until(&self, deadline: Instant, reached: impl Fn(&TransientIndex) -> bool) -> bool {
        loop {
            let mut moved = std::pin::pin!(self.progress.notified());
            // From here on no move is missed, so the index is looked at after it.
            moved.as_mut().enable();
            if reached(&self.index.read()) {
                return true;
            }
            if tokio::time::timeout_at(deadline, moved).await.is_err() {
                return false;
            }
        }
    }

    /// Waits until this instance may answer, and has come to the position that is asked for.
    pub async fn wait_for_position(&self, at_least: &Position, wait: Duration) -> Result<(), ReadError> {
        let ft = self.feature_type();
        let asked = at_least.offsets(&ft.name, &ft.incarnation)?.unwrap_or(&[]).to_vec();
        let reached = |index: &TransientIndex| index.applied().iter().zip(&asked).all(|(have, want)| have >= want);
        if !self.wait_until(Instant::now() + wait, reached).await {
            return Err(ReadError::Behind);
        }
        if self.is_ready() {
            Ok(())
        } else {
            let why = self.stopped().unwrap_or_else(|| "this instance is catching up with the log".into());
            Err(ReadError::Unavailable(why))
        }
    }

    pub fn position_of(&self, offsets: &[Offset]) -> Position {
        let mut position = Position::default();
        let ft = self.feature_type();
        position.raise(&ft.name, &ft.incarnation, offsets);
        position
    }

    pub fn status(&self, now_ms: i64) -> Vec<PartitionStatus> {
        let (name, index) = (self.feature_type().name.clone(), self.index.read());
        let (dead_letters, stopped) = (self.dead_letters.lock(), self.stopped());
        let per_partition = |p: PartitionId| {
            let state = self.partition(p);
            let dead_letters = dead_letters.counts(p);
            let applied = index.applied_of(p);
            PartitionStatus {
                feature_type: name.clone(),
                partition: p,
                ready: stopped.is_none() && applied >= state.ready_at,
                applied,
                end: state.end.max(applied),
                durable_through: state.watermark.durable_through,
                evict_through: state.watermark.evict_through,
                as_of: state.watermark.as_of,
                owner: state.owner,
                owned_by: None,
                // The index is one for all partitions of a type; told once.
                index_features: if p == 0 { index.len() as u64 } else { 0 },
                index_bytes: if p == 0 { index.bytes() as u64 } else { 0 },
                oldest_unpersisted_ms: index.oldest_dirty_ms(p).map_or(0, |t| (now_ms - t).max(0)),
                unresolved: index.unresolved_of(p) as u64,
                refused: None,
                poison_records: dead_letters.values().sum(),
                dead_letters,
                swept_features: state.swept_features,
                sweep_failures: state.sweep_failures,
                last_error: stopped.clone().or_else(|| state.last_error.clone()),
            }
        };
        self.partition_ids().map(per_partition).collect()
    }
}
