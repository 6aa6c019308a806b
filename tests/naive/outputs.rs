//! What is written about one customer, and what else a walk finds out. Section 4 of the contract; plain values.

use std::collections::BTreeMap;

use stagecast::time::Ts;

use super::event::Ev;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Band {
    Low,
    Medium,
    High,
}

impl Band {
    pub fn name(self) -> &'static str {
        match self {
            Band::Low => "low",
            Band::Medium => "medium",
            Band::High => "high",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Event,
    Silence,
}

impl Trigger {
    pub fn name(self) -> &'static str {
        match self {
            Trigger::Event => "event",
            Trigger::Silence => "silence",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Stage(StageChange),
    Score(Score),
    Alert(Alert),
}

impl Output {
    pub fn ts(&self) -> Ts {
        match self {
            Output::Stage(o) => o.ts,
            Output::Score(o) => o.ts,
            Output::Alert(o) => o.ts,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct StageChange {
    pub lifecycle: String,
    pub from: String,
    pub to: String,
    pub ts: Ts,
    pub trigger: Trigger,
    /// Counts from 1; the start in the initial stage is its first visit.
    pub visit: u64,
    /// Days spent in `from`.
    pub stage_days: f64,
    /// Counts from 1 over all lifecycles of the customer.
    pub sequence: u64,
    pub event_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    pub ts: Ts,
    pub p: f64,
    pub band: Band,
    pub stages: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    pub ts: Ts,
    pub policy: String,
    pub p: f64,
}

/// What became of a customer.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct History {
    pub outputs: Vec<Output>,
    /// Every instant at which the customer was scored, whether or not the score was emitted.
    pub scored: Vec<(Ts, f64)>,
    /// The stage of each lifecycle at the end.
    pub stages: BTreeMap<String, String>,
    /// The events that counted, in order of arrival.
    pub applied: Vec<Ev>,
    /// How many events were dropped as repeated.
    pub duplicates: usize,
    /// Whether an evaluation ended only because it may visit no stage twice. Such a lifecycle moves on at its
    /// next evaluation though nothing flipped, so that its path depends on when it happens to be evaluated.
    pub restless: bool,
}

impl History {
    pub fn stage_changes(&self) -> Vec<StageChange> {
        let stage = |o: &Output| if let Output::Stage(change) = o { Some(change.clone()) } else { None };
        self.outputs.iter().filter_map(stage).collect()
    }

    pub fn scores(&self) -> Vec<Score> {
        let score = |o: &Output| if let Output::Score(score) = o { Some(score.clone()) } else { None };
        self.outputs.iter().filter_map(score).collect()
    }

    pub fn alerts(&self) -> Vec<Alert> {
        let alert = |o: &Output| if let Output::Alert(alert) = o { Some(alert.clone()) } else { None };
        self.outputs.iter().filter_map(alert).collect()
    }
}
