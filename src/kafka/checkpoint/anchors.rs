//! From where on the state topic holds what memory holds, by partition of a worker.
//!
//! The offset is asked for before a transaction writes its states, and used once that transaction is committed: so it
//! is below the marker that is in the topic now, and this process owned the partition when it was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::Consumer;

use super::Anchor;
use crate::kafka::members::Member;
use crate::time::{Tick, wall_now};

/// How long the brokers may take to say where a topic ends. They are asked again later.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// An answer that no commit has confirmed for so long is asked for anew.
const ANSWER_KEPT: Duration = Duration::from_secs(10);

/// What one worker knows of where its partitions' state ends in the topic.
pub struct Anchors {
    topic: String,
    /// By partition, the last anchor, and when a commit confirmed it.
    known: BTreeMap<i32, (Anchor, Tick)>,
    /// Partitions whose anchor is that of the last commit.
    near: BTreeSet<i32>,
    /// Answers that the next commit confirms.
    asked: BTreeMap<i32, (Anchor, Tick)>,
    /// When brokers did not answer.
    unanswered: Option<Tick>,
}

impl Anchors {
    /// Of partitions of this state topic.
    pub fn new(topic: &str) -> Self {
        Anchors {
            topic: topic.to_owned(),
            known: BTreeMap::new(),
            near: BTreeSet::new(),
            asked: BTreeMap::new(),
            unanswered: None,
        }
    }

    /// A partition is restored; its state is that of the topic from `anchor` on.
    pub fn restored(&mut self, partition: i32, anchor: Option<Anchor>) {
        // It is that of the last transaction in the topic.
        self.near.extend(anchor.map(|_| partition));
        self.known.extend(anchor.map(|anchor| (partition, (anchor, Tick::now()))));
    }

    /// Asks where the topic ends for each of these partitions, before the transaction at hand writes to it. Whether
    /// all were answered.
    pub fn ask(&mut self, member: &Member, partitions: &[i32]) -> bool {
        for partition in partitions {
            let taken_at = wall_now();
            match member.fetch_watermarks(&self.topic, *partition, ANSWER_MAX) {
                Ok((_, from)) => {
                    self.asked.insert(*partition, (Anchor { from, taken_at }, Tick::now()));
                }
                Err(error) => {
                    tracing::debug!(partition, "not known where its state ends: {error}");
                    self.unanswered = Some(Tick::now());
                    return false;
                }
            }
        }
        true
    }

    /// Whether to ask for a partition by and by: nothing is under way for it.
    pub fn may_ask(&self, partition: i32) -> bool {
        let waits = self.asked.get(&partition).is_some_and(|(_, at)| at.elapsed() < ANSWER_KEPT);
        !waits && self.unanswered.is_none_or(|at| at.elapsed() > ANSWER_KEPT)
    }

    /// The transaction at hand is committed: what was asked for before it holds.
    pub fn committed(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        let now = Tick::now();
        self.near = asked.keys().copied().collect();
        self.known.extend(asked.into_iter().map(|(partition, (anchor, _))| (partition, (anchor, now))));
    }

    /// Whether more than the last commit lies behind the anchor of one of these partitions.
    pub fn is_behind(&self, partitions: &[i32]) -> bool {
        partitions.iter().any(|partition| !self.near.contains(partition))
    }

    /// The partition's anchor, and when a commit confirmed it.
    pub fn get(&self, partition: i32) -> Option<(Anchor, Tick)> {
        self.known.get(&partition).copied()
    }

    /// A partition is gone; nothing more is to be known of it.
    pub fn let_go(&mut self, partition: i32) -> Option<Anchor> {
        self.asked.remove(&partition);
        self.near.remove(&partition);
        self.known.remove(&partition).map(|(anchor, _)| anchor)
    }
}
