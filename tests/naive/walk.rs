//! The life of one customer, instant by instant, and everything written about it, in order.
//! Sections 2 (dedupe), 3 (lifecycles) and 4 (scores and alerts) of the contract.
//!
//! Silence is brute force: list every instant at which anything could flip, look at each, and evaluate where
//! something did. An evaluated instant evaluates everything: the score first, which rules may name, then every
//! lifecycle, whichever of them (or the rescoring) asked for it.
//!
//! Once silence has moved a customer in a lifecycle, that lifecycle asks for nothing before the customer has
//! rested for a second, and for nothing more at all after 1,000 such moves without an event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cel::Env;
use serde_json::Value;
use stagecast::time::{DAY_MS, HOUR_MS, Ts};

use super::event::{Ev, Kind, Money};
use super::features::{Line, View, leaves_window, windows_of};
use super::lifecycle::{Lifecycle, Traits, context};
use super::outputs::{Alert, Band, History, Output, Score, StageChange, Trigger};

/// More instants in one silence than any lifecycle that comes to rest has: a day each, 54 years.
const MAX_INSTANTS: u32 = 20_000;

/// How long silence lets a customer rest where silence brought it to, and how often silence moves it.
const SILENT_REST: i64 = 1_000;
const SILENT_MOVES_MOST: u32 = 1_000;

/// How finely silence is searched for windowed features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grid {
    /// Every hour boundary: no thought, but slow.
    EveryHour,
    /// Only those hour boundaries at which an event leaves a window that a rule names.
    Expiries,
}

/// What stays the same while a customer lives.
pub struct World<'a> {
    pub lifecycles: Vec<Lifecycle>,
    pub money: Money,
    pub scoring: Option<Scoring<'a>>,
    /// Milliseconds of event time.
    pub dedupe: i64,
    pub grid: Grid,
    env: Arc<Env>,
    /// Everything that any rule names.
    names: BTreeSet<String>,
    /// Every number that any rule mentions.
    literals: Vec<f64>,
}

impl<'a> World<'a> {
    /// A world of these lifecycle files, without scores, with the defaults of section 6.
    pub fn new(lifecycles: &[&str]) -> Self {
        let lifecycles: Vec<Lifecycle> = lifecycles.iter().map(|text| Lifecycle::parse(text)).collect();
        let rules = || lifecycles.iter().flat_map(Lifecycle::rules);
        let mut literals: Vec<f64> = rules().flat_map(|r| r.literals.iter().copied()).collect();
        literals.sort_by(f64::total_cmp);
        literals.dedup();
        World {
            names: rules().flat_map(|r| r.names.iter().cloned()).collect(),
            literals,
            lifecycles,
            money: Money::default(),
            scoring: None,
            dedupe: DAY_MS,
            grid: Grid::Expiries,
            env: Arc::new(Env::stdlib()),
        }
    }

    pub fn with_scoring(self, scoring: Scoring<'a>) -> Self {
        World { scoring: Some(scoring), ..self }
    }

    pub fn with_money(self, money: Money) -> Self {
        World { money, ..self }
    }

    pub fn with_grid(self, grid: Grid) -> Self {
        World { grid, ..self }
    }
}

/// A model, and `[scores]` and `[[alert]]` of the configuration.
#[derive(Clone)]
pub struct Scoring<'a> {
    pub p: &'a dyn Fn(&View) -> f64,
    pub min_change: f64,
    /// Milliseconds of event time.
    pub rescore_every: i64,
    pub bands: [f64; 2],
    pub policies: Vec<Policy>,
}

impl<'a> Scoring<'a> {
    /// The defaults of section 6, with one policy.
    pub fn new(p: &'a dyn Fn(&View) -> f64) -> Self {
        let policies = vec![Policy::on_score("churn", 0.7, 0.5, 7 * DAY_MS)];
        Scoring { p, min_change: 0.01, rescore_every: DAY_MS, bands: [0.3, 0.7], policies }
    }

    fn band(&self, p: f64) -> Band {
        match self.bands {
            [low, _] if p < low => Band::Low,
            [_, high] if p < high => Band::Medium,
            _ => Band::High,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub name: String,
    pub on: On,
    /// Milliseconds of event time.
    pub cooldown: i64,
    /// Traits that a customer must have for the policy to look at it.
    pub segment: Vec<(String, Value)>,
}

/// What a policy waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum On {
    Score {
        raise: f64,
        clear: f64,
    },
    /// Of any lifecycle when none is named.
    Stage {
        lifecycle: Option<String>,
        stage: String,
    },
}

impl Policy {
    pub fn on_score(name: &str, raise: f64, clear: f64, cooldown: i64) -> Self {
        Policy { name: name.to_owned(), on: On::Score { raise, clear }, cooldown, segment: Vec::new() }
    }
}

/// The stage changes of one customer in one lifecycle, its events given in order of arrival.
pub fn walk(arrivals: &[Ev], lifecycle: &str, until: Ts) -> Vec<StageChange> {
    history(&World::new(&[lifecycle]), arrivals, until).stage_changes()
}

/// Every instant at which one customer in no lifecycle is scored, with the score.
pub fn score_instants(arrivals: &[Ev], scoring: Scoring, until: Ts) -> Vec<(Ts, f64)> {
    history(&World::new(&[]).with_scoring(scoring), arrivals, until).scored
}

/// Everything that is written about one customer, its events given in order of arrival, with the clock run on
/// to `until` after the last.
pub fn history(world: &World, arrivals: &[Ev], until: Ts) -> History {
    let mut seen = Seen::new(world.dedupe);
    let mut customer: Option<Customer> = None;
    let mut duplicates = 0;
    for event in arrivals {
        if !seen.is_new(event) {
            duplicates += 1;
            continue;
        }
        let customer = customer.get_or_insert_with(|| Customer::new(world, event.ts));
        customer.live_through_silence(event.ts);
        customer.meet(event);
    }
    if let Some(customer) = &mut customer {
        customer.live_through_silence(until.saturating_add(1));
    }
    let mut history = customer.map(Customer::into_history).unwrap_or_default();
    history.duplicates = duplicates;
    history
}

/// The event ids of one customer that are remembered.
struct Seen {
    horizon: i64,
    /// With the event's time and the newest of its customer when it came.
    ids: Vec<(String, Ts, Ts)>,
    newest: Ts,
}

impl Seen {
    fn new(horizon: i64) -> Self {
        Seen { horizon, ids: Vec::new(), newest: Ts::MIN }
    }

    /// False for a repeated id within the horizon. The horizon reaches back from the newest event time, the
    /// event at hand included, and to both sides of the event; of an event that came later than that, back to when it
    /// came, and it is repeated by one of the same time. A repetition changes nothing at all.
    fn is_new(&mut self, event: &Ev) -> bool {
        let newest = self.newest.max(event.ts);
        if let Some(id) = &event.id {
            let is_late = newest - event.ts > self.horizon;
            let repeats = |ts: Ts, at: Ts| match is_late {
                true => at - ts > self.horizon && ts == event.ts && newest - at <= self.horizon,
                false => newest - ts <= self.horizon && (event.ts - ts).abs() <= self.horizon,
            };
            if self.ids.iter().any(|(known, ts, at)| known == id && repeats(*ts, *at)) {
                return false;
            }
            self.ids.push((id.clone(), event.ts, newest));
        }
        self.newest = newest;
        true
    }
}

/// Where a customer is in one lifecycle.
struct Place {
    stage: usize,
    entered: Ts,
    visits: Vec<u64>,
    /// The truth of each relevant rule when the lifecycle was last evaluated.
    truths: Vec<bool>,
    /// Moves in silence since the last event.
    silent_moves: u32,
}

impl Place {
    fn stage_days(&self, t: Ts) -> f64 {
        (t - self.entered) as f64 / DAY_MS as f64
    }

    fn dwell_ends(&self, lifecycle: &Lifecycle) -> Option<Ts> {
        match lifecycle.stages[self.stage].min_dwell {
            0 => None,
            dwell => Some((self.entered + dwell).max(self.rest_ends()?)),
        }
    }

    /// From when on silence may move the customer again, if it may.
    fn rest_ends(&self) -> Option<Ts> {
        match self.silent_moves {
            0 => Some(self.entered),
            1..SILENT_MOVES_MOST => Some(self.entered + SILENT_REST),
            _ => None,
        }
    }
}

#[derive(Clone, Copy)]
struct Armed {
    armed: bool,
    fired: Option<Ts>,
}

/// A customer as of its last evaluated instant.
struct Customer<'w> {
    world: &'w World<'w>,
    at: Ts,
    traits: Traits,
    places: Vec<Place>,
    emitted: Option<(f64, Band)>,
    alarms: Vec<Armed>,
    /// The last score.
    p: Option<f64>,
    history: History,
}

impl<'w> Customer<'w> {
    /// A customer just before its first event: in every initial stage, nothing evaluated yet.
    fn new(world: &'w World<'w>, first: Ts) -> Self {
        let place = |l: &Lifecycle| Place {
            stage: l.initial,
            entered: first,
            visits: (0..l.stages.len()).map(|i| u64::from(i == l.initial)).collect(),
            truths: Vec::new(),
            silent_moves: 0,
        };
        let policies = world.scoring.as_ref().map_or(0, |s| s.policies.len());
        Customer {
            world,
            at: first,
            traits: Traits::new(),
            places: world.lifecycles.iter().map(place).collect(),
            emitted: None,
            alarms: vec![Armed { armed: true, fired: None }; policies],
            p: None,
            history: History::default(),
        }
    }

    /// Evaluates every instant of silence after the last evaluated instant and before `end`.
    fn live_through_silence(&mut self, end: Ts) {
        let mut instants = 0;
        while let Some(t) = self.next_instant(end) {
            instants += 1;
            assert!(instants < MAX_INSTANTS, "a lifecycle never rests: {:?} at {t}", self.stages());
            self.at = t;
            self.evaluate(None);
        }
    }

    /// Takes in an event and evaluates it as of the later of its own time and the last evaluated instant.
    fn meet(&mut self, event: &Ev) {
        self.at = self.at.max(event.ts);
        self.history.applied.push(event.clone());
        if event.kind == Kind::Profile {
            for (name, value) in &event.traits {
                match value {
                    Value::Null => self.traits.remove(name),
                    value => self.traits.insert(name.clone(), value.clone()),
                };
            }
        }
        self.evaluate(Some(event));
    }

    /// Everything that an instant means: the score, then the lifecycles, then what is written of the score.
    fn evaluate(&mut self, event: Option<&Ev>) {
        self.p = self.world.scoring.as_ref().map(|scoring| (scoring.p)(&self.view(self.at)));
        let changes_before = self.history.outputs.len();
        for lifecycle in 0..self.places.len() {
            self.settle(lifecycle, event);
            if event.is_some() {
                self.places[lifecycle].silent_moves = 0;
            }
        }
        self.score(changes_before);
    }

    /// The first instant of silence before `end` at which something is due.
    fn next_instant(&self, end: Ts) -> Option<Ts> {
        let rescore = self.rescore_due();
        self.candidates(end).into_iter().find(|t| rescore == Some(*t) || self.is_asked_for(*t))
    }

    /// Whether there is a lifecycle in which a relevant rule's truth is not what it was, or a `min_dwell` ends.
    fn is_asked_for(&self, t: Ts) -> bool {
        let truths = self.truths(t);
        (0..self.places.len()).any(|i| {
            let place = &self.places[i];
            let rested = place.rest_ends().is_some_and(|end| t >= end);
            rested && (place.truths != truths[i] || place.dwell_ends(&self.world.lifecycles[i]) == Some(t))
        })
    }

    /// Every instant after the last evaluated one and before `end` at which something could be due.
    fn candidates(&self, end: Ts) -> BTreeSet<Ts> {
        let mut found = BTreeSet::new();
        let mut offer = |t: Ts| {
            if t > self.at && t < end {
                found.insert(t);
            }
        };
        self.rescore_due().into_iter().for_each(&mut offer);
        for (place, lifecycle) in self.places.iter().zip(&self.world.lifecycles) {
            place.dwell_ends(lifecycle).into_iter().for_each(&mut offer);
            place.rest_ends().into_iter().for_each(&mut offer);
        }
        self.hours(end).into_iter().for_each(&mut offer);
        for line in self.lines() {
            for crossing in self.world.literals.iter().map(|c| line.zero as f64 + c * line.scale) {
                // a truth flips when the literal is reached or one millisecond later; a neighbour on either
                // side makes up for the rounding of the crossing itself
                let (below, above) = (crossing.floor() as Ts, crossing.ceil() as Ts);
                (below.saturating_sub(1)..=above.saturating_add(1)).for_each(&mut offer);
            }
        }
        found
    }

    /// The hour boundaries at which a windowed feature could change.
    fn hours(&self, end: Ts) -> Vec<Ts> {
        match self.world.grid {
            Grid::EveryHour => (self.at.div_euclid(HOUR_MS) + 1..=end.div_euclid(HOUR_MS))
                .map(|hour| hour * HOUR_MS)
                .collect(),
            Grid::Expiries => {
                let windows: BTreeSet<i64> =
                    self.world.names.iter().flat_map(|name| windows_of(name)).collect();
                let leaves = |w: i64| self.history.applied.iter().map(move |e| leaves_window(e.ts, w));
                windows.into_iter().flat_map(leaves).collect()
            }
        }
    }

    /// What the growing values that rules name grow along.
    fn lines(&self) -> Vec<Line> {
        let view = self.view(self.at);
        let mut lines: Vec<Line> = self.world.names.iter().filter_map(|name| view.line(name)).collect();
        if self.world.names.contains("stage_days") {
            lines.extend(self.places.iter().map(|p| Line { zero: p.entered, scale: DAY_MS as f64 }));
        }
        lines
    }

    fn rescore_due(&self) -> Option<Ts> {
        let (scored, _) = self.history.scored.last()?;
        Some(scored + self.world.scoring.as_ref()?.rescore_every)
    }

    fn view(&self, at: Ts) -> View<'_> {
        View { events: &self.history.applied, at, money: &self.world.money }
    }

    /// The truth of every relevant rule of every lifecycle at `t`.
    fn truths(&self, t: Ts) -> Vec<Vec<bool>> {
        let mut context = self.context(t);
        let lives = self.world.lifecycles.iter().zip(&self.places);
        lives
            .map(|(lifecycle, place)| {
                context.add_variable_from_value("stage_days", place.stage_days(t));
                lifecycle.relevant(place.stage).into_iter().map(|rule| rule.holds(&context)).collect()
            })
            .collect()
    }

    /// What rules can see at `t`, `stage_days` aside.
    fn context(&self, t: Ts) -> cel::Context<'static, 'static> {
        context(&self.world.env, &self.world.names, &self.view(t), &self.traits, self.p)
    }

    /// Evaluates one lifecycle now, until nothing moves. A stage visited before is not eligible.
    fn settle(&mut self, lifecycle: usize, event: Option<&Ev>) {
        let mut visited = BTreeSet::from([self.places[lifecycle].stage]);
        while let Some(to) = self.winner(lifecycle, &visited) {
            if to == self.places[lifecycle].stage {
                break;
            }
            visited.insert(to);
            self.enter(lifecycle, to, event);
        }
        self.history.restless |= self
            .winner(lifecycle, &BTreeSet::new())
            .is_some_and(|to| to != self.places[lifecycle].stage && visited.contains(&to));
        let truths = self.truths(self.at).swap_remove(lifecycle);
        self.places[lifecycle].truths = truths;
    }

    /// The stage that wins now: the first, by priority, that is either the current one and may be stayed in, or
    /// another that can be entered and was not visited. None: the customer stays where it is.
    fn winner(&self, lifecycle: usize, visited: &BTreeSet<usize>) -> Option<usize> {
        let (life, place) = (&self.world.lifecycles[lifecycle], &self.places[lifecycle]);
        let mut context = self.context(self.at);
        context.add_variable_from_value("stage_days", place.stage_days(self.at));
        let dwelt = self.at - place.entered >= life.stages[place.stage].min_dwell;
        life.stages.iter().enumerate().position(|(i, stage)| {
            if i == place.stage {
                stage.stay.holds(&context)
            } else {
                dwelt && !visited.contains(&i) && life.leads(place.stage, i) && stage.enter.holds(&context)
            }
        })
    }

    fn enter(&mut self, lifecycle: usize, to: usize, event: Option<&Ev>) {
        let (life, place) = (&self.world.lifecycles[lifecycle], &mut self.places[lifecycle]);
        place.visits[to] += 1;
        place.silent_moves += 1;
        let change = StageChange {
            lifecycle: life.name.clone(),
            from: life.stages[place.stage].name.clone(),
            to: life.stages[to].name.clone(),
            ts: self.at,
            trigger: if event.is_some() { Trigger::Event } else { Trigger::Silence },
            visit: place.visits[to],
            stage_days: place.stage_days(self.at),
            sequence: 1 + self.history.outputs.iter().filter(|o| matches!(o, Output::Stage(_))).count()
                as u64,
            event_id: event.and_then(|e| e.id.clone()),
        };
        place.stage = to;
        place.entered = self.at;
        self.history.outputs.push(Output::Stage(change));
    }

    /// Emits the score and raises alerts where they are due; `changes_from` is where the stage changes of this
    /// instant begin.
    fn score(&mut self, changes_from: usize) {
        let (Some(scoring), Some(p)) = (&self.world.scoring, self.p) else { return };
        let changes: Vec<Output> = self.history.outputs[changes_from..].to_vec();
        let band = scoring.band(p);
        self.history.scored.push((self.at, p));
        let due = match self.emitted {
            None => true,
            Some((last, last_band)) => (p - last).abs() >= scoring.min_change || band != last_band,
        };
        if due {
            self.emitted = Some((p, band));
            let score = Score { ts: self.at, p, band, stages: self.stages() };
            self.history.outputs.push(Output::Score(score));
        }
        self.alert(&scoring.policies, p, &changes);
    }

    fn alert(&mut self, policies: &[Policy], p: f64, changes: &[Output]) {
        for (policy, alarm) in policies.iter().zip(&mut self.alarms) {
            if let On::Score { clear, .. } = &policy.on {
                alarm.armed |= p < *clear;
            }
            if !policy.segment.iter().all(|(name, value)| self.traits.get(name) == Some(value)) {
                continue;
            }
            let wanted = match &policy.on {
                On::Score { raise, .. } => alarm.armed && p > *raise,
                On::Stage { lifecycle, stage } => changes.iter().any(|change| match change {
                    Output::Stage(c) => {
                        c.to == *stage && lifecycle.as_ref().is_none_or(|l| *l == c.lifecycle)
                    }
                    _ => false,
                }),
            };
            let rested = alarm.fired.is_none_or(|fired| self.at - fired >= policy.cooldown);
            if wanted && rested {
                *alarm = Armed { armed: false, fired: Some(self.at) };
                let alert = Alert { ts: self.at, policy: policy.name.clone(), p };
                self.history.outputs.push(Output::Alert(alert));
            }
        }
    }

    fn stages(&self) -> BTreeMap<String, String> {
        let lives = self.world.lifecycles.iter().zip(&self.places);
        lives.map(|(l, p)| (l.name.clone(), l.stages[p.stage].name.clone())).collect()
    }

    fn into_history(self) -> History {
        History { stages: self.stages(), ..self.history }
    }
}
