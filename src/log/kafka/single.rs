//! Appends of one record each, without a transaction.
//!
//! Invariant: a record stands in the log at most once. The broker knows one that comes again by its producer's epoch and its
//! number there. A librdkafka producer that gives up one record begins a new epoch, and sends again under it what else was on
//! its way, which the broker may have (its issue 4953). So nothing is given up here: when a record has waited for
//! [`PATIENCE`], the producer is thrown away with all that it has, and another takes its place.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::producer::{Producer, ThreadedProducer};
use tokio::time::timeout;

use super::client::{self, Context, Delivered, KafkaSettings, PATIENCE, blocking, is_unknown, unavailable};
use crate::log::{LogError, NewRecord};
use crate::model::Offset;

/// Within this time a producer that is thrown away has told what became of its records.
const LAST_WORDS: Duration = Duration::from_secs(2);

pub struct SingleAppends {
    settings: KafkaSettings,
    current: Arc<RwLock<Current>>,
}

struct Current {
    producer: ThreadedProducer<Context>,
    /// How many were before it.
    turn: u64,
}

impl SingleAppends {
    pub fn new(settings: KafkaSettings) -> Result<SingleAppends, LogError> {
        let producer = connect(&settings)?;
        Ok(SingleAppends { settings, current: Arc::new(RwLock::new(Current { producer, turn: 0 })) })
    }

    /// Cancelling leaves the record to the producer, which is not thrown away on its account.
    pub async fn append(&self, topic: &str, record: &NewRecord) -> Result<Offset, LogError> {
        let (turn, sent) = self.send(topic, record);
        let outcome = match sent {
            Ok(delivered) => self.wait(turn, delivered).await,
            Err(error) => Err(error),
        };
        if outcome.is_err() && self.has_failed(turn) {
            self.replace(turn).await;
        }
        outcome
    }

    fn send(&self, topic: &str, record: &NewRecord) -> (u64, Result<Delivered, LogError>) {
        let (message, delivered) = client::message(topic, record);
        // Sent under the lock: what is sent to a producer that is being thrown away might outlive it.
        let current = self.current.read();
        let sent = current.producer.send(message).map(|()| delivered).map_err(|(error, _)| match error {
            unknown if is_unknown(&unknown) => LogError::NotFound(topic.to_owned()),
            other => unavailable(other),
        });
        (current.turn, sent)
    }

    async fn wait(&self, turn: u64, mut delivered: Delivered) -> Result<Offset, LogError> {
        let unknown = |what: &str| LogError::OutcomeUnknown(what.to_owned());
        if let Ok(told) = timeout(PATIENCE, &mut delivered).await {
            return told.unwrap_or_else(|_| Err(unknown("the client ended")));
        }
        self.replace(turn).await;
        let told = timeout(LAST_WORDS, delivered).await;
        told.ok().and_then(Result::ok).unwrap_or_else(|| Err(unknown("the broker does not answer")))
    }

    /// Whether that producer is of no more use.
    fn has_failed(&self, turn: u64) -> bool {
        let current = self.current.read();
        current.turn == turn && current.producer.client().fatal_error().is_some()
    }

    /// Throws that producer away, unless another call has.
    async fn replace(&self, turn: u64) {
        let (current, settings) = (self.current.clone(), self.settings.clone());
        let replaced = blocking(move || {
            let mut current = current.write();
            if current.turn == turn {
                let next = Current { producer: connect(&settings)?, turn: turn + 1 };
                let last = std::mem::replace(&mut *current, next);
                // It takes a moment to fail what it has, in which others go on.
                drop(current);
                drop(last);
            }
            Ok(())
        });
        if let Err(error) = replaced.await.flatten() {
            tracing::warn!(%error, "a Kafka producer that does not get through cannot be replaced");
        }
    }
}

fn connect(settings: &KafkaSettings) -> Result<ThreadedProducer<Context>, LogError> {
    ThreadedProducer::from_config_and_context(&settings.single_producer(), Context::default()).map_err(unavailable)
}
