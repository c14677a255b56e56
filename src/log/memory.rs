//! A log in memory: for simulation and tests, and the shortest statement of what a [`FeatureLog`] is.
//!
//! Owns the records of all its logs; clones share them, as instances share a broker. Runs no task and no thread of its own,
//! and takes the time from a [`Clock`], so that a run with the same schedule is the same run. It keeps nothing when dropped.
//!
//! Invariant: what a real log does to its readers, this one does too. Like Kafka's transactions, an append of several
//! records leaves one offset unused in each partition that it touches.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    BATCH_BYTES, BATCH_RECORDS, Batch, FeatureLog, LogError, LogRecord, LogTail, NewRecord, check_offset, check_sizes,
    no_partition, wrong_partitions,
};
use crate::clock::Clock;
use crate::model::{Offset, PartitionId};

const MAX_VALUE_BYTES: usize = 64 << 20;

#[derive(Clone)]
pub struct MemoryLog {
    clock: Arc<dyn Clock>,
    logs: Arc<Mutex<BTreeMap<String, Log>>>,
}

type Log = Vec<Arc<Cell>>;

/// A partition, and what its tails wait on. Not tokio's `watch`: that wakes those who wait in an order left to chance, and no
/// simulation could be replayed.
#[derive(Default)]
struct Cell {
    partition: Mutex<Partition>,
    /// Told when records have come, and when the log was cut or removed.
    changed: Notify,
}

#[derive(Default)]
struct Partition {
    removed: bool,
    records: Vec<LogRecord>,
    range: Range<Offset>,
    append_time_ms: i64,
}

impl Partition {
    fn append(&mut self, now_ms: i64, key: Bytes, value: Bytes) -> Offset {
        self.append_time_ms = self.append_time_ms.max(now_ms);
        let offset = self.range.end;
        let key = Some(key).filter(|k| !k.is_empty());
        self.records.push(LogRecord { offset, append_time_ms: self.append_time_ms, key, value: Some(value) });
        self.range.end += 1;
        offset
    }

    /// The first of the records at or after `offset`, as an index.
    fn find(&self, offset: Offset) -> usize {
        self.records.partition_point(|r| r.offset < offset)
    }

    fn batch(&self, from: Offset) -> Batch {
        let start = self.find(from);
        let mut bytes = 0;
        let records: Vec<LogRecord> = self.records[start..]
            .iter()
            .take(BATCH_RECORDS)
            .take_while(|r| {
                let before = bytes;
                bytes += r.value.as_ref().map_or(0, Bytes::len);
                before < BATCH_BYTES
            })
            .cloned()
            .collect();
        let next = self.records.get(start + records.len()).map_or(self.range.end, |r| r.offset);
        Batch { records, next }
    }
}

impl MemoryLog {
    pub fn new(clock: Arc<dyn Clock>) -> MemoryLog {
        MemoryLog { clock, logs: Arc::default() }
    }

    fn with_partition<T>(
        &self,
        name: &str,
        partition: PartitionId,
        act: impl FnOnce(&Arc<Cell>) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let logs = self.logs.lock();
        let log = logs.get(name).ok_or_else(|| LogError::NotFound(name.to_owned()))?;
        act(log.get(partition as usize).ok_or_else(|| no_partition(name, partition))?)
    }
}

#[async_trait]
impl FeatureLog for MemoryLog {
    async fn create(&self, name: &str, partitions: u32) -> Result<(), LogError> {
        let mut logs = self.logs.lock();
        let log = logs.entry(name.to_owned()).or_insert_with(|| (0..partitions).map(|_| Arc::default()).collect());
        if log.len() != partitions as usize {
            return Err(wrong_partitions(name, log.len(), partitions));
        }
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), LogError> {
        for cell in self.logs.lock().remove(name).unwrap_or_default() {
            cell.partition.lock().removed = true;
            cell.changed.notify_waiters();
        }
        Ok(())
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, LogError> {
        check_sizes(&records, MAX_VALUE_BYTES)?;
        let logs = self.logs.lock();
        let places: Vec<&Arc<Cell>> = records
            .iter()
            .map(|r| {
                let log = logs.get(&*r.log).ok_or_else(|| LogError::NotFound(r.log.to_string()))?;
                log.get(r.partition as usize).ok_or_else(|| no_partition(&r.log, r.partition))
            })
            .collect::<Result<_, _>>()?;
        let touched: BTreeSet<(Arc<str>, PartitionId)> = records.iter().map(|r| (r.log.clone(), r.partition)).collect();
        let transaction = records.len() > 1;
        let now_ms = self.clock.now_ms();
        let mut offsets = Vec::with_capacity(records.len());
        for (record, place) in records.into_iter().zip(places) {
            offsets.push(place.partition.lock().append(now_ms, record.key, record.value));
        }
        // The readers are woken once all is there.
        for (log, partition) in touched {
            let cell = &logs[&*log][partition as usize];
            cell.partition.lock().range.end += Offset::from(transaction);
            cell.changed.notify_waiters();
        }
        Ok(offsets)
    }

    async fn range(&self, name: &str, partition: PartitionId) -> Result<Range<Offset>, LogError> {
        self.with_partition(name, partition, |cell| Ok(cell.partition.lock().range.clone()))
    }

    async fn tail(&self, name: &str, partition: PartitionId, from: Offset) -> Result<Box<dyn LogTail>, LogError> {
        self.with_partition(name, partition, |cell| {
            check_offset(name, partition, from, &cell.partition.lock().range)?;
            let tail = MemoryTail { log: name.to_owned(), partition, cell: cell.clone(), next: from };
            Ok(Box::new(tail) as Box<dyn LogTail>)
        })
    }

    async fn cut(&self, name: &str, partition: PartitionId, before: Offset) -> Result<(), LogError> {
        self.with_partition(name, partition, |cell| {
            let mut p = cell.partition.lock();
            check_offset(name, partition, before, &(0..p.range.end))?;
            let gone = p.find(before);
            p.records.drain(..gone);
            p.range.start = p.range.start.max(before);
            cell.changed.notify_waiters();
            Ok(())
        })
    }

    fn max_value_bytes(&self) -> usize {
        MAX_VALUE_BYTES
    }
}

struct MemoryTail {
    log: String,
    partition: PartitionId,
    cell: Arc<Cell>,
    next: Offset,
}

#[async_trait]
impl LogTail for MemoryTail {
    async fn next(&mut self) -> Result<Batch, LogError> {
        loop {
            let mut changed = pin!(self.cell.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            {
                let partition = self.cell.partition.lock();
                if partition.removed {
                    return Err(LogError::NotFound(self.log.clone()));
                }
                check_offset(&self.log, self.partition, self.next, &partition.range)?;
                if self.next < partition.range.end {
                    let batch = partition.batch(self.next);
                    self.next = batch.next;
                    return Ok(batch);
                }
            }
            changed.await;
        }
    }
}
