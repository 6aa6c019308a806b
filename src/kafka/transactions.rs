//! A transaction from its beginning to its end, on a producer that can be replaced.
//!
//! Every transaction carries the position of the partitions it is about: the group's generation in that
//! request is what keeps a worker that lost its partitions from writing (a transaction without offsets is not
//! fenced). Which positions, and what to do after an error, is the caller's to decide ([`TxnError::answer`]).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message, ToBytes};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::util::Timeout;

use crate::kafka::answer::{Answer, Call, classify, is_fenced};
use crate::kafka::clients::{ClientSettings, log_line};
use crate::time::{Tick, sleep};

/// How often a wait looks again.
const PAUSE: Duration = Duration::from_micros(100);
/// How long a full local queue may refuse a record before that is an error.
const QUEUE_FULL_MAX: Duration = Duration::from_secs(30);

/// The transactional producer of one worker.
pub struct Transactions {
    producer: ThreadedProducer<Deliveries>,
    /// How long records may take to be acknowledged before a commit gives up.
    drain_max: Duration,
}

/// What a commit took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitTimes {
    /// Until every record was acknowledged.
    pub drain: Duration,
    /// The two requests that follow: offsets, end of transaction.
    pub end: Duration,
}

impl Transactions {
    /// Makes the producer; talks to no broker yet.
    pub fn new(settings: &ClientSettings, worker: usize) -> Result<Self, TxnError> {
        let producer = settings.producer(worker).map_err(|e| TxnError::new(Call::Init, e))?;
        let timeout_ms = settings.transaction_timeout_ms().unwrap_or_default();
        Ok(Transactions { producer, drain_max: Duration::from_millis(timeout_ms) })
    }

    /// Fences every producer of the same `transactional.id` and ends what it left open.
    ///
    /// Must be done before any offset or state is read: until then the predecessor may still add to both.
    /// Can be called again after a time-out.
    pub fn init(&self, timeout: Duration) -> Result<(), TxnError> {
        self.producer.init_transactions(timeout).map_err(|e| TxnError::new(Call::Init, e))
    }

    pub fn begin(&self) -> Result<(), TxnError> {
        self.producer.context().forget();
        self.producer.begin_transaction().map_err(|e| TxnError::new(Call::Begin, e))
    }

    /// Hands a record over. Waits while the local queue is full.
    ///
    /// An error here leaves the transaction intact *without the record*, so it must never be ignored.
    pub fn send<K, P>(&self, record: BaseRecord<'_, K, P>) -> Result<(), TxnError>
    where
        K: ToBytes + ?Sized,
        P: ToBytes + ?Sized,
    {
        let (started, mut record) = (Tick::now(), record);
        loop {
            let (error, back) = match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            if classify(Call::Send, &error) != Answer::Retry || started.elapsed() > QUEUE_FULL_MAX {
                return Err(TxnError {
                    topic: Some(back.topic.to_owned()),
                    ..TxnError::new(Call::Send, error)
                });
            }
            record = back;
            sleep(PAUSE);
        }
    }

    /// Waits for every record, adds the positions, and commits.
    ///
    /// `positions` are those of every partition whose state this transaction writes, moved or not. After an
    /// error whose answer is [`Answer::Retry`] it can be called again with the same arguments.
    pub fn commit(
        &self,
        positions: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
    ) -> Result<CommitTimes, TxnError> {
        if positions.count() == 0 {
            // librdkafka skips an empty list, and with it the check of the generation.
            let error = KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset);
            return Err(TxnError { unfenced: true, ..TxnError::new(Call::Offsets, error) });
        }
        let started = Tick::now();
        drain(&self.producer, self.drain_max)?;
        let drained = Tick::now();
        self.producer
            .send_offsets_to_transaction(positions, group, Timeout::Never)
            .map_err(|e| TxnError::new(Call::Offsets, e))?;
        // Never stands for what is left of the transaction's time; a shorter wait would leave librdkafka and
        // the broker in disagreement about the outcome.
        self.producer.commit_transaction(Timeout::Never).map_err(|e| TxnError::new(Call::Commit, e))?;
        Ok(CommitTimes { drain: drained.since(started), end: drained.elapsed() })
    }

    /// Takes back everything since [`Transactions::begin`].
    pub fn abort(&self) -> Result<(), TxnError> {
        let aborted = self.producer.abort_transaction(Timeout::Never);
        self.producer.context().forget();
        aborted.map_err(|e| TxnError::new(Call::Abort, e))
    }

    /// Records handed over and not yet acknowledged.
    pub fn in_flight(&self) -> i32 {
        self.producer.in_flight_count()
    }
}

/// Waits until every record handed to `producer` is acknowledged; fails when one could not be delivered.
///
/// rust-rdkafka's commit would wait too, but in steps of 100 ms. A full drain first makes a commit take 5.
pub fn drain(producer: &ThreadedProducer<Deliveries>, deadline: Duration) -> Result<(), TxnError> {
    let started = Tick::now();
    while producer.in_flight_count() > 0 {
        if started.elapsed() >= deadline {
            let late = KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut);
            return Err(TxnError::new(Call::Commit, late));
        }
        sleep(PAUSE);
    }
    match producer.context().first_failure() {
        None => Ok(()),
        Some(failure) => Err(failure.into()),
    }
}

/// What became of the records of the transaction at hand.
#[derive(Default)]
pub struct Deliveries {
    failed: AtomicU64,
    first: Mutex<Option<DeliveryFailure>>,
}

/// A record that could not be delivered. It has no room for the record itself: this reaches logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryFailure {
    pub topic: String,
    pub partition: i32,
    pub error: RDKafkaErrorCode,
    /// How many records of the transaction failed, this one included, when this was asked for.
    pub failed: u64,
}

impl Deliveries {
    /// The first failure since the transaction began.
    pub fn first_failure(&self) -> Option<DeliveryFailure> {
        let failed = self.failed.load(Ordering::Acquire);
        if failed == 0 {
            return None;
        }
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.clone().map(|failure| DeliveryFailure { failed, ..failure })
    }

    fn forget(&self) {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.failed.store(0, Ordering::Release);
    }

    fn note(&self, topic: &str, partition: i32, error: RDKafkaErrorCode) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| DeliveryFailure { topic: topic.to_owned(), partition, error, failed: 1 });
        self.failed.fetch_add(1, Ordering::Release);
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "librdkafka", "{error}: {reason}");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, record)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            self.note(record.topic(), record.partition(), code);
        }
    }
}

/// An error in a transaction, with the call it was met in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnError {
    pub call: Call,
    pub error: KafkaError,
    /// The topic of the record that failed, where it was a record.
    pub topic: Option<String>,
    /// The caller asked for a transaction that nothing would fence.
    unfenced: bool,
}

impl TxnError {
    pub fn new(call: Call, error: KafkaError) -> Self {
        TxnError { call, error, topic: None, unfenced: false }
    }

    pub fn answer(&self) -> Answer {
        if self.unfenced { Answer::AbortAndRewind } else { classify(self.call, &self.error) }
    }

    /// Whether another process took over this `transactional.id`.
    pub fn is_fenced(&self) -> bool {
        is_fenced(&self.error)
    }
}

impl From<DeliveryFailure> for TxnError {
    fn from(failure: DeliveryFailure) -> Self {
        let error = KafkaError::MessageProduction(failure.error);
        TxnError { topic: Some(failure.topic), ..TxnError::new(Call::Delivery, error) }
    }
}

impl fmt::Display for TxnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unfenced {
            return f
                .write_str("a transaction without a single position cannot be fenced and is not committed");
        }
        let doing = match self.call {
            Call::Poll => "reading",
            Call::Init => "taking over the transactional id",
            Call::Begin => "beginning a transaction",
            Call::Send => "handing over a record",
            Call::Delivery => "delivering a record",
            Call::Offsets => "adding offsets to the transaction",
            Call::Commit => "committing",
            Call::Abort => "aborting",
        };
        write!(f, "{doing}")?;
        if let Some(topic) = &self.topic {
            write!(f, " to topic `{topic}`")?;
        }
        write!(f, " failed: {}", self.error)
    }
}

impl std::error::Error for TxnError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failed_delivery_is_kept_and_all_are_counted() {
        let deliveries = Deliveries::default();
        assert_eq!(deliveries.first_failure(), None);
        deliveries.note("scores", 3, RDKafkaErrorCode::MessageTimedOut);
        deliveries.note("alerts", 1, RDKafkaErrorCode::InvalidTimestamp);
        let failure = deliveries.first_failure().unwrap();
        assert_eq!((failure.topic.as_str(), failure.partition, failure.failed), ("scores", 3, 2));
        deliveries.forget();
        assert_eq!(deliveries.first_failure(), None);
    }

    #[test]
    fn a_failed_delivery_asks_for_an_abort_and_names_the_topic() {
        let deliveries = Deliveries::default();
        deliveries.note("scores", 3, RDKafkaErrorCode::MessageTimedOut);
        let error = TxnError::from(deliveries.first_failure().unwrap());
        assert_eq!(error.answer(), Answer::AbortAndRewind);
        assert!(error.to_string().contains("`scores`"), "{error}");
    }
}
