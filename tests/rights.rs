//! A customer's rights, against the engine itself: whatever is erased, stopped, restored or taken back, what is
//! written is a function of the customer's own events, and nothing from before an erasure is in it.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use stagecast::event::Source;
use stagecast::pipeline::engine::Applied;
use stagecast::pipeline::erasure::OptOut;
use stagecast::pipeline::lifecycle::preset;
use stagecast::pipeline::outbox::Channel;
use stagecast::pipeline::plan::{Plan, Policy, PolicyOn, Privacy, Settings};
use stagecast::time::{DAY_MS, HOUR_MS, Ts, format_rfc3339};
use support::{Driver, Out, plan};

const START: Ts = 1_767_225_600_000;
const OPT_OUT_MS: i64 = 3 * DAY_MS;

fn tries(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(cases);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn a_plan() -> Arc<Plan> {
    let lifecycles = ["retention", "matrix"].map(|name| preset(name).expect("a preset").to_owned());
    let on = PolicyOn::Score { raise: 0.5, clear: 0.4 };
    let policies = vec![Policy { on, cooldown_ms: DAY_MS, ..Policy::default() }];
    let privacy = Privacy { opt_out_ms: OPT_OUT_MS, ..Privacy::default() };
    plan(&lifecycles, Settings { policies, privacy, ..Settings::default() })
}

/// One record of a history.
#[derive(Clone, Debug)]
struct Step {
    ts: Ts,
    customer: &'static str,
    source: Source,
    kind: &'static str,
    more: &'static str,
    id: Option<u8>,
}

impl Step {
    fn json(&self) -> String {
        let Step { customer, kind, more, .. } = self;
        let id = self.id.map_or(String::new(), |id| format!(r#","event_id":"e{id}""#));
        let ts = format_rfc3339(self.ts);
        format!(r#"{{"customer_id":"{customer}","type":"{kind}","ts":"{}"{id}{more}}}"#, ts.as_str())
    }

    fn is_erasure(&self) -> bool {
        self.kind == "customer_deleted"
    }
}

/// What can happen, and how often.
fn kinds() -> impl Strategy<Value = (Source, &'static str, &'static str)> {
    prop_oneof![
        4 => Just((Source::Clickstream, "product_viewed", "")),
        2 => Just((Source::Clickstream, "product_added", r#","channel":"app""#)),
        2 => Just((Source::Purchase, "order_completed", r#","amount":25,"channel":"store""#)),
        2 => Just((Source::Purchase, "order_completed", r#","amount":25,"channel":"app""#)),
        1 => Just((Source::Profile, "traits_updated", r#","traits":{"main_channel":"web"}"#)),
        1 => Just((Source::Support, "ticket_opened", "")),
        1 => Just((Source::Profile, "traits_updated", r#","traits":{"segment":"smb"}"#)),
        2 => Just((Source::Profile, "customer_deleted", "")),
        2 => Just((Source::Profile, "traits_updated", r#","traits":{"consent":false}"#)),
        1 => Just((Source::Profile, "traits_updated", r#","traits":{"consent":null}"#)),
    ]
}

/// Histories of three customers; some events are late by up to `late_ms`.
fn histories(late_ms: i64) -> impl Strategy<Value = Vec<Step>> {
    let gap = select(vec![0, 1_000, HOUR_MS, 9 * HOUR_MS, DAY_MS, 4 * DAY_MS, 40 * DAY_MS]);
    let step = (gap, 0..=late_ms, select(vec!["a", "b", "c"]), kinds(), prop::option::weighted(0.3, 0..20u8));
    vec(step, 1..60).prop_map(|steps| {
        let mut clock = START;
        let at = |(gap, late, customer, (source, kind, more), id)| {
            clock += gap;
            Step { ts: clock - late, customer, source, kind, more, id }
        };
        steps.into_iter().map(at).collect()
    })
}

/// Longer than any event is late.
const GRACE_MS: i64 = 6 * HOUR_MS;

/// Applies a step and lets the partition's clock follow.
fn apply(driver: &mut Driver, step: &Step) -> Applied {
    let applied = driver.apply(step.source, step.json().as_bytes());
    driver.engine.tick(step.ts - GRACE_MS);
    assert_eq!(driver.engine.population(), driver.recount(), "the population is what is there");
    applied
}

type Remembered = BTreeMap<Vec<u8>, Vec<u8>>;

/// The state topic of a partition: states and opt-outs, written at every commit.
#[derive(Default)]
struct Log {
    states: BTreeMap<String, Vec<u8>>,
    remembered: Remembered,
}

impl Log {
    /// What the worker sends with a commit.
    fn write(&mut self, driver: &Driver) {
        let (engine, store) = (&driver.engine, driver.engine.store());
        for index in store.dirty() {
            let id = store.id(*index).to_string();
            self.states.remove(&id);
            if !store.is_erased(*index) {
                let mut bytes = Vec::new();
                engine.encode(*index, &mut bytes);
                self.states.insert(id, bytes);
            }
        }
        for (hash, opt_out) in engine.opt_outs().changes() {
            self.remembered.remove(&OptOut::key(hash));
            if let Some(opt_out) = opt_out {
                self.remembered.insert(OptOut::key(hash), opt_out.encode());
            }
        }
    }

    fn restored(&self, plan: &Arc<Plan>) -> Driver {
        let mut driver = Driver::new(plan);
        for (key, value) in &self.remembered {
            let hash = OptOut::of_key(key).expect("a key of ours");
            driver.engine.restore_opt_out(hash, Some(value)).expect("what was written");
        }
        for (id, bytes) in &self.states {
            driver.engine.restore(id, bytes).expect("what was written");
        }
        driver.engine.finish_restore();
        driver
    }
}

fn by_customer(outputs: Vec<Out>) -> BTreeMap<String, Vec<Out>> {
    let mut all: BTreeMap<String, Vec<Out>> = BTreeMap::new();
    outputs.into_iter().for_each(|out| all.entry(out.key.clone()).or_default().push(out));
    all
}

fn until(steps: &[Step]) -> Ts {
    steps.iter().map(|s| s.ts).max().unwrap_or(START) + 100 * DAY_MS
}

proptest! {
    #![proptest_config(tries(64))]

    #[test]
    fn erasures_survive_restarts_and_rollbacks_anywhere(
        steps in histories(5 * HOUR_MS),
        stops in vec(any::<Index>(), 0..4),
        spans in vec((any::<Index>(), 1..10usize), 0..4),
    ) {
        let plan = a_plan();
        let (mut straight, mut broken) = (Driver::new(&plan), Driver::new(&plan));
        let (mut written, mut rewritten, mut log) = (Vec::new(), Vec::new(), Log::default());
        let stops: Vec<usize> = stops.iter().map(|i| i.index(steps.len())).collect();
        let spans: BTreeMap<usize, usize> = spans.iter().map(|(i, n)| (i.index(steps.len()), *n)).collect();
        for (i, step) in steps.iter().enumerate() {
            if let Some(span) = spans.get(&i) {
                log.write(&broken);
                rewritten.extend(broken.commit());
                // Silence that was lived through without a word may stay.
                let there = |driver: &Driver| {
                    let ids: Vec<String> = driver.states().into_keys().collect();
                    (ids, driver.engine.population().to_vec(), driver.engine.opt_outs().len())
                };
                let before = there(&broken);
                let next = &steps[i..(i + span).min(steps.len())];
                next.iter().for_each(|step| { apply(&mut broken, step); });
                broken.engine.rollback();
                prop_assert_eq!(broken.engine.population(), broken.recount());
                prop_assert_eq!(there(&broken), before);
            }
            prop_assert_eq!(apply(&mut straight, step), apply(&mut broken, step));
            if stops.contains(&i) {
                log.write(&broken);
                rewritten.extend(broken.commit());
                broken = log.restored(&plan);
                prop_assert_eq!(broken.engine.population(), broken.recount());
            }
            written.extend(straight.commit());
        }
        for driver in [&mut straight, &mut broken] {
            driver.engine.run_until(until(&steps));
        }
        written.extend(straight.commit());
        rewritten.extend(broken.commit());
        prop_assert_eq!(straight.states(), broken.states());
        prop_assert_eq!(by_customer(written), by_customer(rewritten));
    }

    #[test]
    fn what_comes_back_after_an_erasure_knows_nothing_of_before(steps in histories(0)) {
        let plan = a_plan();
        let (mut driver, mut written) = (Driver::new(&plan), Vec::new());
        let mut fresh: BTreeMap<&str, (Driver, Vec<Out>)> = BTreeMap::new();
        let mut erased: BTreeMap<&str, Ts> = BTreeMap::new();
        for step in &steps {
            let applied = apply(&mut driver, step);
            written.extend(driver.commit());
            let gone = erased.get(step.customer).is_some_and(|at| step.ts < at + OPT_OUT_MS);
            let asks_anew = step.is_erasure() && erased.get(step.customer).is_none_or(|at| step.ts > *at);
            let repeated = applied == Applied::Duplicate;
            prop_assert_eq!(applied == Applied::OptedOut, gone && !asks_anew);
            let (alone, outputs) =
                fresh.entry(step.customer).or_insert_with(|| (Driver::new(&plan), Vec::new()));
            if step.is_erasure() && asks_anew && !repeated {
                // It lives on until the erasure and not an instant longer; then somebody else begins.
                alone.engine.run_until(step.ts - 1);
                outputs.extend(alone.commit());
                *alone = Driver::new(&plan);
                erased.insert(step.customer, step.ts);
            } else if !gone {
                apply(alone, step);
                outputs.extend(alone.commit());
            }
        }
        driver.engine.run_until(until(&steps));
        written.extend(driver.commit());
        let (receipts, written): (Vec<Out>, Vec<Out>) =
            written.into_iter().partition(|o| o.channel == Channel::Erasures || o.bytes.is_empty());
        let expected: BTreeMap<String, Vec<Out>> = fresh
            .into_iter()
            .map(|(customer, (mut alone, mut outputs))| {
                alone.engine.run_until(until(&steps));
                outputs.extend(alone.commit());
                outputs.retain(|out| !out.bytes.is_empty());
                (customer.to_owned(), outputs)
            })
            .filter(|(_, outputs)| !outputs.is_empty())
            .collect();
        prop_assert_eq!(by_customer(written), expected);
        for receipt in receipts.iter().filter(|r| r.channel == Channel::Erasures) {
            let text = String::from_utf8_lossy(&receipt.bytes);
            prop_assert!(!text.contains("\"a\"") && !text.contains("\"b\"") && !text.contains("\"c\""));
        }
    }
}
