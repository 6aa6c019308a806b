//! The model that ships, on simulated customers through the engine: it behaves as a shop would expect.

use std::borrow::Cow;
use std::sync::Arc;

use stagecast::config::Config;
use stagecast::event::native::{Envelope, decode};
use stagecast::event::{Event, Field, Numbers, Source};
use stagecast::model::Model;
use stagecast::pipeline::engine::Engine;
use stagecast::setup::{self, SHIPPED_MODEL};
use stagecast::simulate::{Settings, Simulation};
use stagecast::time::{DAY_MS, HOUR_MS, Ts};

const START: Ts = 1_767_225_600_000;

fn engine() -> Engine {
    Engine::new(Arc::new(setup::plan(&Config::default(), None).unwrap()), false)
}

fn event(source: Source, name: &'static str, ts: Ts) -> Event<'static> {
    let mut numbers = Numbers::default();
    if source == Source::Purchase {
        numbers.set(Field::Amount, 40.0);
    }
    let customer_id = Cow::Borrowed("anna");
    Event {
        source,
        customer_id,
        name: Cow::Borrowed(name),
        ts,
        event_id: None,
        numbers,
        profile: None,
        channel: None,
    }
}

/// An order every `gap` days, each after a session of six clicks, and a look around in between.
fn buyer(engine: &mut Engine, orders: i64, gap: i64) -> Ts {
    let mut last = START;
    for order in 0..orders {
        let day = START + order * gap * DAY_MS + 9 * HOUR_MS;
        for (minutes, name) in
            [(0, "page_viewed"), (3, "product_viewed"), (5, "product_viewed"), (8, "product_added")]
        {
            engine.step(&event(Source::Clickstream, name, day + minutes * 60_000));
        }
        engine.step(&event(Source::Clickstream, "checkout_started", day + 10 * 60_000));
        last = day + 12 * 60_000;
        engine.step(&event(Source::Purchase, "order_completed", last));
        if order + 1 < orders {
            engine.step(&event(Source::Clickstream, "product_viewed", day + gap * DAY_MS / 2));
        }
    }
    last
}

#[test]
fn the_longer_a_buyer_is_silent_the_higher_the_risk() {
    for (orders, gap) in [(2, 30), (5, 20), (6, 30), (12, 14), (20, 7)] {
        let mut engine = engine();
        let last = buyer(&mut engine, orders, gap);
        let index = engine.store().find("anna").unwrap();
        let p: Vec<f64> = (0..=120).map(|day| engine.view(index, last + day * DAY_MS).p_churn).collect();
        // A trend over two fortnights is back at nothing after four weeks of silence: by less than is ever told.
        let told = Config::default().scores.min_change;
        let mut highest = 0.0f64;
        for (day, p) in p.iter().enumerate() {
            highest = highest.max(*p);
            assert!(
                *p > highest - told / 2.0,
                "{orders} orders every {gap} d: day {day}: {highest} falls to {p}"
            );
        }
        assert!(p[120] > 0.7, "{orders} orders every {gap} d: {} after 120 days", p[120]);
        assert!(p[120] > p[0] + 0.3, "{orders} orders every {gap} d: {} to {}", p[0], p[120]);
    }
}

#[test]
fn the_more_often_a_customer_buys_the_lower_the_risk() {
    let p = |orders, gap| {
        let mut engine = engine();
        let last = buyer(&mut engine, orders, gap);
        let index = engine.store().find("anna").unwrap();
        engine.view(index, last + DAY_MS).p_churn
    };
    let risks = [p(2, 45), p(4, 30), p(8, 14), p(16, 7)];
    assert!(risks.is_sorted_by(|a, b| a > b), "{risks:?}");
    assert!(risks[3] < 0.3, "a weekly buyer is safe: {risks:?}");
}

#[test]
fn simulated_customers_reach_every_band() {
    let mut engine = engine();
    let settings = Settings { customers: 150, days: 150, seed: 11, ..Settings::default() };
    let money = engine.plan().settings.money.clone();
    for record in Simulation::new(&settings).unwrap() {
        let envelope = Envelope { source: record.source, key: None, timestamp: None, latest: None };
        engine.step(&decode(record.json.as_bytes(), &envelope, &money).unwrap());
        engine.commit();
    }
    let p: Vec<f64> = engine.store().indices().map(|i| engine.view(i, settings.end()).p_churn).collect();
    let share =
        |from: f64, to: f64| p.iter().filter(|p| (from..to).contains(*p)).count() as f64 / p.len() as f64;
    let bands = [share(0.0, 0.3), share(0.3, 0.7), share(0.7, 1.1)];
    assert!(bands.iter().all(|share| *share > 0.05), "{bands:?}");
}

#[test]
fn it_is_small_and_every_weight_points_where_people_expect() {
    let model = Model::from_json(SHIPPED_MODEL, "churn.json").unwrap();
    assert_eq!(model.name, "churn");
    assert!((10..=16).contains(&model.features().len()), "{:?}", model.features());
    assert!(model.golden.len() >= 3);
    // What a product's features do is seen in the tests above: its weight says nothing alone.
    for term in model.terms.iter().filter(|term| term.with.is_none()) {
        let raises =
            ["days_since_", "overdue_", "activity_overdue_"].iter().any(|f| term.feature.starts_with(f));
        let windowed = ["_1d", "_7d", "_30d", "_90d"].iter().any(|w| term.feature.ends_with(w));
        // The longer ago a customer cancelled, the better.
        let calms = term.feature == "days_since_subscription_cancelled";
        assert!(!calms || term.weight < 0.0, "{} {}", term.feature, term.weight);
        assert!(!raises || calms || term.weight > 0.0, "{} {}", term.feature, term.weight);
        assert!(!windowed || term.weight < 0.0, "{} {}", term.feature, term.weight);
    }
}
