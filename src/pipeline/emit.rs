//! The JSON of outputs (CONTRACT section 4). Owns their shape and nothing of when they are due.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::engine::View;
use super::facts::FeatureId;
use super::layout::Layout;
use super::lifecycle::Move;
use super::plan::Plan;
use crate::model::Contribution;
use crate::time::{Rfc3339, Ts, format_rfc3339};

/// What caused an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    Event,
    Silence,
}

impl Trigger {
    pub const ALL: [Trigger; 2] = [Trigger::Event, Trigger::Silence];

    pub fn name(self) -> &'static str {
        match self {
            Trigger::Event => "event",
            Trigger::Silence => "silence",
        }
    }
}

/// A JSON number: whole values without a fraction, infinity as null.
#[derive(Clone, Copy)]
pub struct Num(pub f64);

impl Serialize for Num {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        const EXACT: f64 = 9e15;
        if !self.0.is_finite() {
            s.serialize_none()
        } else if self.0.fract() == 0.0 && self.0.abs() < EXACT {
            s.serialize_i64(self.0 as i64)
        } else {
            s.serialize_f64(self.0)
        }
    }
}

/// Features by name.
struct Named<'a> {
    layout: &'a Layout,
    ids: &'a [FeatureId],
    values: &'a [f64],
}

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.ids.len()))?;
        for id in self.ids {
            map.serialize_entry(&self.layout.feature(*id).name, &Num(self.values[id.index()]))?;
        }
        map.end()
    }
}

/// Current stages by lifecycle.
pub struct Stages<'a> {
    pub plan: &'a Plan,
    pub row: &'a [u32],
}

impl Serialize for Stages<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.plan.lifecycles.len()))?;
        for (lifecycle, slots) in &self.plan.lifecycles {
            let stage = slots.stage.get(self.row) as usize;
            map.serialize_entry(&lifecycle.name, lifecycle.stages().get(stage).map_or("", |s| &s.name))?;
        }
        map.end()
    }
}

/// Contributions with the names of their features, the largest first.
pub struct Contributions<'a> {
    pub layout: &'a Layout,
    pub list: &'a [Contribution],
}

impl Serialize for Contributions<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Entry<'a> {
            feature: &'a str,
            value: Num,
            contribution: Num,
        }
        let mut seq = s.serialize_seq(Some(self.list.len()))?;
        for c in self.list {
            let feature = c.feature.map_or("intercept", |id| &self.layout.feature(id).name);
            seq.serialize_element(&Entry {
                feature,
                value: Num(c.value),
                contribution: Num(c.contribution),
            })?;
        }
        seq.end()
    }
}

/// Which model a score is from.
#[derive(serde::Serialize)]
pub struct ModelName<'a> {
    pub name: &'a str,
    pub version: &'a str,
}

/// One line of JSON at the end of `out`. Writing to memory cannot fail, and nothing here refuses to serialise.
fn json(out: &mut Vec<u8>, value: &impl Serialize) {
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok());
}

/// What a stage change is about, besides the move itself.
pub struct StageChange<'a> {
    pub customer_id: &'a str,
    pub lifecycle: usize,
    pub moved: &'a Move<'a>,
    pub ts: Ts,
    pub trigger: Trigger,
    pub event_id: Option<&'a str>,
    pub features: &'a [f64],
    pub p_churn: f64,
    pub sequence: u32,
}

pub fn stage_change(out: &mut Vec<u8>, plan: &Plan, change: &StageChange<'_>) {
    #[derive(serde::Serialize)]
    struct Message<'a> {
        customer_id: &'a str,
        lifecycle: &'a str,
        lifecycle_version: &'a str,
        from: &'a str,
        to: &'a str,
        action: Option<&'a str>,
        ts: Rfc3339,
        trigger: &'static str,
        event_id: Option<&'a str>,
        rule: &'a str,
        features: Named<'a>,
        p_churn: Num,
        stage_days: Num,
        visit: u16,
        sequence: u32,
    }
    let (lifecycle, _) = &plan.lifecycles[change.lifecycle];
    let name = |stage: u8| lifecycle.stages().get(usize::from(stage)).map_or("", |s| &s.name);
    let moved = change.moved;
    let message = Message {
        customer_id: change.customer_id,
        lifecycle: &lifecycle.name,
        lifecycle_version: &lifecycle.version,
        from: name(moved.from),
        to: name(moved.to),
        action: moved.action,
        ts: format_rfc3339(change.ts),
        trigger: change.trigger.name(),
        event_id: change.event_id,
        rule: moved.rule,
        features: Named { layout: &plan.layout, ids: moved.named, values: change.features },
        p_churn: Num(change.p_churn),
        stage_days: Num(moved.stage_days),
        visit: moved.visit,
        sequence: change.sequence,
    };
    json(out, &message);
}

/// What a score says, shared with alerts and the customer view.
pub struct Scored<'a> {
    pub customer_id: &'a str,
    pub ts: Ts,
    pub p_churn: f64,
    pub row: &'a [u32],
    pub contributions: &'a [Contribution],
    pub clv_to_date: Option<f64>,
}

pub fn score(out: &mut Vec<u8>, plan: &Plan, scored: &Scored<'_>) {
    #[derive(serde::Serialize)]
    struct Message<'a> {
        customer_id: &'a str,
        ts: Rfc3339,
        p_churn: Num,
        band: &'static str,
        stages: Stages<'a>,
        contributions: Contributions<'a>,
        model: ModelName<'a>,
        clv_to_date: Option<Num>,
        clv_365d: Option<Num>,
        p_no_order: Option<Num>,
    }
    let message = Message {
        customer_id: scored.customer_id,
        ts: format_rfc3339(scored.ts),
        p_churn: Num(scored.p_churn),
        band: band_name(band(plan, scored.p_churn)),
        stages: Stages { plan, row: scored.row },
        contributions: Contributions { layout: &plan.layout, list: scored.contributions },
        model: ModelName { name: &plan.model_name, version: &plan.model_version },
        clv_to_date: scored.clv_to_date.map(Num),
        clv_365d: None,
        p_no_order: None,
    };
    json(out, &message);
}

/// 0 low, 1 medium, 2 high.
pub fn band(plan: &Plan, p: f64) -> u8 {
    plan.settings.bands.iter().filter(|bound| p >= **bound).count() as u8
}

pub fn band_name(band: u8) -> &'static str {
    match band {
        0 => "low",
        1 => "medium",
        _ => "high",
    }
}

/// What an alert adds to the score behind it.
pub struct Alert<'a> {
    pub scored: &'a Scored<'a>,
    pub alert_id: u128,
    pub kind: &'static str,
    pub previous: Option<f64>,
    pub counterfactual: Option<crate::model::Counterfactual>,
    pub action: Option<&'a str>,
    pub control: bool,
    pub policy: &'a str,
}

pub fn alert(out: &mut Vec<u8>, plan: &Plan, alert: &Alert<'_>) {
    #[derive(serde::Serialize)]
    struct Change<'a> {
        feature: &'a str,
        from: Num,
        to: Num,
    }
    #[derive(serde::Serialize)]
    struct Message<'a> {
        alert_id: String,
        customer_id: &'a str,
        ts: Rfc3339,
        kind: &'static str,
        p_churn: Num,
        previous: Option<Num>,
        stages: Stages<'a>,
        contributions: Contributions<'a>,
        counterfactual: Option<Change<'a>>,
        clv_to_date: Option<Num>,
        value_at_risk: Option<Num>,
        action: Option<&'a str>,
        group: &'static str,
        policy: &'a str,
    }
    let scored = alert.scored;
    let change = alert.counterfactual.map(|c| Change {
        feature: &plan.layout.feature(c.feature).name,
        from: Num(c.from),
        to: Num(c.to),
    });
    let message = Message {
        alert_id: format!("{:032x}", alert.alert_id),
        customer_id: scored.customer_id,
        ts: format_rfc3339(scored.ts),
        kind: alert.kind,
        p_churn: Num(scored.p_churn),
        previous: alert.previous.map(Num),
        stages: Stages { plan, row: scored.row },
        contributions: Contributions { layout: &plan.layout, list: scored.contributions },
        counterfactual: change,
        clv_to_date: scored.clv_to_date.map(Num),
        value_at_risk: scored.clv_to_date.map(|clv| Num(clv.max(0.0) * scored.p_churn)),
        action: alert.action,
        group: if alert.control { "control" } else { "treatment" },
        policy: alert.policy,
    };
    json(out, &message);
}

/// A customer's features, stages and score as of an instant.
pub fn snapshot(out: &mut Vec<u8>, plan: &Plan, customer_id: &str, view: &View, at: Ts) {
    #[derive(serde::Serialize)]
    struct Message<'a> {
        customer_id: &'a str,
        ts: Rfc3339,
        features: Named<'a>,
        stages: Stages<'a>,
        p_churn: Num,
    }
    let message = Message {
        customer_id,
        ts: format_rfc3339(at),
        features: Named { layout: &plan.layout, ids: &plan.all, values: &view.features },
        stages: Stages { plan, row: &view.row },
        p_churn: Num(view.p_churn),
    };
    json(out, &message);
}
