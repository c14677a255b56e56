//! A log in memory: for simulation and tests, and the shortest statement of what a [`FeatureLog`] is.
//!
//! Owns the records of all its logs; clones share them, as instances share a broker. Runs no task and no thread of its own,
//! and takes the time from a [`Clock`], so that a run with the same schedule is the same run. It keeps nothing when dropped.
//!
//! Invariant: what a real log does to its readers, this one does too. Like Kafka's transactions, an append of several
//! records leaves one offset unused in each partition that it touches.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

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

/// One cell per partition. A tail waits on its cell, and learns that the log was removed when the cell is gone.
type Log = Vec<watch::Sender<Partition>>;

#[derive(Default)]
struct Partition {
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
        act: impl FnOnce(&watch::Sender<Partition>) -> Result<T, LogError>,
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
        let log = logs
            .entry(name.to_owned())
            .or_insert_with(|| (0..partitions).map(|_| watch::Sender::new(Partition::default())).collect());
        if log.len() != partitions as usize {
            return Err(wrong_partitions(name, log.len(), partitions));
        }
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), LogError> {
        self.logs.lock().remove(name);
        Ok(())
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, LogError> {
        check_sizes(&records, MAX_VALUE_BYTES)?;
        let logs = self.logs.lock();
        let places: Vec<&watch::Sender<Partition>> = records
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
            place.send_if_modified(|p| {
                offsets.push(p.append(now_ms, record.key, record.value));
                false // the readers are woken below, once all is there
            });
        }
        for (log, partition) in touched {
            logs[&*log][partition as usize].send_modify(|p| p.range.end += Offset::from(transaction));
        }
        Ok(offsets)
    }

    async fn range(&self, name: &str, partition: PartitionId) -> Result<Range<Offset>, LogError> {
        self.with_partition(name, partition, |p| Ok(p.borrow().range.clone()))
    }

    async fn tail(&self, name: &str, partition: PartitionId, from: Offset) -> Result<Box<dyn LogTail>, LogError> {
        self.with_partition(name, partition, |p| {
            check_offset(name, partition, from, &p.borrow().range)?;
            let tail = MemoryTail { log: name.to_owned(), partition, cell: p.subscribe(), next: from };
            Ok(Box::new(tail) as Box<dyn LogTail>)
        })
    }

    async fn cut(&self, name: &str, partition: PartitionId, before: Offset) -> Result<(), LogError> {
        self.with_partition(name, partition, |p| {
            check_offset(name, partition, before, &(0..p.borrow().range.end))?;
            p.send_modify(|p| {
                p.records.drain(..p.find(before));
                p.range.start = p.range.start.max(before);
            });
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
    cell: watch::Receiver<Partition>,
    next: Offset,
}

#[async_trait]
impl LogTail for MemoryTail {
    async fn next(&mut self) -> Result<Batch, LogError> {
        loop {
            {
                let partition = self.cell.borrow_and_update();
                check_offset(&self.log, self.partition, self.next, &partition.range)?;
                if self.next < partition.range.end {
                    let batch = partition.batch(self.next);
                    self.next = batch.next;
                    return Ok(batch);
                }
            }
            self.cell.changed().await.map_err(|_| LogError::NotFound(self.log.clone()))?;
        }
    }
}
