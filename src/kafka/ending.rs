//! When `--until-end` has come to its end: every partition is through, whichever process has it.
//!
//! Partitions tell each other what passes between the ids of a customer, so that one that has read everything may be
//! told more: none is through before all are quiet. What the workers of this process have is known here. Other
//! processes commit a word beside the positions of their partitions and say it again while they wait; it counts where the
//! positions are at the end and it was said since this process started, by the wall clocks of both: what an earlier run
//! said of the same partitions says nothing of this one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::members::Member;
use super::task::{Input, Reading};
use crate::time::Ts;

const ANSWER_MOST: Duration = Duration::from_secs(5);

/// What a process says of a partition it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Nothing is left to do, unless somebody tells it something.
    Quiet,
    /// Its clock has run on to `--until` besides.
    Through,
}

/// What is known of the end. `Ts`: milliseconds since 1970.
pub struct Ending {
    partitions: i32,
    until: Option<Ts>,
    /// By lane and partition, where records end; empty without `--until-end`.
    ends: BTreeMap<(usize, i32), i64>,
    /// Wall clock when this process started.
    since: Ts,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Partitions that this process has.
    held: BTreeSet<i32>,
    /// Of those without anything left to do or to commit, how far they have read what others tell them.
    quiet: BTreeMap<i32, i64>,
    through: BTreeSet<i32>,
    /// Of other processes, as far as they said so: the same, and whether they are through.
    elsewhere: BTreeMap<i32, (i64, Word)>,
    is_drained: bool,
}

impl Ending {
    pub fn new(partitions: i32, until: Option<Ts>, ends: BTreeMap<(usize, i32), i64>, since: Ts) -> Ending {
        Ending { partitions, until, ends, since, known: Mutex::default() }
    }

    pub fn end_of(&self, lane: usize, partition: i32) -> Option<i64> {
        self.ends.get(&(lane, partition)).copied()
    }

    pub fn is_beyond(&self, lane: usize, partition: i32, offset: i64) -> bool {
        self.end_of(lane, partition).is_some_and(|end| offset >= end)
    }

    pub fn hold(&self, partition: i32) {
        let mut known = self.known();
        known.held.insert(partition);
        known.elsewhere.remove(&partition);
    }

    pub fn let_go(&self, partition: i32) {
        let mut known = self.known();
        known.held.remove(&partition);
        known.quiet.remove(&partition);
    }

    /// Whether no other process has partitions.
    pub fn is_all_here(&self) -> bool {
        self.elsewhere().is_empty()
    }

    /// Those that some other process has, or nobody.
    fn elsewhere(&self) -> Vec<i32> {
        let known = self.known();
        (0..self.partitions).filter(|partition| !known.held.contains(partition)).collect()
    }

    /// Those of other processes, or of nobody, that are not known to have nothing left to do.
    pub fn awaited(&self) -> Vec<i32> {
        let elsewhere = self.elsewhere();
        let known = self.known();
        elsewhere.into_iter().filter(|partition| !known.elsewhere.contains_key(partition)).collect()
    }

    /// Says whether a partition of this process has nothing left to do, and how far it has read what others tell it.
    pub fn set_quiet(&self, partition: i32, read_to: Option<i64>) {
        let mut known = self.known();
        match read_to {
            Some(read_to) => drop(known.quiet.insert(partition, read_to)),
            None => drop(known.quiet.remove(&partition)),
        }
    }

    pub fn set_through(&self, partition: i32) {
        self.known().through.insert(partition);
    }

    pub fn is_through(&self, partition: i32) -> bool {
        self.known().through.contains(&partition)
    }

    /// What to commit beside the positions of a partition that is quiet once that is committed.
    pub fn say(&self, partition: i32, now: Ts) -> String {
        match self.is_through(partition) {
            true => format!("through {} {now}", self.until.map_or("-".to_owned(), |until| until.to_string())),
            false => format!("quiet {now}"),
        }
    }

    /// Asks the group what it has committed of partitions that are not here. Where that cannot be had, what was heard
    /// before stands, and it is for the caller to ask again.
    pub fn ask(&self, member: &Member, inputs: &[Input]) {
        let elsewhere = self.elsewhere();
        let mut asked = TopicPartitionList::with_capacity(elsewhere.len() * inputs.len());
        for partition in &elsewhere {
            for input in inputs {
                asked.add_partition(&input.topic, *partition);
            }
        }
        let Ok(committed) = member.committed_offsets(asked, ANSWER_MOST) else { return };
        for partition in elsewhere {
            let found = |input: &Input| committed.find_partition(&input.topic, partition);
            let at = |input: &Input| match found(input).map(|element| element.offset()) {
                Some(Offset::Offset(offset)) => offset,
                _ => 0,
            };
            let lanes: Vec<i64> = inputs.iter().map(at).collect();
            let told = inputs.iter().find(|input| input.reading == Reading::Moves).map_or(0, at);
            let first = inputs.first().and_then(found);
            self.hear(partition, &lanes, told, first.as_ref().map_or("", |element| element.metadata()));
        }
    }

    /// Takes note of what another process committed: the position of each lane, how far it has read what others tell
    /// it, and the word.
    fn hear(&self, partition: i32, lanes: &[i64], told: i64, word: &str) {
        let is_at_end = lanes
            .iter()
            .enumerate()
            .all(|(lane, at)| self.end_of(lane, partition).is_none_or(|end| *at >= end));
        let word = self.understand(word).filter(|_| is_at_end);
        let mut known = self.known();
        match word {
            Some(word) => drop(known.elsewhere.insert(partition, (told, word))),
            None => drop(known.elsewhere.remove(&partition)),
        }
    }

    fn understand(&self, word: &str) -> Option<Word> {
        let mut parts = word.split(' ');
        let (word, said) = match parts.next()? {
            "quiet" => (Word::Quiet, parts.next()?),
            "through" => {
                let until = parts.next()?.parse::<Ts>().ok();
                (if until >= self.until { Word::Through } else { Word::Quiet }, parts.next()?)
            }
            _ => return None,
        };
        (said.parse::<Ts>().ok()? >= self.since).then_some(word)
    }

    /// Whether no partition will ever tell another anything again: all are quiet, and `is_read` says that nothing
    /// stands in the topic between them beyond what they have read. Between the two looks nobody can have begun to
    /// speak, since for that one must have been told something.
    pub fn is_drained(&self, is_read: impl FnOnce(&BTreeMap<i32, i64>) -> bool) -> bool {
        let quiet = {
            let known = self.known();
            if known.is_drained {
                return true;
            }
            let elsewhere = known.elsewhere.iter().map(|(partition, (told, _))| (*partition, *told));
            elsewhere.chain(known.quiet.clone()).collect::<BTreeMap<i32, i64>>()
        };
        let is_drained = quiet.len() == self.partitions.max(0) as usize && is_read(&quiet);
        self.known().is_drained |= is_drained;
        is_drained
    }

    pub fn all_through(&self) -> bool {
        let known = self.known();
        let there =
            |partition| known.elsewhere.get(&partition).is_some_and(|(_, word)| *word == Word::Through);
        (0..self.partitions).all(|partition| known.through.contains(&partition) || there(partition))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTED: Ts = 1_000;

    /// Two partitions of one input, which end at 5 and 7; the other lane tells.
    fn ending(until: Option<Ts>) -> Ending {
        Ending::new(2, until, [((0, 0), 5), ((0, 1), 7)].into(), STARTED)
    }

    #[test]
    fn one_process_ends_when_all_its_partitions_are_quiet_and_through() {
        let ending = ending(None);
        [0, 1].into_iter().for_each(|partition| ending.hold(partition));
        assert!(ending.is_all_here());
        ending.set_quiet(0, Some(3));
        assert!(!ending.is_drained(|_| true));
        ending.set_quiet(1, Some(4));
        assert!(!ending.is_drained(|_| false));
        assert!(ending.is_drained(|read_to| *read_to == [(0, 3), (1, 4)].into()));
        ending.set_through(0);
        assert!(!ending.all_through());
        ending.set_through(1);
        assert!(ending.all_through());
    }

    #[test]
    fn what_another_process_says_counts_at_the_end_and_since_the_start() {
        let ending = ending(None);
        ending.hold(0);
        ending.set_quiet(0, Some(0));
        for (at, word) in
            [(6, "quiet 1000"), (7, "quiet 999"), (7, ""), (7, "busy 1000"), (7, "through 1000")]
        {
            ending.hear(1, &[at], 0, word);
            assert!(!ending.is_drained(|_| true), "{at} {word}");
        }
        ending.hear(1, &[7], 2, "quiet 1000");
        assert!(ending.is_drained(|read_to| read_to[&1] == 2) && !ending.all_through());
        ending.set_through(0);
        ending.hear(1, &[7], 2, "through - 1001");
        assert!(ending.all_through());
    }

    #[test]
    fn through_is_said_of_an_instant() {
        let (early, late) = (ending(Some(10)), ending(Some(20)));
        [&early, &late].into_iter().for_each(|ending| ending.set_through(1));
        let word = early.say(1, STARTED);
        assert_eq!(
            (early.understand(&word), late.understand(&word)),
            (Some(Word::Through), Some(Word::Quiet))
        );
        assert_eq!(early.understand(&late.say(1, STARTED)), Some(Word::Through));
        assert_eq!(late.understand(&late.say(0, STARTED)), Some(Word::Quiet));
        assert_eq!(ending(None).understand(&word), Some(Word::Through));
    }

    #[test]
    fn what_was_taken_over_counts_no_more_as_others_said() {
        let ending = ending(None);
        ending.hear(1, &[7], 0, "through - 1000");
        ending.hold(1);
        ending.set_through(0);
        assert!(!ending.all_through());
        assert_eq!(ending.elsewhere(), [0]);
        ending.let_go(1);
        assert_eq!(ending.elsewhere(), [0, 1]);
    }
}
