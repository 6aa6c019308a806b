//! What the errors that a cluster can answer with ask for, on librdkafka's mock, which errs on demand.

use std::sync::mpsc::channel;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext};
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Code};
use rdkafka::{Message, Offset, TopicPartitionList};
use stagecast::kafka::answer::{Answer, Call};
use stagecast::kafka::clients::{BrokerKind, ClientSettings};
use stagecast::kafka::members::{self, Request};
use stagecast::kafka::transactions::{Transactions, TxnError};
use stagecast::kafka::watermarks::watermarks;

use crate::members::request;
use crate::records::until;

type Mock = MockCluster<'static, DefaultProducerContext>;

const TOPIC: &str = "out";
const INIT_MAX: Duration = Duration::from_secs(10);

fn mock() -> (Mock, ClientSettings) {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("in", 1, 1).unwrap();
    mock.create_topic(TOPIC, 1, 1).unwrap();
    let mut settings = ClientSettings::new(&mock.bootstrap_servers(), "app", "box-0");
    settings.producer.insert("transaction.timeout.ms".to_owned(), "3000".to_owned());
    (mock, settings)
}

/// One transaction, up to its first error.
fn transaction(mock: &Mock, settings: &ClientSettings, trouble: impl Fn(&Mock)) -> Result<(), TxnError> {
    let transactions = Transactions::new(settings, 0)?;
    transactions.init(INIT_MAX)?;
    let consumer: BaseConsumer = settings.input_consumer_config(0).create().unwrap();
    let group = consumer.group_metadata().unwrap();
    let mut positions = TopicPartitionList::new();
    positions.add_partition_offset("in", 0, Offset::Offset(1)).unwrap();
    transactions.begin()?;
    transactions.send(BaseRecord::to(TOPIC).key("k").payload("v"))?;
    until("the record is acknowledged", || transactions.is_settled());
    trouble(mock);
    transactions.commit(&positions, &group).map(|_| ())
}

fn answer(api: Api, code: Code) -> Result<(), (Call, Answer)> {
    let (mock, settings) = mock();
    transaction(&mock, &settings, |mock| mock.request_errors(api, &[code]))
        .map_err(|error| (error.call, error.answer))
}

#[test]
fn without_trouble_a_transaction_commits() {
    let (mock, settings) = mock();
    assert_eq!(transaction(&mock, &settings, |_| {}), Ok(()));
}

#[test]
fn a_producer_whose_epoch_was_moved_on_is_rebuilt() {
    for code in [Code::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, Code::RD_KAFKA_RESP_ERR_PRODUCER_FENCED] {
        assert_eq!(answer(Api::EndTxn, code), Err((Call::Commit, Answer::RebuildProducer)), "{code:?}");
    }
}

#[test]
fn a_member_of_another_generation_aborts() {
    for code in [Code::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, Code::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID] {
        let answered = answer(Api::TxnOffsetCommit, code);
        assert_eq!(answered, Err((Call::Offsets, Answer::AbortAndRewind)), "{code:?}");
    }
}

#[test]
fn what_passes_by_itself_is_not_an_error() {
    for api in [Api::EndTxn, Api::TxnOffsetCommit, Api::AddOffsetsToTxn] {
        assert_eq!(answer(api, Code::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS), Ok(()), "{api:?}");
    }
}

/// A topic that was just made, or one whose leader moves.
#[test]
fn where_a_partition_ends_is_asked_until_its_leader_answers() {
    let (mock, settings) = mock();
    let reader = settings.end_offsets(0).unwrap();
    let ends = || watermarks(&reader, TOPIC, 0, Duration::from_secs(5));
    let not_here = Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    mock.request_errors(Api::ListOffsets, &[not_here; 12]);
    assert_eq!(ends(), Ok((0, 0)));
    mock.request_errors(Api::ListOffsets, &[Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 2]);
    assert!(ends().is_err(), "what asking again does not change is told");
}

#[test]
fn a_missing_permission_is_for_a_person() {
    let (mock, settings) = mock();
    mock.request_errors(
        Api::InitProducerId,
        &[Code::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED],
    );
    let error = transaction(&mock, &settings, |_| {}).unwrap_err();
    assert_eq!((error.call, error.answer), (Call::Init, Answer::Stop), "{error}");
    let answered = answer(Api::AddOffsetsToTxn, Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED);
    assert_eq!(answered, Err((Call::Offsets, Answer::Stop)));
}

#[test]
fn a_commit_that_was_not_answered_in_time_costs_the_producer() {
    let (mock, settings) = mock();
    let error = transaction(&mock, &settings, |mock| mock.broker_down(-1).unwrap()).unwrap_err();
    assert_eq!(error.answer, Answer::RebuildProducer, "{error}");
    assert!(!error.is_fenced(), "{error}");
}

/// Where the brokers stay away, the worker must go on to say that it lives.
#[test]
fn an_abort_that_finds_no_broker_ends_and_costs_the_producer() {
    let (mock, settings) = mock();
    let transactions = Transactions::new(&settings, 0).unwrap();
    transactions.init(INIT_MAX).unwrap();
    transactions.begin().unwrap();
    transactions.send(BaseRecord::to(TOPIC).key("k").payload("v")).unwrap();
    until("the record is acknowledged", || transactions.is_settled());
    mock.broker_down(-1).unwrap();
    let (told, ended) = channel();
    std::thread::spawn(move || {
        let error = transactions.abort().unwrap_err();
        drop(transactions);
        told.send((error.call, error.answer)).unwrap();
    });
    let error = ended.recv_timeout(Duration::from_secs(60)).expect("an end");
    assert_eq!(error, (Call::Abort, Answer::RebuildProducer));
}

#[test]
fn init_that_finds_no_broker_is_tried_again_and_succeeds_later() {
    let (mock, settings) = mock();
    mock.broker_down(-1).unwrap();
    let transactions = Transactions::new(&settings, 0).unwrap();
    let error = transactions.init(Duration::from_millis(500)).unwrap_err();
    assert_eq!((error.call, error.answer), (Call::Init, Answer::Retry), "{error}");
    mock.broker_up(-1).unwrap();
    transactions.init(INIT_MAX).unwrap();
}

#[test]
fn the_embedded_brokers_settings_join_read_and_commit() {
    let (mock, settings) = mock();
    let settings = ClientSettings { broker: BrokerKind::Embedded, ..settings };
    let member = members::join(&settings, 0, &[TOPIC]).unwrap();
    transaction(&mock, &settings, |_| {}).unwrap();
    let Request::Assign(mut partitions) = request(&member) else { panic!("nothing was there to revoke") };
    partitions.set_all_offsets(Offset::Offset(0)).unwrap();
    members::assign(&member, &partitions).unwrap();
    let mut read = None;
    until("the record is read", || {
        if let Some(Ok(record)) = member.poll(Duration::from_millis(50)) {
            read = record.payload().map(<[u8]>::to_vec);
        }
        read.is_some()
    });
    assert_eq!(read.as_deref(), Some(b"v".as_slice()));
    members::close(member);
}
