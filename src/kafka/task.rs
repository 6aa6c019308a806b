//! One partition of every input: the engine that owns its customers, the merge of its topics, its clock.
//!
//! Knows the protocol (take records in, advance, commit, roll back) but no client: a worker drives it with
//! records of a broker, a test with records of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::marker::{Done, Marker};
use super::spans;
use crate::config::Clock;
use crate::event::decoder::{Decoder, Headers};
use crate::event::native::Envelope;
use crate::event::trace::Trace;
use crate::event::{Event, KeptEvent, Origin, ProfileChange, Reject, Source};
use crate::merge::{Merger, Next, Position};
use crate::pipeline::engine::{Applied, Engine};
use crate::pipeline::identity::Message;
use crate::pipeline::outbox::hash_customer;
use crate::pipeline::plan::Plan;
use crate::pipeline::varint::put_u64;
use crate::time::{Tick, Ts};

/// So many customers are seen to at once, so that the state of each is near when it is needed.
pub const WARM_AHEAD: usize = 8;

/// A topic of the partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub source: Source,
    pub topic: String,
    pub reading: Reading,
}

/// What its records are.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    Events(Decoder),
    /// What passes between the ids of one customer.
    Moves,
}

/// How time passes.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub clock: Clock,
    pub grace_ms: i64,
    pub max_future_ms: i64,
}

/// A record as a lane brings it.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    pub offset: i64,
    pub key: Option<&'a [u8]>,
    pub value: &'a [u8],
    pub headers: &'a dyn Headers,
    /// The broker's timestamp.
    pub timestamp: Option<Ts>,
}

/// What became of a record that came in.
#[derive(Clone, Debug, PartialEq)]
pub enum Intake {
    /// It waits for its turn.
    Taken,
    /// It was done before this task began.
    DoneBefore,
    /// It cannot be used and must go to the dead letters.
    DeadLetter(Reject),
    /// It comes from another version of this program and may be all that is left of a customer: the text says what to do.
    /// Nobody may go on without it.
    Foreign(String),
}

/// Something that waits in the merge.
#[derive(Debug)]
enum Waiting {
    Event {
        event: KeptEvent,
        timestamp: Option<Ts>,
        /// Few come with one, so it lives elsewhere.
        traced: Option<Box<Traced>>,
    },
    Message(Box<Message>),
}

impl Waiting {
    fn customer_id(&self) -> Option<&str> {
        match self {
            Waiting::Event { event, .. } => Some(event.customer_id()),
            Waiting::Message(_) => None,
        }
    }
}

/// The trace that a record came with, and the instant at which it was read.
#[derive(Debug)]
struct Traced {
    trace: Trace,
    read_at: Ts,
}

/// What one advance did.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Of an event; what only passes between two ids of a customer is none.
    pub applied: Option<(Source, Applied)>,
    /// The broker's timestamp of the record.
    pub timestamp: Option<Ts>,
    /// When its score was there. What follows from it, and the outputs, came after.
    pub scored: Option<Tick>,
}

/// What must be remembered of a lane to trust the client's position.
///
/// After a rewind the client names the old position until it has delivered a record again.
#[derive(Clone, Copy, Debug, Default)]
struct LaneMemory {
    taken_since_commit: bool,
    position: i64,
    stale: Option<i64>,
}

/// The task of one partition.
pub struct Task {
    pub partition: i32,
    partitions: i32,
    inputs: Arc<[Input]>,
    timing: Timing,
    engine: Engine,
    merger: Merger<Waiting>,
    clock: Ts,
    /// When the last record came in, or the task began.
    active: Tick,
    sequence: u64,
    /// Events yet to be applied of those whose customers were made to be near.
    warm: usize,
    committed: Vec<Position>,
    lanes: Vec<LaneMemory>,
    /// The instant up to which every customer's silence was lived through, now and as of the last commit.
    lived_to: Option<Ts>,
    committed_lived_to: Option<Ts>,
    /// Descriptions of layouts that must stand in the log with the next states.
    undescribed: Vec<(u32, Vec<u8>)>,
    /// See [`Marker::log`].
    log: Option<String>,
    /// How far topics were read that are no inputs at present: they may be again.
    off: BTreeMap<String, Done>,
    /// Whether something was done since the last commit.
    pub changed: bool,
    /// Whether more silence is due than was worth doing at once.
    pub more: bool,
}

impl Task {
    /// A task whose engine is restored, at the positions that belong to that state.
    pub fn new(
        partition: i32,
        partitions: i32,
        inputs: Arc<[Input]>,
        timing: Timing,
        mut engine: Engine,
        sequence: u64,
        starts: Vec<Position>,
    ) -> Self {
        engine.time_scores(Tick::now);
        Task {
            partition,
            partitions,
            inputs,
            timing,
            merger: Merger::new(timing.grace_ms, starts.clone()),
            clock: Ts::MIN,
            active: Tick::now(),
            sequence,
            warm: 0,
            lanes: vec![LaneMemory::default(); starts.len()],
            committed: starts,
            lived_to: None,
            committed_lived_to: None,
            undescribed: engine.undescribed_layouts(),
            log: None,
            off: BTreeMap::new(),
            changed: false,
            more: engine.to_reconcile() > 0,
            engine,
        }
    }

    /// Tells up to which instant silence was lived through before this task began.
    pub fn with_lived_to(mut self, lived_to: Option<Ts>) -> Self {
        (self.lived_to, self.committed_lived_to) = (lived_to, lived_to);
        self
    }

    /// Tells how far topics were read that are no inputs at present.
    pub fn with_off(self, off: BTreeMap<String, Done>) -> Self {
        Task { off, ..self }
    }

    /// Tells the name of the log that the task's markers stand in.
    pub fn with_log(self, log: Option<String>) -> Self {
        Task { log, ..self }
    }

    /// Takes in a record of a lane, at this reading of both clocks.
    pub fn take(&mut self, lane: usize, record: &Incoming<'_>, now: Tick, wall: Ts) -> Intake {
        self.active = now;
        self.engine.tell_wall(wall);
        self.lanes[lane].taken_since_commit = true;
        self.lanes[lane].stale = None;
        if self.merger.is_done(lane, record.offset) {
            return Intake::DoneBefore;
        }
        let Input { source, topic, reading } = &self.inputs[lane];
        let Reading::Events(decoder) = reading else { return self.take_message(lane, record) };
        let latest = match self.timing.clock {
            Clock::Wall => Some(wall.saturating_add(self.timing.max_future_ms)),
            Clock::Events => None,
        };
        let envelope = Envelope { source: *source, key: record.key, timestamp: record.timestamp, latest };
        match decoder.decode(record.value, &envelope, record.headers, &self.engine.plan().settings.money) {
            Ok(mut event) => {
                if !self.engine.plan().keeps_channels {
                    event.channel = None;
                }
                let (ts, customer) = (event.ts, hash_customer(&event.customer_id));
                if let Some(ProfileChange::Merged(merge)) = event.profile.as_deref_mut() {
                    merge.origin = Some(Box::new(origin(topic, self.partition, record)));
                }
                let traced = Trace::of(record.headers).map(|trace| Box::new(Traced { trace, read_at: wall }));
                let waiting = Waiting::Event { event: event.into(), timestamp: record.timestamp, traced };
                self.merger.push(lane, record.offset, ts, customer, waiting);
                Intake::Taken
            }
            Err(reject) => self.refuse(lane, record, reject),
        }
    }

    fn refuse(&mut self, lane: usize, record: &Incoming<'_>, reject: Reject) -> Intake {
        self.merger.skip(lane, record.offset);
        self.changed = true;
        Intake::DeadLetter(reject)
    }

    fn take_message(&mut self, lane: usize, record: &Incoming<'_>) -> Intake {
        let read = Message::decode(record.value);
        match read.and_then(|message| self.engine.check_message(&message).map(|()| message)) {
            Ok(message) => {
                let (at, customer) = (message.at, hash_customer(&message.to));
                let waiting = Waiting::Message(Box::new(message));
                self.merger.push(lane, record.offset, at, customer, waiting);
                Intake::Taken
            }
            Err(reject) => match Message::foreign_version(record.value) {
                None => self.refuse(lane, record, reject),
                Some(version) => Intake::Foreign(format!(
                    "{}, partition {}, offset {}: a message between customers has version {version}, which this program \
                     does not read; run the version that wrote it",
                    self.inputs[lane].topic, self.partition, record.offset
                )),
            },
        }
    }

    /// Applies the next event whose turn has come. Silence is left to [`Task::pass_time`]: an event lives
    /// through its own customer's, and the others' cost less when many instants are due at once. Nobody's turn
    /// has come while customers wait to be reconciled.
    pub fn advance(&mut self) -> Option<Step> {
        if self.engine.to_reconcile() > 0 {
            return None;
        }
        if self.warm == 0 {
            self.warm = WARM_AHEAD;
            let events = self.merger.next_few(WARM_AHEAD).filter_map(Waiting::customer_id);
            self.engine.warm(events);
        }
        let Next { item: waiting, early, .. } = self.merger.pop()?;
        self.warm -= 1;
        self.changed = true;
        match waiting {
            Waiting::Event { mut event, timestamp, traced } => {
                if !early {
                    self.clock = self.clock.max(event.ts);
                }
                let event = event.take();
                let applied = match traced {
                    None => self.engine.step(&event),
                    Some(traced) => self.step_traced(&event, *traced),
                };
                // One topic may carry events of every kind.
                let scored = self.engine.take_scored();
                Some(Step { applied: Some((event.source, applied)), timestamp, scored })
            }
            Waiting::Message(message) => {
                if !early {
                    self.clock = self.clock.max(message.at);
                }
                let applied = self.engine.receive(*message);
                Some(Step { applied, timestamp: None, scored: self.engine.take_scored() })
            }
        }
    }

    /// What the event causes is due at its own instant or later; what is due before comes of silence.
    fn step_traced(&mut self, event: &Event<'_>, traced: Traced) -> Applied {
        let decided_before = self.engine.outbox.len();
        let applied = self.engine.step(event);
        let trace = spans::processed(traced.trace, event.source, self.partition, traced.read_at);
        self.engine.outbox.belong_to(&Arc::new(trace), decided_before, event.ts);
        applied
    }

    /// Lets time pass: an idle partition follows the wall clock. A task counts as idle once nothing came for
    /// `grace`, which delays nobody, since a silent customer's instants wait that long anyway.
    /// Before any time passes, customers are reconciled, some at a time.
    pub fn pass_time(&mut self, wall: Ts) {
        if self.engine.to_reconcile() > 0 {
            self.more = self.engine.reconcile(self.lived_to.unwrap_or(Ts::MIN));
            self.changed = true;
            return;
        }
        let idle = self.merger.all_ended() && self.merger.waiting() == 0;
        self.engine.tell_wall(wall);
        if idle {
            self.engine.forget_erasures();
            self.engine.forget_merge_records();
        }
        let grace = Duration::from_millis(self.timing.grace_ms.max(0) as u64);
        if self.timing.clock == Clock::Wall && idle && self.active.elapsed() >= grace {
            self.clock = self.clock.max(wall);
        }
        if self.clock != Ts::MIN {
            let limit = self.clock.saturating_sub(self.timing.grace_ms);
            self.more = self.engine.tick(limit);
            if !self.more {
                self.lived_to = self.lived_to.max(Some(limit));
            }
        }
        self.changed |= !self.engine.outbox.is_empty()
            || !self.engine.store().dirty().is_empty()
            || self.engine.opt_outs().has_changed()
            || self.engine.identities().has_changed();
    }

    /// Runs the clock on to `until`, that instant included, from the customer numbered `from`; returns where to
    /// go on once what waits has gone out.
    pub fn run_until(&mut self, until: Ts, from: u32) -> Option<u32> {
        self.changed = true;
        let next = self.engine.run_on(until, from);
        if next.is_none() {
            self.lived_to = self.lived_to.max(Some(until));
        }
        next
    }

    /// The marker of the transaction at hand, which writes so many states.
    pub fn marker(&self, states: u64) -> Marker {
        let lanes = self.inputs.iter().enumerate();
        let read = lanes.map(|(lane, input)| (input.topic.clone(), self.merger.position(lane).into()));
        let inputs: BTreeMap<String, Done> = self.off.clone().into_iter().chain(read).collect();
        let marker = Marker::new(self.sequence + 1, states, self.partitions, inputs);
        marker.with_lived_to(self.lived_to).with_log(self.log.clone())
    }

    /// The layouts whose descriptions the transaction at hand must write before its states.
    pub fn undescribed(&self) -> &[(u32, Vec<u8>)] {
        if self.engine.store().dirty().is_empty() { &[] } else { &self.undescribed }
    }

    /// Appends the state of a customer as the transaction at hand writes it: its number, then the state.
    pub fn encode(&self, customer: u32, out: &mut Vec<u8>) {
        put_u64(out, self.sequence + 1);
        self.engine.encode(customer, out);
    }

    /// The transaction is committed.
    pub fn commit(&mut self) {
        if !self.engine.store().dirty().is_empty() {
            self.undescribed.clear();
        }
        self.committed_lived_to = self.lived_to;
        self.engine.commit();
        self.sequence += 1;
        self.committed = (0..self.inputs.len()).map(|lane| self.merger.position(lane)).collect();
        self.lanes.iter_mut().for_each(|lane| lane.taken_since_commit = false);
        self.changed = false;
    }

    /// The transaction is taken back. The lanes must be read again from [`Task::committed`].
    pub fn rollback(&mut self) {
        self.engine.rollback();
        self.rewind();
    }

    /// The part of a rollback that is not about customers.
    pub(super) fn rewind(&mut self) {
        self.merger = Merger::new(self.timing.grace_ms, self.committed.clone());
        self.clock = Ts::MIN;
        self.lived_to = self.committed_lived_to;
        self.more = self.engine.to_reconcile() > 0;
        for lane in &mut self.lanes {
            lane.stale = lane.taken_since_commit.then_some(lane.position);
            lane.taken_since_commit = false;
        }
        self.changed = false;
    }

    /// Whether all that is in memory is committed, and the log says of it what only the log can: how to read it, and
    /// who waits to be reconciled.
    pub fn is_savable(&self) -> bool {
        let engine = &self.engine;
        !self.changed
            && engine.outbox.is_empty()
            && engine.store().dirty().is_empty()
            && engine.to_reconcile() == 0
            && self.undescribed.is_empty()
    }

    /// The name of the log that the task's markers stand in.
    pub fn log(&self) -> Option<&str> {
        self.log.as_deref()
    }

    /// The last transaction that was committed.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// By lane, what the last commit covers.
    pub fn committed(&self) -> &[Position] {
        &self.committed
    }

    /// By lane, what the transaction at hand covers.
    pub fn position(&self, lane: usize) -> Position {
        self.merger.position(lane)
    }

    /// Whether the transaction at hand covers more than the last commit does.
    pub(super) fn has_moved(&self) -> bool {
        self.committed.iter().enumerate().any(|(lane, committed)| *committed != self.position(lane))
    }

    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    pub fn merger(&self) -> MergerView<'_> {
        MergerView(&self.merger)
    }

    /// What is known of the end of a lane: `position` is where the client stands, `end` where records end.
    pub fn set_end(&mut self, lane: usize, position: i64, end: i64) {
        let memory = &mut self.lanes[lane];
        memory.position = position;
        let stale = memory.stale == Some(position);
        if !stale && position > self.merger.read_to(lane) && position <= end {
            self.merger.read_up_to(lane, position);
        }
        let ended = end >= 0 && self.merger.read_to(lane) >= end;
        self.merger.set_ended(lane, ended);
    }

    /// Bytes of outputs that wait to be sent.
    pub fn waiting_bytes(&self) -> usize {
        self.engine.outbox.bytes()
    }

    /// Whether an event's turn has come.
    pub fn is_ready(&self) -> bool {
        self.merger.is_ready() && self.engine.to_reconcile() == 0
    }

    /// Whether nothing waits, here or for others, and nothing is left to commit.
    pub fn is_quiet(&self) -> bool {
        self.is_done() && !self.more && !self.changed
    }

    /// Whether everything read is done and every lane has been read to its end.
    pub fn is_done(&self) -> bool {
        self.engine.to_reconcile() == 0 && self.merger.all_ended() && self.merger.waiting() == 0
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// What is left of a task that nobody drives any more.
    pub fn into_engine(self) -> Engine {
        self.engine
    }

    pub fn plan(&self) -> &Plan {
        self.engine.plan()
    }

    /// The newest event time that the partition has seen, in this process or before. `None` before the first.
    pub fn seen_to(&self) -> Option<Ts> {
        let before = self.lived_to.map(|lived_to| lived_to.saturating_add(self.timing.grace_ms));
        before.max((self.clock != Ts::MIN).then_some(self.clock))
    }

    /// The partition's event time.
    pub fn clock(&self) -> Ts {
        self.clock
    }
}

/// The record as it came.
fn origin(topic: &str, partition: i32, record: &Incoming<'_>) -> Origin {
    Origin {
        topic: topic.to_owned(),
        partition,
        offset: record.offset,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.to_vec(),
        headers: record.headers.all(),
        timestamp: record.timestamp,
    }
}

/// The merge of a task, to look at.
pub struct MergerView<'a>(&'a Merger<Waiting>);

impl MergerView<'_> {
    pub fn wants(&self, lane: usize) -> bool {
        self.0.wants(lane)
    }

    pub fn waiting_in(&self, lane: usize) -> usize {
        self.0.waiting_in(lane)
    }

    pub fn is_ended(&self, lane: usize) -> bool {
        self.0.is_ended(lane)
    }

    pub fn all_ended(&self) -> bool {
        self.0.all_ended()
    }

    pub fn read_to(&self, lane: usize) -> i64 {
        self.0.read_to(lane)
    }
}
