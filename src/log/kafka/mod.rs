//! The log in Kafka: a topic per log.
//!
//! Owns the topics, with the settings without which they would lose records, and the clients: [`transaction`] appends
//! several records at once, [`single`] one, which is quicker without a transaction and holds up no reader, [`tail`] reads.
//!
//! Invariants:
//! - Durable means what `acks=all` means with the topic's replication and `min.insync.replicas`: Kafka does not fsync.
//! - Readers see what is committed, and no further than the first transaction that is still open. The end that
//!   [`FeatureLog::range`] tells counts open transactions too, so everything acknowledged is before it; a tail reaches it as
//!   soon as they have ended, for ours within seconds.
//! - Every call ends within a multiple of [`PATIENCE`]; a tail waits for the broker for as long as it takes.
//! - The log's own number of partitions decides where a record goes; Kafka's partitioner has no say.

mod client;
mod single;
mod tail;
mod transaction;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::RwLock;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::Client;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};

use super::{FeatureLog, LogError, LogTail, NewRecord, check_offset, check_sizes, no_partition, wrong_partitions};
use crate::model::{Offset, PartitionId};
pub use client::KafkaSettings;
use client::{
    Context, MAX_MESSAGE_BYTES, MAX_VALUE_BYTES, PATIENCE, UNKNOWN_ON_BROKER, UNKNOWN_TOPIC, blocking, code,
    is_unknown, unavailable,
};
use single::SingleAppends;

/// What a topic must have for nothing to get lost, as it is made and as it is checked.
const TOPIC_SETTINGS: [(&str, &str); 4] = [
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("cleanup.policy", "delete"),
    ("message.timestamp.type", "LogAppendTime"),
];
/// How long to wait for a broker to answer whether it is there.
const REACH: Duration = Duration::from_secs(3);
/// How often to ask whether a change of topics has arrived.
const TICK: Duration = Duration::from_millis(20);

pub struct KafkaLog {
    settings: KafkaSettings,
    admin: Arc<AdminClient<Context>>,
    single: SingleAppends,
    transactions: mpsc::Sender<transaction::Append>,
    /// The logs that this instance has seen, by name. One that another instance removed may still be here.
    known: RwLock<HashMap<String, Known>>,
}

#[derive(Clone)]
struct Known {
    topic: Arc<str>,
    partitions: u32,
}

impl KafkaLog {
    /// Sets up the clients, and makes sure that a broker answers.
    pub async fn connect(settings: KafkaSettings) -> Result<KafkaLog, LogError> {
        let log = KafkaLog::new(settings)?;
        log.reach().await?;
        Ok(log)
    }

    /// Sets up the clients, which connect by themselves. An error is one of the settings.
    pub fn new(settings: KafkaSettings) -> Result<KafkaLog, LogError> {
        let admin = AdminClient::from_config_and_context(&settings.admin(), Context::default()).map_err(unavailable)?;
        let single = SingleAppends::new(settings.clone())?;
        let id = format!("{}{}", settings.topic_prefix, uuid::Uuid::now_v7().simple());
        let transactions = transaction::start(settings.clone(), id).map_err(unavailable)?;
        Ok(KafkaLog { settings, admin: Arc::new(admin), single, transactions, known: RwLock::default() })
    }

    /// Makes sure that a broker answers.
    pub async fn reach(&self) -> Result<(), LogError> {
        let asked = self.ask(|client| client.fetch_metadata(None, REACH).map(|_| ()));
        asked.await.map_err(unavailable)
    }

    /// Asks the broker, away from the threads that serve requests.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Client<Context>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let admin = self.admin.clone();
        let answer = blocking(move || question(admin.inner())).await.map_err(|_| KafkaError::Canceled)?;
        match &answer {
            Ok(_) => self.admin.inner().context().reached(),
            Err(_) => self.settings.remind(self.admin.inner()),
        }
        answer
    }

    fn topic(&self, name: &str) -> Arc<str> {
        format!("{}{name}", self.settings.topic_prefix).into()
    }

    /// How many partitions the topic has; `None` when there is none.
    async fn partitions(&self, topic: &Arc<str>) -> Result<Option<u32>, LogError> {
        let topic = topic.clone();
        self.ask(move |client| {
            let metadata = client.fetch_metadata(Some(&topic), PATIENCE)?;
            let Some(found) = metadata.topics().iter().find(|t| *t.name() == *topic) else { return Ok(None) };
            match found.error().map(RDKafkaErrorCode::from) {
                None => Ok(Some(found.partitions().len() as u32)),
                Some(UNKNOWN_TOPIC | UNKNOWN_ON_BROKER) => Ok(None),
                Some(code) => Err(KafkaError::MetadataFetch(code)),
            }
        })
        .await
        .map_err(unavailable)
    }

    /// Where the records of a log go.
    async fn known(&self, name: &str, partition: PartitionId) -> Result<Arc<str>, LogError> {
        let seen = self.known.read().get(name).cloned();
        let known = match seen {
            Some(known) => known,
            None => {
                let topic = self.topic(name);
                let partitions = self.partitions(&topic).await?.ok_or_else(|| LogError::NotFound(name.to_owned()))?;
                self.known.write().entry(name.to_owned()).or_insert(Known { topic, partitions }).clone()
            }
        };
        if partition >= known.partitions {
            return Err(no_partition(name, partition));
        }
        Ok(known.topic)
    }

    /// What an append to `logs` that failed tells. They are looked up anew before the next one, since another instance may
    /// have removed one: its records would hold up the transactions of all others until they time out.
    fn failed(&self, logs: &[Arc<str>], error: LogError) -> LogError {
        self.known.write().retain(|name, _| !logs.iter().any(|log| **log == **name));
        let LogError::NotFound(topic) = &error else { return error };
        let name = topic.strip_prefix(&self.settings.topic_prefix).unwrap_or(topic);
        if logs.iter().any(|log| **log == *name) {
            return LogError::NotFound(name.to_owned());
        }
        // Another append in the same transaction met it.
        LogError::Unavailable(error.to_string())
    }

    /// Waits until the broker tells that the topic has this many partitions, or none.
    async fn await_partitions(&self, topic: &Arc<str>, partitions: Option<u32>) -> Result<(), LogError> {
        let deadline = Instant::now() + PATIENCE;
        while self.partitions(topic).await? != partitions {
            if Instant::now() > deadline {
                return Err(LogError::OutcomeUnknown(format!("topic {topic} does not become what it was asked to be")));
            }
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }

    /// Refuses a topic that would lose records.
    async fn check(&self, name: &str, topic: &Arc<str>, partitions: u32) -> Result<(), LogError> {
        match self.partitions(topic).await? {
            Some(has) if has != partitions => return Err(wrong_partitions(name, has as usize, partitions)),
            _ => {}
        }
        let described =
            self.admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options()).await.map_err(unavailable)?;
        let resource = described.into_iter().next().ok_or_else(|| LogError::NotFound(name.to_owned()))?;
        let resource = resource.map_err(unavailable)?;
        let has = |setting: &str| resource.get(setting).and_then(|e| e.value.clone()).unwrap_or_default();
        let mut wrong: Vec<String> = TOPIC_SETTINGS
            .iter()
            .filter(|(setting, value)| has(setting) != *value)
            .map(|(setting, value)| format!("{setting} is {:?} and must be {value:?}", has(setting)))
            .collect();
        if has("max.message.bytes").parse::<usize>().unwrap_or(0) < MAX_MESSAGE_BYTES {
            wrong.push(format!("max.message.bytes is {:?}, must be {MAX_MESSAGE_BYTES}", has("max.message.bytes")));
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(LogError::Mismatch { log: name.to_owned(), what: format!("topic {topic}: {}", wrong.join(", ")) })
    }

    async fn append_several(&self, records: Vec<(Arc<str>, NewRecord)>) -> Result<Vec<Offset>, LogError> {
        let (done, answer) = oneshot::channel();
        let stopped = |_| LogError::Unavailable("the transactions' thread has ended".to_owned());
        self.transactions.send(transaction::Append { records, done }).await.map_err(stopped)?;
        answer.await.unwrap_or_else(|_| Err(LogError::OutcomeUnknown("the transactions' thread has ended".to_owned())))
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

#[async_trait]
impl FeatureLog for KafkaLog {
    async fn create(&self, name: &str, partitions: u32) -> Result<(), LogError> {
        let topic = self.topic(name);
        let max_message_bytes = MAX_MESSAGE_BYTES.to_string();
        let mut new = NewTopic::new(&topic, partitions as i32, TopicReplication::Fixed(self.settings.replication))
            .set("max.message.bytes", &max_message_bytes);
        for (setting, value) in TOPIC_SETTINGS {
            new = new.set(setting, value);
        }
        let created = self.admin.create_topics(&[new], &options()).await.map_err(unavailable)?;
        match created.into_iter().next() {
            Some(Ok(_)) => self.await_partitions(&topic, Some(partitions)).await?,
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => self.check(name, &topic, partitions).await?,
            Some(Err((_, code))) => return Err(LogError::Unavailable(format!("topic {topic} cannot be made: {code}"))),
            None => return Err(LogError::OutcomeUnknown(format!("the broker said nothing of topic {topic}"))),
        }
        self.known.write().insert(name.to_owned(), Known { topic, partitions });
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), LogError> {
        let topic = self.topic(name);
        self.known.write().remove(name);
        let deleted = self.admin.delete_topics(&[&topic], &options()).await.map_err(unavailable)?;
        match deleted.into_iter().next() {
            Some(Err((_, UNKNOWN_TOPIC | UNKNOWN_ON_BROKER))) => Ok(()),
            Some(Err((_, code))) => Err(LogError::Unavailable(format!("topic {topic} cannot be deleted: {code}"))),
            _ => self.await_partitions(&topic, None).await,
        }
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, LogError> {
        check_sizes(&records, MAX_VALUE_BYTES)?;
        let logs: Vec<Arc<str>> = records.iter().map(|r| r.log.clone()).collect();
        let mut placed = Vec::with_capacity(records.len());
        for record in records {
            placed.push((self.known(&record.log, record.partition).await?, record));
        }
        let outcome = match placed.as_slice() {
            [] => Ok(Vec::new()),
            [(topic, record)] => self.single.append(topic, record).await.map(|offset| vec![offset]),
            _ => self.append_several(placed).await,
        };
        outcome.map_err(|error| self.failed(&logs, error))
    }

    async fn range(&self, name: &str, partition: PartitionId) -> Result<Range<Offset>, LogError> {
        let topic = self.known(name, partition).await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let topic = topic.clone();
            match self.ask(move |client| client.fetch_watermarks(&topic, partition as i32, PATIENCE)).await {
                Ok((first, end)) => return Ok(first as Offset..end as Offset),
                Err(error) if is_unknown(&error) => {
                    self.known.write().remove(name);
                    return Err(LogError::NotFound(name.to_owned()));
                }
                Err(error) if is_moving(&error) && Instant::now() < deadline => tokio::time::sleep(TICK).await,
                Err(error) => return Err(unavailable(error)),
            }
        }
    }

    async fn tail(&self, name: &str, partition: PartitionId, from: Offset) -> Result<Box<dyn LogTail>, LogError> {
        check_offset(name, partition, from, &self.range(name, partition).await?)?;
        let topic = self.known(name, partition).await?;
        let (settings, name) = (self.settings.clone(), name.to_owned());
        let tail = blocking(move || tail::start(&settings, &name, topic, partition, from)).await??;
        Ok(Box::new(tail))
    }

    async fn cut(&self, name: &str, partition: PartitionId, before: Offset) -> Result<(), LogError> {
        let range = self.range(name, partition).await?;
        check_offset(name, partition, before, &(0..range.end))?;
        if before <= range.start {
            return Ok(());
        }
        let topic = self.known(name, partition).await?;
        let cutting = {
            let mut to = TopicPartitionList::new();
            to.add_partition_offset(&topic, partition as i32, KafkaOffset::Offset(before as i64))
                .map_err(unavailable)?;
            self.admin.delete_records(&to, &options())
        };
        let cut = cutting.await.map_err(unavailable)?;
        cut.elements().iter().try_for_each(|e| e.error()).map_err(unavailable)
    }

    fn max_value_bytes(&self) -> usize {
        MAX_VALUE_BYTES
    }
}

/// The partition has no leader for a moment: it is new, or moves to another broker.
fn is_moving(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{LeaderNotAvailable, NotLeaderForPartition};
    matches!(code(error), NotLeaderForPartition | LeaderNotAvailable)
}
