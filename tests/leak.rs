//! The control for leaks: customers whose future is drawn anew at every instant, so that nothing before a cut can
//! tell what comes after it. A model that does better than chance here has seen the future.
//!
//! The second test is the control of the control: features from a month later know the outcome at once, so that a
//! leak of that size could not stay hidden.

use std::fmt::Write;
use std::path::Path;

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use stagecast::config::Config;
use stagecast::evaluate::{self, Request};
use stagecast::model::artifact::Label;
use stagecast::model::metrics::roc_auc;
use stagecast::model::{Dataset, Model};
use stagecast::pipeline::outbox::hash_customer;
use stagecast::replay::{Inputs, Merged};
use stagecast::simulate::START;
use stagecast::time::{DAY_MS, Ts, format_rfc3339};
use stagecast::training::{self, Task, examples};

const CUSTOMERS: u64 = 350;
const MONTHS: i64 = 14;
const MONTH: i64 = 30 * DAY_MS;

/// Every customer clicks once a month in the mean and orders so often that half of them do within a month, both
/// without memory: at any instant, whatever happened before it says nothing of what comes.
fn write_coins(folder: &Path) {
    let mut rng = Pcg64::seed_from_u64(17);
    let mut unit = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut events: Vec<(Ts, &str, String)> = Vec::new();
    let kinds = [
        ("clickstream", "page_viewed", 1.0, ""),
        ("purchase", "order_completed", std::f64::consts::LOG2_E, r#","amount":10"#),
    ];
    for customer in 0..CUSTOMERS {
        for (topic, kind, mean_months, more) in kinds {
            let mut ts = START;
            loop {
                ts += (-(1.0 - unit()).ln() * mean_months * MONTH as f64) as Ts;
                if ts >= START + MONTHS * MONTH {
                    break;
                }
                let when = format_rfc3339(ts);
                let json = format!(r#"{{"customer_id":"c{customer}","type":"{kind}","ts":"{when}"{more}}}"#);
                events.push((ts, topic, json));
            }
        }
    }
    events.sort();
    for topic in ["clickstream", "purchase"] {
        let mut text = String::new();
        for (_, _, json) in events.iter().filter(|(_, of, _)| *of == topic) {
            writeln!(text, "{json}").unwrap();
        }
        std::fs::write(folder.join(format!("{topic}.ndjson")), text).unwrap();
    }
}

fn task(until: Option<Ts>) -> Task {
    Task {
        name: "coins".into(),
        label: Label::NoOrder,
        horizon: MONTH,
        lead: 0,
        active_within: 90 * DAY_MS,
        cuts: Vec::new(),
        until,
        monotone: false,
    }
}

#[test]
fn a_future_that_nothing_tells_is_scored_no_better_than_by_chance() {
    let dir = tempfile::tempdir().unwrap();
    write_coins(dir.path());
    let config = Config::default();
    let open = || Ok(Merged::new(Inputs::open(dir.path(), &config)?, &config));
    let until = START + 10 * MONTH;
    let model: Model = training::train(&open, &config, &task(Some(until)), &|_| {}).unwrap().model;
    assert!(model.value.is_some(), "what is foretold of orders is a candidate too");
    let request = Request { cuts: Vec::new(), unseen: false, segment: "segment".into() };
    let judged = evaluate::evaluate(&open, &config, &model, &request, &|_| {}).unwrap();
    assert!(judged.held_back && judged.scores.examples > 1_000);
    for (name, auc) in [("held back", model.training.held_back.roc_auc), ("unseen", judged.scores.roc_auc)] {
        assert!((0.44..0.56).contains(&auc.value), "{name}: {auc:?} {:?}", model.terms);
    }
    assert!((judged.scores.mean_p - 0.5).abs() < 0.05, "{}", judged.scores.mean_p);
}

#[test]
fn a_leak_of_one_horizon_would_show() {
    let dir = tempfile::tempdir().unwrap();
    write_coins(dir.path());
    let config = Config::default();
    let cuts: Vec<Ts> = (4..8).map(|month| START + month * MONTH).collect();
    let take = |cuts: &[Ts]| -> Dataset {
        let plan = stagecast::setup::plan_for_features(&config).unwrap();
        let mut events = Merged::new(Inputs::open(dir.path(), &config).unwrap(), &config);
        examples::take(plan, &task(None), cuts, 0, &mut events, &|_| {}).unwrap().dataset
    };
    let later: Vec<Ts> = cuts.iter().map(|cut| cut + MONTH).collect();
    let (honest, leaking) = (take(&cuts), take(&later));
    let column = honest.names.iter().position(|name| name == "days_since_order").unwrap();
    let mut pairs: Vec<(f64, f64, bool)> = Vec::new();
    for row in 0..honest.label.len() {
        let same = |i: &usize| {
            leaking.customer[*i] == honest.customer[row] && leaking.at[*i] == honest.at[row] + MONTH
        };
        // Who did nothing for long is no example a month later.
        let Some(ahead) = (0..leaking.label.len()).find(same) else { continue };
        pairs.push((honest.rows[[row, column]], leaking.rows[[ahead, column]], honest.label[row]));
    }
    let labels: Vec<bool> = pairs.iter().map(|(_, _, churned)| *churned).collect();
    let auc = |of: &dyn Fn(&(f64, f64, bool)) -> f64| {
        roc_auc(&pairs.iter().map(of).collect::<Vec<f64>>(), &labels).unwrap()
    };
    assert!((0.44..0.56).contains(&auc(&|(honest, _, _)| *honest)));
    assert!(auc(&|(_, leaking, _)| *leaking) > 0.99);
    assert!(honest.customer.contains(&hash_customer("c1")));
}
