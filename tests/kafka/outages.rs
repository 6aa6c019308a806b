//! Brokers that go and come back.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::producer::BaseRecord;
use rdkafka::{Offset, TopicPartitionList};
use stagecast::kafka::answer::Answer;
use stagecast::kafka::clients::ClientSettings;
use stagecast::kafka::transactions::{Transactions, TxnError};
use stagecast::time::{Tick, sleep};

use crate::broker::RealKafka;
use crate::records::Isolation;

const ROUNDS: i64 = 6;
const ALL_ROUNDS_MAX: Duration = Duration::from_secs(150);

/// Commits one record per round, answering errors as they ask to be answered.
fn commit_through(kafka: &RealKafka, settings: &ClientSettings, trouble: impl Fn(i64)) {
    let consumer: BaseConsumer = settings.input_consumer_config(0).create().unwrap();
    let group = consumer.group_metadata().unwrap();
    let mut transactions = fresh_producer(settings);
    let started = Tick::now();
    for round in 0..ROUNDS {
        trouble(round);
        let mut positions = TopicPartitionList::new();
        positions.add_partition_offset("in", 0, Offset::Offset(round + 1)).unwrap();
        loop {
            let ended = attempt(&transactions, round, &positions, &group);
            println!("{:?} round {round}: {ended:?}", started.elapsed());
            assert!(started.elapsed() < ALL_ROUNDS_MAX, "the outage is not over for us: {ended:?}");
            match ended.map_err(|e| (e.answer, e)) {
                Ok(()) => break,
                Err((Answer::AbortAndRewind, _)) if transactions.abort().is_ok() => {}
                Err((Answer::RebuildProducer | Answer::AbortAndRewind, _)) => {
                    // The commit may have been carried out all the same: what is committed decides.
                    drop(transactions);
                    transactions = fresh_producer(settings);
                    if kafka.committed(&settings.app_id, &["in"]).values().any(|o| *o > round) {
                        break;
                    }
                }
                Err((answer, error)) => panic!("{answer:?}: {error}"),
            }
        }
    }
}

fn attempt(
    transactions: &Transactions,
    round: i64,
    positions: &TopicPartitionList,
    group: &ConsumerGroupMetadata,
) -> Result<(), TxnError> {
    transactions.begin()?;
    transactions.send(BaseRecord::to("out").key("k").payload(&round.to_string()))?;
    transactions.commit(positions, group).map(|_| ())
}

fn fresh_producer(settings: &ClientSettings) -> Transactions {
    let transactions = Transactions::new(settings, 0).unwrap();
    while let Err(error) = transactions.init(Duration::from_secs(10)) {
        assert_eq!(error.answer, Answer::Retry, "{error}");
    }
    transactions
}

fn expect_each_once(kafka: &RealKafka) {
    let read = kafka.read(&["out"], Isolation::Committed);
    let values: Vec<i64> = read.iter().map(|r| r.text().parse().unwrap()).collect();
    assert_eq!(values, (0..ROUNDS).collect::<Vec<_>>());
}

#[test]
fn every_record_is_there_once_after_a_broker_was_killed_frozen_and_restarted() {
    let kafka = RealKafka::start(1);
    kafka.create_topic("in", 1, 1, &[]);
    kafka.create_topic("out", 1, 1, &[]);
    let settings = ClientSettings::new(&kafka.bootstrap(), "app", "box-0");
    commit_through(&kafka, &settings, |round| match round {
        2 => {
            kafka.kill(1);
            kafka.restart(1);
        }
        3 => {
            kafka.freeze(1);
            sleep(Duration::from_secs(1));
            kafka.thaw(1);
        }
        4 => {
            kafka.stop(1);
            kafka.restart(1);
        }
        _ => {}
    });
    expect_each_once(&kafka);
}

#[test]
fn three_brokers_carry_on_when_one_is_killed() {
    let kafka = RealKafka::start(3);
    kafka.create_topic("in", 1, 3, &[("min.insync.replicas", "2")]);
    kafka.create_topic("out", 1, 3, &[("min.insync.replicas", "2")]);
    let settings = ClientSettings::new(&kafka.bootstrap(), "app", "box-0");
    commit_through(&kafka, &settings, |round| {
        if round == 2 {
            kafka.kill(2);
        }
    });
    expect_each_once(&kafka);
}

#[test]
fn a_coordinator_that_is_gone_for_good_keeps_no_commit_waiting() {
    let kafka = RealKafka::start(3);
    kafka.create_topic("in", 1, 3, &[("min.insync.replicas", "2")]);
    kafka.create_topic("out", 1, 3, &[("min.insync.replicas", "2")]);
    let mut settings = ClientSettings::new(&kafka.bootstrap(), "app", "box-0");
    // The producer knows where the coordinator was and learns that this broker is no more before it needs it:
    // librdkafka then waits for a word from a broker it has given up (its issue 5511).
    for (key, ms) in [("topic.metadata.refresh.interval.ms", "50"), ("metadata.max.age.ms", "900000")] {
        settings.producer.insert(key.to_owned(), ms.to_owned());
    }
    commit_through(&kafka, &settings, |round| {
        if round == 2 {
            kafka.kill(kafka.group_coordinator("app"));
            kafka.until_brokers_are(2);
            sleep(Duration::from_secs(1));
        }
    });
    expect_each_once(&kafka);
}
