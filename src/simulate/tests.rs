//! What a simulation promises: the same bytes, time order, the native format, and a truth that is true.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::event::Source;
use crate::event::money::Money;
use crate::event::native::{Envelope, decode};
use crate::time::{Rfc3339, parse_rfc3339};

fn settings(customers: u64, days: u32, seed: u64) -> Settings {
    Settings { customers, days, seed, ..Settings::default() }
}

fn events(settings: &Settings) -> Vec<Record> {
    Simulation::new(settings).unwrap().collect()
}

fn json(record: &Record) -> serde_json::Value {
    serde_json::from_str(&record.json).unwrap()
}

fn kind(record: &Record) -> String {
    json(record)["type"].as_str().unwrap().to_owned()
}

#[test]
fn the_same_seed_gives_the_same_events_and_another_seed_others() {
    let of = |seed| events(&settings(30, 60, seed));
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
}

#[test]
fn a_customers_events_do_not_depend_on_how_many_others_there_are() {
    let of = |customers| -> Vec<Record> {
        events(&settings(customers, 90, 5)).into_iter().filter(|record| record.customer == 3).collect()
    };
    assert!(!of(5).is_empty());
    assert_eq!(of(5), of(40));
}

/// A change of these bytes changes every demonstration and every figure taken from simulated data: mean it.
#[test]
fn the_bytes_are_those_of_every_platform_and_every_build() {
    let mut text = String::new();
    for record in events(&settings(40, 120, 42)) {
        text.push_str(&record.json);
        text.push('\n');
    }
    assert_eq!(crate::model::artifact::definition_hash(&text), "83a7a2643bc18674");
}

/// Prints the speed: `cargo test --release --lib -- --ignored --nocapture time_of_a_million_events`.
#[test]
#[ignore = "a measurement, not a promise"]
fn time_of_a_million_events() {
    let dir = tempfile::tempdir().unwrap();
    let start = crate::time::Tick::now();
    let summary = write_files(&settings(5_000, 365, 1), dir.path(), false, &mut |_| {}).unwrap();
    println!("{summary:?} in {:.1} s", start.elapsed().as_secs_f64());
}

#[test]
fn events_are_in_time_order_within_the_period_and_ids_never_repeat() {
    let settings = settings(60, 120, 3);
    let events = events(&settings);
    assert!(events.is_sorted_by_key(|record| record.ts));
    assert!(events.iter().all(|record| (settings.start..settings.end()).contains(&record.ts)));
    let ids: BTreeSet<String> =
        events.iter().map(|r| json(r)["event_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), events.len());
}

#[test]
fn every_record_is_read_by_the_native_reader() {
    for record in events(&settings(60, 200, 4)) {
        let envelope = Envelope { source: record.source, key: None, timestamp: None, latest: None };
        let event = decode(record.json.as_bytes(), &envelope, &Money::default());
        let event = event.unwrap_or_else(|reject| panic!("{reject:?}: {}", record.json));
        assert_eq!((event.ts, event.customer_id.as_ref()), (record.ts, record.customer_id().as_str()));
    }
}

#[test]
fn every_record_has_the_fields_of_its_kind() {
    for record in events(&settings(60, 200, 4)) {
        let value = json(&record);
        let has = |key: &str| assert!(!value[key].is_null(), "no {key}: {}", record.json);
        match (record.source, value["type"].as_str().unwrap()) {
            (Source::Purchase, "order_completed") => {
                let items = value["items"].as_array().unwrap();
                let cost = |item: &serde_json::Value| {
                    item["price"].as_f64().unwrap() * item["quantity"].as_f64().unwrap()
                };
                let total: f64 = items.iter().map(cost).sum();
                assert!((total - value["amount"].as_f64().unwrap()).abs() < 1e-6, "{}", record.json);
                ["order_id", "currency", "channel"].into_iter().for_each(has);
            }
            (Source::Purchase, "order_refunded") => ["order_id", "amount"].into_iter().for_each(has),
            (Source::Support, "csat_rated") => {
                assert!((1..=5).contains(&value["csat"].as_i64().unwrap()));
            }
            (Source::Support, "nps_rated") => assert!((0..=10).contains(&value["nps"].as_i64().unwrap())),
            (Source::Support, _) => {
                assert!((-1.0..=1.0).contains(&value["sentiment"].as_f64().unwrap()));
                has("ticket_id");
            }
            (Source::Profile, _) => assert!(value["traits"].is_object()),
            _ => {}
        }
    }
}

#[test]
fn nobody_orders_outside_the_time_as_a_customer() {
    let mut simulation = Simulation::new(&settings(300, 365, 5)).unwrap();
    let mut orders: BTreeMap<String, Vec<Ts>> = BTreeMap::new();
    for record in simulation.by_ref().filter(|r| r.source == Source::Purchase) {
        if kind(&record) == "order_completed" {
            orders.entry(record.customer_id()).or_default().push(record.ts);
        }
    }
    let ts = |text: &Rfc3339| parse_rfc3339(text.as_str()).unwrap();
    let (mut left, mut returned) = (0, 0);
    for truth in simulation.truths() {
        let mine = orders.remove(&truth.customer_id).unwrap_or_default();
        assert_eq!(mine.len(), truth.orders as usize, "{truth:?}");
        for order in mine {
            let inside =
                |s: &person::Spell| ts(&s.from) <= order && s.to.as_ref().is_none_or(|to| order < ts(to));
            assert!(truth.spells.iter().any(inside), "{truth:?}");
        }
        left += usize::from(truth.dropped_out.is_some());
        returned += usize::from(truth.spells.len() > 1);
    }
    assert!(orders.is_empty(), "every customer has a truth");
    assert!((90..240).contains(&left), "{left} of 300 have left");
    assert!((3..60).contains(&returned), "{returned} of 300 have come back");
}

#[test]
fn the_mix_of_events_is_that_of_a_shop() {
    let events = events(&settings(300, 365, 6));
    let mut count: BTreeMap<String, f64> = BTreeMap::new();
    for record in &events {
        *count.entry(kind(record)).or_default() += 1.0;
    }
    let of = |name: &str| count.get(name).copied().unwrap_or(0.0);
    for name in EVERY_TYPE {
        assert!(of(name) > 0.0, "no {name}");
    }
    let share = |part: f64, whole: f64, low: f64, high: f64| {
        let share = part / whole;
        assert!((low..high).contains(&share), "{part} of {whole} is {share}, not {low} to {high}");
    };
    let per_source = |source| events.iter().filter(|r| r.source == source).count() as f64;
    let all = events.len() as f64;
    share(per_source(Source::Clickstream), all, 0.8, 0.97);
    share(per_source(Source::Purchase), all, 0.02, 0.15);
    share(per_source(Source::Support), all, 0.005, 0.08);
    share(per_source(Source::Profile), 300.0, 1.0, 2.0);
    share(of("order_refunded"), of("order_completed"), 0.02, 0.08);
    share(of("ticket_opened"), of("order_completed"), 0.04, 0.14);
    share(of("order_completed"), of("checkout_started"), 0.6, 1.0);
    share(of("product_viewed"), all, 0.15, 0.45);
    share(all / 300.0, 1.0, 60.0, 900.0);
}

const EVERY_TYPE: [&str; 31] = [
    "page_viewed",
    "screen_viewed",
    "product_viewed",
    "product_list_viewed",
    "products_searched",
    "product_added",
    "product_removed",
    "cart_viewed",
    "wishlist_added",
    "checkout_started",
    "signed_up",
    "signed_in",
    "email_opened",
    "email_clicked",
    "product_shared",
    "product_reviewed",
    "referral_sent",
    "unsubscribed",
    "order_completed",
    "order_refunded",
    "order_cancelled",
    "subscription_started",
    "subscription_renewed",
    "subscription_cancelled",
    "ticket_opened",
    "ticket_replied",
    "ticket_solved",
    "ticket_reopened",
    "csat_rated",
    "nps_rated",
    "traits_updated",
];

/// Days as a customer, over all spells, each as long as its season is busy.
fn days_as_customer(truth: &Truth, end: Ts) -> f64 {
    let ts = |text: &Rfc3339| parse_rfc3339(text.as_str()).unwrap();
    let busy = |spell: &person::Spell| -> f64 {
        let (from, to) = (ts(&spell.from), spell.to.as_ref().map_or(end, ts));
        let mood = |day: i64| calendar::mood(from + day * DAY_MS, false);
        let days = (to - from) as f64 / DAY_MS as f64;
        (0..days as i64).map(mood).sum::<f64>() + days.fract() * mood(days as i64)
    };
    truth.spells.iter().map(busy).sum()
}

#[test]
fn customers_order_at_their_latent_rate() {
    let settings = settings(600, 365, 8);
    let mut simulation = Simulation::new(&settings).unwrap();
    simulation.by_ref().for_each(drop);
    let expected: f64 =
        simulation.truths().map(|t| t.orders_per_day * days_as_customer(t, settings.end())).sum();
    let seen: f64 = simulation.truths().map(|t| f64::from(t.orders)).sum();
    assert!((seen / expected - 1.0).abs() < 0.06, "{seen} orders, {expected} by latent rate");
}

mod on_disk {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn write(dir: &Path, seed: u64, force: bool) -> Result<Summary> {
        write_files(&settings(20, 40, seed), dir, force, &mut |_| {})
    }

    fn read(dir: &Path) -> BTreeMap<String, String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|e| (e.file_name().into_string().unwrap(), fs::read_to_string(e.path()).unwrap()))
            .collect()
    }

    #[test]
    fn a_folder_holds_the_five_files_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("new/folder");
        let mut last = None;
        let summary = write_files(&settings(20, 40, 1), &target, false, &mut |p| last = Some(p)).unwrap();
        let files = read(&target);
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["clickstream.ndjson", "profile.ndjson", "purchase.ndjson", "support.ndjson", "truth.ndjson"]
        );
        for source in Source::ALL {
            let lines = files[&format!("{}.ndjson", source.name())].lines().count() as u64;
            assert_eq!(lines, summary.events[source.index()]);
        }
        assert_eq!(files["truth.ndjson"].lines().count(), 20);
        assert_eq!(last, Some(Progress { events: summary.events.iter().sum(), share: 1.0 }));
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let write_into = |name: &str, seed| {
            write(&dir.path().join(name), seed, false).unwrap();
            read(&dir.path().join(name))
        };
        let first = write_into("a", 1);
        assert_eq!(first, write_into("b", 1));
        assert_ne!(first, write_into("c", 2));
    }

    #[test]
    fn an_earlier_simulation_is_replaced_only_when_told_to() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 1, false).unwrap();
        let before = read(dir.path());
        let error = write(dir.path(), 2, false).unwrap_err();
        assert!(error.hint.unwrap().contains("--force"));
        assert_eq!(read(dir.path()), before);
        write(dir.path(), 2, true).unwrap();
        assert_ne!(read(dir.path()), before);
        assert_eq!(read(dir.path()).len(), 5);
    }

    #[test]
    fn files_that_no_simulation_wrote_are_never_touched() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["notes.txt", "clickstream.ndjson"] {
            let path = dir.path().join(name);
            fs::write(&path, "mine").unwrap();
            let error = write(dir.path(), 1, true).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert_eq!(read(dir.path()).len(), 1);
            assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn settings_out_of_bounds_are_refused() {
        for wrong in [
            settings(0, 1, 1),
            settings(CUSTOMERS_MOST + 1, 1, 1),
            settings(1, 0, 1),
            settings(1, DAYS_MOST + 1, 1),
            Settings { start: -1, ..Settings::default() },
            Settings { start: MAX_TS, ..Settings::default() },
        ] {
            assert_eq!(wrong.check().unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        assert_eq!(format_rfc3339(Settings::default().start).as_str(), "2025-01-01T00:00:00.000Z");
    }
}
