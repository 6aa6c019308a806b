//! The consumer of the inputs: a member of the group whose rebalances are answered outside the callback.
//!
//! librdkafka calls back from inside `poll`; the callback only takes note, and the worker answers after the
//! poll, where it has its tasks and its transaction at hand. Also asks librdkafka for what it knows locally.

use std::collections::VecDeque;
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};

use super::answer::is_unauthorized;
use super::clients::{ClientSettings, log_line};

/// How long closing may take; without trouble it is milliseconds.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// What the group asks of this member.
#[derive(Debug)]
pub enum Request {
    Assign(TopicPartitionList),
    /// `lost`: others may own the partitions already.
    Revoke {
        partitions: TopicPartitionList,
        lost: bool,
    },
}

/// Takes note of rebalances.
#[derive(Default)]
pub struct Rebalances {
    requests: Mutex<VecDeque<Request>>,
    closing: AtomicBool,
    /// What librdkafka said of a missing permission: the error alone does not name the topic.
    forbidden: Mutex<Option<String>>,
}

impl Rebalances {
    pub fn next(&self) -> Option<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Which permission is missing, in librdkafka's words.
    pub fn forbidden(&self) -> Option<String> {
        self.forbidden.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is no error, although it is reported as one.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            if is_unauthorized(&error) {
                *self.forbidden.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
            }
            tracing::warn!(target: "librdkafka", "{error}: {reason}");
        }
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        err: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                requests.push_back(Request::Assign(partitions.clone()));
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                if self.closing.load(Ordering::Acquire) {
                    // The worker has committed and polls no more; closing waits for this answer. Once it is through
                    // it does not, and nobody would take the answer, for which librdkafka waits without end.
                    if consumer.closed() {
                        return;
                    }
                    if let Err(error) = unassign(consumer, partitions) {
                        tracing::warn!("unassigning while closing: {error}");
                    }
                    return;
                }
                requests.push_back(Request::Revoke {
                    partitions: partitions.clone(),
                    lost: consumer.assignment_lost(),
                });
            }
            other => tracing::warn!("rebalance failed: {}", RDKafkaErrorCode::from(other)),
        }
    }
}

pub type Member = BaseConsumer<Rebalances>;

/// Joins the group.
pub fn join(settings: &ClientSettings, worker: usize, topics: &[&str]) -> KafkaResult<Member> {
    let member: Member = settings.input_consumer_config(worker).create_with_context(Rebalances::default())?;
    member.subscribe(topics)?;
    Ok(member)
}

/// Ends the membership; the worker has committed, or given up. As a static member it does not leave the group.
///
/// librdkafka may be through between being asked for that and being answered, and then waits for itself: closing has
/// a thread of its own, which is left alone after [`CLOSE_MAX`].
pub fn close(member: Member) {
    member.context().closing.store(true, Ordering::Release);
    let (closed, closes) = mpsc::channel();
    let closing = thread::Builder::new().name("closing".to_owned()).spawn(move || {
        drop(member);
        // Nobody listens any more when it took too long.
        let _ = closed.send(());
    });
    match closing {
        Ok(_) if closes.recv_timeout(CLOSE_MAX).is_ok() => {}
        Ok(_) => tracing::warn!("the consumer does not close; going on without it"),
        Err(error) => tracing::warn!("no thread to close the consumer in: {error}"),
    }
}

/// Takes the partitions and reads on from their offsets.
pub fn assign(member: &Member, partitions: &TopicPartitionList) -> KafkaResult<()> {
    match member.rebalance_protocol() {
        RebalanceProtocol::Cooperative => member.incremental_assign(partitions)?,
        _ => member.assign(partitions)?,
    }
    // librdkafka remembers a pause beyond the revocation, so a partition that comes back would stand still.
    member.resume(partitions)
}

pub fn unassign(member: &Member, partitions: &TopicPartitionList) -> KafkaResult<()> {
    match member.rebalance_protocol() {
        RebalanceProtocol::Cooperative => member.incremental_unassign(partitions),
        _ => member.unassign(),
    }
}

/// The offset behind the last record of a partition as the newest fetch told; `None` before the first fetch.
///
/// rust-rdkafka only offers the version that asks the broker, which waits behind the fetch that is under way.
#[allow(unsafe_code)]
pub fn known_end(member: &Member, topic: &str, partition: i32) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1i64, -1i64);
    // SAFETY: the handle lives as long as `member`; the topic is a NUL-terminated string and both offsets are
    // valid for writes during the call, which keeps none of the pointers.
    let answer = unsafe {
        rdkafka_sys::rd_kafka_get_watermark_offsets(
            member.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &mut low,
            &mut high,
        )
    };
    (answer == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}

/// Replaces the offsets of `partitions` by where the client stands: behind the last record, or end, that it was given
/// of each. An offset becomes [`rdkafka::Offset::Invalid`] where it was given nothing yet.
///
/// rust-rdkafka's version first asks librdkafka's main thread for the assignment and waits for its answer, which is too
/// dear for every turn of a worker.
#[allow(unsafe_code)]
pub fn stand(member: &Member, partitions: &mut TopicPartitionList) -> KafkaResult<()> {
    // SAFETY: the handle lives as long as `member` and the list as long as `partitions`; the call writes into the
    // list's elements and keeps neither pointer.
    let answer = unsafe { rdkafka_sys::rd_kafka_position(member.client().native_ptr(), partitions.ptr()) };
    match answer {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        error => Err(KafkaError::MetadataFetch(error.into())),
    }
}
