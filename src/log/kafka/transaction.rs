//! Appends of several records, each all or nothing.
//!
//! One thread puts all appends that wait into one transaction: those are then all in the log, or none of them is. It takes
//! turns with a few producers, since the broker is a while at writing the markers of a transaction that it has already
//! acknowledged, and refuses that producer's next one until it has done so; librdkafka then asks again every 20 ms.
//!
//! Invariant: an answer is true. Until the commit was asked for, nothing can have been appended, whatever fails; from then on
//! a failure without the broker's word leaves the outcome unknown.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer, PurgeConfig};
use rdkafka::util::Timeout;
use tokio::sync::{mpsc, oneshot};

use super::client::{self, Context, Delivered, KafkaSettings, PATIENCE, unavailable};
use crate::log::{LogError, NewRecord};
use crate::model::Offset;
use crate::task::panicked;

/// More have to wait before they are taken in.
const QUEUED_APPENDS: usize = 1024;
/// A transaction takes no further append once it has this much: while it is open, nobody reads what comes after.
const TRANSACTION_BYTES: usize = 8 << 20;
const PRODUCERS: usize = 3;
/// How long to try to end a failed transaction in good order.
const ABORT_PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait for the broker's acknowledgements before looking at the clock again.
const TICK: Duration = Duration::from_millis(1);

pub struct Append {
    /// With the topic of each record.
    pub records: Vec<(Arc<str>, NewRecord)>,
    pub done: oneshot::Sender<Result<Vec<Offset>, LogError>>,
}

/// Starts the thread; it ends when the sender is dropped.
pub fn start(settings: KafkaSettings, id: String) -> std::io::Result<mpsc::Sender<Append>> {
    let (appends, queue) = mpsc::channel(QUEUED_APPENDS);
    let transactions = Transactions { settings, id, turn: 0, producers: [const { None }; PRODUCERS] };
    std::thread::Builder::new().name("kafka-transactions".to_owned()).spawn(move || transactions.run(queue))?;
    Ok(appends)
}

struct Transactions {
    settings: KafkaSettings,
    /// The same as long as this instance lives: a new producer with it ends what the one before it left open.
    id: String,
    turn: usize,
    producers: [Option<BaseProducer<Context>>; PRODUCERS],
}

impl Transactions {
    fn run(mut self, mut queue: mpsc::Receiver<Append>) {
        while let Some(first) = queue.blocking_recv() {
            let mut bytes = first.bytes();
            let mut appends = vec![first];
            while bytes < TRANSACTION_BYTES
                && let Ok(next) = queue.try_recv()
            {
                bytes += next.bytes();
                appends.push(next);
            }
            let attempt = catch_unwind(AssertUnwindSafe(|| self.transact(&appends)));
            let mut outcome = attempt.unwrap_or_else(|panic| self.begin_anew(&*panic)).map(Vec::into_iter);
            if let Err(error) = &outcome {
                tracing::warn!(error = %error, appends = appends.len(), "a Kafka transaction failed");
            }
            for append in appends {
                let answer = match &mut outcome {
                    Ok(offsets) => Ok(offsets.next().unwrap_or_default()),
                    Err(error) => Err(error.clone()),
                };
                // Who appended may have gone away.
                let _ = append.done.send(answer);
            }
            if outcome.is_err() && self.producers[self.turn].is_none() {
                // The broker is silent: nobody waits to learn it one after the other.
                while let Ok(append) = queue.try_recv() {
                    let _ = append.done.send(Err(unavailable("the broker does not answer")));
                }
            }
        }
    }

    fn transact(&mut self, appends: &[Append]) -> Result<Vec<Vec<Offset>>, LogError> {
        self.turn = (self.turn + 1) % PRODUCERS;
        // Put back when the transaction has ended well; a new one is made otherwise.
        let producer = match self.producers[self.turn].take() {
            Some(producer) => producer,
            None => self.connect().map_err(unavailable)?,
        };
        producer.begin_transaction().map_err(unavailable)?;
        match send_all(&producer, appends) {
            Ok(offsets) => {
                self.commit(producer)?;
                Ok(offsets)
            }
            Err(error) => {
                self.abort(producer);
                Err(error)
            }
        }
    }

    /// After a fault of ours: with new producers, which end what the old ones may have left open.
    fn begin_anew<T>(&mut self, panic: &(dyn Any + Send)) -> Result<T, LogError> {
        self.producers = [const { None }; PRODUCERS];
        Err(LogError::OutcomeUnknown(panicked(panic)))
    }

    fn connect(&self) -> Result<BaseProducer<Context>, KafkaError> {
        let config = self.settings.transactional_producer(&format!("{}.{}", self.id, self.turn));
        let producer = BaseProducer::from_config_and_context(&config, Context::default())?;
        producer.init_transactions(PATIENCE)?;
        Ok(producer)
    }

    fn commit(&mut self, producer: BaseProducer<Context>) -> Result<(), LogError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match producer.commit_transaction(remaining(deadline)) {
                Ok(()) => {
                    self.producers[self.turn] = Some(producer);
                    return Ok(());
                }
                Err(error) => error,
            };
            match &error {
                KafkaError::Transaction(e) if e.is_retriable() && Instant::now() < deadline => {}
                KafkaError::Transaction(e) if e.txn_requires_abort() => {
                    self.abort(producer);
                    return Err(unavailable(error));
                }
                _ => {
                    self.producers = [const { None }; PRODUCERS];
                    return Err(LogError::OutcomeUnknown(error.to_string()));
                }
            }
        }
    }

    /// What is not aborted here is aborted by the next producer of that name, or by the broker after the transaction's time.
    fn abort(&mut self, producer: BaseProducer<Context>) {
        // `abort_transaction` waits for what is on its way, and does not itself take the answers in.
        producer.purge(PurgeConfig::default().queue());
        let deadline = Instant::now() + ABORT_PATIENCE;
        while producer.in_flight_count() > 0 && Instant::now() < deadline {
            producer.poll(TICK);
        }
        match producer.abort_transaction(remaining(deadline)) {
            Ok(()) => self.producers[self.turn] = Some(producer),
            Err(error) => {
                tracing::warn!(error = %error, "a Kafka transaction could not be aborted");
                self.producers = [const { None }; PRODUCERS];
            }
        }
    }
}

impl Append {
    fn bytes(&self) -> usize {
        self.records.iter().map(|(_, r)| r.key.len() + r.value.len()).sum()
    }
}

/// Sends all records and waits for their offsets. Any error is 'nothing was appended': the transaction is still open.
fn send_all(producer: &BaseProducer<Context>, appends: &[Append]) -> Result<Vec<Vec<Offset>>, LogError> {
    // A little longer than the client itself tries, so that its own word comes first.
    let deadline = Instant::now() + PATIENCE + Duration::from_secs(1);
    let mut sent = Vec::with_capacity(appends.len());
    for append in appends {
        let mut offsets = Vec::with_capacity(append.records.len());
        for (topic, record) in &append.records {
            offsets.push(send(producer, topic, record, deadline)?);
        }
        sent.push(offsets);
    }
    // `commit_transaction` would wait for them too, but in steps of 100 ms.
    while producer.in_flight_count() > 0 && Instant::now() < deadline {
        producer.poll(TICK);
    }
    let offset = |mut answer: Delivered| match answer.try_recv() {
        Ok(Ok(offset)) => Ok(offset),
        Ok(Err(LogError::NotFound(topic))) => Err(LogError::NotFound(topic)),
        Ok(Err(error)) => Err(unavailable(error)),
        Err(_) => Err(LogError::Unavailable("the broker did not acknowledge a record in time".to_owned())),
    };
    sent.into_iter().map(|answers| answers.into_iter().map(offset).collect()).collect()
}

fn send(
    producer: &BaseProducer<Context>,
    topic: &str,
    record: &NewRecord,
    deadline: Instant,
) -> Result<Delivered, LogError> {
    loop {
        let (message, offset) = client::message(topic, record);
        match producer.send(message) {
            Ok(()) => return Ok(offset),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) if Instant::now() < deadline => {
                producer.poll(TICK);
            }
            Err((error, _)) => return Err(unavailable(error)),
        }
    }
}

fn remaining(deadline: Instant) -> Timeout {
    Timeout::After(deadline.saturating_duration_since(Instant::now()).max(TICK))
}
