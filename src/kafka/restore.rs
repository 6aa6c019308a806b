//! Restoring: a partition's customers from the state topic, and where its inputs go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::clients::{ClientSettings, LogContext};
use super::faults::{Faults, Guard};
use super::marker::{self, Found, InputFacts, Marker, WAY_OUT, layout_of_key};
use super::members::Member;
use super::task::{Input, Task, Timing};
use crate::error::Error;
use crate::pipeline::codec::CodecError;
use crate::pipeline::described::Description;
use crate::pipeline::drift::{self, Census, Drift};
use crate::pipeline::engine::Engine;
use crate::pipeline::erasure::OptOut;
use crate::pipeline::plan::Plan;
use crate::pipeline::quality::{self, Ledger, Quality};
use crate::pipeline::varint::get_u64;
use crate::time::Tick;

/// How long to wait for an answer before asking again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a restore did not end.
#[derive(Debug)]
pub enum Interrupted {
    /// The broker did not answer: to be tried again.
    Kafka(KafkaError),
    /// Somebody must look: the state, the offsets or the topics do not fit together.
    Refused(Error),
    /// The program is stopping, or the partitions were taken away meanwhile.
    Cancelled,
}

impl From<KafkaError> for Interrupted {
    fn from(error: KafkaError) -> Self {
        Interrupted::Kafka(error)
    }
}

/// What restoring needs to know.
pub struct Restoring<'a> {
    pub clients: &'a ClientSettings,
    pub worker: usize,
    pub member: &'a Member,
    pub plan: &'a Arc<Plan>,
    pub inputs: &'a Arc<[Input]>,
    pub state_topic: &'a str,
    pub partitions: i32,
    pub timing: Timing,
    pub faults: &'a Faults,
}

/// Why a layout without a description cannot be mapped, and what can.
const UNDESCRIBED: &str = "it was written by a version that did not describe its states: run this version once with \
    the configuration that wrote them, after which they are described, and change the configuration then";

/// A partition of the state topic while it is read. Knows no client: a restore feeds it with records of a broker,
/// a test with records of its own.
pub struct Reading<'a> {
    topic: &'a str,
    partition: i32,
    engine: Engine,
    found: Found,
    /// By customer, the transaction of its state.
    sequences: BTreeMap<String, u64>,
    /// States of layouts that nothing has described so far, and where they stand.
    unread: BTreeMap<String, (i64, Vec<u8>)>,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restored {
    pub records: u64,
    pub took: Duration,
}

impl Restoring<'_> {
    /// Restores these partitions, one after another from one reader. `cancelled` is asked now and then.
    pub fn restore(
        &self,
        wanted: &[i32],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(Vec<Task>, Restored), Interrupted> {
        let began = Tick::now();
        let (mut tasks, mut records) = (Vec::new(), 0);
        let mut news = BTreeSet::new();
        let reader = self.clients.restore_consumer(self.worker)?;
        let ends = self.clients.end_offsets(self.worker)?;
        for partition in wanted {
            let (engine, found, read) = self.read_state(&reader, &ends, *partition, cancelled)?;
            records += read;
            let _ = self.faults.at("state_read");
            let facts = self.input_facts(&ends, *partition)?;
            let resume = match self.faults.lack(Guard::Agreement) {
                true => marker::unchecked(&found, &facts),
                false => marker::resume(*partition, self.partitions, &found, &facts)
                    .map_err(|why| Interrupted::Refused(Error::user(why).hint(WAY_OUT)))?,
            };
            resume.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            news.extend(engine.layout_news());
            if engine.to_reconcile() > 0 {
                tracing::info!(
                    partition,
                    customers = engine.to_reconcile(),
                    "to be evaluated under new definitions"
                );
            }
            let inputs = Arc::clone(self.inputs);
            let (sequence, starts) = (resume.sequence, resume.starts);
            let task = Task::new(*partition, self.partitions, inputs, self.timing, engine, sequence, starts);
            tasks.push(task.with_lived_to(resume.lived_to));
        }
        news.iter().for_each(|sentence| tracing::warn!("the configuration has changed: {sentence}"));
        Ok((tasks, Restored { records, took: began.elapsed() }))
    }

    /// Reads a partition of the state topic up to where it ends now, open transactions included: what they
    /// wrote is waited for, until it is committed or gone.
    fn read_state(
        &self,
        reader: &BaseConsumer<LogContext>,
        ends: &BaseConsumer<LogContext>,
        partition: i32,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(Engine, Found, u64), Interrupted> {
        let mut reading = Reading::new(self.plan, self.state_topic, partition);
        let ends = if self.faults.lack(Guard::RestoreToEnd) { reader } else { ends };
        let (low, end) = ends.fetch_watermarks(self.state_topic, partition, PATIENCE)?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(self.state_topic, partition, Offset::Offset(low))?;
        reader.assign(&assignment)?;
        let mut next = low;
        let mut records = 0;
        while next < end {
            if cancelled() {
                return Err(Interrupted::Cancelled);
            }
            match reader.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    next = message.offset() + 1;
                    records += 1;
                    reading.take(message.offset(), message.key().unwrap_or(b""), message.payload())?;
                }
                Some(Err(KafkaError::PartitionEOF(_))) | None => next = next.max(position_of(reader)?),
                Some(Err(error)) if is_transient(&error) => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
        let (engine, found) = reading.finish()?;
        Ok((engine, found, records))
    }

    fn input_facts(
        &self,
        ends: &BaseConsumer<LogContext>,
        partition: i32,
    ) -> Result<Vec<InputFacts>, Interrupted> {
        let mut asked = TopicPartitionList::new();
        for input in self.inputs.iter() {
            asked.add_partition(&input.topic, partition);
        }
        // Waits for offsets whose transaction is still open.
        let committed = self.member.committed_offsets(asked, PATIENCE)?;
        let mut facts = Vec::new();
        for input in self.inputs.iter() {
            let (low, high) = ends.fetch_watermarks(&input.topic, partition, PATIENCE)?;
            let offset = committed.find_partition(&input.topic, partition).map(|p| p.offset());
            let committed = match offset {
                Some(Offset::Offset(offset)) => Some(offset),
                _ => None,
            };
            facts.push(InputFacts { topic: input.topic.clone(), committed, low, high });
        }
        Ok(facts)
    }
}

impl<'a> Reading<'a> {
    pub fn new(plan: &Arc<Plan>, topic: &'a str, partition: i32) -> Self {
        Reading {
            topic,
            partition,
            engine: Engine::new(Arc::clone(plan), true),
            found: Found::default(),
            sequences: BTreeMap::new(),
            unread: BTreeMap::new(),
        }
    }

    /// Takes in a committed record. Offsets ascend.
    pub fn take(&mut self, offset: i64, key: &[u8], value: Option<&[u8]>) -> Result<(), Interrupted> {
        let (topic, partition) = (self.topic, self.partition);
        let refuse = |what: String| refusal(topic, partition, offset, &what, WAY_OUT);
        let Reading { engine, found, sequences, unread, .. } = self;
        if key == marker::KEY {
            let marker = value.map(Marker::decode).transpose();
            found.marker = marker.map_err(&refuse)?.or(found.marker.take());
            return Ok(());
        }
        if let Some(layout) = layout_of_key(key) {
            let description = value.map(Description::decode).transpose().map_err(&refuse)?;
            description.into_iter().for_each(|description| engine.learn_layout(layout, description));
            return Ok(());
        }
        if let Some(hash) = OptOut::of_key(key) {
            return engine.restore_opt_out(hash, value).map_err(|error| refuse(error.to_string()));
        }
        if engine.restore_identity(key, value).map_err(|error| refuse(error.to_string()))? {
            return Ok(());
        }
        if key == quality::KEY {
            let ledger = Ledger::decode(value.unwrap_or(b"")).map_err(&refuse)?;
            engine.quality = Quality::restored(ledger);
            return Ok(());
        }
        if key == drift::KEY {
            let census = Census::decode(value.unwrap_or(b"")).map_err(&refuse)?;
            engine.drift = Drift::restored(census);
            return Ok(());
        }
        if engine.traffic.restore(key, value).map_err(&refuse)? {
            return Ok(());
        }
        let id = std::str::from_utf8(key).map_err(|_| refuse("the key is no customer id".into()))?;
        let Some(value) = value else {
            sequences.remove(id);
            unread.remove(id);
            engine.restore_tombstone(id);
            return Ok(());
        };
        let mut at = 0;
        let sequence = get_u64(value, &mut at);
        let state = value.get(at..).unwrap_or(&[]);
        match engine.restore(id, state) {
            Ok(()) => drop(unread.remove(id)),
            // Its description may stand behind it, when a later version wrote that.
            Err(CodecError::OtherLayout(_)) => {
                engine.restore_tombstone(id);
                drop(unread.insert(id.to_owned(), (offset, state.to_vec())));
            }
            Err(error) => return Err(refuse(error.to_string())),
        }
        match sequences.get_mut(id) {
            Some(known) => *known = sequence,
            None => drop(sequences.insert(id.to_owned(), sequence)),
        }
        Ok(())
    }

    /// What all of it makes: the customers, and what was found of the transactions.
    pub fn finish(self) -> Result<(Engine, Found), Interrupted> {
        let Reading { topic, partition, mut engine, mut found, sequences, unread } = self;
        for (id, (offset, state)) in &unread {
            engine.restore(id, state).map_err(|error| {
                let way_out = if matches!(error, CodecError::OtherLayout(_)) { UNDESCRIBED } else { WAY_OUT };
                refusal(topic, partition, *offset, &error.to_string(), way_out)
            })?;
        }
        engine.finish_restore();
        found.states = sequences.len() as u64;
        found.newest_sequence = sequences.values().copied().max().unwrap_or(0);
        found.of_newest = sequences.values().filter(|s| **s == found.newest_sequence).count() as u64;
        Ok((engine, found))
    }
}

fn refusal(topic: &str, partition: i32, offset: i64, what: &str, way_out: &str) -> Interrupted {
    let at = format!("{topic} [{partition}] offset {offset}: {what}");
    Interrupted::Refused(Error::user(at).hint(way_out))
}

/// Where the reader stands; it moves over the markers of transactions, which are no records.
fn position_of(reader: &BaseConsumer<LogContext>) -> Result<i64, KafkaError> {
    let positions = reader.position()?;
    let offset = positions.elements().first().map(|p| p.offset());
    Ok(match offset {
        Some(Offset::Offset(offset)) => offset,
        _ => 0,
    })
}

/// Connections come and go; only what repetition cannot mend ends a restore.
fn is_transient(error: &KafkaError) -> bool {
    use super::answer::{Answer, Call, classify};
    classify(Call::Poll, error) == Answer::Retry
}
