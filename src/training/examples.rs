//! Point-in-time examples: every cut's customers with their features before it and what they did after it.
//!
//! One pass through the engine. A cut T is taken once more than a few events at or after T came up, none of which the
//! engine has seen: a single wrong clock would take it long before its time. The row is copied out then and never
//! changes, so that nothing at or after T can be in it. An event older than T that only comes up later is missing in
//! the row, as it was for whoever scored at T; it still counts for the labels of the horizons it falls into.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ndarray::{Array2, ArrayView1};

use super::Task;
use crate::error::{Error, Result};
use crate::event::{Event, ProfileChange, Reject, Source};
use crate::model::artifact::Label;
use crate::model::value::{self, BUYERS_MOST, Buyer};
use crate::model::{Dataset, metrics};
use crate::pipeline::engine::{Applied, Engine, View};
use crate::pipeline::erasure::is_erasure;
use crate::pipeline::facts::{FeatureNames, TraitValue};
use crate::pipeline::identity::other_ids;
use crate::pipeline::layout::Layout;
use crate::pipeline::outbox::hash_customer;
use crate::pipeline::plan::Plan;
use crate::replay::{Line, Merged, RawRecord, Rejected};
use crate::time::Ts;

/// Examples kept. Beyond it half of the customers go, by a hash of their id and with all their examples, as
/// often as it takes: what is kept depends on the input alone, and ten-odd weights need no more.
pub const EXAMPLES_MOST: usize = 1_000_000;

/// So large a share of the events may happen before a cut and come up after it.
const BEHIND_SHARE_MOST: f64 = 0.01;

/// Records that could not be used.
#[derive(Clone, Debug, Default)]
pub struct Skipped {
    pub records: u64,
    /// The first one: source, line (from 1) and reason.
    pub first: Option<String>,
}

impl Skipped {
    /// An error about what is left may be about what is missing.
    pub fn beside(&self, error: Error) -> Error {
        let Some(first) = &self.first else { return error };
        let what = format!("{}; {} records could not be used, the first: {first}", error.what, self.records);
        Error { what, ..error }
    }
}

impl Rejected for Skipped {
    fn rejected(&mut self, source: Source, record: &RawRecord, reject: &Reject) -> Result<()> {
        self.records += 1;
        self.first.get_or_insert_with(|| format!("{} {}: {reject}", source.name(), record.number + 1));
        Ok(())
    }
}

/// What an example belonged to at its cut, for judging a model by group.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// By lifecycle, in the plan's order.
    pub stages: Vec<u8>,
    /// The value of the trait that was asked for.
    pub segment: Option<Box<str>>,
}

/// What one pass yields.
#[derive(Debug)]
pub struct Examples {
    pub dataset: Dataset,
    /// By row, where groups were asked for.
    pub groups: Vec<Group>,
    /// By cut: everybody who had ordered before it, active or not, or an even sample of them.
    pub buyers: BTreeMap<Ts, Vec<Buyer>>,
    /// The features' definitions.
    pub layout: Layout,
    pub skipped: Skipped,
}

impl Examples {
    /// ROC-AUC of recency alone over the cuts from `held_back_from` on, whichever way it points.
    pub fn recency_auc(&self, label: Label, held_back_from: Ts) -> Option<f64> {
        let recency = recency(&self.dataset, label)?;
        let rows = (0..self.dataset.label.len()).filter(|i| self.dataset.at[*i] >= held_back_from);
        let (score, churned): (Vec<f64>, Vec<bool>) =
            rows.map(|i| (recency[i], self.dataset.label[i])).unzip();
        metrics::roc_auc(&score, &churned).map(|auc| auc.max(1.0 - auc))
    }
}

/// The days since the event that the label is about, or since any.
pub fn recency(dataset: &Dataset, label: Label) -> Option<ArrayView1<'_, f64>> {
    let name = if label == Label::NoOrder { "days_since_order" } else { "days_since_event" };
    let column = dataset.names.iter().position(|n| n == name)?;
    Some(dataset.rows.column(column))
}

/// Takes the examples at `cuts` (ascending). So many events may run `ahead` of all others.
pub fn take(
    plan: Plan,
    task: &Task,
    cuts: &[Ts],
    ahead: usize,
    events: &mut Merged<'_>,
    progress: &dyn Fn(u64),
) -> Result<Examples> {
    collect(Collector::new(plan, task, EXAMPLES_MOST), cuts, ahead, events, progress)
}

/// Takes them with their stages, and with their values of the trait `by`.
pub fn take_grouped(
    plan: Plan,
    task: &Task,
    cuts: &[Ts],
    ahead: usize,
    events: &mut Merged<'_>,
    by: &str,
    progress: &dyn Fn(u64),
) -> Result<Examples> {
    let collector = Collector::new(plan, task, EXAMPLES_MOST);
    collect(Collector { by: Some(by), ..collector }, cuts, ahead, events, progress)
}

fn collect(
    mut collector: Collector<'_>,
    cuts: &[Ts],
    ahead: usize,
    events: &mut Merged<'_>,
    progress: &dyn Fn(u64),
) -> Result<Examples> {
    let mut skipped = Skipped::default();
    let mut cuts = cuts.iter().copied().peekable();
    let (mut count, mut behind) = (0u64, 0u64);
    let mut buyers = BTreeMap::new();
    let mut taken = Ts::MIN;
    // At or after the next cut, in the order in which they came.
    let mut held: Vec<Line> = Vec::new();
    loop {
        let line = events.next(&mut skipped)?;
        let may_wait = if line.is_some() { ahead } else { 0 };
        if let Some(line) = line {
            count += 1;
            if count.is_multiple_of(1_024) {
                progress(count);
            }
            behind += u64::from(line.ts() < taken);
            match cuts.peek() {
                Some(cut) if line.ts() >= *cut => held.push(line),
                _ => {
                    collector.event(line.event());
                    continue;
                }
            }
        } else if held.is_empty() {
            break;
        }
        while held.len() > may_wait {
            let Some(cut) = cuts.next() else { break };
            collector.cut(cut);
            buyers.insert(cut, collector.buyers(cut, BUYERS_MOST));
            taken = cut;
            let next = cuts.peek().copied().unwrap_or(Ts::MAX);
            let (now, later): (Vec<Line>, Vec<Line>) = held.drain(..).partition(|line| line.ts() < next);
            now.iter().for_each(|line| collector.event(line.event()));
            held = later;
        }
    }
    in_order(behind, count)?;
    let layout = collector.engine.plan().layout.clone();
    let (dataset, groups) = collector.finish()?;
    Ok(Examples { dataset, groups, buyers, layout, skipped })
}

/// Some events are late, as they were when customers were scored; files in another order than that of time make examples
/// of nobody's past.
fn in_order(behind: u64, count: u64) -> Result<()> {
    if behind as f64 <= BEHIND_SHARE_MOST * count as f64 {
        return Ok(());
    }
    Err(Error::user(format!(
        "the input is not in the order of time: {behind} of {count} events come after an instant that examples are taken at \
         and happened before it, so that the examples would lack their past"
    ))
    .hint("sort each file by `ts`, for example with `jq -cs 'sort_by(.ts)[]' purchase.ndjson`"))
}

/// What is kept of a customer beside the engine's state. By a hash of the id.
#[derive(Debug, Default)]
struct Track {
    last_activity: Option<Ts>,
    /// When its subscription last began or was cancelled, and whether it is cancelled since.
    subscription: Option<(Ts, bool)>,
    /// Examples for which what the label is about has not happened, be their horizon over or not: an event that
    /// comes late counts when it happened. No more than one number per example.
    open: Vec<u32>,
}

/// The engine, and the examples so far.
struct Collector<'t> {
    task: &'t Task,
    engine: Engine,
    tracks: HashMap<u64, Track, foldhash::fast::FixedState>,
    /// The last cut before each erasure; up to it a customer is nobody's example.
    erased: HashMap<u64, Ts, foldhash::fast::FixedState>,
    most: usize,
    /// Customers are kept whose hash has so many zeros at its end.
    zeros: u32,
    width: usize,
    values: Vec<f64>,
    at: Vec<Ts>,
    customer: Vec<u64>,
    happened: Vec<bool>,
    /// The trait whose values make groups; `None`: no groups are kept.
    by: Option<&'t str>,
    groups: Vec<Group>,
}

impl<'t> Collector<'t> {
    fn new(plan: Plan, task: &'t Task, most: usize) -> Self {
        Collector {
            task,
            width: plan.all.len(),
            engine: Engine::new(Arc::new(plan), false),
            tracks: HashMap::default(),
            erased: HashMap::default(),
            most,
            zeros: 0,
            values: Vec::new(),
            at: Vec::new(),
            customer: Vec::new(),
            happened: Vec::new(),
            by: None,
            groups: Vec::new(),
        }
    }

    /// Takes the population as of just before `cut`, in an order that the input's order does not change.
    fn cut(&mut self, cut: Ts) {
        if self.by.is_some() {
            // A stage may have changed in silence.
            let mut from = Some(0);
            while let Some(next) = from {
                from = self.engine.run_on(cut - 1, next);
                self.engine.commit();
            }
        }
        let store = self.engine.store();
        let mut population: Vec<(u64, u32)> = store
            .indices()
            .map(|index| (hash_customer(store.id(index)), index))
            .filter(|(hash, _)| self.is_kept(*hash) && self.is_example(*hash, cut))
            .collect();
        population.sort_unstable();
        for (hash, index) in population {
            let row = self.at.len() as u32;
            let view = self.engine.view(index, cut - 1);
            self.values.extend_from_slice(&view.features);
            if let Some(by) = self.by {
                self.groups.push(group(&self.engine, index, &view, by));
            }
            self.at.push(cut);
            self.customer.push(hash);
            self.happened.push(false);
            self.tracks.entry(hash).or_default().open.push(row);
        }
        while self.at.len() > self.most {
            self.thin();
        }
    }

    /// Who had ordered before `cut`, by the hash of the id. Beyond `most` customers half of them go, as often as
    /// it takes.
    fn buyers(&self, cut: Ts, most: usize) -> Vec<Buyer> {
        let ids = value::FEATURES.map(|name| self.engine.plan().layout.id(name));
        let Some(ids) = ids.into_iter().collect::<Option<Vec<_>>>() else { return Vec::new() };
        let store = self.engine.store();
        let zeros = (store.len().div_ceil(most.max(1))).next_power_of_two().trailing_zeros();
        let customers = store.indices().map(|index| (hash_customer(store.id(index)), index));
        let mut sample: Vec<(u64, u32)> =
            customers.filter(|(hash, _)| hash.trailing_zeros() >= zeros).collect();
        sample.sort_unstable();
        let read = |(_, index): (u64, u32)| {
            let features = self.engine.view(index, cut - 1).features;
            let mut values = [0.0; value::FEATURES.len()];
            values.iter_mut().zip(&ids).for_each(|(value, id)| *value = features[id.index()]);
            Buyer::read(values)
        };
        sample.into_iter().filter_map(read).collect()
    }

    fn is_kept(&self, hash: u64) -> bool {
        hash.trailing_zeros() >= self.zeros
    }

    fn is_example(&self, hash: u64, cut: Ts) -> bool {
        let Some(track) = self.tracks.get(&hash) else { return false };
        let active = track.last_activity.is_some_and(|ts| ts >= cut - self.task.active_within);
        // Who has cancelled already cannot do it again.
        let gone =
            self.task.label == Label::Cancelled && track.subscription.is_some_and(|(_, cancelled)| cancelled);
        active && !gone
    }

    /// Lets half of the customers go.
    fn thin(&mut self) {
        self.zeros += 1;
        let kept: Vec<usize> = (0..self.at.len()).filter(|i| self.is_kept(self.customer[*i])).collect();
        self.keep(&kept);
    }

    /// Takes out what was known of customers who have been erased since.
    fn leave_out_the_erased(&mut self) {
        if self.erased.is_empty() {
            return;
        }
        let is_erased = |i: usize| self.erased.get(&self.customer[i]).is_some_and(|cut| self.at[i] <= *cut);
        let kept: Vec<usize> = (0..self.at.len()).filter(|i| !is_erased(*i)).collect();
        self.keep(&kept);
    }

    /// Lets all examples but these go.
    fn keep(&mut self, kept: &[usize]) {
        self.tracks
            .values_mut()
            .for_each(|track| track.open.retain(|row| kept.binary_search(&(*row as usize)).is_ok()));
        let new_row = |row: &u32| kept.partition_point(|i| *i < *row as usize) as u32;
        self.tracks.values_mut().for_each(|track| track.open = track.open.iter().map(new_row).collect());
        for (to, from) in kept.iter().enumerate() {
            self.values.copy_within(from * self.width..(from + 1) * self.width, to * self.width);
            self.at[to] = self.at[*from];
            self.customer[to] = self.customer[*from];
            self.happened[to] = self.happened[*from];
            if self.by.is_some() {
                self.groups.swap(to, *from);
            }
        }
        self.values.truncate(kept.len() * self.width);
        self.at.truncate(kept.len());
        self.customer.truncate(kept.len());
        self.happened.truncate(kept.len());
        self.groups.truncate(kept.len());
    }

    /// Applies an event to the state and to the labels it decides.
    fn event(&mut self, event: &Event<'_>) {
        let was = self.engine.identities().who(&event.customer_id).to_owned();
        let aliases = self.engine.identities().aliases(&was).to_vec();
        let applied = self.engine.step_alone(event);
        self.engine.identities_mut().take_refused();
        self.engine.commit();
        if matches!(applied, Applied::Duplicate | Applied::OptedOut | Applied::Refused) {
            return;
        }
        if is_erasure(event) {
            let until = self.at.last().copied().unwrap_or(Ts::MIN);
            for id in aliases.iter().map(|id| &**id).chain([was.as_str()]) {
                self.tracks.remove(&hash_customer(id));
                self.erased.insert(hash_customer(id), until);
            }
            return;
        }
        if let Some(ProfileChange::Merged(merge)) = event.profile.as_deref() {
            return self.merge(&merge.from_id);
        }
        if event.source == Source::Profile {
            let ids = other_ids(&self.engine.plan().settings.identity, event);
            let ids: Vec<_> = ids.map(Cow::into_owned).collect();
            ids.iter().for_each(|id| self.merge(id));
        }
        let track = self.tracks.entry(hash_customer(&was)).or_default();
        if Source::ACTIVITY.contains(&event.source) {
            track.last_activity = track.last_activity.max(Some(event.ts));
        }
        if event.source == Source::Purchase {
            let newest = track.subscription.is_none_or(|(ts, _)| event.ts >= ts);
            match &*event.name {
                "subscription_started" if newest => track.subscription = Some((event.ts, false)),
                "subscription_cancelled" if newest => track.subscription = Some((event.ts, true)),
                _ => {}
            }
        }
        if is_about(self.task.label, event) {
            let (at, happened) = (&self.at, &mut self.happened);
            let (lead, reach) = (self.task.lead, self.task.reach());
            track.open.retain(|row| {
                let since = event.ts - at[*row as usize];
                let inside = since >= lead && since < reach;
                happened[*row as usize] |= inside;
                !inside
            });
        }
    }

    /// What happens to a customer from now on is about the examples of whoever was merged into it, too.
    fn merge(&mut self, from: &str) {
        let into = hash_customer(self.engine.identities().who(from));
        if into == hash_customer(from) {
            return;
        }
        let Some(theirs) = self.tracks.remove(&hash_customer(from)) else { return };
        let track = self.tracks.entry(into).or_default();
        track.last_activity = track.last_activity.max(theirs.last_activity);
        track.subscription = track.subscription.max(theirs.subscription);
        track.open.extend(theirs.open);
        track.open.sort_unstable();
    }

    /// The examples, and what each belonged to where that was asked for.
    fn finish(mut self) -> Result<(Dataset, Vec<Group>)> {
        self.leave_out_the_erased();
        let names = self.engine.plan().layout.names().into_iter().map(str::to_owned).collect();
        let rows = Array2::from_shape_vec((self.at.len(), self.width), self.values)
            .map_err(|e| Error::world(format!("the examples do not fit together: {e}")))?;
        let churns_when_it_happens = self.task.label == Label::Cancelled;
        let label = self.happened.into_iter().map(|happened| happened == churns_when_it_happens).collect();
        let dataset = Dataset { names, rows, label, at: self.at, customer: self.customer, foretold: None };
        Ok((dataset, self.groups))
    }
}

fn group(engine: &Engine, index: u32, view: &View, by: &str) -> Group {
    let stages = engine.plan().lifecycles.iter().map(|(_, slots)| slots.stage.get(&view.row) as u8);
    let traits = engine.store().traits(index);
    let segment = traits.as_deref().and_then(|traits| traits.get(by)).map(|value| match value {
        TraitValue::Text(text) => text.clone(),
        TraitValue::Number(number) => number.to_string().into(),
        TraitValue::Flag(flag) => flag.to_string().into(),
    });
    Group { stages: stages.collect(), segment }
}

/// Whether the event is the one whose absence, or presence, is churn.
fn is_about(label: Label, event: &Event<'_>) -> bool {
    match label {
        Label::NoOrder => event.source == Source::Purchase && event.name == "order_completed",
        Label::NoEvent => Source::ACTIVITY.contains(&event.source),
        Label::Cancelled => event.source == Source::Purchase && event.name == "subscription_cancelled",
    }
}

#[cfg(test)]
mod tests;
