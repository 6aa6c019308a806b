//! A cluster in memory, as far as the protocol needs one: logs with transactions and a last stable offset,
//! producers with epochs, a group with generations, and offsets that are committed with transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stagecast::kafka::task::Task;

use crate::world::World;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The producer's epoch was moved on.
    Fenced,
    /// The group has moved on.
    IllegalGeneration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Open,
    Committed,
    Aborted,
}

#[derive(Debug)]
struct Transaction {
    status: Status,
    offsets: Vec<(Place, i64)>,
}

/// A partition and a lane of it.
pub type Place = (i32, usize);

/// A record and the transaction it belongs to; `None`: none.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    transaction: Option<usize>,
    pub record: T,
}

/// An output, in whatever topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Output {
    pub customer: String,
    pub id: u128,
    pub json: String,
}

/// A record of the state topic.
#[derive(Clone, Debug)]
pub struct Stored {
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Producer {
    epoch: u32,
    open: Option<usize>,
}

/// The group of the workers.
#[derive(Debug, Default)]
pub struct Group {
    pub generation: u32,
    members: BTreeSet<u64>,
    /// Those who have joined the generation to come.
    ready: BTreeSet<u64>,
    pub rebalancing: bool,
    assignment: BTreeMap<i32, u64>,
}

pub struct Cluster {
    pub world: Arc<World>,
    /// How many of the world's events are there.
    pub fed: usize,
    outputs: Vec<Entry<Output>>,
    states: Vec<Vec<Entry<Stored>>>,
    transactions: Vec<Transaction>,
    producers: BTreeMap<usize, Producer>,
    pub group: Group,
    offsets: BTreeMap<Place, i64>,
    /// By partition, the checkpoint that was written last and where the tail behind it begins, on a disk that all
    /// workers share.
    pub files: BTreeMap<i32, (usize, Vec<u8>)>,
    /// By process and partition, what a worker has given up and where the tail behind it begins, for as long as it takes.
    pub kept: BTreeMap<(usize, i32), (usize, Task)>,
}

impl Cluster {
    pub fn new(world: Arc<World>) -> Cluster {
        let states = (0..world.partitions).map(|_| Vec::new()).collect();
        Cluster {
            world,
            fed: 0,
            outputs: Vec::new(),
            states,
            transactions: Vec::new(),
            producers: BTreeMap::new(),
            group: Group::default(),
            offsets: BTreeMap::new(),
            files: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }

    /// Fences whoever had this name, ends what it left open, and returns the new epoch.
    pub fn init(&mut self, producer: usize) -> u32 {
        self.expire(producer);
        self.producers[&producer].epoch
    }

    /// Aborts a transaction for taking too long, which fences its producer.
    pub fn expire(&mut self, producer: usize) {
        let known = self.producers.entry(producer).or_default();
        known.epoch += 1;
        if let Some(open) = known.open.take() {
            self.transactions[open].status = Status::Aborted;
        }
    }

    pub fn begin(&mut self, producer: usize, epoch: u32) -> Result<(), Refused> {
        let next = self.transactions.len();
        let known = self.producer(producer, epoch)?;
        if known.open.is_none() {
            known.open = Some(next);
            self.transactions.push(Transaction { status: Status::Open, offsets: Vec::new() });
        }
        Ok(())
    }

    pub fn write(&mut self, producer: usize, epoch: u32, output: Output) -> Result<(), Refused> {
        let transaction = self.producer(producer, epoch)?.open;
        self.outputs.push(Entry { transaction, record: output });
        Ok(())
    }

    /// Writes an output past the transaction, as a producer without a `transactional.id` does.
    pub fn write_past(&mut self, output: Output) {
        self.outputs.push(Entry { transaction: None, record: output });
    }

    pub fn store(
        &mut self,
        producer: usize,
        epoch: u32,
        partition: i32,
        stored: Stored,
    ) -> Result<(), Refused> {
        let transaction = self.producer(producer, epoch)?.open;
        self.states[partition as usize].push(Entry { transaction, record: stored });
        Ok(())
    }

    /// Adds offsets to the open transaction, if the member is of the group's generation.
    pub fn add_offsets(
        &mut self,
        (producer, epoch): (usize, u32),
        (member, generation): (u64, u32),
        offsets: Vec<(Place, i64)>,
    ) -> Result<(), Refused> {
        let open = self.producer(producer, epoch)?.open;
        if !self.group.members.contains(&member) || generation != self.group.generation {
            return Err(Refused::IllegalGeneration);
        }
        if let Some(open) = open {
            self.transactions[open].offsets = offsets;
        }
        Ok(())
    }

    /// Ends the open transaction.
    pub fn end(&mut self, producer: usize, epoch: u32, commit: bool) -> Result<(), Refused> {
        let Some(open) = self.producer(producer, epoch)?.open.take() else { return Ok(()) };
        let transaction = &mut self.transactions[open];
        transaction.status = if commit { Status::Committed } else { Status::Aborted };
        if commit {
            self.offsets.extend(transaction.offsets.iter().copied());
        }
        Ok(())
    }

    fn producer(&mut self, producer: usize, epoch: u32) -> Result<&mut Producer, Refused> {
        let known = self.producers.entry(producer).or_default();
        if known.epoch == epoch { Ok(known) } else { Err(Refused::Fenced) }
    }

    fn is(&self, transaction: Option<usize>, status: Status) -> bool {
        transaction.map_or(status == Status::Committed, |t| self.transactions[t].status == status)
    }

    /// What a reader of committed records sees of a log.
    fn committed<'a, T>(&'a self, log: &'a [Entry<T>]) -> impl Iterator<Item = (usize, &'a T)> {
        let stable = log.iter().take_while(|entry| !self.is(entry.transaction, Status::Open));
        stable
            .enumerate()
            .filter(|(_, entry)| self.is(entry.transaction, Status::Committed))
            .map(|(offset, entry)| (offset, &entry.record))
    }

    pub fn committed_outputs(&self) -> impl Iterator<Item = &Output> {
        self.committed(&self.outputs).map(|(_, output)| output)
    }

    /// Every output that was ever written.
    pub fn all_outputs(&self) -> impl Iterator<Item = &Output> {
        self.outputs.iter().map(|entry| &entry.record)
    }

    pub fn committed_states(&self, partition: i32) -> impl Iterator<Item = (usize, &Stored)> {
        self.committed(&self.states[partition as usize])
    }

    /// The last stable offset of a partition of the state topic, and its end.
    pub fn stable_and_end(&self, partition: i32) -> (usize, usize) {
        let log = &self.states[partition as usize];
        let stable = log.iter().take_while(|entry| !self.is(entry.transaction, Status::Open)).count();
        (stable, log.len())
    }

    /// The group's committed offset; an error while a transaction that may change it is open.
    pub fn committed_offset(&self, place: Place) -> Result<Option<i64>, Refused> {
        let open = self.transactions.iter().filter(|t| t.status == Status::Open);
        if open.flat_map(|t| &t.offsets).any(|(pending, _)| *pending == place) {
            return Err(Refused::IllegalGeneration);
        }
        Ok(self.offsets.get(&place).copied())
    }

    /// How many records of a lane are there.
    pub fn end_of(&self, (partition, lane): Place) -> i64 {
        let there = &self.world.events[..self.fed];
        there.iter().filter(|event| event.place == (partition, lane)).count() as i64
    }

    pub fn join(&mut self, member: u64) {
        self.group.members.insert(member);
        self.group.rebalancing = true;
        self.group.ready.insert(member);
        self.complete();
    }

    /// A member that lets its partitions go joins the generation to come.
    pub fn rejoin(&mut self, member: u64) {
        self.group.ready.insert(member);
        self.complete();
    }

    /// A member leaves, or its session is over.
    pub fn leave(&mut self, member: u64) {
        if self.group.members.remove(&member) {
            self.group.ready.remove(&member);
            self.group.rebalancing = true;
            self.complete();
        }
    }

    pub fn is_member(&self, member: u64) -> bool {
        self.group.members.contains(&member)
    }

    pub fn has_rejoined(&self, member: u64) -> bool {
        self.group.ready.contains(&member)
    }

    pub fn assigned_to(&self, member: u64) -> Vec<i32> {
        self.group.assignment.iter().filter(|(_, m)| **m == member).map(|(p, _)| *p).collect()
    }

    /// Once all have joined, the generation begins.
    fn complete(&mut self) {
        let group = &mut self.group;
        if !group.rebalancing || group.members.is_empty() || group.ready != group.members {
            return;
        }
        group.generation += 1;
        group.rebalancing = false;
        group.ready.clear();
        let members: Vec<u64> = group.members.iter().copied().collect();
        group.assignment =
            (0..self.world.partitions).map(|p| (p, members[p as usize % members.len()])).collect();
    }
}
