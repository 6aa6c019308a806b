use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::config::Config;
use crate::event::{Event, Field, Numbers, ProfileChange, Source};
use crate::pipeline::outbox::Channel;

fn event(source: Source, name: &'static str, ts: Ts) -> Event<'static> {
    let mut numbers = Numbers::default();
    if source == Source::Purchase {
        numbers.set(Field::Amount, 20.0);
    }
    Event {
        source,
        customer_id: "c 1".into(),
        name: Cow::Borrowed(name),
        ts,
        event_id: None,
        numbers,
        profile: None,
        channel: None,
    }
}

/// A customer who signed up and ordered twice, and what its worker remembers.
fn engine() -> (Engine, Recent) {
    let plan = Arc::new(crate::setup::plan(&Config::default(), None).unwrap());
    let mut engine = Engine::new(plan, true);
    let traits =
        vec![("vip".into(), Some(TraitValue::Flag(true))), ("seats".into(), Some(TraitValue::Number(3.0)))];
    let mut profile = event(Source::Profile, "traits_updated", 0);
    profile.profile = Some(Box::new(ProfileChange::Traits(traits)));
    engine.step(&profile);
    engine.step(&event(Source::Clickstream, "signed_up", DAY_MS));
    engine.step(&event(Source::Purchase, "order_completed", 2 * DAY_MS));
    engine.step(&event(Source::Purchase, "order_completed", 3 * DAY_MS));
    let mut recent = Recent::default();
    for (record, key, value) in engine.outbox.records() {
        if record.channel == Channel::StageChanges {
            recent.push(std::str::from_utf8(key).unwrap(), value);
        }
    }
    engine.commit();
    (engine, recent)
}

fn page(at: Ts) -> Value {
    let (engine, recent) = engine();
    serde_json::from_str(&customer_json(&engine, &recent, "c 1", at).unwrap()).unwrap()
}

#[test]
fn a_page_says_what_the_engine_holds() {
    let page = page(4 * DAY_MS);
    assert_eq!(page["customer_id"], "c 1");
    assert_eq!(page["ts"], "1970-01-05T00:00:00.000Z");
    assert_eq!(page["last_event_at"], "1970-01-04T00:00:00.000Z");
    assert_eq!(page["evaluated_at"], "1970-01-04T00:00:00.000Z");
    assert_eq!(page["features"]["orders_lifetime"], 2);
    assert_eq!(page["features"]["days_since_order"], 1);
    assert_eq!(page["features"]["days_since_ticket"], Value::Null, "infinity");
    assert_eq!(page["traits"], serde_json::json!({"seats": 3, "vip": true}));
    assert!(["low", "medium", "high"].contains(&page["band"].as_str().unwrap()));
}

#[test]
fn a_page_keeps_to_its_schema() {
    let events = crate::schema::events();
    let schema = &events.iter().find(|event| event.name == "customer").unwrap().schema;
    let page = page(4 * DAY_MS);
    let errors: Vec<String> =
        jsonschema::validator_for(schema).unwrap().iter_errors(&page).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?} in {page}");
    let described: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(described, page.as_object().unwrap().keys().collect::<Vec<_>>());
}

#[test]
fn who_refuses_to_be_scored_is_shown_without_a_score() {
    let (mut engine, recent) = engine();
    let mut profile = event(Source::Profile, "traits_updated", 4 * DAY_MS);
    let refused = vec![("consent".into(), Some(TraitValue::Flag(false)))];
    profile.profile = Some(Box::new(ProfileChange::Traits(refused)));
    engine.step(&profile);
    let page = customer_json(&engine, &recent, "c 1", 5 * DAY_MS).unwrap();
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!((&page["p_churn"], &page["band"]), (&Value::Null, &Value::Null));
    assert_eq!(page["contributions"], serde_json::json!([]));
    assert!(page["stages"]["retention"]["stage"].is_string());
}

#[test]
fn who_is_erased_is_not_found() {
    let (mut engine, recent) = engine();
    let mut erasure = event(Source::Profile, "customer_deleted", 4 * DAY_MS);
    erasure.profile = Some(Box::new(ProfileChange::Deleted));
    engine.step(&erasure);
    assert_eq!(customer_json(&engine, &recent, "c 1", 5 * DAY_MS), None);
    engine.rollback();
    assert!(customer_json(&engine, &recent, "c 1", 5 * DAY_MS).is_some(), "the transaction was taken back");
}

#[test]
fn contributions_add_up_to_the_score() {
    let page = page(4 * DAY_MS);
    let list = page["contributions"].as_array().unwrap();
    let logit: f64 = list.iter().map(|c| c["contribution"].as_f64().unwrap()).sum();
    assert!((1.0 / (1.0 + (-logit).exp()) - page["p_churn"].as_f64().unwrap()).abs() < 1e-9);
}

#[test]
fn the_newest_change_leads_to_the_present_stage() {
    let page = page(4 * DAY_MS);
    let stage = &page["stages"]["retention"];
    let newest = &page["recent"][0];
    assert_eq!(newest["to"], stage["stage"]);
    assert_eq!(newest["ts"], stage["since"]);
    assert_eq!(newest["sequence"], page["sequence"]);
    assert_eq!(newest["visit"], stage["visits"][stage["stage"].as_str().unwrap()]);
    assert_eq!(page["recent"].as_array().unwrap().len() as u64, page["sequence"].as_u64().unwrap());
    assert!(stage["days"].as_f64().unwrap() >= 1.0);
}

#[test]
fn looking_changes_nothing() {
    let (engine, recent) = engine();
    let before = engine.store().look(0).row.to_vec();
    assert_eq!(
        customer_json(&engine, &recent, "c 1", 9 * DAY_MS),
        customer_json(&engine, &recent, "c 1", 9 * DAY_MS)
    );
    assert_eq!(*engine.store().look(0).row, *before);
    assert_eq!(customer_json(&engine, &recent, "nobody", 0), None);
}

#[test]
fn the_oldest_changes_are_forgotten_first() {
    let mut recent = Recent::default();
    for n in 0..RECENT_MOST + 2 {
        recent.push(if n % 2 == 0 { "even" } else { "odd" }, n.to_string().as_bytes());
    }
    let even = recent.of("even");
    assert_eq!((even.len(), even[0]), (RECENT_MOST / 2, "10000"));
    assert_eq!(even.last(), Some(&"2"), "newest first");
    (0..RECENT_MOST).for_each(|_| recent.push("other", b"1"));
    assert!(recent.of("even").is_empty());
    assert_eq!((recent.by_customer.len(), recent.order.len()), (1, RECENT_MOST), "nothing is left behind");
}

#[test]
fn an_erased_customer_leaves_nothing() {
    let mut recent = Recent::default();
    for id in ["a", "b", "a"] {
        recent.push(id, b"1");
    }
    recent.forget("a");
    assert!(recent.of("a").is_empty());
    assert_eq!((recent.by_customer.len(), recent.order.len()), (1, 1));
    assert_eq!(recent.of("b"), ["1"]);
}
