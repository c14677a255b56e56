//! A log whose appends are late, fail before or after their effect, come when nobody waits for them any more, or mingle with
//! those of others, and whose tails lag and break off at any record.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use alluvium::log::{Batch, FeatureLog, LogError, LogTail, NewRecord};
use alluvium::model::{Offset, PartitionId};
use async_trait::async_trait;
use parking_lot::Mutex;
use rand::RngExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::{Fate, Faults, Part};
use crate::oracle::Logs;
use crate::plan::Broken;

/// What all instances share of it.
pub struct SharedLog<L> {
    pub inner: L,
    pub logs: Arc<Mutex<Logs>>,
    pub start: Instant,
    pub max_value_bytes: usize,
    pub broken: Option<Broken>,
    /// An append that waits for another to mingle with.
    pub waiting: Mutex<Option<Waiting>>,
}

/// Records, each with the number of its append.
type Numbered = Vec<(usize, NewRecord)>;

pub struct Waiting {
    records: Numbered,
    answer: oneshot::Sender<Result<Vec<Offset>, LogError>>,
}

pub struct FaultyLog<L> {
    pub shared: Arc<SharedLog<L>>,
    pub faults: Arc<Faults>,
}

impl<L> Clone for FaultyLog<L> {
    fn clone(&self) -> Self {
        FaultyLog { shared: self.shared.clone(), faults: self.faults.clone() }
    }
}

impl<L: FeatureLog> SharedLog<L> {
    async fn append(&self, mut records: Numbered) -> Result<Vec<Offset>, LogError> {
        let asked = records.len();
        match self.broken {
            Some(Broken::LogForgets) if asked == 1 && !records[0].1.key.is_empty() => {
                let (_, place) = &records[0];
                return Ok(vec![self.inner.range(&place.log, place.partition).await?.end.saturating_sub(1)]);
            }
            Some(Broken::LogTears) if asked > 1 => records.truncate(asked / 2),
            _ => {}
        }
        let mut offsets = self.inner.append(records.iter().map(|(_, r)| r.clone()).collect()).await?;
        let mut logs = self.logs.lock();
        let at_ms = self.start.elapsed().as_millis() as u64;
        for ((append, record), offset) in records.iter().zip(&offsets) {
            logs.take(*append, at_ms, record, *offset);
        }
        offsets.resize(asked, offsets[0]);
        Ok(offsets)
    }
}

impl<L: FeatureLog> FaultyLog<L> {
    /// With another append that waits, record by record; or as one that waits for a while; or alone.
    async fn mingle(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, LogError> {
        let append = self.shared.logs.lock().begin(records.len());
        let records: Numbered = records.into_iter().map(|r| (append, r)).collect();
        let other = self.shared.waiting.lock().take();
        if let Some(other) = other {
            return self.append_both(records, other).await;
        }
        if !self.faults.happens(self.faults.rates.mingled) {
            return self.shared.append(records).await;
        }
        let (answer, mut answered) = oneshot::channel();
        *self.shared.waiting.lock() = Some(Waiting { records, answer });
        match timeout(self.faults.some_ms(10..400), &mut answered).await {
            Ok(offsets) => offsets.unwrap_or_else(|_| Err(LogError::OutcomeUnknown("the other went away".into()))),
            Err(_) => {
                let mine = self.shared.waiting.lock().take_if(|w| w.records[0].0 == append);
                match mine {
                    Some(mine) => self.shared.append(mine.records).await,
                    None => Err(LogError::OutcomeUnknown("taken up by another append".into())),
                }
            }
        }
    }

    async fn append_both(&self, mine: Numbered, other: Waiting) -> Result<Vec<Offset>, LogError> {
        let (mut mine, mut others) = (VecDeque::from(mine), VecDeque::from(other.records));
        let (mut records, mut is_mine) = (Vec::new(), Vec::new());
        while !mine.is_empty() || !others.is_empty() {
            let first = others.is_empty() || (!mine.is_empty() && self.faults.rng.lock().random_bool(0.5));
            records.extend(if first { mine.pop_front() } else { others.pop_front() });
            is_mine.push(first);
        }
        let outcome = self.shared.append(records).await;
        let of = |whose: bool| {
            let offsets = outcome.as_ref().map_err(Clone::clone)?;
            Ok(offsets.iter().zip(&is_mine).filter(|(_, m)| **m == whose).map(|(o, _)| *o).collect())
        };
        // Nobody waits for the answer any more when the other's instance has crashed.
        let _ = other.answer.send(of(false));
        of(true)
    }

    /// The records come to the log when nobody waits for them any more.
    fn append_later(&self, records: Vec<NewRecord>) {
        let (log, after) = (self.clone(), self.faults.some_ms(0..6_000));
        tokio::spawn(async move {
            sleep(after).await;
            log.mingle(records).await
        });
    }

    fn before(&self) -> Result<(), LogError> {
        match self.faults.fate(Part::Log) {
            Fate::FailsBefore => Err(LogError::Unavailable("a fault before".into())),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl<L: FeatureLog> FeatureLog for FaultyLog<L> {
    async fn create(&self, name: &str, partitions: u32) -> Result<(), LogError> {
        self.shared.inner.create(name, partitions).await
    }

    async fn remove(&self, name: &str) -> Result<(), LogError> {
        self.shared.inner.remove(name).await
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, LogError> {
        self.faults.lateness().await;
        if self.faults.is_lost() {
            return Err(LogError::OutcomeUnknown("the instance is no more".into()));
        }
        match self.faults.fate(Part::Log) {
            Fate::FailsBefore => Err(LogError::Unavailable("a fault before".into())),
            Fate::FailsAfter => {
                if self.faults.rng.lock().random_bool(0.5) {
                    self.append_later(records);
                } else {
                    self.mingle(records).await?;
                    self.faults.lateness().await;
                }
                Err(LogError::OutcomeUnknown("a fault after".into()))
            }
            Fate::Fine => {
                let offsets = self.mingle(records).await?;
                self.faults.lateness().await;
                Ok(offsets)
            }
        }
    }

    async fn range(&self, name: &str, partition: PartitionId) -> Result<Range<Offset>, LogError> {
        self.faults.lateness().await;
        self.before()?;
        self.shared.inner.range(name, partition).await
    }

    async fn tail(&self, name: &str, partition: PartitionId, from: Offset) -> Result<Box<dyn LogTail>, LogError> {
        self.before()?;
        let inner = self.shared.inner.tail(name, partition, from).await?;
        Ok(Box::new(FaultyTail { inner, held: None, faults: self.faults.clone() }))
    }

    async fn cut(&self, name: &str, partition: PartitionId, before: Offset) -> Result<(), LogError> {
        self.faults.lateness().await;
        self.before()?;
        self.shared.inner.cut(name, partition, before).await?;
        match self.faults.fate(Part::Log) {
            Fate::FailsAfter => Err(LogError::OutcomeUnknown("a fault after".into())),
            _ => Ok(()),
        }
    }

    fn max_value_bytes(&self) -> usize {
        self.shared.max_value_bytes
    }
}

/// Lags: an instance far behind the others is the hard case. Tears batches into pieces of any size, so that reads and failures
/// fall between.
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
        let rates = &self.faults.rates;
        self.faults.late(rates.late, rates.lagging_tail / 4).await;
        if matches!(self.faults.fate(Part::Log), Fate::FailsBefore) {
            return Err(LogError::Unavailable("the tail was cut off".into()));
        }
        let Some(mut batch) = self.held.take() else { return Ok(Batch::default()) };
        let n = self.faults.rng.lock().random_range(1..=batch.records.len().clamp(1, 4));
        if batch.records.len() > n {
            let rest = batch.records.split_off(n);
            let piece = Batch { next: rest[0].offset, records: batch.records };
            self.held = Some(Batch { records: rest, next: batch.next });
            return Ok(piece);
        }
        Ok(batch)
    }
}
