//! One customer as a page of JSON: what the engine holds of it, and what happened to it lately.

use std::collections::VecDeque;

use hashbrown::HashMap;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::pipeline::channels::with_main_channel;
use crate::pipeline::emit::{self, Contributions, ModelName, Num};
use crate::pipeline::engine::{Engine, View};
use crate::pipeline::facts::{TraitValue, Traits};
use crate::pipeline::layout::NEVER;
use crate::pipeline::lifecycle::{Lifecycle, StageState};
use crate::pipeline::plan::Plan;
use crate::time::{DAY_MS, Rfc3339, Ts, format_rfc3339};

/// Stage changes that one worker remembers.
pub const RECENT_MOST: usize = 10_000;

/// Everything there is to say about a customer as of `at`, or as of its last evaluated instant if that is
/// later; `None` when the engine does not know it.
pub fn customer_json(engine: &Engine, recent: &Recent, id: &str, at: Ts) -> Option<String> {
    let (plan, store) = (engine.plan(), engine.store());
    let index = store.find(id)?;
    let view = engine.view(index, at);
    let look = store.look(index);
    let (row, customer) = (&*look.row, &*look.customer);
    let mut contributions = Vec::new();
    let is_scored = !view.p_churn.is_nan();
    if is_scored {
        plan.scorer.contributions(&view.features, &mut contributions);
    }
    let mut room = Traits::new();
    let traits = with_main_channel(plan, customer, &mut room);
    let page = Page {
        customer_id: &customer.id,
        ts: format_rfc3339(view.at),
        p_churn: Num(view.p_churn),
        band: is_scored.then(|| emit::band_name(emit::band(plan, view.p_churn))),
        stages: Stages { plan, view: &view, traits },
        contributions: Contributions { layout: &plan.layout, list: &contributions },
        features: Features { plan, values: &view.features },
        traits: TraitsOf(traits),
        model: ModelName { name: &plan.model_name, version: &plan.model_version },
        sequence: plan.head.sequence.get(row),
        last_event_at: instant(plan.head.newest.get(row)),
        evaluated_at: instant(plan.head.now.get(row)),
        next_evaluation_at: instant(plan.head.due.get(row)),
        recent: recent.of(id).into_iter().filter_map(|json| serde_json::from_str(json).ok()).collect(),
    };
    serde_json::to_string(&page).ok()
}

#[derive(serde::Serialize)]
struct Page<'a> {
    customer_id: &'a str,
    ts: Rfc3339,
    /// This and the next two say nothing of a customer who refuses to be scored.
    p_churn: Num,
    band: Option<&'static str>,
    stages: Stages<'a>,
    contributions: Contributions<'a>,
    features: Features<'a>,
    traits: TraitsOf<'a>,
    model: ModelName<'a>,
    /// Stage changes ever emitted.
    sequence: u32,
    last_event_at: Option<Rfc3339>,
    evaluated_at: Option<Rfc3339>,
    /// When silence is looked at next.
    next_evaluation_at: Option<Rfc3339>,
    /// Stage changes since this process took the customer over, the newest first.
    recent: Vec<&'a RawValue>,
}

fn instant(ts: Ts) -> Option<Rfc3339> {
    (ts != NEVER && ts != Ts::MAX).then(|| format_rfc3339(ts))
}

struct Stages<'a> {
    plan: &'a Plan,
    view: &'a View,
    traits: &'a Traits,
}

impl Serialize for Stages<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.plan.lifecycles.len()))?;
        for ((lifecycle, slots), mut state) in self.plan.lifecycles.iter().zip(self.plan.scratch_states()) {
            slots.load(&self.view.row, &mut state);
            let entry = InStage {
                stage: stage_name(lifecycle, usize::from(state.stage)),
                since: instant(state.entered_at),
                days: Num((self.view.at - state.entered_at) as f64 / DAY_MS as f64),
                action: lifecycle.action(lifecycle.variant(self.traits), state.stage),
                visits: Visits { lifecycle, state: &state },
            };
            map.serialize_entry(&lifecycle.name, &entry)?;
        }
        map.end()
    }
}

#[derive(serde::Serialize)]
struct InStage<'a> {
    stage: &'a str,
    since: Option<Rfc3339>,
    days: Num,
    action: Option<&'a str>,
    visits: Visits<'a>,
}

fn stage_name(lifecycle: &Lifecycle, stage: usize) -> &str {
    lifecycle.stages().get(stage).map_or("", |s| &s.name)
}

/// How often each stage was entered, of those that were.
struct Visits<'a> {
    lifecycle: &'a Lifecycle,
    state: &'a StageState,
}

impl Serialize for Visits<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let visited = self.state.visits.iter().enumerate().filter(|(_, n)| **n > 0);
        s.collect_map(visited.map(|(stage, n)| (stage_name(self.lifecycle, stage), n)))
    }
}

struct Features<'a> {
    plan: &'a Plan,
    values: &'a [f64],
}

impl Serialize for Features<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let features = self.plan.layout.features.iter().zip(self.values);
        s.collect_map(features.map(|(feature, value)| (&feature.name, Num(*value))))
    }
}

struct TraitsOf<'a>(&'a Traits);

impl Serialize for TraitsOf<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            match value {
                TraitValue::Text(text) => map.serialize_entry(name, text)?,
                TraitValue::Number(number) => map.serialize_entry(name, &Num(*number))?,
                TraitValue::Flag(flag) => map.serialize_entry(name, flag)?,
            }
        }
        map.end()
    }
}

/// The last [`RECENT_MOST`] committed stage changes of one worker, by customer. Memory only: a restart or
/// another owner begins anew.
#[derive(Debug, Default)]
pub struct Recent {
    by_customer: HashMap<Box<str>, VecDeque<Box<str>>>,
    /// Whose change came when; the front is the next to be forgotten.
    order: VecDeque<Box<str>>,
}

impl Recent {
    /// Takes in the JSON of a stage change, once it is committed.
    pub fn push(&mut self, customer_id: &str, json: &[u8]) {
        let Ok(json) = std::str::from_utf8(json) else { return };
        if self.order.len() == RECENT_MOST {
            self.forget_oldest();
        }
        self.by_customer.entry(customer_id.into()).or_default().push_back(json.into());
        self.order.push_back(customer_id.into());
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.order.pop_front() else { return };
        if let Some(changes) = self.by_customer.get_mut(&oldest) {
            changes.pop_front();
            if changes.is_empty() {
                self.by_customer.remove(&oldest);
            }
        }
    }

    /// A customer's changes, the newest first.
    pub fn of(&self, customer_id: &str) -> Vec<&str> {
        self.by_customer
            .get(customer_id)
            .map_or(Vec::new(), |changes| changes.iter().rev().map(|c| &**c).collect())
    }

    /// Forgets an erased customer.
    pub fn forget(&mut self, customer_id: &str) {
        if self.by_customer.remove(customer_id).is_some() {
            self.order.retain(|id| **id != *customer_id);
        }
    }
}

#[cfg(test)]
mod tests;
