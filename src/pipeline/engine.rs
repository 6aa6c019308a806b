//! The engine of one partition: an event or an instant of silence in, outputs that are due out.
//!
//! The route of an event, in order: find its customer; drop it if it is a repetition or its customer is erased;
//! evaluate every instant of silence before it; fold it into the windows; read the features; score; settle the
//! lifecycles; emit what is due; note when silence will matter next. PURE: no IO, no clock of its own, no randomness.

use std::sync::Arc;

use super::alert;
use super::channels::{self, with_main_channel};
use super::consent;
use super::drift::{self, Drift};
use super::emit::{self, Scored, StageChange, Trigger};
use super::erasure::{self, OptOuts};
use super::facts::{TraitValue, Traits};
use super::features::{self, Silence};
use super::identity::{self, Hop, Identities};
use super::layout::{NEVER, Touch};
use super::lifecycle::{Facts, Lifecycle, Move, StageState};
use super::migrate::Layouts;
use super::moves::{Passage, Place, Traffic};
use super::outbox::{Channel, Outbox};
use super::outcomes;
use super::panes::Measures;
use super::plan::{Plan, PolicyOn};
use super::quality::Quality;
use super::reconcile::Reconciling;
use super::sessions;
use super::store::{Customer, Seen, Store};
use super::timers::Timers;
use super::unsettled::Unsettled;
use super::windows::{Edit, Windows};
use super::worth;
use crate::event::{Event, ProfileChange, Source};
use crate::model::Contribution;
use crate::model::value::Value;
use crate::time::{DAY_MS, Tick, Ts};

/// After so much silence a customer is written to the state topic even if nothing was emitted, so that a
/// restart does not have to live through all of it again.
const PERSIST_SILENCE_MS: i64 = 7 * DAY_MS;

/// Event ids that are remembered of one customer within the dedupe horizon; of more, the oldest quarter is let go. A
/// customer's state is one record, which must stay far below the 1 MiB that brokers take, whoever it is of.
pub const SEEN_MOST: usize = 16 * 1024;
/// Names and values of one customer's traits, for the same reason.
pub const TRAITS_BYTES_MOST: usize = 64 * 1024;

/// Outputs that may wait before silence stops adding to them.
pub const OUTBOX_BYTES: usize = 4 << 20;

/// Instants of silence after which the caller has its turn, however little came of them: a tenth of a second or two. A
/// transaction has to be committed in its time, and long silence of many may be due at once.
pub const SILENCE_AT_ONCE: usize = 20_000;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    InOrder,
    /// It was older than its customer's last evaluated instant; its pane still has it.
    Late,
    /// Its id was there before.
    Duplicate,
    /// Its customer was erased, and it is too old to begin a new one.
    OptedOut,
    /// Its customer is another one now; it follows.
    Moved,
    /// It is a merge of customers who cannot be one.
    Refused,
}

/// Lifecycle, the name of a stage that is no longer defined, and the stage its customers went to.
pub type FromGone = (u8, Box<str>, u8);

/// What happened since the last look, for metrics.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// (lifecycle, from, to, trigger) and how often.
    pub stage_changes: Vec<((u8, u8, u8, Trigger), u64)>,
    /// Ways out of stages that are no longer defined, and how often.
    pub gone_stages: Vec<(FromGone, u64)>,
    /// (policy, control) and how often.
    pub alerts: Vec<((u8, bool), u64)>,
    /// Scores computed, by twentieths; a score on a bound belongs below it.
    pub scores: [u32; 20],
    pub score_sum: f64,
    /// By how much the challenger's probability was above the champion's, under each of [`DIFFERENCES`] but not
    /// under the one before.
    pub differences: [u32; DIFFERENCES.len() + 1],
    pub difference_sum: f64,
}

/// Upper bounds of differences between two models' probabilities.
pub const DIFFERENCES: [f64; 13] =
    [-0.5, -0.2, -0.1, -0.05, -0.02, -0.01, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

impl Tally {
    fn score(&mut self, p: f64) {
        let bin = ((p * 20.0).ceil() as usize).saturating_sub(1).min(19);
        self.scores[bin] += 1;
        self.score_sum += p;
    }

    fn difference(&mut self, difference: f64) {
        self.differences[DIFFERENCES.partition_point(|bound| *bound < difference)] += 1;
        self.difference_sum += difference;
    }

    pub fn clear(&mut self) {
        *self = Tally::default();
    }
}

pub(super) fn count<K: PartialEq>(counts: &mut Vec<(K, u64)>, key: K) {
    match counts.iter_mut().find(|(known, _)| *known == key) {
        Some((_, n)) => *n += 1,
        None => counts.push((key, 1)),
    }
}

/// Working memory that every step uses again.
#[derive(Debug)]
pub(super) struct Scratch {
    measures: Measures,
    edits: Vec<Edit>,
    pub(super) features: Vec<f64>,
    pub(super) states: Vec<StageState>,
    entered: Vec<alert::Entered>,
    contributions: Vec<Contribution>,
    /// The challenger's score of the evaluation at hand.
    challenger_p: Option<f64>,
    before: Vec<u32>,
    due: Vec<u32>,
    warm: Vec<u32>,
}

/// One partition's customers and their time.
#[derive(Debug)]
pub struct Engine {
    /// In an `Arc` of its own: every step counts its references up and down, and engines on several threads
    /// would fight over one count.
    #[allow(clippy::redundant_allocation)]
    pub(super) plan: Arc<Arc<Plan>>,
    pub(super) store: Store,
    pub(super) opt_outs: OptOuts,
    pub(super) identities: Identities,
    timers: Timers,
    pub(super) scratch: Scratch,
    pub(super) layouts: Layouts,
    pub(super) reconciling: Reconciling,
    pub(super) unsettled: Unsettled,
    pub outbox: Outbox,
    pub tally: Tally,
    /// How good the scores were whose outcome is known.
    pub quality: Quality,
    /// How customers compare with those that the model learned from.
    pub drift: Drift,
    /// Who moved from stage to stage.
    pub traffic: Traffic,
    /// Customers per lifecycle and stage.
    pub(super) population: Vec<Vec<i64>>,
    stopwatch: Stopwatch,
}

/// When the last event's score was there, by a clock that is lent to the engine.
#[derive(Debug, Default)]
struct Stopwatch {
    clock: Option<fn() -> Tick>,
    scored: Option<Tick>,
}

impl Engine {
    /// `journal`: keep what [`Engine::rollback`] needs.
    pub fn new(plan: Arc<Plan>, journal: bool) -> Self {
        let scratch = Scratch {
            measures: Measures::new(plan.layout.panes.len()),
            edits: Vec::new(),
            features: vec![0.0; plan.layout.features.len()],
            states: plan.scratch_states(),
            entered: Vec::new(),
            contributions: Vec::new(),
            challenger_p: None,
            before: Vec::new(),
            due: Vec::new(),
            warm: Vec::new(),
        };
        Engine {
            store: Store::new(plan.head, plan.new_row.clone(), journal, plan.settings.awake_least),
            opt_outs: OptOuts::default(),
            identities: Identities::default(),
            timers: Timers::default(),
            scratch,
            layouts: Layouts::of(&plan),
            reconciling: Reconciling::default(),
            unsettled: Unsettled::default(),
            outbox: Outbox::default(),
            tally: Tally::default(),
            quality: Quality::default(),
            drift: Drift::default(),
            traffic: Traffic::new(journal),
            population: plan.lifecycles.iter().map(|(l, _)| vec![0; l.stages().len()]).collect(),
            stopwatch: Stopwatch::default(),
            plan: Arc::new(plan),
        }
    }

    /// From now on the engine reads this clock whenever it has scored an event, for [`Engine::take_scored`]. Nothing else
    /// depends on it.
    pub fn time_scores(&mut self, clock: fn() -> Tick) {
        self.stopwatch.clock = Some(clock);
    }

    /// When the score of the event before was there, asked for once. `None` where nothing was scored, or by no clock.
    pub fn take_scored(&mut self) -> Option<Tick> {
        self.stopwatch.scored.take()
    }

    /// Sees to it that the state of these customers is near when their events are applied, a few at a time.
    pub fn warm<'e>(&mut self, customers: impl Iterator<Item = &'e str> + Clone) {
        let mut known = std::mem::take(&mut self.scratch.warm);
        self.store.find_all(customers, &mut known);
        std::hint::black_box(self.store.warm(&known));
        self.scratch.warm = known;
    }

    /// Applies one event. What other customers must be told of it waits in [`Engine::identities`].
    pub fn step(&mut self, event: &Event<'_>) -> Applied {
        self.step_via(event, &[])
    }

    /// The same for an event that came through other ids of its customer.
    pub(super) fn step_via(&mut self, event: &Event<'_>, path: &[Hop]) -> Applied {
        if !path.is_empty() && self.is_erased_on_the_way(event, path) {
            // Whoever is to be merged is erased as well, once what it had is here.
            return if identity::is_merge(event) { self.ask(event) } else { Applied::OptedOut };
        }
        let known = self.store.find(&event.customer_id);
        if let Some(index) = known {
            self.store.wake(index);
        }
        if known.is_none() && self.follows(event, path) {
            return Applied::Moved;
        }
        if known.is_none() && self.is_opted_out(event) {
            return Applied::OptedOut;
        }
        let remembered = event.event_id.as_ref().filter(|_| self.plan.settings.dedupe_ms > 0);
        let id = remembered.map(|id| xxhash_rust::xxh3::xxh3_64(id.as_bytes()));
        if let (Some(index), Some(id)) = (known, id)
            && self.is_repeated(index, id, event.ts)
        {
            return Applied::Duplicate;
        }
        if erasure::is_erasure(event) {
            return self.erase(known, event);
        }
        if identity::is_merge(event) {
            return self.ask(event);
        }
        let applied = self.take_in(known, event, id);
        self.ask_by_traits(event, known.is_none());
        applied
    }

    /// Folds an event into its customer, who may be new, and evaluates it. `id` is the hash of the event's.
    pub(super) fn take_in(&mut self, known: Option<u32>, event: &Event<'_>, id: Option<u64>) -> Applied {
        // Once for all that follows: counting references costs as much as reading a feature.
        let plan = &*Arc::clone(&self.plan);
        let (index, born) = match known {
            Some(index) => {
                self.store.wake(index);
                (index, false)
            }
            None => self.store.find_or_create(&event.customer_id),
        };
        if born {
            self.be_born(index, event.ts);
        } else {
            self.live_through(plan, index, event.ts - 1);
        }
        self.store.touch(index, born);
        let head = plan.head;
        let last = head.now.get(self.store.row(index));
        let now = event.ts.max(last);
        head.persisted.set(self.store.row_mut(index), now);
        self.take_census(plan, index, now);
        self.remember(index, id, event.ts);
        self.fold(plan, index, event, now);
        if self.evaluate(plan, index, now, Trigger::Event, event.event_id.as_deref()) {
            self.keep_score(plan, index, now);
        }
        self.schedule(plan, index, now);
        if event.ts < last { Applied::Late } else { Applied::InOrder }
    }

    /// Evaluates the instants of silence of all customers up to `limit`, as far as the wheel tells instants apart.
    ///
    /// Stops early once [`OUTBOX_BYTES`] wait to go out, or after [`SILENCE_AT_ONCE`], be it in the midst of one customer's
    /// silence, and returns whether more is to be done: after a long absence everybody may be due at once.
    pub fn tick(&mut self, limit: Ts) -> bool {
        let plan = &*Arc::clone(&self.plan);
        self.opt_outs.expire(limit);
        self.identities.expire(limit);
        let mut named = std::mem::take(&mut self.scratch.due);
        if named.is_empty() && self.timers.is_due(limit) {
            let store = &self.store;
            self.timers.take_due(limit, |i| store.timer(i), &mut named);
            // Taken from the end.
            named.reverse();
        }
        let mut left = SILENCE_AT_ONCE;
        while self.outbox.bytes() < OUTBOX_BYTES {
            let Some(index) = named.pop() else { break };
            if self.store.timer(index) <= limit {
                if !self.live_through_some(plan, index, limit, &mut left) {
                    named.push(index);
                    break;
                }
                self.set_timer(index);
                self.store.rest_at_times();
            }
        }
        self.scratch.due = named;
        !self.scratch.due.is_empty()
    }

    /// Evaluates the instants of silence of all customers up to and including `until`, beginning with the
    /// customer numbered `from`. Stops early as [`Engine::tick`] does, and returns where to go on.
    pub fn run_on(&mut self, until: Ts, from: u32) -> Option<u32> {
        let plan = &*Arc::clone(&self.plan);
        let mut left = SILENCE_AT_ONCE;
        (from..self.store.slots()).find(|index| {
            self.outbox.bytes() >= OUTBOX_BYTES || !self.run_one_on(plan, *index, until, &mut left)
        })
    }

    /// As [`Engine::run_on`], however much comes of it.
    pub fn run_until(&mut self, until: Ts) {
        let plan = &*Arc::clone(&self.plan);
        let mut all = usize::MAX;
        for index in 0..self.store.slots() {
            self.run_one_on(plan, index, until, &mut all);
        }
    }

    fn run_one_on(&mut self, plan: &Plan, index: u32, until: Ts, left: &mut usize) -> bool {
        if self.store.rests_beyond(index, until) {
            return true;
        }
        let is_through = self.live_through_some(plan, index, until, left);
        self.store.rest_at_times();
        is_through
    }

    /// Puts the customer's due instant into the wheel.
    fn set_timer(&mut self, index: u32) {
        if !self.store.wake(index) {
            return;
        }
        let head = self.plan.head;
        let row = self.store.row_mut(index);
        let due = head.due.get(row);
        head.timer.set(row, due);
        if due != Ts::MAX {
            self.timers.insert(due, index);
        }
    }

    fn be_born(&mut self, index: u32, ts: Ts) {
        let plan = Arc::clone(&self.plan);
        let row = self.store.row_mut(index);
        for (k, (lifecycle, slots)) in plan.lifecycles.iter().enumerate() {
            let state = lifecycle.start(ts);
            self.population[k][usize::from(state.stage)] += 1;
            slots.store(row, &state);
        }
    }

    fn is_repeated(&self, index: u32, id: u64, ts: Ts) -> bool {
        let horizon = self.plan.settings.dedupe_ms;
        let newest = self.plan.head.newest.get(self.store.row(index)).max(ts);
        let told = Seen::of(id, ts, newest, horizon);
        let near = |seen: &Seen| newest - seen.ts <= horizon && (told.ts - seen.ts).abs() <= horizon;
        self.store.customer(index).seen.iter().any(|seen| seen.id == told.id && near(seen))
    }

    pub(super) fn remember(&mut self, index: u32, id: Option<u64>, ts: Ts) {
        let (head, horizon) = (self.plan.head, self.plan.settings.dedupe_ms);
        let (row, customer) = self.store.parts_mut(index);
        let newest = head.newest.get(row).max(ts);
        head.newest.set(row, newest);
        let Some(id) = id else { return };
        let seen = &mut customer.seen;
        if seen.len() == seen.capacity() || seen.first().is_some_and(|oldest| newest - oldest.ts > horizon) {
            seen.retain(|seen| newest - seen.ts <= horizon);
        }
        if seen.len() >= SEEN_MOST {
            // What is outside the horizon must not count, or the outcome would depend on when it was dropped.
            seen.retain(|seen| newest - seen.ts <= horizon);
            if seen.len() >= SEEN_MOST {
                seen.drain(..SEEN_MOST / 4);
            }
        }
        seen.push(Seen::of(id, ts, newest, horizon));
    }

    /// Takes the event into windows, lifetime numbers and traits.
    fn fold(&mut self, plan: &Plan, index: u32, event: &Event<'_>, now: Ts) {
        let (row, customer) = self.store.parts_mut(index);
        plan.head.outcomes.note(row, event);
        if let Some(ProfileChange::Traits(changes)) = event.profile.as_deref() {
            merge_traits(customer, changes);
        }
        if let (true, true, Some(channel)) =
            (plan.keeps_channels, event.source != Source::Profile, &event.channel)
        {
            channels::count(&mut customer.channels, channel);
        }
        let mut windows = Windows { layout: &plan.layout, row, log: &mut customer.log };
        if now < plan.head.advanced.get(windows.row) {
            windows.recount(now);
        } else {
            windows.advance(now);
        }
        plan.head.advanced.set(windows.row, now);
        let Scratch { measures, edits, .. } = &mut self.scratch;
        measures.clear();
        edits.clear();
        for touch in plan.layout.touches(event.source, &event.name) {
            apply(*touch, plan, event, now, row, customer, measures, edits);
        }
        if measures.mask != 0 || !edits.is_empty() {
            Windows { layout: &plan.layout, row, log: &mut customer.log }
                .apply(event.ts, now, measures, edits);
        }
    }

    /// Evaluates this customer's instants of silence up to and including `limit`. Whoever is there is awake then.
    pub(super) fn live_through(&mut self, plan: &Plan, index: u32, limit: Ts) {
        let mut all = usize::MAX;
        self.live_through_some(plan, index, limit, &mut all);
    }

    /// The same as long as there are any `left`; whether that was enough. To be asked again goes on where it stopped.
    fn live_through_some(&mut self, plan: &Plan, index: u32, limit: Ts, left: &mut usize) -> bool {
        if !self.store.wake(index) {
            return true;
        }
        loop {
            let due = plan.head.due.get(self.store.row(index));
            if due > limit {
                return true;
            }
            if *left == 0 {
                return false;
            }
            *left -= 1;
            if plan.head.outcomes.matures.get(self.store.row(index)) <= due {
                self.know_outcomes(plan, index, due);
            } else {
                self.fall_silent(plan, index, due);
            }
        }
    }

    /// One candidate instant of silence: evaluates it if a rule's truth flips, a dwell ends or a rescore is due.
    fn fall_silent(&mut self, plan: &Plan, index: u32, at: Ts) {
        let head = plan.head;
        let mut before = std::mem::take(&mut self.scratch.before);
        before.clear();
        before.extend_from_slice(self.store.row(index));
        let (row, customer) = self.store.parts_mut(index);
        Windows { layout: &plan.layout, row, log: &mut customer.log }.advance(at);
        head.advanced.set(row, at);
        let rescore = at >= head.now.get(row).saturating_add(plan.settings.rescore_every_ms);
        let emitted = self.outbox.len();
        let evaluated = rescore || self.is_asked_for(plan, index, at);
        let counted = evaluated && self.take_census(plan, index, at);
        if evaluated && self.evaluate(plan, index, at, Trigger::Silence, None) {
            self.store.touch_after(index, &before);
            self.keep_score(plan, index, at);
        }
        self.schedule_from(plan, index, at);
        let silent_since = at - head.persisted.get(self.store.row(index));
        if counted || self.outbox.len() > emitted || silent_since > PERSIST_SILENCE_MS {
            self.store.touch_after(index, &before);
            head.persisted.set(self.store.row_mut(index), at);
        }
        self.scratch.before = before;
    }

    /// The horizon of kept scores ends: tells what became of them. Nothing else happens at such an instant; a
    /// rule or a rescore that waits for the same one has it after.
    fn know_outcomes(&mut self, plan: &Plan, index: u32, at: Ts) {
        self.store.touch(index, false);
        let (row, customer) = self.store.parts_mut(index);
        let mut kept = std::mem::take(&mut customer.kept);
        outcomes::mature(&plan.head.outcomes, row, &mut kept, at, |row, outcome| {
            let number = next_number(plan, row);
            let id = &customer.id;
            self.quality.add(at, outcome);
            self.outbox.push(Channel::ChurnOutcomes, id, at, number, |out| emit::outcome(out, id, outcome));
        });
        customer.kept = kept;
        let next = plan.head.outcomes.matures.get(row);
        plan.head.due.set(row, plan.head.asked.get(row).min(next));
    }

    /// Keeps the score that was emitted just now until its outcome is known.
    pub(super) fn keep_score(&mut self, plan: &Plan, index: u32, now: Ts) {
        let (row, customer) = self.store.parts_mut(index);
        let scores = (plan.head.p.get(row), self.scratch.challenger_p);
        outcomes::keep(plan, row, &mut customer.kept, &customer.id, now, scores);
    }

    /// Counts the customer at the census's instants up to `now`, before an evaluation there takes its last
    /// evaluated instant past them. Returns whether it was counted: its state then goes out with the count.
    fn take_census(&mut self, plan: &Plan, index: u32, now: Ts) -> bool {
        let head = plan.head;
        let last = head.now.get(self.store.row(index));
        if plan.watch.is_none() || last == NEVER || !drift::spans_an_hour(last, now) {
            return false;
        }
        let (row, customer) = self.store.parts_mut(index);
        let Some(watch) = &plan.watch else { return false };
        if consent::is_refused(&plan.settings.privacy, customer.traits.as_deref()) {
            return false;
        }
        let features = &mut self.scratch.features;
        let mut counted = false;
        for at in drift::instants(&customer.id, last, now) {
            if !head.outcomes.is_example(row, &plan.judging, at) {
                continue;
            }
            let mut windows = Windows { layout: &plan.layout, row, log: &mut customer.log };
            if at < head.advanced.get(windows.row) {
                windows.recount(at)
            } else {
                windows.advance(at)
            }
            head.advanced.set(row, at);
            features::read_into(&plan.layout, row, at, plan.settings.margin, &watch.ids, features);
            self.drift.count(watch, at, features, plan.scorer.p(plan.scorer.logit(features)));
            counted = true;
        }
        if counted {
            Windows { layout: &plan.layout, row, log: &mut customer.log }.advance(now);
            head.advanced.set(row, now);
        }
        counted
    }

    /// Whether a lifecycle asks for this instant.
    fn is_asked_for(&mut self, plan: &Plan, index: u32, at: Ts) -> bool {
        let (row, customer) = self.store.parts_mut(index);
        let Scratch { features, states, .. } = &mut self.scratch;
        features::read_into(&plan.layout, row, at, plan.settings.margin, &plan.needed, features);
        let mut room = Traits::new();
        let traits = with_main_channel(plan, customer, &mut room);
        let facts = Facts { features, p_churn: plan.head.p.get(row), stage_days: 0.0, traits };
        plan.lifecycles.iter().zip(states).any(|((lifecycle, slots), state)| {
            slots.load(row, state);
            lifecycle.is_due(lifecycle.variant(traits), state, at, &facts)
        })
    }

    /// Scores the customer as of `now`, settles its lifecycles and emits what is due. The windows are at `now`.
    /// Returns whether the score was emitted.
    pub(super) fn evaluate(
        &mut self,
        plan: &Plan,
        index: u32,
        now: Ts,
        trigger: Trigger,
        event_id: Option<&str>,
    ) -> bool {
        let head = plan.head;
        let (row, customer) = self.store.parts_mut(index);
        let Scratch { features, states, entered, contributions, challenger_p, .. } = &mut self.scratch;
        features::read_into(&plan.layout, row, now, plan.settings.margin, &plan.needed, features);
        let p = plan.p_churn(features, customer.traits.as_deref());
        let refused = p.is_nan();
        if !refused {
            self.tally.score(p);
            if trigger == Trigger::Event {
                self.stopwatch.scored = self.stopwatch.clock.map(|now| now());
            }
        }
        let shadow = plan.challenger.as_ref().filter(|_| !refused);
        *challenger_p = shadow.map(|challenger| challenger.p(features));
        if let Some(challenger_p) = challenger_p {
            self.tally.difference(*challenger_p - p);
        }
        let previous = head.p.get(row);
        head.now.set(row, now);
        head.p.set(row, p);

        let mut room = Traits::new();
        let traits = with_main_channel(plan, customer, &mut room);
        entered.clear();
        for (k, ((lifecycle, slots), state)) in plan.lifecycles.iter().zip(states.iter_mut()).enumerate() {
            slots.load(row, state);
            let mut facts = Facts { features, p_churn: p, stage_days: 0.0, traits };
            let mut silent_moves = state.silent_moves;
            lifecycle.settle(lifecycle.variant(traits), state, now, &mut facts, |moved| {
                self.population[k][usize::from(moved.from)] -= 1;
                self.population[k][usize::from(moved.to)] += 1;
                entered.push((k as u8, moved.to));
                silent_moves = silent_moves.saturating_add(1);
                count(&mut self.tally.stage_changes, (k as u8, moved.from, moved.to, trigger));
                self.traffic.count(&passage(lifecycle, &moved, &worth::segment_of(traits), now));
                let change = StageChange {
                    customer_id: &customer.id,
                    lifecycle: k,
                    gone: None,
                    moved: &moved,
                    ts: now,
                    trigger,
                    event_id,
                    features,
                    p_churn: p,
                };
                push_change(&mut self.outbox, plan, row, &change);
            });
            state.silent_moves = if trigger == Trigger::Silence { silent_moves } else { 0 };
            slots.store(row, state);
        }

        let emitted_p = head.emitted_p.get(row);
        if refused {
            // The last score was given in trust: nobody is to act upon it any more.
            if !emitted_p.is_nan() {
                head.emitted_p.set(row, f64::NAN);
                self.outbox.push_tombstone(Channel::ChurnScores, &customer.id, now);
            }
            return false;
        }
        let moved = (p - emitted_p).abs() >= plan.settings.min_change;
        let due = emitted_p.is_nan() || moved || emit::band(plan, p) != emit::band(plan, emitted_p);
        // Read where a policy asks for it.
        let worth = plan.clv_to_date.map_or(0.0, |id| features[id.index()]);
        let fired = fired_policies(plan, row, traits, now, p, worth, entered);
        if !due && fired == 0 {
            return false;
        }
        plan.scorer.contributions(features, contributions);
        let clv_to_date = plan.clv_to_date.map(|id| {
            features::read_into(&plan.layout, row, now, plan.settings.margin, &[id], features);
            features[id.index()]
        });
        let value = plan.valuer.as_ref().map_or_else(Value::default, |valuer| {
            let margin = plan.settings.margin;
            features::read_into(&plan.layout, row, now, margin, &valuer.features(), features);
            valuer.value(features, margin)
        });
        if due {
            head.emitted_p.set(row, p);
            let number = next_number(plan, row);
            let scored = Scored {
                customer_id: &customer.id,
                ts: now,
                p_churn: p,
                row,
                contributions,
                clv_to_date,
                value,
            };
            self.outbox
                .push(Channel::ChurnScores, &customer.id, now, number, |out| emit::score(out, plan, &scored));
        }
        for k in (0..plan.policies.len()).filter(|k| fired >> k & 1 == 1) {
            let policy = &plan.settings.policies[k];
            let control = alert::is_control(policy, &customer.id);
            count(&mut self.tally.alerts, (k as u8, control));
            let number = next_number(plan, row);
            let scored = Scored {
                customer_id: &customer.id,
                ts: now,
                p_churn: p,
                row,
                contributions,
                clv_to_date,
                value,
            };
            let (kind, counterfactual) = match policy.on {
                PolicyOn::Score { raise, .. } => {
                    ("churn_risk", plan.scorer.counterfactual(features, raise, &plan.actionable))
                }
                PolicyOn::Stage { .. } => ("stage", None),
            };
            let alert = emit::Alert {
                scored: &scored,
                alert_id: alert::alert_id(policy, &customer.id, now),
                kind,
                previous: (!previous.is_nan()).then_some(previous),
                counterfactual,
                action: alert::action(plan, policy, row, traits, entered),
                control,
                policy: &policy.name,
            };
            self.outbox
                .push(Channel::ChurnAlerts, &customer.id, now, number, |out| emit::alert(out, plan, &alert));
        }
        due
    }

    /// Notes when silence will matter next, after an evaluation at `now`, and sees to it that a timer fires.
    pub(super) fn schedule(&mut self, plan: &Plan, index: u32, now: Ts) {
        self.schedule_from(plan, index, now);
        let (head, row) = (plan.head, self.store.row(index));
        // A timer that stands earlier is moved on when it comes up, so that most events leave the wheel alone.
        if head.due.get(row) < head.timer.get(row) {
            self.set_timer(index);
        }
    }

    /// Computes the next candidate instant after `from`; the features in the working memory are as of `from`.
    fn schedule_from(&mut self, plan: &Plan, index: u32, from: Ts) {
        let head = plan.head;
        let (row, customer) = self.store.parts_mut(index);
        let Scratch { features, states, .. } = &mut self.scratch;
        let mut room = Traits::new();
        let traits = with_main_channel(plan, customer, &mut room);
        let facts = Facts { features, p_churn: head.p.get(row), stage_days: 0.0, traits };
        let mut due = head.now.get(row).saturating_add(plan.settings.rescore_every_ms);
        for ((lifecycle, slots), state) in plan.lifecycles.iter().zip(states) {
            slots.load(row, state);
            let silence = Silence { layout: &plan.layout, row, log: &customer.log };
            let next = lifecycle.next_candidate(lifecycle.variant(traits), state, from, &facts, &silence);
            due = due.min(next.unwrap_or(Ts::MAX));
        }
        head.asked.set(row, due);
        head.due.set(row, due.min(head.outcomes.matures.get(row)));
    }

    /// The transaction is committed: its outputs are out.
    pub fn commit(&mut self) {
        self.store.commit();
        self.reconciling.commit();
        self.opt_outs.commit();
        self.identities.commit();
        self.quality.commit();
        self.drift.commit();
        self.traffic.commit();
        self.outbox.clear();
    }

    /// Takes everything since the last commit back.
    pub fn rollback(&mut self) {
        let plan = Arc::clone(&self.plan);
        for index in self.store.erased() {
            for (k, (_, slots)) in plan.lifecycles.iter().enumerate() {
                self.population[k][slots.stage.get(self.store.row(*index)) as usize] += 1;
            }
        }
        self.opt_outs.rollback();
        self.identities.rollback();
        let (population, mut restored) = (&mut self.population, Vec::new());
        self.store.rollback(|index, row, before| {
            for (k, (_, slots)) in plan.lifecycles.iter().enumerate() {
                population[k][slots.stage.get(row) as usize] -= 1;
                if let Some(before) = before {
                    population[k][slots.stage.get(before) as usize] += 1;
                }
            }
            if before.is_some() {
                restored.push(index);
            }
        });
        restored.into_iter().for_each(|index| self.set_timer(index));
        self.reconciling.rollback();
        self.quality.rollback();
        self.drift.rollback();
        self.traffic.rollback();
        self.outbox.clear();
        self.tally.clear();
    }

    /// Goes on with another model. Everything else of the plan must be as it was: rows are laid out by it.
    pub fn set_plan(&mut self, plan: Arc<Plan>) {
        let is_same = plan.layout_id == self.plan.layout_id && plan.new_row == self.plan.new_row;
        debug_assert!(is_same, "only the model may change");
        if is_same {
            self.plan = Arc::new(plan);
        }
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Customers per lifecycle and stage.
    pub fn population(&self) -> &[Vec<i64>] {
        &self.population
    }

    /// Says that this is the engine of one of so many partitions, which share what may stay awake.
    pub fn share_room(&mut self, partitions: usize) {
        self.store.set_awake_least(self.plan.settings.awake_least / partitions.max(1));
    }

    /// Bytes of state, with timers and what a transaction needs.
    pub fn bytes(&self) -> usize {
        let customers = self.store.bytes() + self.timers.bytes();
        let customers = customers + self.unsettled.bytes();
        let others = self.opt_out_bytes() + self.identities.bytes() + self.traffic.moves().bytes();
        customers + others + self.store.undo_capacity_bytes() + self.outbox.capacity_bytes()
    }

    /// The first half of taking a customer in that was decoded: the state as `fill` writes all of it. Replaces the
    /// customer if it is there already.
    pub(super) fn adopt(&mut self, id: &str, fill: impl FnOnce(&mut [u32], &mut Customer)) -> u32 {
        let plan = Arc::clone(&self.plan);
        let (index, born) = self.store.find_or_create(id);
        if !born {
            self.count_out(index);
        }
        let (row, customer) = self.store.parts_mut(index);
        // Its timer stands in the wheel, and is moved on when it comes up.
        let timer = plan.head.timer.get(row);
        fill(row, customer);
        plan.head.timer.set(row, timer);
        for (k, (_, slots)) in plan.lifecycles.iter().enumerate() {
            self.population[k][slots.stage.get(row) as usize] += 1;
        }
        index
    }

    /// Drops a customer's state.
    pub(super) fn forget(&mut self, index: u32) {
        self.store.wake(index);
        self.count_out(index);
        self.store.remove(index);
    }

    /// A customer is no longer one of those in its stages.
    pub(super) fn count_out(&mut self, index: u32) {
        for (k, (_, slots)) in self.plan.lifecycles.iter().enumerate() {
            self.population[k][slots.stage.get(self.store.row(index)) as usize] -= 1;
        }
    }

    /// The second half, once its newest state is there: counts windows, truths and the next instant anew, which gives bit
    /// for bit what they were.
    pub(super) fn settle_in(&mut self, index: u32) {
        let plan = Arc::clone(&self.plan);
        let head = plan.head;
        self.store.wake(index);
        let (row, customer) = self.store.parts_mut(index);
        let now = head.now.get(row);
        Windows { layout: &plan.layout, row, log: &mut customer.log }.recount(now);
        head.advanced.set(row, now);
        head.persisted.set(row, now);
        let Scratch { features, states, .. } = &mut self.scratch;
        features::read_into(&plan.layout, row, now, plan.settings.margin, &plan.needed, features);
        let mut room = Traits::new();
        let traits = with_main_channel(&plan, customer, &mut room);
        let facts = Facts { features, p_churn: head.p.get(row), stage_days: 0.0, traits };
        for ((lifecycle, slots), state) in plan.lifecycles.iter().zip(states) {
            slots.load(row, state);
            state.truths = lifecycle.truths(lifecycle.variant(traits), state, now, &facts);
            slots.store(row, state);
        }
        self.schedule(&plan, index, now);
    }

    /// Everything a person may ask about one customer, as of `at` (at least its last evaluated instant).
    ///
    /// Looks without touching: windows are advanced on a copy.
    pub fn view(&self, index: u32, at: Ts) -> View {
        let plan = &self.plan;
        let look = self.store.look(index);
        let (mut row, customer) = (look.row.into_owned(), look.customer);
        let mut log = customer.log.clone();
        let at = at.max(plan.head.now.get(&row));
        let mut windows = Windows { layout: &plan.layout, row: &mut row, log: &mut log };
        if at < plan.head.advanced.get(windows.row) {
            windows.recount(at)
        } else {
            windows.advance(at)
        }
        let mut features = vec![0.0; plan.layout.features.len()];
        features::read_into(&plan.layout, &row, at, plan.settings.margin, &plan.all, &mut features);
        let p_churn = plan.p_churn(&features, customer.traits.as_deref());
        View { at, row, features, p_churn }
    }
}

/// A customer as of an instant; see [`Engine::view`].
#[derive(Clone, Debug)]
pub struct View {
    pub at: Ts,
    pub row: Vec<u32>,
    /// By feature id.
    pub features: Vec<f64>,
    /// NaN where the customer refuses to be scored.
    pub p_churn: f64,
}

/// What is counted of a move.
pub(super) fn passage<'a>(
    lifecycle: &'a Lifecycle,
    moved: &Move<'_>,
    segment: &'a str,
    at: Ts,
) -> Passage<'a> {
    let name = |stage: u8| lifecycle.stages().get(usize::from(stage)).map_or("", |stage| &*stage.name);
    let place = Place { lifecycle: &lifecycle.name, segment, from: name(moved.from) };
    Passage { place, to: name(moved.to), returned: moved.returned, stage_days: moved.stage_days, at }
}

/// Numbers a stage change, the customer's next, and lets it go out.
pub(super) fn push_change(outbox: &mut Outbox, plan: &Plan, row: &mut [u32], change: &StageChange<'_>) {
    let sequence = plan.head.sequence.get(row) + 1;
    plan.head.sequence.set(row, sequence);
    let number = next_number(plan, row);
    outbox.push(Channel::StageChanges, change.customer_id, change.ts, number, |out| {
        emit::stage_change(out, plan, sequence, change);
    });
}

pub(super) fn next_number(plan: &Plan, row: &mut [u32]) -> u32 {
    let number = plan.head.emitted.get(row).wrapping_add(1);
    plan.head.emitted.set(row, number);
    number
}

/// The policies that fire, as bits.
fn fired_policies(
    plan: &Plan,
    row: &mut [u32],
    traits: &Traits,
    now: Ts,
    p: f64,
    clv_to_date: f64,
    entered: &[alert::Entered],
) -> u64 {
    let mut fired = 0u64;
    for (k, (policy, slots)) in plan.settings.policies.iter().zip(&plan.policies).enumerate() {
        alert::arm(policy, slots, row, p);
        if alert::concerns(policy, traits, clv_to_date)
            && alert::fires(plan, policy, slots, row, now, p, entered)
        {
            fired |= 1 << k;
        }
    }
    fired
}

/// Sets and removes traits; one for which there is no room is not taken.
fn merge_traits(customer: &mut Customer, changes: &[(Box<str>, Option<TraitValue>)]) {
    let traits = customer.traits.get_or_insert_with(Box::default);
    let mut bytes: usize = traits.iter().map(|(name, value)| bytes_of(name, value)).sum();
    for (name, value) in changes {
        if let Some(replaced) = traits.remove(name) {
            bytes -= bytes_of(name, &replaced);
        }
        if let Some(value) = value
            && bytes + bytes_of(name, value) <= TRAITS_BYTES_MOST
        {
            bytes += bytes_of(name, value);
            traits.insert(name.clone(), value.clone());
        }
    }
    if traits.is_empty() {
        customer.traits = None;
    }
}

/// What a trait takes of [`TRAITS_BYTES_MOST`].
pub(super) fn bytes_of(name: &str, value: &TraitValue) -> usize {
    name.len() + if let TraitValue::Text(text) = value { text.len() } else { size_of::<f64>() }
}

#[allow(clippy::too_many_arguments)]
fn apply(
    touch: Touch,
    plan: &Plan,
    event: &Event<'_>,
    now: Ts,
    row: &mut [u32],
    customer: &mut Customer,
    measures: &mut Measures,
    edits: &mut Vec<Edit>,
) {
    let number = |field| event.numbers.get(field);
    let combine = |pane: u8| plan.layout.panes[usize::from(pane)].combine;
    match touch {
        Touch::Order(index) => count_order(plan, index, event, row, customer),
        Touch::ActiveDay(active) => active.note(row, event.ts),
        Touch::Pane(pane) => measures.combine(pane, combine(pane), 1),
        Touch::PaneField(pane, field) => {
            if let Some(value) = number(field) {
                measures.combine(pane, combine(pane), value);
            }
        }
        Touch::PanePresence(pane, field) => {
            if number(field).is_some() {
                measures.combine(pane, combine(pane), 1);
            }
        }
        Touch::Count(slot) => slot.add(row, 1),
        Touch::CountPresence(slot, field) => {
            if number(field).is_some() {
                slot.add(row, 1);
            }
        }
        Touch::Sum(slot, field) => {
            if let Some(value) = number(field) {
                slot.add(row, value);
            }
        }
        Touch::Min(slot, field) => {
            if let Some(value) = number(field) {
                slot.set(row, slot.get(row).min(value));
            }
        }
        Touch::Max(slot, field) => {
            if let Some(value) = number(field) {
                slot.set(row, slot.get(row).max(value));
            }
        }
        Touch::First(slot) => {
            let first = slot.get(row);
            if first == NEVER || event.ts < first {
                slot.set(row, event.ts);
            }
        }
        Touch::Last(slot) => slot.set(row, slot.get(row).max(event.ts)),
        Touch::LastValue(value, field) => {
            // Of two at one instant the larger, so that the order of arrival does not show.
            if let Some(micros) = number(field)
                && (event.ts, micros) >= (value.ts.get(row), value.micros.get(row))
            {
                value.ts.set(row, event.ts);
                value.micros.set(row, micros);
            }
        }
        Touch::Net(slot, delta) => slot.add(row, i64::from(delta)),
        Touch::Session => {
            if let Some(slots) = &plan.layout.sessions {
                sessions::click(slots, row, &mut customer.sessions, event.ts, now, edits);
            }
        }
    }
}

/// Distinct order days and the revenue of the first.
fn count_order(plan: &Plan, index: u8, event: &Event<'_>, row: &mut [u32], customer: &mut Customer) {
    let orders = &plan.layout.orders[usize::from(index)];
    let amount = event.numbers.get(crate::event::Field::Amount).unwrap_or(0);
    let day = |ts: Ts| ts.div_euclid(DAY_MS);
    let (first, last, today) = (orders.first.get(row), orders.last.get(row), day(event.ts));
    if first == NEVER || today < day(first) {
        if first != NEVER && day(first) != day(last) {
            customer.order_days.insert(index, day(first));
        }
        orders.days.add(row, 1);
        orders.first_day.set(row, amount);
    } else if today == day(first) {
        orders.first_day.add(row, amount);
    } else if today > day(last) {
        if day(first) != day(last) {
            customer.order_days.insert(index, day(last));
        }
        orders.days.add(row, 1);
    } else if today != day(last) && customer.order_days.insert(index, today) {
        orders.days.add(row, 1);
    }
}
