//! A whole topic, read once from its first record up to where it ends now. Nothing is joined, committed or written.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::clients::{ClientSettings, LogContext};
use crate::error::{Error, Result};
use crate::time::Tick;

/// How long the brokers may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing may come before the end of a partition.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// What is done with a record.
type Take<'t> = &'t mut dyn FnMut(&BorrowedMessage<'_>) -> Result<()>;

/// Reads the topic that the key `named_by` of the configuration names, one partition after the other.
pub fn read_topic(clients: &ClientSettings, topic: &str, named_by: &str, take: Take<'_>) -> Result<()> {
    let failed = |e: KafkaError| Error::world(format!("cannot read {topic}: {e}"));
    let reader = clients.restore_consumer(0).map_err(failed)?;
    let metadata = reader.fetch_metadata(Some(topic), PATIENCE).map_err(failed)?;
    let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
    if partitions.is_empty() {
        return Err(Error::user(format!("there is no topic {topic}"))
            .hint(format!("`stagecast topics create` makes it; {named_by} names it")));
    }
    for partition in partitions {
        let (low, high) = reader.fetch_watermarks(topic, partition.id(), PATIENCE).map_err(failed)?;
        if low < high {
            read_partition(&reader, topic, partition.id(), (low, high), take)?;
        }
    }
    Ok(())
}

/// The same for those who want nothing but the values, and where each stood.
pub fn read_values(
    clients: &ClientSettings,
    topic: &str,
    named_by: &str,
    take: &mut dyn FnMut(&[u8], &str) -> Result<()>,
) -> Result<()> {
    read_topic(clients, topic, named_by, &mut |message| {
        let at = format!("{topic} [{}] offset {}", message.partition(), message.offset());
        message.payload().map_or(Ok(()), |value| take(value, &at))
    })
}

fn read_partition(
    reader: &BaseConsumer<LogContext>,
    topic: &str,
    partition: i32,
    (low, high): (i64, i64),
    take: Take<'_>,
) -> Result<()> {
    let failed = |e: KafkaError| Error::world(format!("cannot read {topic}: {e}"));
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, Offset::Offset(low)).map_err(failed)?;
    reader.assign(&assignment).map_err(failed)?;
    let mut heard = Tick::now();
    loop {
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(message)) if message.offset() >= high => return Ok(()),
            Some(Ok(message)) => {
                heard = Tick::now();
                let is_last = message.offset() + 1 == high;
                take(&message)?;
                if is_last {
                    return Ok(());
                }
            }
            // The end of what is committed.
            Some(Err(KafkaError::PartitionEOF(of))) if of == partition => return Ok(()),
            // The client tries again by itself.
            Some(Err(error)) if heard.elapsed() < STALLED_AFTER => tracing::debug!("{error}"),
            None if heard.elapsed() < STALLED_AFTER => {}
            Some(Err(error)) => return Err(failed(error)),
            None => {
                let what = format!("partition {partition} of {topic} does not come to its end");
                return Err(Error::world(what).hint("look whether all brokers are up, and run it again"));
            }
        }
    }
}
