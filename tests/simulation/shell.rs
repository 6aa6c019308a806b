//! A worker as the service has one, over the simulated cluster: the tasks, what they write to the state topic,
//! the reading of it and the decision where to go on are the service's own code; here is the order of the calls,
//! cut into steps between which anything may happen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use stagecast::kafka::checkpoint::format::{Bad, Frame, Header, Reader, Writer};
use stagecast::kafka::checkpoint::sweep::Sweep;
use stagecast::kafka::marker::{self, Found, InputFacts};
use stagecast::kafka::restore::Reading;
use stagecast::kafka::task::{Incoming, Input, Intake, Task};
use stagecast::kafka::worker::write_states;
use stagecast::pipeline::engine::Engine;
use stagecast::time::{Tick, Ts};

use crate::cluster::{Cluster, Output, Place, Refused, Stored};
use crate::world::outputs_of;

/// Partitions restored from a checkpoint and the tail behind it, in all schedules.
pub static FROM_FILES: AtomicUsize = AtomicUsize::new(0);
/// The same from what a worker of the same process had given up.
pub static FROM_KEPT: AtomicUsize = AtomicUsize::new(0);
/// Workers of a process.
const WORKERS: usize = 2;

/// The bytes of a checkpoint of this task.
fn checkpoint(partition: i32, from: usize, task: &Task) -> Vec<u8> {
    let header = Header {
        cluster: "simulated".into(),
        app: "app".into(),
        topic: "state".into(),
        partition,
        log: "log".into(),
        layout: task.plan().layout_id,
        from: from as i64,
        taken_at: 0,
    };
    let mut writer = Writer::begin(Vec::new(), &header).expect("memory");
    let (mut sweep, mut done) = (Sweep::default(), false);
    while !done {
        let mut frame = Frame::new();
        done = sweep.fill(task, &mut frame, Tick::now());
        writer.records(&frame).expect("memory");
    }
    writer.finish(task.sequence()).expect("memory")
}

/// A guard that is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Without {
    #[default]
    Nothing,
    Transaction,
    SilentPositions,
    RestoreToEnd,
    Rollback,
}

/// How far the transaction at hand is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Filling,
    StatesSent,
    OffsetsSent,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Went {
    On,
    /// The worker must begin anew.
    Anew,
}

pub struct Worker {
    pub name: usize,
    pub member: u64,
    epoch: u32,
    generation: u32,
    without: Without,
    tasks: BTreeMap<i32, Task>,
    open: bool,
    stage: Stage,
    /// What will be read next, and what the client says, which lags behind a seek.
    next: BTreeMap<Place, i64>,
    stands: BTreeMap<Place, i64>,
    /// Partitions to be restored, with the ends that must be reached.
    restoring: Option<Vec<(i32, usize)>>,
    /// By partition, where its states ended before the transaction at hand wrote to it.
    asked: BTreeMap<i32, usize>,
    /// The same of the last transaction that was committed.
    anchors: BTreeMap<i32, usize>,
    /// Their states, once read; the positions are asked for afterwards.
    read: Option<Vec<(i32, Engine, Found)>>,
}

impl Worker {
    /// Fences, then joins.
    pub fn start(cluster: &mut Cluster, name: usize, member: u64, without: Without) -> Worker {
        let epoch = cluster.init(name);
        cluster.join(member);
        Worker {
            name,
            member,
            epoch,
            generation: 0,
            without,
            tasks: BTreeMap::new(),
            open: false,
            stage: Stage::Filling,
            next: BTreeMap::new(),
            stands: BTreeMap::new(),
            restoring: None,
            asked: BTreeMap::new(),
            anchors: BTreeMap::new(),
            read: None,
        }
    }

    /// One round of the loop: answer the group, restore, or take records in and do what has its turn.
    pub fn poll(&mut self, cluster: &mut Cluster, records: usize, wall: Ts) -> Went {
        if self.stage != Stage::Filling {
            return self.commit_step(cluster);
        }
        if !cluster.is_member(self.member) {
            return Went::Anew;
        }
        if cluster.group.rebalancing {
            return self.hand_over(cluster);
        }
        if self.generation != cluster.group.generation {
            self.generation = cluster.group.generation;
            let partitions = cluster.assigned_to(self.member);
            let end = |p| match (self.without, cluster.stable_and_end(p)) {
                (Without::RestoreToEnd, (stable, _)) => stable,
                (_, (_, end)) => end,
            };
            self.restoring = Some(partitions.into_iter().map(|p| (p, end(p))).collect());
        }
        if self.restoring.is_some() {
            self.read_states(cluster);
            return Went::On;
        }
        if self.read.is_some() {
            self.resume(cluster);
            return Went::On;
        }
        for partition in self.tasks.keys().copied().collect::<Vec<_>>() {
            self.take_in(cluster, partition, records);
            if self.advance(cluster, partition, records, wall).is_err() {
                return Went::Anew;
            }
        }
        Went::On
    }

    /// Commits, lets the partitions go, and joins the next generation.
    fn hand_over(&mut self, cluster: &mut Cluster) -> Went {
        if cluster.has_rejoined(self.member) {
            return Went::On;
        }
        while self.has_something() {
            if self.commit_step(cluster) == Went::Anew {
                return Went::Anew;
            }
        }
        for (partition, task) in std::mem::take(&mut self.tasks) {
            let anchor = self.anchors.remove(&partition).filter(|_| task.is_savable());
            let kept = anchor.filter(|_| self.without == Without::Nothing).map(|from| (from, task));
            cluster.kept.extend(kept.map(|kept| ((self.process(), partition), kept)));
        }
        (self.restoring, self.read) = (None, None);
        cluster.rejoin(self.member);
        Went::On
    }

    fn process(&self) -> usize {
        self.name / WORKERS
    }

    fn has_something(&self) -> bool {
        self.open || self.tasks.values().any(|task| task.changed)
    }

    fn take_in(&mut self, cluster: &Cluster, partition: i32, records: usize) {
        let world = Arc::clone(&cluster.world);
        let Some(task) = self.tasks.get_mut(&partition) else { return };
        for lane in 0..world.lanes() {
            let place = (partition, lane);
            let of_place = world.events.iter().filter(|event| event.place == place);
            let (from, end) = (self.next[&place], cluster.end_of(place));
            let until = end.min(from + records as i64);
            for (offset, event) in (from..until).zip(of_place.skip(from as usize)) {
                let incoming = Incoming {
                    offset,
                    key: Some(event.customer.as_bytes()),
                    value: event.json.as_bytes(),
                    headers: &(),
                    timestamp: None,
                };
                let intake = task.take(lane, &incoming, Tick::now(), world.until);
                assert!(!matches!(intake, Intake::DeadLetter(_)), "{intake:?}");
                self.next.insert(place, offset + 1);
                self.stands.insert(place, offset + 1);
            }
            let stands = self.stands.get(&place).copied().unwrap_or_else(|| task.merger().read_to(lane));
            task.set_end(lane, stands.min(end), end);
        }
    }

    fn advance(
        &mut self,
        cluster: &mut Cluster,
        partition: i32,
        records: usize,
        wall: Ts,
    ) -> Result<(), Refused> {
        let Some(task) = self.tasks.get_mut(&partition) else { return Ok(()) };
        for _ in 0..records {
            if task.advance().is_none() {
                break;
            }
        }
        task.pass_time(wall);
        self.send_outputs(cluster, partition)
    }

    /// Runs all clocks on to the end of the world.
    pub fn run_on(&mut self, cluster: &mut Cluster, until: Ts) -> Result<(), Refused> {
        for partition in self.tasks.keys().copied().collect::<Vec<_>>() {
            let mut from = Some(0);
            while let (Some(next), Some(task)) = (from, self.tasks.get_mut(&partition)) {
                from = task.run_until(until, next);
                self.send_outputs(cluster, partition)?;
            }
        }
        Ok(())
    }

    fn send_outputs(&mut self, cluster: &mut Cluster, partition: i32) -> Result<(), Refused> {
        let Some(task) = self.tasks.get_mut(&partition) else { return Ok(()) };
        let outputs: Vec<Output> = outputs_of(task.engine());
        if outputs.is_empty() {
            return Ok(());
        }
        cluster.begin(self.name, self.epoch)?;
        self.open = true;
        for output in outputs {
            match self.without {
                Without::Transaction => cluster.write_past(output),
                _ => cluster.write(self.name, self.epoch, output)?,
            }
        }
        task.engine_mut().outbox.clear();
        Ok(())
    }

    /// The next step of a commit: states, then positions, then the end.
    pub fn commit_step(&mut self, cluster: &mut Cluster) -> Went {
        let went = match self.stage {
            Stage::Filling if !self.has_something() => return Went::On,
            Stage::Filling => self.send_states(cluster).map(|()| Stage::StatesSent),
            Stage::StatesSent => self.send_offsets(cluster).map(|()| Stage::OffsetsSent),
            Stage::OffsetsSent => self.end(cluster).map(|()| Stage::Filling),
        };
        match went {
            Ok(stage) => {
                self.stage = stage;
                Went::On
            }
            Err(Refused::IllegalGeneration) => self.abort(cluster),
            Err(Refused::Fenced) => Went::Anew,
        }
    }

    fn send_states(&mut self, cluster: &mut Cluster) -> Result<(), Refused> {
        cluster.begin(self.name, self.epoch)?;
        self.open = true;
        let mut buffer = Vec::new();
        for (partition, task) in &self.tasks {
            self.asked.insert(*partition, cluster.stable_and_end(*partition).1);
            write_states(task, &mut buffer, |key, value| {
                let stored = Stored { key: key.to_vec(), value: value.map(<[u8]>::to_vec) };
                cluster.store(self.name, self.epoch, *partition, stored)
            })?;
        }
        Ok(())
    }

    fn send_offsets(&mut self, cluster: &mut Cluster) -> Result<(), Refused> {
        let mut offsets = Vec::new();
        for (partition, task) in &self.tasks {
            let lanes = 0..task.inputs().len();
            let moved = lanes.clone().any(|lane| task.position(lane) != task.committed()[lane]);
            if moved || self.without != Without::SilentPositions {
                offsets.extend(lanes.map(|lane| ((*partition, lane), task.position(lane).next)));
            }
        }
        if offsets.is_empty() {
            // What the client does with an empty list: nothing.
            return Ok(());
        }
        cluster.add_offsets((self.name, self.epoch), (self.member, self.generation), offsets)
    }

    fn end(&mut self, cluster: &mut Cluster) -> Result<(), Refused> {
        cluster.end(self.name, self.epoch, true)?;
        self.tasks.values_mut().for_each(Task::commit);
        self.open = false;
        self.anchors.append(&mut self.asked.clone());
        for (partition, task) in self.tasks.iter().filter(|(_, task)| task.is_savable()) {
            // Not after each, so that tails are of every length.
            if (task.sequence() + *partition as u64).is_multiple_of(3) {
                let from = self.asked[partition];
                cluster.files.insert(*partition, (from, checkpoint(*partition, from, task)));
            }
        }
        Ok(())
    }

    /// A commit whose answer does not come: it may have happened or not, and the worker must begin anew.
    pub fn end_unanswered(&mut self, cluster: &mut Cluster, happens: bool) -> Went {
        if self.stage != Stage::OffsetsSent {
            return Went::On;
        }
        if happens {
            let _ = cluster.end(self.name, self.epoch, true);
        }
        Went::Anew
    }

    /// Takes the transaction at hand back and reads on from the last commit.
    pub fn abort(&mut self, cluster: &mut Cluster) -> Went {
        if self.open && cluster.end(self.name, self.epoch, false).is_err() {
            return Went::Anew;
        }
        (self.open, self.stage) = (false, Stage::Filling);
        for (partition, task) in &mut self.tasks {
            let kept = self.without == Without::Rollback;
            let before = kept.then(|| crate::world::states_of(task.engine()).collect::<Vec<_>>());
            task.rollback();
            if let Some(states) = before {
                // As if nobody had been taken back.
                for (id, state) in states {
                    task.engine_mut().restore(&id, &state).unwrap();
                }
                task.engine_mut().finish_restore();
            }
            for lane in 0..task.inputs().len() {
                self.next.insert((*partition, lane), task.committed()[lane].next);
            }
        }
        Went::On
    }

    /// Reads the states, once nothing is open in front of the ends.
    fn read_states(&mut self, cluster: &mut Cluster) {
        let Some(partitions) = &self.restoring else { return };
        if partitions.iter().any(|(p, end)| cluster.stable_and_end(*p).0 < *end) {
            return;
        }
        let read = partitions.iter().map(|(partition, _)| {
            let kept = cluster.kept.remove(&(self.process(), *partition));
            if let Some((from, task)) = kept {
                FROM_KEPT.fetch_add(1, Ordering::Relaxed);
                return read_on(cluster, Reading::going_on(task, "state"), *partition, from);
            }
            let mut reading = Reading::new(&cluster.world.plan, "state", *partition);
            let mut from = 0;
            // Every other checkpoint, so that the whole log is read as well.
            let file = cluster.files.get(partition).filter(|(from, _)| from.is_multiple_of(2));
            if let Some((tail, bytes)) = file.filter(|_| self.without == Without::Nothing) {
                from = *tail;
                let (_, file) = Reader::open(&bytes[..]).expect("a checkpoint");
                let read = file.read(|key, value| {
                    reading.take(*tail as i64, key, Some(value)).expect("a state that can be read");
                    Ok::<(), Bad>(())
                });
                read.expect("a whole checkpoint");
                FROM_FILES.fetch_add(1, Ordering::Relaxed);
            }
            read_on(cluster, reading, *partition, from)
        });
        self.read = Some(read.collect());
        self.restoring = None;
    }

    /// Decides where to go on, once no transaction may still change the positions.
    fn resume(&mut self, cluster: &Cluster) {
        let Some(read) = self.read.take() else { return };
        let world = &cluster.world;
        let facts: Option<Vec<_>> = read.iter().map(|(p, ..)| facts(cluster, *p)).collect();
        let Some(facts) = facts else {
            self.read = Some(read);
            return;
        };
        for ((partition, engine, found), facts) in read.into_iter().zip(facts) {
            let resume = marker::resume(partition, world.partitions, &found, &facts);
            let resume = resume.unwrap_or_else(|why| panic!("refused: {why}"));
            let inputs = Arc::clone(&world.inputs);
            let (sequence, starts) = (resume.sequence, resume.starts);
            let task = Task::new(partition, world.partitions, inputs, world.timing, engine, sequence, starts);
            for lane in 0..task.inputs().len() {
                self.next.insert((partition, lane), task.committed()[lane].next);
                self.stands.remove(&(partition, lane));
            }
            self.tasks.insert(partition, task.with_lived_to(resume.lived_to));
        }
    }

    /// Whether it has all its partitions and nothing left to read or to commit.
    pub fn is_done(&self, cluster: &Cluster) -> bool {
        let holds_all = self.tasks.len() == cluster.assigned_to(self.member).len();
        holds_all
            && self.restoring.is_none()
            && self.read.is_none()
            && !cluster.group.rebalancing
            && self.tasks.values().all(Task::is_done)
    }

    pub fn is_clean(&self) -> bool {
        !self.has_something() && self.stage == Stage::Filling
    }
}

/// Reads the tail of a partition's states. Now and then customers settle in while more is to come, as they do where the
/// state of others is followed.
fn read_on(cluster: &Cluster, mut reading: Reading, partition: i32, from: usize) -> (i32, Engine, Found) {
    for (offset, stored) in cluster.committed_states(partition).filter(|(offset, _)| *offset >= from) {
        let taken = reading.take(offset as i64, &stored.key, stored.value.as_deref());
        taken.expect("a state that can be read");
        if offset.is_multiple_of(5) {
            reading.settle(3, 2);
        }
    }
    let (engine, found) = reading.finish().expect("states that can be read");
    (partition, engine, found)
}

/// `None` while an offset may still change.
fn facts(cluster: &Cluster, partition: i32) -> Option<Vec<InputFacts>> {
    let fact = |(lane, input): (usize, &Input)| {
        let place = (partition, lane);
        let committed = cluster.committed_offset(place).ok()?;
        Some(InputFacts { topic: input.topic.clone(), committed, low: 0, high: cluster.end_of(place) })
    };
    cluster.world.inputs.iter().enumerate().map(fact).collect()
}
