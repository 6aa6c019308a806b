//! Customers of several ids on a real broker: visitors without a name become customers in other partitions, and
//! whatever dies meanwhile, nobody is lost, nobody is there twice, and all have the features that `replay` says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use stagecast::config::{Config, Layers};
use stagecast::event::Source;
use stagecast::pipeline::described::Description;
use stagecast::pipeline::emit;
use stagecast::pipeline::engine::Engine;
use stagecast::pipeline::varint::get_u64;
use stagecast::setup;
use stagecast::simulate::START;
use stagecast::time::{DAY_MS, HOUR_MS, MINUTE_MS, Ts};

use crate::checker::check_sequences;
use crate::records::{Isolation, until};
use crate::service::{committed, free_address, input_of};
use crate::world::{World, event, time_of};

const SOON: Duration = Duration::from_secs(60);
const MANY: &str = "[commit]\ninterval = \"10ms\"\ncatch_up = \"10ms\"\nmax_records = 40\n";

const BY_TRAIT: &str = "[identity]\ntraits = [\"was\"]\n";

/// Two of three customers come without a name first, and half of them name it by a trait, again and again; some events
/// come under the old id although it is known.
fn with_visitors(world: &mut World) -> BTreeSet<String> {
    let mut times: BTreeMap<String, Vec<Ts>> = BTreeMap::new();
    for (id, json) in world.events.iter().flatten() {
        times.entry(id.clone()).or_default().push(time_of(json));
    }
    let mut visitors = BTreeSet::new();
    for (n, (id, mut times)) in times.into_iter().enumerate().filter(|(n, _)| n % 3 != 0) {
        times.sort_unstable();
        let named_at = times[times.len() * (n % 5) / 5] + MINUTE_MS;
        let visitor = format!("visitor-{id}");
        let mut strays = 0;
        for (key, json) in world.events.iter_mut().flatten().filter(|(key, _)| *key == id) {
            let is_stray = time_of(json) > named_at && {
                strays += 1;
                strays % 4 == 0
            };
            if time_of(json) < named_at || is_stray {
                *json = json.replace(&format!("\"{id}\""), &format!("\"{visitor}\""));
                *key = visitor.clone();
            }
        }
        if n % 2 == 0 {
            let from = format!(r#","from_id":"{visitor}""#);
            world.add(Source::Profile, &id, &event(&id, "customers_merged", named_at, &from));
        } else {
            let was = format!(r#","traits":{{"was":"{visitor}"}}"#);
            for day in 0..3 {
                let told_at = named_at + day * DAY_MS;
                world.add(Source::Profile, &id, &event(&id, "traits_updated", told_at, &was));
            }
        }
        visitors.insert(visitor);
    }
    world.events[Source::Profile.index()].sort_by_key(|(_, json)| time_of(json));
    visitors
}

/// The customers in the state topic, and their features and stages at an instant.
fn kept(world: &World, at: Ts) -> BTreeMap<String, Value> {
    let config = Config::from_layers(&Layers::default()).unwrap();
    let plan = Arc::new(setup::plan(&config, None).unwrap());
    let mut engine = Engine::new(plan, false);
    let mut states: BTreeMap<(i32, Vec<u8>), Vec<u8>> = BTreeMap::new();
    for record in world.kafka.read(&[&world.topic("state")], Isolation::Committed) {
        match record.value {
            Some(value) => drop(states.insert((record.partition, record.key), value)),
            None => drop(states.remove(&(record.partition, record.key))),
        }
    }
    let mut known = BTreeSet::new();
    for ((_, key), value) in &states {
        let Ok(id) = std::str::from_utf8(key) else {
            if let Some(layout) = stagecast::kafka::marker::layout_of_key(key) {
                engine.learn_layout(layout, Description::decode(value).unwrap());
            }
            continue;
        };
        assert!(known.insert(id), "{id} has a state in two partitions");
        let mut start = 0;
        get_u64(value, &mut start);
        engine.restore(id, &value[start..]).unwrap();
    }
    engine.finish_restore();
    engine.run_until(at);
    let store = engine.store();
    let told = |index: u32| {
        let (id, mut json) = (store.id(index), Vec::new());
        emit::snapshot(&mut json, engine.plan(), id, &engine.view(index, at), at);
        (id.to_string(), serde_json::from_slice(&json).unwrap())
    };
    store.indices().map(told).collect()
}

/// Everybody is there once, and is who `replay` says.
fn check(world: &World, visitors: &BTreeSet<String>) {
    let at = world.instant(1.0) + HOUR_MS;
    let (kept, expected) = (kept(world, at), world.features(at));
    assert_eq!(
        kept.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "customers are lost or are there too often"
    );
    assert!(!kept.keys().any(|id| visitors.contains(id)), "a visitor is still there");
    for (id, customer) in &expected {
        assert_eq!(kept[id]["features"], customer["features"], "{id}");
    }
    // Events of a customer may overtake what it was merged with; few rules remember that.
    let elsewhere =
        expected.iter().filter(|(id, customer)| kept[*id]["stages"] != customer["stages"]).count();
    assert!(elsewhere <= expected.len() / 20, "{elsewhere} of {} are in other stages", expected.len());
    let mut violations = Vec::new();
    check_sequences(&world.written(Isolation::Committed)["stage-changes"], &mut violations);
    assert!(violations.is_empty(), "{violations:?}");
}

#[test]
fn visitors_become_customers_across_partitions_through_kills() {
    let mut world = World::new("merged", 4, &[MANY, BY_TRAIT].concat());
    world.simulate(90, 90, 31);
    let visitors = with_visitors(&mut world);
    world.load(0.0, 0.6);
    for point in
        ["before_commit:2", "after_commit:3", "before_states:5", "before_commit:9", "after_commit:20"]
    {
        let mut process = world.start("box-0", &["run", "--until-end"], &[("STAGECAST_FAULT", point)]);
        let code = process.exit_code(SOON);
        assert_ne!(code, Some(2), "{point}: {}", process.stderr());
    }
    world.finish(&["run", "--until-end"], &[]);
    world.load(0.6, 1.0);
    let mut seed = 0x51_7cc1_b727_220au64;
    for _ in 0..6 {
        let before = committed(&world);
        let process = world.start("box-0", &["run"], &[]);
        until("the service to be at work", || {
            committed(&world) > before || before == input_of(&world) as i64
        });
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        stagecast::time::sleep(Duration::from_millis((seed >> 33) % 60));
        process.kill();
    }
    world.finish(&["run", "--until-end"], &[]);
    check(&world, &visitors);

    let address = free_address();
    let mut process = world.start("box-0", &["run", "--set", &format!("http.listen={address}")], &[]);
    process.answer(&address, "/readyz", SOON);
    let customers = world.features(world.instant(1.0)).len() as f64;
    until("the counts per stage to be those of all customers", || {
        let metrics = process.answer(&address, "/metrics", SOON);
        let of_stages = metrics.lines().filter(|line| line.starts_with("stagecast_customers{"));
        let sum: f64 = of_stages.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        sum == customers
    });
    process.terminate();
}

/// Pairs of which the first was folded into the second.
const PAIRS: [(&str, &str); 4] = [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")];

/// Nobody of the pairs is left anywhere, and the receipts are those of `replay`.
fn check_all_are_gone(world: &World) {
    let ids: BTreeSet<&str> = PAIRS.iter().flat_map(|(from, to)| [*from, *to]).collect();
    for topic in [world.topic("state"), world.topic("churn-scores")] {
        let mut latest = BTreeMap::new();
        for record in world.kafka.read(&[&topic], Isolation::Committed) {
            latest.insert(record.key, record.value.is_some());
        }
        let left = latest.iter().filter(|(key, is_there)| {
            **is_there && std::str::from_utf8(key).is_ok_and(|id| ids.contains(id))
        });
        let left: Vec<_> = left.map(|(key, _)| String::from_utf8_lossy(key)).collect();
        assert!(left.is_empty(), "{topic} still holds {left:?}");
    }
    let written = world.kafka.read(&[&world.topic("erasures")], Isolation::Committed);
    let written: BTreeSet<String> = written.iter().map(|receipt| receipt.text().to_owned()).collect();
    let replayed = std::fs::read_to_string(world.replay().join("erasures.ndjson")).unwrap();
    assert_eq!(written, replayed.lines().map(str::to_owned).collect());
    assert_eq!(written.len(), ids.len());
}

/// Everybody of the pairs was there; on the second day each is folded into the other, which is erased later.
fn with_pairs(world: &mut World, erased_at: Ts) {
    for (from, to) in PAIRS {
        for id in [from, to] {
            world.add(Source::Clickstream, id, &event(id, "page_viewed", START, ""));
        }
        let merge = format!(r#","from_id":"{from}""#);
        world.add(Source::Profile, to, &event(to, "customers_merged", START + DAY_MS, &merge));
        world.add(Source::Profile, to, &event(to, "customer_deleted", erased_at, ""));
    }
}

#[test]
fn who_is_erased_while_a_merge_is_under_way_stays_erased() {
    let mut world = World::new("merge-erased", 3, "[privacy]\nopt_out = \"0s\"\n");
    with_pairs(&mut world, START + DAY_MS + 10_000);
    world.sort();
    world.load(0.0, 0.5);
    world.finish(&["run", "--until-end"], &[]);
    world.load(0.5, 1.0);
    world.finish(&["run", "--until-end"], &[]);
    check_all_are_gone(&world);
}

#[test]
fn a_backlog_longer_than_the_opt_out_brings_nobody_back() {
    let mut world = World::new("merge-backlog", 3, "[privacy]\nopt_out = \"3d\"\n");
    with_pairs(&mut world, START + 3 * DAY_MS);
    for (day, n) in (0..28).flat_map(|day| (0..8).map(move |n| (day, n))) {
        let id = format!("other-{n}");
        let view = event(&id, "page_viewed", START + day * DAY_MS + 5 * HOUR_MS, "");
        world.add(Source::Clickstream, &id, &view);
    }
    world.sort();
    world.load(0.0, 1.0);
    for point in ["after_commit:1", "before_commit:2"] {
        let mut process = world.start("box-0", &["run", "--until-end"], &[("STAGECAST_FAULT", point)]);
        process.exit_code(SOON);
    }
    world.finish(&["run", "--until-end"], &[]);
    check_all_are_gone(&world);
}

#[test]
fn a_circle_of_merges_in_a_backlog_leaves_one_customer_and_one_dead_letter() {
    let mut world = World::new("merge-circle", 3, MANY);
    let ids: Vec<String> = (0..14).map(|n| format!("k{n:02}")).collect();
    for id in &ids {
        for ts in [START, START + 4 * DAY_MS] {
            world.add(Source::Clickstream, id, &event(id, "page_viewed", ts, ""));
        }
    }
    let merge = |world: &mut World, from: &str, to: &str, ts: Ts| {
        let json = event(to, "customers_merged", ts, &format!(r#","from_id":"{from}""#));
        world.add(Source::Profile, to, &json);
        json
    };
    for (n, pair) in ids.windows(2).enumerate() {
        merge(&mut world, &pair[0], &pair[1], START + DAY_MS + n as i64 * MINUTE_MS);
    }
    let contradiction = merge(&mut world, &ids[13], &ids[0], START + 2 * DAY_MS);
    world.sort();
    world.load(0.0, 1.0);
    for point in ["before_commit:2", "after_commit:3"] {
        let mut process = world.start("box-0", &["run", "--until-end"], &[("STAGECAST_FAULT", point)]);
        process.exit_code(SOON);
    }
    world.finish(&["run", "--until-end"], &[]);
    check(&world, &ids[..13].iter().cloned().collect());
    let letters = world.kafka.read(&[&world.topic("dlq")], Isolation::Committed);
    let letters: Vec<&str> = letters.iter().map(|letter| letter.text()).collect();
    assert_eq!(letters, [contradiction]);
}
