//! A transaction from its beginning to its end, on a producer that can be replaced.
//!
//! Every transaction carries the position of the partitions it is about: the group's generation in that
//! request is what keeps a worker that lost its partitions from writing (a transaction without offsets is not
//! fenced). Which positions, and what to do after an error that names more
//! than a repetition ([`TxnError`]), is the caller's to decide.

use std::cell::Cell;
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
use crate::kafka::faults::{Faults, Guard};
use crate::time::{Tick, sleep};

/// How often a wait looks again where there is nothing left to be woken by.
const PAUSE: Duration = Duration::from_micros(100);
/// How long a wait for acknowledgements does not look whether one of the records failed.
const FLUSH_MOST: Duration = Duration::from_millis(20);
/// How long to leave a broker alone before the same call is made again.
const AGAIN: Duration = Duration::from_millis(50);
/// How long an abort may take, whatever `transaction.timeout.ms` says: who has no broker by then begins anew.
const ABORT_MOST: Duration = Duration::from_secs(20);
/// Records that are handed over before the rest waits for them to be acknowledged. They take less time than
/// `linger.ms`, also where others have the processor in between, and so many of one partition make a batch that leaves at
/// once. Whoever waits has the rest sent without lingering ([`flush`]).
pub const BURST_RECORDS: usize = 4_000;

/// The transactional producer of one worker.
pub struct Transactions {
    producer: ThreadedProducer<Deliveries>,
    faults: Faults,
    /// Where records go when a test has removed the transaction around them.
    past: Option<ThreadedProducer<Deliveries>>,
    /// `transaction.timeout.ms`: what is not committed by then, the broker aborts.
    timeout: Duration,
    began: Cell<Tick>,
    /// Records handed over since all were acknowledged.
    burst: Cell<usize>,
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
        let timeout = Duration::from_millis(timeout_ms);
        let (faults, past) = (Faults::default(), None);
        let (began, burst) = (Cell::new(Tick::now()), Cell::new(0));
        Ok(Transactions { producer, faults, past, timeout, began, burst })
    }

    /// With what a test makes it do wrong.
    pub fn with_faults(mut self, settings: &ClientSettings, faults: &Faults) -> Result<Self, TxnError> {
        if faults.lack(Guard::Transaction) {
            let past = settings.feed_producer().map_err(|e| TxnError::new(Call::Init, e))?;
            self.past = Some(past);
        }
        self.faults = faults.clone();
        Ok(self)
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
        self.began.set(Tick::now());
        self.burst.set(0);
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
        let mut record = record;
        self.burst.set(self.burst.get() + 1);
        let producer = self.past.as_ref().unwrap_or(&self.producer);
        loop {
            let (error, back) = match producer.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            let topic = Some(back.topic.to_owned());
            let refused = TxnError { topic, ..TxnError::new(Call::Send, error) };
            if refused.answer != Answer::Retry {
                return Err(refused);
            }
            if self.left().is_zero() {
                return Err(refused.too_late());
            }
            record = back;
            sleep(PAUSE);
        }
    }

    /// Waits for every record, adds the positions, and commits. What asks to be repeated is repeated here, for
    /// as long as the transaction may live.
    ///
    /// `positions` are those of every partition whose state this transaction writes, moved or not. After an
    /// error that answers [`Answer::RebuildProducer`] the commit may have happened all the same: only the
    /// group's committed offsets, read after the next [`Transactions::init`], tell.
    pub fn commit(
        &self,
        positions: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
    ) -> Result<CommitTimes, TxnError> {
        if positions.count() == 0 && !self.faults.lack(Guard::SilentPositions) {
            // librdkafka skips an empty list, and with it the check of the generation.
            let nothing = KafkaError::SetPartitionOffset(RDKafkaErrorCode::NoOffset);
            return Err(TxnError { answer: Answer::AbortAndRewind, ..TxnError::new(Call::Offsets, nothing) });
        }
        let started = Tick::now();
        self.persist(|| drain(&self.producer, self.left()))?;
        if let Some(past) = &self.past {
            self.persist(|| drain(past, self.left()))?;
        }
        let drained = Tick::now();
        // Never stands for what is left of the transaction's time; a shorter wait would leave librdkafka and
        // the broker in disagreement about the outcome.
        self.persist(|| {
            let added = self.producer.send_offsets_to_transaction(positions, group, Timeout::Never);
            added.map_err(|e| TxnError::new(Call::Offsets, e))
        })?;
        self.faults.at("before_end")?;
        self.persist(|| {
            let committed = self.producer.commit_transaction(Timeout::Never);
            committed.map_err(|e| TxnError::new(Call::Commit, e))
        })?;
        Ok(CommitTimes { drain: drained.since(started), end: drained.elapsed() })
    }

    /// Takes back everything since [`Transactions::begin`].
    pub fn abort(&self) -> Result<(), TxnError> {
        // The transaction may have used up its time; its end is given as much again, but no more than a worker may be
        // silent. Unlike elsewhere, never would mean never here: for as long as the brokers are away.
        self.began.set(Tick::now());
        let most = self.timeout.min(ABORT_MOST);
        let aborted = self.persist(|| {
            let aborted = self.producer.abort_transaction(Timeout::After(most));
            aborted.map_err(|e| TxnError::new(Call::Abort, e))
        });
        self.producer.context().forget();
        aborted
    }

    /// Makes a call again while it asks for that and the transaction has time.
    fn persist(&self, call: impl Fn() -> Result<(), TxnError>) -> Result<(), TxnError> {
        loop {
            match call() {
                Err(error) if error.answer == Answer::Retry => {
                    if self.left().is_zero() {
                        return Err(error.too_late());
                    }
                    sleep(AGAIN);
                }
                ended => return ended,
            }
        }
    }

    /// How long the broker still lets the transaction live.
    fn left(&self) -> Duration {
        self.timeout.saturating_sub(self.began.get().elapsed())
    }

    /// Whether everything handed over is acknowledged.
    pub fn is_settled(&self) -> bool {
        let settled = self.producer.in_flight_count() == 0;
        if settled {
            self.burst.set(0);
        }
        settled
    }

    /// Waits until everything handed over is acknowledged, or cannot be: that is for the commit to tell.
    pub fn settle(&self) {
        let has_failed = || self.producer.context().failed.load(Ordering::Acquire) > 0;
        while !self.is_settled() && !has_failed() && !self.left().is_zero() {
            flush(&self.producer, self.left());
        }
    }

    /// The same once a burst was handed over.
    ///
    /// librdkafka has one request of a partition under way at a time, and while that is so and more has lingered,
    /// its thread polls without a pause. Nothing that is left behind a burst can linger.
    pub fn make_way(&self) {
        if self.burst.get() >= BURST_RECORDS {
            self.settle();
            self.burst.set(0);
        }
    }
}

/// Has what lingers sent, and waits for acknowledgements, a while at most.
///
/// The crate's own flush gives librdkafka no time, and that forgets that it is to hurry before the thread that sends was
/// woken.
#[allow(unsafe_code)]
fn flush(producer: &ThreadedProducer<Deliveries>, patience: Duration) {
    let millis = patience.min(FLUSH_MOST).as_millis().max(1) as i32;
    // SAFETY: the handle lives as long as `producer`; the call is safe from any thread and keeps nothing.
    unsafe { rdkafka_sys::rd_kafka_flush(producer.client().native_ptr(), millis) };
    // Of records that failed there is something left until their reports are read, by another thread.
    if producer.in_flight_count() > 0 {
        sleep(PAUSE);
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
        flush(producer, deadline.saturating_sub(started.elapsed()));
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

/// An error in a transaction, with the call it was met in and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnError {
    pub call: Call,
    pub error: KafkaError,
    /// The topic of the record that failed, where it was a record.
    pub topic: Option<String>,
    pub answer: Answer,
}

impl TxnError {
    pub fn new(call: Call, error: KafkaError) -> Self {
        TxnError { answer: classify(call, &error), call, error, topic: None }
    }

    /// Whether another process took over this `transactional.id`.
    pub fn is_fenced(&self) -> bool {
        is_fenced(&self.error)
    }

    /// Nothing is left to repeat it in: the broker ends the transaction, and only a new producer knows how.
    fn too_late(self) -> Self {
        TxnError { answer: Answer::RebuildProducer, ..self }
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
        assert_eq!(error.answer, Answer::AbortAndRewind);
        assert!(error.to_string().contains("`scores`"), "{error}");
    }
}
