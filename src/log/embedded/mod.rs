//! The durable local log: one directory, one process, fsync before every answer.
//!
//! Owns the directory, the thread that writes it, and what waits at the ends of its partitions. [`chunk`] owns what the bytes
//! in it mean, [`committer`] the only hand that writes. The storage engine below (fjall) owns journal, recovery and space.
//!
//! Invariants:
//! - An append is answered after the fsync of the one journal batch that holds all of it. Those that wait at the same time
//!   share a batch.
//! - Offsets have no gaps, and none is used twice, also after everything was cut.
//! - A reader sees an end only once everything before it is synced.
//! - After a failed write or sync nothing is written any more: what the disk then has is known only after a restart.

mod chunk;
mod committer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    BATCH_BYTES, BATCH_RECORDS, Batch, FeatureLog, LogBackup, LogError, LogTail, NewRecord, check_offset, check_sizes,
    no_partition,
};
use crate::clock::Clock;
use crate::model::{Offset, PartitionId};
use committer::{Committer, QUEUED_COMMANDS};

const MAX_VALUE_BYTES: usize = 64 << 20;

pub struct EmbeddedLog {
    logs: Arc<Logs>,
    database: Database,
    store: Keyspace,
    /// `None` only while dropping.
    commands: Option<mpsc::Sender<Command>>,
    committer: Option<JoinHandle<()>>,
}

/// The logs by name. Written by the committer alone.
type Logs = RwLock<BTreeMap<String, Log>>;

struct Log {
    /// Never given to another log.
    id: u32,
    /// What of each partition may be read. A tail waits on it, and learns that the log is gone when it is gone.
    partitions: Vec<watch::Sender<Range<Offset>>>,
}

/// What is asked of the committer. Each is answered once it is synced.
enum Command {
    Append { records: Vec<NewRecord>, done: Done<Vec<Offset>> },
    Create { log: String, partitions: u32, done: Done<()> },
    Remove { log: String, done: Done<Option<u32>> },
    Cut { log: String, partition: PartitionId, before: Offset, done: Done<(u32, Range<Offset>)> },
}

type Done<T> = oneshot::Sender<Result<T, LogError>>;

impl EmbeddedLog {
    /// Opens the log in directory `dir`, and makes it when there is none. Blocks while the journal is read. A second open
    /// of the same directory is refused for as long as the first, or one of its tails, lives.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<EmbeddedLog, LogError> {
        let unavailable = |e: String| LogError::Unavailable(format!("{}: {e}", dir.display()));
        let (database, store) = open_store(dir).map_err(|e| unavailable(e.to_string()))?;
        let logs = Arc::new(Logs::default());
        let committer =
            Committer::recover(database.clone(), store.clone(), logs.clone(), clock).map_err(unavailable)?;
        let (commands, queue) = mpsc::channel(QUEUED_COMMANDS);
        let committer = std::thread::Builder::new()
            .name("log-committer".to_owned())
            .spawn(move || committer.run(queue))
            .map_err(|e| unavailable(e.to_string()))?;
        Ok(EmbeddedLog { logs, database, store, commands: Some(commands), committer: Some(committer) })
    }

    /// Makes a log in directory `dir`, where there is none, of the entries of a backup. Blocks.
    pub fn restore(dir: &Path) -> Result<Restoring, LogError> {
        let (database, store) =
            open_store(dir).map_err(|e| LogError::Unavailable(format!("{}: {e}", dir.display())))?;
        Ok(Restoring { database, store })
    }

    /// What may be read of every partition.
    fn ranges(&self) -> BTreeMap<String, Vec<Range<Offset>>> {
        let of = |log: &Log| log.partitions.iter().map(|readable| readable.borrow().clone()).collect();
        self.logs.read().iter().map(|(name, log)| (name.clone(), of(log))).collect()
    }

    async fn ask<T>(&self, command: impl FnOnce(Done<T>) -> Command) -> Result<T, LogError> {
        let (done, answer) = oneshot::channel();
        let commands = self.commands.as_ref().ok_or_else(stopped)?;
        commands.send(command(done)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| LogError::OutcomeUnknown("the log's writer ended".to_owned()))?
    }

    fn with_partition<T>(
        &self,
        name: &str,
        partition: PartitionId,
        act: impl FnOnce(u32, &watch::Sender<Range<Offset>>) -> T,
    ) -> Result<T, LogError> {
        let logs = self.logs.read();
        let log = logs.get(name).ok_or_else(|| LogError::NotFound(name.to_owned()))?;
        let readable = log.partitions.get(partition as usize).ok_or_else(|| no_partition(name, partition))?;
        Ok(act(log.id, readable))
    }
}

fn open_store(dir: &Path) -> fjall::Result<(Database, Keyspace)> {
    let database = Database::builder(dir).open()?;
    let store = database.keyspace("log", KeyspaceCreateOptions::default)?;
    Ok((database, store))
}

/// A log that is being made of a backup.
pub struct Restoring {
    database: Database,
    store: Keyspace,
}

impl Restoring {
    pub fn add(&self, entries: Vec<(Bytes, Bytes)>) -> Result<(), LogError> {
        let mut batch = self.database.batch();
        for (key, value) in entries {
            batch.insert(&self.store, &*key, &*value);
        }
        batch.commit().map_err(|e| LogError::Unavailable(e.to_string()))
    }

    /// It is on the disk when this returns.
    pub fn finish(self) -> Result<(), LogError> {
        self.database.persist(PersistMode::SyncAll).map_err(|e| LogError::Unavailable(e.to_string()))
    }
}

impl Drop for EmbeddedLog {
    /// What was asked before is written; then the thread ends.
    fn drop(&mut self) {
        self.commands = None;
        if let Some(committer) = self.committer.take()
            && committer.join().is_err()
        {
            tracing::error!("the log's writer had panicked");
        }
    }
}

fn stopped() -> LogError {
    LogError::Unavailable("the log's writer has stopped".to_owned())
}

#[async_trait]
impl FeatureLog for EmbeddedLog {
    async fn create(&self, name: &str, partitions: u32) -> Result<(), LogError> {
        self.ask(|done| Command::Create { log: name.to_owned(), partitions, done }).await
    }

    async fn remove(&self, name: &str) -> Result<(), LogError> {
        let Some(id) = self.ask(|done| Command::Remove { log: name.to_owned(), done }).await? else { return Ok(()) };
        let (database, store) = (self.database.clone(), self.store.clone());
        blocking(move || chunk::forget_log(&database, &store, id)).await
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, LogError> {
        check_sizes(&records, MAX_VALUE_BYTES)?;
        self.ask(|done| Command::Append { records, done }).await
    }

    async fn range(&self, name: &str, partition: PartitionId) -> Result<Range<Offset>, LogError> {
        self.with_partition(name, partition, |_, readable| readable.borrow().clone())
    }

    async fn tail(&self, name: &str, partition: PartitionId, from: Offset) -> Result<Box<dyn LogTail>, LogError> {
        let (id, readable) = self.with_partition(name, partition, |id, readable| (id, readable.subscribe()))?;
        check_offset(name, partition, from, &readable.borrow())?;
        let store = self.store.clone();
        let seek = blocking(move || chunk::holding(&store, id, partition, from)).await?;
        let store = self.store.clone();
        Ok(Box::new(EmbeddedTail { store, log: name.to_owned(), id, partition, readable, seek, next: from }))
    }

    async fn cut(&self, name: &str, partition: PartitionId, before: Offset) -> Result<(), LogError> {
        let (id, gone) = self.ask(|done| Command::Cut { log: name.to_owned(), partition, before, done }).await?;
        let (database, store) = (self.database.clone(), self.store.clone());
        blocking(move || chunk::forget(&database, &store, id, partition, gone)).await
    }

    async fn backup(&self) -> Result<LogBackup, LogError> {
        // Ends from before and beginnings from after the moment of the snapshot, which holds more, never less.
        let before = self.ranges();
        let snapshot = self.database.snapshot();
        let mut ranges = self.ranges();
        ranges.retain(|name, _| before.contains_key(name));
        for (name, partitions) in &mut ranges {
            for (range, earlier) in partitions.iter_mut().zip(&before[name]) {
                range.end = earlier.end;
            }
        }
        let entries = snapshot.iter(&self.store).map(|item| {
            let (key, value) = item.into_inner().map_err(std::io::Error::other)?;
            Ok((Bytes::from_owner(key), Bytes::from_owner(value)))
        });
        Ok(LogBackup { ranges, entries: Box::new(entries) })
    }

    fn max_value_bytes(&self) -> usize {
        MAX_VALUE_BYTES
    }
}

struct EmbeddedTail {
    store: Keyspace,
    log: String,
    id: u32,
    partition: PartitionId,
    readable: watch::Receiver<Range<Offset>>,
    /// Where reading starts: the chunk that holds `next`, or will.
    seek: Offset,
    next: Offset,
}

#[async_trait]
impl LogTail for EmbeddedTail {
    async fn next(&mut self) -> Result<Batch, LogError> {
        let end = loop {
            let range = self.readable.borrow_and_update().clone();
            check_offset(&self.log, self.partition, self.next, &range)?;
            if self.next < range.end {
                break range.end;
            }
            self.readable.changed().await.map_err(|_| LogError::NotFound(self.log.clone()))?;
        };
        let (store, id, partition) = (self.store.clone(), self.id, self.partition);
        let (seek, from) = (self.seek, self.next);
        let records = blocking(move || chunk::read(&store, id, partition, seek, from, end)).await?;
        // A cut that overtook the reading may have taken what was to be read.
        let first = records.first().map(|r| r.offset);
        if first != Some(from) {
            check_offset(&self.log, self.partition, from, &self.readable.borrow())?;
            let what = format!("offset {from} of partition {partition} is missing, the next is {first:?}");
            return Err(LogError::Mismatch { log: self.log.clone(), what });
        }
        self.next = from + records.len() as Offset;
        self.seek = self.next;
        Ok(Batch { records, next: self.next })
    }
}

/// Reads from the disk away from the threads that serve requests.
async fn blocking<T: Send + 'static>(read: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result.map_err(LogError::Unavailable),
        Err(e) => Err(LogError::Unavailable(e.to_string())),
    }
}
