//! The one thread that writes.
//!
//! Owns the order of all that is written, the next offsets and the append times. Takes all that waits, puts the appends into
//! one batch of the journal, syncs it once, lets the readers see it, and only then answers.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use fjall::{Database, Keyspace, OwnedWriteBatch, PersistMode};
use tokio::sync::{mpsc, watch};

use super::chunk::{self, Chunks};
use super::{Command, Done, Log, Logs};
use crate::clock::Clock;
use crate::log::{LogError, NewRecord, check_offset, no_partition, wrong_partitions};
use crate::model::{Offset, PartitionId};

/// More have to wait before they are taken in.
pub const QUEUED_COMMANDS: usize = 1024;
/// A commit takes no further append once it has this much, so that the first of them does not wait for long.
const COMMIT_BYTES: usize = 8 << 20;

pub struct Committer {
    database: Database,
    store: Keyspace,
    logs: Arc<Logs>,
    clock: Arc<dyn Clock>,
    /// The last append times by log id and partition.
    times: HashMap<(u32, PartitionId), i64>,
    /// What the next commit writes.
    writing: BTreeMap<(u32, PartitionId), Writing>,
    writing_bytes: usize,
    /// Those who wait for it, and the offsets they get.
    waiting: Vec<(Done<Vec<Offset>>, Vec<Offset>)>,
    /// Set by the first write that fails: from then on nothing is written.
    failed: Option<String>,
}

struct Writing {
    chunks: Chunks,
    readable: watch::Sender<Range<Offset>>,
}

impl Committer {
    /// Finds the logs that there are, and deletes what was to be deleted before. Fills `logs`.
    pub fn recover(
        database: Database,
        store: Keyspace,
        logs: Arc<Logs>,
        clock: Arc<dyn Clock>,
    ) -> Result<Committer, String> {
        let mut times = HashMap::new();
        let mut firsts = HashMap::new();
        for (name, id, partitions) in chunk::logs(&store)? {
            let mut log = Log { id, partitions: Vec::new() };
            for partition in 0..partitions {
                let (end, append_time_ms) = chunk::tip(&store, id, partition)?;
                let first = chunk::first(&store, id, partition)?;
                times.insert((id, partition), append_time_ms);
                firsts.insert((id, partition), first);
                log.partitions.push(watch::Sender::new(first..end));
            }
            logs.write().insert(name, log);
        }
        chunk::forget_leftovers(&database, &store, |id, partition| firsts.get(&(id, partition)).copied())?;
        Ok(Committer {
            database,
            store,
            logs,
            clock,
            times,
            writing: BTreeMap::new(),
            writing_bytes: 0,
            waiting: Vec::new(),
            failed: None,
        })
    }

    /// Works until the other end of `queue` is dropped and all of it is done.
    pub fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(first) = queue.blocking_recv() {
            self.take(first);
            while self.writing_bytes < COMMIT_BYTES
                && let Ok(next) = queue.try_recv()
            {
                self.take(next);
            }
            self.commit_appends();
        }
    }

    /// Gathers an append; anything else is done at once, after the appends before it.
    fn take(&mut self, command: Command) {
        if let Command::Append { records, done } = command {
            match self.gather(&records) {
                Ok(offsets) => self.waiting.push((done, offsets)),
                Err(e) => answer(done, Err(e)),
            }
            return;
        }
        self.commit_appends();
        match command {
            Command::Append { .. } => {}
            Command::Create { log, partitions, done } => answer(done, self.create(log, partitions)),
            Command::Remove { log, done } => answer(done, self.remove(&log)),
            Command::Cut { log, partition, before, done } => answer(done, self.cut(&log, partition, before)),
        }
    }

    /// Gives the records their offsets.
    fn gather(&mut self, records: &[NewRecord]) -> Result<Vec<Offset>, LogError> {
        self.check_working()?;
        let logs = self.logs.read();
        let find = |r: &NewRecord| {
            let log = logs.get(&*r.log).ok_or_else(|| LogError::NotFound(r.log.to_string()))?;
            let readable = log.partitions.get(r.partition as usize).ok_or_else(|| no_partition(&r.log, r.partition))?;
            Ok(((log.id, r.partition), readable))
        };
        let places = records.iter().map(find).collect::<Result<Vec<_>, LogError>>()?;
        let now_ms = self.clock.now_ms();
        let mut offsets = Vec::with_capacity(records.len());
        for (record, (place, readable)) in records.iter().zip(places) {
            let writing = self.writing.entry(place).or_insert_with(|| {
                let append_time_ms = now_ms.max(self.times.get(&place).copied().unwrap_or(0));
                Writing { chunks: Chunks::new(readable.borrow().end, append_time_ms), readable: readable.clone() }
            });
            offsets.push(writing.chunks.push(record));
            self.writing_bytes += record.key.len() + record.value.len();
        }
        Ok(offsets)
    }

    fn commit_appends(&mut self) {
        let mut batch = self.database.batch();
        let mut ends = Vec::with_capacity(self.writing.len());
        for ((id, partition), Writing { chunks, readable }) in std::mem::take(&mut self.writing) {
            self.times.insert((id, partition), chunks.append_time_ms());
            ends.push((readable, chunks.next));
            for (first, bytes) in chunks.into_chunks() {
                batch.insert(&self.store, chunk::chunk_key(id, partition, first), bytes);
            }
        }
        self.writing_bytes = 0;
        let committed = self.commit(batch);
        if committed.is_ok() {
            for (readable, end) in ends {
                readable.send_modify(|range| range.end = end);
            }
        }
        for (done, offsets) in std::mem::take(&mut self.waiting) {
            answer(done, committed.clone().map(|()| offsets).map_err(LogError::OutcomeUnknown));
        }
    }

    /// Writes and syncs, all or nothing. The error is what happened; the outcome is then unknown.
    fn commit(&mut self, batch: OwnedWriteBatch) -> Result<(), String> {
        batch.durability(Some(PersistMode::SyncAll)).commit().map_err(|e| {
            let what = e.to_string();
            tracing::error!(error = what, "writing the log failed; it takes no further writes until a restart");
            self.failed = Some(what.clone());
            what
        })
    }

    fn check_working(&self) -> Result<(), LogError> {
        match &self.failed {
            None => Ok(()),
            Some(what) => Err(LogError::Unavailable(format!("an earlier write failed: {what}"))),
        }
    }

    fn create(&mut self, name: String, partitions: u32) -> Result<(), LogError> {
        if let Some(log) = self.logs.read().get(&name) {
            let has = log.partitions.len();
            return if has == partitions as usize { Ok(()) } else { Err(wrong_partitions(&name, has, partitions)) };
        }
        self.check_working()?;
        let id = chunk::next_id(&self.store).map_err(LogError::Unavailable)?;
        let mut batch = self.database.batch();
        batch.insert(&self.store, chunk::log_key(&name), chunk::log_value(id, partitions));
        batch.insert(&self.store, chunk::NEXT_ID_KEY, (id + 1).to_be_bytes());
        self.commit(batch).map_err(LogError::OutcomeUnknown)?;
        let partitions = (0..partitions).map(|_| watch::Sender::new(0..0)).collect();
        self.logs.write().insert(name, Log { id, partitions });
        Ok(())
    }

    /// Gives the id, whose chunks may then be deleted.
    fn remove(&mut self, name: &str) -> Result<Option<u32>, LogError> {
        let mut batch = self.database.batch();
        let id = {
            let logs = self.logs.read();
            let Some(log) = logs.get(name) else { return Ok(None) };
            batch.remove(&self.store, chunk::log_key(name));
            for partition in 0..log.partitions.len() {
                batch.remove(&self.store, chunk::cut_key(log.id, partition as PartitionId));
            }
            log.id
        };
        self.check_working()?;
        self.commit(batch).map_err(LogError::OutcomeUnknown)?;
        self.logs.write().remove(name);
        self.times.retain(|(of, _), _| *of != id);
        Ok(Some(id))
    }

    /// Gives the log's id and what is gone, which may then be deleted.
    fn cut(&mut self, name: &str, partition: PartitionId, before: Offset) -> Result<(u32, Range<Offset>), LogError> {
        let (id, readable) = {
            let logs = self.logs.read();
            let log = logs.get(name).ok_or_else(|| LogError::NotFound(name.to_owned()))?;
            let readable = log.partitions.get(partition as usize).ok_or_else(|| no_partition(name, partition))?;
            (log.id, readable.clone())
        };
        let range = readable.borrow().clone();
        check_offset(name, partition, before, &(0..range.end))?;
        if before <= range.start {
            return Ok((id, before..before));
        }
        self.check_working()?;
        let mut batch = self.database.batch();
        batch.insert(&self.store, chunk::cut_key(id, partition), before.to_be_bytes());
        self.commit(batch).map_err(LogError::OutcomeUnknown)?;
        readable.send_modify(|r| r.start = before);
        Ok((id, range.start..before))
    }
}

/// Whoever asked may have gone away: what was done stays done.
fn answer<T>(done: Done<T>, result: Result<T, LogError>) {
    let _ = done.send(result);
}
