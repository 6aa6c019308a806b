//! What exactly-once rests on, shown on a real broker.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::producer::BaseRecord;
use rdkafka::{Offset, TopicPartitionList};
use stagecast::kafka::answer::{Answer, Call};
use stagecast::kafka::clients::ClientSettings;
use stagecast::kafka::partitioner::partition;
use stagecast::kafka::transactions::{Transactions, TxnError};
use stagecast::time::{HOUR_MS, Tick, wall_now};

use crate::broker::RealKafka;
use crate::records::{Isolation, Record, fresh, until};

const INIT_MAX: Duration = Duration::from_secs(30);

/// A worker as the service has one: a member of the group that reads `input`, and its producer.
struct Worker {
    consumer: BaseConsumer,
    transactions: Transactions,
    input: String,
}

impl Worker {
    fn start(kafka: &RealKafka, input: &str, settings: &ClientSettings) -> Worker {
        let transactions = Transactions::new(settings, 0).unwrap();
        transactions.init(INIT_MAX).unwrap();
        let consumer: BaseConsumer = settings.input_consumer_config(0).create().unwrap();
        consumer.subscribe(&[input]).unwrap();
        let partitions = usize::try_from(kafka.partitions(input)).unwrap();
        until("the group has assigned its partitions", || {
            drop(consumer.poll(Duration::from_millis(50)));
            consumer.assignment().unwrap().count() == partitions
        });
        Worker { consumer, transactions, input: input.to_owned() }
    }

    fn send(&self, topic: &str, key: &str) -> Result<(), TxnError> {
        self.transactions.send(BaseRecord::to(topic).key(key).payload(key))
    }

    fn commit(&self, offset: i64) -> Result<(), TxnError> {
        self.transactions.commit(&self.position(offset), &self.group()).map(|_| ())
    }

    fn position(&self, offset: i64) -> TopicPartitionList {
        let mut positions = TopicPartitionList::new();
        positions.add_partition_offset(&self.input, 0, Offset::Offset(offset)).unwrap();
        positions
    }

    fn group(&self) -> ConsumerGroupMetadata {
        self.consumer.group_metadata().unwrap()
    }
}

fn settings(kafka: &RealKafka) -> ClientSettings {
    ClientSettings::new(&kafka.bootstrap(), &fresh("app"), "box-0")
}

fn keys(kafka: &RealKafka, topic: &str, isolation: Isolation) -> Vec<String> {
    kafka.read(&[topic], isolation).iter().map(|r| r.text().to_owned()).collect()
}

#[test]
fn a_commit_moves_records_and_offsets_together() {
    let kafka = RealKafka::shared();
    let (input, output) = (kafka.topic("in", 1, &[]), kafka.topic("out", 1, &[]));
    let settings = settings(kafka);
    let worker = Worker::start(kafka, &input, &settings);
    worker.transactions.begin().unwrap();
    worker.send(&output, "a").unwrap();
    assert!(kafka.committed(&settings.app_id, &[&input]).is_empty());
    worker.commit(7).unwrap();
    assert!(worker.transactions.is_settled());
    assert_eq!(keys(kafka, &output, Isolation::Committed), ["a"]);
    assert_eq!(kafka.committed(&settings.app_id, &[&input])[&(input, 0)], 7);
}

#[test]
fn an_aborted_transaction_is_there_and_readers_of_committed_records_do_not_see_it() {
    let kafka = RealKafka::shared();
    let (input, output) = (kafka.topic("in", 1, &[]), kafka.topic("out", 1, &[]));
    let worker = Worker::start(kafka, &input, &settings(kafka));
    worker.transactions.begin().unwrap();
    worker.send(&output, "taken back").unwrap();
    stagecast::time::sleep(Duration::from_millis(200));
    worker.transactions.abort().unwrap();
    worker.transactions.begin().unwrap();
    worker.send(&output, "meant").unwrap();
    worker.commit(1).unwrap();
    assert_eq!(keys(kafka, &output, Isolation::Committed), ["meant"]);
    assert_eq!(keys(kafka, &output, Isolation::Uncommitted), ["taken back", "meant"]);
}

#[test]
fn an_open_transaction_hides_its_records_but_not_its_offsets() {
    let kafka = RealKafka::shared();
    let (input, output) = (kafka.topic("in", 1, &[]), kafka.topic("out", 1, &[]));
    let worker = Worker::start(kafka, &input, &settings(kafka));
    worker.transactions.begin().unwrap();
    worker.send(&output, "open").unwrap();
    until("the record arrived", || worker.transactions.is_settled());
    assert_eq!(kafka.ends(&output, Isolation::Committed), [(0, 0)]);
    assert_eq!(kafka.ends(&output, Isolation::Uncommitted), [(0, 1)]);
    worker.transactions.abort().unwrap();
}

#[test]
fn a_second_producer_of_the_same_name_fences_the_first() {
    let kafka = RealKafka::shared();
    let (input, output) = (kafka.topic("in", 1, &[]), kafka.topic("out", 1, &[]));
    let settings = settings(kafka);
    let zombie = Worker::start(kafka, &input, &settings);
    zombie.transactions.begin().unwrap();
    zombie.send(&output, "zombie").unwrap();
    until("the record arrived", || zombie.transactions.is_settled());

    let heir = Transactions::new(&settings, 0).unwrap();
    heir.init(INIT_MAX).unwrap();
    let error = zombie.commit(1).unwrap_err();
    assert_eq!(error.answer, Answer::RebuildProducer, "{error}");
    assert!(error.is_fenced(), "{error}");

    heir.begin().unwrap();
    heir.send(BaseRecord::to(&output).key("k").payload("heir")).unwrap();
    heir.commit(&zombie.position(2), &zombie.group()).unwrap();
    assert_eq!(keys(kafka, &output, Isolation::Committed), ["heir"]);
    assert_eq!(kafka.committed(&settings.app_id, &[&input])[&(input, 0)], 2);
}

#[test]
fn a_worker_that_lost_its_partitions_can_commit_nothing() {
    let kafka = RealKafka::shared();
    let (input, output) = (kafka.topic("in", 1, &[]), kafka.topic("out", 1, &[]));
    let settings = settings(kafka);
    let worker = Worker::start(kafka, &input, &settings);
    let before = worker.group();
    worker.transactions.begin().unwrap();
    worker.send(&output, "stale").unwrap();
    // The same member, started again, takes the place of the one before it.
    let _heir: Worker = {
        let other = ClientSettings { app_id: settings.app_id.clone(), ..settings.clone() };
        let transactions = Transactions::new(&other, 1).unwrap();
        let consumer: BaseConsumer = other.input_consumer_config(0).create().unwrap();
        consumer.subscribe(&[&input]).unwrap();
        until("the heir has the partition", || {
            drop(consumer.poll(Duration::from_millis(50)));
            consumer.assignment().unwrap().count() == 1
        });
        Worker { consumer, transactions, input: input.clone() }
    };
    let error = worker.transactions.commit(&worker.position(3), &before).unwrap_err();
    assert_eq!((error.call, error.answer), (Call::Offsets, Answer::AbortAndRewind), "{error}");
    worker.transactions.abort().unwrap();
    assert_eq!(keys(kafka, &output, Isolation::Committed), Vec::<String>::new());
    assert!(kafka.committed(&settings.app_id, &[&input]).is_empty());
}

#[test]
fn a_transaction_that_nothing_would_fence_is_not_committed() {
    let kafka = RealKafka::shared();
    let (input, output) = (kafka.topic("in", 1, &[]), kafka.topic("out", 1, &[]));
    let worker = Worker::start(kafka, &input, &settings(kafka));
    worker.transactions.begin().unwrap();
    worker.send(&output, "timer").unwrap();
    let error = worker.transactions.commit(&TopicPartitionList::new(), &worker.group()).unwrap_err();
    assert_eq!(error.answer, Answer::AbortAndRewind);
    worker.transactions.abort().unwrap();
    assert_eq!(keys(kafka, &output, Isolation::Committed), Vec::<String>::new());
}

#[test]
fn a_record_that_is_not_delivered_takes_its_transaction_back() {
    let kafka = RealKafka::shared();
    let (input, output) = (kafka.topic("in", 1, &[]), kafka.topic("out", 1, &[]));
    let worker = Worker::start(kafka, &input, &settings(kafka));
    worker.transactions.begin().unwrap();
    worker.send(&output, "good").unwrap();
    // The broker takes nothing from more than an hour ahead.
    let ahead = BaseRecord::to(&output).key("k").payload("ahead").timestamp(wall_now() + 2 * HOUR_MS);
    worker.transactions.send(ahead).unwrap();
    let error = worker.commit(1).unwrap_err();
    assert_eq!((error.call, error.answer), (Call::Delivery, Answer::AbortAndRewind), "{error}");
    assert_eq!(error.topic.as_deref(), Some(output.as_str()));
    worker.transactions.abort().unwrap();

    // The refusal left a gap in the sequence: transactions after it may need a second attempt.
    let mut attempts = 0;
    loop {
        attempts += 1;
        worker.transactions.begin().unwrap();
        worker.send(&output, "good").unwrap();
        match worker.commit(1) {
            Ok(()) => break,
            Err(error) => {
                assert_eq!(error.answer, Answer::AbortAndRewind, "{error}");
                assert!(attempts < 10, "{error}");
                worker.transactions.abort().unwrap();
            }
        }
    }
    assert_eq!(keys(kafka, &output, Isolation::Committed), ["good"]);
}

#[test]
fn a_record_that_is_too_large_is_refused_at_once_and_the_rest_can_go() {
    let kafka = RealKafka::shared();
    let (input, output) = (kafka.topic("in", 1, &[]), kafka.topic("out", 1, &[]));
    let worker = Worker::start(kafka, &input, &settings(kafka));
    worker.transactions.begin().unwrap();
    let large = vec![b'x'; 12_000_000];
    let error = worker.transactions.send(BaseRecord::to(&output).key("k").payload(&large)).unwrap_err();
    assert_eq!((error.call, error.answer), (Call::Send, Answer::Stop), "{error}");
    worker.send(&output, "small").unwrap();
    worker.commit(1).unwrap();
    assert_eq!(keys(kafka, &output, Isolation::Committed), ["small"]);
}

#[test]
fn a_hundred_thousand_records_fit_into_one_transaction() {
    let kafka = RealKafka::shared();
    let (input, output) = (kafka.topic("in", 1, &[]), kafka.topic("out", 4, &[]));
    let worker = Worker::start(kafka, &input, &settings(kafka));
    worker.transactions.begin().unwrap();
    for n in 0..100_000 {
        worker.send(&output, &format!("customer-{n}")).unwrap();
    }
    worker.commit(1).unwrap();
    let read: BTreeSet<String> = keys(kafka, &output, Isolation::Committed).into_iter().collect();
    assert_eq!(read.len(), 100_000);
}

#[test]
fn commits_that_are_drained_first_report_what_they_took() {
    let kafka = RealKafka::shared();
    let (input, output) = (kafka.topic("in", 1, &[]), kafka.topic("out", 1, &[]));
    let worker = Worker::start(kafka, &input, &settings(kafka));
    let mut took = Vec::new();
    for round in 0..20 {
        worker.transactions.begin().unwrap();
        for n in 0..100 {
            worker.send(&output, &format!("{round}-{n}")).unwrap();
        }
        let started = Tick::now();
        let times = worker.transactions.commit(&worker.position(round), &worker.group()).unwrap();
        assert!(times.drain + times.end <= started.elapsed());
        took.push((times.drain, times.end));
    }
    took.sort();
    println!("drain and end of 100 records, median of 20: {:?}", took[took.len() / 2]);
    assert_eq!(keys(kafka, &output, Isolation::Committed).len(), 2_000);
}

#[test]
fn keys_go_where_our_partitioner_says() {
    let kafka = RealKafka::shared();
    let topic = kafka.topic("keyed", 7, &[]);
    let records = (0..500).map(|n| Record::new(format!("customer-{n}-ä"), "x"));
    kafka.produce(&topic, records);
    let read = kafka.read(&[&topic], Isolation::Committed);
    assert_eq!(read.len(), 500);
    for record in &read {
        assert_eq!(partition(&record.key, 7), record.partition, "{:?}", record.key);
    }
}

#[test]
fn records_come_back_as_they_were_written() {
    let kafka = RealKafka::shared();
    let topic = kafka.topic("plain", 3, &[]);
    let written = Record {
        key: b"k".to_vec(),
        value: None,
        headers: vec![("ce_type".to_owned(), b"x".to_vec())],
        timestamp: Some(1_700_000_000_000),
        partition: Some(2),
    };
    kafka.produce(&topic, [written.clone()]);
    let read = kafka.read(&[&topic], Isolation::Committed);
    assert_eq!(read.len(), 1);
    assert_eq!((read[0].partition, read[0].offset, read[0].timestamp), (2, 0, written.timestamp));
    assert_eq!((&read[0].key, &read[0].value, &read[0].headers), (&written.key, &None, &written.headers));
}
