//! What is here of partitions that no worker of this process holds: so that one which comes is here already, but for
//! the tail.
//!
//! A rebalance takes every partition from its worker and gives most of them back. Whoever gives one up in good order
//! leaves its task here for a while, and whoever of this process is assigned it next goes on with that. With
//! `state.standby` a thread of its own also reads along what others own, as a restore would, only that it never ends.
//! Either way it is an aid and never the truth, as a checkpoint is: the tail of the topic is read and must fit, and
//! what does not is passed over and the topic read from its beginning.
//!
//! ```text
//!                              with `state.standby`                assigned
//!   free ──────────────────────────────────────────► followed ───────────────► ours
//!    ▲  ▲   not ours for a while                      ▲  │                      ▲ │
//!    │  └──────────── refused, or out of sight ───────┼──┘             assigned │ │ given up
//!    │                                                │ with `state.standby`    │ ▼
//!    └────────────────────────────────────────────────┴─────────────────────── kept
//!                                                       for long enough
//! ```
//!
//! What was kept for long enough also leaves a checkpoint, where there is a folder for it. Only committed records are
//! followed, and compaction may take a tombstone from before it was read only where nothing was read for as long as the
//! topic keeps tombstones; half of that is trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::checkpoint::saving;
use super::checkpoint::{self, Anchor, Checkpoints};
use super::clients::{BrokerKind, ClientSettings, LogContext};
use super::restore::{Interrupted, Reading, is_transient};
use super::task::Task;
use crate::config::Config;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::reload::Models;
use crate::time::{Tick, Ts, sleep, wall_now};

/// A partition that is free for so long is nobody's of this process: assignments come and go in a rebalance, and at
/// the start.
const SETTLED: Duration = Duration::from_secs(5);
/// So long a rebalance may take before what was given up is no longer kept for it.
const KEPT: Duration = Duration::from_secs(10);
/// After what was followed was of no use.
const AGAIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
/// Records that are taken in before whoever waits for a partition may have it.
const AT_ONCE: usize = 500;
/// Customers that settle in before whoever waits for a partition may have it, and in one turn.
const SETTLE_AT_ONCE: usize = 1_000;
const SETTLE_IN_TURN: usize = 5_000;
/// So many of a partition need not have settled in: who changes all the time would do so in vain.
const UNSETTLED: usize = 4_096;
/// How often what is followed is weighed, customer by customer; more seldom where that would take more than a 200th of
/// the time.
const WEIGH_EVERY: Duration = Duration::from_secs(15);
const WEIGHING_SHARE: u32 = 200;

/// A partition that is followed.
pub struct Follower {
    pub reading: Reading,
    /// Where reading goes on; `None` before the first record.
    pub next: Option<i64>,
    /// When it last stood at the end, or began.
    near: Ts,
    /// Whether it has ever stood there.
    is_near: bool,
}

/// A partition that was given up with all that it had done committed.
struct Kept {
    task: Task,
    anchor: Anchor,
    since: Tick,
}

impl Kept {
    fn follower(self, topic: &str) -> Follower {
        let Kept { task, anchor, .. } = self;
        let (next, near) = (Some(anchor.from), anchor.taken_at);
        Follower { reading: Reading::going_on(task, topic), next, near, is_near: true }
    }
}

/// What is here of a partition that a worker is assigned.
pub enum Here {
    /// It was this process's a moment ago.
    Kept(Follower),
    /// It was read along.
    Followed(Follower),
}

/// Who has a partition, as far as this process knows.
enum Place {
    Ours,
    /// Since when; and how long it is left alone.
    Free(Tick, Duration),
    Kept(Box<Kept>),
    Followed(Box<Follower>),
}

/// What this process has beside what it owns.
pub struct Standby {
    clients: ClientSettings,
    models: Arc<Models>,
    metrics: Arc<Metrics>,
    checkpoints: Option<Arc<Checkpoints>>,
    topic: String,
    partitions: i32,
    /// Where others are followed: nothing is trusted that was out of sight for longer.
    age_most_ms: Option<i64>,
    places: Mutex<Vec<Place>>,
}

impl Standby {
    /// `None` where the broker is a mock: nobody else is in its group.
    pub fn prepare(
        config: &Config,
        clients: &ClientSettings,
        models: &Arc<Models>,
        metrics: &Arc<Metrics>,
        checkpoints: Option<&Arc<Checkpoints>>,
        partitions: i32,
    ) -> Result<Option<Standby>> {
        if clients.broker == BrokerKind::Embedded {
            return Ok(None);
        }
        let now = Tick::now();
        let is_asked_for = config.state.standby;
        Ok(Some(Standby {
            age_most_ms: is_asked_for.then(|| checkpoint::trusted_for_ms(config, clients)).transpose()?,
            clients: clients.clone(),
            models: Arc::clone(models),
            metrics: Arc::clone(metrics),
            checkpoints: checkpoints.cloned(),
            topic: config.topics.state.clone(),
            partitions,
            places: Mutex::new((0..partitions).map(|_| Place::Free(now, SETTLED)).collect()),
        }))
    }

    /// A worker is assigned the partition: nobody follows it any more. Returns what is here of it.
    pub fn take(&self, partition: i32) -> Option<Here> {
        match std::mem::replace(self.places().get_mut(partition as usize)?, Place::Ours) {
            // Whoever was frozen may be assigned it before the thread has looked.
            Place::Followed(follower) => {
                (!self.is_out_of_sight(&follower)).then_some(Here::Followed(*follower))
            }
            Place::Kept(kept) => {
                (kept.since.elapsed() < 2 * KEPT).then(|| Here::Kept(kept.follower(&self.topic)))
            }
            Place::Ours | Place::Free(..) => None,
        }
    }

    /// A worker has no use for the partition any more, and nothing of it is worth keeping.
    pub fn give(&self, partition: i32) {
        self.put(partition, Place::Free(Tick::now(), SETTLED));
    }

    /// A worker gives the partition up in good order; the topic goes on from the anchor.
    pub fn keep(&self, task: Task, anchor: Anchor) {
        if task.is_savable() {
            let partition = task.partition;
            self.put(partition, Place::Kept(Box::new(Kept { task, anchor, since: Tick::now() })));
        }
    }

    /// What was there may take its time to be dropped, for which nobody else waits.
    fn put(&self, partition: i32, new: Place) {
        let before = self.places().get_mut(partition as usize).map(|place| std::mem::replace(place, new));
        drop(before);
    }

    /// Keeps and follows until the service stops.
    pub fn follow(&self, is_stopping: impl Fn() -> bool) {
        let mut sight: Option<(BaseConsumer<LogContext>, BTreeSet<i32>)> = None;
        let mut weighed: Option<(Tick, Duration)> = None;
        while !is_stopping() {
            self.end_keeping(KEPT);
            self.let_go_of_what_was_out_of_sight();
            let wanted = self.wanted();
            if wanted.is_empty() {
                sight = None;
                sleep(PAUSE);
            } else if let Err(error) = self.look(&mut sight, &wanted) {
                tracing::warn!("following what others own: {error}");
                self.release(|_| true, AGAIN);
                sight = None;
            }
            self.metrics.set_standby_partitions(self.near());
            let is_due =
                |(at, took): (Tick, Duration)| at.elapsed() >= WEIGH_EVERY.max(took * WEIGHING_SHARE);
            if weighed.is_none_or(is_due) {
                let began = Tick::now();
                self.metrics.set_standby_bytes(self.weigh());
                weighed = Some((Tick::now(), began.elapsed()));
            }
        }
        self.end_keeping(Duration::ZERO);
    }

    /// What was kept for so long leaves its checkpoint, and is followed from there on or dropped.
    fn end_keeping(&self, so_long: Duration) {
        for partition in 0..self.partitions {
            let Some(kept) = self.take_kept(partition, so_long) else { continue };
            if let Some(checkpoints) = &self.checkpoints {
                saving::save(checkpoints, &self.metrics, &kept.task, kept.anchor);
            }
            if self.age_most_ms.is_none() {
                continue;
            }
            let follower = Box::new(kept.follower(&self.topic));
            if let Some(place @ Place::Free(..)) = self.places().get_mut(partition as usize) {
                *place = Place::Followed(follower);
            }
        }
    }

    fn take_kept(&self, partition: i32, so_long: Duration) -> Option<Kept> {
        let mut places = self.places();
        let place = places.get_mut(partition as usize)?;
        match std::mem::replace(place, Place::Free(Tick::now(), SETTLED)) {
            Place::Kept(kept) if kept.since.elapsed() >= so_long => Some(*kept),
            other => {
                *place = other;
                None
            }
        }
    }

    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with whatever has been free for long enough; names what is followed.
    fn wanted(&self) -> BTreeSet<i32> {
        let mut wanted = BTreeSet::new();
        if self.age_most_ms.is_none() {
            return wanted;
        }
        for (partition, place) in (0..).zip(self.places().iter_mut()) {
            if matches!(place, Place::Free(since, left_alone) if since.elapsed() >= *left_alone) {
                let mut reading = Reading::new(&self.models.plan(), &self.topic, partition);
                reading.share_room(self.partitions);
                let follower = Follower { reading, next: None, near: wall_now(), is_near: false };
                *place = Place::Followed(Box::new(follower));
            }
            if matches!(place, Place::Followed(_)) {
                wanted.insert(partition);
            }
        }
        wanted
    }

    /// Reads some of what is there.
    fn look(
        &self,
        sight: &mut Option<(BaseConsumer<LogContext>, BTreeSet<i32>)>,
        wanted: &BTreeSet<i32>,
    ) -> KafkaResult<()> {
        let (reader, seen) = match sight {
            Some(sight) => sight,
            None => sight.insert((self.clients.standby_consumer()?, BTreeSet::new())),
        };
        if seen != wanted {
            reader.assign(&self.positions(wanted)?)?;
            seen.clone_from(wanted);
        }
        let mut patience = if self.settle() { Duration::ZERO } else { PAUSE };
        for _ in 0..AT_ONCE {
            match reader.poll(patience) {
                Some(Ok(message)) => self.note(&message),
                Some(Err(KafkaError::PartitionEOF(partition))) => self.stands_at_end(reader, partition)?,
                Some(Err(error)) if is_transient(&error) => {}
                Some(Err(error)) => return Err(error),
                None => break,
            }
            patience = Duration::ZERO;
        }
        Ok(())
    }

    /// Lets customers settle in whose newest state may be here. Returns whether more are left.
    fn settle(&self) -> bool {
        let mut left = SETTLE_IN_TURN;
        for partition in 0..self.partitions as usize {
            while let Some(Place::Followed(follower)) = self.places().get_mut(partition)
                && follower.is_near
                && follower.reading.settle(SETTLE_AT_ONCE, UNSETTLED)
            {
                left = left.saturating_sub(SETTLE_AT_ONCE);
                if left == 0 {
                    return true;
                }
            }
        }
        false
    }

    fn positions(&self, wanted: &BTreeSet<i32>) -> KafkaResult<TopicPartitionList> {
        let (mut positions, places) = (TopicPartitionList::new(), self.places());
        for partition in wanted {
            if let Some(Place::Followed(follower)) = places.get(*partition as usize) {
                let offset = follower.next.map_or(Offset::Beginning, Offset::Offset);
                positions.add_partition_offset(&self.topic, *partition, offset)?;
            }
        }
        Ok(positions)
    }

    /// Takes a record in.
    fn note(&self, message: &BorrowedMessage<'_>) {
        let (mut places, offset) = (self.places(), message.offset());
        let Some(place) = places.get_mut(message.partition() as usize) else { return };
        let Place::Followed(follower) = place else { return };
        if follower.next.is_some_and(|next| offset < next) {
            return;
        }
        follower.next = Some(offset + 1);
        let taken = follower.reading.take(offset, message.key().unwrap_or(b""), message.payload());
        if let Err(Interrupted::Refused(why)) = taken {
            tracing::warn!(partition = message.partition(), "what another owns cannot be followed: {why}");
            *place = Place::Free(Tick::now(), AGAIN);
        }
    }

    /// Of what ends in no record, such as the ends of transactions, the position tells.
    fn stands_at_end(&self, reader: &BaseConsumer<LogContext>, partition: i32) -> KafkaResult<()> {
        let positions = reader.position()?;
        let stands = positions.find_partition(&self.topic, partition).map(|p| p.offset());
        if let Some(Place::Followed(follower)) = self.places().get_mut(partition as usize) {
            (follower.near, follower.is_near) = (wall_now(), true);
            if let Some(Offset::Offset(stands)) = stands {
                follower.next = follower.next.max(Some(stands));
            }
        }
        Ok(())
    }

    /// Begins anew with what has not stood at its end for too long: it may have missed tombstones.
    fn let_go_of_what_was_out_of_sight(&self) {
        self.release(|follower| self.is_out_of_sight(follower), Duration::ZERO);
    }

    fn is_out_of_sight(&self, follower: &Follower) -> bool {
        self.age_most_ms.is_none_or(|most| (wall_now() - follower.near).abs() > most)
    }

    fn release(&self, is_of_no_use: impl Fn(&Follower) -> bool, left_alone: Duration) {
        for place in self.places().iter_mut() {
            if matches!(place, Place::Followed(follower) if is_of_no_use(follower)) {
                *place = Place::Free(Tick::now(), left_alone);
            }
        }
    }

    /// Partitions that have been here up to their end.
    fn near(&self) -> u64 {
        let is_near = |place: &&Place| matches!(place, Place::Followed(follower) if follower.is_near);
        self.places().iter().filter(is_near).count() as u64
    }

    /// Bytes of what is followed.
    fn weigh(&self) -> u64 {
        let bytes = |place: &Place| match place {
            Place::Followed(follower) => follower.reading.bytes() as u64,
            Place::Kept(kept) => kept.task.engine().bytes() as u64,
            Place::Ours | Place::Free(..) => 0,
        };
        self.places().iter().map(bytes).sum()
    }
}

/// By partition, what a process would read first.
impl std::fmt::Debug for Standby {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let places = self.places();
        let next: BTreeMap<i32, Option<i64>> = (0..)
            .zip(places.iter())
            .filter_map(|(partition, place)| match place {
                Place::Followed(follower) => Some((partition, follower.next)),
                Place::Kept(kept) => Some((partition, Some(kept.anchor.from))),
                Place::Ours | Place::Free(..) => None,
            })
            .collect();
        f.debug_struct("Standby").field("topic", &self.topic).field("next", &next).finish_non_exhaustive()
    }
}
