//! An output topic from its first record up to where it ends now: nothing is joined, committed or written.
//!
//! Partition after partition, in the order of offsets; only what is committed. Inputs, whose partitions have to be
//! read side by side, are [`super::history`]'s.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedHeaders, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::clients::{ClientSettings, LogContext};
use super::watermarks::watermarks;
use crate::error::{Error, Result};
use crate::time::{Tick, Ts};

/// How long the brokers may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing may come before the end of a partition.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// A record of the topic.
pub(crate) struct Found<'m> {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<&'m [u8]>,
    pub value: Option<&'m [u8]>,
    pub headers: Option<&'m BorrowedHeaders>,
    pub timestamp: Option<Ts>,
}

/// Reads the whole topic, up to where it ends now.
pub(crate) fn read_topic(
    clients: &ClientSettings,
    topic: &str,
    take: &mut dyn FnMut(Found<'_>) -> Result<()>,
) -> Result<()> {
    let failed = |e: KafkaError| failed(topic, &e);
    let reader = clients.restore_consumer(0).map_err(failed)?;
    let metadata = reader.fetch_metadata(Some(topic), PATIENCE).map_err(failed)?;
    let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
    if partitions.is_empty() {
        return Err(Error::user(format!("there is no topic {topic}"))
            .hint("`stagecast topics create` makes it; [topics] names it"));
    }
    for partition in partitions {
        let (low, high) = watermarks(&reader, topic, partition.id(), PATIENCE).map_err(failed)?;
        if low < high {
            read_partition(&reader, topic, partition.id(), (low, high), take)?;
        }
    }
    Ok(())
}

/// The same for those who want nothing but the values, and where each stood.
pub(crate) fn read_values(
    clients: &ClientSettings,
    topic: &str,
    take: &mut dyn FnMut(&[u8], &str) -> Result<()>,
) -> Result<()> {
    read_topic(clients, topic, &mut |found| {
        let at = format!("{topic} [{}] offset {}", found.partition, found.offset);
        found.value.map_or(Ok(()), |value| take(value, &at))
    })
}

fn failed(topic: &str, error: &KafkaError) -> Error {
    Error::world(format!("cannot read {topic}: {error}"))
}

fn read_partition(
    reader: &BaseConsumer<LogContext>,
    topic: &str,
    partition: i32,
    (low, high): (i64, i64),
    take: &mut dyn FnMut(Found<'_>) -> Result<()>,
) -> Result<()> {
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(topic, partition, Offset::Offset(low))
        .and_then(|()| reader.assign(&assignment))
        .map_err(|e| failed(topic, &e))?;
    let mut heard = Tick::now();
    loop {
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(message)) if message.offset() >= high => return Ok(()),
            Some(Ok(message)) => {
                heard = Tick::now();
                let is_last = message.offset() + 1 == high;
                take(Found {
                    partition,
                    offset: message.offset(),
                    key: message.key(),
                    value: message.payload(),
                    headers: message.headers(),
                    timestamp: message.timestamp().to_millis(),
                })?;
                if is_last {
                    return Ok(());
                }
            }
            // The end of what is committed.
            Some(Err(KafkaError::PartitionEOF(of))) if of == partition => return Ok(()),
            // The client tries again by itself.
            Some(Err(error)) if heard.elapsed() < STALLED_AFTER => tracing::debug!("{error}"),
            None if heard.elapsed() < STALLED_AFTER => {}
            Some(Err(error)) => return Err(failed(topic, &error)),
            None => {
                let what = format!("partition {partition} of {topic} does not come to its end");
                return Err(Error::world(what).hint("look whether all brokers are up, and run it again"));
            }
        }
    }
}
