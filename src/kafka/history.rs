//! What the input topics hold, read from their first record up to where they ended at the start.
//!
//! A bounded read for training: nothing is joined, committed or written. Every (source, partition) is a lane of
//! its own with a queue of its own, so that the merge can wait for one lane while the others stay where they
//! are. The ends are found once; every [`History::open`] reads up to the same ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::answer::{Answer, Call, classify};
use super::clients::{ClientSettings, LogContext};
use super::watermarks::watermarks;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::Source;
use crate::replay::{Lanes, RawRecord};
use crate::setup;
use crate::time::Tick;

/// How long the cluster may take to answer one question.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How long a lane may bring nothing, although it is not at its end, before the reading is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// A partition with records in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    source: Source,
    topic: String,
    partition: i32,
    first: i64,
    /// Behind the last record that was committed at the start.
    end: i64,
}

/// The inputs of a cluster as they were at one moment.
#[derive(Debug)]
pub struct History {
    clients: ClientSettings,
    stretches: Vec<Stretch>,
}

impl History {
    /// Asks for the partitions of every enabled source and their ends.
    pub fn find(clients: ClientSettings, config: &Config) -> Result<History> {
        clients.check()?;
        let asker = clients.history_consumer(1).map_err(|e| failed("cannot make a Kafka client", &e))?;
        let mut stretches = Vec::new();
        for (source, section) in setup::enabled_sources(config) {
            for partition in partitions(&asker, &section.topic)? {
                let (first, end) = watermarks(&asker, &section.topic, partition, ANSWER_MAX)
                    .map_err(|e| failed(&format!("cannot ask for the end of `{}`", section.topic), &e))?;
                if first < end {
                    stretches.push(Stretch { source, topic: section.topic.clone(), partition, first, end });
                }
            }
        }
        if stretches.is_empty() {
            let topics: Vec<_> = setup::enabled_sources(config).map(|(_, s)| s.topic.as_str()).collect();
            return Err(Error::user(format!("the topics {} hold no records", topics.join(", ")))
                .hint("are these the right brokers and topics? `stagecast check --print` shows both"));
        }
        Ok(History { clients, stretches })
    }

    /// Reads from the beginning, again and again if asked to.
    pub fn open(&self) -> Result<impl Lanes + use<>> {
        Reader::new(&self.clients, &self.stretches).map_err(|e| failed("cannot read the input topics", &e))
    }
}

fn partitions(asker: &BaseConsumer<LogContext>, topic: &str) -> Result<Vec<i32>> {
    let metadata = asker
        .fetch_metadata(Some(topic), ANSWER_MAX)
        .map_err(|e| failed(&format!("cannot ask for topic `{topic}`"), &e))?;
    let found = metadata.topics().iter().find(|t| t.name() == topic && t.error().is_none());
    match found {
        Some(found) if !found.partitions().is_empty() => {
            Ok(found.partitions().iter().map(|p| p.id()).collect())
        }
        _ => Err(Error::user(format!("there is no topic `{topic}`")).hint(
            "name it with source.NAME.topic, or leave the source out with source.NAME.enabled = false",
        )),
    }
}

fn failed(doing: &str, error: &KafkaError) -> Error {
    Error::world(format!("{doing}: {error}"))
        .hint("is \"bootstrap.servers\" in [kafka] right, and does the cluster answer?")
}

/// One reading of all stretches.
struct Reader {
    consumer: Arc<BaseConsumer<LogContext>>,
    lanes: Vec<Lane>,
}

struct Lane {
    stretch: Stretch,
    queue: PartitionQueue<LogContext>,
    /// Records that came before the lane had a queue of its own.
    early: VecDeque<(i64, RawRecord)>,
    /// Everything before it has been handed on.
    next: i64,
}

impl Reader {
    fn new(clients: &ClientSettings, stretches: &[Stretch]) -> KafkaResult<Reader> {
        let consumer = Arc::new(clients.history_consumer(stretches.len())?);
        let mut assignment = TopicPartitionList::new();
        for stretch in stretches {
            let first = Offset::Offset(stretch.first);
            assignment.add_partition_offset(&stretch.topic, stretch.partition, first)?;
        }
        consumer.assign(&assignment)?;
        let lane = |stretch: &Stretch| {
            let queue = consumer.split_partition_queue(&stretch.topic, stretch.partition);
            let queue = queue.ok_or(KafkaError::Subscription(stretch.topic.clone()))?;
            Ok(Lane { stretch: stretch.clone(), queue, early: VecDeque::new(), next: stretch.first })
        };
        let lanes = stretches.iter().map(lane).collect::<KafkaResult<Vec<Lane>>>()?;
        let mut reader = Reader { consumer, lanes };
        reader.serve();
        Ok(reader)
    }

    /// Lets the client work, and takes in what it fetched before the queues were split.
    fn serve(&mut self) {
        while let Some(polled) = self.consumer.poll(Duration::ZERO) {
            let Ok(message) = polled else { continue };
            let is_of = |lane: &&mut Lane| {
                lane.stretch.partition == message.partition() && lane.stretch.topic == message.topic()
            };
            if let Some(lane) = self.lanes.iter_mut().find(is_of) {
                lane.early.push_back((message.offset(), record(&message)));
            }
        }
    }

    /// Where the client stands in a lane's partition; it moves over the markers of transactions, which are no
    /// records.
    fn position(&self, lane: usize) -> Result<i64> {
        let stretch = &self.lanes[lane].stretch;
        let positions = self.consumer.position().map_err(|e| failed("cannot ask for a position", &e))?;
        let found = positions.find_partition(&stretch.topic, stretch.partition).map(|p| p.offset());
        Ok(match found {
            Some(Offset::Offset(offset)) => offset,
            _ => stretch.first,
        })
    }

    /// The next record, if it comes soon.
    fn poll(&mut self, lane: usize) -> Result<Option<(i64, RawRecord)>> {
        if let Some(early) = self.lanes[lane].early.pop_front() {
            return Ok(Some(early));
        }
        match self.lanes[lane].queue.poll(POLL) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => Ok(None),
            Some(Ok(message)) => Ok(Some((message.offset(), record(&message)))),
            Some(Err(error)) if classify(Call::Poll, &error) == Answer::Retry => Ok(None),
            Some(Err(error)) => Err(failed("cannot read the input topics", &error)),
        }
    }
}

impl Lanes for Reader {
    fn lanes(&self) -> usize {
        self.lanes.len()
    }

    fn source(&self, lane: usize) -> Source {
        self.lanes[lane].stretch.source
    }

    fn next(&mut self, lane: usize) -> Result<Option<RawRecord>> {
        let mut waited: Option<Tick> = None;
        while self.lanes[lane].next < self.lanes[lane].stretch.end {
            if let Some((offset, record)) = self.poll(lane)? {
                let found = &mut self.lanes[lane];
                if offset < found.next || offset >= found.stretch.end {
                    continue;
                }
                found.next = offset + 1;
                return Ok(Some(record));
            }
            self.serve();
            let position = self.position(lane)?;
            let found = &mut self.lanes[lane];
            found.next = found.next.max(position);
            if waited.get_or_insert_with(Tick::now).elapsed() > SILENCE_MAX {
                let Stretch { topic, partition, end, .. } = &found.stretch;
                return Err(Error::world(format!(
                    "`{topic}` [{partition}] brought nothing for {} s, though it goes from offset {} to {end}",
                    SILENCE_MAX.as_secs(),
                    found.next
                ))
                .hint("do the brokers answer? the log (-v) shows what the client says"));
            }
        }
        Ok(None)
    }
}

fn record(message: &BorrowedMessage<'_>) -> RawRecord {
    RawRecord {
        number: message.offset(),
        key: message.key().map(Box::from),
        timestamp: message.timestamp().to_millis(),
        bytes: message.payload().unwrap_or_default().into(),
    }
}
