//! Customers of several ids, against the engine itself: nobody is lost, nobody is there twice, and two who become
//! one have the features of a customer who had made all their events; whatever is stopped, restored, taken back,
//! or spread over partitions that are read at different speeds.

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use stagecast::event::decoder::{Decoder, Format};
use stagecast::event::money::Money;
use stagecast::event::native::{Envelope, decode};
use stagecast::event::{Origin, ProfileChange, Source};
use stagecast::pipeline::engine::{Applied, Engine};
use stagecast::pipeline::identity::{MAX_HOPS, Message, Refused};
use stagecast::pipeline::lifecycle::preset;
use stagecast::pipeline::outbox::Channel;
use stagecast::pipeline::plan::{Identity, Plan, Privacy, Settings};
use stagecast::time::{DAY_MS, HOUR_MS, MINUTE_MS, Ts, format_rfc3339};
use support::{Driver, Out, plan};

const START: Ts = 1_767_225_600_000;
const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];
/// How an event says that another id is its customer's, up to the id.
const FROM_ID: &str = r#","from_id":""#;
const OTHER_ID: &str = r#","traits":{"other_id":""#;

fn tries(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(cases);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn a_plan() -> Arc<Plan> {
    a_plan_with(3 * DAY_MS)
}

fn a_plan_with(opt_out_ms: i64) -> Arc<Plan> {
    let lifecycles = ["retention", "matrix"].map(|name| preset(name).expect("a preset").to_owned());
    let privacy = Privacy { opt_out_ms, ..Privacy::default() };
    plan(&lifecycles, Settings { privacy, identity: by_traits(), ..Settings::default() })
}

fn by_traits() -> Identity {
    Identity { traits: vec!["other_id".into()], ..Identity::default() }
}

/// One record of a history.
#[derive(Clone, Debug)]
struct Step {
    ts: Ts,
    customer: &'static str,
    source: Source,
    kind: &'static str,
    more: String,
    number: usize,
}

impl Step {
    fn json_of(&self, customer: &str) -> String {
        let Step { kind, more, number, .. } = self;
        let ts = format_rfc3339(self.ts);
        let ts = ts.as_str();
        format!(r#"{{"customer_id":"{customer}","type":"{kind}","ts":"{ts}","event_id":"e{number}"{more}}}"#)
    }

    fn merged(&self) -> Option<&'static str> {
        let told = self.more.strip_prefix(FROM_ID).or_else(|| self.more.strip_prefix(OTHER_ID))?;
        IDS.into_iter().find(|id| told.starts_with(*id))
    }

    /// The same without the merge: `None` where nothing else is in it.
    fn without_merge(&self) -> Option<Step> {
        let merged = self.merged().is_some();
        let rest = Step { more: if merged { String::new() } else { self.more.clone() }, ..self.clone() };
        (self.kind != "customers_merged").then_some(rest)
    }
}

fn activity() -> impl Strategy<Value = (Source, &'static str, String)> {
    let amounts = select(vec![5, 25, 80]).prop_map(|amount| format!(r#","amount":{amount},"channel":"app""#));
    let moods = select(vec![-1, 0, 1]).prop_map(|mood| format!(r#","sentiment":{mood}"#));
    prop_oneof![
        4 => Just((Source::Clickstream, "product_viewed", String::new())),
        2 => Just((Source::Clickstream, "product_added", r#","channel":"web""#.to_owned())),
        4 => amounts.clone().prop_map(|more| (Source::Purchase, "order_completed", more)),
        1 => amounts.prop_map(|more| (Source::Purchase, "order_refunded", more)),
        1 => moods.clone().prop_map(|more| (Source::Support, "ticket_opened", more)),
        1 => moods.prop_map(|more| (Source::Support, "ticket_solved", more)),
    ]
}

/// What else a history may tell of.
#[derive(Clone, Copy, Default)]
struct Told {
    erasures: bool,
    /// Merges by a trait, as well as by records of their own.
    traits: bool,
}

/// A gap, how late, whom it is about, and what happens: a merge where nothing else does.
type Drawn = (i64, i64, (&'static str, &'static str), Option<(Source, &'static str, String)>);

/// Histories of five ids, some of which turn out to be one customer's.
fn histories(told: Told) -> impl Strategy<Value = Vec<Step>> {
    let gap = select(vec![0, MINUTE_MS, 20 * MINUTE_MS, 5 * HOUR_MS, DAY_MS, 4 * DAY_MS, 30 * DAY_MS]);
    let merge = (select(IDS.to_vec()), select(IDS.to_vec()));
    let what = prop_oneof![
        12 => activity().prop_map(Some),
        3 => Just(None),
        if told.erasures { 1 } else { 0 } => Just(Some((Source::Profile, "customer_deleted", String::new()))),
    ];
    let step = (gap, 0..=4 * HOUR_MS, merge, what);
    vec(step, 1..60).prop_map(move |steps| {
        let mut clock = START;
        let at = |(number, (gap, late, (customer, from), what)): (usize, Drawn)| {
            clock += gap;
            let merge = || match told.traits && late % 2 == 0 {
                true => (Source::Profile, "traits_updated", format!("{OTHER_ID}{from}\"}}")),
                false => (Source::Profile, "customers_merged", format!("{FROM_ID}{from}\"")),
            };
            let (source, kind, more) = what.unwrap_or_else(merge);
            let step = Step { ts: clock, customer, source, kind, more, number };
            // Merges come in time: a late one is the same to both, but not to the order of merges.
            if step.merged().is_some() { step } else { Step { ts: clock - late, ..step } }
        };
        let is_one = |step: &Step| step.merged() == Some(step.customer);
        steps.into_iter().enumerate().map(at).filter(|step| !is_one(step)).collect()
    })
}

/// Longer than any event is late.
const GRACE_MS: i64 = 6 * HOUR_MS;

fn apply(driver: &mut Driver, step: &Step, customer: &str) -> Applied {
    let applied = driver.apply(step.source, step.json_of(customer).as_bytes());
    driver.engine.tick(step.ts - GRACE_MS);
    assert_eq!(driver.engine.population(), driver.recount(), "the population is what is there");
    applied
}

/// The features of a customer as of an instant.
fn features(engine: &Engine, id: &str, at: Ts) -> Option<Vec<(String, f64)>> {
    let view = engine.view(engine.store().find(id)?, at);
    let names = engine.plan().layout.features.iter().map(|feature| feature.name.clone());
    Some(names.zip(view.features).collect())
}

fn end(steps: &[Step]) -> Ts {
    steps.iter().map(|s| s.ts).max().unwrap_or(START) + HOUR_MS
}

/// Who is whom in the end, by the merges that can be, in order.
fn ends_as(steps: &[Step]) -> BTreeMap<&'static str, &'static str> {
    let mut is: BTreeMap<&str, &str> = IDS.iter().map(|id| (*id, *id)).collect();
    for step in steps {
        let Some(from) = step.merged() else { continue };
        let root = is[step.customer];
        // Who was merged before cannot be merged again, nor into who was merged into it.
        if is[from] == from && root != from {
            is.values_mut().filter(|now| **now == from).for_each(|now| *now = root);
        }
    }
    is
}

/// What the state topic of a partition holds.
#[derive(Clone, Default)]
struct Log {
    states: BTreeMap<String, Vec<u8>>,
    others: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Log {
    /// What the worker sends with a commit.
    fn write(&mut self, engine: &Engine) {
        let store = engine.store();
        for index in store.dirty() {
            let id = store.id(*index).to_string();
            self.states.remove(&id);
            if !store.is_erased(*index) {
                let mut bytes = Vec::new();
                engine.encode(*index, &mut bytes);
                self.states.insert(id, bytes);
            }
        }
        let opt_outs = engine.opt_outs().changes().into_iter().map(|(hash, opt_out)| {
            (stagecast::pipeline::erasure::OptOut::key(hash), opt_out.map(|opt_out| opt_out.encode()))
        });
        for (key, value) in engine.identities().changes().into_iter().chain(opt_outs) {
            self.others.remove(&key);
            if let Some(value) = value {
                self.others.insert(key, value);
            }
        }
    }

    fn restored(&self, plan: &Arc<Plan>) -> Engine {
        let mut engine = Engine::new(Arc::clone(plan), true);
        for (key, value) in &self.others {
            if !engine.restore_identity(key, Some(value)).expect("what was written") {
                let hash = stagecast::pipeline::erasure::OptOut::of_key(key).expect("a key of ours");
                engine.restore_opt_out(hash, Some(value)).expect("what was written");
            }
        }
        for (id, bytes) in &self.states {
            engine.restore(id, bytes).expect("what was written");
        }
        engine.finish_restore();
        engine
    }
}

fn by_customer(outputs: Vec<Out>) -> BTreeMap<String, Vec<Out>> {
    let mut all: BTreeMap<String, Vec<Out>> = BTreeMap::new();
    outputs.into_iter().for_each(|out| all.entry(out.key.clone()).or_default().push(out));
    all
}

proptest! {
    #![proptest_config(tries(48))]

    #[test]
    fn merged_customers_have_the_features_of_one_who_did_everything(
        steps in histories(Told { traits: true, ..Told::default() }),
    ) {
        let plan = a_plan();
        let (mut merged, mut one) = (Driver::new(&plan), Driver::new(&plan));
        let is = ends_as(&steps);
        let (mut changes, mut known) = (Vec::new(), BTreeSet::new());
        for step in &steps {
            apply(&mut merged, step, step.customer);
            changes.extend(merged.commit());
            known.insert(is[step.customer]);
            // A merge that cannot be leaves no trace; one that can brings nothing of its own.
            if let Some(step) = step.without_merge() {
                apply(&mut one, &step, is[step.customer]);
                one.commit();
            }
        }
        let at = end(&steps);
        let alive: BTreeSet<&str> = merged.states().into_keys().map(|id| is[id.as_str()]).collect();
        for id in IDS {
            let (got, expected) = (features(&merged.engine, id, at), features(&one.engine, id, at));
            if let Some(expected) = expected {
                prop_assert_eq!(got, Some(expected), "{} of {:?}", id, is);
            }
            prop_assert!(is[id] == id || merged.engine.store().find(id).is_none(), "{} is there twice", id);
        }
        prop_assert_eq!(alive.len(), merged.engine.store().len());
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for out in changes.iter().filter(|out| out.channel == Channel::StageChanges) {
            let n = counts.entry(out.key.clone()).or_default();
            *n += 1;
            prop_assert_eq!(out.json()["sequence"].as_u64(), Some(*n), "without gaps");
        }
    }

    #[test]
    fn merges_survive_restarts_and_rollbacks_anywhere(
        steps in histories(Told { erasures: true, traits: true }),
        stops in vec(any::<Index>(), 0..4),
        spans in vec((any::<Index>(), 1..10usize), 0..4),
    ) {
        let plan = a_plan();
        let (mut straight, mut broken) = (Driver::new(&plan), Driver::new(&plan));
        let (mut written, mut rewritten, mut log) = (Vec::new(), Vec::new(), Log::default());
        let stops: Vec<usize> = stops.iter().map(|i| i.index(steps.len().max(1))).collect();
        let spans: BTreeMap<usize, usize> =
            spans.iter().map(|(i, n)| (i.index(steps.len().max(1)), *n)).collect();
        for (i, step) in steps.iter().enumerate() {
            if let Some(span) = spans.get(&i) {
                log.write(&broken.engine);
                rewritten.extend(broken.commit());
                let there = |driver: &Driver| {
                    let ids: Vec<String> = driver.states().into_keys().collect();
                    let engine = &driver.engine;
                    let whom = IDS.map(|id| {
                        let aliases = engine.identities().aliases(id).to_vec();
                        (engine.identities().target(id).map(str::to_owned), aliases)
                    });
                    (ids, engine.population().to_vec(), engine.opt_outs().len(), whom)
                };
                let before = there(&broken);
                let next = &steps[i..(i + span).min(steps.len())];
                next.iter().for_each(|step| { apply(&mut broken, step, step.customer); });
                broken.engine.rollback();
                prop_assert_eq!(broken.engine.population(), broken.recount());
                prop_assert_eq!(there(&broken), before);
            }
            prop_assert_eq!(apply(&mut straight, step, step.customer), apply(&mut broken, step, step.customer));
            prop_assert_eq!(
                straight.engine.identities_mut().take_refused(),
                broken.engine.identities_mut().take_refused()
            );
            if stops.contains(&i) {
                log.write(&broken.engine);
                rewritten.extend(broken.commit());
                broken.engine = log.restored(&plan);
                prop_assert_eq!(broken.engine.population(), broken.recount());
            }
            written.extend(straight.commit());
        }
        for driver in [&mut straight, &mut broken] {
            driver.engine.run_until(end(&steps) + 100 * DAY_MS);
        }
        written.extend(straight.commit());
        rewritten.extend(broken.commit());
        prop_assert_eq!(straight.states(), broken.states());
        prop_assert_eq!(by_customer(written), by_customer(rewritten));
    }
}

/// Three partitions that are read at different speeds, each with a state topic of its own, and what passes
/// between them.
struct Partitions {
    plan: Arc<Plan>,
    drivers: Vec<Driver>,
    logs: Vec<Log>,
    inboxes: Vec<VecDeque<Vec<u8>>>,
    events: Vec<VecDeque<Step>>,
    taken: usize,
    written: Vec<Out>,
    refused: Vec<Refused>,
}

impl Partitions {
    const COUNT: usize = 3;

    fn of(id: &str) -> usize {
        usize::from(id.as_bytes()[0]) % Self::COUNT
    }

    fn new(plan: &Arc<Plan>, steps: &[Step]) -> Self {
        let mut events = vec![VecDeque::new(); Self::COUNT];
        steps.iter().for_each(|step| events[Self::of(step.customer)].push_back(step.clone()));
        Partitions {
            plan: Arc::clone(plan),
            drivers: (0..Self::COUNT).map(|_| Driver::new(plan)).collect(),
            logs: vec![Log::default(); Self::COUNT],
            inboxes: vec![VecDeque::new(); Self::COUNT],
            events,
            taken: 0,
            written: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Lets a partition do one thing in a transaction: take in what another says, or an event of its own; may
    /// take it back first, and may be restarted after.
    fn advance(&mut self, partition: usize, listens: bool, fails: bool, restarts: bool) {
        let driver = &mut self.drivers[partition];
        let engine = &mut driver.engine;
        let message = if listens { self.inboxes[partition].pop_front() } else { None };
        let event = if message.is_none() { self.events[partition].pop_front() } else { None };
        for attempt in 0..=usize::from(fails) {
            let mut applied = None;
            if let Some(message) = &message {
                let message = Message::decode(message).expect("a message");
                engine.check_message(&message).expect("a state");
                applied = engine.receive(message).map(|(_, applied)| applied);
            }
            if let Some(event) = &event {
                let json = event.json_of(event.customer);
                let envelope = Envelope { source: event.source, key: None, timestamp: None, latest: None };
                let mut decoded = decode(json.as_bytes(), &envelope, &Money::default()).expect("an event");
                if let Some(ProfileChange::Merged(merge)) = decoded.profile.as_deref_mut() {
                    let offset = event.number as i64;
                    merge.origin = Some(Box::new(Origin { offset, ..Origin::default() }));
                }
                let event = decoded;
                applied = Some(engine.step(&event));
            }
            if attempt < usize::from(fails) {
                engine.rollback();
            } else {
                self.taken += usize::from(matches!(applied, Some(Applied::InOrder | Applied::Late)));
            }
        }
        for message in engine.identities_mut().take_outgoing() {
            self.inboxes[Self::of(&message.to)].push_back(message.encode());
        }
        self.refused.extend(engine.identities_mut().take_refused());
        self.logs[partition].write(engine);
        self.written.extend(driver.commit());
        if restarts {
            driver.engine = self.logs[partition].restored(&self.plan);
        }
        assert_eq!(self.drivers[partition].engine.population(), self.drivers[partition].recount());
    }

    fn run(&mut self, schedule: &[(u8, u8)]) {
        for (who, how) in schedule {
            self.advance(usize::from(*who) % Self::COUNT, how & 1 == 0, how & 6 == 6, how & 24 == 24);
        }
        let is_left = |p: &Partitions, i: usize| !p.inboxes[i].is_empty() || !p.events[i].is_empty();
        let mut steps = 0;
        while let Some(partition) = (0..Self::COUNT).find(|i| is_left(self, *i)) {
            self.advance(partition, true, false, false);
            steps += 1;
            assert!(steps < 100_000, "they talk for ever");
        }
    }

    /// Who an id is in the end, by the redirects of all partitions.
    fn who(&self, id: &str) -> String {
        let mut who = id.to_owned();
        let mut way = vec![who.clone()];
        while let Some(target) = self.drivers[Self::of(&who)].engine.identities().target(&who) {
            who = target.to_owned();
            assert!(!way.contains(&who), "{id} goes round in a circle: {way:?}");
            way.push(who.clone());
        }
        who
    }

    /// The numbers of the merges that were refused; none twice.
    fn refused(&self) -> BTreeSet<usize> {
        let offset = |refused: &Refused| refused.origin.as_ref().map(|origin| origin.offset as usize);
        let refused: Vec<usize> =
            self.refused.iter().map(|refused| offset(refused).expect("a record")).collect();
        let once: BTreeSet<usize> = refused.iter().copied().collect();
        assert_eq!(once.len(), refused.len(), "a merge is refused twice: {refused:?}");
        once
    }

    fn events(&self, id: &str, at: Ts) -> f64 {
        let features = self.features(id, at).into_iter().flatten();
        features.filter(|(name, _)| name == "events_lifetime").map(|(_, n)| n).sum()
    }

    fn features(&self, id: &str, at: Ts) -> Option<Vec<(String, f64)>> {
        features(&self.drivers[Self::of(id)].engine, id, at)
    }
}

proptest! {
    #![proptest_config(tries(48))]

    #[test]
    fn partitions_read_at_any_speed_agree_on_the_features(
        steps in histories(Told { traits: true, ..Told::default() }),
        schedule in vec((any::<u8>(), any::<u8>()), 0..200),
    ) {
        // Each id goes into a later one, once: which merges can be does not depend on what is read first.
        let mut gone = BTreeSet::new();
        let steps: Vec<Step> = steps
            .into_iter()
            .filter(|step| step.merged().is_none_or(|from| from < step.customer && gone.insert(from)))
            .collect();
        // Nobody is forgotten meanwhile: how long an id of an id is followed depends on who of them told it first.
        let identity = Identity { follow_ms: 40_000 * DAY_MS, ..by_traits() };
        let lifecycles = ["retention", "matrix"].map(|name| preset(name).expect("a preset").to_owned());
        let privacy = Privacy { opt_out_ms: 3 * DAY_MS, ..Privacy::default() };
        let plan = plan(&lifecycles, Settings { privacy, identity, ..Settings::default() });
        let mut partitions = Partitions::new(&plan, &steps);
        partitions.run(&schedule);
        let mut alone = Driver::new(&plan);
        for step in &steps {
            apply(&mut alone, step, step.customer);
            alone.commit();
        }
        let at = end(&steps);
        for id in IDS {
            prop_assert_eq!(partitions.features(id, at), features(&alone.engine, id, at), "{}", id);
        }
    }

    #[test]
    fn no_event_is_lost_or_counted_twice_however_merges_contradict_each_other(
        steps in histories(Told::default()),
        schedule in vec((any::<u8>(), any::<u8>()), 0..300),
    ) {
        // Nobody is forgotten meanwhile.
        let identity = Identity { follow_ms: 40_000 * DAY_MS, ..Identity::default() };
        let lifecycles = [preset("retention").expect("a preset").to_owned()];
        let plan = plan(&lifecycles, Settings { identity, ..Settings::default() });
        let mut partitions = Partitions::new(&plan, &steps);
        partitions.run(&schedule);
        let at = end(&steps);
        // Every merge either holds or was refused, once; and nothing but merges that hold makes two ids one.
        let refused = partitions.refused();
        let mut one: BTreeMap<&str, &str> = IDS.iter().map(|id| (*id, *id)).collect();
        for step in steps.iter().filter(|step| !refused.contains(&step.number)) {
            let Some(from) = step.merged() else { continue };
            prop_assert_eq!(partitions.who(from), partitions.who(step.customer), "{:?}", step);
            let (old, new) = (one[from], one[step.customer]);
            one.values_mut().filter(|group| **group == old).for_each(|group| *group = new);
        }
        for (id, other) in IDS.iter().flat_map(|id| IDS.iter().map(move |other| (*id, *other))) {
            prop_assert_eq!(partitions.who(id) == partitions.who(other), one[id] == one[other], "{} {}", id, other);
        }
        let happened = steps.iter().filter(|step| Source::ACTIVITY.contains(&step.source)).count();
        let counted: f64 = IDS
            .iter()
            .filter_map(|id| partitions.features(id, at))
            .flat_map(|features| features.into_iter().find(|(name, _)| name == "events_lifetime"))
            .map(|(_, n)| n)
            .sum();
        prop_assert_eq!(counted, happened as f64);
        prop_assert!(partitions.taken >= happened);
    }
}

fn step(number: usize, ts: Ts, customer: &'static str, kind: &'static str, more: &str) -> Step {
    let source = if kind.starts_with("customer") { Source::Profile } else { Source::Clickstream };
    Step { ts, customer, source, kind, more: more.to_owned(), number }
}

/// Receipts: who by hash, and when.
fn receipts(written: &[Out]) -> BTreeSet<(String, String)> {
    let receipts = written.iter().filter(|out| out.channel == Channel::Erasures).map(Out::json);
    let text = |json: &serde_json::Value, name: &str| json[name].as_str().expect("a text").to_owned();
    receipts.map(|json| (text(&json, "customer_hash"), text(&json, "ts"))).collect()
}

/// `a` is folded into `b` and `b` into `c`, who is erased before anything of that has arrived: whatever the time
/// in which events of the erased are dropped, nobody comes back, and each id has its receipt.
#[test]
fn who_was_erased_does_not_come_back_by_a_merge_that_was_under_way() {
    for (opt_out_ms, is_chain, is_born_again, restarts) in [0, 3 * DAY_MS].into_iter().flat_map(|opt_out| {
        [false, true].into_iter().flat_map(move |chain| {
            [(false, false), (false, true), (true, false), (true, true)].map(|(b, r)| (opt_out, chain, b, r))
        })
    }) {
        let case = format!("opt_out {opt_out_ms}, {is_chain}, {is_born_again}, {restarts}");
        let last = if is_chain { "c" } else { "b" };
        let merged_at = START + DAY_MS;
        let mut steps = vec![
            step(1, START, "a", "product_viewed", ""),
            step(2, START, "b", "product_viewed", ""),
            step(3, merged_at, "b", "customers_merged", r#","from_id":"a""#),
        ];
        if is_chain {
            steps.push(step(4, merged_at + 5_000, "c", "customers_merged", r#","from_id":"b""#));
        }
        steps.push(step(5, merged_at + 10_000, last, "customer_deleted", ""));
        if is_born_again {
            steps.push(step(6, merged_at + 20 * DAY_MS, last, "product_viewed", ""));
        }
        let plan = a_plan_with(opt_out_ms);
        let mut partitions = Partitions::new(&plan, &steps);
        // Every partition reads all its events, and its time passes, before any hears of another.
        for partition in 0..Partitions::COUNT {
            while !partitions.events[partition].is_empty() {
                partitions.advance(partition, false, false, restarts);
            }
            partitions.drivers[partition].engine.tick(merged_at + 30 * DAY_MS);
        }
        partitions.run(&[]);
        let alive: Vec<String> =
            partitions.drivers.iter().flat_map(|driver| driver.states().into_keys()).collect();
        let at = merged_at + 40 * DAY_MS;
        if is_born_again {
            assert_eq!(alive, [last], "{case}");
            let features = partitions.features(last, at).expect("it is alive");
            let events = features.iter().find(|(name, _)| name == "events_lifetime");
            assert_eq!(events.map(|(_, n)| *n), Some(1.0), "{case}: of the new life alone");
        } else {
            assert!(alive.is_empty(), "{case}: {alive:?}");
        }
        let mut alone = Driver::new(&plan);
        let mut expected = Vec::new();
        for step in &steps {
            alone.apply(step.source, step.json_of(step.customer).as_bytes());
            expected.extend(alone.commit());
        }
        assert_eq!(receipts(&partitions.written), receipts(&expected), "{case}");
        assert_eq!(receipts(&expected).len(), if is_chain { 3 } else { 2 }, "{case}");
    }
}

/// An event of another id of the erased, from before, is not what begins a new life either.
#[test]
fn an_event_from_before_an_erasure_does_not_bring_back_who_it_follows() {
    let merged_at = START + DAY_MS;
    let steps = [
        step(1, START, "b", "product_viewed", ""),
        step(2, merged_at, "b", "customers_merged", r#","from_id":"a""#),
        step(3, merged_at + 10_000, "b", "customer_deleted", ""),
        step(4, merged_at + 5_000, "a", "product_viewed", ""),
    ];
    let mut partitions = Partitions::new(&a_plan_with(0), &steps);
    let (a, b) = (Partitions::of("a"), Partitions::of("b"));
    for _ in 0..2 {
        partitions.advance(b, false, false, false);
    }
    // The redirect, then the event that follows it, and all of it arrives after the erasure.
    partitions.advance(a, true, false, false);
    partitions.advance(a, false, false, false);
    partitions.advance(b, false, false, false);
    partitions.run(&[]);
    assert!(partitions.drivers.iter().all(|driver| driver.engine.store().is_empty()));
    assert_eq!(receipts(&partitions.written).len(), 2);
}

/// So many ids in turn in each of the partitions, with one event each before and after all merges, and the merges
/// of each into the next.
fn chain(length: usize) -> (Vec<&'static str>, Vec<Step>) {
    let name = |n: usize| &*format!("{}{n:03}", ["a", "b", "c"][n % 3]).leak();
    let ids: Vec<&'static str> = (0..length).map(name).collect();
    let mut steps = Vec::new();
    for id in &ids {
        steps.push(step(steps.len(), START, id, "product_viewed", ""));
    }
    for (n, pair) in ids.windows(2).enumerate() {
        let from = format!(r#","from_id":"{}""#, pair[0]);
        let ts = START + DAY_MS + n as i64 * MINUTE_MS;
        steps.push(step(steps.len(), ts, pair[1], "customers_merged", &from));
    }
    for id in &ids {
        steps.push(step(steps.len(), START + 3 * DAY_MS, id, "product_viewed", ""));
    }
    (ids, steps)
}

/// Every partition reads all of its own before any hears of another; all restart on the way.
fn all_at_once(steps: &[Step]) -> Partitions {
    let mut partitions = Partitions::new(&a_plan(), steps);
    for partition in 0..Partitions::COUNT {
        while !partitions.events[partition].is_empty() {
            partitions.advance(partition, false, false, false);
        }
        partitions.advance(partition, false, false, true);
    }
    partitions.run(&[(0, 24), (1, 24), (2, 24), (0, 24), (1, 24), (2, 24)]);
    partitions
}

#[test]
fn of_merges_that_make_a_circle_the_latest_is_refused_and_one_customer_is_left() {
    for length in [2, 3, 8, 14, 40] {
        let (ids, mut steps) = chain(length);
        let last = *ids.last().expect("some");
        let (number, from) = (steps.len(), format!(r#","from_id":"{last}""#));
        steps.push(step(number, START + 2 * DAY_MS, ids[0], "customers_merged", &from));
        steps.sort_by_key(|step| step.ts);
        let partitions = all_at_once(&steps);
        assert_eq!(partitions.refused(), BTreeSet::from([number]), "{length}");
        assert!(ids.iter().all(|id| partitions.who(id) == last), "{length}");
        let customers: usize = partitions.drivers.iter().map(|driver| driver.engine.store().len()).sum();
        assert_eq!(customers, 1, "{length}");
        let at = START + 4 * DAY_MS;
        assert_eq!(partitions.events(last, at), 2.0 * length as f64, "{length}");
        // That is who replay has.
        let mut alone = Driver::new(&a_plan());
        steps.iter().for_each(|step| {
            apply(&mut alone, step, step.customer);
        });
        assert_eq!(alone.engine.identities_mut().take_refused().len(), 1, "{length}");
        assert_eq!(partitions.features(last, at), features(&alone.engine, last, at), "{length}");
    }
}

#[test]
fn a_long_chain_of_merges_holds_when_all_are_under_way_at_once() {
    let (ids, steps) = chain(120);
    let partitions = all_at_once(&steps);
    let last = *ids.last().expect("some");
    assert!(partitions.refused().is_empty());
    assert_eq!(partitions.who(ids[0]), last);
    assert_eq!(partitions.events(last, START + 4 * DAY_MS), 240.0);
}

/// What is furthest behind in a chain overtakes all that would make its way shorter.
#[test]
fn a_chain_too_long_to_follow_is_cut_and_told() {
    let (ids, steps) = chain(MAX_HOPS + 3);
    let mut partitions = Partitions::new(&a_plan(), &steps);
    for partition in 0..Partitions::COUNT {
        while !partitions.events[partition].is_empty() {
            partitions.advance(partition, false, false, false);
        }
    }
    // Everybody is asked before anybody's state goes anywhere.
    let asked: Vec<usize> = partitions.inboxes.iter().map(VecDeque::len).collect();
    for (partition, count) in asked.into_iter().enumerate() {
        (0..count).for_each(|_| partitions.advance(partition, true, false, false));
    }
    let mut next = 1;
    while partitions.refused.is_empty() {
        let to = ids[next];
        let inbox = &mut partitions.inboxes[Partitions::of(to)];
        let is_for = |message: &Vec<u8>| &*Message::decode(message).expect("a message").to == to;
        let newest = inbox.iter().rposition(is_for).expect("it goes on");
        let message = inbox.remove(newest).expect("it is there");
        inbox.push_front(message);
        partitions.advance(Partitions::of(to), true, false, false);
        next += 1;
    }
    partitions.run(&[]);
    let cut = ids[next - 1];
    assert_eq!(partitions.refused().len(), 1);
    assert_eq!((next - 2, partitions.who(ids[MAX_HOPS / 2])), (MAX_HOPS, cut.to_owned()));
    assert_ne!(partitions.who(ids[ids.len() - 1]), cut);
    let at = START + 4 * DAY_MS;
    let counted: f64 = ids.iter().map(|id| partitions.events(id, at)).sum();
    assert_eq!(counted, 2.0 * ids.len() as f64);
}

/// A driver that knows the customer `c` by an order of the first hour, and its ticket of the first day.
struct HelpDesk {
    zendesk: Decoder,
    driver: Driver,
}

impl HelpDesk {
    fn new() -> HelpDesk {
        let fields = [("customer_id".to_owned(), "/detail/requester_id".to_owned())].into();
        let zendesk = Decoder::new(Format::Zendesk, Format::Native, &fields, BTreeMap::new());
        let mut desk = HelpDesk { zendesk, driver: Driver::new(&a_plan()) };
        desk.ticket(0);
        let order =
            format!(r#"{{"customer_id":"c","type":"order_completed","ts":{},"amount":5}}"#, START + HOUR_MS);
        desk.driver.apply(Source::Purchase, order.as_bytes());
        desk
    }

    fn ticket(&mut self, number: i64) {
        let ts = format_rfc3339(START + number * DAY_MS);
        let json = format!(
            r#"{{"id":"z{number}","time":"{}","type":"zen:event-type:ticket.created","event":{{}},
               "detail":{{"id":"{number}","requester_id":"844"}},"subject":"zen:ticket:{number}"}}"#,
            ts.as_str()
        );
        self.driver.apply_as(&self.zendesk, Source::Support, json.as_bytes());
    }

    fn profile(&mut self, customer: &str, at: Ts, kind_and_more: &str) {
        let json = format!(r#"{{"customer_id":"{customer}","ts":{at},"type":{kind_and_more}}}"#);
        self.driver.apply(Source::Profile, json.as_bytes());
    }

    fn value(&self, customer: &str, name: &str) -> f64 {
        let known = features(&self.driver.engine, customer, START + 2 * DAY_MS).expect("the customer");
        known.iter().find(|(known, _)| known == name).expect("a feature").1
    }
}

/// Whom Zendesk knows by a number of its own: one event says whose number it is, and what has come and comes under
/// it follows.
#[test]
fn tickets_of_a_requester_are_those_of_the_customer_whose_number_it_is() {
    for says_so in [
        r#""customers_merged","from_id":"844""#,
        r#""traits_updated","traits":{"other_id":"844","plan":"pro"}"#,
    ] {
        let mut desk = HelpDesk::new();
        desk.profile("c", START + 2 * HOUR_MS, says_so);
        desk.ticket(1);
        assert_eq!((desk.value("c", "tickets_90d"), desk.value("c", "orders_lifetime")), (2.0, 1.0));
        assert_eq!(desk.driver.engine.store().find("844"), None);
    }
}

/// A number is an id as the help desk writes it; what cannot be an id is a trait like any other.
#[test]
fn a_trait_is_another_id_where_it_can_be_one() {
    for (value, tickets) in [
        ("844", 2.0),
        ("844.0", 2.0),
        ("844.5", 0.0),
        ("true", 0.0),
        ("null", 0.0),
        (r#""""#, 0.0),
        (r#""c""#, 0.0),
    ] {
        let mut desk = HelpDesk::new();
        desk.profile(
            "c",
            START + 2 * HOUR_MS,
            &format!(r#""traits_updated","traits":{{"other_id":{value}}}"#),
        );
        desk.ticket(1);
        assert_eq!(desk.value("c", "tickets_90d"), tickets, "{value}");
    }
}

/// Whose an id is, is settled by who tells it first; who tells it again, or after that, changes nothing.
#[test]
fn an_id_that_two_claim_by_a_trait_stays_with_the_first() {
    let mut desk = HelpDesk::new();
    let claim = r#""traits_updated","traits":{"other_id":"844"}"#;
    desk.profile("c", START + 2 * HOUR_MS, claim);
    desk.profile("d", START + 3 * HOUR_MS, claim);
    desk.driver.commit();
    let scored = desk.driver.engine.store().len();
    desk.profile("c", START + 4 * HOUR_MS, claim);
    assert_eq!(desk.driver.engine.store().len(), scored);
    desk.ticket(1);
    assert_eq!((desk.value("c", "tickets_90d"), desk.value("d", "tickets_90d")), (2.0, 0.0));
    assert!(desk.driver.engine.identities_mut().take_refused().is_empty(), "their records were of use");
}

/// Nobody is evaluated once more for an id that nothing is known of.
#[test]
fn a_trait_that_names_nobody_is_one_evaluation() {
    let outputs = |other: &str| {
        let mut desk = HelpDesk::new();
        desk.driver.commit();
        let traits = format!(r#""traits_updated","event_id":"t1","traits":{{"other_id":"{other}"}}"#);
        desk.profile("c", START + 2 * HOUR_MS, &traits);
        desk.driver.commit().len()
    };
    assert_eq!(outputs("nobody"), outputs("c"));
}
