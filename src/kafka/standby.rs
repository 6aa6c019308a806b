//! What others own, read along: so that a partition which comes to this process is here already, but for the tail.
//!
//! A thread of its own reads the state topic of every partition that no worker of this process holds, as a restore
//! would, only that it never ends. Whoever is assigned such a partition takes what was read so far and reads on from
//! there. As a checkpoint, it is an aid and never the truth: what does not fit is passed over, and the topic is read
//! from its beginning.
//!
//! ```text
//!            not ours for a while             assigned
//!   free ────────────────────────► followed ───────────► ours
//!    ▲  ▲                             │                    │
//!    │  └── refused, or out of sight ─┘                    │
//!    └───────────────────── given up ──────────────────────┘
//! ```
//!
//! Only committed records are followed, and compaction may take a tombstone from before it was read only where nothing
//! was read for as long as the topic keeps tombstones; half of that is trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::checkpoint;
use super::clients::{BrokerKind, ClientSettings, LogContext};
use super::restore::{Interrupted, Reading, is_transient};
use crate::config::Config;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::reload::Models;
use crate::time::{Tick, Ts, sleep, wall_now};

/// A partition that is free for so long is nobody's of this process: assignments come and go in a rebalance, and at
/// the start.
const SETTLED: Duration = Duration::from_secs(5);
/// After what was followed was of no use.
const AGAIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
/// Records that are taken in before whoever waits for a partition may have it.
const AT_ONCE: usize = 500;
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

/// Who has a partition, as far as this process knows.
enum Place {
    Ours,
    /// Since when; and how long it is left alone.
    Free(Tick, Duration),
    Followed(Box<Follower>),
}

/// What this process follows.
pub struct Standby {
    clients: ClientSettings,
    models: Arc<Models>,
    metrics: Arc<Metrics>,
    topic: String,
    partitions: i32,
    /// Nothing is trusted that was out of sight for longer.
    age_most_ms: i64,
    places: Mutex<Vec<Place>>,
}

impl Standby {
    /// `None` where the configuration does not ask for it, or the broker is a mock.
    pub fn prepare(
        config: &Config,
        clients: &ClientSettings,
        models: &Arc<Models>,
        metrics: &Arc<Metrics>,
        partitions: i32,
    ) -> Result<Option<Standby>> {
        if !config.state.standby || clients.broker == BrokerKind::Embedded {
            return Ok(None);
        }
        let now = Tick::now();
        Ok(Some(Standby {
            age_most_ms: checkpoint::trusted_for_ms(config, clients)?,
            clients: clients.clone(),
            models: Arc::clone(models),
            metrics: Arc::clone(metrics),
            topic: config.topics.state.clone(),
            partitions,
            places: Mutex::new((0..partitions).map(|_| Place::Free(now, SETTLED)).collect()),
        }))
    }

    /// A worker is assigned the partition: nobody follows it any more. Returns what was read of it.
    pub fn take(&self, partition: i32) -> Option<Box<Follower>> {
        match std::mem::replace(self.places().get_mut(partition as usize)?, Place::Ours) {
            // Whoever was frozen may be assigned it before the thread has looked.
            Place::Followed(follower) => (!self.is_out_of_sight(&follower)).then_some(follower),
            Place::Ours | Place::Free(..) => None,
        }
    }

    /// A worker has given the partition up.
    pub fn give(&self, partition: i32) {
        if let Some(place) = self.places().get_mut(partition as usize) {
            *place = Place::Free(Tick::now(), SETTLED);
        }
    }

    /// Follows until the service stops.
    pub fn follow(&self, is_stopping: impl Fn() -> bool) {
        let mut sight: Option<(BaseConsumer<LogContext>, BTreeSet<i32>)> = None;
        let mut weighed: Option<(Tick, Duration)> = None;
        while !is_stopping() {
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
    }

    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with whatever has been free for long enough; names what is followed.
    fn wanted(&self) -> BTreeSet<i32> {
        let mut wanted = BTreeSet::new();
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
        let mut patience = PAUSE;
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
        (wall_now() - follower.near).abs() > self.age_most_ms
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
                Place::Ours | Place::Free(..) => None,
            })
            .collect();
        f.debug_struct("Standby").field("topic", &self.topic).field("next", &next).finish_non_exhaustive()
    }
}
