//! Reading a partition on.
//!
//! Each tail has a consumer and a thread of its own, which reads ahead by a few batches. The consumer belongs to no group:
//! it is assigned its one partition and reads what is committed.
//!
//! Invariant: `next` is the consumer's own position. It counts the markers that end transactions and what was aborted, which
//! are offsets without a record, so it reaches every end that `range` tells.
//!
//! The client is not trusted to come back by itself (see [`KafkaSettings::remind`]). A tail that stays behind what can be read
//! fails, and its owner begins a new one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::mpsc;

use super::client::{Context, KafkaSettings, UNKNOWN_ON_BROKER, UNKNOWN_PARTITION, UNKNOWN_TOPIC, code, unavailable};
use crate::log::{BATCH_BYTES, BATCH_RECORDS, Batch, LogError, LogRecord, LogTail};
use crate::model::{Offset, PartitionId};

/// Batches that wait to be taken.
const READ_AHEAD: usize = 2;
/// How long a dropped tail's thread may go on, and how late an offset without a record may be told.
const TICK: Duration = Duration::from_millis(100);
/// How often a reader to whom nothing comes asks where the log ends, and how long it may stay behind that.
const LOOK: Duration = Duration::from_secs(2);
const STUCK: Duration = Duration::from_secs(6);

pub struct KafkaTail {
    batches: mpsc::Receiver<Result<Batch, LogError>>,
    /// Why no more will come.
    ended: LogError,
}

/// Starts reading at `from`, which has to be there.
pub fn start(
    settings: &KafkaSettings,
    log: &str,
    topic: Arc<str>,
    partition: PartitionId,
    from: Offset,
) -> Result<KafkaTail, LogError> {
    let consumer: BaseConsumer<Context> =
        BaseConsumer::from_config_and_context(&settings.consumer(), Context::quiet()).map_err(unavailable)?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(&topic, partition as i32, KafkaOffset::Offset(from as i64)).map_err(unavailable)?;
    consumer.assign(&assignment).map_err(unavailable)?;
    let (sender, batches) = mpsc::channel(READ_AHEAD);
    let (settings, log) = (settings.clone(), log.to_owned());
    let (looked, behind, failure) = (Instant::now(), None, None);
    let reader = Reader { settings, log, topic, partition, consumer, next: from, failure, looked, behind };
    std::thread::Builder::new()
        .name("kafka-tail".to_owned())
        .spawn(move || reader.run(&sender))
        .map_err(unavailable)?;
    Ok(KafkaTail { batches, ended: LogError::Unavailable("the tail's reader has ended".to_owned()) })
}

#[async_trait]
impl LogTail for KafkaTail {
    async fn next(&mut self) -> Result<Batch, LogError> {
        let result = self.batches.recv().await.unwrap_or_else(|| Err(self.ended.clone()));
        if let Err(error) = &result {
            self.ended = error.clone();
        }
        result
    }
}

struct Reader {
    settings: KafkaSettings,
    log: String,
    topic: Arc<str>,
    partition: PartitionId,
    consumer: BaseConsumer<Context>,
    next: Offset,
    /// To be told once what was read before it is delivered.
    failure: Option<LogError>,
    /// When something came, or the log's end was asked for, and since when that is known to lie further on.
    looked: Instant,
    behind: Option<Instant>,
}

impl Reader {
    /// Reads until the tail is dropped, or can never go on.
    fn run(mut self, batches: &mpsc::Sender<Result<Batch, LogError>>) {
        while !batches.is_closed() {
            let batch = self.read();
            let result = if batch.next > self.next {
                self.next = batch.next;
                (self.looked, self.behind) = (Instant::now(), None);
                Ok(batch)
            } else if let Some(failure) = self.failure.take() {
                Err(failure)
            } else if self.is_stuck() {
                Err(unavailable(format!("nothing came of partition {} behind offset {}", self.partition, self.next)))
            } else {
                continue;
            };
            let over = matches!(result, Err(LogError::Mismatch { .. } | LogError::NotFound(_)));
            if batches.blocking_send(result).is_err() || over {
                return;
            }
        }
    }

    /// What there is, after waiting for a while.
    fn read(&mut self) -> Batch {
        let (mut records, mut bytes) = (Vec::new(), 0);
        let mut patience = TICK;
        while self.failure.is_none() && records.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
            match self.consumer.poll(patience) {
                Some(Ok(message)) => {
                    bytes += message.payload_len();
                    records.push(record(&message));
                    patience = Duration::ZERO;
                }
                Some(Err(error)) => self.failure = self.failure_of(&error),
                None => break,
            }
        }
        let next = self.position().max(records.last().map_or(self.next, |r: &LogRecord| r.offset + 1));
        Batch { records, next }
    }

    /// True when the broker, which answers, has had more to read for a while.
    fn is_stuck(&mut self) -> bool {
        if self.looked.elapsed() < LOOK {
            return false;
        }
        self.looked = Instant::now();
        // The end for readers of what is committed: an open transaction is none of ours.
        match self.consumer.fetch_watermarks(&self.topic, self.partition as i32, LOOK) {
            Ok((_, end)) if end as Offset > self.next => {
                self.behind.get_or_insert_with(Instant::now).elapsed() >= STUCK
            }
            Ok(_) => {
                self.behind = None;
                false
            }
            Err(_) => {
                self.settings.remind(self.consumer.client());
                false
            }
        }
    }

    /// Everything before it was handed out, or has no record. Zero as long as nothing was read.
    fn position(&self) -> Offset {
        let positions = self.consumer.position().ok();
        match positions.as_ref().and_then(|p| p.find_partition(&self.topic, self.partition as i32)).map(|p| p.offset())
        {
            Some(KafkaOffset::Offset(offset)) => offset as Offset,
            _ => 0,
        }
    }

    /// What a reader has to know of an error; the client itself tries on for as long as it makes sense.
    fn failure_of(&self, error: &KafkaError) -> Option<LogError> {
        match code(error) {
            RDKafkaErrorCode::AutoOffsetReset
            | RDKafkaErrorCode::OffsetOutOfRange
            | RDKafkaErrorCode::LogTruncation => {
                let what = format!("offset {} of partition {} is not there: {error}", self.next, self.partition);
                Some(LogError::Mismatch { log: self.log.clone(), what })
            }
            UNKNOWN_TOPIC | UNKNOWN_PARTITION | UNKNOWN_ON_BROKER => Some(LogError::NotFound(self.log.clone())),
            RDKafkaErrorCode::PartitionEOF
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::LeaderNotAvailable => None,
            _ => Some(unavailable(error)),
        }
    }
}

fn record(message: &BorrowedMessage<'_>) -> LogRecord {
    LogRecord {
        offset: message.offset() as Offset,
        append_time_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().filter(|k| !k.is_empty()).map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
    }
}
