//! The engine against the naive model, and against itself: whatever is interleaved, stopped, rolled back or
//! corrupted, a customer's outputs are a function of its own events.

mod naive;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use naive::arbitrary::{START, Shape, Vocabulary, histories, lifecycles_over, money};
use naive::{Ev, Grid, Kind, On, Output, Scoring, View, World, features, history};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use stagecast::event::Source;
use stagecast::event::money::Money;
use stagecast::model::Model;
use stagecast::model::artifact::{Label, Transform};
use stagecast::pipeline::catalogue::Catalogue;
use stagecast::pipeline::engine::Applied;
use stagecast::pipeline::facts::{FeatureNames, TraitValue};
use stagecast::pipeline::outbox::Channel;
use stagecast::pipeline::outcomes::Keeping;
use stagecast::pipeline::plan::{Plan, Policy, PolicyOn, Settings};
use stagecast::pipeline::quality::{Ledger, Quality};
use stagecast::time::{DAY_MS, HOUR_MS, SECOND_MS, Ts, format_rfc3339, parse_rfc3339};
use support::{Driver, Out, plan};

/// `PROPTEST_CASES` overrides how often each property is tried.
fn tries(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(cases);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 4_000, ..ProptestConfig::default() }
}

const ALL_WORDS: Vocabulary = Vocabulary { traits: true, p_churn: true };

fn settings() -> Settings {
    let money = Money { base: "EUR".into(), rates: money().rates };
    Settings { money, ..Settings::default() }
}

fn source(kind: Kind) -> Source {
    Source::from_name(kind.name()).expect("a source")
}

fn apply(driver: &mut Driver, customer: &str, event: &Ev) -> Applied {
    driver.apply(source(event.kind), event.to_json(customer).to_string().as_bytes())
}

fn newest(events: &[Ev]) -> Ts {
    events.iter().map(|e| e.ts).max().unwrap_or(START)
}

/// Shrinks well: settings are lists of choices.
fn any_settings() -> impl Strategy<Value = Settings> {
    let score = (select(vec![0.7, 0.5, 0.35]), select(vec![0.5, 0.3]), select(vec![0, HOUR_MS, 7 * DAY_MS]));
    let score = score.prop_map(|(raise, clear, cooldown_ms)| Policy {
        on: PolicyOn::Score { raise, clear: f64::min(raise, clear) },
        cooldown_ms,
        ..Policy::default()
    });
    let stage = (any::<bool>(), select(vec!["s0", "s1"]), select(vec![0, DAY_MS, 30 * DAY_MS]));
    let stage = stage.prop_map(|(named, stage, cooldown_ms)| Policy {
        on: PolicyOn::Stage { lifecycle: named.then(|| "x".to_owned()), stage: stage.to_owned() },
        cooldown_ms,
        ..Policy::default()
    });
    let policy = (prop_oneof![score, stage], any::<bool>()).prop_map(|(policy, gold)| Policy {
        segment: gold.then(|| ("tier".to_owned(), TraitValue::Text("gold".into()))).into_iter().collect(),
        ..policy
    });
    let scores = (select(vec![0.01, 0.0, 0.2]), select(vec![DAY_MS, 7 * HOUR_MS, 400 * DAY_MS]));
    (scores, vec(policy, 0..4)).prop_map(|((min_change, rescore_every_ms), mut policies)| {
        policies.iter_mut().enumerate().for_each(|(i, policy)| policy.name = format!("p{i}"));
        Settings { min_change, rescore_every_ms, policies, ..settings() }
    })
}

/// One or two lifecycles side by side.
fn any_lifecycles() -> impl Strategy<Value = Vec<String>> {
    let beside = proptest::option::weighted(0.4, lifecycles_over("y", ALL_WORDS));
    (lifecycles_over("x", ALL_WORDS), beside).prop_map(|(x, y)| std::iter::once(x).chain(y).collect())
}

// The naive model

/// The naive model's policies.
fn naive_policies(settings: &Settings) -> Vec<naive::Policy> {
    let policy = |p: &Policy| naive::Policy {
        name: p.name.clone(),
        on: match &p.on {
            PolicyOn::Score { raise, clear } => On::Score { raise: *raise, clear: *clear },
            PolicyOn::Stage { lifecycle, stage } => {
                On::Stage { lifecycle: lifecycle.clone(), stage: stage.clone() }
            }
        },
        cooldown: p.cooldown_ms,
        segment: p.segment.iter().map(|(name, _)| (name.clone(), json!("gold"))).collect(),
    };
    settings.policies.iter().map(policy).collect()
}

/// The score that the plan's model gives to what the naive model sees.
fn scored_by(plan: &Plan) -> impl Fn(&View) -> f64 + '_ {
    |view| {
        let mut values = vec![0.0; plan.layout.features.len()];
        for id in plan.scorer.features() {
            values[id.index()] = view.get(&plan.layout.feature(id).name);
        }
        plan.scorer.p(plan.scorer.logit(&values))
    }
}

fn naive_outputs(plan: &Plan, lifecycles: &[String], events: &[Ev], until: Ts) -> Vec<Output> {
    let (p, settings) = (scored_by(plan), &plan.settings);
    let scoring = Scoring {
        p: &p,
        min_change: settings.min_change,
        rescore_every: settings.rescore_every_ms,
        bands: settings.bands,
        policies: naive_policies(settings),
    };
    let texts: Vec<&str> = lifecycles.iter().map(String::as_str).collect();
    let world = World::new(&texts).with_money(money()).with_scoring(scoring).with_grid(Grid::Expiries);
    history(&world, events, until).outputs
}

/// An output of the naive model, as far as it goes, in the shape of the engine's.
fn as_json(customer: &str, output: &Output) -> Value {
    let ts = format_rfc3339(output.ts()).as_str().to_owned();
    match output {
        Output::Stage(c) => json!({
            "customer_id": customer, "lifecycle": c.lifecycle, "from": c.from, "to": c.to, "ts": ts,
            "trigger": c.trigger.name(), "event_id": c.event_id, "visit": c.visit as f64, "sequence": c.sequence as f64,
            "stage_days": c.stage_days,
        }),
        Output::Score(s) => json!({
            "customer_id": customer, "ts": ts, "p_churn": s.p, "band": s.band.name(), "stages": s.stages,
        }),
        Output::Alert(a) => json!({ "customer_id": customer, "ts": ts, "p_churn": a.p, "policy": a.policy }),
    }
}

/// Outcomes have a property of their own.
fn is_outcome(out: &Out) -> bool {
    out.channel == Channel::ChurnOutcomes
}

/// The fields that the naive model knows about.
fn known_to_naive(out: &Out) -> Value {
    let fields: &[&str] = match out.channel {
        Channel::StageChanges => &[
            "customer_id",
            "lifecycle",
            "from",
            "to",
            "ts",
            "trigger",
            "event_id",
            "visit",
            "sequence",
            "stage_days",
        ],
        Channel::ChurnScores => &["customer_id", "ts", "p_churn", "band", "stages"],
        Channel::ChurnAlerts => &["customer_id", "ts", "p_churn", "policy"],
        Channel::Erasures => &["customer_hash", "ts", "known", "opt_out_until"],
        Channel::ChurnOutcomes => &["customer_id", "scored_at", "churned"],
    };
    let json = out.json();
    let field = |name: &&str| match &json[*name] {
        Value::Number(n) => ((*name).to_owned(), json!(n.as_f64())),
        value => ((*name).to_owned(), value.clone()),
    };
    Value::Object(fields.iter().map(field).collect())
}

/// Compares every feature at `at`; to the bit, or to a rounding where the formula differs.
fn compare_features(driver: &Driver, customer: &str, applied: &[Ev], at: Ts) {
    let plan = driver.engine.plan();
    let index = driver.engine.store().find(customer).expect("a customer");
    let view = driver.engine.view(index, at);
    let expected = features(applied, view.at, &money());
    // The naive reading knows no model; this one foretells nothing.
    let foretold = [("p_no_order".to_owned(), f64::INFINITY), ("clv_365d".to_owned(), 0.0)];
    assert_eq!(expected.len() + foretold.len(), view.features.len());
    for (name, want) in expected.into_iter().chain(foretold) {
        let got = view.features[plan.layout.id(&name).expect("a feature").index()];
        let close = got == want || (got - want).abs() <= 1e-12 * want.abs();
        assert!(close, "{name} at {} is {got}, not {want}", format_rfc3339(view.at).as_str());
    }
}

proptest! {
    #![proptest_config(tries(96))]

    #[test]
    fn every_feature_is_what_the_events_say_however_they_arrive(
        events in histories(Shape { late: true, ..Shape::default() }),
        probes in vec((any::<Index>(), 0..120 * DAY_MS), 1..6),
    ) {
        let plan = plan(&[], settings());
        let mut driver = Driver::new(&plan);
        let probes: BTreeMap<usize, i64> = probes.iter().map(|(i, later)| (i.index(events.len()), *later)).collect();
        for (i, event) in events.iter().enumerate() {
            apply(&mut driver, "c", event);
            if let Some(later) = probes.get(&i) {
                let applied = history(&World::new(&[]).with_money(money()), &events[..=i], START).applied;
                let now = newest(&applied);
                compare_features(&driver, "c", &applied, now);
                compare_features(&driver, "c", &applied, now + later);
            }
        }
    }

    #[test]
    fn features_do_not_depend_on_the_order_of_arrival(
        events in histories(Shape { duplicates: false, ..Shape::default() }),
        seed in any::<u64>(),
        later in 0..100 * DAY_MS,
    ) {
        let plan = plan(&[], settings());
        let mut shuffled = events.clone();
        shuffled.sort_by_key(|e| (e.ts as u64 ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let view = |events: &[Ev]| {
            let mut driver = Driver::new(&plan);
            events.iter().for_each(|event| { apply(&mut driver, "c", event); });
            driver.engine.view(0, newest(events) + later).features
        };
        prop_assert_eq!(view(&events), view(&shuffled));
    }
}

proptest! {
    #![proptest_config(tries(96))]

    #[test]
    fn what_is_written_about_a_customer_is_what_the_contract_says(
        events in histories(Shape { max_events: 25, late: true, ..Shape::default() }),
        lifecycles in any_lifecycles(),
        settings in any_settings(),
        after in 0..100 * DAY_MS,
    ) {
        let settings = Settings { policies: fitting(settings.policies.clone(), &lifecycles), ..settings };
        let plan = plan(&lifecycles, settings);
        let until = newest(&events) + after;
        let mut driver = Driver::new(&plan);
        events.iter().for_each(|event| { apply(&mut driver, "c", event); });
        driver.engine.run_until(until);
        let got: Vec<Value> = driver.commit().iter().filter(|out| !is_outcome(out)).map(known_to_naive).collect();
        let want: Vec<Value> =
            naive_outputs(&plan, &lifecycles, &events, until).iter().map(|o| as_json("c", o)).collect();
        for (got, want) in got.iter().zip(&want) {
            prop_assert_eq!(got, want);
        }
        prop_assert_eq!(got.len(), want.len());
    }
}

/// Whether a claim made at `scored_at` came true by these events, all of them known.
fn churned(model: &Model, events: &[Ev], scored_at: Ts) -> bool {
    let from = scored_at + model.lead;
    let came = |is: &dyn Fn(&Ev) -> bool| {
        events.iter().any(|e| e.ts > from && e.ts <= from + model.horizon && is(e))
    };
    match model.label {
        Label::NoOrder => !came(&|e| e.is(Kind::Purchase, "order_completed")),
        Label::NoEvent => !came(&|e| e.is_activity()),
        Label::Cancelled => came(&|e| e.is(Kind::Purchase, "subscription_cancelled")),
    }
}

/// What must become known by `until` of the scores among these outputs.
fn naive_outcomes(model: &Model, every: i64, events: &[Ev], outputs: &[Out], until: Ts) -> Vec<Value> {
    let mut kept_at = Ts::MIN;
    let mut known = Vec::new();
    for out in outputs.iter().filter(|out| out.channel == Channel::ChurnScores) {
        if kept_at != Ts::MIN && out.ts - kept_at < every {
            continue;
        }
        kept_at = out.ts;
        if out.ts + model.lead + model.horizon <= until {
            let json = out.json();
            let packed = (json["p_churn"].as_f64().expect("p") * 65_535.0).round();
            known.push(json!({
                "customer_id": out.key, "scored_at": json["ts"], "p_churn": (packed / 65_535.0 * 1e5).round() / 1e5,
                "churned": churned(model, events, out.ts), "horizon": "9d", "stage": json["stages"]["x"],
                "group": null, "model": { "name": "small", "version": "1" },
            }));
        }
    }
    known
}

proptest! {
    #![proptest_config(tries(96))]

    #[test]
    fn every_kept_score_has_the_outcome_that_the_events_say(
        events in histories(Shape { max_events: 25, late: false, ..Shape::default() }),
        lifecycles in any_lifecycles(),
        (label, lead) in (select(vec![Label::NoOrder, Label::NoEvent, Label::Cancelled]), select(vec![0, HOUR_MS])),
        every in select(vec![1, DAY_MS, 3 * DAY_MS]),
        after in 0..30 * DAY_MS,
        stop in any::<Index>(),
    ) {
        let model = Model { label, lead, horizon: 9 * DAY_MS, ..support::small_model() };
        let outcomes = Keeping { sample: 1.0, every_ms: every };
        let settings = Settings { min_change: 0.0, policies: Vec::new(), outcomes, ..settings() };
        let plan = support::plan_of(&lifecycles, &model, settings);
        let until = newest(&events) + after;
        let mut driver = Driver::new(&plan);
        let mut outputs = Vec::new();
        for (i, event) in events.iter().enumerate() {
            apply(&mut driver, "c", event);
            if i == stop.index(events.len()) {
                outputs.extend(driver.commit());
                driver = Driver::restored(&plan, &driver.states());
            }
        }
        driver.engine.run_until(until);
        outputs.extend(driver.commit());
        let applied = history(&World::new(&[]).with_money(money()), &events, START).applied;
        let got: Vec<Value> = outputs.iter().filter(|out| is_outcome(out)).map(Out::json).collect();
        prop_assert_eq!(got, naive_outcomes(&model, every, &applied, &outputs, until));
    }
}

/// Another model that foretells the same: it thinks more of clicks, and sees orders by a fit of its own.
fn challenger(champion: &Model) -> Model {
    let terms = [
        ("days_since_click", Transform::Recency { cap: 30.0 }, (0.5, 0.3, 1.6)),
        ("orders_30d", Transform::Log1p, (0.7, 0.7, -0.2)),
        ("p_no_order", Transform::Logit, (0.0, 1.0, 0.8)),
    ];
    let Model { label, horizon, lead, .. } = *champion;
    support::foretelling(
        Model { version: "2".into(), label, horizon, lead, ..support::model(-0.2, &terms) },
        5.0,
    )
}

/// What comes out, and what is counted, of events that are stopped after one of them.
fn lived(plan: Plan, events: &[Ev], stop: usize, until: Ts) -> (Vec<Out>, Ledger) {
    let plan = Arc::new(plan);
    let mut driver = Driver::new(&plan);
    let mut outputs = Vec::new();
    for (i, event) in events.iter().enumerate() {
        apply(&mut driver, "c", event);
        if i == stop {
            outputs.extend(driver.commit());
            let counted = driver.engine.quality.ledger().encode();
            driver = Driver::restored(&plan, &driver.states());
            driver.engine.quality = Quality::restored(Ledger::decode(&counted).expect("counts"));
        }
    }
    driver.engine.run_until(until);
    outputs.extend(driver.commit());
    (outputs, driver.engine.quality.ledger().clone())
}

fn compiled(lifecycles: &[String], model: &Model, settings: &Settings) -> Plan {
    let files: Vec<(String, String)> = lifecycles.iter().map(|l| ("l.toml".to_owned(), l.clone())).collect();
    Plan::new(&Catalogue::shipped(), &files, model, settings.clone()).unwrap_or_else(|e| panic!("{e}"))
}

proptest! {
    #![proptest_config(tries(48))]

    #[test]
    fn a_challenger_changes_no_byte_that_goes_out(
        events in histories(Shape { max_events: 25, late: true, ..Shape::default() }),
        lifecycles in any_lifecycles(),
        settings in any_settings(),
        after in 0..40 * DAY_MS,
        stop in any::<Index>(),
    ) {
        let settings = Settings { policies: fitting(settings.policies.clone(), &lifecycles), ..settings };
        let model = support::foretelling(Model { horizon: 9 * DAY_MS, ..support::small_model() }, 60.0);
        let (stop, until) = (stop.index(events.len()), newest(&events) + after);
        let alone = lived(compiled(&lifecycles, &model, &settings), &events, stop, until);
        let plan = compiled(&lifecycles, &model, &settings).with_challenger(&model, &challenger(&model)).unwrap();
        let challenged = lived(plan, &events, stop, until);
        prop_assert_eq!(&challenged.0, &alone.0);
        let of_champion = |ledger: &Ledger| {
            let mut counts = ledger.counts.clone();
            counts.retain(|key, _| key.version == "1");
            (ledger.labels, counts)
        };
        prop_assert_eq!(of_champion(&challenged.1), of_champion(&alone.1));
    }

    #[test]
    fn a_challenger_is_judged_as_if_it_had_served(
        events in histories(Shape { max_events: 25, late: false, ..Shape::default() }),
        lifecycles in lifecycles_over("x", Vocabulary { traits: true, p_churn: false }).prop_map(|x| vec![x]),
        after in 9 * DAY_MS..30 * DAY_MS,
        stop in any::<Index>(),
    ) {
        // Every score is kept, so that both are judged at the same instants.
        let outcomes = Keeping { sample: 1.0, every_ms: 1 };
        let settings = Settings { min_change: 0.0, policies: Vec::new(), outcomes, ..settings() };
        let champion = support::foretelling(Model { horizon: 9 * DAY_MS, ..support::small_model() }, 60.0);
        let challenger = challenger(&champion);
        let (stop, until) = (stop.index(events.len()), newest(&events) + after);
        let served = lived(compiled(&lifecycles, &challenger, &settings), &events, stop, until).1;
        let plan = compiled(&lifecycles, &champion, &settings).with_challenger(&champion, &challenger).unwrap();
        let mut shadowed = lived(plan, &events, stop, until).1;
        shadowed.counts.retain(|key, _| key.version == "2");
        prop_assert_eq!(shadowed, served);
    }
}

/// Policies that wait for a stage which these lifecycles have.
fn fitting(policies: Vec<Policy>, lifecycles: &[String]) -> Vec<Policy> {
    let has = |stage: &str, text: &String| text.contains(&format!("name = \"{stage}\""));
    let fits = |policy: &Policy| match &policy.on {
        PolicyOn::Score { .. } => true,
        PolicyOn::Stage { lifecycle: Some(_), stage } => has(stage, &lifecycles[0]),
        PolicyOn::Stage { lifecycle: None, stage } => lifecycles.iter().any(|text| has(stage, text)),
    };
    policies.into_iter().filter(fits).collect()
}

// Several customers

fn customers(shape: Shape) -> impl Strategy<Value = Vec<(String, Ev)>> {
    vec(histories(shape), 1..5).prop_map(|lives| {
        let named = lives.into_iter().enumerate();
        let mut all: Vec<(String, Ev)> =
            named.flat_map(|(i, life)| life.into_iter().map(move |e| (format!("c{i}"), e))).collect();
        // By time, which keeps each customer's own order where that is by time.
        all.sort_by_key(|(_, e)| e.ts);
        all
    })
}

fn by_customer(outputs: Vec<Out>) -> BTreeMap<String, Vec<Out>> {
    let mut sorted: BTreeMap<String, Vec<Out>> = BTreeMap::new();
    outputs.into_iter().for_each(|out| sorted.entry(out.key.clone()).or_default().push(out));
    sorted
}

/// What happens to an engine besides events.
#[derive(Clone, Debug)]
enum Act {
    /// The clock, so long after the event at hand, less so much.
    Tick(i64),
    Commit,
}

fn acts() -> impl Strategy<Value = Vec<(Index, Act)>> {
    let tick = select(vec![1, 1_000, 60_000, 3 * HOUR_MS]).prop_map(Act::Tick);
    vec((any::<Index>(), prop_oneof![3 => tick, 1 => Just(Act::Commit)]), 0..20)
}

/// The acts that follow each event.
fn placed(acts: &[(Index, Act)], events: usize) -> BTreeMap<usize, Vec<Act>> {
    let mut placed: BTreeMap<usize, Vec<Act>> = BTreeMap::new();
    acts.iter().for_each(|(i, act)| placed.entry(i.index(events)).or_default().push(act.clone()));
    placed
}

const IN_ORDER: Shape = Shape { max_events: 20, late: false, profile: true, duplicates: true };
const LATE: Shape = Shape { late: true, ..IN_ORDER };

proptest! {
    #![proptest_config(tries(64))]

    #[test]
    fn other_customers_and_the_ticks_of_the_clock_change_nothing(
        all in customers(IN_ORDER),
        acts in acts(),
        lifecycles in any_lifecycles(),
        after in 0..100 * DAY_MS,
    ) {
        let plan = plan(&lifecycles, settings());
        let until = all.iter().map(|(_, e)| e.ts).max().unwrap_or(START) + after;
        let acts = placed(&acts, all.len());
        let (mut together, mut written) = (Driver::new(&plan), Vec::new());
        let mut alone: BTreeMap<String, Driver> = BTreeMap::new();
        for (i, (customer, event)) in all.iter().enumerate() {
            apply(&mut together, customer, event);
            apply(alone.entry(customer.clone()).or_insert_with(|| Driver::new(&plan)), customer, event);
            for act in acts.get(&i).into_iter().flatten() {
                match act {
                    Act::Tick(grace) => {
                        together.engine.tick(event.ts - grace);
                    }
                    Act::Commit => written.extend(together.commit()),
                }
            }
        }
        together.engine.run_until(until);
        written.extend(together.commit());
        let written = by_customer(written);
        let states = together.states();
        for (customer, mut driver) in alone {
            driver.engine.run_until(until);
            prop_assert_eq!(&driver.states()[&customer], &states[&customer]);
            prop_assert_eq!(&driver.commit(), &written[&customer]);
        }
    }

    #[test]
    fn a_stop_and_a_restore_anywhere_change_nothing(
        all in customers(LATE),
        acts in acts(),
        stops in vec(any::<Index>(), 1..4),
        lifecycles in any_lifecycles(),
    ) {
        let plan = plan(&lifecycles, settings());
        let acts = placed(&acts, all.len());
        let stops: Vec<usize> = stops.iter().map(|i| i.index(all.len())).collect();
        let (mut straight, mut stopped) = (Driver::new(&plan), Driver::new(&plan));
        for (i, (customer, event)) in all.iter().enumerate() {
            prop_assert_eq!(apply(&mut straight, customer, event), apply(&mut stopped, customer, event));
            for act in acts.get(&i).into_iter().flatten() {
                let Act::Tick(grace) = act else { continue };
                straight.engine.tick(event.ts - grace);
                stopped.engine.tick(event.ts - grace);
            }
            prop_assert_eq!(by_customer(straight.commit()), by_customer(stopped.commit()));
            prop_assert_eq!(straight.states(), stopped.states());
            if stops.contains(&i) {
                let states = stopped.states();
                stopped = Driver::restored(&plan, &states);
                prop_assert_eq!(&stopped.states(), &states, "what was restored is encoded as it was");
                prop_assert_eq!(stopped.engine.population(), straight.engine.population());
                for customer in states.keys() {
                    let view = |driver: &Driver| {
                        let index = driver.engine.store().find(customer).expect("a customer");
                        driver.engine.view(index, event.ts + 9 * DAY_MS).features
                    };
                    prop_assert_eq!(view(&straight), view(&stopped));
                }
            }
        }
        let until = all.iter().map(|(_, e)| e.ts).max().unwrap_or(START) + 50 * DAY_MS;
        straight.engine.run_until(until);
        stopped.engine.run_until(until);
        prop_assert_eq!(by_customer(straight.commit()), by_customer(stopped.commit()));
    }

    #[test]
    fn whoever_follows_the_states_of_another_goes_on_as_that_one_would(
        all in customers(LATE),
        acts in acts(),
        turns in vec(any::<Index>(), 1..5),
        settles in vec((0..4usize, 0..3usize), 1..8),
        lifecycles in any_lifecycles(),
    ) {
        let plan = plan(&lifecycles, settings());
        let acts = placed(&acts, all.len());
        let turns: BTreeSet<usize> = turns.iter().map(|i| i.index(all.len())).collect();
        let (mut straight, mut at_work, mut behind) = (Driver::new(&plan), Driver::new(&plan), Driver::new(&plan));
        for (i, (customer, event)) in all.iter().enumerate() {
            for driver in [&mut straight, &mut at_work] {
                apply(driver, customer, event);
                for act in acts.get(&i).into_iter().flatten() {
                    if let Act::Tick(grace) = act {
                        driver.engine.tick(event.ts - grace);
                    }
                }
            }
            let store = at_work.engine.store();
            let changed: BTreeSet<String> = store.dirty().iter().map(|c| store.id(*c).to_string()).collect();
            prop_assert_eq!(by_customer(straight.commit()), by_customer(at_work.commit()));
            let states = at_work.states();
            for customer in &changed {
                prop_assert!(behind.engine.restore(customer, &states[customer]).is_ok());
            }
            let (most, few) = settles[i % settles.len()];
            behind.engine.settle_some(most, few);
            // Who has worked so far follows from now on.
            if turns.contains(&i) {
                behind.engine.finish_restore();
                prop_assert_eq!(behind.engine.population(), straight.engine.population());
                prop_assert_eq!(behind.engine.population(), behind.recount());
                std::mem::swap(&mut at_work, &mut behind);
            }
        }
        let until = all.iter().map(|(_, e)| e.ts).max().unwrap_or(START) + 50 * DAY_MS;
        behind.engine.finish_restore();
        for driver in [&mut straight, &mut at_work, &mut behind] {
            driver.engine.run_until(until);
        }
        let right = by_customer(straight.commit());
        prop_assert_eq!(&right, &by_customer(at_work.commit()));
        prop_assert_eq!(&right, &by_customer(behind.commit()));
        prop_assert_eq!(straight.states(), at_work.states());
        prop_assert_eq!(straight.states(), behind.states());
    }

    #[test]
    fn a_rollback_anywhere_changes_nothing(
        all in customers(LATE),
        acts in acts(),
        spans in vec((any::<Index>(), 1..12usize), 1..5),
        lifecycles in any_lifecycles(),
    ) {
        let plan = plan(&lifecycles, settings());
        let acts = placed(&acts, all.len());
        let mut spans: BTreeMap<usize, usize> = spans.iter().map(|(i, n)| (i.index(all.len()), *n)).collect();
        let (mut straight, mut rolled) = (Driver::new(&plan), Driver::new(&plan));
        let go = |driver: &mut Driver, i: usize| {
            let (customer, event) = &all[i];
            apply(driver, customer, event);
            for act in acts.get(&i).into_iter().flatten() {
                if let Act::Tick(grace) = act {
                    driver.engine.tick(event.ts - grace);
                }
            }
            assert_eq!(driver.engine.population(), driver.recount(), "the population is what is there");
        };
        // A rollback leaves customers alone whom silence rescored without a word, and the timers where they are;
        // so when silence is looked at may differ, what is found there may not.
        let (mut written, mut rewritten) = (Vec::new(), Vec::new());
        for i in 0..all.len() {
            if let Some(span) = spans.remove(&i) {
                written.extend(straight.commit());
                rewritten.extend(rolled.commit());
                let (before, population) = (rolled.states(), rolled.engine.population().to_vec());
                (i..(i + span).min(all.len())).for_each(|i| go(&mut rolled, i));
                rolled.engine.rollback();
                prop_assert_eq!(rolled.engine.store().len(), before.len());
                prop_assert_eq!(rolled.engine.population(), population);
                prop_assert_eq!(rolled.engine.population(), rolled.recount());
                prop_assert!(rolled.outputs().is_empty());
            }
            go(&mut straight, i);
            go(&mut rolled, i);
        }
        let until = all.iter().map(|(_, e)| e.ts).max().unwrap_or(START) + 2 * DAY_MS;
        straight.engine.run_until(until);
        rolled.engine.run_until(until);
        written.extend(straight.commit());
        rewritten.extend(rolled.commit());
        prop_assert_eq!(straight.states(), rolled.states());
        prop_assert_eq!(straight.engine.quality.ledger(), rolled.engine.quality.ledger());
        prop_assert_eq!(by_customer(written), by_customer(rewritten));
    }
}

proptest! {
    #![proptest_config(tries(48))]

    #[test]
    fn how_many_stay_awake_changes_nothing(
        all in customers(LATE),
        acts in acts(),
        lifecycles in any_lifecycles(),
        awake_least in 0..4usize,
    ) {
        let with = |awake_least| plan(&lifecycles, Settings { awake_least, ..settings() });
        let acts = placed(&acts, all.len());
        let (mut resting, mut awake) = (Driver::new(&with(awake_least)), Driver::new(&with(1_000)));
        let (mut written, mut rewritten) = (Vec::new(), Vec::new());
        for (i, (customer, event)) in all.iter().enumerate() {
            for (driver, written) in [(&mut resting, &mut written), (&mut awake, &mut rewritten)] {
                apply(driver, customer, event);
                for act in acts.get(&i).into_iter().flatten() {
                    match act {
                        Act::Tick(grace) => drop(driver.engine.tick(event.ts - grace)),
                        _ => written.extend(driver.commit()),
                    }
                }
            }
            prop_assert_eq!(resting.engine.worth(), awake.engine.worth());
        }
        let until = all.iter().map(|(_, e)| e.ts).max().unwrap_or(START) + 2 * DAY_MS;
        for (driver, written) in [(&mut resting, &mut written), (&mut awake, &mut rewritten)] {
            driver.engine.run_until(until);
            written.extend(driver.commit());
        }
        prop_assert_eq!(written, rewritten);
        prop_assert_eq!(resting.states(), awake.states());
        prop_assert!(resting.engine.store().awake() <= awake_least, "they are at rest");
    }
}

// Bytes from outside

/// A change of an encoded state.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(i, b)| Damage::Set(i, b)),
        4 => (any::<Index>(), 0..8u8).prop_map(|(i, b)| Damage::Flip(i, b)),
        1 => any::<Index>().prop_map(Damage::Cut),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(i, b)| Damage::Insert(i, b)),
    ]
}

impl Damage {
    fn harm(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        match self {
            Damage::Set(i, b) => bytes[i.index(len)] = *b,
            Damage::Flip(i, bit) => bytes[i.index(len)] ^= 1 << bit,
            Damage::Cut(i) => bytes.truncate(i.index(len)),
            Damage::Insert(i, b) => bytes.insert(i.index(len), *b),
        }
    }
}

proptest! {
    #![proptest_config(tries(512))]

    #[test]
    fn no_bytes_make_the_engine_panic(
        events in histories(LATE),
        damages in vec(damage(), 1..4),
        with_checksum in prop::bool::weighted(0.9),
        more in histories(LATE),
    ) {
        let lifecycle = stagecast::pipeline::lifecycle::preset("retention").expect("a preset").to_owned();
        let plan = plan(&[lifecycle], settings());
        let mut driver = Driver::new(&plan);
        events.iter().for_each(|event| { apply(&mut driver, "c", event); });
        let mut bytes = driver.states()["c"].clone();
        bytes.truncate(bytes.len() - 4);
        damages.iter().for_each(|damage| damage.harm(&mut bytes));
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes) as u32;
        bytes.extend_from_slice(&(checksum ^ u32::from(!with_checksum)).to_le_bytes());
        let mut other = Driver::new(&plan);
        let restored = other.engine.restore("c", &bytes);
        prop_assert!(with_checksum || restored.is_err());
        if restored.is_ok() {
            survive(&mut other, &more);
        }
    }
}

/// Puts an engine with one customer of any state through everything that it does.
fn survive(driver: &mut Driver, more: &[Ev]) {
    driver.engine.finish_restore();
    let index = driver.engine.store().find("c").expect("a customer");
    let now = driver.engine.view(index, Ts::MIN).at;
    driver.engine.tick(now.saturating_add(DAY_MS));
    for event in more {
        apply(driver, "c", event);
    }
    driver.engine.run_until(now.saturating_add(DAY_MS).min(START + 400 * DAY_MS));
    driver.states();
    driver.engine.view(index, now);
    driver.engine.rollback();
    driver.states();
}

// Silence without end

const RESTLESS: &str = r#"
name = "restless"
initial = "a"
[[stage]]
name = "a"
enter = "stage_days > 0"
stay = "false"
[[stage]]
name = "b"
enter = "stage_days > 0"
stay = "false"
"#;

#[test]
fn stages_that_take_turns_in_silence_do_so_once_a_second_and_not_for_ever() {
    let lifecycles = [RESTLESS.to_owned()];
    let plan = plan(&lifecycles, settings());
    let events = [Ev::click(START).with_id("a"), Ev::click(START + HOUR_MS).with_id("b")];
    let until = START + 3 * DAY_MS;
    let mut driver = Driver::new(&plan);
    events.iter().for_each(|event| {
        apply(&mut driver, "c", event);
    });
    driver.engine.run_until(until);
    let outputs: Vec<Out> = driver.commit().into_iter().filter(|out| !is_outcome(out)).collect();
    let changes: Vec<&Out> = outputs.iter().filter(|o| o.channel == Channel::StageChanges).collect();
    let at = |i: usize| parse_rfc3339(changes[i].json()["ts"].as_str().expect("ts")).expect("ts") - START;
    assert_eq!([at(0), at(1), at(2)], [1, 1 + SECOND_MS, 1 + 2 * SECOND_MS]);
    let in_first_hour = changes.iter().filter(|o| o.ts < START + HOUR_MS).count();
    assert_eq!(in_first_hour, 1_000, "then it waits for the next event");
    assert!((2_000..2_010).contains(&changes.len()), "{}: rescoring goes on", changes.len());
    let want: Vec<Value> =
        naive_outputs(&plan, &lifecycles, &events, until).iter().map(|o| as_json("c", o)).collect();
    assert_eq!(outputs.iter().map(known_to_naive).collect::<Vec<_>>(), want);
}

#[test]
fn a_dropped_repetition_changes_nothing_at_all() {
    let plan = plan(&[], settings());
    let mut driver = Driver::new(&plan);
    apply(&mut driver, "c", &Ev::click(START).with_id("a"));
    let before = driver.states();
    let again = Ev::order(START + DAY_MS, 9.0).with_id("a");
    assert_eq!(apply(&mut driver, "c", &again), Applied::Duplicate);
    assert_eq!(driver.states(), before);
    assert_eq!(apply(&mut driver, "c", &Ev { ts: again.ts + 1, ..again }), Applied::InOrder);
}

/// A commit must come in its time, however much silence is due at once, be it of one customer.
#[test]
fn long_silence_is_lived_through_in_parts_and_to_the_same_end() {
    let retention = stagecast::pipeline::lifecycle::preset("retention").expect("a preset").to_owned();
    let plan = plan(&[retention], Settings::default());
    let (long_ago, now) = (START - 600 * 365 * DAY_MS, START);
    let clicks = |driver: &mut Driver| {
        for (customer, ts) in [("old", long_ago), ("older", long_ago - DAY_MS), ("new", START - 3 * DAY_MS)] {
            let json = format!(r#"{{"customer_id":"{customer}","type":"page_viewed","ts":{ts}}}"#);
            driver.apply(Source::Clickstream, json.as_bytes());
        }
        driver.commit();
    };
    let (mut whole, mut parts, mut runs) = (Driver::new(&plan), Driver::new(&plan), Driver::new(&plan));
    [&mut whole, &mut parts, &mut runs].into_iter().for_each(clicks);
    whole.engine.run_until(now);
    whole.commit();
    let mut ticks = 0;
    while parts.engine.tick(now) {
        parts.commit();
        ticks += 1;
    }
    parts.commit();
    // Wheels name instants at no more than a few seconds early or late; what is left is lived through here.
    parts.engine.run_until(now);
    parts.commit();
    let (mut from, mut rounds) = (Some(0), 0);
    while let Some(next) = from {
        from = runs.engine.run_on(now, next);
        runs.commit();
        rounds += 1;
    }
    assert!(ticks > 15 && rounds > 15, "438,000 instants came in {ticks} and {rounds} parts");
    for customer in ["old", "older", "new"] {
        assert_eq!(parts.states()[customer], whole.states()[customer], "{customer}");
        assert_eq!(runs.states()[customer], whole.states()[customer], "{customer}");
    }
}
