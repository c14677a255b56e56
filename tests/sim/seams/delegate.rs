//! A delegate that is late, that fails before or after its effect, whose commits come when their sweeper is long gone, and
//! whose rows come one by one, or break off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use alluvium::delegate::dead_letter::DeadLetter;
use alluvium::delegate::memory::MemoryDelegate;
use alluvium::delegate::{
    Base, Bases, Delegate, DelegateError, PersistBatch, PersistEntry, Persisting, Refused, Row, Rows, Scan, Snapshot,
};
use alluvium::model::{FeatureId, FeatureType, Offset, PartitionId, Rect, Watermark, partition_of};
use alluvium::query::Filter;
use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Fate, Faults, Part};
use crate::clients::FEW;
use crate::oracle::Logs;
use crate::plan::Broken;
use crate::recorded::{Commit, Events};

/// What all instances share of it.
pub struct SharedDelegate {
    pub inner: MemoryDelegate,
    pub logs: Arc<Mutex<Logs>>,
    pub events: Arc<Mutex<Events>>,
    pub start: Instant,
    /// See [`crate::plan::Plan::refuses`]; until somebody mends the tables.
    pub refuses: AtomicBool,
    pub broken: Option<Broken>,
}

pub struct FaultyDelegate {
    pub shared: Arc<SharedDelegate>,
    pub faults: Arc<Faults>,
}

impl SharedDelegate {
    /// Commits, and writes down what there is then, in one step.
    async fn commit(&self, ft: &FeatureType, batch: PersistBatch) -> Result<Persisting, DelegateError> {
        let partition = batch.partition;
        let before = self.inner.watermarks(ft).await?[partition as usize];
        let mut as_table = ft.clone();
        as_table.properties[FEW].nullable = !self.refuses.load(Ordering::Relaxed);
        let is_refused =
            |e: &PersistEntry| e.feature.as_ref().is_some_and(|f| as_table.check(&mut (**f).clone()).is_err());
        if self.broken == Some(Broken::RefusedStopsAll) && batch.entries.iter().any(is_refused) {
            return Err(DelegateError::Unavailable("a row was refused".into()));
        }
        let outcome = self.inner.persist(&as_table, batch).await?;
        if matches!(outcome, Persisting::Committed { .. }) {
            let ids: Vec<FeatureId> =
                self.logs.lock().of(&ft.name).states.keys().map(|id| id.as_str().into()).collect();
            let ids: Vec<FeatureId> =
                ids.into_iter().filter(|id| partition_of(id, ft.partitions) == partition).collect();
            let loaded = self.inner.load(ft, &ids).await?;
            let as_last = |base| match base {
                Base::Row(row) => {
                    let feature = self.logs.lock().of(&ft.name).as_last(&row.feature);
                    Base::Row(Row { feature: Arc::new(feature), ..row })
                }
                deleted => deleted,
            };
            let known = ids.iter().zip(loaded.bases);
            let known = known.filter_map(|(id, base)| Some((id.to_string(), as_last(base?)))).collect();
            let refused = self.inner.refused(ft).await?.into_iter().map(|r| (r.entry.id.to_string(), r.entry.version));
            self.events.lock().commits.push(Commit {
                at_ms: self.start.elapsed().as_millis() as u64,
                feature_type: ft.name.clone(),
                partition,
                before,
                after: loaded.watermarks[partition as usize],
                known,
                refused: refused.collect(),
            });
        }
        Ok(outcome)
    }
}

impl FaultyDelegate {
    async fn before(&self) -> Result<(), DelegateError> {
        self.faults.lateness().await;
        match self.faults.fate(Part::Delegate) {
            Fate::FailsBefore => Err(DelegateError::Unavailable("a fault before".into())),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Delegate for FaultyDelegate {
    fn kind(&self) -> &'static str {
        self.shared.inner.kind()
    }

    async fn catalogue(&self) -> Result<(u64, Vec<FeatureType>), DelegateError> {
        self.before().await?;
        self.shared.inner.catalogue().await
    }

    async fn create(&self, feature_type: &FeatureType) -> Result<(), DelegateError> {
        self.shared.inner.create(feature_type).await
    }

    async fn alter(&self, from: &FeatureType, to: &FeatureType) -> Result<bool, DelegateError> {
        self.before().await?;
        let altered = self.shared.inner.alter(from, to).await;
        self.faults.lateness().await;
        match self.faults.fate(Part::Delegate) {
            Fate::FailsAfter => Err(DelegateError::Unavailable("a fault after".into())),
            _ => altered,
        }
    }

    async fn remove(&self, name: &str, purge: bool) -> Result<(), DelegateError> {
        self.shared.inner.remove(name, purge).await
    }

    async fn stored_queries(&self) -> Result<BTreeMap<String, String>, DelegateError> {
        self.shared.inner.stored_queries().await
    }

    async fn keep_stored_queries(&self, queries: &[(String, String)]) -> Result<Option<String>, DelegateError> {
        self.shared.inner.keep_stored_queries(queries).await
    }

    async fn drop_stored_query(&self, id: &str) -> Result<bool, DelegateError> {
        self.shared.inner.drop_stored_query(id).await
    }

    async fn watermarks(&self, feature_type: &FeatureType) -> Result<Vec<Watermark>, DelegateError> {
        self.before().await?;
        self.shared.inner.watermarks(feature_type).await
    }

    /// The commit may be very late: then the caller's instance may be gone, but the commit still happens.
    async fn persist(&self, feature_type: &FeatureType, batch: PersistBatch) -> Result<Persisting, DelegateError> {
        self.before().await?;
        let (shared, faults, ft) = (self.shared.clone(), self.faults.clone(), feature_type.clone());
        let commit = tokio::spawn(async move {
            if faults.happens(faults.rates.late_commit) {
                tokio::time::sleep(faults.some_ms(500..12_000)).await;
            }
            if faults.is_lost() {
                return Err(DelegateError::Unavailable("the instance is no more".into()));
            }
            let outcome = shared.commit(&ft, batch).await?;
            faults.lateness().await;
            match faults.fate(Part::Delegate) {
                Fate::FailsAfter => Err(DelegateError::Unavailable("a fault after".into())),
                _ => Ok(outcome),
            }
        });
        commit.await.unwrap_or_else(|e| Err(DelegateError::Unavailable(e.to_string())))
    }

    async fn fold(
        &self,
        feature_type: &FeatureType,
        partition: PartitionId,
        before: Offset,
    ) -> Result<usize, DelegateError> {
        self.before().await?;
        let folded = self.shared.inner.fold(feature_type, partition, before).await;
        self.faults.lateness().await;
        match self.faults.fate(Part::Delegate) {
            Fate::FailsAfter => Err(DelegateError::Unavailable("a fault after".into())),
            _ => folded,
        }
    }

    async fn refused(&self, feature_type: &FeatureType) -> Result<Vec<Refused>, DelegateError> {
        self.before().await?;
        self.shared.inner.refused(feature_type).await
    }

    async fn keep_dead_letters(
        &self,
        feature_type: &FeatureType,
        letters: Vec<DeadLetter>,
    ) -> Result<(), DelegateError> {
        self.before().await?;
        self.shared.inner.keep_dead_letters(feature_type, letters).await
    }

    async fn dead_letters(&self, feature_type: &FeatureType) -> Result<Vec<DeadLetter>, DelegateError> {
        self.before().await?;
        self.shared.inner.dead_letters(feature_type).await
    }

    async fn load(&self, feature_type: &FeatureType, ids: &[FeatureId]) -> Result<Bases, DelegateError> {
        self.before().await?;
        let bases = self.shared.inner.load(feature_type, ids).await;
        self.faults.lateness().await;
        bases
    }

    async fn snapshot(&self, feature_type: &Arc<FeatureType>) -> Result<Box<dyn Snapshot>, DelegateError> {
        self.before().await?;
        let inner = self.shared.inner.snapshot(feature_type).await?;
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
                faults.late(faults.rates.late, faults.rates.late_row).await;
                match faults.fate(Part::Delegate) {
                    Fate::FailsBefore => Err(DelegateError::Unavailable("the rows break off".into())),
                    _ => row,
                }
            }
        });
        Ok(late.boxed())
    }

    async fn count(&mut self, filter: &Filter) -> Result<Option<u64>, DelegateError> {
        self.faults.lateness().await;
        // A delegate may say that it cannot tell: then its rows are counted.
        if self.faults.happens(300) { Ok(None) } else { self.inner.count(filter).await }
    }

    async fn bounds(&mut self) -> Result<Option<Rect>, DelegateError> {
        self.inner.bounds().await
    }
}
