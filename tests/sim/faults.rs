//! The seams with faults: calls that are late, that fail before their effect, or after it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use alluvium::clock::Clock;
use alluvium::delegate::{Bases, Delegate, DelegateError, PersistBatch, Persisting, Refused, Rows, Scan, Snapshot};
use alluvium::log::{Batch, FeatureLog, LogError, LogTail, NewRecord};
use alluvium::model::{FeatureId, FeatureType, Offset, PartitionId, Rect, Watermark};
use alluvium::query::Filter;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::world::Plan;

/// Wall-clock time, as tokio's paused clock goes.
pub struct SimClock(Instant);

impl SimClock {
    pub fn new() -> SimClock {
        SimClock(Instant::now())
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000 + self.0.elapsed().as_millis() as i64
    }
}

/// Decides, by the seed, what goes wrong. Shared by all parts of one instance.
pub struct Faults {
    rng: Mutex<StdRng>,
    /// Off towards the end of a run, so that it becomes quiet.
    pub on: Arc<AtomicBool>,
    pub sweeps: Arc<AtomicU64>,
    pub compare_and_set: bool,
    /// Of a hundred commits so many come very late.
    pub late_commits: u32,
}

enum Fate {
    Fine,
    FailsBefore,
    FailsAfter,
}

impl Faults {
    pub fn new(seed: u64, plan: &Plan, on: Arc<AtomicBool>, sweeps: Arc<AtomicU64>) -> Arc<Faults> {
        let rng = Mutex::new(StdRng::seed_from_u64(seed));
        Arc::new(Faults { rng, on, sweeps, compare_and_set: plan.compare_and_set, late_commits: plan.late_commits })
    }

    async fn commit_lateness(&self) {
        let very_late = self.on.load(Ordering::Relaxed) && self.rng.lock().random_range(0..100) < self.late_commits;
        if very_late {
            let ms = self.rng.lock().random_range(500..12_000);
            sleep(Duration::from_millis(ms)).await;
        }
    }

    /// Mostly short, now and then very long.
    async fn lateness(&self) {
        let ms = {
            let mut rng = self.rng.lock();
            let on = self.on.load(Ordering::Relaxed);
            match rng.random_range(0..100) {
                0..2 if on => rng.random_range(1_000..12_000),
                2..20 if on => rng.random_range(50..800),
                _ => rng.random_range(0..8),
            }
        };
        if ms > 0 {
            sleep(Duration::from_millis(ms)).await;
        }
    }

    fn fate(&self) -> Fate {
        match self.rng.lock().random_range(0..100) {
            _ if !self.on.load(Ordering::Relaxed) => Fate::Fine,
            0..3 => Fate::FailsBefore,
            3..6 => Fate::FailsAfter,
            _ => Fate::Fine,
        }
    }
}

/// What was appended, kept when the log is cut.
pub type Appended = Arc<Mutex<Vec<(Offset, Bytes, Bytes)>>>;

pub struct FaultyLog<L> {
    pub inner: L,
    pub faults: Arc<Faults>,
    pub appended: Appended,
}

impl<L: FeatureLog> FaultyLog<L> {
    async fn append_and_remember(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, LogError> {
        let offsets = self.inner.append(records.clone()).await?;
        let remembered = records.into_iter().zip(&offsets).map(|(r, o)| (*o, r.key, r.value));
        self.appended.lock().extend(remembered);
        Ok(offsets)
    }
}

#[async_trait]
impl<L: FeatureLog> FeatureLog for FaultyLog<L> {
    async fn create(&self, name: &str, partitions: u32) -> Result<(), LogError> {
        self.inner.create(name, partitions).await
    }

    async fn remove(&self, name: &str) -> Result<(), LogError> {
        self.inner.remove(name).await
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, LogError> {
        self.faults.lateness().await;
        match self.faults.fate() {
            Fate::FailsBefore => Err(LogError::Unavailable("a fault before".into())),
            Fate::FailsAfter => {
                self.append_and_remember(records).await?;
                self.faults.lateness().await;
                Err(LogError::OutcomeUnknown("a fault after".into()))
            }
            Fate::Fine => {
                let offsets = self.append_and_remember(records).await?;
                self.faults.lateness().await;
                Ok(offsets)
            }
        }
    }

    async fn range(&self, name: &str, partition: PartitionId) -> Result<Range<Offset>, LogError> {
        self.inner.range(name, partition).await
    }

    async fn tail(&self, name: &str, partition: PartitionId, from: Offset) -> Result<Box<dyn LogTail>, LogError> {
        let inner = self.inner.tail(name, partition, from).await?;
        Ok(Box::new(FaultyTail { inner, held: None, faults: self.faults.clone() }))
    }

    async fn cut(&self, name: &str, partition: PartitionId, before: Offset) -> Result<(), LogError> {
        self.inner.cut(name, partition, before).await
    }

    fn max_value_bytes(&self) -> usize {
        self.inner.max_value_bytes()
    }
}

/// Lags: an instance far behind the others is the hard case. Hands out one record at a time, so that reads fall between.
struct FaultyTail {
    inner: Box<dyn LogTail>,
    held: Option<Batch>,
    faults: Arc<Faults>,
}

#[async_trait]
impl LogTail for FaultyTail {
    async fn next(&mut self) -> Result<Batch, LogError> {
        if self.held.is_none() {
            self.held = Some(self.inner.next().await?);
        }
        self.faults.lateness().await;
        if matches!(self.faults.fate(), Fate::FailsBefore) {
            return Err(LogError::Unavailable("the tail was cut off".into()));
        }
        let Some(mut batch) = self.held.take() else { return Ok(Batch::default()) };
        if batch.records.len() > 1 {
            let first = batch.records.remove(0);
            let one = Batch { next: batch.records[0].offset, records: vec![first] };
            self.held = Some(batch);
            return Ok(one);
        }
        Ok(batch)
    }
}

pub struct FaultyDelegate<D> {
    pub inner: D,
    pub faults: Arc<Faults>,
}

impl<D> FaultyDelegate<D> {
    async fn before(&self) -> Result<(), DelegateError> {
        self.faults.lateness().await;
        match self.faults.fate() {
            Fate::FailsBefore => Err(DelegateError::Unavailable("a fault before".into())),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl<D: Delegate + Clone> Delegate for FaultyDelegate<D> {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn catalogue(&self) -> Result<(u64, Vec<FeatureType>), DelegateError> {
        self.inner.catalogue().await
    }

    async fn create(&self, feature_type: &FeatureType) -> Result<(), DelegateError> {
        self.inner.create(feature_type).await
    }

    async fn remove(&self, name: &str, purge: bool) -> Result<(), DelegateError> {
        self.inner.remove(name, purge).await
    }

    async fn watermarks(&self, feature_type: &FeatureType) -> Result<Vec<Watermark>, DelegateError> {
        self.before().await?;
        self.inner.watermarks(feature_type).await
    }

    /// The commit may be very late: then the caller's instance may be gone, but the commit still happens.
    async fn persist(&self, feature_type: &FeatureType, mut batch: PersistBatch) -> Result<Persisting, DelegateError> {
        self.before().await?;
        let (inner, faults, ft) = (self.inner.clone(), self.faults.clone(), feature_type.clone());
        let commit = tokio::spawn(async move {
            faults.commit_lateness().await;
            if !faults.compare_and_set {
                batch.expected = inner.watermarks(&ft).await?[batch.partition as usize];
            }
            let outcome = inner.persist(&ft, batch).await?;
            if matches!(outcome, Persisting::Committed { .. }) {
                faults.sweeps.fetch_add(1, Ordering::Relaxed);
            }
            faults.lateness().await;
            match faults.fate() {
                Fate::FailsAfter => Err(DelegateError::Unavailable("a fault after".into())),
                _ => Ok(outcome),
            }
        });
        commit.await.unwrap_or_else(|e| Err(DelegateError::Unavailable(e.to_string())))
    }

    async fn refused(&self, feature_type: &FeatureType) -> Result<Vec<Refused>, DelegateError> {
        self.before().await?;
        self.inner.refused(feature_type).await
    }

    async fn load(&self, feature_type: &FeatureType, ids: &[FeatureId]) -> Result<Bases, DelegateError> {
        self.before().await?;
        let bases = self.inner.load(feature_type, ids).await;
        self.faults.lateness().await;
        bases
    }

    async fn snapshot(&self, feature_type: &Arc<FeatureType>) -> Result<Box<dyn Snapshot>, DelegateError> {
        self.before().await?;
        let inner = self.inner.snapshot(feature_type).await?;
        self.faults.lateness().await;
        Ok(Box::new(SlowSnapshot { inner, faults: self.faults.clone() }))
    }
}

/// Rows come one by one, and late.
struct SlowSnapshot {
    inner: Box<dyn Snapshot>,
    faults: Arc<Faults>,
}

#[async_trait]
impl Snapshot for SlowSnapshot {
    fn watermarks(&self) -> &[Watermark] {
        self.inner.watermarks()
    }

    async fn scan(&mut self, scan: Scan) -> Result<Rows, DelegateError> {
        let rows = self.inner.scan(scan).await?;
        let faults = self.faults.clone();
        let one_by_one = rows.flat_map(|batch| {
            let rows: Vec<_> = match batch {
                Ok(rows) => rows.into_iter().map(|r| Ok(vec![r])).collect(),
                Err(e) => vec![Err(e)],
            };
            futures::stream::iter(rows)
        });
        let late = one_by_one.then(move |row| {
            let faults = faults.clone();
            async move {
                faults.lateness().await;
                row
            }
        });
        Ok(late.boxed())
    }

    async fn count(&mut self, filter: &Filter) -> Result<Option<u64>, DelegateError> {
        self.faults.lateness().await;
        self.inner.count(filter).await
    }

    async fn bounds(&mut self) -> Result<Option<Rect>, DelegateError> {
        self.inner.bounds().await
    }
}
