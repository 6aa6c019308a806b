//! State that another configuration wrote: what is known to both keeps its value, and a changed lifecycle
//! reconciles every customer once, wherever it is stopped in between.

mod naive;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use naive::arbitrary::{START, Shape, Vocabulary, histories, lifecycles_over};
use naive::{Ev, Kind};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use stagecast::event::Source;
use stagecast::event::money::Money;
use stagecast::pipeline::catalogue::Catalogue;
use stagecast::pipeline::facts::FeatureNames;
use stagecast::pipeline::migrate::new_features;
use stagecast::pipeline::outbox::Channel;
use stagecast::pipeline::plan::{Plan, Settings};
use stagecast::time::{DAY_MS, Ts};
use support::{Driver, Out, plan};

/// `PROPTEST_CASES` overrides how often each property is tried.
fn tries(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(cases);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 4_000, ..ProptestConfig::default() }
}

fn settings() -> Settings {
    let money = Money { base: "EUR".into(), rates: naive::arbitrary::money().rates };
    Settings { money, ..Settings::default() }
}

fn source(kind: Kind) -> Source {
    Source::from_name(kind.name()).expect("a source")
}

fn apply(driver: &mut Driver, customer: &str, event: &Ev) {
    driver.apply(source(event.kind), event.to_json(customer).to_string().as_bytes());
}

fn newest(events: &[Ev]) -> Ts {
    events.iter().map(|e| e.ts).max().unwrap_or(START)
}

/// Some of the shipped features, each over some of its windows.
fn catalogues() -> impl Strategy<Value = Catalogue> {
    let shipped = Catalogue::shipped().declarations.len();
    vec((any::<bool>(), any::<u8>()), shipped).prop_map(|choices| {
        let mut declarations = Catalogue::shipped().declarations;
        for (declaration, (_, windows)) in declarations.iter_mut().zip(&choices) {
            let all = std::mem::take(&mut declaration.windows);
            let chosen =
                all.iter().enumerate().filter(|(i, _)| windows >> i & 1 == 1).map(|(_, w)| w.clone());
            declaration.windows = chosen.collect();
            if declaration.windows.is_empty() {
                declaration.windows = all;
            }
        }
        let chosen = declarations.into_iter().zip(choices).filter(|(_, (stays, _))| *stays).map(|(d, _)| d);
        Catalogue { declarations: chosen.collect() }
    })
}

/// The states of one layout as an engine of another takes them in.
fn carried(from: &Plan, to: &Arc<Plan>, states: &BTreeMap<String, Vec<u8>>) -> Driver {
    let mut driver = Driver::new(to);
    driver.engine.learn_layout(from.layout_id, from.description.clone());
    for (id, bytes) in states {
        driver.engine.restore(id, bytes).unwrap_or_else(|error| panic!("{id}: {error}"));
    }
    driver.engine.finish_restore();
    driver
}

proptest! {
    #![proptest_config(tries(96))]

    /// True of every feature that both keep all of; not of those that `run` names as new when it starts.
    #[test]
    fn features_that_both_catalogues_keep_are_what_they_would_always_have_been(
        (before, after) in (catalogues(), catalogues()),
        events in histories(Shape { late: true, ..Shape::default() }),
        (split, later) in (any::<Index>(), 0..100 * DAY_MS),
    ) {
        let plan = |catalogue: &Catalogue| Arc::new(Plan::for_features(catalogue, settings()).unwrap());
        let (before, after) = (plan(&before), plan(&after));
        let split = split.index(events.len()) + 1;
        let mut old = Driver::new(&before);
        events[..split].iter().for_each(|event| apply(&mut old, "c", event));
        let mut migrated = carried(&before, &after, &old.states());
        let mut always = Driver::new(&after);
        events.iter().for_each(|event| apply(&mut always, "c", event));
        events[split..].iter().for_each(|event| apply(&mut migrated, "c", event));
        // What was migrated is a state like any other.
        let again = Driver::restored(&after, &migrated.states());
        prop_assert_eq!(again.states(), migrated.states());
        let new: BTreeSet<&str> = new_features(&after, &before.description).into_iter().collect();
        let at = newest(&events) + later;
        let (got, want) = (migrated.engine.view(0, at).features, always.engine.view(0, at).features);
        for feature in after.layout.features.iter().filter(|f| before.layout.id(&f.name).is_some()) {
            let id = after.layout.id(&feature.name).unwrap().index();
            if !new.contains(feature.name.as_str()) {
                prop_assert_eq!(got[id], want[id], "{}", &feature.name);
            }
        }
    }
}

const ALL_WORDS: Vocabulary = Vocabulary { traits: true, p_churn: true };

fn lives() -> impl Strategy<Value = Vec<Vec<Ev>>> {
    vec(histories(Shape { max_events: 15, ..Shape::default() }), 1..5)
}

fn by_customer(outputs: Vec<Out>) -> BTreeMap<String, Vec<Out>> {
    let mut sorted: BTreeMap<String, Vec<Out>> = BTreeMap::new();
    outputs.into_iter().for_each(|out| sorted.entry(out.key.clone()).or_default().push(out));
    sorted
}

fn reconcile(driver: &mut Driver, at: Ts) -> BTreeMap<String, Vec<Out>> {
    while driver.engine.reconcile(at) {}
    by_customer(driver.commit())
}

proptest! {
    #![proptest_config(tries(64))]

    #[test]
    fn a_changed_lifecycle_reconciles_every_customer_once_wherever_it_is_stopped(
        lives in lives(),
        (old, new) in (lifecycles_over("x", ALL_WORDS), lifecycles_over("x", ALL_WORDS)),
        beside in lifecycles_over("y", ALL_WORDS),
        (stopped_after, later) in (any::<Index>(), 0..60 * DAY_MS),
    ) {
        let before = plan(&[old, beside.clone()], settings());
        let after = plan(&[beside, new], settings());
        let until = lives.iter().map(|events| newest(events)).max().unwrap_or(START);
        let mut first = Driver::new(&before);
        for (i, events) in lives.iter().enumerate() {
            events.iter().for_each(|event| apply(&mut first, &format!("c{i}"), event));
        }
        first.engine.run_until(until);
        let told = by_customer(first.commit());
        let states = first.states();
        let mut driver = carried(&before, &after, &states);
        let changed = before.description.lifecycles[0] != after.description.lifecycles[1];
        prop_assert_eq!(driver.engine.to_reconcile(), if changed { states.len() } else { 0 });
        let outputs = reconcile(&mut driver, until);
        // Every change says why, and goes on where the customer's earlier ones ended.
        for (customer, records) in &outputs {
            let is_change = |out: &&Out| out.channel == Channel::StageChanges;
            let known = told.get(customer).into_iter().flatten().filter(is_change).count();
            for (n, out) in records.iter().filter(is_change).enumerate() {
                prop_assert_eq!(&out.json()["trigger"], "definition");
                prop_assert_eq!(out.json()["sequence"].as_u64(), Some((known + n) as u64 + 1));
            }
        }
        let recount = driver.recount();
        prop_assert_eq!(driver.engine.population(), &recount[..]);
        // Stopped after some of them were committed: the others are done, and nobody is done again.
        let done = driver.states();
        let some = stopped_after.index(states.len() + 1);
        let mixed = states.iter().enumerate().map(|(i, (id, old))| {
            (id.clone(), if i < some { done[id].clone() } else { old.clone() })
        });
        let mut resumed = carried(&before, &after, &mixed.collect());
        let rest: BTreeMap<_, _> =
            outputs.iter().filter(|(id, _)| !states.keys().take(some).any(|s| s == *id)).collect();
        let told_again = reconcile(&mut resumed, until);
        prop_assert_eq!(told_again.iter().collect::<BTreeMap<_, _>>(), rest);
        prop_assert_eq!(resumed.states(), done.clone());
        prop_assert_eq!(carried(&before, &after, &done).engine.to_reconcile(), 0);
        // And time goes on alike.
        driver.engine.run_until(until + later);
        resumed.engine.run_until(until + later);
        prop_assert_eq!(by_customer(driver.commit()), by_customer(resumed.commit()));
    }
}
