//! How every client of the broker is set up, what it says, and what became of a record that was sent.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, ProducerContext};
use tokio::sync::oneshot;

use crate::log::{LogError, NewRecord};
use crate::model::Offset;

/// Every request is answered within this time, or has failed.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How often a client that fails is told its brokers again.
const REMIND: Duration = Duration::from_secs(10);
/// The largest record batch that a topic takes.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// How the whole of a topic's records fits into that, with keys and headers.
pub const MAX_VALUE_BYTES: usize = MAX_MESSAGE_BYTES - (64 << 10);

/// How to reach the broker, and what the topics are called.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// `host:port,host:port`, of which one has to answer.
    pub brokers: String,
    /// librdkafka's own properties, such as those for TLS and SASL; passed on as they are, to all clients.
    pub properties: BTreeMap<String, String>,
    /// A log's topic is called this and the log's name.
    pub topic_prefix: String,
    /// How many brokers keep each new topic.
    pub replication: i32,
}

impl Default for KafkaSettings {
    fn default() -> KafkaSettings {
        KafkaSettings {
            brokers: "127.0.0.1:9092".to_owned(),
            properties: BTreeMap::new(),
            topic_prefix: "alluvium.".to_owned(),
            replication: 1,
        }
    }
}

impl KafkaSettings {
    /// What all clients have in common; a property of the operator's wins.
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "alluvium")
            // A topic is made by `create` alone: a write to one that is gone must not bring back an empty one.
            .set("allow.auto.create.topics", "false")
            // `create` has waited for the topic, so one that a broker does not know for this long is gone.
            .set("topic.metadata.propagation.max.ms", "3000")
            .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string())
            .set("socket.timeout.ms", PATIENCE.as_millis().to_string())
            .set("socket.nagle.disable", "true")
            .set("reconnect.backoff.max.ms", "1000");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    pub fn admin(&self) -> ClientConfig {
        let mut config = self.client();
        // A commit is acknowledged a little before its records can be read: the end must count them all the same.
        config.set("isolation.level", "read_uncommitted");
        config
    }

    fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Writes that come at about the same time share a batch. Not 1 or 2: librdkafka spins for the last millisecond.
            .set("linger.ms", self.properties.get("linger.ms").map_or("3", String::as_str))
            .set("request.timeout.ms", "5000");
        config
    }

    /// For records on their own. None of them may be given up while others go on: `single` says why.
    pub fn single_producer(&self) -> ClientConfig {
        let mut config = self.producer();
        config.set("message.timeout.ms", "0").set("enable.gapless.guarantee", "true");
        config
    }

    pub fn transactional_producer(&self, id: &str) -> ClientConfig {
        let mut config = self.producer();
        let patience = PATIENCE.as_millis().to_string();
        config
            .set("transactional.id", id)
            .set("transaction.timeout.ms", &patience)
            .set("message.timeout.ms", &patience);
        config
    }

    pub fn consumer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            // Asked for by `assign`; no group is joined and nothing committed: positions are the store's.
            .set("group.id", format!("{}tail", self.topic_prefix))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "200")
            .set("fetch.error.backoff.ms", "100")
            // What one tail may hold in memory, of what it has not handed out.
            .set("queued.max.messages.kbytes", "16384");
        config
    }

    /// Tells a client that has failed its brokers again. librdkafka forgets all of them when one that is about to stop says that
    /// there are none, and then never asks anybody any more (its issue 5301): every call fails, and readers wait for ever.
    #[allow(unsafe_code)]
    pub fn remind(&self, client: &Client<Context>) {
        if !client.context().is_to_be_reminded() {
            return;
        }
        // Settings with a NUL have not come so far.
        let Ok(brokers) = CString::new(self.brokers.as_str()) else { return };
        // SAFETY: both pointers live for as long as the call, which copies the text, and may come from any thread.
        unsafe { rdkafka::bindings::rd_kafka_brokers_add(client.native_ptr(), brokers.as_ptr()) };
    }
}

/// Turns what librdkafka says into events of ours, and into no more of them than are of use.
#[derive(Default)]
pub struct Context {
    /// For clients of which there are many: the others tell the same.
    quiet: bool,
    unreachable: AtomicBool,
    reminded: Mutex<Option<Instant>>,
}

impl Context {
    pub fn quiet() -> Context {
        Context { quiet: true, ..Context::default() }
    }

    /// True once in a while, since the client keeps all that it is told.
    fn is_to_be_reminded(&self) -> bool {
        let mut reminded = self.reminded.lock();
        let due = reminded.is_none_or(|at| at.elapsed() >= REMIND);
        if due {
            *reminded = Some(Instant::now());
        }
        due
    }

    /// The broker answered.
    pub fn reached(&self) {
        if self.unreachable.swap(false, Ordering::Relaxed) && !self.quiet {
            tracing::info!("Kafka answers again");
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", ?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match code(&error) {
            // Normal at the end of a partition, and of interest to the tail only.
            RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::AutoOffsetReset => {}
            // One broker of several: the others go on.
            RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::OperationTimedOut => {
                tracing::debug!(error = %error, reason, "a Kafka broker cannot be reached");
            }
            _ if self.unreachable.swap(true, Ordering::Relaxed) || self.quiet => {
                tracing::debug!(error = %error, reason, "Kafka is in trouble");
            }
            _ => tracing::warn!(error = %error, reason, "Kafka is in trouble; trying on"),
        }
    }
}

impl ConsumerContext for Context {}

/// Where a record's offset is told, and where it is learnt.
pub type Delivery = oneshot::Sender<Result<Offset, LogError>>;
pub type Delivered = oneshot::Receiver<Result<Offset, LogError>>;
/// A record as the client takes it.
pub type Message<'a> = BaseRecord<'a, [u8], [u8], Box<Delivery>>;

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Self::DeliveryOpaque) {
        let outcome = match result {
            Ok(message) => {
                self.reached();
                Ok(message.offset() as Offset)
            }
            Err((error, message)) => Err(match code(error) {
                _ if is_unknown(error) => LogError::NotFound(message.topic().to_owned()),
                // When its producer is thrown away; librdkafka then says 'not written' of one that waits to be sent again.
                RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight => {
                    LogError::OutcomeUnknown("the broker does not answer".to_owned())
                }
                _ if was_never_written(message) => LogError::Unavailable(error.to_string()),
                _ => LogError::OutcomeUnknown(error.to_string()),
            }),
        };
        // Who appended may have gone away.
        let _ = delivery.send(outcome);
    }
}

pub const UNKNOWN_TOPIC: RDKafkaErrorCode = RDKafkaErrorCode::UnknownTopic;
pub const UNKNOWN_PARTITION: RDKafkaErrorCode = RDKafkaErrorCode::UnknownPartition;
pub const UNKNOWN_ON_BROKER: RDKafkaErrorCode = RDKafkaErrorCode::UnknownTopicOrPartition;

pub fn code(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)
}

/// There is no such topic, or no such partition.
pub fn is_unknown(error: &KafkaError) -> bool {
    matches!(code(error), UNKNOWN_TOPIC | UNKNOWN_PARTITION | UNKNOWN_ON_BROKER)
}

/// Whether a record that failed is surely not in the log.
#[allow(unsafe_code)]
fn was_never_written(message: &rdkafka::message::BorrowedMessage<'_>) -> bool {
    use rdkafka::bindings::{rd_kafka_message_status, rd_kafka_msg_status_t};
    // SAFETY: the pointer is that of a live message, which the reference keeps; the call only reads it.
    let status = unsafe { rd_kafka_message_status(message.ptr()) };
    status == rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}

pub fn message<'a>(topic: &'a str, record: &'a NewRecord) -> (Message<'a>, Delivered) {
    let (delivery, offset) = oneshot::channel();
    let mut message = BaseRecord::with_opaque_to(topic, Box::new(delivery))
        .partition(record.partition as i32)
        .payload(&record.value[..]);
    if !record.key.is_empty() {
        message = message.key(&record.key[..]);
    }
    (message, offset)
}

/// Runs what blocks away from the threads that serve requests.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| LogError::Unavailable(e.to_string()))
}

pub fn unavailable(error: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(error.to_string())
}
