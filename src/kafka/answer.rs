//! What an error of a Kafka client asks for. Pure: an error in, one of four answers out.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Make the same call again with the same arguments.
    Retry,
    /// Abort the transaction, undo its effects on the state, and read on from the committed offsets.
    AbortAndRewind,
    /// Drop the producer, make another of the same `transactional.id`, initialise it (which ends whatever the
    /// old one left open) and restore the state of every partition held from what is committed.
    RebuildProducer,
    /// No repetition will help: tell a person.
    Stop,
}

/// The call that failed; the same error asks for different things in different places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Polling the consumer.
    Poll,
    /// `init_transactions`.
    Init,
    /// `begin_transaction`.
    Begin,
    /// Handing a record to the producer.
    Send,
    /// A record that was handed over and could not be delivered.
    Delivery,
    /// `send_offsets_to_transaction`.
    Offsets,
    /// `commit_transaction`.
    Commit,
    /// `abort_transaction`.
    Abort,
}

/// What `error`, met in `call`, asks for.
///
/// The order is librdkafka's: fatal, then abortable, then retriable; what is none of the three counts as
/// fatal. With two exceptions. An offsets, commit or abort request that was given up without an answer may
/// still be under way and would then hit the *next* transaction (KAFKA-17754; librdkafka does not yet speak
/// the protocol that rules this out), so the producer is replaced, which moves the epoch on. And rust-rdkafka's own flush in front of
/// a commit sends nothing, so its time-out is repeated.
pub fn classify(call: Call, error: &KafkaError) -> Answer {
    match error {
        KafkaError::Transaction(e) => {
            let flags = Flags {
                fatal: e.is_fatal(),
                requires_abort: e.txn_requires_abort(),
                retriable: e.is_retriable(),
            };
            transaction_answer(call, e.code(), flags)
        }
        KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut) => Answer::Retry,
        KafkaError::Flush(_) | KafkaError::Canceled => Answer::RebuildProducer,
        KafkaError::MessageProduction(code) => production_answer(*code),
        KafkaError::MessageConsumptionFatal(_) => Answer::Stop,
        KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) => Answer::Stop,
        // librdkafka would go on asking, and nobody would know what for.
        _ if call == Call::Poll && is_unauthorized(error) => Answer::Stop,
        // librdkafka repeats what it can by itself; an error from a poll is information.
        KafkaError::MessageConsumption(_)
        | KafkaError::PartitionEOF(_)
        | KafkaError::NoMessageReceived
        | KafkaError::Global(_)
        | KafkaError::MetadataFetch(_)
        | KafkaError::OffsetFetch(_)
        | KafkaError::GroupListFetch(_) => Answer::Retry,
        // The consumer's place in its partitions is in doubt: what is committed is not.
        KafkaError::Seek(_)
        | KafkaError::PauseResume(_)
        | KafkaError::Rebalance(_)
        | KafkaError::SetPartitionOffset(_)
        | KafkaError::ConsumerCommit(_)
        | KafkaError::ConsumerQueueClose(_)
        | KafkaError::StoreOffset(_) => Answer::RebuildProducer,
        // Configuration, subscription, creation: the same again gives the same again.
        _ => Answer::Stop,
    }
}

/// Whether another process took over this `transactional.id` or `group.instance.id`.
///
/// Once is a hand-over; again and again is two processes with the same `app.instance`.
pub fn is_fenced(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        Fenced, FencedInstanceId, InvalidProducerEpoch, ProducerFenced, TransactionCoordinatorFenced,
    };
    let code = match error {
        KafkaError::MessageConsumptionFatal(code) => Some(*code),
        other => other.rdkafka_error_code(),
    };
    code.is_some_and(|c| {
        matches!(
            c,
            Fenced | ProducerFenced | InvalidProducerEpoch | FencedInstanceId | TransactionCoordinatorFenced
        )
    })
}

/// Whether a permission is missing, which a person has to grant.
pub fn is_unauthorized(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(lacks_permission)
}

fn lacks_permission(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    )
}

#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    fatal: bool,
    requires_abort: bool,
    retriable: bool,
}

fn transaction_answer(call: Call, code: RDKafkaErrorCode, flags: Flags) -> Answer {
    let ends_or_moves = matches!(call, Call::Offsets | Call::Commit | Call::Abort);
    if is_forbidden(code) {
        Answer::Stop
    } else if flags.fatal || (ends_or_moves && given_up_unanswered(code, flags)) {
        Answer::RebuildProducer
    } else if flags.requires_abort {
        // An abort cannot be answered by an abort.
        if call == Call::Abort { Answer::RebuildProducer } else { Answer::AbortAndRewind }
    } else if flags.retriable {
        Answer::Retry
    } else {
        Answer::RebuildProducer
    }
}

/// Whether a request was sent, or may have been, and nobody waits for its answer any more.
fn given_up_unanswered(code: RDKafkaErrorCode, flags: Flags) -> bool {
    match code {
        RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut => true,
        // A lost connection is repeated, by librdkafka and by us, until one of them lets go.
        RDKafkaErrorCode::BrokerTransportFailure => flags.requires_abort,
        _ => false,
    }
}

/// A record the producer did not take, or could not deliver.
fn production_answer(code: RDKafkaErrorCode) -> Answer {
    use RDKafkaErrorCode as Code;
    match code {
        Code::QueueFull => Answer::Retry,
        Code::Fatal
        | Code::Fenced
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::State
        | Code::GaplessGuarantee => Answer::RebuildProducer,
        // The same record will meet the same refusal.
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidArgument
        | Code::InvalidTopic
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnsupportedCompressionType
        | Code::PolicyViolation => Answer::Stop,
        code if is_forbidden(code) => Answer::Stop,
        _ => Answer::AbortAndRewind,
    }
}

/// The cluster's administrator has to change something first.
fn is_forbidden(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    lacks_permission(code)
        || matches!(
            code,
            Code::InvalidTransactionTimeout
                | Code::UnsupportedFeature
                | Code::UnsupportedVersion
                | Code::NotConfigured
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use RDKafkaErrorCode as Code;

    const FATAL: Flags = Flags { fatal: true, requires_abort: false, retriable: false };
    const ABORT: Flags = Flags { fatal: false, requires_abort: true, retriable: false };
    const RETRY: Flags = Flags { fatal: false, requires_abort: false, retriable: true };
    const NONE: Flags = Flags { fatal: false, requires_abort: false, retriable: false };

    #[test]
    fn a_transactions_error_is_fatal_then_abortable_then_retriable_then_fatal() {
        let both = Flags { fatal: true, requires_abort: true, retriable: true };
        for (call, code, flags, answer) in [
            (Call::Commit, Code::Fenced, FATAL, Answer::RebuildProducer),
            (Call::Commit, Code::InvalidTransactionalState, both, Answer::RebuildProducer),
            (Call::Commit, Code::MessageTimedOut, ABORT, Answer::AbortAndRewind),
            (Call::Offsets, Code::IllegalGeneration, ABORT, Answer::AbortAndRewind),
            (Call::Offsets, Code::CoordinatorLoadInProgress, RETRY, Answer::Retry),
            (Call::Offsets, Code::BrokerTransportFailure, RETRY, Answer::Retry),
            (Call::Begin, Code::InvalidRequest, NONE, Answer::RebuildProducer),
            (Call::Abort, Code::InvalidRequest, ABORT, Answer::RebuildProducer),
        ] {
            assert_eq!(transaction_answer(call, code, flags), answer, "{call:?} {code:?}");
        }
    }

    #[test]
    fn a_request_that_may_still_arrive_late_costs_the_producer() {
        for call in [Call::Offsets, Call::Commit, Call::Abort] {
            for flags in [RETRY, ABORT, NONE] {
                assert_eq!(
                    transaction_answer(call, Code::OperationTimedOut, flags),
                    Answer::RebuildProducer,
                    "{call:?} {flags:?}"
                );
            }
        }
        assert_eq!(
            transaction_answer(Call::Offsets, Code::BrokerTransportFailure, ABORT),
            Answer::RebuildProducer
        );
        assert_eq!(transaction_answer(Call::Init, Code::OperationTimedOut, RETRY), Answer::Retry);
    }

    #[test]
    fn a_flush_that_times_out_before_a_commit_is_repeated() {
        assert_eq!(classify(Call::Commit, &KafkaError::Flush(Code::OperationTimedOut)), Answer::Retry);
        assert_eq!(classify(Call::Commit, &KafkaError::Flush(Code::Fatal)), Answer::RebuildProducer);
    }

    #[test]
    fn records_that_cannot_go_are_told_apart_from_records_that_could_not_go_now() {
        for (code, answer) in [
            (Code::QueueFull, Answer::Retry),
            (Code::MessageTimedOut, Answer::AbortAndRewind),
            (Code::NotEnoughReplicas, Answer::AbortAndRewind),
            (Code::OutOfOrderSequenceNumber, Answer::AbortAndRewind),
            (Code::InvalidTimestamp, Answer::AbortAndRewind),
            (Code::MessageSizeTooLarge, Answer::Stop),
            (Code::TopicAuthorizationFailed, Answer::Stop),
            (Code::Fenced, Answer::RebuildProducer),
        ] {
            assert_eq!(classify(Call::Send, &KafkaError::MessageProduction(code)), answer, "{code:?}");
        }
    }

    #[test]
    fn polling_goes_on_unless_the_consumer_is_dead_or_events_are_gone() {
        for (error, answer) in [
            (KafkaError::PartitionEOF(3), Answer::Retry),
            (KafkaError::MessageConsumption(Code::BrokerTransportFailure), Answer::Retry),
            (KafkaError::MessageConsumption(Code::PollExceeded), Answer::Retry),
            (KafkaError::MessageConsumption(Code::AutoOffsetReset), Answer::Stop),
            (KafkaError::MessageConsumption(Code::TopicAuthorizationFailed), Answer::Stop),
            (KafkaError::MessageConsumption(Code::GroupAuthorizationFailed), Answer::Stop),
            (KafkaError::MessageConsumptionFatal(Code::FencedInstanceId), Answer::Stop),
        ] {
            assert_eq!(classify(Call::Poll, &error), answer, "{error:?}");
        }
    }

    #[test]
    fn what_an_administrator_must_change_is_not_repeated() {
        for code in [Code::TransactionalIdAuthorizationFailed, Code::InvalidTransactionTimeout] {
            assert_eq!(transaction_answer(Call::Init, code, FATAL), Answer::Stop, "{code:?}");
        }
    }

    #[test]
    fn a_take_over_is_recognised_on_either_side() {
        assert!(is_fenced(&KafkaError::MessageProduction(Code::Fenced)));
        assert!(is_fenced(&KafkaError::MessageConsumptionFatal(Code::FencedInstanceId)));
        assert!(!is_fenced(&KafkaError::MessageProduction(Code::QueueFull)));
    }
}
