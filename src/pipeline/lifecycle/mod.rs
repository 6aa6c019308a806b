//! Lifecycles: which stage a customer is in, why, and when silence may change it.
//!
//! The route of a file: its text is read key by key (`file`), its rules are parsed and typed (`cel`, `expr`),
//! checked against each other (`build`), compiled per combination of overrides (`variants`) into flat programs
//! (`program`) with a list of what can flip in silence (`flips`). The route of a customer is `machine`: settle
//! at an event, then look again at the next candidate. All of it is pure; nothing here allocates once a
//! lifecycle is loaded, except [`Lifecycle::start`].

mod problems;
mod file;
mod expr;
mod cel;
mod program;
mod flips;
mod variants;
mod build;
mod machine;
pub mod roles;
#[cfg(test)]
mod tests;

use crate::error::Result;
use crate::pipeline::facts::{FeatureId, FeatureNames, Line, Traits};
use crate::time::Ts;

use flips::Watch;
use problems::Problems;
use program::{Entry, Program};
use roles::Roles;
use variants::Selectors;

/// The lifecycles that ship with the program, by name.
const PRESETS: [(&str, &str); 8] = [
    ("retention", include_str!("../../../models/lifecycles/retention.toml")),
    ("value", include_str!("../../../models/lifecycles/value.toml")),
    ("aida", include_str!("../../../models/lifecycles/aida.toml")),
    ("cyclic", include_str!("../../../models/lifecycles/cyclic.toml")),
    ("reengagement", include_str!("../../../models/lifecycles/reengagement.toml")),
    ("advocacy", include_str!("../../../models/lifecycles/advocacy.toml")),
    ("b2b-meddic", include_str!("../../../models/lifecycles/b2b-meddic.toml")),
    ("matrix", include_str!("../../../models/lifecycles/matrix.toml")),
];

/// The text of a preset.
pub fn preset(name: &str) -> Option<&'static str> {
    PRESETS.iter().find(|(preset, _)| *preset == name).map(|(_, text)| *text)
}

pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// What rules look at, for one customer at one instant.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// By [`FeatureId`].
    pub features: &'a [f64],
    pub p_churn: f64,
    /// Set by the lifecycle itself.
    pub stage_days: f64,
    pub traits: &'a Traits,
}

/// How the features of one customer move while it does nothing, as of some instant "now".
pub trait SilentTime {
    /// The line of a feature that grows with time; `None` when it is constant in silence, as every feature is
    /// that is not [`Motion::Linear`](crate::pipeline::facts::Motion), and `days_since_x` when x never happened.
    fn line(&self, id: FeatureId) -> Option<Line>;
    /// The earliest instant after now at which a windowed feature may change.
    fn window_change(&self, id: FeatureId) -> Option<Ts>;
}

/// One customer in one lifecycle.
#[derive(Clone, Debug, PartialEq)]
pub struct StageState {
    pub stage: u8,
    pub entered_at: Ts,
    /// See [`Lifecycle::truths`]; as of the last time the customer settled.
    pub truths: u64,
    /// How often each stage was entered; being born in the initial one counts.
    pub visits: Box<[u16]>,
    /// Moves in silence since the last event; see [`Lifecycle::is_due`].
    pub silent_moves: u16,
}

/// A change of stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Move<'a> {
    pub from: u8,
    pub to: u8,
    /// The text of the `enter` rule that was true; the stage's reasons that are true follow as a comment.
    pub rule: &'a str,
    /// The features that rule and those reasons name, in order of their ids.
    pub named: &'a [FeatureId],
    /// Days spent in `from`.
    pub stage_days: f64,
    /// This is the nth time in `to`.
    pub visit: u16,
    /// The customer had been in a stage of customers when it left `from`.
    pub returned: bool,
    pub action: Option<&'a str>,
}

/// A stage as the file describes it, before overrides.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    pub name: Box<str>,
    pub action: Option<Box<str>>,
    /// Absent only for an initial stage to which nobody returns.
    pub enter: Option<Box<str>>,
    /// `enter` unless the file says otherwise.
    pub stay: Option<Box<str>>,
    /// `None`: from any stage.
    pub from: Option<Box<[Box<str>]>>,
    pub min_dwell_ms: i64,
    /// The file says that who is in it is a customer.
    pub customer: bool,
}

/// A lifecycle, ready to run.
#[derive(Debug)]
pub struct Lifecycle {
    pub name: Box<str>,
    pub version: Box<str>,
    /// A hash of all that the file says, whatever version it gives itself.
    pub definition: Box<str>,
    /// The stage in which every customer begins.
    pub initial: u8,
    stages: Box<[Stage]>,
    roles: Roles,
    /// Per stage, the mask of the stages that may be entered from it.
    allowed: Box<[u64]>,
    selectors: Selectors,
    variants: Box<[Variant]>,
    features: Box<[FeatureId]>,
    traits: Box<[Box<str>]>,
    p_churn: bool,
}

/// A lifecycle under one combination of overrides.
#[derive(Debug)]
struct Variant {
    program: Program,
    stages: Box<[StageRules]>,
    /// By current stage.
    watches: Box<[Watch]>,
}

#[derive(Debug)]
struct StageRules {
    enter: Entry,
    stay: Entry,
    reasons: Box<[Entry]>,
    /// What a move here is told with, by the set of the reasons that are true (bit i: reason i).
    told: Box<[Told]>,
    min_dwell_ms: i64,
    action: Option<Box<str>>,
}

#[derive(Debug)]
struct Told {
    rule: Box<str>,
    named: Box<[FeatureId]>,
}

impl Lifecycle {
    /// Reads and checks a lifecycle. `file` is how messages call it; the error lists every problem found.
    pub fn load(file: &str, text: &str, names: &dyn FeatureNames) -> Result<Lifecycle> {
        let mut problems = Problems::new(file, text);
        let read = file::read(text, &mut problems);
        if !problems.is_empty() && read.stages.is_empty() {
            return Err(problems.into_error());
        }
        let built = build::build(&read, names, &mut problems);
        problems.result(built)
    }

    /// Which stages are those of customers, and in which they have lapsed.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// In order of priority, highest first.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The index of a stage, as [`StageState`] and [`Move`] use it.
    pub fn stage_index(&self, name: &str) -> Option<u8> {
        self.stages.iter().position(|stage| &*stage.name == name).map(|i| i as u8)
    }

    /// The features its rules name, in order of their ids.
    pub fn features(&self) -> &[FeatureId] {
        &self.features
    }

    /// The traits its rules and overrides read, in order.
    pub fn reads_traits(&self) -> &[Box<str>] {
        &self.traits
    }

    pub fn reads_p_churn(&self) -> bool {
        self.p_churn
    }

    /// How many combinations of overrides there are; [`Lifecycle::variant`] is below it.
    pub fn variant_count(&self) -> usize {
        self.variants.len()
    }
}
