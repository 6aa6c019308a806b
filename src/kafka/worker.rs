//! A worker: one thread, one member of the group, one transactional producer, the tasks of its partitions.
//!
//! ```text
//!            fence            assigned              caught something
//!  starting ───────► joined ──────────► restoring ─────────────────► running ──► (commit) ─┐
//!     ▲                 ▲                                              │  ▲                │
//!     │                 └──────────── revoked: commit, let go ─────────┤  └────────────────┘
//!     └──── producer fenced, timed out or fatal: begin anew ───────────┘
//! ```
//!
//! | what happens | answer |
//! |---|---|
//! | a transaction must be aborted | abort, roll the touched customers back, read on from the last commit |
//! | producer fenced, fatal, or an outcome unknown | drop everything, fence, join, restore what is committed |
//! | partitions revoked | commit, then let them go; if they are lost already: abort |
//! | told to stop | commit, leave |
//!
//! Outputs, states, dead letters and the positions of every task held go out in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::{Offset, TopicPartitionList};

use super::acls;
use super::answer::{Answer, Call, classify, is_unauthorized};
use super::checkpoint::Anchor;
use super::checkpoint::anchors::Anchors;
use super::checkpoint::saving::Saving;
use super::faults::Guard;
use super::headers::MessageHeaders;
use super::members::{self, Member, Request};
use super::news::{self, Item, News};
use super::restore::{Back, Interrupted, Restored, Restoring};
use super::service::Shared;
use super::task::{Incoming, Input, Intake, Reading, Task, WARM_AHEAD};
use super::transactions::{BURST_RECORDS, Transactions, TxnError};
use super::{dead_letter, marker, partitioner};
use crate::error::Error;
use crate::event::{Reject, Source, trace};
use crate::http::{Query, RECENT_MOST, Recent, customer_json};
use crate::metrics::{EventResult, Local, Outcome, PartitionFigures};
use crate::pipeline::engine::{Applied, OUTBOX_BYTES};
use crate::pipeline::erasure::OptOut;
use crate::pipeline::identity::Refused;
use crate::pipeline::outbox::Channel;
use crate::pipeline::worth::Worth;
use crate::pipeline::{drift, quality};
use crate::time::{Tick, Ts, format_rfc3339, sleep, wall_now};

/// How long a poll may wait when there is nothing to do.
const IDLE_POLL: Duration = Duration::from_millis(20);
/// Records taken from the client before the tasks advance.
const INTAKE_RECORDS: usize = 2_000;
/// How long the events of all partitions may take in one turn, so that commits come in time: one event may bring the
/// silence of thousands of years.
const TURN_MOST: Duration = Duration::from_secs(1);
/// A lane that holds more is paused until it holds less than a quarter of it.
const LANE_RECORDS: usize = 8_000;
/// Outputs that are worth sending on a backlog, and those that wait for the ones before them, at most.
const BURST_BYTES: usize = 512 * 1024;
const HELD_BYTES: usize = OUTBOX_BYTES / 2;
/// How often the gauges are brought up to date, and how often the state is weighed, customer by customer; more seldom
/// where that would take more than a 200th of the time.
const FIGURES_EVERY: Duration = Duration::from_secs(1);
const WEIGH_EVERY: Duration = Duration::from_secs(15);
const WEIGHING_SHARE: u32 = 200;
/// How often a process that waits for others with `--until-end` says what it has done, and asks what they have.
const SAY_AGAIN: Duration = Duration::from_secs(2);
const HEAR_EVERY: Duration = Duration::from_millis(250);
/// How often `--until-end` tells what it waits for.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Aborts in a row after which the worker begins anew.
const MAX_ABORTS: u32 = 3;
/// Between two lives that failed one after another; a life of this length was no failure.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const LONG_LIFE: Duration = Duration::from_secs(60);
/// How long the first attempt to fence the predecessor may take, and the longest.
const FENCE_FIRST: Duration = Duration::from_millis(150);
const FENCE_MOST: Duration = Duration::from_secs(5);
/// How long the group may go on giving partitions of some inputs only: longer than sessions last.
const UNEVEN_MOST: Duration = Duration::from_secs(60);
/// How long the group may take to tell a worker that its partitions are another's by now.
const SECOND_LOOK: Duration = Duration::from_secs(3);
const CONTENT_TYPE: &[u8] = b"application/json";

/// How a life of the worker ended.
enum End {
    /// Told to stop, or everything is done.
    Finished,
    /// Begin anew: fence, join, restore.
    Anew(String),
    /// The group has given partitions of some inputs only. A member with another subscription is there, which may be this
    /// process as it was before its restart, whom the group has yet to forget.
    Uneven(Error),
    /// Nothing but a person helps.
    Stop(Error),
}

/// Runs one worker until the service stops. Errors only when a person must look.
pub fn work(shared: &Shared, worker: usize, queries: &std::sync::mpsc::Receiver<Query>) -> Result<(), Error> {
    let mut pause = SHORTEST_PAUSE;
    let mut uneven_since = None;
    loop {
        shared.health.set_ready(worker, false);
        let born = Tick::now();
        let why = match Worker::live(shared, worker, queries) {
            End::Finished => return Ok(()),
            End::Stop(error) => return Err(error),
            End::Uneven(error) => {
                if uneven_since.get_or_insert_with(Tick::now).elapsed() > UNEVEN_MOST {
                    return Err(error);
                }
                error.to_string()
            }
            End::Anew(why) => {
                uneven_since = None;
                why
            }
        };
        if shared.is_stopping() {
            tracing::warn!(worker, "stopping without a last commit: {why}");
            return Ok(());
        }
        tracing::warn!(worker, "beginning anew: {why}");
        if born.elapsed() > LONG_LIFE {
            pause = SHORTEST_PAUSE;
        }
        let until = Tick::now().plus(pause);
        while Tick::now() < until && !shared.is_stopping() {
            shared.health.beat(worker, Tick::now());
            sleep(Duration::from_millis(20));
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

struct Worker<'a> {
    shared: &'a Shared,
    worker: usize,
    queries: &'a std::sync::mpsc::Receiver<Query>,
    transactions: Transactions,
    member: &'a Member,
    tasks: BTreeMap<i32, Task>,
    anchors: Anchors,
    saving: Option<Saving>,
    /// Of the model that the tasks have.
    generation: u64,
    local: Local,
    /// The transaction at hand, once something was sent.
    open: bool,
    /// When the first thing of the transaction at hand was done.
    since: Option<Tick>,
    /// When the last commit began.
    last_commit: Option<Tick>,
    /// Whether the group has given it partitions, or none.
    is_member: bool,
    /// When it was told last to other processes how many of the partitions here are through, and when they were asked.
    said: Option<(Tick, usize)>,
    heard: Option<Tick>,
    sent_bytes: usize,
    records: usize,
    /// Broker timestamps of the records of the transaction at hand.
    timestamps: Vec<Ts>,
    aborts: u32,
    paused: BTreeSet<(usize, i32)>,
    buffer: Vec<u8>,
    /// The latest stage changes, and the stage changes and alerts of the transaction at hand.
    recent: Recent,
    news: News,
    /// When figures were shown last, when the state was weighed last, and how long that took.
    shown: Option<Tick>,
    weighed: Option<(Tick, Duration)>,
    /// When it was told last what `--until-end` waits for.
    told: Tick,
    bytes: BTreeMap<i32, u64>,
    worth: BTreeMap<i32, Worth>,
}

impl From<TxnError> for End {
    fn from(error: TxnError) -> Self {
        match error.answer {
            Answer::Stop if is_unauthorized(&error.error) => {
                End::Stop(Error::world(error.to_string()).hint(acls::HINT))
            }
            Answer::Stop => End::Stop(Error::world(error.to_string())),
            _ => End::Anew(error.to_string()),
        }
    }
}

impl From<KafkaError> for End {
    fn from(error: KafkaError) -> Self {
        End::Anew(error.to_string())
    }
}

impl<'a> Worker<'a> {
    /// From fencing to the end of this producer.
    fn live(shared: &'a Shared, worker: usize, queries: &'a std::sync::mpsc::Receiver<Query>) -> End {
        let transactions = match Self::fence(shared, worker) {
            Ok(Some(transactions)) => transactions,
            Ok(None) => return End::Finished,
            Err(end) => return end,
        };
        let topics: Vec<&str> = shared.inputs.iter().map(|input| input.topic.as_str()).collect();
        let member = match members::join(&shared.clients, worker, &topics) {
            Ok(member) => member,
            Err(error) => return End::Stop(Error::world(format!("cannot make the consumer: {error}"))),
        };
        let mut this = Worker {
            shared,
            worker,
            queries,
            transactions,
            member: &member,
            tasks: BTreeMap::new(),
            anchors: Anchors::new(&shared.topics.state),
            saving: shared.checkpoints.clone().map(|all| Saving::new(all, Arc::clone(&shared.metrics))),
            generation: shared.models.generation(),
            local: shared.metrics.local(),
            open: false,
            since: None,
            last_commit: None,
            is_member: false,
            said: None,
            heard: None,
            sent_bytes: 0,
            records: 0,
            timestamps: Vec::new(),
            aborts: 0,
            paused: BTreeSet::new(),
            buffer: Vec::new(),
            recent: Recent::default(),
            news: News::default(),
            shown: None,
            weighed: None,
            told: Tick::now(),
            bytes: BTreeMap::new(),
            worth: BTreeMap::new(),
        };
        let end = match this.run() {
            Ok(()) => End::Finished,
            Err(end) => end,
        };
        let given_up = this.let_go_of_everything();
        let saving = this.saving.take();
        drop(this);
        // Nobody else is kept waiting for the files.
        let saving = saving.filter(|_| matches!(end, End::Finished)).map(|mut saving| {
            saving.save(given_up);
            saving
        });
        members::close(member);
        saving.into_iter().for_each(Saving::finish);
        end
    }

    /// Fences whoever had this name before, before anything is read. `None`: told to stop meanwhile.
    ///
    /// A predecessor that was killed left a transaction open, which the brokers first have to end; told so, librdkafka
    /// asks again after half a second, when they need a few milliseconds. A producer made anew asks at once. It has
    /// twice as long each time, so that slow brokers are met as well.
    fn fence(shared: &Shared, worker: usize) -> Result<Option<Transactions>, End> {
        let new = || -> Result<Transactions, TxnError> {
            Transactions::new(&shared.clients, worker)?.with_faults(&shared.clients, &shared.faults)
        };
        let (mut transactions, mut patience) = (new()?, FENCE_FIRST);
        loop {
            shared.health.beat(worker, Tick::now());
            if shared.is_stopping() {
                return Ok(None);
            }
            match transactions.init(patience) {
                Ok(()) => return Ok(Some(transactions)),
                Err(error) if error.answer == Answer::Retry && patience < FENCE_MOST => {
                    patience = (2 * patience).min(FENCE_MOST);
                    transactions = new()?;
                }
                Err(error) if error.answer == Answer::Retry => {
                    tracing::warn!(worker, "waiting for the brokers: {error}")
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn run(&mut self) -> Result<(), End> {
        loop {
            self.shared.health.beat(self.worker, Tick::now());
            if self.shared.is_stopping() {
                if self.saving.is_some() {
                    self.ask_where_state_ends(&self.tasks.keys().copied().collect::<Vec<_>>());
                }
                return self.commit();
            }
            self.take_model();
            if self.is_all_committed() {
                // The last commit of a burst may have come too soon after the one before it.
                self.show_figures();
            }
            self.take_in()?;
            while let Some(request) = self.member.context().next() {
                self.answer(request)?;
            }
            self.look_for_ends();
            self.advance()?;
            self.hold_back_lanes()?;
            if self.is_commit_due() {
                self.commit()?;
            }
            self.save_some();
            self.reply();
            if self.shared.until_end && self.finish_partitions()? {
                return Ok(());
            }
        }
    }

    /// Goes on with a checkpoint, where nothing is uncommitted.
    fn save_some(&mut self) {
        if let Some(saving) = self.saving.as_mut().filter(|_| !self.open && self.since.is_none()) {
            saving.go_on(self.member, &self.tasks, &mut self.anchors);
        }
    }

    /// Before a commit after which these partitions are given up: what is left of them goes on, or its checkpoint does,
    /// from where the topic ends now. Where nothing is left to commit but the tail is long, there is one commit
    /// more, of markers: without one nobody could say that these partitions are still ours.
    fn ask_where_state_ends(&mut self, partitions: &[i32]) {
        let is_due = !self.is_all_committed();
        // Brokers that do not answer would not commit either, and a stop need not wait for them.
        if (is_due || self.anchors.is_behind(partitions)) && self.anchors.ask(self.member, partitions) {
            self.tasks.values_mut().for_each(|task| task.changed = true);
        }
    }

    /// Whether the tasks are as they were committed: only that may be shown.
    fn is_all_committed(&self) -> bool {
        !self.open && !self.tasks.values().any(|task| task.changed)
    }

    /// Goes on with the model that is in use now, where that is another.
    fn take_model(&mut self) {
        let generation = self.shared.models.generation();
        if generation != self.generation {
            self.generation = generation;
            let plan = self.shared.models.plan();
            self.tasks.values_mut().for_each(|task| task.engine_mut().set_plan(Arc::clone(&plan)));
        }
    }

    /// Takes records from the client into the tasks' lanes.
    fn take_in(&mut self) -> Result<(), End> {
        let mut patience = if self.has_work() { Duration::ZERO } else { self.time_to_wait() };
        // One reading of the clocks serves all that is there at once.
        let mut now = None;
        for _ in 0..INTAKE_RECORDS {
            match self.member.poll(patience) {
                None => break,
                Some(Ok(message)) => {
                    let now = *now.get_or_insert_with(|| (Tick::now(), wall_now()));
                    self.take(&message, now)?;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => self.poll_failed(&error)?,
            }
            patience = Duration::ZERO;
        }
        Ok(())
    }

    fn poll_failed(&self, error: &KafkaError) -> Result<(), End> {
        match classify(Call::Poll, error) {
            Answer::Retry => {
                tracing::debug!(worker = self.worker, "poll: {error}");
                Ok(())
            }
            Answer::Stop if !matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                let stop = match self.member.context().forbidden() {
                    Some(why) => Error::world(format!("cannot consume: {why}")).hint(acls::HINT),
                    None => Error::world(format!("cannot consume: {error}")),
                };
                Err(End::Stop(stop))
            }
            _ => Err(End::Anew(format!("the consumer failed: {error}"))),
        }
    }

    /// Whether something is left to do without waiting for records.
    fn has_work(&self) -> bool {
        self.tasks.values().any(|task| task.more || task.is_ready())
    }

    /// Until the next commit is due, at most.
    fn time_to_wait(&self) -> Duration {
        self.time_to_commit().unwrap_or(IDLE_POLL).min(IDLE_POLL)
    }

    fn take(&mut self, message: &BorrowedMessage<'_>, (now, wall): (Tick, Ts)) -> Result<(), End> {
        let Some(task) = self.tasks.get_mut(&message.partition()) else { return Ok(()) };
        let Some(lane) = task.inputs().iter().position(|input| input.topic == message.topic()) else {
            return Ok(());
        };
        if self.shared.ending.is_beyond(lane, message.partition(), message.offset()) {
            return Ok(());
        }
        let incoming = Incoming {
            offset: message.offset(),
            key: message.key(),
            value: message.payload().unwrap_or(b""),
            headers: &MessageHeaders(message),
            timestamp: message.timestamp().to_millis(),
        };
        match task.take(lane, &incoming, now, wall) {
            Intake::Taken | Intake::DoneBefore => Ok(()),
            Intake::Foreign(what) => Err(End::Stop(Error::world(what))),
            Intake::DeadLetter(reject) => {
                let source = task.inputs()[lane].source;
                self.local.event(source, EventResult::DeadLetter);
                self.local.dead_letter(source, reject.reason);
                self.records += 1;
                self.send_dead_letter(message, &reject)
            }
        }
    }

    /// Passes a record on as it came, with the reason.
    fn send_dead_letter(&mut self, message: &BorrowedMessage<'_>, reject: &Reject) -> Result<(), End> {
        self.begin()?;
        let mut headers = OwnedHeaders::new();
        for header in message.headers().into_iter().flat_map(|h| h.iter()) {
            headers = headers.insert(header);
        }
        let origin = dead_letter::Origin {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
        };
        let reasons = dead_letter::headers(&origin, reject);
        for (key, value) in &reasons {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(&self.shared.topics.dlq).headers(headers).timestamp(wall_now());
        record.key = message.key();
        record.payload = message.payload();
        self.sent_bytes += message.payload().map_or(0, <[u8]>::len);
        self.transactions.send(record).map_err(End::from)
    }

    /// Tells each task how far its lanes reach.
    fn look_for_ends(&mut self) {
        let mut lanes = TopicPartitionList::with_capacity(self.tasks.len() * self.shared.inputs.len());
        for partition in self.tasks.keys() {
            for Input { topic, .. } in self.shared.inputs.iter() {
                lanes.add_partition(topic, *partition);
            }
        }
        let is_known = members::stand(self.member, &mut lanes).is_ok();
        let mut positions = lanes.elements().into_iter().map(|lane| lane.offset());
        for (partition, task) in &mut self.tasks {
            for (lane, Input { topic, .. }) in self.shared.inputs.iter().enumerate() {
                let end = match self.shared.ending.end_of(lane, *partition) {
                    Some(end) => Some(end),
                    None => members::known_end(self.member, topic, *partition),
                };
                let read_to = task.merger().read_to(lane);
                let stands = match positions.next() {
                    Some(Offset::Offset(offset)) if is_known => offset,
                    _ => read_to,
                };
                match end {
                    Some(end) => task.set_end(lane, stands.min(end), end),
                    None => task.set_end(lane, read_to, -1),
                }
            }
        }
    }

    /// Lets every task do what has its turn, and sends what comes of it.
    fn advance(&mut self) -> Result<(), End> {
        let (wall, limits) = (wall_now(), &self.shared.commit);
        let turn = TURN_MOST / self.tasks.len().max(1) as u32;
        for partition in self.tasks.keys().copied().collect::<Vec<_>>() {
            let Some(task) = self.tasks.get_mut(&partition) else { continue };
            let mut began = Tick::now();
            let turn_ends = began.plus(turn);
            while self.records < limits.max_records
                && self.sent_bytes + task.waiting_bytes() < limits.max_bytes
            {
                let Some(step) = task.advance() else { break };
                if let Some(scored) = step.scored {
                    self.local.scoring(scored.since(began));
                }
                if let Some((source, result)) = step.applied.and_then(result_of) {
                    self.local.event(source, result);
                }
                self.timestamps.extend(step.timestamp);
                self.records += 1;
                began = Tick::now();
                if began > turn_ends {
                    break;
                }
            }
            task.pass_time(wall);
            if task.changed && self.since.is_none() {
                self.since = Some(Tick::now());
            }
            self.send_moves(partition)?;
        }
        if self.may_send() {
            for partition in self.tasks.keys().copied().collect::<Vec<_>>() {
                self.send_outputs(partition)?;
            }
        }
        Ok(())
    }

    /// Whether outputs go to the client now. On a backlog they gather until those before them are acknowledged and
    /// they are worth a request ([`Transactions::make_way`] tells why); that also makes a shorter queue.
    fn may_send(&self) -> bool {
        if self.is_caught_up() {
            return true;
        }
        let waiting: usize = self.tasks.values().map(Task::waiting_bytes).sum();
        if waiting >= HELD_BYTES {
            self.transactions.settle();
        }
        waiting >= BURST_BYTES && self.transactions.is_settled()
    }

    /// Sends what a partition has to tell others, and merges that cannot be.
    fn send_moves(&mut self, partition: i32) -> Result<(), End> {
        let Some(task) = self.tasks.get_mut(&partition) else { return Ok(()) };
        let identities = task.engine_mut().identities_mut();
        let (messages, refused) = (identities.take_outgoing(), identities.take_refused());
        if messages.is_empty() && refused.is_empty() {
            return Ok(());
        }
        self.begin()?;
        for message in messages {
            let value = message.encode();
            let record = BaseRecord::to(&self.shared.topics.identity)
                .key(message.to.as_bytes())
                .payload(&value)
                .partition(partitioner::partition(message.to.as_bytes(), self.shared.partitions))
                .timestamp(wall_now());
            self.sent_bytes += value.len();
            self.transactions.send(record)?;
        }
        refused.iter().try_for_each(|refused| self.send_refused(refused))
    }

    /// Passes on the record of a merge that cannot be. There is none where a trait said so, or the record was let go.
    fn send_refused(&mut self, refused: &Refused) -> Result<(), End> {
        let Some(origin) = &refused.origin else { return Ok(()) };
        self.local.event(refused.source, EventResult::DeadLetter);
        self.local.dead_letter(refused.source, refused.reject.reason);
        let mut headers = OwnedHeaders::new();
        for (key, value) in &origin.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let from = dead_letter::Origin {
            topic: &origin.topic,
            partition: origin.partition,
            offset: origin.offset,
            timestamp: origin.timestamp,
        };
        let reasons = dead_letter::headers(&from, &refused.reject);
        for (key, value) in &reasons {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(&self.shared.topics.dlq).headers(headers).timestamp(wall_now());
        record.key = origin.key.as_deref();
        record.payload = Some(&origin.value);
        self.sent_bytes += origin.value.len();
        self.transactions.send(record).map_err(End::from)
    }

    fn begin(&mut self) -> Result<(), TxnError> {
        if !self.open {
            self.transactions.begin()?;
            self.open = true;
            self.since.get_or_insert_with(Tick::now);
        }
        Ok(())
    }

    fn send_outputs(&mut self, partition: i32) -> Result<(), TxnError> {
        let pending = self.tasks.get(&partition).is_some_and(|task| !task.engine().outbox.is_empty());
        if !pending {
            return Ok(());
        }
        self.begin()?;
        let Some(task) = self.tasks.get_mut(&partition) else { return Ok(()) };
        let wall = wall_now();
        for (place, (output, key, value)) in task.engine().outbox.records().enumerate() {
            self.transactions.make_way();
            let (id, time) = (hex(output.id), format_rfc3339(output.ts));
            let header = |key, value| Header { key, value: Some(value) };
            let mut headers = OwnedHeaders::new_with_capacity(6)
                .insert(header("ce_id", &id[..]))
                .insert(header("ce_type", output.channel.event_type().as_bytes()))
                .insert(header("ce_source", self.shared.ce_source.as_bytes()))
                .insert(header("ce_time", time.as_str().as_bytes()))
                .insert(header("ce_specversion", b"1.0"))
                .insert(header("content-type", CONTENT_TYPE));
            if let Some(trace) = task.engine().outbox.trace_of(place) {
                headers = headers.insert(header(trace::PARENT, trace.parent().as_bytes()));
                if let Some(state) = trace.state() {
                    headers = headers.insert(header(trace::STATE, state.as_bytes()));
                }
            }
            let topic = match output.channel {
                Channel::StageChanges => &self.shared.topics.stage_changes,
                Channel::ChurnScores => &self.shared.topics.churn_scores,
                Channel::ChurnAlerts => &self.shared.topics.churn_alerts,
                Channel::Erasures => &self.shared.topics.erasures,
                Channel::ChurnOutcomes => &self.shared.topics.churn_outcomes,
            };
            let mut record = BaseRecord::to(topic).key(key).timestamp(wall);
            if !output.is_tombstone() {
                record = record.payload(value).headers(headers);
            }
            self.sent_bytes += key.len() + value.len();
            self.transactions.send(record)?;
            if news::is_told(output.channel) {
                self.news.note(Item { channel: output.channel, customer: key, json: value });
            }
        }
        task.engine_mut().outbox.clear();
        Ok(())
    }

    fn is_caught_up(&self) -> bool {
        self.tasks.values().all(|task| task.merger().all_ended())
    }

    /// Until the transaction at hand is to be committed. Caught up, commits begin an interval apart, however long each
    /// takes, and what comes after a pause does not wait for company. On a backlog a transaction has the interval for
    /// itself: the more events in it, the fewer states are written.
    fn time_to_commit(&self) -> Option<Duration> {
        let since = self.since?;
        let (interval, from) = match self.is_caught_up() {
            true => (self.shared.commit.interval, self.last_commit.unwrap_or(since)),
            false => (self.shared.commit.catch_up, since),
        };
        Some(interval.saturating_sub(from.elapsed()))
    }

    fn is_commit_due(&self) -> bool {
        let Some(left) = self.time_to_commit() else { return false };
        let held = |task: &Task| task.waiting_bytes() + task.engine().store().undo_bytes() / 2;
        left.is_zero()
            || self.records >= self.shared.commit.max_records
            || self.sent_bytes + self.tasks.values().map(held).sum::<usize>() >= self.shared.commit.max_bytes
    }

    /// Writes states, markers and positions, and commits. Aborts and rolls back where that is the answer.
    fn commit(&mut self) -> Result<(), End> {
        if self.is_all_committed() {
            return Ok(());
        }
        let began = Tick::now();
        self.last_commit = Some(began);
        let committed = self.try_commit();
        match committed {
            Ok(()) => {
                self.committed(began.elapsed());
                Ok(())
            }
            Err(error) if error.answer == Answer::AbortAndRewind && self.aborts < MAX_ABORTS => {
                tracing::warn!(worker = self.worker, "taking the transaction back: {error}");
                self.aborts += 1;
                self.abort()
            }
            Err(error) => {
                let outcome = if error.is_fenced() { Outcome::Fenced } else { Outcome::Failed };
                if error.is_fenced() {
                    tracing::warn!(
                        worker = self.worker,
                        "another process has begun under the same app.instance, or the transaction took longer than \
                         transaction.timeout.ms"
                    );
                }
                self.shared.metrics.transaction(outcome, began.elapsed());
                Err(error.into())
            }
        }
    }

    fn try_commit(&mut self) -> Result<(), TxnError> {
        self.begin()?;
        for partition in self.tasks.keys().copied().collect::<Vec<_>>() {
            self.send_outputs(partition)?;
        }
        self.shared.faults.at("before_states")?;
        let (mut positions, wall) = (TopicPartitionList::new(), wall_now());
        for task in self.tasks.values() {
            let (transactions, topic) = (&self.transactions, &self.shared.topics.state);
            write_states(task, &mut self.buffer, |key, value| {
                transactions.make_way();
                let record = BaseRecord::to(topic).partition(task.partition).timestamp(wall);
                transactions.send(BaseRecord::<[u8], [u8]> { payload: value, ..record.key(key) })
            })?;
            if self.shared.faults.lack(Guard::SilentPositions) && !task.has_moved() {
                continue;
            }
            let is_quiet = self.shared.until_end && task.is_done() && !task.more;
            let word = is_quiet.then(|| self.shared.ending.say(task.partition, wall));
            // Every task's position, moved or not: it is what fences a transaction that only silence filled.
            for (lane, input) in task.inputs().iter().enumerate() {
                let offset = Offset::Offset(task.position(lane).next);
                let added = positions.add_partition_offset(&input.topic, task.partition, offset);
                added.map_err(|e| TxnError::new(Call::Offsets, e))?;
                if let Some(word) = &word
                    && let Some(mut element) = positions.find_partition(&input.topic, task.partition)
                {
                    element.set_metadata(word);
                }
            }
        }
        self.shared.faults.at("before_commit")?;
        let group = self.member.group_metadata();
        let group = group.ok_or_else(|| TxnError::new(Call::Offsets, KafkaError::Canceled))?;
        self.transactions.commit(&positions, &group)?;
        let again = self.shared.clients.broker.after_commit(self.member, &positions);
        again.map_err(|e| TxnError { answer: Answer::RebuildProducer, ..TxnError::new(Call::Offsets, e) })?;
        self.shared.faults.at("after_commit")
    }

    fn committed(&mut self, took: Duration) {
        let wall = wall_now();
        self.timestamps.drain(..).for_each(|ts| self.local.end_to_end(wall - ts));
        // Before the erased are forgotten: their last changes may be in it.
        self.tell_news();
        for task in self.tasks.values_mut() {
            let store = task.engine().store();
            store.erased().iter().for_each(|gone| self.recent.forget(store.id(*gone)));
            let tally = std::mem::take(&mut task.engine_mut().tally);
            self.local.tally(task.plan(), &tally);
            task.commit();
        }
        self.anchors.committed();
        self.local.flush();
        self.shared.metrics.transaction(Outcome::Committed, took);
        self.show_figures();
        self.aborts = 0;
        self.forget_transaction();
    }

    /// Hands the stage changes and alerts that are committed to those who show them.
    fn tell_news(&mut self) {
        let changes = self.news.items().filter(|item| item.channel == Channel::StageChanges);
        // Those before would be forgotten at once.
        let remembered = changes.clone().count().saturating_sub(RECENT_MOST);
        for item in changes.skip(remembered) {
            self.recent.push(&String::from_utf8_lossy(item.customer), item.json);
        }
        self.shared.live.committed(self.news.items().map(|item| (item.channel, item.json)));
        self.news.clear();
    }

    fn forget_transaction(&mut self) {
        self.open = false;
        self.since = None;
        self.sent_bytes = 0;
        self.records = 0;
        self.timestamps.clear();
    }

    /// Takes the transaction at hand back and reads on from the last commit.
    fn abort(&mut self) -> Result<(), End> {
        let began = Tick::now();
        if self.open {
            self.transactions.abort()?;
        }
        self.shared.metrics.transaction(Outcome::Aborted, began.elapsed());
        self.local.discard();
        self.news.clear();
        self.forget_transaction();
        for task in self.tasks.values_mut() {
            match self.shared.faults.lack(Guard::Rollback) {
                true => task.rewind(),
                false => task.rollback(),
            }
            for (lane, input) in task.inputs().iter().enumerate() {
                let next = Offset::Offset(task.committed()[lane].next);
                self.member.seek(&input.topic, task.partition, next, Duration::from_secs(10))?;
            }
        }
        Ok(())
    }

    /// Answers what the group asks.
    fn answer(&mut self, request: Request) -> Result<(), End> {
        match request {
            Request::Assign(partitions) => self.assigned(&partitions),
            Request::Revoke { partitions, lost } => {
                self.shared.health.set_ready(self.worker, false);
                let gone: BTreeSet<i32> = partitions.elements().iter().map(|p| p.partition()).collect();
                if lost {
                    tracing::warn!(worker = self.worker, "partitions are lost");
                    self.abort()?;
                } else {
                    if self.shared.standby.is_some() {
                        self.ask_where_state_ends(&gone.iter().copied().collect::<Vec<_>>());
                    }
                    self.commit()?;
                }
                for partition in gone {
                    let given_up = self.let_go(partition);
                    if let (Some((task, Some(anchor))), Some(standby), false) =
                        (given_up, &self.shared.standby, lost)
                    {
                        standby.keep(task, anchor);
                    }
                }
                members::unassign(self.member, &partitions)?;
                Ok(())
            }
        }
    }

    fn assigned(&mut self, partitions: &TopicPartitionList) -> Result<(), End> {
        let wanted = self.shared.partitions_of(partitions).map_err(|error| match error.exit_code() {
            // What the configuration cannot mean is refused; the group may come to its senses.
            2 => End::Stop(error),
            _ => End::Uneven(error),
        })?;
        let new: Vec<i32> = wanted.into_iter().filter(|p| !self.tasks.contains_key(p)).collect();
        let shared = self.shared;
        self.take_model();
        let plan = shared.models.plan();
        let restoring = Restoring {
            standby: shared.standby.as_ref(),
            checkpoints: shared.checkpoints.as_deref(),
            metrics: &shared.metrics,
            clients: &shared.clients,
            worker: self.worker,
            member: self.member,
            plan: &plan,
            inputs: &shared.inputs,
            state_topic: &shared.topics.state,
            partitions: shared.partitions,
            timing: shared.timing,
            faults: &shared.faults,
        };
        let worker = self.worker;
        let cancelled = || {
            shared.health.beat(worker, Tick::now());
            shared.is_stopping()
        };
        let ended = self.restore_surely(&restoring, &new, &cancelled);
        if let (Err(_), Some(standby)) = (&ended, &shared.standby) {
            new.iter().for_each(|partition| standby.give(*partition));
        }
        let (back, restored) = match ended {
            Ok(restored) => restored,
            Err(Interrupted::Kafka(error)) if is_unauthorized(&error) => {
                let what = format!("cannot restore from topic `{}`: {error}", shared.topics.state);
                return Err(End::Stop(Error::world(what).hint(acls::HINT)));
            }
            Err(Interrupted::Kafka(error)) => return Err(End::Anew(format!("restoring: {error}"))),
            Err(Interrupted::Refused(error)) => return Err(End::Stop(error)),
            Err(Interrupted::Cancelled) => return Ok(()),
        };
        let mut assignment = TopicPartitionList::new();
        for Back { task, .. } in &back {
            for (lane, input) in task.inputs().iter().enumerate() {
                let next = Offset::Offset(task.committed()[lane].next);
                assignment.add_partition_offset(&input.topic, task.partition, next)?;
            }
        }
        let millis = restored.took.as_millis() as u64;
        let Restored { records, from_files, followed, kept, .. } = restored;
        tracing::info!(worker, partitions = ?new, records, from_files, followed, kept, millis, "restored");
        self.shared.metrics.restored(restored.records, restored.took);
        members::assign(self.member, &assignment)?;
        for Back { task, anchor } in back {
            self.anchors.restored(task.partition, anchor);
            self.saving.iter_mut().for_each(|saving| saving.restored(task.partition));
            self.shared.ending.hold(task.partition);
            self.tasks.insert(task.partition, task);
        }
        (self.is_member, self.said) = (true, None);
        (self.shown, self.weighed) = (None, None);
        self.show_figures();
        self.shared.health.set_ready(self.worker, true);
        Ok(())
    }

    /// Restores partitions; what is refused is looked at twice. Whoever was frozen for longer than its session reads
    /// in the midst of what its heir writes, and would take that for torn, until the group tells it.
    fn restore_surely(
        &self,
        restoring: &Restoring<'_>,
        partitions: &[i32],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(Vec<Back>, Restored), Interrupted> {
        let error = match restoring.restore(partitions, cancelled) {
            Err(Interrupted::Refused(error)) => error,
            ended => return ended,
        };
        tracing::warn!(worker = self.worker, "looking again, lest it is another's by now: {error}");
        let began = Tick::now();
        while began.elapsed() < SECOND_LOOK {
            if cancelled() || self.member.assignment_lost() {
                return Err(Interrupted::Cancelled);
            }
            sleep(Duration::from_millis(50));
        }
        restoring.restore(partitions, cancelled)
    }

    /// Forgets a partition; what is left of it may still be saved.
    fn let_go(&mut self, partition: i32) -> Option<(Task, Option<Anchor>)> {
        let anchor = self.anchors.let_go(partition);
        self.saving.iter_mut().for_each(|saving| saving.let_go(partition));
        let task = self.tasks.remove(&partition)?;
        self.shared.standby.iter().for_each(|standby| standby.give(partition));
        self.shared.ending.let_go(partition);
        self.shared.metrics.drop_partition(partition);
        for (lane, input) in task.inputs().iter().enumerate() {
            self.shared.metrics.drop_lag(&input.topic, partition);
            self.paused.remove(&(lane, partition));
        }
        Some((task, anchor))
    }

    fn let_go_of_everything(&mut self) -> Vec<(Task, Option<Anchor>)> {
        self.shared.health.set_ready(self.worker, false);
        let partitions: Vec<i32> = self.tasks.keys().copied().collect();
        partitions.into_iter().filter_map(|partition| self.let_go(partition)).collect()
    }

    /// Pauses lanes that are far ahead of the others of their partition, and resumes them.
    fn hold_back_lanes(&mut self) -> Result<(), End> {
        for (partition, task) in &self.tasks {
            for (lane, input) in task.inputs().iter().enumerate() {
                let (merger, place) = (task.merger(), (lane, *partition));
                let waiting = merger.waiting_in(lane);
                let mut list = TopicPartitionList::new();
                if waiting > LANE_RECORDS && !merger.wants(lane) && self.paused.insert(place) {
                    list.add_partition(&input.topic, *partition);
                    self.member.pause(&list)?;
                } else if (waiting < LANE_RECORDS / 4 || merger.wants(lane)) && self.paused.remove(&place) {
                    list.add_partition(&input.topic, *partition);
                    self.member.resume(&list)?;
                }
            }
        }
        Ok(())
    }

    /// Shows the gauges, now and then: what they tell costs a look at every partition.
    fn show_figures(&mut self) {
        if self.shown.is_some_and(|shown| shown.elapsed() < FIGURES_EVERY) {
            return;
        }
        self.shown = Some(Tick::now());
        let is_due = |(at, took): (Tick, Duration)| at.elapsed() >= WEIGH_EVERY.max(took * WEIGHING_SHARE);
        if self.weighed.is_none_or(is_due) {
            let began = Tick::now();
            self.bytes = self.tasks.iter().map(|(p, task)| (*p, task.engine().bytes() as u64)).collect();
            self.worth = self.tasks.iter().map(|(p, task)| (*p, task.engine().worth())).collect();
            self.weighed = Some((Tick::now(), began.elapsed()));
        }
        for (partition, task) in &self.tasks {
            let engine = task.engine();
            let figures = PartitionFigures {
                customers: engine.store().len() as u64,
                bytes: self.bytes.get(partition).copied().unwrap_or(0),
                worth: self.worth.get(partition).cloned().unwrap_or_default(),
                population: engine.population().iter().map(|stages| stages.to_vec()).collect(),
                outcomes: engine.quality.ledger().clone(),
                census: engine.drift.census().clone(),
                moves: engine.traffic.moves().clone(),
                seen_to: task.seen_to(),
            };
            self.shared.metrics.set_partition(*partition, figures);
            for (lane, input) in task.inputs().iter().enumerate() {
                let end = members::known_end(self.member, &input.topic, *partition);
                let lag = end.map_or(0, |end| (end - task.position(lane).next).max(0));
                let event_lag =
                    if task.clock() == Ts::MIN { 0.0 } else { (wall_now() - task.clock()) as f64 / 1e3 };
                self.shared.metrics.set_lag(&input.topic, *partition, lag, event_lag);
            }
        }
    }

    /// Answers questions about customers.
    fn reply(&mut self) {
        while let Ok(query) = self.queries.try_recv() {
            let at = match self.shared.timing.clock {
                crate::config::Clock::Wall => wall_now(),
                crate::config::Clock::Events => Ts::MIN,
            };
            query.answer(|id| {
                let mut views = self.tasks.values();
                views.find_map(|task| customer_json(task.engine(), &self.recent, id, at.max(task.clock())))
            });
        }
    }

    /// With `--until-end`: closes partitions that are through, and says whether all of the process are.
    fn finish_partitions(&mut self) -> Result<bool, End> {
        for (partition, task) in &self.tasks {
            let moves = task.inputs().iter().position(|input| input.reading == Reading::Moves);
            let read_to = moves.map_or(0, |lane| task.merger().read_to(lane));
            let is_quiet = !self.open && task.is_quiet();
            self.shared.ending.set_quiet(*partition, is_quiet.then_some(read_to));
        }
        self.confer()?;
        if !self.shared.is_drained() {
            self.tell_what_is_awaited();
            return Ok(false);
        }
        let through: Vec<i32> = self
            .tasks
            .iter()
            .filter(|(partition, task)| {
                task.is_done() && !task.more && !self.shared.ending.is_through(**partition)
            })
            .map(|(partition, _)| *partition)
            .collect();
        if !through.is_empty() {
            for partition in &through {
                if self.run_on(*partition)? {
                    self.shared.ending.set_through(*partition);
                }
            }
        }
        Ok(self.shared.ending.all_through() && self.has_said_all())
    }

    /// Where other processes have some of the partitions: says what became of those here, and hears of theirs. One
    /// without partitions only hears.
    fn confer(&mut self) -> Result<(), End> {
        let is_quiet = !self.open && self.tasks.values().all(Task::is_quiet);
        if self.shared.ending.is_all_here() || !is_quiet || !self.is_member {
            return Ok(());
        }
        let through = self.through();
        let is_said = self.said.is_some_and(|(at, said)| said == through && at.elapsed() < SAY_AGAIN);
        if !self.tasks.is_empty() && !is_said {
            self.tasks.values_mut().for_each(|task| task.changed = true);
            self.commit()?;
            self.said = (self.aborts == 0).then(|| (Tick::now(), through));
        }
        if self.heard.is_none_or(|at| at.elapsed() >= HEAR_EVERY) {
            self.heard = Some(Tick::now());
            self.shared.ending.ask(self.member, &self.shared.inputs);
        }
        Ok(())
    }

    /// How many partitions here are through.
    fn through(&self) -> usize {
        self.tasks.keys().filter(|partition| self.shared.ending.is_through(**partition)).count()
    }

    /// Whether other processes, if there are any, can know what became of the partitions here.
    fn has_said_all(&self) -> bool {
        self.tasks.is_empty()
            || self.shared.ending.is_all_here()
            || self.said.is_some_and(|(_, said)| said == self.through())
    }
}

impl Worker<'_> {
    /// An end that does not come is a question that somebody will ask.
    fn tell_what_is_awaited(&mut self) {
        if self.told.elapsed() < TELL_EVERY {
            return;
        }
        self.told = Tick::now();
        for (partition, task) in &self.tasks {
            let lanes = task.inputs().iter().enumerate();
            let lanes = lanes.map(|(lane, input)| {
                let (read_to, end) =
                    (task.merger().read_to(lane), self.shared.ending.end_of(lane, *partition));
                format!("{} {read_to}/{}", input.topic, end.map_or("?".to_owned(), |end| end.to_string()))
            });
            let read = lanes.collect::<Vec<_>>().join(", ");
            let (done, silence, changed) = (task.is_done(), task.more, task.changed);
            let (open, aborts) = (self.open, self.aborts);
            tracing::info!(partition, read, done, silence, changed, open, aborts, "not at the end yet");
        }
        if self.tasks.is_empty() {
            tracing::info!(worker = self.worker, "not at the end yet, and nothing assigned");
        }
        let awaited = self.shared.ending.awaited();
        if !awaited.is_empty() {
            tracing::info!(
                partitions = ?awaited,
                "waiting for another process to say that it is done with these; one without --until-end never does"
            );
        }
    }

    /// Runs a partition's clock on to `--until`, in transactions of bounded size. False when one of them was
    /// taken back, in which case it is all done again.
    fn run_on(&mut self, partition: i32) -> Result<bool, End> {
        let mut from = self.shared.until.map(|_| 0);
        while let (Some(until), Some(next)) = (self.shared.until, from) {
            let Some(task) = self.tasks.get_mut(&partition) else { return Ok(false) };
            from = task.run_until(until, next);
            self.send_outputs(partition)?;
            if self.is_commit_due() {
                self.commit()?;
            }
            self.shared.health.beat(self.worker, Tick::now());
            if self.aborts > 0 || self.shared.is_stopping() {
                return Ok(false);
            }
        }
        self.commit()?;
        Ok(self.aborts == 0)
    }
}

/// Hands `send` the keys and values of what the transaction at hand writes to the state topic: the state of every
/// customer that it changed, what describes their layout where that is new to the log, a tombstone for those it
/// erases and what is remembered of them and of those who merged, the counts of outcomes, the census of customers
/// and the counts of moves that changed, and last the marker.
pub fn write_states<E>(
    task: &Task,
    buffer: &mut Vec<u8>,
    mut send: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), E>,
) -> Result<(), E> {
    let (engine, store) = (task.engine(), task.engine().store());
    for (layout, description) in task.undescribed() {
        send(&marker::layout_key(*layout), Some(description))?;
    }
    // Where each state of a burst ends in `buffer`.
    let (mut states, mut ends) = (0, Vec::new());
    for burst in store.dirty().chunks(BURST_RECORDS) {
        buffer.clear();
        ends.clear();
        for few in burst.chunks(WARM_AHEAD) {
            std::hint::black_box(store.warm(few));
            for customer in few.iter().filter(|customer| !store.is_erased(**customer)) {
                task.encode(*customer, buffer);
                ends.push(buffer.len());
            }
        }
        let (mut start, mut encoded) = (0, ends.iter());
        for customer in burst {
            let end = if store.is_erased(*customer) { None } else { encoded.next().copied() };
            send(store.id(*customer).as_bytes(), end.map(|end| &buffer[start..end]))?;
            start = end.unwrap_or(start);
            states += u64::from(end.is_some());
        }
    }
    buffer.clear();
    for (hash, opt_out) in engine.opt_outs().changes() {
        send(&OptOut::key(hash), opt_out.map(OptOut::encode).as_deref())?;
    }
    for (key, value) in engine.identities().changes() {
        send(&key, value.as_deref())?;
    }
    if engine.quality.has_changed() {
        send(quality::KEY, Some(&engine.quality.ledger().encode()))?;
    }
    if engine.drift.has_changed() {
        send(drift::KEY, Some(&engine.drift.census().encode()))?;
    }
    for (key, value) in engine.traffic.changes() {
        send(&key, value.as_deref())?;
    }
    send(marker::KEY, Some(&task.marker(states).encode()))
}

/// 32 hexadecimal digits.
fn hex(id: u128) -> [u8; 32] {
    std::array::from_fn(|k| b"0123456789abcdef"[(id >> (124 - 4 * k)) as usize & 0xf])
}

/// How an event counts; a merge that cannot be counts where its dead letter is sent.
fn result_of((source, applied): (Source, Applied)) -> Option<(Source, EventResult)> {
    let result = match applied {
        Applied::InOrder => EventResult::Ok,
        Applied::Late => EventResult::Late,
        Applied::Duplicate => EventResult::Duplicate,
        Applied::OptedOut => EventResult::Erased,
        Applied::Moved => EventResult::Moved,
        Applied::Refused => return None,
    };
    Some((source, result))
}
