//! SEAM: the feature type's ordered record of changes. A Kafka topic (clustered) or a durable local log (embedded).
//!
//! The log carries bytes and knows nothing of features: `format::record` says what they mean. It owns order, durability and
//! the append time; it does not own positions of readers.
//!
//! Contract, checked on every implementation by `tests/it/log.rs`:
//! - Offsets of a partition rise; gaps are normal. Progress is `Batch::next`, never the last record's offset plus one.
//! - [`FeatureLog::append`] is all or nothing, over all its logs and partitions, after any crash, and keeps the order of
//!   its records within a partition. When it returns, the records are durable.
//! - `append_time_ms` is the log's own clock and never a writer's; a reader takes its running maximum.
//! - A tail sees only what is committed, in order, each record once, and waits at the end.

pub mod embedded;
#[cfg(feature = "cluster")]
pub mod kafka;
pub mod memory;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::model::{Offset, PartitionId};

/// A record to append.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// The log's name. One append may write to several logs: a transaction over several feature types.
    pub log: Arc<str>,
    pub partition: PartitionId,
    /// The feature id of a single change; empty for envelopes and markers. An empty key is read back as none.
    pub key: Bytes,
    pub value: Bytes,
}

/// A record as it was read. Key and value share the memory of what was read with them: copy what is kept for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    pub offset: Offset,
    /// Milliseconds since the epoch, by the log's clock.
    pub append_time_ms: i64,
    pub key: Option<Bytes>,
    /// `None`: a foreign producer's tombstone.
    pub value: Option<Bytes>,
}

/// What a tail read at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub records: Vec<LogRecord>,
    /// The tail's position after this batch: everything before it has been delivered.
    pub next: Offset,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// Nothing was appended.
    #[error("the log is not available: {0}")]
    Unavailable(String),
    /// The records may or may not have been appended.
    #[error("the log did not answer in time, the outcome is unknown: {0}")]
    OutcomeUnknown(String),
    #[error("there is no log '{0}'")]
    NotFound(String),
    #[error("a record is too large for the log: {bytes} bytes, at most {limit}")]
    TooLarge { bytes: usize, limit: usize },
    /// The log no longer has what was asked, or is not the one it was. Never repaired silently.
    #[error("the log '{log}' does not go with the store: {what}")]
    Mismatch { log: String, what: String },
}

#[async_trait]
pub trait FeatureLog: Send + Sync + 'static {
    /// Makes the log `name` with this many partitions; one that exists with as many is left as it is. A different number
    /// of partitions, retention or compaction that would lose records is a `Mismatch`.
    async fn create(&self, name: &str, partitions: u32) -> Result<(), LogError>;

    /// Removes the log; one that is not there is no error.
    async fn remove(&self, name: &str) -> Result<(), LogError>;

    /// Appends durably, all or nothing. Gives each record's offset, in order. Cancelling leaves it open whether the
    /// records are appended, and disturbs no other append.
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, LogError>;

    /// First offset that is still there, and the end: the offset that the next committed record will have at least.
    async fn range(&self, name: &str, partition: PartitionId) -> Result<Range<Offset>, LogError>;

    /// Reads on from `from`. A `from` before the first offset that is still there, or beyond the end, is a `Mismatch`.
    async fn tail(&self, name: &str, partition: PartitionId, from: Offset) -> Result<Box<dyn LogTail>, LogError>;

    /// Forgets the records before `before`. Space is given back in time. A `before` beyond the end is a `Mismatch`.
    async fn cut(&self, name: &str, partition: PartitionId, before: Offset) -> Result<(), LogError>;

    /// Everything that the log has at one moment, which holds all that was appended before. `Unavailable` where the log is not
    /// in files of this instance.
    async fn backup(&self) -> Result<LogBackup, LogError> {
        Err(LogError::Unavailable("the log is backed up with tools of its own".to_owned()))
    }

    /// The largest value that one record may have, bytes.
    fn max_value_bytes(&self) -> usize;
}

/// A log on its way into a backup.
pub struct LogBackup {
    /// What it holds of each partition, at least, by the log's name.
    pub ranges: BTreeMap<String, Vec<Range<Offset>>>,
    /// Keys and values that mean something to the implementation that gave them; reading them waits for the disk.
    pub entries: Box<dyn Iterator<Item = std::io::Result<(Bytes, Bytes)>> + Send>,
}

#[async_trait]
pub trait LogTail: Send {
    /// Waits for records and gives what there is, a bounded amount at once. A batch without records only moves `next`.
    /// Cancelling loses nothing: the next call delivers what this one had not returned.
    async fn next(&mut self) -> Result<Batch, LogError>;
}

/// A tail delivers at most this much at once, more only when a single record is larger.
const BATCH_RECORDS: usize = 4096;
const BATCH_BYTES: usize = 1 << 20;

/// Refuses records that are larger than the log takes.
fn check_sizes(records: &[NewRecord], limit: usize) -> Result<(), LogError> {
    match records.iter().map(|r| r.value.len()).find(|bytes| *bytes > limit) {
        Some(bytes) => Err(LogError::TooLarge { bytes, limit }),
        None => Ok(()),
    }
}

/// Refuses to read or cut at an offset that the log does not have. `range` is what it has; its end is allowed.
fn check_offset(log: &str, partition: PartitionId, offset: Offset, range: &Range<Offset>) -> Result<(), LogError> {
    if offset >= range.start && offset <= range.end {
        return Ok(());
    }
    let what =
        format!("offset {offset} of partition {partition} was asked for, it has {} to {}", range.start, range.end);
    Err(LogError::Mismatch { log: log.to_owned(), what })
}

/// What to say of a partition that a log does not have.
fn no_partition(log: &str, partition: PartitionId) -> LogError {
    LogError::NotFound(format!("{log}, partition {partition}"))
}

/// What to say of a log that has another number of partitions than asked for.
fn wrong_partitions(log: &str, has: usize, asked: u32) -> LogError {
    LogError::Mismatch { log: log.to_owned(), what: format!("it has {has} partitions, not {asked}") }
}
