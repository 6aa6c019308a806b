//! Whether the process lives and whether it serves, as its workers tell.
//!
//! Alive is a matter of this process alone: it never depends on Kafka, since a restart would not bring Kafka
//! back. Ready is a matter of partitions: joined, assigned and restored.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::time::Tick;

/// A worker that has not been heard of for so long is stuck, unless a transaction may take longer.
const SILENCE_MOST: Duration = Duration::from_secs(60);

/// How far a worker has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not a member of the group yet, or between two assignments.
    Joining,
    /// Assigned; reading its partitions' state.
    Restoring,
    Ready,
    /// Its thread has returned.
    Ended,
}

impl Phase {
    const ALL: [Phase; 4] = [Phase::Joining, Phase::Restoring, Phase::Ready, Phase::Ended];

    /// What a person reads of a worker that is not ready.
    fn missing(self) -> Option<&'static str> {
        match self {
            Phase::Joining => Some("has not been assigned its partitions yet"),
            Phase::Restoring => Some("is restoring its partitions"),
            Phase::Ready => None,
            Phase::Ended => Some("has ended"),
        }
    }
}

#[derive(Debug)]
struct Worker {
    /// Milliseconds from the start of [`Health`] to the last beat.
    beat: AtomicU64,
    phase: AtomicU8,
    error: Mutex<Option<String>>,
}

impl Worker {
    fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Acquire)).min(Phase::ALL.len() - 1)]
    }
}

/// The health of all workers, each known by its number.
#[derive(Debug)]
pub struct Health {
    started: Tick,
    silence_most: Duration,
    workers: Vec<Worker>,
}

impl Health {
    /// All workers join from `now` on. A transaction ends within `transaction`; while brokers are away a worker is
    /// silent for as long as its records may take, then its commit, and then until it takes them back.
    pub fn new(workers: usize, now: Tick, transaction: Duration) -> Self {
        let worker = || Worker {
            beat: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Joining as u8),
            error: Mutex::default(),
        };
        let silence_most = SILENCE_MOST.max(3 * transaction);
        Health { started: now, silence_most, workers: (0..workers).map(|_| worker()).collect() }
    }

    /// The worker goes on. To be called in every loop, however little there is to do.
    pub fn beat(&self, worker: usize, now: Tick) {
        let since = now.since(self.started).as_millis() as u64;
        self.workers[worker].beat.fetch_max(since, Ordering::Release);
    }

    pub fn set_phase(&self, worker: usize, phase: Phase) {
        self.workers[worker].phase.store(phase as u8, Ordering::Release);
    }

    /// [`Phase::Ready`], or back to [`Phase::Joining`].
    pub fn set_ready(&self, worker: usize, ready: bool) {
        self.set_phase(worker, if ready { Phase::Ready } else { Phase::Joining });
    }

    /// The worker's thread has returned, with an error or because it was told to stop.
    pub fn ended(&self, worker: usize, error: Option<String>) {
        *self.workers[worker].error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        self.set_phase(worker, Phase::Ended);
    }

    /// Why this process should be restarted; empty while it need not be.
    pub fn failures(&self, now: Tick) -> Vec<String> {
        let now = now.since(self.started);
        let failure = |(number, worker): (usize, &Worker)| {
            if worker.phase() == Phase::Ended {
                let error = worker.error.lock().unwrap_or_else(PoisonError::into_inner);
                return error.as_ref().map(|error| format!("worker {number} has ended: {error}"));
            }
            let silent = now.saturating_sub(Duration::from_millis(worker.beat.load(Ordering::Acquire)));
            (silent > self.silence_most)
                .then(|| format!("worker {number} has been stuck for {} s", silent.as_secs()))
        };
        self.workers.iter().enumerate().filter_map(failure).collect()
    }

    /// What keeps this process from serving; empty when it serves.
    pub fn missing(&self) -> Vec<String> {
        let missing = |(number, worker): (usize, &Worker)| {
            worker.phase().missing().map(|what| format!("worker {number} {what}"))
        };
        self.workers.iter().enumerate().filter_map(missing).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSACTION: Duration = Duration::from_secs(10);

    #[test]
    fn a_worker_is_stuck_after_a_minute_without_a_beat() {
        let start = Tick::now();
        let at = |seconds| start.plus(Duration::from_secs(seconds));
        let health = Health::new(2, start, TRANSACTION);
        assert!(health.failures(at(60)).is_empty());
        health.beat(0, at(30));
        assert_eq!(health.failures(at(61)), ["worker 1 has been stuck for 61 s"]);
        health.beat(1, at(61));
        assert!(health.failures(at(90)).is_empty());
        health.beat(1, at(10));
        assert!(health.failures(at(90)).is_empty(), "beats do not go back");
        let patient = Health::new(1, start, Duration::from_secs(60));
        assert!(patient.failures(at(180)).is_empty(), "its transactions may take a minute");
        assert_eq!(patient.failures(at(181)), ["worker 0 has been stuck for 181 s"]);
    }

    #[test]
    fn only_an_end_with_an_error_is_a_failure() {
        let start = Tick::now();
        let later = start.plus(Duration::from_secs(3_600));
        let health = Health::new(2, start, TRANSACTION);
        health.beat(1, later);
        health.ended(0, None);
        assert!(health.failures(later).is_empty());
        health.ended(1, Some("the state topic is gone".into()));
        assert_eq!(health.failures(later), ["worker 1 has ended: the state topic is gone"]);
        assert_eq!(health.missing(), ["worker 0 has ended", "worker 1 has ended"]);
    }

    #[test]
    fn ready_means_every_worker() {
        let health = Health::new(2, Tick::now(), TRANSACTION);
        health.set_ready(0, true);
        health.set_phase(1, Phase::Restoring);
        assert_eq!(health.missing(), ["worker 1 is restoring its partitions"]);
        health.set_ready(1, true);
        assert!(health.missing().is_empty());
        health.set_ready(0, false);
        assert_eq!(health.missing(), ["worker 0 has not been assigned its partitions yet"]);
    }
}
