//! A small catalogue and a world of one customer, through which all lifecycle tests run.

mod rules;
mod errors;
mod moves;
mod silence;

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::*;
use crate::pipeline::facts::{Motion, TraitValue};
use crate::time::{DAY_MS, HOUR_MS, parse_span};

/// The names of section 2's table.
pub(super) struct Names(Vec<(String, Motion)>);

pub(super) fn names() -> Names {
    let windowed = [
        ("events", "7d 30d 90d"),
        ("clicks", "1d 7d 30d 90d"),
        ("sessions", "7d 30d 90d"),
        ("active_days", "7d 30d 90d"),
        ("product_views", "7d 30d"),
        ("cart_adds", "7d 30d"),
        ("searches", "30d"),
        ("checkouts", "30d"),
        ("emails_opened", "30d"),
        ("shares", "90d"),
        ("orders", "7d 30d 90d"),
        ("revenue", "30d 90d"),
        ("refunds", "30d 90d"),
        ("tickets", "7d 30d 90d"),
        ("sentiment", "90d"),
        ("csat", "90d"),
        ("clicks_trend", "14d"),
        ("orders_trend", "14d"),
    ];
    let lifetime = ["events", "clicks", "shares", "orders", "revenue", "order_value"];
    let still = "open_tickets order_gap_days rfm_frequency rfm_recency_days rfm_monetary clv_to_date p_no_order clv_365d";
    let linear = "days_since_event days_since_click days_since_order days_since_ticket tenure_days overdue_ratio rfm_age_days";
    let mut all = Vec::new();
    for (name, windows) in windowed {
        all.extend(windows.split(' ').map(|w| (format!("{name}_{w}"), Motion::Windowed)));
    }
    all.extend(lifetime.iter().map(|name| (format!("{name}_lifetime"), Motion::Still)));
    all.extend(still.split(' ').map(|name| (name.to_string(), Motion::Still)));
    all.extend(linear.split(' ').map(|name| (name.to_string(), Motion::Linear)));
    Names(all)
}

impl FeatureNames for Names {
    fn id(&self, name: &str) -> Option<FeatureId> {
        self.0.iter().position(|(n, _)| n == name).map(|i| FeatureId(i as u16))
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(n, _)| n.as_str()).collect()
    }

    fn motion(&self, id: FeatureId) -> Motion {
        self.0[id.index()].1
    }
}

pub(super) fn load(text: &str) -> Lifecycle {
    Lifecycle::load("test.toml", text, &names()).unwrap()
}

/// Everything known of one customer. Linear features have a line or, when it never happened, are infinite.
pub(super) struct World {
    names: Names,
    still: Vec<f64>,
    pub lines: BTreeMap<FeatureId, Line>,
    /// Windowed features that will change, when, and to what.
    pub changes: Vec<(FeatureId, Ts, f64)>,
    pub p_churn: f64,
    pub traits: Traits,
    pub now: Ts,
    scratch: RefCell<Vec<f64>>,
}

impl World {
    pub fn new() -> World {
        let names = names();
        let still = names.0.iter().map(|(_, m)| if *m == Motion::Linear { f64::INFINITY } else { 0.0 });
        World {
            still: still.collect(),
            names,
            lines: BTreeMap::new(),
            changes: Vec::new(),
            p_churn: 0.5,
            traits: Traits::new(),
            now: 0,
            scratch: RefCell::default(),
        }
    }

    pub fn id(&self, name: &str) -> FeatureId {
        self.names.id(name).unwrap_or_else(|| panic!("no feature {name}"))
    }

    pub fn set(&mut self, name: &str, value: f64) {
        let id = self.id(name);
        self.still[id.index()] = value;
        self.lines.remove(&id);
    }

    pub fn set_line(&mut self, name: &str, line: Line) {
        self.lines.insert(self.id(name), line);
    }

    /// `name=value`: a number, `now` (a linear feature counts from here on), or a trait's text for `traits.x`.
    pub fn assign(&mut self, text: &str) {
        let (name, value) = text.split_once('=').unwrap();
        match (name.strip_prefix("traits."), value) {
            (Some(name), "none") => drop(self.traits.remove(name)),
            (Some(name), value) => drop(self.traits.insert(name.into(), trait_value(value))),
            (None, "now") => self.set_line(name, Line { zero: self.now, scale: DAY_MS as f64 }),
            (None, value) if name == "p_churn" => self.p_churn = value.parse().unwrap(),
            (None, value) => self.set(name, value.parse().unwrap()),
        }
    }

    pub fn features_at(&self, t: Ts) -> Vec<f64> {
        let mut features = self.still.clone();
        for (id, line) in &self.lines {
            features[id.index()] = line.at(t);
        }
        for (id, _, value) in self.changes.iter().filter(|(_, at, _)| *at <= t) {
            features[id.index()] = *value;
        }
        features
    }

    pub fn with_facts<T>(&self, t: Ts, with: impl FnOnce(&mut Facts<'_>) -> T) -> T {
        *self.scratch.borrow_mut() = self.features_at(t);
        let features = self.scratch.borrow();
        let (p_churn, traits) = (self.p_churn, &self.traits);
        with(&mut Facts { features: &features, p_churn, stage_days: 0.0, traits })
    }

    pub fn truths(&self, lifecycle: &Lifecycle, state: &StageState, t: Ts) -> u64 {
        self.with_facts(t, |facts| lifecycle.truths(lifecycle.variant(&self.traits), state, t, facts))
    }

    pub fn next(&self, lifecycle: &Lifecycle, state: &StageState) -> Option<Ts> {
        let variant = lifecycle.variant(&self.traits);
        self.with_facts(self.now, |facts| lifecycle.next_candidate(variant, state, self.now, facts, self))
    }
}

impl SilentTime for World {
    fn line(&self, id: FeatureId) -> Option<Line> {
        self.lines.get(&id).copied()
    }

    fn window_change(&self, id: FeatureId) -> Option<Ts> {
        self.changes.iter().filter(|(c, at, _)| *c == id && *at > self.now).map(|(_, at, _)| *at).min()
    }
}

fn trait_value(text: &str) -> TraitValue {
    match (text, text.parse::<f64>()) {
        ("true" | "false", _) => TraitValue::Flag(text == "true"),
        (_, Ok(n)) => TraitValue::Number(n),
        _ => TraitValue::Text(text.into()),
    }
}

/// Plays a history and tells every move as `instant: from>to (#visit, days in from)`.
///
/// A line of the history is an instant (a span since the beginning) and what an event makes of the features:
/// `45d orders_90d=3 days_since_order=now`. Instants of silence in between are found by the lifecycle itself.
pub(super) fn play(lifecycle: &Lifecycle, history: &str) -> String {
    let (mut world, mut told) = (World::new(), Vec::new());
    let mut state: Option<StageState> = None;
    for line in history.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let instant = parse_span(words.next().unwrap()).unwrap();
        if let Some(state) = &mut state {
            silence(lifecycle, &mut world, state, instant, &mut told);
        }
        world.now = instant;
        words.filter(|word| *word != "until").for_each(|word| world.assign(word));
        if line.ends_with(" until") {
            break;
        }
        let state = state.get_or_insert_with(|| lifecycle.start(instant));
        settle(lifecycle, &world, state, &mut told);
    }
    told.join("\n")
}

/// Evaluates every candidate before `until` that is due.
fn silence(l: &Lifecycle, world: &mut World, state: &mut StageState, until: Ts, told: &mut Vec<String>) {
    while let Some(t) = world.next(l, state).filter(|t| *t < until) {
        assert!(t > world.now, "a candidate must lie ahead");
        world.now = t;
        let variant = l.variant(&world.traits);
        if world.with_facts(t, |facts| l.is_due(variant, state, t, facts)) {
            settle(l, world, state, told);
        }
    }
}

fn settle(l: &Lifecycle, world: &World, state: &mut StageState, told: &mut Vec<String>) {
    let name = |i: u8| &l.stages()[usize::from(i)].name;
    world.with_facts(world.now, |facts| {
        l.settle(l.variant(&world.traits), state, world.now, facts, |m| {
            let days = (m.stage_days * 1e6).round() / 1e6;
            let (from, to, visit) = (name(m.from), name(m.to), m.visit);
            told.push(format!("{}: {from}>{to} (#{visit}, {days})", exact_span(world.now)));
        });
    });
    assert_eq!(state.truths, world.truths(l, state, world.now), "what settled is what is true");
}

/// `45d`, `45d1ms`: days, then what is left over.
fn exact_span(ts: Ts) -> String {
    match (ts / DAY_MS, ts % DAY_MS) {
        (days, 0) => format!("{days}d"),
        (0, rest) if rest % HOUR_MS == 0 => format!("{}h", rest / HOUR_MS),
        (days, rest) if rest % HOUR_MS == 0 => format!("{days}d{}h", rest / HOUR_MS),
        (days, rest) => format!("{days}d{rest}ms"),
    }
}
