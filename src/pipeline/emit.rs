//! The JSON of outputs. Owns their shape and nothing of when they are due.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::engine::View;
use super::erasure::{CustomerHash, OptOut};
use super::facts::FeatureId;
use super::json::{
    put, put_instant, put_integer, put_number, put_optional_number, put_optional_text, put_text, quoted,
};
use super::layout::Layout;
use super::lifecycle::{Lifecycle, Move};
use super::outcomes::{Group, Outcome};
use super::plan::Plan;
use crate::model::Contribution;
use crate::model::value::Value;
use crate::time::{Rfc3339, Ts, format_rfc3339, format_span};

/// What caused an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    Event,
    Silence,
    /// The lifecycle's definition has changed.
    Definition,
}

impl Trigger {
    pub const ALL: [Trigger; 3] = [Trigger::Event, Trigger::Silence, Trigger::Definition];

    pub fn name(self) -> &'static str {
        match self {
            Trigger::Event => "event",
            Trigger::Silence => "silence",
            Trigger::Definition => "definition",
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

/// The parts of messages that are the same in every message of a plan.
#[derive(Debug, Default)]
pub struct Wording {
    /// By feature: `{"feature":"orders_90d","value":`.
    contributions: Vec<Box<[u8]>>,
    /// By feature: `"orders_90d":`.
    names: Vec<Box<[u8]>>,
    lifecycles: Vec<LifecycleWording>,
    /// `{"name":"churn","version":"1"}`.
    model: Box<[u8]>,
}

#[derive(Debug)]
struct LifecycleWording {
    /// `"retention":`.
    key: Box<[u8]>,
    /// `,"lifecycle":"retention","lifecycle_version":"…","from":`.
    head: Box<[u8]>,
    /// By stage: `"loyalty"`.
    stages: Vec<Box<[u8]>>,
}

impl Wording {
    pub fn new(plan: &Plan) -> Wording {
        let names = plan.layout.features.iter().map(|feature| quoted(&feature.name));
        let lifecycle = |lifecycle: &Lifecycle| {
            let (name, version) = (quoted(&lifecycle.name), quoted(&lifecycle.version));
            LifecycleWording {
                key: [&name[..], b":"].concat().into(),
                head: [b",\"lifecycle\":", &name[..], b",\"lifecycle_version\":", &version, b",\"from\":"]
                    .concat()
                    .into(),
                stages: lifecycle.stages().iter().map(|stage| quoted(&stage.name).into()).collect(),
            }
        };
        let model = ModelName { name: &plan.model_name, version: &plan.model_version };
        let mut model_json = Vec::new();
        json(&mut model_json, &model);
        Wording {
            contributions: names
                .clone()
                .map(|name| [b"{\"feature\":", &name[..], b",\"value\":"].concat().into())
                .collect(),
            names: names.map(|name| [&name[..], b":"].concat().into()).collect(),
            lifecycles: plan.lifecycles.iter().map(|(l, _)| lifecycle(l)).collect(),
            model: model_json.into(),
        }
    }

    fn stage(&self, lifecycle: usize, stage: usize) -> &[u8] {
        self.lifecycles[lifecycle].stages.get(stage).map_or(b"\"\"", |name| name)
    }

    fn put_stages(&self, out: &mut Vec<u8>, plan: &Plan, row: &[u32]) {
        put(out, ",\"stages\":{");
        for (k, (_, slots)) in plan.lifecycles.iter().enumerate() {
            if k > 0 {
                out.push(b',');
            }
            put(out, &self.lifecycles[k].key);
            put(out, self.stage(k, slots.stage.get(row) as usize));
        }
        out.push(b'}');
    }

    fn put_contributions(&self, out: &mut Vec<u8>, list: &[Contribution]) {
        put(out, ",\"contributions\":[");
        for (k, c) in list.iter().enumerate() {
            if k > 0 {
                out.push(b',');
            }
            match c.feature {
                Some(id) => put(out, &self.contributions[id.index()]),
                None => put(out, "{\"feature\":\"intercept\",\"value\":"),
            }
            put_number(out, c.value);
            put(out, ",\"contribution\":");
            put_number(out, c.contribution);
            out.push(b'}');
        }
        out.push(b']');
    }
}

/// What a stage change is about, besides the move itself.
pub struct StageChange<'a> {
    pub customer_id: &'a str,
    pub lifecycle: usize,
    /// The stage it came from, where that is no longer defined; else `moved` tells it.
    pub gone: Option<&'a str>,
    pub moved: &'a Move<'a>,
    pub ts: Ts,
    pub trigger: Trigger,
    pub event_id: Option<&'a str>,
    pub features: &'a [f64],
    pub p_churn: f64,
}

/// `sequence` counts the customer's stage changes, from 1.
pub fn stage_change(out: &mut Vec<u8>, plan: &Plan, sequence: u32, change: &StageChange<'_>) {
    let (words, moved) = (&plan.wording, change.moved);
    put(out, "{\"customer_id\":");
    put_text(out, change.customer_id);
    put(out, &words.lifecycles[change.lifecycle].head);
    match change.gone {
        Some(name) => put_text(out, name),
        None => put(out, words.stage(change.lifecycle, usize::from(moved.from))),
    }
    put(out, ",\"to\":");
    put(out, words.stage(change.lifecycle, usize::from(moved.to)));
    put(out, ",\"action\":");
    put_optional_text(out, moved.action);
    put(out, ",\"ts\":");
    put_instant(out, change.ts);
    put(out, ",\"trigger\":\"");
    put(out, change.trigger.name());
    put(out, "\",\"event_id\":");
    put_optional_text(out, change.event_id);
    put(out, ",\"rule\":");
    put_text(out, moved.rule);
    put(out, ",\"features\":{");
    for (k, id) in moved.named.iter().enumerate() {
        if k > 0 {
            out.push(b',');
        }
        put(out, &words.names[id.index()]);
        put_number(out, change.features[id.index()]);
    }
    put(out, "},\"p_churn\":");
    put_number(out, change.p_churn);
    put(out, ",\"stage_days\":");
    put_number(out, moved.stage_days);
    put(out, ",\"visit\":");
    put_integer(out, moved.visit);
    put(out, ",\"sequence\":");
    put_integer(out, sequence);
    out.push(b'}');
}

/// What a score says, shared with alerts and the customer view.
pub struct Scored<'a> {
    pub customer_id: &'a str,
    pub ts: Ts,
    pub p_churn: f64,
    pub row: &'a [u32],
    pub contributions: &'a [Contribution],
    pub clv_to_date: Option<f64>,
    pub value: Value,
}

pub fn score(out: &mut Vec<u8>, plan: &Plan, scored: &Scored<'_>) {
    let words = &plan.wording;
    put(out, "{\"customer_id\":");
    put_text(out, scored.customer_id);
    put(out, ",\"ts\":");
    put_instant(out, scored.ts);
    put(out, ",\"p_churn\":");
    put_number(out, scored.p_churn);
    put(out, ",\"band\":\"");
    put(out, band_name(band(plan, scored.p_churn)));
    put(out, "\"");
    words.put_stages(out, plan, scored.row);
    words.put_contributions(out, scored.contributions);
    put(out, ",\"model\":");
    put(out, &words.model);
    put(out, ",\"clv_to_date\":");
    put_optional_number(out, scored.clv_to_date);
    put(out, ",\"clv_365d\":");
    put_optional_number(out, scored.value.clv_365d);
    put(out, ",\"p_no_order\":");
    put_optional_number(out, scored.value.p_no_order);
    put(out, "}");
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
    use std::io::Write;
    let (words, scored) = (&plan.wording, alert.scored);
    // Writing to memory cannot fail.
    let _ = write!(out, "{{\"alert_id\":\"{:032x}\",\"customer_id\":", alert.alert_id);
    put_text(out, scored.customer_id);
    put(out, ",\"ts\":");
    put_instant(out, scored.ts);
    put(out, ",\"kind\":");
    put_text(out, alert.kind);
    put(out, ",\"p_churn\":");
    put_number(out, scored.p_churn);
    put(out, ",\"previous\":");
    put_optional_number(out, alert.previous);
    words.put_stages(out, plan, scored.row);
    words.put_contributions(out, scored.contributions);
    put(out, ",\"counterfactual\":");
    match &alert.counterfactual {
        None => put(out, "null"),
        Some(change) => {
            put(out, "{\"feature\":");
            put_text(out, &plan.layout.feature(change.feature).name);
            put(out, ",\"from\":");
            put_number(out, change.from);
            put(out, ",\"to\":");
            put_number(out, change.to);
            out.push(b'}');
        }
    }
    put(out, ",\"clv_to_date\":");
    put_optional_number(out, scored.clv_to_date);
    put(out, ",\"value_at_risk\":");
    put_optional_number(out, scored.clv_to_date.map(|clv| clv.max(0.0) * scored.p_churn));
    put(out, ",\"action\":");
    put_optional_text(out, alert.action);
    put(out, ",\"group\":");
    put_text(out, if alert.control { "control" } else { "treatment" });
    put(out, ",\"policy\":");
    put_text(out, alert.policy);
    out.push(b'}');
}

/// What proves that a customer was erased, without saying who.
pub struct Receipt {
    pub customer_hash: CustomerHash,
    pub ts: Ts,
    /// Whether there was a state to erase.
    pub known: bool,
    pub opt_out: Option<OptOut>,
}

pub fn receipt(out: &mut Vec<u8>, receipt: &Receipt) {
    put(out, "{\"customer_hash\":");
    put_text(out, &receipt.customer_hash.to_hex());
    put(out, ",\"ts\":");
    put_instant(out, receipt.ts);
    put(out, if receipt.known { ",\"known\":true" } else { ",\"known\":false" });
    put(out, ",\"opt_out_until\":");
    match receipt.opt_out {
        Some(opt_out) => put_instant(out, opt_out.until),
        None => put(out, "null"),
    }
    out.push(b'}');
}

/// What became of a score.
pub fn outcome(out: &mut Vec<u8>, customer_id: &str, outcome: &Outcome<'_>) {
    let (kept, claim) = (&outcome.kept, &outcome.kept.claim);
    put(out, "{\"customer_id\":");
    put_text(out, customer_id);
    put(out, ",\"scored_at\":");
    put_instant(out, kept.scored_at);
    put(out, ",\"p_churn\":");
    put_number(out, kept.p_churn());
    put(out, if outcome.churned { ",\"churned\":true" } else { ",\"churned\":false" });
    put(out, ",\"horizon\":");
    put_text(out, &format_span(claim.horizon_ms));
    put(out, ",\"stage\":");
    put_optional_text(out, kept.stage);
    put(out, ",\"group\":");
    put_optional_text(out, kept.group.map(Group::name));
    put(out, ",\"model\":{\"name\":");
    put_text(out, claim.model);
    put(out, ",\"version\":");
    put_text(out, claim.version);
    put(out, "}}");
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
