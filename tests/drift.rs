//! Drift: on customers as in training there is none, on others there is, and no restart changes what was counted.

mod support;

use std::sync::{Arc, OnceLock};

use stagecast::config::Config;
use stagecast::event::Source;
use stagecast::model::Model;
use stagecast::model::artifact::Label;
use stagecast::pipeline::drift::{Census, Counts, Drift};
use stagecast::pipeline::engine::Engine;
use stagecast::pipeline::plan::Plan;
use stagecast::replay::{Inputs, Merged};
use stagecast::simulate::{Settings, write_files};
use stagecast::time::{DAY_MS, HOUR_MS, Ts};
use stagecast::training::{Skipped, Task, train};
use support::Driver;

/// Customers, and a model that learned from the very weeks that the census is about.
struct World {
    dir: tempfile::TempDir,
    plan: Arc<Plan>,
    last_cut: Ts,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let (dir, config) = (tempfile::tempdir().unwrap(), Config::default());
        let settings = Settings { customers: 500, days: 150, seed: 11, ..Settings::default() };
        write_files(&settings, &dir.path().join("events"), false, &mut |_| {}).unwrap();
        let cuts: Vec<Ts> = (0..10).map(|i| settings.start + (100 + 4 * i) * DAY_MS + 13 * HOUR_MS).collect();
        let task = Task {
            name: "weeks".into(),
            label: Label::NoOrder,
            horizon: 10 * DAY_MS,
            lead: 0,
            active_within: 60 * DAY_MS,
            cuts: cuts.clone(),
            until: None,
            monotone: false,
        };
        let open = || Ok(Merged::new(Inputs::open(&dir.path().join("events"), &config)?, &config));
        let model = train(&open, &config, &task, &|_| {}).unwrap().model;
        let plan = Arc::new(stagecast::setup::plan_of(&config, &model).unwrap());
        World { plan, last_cut: cuts[cuts.len() - 1], dir }
    })
}

/// Lives through the events up to the last cut, without those that `leaves_out` names; `stops` engines on the way.
fn census(leaves_out: impl Fn(Source, Ts) -> bool, stops: usize) -> Census {
    let (world, config) = (world(), Config::default());
    let mut events = Merged::new(Inputs::open(&world.dir.path().join("events"), &config).unwrap(), &config);
    let mut driver = Driver::new(&world.plan);
    let mut applied = 0;
    while let Some(line) = events.next(&mut Skipped::default()).unwrap() {
        let event = line.event();
        if event.ts > world.last_cut || leaves_out(event.source, event.ts) {
            continue;
        }
        driver.engine.tick(event.ts - HOUR_MS);
        driver.engine.step(event);
        applied += 1;
        if applied % 1_000 == 0 {
            // What is taken back is as if it had never been: silence that nothing can come before any more.
            if stops > 0 && applied % 2_000 == 0 {
                driver.engine.commit();
                let before = driver.engine.drift.census().clone();
                driver.engine.tick(event.ts - 1);
                driver.engine.rollback();
                assert_eq!(driver.engine.drift.census(), &before);
            }
            driver.engine.commit();
        }
        if stops > 0 && applied % (30_000 / stops) == 0 {
            driver.engine.commit();
            let counted = driver.engine.drift.census().encode();
            driver = Driver::restored(&world.plan, &driver.states());
            driver.engine.drift = Drift::restored(Census::decode(&counted).unwrap());
        }
    }
    driver.engine.run_until(world.last_cut);
    driver.engine.drift.census().clone()
}

fn psi(census: &Census) -> (Vec<(String, f64)>, f64) {
    let watch = world().plan.watch.as_ref().expect("a trained model says what it saw");
    let mut sum = Counts::default();
    census.add_to(watch, &mut sum);
    let (features, score) = watch.psi(&sum);
    let named =
        watch.names().iter().cloned().zip(features.into_iter().map(|psi| psi.expect("enough are counted")));
    (named.collect(), score.expect("enough are counted"))
}

#[test]
fn customers_as_in_training_do_not_drift_and_customers_who_change_do() {
    let (features, score) = psi(&census(|_, _| false, 0));
    assert!(features.len() >= 5, "{features:?}");
    for (name, psi) in &features {
        assert!(*psi < 0.1, "{name} drifts by {psi} on the customers it was learned from: {features:?}");
    }
    assert!(score < 0.1, "{score}");

    let gone = world().last_cut - 60 * DAY_MS;
    let (features, score) = psi(&census(|source, ts| source == Source::Clickstream && ts > gone, 0));
    let drifted = features.iter().filter(|(_, psi)| *psi > 0.25).count();
    assert!(drifted >= 2 && score > 0.25, "no clicks for 60 days: {features:?}, score {score}");
}

#[test]
fn stops_and_rollbacks_count_nobody_twice_and_leave_nobody_out() {
    let straight = census(|_, _| false, 0);
    assert_ne!(straight, Census::default());
    assert_eq!(census(|_, _| false, 7), straight);
}

#[test]
fn a_model_that_does_not_say_what_it_saw_loads_and_tells_no_drift() {
    let mut model = Model::from_json(stagecast::setup::SHIPPED_MODEL, "shipped").unwrap();
    model.reference = None;
    let plan = stagecast::setup::plan_of(&Config::default(), &model).unwrap();
    assert!(plan.watch.is_none());
    let metrics = stagecast::metrics::Metrics::new(&plan).unwrap().render();
    assert!(metrics.contains("stagecast_feature_drift_psi{feature=\"events_30d\"} NaN"), "{metrics}");
    assert!(metrics.contains("stagecast_score_drift_psi NaN"));
    Engine::new(Arc::new(plan), false);
}
