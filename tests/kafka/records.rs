//! Topics made, filled and read to their present end, with clients of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use stagecast::kafka::answer::{Answer, Call, classify};
use stagecast::time::{Tick, sleep};

use crate::broker::{RealKafka, unique};

const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    Committed,
    Uncommitted,
}

/// A record to write. It goes where murmur2 of its key says, unless `partition` says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub key: Vec<u8>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub timestamp: Option<i64>,
    pub partition: Option<i32>,
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub timestamp: Option<i64>,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Record {
        Record { key: key.into(), value: Some(value.into()), ..Record::default() }
    }
}

impl Read {
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.value.as_deref().unwrap_or_default()).unwrap()
    }
}

impl Isolation {
    fn level(self) -> &'static str {
        match self {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        }
    }
}

/// A name that no other test and no other run uses.
pub fn fresh(name: &str) -> String {
    format!("{name}-{}-{}", std::process::id(), unique())
}

impl RealKafka {
    /// Creates a topic of a fresh name, one replica per partition, and returns the name.
    pub fn topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> String {
        let topic = fresh(name);
        self.create_topic(&topic, partitions, 1, config);
        topic
    }

    pub fn create_topic(&self, topic: &str, partitions: i32, replication: i32, config: &[(&str, &str)]) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replication));
        let new = config.iter().fold(new, |new, (key, value)| new.set(key, value));
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_MAX));
        let made = block_on(self.admin().create_topics([&new], &options)).unwrap();
        assert!(made.iter().all(Result::is_ok), "{topic} was not created: {made:?}");
        let asker = self.consumer("asker", Isolation::Committed);
        until(&format!("{topic} has leaders"), || {
            asker.fetch_metadata(Some(topic), ANSWER_MAX).is_ok_and(|m| {
                let topics = m.topics();
                topics.len() == 1
                    && topics[0].partitions().len() == usize::try_from(partitions).unwrap()
                    && topics[0].partitions().iter().all(|p| p.leader() >= 0)
            })
        });
    }

    pub fn delete_topic(&self, topic: &str) {
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_MAX));
        let gone = block_on(self.admin().delete_topics(&[topic], &options)).unwrap();
        assert!(gone.iter().all(Result::is_ok), "{topic} was not deleted: {gone:?}");
        let asker = self.consumer("asker", Isolation::Committed);
        until(&format!("{topic} is gone"), || {
            let metadata = asker.fetch_metadata(None, ANSWER_MAX);
            metadata.is_ok_and(|m| m.topics().iter().all(|t| t.name() != topic))
        });
    }

    /// Deletes a group with its offsets, once its last member is missed.
    pub fn delete_group(&self, group: &str) {
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_MAX));
        until(&format!("group {group} is gone"), || {
            let gone = block_on(self.admin().delete_groups(&[group], &options));
            gone.is_ok_and(|groups| groups.iter().all(Result::is_ok))
        });
    }

    /// The broker that leads the partition of `__consumer_offsets` in which a group's positions are.
    pub fn group_coordinator(&self, group: &str) -> usize {
        let asker = self.consumer("asker", Isolation::Committed);
        let metadata = patiently(|| asker.fetch_metadata(Some("__consumer_offsets"), ANSWER_MAX));
        let partitions = metadata.topics()[0].partitions();
        let hash = group.bytes().fold(0i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)));
        let place = (hash & i32::MAX) % i32::try_from(partitions.len()).unwrap();
        let leader = partitions.iter().find(|p| p.id() == place).unwrap().leader();
        usize::try_from(leader).unwrap()
    }

    /// Waits until the cluster counts no more than so many brokers as its own.
    pub fn until_brokers_are(&self, count: usize) {
        let asker = self.consumer("asker", Isolation::Committed);
        until(&format!("{count} brokers are left"), || {
            asker.fetch_metadata(None, ANSWER_MAX).is_ok_and(|m| m.brokers().len() == count)
        });
    }

    /// Gives a topic more partitions, so many in all.
    pub fn add_partitions(&self, topic: &str, partitions: i32) {
        let new = NewPartitions::new(topic, usize::try_from(partitions).unwrap());
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_MAX));
        let made = block_on(self.admin().create_partitions([&new], &options)).unwrap();
        assert!(made.iter().all(Result::is_ok), "{topic} got no partitions: {made:?}");
        until(&format!("{topic} has {partitions} partitions"), || self.partitions(topic) == partitions);
    }

    /// The effective configuration of a topic.
    pub fn topic_config(&self, topic: &str) -> BTreeMap<String, String> {
        let asked = [ResourceSpecifier::Topic(topic)];
        let answers = block_on(self.admin().describe_configs(&asked, &AdminOptions::new())).unwrap();
        let resource = answers.into_iter().next().unwrap().unwrap();
        resource.entries.into_iter().filter_map(|e| Some((e.name, e.value?))).collect()
    }

    pub fn partitions(&self, topic: &str) -> i32 {
        let asker = self.consumer("asker", Isolation::Committed);
        let metadata = patiently(|| asker.fetch_metadata(Some(topic), ANSWER_MAX));
        i32::try_from(metadata.topics()[0].partitions().len()).unwrap()
    }

    /// Writes records, many at a time, and waits until the brokers have them all.
    pub fn produce(&self, topic: &str, records: impl IntoIterator<Item = Record>) {
        let producer: BaseProducer<MustArrive> = ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap())
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .create_with_context(MustArrive)
            .unwrap();
        for record in records {
            send(&producer, topic, &record);
        }
        producer.flush(Duration::from_secs(120)).unwrap();
    }

    /// Everything in `topics` up to their ends as of now, by topic, partition and offset.
    pub fn read(&self, topics: &[&str], isolation: Isolation) -> Vec<Read> {
        let consumer = self.consumer("reader", isolation);
        let mut assignment = TopicPartitionList::new();
        let mut open: BTreeMap<(String, i32), i64> = BTreeMap::new();
        for topic in topics {
            for (partition, (low, end)) in self.ends(topic, isolation).into_iter().enumerate() {
                let partition = i32::try_from(partition).unwrap();
                if low < end {
                    assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
                    open.insert(((*topic).to_owned(), partition), end);
                }
            }
        }
        let mut read = Vec::new();
        if !open.is_empty() {
            consumer.assign(&assignment).unwrap();
        }
        let started = Tick::now();
        while !open.is_empty() {
            assert!(started.elapsed() < Duration::from_secs(120), "the end did not come: {open:?}");
            while let Some(polled) = consumer.poll(Duration::from_millis(20)) {
                match polled {
                    Ok(record) => read.push(Read::from(&record)),
                    // A broker may be down; the client goes on by itself.
                    Err(error) => assert_eq!(classify(Call::Poll, &error), Answer::Retry, "{error}"),
                }
            }
            // Control records take offsets and are never handed out: only the position passes them.
            for element in consumer.position().unwrap().elements() {
                let place = (element.topic().to_owned(), element.partition());
                let Offset::Offset(position) = element.offset() else { continue };
                if open.get(&place).is_some_and(|end| position >= *end) {
                    open.remove(&place);
                }
            }
        }
        read.sort_by(|a, b| (&a.topic, a.partition, a.offset).cmp(&(&b.topic, b.partition, b.offset)));
        read
    }

    /// The first and the end offset of each partition. For `Committed` the end is where the oldest open
    /// transaction begins.
    pub fn ends(&self, topic: &str, isolation: Isolation) -> Vec<(i64, i64)> {
        let asker = self.consumer("asker", isolation);
        let ask = |partition| patiently(|| asker.fetch_watermarks(topic, partition, ANSWER_MAX));
        (0..self.partitions(topic)).map(ask).collect()
    }

    /// The offsets a group has committed in `topics`, of partitions where it has.
    pub fn committed(&self, group: &str, topics: &[&str]) -> BTreeMap<(String, i32), i64> {
        let mut asked = TopicPartitionList::new();
        for topic in topics {
            asked.add_partition_range(topic, 0, self.partitions(topic) - 1);
        }
        let consumer = self.consumer(group, Isolation::Committed);
        let offsets = patiently(|| consumer.committed_offsets(asked.clone(), ANSWER_MAX));
        let known = offsets.elements().into_iter().filter_map(|e| match e.offset() {
            Offset::Offset(offset) => Some(((e.topic().to_owned(), e.partition()), offset)),
            _ => None,
        });
        known.collect()
    }

    /// Moves a group's offset, as an operator would while nobody is at work.
    pub fn commit(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        let mut positions = TopicPartitionList::new();
        positions.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        let consumer = self.consumer(group, Isolation::Committed);
        patiently(|| consumer.commit(&positions, rdkafka::consumer::CommitMode::Sync));
    }

    fn consumer(&self, group: &str, isolation: Isolation) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap())
            .set("group.id", group)
            .set("isolation.level", isolation.level())
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .create()
            .unwrap()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.bootstrap()).create().unwrap()
    }
}

/// Waits until `so` is true, and fails with `what` when it does not come true.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let started = Tick::now();
    while !so() {
        assert!(started.elapsed() < Duration::from_secs(60), "still not so: {what}");
        sleep(Duration::from_millis(50));
    }
}

/// The answer to a question that a broker on its way down or up may fail to answer.
fn patiently<T>(ask: impl Fn() -> KafkaResult<T>) -> T {
    let started = Tick::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) => assert!(started.elapsed() < ANSWER_MAX, "no answer: {error}"),
        }
        sleep(Duration::from_millis(100));
    }
}

impl From<&BorrowedMessage<'_>> for Read {
    fn from(message: &BorrowedMessage<'_>) -> Read {
        let headers = message.headers().map(|headers| {
            let own = |h: Header<'_, &[u8]>| (h.key.to_owned(), h.value.unwrap_or_default().to_vec());
            headers.iter().map(own).collect()
        });
        Read {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key().unwrap_or_default().to_vec(),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
        }
    }
}

fn send(producer: &BaseProducer<MustArrive>, topic: &str, record: &Record) {
    loop {
        let mut out = BaseRecord::to(topic).key(&record.key);
        out.payload = record.value.as_ref();
        out.partition = record.partition;
        out.timestamp = record.timestamp;
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            out.headers =
                Some(record.headers.iter().fold(headers, |headers, (key, value)| {
                    headers.insert(Header { key, value: Some(value) })
                }));
        }
        match producer.send(out) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => panic!("cannot write to {topic}: {error}"),
        }
    }
}

/// A test's own record that gets lost is a broken test.
struct MustArrive;

impl ClientContext for MustArrive {}

impl ProducerContext for MustArrive {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            panic!("a test's record was not delivered: {error}");
        }
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}
