//! Whether the keys of the inputs stand where murmur2 puts them: the newest records of every partition are
//! looked at, nothing is consumed.
//!
//! Topics are joined by customer, partition by partition. Producers that partition in different ways tear a
//! customer's events apart, which nothing downstream can see.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::answer::{Answer, Call, classify, is_unauthorized};
use super::clients::{ClientSettings, LogContext};
use super::partitioner::partition;
use super::topics::Finding;
use super::watermarks::watermarks;
use crate::error::{Error, Result};
use crate::time::Tick;

/// Records of a partition that are looked at, from its end.
const SAMPLE_RECORDS: i64 = 100;
/// How long one question, and how long one topic may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const TOPIC_MAX: Duration = Duration::from_secs(20);

/// A record that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sampled {
    partition: i32,
    offset: i64,
    /// `None`: it has no key.
    belongs_to: Option<i32>,
}

/// What is wrong with the keys of these topics and their numbers of partitions. `progress` is told the number of
/// records looked at.
pub fn misplaced(
    settings: &ClientSettings,
    topics: &[(&str, i32)],
    progress: &dyn Fn(u64),
) -> Result<Vec<Finding>> {
    let failed = |topic: &str, error: KafkaError| {
        let what = Error::world(format!("cannot look at the keys of `{topic}`: {error}"));
        match is_unauthorized(&error) {
            true => what.hint("grant Read on the inputs, as `stagecast run` needs it"),
            false => what.hint("try again in a moment"),
        }
    };
    let (mut findings, mut before) = (Vec::new(), 0);
    for (topic, partitions) in topics.iter().filter(|(_, partitions)| *partitions > 1) {
        let seen = |records| progress(before + records);
        let sample =
            settings.restore_consumer(0).and_then(|reader| sample(&reader, topic, *partitions, &seen));
        let sample = sample.map_err(|error| failed(topic, error))?;
        findings.extend(judge(topic, &sample));
        before += sample.len() as u64;
    }
    Ok(findings)
}

/// Reads the last records of every partition; fewer where they do not come in time.
fn sample(
    reader: &BaseConsumer<LogContext>,
    topic: &str,
    partitions: i32,
    progress: &dyn Fn(u64),
) -> KafkaResult<Vec<Sampled>> {
    let mut ends = BTreeMap::new();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        let (low, high) = watermarks(reader, topic, partition, ANSWER_MAX)?;
        if low < high {
            ends.insert(partition, high);
            let from = low.max(high - SAMPLE_RECORDS);
            assignment.add_partition_offset(topic, partition, Offset::Offset(from))?;
        }
    }
    let mut sampled = Vec::new();
    reader.assign(&assignment)?;
    let began = Tick::now();
    while !ends.is_empty() && began.elapsed() < TOPIC_MAX {
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => sampled.push(Sampled {
                partition: message.partition(),
                offset: message.offset(),
                belongs_to: message.key().map(|key| partition(key, partitions)),
            }),
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(ends.remove(&partition)),
            Some(Err(error)) if classify(Call::Poll, &error) != Answer::Retry => return Err(error),
            Some(Err(_)) | None => {}
        }
        progress(sampled.len() as u64);
        // The markers of transactions take offsets and are no records: only the position passes them.
        for element in reader.position()?.elements() {
            let Offset::Offset(position) = element.offset() else { continue };
            if ends.get(&element.partition()).is_some_and(|end| position >= *end) {
                ends.remove(&element.partition());
            }
        }
    }
    Ok(sampled)
}

fn judge(topic: &str, sampled: &[Sampled]) -> Vec<Finding> {
    let of = sampled.len();
    let mut findings = Vec::new();
    let astray = |s: &&Sampled| s.belongs_to.is_some_and(|partition| partition != s.partition);
    if let Some(Sampled { partition, offset, belongs_to: Some(to) }) = sampled.iter().find(astray) {
        findings.push(Finding::warning(
            topic,
            format!(
                "{} of {of} sampled keys do not stand where murmur2 puts them (the one at partition {partition}, offset \
                 {offset} belongs to partition {to}): a customer's events meet only where every producer \
                 partitions alike",
                sampled.iter().filter(astray).count()
            ),
            "set partitioner=murmur2_random in producers on librdkafka, whose default is another (Java's is \
             murmur2); without harm only where one and the same partitioner writes every input",
        ));
    }
    let keyless = sampled.iter().filter(|s| s.belongs_to.is_none()).count();
    if keyless > 0 {
        findings.push(Finding::warning(
            topic,
            format!(
                "{keyless} of {of} sampled records have no key: a customer's events stand in any partition"
            ),
            "key every record by the customer id",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32, offset: i64, belongs_to: Option<i32>) -> Sampled {
        Sampled { partition, offset, belongs_to }
    }

    #[test]
    fn keys_that_stand_where_they_belong_are_no_finding() {
        assert_eq!(judge("t", &[]), []);
        assert_eq!(judge("t", &[at(0, 7, Some(0)), at(2, 1, Some(2))]), []);
    }

    #[test]
    fn the_first_key_astray_and_records_without_one_are_told() {
        let findings = judge("t", &[at(0, 7, Some(0)), at(2, 1, Some(1)), at(1, 4, Some(0)), at(1, 5, None)]);
        assert_eq!(findings.len(), 2);
        for words in ["2 of 4 sampled keys", "partition 2, offset 1 belongs to partition 1"] {
            assert!(findings[0].what.contains(words), "{}", findings[0].what);
        }
        assert!(findings[1].what.contains("1 of 4 sampled records have no key"));
    }
}
