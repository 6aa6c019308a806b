//! One worker's counts since its last commit: plain numbers, no atomics, nothing looked up per event.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;

use super::histogram::Latencies;
use super::{EventResult, Metrics};
use crate::event::{Reason, Source};
use crate::pipeline::engine::{DIFFERENCES, Tally};
use crate::pipeline::plan::Plan;

/// Counts that become metrics when their transaction is committed.
#[derive(Debug)]
pub struct Local {
    metrics: Arc<Metrics>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    events: [[u64; EventResult::ALL.len()]; Source::ALL.len()],
    dead_letters: [[u64; Reason::ALL.len()]; Source::ALL.len()],
    scoring: Latencies,
    end_to_end: Latencies,
    scores: [u64; 20],
    score_sum: f64,
    differences: [u64; DIFFERENCES.len() + 1],
    difference_sum: f64,
    /// Stage changes and alerts, already few: the engines count them by key.
    steps: Vec<(IntCounter, u64)>,
}

impl Metrics {
    /// A worker's own counts.
    pub fn local(self: &Arc<Self>) -> Local {
        Local { metrics: Arc::clone(self), counts: Counts::default() }
    }
}

impl Local {
    /// An input record has found its end; of a dead letter, [`Local::dead_letter`] tells the reason besides.
    pub fn event(&mut self, source: Source, result: EventResult) {
        self.counts.events[source.index()][result as usize] += 1;
    }

    /// Why a record is a dead letter. Does not count the event itself.
    pub fn dead_letter(&mut self, source: Source, reason: Reason) {
        self.counts.dead_letters[source.index()][reason as usize] += 1;
    }

    /// From an event decoded to its score computed.
    pub fn scoring(&mut self, took: Duration) {
        self.counts.scoring.count(took);
    }

    /// From a record's broker timestamp to its commit; clocks that disagree make no latency below 0.
    pub fn end_to_end(&mut self, ms: i64) {
        self.counts.end_to_end.count(Duration::from_millis(ms.max(0) as u64));
    }

    /// What an engine counted since it was last asked. The caller clears the tally.
    pub fn tally(&mut self, plan: &Plan, tally: &Tally) {
        let counts = &mut self.counts;
        for (key, n) in &tally.stage_changes {
            counts.steps.push((self.metrics.stage_changes(plan, *key), *n));
        }
        for (key, n) in &tally.gone_stages {
            counts.steps.push((self.metrics.gone_stages(plan, key), *n));
        }
        for ((policy, control), n) in &tally.alerts {
            let policy = &plan.settings.policies[usize::from(*policy)].name;
            counts.steps.push((self.metrics.alerts(policy, *control), *n));
        }
        counts.scores.iter_mut().zip(tally.scores).for_each(|(count, n)| *count += u64::from(n));
        counts.score_sum += tally.score_sum;
        counts.differences.iter_mut().zip(tally.differences).for_each(|(count, n)| *count += u64::from(n));
        counts.difference_sum += tally.difference_sum;
    }

    /// The transaction is committed: what was counted is true.
    pub fn flush(&mut self) {
        let (metrics, counts) = (&self.metrics, &mut self.counts);
        for source in Source::ALL {
            let nonzero = |n: &u64| *n > 0;
            let events = counts.events[source.index()];
            for (result, n) in EventResult::ALL.iter().zip(events).filter(|(_, n)| nonzero(n)) {
                metrics.events(source, *result).inc_by(n);
            }
            let dead_letters = counts.dead_letters[source.index()];
            for (reason, n) in Reason::ALL.iter().zip(dead_letters).filter(|(_, n)| nonzero(n)) {
                metrics.dead_letters(source, *reason).inc_by(n);
            }
        }
        counts.scoring.flush(&metrics.scoring);
        counts.end_to_end.flush(&metrics.end_to_end);
        metrics.churn_score.add(&counts.scores, counts.score_sum);
        metrics.challenger_difference.add(&counts.differences, counts.difference_sum);
        counts.steps.iter().for_each(|(counter, n)| counter.inc_by(*n));
        self.discard();
    }

    /// The transaction was aborted: nothing of it happened.
    pub fn discard(&mut self) {
        let mut steps = std::mem::take(&mut self.counts.steps);
        steps.clear();
        self.counts = Counts { steps, ..Counts::default() };
    }
}
