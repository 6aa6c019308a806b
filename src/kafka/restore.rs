//! Restoring: a partition's customers from the state topic, or from what was followed or a checkpoint and the topic's
//! tail, and where its inputs go on.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::checkpoint::format::Bad;
use super::checkpoint::{self, Anchor, Checkpoints};
use super::clients::{ClientSettings, LogContext};
use super::faults::{Faults, Guard};
use super::marker::{self, Found, InputFacts, Marker, Resume, WAY_OUT, layout_of_key};
use super::members::Member;
use super::standby::{Follower, Here, Standby};
use super::task::{Input, Task, Timing};
use super::watermarks::watermarks;
use crate::error::Error;
use crate::metrics::{Checkpoint, Metrics};
use crate::pipeline::codec::CodecError;
use crate::pipeline::described::Description;
use crate::pipeline::drift::{self, Census, Drift};
use crate::pipeline::engine::Engine;
use crate::pipeline::erasure::OptOut;
use crate::pipeline::plan::Plan;
use crate::pipeline::quality::{self, Ledger, Quality};
use crate::pipeline::varint::get_u64;
use crate::time::{Tick, Ts, wall_now};

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

/// Why a checkpoint, or what was followed, was of no use.
enum Unfit {
    Why(String),
    Interrupted(Interrupted),
}

impl Unfit {
    /// Why it is passed over; what else keeps the restore from ending is no matter of the aid.
    fn reason(self) -> Result<String, Interrupted> {
        match self {
            Unfit::Why(why) => Ok(why),
            Unfit::Interrupted(Interrupted::Refused(why)) => Ok(why.to_string()),
            Unfit::Interrupted(interrupted) => Err(interrupted),
        }
    }
}

impl From<Interrupted> for Unfit {
    fn from(interrupted: Interrupted) -> Self {
        Unfit::Interrupted(interrupted)
    }
}

impl From<KafkaError> for Unfit {
    fn from(error: KafkaError) -> Self {
        Unfit::Interrupted(error.into())
    }
}

impl From<Bad> for Unfit {
    fn from(bad: Bad) -> Self {
        Unfit::Why(bad.to_string())
    }
}

impl From<KafkaError> for Interrupted {
    fn from(error: KafkaError) -> Self {
        Interrupted::Kafka(error)
    }
}

/// What restoring needs to know.
pub struct Restoring<'a> {
    pub standby: Option<&'a Standby>,
    pub checkpoints: Option<&'a Checkpoints>,
    pub metrics: &'a Metrics,
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
pub struct Reading {
    topic: String,
    partition: i32,
    engine: Engine,
    found: Found,
    /// By the customer's number, the transaction of its state. What it says of numbers that are free means nothing.
    sequences: Vec<u64>,
    /// States of layouts that nothing has described so far.
    unread: BTreeMap<String, Unread>,
    /// The newest transaction of any state so far and where its first state stands; where the marker does.
    newest: (u64, i64),
    marker_at: i64,
}

/// A state that cannot be read before its layout is described.
struct Unread {
    offset: i64,
    sequence: u64,
    state: Vec<u8>,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restored {
    /// Of the state topic.
    pub records: u64,
    /// Of checkpoints.
    pub from_files: u64,
    /// Partitions that were followed, and those that were this process's a moment ago.
    pub followed: u64,
    pub kept: u64,
    pub took: Duration,
}

/// A partition that is restored.
pub struct Back {
    pub task: Task,
    /// From where on the state topic holds what the task does.
    pub anchor: Option<Anchor>,
}

/// The clients that a restore asks.
struct Readers {
    reader: BaseConsumer<LogContext>,
    /// For offsets only.
    ends: BaseConsumer<LogContext>,
}

/// A partition's state as the topic has it, or a checkpoint and the topic.
struct State {
    engine: Engine,
    resume: Resume,
    log: Option<String>,
    anchor: Option<Anchor>,
}

impl Restoring<'_> {
    /// Restores these partitions, one after another from one reader. `cancelled` is asked now and then.
    pub fn restore(
        &self,
        wanted: &[i32],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(Vec<Back>, Restored), Interrupted> {
        let began = Tick::now();
        let (mut all, mut restored) = (Vec::new(), Restored::default());
        let mut news = BTreeSet::new();
        let (reader, ends) =
            (self.clients.restore_consumer(self.worker)?, self.clients.end_offsets(self.worker)?);
        let readers = Readers { reader, ends };
        for partition in wanted {
            let State { engine, resume, log, anchor } =
                match self.restore_shorter(&readers, *partition, &mut restored, cancelled)? {
                    Some(state) => state,
                    None => self.restore_topic(&readers, *partition, &mut restored, cancelled)?,
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
            let task = task.with_lived_to(resume.lived_to).with_off(resume.off);
            let log = log.or_else(|| self.checkpoints.map(|_| checkpoint::new_log()));
            all.push(Back { task: task.with_log(log), anchor });
        }
        news.iter().for_each(|sentence| tracing::warn!("the configuration has changed: {sentence}"));
        Ok((all, Restored { took: began.elapsed(), ..restored }))
    }

    /// By what is here of it, or else by a checkpoint.
    fn restore_shorter(
        &self,
        readers: &Readers,
        partition: i32,
        restored: &mut Restored,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<State>, Interrupted> {
        match self.restore_followed(readers, partition, restored, cancelled)? {
            Some(state) => Ok(Some(state)),
            None => self.restore_checkpoint(readers, partition, restored, cancelled),
        }
    }

    /// Reads what the topic has behind what was kept or followed. `None` where nothing was, or it does not fit.
    fn restore_followed(
        &self,
        readers: &Readers,
        partition: i32,
        restored: &mut Restored,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<State>, Interrupted> {
        let (what, count, follower) = match self.standby.and_then(|standby| standby.take(partition)) {
            None => return Ok(None),
            Some(Here::Kept(follower)) => ("what was kept", &mut restored.kept, follower),
            Some(Here::Followed(follower)) => ("what was followed", &mut restored.followed, follower),
        };
        match self.try_followed(follower, readers, partition, cancelled) {
            Ok((state, records)) => {
                *count += 1;
                restored.records += records;
                Ok(Some(state))
            }
            Err(unfit) => Ok(pass_over(partition, what, &unfit.reason()?)),
        }
    }

    fn try_followed(
        &self,
        follower: Follower,
        readers: &Readers,
        partition: i32,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(State, u64), Unfit> {
        let taken_at = wall_now();
        let (low, end) = self.bounds(readers, partition)?;
        let Follower { mut reading, next, .. } = follower;
        let from = next.unwrap_or(low);
        if from < low || from > end {
            return Err(Unfit::Why(format!(
                "it goes on at offset {from}, and the topic holds {low} to {end}: it was re-created or truncated"
            )));
        }
        reading.engine.set_plan(Arc::clone(self.plan));
        let (records, engine, found) = self.read_on(readers, partition, (from, end), reading, cancelled)?;
        Ok((self.agree(readers, partition, engine, found, taken_at)?, records))
    }

    /// Reads all that the topic has.
    fn restore_topic(
        &self,
        readers: &Readers,
        partition: i32,
        restored: &mut Restored,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<State, Interrupted> {
        let taken_at = wall_now();
        let bounds = self.bounds(readers, partition)?;
        let reading = self.reading(partition);
        let (records, engine, found) = self.read_on(readers, partition, bounds, reading, cancelled)?;
        restored.records += records;
        self.agree(readers, partition, engine, found, taken_at)
    }

    /// Reads the partition's checkpoint and what the topic has from there on. `None` where there is no checkpoint, or
    /// none that fits: whatever is wrong with it, the topic has it all.
    fn restore_checkpoint(
        &self,
        readers: &Readers,
        partition: i32,
        restored: &mut Restored,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<State>, Interrupted> {
        let Some(checkpoints) = self.checkpoints else { return Ok(None) };
        let mut read = Restored::default();
        match self.try_checkpoint(checkpoints, readers, partition, &mut read, cancelled) {
            Ok(None) => Ok(None),
            Ok(Some(state)) => {
                restored.records += read.records;
                restored.from_files += read.from_files;
                self.metrics.checkpoint(Checkpoint::Used);
                Ok(Some(state))
            }
            Err(unfit) => {
                let why = unfit.reason()?;
                self.metrics.checkpoint(Checkpoint::Refused);
                Ok(pass_over(partition, "the checkpoint", &why))
            }
        }
    }

    fn try_checkpoint(
        &self,
        checkpoints: &Checkpoints,
        readers: &Readers,
        partition: i32,
        read: &mut Restored,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<State>, Unfit> {
        let taken_at = wall_now();
        let (low, end) = self.bounds(readers, partition)?;
        let opened = checkpoints.open(partition, self.plan.layout_id, (low, end), taken_at);
        let Some((header, file)) = opened.map_err(Unfit::Why)? else { return Ok(None) };
        let mut reading = self.reading(partition);
        let trailer = file.read(|key, value| {
            read.from_files += 1;
            // Now and then.
            if read.from_files.is_multiple_of(1_024) && cancelled() {
                return Err(Unfit::Interrupted(Interrupted::Cancelled));
            }
            reading.take(header.from, key, Some(value)).map_err(Unfit::from)
        })?;
        let (records, engine, found) =
            self.read_on(readers, partition, (header.from, end), reading, cancelled)?;
        read.records = records;
        let Some(marker) = &found.marker else {
            return Err(Unfit::Why(
                "the topic has no commit marker from its offset on: it is another topic".into(),
            ));
        };
        if marker.log.as_ref() != Some(&header.log) {
            return Err(Unfit::Why("the topic is another one than it was taken of".into()));
        }
        if marker.sequence < trailer.sequence {
            return Err(Unfit::Why(format!(
                "it goes to transaction {}, and the topic to {}: the topic was truncated",
                trailer.sequence, marker.sequence
            )));
        }
        Ok(Some(self.agree(readers, partition, engine, found, taken_at)?))
    }

    /// Holds the state against the group's offsets and the inputs.
    fn agree(
        &self,
        readers: &Readers,
        partition: i32,
        engine: Engine,
        found: Found,
        taken_at: Ts,
    ) -> Result<State, Interrupted> {
        let facts = self.input_facts(&readers.ends, partition)?;
        let resume = match self.faults.lack(Guard::Agreement) {
            true => marker::unchecked(&found, &facts),
            false => marker::resume(partition, self.partitions, &found, &facts)
                .map_err(|why| Interrupted::Refused(Error::user(why).hint(WAY_OUT)))?,
        };
        let log = found.marker.and_then(|marker| marker.log);
        // Without the name in the topic a checkpoint could not be known to be of it.
        let from = found.last_from.filter(|_| log.is_some());
        Ok(State { engine, resume, log, anchor: from.map(|from| Anchor { from, taken_at }) })
    }

    /// Where the partition of the state topic begins and ends now.
    fn bounds(&self, readers: &Readers, partition: i32) -> Result<(i64, i64), KafkaError> {
        let Readers { reader, ends } = readers;
        let ends = if self.faults.lack(Guard::RestoreToEnd) { reader } else { ends };
        watermarks(ends, self.state_topic, partition, PATIENCE)
    }

    /// Reads a partition of the state topic from one offset up to another, open transactions included: what they
    /// wrote is waited for, until it is committed or gone. Returns the number of records, and what all of it makes with
    /// what was read before.
    fn read_on(
        &self,
        readers: &Readers,
        partition: i32,
        (from, end): (i64, i64),
        mut reading: Reading,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(u64, Engine, Found), Interrupted> {
        let reader = &readers.reader;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(self.state_topic, partition, Offset::Offset(from))?;
        reader.assign(&assignment)?;
        let mut next = from;
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
        let _ = self.faults.at("state_read");
        Ok((records, engine, found))
    }

    fn reading(&self, partition: i32) -> Reading {
        let mut reading = Reading::new(self.plan, self.state_topic, partition);
        reading.share_room(self.partitions);
        reading
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
            let (low, high) = watermarks(ends, &input.topic, partition, PATIENCE)?;
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

fn pass_over<T>(partition: i32, what: &str, why: &str) -> Option<T> {
    tracing::warn!(partition, "{what} is not used, the state topic is read from its beginning: {why}");
    None
}

impl Reading {
    pub fn new(plan: &Arc<Plan>, topic: &str, partition: i32) -> Self {
        Reading::with(Engine::new(Arc::clone(plan), true), topic, partition)
    }

    /// Goes on with what a task has, all of which stands in the topic.
    pub fn going_on(task: Task, topic: &str) -> Self {
        let partition = task.partition;
        Reading::with(task.into_engine(), topic, partition)
    }

    fn with(engine: Engine, topic: &str, partition: i32) -> Self {
        Reading {
            topic: topic.to_owned(),
            partition,
            engine,
            found: Found::default(),
            sequences: Vec::new(),
            unread: BTreeMap::new(),
            newest: (0, 0),
            marker_at: 0,
        }
    }

    /// Says that this is one of so many partitions, which share what may stay awake.
    pub fn share_room(&mut self, partitions: i32) {
        self.engine.share_room(usize::try_from(partitions).unwrap_or(1));
    }

    /// Bytes of what was read.
    pub fn bytes(&self) -> usize {
        self.engine.bytes() + self.sequences.capacity() * size_of::<u64>()
    }

    /// Lets customers settle in, so many at most and all but `few`. Returns whether there are more.
    pub fn settle(&mut self, most: usize, few: usize) -> bool {
        self.engine.settle_some(most, few)
    }

    /// Takes in a committed record. Offsets ascend.
    pub fn take(&mut self, offset: i64, key: &[u8], value: Option<&[u8]>) -> Result<(), Interrupted> {
        let Reading { topic, partition, engine, found, sequences, unread, newest, marker_at } = self;
        let refuse = |what: String| refusal(topic, *partition, offset, &what, WAY_OUT);
        if key == marker::KEY {
            *marker_at = offset;
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
            unread.remove(id);
            engine.restore_tombstone(id);
            return Ok(());
        };
        let mut at = 0;
        let sequence = get_u64(value, &mut at);
        if sequence > newest.0 {
            *newest = (sequence, offset);
        }
        let state = value.get(at..).unwrap_or(&[]);
        match engine.restore(id, state) {
            Ok(customer) => {
                note(sequences, customer, sequence);
                if !unread.is_empty() {
                    unread.remove(id);
                }
            }
            // Its description may stand behind it, when a later version wrote that.
            Err(CodecError::OtherLayout(_)) => {
                engine.restore_tombstone(id);
                drop(unread.insert(id.to_owned(), Unread { offset, sequence, state: state.to_vec() }));
            }
            Err(error) => return Err(refuse(error.to_string())),
        }
        Ok(())
    }

    /// What all of it makes: the customers, and what was found of the transactions.
    pub fn finish(self) -> Result<(Engine, Found), Interrupted> {
        let Reading { topic, partition, mut engine, mut found, mut sequences, unread, newest, marker_at } =
            self;
        for (id, Unread { offset, sequence, state }) in &unread {
            let customer = engine.restore(id, state).map_err(|error| {
                let way_out = if matches!(error, CodecError::OtherLayout(_)) { UNDESCRIBED } else { WAY_OUT };
                refusal(&topic, partition, *offset, &error.to_string(), way_out)
            })?;
            note(&mut sequences, customer, *sequence);
        }
        engine.finish_restore();
        found.states = engine.store().len() as u64;
        // Of whom a task had when it was given up nothing is said.
        let sequence_of = |customer: u32| sequences.get(customer as usize).copied().unwrap_or(0);
        for sequence in engine.store().indices().map(sequence_of) {
            match sequence.cmp(&found.newest_sequence) {
                Ordering::Greater => (found.newest_sequence, found.of_newest) = (sequence, 1),
                Ordering::Equal => found.of_newest += 1,
                Ordering::Less => {}
            }
        }
        found.last_from = found.marker.as_ref().map(|marker| match newest {
            (sequence, at) if sequence == marker.sequence => at.min(marker_at),
            _ => marker_at,
        });
        Ok((engine, found))
    }
}

fn note(sequences: &mut Vec<u64>, customer: u32, sequence: u64) {
    let place = customer as usize;
    if place >= sequences.len() {
        sequences.resize(place + 1, 0);
    }
    sequences[place] = sequence;
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
pub(super) fn is_transient(error: &KafkaError) -> bool {
    use super::answer::{Answer, Call, classify};
    classify(Call::Poll, error) == Answer::Retry
}
