//! Reads a partition of a log and applies it to the index. What a record means is decided by the index; what a base is, by
//! the delegate; this only brings them together, in the log's order.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::RwLockWriteGuard;
use rustc_hash::FxHashMap;
use tokio::time::{Instant, timeout};

use super::state::{PutBack, TypeState};
use crate::delegate::{Base, Bases, Delegate, DelegateError, Refused};
use crate::format::record::{self, Poison, RecordError};
use crate::log::{Batch, FeatureLog, LogError, LogRecord};
use crate::model::{Change, FeatureId, FeatureType, Offset, PartitionId, Record, Watermark, partition_of};
use crate::sabotage::{Safeguard, off};
use crate::transient::{Known, Step, TransientIndex};

#[derive(Debug, thiserror::Error)]
pub enum TailError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Delegate(#[from] DelegateError),
    /// Written by a later program. Skipping it would lose changes.
    #[error("offset {offset}: a record of version {version}, which this program does not know: upgrade it")]
    Newer { offset: Offset, version: u8 },
    /// Records that the long-term store needs are gone, or it is ahead of the log: one of the two is not what it was.
    #[error("LOSS: {}", loss(log, *partition, range, *durable_through))]
    Loss { log: String, partition: PartitionId, range: Range<Offset>, durable_through: Offset },
    /// The log is not what this instance has read.
    #[error("LOSS: the log '{log}', partition {partition}, ends at {end}, this instance has read it up to {applied}")]
    EndLost { log: String, partition: PartitionId, end: Offset, applied: Offset },
    /// The parts before this one are gone, or were written by a program that does not keep them together.
    #[error("offset {offset}: a part of a transaction whose parts before it are not in the log")]
    Torn { offset: Offset },
    /// Or its schema has changed: the tail begins again where the index stands.
    #[error("the index was begun anew")]
    BegunAnew,
    #[error(transparent)]
    PutBack(#[from] PutBack),
    /// Written under a schema that this instance has not seen yet; the catalogue will bring it.
    #[error("offset {offset}: a record under schema version {version}, this instance has {known}")]
    NewerSchema { offset: Offset, version: u32, known: u32 },
}

/// What is there and what is not, for those who must decide how to go on.
fn loss(log: &str, partition: PartitionId, range: &Range<Offset>, durable_through: Offset) -> String {
    let has = match range.end.checked_sub(1).filter(|last| *last >= range.start) {
        Some(last) => format!("the log '{log}', partition {partition}, has the offsets from {} to {last}", range.start),
        None => format!("the log '{log}', partition {partition}, is empty at offset {}", range.end),
    };
    let but = format!("the long-term store goes on at {durable_through}");
    match range.start.checked_sub(1).filter(|last| *last >= durable_through) {
        Some(last) => format!("{has}, {but}: the offsets {durable_through} to {last} are in neither"),
        None => format!("{has}, {but}: it is not the log that the store was written from, or its end was lost"),
    }
}

/// Where an index may begin.
pub struct Start {
    pub partitions: Vec<PartitionStart>,
    /// What the delegate has refused of the records before the watermarks.
    pub refused: Vec<Refused>,
}

pub struct PartitionStart {
    pub watermark: Watermark,
    /// The log's end before the watermark was read: no marker before it tells of more than the watermark, unless the delegate
    /// was restored to an earlier state.
    pub markers_end: Offset,
    /// The log's end after that.
    pub end: Offset,
}

/// What a load says of these ids. What is answered from now on is not older than the rows that it has shown.
pub(super) fn take_in(
    state: &TypeState,
    index: &mut TransientIndex,
    ids: &[FeatureId],
    loaded: Bases,
) -> FxHashMap<FeatureId, Known> {
    for (partition, watermark) in loaded.watermarks.iter().enumerate() {
        state.partition(partition as PartitionId).follow(watermark.durable_through, watermark.evict_through);
        if !off(Safeguard::ServeFrom) {
            index.serve_from(partition as PartitionId, watermark.as_of);
        }
    }
    let known = loaded.bases.into_iter().map(|base| match base {
        Some(Base::Row(row)) => Known::Row(row.feature, row.version, row.apart),
        Some(Base::Deleted(version, event_time)) => Known::Deleted(version, event_time),
        None => Known::Nothing,
    });
    ids.iter().cloned().zip(known).collect()
}

impl Start {
    /// Of a type that cannot begin yet.
    pub fn nowhere(feature_type: &FeatureType) -> Start {
        let nowhere = || PartitionStart { watermark: Watermark::default(), markers_end: 0, end: 0 };
        let partitions = std::iter::repeat_with(nowhere).take(feature_type.partitions as usize).collect();
        Start { partitions, refused: Vec::new() }
    }
}

/// Where an index may begin now. A log that does not go with its watermarks is a loss: said loudly, never repaired silently.
pub async fn start(
    feature_type: &FeatureType,
    log: &Arc<dyn FeatureLog>,
    delegate: &Arc<dyn Delegate>,
) -> Result<Start, TailError> {
    let name = feature_type.log_name();
    let mut markers_ends = Vec::new();
    for partition in 0..feature_type.partitions {
        markers_ends.push(log.range(&name, partition).await?.end);
    }
    let mut watermarks = delegate.watermarks(feature_type).await?;
    let refused = loop {
        let refused = delegate.refused(feature_type).await?;
        let now = delegate.watermarks(feature_type).await?;
        // A sweep between the two may have put a later state in the place of one that is refused.
        if now == watermarks {
            break refused;
        }
        watermarks = now;
    };
    let mut partitions = Vec::new();
    for (partition, (watermark, markers_end)) in watermarks.into_iter().zip(markers_ends).enumerate() {
        let partition = partition as PartitionId;
        let range = log.range(&name, partition).await?;
        if watermark.durable_through < range.start || watermark.durable_through > range.end {
            return Err(TailError::Loss { log: name, partition, range, durable_through: watermark.durable_through });
        }
        partitions.push(PartitionStart { watermark, markers_end, end: range.end });
    }
    Ok(Start { partitions, refused })
}

/// Changes are applied under the index's lock, about so many at once, so that readers get their turn.
const CHANGES_PER_STEP: usize = 1024;

/// How long the catalogue may take to bring a schema before that is an error.
const CATALOGUE_WAIT: Duration = Duration::from_secs(2);

pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// How long the log waits for the bases that its changes build on.
const BASE_WAIT: Duration = Duration::from_secs(2);

/// Tails a partition from where the index stands, until something fails.
pub async fn run(
    state: &Arc<TypeState>,
    partition: PartitionId,
    log: &Arc<dyn FeatureLog>,
    delegate: &Arc<dyn Delegate>,
) -> Result<(), TailError> {
    let (from, generation, feature_type) = {
        let index = state.index.read();
        (index.applied_of(partition), index.generation(), state.feature_type())
    };
    let range = log.range(&state.log_name, partition).await?;
    if from > range.end {
        let log = state.log_name.to_string();
        let lost = TailError::EndLost { log, partition, end: range.end, applied: from };
        state.stop(lost.to_string());
        return Err(lost);
    }
    let cut = || "the log was cut past this instance's progress".to_owned();
    if let Some(why) = state.stopped().or_else(|| (from < range.start && !off(Safeguard::BeginAnew)).then(cut)) {
        tracing::warn!(feature_type = %feature_type.name, partition, offset = from, "{why}: the index is begun anew");
        let start = start(&feature_type, log, delegate).await.inspect_err(|e| {
            if let TailError::Loss { .. } = e {
                state.stop(e.to_string());
            }
        });
        state.begin_anew(&feature_type, start?);
        return Ok(());
    }
    let mut tail = log.tail(&state.log_name, partition, from).await?;
    let mut tailer = Tailer {
        state,
        partition,
        feature_type: feature_type.clone(),
        generation,
        delegate,
        open: FxHashMap::default(),
        held: Vec::new(),
    };
    // A tail that waits at its log's end would not notice otherwise, and this instance would not become ready.
    let another = |index: &TransientIndex| {
        index.generation() != generation || !state.is_at(&feature_type) || state.stopped().is_some()
    };
    let begins_again = async { while !state.wait_until(Instant::now() + DAY, another).await {} };
    let mut begins_again = std::pin::pin!(begins_again);
    loop {
        let batch = tokio::select! {
            biased;
            () = &mut begins_again => return Ok(()),
            batch = tail.next() => batch?,
        };
        match tailer.apply(batch).await {
            Ok(()) => {}
            Err(TailError::BegunAnew) => return Ok(()),
            // The record waits in the log, and what is behind it too: nothing of this partition is applied, or swept, before.
            Err(e @ TailError::NewerSchema { .. }) => {
                let brought = state.wait_until(Instant::now() + CATALOGUE_WAIT, |_| !state.is_at(&feature_type)).await;
                return if brought { Ok(()) } else { Err(e) };
            }
            Err(e) => return Err(e),
        }
        state.partition(partition).last_error = None;
    }
}

struct Tailer<'a> {
    state: &'a Arc<TypeState>,
    partition: PartitionId,
    /// What records are read under. A later one has the tail begin again, where the index stands.
    feature_type: Arc<FeatureType>,
    /// Of the index that it feeds.
    generation: u64,
    delegate: &'a Arc<dyn Delegate>,
    /// Runs whose last part has not come yet. They were appended together, so it does come.
    open: FxHashMap<u64, OpenRun>,
    /// What has come since one is open.
    held: Vec<Waiting>,
}

#[derive(Debug)]
struct OpenRun {
    parts: u32,
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Waiting {
    step: Step,
    record: Record,
}

impl Tailer<'_> {
    async fn apply(&mut self, batch: Batch) -> Result<(), TailError> {
        let mut ready: Vec<Waiting> = Vec::new();
        for log_record in &batch.records {
            let Some(waiting) = self.decode(log_record)? else { continue };
            self.gather(waiting, &mut ready)?;
        }
        let mut steps = ready.into_iter().peekable();
        while let Some(first) = steps.next() {
            match first.record {
                Record::Persisted(marker) => {
                    let offset = first.step.offset;
                    if self.state.partition(self.partition).is_held(offset, &marker) {
                        self.state.partition(self.partition).follow(marker.durable_through, marker.evict_through);
                        self.index()?.apply_persisted(self.partition, offset, &marker);
                        self.state.partition(self.partition).marker = marker;
                    } else {
                        self.index()?.advance(self.partition, offset + 1);
                    }
                }
                Record::Changes { changes, .. } => {
                    let mut group = vec![(first.step, changes)];
                    let mut size = group[0].1.len();
                    while let Some(next) = steps.next_if(|w| {
                        let in_one = w.step.since < w.step.offset && w.step.since == first.step.since;
                        matches!(w.record, Record::Changes { .. }) && (in_one || size < CHANGES_PER_STEP)
                    }) {
                        if let Record::Changes { changes, .. } = next.record {
                            size += changes.len();
                            group.push((next.step, changes));
                        }
                    }
                    self.apply_changes(&group).await?;
                }
            }
            self.state.moved();
        }
        if self.open.is_empty() {
            self.index()?.advance(self.partition, batch.next);
        }
        let mut partition = self.state.partition(self.partition);
        partition.end = partition.end.max(batch.next);
        drop(partition);
        self.state.moved();
        Ok(())
    }

    /// The index, to change it; an error when it was begun anew, elsewhere than where this tail stands, or is of a later schema
    /// than the changes at hand.
    fn index(&self) -> Result<RwLockWriteGuard<'_, TransientIndex>, TailError> {
        let index = self.state.index.write();
        let same = index.generation() == self.generation && self.state.is_at(&self.feature_type);
        if same { Ok(index) } else { Err(TailError::BegunAnew) }
    }

    /// Loads the bases that these changes build on, once for all of them, and applies them; without those that the delegate does
    /// not give, the changes that need them are kept for the resolver.
    async fn apply_changes(&self, group: &[(Step, Vec<Change>)]) -> Result<(), TailError> {
        let changes = || group.iter().flat_map(|(_, changes)| changes);
        let mut bases = FxHashMap::default();
        let mut needed = self.state.index.read().bases_needed(changes());
        loop {
            bases.extend(self.load(&needed).await?);
            let mut index = self.index()?;
            // Meanwhile the resolver may have found that some of those that were here have nothing new.
            needed = index.bases_needed(changes());
            needed.retain(|id| !bases.contains_key(id));
            if needed.is_empty() {
                group.iter().for_each(|(step, changes)| index.apply(*step, changes, &bases));
                return Ok(());
            }
        }
    }

    async fn load(&self, ids: &[FeatureId]) -> Result<FxHashMap<FeatureId, Known>, TailError> {
        if ids.is_empty() || !self.feature_type.persist || off(Safeguard::BaseLoads) {
            return Ok(ids.iter().map(|id| (id.clone(), Known::Nothing)).collect());
        }
        let away = || Ok(ids.iter().map(|id| (id.clone(), Known::Away)).collect());
        if self.state.bases_away.load(Ordering::Relaxed) {
            return away();
        }
        let least = self.state.least();
        let why = match timeout(BASE_WAIT, self.delegate.load(&self.feature_type, ids)).await {
            Ok(Ok(loaded)) => {
                self.state.check_not_put_back(&least, &loaded.watermarks)?;
                return Ok(take_in(self.state, &mut *self.index()?, ids, loaded));
            }
            Ok(Err(DelegateError::Unavailable(why))) => why,
            Ok(Err(e)) => return Err(e.into()),
            Err(_) => format!("no answer within {} s", BASE_WAIT.as_secs()),
        };
        if !self.state.bases_away.swap(true, Ordering::Relaxed) {
            let feature_type = &self.feature_type.name;
            tracing::warn!(%feature_type, %why, "what changes build on cannot be loaded: they are resolved later");
        }
        away()
    }

    /// Holds back the parts of a run, and whatever comes meanwhile, until no run is open; then all of it is applied in one, so
    /// that nobody, after a restart either, begins behind a part whose run ends later.
    fn gather(&mut self, mut waiting: Waiting, ready: &mut Vec<Waiting>) -> Result<(), TailError> {
        if let Record::Changes { run, changes } = &mut waiting.record
            && run.of > 1
            && !off(Safeguard::WholeRuns)
        {
            let open = self.open.entry(run.id).or_insert(OpenRun { parts: 0, changes: Vec::new() });
            open.parts += 1;
            open.changes.append(changes);
            if open.parts != run.part {
                return Err(TailError::Torn { offset: waiting.step.offset });
            }
            if run.is_last()
                && let Some(whole) = self.open.remove(&run.id)
            {
                *changes = whole.changes;
            }
        } else if self.open.is_empty() {
            ready.push(waiting);
            return Ok(());
        }
        self.held.push(waiting);
        if self.open.is_empty() {
            let since = self.held[0].step.since;
            // A marker among them tells of what was applied before them.
            self.held.sort_by_key(|w| matches!(w.record, Record::Persisted(_)));
            ready.extend(self.held.drain(..).map(|w| Waiting { step: Step { since, ..w.step }, ..w }));
        }
        Ok(())
    }

    fn decode(&self, r: &LogRecord) -> Result<Option<Waiting>, TailError> {
        let mut partition = self.state.partition(self.partition);
        partition.time_ms = partition.time_ms.max(r.append_time_ms);
        let step = Step { partition: self.partition, offset: r.offset, since: r.offset, time_ms: partition.time_ms };
        drop(partition);
        match self.read(r) {
            Ok(record) => {
                if let Record::Changes { changes, .. } = &record
                    && record::is_foreign(r.value.as_deref())
                {
                    let foreign = changes.iter().map(|c| (r.offset, step.time_ms, c.clone()));
                    self.state.partition(self.partition).foreign.extend(foreign);
                }
                Ok(Some(Waiting { step, record }))
            }
            Err(RecordError::Newer { version }) => Err(TailError::Newer { offset: r.offset, version }),
            Err(RecordError::NewerSchema { version, known }) => {
                Err(TailError::NewerSchema { offset: r.offset, version, known })
            }
            Err(RecordError::Poison { why, what }) => {
                let (name, partition) = (&self.feature_type.name, self.partition);
                let place = (name.as_str(), &*self.state.log_name, partition);
                if self.state.dead_letters.lock().add(place, r, why, what.clone()) {
                    tracing::warn!(feature_type = %name, partition, offset = r.offset, why = %what, "a record that cannot be read was skipped");
                }
                Ok(None)
            }
        }
    }

    fn read(&self, r: &LogRecord) -> Result<Record, RecordError> {
        let ft = &self.feature_type;
        let record = record::decode(r.key.as_deref(), r.value.as_deref(), ft)?;
        if let Record::Changes { changes, .. } = &record
            && record::is_foreign(r.value.as_deref())
            && let Some(at) =
                changes.iter().map(|c| partition_of(c.id(), ft.partitions)).find(|at| *at != self.partition)
        {
            let what =
                format!("the key belongs in partition {at}: the producer must place it by murmur2, as Java's does");
            return Err(RecordError::Poison { why: Poison::WrongPartition, what });
        }
        Ok(record)
    }
}
