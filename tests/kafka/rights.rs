//! A customer's rights on a real broker: what is erased is gone, stays away through crashes and restarts, and
//! nobody reads about anybody in logs and metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use serde_json::Value;
use stagecast::event::Source;
use stagecast::pipeline::erasure::{CustomerHash, OptOut};
use stagecast::simulate::START;
use stagecast::time::{DAY_MS, HOUR_MS};

use crate::process::get;
use crate::records::{Isolation, Record, until};
use crate::service::{committed, free_address, input_of};
use crate::world::{World, event, time_of};

const SOON: Duration = Duration::from_secs(60);

/// A compacted topic as it will be once compacted: the last value of every key.
fn compacted(world: &World, topic: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut latest = BTreeMap::new();
    for record in world.kafka.read(&[topic], Isolation::Committed) {
        match record.value {
            Some(value) => drop(latest.insert(record.key, value)),
            None => drop(latest.remove(&record.key)),
        }
    }
    latest
}

#[test]
fn who_is_erased_is_gone_through_kills_and_replay_says_the_same() {
    let settings = "[privacy]\nopt_out = \"400d\"\nsalt = \"pepper\"\n[commit]\ninterval = \"20ms\"\ncatch_up = \"20ms\"\nmax_records = 300\n";
    let mut world = World::new("erased", 3, settings);
    world.simulate(60, 100, 21);
    let customers: BTreeSet<String> = world.events.iter().flatten().map(|(id, _)| id.clone()).collect();
    let erased: Vec<String> = customers.iter().step_by(3).cloned().collect();
    for (n, customer) in erased.iter().enumerate() {
        let ts = START + 50 * DAY_MS + n as i64 * 7 * HOUR_MS;
        world.add(Source::Profile, customer, &event(customer, "customer_deleted", ts, ""));
    }
    world.events[Source::Profile.index()].sort_by_key(|(_, json)| time_of(json));
    world.load(0.0, 0.7);
    for point in ["before_commit:2", "after_commit:3", "before_states:5"] {
        let mut process = world.start("box-0", &["run", "--until-end"], &[("STAGECAST_FAULT", point)]);
        process.exit_code(SOON);
    }
    world.finish(&["run", "--until-end"], &[]);
    // Stragglers of the erased come in another life.
    world.load(0.7, 1.0);
    world.finish_and_check();

    let (state, scores) = (format!("{}-state", world.app), world.topic("churn-scores"));
    for topic in [&state, &scores] {
        let kept = compacted(&world, topic);
        assert!(
            erased.iter().all(|id| !kept.contains_key(id.as_bytes())),
            "{topic} still holds an erased one"
        );
        assert!(customers.iter().any(|id| kept.contains_key(id.as_bytes())), "{topic} lost the others");
    }
    let hash = |id: &String| CustomerHash::new("pepper", id);
    let remembered: BTreeSet<CustomerHash> =
        compacted(&world, &state).keys().filter_map(|key| OptOut::of_key(key)).collect();
    assert_eq!(remembered, erased.iter().map(hash).collect());

    let receipts: BTreeSet<String> = world
        .kafka
        .read(&[&format!("{}-erasures", world.app)], Isolation::Committed)
        .iter()
        .map(|receipt| receipt.text().to_owned())
        .collect();
    let replayed = fs::read_to_string(world.replay().join("erasures.ndjson")).unwrap();
    assert_eq!(receipts, replayed.lines().map(str::to_owned).collect());
    assert_eq!(receipts.len(), erased.len());
    for receipt in &receipts {
        let receipt: Value = serde_json::from_str(receipt).unwrap();
        assert!(erased.iter().any(|id| receipt["customer_hash"] == hash(id).to_hex()), "{receipt}");
    }
}

/// Ids and payloads that must be nowhere but where they belong.
const CANARIES: [&str; 6] =
    ["canary-good", "canary-gone", "canary-late", "canary-poison", "canary-payload", "canary-trait"];

#[test]
fn nobody_is_named_in_logs_and_metrics() {
    let mut world = World::new("canaries", 2, "");
    let at = |hours: i64| START + hours * HOUR_MS;
    for (n, customer) in ["canary-good", "canary-gone", "canary-late"].into_iter().enumerate() {
        let ts = at(n as i64);
        let view = event(customer, "product_added", ts, r#","url":"/canary-payload""#);
        world.add(Source::Clickstream, customer, &view);
        world.add(Source::Purchase, customer, &event(customer, "order_completed", ts, r#","amount":9"#));
        let traits = r#","traits":{"canary-trait":"canary-payload"}"#;
        world.add(Source::Profile, customer, &event(customer, "traits_updated", ts, traits));
    }
    world.add(Source::Profile, "canary-gone", &event("canary-gone", "customer_deleted", at(5), ""));
    world.add(Source::Profile, "canary-gone", &event("canary-gone", "traits_updated", at(6), ""));
    world.add(Source::Clickstream, "canary-late", &event("canary-late", "product_viewed", at(-9), ""));
    world.load(0.0, 1.0);
    let poison = [
        "canary-payload",
        r#"{"customer_id":"canary-poison","type":"canary-payload","ts":"canary-payload"}"#,
        r#"{"customer_id":"canary-poison","type":"product_viewed","ts":1,"url":["canary-payload"]}"#,
        r#"{"customer_id":["canary-poison"],"type":"order_completed","ts":"2025-01-01T00:00:00Z"}"#,
        r#"{"customer_id":"canary-poison","traits":{"canary-trait":{"canary-payload":1}}}"#,
    ];
    for source in Source::ALL {
        let records = poison.iter().map(|json| Record::new("canary-poison", *json));
        world.kafka.produce(&world.topic(source.name()), records);
    }
    let address = free_address();
    let listen = format!("http.listen={address}");
    let mut printed = String::new();
    // The first life dies in a transaction, the second does all the work, the third restores it.
    for life in 1..=3 {
        let fault = if life == 1 { "before_commit:1" } else { "" };
        let env = [("STAGECAST_FAULT", fault), ("RUST_LOG", "info")];
        let mut process = world.start("box-0", &["run", "--set", &listen], &env);
        if life > 1 {
            let all = (input_of(&world) + poison.len() * Source::ALL.len()) as i64;
            process.answer(&address, "/readyz", SOON);
            until("everything to be consumed", || committed(&world) >= all);
            let known = get(&address, "/customers/canary-good").map(|(status, _)| status);
            let gone = get(&address, "/customers/canary-gone").map(|(status, _)| status);
            assert_eq!((known, gone), (Some(200), Some(404)));
            let metrics = process.answer(&address, "/metrics", SOON);
            let dropped = r#"stagecast_events_total{result="erased",source="profile"}"#;
            let expected = format!("{dropped} {}", if life == 2 { 1 } else { 0 });
            assert!(metrics.contains(&expected), "{metrics}");
            printed += &metrics;
            process.terminate();
        }
        process.exit_code(SOON);
        printed += &(process.stdout() + &process.stderr());
    }
    assert!(printed.contains("restored"), "nothing was logged:\n{printed}");
    for canary in CANARIES {
        let line = printed.lines().find(|line| line.contains(canary));
        assert!(line.is_none(), "{canary} is named: {line:?}");
    }
    assert!(!world.kafka.read(&[&format!("{}-dlq", world.app)], Isolation::Committed).is_empty());
}
