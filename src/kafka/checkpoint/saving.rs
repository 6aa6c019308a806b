//! When a worker writes checkpoints, and how it does so beside its work.
//!
//! ```text
//!            every `checkpoint_every`          next commit            between commits, some ms each
//!   idle ──────────────────────────► asked ─────────────► sweeping ───────────────────────────────► idle
//!            where does the topic end?        anchor        records ──► a thread writes the file
//! ```
//!
//! The anchor is that of [`super::anchors`]. At the end of a worker the tasks that it gives up go to a thread of their
//! own, which nobody waits for but that end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::anchors::Anchors;
use super::format::{Frame, Header};
use super::sweep::Sweep;
use super::{Anchor, Checkpoints};
use crate::kafka::members::Member;
use crate::kafka::task::Task;
use crate::metrics::{Checkpoint, Metrics};
use crate::time::Tick;

/// A sweep begins from an anchor that is no older, lest the tail be longer than it need be.
const ANCHOR_FRESH: Duration = Duration::from_secs(1);
/// Of a worker's time, one part in so many goes into sweeps, in looks of these lengths.
const SHARE: u32 = 20;
const LOOK_LEAST: Duration = Duration::from_millis(2);
const LOOK_MOST: Duration = Duration::from_millis(25);
/// Frames that wait to be written.
const FRAMES: usize = 4;

/// The checkpoints of one worker.
pub struct Saving {
    checkpoints: Arc<Checkpoints>,
    metrics: Arc<Metrics>,
    /// When each partition's checkpoint was last begun, or it was restored.
    begun: BTreeMap<i32, Tick>,
    sweeping: Option<Sweeping>,
    looked: Tick,
    threads: Vec<JoinHandle<()>>,
}

/// A sweep that is under way.
struct Sweeping {
    partition: i32,
    sweep: Sweep,
    frame: Frame,
    /// Whether all records are in frames.
    swept: bool,
    to: SyncSender<Part>,
}

/// What goes to the thread that writes.
enum Part {
    Records(Frame),
    End { sequence: u64 },
}

impl Saving {
    pub fn new(checkpoints: Arc<Checkpoints>, metrics: Arc<Metrics>) -> Self {
        Saving {
            checkpoints,
            metrics,
            begun: BTreeMap::new(),
            sweeping: None,
            looked: Tick::now(),
            threads: Vec::new(),
        }
    }

    /// A partition is restored: its next checkpoint has time.
    pub fn restored(&mut self, partition: i32) {
        self.begun.insert(partition, Tick::now());
    }

    /// Goes on, while nothing is uncommitted.
    pub fn go_on(&mut self, member: &Member, tasks: &BTreeMap<i32, Task>, anchors: &mut Anchors) {
        if let Some(sweeping) = &mut self.sweeping {
            let now = Tick::now();
            let look = (now.since(self.looked) / SHARE).clamp(LOOK_LEAST, LOOK_MOST);
            self.looked = now;
            let over = match tasks.get(&sweeping.partition) {
                Some(task) if task.is_savable() => sweeping.look(task, now.plus(look)),
                Some(_) => false,
                None => true,
            };
            if over {
                self.sweeping = None;
            }
            return;
        }
        self.threads.retain(|thread| !thread.is_finished());
        let every = self.checkpoints.every;
        let is_due = |partition: &i32| self.begun.get(partition).is_none_or(|at| at.elapsed() >= every);
        let due: Vec<i32> =
            tasks.values().filter(|t| is_due(&t.partition) && t.is_savable()).map(|t| t.partition).collect();
        let is_fresh = |anchor: &(Anchor, Tick)| anchor.1.elapsed() < ANCHOR_FRESH;
        let fresh = due.iter().find_map(|p| anchors.get(*p).filter(is_fresh).map(|(anchor, _)| (*p, anchor)));
        match fresh {
            Some((partition, anchor)) => self.begin(&tasks[&partition], anchor),
            None => {
                // Of which nothing is known so far may be given up before its checkpoint is due.
                let is_wanted =
                    |p: &i32| (due.contains(p) || anchors.get(*p).is_none()) && anchors.may_ask(*p);
                let wanted: Vec<i32> = tasks.keys().copied().filter(is_wanted).collect();
                anchors.ask(member, &wanted);
            }
        }
    }

    fn begin(&mut self, task: &Task, anchor: Anchor) {
        let partition = task.partition;
        self.begun.insert(partition, Tick::now());
        let Some(log) = task.log() else { return };
        let header = self.checkpoints.header(partition, log, task.plan().layout_id, anchor);
        let (to, parts) = sync_channel(FRAMES);
        let (checkpoints, metrics) = (Arc::clone(&self.checkpoints), Arc::clone(&self.metrics));
        self.spawn(move || {
            let began = Tick::now();
            tell(&metrics, &header, began, write_parts(&checkpoints, &header, &parts));
            checkpoints.clean();
        });
        let (sweep, frame) = (Sweep::default(), Frame::new());
        self.looked = Tick::now();
        self.sweeping = Some(Sweeping { partition, sweep, frame, swept: false, to });
    }

    /// A partition is gone.
    pub fn let_go(&mut self, partition: i32) {
        self.begun.remove(&partition);
        if self.sweeping.as_ref().is_some_and(|sweeping| sweeping.partition == partition) {
            self.sweeping = None;
        }
    }

    /// Writes checkpoints of partitions that are given up with all they have committed.
    pub fn save(&mut self, given_up: Vec<(Task, Option<Anchor>)>) {
        let (checkpoints, metrics) = (Arc::clone(&self.checkpoints), Arc::clone(&self.metrics));
        self.spawn(move || {
            for (task, anchor) in given_up {
                anchor.into_iter().for_each(|anchor| save(&checkpoints, &metrics, &task, anchor));
            }
        });
    }

    /// Waits until every file is written. What a sweep was at is left.
    pub fn finish(mut self) {
        self.sweeping = None;
        for thread in self.threads.drain(..) {
            // It panics nowhere; were it to, there is a checkpoint less.
            let _ = thread.join();
        }
    }

    fn spawn(&mut self, write: impl FnOnce() + Send + 'static) {
        match thread::Builder::new().name("checkpoint".into()).spawn(write) {
            Ok(thread) => self.threads.push(thread),
            Err(error) => tracing::warn!("no checkpoint is written: cannot start a thread: {error}"),
        }
    }
}

impl Sweeping {
    /// Looks at the task until `until`, or until the thread has enough to write; true when all is over.
    fn look(&mut self, task: &Task, until: Tick) -> bool {
        loop {
            if !self.swept && !self.frame.is_full() {
                self.swept = self.sweep.fill(task, &mut self.frame, until);
            }
            if self.frame.is_full() || (self.swept && !self.frame.is_empty()) {
                match self.to.try_send(Part::Records(std::mem::take(&mut self.frame))) {
                    Ok(()) => {}
                    Err(TrySendError::Full(Part::Records(frame))) => {
                        self.frame = frame;
                        return false;
                    }
                    // The thread has told why it ended.
                    Err(_) => return true,
                }
            }
            if self.swept {
                let end = Part::End { sequence: task.sequence() };
                return !matches!(self.to.try_send(end), Err(TrySendError::Full(_)));
            }
            if Tick::now() >= until {
                return false;
            }
        }
    }
}

/// Writes what comes, up to its end. Nothing when the end does not come: the sweep was given up.
fn write_parts(
    checkpoints: &Checkpoints,
    header: &Header,
    parts: &Receiver<Part>,
) -> std::io::Result<Option<u64>> {
    let mut file = checkpoints.begin(header)?;
    loop {
        match parts.recv() {
            Ok(Part::Records(frame)) => file.records(&frame)?,
            Ok(Part::End { sequence }) => return file.finish(sequence).map(Some),
            Err(_) => return Ok(None),
        }
    }
}

/// Writes the checkpoint of a task that nobody has any more. Nothing where not all that it has is in the topic.
pub fn save(checkpoints: &Checkpoints, metrics: &Metrics, task: &Task, anchor: Anchor) {
    let (Some(log), true) = (task.log(), task.is_savable()) else { return };
    let header = checkpoints.header(task.partition, log, task.plan().layout_id, anchor);
    let began = Tick::now();
    tell(metrics, &header, began, write_whole(checkpoints, &header, task));
}

fn write_whole(checkpoints: &Checkpoints, header: &Header, task: &Task) -> std::io::Result<Option<u64>> {
    let mut file = checkpoints.begin(header)?;
    let (mut sweep, mut done) = (Sweep::default(), false);
    while !done {
        let mut frame = Frame::new();
        done = sweep.fill(task, &mut frame, Tick::now().plus(LOOK_MOST));
        file.records(&frame)?;
    }
    file.finish(task.sequence()).map(Some)
}

fn tell(metrics: &Metrics, header: &Header, began: Tick, outcome: std::io::Result<Option<u64>>) {
    let (partition, millis) = (header.partition, began.elapsed().as_millis() as u64);
    match outcome {
        Ok(Some(bytes)) => {
            metrics.checkpoint(Checkpoint::Written);
            tracing::debug!(partition, from = header.from, bytes, millis, "checkpoint written");
        }
        Ok(None) => {}
        Err(error) => {
            metrics.checkpoint(Checkpoint::Failed);
            tracing::warn!(partition, "a checkpoint could not be written: {error}");
        }
    }
}
